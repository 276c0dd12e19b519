"""Frames in a readable form, for the log and for the command line.

``FrameDecoder`` describes the frames of HTTP/2 in the bytes of a connection;
``describe_http3`` those of HTTP/3, by the events of a qlog trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from nghttp2py import errors
from nghttp2py.errors import HPACKError, error_code_name
from nghttp2py.h2 import Setting
from nghttp2py.hpack import HDInflater

__all__ = ["Described", "FrameDecoder", "describe_http3", "printable"]

_MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4

_TYPES = {
    0x0: "DATA",
    0x1: "HEADERS",
    0x2: "PRIORITY",
    0x3: "RST_STREAM",
    0x4: "SETTINGS",
    0x5: "PUSH_PROMISE",
    0x6: "PING",
    0x7: "GOAWAY",
    0x8: "WINDOW_UPDATE",
    0x9: "CONTINUATION",
    0xA: "ALTSVC",
    0xC: "ORIGIN",
    0x10: "PRIORITY_UPDATE",
}
_FLAGS = {
    0x0: {0x1: "END_STREAM", 0x8: "PADDED"},
    0x1: {0x1: "END_STREAM", 0x4: "END_HEADERS", 0x8: "PADDED", 0x20: "PRIORITY"},
    0x4: {0x1: "ACK"},
    0x5: {0x4: "END_HEADERS", 0x8: "PADDED"},
    0x6: {0x1: "ACK"},
    0x9: {0x4: "END_HEADERS"},
}
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
# The most characters that are shown of the peer's text.
_MAX_TEXT = 1000


class Frame(NamedTuple):
    """A frame.  The payload of DATA is left out; ``length`` is its size."""

    type: int
    flags: int
    stream_id: int
    length: int
    payload: bytes


class Described(NamedTuple):
    """A frame in words: its name, its stream and size, its contents, its flags."""

    name: str
    about: str
    details: list[tuple[str, str]]
    flags: list[str]


class FrameReader:
    """Splits one direction's bytes into frames."""

    def __init__(self, *, magic: bool) -> None:
        self._magic = len(_MAGIC) if magic else 0  # bytes of it to come
        self._buffer = bytearray()
        self._skip = 0  # bytes of a DATA payload to come

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Handle bytes; iterate over the frames that they complete."""
        dropped = min(self._magic, len(data))
        self._magic -= dropped
        buffer = self._buffer
        buffer += memoryview(data)[dropped:]
        while True:
            dropped = min(self._skip, len(buffer))
            del buffer[:dropped]
            self._skip -= dropped
            if self._skip or len(buffer) < 9:
                return
            length = int.from_bytes(buffer[:3], "big")
            kind = buffer[3]
            if kind != 0x0 and len(buffer) < 9 + length:
                return
            frame = Frame(
                kind,
                buffer[4],
                int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF,
                length,
                b"" if kind == 0x0 else bytes(buffer[9 : 9 + length]),
            )
            if kind == 0x0:
                self._skip = length
                del buffer[:9]
            else:
                del buffer[: 9 + length]
            yield frame


class FrameDecoder:
    """Describes the frames of one connection of HTTP/2, in the order of their bytes.

    ``client_side`` is the role of the end whose bytes are ``"send"``; those of its peer
    are ``"recv"``.
    """

    def __init__(self, *, client_side: bool) -> None:
        self._readers = {
            "send": FrameReader(magic=client_side),
            "recv": FrameReader(magic=not client_side),
        }
        self._inflaters = {"send": HDInflater(), "recv": HDInflater()}
        self._blocks = {"send": b"", "recv": b""}

    def feed(self, way: str, data: bytes) -> Iterator[Described]:
        """Handle bytes that went ``way``; iterate over the frames they complete."""
        for frame in self._readers[way].feed(data):
            about = f" stream {frame.stream_id}" if frame.stream_id else ""
            flags = [
                name
                for flag, name in _FLAGS.get(frame.type, {}).items()
                if frame.flags & flag
            ]
            yield Described(
                _TYPES.get(frame.type, hex(frame.type)),
                f"{about}, {frame.length} bytes",
                list(self._describe(way, frame)),
                flags,
            )

    def _describe(self, way: str, frame: Frame) -> Iterator[tuple[str, str]]:
        payload = frame.payload
        if frame.type in (0x1, 0x5, 0x9):
            yield from self._describe_block(way, frame)
        elif frame.type == 0x3:
            yield "error", error_code_name(int.from_bytes(payload[:4], "big"))
        elif frame.type == 0x4:
            for i in range(0, len(payload) - 5, 6):
                key = int.from_bytes(payload[i : i + 2], "big")
                value = int.from_bytes(payload[i + 2 : i + 6], "big")
                if key == Setting.HEADER_TABLE_SIZE and value > 4096:
                    # The peer's header blocks may use a larger table now.
                    other = "recv" if way == "send" else "send"
                    with contextlib.suppress(HPACKError):  # lost in an earlier block
                        self._inflaters[other].change_table_size(value)
                yield _setting_name(key), str(value)
        elif frame.type == 0x6:
            yield "opaque data", payload.hex()
        elif frame.type == 0x7:
            yield "last stream", str(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)
            yield "error", error_code_name(int.from_bytes(payload[4:8], "big"))
            if payload[8:]:
                yield "debug data", printable(payload[8:])
        elif frame.type == 0x8:
            increment = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            yield "increment", str(increment)
        elif frame.type == 0x10:
            yield "stream", str(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)
            yield "priority", printable(payload[4:])

    def _describe_block(self, way: str, frame: Frame) -> Iterator[tuple[str, str]]:
        payload = frame.payload
        if frame.type != 0x9:
            if frame.flags & _PADDED and payload:
                payload = payload[1 : len(payload) - payload[0]]
            if frame.type == 0x1 and frame.flags & _PRIORITY:
                payload = payload[5:]
            if frame.type == 0x5:
                promised = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
                yield "promised stream", str(promised)
                payload = payload[4:]
            self._blocks[way] = b""
        self._blocks[way] += payload
        if not frame.flags & _END_HEADERS:
            return
        block, self._blocks[way] = self._blocks[way], b""
        try:
            fields = self._inflaters[way].inflate(block)
        except HPACKError as error:
            yield "header block", f"{len(block)} bytes, not decoded: {error}"
            return
        for name, value in fields:
            yield printable(name), printable(value)


def _setting_name(key: int) -> str:
    try:
        return Setting(key).name
    except ValueError:
        return hex(key)


def describe_http3(event: str, data: dict[str, Any]) -> tuple[str, Described] | None:
    """Return the way and the description of a frame of HTTP/3.

    ``event`` and ``data`` are those of an event of the category "http" of a
    ``QuicLoggerTrace``; ``None`` is returned if it is about no frame.
    """
    frame = data.get("frame")
    if frame is None:
        return None
    fields = [
        (printable(field["name"].encode()), printable(field["value"].encode()))
        for field in frame.get("headers", ())
    ]
    return "send" if event == "frame_created" else "recv", Described(
        frame["frame_type"].upper(),
        f" stream {data['stream_id']}, {data['length']} bytes",
        fields,
        [],
    )


def printable(data: bytes) -> str:
    """Return the peer's bytes as text without terminal control sequences."""
    return errors.printable(data[:_MAX_TEXT]) + ("..." if len(data) > _MAX_TEXT else "")
