# cython: nonecheck=True
"""HTTP/2's half of exchanges: from an H2Connection's events to their methods."""

from libc.stdint cimport int32_t

from nghttp2py.exchange cimport (
    FATAL,
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    exchange_failed,
    log_access,
    log_wanted,
    now,
)
from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.convert cimport FieldList, as_bytes
from nghttp2py.h2.events cimport (
    BodyReceived,
    H2BodyDrained,
    H2BodyFailed,
    H2BodyReceived,
    H2ConnectionClosed,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    H2WindowUpdated,
    RequestReceived,
)

import logging
from collections.abc import Mapping
from functools import partial

from nghttp2py.asyncio.fields import add_field
from nghttp2py.asyncio.memory import count_body
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.errors import (
    ConnectionClosedError,
    ConnectionTerminatedError,
    ErrorCode,
    NoAvailableStreamIDError,
    PushDisabledError,
    StreamResetError,
)
from nghttp2py.h2.events import H2InformationalResponseReceived
from nghttp2py.hpack import NeverIndexed
from nghttp2py.log_budget import MemoryLog

logger = logging.getLogger(__name__)
memory_log = MemoryLog(logger)

# Seconds that cancelled coroutines have to end, whatever is left of the close timeout.
cdef double LEAST_PATIENCE = 1.0


cdef object find_status(list pairs):
    """Return the status of a final response's header section, None of another one.

    It is the only pseudo-header field, and so the first field, where it is valid.
    """
    if not pairs or not isinstance(pairs[0], (tuple, list)) or len(pairs[0]) < 2:
        return None
    name, value = pairs[0][:2]
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if name != ":status" or not isinstance(value, str) or not value.isdecimal():
        return None
    status = int(value)
    return None if status < 200 else status


cdef class HTTP2Exchanges(HTTPConnection):
    """The exchanges of an HTTP/2 connection's open streams, and what calls them.

    ``owner`` is the ``H2Pump``; ``factory`` makes the exchanges of a server's
    requests; ``others`` is called with each event that concerns no exchange.
    It is apart from the pump because it is what costs time for each request.
    """

    def __init__(
        self,
        owner,
        H2Connection connection not None,
        ExchangeFactory factory=None,
        *,
        others=None,
    ):
        HTTPConnection.__init__(
            self, "HTTP/2", connection.client_side, owner, factory
        )
        self.connection = connection
        self.exchanges = {}
        self.blocked = set()
        self._others = others
        self._extra = {}
        self.tasks = CallbackTasks()

    # ---- What the pump calls ----

    def connected(self, transport):
        """Note what is asked of the transport when it is gone.

        The values: a method of the transport would keep it, and its buffers, in a
        cycle.
        """
        for name in ("peername", "peercert"):
            self._extra[name] = transport.get_extra_info(name)

    def disconnected(self):
        """Let go of the owner: the collector would have to find the two.

        Events that are being dispatched still need it.
        """
        if not self._dispatching:
            self.owner = None

    def begin_closing(self):
        """Tell the exchanges that the server is stopping."""
        cdef Exchange exchange

        self._closing = True
        for exchange in list(self.exchanges.values()):
            try:
                exchange.closing()
            except FATAL:
                raise
            except BaseException as error:
                self._fail(exchange, error)

    cdef int dispatch(self, list events) except -1:
        """Give each event to its exchange.

        What an exchange raises is logged and ends it; the others get theirs.
        """
        cdef Py_ssize_t n = len(events)
        cdef Py_ssize_t i = 0

        self._now = now()
        self._logs = -1
        if n and type(events[n - 1]) is H2ConnectionClosed:
            # Streams are closed before it, and because of it.
            self._end = events[n - 1]
        self._dispatching = True
        try:
            while i < n:
                try:
                    while i < n:
                        i += 1
                        self._dispatch_one(events[i - 1])
                except FATAL:
                    raise
                except BaseException as error:
                    self._fail_event(events[i - 1], error)
        finally:
            self._dispatching = False
        return 0

    cdef int _fail_event(self, event, error) except -1:
        """Log what was raised for an event, and end its exchange."""
        cdef Exchange exchange = self.exchanges.get(getattr(event, "stream_id", None))

        if exchange is not None:
            self._fail(exchange, error)
        else:
            memory_log.failed(error, "%r: %r failed", self.owner, event)
        return 0

    cdef int _fail(self, Exchange exchange, error) except -1:
        """End an exchange whose application failed: none but closed() is called."""
        self.exchanges[exchange.stream_id] = exchange_failed(exchange, error)
        return 0

    cdef int _dispatch_one(self, event) except -1:
        cdef type kind = type(event)
        cdef Exchange exchange
        cdef BodyReceived body

        if kind is H2RequestReceived:
            self._receive_request(
                (<H2RequestReceived>event).stream_id,
                (<H2RequestReceived>event).request,
            )
        elif kind is H2BodyReceived:
            exchange = self.exchanges.get((<H2BodyReceived>event).stream_id)
            if exchange is not None:
                body = (<H2BodyReceived>event).body
                if body.data:
                    exchange.data_received(body.data)
                if not body.more:
                    exchange.end_received()
        elif kind is H2StreamClosed:
            self._close_stream(<H2StreamClosed>event)
        elif kind is H2ResponseReceived:
            exchange = self.exchanges.get((<H2ResponseReceived>event).stream_id)
            if exchange is not None:
                exchange.response_received(
                    (<H2ResponseReceived>event).status,
                    (<H2ResponseReceived>event).headers,
                )
        elif kind is H2TrailersReceived:
            exchange = self.exchanges.get((<H2TrailersReceived>event).stream_id)
            if exchange is not None:
                exchange.trailers_received((<H2TrailersReceived>event).headers)
        elif kind is H2WebSocketRequest:
            self._receive_request(
                (<H2WebSocketRequest>event).stream_id,
                (<H2WebSocketRequest>event).request,
            )
        elif kind is H2BodyDrained:
            exchange = self.exchanges.get((<H2BodyDrained>event).stream_id)
            if exchange is not None:
                exchange.writable()
        elif kind is H2WindowUpdated:
            if self.blocked:
                self._receive_window((<H2WindowUpdated>event).stream_id)
        elif kind is H2InformationalResponseReceived:
            exchange = self.exchanges.get(event.stream_id)
            if exchange is not None:
                exchange.informational_received(event.status, event.headers)
        elif kind is H2StreamReset:
            self._receive_reset(<H2StreamReset>event)
        elif kind is H2BodyFailed:
            self._fail_body(
                (<H2BodyFailed>event).stream_id, (<H2BodyFailed>event).exception
            )
        elif self._others is not None:
            self._others(event)
        return 0

    cdef int _receive_request(self, stream_id, RequestReceived request) except -1:
        cdef Exchange exchange

        try:
            exchange = self.factory.new_exchange(self, stream_id, request)
        except FATAL:
            raise
        except BaseException as error:
            return self._fail_request(stream_id, request, error)
        exchange.started = self._now
        self.exchanges[stream_id] = exchange
        exchange.request_received(request)
        if self._closing:
            exchange.closing()
        return 0

    cdef int _fail_request(
        self, stream_id, RequestReceived request, error
    ) except -1:
        """Answer a request for which there is no exchange."""
        cdef Exchange exchange = Exchange()

        exchange.http = self
        exchange.stream_id = stream_id
        exchange.request = request
        exchange.started = self._now
        self.exchanges[stream_id] = exchange
        exchange_failed(exchange, error)
        return 0

    cdef int _receive_reset(self, H2StreamReset event) except -1:
        cdef Exchange exchange = self.exchanges.get(event.stream_id)

        if exchange is None:
            return 0
        failure = partial(
            StreamResetError,
            event.stream_id,
            event.error_code,
            remote=event.remote,
            unprocessed=event.unprocessed,
            reason=event.reason,
        )
        if self._failures is None:
            self._failures = {}
        self._failures[event.stream_id] = failure
        exchange.aborted(failure, event.error_code, True, True)
        return 0

    cdef int _fail_body(self, stream_id, error) except -1:
        """Log what a source raised; the stream is being reset."""
        cdef Exchange exchange = self.exchanges.get(stream_id)

        memory_log.failed(
            error, "%r: the body of stream %d failed", self.owner, stream_id
        )
        if exchange is not None:
            exchange.aborted(
                partial(
                    StreamResetError,
                    stream_id,
                    ErrorCode.INTERNAL_ERROR,
                    remote=False,
                    reason="the source of the body failed",
                ),
                ErrorCode.INTERNAL_ERROR,
                True,
                True,
            )
        return 0

    cdef int _receive_window(self, stream_id) except -1:
        """Wake the exchanges for which ``room`` had too little."""
        cdef Exchange exchange

        if stream_id != 0:
            if stream_id not in self.blocked:
                return 0
            self.blocked.discard(stream_id)
            exchange = self.exchanges.get(stream_id)
            if exchange is not None:
                exchange.writable()
            return 0
        blocked = list(self.blocked)
        self.blocked.clear()
        for stream_id in blocked:
            exchange = self.exchanges.get(stream_id)
            if exchange is not None:
                try:
                    exchange.writable()
                except FATAL:
                    raise
                except BaseException as error:
                    self._fail(exchange, error)
        return 0

    cdef int _close_stream(self, H2StreamClosed event) except -1:
        cdef Exchange exchange = self.exchanges.pop(event.stream_id, None)

        if exchange is None:
            return 0
        error_code = event.error_code
        failure = None
        if not event.complete:
            # NO_ERROR of our own reset is no good end, either.
            error_code = error_code or ErrorCode.CANCEL
            failure = self._find_failure(event.stream_id, error_code)
        elif self._failures:
            self._failures.pop(event.stream_id, None)
        self.blocked.discard(event.stream_id)
        if self._logs < 0:
            # Once for all that this batch closes: logging asks in Python code.
            self._logs = not self.client_side and log_wanted()
        if self._logs:
            log_access(exchange, error_code, event.body_bytes_sent, failure is None)
        exchange.closed(failure, error_code, event.body_bytes_sent)
        return 0

    cdef object _find_failure(self, stream_id, error_code):
        """Return what makes the exception for a stream that broke off."""
        cdef H2ConnectionClosed end = self._end

        if self._failures:
            failure = self._failures.pop(stream_id, None)
            if failure is not None:
                return failure
        if end is not None:
            return partial(
                ConnectionTerminatedError,
                end.error_code,
                remote=end.remote,
                reason=end.reason,
            )
        return partial(StreamResetError, stream_id, error_code, remote=False)

    # ---- Messages ----

    cpdef send_response(self, Exchange exchange, status, fields, bint end):
        """See ``HTTPConnection``."""
        if self.alt_svc is not None:
            fields = add_field(fields, b"alt-svc", self.alt_svc)
        self.connection.respond(exchange.stream_id, status, fields, end)
        exchange.status = status
        self.flush_soon()

    cpdef send_fields(self, Exchange exchange, fields, bint end):
        """See ``HTTPConnection``; a client's exchange gets its ``stream_id``."""
        pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
        status = None
        if exchange.status is None and not self.client_side:
            status = find_status(pairs)
            if self.alt_svc is not None and status is not None:
                pairs = add_field(pairs, b"alt-svc", self.alt_svc)
        stream_id = self.connection.send_headers(exchange.stream_id, pairs, end)
        if exchange.stream_id is None:
            exchange.stream_id = stream_id
            self.adopt(exchange)
        elif status is not None:
            exchange.status = status
        self.flush_soon()

    cpdef send_informational(self, Exchange exchange, status, fields):
        """See ``HTTPConnection``."""
        self.connection.send_informational(exchange.stream_id, status, fields)
        self.flush_soon()

    cpdef send_continue(self, Exchange exchange):
        """See ``HTTPConnection``."""
        if self.is_open(exchange) and not self.connection.stream_ended(
            exchange.stream_id
        ):
            self.send_informational(exchange, 100, ())

    cpdef send_trailers(self, Exchange exchange, fields):
        """See ``HTTPConnection``."""
        self.connection.send_trailers(exchange.stream_id, fields)
        self.flush_soon()

    # ---- Bodies ----

    cpdef queue_body(self, Exchange exchange, data, bint end):
        """See ``HTTPConnection``."""
        cdef bytes piece = as_bytes(data)

        count_body(len(piece))
        self.connection.queue_body(exchange.stream_id, piece, end)
        self.flush_soon()

    cpdef send_body(self, Exchange exchange, body, trailers):
        """See ``HTTPConnection``."""
        self.connection.send_body(exchange.stream_id, body, trailers=trailers)
        self.flush_soon()

    cpdef resume_body(self, Exchange exchange):
        """See ``HTTPConnection``."""
        self.connection.resume_body(exchange.stream_id)
        self.flush_soon()

    cpdef queued(self, Exchange exchange):
        """See ``HTTPConnection``."""
        return self.connection.queued_body(exchange.stream_id)

    cpdef room(self, Exchange exchange, wanted, bint ahead):
        """See ``HTTPConnection``: the queue is sent as credit comes."""
        if ahead:
            bound = self.connection.config.max_body_queue
            left = bound - self.connection.queued_body(exchange.stream_id)
            if left <= 0:
                self.connection.notify_drained(exchange.stream_id, bound // 2)
            return max(0, min(wanted, left))
        window = self.connection.local_flow_control_window(exchange.stream_id)
        if window < wanted:
            self.blocked.add(exchange.stream_id)
        return min(wanted, window)

    cpdef notify_writable(self, Exchange exchange, low):
        """See ``HTTPConnection``."""
        return self.connection.notify_drained(exchange.stream_id, low)

    cpdef acknowledge(self, Exchange exchange, n):
        """See ``HTTPConnection``."""
        self.connection.acknowledge(exchange.stream_id, n)
        self.flush_soon()

    # ---- The end of an exchange ----

    cpdef reset(self, Exchange exchange, error_code):
        """See ``HTTPConnection``."""
        self.connection.reset_stream(exchange.stream_id, error_code)
        self.flush_soon()

    cpdef stop_request(self, Exchange exchange, error_code=None):
        """See ``HTTPConnection``; HTTP/2 has no other code for it than NO_ERROR."""
        self.connection.stop_request(exchange.stream_id)
        self.flush_soon()

    cpdef is_open(self, Exchange exchange):
        """See ``HTTPConnection``."""
        return self.connection.is_open(exchange.stream_id)

    # ---- What not every protocol has ----

    cpdef push_enabled(self):
        """See ``HTTPConnection``: a server whose peer allows it."""
        return self.connection.push_enabled

    cpdef push(self, Exchange exchange, fields):
        """See ``HTTPConnection`` (RFC 9113, 8.4)."""
        cdef FieldList given = FieldList()
        cdef RequestReceived request
        cdef int32_t stream_id = -1

        given.extend(fields)
        # In the form in which the client gets them.
        pairs = [
            NeverIndexed(*pair[:2]) if len(pair) == 3 and pair[2] else pair[:2]
            for pair in given._pairs
        ]
        pseudo = {name: value for name, value, *_ in pairs if name[:1] == b":"}
        request = RequestReceived(
            pseudo.get(b":method"),
            pseudo.get(b":path"),
            [pair for pair in pairs if pair[0][:1] != b":"],
            scheme=pseudo.get(b":scheme"),
            authority=pseudo.get(b":authority"),
            fields=pairs,
        )
        try:
            stream_id = self.connection.push_stream(exchange.stream_id, pairs)
        except (
            PushDisabledError,
            ConnectionClosedError,  # the client has sent GOAWAY
            NoAvailableStreamIDError,
        ):
            pass
        self.flush_soon()
        return stream_id, request

    cpdef adopt(self, Exchange exchange):
        """See ``HTTPConnection``."""
        exchange.started = now()
        self.exchanges[exchange.stream_id] = exchange

    cpdef set_priority(self, Exchange exchange, urgency, incremental):
        """See ``HTTPConnection``."""
        self.connection.set_priority(
            exchange.stream_id, urgency, incremental, override=True
        )
        self.flush_soon()

    # ---- The connection ----

    cpdef get_extra_info(self, name, default=None):
        """See ``HTTPConnection``."""
        value = self._extra.get(name)
        if value is None and self.owner is not None:
            transport = self.owner.transport
            if transport is not None:
                return transport.get_extra_info(name, default)
        return default if value is None else value

    cpdef flush_soon(self):
        """See ``HTTPConnection``: while events are dispatched, after them."""
        if not self._dispatching and self.owner is not None:
            self.owner.mark_dirty()


class HTTP2Protocol(H2Pump):
    """One connection of a server, whose requests become exchanges of ``factory``.

    ``opened`` and ``closed`` are called with it when it is connected, and when
    it is not any more.
    """

    def __init__(self, factory, config, opened, closed, *, timeouts=None):
        connection = H2Connection(client_side=False, config=config)
        super().__init__(connection, timeouts=timeouts)
        #: The ``HTTP2Exchanges``.
        self.http = HTTP2Exchanges(self, connection, factory)
        self._opened = opened
        self._closed = closed
        #: The client's address and its certificate as a dict, or None.
        self.client_address = None
        self.client_certificate = None

    def connection_made(self, transport):
        http = self.http
        http.connected(transport)
        self.client_address = http.get_extra_info("peername")
        self.client_certificate = http.get_extra_info("peercert") or None
        super().connection_made(transport)
        self._opened(self)

    def connection_lost(self, exc):
        tasks = self.http.tasks
        try:
            super().connection_lost(exc)
        finally:
            self.http.disconnected()
            tasks.connection_lost(partial(self._closed, self))
            if self._closing:
                self._release_after(self._close_due - self._loop.time())

    def _release_after(self, timeout):
        self.http.tasks.release_after(
            max(min(timeout, self._timeouts.close), LEAST_PATIENCE)
        )

    def close(self, timeout=None):
        was_closing = self.is_closing
        super().close(timeout)
        if self.http.tasks.lost:
            self._release_after(self._timeouts.close if timeout is None else timeout)
        elif not was_closing:
            self.http.begin_closing()

    def abort(self):
        super().abort()
        self._close_due = 0
        self.http.tasks.release()

    def events_received(self, events):
        (<HTTP2Exchanges>self.http).dispatch(events)

    def _open_stream_ids(self):
        return [number for number in self.http.exchanges if number % 2]
