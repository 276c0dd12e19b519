#!/usr/bin/env python3
"""A server that can be observed: records of requests, counters, frames.

    python examples/observed.py [--frames] [port]

Each request is a line of JSON on standard output.  What peers do wrong, and with
--frames every frame, goes to standard error.  GET /status has the counters.
"""

import asyncio
import json
import logging
import signal
import sys

from nghttp2py.access import RequestCounts
from nghttp2py.access_formats import JSONAccessFormatter
from nghttp2py.asyncio import Server, Stream


def configure_logging(frames: bool) -> None:
    """Send each kind of record where it belongs."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    access = logging.getLogger("nghttp2py.access")
    access.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONAccessFormatter())
    access.addHandler(handler)
    if frames:
        logging.getLogger("nghttp2py.frames").setLevel(logging.DEBUG)


async def main(port: int) -> None:
    """Serve until a signal."""
    with RequestCounts() as counts:

        async def app(stream: Stream) -> None:
            assert stream.request is not None  # a server's stream has one
            if stream.request.target != b"/status":
                await stream.send_response(200, body=b"Hello\n")
                return
            status = {
                "connections": server.counts.connections,
                "requests": counts.requests,
                "statuses": counts.statuses,
                "versions": counts.protocols,
                "bytes": counts.bytes_sent,
                "seconds": round(counts.seconds, 6),
            }
            headers = {"content-type": "application/json"}
            await stream.send_response(200, headers, json.dumps(status).encode())

        async with Server(app, ("127.0.0.1", port)) as server:
            number = server.sockets[0].getsockname()[1]
            print(f"http://127.0.0.1:{number}/", file=sys.stderr, flush=True)
            await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    given = [each for each in sys.argv[1:] if each != "--frames"]
    configure_logging("--frames" in sys.argv)
    asyncio.run(main(int(given[0]) if given else 8080))
