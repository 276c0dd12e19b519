"""Requests as objects: the handler of a stream, and what calls it."""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.events cimport (
    BodyReceived,
    H2BodyDrained,
    H2BodyFailed,
    H2BodyReceived,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    RequestReceived,
)
from nghttp2py.h2.convert cimport FieldList

import asyncio
import functools
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterable, Iterable

from nghttp2py import access
from nghttp2py.asyncio.body import AsyncBody, is_asynchronous
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    NGHTTP2Error,
    NoAvailableStreamIDError,
    PushDisabledError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2.body import FAILURE, FAILURE_FIELDS, has_content
from nghttp2py.hpack import NeverIndexed

__all__ = ["BaseRequestHandler", "HandlerProtocol"]

logger = logging.getLogger(__name__)
cdef object log_enabled = access.logger.isEnabledFor
cdef list access_hooks = access.hooks

# Bytes below which a stream's queue falls before ``drain`` returns: enough to
# keep the socket busy until more comes.
_LOW_WATER = 65536

# What ends the program.  All else that a program's code raises for one stream,
# such as a GeneratorExit or the CancelledError of a future, is no reason to end
# the other streams.
cdef tuple FATAL = (KeyboardInterrupt, SystemExit)

# Seconds that cancelled coroutines have to end, whatever is left of the close timeout.
cdef double LEAST_PATIENCE = 1.0

cdef BodyReceived END_OF_BODY = BodyReceived(b"", False)

# What a callback was called for, if it has returned a coroutine.
cdef enum Stage:
    ON_HEADERS
    ON_DATA
    ON_TRAILERS
    ON_REQUEST_DONE
    ON_CLOSING

cdef tuple NAMES = (
    "on_headers", "on_data", "on_trailers", "on_request_done", "on_closing"
)


cdef class BaseRequestHandler:
    """Handles one stream: one request and its response.

    A subclass overrides the ``on_`` methods, which are called in the order
    ``on_headers``, ``on_data`` for each piece of the body, ``on_trailers`` if
    there are any, ``on_request_done``, ``on_close``.  If one of them raises,
    the traceback is logged, and the client gets 500 if no response was begun,
    else RST_STREAM with INTERNAL_ERROR; other streams go on.  An exception of
    ``nghttp2py.errors`` that only says that the client has ended the stream is
    logged at DEBUG, without a traceback.

    A callback may be a coroutine function (``async def``).  It runs as a task; the
    next callback of the stream waits until it has returned, and the client gets no
    credit for data that wait.  If the stream breaks off or the connection ends, the
    task is cancelled; ``on_close`` is called when it has ended, and is never cancelled.
    A server that closes waits for the tasks, at most ``close_timeout`` seconds.

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
    cdef object _host            # what the program has put in its place
    cdef object _task            # runs the coroutine of a callback
    cdef object _waiting         # a deque of what its callbacks still wait for
    cdef object _closing         # the future of wait_closing()
    cdef object _close_code      # of on_close(), which waits for the task
    cdef double _start           # when the request came, by the monotonic clock
    cdef size_t _withheld        # bytes given to on_data() without credit
    cdef bint _paused            # by pause_reading()
    cdef bint _continued         # 100 (Continue) was sent, or needs not be
    cdef bint _request_done
    cdef bint _closed
    cdef bint _failed            # a callback has raised: none but on_close is called
    cdef bint _reset             # likewise: the stream was reset by us or the client
    cdef bint _unmade            # its constructor has raised: nothing is called
    cdef bint _no_body           # what is sent of a body is dropped
    cdef bint _ended             # the whole response was sent, or queued
    cdef object __weakref__

    # Whether a request with "expect: 100-continue" gets 100 (Continue) when
    # on_headers() has returned without a final response.
    auto_continue = True

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

    def on_closing(self):
        """Called when the server begins to stop; see ``is_closing``.

        A response that has no end by itself should be ended now: otherwise it is
        broken off when the server's ``close_timeout`` has passed.
        """

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
        if self._host is not None or self._request is None:
            return self._host
        host = self._request.authority
        if host is None:
            host = dict(self._request.fields).get(b"host")
        return host

    @host.setter
    def host(self, value):
        self._host = value

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

    def pause_reading(self):
        """Hold the request's body back: no callback until ``resume_reading``.

        The client gets no credit for what it was given last, nor for what comes:
        it can send as much as the stream's window holds (``initial_window_size``
        of ``config``), which waits here.  ``on_close`` is called nevertheless.
        Does nothing on a closed stream.
        """
        if self._is_open():
            self._paused = True
            if self._waiting is None:
                self._waiting = deque()

    def resume_reading(self):
        """Go on after ``pause_reading``; else do nothing.

        What waits is given to the callbacks in a later turn of the event loop.
        """
        if self._paused:
            self._paused = False
            asyncio.get_running_loop().call_soon(self._table.resume_reading, self)

    @property
    def is_closing(self):
        """Whether the server is stopping, or the stream is closed already."""
        return self._closed or self._table is None or self.http2.is_closing

    async def wait_closing(self):
        """Wait until ``is_closing`` is true."""
        if not self.is_closing:
            if self._closing is None:
                self._closing = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._closing)

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

        ``body`` is ``None``, str (sent as UTF-8), bytes-like, a binary file
        (also one whose ``read`` is a coroutine function),
        an iterable or asynchronous iterable of bytes, or a callable
        ``f(n) -> (data, flag)`` that returns at most ``n`` bytes and
        ``DATA_OK``, ``DATA_EOF`` with the last of them, or ``DATA_DEFERRED``
        with none until ``resume`` is called.  All but str and bytes are read
        as the client takes them; a file is not closed.  What they raise is
        logged, and resets the stream.  Responses to HEAD and those with the
        status 204, 205 or 304 have no body, and ``body`` is not touched.

        If the request has not come whole, the client is told to stop sending
        it (RFC 9113, 8.1).  Of a CONNECT that was accepted only our half ends.
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
        if is_asynchronous(body):
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
        status = to_status(status)
        self._table.connection.send_informational(
            self.stream_id, status, () if headers is None else headers
        )
        if status == 100:
            self._continued = True
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
        self._ended = True
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
            self._reset = True
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
        if type(status) is not int:
            status = to_status(status)
        cdef bint no_body = not has_content(self._request.method, status)
        self._table.connection.respond(
            self.stream_id, status, () if headers is None else headers,
            whole or no_body,
        )
        self._no_body = no_body
        self.status = status
        return 0

    cdef int _sent_all(self) except -1:
        if not self._request_done and not self._is_tunnel():
            # Goes out after the response, and only if the request has not
            # ended by then.
            self._table.connection.stop_request(self.stream_id)
        self._mark_dirty()
        return 0

    cdef bint _is_tunnel(self) except -1:
        # Whose halves end each by itself (RFC 9113, 8.5).
        return self._request.method == b"CONNECT" and 200 <= self.status < 300

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


cdef int wake(future) except -1:
    if future is not None and not future.done():
        future.set_result(None)
    return 0


cdef object to_status(status):
    """Convert a status of digits (``"200"``), as programs of old have it."""
    if isinstance(status, (str, bytes)) and len(status) == 3 and status.isdigit():
        return int(status)
    return status


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


cdef double now() noexcept:
    cdef timespec time

    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cdef class HandlerTable:
    """The handlers of a connection's open streams, and what calls them.

    It is apart from ``HandlerProtocol`` because it is what costs time for each
    request.
    """

    cdef object protocol             # the HandlerProtocol, until it is lost
    cdef H2Connection connection
    cdef object handler_class
    cdef dict handlers               # stream identifier -> handler
    cdef object tasks                # CallbackTasks
    cdef bint dispatching            # what is queued now is written after it
    cdef double now                  # when that has begun
    cdef bint closing                # the server is stopping
    cdef bint _usual                 # its instances are made as usual
    cdef bint _plain                 # and need no call of __init__()

    def __cinit__(self, protocol, H2Connection connection not None, handler_class):
        self.protocol = protocol
        self.connection = connection
        self.handler_class = handler_class
        self.handlers = {}
        self.tasks = CallbackTasks()
        self._usual = (
            isinstance(handler_class, type)
            and issubclass(handler_class, BaseRequestHandler)
            and type(handler_class).__call__ is type.__call__
            and handler_class.__new__ is BaseRequestHandler.__new__
        )
        self._plain = (
            self._usual and handler_class.__init__ is BaseRequestHandler.__init__
        )

    cdef int dispatch(self, list events) except -1:
        cdef type kind

        self.now = now()
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
                    self._body_failed(<H2BodyFailed>event)
                elif kind is H2StreamReset:
                    self._stream_reset((<H2StreamReset>event).stream_id)
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
        handler._start = self.now
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
        except FATAL:
            raise
        except BaseException as error:
            handler = self.handlers.get(stream_id)
            if handler is None:
                handler = BaseRequestHandler(self.protocol, stream_id)
                self._adopt(handler, stream_id, request, False)
            handler._unmade = True
            self._failed(handler, error)
            return 0
        try:
            result = handler.on_headers()
            if result is not None:
                self._await(handler, result, ON_HEADERS)
            elif handler.status is None:
                self._continue(handler)
        except FATAL:
            raise
        except BaseException as error:
            self._failed(handler, error)
        if self.closing:
            self._tell_closing(handler)
        return 0

    cdef int _body_received(self, stream_id, BodyReceived body) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(stream_id)

        if handler is None:
            return 0
        if handler._waiting is not None and not (handler._failed or handler._reset):
            handler._waiting.append(body)
            return 0
        return self._give_body(handler, body)

    cdef int _give_body(self, BaseRequestHandler handler, BodyReceived body) except -1:
        cdef bytes data = body.data

        if not body.more:
            handler._request_done = True
        try:
            if data:
                handler._withheld += len(data)
                try:
                    if not (handler._failed or handler._reset):
                        result = handler.on_data(data)
                        if result is not None:
                            self._await(handler, result, ON_DATA)
                finally:
                    self._acknowledge(handler)
            if not body.more:
                if handler._task is not None or handler._paused:
                    handler._waiting.append(END_OF_BODY)
                elif not (handler._failed or handler._reset):
                    result = handler.on_request_done()
                    if result is not None:
                        self._await(handler, result, ON_REQUEST_DONE)
        except FATAL:
            raise
        except BaseException as error:
            self._failed(handler, error)
        return 0

    cdef int _acknowledge(self, BaseRequestHandler handler) except -1:
        """Give credit for what on_data() has done with."""
        cdef size_t n = handler._withheld

        if n and handler._task is None and not handler._paused:
            handler._withheld = 0
            # Of a closed stream it went back to the connection's window.
            if not handler._closed:
                self.connection.acknowledge_received_data(n, handler.stream_id)
                handler._mark_dirty()
        return 0

    cdef int _trailers_received(self, H2TrailersReceived event) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(event.stream_id)

        if handler is None or handler._failed or handler._reset:
            return 0
        if handler._waiting is not None:
            handler._waiting.append(event)
            return 0
        return self._give_trailers(handler, event)

    cdef int _give_trailers(
        self, BaseRequestHandler handler, H2TrailersReceived event
    ) except -1:
        try:
            result = handler.on_trailers(list(event.headers))
            if result is not None:
                self._await(handler, result, ON_TRAILERS)
        except FATAL:
            raise
        except BaseException as error:
            self._failed(handler, error)
        return 0

    cdef int _body_drained(self, stream_id) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(stream_id)

        if handler is not None:
            handler._wake(None)
        return 0

    cdef int _body_failed(self, H2BodyFailed event) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(event.stream_id)

        if handler is not None:
            handler._reset = True
        logger.error(
            "%r: the body of stream %d failed",
            self.protocol,
            event.stream_id,
            exc_info=event.exception,
        )
        return 0

    cdef int _stream_reset(self, stream_id) except -1:
        cdef BaseRequestHandler handler = self.handlers.get(stream_id)

        if handler is not None:
            handler._reset = True
        return 0

    cdef int _continue(self, BaseRequestHandler handler) except -1:
        """Ask for the body of a request that waits for it (RFC 9110, 10.1.1)."""
        if handler._continued or handler._paused or handler._failed:
            return 0
        for pair in handler._request.fields:
            if pair[0] == b"expect" and (<bytes>pair[1]).lower() == b"100-continue":
                break
        else:
            return 0
        handler._continued = True
        if (
            handler.auto_continue
            and handler._is_open()
            and not self.connection.stream_ended(handler.stream_id)
        ):
            BaseRequestHandler.send_informational(handler, 100)
        return 0

    # ---- Coroutines ----

    cdef int _await(self, BaseRequestHandler handler, result, Stage stage) except -1:
        """Run the coroutine that a callback has returned.

        What else callbacks return is ignored, as it always was.
        """
        if not inspect.isawaitable(result):
            if inspect.isasyncgen(result) or inspect.isgenerator(result):
                raise TypeError(
                    f"{NAMES[stage]}() is a generator function, of which nothing was "
                    "run: it must be a function or a coroutine function"
                )
            return 0
        if handler._waiting is None:
            handler._waiting = deque()
        handler._task = self.tasks.start(
            result, functools.partial(self.coroutine_ended, handler, <int>stage)
        )
        return 0

    def coroutine_ended(self, BaseRequestHandler handler not None, int stage, task):
        """Go on with what has waited for a callback's coroutine."""
        handler._task = None
        if task.cancelled():
            error = asyncio.CancelledError("the coroutine of a callback was cancelled")
        else:
            error = task.exception()
        if error is not None:
            if not isinstance(error, FATAL):  # which the loop has raised already
                self._failed(handler, error)
        elif stage == ON_HEADERS and handler.status is None:
            self._continue(handler)
        self._acknowledge(handler)
        self._advance(handler)

    def resume_reading(self, BaseRequestHandler handler not None):
        """Go on with what has waited for ``BaseRequestHandler.resume_reading``."""
        if handler._paused or handler._closed:
            return
        if handler._task is None and handler.status is None:
            self._continue(handler)
        self._acknowledge(handler)
        self._advance(handler)

    cdef int _advance(self, BaseRequestHandler handler) except -1:
        """Call the callbacks that have waited, as long as none waits again."""
        while handler._task is None and not handler._paused:
            if handler._failed or handler._reset or not handler._waiting:
                break
            event = handler._waiting.popleft()
            if isinstance(event, H2TrailersReceived):
                self._give_trailers(handler, event)
            else:
                self._give_body(handler, event)
        if handler._task is None and (not handler._paused or handler._closed):
            waiting, handler._waiting = handler._waiting, None
            if waiting and not handler._closed:
                # The body is not wanted any more; the client's credit is.
                for event in waiting:
                    if isinstance(event, BodyReceived):
                        self._give_body(handler, event)
            if handler._close_code is not None:
                self._call_on_close(handler)
        return 0

    # ---- The end ----

    def begin_closing(self):
        """Tell the handlers that the server is stopping."""
        self.closing = True
        for handler in list(self.handlers.values()):
            self._tell_closing(handler)

    cdef int _tell_closing(self, BaseRequestHandler handler) except -1:
        wake(handler._closing)
        if handler._closed or handler._failed or handler._reset or handler.pushed:
            return 0
        try:
            result = handler.on_closing()
            if result is not None and inspect.isawaitable(result):
                # It runs beside a coroutine that may be what it is to end.
                self.tasks.start(
                    result, functools.partial(self.closing_ended, handler)
                )
        except FATAL:
            raise
        except BaseException as error:
            self._failed(handler, error)
        return 0

    def closing_ended(self, BaseRequestHandler handler not None, task):
        """See to what a coroutine of ``on_closing`` has raised."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(handler, error)

    cdef bint _is_of_the_peer(self, BaseRequestHandler handler, error) except -1:
        """Whether an exception only says that the client has ended a stream."""
        if not isinstance(
            error, (StreamClosedError, ConnectionClosedError, asyncio.CancelledError)
        ):
            return False
        if self.tasks.lost and isinstance(error, asyncio.CancelledError):
            return True
        if handler._closed:
            return handler._close_code != 0
        if not self.connection.is_open(handler.stream_id):
            return True
        # The handler's own mistake, unless it is about another request's stream.
        # StreamResetError and ConnectionTerminatedError are of another connection,
        # on which the handler is a client.
        if type(error) is StreamClosedError:
            return error.stream_id != handler.stream_id
        return type(error) is ConnectionClosedError

    cdef int _failed(self, BaseRequestHandler handler, error) except -1:
        """Log an exception and end the handler's stream."""
        if self._is_of_the_peer(handler, error):
            logger.debug(
                "%r: %r %r on stream %d: %s",
                handler.http2,
                handler.method,
                handler.path,
                handler.stream_id,
                error,
            )
        else:
            logger.error(
                "%r: %r %r on stream %d failed",
                handler.http2,
                handler.method,
                handler.path,
                handler.stream_id,
                exc_info=error,
            )
        handler._failed = True
        if handler._closed:
            return 0
        if handler.status is None:
            try:
                # Not the subclass's own method, which may have failed.
                BaseRequestHandler.send_response(
                    handler, 500, FAILURE_FIELDS, FAILURE
                )
                return 0
            except NGHTTP2Error:
                pass  # the stream is closed, or a lost instance has answered
        BaseRequestHandler.reset(handler, ErrorCode.INTERNAL_ERROR)
        return 0

    cdef int _stream_closed(self, H2StreamClosed event) except -1:
        cdef BaseRequestHandler handler = self.handlers.pop(event.stream_id, None)

        if handler is not None:
            self._close(
                handler,
                # NO_ERROR of our own reset is no good end, either.
                event.error_code if event.error_code or event.complete
                else ErrorCode.CANCEL,
                event.body_bytes_sent,
            )
        return 0

    cdef int _close(self, BaseRequestHandler handler, error_code, size) except -1:
        if error_code == 0 and handler._reset:
            # By NO_ERROR, but not at its end.
            error_code = ErrorCode.CANCEL
        handler._closed = True
        handler._close_code = error_code
        if handler._body is not None:
            # The two refer to each other: the collector would have to find them.
            body, handler._body = handler._body, None
            body.close()
        if handler._drained is not None:
            handler._wake(
                StreamClosedError(
                    f"stream {handler.stream_id} was closed", handler.stream_id
                )
            )
        wake(handler._closing)
        # A refused push was never on the wire.
        if handler.stream_id != -1 and (log_enabled(logging.INFO) or access_hooks):
            self._log_access(handler, error_code, size)
        if handler._task is not None:
            if error_code != 0:
                handler._task.cancel()
                handler._waiting.clear()
            return 0  # until it has ended
        return self._call_on_close(handler)

    cdef int _log_access(
        self, BaseRequestHandler handler, error_code, size
    ) except -1:
        cdef RequestReceived request = handler._request

        try:
            access.log(
                access.Exchange(
                    "HTTP/2",
                    self.protocol.client_address,
                    request.method,
                    request.target,
                    handler.status,
                    size,
                    now() - handler._start,
                    error_code,
                    error_code == 0 and (handler._ended or handler._no_body),
                )
            )
        except Exception:
            logger.exception("%r: the access log failed", self.protocol)
        return 0

    cdef int _call_on_close(self, BaseRequestHandler handler) except -1:
        error_code = handler._close_code
        handler._waiting = None
        if handler._unmade:
            return 0
        try:
            result = handler.on_close(error_code)
            if result is not None and inspect.isawaitable(result):
                self.tasks.start(
                    result,
                    functools.partial(self.closing_ended, handler),
                    cleanup=True,
                )
        except FATAL:
            raise
        except BaseException as error:
            self._failed(handler, error)
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
        except (
            PushDisabledError,
            ConnectionClosedError,  # the client has sent GOAWAY
            NoAvailableStreamIDError,
        ):
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
        timeouts=None,
    ):
        super().__init__(
            H2Connection(client_side=False, config=config), timeouts=timeouts
        )
        self._table = HandlerTable(self, self.connection, handler_class)
        self._opened = opened
        self._closed = closed
        self.client_address = None
        # As a dict.
        self.client_certificate = None

    def connection_made(self, transport):
        self.client_address = transport.get_extra_info("peername")
        # The value, so that handlers can ask when the transport is gone; a method
        # of the transport would keep it, and its buffers, in a cycle.
        self.client_certificate = transport.get_extra_info("peercert") or None
        super().connection_made(transport)
        self._opened(self)

    def connection_lost(self, exc):
        cdef HandlerTable table = self._table

        try:
            super().connection_lost(exc)
        finally:
            # The two refer to each other: the collector would have to find them.
            # Events that are being handed out still need it.
            if not table.dispatching:
                table.protocol = None
            table.tasks.connection_lost(functools.partial(self._closed, self))
            if self._closing:
                self._release_after(self._close_due - self._loop.time())

    def _release_after(self, timeout):
        (<HandlerTable>self._table).tasks.release_after(
            max(min(timeout, self._timeouts.close), LEAST_PATIENCE)
        )

    def close(self, timeout=None):
        was_closing = self.is_closing
        super().close(timeout)
        if (<HandlerTable>self._table).tasks.lost:
            self._release_after(self._timeouts.close if timeout is None else timeout)
        elif not was_closing:
            self._table.begin_closing()

    def abort(self):
        super().abort()
        self._close_due = 0
        (<HandlerTable>self._table).tasks.release()

    def events_received(self, events):
        (<HandlerTable>self._table).dispatch(events)

    def _open_stream_ids(self):
        return [number for number in self.handlers if number % 2]

    @property
    def handlers(self):
        """The handlers of the open streams, by stream identifier."""
        return (<HandlerTable>self._table).handlers
