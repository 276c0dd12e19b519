#!/usr/bin/env python3
"""Server-sent events, an upload with a limit: streams of unknown length both ways.

    python examples/events.py [port]

A stream of events ends when its client goes, and when the server stops.
"""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from nghttp2py.asyncio import Server, Stream

# The largest upload.
LIMIT = 1 << 20


async def events(stream: Stream) -> AsyncIterator[bytes]:
    """Make an event each tenth of a second, until the server stops."""
    closing = asyncio.ensure_future(stream.connection.wait_closing())
    number = 0
    try:
        while not closing.done():
            number += 1
            # The generator waits here while the client does not read, and is closed
            # when the client is gone.
            yield f"data: {json.dumps({'number': number})}\n\n".encode()
            await asyncio.wait([closing], timeout=0.1)
        yield b"event: end\ndata: the server stops\n\n"
    finally:
        closing.cancel()


async def subscribe(stream: Stream) -> None:
    """Answer with events."""
    headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
    await stream.send_response(200, headers, events(stream))


async def upload(stream: Stream) -> None:
    """Store an upload while it comes; refuse it as soon as it is too large."""
    with tempfile.TemporaryFile() as file:
        size = await receive(stream, file)
    if size is None:
        text = f"more than {LIMIT} bytes\n"
        await stream.send_response(413, {"content-type": "text/plain"}, text.encode())
    else:
        await stream.send_response(201, body=f"{size} bytes\n".encode())


async def receive(stream: Stream, file: IO[bytes]) -> int | None:
    """Write a body to a file; return its size, or ``None`` if it is too large."""
    if int(stream.fields.get("content-length", "0")) > LIMIT:
        return None
    size = 0
    async for piece in stream:
        size += len(piece)
        if size > LIMIT:
            return None
        file.write(piece)
    return size


async def app(stream: Stream) -> None:
    """Answer one request."""
    assert stream.request is not None  # which a client's stream has not
    route = {b"/events": subscribe, b"/upload": upload}.get(stream.request.target)
    if route is None:
        await stream.send_response(404)
    else:
        await route(stream)


async def main(port: str = "8080") -> None:
    """Serve until a signal."""
    async with Server(app, ("127.0.0.1", int(port))) as server:
        _, number = server.sockets[0].getsockname()
        print(f"http://127.0.0.1:{number}/", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
