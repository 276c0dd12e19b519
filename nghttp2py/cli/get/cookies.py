"""Cookies of ``get``: the rules of ``http.cookiejar``, and files in Netscape's format.

The files are those of curl and browsers: seven fields with tabs between them.  Python's
own reader and writer of them differ from curl's about cookies without an end.
"""

from __future__ import annotations

import ipaddress
import re
import sys
import time
from email.message import Message
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import Request as URLRequest

from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import FieldList
from nghttp2py.cli.get.output import append, create, escape_controls

__all__ = ["Cookies"]

_HEAD = "# Netscape HTTP Cookie File\n# Written by nghttp2py get.\n\n"
_HTTP_ONLY = "#HttpOnly_"
# Names without a dot have this in http.cookiejar, and nowhere else.
_LOCAL = ".local"
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
# The most bytes of a file that is read.
_MAX_FILE = 16 << 20


class _Response:
    """A response as ``CookieJar`` expects it."""

    def __init__(self, fields: FieldList) -> None:
        self._message = Message()
        for name, value in fields:
            # RFC 6265bis, 5.7: one with control characters is ignored.  A tab would
            # begin another field of the file.
            if name.lower() == b"set-cookie" and not _CONTROLS.search(value):
                self._message["Set-Cookie"] = value.decode("latin-1")

    def info(self) -> Message:
        """Return the header section."""
        return self._message


class _Policy(DefaultCookiePolicy):
    """Refuses what http.cookiejar lets a server set for other hosts."""

    def __init__(self) -> None:
        # A name such as co.uk must not get cookies for all below it.  Without a domain
        # a cookie is for its host, and for none below it (RFC 6265, 5.3).
        super().__init__(
            strict_domain=True, strict_ns_domain=self.DomainStrictNonDomain
        )

    def set_ok_domain(self, cookie: Cookie, request: Any) -> bool:
        """Return whether a cookie of a response may have its domain."""
        host = urlsplit(request.full_url).hostname or ""
        domain = cookie.domain.lstrip(".")
        # An address has no subdomains (RFC 6265, 5.1.3), nor has a name without a dot.
        is_whole = "." not in domain or _is_address(host)
        if cookie.domain_specified and is_whole and domain != host:
            return False
        return super().set_ok_domain(cookie, request)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Cookies:
    """The cookies of a run: those of files, and those that servers set if ``keep``."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._jar = CookieJar(_Policy())
        #: Values of the field that the command line gives.
        self.given: list[str] = []

    def load(self, path: Path, *, no_session: bool = False) -> None:
        """Read a file; one that does not exist has no cookies, as with curl."""
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_FILE).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransferError(Exit.READ, f"cookies: {error}") from None
        # A value may have other characters that end lines for str.splitlines.
        for line in text.split("\n"):
            line = line.removesuffix("\r")
            cookie = _parse_line(line)
            if cookie is not None and not (no_session and cookie.discard):
                self._jar.set_cookie(cookie)

    def save(self, path: Path) -> None:
        """Write all cookies to a file, which only its owner may read; ``-`` prints."""
        text = _HEAD + "".join(map(_format, self._jar))
        if str(path) == "-":
            if sys.stdout.isatty():
                text = escape_controls(text)
            append(path, text.encode("utf-8", "surrogateescape"))
            return
        create(path, text.encode("utf-8", "surrogateescape"))

    def find(self, url: str, *, given: bool) -> str | None:
        """Return the value of the field for a URL, with what the command line gives."""
        request = URLRequest(url)
        self._jar.add_cookie_header(request)
        found = request.get_header("Cookie")
        values = [found] if found else []
        return "; ".join(values + self.given if given else values) or None

    def received(self, url: str, fields: FieldList) -> None:
        """Keep the cookies that a response sets."""
        if self._keep and any(name.lower() == b"set-cookie" for name, _ in fields):
            response = cast(Any, _Response(fields))
            self._jar.extract_cookies(response, URLRequest(url))


def _parse_line(line: str) -> Cookie | None:
    """Return the cookie of a line of a file, if it has one."""
    http_only = line.startswith(_HTTP_ONLY)
    line = line.removeprefix(_HTTP_ONLY)
    if line.startswith("#") or not line.strip():
        return None
    parts = line.split("\t")
    if len(parts) == 6:
        parts.append("")
    if len(parts) != 7 or not parts[4].lstrip("-").isdigit():
        return None
    domain, below, path, secure, expires, name, value = parts
    end = int(expires)
    if 0 < end < time.time():
        return None
    subdomains = below == "TRUE"
    domain = domain.lower()
    if "." not in domain.strip(".") and ":" not in domain:
        domain += _LOCAL
    if subdomains and not domain.startswith("."):
        domain = f".{domain}"
    return Cookie(
        0,
        name,
        value,
        None,
        False,
        domain if subdomains else domain.lstrip("."),
        subdomains,
        subdomains,
        path,
        True,
        secure == "TRUE",
        end or None,
        end == 0,
        None,
        None,
        {"HttpOnly": ""} if http_only else {},
    )


def _format(cookie: Cookie) -> str:
    """Return the line of a cookie in a file."""
    below = cookie.domain.startswith(".")
    http_only = cookie.has_nonstandard_attr("HttpOnly")
    fields = (
        (_HTTP_ONLY if http_only else "") + cookie.domain.removesuffix(_LOCAL),
        str(below).upper(),
        cookie.path,
        str(cookie.secure).upper(),
        str(cookie.expires or 0),
        cookie.name,
        cookie.value or "",
    )
    return "\t".join(fields) + "\n"
