"""The time bounds of servers, with peers that stall or drip, over sockets.

Each peer does all right until it stops; both kinds of servers must get rid of it,
and of what it keeps open, and serve others meanwhile.  The bounds are the defaults:
the clock is virtual.
"""

import asyncio
import contextlib
import struct

import pytest
from helpers import (
    ACK,
    END_HEADERS,
    GET,
    GOAWAY,
    HEADERS,
    MAGIC,
    PING,
    POST,
    RST_STREAM,
    RawPeer,
    data,
    frame,
    ping,
    settings,
    settings_ack,
    window_update,
)
from loops import in_virtual_time, until
from virtual_time import pass_time

from nghttp2py import (
    BaseRequestHandler,
    BaseResponseHandler,
    HTTP2Client,
    HTTP2Server,
)
from nghttp2py.asyncio import Client, Timeouts, open_connection, start_server
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    StreamResetError,
)

DEFAULT = Timeouts()
INITIAL_WINDOW_SIZE = 4
END_STREAM = 1


def now():
    return asyncio.get_running_loop().time()


def assert_in_time(name, begun):
    """A bound ends what it is for no earlier, and at the second look after it."""
    bound = getattr(DEFAULT, name)
    assert bound <= now() - begun <= 1.5 * bound, name


class Handler(BaseRequestHandler):
    """Answers ``/big`` and ``/file`` by 16 MiB, ``/`` by a word, others never."""

    closed: list

    def on_headers(self):
        if self.path == b"/big":
            self.send_response(200, body=bytes(1 << 24))
        elif self.path == b"/file":
            self.send_response(200, body=(bytes(65536) for _ in range(256)))
        elif self.path == b"/begun":
            self.send_headers(200)

    def on_request_done(self):
        if self.path == b"/":
            self.send_response(200, body=b"hello")

    def on_close(self, error_code):
        self.closed.append(error_code)


async def run_streams(protocol, closed):
    async def handle(stream):
        path = stream.request.target
        try:
            if path == b"/big":
                await stream.send_response(200, body=bytes(1 << 24))
            elif path == b"/file":
                await stream.send_response(200, body=(bytes(65536) for _ in range(256)))
            elif path == b"/begun":
                await stream.start_response([(":status", "200")])
                await stream.read()
            elif path == b"/":
                await stream.read()
                await stream.send_response(200, body=b"hello")
            else:
                await stream.read()
                await asyncio.get_running_loop().create_future()
        except (StreamResetError, asyncio.CancelledError):
            if isinstance(stream.error, StreamResetError):
                closed.append(stream.error.error_code)
            raise

    await protocol.serve_streams(handle)


class Served:
    """A server of one kind, as an asynchronous context."""

    def __init__(self, kind, timeouts=None):
        self.kind = kind
        self.timeouts = timeouts
        self.closed = []

    async def __aenter__(self):
        if self.kind == "HTTP2Server":
            handler = type("H", (Handler,), {"closed": self.closed})
            self.server = HTTP2Server(("127.0.0.1", 0), handler, timeouts=self.timeouts)
            await self.server.start()
        else:
            self.server = await start_server(
                lambda protocol: run_streams(protocol, self.closed),
                "127.0.0.1",
                0,
                timeouts=self.timeouts,
            )
        self.address = self.server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()


class Attacker:
    """A client of raw frames, which reads in the background unless told not to."""

    def __init__(self, address, *, peer_settings=None, reads=True, acks=True):
        self.address = address
        self.peer_settings = peer_settings
        self.reads = reads
        self.acks = acks
        self.peer = RawPeer(handshake=False)
        self.received = bytearray()
        self.frames = []
        self.ended = False

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.task = asyncio.ensure_future(self._read()) if self.reads else None
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def greet(self):
        self.send(MAGIC + settings(self.peer_settings) + settings_ack())

    def send(self, *frames):
        self.writer.write(b"".join(frames))

    def request(self, stream_id, path, *, fields=POST, end_stream=True):
        fields = [f for f in fields if f[0] != b":path"] + [(b":path", path)]
        self.send(self.peer.headers(stream_id, fields, end_stream=end_stream))

    async def _read(self):
        try:
            while piece := await self.reader.read(65536):
                self.received += piece
                self._parse()
        except OSError:
            pass
        self.ended = True

    def _parse(self):
        while len(self.received) >= 9:
            length = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + length:
                break
            type, flags, stream_id = struct.unpack(">BBI", self.received[3:9])
            payload = bytes(self.received[9 : 9 + length])
            del self.received[: 9 + length]
            self.frames.append((type, flags, stream_id, payload))
            if type == PING and not flags & ACK and self.acks:
                self.send(ping(payload, ack=True))

    def codes(self, type):
        start = 4 if type == GOAWAY else 0
        return [
            int.from_bytes(payload[start : start + 4], "big")
            for kind, _, _, payload in self.frames
            if kind == type
        ]

    async def drip(self, piece, every=1.0):
        """Send a piece again and again, until the connection is gone."""
        while not self.ended and not self.writer.transport.is_closing():
            self.send(piece)
            await pass_time(every)


# ---- Peers that stall at some point ----


async def says_nothing(attacker):
    pass


async def cuts_the_preface(attacker):
    attacker.send(MAGIC[:10])


async def never_acknowledges_settings(attacker):
    attacker.send(MAGIC + settings())


async def cuts_a_frame_header(attacker):
    await attacker.greet()
    attacker.send(frame(HEADERS, END_HEADERS, 1, b"x" * 10)[:5])


async def cuts_a_headers_frame(attacker):
    await attacker.greet()
    attacker.send(attacker.peer.headers(1, GET)[:12])


async def cuts_a_settings_frame(attacker):
    await attacker.greet()
    attacker.send(settings({3: 1})[:10])


async def leaves_a_header_block_open(attacker):
    await attacker.greet()
    attacker.send(frame(HEADERS, 0, 1, attacker.peer.block(GET)))


async def drips_a_header_block(attacker):
    await attacker.greet()
    block = attacker.peer.block([*GET, (b"x", b"y" * 60000)])
    await_frame = frame(HEADERS, END_HEADERS | END_STREAM, 1, block[:16000])
    attacker.task2 = asyncio.ensure_future(drip_bytes(attacker, await_frame))


async def drip_bytes(attacker, wire):
    for i in range(len(wire)):
        if attacker.ended or attacker.writer.transport.is_closing():
            return
        attacker.send(wire[i : i + 1])
        await pass_time(1)


async def asks_and_sends_pings(attacker):
    await attacker.greet()
    attacker.request(1, b"/")
    attacker.task2 = asyncio.ensure_future(attacker.drip(ping()))


async def sends_settings_without_end(attacker):
    await attacker.greet()
    attacker.task2 = asyncio.ensure_future(attacker.drip(settings()))


async def sends_window_updates_without_end(attacker):
    await attacker.greet()
    attacker.task2 = asyncio.ensure_future(attacker.drip(window_update(0, 1)))


async def uses_the_connection_window_up(attacker):
    attacker.peer_settings = {INITIAL_WINDOW_SIZE: 2**31 - 1}
    await attacker.greet()
    attacker.request(1, b"/big")


async def uses_the_connection_window_up_and_drips(attacker):
    await uses_the_connection_window_up(attacker)
    attacker.task2 = asyncio.ensure_future(attacker.drip(window_update(0, 1)))


# Each, and the bound under which it falls.
CONNECTIONS = {
    says_nothing: "settings",
    cuts_the_preface: "settings",
    never_acknowledges_settings: "settings",
    cuts_a_frame_header: "headers",
    cuts_a_headers_frame: "headers",
    cuts_a_settings_frame: "headers",
    leaves_a_header_block_open: "headers",
    drips_a_header_block: "headers",
    asks_and_sends_pings: "idle",
    sends_settings_without_end: "idle",
    sends_window_updates_without_end: "idle",
    uses_the_connection_window_up: "response",
    uses_the_connection_window_up_and_drips: "response",
}
KINDS = ["HTTP2Server", "start_server"]


@pytest.mark.parametrize("attack", CONNECTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_connection_that_makes_no_progress_ends(kind, attack):
    async with Served(kind) as served, Attacker(served.address) as attacker:
        begun = now()
        await attack(attacker)
        await until(lambda: attacker.ended)
        assert_in_time(CONNECTIONS[attack], begun)
        assert GOAWAY in [f[0] for f in attacker.frames]


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_peer_that_does_not_read_is_aborted(kind):
    async with (
        Served(kind) as served,
        Attacker(served.address, reads=False) as attacker,
    ):
        attacker.peer_settings = {INITIAL_WINDOW_SIZE: 2**31 - 1}
        attacker.writer.transport.pause_reading()
        attacker.send(
            MAGIC
            + settings({INITIAL_WINDOW_SIZE: 2**31 - 1})
            + settings_ack()
            + window_update(0, 2**30)
        )
        attacker.request(1, b"/big")
        connections = served.server._connections
        await until(lambda: connections)
        await until(lambda: not connections)


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_silent_peer_is_asked_and_ended_while_a_request_is_open(kind):
    async with (
        Served(kind) as served,
        Attacker(served.address, acks=False) as attacker,
    ):
        await attacker.greet()
        begun = now()
        attacker.request(1, b"/never")
        await until(lambda: PING in [f[0] for f in attacker.frames])
        assert now() - begun == DEFAULT.keepalive
        begun = now()
        await until(lambda: attacker.ended)
        assert_in_time("keepalive_answer", begun)
        assert served.closed or kind == "start_server"


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_peer_that_answers_may_wait_for_its_response(kind):
    async with (
        Served(kind) as served,
        Attacker(served.address) as attacker,
    ):
        await attacker.greet()
        attacker.request(1, b"/never")
        await pass_time(60 * DEFAULT.keepalive)
        assert len(attacker.codes(PING)) == 59
        assert not attacker.ended
        assert attacker.codes(RST_STREAM) == attacker.codes(GOAWAY) == []
        attacker.send(frame(RST_STREAM, 0, 1, bytes([0, 0, 0, 8])))
        await until(lambda: attacker.ended)  # by idleness


# ---- Streams that make no progress: the connection serves others ----


async def stalls_an_upload(attacker):
    attacker.request(1, b"/never", end_stream=False)


async def stalls_an_upload_in_the_middle_of_a_frame(attacker):
    attacker.request(1, b"/never", end_stream=False)
    attacker.send(data(1, bytes(100))[:50])


async def drips_an_upload(attacker):
    attacker.request(1, b"/never", end_stream=False)
    attacker.task2 = asyncio.ensure_future(attacker.drip(data(1, b"x")))


async def sends_empty_data(attacker):
    attacker.request(1, b"/never", end_stream=False)
    attacker.task2 = asyncio.ensure_future(attacker.drip(data(1), every=0.125))


async def gives_no_window(attacker):
    attacker.request(1, b"/big")


async def gives_no_window_to_a_file(attacker):
    attacker.request(1, b"/file")


async def gives_no_window_to_a_short_response(attacker):
    attacker.request(1, b"/")


async def drips_window(attacker):
    attacker.request(1, b"/big")
    attacker.task2 = asyncio.ensure_future(attacker.drip(window_update(1, 1)))


STREAMS = {
    stalls_an_upload: "body",
    stalls_an_upload_in_the_middle_of_a_frame: "body",
    drips_an_upload: "body",
    sends_empty_data: "body",
    gives_no_window: "response",
    gives_no_window_to_a_file: "response",
    gives_no_window_to_a_short_response: "response",
    drips_window: "response",
}


@pytest.mark.parametrize("attack", STREAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_stream_that_makes_no_progress_is_reset(kind, attack):
    async with Served(kind) as served:
        window = {INITIAL_WINDOW_SIZE: 0} if "window" in attack.__name__ else {}
        async with Attacker(served.address, peer_settings=window) as attacker:
            begun = now()
            await attacker.greet()
            await attack(attacker)
            await until(lambda: attacker.codes(RST_STREAM))
            assert_in_time(STREAMS[attack], begun)
            assert attacker.codes(RST_STREAM) == [ErrorCode.CANCEL]
            await until(lambda: served.closed)
            assert served.closed == [ErrorCode.CANCEL]
            assert not attacker.ended
            if attack is stalls_an_upload_in_the_middle_of_a_frame:
                attacker.send(bytes(59))
            attacker.request(3, b"/", end_stream=True)
            attacker.send(window_update(3, 100))
            await until(lambda: any(f[2] == 3 and f[0] == 0 for f in attacker.frames))


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_bodies_that_are_fast_enough_are_left_alone(kind):
    """1,000 bytes a second, in pieces, up and down."""
    async with (
        Served(kind) as served,
        Attacker(served.address, peer_settings={INITIAL_WINDOW_SIZE: 100}) as attacker,
    ):
        await attacker.greet()
        attacker.request(1, b"/never", end_stream=False)
        attacker.request(3, b"/big")
        for _ in range(120):
            credit = window_update(0, 1000) + window_update(3, 1000)
            attacker.send(data(1, bytes(1000)), credit)
            await pass_time(1)
        assert attacker.codes(RST_STREAM) == attacker.codes(GOAWAY) == []


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_an_upload_whose_response_has_begun_may_take_its_time(kind):
    async with Served(kind) as served, Attacker(served.address) as attacker:
        await attacker.greet()
        attacker.request(1, b"/begun", end_stream=False)
        await pass_time(100)
        assert attacker.codes(RST_STREAM) == attacker.codes(GOAWAY) == []


@in_virtual_time
async def test_time_in_which_credit_is_held_back_is_not_the_peers():
    async def connected(protocol):
        stream = await protocol.accept_stream()
        await pass_time(100)
        assert len(await stream.read()) == 65535
        await stream.send_response(200)
        await protocol.wait_closed()

    server = await start_server(connected, "127.0.0.1", 0)
    async with server, Attacker(server.sockets[0].getsockname()) as attacker:
        await attacker.greet()
        attacker.request(1, b"/", end_stream=False)
        for size in (16384, 16384, 16384, 16383):
            attacker.send(data(1, bytes(size)))
        await pass_time(80)
        assert attacker.codes(RST_STREAM) == []
        attacker.send(data(1, end_stream=True))
        await until(lambda: any(f[0] == HEADERS for f in attacker.frames))


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_silent_connection_is_closed_by_default(kind):
    async with Served(kind) as served, Attacker(served.address) as attacker:
        await attacker.greet()
        begun = now()
        await until(lambda: attacker.ended)
        assert now() - begun == DEFAULT.idle


# ---- Clients ----


async def serve_frames(*frames):
    """A server of raw frames, which are sent when the client has greeted."""

    async def connected(reader, writer):
        await reader.readuntil(MAGIC[-6:])
        writer.write(settings() + settings_ack() + b"".join(frames))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", 0)


@in_virtual_time
async def test_a_client_bounds_a_header_block_by_default():
    server = await serve_frames(settings({3: 1})[:10])
    async with server:
        protocol = await open_connection(*server.sockets[0].getsockname())
        begun = now()
        await protocol.wait_closed()
        assert_in_time("headers", begun)


@pytest.mark.parametrize("kind", ["open_connection", "Client", "HTTP2Client"])
@in_virtual_time
async def test_a_client_can_bound_what_a_server_makes_it_wait_for(kind):
    """A server that gives no window for an upload, or says nothing at all."""
    server = await serve_frames(settings({INITIAL_WINDOW_SIZE: 0}))
    async with server:
        host, port = server.sockets[0].getsockname()
        if kind == "open_connection":
            protocol = await open_connection(host, port, timeouts=DEFAULT)
            await protocol.wait_closed()  # by idleness
            return
        if kind == "Client":
            async with Client(f"http://{host}:{port}", timeouts=DEFAULT) as client:
                with pytest.raises((StreamResetError, ConnectionTerminatedError)):
                    await client.post("/", body=bytes(100000))
            return
        codes = []

        class Handler(BaseResponseHandler):
            def on_close(self, error_code):
                codes.append(error_code)

        client = HTTP2Client((host, port), timeouts=DEFAULT)
        await client.connect()
        client.send_request("POST", "/", body=bytes(100000), handler=Handler())
        await until(lambda: codes)
        assert codes[0] != 0
        client.close()
        await client.wait_closed()
