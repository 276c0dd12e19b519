"""A client of HTTP/1.1, on h11, with the methods of our own clients' streams.

Each request has a connection of its own.  HTTP/1.1 has no error codes: a response that
breaks off is a ``StreamResetError`` with INTERNAL_ERROR.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import struct
from collections import deque
from types import SimpleNamespace

import h11
from loops import pause

from nghttp2py.errors import ErrorCode, StreamResetError

# What the kernel buffers for each end, so that back-pressure is felt early.
BUFFER = 65536


def shrink_buffers(sock):
    """Have the kernel buffer little; those accepted from a socket do as it does."""
    for option in socket.SO_RCVBUF, socket.SO_SNDBUF:
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)


class H1Client:
    """Opens streams to a server, each on a connection."""

    def __init__(self, address):
        self.address = address
        self.streams = []

    async def open_stream(self, fields, *, end_stream=False):
        sock = socket.socket()
        shrink_buffers(sock)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=BUFFER)
        writer.transport.set_write_buffer_limits(0)
        stream = H1Stream(reader, writer)
        self.streams.append(stream)
        stream.request(dict(fields[:4]), fields, end_stream)
        return stream

    async def ping(self):
        """Let what was sent before arrive."""
        for _ in range(3):
            await pause()

    def abort(self):
        for stream in self.streams:
            stream.reset()

    async def close(self):
        for stream in self.streams:
            stream.writer.close()
            with contextlib.suppress(ConnectionError):
                await stream.writer.wait_closed()


class H1Stream:
    """A request and its response."""

    stream_id = 1

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT)
        self.broken = False
        self.whole = False
        self.tunnel = False
        self._heads = deque()
        self._response = None
        self._data = b""
        self._trailers = ()
        self._lock = asyncio.Lock()

    # ---- The request ----

    def request(self, pseudo, fields, end_stream):
        method = pseudo[b":method"]
        self.tunnel = method == b"CONNECT"
        target = pseudo[b":authority" if self.tunnel else b":path"]
        headers = [(b"host", pseudo[b":authority"])]
        headers += [pair for pair in fields if pair[0][:1] != b":"]
        if not self.tunnel:
            headers.append((b"te", b"trailers"))
            headers.append((b"connection", b"te"))
        if not (end_stream or self.tunnel):
            headers.append((b"transfer-encoding", b"chunked"))
        self._write(
            self.http.send(h11.Request(method=method, target=target, headers=headers))
        )
        if end_stream or self.tunnel:
            self._write(self.http.send(h11.EndOfMessage()))

    def _failure(self):
        return StreamResetError(1, ErrorCode.INTERNAL_ERROR, remote=not self.broken)

    def _write(self, data):
        if self.broken or self.writer.transport.is_closing():
            raise self._failure()
        self.writer.write(data)

    async def send_data(self, data, *, end_stream=False):
        data = bytes(data)
        for start in range(0, len(data), BUFFER):
            piece = data[start : start + BUFFER]
            self._write(piece if self.tunnel else self.http.send(h11.Data(data=piece)))
            try:
                await self.writer.drain()
            except ConnectionError:
                raise self._failure() from None
        if end_stream:
            await self.end_stream()

    async def end_stream(self):
        if self.tunnel:
            self.writer.write_eof()
        else:
            self._write(self.http.send(h11.EndOfMessage()))

    async def send_trailers(self, fields):
        self._write(self.http.send(h11.EndOfMessage(headers=fields)))

    async def send_body(self, body, *, trailers=None):
        if hasattr(body, "read"):
            while True:
                piece = body.read(50_000)
                piece = await piece if inspect.isawaitable(piece) else piece
                if not piece:
                    break
                await self.send_data(piece)
        elif hasattr(body, "__aiter__"):
            async for piece in body:
                await self.send_data(piece)
        elif isinstance(body, bytes | bytearray | memoryview):
            await self.send_data(body)
        else:
            for piece in body:
                await self.send_data(piece)
        if trailers is None:
            await self.end_stream()
        else:
            await self.send_trailers(trailers)

    def reset(self):
        """Drop the connection, as a client that is gone."""
        self.broken = True
        sock = self.writer.get_extra_info("socket")
        if sock is not None and not self.writer.transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()

    # ---- The response ----

    async def _more(self):
        """Receive something; raise if the response breaks off."""
        async with self._lock:
            if self.broken:
                raise self._failure()
            try:
                event = self.http.next_event()
                while event is h11.NEED_DATA:
                    self.http.receive_data(await self.reader.read(BUFFER))
                    event = self.http.next_event()
            except (h11.RemoteProtocolError, ConnectionError):
                raise self._failure() from None
            if isinstance(event, h11.InformationalResponse):
                self._heads.append(make_head(event))
            elif isinstance(event, h11.Response):
                self._response = make_head(event)
            elif isinstance(event, h11.Data):
                self._data += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._trailers = [tuple(pair) for pair in event.headers]
                self.whole = True
            elif event is h11.PAUSED:  # a tunnel
                data, _ = self.http.trailing_data
                piece = data[len(self._early) :] if hasattr(self, "_early") else data
                self._early = data
                if not piece:
                    try:
                        piece = await self.reader.read(BUFFER)
                    except ConnectionError:
                        raise self._failure() from None
                self._data += piece
                self.whole = not piece
            elif isinstance(event, h11.ConnectionClosed):
                raise self._failure()

    async def response(self):
        while self._response is None:
            await self._more()
        return self._response

    async def next_informational(self):
        while not self._heads and self._response is None:
            await self._more()
        return self._heads.popleft() if self._heads else None

    async def informational(self):
        while (head := await self.next_informational()) is not None:
            yield head

    async def read(self, n=-1):
        while not self.whole and (n < 0 or not self._data):
            await self._more()
        n = len(self._data) if n < 0 else n
        data, self._data = self._data[:n], self._data[n:]
        return data

    async def readexactly(self, n):
        while len(self._data) < n:
            await self._more()
        return await self.read(n)

    async def trailers(self):
        while not self.whole:
            await self._more()
        return tuple(self._trailers)


def make_head(event):
    """The status and the fields, without those of the connection."""
    ours = {b"transfer-encoding", b"connection"}
    kept = [tuple(pair) for pair in event.headers if pair[0] not in ours]
    kept = [pair for pair in kept if pair != (b"content-length", b"0")]
    return SimpleNamespace(status=event.status_code, headers=kept)
