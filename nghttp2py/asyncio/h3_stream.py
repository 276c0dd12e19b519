"""A request and its response over HTTP/3, seen from either end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from nghttp2py.asyncio.h3_bounds import Arrival, Outgoing
from nghttp2py.asyncio.reader import H2StreamReader, Incoming
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.asyncio.writer import Body, HeadersLike, to_pairs
from nghttp2py.errors import (
    StreamClosedError,
    StreamResetError,
    StreamStateError,
    StreamTimeoutError,
)
from nghttp2py.exchange import has_content
from nghttp2py.h2 import RequestReceived
from nghttp2py.h2.body import DATA_OK, is_bytes_like, make_source
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.events import Headers

if TYPE_CHECKING:
    from nghttp2py.asyncio.h3 import H3Protocol

__all__ = [
    "EXPECT",
    "PIECE",
    "Failure",
    "H3RequestStream",
    "are_trailers",
    "reset_failure",
]

#: Makes the exception that tells why a half of a stream broke off.  One that is
#: raised twice would keep the frames of both.
Failure = Callable[[], Exception]

# Body bytes that come in and are not read, before the peer gets no more credit.
# Beyond them it may send what it has credit for, `max_stream_data`.
_UNREAD = 65536

# What a client sends that waits for 100 (Continue) (RFC 9110, 10.1.1).
EXPECT = (b"expect", b"100-continue")

# Body bytes that are sent in one DATA frame at most, and asked for of a source.
PIECE = 65536

# Informational responses and datagrams that nothing has asked for.  Of the
# former the oldest is forgotten, of the latter the newest (RFC 9297, 2.1).
_MAX_INFORMATIONAL = 16
_MAX_DATAGRAMS = 64


class H3RequestStream(Incoming):
    """One request and its response, seen from one end.

    A body that comes in is read by ``readany`` or ``async for``, which give it
    as it comes, or by ``read`` and its like.  A client that waits for 100 (Continue)
    gets it when the body is first waited for.  Each wait ends: with
    ``StreamResetError`` if the stream is reset, with ``ConnectionTerminatedError``
    if the connection is over.  What had come before can still be read.

    A client's stream whose response is complete and was read, or that was
    dropped, is reset if something of the request is left to send.  ``async
    with`` resets a stream that is not finished at the end of the block.
    """

    __slots__ = (
        "__weakref__",
        "_answering",
        "_arrival",
        "_client_side",
        "_continued",
        "_datagrams",
        "_discarding",
        "_expecting",
        "_failure",
        "_fields",
        "_informational",
        "_outgoing",
        "_registered",
        "_sent",
        "_start",
        "_status",
        "_stopped",
        "_task",
        "_waiters",
        "_writing",
        "body_bytes_sent",
        "headers",
        "protocol",
        "stream_id",
        "trailers",
    )

    def __init__(
        self, protocol: H3Protocol, stream_id: int, request: Headers, *, client: bool
    ) -> None:
        super().__init__()
        self.protocol = protocol
        self.stream_id = stream_id
        #: The header section that came in: the request's, the final response's.
        self.headers: Headers = [] if client else request
        #: The fields after the body, once that was read to its end.
        self.trailers: Headers = []
        #: Bytes of the body that were handed over for sending.
        self.body_bytes_sent = 0
        self._client_side = client
        self._fields = request
        self._waiters = Waiters()
        # Whether the connection knows the stream.
        self._registered = False
        # What comes in.
        self._arrival = Arrival()
        self._discarding = False
        self._failure: Failure | None = None
        self._informational: deque[Headers] | None = None
        self._datagrams: deque[bytes] | None = None
        # What goes out.
        self._answering = False  # the final response has begun
        # 100 (Continue) was sent, or is not asked for; at a client, it has come.
        self._continued = False
        self._expecting = 0.0  # seconds to wait for it
        # For the access log: when the stream began, and the status that was sent.
        self._start = time.monotonic()
        self._status: int | None = None
        self._outgoing: Outgoing | None = None
        self._sent = False
        self._stopped: Failure | None = None
        self._writing: asyncio.Lock | None = None
        # A server's: is cancelled when its response cannot be sent any more.
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.stream_id} {state} of {self.protocol!r}>"

    def __del__(self) -> None:
        # A garbage collection may run in any thread.
        if getattr(self, "_registered", False) and not self.closed:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.protocol._loop.call_soon_threadsafe(
                    self.protocol._drop, self.stream_id, self._sends, self._receives
                )

    # ---- What it is ----

    @property
    def connection(self) -> H3Protocol:
        """The connection: ``is_closing`` tells that it is being ended here.

        ``await stream.connection.wait_closing()`` waits for that.
        """
        return self.protocol

    @property
    def reader(self) -> H2StreamReader:
        """The half that comes in."""
        return H2StreamReader(self)

    @property
    def request(self) -> RequestReceived | None:
        """The request, at a server; ``None`` at a client."""
        if self._client_side:
            return None
        return RequestReceived(
            self.method or b"",
            self.path or b"",
            [field for field in self._fields if field[0][:1] != b":"],
            "3",
            scheme=self.scheme,
            authority=self.authority,
            protocol=self._pseudo(b":protocol"),
            fields=self._fields,
        )

    @property
    def method(self) -> bytes | None:
        """The request's ``:method``."""
        return self._pseudo(b":method")

    @property
    def path(self) -> bytes | None:
        """The request's ``:path``; ``None`` for CONNECT (RFC 9114, 4.4)."""
        return self._pseudo(b":path")

    @property
    def scheme(self) -> bytes | None:
        """The request's ``:scheme``; ``None`` for CONNECT."""
        return self._pseudo(b":scheme")

    @property
    def authority(self) -> bytes | None:
        """The request's ``:authority``, if it has one."""
        return self._pseudo(b":authority")

    def _pseudo(self, name: bytes) -> bytes | None:
        for field in self._fields:
            if field[0] == name:
                return field[1]
        return None

    @property
    def early_data(self) -> bool:
        """Whether bytes of a request have come as early data, which others may
        replay: a server may answer 425 (RFC 8470, 5.2)."""
        return self.protocol._quic.stream_early_data(self.stream_id)

    @property
    def closed(self) -> bool:
        """Whether nothing more can come or go."""
        return not (self._receives or self._sends)

    @property
    def error(self) -> Exception | None:
        """Why a half of the stream broke off, or ``None`` if none did."""
        failure = self._failure or self._stopped
        return None if failure is None else failure()

    @property
    def _receives(self) -> bool:
        return not self._eof and self._failure is None

    @property
    def _sends(self) -> bool:
        return not self._sent and self._stopped is None

    # ---- What comes in ----

    async def response(self, timeout: float | None = None) -> Headers:
        """Return the header section of the final response, ``headers``.

        May be called again.  Raises ``StreamResetError`` or
        ``ConnectionTerminatedError`` if there will be none; ``StreamTimeoutError``
        if it has not come after ``timeout`` seconds, and the stream is reset.
        """
        timer = None
        try:
            while not self.headers:
                self._raise_failure()
                if self._eof:
                    raise StreamResetError(
                        self.stream_id,
                        ErrorCode.H3_MESSAGE_ERROR,
                        remote=True,
                        reason="it was closed without a response",
                    )
                if timer is None and timeout is not None:
                    timer = self.protocol._loop.call_later(
                        timeout, self._time_out, timeout
                    )
                await self._wait()
        finally:
            if timer is not None:
                timer.cancel()
        if self.at_eof():
            self._body_finished()
        return self.headers

    def _time_out(self, seconds: float) -> None:
        if self._receives:
            self.protocol._stop_stream(self.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            self._lose_reader(partial(StreamTimeoutError, self.stream_id, seconds))
        self._reset_writer(ErrorCode.H3_REQUEST_CANCELLED)

    async def informational(self) -> AsyncIterator[Headers]:
        """Iterate over 1xx responses, until the final one comes."""
        while (headers := await self.next_informational()) is not None:
            yield headers

    async def next_informational(self) -> Headers | None:
        """Return the next 1xx response, ``None`` if the final one has come.

        Those that nothing asks for are kept, the last 16.
        """
        while not self._informational:
            if self.headers:
                return None
            self._raise_failure()
            if self._eof:
                return None
            await self._wait()
        return self._informational.popleft()

    def __aiter__(self) -> H3RequestStream:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.readany()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def readany(self) -> bytes:
        """Return the next piece of the body; ``b""`` at its end."""
        return await self._read_frame()

    async def receive_datagram(self) -> bytes:
        """Return the next datagram of the stream (RFC 9297, 2.1).

        64 are kept, and those beyond are dropped.  Raises ``StreamClosedError``
        when the peer has ended the stream, ``StreamResetError`` or
        ``ConnectionTerminatedError`` if the stream breaks off.
        """
        while not self._datagrams:
            self._raise_failure()
            if self._eof:
                raise StreamClosedError(
                    f"stream {self.stream_id}: the peer has ended it", self.stream_id
                )
            await self._wait()
        return self._datagrams.popleft()

    # ---- What the reader asks for ----

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure()

    async def _await_body(self) -> None:
        if not (self._continued or self._client_side):
            self._continued = True
            self._send_continue()
        await self._wait()

    def _send_continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110, 10.1.1)."""
        if (
            self._sends
            and not self._answering
            and any((name, value.lower()) == EXPECT for name, value in self._fields)
        ):
            self.send_headers([(b":status", b"100")])

    async def _wait(self) -> None:
        """Wait until something happens; the connection keeps the stream meanwhile."""
        waiting = self.protocol._waiting
        waiting.add(self)
        try:
            await self._waiters.wait()
        finally:
            if not self._waiters:
                waiting.discard(self)

    def _acknowledge(self, n: int) -> None:
        self._unacknowledged -= n
        self._taken += n
        if self._arrival.withheld and self._unacknowledged < _UNREAD:
            self._arrival.withheld = False
            self.protocol._resume_reading(self.stream_id)

    def _body_finished(self) -> None:
        # The response needs no more of the request (RFC 9114, 4.1).  But either
        # half of a tunnel ends by itself (4.4).
        if self._client_side and self._sends and self.method != b"CONNECT":
            self._reset_writer(ErrorCode.H3_REQUEST_CANCELLED)

    # ---- What goes out: header sections ----

    def send_headers(self, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a header section; after the body, trailers.

        Raises ``ProtocolError`` of ``nghttp2py.h3.connection`` for fields that
        must not be sent.
        """
        self._check_writable()
        was_empty = self._is_empty()
        self.protocol._require_http().send_headers(self.stream_id, headers, end_stream)
        if headers and headers[0][0] == b":status" and not _is_interim(headers):
            self._answering = True
            self._status = int(headers[0][1])
        self._was_queued(0, was_empty)
        self._after_sending(end_stream)

    async def start_response(
        self, headers: HeadersLike, *, end_stream: bool = False
    ) -> None:
        """Send a response's header fields, ``:status`` among them.

        A body follows, unless ``end_stream``.
        """
        self.send_headers(_to_fields(headers), end_stream=end_stream)

    async def send_response(
        self,
        status: int = 200,
        headers: HeadersLike = (),
        body: Body | None = None,
        *,
        trailers: HeadersLike | None = None,
    ) -> None:
        """Send a whole response; ``body`` as ``send_body`` takes it, or ``None``.

        The body of a response that must have none is not sent (RFC 9110, 6.4.1).
        """
        fields = [(b":status", b"%d" % status), *_to_fields(headers)]
        if not has_content(self.method, status):
            body = trailers = None
        end_stream = body is None and trailers is None
        self.send_headers(fields, end_stream=end_stream)
        if not end_stream:
            await self.send_body(b"" if body is None else body, trailers=trailers)

    async def send_informational(self, status: int, headers: HeadersLike = ()) -> None:
        """Send a 1xx response, before the final one (RFC 9110, 15.2).

        Raises ``ValueError`` for another status.
        """
        if not 100 <= status <= 199:
            raise ValueError(f"an informational status is 100 to 199, not {status}")
        if status == 100:
            self._continued = True
        self.send_headers([(b":status", b"%d" % status), *_to_fields(headers)])

    async def send_trailers(self, headers: HeadersLike) -> None:
        """End our half with trailers, after what is being sent."""
        async with self._lock_writing():
            self.send_headers(_to_fields(headers), end_stream=True)

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a datagram, which may be lost (RFC 9297, 2.1).

        Both configurations of QUIC need ``max_datagram_frame_size``.  Raises
        ``NotEnabledError`` unless the peer's SETTINGS allow datagrams:
        ``wait_settings`` of the connection waits for them.  Raises
        ``StreamStateError`` when our half of the stream has ended.
        """
        self._check_writable()
        if self._sent:
            raise StreamStateError(f"stream {self.stream_id}: our half has ended")
        self.protocol._send_datagram(self.stream_id, data)

    # ---- What goes out: bodies ----

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send bytes of the body, as the peer takes them."""
        async with self._lock_writing():
            if not self._expecting or await self._body_is_wanted():
                await self._send_bytes(data, end_stream)

    async def end_stream(self) -> None:
        """End our half, after what is being sent."""
        await self.send_data(b"", end_stream=True)

    async def send_body(
        self,
        body: Body | Callable[[int], bytes],
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a body of any form, and end the stream after it.

        ``body`` is bytes-like; a binary file, or a function such as its ``read``,
        which may be asynchronous; an iterable or an asynchronous iterable of
        bytes-like pieces.  It is asked for a piece when the peer takes more.
        ``trailers`` follow it.  If the source fails, or this call is cancelled,
        the stream is reset: its message can never be complete.
        """
        if trailers is not None and not end_stream:
            raise ValueError("trailers end the stream: end_stream must be true")
        if isinstance(body, str):
            raise TypeError("a body must be bytes, not str: encode it")
        async with self._lock_writing():
            if self._expecting and not await self._body_is_wanted():
                return
            try:
                last = end_stream and trailers is None
                if is_bytes_like(body):
                    await self._send_bytes(body, last)
                else:
                    await self._send_pieces(body, last)
                if trailers is not None:
                    self.send_headers(_to_fields(trailers), end_stream=True)
            except BaseException as error:
                # One whose half has broken off may still have a response.
                if self._sends:
                    cancelled = isinstance(error, asyncio.CancelledError)
                    self.reset(
                        ErrorCode.H3_REQUEST_CANCELLED
                        if cancelled
                        else ErrorCode.H3_INTERNAL_ERROR
                    )
                raise

    async def _body_is_wanted(self) -> bool:
        """Wait for 100 (Continue).

        Return whether the body is to be sent: unless the final response refuses
        it (RFC 9110, 10.1.1).
        """

        def end() -> None:
            self._continued = True
            self._waiters.wake()

        timer = self.protocol._loop.call_later(self._expecting, end)
        self._expecting = 0.0
        try:
            while not (self._continued or self.headers or self.closed):
                self._check_writable()
                await self._wait()
        finally:
            timer.cancel()
        if self.headers and int(self.headers[0][1]) >= 300:
            self._reset_writer(ErrorCode.H3_REQUEST_CANCELLED)
            return False
        return True

    async def _send_bytes(
        self, data: bytes | bytearray | memoryview, end_stream: bool
    ) -> None:
        n = memoryview(data).nbytes
        room = await self._room(n)
        if room >= n:
            self._queue(data, end_stream)  # bytes go without a copy
            return
        rest = memoryview(data).cast("B")
        while room < len(rest):
            self._queue(rest[:room], False)
            rest = rest[room:]
            room = await self._room(len(rest))
        self._queue(rest, end_stream)

    async def _send_pieces(self, body: Any, end_stream: bool) -> None:
        read = body if _is_function(body) else getattr(body, "read", None)
        if hasattr(body, "__aiter__"):
            async with contextlib.aclosing(_iterate(body)) as pieces:
                await self._room(PIECE)
                async for piece in pieces:
                    await self._send_bytes(piece, False)
                    await self._room(PIECE)
            piece = b""
        elif inspect.iscoroutinefunction(read):
            while piece := await read(await self._room(PIECE)):
                if not is_bytes_like(piece):
                    raise TypeError(f"a body must give bytes, not {type(piece)}")
                await self._send_bytes(piece, False)
        else:
            source = make_source(_Readable(body) if _is_function(body) else body)
            flag = DATA_OK
            while flag == DATA_OK:
                # What is read and cannot be queued would wait here.
                piece, flag = source.read(await self._room(PIECE))
                if flag == DATA_OK:
                    await self._send_bytes(piece, False)
        if piece or end_stream:
            await self._send_bytes(piece, end_stream)

    def _queue(self, data: bytes | bytearray | memoryview, end_stream: bool) -> None:
        self._check_writable()
        was_empty = self._is_empty()
        http = self.protocol._require_http()
        http.send_data(self.stream_id, data, end_stream)
        n = memoryview(data).nbytes
        self.body_bytes_sent += n
        self._was_queued(n, was_empty)
        self._after_sending(end_stream)

    def _lock_writing(self) -> asyncio.Lock:
        """Messages of several coroutines do not mix."""
        if self._writing is None:
            self._writing = asyncio.Lock()
        return self._writing

    def _check_writable(self) -> None:
        if self._stopped is not None:
            raise self._stopped()

    async def _room(self, wanted: int) -> int:
        """Wait until something can be queued; return how much, at most ``wanted``."""
        while True:
            self._check_writable()
            # After the end of all nothing wakes a waiter: sending raises.
            room = wanted if self._sent else self.protocol._room(self.stream_id, wanted)
            if room or not wanted:
                return room
            self.protocol._writers[self] = wanted
            try:
                # The last of all who wait lets go of the stream.
                await self._wait()
            finally:
                self.protocol._writers.pop(self, None)

    def _is_empty(self) -> bool:
        return not self.protocol._quic.queued_data(self.stream_id)

    def _was_queued(self, n: int, was_empty: bool) -> None:
        if self._outgoing is None:
            self._outgoing = Outgoing(self.stream_id)
        self.protocol._watch.queued(self._outgoing, n, was_empty=was_empty)

    def _after_sending(self, end_stream: bool) -> None:
        if end_stream:
            self._sent = True
            self._forget()
        self.protocol._transmit_soon()

    # ---- The end ----

    def reset(self, error_code: int = ErrorCode.H3_REQUEST_CANCELLED) -> None:
        """Break off what has not ended, in both directions.

        On a closed stream this is a no-op.  Raises ``ValueError`` unless
        ``error_code`` is 0 to 2^62 - 1.
        """
        self._reset_writer(error_code)
        self.stop(error_code)

    def stop(self, error_code: int = ErrorCode.H3_NO_ERROR) -> None:
        """Have the peer send no more, unless it has sent all (RFC 9114, 4.1).

        Raises as ``reset`` does.
        """
        if self._receives:
            self.protocol._stop_stream(self.stream_id, error_code)
            self._lose_reader(reset_failure(self.stream_id, error_code, remote=False))
            if not self._client_side and self._stopped is None:
                self.protocol._request_declined(self.stream_id)
        self._discard()

    def _discard(self) -> None:
        """Drop what has come in and was not read."""
        self._chunks.clear()
        self._size = self._offset = self._unacknowledged = 0

    def _discard_all(self) -> None:
        """Drop what has come in and what will, and give credit for it."""
        self._discard()
        self._discarding = True
        if self._arrival.withheld:
            self._arrival.withheld = False
            self.protocol._resume_reading(self.stream_id)

    def _reset_writer(self, error_code: int) -> None:
        if self._sends:
            self.protocol._reset_stream(self.stream_id, error_code)
            self._lose_writer(reset_failure(self.stream_id, error_code, remote=False))

    async def __aenter__(self) -> H3RequestStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sends:
            failed = kind is not None and not self._client_side
            self.reset(
                ErrorCode.H3_INTERNAL_ERROR
                if failed
                else ErrorCode.H3_REQUEST_CANCELLED
            )
        elif self._receives:
            # The response is complete, the request need not be (RFC 9114, 4.1).
            self.stop(
                ErrorCode.H3_REQUEST_CANCELLED
                if self._client_side
                else ErrorCode.H3_NO_ERROR
            )

    # ---- What the protocol reports ----

    def _headers_received(self, headers: Headers, ended: bool) -> None:
        if self._failure is not None:
            return
        if self.headers:
            self.trailers = headers
        elif not _is_interim(headers):
            self.headers = headers
        else:
            if headers[0][1] == b"100":
                self._continued = True
            if self._informational is None:
                self._informational = deque(maxlen=_MAX_INFORMATIONAL)
            self._informational.append(headers)
        self._end_received(ended)

    def _data_received(self, data: bytes, ended: bool) -> None:
        if self._failure is not None:
            return
        if data and not self._discarding:
            self._feed(data)
            arrival = self._arrival
            arrival.came += len(data)
            if self._unacknowledged >= _UNREAD and not arrival.withheld and not ended:
                arrival.withheld = True
                self.protocol._quic.pause_reading(self.stream_id)
        self._end_received(ended)

    def _datagram_received(self, data: bytes) -> None:
        if not self._receives:
            return
        if self._datagrams is None:
            self._datagrams = deque()
        if len(self._datagrams) < _MAX_DATAGRAMS:
            self._datagrams.append(data)
            self._waiters.wake()

    def _end_received(self, ended: bool) -> None:
        if ended:
            self._feed_eof()
            self._forget()
        self._waiters.wake()

    def _lose_reader(self, failure: Failure) -> None:
        if self._receives:
            self._failure = failure
            self._forget()
            self._waiters.wake()

    def _lose_writer(self, failure: Failure) -> None:
        if self._sends:
            self._stopped = failure
            self._forget()
            self._waiters.wake()
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    def _forget(self) -> None:
        """Leave the connection, when nothing more comes or goes."""
        if self._registered and self.closed:
            self._registered = False
            self.protocol._forget(self.stream_id)


class _Readable:
    """A function in the place of a file."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def _is_function(body: Any) -> bool:
    return callable(body) and not hasattr(body, "read") and not _is_iterable(body)


def _is_iterable(body: Any) -> bool:
    return isinstance(body, Iterable) or hasattr(body, "__aiter__")


async def _iterate(body: Any) -> AsyncGenerator[bytes | bytearray | memoryview, None]:
    iterator = body.__aiter__()
    try:
        async for piece in iterator:
            if not is_bytes_like(piece):
                raise TypeError(
                    "an asynchronous body iterator must give bytes, not "
                    f"{type(piece).__name__}"
                )
            if piece:
                yield piece
            else:
                # It may have none for ever: others have their turn.
                await asyncio.sleep(0)
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            await aclose()


def _to_fields(headers: HeadersLike) -> Headers:
    """Return fields as pairs of bytes, with names in lower case."""
    return [(_to_bytes(f[0]).lower(), _to_bytes(f[1])) for f in to_pairs(headers)]


def _to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def are_trailers(headers: Headers) -> bool:
    """Whether a header section has no pseudo-header fields (RFC 9114, 4.3)."""
    return not headers or not headers[0][0].startswith(b":")


def _is_interim(headers: Headers) -> bool:
    name, value = headers[0]
    return name == b":status" and value.startswith(b"1")


def reset_failure(
    stream_id: int, error_code: int, *, remote: bool, text: str = ""
) -> Failure:
    """Return what makes the ``StreamResetError`` of a stream; ``text`` says more."""

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
            reason=": ".join(filter(None, (reason, text))),
        )

    return failure
