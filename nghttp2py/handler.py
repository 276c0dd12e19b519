"""Requests as objects: the handler of a stream, and what calls it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from nghttp2py.asyncio.body import AsyncBody
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.errors import (
    ErrorCode,
    NGHTTP2Error,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2 import (
    H2BodyDrained,
    H2BodyFailed,
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2Event,
    H2RequestReceived,
    H2StreamClosed,
    H2TrailersReceived,
    H2WebSocketRequest,
    RequestReceived,
)

__all__ = ["BaseRequestHandler", "HandlerProtocol"]

logger = logging.getLogger("nghttp2py")
access_logger = logging.getLogger("nghttp2py.access")

Headers = Any  # an iterable of (name, value) pairs of bytes or str, or a mapping

# Bytes below which a stream's queue falls before ``drain`` returns: enough to
# keep the socket busy until more comes.
_LOW_WATER = 65536
# Statuses whose responses have no body (RFC 9110, 15.3.5 and 15.4.5).
_NO_BODY = frozenset({204, 304})


class BaseRequestHandler:
    """Handles one stream: one request and its response.

    A subclass overrides the ``on_`` methods, which are called in the order
    ``on_headers``, ``on_data`` for each piece of the body, ``on_trailers`` if
    there are any, ``on_request_done``, ``on_close``.  If one of them raises,
    the traceback is logged, and the client gets 500 if no response was begun,
    else RST_STREAM with INTERNAL_ERROR; other streams go on.

    The methods may be called from the callbacks of this or any other stream
    and at any later time in the server's event loop.  Header lists are
    iterables of (name, value) pairs, or mappings; names and values are bytes or
    str, which is sent as UTF-8.  On misuse the methods raise exceptions of
    ``nghttp2py.errors``: ``StreamStateError`` for a second response,
    ``StreamClosedError`` once the stream is closed, ``HeadersError`` for what
    must not be in a header, ``InvalidBodyLengthError`` for a body that does not
    fit its content-length.
    """

    #: The connection, shared by all its handlers.
    http2: HandlerProtocol
    #: The stream's identifier; -1 for a push that the client does not take.
    stream_id: int
    #: ``:method``, ``:path`` and ``:scheme``; for a CONNECT that has no path,
    #: ``path`` is ``:authority`` and ``scheme`` is None.
    method: bytes
    path: bytes
    scheme: bytes | None
    #: The status that was sent, or None.
    status: int | None = None
    #: Whether this is a stream that ``push`` has made.
    pushed: bool = False

    _request: RequestReceived
    _headers: list[tuple[bytes, bytes]] | None = None
    _request_done = False
    _closed = False
    _failed = False
    _no_body = False  # what is sent of a body is dropped
    _body: AsyncBody | None = None
    _drained: asyncio.Future[None] | None = None

    def __init__(self, http2: HandlerProtocol, stream_id: int) -> None:
        self.http2 = http2
        self.stream_id = stream_id

    # ---- What a subclass overrides ----

    def on_headers(self) -> None:
        """Called when the request's header section has come."""

    def on_data(self, data: bytes) -> None:
        """Called for each piece of the request's body.

        When it returns, the client gets credit for as many bytes more.
        """

    def on_trailers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Called with the request's trailer section, if it has one."""

    def on_request_done(self) -> None:
        """Called when the whole request has come."""

    def on_close(self, error_code: int) -> None:
        """Called last, when the stream is closed; ``error_code`` 0 is a good end."""

    # ---- The request ----

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All fields as they came, pseudo-header fields first.

        Several cookie fields are joined to one, the last (RFC 9113, 8.2.3).
        """
        if self._headers is None:
            self._headers = list(self._request.fields)
        return self._headers

    @property
    def host(self) -> bytes | None:
        """The value of ``:authority`` or, without it, of ``host``.

        A request in which they differ is refused (RFC 9113, 8.3.1).
        """
        host = self._request.authority
        if host is None:
            host = dict(self._request.fields).get(b"host")
        return host

    @property
    def client_address(self) -> Any:
        """The client's address as its socket gives it: ``(host, port, ...)``."""
        return self.http2.client_address

    remote_address = client_address

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        """The client's certificate, as ``ssl.SSLSocket.getpeercert`` tells it."""
        return self.http2.client_certificate

    # ---- The response ----

    def send_response(
        self,
        status: int = 200,
        headers: Headers = None,
        body: Any = None,
        *,
        trailers: Headers = None,
    ) -> None:
        """Send the whole response.

        ``body`` is ``None``, str (sent as UTF-8), bytes-like, a binary file,
        an iterable or asynchronous iterable of bytes, or a callable
        ``f(n) -> (data, flag)`` that returns at most ``n`` bytes and
        ``DATA_OK``, ``DATA_EOF`` with the last of them, or ``DATA_DEFERRED``
        with none until ``resume`` is called.  All but str and bytes are read
        as the client takes them; a file is not closed.  What they raise is
        logged, and resets the stream.  Responses to HEAD and those with the
        status 204 or 304 have no body, and ``body`` is not touched.

        If the request has not come whole, the client is told to stop sending
        it (RFC 9113, 8.1).
        """
        if isinstance(body, str):
            body = body.encode()
        elif body is not None:
            _check_body(body)
        whole = body is None and trailers is None
        self._begin(status, headers, whole)
        if not whole and not self._no_body:
            try:
                if isinstance(body, AsyncIterable):
                    body = self._body = AsyncBody(body, self.resume)
                self.http2.connection.send_body(
                    self.stream_id, b"" if body is None else body, trailers=trailers
                )
            except Exception:
                # The response cannot be finished as it was begun.
                self.reset(ErrorCode.INTERNAL_ERROR)
                raise
        self._sent_all()

    def send_informational(self, status: int, headers: Headers = None) -> None:
        """Send a 1xx response, before the final one (RFC 9110, 15.2).

        ``status`` is from 100 to 199, but not 101.
        """
        self._check_open()
        self.http2.connection.send_informational(self.stream_id, status, headers or ())
        self.http2.mark_dirty()

    def send_headers(self, status: int = 200, headers: Headers = None) -> None:
        """Begin a response whose body follows by ``send_data`` and ``end``."""
        self._begin(status, headers, False)
        self.http2.mark_dirty()

    def send_data(self, data: bytes | str) -> None:
        """Queue a piece of the body after ``send_headers``.

        Raises ``BodyQueueFullError`` when more than ``config.max_body_queue``
        bytes would wait: ``await drain()`` between the pieces.
        """
        self._check_open()
        if isinstance(data, str):
            data = data.encode()
        if not self._no_body:
            self.http2.connection.send_body(self.stream_id, data, end_stream=False)
            self.http2.mark_dirty()

    async def drain(self) -> None:
        """Wait until few of the queued bytes are left.

        Raises ``StreamClosedError`` if the stream is closed before.
        """
        self._check_open()
        if self._no_body:
            return
        if self._drained is None:
            if self.http2.connection.notify_drained(self.stream_id, _LOW_WATER):
                return
            self._drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._drained)

    def end(self, trailers: Headers = None) -> None:
        """End the response after what is queued, with ``trailers`` if given."""
        self._check_open()
        if self._no_body:
            return
        if trailers is None:
            self.http2.connection.end_stream(self.stream_id)
        else:
            self.http2.connection.send_trailers(self.stream_id, trailers)
        self._sent_all()

    def resume(self) -> None:
        """Ask a body callable again that has said ``DATA_DEFERRED``.

        It does nothing at any other time.
        """
        if not self._closed:
            self.http2.connection.resume_body(self.stream_id)
            self.http2.mark_dirty()

    def reset(self, error_code: int = ErrorCode.CANCEL) -> None:
        """End the stream by RST_STREAM; what is queued on it is dropped."""
        if not self._closed:
            self.http2.connection.reset_stream(self.stream_id, error_code)
            self.http2.mark_dirty()

    @property
    def push_enabled(self) -> bool:
        """Whether the client takes pushes, and this stream can promise them."""
        return (
            not self.pushed and not self._closed and self.http2.connection.push_enabled
        )

    def push(
        self,
        path: str | bytes,
        method: str | bytes = "GET",
        request_headers: Headers = None,
        status: int = 200,
        headers: Headers = None,
        body: Any = None,
    ) -> BaseRequestHandler:
        """Push a response to a request that the client did not make.

        To be called before ``send_response``.  ``:scheme`` and ``:authority``
        are this request's.  ``status``, ``headers`` and ``body`` are as those
        of ``send_response``.  Returns the handler of the promised stream, on
        which only ``on_close`` will be called.

        If the client takes no pushes nothing is sent, and the handler has been
        closed with REFUSED_STREAM, ``on_close`` included.
        """
        self._check_open()
        if self.pushed:
            raise StreamStateError(
                f"stream {self.stream_id}: a pushed stream promises no others"
            )
        return self.http2.push(
            self, path, method, request_headers, status, headers, body
        )

    # ---- Between the handler and its connection ----

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError(
                f"stream {self.stream_id} is closed", self.stream_id
            )

    def _begin(self, status: int, headers: Headers, whole: bool) -> None:
        self._check_open()
        if self.status is not None:
            raise StreamStateError(
                f"stream {self.stream_id}: a response was sent already"
            )
        no_body = status in _NO_BODY or self.method == b"HEAD"
        self.http2.connection.send_response_headers(
            self.stream_id, status, headers or (), end_stream=whole or no_body
        )
        self.status = status
        if no_body:
            self._no_body = True

    def _sent_all(self) -> None:
        if not self._request_done:
            # Goes out after the response, and only if the request has not
            # ended by then.
            self.http2.connection.reset_stream(
                self.stream_id, ErrorCode.NO_ERROR, after_flush=True
            )
        self.http2.mark_dirty()

    def _wake(self, error: Exception | None) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            if error is None:
                drained.set_result(None)
            else:
                drained.set_exception(error)
                drained.exception()  # nobody may be waiting any more


def _check_body(body: object) -> None:
    """Refuse before anything is sent what cannot be a body."""
    if not (
        isinstance(body, (bytes, bytearray, memoryview, Iterable, AsyncIterable))
        or callable(getattr(body, "read", None))
        or callable(body)
    ):
        raise TypeError(
            "a body must be None, str, bytes-like, a binary file, an iterable or "
            f"asynchronous iterable of bytes, or a callable, not {type(body).__name__}"
        )


class HandlerProtocol(H2Pump):
    """One connection of a server: makes a handler for each request.

    ``protocols`` is the set of the server's open connections, to which this
    one adds itself while it is connected; ``closed`` is called when it has
    left it.
    """

    def __init__(
        self,
        handler_class: type[BaseRequestHandler],
        config: H2Configuration,
        protocols: set[HandlerProtocol],
        closed: Callable[[], None],
        *,
        settings_timeout: float,
        idle_timeout: float | None,
    ) -> None:
        super().__init__(
            H2Connection(client_side=False, config=config),
            settings_timeout=settings_timeout,
            idle_timeout=idle_timeout,
        )
        self._handler_class = handler_class
        self._protocols = protocols
        self._closed_callback = closed
        self._handlers: dict[int, BaseRequestHandler] = {}
        self._receivers: dict[type, Callable[[Any], None]] = {
            H2RequestReceived: self._request_received,
            H2WebSocketRequest: self._request_received,
            H2BodyReceived: self._body_received,
            H2TrailersReceived: self._trailers_received,
            H2StreamClosed: self._stream_closed,
            H2BodyDrained: self._body_drained,
            H2BodyFailed: self._body_failed,
        }
        self.client_address: Any = None

    # ---- The transport ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocols.add(self)
        self.client_address = transport.get_extra_info("peername")
        # Kept, so that handlers can ask when the transport is gone.
        self._extra_info = transport.get_extra_info
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._protocols.discard(self)
        self._closed_callback()

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        certificate: dict[str, Any] | None = self._extra_info("peercert")
        return certificate or None

    # ---- Events ----

    def event_received(self, event: H2Event) -> None:
        receive = self._receivers.get(event.__class__)
        if receive is not None:
            receive(event)

    def _request_received(self, event: H2RequestReceived) -> None:
        stream_id = event.stream_id
        request = event.request
        try:
            handler = self._handler_class(self, stream_id)
        except Exception:
            logger.exception("%s: no handler for stream %d", self, stream_id)
            handler = BaseRequestHandler(self, stream_id)
            self._adopt(handler, request)
            handler._failed = True
            handler.send_response(500)
            return
        self._adopt(handler, request)
        try:
            handler.on_headers()
        except Exception:
            self._handler_failed(handler)

    def _adopt(self, handler: BaseRequestHandler, request: RequestReceived) -> None:
        handler._request = request
        handler.method = request.method
        handler.path = request.target
        handler.scheme = request.scheme
        self._handlers[handler.stream_id] = handler

    def _body_received(self, event: H2BodyReceived) -> None:
        stream_id = event.stream_id
        body = event.body
        handler = self._handlers.get(stream_id)
        if handler is None:
            return
        try:
            data = body.data
            if data:
                try:
                    if not handler._failed:
                        handler.on_data(data)
                finally:
                    self.connection.acknowledge_received_data(len(data), stream_id)
            if not body.more:
                handler._request_done = True
                if not handler._failed:
                    handler.on_request_done()
        except Exception:
            self._handler_failed(handler)

    def _trailers_received(self, event: H2TrailersReceived) -> None:
        handler = self._handlers.get(event.stream_id)
        if handler is not None and not handler._failed:
            try:
                handler.on_trailers(list(event.headers))
            except Exception:
                self._handler_failed(handler)

    def _stream_closed(self, event: H2StreamClosed) -> None:
        handler = self._handlers.pop(event.stream_id, None)
        if handler is not None:
            self._close_handler(handler, event.error_code, event.body_bytes_sent)

    def _close_handler(
        self, handler: BaseRequestHandler, error_code: int, size: int = 0
    ) -> None:
        handler._closed = True
        if handler._body is not None:
            handler._body.close()
        if handler._drained is not None:
            handler._wake(
                StreamClosedError(
                    f"stream {handler.stream_id} was closed", handler.stream_id
                )
            )
        if access_logger.isEnabledFor(logging.INFO):
            self._log_access(handler, size)
        try:
            handler.on_close(error_code)
        except Exception:
            logger.exception(
                "%s: on_close() of stream %d failed", self, handler.stream_id
            )

    def _body_drained(self, event: H2BodyDrained) -> None:
        handler = self._handlers.get(event.stream_id)
        if handler is not None:
            handler._wake(None)

    def _body_failed(self, event: H2BodyFailed) -> None:
        logger.error(
            "%s: the body of stream %d failed",
            self,
            event.stream_id,
            exc_info=event.exception,
        )

    def _handler_failed(self, handler: BaseRequestHandler) -> None:
        """Log the exception in hand and end the handler's stream."""
        logger.exception(
            "%s: %r %r on stream %d failed",
            self,
            handler.method,
            handler.path,
            handler.stream_id,
        )
        handler._failed = True
        if handler.status is None:
            try:
                # Not the subclass's own method, which may have failed.
                BaseRequestHandler.send_response(handler, 500)
                return
            except NGHTTP2Error:
                pass  # the stream is closed
        handler.reset(ErrorCode.INTERNAL_ERROR)

    # ---- Push ----

    def push(
        self,
        parent: BaseRequestHandler,
        path: str | bytes,
        method: str | bytes,
        request_headers: Headers,
        status: int,
        headers: Headers,
        body: Any,
    ) -> BaseRequestHandler:
        """See ``BaseRequestHandler.push``."""
        request = parent._request
        fields = [
            (b":method", _as_bytes(method)),
            (b":scheme", request.scheme or b"https"),
            (b":authority", parent.host or b""),
            (b":path", _as_bytes(path)),
        ]
        if hasattr(request_headers, "items"):
            request_headers = request_headers.items()
        for name, value in request_headers or ():
            fields.append((_as_bytes(name), _as_bytes(value)))
        stream_id = -1
        if self.connection.push_enabled:
            stream_id = self.connection.push_stream(parent.stream_id, fields)
        handler = self._handler_class(self, stream_id)
        handler.pushed = True
        handler._request_done = True
        self._adopt(
            handler,
            RequestReceived(
                fields[0][1],
                fields[3][1],
                fields[4:],
                scheme=fields[1][1],
                authority=fields[2][1],
                fields=fields,
            ),
        )
        if stream_id == -1:
            del self._handlers[stream_id]
            self._close_handler(handler, ErrorCode.REFUSED_STREAM)
            return handler
        try:
            handler.send_response(status, headers, body)
        except Exception:
            # The promise is made already.
            handler.reset(ErrorCode.INTERNAL_ERROR)
            raise
        return handler

    # ---- Access log ----

    def _log_access(self, handler: BaseRequestHandler, size: int) -> None:
        address = self.client_address
        access_logger.info(
            '%s - - [%s] "%s %s HTTP/2" %s %s',
            address[0] if isinstance(address, tuple) else "-",
            time.strftime("%d/%b/%Y:%H:%M:%S %z"),
            _printable(handler.method),
            _printable(handler.path),
            "-" if handler.status is None else handler.status,
            size or "-",
        )


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _printable(value: bytes) -> str:
    """Escape what would break a line of the log."""
    return value.decode("ascii", "backslashreplace").replace('"', "\\x22")
