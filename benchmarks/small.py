"""Small pieces of work in memory, by which instructions can be counted.

They need no package but nghttp2py, no socket and no clock: bytes of a peer are made
beforehand.  ``ROWS`` has of each the function that prepares it for a number of
operations and returns what does them, and this number.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import h3
import headers
import quic

from nghttp2py import BaseRequestHandler, HDDeflater, HDInflater, HTTP2Server
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Client, Server, open_unix_connection
from nghttp2py.h2 import H2BodyReceived, H2Connection
from nghttp2py.h3 import H3Connection, QPACKDecoder, QPACKEncoder

REQUEST = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"example.org"),
    (b"user-agent", b"benchmark/1.0"),
    (b"accept", b"*/*"),
]
UPLOAD = [(b":method", b"POST"), *REQUEST[1:]]
TYPE = [(b"content-type", b"text/plain")]
OK = [(b":status", b"200"), *TYPE]
BODY = b"hello world"
CHUNK = 16384
UPLOAD_SIZE = 32768
CONCURRENCY = 32

Work = Callable[[], None]


# ---- The peer's bytes, over HTTP/2 ----


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    head = struct.pack(">I", len(payload))[1:]
    return head + struct.pack(">BBI", kind, flags, stream_id) + payload


def preface(client_side: bool) -> bytes:
    """What a peer begins with: windows that no exchange here can fill."""
    magic = b"" if client_side else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    window = struct.pack(">HI", 4, 2**31 - 1)
    update = frame(8, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
    return magic + frame(4, 0, 0, window) + update + frame(4, 1, 0)


def exchanges(client_side: bool, count: int, upload: bool) -> list[bytes]:
    """What the peer sends in each of ``count`` exchanges."""
    deflate = HDDeflater().deflate
    made = []
    for i in range(count):
        stream_id = 2 * i + 1
        if client_side:
            wire = frame(1, 4, stream_id, deflate(OK))
            wire += frame(0, 1, stream_id, BODY)
        elif upload:
            wire = frame(1, 4, stream_id, deflate(UPLOAD))
            wire += frame(0, 0, stream_id, bytes(CHUNK))
            wire += frame(0, 1, stream_id, bytes(UPLOAD_SIZE - CHUNK))
        else:
            wire = frame(1, 5, stream_id, deflate(REQUEST))
        made.append(wire)
    return made


def reads(client_side: bool, count: int, per_read: int, upload: bool) -> list[bytes]:
    """The preface, then ``count`` exchanges, ``per_read`` of them in each read."""
    made = exchanges(client_side, count, upload)
    joined = [b"".join(made[i : i + per_read]) for i in range(0, count, per_read)]
    return [preface(client_side), *joined]


# ---- HTTP/2 without I/O ----


def serve(wire: list[bytes], body: bytes = BODY) -> None:
    connection = H2Connection()
    connection.initiate_connection()
    for data in wire:
        for event in connection.receive_data(data):
            if type(event) is H2BodyReceived and not event.body.more:
                stream_id = event.stream_id
                connection.send_response_headers(stream_id, 200, TYPE)
                connection.send_body(stream_id, body)
        connection.data_to_send()


def exchange(count: int, per_read: int) -> Work:
    return partial(serve, reads(False, count, per_read, False))


LISTS = [*headers.REQUESTS, *headers.RESPONSES]
FIELDS = sum(map(len, LISTS))


def encode_hpack(count: int) -> Work:
    def work() -> None:
        deflate = HDDeflater().deflate
        for _ in range(count // FIELDS):
            for fields in LISTS:
                deflate(fields)

    return work


def decode_hpack(count: int) -> Work:
    deflate = HDDeflater().deflate
    blocks = [deflate(fields) for _ in range(count // FIELDS) for fields in LISTS]

    def work() -> None:
        inflate = HDInflater().inflate
        for block in blocks:
            inflate(block)

    return work


# ---- Servers and clients on a transport that goes nowhere ----


class Transport(asyncio.Transport):
    """Drops what is written, and calls ``answer`` with it."""

    def __init__(self, protocol: Any, answer: Callable[[bytes], None]) -> None:
        super().__init__({"peername": ("192.0.2.1", 40000)})
        self.protocol = protocol
        self.write = answer
        protocol.connection_made(self)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def feed(self, data: bytes) -> None:
        """Have bytes come in, as an event loop does."""
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            buffer = self.protocol.get_buffer(-1)
            buffer[: len(data)] = data
            self.protocol.buffer_updated(len(data))
        else:
            self.protocol.data_received(data)

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    close = abort


class Loop(asyncio.SelectorEventLoop):
    """A loop whose Unix sockets lead to a server that knows its answers."""

    async def sock_connect(self, sock: Any, address: Any) -> None:
        pass

    async def create_unix_connection(
        self, protocol_factory: Any, *args: Any, sock: Any, **options: Any
    ) -> Any:
        sock.close()
        self.waiting = b""
        self.asked = 0
        self.transport = Transport(protocol_factory(), self.heard)
        self.transport.feed(preface(True))
        return self.transport, self.transport.protocol

    def heard(self, data: bytes) -> None:
        """Answer the requests in what a client has written."""
        begun = self.asked
        data = self.waiting + data
        if data.startswith(b"PRI"):
            data = data[24:]
        while len(data) >= 9:
            length = 9 + int.from_bytes(data[:3], "big")
            if length > len(data):
                break
            self.asked += data[3] == 1
            data = data[length:]
        self.waiting = data
        if self.asked > begun:
            answers = b"".join(self.answers[begun : self.asked])
            self.call_soon(self.transport.feed, answers)


def run_server(make: Callable[[], Server], count: int, per_read: int) -> Work:
    wire = reads(False, count, per_read, False)

    async def main() -> None:
        sent = bytearray()
        # What its listener calls for each connection.
        transport = Transport(make()._new_protocol(), sent.extend)
        loop = asyncio.get_running_loop()
        for data in wire:
            loop.call_soon(transport.feed, data)  # no task is current in a read
            await asyncio.sleep(0)
        for _ in range(4):  # until the last are answered
            await asyncio.sleep(0)
        transport.protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert sent.count(BODY) == count, sent.count(BODY)

    return partial(run, main)


def run(main: Callable[[], Awaitable[None]]) -> None:
    loop = Loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


class Hello(BaseRequestHandler):
    def on_headers(self) -> None:
        self.send_response(200, [("content-type", "text/plain")], BODY)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": TYPE})
    await send({"type": "http.response.body", "body": BODY})


def handlers(count: int, per_read: int) -> Work:
    address = ("127.0.0.1", 0)
    return run_server(lambda: HTTP2Server(address, Hello), count, per_read)


def asgi(count: int, per_read: int) -> Work:
    address = ("127.0.0.1", 0)
    return run_server(lambda: Server(ASGIApp(hello), address), count, per_read)


async def share(count: int, ask: Callable[[], Awaitable[None]]) -> None:
    """Have ``count`` requests made, 32 at a time."""

    async def work() -> None:
        for _ in range(count // CONCURRENCY):
            await ask()

    loop: Any = asyncio.get_running_loop()
    loop.answers = exchanges(True, count, False)
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def get(count: int) -> Work:
    async def main() -> None:
        client = Client("http://localhost", path="/any")

        async def ask() -> None:
            response = await client.get("/hello")
            assert await response.read() == BODY

        await share(count, ask)

    return partial(run, main)


def streams(count: int) -> Work:
    fields = [(b":method", b"GET"), (b":path", b"/hello")]

    async def main() -> None:
        client = await open_unix_connection("/any")

        async def ask() -> None:
            stream = await client.open_stream(fields, end_stream=True)
            await stream.response()
            assert await stream.read() == BODY

        await share(count, ask)

    return partial(run, main)


# ---- HTTP/3 and QUIC ----


def frame_h3(count: int) -> Work:
    return partial(h3.time_framing, H3Connection, h3.record(H3Connection, count))


def code_qpack(count: int) -> tuple[Work, Work]:
    """What encodes so many lists, and what decodes them."""
    encoder, reader = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)
    lists = [LISTS[i % len(LISTS)] for i in range(count)]
    made, acknowledged = [], []
    for i, fields in enumerate(lists):
        section = encoder.encode(4 * i, fields)
        made.append((encoder.data_to_send(), section))
        reader.receive_data(made[-1][0])
        reader.decode(4 * i, section)
        acknowledged.append(reader.data_to_send())
        encoder.receive_data(acknowledged[-1])

    def encode() -> None:
        encoder = QPACKEncoder()
        encoder.apply_settings(4096, 16)
        for i, fields in enumerate(lists):
            encoder.encode(4 * i, fields)
            encoder.data_to_send()
            encoder.receive_data(acknowledged[i])

    def decode() -> None:
        decoder = QPACKDecoder()
        for i, (stream, section) in enumerate(made):
            decoder.receive_data(stream)
            decoder.decode(4 * i, section)
            decoder.data_to_send()

    return encode, decode


def exchange_quic(files: Any, count: int) -> Work:
    pair = quic.Pair("nghttp2py", files)
    pair.handshake()
    pair.exchange()  # what happens once

    def work() -> None:
        for _ in range(count):
            pair.exchange()

    return work


class Row(NamedTuple):
    """``make(count)`` returns what does ``count`` operations."""

    make: Callable[[int], Work]
    count: int


#: Without those of QUIC, which need a certificate.
ROWS = {
    "exchange, 1 a read": Row(partial(exchange, per_read=1), 2000),
    "exchange, 50 a read": Row(partial(exchange, per_read=50), 2000),
    "HPACK, encode a field": Row(encode_hpack, 10 * FIELDS),
    "HPACK, decode a field": Row(decode_hpack, 10 * FIELDS),
    "HTTP2Server, 1 a read": Row(partial(handlers, per_read=1), 2000),
    "HTTP2Server, 32 a read": Row(partial(handlers, per_read=32), 3200),
    "ASGI, 1 a read": Row(partial(asgi, per_read=1), 2000),
    "ASGI, 32 a read": Row(partial(asgi, per_read=32), 3200),
    "Client.get": Row(get, 3200),
    "client stream": Row(streams, 3200),
    "HTTP/3 framing": Row(frame_h3, 1000),
    "QPACK, encode a list": Row(lambda count: code_qpack(count)[0], 2000),
    "QPACK, decode a list": Row(lambda count: code_qpack(count)[1], 2000),
}
