# cython: nonecheck=True
"""Requests as objects: the handler of a stream, and the factory that makes it."""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject, PyTypeObject

from nghttp2py.exchange cimport (
    FATAL,
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    answer_failure,
    content_length,
    expects_continue,
    has_content,
)
from nghttp2py.h2.events cimport RequestReceived

import asyncio
import inspect
import json
import logging
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping

from nghttp2py.asyncio.body import AsyncBody, is_asynchronous
from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.exchange import register_factory
from nghttp2py.errors import (
    BodyFormatError,
    BodyTooLargeError,
    ConnectionClosedError,
    ErrorCode,
    NGHTTP2Error,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.log_budget import MemoryLog
from nghttp2py.query import Query

__all__ = ["BaseRequestHandler", "HandlerFactory"]

logger = logging.getLogger(__name__)
memory_log = MemoryLog(logger)

# ``drain`` returns when fewer bytes than this are queued on the stream: enough to keep
# the socket busy until more comes.
_LOW_WATER = 65536

# The stages of a request, each with a callback, which may return a coroutine.
cdef enum Stage:
    ON_HEADERS
    ON_REQUEST
    ON_DATA
    ON_TRAILERS
    ON_REQUEST_DONE
    ON_CLOSING
    ON_CLOSE

cdef tuple NAMES = (
    "on_headers",
    "on_request",
    "on_data",
    "on_trailers",
    "on_request_done",
    "on_closing",
    "on_close",
)


cdef class BaseRequestHandler(Exchange):
    """Handles one stream: one request and its response.

    A subclass overrides the ``on_`` methods, which are called in the order
    ``on_headers``, ``on_data`` for each piece of the body, ``on_trailers`` if there are
    any, ``on_request_done``, ``on_close``.  If one of them raises, the traceback is
    logged, and the client gets 500 if no response was begun, otherwise RST_STREAM with
    INTERNAL_ERROR; other streams go on.  An exception of ``nghttp2py.errors`` that only
    says that the client has ended the stream is logged at DEBUG, without a traceback.

    A callback may be a coroutine function (``async def``).  It runs as a task; the next
    callback of the stream is called when it has returned, and the client gets no credit
    for data that wait for that.  If the stream breaks off or the connection ends, the
    task is cancelled; ``on_close`` is called when it has ended, and is never cancelled.
    A server that closes waits for the tasks, at most ``close_timeout`` seconds.

    The methods may be called from the callbacks of this or any other stream and at any
    later time in the server's event loop.  Header lists are iterables of (name, value)
    pairs, or mappings; names and values are bytes or str, which is sent as UTF-8.  If
    misused, the methods raise exceptions of ``nghttp2py.errors``: ``StreamStateError``
    for a second response, ``StreamClosedError`` once the stream is closed,
    ``HeadersError`` for what must not be in a header, ``InvalidBodyLengthError`` for a
    body that does not fit its content-length.

    Instance variables: ``http2``, the connection, which all its handlers share;
    ``stream_id``, which is -1 for a push that the client does not take; ``method``,
    ``path`` and ``scheme``, the bytes of these pseudo-header fields (for a CONNECT that
    has no path, ``path`` is ``:authority`` and ``scheme`` is None); ``status``, that of
    the response that was sent, or None; ``pushed``, whether ``push`` has made the
    stream.
    """

    # The connection's protocol, shared by all its handlers.
    cdef public object http2
    cdef public object method
    cdef public object path
    cdef public object scheme
    # Whether ``push`` has made the stream.
    cdef public bint pushed

    cdef list _headers           # made when it is first read
    cdef object _body            # an AsyncBody, to be closed with the stream
    cdef object _drained         # the future of drain()
    cdef object _host            # what the program has assigned to it
    cdef object _query           # made when it is first read
    cdef object _task            # runs the coroutine of a callback
    # A deque of what its callbacks wait for: pieces of the body, a tuple of trailer
    # fields, and None for the end.
    cdef object _waiting
    cdef Py_ssize_t _taken       # octets of the first piece that read() has taken
    cdef Py_ssize_t _credited    # octets that wait first, with credit given
    cdef object _reader          # the future of read()
    cdef object _refusal         # what read() or json() raised because of the request
    cdef object _stopping        # the future of wait_closing()
    cdef object _close_code      # the argument of on_close(), which waits for the task
    cdef object _error           # what its constructor raised
    cdef size_t _withheld        # bytes given to on_data() without credit
    cdef bint _request_waits     # on_request() is still to be called
    cdef bint _paused            # pause_reading() was called
    cdef bint _continued         # 100 (Continue) was sent, or is not needed
    cdef bint _request_done
    cdef bint _cut_short         # we have declined the rest of the request
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
    # Octets of a body that read() returns at once.
    max_body_size = 1048576

    def __init__(self, http2, stream_id):
        self.http2 = http2
        self.stream_id = stream_id
        http = getattr(http2, "http", None)
        if isinstance(http, HTTPConnection):
            # Set here, so that a subclass's constructor may send already.
            self.http = http

    # ---- What a subclass overrides ----

    def on_headers(self):
        """Called when the request's header section has come."""

    async def on_request(self):
        """Answer the request: a subclass may define it instead of the others.

        It runs as a task after ``on_headers``, unless that has begun the response.  It
        reads the body by ``read`` or ``json``, and has to begin the response: otherwise
        the client gets 500.  The part of the body that it has not read is given to
        ``on_data``.
        """

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

        Several cookie fields are joined into one, the last field (RFC 9113, 8.2.3).
        """
        if self._headers is None and self.request is not None:
            self._headers = list(self.request.fields)
        return self._headers

    @headers.setter
    def headers(self, value):
        self._headers = value

    @property
    def host(self):
        """The value of ``:authority`` or, without it, of ``host``.

        A request in which they differ is refused (RFC 9113, 8.3.1).
        """
        if self._host is not None or self.request is None:
            return self._host
        host = self.request.authority
        if host is None:
            host = dict(self.request.fields).get(b"host")
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
        """The client's certificate, in the form of ``ssl.SSLSocket.getpeercert``."""
        return self.http2.client_certificate

    def pause_reading(self):
        """Hold the request's body back: call no callback until ``resume_reading``.

        The client gets no credit for the last piece, nor for what comes then.  It can
        send as much as the stream's window holds (``initial_window_size`` of
        ``config``), which is kept here.  ``on_close`` is called nevertheless.  A no-op
        on a closed stream.
        """
        if self._is_open():
            self._paused = True
            if self._waiting is None:
                self._waiting = deque()

    def resume_reading(self):
        """Go on after ``pause_reading``; otherwise a no-op.

        The callbacks get what was kept in a later turn of the event loop.
        """
        if self._paused:
            self._paused = False
            asyncio.get_running_loop().call_soon(Resumption(self))

    @property
    def is_closing(self):
        """Whether the server is stopping, or the stream is closed already."""
        return self._closed or self.http is None or self.http2.is_closing

    async def wait_closing(self):
        """Wait until ``is_closing`` is true."""
        if not self.is_closing:
            if self._stopping is None:
                self._stopping = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._stopping)

    @property
    def query(self):
        """The query of ``path``, a ``Query``: a dict of str, with ``get_all``."""
        if self._query is None and self.request is not None:
            self._query = Query(self.request.target)
        return self._query

    @query.setter
    def query(self, value):
        self._query = value

    async def read(self, Py_ssize_t n=-1):
        """Read up to ``n`` octets of the body; with -1, to its end.

        Return ``b""`` at the end.  This is for coroutines of callbacks, such as
        ``on_request``: it takes what is kept until the callback has returned, and the
        client gets credit for that.  Elsewhere call ``pause_reading`` before the body
        comes.

        Raises ``BodyTooLargeError`` for a whole body of more than ``max_body_size``
        octets, to which the client gets 413 if it is not caught, and
        ``StreamClosedError`` if the stream breaks off.
        """
        cdef list pieces = []
        cdef Py_ssize_t size = 0
        cdef bytes piece

        if n == 0:
            return b""
        while True:
            if self._task is None and not self._paused and not self._closed:
                raise StreamStateError(
                    f"stream {self.stream_id}: read() is for coroutines of callbacks; "
                    "elsewhere call pause_reading() before the body comes"
                )
            try:
                piece = self._take(n)
                if piece is None:
                    if n < 0:
                        self._check_size(content_length(self.request))
                    self._continue_now()
                    if self._reader is None:
                        self._reader = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._reader)
                    continue
                if n > 0:
                    return piece
                if not piece:
                    count_bytes(size)
                    return b"".join(pieces)
                pieces.append(piece)
                size += len(piece)
                self._check_size(size)
            except BaseException:
                self._give_back(pieces, size)
                raise

    async def json(self):
        """Read the body to its end, and decode it as JSON (RFC 8259).

        Raises ``BodyFormatError``, a ``ValueError``, if it is not JSON, to which the
        client gets 400 if it is not caught; and as ``read``.
        """
        body = await self.read()
        try:
            return json.loads(body, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            self._refusal = BodyFormatError(f"the body is not JSON: {error}")
            raise self._refusal from error

    cdef int _check_size(self, size) except -1:
        if size > self.max_body_size:
            self._refusal = BodyTooLargeError(
                f"the body is larger than {self.max_body_size} bytes"
            )
            raise self._refusal
        return 0

    cdef bytes _take(self, Py_ssize_t n):
        """Remove and return waiting octets, up to ``n`` if positive; None if none wait.

        ``b""`` means the end of the body.
        """
        cdef bytes piece

        if self._waiting:
            if type(self._waiting[0]) is not bytes:
                return b""  # trailers and the end are for callbacks
            piece = self._waiting[0]
            if 0 < n < len(piece) - self._taken:
                piece = piece[self._taken : self._taken + n]
                self._taken += n
            else:
                piece = self._pop()
            if not self._closed:
                self.http.acknowledge(self, self._take_debt(len(piece)))
            return piece
        if self._request_done:
            return b""
        if self._closed or self._cut_short or self._is_over():
            raise StreamClosedError(
                f"stream {self.stream_id} was closed before its body was whole",
                self.stream_id,
            )
        return None

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

        ``body`` is ``None``, str (sent as UTF-8), bytes-like, a binary file (also one
        whose ``read`` is a coroutine function), an iterable or asynchronous iterable of
        bytes, or a callable ``f(n) -> (data, flag)`` that returns at most ``n`` bytes
        and ``DATA_OK``, ``DATA_EOF`` with the last of them, or ``DATA_DEFERRED`` with
        none until ``resume`` is called.  All but str and bytes are read as fast as the
        client reads; a file is not closed.  An exception of theirs is logged, and
        resets the stream.  Responses to HEAD and those with the status 204, 205 or 304
        have no body, and ``body`` is not touched.

        If the request is not complete, the client is asked to stop sending it (RFC
        9113, 8.1).  For an accepted CONNECT only our half ends.
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
            self.http.queue_body(self, body, True)
            return 0
        if is_asynchronous(body):
            body = self._body = AsyncBody(body, self.resume)
        self.http.send_body(self, b"" if body is None else body, trailers)
        return 0

    def send_informational(self, status, headers=None):
        """Send a 1xx response, before the final one (RFC 9110, 15.2).

        ``status`` is from 100 to 199, but not 101.
        """
        self._check_open()
        status = to_status(status)
        self.http.send_informational(self, status, () if headers is None else headers)
        if status == 100:
            self._continued = True

    def send_headers(self, status=200, headers=None):
        """Begin a response whose body follows by ``send_data`` and ``end``."""
        self._begin(status, headers, False)
        if self._no_body:
            self._sent_all()

    def send_data(self, data):
        """Queue a piece of the body after ``send_headers``.

        Raises ``BodyQueueFullError`` if more than ``config.max_body_queue`` bytes would
        be queued: ``await drain()`` between the pieces.
        """
        self._check_open()
        if isinstance(data, str):
            data = data.encode()
        if self._no_body and not self._ended:
            return
        self.http.queue_body(self, data, False)

    async def drain(self):
        """Wait until few of the queued bytes are left.

        Raises ``StreamClosedError`` if the stream is closed before.
        """
        self._check_open()
        if self._no_body:
            return
        if self._drained is None:
            if self.http.notify_writable(self, _LOW_WATER):
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
            self.http.end(self)
        else:
            self.http.send_trailers(self, trailers)
        self._ended = True
        self._sent_all()

    def resume(self):
        """Ask a body callable again that has returned ``DATA_DEFERRED``.

        At any other time this is a no-op.
        """
        if self._is_open():
            self.http.resume_body(self)

    def reset(self, error_code=ErrorCode.CANCEL):
        """End the stream by RST_STREAM; what is queued on it is dropped."""
        if self._is_open():
            self.http.reset(self, error_code)
            self._reset = True

    @property
    def push_enabled(self):
        """Whether the client accepts pushes, and this stream can promise them."""
        return (
            self._is_open()
            and not self.pushed
            and self.http.push_enabled()
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

        If the client accepts no pushes, nothing is sent, and the handler returned is
        closed already with REFUSED_STREAM; its ``on_close`` was called.
        """
        cdef HandlerFactory factory
        cdef BaseRequestHandler handler
        cdef RequestReceived request

        self._check_open()
        if self.pushed:
            raise StreamStateError(
                f"stream {self.stream_id}: a pushed stream promises no others"
            )
        if isinstance(request_headers, Mapping):
            request_headers = request_headers.items()
        stream_id, request = self.http.push(
            self,
            [
                (b":method", method),
                (b":scheme", self.request.scheme or b"https"),
                (b":authority", self.host or b""),
                (b":path", path),
                *(() if request_headers is None else request_headers),
            ],
        )
        factory = <HandlerFactory?>self.http.factory
        handler = factory.make(self.http, stream_id, request, True)
        if stream_id == -1:
            if handler._error is not None:
                raise handler._error
            handler.closed(None, ErrorCode.REFUSED_STREAM, 0)
            return handler
        self.http.adopt(handler)
        try:
            if handler._error is not None:
                raise handler._error
            handler.send_response(status, headers, body)
        except BaseException:
            # PUSH_PROMISE was sent, and no response will follow it.
            BaseRequestHandler.reset(handler, ErrorCode.INTERNAL_ERROR)
            raise
        return handler

    # ---- Between the handler and its connection ----

    cdef bint _is_open(self) noexcept:
        # A handler that a program makes by itself has no connection.
        return self.http is not None and not self._closed

    cdef int _check_open(self) except -1:
        if not self._is_open():
            raise StreamClosedError(
                f"stream {self.stream_id} is closed", self.stream_id
            )
        return 0

    cdef int _begin(self, status, headers, bint whole) except -1:
        cdef bint no_body

        self._check_open()
        if self.status is not None:
            raise StreamStateError(
                f"stream {self.stream_id}: a response was sent already"
            )
        if type(status) is not int:
            status = to_status(status)
        no_body = not has_content(self.request.method, status)
        self.http.send_response(
            self, status, () if headers is None else headers, whole or no_body
        )
        self._no_body = no_body
        return 0

    cdef int _sent_all(self) except -1:
        if not self._request_done:
            self.http.stop_request(self)
        return 0

    cdef int _wake(self, error) except -1:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            if error is None:
                drained.set_result(None)
            else:
                drained.set_exception(error)
                drained.exception()  # mark it retrieved: drain() may be cancelled
        return 0

    # ---- What the connection calls ----

    cdef request_received(self, RequestReceived request):
        if self._error is not None:
            error, self._error = self._error, None
            self._fail(error)
            return
        self._call(ON_HEADERS)
        if self._task is None and self.status is None:
            self._call(ON_REQUEST)

    cdef data_received(self, bytes data):
        if self._waiting is not None and not self._is_over():
            self._wait(data)
        else:
            self._give_data(data)

    cdef trailers_received(self, tuple fields):
        if self._waiting is not None and not self._is_over():
            self._wait(fields)
        else:
            self._give_trailers(fields)

    cdef end_received(self):
        if self._waiting is not None and not self._is_over():
            self._wait(None)
        else:
            self._give_end()

    cdef writable(self):
        self._wake(None)

    cdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        if not outgoing and self._ended:
            # The client sends no more of a request that is answered already.
            self._cut_short = True
            self._wake_reader()
            return
        if not (incoming and outgoing):
            # A handler cannot use half a stream.
            self.http.reset(self, error_code)
        self._reset = True
        self._wake_reader()

    cdef closing(self):
        wake(self._stopping)
        if self._closed or self._is_over() or self.pushed:
            return
        self._call(ON_CLOSING)

    cdef closed(self, failure, error_code, body_bytes_sent):
        if error_code == 0 and failure is not None:
            # The client reset it with NO_ERROR before its end.
            error_code = ErrorCode.CANCEL
        self._closed = True
        self._close_code = error_code
        if self._body is not None:
            # Break the reference cycle: otherwise the garbage collector would have to
            # find it.
            body, self._body = self._body, None
            body.close()
        if self._drained is not None:
            self._wake(
                StreamClosedError(f"stream {self.stream_id} was closed", self.stream_id)
            )
        wake(self._stopping)
        self._wake_reader()
        if self._task is None:
            self._call_on_close()
        elif error_code != 0:
            # on_close() is called when the task has ended.
            self._task.cancel()
            self._waiting.clear()

    # ---- Callbacks ----

    cdef int _call(self, Stage stage, argument=None) except -1:
        """Call the callback of a stage; what it raises ends the stream."""
        try:
            if stage == ON_HEADERS:
                result = self.on_headers()
            elif stage == ON_REQUEST:
                return self._begin_request()
            elif stage == ON_DATA:
                result = self.on_data(argument)
            elif stage == ON_TRAILERS:
                result = self.on_trailers(argument)
            elif stage == ON_REQUEST_DONE:
                result = self.on_request_done()
            elif stage == ON_CLOSING:
                result = self.on_closing()
            else:
                result = self.on_close(argument)
            if result is None:
                return 0
            if stage == ON_CLOSING or stage == ON_CLOSE:
                # It runs beside the coroutine, which it may have to end.
                self._start(result, stage)
            else:
                self._await(result, stage)
        except FATAL:
            raise
        except BaseException as error:
            self._fail(error)
        return 0

    cdef int _wait(self, item) except -1:
        """Keep what came for the next callback, or for read()."""
        self._waiting.append(item)
        return self._wake_reader()

    cdef object _pop(self):
        """Remove and return what has waited longest, without the octets that read() has
        taken."""
        item = self._waiting.popleft()
        if self._taken:
            item = item[self._taken :]
            self._taken = 0
        return item

    cdef int _give_back(self, list pieces, Py_ssize_t size) except -1:
        """Have octets wait again that a read() has taken which did not return."""
        if pieces and self._waiting is not None:
            if self._taken:
                self._waiting.appendleft(self._pop())
            self._waiting.extendleft(reversed(pieces))
            self._credited += size
        return 0

    cdef Py_ssize_t _take_debt(self, Py_ssize_t n) noexcept:
        """Return for how many of the first ``n`` octets the client has no credit."""
        cdef Py_ssize_t credited = min(n, self._credited)

        self._credited -= credited
        return n - credited

    cdef int _wake_reader(self) except -1:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            wake(reader)
        return 0

    cdef int _begin_request(self) except -1:
        """Call on_request(), if the subclass defines it; otherwise ask for the body."""
        if self._is_over() or self._closed:
            return 0
        if type(self).on_request is NO_REQUEST:
            return self._continue()
        if self._paused:
            self._request_waits = True
            return 0
        self._await(self.on_request(), ON_REQUEST)
        if self._task is None:
            self._request_returned()
        return 0

    cdef int _request_returned(self) except -1:
        if self.status is None and not self._is_over() and not self._closed:
            self._fail(RuntimeError("on_request() has returned without a response"))
        return 0

    cdef bint _is_over(self) noexcept:
        """Return whether only on_close may be called."""
        return self._failed or self._reset

    cdef int _give_data(self, bytes data) except -1:
        self._withheld += self._take_debt(len(data))
        if not self._is_over():
            self._call(ON_DATA, data)
        return self._acknowledge()

    cdef int _give_trailers(self, tuple fields) except -1:
        return 0 if self._is_over() else self._call(ON_TRAILERS, list(fields))

    cdef int _give_end(self) except -1:
        self._request_done = True
        return 0 if self._is_over() else self._call(ON_REQUEST_DONE)

    cdef int _acknowledge(self) except -1:
        """Give credit for what on_data() has consumed."""
        cdef size_t n = self._withheld

        if n and self._task is None and not self._paused:
            self._withheld = 0
            # The credit of a closed stream went back to the connection's window.
            if not self._closed:
                self.http.acknowledge(self, n)
        return 0

    cdef int _continue(self) except -1:
        """Send 100 (Continue) to a client that waits for it (RFC 9110, 10.1.1)."""
        return 0 if self._paused else self._continue_now()

    cdef int _continue_now(self) except -1:
        if self._continued or self._failed or self.status is not None:
            return 0
        if expects_continue(self.request):
            self._continued = True
            if self.auto_continue and self._is_open():
                self.http.send_continue(self)
        return 0

    cdef int _call_on_close(self) except -1:
        self._waiting = None
        self._refusal = None  # its traceback refers to this object
        return 0 if self._unmade else self._call(ON_CLOSE, self._close_code)

    # ---- Coroutines of callbacks ----

    cdef int _await(self, result, Stage stage) except -1:
        """Make the callbacks wait for the coroutine that one has returned."""
        task = self._start(result, stage)
        if task is not None:
            if self._waiting is None:
                self._waiting = deque()
            self._task = task
        return 0

    cdef object _start(self, result, Stage stage):
        """Run the coroutine that a callback has returned.

        Other return values of callbacks are ignored, as they always were.
        """
        if not inspect.isawaitable(result):
            if inspect.isasyncgen(result) or inspect.isgenerator(result):
                raise TypeError(
                    f"{NAMES[stage]}() is a generator function, of which nothing was "
                    "run: it must be a function or a coroutine function"
                )
            return None
        return self.http.tasks.start(
            result, CoroutineEnd(self, stage), cleanup=stage == ON_CLOSE
        )

    cdef int _coroutine_ended(self, task, Stage stage) except -1:
        """Handle what has waited for a callback's coroutine."""
        if task.cancelled():
            error = asyncio.CancelledError("the coroutine of a callback was cancelled")
        else:
            error = task.exception()
        if stage == ON_CLOSING or stage == ON_CLOSE:
            if error is not None and not task.cancelled():
                self._fail(error)
            return 0
        self._task = None
        if error is not None:
            if not isinstance(error, FATAL):  # which the loop has raised already
                self._fail(error)
        elif stage == ON_HEADERS and self.status is None:
            self._call(ON_REQUEST)
        elif stage == ON_REQUEST:
            self._request_returned()
        self._acknowledge()
        return self._advance()

    cdef int _resume(self) except -1:
        """Handle what has waited for ``resume_reading``."""
        if self._paused or self._closed:
            return 0
        if self._request_waits:
            self._request_waits = False
            self._call(ON_REQUEST)
        elif self._task is None and self.status is None:
            self._continue()
        self._acknowledge()
        return self._advance()

    cdef int _advance(self) except -1:
        """Call the callbacks that have waited, until one has to wait again."""
        while self._task is None and not self._paused:
            if self._is_over() or not self._waiting:
                break
            item = self._pop()
            if item is None:
                self._give_end()
            elif type(item) is tuple:
                self._give_trailers(item)
            else:
                self._give_data(item)
        if self._task is None and (not self._paused or self._closed):
            while self._waiting and not self._closed:
                # The body is dropped, but the client needs the credit.
                item = self._pop()
                if type(item) is bytes:
                    self._give_data(item)
                elif item is None:
                    self._give_end()
            self._waiting = None
            if self._close_code is not None:
                self._call_on_close()
        return 0

    # ---- Failures ----

    cdef bint _is_of_the_peer(self, error) except -1:
        """Return whether an exception only says that the client has ended a stream."""
        if not isinstance(
            error, (StreamClosedError, ConnectionClosedError, asyncio.CancelledError)
        ):
            return False
        if self.http.tasks.lost and isinstance(error, asyncio.CancelledError):
            return True
        if self._closed:
            return self._close_code != 0
        if self._reset or not self.http.is_open(self):
            return True
        # It is a mistake of the handler, unless it concerns another request's stream.
        # StreamResetError and ConnectionTerminatedError come from another connection,
        # on which the handler is a client.
        if type(error) is StreamClosedError:
            return error.stream_id != self.stream_id
        return type(error) is ConnectionClosedError

    cdef int _fail(self, error) except -1:
        """Log an exception and end the handler's stream."""
        if error is self._refusal:
            return self._refuse(error)
        if self._is_of_the_peer(error):
            logger.debug(
                "%r: %r %r on stream %d: %s",
                self.http2,
                self.method,
                self.path,
                self.stream_id,
                error,
            )
        else:
            memory_log.failed(
                error,
                "%r: %r %r on stream %d failed",
                self.http2,
                self.method,
                self.path,
                self.stream_id,
            )
        self._failed = True
        self._wake_reader()
        if not self._closed:
            answer_failure(self)
        return 0

    cdef int _refuse(self, error) except -1:
        """Answer a request whose body read() or json() has refused."""
        cdef bytes text = f"{error}\n".encode()

        logger.debug(
            "%r: %r %r on stream %d: %s",
            self.http2,
            self.method,
            self.path,
            self.stream_id,
            error,
        )
        self._failed = True
        self._wake_reader()
        if self._closed:
            return 0
        if self.status is None:
            try:
                # Do not call the subclass's method, which may expect other arguments.
                BaseRequestHandler.send_response(
                    self,
                    413 if isinstance(error, BodyTooLargeError) else 400,
                    [
                        (b"content-type", b"text/plain; charset=utf-8"),
                        # curl 7.88 may miss the end of a response without it that
                        # comes before the end of an upload.
                        (b"content-length", b"%d" % len(text)),
                    ],
                    text,
                )
                return 0
            except NGHTTP2Error:
                pass  # the stream is closed
        BaseRequestHandler.reset(self, ErrorCode.INTERNAL_ERROR)
        return 0


cdef class CoroutineEnd:
    """Handle the end of the task that has run the coroutine of a callback."""

    cdef BaseRequestHandler handler
    cdef Stage stage

    def __cinit__(self, BaseRequestHandler handler not None, Stage stage):
        self.handler = handler
        self.stage = stage

    def __call__(self, task):
        self.handler._coroutine_ended(task, self.stage)


cdef class Resumption:
    """Resume in the turn of the loop after ``resume_reading``."""

    cdef BaseRequestHandler handler

    def __cinit__(self, BaseRequestHandler handler not None):
        self.handler = handler

    def __call__(self):
        self.handler._resume()


cdef class HandlerFactory(ExchangeFactory):
    """Makes the handlers of requests.

    ``handler_class`` is a subclass of ``BaseRequestHandler``, or a callable that
    makes an instance of one from the connection's owner and the stream's
    identifier.
    """

    cdef object handler_class
    cdef bint _usual  # its instances are made by object.__new__
    cdef bint _plain  # its __init__() need not be called

    def __init__(self, handler_class):
        self.handler_class = handler_class
        self._usual = (
            isinstance(handler_class, type)
            and issubclass(handler_class, BaseRequestHandler)
            and type(handler_class).__call__ is type.__call__
            and handler_class.__new__ is BaseRequestHandler.__new__
        )
        self._plain = (
            self._usual and handler_class.__init__ is BaseRequestHandler.__init__
        )

    cdef Exchange new_exchange(
        self, HTTPConnection http, stream_id, RequestReceived request
    ):
        return self.make(http, stream_id, request, False)

    cdef BaseRequestHandler make(
        self, HTTPConnection http, stream_id, RequestReceived request, bint pushed
    ):
        """Make a handler; keep what its constructor raises in ``_error``."""
        cdef BaseRequestHandler handler = None

        try:
            if self._usual:
                handler = <BaseRequestHandler>new_instance(self.handler_class)
                # Set before the constructor runs, which may send already.
                self._adopt(handler, http, stream_id, request, pushed)
                if not self._plain:
                    handler.__init__(http.owner, stream_id)
            else:
                handler = self.handler_class(http.owner, stream_id)
                self._adopt(handler, http, stream_id, request, pushed)
        except FATAL:
            raise
        except BaseException as error:
            if handler is None:
                handler = BaseRequestHandler(http.owner, stream_id)
                self._adopt(handler, http, stream_id, request, pushed)
            handler._unmade = True
            handler._error = error
        return handler

    cdef int _adopt(
        self,
        BaseRequestHandler handler,
        HTTPConnection http,
        stream_id,
        RequestReceived request,
        bint pushed,
    ) except -1:
        handler.http2 = http.owner
        handler.stream_id = stream_id
        handler.http = http
        handler.request = request
        handler.method = request.method
        handler.path = request.target
        handler.scheme = request.scheme
        if pushed:
            handler.pushed = True
            handler._request_done = True
        return 0


register_factory(BaseRequestHandler, HandlerFactory)


cdef object new_instance(handler_class):
    """Do what ``object.__new__`` does: no Python code runs."""
    cdef tuple args = ()

    return (<PyTypeObject *>handler_class).tp_new(
        <type>handler_class, <PyObject *>args, NULL
    )


cdef object NO_REQUEST = BaseRequestHandler.on_request


def refuse_constant(name):
    """Refuse NaN and Infinity, which Python's decoder accepts and JSON has not."""
    raise ValueError(f"{name} is no value of JSON")


cdef int wake(future) except -1:
    if future is not None and not future.done():
        future.set_result(None)
    return 0


cdef object to_status(status):
    """Convert a status of digits (``"200"``), which old programs pass."""
    if isinstance(status, (str, bytes)) and len(status) == 3 and status.isdigit():
        return int(status)
    return status


cdef int check_body(body) except -1:
    """Raise ``TypeError`` for what cannot be a body, before anything is sent."""
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
