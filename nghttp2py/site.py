"""What ``nghttp2py serve`` does beyond sending files: passwords, uploads, pages.

``Site`` has the settings, and makes the handler class for a server.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import hmac
import logging
import os
import secrets
from collections.abc import Coroutine
from typing import Any

from nghttp2py.arguments import check_int
from nghttp2py.handler import BaseRequestHandler
from nghttp2py.listings import POLICY, error_page, is_hidden
from nghttp2py.log_budget import LogBudget
from nghttp2py.static_files import (
    FileRequestHandler,
    FileResponse,
    StaticFiles,
    empty_response,
    split_path,
    to_reference,
)

__all__ = ["MAX_UPLOAD", "Site"]

logger = logging.getLogger(__name__)

#: The largest file that clients may store, unless a site says otherwise, in bytes.
MAX_UPLOAD = 1 << 30
#: How many files are stored at a time: each has two descriptors.
MAX_UPLOADS = 64

# Errors for want of room, and the status of WebDAV for them (RFC 4918, 11.5).
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_INSUFFICIENT_STORAGE = 507
# Seconds between two log lines about failures of the system.
_QUIET_TIME = 60.0

_SENTENCES = {
    401: "A name and a password are needed here.",
    404: "There is no such file here.",
    405: "Files can only be read here.",
    409: "There is such a file already; it is not replaced.",
    413: "The file is larger than this server stores.",
    503: "The server cannot open files at the moment.",
    507: "The server has no space left.",
}


class Site:
    """A directory that is served, and how.

    ``spa`` answers with ``/index.html`` where a browser asks for a page that is not
    there.  ``cors`` lets pages of every origin read the files (Fetch, 3.2).  ``cache``
    is for how many seconds clients may keep files without asking; ``None``: they ask
    each time.  ``max_upload`` is the largest file, in bytes, that a client may store by
    PUT; ``None``: none may be stored.  A stored file never replaces another.  ``auth``
    is ``user:password``, which every request must have (RFC 7617).  ``listing`` and
    ``compress`` are those of ``StaticFiles``.

    Raises ``ValueError`` for invalid values, and what ``StaticFiles`` raises.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        listing: bool = True,
        spa: bool = False,
        cors: bool = False,
        cache: int | None = None,
        compress: bool = True,
        max_upload: int | None = None,
        auth: str | None = None,
    ) -> None:
        if cache is not None:
            check_int("cache", cache, 0)
        if max_upload is not None:
            check_int("max_upload", max_upload, 1)
        if auth is not None and ":" not in auth:
            raise ValueError("auth must be 'user:password' (RFC 7617, 2)")
        self.files = StaticFiles(
            root, listing=listing, compress=compress, upload=max_upload is not None
        )
        self.spa = spa
        self.cors = cors
        self.cache = "no-cache" if cache is None else f"max-age={cache}"
        self.max_upload = max_upload
        self.uploads = 0  # that have begun and not ended
        self._auth = None if auth is None else auth.encode()
        self.troubles = LogBudget(logger, logging.WARNING, 1, _QUIET_TIME)

    def handler(self) -> type[BaseRequestHandler]:
        """Return the handler class, for ``Server`` or ``HTTP2Server``."""
        return type("SiteHandler", (_SiteHandler,), {"site": self, "files": self.files})

    def is_allowed(self, authorization: bytes | None) -> bool:
        """Return whether a request with this Authorization is answered."""
        if self._auth is None:
            return True
        scheme, _, token = (authorization or b"").partition(b" ")
        try:
            given = base64.b64decode(token.strip(), validate=True)
        except binascii.Error:
            return False
        # In constant time, whatever was given.
        return hmac.compare_digest(given, self._auth) and scheme.lower() == b"basic"


class _SiteHandler(FileRequestHandler):
    """Answers one request of a site."""

    site: Site
    _upload: _Upload | None = None

    def on_headers(self) -> Coroutine[Any, Any, None] | None:
        """Answer, or begin to store what is uploaded."""
        site = self.site
        if site.cors:
            self.response_headers = [
                ("access-control-allow-origin", "*"),
                ("access-control-expose-headers", "*"),
            ]
            if self.method == b"OPTIONS":
                self.send_file(_preflight())
                return None
        if not site.is_allowed(self._field(b"authorization")):
            challenge = 'Basic realm="nghttp2py", charset="UTF-8"'
            self.send_file(empty_response(401, [("www-authenticate", challenge)]))
        elif self.method == b"PUT" and site.max_upload is not None:
            self._begin_upload(site.max_upload)
        else:
            return super().on_headers()
        return None

    def on_data(self, data: bytes) -> None:
        """Store a piece of an upload."""
        if self._upload is not None:
            try:
                self._upload.write(data)
            except OSError as error:
                self._fail(error)

    def on_request_done(self) -> None:
        """Give the upload its name."""
        if self._upload is not None:
            try:
                self._upload.finish()
            except OSError as error:
                self._fail(error)
            else:
                self._drop_upload()
                path = to_reference(self.path.partition(b"?")[0])
                self.send_file(empty_response(201, [("location", path)]))

    def on_close(self, error_code: int) -> None:
        """Close the file, and remove an upload that is incomplete."""
        self._drop_upload()
        super().on_close(error_code)

    def _drop_upload(self) -> None:
        if self._upload is not None:
            self._upload.abandon()
            self._upload = None
            self.site.uploads -= 1

    def send_file(self, response: FileResponse) -> None:
        """Send a response, with what the site adds."""
        if response.status == 404 and self.site.spa and self._asks_for_a_page():
            first = self.files.respond_soon(self.method, b"/index.html", self.headers)
            if isinstance(first, asyncio.Future):
                first.add_done_callback(self._send_first)
                return
            if first.status != 404:
                response = first
        self._send_complete(response)

    def _send_first(self, first: asyncio.Future[FileResponse]) -> None:
        if not first.cancelled():
            self._send_complete(first.result())

    def _send_complete(self, response: FileResponse) -> None:
        status, fields, body = response
        if status >= 400 and body is None:
            page = b""
            if self._wants_html():
                page = error_page(status, _SENTENCES.get(status, "")).encode()
                fields = [
                    *(field for field in fields if field[0] != "content-length"),
                    ("content-type", "text/html; charset=utf-8"),
                    ("content-security-policy", POLICY),
                    ("content-length", str(len(page))),
                ]
            body = page if page and self.method != b"HEAD" else None
        elif status < 400 and not any(name == "cache-control" for name, _ in fields):
            fields = [("cache-control", self.site.cache), *fields]
        super().send_file(FileResponse(status, fields, body))

    def _asks_for_a_page(self) -> bool:
        return self.method in (b"GET", b"HEAD") and self._wants_html()

    def _wants_html(self) -> bool:
        return b"text/html" in (self._field(b"accept") or b"")

    def _field(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.headers if known == name), None)

    def _begin_upload(self, limit: int) -> None:
        names, is_directory = _split(self.path)
        if not names or is_directory or any(map(is_hidden, names)):
            self.send_file(empty_response(404))
            return
        length = self._field(b"content-length") or b""
        if length.isdigit() and int(length) > limit:
            self.send_file(empty_response(413))
            return
        if self.site.uploads >= MAX_UPLOADS:
            self.send_file(empty_response(503, [("retry-after", "10")]))
            return
        try:
            self._upload = _Upload(self.files, names, limit)
        except OSError as error:
            self._fail(error)
        else:
            self.site.uploads += 1

    def _fail(self, error: OSError) -> None:
        self._drop_upload()
        if error.errno in _NO_ROOM:
            # That of a file of its own means that it is too large.
            status = 413 if error.errno == errno.EFBIG else _INSUFFICIENT_STORAGE
        elif error.errno == errno.EEXIST:
            status = 409
        elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            status = 404
        else:
            status = 503
            self.site.troubles.log("a file cannot be stored: %s", error.strerror)
        self.send_file(empty_response(status))


def _split(target: bytes) -> tuple[list[str], bool]:
    """Split a target's path into names; none if nothing may be stored there."""
    try:
        return split_path(target.partition(b"?")[0])
    except ValueError:
        return [], False


def _preflight() -> FileResponse:
    """Return the answer to a request for permission (Fetch, 3.2.2).

    It allows no PUT: a page of another origin must not store files with the password
    that the browser has.
    """
    return FileResponse(
        204,
        [
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-allow-headers", "*, authorization"),
            ("access-control-max-age", "600"),
        ],
        None,
    )


class _Upload:
    """A file that is being stored, under a hidden name until it is complete.

    Raises ``OSError``: ``EEXIST`` if there is a file of that name, ``EFBIG`` if it is
    larger than ``limit`` bytes.
    """

    def __init__(self, files: StaticFiles, names: list[str], limit: int) -> None:
        self._left = limit
        self._name = names[-1]
        self._temporary = f".upload-{secrets.token_hex(8)}"
        self._directory = files.open_directory(names[:-1])
        try:
            # A link would be followed to where it leads, which may be outside.
            with contextlib.suppress(FileNotFoundError):
                os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._fd = self._create(self._temporary)
        except BaseException:
            os.close(self._directory)
            raise

    def _create(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o644, dir_fd=self._directory)

    def write(self, data: bytes) -> None:
        """Append a piece."""
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Give the file its name, unless there is another of that name."""
        os.close(self._create(self._name))
        # It takes the place of the empty file that was made just now.
        directory = self._directory
        os.rename(
            self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory
        )
        self._close()

    def abandon(self) -> None:
        """Remove what was stored.  A second call, or one after the end, is a no-op."""
        if self._fd != -1:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._directory)
        self._fd = -1
