"""Files of a directory as responses (RFC 9110), as ``nghttp2py serve`` sends them.

``StaticFiles`` turns a request into a status, fields and a body, and does no
networking; ``FileRequestHandler`` sends them, or the coroutine function
``answer_stream``.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import gzip
import logging
import math
import mimetypes
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from nghttp2py.arguments import check_bool, check_int
from nghttp2py.handler import BaseRequestHandler
from nghttp2py.listings import POLICY, View, is_hidden, list_directory
from nghttp2py.log_budget import LogBudget

if TYPE_CHECKING:
    from nghttp2py.asyncio.stream import Stream

__all__ = [
    "FileRequestHandler",
    "FileResponse",
    "FileSlice",
    "StaticFiles",
    "answer_stream",
]

Fields = list[tuple[str, str]]

# Content codings of files that lie beside the plain one, best first (RFC 9110, 8.4.1).
_CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

# What a target may hold as it is.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))

logger = logging.getLogger(__name__)

# A part of a file up to this size is read at once, and the file closed.
_SMALL = 16384

#: How many files a ``StaticFiles`` keeps open for the bodies that it sends.
MAX_OPEN_FILES = 128
# How many pages of lists are kept for later requests, and for how many seconds: the
# size of a file can change without a change of its directory.
_MAX_PAGES = 16
_PAGE_AGE = 2.0
# The sizes of files that are compressed.
_COMPRESSIBLE_SIZE = range(1024, (8 << 20) + 1)
#: How many bytes of compressed files are kept for later requests.
MAX_COMPRESSED = 32 << 20
# A directory that was changed within this time may change again within the same tick of
# its file system's clock: its list is not kept.
_CLOCK_TICK = 2.0

# These errors mean that there is no such file for the client (404).  Any other is a
# failure of the system, which may pass: 503.
_NOT_FOUND = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL, errno.ENODEV),
    )
)
_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))
# Seconds between two log lines about failures of the system.
_QUIET_TIME = 60.0

# The machine's own tables are not read, so that a file has the same type everywhere.
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
# A compressed file is sent as such, without content-encoding.
_COMPRESSED = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


class _SharedFile:
    """A file that any number of bodies read; its descriptor may be closed between
    reads.

    The length and validators in the header are those of this file: if another has taken
    its place when it is opened again, reading fails.
    """

    def __init__(self, files: OpenFiles, key: _Identity, names: list[str]) -> None:
        self.files = files
        self.key = key
        self.names = names
        self.fd = -1
        self.users = 0

    def read(self, n: int, offset: int) -> bytes:
        """Read at an offset, without a file position.  Raises ``OSError``."""
        self.files.use(self)
        return os.pread(self.fd, n, offset)

    def send_to(self, fd: int, n: int, offset: int) -> int:
        """Have the kernel send octets at an offset to a socket.  Raises ``OSError``."""
        self.files.use(self)
        return os.sendfile(fd, self.fd, offset, n)

    def release(self) -> None:
        """Remove one user; close the file after the last."""
        self.users -= 1
        if not self.users:
            self.files.forget(self)


# A file's device, inode, time of modification and size.
_Identity = tuple[int, int, int, int]


def _identify(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class OpenFiles:
    """The files that bodies are read from, of which at most ``limit`` are open.

    A file is open once, however many bodies read it.  With more than ``limit`` files,
    the one that was not read for the longest time is closed; ``open_names`` opens it
    again when it is next read.
    """

    def __init__(
        self, open_names: Callable[[list[str]], tuple[int, list[str]]], limit: int
    ) -> None:
        self._open_names = open_names
        self._limit = limit
        self._files: dict[_Identity, _SharedFile] = {}
        self._open: OrderedDict[_Identity, _SharedFile] = OrderedDict()

    def share(self, fd: int, key: _Identity, names: list[str]) -> _SharedFile:
        """Take the open descriptor ``fd``; return its file, with one more user."""
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = _SharedFile(self, key, names)
        file.users += 1
        if file.fd == -1:
            self._take(file, fd)
        else:
            os.close(fd)
        return file

    def use(self, file: _SharedFile) -> None:
        """Open a file unless it is open.  Raises ``OSError``."""
        if file.fd != -1:
            self._open.move_to_end(file.key)
            return
        fd, _ = self.open(file.names)
        if _identify(os.fstat(fd)) != file.key:
            os.close(fd)
            raise OSError(errno.ESTALE, "the file was replaced by another")
        self._take(file, fd)

    def open(self, names: list[str]) -> tuple[int, list[str]]:
        """Open a file or directory by its names; close another if too many are."""
        while True:
            try:
                return self._open_names(names)
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS or not self._close_oldest():
                    raise

    def forget(self, file: _SharedFile) -> None:
        """Close a file that has no reader left."""
        del self._files[file.key]
        if self._open.pop(file.key, None) is not None:
            os.close(file.fd)
            file.fd = -1

    def _take(self, file: _SharedFile, fd: int) -> None:
        while len(self._open) >= self._limit:
            self._close_oldest()
        file.fd = fd
        self._open[file.key] = file

    def _close_oldest(self) -> bool:
        if not self._open:
            return False
        _, file = self._open.popitem(last=False)
        os.close(file.fd)
        file.fd = -1
        return True


class FileSlice:
    """Part of a file, as a body: ``read`` returns it from first to last byte.

    ``StaticFiles`` makes it.  Other bodies may share the file, so ``close`` must be
    called.
    """

    def __init__(self, file: _SharedFile, offset: int, length: int) -> None:
        self._file: _SharedFile | None = file
        self._offset = offset
        self._left = length

    def read(self, n: int) -> bytes:
        """Return up to ``n`` bytes; ``b""`` at the end.

        Raises ``OSError``, also if the file has become shorter, or was replaced while
        it was closed because too many others were open.  Then the length in the header
        is wrong, and the client must not think that the body is complete.
        """
        n = min(n, self._left)
        if n <= 0 or self._file is None:
            return b""
        data = self._file.read(n, self._offset)
        self._advance(len(data))
        return data

    def send_to(self, fd: int, n: int) -> int:
        """Have the kernel send up to ``n`` bytes to the socket ``fd``; return how many.

        0 is the end.  Raises ``OSError`` as ``read`` does, and ``BlockingIOError`` when
        the socket takes none now.
        """
        n = min(n, self._left)
        if n <= 0 or self._file is None:
            return 0
        sent = self._file.send_to(fd, n, self._offset)
        self._advance(sent)
        return sent

    def _advance(self, n: int) -> None:
        if not n:
            raise OSError(errno.ENODATA, "the file has become shorter")
        self._offset += n
        self._left -= n

    def close(self) -> None:
        """Stop reading.  A second call is a no-op."""
        file, self._file = self._file, None
        if file is not None:
            file.release()


class FileResponse(NamedTuple):
    """A response: ``body`` is ``None`` if there is none to send."""

    status: int
    headers: Fields
    body: FileSlice | bytes | None


class _NotServed(ValueError):
    """The target names nothing that may be served."""


class _Listing(NamedTuple):
    """A page of a directory's list that is still to be made."""

    names: tuple[str, ...]
    # Device, inode and time of modification of the directory.
    identity: tuple[int, int, int]
    view: View
    head: bool

    @property
    def key(self) -> tuple[object, ...]:
        return self.identity, self.names, self.view


class _Compressing(NamedTuple):
    """A file whose compressed form is still to be made."""

    names: tuple[str, ...]
    identity: _Identity
    fields: Fields
    head: bool

    @property
    def key(self) -> tuple[object, ...]:
        return self.identity, self.names


_Later = _Listing | _Compressing


class _Made(NamedTuple):
    """A body that was made for a ``_Later``, and the time until which it is kept."""

    body: bytes
    until: float


class StaticFiles:
    """The files below ``root``.

    No target reaches anything outside of it: symbolic links that stay below ``root``
    are resolved first, then the path is opened one directory after the other without
    following links.  Names that begin with a dot are not served, but for
    ``.well-known`` (RFC 8615).  A directory is its ``index.html``, or with ``listing``
    a list of its files, in pages of 500 (``?page=2``), of the first 100,000 names that
    the system gives.  ``?sort=size``, ``date`` or ``name``, ``&order=desc`` and ``&q=``
    for a part of the names change what it shows.  ``upload`` adds a place to the list
    where files can be dropped; the caller answers their PUT requests.

    With ``compress``, a client that accepts it gets a file's ``.br``, ``.zst`` or
    ``.gz`` form, if there is one and it is not older, and text of 1 KiB to 8 MiB
    compressed by gzip; requests for a range get the plain file.

    Bodies share files, of which at most ``max_open_files`` are open.  If the system has
    no descriptors left, the answer is 503, and a line is logged.

    Raises ``NotADirectoryError`` or ``FileNotFoundError`` for a wrong ``root``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        listing: bool = False,
        compress: bool = False,
        upload: bool = False,
        max_open_files: int = MAX_OPEN_FILES,
    ) -> None:
        check_bool("listing", listing)
        check_bool("compress", compress)
        check_bool("upload", upload)
        check_int("max_open_files", max_open_files, 1)
        self.root = os.path.realpath(root, strict=True)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(root)
            )
        self.listing = listing
        self.compress = compress
        self.upload = upload
        self._files = OpenFiles(self._open, max_open_files)
        self._executor: ThreadPoolExecutor | None = None
        self._pages: OrderedDict[tuple[object, ...], _Made] = OrderedDict()
        self._compressed: OrderedDict[tuple[object, ...], _Made] = OrderedDict()
        self._building: dict[object, asyncio.Future[bytes]] = {}
        self._troubles = LogBudget(logger, logging.WARNING, 1, _QUIET_TIME)

    def respond(
        self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> FileResponse:
        """Answer a request.  The caller closes the body, if it is a file.

        It reads at most 16 KiB of a file, but a whole directory for a list:
        ``respond_soon`` is for event loops.
        """
        found = self._find(method, target, headers)
        if isinstance(found, FileResponse):
            return found
        try:
            body = self._build(found)
        except (_NotServed, OSError) as error:
            return self._refuse(error)
        return _made_response(found, body)

    def respond_soon(
        self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> FileResponse | asyncio.Future[FileResponse]:
        """Answer as ``respond``, or return a future of the answer.

        Lists of files, and compressed ones, give a future: they are made in a thread,
        one at a time, and once for all requests that come meanwhile.
        """
        found = self._find(method, target, headers)
        if isinstance(found, FileResponse):
            return found
        made = self._kept(found)
        if made is not None:
            return _made_response(found, made)
        return asyncio.ensure_future(self._make(found))

    def open_directory(self, names: Sequence[str]) -> int:
        """Return a descriptor of a directory that is served; the caller closes it.

        ``names`` are those of the path.  Raises ``FileNotFoundError`` if nothing may be
        served from there, and other ``OSError``.
        """
        try:
            fd, _ = self._files.open([*names])
        except _NotServed:
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), "/".join(names)
            ) from None
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/".join(names)
            )
        return fd

    def _find(
        self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> FileResponse | _Later:
        if method not in (b"GET", b"HEAD"):
            return empty_response(405, [("allow", "GET, HEAD")])
        path, question, query = target.partition(b"?")
        fd = -1
        try:
            names, is_directory = split_path(path)
            fd, names = self._files.open(names)
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                if is_directory or not stat.S_ISREG(status.st_mode):
                    return empty_response(404)
                fd, file = -1, fd
                return self._respond_file(file, status, names, method, headers)
            if not is_directory:
                location = to_reference(path + b"/" + question + query)
                return empty_response(301, [("location", location)])
            return self._respond_directory(status, names, method, query, headers)
        except (_NotServed, OSError) as error:
            return self._refuse(error)
        finally:
            if fd != -1:
                os.close(fd)

    def _refuse(self, error: _NotServed | OSError) -> FileResponse:
        if isinstance(error, _NotServed) or error.errno in _NOT_FOUND:
            return empty_response(404)
        self._troubles.log(
            "files cannot be opened, clients get 503: %s", error.strerror
        )
        return empty_response(503, [("retry-after", "5")])

    # ---- Opening ----

    def _open(self, names: list[str]) -> tuple[int, list[str]]:
        """Open what ``names`` lead to; return the descriptor and the names without
        links."""
        path = os.path.realpath(os.path.join(self.root, *names))
        if path != self.root:
            inside = os.path.join(self.root, "")
            if not path.startswith(inside):
                raise _NotServed
            names = path[len(inside) :].split(os.sep)
            if any(is_hidden(name) for name in names):
                raise _NotServed
        else:
            names = []
        # This cannot leave the root even if the tree is changed meanwhile: no name is
        # "..", and no link is followed.
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
        names: list[str],
        method: bytes,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> FileResponse | _Compressing:
        """Answer with an open file, of which this takes ownership."""
        try:
            kind = content_type(names[-1])
            request = Conditions(headers)
            coding, made_now = None, False
            if self.compress and request.first(b"range") is None:
                accepted = accepted_codings(request.first(b"accept-encoding"))
                found = self._find_coded(status, names, accepted)
                if found is not None:
                    coding, coded, status, names = found
                    os.close(fd)
                    fd = coded
                elif "gzip" in accepted and is_compressible(kind, status.st_size):
                    coding, made_now = "gzip", True
            size = status.st_size
            etag = f'"{status.st_mtime_ns:x}-{size:x}{"-gzip" * made_now}"'
            modified = int(status.st_mtime)
            validators = [
                ("etag", etag),
                ("last-modified", formatdate(modified, usegmt=True)),
            ]
            if self.compress:
                # RFC 9110, 12.5.5: caches ask again for other clients.
                validators.append(("vary", "accept-encoding"))
            verdict = request.evaluate(etag, modified)
            if verdict == 304:
                return FileResponse(304, validators, None)
            if verdict == 412:
                return empty_response(412)
            fields = [
                ("content-type", kind),
                ("accept-ranges", "bytes"),
                ("x-content-type-options", "nosniff"),
                *validators,
            ]
            if coding is not None:
                fields.append(("content-encoding", coding))
            if made_now:
                return _Compressing(
                    tuple(names), _identify(status), fields, method == b"HEAD"
                )
            start, length, code = 0, size, 200
            # RFC 9110, 14.2: Range is for GET alone.
            if method == b"GET" and request.range_applies(etag, modified):
                part = parse_range(request.first(b"range"), size)
                if part == "unsatisfiable":
                    return empty_response(416, [("content-range", f"bytes */{size}")])
                if isinstance(part, tuple):
                    start, length = part
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
            shared = self._files.share(file, _identify(status), names)
            return FileResponse(code, fields, FileSlice(shared, start, length))
        finally:
            if fd != -1:
                os.close(fd)

    def _find_coded(
        self, plain: os.stat_result, names: list[str], accepted: frozenset[str]
    ) -> tuple[str, int, os.stat_result, list[str]] | None:
        """Open the best coded form of a file that lies beside it, if there is one."""
        for coding, suffix in _CODINGS.items():
            if coding not in accepted:
                continue
            try:
                fd, found = self._files.open([*names[:-1], names[-1] + suffix])
            except _NotServed:
                continue
            except OSError as error:
                if error.errno in _NOT_FOUND:
                    continue
                raise
            status = os.fstat(fd)
            if (
                stat.S_ISREG(status.st_mode)
                and status.st_mtime_ns >= plain.st_mtime_ns
                and found[-1].endswith(suffix)
            ):
                return coding, fd, status, found
            os.close(fd)
        return None

    def _respond_directory(
        self,
        directory: os.stat_result,
        names: list[str],
        method: bytes,
        query: bytes,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> FileResponse | _Later:
        try:
            index, found = self._files.open([*names, "index.html"])
        except _NotServed:
            pass
        except OSError as error:
            if error.errno not in _NOT_FOUND:
                raise
        else:
            status = os.fstat(index)
            if stat.S_ISREG(status.st_mode):
                return self._respond_file(index, status, found, method, headers)
            os.close(index)
        if not self.listing:
            return empty_response(404)
        identity = directory.st_dev, directory.st_ino, directory.st_mtime_ns
        return _Listing(tuple(names), identity, View.of(query), method == b"HEAD")

    # ---- Bodies that are made: lists of files, compressed files ----

    def _cache_of(self, wanted: _Later) -> OrderedDict[tuple[object, ...], _Made]:
        return self._pages if isinstance(wanted, _Listing) else self._compressed

    def _kept(self, wanted: _Later) -> bytes | None:
        cache = self._cache_of(wanted)
        made = cache.get(wanted.key)
        if made is None or made.until < time.monotonic():
            return None
        cache.move_to_end(wanted.key)
        return made.body

    async def _make(self, wanted: _Later) -> FileResponse:
        """Have the thread make a body, unless it does so already for another."""
        loop = asyncio.get_running_loop()
        key = (loop, *wanted.key)
        building = self._building.get(key)
        if building is None:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "nghttp2py-files")
            building = loop.run_in_executor(self._executor, self._build, wanted)
            self._building[key] = building
            building.add_done_callback(functools.partial(self._built, key, wanted))
        try:
            # A client that leaves cancels its own wait, not the body for others.
            body = await asyncio.shield(building)
        except (_NotServed, OSError) as error:
            return self._refuse(error)
        return _made_response(wanted, body)

    def _built(
        self, key: object, wanted: _Later, building: asyncio.Future[bytes]
    ) -> None:
        del self._building[key]
        if building.cancelled() or building.exception() is not None:
            return
        body = building.result()
        cache = self._cache_of(wanted)
        if isinstance(wanted, _Compressing):
            cache[wanted.key] = _Made(body, math.inf)
            while sum(len(made.body) for made in cache.values()) > MAX_COMPRESSED:
                cache.popitem(last=False)
        elif time.time() - wanted.identity[2] / 1e9 > _CLOCK_TICK:
            cache[wanted.key] = _Made(body, time.monotonic() + _PAGE_AGE)
            while len(cache) > _MAX_PAGES:
                cache.popitem(last=False)

    def _build(self, wanted: _Later) -> bytes:
        """Make a body.  This runs in a thread, and uses no object of the event loop."""
        fd, names = self._open(list(wanted.names))
        try:
            if isinstance(wanted, _Compressing):
                return _compress(fd, wanted)
            page = list_directory(fd, names, wanted.view, upload=self.upload)
        finally:
            os.close(fd)
        if page is None:
            raise _NotServed
        return page.encode("utf-8", "replace")


def _compress(fd: int, wanted: _Compressing) -> bytes:
    if _identify(os.fstat(fd)) != wanted.identity:
        raise OSError(errno.ESTALE, "the file was replaced by another")
    with open(fd, "rb", closefd=False) as file:
        # A fixed time gives the same bytes for the same entity tag.
        return gzip.compress(file.read(wanted.identity[3]), 6, mtime=0)


def _made_response(wanted: _Later, body: bytes) -> FileResponse:
    if isinstance(wanted, _Compressing):
        fields = list(wanted.fields)
    else:
        fields = [
            ("content-type", "text/html; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", POLICY),
            ("cache-control", "no-cache"),
        ]
    fields.append(("content-length", str(len(body))))
    return FileResponse(200, fields, None if wanted.head else body)


def accepted_codings(value: str | None) -> frozenset[str]:
    """Return the content codings that Accept-Encoding names (RFC 9110, 12.5.3)."""
    found = set()
    for part in (value or "").split(","):
        coding, _, weight = part.partition(";")
        quality = weight.strip().lower()
        # "q=0" and "q=0.000" refuse a coding.
        if not quality.startswith("q=") or quality[2:].strip("0."):
            found.add(coding.strip().lower())
    return frozenset(found)


def is_compressible(kind: str, size: int) -> bool:
    """Return whether a file of this type and size is worth compressing."""
    kind = kind.partition(";")[0]
    return size in _COMPRESSIBLE_SIZE and (
        kind.startswith("text/") or kind.endswith(("json", "xml", "wasm"))
    )


def empty_response(status: int, headers: Fields | None = None) -> FileResponse:
    """Return a response without a body."""
    return FileResponse(status, [*(headers or []), ("content-length", "0")], None)


def to_reference(target: bytes) -> str:
    """Return a target as a URI reference, which is of ASCII (RFC 3986, 2.1)."""
    return quote(target, safe=_ASCII)


def split_path(path: bytes) -> tuple[list[str], bool]:
    """Split a target's path into decoded names; return also whether it ends in ``/``.

    Raises ``ValueError`` for paths with dot segments or empty segments, and with names
    that contain a slash or a NUL when decoded.
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
    """Return the media type for a file's name."""
    kind, encoding = _TYPES.guess_type(name, strict=False)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    if kind.startswith("text/"):
        return f"{kind}; charset=utf-8"
    return kind


# ---- Conditional requests and ranges (RFC 9110, 13 and 14) ----


class Conditions:
    """The conditional fields and the range of a request."""

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._fields: dict[bytes, str] = {}
        for name, value in headers:
            text = value.decode("latin-1")
            known = self._fields.get(name)
            self._fields[name] = text if known is None else f"{known}, {text}"

    def first(self, name: bytes) -> str | None:
        """Return a field's value; the values of several lines are joined by commas."""
        return self._fields.get(name)

    def evaluate(self, etag: str, modified: int) -> int:
        """Return 304 or 412 if a condition requires it, else 0 (RFC 9110, 13.2.2)."""
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
        """Return whether there is a Range that If-Range does not forbid (13.1.5)."""
        if self.first(b"range") is None:
            return False
        if_range = self.first(b"if-range")
        if if_range is None:
            return True
        if if_range.startswith(('"', "W/")):
            return if_range.strip() == etag
        return _parse_date(if_range) == modified


def _lists(value: str, etag: str, *, weak: bool = False) -> bool:
    """Return whether a list of entity tags has ``etag``, or is ``*``."""
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
        return None  # an invalid date is ignored (RFC 9110, 13.1.3)


def parse_range(value: str | None, size: int) -> tuple[int, int] | str | None:
    """Return the part of ``size`` bytes that a Range field asks for.

    Returns offset and length; ``"unsatisfiable"``; or ``None`` if the field is ignored,
    as malformed ones and those with several ranges are (RFC 9110, 14.2).
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


# ---- Handlers that send them ----


class FileRequestHandler(BaseRequestHandler):
    """A handler that answers with files: a subclass sets ``files``, a ``StaticFiles``.

    ``response_headers`` go with every response: ``alt-svc``, for example.
    """

    files: StaticFiles
    response_headers: Sequence[tuple[str, str]] = ()
    _file: FileSlice | None = None

    def on_headers(self) -> Coroutine[Any, Any, None] | None:
        """Answer; the body of the request is ignored."""
        response = self.respond()
        if not isinstance(response, FileResponse):
            return self._send_later(response)
        self.send_file(response)
        return None

    def respond(self) -> FileResponse | asyncio.Future[FileResponse]:
        """Return the response, or a future of it.  A subclass may change it."""
        return self.files.respond_soon(self.method, self.path, self.headers)

    async def _send_later(self, response: asyncio.Future[FileResponse]) -> None:
        self.send_file(await response)

    def send_file(self, response: FileResponse) -> None:
        """Send a response, with ``response_headers``."""
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


async def answer_stream(files: StaticFiles, stream: Stream) -> None:
    """Answer a request: a coroutine function for ``Server`` and the like.

    Give it ``files`` by ``functools.partial``.  The body goes out as the client
    takes it.
    """
    request = stream.request
    assert request is not None
    found = files.respond_soon(request.method, request.target, request.headers)
    response = found if isinstance(found, FileResponse) else await found
    body = response.body
    try:
        await stream.send_response(
            response.status,
            [_date(), *response.headers],
            body.read if isinstance(body, FileSlice) else body,
        )
    finally:
        if isinstance(body, FileSlice):
            body.close()


def _date() -> tuple[str, str]:
    return "date", formatdate(time.time(), usegmt=True)
