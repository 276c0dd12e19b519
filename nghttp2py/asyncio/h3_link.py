"""HTTP/3's half of the exchanges of a connection (RFC 9114)."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from ssl import DER_cert_to_PEM_cert
from typing import Any

from nghttp2py.asyncio.h3_bounds import Arrival, Watch
from nghttp2py.asyncio.http3 import (
    ExchangeState,
    HTTP3Exchanges,
    reset_failure,
    to_fields,
)
from nghttp2py.asyncio.stream_link import Codes, Failure, StreamLink
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.writer import PIECE
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ProtocolError,
    error_code_name,
)
from nghttp2py.errors import ErrorCode as H2ErrorCode
from nghttp2py.exchange import Exchange, ExchangeFactory
from nghttp2py.h2 import RequestReceived
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, is_bytes_like, make_source
from nghttp2py.h2.convert import make_request
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.convert import check_trailers
from nghttp2py.h3.events import Headers
from nghttp2py.h3.exceptions import NoAvailablePushIDError
from nghttp2py.x509 import read_certificate

__all__ = ["H3Link"]


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


class H3Link(StreamLink, HTTP3Exchanges):
    """The HTTP/3 connection of exchanges: what is not needed for each of them."""

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
        watch: Watch,
        timeouts: Timeouts,
        *,
        client_side: bool,
        factory: ExchangeFactory | None = None,
    ) -> None:
        # Weak, because the connection refers to this object: a cycle would outlive it.
        # Handlers get the object itself: that cycle is broken when the connection ends.
        self._proxy: Any = weakref.proxy(owner)
        HTTP3Exchanges.__init__(
            self,
            self._proxy if factory is None else owner,
            quic,
            watch,
            timeouts,
            client_side,
            factory,
        )
        self.prepare()
        # The peer's certificate, when it is known: empty if there is none.
        self._peercert: dict[str, Any] | None = None
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

    def request_sent(self, exchange: Exchange, fields: Headers) -> None:
        """Register an exchange whose request is sent now."""
        method = next((f[1] for f in fields if f[0] == b":method"), None)
        self.states[exchange.stream_id] = ExchangeState(tunnel=method == b"CONNECT")

    def abandon(self, exchange: Exchange) -> None:
        """Forget an exchange of which nothing was sent."""
        del self.states[exchange.stream_id]
        self.tell_closed(
            exchange,
            reset_failure(
                exchange.stream_id, ErrorCode.H3_REQUEST_CANCELLED, remote=False
            ),
            ErrorCode.H3_REQUEST_CANCELLED,
            0,
        )

    def disconnected(self, released: Callable[[], object]) -> None:
        """Handle the end of the connection: end its tasks, then call ``released``."""
        self.connection_lost()
        self.owner = self._proxy
        self.tasks.connection_lost(released)

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

    # ---- Sending bodies ----

    def look_for_sent(self) -> None:
        """Wake the closed exchanges whose queued bytes were sent."""
        for stream_id, (exchange, low) in list(self._closed.items()):
            if self._has_room_below(stream_id, low):
                del self._closed[stream_id]
                self.make_writable(exchange)

    def nothing_is_sent(self) -> None:
        """Wake the closed exchanges whose queued bytes are lost."""
        closed, self._closed = self._closed, {}
        self._unsent.update(closed)
        for exchange, _ in closed.values():
            self.make_writable(exchange)

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

    def _pull(self, exchange: Exchange, state: ExchangeState) -> None:
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
            self.make_writable(exchange)

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
        state: ExchangeState,
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

    def has_push_left(self) -> bool:
        """Return whether the client may get one push more at once."""
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
            if push_id is not None and self.has_push_left():
                stream_id = self._promise(exchange, headers)
                self._pushes[push_id] = stream_id
                pushed = self.states[stream_id] = ExchangeState(tunnel=False)
                pushed.receives = False
        return stream_id, request

    def _promise(self, exchange: Exchange, headers: Headers) -> int:
        state = self._sending(exchange)
        was_empty = not self._quic.queued_data(exchange.stream_id)
        try:
            stream_id = self._http().send_push_promise(exchange.stream_id, headers)
        except RuntimeError:
            self.fail_stopped(exchange)
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

    def find_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection: ``sockname``, ``peercert`` and
        ``tls``; ``get_extra_info`` has ``peername``, too.

        ``peercert`` is a dict as that of ``ssl``, of a certificate that was verified.
        ``tls`` is a dict of ``version``, which is that of TLS 1.3 (RFC 9001, 4.2),
        ``cipher_suite``, a number or None, ``chain``, the peer's certificates as DER,
        and ``own``, ours in PEM, or None.
        """
        with contextlib.suppress(ReferenceError):
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


def _to_code(error_code: int) -> int:
    if error_code in H2ErrorCode.__members__.values():
        # It may be a number, too: HTTP/3 has no codes that low.
        return _OF_HTTP2.get(error_code, ErrorCode.H3_GENERAL_PROTOCOL_ERROR)
    return error_code
