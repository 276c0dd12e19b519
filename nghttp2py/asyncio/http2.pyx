# cython: nonecheck=True
"""HTTP/2's half of exchanges: from an H2Connection's records to their methods."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t

from nghttp2py cimport cngp as lib
from nghttp2py.exchange cimport (
    FATAL,
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    exchange_failed,
    keep_response_fields,
    log_access,
    log_wanted,
    make_record,
    make_unmade,
    now,
)
from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.convert cimport (
    EventReader,
    FieldList,
    as_bytes,
    borrow_fields,
    copy_data,
    take_text,
)
from nghttp2py.h2.events cimport RequestReceived

import logging
import weakref
from collections import deque
from collections.abc import Mapping
from functools import partial

from nghttp2py.asyncio import memory
from nghttp2py.asyncio.fields import add_field
from nghttp2py.asyncio.memory import count_bytes
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
from nghttp2py.h2.convert import make_request
from nghttp2py.hpack import NeverIndexed
from nghttp2py.log_budget import MemoryLog

logger = logging.getLogger(__name__)
memory_log = MemoryLog(logger)
cdef object weakref_to = weakref.ref

# A smaller piece of a body was counted with what was read.
cdef Py_ssize_t COUNTED = memory.LEAST


cdef object read_status(bytes value):
    """Return a status that the C library has accepted: three digits."""
    cdef const unsigned char *digits = value

    if len(value) != 3:
        return int(value)
    return (digits[0] - 48) * 100 + (digits[1] - 48) * 10 + digits[2] - 48


cdef object find_status(list pairs):
    """Return the status of a final response's header section, or None.

    In a valid one ``:status`` is the only pseudo-header field, so the first field.
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


cdef extern from "ngp_h2.h":
    enum:
        NGP_H2_EVENT_REQUEST
        NGP_H2_EVENT_RESPONSE
        NGP_H2_EVENT_INFORMATIONAL
        NGP_H2_EVENT_TRAILERS
        NGP_H2_EVENT_PUSH_PROMISE
        NGP_H2_EVENT_DATA
        NGP_H2_EVENT_STREAM_RESET
        NGP_H2_EVENT_STREAM_CLOSED
        NGP_H2_EVENT_WINDOW_UPDATE
        NGP_H2_EVENT_CONNECTION_CLOSED
        NGP_H2_EVENT_BODY_DRAINED


cdef class _ExchangeReader(EventReader):
    """Calls exchanges for what C has recorded: no events are made for it.

    What concerns no exchange becomes an event.
    """

    cdef int take(self, lib.ngp_h2 *h2, list events) except -1:
        cdef size_t n = 0

        lib.ngp_h2_events(h2, &n)
        if n == 0 or self.called is not None:
            # One that is called may call what takes records: its caller takes them.
            return 0
        self.called = self.exchanges()
        if self.called is None:
            return EventReader.take(self, h2, events)
        try:
            self.called.begin(h2)
            EventReader.take(self, h2, events)
        finally:
            try:
                self.called.run_postponed()
            finally:
                self.called, exchanges = None, self.called
                (<HTTP2Exchanges>exchanges).finish(self.receiving)
        return 0

    cdef int take_event(self, const lib.ngp_h2_event *e, list events) except -1:
        if self.called is None:
            return EventReader.take_event(self, e, events)
        try:
            if not self.called.dispatch(self, e):
                EventReader.take_event(self, e, events)
        except FATAL:
            raise
        except BaseException as error:
            self.called.fail_called(error)
        return 0

    cdef int body_failed(self, stream_id, error, list events) except -1:
        cdef HTTP2Exchanges exchanges = self.exchanges()

        if exchanges is None:
            return EventReader.body_failed(self, stream_id, error, events)
        return exchanges.fail_body(stream_id, error)


cdef class HTTP2Exchanges(HTTPConnection):
    """The exchanges of an HTTP/2 connection's open streams, and what calls them.

    ``owner`` is the ``H2Pump``; ``factory`` makes the exchanges of a server's
    requests.  While this object lives, the ``connection`` calls exchanges where it
    would give events, of which those are left that concern no exchange.
    It is apart from the pump because it is what costs time for each request.

    An exchange is kept until its stream is closed, but for one that was lent to its
    user (``lend``): that is given up with the user's last reference.
    """

    def __init__(
        self, owner, H2Connection connection not None, ExchangeFactory factory=None
    ):
        cdef _ExchangeReader reader

        HTTPConnection.__init__(
            self, "HTTP/2", connection.client_side, owner, factory
        )
        self.connection = connection
        self.exchanges = {}
        self.blocked = set()
        self.tasks = CallbackTasks()
        reader = connection.read_by(_ExchangeReader)
        reader.exchanges = weakref.ref(self)  # a cycle would outlive them

    # ---- What the pump calls ----

    def disconnected(self):
        """Drop the reference to the owner, which refers to this object.

        Exchanges that are being called still need it.
        """
        cdef Exchange exchange

        if self.factory is not None:
            self.factory.connection_lost()
        if self.dispatching:
            return
        for exchange in self.get_exchanges():
            # The records of their end were lost for want of memory.
            del self.exchanges[exchange.stream_id]
            exchange.closed(
                partial(
                    ConnectionTerminatedError, ErrorCode.INTERNAL_ERROR, remote=False
                ),
                ErrorCode.INTERNAL_ERROR,
                0,
            )
        self.owner = None

    def begin_closing(self):
        """Report to the exchanges that the server is stopping."""
        cdef Exchange exchange

        self._closing = True
        for exchange in list(self.exchanges.values()):
            try:
                exchange.closing()
            except FATAL:
                raise
            except BaseException as error:
                self._fail(exchange, error)

    # ---- Which exchanges there are ----

    cdef Exchange find_called(self, int32_t stream_id):
        """Return the exchange of a stream of which something was recorded, or None.

        Most often that before was of the same stream.
        """
        if stream_id != self._found_id:
            self._found = self.find(stream_id)
            self._found_id = stream_id
        return self._found

    cdef Exchange find(self, stream_id):
        """Return the exchange of a stream, or None."""
        cdef Exchange exchange = self.exchanges.get(stream_id)

        if exchange is None and self._lent is not None:
            reference = self._lent.get(stream_id)
            if reference is not None:
                exchange = reference()
        return exchange

    def get_exchange(self, stream_id):
        """Return the exchange of an open stream, or None."""
        return self.find(stream_id)

    def get_exchanges(self):
        """Return all exchanges, as a list."""
        exchanges = list(self.exchanges.values())
        for reference in list((self._lent or {}).values()):
            exchange = reference()
            if exchange is not None:
                exchanges.append(exchange)
        return exchanges

    def open_streams(self):
        """Return the identifiers of the streams that are open, as a list."""
        return [*self.exchanges, *(self._lent or ())]

    def lend(self, Exchange exchange not None):
        """Refer to an exchange only weakly from now on: its user has it."""
        if self.exchanges.pop(exchange.stream_id, None) is not None:
            if self._lent is None:
                self._lent = {}
            self._lent[exchange.stream_id] = weakref.ref(exchange)

    def keep_record(self, Exchange exchange not None):
        """Keep what the log needs of a lent exchange, of which its user lets go."""
        if self._lent is not None and exchange.stream_id in self._lent:
            if self._records is None:
                self._records = {}
            self._records[exchange.stream_id] = make_record(exchange)

    # ---- What the reader calls ----

    cdef int begin(self, lib.ngp_h2 *h2) except -1:
        """Begin to call exchanges; what they send is written when it is over."""
        self._h2 = h2
        self._now = now()
        self._logs = -1
        self.dispatching = self.postpones = True
        return 0

    cdef int finish(self, bint receiving) except -1:
        """End it; the owner of a ``receiving`` connection flushes by itself."""
        self.dispatching = False
        self._called = self._found = None
        self._found_id = 0
        if self._dirty:
            self._dirty = False
            if not receiving:
                self.flush_soon()
        return 0

    cdef int fail_called(self, error) except -1:
        """End the exchange whose application has raised ``error``.

        What was raised elsewhere concerns the whole connection.
        """
        if self._called is None:
            raise error
        return self._fail(self._called, error)

    cdef int _fail(self, Exchange exchange, error) except -1:
        """End an exchange whose application failed: none but closed() is called."""
        failed = exchange_failed(exchange, error)
        self._found_id = 0
        # But that of closed(), after which there is none.
        if self.find(exchange.stream_id) is exchange:
            self.exchanges[exchange.stream_id] = failed
        return 0

    cdef bint dispatch(self, EventReader reader, const lib.ngp_h2_event *e) except -1:
        """Call the exchange that ``e`` concerns; return whether there can be one.

        It may record more, so that ``e`` is valid only until it is called.
        """
        cdef:
            int kind = e.type
            bint end = e.end_stream
            Exchange exchange
            tuple pairs

        self._called = None
        if kind == NGP_H2_EVENT_REQUEST:
            self._receive_request(e.stream_id, reader.new_request(e), end)
        elif kind == NGP_H2_EVENT_DATA:
            exchange = self.find_called(e.stream_id)
            if exchange is not None:
                data = copy_data(e)
                self._called = exchange
                if data:
                    exchange.data_received(data)
                if end:
                    exchange.end_received()
        elif kind == NGP_H2_EVENT_STREAM_CLOSED:
            reader.close_stream(e.stream_id)
            self._close_stream(e.stream_id, e.error_code, e.value, e.complete)
        elif kind == NGP_H2_EVENT_RESPONSE or kind == NGP_H2_EVENT_INFORMATIONAL:
            exchange = self.find_called(e.stream_id)
            if exchange is not None:
                pairs = reader.take_fields(e)
                status = read_status((<tuple>pairs[0])[1])
                self._called = exchange
                if kind == NGP_H2_EVENT_INFORMATIONAL:
                    exchange.informational_received(status, pairs[1:])
                else:
                    exchange.response_received(status, pairs[1:])
                    if end:
                        exchange.end_received()
        elif kind == NGP_H2_EVENT_WINDOW_UPDATE:
            if self.blocked:
                self._receive_window(e.stream_id)
        elif kind == NGP_H2_EVENT_TRAILERS:
            exchange = self.find_called(e.stream_id)
            if exchange is not None:
                pairs = reader.take_fields(e)
                self._called = exchange
                exchange.trailers_received(pairs)
                if end:
                    exchange.end_received()
        elif kind == NGP_H2_EVENT_BODY_DRAINED:
            exchange = self.find_called(e.stream_id)
            if exchange is not None:
                self._called = exchange
                exchange.writable()
        elif kind == NGP_H2_EVENT_STREAM_RESET:
            self._receive_reset(
                e.stream_id, e.error_code, e.remote, e.unprocessed, take_text(e)
            )
        elif kind == NGP_H2_EVENT_PUSH_PROMISE:
            exchange = self.find_called(e.stream_id)
            self._called = exchange
            self.push_received(e.other_id, reader.new_request(e), exchange)
        else:
            return False
        return True

    cdef int _receive_request(
        self, stream_id, RequestReceived request, bint end
    ) except -1:
        cdef Exchange exchange

        self._found_id = 0
        try:
            exchange = self.factory.new_exchange(self, stream_id, request)
        except FATAL:
            raise
        except BaseException as error:
            exchange = make_unmade(self, stream_id, request)
            self.exchanges[stream_id] = exchange
            exchange_failed(exchange, error)
            return 0
        exchange.started = self._now
        self.exchanges[stream_id] = exchange
        self._called = exchange
        exchange.request_received(request)
        if self._closing:
            exchange.closing()
        if end:
            exchange.end_received()
        return 0

    cpdef push_received(self, stream_id, RequestReceived request, Exchange parent):
        """Handle the promise of a response, at a client (RFC 9113, 8.4).

        ``parent`` is the exchange with which it came, or None.  Here it is declined.
        """
        self.connection.reset_stream(stream_id, ErrorCode.CANCEL)

    cdef int _receive_reset(
        self, int32_t stream_id, error_code, remote, unprocessed, reason
    ) except -1:
        cdef Exchange exchange = self.find(stream_id)

        if exchange is None:
            return 0
        failure = partial(
            StreamResetError,
            stream_id,
            error_code,
            remote=bool(remote),
            unprocessed=bool(unprocessed),
            reason=reason,
        )
        if self._failures is None:
            self._failures = {}
        self._failures[stream_id] = failure
        self._called = exchange
        exchange.aborted(failure, error_code, True, True)
        return 0

    cdef int fail_body(self, stream_id, error) except -1:
        """Log what a source raised; the stream is being reset."""
        cdef Exchange exchange = self.find(stream_id)

        memory_log.failed(
            error, "%s: the body of stream %d failed", self.owner, stream_id
        )
        if exchange is None:
            return 0
        failure = partial(
            StreamResetError,
            stream_id,
            ErrorCode.INTERNAL_ERROR,
            remote=False,
            reason="the source of the body failed",
        )
        try:
            exchange.aborted(failure, ErrorCode.INTERNAL_ERROR, True, True)
        except FATAL:
            raise
        except BaseException as raised:
            self._fail(exchange, raised)
        return 0

    cdef int _receive_window(self, stream_id) except -1:
        """Wake exchanges that wait for room."""
        cdef Exchange exchange

        if stream_id == 0:
            self.wake_blocked()
        elif stream_id in self.blocked:
            self.blocked.discard(stream_id)
            exchange = self.find(stream_id)
            if exchange is not None:
                self._called = exchange
                exchange.writable()
        return 0

    cpdef wake_blocked(self):
        """Wake all exchanges that wait for room."""
        cdef Exchange exchange

        blocked = list(self.blocked)
        self.blocked.clear()
        for stream_id in blocked:
            exchange = self.find(stream_id)
            if exchange is not None:
                try:
                    exchange.writable()
                except FATAL:
                    raise
                except BaseException as error:
                    self._fail(exchange, error)

    cdef int _close_stream(
        self, stream_id, error_code, body_bytes_sent, bint complete
    ) except -1:
        cdef Exchange exchange = self.find_called(stream_id)
        cdef bint kept

        self._found = None
        self._found_id = 0
        failure = None
        if not complete:
            # NO_ERROR of our own reset is no good end, either.
            error_code = error_code or ErrorCode.CANCEL
            failure = self._find_failure(stream_id, error_code)
        elif self._failures:
            self._failures.pop(stream_id, None)
        kept = self.exchanges.pop(stream_id, None) is not None
        if self._lent is not None:
            self._lent.pop(stream_id, None)
        self.blocked.discard(stream_id)
        logged = exchange
        if logged is None and self._records is not None:
            logged = self._records.pop(stream_id, None)
        if logged is not None:
            if self._logs < 0:
                # Once for all that this batch closes: logging asks in Python code.
                self._logs = not self.client_side and log_wanted()
            if self._logs:
                log_access(logged, error_code, body_bytes_sent, failure is None)
        if exchange is not None:
            self._called = exchange
            exchange.closed(failure, error_code, body_bytes_sent)
        self.stream_closed(stream_id, exchange, kept, failure is None)
        return 0

    cpdef stream_closed(self, stream_id, Exchange exchange, bint kept, bint complete):
        """Handle the end of a stream, after its exchange.

        ``exchange`` is None if its user had dropped it; ``kept`` is whether it was
        not lent; ``complete`` is whether both halves ended as the protocol says.
        """

    cpdef find_end(self):
        """Return a function that makes the exception for all streams, or None.

        It is called with whether the request was certainly not processed.
        """

    cdef object _find_failure(self, stream_id, error_code):
        """Return a function that makes the exception for a stream that broke off."""
        cdef size_t n = 0
        cdef const lib.ngp_h2_event *last

        if self._failures:
            failure = self._failures.pop(stream_id, None)
            if failure is not None:
                return failure
        failure = self.find_end()
        if failure is not None:
            return partial(failure, False)
        # Streams are closed before the connection, and because of it.
        last = lib.ngp_h2_events(self._h2, &n) + n - 1
        if last.type == NGP_H2_EVENT_CONNECTION_CLOSED:
            return partial(
                ConnectionTerminatedError,
                last.error_code,
                remote=bool(last.remote),
                reason=take_text(last),
            )
        return partial(StreamResetError, stream_id, error_code, remote=False)

    # ---- Messages ----

    cpdef send_response(self, Exchange exchange, status, fields, bint end):
        """See ``HTTPConnection``."""
        if self.alt_svc is not None:
            fields = add_field(fields, b"alt-svc", self.alt_svc)
        fields = keep_response_fields(exchange, fields)
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
            if status is not None:
                keep_response_fields(exchange, pairs[1:])
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

        if len(piece) > COUNTED:
            count_bytes(len(piece))
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

    def is_under_way(self, Exchange exchange not None):
        """Return whether the windows allow all that is queued."""
        return self.connection.is_under_way(exchange.stream_id)

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
        cdef int32_t stream_id = -1

        given.extend(fields)
        # In the form in which the client gets them.
        pairs = [
            NeverIndexed(*pair[:2]) if len(pair) == 3 and pair[2] else pair[:2]
            for pair in given._pairs
        ]
        request = make_request(pairs, "2")
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
        self._found_id = 0
        self.exchanges[exchange.stream_id] = exchange

    cpdef set_priority(self, Exchange exchange, urgency, incremental):
        """See ``HTTPConnection``."""
        self.connection.set_priority(
            exchange.stream_id, urgency, incremental, override=True
        )
        self.flush_soon()

    # ---- The connection ----

    cpdef flush_soon(self):
        """See ``HTTPConnection``: while events are dispatched, after them."""
        if self.dispatching:
            self._dirty = True
        elif self.owner is not None:
            try:
                self.owner.mark_dirty()
            except ReferenceError:
                pass  # a weak one: the connection is gone


cdef class HTTP2Streams(HTTP2Exchanges):
    """The exchanges that are coroutine streams: what costs time for each of them.

    ``owner`` has ``stream_closed``, which is called if that may have to do something,
    and ``bytes_taken``.
    """

    def __init__(self, owner, H2Connection connection not None, factory, dict amounts):
        HTTP2Exchanges.__init__(self, owner, connection, factory)
        self._lent = {}
        self.slots = deque()
        self.handled = {}
        self.amounts = amounts

    def send_request(self, kind, protocol, headers, bint end, bint kept):
        """Send a request, and return its stream, a new ``kind`` for ``protocol``.

        The stream is lent to its user, unless it is ``kept`` here.
        """
        cdef object stream_id = self._submit(headers, end)
        cdef Exchange stream = kind(protocol, self, stream_id)

        if kept:
            self.exchanges[stream_id] = stream
        else:
            self._lent[stream_id] = weakref_to(stream)
        if self.dispatching:
            self._dirty = True
        else:
            protocol.mark_dirty()
        return stream

    cdef object _submit(self, headers, bint end):
        """Queue a request's header section; return the stream's identifier."""
        cdef:
            H2Connection connection = self.connection
            lib.nghttp2_nv nva[16]
            lib.ngp_h2_header_error error
            size_t queued = 0
            Py_ssize_t n
            int32_t stream_id

        if connection._initiated and not connection._normalizes:
            lib.ngp_h2_stream_count(connection._h2, &queued)
            if queued < connection._max_queued_requests:
                n = borrow_fields(headers, nva, 16)
                if n >= 0:
                    stream_id = lib.ngp_h2_submit_request(
                        connection._h2, nva, n, end, &error
                    )
                    if stream_id > 0:
                        return stream_id
        # Other forms of headers, and what is refused: nothing was queued then.
        return connection.send_headers(None, headers, end_stream=end)

    cpdef stream_closed(self, stream_id, Exchange exchange, bint kept, bint complete):
        """See ``HTTP2Exchanges``."""
        cdef bint own = (<int32_t>stream_id & 1) == self.client_side

        if own:
            self.opened -= 1
        if (
            kept
            or self.slots
            or self.handled
            or self.amounts
            or (own and self.notifies_idle and not self.opened)
        ):
            self.owner.stream_closed(stream_id, exchange, kept, complete)

    cpdef acknowledge(self, Exchange exchange, n):
        """See ``HTTPConnection``."""
        self.connection.acknowledge(exchange.stream_id, n)
        if self.owner is not None:
            try:
                self.owner.bytes_taken(exchange.stream_id, n)
            except ReferenceError:
                pass  # a weak one: the connection is gone
        if lib.ngp_h2_want_write(self.connection._h2):
            self.flush_soon()

    cpdef find_end(self):
        """See ``HTTP2Exchanges``."""
        return self.owner.over


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
        self.http.tasks.release_after(min(timeout, self._timeouts.close))

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

    def _open_stream_ids(self):
        return [number for number in self.http.exchanges if number % 2]
