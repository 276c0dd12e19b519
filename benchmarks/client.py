"""Clients beside httpx: 32 small GETs at a time from nghttpd, on one connection.

Every client reads the whole body of each response.  Requests a second, the
client's CPU time a request, and the ratio to httpx[http2], measured in turns in
the same run, each client in a process of its own.  h2load is the C client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

# As a script, this directory comes first in sys.path, where hpack.py would hide
# the package of its name.
HERE = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]

BODY = b"hello world"
CONCURRENCY = 32
#: The least ratio to httpx's requests a second.
GOALS = {"streams": 40.0, "client": 20.0}

Get = Callable[[], Awaitable[bytes]]


@contextlib.contextmanager
def nghttpd() -> Iterator[int]:
    """Run nghttpd with a small file; give its port when it listens."""
    with tempfile.TemporaryDirectory() as root, socket.socket() as free:
        Path(root, "file").write_bytes(BODY)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={root}"]
        with subprocess.Popen(
            [*command, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                end = time.monotonic() + 10
                while True:
                    with contextlib.suppress(OSError):
                        socket.create_connection(("127.0.0.1", port), 1).close()
                        break
                    if time.monotonic() > end:
                        raise TimeoutError("nghttpd does not listen")
                    time.sleep(0.02)
                yield port
            finally:
                process.terminate()


# ---- The clients: each gives a coroutine function that gets the file once ----


@contextlib.asynccontextmanager
async def client(port: int):
    from nghttp2py.asyncio import Client

    async with Client(f"http://127.0.0.1:{port}") as made:

        async def get() -> bytes:
            response = await made.get("/file")
            return await response.read()

        yield get


@contextlib.asynccontextmanager
async def streams(port: int):
    from nghttp2py.asyncio import open_connection

    headers = [(b":method", b"GET"), (b":path", b"/file")]
    async with await open_connection("127.0.0.1", port) as protocol:

        async def get() -> bytes:
            stream = await protocol.open_stream(headers, end_stream=True)
            await stream.response()
            return await stream.read()

        yield get


@contextlib.asynccontextmanager
async def httpx(port: int):
    import httpx

    url = f"http://127.0.0.1:{port}/file"
    async with httpx.AsyncClient(http1=False, http2=True, timeout=60) as made:

        async def get() -> bytes:
            return (await made.get(url)).content

        yield get


CLIENTS = {"client": client, "streams": streams, "httpx": httpx}


async def measure(name: str, port: int, requests: int) -> dict[str, float]:
    """Make the requests with one client; return wall and CPU seconds a request."""

    async def work(get: Get, n: int) -> None:
        for _ in range(n):
            assert await get() == BODY

    async with CLIENTS[name](port) as get:
        await work(get, 10)
        used = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        each = requests // CONCURRENCY
        await asyncio.gather(*(work(get, each) for _ in range(CONCURRENCY)))
        wall = time.perf_counter() - start
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        seconds = cpu.ru_utime + cpu.ru_stime - used.ru_utime - used.ru_stime
        done = each * CONCURRENCY
        return {"rate": done / wall, "cpu": seconds / done}


def in_process(name: str, loop: str, port: int, requests: int) -> dict[str, float]:
    """Measure in a new process, in the event loop of that name."""
    out = subprocess.run(
        [
            *(sys.executable, __file__, "--client", name, "--loop", loop),
            *("--port", str(port), "--requests", str(requests)),
        ],
        check=True,
        capture_output=True,
    ).stdout
    return json.loads(out)


def h2load(port: int, requests: int) -> dict[str, float]:
    """The same with h2load: one connection, one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(
        [
            *("h2load", "-n", str(requests), "-c1", f"-m{CONCURRENCY}"),
            f"http://127.0.0.1:{port}/file",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rate = float(re.search(r"([\d.]+) req/s", out)[1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"rate": rate, "cpu": cpu / requests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--loop", default="asyncio", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        if args.loop == "uvloop":
            from uvloop import run
        else:
            run = asyncio.run
        print(json.dumps(run(measure(args.client, args.port, args.requests))))
        return
    best: dict[str, dict[str, float]] = {}
    with nghttpd() as port:
        for _ in range(args.rounds):
            turns = {
                # httpx is so much slower that fewer requests tell as much.
                "httpx": lambda: in_process(
                    "httpx", "asyncio", port, args.requests // 16
                ),
                "streams": lambda: in_process(
                    "streams", "asyncio", port, args.requests
                ),
                "client": lambda: in_process("client", "asyncio", port, args.requests),
                "streams, uvloop": lambda: in_process(
                    "streams", "uvloop", port, args.requests
                ),
                "client, uvloop": lambda: in_process(
                    "client", "uvloop", port, args.requests
                ),
                "h2load": lambda: h2load(port, args.requests),
            }
            for name, turn in turns.items():
                found = turn()
                known = best.setdefault(name, found)
                known["rate"] = max(known["rate"], found["rate"])
                known["cpu"] = min(known["cpu"], found["cpu"])
    base = best["httpx"]["rate"]
    print(f"{'':16}{'requests/s':>12}{'CPU us/request':>16}{'to httpx':>10}")
    missed = False
    for name, found in best.items():
        ratio = found["rate"] / base
        goal = GOALS.get(name.partition(",")[0])
        missed |= goal is not None and ratio < goal
        print(
            f"{name:16}{found['rate']:12.0f}{found['cpu'] * 1e6:16.1f}{ratio:9.1f}x"
            + (f"  (goal {goal:.0f}x)" if goal else "")
        )
    if missed:
        sys.exit("a goal was missed")


if __name__ == "__main__":
    main()
