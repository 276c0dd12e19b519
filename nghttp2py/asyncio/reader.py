"""The half of a stream that comes in: what the peer sends, and its credit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

__all__ = ["H2StreamReader", "Incoming"]

#: Bytes that ``readline`` and ``readuntil`` look through, as asyncio's do.
LIMIT = 65536

# A peer may cut its window's worth of body into frames of one byte.  Past so
# many waiting pieces, small ones are joined, so that memory keeps to the window.
_MAX_SMALL_PIECES = 64
_SMALL_PIECE = 1024
# More bytes than there ever are.
_ANY = 1 << 62


class Incoming(ABC):
    """The half of a stream that comes in: the base of the streams.

    Bytes that wait here were not acknowledged to the peer: it can send no more
    than the stream's window ahead of the reader.  A method that waits for more
    than is there gives the credit for what it has, as it was asked for.
    """

    __slots__ = (
        "_chunks",
        "_eof",
        "_offset",
        "_read_lock",
        "_size",
        "_taken",
        "_unacknowledged",
    )

    stream_id: int

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # bytes of the first chunk that were taken
        self._size = 0
        self._unacknowledged = 0  # of the bytes here; they are the last
        self._taken = 0  # bytes acknowledged since the stream began
        self._eof = False
        self._read_lock: asyncio.Lock | None = None

    # ---- What the stream adds ----

    @abstractmethod
    def _raise_failure(self) -> None:
        """Raise why the stream broke off, if it did."""

    @abstractmethod
    def _acknowledge(self, n: int) -> None:
        """Give the peer credit for ``n`` bytes, which were not given it before."""

    @abstractmethod
    def _body_finished(self) -> None:
        """The body was read to its end."""

    @abstractmethod
    async def _await_body(self) -> None:
        """Wait until something happens to the stream."""

    # ---- What comes in ----

    def _feed(self, data: bytes) -> None:
        """Take a piece of the body from the connection."""
        chunks = self._chunks
        if len(chunks) > _MAX_SMALL_PIECES and len(chunks[-1]) < _SMALL_PIECE:
            chunks[-1] += data
        else:
            chunks.append(data)
        self._size += len(data)
        self._unacknowledged += len(data)

    def _feed_eof(self) -> None:
        """Take the end of the body from the connection."""
        self._eof = True

    def _take(self, n: int) -> bytes:
        """Take ``n`` bytes of those that are here."""
        chunks = self._chunks
        first = chunks[0]
        start = self._offset
        if start == 0 and len(first) == n:
            data = chunks.popleft()
        elif len(first) - start >= n:
            data = first[start : start + n]
            if start + n == len(first):
                chunks.popleft()
                self._offset = 0
            else:
                self._offset = start + n
        else:
            pieces: list[bytes | memoryview] = []
            left = n
            while left:
                first = chunks[0]
                room = len(first) - self._offset
                if room > left:
                    pieces.append(memoryview(first)[self._offset : self._offset + left])
                    self._offset += left
                    break
                pieces.append(
                    memoryview(first)[self._offset :] if self._offset else first
                )
                chunks.popleft()
                self._offset = 0
                left -= room
            data = b"".join(pieces)
        self._size -= n
        if self._size < self._unacknowledged:
            self._acknowledge(self._unacknowledged - self._size)
        if self._eof and not self._size:
            self._body_finished()
        return data

    def _eof_or_raise(self) -> bytes:
        """Return ``b""`` at the end of the body, raise if it broke off."""
        if not self._eof:
            self._raise_failure()
        self._body_finished()
        return b""

    async def _more(self) -> bool:
        """Wait for something new; return whether there may be more after it.

        Raises if the body broke off.
        """
        if self._eof:
            return False
        self._raise_failure()
        if self._unacknowledged:
            self._acknowledge(self._unacknowledged)
        await self._await_body()
        return True

    def _locked(self) -> asyncio.Lock:
        if self._read_lock is None:
            self._read_lock = asyncio.Lock()
        return self._read_lock

    # ---- asyncio.StreamReader ----

    async def read(self, n: int = -1) -> bytes:
        """Return up to ``n`` bytes, as soon as there are any; ``b""`` at the end.

        With ``n`` negative: everything until the end.
        """
        if n == 0:
            return b""
        lock = self._read_lock
        if lock is None or not lock.locked():
            if n < 0:
                if self._eof:
                    return (
                        self._take(self._size) if self._size else self._eof_or_raise()
                    )
            elif self._size:
                return self._take(min(n, self._size))
        async with self._locked():
            if n < 0:
                while await self._more():
                    pass
            else:
                while not self._size and await self._more():
                    pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(self._size if n < 0 else min(n, self._size))

    async def readany(self) -> bytes:
        """Return all that is there, as soon as there is any; ``b""`` at the end."""
        return await self.read(_ANY)

    async def _read_frame(self) -> bytes:
        async with self._locked():
            while not self._size and await self._more():
                pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(len(self._chunks[0]) - self._offset)

    async def readexactly(self, n: int) -> bytes:
        """Return ``n`` bytes.

        Raises ``asyncio.IncompleteReadError``, with what there was, if the
        body ends before.
        """
        if n < 0:
            raise ValueError("n must not be negative")
        data = await self._fill(n)
        if len(data) < n:
            raise asyncio.IncompleteReadError(data, n)
        return data

    async def _fill(self, n: int) -> bytes:
        """Return ``n`` bytes, less only if the body ends before."""
        if n == 0:
            return b""
        lock = self._read_lock
        if self._size >= n and (lock is None or not lock.locked()):
            return self._take(n)
        async with self._locked():
            while self._size < n and await self._more():
                pass
            if not self._size:
                return self._eof_or_raise()
            return self._take(min(n, self._size))

    async def _read_until(self, separator: bytes) -> bytes:
        if not separator:
            raise ValueError("the separator must not be empty")
        async with self._locked():
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

    def _find(self, separator: bytes, start: int) -> int:
        chunks = self._chunks
        if len(chunks) > 1:
            data = b"".join(chunks)[self._offset :]
            chunks.clear()
            chunks.append(data)
            self._offset = 0
        if not chunks:
            return -1
        found = chunks[0].find(separator, self._offset + start)
        return found - self._offset if found >= 0 else -1

    def at_eof(self) -> bool:
        """Whether the body has ended and all of it was read."""
        return self._eof and not self._size


class H2StreamReader:
    """Reads the body that the peer sends, like ``asyncio.StreamReader``.

    All methods raise ``StreamResetError`` or ``ConnectionTerminatedError`` if
    the body will never be complete; what came before that can still be read by
    calls that it suffices for.  One call reads at a time, others queue.  A
    cancelled call takes nothing.
    """

    # A view: the stream has the bytes.  It does not know its readers, for a cycle
    # of references would keep both until the collector runs.
    __slots__ = ("_stream",)

    def __init__(self, stream: Incoming) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        stream = self._stream
        return (
            f"<H2StreamReader of stream {stream.stream_id}: {stream._size} bytes"
            f"{', eof' if stream._eof else ''}>"
        )

    async def read(self, n: int = -1) -> bytes:
        """Return up to ``n`` bytes, as soon as there are any; ``b""`` at the end.

        With ``n`` negative: everything until the end.
        """
        return await self._stream.read(n)

    async def readany(self) -> bytes:
        """Return all that is there, as soon as there is any; ``b""`` at the end."""
        return await self._stream.read(_ANY)

    async def readframe(self) -> bytes:
        """Return the rest of the piece that came first; ``b""`` at the end.

        Pieces are DATA frames, but small ones may have been joined.
        """
        return await self._stream._read_frame()

    async def readexactly(self, n: int) -> bytes:
        """Return ``n`` bytes.

        Raises ``asyncio.IncompleteReadError``, with what there was, if the
        body ends before.
        """
        return await self._stream.readexactly(n)

    async def readline(self) -> bytes:
        """Return a line with its newline; the rest, or ``b""``, at the end.

        Raises ``ValueError`` for a line of more than 64 KiB.
        """
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            raise ValueError(error.args[0]) from None

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return what is there up to ``separator``, which is included.

        Raises ``asyncio.IncompleteReadError`` if the body ends before, and
        ``asyncio.LimitOverrunError`` if it is not within 64 KiB: then nothing
        was taken.
        """
        return await self._stream._read_until(separator)

    def at_eof(self) -> bool:
        """Whether the body has ended and all of it was read."""
        return self._stream.at_eof()

    def __aiter__(self) -> H2StreamReader:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line
