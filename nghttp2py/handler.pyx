"""Requests as objects: the handler of a stream, and what calls it."""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t

from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.events cimport (
    BodyReceived,
    H2BodyDrained,
    H2BodyFailed,
    H2BodyReceived,
    H2RequestReceived,
    H2StreamClosed,
    H2TrailersReceived,
    H2WebSocketRequest,
    RequestReceived,
)
from nghttp2py.h2.headers cimport FieldList

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Iterable

from nghttp2py.asyncio.body import AsyncBody
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.errors import (
    ErrorCode,
    NGHTTP2Error,
    PushDisabledError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.hpack import NeverIndexed

__all__ = ["BaseRequestHandler", "HandlerProtocol"]

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("nghttp2py.access")

# Bytes below which a stream's queue falls before ``drain`` returns: enough to
# keep the socket busy until more comes.
_LOW_WATER = 65536

# What a program's code raises for one stream.  A future that somebody cancels is
# no reason to end the other streams.
cdef tuple FAILURES = (Exception, asyncio.CancelledError)

# Of the access log, whatever the locale calls them.
cdef tuple MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)


cdef class BaseRequestHandler:
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

    Instance variables: ``http2``, the connection, which all its handlers share;
    ``stream_id``, which is -1 for a push that the client does not take;
    ``method``, ``path`` and ``scheme``, the bytes of these pseudo-header fields
    (for a CONNECT that has no path, ``path`` is ``:authority`` and ``scheme`` is
    None); ``status``, what was sent, or None; ``pushed``, whether ``push`` has
    made the stream.
    """

    # The connection's protocol, shared by all its handlers.
    cdef public object http2
    # -1 for a push that the client does not take.
    cdef public object stream_id
    cdef public object method
    cdef public object path
    cdef public object scheme
    # What was sent, or None.
    cdef public object status
    # Whether ``push`` has made the stream.
    cdef public bint pushed

    cdef HandlerTable _table
    cdef RequestReceived _request
    cdef list _headers           # made when it is asked for
    cdef object _body            # an AsyncBody, to be closed with the stream
    cdef object _drained         # the future of drain()
    cdef bint _request_done
    cdef bint _closed
    cdef bint _failed            # a callback has raised: none but on_close is called
    cdef bint _unmade            # its constructor has raised: nothing is called
    cdef bint _no_body           # what is sent of a body is dropped
    cdef bint _ended             # a response without body has ended
    cdef object __weakref__

    def __init__(self, http2, stream_id):
        self.http2 = http2
        self.stream_id = stream_id
        if isinstance(http2, HandlerProtocol):
            # So that a subclass's own may send already.
            self._table = http2._table

    # ---- What a subclass overrides ----

    def on_headers(self):
        """Called when the request's header section has come."""

    def on_data(self, data):
        """Called for each piece of the request's body.

        When it returns, the client gets credit for as many bytes more.
        """

    def on_trailers(self, headers):
        """Called with the request's trailer section, if it has one."""

    def on_request_done(self):
        """Called when the whole request has come."""

    def on_close(self, error_code):
        """Called last, when the stream is closed; ``error_code`` 0 is a good end."""

    # ---- The request ----

    @property
    def headers(self):
        """All fields as they came, pseudo-header fields first.

        Several cookie fields are joined to one, the last (RFC 9113, 8.2.3).
        """
        if self._headers is None and self._request is not None:
            self._headers = list(self._request.fields)
        return self._headers

    @headers.setter
    def headers(self, value):
        self._headers = value

    @property
    def host(self):
        """The value of ``:authority`` or, without it, of ``host``.

        A request in which they differ is refused (RFC 9113, 8.3.1).
        """
        if self._request is None:
            return None
        host = self._request.authority
        if host is None:
            host = dict(self._request.fields).get(b"host")
        return host

    @property
    def client_address(self):
        """The client's address as its socket gives it: ``(host, port, ...)``."""
        return self.http2.client_address

    @property
    def remote_address(self):
        """The same as ``client_address``, as the old bindings called it."""
        return self.http2.client_address

    @property
    def client_certificate(self):
        """The client's certificate, as ``ssl.SSLSocket.getpeercert`` tells it."""
        return self.http2.client_certificate

    # ---- The response ----

    def send_response(
        self,
        status=200,
        headers=None,
        body=None,
        *,
        trailers=None,
    ):
        """Send the whole response.

        ``body`` is ``None``, str (sent as UTF-8), bytes-like, a binary file,
        an iterable or asynchronous iterable of bytes, or a callable
        ``f(n) -> (data, flag)`` that returns at most ``n`` bytes and
        ``DATA_OK``, ``DATA_EOF`` with the last of them, or ``DATA_DEFERRED``
        with none until ``resume`` is called.  All but str and bytes are read
        as the client takes them; a file is not closed.  What they raise is
        logged, and resets the stream.  Responses to HEAD and those with the
        status 204, 205 or 304 have no body, and ``body`` is not touched.

        If the request has not come whole, the client is told to stop sending
        it (RFC 9113, 8.1).
        """
        cdef bint whole = body is None and trailers is None

        if isinstance(body, str):
            body = (<str>body).encode()
        elif body is not None and not PyBytes_CheckExact(body):
            check_body(body)
        self._begin(status, headers, whole)
        if not whole and not self._no_body:
            try:
                self._send_body(body, trailers)
            except Exception:
                # The response cannot be finished as it was begun.
                self.reset(ErrorCode.INTERNAL_ERROR)
                raise
        self._ended = True
        self._sent_all()

    cdef int _send_body(self, body, trailers) except -1:
        if PyBytes_CheckExact(body) and trailers is None:
            self._table.connection.end_body(self.stream_id, <bytes>body)
            return 0
        if isinstance(body, AsyncIterable):
            body = self._body = AsyncBody(body, self.resume)
        self._table.connection.send_body(
            self.stream_id, b"" if body is None else body, trailers=trailers
        )
        return 0

    def send_informational(self, status, headers=None):
        """Send a 1xx response, before the final one (RFC 9110, 15.2).

        ``status`` is from 100 to 199, but not 101.
        """
        self._check_open()
        self._table.connection.send_informational(
            self.stream_id, status, () if headers is None else headers
        )
        self._mark_dirty()

    def send_headers(self, status=200, headers=None):
        """Begin a response whose body follows by ``send_data`` and ``end``."""
        self._begin(status, headers, False)
        if self._no_body:
            self._sent_all()
        else:
            self._mark_dirty()

    def send_data(self, data):
        """Queue a piece of the body after ``send_headers``.

        Raises ``BodyQueueFullError`` when more than ``config.max_body_queue``
        bytes would wait: ``await drain()`` between the pieces.
        """
        self._check_open()
        if isinstance(data, str):
            data = data.encode()
        if self._no_body and not self._ended:
            return
        self._table.connection.send_body(self.stream_id, data, end_stream=False)
        self._mark_dirty()

    async def drain(self):
        """Wait until few of the queued bytes are left.

        Raises ``StreamClosedError`` if the stream is closed before.
        """
        self._check_open()
        if self._no_body:
            return
        if self._drained is None:
            if self._table.connection.notify_drained(self.stream_id, _LOW_WATER):
                return
            self._drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._drained)

    def end(self, trailers=None):
        """End the response after what is queued, with ``trailers`` if given."""
        self._check_open()
        if self._no_body and not self._ended:
            self._ended = True
            return
        if trailers is None:
            self._table.connection.end_stream(self.stream_id)
        else:
            self._table.connection.send_trailers(self.stream_id, trailers)
        self._sent_all()

    def resume(self):
        """Ask a body callable again that has said ``DATA_DEFERRED``.

        It does nothing at any other time.
        """
        if self._is_open():
            self._table.connection.resume_body(self.stream_id)
            self._mark_dirty()

    def reset(self, error_code=ErrorCode.CANCEL):
        """End the stream by RST_STREAM; what is queued on it is dropped."""
        if self._is_open():
            self._table.connection.reset_stream(self.stream_id, error_code)
            self._mark_dirty()

    @property
    def push_enabled(self):
        """Whether the client takes pushes, and this stream can promise them."""
        return (
            self._is_open()
            and not self.pushed
            and self._table.connection.push_enabled
        )

    def push(
        self,
        path,
        method="GET",
        request_headers=None,
        status=200,
        headers=None,
        body=None,
    ):
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
        return self._table.push(
            self, path, method, request_headers, status, headers, body
        )

    # ---- Between the handler and its connection ----

    cdef bint _is_open(self) noexcept:
        # A handler that a program makes by itself has no table.
        return self._table is not None and not self._closed

    cdef int _check_open(self) except -1:
        if not self._is_open():
            raise StreamClosedError(
                f"stream {self.stream_id} is closed", self.stream_id
            )
        return 0

    cdef int _begin(self, status, headers, bint whole) except -1:
        self._check_open()
        if self.status is not None:
            raise StreamStateError(
                f"stream {self.stream_id}: a response was sent already"
            )
        # RFC 9110, 9.3.2, 15.3.5, 15.3.6 and 15.4.5.
        cdef bint no_body = (
            self._request.method == b"HEAD"
            or status == 304 or status == 204 or status == 205
        )
        self._table.connection.respond(
            self.stream_id, status, () if headers is None else headers,
            whole or no_body,
        )
        self._no_body = no_body
        self.status = status
        return 0

    cdef int _sent_all(self) except -1:
        if not self._request_done:
            # Goes out after the response, and only if the request has not
            # ended by then.
            self._table.connection.stop_request(self.stream_id)
        self._mark_dirty()
        return 0

    cdef int _mark_dirty(self) except -1:
        # What is sent while events are handed out is written after them.
        if not self._table.dispatching:
            self.http2.mark_dirty()
        return 0

    cdef int _wake(self, error) except -1:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            if error is None:
                drained.set_result(None)
            else:
                drained.set_exception(error)
                drained.exception()  # nobody may be waiting any more
        return 0


cdef int check_body(body) except -1:
    """Refuse before anything is sent what cannot be a body."""
    if not (
        isinstance(body, (Iterable, AsyncIterable))
        or PyObject_CheckBuffer(body)
        or callable(getattr(body, "read", None))
        or callable(body)
    ):
        raise TypeError(
            "a body must be None, str, bytes-like, a binary file, an iterable or "
            f"asynchronous iterable of bytes, or a callable, not {type(body).__name__}"
        )
    return 0


cdef class HandlerTable:
    """The handlers of a connection's open streams, and what calls them.

    It is apart from ``HandlerProtocol`` because it is what costs time for each
    request.
    """

    cdef object protocol             # the HandlerProtocol
    cdef H2Connection connection
    cdef object handler_class
    cdef dict handlers               # stream identifier -> handler
    cdef bint dispatching            # what is queued now is written after it
    cdef bint _usual                 # its instances are made as usual
    cdef bint _plain                 # and need no call of __init__()

    def __cinit__(self, protocol, H2Connection connection not None, handler_class):
        self.protocol = protocol
        self.connection = connection
        self.handler_class = handler_class
        self.handlers = {}
        self._usual = (
            type(handler_class).__call__ is type.__call__
            and handler_class.__new__ is BaseRequestHandler.__new__
        )
        self._plain = (
            self._usual and handler_class.__init__ is BaseRequestHandler.__init__
        )

    cdef int dispatch(self, list events) except -1:
        cdef type kind

        self.dispatching = True
        try:
            for event in events:
                kind = type(event)
                if kind is H2RequestReceived:
                    self._request_received(
                        (<H2RequestReceived>event).stream_id,
                        (<H2RequestReceived>event).request,
                    )
                elif kind is H2BodyReceived:
                    self._body_received(
                        (<H2BodyReceived>event).stream_id,
                        (<H2BodyReceived>event).body,
                    )
                elif kind is H2StreamClosed:
                    self._stream_closed(<H2StreamClosed>event)
                elif kind is H2TrailersReceived:
                    self._trailers_received(<H2TrailersReceived>event)
                elif kind is H2WebSocketRequest:
                    self._request_received(
                        (<H2WebSocketRequest>event).stream_id,
                        (<H2WebSocketRequest>event).request,
                    )
                elif kind is H2BodyDrained:
                    self._body_drained((<H2BodyDrained>event).stream_id)
                elif kind is H2BodyFailed:
                    logger.error(
                        "%r: the body of stream %d failed",
                        self.protocol,
                        (<H2BodyFailed>event).stream_id,
                        exc_info=(<H2BodyFailed>event).exception,
                    )
        finally:
            self.dispatching = False
        return 0

    cdef BaseRequestHandler _new_handler(
        self, stream_id, RequestReceived request, bint pushed
    ):
        cdef BaseRequestHandler handler

        if self._usual:
            handler = <BaseRequestHandler>new_instance(self.handler_class)
            # Before its constructor runs, which may send already.
            self._adopt(handler, stream_id, request, pushed)
            if not self._plain:
                handler.__init__(self.protocol, stream_id)
        else:
            handler = self.handler_class(self.protocol, stream_id)
            self._adopt(handler, stream_id, request, pushed)
        return handler

    cdef int _adopt(
        self,
        BaseRequestHandler handler,
        stream_id,
        RequestReceived request,
        bint pushed,
    ) except -1:
        handler.http2 = self.protocol
        handler.stream_id = stream_id
        handler._table = self
        handler._request = request
        handler.method = request.method
        handler.path = request.target
        handler.scheme = request.scheme
        if pushed:
            handler.pushed = True
            handler._request_done = True
        if stream_id != -1:
            self.handlers[stream_id] = handler
        return 0

    cdef int _request_received(self, stream_id, RequestReceived request) except -1:
        cdef BaseRequestHandler handler

        try:
            handler = self._new_handler(stream_id, request, False)
        except FAILURES:
            handler = self.handlers.get(stream_id)
            if handler is None:
                handler = BaseRequestHandler(self.protocol, stream_id)
                self._adopt(handler, stream_id, request, False)
            handler._unmade = True
            self._failed(handler)
            return 0
        try:
            handler.on_headers()
        except FAILURES:
            self._failed(handler)
        return 0

    cdef int _body_received(self, stream_id, BodyReceived body) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(stream_id)
        cdef bytes data = body.data

        if handler is None:
            return 0
        try:
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
        except FAILURES:
            self._failed(handler)
        return 0

    cdef int _trailers_received(self, H2TrailersReceived event) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(event.stream_id)

        if handler is not None and not handler._failed:
            try:
                handler.on_trailers(list(event.headers))
            except FAILURES:
                self._failed(handler)
        return 0

    cdef int _body_drained(self, stream_id) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(stream_id)

        if handler is not None:
            handler._wake(None)
        return 0

    cdef int _failed(self, BaseRequestHandler handler) except -1:
        """Log the exception in hand and end the handler's stream."""
        logger.exception(
            "%r: %r %r on stream %d failed",
            self.protocol,
            handler.method,
            handler.path,
            handler.stream_id,
        )
        handler._failed = True
        if handler.status is None:
            try:
                # Not the subclass's own method, which may have failed.
                BaseRequestHandler.send_response(handler, 500)
                return 0
            except NGHTTP2Error:
                pass  # the stream is closed, or a lost instance has answered
        BaseRequestHandler.reset(handler, ErrorCode.INTERNAL_ERROR)
        return 0

    cdef int _stream_closed(self, H2StreamClosed event) except -1:
        cdef BaseRequestHandler handler = self.handlers.pop(event.stream_id, None)

        if handler is not None:
            self._close(handler, event.error_code, event.body_bytes_sent)
        return 0

    cdef int _close(self, BaseRequestHandler handler, error_code, size) except -1:
        handler._closed = True
        if handler._body is not None:
            handler._body.close()
        if handler._drained is not None:
            handler._wake(
                StreamClosedError(
                    f"stream {handler.stream_id} was closed", handler.stream_id
                )
            )
        # A refused push was never on the wire.
        if handler.stream_id != -1 and log_enabled(logging.INFO):
            try:
                log_request(handler, size)
            except Exception:
                logger.exception("%r: the access log failed", self.protocol)
        if handler._unmade:
            return 0
        try:
            handler.on_close(error_code)
        except FAILURES:
            logger.exception(
                "%r: on_close() of stream %d failed", self.protocol, handler.stream_id
            )
        return 0

    cdef BaseRequestHandler push(
        self,
        BaseRequestHandler parent,
        path,
        method,
        request_headers,
        status,
        headers,
        body,
    ):
        """See ``BaseRequestHandler.push``."""
        cdef RequestReceived request = parent._request
        cdef FieldList given = FieldList()
        cdef BaseRequestHandler handler
        cdef int32_t stream_id = -1

        given.extend((
            (b":method", method),
            (b":scheme", request.scheme or b"https"),
            (b":authority", parent.host or b""),
            (b":path", path),
        ))
        if request_headers is not None:
            given.extend(request_headers)
        # As who receives the promise is told them.
        fields = [
            NeverIndexed(*pair[:2]) if len(pair) == 3 and pair[2] else pair[:2]
            for pair in given._pairs
        ]
        try:
            stream_id = self.connection.push_stream(parent.stream_id, fields)
        except PushDisabledError:
            pass
        try:
            handler = self._new_handler(
                stream_id,
                RequestReceived(
                    fields[0][1],
                    fields[3][1],
                    fields[4:],
                    scheme=fields[1][1],
                    authority=fields[2][1],
                    fields=fields,
                ),
                True,
            )
        except BaseException:
            if stream_id != -1:
                # The promise is made, and nobody is there to keep it.
                handler = self.handlers.get(stream_id)
                if handler is not None:
                    handler._unmade = True
                self.connection.reset_stream(stream_id, ErrorCode.INTERNAL_ERROR)
                parent._mark_dirty()
            raise
        if stream_id == -1:
            self._close(handler, ErrorCode.REFUSED_STREAM, 0)
            return handler
        try:
            handler.send_response(status, headers, body)
        except BaseException:
            # The promise is made already.
            handler.reset(ErrorCode.INTERNAL_ERROR)
            raise
        return handler


cdef object new_instance(handler_class):
    """What ``object.__new__`` does: no Python code runs."""
    cdef tuple args = ()

    return (<PyTypeObject *>handler_class).tp_new(
        <type>handler_class, <PyObject *>args, NULL
    )


class HandlerProtocol(H2Pump):
    """One connection of a server: makes a handler for each request.

    ``opened`` and ``closed`` are called with it when it is connected, and when
    it is not any more.
    """

    def __init__(
        self,
        handler_class,
        config,
        opened,
        closed,
        *,
        settings_timeout,
        idle_timeout,
    ):
        super().__init__(
            H2Connection(client_side=False, config=config),
            settings_timeout=settings_timeout,
            idle_timeout=idle_timeout,
        )
        self._table = HandlerTable(self, self.connection, handler_class)
        self._opened = opened
        self._closed = closed
        self.client_address = None

    def connection_made(self, transport):
        self.client_address = transport.get_extra_info("peername")
        # Kept, so that handlers can ask when the transport is gone.
        self._extra_info = transport.get_extra_info
        super().connection_made(transport)
        self._opened(self)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._closed(self)

    def events_received(self, events):
        (<HandlerTable>self._table).dispatch(events)

    @property
    def handlers(self):
        """The handlers of the open streams, by stream identifier."""
        return (<HandlerTable>self._table).handlers

    @property
    def client_certificate(self):
        """The client's certificate as a dict, or None."""
        return self._extra_info("peercert") or None


# ---- Access log ----

cdef object log_enabled = access_logger.isEnabledFor


cdef int log_request(BaseRequestHandler handler, size) except -1:
    cdef RequestReceived request = handler._request

    log_access(
        "HTTP/2",
        handler._table.protocol.client_address,
        request.method,
        request.target,
        handler.status,
        size,
    )
    return 0


def log_access(version, address, bytes method, bytes target, status, size):
    """Log a request of any version in the common format."""
    now = time.localtime()
    access_logger.info(
        '%s - - [%s] "%s %s %s" %s %s',
        address[0] if isinstance(address, tuple) else "-",
        time.strftime(f"%d/{MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z", now),
        printable(method),
        printable(target),
        version,
        "-" if status is None else status,
        size or "-",
    )


cdef str printable(bytes value):
    """Escape what would break a line of the log."""
    return value.decode("ascii", "backslashreplace").replace('"', "\\x22")
