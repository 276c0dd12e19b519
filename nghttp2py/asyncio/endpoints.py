"""Making connections and taking them: over TCP, TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import ssl as _ssl
from collections.abc import Callable, Coroutine
from functools import partial
from socket import AddressFamily
from typing import Any, TypeVar, overload

from nghttp2py.asyncio.connecting import establish
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.tls import prepare_context

__all__ = [
    "H2Server",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]


P = TypeVar("P", bound=H2Protocol)
#: ``True`` is the default context, with certificates checked.
SSL = bool | _ssl.SSLContext | None
Connected = Callable[[Any], Coroutine[Any, Any, Any]]

_PROTOCOL_OPTIONS = frozenset(
    {
        "close_timeout",
        "concurrency",
        "config",
        "functional_timeout",
        "header_encoding",
        "idle_timeout",
        "keepalive_interval",
        "keepalive_timeout",
        "settings_timeout",
        "window_tuning",
    }
)


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the protocol's options from those of asyncio."""
    ours = {k: v for k, v in options.items() if k in _PROTOCOL_OPTIONS}
    theirs = {k: v for k, v in options.items() if k not in _PROTOCOL_OPTIONS}
    return ours, theirs


def _client_context(ssl: SSL) -> _ssl.SSLContext | None:
    if ssl is None or ssl is False:
        return None
    context = _ssl.create_default_context() if ssl is True else ssl
    prepare_context(context)
    return context


def _server_context(ssl: SSL) -> _ssl.SSLContext | None:
    if ssl is True:
        raise TypeError("a server needs an SSLContext with its certificate")
    return _client_context(ssl)


@overload
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., P],
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> P: ...
@overload
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> H2Protocol: ...
async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> H2Protocol:
    """Connect to a server; return the client's end.

    ``ssl`` is ``True`` or an ``SSLContext``, whose ALPN list is set to ``h2``.
    ``connect_timeout`` is in seconds, TLS handshake included.  Further options
    are those of ``H2Protocol`` and of ``loop.create_connection``.  Raises what
    that raises, ``TimeoutError``, and ``ConnectionTerminatedError`` with
    HTTP_1_1_REQUIRED if the server does not speak HTTP/2.
    """
    loop = loop or asyncio.get_running_loop()
    ours, theirs = _split(options)
    protocol = cls(True, **ours)
    if host is not None and port is not None:
        protocol._asked_for = host, port
    if ssl and host is not None and "%" in host:
        # A certificate is of an address, not of its zone here (RFC 6874, 4).
        theirs.setdefault("server_hostname", host.partition("%")[0])
    # typeshed knows host and port together, or sock, but not options for both.
    connect: Any = loop.create_connection
    await establish(
        protocol,
        connect(lambda: protocol, host, port, ssl=_client_context(ssl), **theirs),
        f"{host}:{port}",
        connect_timeout,
    )
    return protocol


@overload
async def open_unix_connection(
    path: str | None = None,
    *,
    cls: Callable[..., P],
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> P: ...
@overload
async def open_unix_connection(
    path: str | None = None,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> H2Protocol: ...
async def open_unix_connection(
    path: str | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    connect_timeout: float | None = None,
    **options: Any,
) -> H2Protocol:
    """Connect to a server's Unix socket: as ``open_connection``."""
    loop = loop or asyncio.get_running_loop()
    ours, theirs = _split(options)
    protocol = cls(True, **ours)
    await establish(
        protocol,
        loop.create_unix_connection(
            lambda: protocol, path, ssl=_client_context(ssl), **theirs
        ),
        path,
        connect_timeout,
    )
    return protocol


class H2Server(asyncio.AbstractServer):
    """Sockets that listen, and the connections that came of them.

    Like ``asyncio.Server``; but ``close`` ends the connections too, after
    their streams, and ``wait_closed`` waits for them and their handlers.
    """

    def __init__(self) -> None:
        self._server: asyncio.AbstractServer | None = None
        self._connected: Connected | None = None
        self._connections: set[H2Protocol] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = asyncio.Event()

    @property
    def sockets(self) -> Any:
        """The sockets that listen, IPv4 first.

        With port 0 each has a port of its own, and asyncio orders them anyhow.
        """
        return sorted(
            getattr(self._server, "sockets", None) or (),
            key=lambda socket: socket.family != AddressFamily.AF_INET,
        )

    @property
    def connections(self) -> frozenset[H2Protocol]:
        """The connections that are open."""
        return frozenset(self._connections)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        assert self._server is not None
        return self._server.get_loop()

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def start_serving(self) -> None:
        """Begin to accept; only if the server was made with ``start_serving=False``."""
        assert self._server is not None
        await self._server.start_serving()

    async def serve_forever(self) -> None:
        """Accept until closed or cancelled; then close, and wait for the end."""
        # asyncio's own waits, from Python 3.12 on, for connections that only our
        # close() ends; uvloop's does not see that the server was closed.
        try:
            if not self._closing.is_set():
                await self.start_serving()
            await self._closing.wait()
        finally:
            self.close()
            await self.wait_closed()

    def close(self, timeout: float | None = None) -> None:
        """Accept no more, and end each connection when its streams have finished.

        What has not finished after ``timeout`` seconds (each connection's
        ``close_timeout``) is broken off.
        """
        self._closing.set()
        if self._server is not None:
            self._server.close()
        for protocol in list(self._connections):
            protocol.close(timeout)

    def close_clients(self) -> None:
        """End each connection at once."""
        for protocol in list(self._connections):
            protocol.close_connection()

    def abort_clients(self) -> None:
        """Drop each connection."""
        for protocol in list(self._connections):
            protocol.abort()

    async def wait_closed(self) -> None:
        """Wait until every connection is gone and its handler has ended."""
        await self._empty.wait()
        if self._server is not None:
            await self._server.wait_closed()

    async def __aenter__(self) -> H2Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    def connection_made(self, protocol: Any) -> None:
        """Keep a connection until it is gone, and start its handler."""
        self._connections.add(protocol)
        self._empty.clear()
        if self._closing.is_set():
            # It was accepted before, and its TLS handshake took its time.
            protocol.close()
        elif self._connected is not None:
            protocol.set_handler(self._connected(protocol))

    def connection_gone(self, protocol: Any) -> None:
        """Forget a connection."""
        self._connections.discard(protocol)
        if not self._connections:
            self._empty.set()


async def _listen(
    create: Callable[..., Coroutine[Any, Any, asyncio.AbstractServer]],
    client_connected_cb: Connected,
    cls: Callable[..., H2Protocol],
    ssl: SSL,
    options: dict[str, Any],
) -> H2Server:
    ours, theirs = _split(options)
    server = H2Server()

    def factory() -> H2Protocol:
        protocol = cls(False, **ours)
        protocol._keeper = server
        return protocol

    server._connected = client_connected_cb
    server._server = await create(factory, ssl=_server_context(ssl), **theirs)
    return server


async def start_server(
    client_connected_cb: Connected,
    host: str | None = None,
    port: int | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    **options: Any,
) -> H2Server:
    """Listen for clients.

    ``client_connected_cb(protocol)`` returns a coroutine, which runs as a task
    as long as the connection lasts.  ``ssl`` is an ``SSLContext`` with a
    certificate; its ALPN list is set to ``h2``.  Further options are those of
    ``H2Protocol`` and of ``loop.create_server``.
    """
    loop = loop or asyncio.get_running_loop()
    create = partial(loop.create_server, host=host, port=port)
    return await _listen(create, client_connected_cb, cls, ssl, options)


async def start_unix_server(
    client_connected_cb: Connected,
    path: str | None = None,
    *,
    cls: Callable[..., H2Protocol] = H2Protocol,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl: SSL = None,
    **options: Any,
) -> H2Server:
    """Listen for clients on a Unix socket: as ``start_server``."""
    loop = loop or asyncio.get_running_loop()
    create = partial(loop.create_unix_server, path=path)
    return await _listen(create, client_connected_cb, cls, ssl, options)
