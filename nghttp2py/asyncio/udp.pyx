"""UDP over asyncio with few system calls: runs of datagrams are sent and received at
once.

The kernel joins and splits the runs (GRO, GSO) where it supports that; elsewhere
datagrams are sent and received one by one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EINVAL, EMSGSIZE, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from nghttp2py cimport cngp_quic as lib
from nghttp2py.quic.routing cimport ConnectionIds

import asyncio
import errno as errors
import os
import socket
import sys
from collections import deque

# Options of Linux that have ICMP errors reported to a socket without a peer of its own:
# IP_RECVERR and IPV6_RECVERR; and in what origin they say that it was ICMP: struct
# sock_extended_err of linux/errqueue.h begins with the error's number and its origin.
cdef tuple ERROR_REPORTS = (
    ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))
    if sys.platform == "linux"
    else ()
)
cdef tuple ICMP_ORIGINS = (2, 3)


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

    bint ngp_udp_enable_gro(int fd)
    bint ngp_udp_has_gso(int fd)
    bint ngp_udp_enable_ecn(int fd, int family)

    struct ngp_udp_local:
        uint8_t ip[16]
        uint32_t scope

    bint ngp_udp_enable_local(int fd, int family)
    bint ngp_udp_forbid_fragments(int fd, int family)
    bint ngp_udp_steer(int fd, const uint32_t *mask, size_t cid_len, uint32_t size)
    Py_ssize_t ngp_udp_recv(
        int fd, uint8_t *buf, size_t len, sockaddr_storage *addr,
        socklen_t *paddrlen, ngp_udp_local *local, size_t *psegment, uint8_t *pecn)
    int ngp_udp_send(
        int fd, const uint8_t *data, size_t len, size_t segment,
        const sockaddr *addr, socklen_t addrlen, const ngp_udp_local *local,
        uint8_t ecn)


# How many runs are read in one turn of the loop.
cdef enum:
    MAX_READS = 4


def steer(sock, ConnectionIds connection_ids not None, uint32_t size):
    """Ask the kernel to choose the socket of a SO_REUSEPORT group by the connection id.

    ``sock`` is any socket of the group.  The first ``size`` have the slots of these
    numbers, in the order in which they were bound.  Return whether the kernel does so:
    Linux does, without a privilege, where the program may use classic BPF.
    """
    return size > 0 and ngp_udp_steer(
        sock.fileno(), connection_ids._layout.mask,
        lib.ngp_cid_len(&connection_ids._layout), size)


class PeerAddress(tuple):
    """A peer's socket address, ``(host, port, ...)``, with the address of this machine
    to which its datagram came.

    What is sent to it goes out from ``local`` (RFC 9000, 9): our address in 16 bytes,
    IPv4 mapped to IPv6, and the number of the interface of a link-local address.
    """

    local = None


cdef object unpack(const sockaddr_storage *addr, const ngp_udp_local *local):
    """Make the address of a datagram's sender, with our own if it is known."""
    cdef ngp_udp_local unknown

    peer = unpack_peer(addr)
    memset(&unknown, 0, sizeof(unknown))
    if memcmp(local.ip, unknown.ip, sizeof(unknown.ip)) == 0:
        return peer
    peer = PeerAddress(peer)
    peer.local = (
        PyBytes_FromStringAndSize(<const char *>local.ip, sizeof(local.ip)),
        local.scope,
    )
    return peer


cdef object unpack_peer(const sockaddr_storage *addr):
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


cdef int pack_local(addr, ngp_udp_local *packed) except -1:
    """Pack our address in the address of a peer; zeros if it is not known."""
    memset(packed, 0, sizeof(packed[0]))
    local = getattr(addr, "local", None)
    if local is not None:
        ip, scope = local
        if len(ip) != sizeof(packed.ip):
            raise ValueError("the local address must have 16 bytes")
        memcpy(packed.ip, PyBytes_AS_STRING(ip), sizeof(packed.ip))
        packed.scope = scope
    return 0


# What precedes a run of datagrams in the message to another worker, with the socket
# address of the peer after it.
cdef packed struct Forwarded:
    uint8_t kind
    uint8_t place
    uint8_t ecn
    uint8_t addrlen
    uint32_t segment
    ngp_udp_local local


def pack_run(int family, uint8_t kind, uint8_t place, tuple run not None):
    """Return a message with a run of datagrams, ``(data, addr, ecn, segment)``.

    It begins with ``kind`` and ``place``; ``family`` is that of the socket.
    """
    cdef Forwarded head
    cdef sockaddr_storage peer
    cdef bytes data = run[0]

    head.kind = kind
    head.place = place
    head.ecn = run[2]
    head.segment = run[3]
    head.addrlen = pack(family, run[1], &peer)
    pack_local(run[1], &head.local)
    return b"%b%b%b" % (
        PyBytes_FromStringAndSize(<const char *>&head, sizeof(head)),
        PyBytes_FromStringAndSize(<const char *>&peer, head.addrlen),
        data,
    )


def unpack_run(bytes message not None):
    """Return the run of a message of ``pack_run``, or ``None`` if it is none."""
    cdef Forwarded head
    cdef sockaddr_storage peer
    cdef size_t start

    if len(message) < <Py_ssize_t>sizeof(head):
        return None
    memcpy(&head, PyBytes_AS_STRING(message), sizeof(head))
    start = sizeof(head) + head.addrlen
    if (
        head.addrlen > sizeof(peer)
        or <size_t>len(message) <= start
        or head.segment == 0
    ):
        return None
    memset(&peer, 0, sizeof(peer))
    memcpy(&peer, PyBytes_AS_STRING(message) + sizeof(head), head.addrlen)
    if peer.ss_family not in (AF_INET, AF_INET6):
        return None
    return (
        message[start:], unpack(&peer, &head.local), head.ecn, head.segment
    )


cdef class _Socket:
    """Receives and sends runs on a socket that it borrows."""

    cdef int _fd
    cdef int _family
    cdef bint _gso
    # Whether sent datagrams are marked for ECN.
    cdef bint _marks
    cdef bytearray _buffer
    # The last addresses of each direction, in both forms.
    cdef sockaddr_storage _from
    cdef socklen_t _from_len
    cdef ngp_udp_local _from_local
    cdef object _from_addr
    cdef sockaddr_storage _to
    cdef socklen_t _to_len
    cdef ngp_udp_local _to_local
    cdef object _to_addr

    def __cinit__(self, sock, bint local_addresses):
        self._fd = sock.fileno()
        self._family = sock.family
        self._gso = ngp_udp_has_gso(self._fd)
        ngp_udp_enable_gro(self._fd)
        # A path is used with ECN only if its marks arrive: the peer's ACK frames report
        # them, and marking stops if the peer's system does not support it.
        ngp_udp_enable_ecn(self._fd, self._family)
        self._marks = True
        ngp_udp_forbid_fragments(self._fd, self._family)
        if local_addresses:
            ngp_udp_enable_local(self._fd, self._family)
        self._buffer = bytearray(NGP_UDP_BUFFER_LEN)
        memset(&self._from, 0, sizeof(self._from))
        memset(&self._from_local, 0, sizeof(self._from_local))

    def receive(self):
        """Return the received runs, a list of ``(data, addr, ecn, segment)``, which may
        be empty."""
        cdef:
            uint8_t *buf = <uint8_t *><char *>self._buffer
            sockaddr_storage addr
            socklen_t addrlen = 0
            ngp_udp_local local
            size_t segment = 0
            uint8_t ecn = 0
            Py_ssize_t rv
            list runs = []

        memset(&addr, 0, sizeof(addr))
        memset(&local, 0, sizeof(local))
        for _ in range(MAX_READS):
            rv = ngp_udp_recv(
                self._fd, buf, NGP_UDP_BUFFER_LEN, &addr, &addrlen, &local,
                &segment, &ecn)
            if rv < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN or runs:
                    break
                raise OSError(errno, os.strerror(errno))
            if rv == 0:
                # An empty datagram is no packet.
                continue
            if (
                self._from_addr is None
                or addrlen != self._from_len
                or memcmp(&addr, &self._from, addrlen) != 0
                or memcmp(&local, &self._from_local, sizeof(local)) != 0
            ):
                self._from_addr = unpack(&addr, &local)
                self._from = addr
                self._from_local = local
                self._from_len = addrlen
            runs.append((
                PyBytes_FromStringAndSize(<const char *>buf, rv), self._from_addr,
                ecn, segment,
            ))
        return runs

    def send(self, bytes data not None, addr, uint8_t ecn, size_t segment):
        """Send a run of datagrams to ``addr``; return ``(sent, refused)``.

        ``sent`` is how many of its bytes were sent or dropped; the rest has to wait.
        ``refused`` is the length of a datagram that the path does not carry, or 0.
        """
        cdef:
            const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(data)
            size_t total = len(data)
            size_t pos = 0
            size_t limit = self._limit(segment)
            size_t refused = 0
            # Whether the run was split because the system did not accept it whole.
            bint cut = False
            size_t n

        self._set_target(addr)
        while pos < total:
            n = min(limit, total - pos)
            if self._send_run(base + pos, n, segment, ecn) < 0:
                if errno == EAGAIN:
                    return pos, refused
                if errno == EINTR:
                    continue
                if n > segment:
                    # The datagrams are too long, or the device does not support GSO.
                    limit = segment
                    cut = True
                    continue
                if errno == EMSGSIZE:
                    refused = max(refused, n)
                    cut = False
                # What the network refuses counts as lost, as datagrams may be.
            elif cut:
                # Sent one by one they pass: the device does not support GSO.
                self._gso = False
                cut = False
            pos += n
        return total, refused

    cdef int _set_target(self, addr) except -1:
        """Set the destination to ``addr``, and the source to our address in it."""
        if addr is self._to_addr:
            return 0
        self._to_addr = None
        self._to_len = pack(self._family, addr, &self._to)
        pack_local(addr, &self._to_local)
        self._to_addr = addr
        return 0

    cdef size_t _limit(self, size_t segment):
        """Return how many bytes the kernel accepts at once."""
        if not self._gso:
            return segment
        return segment * max(
            1, min(NGP_UDP_MAX_SEGMENTS, NGP_UDP_MAX_RUN // max(segment, 1)))

    cdef int _send_run(
        self, const uint8_t *data, size_t n, size_t segment, uint8_t ecn
    ) noexcept:
        cdef uint8_t mark = ecn if self._marks else 0
        cdef int rv = ngp_udp_send(
            self._fd, data, n, segment, <const sockaddr *>&self._to, self._to_len,
            &self._to_local, mark)

        if rv < 0 and mark and errno == EINVAL:
            # The system may refuse the ECN mark, or the address.
            rv = ngp_udp_send(
                self._fd, data, n, segment, <const sockaddr *>&self._to,
                self._to_len, &self._to_local, 0)
            self._marks = rv < 0
        return rv


class UDPTransport(asyncio.DatagramTransport):
    """A datagram transport on a socket that it owns.

    It calls its protocol's ``runs_received(runs)`` with a list of ``(data, addr, ecn,
    segment)``; ``resume_writing()`` when ``writable`` has become true again; and
    ``error_received(error)`` with the ``OSError`` of a read, and with the
    ``MemoryError`` of a read or write or of what these have called.  A run consists of
    concatenated datagrams of ``segment`` bytes each but for the last, which may be
    shorter.  ``ecn`` is the two bits of IP headers (RFC 3168): 0 where the system does
    not report them, and not sent where it does not accept them.

    ``local_addresses`` is for a socket that is bound to all addresses of the machine:
    the addresses of received datagrams then include the local one, and what is sent to
    such an address goes out from there.  Datagrams are never fragmented (RFC 9000, 14).

    With ``refusals``, ``refused()`` of the protocol is called if an ICMP message says
    that nothing listens where datagrams were sent to, before any has arrived.  Without
    Linux it is not.
    """

    def __init__(
        self, loop, sock, protocol, *, local_addresses=False, refusals=False
    ):
        super().__init__({"socket": sock, "sockname": sock.getsockname()})
        self._loop = loop
        self._sock = sock
        self._protocol = protocol
        self._runs = _Socket(sock, local_addresses)
        self._waiting = deque()
        self._closing = False
        self._refusals = bool(refusals and ERROR_REPORTS)
        if self._refusals:
            self._report_errors(True)
        self._reading = True
        loop.add_reader(sock.fileno(), self._read_ready)
        try:
            protocol.connection_made(self)
        except BaseException:
            self.abort()
            raise

    @property
    def writable(self):
        """Whether the socket accepts more; if not, what is sent waits."""
        return not self._waiting

    def is_closing(self):
        return self._closing

    def close(self):
        self.abort()

    def abort(self):
        if self._closing:
            return
        self._closing = True
        self._reading = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._waiting.clear()
        self._sock.close()
        # Break the reference cycle: nothing must wait for the collector.
        protocol, self._protocol = self._protocol, None
        self._loop.call_soon(protocol.connection_lost, None)

    def pause_reading(self):
        """Leave what arrives to others that have the socket."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def resume_reading(self):
        """Read again after ``pause_reading``."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._read_ready)

    def get_write_buffer_size(self):
        return sum(len(run[0]) for run in self._waiting)

    def sendto(self, data, addr=None):
        datagram = bytes(data)
        self.send_runs([(datagram, addr, 0, len(datagram))])

    def send_runs(self, runs):
        """Send a list of ``(data, addr, ecn, segment)``, with ``data`` in bytes.

        Return the length of the longest datagram that the path does not carry, or 0.
        """
        longest = 0
        if self._closing:
            return longest
        if self._waiting:
            self._waiting.extend(runs)
            return longest
        for i, run in enumerate(runs):
            sent, refused = self._runs.send(*run)
            longest = max(longest, refused)
            if sent < len(run[0]):
                # This comes first: without it, what waits would never be sent.
                self._loop.add_writer(self._sock.fileno(), self._write_ready)
                self._wait(run, sent)
                self._waiting.extend(runs[i + 1:])
                break
        return longest

    def _wait(self, run, sent):
        """Put the unsent rest of a run at the front of the queue."""
        data, addr, ecn, segment = run
        self._waiting.appendleft((data[sent:], addr, ecn, segment))

    def _write_ready(self):
        try:
            while self._waiting:
                run = self._waiting.popleft()
                sent, _ = self._runs.send(*run)
                if sent < len(run[0]):
                    self._wait(run, sent)
                    return
            self._loop.remove_writer(self._sock.fileno())
            self._protocol.resume_writing()
        except MemoryError as error:
            self._want_memory(error)

    def _report_errors(self, on):
        for level, option in ERROR_REPORTS:
            try:
                self._sock.setsockopt(level, option, on)
            except OSError:
                pass  # it is for the other family

    def _find_refusal(self, error):
        """Return whether ``error``, or what was reported, says that nothing listens.

        Nothing is reported after that.
        """
        refused = error is not None and error.errno == errors.ECONNREFUSED
        self._refusals = False
        while True:
            try:
                reports = self._sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)[1]
            except OSError:
                break
            for level, kind, report in reports:
                refused |= (
                    (level, kind) in ERROR_REPORTS
                    and int.from_bytes(report[:4], sys.byteorder) == errors.ECONNREFUSED
                    and report[4] in ICMP_ORIGINS
                )
        self._report_errors(False)
        # uvloop stops to look at a socket that had an error.
        self._loop.remove_reader(self._sock.fileno())
        self._loop.add_reader(self._sock.fileno(), self._read_ready)
        return refused

    def _want_memory(self, error):
        """Report a want of memory to the protocol, which frees what it can.

        Datagrams for which there was no memory are lost; their senders retransmit.
        """
        if self._protocol is not None:
            self._protocol.error_received(error)

    def _read_ready(self):
        if not self._reading:
            return
        try:
            try:
                runs = self._runs.receive()
            except OSError as error:
                if self._refusals and self._find_refusal(error):
                    self._protocol.refused()
                else:
                    self._protocol.error_received(error)
                return
            # A write, too, may have been told of the error.
            if self._refusals and self._find_refusal(None) and not runs:
                self._protocol.refused()
            elif runs:
                self._protocol.runs_received(runs)
        except MemoryError as error:
            self._want_memory(error)
