"""Files of a directory as responses (RFC 9110): what ``nghttp2py serve`` serves.

``StaticFiles`` turns a request into a status, fields and a body, and does no
networking; ``FileRequestHandler`` sends them over HTTP/2, ``answer_stream``
over HTTP/3.
"""

from __future__ import annotations

import contextlib
import errno
import html
import mimetypes
import os
import stat
import time
from collections.abc import Sequence
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from nghttp2py import access
from nghttp2py.handler import BaseRequestHandler

if TYPE_CHECKING:
    from nghttp2py.asyncio.h3 import H3RequestStream  # not in every build

__all__ = [
    "FileRequestHandler",
    "FileResponse",
    "FileSlice",
    "StaticFiles",
    "answer_stream",
]

Fields = list[tuple[str, str]]

# What an exchange that broke off is logged with (RFC 9114, 8.1).
_H3_REQUEST_CANCELLED = 0x10C

# A part of a file that is not larger is read at once, and the file closed.
_SMALL = 65536

# Without the machine's own tables, so that a file has the same type everywhere.
_TYPES = mimetypes.MimeTypes()
for _type, _suffix in (
    ("application/wasm", ".wasm"),
    ("font/woff", ".woff"),
    ("font/woff2", ".woff2"),
    ("image/avif", ".avif"),
    ("image/svg+xml", ".svg"),
    ("image/webp", ".webp"),
    ("text/javascript", ".js"),
    ("text/javascript", ".mjs"),
    ("text/markdown", ".md"),
):
    _TYPES.add_type(_type, _suffix)
# A compressed file is sent as what it is, not as an encoding of what is in it.
_COMPRESSED = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


class FileSlice:
    """Part of an open file, as a body: ``read`` gives it from first to last byte.

    It owns ``fd``; ``close`` closes it.  It does not move the file's position.
    """

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self._fd = fd
        self._offset = offset
        self._left = length

    def read(self, n: int) -> bytes:
        """Return up to ``n`` bytes; ``b""`` at the end.

        Raises ``OSError``, also if the file has become shorter: what was said
        of the length is no longer true, and no client must take it for whole.
        """
        n = min(n, self._left)
        if n <= 0 or self._fd == -1:
            return b""
        data = os.pread(self._fd, n, self._offset)
        if not data:
            raise OSError(errno.ENODATA, "the file has become shorter")
        self._offset += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the file, once."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


class FileResponse(NamedTuple):
    """A response: ``body`` is ``None`` if there is none to send."""

    status: int
    headers: Fields
    body: FileSlice | bytes | None


class _NotServed(Exception):
    """There is nothing that may be served under this target."""


class StaticFiles:
    """The files below ``root``.

    No target reaches anything outside of it: the path is opened one directory
    after the other without following symbolic links, of which only those that
    stay below ``root`` were resolved before.  Names that begin with a dot are
    not served, but for ``.well-known`` (RFC 8615).  A directory is its
    ``index.html``, or with ``listing`` a list of its files.

    Raises ``NotADirectoryError`` or ``FileNotFoundError`` for a wrong ``root``.
    """

    def __init__(self, root: str | os.PathLike[str], *, listing: bool = False) -> None:
        self.root = os.path.realpath(root, strict=True)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(root)
            )
        self.listing = listing

    def respond(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
    ) -> FileResponse:
        """Answer a request.  The caller closes the body, if it is a file."""
        if method not in (b"GET", b"HEAD"):
            return _error(405, [("allow", "GET, HEAD")])
        path, question, query = target.partition(b"?")
        try:
            names, is_directory = split_path(path)
            fd, names = self._open(names)
        except (_NotServed, OSError):
            return _error(404)
        try:
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                if is_directory or not stat.S_ISREG(status.st_mode):
                    return _error(404)
                fd, file = -1, fd
                return self._respond_file(file, status, names[-1], method, headers)
            if not is_directory:
                location = path + b"/" + question + query
                return _error(301, [("location", location.decode("ascii", "replace"))])
            return self._respond_directory(fd, names, method, headers)
        except OSError:
            return _error(404)
        finally:
            if fd != -1:
                os.close(fd)

    # ---- Opening ----

    def _open(self, names: list[str]) -> tuple[int, list[str]]:
        """Open what ``names`` lead to; return it and its names without links."""
        path = os.path.realpath(os.path.join(self.root, *names))
        if path != self.root:
            inside = os.path.join(self.root, "")
            if not path.startswith(inside):
                raise _NotServed
            names = path[len(inside) :].split(os.sep)
            if any(_is_hidden(name) for name in names):
                raise _NotServed
        else:
            names = []
        # Whatever is changed meanwhile, this cannot leave the root: there are no
        # ".." among the names, and no link is followed.
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in names:
            try:
                below = os.open(
                    name,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=fd,
                )
            finally:
                os.close(fd)
            fd = below
        return fd, names

    # ---- Responses ----

    def _respond_file(
        self,
        fd: int,
        status: os.stat_result,
        name: str,
        method: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> FileResponse:
        """Answer with an open file, of which this takes ownership."""
        try:
            size = status.st_size
            etag = f'"{status.st_mtime_ns:x}-{size:x}"'
            modified = int(status.st_mtime)
            validators = [
                ("etag", etag),
                ("last-modified", formatdate(modified, usegmt=True)),
            ]
            request = Conditions(headers)
            verdict = request.evaluate(etag, modified)
            if verdict == 304:
                return FileResponse(304, validators, None)
            if verdict == 412:
                return _error(412)
            fields = [
                ("content-type", content_type(name)),
                ("accept-ranges", "bytes"),
                ("x-content-type-options", "nosniff"),
                *validators,
            ]
            start, length, code = 0, size, 200
            # RFC 9110, 14.2: Range is for GET alone.
            if method == b"GET" and request.range_applies(etag, modified):
                found = parse_range(request.first(b"range"), size)
                if found == "unsatisfiable":
                    return _error(416, [("content-range", f"bytes */{size}")])
                if isinstance(found, tuple):
                    start, length = found
                    code = 206
                    fields.append(
                        ("content-range", f"bytes {start}-{start + length - 1}/{size}")
                    )
            fields.append(("content-length", str(length)))
            if method == b"HEAD":
                return FileResponse(code, fields, None)
            if length <= _SMALL:
                data = os.pread(fd, length, start)
                if len(data) == length:
                    return FileResponse(code, fields, data)
            fd, file = -1, fd
            return FileResponse(code, fields, FileSlice(file, start, length))
        finally:
            if fd != -1:
                os.close(fd)

    def _respond_directory(
        self,
        fd: int,
        names: list[str],
        method: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> FileResponse:
        with contextlib.suppress(_NotServed, OSError):
            index, found = self._open([*names, "index.html"])
            status = os.fstat(index)
            if stat.S_ISREG(status.st_mode):
                return self._respond_file(index, status, found[-1], method, headers)
            os.close(index)
        if not self.listing:
            return _error(404)
        body = list_directory(fd, names).encode()
        return FileResponse(
            200,
            [
                ("content-type", "text/html; charset=utf-8"),
                ("content-length", str(len(body))),
                ("x-content-type-options", "nosniff"),
            ],
            None if method == b"HEAD" else body,
        )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name != ".well-known"


def _error(status: int, headers: Fields | None = None) -> FileResponse:
    return FileResponse(status, [*(headers or []), ("content-length", "0")], None)


def split_path(path: bytes) -> tuple[list[str], bool]:
    """Split a target's path into decoded names; tell whether it ends in ``/``.

    What does not name a file in one plain way is refused: dot segments, empty
    ones, and names that have a slash or a NUL in them once decoded.
    """
    if not path.startswith(b"/"):
        raise _NotServed
    segments = path[1:].split(b"/")
    is_directory = segments[-1] == b""
    if is_directory:
        segments.pop()
    names = []
    for segment in segments:
        name = unquote_to_bytes(segment)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise _NotServed
        names.append(os.fsdecode(name))
    return names, is_directory


def content_type(name: str) -> str:
    """Tell the media type by a file's name."""
    kind, encoding = _TYPES.guess_type(name, strict=False)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    if kind.startswith("text/"):
        return f"{kind}; charset=utf-8"
    return kind


def list_directory(fd: int, names: list[str]) -> str:
    """Make a page that links to the files of an open directory."""
    with os.scandir(fd) as entries:
        found = sorted(
            (not entry.is_dir(follow_symlinks=False), entry.name)
            for entry in entries
            if not _is_hidden(entry.name)
        )
    title = html.escape("/" + "".join(f"{name}/" for name in names))
    lines = ['<li><a href="../">../</a>'] if names else []
    for is_file, name in found:
        shown = os.fsencode(name).decode("utf-8", "replace") + ("" if is_file else "/")
        # "./" keeps a colon in a name from looking like a scheme.
        link = "./" + quote(os.fsencode(name)) + ("" if is_file else "/")
        lines.append(f'<li><a href="{html.escape(link)}">{html.escape(shown)}</a>')
    return (
        f"<!doctype html>\n<meta charset=utf-8>\n<title>{title}</title>\n"
        f"<h1>{title}</h1>\n<ul>\n" + "\n".join(lines) + "\n</ul>\n"
    )


# ---- Conditional requests and ranges (RFC 9110, 13 and 14) ----


class Conditions:
    """The conditions that a request's fields state."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._fields: dict[bytes, str] = {}
        for name, value in headers:
            text = value.decode("latin-1")
            known = self._fields.get(name)
            self._fields[name] = text if known is None else f"{known}, {text}"

    def first(self, name: bytes) -> str | None:
        """Return a field's value; several are one, as a list."""
        return self._fields.get(name)

    def evaluate(self, etag: str, modified: int) -> int:
        """Return 304 or 412 if a condition says so, else 0 (RFC 9110, 13.2.2)."""
        if_match = self.first(b"if-match")
        if if_match is not None:
            if not _lists(if_match, etag):
                return 412
        else:
            since = _parse_date(self.first(b"if-unmodified-since"))
            if since is not None and modified > since:
                return 412
        if_none_match = self.first(b"if-none-match")
        if if_none_match is not None:
            # The comparison is weak here, strong above (RFC 9110, 8.8.3.2).
            return 304 if _lists(if_none_match, etag, weak=True) else 0
        since = _parse_date(self.first(b"if-modified-since"))
        return 304 if since is not None and modified <= since else 0

    def range_applies(self, etag: str, modified: int) -> bool:
        """Whether Range is there and If-Range does not forbid it (13.1.5)."""
        if self.first(b"range") is None:
            return False
        if_range = self.first(b"if-range")
        if if_range is None:
            return True
        if if_range.startswith(('"', "W/")):
            return if_range.strip() == etag
        return _parse_date(if_range) == modified


def _lists(value: str, etag: str, *, weak: bool = False) -> bool:
    """Whether a list of entity tags has ``etag``, or is ``*``."""
    for tag in value.split(","):
        tag = tag.strip()
        if weak:
            tag = tag.removeprefix("W/")
        if tag in ("*", etag):
            return True
    return False


def _parse_date(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(parsedate_to_datetime(value).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None  # a date that is none is ignored (RFC 9110, 13.1.3)


def parse_range(value: str | None, size: int) -> tuple[int, int] | str | None:
    """Find what part of ``size`` bytes a Range field asks for.

    Returns offset and length; ``"unsatisfiable"``; or ``None`` if the field is
    to be ignored, as malformed ones and those with several ranges are
    (RFC 9110, 14.2).
    """
    unit, equals, spec = (value or "").partition("=")
    first, dash, last = (part.strip() for part in spec.partition("-"))
    if unit.strip().lower() != "bytes" or not equals or not dash:
        return None
    for number in (first, last):
        # More digits than any file has bytes are not worth parsing.
        if number and (not (number.isascii() and number.isdigit()) or len(number) > 20):
            return None
    if not first:
        if not last:
            return None
        length = min(int(last), size)
        return (size - length, length) if length else "unsatisfiable"
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        return "unsatisfiable"
    return start, end - start + 1


# ---- Who carries them ----


class FileRequestHandler(BaseRequestHandler):
    """Answers with files: give a subclass ``files``, a ``StaticFiles``.

    ``response_headers`` go with every response: ``alt-svc``, for example.
    """

    files: StaticFiles
    response_headers: Sequence[tuple[str, str]] = ()
    _file: FileSlice | None = None

    def on_headers(self) -> None:
        """Answer: what the request brings besides its fields does not matter."""
        response = self.files.respond(self.method, self.path, self.headers)
        if isinstance(response.body, FileSlice):
            self._file = response.body
        self.send_response(
            response.status,
            [_date(), *self.response_headers, *response.headers],
            response.body,
        )

    def on_close(self, error_code: int) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


async def answer_stream(files: StaticFiles, stream: H3RequestStream) -> None:
    """Answer a request of HTTP/3: a ``request_handler`` of ``H3Protocol``.

    Give it ``files`` by ``functools.partial``.  The body goes out as the client
    takes it; the request is logged when all has been handed over.
    """
    request = dict(stream.headers)
    method, target = request[b":method"], request.get(b":path", b"")
    start = time.monotonic()
    complete = False
    response = files.respond(method, target, stream.headers)
    fields = [(b":status", b"%d" % response.status)]
    for name, value in [_date(), *response.headers]:
        fields.append((name.encode(), value.encode()))
    body = response.body
    try:
        stream.send_headers(fields, end_stream=body is None)
        if isinstance(body, FileSlice):
            await stream.send_body(body.read)
        elif body is not None:
            await stream.send_data(body, end_stream=True)
        complete = True
    finally:
        if isinstance(body, FileSlice):
            body.close()
        access.log(
            access.Exchange(
                "HTTP/3",
                stream.protocol.client_address,
                method,
                target,
                response.status,
                stream.body_bytes_sent,
                time.monotonic() - start,
                0 if complete else _H3_REQUEST_CANCELLED,
                complete,
            )
        )


def _date() -> tuple[str, str]:
    return "date", formatdate(time.time(), usegmt=True)
