"""Ours beside qh3, in memory, in both roles."""

import pytest
from qh3.quic.configuration import QuicConfiguration as TheirConfiguration
from qh3.quic.connection import QuicConnection as TheirConnection
from quic_pair import (
    Network,
    authority,
    client_configuration,
    identity,
    server_configuration,
)

from nghttp2py.quic.connection import QuicConnection

FIELDS = {"alpn_protocols": ["test"], "max_datagram_frame_size": 65536}


@pytest.fixture(params=["our client", "our server"])
def network(request, tmp_path):
    """A network of one of ours and one of theirs, after the handshake."""
    chain, key = identity()
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "authority.pem").write_bytes(authority().cert_pem.bytes())
    if request.param == "our client":
        client = QuicConnection(configuration=client_configuration(**FIELDS))
        configuration = TheirConfiguration(is_client=False, **FIELDS)
        configuration.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        odcid = client.original_destination_connection_id
        server = TheirConnection(
            configuration=configuration, original_destination_connection_id=odcid
        )
    else:
        configuration = TheirConfiguration(
            is_client=True, server_name="localhost", **FIELDS
        )
        configuration.load_verify_locations(str(tmp_path / "authority.pem"))
        client = TheirConnection(configuration=configuration)
        server = QuicConnection(configuration=server_configuration(**FIELDS))
    network = Network(client, server).handshake()
    assert "HandshakeCompleted" in network.names(client)
    assert "HandshakeCompleted" in network.names(server)
    return network


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_data_go_both_ways(network, loss):
    network.loss = loss
    data = bytes(range(256)) * 800
    for sender in (network.client, network.server):
        assert network.transfer(sender, data) == data


def test_datagrams(network):
    network.client.send_datagram_frame(b"up")
    network.server.send_datagram_frame(b"down")
    network.run(0.5)
    assert network.events[network.server][-1].data == b"up"
    assert network.events[network.client][-1].data == b"down"


def test_pings_and_keys(network):
    for quic in (network.client, network.server):
        quic.send_ping(7)
        network.run(1)
        assert network.events[quic][-1].uid == 7
        quic.request_key_update()
        quic.send_ping(8)
        network.run(1)
        assert network.events[quic][-1].uid == 8


@pytest.mark.parametrize("closer", ["client", "server"])
def test_a_close_is_told(network, closer):
    getattr(network, closer).close(error_code=77, reason_phrase="enough")
    network.run(10)
    for quic in (network.client, network.server):
        event = network.events[quic][-1]
        assert (event.error_code, event.frame_type, event.reason_phrase) == (
            77,
            None,
            "enough",
        )


def test_a_new_address_is_followed(network):
    network.client_address = ("192.0.2.1", 50001)
    network.client.send_stream_data(0, b"from elsewhere", end_stream=True)
    network.run(1)
    network.server.send_stream_data(0, bytes(20_000), end_stream=True)
    assert network.run(5, lambda: 0 in network.ended[network.client])


def test_a_connection_id_is_changed(network):
    network.client.change_connection_id()
    network.run(1)
    network.client.send_stream_data(0, b"by another name", end_stream=True)
    assert network.run(5, lambda: 0 in network.ended[network.server])
    if isinstance(network.server, QuicConnection):
        assert "ConnectionIdRetired" in network.names(network.server)
