from nghttp2py cimport cngp as lib
from nghttp2py.h2.events cimport RequestReceived
from nghttp2py.h2.headers cimport FieldReader


cdef class EventReader:
    cdef dict sources
    cdef set removed  # open streams that the caller has done with
    cdef object settings_sent    # deque of dicts: SETTINGS not acknowledged yet
    cdef bint going_away         # GOAWAY has come in, or the connection is closed
    cdef FieldReader _pairs
    cdef const lib.ngp_h2_field *_fields  # borrowed while take() runs

    cdef int take(self, lib.ngp_h2 *h2, list events) except -1
    cdef int _take_event(self, list events, const lib.ngp_h2_event *e) except -1
    cdef object _take_rare(self, const lib.ngp_h2_event *e)
    cdef tuple _take_fields(self, const lib.ngp_h2_event *e)
    cdef RequestReceived _new_request(self, const lib.ngp_h2_event *e)
    cdef int _take_request(self, list events, const lib.ngp_h2_event *e) except -1
    cdef int _take_response(self, list events, const lib.ngp_h2_event *e) except -1
