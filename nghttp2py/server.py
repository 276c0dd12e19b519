"""An HTTP/2 server whose requests are handled by objects (RFC 9113).

``HTTP2Server`` accepts connections; for each request it makes an instance of
the program's subclass of ``BaseRequestHandler`` and calls its ``on_`` methods.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Iterable
from typing import Any, cast

from nghttp2py.asyncio.certificates import TLSOptions
from nghttp2py.asyncio.event_loop import get_current_loop
from nghttp2py.asyncio.listener import BACKLOG, Listener
from nghttp2py.asyncio.server import DEFAULT_CONFIGURATION, Server
from nghttp2py.asyncio.timeouts import UNSET, Timeouts, merge_timeouts
from nghttp2py.h2 import H2Configuration
from nghttp2py.handler import BaseRequestHandler, HandlerFactory

__all__ = ["BaseRequestHandler", "HTTP2Server"]

logger = logging.getLogger(__name__)

#: Seconds without an open request after which a connection is closed.
IDLE_TIMEOUT = cast(float, Timeouts.idle)


class HTTP2Server(Server):
    """Serves HTTP/2 on ``address`` with handlers of ``RequestHandlerClass``.

    It is a subclass of ``BaseRequestHandler``, or any callable that makes an instance
    of one from the connection and the stream's identifier.

    ``address`` is ``(host, port)``, where the host ``None`` means all interfaces and
    the port 0 any free port; or the path of a Unix socket, which on Linux is abstract
    if it begins with a null byte.  Instead, with the address ``None``, ``sock`` is a
    bound socket, or several; the server closes them.

    ``ssl`` is an ``ssl.SSLContext`` with a certificate, or ``TLSOptions``; ALPN ``h2``
    is set, and compression, renegotiation and the TLS 1.2 cipher suites of RFC 9113,
    Appendix A, are forbidden.  Without ``ssl``, clients need prior knowledge of HTTP/2
    in the clear (RFC 9113, 3.3).

    ``config`` holds settings and limits; to change some of a server's own, make it of
    ``DEFAULT_CONFIGURATION`` by ``dataclasses.replace``.  ``manual_flow_control`` is
    always on.

    ``backlog`` and ``reuse_port`` are those of ``loop.create_server``;
    ``limit_connections`` bounds the connections that are open at once, further
    ones wait in the kernel.  ``timeouts`` bounds every wait for a client, in
    seconds; ``settings_timeout``, ``idle_timeout`` and ``close_timeout`` override
    its ``settings``, ``idle`` and ``close``.

    ``serve_forever()`` runs a server by itself.  In a running event loop, use
    ``async with`` or ``await start()``, then ``await serve()`` to wait; all
    calls are to be made in that loop.  If the thread's current event loop does not
    run yet, the server starts in it as soon as it runs, as nghttp2's does.

    Raises ``TypeError`` and ``ValueError`` for invalid arguments.
    """

    #: The default of ``config``.
    DEFAULT_CONFIGURATION = DEFAULT_CONFIGURATION

    def __init__(
        self,
        address: tuple[str | None, int] | str | bytes | os.PathLike[str] | None,
        RequestHandlerClass: Callable[[Any, int], BaseRequestHandler],
        ssl: ssl_module.SSLContext | TLSOptions | None = None,
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
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext | TLSOptions):
            raise TypeError(
                "ssl must be an ssl.SSLContext, TLSOptions or None, not "
                f"{type(ssl).__name__}"
            )
        super().__init__(
            RequestHandlerClass,
            address,
            ssl=ssl,
            http1=False,
            config=self.DEFAULT_CONFIGURATION if config is None else config,
            timeouts=merge_timeouts(
                timeouts,
                settings=settings_timeout,
                idle=idle_timeout,
                close=close_timeout,
            ),
            limit_connections=limit_connections,
            sock=sock,
            reuse_port=reuse_port,
            backlog=backlog,
        )
        self.RequestHandlerClass = RequestHandlerClass
        self._implicit: asyncio.Task[None] | None = None
        self._loop = get_current_loop()
        if self._loop is not None:
            self._loop.call_soon(self._start_by_itself)

    def _make_factory(self, app: Any) -> HandlerFactory:
        if not callable(app) or (
            isinstance(app, type) and not issubclass(app, BaseRequestHandler)
        ):
            raise TypeError(
                "RequestHandlerClass must be a subclass of BaseRequestHandler, or a "
                f"function that makes an instance of one, not {app!r}"
            )
        return HandlerFactory(app)

    # ---- Life ----

    async def start(self) -> None:
        """Listen, and serve in the running event loop.

        Raises ``OSError`` if it cannot bind the address, ``TLSConfigurationError`` if
        no TLS client could be served, and ``RuntimeError`` if the server was started
        before.  If ``close`` is called meanwhile, the server has been closed when this
        returns.
        """
        implicit, self._implicit = self._implicit, None
        if implicit is not None:
            await implicit
        else:
            await super().start()

    async def _started(self) -> Listener:
        if self._implicit is not None:
            await self.start()
        return await super()._started()

    def _start_by_itself(self) -> None:
        """Start in the loop that was the current one when the server was made."""
        loop = self._loop
        if self._listener is None and self._implicit is None and loop is not None:
            self._implicit = loop.create_task(self._start())
            self._implicit.add_done_callback(self._started_by_itself)

    def _started_by_itself(self, task: asyncio.Task[None]) -> None:
        # Otherwise start() has taken it, and raises its exception.
        if self._implicit is task and not task.cancelled():
            error = task.exception()
            if error is None:
                return
            self._implicit = None
            logger.error("the server at %r cannot start: %s", self.address, error)

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
