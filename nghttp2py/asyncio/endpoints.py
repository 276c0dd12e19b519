"""HTTP/2 clients and servers over TCP, TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import inspect
import ssl as _ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from socket import SOCK_STREAM, AddressFamily
from socket import socket as Socket
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from nghttp2py.arguments import check_bool, check_callable, check_seconds, check_type
from nghttp2py.asyncio.binding import (
    UnixPath,
    adopt_sockets,
    bind_tcp,
    bind_unix,
    check_connected,
    check_host,
    check_path,
    check_port,
)
from nghttp2py.asyncio.connecting import establish
from nghttp2py.asyncio.connection import check_concurrency
from nghttp2py.asyncio.h2_options import (
    ConnectOptions,
    ListenOptions,
    ProtocolOptions,
    TCPListenOptions,
)
from nghttp2py.asyncio.listener import BACKLOG, ConnectionSet, Listener
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.racing import interleave, race
from nghttp2py.asyncio.timeouts import merge_timeouts
from nghttp2py.asyncio.tls import (
    check_server_context,
    prepare_context,
    prepare_server_context,
)
from nghttp2py.h2.config import check_config

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "H2Server",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]


P = TypeVar("P", bound=H2Protocol)
#: ``True`` means the default context, which verifies certificates.
SSL = bool | _ssl.SSLContext | None
Connected = Callable[[Any], Coroutine[Any, Any, Any]]
Bound = tuple[list[Socket], list[UnixPath]]

_PROTOCOL_OPTIONS = ProtocolOptions.__optional_keys__


#: Options of the event loop; newer releases have more.
_CONNECT_OPTIONS = frozenset(
    name
    for method in (
        asyncio.BaseEventLoop.create_connection,
        asyncio.AbstractEventLoop.create_unix_connection,
    )
    for name in inspect.signature(method).parameters
    if name not in {"self", "protocol_factory", "host", "port", "path", "ssl"}
)


#: Options with which asyncio's own way through the addresses of a name is used.
_OWN_WAY = frozenset(
    {"all_errors", "happy_eyeballs_delay", "interleave", "local_addr", "sock"}
)


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the options of the protocol from those of asyncio."""
    ours = {k: v for k, v in options.items() if k in _PROTOCOL_OPTIONS}
    theirs = {k: v for k, v in options.items() if k not in _PROTOCOL_OPTIONS}
    return ours, theirs


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` for an option that neither ``H2Protocol`` nor asyncio has.

    ``Client`` passes ``cls`` on, a parameter of ``open_connection`` itself.
    """
    for name in options:
        if name not in {"cls", *_PROTOCOL_OPTIONS, *_CONNECT_OPTIONS}:
            raise TypeError(f"{name!r} is no option of a connection")


def _check_loop(loop: object) -> asyncio.AbstractEventLoop:
    """Return the caller's loop, or the running one."""
    if loop is None:
        return asyncio.get_running_loop()
    check_type("loop", loop, asyncio.AbstractEventLoop, "an event loop or None")
    return cast(asyncio.AbstractEventLoop, loop)


def _check_connecting(
    loop: object, cls: object, connect_timeout: object, options: Mapping[str, Any]
) -> asyncio.AbstractEventLoop:
    """Check the arguments for a connection; return the loop."""
    check_callable("cls", cls)
    check_seconds("connect_timeout", connect_timeout)
    check_options(options)
    if options.get("sock") is not None:
        check_connected(options["sock"])
    return _check_loop(loop)


def _client_context(ssl: SSL) -> _ssl.SSLContext | None:
    if ssl is None or ssl is False:
        return None
    context = _ssl.create_default_context() if ssl is True else ssl
    check_type("ssl", context, _ssl.SSLContext, "an ssl.SSLContext, a bool or None")
    prepare_context(context)
    return context


def _server_context(ssl: SSL) -> _ssl.SSLContext | None:
    if ssl is True:
        raise TypeError("ssl must be an SSLContext with its certificate, not True")
    if ssl is None or ssl is False:
        return None
    check_type("ssl", ssl, _ssl.SSLContext, "an ssl.SSLContext or None")
    prepare_server_context(ssl)
    return ssl


@overload
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., P],
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> P: ...
@overload
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> H2Protocol: ...
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> H2Protocol:
    """Connect to a server; return the client's end.

    ``ssl`` is ``True`` or an ``SSLContext``, whose ALPN list is set to ``h2``.
    ``connect_timeout`` is in seconds, TLS handshake included.  Further options
    are those of ``H2Protocol`` and of ``loop.create_connection``.  Each address of a
    name is tried, a quarter of a second after the previous one, and the first that
    answers is used (RFC 8305).  Raises what ``loop.create_connection`` raises,
    ``ConnectTimeoutError``, and ``HTTPVersionError`` if the server does not speak
    HTTP/2.
    """
    loop = _check_connecting(loop, cls, connect_timeout, options)
    check_host(host)
    check_port(port, optional=True)
    ours, theirs = _split(options)
    protocol = cls(True, **ours)
    if host is not None and port is not None:
        protocol.set_origin(host, port)
    if ssl and host is not None and "%" in host:
        # A certificate names an address without its local zone (RFC 6874, 4).
        theirs.setdefault("server_hostname", host.partition("%")[0])
    theirs["ssl"] = _client_context(ssl)
    if host is None or port is None or not _OWN_WAY.isdisjoint(theirs):
        # typeshed has overloads for host and port, or sock, but none for both.
        connect: Any = loop.create_connection
        attempt = connect(lambda: protocol, host, port, **theirs)
    else:
        attempt = _connect_tcp(loop, protocol, host, port, theirs)
    await establish(
        protocol,
        attempt,
        f"{host}:{port}",
        connect_timeout,
    )
    return protocol


async def _connect_tcp(
    loop: asyncio.AbstractEventLoop,
    protocol: H2Protocol,
    host: str,
    port: int,
    options: dict[str, Any],
) -> None:
    """Connect to the first address of a name that answers (RFC 8305)."""
    filters = {k: options.pop(k) for k in ("family", "proto", "flags") if k in options}
    found = await loop.getaddrinfo(host, port, type=SOCK_STREAM, **filters)
    if not found:
        raise OSError(f"{host} has no address")

    async def attempt(entry: tuple[Any, ...]) -> Socket:
        sock = Socket(*entry[:3])
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, entry[4])
        except BaseException:
            sock.close()
            raise
        return sock

    sock = await race(attempt, interleave(found), Socket.close)
    try:
        if options["ssl"] is not None:
            options.setdefault("server_hostname", host)
            # A context that others use, too, may offer another protocol by now.
            prepare_context(options["ssl"])
        await loop.create_connection(lambda: protocol, sock=sock, **options)
    except BaseException:
        sock.close()
        raise


@overload
async def open_unix_connection(
    path: str | None = None,
    *,
    cls: Callable[..., P],
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> P: ...
@overload
async def open_unix_connection(
    path: str | None = None,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> H2Protocol: ...
async def open_unix_connection(
    path: str | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Unpack[ConnectOptions],
) -> H2Protocol:
    """Connect to a server's Unix socket, as ``open_connection`` does."""
    loop = _check_connecting(loop, cls, connect_timeout, options)
    if path is not None:
        path = check_path("path", path)
    ours, theirs = _split(options)
    protocol = cls(True, **ours)
    theirs["ssl"] = _client_context(ssl)
    attempt: Coroutine[Any, Any, object]
    if path is None or "sock" in theirs:
        attempt = loop.create_unix_connection(lambda: protocol, path, **theirs)
    else:
        attempt = _connect_unix(loop, protocol, path, theirs)
    await establish(protocol, attempt, path, connect_timeout)
    return protocol


async def _connect_unix(
    loop: asyncio.AbstractEventLoop,
    protocol: H2Protocol,
    path: str,
    options: dict[str, Any],
) -> None:
    """Connect to a Unix socket; set the context's ALPN list when TLS begins."""
    sock = Socket(AddressFamily.AF_UNIX)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, path)
        if options["ssl"] is not None:
            prepare_context(options["ssl"])
        await loop.create_unix_connection(lambda: protocol, sock=sock, **options)
    except BaseException:
        sock.close()
        raise


class H2Server(asyncio.AbstractServer):
    """Listening sockets, and the connections accepted from them.

    It is like ``asyncio.Server``, but ``close`` also ends the connections, after their
    streams, and ``wait_closed`` waits for them and their handlers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], H2Protocol],
        connected: Connected,
        *,
        close_timeout: float,
        tls: _ssl.SSLContext | None,
        handshake_timeout: float,
        backlog: int = BACKLOG,
        limit_connections: int | None = None,
    ) -> None:
        self._make = factory
        self._connected = connected
        self._close_timeout = close_timeout
        self._connections: ConnectionSet[Any] = ConnectionSet(
            lambda protocol, timeout: protocol.close(timeout),
            lambda protocol: protocol.abort(),
        )
        self._listener = Listener(
            loop,
            self._factory,
            self._connections,
            tls=tls,
            handshake_timeout=handshake_timeout,
            backlog=backlog,
            limit_connections=limit_connections,
        )
        self._closing = asyncio.Event()

    @property
    def sockets(self) -> Any:
        """The listening sockets, IPv4 first.

        With port 0 each has a different port.
        """
        return sorted(
            self._listener.sockets,
            key=lambda socket: socket.family != AddressFamily.AF_INET,
        )

    @property
    def connections(self) -> frozenset[H2Protocol]:
        """The open connections."""
        return frozenset(self._connections)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._listener.get_loop()

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self._listener.is_serving()

    async def start_serving(self) -> None:
        """Start to accept, if the server was made with ``start_serving=False``."""
        self._listener.start()

    async def serve_forever(self) -> None:
        """Accept until closed or cancelled; then close, and wait for the end.

        If it is cancelled a second time, it aborts what is left.
        """
        try:
            await self.start_serving()
            await self._closing.wait()
        finally:
            self.close()
            try:
                await self.wait_closed()
            except BaseException:
                # Cancelled a second time: the caller does not want to wait.
                self.abort()
                raise

    def close(self, timeout: float | None = None) -> None:
        """Stop accepting, and close each connection when its streams have finished.

        What has not finished after ``timeout`` seconds (each connection's
        ``close_timeout``) is aborted.
        """
        self._closing.set()
        self._listener.close(timeout, self._close_timeout)

    def abort(self) -> None:
        """Stop accepting, and abort each connection."""
        self._closing.set()
        self._listener.abort()

    def close_clients(self) -> None:
        """Close each connection at once, and continue accepting."""
        self._connections.for_each(lambda protocol: protocol.close_connection())

    def abort_clients(self) -> None:
        """Abort each connection, and continue accepting."""
        self._connections.for_each(lambda protocol: protocol.abort())

    async def wait_closed(self) -> None:
        """Wait until every connection is gone and its handler has ended."""
        await self._listener.wait_closed()

    async def __aenter__(self) -> H2Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    def _factory(self) -> H2Protocol:
        protocol = self._make()
        protocol.set_owner(self)
        return protocol

    def connection_made(self, protocol: Any) -> None:
        """Keep a connection until it is lost, and start its handler."""
        self._connections.add(protocol)
        # Done after close(), too: a client in the middle of its handshake may send
        # requests before it reads GOAWAY, and these are answered.
        if protocol.transport is not None and not protocol.transport.is_closing():
            protocol.set_handler(self._connected(protocol))

    def connection_gone(self, protocol: Any) -> None:
        """Forget a connection."""
        self._connections.discard(protocol)


_BIND_OPTIONS = TCPListenOptions.__optional_keys__ - ListenOptions.__optional_keys__
_LISTEN_OPTIONS = frozenset({"backlog", "limit_connections"})
_SERVER_OPTIONS = ListenOptions.__optional_keys__ - _PROTOCOL_OPTIONS


async def _listen(
    bind: Callable[..., Coroutine[Any, Any, Bound]],
    bind_options: frozenset[str],
    client_connected_cb: Connected,
    cls: Callable[..., H2Protocol],
    loop: asyncio.AbstractEventLoop,
    ssl: SSL,
    options: Mapping[str, Any],
) -> H2Server:
    ours, theirs = _split(options)
    for name in theirs:
        if name not in _SERVER_OPTIONS | bind_options:
            raise TypeError(f"{name!r} is no option of a server")
    context = _server_context(ssl)
    if context is None:
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            if theirs.get(name) is not None:
                raise ValueError(f"{name} is only meaningful with ssl")
    # Checked here, so that the caller gets the error and not the first client.
    check_callable("client_connected_cb", client_connected_cb)
    check_callable("cls", cls)
    check_config(ours.get("config"))
    check_concurrency(ours.get("concurrency"))
    check_seconds("timeout", ours.get("timeout"))
    timeouts = merge_timeouts(ours.get("timeouts"))
    handshake = theirs.get("ssl_handshake_timeout")
    server = H2Server(
        loop,
        partial(cls, False, **ours),
        client_connected_cb,
        close_timeout=ours.get("close_timeout", timeouts.close),
        tls=context,
        handshake_timeout=timeouts.handshake if handshake is None else handshake,
        **{name: theirs[name] for name in _LISTEN_OPTIONS & theirs.keys()},
    )
    try:
        if context is not None:
            check_server_context(context)
        server._listener.use(
            *await bind(**{name: theirs[name] for name in bind_options & theirs.keys()})
        )
        if theirs.get("start_serving", True):
            server._listener.start()
    except BaseException:
        server.close()
        raise
    return server


async def start_server(
    client_connected_cb: Connected,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    sock: Socket | Iterable[Socket] | None = None,
    **options: Unpack[TCPListenOptions],
) -> H2Server:
    """Listen for clients.

    ``client_connected_cb(protocol)`` returns a coroutine, which runs as a task
    as long as the connection lasts.  ``ssl`` is an ``SSLContext`` with a
    certificate; its ALPN list is set to ``h2``.  Instead of host and port, ``sock``
    is a bound socket, or several.  ``limit_connections`` bounds the connections that
    are open at once.  Further options are those of ``H2Protocol`` and of
    ``loop.create_server``.

    Raises ``OSError`` if it cannot bind the address, and ``TLSConfigurationError`` if
    no TLS client could be served.
    """
    loop = _check_loop(loop)

    async def bind(**options: Any) -> Bound:
        check_host(host, several=True)
        check_port(port, optional=True)
        if sock is None:
            return await bind_tcp(loop, host, port, **options), []
        if host is not None or port is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        return adopt_sockets(sock), []

    return await _listen(
        bind, _BIND_OPTIONS, client_connected_cb, cls, loop, ssl, options
    )


async def start_unix_server(
    client_connected_cb: Connected,
    path: str | bytes | PathLike[str] | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    sock: Socket | Iterable[Socket] | None = None,
    cleanup_socket: bool = True,
    **options: Unpack[ListenOptions],
) -> H2Server:
    """Listen for clients on a Unix socket, as ``start_server`` does.

    With ``cleanup_socket`` the socket at ``path`` is removed when the server is
    closed, unless another server has taken the path since.
    """
    loop = _check_loop(loop)
    check_bool("cleanup_socket", cleanup_socket)

    async def bind() -> Bound:
        if sock is None:
            if path is None:
                raise ValueError("path was not specified, and no sock specified")
            bound, remover = bind_unix(check_path("path", path))
            return [bound], [remover] if remover and cleanup_socket else []
        if path is not None:
            raise ValueError("path and sock can not be specified at the same time")
        return adopt_sockets(sock), []

    return await _listen(
        bind, frozenset(), client_connected_cb, cls, loop, ssl, options
    )
