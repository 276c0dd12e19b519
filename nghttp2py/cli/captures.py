"""Header blocks out of what one has of a connection, for ``nghttp2py hpack``.

They come as hexadecimal digits in several forms, as the bytes of one direction of a
connection of HTTP/2, or in a capture, which tshark reads.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Block",
    "CaptureError",
    "blocks_of_capture",
    "blocks_of_stream",
    "from_hex",
    "is_capture",
    "is_stream",
    "looks_like_hex",
]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frames and flags (RFC 9113, 6).
_DATA, _HEADERS, _SETTINGS, _PUSH_PROMISE, _CONTINUATION = 0, 1, 4, 5, 9
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_KINDS = {_HEADERS: "HEADERS", _PUSH_PROMISE: "PUSH_PROMISE"}
_FRAME_HEADER = 9

# The first bytes of pcap, in both orders and with both units of time, and of pcapng.
_CAPTURES = tuple(
    bytes.fromhex(magic)
    for magic in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "0a0d0d0a")
)
# What is asked of tshark for each packet.
_FIELDS = (
    *("tcp.stream", "frame.protocols", "ip.src", "ipv6.src", "tcp.srcport"),
    *("ip.dst", "ipv6.dst", "tcp.dstport", "http2.magic"),
)
# Seconds that tshark may take.
_LONGEST = 120.0


class CaptureError(Exception):
    """The bytes are not what they are taken for."""


class _Connection(NamedTuple):
    layer: str
    direction: str


class Block(NamedTuple):
    """A header block, and where it was found."""

    data: bytes
    stream_id: int
    kind: str
    #: Where its frame begins in its direction of the connection.
    offset: int
    #: "192.0.2.1:5000 > 192.0.2.2:443" in a capture.
    direction: str = ""


def looks_like_hex(text: str) -> bool:
    """Return whether a text has nothing but what ``from_hex`` reads."""
    return re.fullmatch(r"[0-9a-fA-F][0-9a-fA-FxX\s:,\-]*", text) is not None


def from_hex(text: str) -> bytes:
    """Read hexadecimal digits, as ``8284``, ``82 84``, ``82:84`` or ``0x82, 0x84``.

    Raises ``CaptureError``, which names the column of what is no digit.
    """
    # Spaces keep the columns.
    digits = re.sub(r"0[xX]", "  ", text)
    found = re.search(r"[^0-9a-fA-F\s:,\-]", digits)
    if found is not None:
        raise CaptureError(
            f"not hexadecimal digits: {found[0]!a} at column {found.start() + 1}"
        )
    digits = re.sub(r"[\s:,\-]", "", digits)
    if len(digits) % 2:
        raise CaptureError(
            f"not hexadecimal digits of whole octets: there are {len(digits)}"
        )
    return bytes.fromhex(digits)


# ---- The bytes of a connection ----


def is_stream(data: bytes) -> bool:
    """Return whether these are the first bytes that an end of HTTP/2 sends.

    It begins with the preface or, a server, with SETTINGS (RFC 9113, 3.4).
    """
    if data.startswith(_PREFACE):
        return True
    head = data[:_FRAME_HEADER]
    return (
        len(head) == _FRAME_HEADER
        and head[3:] == bytes([_SETTINGS, 0, 0, 0, 0, 0])
        and int.from_bytes(head[:3], "big") % 6 == 0
    )


def blocks_of_stream(data: bytes, direction: str = "") -> Iterator[Block]:
    """Iterate over the header blocks in what one end of a connection has sent.

    Raises ``CaptureError`` for a frame that is cut or malformed, at its place.
    """
    at = len(_PREFACE) if data.startswith(_PREFACE) else 0
    begun: Block | None = None
    while at < len(data):
        head = data[at : at + _FRAME_HEADER]
        length = int.from_bytes(head[:3], "big")
        end = at + _FRAME_HEADER + length
        if len(head) < _FRAME_HEADER or end > len(data):
            raise CaptureError(f"the bytes end within the frame at octet {at}")
        kind, flags = head[3], head[4]
        stream_id = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        payload = data[at + _FRAME_HEADER : end]
        if begun is not None:
            if kind != _CONTINUATION or stream_id != begun.stream_id:
                raise CaptureError(
                    f"the frame at octet {at} is no CONTINUATION of the block that "
                    f"begins at octet {begun.offset} (RFC 9113, 6.10)"
                )
            begun = begun._replace(data=begun.data + payload)
        elif kind in _KINDS:
            fragment = _fragment(kind, flags, payload, at)
            begun = Block(fragment, stream_id, _KINDS[kind], at, direction)
        elif kind == _CONTINUATION:
            raise CaptureError(
                f"the CONTINUATION at octet {at} continues nothing (RFC 9113, 6.10)"
            )
        if begun is not None and flags & _END_HEADERS:
            yield begun
            begun = None
        at = end
    if begun is not None:
        raise CaptureError(f"the block that begins at octet {begun.offset} has no end")


def _fragment(kind: int, flags: int, payload: bytes, at: int) -> bytes:
    """Return the fragment of a header block in a frame, without padding."""
    skipped = padding = 0
    if flags & _PADDED:
        skipped, padding = 1, payload[0] if payload else 0
    if kind == _PUSH_PROMISE:
        skipped += 4
    elif flags & _PRIORITY:
        skipped += 5
    if skipped + padding > len(payload):
        raise CaptureError(f"the frame at octet {at} is too short for its flags")
    return payload[skipped : len(payload) - padding]


# ---- Captures ----


def is_capture(data: bytes) -> bool:
    """Return whether a file begins as pcap or pcapng do."""
    return data.startswith(_CAPTURES)


def blocks_of_capture(path: Path, keylog: Path | None) -> Iterator[Iterator[Block]]:
    """Iterate over the directions of each connection of HTTP/2 in a capture.

    ``keylog`` is a file of TLS secrets (``$SSLKEYLOGFILE``).  Raises ``CaptureError``,
    too if tshark is not installed.
    """
    fields = [word for name in _FIELDS for word in ("-e", name)]
    shown = _tshark(path, keylog, "-Y", "http2", "-T", "fields", *fields)
    found: dict[str, _Connection] = {}
    for line in shown.splitlines():
        number, protocols, *ends, magic = line.split("\t")
        layer = "tls" if "tls" in protocols.split(":") else "tcp"
        source, target = _address(*ends[:3]), _address(*ends[3:])
        # The preface is the client's; without one the first packet is taken for it.
        if number not in found or magic:
            found[number] = _Connection(layer, f"{source} > {target}")
    if not found:
        raise CaptureError(
            "there is no HTTP/2 in this capture"
            + ("" if keylog else "; for TLS, --keylog has the secrets")
        )
    for number, connection in found.items():
        wanted = f"follow,{connection.layer},raw,{number}"
        followed = _tshark(path, keylog, "-q", "-z", wanted)
        yield from _directions(followed, connection.direction)


def _address(ipv4: str, ipv6: str, port: str) -> str:
    return f"{ipv4 or f'[{ipv6}]'}:{port}"


def _directions(followed: str, direction: str) -> Iterator[Iterator[Block]]:
    sent = [bytearray(), bytearray()]
    for tab, digits in re.findall(r"^(\t?)([0-9a-fA-F]+)$", followed, re.M):
        sent[bool(tab)] += bytes.fromhex(digits)
    # Which end is shown first differs.
    if sent[1].startswith(_PREFACE):
        sent.reverse()
    client, _, server = direction.partition(" > ")
    for data, shown in zip(sent, (direction, f"{server} > {client}"), strict=True):
        yield blocks_of_stream(bytes(data), shown)


def _tshark(path: Path, keylog: Path | None, *options: str) -> str:
    secrets = [] if keylog is None else ["-o", f"tls.keylog_file:{keylog.absolute()}"]
    try:
        done = subprocess.run(
            ["tshark", "-n", "-r", str(path.absolute()), *secrets, *options],
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_LONGEST,
        )
    except FileNotFoundError:
        raise CaptureError(
            "tshark is needed to read a capture, and is not installed"
        ) from None
    except subprocess.TimeoutExpired:
        raise CaptureError(f"tshark takes longer than {_LONGEST:.0f} s") from None
    if done.returncode:
        # As root it says first that it should not be run so.
        lines = done.stderr.strip().splitlines() or ["it fails"]
        raise CaptureError(f"tshark: {lines[-1]}")
    return done.stdout
