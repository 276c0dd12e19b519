"""httpx on our transports beside httpx[http2]: small GETs from nghttpd, 32 at a time.

What counts is the client's CPU time for each request, measured in turns.  "httpx
alone" is httpx on a transport that answers by itself: what no transport can save.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import figures
import httpx
import streams

from nghttp2py.httpx import AsyncTransport, Transport

GOAL = 4.0


class NullTransport(httpx.AsyncBaseTransport):
    """Answers every request at once."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            headers=[(b"content-type", b"text/plain"), (b"content-length", b"11")],
            stream=httpx.ByteStream(streams.BODY),
        )


def make_transport(name: str) -> Any:
    """Return a transport by the name of its row."""
    if name == "httpx[http2]":
        return httpx.AsyncHTTPTransport(http1=False, http2=True)
    return NullTransport() if name == "httpx alone" else AsyncTransport(http1=False)


async def ask(transport: Any, port: int, n: int) -> None:
    """Ask with an ``AsyncClient``."""
    async with httpx.AsyncClient(transport=transport) as client:

        async def work(n: int) -> None:
            for _ in range(n):
                response = await client.get(f"http://127.0.0.1:{port}/hello")
                assert response.content == streams.BODY

        await streams.share(work, n)


def ask_alone(transport: Any, port: int, n: int) -> None:
    """Ask with a ``Client``, one request after the other."""
    with httpx.Client(transport=transport) as client:
        for _ in range(n):
            response = client.get(f"http://127.0.0.1:{port}/hello")
            assert response.content == streams.BODY


def measure_sync(name: str, port: int, n: int) -> float:
    """Return the CPU microseconds of a request of a ``Client``."""
    if name == "httpx[http2]":
        transport: Any = httpx.HTTPTransport(http1=False, http2=True)
    else:
        transport = Transport(http1=False)
    cpu = time.process_time()
    ask_alone(transport, port, n)
    return (time.process_time() - cpu) / n * 1e6


def measure(name: str, port: int, n: int) -> float:
    """Return the CPU microseconds of a request of an ``AsyncClient``."""
    transport = make_transport(name)
    cpu = time.process_time()
    asyncio.run(asyncio.wait_for(ask(transport, port, n), figures.LONGEST))
    return (time.process_time() - cpu) / n * 1e6


def main() -> None:
    """Measure, and print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3200, help="requests a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    n = options.n // streams.CONCURRENCY * streams.CONCURRENCY
    few = max(streams.CONCURRENCY, n // 4 // streams.CONCURRENCY * streams.CONCURRENCY)
    programs = {"nghttp2py": n, "httpx[http2]": few, "httpx alone": n}
    sync = {"nghttp2py": few, "httpx[http2]": few}
    found = []
    with streams.nghttpd() as port:
        for _ in range(options.turns):
            row = [measure(name, port, count) for name, count in programs.items()]
            row += [measure_sync(name, port, count) for name, count in sync.items()]
            found.append(row)
    middle = figures.medians(found)
    rows = {
        "AsyncClient": dict(zip(programs, middle, strict=False)),
        "Client, one at a time": dict(zip(sync, middle[len(programs) :], strict=True)),
    }
    for title, row in rows.items():
        for name, each in row.items():
            print(f"{title:24}{name:16}{each:10.1f} us")
    figures.keep(
        "httpx",
        "A request of httpx: CPU time",
        "µs",
        rows,
        goal=f"a {GOAL:.0f}th of httpx[http2]",
    )
    reached = rows["AsyncClient"]["httpx[http2]"] / rows["AsyncClient"]["nghttp2py"]
    print(f"goal: at most 1/{GOAL:.0f} of httpx[http2]; reached 1/{reached:.1f}")


if __name__ == "__main__":
    main()
