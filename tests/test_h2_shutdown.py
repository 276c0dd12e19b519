"""The end of a connection: GOAWAY, draining, loss (RFC 9113, 5.4.1, 6.8)."""

import pytest
from helpers import (
    CHUNKS,
    DATA,
    GOAWAY,
    PING,
    RST_STREAM,
    SETTINGS,
    Peers,
    RawPeer,
    body_of,
    data,
    frame,
    goaway,
    ping,
    settings,
)

from nghttp2py.errors import ConnectionClosedError, ErrorCode, ProtocolError
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2ConnectionClosed,
    H2GoAway,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
    Setting,
)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_goaway_is_told(chunk):
    peer = RawPeer(chunk=chunk)
    assert not peer.connection.is_closed
    peer.send(goaway(0, ErrorCode.NO_ERROR, b"bye"))
    assert peer.events == [H2GoAway(0, ErrorCode.NO_ERROR)]
    assert peer.events[0].debug_data == b"bye"
    assert peer.connection.is_closed


def test_the_frame_of_a_goaway():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True), peer.headers(3, end_stream=True))
    peer.connection.close_connection(ErrorCode.NO_ERROR, b"debug")
    (sent,) = peer.read()
    assert (sent.type, sent.stream_id) == (GOAWAY, 0)
    assert (sent.last_stream_id, sent.error_code) == (3, 0)
    assert sent.payload[8:] == b"debug"
    assert peer.connection.is_closed


def test_streams_in_flight_finish_after_our_goaway():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.server.close_connection()
    events, _ = peers.pump()
    assert events == [H2GoAway(stream_id, 0)]
    assert peers.server.want_read
    peers.client.send_body(stream_id, b"x" * 100000)
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"y" * 100000)
    peers.pump()
    assert body_of(peers.server_events, stream_id) == b"x" * 100000
    assert body_of(peers.client_events, stream_id) == b"y" * 100000
    for connection in (peers.client, peers.server):
        assert not connection.want_read
        assert not connection.want_write


def test_streams_in_flight_finish_after_the_peers_goaway():
    peers = Peers()
    stream_id = peers.request()
    peers.client.close_connection()
    peers.pump()
    assert H2GoAway(0, 0) in peers.server_events
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"y" * 100000)
    events, _ = peers.pump()
    assert body_of(events, stream_id) == b"y" * 100000
    assert not peers.server.want_read
    assert not peers.client.want_read


def test_requests_past_the_last_stream_are_safe_to_send_again():
    """RFC 9113, 6.8, 8.7."""
    peers = Peers()
    first = peers.client.send_request("GET", "/1", authority="h")
    second = peers.client.send_request("GET", "/2", authority="h")
    peers.pump()
    peers.server.close_connection(last_stream_id=first)
    peers.pump()
    goes, reset, closed = peers.client_events
    assert goes == H2GoAway(first, 0)
    assert reset == H2StreamReset(second, ErrorCode.REFUSED_STREAM, True)
    assert reset.unprocessed is True
    assert closed == H2StreamClosed(second, ErrorCode.REFUSED_STREAM)
    assert peers.client.active_stream_count == 1


def test_queued_requests_are_safe_to_send_again_after_a_goaway():
    peers = Peers(server=H2Configuration(max_concurrent_streams=1))
    first = peers.request()
    second = peers.request("POST", end_stream=False)
    peers.client.send_body(second, b"x")
    peers.server.close_connection()
    peers.pump()
    assert peers.client_events[0] == H2GoAway(first, 0)
    reset, closed = (e for e in peers.client_events[1:] if e.stream_id == second)
    assert reset == H2StreamReset(second, ErrorCode.REFUSED_STREAM, True)
    assert reset.unprocessed is True
    assert closed == H2StreamClosed(second, ErrorCode.REFUSED_STREAM)
    assert peers.client.queued_requests == 0
    assert peers.client.queued_body() == 0


def test_a_graceful_shutdown_loses_no_request():
    """RFC 9113, 6.8: notice, a round trip, GOAWAY, drain."""
    peers = Peers()
    peers.server.shutdown_notice()
    raced = peers.client.send_request("GET", "/raced", authority="h")
    client_events, server_events = peers.pump()
    assert client_events == [H2GoAway(2**31 - 1, 0)]
    assert isinstance(server_events[0], H2RequestReceived)
    with pytest.raises(ConnectionClosedError):
        peers.client.send_request("GET", "/late", authority="h")
    peers.server.close_connection()
    client_events, _ = peers.pump()
    assert client_events == [H2GoAway(raced, 0)]
    peers.server.send_response_headers(raced, 200, [], end_stream=True)
    peers.pump()
    assert not peers.client.want_read
    assert not peers.server.want_read


def test_the_notice_is_the_servers():
    with pytest.raises(ProtocolError, match="server"):
        Peers().client.shutdown_notice()


def test_new_streams_after_our_goaway_are_ignored():
    """RFC 9113, 6.8."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.close_connection()
    peer.read()
    peer.send(peer.headers(3, end_stream=True))
    assert len(peer.of(H2RequestReceived)) == 1
    # The stream that was open goes on, and so does the header table.
    peer.send(data(1, b"x", end_stream=True))
    assert peer.events[-1] == H2BodyReceived(1, peer.events[-1].body)
    assert not peer.events[-1].body.more


def test_terminate_says_goaway_and_nothing_more():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"x" * 1000)
    peers.server.terminate(ErrorCode.ENHANCE_YOUR_CALM)
    client_events, server_events = peers.pump()
    assert H2GoAway(0, ErrorCode.ENHANCE_YOUR_CALM) in client_events or (
        H2GoAway(stream_id, ErrorCode.ENHANCE_YOUR_CALM) in client_events
    )
    assert server_events[-2:] == [
        H2StreamClosed(stream_id, ErrorCode.ENHANCE_YOUR_CALM),
        H2ConnectionClosed(ErrorCode.ENHANCE_YOUR_CALM, False),
    ]
    assert not peers.server.want_read
    assert not peers.server.want_write
    assert peers.server.data_to_send() == b""
    assert peers.server.receive_data(ping()) == []


def test_goaway_after_terminate_changes_nothing():
    peer = RawPeer()
    peer.connection.terminate(ErrorCode.INTERNAL_ERROR)
    peer.connection.terminate(ErrorCode.INTERNAL_ERROR)
    peer.connection.close_connection()
    peer.connection.shutdown_notice()
    with pytest.raises(ConnectionClosedError):
        peer.connection.send_goaway()
    (sent,) = peer.read()
    assert sent.error_code == ErrorCode.INTERNAL_ERROR
    assert peer.events == [H2ConnectionClosed(ErrorCode.INTERNAL_ERROR, False)]


SAME = [
    lambda c: c.close_connection(),
    lambda c: c.close_connection(ErrorCode.NO_ERROR),
    lambda c: c.send_goaway(),
    lambda c: c.terminate(),
]


@pytest.mark.parametrize("taken", [False, True], ids=["queued", "sent"])
@pytest.mark.parametrize("debug", [b"", b"bye"])
@pytest.mark.parametrize("again", SAME)
@pytest.mark.parametrize("client_side", [False, True])
def test_a_goaway_that_says_the_same_is_not_sent_again(
    client_side, again, debug, taken
):
    peer = RawPeer(client_side=client_side)
    if client_side:
        peer.connection.send_request("POST", "/", authority="h", end_stream=False)
    else:
        peer.send(peer.headers(1))
        peer.events.clear()
    peer.connection.close_connection(additional_data=debug)
    if taken:
        peer.read()
    again(peer.connection)
    peer.connection.close_connection(additional_data=debug)
    peer.read()
    assert len(peer.sent(GOAWAY)) == 1
    assert peer.connection.data_to_send() == b""
    if again is SAME[-1]:
        assert peer.events[-1] == H2ConnectionClosed(ErrorCode.NO_ERROR, False)
        assert not peer.connection.want_write
    else:
        assert peer.events == []
        # The connection goes on, and ends as ever.
        peer.send(ping())
        assert peer.sent(PING)
        peer.connection.terminate(ErrorCode.INTERNAL_ERROR)
        peer.read()
        assert peer.sent(GOAWAY)[-1].error_code == ErrorCode.INTERNAL_ERROR
        assert peer.events[-1] == H2ConnectionClosed(ErrorCode.INTERNAL_ERROR, False)


def test_a_goaway_that_says_more_is_sent():
    peer = RawPeer()
    for stream_id in (1, 3):
        peer.send(peer.headers(stream_id))
    connection = peer.connection
    connection.shutdown_notice()
    connection.close_connection()
    connection.close_connection(last_stream_id=1)
    connection.close_connection(additional_data=b"bye")
    connection.close_connection(additional_data=b"by")
    connection.close_connection(ErrorCode.ENHANCE_YOUR_CALM)
    peer.read()
    sent = peer.sent(GOAWAY)
    assert [f.last_stream_id for f in sent] == [2**31 - 1, 3, 1, 1, 1, 1]
    assert [f.payload[8:] for f in sent] == [b"", b"", b"", b"bye", b"by", b""]
    assert sent[-1].error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_terminate_drops_what_follows_a_goaway_that_was_sent():
    """Nothing goes out for it, not even a body that was queued."""
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.close_connection()
    peer.read()
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.terminate()
    peer.connection.send_body(1, b"x" * 1000)
    frames = peer.read()
    assert DATA not in [f.type for f in frames]
    assert len(peer.sent(GOAWAY)) == 1
    assert peer.events[-1] == H2ConnectionClosed(ErrorCode.NO_ERROR, False)


SENDS = [
    lambda c: c.ping(),
    lambda c: c.update_settings({Setting.INITIAL_WINDOW_SIZE: 1000}),
    lambda c: c.increment_flow_control_window(1000),
    lambda c: c.set_local_window_size(1 << 20),
    lambda c: c.send_extension_frame(0xF0, 0, 0, b"x"),
    lambda c: c.send_goaway(1),
]
CLIENT_SENDS = [
    lambda c: c.send_request("GET", "/", authority="h"),
    lambda c: c.send_priority_update(1, b"u=1"),
]
SERVER_SENDS = [
    lambda c: c.advertise_alternative_service(b'h2=":443"', b"https://h"),
    lambda c: c.send_origins([b"https://h"]),
]


@pytest.mark.parametrize("state", ["terminated", "ended", "lost"])
@pytest.mark.parametrize(
    ("client_side", "send"),
    [
        *((side, send) for side in (False, True) for send in SENDS),
        *((True, send) for send in CLIENT_SENDS),
        *((False, send) for send in SERVER_SENDS),
    ],
)
def test_a_connection_that_is_ended_sends_no_frames(client_side, send, state):
    """One rule, whether the last GOAWAY was taken, or waits to be."""
    peer = RawPeer(client_side=client_side)
    if client_side:
        peer.connection.send_request("POST", "/", authority="h", end_stream=False)
        peer.read()
    if state == "lost":
        peer.connection.receive_eof()
    else:
        peer.connection.terminate(ErrorCode.INTERNAL_ERROR)
    if state == "ended":
        peer.read()
    with pytest.raises(ConnectionClosedError):
        send(peer.connection)
    assert not peer.connection.want_read
    peer.connection.close_connection()
    peer.connection.terminate()
    frames = peer.read()
    assert [f.type for f in frames] == ([GOAWAY] if state == "terminated" else [])
    assert not peer.connection.want_write


def test_settings_that_were_queued_come_before_the_last_goaway():
    """RFC 9113, 3.4: a server's preface is SETTINGS."""
    peer = RawPeer(handshake=False)
    peer.connection.initiate_connection()
    peer.connection.terminate()
    frames = peer.read()
    assert frames[0].type == SETTINGS
    assert frames[-1].type == GOAWAY


def test_terminate_after_goaway_ends_it():
    peer = RawPeer()
    peer.connection.close_connection()
    peer.connection.terminate(ErrorCode.INTERNAL_ERROR)
    peer.read()
    assert [f.error_code for f in peer.sent(GOAWAY)] == [0, ErrorCode.INTERNAL_ERROR]
    assert peer.events == [H2ConnectionClosed(ErrorCode.INTERNAL_ERROR, False)]


@pytest.mark.parametrize("client_side", [False, True])
def test_the_loss_of_the_peer_closes_everything(client_side):
    peers = Peers()
    ids = [peers.request("POST", end_stream=False) for _ in range(5)]
    lost = peers.client if client_side else peers.server
    events = lost.receive_eof()
    assert sorted(e.stream_id for e in events[:-1]) == ids
    assert {e.error_code for e in events[:-1]} == {ErrorCode.INTERNAL_ERROR}
    assert events[-1] == H2ConnectionClosed(ErrorCode.INTERNAL_ERROR, True)
    assert lost.active_stream_count == 0
    assert not lost.want_read
    assert lost.is_closed
    assert lost.receive_eof() == []
    assert lost.receive_data(ping()) == []


def test_pending_events_come_before_those_of_the_loss():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.server.data_to_send()
    assert peers.server.receive_eof() == [
        H2StreamClosed(stream_id, 0),
        H2ConnectionClosed(ErrorCode.INTERNAL_ERROR, True),
    ]


def test_pending_events_come_before_those_of_a_read():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.server.data_to_send()
    events = peers.server.receive_data(ping())
    assert events[0] == H2StreamClosed(stream_id, 0)
    assert peers.server.pending_events() == []


def test_what_is_no_bytes_does_not_lose_events():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.server.data_to_send()
    for junk in ("text", None, 5):
        with pytest.raises(TypeError):
            peers.server.receive_data(junk)
    assert peers.server.pending_events() == [H2StreamClosed(stream_id, 0)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_read(kind):
    peer = RawPeer()
    assert len(peer.connection.receive_data(kind(ping()))) == 1


@pytest.mark.parametrize("chunk", CHUNKS)
def test_earlier_events_of_a_read_come_before_the_violation(chunk):
    peer = RawPeer(chunk=chunk)
    peer.feed(
        peer.headers(1, end_stream=True)
        + ping()
        + frame(RST_STREAM, 0, 99, b"\0\0\0\0")
        + peer.headers(3, end_stream=True)
    )
    kinds = [type(event).__name__ for event in peer.events]
    assert kinds == [
        "H2RequestReceived",
        "H2BodyReceived",
        "H2PingReceived",
        "H2StreamClosed",
        "H2ConnectionClosed",
    ]
    closed = peer.events[-1]
    assert closed == H2ConnectionClosed(ErrorCode.PROTOCOL_ERROR, False)
    assert closed.reason
    peer.read()
    (sent,) = peer.sent(GOAWAY)
    assert (sent.error_code, sent.last_stream_id) == (ErrorCode.PROTOCOL_ERROR, 1)


def test_a_violation_is_told_in_its_read_though_a_body_waits():
    """What is to be sent must not hold up what is to be told."""
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True), peer.headers(3, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 30000)
    bad = (b"content-length", b"x")
    for stream_id in (5, 7):
        peer.feed(peer.headers(stream_id, [(b":method", b"GET"), bad]))
        assert isinstance(peer.events[-1], H2StreamClosed)
        assert peer.events[-1].stream_id == stream_id
    peer.feed(frame(RST_STREAM, 0, 99, b"\0\0\0\0"))
    assert isinstance(peer.events[-1], H2ConnectionClosed)


def test_a_body_that_waits_is_sent_after_what_violations_have_queued():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 30000)
    peer.feed(peer.headers(3, [(b":method", b"GET")]))
    frames = peer.read()
    assert sum(len(f.payload) for f in frames if f.type == 0) == 30000
    assert [f.stream_id for f in frames if f.type == RST_STREAM] == [3]


def test_the_last_stream_of_goaway_never_rises():
    """RFC 9113, 6.8."""
    peer = RawPeer()
    for stream_id in (1, 3, 5):
        peer.send(peer.headers(stream_id))
    peer.connection.close_connection(last_stream_id=3)
    peer.connection.close_connection(last_stream_id=5)
    peer.read()
    last = [f.last_stream_id for f in peer.sent(GOAWAY)]
    assert last == sorted(last, reverse=True)


@pytest.mark.parametrize(
    "wire,code",
    [
        (frame(GOAWAY, 0, 1, b"\0" * 8), ErrorCode.PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, b"\0" * 7), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_malformed_goaways_end_the_connection(wire, code):
    """RFC 9113, 6.8."""
    peer = RawPeer()
    peer.send(wire)
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == code


def test_a_goaway_whose_last_stream_rises_is_an_error():
    """RFC 9113, 6.8: it must not increase."""
    peer = RawPeer(client_side=True)
    peer.send(goaway(1), goaway(3))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.PROTOCOL_ERROR


def test_settings_timeout_is_the_callers():
    """RFC 9113, 6.5.3: we have no clock, but what a clock needs."""
    peer = RawPeer(handshake=False)
    peer.connection.initiate_connection()
    peer.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings())
    assert peer.connection.settings_unacknowledged == 1
    peer.connection.terminate(ErrorCode.SETTINGS_TIMEOUT)
    peer.read()
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.SETTINGS_TIMEOUT


def test_extra_goaway_arguments_are_checked():
    connection = Peers().server
    with pytest.raises(TypeError):
        connection.close_connection(additional_data="text")
    with pytest.raises(ValueError):
        connection.close_connection(-1)
    with pytest.raises(ProtocolError):
        connection.close_connection(last_stream_id=2**31)
