"""QUIC over asyncio: ``connect`` and ``serve``, and their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

# Imported first: in a build without QUIC its error names what to install.
from nghttp2py import quic as quic_module
from nghttp2py.arguments import (
    check_bool,
    check_callable,
    check_int,
    check_seconds,
    check_type,
)
from nghttp2py.asyncio.binding import (
    bind_datagrams,
    check_bound,
    check_datagram_socket,
    check_host,
    check_port,
    describe_address,
)
from nghttp2py.asyncio.frame_trace import with_frame_log
from nghttp2py.asyncio.quic_handshakes import MAX_HANDSHAKES
from nghttp2py.asyncio.quic_log import logger
from nghttp2py.asyncio.quic_member import QuicMember
from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol, QuicStreamHandler
from nghttp2py.asyncio.quic_server import QuicServer
from nghttp2py.asyncio.racing import interleave, race
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.errors import ConfigurationError
from nghttp2py.quic.configuration import QuicConfiguration, check_configuration
from nghttp2py.quic.connection import QuicTokenHandler
from nghttp2py.quic.tls import SessionTicketFetcher, SessionTicketHandler

__all__ = ["QuicConnectionProtocol", "QuicServer", "connect", "serve"]

# The socket buffers that are requested from the kernel: a few thousand datagrams.
SOCKET_BUFFER = 2 << 20

# The default of connect()'s timeout, as in other clients of this package.
CONNECT_TIMEOUT = 30.0

# How long connect() waits for the streams to end before it closes the connection.
CLOSE_TIMEOUT = Timeouts().close


async def serve(
    host: str | None = None,
    port: int | None = None,
    *,
    configuration: QuicConfiguration | None = None,
    config: QuicConfiguration | None = None,
    create_protocol: Callable[..., Any] = QuicConnectionProtocol,
    session_ticket_fetcher: SessionTicketFetcher | None = None,
    session_ticket_handler: SessionTicketHandler | None = None,
    retry: bool = False,
    stateless_retry: bool = False,
    stream_handler: QuicStreamHandler | None = None,
    max_connections: int | None = None,
    max_handshakes: int = MAX_HANDSHAKES,
    timeouts: Timeouts | None = None,
    sock: socket.socket | None = None,
    group: QuicMember | None = None,
) -> QuicServer:
    """Start a QUIC server at ``host`` and ``port``, or on ``sock``.

    There is one socket: of several addresses of a name the first is used, and ``"::"``
    stands for every address of the machine, IPv4 included.  ``sock`` is a bound
    datagram socket, which the server owns from now on.

    ``group`` is for a worker of several: a member of a
    :class:`~nghttp2py.asyncio.quic_group.QuicGroup`, whose socket and secrets are used,
    except for secrets that the configuration has.  ``sock`` is then one of its sockets,
    and needed if it has more than one.

    ``configuration`` (or ``config``, as our other calls name it) must have a
    certificate and its key; an invalid one raises ``ValueError`` here, and a
    certificate that is not valid now is logged as a warning.  ``create_protocol`` makes
    a :class:`QuicConnectionProtocol`, or a subclass, and is called like it.
    ``stream_handler`` is called with the reader and the writer of each stream that a
    client opens.  With ``retry`` (``stateless_retry`` is its older name) a client must
    first prove its address.  ``session_ticket_handler`` enables resumption by tickets,
    and is called with each issued ticket; ``session_ticket_fetcher`` is called for each
    that a client presents, and refuses it by returning ``None``.  Connections beyond
    ``max_connections`` are refused.

    While ``max_handshakes`` are not complete, or a quarter of them from one address (64
    bits of an IPv6 one), further clients must prove their addresses as with ``retry``.
    The maximum of either is twice as many: then the oldest is dropped for the next, if
    it is older than a second.  ``timeouts.handshake`` bounds the time of each, and
    ``timeouts.close`` the wait of :meth:`~QuicServer.close`.  The other bounds concern
    requests: they are a parameter of :class:`~nghttp2py.asyncio.h3.H3Protocol`.
    """
    loop = asyncio.get_running_loop()
    configuration = _choose(configuration, config)
    if configuration is None:
        raise TypeError("a server needs a configuration with its certificate")
    check_bool("retry", retry)
    check_bool("stateless_retry", stateless_retry)
    if group is not None:
        check_type("group", group, QuicMember, "a QuicMember")
        sock = group.choose(sock)
    if sock is not None:
        if host is not None or port is not None:
            raise ValueError("host and port must be None with sock or group")
        check_datagram_socket(sock)
        check_bound(sock)
        sock.setblocking(False)
    else:
        if port is None:
            raise ValueError("there must be a port or sock")
        check_host(host)
        check_port(port)
        found = await loop.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        sock = bind_datagrams(found[0][0], cast("tuple[Any, ...]", found[0][4]))
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
            timeouts=timeouts,
            group=group,
        )
        UDPTransport(loop, sock, server, local_addresses=True)
    except BaseException:
        sock.close()
        raise
    logger.info("listening on %s (QUIC)", describe_address(sock.getsockname()))
    return server


def with_alpn(
    configuration: QuicConfiguration, protocols: list[str]
) -> QuicConfiguration:
    """Return what has ``protocols`` if it names none, else check that it has one."""
    names = configuration.alpn_protocols
    if names is None:
        return dataclasses.replace(configuration, alpn_protocols=protocols)
    if not set(protocols) & set(names):
        raise ConfigurationError(
            f"http3 has the alpn_protocols {names!r}: {protocols[0]} must be among them"
        )
    return configuration


def _choose(
    configuration: QuicConfiguration | None, config: QuicConfiguration | None
) -> QuicConfiguration | None:
    """Return the argument given as ``configuration`` or as ``config``."""
    if config is None:
        return configuration
    check_type("config", config, QuicConfiguration, "a QuicConfiguration")
    if configuration is not None:
        raise TypeError("give configuration or config, not both")
    return config


def _widen(sock: socket.socket) -> None:
    """Request buffers that hold a burst; the system may give smaller ones."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BUFFER:
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


def _bind(address: tuple[Any, ...], local_port: int) -> tuple[socket.socket, Any]:
    """Return a socket from which ``address`` can be reached, and the address for it."""
    if len(address) > 2:
        return bind_datagrams(socket.AF_INET6, ("::", local_port, 0, 0)), address
    try:
        # For both families, so that the connection can migrate from one to the other.
        sock = bind_datagrams(socket.AF_INET6, ("::", local_port, 0, 0))
    except OSError:
        # The machine has no IPv6, or the port is in use, for which this raises again.
        return bind_datagrams(socket.AF_INET, ("0.0.0.0", local_port)), address
    return sock, ("::ffff:" + address[0], address[1], 0, 0)


@contextlib.asynccontextmanager
async def connect(
    host: str,
    port: int,
    *,
    configuration: QuicConfiguration | None = None,
    config: QuicConfiguration | None = None,
    create_protocol: Callable[..., Any] = QuicConnectionProtocol,
    session_ticket_handler: SessionTicketHandler | None = None,
    stream_handler: QuicStreamHandler | None = None,
    token_handler: QuicTokenHandler | None = None,
    wait_connected: bool = True,
    local_port: int = 0,
    sock: socket.socket | None = None,
    connect_timeout: float | None = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
) -> AsyncGenerator[QuicConnectionProtocol, None]:
    """Connect to a QUIC server at ``host`` and ``port``, as a context manager.

    Each address of a name is tried, a quarter of a second after the previous one, and
    the first that answers is used (RFC 8305); ``create_protocol`` is called for each.
    With ``local_port`` they are tried one after the other, and without
    ``wait_connected`` only the first.  With ``sock``, a datagram socket that the
    connection owns from now on, only the first address of its family is tried.

    The context manager returns a :class:`QuicConnectionProtocol`, or what
    ``create_protocol`` makes.  When the block ends without an exception, it waits for
    the delivery of streams whose end was written, for at most ``close_timeout``
    seconds; then the connection is closed.

    ``config`` is another name of ``configuration``, as in our other calls.
    ``configuration.server_name`` becomes ``host`` if it is ``None``.
    ``session_ticket_handler`` is called with the tickets that the server sends,
    ``token_handler`` with its tokens, ``stream_handler`` with the streams that it
    opens.  Without ``wait_connected`` the handshake begins when something is first
    sent, which may be early data.  Raises ``ConnectionError`` if the handshake fails,
    or takes more than ``connect_timeout`` seconds.
    """
    check_seconds("close_timeout", close_timeout, least=0, optional=False)
    chosen = await establish(
        host,
        port,
        configuration=_choose(configuration, config),
        create_protocol=create_protocol,
        session_ticket_handler=session_ticket_handler,
        stream_handler=stream_handler,
        token_handler=token_handler,
        wait_connected=wait_connected,
        local_port=local_port,
        sock=sock,
        connect_timeout=connect_timeout,
    )
    protocol = chosen.protocol
    try:
        yield protocol
        with contextlib.suppress(asyncio.TimeoutError):
            await wait_for(protocol.wait_settled(), close_timeout)
    finally:
        try:
            protocol.close()
            await protocol.wait_closed()
        finally:
            # Close the socket even if this is cancelled again.
            chosen.transport.close()


async def establish(
    host: str,
    port: int,
    *,
    configuration: QuicConfiguration | None,
    create_protocol: Callable[..., Any],
    session_ticket_handler: SessionTicketHandler | None = None,
    stream_handler: QuicStreamHandler | None = None,
    token_handler: QuicTokenHandler | None = None,
    wait_connected: bool = True,
    local_port: int = 0,
    sock: socket.socket | None = None,
    connect_timeout: float | None = None,
    refusals: bool = False,
) -> Attempt:
    """Make a connection, as ``connect`` says; its socket is closed when it is over.

    If this fails, or is cancelled, nothing is left of it.  With ``refusals`` an attempt
    fails at once if an ICMP message says that nothing listens at the address, on Linux;
    without, a server that is just being started is waited for, as in aioquic.
    """
    loop = asyncio.get_running_loop()
    if configuration is None:
        configuration = QuicConfiguration(is_client=True)
    check_configuration(configuration)
    check_host(host)
    check_port(port)
    check_callable("create_protocol", create_protocol)
    for name, function in (
        ("session_ticket_handler", session_ticket_handler),
        ("stream_handler", stream_handler),
        ("token_handler", token_handler),
    ):
        if function is not None:
            check_callable(name, function)
    check_bool("wait_connected", wait_connected)
    check_int("local_port", local_port, 0, 65535, error=OverflowError)
    check_seconds("connect_timeout", connect_timeout, least=0, most=1e9)
    if configuration.server_name is None:
        configuration.server_name = host
    if sock is not None:
        if local_port:
            raise ValueError("local_port must be 0 with sock")
        check_datagram_socket(sock)
        sock.setblocking(False)
    addresses = await _find(host, port, None if sock is None else sock.family)
    if sock is not None or not wait_connected:
        del addresses[1:]

    def attempt(address: tuple[Any, ...], timeout: float | None) -> Attempt:
        bound, target = (sock, address) if sock else _bind(address, local_port)
        if sock is not None and sock.family == socket.AF_INET6 and len(target) == 2:
            target = ("::ffff:" + target[0], target[1], 0, 0)
        try:
            quic = quic_module.QuicConnection(
                configuration=with_frame_log(configuration, address),
                session_ticket_handler=session_ticket_handler,
                token_handler=token_handler,
                handshake_timeout=timeout,
            )
            _widen(bound)
            protocol = cast(
                QuicConnectionProtocol,
                create_protocol(quic, stream_handler=stream_handler),
            )
            transport = UDPTransport(loop, bound, protocol, refusals=refusals)
            return Attempt(protocol, transport, target)
        except BaseException:
            bound.close()
            raise

    if not wait_connected:
        chosen = attempt(addresses[0], connect_timeout)
        chosen.begin(transmit=False)
    elif local_port or len(addresses) == 1:
        chosen = await _in_turn(attempt, addresses, connect_timeout)
    else:
        chosen = await _race(attempt, addresses, connect_timeout)
    return chosen


class Attempt:
    """An attempt to connect, and its socket."""

    def __init__(
        self,
        protocol: QuicConnectionProtocol,
        transport: UDPTransport,
        target: tuple[Any, ...],
    ) -> None:
        self.protocol = protocol
        self.transport = transport
        self._target = target

    def begin(self, *, transmit: bool) -> None:
        try:
            self.protocol.connect(self._target, transmit=transmit)
        except BaseException:
            self.transport.close()
            raise

    async def finish(self) -> Attempt:
        """Wait for the handshake; close the socket if it fails."""
        try:
            self.begin(transmit=True)
            await self.protocol.wait_connected()
        except BaseException:
            self.discard()
            raise
        return self

    def discard(self) -> None:
        """End the connection, and close the socket."""
        self.protocol.close()
        self.transport.close()


async def _find(host: str, port: int, family: int | None) -> list[tuple[Any, ...]]:
    """Return the addresses to try, with alternating families (RFC 8305, 4)."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_DGRAM
    )
    if family is not None:
        by_family: dict[int, list[tuple[Any, ...]]] = {}
        for kind, _, _, _, address in found:
            by_family.setdefault(kind, []).append(address)
        usable = by_family.get(family) or (
            by_family.get(socket.AF_INET) if family == socket.AF_INET6 else None
        )
        if not usable:
            raise OSError(f"{host} has no address of the family of sock")
        return usable
    return [entry[4] for entry in interleave(found)]


async def _in_turn(
    attempt: Callable[[tuple[Any, ...], float | None], Attempt],
    addresses: list[tuple[Any, ...]],
    timeout: float | None,
) -> Attempt:
    """Try one address after the other; each gets an equal share of the time."""
    share = None if timeout is None else timeout / len(addresses)
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return await attempt(address, share).finish()
    return await attempt(addresses[-1], share).finish()


async def _race(
    attempt: Callable[[tuple[Any, ...], float | None], Attempt],
    addresses: list[tuple[Any, ...]],
    timeout: float | None,
) -> Attempt:
    """Try each address some time after the previous one; return the first that
    answers."""

    async def run(address: tuple[Any, ...]) -> Attempt:
        return await attempt(address, timeout).finish()

    return await race(run, addresses, Attempt.discard)
