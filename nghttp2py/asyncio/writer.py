"""The half of a stream that goes out: bodies, back-pressure, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nghttp2py.asyncio.body import iterate
from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    ProtocolError,
    SendException,
    StreamClosedError,
)
from nghttp2py.h2.body import is_bytes_like

if TYPE_CHECKING:
    from nghttp2py.asyncio.stream import H2Stream

__all__ = ["Body", "H2StreamWriter", "HeadersLike", "to_pairs"]

Text = str | bytes
#: Header fields as they may be given: a mapping, or pairs; a third item that is
#: true keeps a field out of HPACK's tables.
HeadersLike = (
    Mapping[str, Text]
    | Mapping[bytes, Text]
    | Iterable[tuple[Text, Text] | tuple[Text, Text, bool]]
)

#: A body as it may be given: bytes-like, a binary file, pieces.
Body = bytes | bytearray | memoryview | Iterable[bytes] | AsyncIterable[bytes] | Any

# Bytes queued on a stream at which senders wait, and pieces that a body is cut
# into: as much as the pump gathers for one write.
_HIGH = 65536


def to_pairs(headers: HeadersLike) -> Iterable[Any]:
    """Return the fields one by one, whether they came as a mapping or as pairs."""
    return headers.items() if isinstance(headers, Mapping) else headers


class H2StreamWriter:
    """Sends a stream's body, like ``asyncio.StreamWriter``.

    ``write`` queues and ``drain`` waits until the queue is short; ``send_data``
    and ``send_body`` do both.  How fast it goes is up to the peer's windows,
    and to the transport.  Header fields are sent by the stream.
    """

    # A view, as H2StreamReader is.
    __slots__ = ("_stream",)

    def __init__(self, stream: H2Stream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<H2StreamWriter of stream {self._stream.stream_id}>"

    # ---- asyncio.StreamWriter ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data``.

        Raises ``BodyQueueFullError`` if more than ``config.max_body_queue``
        bytes wait: ``drain`` in between.
        """
        stream = self._stream
        stream._raise_failure()
        stream.protocol.connection.send_body(stream.stream_id, data, end_stream=False)
        stream._queued += memoryview(data).nbytes
        stream.protocol.mark_dirty()

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue all pieces, as ``write`` does."""
        self.write(b"".join(data))

    async def drain(self) -> None:
        """Wait until at most 64 KiB are queued, and the transport takes more."""
        stream = self._stream
        while True:
            stream._raise_failure()
            if stream.closed or self._is_low(_HIGH):
                return
            await stream._wait_to_send()

    def can_write_eof(self) -> bool:
        """Return True: either half of a stream ends by itself."""
        return True

    def write_eof(self) -> None:
        """End this half of the stream after what is queued; again it is nothing."""
        stream = self._stream
        if stream._sent_all:
            return
        stream._raise_failure()
        stream.protocol.connection.end_stream(stream.stream_id)
        stream._sent_all = True
        stream.protocol.mark_dirty()

    def close(self) -> None:
        """End this half of the stream, if the stream is not closed."""
        if not self.is_closing():
            try:
                self.write_eof()
            except ProtocolError:
                # No headers were sent, or a content-length was not met: the
                # peer must not take what it has for the whole.
                self._stream.reset(ErrorCode.CANCEL)

    def is_closing(self) -> bool:
        """Whether this half has ended, or the stream is closed."""
        return self._stream._sent_all or self._stream.closed

    async def wait_closed(self) -> None:
        """Wait until this half was handed to the transport.

        Raises ``StreamResetError`` or ``ConnectionTerminatedError`` if it
        cannot be.
        """
        stream = self._stream
        while True:
            stream._raise_failure()
            if stream.closed or self._is_low(0):
                return
            await stream._wait_to_send()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information, as ``asyncio.StreamWriter`` does."""
        return self._stream.protocol.get_extra_info(name, default)

    def _locked(self) -> asyncio.Lock:
        stream = self._stream
        if stream._send_lock is None:
            stream._send_lock = asyncio.Lock()
        return stream._send_lock

    def _is_low(self, low: int) -> bool:
        stream = self._stream
        if stream.protocol._paused:
            return False
        try:
            return stream.protocol.connection.notify_drained(stream.stream_id, low)
        except StreamClosedError:
            return True  # our half has gone out whole

    # ---- Whole messages ----

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send ``data`` as far as the peer's windows open, and wait for them.

        Returns when the last of it was handed over to be written.  Raises
        ``SendException`` with the rest if it cannot go on.  What a cancelled
        call has sent stays sent.
        """
        if not isinstance(data, bytes):
            data = bytes(data)
        lock = self._stream._send_lock
        sent = 0
        if lock is None or not lock.locked():
            sent = self._send(data, 0, end_stream)
            if sent == len(data) and (not end_stream or self._stream._sent_all):
                return
        async with self._locked():
            while True:
                await self._until_ready(data, sent)
                sent = self._send(data, sent, end_stream)
                if sent == len(data) and (not end_stream or self._stream._sent_all):
                    return

    def _send(self, data: bytes, sent: int, end_stream: bool) -> int:
        """Queue what windows and the queue's bound allow; return where it stands."""
        stream = self._stream
        protocol = stream.protocol
        connection = protocol.connection
        stream_id = stream.stream_id
        try:
            if stream._failure is not None:
                stream._raise_failure()
            if not protocol._paused:
                room = _HIGH - connection.queued_body(stream_id)
                left = len(data) - sent
                if room > 0 or not left:
                    piece = data
                    if sent or left > room:
                        piece = data[sent : sent + room]
                    last = end_stream and len(piece) == left
                    n = connection.send_data(stream_id, piece, end_stream=last)
                    if n == len(piece) and last:
                        stream._sent_all = True
                    sent += n
                    stream._queued += n
                    protocol.mark_dirty()
        except ProtocolError as error:
            raise self._not_sent(data[sent:], error) from error
        return sent

    async def _until_ready(self, data: bytes, sent: int) -> None:
        """Wait until ``_send`` gets on: room in queue, windows and transport."""
        stream = self._stream
        connection = stream.protocol.connection
        while stream._failure is None and not stream.closed:
            if self._is_low(_HIGH - 1) and (
                sent == len(data)
                or connection.local_flow_control_window(stream.stream_id)
            ):
                return
            await stream._wait_to_send()

    async def send_body(
        self,
        body: Body,
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a body of any form, and end the stream after it.

        ``body`` is bytes-like, an asynchronous iterable of bytes-like pieces, a
        binary file (whose ``read`` may be a coroutine function, and should not
        block for long) or an iterable.  Streams and responses of this package
        are bodies, too.  A piece is asked for when at most 64 KiB wait.
        ``trailers`` follow it.  If the source fails, or this call is
        cancelled, the stream is reset, as its message can never be whole.
        Raises what the source raises, and as ``send_data``.
        """
        if trailers is not None and not end_stream:
            raise ValueError("trailers end the stream: end_stream must be true")
        if isinstance(body, str):
            raise TypeError("a body must be bytes, not str: encode it")
        try:
            async with self._locked():
                if is_bytes_like(body):
                    await self._send_whole(bytes(body), end_stream, trailers)
                else:
                    await self._send_pieces(body)
                    if end_stream:
                        await self._send_whole(b"", True, trailers)
        except SendException:
            raise
        except asyncio.CancelledError:
            self._stream.reset(ErrorCode.CANCEL)
            raise
        except BaseException:
            self._stream.reset(ErrorCode.INTERNAL_ERROR)
            raise

    async def _send_whole(
        self, data: bytes, end_stream: bool, trailers: HeadersLike | None
    ) -> None:
        """Hand over the rest of a message, and wait until it is on its way.

        The C library takes it as windows open, without a turn of the loop.
        """
        stream = self._stream
        connection = stream.protocol.connection
        stream_id = stream.stream_id
        await self._until_low(data, _HIGH)
        if connection.queued_body(stream_id) + len(data) > _HIGH:
            # A piece of any size is taken, but only by itself.
            await self._until_low(data, 0)
        try:
            queued = connection.queued_body(stream_id)
            room = connection.local_flow_control_window(stream_id)
            connection.send_body(
                stream_id, data, trailers=trailers, end_stream=end_stream
            )
        except (HeadersError, TypeError):
            raise
        except ProtocolError as error:
            raise self._not_sent(data, error) from error
        stream._queued += len(data)
        stream._sent_all = stream._sent_all or end_stream
        stream.protocol.mark_dirty()
        if len(data) > room or (queued and not room):
            await self._until_low(data, 0, queued=True)

    async def _until_low(self, data: bytes, low: int, *, queued: bool = False) -> None:
        """Wait until at most ``low`` bytes are queued.

        ``data`` is what is being sent, and whether it is ``queued`` already.
        """
        stream = self._stream
        connection = stream.protocol.connection
        while True:
            if stream._failure is not None:
                error = stream._failure()
                left = min(len(data), stream._unsent) if queued else len(data)
                raise self._not_sent(data[len(data) - left :], error) from error
            if stream.closed:
                return
            try:
                if connection.notify_drained(stream.stream_id, low):
                    return
            except StreamClosedError:
                return  # our half has gone out whole
            await stream._wait()

    def _not_sent(self, rest: bytes, error: ProtocolError) -> SendException:
        return SendException(rest, f"{len(rest)} bytes were not sent: {error}")

    async def _send_pieces(self, body: Any) -> None:
        iterator = iterate(body)
        if iterator is not None:
            try:
                async for piece in iterator:
                    await self._send_piece(piece)
            finally:
                aclose = getattr(iterator, "aclose", None)
                if aclose is not None:
                    await aclose()
        elif callable(getattr(body, "read", None)):
            while piece := body.read(_HIGH):
                await self._send_piece(piece)
        elif isinstance(body, Iterable):
            for piece in body:
                await self._send_piece(piece)
        else:
            raise TypeError(
                "a body must be bytes-like, a binary file, or an iterable or "
                f"asynchronous iterable of bytes, not {type(body).__name__}"
            )

    async def _send_piece(self, piece: Any) -> None:
        """Queue a piece, and wait until there is room for another."""
        if not is_bytes_like(piece):
            raise TypeError(f"a body gives bytes, not {type(piece).__name__}")
        if not piece:
            # Others have their turn, even if the source never waits.
            await asyncio.sleep(0)
            return
        stream = self._stream
        piece = bytes(piece)
        if len(piece) > _HIGH:
            await self._until_low(piece, 0)
        try:
            stream._raise_failure()
            stream.protocol.connection.send_body(
                stream.stream_id, piece, end_stream=False
            )
        except ProtocolError as error:
            raise self._not_sent(piece, error) from error
        stream._queued += len(piece)
        stream.protocol.mark_dirty()
        await self._until_low(piece, _HIGH, queued=True)

    async def end_stream(self) -> None:
        """End this half of the stream, after what others are sending on it."""
        await self.send_data(b"", end_stream=True)
