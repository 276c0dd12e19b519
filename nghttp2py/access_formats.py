"""Formats of the access log: gunicorn's atoms, and JSON.

They are formatters for handlers of the logger ``nghttp2py.access``.  What a peer has
sent is escaped, so that it ends neither a quoted string nor a line.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any

from nghttp2py.access import format_address, format_time, keep_details, quote

__all__ = [
    "COMBINED",
    "AccessFormatter",
    "JSONAccessFormatter",
    "as_dict",
    "compile_format",
    "make_formatter",
]

#: The combined log format, which is gunicorn's default.
COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# An atom, ``%%``, or a percent sign that is neither.
_ATOM = re.compile(r"%(?:\(([^()]*)\)([-+ #0]*\d*(?:\.\d+)?[a-z])|(%)|)", re.I)
_VARIABLE = re.compile(r"\{([^{}]+)\}([ioe])", re.I)
# What an atom may be formatted as: text, and numbers.
_CONVERSIONS = "sdif"

Getter = Callable[[Any], Any]


def _find(fields: Sequence[tuple[Any, ...]], name: str) -> str | None:
    """Return the values of a field as text, or None if there is none."""
    wanted = name.encode()
    found = []
    for field in fields:
        key, value = field[0], field[1]
        if isinstance(key, str):
            key = key.encode("latin-1", "replace")
        if key.lower() == wanted:
            found.append(_text(value) if isinstance(value, bytes) else str(value))
    return ", ".join(found) if found else None


def _request_field(record: Any, name: str) -> str | None:
    fields = getattr(record, "request_fields", ())
    value = None
    if name == "host":
        # HTTP/2 and HTTP/3 have it as ":authority".
        value = _find(fields, ":authority")
    return _find(fields, name) if value is None else value


def _response_field(record: Any, name: str) -> str | None:
    return _find(getattr(record, "response_fields", ()), name)


def _text(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace")


def _user(record: Any) -> str:
    """Return the user of Basic authentication (RFC 7617)."""
    credentials = _request_field(record, "authorization") or ""
    scheme, _, token = credentials.partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        user = base64.b64decode(token.strip(), validate=True).partition(b":")[0]
    except (binascii.Error, ValueError):
        return "-"
    return quote(user) or "-"


def _path(record: Any) -> str:
    return quote(record.target.partition(b"?")[0])


def _created(record: Any) -> float:
    created: float | None = getattr(record, "created", None)
    return time.time() if created is None else created


def _phrase(record: Any) -> str:
    try:
        return HTTPStatus(record.status).phrase
    except ValueError:
        return "-"


def _scheme(record: Any) -> str:
    scheme = getattr(record, "scheme", None)
    return quote(scheme) if scheme else "-"


def _request_line(record: Any) -> str:
    return f"{quote(record.method)} {quote(record.target)} {record.protocol}"


_ATOMS: dict[str, Getter] = {
    "h": lambda record: format_address(record.address),
    "l": lambda record: "-",
    "u": _user,
    "t": lambda record: f"[{format_time(_created(record))}]",
    "r": _request_line,
    "R": _request_line,
    "m": lambda record: quote(record.method),
    "U": _path,
    "q": lambda record: quote(record.target.partition(b"?")[2]),
    "H": lambda record: record.protocol,
    "s": lambda record: "-" if record.status is None else record.status,
    "st": _phrase,
    "S": _scheme,
    "B": lambda record: record.bytes_sent,
    "b": lambda record: record.bytes_sent or "-",
    "f": lambda record: quote(_request_field(record, "referer") or "-"),
    "a": lambda record: quote(_request_field(record, "user-agent") or "-"),
    "T": lambda record: int(record.duration),
    "M": lambda record: int(record.duration * 1000),
    "D": lambda record: int(record.duration * 1_000_000),
    "L": lambda record: f"{record.duration:.6f}",
    "p": lambda record: f"<{os.getpid()}>",
    "X": lambda record: "+" if record.complete else "X",
}
_OF_FIELDS = {"u", "S", "f", "a"}


def _find_getter(name: str) -> tuple[Getter, bool]:
    """Return what gets the value of an atom, and whether it needs details."""
    getter = _ATOMS.get(name)
    if getter is not None:
        return getter, name in _OF_FIELDS
    match = _VARIABLE.fullmatch(name)
    if match is None:
        known = ", ".join(_ATOMS)
        raise ValueError(
            f"%({name}) is no atom of the access log; there are {known}, and "
            "{name}i, {name}o, {name}e"
        )
    variable, kind = match[1], match[2].lower()
    if kind == "e":
        return lambda record: quote(os.environ.get(variable) or "-"), False
    find = _request_field if kind == "i" else _response_field
    field = variable.lower()
    return lambda record: quote(find(record, field) or "-"), True


def compile_format(format: str) -> Callable[[Any], str]:
    """Return a function that makes the line of an ``Exchange``, or of a log record.

    ``format`` has gunicorn's atoms, such as ``%(h)s`` and ``%({x-request-id}i)s``.
    Raises ``ValueError`` for one that does not exist.  If an atom needs fields,
    ``nghttp2py.access.keep_details`` is called.
    """
    if not isinstance(format, str):
        raise TypeError(f"the format must be a str, not {type(format).__name__}")
    template: list[str] = []
    getters: list[Getter] = []
    position = 0
    detailed = False
    for match in _ATOM.finditer(format):
        template.append(format[position : match.start()].replace("%", "%%"))
        position = match.end()
        name, conversion, percent = match.groups()
        if percent:
            template.append("%%")
            continue
        if name is None or conversion[-1] not in _CONVERSIONS:
            raise ValueError(
                f"the access log's format has {format[match.start() :][:20]!r}: write "
                "%(atom)s, and %% for a percent sign"
            )
        getter, needs_details = _find_getter(name)
        detailed = detailed or needs_details
        if conversion[-1] != "s":
            getter = _to_number(getter)
        template.append(f"%{conversion}")
        getters.append(getter)
    template.append(format[position:].replace("%", "%%"))
    if detailed:
        keep_details()
    text = "".join(template)
    return lambda record: text % tuple([getter(record) for getter in getters])


def _to_number(getter: Getter) -> Getter:
    """Make an atom a number, 0 if it is none."""

    def get(record: Any) -> float:
        try:
            return float(getter(record))
        except (TypeError, ValueError):
            return 0

    return get


def make_formatter(format: str) -> logging.Formatter:
    """Return the formatter for a format: "json", or one of gunicorn's atoms."""
    return JSONAccessFormatter() if format == "json" else AccessFormatter(format)


class AccessFormatter(logging.Formatter):
    """Formats records of ``nghttp2py.access`` by gunicorn's atoms.

    ``format`` is as for ``compile_format``.  Records of other loggers are formatted as
    their message.
    """

    def __init__(self, format: str = COMBINED) -> None:
        super().__init__()
        self._line = compile_format(format)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        if not hasattr(record, "bytes_sent"):
            return super().format(record)
        return self._line(record)


def as_dict(exchange: Any) -> dict[str, Any]:
    """Return an ``Exchange``, or a log record of one, as JSON can have it.

    What clients have sent is text, in which octets that are not ASCII are escaped.  The
    scheme, the host, the referer and the user agent are ``None`` unless
    ``nghttp2py.access.keep_details`` was called.
    """
    address = exchange.address
    return {
        "client": address[0] if isinstance(address, tuple) else None,
        "method": _text(exchange.method),
        "target": _text(exchange.target),
        "path": _text(exchange.target.partition(b"?")[0]),
        "scheme": _text(getattr(exchange, "scheme", None) or b"") or None,
        "protocol": exchange.protocol,
        "status": exchange.status,
        "bytes": exchange.bytes_sent,
        "seconds": round(exchange.duration, 6),
        "complete": exchange.complete,
        "error_code": int(exchange.error_code),
        "host": _request_field(exchange, "host"),
        "referer": _request_field(exchange, "referer"),
        "user_agent": _request_field(exchange, "user-agent"),
    }


class JSONAccessFormatter(logging.Formatter):
    """Formats each record of ``nghttp2py.access`` as a line of JSON.

    ``request_fields`` and ``response_fields`` are names of fields that it has, too,
    under their names; the user agent, the referer and the host always are.
    """

    def __init__(
        self,
        request_fields: Iterable[str] = (),
        response_fields: Iterable[str] = (),
    ) -> None:
        super().__init__()
        for names in (request_fields, response_fields):
            if isinstance(names, str):
                raise TypeError(f"fields must be several names, not {names!r}")
        self._request_fields = [name.lower() for name in request_fields]
        self._response_fields = [name.lower() for name in response_fields]
        keep_details()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        created = datetime.fromtimestamp(record.created, timezone.utc)
        entry: dict[str, Any] = {
            "time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        }
        if not hasattr(record, "bytes_sent"):
            entry |= {"level": record.levelname, "message": record.getMessage()}
            return json.dumps(entry)
        given: Any = record
        entry |= as_dict(given)
        entry["pid"] = record.process
        if self._request_fields:
            entry["request"] = {
                name: _request_field(given, name) for name in self._request_fields
            }
        if self._response_fields:
            entry["response"] = {
                name: _response_field(given, name) for name in self._response_fields
            }
        return json.dumps(entry)
