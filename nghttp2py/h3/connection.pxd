from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.h3.convert cimport FieldList, NameCache
from nghttp2py.link cimport QuicLink


cdef class H3Connection:
    cdef lib.ngp_h3 *_h3     # owned
    cdef NameCache _names
    cdef FieldList _fields
    cdef readonly object _quic
    cdef QuicLink _link      # the link to it
    cdef object _quic_logger
    cdef object _config
    cdef dict _kinds         # the kind of each class of QUIC events
    cdef dict _sent
    cdef dict _received
    cdef bint _settings_known
    cdef bint _validate
    cdef int _changes        # flags of make_headers for received fields

    cdef list _receive_stream(
        self, int64_t stream_id, const uint8_t *data, size_t n, bint end_stream,
        bytes whole,
    )
    cdef list _receive_datagram(self, const uint8_t *data, size_t n, bytes whole)
    cdef int _kind_of(self, event) except -1
    cdef int _require(self) except -1
    cdef int _perform(self) except -1
    cdef int _reset_or_stop(
        self, int what, stream_id, error_code, bint best_effort
    ) except -1
    cdef int _check(self, int rv) except -1
    cdef list _finish(self, int rv, bytes whole)
    cdef object _new_event(
        self,
        const lib.ngp_h3_event *event,
        const lib.nghttp3_qpack_nv *fields,
        bytes whole,
    )
    cdef bytes _take(self, const lib.ngp_h3_event *event, bytes whole)
    cdef int _log_stream_type(
        self, stream_id, stream_type, push_id=*
    ) except -1
