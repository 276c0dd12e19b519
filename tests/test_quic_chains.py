"""A chain of certificates that was verified is trusted for no other connection than
one that would verify it again."""

from datetime import datetime, timedelta, timezone

import pytest
import trustme
from quic_pair import client_configuration, identity, make_pair, server_configuration

from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import ConnectionTerminated, HandshakeCompleted


def connect(client, server=None):
    """Return whether a handshake succeeds, or the reason why it does not."""
    network = make_pair(client, server).handshake()
    for event in network.events[network.client]:
        if isinstance(event, HandshakeCompleted):
            return True
        if isinstance(event, ConnectionTerminated):
            return event.reason_phrase
    return None


def test_a_remembered_chain_is_not_trusted_for_another_name():
    client = client_configuration()
    assert connect(client) is True
    client.server_name = "example.org"
    assert "name" in connect(client)
    client.server_name = "127.0.0.1"
    assert connect(client) is True
    client.server_name = "192.0.2.7"
    assert "name" in connect(client)
    client.server_name = "localhost"
    assert connect(client) is True


def test_a_configuration_with_other_authorities_verifies_anew():
    client = client_configuration()
    assert connect(client) is True
    client.load_verify_locations(cadata=trustme.CA().cert_pem.bytes())
    assert "NOT trusted" in connect(client)
    other = client_configuration(cadata=trustme.CA().cert_pem.bytes())
    assert "NOT trusted" in connect(other)


def test_another_chain_of_the_same_name_is_verified():
    client = client_configuration()
    assert connect(client) is True
    forged = trustme.CA().issue_cert("localhost")
    server = server_configuration(
        certificate=forged.cert_chain_pems[0].bytes(),
        private_key=forged.private_key_pem.bytes(),
    )
    assert "NOT trusted" in connect(client, server)


def with_intermediate(root, expires):
    """A server whose intermediate certificate expires then."""
    intermediate = root.create_child_ca()
    issued = intermediate.issue_cert("localhost", not_after=expires)
    return server_configuration(
        certificate=issued.cert_chain_pems[0].bytes(),
        certificate_chain=[pem.bytes() for pem in issued.cert_chain_pems[1:]],
        private_key=issued.private_key_pem.bytes(),
    )


def test_an_expired_certificate_is_refused_after_a_valid_one():
    root = trustme.CA()
    client = client_configuration(cadata=root.cert_pem.bytes())
    now = datetime.now(timezone.utc)
    assert connect(client, with_intermediate(root, now + timedelta(days=1))) is True
    reason = connect(client, with_intermediate(root, now - timedelta(days=1)))
    assert "expired" in reason


@pytest.mark.parametrize("remember", [True, False])
def test_handshakes_succeed_with_and_without_what_is_remembered(remember):
    client = client_configuration(remember_chains=remember)
    for _ in range(3):
        assert connect(client) is True


def test_the_option_is_a_bool():
    with pytest.raises(TypeError, match="remember_chains"):
        QuicConnection(configuration=client_configuration(remember_chains=1))


def test_a_server_remembers_the_chains_of_clients():
    chain, key = identity("client.example")
    root = client_configuration().cadata
    server = server_configuration(verify_mode=2, cadata=root)
    client = client_configuration(certificate=chain, private_key=key)
    for _ in range(2):
        assert connect(client, server) is True
    stranger = trustme.CA().issue_cert("client.example")
    client = client_configuration(
        certificate=stranger.cert_chain_pems[0].bytes(),
        private_key=stranger.private_key_pem.bytes(),
    )
    assert connect(client, server) is not None
