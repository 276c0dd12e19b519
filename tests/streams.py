"""What tests of the streams API share: connections in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import hpack
from helpers import ACK, END_HEADERS, END_STREAM, HEADERS, MAGIC, frame, parse, settings
from loops import idle, until
from memory import MemoryTransport

from nghttp2py.asyncio import H2Protocol


class Pipe(asyncio.Transport):
    """One end of a connection in memory: what is written, the other end receives."""

    def __init__(self, protocol: Any, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.1", 443), **extra})
        self.protocol = protocol
        self.other: Pipe | None = None
        self.waiting: list[bytes] = []
        self.held = False
        self.high = 65536
        self.paused = False
        self.closing = False
        self.lost = False
        self.eof = False  # is to be delivered after what waits
        self.sent = 0
        self.largest = 0  # bytes that waited at once

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_write_buffer_size(self):
        return sum(map(len, self.waiting))

    def write(self, data):
        assert data, "nothing written"
        if self.closing or self.lost:
            return
        self.waiting.append(data)
        self.sent += len(data)
        self.largest = max(self.largest, self.get_write_buffer_size())
        if self.held:
            if self.get_write_buffer_size() > self.high and not self.paused:
                self.paused = True
                self.protocol.pause_writing()
        else:
            asyncio.get_running_loop().call_soon(self.deliver)

    def hold(self):
        """Deliver nothing, as a peer does that reads no bytes."""
        self.held = True

    def release(self):
        """Deliver what was held, and all that comes."""
        self.held = False
        self.deliver()

    def deliver(self):
        if self.held:
            return
        data = b"".join(self.waiting)
        self.waiting.clear()
        if data and not self.other.lost:
            self.other.protocol.data_received(data)
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()
        if self.eof and not self.other.lost:
            self.eof = False
            if not self.other.protocol.eof_received():
                self.other.close()

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.eof = True
        asyncio.get_running_loop().call_soon(self.deliver)

    def is_closing(self):
        return self.closing

    def close(self):
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.end, None)

    def abort(self):
        self.waiting.clear()
        self.held = False
        self.closing = True
        asyncio.get_running_loop().call_soon(self.end, None)

    def end(self, error):
        if self.lost:
            return
        if self.waiting and self.held:
            return  # it closes when the peer has taken all
        self.deliver()
        self.lost = self.closing = True
        self.protocol.connection_lost(error)
        if not self.other.lost:
            self.other.waiting.clear()
            self.other.end(None)


def connect(client: H2Protocol, server: Any, **extra: Any) -> tuple[Pipe, Pipe]:
    """Connect two protocols in memory."""
    here, there = Pipe(client, **extra), Pipe(server, **extra)
    here.other, there.other = there, here
    client.connection_made(here)
    server.connection_made(there)
    return here, there


async def silence(protocol: H2Protocol) -> None:
    """Wait until nothing has come for so long that ``wait_functional`` asks."""
    now = asyncio.get_running_loop().time
    await until(lambda: now() - protocol._last_active > protocol.functional_timeout)


class Pair:
    """A client and a server in memory; ``async with`` closes both."""

    def __init__(self, handler=None, client=None, server=None):
        self.client = H2Protocol(True, **{"close_timeout": 1, **(client or {})})
        self.server = H2Protocol(False, **{"close_timeout": 1, **(server or {})})
        if handler is not None:
            self.server.set_handler(handler(self.server))

    async def __aenter__(self):
        self.pipe, self.server_pipe = connect(self.client, self.server)
        return self

    async def __aexit__(self, *_):
        for pipe in (self.pipe, self.server_pipe):
            if not pipe.lost:
                pipe.abort()
        await self.client.wait_closed()
        await self.server.wait_closed()


class Raw:
    """A protocol whose peer is the test, which speaks in raw frames."""

    def __init__(self, *, client_side=True, peer_settings=None, **options):
        self.protocol = H2Protocol(client_side, **options)
        self.transport = MemoryTransport(self.protocol)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.protocol.connection_made(self.transport)
        self.feed(
            (b"" if client_side else MAGIC) + settings(peer_settings) + frame(4, ACK, 0)
        )
        self.take()
        self.kept: list[Any] = []

    def feed(self, *frames: bytes) -> None:
        """Let frames come in, after what the protocol has to say."""
        self.protocol.flush()
        self.protocol.data_received(b"".join(frames))

    def take(self):
        """Return the frames that went out since."""
        data = self.transport.take()
        if data.startswith(MAGIC):
            data = data[len(MAGIC) :]
        return parse(data)

    async def frames(self, type: int):
        """Wait for frames of a type, and return all of it; others are kept."""

        def come():
            self.kept += self.take()
            return any(f.type == type for f in self.kept)

        await until(come)
        await idle()  # what goes out with them may take a turn more
        self.kept += self.take()
        found = [f for f in self.kept if f.type == type]
        self.kept = [f for f in self.kept if f.type != type]
        return found

    def headers(self, stream_id, fields, *, end_stream=False):
        """Build HEADERS."""
        flags = END_HEADERS | (END_STREAM if end_stream else 0)
        return frame(HEADERS, flags, stream_id, self.encoder.encode(list(fields)))

    async def close(self):
        self.transport.close()
        await self.protocol.wait_closed()
