"""``nghttp2py hpack``: code header lists, look at tables, check stories."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from nghttp2py.cli.captures import (
    Block,
    CaptureError,
    blocks_of_capture,
    blocks_of_stream,
    from_hex,
    is_capture,
    is_stream,
    looks_like_hex,
)
from nghttp2py.cli.stories import (
    BadInputError,
    Case,
    HeaderList,
    is_story,
    read_blocks,
    read_header_lists,
    read_story,
    size_of,
    to_json,
)
from nghttp2py.errors import HPACKError, InvalidTableIndexError, printable
from nghttp2py.hpack import (
    DEFAULT_HEADER_TABLE_SIZE,
    DEFAULT_MAX_HEADER_LIST_SIZE,
    HDDeflater,
    HDInflater,
    NeverIndexed,
    print_hd_table,
)

_SIZE = click.IntRange(0, 2**32 - 1)
# Seconds after which a progress bar is shown.
_PATIENCE = 1.0  # seconds

# That of a whole direction, whose bound is in the SETTINGS of the other one.
_STREAM_TABLE_SIZE = 1 << 20
_MIDDLE = "; was the capture begun in the middle of the connection?"


class _Digits(io.BytesIO):
    """An argument that is a block, as a file."""

    name = "<argument>"


class _FileOrBlock(click.File):
    """A file, or a header block in hexadecimal digits."""

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        """Return the opened file, or one in memory with the digits."""
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter:
            if looks_like_hex(value):
                return _Digits(value.encode())
            raise


_files = click.argument("files", type=click.File("rb"), nargs=-1)
_blocks = click.argument("files", type=_FileOrBlock("rb"), nargs=-1)
_table_size = click.option(
    "--table-size",
    "-S",
    type=_SIZE,
    default=DEFAULT_HEADER_TABLE_SIZE,
    show_default=True,
    metavar="BYTES",
    help="The SETTINGS_HEADER_TABLE_SIZE that the blocks are made for.",
)
_max_list_size = click.option(
    "--max-list-size",
    type=_SIZE,
    default=DEFAULT_MAX_HEADER_LIST_SIZE,
    show_default=True,
    metavar="BYTES",
    help="The largest header list to accept, with 32 bytes for each field.",
)
_binary = click.option(
    "--binary", "-b", is_flag=True, help="Each file is one block in binary."
)


@click.group("hpack")
def command() -> None:
    """Encode and decode header blocks (RFC 7541).

    Header lists are lines of JSON, [["name", "value"], ...] or
    {"name": "value", ...}, or "name: value" lines with an empty line after
    each list.  Blocks are lines of hexadecimal digits.  Without FILES, or for
    "-", standard input is read.  Each file is one connection: its blocks
    share a dynamic table.
    """


def _each(opened: tuple[BinaryIO, ...], work: Callable[[str, bytes], None]) -> int:
    """Do ``work`` on each file; report errors; return the exit status.

    After a bad line the rest of its file cannot be decoded, but the next file is a
    connection of its own.
    """
    errors: list[BadInputError] = []
    with _Progress(len(opened)) as progress:
        for file in opened or (sys.stdin.buffer,):
            name = getattr(file, "name", None)
            try:
                work(name if isinstance(name, str) else "<stdin>", file.read())
            except BadInputError as error:
                errors.append(error)
            progress.step()
    for bad in errors:
        click.echo(str(bad), err=True)
    return 1 if errors else 0


def _deflater(size: int) -> HDDeflater:
    deflater = HDDeflater(size)
    # It announces a size below the default by itself.
    if size > DEFAULT_HEADER_TABLE_SIZE:
        deflater.change_table_size(size)
    return deflater


def _inflater(size: int, max_size: int) -> HDInflater:
    inflater = HDInflater(max_header_list_size=max_size)
    if size != DEFAULT_HEADER_TABLE_SIZE:
        inflater.change_table_size(size)
    return inflater


def _decoded(
    name: str, data: bytes, inflater: HDInflater, is_binary: bool
) -> Iterator[HeaderList]:
    for line, block in read_blocks(name, data, is_binary):
        try:
            yield inflater.inflate(block)
        except HPACKError as error:
            raise BadInputError(name, line, _explain(error)) from None


def _explain(error: HPACKError) -> str:
    return f"{error}{_MIDDLE if isinstance(error, InvalidTableIndexError) else ''}"


def _connections(
    name: str, data: bytes, binary: bool, keylog: Path | None
) -> Iterator[Iterator[Block]] | None:
    """Return the directions of connections that a file has; ``None``: it has blocks."""
    if is_capture(data):
        return blocks_of_capture(Path(name), keylog)
    if is_stream(data):
        return iter([blocks_of_stream(data)])
    if not binary:
        with contextlib.suppress(CaptureError, UnicodeDecodeError):
            # Wireshark copies a whole stream as one line.
            stream = from_hex(data.decode())
            if is_stream(stream):
                return iter([blocks_of_stream(stream)])
    return None


def _decode_connections(
    name: str,
    connections: Iterator[Iterator[Block]],
    max_list_size: int,
    show: Callable[[Block, HeaderList], None],
) -> None:
    """Decode directions of connections; a bad one does not end the others."""
    failures = []
    try:
        for blocks in connections:
            inflater = _inflater(_STREAM_TABLE_SIZE, max_list_size)
            direction, at = "", 0
            try:
                for block in blocks:
                    direction, at = block.direction, block.offset
                    show(block, inflater.inflate(block.data))
            except HPACKError as error:
                failures.append(
                    f"{direction}{': ' * bool(direction)}the {block.kind} of stream "
                    f"{block.stream_id} at octet {at}: {_explain(error)}"
                )
            except CaptureError as error:
                failures.append(f"{direction}{': ' * bool(direction)}{error}")
    except CaptureError as error:
        failures.append(str(error))
    if failures:
        raise BadInputError(name, 0, "; ".join(failures))


@command.command()
@_files
@_table_size
def encode(files: tuple[BinaryIO, ...], table_size: int) -> None:
    """Encode header lists: one line of hexadecimal digits for each."""

    def work(name: str, data: bytes) -> None:
        deflater = _deflater(table_size)
        for _, headers in read_header_lists(name, data):
            click.echo(deflater.deflate(headers).hex())

    raise SystemExit(_each(files, work))


@command.command()
@_blocks
@_binary
@click.option(
    "--format",
    "style",
    type=click.Choice(["json", "table"]),
    default="json",
    show_default=True,
    help="A line of JSON for each block, or a table to look at.",
)
@click.option(
    "--keylog",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SSLKEYLOGFILE",
    help="File with the secrets of TLS in a capture.  [default: $SSLKEYLOGFILE]",
)
@_table_size
@_max_list_size
def decode(
    files: tuple[BinaryIO, ...],
    binary: bool,
    style: str,
    keylog: Path | None,
    table_size: int,
    max_list_size: int,
) -> None:
    """Decode header blocks: files of them, or blocks as arguments.

    Digits may have spaces, colons or 0x between them, as Wireshark copies them.  A file
    may also be all that one end of an HTTP/2 connection has sent, in binary or in
    hexadecimal digits, or a capture (pcap, pcapng), for which tshark is needed.

    In JSON, a field that must never be indexed has true as third element.
    """

    def work(name: str, data: bytes) -> None:
        connections = _connections(name, data, binary, keylog)
        if connections is not None:
            _decode_connections(name, connections, max_list_size, show)
            return
        inflater = _inflater(table_size, max_list_size)
        for number, headers in enumerate(_decoded(name, data, inflater, binary), 1):
            if style == "json":
                click.echo(to_json(headers))
            else:
                _show(f"block {number}", headers)

    def show(block: Block, headers: HeaderList) -> None:
        if style == "json":
            place = {
                **({"direction": block.direction} if block.direction else {}),
                "stream": block.stream_id,
                "frame": block.kind,
            }
            start = json.dumps(place)[:-1]
            click.echo(f'{start}, "headers": {to_json(headers)}}}')
        else:
            title = f"{block.kind} of stream {block.stream_id}"
            _show(f"{block.direction} {title}".lstrip(), headers)

    raise SystemExit(_each(files, work))


def _show(title: str, headers: HeaderList) -> None:
    table = Table(title=title, title_justify="left")
    for column in "name", "value", "never indexed":
        table.add_column(column, overflow="fold")
    for field in headers:
        name, value = (printable(part) for part in field[:2])
        mark = "yes" if isinstance(field, NeverIndexed) else ""
        table.add_row(name, value, mark)
    Console(markup=False, highlight=False, emoji=False).print(table)


@command.command()
@_files
@_binary
@click.option("--refset", is_flag=True, help="Print the column of nghttp2 0.5.")
@_table_size
@_max_list_size
def table(
    files: tuple[BinaryIO, ...],
    binary: bool,
    refset: bool,
    table_size: int,
    max_list_size: int,
) -> None:
    """Decode header blocks; show the dynamic table after each.

    The first entry of the table has the HPACK index 62.
    """

    def work(name: str, data: bytes) -> None:
        inflater = _inflater(table_size, max_list_size)
        for number, _ in enumerate(_decoded(name, data, inflater, binary), 1):
            entries = inflater.get_hd_table()
            click.echo(
                f"block {number}: {len(entries)} entries, "
                f"{inflater.dynamic_table_size} of "
                f"{inflater.max_dynamic_table_size} bytes"
            )
            shown = io.StringIO()
            print_hd_table(entries, refset=refset, file=shown)
            click.echo(shown.getvalue(), nl=False)

    raise SystemExit(_each(files, work))


@command.command()
@_files
@_table_size
def ratio(files: tuple[BinaryIO, ...], table_size: int) -> None:
    """Show for each file how much smaller its header lists become.

    The bytes before are those of all names and values.  Files are header
    lists or hpack-test-case stories.
    """
    rows: list[tuple[str, int, int]] = []

    def work(name: str, data: bytes) -> None:
        if is_story(data):
            lists = [case.headers for case in read_story(name, data)]
        else:
            lists = [headers for _, headers in read_header_lists(name, data)]
        deflater = _deflater(table_size)
        after = sum(len(deflater.deflate(headers)) for headers in lists)
        rows.append((name, size_of(lists), after))

    status = _each(files, work)
    if len(rows) > 1:
        rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, before, after in rows:
        share = f"{after / before:.3f}" if before else "-"
        click.echo(f"{name}: {before} bytes, {after} coded, ratio {share}")
    raise SystemExit(status)


@command.command()
@click.argument(
    "paths", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True
)
def check(paths: tuple[Path, ...]) -> None:
    """Verify hpack-test-case stories: files, or all *.json below a directory."""
    stories: list[Path] = []
    for path in paths:
        stories += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not stories:
        raise click.ClickException("there is no *.json file")
    results: list[str] = []
    failed = 0
    with _Progress(len(stories)) as progress:
        for story in stories:
            try:
                cases = read_story(str(story), story.read_bytes())
                reason = _wrong(cases)
            except BadInputError as error:
                results.append(f"FAIL {error}")
                failed += 1
            else:
                result = f"FAIL {story}: {reason}" if reason else f"PASS {story}"
                results.append(f"{result} ({len(cases)} cases)")
                failed += reason is not None
            progress.step()
    for result in results:
        click.echo(result)
    click.echo(f"{len(stories) - failed} of {len(stories)} stories passed")
    raise SystemExit(1 if failed else 0)


def _wrong(cases: list[Case]) -> str | None:
    """Return what is wrong with a story, if anything."""
    inflater = HDInflater()
    for case in cases:
        if case.wire is None:
            return f"case {case.seqno}: it has no wire"
        # The setting that was sent and acknowledged before this case.
        if case.header_table_size != inflater.max_dynamic_table_size:
            inflater.change_table_size(case.header_table_size)
        try:
            headers = inflater.inflate(case.wire)
        except HPACKError as error:
            return f"case {case.seqno}: {error}"
        if headers != case.headers:
            return (
                f"case {case.seqno}: expected {to_json(case.headers)}, "
                f"got {to_json(headers)}"
            )
    return None


class _Progress:
    """A progress bar on standard error, if that is a terminal and the work takes
    long."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.completed} of {task.total} files"),
            BarColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("files", total=total)
        self._patient_until = time.monotonic() + _PATIENCE

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        # A bar that was never shown would still print an empty line at its end.
        if self._bar.live.is_started:
            self._bar.stop()

    def step(self) -> None:
        """Count one more file as done."""
        self._bar.advance(self._task)
        if self._bar.console.is_terminal and time.monotonic() > self._patient_until:
            self._bar.start()
