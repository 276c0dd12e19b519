"""The streams API beside httpx and h2load: small GETs from nghttpd, 32 at a time.

All use one connection in cleartext, and are measured in turns.  The ratios are
what counts: requests a second beside httpx[http2], and the client's CPU time
for each request beside h2load, whose client is C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import figures
import httpx
import uvloop

from nghttp2py.asyncio import open_connection

CONCURRENCY = 32
GOAL = 40.0
BODY = b"hello world"

# Requests a second and CPU microseconds for each, of each program.
Found = dict[str, tuple[float, float]]
# Makes requests of the server at a port, so many.
Ask = Callable[[int, int], Coroutine[Any, Any, None]]


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until a server listens on ``port``."""
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def nghttpd() -> Iterator[int]:
    """Run nghttpd with one small file; yield its port."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "hello").write_bytes(BODY)
        port = free_port()
        command = ["nghttpd", "--no-tls", "-d", root, "--address=127.0.0.1", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield port
        finally:
            server.terminate()
            server.wait()


async def share(work: Callable[[int], Awaitable[None]], n: int) -> None:
    """Have ``n`` requests made by as many tasks as there are requests at a time."""
    await asyncio.gather(*(work(n // CONCURRENCY) for _ in range(CONCURRENCY)))


async def numbers(port: int, n: int) -> None:
    """Ask by stream numbers, as aioh2's users do."""
    async with await open_connection("127.0.0.1", port) as client:

        async def work(n: int) -> None:
            for _ in range(n):
                stream_id = await client.start_request(
                    {":method": "GET", ":path": "/hello"}, end_stream=True
                )
                await client.recv_response(stream_id)
                body = await client.read_stream(stream_id, -1)
                assert body == BODY

        await share(work, n)


async def objects(port: int, n: int) -> None:
    """Ask with stream objects."""
    headers = [(b":method", b"GET"), (b":path", b"/hello")]
    async with await open_connection("127.0.0.1", port) as client:

        async def work(n: int) -> None:
            for _ in range(n):
                stream = await client.open_stream(headers, end_stream=True)
                response = await stream.response()
                body = await stream.read()
                assert response.status == 200 and body == BODY

        await share(work, n)


async def httpx_client(port: int, n: int) -> None:
    """Ask with httpx[http2]."""
    async with httpx.AsyncClient(http1=False, http2=True) as client:

        async def work(n: int) -> None:
            for _ in range(n):
                response = await client.get(f"http://127.0.0.1:{port}/hello")
                assert response.content == BODY

        await share(work, n)


def measure(ask: Ask, loop: str, port: int, n: int) -> tuple[float, float]:
    """Return requests a second, and CPU microseconds for each."""
    made = uvloop.new_event_loop() if loop == "uvloop" else asyncio.new_event_loop()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        made.run_until_complete(asyncio.wait_for(ask(port, n), figures.LONGEST))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        made.close()
    return n / wall, cpu / n * 1e6


def h2load(port: int, n: int) -> tuple[float, float]:
    """The same, of h2load with one connection."""
    url = f"http://127.0.0.1:{port}/hello"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(
        ["h2load", "-c1", f"-m{CONCURRENCY}", f"-n{n}", url],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=figures.LONGEST,
    )
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return n / wall, cpu / n * 1e6


def rates(middle: Found, ours: dict[str, str]) -> dict[str, float]:
    """The requests a second of each program, ours first, by the names given."""
    named = {}
    for name, (rate, _) in middle.items():
        kind, _, loop = name.partition(", ")
        named[f"{ours.get(kind, kind)}, {loop}" if loop else kind] = rate
    return dict(sorted(named.items(), key=lambda item: "nghttp2py" not in item[0]))


def tell(middle: Found) -> float:
    """Print requests a second and CPU time of each, beside httpx and h2load.

    Returns what httpx reached.
    """
    beside = max(middle["httpx, asyncio"][0], middle["httpx, uvloop"][0])
    cpu = middle["h2load"][1]
    print(f"{'':20}{'requests/s':>12}{'x httpx':>10}{'CPU us':>10}{'x h2load':>10}")
    for name, (rate, each) in middle.items():
        print(
            f"{name:20}{rate:12,.0f}{rate / beside:10.1f}{each:10.1f}{each / cpu:10.1f}"
        )
    return beside


def compare(description: str | None, ours: dict[str, Ask]) -> Found:
    """Measure in turns, in both loops, with the options of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-n", type=int, default=16000, help="requests a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    n = options.n // CONCURRENCY * CONCURRENCY
    few = max(CONCURRENCY, n // 20 // CONCURRENCY * CONCURRENCY)
    found: dict[str, list[tuple[float, float]]] = {}
    with nghttpd() as port:
        for _ in range(options.turns):
            turn = {"h2load": h2load(port, n)}
            for loop in ("asyncio", "uvloop"):
                turn[f"httpx, {loop}"] = measure(httpx_client, loop, port, few)
                for name, ask in ours.items():
                    turn[f"{name}, {loop}"] = measure(ask, loop, port, n)
            for name, result in turn.items():
                found.setdefault(name, []).append(result)
    middle = {name: figures.medians(turns) for name, turns in found.items()}
    return {name: (rate, cpu) for name, (rate, cpu) in middle.items()}


def main() -> None:
    """Measure, and print the median of each."""
    middle = compare(__doc__, {"numbers": numbers, "objects": objects})
    tell(middle)
    figures.keep(
        "streams",
        "Streams for coroutines, 32 small GETs at a time",
        "requests/s",
        {
            "by number": rates(
                {k: v for k, v in middle.items() if "objects" not in k},
                {"numbers": "nghttp2py"},
            ),
            "as objects": rates(
                {k: v for k, v in middle.items() if "numbers" not in k},
                {"objects": "nghttp2py"},
            ),
        },
        goal=f"at least {GOAL:.0f} times httpx",
        more=True,
    )
    print(f"goal: at least {GOAL:.0f} x httpx, at most 4 x h2load's CPU time")


if __name__ == "__main__":
    main()
