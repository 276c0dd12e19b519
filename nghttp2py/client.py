"""An HTTP/2 client whose responses are handled by objects (RFC 9113).

``HTTP2Client`` keeps one connection; each request has an instance of the program's
subclass of ``BaseResponseHandler``, whose ``on_`` methods are called. Programs with
coroutines use ``nghttp2py.asyncio.Client``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import ssl as ssl_module
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from nghttp2py.arguments import check_seconds, check_type
from nghttp2py.asyncio.binding import check_host, check_path, check_port
from nghttp2py.asyncio.body import AsyncBody, is_asynchronous
from nghttp2py.asyncio.connecting import establish
from nghttp2py.asyncio.deadlines import Deadline, Deadlines
from nghttp2py.asyncio.event_loop import get_current_loop
from nghttp2py.asyncio.http2 import HTTP2Exchanges
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.timeouts import (
    UNSET,
    Timeouts,
    check_keepalive,
    merge_timeouts,
)
from nghttp2py.asyncio.tls import prepare_context
from nghttp2py.asyncio.url import make_authority, split_url
from nghttp2py.asyncio.writer import HeadersLike, to_pairs
from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.exchange import PythonExchange
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2Event,
    H2SettingsReceived,
    RequestReceived,
    Setting,
)
from nghttp2py.h2.config import check_config
from nghttp2py.log_budget import MemoryLog

__all__ = ["BaseResponseHandler", "HTTP2Client"]

logger = logging.getLogger(__name__)
_memory_log = MemoryLog(logger)

#: Seconds that connecting may take, TLS included.
CONNECT_TIMEOUT = 30.0
#: Seconds within which something must happen to a request: a piece of its body is sent,
#: or a part of the response arrives.
TIMEOUT = 60.0
#: Seconds that ``expect_continue`` waits for 100 (Continue), if it is ``True``.  A
#: server need not send it (RFC 9110, 10.1.1).
EXPECT_TIMEOUT = 1.0

#: The default of ``config``.  Responses are passed on as they arrive, so wide windows
#: cost no memory here and save waiting.  ``on_push_promise`` is called for promises; by
#: default it declines them.
DEFAULT_CONFIGURATION = H2Configuration(
    initial_window_size=1048576,
    connection_window_size=4194304,
    enable_push=True,
    manual_flow_control=True,
)


# How many different timeouts get a shared timer each.
_MAX_DEADLINES = 32


class _Deadline(Deadline):
    """The time until which something must happen to a request."""

    __slots__ = ("_handler",)

    def __init__(self, handler: BaseResponseHandler) -> None:
        self._handler = handler

    def _expire(self) -> None:
        self._handler._expire()


class BaseResponseHandler:
    """Handles one stream: the response to one request.

    A subclass overrides the ``on_`` methods, which are called in the order
    ``on_informational`` for each 1xx response, ``on_headers``, ``on_data`` for each
    piece of the body, ``on_trailers`` if there are any, ``on_response_done``,
    ``on_close``; the last one always, also when the connection is lost.  If one of them
    raises, the traceback is logged and the stream reset with INTERNAL_ERROR; other
    streams go on.

    They may call any method of the client, for example to send further requests.
    """

    #: The client that the request was sent with.
    http2: HTTP2Client
    #: The stream's identifier; -1 until the request is sent.
    stream_id: int = -1
    #: The request, as it was sent or, if ``pushed``, as the server has promised it.
    method: bytes | None = None
    scheme: bytes | None = None
    host: bytes | None = None
    path: bytes | None = None
    #: The status of the final response, or None before it.
    status: int | None = None
    #: Whether the server has pushed this response.
    pushed: bool = False
    #: Whether the stream was reset because nothing happened in the client's timeout.
    timed_out: bool = False

    _response_done = False
    _closed = False
    _promise = False  # a promise that was neither accepted nor rejected
    _tunnel = False  # CONNECT without a body: our half is open
    _body: AsyncBody | None = None
    _expect: float | None = None  # seconds to wait for 100 (Continue)
    _waiting: tuple[Any, HeadersLike | None] | None = None  # what is sent then
    _queued = False  # until the server allows another stream
    _upload = False  # our half may be open after the response
    _deadlines: Deadlines | None = None
    _deadline: _Deadline | None = None
    _window = 0  # for our half, when the deadline was set

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in _CALLBACKS:
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise TypeError(
                    f"{cls.__name__}.{name} is a coroutine function, but callbacks of "
                    "HTTP2Client are called, not awaited: nghttp2py.asyncio.Client is "
                    "for coroutines"
                )

    def __init__(self, http2: HTTP2Client | None = None, stream_id: int = -1) -> None:
        if http2 is not None:
            self.http2 = http2
        self.stream_id = stream_id

    # A subclass may leave out super().__init__(), so nothing is set up there.

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All fields of the response as they came, ``:status`` first.

        Before the response it is empty; for a promise it has the fields of the promised
        request.
        """
        headers: list[tuple[bytes, bytes]] = self.__dict__.setdefault("_headers", [])
        return headers

    @property
    def server_address(self) -> Any:
        """The server's address as the socket gives it: ``(host, port, ...)``."""
        return self.http2.server_address

    remote_address = server_address

    # ---- What a subclass overrides ----

    def on_informational(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Called for each 1xx response before the final one (RFC 9110, 15.2)."""

    def on_headers(self) -> None:
        """Called when the final response's header section has come."""

    def on_data(self, data: bytes) -> None:
        """Called for each piece of the response's body.

        When it returns, the server gets credit for as many bytes.
        """

    def on_trailers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Called with the response's trailer section, if it has one."""

    def on_response_done(self) -> None:
        """Called when the whole response has come."""

    def on_close(self, error_code: int) -> None:
        """Called last, when the stream is closed; ``error_code`` 0 is a good end.

        0 means that the response is complete.  The code is INTERNAL_ERROR if the
        connection could not be made or was lost; PROTOCOL_ERROR for a malformed
        response; CANCEL for one that broke off without an error code, and for a
        timeout, with ``timed_out`` true.
        """

    def on_push_promise(self, push_promise: BaseResponseHandler) -> None:
        """Called when the server promises a response to a request not made.

        ``push_promise`` shows that request.  Call ``accept_push`` or
        ``reject_push`` before returning; without either it is rejected, and
        that is what this does.
        """
        self.reject_push(push_promise)

    # ---- What it may call ----

    def accept_push(
        self,
        push_promise: BaseResponseHandler,
        handler: BaseResponseHandler | None = None,
    ) -> None:
        """Let ``handler`` handle the promised response; ``None`` rejects it."""
        self.http2._decide_push(push_promise, handler)

    def reject_push(self, push_promise: BaseResponseHandler) -> None:
        """Decline a promise: its stream is reset with CANCEL."""
        self.http2._decide_push(push_promise, None)

    def resume(self) -> None:
        """Ask a body callable again that has returned ``DATA_DEFERRED``.

        At any other time this is a no-op.
        """
        if not self._closed and self.stream_id != -1:
            self.http2._resume(self.stream_id)

    def reset(self, error_code: int = ErrorCode.CANCEL) -> None:
        """End the stream by RST_STREAM; what is queued on it is dropped."""
        if not self._closed and self.stream_id != -1:
            self.http2._reset(self.stream_id, error_code)

    def _expire(self) -> None:
        self.http2._expired(self)


_CALLBACKS = (
    "on_informational",
    "on_headers",
    "on_data",
    "on_trailers",
    "on_response_done",
    "on_close",
    "on_push_promise",
)


class _Response(PythonExchange):
    """A request, whose response ``handler`` handles."""

    __slots__ = ("handler",)

    handler: BaseResponseHandler

    @property
    def _protocol(self) -> _ResponseProtocol:
        protocol: _ResponseProtocol = self.http.owner
        return protocol

    def informational_received(
        self, status: int, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self._protocol.progress(self.handler)
        if not self.handler._closed:
            self.handler.on_informational(status, list(fields))
        if status == 100:
            self._protocol.proceed(self.handler)

    def response_received(
        self, status: int, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        handler = self.handler
        if handler._closed:
            return
        self._protocol.progress(handler)
        if handler._waiting is not None:
            if status < 300:
                self._protocol.proceed(handler)
            handler._waiting = None  # the server has refused it (RFC 9110, 10.1.1)
        handler.status = status
        # Until now, the fields of the promise were shown.
        handler.headers[:] = [(b":status", b"%d" % status), *fields]
        handler.on_headers()

    def data_received(self, data: bytes) -> None:
        if not self.handler._closed:
            self._protocol.progress(self.handler)
            self.handler.on_data(data)
        self.http.acknowledge(self, len(data))

    def trailers_received(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        if not self.handler._closed:
            self._protocol.progress(self.handler)
            self.handler.on_trailers(list(fields))

    def end_received(self) -> None:
        handler = self.handler
        if handler._closed:
            return
        handler.on_response_done()
        handler._response_done = True
        if handler._tunnel:
            # Nothing was sent, and nothing will be.
            with contextlib.suppress(StreamClosedError):
                self.http.end(self)
        elif handler._upload:
            # If our half has ended too, the next call reports it.
            self._protocol.end_upload_soon(self)

    def exchange_closed(
        self, failure: Callable[[], Exception] | None, error_code: int, sent: int
    ) -> None:
        if self.handler._closed:
            return
        if self.handler._response_done:
            # The response is complete, even if the rest of the request was not sent.
            error_code = ErrorCode.NO_ERROR
        self._protocol.close_handler(self.handler, error_code)


class _Exchanges(HTTP2Exchanges):
    """The exchanges of a client's connection, and the promises of the server."""

    def push_received(
        self, stream_id: int, request: RequestReceived, parent: _Response | None
    ) -> None:
        """Ask the handler of the request with which the promise came."""
        promise = BaseResponseHandler(self.owner.client, stream_id)
        promise.pushed = True
        promise._promise = True
        promise.method = request.method
        promise.scheme = request.scheme
        promise.host = request.authority
        promise.path = request.target
        promise.headers[:] = request.fields
        try:
            if parent is not None and not parent.handler._closed:
                parent.handler.on_push_promise(promise)
        finally:
            if promise._promise:
                self.owner.decide_push(promise, None)


class _ResponseProtocol(H2Pump):
    """The connection of a client, which passes each stream's events to its handler."""

    def __init__(
        self,
        client: HTTP2Client,
        config: H2Configuration,
        timeouts: Timeouts,
    ) -> None:
        connection = H2Connection(client_side=True, config=config)
        super().__init__(connection, timeouts=timeouts)
        self.http = _Exchanges(self, connection)
        self.count = 0  # of handlers that are not closed
        self._last_progress = 0.0  # of any request
        self._limit = 2**32 - 1  # of streams
        # Until the connection ends: no cycle is to outlive it.
        self.client: HTTP2Client | None = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.http.connected(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client is not None:
            self.client._connection_lost()

    def event_received(self, event: H2Event) -> None:
        if event.__class__ is H2SettingsReceived:
            settings = event.settings
            self._limit = settings.get(Setting.MAX_CONCURRENT_STREAMS, self._limit)

    # ---- Requests ----

    def send_request(
        self,
        handler: BaseResponseHandler,
        headers: HeadersLike | None,
        body: Any,
        trailers: HeadersLike | None,
    ) -> None:
        # HTTP2Client has filled them in; CONNECT has no scheme.
        assert handler.method is not None and handler.path is not None
        whole = body is None and trailers is None
        stream_id = self.connection.send_request(
            handler.method,
            handler.path,
            headers or (),
            scheme=handler.scheme or b"",
            authority=handler.host,
            # A tunnel stays open (RFC 9113, 8.5).
            end_stream=None if whole else False,
        )
        self.mark_dirty()
        exchange = self._open(handler, stream_id)
        handler._tunnel = whole and handler.method in (b"CONNECT", "CONNECT")
        handler._queued = self.count > self._limit
        # END_STREAM ends one direction of a tunnel (RFC 9113, 8.5).
        handler._upload = not whole and handler.method != b"CONNECT"
        if not whole and handler._expect is not None:
            handler._waiting = body, trailers
            self._loop.call_later(handler._expect, self.proceed, handler)
        elif not whole:
            try:
                self.send_body(handler, body, trailers)
            except Exception:
                # The caller gets the exception, and no callback is called.
                self._release(handler)
                self.http.reset(exchange, ErrorCode.CANCEL)
                raise
        self.progress(handler)

    def _open(self, handler: BaseResponseHandler, stream_id: int) -> _Response:
        """Let ``handler`` handle the response on a stream."""
        exchange = _Response(self.http, stream_id)
        exchange.handler = handler
        handler.stream_id = stream_id
        self.http.adopt(exchange)
        self.count += 1
        return exchange

    def _release(self, handler: BaseResponseHandler) -> None:
        """Free what a handler holds: none of its methods but on_close is called."""
        if handler._closed:
            return
        handler._closed = True
        handler._waiting = None
        if handler._deadlines is not None and handler._deadline is not None:
            handler._deadlines.discard(handler._deadline)
            handler._deadline = None
        if handler._body is not None:
            handler._body.close()
            handler._body = None
        if handler.stream_id != -1:
            self.count -= 1

    def send_body(
        self, handler: BaseResponseHandler, body: Any, trailers: HeadersLike | None
    ) -> None:
        """Queue a request's body, or its source, which is read as the stream can
        send."""
        if is_asynchronous(body):
            body = handler._body = AsyncBody(body, handler.resume, self._loop)
        self.connection.send_body(
            handler.stream_id, b"" if body is None else body, trailers=trailers
        )
        self.mark_dirty()

    def proceed(self, handler: BaseResponseHandler) -> None:
        """Send the body that has waited for 100 (Continue)."""
        waiting, handler._waiting = handler._waiting, None
        if waiting is None or handler._closed:
            return
        try:
            self.send_body(handler, *waiting)
        except Exception as error:
            _memory_log.failed(
                error,
                "%s: the body of stream %d cannot be sent",
                self,
                handler.stream_id,
            )
            handler.reset(ErrorCode.INTERNAL_ERROR)

    def end_upload_soon(self, exchange: _Response) -> None:
        """Reset a stream whose response is complete and whose request is not.

        RFC 9113, 8.1: the server may ask for that by RST_STREAM.  If it does not, the
        stream would stay open for ever.
        """
        self._loop.call_soon(self.http.reset, exchange, ErrorCode.CANCEL)

    # ---- Time ----

    def progress(self, handler: BaseResponseHandler) -> None:
        """Restart the timeout of a request, to which something has happened."""
        deadlines = handler._deadlines
        if deadlines is not None:
            self._last_progress = self._loop.time()
            if not handler._closed:
                self._restart(handler, deadlines)
                handler._window = self.window(handler)

    @staticmethod
    def _restart(handler: BaseResponseHandler, deadlines: Deadlines) -> None:
        if handler._deadline is None:
            handler._deadline = _Deadline(handler)
        deadlines.add(handler._deadline)

    def window(self, handler: BaseResponseHandler) -> int:
        """Return the window of our half, which changes while a body is sent."""
        if not handler._upload:
            return 0
        return self.connection.local_flow_control_window(handler.stream_id)

    def expired(self, handler: BaseResponseHandler) -> None:
        """Reset a stream to which nothing has happened within its timeout."""
        deadlines = handler._deadlines
        if handler._closed or deadlines is None:
            return
        now = self._loop.time()
        if handler._upload and self.window(handler) != handler._window:
            self.progress(handler)
            return
        if handler._queued and self._last_progress + deadlines.seconds > now:
            if self.connection.remote_flow_control_window(handler.stream_id):
                handler._queued = False
                self.progress(handler)
            else:
                # The server allows no more streams, and others make progress.  (What
                # is received is credited at once, so this window is 0 at no other
                # time.)
                self._restart(handler, deadlines)
            return
        logger.info(
            "%s: %r %r on stream %d: nothing happened in %s seconds",
            self,
            handler.method,
            handler.path,
            handler.stream_id,
            deadlines.seconds,
        )
        handler.timed_out = True
        handler.reset(ErrorCode.CANCEL)
        # RST_STREAM may never be sent if the server reads no bytes.
        self.close_handler(handler, ErrorCode.CANCEL)

    # ---- The end ----

    def close_handler(self, handler: BaseResponseHandler, error_code: int) -> None:
        """Report to a handler that its stream is closed."""
        self._release(handler)
        try:
            handler.on_close(error_code)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # GeneratorExit and CancelledError, too
            _memory_log.failed(
                error, "%s: on_close() of stream %d failed", self, handler.stream_id
            )
        if self.client is not None:
            self.client._finish_if_idle()

    # ---- Push ----

    def decide_push(
        self, promise: BaseResponseHandler, handler: BaseResponseHandler | None
    ) -> None:
        if not promise._promise:
            raise StreamStateError(
                f"stream {promise.stream_id}: the promise was accepted or rejected "
                "already"
            )
        promise._promise = False
        if handler is None:
            promise.reset(ErrorCode.CANCEL)
            return
        handler.http2 = promise.http2
        handler.pushed = True
        handler.method = promise.method
        handler.scheme = promise.scheme
        handler.host = promise.host
        handler.path = promise.path
        handler.headers[:] = promise.headers
        self._open(handler, promise.stream_id)


class HTTP2Client:
    """Sends requests to the server at ``address`` over one connection.

    ``address`` is ``(host, port)``, or the path of a Unix socket.  ``ssl`` is
    an ``ssl.SSLContext``, on which ALPN ``h2`` is set, or ``True`` for the
    default one; without it HTTP/2 is spoken in the clear, which the server must
    expect (RFC 9113, 3.3).  ``server_hostname`` is the name that its
    certificate must have, if that is not the address's host.

    In a running event loop the connection is made in the background: requests
    sent before it stands wait.  ``async with`` or ``await connect()`` wait for
    it and tell why it failed; leaving the block waits for the open streams.
    Without a running loop the constructor connects before it returns, in
    ``loop``, or the current event loop of the thread, or, if there is none, a
    loop of the client's own: ``io_loop``.  Requests then make progress while
    that runs: call ``run()``, or leave a ``with`` block, which calls it.  All
    calls are to be made in the loop's thread.

    ``config`` holds settings and limits; ``manual_flow_control`` is always on.  Times
    are in seconds: ``connect_timeout`` for the connection to be made, ``timeout`` for a
    request to which nothing happens: no piece of its body is sent, none of the response
    comes (``None``: no limit). Its stream is reset with CANCEL.  ``timeouts`` bounds
    what else the server can make the client wait for; ``settings_timeout`` and
    ``idle_timeout`` (``None``: no limit) replace one field of it.  After
    ``keepalive_interval`` seconds in which nothing arrived PING is sent; if then
    nothing arrives within ``keepalive_timeout``, the connection is closed.

    Connecting raises ``OSError``, ``ssl.SSLError``, ``TimeoutError``, and
    ``ConnectionTerminatedError`` if the server does not speak HTTP/2.
    """

    def __init__(
        self,
        address: tuple[str, int] | str | bytes | os.PathLike[str],
        loop: asyncio.AbstractEventLoop | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        *,
        server_hostname: str | None = None,
        config: H2Configuration | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        timeouts: Timeouts | None = None,
        settings_timeout: float = UNSET,
        idle_timeout: float | None = UNSET,
        keepalive_interval: float | None = None,
        keepalive_timeout: float = 10.0,
        timeout: float | None = TIMEOUT,
    ) -> None:
        if not isinstance(address, tuple):
            address = check_path("address", address)
        elif len(address) != 2:
            raise ValueError(f"address must be (host, port) or a path, not {address!r}")
        else:
            check_type("host", address[0], str, "a str")
            check_host(address[0])
            check_port(address[1])
        if ssl is True:
            ssl = ssl_module.create_default_context()
        elif not ssl:
            ssl = None
        elif not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(
                f"ssl must be an ssl.SSLContext, a bool or None, not "
                f"{type(ssl).__name__}"
            )
        if server_hostname is not None:
            check_type("server_hostname", server_hostname, str, "a str or None")
        if loop is not None:
            check_type("loop", loop, asyncio.AbstractEventLoop, "an event loop or None")
        if ssl is not None:
            prepare_context(ssl)
            if isinstance(address, str) and server_hostname is None:
                raise ValueError("TLS over a Unix socket needs server_hostname")
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("timeout", timeout)
        check_keepalive(keepalive_interval, keepalive_timeout)
        check_config(config)
        if config is None:
            config = DEFAULT_CONFIGURATION
        elif not config.manual_flow_control:
            config = replace(config, manual_flow_control=True)
        self.address = address
        self.scheme = "http" if ssl is None else "https"
        self._authority = (
            make_authority(self.scheme, server_hostname or address[0], address[1])
            if isinstance(address, tuple)
            else server_hostname or "localhost"
        )
        self._ssl = ssl
        if ssl is not None and server_hostname is None and isinstance(address, tuple):
            # A certificate names an address without its local zone (RFC 6874, 4).
            server_hostname = address[0].partition("%")[0]
        self._server_hostname = server_hostname
        self._connect_timeout = connect_timeout
        self._protocol = _ResponseProtocol(
            self,
            config,
            merge_timeouts(
                timeouts,
                client=True,
                settings=settings_timeout,
                idle=idle_timeout,
                keepalive=keepalive_interval or UNSET,
                keepalive_answer=keepalive_timeout if keepalive_interval else UNSET,
            ),
        )
        self._protocol.keepalive_idle = keepalive_interval is not None
        self._pending: list[
            tuple[BaseResponseHandler, HeadersLike | None, Any, HeadersLike | None]
        ] = []
        self._timeout = timeout
        self._deadlines: dict[float, Deadlines] = {}
        self._connected = False
        self._closing = False
        self._finishing = False
        self._finish_timer: asyncio.TimerHandle | None = None
        self._owns_loop = False
        self._connecting: asyncio.Task[None] | None = None
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            if loop is None:
                loop = get_current_loop()
            if loop is None:
                self._owns_loop = True
                loop = asyncio.new_event_loop()
                asyncio.set_event_loop(loop)
            self.loop = loop
            self._closed = self.loop.create_future()
            try:
                self.loop.run_until_complete(self._connect())
            except BaseException:
                self._close_loop()
                raise
        else:
            if loop is not None and loop is not running:
                raise RuntimeError("another event loop is running")
            self.loop = running
            self._closed = running.create_future()
            self._connecting = running.create_task(self._connect_in_background())

    # ---- Connecting ----

    async def _connect(self) -> None:
        try:
            await establish(
                self._protocol,
                self._create_connection(),
                self.address,
                self._connect_timeout,
            )
        except BaseException:
            self._connection_lost()
            raise
        self._connected = True

    def _create_connection(self) -> Coroutine[Any, Any, object]:
        server_hostname = self._server_hostname if self._ssl else None
        if isinstance(self.address, tuple):
            host, port = self.address
            return self.loop.create_connection(
                lambda: self._protocol,
                host,
                port,
                ssl=self._ssl,
                server_hostname=server_hostname,
            )
        return self.loop.create_unix_connection(
            lambda: self._protocol,
            self.address,
            ssl=self._ssl,
            server_hostname=server_hostname,
        )

    async def _connect_in_background(self) -> None:
        try:
            await self._connect()
        finally:
            pending, self._pending = self._pending, []
            for request in pending:
                self._send_pending(*request)
            self._finish_if_idle()

    def _send_pending(
        self,
        handler: BaseResponseHandler,
        headers: HeadersLike | None,
        body: Any,
        trailers: HeadersLike | None,
    ) -> None:
        if self._connected and not self._closing:
            try:
                self._protocol.send_request(handler, headers, body, trailers)
                return
            except Exception as error:
                _memory_log.failed(
                    *(error, "%s: %r %r cannot be sent"),
                    *(self, handler.method, handler.path),
                )
        self._protocol.close_handler(handler, ErrorCode.INTERNAL_ERROR)

    async def connect(self) -> None:
        """Wait until the connection is made; raise why it was not.

        It is ``ConnectionClosedError`` if the client was closed meanwhile.
        """
        if self._connecting is not None:
            # The task itself is not awaited: closing the client cancels it, and that
            # must not cancel the waiter.
            await asyncio.wait([self._connecting])
            if self._connecting.cancelled():
                raise ConnectionClosedError(f"{self} was closed")
            self._connecting.result()

    # ---- Requests ----

    def send_request(
        self,
        method: str = "GET",
        url: str = "/",
        headers: HeadersLike | None = None,
        body: Any = None,
        handler: BaseResponseHandler | None = None,
        *,
        trailers: HeadersLike | None = None,
        timeout: float | None = -1,
        expect_continue: float | bool = False,
    ) -> None:
        """Send a request; ``handler`` gets the response.

        ``url`` may leave out scheme and host; then they are the connection's.
        For CONNECT it is ``host:port``.  ``headers`` are pairs of names and
        values, bytes or str, or a mapping.  ``body`` is ``None``, str (sent as
        UTF-8), bytes-like, a binary file, an iterable or asynchronous iterable
        of bytes, or a callable ``f(n) -> (data, flag)``, as with
        ``BaseRequestHandler.send_response``.  ``timeout`` is used instead of
        the client's.

        With ``expect_continue`` the request has ``expect: 100-continue`` (RFC 9110,
        10.1.1): the body is sent when the server asks for it, or after that many
        seconds (``True``: 1); it is not sent if the server refuses it by its response.

        Raises ``ConnectionClosedError`` if the connection accepts no more requests,
        ``HeadersError`` for what must not be in a header and ``InvalidBodyLengthError``
        for a body that does not fit its content-length; before the connection stands
        these are logged instead, and the handler is closed.
        """
        if handler is None:
            handler = BaseResponseHandler()
        if handler.stream_id != -1 or handler._closed:
            raise StreamStateError("the handler is in use for another request")
        if self._closing or self._closed.done():
            raise ConnectionClosedError(f"{self} is closed")
        if isinstance(body, str):
            body = body.encode()
        if method == "CONNECT":
            handler.path = url.encode()
        else:
            parts = split_url(url)
            handler.scheme = (parts.scheme or self.scheme).encode()
            handler.host = (parts.authority or self._authority).encode()
            handler.path = parts.target.encode()
        handler.method = method.encode()
        handler.http2 = self
        if timeout == -1:
            timeout = self._timeout
        else:
            check_seconds("timeout", timeout)
        if timeout is not None:
            handler._deadlines = self._find_deadlines(timeout)
        if not isinstance(expect_continue, bool):
            check_seconds("expect_continue", expect_continue, least=0, optional=False)
        if expect_continue and body is not None:
            handler._expect = (
                EXPECT_TIMEOUT if expect_continue is True else expect_continue
            )
            headers = [*to_pairs(headers or ()), (b"expect", b"100-continue")]
        if self._connected:
            self._protocol.send_request(handler, headers, body, trailers)
        else:
            self._pending.append((handler, headers, body, trailers))

    def _find_deadlines(self, timeout: float) -> Deadlines:
        found = self._deadlines.get(timeout)
        if found is None:
            found = Deadlines(timeout, self.loop)
            if len(self._deadlines) < _MAX_DEADLINES:
                self._deadlines[timeout] = found
        return found

    def _expired(self, handler: BaseResponseHandler) -> None:
        self._protocol.expired(handler)

    def _resume(self, stream_id: int) -> None:
        self._protocol.connection.resume_body(stream_id)
        self._protocol.mark_dirty()

    def _reset(self, stream_id: int, error_code: int) -> None:
        self._protocol.connection.reset_stream(stream_id, error_code)
        self._protocol.mark_dirty()

    def _decide_push(
        self, promise: BaseResponseHandler, handler: BaseResponseHandler | None
    ) -> None:
        self._protocol.decide_push(promise, handler)

    # ---- Properties ----

    @property
    def io_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection."""
        return self.loop

    @property
    def connection(self) -> H2Connection:
        """The sans-I/O connection, for what this class has no method for."""
        return self._protocol.connection

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport, or ``None`` when there is no connection."""
        return self._protocol.transport

    @property
    def server_address(self) -> Any:
        """The server's address as the socket gives it: ``(host, port, ...)``."""
        return self._protocol.http.get_extra_info("peername")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scheme}://{self._authority}>"

    # ---- The end ----

    def close(self) -> None:
        """End the connection with GOAWAY at once: open streams are closed.

        ``wait_closed`` or ``run`` see to its end.
        """
        self._closing = True
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        elif self._protocol.transport is not None:
            self._protocol.terminate()

    def finish(self, timeout: float | None = None) -> None:
        """Close as soon as no stream is open.

        Until then handlers may send further requests.  What has not finished
        after ``timeout`` seconds is aborted (``None``: no limit).
        """
        if self._closed.done():
            return
        if timeout is not None and self._finish_timer is None:
            self._finish_timer = self.loop.call_later(timeout, self._give_up)
        self._finishing = True
        self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if (
            self._finishing
            and self._connected
            and not self._pending
            and not self._protocol.count
        ):
            self._closing = True
            self._protocol.close()

    def _give_up(self) -> None:
        self._closing = True
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        else:
            self._protocol.abort()

    def _connection_lost(self) -> None:
        if self._finish_timer is not None:
            self._finish_timer.cancel()
            self._finish_timer = None
        self._protocol.client = None
        self._protocol.http.disconnected()
        for deadlines in self._deadlines.values():
            deadlines.close()
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
            if not self._connecting.cancelled():
                self._connecting.exception()  # connect() raises it
        await asyncio.shield(self._closed)

    def run(self) -> None:
        """Run the event loop until the connection has ended.

        This must not be called in a running loop.  A loop of the client's own is closed
        after it.
        """
        try:
            self.loop.run_until_complete(self.wait_closed())
        finally:
            self._close_loop()

    def _close_loop(self) -> None:
        if self._owns_loop:
            if get_current_loop() is self.loop:
                asyncio.set_event_loop(None)
            self.loop.close()

    def __enter__(self) -> HTTP2Client:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.finish()
        else:
            self.close()
        self.run()

    async def __aenter__(self) -> HTTP2Client:
        await self.connect()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, *exc_info: object
    ) -> None:
        if exc_type is None:
            self.finish()
        else:
            self.close()
        await self.wait_closed()
