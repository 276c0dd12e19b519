#!/usr/bin/env python3
"""A server with one coroutine for each stream: it echoes what it is sent.

    python examples/streams_server.py [port]

It works in memory as small as a window, whatever the size of the upload.
"""

import asyncio
import contextlib
import signal
import sys

from nghttp2py.asyncio import H2Stream, start_server


async def echo(stream: H2Stream) -> None:
    """Send back what comes, and how much it was."""
    assert stream.request is not None  # as every stream of a server has
    if stream.request.method != b"POST":
        await stream.send_response(405, {"allow": "POST"}, b"POST something\n")
        return
    await stream.start_response({":status": "200", "trailer": "length"})
    length = 0
    async for piece in stream:
        length += len(piece)
        await stream.send_data(piece)
    await stream.send_trailers({"length": str(length)})


async def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    server = await start_server(
        lambda connection: connection.serve_streams(echo),
        "127.0.0.1",
        port,
        concurrency=100,
        idle_timeout=60,
    )
    port = server.sockets[0].getsockname()[1]
    print(f"curl --http2-prior-knowledge -d hello http://127.0.0.1:{port}/", flush=True)
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with contextlib.suppress(asyncio.CancelledError):
        await stop.wait()
    # No new connections; those that are open finish their streams.
    server.close(timeout=5)
    await server.wait_closed()


asyncio.run(main())
