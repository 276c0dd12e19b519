"""The ends of QUIC's streams over asyncio: nothing that was written vanishes."""

import asyncio
import contextlib
import functools

import pytest
from loops import in_loop, in_virtual_time, until
from quic_pair import client_configuration, make_pair, server_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.timeouts import Timeouts


@contextlib.asynccontextmanager
async def running_server(**arguments):
    server = await serve(
        "127.0.0.1", 0, configuration=server_configuration(), **arguments
    )
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.abort()


def client_of(port, **arguments):
    return connect("127.0.0.1", port, configuration=client_configuration(), **arguments)


class Sink:
    """Reads every stream to its end."""

    def __init__(self):
        self.received = []
        self._tasks = []

    def __call__(self, reader, writer):
        self._tasks.append(asyncio.ensure_future(self._read(reader, writer)))

    async def _read(self, reader, writer):
        try:
            self.received.append(await reader.read())
        except ConnectionError as error:
            self.received.append(error)
        writer.close()


@pytest.mark.parametrize("size", [1, 1000, 250_000, 2_000_000])
@pytest.mark.parametrize("unidirectional", [False, True])
@in_loop
async def test_what_was_written_and_closed_arrives(size, unidirectional):
    sink = Sink()
    async with running_server(stream_handler=sink) as (_, port):
        async with client_of(port) as client:
            _, writer = await client.create_stream(is_unidirectional=unidirectional)
            writer.write(b"x" * size)
            writer.close()
            await writer.wait_closed()
            assert client._quic.queued_data() == 0
        await until(lambda: sink.received)
        assert sink.received == [b"x" * size]


@pytest.mark.parametrize("end", ["close", "write_eof", "end_stream"])
@in_loop
async def test_leaving_connect_delivers_what_was_ended(end):
    sink = Sink()
    async with running_server(stream_handler=sink) as (_, port):
        async with client_of(port) as client:
            if end == "end_stream":
                client._quic.send_stream_data(0, b"x" * 200_000, end_stream=True)
            else:
                _, writer = await client.create_stream()
                writer.write(b"x" * 200_000)
                getattr(writer, end)()
        await until(lambda: sink.received)
        assert sink.received == [b"x" * 200_000]


@in_loop
async def test_an_end_that_is_written_later_is_waited_for():
    """The frame with the end has no bytes then."""
    sink = Sink()
    async with running_server(stream_handler=sink) as (_, port):
        async with client_of(port) as client:
            _, writer = await client.create_stream()
            writer.write(b"x" * 1000)
            while client._quic.queued_data():
                await client.ping()
            writer.close()
            await writer.wait_closed()
        await until(lambda: sink.received)
        assert sink.received == [b"x" * 1000]


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("later", [False, True])
def test_a_stream_is_settled_when_the_peer_has_all(loss, later):
    for seed in range(15):
        pair = make_pair(seed=seed).handshake()
        client = pair.client
        pair.loss = loss
        client.send_stream_data(0, b"x" * 3000, end_stream=not later)
        assert not client.stream_settled(0)
        if later:
            pair.run(0.01)
            client.send_stream_data(0, b"", end_stream=True)
        assert client.unsettled_streams() == 1
        assert pair.run(60, functools.partial(client.stream_settled, 0))
        assert 0 in pair.ended[pair.server]
        assert pair.received[pair.server][0] == b"x" * 3000
        assert client.unsettled_streams() == 0


def test_a_stream_that_was_reset_is_settled():
    pair = make_pair().handshake()
    pair.client.send_stream_data(0, bytes(1000), end_stream=True)
    assert not pair.client.stream_settled(0)
    pair.client.reset_stream(0, 1)
    assert pair.client.stream_settled(0)
    assert pair.client.stream_settled(4000)
    assert pair.client.unsettled_streams() == 0


@in_loop
async def test_wait_closed_raises_for_what_the_peer_did_not_want():
    class Stopping(QuicConnectionProtocol):
        def quic_event_received(self, event):
            if getattr(event, "stream_id", None) == 0:
                self._quic.stop_stream(0, 5)

    async with (
        running_server(create_protocol=Stopping) as (_, port),
        client_of(port) as client,
    ):
        _, writer = await client.create_stream()
        writer.write(bytes(2_000_000))
        writer.close()
        with pytest.raises(ConnectionResetError, match="stopped"):
            await writer.wait_closed()


@in_loop
async def test_wait_closed_raises_for_what_the_connection_has_lost():
    async with (
        running_server() as (server, port),
        client_of(port, close_timeout=0.05) as client,
    ):
        _, writer = await client.create_stream()
        await client.ping()
        server.runs_received = lambda runs: None
        writer.write(bytes(2000))
        writer.close()
        client.close(9, "over")
        with pytest.raises(ConnectionError, match="over"):
            await writer.wait_closed()


@in_virtual_time
async def test_leaving_connect_waits_no_longer_than_its_bound():
    async with running_server() as (server, port):
        loop = asyncio.get_running_loop()
        async with client_of(port, close_timeout=30) as client:
            _, writer = await client.create_stream()
            await client.ping()
            server.runs_received = lambda runs: None
            writer.write(bytes(2000))
            writer.close()
            begun = loop.time()
        # The idle timeout, 60 s, is longer: probes do not put it off in ngtcp2 1.24.
        assert loop.time() - begun == pytest.approx(30, abs=5)


@in_loop
async def test_leaving_connect_by_an_exception_does_not_wait():
    async with running_server() as (server, port):
        with pytest.raises(LookupError):
            async with client_of(port, close_timeout=1000) as client:
                _, writer = await client.create_stream()
                await client.ping()
                server.runs_received = lambda runs: None
                writer.write(bytes(2000))
                writer.close()
                raise LookupError


@in_loop
async def test_closing_a_server_delivers_what_was_ended():
    answered = asyncio.Event()

    def handler(reader, writer):
        writer.write(b"y" * 1_000_000)
        writer.close()
        answered.set()

    async with (
        running_server(stream_handler=handler) as (server, port),
        client_of(port) as client,
    ):
        reader, writer = await client.create_stream()
        writer.write(b"ask")
        await answered.wait()
        server.close()
        server.close()
        assert await reader.read() == b"y" * 1_000_000
        await client.wait_closed()


@in_loop
async def test_closing_a_server_is_bounded_in_time():
    answered = asyncio.Event()

    def handler(reader, writer):
        writer.write(bytes(1_000_000))
        writer.close()
        answered.set()

    async with (
        running_server(stream_handler=handler, timeouts=Timeouts(close=0.1)) as (
            server,
            port,
        ),
        client_of(port) as client,
    ):
        _, writer = await client.create_stream()
        writer.write(b"ask")
        # The client reads no more.
        client.runs_received = lambda runs: None
        await answered.wait()
        server.close()
        await until(lambda: server._transport.is_closing())


@in_loop
async def test_closing_an_idle_server_is_immediate():
    async with running_server() as (server, port), client_of(port) as client:
        await client.ping()
        server.close()
        assert server._transport.is_closing()
        await client.wait_closed()
