"""HAR files: the requests of a run in HAR 1.2, which browsers and their tools read."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from nghttp2py import __version__
from nghttp2py.cli.get.model import FieldList, Record, find_field
from nghttp2py.cli.get.output import create

__all__ = ["MAX_BODY", "write_har"]

#: Bytes of each body that a HAR file has at most.
MAX_BODY = 4 << 20


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "backslashreplace")


def _fields(fields: FieldList) -> list[dict[str, str]]:
    return [{"name": _text(name), "value": _text(value)} for name, value in fields]


def _cookies(fields: FieldList, name: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, value in fields:
        if key.lower() != name:
            continue
        try:
            cookies = SimpleCookie(_text(value))
        except CookieError:
            continue
        for cookie, morsel in cookies.items():
            entry: dict[str, Any] = {"name": cookie, "value": morsel.value}
            for attribute in ("path", "domain"):
                if morsel[attribute]:
                    entry[attribute] = morsel[attribute]
            for attribute, title in (("httponly", "httpOnly"), ("secure", "secure")):
                if morsel[attribute]:
                    entry[title] = True
            found.append(entry)
    return found


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _between(begin: float, end: float) -> float:
    """Return the milliseconds between two times, or -1 if one is not known."""
    return round((end - begin) * 1000, 3) if begin and end and end >= begin else -1


def _timings(record: Record) -> dict[str, float]:
    timings: dict[str, float] = {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1}
    begin = record.start
    peer = record.peer
    if peer is not None and record.is_first:
        timings["blocked"] = max(0.0, _between(record.start, peer.start))
        timings["dns"] = _between(peer.start, peer.looked_up)
        ready = max(peer.connected, peer.secured)
        # The time of TLS is a part of that of connecting.
        timings["connect"] = _between(peer.looked_up, ready)
        timings["ssl"] = _between(peer.connected, peer.secured)
        begin = max(begin, ready)
    answered, end = record.answered or record.end, record.end
    timings["send"] = 0
    timings["wait"] = max(0.0, _between(begin, answered))
    timings["receive"] = max(0.0, _between(answered, end))
    return timings


def _body(record: Record) -> dict[str, Any]:
    kind = _text(find_field(record.fields, b"content-type"))
    content: dict[str, Any] = {"size": record.size, "mimeType": kind}
    if record.body is None:
        return content
    content["size"] = len(record.body)
    if len(record.body) >= MAX_BODY:
        content["comment"] = f"the first {MAX_BODY} bytes"
    try:
        content["text"] = record.body.decode()
    except UnicodeDecodeError:
        content["text"] = base64.b64encode(record.body).decode()
        content["encoding"] = "base64"
    return content


def _version(version: str) -> str:
    return "unknown" if version == "0" else f"HTTP/{version}"


def _entry(record: Record) -> dict[str, Any]:
    request = record.request
    timings = _timings(record)
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    sent: dict[str, Any] = {
        "method": request.method,
        "url": request.url,
        "httpVersion": _version(record.version),
        "cookies": _cookies(request.fields, b"cookie"),
        "headers": _fields(request.fields),
        "queryString": [{"name": name, "value": value} for name, value in query],
        "headersSize": -1,
        "bodySize": record.sent,
    }
    if isinstance(request.body, bytes):
        sent["postData"] = {
            "mimeType": _text(find_field(request.fields, b"content-type")),
            "params": [],
            "text": request.body[:MAX_BODY].decode("utf-8", "backslashreplace"),
        }
    entry: dict[str, Any] = {
        "startedDateTime": _time(record.wall),
        "time": round(sum(max(0, t) for k, t in timings.items() if k != "ssl"), 3),
        "request": sent,
        "response": {
            "status": record.status,
            "statusText": record.reason,
            "httpVersion": _version(record.version),
            "cookies": _cookies(record.fields, b"set-cookie"),
            "headers": _fields(record.fields),
            "content": _body(record),
            "redirectURL": _text(find_field(record.fields, b"location")),
            "headersSize": -1,
            "bodySize": record.size if record.status else -1,
        },
        "cache": {},
        "timings": timings,
    }
    if record.peer is not None:
        entry["connection"] = str(record.peer.number)
        if record.peer.remote[0]:
            entry["serverIPAddress"] = record.peer.remote[0]
    return entry


def write_har(path: Path, records: list[Record]) -> None:
    """Write a HAR file.  Raises ``TransferError``."""
    creator = {"name": "nghttp2py", "version": __version__}
    entries = [_entry(r) for r in sorted(records, key=lambda record: record.start)]
    log = {"version": "1.2", "creator": creator, "pages": [], "entries": entries}
    text = json.dumps({"log": log}, indent=2, ensure_ascii=False)
    data = text.encode("utf-8", "backslashreplace")
    create(path, data)
