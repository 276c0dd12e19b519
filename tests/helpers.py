"""What tests of several topics share.

Frames are built and taken apart here, by our own few lines and PyPI's hpack, so
that a fault of the C library and one of a test's cannot cancel each other out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import hpack

from nghttp2py.h2 import BodyReceived, H2BodyReceived, H2Configuration, H2Connection

# Frame types (RFC 9113, 6; RFC 7838, 4; RFC 8336, 2; RFC 9218, 7).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
ALTSVC, ORIGIN, PRIORITY_UPDATE = 0xA, 0xC, 0x10

# Flags.  ACK and END_STREAM are one bit, for different frames.
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Chunk sizes for the receive path: byte by byte, unaligned, whole.
CHUNKS = [1, 7, None]

GET = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/"),
    (b":authority", b"example.org"),
)
POST = ((b":method", b"POST"), *GET[1:])
OK = ((b":status", b"200"),)


class Frame(NamedTuple):
    """A frame as it was found on the wire."""

    type: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        start = 4 if self.type == GOAWAY else 0
        return int.from_bytes(self.payload[start : start + 4], "big")

    @property
    def last_stream_id(self) -> int:
        """The last stream identifier of a GOAWAY."""
        return int.from_bytes(self.payload[:4], "big")


def frame(type: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Build a frame (RFC 9113, 4.1)."""
    head = struct.pack(">I", len(payload))[1:] + struct.pack(
        ">BBI", type, flags, stream_id
    )
    return head + payload


def parse(data: bytes) -> list[Frame]:
    """Take frames apart; a frame cut short is an error."""
    frames = []
    while data:
        assert len(data) >= 9, f"{data!r} is no frame"
        length = int.from_bytes(data[:3], "big")
        type, flags, stream_id = struct.unpack(">BBI", data[3:9])
        assert len(data) >= 9 + length, "a frame is cut short"
        frames.append(Frame(type, flags, stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """Build SETTINGS (RFC 9113, 6.5)."""
    entries = (values or {}).items()
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *e) for e in entries))


def settings_ack() -> bytes:
    """Build the answer to SETTINGS."""
    return frame(SETTINGS, ACK, 0)


def data(stream_id: int, payload: bytes = b"", *, end_stream: bool = False) -> bytes:
    """Build DATA (RFC 9113, 6.1)."""
    return frame(DATA, END_STREAM if end_stream else 0, stream_id, payload)


def rst_stream(stream_id: int, error_code: int = 8) -> bytes:
    """Build RST_STREAM (RFC 9113, 6.4)."""
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", error_code))


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """Build PING (RFC 9113, 6.7)."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int = 0, error_code: int = 0, debug: bytes = b"") -> bytes:
    """Build GOAWAY (RFC 9113, 6.8)."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, error_code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """Build WINDOW_UPDATE (RFC 9113, 6.9)."""
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def chunks(data: bytes, size: int | None) -> Iterable[bytes]:
    """Cut bytes in pieces of ``size``; ``None`` leaves them whole."""
    if size is None:
        return [data]
    return (data[i : i + size] for i in range(0, len(data), size))


class RawPeer:
    """The other end of one ``H2Connection``, made of raw frames.

    It has the preface and the first SETTINGS behind it when it is made, unless
    ``handshake`` is false.  ``events`` has everything since, ``frames`` all
    that the connection has said since.
    """

    def __init__(
        self,
        *,
        client_side: bool = False,
        config: H2Configuration | None = None,
        chunk: int | None = None,
        handshake: bool = True,
        peer_settings: Mapping[int, int] | None = None,
    ) -> None:
        self.connection = H2Connection(client_side=client_side, config=config)
        self.chunk = chunk
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.events: list[object] = []
        self.frames: list[Frame] = []
        if handshake:
            self.connection.initiate_connection()
            self.feed(
                (b"" if client_side else MAGIC)
                + settings(peer_settings)
                + settings_ack()
            )
            self.read()
            self.events.clear()
            self.frames.clear()

    def feed(self, data: bytes) -> list[object]:
        """Give the connection bytes; return the events of these alone."""
        events: list[object] = []
        for piece in chunks(data, self.chunk):
            events += self.connection.receive_data(piece)
        self.events += events
        return events

    def read(self) -> list[Frame]:
        """Take the frames that the connection has for us."""
        out = self.connection.data_to_send()
        if self.connection.client_side and out.startswith(MAGIC):
            out = out[len(MAGIC) :]
        frames = parse(out)
        self.frames += frames
        self.events += self.connection.pending_events()
        return frames

    def send(self, *frames: bytes) -> list[Frame]:
        """Give the connection frames; return what it answers."""
        self.feed(b"".join(frames))
        return self.read()

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Encode a header block."""
        return self.encoder.encode(list(fields), huffman=False)

    def headers(
        self,
        stream_id: int,
        fields: Iterable[tuple[bytes, bytes]] = GET,
        *,
        end_stream: bool = False,
    ) -> bytes:
        """Build HEADERS with a whole block (RFC 9113, 6.2)."""
        flags = END_HEADERS | (END_STREAM if end_stream else 0)
        return frame(HEADERS, flags, stream_id, self.block(fields))

    def push_promise(
        self,
        stream_id: int,
        promised_id: int,
        fields: Iterable[tuple[bytes, bytes]] = GET,
    ) -> bytes:
        """Build PUSH_PROMISE with a whole block (RFC 9113, 6.6)."""
        payload = struct.pack(">I", promised_id) + self.block(fields)
        return frame(PUSH_PROMISE, END_HEADERS, stream_id, payload)

    def fields(self, received: Frame) -> list[tuple[bytes, bytes]]:
        """Decode the block of a HEADERS frame without padding or priority."""
        pairs = self.decoder.decode(received.payload, raw=True)
        return [(bytes(name), bytes(value)) for name, value in pairs]

    def of(self, kind: type) -> list[object]:
        """Return the events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    def sent(self, type: int) -> list[Frame]:
        """Return the frames of one type that the connection has sent."""
        return [frame for frame in self.frames if frame.type == type]


def exchange(
    a: H2Connection,
    b: H2Connection,
    *,
    chunk: int | None = None,
    limit: int | None = None,
) -> tuple[list[object], list[object]]:
    """Carry bytes between two connections until both are silent.

    Returns the events of each.
    """
    events_a: list[object] = []
    events_b: list[object] = []
    while True:
        from_a, from_b = a.data_to_send(limit), b.data_to_send(limit)
        events_a += a.pending_events()
        events_b += b.pending_events()
        if not from_a and not from_b:
            return events_a, events_b
        for piece in chunks(from_a, chunk):
            events_b += b.receive_data(piece)
        for piece in chunks(from_b, chunk):
            events_a += a.receive_data(piece)


class Peers:
    """A client and a server, connected in memory and greeted."""

    def __init__(
        self,
        *,
        client: H2Configuration | None = None,
        server: H2Configuration | None = None,
        chunk: int | None = None,
    ) -> None:
        self.chunk = chunk
        self.client = H2Connection(client_side=True, config=client)
        self.server = H2Connection(config=server)
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.client_events: list[object] = []
        self.server_events: list[object] = []
        self.pump()
        self.clear()

    def pump(self) -> tuple[list[object], list[object]]:
        """Exchange until silent; return the new events of client and server."""
        new_client, new_server = exchange(self.client, self.server, chunk=self.chunk)
        self.client_events += new_client
        self.server_events += new_server
        return new_client, new_server

    def clear(self) -> None:
        """Forget the events so far."""
        self.client_events.clear()
        self.server_events.clear()

    def request(self, method: str = "GET", **kwargs: object) -> int:
        """Send a request and have it arrive; return its stream."""
        stream_id = self.client.send_request(
            method, "/", kwargs.pop("headers", ()), authority="example.org", **kwargs
        )
        self.pump()
        return stream_id


def body_of(events: Iterable[object], stream_id: int) -> bytes:
    """Join the body pieces of a stream, and check that ``more`` is told right."""
    pieces = [
        event.body
        for event in events
        if isinstance(event, H2BodyReceived) and event.stream_id == stream_id
    ]
    assert all(piece.more for piece in pieces[:-1]), "only the last has more=False"
    return b"".join(piece.data for piece in pieces)


def ends_of(events: Iterable[object], stream_id: int) -> int:
    """Count the pieces of a stream's body that say ``more=False``."""
    return sum(
        isinstance(event, H2BodyReceived)
        and event.stream_id == stream_id
        and not event.body.more
        for event in events
    )


def end_of_body(stream_id: int) -> H2BodyReceived:
    """The event that ends a body with nothing more."""
    return H2BodyReceived(stream_id, BodyReceived(b"", False))
