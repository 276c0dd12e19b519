"""A loop that stood still, memory that is used up, and objects that stay behind."""

import asyncio
import gc
import os
import socket
import threading
import weakref

import pytest
from helpers import MAGIC, data, frame, ping, settings, settings_ack
from loops import in_loop, in_loops, stand_still, until
from memory import MemoryClient

from nghttp2py import BaseRequestHandler, HTTP2Client, HTTP2Server
from nghttp2py.asyncio import (
    Client,
    H2Pump,
    Timeouts,
    open_connection,
    start_server,
    transfer,
)
from nghttp2py.asyncio.server import DEFAULT_CONFIGURATION, HandlerProtocol
from nghttp2py.h2 import H2Connection
from nghttp2py.handler import HandlerFactory

CALM = Timeouts(
    settings=0.2, headers=0.2, body=0.2, idle=None, keepalive=0.2, keepalive_answer=0.2
)


class Hello(BaseRequestHandler):
    def on_request_done(self):
        self.send_response(200, body=b"hello")


async def read_frames(reader):
    """Read all that comes in a turn or two; return the types of its frames."""
    types = []
    while True:
        head = await asyncio.wait_for(reader.readexactly(9), 10)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        types.append(head[3])
        if head[3] == 6:  # the answer to our PING
            return types


@pytest.mark.parametrize(
    "first, second",
    [
        (MAGIC + settings(), settings_ack()),
        (
            MAGIC + settings() + settings_ack() + settings({3: 1})[:5],
            settings({3: 1})[5:],
        ),
    ],
    ids=["settings", "headers"],
)
@in_loops
async def test_what_has_arrived_in_time_is_read_before_a_timer_ends_it(first, second):
    """uvloop runs timers before it reads what came while it stood."""

    class Blocking(Hello):
        def on_headers(self):
            writer.write(second)
            stand_still(0.5)
            writer.write(ping())

    server = HTTP2Server(("127.0.0.1", 0), Blocking, timeouts=CALM)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(first)
        # It is a pump when its protocol has been chosen, by the first bytes.
        await until(
            lambda: [p for p in server._connections if getattr(p, "_heard", False)]
        )
        other = H2Connection(client_side=True)
        other.initiate_connection()
        other.send_request("GET", "/", authority="test")
        _, blocks = await asyncio.open_connection(*server.sockets[0].getsockname())
        blocks.write(other.data_to_send())
        assert 7 not in await read_frames(reader)
        blocks.close()
        writer.close()


@in_loop
async def test_a_timer_gives_up_on_a_peer_that_only_keeps_it_busy():
    """Bytes that do not help are read for a few turns, and no longer."""
    client = MemoryClient(H2Pump(H2Connection(), timeouts=CALM))
    client.converse()
    client.protocol.data_received(frame(1, 0, 1, b"")[:5])
    client.protocol._frame_since -= 10
    turns = 0
    client.protocol._look()
    while not client.transport.closing:
        client.protocol._heard = True
        turns += 1
        assert turns < 100
        await asyncio.sleep(0)
    assert turns > 2


# ---- Want of memory ----


class Wanting:
    """A connection of which one method finds no memory, so many times."""

    def __init__(self, real, name, times):
        self.__dict__.update(real=real, name=name, times=times)

    def __getattr__(self, name):
        if name == self.name and self.times:
            self.__dict__["times"] -= 1
            raise MemoryError
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)


@pytest.mark.parametrize(
    "name, times",
    [
        ("receive_data", 1),
        ("data_to_send", 1),
        ("pending_events", 1),
        ("receive_eof", 1),
        ("receive_eof", 1 << 30),
    ],
)
@in_loop
async def test_want_of_memory_ends_the_connection_that_asked(name, times):
    closed = []

    class Recorder(BaseRequestHandler):
        def on_close(self, error_code):
            closed.append(error_code)

    lost = []
    protocol = HandlerProtocol(
        HandlerFactory(Recorder), DEFAULT_CONFIGURATION, lambda p: None, lost.append
    )
    client = MemoryClient(protocol)
    client.request(end_stream=False)
    await client.exchange()
    protocol.connection = Wanting(protocol.connection, name, times)
    if name == "receive_eof":
        protocol.abort()
    else:
        client.connection.send_body(1, b"x")
        protocol.data_received(client.connection.data_to_send())
        protocol.mark_dirty()
    await until(lambda: lost)
    await until(lambda: closed)
    assert client.transport.aborted
    assert closed[0] != 0


@in_loop
async def test_a_connection_that_finds_no_memory_to_begin_is_aborted():
    lost = []
    protocol = HandlerProtocol(
        HandlerFactory(BaseRequestHandler),
        DEFAULT_CONFIGURATION,
        lambda p: None,
        lost.append,
    )
    protocol.connection = Wanting(protocol.connection, "initiate_connection", 1)
    client = MemoryClient(protocol)
    await until(lambda: lost)
    assert client.transport.aborted


@in_loop
async def test_a_log_line_that_finds_no_memory_does_not_keep_the_connection(
    monkeypatch,
):
    class Budget:
        def log(self, *_):
            raise MemoryError

    client = MemoryClient(H2Pump(H2Connection()))
    await client.exchange()
    client.protocol.connection = Wanting(client.protocol.connection, "data_to_send", 1)
    monkeypatch.setattr("nghttp2py.asyncio.pump.H2Pump._memory_log", Budget())
    client.protocol.flush()
    await until(lambda: client.transport.aborted)
    await until(lambda: client.protocol.transport is None)


@in_loop
async def test_other_connections_are_served_when_a_handler_finds_no_memory():
    class Greedy(Hello):
        def on_headers(self):
            if self.path == b"/greedy":
                raise MemoryError

    async with HTTP2Server(("127.0.0.1", 0), Greedy) as server:
        host, port = server.sockets[0].getsockname()
        async with Client(f"http://{host}:{port}") as client:
            assert (await client.get("/greedy")).status == 500
            assert (await client.get("/")).status == 200


def read(protocol, data):
    """Have a protocol read as asyncio's plain transport does."""
    protocol.get_buffer(-1)[: len(data)] = data
    protocol.buffer_updated(len(data))


@in_loop
async def test_what_is_read_meanwhile_does_not_overwrite_what_is_being_handled():
    """A handler may run the loop itself, as some notebooks do."""
    bodies = []

    class Reading(Hello):
        def on_headers(self):
            for _ in range(9):
                inner.connection.ping(b"\xff" * 8)
            read(inner.protocol, inner.connection.data_to_send())

        def on_data(self, piece):
            bodies.append(piece)

    inner = MemoryClient(H2Pump(H2Connection()))
    await inner.exchange()
    factory = HandlerFactory(Reading)
    outer = MemoryClient(
        HandlerProtocol(factory, DEFAULT_CONFIGURATION, lambda _: None, lambda _: None)
    )
    await outer.exchange()
    for _ in range(2):
        stream_id = outer.connection.send_request(
            "POST", "/", authority="test", end_stream=False
        )
        outer.connection.send_body(stream_id, b"body")
        read(outer.protocol, outer.connection.data_to_send())
    assert bodies == [b"body"] * 2
    assert not inner.transport.aborted


@in_loop
async def test_bytes_that_were_not_read_are_refused():
    inner = MemoryClient(H2Pump(H2Connection()))
    await inner.exchange()
    pump = inner.protocol
    size = len(pump.get_buffer(-1))
    for nbytes in -1, size + 1, 1 << 24:
        with pytest.raises(ValueError, match="nbytes must be from 0 to"):
            pump.buffer_updated(nbytes)
    # The bytes stay when the view is released.
    view = pump.get_buffer(-1)
    view[:9] = frame(1, 0, 1, b"")[:9]
    view.release()
    try:
        pump.buffer_updated(9)
    finally:
        del transfer.local.buffer  # its view is released


# ---- Nothing stays behind ----


@in_loop
async def test_a_protocol_in_a_cycle_takes_its_read_buffer_with_it(capfd):
    def leave_a_cycle():
        # The buffer is older than the cycle: the collector comes to it first.
        H2Pump(H2Connection()).get_buffer(-1)
        protocol = H2Pump(H2Connection())
        protocol.itself = protocol
        protocol.get_buffer(-1)

    # The thread's own reference to the buffer ends with the thread.
    thread = threading.Thread(target=leave_a_cycle)
    thread.start()
    thread.join()
    gc.collect()
    assert capfd.readouterr().err == ""


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def connected(protocol):
    await protocol.serve_streams(lambda stream: stream.send_response(200, body=b"hi"))


@pytest.mark.parametrize("over_tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@in_loop
async def test_no_cycle_outlives_a_connection(kind, over_tls, tls, no_collector):
    ssl = tls.server if over_tls else None
    if kind == "HTTP2Server":
        server = HTTP2Server(("127.0.0.1", 0), Hello, ssl=ssl)
        await server.start()
    else:
        server = await start_server(connected, "127.0.0.1", 0, ssl=ssl)
    async with server:
        host, port = server.sockets[0].getsockname()
        scheme = "https" if over_tls else "http"
        client = Client(
            f"{scheme}://{'localhost' if over_tls else host}:{port}",
            ssl=tls.client if over_tls else None,
        )
        async with client:
            assert (await client.get("/")).status == 200
            server_side = [weakref.ref(p) for p in server._connections]
            client_side = [weakref.ref(client._connection)]
        assert len(server_side) == 1
        await until(lambda: server_side[0]() is None)
        await until(lambda: client_side[0]() is None)


@in_loop
async def test_no_cycle_is_left_of_an_address_that_refused(monkeypatch, no_collector):
    """As of ``localhost``, if the server does not listen on ``::1``."""
    async with HTTP2Server(("127.0.0.1", 0), Hello) as server:
        _, port = server.sockets[0].getsockname()

        def resolve(*_, **__):
            kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
            return [(*kind, (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        made = []
        async with await open_connection("name.example", port) as protocol:
            made.append(weakref.ref(protocol))
        async with HTTP2Client(("name.example", port)) as client:
            made.append(weakref.ref(client._protocol))
        del protocol, client
        await until(lambda: [reference() for reference in made] == [None, None])


@in_loop
async def test_no_cycle_outlives_a_connection_that_broke_off(no_collector):
    server = HTTP2Server(("127.0.0.1", 0), Hello)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(MAGIC + settings() + settings_ack() + data(0, b"x"))
        await until(lambda: len(server._connections))
        protocols = [weakref.ref(p) for p in server._connections]
        writer.transport.abort()
        await until(lambda: protocols[0]() is None)


@in_loop
async def test_no_cycle_outlives_a_client_of_handlers(no_collector):
    async with HTTP2Server(("127.0.0.1", 0), Hello) as server:
        client = HTTP2Client(server.sockets[0].getsockname())
        async with client:
            client.send_request("GET", "/")
        protocol = weakref.ref(client._protocol)
        del client
        await until(lambda: protocol() is None)


class Endless(BaseRequestHandler):
    def on_headers(self):
        async def pieces():
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)

        self.send_response(body=pieces())


@in_loop
async def test_no_cycle_outlives_an_asynchronous_body(no_collector):
    async with HTTP2Server(("127.0.0.1", 0), Endless) as server:
        host, port = server.sockets[0].getsockname()
        client = Client(f"http://{host}:{port}")
        response = await client.get("/")
        protocols = [weakref.ref(p) for p in server._connections]
        response.close()
        client.abort()
        await until(lambda: protocols[0]() is None)


@in_loop
async def test_no_cycle_outlives_a_fault_of_tls(tls, no_collector):
    async with HTTP2Server(("127.0.0.1", 0), Hello, ssl=tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(f"https://localhost:{port}", ssl=tls.client)
        assert (await client.get("/")).status == 200
        transports = [weakref.ref(t) for t in server._listener._tls.connections]
        sock = client._connection.transport.get_extra_info("socket")
        # In one segment: what is answered, and a record that its key does not open.
        client._connection.connection.ping(b"12345678")
        client._connection.flush()
        os.write(sock.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: not server._connections)
        client.abort()
        await until(lambda: not server._listener._tls.connections)
        await until(lambda: transports[0]() is None)
