"""Bodies that Python produces while they are sent.

A source is asked for bytes when its stream can send, never from inside the C library.
If it raises, or breaks the rules below, its stream is reset.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
#: A callable's flag: this was the last piece.
DATA_EOF = 1
#: A callable's flag: no data now; ask again after ``resume``.
DATA_DEFERRED = 2

# How many empty pieces in a row an iterator may yield.
_MAX_EMPTY_PIECES = 1000


def is_bytes_like(value: Any) -> TypeGuard[bytes | bytearray | memoryview]:
    """Return whether ``value`` is a buffer but not a file; ``mmap.mmap`` is both."""
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
    """An object that produces a body on demand."""

    def read(self, n: int) -> tuple[bytes, int]:
        """Return a piece of about ``n`` bytes, and a ``DATA_`` flag."""


def _check_bytes(data: Any, where: str) -> bytes:
    if isinstance(data, bytes):
        return data
    if is_bytes_like(data):
        return bytes(data)
    raise TypeError(f"{where} must give bytes, not {type(data).__name__}")


class _CallableSource:
    """A callable ``f(n) -> (bytes | None, flag)``, as in nghttp2's bindings."""

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
    """A binary file, read one piece ahead to know which piece is the last."""

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


class _KernelSource(_FileSource):
    """A file whose octets the kernel can copy to a socket.

    ``send`` of a socket's descriptor and a number sends at most so many octets, moves
    the file's position, and returns how many; 0 at the end.
    """

    def __init__(
        self, read: Callable[[int], Any], send: Callable[[int, int], int]
    ) -> None:
        super().__init__(read)
        self._send = send

    def send_to(self, fd: int, n: int) -> int:
        """Send up to ``n`` octets to the socket ``fd``; return how many, 0 at the end.

        Raises ``BlockingIOError`` when the socket takes none now.
        """
        if not self._ahead:
            sent = self._send(fd, n)
            if not isinstance(sent, int) or not 0 <= sent <= n:
                raise ValueError(
                    f"send_to was asked for {n} octets and returned {describe(sent)}"
                )
            return sent
        # These were read when the socket took no more.
        sent = os.write(fd, self._ahead[:n])
        self._ahead = self._ahead[sent:] or None
        return sent


def _sender_of(file: Any) -> Callable[[int, int], int] | None:
    """Return what ``_KernelSource`` needs to send a file, or None."""
    if not hasattr(os, "sendfile"):
        return None
    # A reader of anything else may have the descriptor of what it decodes, as that of
    # gzip has.
    raw = file.raw if type(file) is io.BufferedReader else file
    if type(raw) is not io.FileIO:
        # As FileSlice has it.  One that a wrapper takes from what it wraps would send
        # what the wrapper has not read.
        send = getattr(type(file), "send_to", None)
        return partial(send, file) if callable(send) else None
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
    except (OSError, ValueError):
        return None

    def send_file(fd: int, n: int) -> int:
        start = file.tell()
        sent = os.sendfile(fd, file.fileno(), start, n)
        file.seek(start + sent)
        return sent

    return send_file


class _IteratorSource:
    """An iterator of pieces of any size, asked for one when the last is sent."""

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

    A callable is called even if it has a ``read`` method: old programs have such
    bodies, and files are not callable.  Raises ``TypeError`` if ``body`` is neither a
    callable nor a binary file nor an iterable.
    """
    if callable(body) and not isinstance(body, io.IOBase):
        return _CallableSource(body)
    read = getattr(body, "read", None)
    if callable(read):
        send = _sender_of(body)
        return _FileSource(read) if send is None else _KernelSource(read, send)
    if isinstance(body, Iterable) and not isinstance(body, str):
        return _IteratorSource(iter(body))
    raise TypeError(
        "a body must be bytes-like, a binary file, an iterable of bytes or a "
        f"callable, not {type(body).__name__}"
    )
