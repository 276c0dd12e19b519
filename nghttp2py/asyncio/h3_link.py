"""HTTP/3's half of the exchanges of a connection (RFC 9114)."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from ssl import DER_cert_to_PEM_cert
from typing import Any

from nghttp2py.asyncio.fields import make_request
from nghttp2py.asyncio.h3_bounds import Arrival, Outgoing
from nghttp2py.asyncio.memory import LEAST, count_bytes
from nghttp2py.asyncio.stream_link import Codes, StreamLink
from nghttp2py.asyncio.stream_state import Failure
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.asyncio.writer import PIECE
from nghttp2py.errors import (
    BodyQueueFullError,
    ConnectionTerminatedError,
    HeadersError,
    ProtocolError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
    error_code_name,
)
from nghttp2py.errors import ErrorCode as H2ErrorCode
from nghttp2py.exchange import (
    Exchange,
    ExchangeFactory,
    PythonConnection,
    PythonExchange,
    exchange_failed,
    keep_response_fields,
)
from nghttp2py.h2 import RequestReceived
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, is_bytes_like, make_source
from nghttp2py.h2.convert import to_pairs
from nghttp2py.h3 import H3Connection
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.convert import check_trailers
from nghttp2py.h3.events import Headers
from nghttp2py.h3.exceptions import NoAvailablePushIDError
from nghttp2py.x509 import read_certificate

__all__ = ["H3Link", "to_fields"]


# Unread bytes of a body from which on the peer gets no more credit.  Then it may still
# send what it has credit for, `max_stream_data`.
_UNREAD = 65536

# What may be queued on a stream beyond the peer's credit: a small response need not
# wait.
_AHEAD = 2048

# A stream with credit may have so many unacknowledged bytes while all streams together
# have less than the second number; from then on the third.
_STREAM_QUEUE = 1 << 20
_CONNECTION_QUEUE = 8 << 20
_SHARE = 16384

# Pushes of a connection that the client has not acknowledged whole: it may allow any
# number of them, but few streams at once, or none.
_PUSHES = 100

# HTTP/3's codes for those of HTTP/2 with the same meaning (RFC 9114, A.4).
_OF_HTTP2: dict[int, int] = {
    H2ErrorCode.NO_ERROR: ErrorCode.H3_NO_ERROR,
    H2ErrorCode.PROTOCOL_ERROR: ErrorCode.H3_GENERAL_PROTOCOL_ERROR,
    H2ErrorCode.INTERNAL_ERROR: ErrorCode.H3_INTERNAL_ERROR,
    H2ErrorCode.STREAM_CLOSED: ErrorCode.H3_STREAM_CREATION_ERROR,
    H2ErrorCode.REFUSED_STREAM: ErrorCode.H3_REQUEST_REJECTED,
    H2ErrorCode.CANCEL: ErrorCode.H3_REQUEST_CANCELLED,
    H2ErrorCode.CONNECT_ERROR: ErrorCode.H3_CONNECT_ERROR,
    H2ErrorCode.ENHANCE_YOUR_CALM: ErrorCode.H3_EXCESSIVE_LOAD,
    H2ErrorCode.HTTP_1_1_REQUIRED: ErrorCode.H3_VERSION_FALLBACK,
}


class _State:
    """The connection's state of one exchange."""

    def __init__(self, *, tunnel: bool) -> None:
        self.sends = True  # our half has no end yet
        self.receives = True
        self.stopped = False  # the peer has ended our half; the event comes next
        self.tunnel = tunnel
        self.answered = False  # a final response was received, or sent
        self.declined = False  # the rest of the request is ignored
        self.failure: Failure | None = None
        self.error_code = 0
        self.unread = 0  # received bytes without credit yet
        self.arrival = Arrival()
        self.outgoing: Outgoing | None = None
        self.body_bytes_sent = 0
        # The condition of `writable`: room for so many bytes, or a short queue.
        self.wanted = 0
        self.low = -1
        # The source of a body, and the trailers after it.
        self.source: Any = None
        self.deferred = False
        self.trailers: Any = None


class H3Link(StreamLink, PythonConnection):
    """The HTTP/3 connection of exchanges.

    ``states`` has the state of each exchange that has not ended;
    ``owner.forget(exchange)`` is called when one has.  Exchanges of ``factory`` are
    called about their end in a later turn of the loop, because a call of theirs may
    have caused it; a ``Stream`` is called at once.
    """

    codes = Codes(
        no_error=ErrorCode.H3_NO_ERROR,
        cancelled=ErrorCode.H3_REQUEST_CANCELLED,
        internal_error=ErrorCode.H3_INTERNAL_ERROR,
        message_error=ErrorCode.H3_MESSAGE_ERROR,
    )
    halves_end_alone = True
    max_code = 2**62 - 1

    def __init__(
        self,
        owner: Any,
        quic: Any,
        *,
        client_side: bool,
        factory: ExchangeFactory | None = None,
    ) -> None:
        # Weak, because the connection refers to this object: a cycle would outlive it.
        # Handlers get the object itself: that cycle is broken when the connection ends.
        proxy = weakref.proxy(owner)
        PythonConnection.__init__(
            self, "HTTP/3", client_side, proxy if factory is None else owner, factory
        )
        self.secure = True
        self.prepare()
        self._proxy = proxy
        self._quic = quic
        # The peer's certificate, when it is known: empty if there is none.
        self._peercert: dict[str, Any] | None = None
        self._defers = factory is not None
        self._due: deque[tuple[Exchange, Callable[[], None]]] = deque()
        self.tasks = CallbackTasks()
        self.states: dict[int, _State] = {}
        #: The stream whose end came with the bytes that are being handled.
        self.ending = -1
        # Exchanges that wait for room, or have a source of a body.
        self._senders: set[int] = set()
        # Closed exchanges whose queued bytes a coroutine waits for.
        self._closed: dict[int, tuple[Exchange, int]] = {}
        self._unsent: set[int] = set()  # those whose bytes were lost
        # The streams of pushes, by push identifier: those that need not have arrived.
        self._pushes: dict[int, int] = {}

    def code_name(self, error_code: int) -> str:
        """Return the name of an error code of HTTP/3, or the number."""
        return error_code_name(error_code, ErrorCode)

    def make_failure(
        self, stream_id: int, error_code: int, reason: str
    ) -> Callable[[], Exception]:
        """Return a function that makes the exception of a stream that we reset."""
        return reset_failure(stream_id, error_code, remote=False, text=reason)

    # ---- The life of an exchange ----

    def begin(self, exchange: Exchange, request: Headers | RequestReceived) -> None:
        """Register an exchange whose request has come, or is sent now."""
        if isinstance(request, RequestReceived):
            method: bytes | None = request.method
        else:
            method = next((f[1] for f in request if f[0] == b":method"), None)
        self.states[exchange.stream_id] = _State(tunnel=method == b"CONNECT")

    def abandon(self, exchange: Exchange) -> None:
        """Forget an exchange of which nothing was sent."""
        del self.states[exchange.stream_id]
        self.closed(
            exchange,
            reset_failure(
                exchange.stream_id, ErrorCode.H3_REQUEST_CANCELLED, remote=False
            ),
            ErrorCode.H3_REQUEST_CANCELLED,
            0,
        )

    def is_open(self, exchange: Exchange) -> bool:
        """Return whether the exchange can still send or receive anything."""
        state = self.states.get(exchange.stream_id)
        return state is not None and not state.stopped

    def _state(self, exchange: Exchange) -> _State:
        state = self.states.get(exchange.stream_id)
        if state is None:
            stream_id = exchange.stream_id
            raise StreamClosedError(f"stream {stream_id} is closed", stream_id)
        return state

    def _sending(self, exchange: Exchange) -> _State:
        state = self._state(exchange)
        if not state.sends or state.stopped:
            stream_id = exchange.stream_id
            raise StreamClosedError(
                f"our half of stream {stream_id} has ended", stream_id
            )
        return state

    def _sending_by_call(self, exchange: Exchange) -> _State:
        """Raise, too, if a source produces the body."""
        state = self._sending(exchange)
        if state.source is not None:
            raise StreamStateError(
                f"stream {exchange.stream_id}: its body comes from a source already"
            )
        return state

    def _queue(self, exchange: Exchange, name: str, *args: Any) -> None:
        """Queue on the stream, unless the peer has ended our half.

        STOP_SENDING may have come with what is being handled, or before the request.
        """
        stream_id = exchange.stream_id
        try:
            getattr(self._http(), name)(stream_id, *args)
        except RuntimeError:
            self.states[stream_id].stopped = True
            raise StreamClosedError(
                f"our half of stream {stream_id} has ended", stream_id
            ) from None

    def _http(self) -> H3Connection:
        http: H3Connection = self.owner.require_http()
        return http

    def check_end(self, exchange: Exchange) -> None:
        """Call ``closed`` of an exchange, if both halves have ended."""
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if state is None or state.sends or state.receives:
            return
        del self.states[stream_id]
        self._senders.discard(stream_id)
        self.owner.forget(exchange)
        self._tell(
            exchange,
            partial(
                self.closed,
                exchange,
                state.failure,
                state.error_code,
                state.body_bytes_sent,
            ),
        )

    def _tell(self, exchange: Exchange, call: Callable[[], None]) -> None:
        """Report an end to an exchange, a call of which may have caused it."""
        if not self._defers:
            call()
            return
        if not self._due:
            self.loop.call_soon(self.tell_ends)
        self._due.append((exchange, call))

    def tell_ends(self) -> None:
        """Report the ends that were not reported to exchanges yet."""
        while self._due:
            exchange, call = self._due.popleft()
            self.call(exchange, call)

    def call(self, exchange: Exchange, call: Callable[[], object]) -> None:
        """Call an exchange; an exception ends only this exchange."""
        if not self._defers:
            call()
            return
        try:
            call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.owner.replace(exchange_failed(exchange, error))

    def make_exchange(self, stream_id: int, request: RequestReceived) -> Exchange:
        """Make the exchange of a request; answer 500 if its factory fails."""
        try:
            exchange: Exchange = self.new_exchange(stream_id, request)
            return exchange
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return _Unmade(self, stream_id, request, error)

    def tell_closing(self, exchange: Exchange) -> None:
        """Report to an exchange that the server begins to stop."""
        self._tell(exchange, partial(self.closing, exchange))

    def disconnected(self, released: Callable[[], object]) -> None:
        """Handle the end of the connection: end its tasks, then call ``released``."""
        self.tell_ends()
        self.owner = self._proxy
        self.tasks.connection_lost(released)

    # ---- Receiving ----

    def section_received(
        self, exchange: Exchange, headers: Headers, ended: bool
    ) -> None:
        """Handle a header section after that of a request."""
        state = self.states.get(exchange.stream_id)
        if state is None or not state.receives:
            return
        first = headers[0] if headers else (b"", b"")
        if state.declined:
            pass
        elif not self.client_side or state.answered or first[0] != b":status":
            self.trailers_received(exchange, headers)
        elif first[1][:1] == b"1":
            self.informational_received(exchange, int(first[1]), headers[1:])
        else:
            state.answered = True
            self.response_received(exchange, int(first[1]), headers[1:])
        if ended:
            self.message_ended(exchange)

    def body_received(self, exchange: Exchange, data: bytes, ended: bool) -> None:
        """Handle a piece of the body."""
        state = self.states.get(exchange.stream_id)
        if state is None or not state.receives:
            return
        arrival = state.arrival
        arrival.came += len(data)
        if state.declined:
            self.owner.discarded(exchange.stream_id, arrival.came)
        elif data:
            state.unread += len(data)
            self.data_received(exchange, data)
            if state.unread >= _UNREAD and not arrival.withheld and not ended:
                arrival.withheld = True
                self._quic.pause_reading(exchange.stream_id)
        if ended:
            self.message_ended(exchange)

    def message_ended(self, exchange: Exchange) -> None:
        """Handle the end of the peer's half."""
        state = self.states.get(exchange.stream_id)
        if state is not None and state.receives:
            state.receives = False
            if not state.declined:
                self.end_received(exchange)
            self.check_end(exchange)

    def acknowledge(self, exchange: Exchange, n: int) -> None:
        """Give the peer credit for ``n`` bytes more."""
        state = self.states.get(exchange.stream_id)
        if state is not None:
            state.unread -= n
            if state.arrival.withheld and state.unread < _UNREAD:
                state.arrival.withheld = False
                self._quic.resume_reading(exchange.stream_id)
                self.flush_soon()

    def break_off(
        self,
        exchange: Exchange,
        failure: Failure,
        error_code: int,
        *,
        incoming: bool = True,
        outgoing: bool = True,
    ) -> None:
        """Handle that the peer or the connection has broken off one half, or both."""
        state = self.states.get(exchange.stream_id)
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
                self.aborted,
                exchange,
                failure,
                error_code,
                incoming=incoming,
                outgoing=outgoing,
            ),
        )
        self.check_end(exchange)

    def cancel(self, exchange: Exchange, error_code: int, reason: str) -> None:
        """End what is left of an exchange because of the connection."""
        state = self.states.get(exchange.stream_id)
        if state is None:
            return
        if state.sends:
            self._reset_outgoing(exchange, error_code)
        if state.receives:
            self.owner.stop_stream(exchange.stream_id, error_code)
        failure = reset_failure(
            exchange.stream_id, error_code, remote=False, text=reason
        )
        self.break_off(exchange, failure, error_code)

    # ---- Sending header sections ----

    def send_section(self, exchange: Exchange, headers: Headers, end: bool) -> None:
        """Send a header section of bytes, unchanged."""
        state = self._sending(exchange)
        was_empty = not self._quic.queued_data(exchange.stream_id)
        self._queue(exchange, "send_headers", headers, end)
        name, value = headers[0][:2] if headers else (b"", b"")
        if name == b":status" and value[:1] != b"1":
            state.answered = True
            state.tunnel = state.tunnel and value[:1] == b"2"
            exchange.status = int(value)
            keep_response_fields(exchange, headers[1:])
        self._was_queued(exchange, state, 0, was_empty, end)

    def send_response(
        self, exchange: Exchange, status: int, fields: Any, end: bool
    ) -> None:
        """Send the final response's header section."""
        state = self._state(exchange)
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

    def send_fields(self, exchange: Exchange, fields: Any, end: bool) -> None:
        """Send a header section with its pseudo-header fields."""
        self.send_section(exchange, to_fields(fields), end)

    def send_continue(self, exchange: Exchange) -> None:
        """Send 100 (Continue), unless the request is complete or it is closed."""
        state = self.states.get(exchange.stream_id)
        if state is not None and state.receives and state.sends:
            self.send_informational(exchange, 100, ())

    def send_informational(self, exchange: Exchange, status: int, fields: Any) -> None:
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

    def send_trailers(self, exchange: Exchange, fields: Any) -> None:
        """End our half with trailers."""
        if not (self._sending_by_call(exchange).answered or self.client_side):
            raise StreamStateError(
                f"stream {exchange.stream_id}: no response was begun"
            )
        self.send_section(exchange, to_fields(fields), True)

    # ---- Sending bodies ----

    def queue_body(self, exchange: Exchange, data: Any, end: bool) -> None:
        """Queue a piece of the body.

        Raises ``BodyQueueFullError`` if more than 1 MiB would be queued, unless it is
        the first or the last piece, which is sent as fast as the peer reads.
        """
        self._queue_piece(exchange, self._sending_by_call(exchange), data, end)

    def _queue_piece(
        self, exchange: Exchange, state: _State, data: Any, end: bool
    ) -> None:
        stream_id = exchange.stream_id
        n = memoryview(data).nbytes
        if n > LEAST:
            count_bytes(n)
        queued = self._quic.queued_data(stream_id)
        if queued and queued + n > _STREAM_QUEUE:
            if end:
                self.send_body(exchange, data, None)
                return
            # A header section alone leaves room for a piece of any size.
            if state.body_bytes_sent:
                raise BodyQueueFullError(
                    f"stream {stream_id}: {queued + n} bytes would wait, more than "
                    f"{_STREAM_QUEUE}"
                )
        self._queue(exchange, "send_data", data, end)
        state.body_bytes_sent += n
        self._was_queued(exchange, state, n, not queued, end)

    def _was_queued(
        self, exchange: Exchange, state: _State, n: int, was_empty: bool, end: bool
    ) -> None:
        if state.outgoing is None:
            state.outgoing = Outgoing(exchange.stream_id)
        self.owner.watch_queued(state.outgoing, n, was_empty)
        if end:
            state.sends = False
            self.check_end(exchange)
        self.flush_soon()

    def queued(self, exchange: Exchange) -> int:
        """Return how many bytes are queued on the stream."""
        n: int = self._quic.queued_data(exchange.stream_id)
        return n

    def room(self, exchange: Exchange, wanted: int, ahead: bool) -> int:
        """Return how many of ``wanted`` bytes may be queued now.

        A stream gets room for the peer's credit, and a little more, so that a peer that
        gives none does not make us buffer much.
        """
        room = self._room(exchange.stream_id, wanted)
        if not room:
            state = self.states.get(exchange.stream_id)
            if state is not None:
                state.wanted = wanted
                self._senders.add(exchange.stream_id)
        return room

    def _room(self, stream_id: int, wanted: int) -> int:
        quic = self._quic
        if quic.closed:
            return 0  # what is sent now is lost; the event will report the reason
        queued = quic.queued_data(stream_id)
        if queued + wanted <= _AHEAD:
            return wanted
        credit = min(quic.send_credit(stream_id), quic.send_credit())
        room = min(
            PIECE,
            _STREAM_QUEUE - queued,
            credit + _AHEAD - quic.unsent_data(stream_id),
        )
        if quic.queued_data() >= _CONNECTION_QUEUE:
            room = min(room, _SHARE - queued)
        # Many small frames cost more than a wait.
        return min(room, wanted) if room >= min(wanted, _AHEAD // 2) else 0

    def notify_writable(self, exchange: Exchange, low: int) -> bool:
        """Return whether at most ``low`` bytes are queued; if not, call ``writable``
        later."""
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if stream_id in self._unsent:
            self._http()  # raises: the connection has ended
        if self._has_room_below(stream_id, low):
            return True
        if state is None:
            if self._defers or self._quic.queued_data(stream_id) <= low:
                return True  # `closed` reports the end of this exchange
            self._closed[stream_id] = exchange, low
            return False
        state.low = low
        self._senders.add(stream_id)
        return False

    def _has_room_below(self, stream_id: int, low: int) -> bool:
        """Whether at most ``low`` bytes wait, of a connection that can send them.

        One that is closed drops what is queued: who sends in a loop would never let
        the event come that says so.
        """
        quic = self._quic
        return not quic.closed and quic.queued_data(stream_id) <= low

    def look_for_sent(self) -> None:
        """Wake the closed exchanges whose queued bytes were sent."""
        for stream_id, (exchange, low) in list(self._closed.items()):
            if self._has_room_below(stream_id, low):
                del self._closed[stream_id]
                self.call(exchange, partial(self.writable, exchange))

    def nothing_is_sent(self) -> None:
        """Wake the closed exchanges whose queued bytes are lost."""
        closed, self._closed = self._closed, {}
        self._unsent.update(closed)
        for exchange, _ in closed.values():
            self.call(exchange, partial(self.writable, exchange))

    def release(self, exchange: Exchange) -> None:
        """Drop the reference to a stream on which nothing waits any more."""
        self.waiting.discard(exchange)
        self._closed.pop(exchange.stream_id, None)
        state = self.states.get(exchange.stream_id)
        if state is not None:
            state.wanted = 0
            state.low = -1
            if state.source is None:
                self._senders.discard(exchange.stream_id)

    def send_body(self, exchange: Exchange, body: Any, trailers: Any) -> None:
        """Send a body as fast as the peer reads, then ``trailers``."""
        state = self._sending_by_call(exchange)
        if trailers is not None:
            fields = to_fields(trailers)
            # Before anything is queued, so that an exception changes nothing.
            check_trailers(fields)
            state.trailers = fields
        state.source = _Bytes(body) if is_bytes_like(body) else _Pieces(body)
        state.deferred = False
        self._senders.add(exchange.stream_id)
        try:
            self._pull(exchange, state)
        except BaseException:
            state.source = None  # the caller learns of it
            raise

    def resume_body(self, exchange: Exchange) -> None:
        """Ask a body's source again after ``DATA_DEFERRED``."""
        self.resume_stream(exchange.stream_id)

    def resume_stream(self, stream_id: int) -> None:
        """Ask the body's source of a stream again, in a later turn."""
        state = self.states.get(stream_id)
        if state is not None and state.source is not None:
            state.deferred = False
            self._senders.add(stream_id)
            self.flush_soon()

    def _pull(self, exchange: Exchange, state: _State) -> None:
        """Queue pieces of a body's source while there is room."""
        stream_id = exchange.stream_id
        while state.source is not None and not state.deferred:
            room = self._room(stream_id, PIECE)
            if not room:
                return
            try:
                piece, flag = state.source.read(room)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                state.source = None
                self._source_failed(exchange, error)
                return
            if state.source is None:
                return  # the source has reset its own stream
            last = flag == DATA_EOF
            if last:
                state.source = None
            if piece or (last and state.trailers is None):
                self._queue_piece(
                    exchange, state, piece, last and state.trailers is None
                )
            if last and state.trailers is not None:
                self.send_section(exchange, state.trailers, True)
            state.deferred = flag == DATA_DEFERRED

    def _source_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.owner.body_failed(exchange, error)
        if exchange.stream_id not in self.states:
            return  # the source has reset its own stream
        code = ErrorCode.H3_INTERNAL_ERROR
        if self.client_side:
            # No response to a part of a request is of use.
            self.cancel(exchange, code, "its body failed")
            return
        stream_id = exchange.stream_id
        self._reset_outgoing(exchange, code)
        self.break_off(
            exchange,
            reset_failure(stream_id, code, remote=False, text="its body failed"),
            code,
            incoming=False,
        )

    def senders(self) -> list[int]:
        """The streams that wait for room."""
        return list(self._senders)

    def look_for_room(self, exchange: Exchange) -> None:
        """Call ``writable`` of an exchange that waited for room, if there is some."""
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if state is None:
            self._senders.discard(stream_id)
            return
        if state.source is not None and not state.deferred:
            try:
                self._pull(exchange, state)
            except ProtocolError as error:
                # It has not the length that content-length states.
                state.source = None
                self._source_failed(exchange, error)
        wakes = False
        if state.wanted and self._room(stream_id, state.wanted):
            state.wanted = 0
            wakes = True
        if state.low >= 0 and self._has_room_below(stream_id, state.low):
            state.low = -1
            wakes = True
        if (
            not state.wanted
            and state.low < 0
            and (state.source is None or state.deferred)
        ):
            self._senders.discard(stream_id)
        if wakes:
            self.call(exchange, partial(self.writable, exchange))

    # ---- The end ----

    def reset(self, exchange: Exchange, error_code: int) -> None:
        """Reset both halves, as far as they have not ended.

        A response that was sent whole, and the rest of its request declined, has ended
        as over HTTP/2, where the client would have been sent RST_STREAM by now.
        """
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if state is None:
            return
        code = _to_code(error_code)
        if state.stopped:
            code = ErrorCode.H3_REQUEST_CANCELLED
        if state.sends or self._quic.unsent_data(stream_id):
            self._reset_outgoing(exchange, code)
        elif state.declined:
            return
        if state.receives:
            self.owner.stop_stream(stream_id, code)
        failure = reset_failure(stream_id, code, remote=False)
        self._ended_here(exchange, state, failure, code, True, True)

    def refuse_body(self, exchange: Exchange) -> None:
        """Reset only our half."""
        state = self.states.get(exchange.stream_id)
        if state is not None and state.sends:
            code = ErrorCode.H3_REQUEST_CANCELLED
            self._reset_outgoing(exchange, code)
            self.break_off(
                exchange,
                reset_failure(exchange.stream_id, code, remote=False),
                code,
                incoming=False,
            )

    def _reset_outgoing(self, exchange: Exchange, error_code: int) -> None:
        state = self.states[exchange.stream_id]
        # The unsent bytes include frame headers.
        unsent = self._quic.unsent_data(exchange.stream_id)
        state.body_bytes_sent = max(0, state.body_bytes_sent - unsent)
        self.owner.reset_stream(exchange.stream_id, error_code)

    def stop_request(self, exchange: Exchange, error_code: int | None = None) -> None:
        """Ask the peer to stop sending.

        Without a code, the response is complete, and STOP_SENDING is sent later: a
        client that gets it at once may lose the response (RFC 9114, 4.1).
        """
        state = self.states.get(exchange.stream_id)
        if state is None or not state.receives:
            return
        if error_code is None:
            if not (
                state.tunnel or state.declined or exchange.stream_id == self.ending
            ):
                # Received data need no credit any more, and what arrives is dropped.
                state.declined = True
                self.acknowledge(exchange, state.unread)
                state.arrival = Arrival()
                self.owner.request_answered(exchange.stream_id)
            return
        self.owner.stop_stream(exchange.stream_id, error_code)
        if not self.client_side and state.failure is None:
            self.owner.request_declined(exchange.stream_id)
        failure = None
        if self.client_side:
            failure = reset_failure(exchange.stream_id, error_code, remote=False)
        # A complete response is a good end, even if the request was stopped before or
        # after it.
        self._ended_here(exchange, state, failure, error_code, True, False)

    def _ended_here(
        self,
        exchange: Exchange,
        state: _State,
        failure: Failure | None,
        error_code: int,
        incoming: bool,
        outgoing: bool,
    ) -> None:
        if failure is not None and state.failure is None:
            state.failure = failure
            state.error_code = error_code
        if incoming:
            state.receives = False
        if outgoing:
            state.sends = False
            state.source = None
        self.check_end(exchange)

    def keep_record(self, exchange: Exchange) -> None:
        """A server's stream is referred to until it is closed."""

    def drop(self, stream_id: int, sends: bool, receives: bool, task: Any) -> None:
        """Reset a stream that nothing refers to any more."""
        if task is not None:
            task.cancel()
        state = self.states.pop(stream_id, None)
        self._senders.discard(stream_id)
        with contextlib.suppress(ReferenceError):  # the connection is gone
            self.owner.dropped(
                stream_id,
                sends and state is not None and state.sends,
                receives and state is not None and state.receives,
            )

    # ---- Features that differ in HTTP/3 ----

    def push_enabled(self) -> bool:
        """Return whether the client allows a further push (RFC 9114, 7.2.7)."""
        try:
            return self._http().next_push_id is not None and self._has_push_left()
        except ConnectionTerminatedError:
            return False

    def _has_push_left(self) -> bool:
        if len(self._pushes) >= _PUSHES:
            self._pushes = {
                push_id: stream_id
                for push_id, stream_id in self._pushes.items()
                if stream_id in self.states or not self._quic.stream_settled(stream_id)
            }
        return len(self._pushes) < _PUSHES

    def push(self, exchange: Exchange, fields: Any) -> tuple[int, RequestReceived]:
        """Promise a response, to be sent on a push stream (RFC 9114, 4.6)."""
        headers = to_fields(fields)
        request = make_request(headers, "3")
        stream_id = -1
        # The client allows none, or no more; or it is gone.
        with contextlib.suppress(NoAvailablePushIDError, ConnectionTerminatedError):
            http = self._http()
            push_id = http.next_push_id
            if push_id is not None and self._has_push_left():
                stream_id = self._promise(exchange, headers)
                self._pushes[push_id] = stream_id
                pushed = self.states[stream_id] = _State(tunnel=False)
                pushed.receives = False
        return stream_id, request

    def _promise(self, exchange: Exchange, headers: Headers) -> int:
        state = self._sending(exchange)
        was_empty = not self._quic.queued_data(exchange.stream_id)
        try:
            stream_id = self._http().send_push_promise(exchange.stream_id, headers)
        except RuntimeError:
            # STOP_SENDING has come with what is being handled.
            state.stopped = True
            raise StreamClosedError(
                f"our half of stream {exchange.stream_id} has ended",
                exchange.stream_id,
            ) from None
        self._was_queued(exchange, state, 0, was_empty, False)
        return stream_id

    def adopt(self, exchange: Exchange) -> None:
        """Make an exchange the one of a push that was promised."""
        if exchange.stream_id in self.states:
            self.push_begun(exchange)
            self.owner.push_adopted(exchange)

    def pushed_stream(self, push_id: int | None) -> int:
        """Return the stream of a push whose response need not have arrived, or -1."""
        return -1 if push_id is None else self._pushes.get(push_id, -1)

    def pushes_from(self, push_id: int) -> list[int]:
        """Return the identifiers of such pushes from ``push_id`` on."""
        return [number for number in self._pushes if number >= push_id]

    # ---- The connection ----

    def send_datagram(self, exchange: Exchange, data: Any) -> None:
        """Send a datagram (RFC 9297)."""
        self.owner.send_http_datagram(exchange.stream_id, data)

    def set_priority(self, exchange: Exchange, urgency: int, incremental: bool) -> None:
        """Change the priority of our body (RFC 9218)."""
        with contextlib.suppress(ValueError):  # the client may have stopped it
            self._quic.set_stream_priority(exchange.stream_id, urgency, incremental)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection: ``peername``, ``sockname``,
        ``peercert`` and ``tls``.

        ``peercert`` is a dict as that of ``ssl``, of a certificate that was verified.
        ``tls`` is a dict of ``version``, which is that of TLS 1.3 (RFC 9001, 4.2),
        ``cipher_suite``, a number or None, ``chain``, the peer's certificates as DER,
        and ``own``, ours in PEM, or None.
        """
        with contextlib.suppress(ReferenceError):
            if name == "peername":
                return self.owner.client_address
            if name == "sockname":
                return self.owner.server_address
            if name == "peercert":
                return self._peer_certificate() or default
            if name == "tls":
                state = self._quic.tls
                own = state.own_certificate
                return {
                    "version": 0x0304,
                    "cipher_suite": state.cipher_suite,
                    "chain": list(self._quic.peer_certificates),
                    "own": None if own is None else DER_cert_to_PEM_cert(own),
                }
        return default

    def _peer_certificate(self) -> dict[str, Any] | None:
        if self._peercert is None and self._quic.handshake_complete:
            # As ssl, which decodes only what it has verified.
            self._peercert = {}
            configuration = self._quic.configuration
            mode = configuration.verify_mode
            chain = self._quic.peer_certificates
            verified = configuration.is_client if mode is None else mode != 0
            if chain and verified:
                with contextlib.suppress(ValueError):
                    self._peercert = read_certificate(chain[0]).to_dict()
        return self._peercert

    def flush_soon(self) -> None:
        """Write what is queued in the loop's next turn."""
        with contextlib.suppress(ReferenceError):
            self.owner.transmit_soon()


class _Unmade(PythonExchange):
    """Replaces an exchange that could not be made."""

    def __init__(
        self,
        http: H3Link,
        stream_id: int,
        request: RequestReceived,
        error: BaseException,
    ) -> None:
        super().__init__(http, stream_id, request)
        self._error = error

    def request_received(self, request: RequestReceived) -> None:
        raise self._error


class _Bytes:
    """A body of bytes, as a source of pieces."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(bytes(data))

    def read(self, n: int) -> tuple[memoryview, int]:
        piece, self._data = self._data[:n], self._data[n:]
        return piece, DATA_EOF if not self._data else 0


class _Pieces:
    """A body of another kind, in pieces that are at most as large as requested.

    The source itself may return pieces of any size, such as an iterator's.
    """

    def __init__(self, body: Any) -> None:
        self._source = make_source(body)
        self._rest: Any = b""
        self._flag = 0

    def read(self, n: int) -> tuple[Any, int]:
        piece = self._rest
        if not piece:
            piece, self._flag = self._source.read(n)
        if len(piece) <= n:
            self._rest = b""
            return piece, self._flag
        view = memoryview(piece)
        self._rest = view[n:]
        return view[:n], 0


def to_fields(headers: Any, status: Any = None) -> Headers:
    """Return fields as tuples of bytes, with names in lower case.

    With ``status``, they are those of a response.
    """
    # A third item that is true keeps a field out of QPACK's table.
    fields: Headers = [(f[0].lower(), *f[1:]) for f in to_pairs(headers, status)]
    return fields


def _to_code(error_code: int) -> int:
    if error_code in H2ErrorCode.__members__.values():
        # It may be a number, too: HTTP/3 has no codes that low.
        return _OF_HTTP2.get(error_code, ErrorCode.H3_GENERAL_PROTOCOL_ERROR)
    return error_code


def reset_failure(
    stream_id: int, error_code: int, *, remote: bool, text: str = ""
) -> Callable[[], StreamResetError]:
    """Return a function that makes the ``StreamResetError`` of a stream, with
    ``text``."""

    def failure() -> StreamResetError:
        return StreamResetError(
            stream_id,
            error_code,
            remote=remote,
            unprocessed=remote and error_code == ErrorCode.H3_REQUEST_REJECTED,
            reason=text,
            code_name=error_code_name(error_code, ErrorCode),
        )

    return failure
