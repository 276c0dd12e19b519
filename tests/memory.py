"""Clients of asyncio protocols without sockets: what tests of the pump share."""

from __future__ import annotations

import asyncio
from typing import Any

from nghttp2py.h2 import (
    BodyReceived,
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2InformationalResponseReceived,
    H2PushedStreamReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
)


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; pauses its protocol when it is over ``high``."""

    def __init__(self, protocol: Any, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.1", 40000), **extra})
        self.protocol = protocol
        self.sent = bytearray()
        self.writes: list[int] = []
        self.high = 1 << 62
        self.paused = False
        self.closing = False  # or half closed
        self.closed = False
        self.aborted = False

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_write_buffer_size(self):
        return len(self.sent)

    def write(self, data):
        assert not self.closing, "written after close"
        assert data, "nothing written"
        self.sent += data
        self.writes.append(len(data))
        if len(self.sent) > self.high and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self):
        """Take what was written, as a peer's kernel would."""
        data = bytes(self.sent)
        self.sent.clear()
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()
        return data

    def can_write_eof(self):
        return True

    def write_eof(self):
        """Close our half: the peer closes its own when it has read all."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.peer_closes)

    def peer_closes(self):
        if not self.closed and not self.protocol.eof_received():
            self.close()

    def is_closing(self):
        return self.closed

    def close(self):
        if not self.closed:
            self.closing = self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self):
        self.aborted = True
        self.close()


class Response:
    """What has come of a response."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: tuple = ()
        self.data = bytearray()
        self.trailers: tuple | None = None
        self.informational: list[tuple[int, tuple]] = []
        self.done = False
        self.reset: int | None = None
        self.closed: int | None = None

    @property
    def body(self) -> bytes:
        return bytes(self.data)


class MemoryClient:
    """A client of a server's protocol: bytes go straight from one to the other.

    ``events`` has all that came; ``response(stream_id)`` what came of one.
    """

    def __init__(
        self, protocol: Any, *, config: H2Configuration | None = None, **extra: Any
    ) -> None:
        self.connection = H2Connection(client_side=True, config=config)
        self.connection.initiate_connection()
        self.protocol = protocol
        self.transport = MemoryTransport(protocol, **extra)
        self.events: list[Any] = []
        self.responses: dict[int, Response] = {}
        self.pushed: dict[int, Any] = {}
        protocol.connection_made(self.transport)

    def request(self, target="/", method="GET", headers=(), body=None, **options):
        """Queue a request, with its body if there is one; return its stream."""
        stream_id = self.connection.send_request(
            method,
            target,
            headers,
            **{"authority": b"test", "end_stream": body is None, **options},
        )
        if body is not None:
            self.connection.send_body(stream_id, body)
        return stream_id

    def response(self, stream_id: int) -> Response:
        return self.responses.setdefault(stream_id, Response())

    def converse(self) -> None:
        """Carry bytes both ways once, in this turn: no timer can be first."""
        self.protocol.data_received(self.connection.data_to_send())
        for event in self.connection.receive_data(self.transport.take()):
            self.take_event(event)
        self.protocol.data_received(self.connection.data_to_send())

    async def exchange(self) -> None:
        """Carry bytes both ways until both sides are silent."""
        silent = 0
        while silent < 3:
            data = self.connection.data_to_send()
            if data and not self.transport.closing:
                self.protocol.data_received(data)
            # What others have queued is written in the next turn.
            await asyncio.sleep(0)
            answer = self.transport.take()
            events = self.connection.receive_data(answer)
            for event in events + self.connection.pending_events():
                self.take_event(event)
            silent = 0 if data or answer else silent + 1

    async def fetch(self, *args: Any, **options: Any) -> Response:
        """Make a request and carry bytes until its stream is closed."""
        return await self.finish(self.request(*args, **options))

    async def finish(self, stream_id: int) -> Response:
        """Carry bytes until a stream is closed: what takes forever, the deadline ends.

        A server resets a stream some milliseconds after an early response.
        """
        response = self.response(stream_id)
        while response.closed is None:
            await self.exchange()
        return response

    def take_event(self, event: Any) -> None:
        self.events.append(event)
        if isinstance(event, H2PushedStreamReceived):
            self.pushed[event.stream_id] = event.request
        if not getattr(event, "stream_id", 0):
            return
        response = self.response(event.stream_id)
        if isinstance(event, H2ResponseReceived):
            response.status, response.headers = event.status, event.headers
        elif isinstance(event, H2BodyReceived):
            piece: BodyReceived = event.body
            response.data += piece.data
            response.done = not piece.more
        elif isinstance(event, H2TrailersReceived):
            response.trailers = event.headers
        elif isinstance(event, H2InformationalResponseReceived):
            response.informational.append((event.status, event.headers))
        elif isinstance(event, H2StreamReset):
            response.reset = event.error_code
        elif isinstance(event, H2StreamClosed):
            response.closed = event.error_code
