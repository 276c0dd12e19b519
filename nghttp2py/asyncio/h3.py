"""HTTP/3 requests and responses for coroutines (RFC 9114), on our QUIC.

Nothing is held without a bound: a stream that is not read stops its peer, and
what is sent waits for the peer to take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

# First, as in a build without QUIC it says what to install.
from nghttp2py import quic as quic_module
from nghttp2py.asyncio.pump import CLOSE_TIMEOUT
from nghttp2py.asyncio.quic import QuicConnectionProtocol
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.errors import StreamResetError
from nghttp2py.h3 import (
    DataReceived,
    GoAwayReceived,
    H3Configuration,
    H3Connection,
    H3Event,
    HeadersReceived,
    PriorityUpdated,
    StopSendingReceived,
    StreamReset,
)
from nghttp2py.h3.connection import ErrorCode, Setting
from nghttp2py.h3.events import Headers
from nghttp2py.h3.exceptions import GoingAwayError
from nghttp2py.quic import QuicConnection
from nghttp2py.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
)

__all__ = ["H3Protocol", "H3RequestStream", "RequestHandler"]

logger = logging.getLogger(__name__)

# Events of every kind, and no pushes: a request has one response.  Extended CONNECT
# takes a program that knows of it (RFC 9220).
_CONFIGURATION = H3Configuration(
    extended=True, max_push_id=None, settings={Setting.ENABLE_CONNECT_PROTOCOL: None}
)

# What the first GOAWAY of a graceful shutdown names (RFC 9114, 5.2).
_NO_REQUEST = (1 << 62) - 4

# Seconds that a client without requests has to say that it is there.
_ROUND_TRIP = 1.0

# Requests that a client has open at once.  libnghttp3 takes it for a flood if 4 KiB of
# acknowledgements, of up to 4 bytes each, come while it encodes nothing.
_REQUESTS = 512

# Body bytes that come in and are not read, before the peer gets no more credit.
# Beyond them it may send what it has credit for, `max_stream_data`.
_UNREAD = 65536

# Body bytes that are sent in one DATA frame at most.
_PIECE = 65536

# A stream may always have a piece on its way; and so much, acknowledgements
# outstanding, while all streams together have less than the second number.
_STREAM_QUEUE = 1 << 20
_CONNECTION_QUEUE = 8 << 20


class H3RequestStream:
    """One request and its response, seen from one end.

    A body that comes in is read by ``readany`` or ``async for``.  Whatever
    waits, ends: with ``StreamResetError`` if the stream is reset, with
    ``ConnectionError`` if the connection is over.  What had come before can
    still be read.
    """

    def __init__(self, protocol: H3Protocol, stream_id: int) -> None:
        self.protocol = protocol
        self.stream_id = stream_id
        #: The header section that came in: the request's, the final response's.
        self.headers: Headers = []
        #: The fields after the body, once that was read to its end.
        self.trailers: Headers = []
        # What comes in.
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._credit_held = False
        self._received = False
        self._failure: Callable[[], Exception] | None = None
        self._reading: asyncio.Future[None] | None = None
        # What goes out.
        #: Bytes of the body that were handed over for sending.
        self.body_bytes_sent = 0
        self._sent = False
        self._stopped: Callable[[], Exception] | None = None
        self._writing: asyncio.Future[None] | None = None
        # A server's: is cancelled when its response cannot be sent any more.
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream_id} of {self.protocol!r}>"

    # ---- What comes in ----

    async def response(self) -> Headers:
        """Wait for the final response; return its header section, ``headers``."""
        while not self.headers:
            if self._failure is not None:
                raise self._failure()
            await self._wait_to_read()
        return self.headers

    async def readany(self) -> bytes:
        """Return the next piece of the body; ``b""`` at its end."""
        while not self._pieces:
            if self._received:
                return b""
            if self._failure is not None:
                raise self._failure()
            await self._wait_to_read()
        piece = self._pieces.popleft()
        self._unread -= len(piece)
        if self._credit_held and self._unread < _UNREAD:
            self._credit_held = False
            self.protocol._quic.resume_reading(self.stream_id)
            self.protocol._transmit_soon()
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body as it comes."""
        while piece := await self.readany():
            yield piece

    async def _wait_to_read(self) -> None:
        if self._reading is not None:
            raise RuntimeError("another coroutine reads this stream already")
        self._reading = self.protocol._loop.create_future()
        try:
            await self._reading
        finally:
            self._reading = None

    # ---- What goes out ----

    def send_headers(self, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a header section; after the body, trailers.

        Raises ``ProtocolError`` of ``nghttp2py.h3.connection`` for fields that
        must not be sent.
        """
        self._check_writable()
        self.protocol._require_http().send_headers(self.stream_id, headers, end_stream)
        self._after_sending(end_stream)

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send bytes of the body, as the peer takes them."""
        if isinstance(data, bytes) and len(data) <= _PIECE:
            await self._send_piece(data, end_stream)  # without a copy
            return
        rest = memoryview(data).cast("B")
        while len(rest) > _PIECE:
            await self._send_piece(rest[:_PIECE], False)
            rest = rest[_PIECE:]
        await self._send_piece(rest, end_stream)

    async def send_body(self, read: Callable[[int], bytes]) -> None:
        """Send a body that ``read(n)`` gives, up to ``b""``, and end the stream.

        It is read as the peer takes it, at most a piece ahead.
        """
        piece = read(_PIECE)
        while True:
            await self._wait_to_write()
            following = read(_PIECE) if piece else b""
            await self._send_piece(piece, not following)
            if not following:
                return
            piece = following

    async def _send_piece(self, piece: bytes | memoryview, end_stream: bool) -> None:
        await self._wait_to_write()
        http = self.protocol._require_http()
        http.send_data(self.stream_id, piece, end_stream)
        self.body_bytes_sent += len(piece)
        self._after_sending(end_stream)

    def _check_writable(self) -> None:
        if self._stopped is not None:
            raise self._stopped()

    async def _wait_to_write(self) -> None:
        self._check_writable()
        # Nothing wakes who has sent all: what comes after that raises.
        while not self._sent and not self.protocol._may_queue(self.stream_id):
            if self._writing is not None:
                raise RuntimeError("another coroutine writes to this stream already")
            self._writing = self.protocol._loop.create_future()
            self.protocol._writers.add(self)
            try:
                await self._writing
            finally:
                self._writing = None
                self.protocol._writers.discard(self)
            self._check_writable()

    def _after_sending(self, end_stream: bool) -> None:
        if end_stream:
            self._sent = True
            self._forget()
        self.protocol._transmit_soon()

    # ---- The end ----

    def reset(self, error_code: int = ErrorCode.H3_REQUEST_CANCELLED) -> None:
        """Break off what has not ended, in both directions.

        Raises ``ValueError`` unless ``error_code`` is 0 to 2^62 - 1.
        """
        if not self._sent and self._stopped is None:
            self.protocol._quic.reset_stream(self.stream_id, error_code)
            self._lose_writer(_reset_failure(self.stream_id, error_code, remote=False))
        self.stop(error_code)
        self.protocol._transmit_soon()

    def stop(self, error_code: int = ErrorCode.H3_NO_ERROR) -> None:
        """Have the peer send no more, unless it has sent all (RFC 9114, 4.1).

        Raises as ``reset`` does.
        """
        if not self._received and self._failure is None:
            self.protocol._quic.stop_stream(self.stream_id, error_code)
            self._lose_reader(_reset_failure(self.stream_id, error_code, remote=False))
            self.protocol._transmit_soon()
        self._pieces.clear()
        self._unread = 0

    # ---- What the protocol tells ----

    def _headers_received(self, headers: Headers, ended: bool) -> None:
        if self.headers:
            self.trailers = headers
        elif not _is_interim(headers):
            self.headers = headers
        self._end_received(ended)

    def _data_received(self, data: bytes, ended: bool) -> None:
        if self._failure is not None:
            return
        if data:
            self._pieces.append(data)
            self._unread += len(data)
            if self._unread >= _UNREAD and not self._credit_held and not ended:
                self._credit_held = True
                self.protocol._quic.pause_reading(self.stream_id)
        self._end_received(ended)

    def _end_received(self, ended: bool) -> None:
        if ended:
            self._received = True
            self._forget()
        _wake(self._reading)

    def _lose_reader(self, failure: Callable[[], Exception]) -> None:
        if not self._received and self._failure is None:
            self._failure = failure
            self._forget()
            _wake(self._reading)

    def _lose_writer(self, failure: Callable[[], Exception]) -> None:
        if not self._sent and self._stopped is None:
            self._stopped = failure
            self._forget()
            _wake(self._writing)
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    def _forget(self) -> None:
        """Leave the connection, when nothing more comes or goes."""
        if (self._received or self._failure is not None) and (
            self._sent or self._stopped is not None
        ):
            self.protocol._forget(self.stream_id)


RequestHandler: TypeAlias = Callable[[H3RequestStream], Coroutine[Any, Any, None]]


class H3Protocol(QuicConnectionProtocol):
    """A connection of HTTP/3, whose streams are ``H3RequestStream``.

    It is what ``connect`` and ``serve`` make with ``create_protocol=H3Protocol``;
    their configuration must have ``alpn_protocols=H3_ALPN``.  A client calls
    ``open_stream``.  For a server, ``functools.partial(H3Protocol,
    request_handler=...)`` names the coroutine function that is run as a task for
    each request, with its stream.  When that returns, what it has left of the
    request is refused; if it leaves the response without an end, or raises, the
    stream is reset.  It is cancelled when its response cannot be sent any more.
    Responses go out in the order of the priorities that the client gives them
    (RFC 9218).
    """

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: object = None,
        *,
        request_handler: RequestHandler | None = None,
        config: H3Configuration = _CONFIGURATION,
    ) -> None:
        super().__init__(quic)
        self._request_handler = request_handler
        self._config = config
        self._streams_by_id: dict[int, H3RequestStream] = {}
        self._writers: set[H3RequestStream] = set()
        self._openers: deque[asyncio.Future[None]] = deque()
        self._finishing: asyncio.Future[None] | None = None
        self._going_away = False
        self._http: H3Connection | None = None

    # ---- What the application calls ----

    async def open_stream(
        self, headers: Headers, *, end_stream: bool = False
    ) -> H3RequestStream:
        """Send a request's header section; a body may follow unless ``end_stream``.

        It waits while 512 requests are open.  Beyond the streams that the server
        allows it is sent when one of them has ended.  Raises ``ProtocolError`` of
        ``nghttp2py.h3.connection`` for fields that must not be sent,
        ``GoingAwayError`` after the server's GOAWAY, and ``ConnectionError`` when
        the connection is over.
        """
        while True:
            self._require_http()
            if self._going_away:
                raise GoingAwayError("the server takes no more requests")
            if len(self._streams_by_id) < _REQUESTS:
                break
            await self._wait_to_open()
        stream_id = self._quic.get_next_available_stream_id()
        stream = H3RequestStream(self, stream_id)
        stream.send_headers(headers, end_stream=end_stream)
        self._streams_by_id[stream_id] = stream
        return stream

    def close(
        self, error_code: int = ErrorCode.H3_NO_ERROR, reason_phrase: str = ""
    ) -> None:
        """Close the connection at once: see ``shutdown``."""
        super().close(error_code, reason_phrase)

    @property
    def client_address(self) -> Any:
        """A client's address, as a server sees it now, if it is known."""
        return self._quic.get_peer_address()

    @property
    def is_available(self) -> bool:
        """Whether requests can be sent."""
        return not self._going_away and not self._quic.closed

    async def shutdown(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Take no more requests, let the open ones finish, and close.

        The client is told by GOAWAY (RFC 9114, 5.2).  What has not finished after
        ``timeout`` seconds is broken off.
        """
        if self._http is not None and self._terminated is None:
            with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
                await wait_for(self._finish(self._http), timeout)
        self.close()
        await self.wait_closed()

    # ---- Our own ----

    async def _wait_to_open(self) -> None:
        waiter = self._loop.create_future()
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

    def _wake_openers(self) -> None:
        while self._openers:
            self._wake_opener()

    def _forget(self, stream_id: int) -> None:
        if self._streams_by_id.pop(stream_id, None) is not None:
            self._wake_opener()

    async def _finish(self, http: H3Connection) -> None:
        if self._quic.configuration.is_client:
            http.send_goaway()
        else:
            # Requests that are on their way now have arrived a round trip later.
            was_idle = self._is_finished()
            http.send_goaway(_NO_REQUEST)
            with contextlib.suppress(asyncio.TimeoutError):
                await wait_for(self.ping(), _ROUND_TRIP if was_idle else None)
            http.send_goaway()
            if was_idle and not self._streams_by_id:
                self.transmit()
                return
        self.transmit()
        while not self._is_finished():
            self._finishing = self._loop.create_future()
            await self._finishing

    def _is_finished(self) -> bool:
        return not self._streams_by_id and not self._quic.queued_data()

    def _may_queue(self, stream_id: int) -> bool:
        if self._quic.closed:
            return False  # what is sent now is lost; the event will say why
        queued = self._quic.queued_data(stream_id)
        return queued < _PIECE or (
            queued < _STREAM_QUEUE and self._quic.queued_data() < _CONNECTION_QUEUE
        )

    def _require_http(self) -> H3Connection:
        if self._terminated is not None:
            raise _termination_error(self._terminated)
        if self._http is None:
            # Not before the handshake has begun: then its frames are traced.
            self._http = H3Connection(self._quic, config=self._config)
        return self._http

    def transmit(self) -> None:
        """Send what waits to be sent, and set the timer: see the base class."""
        super().transmit()
        # What was acknowledged has made room.
        for stream in list(self._writers):
            if self._may_queue(stream.stream_id):
                _wake(stream._writing)
        if self._finishing is not None and self._is_finished():
            _wake(self._finishing)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take an event: streams are HTTP/3's."""
        if isinstance(event, ProtocolNegotiated):
            self._require_http()
        if self._http is not None:
            for received in self._http.handle_event(event):
                self.h3_event_received(received)
        if isinstance(event, ConnectionTerminated):
            for stream in list(self._streams_by_id.values()):

                def failure() -> Exception:
                    return _termination_error(event)

                stream._lose_reader(failure)
                stream._lose_writer(failure)
            self._wake_openers()
            _wake(self._finishing)

    def h3_event_received(self, event: H3Event) -> None:
        """Take an event of HTTP/3: a subclass that wants to see it extends this."""
        if isinstance(event, HeadersReceived):
            stream = self._streams_by_id.get(event.stream_id)
            if stream is not None:
                stream._headers_received(event.headers, event.stream_ended)
            # Trailers may wait for QPACK until their stream is forgotten.
            elif self._request_handler is not None and not _are_trailers(event.headers):
                self._request_received(event)
        elif isinstance(event, DataReceived):
            stream = self._streams_by_id.get(event.stream_id)
            if stream is not None:
                stream._data_received(event.data, event.stream_ended)
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            stream = self._streams_by_id.get(event.stream_id)
            if stream is not None:
                failure = _reset_failure(event.stream_id, event.error_code, remote=True)
                if isinstance(event, StreamReset):
                    stream._lose_reader(failure)
                else:
                    stream._lose_writer(failure)
        elif isinstance(event, PriorityUpdated):
            if event.stream_id in self._streams_by_id:
                self._apply_priority(event.stream_id)
        elif isinstance(event, GoAwayReceived):
            self._goaway_received(event.last_id)

    def _goaway_received(self, last_id: int) -> None:
        self._going_away = True
        self._wake_openers()
        if self._request_handler is not None:
            return  # a client's is about pushes
        for stream_id, stream in list(self._streams_by_id.items()):
            if stream_id >= last_id:
                failure = _reset_failure(
                    stream_id, ErrorCode.H3_REQUEST_REJECTED, remote=True
                )
                stream._lose_reader(failure)
                stream._lose_writer(failure)

    def _request_received(self, event: HeadersReceived) -> None:
        assert self._request_handler is not None
        stream = H3RequestStream(self, event.stream_id)
        self._streams_by_id[event.stream_id] = stream
        self._apply_priority(event.stream_id)
        stream._headers_received(event.headers, event.stream_ended)
        task = self._loop.create_task(self._request_handler(stream))
        stream._task = task
        task.add_done_callback(functools.partial(self._request_handled, stream))

    def _apply_priority(self, stream_id: int) -> None:
        """Send a response when the client wants it (RFC 9218)."""
        assert self._http is not None
        with contextlib.suppress(ValueError):  # the client may have stopped it
            self._quic.set_stream_priority(stream_id, *self._http.priority(stream_id))

    def _request_handled(
        self, stream: H3RequestStream, task: asyncio.Task[None]
    ) -> None:
        stream._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, (ConnectionError, StreamResetError)):
                logger.debug("%r: %s", stream, error)
            else:
                logger.error("%r: its handler failed", stream, exc_info=error)
        if self._terminated is None:
            if not stream._sent:
                stream.reset(ErrorCode.H3_INTERNAL_ERROR)
            stream.stop()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _are_trailers(headers: Headers) -> bool:
    # Which have no pseudo-header fields (RFC 9114, 4.3).
    return not headers or not headers[0][0].startswith(b":")


def _is_interim(headers: Headers) -> bool:
    name, value = headers[0]
    return name == b":status" and value.startswith(b"1")


def _reset_failure(
    stream_id: int, error_code: int, *, remote: bool
) -> Callable[[], Exception]:
    # An exception that is raised twice would keep the frames of both.
    def failure() -> Exception:
        try:
            reason = ErrorCode(error_code).name
        except ValueError:
            reason = ""
        return StreamResetError(
            stream_id,
            error_code,
            remote=remote,
            unprocessed=remote and error_code == ErrorCode.H3_REQUEST_REJECTED,
            reason=reason,
        )

    return failure


def _termination_error(event: ConnectionTerminated) -> ConnectionError:
    codes = ErrorCode if event.frame_type is None else quic_module.QuicErrorCode
    try:
        name = codes(event.error_code).name
    except ValueError:
        name = f"{event.error_code:#x}"
    reason = f": {event.reason_phrase}" if event.reason_phrase else ""
    return ConnectionError(f"the connection is over: {name}{reason}")
