#!/usr/bin/env python3
"""Several uploads at once on one connection, each answered while it goes on.

    python examples/streams_client.py port

The server is examples/streams_server.py.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from nghttp2py.asyncio import H2Protocol, open_connection
from nghttp2py.errors import ConnectionTerminatedError, StreamResetError


async def countdown(start: int) -> AsyncIterator[bytes]:
    """A body that takes its time."""
    for number in range(start, 0, -1):
        await asyncio.sleep(0.01)
        yield b"%d " % number


async def ask(connection: H2Protocol, start: int) -> None:
    """Send a countdown and print what comes back."""
    async with await connection.open_stream(
        {":method": "POST", ":path": f"/{start}"}
    ) as stream:
        sending = asyncio.create_task(stream.send_body(countdown(start)))
        response = await stream.response()
        body = await stream.read()
        trailers = dict(await stream.trailers())
        await sending
        print(response.status, body.decode(), trailers[b"length"].decode())


async def main(port: int) -> None:
    async with await open_connection("127.0.0.1", port) as connection:
        await asyncio.gather(*(ask(connection, start) for start in (3, 5, 8)))
        print(f"round trip: {await connection.ping() * 1000:.1f} ms")


try:
    asyncio.run(main(int(sys.argv[1])))
except (ConnectionTerminatedError, StreamResetError, OSError) as error:
    sys.exit(f"{sys.argv[0]}: {error}")
