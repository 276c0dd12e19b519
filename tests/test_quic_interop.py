"""Ours beside aioquic, in memory: each feature, in both roles."""

import pytest
from aioquic.quic.configuration import QuicConfiguration as TheirConfiguration
from aioquic.quic.connection import QuicConnection as TheirConnection
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates
from quic_pair import (
    Network,
    authority,
    client_configuration,
    identity,
    server_configuration,
)

from nghttp2py.quic.connection import QuicConnection

V1, V2 = 1, 0x6B3343CF


class TheirServer(TheirConnection):
    """Can be asked for datagrams before it has received any."""

    def datagrams_to_send(self, now):
        return super().datagrams_to_send(now) if self._network_paths else []


def our_client(**fields):
    return QuicConnection(configuration=client_configuration(**fields))


def our_server(client, **fields):
    return QuicConnection(configuration=server_configuration(**fields))


def their_client(**fields):
    fields.setdefault("alpn_protocols", ["test"])
    return TheirConnection(
        configuration=TheirConfiguration(
            is_client=True,
            server_name="localhost",
            cadata=authority().cert_pem.bytes(),
            **fields,
        )
    )


def their_server(client, **fields):
    fields.setdefault("alpn_protocols", ["test"])
    chain, key = identity()
    certificates = load_pem_x509_certificates(chain)
    return TheirServer(
        configuration=TheirConfiguration(
            is_client=False,
            certificate=certificates[0],
            certificate_chain=certificates[1:],
            private_key=load_pem_private_key(key),
            **fields,
        ),
        original_destination_connection_id=client.original_destination_connection_id,
    )


@pytest.fixture(params=["our client", "our server"])
def join(request):
    """Makes a network of one of ours and one of theirs, with fields for both."""

    def make(fields=None, **network):
        fields = fields or {}
        if request.param == "our client":
            client = our_client(**fields)
            return Network(client, their_server(client, **fields), **network)
        client = their_client(**fields)
        return Network(client, our_server(client, **fields), **network)

    return make


def test_events_come_in_the_same_order(join):
    network = join().handshake()
    names = ["ProtocolNegotiated", "HandshakeCompleted"] + ["ConnectionIdIssued"] * 7
    assert network.names(network.client) == names
    assert network.names(network.server) == names


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_data_go_both_ways(join, loss):
    network = join(loss=loss, seed=1).handshake()
    data = bytes(range(256)) * 800
    assert network.transfer(network.client, data) == data
    for stream_id in (0, 3):
        assert network.transfer(network.server, data, stream_id) == data


@pytest.mark.parametrize("versions", [[V1], [V2], [V1, V2], [V2, V1]])
def test_versions(join, versions):
    network = join({"supported_versions": versions}).handshake()
    assert "HandshakeCompleted" in network.names(network.client)
    assert "HandshakeCompleted" in network.names(network.server)


def test_datagrams(join):
    network = join({"max_datagram_frame_size": 65536}).handshake()
    network.client.send_datagram_frame(b"up")
    network.server.send_datagram_frame(b"down")
    network.run(0.5)
    assert network.events[network.server][-1].data == b"up"
    assert network.events[network.client][-1].data == b"down"


def test_resets_and_stops(join):
    network = join().handshake()
    network.client.send_stream_data(0, b"a")
    network.client.send_stream_data(4, b"b")
    network.run(0.2)
    network.client.reset_stream(0, 11)
    network.server.stop_stream(4, 12)
    network.run(0.5)
    resets = {
        event.stream_id: event.error_code
        for event in network.events[network.server]
        if type(event).__name__ == "StreamReset"
    }
    assert resets[0] == 11
    # The code of the answer to STOP_SENDING is ours to choose.
    assert 4 in resets
    stops = [
        (event.stream_id, event.error_code)
        for event in network.events[network.client]
        if type(event).__name__ == "StopSendingReceived"
    ]
    assert stops == [(4, 12)]


def test_pings_and_keys(join):
    network = join().handshake()
    for quic in (network.client, network.server):
        quic.send_ping(7)
        network.run(0.5)
        assert network.events[quic][-1].uid == 7
        quic.request_key_update()
        quic.send_ping(8)
        network.run(1)
        assert network.events[quic][-1].uid == 8


def test_a_client_of_theirs_changes_its_connection_id():
    client = their_client()
    network = Network(client, our_server(client)).handshake()
    client.change_connection_id()
    network.run(0.5)
    assert "ConnectionIdRetired" in network.names(network.server)
    client.send_stream_data(0, b"moved", end_stream=True)
    assert network.run(1, lambda: 0 in network.ended[network.server])


def test_a_server_of_ours_keeps_the_connection_id_it_uses():
    """ngtcp2 changes it at a client alone; a call does nothing."""
    client = their_client()
    network = Network(client, our_server(client)).handshake()
    network.server.change_connection_id()
    network.run(0.5)
    assert "ConnectionIdRetired" not in network.names(client)
    network.server.send_stream_data(3, b"as before", end_stream=True)
    assert network.run(1, lambda: 3 in network.ended[client])


def test_a_server_of_theirs_changes_its_connection_id():
    client = our_client()
    network = Network(client, their_server(client)).handshake()
    network.server.change_connection_id()
    network.run(0.5)
    assert "ConnectionIdRetired" in network.names(client)
    network.server.send_stream_data(3, b"by another name", end_stream=True)
    assert network.run(1, lambda: 3 in network.ended[client])


def test_a_new_address_is_followed(join):
    network = join().handshake()
    network.client_address = ("192.0.2.1", 50001)
    network.client.send_stream_data(0, b"from elsewhere", end_stream=True)
    network.run(1)
    network.server.send_stream_data(0, bytes(20_000), end_stream=True)
    assert network.run(5, lambda: 0 in network.ended[network.client])


@pytest.mark.parametrize("closer", ["client", "server"])
def test_a_close_is_told(join, closer):
    network = join().handshake()
    getattr(network, closer).close(error_code=77, reason_phrase="enough")
    network.run(10)
    for quic in (network.client, network.server):
        event = network.events[quic][-1]
        assert type(event).__name__ == "ConnectionTerminated"
        assert (event.error_code, event.frame_type, event.reason_phrase) == (
            77,
            None,
            "enough",
        )


def test_a_client_of_theirs_gets_a_token():
    tokens = []
    client = TheirConnection(
        configuration=their_client().configuration, token_handler=tokens.append
    )
    network = Network(client, our_server(client)).handshake()
    network.server.send_new_token(b"come back")
    network.run(0.5)
    assert tokens == [b"come back"]


def test_no_common_protocol(join):
    client = join().client
    if isinstance(client, QuicConnection):
        network = Network(client, their_server(client, alpn_protocols=["other"]))
    else:
        network = Network(client, our_server(client, alpn_protocols=["other"]))
    network.connect().run(10)
    for quic in (network.client, network.server):
        assert 0x100 <= network.events[quic][-1].error_code < 0x200


def test_a_wrong_name():
    client = our_client(server_name="elsewhere.example")
    network = Network(client, their_server(client)).connect()
    network.run(10)
    assert 0x100 <= network.events[network.server][-1].error_code < 0x200


@pytest.mark.aioquic17
def test_our_early_data_are_taken_by_a_server_of_theirs():
    stored = {}
    tickets = []
    client = QuicConnection(
        configuration=client_configuration(), session_ticket_handler=tickets.append
    )
    first = their_server(client)
    server = TheirServer(
        configuration=first.configuration,
        original_destination_connection_id=client.original_destination_connection_id,
        session_ticket_handler=lambda ticket: stored.update({ticket.ticket: ticket}),
        session_ticket_fetcher=stored.get,
    )
    Network(client, server).handshake()
    assert tickets and stored
    client = our_client(session_ticket=tickets[0])
    server = TheirServer(
        configuration=first.configuration,
        original_destination_connection_id=client.original_destination_connection_id,
        session_ticket_fetcher=stored.get,
    )
    network = Network(client, server)
    client.send_stream_data(0, b"early", end_stream=True)
    network.handshake()
    assert network.received[server] == {0: b"early"}
    completed = network.events[client][1]
    assert completed.session_resumed and completed.early_data_accepted


def test_their_early_data_are_taken_by_a_server_of_ours():
    tickets = []
    base = their_client()
    client = TheirConnection(
        configuration=base.configuration, session_ticket_handler=tickets.append
    )
    configuration = server_configuration()
    server = QuicConnection(
        configuration=configuration, session_ticket_handler=lambda ticket: None
    )
    Network(client, server).handshake()
    assert tickets
    base.configuration.session_ticket = tickets[0]
    client = TheirConnection(configuration=base.configuration)
    server = QuicConnection(
        configuration=configuration, session_ticket_handler=lambda ticket: None
    )
    network = Network(client, server)
    network.connect()
    client.send_stream_data(0, b"early", end_stream=True)
    network.run(0.5)
    assert network.received[server] == {0: b"early"}
    completed = next(
        e for e in network.events[client] if type(e).__name__ == "HandshakeCompleted"
    )
    assert completed.session_resumed and completed.early_data_accepted
