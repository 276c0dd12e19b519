"""One URL of ``get``: its request, redirects, repetition, and output."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import click
from rich.console import Console

from nghttp2py import __version__
from nghttp2py.asyncio.content_coding import decode, find_codings, get_accepted
from nghttp2py.asyncio.url import split_url
from nghttp2py.cli.get.cookies import Cookies
from nghttp2py.cli.get.dialing import make_basic
from nghttp2py.cli.get.exits import Exit, TransferError, explain, status_text
from nghttp2py.cli.get.har import MAX_BODY
from nghttp2py.cli.get.job import Job
from nghttp2py.cli.get.model import Answer, FieldList, Record, Request, find_field
from nghttp2py.cli.get.origins import Origins
from nghttp2py.cli.get.output import REMOTE_NAME, Output, Target, append, format_head
from nghttp2py.cli.get.verbose import Log
from nghttp2py.cli.get.writeout import Outcome
from nghttp2py.errors import NGHTTP2Error, printable

__all__ = ["Transfer", "complete_url"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What a server may answer differently soon, as in curl.
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_EXITS = frozenset({Exit.TIMEOUT, Exit.NO_HOST, Exit.NO_PROXY})
# The longest delay before a request is sent again, in seconds.
_MAX_DELAY = 600.0
# The most bytes of a redirect's body that are read, which keeps the connection.
_MAX_IGNORED = 65536
# Fields of the command line that another origin does not get, as with curl.
_OF_HOME = frozenset({"authorization", "cookie", "host"})
_UNSAFE_IN_URL = frozenset(map(chr, range(0x21))) | {"\x7f"}


def complete_url(text: str) -> tuple[str, str | None]:
    """Return a URL with its scheme and without user and password, and these.

    Raises ``TransferError``.
    """
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("http", "https"):
        raise TransferError(
            Exit.UNSUPPORTED_PROTOCOL,
            f"{_hide(text)!r}: only http:// and https:// are supported",
        )
    user = None
    end = min((i for i in map(rest.find, "/?#") if i >= 0), default=len(rest))
    if "@" in rest[:end]:
        user, _, host = rest[:end].rpartition("@")
        name, colon, password = user.partition(":")
        user = unquote(name) + (":" + unquote(password) if colon else ":")
        rest = host + rest[end:]
    url = f"{scheme.lower()}://{rest}"
    try:
        split_url(url)
    except ValueError as error:
        raise TransferError(Exit.BAD_URL, str(error)) from None
    return url, user


def _hide(text: str) -> str:
    """Return a URL without a password in it, for a message."""
    scheme, _, rest = text.partition("://")
    return f"{scheme}://...@{rest.rpartition('@')[2]}" if "@" in rest else text


class Transfer:
    """What is done for one URL."""

    def __init__(
        self,
        job: Job,
        text: str,
        number: int,
        origins: Origins,
        cookies: Cookies | None,
        console: Console,
        log: Log,
    ) -> None:
        self._job = job
        self._text = text
        self._number = number
        self._origins = origins
        self._cookies = cookies
        self._console = console
        self._log = log
        self._output: Output | None = None
        self._offset = 0
        #: All requests that were sent, in their order.
        self.records: list[Record] = []
        self._redirects = 0
        # The origin that may have credentials.
        self._home: tuple[str, str] | None = None
        self._referer = job.referer

    async def run(self) -> Outcome:
        """Request the URL, and write its body.  Nothing is raised but cancellation."""
        job = self._job
        start = time.perf_counter()
        exit, message = Exit.OK, ""
        delay = job.retry_delay or 1.0
        for attempt in range(job.retries + 1):
            begun = len(self.records)
            last = attempt == job.retries
            wait: float | None = None
            try:
                exit, message = Exit.OK, ""
                await self._within_time(not last)
            except (NGHTTP2Error, OSError, ValueError) as error:
                if isinstance(error, BrokenPipeError) and self._is_output(error):
                    exit, message = Exit.WRITE, ""
                    break
                exit, message = self._explain(error)
                wait = self._find_delay(error, exit, begun)
            finally:
                now = time.perf_counter()
                for record in self.records[begun:]:
                    record.end = record.end or now
            if last or wait is None:
                break
            wait = min(wait or delay, _MAX_DELAY)
            passed = time.perf_counter() - start
            if job.retry_max_time and passed + wait > job.retry_max_time:
                break
            if not job.silent:
                click.echo(
                    f"Warning: {printable(message)}; retry in {wait:g} seconds, "
                    f"{job.retries - attempt} left",
                    err=True,
                )
            if not job.retry_delay:
                delay = min(2 * delay, _MAX_DELAY)
            if self._output is not None:
                self._output.restart()
            await asyncio.sleep(wait)
        path = None
        if self._output is not None:
            path = self._output.target.path
            self._output.close()
        return Outcome(
            self.records,
            self._text if "://" in self._text else f"http://{self._text}",
            self._number,
            exit,
            message,
            self._redirects,
            "" if path is None else str(path),
            len({id(r.peer) for r in self.records if r.is_first and r.peer}),
            time.perf_counter() - start,
            self._output is not None and self._output.is_broken,
        )

    def _is_output(self, error: BrokenPipeError) -> bool:
        """Return whether the reader of our output has gone."""
        return self._output is not None and self._output.is_broken

    def _explain(self, error: Exception) -> tuple[Exit, str]:
        where = host = ""
        with contextlib.suppress(NGHTTP2Error, ValueError):
            text = self.records[-1].request.url if self.records else self._text
            url = split_url(complete_url(text)[0])
            where, host = url.authority or "", url.host or ""
        if not isinstance(error, (NGHTTP2Error, OSError)):
            return Exit.BAD_URL, str(error)
        return explain(error, where, host)

    def _find_delay(self, error: Exception, exit: Exit, begun: int) -> float | None:
        """Return after how many seconds to try again, 0 for the usual time."""
        job = self._job
        if isinstance(error, _RetryError):
            return error.delay
        if exit in _TRANSIENT_EXITS or job.retry_all:
            return 0.0
        if exit == Exit.NO_CONNECTION and job.retry_refused:
            return 0.0
        return None

    async def _within_time(self, may_retry: bool) -> None:
        limit = self._job.max_time
        if limit is None:
            await self._follow(may_retry)
            return
        task = asyncio.ensure_future(self._follow(may_retry))
        try:
            await asyncio.wait([task], timeout=limit)
            if task.done():
                return task.result()
            raise TransferError(
                Exit.TIMEOUT, f"the transfer did not end within {limit:g} s"
            )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    # ---- Requests and redirects ----

    async def _follow(self, may_retry: bool) -> None:
        job = self._job
        url, user = complete_url(self._text)
        if job.query:
            url = _add_query(url, job.query)
        user = job.user or user
        body = job.body
        method = job.method
        if job.is_upload and url.endswith("/") and isinstance(body, Path):
            url += quote(body.name)
        if method is None:
            method = "GET" if body is None else "PUT" if job.is_upload else "POST"
            if job.head:
                method = "HEAD"
        self._home = _origin_of(url)
        users = {self._home: user}
        self._redirects = 0
        self._referer = job.referer
        self._output = self._make_output(url)
        while True:
            request = Request(method, url, [], body)
            there = _origin_of(url)
            if job.trusts_locations:
                users.setdefault(there, user)
            request.fields = self._make_fields(request, users.get(there))
            location = await self._request_once(request, may_retry)
            if location is None:
                return
            if 0 <= job.max_redirects <= self._redirects:
                raise TransferError(
                    Exit.REDIRECTS,
                    f"more than {job.max_redirects} redirects",
                )
            self._redirects += 1
            status = self.records[-1].status
            if self._referer is not None and self._referer.endswith(";auto"):
                self._referer = (
                    f"{urlunsplit(urlsplit(url)._replace(fragment=''))};auto"
                )
            url, own = complete_url(location)
            if own is not None:
                # They are for this origin, and what is for the first one is not.
                users[_origin_of(url)] = own
            if status == 303 or (status in (301, 302) and method == "POST"):
                # RFC 9110, 15.4.2 to 15.4.4.
                if job.method is None and method != "HEAD":
                    method = "GET"
                body = None
            if body is not None and not request.can_repeat:
                raise TransferError(
                    Exit.SEND, "the body of the redirected request cannot be read again"
                )
            self._log.note(f"Issue another request to this URL: '{url}'")

    def _make_output(self, url: str) -> Output:
        job = self._job
        name = None
        if self._number < len(job.outputs):
            name = job.outputs[self._number]
        elif job.remote_names:
            name = REMOTE_NAME
        target = Target(
            name,
            url,
            directory=job.directory,
            make_directories=job.make_directories,
            named_by_server=job.named_by_server,
            keep_existing=job.keep_existing,
        )
        quiet = job.silent or job.verbose or job.frames
        output = Output(
            target,
            self._console,
            progress=self._console.is_terminal and not quiet and not job.parallel,
        )
        self._offset = 0
        if job.resume is not None:
            self._offset = job.resume
            if job.resume < 0:
                self._offset = 0
                if target.path is not None and target.path.exists():
                    self._offset = target.path.stat().st_size
            output.append = self._offset > 0
        return output

    def _make_fields(self, request: Request, user: str | None) -> FieldList:
        """Return the fields of a request, of the options and of ours."""
        job = self._job
        url = split_url(request.url)
        is_home = job.trusts_locations or _origin_of(request.url) == self._home
        ours: dict[str, str] = {"Host": url.authority or ""}
        if user is not None:
            ours["Authorization"] = make_basic(user).decode()
        elif job.bearer is not None and is_home:
            ours["Authorization"] = f"Bearer {job.bearer}"
        if job.byte_range is not None:
            ours["Range"] = f"bytes={job.byte_range}"
        elif self._offset:
            ours["Range"] = f"bytes={self._offset}-"
        ours["User-Agent"] = (
            f"nghttp2py/{__version__}" if job.user_agent is None else job.user_agent
        )
        ours["Accept"] = job.accept
        if job.compressed:
            ours["Accept-Encoding"] = get_accepted().decode()
        referer = (self._referer or "").removesuffix(";auto")
        if referer:
            ours["Referer"] = referer
        if self._cookies is not None:
            value = self._cookies.find(request.url, given=is_home)
            if value:
                ours["Cookie"] = value
        if request.body is not None:
            length = _length(request.body)
            if length is None:
                ours["Transfer-Encoding"] = "chunked"
            else:
                ours["Content-Length"] = str(length)
            if job.content_type is not None:
                ours["Content-Type"] = job.content_type
        if not ours["User-Agent"]:
            del ours["User-Agent"]
        given = [
            (name, value)
            for name, value in job.headers
            if is_home or name.lower() not in _OF_HOME
        ]
        replaced = {name.lower() for name, _ in given}
        fields = [
            (name, value)
            for name, value in ours.items()
            if name.lower() not in replaced
        ]
        # Host comes first, as RFC 9110, 7.2 asks for.
        for name, value in given:
            if value is not None:
                fields.insert(
                    0 if name.lower() == "host" else len(fields), (name, value)
                )
        return [
            (name.encode(), value.encode("utf-8", "surrogateescape"))
            for name, value in fields
        ]

    async def _request_once(self, request: Request, may_retry: bool) -> str | None:
        """Send a request and write its response; return where it redirects to."""
        job = self._job
        self._origins.prepare(request.url)
        record = Record(request)
        self.records.append(record)
        answer = await self._origins.send(request, record)
        try:
            record.answered = time.perf_counter()
            record.version = answer.version
            record.status = answer.status
            record.reason = answer.reason
            record.fields = answer.fields
            if self._cookies is not None:
                self._cookies.received(request.url, answer.fields)
            location = find_field(answer.fields, b"location")
            if answer.status in _REDIRECTS and location is not None:
                record.redirect = _resolve(request.url, location)
            if may_retry and answer.status in _TRANSIENT:
                raise _RetryError(answer)
            self._show_heads(answer, record)
            if job.follow and record.redirect:
                async for piece in answer.pieces():
                    record.size += len(piece)
                    if record.size > _MAX_IGNORED:
                        break
                return record.redirect
            await self._write_body(answer, record)
        finally:
            await answer.close()
            record.end = time.perf_counter()
            if record.peer is not None:
                self._log.note(f"Connection #{record.peer.number} is left intact")
        return None

    def _show_heads(self, answer: Answer, record: Record) -> None:
        """Show the head of a response, and those of the 1xx responses before it."""
        job = self._job
        output = self._output
        assert output is not None
        output.target.received(answer.fields)
        heads = [*answer.informational, (answer.status, answer.reason, answer.fields)]
        for status, reason, fields in heads:
            line = f"HTTP/{answer.version} {status} {reason}"
            self._log.response(line, fields)
            head = format_head(line, fields, escape=False)
            record.head_size += len(head)
            if job.dump_header is not None:
                escape = str(job.dump_header) == "-" and sys.stdout.isatty()
                append(job.dump_header, format_head(line, fields, escape=escape))
            if (job.include or job.head) and job.count == 1:
                output.write_head(line, fields)

    async def _write_body(self, answer: Answer, record: Record) -> None:
        job = self._job
        output = self._output
        assert output is not None
        failed = answer.status >= 400 and (job.fail or job.fail_with_body)
        error = TransferError(
            Exit.STATUS, f"the server answered {status_text(answer.status)}"
        )
        if failed and job.fail:
            raise error
        if self._offset and answer.status == 416:
            # The file is complete, as far as the server's answer goes.
            return
        if (
            self._offset
            and record.request.method == "GET"
            and answer.status in (200, 206)
            and not _begins_at(self._offset, answer)
        ):
            raise TransferError(
                Exit.RANGE,
                "the server does not send the part: the download is not resumed",
            )
        length = find_field(answer.fields, b"content-length")
        if length is not None and length.isdigit() and not job.compressed:
            output.length = int(length)
        if job.har is not None:
            record.body = bytearray()
        counts = job.count > 1
        if not counts and record.request.method != "HEAD":
            output.open()
        async for piece in self._read(answer, record):
            if record.body is not None:
                record.body += piece[: MAX_BODY - len(record.body)]
            if not counts:
                output.write(piece)
        record.trailers = await answer.trailers()
        if record.trailers:
            self._log.response("", record.trailers)
            if (job.include or job.head) and not counts:
                output.write_head("", record.trailers)
        if failed:
            raise error

    async def _read(self, answer: Answer, record: Record) -> AsyncIterator[bytes]:
        """Iterate over the body, decoded if that was asked for."""

        async def count() -> AsyncIterator[bytes]:
            async for piece in answer.pieces():
                record.size += len(piece)
                yield piece

        codings = None
        if self._job.compressed:
            value = find_field(answer.fields, b"content-encoding") or b""
            codings = find_codings(value.decode("latin-1"))
        pieces = count()
        async for piece in decode(pieces, codings) if codings else pieces:
            yield piece


class _RetryError(TransferError):
    """A response after which the request is sent again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(
            Exit.STATUS, f"the server answered {status_text(answer.status)}"
        )
        #: Seconds to wait, or 0 if the server has not stated it.
        self.delay = _read_retry_after(find_field(answer.fields, b"retry-after"))


def _read_retry_after(value: bytes | None) -> float:
    """Return the seconds of a Retry-After field (RFC 9110, 10.2.3), or 0."""
    if value is None:
        return 0.0
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MAX_DELAY)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _begins_at(offset: int, answer: Answer) -> bool:
    """Return whether a response is the part that begins there (RFC 9110, 15.3.7)."""
    value = find_field(answer.fields, b"content-range") or b""
    unit, _, part = value.partition(b" ")
    begin = part.strip().partition(b"-")[0]
    is_part = answer.status == 206 and unit.lower() == b"bytes"
    return is_part and begin.isdigit() and int(begin[:20]) == offset


def _origin_of(url: str) -> tuple[str, str]:
    parts = split_url(url)
    return parts.scheme or "", parts.authority or ""


def _length(body: Any) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return body.stat().st_size if isinstance(body, Path) else None


def _add_query(url: str, query: str) -> str:
    url, mark, fragment = url.partition("#")
    return f"{url}{'&' if '?' in url else '?'}{query}{mark}{fragment}"


def _resolve(url: str, location: bytes) -> str:
    """Return the absolute URL of a Location field (RFC 9110, 10.2.2)."""
    text = "".join(
        quote(char) if char in _UNSAFE_IN_URL else char
        for char in location.decode("utf-8", "backslashreplace").strip()
    )
    try:
        return urljoin(url, text)
    except ValueError as error:
        raise TransferError(Exit.BAD_URL, f"location: {error}") from None
