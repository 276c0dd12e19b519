"""HTTP2Server beside nghttpd: the CPU time of the server for each request.

h2load makes small requests on 10 connections of 32 streams.  Ours answers with
a hello handler in uvloop and in asyncio's own loop, nghttpd with a file of the
same 11 bytes.  The ratios are what counts: all are measured in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import figures
from streams import free_port, wait_for

GOAL = 1.3
BODY = b"hello world"
TICK = os.sysconf("SC_CLK_TCK")

HELLO = f"""
import asyncio, signal, sys
from nghttp2py import BaseRequestHandler, HTTP2Server

class Hello(BaseRequestHandler):
    def on_headers(self):
        self.send_response(200, [("content-type", "text/plain")], {BODY!r})

run = asyncio.run
if sys.argv[2] == "uvloop":
    from uvloop import run
server = HTTP2Server(("127.0.0.1", int(sys.argv[1])), Hello)
run(server.serve(signals=[signal.SIGTERM]))
"""


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is ready, and is ended when it was measured."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield process
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def load(port: int, requests: int) -> float:
    """Make requests; return how many were answered in a second."""
    out = subprocess.run(
        ["h2load", f"-n{requests}", "-c10", "-m32", f"http://127.0.0.1:{port}/hello"],
        check=True,
        capture_output=True,
        text=True,
        timeout=figures.LONGEST,
    ).stdout
    if f"{requests} succeeded" not in out:
        sys.exit(f"not all requests succeeded:\n{out}")
    found = re.search(r"([\d.]+) req/s", out)
    assert found is not None
    return float(found[1])


def measure(command: list[str], port: int, requests: int) -> tuple[float, float]:
    """Microseconds of CPU for a request, and requests in a second."""
    with running(command, port) as process:
        load(port, requests // 20)  # what happens once is not measured
        before = cpu_seconds(process.pid)
        rate = load(port, requests)
        return (cpu_seconds(process.pid) - before) / requests * 1e6, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=200_000, help="requests in a turn")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "hello").write_bytes(BODY)
        port = free_port()
        ours = [sys.executable, "-c", HELLO, str(port)]
        servers = {
            "nghttpd": [
                *("nghttpd", "--no-tls", "-d", root, "--address=127.0.0.1", str(port))
            ],
            "HTTP2Server, uvloop": [*ours, "uvloop"],
            "HTTP2Server, asyncio": [*ours, "asyncio"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(options.repeat):
            for name, command in servers.items():
                times[name].append(measure(command, port, options.n))
    print(
        f"{'small requests':24}{'CPU us/request':>16}{'ours/nghttpd':>14}{'req/s':>10}"
    )
    middle = {name: figures.medians(turns) for name, turns in times.items()}
    limit = middle["nghttpd"][0]
    for name, (cpu, rate) in middle.items():
        print(f"{name:24}{cpu:16.2f}{cpu / limit:10.2f}x{rate:9.0f}")
    print(f"goal: at most {GOAL}x with uvloop")
    names = {
        "HTTP2Server, uvloop": "nghttp2py, uvloop",
        "HTTP2Server, asyncio": "nghttp2py, asyncio",
        "nghttpd": "nghttpd",
    }
    figures.keep(
        "server_cpu",
        "HTTP2Server, small requests: CPU time",
        "µs for each request",
        {"hello": {names[name]: middle[name][0] for name in names}},
        goal=f"at most {GOAL} times nghttpd's with uvloop",
    )
    figures.keep(
        "server_rate",
        "HTTP2Server, small requests: throughput",
        "requests/s",
        {"hello": {names[name]: middle[name][1] for name in names}},
        more=True,
    )


if __name__ == "__main__":
    main()
