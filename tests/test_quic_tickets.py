"""Session tickets: resumption, and its control by the server (RFC 8446, 4.6.1)."""

import datetime
import random

import pytest
from aioquic.quic.connection import QuicConnection as TheirConnection
from aioquic.tls import Epoch
from loops import in_loop
from quic_pair import (
    SERVER,
    Network,
    client_configuration,
    events_of,
    server_configuration,
)
from test_quic_interop import their_client

from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import HandshakeCompleted, StreamDataReceived
from nghttp2py.quic.tls import CipherSuite


def sessions(**server_fields):
    """A ticket from one connection, and the configurations of the next."""
    tickets = []
    server = server_configuration(**server_fields)
    client = client_configuration()
    Network(
        QuicConnection(configuration=client, session_ticket_handler=tickets.append),
        issuer(server),
    ).handshake()
    assert len(tickets) >= 1
    client.session_ticket = tickets[0]
    return client, server, tickets[0]


def issuer(configuration):
    """A server that issues and takes tickets."""
    return QuicConnection(
        configuration=configuration, session_ticket_handler=lambda ticket: None
    )


def resume(client, server):
    return Network(QuicConnection(configuration=client), issuer(server))


def test_a_session_is_resumed_with_early_data():
    client, server, ticket = sessions()
    assert ticket.server_name == "localhost"
    assert ticket.is_valid
    network = resume(client, server)
    network.client.send_stream_data(0, b"0-RTT " * 500, end_stream=True)
    network.connect().run(0.006)
    assert network.received[network.server][0]
    network.run(1)
    assert network.received[network.server][0] == b"0-RTT " * 500
    for quic in (network.client, network.server):
        (completed,) = (
            e for e in network.events[quic] if isinstance(e, HandshakeCompleted)
        )
        assert completed.session_resumed
        assert completed.early_data_accepted


def test_refused_early_data_are_sent_again():
    client, _, _ = sessions()
    network = resume(client, server_configuration())
    network.client.send_stream_data(0, b"0-RTT " * 500, end_stream=True)
    network.client.send_stream_data(2, b"and this")
    network.handshake()
    assert network.received[network.server] == {0: b"0-RTT " * 500, 2: b"and this"}
    completed = network.events[network.client][1]
    assert not completed.session_resumed
    assert not completed.early_data_accepted


def test_early_data_are_not_taken_twice():
    """RFC 8446, 8: the same first flight, replayed by an attacker."""
    client, server, _ = sessions()
    network = resume(client, server)
    network.client.send_stream_data(0, b"pay 100", end_stream=True)
    network.client.connect(SERVER, network.now)
    flight = network.client.datagrams_to_send(network.now)
    taken = 0
    for _ in range(2):
        quic = issuer(server)
        for data, _ in flight:
            quic.receive_datagram(data, network.client_address, network.now)
        taken += any(isinstance(event, StreamDataReceived) for event in events_of(quic))
    assert taken == 1


def test_a_ticket_for_another_server_is_not_used():
    client, server, ticket = sessions()
    ticket.server_name = "other.example"
    network = resume(client, server).handshake()
    assert not network.events[network.client][1].session_resumed


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 50, b"\0\0\0\4abcd"])
def test_a_damaged_ticket_does_no_harm(damage):
    client, server, ticket = sessions()
    ticket.ticket = damage
    network = resume(client, server).handshake()
    assert not network.events[network.client][1].session_resumed


def test_servers_that_share_a_key_take_each_others_tickets():
    key = bytes(range(64))
    client, _, _ = sessions(session_ticket_key=key)
    other = server_configuration(session_ticket_key=key)
    network = resume(client, other).handshake()
    assert network.events[network.client][1].session_resumed


# ---- A server's handler and fetcher ----

EARLY = b"0-RTT " * 500


class Store(dict):
    """What a server knows of its tickets, by label."""

    def __init__(self):
        self.asked = []

    def handle(self, ticket):
        self[ticket.ticket] = ticket

    def fetch(self, label):
        self.asked.append(label)
        return self.get(label)


def completed(network, quic):
    (event,) = (e for e in network.events[quic] if isinstance(e, HandshakeCompleted))
    return event


class Visits:
    """Connections of one client to servers that share a configuration."""

    def __init__(self):
        self.client = client_configuration()
        self.server = server_configuration()
        self.store = Store()
        self.tickets = []

    def connect(self, ticket=None, **network):
        self.client.session_ticket = ticket
        client = QuicConnection(
            configuration=self.client, session_ticket_handler=self.tickets.append
        )
        server = QuicConnection(
            configuration=self.server,
            session_ticket_handler=self.store.handle,
            session_ticket_fetcher=self.store.fetch,
        )
        network = Network(client, server, **network)
        client.send_stream_data(0, EARLY, end_stream=True)
        network.connect()
        assert network.run(60, lambda: 0 in network.ended[server])
        assert network.received[server][0] == EARLY
        network.run(1)
        ours, theirs = (completed(network, quic) for quic in (client, server))
        assert (ours.session_resumed, ours.early_data_accepted) == (
            theirs.session_resumed,
            theirs.early_data_accepted,
        )
        return ours.session_resumed, ours.early_data_accepted


def test_the_handler_of_a_server_gets_each_ticket_that_it_issues():
    visits = Visits()
    visits.connect()
    (ticket,) = visits.store.values()
    assert len(visits.tickets) == 1
    assert ticket.server_name == "localhost"
    assert ticket.cipher_suite in CipherSuite.__members__.values()
    assert ticket.max_early_data_size == 0xFFFFFFFF
    assert ticket.is_valid
    assert len(ticket.ticket) > 100


def test_the_fetcher_is_asked_by_the_label_of_the_ticket():
    visits = Visits()
    assert visits.connect() == (False, False)
    assert not visits.store.asked
    assert visits.connect(visits.tickets[0]) == (True, True)
    assert visits.store.asked == [next(iter(visits.store))]
    assert len(visits.store) == 2


def test_a_ticket_that_the_fetcher_does_not_find_resumes_nothing():
    visits = Visits()
    visits.connect()
    visits.store.clear()
    assert visits.connect(visits.tickets[0]) == (False, False)
    assert len(visits.store.asked) == 1


def test_a_ticket_can_be_good_once():
    visits = Visits()
    visits.connect()
    visits.store.fetch = lambda label: visits.store.pop(label, None)
    assert visits.connect(visits.tickets[0]) == (True, True)
    assert visits.connect(visits.tickets[0]) == (False, False)
    assert visits.connect(visits.tickets[1]) == (True, True)


def test_a_ticket_that_the_store_says_is_old_resumes_nothing():
    visits = Visits()
    visits.connect()
    for ticket in visits.store.values():
        ticket.not_valid_after -= datetime.timedelta(days=1)
    assert visits.connect(visits.tickets[0]) == (False, False)


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_the_question_survives_a_hostile_network(found, seed):
    visits = Visits()
    visits.connect()
    if not found:
        visits.store.clear()
    resumed, _ = visits.connect(
        visits.tickets[0], loss=0.2, duplication=0.2, reordering=0.3, seed=seed
    )
    assert resumed == found


def test_a_fetcher_that_raises_resumes_nothing():
    visits = Visits()
    visits.connect()

    def fetch(label):
        raise LookupError("the store is away")

    visits.client.session_ticket = visits.tickets[0]
    client = QuicConnection(configuration=visits.client)
    server = QuicConnection(configuration=visits.server, session_ticket_fetcher=fetch)
    client.connect(SERVER, 0.0)
    first, *others = client.datagrams_to_send(0.0)
    with pytest.raises(LookupError):
        server.receive_datagram(first[0], ("192.0.2.1", 1), 0.0)
    for data, _ in others:
        server.receive_datagram(data, ("192.0.2.1", 1), 0.0)
    for data, _ in server.datagrams_to_send(0.0):
        client.receive_datagram(data, SERVER, 0.0)
    (completed,) = (e for e in events_of(client) if isinstance(e, HandshakeCompleted))
    assert not completed.session_resumed


def test_a_server_with_a_fetcher_alone_takes_tickets_and_issues_none():
    visits = Visits()
    visits.connect()
    visits.client.session_ticket = visits.tickets[0]
    client = QuicConnection(
        configuration=visits.client, session_ticket_handler=visits.tickets.append
    )
    server = QuicConnection(
        configuration=visits.server, session_ticket_fetcher=visits.store.get
    )
    network = Network(client, server).handshake()
    assert completed(network, client).session_resumed
    assert len(visits.tickets) == 1


def test_a_connection_may_be_closed_by_its_fetcher():
    visits = Visits()
    visits.connect()
    visits.client.session_ticket = visits.tickets[0]
    client = QuicConnection(configuration=visits.client)
    server = QuicConnection(
        configuration=visits.server,
        session_ticket_fetcher=lambda label: server.close(5, reason_phrase="no"),
    )
    network = Network(client, server, delay=0.1).connect()
    network.run(0.15)
    assert network.names(server) == ["ConnectionTerminated"]


class MessyClient(TheirConnection):
    """Damages its ClientHello, or makes it longer than a packet."""

    def __init__(self, damage, **arguments):
        super().__init__(**arguments)
        self.damage = damage

    def _push_crypto_data(self):
        buffer = self._crypto_buffers[Epoch.INITIAL]
        if buffer.tell():
            data = self.damage(bytearray(buffer.data))
            buffer.seek(0)
            buffer.push_bytes(bytes(data))
        super()._push_crypto_data()


def their_ticket(server, store):
    """A ticket that a server of ours issues to a client of theirs."""
    tickets = []
    configuration = their_client().configuration
    client = TheirConnection(
        configuration=configuration, session_ticket_handler=tickets.append
    )
    issuer = QuicConnection(configuration=server, session_ticket_handler=store.handle)
    Network(client, issuer).handshake()
    configuration.session_ticket = tickets[0]
    return configuration


def test_a_client_of_theirs_is_asked_for_by_the_label_it_knows():
    server, store = server_configuration(), Store()
    configuration = their_ticket(server, store)
    client = TheirConnection(configuration=configuration)
    quic = QuicConnection(configuration=server, session_ticket_fetcher=store.fetch)
    network = Network(client, quic).handshake()
    assert store.asked == [configuration.session_ticket.ticket]
    assert completed(network, quic).session_resumed


@pytest.mark.aioquic17
@pytest.mark.parametrize("found", [True, False])
def test_a_client_hello_of_many_packets_is_read_whole(found):
    server, store = server_configuration(), Store()
    configuration = their_ticket(server, store)
    configuration.alpn_protocols = ["test"] + [f"protocol-{i:03}" for i in range(300)]
    client = TheirConnection(configuration=configuration)
    if not found:
        store.clear()
    quic = QuicConnection(configuration=server, session_ticket_fetcher=store.fetch)
    network = Network(client, quic)
    network.connect()
    client.send_stream_data(0, EARLY, end_stream=True)
    assert network.run(30, lambda: 0 in network.ended[quic])
    assert network.received[quic] == {0: EARLY}
    network.run(1)
    assert completed(network, quic).session_resumed == found
    assert store.asked == [configuration.session_ticket.ticket]


def test_a_damaged_client_hello_ends_no_process():
    server, store = server_configuration(), Store()
    configuration = their_ticket(server, store)
    rng = random.Random(5)

    def damage(hello):
        for _ in range(rng.randrange(1, 4)):
            # Its end is where the tickets are.
            position = -1 - int(rng.expovariate(1 / 150)) % len(hello)
            hello[position] = rng.choice([0, 1, 0xFF, rng.randrange(256)])
        return hello

    codes = set()
    for _ in range(150):
        client = MessyClient(damage, configuration=configuration)
        quic = QuicConnection(configuration=server, session_ticket_fetcher=store.fetch)
        network = Network(client, quic)
        network.connect().run(5)
        codes |= {getattr(event, "error_code", 0) for event in network.events[quic]}
    # decode_error is among the alerts.
    assert 0x100 + 50 in codes


@in_loop
async def test_a_server_over_asyncio_asks_its_fetcher():
    store, tickets = Store(), []
    server = await serve(
        "::1",
        0,
        configuration=server_configuration(),
        session_ticket_handler=store.handle,
        session_ticket_fetcher=lambda label: store.pop(label, None),
    )
    port = server.sockets[0].getsockname()[1]
    configuration = client_configuration()
    resumed = []
    for _ in range(3):
        async with connect(
            "::1",
            port,
            configuration=configuration,
            session_ticket_handler=tickets.append,
        ) as client:
            await client.ping()
            resumed.append(client._quic.tls.session_resumed)
        configuration.session_ticket = tickets[0]
    assert resumed == [False, True, False]
    server.close()
