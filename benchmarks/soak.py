"""Thousands of random requests between our client and our server, over loopback.

Bodies up to 4 MiB go in both directions, and every byte of them is checked by
hash.  Some requests are given up by the task that makes them, some answers by
the handler, and either end resets streams where it likes.  At the end nothing
may be left.  The dice have a seed, so that a run can be had again, as far as
the sockets allow it.  ``--tls`` runs it over TLS.  ``--http3`` runs it over QUIC,
with the server in a process of its own and one connection after the other, and
watches the memory of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import random
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import trustme
import uvloop

from nghttp2py.asyncio import H2Protocol, open_connection, start_server
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.errors import ErrorCode, ProtocolError
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode
from nghttp2py.quic.configuration import QuicConfiguration

REQUESTS = 5000
MOST = 4 * 1024 * 1024
# Bodies are slices of this, which is made once: random bytes cost time.
_PIECE = 50_000
# Seconds in which what has ended must be gone.
_GRACE = 10.0
# Over HTTP/3: seconds of a run, requests of a connection, bytes by which a process may
# grow after the first tenth of the run.
SECONDS = 60.0
_ROUND = 500
_GROWTH = 16 << 20


class Soak:
    """One run: ``await run()``, then ``outcomes`` tells what became of what."""

    def __init__(
        self, requests: int = REQUESTS, seed: int = 1, *, tls: bool = False
    ) -> None:
        self.requests = requests
        self.tls = make_contexts() if tls else None
        #: Codes of resets: the first two are a server's, the others a client's.
        self.codes: tuple[int, ...] = (
            ErrorCode.CANCEL,
            ErrorCode.INTERNAL_ERROR,
            ErrorCode.NO_ERROR,
        )
        #: Bytes of this process in memory when each quarter of the requests was made.
        self.memory: list[int] = []
        self.dice = random.Random(seed)
        self.data = self.dice.randbytes(2 * MOST)
        #: Requests that ended in each way.
        self.outcomes: Counter[str] = Counter()
        #: Bytes that came whole and were checked, at the server and the client.
        self.bytes = [0, 0]

    def body(self) -> memoryview:
        """Random bytes: mostly few, one time in a hundred 4 MiB."""
        dice = self.dice
        size = MOST if dice.random() < 0.01 else int(MOST * dice.random() ** 40)
        start = dice.randrange(MOST)
        return memoryview(self.data)[start : start + size]

    async def pieces(self, body: memoryview) -> AsyncIterator[bytes]:
        """Give ``body`` in pieces, with a turn of the loop now and then."""
        for start in range(0, len(body), _PIECE):
            if self.dice.random() < 0.1:
                await asyncio.sleep(0)
            yield bytes(body[start : start + _PIECE])

    # ---- The server ----

    async def answer(self, stream: Any) -> None:
        """Check the request's body, and answer with one of our own."""
        dice = self.dice
        if stream.request.target == b"/early":
            self.outcomes["early answers"] += 1
            await stream.send_response(413, body=b"too large")
            return
        fate = dice.random()
        digest, size = hashlib.sha256(), 0
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
            if fate < 0.05 and dice.random() < 0.3:
                stream.reset(dice.choice(self.codes[:2]))
        trailers = dict(await stream.trailers())
        # A body that was cut off has raised; this one claims to be whole.
        sent = digest.hexdigest().encode()
        if stream.request.method == b"POST" and trailers[b"digest"] != sent:
            self.outcomes["corrupt request"] += 1
            raise AssertionError(f"{size} bytes of a request are not what was sent")
        self.bytes[0] += size
        body = self.body()
        sending = asyncio.ensure_future(
            stream.send_response(
                200,
                {"size": str(len(body))},
                self.pieces(body) if fate < 0.5 else body,
                trailers={"digest": hashlib.sha256(body).hexdigest()},
            )
        )
        if 0.05 <= fate < 0.1:
            asyncio.get_running_loop().call_later(dice.random() / 50, sending.cancel)
        try:
            await sending
        except asyncio.CancelledError:
            self.outcomes["answers cancelled"] += 1
        finally:
            await _end(sending)

    # ---- The client ----

    async def open(self, client: Any, method: str, path: str) -> Any:
        """Begin a request."""
        end = method == "GET"
        return await client.open_stream(
            {":method": method, ":path": path}, end_stream=end
        )

    async def ask(self, client: Any) -> None:
        """Send a request, most times with a body, and check the answer's."""
        dice = self.dice
        kind = dice.random()
        if kind < 0.1:
            await self.ask_early(client)
            return
        fate = dice.random()
        body = self.body() if kind > 0.3 else memoryview(b"")
        stream = await self.open(client, "POST" if kind > 0.3 else "GET", "/")
        async with stream:
            sending = asyncio.ensure_future(
                stream.send_body(
                    self.pieces(body) if fate < 0.5 else body,
                    trailers={"digest": hashlib.sha256(body).hexdigest()},
                )
                if kind > 0.3
                else asyncio.sleep(0)
            )
            try:
                if fate < 0.03:
                    await asyncio.sleep(dice.random() / 100)
                    stream.reset(dice.choice(self.codes[::2]))
                response = await stream.response()
                digest, size = hashlib.sha256(), 0
                async for chunk in stream:
                    digest.update(chunk)
                    size += len(chunk)
                    if 0.03 <= fate < 0.06 and dice.random() < 0.3:
                        self.outcomes["left unread"] += 1
                        return
                await sending
                trailers = dict(await stream.trailers())
            finally:
                await _end(sending)
        if response.status == 500:
            # Of an answer that was cancelled before it began.
            self.outcomes["reset"] += 1
            return
        assert trailers[b"digest"] == digest.hexdigest().encode(), "bytes are wrong"
        assert dict(response.headers)[b"size"] == b"%d" % size, "bytes are missing"
        self.bytes[1] += size
        self.outcomes["whole"] += 1

    async def ask_early(self, client: Any) -> None:
        """Send a large request that is answered before it has come."""
        body = memoryview(self.data)[: self.dice.randrange(MOST)]
        stream = await self.open(client, "POST", "/early")
        async with stream:
            sending = asyncio.ensure_future(stream.send_body(self.pieces(body)))
            try:
                response = await stream.response()
                assert response.status == 413
                assert b"".join([piece async for piece in stream]) == b"too large"
            finally:
                await _end(sending)
        self.outcomes["answered early"] += 1

    async def work(self, client: Any, left: list[int]) -> None:
        """Make requests until none are left, each in a task, cancelling some."""
        while left[0]:
            if left[0] % (self.requests // 4 or 1) == 0:
                self.memory.append(resident())
            left[0] -= 1
            task = asyncio.ensure_future(self.ask(client))
            if self.dice.random() < 0.05:
                asyncio.get_running_loop().call_later(
                    self.dice.random() / 20, task.cancel
                )
            await asyncio.wait([task])
            if task.cancelled():
                self.outcomes["cancelled"] += 1
            elif (error := task.exception()) is not None:
                if not isinstance(error, ProtocolError):
                    raise error
                self.outcomes["reset"] += 1

    # ---- All of it ----

    @property
    def made(self) -> int:
        """How many requests have ended, in any way."""
        ends = ("whole", "answered early", "reset", "cancelled", "left unread")
        return sum(self.outcomes[name] for name in ends)

    async def run(self, concurrency: int = 32) -> None:
        """Make the requests on one connection; raise if anything is left."""
        tasks = len(asyncio.all_tasks())
        sockets = _count_sockets()
        complaints: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        server = await start_server(
            lambda protocol: protocol.serve_streams(self.answer),
            "127.0.0.1",
            0,
            ssl=self.tls and self.tls[0],
            concurrency=concurrency * 2,
        )
        port = server.sockets[0].getsockname()[1]
        ours = self.tls and self.tls[1]
        async with server, await open_connection("127.0.0.1", port, ssl=ours) as client:
            left = [self.requests]
            await asyncio.gather(*(self.work(client, left) for _ in range(concurrency)))
            (served,) = server.connections
            for end in (client, served):
                await _until(lambda end=end: _is_empty(end), f"{end} keeps something")
        if self.outcomes["corrupt request"]:
            raise AssertionError("requests came otherwise than they were sent")
        assert self.made == self.requests, "requests are lost"
        await _until(lambda: len(asyncio.all_tasks()) == tasks, "tasks are left")
        await _until(lambda: _count_sockets() == sockets, "sockets are left")
        assert not complaints, complaints


class Http3Soak(Soak):
    """One end of a run over HTTP/3: a client, or the server in its own process."""

    def __init__(self, requests: int = _ROUND, seed: int = 1) -> None:
        super().__init__(requests, seed)
        self.codes = (
            H3ErrorCode.H3_REQUEST_CANCELLED,
            H3ErrorCode.H3_INTERNAL_ERROR,
            H3ErrorCode.H3_NO_ERROR,
        )
        self.protocols: list[H3Protocol] = []
        self.complaints: list[str] = []

    async def open(self, client: Any, method: str, path: str) -> Any:
        headers = {
            ":method": method,
            ":scheme": "https",
            ":authority": "localhost",
            ":path": path,
        }
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        return await client.open_stream(fields, end_stream=method == "GET")

    def complain(self, _: object, context: dict[str, Any]) -> None:
        """Keep what has reached the event loop."""
        self.complaints.append(repr(context))

    def make(self, *args: Any, **options: Any) -> H3Protocol:
        """Make the protocol of a server's connection."""
        protocol = H3Protocol(*args, request_handler=self.answer, **options)
        self.protocols.append(protocol)
        return protocol

    async def serve(self, certificate: str) -> None:
        """Print the port, then a line of JSON for each line that comes in."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.complain)
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        configuration.load_cert_chain(certificate)
        server = await serve(
            "127.0.0.1", 0, configuration=configuration, create_protocol=self.make
        )
        print(server.sockets[0].getsockname()[1], flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            with contextlib.suppress(AssertionError):
                await _until(self.is_empty, "the server keeps something")
            state = {
                "memory": _settled(),
                "waited": waited(),
                "empty": self.is_empty(),
                "tasks": len(asyncio.all_tasks()),
                "bytes": self.bytes[0],
                "outcomes": self.outcomes,
                "complaints": self.complaints,
            }
            print(json.dumps(state), flush=True)
        server.abort()

    def is_empty(self) -> bool:
        """Whether nothing of streams is left, and no connection that is over."""
        self.protocols = [end for end in self.protocols if not end._closed.is_set()]
        return all(map(_is_empty_http3, self.protocols))

    async def run_http3(
        self,
        make_connection: Callable[[], Any],
        seconds: float,
        look: Callable[[], Any],
    ) -> None:
        """Make requests for so many seconds, on one connection after the other.

        ``look`` is called ten times, and after the end.
        """
        asyncio.get_running_loop().set_exception_handler(self.complain)
        begin = time.monotonic()
        looks = 0
        while (spent := time.monotonic() - begin) < seconds:
            if spent >= looks * seconds / 10:
                looks += 1
                await look()
            made = self.made
            async with make_connection() as client:
                left = [self.requests]
                await asyncio.gather(*(self.work(client, left) for _ in range(32)))
                await _until(lambda c=client: _is_empty_http3(c), "streams are left")
            assert self.made - made == self.requests, "requests are lost"
        await look()
        assert not self.complaints, self.complaints


def _is_empty_http3(protocol: H3Protocol) -> bool:
    return not (
        protocol._streams_by_id
        or protocol._arrived
        or protocol._answered
        or protocol._openers
        or (not protocol._quic.closed and protocol._quic.queued_data())
    )


def _settled() -> int:
    """Bytes of this process in memory, without what is free in malloc's heap."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return resident()


def soak_http3(seconds: float, seed: int) -> Http3Soak:
    """Run a client here and its server in another process; print what they used."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    soak = Http3Soak(seed=seed)
    seen: list[tuple[float, int, dict[str, Any]]] = []
    begin = time.monotonic()
    with issued.private_key_and_cert_chain_pem.tempfile() as certificate:
        command = [
            sys.executable,
            __file__,
            "--serve",
            certificate,
            "--seed",
            str(seed),
        ]
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdin is not None and server.stdout is not None
        try:
            port = int(server.stdout.readline())

            def make_connection() -> Any:
                configuration = QuicConfiguration(
                    is_client=True,
                    alpn_protocols=H3_ALPN,
                    cadata=authority.cert_pem.bytes(),
                    server_name="localhost",
                )
                return connect(
                    "127.0.0.1",
                    port,
                    configuration=configuration,
                    create_protocol=H3Protocol,
                )

            def ask() -> dict[str, Any]:
                print(file=server.stdin, flush=True)
                state: dict[str, Any] = json.loads(server.stdout.readline())
                return state

            async def look() -> None:
                state = await asyncio.get_running_loop().run_in_executor(None, ask)
                now = time.monotonic() - begin
                seen.append((now, _settled(), state))
                print(
                    f"{now:4.0f} s: {soak.made} requests, client "
                    f"{seen[-1][1] / 1e6:.1f} MB, server {state['memory'] / 1e6:.1f}; "
                    f"{waited():.0f} and {state['waited']:.0f} s without a processor",
                    flush=True,
                )

            asyncio.run(soak.run_http3(make_connection, seconds, look))
        finally:
            server.stdin.close()
            try:
                server.wait(_GRACE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    last = seen[-1][2]
    assert not last["complaints"], last["complaints"]
    assert not last["outcomes"].get("corrupt request"), "requests came otherwise"
    assert last["empty"], "the server keeps something"
    assert last["tasks"] == 1, "the server's tasks are left"
    soak.bytes[0] = last["bytes"]
    soak.outcomes["early answers"] = last["outcomes"]["early answers"]
    for end in ([look[1] for look in seen], [look[2]["memory"] for look in seen]):
        settled = end[min(2, len(end) - 1)]
        assert end[-1] < settled + _GROWTH, f"memory grows: {end}"
    return soak


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for the server and for the client, with a new authority."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def waited() -> float:
    """Seconds in which this process could run, and others had the processors.

    A round of requests takes ten times as long on a machine that others load.
    """
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:  # another kernel
        return 0.0


def _is_empty(protocol: H2Protocol) -> bool:
    """Whether a connection has no streams, and nothing of theirs."""
    connection = protocol.connection
    return not (
        protocol.stream_count
        or protocol._finished
        or protocol._link.blocked
        or protocol._arrived
        or connection.active_stream_count
        or connection.queued_body()
        or protocol.open_streams
    )


def _count_sockets() -> int:
    """How many sockets of TCP are open; event loops have others of their own."""
    count = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # it was the directory's own
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                file = socket.socket(fileno=os.dup(int(name)))
                count += file.family == socket.AF_INET
                file.close()
    return count


async def _until(condition: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + _GRACE
    while not condition():
        assert time.monotonic() < end, complaint
        await asyncio.sleep(0.001)


async def _end(task: asyncio.Future[None]) -> None:
    """Leave nothing of a task: what it raises, others raise as well."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ProtocolError):
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()


def main() -> None:
    """Run it in both loops, and print what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=REQUESTS, help="requests a loop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.add_argument("--http3", action="store_true", help="over HTTP/3")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="over HTTP/3")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(Http3Soak(seed=options.seed + 1).serve(options.serve))
        return
    if options.http3:
        soak = soak_http3(options.seconds, options.seed)
        print(f"{soak.made} requests: {dict(soak.outcomes)}")
        _print_bytes(soak)
        return
    for name, make in (
        ("asyncio", asyncio.new_event_loop),
        ("uvloop", uvloop.new_event_loop),
    ):
        soak = Soak(options.n, options.seed, tls=options.tls)
        loop = make()
        begin = time.perf_counter()
        try:
            loop.run_until_complete(soak.run())
        finally:
            loop.close()
        seconds = time.perf_counter() - begin
        print(f"{name}: {options.n} requests in {seconds:.1f} s, {dict(soak.outcomes)}")
        _print_bytes(soak)
        print(
            "  MB in memory:", *(f"{n / 1e6:.0f}" for n in [*soak.memory, resident()])
        )


def _print_bytes(soak: Soak) -> None:
    up, down = (n / 1e6 for n in soak.bytes)
    print(f"  {up:.0f} MB up and {down:.0f} MB down whole by hash; nothing is left")


if __name__ == "__main__":
    main()
