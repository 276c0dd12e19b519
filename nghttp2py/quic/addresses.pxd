from libc.stdint cimport uint16_t, uint64_t

from nghttp2py cimport cngp_quic as lib

cdef uint64_t to_ns(double seconds) except? -1
cdef bint pack_address(addr, lib.ngp_quic_addr *packed)


cdef class AddressBook:
    cdef lib.ngp_quic_addr last  # in C's form
    cdef object _last
    cdef dict _known             # C's form, as bytes -> the caller's
    cdef uint16_t _invented
    cdef bint _keeps_local

    cdef int take(self, addr) except -1
    cdef object find(self, const lib.ngp_quic_addr *packed)
