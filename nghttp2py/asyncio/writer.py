"""The outgoing half of a stream: bodies, back-pressure, its end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, cast

from nghttp2py.asyncio.stream_link import Failure
from nghttp2py.asyncio.stream_state import StreamState
from nghttp2py.errors import (
    HeadersError,
    NGHTTP2Error,
    ProtocolError,
    SendException,
    StreamTimeoutError,
    not_sent,
)
from nghttp2py.exchange import has_content
from nghttp2py.h2.body import is_bytes_like

__all__ = ["Body", "HeadersLike", "Outgoing", "StreamWriter", "to_pairs"]

Text = str | bytes
#: Header fields as an argument: a mapping, or pairs; a true third item keeps a field
#: out of HPACK's tables.
HeadersLike = (
    Mapping[str, Text]
    | Mapping[bytes, Text]
    | Iterable[tuple[Text, Text] | tuple[Text, Text, bool]]
)

#: A body as an argument: bytes-like, a binary file, pieces.
Body = bytes | bytearray | memoryview | Iterable[bytes] | AsyncIterable[bytes] | Any

# The queue at which senders wait, and the pieces into which a body is split: as many
# bytes as the pump gathers for one write.
PIECE = 65536


def to_pairs(headers: HeadersLike) -> Iterable[Any]:
    """Iterate over the pairs of a mapping or an iterable of fields."""
    return headers.items() if isinstance(headers, Mapping) else headers


class Outgoing(StreamState):
    """The outgoing half of a stream, and the waiting of both halves.

    Every event of the stream wakes all waiters; each of them checks its condition.
    """

    __slots__ = ()

    #: Whether the stream is closed.
    closed = StreamState.is_over

    @property
    def _sends(self) -> bool:
        return not self._sent_all and self._stopped is None and not self.closed

    # ---- Waiting ----

    async def _wait(self) -> None:
        """Wait for the next event; the connection keeps a reference to the stream
        meanwhile."""
        http = self.link
        timer = None
        if http.timeout is not None:
            timer = self._start_timer(http.timeout)
        future = self.begin_wait()
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            if not self.end_wait(future):
                http.release(self)

    def _start_timer(self, seconds: float | None) -> asyncio.TimerHandle | None:
        """Reset the stream after some seconds, unless it is cancelled."""
        if seconds is None:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, self._time_out, seconds)

    def _time_out(self, seconds: float) -> None:
        stream_id, code = self.stream_id, self.link.codes.cancelled
        name = self.link.code_name(code)
        self.break_off(lambda: StreamTimeoutError(stream_id, seconds, code, name), code)

    def break_off(self, failure: Failure, error_code: int) -> None:
        """Reset the stream for a reason of our own, unless that was done."""
        if not self.closed:
            self.aborted(failure, error_code, True, True)
            self.link.reset(self, error_code)

    def _cancel_task(self) -> None:
        """Cancel the task that handles the stream, unless it is the current one."""
        task = self._task
        if task is not None and not _is_current(task):
            task.cancel()

    def _cancel(self, error_code: int, reason: str) -> None:
        failure = self.link.make_failure(self.stream_id, error_code, reason)
        self.break_off(failure, error_code)

    def _end_upload(self) -> None:
        """Reset a request whose rest the server does not need.

        RFC 9113, 8.1, and RFC 9114, 4.1: the server may ask for that.  If it does not,
        the stream would stay open for ever.
        """
        if not self.closed:
            self._cancel(
                self.link.codes.cancelled,
                "the response was whole before the request was",
            )

    def _raise_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped()

    async def _until_room(self, wanted: int, *, ahead: bool = False) -> int:
        """Wait until bytes can be queued; return how many, at most ``wanted``."""
        while True:
            self._raise_stopped()
            if self._sent_all or self.closed or not wanted:
                return wanted  # sending will raise
            room: int = self.link.room(self, wanted, ahead)
            if room:
                return room
            await self._wait()

    async def _until_low(self, low: int) -> None:
        """Wait until at most ``low`` bytes are queued."""
        while True:
            self._raise_stopped()
            http = self.link
            # A stream of HTTP/3 is closed when its end is queued.
            if self.closed and not http.halves_end_alone:
                return
            if http.notify_writable(self, low):
                return
            await self._wait()

    def _write_turn(self) -> asyncio.Lock:
        """Return the lock that keeps bodies of several coroutines from mixing."""
        if self._send_lock is None:
            self._send_lock = asyncio.Lock()
        return self._send_lock

    # ---- Header sections ----

    async def send_informational(self, status: int, headers: HeadersLike = ()) -> None:
        """Send a 1xx response, before the final one (RFC 9110, 15.2).

        Raises ``ValueError`` for another status.
        """
        await self._until_transport()
        self.link.send_informational(self, status, headers)
        if status == 100:
            self._continued = True

    async def _until_transport(self) -> None:
        """Wait until the transport accepts bytes, and check that we may send."""
        http = self.link
        if http.is_paused:
            await http.wait_transport()
        self._raise_stopped()

    async def start_response(
        self, headers: HeadersLike, *, end_stream: bool = False
    ) -> None:
        """Send a response's header fields, ``:status`` among them.

        A body follows, unless ``end_stream``.  That of a response that must have none
        is dropped (RFC 9110, 6.4.1).  Raises ``HeadersError``,
        ``StreamStateError`` for a second response, and the reason if the stream
        broke off.
        """
        await self._until_transport()
        self.link.send_fields(self, headers, end_stream)
        self._sent_all = self._sent_all or end_stream

    async def send_response(
        self,
        status: int = 200,
        headers: HeadersLike = (),
        body: Body | None = None,
        *,
        trailers: HeadersLike | None = None,
    ) -> None:
        """Send a whole response; ``body`` is as for ``send_body``, or ``None``.

        For a response that must not have a body, it is not sent (RFC 9110, 6.4.1).
        """
        await self._until_transport()
        if self._is_without_content(status):
            body = trailers = None
        end_stream = body is None and trailers is None
        self.link.send_response(self, status, headers, end_stream)
        if end_stream:
            self._sent_all = True
        else:
            await self.send_body(b"" if body is None else body, trailers=trailers)

    def _is_without_content(self, status: int | None) -> bool:
        """Whether the response that was begun, with ``status``, has no content.

        Its body and trailers are dropped, as those of handlers are.
        """
        request = self.request
        return (
            status is not None
            and request is not None
            and not has_content(request.method, status)
        )

    async def send_trailers(self, headers: HeadersLike) -> None:
        """End our half with trailers, after the body that is being sent."""
        lock = self._send_lock
        if lock is not None and lock.locked():
            async with lock:
                self._send_trailers(headers)
        else:
            self._send_trailers(headers)

    def _send_trailers(self, headers: HeadersLike) -> None:
        self._raise_stopped()
        if self._is_without_content(self.status) and not self._sent_all:
            self.link.end(self)
        else:
            self.link.send_trailers(self, headers)
        self._sent_all = True

    # ---- Bodies ----

    def _queue(self, data: bytes | memoryview, end_stream: bool) -> None:
        self._raise_stopped()
        if self._is_without_content(self.status) and not self._sent_all:
            if not end_stream:
                return
            data = b""
        self.link.queue_body(self, data, end_stream)
        self.body_bytes_sent += len(data)
        if end_stream:
            self._sent_all = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data``: see ``StreamWriter.write``.

        Raises ``BodyQueueFullError`` if more than ``config.max_body_queue``
        bytes would be queued: ``drain`` in between.
        """
        self._queue(bytes(data), False)

    async def drain(self) -> None:
        """Wait until at most 64 KiB are queued and the transport accepts more."""
        await self._until_transport()
        await self._until_low(PIECE)

    def write_eof(self) -> None:
        """End this half of the stream after the queue; a second call is a no-op."""
        if not self._sent_all:
            self._raise_stopped()
            self.link.end(self)
            self._sent_all = True

    async def wait_sent(self) -> None:
        """Wait until all that was queued has been handed to the transport.

        Raises ``StreamResetError`` or ``ConnectionTerminatedError`` if it cannot
        be.
        """
        await self._until_low(0)

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send ``data`` as the peer's windows allow, and wait until all is sent.

        Returns when the last byte was passed on to be written.  Raises
        ``SendException`` with the rest if the stream or the connection ends; it is a
        ``StreamResetError`` or a ``ConnectionTerminatedError``, too, if that is the
        cause.  What a cancelled call has sent stays sent.
        """
        if self._expecting and not await self._is_body_expected():
            return
        if not isinstance(data, bytes):
            data = bytes(data)
        if self._has_room(len(data), ahead=False):
            self._send_piece(data, 0, end_stream)
            return
        async with self._write_turn():
            await self._send_bytes(data, 0, end_stream, ahead=False)

    async def _is_body_expected(self) -> bool:
        """Wait for 100 (Continue); return whether the body is to be sent."""
        return True

    def _has_room(self, size: int, *, ahead: bool) -> bool:
        """Whether so many bytes can be queued now, before no other coroutine's."""
        lock = self._send_lock
        if not (size and self._sends) or (lock is not None and lock.locked()):
            return False
        room: int = self.link.room(self, size, ahead)
        return room == size

    async def _send_bytes(
        self, data: bytes, sent: int, end_stream: bool, *, ahead: bool
    ) -> None:
        """Queue bytes piece by piece, as there is room."""
        size = len(data)
        while True:
            try:
                room = await self._until_room(size - sent, ahead=ahead)
            except ProtocolError as error:
                raise not_sent(data[sent:], error) from error
            if room >= size - sent:
                self._send_piece(data, sent, end_stream)
                return
            self._send_piece(memoryview(data)[: sent + room], sent, False)
            sent += room

    def _send_piece(self, data: bytes | memoryview, sent: int, end: bool) -> None:
        try:
            self._queue(memoryview(data)[sent:] if sent else data, end)
        except (HeadersError, TypeError):
            raise
        except ProtocolError as error:
            raise not_sent(bytes(data[sent:]), error) from error

    async def end_stream(self) -> None:
        """End our half, after what other coroutines are sending."""
        await self.send_data(b"", end_stream=True)

    async def send_body(
        self,
        body: Body | Callable[[int], Any],
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a body of any form, and end the stream after it.

        ``body`` is bytes-like; a binary file, or a function such as its ``read``,
        either of which may be asynchronous, and should not block for long; an iterable
        or asynchronous iterable of bytes-like pieces.  Streams and responses of this
        package are bodies, too.  The next piece is read when at most 64 KiB are queued.
        ``trailers`` follow the body.  If the source fails, or this call is cancelled,
        the stream is reset, because its message can never be complete.  Raises what the
        source raises, and as ``send_data``.
        """
        if trailers is not None and not end_stream:
            raise ValueError("trailers end the stream: end_stream must be true")
        if isinstance(body, str):
            raise TypeError("a body must be bytes, not str: encode it")
        if self._expecting and not await self._is_body_expected():
            return
        was_whole = False
        try:
            if (
                type(body) is bytes
                and trailers is None
                and self._has_room(len(body), ahead=True)
            ):
                self._send_piece(body, 0, end_stream)
                await self._until_under_way(body)
                return
            async with self._write_turn():
                was_whole = self._sent_all
                last = end_stream and trailers is None
                if is_bytes_like(body):
                    data = bytes(body)
                    await self._send_bytes(data, 0, last, ahead=True)
                else:
                    data = b""
                    await self._send_pieces(body)
                    if last:
                        await self._send_bytes(b"", 0, True, ahead=True)
                if trailers is not None:
                    self._send_trailers(trailers)
                await self._until_under_way(data)
        except BaseException as error:
            # A stream whose outgoing half broke off, or ended before, may still get a
            # response; what could not be queued over HTTP/2 leaves the stream
            # unchanged.
            refused = isinstance(error, SendException) and not (
                self.link.halves_end_alone
            )
            if self._stopped is None and not was_whole and not refused:
                codes = self.link.codes
                if isinstance(error, asyncio.CancelledError):
                    self._cancel(codes.cancelled, "sending its body was cancelled")
                else:
                    self._cancel(codes.internal_error, "sending its body failed")
            raise

    async def _until_under_way(self, data: bytes) -> None:
        """Wait until the peer's windows allow what is queued to be sent."""
        if self.link.is_under_way(self):
            return
        try:
            await self._until_low(0)
        except ProtocolError as error:
            left = min(len(data), self._unsent)
            raise not_sent(data[len(data) - left :], error) from error

    async def _send_pieces(self, body: Any) -> None:
        read = _find_read(body)
        if isinstance(body, AsyncIterable):
            # Iterating is preferred to ``read``: streams of this package have both.
            iterator = body.__aiter__()
            try:
                await self._until_room(PIECE, ahead=True)
                async for piece in iterator:
                    await self._send_one(piece)
            finally:
                aclose = getattr(iterator, "aclose", None)
                if aclose is not None:
                    await aclose()
        elif read is not None:
            while True:
                piece = read(await self._until_room(PIECE, ahead=True))
                # ``read`` may be a coroutine function, or return a future.
                if inspect.isawaitable(piece):
                    piece = await piece
                if not piece:
                    return
                await self._send_one(piece)
        elif isinstance(body, Iterable):
            for piece in body:
                await self._send_one(piece)
        else:
            raise TypeError(
                "a body must be bytes-like, a binary file or its read(), or an "
                "iterable or asynchronous iterable of bytes, not "
                f"{type(body).__name__}"
            )

    async def _send_one(self, piece: Any) -> None:
        """Queue a piece, and wait until there is room for the next."""
        if not is_bytes_like(piece):
            raise TypeError(f"a body gives bytes, not {type(piece).__name__}")
        if not piece:
            # Other tasks get a turn even if the source never waits.
            await asyncio.sleep(0)
            return
        data = bytes(piece)
        await self._send_bytes(data, 0, False, ahead=True)
        try:
            await self._until_room(1, ahead=True)
        except ProtocolError as error:
            left = min(len(data), self._unsent)
            raise not_sent(data[len(data) - left :], error) from error


def _is_current(task: asyncio.Task[Any]) -> bool:
    try:
        return task is asyncio.current_task()
    except RuntimeError:
        return False  # no loop runs


class StreamWriter:
    """Sends a stream's body, like ``asyncio.StreamWriter``.

    ``write`` queues and ``drain`` waits until the queue is short; ``send_data`` and
    ``send_body`` do both.  The peer's windows and the transport determine how fast
    bytes are sent.  Header fields are sent by the stream.
    """

    # A view, like StreamReader.
    __slots__ = ("_stream",)

    def __init__(self, stream: Outgoing) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of stream {self._stream.stream_id}>"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data``.

        Raises ``BodyQueueFullError`` if more than ``config.max_body_queue``
        bytes would be queued: ``drain`` in between.
        """
        self._stream.write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue all pieces, as ``write`` does."""
        self._stream.write(b"".join(data))

    async def drain(self) -> None:
        """Wait until at most 64 KiB are queued and the transport accepts more."""
        await self._stream.drain()

    def can_write_eof(self) -> bool:
        """Return True: the halves of a stream end independently."""
        return True

    def write_eof(self) -> None:
        """End this half of the stream after the queue; a second call is a no-op."""
        self._stream.write_eof()

    def close(self) -> None:
        """End this half of the stream, if the stream is not closed."""
        if not self.is_closing():
            try:
                self.write_eof()
            except NGHTTP2Error:
                # No headers were sent, or the content-length was not met: the peer must
                # not take what it has for a complete message.
                stream = self._stream
                stream._cancel(stream.link.codes.cancelled, "its writer was closed")

    def is_closing(self) -> bool:
        """Return whether this half has ended, or the stream is closed."""
        return not self._stream._sends

    async def wait_closed(self) -> None:
        """Wait until this half was passed to the transport.

        Raises ``StreamResetError`` or ``ConnectionTerminatedError`` if it
        cannot be.
        """
        await self._stream.wait_sent()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information, as ``asyncio.StreamWriter`` does."""
        return self._stream.link.get_extra_info(name, default)

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send ``data``: see ``Stream.send_data``."""
        await self._stream.send_data(data, end_stream=end_stream)

    async def send_body(
        self,
        body: Body,
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a body of any form: see ``Stream.send_body``."""
        await self._stream.send_body(body, trailers=trailers, end_stream=end_stream)

    async def end_stream(self) -> None:
        """End this half of the stream, after what other coroutines are sending."""
        await self._stream.end_stream()


def _find_read(body: Any) -> Callable[[int], Any] | None:
    """Return the function that reads a body: a file's ``read``, or the body itself if
    it is a function and no other kind of body."""
    read: Any = getattr(body, "read", None)
    if callable(read):
        return cast(Callable[[int], Any], read)
    if callable(body) and not isinstance(body, (AsyncIterable, Iterable)):
        return cast(Callable[[int], Any], body)
    return None
