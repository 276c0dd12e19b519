"""The HTTP/1.1 Upgrade to h2c (RFC 7540, 3.2)."""

import base64

import pytest
from helpers import MAGIC, Peers, body_of, exchange, parse

from nghttp2py.errors import ProtocolError
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2ResponseReceived,
    H2SettingsAcknowledged,
    H2StreamClosed,
    Setting,
)


def upgraded(*, head_request=False, client=None, server=None):
    peers = Peers.__new__(Peers)
    peers.chunk = None
    peers.client_events, peers.server_events = [], []
    peers.client = H2Connection(client_side=True, config=client)
    peers.server = H2Connection(config=server)
    value = peers.client.initiate_upgrade_connection(head_request=head_request)
    peers.server.initiate_upgrade_connection(value, head_request=head_request)
    return peers, value


def test_both_ends_begin_with_stream_1():
    peers, value = upgraded()
    assert isinstance(value, bytes)
    assert peers.client.active_stream_count == 1
    assert peers.server.active_stream_count == 1
    assert peers.server.stream_ended(1)
    peers.server.send_response_headers(1, 200, [("a", "b")])
    peers.server.send_body(1, b"upgraded")
    client_events, server_events = peers.pump()
    assert H2ResponseReceived(1, 200, ((b"a", b"b"),)) in client_events
    assert body_of(client_events, 1) == b"upgraded"
    assert H2StreamClosed(1, 0) in client_events
    assert H2StreamClosed(1, 0) in server_events
    assert peers.client.send_request("GET", "/", authority="h") == 3


def test_the_field_is_the_clients_settings():
    peers, value = upgraded(client=H2Configuration(initial_window_size=1234))
    payload = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
    assert (4).to_bytes(2, "big") + (1234).to_bytes(4, "big") in payload
    assert peers.server.remote_settings[Setting.INITIAL_WINDOW_SIZE] == 1234
    peers.server.send_response_headers(1, 200, [])
    assert peers.server.send_data(1, b"x" * 5000) == 1234


def test_each_end_sends_its_preface_once():
    peers, _ = upgraded()
    out = peers.client.data_to_send()
    assert out.startswith(MAGIC)
    assert [f.type for f in parse(out[len(MAGIC) :])] == [4]
    assert [f.type for f in parse(peers.server.data_to_send())] == [4]


def test_settings_are_acknowledged_once():
    peers, _ = upgraded()
    client_events, server_events = peers.pump()
    for connection, events in (
        (peers.client, client_events),
        (peers.server, server_events),
    ):
        (event,) = [e for e in events if isinstance(e, H2SettingsAcknowledged)]
        assert event.settings
        assert connection.settings_unacknowledged == 0


def test_a_head_request_is_remembered():
    peers, _ = upgraded(head_request=True)
    peers.server.send_response_headers(
        1, 200, [("content-length", "5")], end_stream=True
    )
    events, _ = peers.pump()
    assert H2StreamClosed(1, 0) in events


def test_the_value_may_be_text():
    client, server = H2Connection(client_side=True), H2Connection()
    server.initiate_upgrade_connection(client.initiate_upgrade_connection().decode())
    exchange(client, server)
    assert server.active_stream_count == 1


@pytest.mark.parametrize("value", ["!", "A", b"AAA", "\u00e9", "AAQ="])
def test_a_value_that_does_not_decode_is_an_error(value):
    server = H2Connection()
    with pytest.raises(ProtocolError):
        server.initiate_upgrade_connection(value)


def test_a_server_needs_a_value():
    with pytest.raises(TypeError):
        H2Connection().initiate_upgrade_connection()


def test_the_upgrade_is_the_beginning():
    peers = Peers()
    with pytest.raises(ProtocolError, match="before"):
        peers.client.initiate_upgrade_connection()


def test_the_connection_window_is_announced_after_an_upgrade():
    peers, _ = upgraded(client=H2Configuration(connection_window_size=100000))
    peers.pump()
    assert peers.client.remote_flow_control_window() == 100000
