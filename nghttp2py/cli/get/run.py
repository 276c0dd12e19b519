"""One run of ``get``: its URLs, one after the other or in parallel, and its reports."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from nghttp2py import errors
from nghttp2py.cli.get.cookies import Cookies
from nghttp2py.cli.get.dialing import Dialer
from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.har import write_har
from nghttp2py.cli.get.job import Job
from nghttp2py.cli.get.model import Record
from nghttp2py.cli.get.origins import Origins
from nghttp2py.cli.get.output import create, redirect_stdout_to_null
from nghttp2py.cli.get.transfer import Transfer
from nghttp2py.cli.get.verbose import Log
from nghttp2py.cli.get.writeout import Outcome, format_outcome

__all__ = ["run_job"]

# The statistics of more requests than this are shown as a summary.
_MAX_ROWS = 20


async def run_job(job: Job) -> int:
    """Do what the options ask for; return the exit code."""
    run = _Run(job)
    try:
        return await run.run()
    except BrokenPipeError:
        # A broken pipe is not an error.
        redirect_stdout_to_null()
        return int(Exit.WRITE)


class _Run:
    """One run of the command."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.console = Console(stderr=True, highlight=False)
        self.log = Log(job.verbose)
        self.records: list[Record] = []
        self.exit = Exit.OK

    async def run(self) -> int:
        job = self.job
        try:
            if job.dump_header is not None and str(job.dump_header) != "-":
                create(job.dump_header)
            cookies = self._load_cookies()
            origins = Origins(
                Dialer(job.routes, self.log),
                job.versions,
                job.tls,
                self.log,
                timeout=job.timeout,
                limit=job.parallel_most if job.parallel else 1,
                console=self.console if job.frames else None,
            )
        except TransferError as error:
            return self.fail(error)
        try:
            if job.parallel:
                room = asyncio.Semaphore(job.parallel_most)
                await asyncio.gather(
                    *(
                        self._do_in(room, url, number, origins, cookies)
                        for number, url in enumerate(job.urls)
                    )
                )
            else:
                for number, url in enumerate(job.urls):
                    await self._do(url, number, origins, cookies)
                    if job.fail_early and self.exit != Exit.OK:
                        break
        except BaseException:
            origins.abort()
            raise
        finally:
            await origins.close()
        try:
            if cookies is not None and job.cookie_jar is not None:
                cookies.save(job.cookie_jar)
            if job.har is not None:
                write_har(job.har, self.records)
        except TransferError as error:
            return self.fail(error)
        return int(self.exit)

    def _load_cookies(self) -> Cookies | None:
        job = self.job
        if not job.cookies and job.cookie_jar is None:
            return None
        # Without a file, cookies of servers are not kept, as with curl.
        files = [text for text in job.cookies if "=" not in text]
        cookies = Cookies(keep=bool(files) or job.cookie_jar is not None)
        cookies.given = [text for text in job.cookies if "=" in text]
        for name in files:
            if name:
                cookies.load(Path(name), no_session=job.no_session)
        return cookies

    async def _do_in(self, room: asyncio.Semaphore, *arguments: Any) -> None:
        async with room:
            await self._do(*arguments)

    async def _do(
        self, url: str, number: int, origins: Origins, cookies: Cookies | None
    ) -> None:
        """Request a URL, as often as it is asked for."""
        job = self.job
        transfers = [
            Transfer(job, url, number, origins, cookies, self.console, self.log)
            for _ in range(job.count)
        ]
        # The server limits the requests that are open at once; the client queues the
        # others.
        outcomes = await asyncio.gather(*(transfer.run() for transfer in transfers))
        for transfer in transfers:
            self.records += transfer.records
        if job.timing:
            self._print_timings(outcomes)
        self.exit = next((o.exit for o in outcomes if o.exit != Exit.OK), Exit.OK)
        if job.reports_errors:
            for message in dict.fromkeys(o.error for o in outcomes if o.error):
                self._print_error(message)
        if job.write_out is not None:
            for stream, text in format_outcome(job.write_out, outcomes[-1]):
                click.echo(text, nl=False, err=stream == "stderr")
        if any(outcome.is_broken for outcome in outcomes):
            redirect_stdout_to_null()

    def fail(self, error: TransferError) -> int:
        """Report an error that concerns the whole run; return its exit code."""
        if self.job.reports_errors:
            self._print_error(str(error))
        return int(error.exit)

    def _print_error(self, text: str) -> None:
        # The text may contain text of the peer: from its certificate or its GOAWAY.
        click.echo(f"Error: {errors.printable(text)}", err=True)

    # ---- Times ----

    def _print_timings(self, outcomes: list[Outcome]) -> None:
        done = [
            outcome.records[-1]
            for outcome in outcomes
            if outcome.exit in (Exit.OK, Exit.STATUS) and outcome.records
        ]
        if not done:
            return
        begin = min(record.start for outcome in outcomes for record in outcome.records)
        table = Table(box=None, pad_edge=False, header_style="bold")
        if self.job.count > _MAX_ROWS:
            for name in ("", "min", "median", "99 %", "max"):
                table.add_column(name, justify="right" if name else "left")
            for name, values in (
                ("response begins", [r.since(r.answered) for r in done]),
                ("response ends", [r.since(r.end) for r in done]),
            ):
                table.add_row(name, *(_milliseconds(v) for v in _quantiles(values)))
        else:
            names = ("#", "sent", "DNS", "TCP", "TLS", "response", "end")
            for name in (*names, "status", "bytes"):
                table.add_column(name, justify="right", no_wrap=True)
            records = [record for outcome in outcomes for record in outcome.records]
            for i, record in enumerate(records, 1):
                table.add_row(str(i), *_row(record, begin))
        self.console.print(table)
        if self.job.count > 1:
            seconds = max(record.end for record in done) - begin
            self.console.print(
                f"{len(done)} of {self.job.count} responses, "
                f"{sum(record.size for record in done)} bytes, in {seconds:.3f} s: "
                f"{len(done) / seconds:.0f} a second"
            )
            counts: dict[int, int] = {}
            for record in done:
                counts[record.status] = counts.get(record.status, 0) + 1
            for status, number in sorted(counts.items()):
                self.console.print(f"{number} with status {status}")


def _row(record: Record, begin: float) -> list[str]:
    """Return the columns of a request: times since ``begin``, status and bytes."""

    def show(when: float) -> str:
        return _milliseconds(when - begin) if when else "-"

    peer = record.peer
    steps = ["-", "-", "-"]
    if peer is not None and record.is_first:
        steps = [show(peer.looked_up), show(peer.connected), show(peer.secured)]
    if not record.status:
        return [show(record.start), *steps, "-", "-", "-", "-"]
    return [
        show(record.start),
        *steps,
        show(record.answered),
        show(record.end),
        str(record.status),
        str(record.size),
    ]


def _quantiles(values: list[float]) -> tuple[float, float, float, float]:
    values = sorted(values)
    return (
        values[0],
        statistics.median(values),
        values[min(len(values) - 1, len(values) * 99 // 100)],
        values[-1],
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.{1 if seconds >= 0.1 else 2}f} ms"
