from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t

from nghttp2py cimport cngp as lib
from nghttp2py.h2.bodies cimport BodySources
from nghttp2py.h2.convert cimport EventReader, FieldList


cdef class H2Connection:
    cdef lib.ngp_h2 *_h2  # owned
    cdef EventReader _reader
    cdef list _pending     # events that sending has produced
    cdef BodySources _bodies
    cdef bint _initiated
    cdef bint _busy        # C's events or output are being read
    cdef bint _goaway_sent
    cdef bint _hold_resets
    cdef bint _connect_enabled  # SETTINGS_ENABLE_CONNECT_PROTOCOL was sent as 1
    cdef bint _normalizes  # config.normalize_outbound_headers
    cdef size_t _max_queued_requests
    cdef readonly object config
    cdef readonly bint client_side

    cdef EventReader read_by(self, type reader)
    cdef int _start(self) except -1
    cdef int _widen(self) except -1
    cdef int _need_start(self) except -1
    cdef int _enter(self) except -1
    cdef int _gather(self, size_t limit) except -1
    cdef int _release_owners(self) except -1
    cdef int _check_end(self, int rv) except -1
    cdef int _known(self, int32_t stream_id) except -1
    cdef int _submit_ping(self, opaque_data, bint ack) except -1
    cdef int _submit_settings(self, dict settings) except -1
    cdef uint32_t _remote(self, int setting)
    cdef int _server_stream(self, int32_t stream_id) except -1
    cdef int _normalize(self, FieldList fields) except -1
    cdef object _submit_request(self, FieldList fields, bint end_stream)
    cdef int _submit_response(
        self, int32_t stream_id, FieldList fields, bint end_stream
    ) except -1
    cdef int _submit_informational(
        self, int32_t stream_id, FieldList fields
    ) except -1

    # What costs time for each request, without the conversions.
    cdef list receive(self, const uint8_t *base, size_t left)
    cdef bytes take_output(self, size_t limit)
    cdef int respond(
        self, int32_t stream_id, status, headers, bint end_stream
    ) except -1
    cdef int queue_body(
        self, int32_t stream_id, bytes data, bint end_stream
    ) except -1
    cdef int acknowledge(self, int32_t stream_id, n) except -1
    cdef bint is_under_way(self, int32_t stream_id) noexcept
    cdef bint is_open(self, int32_t stream_id) noexcept
    cdef int stop_request(self, int32_t stream_id) except -1
