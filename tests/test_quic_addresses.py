"""From which address a QUIC server answers, and that nothing is fragmented."""

import asyncio
import contextlib
import socket

import pytest
from loops import in_loop
from quic_pair import SERVER, client_configuration, server_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.udp import PeerAddress
from nghttp2py.quic.connection import QuicConnection

# Any address of 127.0.0.0/8 is this machine's on Linux.
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


@contextlib.asynccontextmanager
async def running_server(host="0.0.0.0", **arguments):
    server = await serve(host, 0, configuration=server_configuration(), **arguments)
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.close()


class PlainClient:
    """A client on a connected socket: it receives from the address that it asked."""

    def __init__(self, host, port, quic=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect((host, port))
        self.loop = asyncio.get_running_loop()
        self.quic = quic or QuicConnection(
            configuration=client_configuration(server_name="localhost")
        )
        self.peer = (host, port)

    def flush(self):
        for data, _ in self.quic.datagrams_to_send(self.loop.time()):
            self.socket.send(data)

    async def receive(self):
        """Take the next datagram, and heed the timer until it comes."""
        while True:
            due = self.quic.get_timer() or self.loop.time() + 10
            try:
                data = await asyncio.wait_for(
                    self.loop.sock_recv(self.socket, 65536), due - self.loop.time()
                )
            except asyncio.TimeoutError:
                self.quic.handle_timer(max(due, self.loop.time()))
                self.flush()
                assert not self.quic.closed
            else:
                self.quic.receive_datagram(data, self.peer, self.loop.time())
                return data

    async def shake_hands(self):
        self.quic.connect(self.peer, self.loop.time())
        self.flush()
        while not self.quic.handshake_complete:
            await self.receive()
            self.flush()

    async def ping(self, uid):
        """Have a PING acknowledged."""
        self.quic.send_ping(uid)
        while True:
            self.flush()
            await self.receive()
            events = list(iter(self.quic.next_event, None))
            if any(getattr(event, "uid", None) == uid for event in events):
                break

    def close(self):
        self.socket.close()


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize(
    ("host", "asked"),
    [("0.0.0.0", host) for host in ADDRESSES]
    + [("::", host) for host in (*ADDRESSES, "::1")]
    + [("127.0.0.2", "127.0.0.2"), ("::1", "::1")],
)
@in_loop
async def test_a_server_answers_from_the_address_that_was_asked(host, asked, retry):
    async with running_server(host, retry=retry) as (_, port):
        client = PlainClient(asked, port)
        with contextlib.closing(client):
            await client.shake_hands()


@pytest.mark.parametrize(
    ("host", "asked"), [("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")]
)
@in_loop
async def test_much_data_comes_from_the_address_that_was_asked(host, asked):
    """The kernel takes the runs apart (GSO)."""

    def handler(reader, writer):
        writer.write(bytes(300_000))
        writer.write_eof()

    async with running_server(host, stream_handler=handler) as (_, port):
        client = PlainClient(asked, port)
        with contextlib.closing(client):
            await client.shake_hands()
            client.quic.send_stream_data(0, b"more", end_stream=True)
            client.flush()
            received = 0
            while received < 300_000:
                await client.receive()
                while (event := client.quic.next_event()) is not None:
                    received += len(getattr(event, "data", b""))
                client.flush()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@in_loop
async def test_version_negotiation_comes_from_the_address_that_was_asked(host):
    async with running_server(host) as (_, port):
        client = PlainClient("127.0.0.2", port)
        with contextlib.closing(client):
            client.socket.send(b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(1300))
            data = await client.receive()
            assert data[0] & 0x80 and data[1:5] == bytes(4)


@in_loop
async def test_a_refusal_comes_from_the_address_that_was_asked():
    async with running_server(max_connections=0) as (_, port):
        client = PlainClient("127.0.0.3", port)
        with contextlib.closing(client):
            client.quic.connect(client.peer, client.loop.time())
            client.flush()
            await client.receive()
            assert client.quic.closed


@in_loop
async def test_a_stateless_reset_comes_from_the_address_that_was_asked():
    async with running_server() as (_, port):
        client = PlainClient("127.0.0.2", port)
        with contextlib.closing(client):
            client.socket.send(b"\x40" + bytes(100))
            assert (await client.receive())[0] & 0xC0 == 0x40


@in_loop
async def test_each_address_of_a_server_gets_its_own_answers():
    """Several clients of one server at once, on different addresses of it."""
    async with running_server() as (_, port):
        clients = [PlainClient(host, port) for host in ADDRESSES * 3]
        try:
            await asyncio.gather(*(client.shake_hands() for client in clients))
        finally:
            for client in clients:
                client.close()


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
@in_loop
async def test_our_client_connects_to_any_address_of_a_server(host):
    async with (
        running_server() as (_, port),
        connect(
            host, port, configuration=client_configuration(server_name="localhost")
        ) as client,
    ):
        await client.ping()


@in_loop
async def test_a_client_that_moves_is_answered_from_the_address_that_it_asks():
    """RFC 9000, 9: the client has another address, and asks another of ours, as
    behind a device that translates addresses."""
    async with running_server() as (_, port):
        client = PlainClient("127.0.0.1", port)
        with contextlib.closing(client):
            await client.shake_hands()
            await client.ping(1)
        for uid, host in enumerate(["127.0.0.1", "127.0.0.2", "127.0.0.1"], 2):
            moved = PlainClient(host, port, client.quic)
            moved.peer = client.peer
            with contextlib.closing(moved):
                await moved.ping(uid)


def test_a_plain_address_is_answered_as_ever():
    """Without a local address, and with the caller's own object."""
    address = ["192.0.2.7", 5000]
    quic = QuicConnection(configuration=server_configuration())
    client = QuicConnection(configuration=client_configuration())
    client.connect(SERVER, 0.0)
    for data, _ in client.datagrams_to_send(0.0):
        quic.receive_datagram(data, address, 0.0)
    answers = quic.datagrams_to_send(0.0)
    assert answers and all(to is address for _, to in answers)


def test_answers_have_the_local_address_of_the_question():
    def address(last):
        peer = PeerAddress(("192.0.2.7", 5000))
        peer.local = (bytes(10) + b"\xff\xff\x7f\x00\x00" + bytes([last]), 0)
        return peer

    quic = QuicConnection(configuration=server_configuration())
    client = QuicConnection(configuration=client_configuration())
    client.connect(SERVER, 0.0)
    for data, _ in client.datagrams_to_send(0.0):
        quic.receive_datagram(data, address(5), 0.0)
    answers = quic.datagrams_to_send(0.0)
    assert answers
    assert {to.local for _, to in answers} == {address(5).local}
    assert quic.get_peer_address().local == address(5).local
    assert {to for _, to in answers} == {("192.0.2.7", 5000)}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "::1"])
@in_loop
async def test_datagrams_are_not_fragmented(host):
    """RFC 9000, 14.  2 and 3 are IP_PMTUDISC_DO and _PROBE of Linux."""
    async with running_server(host) as (server, port):
        target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        async with connect(
            target, port, configuration=client_configuration(server_name="localhost")
        ) as client:
            for sock in (*server.sockets, client._transport.get_extra_info("socket")):
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, 23) == 3
                assert sock.getsockopt(socket.IPPROTO_IP, 10) == 3


class Narrow(QuicConnectionProtocol):
    """A client on a path that carries no more than 1,300 bytes."""

    refused = 0
    accepted = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self.socket, transport._runs = transport._runs, self

    def receive(self):
        return self.socket.receive()

    def send(self, data, addr, ecn, segment):
        if segment > 1300:
            self.refused += 1
            return len(data), segment
        self.accepted += 1
        return self.socket.send(data, addr, ecn, segment)


def echo(reader, writer):
    async def answer():
        writer.write(await reader.read())
        writer.write_eof()

    tasks.append(asyncio.ensure_future(answer()))


tasks = []


@pytest.mark.parametrize(
    "fields", [{"max_datagram_size": 1400}, {"probe_datagram_size": True}]
)
@in_loop
async def test_after_a_datagram_that_is_too_long_come_smaller_ones(fields):
    async with (
        running_server("::", stream_handler=echo) as (_, port),
        connect(
            "::1",
            port,
            configuration=client_configuration(server_name="localhost", **fields),
            create_protocol=Narrow,
        ) as client,
    ):
        reader, writer = await client.create_stream()
        writer.write(bytes(100_000))
        writer.write_eof()
        assert len(await asyncio.wait_for(reader.read(), 20)) == 100_000
        assert client.accepted
        if "max_datagram_size" in fields:
            assert client.refused


@in_loop
async def test_a_datagram_that_the_system_refuses_is_told():
    """A real EMSGSIZE: no device carries so much at once."""

    class Protocol(asyncio.DatagramProtocol):
        pass

    from nghttp2py.asyncio.udp import UDPTransport

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    address = sock.getsockname()
    transport = UDPTransport(asyncio.get_running_loop(), sock, Protocol())
    try:
        too_long = 65_520
        assert transport.send_runs([(bytes(too_long), address, 0, too_long)])
        assert transport.send_runs([(bytes(1200), address, 0, 1200)]) == 0
    finally:
        transport.close()
