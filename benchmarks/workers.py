"""Workers that are replaced and killed under load: what is lost?

    python benchmarks/workers.py roll     # SIGHUP twice under each kind of load
    python benchmarks/workers.py kill     # kill -9 of one worker under load
    python benchmarks/workers.py soak     # mixed load, SIGHUP each minute, memory

``nghttp2py run`` serves a small application with four workers. The load comes from
h2load (HTTP/1.1 and HTTP/2, in the clear and over TLS), our client (HTTP/2 and HTTP/3),
httpx, and gtlsclient. h2load opens no other connection after GOAWAY, so it is run again
and again; requests that it has begun and that have not ended are lost. Those of HTTP/2
are also divided by what a proxy between has seen ("traced"): "lost" was sent and
neither answered nor refused, "refused" is above the last stream of GOAWAY, and "never
sent" is what h2load counts as failed and has not sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme
from h2_tap import Tap

from nghttp2py.asyncio import Client, open_connection
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.quic import QuicConfiguration

APPLICATION = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    body = str(os.getpid()).encode()
    fields = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})
"""

# Seconds in which anything must happen that the program waits for.
_PATIENCE = 120.0
_REQUESTS = 2000
# The looks, one after another, at a process that sleeps.
_LOOKS = 6
_READY = r"worker \d+ \(process \d+\) is ready"


def read_stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [""] * 20


def start_time(pid: int) -> int:
    """When a process was started, in the clock ticks of the system."""
    return int(read_stat(pid)[19] or 0)


def find_sockets(pid: int) -> set[str]:
    """The sockets that a process has open, but for its standard files."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended
        for number in os.listdir(f"/proc/{pid}/fd"):
            if int(number) > 2:
                with contextlib.suppress(OSError):
                    found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return {each for each in found if each.startswith("socket:")}


class Program:
    """The server under test."""

    def __init__(self, directory: Path, workers: int, options: list[str]) -> None:
        self._log = directory / "log"
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        (directory / "cert.pem").write_bytes(chain)
        self.authority = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        (directory / "served.py").write_text(APPLICATION)
        command = [sys.executable, "-m", "nghttp2py", "run", "served:app"]
        command += ["--bind=127.0.0.1:0", "--insecure-bind=127.0.0.1:0"]
        command += [f"--workers={workers}", "--no-access-log"]
        command += ["--ssl-certfile=cert.pem", "--ssl-keyfile=key.pem", *options]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=directory, stderr=log)
        self.rolls = 0

    def client_context(self) -> ssl.SSLContext:
        """A context of clients, which trusts the server."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.set_alpn_protocols(["h2"])
        return context

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def wait(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until the log has a pattern so many times."""
        end = time.monotonic() + _PATIENCE
        while len(found := re.findall(pattern, self.log)) < count:
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(f"{pattern!r} is not in the log:\n{self.log}")
            await asyncio.sleep(0.05)
        return found

    async def start(self) -> None:
        await self.wait("workers? (is|are) ready")
        self.secure = int((await self.wait(r"on https://127.0.0.1:(\d+)"))[0])
        self.clear = int((await self.wait(r"on http://127.0.0.1:(\d+)"))[0])

    async def roll(self) -> float:
        """Replace all workers; return the seconds that it took."""
        begun = time.monotonic()
        self.rolls += 1
        self.process.send_signal(signal.SIGHUP)
        await self.wait("the workers are replaced", self.rolls)
        return time.monotonic() - begun

    def workers(self, *, spare: bool = False) -> list[int]:
        """The processes of the workers, by their age; with ``spare``, those that wait
        to become one.

        Workers have the supervisor's sockets.
        """
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        shared = find_sockets(self.process.pid)
        found = [
            pid
            for pid in map(int, path.read_text().split())
            if bool(shared & find_sockets(pid)) is not spare
        ]
        return sorted(found, key=start_time)

    async def wait_for_spare(self) -> int:
        """Wait until the spare process waits to become a worker; return its number.

        It sleeps then, and it does not while it imports modules.
        """
        end = time.monotonic() + _PATIENCE
        asleep = 0
        while asleep < _LOOKS:
            if time.monotonic() > end:
                raise SystemExit(f"there is no spare process:\n{self.log}")
            await asyncio.sleep(0.05)
            found = self.workers(spare=True)
            sleeps = bool(found) and read_stat(found[-1])[0] == "S"
            asleep = asleep + 1 if sleeps else 0
        return found[-1]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(_PATIENCE)
        for line in self.log.splitlines():
            if re.match("WARNING|ERROR|CRITICAL", line):
                print(f"  log: {line}")


class Load:
    """Requests of one kind, until ``stop``: what has become of them."""

    def __init__(self, name: str, once: Callable[[Load], Awaitable[None]]) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.stopped = False
        self._once = once

    async def run(self) -> None:
        while not self.stopped:
            await self._once(self)

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items()))
        return f"{self.name}: {counts}"


@dataclass
class Counts:
    """What one run of h2load says of its requests."""

    started: int
    done: int
    answered: int


async def run_h2load(*arguments: str) -> Counts | None:
    process = await asyncio.create_subprocess_exec(
        *("h2load", f"-n{_REQUESTS}", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output = (await process.communicate())[0].decode()
    found = re.search(r"(\d+) started, (\d+) done, .*\nstatus codes: (\d+) 2xx", output)
    return None if found is None else Counts(*map(int, found.groups()))


def h2load(*arguments: str) -> Callable[[Load], Awaitable[None]]:
    async def once(load: Load) -> None:
        counts = await run_h2load(*arguments)
        if counts is None:
            load.counts["lost"] += 1
            return
        load.counts["answered"] += counts.answered
        load.counts["lost"] += counts.started - counts.answered
        load.counts["connection of h2load ended"] += counts.done < _REQUESTS

    return once


def traced(
    port: int, context: ssl.SSLContext | None, *arguments: str
) -> Callable[[Load], Awaitable[None]]:
    """h2load through a proxy that notes what it has sent."""

    async def once(load: Load) -> None:
        tap = Tap(port, context)
        url = f"http://127.0.0.1:{await tap.start()}/"
        counts = await run_h2load(*arguments, url)
        await tap.close()
        load.counts["answered"] += 0 if counts is None else counts.answered
        load.counts["lost"] += tap.lost
        load.counts["refused"] += tap.refused
        load.counts["never sent"] += _REQUESTS - tap.sent

    return once


async def ask(
    load: Load, get: Callable[[], Awaitable[int]], failed: str = "lost"
) -> None:
    """Send ten requests at a time; none that fails is tried again."""
    for _ in range(_REQUESTS // 10):
        answers = await asyncio.gather(
            *(get() for _ in range(10)), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                load.counts[failed] += 1
                load.counts[f"of these {answer!r}"[:100]] += 1
            else:
                load.counts["answered"] += answer == 200
        if load.stopped:
            return


def our_client(program: Program, *, http3: bool) -> Callable[[Load], Awaitable[None]]:
    url = f"https://localhost:{program.secure}"

    async def once(load: Load) -> None:
        if http3:
            configuration = QuicConfiguration(is_client=True)
            configuration.load_verify_locations(str(program.authority))
            client = Client(url, http3="only", quic=configuration)
        else:
            client = Client(url, ssl=program.client_context())

        async def get() -> int:
            response = await client.get("/")
            await response.read()
            return response.status

        async with client:
            await ask(load, get)

    return once


def with_httpx(program: Program) -> Callable[[Load], Awaitable[None]]:
    """httpx through a proxy, because it reads no response after a GOAWAY."""

    async def once(load: Load) -> None:
        tap = Tap(program.secure, program.client_context())
        url = f"http://127.0.0.1:{await tap.start()}/"
        async with httpx.AsyncClient(http1=False, http2=True) as client:

            async def get() -> int:
                return (await client.get(url)).status_code

            await ask(load, get, failed="failed in httpx")
        await tap.close()
        load.counts["lost"] += tap.lost
        load.counts["refused"] += tap.refused

    return once


def gtlsclient(program: Program) -> Callable[[Load], Awaitable[None]]:
    async def once(load: Load) -> None:
        process = await asyncio.create_subprocess_exec(
            *("gtlsclient", "--exit-on-all-streams-close", "-n10"),
            *("127.0.0.1", str(program.secure), f"https://localhost:{program.secure}/"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        output = (await process.communicate())[1].decode(errors="replace")
        answered = len(re.findall(r":status: 200", output))
        load.counts["answered"] += answered
        load.counts["lost"] += 10 - answered

    return once


def all_loads(program: Program) -> list[Load]:
    clear, secure = (
        f"http://127.0.0.1:{program.clear}/",
        f"https://127.0.0.1:{program.secure}/",
    )
    many = ("-c100", "-m10")
    return [
        Load("HTTP/1.1", h2load("--h1", "-c100", clear)),
        Load("HTTP/1.1 over TLS", h2load("--h1", "-c100", secure)),
        Load("HTTP/2", h2load(*many, clear)),
        Load("HTTP/2 over TLS", h2load(*many, secure)),
        Load("HTTP/2, traced", traced(program.clear, None, *many)),
        Load(
            "HTTP/2 over TLS, traced",
            traced(program.secure, program.client_context(), *many),
        ),
        Load("HTTP/2 over TLS, our client", our_client(program, http3=False)),
        Load("HTTP/2 over TLS, httpx, traced", with_httpx(program)),
        Load("HTTP/3, our client", our_client(program, http3=True)),
        Load("HTTP/3, gtlsclient", gtlsclient(program)),
    ]


@contextlib.asynccontextmanager
async def under(*loads: Load) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(load.run()) for load in loads]
    try:
        yield
    finally:
        for load in loads:
            load.stopped = True
        await asyncio.gather(*tasks)


async def roll(program: Program, kinds: str) -> None:
    """Replace all workers twice under each kind of load."""
    for load in all_loads(program):
        if not re.search(kinds, load.name):
            continue
        async with under(load):
            seconds = [await program.roll() for _ in range(2)]
        print(f"{load}; all replaced in {seconds[0]:.1f} s and {seconds[1]:.1f} s")


async def kill(program: Program) -> None:
    """Kill one worker under load."""
    loads = [
        load for load in all_loads(program) if load.name.endswith(("HTTP/2", "TLS"))
    ]
    loads += [load for load in all_loads(program) if load.name == "HTTP/3, our client"]
    for load in loads:
        async with under(load):
            spare = await program.wait_for_spare()
            oldest = program.workers()[0]
            ready = len(re.findall(_READY, program.log))
            begun = time.monotonic()
            os.kill(oldest, signal.SIGKILL)
            found = await program.wait(_READY, ready + 1)
            seconds = time.monotonic() - begun
            if f"(process {spare})" not in found[-1]:
                print("  the spare process has not become the worker")
            await asyncio.sleep(1)
        print(f"{load}; the worker is back after {seconds:.2f} s")


# ---- The soak ----


async def websocket(program: Program, load: Load) -> None:
    """Exchange messages over a WebSocket of HTTP/1.1, and close it."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.clear)
        writer.write(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n"
            b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            load.counts["refused"] += 1
        for _ in range(20 if b" 101 " in head else 0):
            # A masked text of five octets (RFC 6455, 5.2); the mask is zero.
            writer.write(b"\x81\x85\0\0\0\0hello")
            opcode = (await reader.readexactly(2))[0] & 0x0F
            if opcode == 8:
                load.counts["WebSockets that were closed"] += 1
                break
            await reader.readexactly(5)
            load.counts["answered"] += 1
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        load.counts[f"lost: {type(error).__name__}"] += 1


async def resets(program: Program, load: Load) -> None:
    """Cancel requests, and drop connections in the middle of some."""
    client = Client(f"https://localhost:{program.secure}", ssl=program.client_context())
    async with client:
        for _ in range(50):
            task = asyncio.ensure_future(client.get("/slow"))
            await asyncio.sleep(random.random() * 0.05)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, NGHTTP2Error, OSError):
                await task
            load.counts["cancelled"] += 1
    with contextlib.suppress(NGHTTP2Error, OSError):
        connection = await open_connection("127.0.0.1", program.clear)
        await connection.open_stream(
            [(":method", "GET"), (":path", "/slow"), (":scheme", "http")]
        )
        connection.abort()
    with socket.create_connection(("127.0.0.1", program.clear)) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
    load.counts["dropped"] += 2


def memory(pid: int) -> int:
    """The resident memory of a process, in KiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        if found:
            return int(found[1])
    return 0


async def soak(program: Program, seconds: float, pause: float) -> None:
    """Mixed load, and SIGHUP after each ``pause``."""
    loads = [
        *all_loads(program),
        Load("WebSocket", lambda load: websocket(program, load)),
        Load("cancelled", lambda load: resets(program, load)),
    ]
    end = time.monotonic() + seconds
    async with under(*loads):
        while time.monotonic() < end:
            await asyncio.sleep(pause / 2)
            first = {pid: memory(pid) for pid in program.workers()}
            await asyncio.sleep(pause / 2)
            for pid, before in first.items():
                if now := memory(pid):
                    print(
                        f"  process {pid}: {before} KiB, then {now} KiB "
                        f"({100 * (now - before) / before:+.1f} %)"
                    )
            print(f"  supervisor: {memory(program.process.pid)} KiB")
            if time.monotonic() < end:
                print(f"  all replaced in {await program.roll():.1f} s")
    for load in loads:
        print(load)


@contextlib.contextmanager
def running(workers: int, options: list[str]) -> Iterator[Program]:
    with tempfile.TemporaryDirectory() as directory:
        program = Program(Path(directory), workers, options)
        try:
            yield program
        finally:
            program.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["roll", "kill", "soak"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kinds", default="", help="of load: a regular expression")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the soak")
    parser.add_argument("--pause", type=float, default=60.0, help="between SIGHUPs")
    parser.add_argument("options", nargs="*", help="of nghttp2py run, after --")
    arguments = parser.parse_args()
    with running(arguments.workers, arguments.options) as program:
        await program.start()
        if arguments.part == "roll":
            await roll(program, arguments.kinds)
        elif arguments.part == "kill":
            await kill(program)
        else:
            await soak(program, arguments.seconds, arguments.pause)


if __name__ == "__main__":
    asyncio.run(main())
