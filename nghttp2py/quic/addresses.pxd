from libc.stdint cimport uint64_t

from nghttp2py cimport cngp_quic as lib

cdef uint64_t to_ns(double seconds) except? -1
cdef bint pack_address(addr, lib.ngp_quic_addr *packed)
cdef object unpack_address(const lib.ngp_quic_addr *packed)
