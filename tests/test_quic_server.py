"""What a QUIC server does about clients that it does not know yet."""

import asyncio
import contextlib
import types

import pytest
from loops import in_loop, until
from quic_pair import (
    SERVER,
    Network,
    client_configuration,
    identity,
    make_pair,
    server_configuration,
)

from nghttp2py.asyncio import quic_server
from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.quic.connection import QuicConnection

# RFC 9000, 17.2.5: the type of a Retry packet in its first byte, for version 1.
TYPE_MASK = RETRY = 0xF0


@contextlib.asynccontextmanager
async def running_server(configuration=None, **arguments):
    server = await serve(
        "::", 0, configuration=configuration or server_configuration(), **arguments
    )
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Client(QuicConnectionProtocol):
    """Knows whether it was asked to prove its address."""

    retried = False

    def runs_received(self, runs):
        self.retried |= any(data[0] & TYPE_MASK == RETRY for data, *_ in runs)
        super().runs_received(runs)


async def visit(port, token=b"", host="127.0.0.1"):
    """Connect with a token; whether there was a Retry, and the token for next time."""
    tokens = []
    async with connect(
        host,
        port,
        configuration=client_configuration(token=token),
        create_protocol=Client,
        token_handler=tokens.append,
    ) as client:
        while not tokens:
            await client.ping()
        assert len(tokens) == 1
        return client.retried, tokens[0]


@in_loop
async def test_a_token_spares_a_later_connection_the_retry():
    """RFC 9000, 8.1.3."""
    async with running_server(retry=True) as (_, port):
        retried, token = await visit(port)
        assert retried
        for _ in range(2):
            retried, token = await visit(port, token)
            assert not retried


@in_loop
async def test_a_token_is_sent_without_retry_too():
    async with running_server() as (_, port):
        retried, token = await visit(port)
        assert not retried and token
        retried, _ = await visit(port, token)
        assert not retried


@in_loop
async def test_a_token_is_good_once():
    """RFC 9000, 8.1.4."""
    async with running_server(retry=True) as (_, port):
        _, token = await visit(port)
        assert [(await visit(port, token))[0] for _ in range(3)] == [False, True, True]


@in_loop
async def test_a_server_forgets_the_oldest_tokens_that_were_used(monkeypatch):
    monkeypatch.setattr(quic_server, "MAX_SPENT_TOKENS", 2)
    async with running_server(retry=True) as (server, port):
        _, token = await visit(port)
        for _ in range(5):
            retried, token = await visit(port, token)
            assert not retried
        assert len(server._spent_tokens) == 2


@in_loop
async def test_an_old_token_is_none(monkeypatch):
    clock = types.SimpleNamespace(time=lambda: 1_000_000.0)
    monkeypatch.setattr(quic_server, "time", clock)
    async with running_server(retry=True) as (_, port):
        _, token = await visit(port)
        clock.time = lambda: 1_000_000.0 + 24 * 3600 - 1
        retried, later = await visit(port, token)
        assert not retried
        clock.time = lambda: 1_000_000.0 + 3 * 24 * 3600
        retried, _ = await visit(port, later)
        assert retried


@in_loop
async def test_a_token_for_another_address_is_none():
    async with running_server(retry=True) as (_, port):
        _, token = await visit(port, host="127.0.0.1")
        retried, _ = await visit(port, token, host="::1")
        assert retried


@pytest.mark.parametrize("token", [b"made up", b"\x36" + bytes(60)])
@in_loop
async def test_a_strange_token_is_none(token):
    async with running_server(retry=True) as (_, port):
        retried, _ = await visit(port, token)
        assert retried


@in_loop
async def test_a_token_is_good_at_every_server_that_has_the_secret():
    tokens = []
    for secret in (b"ours", b"ours", b"theirs"):
        configuration = server_configuration(stateless_reset_secret=secret)
        async with running_server(configuration, retry=True) as (_, port):
            retried, token = await visit(port, tokens[0] if tokens else b"")
            tokens.append(token)
            assert retried == (len(tokens) != 2)


@in_loop
async def test_a_false_token_of_a_retry_is_refused():
    """RFC 9000, 8.1.2: the client would heed no other Retry."""
    async with running_server(retry=True) as (_, port):
        with pytest.raises(ConnectionError):
            await visit(port, b"\xb7" + bytes(80))


@in_loop
async def test_a_server_without_retry_does_not_care_about_a_false_token():
    async with running_server() as (_, port):
        retried, _ = await visit(port, b"\xb7" + bytes(80))
        assert not retried


def test_a_token_can_be_sent_by_a_server_alone():
    pair = make_pair().connect()
    for quic in (pair.client, pair.server):
        with pytest.raises(RuntimeError):
            quic.send_new_token(b"token")
    pair.run(0.5)
    for token, error in ((b"", ValueError), (bytes(1025), ValueError), (5, TypeError)):
        with pytest.raises(error):
            pair.server.send_new_token(token)
    pair.server.send_new_token(bytes(1024))
    pair.run(0.5)
    pair.server.close()
    pair.run(10)
    pair.server.send_new_token(b"too late")


@pytest.mark.parametrize("size", [1, 60, 1024])
def test_a_token_is_handed_over(size):
    tokens = []
    client = QuicConnection(
        configuration=client_configuration(), token_handler=tokens.append
    )
    server = QuicConnection(configuration=server_configuration())
    pair = Network(client, server).handshake()
    pair.server.send_new_token(bytes(size))
    pair.run(0.5)
    assert tokens == [bytes(size)]
    # RFC 9000, 19.7: the same may come again, where an acknowledgement was lost.
    pair.server.send_new_token(bytes(size))
    pair.server.send_new_token(b"another")
    pair.run(0.5)
    assert tokens == [bytes(size), b"another"]


def test_an_address_that_was_validated_gets_more_at_once():
    """RFC 9000, 8.1: else it gets three times what it has sent."""
    # A certificate of more than that.
    chain, key = identity(*(f"{i}.a-long-name.example" for i in range(200)))
    first_flights = []
    for validated in (False, True):
        client = QuicConnection(configuration=client_configuration(token=b"token"))
        configuration = server_configuration(certificate=chain, private_key=key)
        server = QuicConnection(
            configuration=configuration, address_validated=validated
        )
        client.connect(SERVER, 0.0)
        for data, _ in client.datagrams_to_send(0.0):
            server.receive_datagram(data, ("192.0.2.1", 5), 0.0)
        first_flights.append(
            sum(len(data) for data, _ in server.datagrams_to_send(0.0))
        )
    assert first_flights[0] <= 3600 < first_flights[1]


def test_a_client_validates_no_address():
    with pytest.raises(ValueError, match="address_validated"):
        QuicConnection(configuration=client_configuration(), address_validated=True)


class Observer:
    """A transport that keeps what a server sends."""

    def __init__(self):
        self.sent = []

    def is_closing(self):
        return False

    def get_extra_info(self, name, default=None):
        return default

    def sendto(self, data, addr):
        self.sent.append((data, addr))

    def close(self):
        pass


def first_packet(**fields):
    """What a client begins with."""
    client = QuicConnection(configuration=client_configuration(**fields))
    client.connect(SERVER, 0.0)
    ((data, _),) = client.datagrams_to_send(0.0)
    return client, data


def flood(server, n):
    """Begin n connections from addresses that never answer."""
    for i in range(n):
        address = (f"198.51.100.{i % 256}", 1024 + i)
        server.datagram_received(first_packet()[1], address)


@in_loop
async def test_a_timer_for_which_there_is_no_memory_is_set_the_next_time(monkeypatch):
    server = quic_server.QuicServer(configuration=server_configuration())
    server.connection_made(Observer())
    server.datagram_received(first_packet()[1], ("198.51.100.1", 1024))
    (protocol,) = server._connections
    protocol._timer_at += 60  # it is due earlier from now on

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_at", fail)
        with pytest.raises(MemoryError):
            protocol._set_timer()
    protocol._set_timer()
    assert protocol._timer is not None
    protocol.abandon()


@in_loop
async def test_a_protocol_that_raises_has_answered_all_the_same():
    class Raising(QuicConnectionProtocol):
        def quic_event_received(self, event):
            raise LookupError("no")

    server = quic_server.QuicServer(
        configuration=server_configuration(), create_protocol=Raising
    )
    observer = Observer()
    server.connection_made(observer)
    with pytest.raises(LookupError):
        server.datagram_received(first_packet()[1], ("198.51.100.1", 1024))
    assert observer.sent
    (protocol,) = server._connections
    assert protocol._timer is not None
    server.close()


@in_loop
async def test_a_flood_of_first_packets_takes_bounded_memory():
    configuration = server_configuration(idle_timeout=0.5)
    server = quic_server.QuicServer(configuration=configuration, max_handshakes=20)
    observer = Observer()
    server.connection_made(observer)
    flood(server, 1000)
    assert len(server._connections) == 20
    assert len(server._protocols) == 40
    retries = [data for data, _ in observer.sent if data[0] & TYPE_MASK == RETRY]
    assert len(retries) == 980
    # No answer is longer than what it answers.
    assert max(map(len, retries)) < 1200
    # An incomplete handshake is forgotten.
    await until(lambda: not server._connections)
    assert not server._protocols
    assert not server._handshaking


@in_loop
async def test_clients_get_in_during_a_flood_by_proving_their_addresses():
    async with running_server(max_handshakes=20) as (server, port):
        assert not (await visit(port))[0]
        flood(server, 100)
        assert len(server._handshaking) == 20
        retried, token = await visit(port)
        assert retried
        # And at once with a token from before.
        assert not (await visit(port, token))[0]


@in_loop
async def test_a_bound_of_no_handshakes_is_none():
    with pytest.raises(ValueError, match="max_handshakes"):
        await serve("::1", 0, configuration=server_configuration(), max_handshakes=0)
