"""The PROXY protocol: a load balancer tells the addresses of the client's connection.

It sends one header at the start of each connection, before TLS.  The specification is
HAProxy's "The PROXY protocol, versions 1 & 2".
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

from nghttp2py.arguments import describe
from nghttp2py.asyncio.memory import check_memory
from nghttp2py.asyncio.tls_transport import feed
from nghttp2py.log_budget import LogBudget, MemoryLog
from nghttp2py.trusted import TrustedAddresses

__all__ = [
    "MAX_HEADER",
    "VERSIONS",
    "ProxiedConnections",
    "ProxyHeader",
    "ProxyPolicy",
    "parse_proxy_header",
]

logger = logging.getLogger(__name__)
_memory_log = MemoryLog(logger)

#: What ``ProxyPolicy`` accepts: one version, either of them, or none.
VERSIONS = ("off", "v1", "v2", "auto")
#: Bytes of a header of version 2 after its first 16.  The addresses need 216; the rest
#: is for TLVs, of which the client's certificate is the largest.
MAX_HEADER = 16384

# The longest line of version 1, CRLF included.
_MAX_LINE = 107
_PREFIX = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# The fixed part of version 2.
_FIXED = 16
# The commands of version 2, with its number.
_LOCAL, _PROXY = 0x20, 0x21
# Families and transports that may be told (2.2).
_FAMILIES = {0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32}
_TCP4, _TCP6, _UNIX_STREAM = 0x11, 0x21, 0x31
# The size of the addresses of each family, ports included.
_SIZES = {0: 0, 1: 12, 2: 36, 3: 216}
# The path of a Unix socket is padded to this size.
_PATH = 108
# What is read at once.  Most headers are in one piece with what follows.
_READ_SIZE = 4096
# Log lines about headers that are not valid, and in how many seconds.
_FAILURES, _FAILURE_INTERVAL = 20, 10.0

Address = tuple[Any, ...] | str


class ProxyHeader(NamedTuple):
    """A header: its ``size`` in bytes, and the addresses of the client's connection.

    ``peer`` and ``local`` are in the form of "peername" and "sockname"; None if the
    header has no addresses, so that those of the connection count.
    """

    size: int
    peer: Address | None = None
    local: Address | None = None


def parse_proxy_header(data: bytes | bytearray, version: str) -> ProxyHeader | None:
    """Return the header at the start of ``data``, or None if it is incomplete.

    ``version`` is "v1", "v2" or "auto".  Raises ``ValueError`` as soon as the bytes
    cannot be the start of a valid header.
    """
    if version != "v2" and data[:6] == _PREFIX[: len(data)]:
        return _parse_line(data)
    if version != "v1" and data[:12] == _SIGNATURE[: len(data)]:
        return _parse_binary(data)
    wanted = "" if version == "auto" else f" of {version}"
    raise ValueError(f"no PROXY protocol header{wanted}")


def _parse_line(data: bytes | bytearray) -> ProxyHeader | None:
    """Parse version 1 (2.1)."""
    line, end, _ = bytes(data[:_MAX_LINE]).partition(b"\n")
    if not end:
        if len(data) >= _MAX_LINE:
            raise ValueError(f"the line is longer than {_MAX_LINE} bytes")
        return None
    if line[-1:] != b"\r":
        raise ValueError("the line does not end in CRLF")
    size = len(line) + 1
    words = line[:-1].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(size)  # "the receiver must ignore anything presented" then
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise ValueError("the line is not valid")
    _, protocol, source, destination, *ports = words
    family = socket.AF_INET if protocol == "TCP4" else socket.AF_INET6
    try:
        ends = [socket.inet_pton(family, each) for each in (source, destination)]
    except OSError:
        raise ValueError("the line has an address that is not valid") from None
    numbers = [_parse_port(port) for port in ports]
    peer, local = (
        _to_address(family, end, number)
        for end, number in zip(ends, numbers, strict=True)
    )
    return ProxyHeader(size, peer, local)


def _parse_port(text: str) -> int:
    if (
        not 0 < len(text) <= 5
        or not (text.isascii() and text.isdecimal())
        or (text[0] == "0" and text != "0")
        or int(text) > 65535
    ):
        raise ValueError("the line has a port that is not valid")
    return int(text)


def _parse_binary(data: bytes | bytearray) -> ProxyHeader | None:
    """Parse version 2 (2.2)."""
    if len(data) < _FIXED:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ValueError(f"version and command 0x{command:02x} are unknown")
    if family not in _FAMILIES:
        raise ValueError(f"family and transport 0x{family:02x} are unknown")
    if length > MAX_HEADER:
        raise ValueError(f"the header has {length} bytes, more than {MAX_HEADER}")
    if command == _PROXY and length < _SIZES[family >> 4]:
        raise ValueError(f"{length} bytes are too few for the addresses")
    size = _FIXED + length
    if len(data) < size:
        return None
    # "The receiver should ignore address information" of families that it does not
    # serve; a health check of the proxy's own is LOCAL.
    if command == _LOCAL or family not in (_TCP4, _TCP6, _UNIX_STREAM):
        return ProxyHeader(size)
    body = bytes(data[_FIXED:size])
    if family == _UNIX_STREAM:
        paths = body[:_PATH], body[_PATH : 2 * _PATH]
        return ProxyHeader(size, *map(_to_path, paths))
    width = 4 if family == _TCP4 else 16
    af = socket.AF_INET if family == _TCP4 else socket.AF_INET6
    peer, local = (
        _to_address(
            af,
            body[number * width : (number + 1) * width],
            int.from_bytes(body[2 * width + 2 * number :][:2], "big"),
        )
        for number in (0, 1)
    )
    return ProxyHeader(size, peer, local)


def _to_address(family: socket.AddressFamily, packed: bytes, port: int) -> Address:
    """Return an address as sockets have it."""
    host = socket.inet_ntop(family, packed)
    return (host, port) if family == socket.AF_INET else (host, port, 0, 0)


def _to_path(field: bytes) -> str:
    """Return the path in a field; an abstract one begins with a null byte."""
    if field[:1] == b"\0":
        return os.fsdecode(field.rstrip(b"\0"))
    return os.fsdecode(field.partition(b"\0")[0])


class ProxyPolicy:
    """Which connections of a listener begin with a header, and of which version.

    ``version`` is one of ``VERSIONS``.  With ``trusted``, as for ``TrustedAddresses``,
    only connections of these peers do; others are served as they are.  Raises
    ``TypeError`` and ``ValueError``.
    """

    def __init__(
        self,
        version: str,
        trusted: str | Iterable[str] | TrustedAddresses | None = None,
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(
                f"proxy_protocol must be one of {', '.join(VERSIONS)}, not "
                f"{describe(version)}"
            )
        if trusted is not None and not isinstance(trusted, TrustedAddresses):
            trusted = TrustedAddresses(trusted)
        self.version = version
        self.trusted = trusted

    def expects_header(self, peer: Any, local: Any) -> bool:
        """Return whether a connection with these ends begins with a header."""
        return self.trusted is None or self.trusted.trusts(peer, local)


class ProxiedConnections:
    """The connections of a listener whose header is not complete.

    ``factory`` makes the protocol that gets the connection after that.  A header
    has ``timeout`` seconds.  ``lost`` is called without arguments when a connection is
    lost before.
    """

    def __init__(
        self,
        policy: ProxyPolicy,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        timeout: float,
        lost: Callable[[], object],
    ) -> None:
        self.policy = policy
        self.factory = factory
        self.timeout = timeout
        self.lost = lost
        self.buffer = memoryview(bytearray(_READ_SIZE))
        #: The connections, until their header is complete or they are lost.
        self.waiting: set[_HeaderReader] = set()
        #: How many connections were closed for want of a valid header.
        self.refused = 0
        self._failures = LogBudget(logger, logging.INFO, _FAILURES, _FAILURE_INTERVAL)

    def protocol(self) -> asyncio.BufferedProtocol:
        """Make the protocol of an accepted connection."""
        return _HeaderReader(self)

    def report(self, peer: object, error: object) -> None:
        """Log why a connection is closed."""
        self.refused += 1
        self._failures.log("%s: PROXY protocol: %s", peer, error)

    def abort(self) -> None:
        """End the connections whose header is not complete: they have no requests."""
        for reader in list(self.waiting):
            reader.abort()


class _HeaderReader(asyncio.BufferedProtocol):
    """The protocol of a connection until its header is complete."""

    def __init__(self, shared: ProxiedConnections) -> None:
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        tcp = self._transport = cast(asyncio.Transport, transport)
        peer = tcp.get_extra_info("peername")
        if not shared.policy.expects_header(peer, tcp.get_extra_info("sockname")):
            self._hand_over(ProxyHeader(0))
            return
        shared.waiting.add(self)
        self._timer = asyncio.get_running_loop().call_later(
            shared.timeout, self._timed_out
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._data += self._shared.buffer[:nbytes]
        try:
            header = parse_proxy_header(self._data, self._shared.policy.version)
        except ValueError as error:
            self._refuse(error)
            return
        if header is not None:
            self._hand_over(header)

    def eof_received(self) -> bool:
        if self._data:
            self._refuse("the peer closed the connection in the header")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._data:
            # A port scan or a health check.
            logger.debug("a connection was closed before a PROXY protocol header")
        self._forget()
        self._transport = None
        self._shared.lost()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._shared.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        self._refuse(f"no header in {self._shared.timeout:g} seconds")

    def _refuse(self, error: object) -> None:
        tcp = self._transport
        if tcp is not None and not tcp.is_closing():
            self._shared.report(tcp.get_extra_info("peername"), error)
            tcp.abort()

    def _hand_over(self, header: ProxyHeader) -> None:
        """Give the connection, and what follows the header, to its protocol."""
        tcp = self._transport
        assert tcp is not None
        try:
            check_memory()
            protocol = self._shared.factory()
        except MemoryError:
            _memory_log.log("a connection could not be set up")
            tcp.abort()
            return
        self._forget()
        self._transport = None
        rest = bytes(self._data[header.size :])
        self._data.clear()
        tcp.set_protocol(protocol)
        protocol.connection_made(
            tcp if header.peer is None else cast(Any, _ProxiedTransport(tcp, header))
        )
        if not rest or tcp.is_closing():
            return
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(rest)
        else:
            feed(cast(asyncio.BufferedProtocol, protocol), rest)


class _ProxiedTransport:
    """A transport whose addresses are those of a header."""

    def __init__(self, tcp: asyncio.Transport, header: ProxyHeader) -> None:
        self._tcp = tcp
        self._extra = {"peername": header.peer, "sockname": header.local}
        # What is called often is found without __getattr__.
        self.write = tcp.write
        self.writelines = tcp.writelines
        self.is_closing = tcp.is_closing
        self.pause_reading = tcp.pause_reading
        self.resume_reading = tcp.resume_reading
        self.get_write_buffer_size = tcp.get_write_buffer_size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.BaseTransport``."""
        if name in self._extra:
            return self._extra[name]
        return self._tcp.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tcp, name)

    def __repr__(self) -> str:
        return f"<{self._tcp!r} from {self._extra['peername']!r}>"
