"""An HTTP/2 server whose requests are handled by objects (RFC 9113).

``HTTP2Server`` accepts connections; for each request it makes an instance of
the program's subclass of ``BaseRequestHandler`` and calls its ``on_`` methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl as ssl_module
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

from nghttp2py.arguments import check_bool
from nghttp2py.asyncio.binding import (
    UnixPath,
    adopt_sockets,
    bind_tcp,
    bind_unix,
    to_address,
)
from nghttp2py.asyncio.event_loop import get_current_loop, is_loop_running, run
from nghttp2py.asyncio.http2 import HTTP2Protocol
from nghttp2py.asyncio.listener import (
    BACKLOG,
    ConnectionSet,
    Listener,
    check_backlog,
    check_limit,
)
from nghttp2py.asyncio.timeouts import UNSET, Timeouts, merge_timeouts
from nghttp2py.asyncio.tls import check_server_context, prepare_server_context
from nghttp2py.exchange import Exchange
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.config import check_config
from nghttp2py.handler import BaseRequestHandler, HandlerFactory

__all__ = ["BaseRequestHandler", "HTTP2Server"]

logger = logging.getLogger(__name__)

#: Seconds without an open request after which a connection is closed.
IDLE_TIMEOUT = cast(float, Timeouts.idle)

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


class HandlerProtocol(HTTP2Protocol):
    """One connection of a server: makes a handler for each request."""

    def __init__(
        self,
        handler_class: Callable[[Any, int], BaseRequestHandler],
        config: H2Configuration,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
        *,
        timeouts: Timeouts | None = None,
    ) -> None:
        factory = HandlerFactory(handler_class)
        super().__init__(factory, config, opened, closed, timeouts=timeouts)

    @property
    def handlers(self) -> dict[int, Exchange]:
        """The handlers of the open streams, by stream identifier."""
        return self.http.exchanges


class HTTP2Server:
    """Serves HTTP/2 on ``address`` with handlers of ``RequestHandlerClass``.

    That is a subclass of ``BaseRequestHandler``, or any callable that makes an
    instance of one from the connection and the stream's identifier.

    ``address`` is ``(host, port)``, where the host ``None`` stands for all
    interfaces and the port 0 for any that is free; or the path of a Unix
    socket, which on Linux is abstract if it begins with a null byte.  Instead,
    with the address ``None``, ``sock`` is a bound socket, or several; the server
    closes them.

    ``ssl`` is an ``ssl.SSLContext`` with a certificate, on which ALPN ``h2`` is set
    and compression, renegotiation and the TLS 1.2 cipher suites of RFC 9113,
    Appendix A, are forbidden; without it clients must know that HTTP/2 is spoken
    in the clear (RFC 9113, 3.3).

    ``config`` holds settings and limits; to change some of a server's own, make
    it of ``DEFAULT_CONFIGURATION`` by ``dataclasses.replace``.  Received data
    are always credited by hand, whatever it says.

    ``backlog`` and ``reuse_port`` are those of ``loop.create_server``;
    ``limit_connections`` bounds the connections that are open at once, further
    ones wait in the kernel.  ``timeouts`` bounds every wait for a client, in
    seconds; ``settings_timeout``, ``idle_timeout`` and ``close_timeout`` override
    its ``settings``, ``idle`` and ``close``.

    ``serve_forever()`` runs a server by itself.  In a running event loop, use
    ``async with`` or ``await start()``, then ``await serve()`` to wait; all
    calls are to be made in that loop.  If the thread's current event loop does not
    run yet, the server starts in it as soon as it runs, as nghttp2's does.

    Raises ``TypeError`` and ``ValueError`` for arguments that cannot be meant.
    """

    #: What a server announces that is given no ``config``.
    DEFAULT_CONFIGURATION = DEFAULT_CONFIGURATION

    def __init__(
        self,
        address: tuple[str | None, int] | str | bytes | os.PathLike[str] | None,
        RequestHandlerClass: Callable[[Any, int], BaseRequestHandler],
        ssl: ssl_module.SSLContext | None = None,
        *,
        config: H2Configuration | None = None,
        sock: socket.socket | Iterable[socket.socket] | None = None,
        backlog: int = BACKLOG,
        reuse_port: bool | None = None,
        limit_connections: int | None = None,
        timeouts: Timeouts | None = None,
        settings_timeout: float = UNSET,
        idle_timeout: float | None = UNSET,
        close_timeout: float = UNSET,
    ) -> None:
        if sock is None:
            if address is None:
                raise TypeError("address must be (host, port) or a path, or give sock")
            self.address: tuple[str | None, int] | str | None = to_address(address)
            self._given: list[socket.socket] = []
        else:
            if address is not None:
                raise ValueError("give an address or sock, not both")
            self.address = None
            self._given = adopt_sockets(sock)
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
            prepare_server_context(ssl)
        check_limit(limit_connections)
        check_backlog(backlog)
        if reuse_port is not None:
            check_bool("reuse_port", reuse_port)
        check_config(config)
        if config is None:
            config = self.DEFAULT_CONFIGURATION
        elif not config.manual_flow_control:
            config = replace(config, manual_flow_control=True)
        self.RequestHandlerClass = RequestHandlerClass
        self.config = config
        self.timeouts = merge_timeouts(
            timeouts,
            settings=settings_timeout,
            idle=idle_timeout,
            close=close_timeout,
        )
        self._ssl = ssl
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._limit = limit_connections
        self._listener: Listener | None = None
        self._connections = self._new_connections()
        self._implicit: asyncio.Task[None] | None = None
        self._loop = get_current_loop()
        if self._loop is not None:
            self._loop.call_soon(self._start_by_itself)

    # ---- Life ----

    async def start(self) -> None:
        """Listen, and serve in the running event loop.

        Raises ``OSError`` if the address cannot be had, ``TLSConfigurationError`` if
        no TLS client could be served, and ``RuntimeError`` if the server was started
        before.  If ``close`` is called meanwhile, the server has been closed when this
        returns.
        """
        implicit, self._implicit = self._implicit, None
        if implicit is not None:
            await implicit
        elif self._listener is not None:
            raise RuntimeError("the server was started before")
        else:
            await self._start()

    async def _start(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._connections = self._new_connections()
        listener = self._listener = Listener(
            loop,
            self._new_protocol,
            self._connections,
            tls=self._ssl,
            handshake_timeout=self.timeouts.handshake,
            backlog=self._backlog,
            limit_connections=self._limit,
        )
        try:
            if self._ssl is not None:
                check_server_context(self._ssl)
            listener.use(*await self._bind(loop))
            listener.start()
        except BaseException:
            listener.close()
            self._listener = None
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

    def _start_by_itself(self) -> None:
        """Start in the loop that was the current one when the server was made."""
        loop = self._loop
        if self._listener is None and self._implicit is None and loop is not None:
            self._implicit = loop.create_task(self._start())
            self._implicit.add_done_callback(self._started_by_itself)

    def _started_by_itself(self, task: asyncio.Task[None]) -> None:
        # Else start() has taken it, and raises what it raised.
        if self._implicit is task and not task.cancelled():
            error = task.exception()
            if error is None:
                return
            self._implicit = None
            logger.error("the server at %r cannot start: %s", self.address, error)

    async def serve(self, *, signals: Iterable[int] = ()) -> None:
        """Serve until ``close`` is called, and wait for the last connection.

        Starts the server if that was not done.  When it is cancelled, it
        closes the server; a second time, it aborts it.  The first of ``signals``
        calls ``close`` while it waits, the second one ``abort``, where the loop
        allows it: on Unix, in the main thread.
        """
        loop = asyncio.get_running_loop()
        caught = []
        # Before the start, for a signal may come as soon as others see the server.
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
        if self._listener is None or self._implicit is not None:
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
        if self._connections:
            logger.warning(
                "stopping: waiting up to %g seconds for %d connections with %d open "
                "streams; another signal ends them at once",
                self.timeouts.close,
                len(self._connections),
                sum(len(protocol.handlers) for protocol in self._connections),
            )

    def close(self, timeout: float | None = None) -> None:
        """Stop gracefully: accept no more, let the open streams finish.

        Every client is told by GOAWAY (RFC 9113, 6.8).  What has not finished
        after ``timeout`` seconds, by default ``close_timeout``, is aborted.
        ``wait_closed`` waits.  Before the start this is a no-op.
        """
        if self._listener is not None:
            self._listener.close(self.timeouts.close if timeout is None else timeout)

    def abort(self) -> None:
        """Stop at once: accept no more, drop every connection."""
        if self._listener is not None:
            self._listener.abort()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has ended the last connection."""
        if self._listener is not None:
            await self._listener.wait_closed()

    async def __aenter__(self) -> HTTP2Server:
        await self._started()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; empty if the server does not listen."""
        listener = self._listener
        if listener is None or not listener.is_serving():
            return ()
        return tuple(listener.sockets)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the server, as nghttp2's module has it.

        Before the start: the running loop, the thread's current one, or a new one,
        which becomes the current one; the server starts in it as soon as it runs.
        """
        if self._loop is None or (self._listener is None and self._loop.is_closed()):
            try:
                return asyncio.get_running_loop()
            except RuntimeError:
                pass
            loop = get_current_loop()
            if loop is None:
                loop = asyncio.new_event_loop()
                asyncio.set_event_loop(loop)
            self._loop = loop
            loop.call_soon(self._start_by_itself)
        return self._loop

    @property
    def server(self) -> Any:
        """What listens, as nghttp2's module has it: with ``sockets`` and ``close``.

        Outside of a running loop, the server is started if it was not.
        """
        if self._listener is None:
            loop = self.loop
            if not loop.is_running():
                loop.run_until_complete(self._started())
        return self._listener

    # ---- Connections ----

    def _new_connections(self) -> ConnectionSet[HandlerProtocol]:
        return ConnectionSet(
            lambda protocol, timeout: protocol.close(
                self.timeouts.close if timeout is None else timeout
            ),
            lambda protocol: protocol.abort(),
        )

    def _new_protocol(self) -> HandlerProtocol:
        return HandlerProtocol(
            self.RequestHandlerClass,
            self.config,
            self._connections.add,
            self._connections.discard,
            timeouts=self.timeouts,
        )
