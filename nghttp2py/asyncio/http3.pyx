# cython: nonecheck=True
"""HTTP/3's half of exchanges: the part that runs for each request and each piece."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from nghttp2py.asyncio.h3_bounds cimport Arrival, Outgoing, Watch
from nghttp2py.exchange cimport (
    FATAL,
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    exchange_failed,
    keep_response_fields,
    log_access,
    log_wanted,
    make_unmade,
    now,
)
from nghttp2py.h2.events cimport RequestReceived
from nghttp2py.h3.events cimport DataReceived, HeadersReceived
from nghttp2py.quic.events cimport StreamDataReceived

import weakref
from collections import deque
from functools import partial

from nghttp2py.asyncio.memory import LEAST, count_bytes
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.asyncio.writer import PIECE
from nghttp2py.errors import (
    BodyQueueFullError,
    ConnectionTerminatedError,
    HeadersError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
    error_code_name,
)
from nghttp2py.h2.convert import make_request, to_pairs
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.quic.addresses import plain_address

__all__ = [
    "ExchangeState",
    "HTTP3Exchanges",
    "are_trailers",
    "reset_failure",
    "to_fields",
]

#: Unread bytes of a body from which on the peer gets no more credit.  Then it may still
#: send what it has credit for, `max_stream_data`.
UNREAD = 65536

#: What may be queued on a stream beyond the peer's credit: a small response need not
#: wait.
AHEAD = 2048

#: A stream with credit may have so many unacknowledged bytes while all streams together
#: have less than the second number; from then on the third.
STREAM_QUEUE = 1 << 20
CONNECTION_QUEUE = 8 << 20
SHARE = 16384

cdef int64_t unread_bound = UNREAD
cdef int64_t ahead_bound = AHEAD
cdef int64_t stream_queue = STREAM_QUEUE
cdef int64_t connection_queue = CONNECTION_QUEUE
cdef int64_t share = SHARE
cdef int64_t piece_size = PIECE
cdef int64_t least_counted = LEAST


cdef bint has_upper(bytes name) noexcept:
    """Return whether a name has a letter that HTTP/3 wants in lower case."""
    cdef const char *text = PyBytes_AS_STRING(name)
    cdef Py_ssize_t i

    for i in range(PyBytes_GET_SIZE(name)):
        if c"A" <= text[i] <= c"Z":
            return True
    return False


def to_fields(headers, status=None):
    """Return fields as tuples of bytes, with names in lower case.

    With ``status``, they are those of a response.
    """
    cdef list fields = to_pairs(headers, status)
    cdef Py_ssize_t i

    for i in range(len(fields)):
        field = fields[i]
        # A third item that is true keeps a field out of QPACK's table.
        if has_upper(<bytes?>field[0]):
            fields[i] = (field[0].lower(), *field[1:])
    return fields


def are_trailers(list headers not None):
    """Whether a header section has no pseudo-header fields (RFC 9114, 4.3)."""
    return not headers or not (<bytes>headers[0][0]).startswith(b":")


def reset_failure(stream_id, error_code, *, remote, text=""):
    """Return a function that makes the ``StreamResetError`` of a stream, with
    ``text``."""
    return partial(make_reset_error, stream_id, error_code, remote, text)


def make_reset_error(stream_id, error_code, remote, text):
    return StreamResetError(
        stream_id,
        error_code,
        remote=remote,
        unprocessed=remote and error_code == ErrorCode.H3_REQUEST_REJECTED,
        reason=text,
        code_name=error_code_name(error_code, ErrorCode),
    )


cdef class ExchangeState:
    """The connection's state of one exchange."""

    cdef public bint sends      # our half has no end yet
    cdef public bint receives
    cdef public bint stopped    # the peer has ended our half; the event comes next
    cdef public bint tunnel
    cdef public bint answered   # a final response was received, or sent
    cdef public bint declined   # the rest of the request is ignored
    cdef public object failure
    cdef public object error_code
    cdef public int64_t unread  # received bytes without credit yet
    cdef public Arrival arrival
    cdef public Outgoing outgoing
    cdef public object body_bytes_sent
    # The condition of ``writable``: room for so many bytes, or a short queue.
    cdef public object wanted
    cdef public object low
    # The source of a body, and the trailers after it.
    cdef public object source
    cdef public bint deferred
    cdef public object trailers

    def __init__(self, *, bint tunnel):
        self.sends = self.receives = True
        self.tunnel = tunnel
        self.error_code = self.body_bytes_sent = self.wanted = 0
        self.low = -1
        self.arrival = Arrival()


cdef class HTTP3Exchanges(HTTPConnection):
    """The exchanges of an HTTP/3 connection's streams, and what calls them.

    ``owner`` is the ``H3Protocol``, ``watch`` its bounds, ``factory`` what makes the
    exchanges of a server's requests, or None for coroutine streams.  Exchanges of a
    factory are called about their end after the events that are being handled, or in a
    later turn of the loop, because a call of theirs may have caused it; a ``Stream`` is
    called at once.
    """

    cdef readonly object exchanges    # stream identifier -> Exchange, that is open
    cdef readonly dict states         # stream identifier -> ExchangeState
    cdef readonly dict answered       # streams whose requests go on after the response
    cdef readonly dict cut_short      # requests that were abandoned
    cdef public object connection     # the H3Connection; None before and after it
    cdef public object ending         # the stream whose end has just come, or -1
    cdef public bint direct           # events go to this object, past a subclass
    cdef public bint serves           # requests become exchanges
    cdef public bint is_closing       # the server is stopping
    cdef readonly object _quic
    cdef readonly bint _defers
    cdef readonly set _senders        # that wait for room, or have a source of a body
    cdef public dict _closed          # whose queued bytes a coroutine waits for
    cdef readonly set _unsent         # those whose bytes were lost
    cdef public object loop           # the event loop
    cdef Watch watch
    cdef object _body_interval
    cdef object _due                  # ends that were not reported yet
    cdef bint _dispatching

    def __init__(
        self, owner, quic, Watch watch not None, timeouts, bint client_side,
        ExchangeFactory factory,
    ):
        HTTPConnection.__init__(self, "HTTP/3", client_side, owner, factory)
        self.secure = True
        self.watch = watch
        self._quic = quic
        self._body_interval = timeouts.body
        self._defers = factory is not None
        self._due = deque()
        self.tasks = CallbackTasks()
        # A client's stream that is dropped needs nothing more.
        self.exchanges = weakref.WeakValueDictionary() if client_side else {}
        self.states = {}
        self.answered = {}
        self.cut_short = {}
        self.ending = -1
        self._senders = set()
        self._closed = {}
        self._unsent = set()

    # ---- What the owner calls ----

    def begin_events(self):
        """Begin to handle events; what exchanges send is written after them."""
        self._dispatching = True
        self.postpones = self._defers

    def end_events(self):
        """Run the applications whose requests have come, and report what has ended."""
        try:
            self.run_postponed()
            self.tell_ends()
        finally:
            self._dispatching = False

    def stream_data_received(self, StreamDataReceived event not None):
        """Handle bytes of a stream, and what they complete."""
        cdef HeadersReceived section
        cdef int64_t stream_id = event.stream_id
        cdef bint known = event.stream_id in self.exchanges

        http = self.connection
        received = http.handle_event(event)
        if event.end_stream:
            self.ending = event.stream_id
        for each in received:
            if type(each) is HeadersReceived:
                section = each
                # Those of other streams may have waited for QPACK's encoder stream.
                self.watch.section_ended(section.stream_id)
                if (
                    not known
                    and section.stream_id == stream_id
                    and not are_trailers(section.headers)
                ):
                    known = True
                if self.direct:
                    self.section_received(section)
                    continue
            elif type(each) is DataReceived and self.direct:
                self.piece_received(each)
                continue
            self.owner.give(each)
        self.ending = -1
        if stream_id & 3 == 2 or (self.serves and known and not stream_id & 3):
            self.follow_frame(stream_id)
        elif self.serves and not stream_id & 3:
            self.owner.follow_request(event, known)

    def follow_frame(self, stream_id):
        """Check whether a frame of a client is complete, apart from the payload of
        DATA: a request's, or one on the control stream."""
        if self.connection is None:
            return
        frame = self.connection.incomplete_frame(stream_id)
        if frame:
            self.watch.section_begun(stream_id, frame)
        else:
            self.watch.section_ended(stream_id)

    def section_received(self, HeadersReceived event not None):
        """Handle a header section: a request's, a response's, or trailers."""
        cdef Exchange exchange = self.exchanges.get(event.stream_id)

        if exchange is None:
            # Trailers may wait for QPACK until their stream is forgotten.
            if self.serves and not are_trailers(event.headers):
                self._receive_request(event)
            return
        try:
            self._receive_section(exchange, event.headers)
            if event.stream_ended:
                self.message_ended(exchange)
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)

    def piece_received(self, DataReceived event not None):
        """Handle a piece of a body."""
        cdef Exchange exchange = self.exchanges.get(event.stream_id)

        if exchange is None:
            return
        try:
            self._receive_piece(exchange, event.data, event.stream_ended)
            if event.stream_ended:
                self.message_ended(exchange)
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)

    cdef int _fail(self, Exchange exchange, error) except -1:
        """End an exchange whose application has raised; of a coroutine's, raise it."""
        if not self._defers:
            raise error
        failed = exchange_failed(exchange, error)
        if exchange.stream_id in self.exchanges:
            self.exchanges[exchange.stream_id] = failed
        return 0

    cdef int _receive_request(self, HeadersReceived event) except -1:
        cdef Exchange exchange
        cdef RequestReceived request
        cdef ExchangeState state
        stream_id = event.stream_id
        failure = None

        if self.factory is None:
            exchange = self.owner.new_stream(stream_id, event.headers)
            request = exchange.request
        else:
            request = make_request(event.headers, "3")
            try:
                exchange = self.factory.new_exchange(self, stream_id, request)
            except FATAL:
                raise
            except BaseException as error:
                failure = error
                exchange = make_unmade(self, stream_id, request)
        state = ExchangeState(tunnel=request.method == b"CONNECT")
        # By STOP_SENDING, which has arrived before the request.
        state.stopped = stream_id in self.cut_short
        self.states[stream_id] = state
        self.exchanges[stream_id] = exchange
        if len(self.exchanges) == 1:
            self.owner.busy()
        urgency, incremental = self.connection.priority(stream_id)
        if urgency != 3 or incremental:
            self.owner.apply_priority(stream_id)
        if not event.stream_ended and self._body_interval is not None:
            self.watch.body_begun(state.arrival, self._body_interval)
        exchange.started = now()
        exchange.request = request
        try:
            if failure is not None:
                raise failure
            exchange.request_received(request)
            if self.is_closing:
                self.tell_closing(exchange)
            if event.stream_ended:
                self.message_ended(exchange)
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)
            if event.stream_ended:
                self.message_ended(self.exchanges.get(stream_id, exchange))
        if state.stopped and stream_id in self.cut_short:
            code = ErrorCode.H3_REQUEST_CANCELLED
            self.break_off(
                self.exchanges.get(stream_id, exchange),
                reset_failure(stream_id, code, remote=True),
                code,
                incoming=False,
            )
        return 0

    cdef int _receive_section(self, Exchange exchange, list headers) except -1:
        """Handle a header section after that of a request."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)
        cdef bytes name, value

        if state is None or not state.receives or state.declined:
            return 0
        name, value = headers[0][:2] if headers else (b"", b"")
        if not self.client_side or state.answered or name != b":status":
            exchange.trailers_received(tuple(headers))
        elif value.startswith(b"1"):
            exchange.informational_received(int(value), tuple(headers[1:]))
        else:
            state.answered = True
            exchange.response_received(int(value), tuple(headers[1:]))
        return 0

    cdef int _receive_piece(
        self, Exchange exchange, bytes data, bint ended
    ) except -1:
        cdef ExchangeState state = self.states.get(exchange.stream_id)
        cdef Arrival arrival

        if state is None or not state.receives:
            return 0
        arrival = state.arrival
        arrival.came += len(data)
        if state.declined:
            self.owner.discarded(exchange.stream_id, arrival.came)
        elif data:
            state.unread += len(data)
            exchange.data_received(data)
            if state.unread >= unread_bound and not arrival.withheld and not ended:
                arrival.withheld = True
                self._quic.pause_reading(exchange.stream_id)
        return 0

    def message_ended(self, Exchange exchange not None):
        """Handle the end of the peer's half."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is not None and state.receives:
            state.receives = False
            if not state.declined:
                exchange.end_received()
            self.check_end(exchange)

    def datagram_received(self, Exchange exchange not None, bytes data not None):
        """Call ``exchange.datagram_received``."""
        exchange.datagram_received(data)

    cpdef acknowledge(self, Exchange exchange, n):
        """Give the peer credit for ``n`` bytes more."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is not None:
            state.unread -= <int64_t>n
            if state.arrival.withheld and state.unread < unread_bound:
                state.arrival.withheld = False
                self._quic.resume_reading(exchange.stream_id)
                self.flush_soon()

    # ---- The end of an exchange ----

    def break_off(
        self, Exchange exchange not None, failure, error_code, *,
        bint incoming=True, bint outgoing=True,
    ):
        """Handle that the peer or the connection has broken off one half, or both."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is None:
            return
        incoming = incoming and state.receives
        outgoing = outgoing and state.sends
        if not (incoming or outgoing):
            return
        if incoming:
            state.receives = False
        if outgoing:
            state.sends = False
            state.source = None
        # The response is complete, the request need not be (RFC 9114, 4.1).
        if state.failure is None and (outgoing or state.sends or not state.declined):
            state.failure = failure
            state.error_code = error_code
        self._tell(
            exchange,
            partial(
                self.tell_aborted, exchange, failure, error_code, incoming, outgoing
            ),
        )
        self.check_end(exchange)

    def tell_aborted(
        self, Exchange exchange not None, failure, error_code, bint incoming,
        bint outgoing,
    ):
        exchange.aborted(failure, error_code, incoming, outgoing)

    def tell_closing(self, Exchange exchange not None):
        """Report to an exchange that the server begins to stop."""
        self._tell(exchange, partial(self.close_exchange, exchange))

    def close_exchange(self, Exchange exchange not None):
        exchange.closing()

    cpdef check_end(self, Exchange exchange):
        """Call ``closed`` of an exchange, if both halves have ended."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is None or state.sends or state.receives:
            return
        stream_id = exchange.stream_id
        del self.states[stream_id]
        self._senders.discard(stream_id)
        if self.answered:
            self.answered.pop(stream_id, None)
        if self.exchanges.pop(stream_id, None) is not None and (
            self.client_side or not self.exchanges
        ):
            self.owner.stream_ended()
        self._tell(exchange, state)

    cdef int _tell(self, Exchange exchange, what) except -1:
        """Report something to an exchange, a call of which may have caused it.

        ``what`` is a function, or the state of an exchange that has ended.
        """
        if not self._defers:
            return self._report(exchange, what)
        if not self._due and not self._dispatching:
            self.loop.call_soon(self.tell_ends)
        self._due.append((exchange, what))
        return 0

    cdef int _report(self, Exchange exchange, what) except -1:
        cdef ExchangeState state

        if type(what) is ExchangeState:
            state = what
            self.tell_closed(
                exchange, state.failure, state.error_code, state.body_bytes_sent
            )
        else:
            what()
        return 0

    def tell_closed(
        self, Exchange exchange not None, failure, error_code, body_bytes_sent
    ):
        """Call ``exchange.closed``, after the access log at a server."""
        if not self.client_side and log_wanted():
            log_access(exchange, error_code, body_bytes_sent, failure is None)
        exchange.closed(failure, error_code, body_bytes_sent)

    def connection_lost(self):
        """Handle the end of the connection."""
        self.connection = None
        if self.factory is not None:
            self.factory.connection_lost()
        self.tell_ends()

    def push_begun(self, Exchange exchange not None):
        """Note the time at which an exchange began that we push."""
        exchange.started = now()

    def tell_ends(self):
        """Report the ends that were not reported to exchanges yet."""
        cdef Exchange exchange

        while self._due:
            exchange, what = self._due.popleft()
            try:
                self._report(exchange, what)
            except FATAL:
                raise
            except BaseException as error:
                self._fail(exchange, error)

    def call(self, Exchange exchange not None, call):
        """Call an exchange; an exception ends only this exchange."""
        try:
            call()
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)

    def make_writable(self, Exchange exchange not None):
        """Call ``writable`` of an exchange."""
        try:
            exchange.writable()
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)

    # ---- Which state an exchange has ----

    cpdef is_open(self, Exchange exchange):
        """Return whether the exchange can still send or receive anything."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        return state is not None and not state.stopped

    cpdef ExchangeState _state(self, Exchange exchange):
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is None:
            stream_id = exchange.stream_id
            raise StreamClosedError(f"stream {stream_id} is closed", stream_id)
        return state

    cpdef ExchangeState _sending(self, Exchange exchange):
        cdef ExchangeState state = self._state(exchange)

        if not state.sends or state.stopped:
            stream_id = exchange.stream_id
            raise StreamClosedError(
                f"our half of stream {stream_id} has ended", stream_id
            )
        return state

    cpdef ExchangeState _sending_by_call(self, Exchange exchange):
        """Raise, too, if a source produces the body."""
        cdef ExchangeState state = self._sending(exchange)

        if state.source is not None:
            raise StreamStateError(
                f"stream {exchange.stream_id}: its body comes from a source already"
            )
        return state

    cpdef _http(self):
        """Return the ``H3Connection``; raise if it has ended."""
        if self.connection is None:
            return self.owner.require_http()
        return self.connection

    cpdef fail_stopped(self, Exchange exchange):
        """Raise, because the peer has ended our half.

        STOP_SENDING may have come with what is being handled, or before the request.
        """
        cdef ExchangeState state = self._state(exchange)
        stream_id = exchange.stream_id

        state.stopped = True
        raise StreamClosedError(
            f"our half of stream {stream_id} has ended", stream_id
        ) from None

    # ---- Sending header sections ----

    cpdef send_section(self, Exchange exchange, headers, bint end):
        """Send a header section of bytes, unchanged."""
        cdef ExchangeState state = self._sending(exchange)
        cdef bint was_empty = not self._quic.queued_data(exchange.stream_id)
        cdef bytes name, value

        try:
            self._http().send_headers(exchange.stream_id, headers, end)
        except RuntimeError:
            self.fail_stopped(exchange)
        name, value = headers[0][:2] if headers else (b"", b"")
        if name == b":status" and not value.startswith(b"1"):
            state.answered = True
            state.tunnel = state.tunnel and value.startswith(b"2")
            exchange.status = int(value)
            keep_response_fields(exchange, headers[1:])
        self._was_queued(exchange, state, 0, was_empty, end)

    cpdef send_response(self, Exchange exchange, status, fields, bint end):
        """Send the final response's header section."""
        cdef ExchangeState state = self._state(exchange)

        if state.answered:
            raise StreamStateError(
                f"stream {exchange.stream_id}: a response was sent already"
            )
        headers = to_fields(fields, status)
        if status < 200:
            raise HeadersError(
                f"status is {status}, but that of a final response must not be 1xx "
                "(RFC 9110, 15.2)"
            )
        self.send_section(exchange, headers, end)

    cpdef send_fields(self, Exchange exchange, fields, bint end):
        """Send a header section with its pseudo-header fields."""
        self.send_section(exchange, to_fields(fields), end)

    cpdef send_continue(self, Exchange exchange):
        """Send 100 (Continue), unless the request is complete or it is closed."""
        cdef ExchangeState state = self.states.get(exchange.stream_id)

        if state is not None and state.receives and state.sends:
            self.send_informational(exchange, 100, ())

    cpdef send_informational(self, Exchange exchange, status, fields):
        """Send a 1xx response."""
        headers = to_fields(fields, status)
        if status >= 200:
            raise HeadersError(
                f"status is {status}, but that of an informational response must be "
                "1xx (RFC 9110, 15.2)"
            )
        if self._sending(exchange).answered:
            raise StreamStateError(
                f"stream {exchange.stream_id}: the final response was begun already"
            )
        self.send_section(exchange, headers, False)

    cpdef send_trailers(self, Exchange exchange, fields):
        """End our half with trailers."""
        if not (self._sending_by_call(exchange).answered or self.client_side):
            raise StreamStateError(
                f"stream {exchange.stream_id}: no response was begun"
            )
        self.send_section(exchange, to_fields(fields), True)

    # ---- Sending bodies ----

    cpdef queue_body(self, Exchange exchange, data, bint end):
        """Queue a piece of the body.

        Raises ``BodyQueueFullError`` if more than 1 MiB would be queued, unless it is
        the first or the last piece, which is sent as fast as the peer reads.
        """
        self._queue_piece(exchange, self._sending_by_call(exchange), data, end)

    cpdef _queue_piece(
        self, Exchange exchange, ExchangeState state, data, bint end
    ):
        cdef int64_t n = len(data) if type(data) is bytes else memoryview(data).nbytes
        cdef int64_t queued

        if n > least_counted:
            count_bytes(n)
        stream_id = exchange.stream_id
        queued = self._quic.queued_data(stream_id)
        if queued and queued + n > stream_queue:
            if end:
                self.send_body(exchange, data, None)
                return
            # A header section alone leaves room for a piece of any size.
            if state.body_bytes_sent:
                raise BodyQueueFullError(
                    f"stream {stream_id}: {queued + n} bytes would wait, more than "
                    f"{STREAM_QUEUE}"
                )
        try:
            self._http().send_data(stream_id, data, end)
        except RuntimeError:
            self.fail_stopped(exchange)
        state.body_bytes_sent += n
        self._was_queued(exchange, state, n, not queued, end)

    cpdef _was_queued(
        self, Exchange exchange, ExchangeState state, int64_t n, bint was_empty,
        bint end,
    ):
        """Bound the time in which the peer receives what was queued, and send it."""
        if state.outgoing is None:
            state.outgoing = Outgoing(exchange.stream_id)
        self.watch.queued(state.outgoing, n, was_empty)
        if end:
            state.sends = False
            self.check_end(exchange)
        self.flush_soon()

    cpdef queued(self, Exchange exchange):
        """Return how many bytes are queued on the stream."""
        return self._quic.queued_data(exchange.stream_id)

    cpdef room(self, Exchange exchange, wanted, bint ahead):
        """Return how many of ``wanted`` bytes may be queued now.

        A stream gets room for the peer's credit, and a little more, so that a peer that
        gives none does not make us buffer much.
        """
        cdef ExchangeState state
        room = self._room(exchange.stream_id, wanted)

        if not room:
            state = self.states.get(exchange.stream_id)
            if state is not None:
                state.wanted = wanted
                self._senders.add(exchange.stream_id)
        return room

    cpdef _room(self, stream_id, int64_t wanted):
        cdef int64_t queued, credit, room

        quic = self._quic
        if quic.closed:
            return 0  # what is sent now is lost; the event will report the reason
        queued = quic.queued_data(stream_id)
        if queued + wanted <= ahead_bound:
            return wanted
        credit = min(<int64_t>quic.send_credit(stream_id), <int64_t>quic.send_credit())
        room = min(
            piece_size,
            stream_queue - queued,
            credit + ahead_bound - <int64_t>quic.unsent_data(stream_id),
        )
        if <int64_t>quic.queued_data() >= connection_queue:
            room = min(room, share - queued)
        # Many small frames cost more than a wait.
        return min(room, wanted) if room >= min(wanted, ahead_bound // 2) else 0

    cpdef notify_writable(self, Exchange exchange, low):
        """Return whether at most ``low`` bytes are queued; if not, call ``writable``
        later."""
        cdef ExchangeState state
        stream_id = exchange.stream_id

        if stream_id in self._unsent:
            self._http()  # raises: the connection has ended
        if self._has_room_below(stream_id, low):
            return True
        state = self.states.get(stream_id)
        if state is None:
            if self._defers or self._quic.queued_data(stream_id) <= low:
                return True  # `closed` reports the end of this exchange
            self._closed[stream_id] = exchange, low
            return False
        state.low = low
        self._senders.add(stream_id)
        return False

    cpdef _has_room_below(self, stream_id, low):
        """Whether at most ``low`` bytes wait, of a connection that can send them.

        One that is closed drops what is queued: who sends in a loop would never let
        the event come that says so.
        """
        return not self._quic.closed and self._quic.queued_data(stream_id) <= low

    # ---- The connection ----

    cpdef push_enabled(self):
        """Return whether the client allows a further push (RFC 9114, 7.2.7)."""
        try:
            return self._http().next_push_id is not None and self.has_push_left()
        except ConnectionTerminatedError:
            return False

    cpdef get_extra_info(self, name, default=None):
        """Return information about the connection: see ``H3Link.find_info``."""
        if name == "peername":
            address = self._quic.get_peer_address()
            # A client's socket is for both families; the caller knows of one.
            return plain_address(address) if self.client_side else address
        return self.find_info(name, default)

    cpdef flush_soon(self):
        """Write what is queued in the loop's next turn, or after the events that are
        being handled."""
        if not self._dispatching:
            try:
                self.owner.transmit_soon()
            except ReferenceError:
                pass
