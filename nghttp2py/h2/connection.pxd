from libc.stddef cimport size_t
from libc.stdint cimport int32_t

from nghttp2py.h2.headers cimport FieldList
from nghttp2py.h2.session cimport H2Session


cdef class H2Connection(H2Session):
    cdef bint _normalizes  # config.normalize_outbound_headers

    cdef int _normalize(self, FieldList fields) except -1
    cdef int _fail_source(self, int32_t stream_id, error) except -1
    cdef int _check(self, int rv, stream_id, str state) except -1
    cdef object _submit_request(self, FieldList fields, bint end_stream)
    cdef int _submit_response(
        self, int32_t stream_id, FieldList fields, bint end_stream
    ) except -1
    cdef int _submit_informational(
        self, int32_t stream_id, FieldList fields
    ) except -1
    cdef int _submit_trailers(self, int32_t stream_id, FieldList fields) except -1
    cdef int _check_trailers(
        self, int32_t stream_id, FieldList fields, size_t n
    ) except -1
    cdef int _no_source(self, int32_t stream_id) except -1
    cdef int _check_queued(self, int rv, int32_t stream_id, bytes data) except -1
    cdef int _queue_body(self, int32_t stream_id, bytes data, bint end_stream) except -1
    cdef object _length_error(self, int32_t stream_id, size_t n)

    # What costs a server time for each request, without the conversions.
    cdef int respond(
        self, int32_t stream_id, status, headers, bint end_stream
    ) except -1
    cdef int end_body(self, int32_t stream_id, bytes data) except -1
    cdef bint is_open(self, int32_t stream_id) noexcept
    cdef int stop_request(self, int32_t stream_id) except -1
