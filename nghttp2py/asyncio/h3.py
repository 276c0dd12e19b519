"""HTTP/3 requests and responses for coroutines (RFC 9114), on our QUIC.

Everything is bounded: a stream that is not read stops the peer, and sending waits for
the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, TypeAlias, cast

from nghttp2py.arguments import check_callable, check_type
from nghttp2py.asyncio.frame_log import log_event
from nghttp2py.asyncio.h3_bounds import Arrival, Rate, Watch
from nghttp2py.asyncio.h3_link import H3Link
from nghttp2py.asyncio.h3_stream import EXPECT, H3RequestStream
from nghttp2py.asyncio.http3 import reset_failure, to_fields
from nghttp2py.asyncio.pump import CLOSE_TIMEOUT
from nghttp2py.asyncio.quic import QuicConnectionProtocol
from nghttp2py.asyncio.quic_log import EndLog
from nghttp2py.asyncio.stream import is_of_peer
from nghttp2py.asyncio.stream_state import Lent
from nghttp2py.asyncio.timeouts import CLIENT_TIMEOUTS, Timeouts, merge_timeouts
from nghttp2py.asyncio.waiters import Waiters, wait_for
from nghttp2py.asyncio.writer import HeadersLike
from nghttp2py.errors import (
    ConnectionTerminatedError,
    PushDisabledError,
    TunnelsNotEnabledError,
    error_code_name,
)
from nghttp2py.exchange import Exchange, ExchangeFactory, find_factory
from nghttp2py.h3 import (
    DatagramReceived,
    DataReceived,
    GoAwayReceived,
    H3Configuration,
    H3Connection,
    H3Event,
    HeadersReceived,
    PriorityUpdated,
    PushCancelled,
    SettingsReceived,
    StopSendingReceived,
    StreamAborted,
    StreamReset,
)
from nghttp2py.h3.connection import ErrorCode, Setting
from nghttp2py.h3.events import Headers
from nghttp2py.h3.exceptions import GoingAwayError, NotEnabledError
from nghttp2py.log_budget import MemoryLog
from nghttp2py.quic import QuicConnection
from nghttp2py.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
)
from nghttp2py.quic.events import StopSendingReceived as QuicStopSendingReceived
from nghttp2py.quic.events import StreamReset as QuicStreamReset
from nghttp2py.quic.packet import error_name

__all__ = ["H3Protocol", "H3RequestStream", "RequestHandler"]

logger = logging.getLogger(__name__)

_memory_log = MemoryLog(logger)

# All events; a client takes no pushes: a request has one response.  A malformed message
# ends only its stream (RFC 9114, 4.1.2).  Extended CONNECT needs a program that
# supports it (RFC 9220).
_CONFIGURATION = H3Configuration(
    extended=True,
    stream_errors=True,
    join_cookies=True,
    max_push_id=None,
    settings={Setting.ENABLE_CONNECT_PROTOCOL: None},
)

#: The same of a server that serves requests for tunnels.
TUNNEL_CONFIGURATION = dataclasses.replace(
    _CONFIGURATION, settings={Setting.ENABLE_CONNECT_PROTOCOL: 1}
)

# A client keeps a connection with a request alive (RFC 9114, 5.1): otherwise QUIC's
# idle timeout, which HTTP/2 does not have, would end it.
H3_CLIENT_TIMEOUTS = dataclasses.replace(CLIENT_TIMEOUTS, keepalive=Timeouts.keepalive)

# The identifier in the first GOAWAY of a graceful shutdown (RFC 9114, 5.2).
_NO_REQUEST = (1 << 62) - 4

# The most seconds that a shutdown waits for a client without requests to answer PING.
_ROUND_TRIP = 1.0

# Requests that a client may have open at once. libnghttp3 treats 4 KiB of
# acknowledgements, of up to 4 bytes each, while it encodes nothing as a flood.
_REQUESTS = 512

# Requests that a client may abandon: at once, and for each second, the bounds of
# nghttp2 for HTTP/2.  One that has got its response before the request was complete
# counts less: a refused upload (413) ends like this.
_RESET_BURST = 1000
_RESET_RATE = 33
_ANSWERED_COST = 0.5

# The most streams that we have stopped, or that were abandoned, and whose end may still
# be reported; a peer has at most its limit of open streams.
_STOPPED = 1024

# The rest of a request whose response is complete is dropped while it arrives at
# `min_rate`: measured in intervals of so many seconds, up to so many bytes, for so many
# requests at once.  Otherwise STOP_SENDING is sent.  Chromium passes a response to its
# page when it has sent the request, and never after STOP_SENDING.
_STOP_AFTER = 10.0
_DISCARDED = 64 << 20
_LINGERING = 16

# The code with which a missed bound ends a stream, or the connection.
_OVERDUE = {
    "settings": ErrorCode.H3_MISSING_SETTINGS,
    "headers": ErrorCode.H3_REQUEST_INCOMPLETE,
    "body": ErrorCode.H3_REQUEST_INCOMPLETE,
    "response": ErrorCode.H3_REQUEST_CANCELLED,
    "keepalive": ErrorCode.H3_NO_ERROR,
}

RequestHandler: TypeAlias = Callable[[H3RequestStream], Coroutine[Any, Any, None]]


class H3Protocol(QuicConnectionProtocol):
    """A connection of HTTP/3, whose streams are ``H3RequestStream``.

    ``connect`` and ``serve`` make it with ``create_protocol=H3Protocol``; their
    configuration must have ``alpn_protocols=H3_ALPN``.  A client calls ``open_stream``.
    For a server, ``functools.partial(H3Protocol, request_handler=...)`` names the
    coroutine function that is run as a task for each request, with its stream.  When
    that returns, the unread rest of the request is dropped.  If it raises before its
    response has begun, or returns without one, the response is 500; if it leaves a
    response without an end, the stream is reset.  It is cancelled when its response
    cannot be sent any more. ``request_handler`` may also be a subclass of
    ``BaseRequestHandler``, of which each request becomes an instance as it does over
    HTTP/2, or an ``ExchangeFactory``.

    Responses are sent in the order of the client's priorities (RFC 9218).  ``timeouts``
    bounds every wait for the peer; by default a client bounds the wait for SETTINGS,
    and keeps a connection with a request alive.  ``extended`` and ``stream_errors`` of
    ``config`` are always on.
    """

    #: Called without arguments when the last open request of a client has ended.
    idle_hook: Callable[[], object] | None = None

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: object = None,
        *,
        request_handler: RequestHandler
        | type[Exchange]
        | ExchangeFactory
        | None = None,
        config: H3Configuration = _CONFIGURATION,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(quic)
        factory = find_factory(request_handler)
        if factory is None and request_handler is not None:
            check_callable("request_handler", request_handler)
        # The coroutine function that handles streams; None with a factory.
        self._coroutine = cast(
            "RequestHandler | None", None if factory is not None else request_handler
        )
        self._serves = request_handler is not None
        # An error of a stream must not affect others, nor end it without an event.
        check_type("config", config, H3Configuration, "an H3Configuration")
        if config is _CONFIGURATION and factory is not None and factory.takes_tunnels:
            config = TUNNEL_CONFIGURATION
        config = dataclasses.replace(
            config,
            extended=True,
            stream_errors=True,
            # Handlers get one cookie field (RFC 9114, 4.2.1).
            join_cookies=config.join_cookies or factory is not None,
        )
        self._config = _with_datagrams(config, quic)
        client = quic.configuration.is_client
        if timeouts is None and client:
            timeouts = H3_CLIENT_TIMEOUTS
        self._timeouts = timeouts = merge_timeouts(timeouts)
        if not client and not self._serves:
            # A subclass answers, and the requests are its own.
            timeouts = dataclasses.replace(timeouts, idle=None, keepalive=None)
        self._watch = Watch(self, timeouts)
        # A configuration may set a shorter keep-alive for every connection.
        times = [timeouts.keepalive, quic.configuration.keep_alive]
        self._keepalive = min((t for t in times if t is not None), default=None)
        self._kept_alive = False
        self._link = H3Link(
            self, quic, self._watch, timeouts, client_side=client, factory=factory
        )
        self._link.loop = self._loop
        self._link.serves = self._serves
        # A subclass may handle events by itself.
        self._link.direct = type(self).h3_event_received is H3Protocol.h3_event_received
        self._streams_by_id = self._link.exchanges
        # Requests that are sent on after their response, and those that were abandoned,
        # so that each counts once.
        self._answered = self._link.answered
        self._cut_short = self._link.cut_short
        self._released = asyncio.Event()
        self._openers: deque[asyncio.Future[None]] = deque()
        # For SETTINGS, the beginning of the end, the end of the last request.
        self._waiters = Waiters()
        self._going_away = False
        self._closing = False
        self._finishing = False
        self._shutdowns: set[asyncio.Task[None]] = set()
        self._http: H3Connection | None = None
        # Of a server: streams whose handlers are to be started, streams that it
        # has stopped.
        self._arrived: list[H3RequestStream] = []
        self._stopped: dict[int, None] = {}
        self._resets = Rate(_RESET_BURST, _RESET_RATE)

    # ---- What the application calls ----

    async def open_stream(
        self,
        headers: HeadersLike,
        *,
        end_stream: bool = False,
        expect_continue: float | bool = False,
    ) -> H3RequestStream:
        """Send a request's header section; a body may follow unless ``end_stream``.

        ``headers`` are pairs, or a mapping, of bytes or str; a third item that is true
        keeps a field out of QPACK's table (RFC 9204, 7.1). It waits while 512 requests
        are open, and for the server's SETTINGS if ``headers`` have ``:protocol`` (RFC
        9220).  Beyond the streams that the server allows it is sent when one of them
        has ended.  With ``expect_continue`` the request has ``expect: 100-continue``
        (RFC 9110, 10.1.1): the first call that sends some of the body waits until the
        server asks for it, or that many seconds (``True``: 1), and sends nothing if the
        response refuses it: then our half is reset.

        Raises ``ProtocolError`` of ``nghttp2py.h3.connection`` for fields that must not
        be sent, ``NotEnabledError`` if the server does not support Extended CONNECT,
        ``GoingAwayError`` after the server's GOAWAY or ``shutdown``, and
        ``ConnectionTerminatedError`` when the connection is over.
        """
        fields = to_fields(headers)
        if any(field[0] == b":protocol" for field in fields):
            await self.wait_settings()
        while True:
            if self._terminated is not None or self._quic.closed:
                raise self._termination_error(unprocessed=True)
            if self._going_away:
                raise GoingAwayError("the server takes no more requests")
            if self._closing:
                raise GoingAwayError("shutdown() was called", remote=False)
            if len(self._streams_by_id) < _REQUESTS:
                break
            await self._wait_to_open()
        if expect_continue:
            fields.append(EXPECT)
        return self._send_request(fields, end_stream, float(expect_continue))

    def try_open(self, fields: Headers, end_stream: bool) -> H3RequestStream | None:
        """Send a complete header section of a request, or return ``None`` if it has to
        wait, or cannot be sent any more: see ``open_stream``."""
        if not self.is_available or len(self._streams_by_id) >= _REQUESTS:
            return None
        if any(field[0] == b":protocol" for field in fields):
            return None
        return self._send_request(to_fields(fields), end_stream, 0.0)

    def _send_request(
        self, fields: Headers, end_stream: bool, expecting: float
    ) -> H3RequestStream:
        stream_id = self._quic.get_next_available_stream_id()
        stream = H3RequestStream(self, self._link, stream_id, fields, client=True)
        self._link.request_sent(stream, fields)
        method = next((f[1] for f in fields if f[0] == b":method"), None)
        stream.request_sent(False, tunnel=method == b"CONNECT", expecting=expecting)
        try:
            stream.send_headers(fields, end_stream=end_stream)
        except BaseException:
            self._link.abandon(stream)
            raise
        self._streams_by_id[stream_id] = stream
        self.busy()
        return stream

    async def wait_free(self) -> None:
        """Wait until a request would not have to wait for the end of another.

        Return at once if no more requests can be sent.
        """
        again = False
        while self.is_full and self.is_available:
            await self._wait_to_open(first=again)
            again = True

    async def wait_settings(self) -> dict[int, int]:
        """Wait for the peer's SETTINGS, and return them.

        Raises ``ConnectionTerminatedError`` if the connection ends before.
        """
        while True:
            settings = self._require_http().received_settings
            if settings is not None:
                return settings
            await self._waiters.wait()

    async def wait_tunnels(self) -> None:
        """Wait for the peer's SETTINGS, which must allow extended CONNECT.

        Raises ``TunnelsNotEnabledError`` if they do not (RFC 9220, 3), and
        ``ConnectionTerminatedError`` if the connection ends before.
        """
        settings = await self.wait_settings()
        if not settings.get(Setting.ENABLE_CONNECT_PROTOCOL):
            raise TunnelsNotEnabledError

    def close(
        self, error_code: int = ErrorCode.H3_NO_ERROR, reason_phrase: str = ""
    ) -> None:
        """Close the connection at once: see ``shutdown``.

        On a connection that is closed this is a no-op.
        """
        self._begin_closing()
        super().close(error_code, reason_phrase)

    def abort(self) -> None:
        """Close the connection at once, as ``close`` does."""
        self.close()

    @property
    def client_address(self) -> Any:
        """The current address of a client, at a server, if it is known."""
        return self._quic.get_peer_address()

    @property
    def server_address(self) -> Any:
        """The address of the UDP socket, if it is known."""
        transport = self._transport
        return None if transport is None else transport.get_extra_info("sockname")

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        """The client's certificate, in the form of ``ssl.SSLSocket.getpeercert``.

        ``verify_mode`` of the configuration asks for it.
        """
        found: dict[str, Any] | None = self._link.get_extra_info("peercert")
        return found

    @property
    def http(self) -> H3Link:
        """The connection's half of its exchanges."""
        return self._link

    @property
    def stream_count(self) -> int:
        """The number of open requests."""
        return len(self._streams_by_id)

    @property
    def is_available(self) -> bool:
        """Whether requests can be sent."""
        return not (self._going_away or self._closing or self._quic.closed)

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait for the end of another."""
        return len(self._streams_by_id) >= _REQUESTS or not self._quic.streams_left()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._terminated is not None

    @property
    def is_closing(self) -> bool:
        """Whether this end is closing the connection, or it has ended."""
        return self._closing or self._terminated is not None

    async def wait_closing(self) -> None:
        """Wait until ``is_closing`` is true.

        A handler of an endless response (server-sent events) should wait for this and
        then end its response: otherwise ``shutdown`` takes its whole timeout.
        """
        while not self.is_closing:
            await self._waiters.wait()

    async def shutdown(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Accept no more requests, let the open ones finish, and close.

        The client gets GOAWAY (RFC 9114, 5.2).  What has not finished after ``timeout``
        seconds is aborted.  On a closed connection this is a no-op.
        """
        if self._http is not None and not self._quic.closed:
            self._begin_closing()
            with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
                await wait_for(self._finish(self._http), timeout)
        self.close()
        await self.wait_closed()

    def shut_down_soon(self, timeout: float | None = None) -> None:
        """Begin to shut down as ``shutdown`` does; ``wait_closed`` waits for the end.

        What has not finished after ``timeout`` seconds (``close`` of ``timeouts``) is
        broken off.  A second call with a shorter time shortens it.
        """
        self._begin_shutdown(self._timeouts.close if timeout is None else timeout)

    def _begin_shutdown(self, timeout: float | None) -> None:
        if self._quic.closed:
            return
        task = self._loop.create_task(self.shutdown(timeout))
        self._shutdowns.add(task)
        task.add_done_callback(self._shutdowns.discard)

    async def wait_closed(self) -> None:
        """Wait until the connection and the coroutines of handlers have ended.

        It waits for the latter at most ``close`` of ``timeouts``.
        """
        await super().wait_closed()
        if self._link.tasks.lost:
            await self._released.wait()

    # ---- Our own ----

    def _begin_closing(self) -> None:
        if not self._closing:
            self._closing = self._link.is_closing = True
            self._waiters.wake()
            self._wake_openers()
            for exchange in list(self._streams_by_id.values()):
                if not self._link.client_side:
                    self._link.tell_closing(exchange)
                elif isinstance(exchange, H3RequestStream):
                    exchange.end_upload()

    async def _wait_to_open(self, *, first: bool = False) -> None:
        waiter = self._loop.create_future()
        if first:
            self._openers.appendleft(waiter)
        else:
            self._openers.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake_opener()  # its turn is another's
            raise

    def _wake_opener(self) -> None:
        while self._openers:
            waiter = self._openers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_free(self) -> None:
        """Wake as many callers as requests can be sent now."""
        room = min(_REQUESTS - len(self._streams_by_id), self._quic.streams_left())
        for _ in range(min(room, len(self._openers))):
            self._wake_opener()

    def _wake_openers(self) -> None:
        while self._openers:
            self._wake_opener()

    async def _finish(self, http: H3Connection) -> None:
        if self._finishing:
            pass  # GOAWAY was sent
        elif self._quic.configuration.is_client:
            self._finishing = True
            self._send_goaway(http)
        else:
            self._finishing = True
            # A round trip later, the requests that are in flight now have arrived.
            was_idle = self._is_finished()
            self._send_goaway(http, _NO_REQUEST)
            with contextlib.suppress(asyncio.TimeoutError):
                await wait_for(self.ping(), _ROUND_TRIP if was_idle else None)
            self._send_goaway(http)
            if was_idle and not self._streams_by_id:
                self.transmit()
                return
        self.transmit()
        while not self._is_finished():
            await self._waiters.wait()

    def _log_frame(
        self, way: str, name: str, details: Iterable[tuple[str, int]]
    ) -> None:
        """Log a frame that is no event of a qlog trace."""
        log_event(self._quic.get_peer_address(), way, name, details)

    def _send_goaway(self, http: H3Connection, *last_id: int) -> None:
        http.send_goaway(*last_id)
        self._log_frame("send", "GOAWAY", [("last stream", i) for i in last_id])

    def _is_finished(self) -> bool:
        return self._quic.closed or (
            not self._streams_by_id and not self._quic.queued_data()
        )

    def _require_http(self) -> H3Connection:
        if self._terminated is not None:
            raise self._termination_error()
        if self._http is None:
            # Not before the handshake has begun, so that its frames are traced.
            self._http = H3Connection(self._quic, config=self._config)
            self._link.connection = self._http
            self._log_frame("send", "SETTINGS", _named(self._http.sent_settings))
        return self._http

    def _termination_error(
        self, unprocessed: bool = False
    ) -> ConnectionTerminatedError:
        event = self._terminated or self._quic.close_event
        assert event is not None
        code = event.error_code
        if event.frame_type is None:
            name = error_code_name(code, ErrorCode)
        else:
            name = error_name(code)
        return ConnectionTerminatedError(
            code,
            remote=self._quic.closed_by_peer,
            unprocessed=unprocessed,
            reason=event.reason_phrase,
            code_name=name,
        )

    def _log(self, text: str) -> None:
        # A line for each stream would let clients fill the log: a server has one bound
        # for all its connections.
        if self._end_log is None:
            self._end_log = EndLog()
        self._end_log.tell_by(logger, self.client_address, text)

    # ---- Calls of streams ----

    def require_http(self) -> H3Connection:
        """Return the ``H3Connection``; raise if it has ended."""
        return self._require_http()

    def transmit_soon(self) -> None:
        """Send what is queued in the loop's next turn."""
        self._transmit_soon()

    def has_early_data(self, stream_id: int) -> bool:
        """Return whether bytes of a request came as early data."""
        return self._quic.stream_early_data(stream_id)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Send STOP_SENDING."""
        self._require_http().stop_stream(stream_id, error_code)
        self._was_stopped(stream_id)
        self._transmit_soon()

    def request_declined(self, stream_id: int) -> None:
        """Handle that a request with a response is stopped."""
        if not self._closing:
            self._abandoned(stream_id, _ANSWERED_COST)

    def _was_stopped(self, stream_id: int) -> None:
        """Ignore what still arrives on a stream, its end included."""
        if not self._quic.configuration.is_client:
            self._watch.section_ended(stream_id)
            self._stopped[stream_id] = None
            if len(self._stopped) > _STOPPED:
                del self._stopped[next(iter(self._stopped))]

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Send RESET_STREAM; what is queued is dropped."""
        self._require_http().reset_stream(stream_id, error_code)
        # A queue that has its end is dropped, too.
        self._quic.reset_stream(stream_id, error_code)
        self._transmit_soon()

    def send_http_datagram(
        self, stream_id: int, data: bytes | bytearray | memoryview
    ) -> None:
        """Send a datagram of a stream (RFC 9297)."""
        http = self._require_http()
        if not (http.received_settings or {}).get(Setting.H3_DATAGRAM):
            raise NotEnabledError("the peer has not sent SETTINGS_H3_DATAGRAM = 1")
        http.send_datagram(stream_id, data)
        self._transmit_soon()

    def push_stream(self, stream: H3RequestStream, fields: Headers) -> H3RequestStream:
        """Promise a response on ``stream``: see ``H3RequestStream.push``."""
        stream_id, _ = self._link.push(stream, fields)
        if stream_id == -1:
            raise PushDisabledError("the client takes no push now (RFC 9114, 4.6)")
        pushed = H3RequestStream(self, self._link, stream_id, fields, client=True)
        pushed.without_request()
        self._link.adopt(pushed)
        return pushed

    def push_adopted(self, exchange: Exchange) -> None:
        """Handle that an exchange answers a push from now on."""
        if isinstance(exchange, H3RequestStream):
            # If its owner drops the stream, it is reset.
            exchange = Lent(exchange)
        self._streams_by_id[exchange.stream_id] = exchange

    def _push_cancelled(self, push_id: int) -> None:
        """Reset a push that the client does not want (RFC 9114, 7.2.3)."""
        stream_id = self._link.pushed_stream(push_id)
        if stream_id == -1:
            return
        code = ErrorCode.H3_REQUEST_CANCELLED
        self.reset_stream(stream_id, code)
        exchange = self._streams_by_id.get(stream_id)
        if exchange is not None:
            self._exchange_broken_off(exchange, StopSendingReceived(code, stream_id))

    def busy(self) -> None:
        """Keep the connection alive while a request is open (RFC 9114, 5.1)."""
        self._watch.busy()
        if not self._kept_alive and self._keepalive is not None:
            self._kept_alive = True
            self.set_keep_alive(self._keepalive)

    def stream_ended(self) -> None:
        """Handle the end of a client's stream, or of the last stream of a server."""
        self._wake_opener()
        if not self._streams_by_id:
            if self.idle_hook is not None:
                self.idle_hook()
            self._watch.idle()
            if self._kept_alive:
                self._kept_alive = False
                self.set_keep_alive(self._quic.configuration.keep_alive)

    def dropped(self, stream_id: int, sends: bool, receives: bool) -> None:
        """Reset a stream that was dropped before its end: a client's, or a push."""
        self._streams_by_id.pop(stream_id, None)
        if self._terminated is None:
            if sends:
                self.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            if receives:
                self.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        self.stream_ended()

    def body_failed(self, exchange: Exchange, error: BaseException) -> None:
        """Log what the source of a body has raised."""
        _memory_log.failed(
            error, "%r: the body of stream %d failed", self, exchange.stream_id
        )

    # ---- Calls of the bounds ----

    def _bodies_awaited(self) -> Collection[tuple[int, Arrival]]:
        if self._quic.configuration.is_client:
            return ()
        return [
            (stream_id, state.arrival)
            for stream_id, state in self._link.states.items()
            if state.receives and (state.declined or not state.answered)
        ]

    def _overdue(self, what: str, stream_id: int | None) -> None:
        if self._quic.closed:
            return
        if what == "body" and stream_id in self._answered:
            self._stop_answered(stream_id)
            return
        bound = getattr(self._timeouts, what)
        if what == "idle":
            self._log(f"no request in {bound:g} seconds")
            if not self._shutdowns:
                self.shut_down_soon()
            return
        code = _OVERDUE[what]
        if stream_id is None:
            reason = f"no SETTINGS in {bound:g} seconds"
            if what == "keepalive":
                bound += self._timeouts.keepalive_answer
                reason = f"nothing came in {bound:g} seconds, for all PINGs"
            self._log(reason)
            self.close(code, reason)
            return
        if stream_id & 3 == 2:
            reason = f"stream {stream_id}: no whole frame in {bound:g} seconds"
            self._log(reason)
            self.close(ErrorCode.H3_EXCESSIVE_LOAD, reason)
            return
        reason = f"the {what} made no progress in {bound:g} seconds"
        self._log(f"stream {stream_id}: {reason}")
        exchange = self._streams_by_id.get(stream_id)
        state = self._link.states.get(stream_id)
        answered = state is not None and not state.sends and what == "headers"
        if exchange is not None:
            self._link.cancel(exchange, code, reason)
        elif not stream_id & 2:
            self.stop_stream(stream_id, code)
        if what == "headers" and self._http is not None:
            # Bytes of the stream that are kept or arrive from now on are dropped.
            self._http.handle_event(QuicStreamReset(code, stream_id))
            self._abandoned(stream_id)
        if not answered:
            # All of the response may have been queued.
            self.reset_stream(stream_id, code)

    def _abandoned(self, stream_id: int, cost: float = 1) -> None:
        """Count a stream that a client has made us end early, which costs us more than
        it."""
        if stream_id in self._cut_short:
            return  # its other half
        self._cut_short[stream_id] = None
        if len(self._cut_short) > _STOPPED:
            del self._cut_short[next(iter(self._cut_short))]
        if not self._resets.spend(self._loop.time(), cost) and not self._quic.closed:
            reason = "too many requests were abandoned"
            self._log(reason)
            self.close(ErrorCode.H3_EXCESSIVE_LOAD, reason)

    # ---- Calls of the base class and the server ----

    def drain_begun(self) -> None:
        """Shut down gracefully: the server is drained, which has its own bound."""
        self._begin_shutdown(None)

    def transmit(self) -> None:
        """Send what is queued, and set the timer: see the base class."""
        super().transmit()
        # Acknowledgements have made room.
        for stream_id in self._link.senders():
            exchange = self._streams_by_id.get(stream_id)
            if exchange is not None:
                self._link.look_for_room(exchange)
        self._link.look_for_sent()
        self._stop_excess()
        if self._openers:  # MAX_STREAMS may have come
            self._wake_free()
        if self._closing and self._is_finished():
            self._waiters.wake()

    def _process_events(self) -> None:
        self._link.begin_events()
        try:
            super()._process_events()
        finally:
            self._link.end_events()
            self._start_handlers()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Handle an event of QUIC; HTTP/3 handles streams."""
        if type(event) is StreamDataReceived and self._link.connection is not None:
            self._link.stream_data_received(event)
            return
        if isinstance(event, ProtocolNegotiated):
            self._require_http()
        elif isinstance(event, HandshakeCompleted):
            self._watch.handshake_completed()
            if self._require_http().received_settings is not None:
                self._watch.settings_received()  # as early data
        if self._http is not None:
            known = getattr(event, "stream_id", None) in self._streams_by_id
            for received in self._http.handle_event(event):
                self.give(received)
            if self._serves:
                self.follow_request(event, known)
        if isinstance(event, ConnectionTerminated):
            self._connection_terminated()

    def _connection_terminated(self) -> None:
        self._watch.stop()
        for exchange in list(self._streams_by_id.values()):
            self._link.break_off(
                exchange, self._termination_error, ErrorCode.H3_REQUEST_CANCELLED
            )
        self._link.nothing_is_sent()
        self._link.disconnected(self._released.set)
        if self._timeouts.close is not None:
            self._link.tasks.release_after(self._timeouts.close)
        self._answered.clear()
        self._stopped.clear()
        self._wake_openers()
        self._waiters.wake()

    def follow_request(self, event: QuicEvent, known: bool) -> None:
        """Check how much of a request's header section has arrived, and whether the
        client abandons the request; ``known`` is whether the request was reported."""
        if isinstance(event, QuicStopSendingReceived):
            if not known and event.stream_id & 3 == 0:
                # The response was queued completely, or the request was not reported.
                self._abandoned(event.stream_id)
            return
        if not isinstance(event, StreamDataReceived | QuicStreamReset):
            return
        stream_id = event.stream_id
        if stream_id & 3:
            return
        if known:
            self._link.follow_frame(stream_id)
        elif isinstance(event, StreamDataReceived) and (
            # A complete request may wait for QPACK's encoder stream.
            not event.end_stream
            or (self._http is not None and self._http.incomplete_frame(stream_id))
        ):
            if stream_id not in self._stopped:
                self._watch.section_begun(stream_id)
        elif stream_id in self._stopped:
            del self._stopped[stream_id]
        else:
            self._watch.section_ended(stream_id)
            self._abandoned(stream_id)

    def give(self, event: H3Event) -> None:
        """Handle an event, so that an exception ends only its exchange."""
        exchange = self._streams_by_id.get(getattr(event, "stream_id", -1))
        if exchange is None:
            self.h3_event_received(event)
        else:
            self._link.call(exchange, functools.partial(self.h3_event_received, event))

    def h3_event_received(self, event: H3Event) -> None:
        """Handle an event of HTTP/3; a subclass can extend this."""
        if isinstance(event, HeadersReceived):
            self._link.section_received(event)
        elif isinstance(event, DataReceived):
            self._link.piece_received(event)
        elif isinstance(event, DatagramReceived):
            exchange = self._streams_by_id.get(event.stream_id)
            if exchange is not None:
                self._link.datagram_received(exchange, event.data)
        elif isinstance(event, StreamReset | StopSendingReceived):
            exchange = self._streams_by_id.get(event.stream_id)
            if exchange is not None:
                self._exchange_broken_off(exchange, event)
        elif isinstance(event, StreamAborted):
            self._stream_aborted(event)
        elif isinstance(event, PriorityUpdated):
            stream_id = event.stream_id
            if stream_id is None:
                stream_id = self._link.pushed_stream(event.push_id)
            if stream_id in self._streams_by_id:
                self.apply_priority(stream_id)
        elif isinstance(event, PushCancelled):
            self._push_cancelled(event.push_id)
        elif isinstance(event, SettingsReceived):
            self._log_frame("recv", "SETTINGS", _named(event.settings))
            self._watch.settings_received()
            self._waiters.wake()
        elif isinstance(event, GoAwayReceived):
            self._log_frame("recv", "GOAWAY", [("last stream", event.last_id)])
            self._goaway_received(event.last_id)

    def _exchange_broken_off(
        self, exchange: Exchange, event: StreamReset | StopSendingReceived
    ) -> None:
        stream_id, code = exchange.stream_id, event.error_code
        state = self._link.states[stream_id]
        if self._serves and state.failure is None:
            answered = not state.sends and isinstance(event, StreamReset)
            self._abandoned(stream_id, _ANSWERED_COST if answered else 1)
        incoming = isinstance(event, StreamReset)
        self._link.break_off(
            exchange,
            reset_failure(stream_id, code, remote=True),
            code,
            incoming=incoming,
            outgoing=not incoming,
        )
        # Before what comes next: a response to that would be a mistake.
        self._link.tell_ends()

    def _stream_aborted(self, event: StreamAborted) -> None:
        # A line for each would let a client fill the log.
        logger.debug(
            "%s: stream %d: %s: %s",
            self.client_address,
            event.stream_id,
            ErrorCode(event.error_code).name,
            event.reason,
        )
        self._was_stopped(event.stream_id)
        if self._serves:
            self._abandoned(event.stream_id)
        exchange = self._streams_by_id.get(event.stream_id)
        if exchange is not None:
            failure = reset_failure(
                event.stream_id, event.error_code, remote=False, text=event.reason
            )
            self._link.break_off(exchange, failure, event.error_code)

    def _goaway_received(self, last_id: int) -> None:
        self._going_away = True
        self._wake_openers()
        if self._serves:
            for push_id in self._link.pushes_from(last_id):
                self._push_cancelled(push_id)
            return
        for stream_id, exchange in list(self._streams_by_id.items()):
            if stream_id >= last_id:
                code = ErrorCode.H3_REQUEST_REJECTED
                failure = reset_failure(stream_id, code, remote=True)
                self._link.break_off(exchange, failure, code)

    # ---- Requests ----

    def new_stream(self, stream_id: int, headers: Headers) -> H3RequestStream:
        """Make the stream of a request, whose coroutine is started later."""
        stream = H3RequestStream(self, self._link, stream_id, headers, client=False)
        self._arrived.append(stream)
        return stream

    def _start_handlers(self) -> None:
        """Run the handlers of new requests."""
        arrived, self._arrived = self._arrived, []
        for stream in arrived:
            if self._terminated is not None:
                return
            if stream.error is not None:
                # The client has abandoned it already.
                stream.reset(ErrorCode.H3_REQUEST_CANCELLED)
                continue
            assert self._coroutine is not None
            # The stream cancels the task when the response can no longer be sent.
            task = self._link.tasks.start(
                self._coroutine(stream),
                functools.partial(self._request_handled, stream),
                cleanup=True,
            )
            stream.run_in(task)

    def apply_priority(self, stream_id: int) -> None:
        """Set the priority of a response to the client's (RFC 9218)."""
        assert self._http is not None
        with contextlib.suppress(ValueError):  # the client may have stopped it
            self._quic.set_stream_priority(stream_id, *self._http.priority(stream_id))

    def _request_handled(
        self, stream: H3RequestStream, task: asyncio.Task[None]
    ) -> None:
        stream.run_in(None)
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = stream.error
            if failure is not None and is_of_peer(error, failure):
                logger.debug("%r: %s", stream, error)
            else:
                _memory_log.failed(error, "%r: its handler failed", stream)
        if self._terminated is None:
            self._finish_response(stream, task)

    def _finish_response(
        self, stream: H3RequestStream, task: asyncio.Task[None]
    ) -> None:
        # A stream that the client has stopped needs no answer.
        if not stream.writer.is_closing() and (
            task.cancelled() or not stream.answer_failure()
        ):
            stream.reset(ErrorCode.H3_INTERNAL_ERROR)
        if stream.sent_all:
            stream.discard()
            self._link.stop_request(stream)
        else:
            stream.stop()

    def request_answered(self, stream_id: int) -> None:
        """Drop the rest of a request whose response is complete.

        A client that receives STOP_SENDING at once may lose the response.
        """
        self._answered[stream_id] = None
        self._watch.body_begun(self._link.states[stream_id].arrival, _STOP_AFTER)
        self._transmit_soon()

    def discarded(self, stream_id: int, total: int) -> None:
        """Count bytes of a request after its response."""
        if total > _DISCARDED:
            self._stop_answered(stream_id)

    def _stop_answered(self, stream_id: int) -> bool:
        """Stop a request, if the client has acknowledged all of its response."""
        if not self._quic.stream_settled(stream_id):
            return False
        self._link.stop_request(self._streams_by_id[stream_id], ErrorCode.H3_NO_ERROR)
        return True

    def _stop_excess(self) -> None:
        """Stop the requests that have been answered for the longest time."""
        excess = len(self._answered) - (0 if self._closing else _LINGERING)
        for stream_id in list(self._answered):
            if excess <= 0:
                return
            excess -= self._stop_answered(stream_id)


def _with_datagrams(config: H3Configuration, quic: QuicConnection) -> H3Configuration:
    """Announce datagrams if QUIC takes them (RFC 9297, 2.1.1)."""
    if (
        not quic.configuration.max_datagram_frame_size
        or Setting.H3_DATAGRAM in config.settings
    ):
        return config
    return dataclasses.replace(
        config, settings={**config.settings, Setting.H3_DATAGRAM: 1}
    )


def _named(settings: dict[int, int]) -> list[tuple[str, int]]:
    """Return settings with their names, as far as they are known."""
    known = {int(setting): setting.name for setting in Setting}
    return [(known.get(key, hex(key)), value) for key, value in settings.items()]
