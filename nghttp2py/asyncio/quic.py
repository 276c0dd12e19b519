"""QUIC over asyncio: connect and serve, and the sockets for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

# First, as in a build without QUIC it says what to install.
from nghttp2py import quic as quic_module
from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol, QuicStreamHandler
from nghttp2py.asyncio.quic_server import MAX_HANDSHAKES, QuicServer
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.connection import QuicTokenHandler
from nghttp2py.quic.tls import SessionTicketFetcher, SessionTicketHandler

__all__ = ["QuicConnectionProtocol", "QuicServer", "connect", "serve"]

# The kernel's buffers of a socket, if it agrees: a few thousand datagrams.
SOCKET_BUFFER = 2 << 20


async def serve(
    host: str,
    port: int,
    *,
    configuration: QuicConfiguration,
    create_protocol: Callable[..., Any] = QuicConnectionProtocol,
    session_ticket_fetcher: SessionTicketFetcher | None = None,
    session_ticket_handler: SessionTicketHandler | None = None,
    retry: bool = False,
    stateless_retry: bool = False,
    stream_handler: QuicStreamHandler | None = None,
    max_connections: int | None = None,
    max_handshakes: int = MAX_HANDSHAKES,
) -> QuicServer:
    """Start a QUIC server at ``host`` and ``port``.

    It is one socket: of a name that has several addresses the first is taken, and
    ``"::"`` is every address of the machine, IPv4's too.

    ``configuration`` must have a certificate and its key.  ``create_protocol``
    makes a :class:`QuicConnectionProtocol`, or a subclass, and is called like it.
    ``stream_handler`` is called with the reader and the writer of each stream that
    a client opens.  With ``retry`` (``stateless_retry`` is its older name) a client
    must first prove its address.  With ``session_ticket_handler``, which gets each of
    them, sessions are resumed by tickets; ``session_ticket_fetcher`` is asked for
    each that comes back, and ``None`` refuses it.  More than ``max_connections`` are
    refused.

    While ``max_handshakes`` are not complete further clients must prove their
    addresses as with ``retry``, and while there are twice as many none is heard: it
    tries again.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    sock = _open(found[0][0], cast("tuple[Any, ...]", found[0][4]))
    try:
        _widen(sock)
        server = QuicServer(
            configuration=configuration,
            create_protocol=create_protocol,
            session_ticket_fetcher=session_ticket_fetcher,
            session_ticket_handler=session_ticket_handler,
            retry=retry or stateless_retry,
            stream_handler=stream_handler,
            max_connections=max_connections,
            max_handshakes=max_handshakes,
        )
        UDPTransport(loop, sock, server, local_addresses=True)
    except BaseException:
        sock.close()
        raise
    return server


def _widen(sock: socket.socket) -> None:
    """Ask for buffers that hold a burst; what the system gives is enough."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BUFFER:
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


def _bind(address: tuple[Any, ...], local_port: int) -> tuple[socket.socket, Any]:
    """A socket from which ``address`` can be reached, and the address for it."""
    if len(address) > 2:
        return _open(socket.AF_INET6, ("::", local_port, 0, 0)), address
    try:
        # Of both families, so that the connection can move from one to the other.
        sock = _open(socket.AF_INET6, ("::", local_port, 0, 0))
    except OSError:
        # A machine without IPv6, or a port that is taken, which this tells again.
        return _open(socket.AF_INET, ("0.0.0.0", local_port)), address
    return sock, ("::ffff:" + address[0], address[1], 0, 0)


def _open(family: int, address: tuple[Any, ...]) -> socket.socket:
    """A bound socket that does not block."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            # "::" is every address, IPv4's too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.asynccontextmanager
async def connect(
    host: str,
    port: int,
    *,
    configuration: QuicConfiguration | None = None,
    create_protocol: Callable[..., Any] = QuicConnectionProtocol,
    session_ticket_handler: SessionTicketHandler | None = None,
    stream_handler: QuicStreamHandler | None = None,
    token_handler: QuicTokenHandler | None = None,
    wait_connected: bool = True,
    local_port: int = 0,
) -> AsyncGenerator[QuicConnectionProtocol, None]:
    """Connect to a QUIC server at ``host`` and ``port``, as a context manager.

    Of a name that has several addresses the first is tried, and no other.

    It gives a :class:`QuicConnectionProtocol`, or what ``create_protocol`` makes,
    and closes the connection at the end.  ``configuration.server_name`` becomes
    ``host`` if it is ``None``.  ``session_ticket_handler`` gets the tickets that the
    server sends, ``token_handler`` its tokens, ``stream_handler`` the streams that
    it opens.  Without ``wait_connected`` the handshake begins with what is first
    sent, which may be early data.  Raises ``ConnectionError`` if it fails.
    """
    loop = asyncio.get_running_loop()
    if configuration is None:
        configuration = QuicConfiguration(is_client=True)
    if configuration.server_name is None:
        configuration.server_name = host
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock, address = _bind(cast("tuple[Any, ...]", found[0][4]), local_port)
    try:
        quic = quic_module.QuicConnection(
            configuration=configuration,
            session_ticket_handler=session_ticket_handler,
            token_handler=token_handler,
        )
        _widen(sock)
        protocol = cast(
            QuicConnectionProtocol, create_protocol(quic, stream_handler=stream_handler)
        )
        transport = UDPTransport(loop, sock, protocol)
    except BaseException:
        sock.close()
        raise
    try:
        protocol.connect(address, transmit=wait_connected)
        if wait_connected:
            await protocol.wait_connected()
        yield protocol
    finally:
        try:
            protocol.close()
            await protocol.wait_closed()
        finally:
            # Whoever is cancelled once more keeps no socket.
            transport.close()
