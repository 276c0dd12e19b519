"""Servers in memory, for tests of applications: no sockets, ports or threads.

``MemoryServer`` serves an application in the running event loop.  Its clients are
joined to it in memory; both speak the protocol in full, so that a test sees what a
client would.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from nghttp2py.asyncio.client import RETRIES, TIMEOUT, Client
from nghttp2py.asyncio.h2_client import DEFAULT_CONFIGURATION
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.server import Server
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.writer import HeadersLike
from nghttp2py.exchange import ExchangeFactory
from nghttp2py.h2 import H2Configuration
from nghttp2py.local_certificate import local_certificate

if TYPE_CHECKING:
    from nghttp2py.asyncio.h3 import H3Protocol
    from nghttp2py.asyncio.quic import QuicServer
    from nghttp2py.quic import QuicConfiguration

__all__ = ["MemoryClient", "MemoryServer"]

_HOST = "127.0.0.1"
# Bytes that may wait in one direction before writing is paused, as asyncio's default.
_HIGH = 65536


class _Pipe(asyncio.Transport):
    """One end of a connection: what is written to it, the other end receives."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[str, int],
        peer: tuple[str, int],
    ) -> None:
        super().__init__({"sockname": address, "peername": peer})
        self._loop = loop
        self._protocol: Any = None
        self.other: _Pipe
        self._waiting = bytearray()  # that the other end has not received
        self._eof = False  # our half ends after what waits
        self._reading = True
        self._writing_paused = False
        self._scheduled = False
        self._high = _HIGH
        self._closing = self._lost = False

    # ---- asyncio.Transport ----

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_reading(self) -> bool:
        return self._reading and not self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.other._schedule()

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        self._high = _HIGH if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def write(self, data: Any) -> None:
        if self._closing or self._eof:
            return
        self._waiting += data
        if len(self._waiting) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        self._schedule()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof = True
        self._schedule()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close the connection when the other end has received all."""
        self._closing = True
        self._schedule()

    def abort(self) -> None:
        """Close the connection now."""
        self._closing = True
        self._waiting.clear()
        self._loop.call_soon(self._end)

    # ---- The way to the other end ----

    def _schedule(self) -> None:
        if not self._scheduled and not self._lost:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        other = self.other
        if self._waiting and other._reading and not other._lost:
            data, self._waiting = bytes(self._waiting), bytearray()
            other._protocol.data_received(data)
        if self._waiting and not other._lost:
            return  # the other end does not read
        if self._writing_paused and not self._lost:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._eof and not other._lost and not self._waiting:
            self._eof = False
            if not other._protocol.eof_received():
                other.close()
        if self._closing and not self._waiting:
            self._end()

    def _end(self) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._protocol.connection_lost(None)
            self.other.abort()


class _Datagrams(asyncio.DatagramTransport):
    """One end of a path of datagrams, none of which is lost."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[str, int],
        find: Callable[[tuple[str, int]], Any],
    ) -> None:
        super().__init__({"sockname": address})
        self._loop = loop
        self._address = address
        self._find = find
        self._closing = False
        self.protocol: Any = None

    def sendto(self, data: Any, addr: Any = None) -> None:
        self._loop.call_soon(self._deliver, bytes(data), (addr[0], addr[1]))

    def _deliver(self, data: bytes, addr: tuple[str, int]) -> None:
        receiver = self._find(addr)
        if receiver is not None:
            receiver.datagram_received(data, self._address)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close


class MemoryClient(Client):
    """A ``Client`` whose server is a ``MemoryServer``, which makes it by ``client``."""

    def __init__(
        self,
        server: MemoryServer,
        version: Literal["HTTP/2", "HTTP/3"],
        *,
        headers: HeadersLike = (),
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        decompress: bool = False,
    ) -> None:
        self._memory_server = server
        http3: bool | QuicConfiguration = False
        if version == "HTTP/3":
            from nghttp2py.quic import QuicConfiguration

            http3 = QuicConfiguration(verify_mode=ssl.CERT_NONE)
        super().__init__(
            "http://localhost" if http3 is False else "https://localhost",
            http3=http3,
            headers=headers,
            timeout=timeout,
            retries=retries,
            decompress=decompress,
        )

    def _use_connectors(self, http2: Any, http3: Any) -> tuple[Any, Any]:
        if http3 is not None:
            return None, _HTTP3Connector(self._memory_server)
        return _HTTP2Connector(self._memory_server), None


class _HTTP2Connector:
    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def connect(
        self, host: str | None = None, port: int | None = None
    ) -> H2Protocol:
        protocol = H2Protocol(True, config=DEFAULT_CONFIGURATION, header_encoding=None)
        self._server._join(protocol)
        return protocol

    @staticmethod
    def close(protocol: H2Protocol, timeout: float | None) -> None:
        protocol.close(timeout)


class _HTTP3Connector:
    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def connect(
        self, host: str | None = None, port: int | None = None
    ) -> H3Protocol:
        protocol = self._server._join_http3()
        try:
            await protocol.wait_connected()
        except BaseException:
            protocol.close()
            raise
        return protocol

    @staticmethod
    def close(protocol: H3Protocol, timeout: float | None) -> None:
        protocol.shut_down_soon(timeout)


class MemoryServer(Server):
    """A ``Server`` without sockets, whose clients it makes itself.

    ``app``, ``config`` and ``timeouts`` are those of ``nghttp2py.asyncio.Server``; an
    ASGI application is given as ``nghttp2py.asgi.ASGIApp(app)``.  It is used in a
    running event loop, as ``async with MemoryServer(app) as server``; leaving the block
    lets open requests finish.
    """

    def __init__(
        self,
        app: Callable[..., Any] | ExchangeFactory,
        *,
        config: H2Configuration | None = None,
        timeouts: Timeouts | None = None,
        http1: bool | None = None,
    ) -> None:
        super().__init__(
            app,
            (_HOST, 0),
            config=config,
            timeouts=timeouts,
            http1=http1,
            alt_svc=False,  # there is no socket whose port it could announce
        )
        self._ports = 49152  # the last one that a client has
        self._quic_clients: WeakValueDictionary[tuple[str, int], H3Protocol] = (
            WeakValueDictionary()
        )

    async def _bind_both(self, loop: asyncio.AbstractEventLoop) -> tuple[Any, Any, Any]:
        return [], [], []

    def client(
        self,
        version: Literal["HTTP/2", "HTTP/3"] = "HTTP/2",
        *,
        headers: HeadersLike = (),
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        decompress: bool = False,
    ) -> MemoryClient:
        """Return a client: an ``nghttp2py.asyncio.Client`` of ``http://localhost``.

        With ``version="HTTP/3"`` its origin is ``https://localhost``; that needs a
        build with QUIC, and the package cryptography for a certificate.  The others are
        those of ``Client``.
        Raises ``ValueError`` for another version, and ``RuntimeError`` before the start
        and after the end.
        """
        if version not in ("HTTP/2", "HTTP/3"):
            raise ValueError(f"version must be HTTP/2 or HTTP/3, not {version!r}")
        self._require_started()
        return MemoryClient(
            self,
            version,
            headers=headers,
            timeout=timeout,
            retries=retries,
            decompress=decompress,
        )

    async def open_connection(
        self,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; return both halves, as ``asyncio.open_connection`` does.

        On it a test speaks HTTP/1.1, or what no client would send.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = self._join(protocol)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _require_started(self) -> asyncio.AbstractEventLoop:
        if self._listener is None or not self._listener.is_serving():
            raise RuntimeError("the server does not run: use async with MemoryServer")
        assert self._loop is not None
        return self._loop

    def _next_address(self) -> tuple[str, int]:
        self._ports += 1
        return _HOST, self._ports

    def _join(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Connect a client's protocol; return its transport.

        Raises ``ConnectionRefusedError`` if the server does not run.
        """
        try:
            loop = self._require_started()
        except RuntimeError as error:
            raise ConnectionRefusedError(str(error)) from None
        address, own = self._next_address(), (_HOST, 443)
        ours, theirs = _Pipe(loop, own, address), _Pipe(loop, address, own)
        ours.other, theirs.other = theirs, ours
        served = self._new_protocol()
        ours.set_protocol(served)
        theirs.set_protocol(protocol)
        served.connection_made(ours)
        protocol.connection_made(theirs)
        return theirs

    def _join_http3(self) -> H3Protocol:
        """Connect a client of HTTP/3, whose handshake has begun.

        Raises ``ConnectionRefusedError`` if the server does not run.
        """
        from nghttp2py.asyncio.h3 import H3Protocol
        from nghttp2py.quic import QuicConnection

        try:
            loop = self._require_started()
        except RuntimeError as error:
            raise ConnectionRefusedError(str(error)) from None
        server = self._find_quic_server(loop)
        quic = QuicConnection(configuration=_make_quic(client=True))
        protocol = H3Protocol(quic)
        address = self._next_address()
        self._quic_clients[address] = protocol
        path = _Datagrams(loop, address, lambda _: server)
        path.protocol = protocol
        protocol.connection_made(path)
        protocol.connect((_HOST, 443))
        return protocol

    def _find_quic_server(self, loop: asyncio.AbstractEventLoop) -> QuicServer:
        """Return the server of QUIC, which the first client begins."""
        from nghttp2py.asyncio.quic import QuicServer

        if not self._quic_servers:
            server = QuicServer(
                configuration=_make_quic(client=False),
                create_protocol=self._make_http3(),
                timeouts=self.timeouts,
            )
            find = self._quic_clients.get
            path = _Datagrams(loop, (_HOST, 443), find)
            path.protocol = server
            server.connection_made(path)
            self._quic_servers.append(server)
        return self._quic_servers[0]


def _make_quic(*, client: bool) -> QuicConfiguration:
    from nghttp2py.h3 import H3_ALPN
    from nghttp2py.quic import QuicConfiguration

    configuration = QuicConfiguration(
        is_client=client, alpn_protocols=H3_ALPN, server_name="localhost"
    )
    if client:
        configuration.verify_mode = ssl.CERT_NONE
        return configuration
    with tempfile.TemporaryDirectory() as directory:
        made = local_certificate(directory=Path(directory))
        configuration.load_cert_chain(made.certificate, made.key)
    return configuration
