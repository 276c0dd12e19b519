"""An HTTP/2 server whose requests are handled by objects (RFC 9113).

``HTTP2Server`` accepts connections; for each request it makes an instance of
the program's subclass of ``BaseRequestHandler`` and calls its ``on_`` methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl as ssl_module
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nghttp2py.asyncio.pump import CLOSE_TIMEOUT, SETTINGS_TIMEOUT
from nghttp2py.asyncio.tls import prepare_context
from nghttp2py.h2 import H2Configuration
from nghttp2py.handler import BaseRequestHandler, HandlerProtocol

__all__ = ["BaseRequestHandler", "HTTP2Server"]

#: Seconds without a byte after which an idle connection is closed.
IDLE_TIMEOUT = 180.0

#: What a server announces if it is not told otherwise.  Uploads are handed
#: over as they come, so wide windows cost no memory here and save waiting.  A
#: handler that holds its upload back holds up no other: the bound is its stream's
#: window, not the connection's.
#: Extended CONNECT takes a program that knows of it (RFC 8441).
DEFAULT_CONFIGURATION = H2Configuration(
    initial_window_size=262144,
    connection_window_size=2**31 - 1,
    enable_connect_protocol=False,
    manual_flow_control=True,
)


class HTTP2Server:
    """Serves HTTP/2 on ``address`` with handlers of ``RequestHandlerClass``.

    That is a subclass of ``BaseRequestHandler``, or any callable that makes an
    instance of one from the connection and the stream's identifier.

    ``address`` is ``(host, port)``, where the host ``None`` stands for all
    interfaces and the port 0 for any that is free; or the path of a Unix
    socket, which on Linux is abstract if it begins with a null byte.

    ``ssl`` is an ``ssl.SSLContext``, on which ALPN ``h2`` is set and
    compression and renegotiation are forbidden (RFC 9113, 9.2.1); without it
    clients must know that HTTP/2 is spoken in the clear (RFC 9113, 3.3).

    ``config`` holds settings and limits; to change some of a server's own, make
    it of ``DEFAULT_CONFIGURATION`` by ``dataclasses.replace``.  Received data
    are always credited by hand, whatever it says.

    ``backlog`` and ``reuse_port`` are those of ``loop.create_server``.  Times
    are in seconds: ``settings_timeout`` for the peer to acknowledge SETTINGS,
    ``idle_timeout`` for a connection on which nothing happens (``None``: no
    limit), ``close_timeout`` for streams to finish when the server stops.

    ``serve_forever()`` runs a server by itself.  In a running event loop, use
    ``async with`` or ``await start()``, then ``await serve()`` to wait; all
    calls are to be made in that loop.
    """

    #: What a server announces that is given no ``config``.
    DEFAULT_CONFIGURATION = DEFAULT_CONFIGURATION

    def __init__(
        self,
        address: tuple[str | None, int] | str | bytes | os.PathLike[str],
        RequestHandlerClass: Callable[[Any, int], BaseRequestHandler],
        ssl: ssl_module.SSLContext | None = None,
        *,
        config: H2Configuration | None = None,
        backlog: int = 100,
        reuse_port: bool | None = None,
        settings_timeout: float = SETTINGS_TIMEOUT,
        idle_timeout: float | None = IDLE_TIMEOUT,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        if not isinstance(address, tuple):
            try:
                address = os.fsdecode(address)
            except TypeError:
                raise TypeError(
                    f"address must be a tuple (host, port) or a path, not {address!r}"
                ) from None
        elif len(address) != 2:
            raise ValueError(f"address must be (host, port) or a path, not {address!r}")
        if not callable(RequestHandlerClass) or (
            isinstance(RequestHandlerClass, type)
            and not issubclass(RequestHandlerClass, BaseRequestHandler)
        ):
            raise TypeError(
                "RequestHandlerClass must be a subclass of BaseRequestHandler, or a "
                f"function that makes an instance of one, not {RequestHandlerClass!r}"
            )
        if ssl is not None:
            if not isinstance(ssl, ssl_module.SSLContext):
                raise TypeError(
                    f"ssl must be an ssl.SSLContext or None, not {type(ssl).__name__}"
                )
            prepare_context(ssl)
        if config is None:
            config = self.DEFAULT_CONFIGURATION
        elif not config.manual_flow_control:
            config = replace(config, manual_flow_control=True)
        self.address = address
        self.RequestHandlerClass = RequestHandlerClass
        self.config = config
        self._ssl = ssl
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._settings_timeout = settings_timeout
        self._idle_timeout = idle_timeout
        self._close_timeout = close_timeout
        self._server: asyncio.base_events.Server | None = None
        self._sockets: tuple[socket.socket, ...] = ()
        self._unix_inode: tuple[int, int] | None = None
        self._protocols: set[HandlerProtocol] = set()
        self._closing = False
        self._closed: asyncio.Future[None] | None = None

    # ---- Life ----

    async def start(self) -> None:
        """Listen, and serve in the running event loop.

        Raises ``OSError`` if the address cannot be had, and ``RuntimeError``
        if the server was started before.  If ``close`` is called meanwhile, the
        server has been closed when this returns.
        """
        if self._closed is not None:
            raise RuntimeError("the server was started before")
        loop = asyncio.get_running_loop()
        self._closed = closed = loop.create_future()
        server = None
        try:
            if isinstance(self.address, tuple):
                host, port = self.address
                server = await loop.create_server(
                    self._new_protocol,
                    host,
                    port,
                    ssl=self._ssl,
                    backlog=self._backlog,
                    reuse_port=self._reuse_port,
                )
            else:
                server = await loop.create_unix_server(
                    self._new_protocol,
                    self.address,
                    ssl=self._ssl,
                    backlog=self._backlog,
                )
                if not self.address.startswith("\0"):
                    status = os.stat(self.address)
                    self._unix_inode = status.st_dev, status.st_ino
        except BaseException:
            if server is not None:
                server.close()
            self._closed = None
            self._closing = False
            closed.set_result(None)
            raise
        self._server = server
        self._sockets = tuple(server.sockets)
        if self._closing:
            self.close()

    async def serve(self, *, signals: Iterable[int] = ()) -> None:
        """Serve until ``close`` is called, and wait for the last connection.

        Starts the server if that was not done.  When it is cancelled, it
        closes the server.  Each of ``signals`` calls ``close`` while it waits,
        where the loop allows it: on Unix, in the main thread.
        """
        if self._closed is None:
            await self.start()
        assert self._closed is not None
        loop = asyncio.get_running_loop()
        caught = []
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in signals:
                loop.add_signal_handler(number, self.close)
                caught.append(number)
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()
            try:
                await self.wait_closed()
            finally:
                for number in caught:
                    loop.remove_signal_handler(number)

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM, then stop gracefully.

        This runs an event loop of its own; it is not for use inside one.
        """
        asyncio.run(self.serve(signals=(signal.SIGINT, signal.SIGTERM)))

    def close(self) -> None:
        """Stop gracefully: accept no more, let the open streams finish.

        Every client is told by GOAWAY (RFC 9113, 6.8).  What has not finished
        after ``close_timeout`` seconds is aborted.  ``wait_closed`` waits.
        """
        if self._closed is None:
            return
        self._closing = True
        if self._server is None:
            # start() sees to it when it has one, or it was closed before.
            return
        server, self._server = self._server, None
        server.close()
        self._sockets = ()
        self._remove_unix_socket()
        for protocol in list(self._protocols):
            protocol.close(self._close_timeout)
        self._check_closed()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has ended the last connection."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    async def __aenter__(self) -> HTTP2Server:
        if self._closed is None:
            await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; empty if the server does not listen."""
        return self._sockets

    # ---- Connections ----

    def _new_protocol(self) -> HandlerProtocol:
        return HandlerProtocol(
            self.RequestHandlerClass,
            self.config,
            self._connection_opened,
            self._connection_closed,
            settings_timeout=self._settings_timeout,
            idle_timeout=self._idle_timeout,
        )

    def _connection_opened(self, protocol: HandlerProtocol) -> None:
        self._protocols.add(protocol)
        if self._closing:
            # Its TLS handshake was under way when the server was closed.
            protocol.close(self._close_timeout)

    def _connection_closed(self, protocol: HandlerProtocol) -> None:
        self._protocols.discard(protocol)
        if self._closing and self._server is None:
            self._check_closed()

    def _check_closed(self) -> None:
        if not self._protocols and self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _remove_unix_socket(self) -> None:
        # Another server may have taken the path since: that one's is left.
        if self._unix_inode is None:
            return
        assert isinstance(self.address, str)
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.address)
            if (
                stat.S_ISSOCK(status.st_mode)
                and (status.st_dev, status.st_ino) == self._unix_inode
            ):
                os.unlink(self.address)
