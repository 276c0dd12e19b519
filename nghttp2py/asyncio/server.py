"""A server of all versions of HTTP, whose requests coroutines or handlers answer.

aioquic's server, which is for QUIC only, has this module path, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import logging
import os
import signal
import socket
import ssl as ssl_module
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from nghttp2py.arguments import check_bool, check_type, describe
from nghttp2py.asyncio.binding import (
    UnixPath,
    adopt_sockets,
    bind_tcp,
    bind_udp,
    bind_unix,
    to_address,
)
from nghttp2py.asyncio.certificates import (
    LoadedTLS,
    TLSOptions,
    check_pair,
    load_tls,
)
from nghttp2py.asyncio.choice import Choice
from nghttp2py.asyncio.event_loop import get_current_loop, is_loop_running, run
from nghttp2py.asyncio.h1_link import H1Streams
from nghttp2py.asyncio.h1_pump import H1Pump
from nghttp2py.asyncio.handshake_failures import REASONS
from nghttp2py.asyncio.http2 import HTTP2Protocol
from nghttp2py.asyncio.listener import (
    BACKLOG,
    ConnectionSet,
    Listener,
    check_backlog,
    check_limit,
)
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.proxy_protocol import ProxyPolicy
from nghttp2py.asyncio.timeouts import Timeouts, merge_timeouts
from nghttp2py.asyncio.tls import (
    ServerContexts,
    check_server_context,
    prepare_server_context,
)
from nghttp2py.exchange import Exchange, ExchangeFactory, find_factory
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.config import check_config

if TYPE_CHECKING:
    # QUIC is imported when it is first used: not every build has it.
    from nghttp2py.asyncio.h3 import H3Protocol
    from nghttp2py.asyncio.quic import QuicServer as QuicServer
    from nghttp2py.asyncio.quic import serve as serve
    from nghttp2py.asyncio.quic_member import QuicMember
    from nghttp2py.asyncio.quic_protocol import (
        QuicConnectionProtocol as QuicConnectionProtocol,
    )
    from nghttp2py.asyncio.quic_protocol import QuicStreamHandler as QuicStreamHandler
    from nghttp2py.quic import QuicConfiguration

__all__ = ["DEFAULT_CONFIGURATION", "HandlerProtocol", "Server", "ServerCounts"]

# One name for the server of handlers and this one, as they are one.
logger = logging.getLogger("nghttp2py.server")

_QUIC = {"QuicServer", "serve"}
_QUIC_PROTOCOL = {"QuicConnectionProtocol", "QuicStreamHandler"}

# How many ports are tried to find one that is free for TCP and UDP.
_ATTEMPTS = 16

#: The default ``config`` of a server with handlers.  Uploads are passed on as they
#: arrive, so wide windows cost no memory here and save waiting.  A handler that holds
#: its upload back does not block others: the bound is its stream's window, not the
#: connection's.  Extended CONNECT needs a program that supports it (RFC 8441).
DEFAULT_CONFIGURATION = H2Configuration(
    initial_window_size=262144,
    connection_window_size=2**31 - 1,
    enable_connect_protocol=False,
    manual_flow_control=True,
)

# That of a server whose exchanges include tunnels, such as WebSockets.
_TUNNEL_CONFIGURATION = replace(DEFAULT_CONFIGURATION, enable_connect_protocol=True)

Address = tuple[str | None, int] | str | bytes | os.PathLike[str]
Paths = tuple[str | os.PathLike[str], str | os.PathLike[str] | None]
S = TypeVar("S", bound="Server")


class ServerCounts(NamedTuple):
    """What a ``Server`` has open, and what it has counted since its start."""

    #: Connections of TCP and Unix sockets that are open, those in a handshake included.
    connections: int = 0
    #: Connections of QUIC that are open, those in a handshake included.
    quic_connections: int = 0
    #: Streams that are open: requests that have not ended.
    streams: int = 0
    #: Connections of TCP and Unix sockets that were accepted.
    accepted: int = 0
    #: Connections of QUIC that were begun.
    quic_accepted: int = 0
    #: TLS handshakes that clients have begun and that were not completed.
    failed_handshakes: int = 0
    #: The same of QUIC.
    quic_failed_handshakes: int = 0
    #: Connections without a valid header of the PROXY protocol.
    refused_headers: int = 0


class HandlerProtocol(HTTP2Protocol):
    """One connection of a server whose requests become exchanges of a factory."""

    @property
    def handlers(self) -> dict[int, Exchange]:
        """The exchanges of the open streams, by stream identifier."""
        return self.http.exchanges

    @property
    def stream_count(self) -> int:
        """The streams that are open."""
        return len(self.http.exchanges)

    def set_alt_svc(self, value: bytes) -> None:
        """Add Alt-Svc to each final response (RFC 7838)."""
        self.http.alt_svc = value


class Server:
    """Serves HTTP/1.1, HTTP/2, and with ``http3`` HTTP/3 on the same port, by ``app``.

    ``app`` is a coroutine function, which is called with the ``Stream`` of each
    request, or a subclass of ``BaseRequestHandler``.  A coroutine that raises
    before it has answered gives status 500; it is cancelled when its stream breaks
    off.

    ``address`` is ``(host, port)``, where the host ``None`` means all interfaces and
    the port 0 any free port; or the path of a Unix socket, which on Linux is abstract
    if it begins with a null byte.  Instead, with the address ``None``, ``sock`` is a
    bound socket, or several; the server closes them.  HTTP/3 is served on those of UDP
    among them, or, without one, at the addresses of the others.

    ``ssl`` is an ``ssl.SSLContext`` with a certificate, the paths of a certificate and
    its private key, or ``TLSOptions``; ALPN ``h2`` and ``http/1.1`` are set, and what
    RFC 9113 forbids is disabled.  A client without ALPN speaks HTTP/1.1.  Without
    ``ssl``, a connection that begins with the preface of HTTP/2 is one (RFC 9113, 3.3),
    and any other is one of HTTP/1.1.  With ``http1`` false, only HTTP/2 is spoken.

    ``http3`` is ``True`` if ``ssl`` has paths; the paths of a certificate and its
    private key, if ``ssl`` is a context, from which they cannot be read; or a
    ``QuicConfiguration`` with a certificate.  Responses over TCP then announce
    HTTP/3 by ``alt-svc`` (RFC 7838), unless they have one or ``alt_svc`` is false.
    ``quic_group`` is for a worker of several: a ``QuicMember``, whose UDP sockets and
    secrets HTTP/3 uses.

    ``config`` has settings and limits of HTTP/2.  ``timeouts`` bounds every wait for
    a client.  ``limit_connections`` bounds the connections that are open at once, of
    both protocols: further ones wait in the kernel, those of QUIC are refused.
    ``backlog`` and ``reuse_port`` are those of ``loop.create_server``.

    ``proxy_protocol`` is "v1", "v2" or "auto" if connections begin with a header of
    the PROXY protocol, which has the client's address; with ``proxy_allow_from``, as
    for ``TrustedAddresses``, only those of these peers do.  QUIC has no such header.

    ``serve_forever()`` runs a server by itself.  In a running event loop, use
    ``async with`` or ``await start()``, then ``await serve()`` to wait; all
    calls are to be made in that loop.

    Raises ``TypeError`` and ``ValueError`` for invalid arguments, and ``OSError`` for a
    file that cannot be read; for one that cannot be used, ``TLSConfigurationError``,
    which is a ``ValueError``.
    """

    def __init__(
        self,
        app: Callable[..., Any] | ExchangeFactory,
        address: Address | None = None,
        *,
        ssl: ssl_module.SSLContext | Paths | TLSOptions | LoadedTLS | None = None,
        http3: bool | Paths | QuicConfiguration = False,
        alt_svc: bool = True,
        http1: bool | None = None,
        config: H2Configuration | None = None,
        timeouts: Timeouts | None = None,
        limit_connections: int | None = None,
        sock: socket.socket | Iterable[socket.socket] | None = None,
        reuse_port: bool | None = None,
        backlog: int = BACKLOG,
        proxy_protocol: str = "off",
        proxy_allow_from: str | Iterable[str] | None = None,
        quic_group: QuicMember | None = None,
    ) -> None:
        if sock is None:
            if address is None:
                raise TypeError("address must be (host, port) or a path, or give sock")
            self.address: tuple[str | None, int] | str | None = to_address(address)
            given: list[socket.socket] = []
        else:
            if address is not None:
                raise ValueError("give an address or sock, not both")
            self.address = None
            given = adopt_sockets(sock, datagrams=http3 is not False)
        self._given = [one for one in given if one.type == socket.SOCK_STREAM]
        self._given_udp = [one for one in given if one.type == socket.SOCK_DGRAM]
        if quic_group is not None:
            _check_member(quic_group, http3)
            if self._given_udp:
                raise ValueError("sock must have no sockets of UDP with quic_group")
            self._given_udp = list(quic_group.sockets)
        self._app: Any = app
        self._factory = self._make_factory(app)
        if http1 is not None:
            check_bool("http1", http1)
        self._http1 = http1 is not False
        self._ssl = _to_options("ssl", ssl)
        loaded = load_tls(self._ssl) if isinstance(self._ssl, TLSOptions) else self._ssl
        self._contexts = self._make_contexts(loaded)
        check_bool("alt_svc", alt_svc)
        check_limit(limit_connections)
        check_backlog(backlog)
        if reuse_port is not None:
            check_bool("reuse_port", reuse_port)
        self._proxy = ProxyPolicy(proxy_protocol, proxy_allow_from)
        check_config(config)
        if config is not None and not config.manual_flow_control:
            config = replace(config, manual_flow_control=True)
        self.config = config
        # Whether requests for tunnels are given to the application.
        self._tunnels = config is not None and config.enable_connect_protocol
        if config is None and self._factory is not None:
            self._tunnels = self._factory.takes_tunnels
        self.timeouts = merge_timeouts(timeouts)
        self._alt_svc = alt_svc
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._limit = limit_connections
        self._listener: Listener | None = None
        self._connections = self._new_connections()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http3 = _to_options("http3", http3)
        self._quic: QuicConfiguration | None = None
        self._quic_group = quic_group
        self._quic_servers: list[QuicServer] = []
        self._quic_ports: list[int] = []
        if http3 is not False:
            if not self._given_udp and (
                isinstance(self.address, str)
                or any(each.family == socket.AF_UNIX for each in self._given)
            ):
                raise ValueError("http3 needs an address of IP, not a Unix socket")
            if self._contexts is None:
                raise ValueError("http3 needs ssl: both protocols have a certificate")
            self._quic = _to_quic(self._http3, loaded, self.timeouts)

    def _make_factory(self, app: Any) -> ExchangeFactory | None:
        """Return the factory of exchanges; None for a coroutine function of streams."""
        factory = find_factory(app)
        if factory is None:
            check_coroutine(app)
        return factory

    # ---- Life ----

    async def start(self) -> None:
        """Listen, and serve in the running event loop.

        Raises ``OSError`` if it cannot bind the address, ``TLSConfigurationError`` if
        no TLS client could be served, and ``RuntimeError`` if the server was started
        before.  If ``close`` is called meanwhile, the server has been closed when this
        returns.
        """
        if self._listener is not None:
            raise RuntimeError("the server was started before")
        await self._start()

    async def _start(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._connections = self._new_connections()
        listener = self._listener = Listener(
            loop,
            self._new_protocol,
            self._connections,
            tls=self._contexts,
            handshake_timeout=self.timeouts.handshake,
            backlog=self._backlog,
            limit_connections=self._limit,
            protocol_name="HTTP/1.1 and HTTP/2" if self._http1 else "HTTP/2",
            elsewhere=self._count_quic,
            proxy=self._proxy,
        )
        datagrams: list[socket.socket] = []
        try:
            if isinstance(self._ssl, ssl_module.SSLContext):
                check_server_context(self._ssl)
            sockets, paths, datagrams = await self._bind_both(loop)
            listener.use(sockets, paths)
            if not self._connections.closing:
                while datagrams:
                    await self._start_quic(datagrams.pop(0), listener)
            listener.start()
        except BaseException:
            listener.close()
            self._listener = None
            self._abort_quic()
            for sock in self._given:
                sock.close()
            if self._quic_group is not None:
                self._quic_group.close()
            raise
        finally:
            for sock in [*datagrams, *self._given_udp]:
                sock.close()

    async def _bind_both(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[list[socket.socket], list[UnixPath], list[socket.socket]]:
        """Bind for TCP, and at the same addresses for UDP if HTTP/3 is served."""
        attempts = 1
        if isinstance(self.address, tuple) and not self.address[1]:
            attempts = _ATTEMPTS
        while True:
            attempts -= 1
            sockets, paths = await self._bind(loop)
            if self._quic is None or self._given_udp:
                return sockets, paths, self._given_udp
            datagrams: list[socket.socket] = []
            try:
                for sock in sockets:
                    datagrams.append(bind_udp(sock, reuse_port=self._reuse_port))
                return sockets, paths, datagrams
            except OSError as error:
                for sock in [*sockets, *datagrams]:
                    sock.close()
                if not attempts or error.errno != errno.EADDRINUSE:
                    raise

    async def _bind(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[list[socket.socket], list[UnixPath]]:
        if self.address is None:
            return self._given, []
        if isinstance(self.address, str):
            sock, path = bind_unix(self.address)
            return [sock], [] if path is None else [path]
        host, port = self.address
        return await bind_tcp(loop, host, port, reuse_port=self._reuse_port), []

    async def serve(self, *, signals: Iterable[int] = ()) -> None:
        """Serve until ``close`` is called, and wait for the last connection.

        This starts the server if that was not done.  When it is cancelled, it closes
        the server; if cancelled again, it aborts it.  The first of ``signals`` calls
        ``close`` while it waits, the second one ``abort``, where the loop allows it: on
        Unix, in the main thread.
        """
        loop = asyncio.get_running_loop()
        caught = []
        # Before the start, because a signal may come as soon as others see the server.
        # asyncio raises these where a loop cannot have signal handlers.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in signals:
                loop.add_signal_handler(number, self.stop)
                caught.append(number)
        try:
            listener = await self._started()
            try:
                await listener.wait_closed()
            finally:
                self.close()
                try:
                    await self.wait_closed()
                except BaseException:
                    self.abort()
                    raise
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    async def _started(self) -> Listener:
        if self._listener is None:
            await self.start()
        assert self._listener is not None
        return self._listener

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM, then stop gracefully; at the second, at once.

        This runs the thread's current event loop, if one was set, and leaves it open;
        otherwise a loop of its own, uvloop's if that is installed.  It is not for use
        inside a running loop.
        """
        if is_loop_running():
            raise RuntimeError(
                "serve_forever() is not for a running event loop: await serve()"
            )
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = get_current_loop()
        main = self.serve(signals=(signal.SIGINT, signal.SIGTERM))
        if loop is None:
            run(main)
        else:
            loop.run_until_complete(main)

    def stop(self) -> None:
        """Do what a signal does: ``close`` the first time, ``abort`` the second."""
        if self._connections.closing:
            logger.warning("stopping at once")
            self.abort()
            return
        self.close()
        count = len(self._connections) + self._count_quic()
        if count:
            logger.warning(
                "stopping: waiting up to %g seconds for %d connections with %d open "
                "streams; another signal ends them at once",
                self.timeouts.close,
                count,
                sum(protocol.stream_count for protocol in self._connections)
                + sum(server.stream_count for server in self._quic_servers),
            )

    def close(self, timeout: float | None = None) -> None:
        """Stop gracefully: stop accepting, and let the open streams finish.

        Every client gets GOAWAY (RFC 9113, 6.8, RFC 9114, 5.2).  What has not finished
        after ``timeout`` seconds, by default ``timeouts.close``, is aborted.
        ``wait_closed`` waits for that.  Before the start this is a no-op.
        """
        if self._listener is None:
            return
        if timeout is None:
            timeout = self.timeouts.close
        self._listener.close(timeout)
        for server in self._quic_servers:
            server.close(timeout)

    def abort(self) -> None:
        """Stop at once: stop accepting, and abort every connection."""
        if self._listener is not None:
            self._listener.abort()
            self._abort_quic()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has ended the last connection."""
        if self._listener is not None:
            await self._listener.wait_closed()
        for server in self._quic_servers:
            await server.wait_closed()

    async def __aenter__(self: S) -> S:
        await self._started()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, those of TCP first; empty if it does not listen."""
        listener = self._listener
        if listener is None or not listener.is_serving():
            return ()
        datagrams = [sock for server in self._quic_servers for sock in server.sockets]
        return (*listener.sockets, *datagrams)

    @property
    def counts(self) -> ServerCounts:
        """What the server has open now, and what it has counted since its start."""
        if self._listener is None:
            return ServerCounts()
        begun, failed = 0, 0
        for server in self._quic_servers:
            handshakes = server.handshakes
            begun += handshakes[0]
            failed += handshakes[1]
        return ServerCounts(
            self._listener.count,
            self._count_quic(),
            sum(protocol.stream_count for protocol in self._connections)
            + sum(server.stream_count for server in self._quic_servers),
            self._listener.accepted,
            begun,
            self._listener.failures.total(),
            failed,
            self._listener.refused_headers,
        )

    @property
    def handshake_failures(self) -> dict[tuple[str, str], int]:
        """How many handshakes were begun by clients and not completed since the start.

        The keys are pairs of "tcp" or "quic", and one of a few reasons, all of which
        are there.
        """
        tcp: Counter[str] = Counter()
        quic: Counter[str] = Counter()
        if self._listener is not None:
            tcp.update(self._listener.failures)
        for server in self._quic_servers:
            quic.update(server.handshake_failures)
        return {
            (transport, reason): found[reason]
            for transport, found in (("tcp", tcp), ("quic", quic))
            for reason in REASONS
        }

    # ---- Connections ----

    def _new_connections(self) -> ConnectionSet[Any]:
        return ConnectionSet(
            lambda protocol, timeout: protocol.close(
                self.timeouts.close if timeout is None else timeout
            ),
            lambda protocol: protocol.abort(),
        )

    def _new_protocol(self) -> asyncio.BaseProtocol:
        if self._contexts is not None and not self._http1:
            return self._new_http2()
        return Choice(
            self._new_http2,
            self._new_http1 if self._http1 else None,
            self._connections,
            self.timeouts,
        )

    def _new_http1(self, secure: bool) -> H1Pump:
        config = DEFAULT_CONFIGURATION if self.config is None else self.config
        ends = (self._opened, self._connections.discard)
        if self._factory is not None:
            return H1Pump(
                self._factory,
                config,
                *ends,
                timeouts=self.timeouts,
                secure=secure,
                tunnels=self._tunnels,
            )
        return H1Streams(
            cast(Callable[[Any], Awaitable[Any]], self._app),
            config,
            *ends,
            timeouts=self.timeouts,
            secure=secure,
            tunnels=self._tunnels,
        )

    def _new_http2(self) -> asyncio.BaseProtocol:
        if self._factory is not None:
            config = self.config
            if config is None:
                config = DEFAULT_CONFIGURATION
                if self._factory.takes_tunnels:
                    config = _TUNNEL_CONFIGURATION
            return HandlerProtocol(
                self._factory,
                config,
                self._opened,
                self._connections.discard,
                timeouts=self.timeouts,
            )
        protocol = H2Protocol(False, config=self.config, timeouts=self.timeouts)
        protocol.set_owner(self)
        return protocol

    def _opened(self, protocol: HandlerProtocol | H2Protocol | H1Pump) -> None:
        self._connections.add(protocol)
        if self._quic_servers and self._alt_svc and protocol.transport is not None:
            # Not "sockname", which a header of the PROXY protocol may have set.
            address = protocol.transport.get_extra_info("socket").getsockname()
            # The clients of a Unix socket have another server before this one.
            if isinstance(address, tuple):
                ports = self._quic_ports
                port = address[1] if address[1] in ports else ports[0]
                protocol.set_alt_svc(b'h3=":%d"' % port)

    def connection_made(self, protocol: Any) -> None:
        """Keep a connection of streams until it is lost, and answer its requests."""
        self._opened(protocol)
        # Done after close(), too: a client in the middle of its handshake may send
        # requests before it reads GOAWAY, and these are answered.
        if protocol.transport is not None and not protocol.transport.is_closing():
            protocol.set_handler(protocol.serve_streams(self._app))

    def connection_gone(self, protocol: Any) -> None:
        """Forget a connection of streams."""
        self._connections.discard(protocol)

    # ---- TLS ----

    def _make_contexts(self, ssl: Any) -> ServerContexts | None:
        protocols = ["http/1.1"] if self._http1 else []
        if isinstance(ssl, LoadedTLS):
            return ssl.make_contexts(*protocols)
        if isinstance(ssl, ssl_module.SSLContext):
            prepare_server_context(ssl, *protocols)
            return ServerContexts(ssl)
        if ssl is None:
            return None
        raise TypeError(
            "ssl must be an ssl.SSLContext, the paths (certificate, key), TLSOptions "
            f"or None, not {type(ssl).__name__}"
        )

    def reload_certificates(
        self,
        ssl: ssl_module.SSLContext | Paths | TLSOptions | LoadedTLS | None = None,
        http3: Paths | QuicConfiguration | None = None,
    ) -> None:
        """Read the files of certificates again, and use them for new connections.

        Connections that exist keep theirs.  ``ssl`` and ``http3`` replace those that
        the server was made with; they must be given where these were a ``SSLContext``
        or a ``QuicConfiguration``, whose files are not known.

        Raises what the constructor raises for them, and ``ValueError`` where there is
        nothing to be read; then nothing has changed.
        """
        if self._contexts is None:
            raise ValueError("the server has no certificates: it was made without ssl")
        if http3 is not None and self._quic is None:
            raise ValueError("the server has no HTTP/3: it was made without http3")
        chosen = [
            _choose_again("ssl", ssl, self._ssl),
            _choose_again("http3", http3, self._http3),
        ]
        loaded = load_tls(chosen[0]) if isinstance(chosen[0], TLSOptions) else chosen[0]
        contexts = self._make_contexts(loaded)
        assert contexts is not None
        if isinstance(loaded, ssl_module.SSLContext):
            check_server_context(loaded)
        if self._quic is not None:
            from nghttp2py.asyncio.quic_server import check_server_configuration
            from nghttp2py.quic.configuration import with_credentials

            quic = _to_quic(chosen[1], loaded, self.timeouts)
            quic = with_credentials(self._quic, quic)
            check_server_configuration(quic)
            self._quic = quic
            for server in self._quic_servers:
                server.reload_certificates(quic)
        self._ssl, self._http3 = chosen
        self._contexts = contexts
        if self._listener is not None:
            self._listener.set_contexts(contexts)

    # ---- QUIC ----

    def _make_http3(self) -> Callable[..., H3Protocol]:
        """Return what makes the connections of HTTP/3."""
        from nghttp2py.asyncio.h3 import TUNNEL_CONFIGURATION, H3Protocol

        make: Callable[..., H3Protocol] = H3Protocol
        if self._tunnels:
            make = functools.partial(H3Protocol, config=TUNNEL_CONFIGURATION)

        def create(quic: Any, stream_handler: object = None) -> H3Protocol:
            return make(quic, request_handler=self._app, timeouts=self.timeouts)

        return create

    async def _start_quic(self, sock: socket.socket, listener: Listener) -> None:
        from nghttp2py.asyncio.quic import serve

        assert self._quic is not None
        server = await serve(
            configuration=self._quic,
            create_protocol=self._make_http3(),
            timeouts=self.timeouts,
            sock=sock,
            group=self._quic_group,
        )
        server.share_limit(lambda: not listener.is_full, listener.released)
        self._quic_servers.append(server)
        self._quic_ports.append(sock.getsockname()[1])

    def _count_quic(self) -> int:
        return sum(server.connection_count for server in self._quic_servers)

    def _abort_quic(self) -> None:
        for server in self._quic_servers:
            server.abort()


def check_coroutine(app: Any) -> None:
    """Raise unless ``app`` is a coroutine function of one argument."""
    rule = "app must be a coroutine function of a Stream, or a subclass of "
    rule += f"BaseRequestHandler, not {describe(app)}"
    if isinstance(app, type) or not callable(app):
        raise TypeError(rule)
    signature = inspect.signature(app)
    if not _takes(signature, 1):
        if _takes(signature, 3):
            raise TypeError(
                "app seems to be an ASGI application, of scope, receive and send: "
                "wrap it, as Server(nghttp2py.asgi.ASGIApp(app), ...)"
            )
        raise TypeError(f"{rule}; it must take one argument")
    if not any(map(inspect.iscoroutinefunction, (app, type(app).__call__))):
        raise TypeError(f"{rule}; it is no coroutine function")


def _takes(signature: inspect.Signature, number: int) -> bool:
    try:
        signature.bind(*[None] * number)
    except TypeError:
        return False
    return True


def _check_member(quic_group: object, http3: object) -> None:
    """Raise unless ``quic_group`` is a member, and HTTP/3 is served."""
    from nghttp2py.asyncio.quic_member import QuicMember

    check_type("quic_group", quic_group, QuicMember, "a QuicMember")
    if http3 is False:
        raise ValueError("quic_group needs http3: only QUIC uses it")


def _to_options(name: str, value: Any) -> Any:
    """Return a pair of paths as ``TLSOptions``, and anything else as it is."""
    if not isinstance(value, tuple) or isinstance(value, LoadedTLS):
        return value
    check_pair(name, value)
    return TLSOptions([value])


def _choose_again(name: str, new: Any, old: Any) -> Any:
    """Return the options of which files are read at a reload."""
    if new is not None:
        return _to_options(name, new)
    if isinstance(old, LoadedTLS):
        return old.options
    if isinstance(old, bool | TLSOptions):
        return old
    raise ValueError(
        f"{name} must be given: the server has a {type(old).__name__}, whose files are "
        "not known"
    )


def _to_quic(http3: Any, ssl: Any, timeouts: Timeouts) -> QuicConfiguration:
    """Make the QUIC configuration from ``http3``, or from ``ssl`` if it is True."""
    from nghttp2py.asyncio.quic import with_alpn
    from nghttp2py.h3 import H3_ALPN
    from nghttp2py.quic import QuicConfiguration

    if isinstance(http3, QuicConfiguration):
        return with_alpn(http3, H3_ALPN)
    if http3 is True:
        if isinstance(ssl, ssl_module.SSLContext):
            raise ValueError(
                "http3=True needs ssl=(certificate, key): an ssl.SSLContext does not "
                "give its certificate to QUIC; give http3 the paths, or a "
                "QuicConfiguration"
            )
        http3 = ssl
    if isinstance(http3, TLSOptions):
        http3 = load_tls(http3)
    if isinstance(http3, LoadedTLS):
        return make_server_quic(http3, timeouts)
    raise TypeError(
        "http3 must be a bool, a QuicConfiguration or the paths (certificate, key), "
        f"not {describe(http3)}"
    )


def make_server_quic(tls: LoadedTLS, timeouts: Timeouts) -> QuicConfiguration:
    """Return the QUIC configuration of a server with the certificates of ``tls``."""
    from nghttp2py.h3 import H3_ALPN
    from nghttp2py.quic import QuicConfiguration

    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        congestion_control_algorithm="cubic",
        idle_timeout=timeouts.idle or 0.0,
        probe_datagram_size=True,
    )
    tls.configure(configuration)
    return configuration


def __getattr__(name: str) -> object:
    if name in _QUIC:
        from nghttp2py.asyncio import quic

        return getattr(quic, name)
    if name in _QUIC_PROTOCOL:
        from nghttp2py.asyncio import quic_protocol

        return getattr(quic_protocol, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
