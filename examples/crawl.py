#!/usr/bin/env python3
"""Get a thousand paths of one site over one connection, some at a time.

    python examples/crawl.py https://example.org < paths

Standard input has a path on each line.  A line is printed for each answer as it comes.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable

from nghttp2py.asyncio import Client
from nghttp2py.errors import NGHTTP2Error

# Requests at a time.  The server has a limit of its own, for which the client waits.
WORKERS = 100
# The longest body that is read.
LIMIT = 1 << 20


async def crawl(client: Client, paths: Iterable[str]) -> AsyncIterator[str]:
    """Get each path once; give a line for each."""
    waiting = iter(paths)
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def work() -> None:
        for path in waiting:
            try:
                response = await client.get(path)
                body = await response.read(LIMIT)
                await lines.put(f"{response.status} {path}: {len(body)} bytes")
            except NGHTTP2Error as error:
                # One stream that fails does not end the others.
                await lines.put(f"failed {path}: {error}")

    async def work_all() -> None:
        try:
            await asyncio.gather(*(work() for _ in range(WORKERS)))
        finally:
            await lines.put(None)

    working = asyncio.create_task(work_all())
    try:
        while (line := await lines.get()) is not None:
            yield line
        await working  # raises if the server cannot be reached
    finally:
        working.cancel()


async def main(origin: str) -> None:
    """Crawl the paths of standard input."""
    paths = (line.strip() for line in sys.stdin if line.strip())
    async with Client(origin) as client:
        async for line in crawl(client, paths):
            print(line)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: crawl.py origin < paths")
    try:
        asyncio.run(main(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
