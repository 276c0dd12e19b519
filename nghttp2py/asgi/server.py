"""The server of an ASGI application: its start, its end, and its signals."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import itertools
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from nghttp2py.asgi import closing
from nghttp2py.asgi.app import ASGIApp
from nghttp2py.asgi.config import Config
from nghttp2py.asgi.endpoints import (
    Endpoint,
    Endpoints,
    describe_socket,
    load_certificates,
    make_h2,
    make_quic,
    make_timeouts,
)
from nghttp2py.asgi.lifespan import Lifespan
from nghttp2py.asgi.loading import ASGIApplication, Receive, Scope, Send
from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.asyncio.event_loop import run_in
from nghttp2py.asyncio.server import Server as HTTPServer
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ConfigurationError, LifespanError
from nghttp2py.websocket import WebSocketOptions
from nghttp2py.workers import notify
from nghttp2py.workers.privileges import drop

if TYPE_CHECKING:
    from nghttp2py.asgi.metrics import Metrics
    from nghttp2py.asyncio.certificates import LoadedTLS
    from nghttp2py.asyncio.quic_member import QuicMember
    from nghttp2py.quic import QuicConfiguration

__all__ = ["STARTUP_FAILURE", "Server", "announce", "log_error", "serve"]

logger = logging.getLogger(__name__)

#: The exit code if the application cannot be loaded, or has failed to start.
STARTUP_FAILURE = 3

# Seconds for which the application may end when it was cancelled, or when a second
# signal has come.
_CANCELLED = 1.0
_FORCED = 5.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Server:
    """Serves an application by a ``Config``.

    ``await serve()`` starts the application and the server, serves until
    ``should_exit`` is set or a signal comes, and stops both.  ``startup()`` and
    ``shutdown()`` are its two halves.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Whether it listens, and has not begun to stop.
        self.started = False
        #: The servers of its addresses: ``servers[0].sockets`` are sockets.
        self.servers: list[HTTPServer] = []
        # The lifespan of the application, from ``startup()`` on.
        self.lifespan: Lifespan | None = None
        #: What the program should exit with: 3 if the application has not started.
        self.exit_code = 0
        #: Whether the process is this server's: then systemd is notified of its state.
        self.notifies = False
        self._watchdog = notify.Watchdog()
        self._app: ASGIApp | None = None
        # What requests wait for by ``wait_closing()``.
        self._closing = asyncio.Event()
        # What it listens on; if this has sockets before the start, these.
        self.endpoints = Endpoints()
        # What a worker of several has for HTTP/3.
        self.quic_group: QuicMember | None = None
        self._metrics: Metrics | None = None
        self._should_exit = False
        self._force_exit = False
        self._has_terminal = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    # ---- Switches, which any thread may set ----

    @property
    def should_exit(self) -> bool:
        """Whether the server stops: setting it begins the graceful end."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        self._wake()

    @property
    def force_exit(self) -> bool:
        """Whether the server stops at once: setting it ends the graceful end."""
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._force_exit = value
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and self._changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._changed.set)

    async def _until(
        self,
        switch: Callable[[], bool],
        *futures: asyncio.Future[Any],
        timeout: float | None = None,
    ) -> None:
        """Wait until a switch is set, one of the futures is done, or the time over."""
        changed = self._attach()
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while not switch() and not any(future.done() for future in futures):
            changed.clear()
            waiter = asyncio.ensure_future(changed.wait())
            try:
                done, _ = await asyncio.wait(
                    [waiter, *futures],
                    timeout=None if end is None else max(0.0, end - loop.time()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiter.cancel()
            if not done:
                return

    def _attach(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        if self._changed is None or self._loop is not loop:
            self._loop, self._changed = loop, asyncio.Event()
        return self._changed

    # ---- The whole life ----

    def run(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve in an event loop of its own, as ``config.loop`` names it."""
        run_in(self.serve(sockets), self.config.loop)

    async def serve(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve until ``should_exit`` is set, or SIGINT or SIGTERM comes.

        In the main thread, the handlers of both signals are replaced meanwhile.  The
        first signal begins the graceful end; a SIGINT after it ends at once.

        If the application fails to start, that is logged, ``started`` stays False, and
        ``exit_code`` is 3.  Raises :class:`~nghttp2py.errors.ConfigurationError`,
        :class:`~nghttp2py.errors.ApplicationError`, and ``OSError`` for an address that
        cannot be listened on.  When it is cancelled, it ends gracefully; when that is
        cancelled, too, at once.
        """
        self._attach()
        with self.catch_signals():
            try:
                await self.live(sockets)
            except LifespanError as error:
                self.exit_code = STARTUP_FAILURE
                log_error(error)

    async def live(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Do what ``serve`` does, without signals, and raise ``LifespanError``."""
        self.config.configure_logging()
        starting = asyncio.ensure_future(self.startup(sockets))
        try:
            await self._until(lambda: self._should_exit, starting)
        finally:
            if not starting.done():
                logger.info("stopping before the application has started")
                starting.cancel()
                await asyncio.wait([starting])
        if starting.cancelled():
            return
        starting.result()
        try:
            await self.main_loop()
        finally:
            await self.shutdown(sockets)

    async def main_loop(self) -> None:
        """Wait until ``should_exit`` is set."""
        await self._until(lambda: self._should_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: begin the end; a SIGINT after that forces it."""
        if self._should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGHUP: read the certificates again, or end with the terminal."""
        if self._has_terminal and not has_terminal():
            self.should_exit = True
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        if self.notifies:
            notify.reloading()
        self.reload_certificates()
        if self.notifies:
            notify.ready("serving")

    @contextlib.contextmanager
    def catch_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM by ``handle_exit`` in the block, and SIGHUP by
        ``handle_hangup`` if there are certificates or the process is this server's.

        This is a no-op outside of the main thread.
        """
        # signal.signal and not loop.add_signal_handler: what was there is restored.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        if _HANGUP is not None and (self.config.ssl_certfile or self.notifies):
            before[_HANGUP] = signal.signal(_HANGUP, self.handle_hangup)
            # A program that was started by nohup outlives its terminal.
            self._has_terminal = before[_HANGUP] != signal.SIG_IGN and has_terminal()
        try:
            yield
        finally:
            for each, handler in before.items():
                # None is a handler that was not set by Python.
                signal.signal(each, signal.SIG_DFL if handler is None else handler)

    # ---- Start ----

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Load and start the application, and listen.

        ``sockets`` are bound sockets, to be used instead of those of the configuration;
        the server closes them.  Raises what ``serve`` raises, and
        :class:`~nghttp2py.errors.LifespanError` if the application fails to start.
        """
        if self.lifespan is not None:
            raise RuntimeError("the server was started before")
        self._attach()
        config = self.config
        config.check()
        if not self.endpoints.found:
            self._check_alone()
        if not config.drops_privileges:
            config.load()
        # An address that is in use is found before the application has started.
        if not self.endpoints.found:
            await self.endpoints.bind(config, sockets)
        try:
            timeouts = make_timeouts(config)
            found = self.endpoints.found
            tls = quic = None
            if any(endpoint.secure for endpoint in found):
                tls = load_certificates(config)
                if any(endpoint.http3 for endpoint in found):
                    quic = make_quic(config, tls, timeouts)
            drop(config.user, config.group, config.umask)
            # Not before: the application shall not run as root.
            application = config.load()
            self.lifespan = Lifespan(
                application,
                config.lifespan,
                startup_timeout=config.timeout_lifespan_startup,
                shutdown_timeout=config.timeout_lifespan_shutdown,
            )
            application = self._limit_requests(application)
            self._app = ASGIApp(application, make_options(config, self.lifespan.state))
            self._make_servers(self._app, timeouts, tls, quic)
            self._closing = closing.begin()
            await self.lifespan.startup()
            await self._listen()
        except BaseException:
            await self._abort_startup()
            raise
        self.started = True
        self.announce()
        if self.notifies:
            notify.ready("serving")
            self._watchdog.start()

    def _check_alone(self) -> None:
        """Raise for options of which only ``run()`` can do what they say."""
        for name in "workers", "reload":
            value = getattr(self.config, name)
            if (value or 1) > 1 or value is True:
                raise ConfigurationError(
                    f"{name} is {value}: a Server is one process, run() has several"
                )
        if self.config.needs_supervisor:
            raise ConfigurationError(
                "seed_file and quic_lb_server_id are for run(): a Server has no "
                "supervisor"
            )

    def _limit_requests(self, application: ASGIApplication) -> ASGIApplication:
        """Return an application that counts its requests, if they are limited."""
        config = self.config
        limit = config.limit_max_requests
        if limit is None:
            return application
        limit += random.randint(0, config.limit_max_requests_jitter)
        numbers = itertools.count(1)

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            if next(numbers) == limit:
                logger.info("limit_max_requests is reached: %d have begun", limit)
                self.reach_limit()
            await application(scope, receive, send)

        return count

    def reach_limit(self) -> None:
        """Handle that ``limit_max_requests`` is reached: begin the graceful end."""
        self.should_exit = True

    def _make_servers(
        self,
        app: ASGIApp,
        timeouts: Timeouts,
        tls: LoadedTLS | None,
        quic: QuicConfiguration | None,
    ) -> None:
        config = self.config
        for endpoint in self.endpoints.found:
            self.servers.append(
                HTTPServer(
                    app,
                    sock=endpoint.sockets,
                    ssl=tls if endpoint.secure else None,
                    http1=config.http1,
                    http3=quic if endpoint.http3 and quic is not None else False,
                    quic_group=self.quic_group if endpoint.http3 else None,
                    config=make_h2(config, tunnels=app.takes_tunnels),
                    timeouts=timeouts,
                    limit_connections=config.limit_connections,
                    backlog=config.backlog,
                    proxy_protocol=config.proxy_protocol,
                    proxy_allow_from=config.proxy_allow_from,
                )
            )

    def reload_certificates(self) -> bool:
        """Read the certificates again, for new connections; return whether it was done.

        If they cannot be used, that is logged, and the old ones stay.  To be called in
        the event loop.
        """
        servers = [
            (server, endpoint.http3)
            for server, endpoint in zip(
                self.servers, self.endpoints.found, strict=False
            )
            if endpoint.secure
        ]
        if not self.started:
            return False
        if not servers:
            logger.info("there are no certificates to be read again")
            return False
        try:
            tls = load_certificates(self.config)
            quic = None
            if any(http3 for _, http3 in servers):
                quic = make_quic(self.config, tls, make_timeouts(self.config))
            for server, http3 in servers:
                server.reload_certificates(tls, quic if http3 else None)
        except ConfigurationError as error:
            logger.error("the old certificates stay in use: %s", error)
            return False
        logger.info(
            "new connections have the certificates of %s",
            ", ".join(repr(each.path) for each in tls.certificates),
        )
        return True

    async def _listen(self) -> None:
        """Listen, in the context that the requests shall inherit."""
        assert self.lifespan is not None
        context = self.lifespan.context
        if self.config.reset_contextvars:
            context = contextvars.Context()
            closing.enter(context, self._closing)
        elif context is None:
            context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        for server in self.servers:
            # A task runs in a copy of the context in which it is made.
            await context.run(loop.create_task, server.start())
        if self.config.metrics_port is not None:
            await self._serve_metrics(self.config.metrics_port)

    async def _serve_metrics(self, port: int) -> None:
        # Imported here, because it needs a package of its own.
        from nghttp2py.asgi.metrics import Metrics

        self._metrics = metrics = Metrics()
        self._add_servers()
        server = await metrics.serve((self.config.metrics_host, port))
        announce_metrics(server.sockets)

    def _add_servers(self) -> None:
        assert self._metrics is not None
        for server in self.servers:
            self._metrics.add_server(server)

    async def _abort_startup(self) -> None:
        if self._metrics is not None:
            await self._metrics.close()
        for server in self.servers:
            server.abort()
        self.endpoints.close()
        if self.lifespan is not None:
            await self.lifespan.shutdown()

    def announce(self) -> None:
        """Log where the server listens, and by which protocols."""
        announce(self.config, self.endpoints.found)

    # ---- End ----

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Stop accepting, let the requests end, and stop the application.

        What has not ended after ``timeout_graceful_shutdown`` seconds is cancelled, and
        all at once when ``force_exit`` is set.  The application's lifespan is ended in
        each case.  A second call is a no-op.
        """
        if not self.started:
            return
        self.started = False
        if self.notifies:
            notify.stopping("stopping")
        try:
            await self._drain()
        finally:
            try:
                await self._end_requests()
                if self._metrics is not None:
                    await self._metrics.close()
            finally:
                await self._end_lifespan()
                self._watchdog.stop()

    async def _drain(self) -> None:
        """Wait for the end of requests, until the deadline or a second signal."""
        assert self._app is not None
        self._closing.set()
        timeout = self.config.timeout_graceful_shutdown
        self.endpoints.remove_paths()
        for server in self.servers:
            server.close(timeout)
        count = self._app.task_count
        if count:
            logger.info(
                "stopping: waiting up to %g seconds for %d requests; Ctrl-C ends them "
                "at once",
                timeout,
                count,
            )
        else:
            logger.info("stopping")
        ending = asyncio.ensure_future(self._wait_closed(self._app))
        try:
            await self._until(lambda: self._force_exit, ending, timeout=timeout)
        finally:
            ending.cancel()

    async def _wait_closed(self, app: ASGIApp) -> None:
        for server in self.servers:
            await server.wait_closed()
        # Responses are complete; background tasks may not be.
        await app.drain()

    async def _end_requests(self) -> None:
        assert self._app is not None
        for server in self.servers:
            server.abort()
        count = self._app.task_count
        if count:
            logger.warning("cancelling %d requests", count)
            self._app.cancel()
            await self._app.drain(_CANCELLED)

    async def _end_lifespan(self) -> None:
        assert self.lifespan is not None
        ending = asyncio.ensure_future(self.lifespan.shutdown())
        try:
            await self._until(lambda: self._force_exit, ending)
            if not ending.done():
                await asyncio.wait([ending], timeout=_FORCED)
        finally:
            if not ending.done():
                logger.error(
                    "the application has not stopped: its lifespan is cancelled"
                )
            ending.cancel()
            await asyncio.wait([ending])
        logger.info("stopped")

    async def has_ended(self) -> bool:
        """Return whether the application has ended; give it a moment if it has not."""
        timeout = 0.0 if self._force_exit else _FORCED
        ended = self._app is None or await self._app.drain(timeout)
        ended = ended and (self.lifespan is None or self.lifespan.has_ended)
        if not ended:
            logger.error("the application goes on although it was cancelled")
        return ended


def has_terminal() -> bool:
    """Return whether the process has a terminal that is not hung up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def announce(config: Config, endpoints: Sequence[Endpoint]) -> None:
    """Log where a server listens, and by which protocols."""
    for endpoint in endpoints:
        protocols = ", ".join(name_protocols(endpoint, http1=config.http1))
        streams = [s for s in endpoint.sockets if s.type == socket.SOCK_STREAM]
        for sock in streams or endpoint.sockets:
            logger.info(
                "listening on %s by %s (Ctrl-C stops)",
                describe_socket(sock, endpoint.scheme),
                protocols if streams else "HTTP/3",
            )


def announce_metrics(sockets: Sequence[socket.socket]) -> None:
    """Log where Prometheus can read the metrics."""
    for sock in sockets:
        logger.info("metrics are at %s/metrics", describe_socket(sock, "http"))


def name_protocols(endpoint: Endpoint, *, http1: bool) -> list[str]:
    """Return the names of the protocols that an endpoint serves."""
    names = ["HTTP/1.1"] if http1 else []
    return [*names, "HTTP/2", *(["HTTP/3"] if endpoint.http3 else [])]


def make_options(config: Config, state: dict[str, Any]) -> ASGIOptions:
    """Return the options of an ``ASGIApp``."""
    return ASGIOptions(
        spec_version=config.spec_version,
        disconnect_grace=config.timeout_disconnect_grace,
        state=state,
        root_path=config.root_path,
        root_path_mode=config.root_path_mode,
        server_header="nghttp2py" if config.server_header else "",
        date_header=config.date_header,
        headers=tuple(
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in config.headers
        ),
        forwarded=config.proxy_policy(),
        websocket=WebSocketOptions(
            max_message_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            ping_interval=config.ws_ping_interval,
            ping_timeout=config.ws_ping_timeout,
            per_message_deflate=config.ws_per_message_deflate,
        ),
        response_stall=config.timeout_response_stall,
        limit_concurrency=config.limit_concurrency,
        max_request_body_size=config.max_request_body_size,
        health_check_path=config.health_check_path,
    )


def log_error(error: Exception) -> None:
    """Log an error of starting as one line, and its details below."""
    details = getattr(error, "details", "")
    logger.error("%s%s", error, "\n" + details.rstrip() if details else "")


async def serve(
    app: Any,
    config: Config | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    mode: str | None = None,
) -> None:
    """Serve ``app`` in the running event loop, as hypercorn's function does.

    ``shutdown_trigger`` is a function whose awaitable ends when the server is to stop;
    without one, SIGINT and SIGTERM stop it.  ``mode`` is "asgi" or "wsgi", or None for
    what the application is.

    Raises what ``Server.startup`` raises: :class:`~nghttp2py.errors.LifespanError` if
    the application fails to start.
    """
    chosen = dataclasses.replace(Config() if config is None else config, app=app)
    if mode is not None:
        if mode not in ("asgi", "wsgi"):
            raise ValueError(f"mode must be asgi, wsgi or None, not {mode!r}")
        chosen.interface = "wsgi" if mode == "wsgi" else "auto"
    server = Server(chosen)
    if shutdown_trigger is None:
        with server.catch_signals():
            await server.live()
        return
    trigger = asyncio.ensure_future(_await(shutdown_trigger))
    trigger.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.live()
        if trigger.done():
            trigger.result()
    finally:
        trigger.cancel()
        await asyncio.wait([trigger])


async def _await(function: Callable[[], Awaitable[object]]) -> None:
    await function()
