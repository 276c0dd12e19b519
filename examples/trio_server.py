#!/usr/bin/env python3
"""An HTTP/2 server on trio: a connection without I/O, and trio's sockets and tasks.

    python examples/trio_server.py [port]
    curl --http2-prior-knowledge -d text http://127.0.0.1:8080/

Each request is answered by a task of its own.
"""

import math
import signal
import sys
from contextlib import suppress
from functools import partial

import trio

from nghttp2py.errors import StreamClosedError
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Connection,
    H2Event,
    H2RequestReceived,
    H2StreamClosed,
    RequestReceived,
)

# Seconds within which a client must send something.
IDLE = 60


class Client:
    """A client's connection."""

    def __init__(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        self.stream = stream
        self.nursery = nursery
        self.http = H2Connection()
        self.wake = trio.Event()  # there may be something to send
        # The bodies of the requests that are being answered.
        self.bodies: dict[int, trio.MemorySendChannel[bytes]] = {}

    async def read(self) -> None:
        """Pass what arrives to the connection, and its events to the tasks."""
        data = b""
        with trio.move_on_after(IDLE) as patience, suppress(trio.BrokenResourceError):
            while self.http.want_read:
                data = await self.stream.receive_some()
                if not data:
                    break
                patience.deadline = trio.current_time() + IDLE
                for event in self.http.receive_data(data):
                    self.handle(event)
                self.wake.set()
        # What is being answered is of no use any more.
        self.nursery.cancel_scope.cancel()

    async def write(self) -> None:
        """Send what the connection has to send."""
        self.http.initiate_connection()
        with suppress(trio.BrokenResourceError):
            while True:
                while data := self.http.data_to_send(65536):
                    await self.stream.send_all(data)
                    for event in self.http.pending_events():
                        self.handle(event)
                await self.wake.wait()
                self.wake = trio.Event()

    def handle(self, event: H2Event) -> None:
        """Begin, feed or end the task of a request."""
        if isinstance(event, H2RequestReceived):
            # What waits is within the stream's window.
            send, receive = trio.open_memory_channel[bytes](math.inf)
            self.bodies[event.stream_id] = send
            self.nursery.start_soon(
                self.answer, event.stream_id, event.request, receive
            )
        elif isinstance(event, H2BodyReceived) and event.stream_id in self.bodies:
            body = self.bodies[event.stream_id]
            body.send_nowait(event.body.data)
            if not event.body.more:
                body.close()
        elif isinstance(event, H2StreamClosed) and event.stream_id in self.bodies:
            self.bodies.pop(event.stream_id).close()

    async def answer(
        self,
        stream_id: int,
        request: RequestReceived,
        body: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        """Answer one request, when its body has come."""
        size = 0
        async for piece in body:
            size += len(piece)
        await trio.sleep(0.01)  # a database, another server
        text = b"%s %s: %d bytes\n" % (request.method, request.target, size)
        try:
            self.http.send_response_headers(stream_id, 200, [])
            self.http.send_body(stream_id, text if request.method != b"HEAD" else b"")
        except StreamClosedError:
            return  # the client is gone
        self.wake.set()


async def serve_client(stream: trio.SocketStream) -> None:
    """Serve a connection until it ends."""
    async with trio.open_nursery() as nursery:
        client = Client(stream, nursery)
        nursery.start_soon(client.write)
        nursery.start_soon(client.read)


async def main(port: int) -> None:
    """Serve until a signal."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, serve_client, port, host="127.0.0.1")
            listeners = await nursery.start(serve)
            number = listeners[0].socket.getsockname()[1]
            print(f"http://127.0.0.1:{number}/", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
