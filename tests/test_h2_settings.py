"""SETTINGS (RFC 9113, 6.5) and PING (6.7)."""

import struct

import pytest
from helpers import (
    ACK,
    CHUNKS,
    GOAWAY,
    MAGIC,
    PING,
    RST_STREAM,
    SETTINGS,
    Peers,
    RawPeer,
    frame,
    ping,
    settings,
    settings_ack,
)

from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    InvalidSettingsValueError,
    ProtocolError,
)
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2PingAcknowledged,
    H2PingReceived,
    H2SettingsAcknowledged,
    H2SettingsReceived,
    Setting,
)


def decode(payload):
    return dict(struct.iter_unpack(">HI", payload))


@pytest.mark.parametrize("client_side", [False, True])
def test_the_preface_is_magic_and_settings(client_side):
    """RFC 9113, 3.4."""
    connection = H2Connection(client_side=client_side)
    connection.initiate_connection()
    assert connection.want_write
    out = connection.data_to_send()
    assert out.startswith(MAGIC) == client_side
    peer = RawPeer(client_side=client_side, handshake=False)
    peer.connection.initiate_connection()
    (sent,) = peer.read()
    values = decode(sent.payload)
    assert values[Setting.NO_RFC7540_PRIORITIES] == 1
    assert values[Setting.MAX_CONCURRENT_STREAMS] == 100
    assert values[Setting.INITIAL_WINDOW_SIZE] == 65535
    assert values[Setting.MAX_HEADER_LIST_SIZE] == 65536
    assert (Setting.ENABLE_PUSH in values) == client_side
    assert (Setting.ENABLE_CONNECT_PROTOCOL in values) != client_side


def test_configured_settings_are_announced():
    config = H2Configuration(
        header_table_size=8192, max_frame_size=32768, max_concurrent_streams=7
    )
    peer = RawPeer(config=config, handshake=False)
    peer.connection.initiate_connection()
    values = decode(peer.read()[0].payload)
    assert values[Setting.HEADER_TABLE_SIZE] == 8192
    assert values[Setting.MAX_FRAME_SIZE] == 32768
    assert values[Setting.MAX_CONCURRENT_STREAMS] == 7


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_peers_settings_are_told_and_answered(chunk):
    peer = RawPeer(chunk=chunk)
    (answer,) = peer.send(settings({1: 100, 3: 5}))
    assert answer == (SETTINGS, ACK, 0, b"")
    assert peer.events == [H2SettingsReceived({1: 100, 3: 5})]
    assert peer.connection.remote_settings[Setting.MAX_CONCURRENT_STREAMS] == 5


def test_empty_settings_are_answered_too():
    peer = RawPeer()
    assert peer.send(settings()) == [(SETTINGS, ACK, 0, b"")]
    assert peer.events == [H2SettingsReceived({})]


def test_an_unknown_setting_is_ignored_and_told():
    """RFC 9113, 6.5.2."""
    peer = RawPeer()
    assert peer.send(settings({0xF000: 1})) == [(SETTINGS, ACK, 0, b"")]
    assert peer.events == [H2SettingsReceived({0xF000: 1})]


def test_our_settings_hold_when_they_are_acknowledged():
    peers = Peers()
    new = {Setting.MAX_CONCURRENT_STREAMS: 5, Setting.INITIAL_WINDOW_SIZE: 1000}
    peers.server.update_settings(new)
    assert peers.server.settings_unacknowledged == 1
    before = peers.server.local_settings[Setting.MAX_CONCURRENT_STREAMS]
    client_events, server_events = peers.pump()
    assert before == 100
    assert peers.server.local_settings[Setting.MAX_CONCURRENT_STREAMS] == 5
    assert peers.client.remote_settings[Setting.INITIAL_WINDOW_SIZE] == 1000
    assert H2SettingsReceived({3: 5, 4: 1000}) in client_events
    assert server_events == [H2SettingsAcknowledged({3: 5, 4: 1000})]
    assert peers.server.settings_unacknowledged == 0


def test_acknowledgements_come_in_order():
    peers = Peers()
    for value in (5, 6, 7):
        peers.server.update_settings({Setting.MAX_CONCURRENT_STREAMS: value})
    assert peers.server.settings_unacknowledged == 3
    _, events = peers.pump()
    assert [event.settings[3] for event in events] == [5, 6, 7]


def test_the_first_settings_are_acknowledged_too():
    client = H2Connection(client_side=True)
    client.initiate_connection()
    assert client.settings_unacknowledged == 1
    events = client.receive_data(settings() + settings_ack())
    assert isinstance(events[-1], H2SettingsAcknowledged)
    assert events[-1].settings[Setting.ENABLE_PUSH] == 0


def test_all_settings_have_a_value():
    peers = Peers()
    assert peers.client.remote_settings == {
        Setting.HEADER_TABLE_SIZE: 4096,
        Setting.ENABLE_PUSH: 1,
        Setting.MAX_CONCURRENT_STREAMS: 100,
        Setting.INITIAL_WINDOW_SIZE: 65535,
        Setting.MAX_FRAME_SIZE: 16384,
        Setting.MAX_HEADER_LIST_SIZE: 65536,
        Setting.ENABLE_CONNECT_PROTOCOL: 1,
        Setting.NO_RFC7540_PRIORITIES: 1,
    }
    assert peers.client.local_settings[Setting.ENABLE_PUSH] == 0


@pytest.mark.parametrize(
    "values",
    [
        {2: 2},
        {4: 2**31},
        {5: 16383},
        {5: 2**24},
        {8: 2},
        {9: 2},
        {2**16: 0},
        dict.fromkeys(range(100, 133), 0),
    ],
)
def test_settings_out_of_range_are_not_sent(values):
    """RFC 9113, 6.5.2."""
    peers = Peers()
    with pytest.raises(InvalidSettingsValueError):
        peers.client.update_settings(values)
    assert peers.client.data_to_send() == b""
    assert peers.client.settings_unacknowledged == 0


@pytest.mark.parametrize("values", [{3: -1}, {3: 2**32}, {-1: 0}])
def test_settings_have_32_bits(values):
    with pytest.raises(ValueError):
        Peers().client.update_settings(values)


def test_the_priority_setting_cannot_change():
    """RFC 9218, 2.1."""
    peers = Peers()
    with pytest.raises(InvalidSettingsValueError):
        peers.client.update_settings({Setting.NO_RFC7540_PRIORITIES: 0})


@pytest.mark.parametrize(
    "values,code",
    [
        ({2: 2}, ErrorCode.PROTOCOL_ERROR),
        ({4: 2**31}, ErrorCode.FLOW_CONTROL_ERROR),
        ({5: 16383}, ErrorCode.PROTOCOL_ERROR),
        ({5: 2**24}, ErrorCode.PROTOCOL_ERROR),
        ({9: 1}, ErrorCode.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_settings_out_of_range_end_the_connection(values, code, chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(settings(values))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == code
    assert peer.events[-1] == H2ConnectionClosed(code, False)


@pytest.mark.parametrize(
    "wire,code",
    [
        (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, b"123456"), ErrorCode.FRAME_SIZE_ERROR),
        (settings_ack(), ErrorCode.PROTOCOL_ERROR),
    ],
    ids=["on a stream", "not whole entries", "ack with payload", "unasked ack"],
)
def test_malformed_settings_end_the_connection(wire, code):
    """RFC 9113, 6.5, 6.5.3."""
    peer = RawPeer()
    peer.send(wire)
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == code


def test_a_server_must_not_enable_push():
    """RFC 9113, 6.5.2."""
    peer = RawPeer(client_side=True)
    peer.send(settings({2: 1}))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.PROTOCOL_ERROR


def test_a_smaller_table_of_the_peer_is_kept_to():
    """RFC 7541, 4.2: the next header block tells the change."""
    peer = RawPeer(client_side=True)
    peer.decoder.max_allowed_table_size = 100
    peer.send(settings({1: 100}))
    for i in range(5):
        peer.connection.send_request("GET", "/", [("x", str(i) * 50)], authority="h")
    for sent in peer.read():
        fields = peer.fields(sent)
        assert fields[0] == (b":method", b"GET")
    assert peer.connection.counters["deflate_table_size"] <= 100


def test_more_streams_than_announced_are_refused_until_acknowledged():
    """RFC 9113, 5.1.2."""
    peer = RawPeer()
    peer.connection.update_settings({Setting.MAX_CONCURRENT_STREAMS: 1})
    peer.read()
    peer.frames.clear()
    peer.send(peer.headers(1), peer.headers(3))
    (sent,) = peer.sent(RST_STREAM)
    assert (sent.stream_id, sent.error_code) == (3, ErrorCode.REFUSED_STREAM)
    assert peer.connection.active_stream_count == 1


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_ping_is_answered_and_told(chunk):
    peer = RawPeer(chunk=chunk)
    (answer,) = peer.send(ping(b"abcdefgh"))
    assert answer == (PING, ACK, 0, b"abcdefgh")
    assert peer.events == [H2PingReceived(b"abcdefgh")]


def test_our_ping_is_acknowledged():
    peers = Peers()
    peers.client.ping(b"12345678")
    client_events, server_events = peers.pump()
    assert client_events == [H2PingAcknowledged(b"12345678")]
    assert server_events == [H2PingReceived(b"12345678")]


def test_pings_can_be_answered_by_hand():
    peer = RawPeer(config=H2Configuration(automatic_ping_ack=False))
    assert peer.send(ping(b"abcdefgh")) == []
    assert peer.events == [H2PingReceived(b"abcdefgh")]
    peer.connection.acknowledge_ping(b"abcdefgh")
    assert peer.read() == [(PING, ACK, 0, b"abcdefgh")]


def test_pings_are_answered_once():
    peers = Peers()
    with pytest.raises(ProtocolError, match="automatically"):
        peers.client.acknowledge_ping(b"12345678")


@pytest.mark.parametrize("payload", [b"", b"1234567", b"123456789"])
def test_a_ping_has_eight_bytes(payload):
    with pytest.raises(ValueError, match="8 bytes"):
        Peers().client.ping(payload)


@pytest.mark.parametrize(
    "wire,code",
    [
        (frame(PING, 0, 1, b"12345678"), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(PING, 0, 0, b"123456789"), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_malformed_pings_end_the_connection(wire, code):
    """RFC 9113, 6.7."""
    peer = RawPeer()
    peer.send(wire)
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == code


def test_an_unasked_ping_answer_is_told_and_harms_nobody():
    peer = RawPeer()
    assert peer.send(ping(b"abcdefgh", ack=True)) == []
    assert peer.events == [H2PingAcknowledged(b"abcdefgh")]


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        MAGIC + ping(),
        MAGIC + frame(SETTINGS, ACK, 0),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client hello",
    ],
    ids=["HTTP/1.1", "wrong magic", "PING first", "ACK first", "TLS"],
)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_another_preface_ends_the_connection(wire, chunk):
    """RFC 9113, 3.4."""
    peer = RawPeer(handshake=False, chunk=chunk)
    peer.connection.initiate_connection()
    peer.feed(wire)
    peer.read()
    assert peer.sent(GOAWAY)[-1].error_code == ErrorCode.PROTOCOL_ERROR
    (event,) = peer.of(H2ConnectionClosed)
    assert event == H2ConnectionClosed(ErrorCode.PROTOCOL_ERROR, False)
    assert event.reason
    assert not peer.connection.want_read
    assert not peer.connection.want_write
    with pytest.raises(ConnectionClosedError):
        peer.connection.ping()


def test_a_server_that_does_not_begin_with_settings_is_left():
    peer = RawPeer(client_side=True, handshake=False)
    peer.connection.initiate_connection()
    peer.read()
    peer.send(ping())
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.PROTOCOL_ERROR
