"""Where bodies go: standard output, a terminal, or a file with its progress."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import FieldList, find_field
from nghttp2py.errors import printable

__all__ = [
    "REMOTE_NAME",
    "Output",
    "Target",
    "append",
    "create",
    "escape_controls",
    "format_head",
    "redirect_stdout_to_null",
]

#: What stands for "the last part of the URL" in the list of outputs.
REMOTE_NAME = "\0remote"

# What a terminal would act on; line ends and tabs are harmless.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\udc80-\udcff]")
_FILENAME = re.compile(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.I)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def escape_controls(text: str) -> str:
    """Return a text as a terminal may get it."""
    return _CONTROLS.sub(_escape, text)


def _escape_fields(fields: FieldList) -> FieldList:
    """Return fields with their control characters escaped."""
    return [
        (printable(name).encode(), printable(value).encode()) for name, value in fields
    ]


class _Terminal:
    """Standard output that is a terminal: it gets only text, and no controls."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> None:
        """Write a piece of a body."""
        if b"\0" in data:
            raise TransferError(
                Exit.WRITE,
                "the body is binary and may harm the terminal: -o FILE saves it, "
                "-o - writes it nevertheless",
            )
        text = escape_controls(self._decoder.decode(data))
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Write what is buffered."""
        self._file.flush()


class Target:
    """Where the output of one URL is to go."""

    def __init__(
        self,
        name: str | None,
        url: str,
        *,
        directory: Path | None = None,
        make_directories: bool = False,
        named_by_server: bool = False,
        keep_existing: bool = False,
    ) -> None:
        self._by_server = named_by_server and name == REMOTE_NAME
        self._keeps = keep_existing
        self._directory = directory
        self._makes = make_directories
        #: The path of the file, ``None`` for standard output.
        self.path: Path | None = None
        #: Whether even a terminal gets the bytes as they are.
        self.is_forced = name == "-"
        if name == REMOTE_NAME:
            name = _name_of_url(url)
        if name is not None and not self.is_forced:
            self.path = (directory or Path()) / name

    def received(self, fields: FieldList) -> None:
        """Take the name of a response's content-disposition (RFC 6266), if wanted."""
        if not self._by_server:
            return
        value = (find_field(fields, b"content-disposition") or b"").decode("latin-1")
        found = _FILENAME.search(value)
        if found is None:
            return
        name = re.sub(r"\\(.)", r"\1", found[1]) if found[1] else found[2]
        # A server names a file of the directory, and no other.
        name = re.split(r"[/\\]", name)[-1]
        if name.strip(".") and name.isprintable() and not name.startswith("."):
            self.path = (self._directory or Path()) / name

    def open(self, append: bool) -> BinaryIO:
        """Open the file.  Raises ``TransferError``."""
        assert self.path is not None
        path = self.path
        try:
            if self._makes:
                path.parent.mkdir(parents=True, exist_ok=True)
            if self._by_server and not append:
                return path.open("xb")
            if self._keeps and not append:
                return self._open_new(path)
            return path.open("ab" if append else "wb")
        except OSError as error:
            raise TransferError(
                Exit.WRITE, f"{str(path)!r} cannot be written: {error.strerror}"
            ) from None

    def _open_new(self, path: Path) -> BinaryIO:
        for number in range(100):
            with contextlib.suppress(FileExistsError):
                self.path = path.with_name(f"{path.name}.{number}") if number else path
                return self.path.open("xb")
        raise TransferError(Exit.WRITE, f"{str(path)!r} exists, and 99 more")


def _name_of_url(url: str) -> str:
    name = urlsplit(url).path.rpartition("/")[2]
    if not name or name in (".", ".."):
        raise TransferError(Exit.WRITE, f"-O: {url!r} ends with no file name")
    return name


class Output:
    """The output of one URL, opened when the first bytes are written."""

    def __init__(self, target: Target, console: Console, *, progress: bool) -> None:
        self.target = target
        self._console = console
        self._shows_progress = progress
        self._file: Any = None
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], object] = lambda n: None
        #: Whether the file's contents are kept, and more is written after them.
        self.append = False
        #: Whether its reader has gone.
        self.is_broken = False
        #: The length of the body, if it is known.
        self.length: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a terminal shows it."""
        return (
            self.target.path is None
            and not self.target.is_forced
            and sys.stdout.isatty()
        )

    def open(self) -> None:
        """Open the file, unless it is open."""
        if self._file is not None:
            return
        out = sys.stdout.buffer
        path = self.target.path
        if path is None:
            self._file = _Terminal(out) if self.is_terminal else out
            return
        self._file = self._stack.enter_context(self.target.open(self.append))
        if not self._shows_progress:
            return
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._stack.enter_context(progress)
        task = progress.add_task(printable(path.name), total=self.length)
        self._advance = lambda n: progress.advance(task, n)

    def write_head(self, line: str, fields: FieldList) -> None:
        """Write the head of a response, or trailers if ``line`` is empty."""
        self.write(format_head(line, fields, escape=self.is_terminal))

    def write(self, data: bytes) -> None:
        """Write a piece of a body.

        Raises ``TransferError``, and ``BrokenPipeError`` if the reader has gone.
        """
        self.open()
        try:
            self._file.write(data)
            self._file.flush()
        except BrokenPipeError:
            self.is_broken = True
            raise
        except OSError as error:
            raise TransferError(
                Exit.WRITE, f"the output cannot be written: {error.strerror}"
            ) from None
        self._advance(len(data))

    def restart(self) -> None:
        """Drop what was written to a file, because the request is sent again."""
        if self.target.path is not None and self._file is not None and not self.append:
            self._file.seek(0)
            self._file.truncate()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        self._file = None


def format_head(line: str, fields: FieldList, *, escape: bool) -> bytes:
    """Return a head as curl writes it."""
    if escape:
        line, fields = printable(line), _escape_fields(fields)
    lines = [line.encode("latin-1", "replace")] if line else []
    lines += [name + b": " + value for name, value in fields]
    return b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def redirect_stdout_to_null() -> None:
    """Have nothing more written to a standard output whose reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def create(path: Path, data: bytes = b"", *, mode: str = "wb") -> None:
    """Write a file of what is received.  Raises ``TransferError``.

    Only its owner may read a new one, because there may be cookies in it.
    """
    try:
        with open(path, mode, opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(data)
    except OSError as error:
        raise TransferError(
            Exit.WRITE, f"{str(path)!r} cannot be written: {error.strerror}"
        ) from None


def append(path: Path, data: bytes) -> None:
    """Append to such a file; ``-`` is standard output."""
    if str(path) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        create(path, data, mode="ab")
