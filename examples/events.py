#!/usr/bin/env python3
"""Server-sent events that end when their client goes, and when the server stops.

python examples/events.py [port]
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

from nghttp2py.asyncio import Server, Stream


async def events(stream: Stream, number: int) -> AsyncIterator[bytes]:
    """Make an event each tenth of a second, until the server stops."""
    closing = asyncio.ensure_future(stream.connection.wait_closing())
    try:
        while not closing.done():
            number += 1
            # The generator waits here while the client does not read, and is closed
            # when the client is gone.
            yield f"id: {number}\ndata: {json.dumps({'number': number})}\n\n".encode()
            await asyncio.wait([closing], timeout=0.1)
        yield b"event: end\ndata: the server stops\n\n"
    finally:
        closing.cancel()


async def app(stream: Stream) -> None:
    """Answer one request."""
    if stream.path != b"/events":
        await stream.send_response(404)
        return
    # A browser that connects again says which event it has seen last.
    seen = stream.fields.get("last-event-id", "0")
    headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
    number = int(seen) if seen.isdecimal() and len(seen) < 20 else 0
    await stream.send_response(200, headers, events(stream, number))


async def main(port: str = "8080") -> None:
    """Serve until a signal."""
    async with Server(app, ("127.0.0.1", int(port))) as server:
        _, number = server.sockets[0].getsockname()
        print(f"http://127.0.0.1:{number}/events", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
