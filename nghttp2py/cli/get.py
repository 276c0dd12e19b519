"""``nghttp2py get``: send requests, and show the responses and their statistics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from nghttp2py import __version__, errors
from nghttp2py.arguments import check_seconds
from nghttp2py.asyncio import Client, H2Protocol, Response
from nghttp2py.asyncio.url import SplitURL, split_url
from nghttp2py.cli.frames import FramePrinter, LinePrinter, printable
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    HeadersError,
    NGHTTP2Error,
    StreamResetError,
)
from nghttp2py.h2 import H2Connection, H2Event, H2SettingsReceived

__all__ = ["command"]

# The statistics of more requests than this are shown as a summary.
_MAX_ROWS = 20


class _WatchedConnection(H2Connection):
    """Passes bytes on, and shows them to a printer."""

    printer: FramePrinter

    def receive_data(self, data: Any) -> list[H2Event]:
        self.printer.received(data)
        return super().receive_data(data)

    def data_to_send(self, limit: int | None = None) -> bytes:
        data = super().data_to_send(limit)
        self.printer.sent(data)
        return data

    def data_to_send_vectored(self, limit: int | None = None) -> list[Any]:
        pieces = super().data_to_send_vectored(limit)
        for piece in pieces:
            self.printer.sent(bytes(piece))
        return pieces


class _Protocol(H2Protocol):
    """Notes whether the server has sent HTTP/2 at all."""

    heard = False

    def __init__(
        self, client_side: bool, *, printer: FramePrinter | None, **options: Any
    ) -> None:
        if printer is not None:
            self.connection_class = _WatchedConnection
        super().__init__(client_side, **options)
        if isinstance(self.connection, _WatchedConnection):
            assert printer is not None
            self.connection.printer = printer

    def event_received(self, event: H2Event) -> None:
        if isinstance(event, H2SettingsReceived):
            self.heard = True
        super().event_received(event)


@dataclass
class _Timing:
    """When the events of a request happened, in seconds since the start."""

    start: float
    response: float = 0.0
    end: float = 0.0
    status: int = 0
    size: int = 0
    error: Exception | None = None


class _BinaryBodyError(NGHTTP2Error):
    """A binary body must not be written to a terminal."""


class _Terminal:
    """Standard output that is a terminal: it accepts only text, as with curl."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.flush = file.flush

    def write(self, data: bytes) -> None:
        """Write a piece of a body.  Raises ``_BinaryBodyError`` if it is binary."""
        if b"\0" in data:
            raise _BinaryBodyError(
                "the body is binary and may harm the terminal: -o FILE saves it, "
                "-o - writes it nevertheless"
            )
        self._file.write(data)


class _TLS(NamedTuple):
    """The options about certificates."""

    insecure: bool
    cacert: Path | None
    cert: Path | None
    key: Path | None


@dataclass
class _Job:
    """The options and arguments of the command line."""

    url: SplitURL
    method: str
    headers: list[tuple[str, str]]
    body: bytes | Path | None
    output: Path | None
    include: bool
    count: int
    timing: bool
    verbose: bool
    http3: bool
    tls: _TLS
    timeout: float


def _check_request(text: str, method: str, *fields: tuple[str, str]) -> None:
    """Raise ``BadParameter`` if ``text`` is a field that must not be sent."""
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    # Host may repeat :authority.
    hosts = [value for name, value in fields if name.lower() == "host"]
    authority = hosts[0] if hosts else "localhost"
    try:
        connection.send_request(
            *(method, "/", fields),
            authority=authority.encode(),
            scheme=b"https",
            end_stream=False,
        )
    except (HeadersError, UnicodeError) as error:
        raise click.BadParameter(f"{text!r} must not be sent: {error}") from None


def _parse_method(_: object, __: object, text: str | None) -> str | None:
    if text is not None:
        _check_request(text, text)
    return text


def _parse_headers(
    _: object, __: object, texts: tuple[str, ...]
) -> list[tuple[str, str]]:
    fields = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or name != name.strip():
            raise click.BadParameter(f"{text!r} is not of the form 'name: value'")
        field = name, value.strip()
        _check_request(text, "POST", field)
        fields.append(field)
    return fields


def _parse_timeout(_: object, __: object, seconds: float) -> float:
    try:
        check_seconds("it", seconds)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return seconds


def _parse_output(_: object, __: object, path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"{str(path)!r} is in no directory")
    return path


def _parse_data(_: object, __: object, text: str | None) -> bytes | Path | None:
    if text is None:
        return None
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    if text == "@-":
        return sys.stdin.buffer.read()
    path = Path(text[1:])
    if not path.is_file():
        raise click.BadParameter(f"{text!r}: there is no file {str(path)!r}")
    return path


def _make_context(tls: _TLS) -> ssl.SSLContext:
    option: object = f"--cacert {tls.cacert}"
    try:
        context = ssl.create_default_context(
            cafile=None if tls.cacert is None else str(tls.cacert)
        )
        if tls.cert is not None:
            option = f"--cert {tls.cert}"
            if tls.key is not None:
                option = f"{option} and --key {tls.key}"
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"{option}: a certificate cannot be read: {error}"
        ) from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("get")
@click.argument("url")
@click.option(
    "-X",
    "--method",
    callback=_parse_method,
    help="Method.  [default: GET, with -d POST]",
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    callback=_parse_headers,
    help="Field, as 'name: value'.",
)
@click.option(
    "-d",
    "--data",
    "body",
    callback=_parse_data,
    help="Body; @FILE sends a file, @- standard input.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    callback=_parse_output,
    help="Write the body to this file; - is standard output, even a terminal.",
)
@click.option("-i", "--include", is_flag=True, help="Print status and fields too.")
@click.option("-v", "--verbose", is_flag=True, help="Print all frames, to stderr.")
@click.option("-t", "--timing", is_flag=True, help="Print when what came, to stderr.")
@click.option(
    "-n",
    "--requests",
    "count",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    help="Send so many at once, on one connection; bodies are only counted.",
)
@click.option("--http3", is_flag=True, help="Send it over HTTP/3, not HTTP/2.")
@click.option("-k", "--insecure", is_flag=True, help="Trust any certificate.")
@click.option("--cacert", type=_PATH, help="Trust the certificates of this PEM file.")
@click.option("--cert", type=_PATH, help="PEM file with the client's certificate.")
@click.option("--key", type=_PATH, help="PEM file with its key.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    callback=_parse_timeout,
    help="For the response, and each next piece of its body.",
)
def command(
    url: str,
    method: str | None,
    headers: list[tuple[str, str]],
    body: bytes | Path | None,
    output: Path | None,
    include: bool,
    verbose: bool,
    timing: bool,
    count: int,
    http3: bool,
    insecure: bool,
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
    timeout: float,
) -> None:
    """Send a request over HTTP/2 or HTTP/3 and print the body of the response.

    http:// needs a server that expects HTTP/2 in the clear.  The exit status is 1 if
    there is no response, and for statuses from 400.
    """
    if "://" not in url:
        raise click.ClickException(f"{url!r} does not begin with http:// or https://")
    try:
        parts = split_url(url)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if http3 and parts.scheme != "https":
        raise click.UsageError("--http3 needs a URL that begins with https://")
    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    # The command reports errors itself, so the library's log lines are not shown.
    logging.getLogger("nghttp2py").addHandler(logging.NullHandler())
    if "user-agent" not in {name.lower() for name, _ in headers}:
        headers.append(("user-agent", f"nghttp2py/{__version__}"))
    job = _Job(
        url=parts,
        method=method or ("GET" if body is None else "POST"),
        headers=headers,
        body=body,
        output=output,
        include=include,
        count=count,
        timing=timing or count > 1,
        verbose=verbose,
        http3=http3,
        tls=_TLS(insecure, cacert, cert, key),
        timeout=timeout,
    )
    sys.exit(asyncio.run(_Run(job).run()))


class _Run:
    """One run of the command."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.console = Console(stderr=True, highlight=False)
        self.start = time.perf_counter()
        self.connected = 0.0
        self.connect_timeout = job.timeout
        self.protocols: list[Any] = []
        self.client = self.make_http3() if job.http3 else self.make_http2()

    def make_http2(self) -> Client:
        job = self.job
        return Client(
            f"{job.url.scheme}://{job.url.authority}",
            ssl=_make_context(job.tls) if job.url.scheme == "https" else None,
            timeout=job.timeout,
            connect_timeout=job.timeout,
            cls=functools.partial(
                self.keep,
                _Protocol,
                printer=FramePrinter(self.console) if job.verbose else None,
            ),
        )

    def make_http3(self) -> Client:
        job = self.job
        try:
            from nghttp2py.cli import http3_client
        except ImportError as error:
            raise click.ClickException(str(error)) from None
        _make_context(job.tls)  # says more about files that are none of PEM
        printer = LinePrinter(self.console) if job.verbose else None
        self.connect_timeout = min(http3_client.HANDSHAKE_TIMEOUT, job.timeout)
        try:
            return Client(
                f"https://{job.url.authority}",
                http3=http3_client.make_configuration(
                    *job.tls, timeout=job.timeout, printer=printer
                ),
                timeout=job.timeout,
                connect_timeout=self.connect_timeout,
                cls=functools.partial(
                    self.keep, http3_client.Protocol, printer=printer
                ),
            )
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from None

    def now(self) -> float:
        return time.perf_counter() - self.start

    def keep(self, cls: Any, *arguments: Any, **options: Any) -> Any:
        """Make a connection's protocol; see whether the server speaks at all."""
        protocol = cls(*arguments, **options)
        self.protocols.append(protocol)
        return protocol

    async def run(self) -> int:
        job = self.job
        timings = [_Timing(0.0) for _ in range(job.count)]
        async with self.client:
            # The server limits the requests that are open at once; the client queues
            # the others.
            await asyncio.gather(*(self.request(t) for t in timings))
        failures = [t for t in timings if t.error is not None]
        if job.timing and len(failures) < job.count:
            self.print_timings(timings)
        for error in dict.fromkeys(self.explain(t.error) for t in failures):
            self.fail(error)
        if failures:
            return 1
        if job.count == 1 and timings[0].status >= 400:
            self.fail(f"the server answered {_status_text(timings[0].status)}")
        return int(any(t.status >= 400 for t in timings))

    async def request(self, timing: _Timing) -> None:
        job = self.job
        timing.start = self.now()
        try:
            with contextlib.ExitStack() as stack:
                body: Any = job.body
                if isinstance(body, Path):
                    body = stack.enter_context(body.open("rb"))
                response = await self.client.request(
                    job.method, job.url.target, headers=job.headers, body=body
                )
                timing.response = self.now()
                timing.status = response.status
                async with response:
                    await self.receive(response, timing)
                timing.end = self.now()
        except BrokenPipeError:
            # A broken pipe is not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except (NGHTTP2Error, OSError, ValueError) as error:
            timing.error = error

    async def receive(self, response: Response, timing: _Timing) -> None:
        job = self.job
        if job.count > 1:
            async for chunk in response:
                timing.size += len(chunk)
            return
        if job.include:
            version = 3 if job.http3 else 2
            lines = [f"HTTP/{version} {response.status}\n".encode()]
            for name, value in response.headers.pairs:
                lines.append(f"{printable(name)}: {printable(value)}\n".encode())
            sys.stdout.buffer.write(b"".join(lines) + b"\n")
        with self.open_output(response) as (file, advance):
            async for chunk in response:
                file.write(chunk)
                timing.size += len(chunk)
                advance(len(chunk))
            file.flush()

    @contextlib.contextmanager
    def open_output(
        self, response: Response
    ) -> Iterator[tuple[BinaryIO | _Terminal, Any]]:
        path = self.job.output
        if path is None or response.status >= 400:
            out = sys.stdout.buffer
            yield _Terminal(out) if sys.stdout.isatty() else out, lambda n: None
            return
        if path == Path("-"):
            yield sys.stdout.buffer, lambda n: None
            return
        length = response.headers.get("content-length")
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal or self.job.verbose,
        )
        with path.open("wb") as file, progress:
            task = progress.add_task(
                path.name, total=int(length) if length and length.isdigit() else None
            )
            yield file, lambda n: progress.advance(task, n)

    # ---- Output on stderr ----

    def print_timings(self, timings: list[_Timing]) -> None:
        done = [t for t in timings if t.error is None]
        table = Table(show_edge=False, pad_edge=False, header_style="bold")
        if self.job.count > _MAX_ROWS:
            for name in ("", "min", "median", "99 %", "max"):
                table.add_column(name, justify="right" if name else "left")
            for name, values in (
                ("response begins", [t.response - t.start for t in done]),
                ("response ends", [t.end - t.start for t in done]),
            ):
                table.add_row(name, *(_milliseconds(v) for v in _quantiles(values)))
        else:
            for name in ("request", "sent", "response", "end", "status", "bytes"):
                table.add_column(name, justify="right")
            for i, t in enumerate(timings, 1):
                if t.error is None:
                    times = (_milliseconds(v) for v in (t.start, t.response, t.end))
                    table.add_row(str(i), *times, str(t.status), str(t.size))
                else:
                    table.add_row(str(i), _milliseconds(t.start), "-", "-", "-", "-")
        self.console.print(table)
        if self.job.count > 1:
            seconds = max(t.end for t in done)
            self.console.print(
                f"{len(done)} of {self.job.count} responses, "
                f"{sum(t.size for t in done)} bytes, in {seconds:.3f} s: "
                f"{len(done) / seconds:.0f} a second"
            )
            counts: dict[int, int] = {}
            for t in done:
                counts[t.status] = counts.get(t.status, 0) + 1
            for status, number in sorted(counts.items()):
                self.console.print(f"{number} with status {status}")

    def fail(self, sentence: str) -> None:
        # The text may contain text of the peer: from its certificate or its GOAWAY.
        click.echo(f"Error: {errors.printable(sentence)}", err=True)

    def explain(self, error: Exception | None) -> str:
        """Return one sentence about why there is no response."""
        where = self.job.url.authority
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate of {where} is not trusted: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"no TLS connection to {where}: {error.reason or error}"
        if isinstance(error, socket.gaierror):
            return f"there is no host {self.job.url.host!r}: {error.strerror}"
        if isinstance(error, ConnectionRefusedError):
            return f"{where} refuses connections"
        if isinstance(error, HeadersError):
            return f"the request must not be sent: {error}"
        if isinstance(error, (ConnectionTerminatedError, StreamResetError)):
            if error.error_code == ErrorCode.HTTP_1_1_REQUIRED:
                return f"{where} does not speak HTTP/2 ({error})"
            if self.protocols and not self.is_heard:
                if self.job.http3:
                    return error.reason
                return f"{where} does not speak HTTP/2, or not without TLS ({error})"
        if isinstance(error, TimeoutError) and self.job.http3 and not self.is_heard:
            return (
                f"{where} does not answer over UDP, which HTTP/3 needs, in "
                f"{self.connect_timeout:g} seconds"
            )
        return str(error)

    @property
    def is_heard(self) -> bool:
        return any(protocol.heard for protocol in self.protocols)


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _quantiles(values: list[float]) -> tuple[float, float, float, float]:
    values = sorted(values)
    return (
        values[0],
        statistics.median(values),
        values[min(len(values) - 1, len(values) * 99 // 100)],
        values[-1],
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
