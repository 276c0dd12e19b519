"""HTTP/3's half of the exchanges of a connection (RFC 9114)."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from nghttp2py.asyncio.h3_bounds import Arrival, Outgoing
from nghttp2py.asyncio.memory import count_body
from nghttp2py.asyncio.stream_link import Codes, StreamLink
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.asyncio.writer import PIECE, Failure
from nghttp2py.errors import (
    BodyQueueFullError,
    HeadersError,
    ProtocolError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.errors import ErrorCode as H2ErrorCode
from nghttp2py.exchange import (
    Exchange,
    ExchangeFactory,
    PythonConnection,
    PythonExchange,
    exchange_failed,
)
from nghttp2py.h2 import RequestReceived
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, is_bytes_like, make_source
from nghttp2py.h2.convert import to_pairs
from nghttp2py.h3 import H3Connection
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.events import Headers

__all__ = ["H3Link", "to_fields", "to_request"]


# Body bytes that come in and are not read, before the peer gets no more credit.
# Beyond them it may send what it has credit for, `max_stream_data`.
_UNREAD = 65536

# What may be queued of a stream beyond the credit that the peer has given: a small
# response goes without a wait.
_AHEAD = 2048

# A stream with credit may have so much on its way, acknowledgements outstanding,
# while all streams together have less than the second number; from then on the third.
_STREAM_QUEUE = 1 << 20
_CONNECTION_QUEUE = 8 << 20
_SHARE = 16384

# HTTP/3's codes that mean what HTTP/2's do (RFC 9114, A.4).
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
    """What the connection knows of one exchange."""

    def __init__(self, *, tunnel: bool) -> None:
        self.sends = True  # our half has no end yet
        self.receives = True
        self.tunnel = tunnel
        self.answered = False  # the final response's header section came, or went
        self.declined = False  # what still comes of the request means nothing
        self.failure: Failure | None = None
        self.error_code = 0
        self.unread = 0  # bytes that came in without credit for more
        self.arrival = Arrival()
        self.outgoing: Outgoing | None = None
        self.body_bytes_sent = 0
        # What `writable` waits for: room for so many bytes, or a short queue.
        self.wanted = 0
        self.low = -1
        # A body that is pulled, and the fields after it.
        self.source: Any = None
        self.deferred = False
        self.trailers: Any = None


class H3Link(StreamLink, PythonConnection):
    """A connection of HTTP/3, as its exchanges see it.

    ``states`` has what is known of each exchange that has not ended;
    ``owner.forget(exchange)`` is called when one has.  The exchanges of ``factory``
    are told of an end in a later turn of the loop, as it may have been made by a call
    of theirs; a ``Stream`` expects to be told at once.
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
        # Weak, as the connection has this object: no cycle is to outlive it.  Handlers
        # are given it: the cycle is cut when the connection is over.
        proxy = weakref.proxy(owner)
        PythonConnection.__init__(
            self, "HTTP/3", client_side, proxy if factory is None else owner, factory
        )
        self.prepare()
        self._proxy = proxy
        self._quic = quic
        self._defers = factory is not None
        self._due: deque[tuple[Exchange, Callable[[], None]]] = deque()
        self.tasks = CallbackTasks()
        self.states: dict[int, _State] = {}
        #: The stream whose end has come with the bytes that are taken now.
        self.ending = -1
        # Those that wait for room, or have a body that is pulled.
        self._senders: set[int] = set()
        # Closed exchanges whose queued bytes a coroutine waits for.
        self._closed: dict[int, tuple[Exchange, int]] = {}
        self._unsent: set[int] = set()  # those whose bytes were lost

    def make_failure(
        self, stream_id: int, error_code: int, reason: str
    ) -> Callable[[], Exception]:
        """Return what makes the exception of a stream that we reset."""
        return reset_failure(stream_id, error_code, remote=False, text=reason)

    # ---- The life of an exchange ----

    def begin(self, exchange: Exchange, request: Headers | RequestReceived) -> None:
        """Begin to know an exchange: its request has come, or goes out now."""
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
        """Return whether the exchange can take or give anything still."""
        return exchange.stream_id in self.states

    def _state(self, exchange: Exchange) -> _State:
        state = self.states.get(exchange.stream_id)
        if state is None:
            stream_id = exchange.stream_id
            raise StreamClosedError(f"stream {stream_id} is closed", stream_id)
        return state

    def _sending(self, exchange: Exchange) -> _State:
        state = self._state(exchange)
        if not state.sends:
            stream_id = exchange.stream_id
            raise StreamClosedError(
                f"our half of stream {stream_id} has ended", stream_id
            )
        return state

    def _http(self) -> H3Connection:
        http: H3Connection = self.owner.require_http()
        return http

    def check_end(self, exchange: Exchange) -> None:
        """Tell the exchange of its end, when both halves have ended."""
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
        """Tell an exchange of an end, which a call of its own may have made."""
        if not self._defers:
            call()
            return
        if not self._due:
            self.loop.call_soon(self.tell_ends)
        self._due.append((exchange, call))

    def tell_ends(self) -> None:
        """Tell exchanges of the ends that they were not told of yet."""
        while self._due:
            exchange, call = self._due.popleft()
            self.call(exchange, call)

    def call(self, exchange: Exchange, call: Callable[[], object]) -> None:
        """Call an exchange; what it raises ends it, and no other."""
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
        """Make the exchange of a request; one whose factory fails answers 500."""
        try:
            exchange: Exchange = self.new_exchange(stream_id, request)
            return exchange
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return _Unmade(self, stream_id, request, error)

    def tell_closing(self, exchange: Exchange) -> None:
        """Tell an exchange that the server begins to stop."""
        self._tell(exchange, partial(self.closing, exchange))

    def disconnected(self, released: Callable[[], object]) -> None:
        """The connection is over: end its tasks, and call ``released`` after them."""
        self.tell_ends()
        self.owner = self._proxy
        self.tasks.connection_lost(released)

    # ---- What comes in ----

    def section_received(
        self, exchange: Exchange, headers: Headers, ended: bool
    ) -> None:
        """Take a header section that is not a request's first."""
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
        """Take a piece of the body."""
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
        """Take the end of the peer's half."""
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
        """A half, or both, broke off: the peer did it, or the connection."""
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
        # The response is whole, the request need not be (RFC 9114, 4.1).
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
        """End what is left of an exchange, for a reason of the connection's."""
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

    # ---- What goes out: header sections ----

    def send_section(self, exchange: Exchange, headers: Headers, end: bool) -> None:
        """Send a header section of bytes, as it is."""
        state = self._sending(exchange)
        was_empty = not self._quic.queued_data(exchange.stream_id)
        self._http().send_headers(exchange.stream_id, headers, end)
        name, value = headers[0][:2] if headers else (b"", b"")
        if name == b":status" and value[:1] != b"1":
            state.answered = True
            state.tunnel = state.tunnel and value[:1] == b"2"
            exchange.status = int(value)
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
        """Send 100 (Continue), unless the request has come whole or is closed."""
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
        if not (self._sending(exchange).answered or self.client_side):
            raise StreamStateError(
                f"stream {exchange.stream_id}: no response was begun"
            )
        self.send_section(exchange, to_fields(fields), True)

    # ---- What goes out: bodies ----

    def queue_body(self, exchange: Exchange, data: Any, end: bool) -> None:
        """Queue a piece of the body.

        Raises ``BodyQueueFullError`` if more than 1 MiB would wait, unless it is the
        first or the last, which is sent as the peer takes it.
        """
        stream_id = exchange.stream_id
        state = self._sending(exchange)
        n = memoryview(data).nbytes
        count_body(n)
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
        self._http().send_data(stream_id, data, end)
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
        """Return how many bytes wait on the stream."""
        n: int = self._quic.queued_data(exchange.stream_id)
        return n

    def room(self, exchange: Exchange, wanted: int, ahead: bool) -> int:
        """Return how many of ``wanted`` bytes may be queued now.

        A stream gets what the peer has given it credit for, and a little more, so
        that a peer which gives none does not make us hold much.
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
            return 0  # what is sent now is lost; the event will say why
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
        """Return whether at most ``low`` bytes wait; else ``writable`` comes."""
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if stream_id in self._unsent:
            self._http()  # raises: the connection is over
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
        """Wake the closed exchanges whose queued bytes have gone out."""
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
        """Let go of a stream on which nothing waits any more."""
        self.waiting.discard(exchange)
        self._closed.pop(exchange.stream_id, None)
        state = self.states.get(exchange.stream_id)
        if state is not None:
            state.wanted = 0
            state.low = -1
            if state.source is None:
                self._senders.discard(exchange.stream_id)

    def send_body(self, exchange: Exchange, body: Any, trailers: Any) -> None:
        """Have a body pulled as the peer takes it, ``trailers`` after it."""
        state = self._sending(exchange)
        if state.source is not None:
            raise StreamStateError(
                f"stream {exchange.stream_id}: a body is being sent already"
            )
        if trailers is not None:
            state.trailers = to_fields(trailers)
        state.source = _Bytes(body) if is_bytes_like(body) else _Pieces(body)
        state.deferred = False
        self._senders.add(exchange.stream_id)
        try:
            self._pull(exchange, state)
        except BaseException:
            state.source = None  # the caller learns of it
            raise

    def resume_body(self, exchange: Exchange) -> None:
        """Ask a body's source again that had nothing."""
        self.resume_stream(exchange.stream_id)

    def resume_stream(self, stream_id: int) -> None:
        """Ask the body's source of a stream again, in a later turn."""
        state = self.states.get(stream_id)
        if state is not None and state.source is not None:
            state.deferred = False
            self._senders.add(stream_id)
            self.flush_soon()

    def _pull(self, exchange: Exchange, state: _State) -> None:
        """Queue what a body's source gives, and there is room for."""
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
            last = flag == DATA_EOF
            if last:
                state.source = None
            if piece or (last and state.trailers is None):
                self.queue_body(exchange, piece, last and state.trailers is None)
            if last and state.trailers is not None:
                self.send_section(exchange, state.trailers, True)
            state.deferred = flag == DATA_DEFERRED

    def _source_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.owner.body_failed(exchange, error)
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
        """Let an exchange go on that waited for room, if there is some."""
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
        """Break off what has not ended, in both directions."""
        stream_id = exchange.stream_id
        state = self.states.get(stream_id)
        if state is None:
            return
        code = _to_code(error_code)
        if state.sends or self._quic.queued_data(stream_id):
            self._reset_outgoing(exchange, code)
        if state.receives:
            self.owner.stop_stream(stream_id, code)
        failure = reset_failure(stream_id, code, remote=False)
        self._ended_here(exchange, state, failure, code, True, True)

    def refuse_body(self, exchange: Exchange) -> None:
        """Break off our half only."""
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
        # Frame headers are among what is unsent.
        unsent = self._quic.unsent_data(exchange.stream_id)
        state.body_bytes_sent = max(0, state.body_bytes_sent - unsent)
        self.owner.reset_stream(exchange.stream_id, error_code)

    def stop_request(self, exchange: Exchange, error_code: int | None = None) -> None:
        """Have the peer send no more.

        Without a code, the response is complete: the client is told later, for one
        that is told at once may lose the response (RFC 9114, 4.1).
        """
        state = self.states.get(exchange.stream_id)
        if state is None or not state.receives:
            return
        if error_code is None:
            if not (
                state.tunnel or state.declined or exchange.stream_id == self.ending
            ):
                # What has come needs no credit any more, and what comes is dropped.
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
        # A whole answer is a good end, though the request was not, which may have
        # been stopped before the answer or after it.
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

    # ---- What HTTP/3 has in another way ----

    def push(self, exchange: Exchange, fields: Any) -> tuple[int, RequestReceived]:
        """Return -1 and the request: we take no client's pushes (RFC 9114, 4.6)."""
        return -1, to_request(to_fields(fields))

    # ---- The connection ----

    def send_datagram(self, exchange: Exchange, data: Any) -> None:
        """Send a datagram (RFC 9297)."""
        self.owner.send_http_datagram(exchange.stream_id, data)

    def set_priority(self, exchange: Exchange, urgency: int, incremental: bool) -> None:
        """Change the priority of our body (RFC 9218)."""
        with contextlib.suppress(ValueError):  # the client may have stopped it
            self._quic.set_stream_priority(exchange.stream_id, urgency, incremental)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection: ``peername``."""
        with contextlib.suppress(ReferenceError):
            if name == "peername":
                return self.owner.client_address
        return default

    def flush_soon(self) -> None:
        """Write what is queued in the loop's next turn."""
        with contextlib.suppress(ReferenceError):
            self.owner.transmit_soon()


class _Unmade(PythonExchange):
    """Stands for an exchange that could not be made."""

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
    """A body of another kind, in pieces that are no larger than is asked for.

    A source gives what it has: an iterator's piece has any size.
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

    They are those of a response with ``status`` if it is given.
    """
    # A third item tells that a field must stay out of QPACK's table.
    fields: Headers = [(f[0].lower(), *f[1:]) for f in to_pairs(headers, status)]
    return fields


def to_request(headers: Headers) -> RequestReceived:
    """Make a request of its header section."""
    fields = {field[0]: field[1] for field in headers}
    target = fields.get(b":path", fields.get(b":authority", b""))
    return RequestReceived(
        fields[b":method"],
        target,
        [field for field in headers if field[0][:1] != b":"],
        "3",
        scheme=fields.get(b":scheme"),
        authority=fields.get(b":authority"),
        protocol=fields.get(b":protocol"),
        fields=headers,
    )


def _to_code(error_code: int) -> int:
    if error_code in H2ErrorCode.__members__.values():
        # As a number, too: HTTP/3 has no codes so low.
        return _OF_HTTP2.get(error_code, ErrorCode.H3_GENERAL_PROTOCOL_ERROR)
    return error_code


def reset_failure(
    stream_id: int, error_code: int, *, remote: bool, text: str = ""
) -> Callable[[], StreamResetError]:
    """Return what makes the ``StreamResetError`` of a stream; ``text`` says more."""

    def failure() -> StreamResetError:
        try:
            reason = ErrorCode(error_code).name
        except ValueError:
            reason = ""
        return StreamResetError(
            stream_id,
            error_code,
            remote=remote,
            unprocessed=remote and error_code == ErrorCode.H3_REQUEST_REJECTED,
            reason=": ".join(filter(None, (reason, text))),
        )

    return failure
