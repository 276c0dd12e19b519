"""One request and its response, seen from either end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from nghttp2py.asyncio.reader import H2StreamReader, Incoming
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.asyncio.writer import Body, H2StreamWriter, HeadersLike
from nghttp2py.errors import (
    ErrorCode,
    ProtocolError,
    StreamResetError,
    StreamTimeoutError,
)
from nghttp2py.exchange import FAILURE, FAILURE_FIELDS, has_content
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


class H2Stream(Incoming):
    """A stream of a connection: ``H2Protocol`` makes it.

    ``reader`` has the body that comes in, ``writer`` sends ours; the methods
    here are theirs and those for header fields.  ``request`` is the request on
    the server and on a pushed stream of the client, else ``None``.

    The stream is yours: the connection forgets it when both halves have ended,
    and what has come in until then stays here.  ``async with`` resets it at
    the end if it is not finished, so that the peer stops too; so it is when
    nothing refers to an unfinished stream any more.

    A client that waits for 100 (Continue) gets it when the body is first waited for,
    unless the response was begun before.

    A client's upload ends when an error response (a status from 300) has come
    whole, or any other was read to its end: the server has no use for the rest
    (RFC 9113, 8.1).  The halves of a CONNECT tunnel end one by one.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_continued",
        "_failure",
        "_informational",
        "_kept",
        "_queued",
        "_response",
        "_response_taken",
        "_send_lock",
        "_sent_all",
        "_start",
        "_status",
        "_task",
        "_trailers",
        "_tunnel",
        "_unsent",
        "_urgency",
        "_waiters",
        "closed",
        "protocol",
        "request",
        "stream_id",
    )

    def __init__(
        self,
        protocol: H2StreamConnection,
        stream_id: int,
        request: RequestReceived | None = None,
        *,
        kept: bool = True,
    ) -> None:
        Incoming.__init__(self)
        self.protocol = protocol
        self.stream_id = stream_id
        # For the access log: when the stream began, and the status that was sent.
        self._start = time.monotonic()
        self._status: int | None = None
        self.request = request
        #: Whether nothing more can come or go.
        self.closed = False
        self._continued = False  # 100 (Continue) was sent, or is not asked for
        self._answered = False  # our response's header section was sent
        self._response: H2ResponseReceived | None = None
        self._response_taken = False
        self._tunnel = False  # of CONNECT: either half ends by itself
        self._sent_all = False  # our half has its end, queued or gone
        self._send_lock: asyncio.Lock | None = None
        self._informational: deque[H2InformationalResponseReceived] | None = None
        self._trailers: tuple[tuple[bytes, bytes], ...] = ()
        # Makes the exception that tells why the stream broke off.
        self._failure: Callable[[], ProtocolError] | None = None
        self._waiters = Waiters()
        # Bytes of our body that were queued, and how many of them never went out.
        self._queued = 0
        self._unsent = 0
        self._urgency = 3  # RFC 9218, 4.1
        # Whether the connection keeps it, for callers that know its number only.
        self._kept = kept
        # Is cancelled when the stream breaks off.
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<H2Stream {self.stream_id} {state} of {self.protocol!r}>"

    # The connection refers to a stream that was handed out only weakly, and its
    # reader and writer are made when they are asked for: so it ends when its user
    # drops it.

    def __del__(self) -> None:
        # This may run in any thread, and after an __init__ that has failed.
        if getattr(self, "closed", True) or self._failure is not None:
            return
        if self._sent_all and self._eof:
            return  # what is queued is on its way
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.protocol._loop.call_soon_threadsafe(
                partial(self.protocol._drop, self.stream_id, self._sent_all, self._task)
            )

    @property
    def reader(self) -> H2StreamReader:
        """The half that comes in."""
        return H2StreamReader(self)

    @property
    def writer(self) -> H2StreamWriter:
        """The half that goes out."""
        return H2StreamWriter(self)

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

    async def _wait(self) -> None:
        """Wait until something happens; the connection keeps the stream meanwhile."""
        protocol = self.protocol
        waiting = protocol._waiting
        waiting.add(self)
        timer = None
        if protocol.timeout is not None:
            timer = self._start_timer(protocol.timeout)
        try:
            await self._waiters.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if not self._waiters:
                waiting.discard(self)

    async def _await_body(self) -> None:
        if not self._continued:
            self._continued = True
            self._send_continue()
        await self._wait()

    async def _wait_to_send(self) -> None:
        blocked = self.protocol._blocked
        blocked[self] = blocked.get(self, 0) + 1
        timer = self._start_timer(self.protocol.timeout)
        try:
            await self._waiters.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if blocked[self] == 1:
                del blocked[self]
            else:
                blocked[self] -= 1

    def _start_timer(self, seconds: float | None) -> asyncio.TimerHandle | None:
        """Have the stream reset after some seconds, unless it is cancelled."""
        if seconds is None:
            return None
        return self.protocol._loop.call_later(seconds, self._time_out, seconds)

    def _time_out(self, seconds: float) -> None:
        if self._failure is None and not self.closed:
            stream_id = self.stream_id
            self._fail(lambda: StreamTimeoutError(stream_id, seconds))
            self.protocol._reset(stream_id, ErrorCode.CANCEL)

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

    def _acknowledge(self, n: int) -> None:
        self._unacknowledged -= n
        self._taken += n
        # What is left of a closed stream went back to the connection by itself.
        if not self.closed:
            self.protocol._acknowledge(self, n, self._taken)

    def _body_finished(self) -> None:
        """The body was read to its end: the connection may forget the stream."""
        protocol = self.protocol
        if self.closed:
            if self._kept:
                protocol._drop_finished(self)
        elif self._response is not None and not self._tunnel:
            # A client's: what is left of the request is of no use.  What was queued
            # is sent before.
            protocol._loop.call_soon(self._end_upload)

    def _end_upload(self) -> None:
        """Reset a stream of a client whose response is whole.

        RFC 9113, 8.1: the server may ask for that by RST_STREAM.  One that does
        not would hold the stream for ever.
        """
        if not self.closed:
            self._reset(
                ErrorCode.CANCEL, "the response was whole before the request was"
            )

    # ---- What comes in ----

    async def response(self, timeout: float | None = None) -> H2ResponseReceived:
        """Return the final response: ``status`` and ``headers``.

        May be called again.  Raises ``StreamResetError`` or
        ``ConnectionTerminatedError`` if there will be none; ``StreamTimeoutError``
        if it has not come after ``timeout`` seconds, and the stream is reset.
        """
        timer = None
        try:
            while self._response is None:
                self._raise_failure()
                if self.closed:
                    raise StreamResetError(
                        self.stream_id,
                        ErrorCode.PROTOCOL_ERROR,
                        remote=True,
                        reason="it was closed without a response",
                    )
                if timer is None:
                    timer = self._start_timer(timeout)
                await self._wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._response_taken = True
        return self._response

    async def _body_is_wanted(self, seconds: float) -> bool:
        """Wait for 100 (Continue), and no longer than so many seconds.

        Return whether the body is to be sent: unless the final response refuses
        it (RFC 9110, 10.1.1).
        """
        over = False

        def end() -> None:
            nonlocal over
            over = True
            self._waiters.wake()

        timer = self.protocol._loop.call_later(seconds, end)
        try:
            while self._response is None:
                self._raise_failure()
                if (
                    over
                    or self.closed
                    or any(event.status == 100 for event in self._informational or ())
                ):
                    return True
                await self._wait()
        finally:
            timer.cancel()
        return self._response.status < 300

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
            await self._wait()
        return self._informational.popleft()

    async def trailers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields after the body, when it has come in; often none.

        The body waits to be read; as long as its window is full, the peer
        sends no trailers.
        """
        while not self._eof:
            self._raise_failure()
            await self._wait()
        return self._trailers

    def __aiter__(self) -> H2Stream:
        return self

    async def __anext__(self) -> bytes:
        data = await self.readany()
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
        lock = self._send_lock
        if lock is not None and lock.locked():
            async with lock:
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
        status = _find_status(headers)
        protocol.connection.send_headers(self.stream_id, headers, end_stream=end_stream)
        self._answered = True
        self._status = status
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
        """Send a whole response; ``body`` as ``send_body`` takes it, or ``None``.

        The body of a response that must have none is not sent (RFC 9110, 6.4.1).
        """
        protocol = self.protocol
        if protocol._paused:
            await protocol._writable()
        self._raise_failure()
        if self.request is not None and not has_content(self.request.method, status):
            body = trailers = None
        end_stream = body is None and trailers is None
        protocol.connection.send_response_headers(
            self.stream_id, status, headers, end_stream=end_stream
        )
        self._answered = True
        self._status = status
        protocol.mark_dirty()
        if end_stream:
            self._sent_all = True
        else:
            await self.writer.send_body(
                b"" if body is None else body, trailers=trailers
            )

    def _send_continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110, 10.1.1)."""
        protocol = self.protocol
        if (
            protocol._client_side
            or self.request is None
            or self._answered
            or self.closed
            or not any(
                name == b"expect" and value.lower() == b"100-continue"
                for name, value in self.request.headers
            )
        ):
            return
        with contextlib.suppress(ProtocolError):
            protocol.connection.send_informational(self.stream_id, 100)
            protocol.mark_dirty()

    def _answer_failure(self) -> bool:
        """Send status 500 if nothing was sent; return whether it was."""
        if self._answered or self.closed:
            return False
        connection = self.protocol.connection
        head = self.request is not None and self.request.method == b"HEAD"
        try:
            connection.send_response_headers(
                self.stream_id, 500, FAILURE_FIELDS, end_stream=head
            )
            if not head:
                connection.send_body(self.stream_id, FAILURE)
        except ProtocolError:
            return False
        self._answered = self._sent_all = True
        self._status = 500
        self.protocol.mark_dirty()
        return True

    async def send_informational(self, status: int, headers: HeadersLike = ()) -> None:
        """Send a 1xx response, before the final one (RFC 9110, 15.2)."""
        protocol = self.protocol
        if protocol._paused:
            await protocol._writable()
        self._raise_failure()
        protocol.connection.send_informational(self.stream_id, status, headers)
        if status == 100:
            self._continued = True
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
        if not self.closed:
            self._reset(error_code, "reset() was called")

    def _reset(self, error_code: int, reason: str) -> None:
        if self._failure is not None:
            return
        stream_id = self.stream_id
        self._fail(
            lambda: StreamResetError(stream_id, error_code, remote=False, reason=reason)
        )
        self.protocol._reset(stream_id, error_code)

    async def __aenter__(self) -> H2Stream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._sent_all:
            self.reset(
                ErrorCode.CANCEL if kind is None else self.protocol._failure_code()
            )
        elif not self._eof:
            if self.protocol.connection.client_side:
                self.reset()
            else:
                # RFC 9113, 8.1: the response is whole, the request need not be.
                self.protocol._reset(
                    self.stream_id, ErrorCode.NO_ERROR, after_flush=True
                )


def _find_status(headers: HeadersLike) -> int | None:
    """Find the status in a response's fields, if it is the first of them."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    if isinstance(pairs, Iterator):
        return None  # which can be read only once
    for name, value, *_ in pairs:
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        is_status = name == (b":status" if isinstance(name, bytes) else ":status")
        return int(text) if is_status and text.isdecimal() else None
    return None
