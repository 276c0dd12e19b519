from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from nghttp2py cimport cngp as lib


# A received pair, as it was last made from two buffers of the HPACK table.
cdef struct CachedPair:
    lib.nghttp2_rcbuf *name   # held
    lib.nghttp2_rcbuf *value  # held
    void *pair                # a tuple, owned


cdef class FieldReader:
    cdef CachedPair *_pairs  # owned; NULL until the first field
    cdef CachedPair _large[8]
    cdef int _next_large     # the slot that was filled longest ago
    cdef size_t _kept        # the sum of what is kept
    cdef bint _lenient       # white space around values is stripped

    cdef void _forget(self) noexcept
    cdef int _keep(
        self, CachedPair *slot, const lib.ngp_h2_field *field, tuple pair
    ) except -1
    cdef object pair(self, const lib.ngp_h2_field *field)
    cdef object _large_pair(self, const lib.ngp_h2_field *field, size_t n)


cdef class FieldList:
    cdef list _pairs           # keeps alive what _nva points at
    cdef lib.nghttp2_nv *_many  # owned; NULL while _few is enough
    cdef lib.nghttp2_nv _few[16]

    cdef int add(self, bytes name, bytes value) except -1
    cdef int extend(self, headers) except -1
    cdef int normalize(self) except -1
    cdef lib.nghttp2_nv *nva(self) except NULL
    cdef size_t nvlen(self)
    cdef object error(self, const lib.ngp_h2_header_error *error)
    cdef bint is_informational(self)
    cdef int64_t content_length(self) except? -1


cdef Py_ssize_t borrow_fields(
    headers, lib.nghttp2_nv *nva, Py_ssize_t room
) except -2
