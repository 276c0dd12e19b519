"""A raw WebSocket client for each version of HTTP, for tests of ASGI applications."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from typing import NamedTuple

import pytest
from asgi_servers import HOST, Recorder, serving
from loops import in_loop, until
from ws_frames import BINARY, CLOSE, TEXT, Reader, close, frame

from nghttp2py.errors import NGHTTP2Error

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)
VERSIONS = ("HTTP/2", "HTTP/3")

versions = pytest.mark.parametrize("version", VERSIONS)


def everywhere(test):
    """Run a test, a coroutine function of ``version``, over each version."""
    return versions(in_loop(test))


class Answer(NamedTuple):
    """The response to an opening handshake."""

    status: int
    headers: list

    def value(self, name):
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, values
        return values[0] if values else None


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
