"""connect and serve over loopback."""

import asyncio
import contextlib
import random
import socket
import ssl

import pytest
from loops import DEADLINE, idle, in_loop, in_loops
from quic_pair import client_configuration, server_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.quic import QuicConnection
from nghttp2py.quic.events import (
    HandshakeCompleted,
    ProtocolNegotiated,
    StreamDataReceived,
)


def echo(reader, writer):
    """A stream handler that sends everything back."""

    async def serve_stream():
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    task = asyncio.get_running_loop().create_task(serve_stream())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


tasks = set()


@contextlib.asynccontextmanager
async def running_server(configuration=None, host="::", **arguments):
    arguments.setdefault("stream_handler", echo)
    server = await serve(
        host, 0, configuration=configuration or server_configuration(), **arguments
    )
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def connected(**arguments):
    """A client of a server of its own."""
    async with (
        running_server() as (_, port),
        connect(
            "localhost", port, configuration=client_configuration(), **arguments
        ) as client,
    ):
        yield client


async def ask(client, data):
    """Send bytes on a stream of their own; what comes back."""
    reader, writer = await client.create_stream()
    writer.write(data)
    writer.write_eof()
    return await reader.read()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
@in_loop
async def test_what_is_sent_comes_back(host):
    async with (
        running_server() as (_, port),
        connect(host, port, configuration=client_configuration(server_name=None)) as c,
    ):
        assert await ask(c, b"ping") == b"ping"


@in_loops
async def test_two_megabytes_come_back():
    data = random.Random(1).randbytes(2 << 20)
    async with connected() as client:
        assert await ask(client, data) == data


@in_loop
async def test_streams_run_at_the_same_time():
    async with connected() as client:
        pieces = [bytes([i]) * 10_000 for i in range(100)]
        answers = await asyncio.gather(*(ask(client, piece) for piece in pieces))
        assert answers == pieces


@in_loop
async def test_the_server_opens_streams():
    got = asyncio.get_running_loop().create_future()

    def handler(reader, writer):
        task = asyncio.ensure_future(reader.read())
        task.add_done_callback(lambda task: got.set_result(task.result()))

    class Greeter(QuicConnectionProtocol):
        def quic_event_received(self, event):
            if isinstance(event, HandshakeCompleted):
                self._quic.send_stream_data(3, b"welcome", end_stream=True)
                self.transmit()

    async with (
        running_server(create_protocol=Greeter) as (_, port),
        connect(
            "localhost",
            port,
            configuration=client_configuration(),
            stream_handler=handler,
        ),
    ):
        assert await got == b"welcome"


@in_loop
async def test_a_subclass_sees_every_event():
    events = []

    class Watcher(QuicConnectionProtocol):
        def quic_event_received(self, event):
            events.append(event)
            super().quic_event_received(event)

    async with connected(create_protocol=Watcher) as client:
        await client.ping()
    assert events[0] == ProtocolNegotiated(alpn_protocol="test")
    assert type(events[-1]).__name__ == "ConnectionTerminated"


@pytest.mark.parametrize("argument", ["retry", "stateless_retry"])
@in_loop
async def test_a_client_proves_its_address(argument):
    async with (
        running_server(**{argument: True}) as (_, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        assert await ask(client, b"it is me") == b"it is me"


@in_loop
async def test_an_unknown_version_is_negotiated():
    """RFC 9000, 6: the client begins with an unknown version."""
    async with running_server() as (_, port):
        configuration = client_configuration(original_version=0x1A2A3A4A)
        async with connect("localhost", port, configuration=configuration) as client:
            assert await ask(client, b"then v1") == b"then v1"


@in_loop
async def test_a_bad_certificate_raises():
    async with running_server() as (_, port):
        configuration = client_configuration(server_name="elsewhere.example")
        with pytest.raises(ConnectionError, match="name"):
            async with connect("localhost", port, configuration=configuration):
                raise AssertionError("it was accepted")


@in_loop
async def test_a_dead_port_raises_after_the_idle_timeout():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        configuration = client_configuration(idle_timeout=0.5)
        with pytest.raises(ConnectionError, match="Idle timeout"):
            async with connect(
                "::1", sock.getsockname()[1], configuration=configuration
            ):
                raise AssertionError("somebody answered")


@in_loop
async def test_the_local_port_can_be_chosen():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        free = sock.getsockname()[1]
    async with (
        running_server() as (server, port),
        connect(
            "localhost", port, configuration=client_configuration(), local_port=free
        ) as client,
    ):
        await client.ping()
        (protocol,) = server._connections
        assert protocol._quic.get_peer_address()[1] == free


@in_loop
async def test_a_machine_without_ipv6_connects_all_the_same(monkeypatch):
    real = socket.socket

    def without_ipv6(family=-1, *args, **kwargs):
        if family == socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        return real(family, *args, **kwargs)

    async with running_server(host="127.0.0.1") as (_, port):
        monkeypatch.setattr(socket, "socket", without_ipv6)
        async with connect(
            "127.0.0.1", port, configuration=client_configuration()
        ) as client:
            assert await ask(client, b"IPv4") == b"IPv4"


@in_loop
async def test_a_local_port_that_is_none_raises():
    with pytest.raises(OverflowError):
        async with connect(
            "localhost", 1, configuration=client_configuration(), local_port=-1
        ):
            pass


@in_loop
async def test_pings_keys_and_connection_ids():
    async with connected() as client:
        await client.ping()
        client.request_key_update()
        await client.ping()
        client.change_connection_id()
        await client.ping()
        assert await ask(client, b"still here") == b"still here"


@in_loop
async def test_a_session_is_resumed_with_early_data():
    tickets = []
    configuration = server_configuration()
    async with running_server(
        configuration, session_ticket_handler=lambda ticket: None
    ) as (_, port):
        client_config = client_configuration()
        async with connect(
            "localhost",
            port,
            configuration=client_config,
            session_ticket_handler=tickets.append,
        ) as client:
            await ask(client, b"first")
        client_config.session_ticket = tickets[0]
        async with connect(
            "localhost", port, configuration=client_config, wait_connected=False
        ) as client:
            assert await ask(client, b"early") == b"early"


@in_loop
async def test_early_data_that_are_refused_are_sent_again():
    tickets = []
    client_config = client_configuration()
    taken = []
    # The second server has another key for its tickets.
    for _ in range(2):
        async with running_server(session_ticket_handler=lambda ticket: None) as (
            _,
            port,
        ):
            for _ in range(2):
                async with connect(
                    "localhost",
                    port,
                    configuration=client_config,
                    session_ticket_handler=tickets.append,
                    wait_connected=client_config.session_ticket is None,
                ) as client:
                    assert await ask(client, b"early") == b"early"
                    taken.append(client._quic.tls.early_data_accepted)
                client_config.session_ticket = tickets[0]
    assert taken == [False, True, False, False]


@in_loop
async def test_a_second_waiter_for_the_handshake_is_refused():
    async with connected(wait_connected=False) as client:
        client.transmit()
        first = asyncio.ensure_future(client.wait_connected())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await client.wait_connected()
        await first
        await client.wait_connected()


@in_loop
async def test_who_has_waited_in_vain_for_the_handshake_can_wait_again():
    async with connected(wait_connected=False) as client:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.wait_connected(), 0.001)
        client.transmit()
        await client.wait_connected()


@in_loop
async def test_a_connection_that_is_over_opens_no_stream():
    """Otherwise nothing would end the stream, and its reader would wait for ever."""
    async with connected() as client:
        client.close(reason_phrase="done")
        await client.wait_closed()
        with pytest.raises(ConnectionError, match="done"):
            await client.create_stream()


@in_loop
async def test_a_protocol_that_refuses_its_transport_leaves_nothing():
    class Refusing(QuicConnectionProtocol):
        def connection_made(self, transport):
            sockets.append(transport.get_extra_info("socket"))
            numbers.append(sockets[0].fileno())
            raise LookupError("no")

    sockets, numbers = [], []
    with pytest.raises(LookupError):
        async with connected(create_protocol=Refusing):
            pass
    assert sockets[0].fileno() == -1
    assert not asyncio.get_running_loop().remove_reader(numbers[0])


@in_loop
async def test_garbage_is_ignored():
    rng = random.Random(3)
    async with (
        running_server() as (_, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for size in (0, 1, 5, 21, 100, 1200, 1400):
                for first in (0x00, 0x40, 0xC0, 0xFF):
                    data = bytes([first]) + rng.randbytes(size)
                    sock.sendto(data, ("::1", port))
        assert await ask(client, b"sane") == b"sane"


@in_loop
async def test_a_first_packet_that_cannot_be_read_leaves_no_connection():
    rng = random.Random(8)
    async with running_server() as (server, port):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for _ in range(20):
                head = b"\xc3\0\0\0\1\x08" + rng.randbytes(8) + b"\x08"
                head += rng.randbytes(8) + b"\0\x44\x96"
                sock.sendto(head + rng.randbytes(1200 - len(head)), ("::1", port))
        async with connect(
            "localhost", port, configuration=client_configuration()
        ) as client:
            await client.ping()
            assert len(server._connections) == 1


class Lossy:
    """A transport that loses a quarter of what is sent."""

    def __init__(self, transport, seed):
        self.transport = transport
        self.random = random.Random(seed)

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def sendto(self, data, addr):
        if self.random.random() >= 0.25:
            self.transport.sendto(data, addr)


class LossyClient(QuicConnectionProtocol):
    def connection_made(self, transport):
        super().connection_made(Lossy(transport, seed=5))


@in_loop
async def test_a_quarter_of_all_datagrams_lost_stops_nothing():
    async with running_server() as (server, port):
        server._transport = Lossy(server._transport, seed=4)
        async with connect(
            "localhost",
            port,
            configuration=client_configuration(),
            create_protocol=LossyClient,
        ) as client:
            data = random.Random(6).randbytes(100_000)
            assert await ask(client, data) == data


@in_loop
async def test_a_writer_waits_for_the_reader():
    arrived = asyncio.get_running_loop().create_future()
    async with (
        running_server(stream_handler=lambda r, w: arrived.set_result((r, w))) as (
            _,
            port,
        ),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        _, writer = await client.create_stream()
        written = 0

        async def write_all():
            nonlocal written
            for _ in range(1024):
                writer.write(bytes(16384))
                written += 16384
                await writer.drain()
            writer.write_eof()

        task = asyncio.ensure_future(write_all())
        reader, _ = await arrived
        # All credit is used up when pings find the sender stuck.
        while True:
            before = written
            for _ in range(20):
                await client.ping()
            if written == before:
                break
        assert written < 4 << 20
        total = 0
        while data := await reader.read(65536):
            total += len(data)
        await task
        assert total == written == 16 << 20


@in_loop
async def test_a_stalled_stream_does_not_stall_others():
    stalled = []

    def handler(reader, writer):
        if not stalled:
            stalled.append((reader, writer))
        else:
            echo(reader, writer)

    async with (
        running_server(stream_handler=handler) as (_, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        _, writer = await client.create_stream()
        writer.write(bytes(4 << 20))
        while not stalled:
            await client.ping()
        data = bytes(3 << 20)
        assert await ask(client, data) == data


@in_loop
async def test_a_reset_stream_raises_in_its_reader():
    def handler(reader, writer):
        writer.write(b"half of it")
        writer.transport.abort()

    async with (
        running_server(stream_handler=handler) as (_, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        reader, writer = await client.create_stream()
        writer.write(b"?")
        with pytest.raises(ConnectionResetError):
            while await reader.read(100):
                pass


@in_loop
async def test_a_writer_that_was_closed_is_closed():
    async with connected() as client:
        reader, writer = await client.create_stream()
        writer.write(b"the end")
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b"the end"


@in_loop
async def test_a_stopped_stream_raises_in_drain_and_not_in_its_reader():
    kept = []

    class Stopper(QuicConnectionProtocol):
        def quic_event_received(self, event):
            if isinstance(event, StreamDataReceived) and not kept:
                kept.append(event)
                self._quic.stop_stream(event.stream_id, 5)
                self._quic.send_stream_data(event.stream_id, b"enough", True)

    async with (
        running_server(create_protocol=Stopper) as (_, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        reader, writer = await client.create_stream()
        writer.write(bytes(4 << 20))
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        assert await reader.read() == b"enough"
        assert writer.is_closing()


@in_loop
async def test_a_configuration_that_cannot_be_used_raises():
    for fields in ({"server_name": "x" * 300}, {"alpn_protocols": ["x" * 99]}):
        with pytest.raises(ValueError):
            async with connect(
                "localhost", 1, configuration=client_configuration(**fields)
            ):
                pass


@in_loop
async def test_a_connection_that_says_nothing_is_closed_all_the_same():
    configuration = client_configuration()
    async with connect(
        "localhost", 1, configuration=configuration, wait_connected=False
    ) as client:
        pass
    assert client._quic.closed


@in_loop
async def test_a_closed_connection_ends_its_streams():
    kept = []
    async with (
        running_server(stream_handler=lambda *both: kept.append(both)) as (
            server,
            port,
        ),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        reader, writer = await client.create_stream()
        writer.write(b"?")
        await client.ping()
        (protocol,) = server._connections
        protocol.close(error_code=3, reason_phrase="no more")
        with pytest.raises(ConnectionError, match="no more"):
            await reader.read()
        with pytest.raises(ConnectionError):
            await client.ping()
        await client.wait_closed()


@in_loop
async def test_the_server_refuses_what_is_too_many():
    async with (
        running_server(max_connections=1) as (_, port),
        connect("localhost", port, configuration=client_configuration()),
    ):
        with pytest.raises(ConnectionError):
            async with connect("localhost", port, configuration=client_configuration()):
                raise AssertionError("it was accepted")


@in_loop
async def test_a_connection_whose_transport_was_closed_can_be_closed():
    async with connected() as client:
        client._transport.close()
    assert client._quic.closed


@in_loop
async def test_a_connection_ends_when_its_transport_is_lost_with_what_waited():
    async with (
        running_server() as (server, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        await client.ping()
        (accepted,) = server._connections
        # The socket takes nothing.
        server._transport._waiting.append((b"x", ("::1", port, 0, 0), 0, 1))
        server.close()
        await accepted.wait_closed()
        assert accepted._quic.closed


@in_loop
async def test_a_draining_server_waits_for_its_connections():
    async with running_server() as (server, port):
        async with connect(
            "localhost", port, configuration=client_configuration()
        ) as client:
            draining = asyncio.ensure_future(server.drain())
            await asyncio.sleep(0)
            assert await ask(client, b"finish") == b"finish"
            assert not draining.done()
        await draining


@in_loop
async def test_a_graceful_close_waits_for_connections():
    async with running_server() as (server, port):
        waiting = asyncio.ensure_future(server.wait_closed())
        async with connect("localhost", port, config=client_configuration()) as client:
            server.close(DEADLINE)
            await asyncio.sleep(0)
            assert await ask(client, b"finish") == b"finish"
            assert not waiting.done()
        await waiting
        server.close(1)
        server.close()
        server.abort()
        await server.wait_closed()


@pytest.mark.parametrize("way", ["close", "sooner", "abort"])
@in_loop
async def test_a_second_end_shortens_a_graceful_close(way):
    async with (
        running_server() as (server, port),
        connect("localhost", port, config=client_configuration()) as client,
    ):
        server.close(10 * DEADLINE)
        await client.ping()
        if way == "sooner":
            server.close(0.05)
        elif way == "abort":
            server.abort()
        else:
            server.close()
        await asyncio.wait_for(server.wait_closed(), DEADLINE)
        await client.wait_closed()


@in_loop
async def test_a_configuration_has_one_of_two_names():
    configuration = server_configuration()
    with pytest.raises(TypeError, match="not both"):
        await serve("::1", 0, configuration=configuration, config=configuration)
    with pytest.raises(TypeError, match="configuration"):
        await serve("::1", 0)
    client = client_configuration()
    with pytest.raises(TypeError, match="not both"):
        async with connect("::1", 1, configuration=client, config=client):
            pass
    server = await serve("127.0.0.1", 0, config=configuration)
    server.close()
    await server.wait_closed()


@in_loop
async def test_a_server_that_forgot_resets_its_connections():
    """RFC 9000, 10.3: it restarts with the same secret."""
    configuration = server_configuration(stateless_reset_secret=b"s" * 32)
    async with (
        running_server(configuration) as (server, port),
        connect("localhost", port, configuration=client_configuration()) as client,
    ):
        await client.ping()
        server._protocols.clear()
        reader, writer = await client.create_stream()
        writer.write(b"?")
        with pytest.raises(ConnectionError, match="Stateless reset"):
            await reader.read()


@in_loop
async def test_verification_follows_the_ssl_modules_constants():
    async with (
        running_server() as (_, port),
        connect(
            "localhost",
            port,
            configuration=client_configuration(
                cadata=None, verify_mode=ssl.CERT_NONE, server_name="whoever"
            ),
        ) as client,
    ):
        await client.ping()


class Sent(asyncio.DatagramTransport):
    """Counts the datagrams that it is given."""

    def __init__(self):
        super().__init__()
        self.datagrams = 0

    def sendto(self, data, addr=None):
        self.datagrams += 1

    def is_closing(self):
        return False


@in_loops
async def test_keep_alive_sends_nothing_that_connect_has_held_back():
    protocol = QuicConnectionProtocol(
        QuicConnection(configuration=client_configuration())
    )
    transport = Sent()
    protocol.connection_made(transport)
    protocol.connect(("192.0.2.1", 4433), transmit=False)
    protocol.set_keep_alive(3)
    await idle()
    assert transport.datagrams == 0
    protocol.transmit()
    assert transport.datagrams
    protocol.close()
