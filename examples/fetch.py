#!/usr/bin/env python3
"""Get several paths of one site at once, over one connection.

python examples/fetch.py https://nghttp2.org / /documentation/
"""

import asyncio
import sys

from nghttp2py.asyncio import Client
from nghttp2py.errors import NGHTTP2Error


async def fetch(client: Client, path: str) -> str:
    """Get a path; return what there is to say of it."""
    response = await client.get(path)
    size = 0
    async for chunk in response:
        size += len(chunk)
    kind = response.headers.get("content-type", "of no stated type")
    return f"{response.status} {path}: {size} bytes, {kind}"


async def main(origin: str, *paths: str) -> None:
    async with Client(origin, headers={"user-agent": "fetch.py"}) as client:
        for line in await asyncio.gather(*(fetch(client, path) for path in paths)):
            print(line)


if __name__ == "__main__":
    try:
        asyncio.run(main(*(sys.argv[1:] or ["https://nghttp2.org", "/"])))
    except (OSError, NGHTTP2Error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
