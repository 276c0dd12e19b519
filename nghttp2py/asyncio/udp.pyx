"""UDP over asyncio with few system calls: runs of datagrams in and out at once.

The kernel joins and cuts the runs (GRO, GSO) where it can; elsewhere datagrams go
one by one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EINVAL, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

import asyncio
import os
import socket
from collections import deque

__all__ = ["UDPTransport"]


cdef extern from "netinet/in.h" nogil:
    enum:
        AF_INET
        AF_INET6

    ctypedef unsigned int socklen_t

    struct sockaddr:
        unsigned short sa_family

    struct sockaddr_storage:
        unsigned short ss_family

    struct in_addr:
        uint32_t s_addr

    struct in6_addr:
        uint8_t s6_addr[16]

    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr

    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    uint32_t htonl(uint32_t value)
    uint32_t ntohl(uint32_t value)


cdef extern from "ngp_udp.h" nogil:
    enum:
        NGP_UDP_BUFFER_LEN
        NGP_UDP_MAX_SEGMENTS
        NGP_UDP_MAX_RUN

    struct iovec:
        void *iov_base
        size_t iov_len

    bint ngp_udp_enable_gro(int fd)
    bint ngp_udp_has_gso(int fd)
    bint ngp_udp_enable_ecn(int fd, int family)
    Py_ssize_t ngp_udp_recv(
        int fd, uint8_t *buf, size_t len, sockaddr_storage *addr,
        socklen_t *paddrlen, size_t *psegment, uint8_t *pecn)
    int ngp_udp_send(
        int fd, iovec *iov, size_t n, size_t segment, const sockaddr *addr,
        socklen_t addrlen, uint8_t ecn)


# How many runs are read before the loop has its turn again.
cdef enum:
    MAX_READS = 4


cdef object unpack(const sockaddr_storage *addr):
    cdef const sockaddr_in *in4 = <const sockaddr_in *>addr
    cdef const sockaddr_in6 *in6 = <const sockaddr_in6 *>addr

    if addr.ss_family == AF_INET:
        return (
            socket.inet_ntop(
                socket.AF_INET,
                PyBytes_FromStringAndSize(<const char *>&in4.sin_addr, 4)),
            ntohs(in4.sin_port),
        )
    return (
        socket.inet_ntop(
            socket.AF_INET6,
            PyBytes_FromStringAndSize(<const char *>in6.sin6_addr.s6_addr, 16)),
        ntohs(in6.sin6_port),
        ntohl(in6.sin6_flowinfo),
        in6.sin6_scope_id,
    )


cdef socklen_t pack(int family, addr, sockaddr_storage *packed) except 0:
    cdef sockaddr_in *in4 = <sockaddr_in *>packed
    cdef sockaddr_in6 *in6 = <sockaddr_in6 *>packed
    cdef bytes ip
    cdef str host = addr[0].partition("%")[0]

    memset(packed, 0, sizeof(sockaddr_storage))
    if family == AF_INET:
        ip = socket.inet_pton(socket.AF_INET, host)
        in4.sin_family = AF_INET
        in4.sin_port = htons(addr[1])
        memcpy(&in4.sin_addr, PyBytes_AS_STRING(ip), 4)
        return sizeof(sockaddr_in)
    ip = socket.inet_pton(
        socket.AF_INET6, host if ":" in host else "::ffff:" + host)
    in6.sin6_family = AF_INET6
    in6.sin6_port = htons(addr[1])
    memcpy(in6.sin6_addr.s6_addr, PyBytes_AS_STRING(ip), 16)
    if len(addr) > 3:
        in6.sin6_flowinfo = htonl(addr[2])
        in6.sin6_scope_id = addr[3]
    return sizeof(sockaddr_in6)


cdef class _Socket:
    """Receives and sends runs on a socket that it borrows."""

    cdef int _fd
    cdef int _family
    cdef bint _gso
    # Whether datagrams are marked for ECN.
    cdef bint _marks
    cdef bytearray _buffer
    # The last addresses of each direction, in both forms.
    cdef sockaddr_storage _from
    cdef socklen_t _from_len
    cdef object _from_addr
    cdef sockaddr_storage _to
    cdef socklen_t _to_len
    cdef object _to_addr

    def __cinit__(self, sock):
        self._fd = sock.fileno()
        self._family = sock.family
        self._gso = ngp_udp_has_gso(self._fd)
        ngp_udp_enable_gro(self._fd)
        # A path is used with ECN only if its marks are seen to arrive: the peer
        # tells, and stops us if its system does not.
        ngp_udp_enable_ecn(self._fd, self._family)
        self._marks = True
        self._buffer = bytearray(NGP_UDP_BUFFER_LEN)
        memset(&self._from, 0, sizeof(self._from))

    def receive(self):
        """Return what has come in: a list of ``(data, addr, ecn)``; empty for
        nothing."""
        cdef:
            uint8_t *buf = <uint8_t *><char *>self._buffer
            sockaddr_storage addr
            socklen_t addrlen = 0
            size_t segment = 0
            uint8_t ecn = 0
            size_t n
            size_t pos
            Py_ssize_t rv
            list datagrams = []

        memset(&addr, 0, sizeof(addr))
        for _ in range(MAX_READS):
            rv = ngp_udp_recv(
                self._fd, buf, NGP_UDP_BUFFER_LEN, &addr, &addrlen, &segment,
                &ecn)
            if rv < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN or datagrams:
                    break
                raise OSError(errno, os.strerror(errno))
            if (
                self._from_addr is None
                or addrlen != self._from_len
                or memcmp(&addr, &self._from, addrlen) != 0
            ):
                self._from_addr = unpack(&addr)
                self._from = addr
                self._from_len = addrlen
            n = rv
            pos = 0
            while pos < n:
                datagrams.append((
                    PyBytes_FromStringAndSize(
                        <const char *>buf + pos, min(segment, n - pos)),
                    self._from_addr,
                    ecn,
                ))
                pos += segment
        return datagrams

    def send(self, list datagrams not None, size_t first):
        """Send from the ``first`` of a list of ``(bytes, addr, ecn)`` on; return
        the index of the one that has to wait, or the length of the list."""
        cdef:
            iovec iov[NGP_UDP_MAX_SEGMENTS]
            size_t total = len(datagrams)
            size_t limit = NGP_UDP_MAX_SEGMENTS if self._gso else 1
            size_t segment
            size_t size
            size_t run
            size_t n
            uint8_t ecn
            bytes data
            tuple datagram

        while first < total:
            datagram = <tuple>datagrams[first]
            addr = datagram[1]
            ecn = datagram[2] if self._marks else 0
            if self._to_addr is None or addr != self._to_addr:
                self._to_addr = None
                self._to_len = pack(self._family, addr, &self._to)
                self._to_addr = addr
            segment = size = len(<bytes>datagram[0])
            run = n = 0
            # All of a run are for one address, marked alike, and of one size, but
            # the last.
            while n < limit and size <= segment and run + size <= NGP_UDP_MAX_RUN:
                data = (<tuple>datagrams[first + n])[0]
                iov[n].iov_base = PyBytes_AS_STRING(data)
                iov[n].iov_len = size
                run += size
                n += 1
                if size < segment or first + n == total:
                    break
                datagram = <tuple>datagrams[first + n]
                if datagram[1] is not addr and datagram[1] != addr:
                    break
                if self._marks and datagram[2] != ecn:
                    break
                size = len(<bytes>datagram[0])
            if n == 0:
                # More than a datagram can hold: nobody would take it.
                first += 1
                continue
            if self._send_run(iov, n, segment, ecn) < 0:
                if errno == EAGAIN:
                    return first
                if errno == EINTR:
                    continue
                if n > 1 and self._gso:
                    # A device that cannot: one by one from now on.
                    self._gso = False
                    limit = 1
                    continue
                # What the network refuses is lost, as datagrams may be.
            first += n
        return total

    cdef int _send_run(
        self, iovec *iov, size_t n, size_t segment, uint8_t ecn
    ) noexcept:
        cdef int rv = ngp_udp_send(
            self._fd, iov, n, segment, <const sockaddr *>&self._to, self._to_len,
            ecn)

        if rv < 0 and ecn and errno == EINVAL:
            # The mark may be what the system does not take, or the address.
            rv = ngp_udp_send(
                self._fd, iov, n, segment, <const sockaddr *>&self._to,
                self._to_len, 0)
            self._marks = rv < 0
        return rv


class UDPTransport(asyncio.DatagramTransport):
    """A datagram transport on a socket, which it owns.

    Its protocol has ``datagrams_received(datagrams)``, which is given a list of
    ``(data, addr, ecn)``, and ``resume_writing()``, which is called when ``writable``
    is true again after it was not.  ``ecn`` is the two bits of IP headers (RFC 3168);
    they are 0 where the system does not tell, and not sent where it does not take
    them.
    """

    def __init__(self, loop, sock, protocol):
        super().__init__({"socket": sock, "sockname": sock.getsockname()})
        self._loop = loop
        self._sock = sock
        self._protocol = protocol
        self._runs = _Socket(sock)
        self._waiting = deque()
        self._closing = False
        loop.add_reader(sock.fileno(), self._read_ready)
        protocol.connection_made(self)

    @property
    def writable(self):
        """Whether the socket takes more: else what is sent waits."""
        return not self._waiting

    def is_closing(self):
        return self._closing

    def close(self):
        self.abort()

    def abort(self):
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._waiting.clear()
        self._sock.close()
        self._loop.call_soon(self._protocol.connection_lost, None)

    def get_write_buffer_size(self):
        return sum(
            len(datagram[0]) for datagrams in self._waiting for datagram in datagrams
        )

    def sendto(self, data, addr=None):
        self.send_many([(bytes(data), addr, 0)])

    def send_many(self, datagrams):
        """Send a list of ``(bytes, addr, ecn)``."""
        if self._closing or not datagrams:
            return
        if self._waiting:
            self._waiting.append(datagrams)
            return
        sent = self._runs.send(datagrams, 0)
        if sent < len(datagrams):
            self._waiting.append(datagrams[sent:])
            self._loop.add_writer(self._sock.fileno(), self._write_ready)

    def _write_ready(self):
        while self._waiting:
            datagrams = self._waiting.popleft()
            sent = self._runs.send(datagrams, 0)
            if sent < len(datagrams):
                self._waiting.appendleft(datagrams[sent:])
                return
        self._loop.remove_writer(self._sock.fileno())
        self._protocol.resume_writing()

    def _read_ready(self):
        if self._closing:
            return
        try:
            datagrams = self._runs.receive()
        except OSError as error:
            self._protocol.error_received(error)
            return
        if datagrams:
            self._protocol.datagrams_received(datagrams)
