#!/usr/bin/env python3
"""Show the header fields of a captured HTTP/2 connection, of both directions.

    tshark -r capture.pcap -q -z follow,tcp,raw,0 | python examples/decode_capture.py

tshark prints what the client has sent in hexadecimal, and what the server has sent
likewise after a tab.  Any other text with lines of this form will do.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator

from nghttp2py import HDInflater
from nghttp2py.errors import HPACKError

MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Types of frames (RFC 9113, 6), and flags.
HEADERS, SETTINGS, PUSH_PROMISE, CONTINUATION = 0x1, 0x4, 0x5, 0x9
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE = 0x1


class Direction:
    """What one end has sent: its frames, and the state of its coder."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.inflater = HDInflater()
        self.block = b""
        self.stream_id = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Split bytes into frames: type, flags and stream, and payload."""
        self.data += data
        if self.data.startswith(MAGIC):
            del self.data[: len(MAGIC)]
        while len(self.data) >= 9:
            end = 9 + int.from_bytes(self.data[:3], "big")
            if len(self.data) < end:
                return
            kind, flags = self.data[3], self.data[4]
            stream_id = int.from_bytes(self.data[5:9], "big") & 0x7FFFFFFF
            payload = bytes(self.data[9:end])
            del self.data[:end]
            if kind in (HEADERS, PUSH_PROMISE, CONTINUATION):
                payload = fragment(kind, flags, payload)
                if kind != CONTINUATION:
                    self.block, self.stream_id = b"", stream_id
                self.block += payload
            yield kind, flags, payload


def fragment(kind: int, flags: int, payload: bytes) -> bytes:
    """Return the part of a header block that a frame has (RFC 9113, 6.2)."""
    if kind == CONTINUATION:
        return payload
    if flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    if kind == PUSH_PROMISE:
        return payload[4:]
    return payload[5:] if flags & PRIORITY else payload


def decode(lines: Iterable[str]) -> Iterator[str]:
    """Yield a line for each header block, and one for each of its fields."""
    ends = {"client": Direction(), "server": Direction()}
    for line in lines:
        name, other = "client", "server"
        if line.startswith("\t"):
            name, other = other, name
        try:
            data = bytes.fromhex(line.strip())
        except ValueError:
            continue  # a heading of tshark's
        end = ends[name]
        for kind, flags, payload in end.feed(data):
            if kind == SETTINGS:
                for i in range(0, len(payload), 6):
                    if int.from_bytes(payload[i : i + 2], "big") == HEADER_TABLE_SIZE:
                        size = int.from_bytes(payload[i + 2 : i + 6], "big")
                        # It bounds the table of the other end's coder.
                        with contextlib.suppress(HPACKError):  # lost before
                            ends[other].inflater.change_table_size(max(size, 4096))
            elif kind in (HEADERS, PUSH_PROMISE, CONTINUATION) and flags & END_HEADERS:
                yield f"{name}, stream {end.stream_id}"
                try:
                    for field, value in end.inflater.inflate(end.block):
                        yield f"  {field!r}: {value!r}"
                except HPACKError as error:
                    # After this no block of the direction can be decoded.
                    yield f"  not decoded: {error}"


if __name__ == "__main__":
    for text in decode(sys.stdin):
        print(text)
