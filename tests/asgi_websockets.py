"""A raw WebSocket client for each version of HTTP, for tests of ASGI applications."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket as sockets
import struct
from typing import NamedTuple

import asgi_servers
import pytest
from asgi_servers import HOST, Recorder
from loops import in_loop, until
from ws_frames import BINARY, CLOSE, TEXT, Reader, close, frame

from nghttp2py.errors import NGHTTP2Error

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)
VERSIONS = ("HTTP/1.1", "HTTP/2", "HTTP/3")

versions = pytest.mark.parametrize("version", VERSIONS)


def everywhere(test):
    """Run a test, a coroutine function of ``version``, over each version."""
    return versions(in_loop(test))


@contextlib.asynccontextmanager
async def serving(version, app, **options):
    """As ``asgi_servers.serving``; a WebSocket of HTTP/1.1 is its own connection."""
    beside = "HTTP/2" if version == "HTTP/1.1" else version
    async with asgi_servers.serving(beside, app, **options) as peer:
        peer.version = version
        peer.wires = []
        try:
            yield peer
        finally:
            for wire in peer.wires:
                wire.writer.close()


class Answer(NamedTuple):
    """The response to an opening handshake."""

    status: int
    headers: list

    def value(self, name):
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, values
        return values[0] if values else None


class H1Wire:
    """A connection of HTTP/1.1 with one request."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.length = None

    async def response(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        assert head[0].startswith(b"HTTP/1.1 "), head
        pairs = [line.split(b": ", 1) for line in head[1:-2]]
        headers = [(name.lower(), value) for name, value in pairs]
        answer = Answer(int(head[0].split()[1]), headers)
        if answer.status == 101:
            assert answer.value(b"upgrade") == b"websocket"
            assert answer.value(b"connection").lower() == b"upgrade"
        self.length = answer.value(b"content-length")
        return answer

    async def read(self, n=-1):
        if n != -1:
            return await self.reader.read(n)
        if self.length is not None:
            return await self.reader.readexactly(int(self.length))
        data = b""
        while size := int(await self.reader.readline(), 16):
            data += await self.reader.readexactly(size)
            assert await self.reader.readline() == b"\r\n"
        assert await self.reader.readline() == b"\r\n"
        return data

    async def send_data(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def end_stream(self):
        if not self.writer.is_closing():
            self.writer.write_eof()

    def reset(self):
        sock = self.writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)  # RST, not FIN
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, linger)
        self.writer.transport.abort()


class Socket:
    """A WebSocket of a client, which sends bytes and reads frames.

    ``wire`` is the stream: a ``Stream`` of ours, or an ``H1Wire``.
    """

    def __init__(self, wire):
        self.wire = wire
        self.reader = Reader()
        self.frames = []
        self.answer = None

    async def answered(self):
        """Wait for the response; return its status."""
        response = await self.wire.response()
        headers = [pair[:2] for pair in response.headers if pair[0][:1] != b":"]
        self.answer = Answer(response.status, headers)
        return response.status

    async def send(self, *frames):
        await self.wire.send_data(b"".join(frames))

    async def receive(self):
        """Return the next frame; None at the end of the stream."""
        while not self.frames:
            data = await self.wire.read(65536)
            if not data:
                assert not self.reader.buffer
                return None
            self.frames += self.reader.feed(data)
        return self.frames.pop(0)

    async def text(self):
        received = await self.receive()
        assert received.opcode == TEXT, received
        return received.data.decode()

    async def data(self):
        received = await self.receive()
        assert received.opcode == BINARY, received
        return received.data

    async def closed(self):
        """Wait for a close frame and the end; return the code and the reason."""
        received = await self.receive()
        assert received.opcode == CLOSE, received
        self.code, self.reason = received.code, received.reason
        return self.code, self.reason

    async def ended(self):
        """Wait for the end of the stream, and end our half."""
        assert await self.receive() is None
        await self.end()

    async def end(self):
        with contextlib.suppress(NGHTTP2Error, OSError):
            await self.wire.end_stream()

    async def leave(self, code=1000, reason=""):
        """Close as a client does."""
        await self.send(close(code, reason))
        await self.closed()
        await self.ended()

    async def body(self):
        """Read the body of a response that denies the WebSocket."""
        return await self.wire.read()

    def reset(self):
        self.wire.reset()


async def connect(peer, path=b"/", headers=(), *, key=None, early=b""):
    """Send an opening handshake, and ``early`` after it."""
    headers = list(headers)
    if not any(name == b"sec-websocket-version" for name, _ in headers):
        headers.append((b"sec-websocket-version", b"13"))
    if peer.version == "HTTP/1.1":
        return await upgrade(peer, path, headers, key or KEY, early)
    if peer.version == "HTTP/3":
        await peer.client.wait_settings()
    else:
        await until(lambda: peer.client.stream_limit is not None)
    if key:
        headers.append((b"sec-websocket-key", key))
    headers.insert(0, (b":protocol", b"websocket"))
    wire = await peer.open(path, b"CONNECT", headers, end=False)
    socket = Socket(wire)
    if early:
        await socket.send(early)
    return socket


async def upgrade(peer, path, headers, key, early):
    """Send the opening handshake of HTTP/1.1, and ``early`` in the same write."""
    lines = [
        b"GET %s HTTP/1.1" % path,
        b"Host: %s" % peer.authority,
        b"Upgrade: websocket",
        b"Connection: keep-alive, Upgrade",
        b"Sec-WebSocket-Key: %s" % key,
        *(b"%s: %s" % pair for pair in headers),
    ]
    wire = H1Wire(*await asyncio.open_connection(HOST, peer.port))
    peer.wires.append(wire)
    wire.writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + early)
    return Socket(wire)


async def accepted(peer, *args, **kwargs):
    """Open a WebSocket, and wait until it is accepted."""
    socket = await connect(peer, *args, **kwargs)
    assert await socket.answered() == (101 if peer.version == "HTTP/1.1" else 200)
    return socket


# ---- Applications ----

ACCEPTS = {"type": "websocket.accept"}


def text(data):
    return {"type": "websocket.send", "text": data}


def closes(code=1000, reason=""):
    return {"type": "websocket.close", "code": code, "reason": reason}


class App(Recorder):
    """Accepts, and then does what ``talk(app, receive, send)`` does.

    ``seen`` are the messages that ``receive`` has returned through ``take``, ``errors``
    the exceptions of ``talk``.
    """

    def __init__(self, talk=None, accept=ACCEPTS):
        super().__init__(self.run)
        self.talk = talk or echo
        self.accept = accept
        self.seen = []

    async def wait(self):
        """Wait for the end of a call of the application."""
        await until(self.done.is_set)
        self.done.clear()

    async def run(self, scope, receive, send):
        async def take():
            self.seen.append(await receive())
            return self.seen[-1]

        if self.accept is not None:
            assert await receive() == {"type": "websocket.connect"}
            await send(self.accept)
        await self.talk(self, take, send)


async def echo(app, receive, send):
    """Send back each message until the client leaves."""
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def drain(app, receive, send):
    """Read until the client leaves."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


def disconnect(code, reason=""):
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


__all__ = [
    "ACCEPT",
    "ACCEPTS",
    "HOST",
    "KEY",
    "App",
    "Socket",
    "accepted",
    "asyncio",
    "closes",
    "connect",
    "disconnect",
    "drain",
    "echo",
    "everywhere",
    "frame",
    "serving",
    "text",
    "versions",
]
