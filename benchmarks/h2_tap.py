"""A proxy of HTTP/2 that notes which requests were sent, and which were answered.

The benchmarks use it to divide the requests that a client has not got a response to:
those that were sent and should have been answered, those that the server's last GOAWAY
does not cover (RFC 9113, 6.8), and those that were never sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

__all__ = ["Tap"]

_PREFACE_SIZE = 24
_HEAD_SIZE = 9
_DATA, _HEADERS, _GOAWAY = 0, 1, 7
_END_STREAM = 1
_BLOCK = 65536


class _Frames:
    """Divides bytes into frames."""

    def __init__(self, skip: int = 0) -> None:
        self._skip = skip
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the type, flags, stream and payload of each frame that is complete."""
        self._bytes += data
        if self._skip:
            if len(self._bytes) < self._skip:
                return
            del self._bytes[: self._skip]
            self._skip = 0
        while len(self._bytes) >= _HEAD_SIZE:
            end = _HEAD_SIZE + int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < end:
                return
            head, payload = self._bytes[:_HEAD_SIZE], bytes(self._bytes[_HEAD_SIZE:end])
            yield (
                head[3],
                head[4],
                int.from_bytes(head[5:], "big") & 0x7FFFFFFF,
                payload,
            )
            del self._bytes[:end]


@dataclass
class _Connection:
    sent: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    #: The last stream that the server has answered or will answer.
    last: float = float("inf")


class Tap:
    """A proxy in the clear, to a server in the clear or, with a context, over TLS."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: list[_Connection] = []

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return sum(len(each.sent) for each in self._connections)

    @property
    def refused(self) -> int:
        """How many requests are above the last stream of a GOAWAY: not processed."""
        return sum(
            number > each.last
            for each in self._connections
            for number in each.sent - each.answered
        )

    @property
    def lost(self) -> int:
        """How many requests were sent, and neither answered nor refused."""
        return sum(
            number <= each.last
            for each in self._connections
            for number in each.sent - each.answered
        )

    async def start(self) -> int:
        """Start; return the port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, backlog=1024
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop, when the connections have ended."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        noted = _Connection()
        self._connections.append(noted)
        name = None if self._context is None else "localhost"
        try:
            further = await asyncio.open_connection(
                "127.0.0.1", self._to, ssl=self._context, server_hostname=name
            )
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._pass_requests(noted, reader, further[1]),
            self._pass_responses(noted, further[0], writer),
        )
        writer.close()
        further[1].close()

    async def _pass_requests(
        self,
        noted: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        frames = _Frames(skip=_PREFACE_SIZE)
        async for data in _pass(reader, writer):
            for kind, _, number, _ in frames.feed(data):
                if kind == _HEADERS:
                    noted.sent.add(number)

    async def _pass_responses(
        self,
        noted: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        frames = _Frames()
        async for data in _pass(reader, writer):
            for kind, flags, number, payload in frames.feed(data):
                if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    noted.answered.add(number)
                elif kind == _GOAWAY:
                    noted.last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[bytes]:
    """Yield what comes, and write it; then end the other side, too."""
    try:
        while data := await reader.read(_BLOCK):
            yield data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()  # asyncio's TLS cannot close one half
    except OSError:
        writer.transport.abort()
