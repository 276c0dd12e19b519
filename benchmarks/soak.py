"""Thousands of random requests between our client and our server, over loopback.

Bodies up to 4 MiB go in both directions, and every byte of them is checked by
hash.  Some requests are given up by the task that makes them, some answers by
the handler, and either end resets streams where it likes.  At the end nothing
may be left.  The dice have a seed, so that a run can be had again, as far as
the sockets allow it.  ``--tls`` runs it over TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import socket
import ssl
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import trustme
import uvloop

from nghttp2py.asyncio import H2Protocol, open_connection, start_server
from nghttp2py.asyncio.stream import H2Stream
from nghttp2py.errors import ErrorCode, ProtocolError

REQUESTS = 5000
MOST = 4 * 1024 * 1024
# Bodies are slices of this, which is made once: random bytes cost time.
_PIECE = 50_000
# Seconds in which what has ended must be gone.
_GRACE = 10.0


class Soak:
    """One run: ``await run()``, then ``outcomes`` tells what became of what."""

    def __init__(
        self, requests: int = REQUESTS, seed: int = 1, *, tls: bool = False
    ) -> None:
        self.requests = requests
        self.tls = make_contexts() if tls else None
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

    async def answer(self, stream: H2Stream) -> None:
        """Check the request's body, and answer with one of our own."""
        dice = self.dice
        fate = dice.random()
        digest, size = hashlib.sha256(), 0
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
            if fate < 0.05 and dice.random() < 0.3:
                stream.reset(dice.choice([ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR]))
        trailers = dict(await stream.trailers())
        # A body that was cut off has raised; this one claims to be whole.
        if trailers[b"digest"] != digest.hexdigest().encode():
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

    async def ask(self, client: H2Protocol) -> None:
        """Send a request with a body, and check the answer's."""
        dice = self.dice
        fate = dice.random()
        body = self.body()
        stream = await client.open_stream({":method": "POST", ":path": "/"})
        async with stream:
            sending = asyncio.ensure_future(
                stream.send_body(
                    self.pieces(body) if fate < 0.5 else body,
                    trailers={"digest": hashlib.sha256(body).hexdigest()},
                )
            )
            try:
                if fate < 0.03:
                    await asyncio.sleep(dice.random() / 100)
                    stream.reset(dice.choice([ErrorCode.CANCEL, ErrorCode.NO_ERROR]))
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
        assert trailers[b"digest"] == digest.hexdigest().encode(), "bytes are wrong"
        assert dict(response.headers)[b"size"] == b"%d" % size, "bytes are missing"
        self.bytes[1] += size
        self.outcomes["whole"] += 1

    async def work(self, client: H2Protocol, left: list[int]) -> None:
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
        made = sum(
            self.outcomes[name]
            for name in ("whole", "reset", "cancelled", "left unread")
        )
        assert made == self.requests, "requests are lost"
        await _until(lambda: len(asyncio.all_tasks()) == tasks, "tasks are left")
        await _until(lambda: _count_sockets() == sockets, "sockets are left")
        assert not complaints, complaints


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


def _is_empty(protocol: H2Protocol) -> bool:
    """Whether a connection has no streams, and nothing of theirs."""
    connection = protocol.connection
    return not (
        protocol._streams
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
    options = parser.parse_args()
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
        up, down = (n / 1e6 for n in soak.bytes)
        print(f"{name}: {options.n} requests in {seconds:.1f} s, {dict(soak.outcomes)}")
        print(f"  {up:.0f} MB up and {down:.0f} MB down whole by hash; nothing is left")
        print(
            "  MB in memory:", *(f"{n / 1e6:.0f}" for n in [*soak.memory, resident()])
        )


if __name__ == "__main__":
    main()
