"""One request and its response, seen from either end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from nghttp2py.asyncio.reader import H2StreamReader
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.asyncio.writer import Body, H2StreamWriter, HeadersLike
from nghttp2py.errors import ErrorCode, ProtocolError, StreamResetError
from nghttp2py.h2 import (
    H2InformationalResponseReceived,
    H2ResponseReceived,
    RequestReceived,
)

if TYPE_CHECKING:
    from nghttp2py.asyncio.connection import H2StreamConnection

__all__ = ["H2Stream"]

# Informational responses that nobody has asked for; older ones are forgotten.
_MAX_INFORMATIONAL = 16


class H2Stream:
    """A stream of a connection: ``H2Protocol`` makes it.

    ``reader`` has the body that comes in, ``writer`` sends ours; the methods
    here are theirs and those for header fields.  ``request`` is the request on
    the server and on a pushed stream of the client, else ``None``.

    The stream is yours: the connection forgets it when both halves have ended,
    and what has come in until then stays here.  ``async with`` resets it at
    the end if it is not finished, so that the peer stops too.
    """

    __slots__ = (
        "__weakref__",
        "_failure",
        "_informational",
        "_kept",
        "_queued",
        "_response",
        "_response_taken",
        "_sent_all",
        "_task",
        "_trailers",
        "_unsent",
        "_urgency",
        "_waiters",
        "_writer",
        "closed",
        "protocol",
        "reader",
        "request",
        "stream_id",
    )

    def __init__(
        self,
        protocol: H2StreamConnection,
        stream_id: int,
        request: RequestReceived | None = None,
    ) -> None:
        self.protocol = protocol
        self.stream_id = stream_id
        self.request = request
        #: Whether nothing more can come or go.
        self.closed = False
        self.reader = H2StreamReader(self)
        self._writer: H2StreamWriter | None = None
        self._response: H2ResponseReceived | None = None
        self._response_taken = False
        self._sent_all = False  # our half has its end, queued or gone
        self._informational: deque[H2InformationalResponseReceived] | None = None
        self._trailers: tuple[tuple[bytes, bytes], ...] = ()
        # Makes the exception that tells why the stream broke off.
        self._failure: Callable[[], ProtocolError] | None = None
        self._waiters = Waiters()
        # Bytes of our body that were queued, and how many of them never went out.
        self._queued = 0
        self._unsent = 0
        self._urgency = 3  # RFC 9218, 4.1
        # Whether the connection keeps it for those who know its number only.
        self._kept = True
        # Is cancelled when the stream breaks off.
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<H2Stream {self.stream_id} {state} of {self.protocol!r}>"

    @property
    def writer(self) -> H2StreamWriter:
        """The half that goes out."""
        writer = self._writer
        if writer is None:
            writer = self._writer = H2StreamWriter(self)
        return writer

    @property
    def connection(self) -> H2StreamConnection:
        """The connection: ``is_closing`` tells that it is being ended here.

        ``await stream.connection.wait_closing()`` waits for that.
        """
        return self.protocol

    @property
    def error(self) -> ProtocolError | None:
        """Why the stream broke off, or ``None`` if it did not."""
        return None if self._failure is None else self._failure()

    # ---- Waiting: whatever happens to the stream wakes all who wait ----

    async def _wait_to_send(self) -> None:
        blocked = self.protocol._blocked
        blocked[self] = blocked.get(self, 0) + 1
        try:
            await self._waiters.wait()
        finally:
            if blocked[self] == 1:
                del blocked[self]
            else:
                blocked[self] -= 1

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure()

    # ---- What the protocol tells ----

    def _fail(self, failure: Callable[[], ProtocolError]) -> None:
        if self._failure is None:
            self._failure = failure
            if not self.closed:
                self._unsent = self.protocol.connection.queued_body(self.stream_id)
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()
        self._waiters.wake()

    def _inform(self, event: H2InformationalResponseReceived) -> None:
        if self._informational is None:
            self._informational = deque(maxlen=_MAX_INFORMATIONAL)
        self._informational.append(event)
        self._waiters.wake()

    def _acknowledge(self, n: int, taken: int) -> None:
        # What is left of a closed stream went back to the connection by itself.
        if not self.closed:
            self.protocol._acknowledge(self, n, taken)

    def _settle(self) -> None:
        """The reader is at its end: the connection may forget the stream."""
        if self.closed and self._kept:
            self.protocol._settle(self)

    # ---- What comes in ----

    async def response(self) -> H2ResponseReceived:
        """Return the final response: ``status`` and ``headers``.

        May be called again.  Raises ``StreamResetError`` or
        ``ConnectionTerminatedError`` if there will be none.
        """
        while self._response is None:
            self._raise_failure()
            if self.closed:
                raise StreamResetError(
                    self.stream_id,
                    ErrorCode.PROTOCOL_ERROR,
                    remote=True,
                    reason="it was closed without a response",
                )
            await self._waiters.wait()
        self._response_taken = True
        return self._response

    async def informational(self) -> AsyncIterator[H2InformationalResponseReceived]:
        """Iterate over 1xx responses, until the final one comes."""
        while True:
            event = await self.next_informational()
            if event is None:
                return
            yield event

    async def next_informational(self) -> H2InformationalResponseReceived | None:
        """Return the next 1xx response, ``None`` if the final one has come."""
        while not self._informational:
            if self._response is not None:
                return None
            self._raise_failure()
            await self._waiters.wait()
        return self._informational.popleft()

    async def trailers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields after the body, when it has come in; often none.

        The body waits to be read; as long as its window is full, the peer
        sends no trailers.
        """
        while not self.reader._eof:
            self._raise_failure()
            await self._waiters.wait()
        return self._trailers

    async def read(self, n: int = -1) -> bytes:
        """Read from the body that comes in: ``H2StreamReader.read``."""
        return await self.reader.read(n)

    async def readany(self) -> bytes:
        """Read what has come in: ``H2StreamReader.readany``."""
        return await self.reader.readany()

    async def readexactly(self, n: int) -> bytes:
        """Read ``n`` bytes: ``H2StreamReader.readexactly``."""
        return await self.reader.readexactly(n)

    def at_eof(self) -> bool:
        """Whether the body that comes in has ended and was read."""
        return self.reader.at_eof()

    def __aiter__(self) -> H2Stream:
        return self

    async def __anext__(self) -> bytes:
        data = await self.reader.readany()
        if not data:
            raise StopAsyncIteration
        return data

    # ---- What goes out ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a piece of the body: ``H2StreamWriter.write``."""
        self.writer.write(data)

    async def drain(self) -> None:
        """Wait until the queue is short: ``H2StreamWriter.drain``."""
        await self.writer.drain()

    def write_eof(self) -> None:
        """End our half: ``H2StreamWriter.write_eof``."""
        self.writer.write_eof()

    async def send_data(
        self, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send a piece of the body: ``H2StreamWriter.send_data``."""
        await self.writer.send_data(data, end_stream=end_stream)

    async def send_body(
        self,
        body: Body,
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a whole body: ``H2StreamWriter.send_body``."""
        await self.writer.send_body(body, trailers=trailers, end_stream=end_stream)

    async def end_stream(self) -> None:
        """End our half, after what is being sent."""
        await self.writer.end_stream()

    async def send_trailers(self, headers: HeadersLike) -> None:
        """End our half with trailers, after what is being sent."""
        writer = self.writer
        if writer._lock is not None and writer._lock.locked():
            async with writer._lock:
                self._send_trailers(headers)
        else:
            self._send_trailers(headers)

    def _send_trailers(self, headers: HeadersLike) -> None:
        self._raise_failure()
        self.protocol.connection.send_trailers(self.stream_id, headers)
        self._sent_all = True
        self.protocol.mark_dirty()

    async def start_response(
        self, headers: HeadersLike, *, end_stream: bool = False
    ) -> None:
        """Send a response's header fields, ``:status`` among them.

        A body follows, unless ``end_stream``.  Raises ``HeadersError``,
        ``StreamStateError`` for a second response, and why the stream broke
        off if it did.
        """
        protocol = self.protocol
        if protocol._paused:
            await protocol._writable()
        self._raise_failure()
        protocol.connection.send_headers(self.stream_id, headers, end_stream=end_stream)
        if end_stream:
            self._sent_all = True
        protocol.mark_dirty()

    async def send_response(
        self,
        status: int = 200,
        headers: HeadersLike = (),
        body: Body | None = None,
        *,
        trailers: HeadersLike | None = None,
    ) -> None:
        """Send a whole response; ``body`` as ``send_body`` takes it, or ``None``."""
        protocol = self.protocol
        if protocol._paused:
            await protocol._writable()
        self._raise_failure()
        end_stream = body is None and trailers is None
        protocol.connection.send_response_headers(
            self.stream_id, status, headers, end_stream=end_stream
        )
        protocol.mark_dirty()
        if end_stream:
            self._sent_all = True
        else:
            await self.writer.send_body(
                b"" if body is None else body, trailers=trailers
            )

    async def send_informational(self, status: int, headers: HeadersLike = ()) -> None:
        """Send a 1xx response, before the final one (RFC 9110, 15.2)."""
        protocol = self.protocol
        if protocol._paused:
            await protocol._writable()
        self._raise_failure()
        protocol.connection.send_informational(self.stream_id, status, headers)
        protocol.mark_dirty()

    async def push(self, headers: HeadersLike) -> H2Stream:
        """Promise a response to a request of ours, and return its stream.

        ``headers`` are the request's; ``:method`` (GET), ``:scheme`` and
        ``:authority`` are this request's if they are absent.  Raises
        ``PushDisabledError`` (RFC 9113, 8.4).
        """
        return await self.protocol._push(self, headers)

    # ---- The end ----

    def reset(self, error_code: int = ErrorCode.CANCEL) -> None:
        """End both halves at once; of a closed stream it is nothing.

        Who waits on the stream gets ``StreamResetError``.
        """
        if self.closed or self._failure is not None:
            return
        stream_id = self.stream_id
        self._fail(
            lambda: StreamResetError(
                stream_id, error_code, remote=False, reason="reset() was called"
            )
        )
        self.protocol._reset(stream_id, error_code)

    async def __aenter__(self) -> H2Stream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._sent_all:
            self.reset(ErrorCode.CANCEL if kind is None else self.protocol._blame())
        elif not self.reader._eof:
            if self.protocol.connection.client_side:
                self.reset()
            else:
                # RFC 9113, 8.1: the response is whole, the request need not be.
                self.protocol._reset(
                    self.stream_id, ErrorCode.NO_ERROR, after_flush=True
                )
