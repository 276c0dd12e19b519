#!/usr/bin/env python3
"""Downloads of the files of a directory: whole, in parts, or only if they have changed.

python examples/download_server.py DIRECTORY [port]
"""

import asyncio
import functools
import signal
import sys

from nghttp2py.asyncio import Server
from nghttp2py.static_files import StaticFiles, answer_stream


async def main(directory: str, port: str = "8080") -> None:
    """Serve until a signal."""
    files = StaticFiles(directory, listing=True)
    app = functools.partial(answer_stream, files)
    async with Server(app, ("127.0.0.1", int(port))) as server:
        _, number = server.sockets[0].getsockname()
        print(f"http://127.0.0.1:{number}/", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: download_server.py DIRECTORY [port]")
    asyncio.run(main(*sys.argv[1:]))
