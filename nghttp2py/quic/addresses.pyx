"""The caller's addresses and times, in the form that C has them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from nghttp2py cimport cngp_quic as lib

import ipaddress

# Times of the caller's clock, in seconds, must fit in 63 bits of nanoseconds.
cdef double MAX_TIME = 9.2e9


cdef uint64_t to_ns(double seconds) except? -1:
    """Nanoseconds of a time of the caller's clock."""
    if not 0.0 <= seconds < MAX_TIME:
        raise ValueError("a time must be zero to 9.2e9 seconds")
    return <uint64_t>(seconds * 1e9)


cdef bint pack_address(addr, lib.ngp_quic_addr *packed):
    """Pack a socket address; false if it is none."""
    cdef bytes ip

    try:
        parsed = ipaddress.ip_address(addr[0].partition("%")[0])
        packed.port = addr[1]
        packed.scope = addr[3] if len(addr) > 3 else 0
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return False
    ip = parsed.packed
    if len(ip) == 4:
        ip = b"\0" * 10 + b"\xff\xff" + ip
    memcpy(packed.ip, PyBytes_AS_STRING(ip), 16)
    return True


cdef object unpack_address(const lib.ngp_quic_addr *packed):
    parsed = ipaddress.IPv6Address(
        PyBytes_FromStringAndSize(<const char *>packed.ip, 16)
    )
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped), packed.port
    return str(parsed), packed.port, 0, packed.scope
