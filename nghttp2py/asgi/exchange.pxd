from libc.time cimport time_t

from nghttp2py.asgi.application cimport Application, ApplicationExchange
from nghttp2py.exchange cimport Exchange
from nghttp2py.h2.events cimport RequestReceived

cdef enum:
    # Octets that may be queued for the client when send() returns, and those that are
    # left when a send() that waits goes on: fewer, so that it wakes for several pieces.
    QUEUED = 131072
    LOW = 32768

cdef enum State:
    AWAITS_START
    AWAITS_BODY
    AWAITS_TRAILERS
    COMPLETE


cdef class HTTPApplication(Application):
    cdef bint _dates       # whether responses have the date
    cdef tuple _date_pair  # its field
    cdef time_t _date      # when that was made
    cdef tuple _server_pair
    cdef list _headers
    cdef Py_ssize_t _limit  # of exchanges; -1: none
    cdef object _max_body
    cdef bytes _health_path

    cdef ASGIExchange new_request(self)
    cdef tuple date_field(self)
    cdef int add_defaults(self, list headers, int present) except -1


cdef class ASGIExchange(ApplicationExchange):
    cdef State _state
    cdef list _body           # the pieces that the application has not taken
    cdef Py_ssize_t _unread   # their octets
    cdef object _received     # octets of the whole body so far
    cdef bint _request_ended
    cdef bint _end_taken      # the application has the end of the body
    cdef bint _continued      # 100 (Continue) was sent, or is not needed
    cdef bint _no_body        # what the application sends of a body is dropped
    cdef bint _sends_trailers  # the application has announced trailers
    cdef bint _drops_trailers  # likewise, but the client takes none
    cdef bint _pushed
    cdef bint _ended_here     # the response was ended by us, not by the application
    cdef object _file         # a file that is open while the response is sent
    cdef list _trailer_fields
    cdef list _response       # the fields of the response
    cdef object _stall        # the timer that bounds a waiting send()
    cdef object _stall_queued  # octets that were queued when it was set

    cdef object _client_is_gone(self)
    cdef int _expect(self, str kind, State state) except -1
    cdef object _send_start(self, dict message)
    cdef bint _takes_trailers(self) except -1
    cdef list _take_headers(self, given, int *present)
    cdef object _send_body(self, dict message)
    cdef object _queue(self, body, bint last)
    cdef bint _has_room(self) except -1
    cdef int _body_sent(self) except -1
    cdef int _finish(self) except -1
    cdef int _drop_body(self) except -1
    cdef object _send_other(self, str kind, dict message)
    cdef int _check_announced(self, str kind) except -1
    cdef object _send_trailers(self, dict message)
    cdef object _send_early_hint(self, dict message)
    cdef object _send_informational(self, dict message)
    cdef object _inform(self, status, fields)
    cdef object _send_path(self, dict message)
    cdef object _send_file(self, dict message)
    cdef object _push(self, dict message)
    cdef object _refuse(self, int status)
    cdef object _give_up(self, int status)
    cdef int _break_off(self) except -1
    cdef int _close_file(self) except -1
    cdef int _start_stall(self) except -1
    cdef int _stop_stall(self) except -1
    cdef int _check_stall(self) except -1


cdef int answer(Exchange exchange, HTTPApplication application, int status) except -1
