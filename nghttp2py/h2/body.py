"""Bodies that Python produces while they are sent.

A source is asked for bytes when its stream can send, never from inside the C
library.  What it raises, or answers against the rules below, ends its stream.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeGuard

from nghttp2py.arguments import describe

__all__ = [
    "DATA_DEFERRED",
    "DATA_EOF",
    "DATA_OK",
    "BodySource",
    "is_bytes_like",
    "make_source",
]

#: A callable's flag: there is more to come.
DATA_OK = 0
#: This was the last piece.
DATA_EOF = 1
#: Nothing now: ask again after ``resume``.
DATA_DEFERRED = 2

# An iterator may yield empty pieces, but not for ever.
_MAX_EMPTY_PIECES = 1000


def is_bytes_like(value: Any) -> TypeGuard[bytes | bytearray | memoryview]:
    """Whether it is any kind of buffer, but no file, as ``mmap.mmap`` is too."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return True
    if hasattr(value, "read"):
        return False
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


class BodySource(Protocol):
    """Something that a body is pulled from."""

    def read(self, n: int) -> tuple[bytes, int]:
        """Return a piece, of about ``n`` bytes, and a ``DATA_`` flag."""


def _check_bytes(data: Any, where: str) -> bytes:
    if isinstance(data, bytes):
        return data
    if is_bytes_like(data):
        return bytes(data)
    raise TypeError(f"{where} must give bytes, not {type(data).__name__}")


class _CallableSource:
    """``f(n) -> (bytes | None, flag)``, the old bindings' generator."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self._function = function

    def read(self, n: int) -> tuple[bytes, int]:
        answer = self._function(n)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(
                f"a body callable must return (data, flag), not {describe(answer)}"
            )
        data, flag = answer
        data = b"" if data is None else _check_bytes(data, "a body callable")
        if len(data) > n:
            raise ValueError(
                f"a body callable was asked for {n} bytes and returned {len(data)}"
            )
        if flag not in (DATA_OK, DATA_EOF, DATA_DEFERRED):
            raise ValueError(f"{describe(flag)} is not a DATA_ flag")
        if flag == DATA_DEFERRED and data:
            raise ValueError(
                "a body callable that says DATA_DEFERRED must give no data"
            )
        if flag == DATA_OK and not data:
            raise ValueError(
                "a body callable that has nothing now must say DATA_DEFERRED"
            )
        return data, flag


class _FileSource:
    """A binary file.  It reads one piece ahead, so that the end is known."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self._read = read
        self._ahead: bytes | None = None

    def _next(self, n: int) -> bytes:
        data = self._read(n)
        if data is None:
            raise BlockingIOError("a body file must not be in non-blocking mode")
        data = _check_bytes(data, "a body file")
        if len(data) > n:
            raise ValueError(
                f"a body file was asked for {n} bytes and returned {len(data)}"
            )
        return data

    def read(self, n: int) -> tuple[bytes, int]:
        data = self._next(n) if self._ahead is None else self._ahead
        if not data:
            return b"", DATA_EOF
        self._ahead = self._next(n)
        return data, DATA_OK if self._ahead else DATA_EOF


class _IteratorSource:
    """Pieces of any size.  None is asked for before the last one is sent."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def read(self, n: int) -> tuple[bytes, int]:
        for _ in range(_MAX_EMPTY_PIECES):
            try:
                data = next(self._iterator)
            except StopIteration:
                return b"", DATA_EOF
            data = _check_bytes(data, "a body iterator")
            if data:
                return data, DATA_OK
        raise ValueError(f"a body iterator gave {_MAX_EMPTY_PIECES} empty pieces")


def make_source(body: Any) -> BodySource:
    """Choose the source for a body that is not bytes-like.

    A callable is called, whatever else it has: old programs have bodies that
    are callable objects with a ``read`` of their own.  Files are not.  Raises
    ``TypeError`` if it is neither a callable nor a binary file nor an iterable.
    """
    if callable(body) and not isinstance(body, io.IOBase):
        return _CallableSource(body)
    read = getattr(body, "read", None)
    if callable(read):
        return _FileSource(read)
    if isinstance(body, Iterable) and not isinstance(body, str):
        return _IteratorSource(iter(body))
    raise TypeError(
        "a body must be bytes-like, a binary file, an iterable of bytes or a "
        f"callable, not {type(body).__name__}"
    )
