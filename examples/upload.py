#!/usr/bin/env python3
"""Uploads that are stored while they arrive, and refused as soon as they are too large.

python examples/upload.py [port]
"""

import asyncio
import signal
import sys
import tempfile
from typing import IO

from nghttp2py.asyncio import Server, Stream

LIMIT = 10 << 20  # bytes of an upload


async def receive(stream: Stream, file: IO[bytes]) -> int | None:
    """Write a body to a file; return its size, or ``None`` if it is too large."""
    expected = int(stream.fields.get("content-length", "0"))
    if expected > LIMIT:
        return None  # before any of it was read
    size = shown = 0
    async for piece in stream:  # the client sends as fast as this reads
        size += len(piece)
        if size > LIMIT:
            return None
        file.write(piece)
        if expected and size * 10 // expected > shown:
            shown = size * 10 // expected
            print(f"{shown * 10} % of {expected} bytes", flush=True)
    return size


async def app(stream: Stream) -> None:
    """Answer one request."""
    if stream.path != b"/upload":
        await stream.send_response(404)
        return
    if stream.method not in (b"POST", b"PUT"):
        await stream.send_response(405, {"allow": "POST, PUT"})
        return
    with tempfile.TemporaryFile() as file:
        size = await receive(stream, file)
    status, text = 201, f"{size} bytes\n"
    if size is None:
        # The rest is not read: the client is asked to stop.
        status, text = 413, f"more than {LIMIT} bytes\n"
    # Some clients need the length to see the end of a response to half a request.
    headers = {"content-type": "text/plain", "content-length": str(len(text))}
    await stream.send_response(status, headers, text.encode())


async def main(port: str = "8080") -> None:
    """Serve until a signal."""
    async with Server(app, ("127.0.0.1", int(port))) as server:
        _, number = server.sockets[0].getsockname()
        print(f"http://127.0.0.1:{number}/upload", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
