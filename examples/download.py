#!/usr/bin/env python3
"""Download a file in four parts at once, each a stream of one connection.

python examples/download.py http://127.0.0.1:8080/FILE [PATH]
"""

import asyncio
import os
import sys
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from nghttp2py.asyncio import Client
from nghttp2py.errors import NGHTTP2Error

PARTS = 4


class Download:
    """A file that is being downloaded to an open file."""

    def __init__(self, client: Client, target: str, fd: int) -> None:
        self.client = client
        self.target = target
        self.fd = fd

    async def run(self) -> int:
        """Download the file; return its size."""
        async with await self.client.head(self.target) as head:
            head.raise_for_status()
            size = int(head.headers["content-length"])
            etag = head.headers["etag"]
        step = max(1, -(-size // PARTS))
        await asyncio.gather(
            *(
                self.part(etag, start, min(start + step, size))
                for start in range(0, size, step)
            )
        )
        return size

    async def part(self, etag: str, start: int, end: int) -> None:
        """Write the bytes from ``start`` to before ``end``."""
        # If the file has changed meanwhile, If-Range gets 200 instead of 206.
        headers = {"range": f"bytes={start}-{end - 1}", "if-range": etag}
        async with await self.client.get(self.target, headers=headers) as response:
            if response.status != 206:
                raise OSError(f"status {response.status} instead of a part")
            async for piece in response:
                os.pwrite(self.fd, piece, start)
                start += len(piece)
        print(f"{response.headers['content-range']}", file=sys.stderr)


async def main(url: str, path: str = "") -> None:
    """Download a URL to a path, by default the last part of the URL."""
    parts = urlsplit(url)
    path = path or PurePosixPath(unquote(parts.path)).name
    async with Client(f"{parts.scheme}://{parts.netloc}") as client:
        with open(path, "wb") as file:
            size = await Download(client, parts.path, file.fileno()).run()
    print(f"{path}: {size} bytes")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: download.py URL [PATH]")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, NGHTTP2Error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
