from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from nghttp2py cimport cngp_h3 as lib

cdef enum:
    # The number of fields of most messages.
    FEW = 32
    # More names than a peer's tables usually have.
    SLOTS = 128


cdef object or_none(int64_t number)
cdef int64_t to_id(value, str name) except -1
cdef list split_origins(const uint8_t *data, size_t n)


cdef class FieldList:
    cdef object _pairs          # keeps alive what nva points to
    cdef lib.nghttp3_nv *_many  # owned; NULL while _few is enough
    cdef lib.nghttp3_nv _few[FEW]
    cdef lib.nghttp3_nv *nva
    cdef size_t nvlen

    cdef int fill(self, headers) except -1
    cdef void clear(self)


# Repeated names, as bytes objects: QPACK returns a name of its tables in the same
# buffer each time, and while that is held, no other name can have its address.  This
# must be freed before the decoder.
cdef struct NameCache:
    lib.nghttp3_rcbuf *keys[SLOTS]  # held
    void *names[SLOTS]              # bytes objects, owned


cdef void names_free(NameCache *names) noexcept
# Releases the pairs of fields; before the decoder is freed.
cdef void pairs_free(lib.ngp_qpack_pairs *pairs) noexcept


cdef enum:
    # Flags of make_headers.
    JOIN_COOKIES = 1
    STRIP_VALUES = 2


# Makes a list of pairs.  Those of table entries are kept in ``pairs``.
cdef list make_headers(
    NameCache *names, lib.ngp_qpack_pairs *pairs, const lib.nghttp3_qpack_nv *fields,
    size_t n, int changes,
)
