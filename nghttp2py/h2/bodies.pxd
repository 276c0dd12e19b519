from libc.stddef cimport size_t
from libc.stdint cimport int32_t

from nghttp2py cimport cngp as lib
from nghttp2py.h2.convert cimport EventReader, FieldList


cdef class BodySources:
    cdef lib.ngp_h2 *_h2  # borrowed from the connection that holds this
    cdef dict sources     # stream id -> (BodySource, trailers or None, end_stream)

    cdef int queue(self, int32_t stream_id, bytes data, bint end_stream) except -1
    cdef int check_queued(self, int rv, int32_t stream_id, bytes data) except -1
    cdef int submit_trailers(self, int32_t stream_id, FieldList fields) except -1
    cdef int check_trailers(
        self, int32_t stream_id, FieldList fields, size_t n
    ) except -1
    cdef int require_none(self, int32_t stream_id) except -1
    cdef int add(
        self, int32_t stream_id, source, FieldList trailers, bint end_stream
    ) except -1
    cdef int resume(self, int32_t stream_id) except -1
    cdef bint drop(self, int32_t stream_id) except -1
    cdef bint feed(
        self, int32_t stream_id, size_t wanted, EventReader reader, list events
    ) except -1
    cdef int _feed(self, int32_t stream_id, tuple entry, size_t wanted) except -1
    cdef object _length_error(self, int32_t stream_id, size_t n)


cdef BodySources new_sources(lib.ngp_h2 *h2)
