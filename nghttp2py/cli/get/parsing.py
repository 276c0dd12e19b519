"""The texts of ``get``'s options, in curl's forms."""

from __future__ import annotations

import mimetypes
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import click

from nghttp2py.arguments import check_seconds
from nghttp2py.cli.get.dialing import parse_proxy
from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.errors import HeadersError
from nghttp2py.h2 import H2Connection

__all__ = [
    "join_data",
    "make_form",
    "parse_connect_to",
    "parse_file",
    "parse_headers",
    "parse_method",
    "parse_offset",
    "parse_output",
    "parse_proxy_url",
    "parse_resolve",
    "parse_timeout",
    "parse_value",
    "parse_values",
    "read_text",
    "read_upload",
]

_DATA_OPTIONS = {"data": "--data", "binary": "--data-binary", "json": "--json"}
# What -d leaves out of a file, as curl does.
_LINE_ENDS = b"\r\n\0"


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


def parse_method(_: object, __: object, text: str | None) -> str | None:
    """Parse the value of ``-X``."""
    if text is not None:
        _check_request(text, text)
    return text


def parse_value(_: object, __: object, text: str | None) -> str | None:
    """Check the text of an option that becomes the value of a field."""
    if text is not None:
        _check_request(text, "POST", ("x", text.strip()))
    return text


def parse_values(_: object, __: object, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check the texts of an option that become values of a field."""
    for text in texts:
        parse_value(_, __, text)
    return texts


def parse_proxy_url(_: object, __: object, text: str | None) -> str | None:
    """Check the value of ``-x``."""
    if text:
        try:
            parse_proxy(text)
        except TransferError as error:
            raise click.BadParameter(str(error)) from None
    return text


def parse_file(_: object, __: object, path: Path | None) -> Path | None:
    """Check the path of a file that is written."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"{str(path)!r} is in no directory")
    return path


def parse_offset(_: object, __: object, text: str | None) -> int | None:
    """Parse the value of ``-C``: an offset, or ``-``, which becomes -1."""
    if text is None or text == "-":
        return None if text is None else -1
    if not (text.isascii() and text.isdigit()):
        raise click.BadParameter(f"{text!r} is neither an offset nor -")
    return int(text)


def parse_headers(
    _: object, __: object, texts: tuple[str, ...]
) -> list[tuple[str, str | None]]:
    """Parse the values of ``-H``: ``name: value``, ``name;``, ``name:`` or ``@file``.

    The result has ``None`` as the value of a field that is not to be sent.
    """
    fields: list[tuple[str, str | None]] = []
    for text in texts:
        if text.startswith("@"):
            lines = _read(text[1:]).decode("utf-8", "surrogateescape").splitlines()
            lines = [line for line in lines if line.strip()]
        else:
            lines = [text]
        fields += map(_parse_header, lines)
    return fields


def _parse_header(text: str) -> tuple[str, str | None]:
    name, colon, value = text.partition(":")
    if not colon and name.endswith(";"):
        name, colon, value = name[:-1], ";", ""
    if not colon or not name.strip() or name != name.strip():
        raise click.BadParameter(f"{text!r} is not of the form 'name: value'")
    value = value.strip()
    if colon == ":" and not value:
        return name, None
    # These are of HTTP/1.1, which has another rule for each.
    if name.lower() not in ("connection", "transfer-encoding", "keep-alive"):
        _check_request(text, "POST", (name, value))
    elif not value.isprintable():
        raise click.BadParameter(f"{text!r} must not be sent")
    return name, value


def parse_timeout(_: object, __: object, seconds: float | None) -> float | None:
    """Check a time in seconds."""
    try:
        check_seconds("it", seconds)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return seconds


def parse_output(_: object, __: object, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check the values of ``-o``."""
    for text in texts:
        if text != "-" and "\0" not in text and Path(text).is_dir():
            raise click.BadParameter(f"{text!r} is a directory")
    return texts


def _read(name: str, option: str | None = None) -> bytes:
    """Read a file that an option names with @, or standard input.

    ``option`` is its name, if it is not called for a parameter.
    """
    if name == "-":
        return sys.stdin.buffer.read()
    path = Path(name)
    try:
        return path.read_bytes()
    except OSError as error:
        about = "" if option is None else f"{option} "
        raise UnreadableError(
            f"{about}@{name}: there is no file {name!r}: {error.strerror}"
        ) from None


class UnreadableError(click.ClickException):
    """A file that an option names cannot be read."""

    exit_code = Exit.READ


def read_text(_: object, option: click.Parameter, text: str | None) -> str | None:
    """Return an option's text, or that of the file that it names with @."""
    if text is not None and text.startswith("@"):
        return _read(text[1:], option.opts[-1]).decode("utf-8", "surrogateescape")
    return text


def read_upload(name: str) -> Any:
    """Return the body of ``-T``: a path, or standard input."""
    if name in ("-", "."):
        return sys.stdin.buffer
    path = Path(name)
    if not path.is_file():
        raise UnreadableError(f"--upload-file: there is no file {name!r}")
    return path


def join_data(pieces: Iterable[tuple[str, str]]) -> bytes | Path:
    """Join the values of ``-d``, ``--data-binary`` and so on, given with their kind.

    One file of ``--data-binary`` alone is not read but returned, so that it can be
    large.
    """
    given = list(pieces)
    if len(given) == 1 and given[0][0] in ("binary", "json"):
        text = given[0][1]
        if text.startswith("@") and Path(text[1:]).is_file():
            return Path(text[1:])
    body = b""
    for kind, text in given:
        if body and kind != "json":
            body += b"&"
        body += _read_piece(kind, text)
    return body


def _to_bytes(text: str) -> bytes:
    """Return the bytes of a part of the command line, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _read_piece(kind: str, text: str) -> bytes:
    if kind == "urlencode":
        return _encode_piece(text)
    if kind == "raw" or not text.startswith("@"):
        return _to_bytes(text)
    data = _read(text[1:], _DATA_OPTIONS[kind])
    return data.translate(None, _LINE_ENDS) if kind == "data" else data


def _encode_piece(text: str) -> bytes:
    """Encode ``text``, ``=text``, ``name=text``, ``@file`` or ``name@file``."""
    equals, at = text.find("="), text.find("@")
    if equals >= 0 and (at < 0 or equals < at):
        name, value = text[:equals], _to_bytes(text[equals + 1 :])
    elif at >= 0:
        name, value = text[:at], _read(text[at + 1 :], "--data-urlencode")
    else:
        name, value = "", _to_bytes(text)
    encoded = quote_plus(value).encode()
    return _to_bytes(name) + b"=" + encoded if name else encoded


def make_form(texts: Iterable[str]) -> tuple[bytes, str]:
    """Return the body of ``-F`` (RFC 7578), and its content-type."""
    boundary = "-" * 24 + secrets.token_hex(8)
    body = b""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(
                f"{text!r} is not of the form 'name=value'", param_hint="--form"
            )
        body += _make_part(name, value, boundary)
    body += f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _make_part(name: str, value: str, boundary: str) -> bytes:
    kind = filename = None
    if value[:1] in ("@", "<"):
        path, *options = value[1:].split(";")
        for option in options:
            key, _, text = option.strip().partition("=")
            if key == "type":
                kind = text
            elif key == "filename":
                filename = text.strip('"')
        data = _read(path, "--form")
        if value[0] == "@":
            filename = Path(path).name if filename is None else filename
            kind = kind or mimetypes.guess_type(path)[0] or "application/octet-stream"
    else:
        value, separator, text = value.partition(";type=")
        if separator:
            kind = text
        data = _to_bytes(value)
    head = f'Content-Disposition: form-data; name="{_quote(name)}"'
    if filename is not None:
        head += f'; filename="{_quote(filename)}"'
    if kind is not None:
        head += f"\r\nContent-Type: {kind}"
    return _to_bytes(f"--{boundary}\r\n{head}\r\n\r\n") + data + b"\r\n"


def _quote(text: str) -> str:
    """Encode a name in a form as browsers do (WHATWG HTML)."""
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


# ---- Routes ----


def _read_port(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise click.BadParameter(f"{whole!r}: {text!r} is not a port")
    return int(text)


def _split_host(text: str) -> tuple[str, str]:
    """Split what begins with a host, possibly in brackets, at the colon after it."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, rest = text.partition(":")
    return host, rest


def parse_resolve(
    _: object, __: object, texts: tuple[str, ...]
) -> dict[tuple[str, int], list[str]]:
    """Parse the values of ``--resolve``: ``host:port:address[,address]``."""
    found: dict[tuple[str, int], list[str]] = {}
    for text in texts:
        host, rest = _split_host(text.lstrip("+-"))
        port, _, addresses = rest.partition(":")
        key = host.lower(), _read_port(port, text)
        if text.startswith("-"):
            found.pop(key, None)
            continue
        names = [name.strip("[]") for name in addresses.split(",") if name]
        if not host or not names:
            raise click.BadParameter(f"{text!r} is not of the form 'host:port:address'")
        found[key] = names
    return found


def parse_connect_to(
    _: object, __: object, texts: tuple[str, ...]
) -> list[tuple[str, int, str, int]]:
    """Parse the values of ``--connect-to``: ``host:port:other host:other port``."""
    found = []
    for text in texts:
        host, rest = _split_host(text)
        port, _, rest = rest.partition(":")
        other, other_port = _split_host(rest)
        if text.count(":") < 3:
            raise click.BadParameter(
                f"{text!r} is not of the form 'host:port:other host:other port'"
            )
        found.append(
            (
                host.lower(),
                _read_port(port, text) if port else 0,
                other,
                _read_port(other_port, text) if other_port else 0,
            )
        )
    return found
