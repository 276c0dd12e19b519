"""A client's request body, which may have to be sent more than once."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Any

from nghttp2py.asyncio.body import AsyncBody, iterate
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.writer import PIECE, HeadersLike
from nghttp2py.h2.body import is_bytes_like

__all__ = ["NO_BODY", "RequestBody"]


def _can_seek(body: Any) -> bool:
    """Return whether ``body`` is a seekable file, and not an asynchronous one."""
    read = getattr(body, "read", None)
    if not callable(read) or inspect.iscoroutinefunction(read):
        return False
    seekable = getattr(body, "seekable", None)
    return callable(seekable) and seekable() is True


class RequestBody:
    """The body of a request, and how much of it was read from its source."""

    def __init__(self, body: Any) -> None:
        if isinstance(body, str):
            body = body.encode()
        self._body = body
        self._touched = False
        self._position: int | None = None
        self._is_bytes = is_bytes_like(body)
        #: Its length, if that is known.
        self.length: int | None = None
        #: The exception that its source has raised.
        self.error: BaseException | None = None
        #: Bytes that its source has returned, if ``count`` was called.
        self.taken = 0
        #: Whether its source has returned all of it.
        self.is_exhausted = self._is_bytes
        #: Whether an asynchronous source was asked for more, and has not answered.
        self.is_awaited = False
        if self._is_bytes:
            self.length = memoryview(body).nbytes
        elif _can_seek(body):
            # Such a file can be read again from its current position.
            with contextlib.suppress(AttributeError, OSError):
                self._position = body.tell()
                self.length = body.seek(0, os.SEEK_END) - self._position
                body.seek(self._position)
        elif not (
            body is None
            or isinstance(body, (AsyncIterable, Iterable))
            or callable(getattr(body, "read", None))
        ):
            raise TypeError(
                "a body must be None, str, bytes-like, a binary file, an iterable or "
                f"asynchronous iterable of bytes, not {type(body).__name__}"
            )

    @property
    def is_empty(self) -> bool:
        return self._body is None

    @property
    def can_repeat(self) -> bool:
        """Whether it can be sent (again) from its beginning."""
        return not self._touched or self._position is not None

    def count(self) -> None:
        """Have ``taken`` count the bytes of a body of bytes, too."""
        if self._is_bytes and self.length is not None and self.length > PIECE:
            self._body = _Pieces(self._body)
            self._is_bytes = self.is_exhausted = False

    def send(self, stream: Stream, trailers: HeadersLike | None) -> None:
        """Queue it on a stream, or its source, which is read as the stream can send."""
        body = self._body
        if body is None:
            body = b""
        elif not self._is_bytes:
            self.taken = 0
            self.is_exhausted = False
            if self._position is not None:
                body.seek(self._position)
            iterator = iterate(body)
            if iterator is not None:
                self.is_awaited = True
                # No reference to the stream, because its response may be dropped.
                body = AsyncBody(self._watch_async(iterator), stream.make_resume())
                stream.run_in(body.task)
            elif callable(getattr(body, "read", None)):
                body = self._watch(iter(partial(body.read, PIECE), b""))
            else:
                body = self._watch(body)
        stream.give_body(body, trailers)

    def _watch(self, body: Iterable[bytes]) -> Iterator[bytes]:
        self._touched = not isinstance(body, _Pieces)
        try:
            for piece in body:
                self.taken += len(_check_piece(piece))
                yield piece
            self.is_exhausted = True
        except Exception as error:
            self.error = error
            raise

    async def _watch_async(self, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        self._touched = True
        try:
            async for piece in body:
                self.is_awaited = False
                self.taken += len(_check_piece(piece))
                yield piece
                self.is_awaited = True
            self.is_exhausted = True
        except Exception as error:
            self.error = error
            raise
        finally:
            self.is_awaited = False
            aclose = getattr(body, "aclose", None)
            if aclose is not None:
                await aclose()


class _Pieces:
    """Bytes as pieces, which can be iterated over again."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data).cast("B")

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, len(self._data), PIECE):
            yield self._data[start : start + PIECE]


def _check_piece(piece: Any) -> Any:
    if not is_bytes_like(piece):
        raise TypeError(f"a body must be of bytes, not {type(piece).__name__}")
    return piece


#: The body of a request that has none.
NO_BODY = RequestBody(None)
