"""WebSocket frames, made and read by other code than the package's (RFC 6455, 5.2)."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASK = b"\x37\xfa\x21\x3d"


def masked(data, mask=MASK):
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
    return number.to_bytes(len(data), "big")


def frame(opcode, data=b"", *, fin=True, rsv=0, mask=MASK, bits=None):
    """One frame; ``bits`` is the form of the length (7, 16, 64), or the shortest."""
    if isinstance(data, str):
        data = data.encode()
    head = bytes([opcode | rsv | (FIN if fin else 0)])
    flag = 0 if mask is None else 0x80
    size = len(data)
    if bits is None:
        bits = 7 if size < 126 else 16 if size < 65536 else 64
    if bits == 7:
        head += bytes([flag | size])
    elif bits == 16:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    return head + (data if mask is None else mask + masked(data, mask))


def close(code=None, reason="", **options):
    payload = b"" if code is None else struct.pack("!H", code) + as_bytes(reason)
    return frame(CLOSE, payload, **options)


def as_bytes(data):
    return data.encode() if isinstance(data, str) else data


def fragments(opcode, pieces, **options):
    """A message in several frames."""
    last = len(pieces) - 1
    return b"".join(
        frame(CONT if i else opcode, piece, fin=i == last, **options)
        for i, piece in enumerate(pieces)
    )


def deflated(data, bits=15, final=False):
    """A whole message by permessage-deflate (RFC 7692, 7.2.1), with a new window."""
    deflater = zlib.compressobj(wbits=-bits)
    data = deflater.compress(as_bytes(data))
    if final:  # a block with BFINAL, then an octet of the next one
        return data + deflater.flush(zlib.Z_FINISH) + b"\0"
    return (data + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Received(NamedTuple):
    """A frame that an endpoint has sent."""

    opcode: int
    data: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self):
        """The code of a close frame; None if it has none."""
        return struct.unpack("!H", self.data[:2])[0] if self.data else None

    @property
    def reason(self):
        return self.data[2:].decode()


class Reader:
    """Reads the frames of one endpoint, which masks them if it is a client."""

    def __init__(self, *, masks=False):
        self.buffer = b""
        self.masks = masks

    def feed(self, data):
        """Return the frames that are whole now."""
        self.buffer += data
        frames = []
        while (found := self._next()) is not None:
            frames.append(found)
        return frames

    def _next(self):
        data = self.buffer
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        assert bool(data[1] & 0x80) == self.masks
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
            assert size > 125 or len(data) < 4, "not the shortest form"
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
            assert size > 65535 or len(data) < 10, "not the shortest form"
        mask = b""
        if self.masks:
            mask, at = data[at : at + 4], at + 4
        if len(data) < at + size:
            return None
        payload, self.buffer = data[at : at + size], data[at + size :]
        if self.masks:
            payload = masked(payload, mask)
        return Received(
            data[0] & 15, payload, bool(data[0] & FIN), data[0] & (RSV1 | RSV2 | RSV3)
        )
