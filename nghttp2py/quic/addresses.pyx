"""Conversions of the caller's addresses and times to C's form."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from nghttp2py cimport cngp_quic as lib
from nghttp2py.octets cimport copy_bytes

import ipaddress

# Times of the caller's clock, in seconds, must fit in 63 bits of nanoseconds.
cdef double MAX_TIME = 9.2e9

# For how many addresses of a peer the caller's objects are kept.
cdef enum:
    MAX_ADDRESSES = 16


cdef uint64_t to_ns(double seconds) except? -1:
    """Convert a time of the caller's clock, in seconds, to nanoseconds."""
    if not 0.0 <= seconds < MAX_TIME:
        raise ValueError("a time must be zero to 9.2e9 seconds")
    return <uint64_t>(seconds * 1e9)


cdef bint pack_address(addr, lib.ngp_quic_addr *packed):
    """Pack a socket address; for another object leave zeros and return false."""
    cdef bytes ip
    cdef uint16_t port
    cdef uint32_t scope

    memset(packed, 0, sizeof(packed[0]))
    try:
        ip = ipaddress.ip_address(addr[0].partition("%")[0]).packed
        port = addr[1]
        scope = addr[3] if len(addr) > 3 else 0
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return False
    if len(ip) == 4:
        ip = b"\0" * 10 + b"\xff\xff" + ip
    memcpy(packed.ip, PyBytes_AS_STRING(ip), 16)
    packed.port = port
    packed.scope = scope
    return True


cdef int pack_local(addr, lib.ngp_quic_addr *packed) except -1:
    """Pack our address to which ``addr`` has sent, if it is known."""
    cdef bytes ip

    local = getattr(addr, "local", None)
    if local is not None:
        ip, packed.local_scope = local
        memcpy(packed.local, PyBytes_AS_STRING(ip), min(len(ip), 16))
    return 0


def network_of(addr):
    """Return what identifies a client: an IPv4 address, or the first 64 bits of an IPv6
    address, as bytes.  An object that is no socket address is returned itself."""
    cdef lib.ngp_quic_addr packed
    cdef bytes ip

    if not pack_address(addr, &packed):
        return addr
    ip = copy_bytes(packed.ip, 16)
    return ip[12:] if ip.startswith(b"\0" * 10 + b"\xff\xff") else ip[:8]


def plain_address(addr):
    """Return an address with an IPv4 address mapped to IPv6 (RFC 4291, 2.5.5.2) as that
    IPv4 address and port; any other is returned itself."""
    if isinstance(addr, tuple) and len(addr) == 4:
        host = addr[0]
        if isinstance(host, str) and host.startswith("::ffff:") and "." in host:
            return host[7:], addr[1]
    return addr


cdef object unpack_address(const lib.ngp_quic_addr *packed):
    parsed = ipaddress.IPv6Address(copy_bytes(packed.ip, 16))
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped), packed.port
    return str(parsed), packed.port, 0, packed.scope


cdef class AddressBook:
    """The addresses of a peer, in the caller's form and in C's.

    The caller gets its own objects back, and they may be anything: C gets a made-up
    address for an object that is no socket address.  For a server it also keeps our
    address to which the peer has sent.
    """

    def __cinit__(self, bint keeps_local):
        memset(&self.last, 0, sizeof(self.last))
        self._keeps_local = keeps_local
        self._known = {}

    cdef int take(self, addr) except -1:
        """Make ``addr`` the last address."""
        cdef lib.ngp_quic_addr packed
        cdef bytes key

        if self._last is not None and (addr is self._last or (
            addr == self._last
            and getattr(addr, "local", None) == getattr(self._last, "local", None)
        )):
            return 0
        if not pack_address(addr, &packed):
            for key, known in self._known.items():
                if known == addr:
                    memcpy(&packed, PyBytes_AS_STRING(key), len(key))
                    break
            else:
                self._invented += 1
                packed.ip[0] = 0xfd
                packed.ip[14] = self._invented >> 8
                packed.ip[15] = self._invented & 0xff
        if self._keeps_local:
            pack_local(addr, &packed)
        if len(self._known) >= MAX_ADDRESSES:
            self._known.clear()
        key = copy_bytes(<const uint8_t *>&packed, sizeof(packed))
        self._known[key] = addr
        memcpy(&self.last, &packed, sizeof(packed))
        self._last = addr
        return 0

    cdef object find(self, const lib.ngp_quic_addr *packed):
        """Return the caller's form of an address."""
        cdef bytes key

        if memcmp(packed, &self.last, sizeof(self.last)) == 0:
            return self._last
        key = copy_bytes(<const uint8_t *>packed, sizeof(packed[0]))
        addr = self._known.get(key)
        return unpack_address(packed) if addr is None else addr
