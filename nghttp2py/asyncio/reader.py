"""The incoming half of a stream: the peer's message, and its credit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from nghttp2py.asyncio.writer import Outgoing
from nghttp2py.errors import (
    ProtocolError,
    StreamResetError,
)
from nghttp2py.exchange import expects_continue
from nghttp2py.h2 import H2InformationalResponseReceived, H2ResponseReceived

__all__ = ["Incoming", "StreamReader", "Trailers"]

#: The limit of ``readline`` and ``readuntil``, in bytes, as in asyncio.
LIMIT = 65536

# Larger than any body.
_ANY = 1 << 62


class Incoming(Outgoing):
    """The incoming half of a stream.

    Bytes that wait here were not acknowledged: the peer can send at most the stream's
    window ahead of the reader.  A method that waits for more bytes than there are
    acknowledges those there are, because its caller has asked for them.
    """

    __slots__ = ()

    @property
    def _receives(self) -> bool:
        return not self._eof and self._failure is None and not self.closed

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure()

    def _body_finished(self) -> None:
        """Handle that the body was read to its end: a client then ends its own half.

        What it has queued is sent before that.
        """
        if self.link.client_side and self.final_status is not None and not self._tunnel:
            if self.link.halves_end_alone:
                self._end_upload()
            else:
                self._end_upload_soon()

    def _end_upload_soon(self) -> None:
        # If the stream has ended already, the next event reports it.
        if not self.closed:
            asyncio.get_running_loop().call_soon(self._end_upload)

    async def _await_body(self) -> None:
        if not self._continued:
            self._continued = True
            self._send_continue()
        await self._wait()

    def _send_continue(self) -> None:
        """Send 100 (Continue) to a client that waits for it (RFC 9110, 10.1.1)."""
        if self._sends and self.status is None and expects_continue(self.request):
            with contextlib.suppress(ProtocolError):
                self.link.send_continue(self)

    # ---- Received header sections ----

    def _make_head(self, status: int, fields: Any) -> Any:
        """Make the result of ``response`` and ``next_informational``."""
        if status < 200:
            return H2InformationalResponseReceived(self.stream_id, status, fields)
        return H2ResponseReceived(self.stream_id, status, fields)

    async def _respond(self, timeout: float | None) -> Any:
        """Do what ``response`` does, within the bounds of this call or of the
        connection."""
        timer = None
        try:
            while self.final_status is None:
                if self._failure is not None or self._eof or self.closed:
                    self._raise_missing()
                if timer is None and timeout is not None:
                    timer = self._start_timer(timeout)
                await self._wait()
        finally:
            if timer is not None:
                timer.cancel()
        return self.take_head()

    def _raise_missing(self) -> None:
        """Raise the reason for which there will be no final response."""
        self._raise_failure()
        code = self.link.codes.message_error
        raise StreamResetError(
            self.stream_id,
            code,
            remote=True,
            reason="it was closed without a response",
            code_name=self.link.code_name(code),
        )

    async def wait_continue(self, seconds: float) -> bool:
        """Wait for 100 (Continue), for at most ``timeout`` seconds.

        Return whether to send the body: false if the final response refuses it (RFC
        9110, 10.1.1).  Raises as ``response``.
        """
        over = False

        def end() -> None:
            nonlocal over
            over = True
            self._wake()

        timer = asyncio.get_running_loop().call_later(seconds, end)
        try:
            while self.final_status is None:
                self._raise_failure()
                if (
                    over
                    or self.closed
                    or any(head.status == 100 for head in self._informational or ())
                ):
                    return True
                await self._wait()
        finally:
            timer.cancel()
        return self.final_status < 300

    async def informational(self) -> AsyncIterator[Any]:
        """Iterate over the 1xx responses, until the final one comes."""
        while (head := await self.next_informational()) is not None:
            yield head

    async def next_informational(self) -> Any:
        """Wait for the next 1xx response; return ``None`` if the final one has come.

        It has ``status`` and ``headers``.  The last 16 are kept until they are read.
        """
        while not self._informational:
            if self.final_status is not None or self._eof:
                return None
            self._raise_failure()
            await self._wait()
        return self._informational.popleft()

    def take_informational(self) -> list[Any]:
        """Return the 1xx responses that have come, and forget them."""
        heads, self._informational = self._informational, None
        return list(heads or ())

    @property
    def trailers(self) -> Trailers:
        """The fields after the body; ``await stream.trailers()`` waits for them.

        The body must be read meanwhile: while its window is full, the peer cannot send
        the trailers.
        """
        return Trailers(self, self._trailers)

    async def _wait_trailers(self) -> tuple[tuple[bytes, bytes], ...]:
        while not self._eof:
            self._raise_failure()
            await self._wait()
        return self._trailers

    # ---- The body ----

    def _describe_body(self) -> str:
        return f"{self._size} bytes{', eof' if self._eof else ''}"

    def _eof_or_raise(self) -> bytes:
        """Return ``b""`` at the end of the body; raise if it broke off."""
        if not self._eof:
            self._raise_failure()
        self._body_finished()
        return b""

    async def _more(self) -> bool:
        """Wait for the next event; return whether more bytes may come.

        Raises if the body broke off.
        """
        if self._eof:
            return False
        self._raise_failure()
        if self._unacknowledged:
            self._acknowledge(self._unacknowledged)
        await self._await_body()
        return True

    def _read_turn(self) -> asyncio.Lock:
        if self._read_lock is None:
            self._read_lock = asyncio.Lock()
        return self._read_lock

    # ---- asyncio.StreamReader ----

    async def _read(self, n: int) -> bytes:
        """Do what ``read`` does, if that has to wait."""
        if n == 0:
            return b""
        if (
            n > 0
            and self._size
            and (self._read_lock is None or not self._read_lock.locked())
        ):
            return self._take(min(n, self._size))
        async with self._read_turn():
            if n < 0:
                while await self._more():
                    pass
            else:
                while not self._size and await self._more():
                    pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(self._size if n < 0 else min(n, self._size))

    def readany(self) -> Coroutine[Any, Any, bytes]:
        """Return all bytes that have arrived, at least one; ``b""`` at the end."""
        return self._read(_ANY)

    async def readframe(self) -> bytes:
        """Return the rest of the oldest piece; ``b""`` at the end."""
        async with self._read_turn():
            while not self._size and await self._more():
                pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(self._first_piece())

    async def readexactly(self, n: int) -> bytes:
        """Return ``n`` bytes.

        Raises ``asyncio.IncompleteReadError``, with what there was, if the
        body ends before.
        """
        if n < 0:
            raise ValueError("n must not be negative")
        data = await self.readatmost(n)
        if len(data) < n:
            raise asyncio.IncompleteReadError(data, n)
        return data

    async def readatmost(self, n: int) -> bytes:
        """Return ``n`` bytes, fewer only if the body ends before."""
        if n == 0:
            return b""
        lock = self._read_lock
        if self._size >= n and (lock is None or not lock.locked()):
            return self._take(n)
        async with self._read_turn():
            while self._size < n and await self._more():
                pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(min(n, self._size))

    async def readuntil(self, separator: bytes) -> bytes:
        """Return the bytes up to ``separator``: see ``StreamReader.readuntil``."""
        if not separator:
            raise ValueError("the separator must not be empty")
        async with self._read_turn():
            searched = 0
            while True:
                found = self._find(separator, searched)
                if 0 <= found <= LIMIT - len(separator):
                    return self._take(found + len(separator))
                if found >= 0 or self._size > LIMIT:
                    raise asyncio.LimitOverrunError(
                        f"the separator is not within {LIMIT} bytes", self._size
                    )
                searched = max(0, self._size - len(separator) + 1)
                if not await self._more():
                    data = (
                        self._take(self._size) if self._size else self._eof_or_raise()
                    )
                    raise asyncio.IncompleteReadError(data, None)

    def at_eof(self) -> bool:
        """Whether the body has ended and all of it was read."""
        return self._eof and not self._size


class Trailers(list[tuple[bytes, bytes]]):
    """The trailer fields of a stream that have come so far.

    A call returns a coroutine, which waits for the end of the body and returns them as
    a tuple.  It raises ``StreamResetError`` or ``ConnectionTerminatedError`` if the
    body breaks off.
    """

    def __init__(
        self, stream: Incoming, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        super().__init__(fields)
        self._stream = stream

    async def __call__(self) -> tuple[tuple[bytes, bytes], ...]:
        """Wait for the end of the body, and return the trailers."""
        return await self._stream._wait_trailers()


class StreamReader:
    """Reads the peer's body, like ``asyncio.StreamReader``.

    All methods raise ``StreamResetError`` or ``ConnectionTerminatedError`` if the body
    will never be complete; a call for which the bytes received before suffice still
    returns them.  One call reads at a time, others wait.  A cancelled call consumes
    nothing.
    """

    # A view: the stream has the bytes.  The stream does not refer to its readers,
    # because a reference cycle would keep both until the collector runs.
    __slots__ = ("_stream",)

    def __init__(self, stream: Incoming) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        stream = self._stream
        return f"<StreamReader of stream {stream.stream_id}: {stream._describe_body()}>"

    async def read(self, n: int = -1) -> bytes:
        """Return up to ``n`` bytes, as soon as there are any; ``b""`` at the end.

        With ``n`` negative: everything until the end.
        """
        return await self._stream.read(n)

    async def readany(self) -> bytes:
        """Return all bytes that have arrived, at least one; ``b""`` at the end."""
        return await self._stream.read(_ANY)

    async def readframe(self) -> bytes:
        """Return the rest of the oldest piece; ``b""`` at the end.

        Pieces are DATA frames, but small ones may have been joined.
        """
        return await self._stream.readframe()

    async def readexactly(self, n: int) -> bytes:
        """Return ``n`` bytes.

        Raises ``asyncio.IncompleteReadError``, with what there was, if the
        body ends before.
        """
        return await self._stream.readexactly(n)

    async def readline(self) -> bytes:
        """Return a line with its newline; the rest, or ``b""``, at the end.

        Raises ``ValueError`` if the line is longer than 64 KiB.
        """
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            raise ValueError(error.args[0]) from None

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return the bytes up to ``separator``, included.

        Raises ``asyncio.IncompleteReadError`` if the body ends before, and
        ``asyncio.LimitOverrunError`` if it is not within 64 KiB: then nothing is
        consumed.
        """
        return await self._stream.readuntil(separator)

    def at_eof(self) -> bool:
        """Whether the body has ended and all of it was read."""
        return self._stream.at_eof()

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line
