"""Windows, in both directions (RFC 9113, 5.2, 6.9)."""

import pytest
from helpers import (
    CHUNKS,
    DATA,
    GOAWAY,
    RST_STREAM,
    WINDOW_UPDATE,
    Peers,
    RawPeer,
    body_of,
    data,
    frame,
    rst_stream,
    settings,
    window_update,
)

from nghttp2py.errors import ErrorCode, FlowControlError, ProtocolError
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2ConnectionClosed,
    H2StreamClosed,
    H2WindowUpdated,
)

MANUAL = H2Configuration(manual_flow_control=True)


def answer(peer, stream_id):
    """Have a request answered, with the body still to come."""
    peer.send(peer.headers(stream_id, end_stream=True))
    peer.connection.send_response_headers(stream_id, 200, [])
    peer.read()


def test_send_data_takes_what_the_windows_allow():
    peer = RawPeer()
    answer(peer, 1)
    connection = peer.connection
    assert connection.local_flow_control_window(1) == 65535
    assert connection.send_data(1, b"x" * 70000) == 65535
    assert connection.local_flow_control_window(1) == 0
    assert connection.send_data(1, b"x") == 0
    assert sum(len(f.payload) for f in peer.read()) == 65535


def test_a_partial_send_does_not_end_the_stream():
    peer = RawPeer()
    answer(peer, 1)
    assert peer.connection.send_data(1, b"x" * 70000, end_stream=True) == 65535
    assert not any(f.flags & 1 for f in peer.read())
    peer.send(window_update(0, 10000), window_update(1, 10000))
    assert peer.connection.send_data(1, b"x" * 4465, end_stream=True) == 4465
    assert peer.read()[-1].flags & 1


def test_what_was_taken_counts_before_it_is_sent():
    peer = RawPeer()
    answer(peer, 1)
    answer(peer, 3)
    connection = peer.connection
    assert connection.send_data(1, b"x" * 40000) == 40000
    assert connection.send_data(3, b"x" * 40000) == 25535
    assert connection.local_flow_control_window(1) == 0
    assert sum(len(f.payload) for f in peer.read()) == 65535


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_window_update_is_told_and_can_be_used(chunk):
    peer = RawPeer(chunk=chunk)
    answer(peer, 1)
    peer.connection.send_data(1, b"x" * 65535)
    peer.read()
    peer.events.clear()
    peer.send(window_update(0, 100), window_update(1, 50))
    assert peer.events == [H2WindowUpdated(0), H2WindowUpdated(1)]
    assert [event.increment for event in peer.events] == [100, 50]
    assert peer.connection.local_flow_control_window(1) == 50


def test_a_larger_initial_window_is_told():
    """RFC 9113, 6.9.2: SETTINGS change the windows of all streams."""
    peer = RawPeer(peer_settings={4: 10})
    answer(peer, 1)
    assert peer.connection.send_data(1, b"x" * 100) == 10
    peer.read()
    peer.events.clear()
    peer.send(settings({4: 30}))
    assert H2WindowUpdated(0) in peer.events
    assert peer.connection.local_flow_control_window(1) == 20


def test_a_smaller_initial_window_can_make_a_window_negative():
    """RFC 9113, 6.9.2."""
    peer = RawPeer(peer_settings={4: 100})
    answer(peer, 1)
    assert peer.connection.send_data(1, b"x" * 100) == 100
    peer.read()
    peer.send(settings({4: 40}))
    assert peer.connection.local_flow_control_window(1) == 0
    peer.send(window_update(1, 60))
    assert peer.connection.local_flow_control_window(1) == 0
    assert peer.connection.send_data(1, b"y") == 0
    peer.send(window_update(1, 1))
    assert peer.connection.send_data(1, b"yz") == 1


def test_a_body_that_is_stuck_does_not_hold_up_another():
    """Only what the first stream could send counts against the connection's window."""
    peer = RawPeer(peer_settings={4: 1000})
    answer(peer, 1)
    answer(peer, 3)
    connection = peer.connection
    connection.send_body(1, b"x" * 500000)
    assert connection.send_data(3, b"y" * 1000) == 1000
    frames = peer.read()
    assert sum(len(f.payload) for f in frames if f.stream_id == 3) == 1000


def test_room_that_a_reset_gives_back_is_told():
    peer = RawPeer()
    answer(peer, 1)
    answer(peer, 3)
    connection = peer.connection
    connection.send_data(1, b"x" * 65535)
    assert connection.local_flow_control_window(3) == 0
    peer.events.clear()
    connection.reset_stream(1)
    peer.read()
    assert connection.local_flow_control_window(3) == 65535
    assert peer.events == [H2WindowUpdated(0), H2StreamClosed(1, 0)]
    assert peer.events[0].increment == 0


def test_room_that_a_reset_by_the_peer_gives_back_is_told():
    peer = RawPeer()
    answer(peer, 1)
    answer(peer, 3)
    peer.connection.send_data(1, b"x" * 65535)
    peer.events.clear()
    peer.feed(rst_stream(1))
    assert H2WindowUpdated(0) in peer.events
    assert peer.connection.local_flow_control_window(3) == 65535


def test_received_data_are_credited_at_once():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    body = b"x" * 300000
    peers.client.send_body(stream_id, body)
    peers.pump()
    assert body_of(peers.server_events, stream_id) == body
    # nghttp2 credits when half of the window is used.
    assert peers.server.remote_flow_control_window() > 65535 // 2


def test_automatic_credit_is_not_given_by_hand():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    with pytest.raises(ProtocolError, match="automatically"):
        peers.server.acknowledge_received_data(1, stream_id)


def test_by_hand_nothing_is_credited_that_was_not_taken():
    peers = Peers(server=MANUAL)
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, b"x" * 100000, end_stream=False)
    peers.pump()
    server = peers.server
    assert server.unacknowledged_data(stream_id) == 65535
    assert server.remote_flow_control_window(stream_id) == 0
    assert server.remote_flow_control_window() == 0
    server.acknowledge_received_data(65535, stream_id)
    peers.pump()
    assert body_of(peers.server_events, stream_id) == b"x" * 100000
    assert server.unacknowledged_data(stream_id) == 100000 - 65535


def test_more_than_came_in_cannot_be_acknowledged():
    peers = Peers(server=MANUAL)
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_data(stream_id, b"x" * 10)
    peers.pump()
    with pytest.raises(FlowControlError, match="only 10 are"):
        peers.server.acknowledge_received_data(11, stream_id)
    peers.server.acknowledge_received_data(10, stream_id)
    with pytest.raises(FlowControlError):
        peers.server.acknowledge_received_data(1, stream_id)


@pytest.mark.parametrize("n", [-1, 2**32, 1.0, True])
def test_credit_is_a_number_of_bytes(n):
    peers = Peers(server=MANUAL)
    stream_id = peers.request("POST", end_stream=False)
    with pytest.raises((TypeError, ValueError)):
        peers.server.acknowledge_received_data(n, stream_id)


@pytest.mark.parametrize("who", ["we", "peer", "end"])
def test_unread_bytes_of_a_closed_stream_go_back_to_the_connection(who):
    """Else each such stream would narrow the connection's window for good."""
    peer = RawPeer(config=MANUAL)
    connection = peer.connection
    for i in range(10):
        stream_id = 2 * i + 1
        peer.send(peer.headers(stream_id), *[data(stream_id, b"x" * 16384)] * 3)
        if who == "we":
            connection.reset_stream(stream_id)
        elif who == "peer":
            peer.feed(rst_stream(stream_id))
        else:
            connection.send_response_headers(stream_id, 200, [], end_stream=True)
            peer.feed(data(stream_id, end_stream=True))
        peer.read()
        assert connection.active_stream_count == 0
        connection.acknowledge_received_data(5, stream_id)
    assert connection.remote_flow_control_window() > 65535 // 2
    assert peer.sent(WINDOW_UPDATE)
    assert not peer.sent(GOAWAY)


def test_late_data_on_a_reset_stream_are_credited():
    peer = RawPeer(config=MANUAL)
    peer.send(peer.headers(1))
    peer.connection.reset_stream(1)
    peer.read()
    for _ in range(8):
        peer.send(data(1, b"x" * 16384))
    assert peer.connection.remote_flow_control_window() > 65535 // 2
    assert not peer.of(H2BodyReceived)


def test_padding_is_credited():
    """RFC 9113, 6.1: padding counts for flow control."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    padded = frame(DATA, 0x8, 1, b"\xff" + b"x" + b"\0" * 255)
    for _ in range(1000):
        peer.send(padded)
    assert not peer.sent(GOAWAY)
    assert len(peer.of(H2BodyReceived)) == 1000


def test_padding_is_credited_by_hand_too():
    peer = RawPeer(config=MANUAL)
    peer.send(peer.headers(1))
    for _ in range(1000):
        peer.send(frame(DATA, 0x8, 1, b"\xff" + b"x" + b"\0" * 255))
        peer.connection.acknowledge_received_data(1, 1)
    assert not peer.sent(GOAWAY)
    assert peer.connection.unacknowledged_data(1) == 0


def test_window_sizes_can_be_configured():
    config = H2Configuration(initial_window_size=100000, connection_window_size=500000)
    peers = Peers(server=config)
    stream_id = peers.request("POST", end_stream=False)
    assert peers.client.local_flow_control_window(stream_id) == 100000
    assert peers.server.remote_flow_control_window() == 500000
    assert peers.server.remote_flow_control_window(stream_id) == 100000


def test_a_window_can_be_incremented():
    peers = Peers(server=MANUAL)
    stream_id = peers.request("POST", end_stream=False)
    peers.server.increment_flow_control_window(1000)
    peers.server.increment_flow_control_window(500, stream_id)
    events, _ = peers.pump()
    assert sorted((e.stream_id, e.increment) for e in events) == [
        (0, 1000),
        (stream_id, 500),
    ]
    assert peers.client.local_flow_control_window(stream_id) == 66035
    assert peers.server.remote_flow_control_window() == 66535


def test_a_window_can_be_set():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.server.set_local_window_size(1000000)
    peers.server.set_local_window_size(200000, stream_id)
    peers.pump()
    assert peers.client.local_flow_control_window(stream_id) == 200000
    assert peers.server.remote_flow_control_window() == 1000000


@pytest.mark.parametrize("increment", [0, 2**31, 2**32])
def test_an_increment_has_31_bits_and_is_not_zero(increment):
    peers = Peers()
    with pytest.raises((FlowControlError, ValueError)):
        peers.client.increment_flow_control_window(increment)


def test_a_window_must_not_pass_its_limit():
    """RFC 9113, 6.9.1."""
    peers = Peers()
    stream_id = peers.request(end_stream=False)
    for stream in (None, stream_id):
        with pytest.raises(FlowControlError):
            peers.client.increment_flow_control_window(2**31 - 1, stream)
    with pytest.raises(FlowControlError):
        peers.client.set_local_window_size(2**31)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_stream_window_overflow_is_an_error(chunk):
    """RFC 9113, 6.9.1: of the stream or, in newer nghttp2, of the connection."""
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1))
    peer.send(window_update(1, 2**31 - 1))
    (sent,) = (f for f in peer.frames if f.type in (RST_STREAM, GOAWAY))
    assert sent.error_code == ErrorCode.FLOW_CONTROL_ERROR
    assert H2StreamClosed(1, ErrorCode.FLOW_CONTROL_ERROR) in peer.events
    assert peer.connection.active_stream_count == 0


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_connection_window_overflow_ends_the_connection(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(window_update(0, 2**31 - 1))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.FLOW_CONTROL_ERROR
    assert peer.events[-1] == H2ConnectionClosed(ErrorCode.FLOW_CONTROL_ERROR, False)


def test_settings_that_overflow_a_stream_window_are_an_error():
    """RFC 9113, 6.9.2."""
    peer = RawPeer()
    peer.send(peer.headers(1), window_update(1, 2**31 - 1 - 65535))
    peer.send(settings({4: 65536}))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert set(codes) == {ErrorCode.FLOW_CONTROL_ERROR}
    assert peer.frames[-1].type == GOAWAY


def test_a_zero_increment_on_a_stream_is_a_stream_error():
    """RFC 9113, 6.9."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.send(window_update(1, 0))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [ErrorCode.PROTOCOL_ERROR]


def test_a_zero_increment_on_the_connection_is_a_connection_error():
    peer = RawPeer()
    peer.send(window_update(0, 0))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("manual", [False, True])
def test_data_beyond_the_stream_window_are_an_error(manual):
    config = H2Configuration(
        manual_flow_control=manual,
        initial_window_size=1000,
        connection_window_size=100000,
    )
    peer = RawPeer(config=config)
    peer.send(peer.headers(1))
    peer.send(data(1, b"x" * 1001))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [ErrorCode.FLOW_CONTROL_ERROR]


def test_data_beyond_the_connection_window_end_the_connection():
    peer = RawPeer(
        config=H2Configuration(manual_flow_control=True, initial_window_size=100000)
    )
    peer.send(peer.headers(1))
    peer.send(*[data(1, b"x" * 16384)] * 4)
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.FLOW_CONTROL_ERROR


def test_the_whole_window_comes_back_after_many_exchanges():
    peers = Peers(client=MANUAL, server=MANUAL)
    for i in range(20):
        stream_id = peers.request("POST", end_stream=False)
        peers.client.send_body(stream_id, b"x" * 10000)
        peers.server.send_response_headers(stream_id, 200, [])
        peers.server.send_body(stream_id, b"y" * 10000)
        client_events, server_events = peers.pump()
        for connection, events in (
            (peers.client, client_events),
            (peers.server, server_events),
        ):
            for event in events:
                if isinstance(event, H2BodyReceived) and i % 2:
                    connection.acknowledge_received_data(
                        len(event.body.data), stream_id
                    )
        peers.pump()
    for connection in (peers.client, peers.server):
        assert connection.active_stream_count == 0
        assert connection.remote_flow_control_window() > 65535 // 2
