"""Bodies from asynchronous iterators."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Protocol

from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK, is_bytes_like
from nghttp2py.log_budget import MemoryLog

__all__ = ["AsyncBody", "is_asynchronous", "iterate"]

logger = logging.getLogger(__name__)
memory_log = MemoryLog(logger)

# How many bytes are read from a reader at once.
_READ_SIZE = 65536


class AsyncReader(Protocol):
    """A file whose ``read`` is a coroutine function."""

    async def read(self, n: int, /) -> bytes:
        """Return up to ``n`` bytes; ``b""`` at the end."""


class AsyncBody:
    """A body callable that gets its pieces from an asynchronous iterable or reader.

    It is a body for ``H2Connection.send_body``.  A reader is an object whose ``read``
    is a coroutine function; up to 64 KiB are read at a time.  A task runs the iterator,
    only one piece ahead of what was sent, and calls ``resume`` for each piece.  The
    callable raises what the iterator raises, at its end too. ``close`` ends the task
    and closes the iterator; what that raises is logged. The task runs in ``loop``, or
    in the running one.
    """

    def __init__(
        self,
        pieces: AsyncIterable[bytes] | AsyncReader,
        resume: Callable[[], object],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._resume = resume
        self._piece: bytes | memoryview = b""
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._taken = asyncio.Event()
        loop = asyncio.get_running_loop() if loop is None else loop
        #: The task that runs the iterator.
        self.task = loop.create_task(self._run(pieces))

    def __call__(self, n: int) -> tuple[bytes | memoryview, int]:
        """Return up to ``n`` bytes of the current piece, and a ``DATA_`` flag."""
        data = self._piece
        if not data:
            if self._error is not None:
                # Its traceback refers to this object.
                error, self._error = self._error, None
                raise error
            return b"", DATA_EOF if self._ended else DATA_DEFERRED
        if len(data) > n:
            data = memoryview(data)
            self._piece = data[n:]
            return data[:n], DATA_OK
        self._piece = b""
        self._taken.set()
        return data, DATA_OK

    def close(self) -> None:
        """Stop: a running iterator gets ``asyncio.CancelledError``."""
        self._closed = True
        self.task.cancel()

    async def _run(self, pieces: AsyncIterable[bytes] | AsyncReader) -> None:
        try:
            await self._take_all(pieces)
            self._ended = True
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not self._closed:
                self._error = error
            elif not isinstance(error, asyncio.CancelledError):
                memory_log.failed(
                    error, "an asynchronous body failed when it was closed"
                )
        # Without this call, the rest or the error would not be fetched.
        self._resume()

    async def _take_all(self, pieces: AsyncIterable[bytes] | AsyncReader) -> None:
        # A stream of this package is both: iterating returns credit piece by piece.
        if hasattr(pieces, "__aiter__"):
            iterator = pieces.__aiter__()
        else:
            iterator = _read_pieces(pieces)
        try:
            async for piece in iterator:
                if not is_bytes_like(piece):
                    raise TypeError(
                        "an asynchronous body iterator must give bytes, not "
                        f"{type(piece).__name__}"
                    )
                if not piece:
                    # Other tasks get a turn even if the iterator never waits.
                    await asyncio.sleep(0)
                    continue
                self._taken.clear()
                self._piece = bytes(piece)
                self._resume()
                await self._taken.wait()
        finally:
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()


async def _read_pieces(reader: AsyncReader) -> AsyncIterator[bytes]:
    while True:
        piece: Any = reader.read(_READ_SIZE)
        # ``read`` may be a plain function that returns a future, or bytes.
        if inspect.isawaitable(piece):
            piece = await piece
        if not piece:
            return
        yield piece


def iterate(body: Any) -> AsyncIterator[Any] | None:
    """Return an iterator over the pieces of an asynchronous body.

    Return ``None`` for any other body.  Iterating is preferred to ``read``: streams of
    this package and of asyncio have both.
    """
    if isinstance(body, AsyncIterable):
        return body.__aiter__()
    if callable(getattr(body, "read", None)) and not isinstance(body, io.IOBase):
        return _read_pieces(body)
    return None


def is_asynchronous(body: Any) -> bool:
    """Return whether a body is asynchronous, where callables are bodies, too."""
    if callable(body) and not isinstance(body, io.IOBase):
        return False
    return isinstance(body, AsyncIterable) or inspect.iscoroutinefunction(
        getattr(body, "read", None)
    )
