"""Parsers for the input of ``nghttp2py hpack``: header lists, blocks, stories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nghttp2py.cli.captures import CaptureError, from_hex
from nghttp2py.hpack import DEFAULT_HEADER_TABLE_SIZE, NeverIndexed

HeaderList = list[tuple[bytes, bytes]]

_TOO_DEEP = "its JSON is nested too deeply"


class BadInputError(Exception):
    """A line of a file is malformed.

    ``line`` counts from 1; 0 means the file as a whole.
    """

    def __init__(self, name: str, line: int, reason: str) -> None:
        super().__init__(f"{name}:{line}: {reason}" if line else f"{name}: {reason}")


@dataclass(frozen=True)
class Case:
    """One block of an hpack-test-case story, and its header list."""

    seqno: int
    wire: bytes | None
    headers: HeaderList
    header_table_size: int


def to_bytes(value: Any) -> bytes:
    # A byte that is not UTF-8 becomes a lone surrogate in JSON.
    if not isinstance(value, str):
        raise ValueError(f"a name or value must be a string, not {json.dumps(value)}")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{json.dumps(value)} is not text: {error.reason}") from None


def to_json(headers: HeaderList) -> str:
    """Write a header list as one line of JSON; true marks never-indexed fields."""
    return json.dumps(
        [
            [part.decode("utf-8", "surrogateescape") for part in field]
            + ([True] if isinstance(field, NeverIndexed) else [])
            for field in headers
        ]
    )


def header_list(value: Any) -> HeaderList:
    """Read a header list from JSON.

    It is an object, or an array of ``[name, value]``, ``[name, value, true]``
    (never-indexed) or ``{name: value}``.  Raises ValueError for anything else.
    """
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, list):
        raise ValueError("a header list must be an array or an object")
    headers: HeaderList = []
    for field in value:
        if isinstance(field, dict) and len(field) == 1:
            field = next(iter(field.items()))
        if not isinstance(field, (list, tuple)) or len(field) not in (2, 3):
            raise ValueError(f"a field must be [name, value], not {json.dumps(field)}")
        pair = to_bytes(field[0]), to_bytes(field[1])
        if len(field) == 3 and not isinstance(field[2], bool):
            raise ValueError(
                f"a field's third element must be true or false, not "
                f"{json.dumps(field[2])}"
            )
        headers.append(NeverIndexed(*pair) if len(field) == 3 and field[2] else pair)
    return headers


def header_line(line: str) -> tuple[bytes, bytes]:
    """Read a field from ``name: value``; a pseudo-header's name starts with a colon."""
    colon = line.find(":", 1)
    if colon < 0:
        raise ValueError("a field must be 'name: value' or a line of JSON")
    return to_bytes(line[:colon].strip()), to_bytes(line[colon + 1 :].strip())


def _not_json(error: json.JSONDecodeError) -> str:
    # Some of its messages end in "starting at".
    return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _lines(name: str, data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            yield number, line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadInputError(name, number, f"not UTF-8: {error.reason}") from None


def read_header_lists(name: str, data: bytes) -> Iterator[tuple[int, HeaderList]]:
    """Iterate over the header lists of a file, with the lines where they begin.

    A line that starts with ``[`` or ``{`` is a list in JSON; ``name: value``
    lines make one list up to the next empty line.
    """
    fields: HeaderList = []
    start = 0
    for number, line in _lines(name, data):
        try:
            if line and line[0] not in "[{":
                start = start or number
                fields.append(header_line(line))
                continue
            if fields:
                yield start, fields
                fields, start = [], 0
            if line:
                yield number, header_list(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadInputError(name, number, _not_json(error)) from None
        except RecursionError:
            raise BadInputError(name, number, _TOO_DEEP) from None
        except ValueError as error:
            raise BadInputError(name, number, str(error)) from None
    if fields:
        yield start, fields


def read_blocks(name: str, data: bytes, binary: bool) -> Iterator[tuple[int, bytes]]:
    """Iterate over the header blocks of a file, with their lines: hex, one a line.

    A binary file is one block.
    """
    if binary:
        yield 0, data
        return
    for number, line in _lines(name, data):
        if line:
            try:
                yield number, from_hex(line)
            except CaptureError as error:
                raise BadInputError(name, number, str(error)) from None


def is_story(data: bytes) -> bool:
    """Return whether a file is a story, and not lines of JSON, each of which is a
    list."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("cases"), list)


def read_story(name: str, data: bytes) -> list[Case]:
    """Read an hpack-test-case story."""
    try:
        story = json.loads(data)
    except json.JSONDecodeError as error:
        raise BadInputError(name, error.lineno, _not_json(error)) from None
    except RecursionError:
        raise BadInputError(name, 0, _TOO_DEEP) from None
    except UnicodeDecodeError as error:
        raise BadInputError(name, 0, f"not UTF-8: {error.reason}") from None
    if not isinstance(story, dict) or not isinstance(story.get("cases"), list):
        raise BadInputError(name, 0, "not a story: it has no array of cases")
    cases: list[Case] = []
    for index, case in enumerate(story["cases"]):
        try:
            cases.append(_case(index, case, cases))
        except ValueError as error:
            raise BadInputError(name, 0, f"case {index}: {error}") from None
    return cases


def _case(index: int, case: Any, before: list[Case]) -> Case:
    if not isinstance(case, dict) or "headers" not in case:
        raise ValueError("it is no object with headers")
    seqno = case.get("seqno", index)
    # A size applies until the next one.
    size = case.get(
        "header_table_size",
        before[-1].header_table_size if before else DEFAULT_HEADER_TABLE_SIZE,
    )
    for what, number in ("seqno", seqno), ("header_table_size", size):
        if not isinstance(number, int) or not 0 <= number < 1 << 32:
            raise ValueError(f"{what} must be a number from 0, not {number!r}")
    wire = case.get("wire")
    if wire is not None:
        try:
            wire = bytes.fromhex(wire)
        except (TypeError, ValueError):
            raise ValueError("wire must be hexadecimal digits") from None
    return Case(seqno, wire, header_list(case["headers"]), size)


def size_of(lists: Iterable[HeaderList]) -> int:
    """Count the bytes of all names and values."""
    return sum(len(name) + len(value) for fields in lists for name, value in fields)
