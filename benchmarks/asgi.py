"""ASGI servers: ``nghttp2py run`` beside uvicorn, hypercorn, Granian and h2corn.

Each server has one worker and uvloop, and runs the same application.  h2load asks over
HTTP/1.1 and HTTP/2, gtlsclient over HTTP/3, the package websockets over WebSocket.
What counts is the CPU time of the server: clients take more than that, so that the rate
says little.  All are measured in turns; a server that is not installed, or does not
have a protocol, is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import figures
import trustme
import websockets.asyncio.client
from idle import raise_limit
from server import TICK
from streams import free_port, wait_for

APPLICATION = """
HELLO = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
LARGE = bytes(5_000_000)
PIECE = bytes(65536)


def start(headers=()):
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(data, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        return
    path = scope["path"]
    if path == "/large":
        await send(start([(b"content-length", b"5000000")]))
        await send(body(LARGE))
    elif path == "/pieces":
        await send(start())
        for _ in range(76):
            await send(body(PIECE, True))
        await send(body(b""))
    else:
        while path == "/upload" and (await receive()).get("more_body"):
            pass
        await send(start(HELLO))
        await send(body(b"Hello, world!"))
"""


class Task(NamedTuple):
    """What is asked: by ``ask(port, path, n)``, of the servers that can do it."""

    ask: Callable[[int, Path, int], None]
    number: int
    without: frozenset[str] = frozenset()


def run_client(command: list[str], n: int) -> None:
    """Run h2load, which must have ``n`` answers.

    It counts hypercorn's of HTTP/1.1, which have no reason phrase, as failed.
    """
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=figures.LONGEST
    ).stdout
    if f" {n} done" not in out or " 0 errored, 0 timeout" not in out:
        sys.exit(f"{command}: not all requests succeeded:\n{out}")


def by_h2load(path: str, *options: str) -> Callable[[int, Path, int], None]:
    """Ask for a path by h2load."""

    def ask(port: int, root: Path, n: int) -> None:
        given = [option.format(root=root) for option in options]
        run_client(["h2load", f"-n{n}", *given, f"http://127.0.0.1:{port}{path}"], n)

    return ask


def by_gtlsclient(port: int, root: Path, n: int) -> None:
    """Ask over HTTP/3: so many streams of one connection."""
    subprocess.run(
        [
            "gtlsclient",
            "-q",
            f"-n{n}",
            "--exit-on-all-streams-close",
            "--no-quic-dump",
            "--no-http-dump",
            "127.0.0.1",
            str(port),
            f"https://localhost:{port}/",
        ],
        check=True,
        capture_output=True,
        timeout=figures.LONGEST,
    )


def by_websockets(size: int) -> Callable[[int, Path, int], None]:
    """Have messages echoed on 8 connections, one at a time on each."""

    async def talk(port: int, n: int) -> None:
        data = bytes(size)
        async with websockets.asyncio.client.connect(
            f"ws://127.0.0.1:{port}/", compression=None
        ) as client:
            for _ in range(n):
                await client.send(data)
                assert len(await client.recv()) == size

    async def talk_all(port: int, n: int) -> None:
        await asyncio.gather(*(talk(port, n // 8) for _ in range(8)))

    def ask(port: int, root: Path, n: int) -> None:
        asyncio.run(asyncio.wait_for(talk_all(port, n), figures.LONGEST))

    return ask


# A tenth of the requests, for it takes ten times as long.
SLOW = "hypercorn"
NO_HTTP2 = frozenset({"uvicorn"})
NO_HTTP3 = frozenset({"uvicorn", "granian", "h2corn"})
MULTIPLEXED = ("-c10", "-m32")
TASKS = {
    "hello, HTTP/1.1": Task(by_h2load("/", "--h1", "-c32"), 40_000),
    "hello, HTTP/2": Task(by_h2load("/", *MULTIPLEXED), 80_000, NO_HTTP2),
    "hello, HTTP/3": Task(by_gtlsclient, 2000, NO_HTTP3),
    "5 MB at once, HTTP/2": Task(by_h2load("/large", "-c4"), 200, NO_HTTP2),
    "5 MB in pieces, HTTP/2": Task(by_h2load("/pieces", "-c4"), 200, NO_HTTP2),
    "upload of 50 MB, HTTP/2": Task(
        by_h2load("/upload", "-c2", "-d{root}/upload", "-w20", "-W20"), 8, NO_HTTP2
    ),
    "WebSocket, 64 B": Task(by_websockets(64), 16_000),
    "WebSocket, 64 KiB": Task(by_websockets(65536), 4000),
}


def commands(root: Path, port: int, *, secure: bool) -> dict[str, list[str]]:
    """How each server that is installed is started."""
    bound = f"127.0.0.1:{port}"
    pair = [f"{root}/cert.pem", f"{root}/key.pem"]
    ours = ["nghttp2py", "run", "served:app", f"--bind={bound}", "--no-access-log"]
    hypercorn = ["hypercorn", "served:app", "--worker-class=uvloop"]
    if secure:
        ours += [f"--ssl-certfile={pair[0]}", f"--ssl-keyfile={pair[1]}", "--http3"]
        hypercorn += [f"--certfile={pair[0]}", f"--keyfile={pair[1]}"]
        hypercorn += [f"--quic-bind={bound}"]
    every = {
        "nghttp2py": [*ours, "--lifespan=off"],
        "uvicorn": [
            "uvicorn",
            "served:app",
            f"--port={port}",
            "--no-access-log",
            "--http=httptools",
            "--loop=uvloop",
            "--lifespan=off",
        ],
        "hypercorn": [*hypercorn, f"--bind={bound}"],
        "granian": [
            "granian",
            "served:app",
            f"--port={port}",
            "--interface=asginl",
            "--loop=uvloop",
            "--no-access-log",
        ],
        "h2corn": ["h2corn", "served:app", f"--bind={bound}", "--lifespan=off"],
    }
    return {
        name: [sys.executable, "-m", *command]
        for name, command in every.items()
        if importlib.util.find_spec(name) is not None
    }


@contextlib.contextmanager
def started(command: list[str], root: Path, port: int) -> Iterator[int]:
    """A server that is ready, by its process; it is ended when it was measured."""
    with (root / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
    try:
        wait_for(port)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(pid: int) -> list[int]:
    """A process and those that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """The time that a server's processes have taken."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def memory(pid: int) -> int:
    """Bytes of a server's processes that are in memory."""
    pages = sum(
        int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid)
    )
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(
    task: Task, command: list[str], root: Path, port: int
) -> tuple[float, float]:
    """Microseconds of CPU for a request, and requests in a second."""
    number = max(task.number // 10, 8) if SLOW in command else task.number
    with started(command, root, port) as pid:
        task.ask(port, root, max(number // 10, 8))  # what happens once
        before, begin = cpu_seconds(pid), time.monotonic()
        task.ask(port, root, number)
        took = time.monotonic() - begin
        return (cpu_seconds(pid) - before) / number * 1e6, number / took


FIRST = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0",
}


def idle_memory(command: list[str], root: Path, port: int, first: bytes) -> float:
    """KiB of each connection of those that have asked once, or sent SETTINGS."""
    number = min(10_000, raise_limit() - 100)
    with started(command, root, port) as pid, contextlib.ExitStack() as stack:
        before = 0
        for count in range(number):
            # A server may take no more than some: Granian 4,096.
            address = "127.0.0.1", port
            client = stack.enter_context(socket.create_connection(address, 10))
            client.sendall(first)
            client.recv(65536)
            if count == 99:
                before = memory(pid)
        return (memory(pid) - before) / (number - 100) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="turns of each server")
    parser.add_argument("--only", default="", help="a pattern of the tasks' names")
    options = parser.parse_args()
    cpu: figures.Rows = {}
    rate: figures.Rows = {}
    held: figures.Rows = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "served.py").write_text(APPLICATION)
        (root / "upload").write_bytes(bytes(50_000_000))
        certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(root / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(root / "cert.pem", append=True)
        missing = {"uvicorn", "hypercorn", "granian", "h2corn"} - set(
            commands(root, 1, secure=False)
        )
        if missing:
            print("not installed:", ", ".join(sorted(missing)))
        for what, task in TASKS.items():
            if not re.search(options.only, what):
                continue
            turns: dict[str, list[tuple[float, float]]] = {}
            for _ in range(options.repeat):
                port = free_port()
                secure = task.ask is by_gtlsclient
                for server, command in commands(root, port, secure=secure).items():
                    if server in task.without:
                        continue
                    try:
                        found = measure(task, command, root, port)
                    except (OSError, subprocess.SubprocessError, AssertionError) as e:
                        print(f"{what}: {server} fails: {e}")
                        continue
                    turns.setdefault(server, []).append(found)
            middle = {server: figures.medians(all_) for server, all_ in turns.items()}
            cpu[what] = {server: found[0] for server, found in middle.items()}
            rate[what] = {server: found[1] for server, found in middle.items()}
            print(
                f"{what}: CPU us",
                *(f"{server} {found[0]:.1f}" for server, found in middle.items()),
                "requests/s",
                *(f"{server} {found[1]:.0f}" for server, found in middle.items()),
                flush=True,
            )
        for version, first in FIRST.items():
            if not re.search(options.only, "idle"):
                continue
            row = held[f"idle, {version}"] = {}
            port = free_port()
            for server, command in commands(root, port, secure=False).items():
                if version == "HTTP/2" and server in NO_HTTP2:
                    continue
                try:
                    row[server] = idle_memory(command, root, port, first)
                except OSError as error:
                    print(f"idle, {version}: {server} fails: {error}")
            print(
                f"idle, {version}: KiB",
                *(f"{server} {found:.1f}" for server, found in row.items()),
                flush=True,
            )
    figures.keep(
        "asgi_cpu",
        "ASGI servers: CPU time",
        "µs for each request or message",
        cpu,
        goal="hello at most a third of Granian's over HTTP/2, as much over HTTP/1.1",
    )
    figures.keep(
        "asgi_rate",
        "ASGI servers: throughput",
        "requests or messages/s",
        rate,
        more=True,
        goal="hello over HTTP/3 15 times hypercorn's, WebSocket 1.2 times uvicorn's",
    )
    figures.keep(
        "asgi_memory",
        "ASGI servers, 10,000 idle connections: memory of each",
        "KiB",
        held,
    )


if __name__ == "__main__":
    main()
