"""QUIC connections over several workers that change their port: how many are lost.

Each connection is opened, used, given another source port, and used again; then all
workers are replaced, one after the other, and each connection is used once more.  The
program prints how many connections were lost, and the share of datagrams that had to be
passed on to another worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import trustme

from nghttp2py.asyncio.quic import QuicConnectionProtocol, QuicServer, connect, serve
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.asyncio.quic_member import QuicMember, QuicMemberCounts
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.quic import QuicConfiguration

CONNECTIONS = 2000
WORKERS = 4

# How many handshakes are in progress at once.
_OPENING = 50
# How long anything may take, in seconds.
_LONGEST = 120.0
_ALPN = ["test"]
_BODY = b"datagram " * 200
# Files that the process has open for itself.
_SPARE = 200


# ---- A worker: a process of its own ----


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a stream back."""
    writer.write(await reader.read())
    writer.write_eof()


async def work(state: dict[str, Any]) -> None:
    """Serve until standard input ends; then let the connections end, and report."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(echo(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    member = QuicMember.restore(state["member"], state["descriptors"])
    configuration = QuicConfiguration(is_client=False, alpn_protocols=_ALPN)
    configuration.load_cert_chain(state["certificate"])
    server: QuicServer = await serve(
        group=member, configuration=configuration, stream_handler=accept
    )
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    await server.drain(_LONGEST)
    await server.wait_closed()
    print(json.dumps(member.counts._asdict()), flush=True)


class Workers:
    """The supervisor: the group, and the process of each slot."""

    def __init__(self, size: int, certificate: str, bpf: bool) -> None:
        self.group = QuicGroup([("127.0.0.1", 0)], size, bpf=bpf)
        self.counts: list[QuicMemberCounts] = []
        self._certificate = certificate
        self._processes: dict[tuple[int, int], asyncio.subprocess.Process] = {}

    async def start(self, slot: int, generation: int) -> None:
        """Start a worker, and wait until it serves."""
        member = self.group.member(slot, generation)
        state, descriptors = member.describe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
        )
        member.close()
        start = {
            "member": state,
            "descriptors": descriptors,
            "certificate": self._certificate,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(start).encode() + b"\n")
        await process.stdin.drain()
        await self._read(process)
        self._processes[slot, generation] = process

    async def _read(self, process: asyncio.subprocess.Process) -> bytes:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _LONGEST)
        assert line, "a worker has failed"
        return line

    def drain(self, slot: int, generation: int) -> None:
        """Have a worker end when its connections have."""
        process = self._processes[slot, generation]
        assert process.stdin is not None
        process.stdin.close()

    async def end(self) -> None:
        """Wait for the end of all workers."""
        for (slot, generation), process in self._processes.items():
            self.drain(slot, generation)
            line = json.loads(await self._read(process))
            self.counts.append(QuicMemberCounts(**line))
            await process.wait()
            self.group.ended(slot, generation)
        self.group.close()

    def kill(self) -> None:
        """End what is left."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
        self.group.close()


# ---- The clients ----


class Client(QuicConnectionProtocol):
    """A client that can change its port."""

    def move(self) -> None:
        """Send from a new port from now on, as behind a NAT."""
        old: Any = self._transport
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("::", 0))
        UDPTransport(self._loop, sock, self)
        old._protocol = asyncio.DatagramProtocol()
        old.close()

    async def talk(self) -> None:
        """Have a stream sent back."""
        reader, writer = await self.create_stream()
        writer.write(_BODY)
        writer.write_eof()
        assert await reader.read() == _BODY


async def hold(
    address: tuple[str, int],
    authority: bytes,
    opening: asyncio.Semaphore,
    ready: asyncio.Queue[Client],
    end: asyncio.Event,
) -> None:
    """Hold one connection until the event."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=_ALPN, server_name="localhost", cadata=authority
    )
    configuration.idle_timeout = _LONGEST
    await opening.acquire()
    async with connect(
        *address,
        configuration=configuration,
        create_protocol=Client,
        connect_timeout=_LONGEST,
    ) as protocol:
        opening.release()
        client: Any = protocol
        await ready.put(client)
        await end.wait()
        client.close()
        await client.wait_closed()
        client._transport.close()


async def each(clients: list[Client], what: str) -> int:
    """Use each connection; return how many are lost."""
    bound = asyncio.Semaphore(_OPENING)

    async def use(client: Client) -> bool:
        async with bound:
            try:
                await asyncio.wait_for(client.talk(), _LONGEST)
            except (OSError, asyncio.TimeoutError) as error:
                print(f"  lost {what}: {error!r}")
                return True
        return False

    return sum(await asyncio.gather(*map(use, clients)))


def share(counts: list[QuicMemberCounts]) -> str:
    """Return the share of datagrams that were passed on, and how many were lost."""
    received = sum(one.received for one in counts)
    forwarded = sum(one.forwarded for one in counts)
    dropped = sum(one.dropped for one in counts)
    return (
        f"{forwarded:,} of {received:,} datagrams were passed on "
        f"({100 * forwarded / max(received, 1):.1f} %), {dropped:,} of them dropped"
    )


async def measure(number: int, size: int, bpf: bool, restart: bool) -> int:
    """Open, use and move the connections; return how many were lost."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as directory:
        certificate = Path(directory) / "server.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        workers = Workers(size, str(certificate), bpf)
        try:
            lost = await run(
                workers, number, authority.cert_pem.bytes(), restart=restart
            )
        finally:
            workers.kill()
    steered = "the kernel chooses by connection ids" if bpf else "without BPF"
    print(
        f"{number:,} connections over {size} workers, {steered}: {lost} lost; "
        + share(workers.counts)
    )
    return lost


async def run(workers: Workers, number: int, authority: bytes, restart: bool) -> int:
    """Do so with workers that are to be started."""
    size = workers.group.size
    for slot in range(size):
        await workers.start(slot, 0)
    ready: asyncio.Queue[Client] = asyncio.Queue()
    opening = asyncio.Semaphore(_OPENING)
    end = asyncio.Event()
    address = workers.group.addresses[0]
    tasks = [
        asyncio.ensure_future(hold(address, authority, opening, ready, end))
        for _ in range(number)
    ]
    lost = 0
    try:
        clients = [await asyncio.wait_for(ready.get(), _LONGEST) for _ in range(number)]
        lost += await each(clients, "before it moved")
        for client in clients:
            client.move()
        lost += await each(clients, "when it moved")
        if restart:
            for slot in range(size):
                await workers.start(slot, 1)
                workers.drain(slot, 0)
            lost += await each(clients, "when its worker was replaced")
    finally:
        end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    await workers.end()
    return lost


def main() -> None:
    """Run it once with BPF and once without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=CONNECTIONS, help="connections")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--restart", action="store_true", help="replace all workers")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(json.loads(sys.stdin.readline())))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = min(options.n, hard - _SPARE)
    lost = sum(
        asyncio.run(measure(number, options.workers, bpf, options.restart))
        for bpf in (True, False)
    )
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
