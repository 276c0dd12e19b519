"""The streams API beside h2load: small GETs from nghttpd, 32 at a time.

All use one connection in cleartext, and are measured in turns.  What counts is the
client's CPU time for each request beside that of h2load, whose client is C.
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
import uvloop

from nghttp2py.asyncio import open_connection

CONCURRENCY = 32
GOAL = 2.0
BODY = b"hello world"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

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
def nghttpd(large: int = 0) -> Iterator[int]:
    """Run nghttpd with a small file, and one of so many bytes; yield its port."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "hello").write_bytes(BODY)
        Path(root, "large").write_bytes(bytes(large))
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


def measure(ask: Ask, loop: str, port: int, n: int) -> tuple[float, float]:
    """Return the seconds that ``ask`` takes, and those of the CPU."""
    made = LOOPS[loop]()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        made.run_until_complete(asyncio.wait_for(ask(port, n), figures.LONGEST))
        return time.perf_counter() - wall, time.process_time() - cpu
    finally:
        made.close()


def run_program(*command: str) -> tuple[float, float]:
    """The same, of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, timeout=figures.LONGEST
    )
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu


def h2load(port: int, n: int) -> float:
    """Return the CPU microseconds of each request of h2load on one connection."""
    url = f"http://127.0.0.1:{port}/hello"
    _, cpu = run_program("h2load", "-c1", f"-m{CONCURRENCY}", f"-n{n}", url)
    return cpu / n * 1e6


def compare(ours: dict[str, Ask], port: int, n: int, turns: int) -> figures.Rows:
    """Return the CPU microseconds of a request: medians of turns, beside h2load."""
    n = max(CONCURRENCY, n // CONCURRENCY * CONCURRENCY)
    found = []
    for _ in range(turns):
        row = [h2load(port, n)]
        for ask in ours.values():
            row += [measure(ask, loop, port, n)[1] / n * 1e6 for loop in LOOPS]
        found.append(row)
    beside, *middle = figures.medians(found)
    rows = {}
    for i, name in enumerate(ours):
        each = middle[i * len(LOOPS) : (i + 1) * len(LOOPS)]
        rows[name] = {
            f"nghttp2py, {loop}": cpu for loop, cpu in zip(LOOPS, each, strict=True)
        }
        rows[name]["h2load"] = beside
    return rows


def tell(rows: figures.Rows, unit: str) -> None:
    """Print each row, and how many times the last program's each figure is."""
    for title, row in rows.items():
        last = list(row.values())[-1]
        for name, value in row.items():
            print(f"{title:28}{name:22}{value:10.2f} {unit}{value / last:8.2f}x")


def main() -> None:
    """Measure, and print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=32000, help="requests a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with nghttpd() as port:
        rows = compare(
            {"as objects": objects, "by number": numbers},
            port,
            options.n,
            options.turns,
        )
    tell(rows, "us")
    figures.keep(
        "streams",
        "Streams for coroutines, a small GET of 32 at a time: CPU time",
        "µs",
        rows,
        goal=f"streams as objects at most {GOAL:.0f} times h2load",
    )
    reached = rows["as objects"]["nghttp2py, uvloop"] / rows["as objects"]["h2load"]
    print(f"goal: at most {GOAL:.0f} x h2load's CPU time; reached {reached:.2f}")


if __name__ == "__main__":
    main()
