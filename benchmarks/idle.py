"""Idle connections of a streams server: memory of each, and what they cost others.

The clients that idle are sockets in a child process, which have exchanged
SETTINGS.  One more client asks small requests, one after the other: first with
10 idle connections, then with as many as the limit of open files allows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import resource
import socket
import statistics
import time
from typing import Any

import figures

from nghttp2py.asyncio import H2Server, open_connection, start_server

IDLE = 10_000
GOAL = 2.0
# Files that the process has open for itself.
_SPARE = 100
# What a client sends first: its magic, and SETTINGS without any; then the ACK.
_FIRST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_ACK = b"\0\0\0\4\1\0\0\0\0"


def raise_limit() -> int:
    """Let this process open as many files as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(hard, IDLE + _SPARE), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (OSError, ValueError):
            continue
    return soft


def idle(port: int, pipe: Any) -> None:
    """Hold connections: as many in all as the parent asks for, until it ends."""
    held: list[socket.socket] = []
    while (wanted := pipe.recv()) is not None:
        while len(held) < wanted:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(_FIRST)
            client.recv(4096)
            client.sendall(_ACK)
            held.append(client)
        pipe.send(len(held))


def memory() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def hold(server: H2Server, pipe: Any, n: int) -> None:
    """Have ``n`` connections that have all sent what they will."""
    loop = asyncio.get_running_loop()
    pipe.send(n)
    await loop.run_in_executor(None, pipe.recv)
    end = loop.time() + figures.LONGEST
    while len(server.connections) < n:
        assert loop.time() < end, f"{n} connections do not come"
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    gc.collect()


async def latency(port: int, n: int) -> float:
    """Return the median of the seconds that a small request takes."""
    headers = [(b":method", b"GET"), (b":path", b"/")]
    times = []
    async with await open_connection("127.0.0.1", port) as client:
        for _ in range(n):
            begin = time.perf_counter()
            stream = await client.open_stream(headers, end_stream=True)
            assert await stream.read() == b"hello"
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def measure(idlers: int, requests: int) -> None:
    """Measure and print."""

    async def hello(stream: Any) -> None:
        await stream.send_response(200, {}, b"hello")

    server = await start_server(
        lambda protocol: protocol.serve_streams(hello), "127.0.0.1", 0, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    pipe, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=idle, args=(port, theirs), daemon=True
    )
    child.start()
    try:
        await hold(server, pipe, 10)
        await latency(port, requests)  # to be warm
        few, before = await latency(port, requests), memory()
        await hold(server, pipe, idlers)
        each = (memory() - before) / (idlers - 10)
        many = await latency(port, requests)
    finally:
        pipe.send(None)
        server.abort_clients()
        server.close()
        await server.wait_closed()
        child.join()
    figures.keep(
        "idle",
        f"{idlers:,} idle connections of one server: latency of another client",
        "µs",
        {"a small GET": {"with all": many * 1e6, "with 10": few * 1e6}},
        goal=f"at most {GOAL:.0f} times that with 10",
    )
    figures.keep(
        "idle_memory",
        f"{idlers:,} idle connections of one server: memory of each",
        "KiB",
        {"start_server": {"nghttp2py": each / 1024}},
    )
    print(f"{idlers:,} idle connections: {each / 1024:.1f} KiB of memory each")
    print(
        f"median latency {few * 1e6:.0f} us with 10, {many * 1e6:.0f} us with "
        f"{idlers:,}: {many / few:.2f} x (goal: at most {GOAL:.0f} x)"
    )


def main() -> None:
    """Run it with what the machine allows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=IDLE, help="idle connections")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    idlers = min(options.n, raise_limit() - _SPARE)
    asyncio.run(measure(idlers, options.requests))


if __name__ == "__main__":
    main()
