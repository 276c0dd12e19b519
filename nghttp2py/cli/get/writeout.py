"""``-w``: what became of a request, in curl's variables."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, NamedTuple

from nghttp2py import __version__
from nghttp2py.asyncio.url import split_url
from nghttp2py.cli.get.exits import Exit
from nghttp2py.cli.get.model import FieldList, Peer, Record, find_field
from nghttp2py.errors import printable

__all__ = ["Outcome", "format_outcome"]

_PART = re.compile(r"%(?:(%)|\{([^}]*)\}|(header|output)\{([^}]*)\})|\\([nrt])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Outcome(NamedTuple):
    """What became of one URL."""

    #: The requests that were sent for it: redirects, and what was sent again.
    records: list[Record]
    url: str
    number: int
    exit: Exit
    error: str
    redirects: int
    filename: str
    connections: int
    seconds: float
    #: Whether the reader of the output has gone.
    is_broken: bool


def _lower(fields: FieldList) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        key = name.decode("latin-1").lower()
        found.setdefault(key, []).append(value.decode("utf-8", "backslashreplace"))
    return found


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def make_values(outcome: Outcome) -> dict[str, Any]:
    """Return the values of all variables."""
    record = outcome.records[-1] if outcome.records else None
    peer = record.peer if record is not None and record.peer is not None else Peer()
    seconds = outcome.seconds
    values: dict[str, Any] = {
        "content_type": None,
        "errormsg": outcome.error or None,
        "exitcode": int(outcome.exit),
        "filename_effective": outcome.filename or None,
        "http_code": 0,
        "http_connect": peer.proxy_status,
        "http_version": "0",
        "local_ip": peer.local[0],
        "local_port": peer.local[1],
        "method": None,
        "num_connects": outcome.connections,
        "num_headers": 0,
        "num_redirects": outcome.redirects,
        "redirect_url": None,
        "referer": None,
        "remote_ip": peer.remote[0],
        "remote_port": peer.remote[1],
        "response_code": 0,
        "scheme": None,
        "size_download": 0,
        "size_header": 0,
        "size_request": 0,
        "size_upload": 0,
        "speed_download": 0,
        "speed_upload": 0,
        "ssl_verify_result": 0 if outcome.exit != Exit.UNTRUSTED else 1,
        "time_appconnect": 0.0,
        "time_connect": 0.0,
        "time_namelookup": 0.0,
        "time_pretransfer": 0.0,
        "time_redirect": 0.0,
        "time_starttransfer": 0.0,
        "time_total": seconds,
        "url": outcome.url,
        "url_effective": outcome.url,
        "urlnum": outcome.number,
    }
    if record is None:
        return values
    content_type = find_field(record.fields, b"content-type")
    referer = find_field(record.request.fields, b"referer")
    earlier = sum(r.since(r.end) for r in outcome.records[:-1])
    times = {
        "namelookup": peer.looked_up if record.is_first else record.start,
        "connect": peer.connected if record.is_first else record.start,
        "appconnect": peer.secured if record.is_first else 0.0,
        "starttransfer": record.answered,
    }
    begin = max(peer.connected, peer.secured) if record.is_first else record.start
    times["pretransfer"] = begin
    for name, when in times.items():
        values[f"time_{name}"] = earlier + record.since(when) if when else 0.0
    values |= {
        "content_type": None
        if content_type is None
        else content_type.decode("latin-1"),
        "http_code": record.status,
        "http_version": record.version,
        "method": record.request.method,
        "num_headers": len(record.fields) + len(record.trailers),
        "redirect_url": record.redirect or None,
        "referer": None if referer is None else referer.decode("latin-1"),
        "response_code": record.status,
        "scheme": _scheme(record.request.url).upper(),
        "size_download": record.size,
        "size_header": sum(r.head_size for r in outcome.records),
        "size_request": sum(
            sum(len(n) + len(v) + 4 for n, v in r.request.fields) + 2
            for r in outcome.records
        ),
        "size_upload": record.sent,
        "speed_download": int(record.size / seconds) if seconds else 0,
        "speed_upload": int(record.sent / seconds) if seconds else 0,
        "time_redirect": earlier if outcome.redirects else 0.0,
        "url_effective": record.request.url,
    }
    return values


def _show(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in ("http_code", "response_code", "http_connect"):
        return f"{value:03d}"
    if isinstance(value, float):
        return f"{value:.6f}"
    return str(value)


def format_outcome(template: str, outcome: Outcome) -> list[tuple[str, str]]:
    """Return the text of ``-w`` for a URL, as pairs of a stream's name and a text.

    The streams are ``"stdout"`` and ``"stderr"``, between which ``%{stderr}`` and
    ``%{stdout}`` switch.
    """
    values = make_values(outcome)
    record = outcome.records[-1] if outcome.records else None
    fields = _lower(record.fields + record.trailers) if record is not None else {}
    pieces: list[tuple[str, str]] = []
    stream = "stdout"
    position = 0

    def escapes(text: str) -> str:
        return printable(text) if getattr(sys, stream).isatty() else text

    for match in _PART.finditer(template):
        pieces.append((stream, template[position : match.start()]))
        position = match.end()
        percent, name, call, argument, escape = match.groups()
        if percent:
            text = "%"
        elif escape:
            text = _ESCAPES[escape]
        elif call == "header":
            text = escapes(fields.get(argument.lower(), [""])[0])
        elif call or name is None:
            text = match[0]
        elif name in ("stdout", "stderr"):
            stream, text = name, ""
        elif name == "onerror":
            if outcome.exit == Exit.OK:
                break
            text = ""
        elif name == "json":
            version = f"nghttp2py/{__version__}"
            text = json.dumps(values | {"curl_version": version})
        elif name == "header_json":
            text = json.dumps(fields, indent=1)
        elif name in values:
            text = escapes(_show(name, values[name]))
        elif name.startswith(("url.", "urle.")):
            text = escapes(_show_part(name, values))
        else:
            print(f"Warning: -w knows no variable {name!r}", file=sys.stderr)
            text = ""
        pieces.append((stream, text))
    else:
        pieces.append((stream, template[position:]))
    return [(where, text) for where, text in pieces if text]


def _show_part(name: str, values: dict[str, Any]) -> str:
    kind, _, part = name.partition(".")
    try:
        url = split_url(values["url" if kind == "url" else "url_effective"])
    except ValueError:
        return ""
    path, _, query = url.target.partition("?")
    found = {
        "scheme": url.scheme,
        "host": url.host,
        "port": url.port,
        "path": path,
        "query": query,
    }
    return str(found.get(part) or "")
