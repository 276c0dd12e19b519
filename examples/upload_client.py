#!/usr/bin/env python3
"""Upload a file, and show how far it is.

python examples/upload_client.py http://127.0.0.1:8080/upload FILE
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from nghttp2py.asyncio import Client
from nghttp2py.errors import NGHTTP2Error


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """Read a file as fast as the server takes it."""
    size, sent = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(65536):
            yield piece
            sent += len(piece)
            print(f"\r{sent * 100 // size:3} %", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


async def main(url: str, name: str) -> None:
    """Send the file; print the answer."""
    parts, path = urlsplit(url), Path(name)
    async with Client(f"{parts.scheme}://{parts.netloc}") as client:
        response = await client.put(
            parts.path,
            pieces(path),
            headers={"content-length": str(path.stat().st_size)},
            expect_continue=True,  # a server that refuses it gets none of it
        )
        print(response.status, (await response.text()).strip())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: upload_client.py URL FILE")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, NGHTTP2Error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
