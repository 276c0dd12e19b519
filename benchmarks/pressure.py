"""Clients that cost a server memory: how much ``nghttp2py run`` takes for each.

Over HTTP/1.1 and HTTP/2, with and without TLS, and HTTP/3:

- slow reader: connections whose request is answered with 100 MB, and which read nothing
- unread upload: connections that send as much as they may, to an application that
  reads nothing
- rapid reset: requests that are reset at once; over HTTP/1.1, connections that are
- half open: connections that stop in the middle of their beginning

The server is a process of its own, a new one for each.  Its memory is read before and
meanwhile; what remains is that after the clients have gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trustme

from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import ErrorCode, NGHTTP2Error
from nghttp2py.h2 import H2Configuration, H2Connection
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.connection import QuicConnection

CLIENTS = 100
RESETS = 20_000
#: Seconds for which each load lasts.
SECONDS = 3.0
#: Seconds that a connection has for its beginning.
BEGINNING = 2.0
_HOST = "127.0.0.1"
_LARGE = 100_000_000
_PIECE = bytes(65536)
# The window and the credit that a client gives that reads nothing.
_WIDE = 1 << 30


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer ``/large`` with 100 MB, and ``/unread`` without reading its body."""
    assert scope["type"] == "http"
    if scope["path"] == "/unread":
        await asyncio.sleep(3600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/large":
        message = {"type": "http.response.body", "body": _PIECE, "more_body": True}
        for _ in range(_LARGE // len(_PIECE)):
            await send(message)
    await send({"type": "http.response.body", "body": b""})


def pause_reading(writer: asyncio.StreamWriter) -> None:
    """Read nothing more of a connection."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()


class Program:
    """``nghttp2py run`` with the application of this file, at ``port``."""

    def __init__(self, directory: Path, *, tls: bool) -> None:
        command = [sys.executable, "-m", "nghttp2py", "run", "pressure:app"]
        command += [f"--app-dir={Path(__file__).parent}", "--port=0"]
        command += [f"--timeout-handshake={BEGINNING}", "--no-access-log"]
        command += [f"--timeout-request-head={BEGINNING}"]
        if tls:
            command += [f"--ssl-certfile={directory / 'pem'}"]
        self._log = directory / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = 0

    async def start(self) -> None:
        """Wait until it listens."""
        end = time.monotonic() + 30
        while (found := re.search(r"listening on .*:(\d+)", self.text())) is None:
            assert self._process.poll() is None and end > time.monotonic(), self.text()
            await asyncio.sleep(0.05)
        self.port = int(found[1])

    def text(self) -> str:
        """Return what it has logged."""
        return self._log.read_text()

    def memory(self, name: str = "VmRSS") -> int:
        """Return its bytes in memory; with "VmHWM" the most that they have been."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Clients:
    """Connections of one version to a program."""

    def __init__(self, program: Program, version: str, *, tls: bool) -> None:
        self._program = program
        self.version = version
        self._context: ssl.SSLContext | None = None
        if tls and version != "HTTP/3":
            self._context = ssl.create_default_context()
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
            alpn = "h2" if version == "HTTP/2" else "http/1.1"
            self._context.set_alpn_protocols([alpn])
        self._stack = contextlib.AsyncExitStack()
        self._http3: list[H3Protocol] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection of TCP, with TLS or without."""
        reader, writer = await asyncio.open_connection(
            _HOST, self._program.port, ssl=self._context
        )
        self._stack.callback(writer.transport.abort)
        return reader, writer

    async def connect_http2(self) -> tuple[H2Connection, asyncio.StreamWriter]:
        """Open a connection of HTTP/2 that has exchanged SETTINGS."""
        reader, writer = await self.connect()
        connection = H2Connection(
            client_side=True,
            config=H2Configuration(
                initial_window_size=_WIDE, connection_window_size=_WIDE
            ),
        )
        connection.initiate_connection()
        while connection.settings_unacknowledged:
            writer.write(connection.data_to_send())
            connection.receive_data(await reader.read(65536))
        writer.write(connection.data_to_send())
        return connection, writer

    async def connect_http3(self) -> H3Protocol:
        """Open a connection of HTTP/3."""
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, is_client=True
        )
        client = await self._stack.enter_async_context(
            connect(
                _HOST,
                self._program.port,
                configuration=configuration,
                create_protocol=H3Protocol,
            )
        )
        assert isinstance(client, H3Protocol)
        self._http3.append(client)
        return client

    async def close(self) -> None:
        """Close all connections."""
        for client in self._http3:
            client.abort()
        await self._stack.aclose()

    def _fields(self, method: bytes, path: bytes) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", method),
            (
                b":scheme",
                b"https" if self._context or self.version == "HTTP/3" else b"http",
            ),
            (b":authority", b"localhost"),
            (b":path", path),
        ]

    # ---- The loads ----

    async def read_nothing(self) -> None:
        """Request a large response, and read none of it."""
        if self.version == "HTTP/3":
            client = await self.connect_http3()
            await client.open_stream(self._fields(b"GET", b"/large"), end_stream=True)
        elif self.version == "HTTP/2":
            connection, writer = await self.connect_http2()
            connection.send_request("GET", "/large", authority="localhost")
            writer.write(connection.data_to_send())
            pause_reading(writer)
        else:
            _, writer = await self.connect()
            writer.write(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
            pause_reading(writer)

    async def upload(self) -> None:
        """Send as much of a body as the server takes."""
        end = asyncio.get_running_loop().time() + SECONDS
        if self.version == "HTTP/3":
            client = await self.connect_http3()
            stream = await client.open_stream(self._fields(b"POST", b"/unread"))
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    await asyncio.wait_for(stream.send_data(_PIECE), SECONDS)
        elif self.version == "HTTP/2":
            connection, writer = await self.connect_http2()
            number = connection.send_request(
                "POST", "/unread", authority="localhost", end_stream=False
            )
            connection.send_body(number, bytes(1 << 20), end_stream=False)
            writer.write(connection.data_to_send())
        else:
            _, writer = await self.connect()
            writer.write(
                b"POST /unread HTTP/1.1\r\nhost: localhost\r\n"
                b"content-length: %d\r\n\r\n" % _LARGE
            )
            with contextlib.suppress(asyncio.TimeoutError):
                while asyncio.get_running_loop().time() < end:
                    writer.write(_PIECE)
                    await asyncio.wait_for(writer.drain(), SECONDS)

    async def reset(self) -> None:
        """Make requests that are reset at once, as long as the server allows it."""
        if self.version == "HTTP/1.1":
            for _ in range(RESETS // CLIENTS):
                _, writer = await self.connect()
                writer.write(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
                writer.transport.abort()
        elif self.version == "HTTP/2":
            connection, writer = await self.connect_http2()
            with contextlib.suppress(NGHTTP2Error, OSError):
                for _ in range(RESETS // CLIENTS):
                    number = connection.send_request(
                        "GET", "/large", authority="localhost"
                    )
                    connection.reset_stream(number, ErrorCode.CANCEL)
                    writer.write(connection.data_to_send())
                    await writer.drain()
        elif self.version == "HTTP/3":
            client = await self.connect_http3()
            with contextlib.suppress(NGHTTP2Error, OSError):
                for _ in range(RESETS // CLIENTS):
                    stream = await asyncio.wait_for(
                        client.open_stream(
                            self._fields(b"GET", b"/large"), end_stream=True
                        ),
                        SECONDS,
                    )
                    stream.reset(ErrorCode.CANCEL)
                    await asyncio.sleep(0)

    async def stop_halfway(self) -> None:
        """Begin a connection, and send nothing more."""
        if self.version == "HTTP/3":
            # The first datagram of a handshake, and none after it.
            quic = QuicConnection(
                configuration=QuicConfiguration(
                    alpn_protocols=H3_ALPN, is_client=True, server_name="localhost"
                )
            )
            address = (_HOST, self._program.port)
            quic.connect(address, now=time.monotonic())
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._stack.callback(sock.close)
            for data, _ in quic.datagrams_to_send(now=time.monotonic()):
                sock.sendto(data, address)
            return
        if self._context is not None:
            # A record of TLS whose rest does not come.
            _, writer = await asyncio.open_connection(_HOST, self._program.port)
            writer.write(b"\x16\x03\x01\x02\x00\x01")
        else:
            _, writer = await self.connect()
            writer.write(
                b"PRI * HTTP/2.0\r\n\r\nSM"
                if self.version == "HTTP/2"
                else b"GET / HTTP/1.1\r\nhost:"
            )
        self._stack.callback(writer.transport.abort)


LOADS: dict[str, tuple[str, Callable[[Clients], Awaitable[None]]]] = {
    "slow reader": ("100 MB each", Clients.read_nothing),
    "unread upload": ("as much as they may", Clients.upload),
    "rapid reset": (f"{RESETS} in all", Clients.reset),
    "half open": (f"{BEGINNING:g} s allowed", Clients.stop_halfway),
}
CASES = [
    ("HTTP/1.1", False),
    ("HTTP/1.1", True),
    ("HTTP/2", False),
    ("HTTP/2", True),
    ("HTTP/3", True),
]


async def measure(
    load: Callable[[Clients], Awaitable[None]], version: str, tls: bool, clients: int
) -> tuple[int, int, int]:
    """Return the bytes of the server before, at most, and afterwards."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        certificate = trustme.CA().issue_cert("localhost", _HOST)
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / "pem")
        program = Program(directory, tls=tls)
        try:
            await program.start()
            peers = Clients(program, version, tls=tls)
            await warm(peers)
            before = program.memory()
            try:
                tasks = [asyncio.ensure_future(load(peers)) for _ in range(clients)]
                done, left = await asyncio.wait(tasks, timeout=4 * SECONDS)
                for task in left:
                    task.cancel()
                failures = {repr(task.exception()) for task in done} - {"None"}
                for failure in sorted(failures):
                    print(f"  {failure}", file=sys.stderr)
                await asyncio.sleep(SECONDS)
                most = program.memory("VmHWM")
            finally:
                await peers.close()
            await asyncio.sleep(SECONDS)
            return before, most, program.memory()
        finally:
            program.stop()


async def warm(peers: Clients) -> None:
    """Make what the first connection costs."""
    if peers.version == "HTTP/3":
        client = await peers.connect_http3()
        stream = await client.open_stream(peers._fields(b"GET", b"/"), end_stream=True)
        await stream.read()
    else:
        await peers.connect()


def main() -> None:
    """Measure all of it, or what is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("loads", nargs="*", help=", ".join(LOADS))
    given = parser.parse_args()
    print(f"{given.clients} clients; MiB of the server's memory")
    print(f"{'load':14} {'version':9} {'tls':4} {'before':>7} {'most':>7} {'after':>7}")
    for name in given.loads or LOADS:
        for version, tls in CASES:
            sizes = asyncio.run(measure(LOADS[name][1], version, tls, given.clients))
            before, most, after = (f"{size / (1 << 20):7.1f}" for size in sizes)
            mark = "yes" if tls else "no"
            print(f"{name:14} {version:9} {mark:4} {before} {most} {after}", flush=True)


if __name__ == "__main__":
    main()
