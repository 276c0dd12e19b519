"""nghttp2py.asyncio.Client beside C programs, and over HTTP/3 beside aioquic.

Small GETs from nghttpd, 32 at a time on one connection, each body read whole: CPU time
beside h2load.  The same over HTTP/3 from gtlsserver, beside httpx on aioquic, which has
no HTTP/3 of its own: its transport is written here, as programs write it.  A download
from nghttpd: time beside nghttp.  All are measured in turns in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import aioquic.asyncio
import aioquic.h3.connection
import aioquic.h3.events
import aioquic.quic.configuration
import figures
import httpx
import quic
import streams

from nghttp2py.asyncio import Client
from nghttp2py.quic import QuicConfiguration

# Of the CPU time of h2load, of that of the programs on aioquic, of nghttp's time.
GOAL, GOAL_HTTP3, GOAL_DOWNLOAD = 3.0, 10.0, 0.9
LARGE = 100_000_000


# ---- Small GETs ----


async def ask(made: Client, n: int) -> None:
    """Ask with Client, and read each response."""

    async def work(n: int) -> None:
        for _ in range(n):
            response = await made.get("/hello")
            body = await response.read()
            assert response.status == 200 and body == streams.BODY

    await streams.share(work, n)


async def client(port: int, n: int) -> None:
    """Ask over HTTP/2."""
    async with Client(f"http://127.0.0.1:{port}") as made:
        await ask(made, n)


class AioquicProtocol(aioquic.asyncio.QuicConnectionProtocol):
    """Gives each request a future, which its response ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = aioquic.h3.connection.H3Connection(self._quic)
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._responses: dict[int, tuple[list[tuple[bytes, bytes]], bytearray]] = {}

    async def ask(self, fields: list[tuple[bytes, bytes]]) -> Any:
        """Send a request; return the fields and the body of its response."""
        stream_id = self._quic.get_next_available_stream_id()
        self._http.send_headers(stream_id, fields, end_stream=True)
        answer = self._answers[stream_id] = self._loop.create_future()
        self.transmit()
        await answer
        return self._responses.pop(stream_id)

    def quic_event_received(self, event: Any) -> None:
        for received in self._http.handle_event(event):
            if isinstance(received, aioquic.h3.events.HeadersReceived):
                self._responses[received.stream_id] = received.headers, bytearray()
            elif isinstance(received, aioquic.h3.events.DataReceived):
                self._responses[received.stream_id][1].extend(received.data)
            else:
                continue
            if received.stream_ended:
                self._answers.pop(received.stream_id).set_result(None)


class AioquicTransport(httpx.AsyncBaseTransport):
    """httpx over a connection of aioquic."""

    def __init__(self, protocol: AioquicProtocol) -> None:
        self._protocol = protocol

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        fields = [
            (b":method", request.method.encode()),
            (b":scheme", url.raw_scheme),
            (b":authority", url.netloc),
            (b":path", url.raw_path),
        ]
        fields += [
            (name.lower(), value)
            for name, value in request.headers.raw
            if name.lower() not in (b"connection", b"host")
        ]
        headers, body = await self._protocol.ask(fields)
        return httpx.Response(
            int(headers[0][1]), headers=headers[1:], content=bytes(body)
        )


async def ask_by_aioquic(port: int, n: int, authority: str) -> None:
    """Ask over HTTP/3 with httpx on aioquic."""
    configuration = aioquic.quic.configuration.QuicConfiguration(
        alpn_protocols=["h3"], server_name="localhost", cafile=authority
    )
    async with aioquic.asyncio.connect(
        "127.0.0.1",
        port,
        configuration=configuration,
        create_protocol=AioquicProtocol,
    ) as protocol:
        assert isinstance(protocol, AioquicProtocol)
        transport = AioquicTransport(protocol)
        async with httpx.AsyncClient(transport=transport) as made:

            async def work(n: int) -> None:
                for _ in range(n):
                    response = await made.get(f"https://localhost:{port}/hello")
                    assert response.content == streams.BODY

            await streams.share(work, n)


async def ask_by_http3(port: int, n: int, authority: str) -> None:
    """Ask over HTTP/3 with Client."""
    trust = QuicConfiguration(cafile=authority, server_name="localhost")
    async with Client(f"https://127.0.0.1:{port}", http3=trust) as made:
        await ask(made, n)


def compare_http3(n: int, turns: int) -> figures.Rows:
    """Return the CPU microseconds of a request over HTTP/3."""
    few = max(streams.CONCURRENCY, n // 8 // streams.CONCURRENCY * streams.CONCURRENCY)
    found = []
    with tempfile.TemporaryDirectory() as directory:
        files = quic.Files(Path(directory))
        (files.directory / "hello").write_bytes(streams.BODY)
        authority = files.authority

        async def ours(port: int, n: int) -> None:
            await ask_by_http3(port, n, authority)

        async def theirs(port: int, n: int) -> None:
            await ask_by_aioquic(port, n, authority)

        port = quic.free_port()
        server = quic.start_gtlsserver(files, port, 0)
        try:
            quic.wait_for_udp(port)
            for _ in range(turns):
                row = [streams.measure(ours, loop, port, n)[1] / n for loop in LOOPS]
                row.append(streams.measure(theirs, "asyncio", port, few)[1] / few)
                found.append([each * 1e6 for each in row])
        finally:
            os.kill(server, signal.SIGTERM)
            os.waitpid(server, 0)
    names = [*(f"nghttp2py, {loop}" for loop in LOOPS), "httpx on aioquic"]
    return {"small GETs, HTTP/3": dict(zip(names, figures.medians(found), strict=True))}


# ---- A download ----


async def download(port: int, size: int) -> None:
    """Get the large file, piece by piece."""
    count = 0
    async with Client(f"http://127.0.0.1:{port}") as made:
        response = await made.get("/large")
        async for piece in response:
            count += len(piece)
    assert count == size


def compare_download(port: int, size: int, turns: int) -> figures.Rows:
    """Return the seconds of a download."""
    found = []
    url = f"http://127.0.0.1:{port}/large"
    # Windows as wide as ours are.
    nghttp = "nghttp", "--null-out", "--window-bits=20", "--connection-window-bits=30"
    for _ in range(turns):
        row = [streams.measure(download, loop, port, size)[0] for loop in LOOPS]
        row.append(streams.run_program(*nghttp, url)[0])
        found.append(row)
    names = [*(f"nghttp2py, {loop}" for loop in LOOPS), "nghttp"]
    return {
        f"{size / 1e6:.0f} MB": dict(zip(names, figures.medians(found), strict=True))
    }


LOOPS = list(streams.LOOPS)


def main() -> None:
    """Measure, and print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=16000, help="requests a turn")
    parser.add_argument("--size", type=int, default=LARGE, help="bytes to download")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    n = max(32, options.n // streams.CONCURRENCY * streams.CONCURRENCY)
    with streams.nghttpd(options.size) as port:
        rows = streams.compare({"small GETs, HTTP/2": client}, port, n, options.turns)
        seconds = compare_download(port, options.size, options.turns)
    if quic.program("gtlsserver") is None:
        print("gtlsserver is missing: nothing is measured over HTTP/3")
    else:
        rows |= compare_http3(n // 4, options.turns)
    streams.tell(rows, "us")
    streams.tell(seconds, "s")
    figures.keep(
        "client",
        "Client, a small GET of 32 at a time: CPU time",
        "µs",
        rows,
        goal=f"at most {GOAL:.0f} times h2load, over HTTP/3 a {GOAL_HTTP3:.0f}th of "
        "httpx on aioquic",
    )
    figures.keep(
        "client_download",
        "A download of one file",
        "s",
        seconds,
        goal=f"at least {GOAL_DOWNLOAD} times as fast as nghttp",
    )


if __name__ == "__main__":
    main()
