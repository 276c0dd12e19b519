"""Server push (RFC 9113, 8.4)."""

import pytest
from helpers import (
    CHUNKS,
    GET,
    GOAWAY,
    OK,
    POST,
    PUSH_PROMISE,
    RST_STREAM,
    Peers,
    RawPeer,
    body_of,
    data,
    ends_of,
)

from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    PushDisabledError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2 import (
    H2Configuration,
    H2ConnectionClosed,
    H2PushedStreamReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    RequestReceived,
)

PUSH = H2Configuration(enable_push=True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_pushed_response_arrives(chunk):
    peers = Peers(client=PUSH, chunk=chunk)
    stream_id = peers.request()
    assert peers.server.push_enabled
    promised = peers.server.push_stream(stream_id, GET)
    peers.server.send_response_headers(promised, 200, [("a", "b")])
    peers.server.send_body(promised, b"pushed")
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    events, server_events = peers.pump()
    request = RequestReceived(b"GET", b"/", ((b"host", b"example.org"),))
    assert promised == 2
    assert events[0] == H2PushedStreamReceived(promised, stream_id, request)
    assert H2ResponseReceived(promised, 200, ((b"a", b"b"),)) in events
    assert body_of(events, promised) == b"pushed"
    assert ends_of(events, promised) == 1
    assert H2StreamClosed(promised, 0) in events
    assert H2StreamClosed(promised, 0) in server_events
    assert peers.client.active_stream_count == 0
    assert peers.server.active_stream_count == 0


def test_the_promise_goes_out_before_what_refers_to_it():
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    peers.server.push_stream(stream_id, GET)
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    events, _ = peers.pump()
    assert isinstance(events[0], H2PushedStreamReceived)
    assert isinstance(events[1], H2ResponseReceived)


def test_a_promise_can_be_declined():
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    promised = peers.server.push_stream(stream_id, GET)
    peers.pump()
    peers.client.reset_stream(promised, ErrorCode.CANCEL)
    peers.pump()
    assert H2StreamReset(promised, ErrorCode.CANCEL, True) in peers.server_events
    assert H2StreamClosed(promised, ErrorCode.CANCEL) in peers.client_events
    with pytest.raises(StreamClosedError):
        peers.server.send_response_headers(promised, 200, [])
    assert peers.server.active_stream_count == 1


def test_a_promise_can_be_taken_back_before_it_is_sent():
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    promised = peers.server.push_stream(stream_id, GET)
    peers.server.send_response_headers(promised, 200, [])
    peers.server.send_body(promised, b"x")
    peers.server.reset_stream(promised, ErrorCode.CANCEL)
    client_events, server_events = peers.pump()
    assert body_of(client_events, promised) == b""
    assert H2StreamClosed(promised, ErrorCode.CANCEL) in server_events
    assert peers.server.queued_body() == 0
    assert peers.client.active_stream_count == peers.server.active_stream_count == 1


def test_a_parent_that_is_reset_takes_its_unsent_promise_along():
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    promised = peers.server.push_stream(stream_id, GET)
    peers.server.send_response_headers(promised, 200, [])
    peers.server.send_body(promised, b"x")
    peers.client.reset_stream(stream_id)
    _, server_events = peers.pump()
    assert server_events[-1].stream_id in (stream_id, promised)
    assert peers.server.queued_body() == 0
    peers.pump()
    assert peers.client.active_stream_count == peers.server.active_stream_count == 0


def test_a_client_that_wants_no_push_gets_none():
    peers = Peers()
    stream_id = peers.request()
    assert not peers.server.push_enabled
    with pytest.raises(PushDisabledError, match="ENABLE_PUSH"):
        peers.server.push_stream(stream_id, GET)


def test_a_push_to_a_client_that_wants_none_ends_the_connection():
    """RFC 9113, 6.6 and 8.4."""
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 2))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == ErrorCode.PROTOCOL_ERROR
    assert peer.events[-1] == H2ConnectionClosed(ErrorCode.PROTOCOL_ERROR, False)


def test_clients_and_promised_streams_do_not_push():
    peers = Peers(client=PUSH)
    stream_id = peers.request(end_stream=False)
    assert not peers.client.push_enabled
    with pytest.raises(StreamStateError, match="only a server"):
        peers.client.push_stream(stream_id, GET)
    promised = peers.server.push_stream(stream_id, GET)
    with pytest.raises(StreamStateError):
        peers.server.push_stream(promised, GET)


def test_a_promise_is_a_whole_request():
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    for fields in (GET[1:], (*GET, (b"connection", b"close"))):
        with pytest.raises(HeadersError):
            peers.server.push_stream(stream_id, fields)
    assert peers.server.active_stream_count == 1


@pytest.mark.parametrize("fields", [POST, ((b":method", b"CONNECT"), GET[3])])
def test_only_safe_requests_are_promised(fields):
    """RFC 9113, 8.4: safe, cacheable, without a body."""
    peers = Peers(client=PUSH)
    stream_id = peers.request()
    with pytest.raises(HeadersError, match="safe"):
        peers.server.push_stream(stream_id, fields)


def test_a_push_with_an_odd_identifier_ends_the_connection():
    """RFC 9113, 5.1.1."""
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 3))
    assert [f.error_code for f in peer.sent(GOAWAY)] == [ErrorCode.PROTOCOL_ERROR]


def test_a_push_with_a_used_identifier_ends_the_connection():
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 4), peer.push_promise(1, 2))
    assert [f.error_code for f in peer.sent(GOAWAY)] == [ErrorCode.PROTOCOL_ERROR]


def test_a_push_on_an_idle_stream_ends_the_connection():
    """RFC 9113, 6.6."""
    peer = RawPeer(client_side=True, config=PUSH)
    peer.send(peer.push_promise(1, 2))
    assert [f.error_code for f in peer.sent(GOAWAY)] == [ErrorCode.PROTOCOL_ERROR]


def test_a_client_must_not_push():
    """RFC 9113, 8.4."""
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True), peer.push_promise(1, 2))
    assert [f.error_code for f in peer.sent(GOAWAY)] == [ErrorCode.PROTOCOL_ERROR]


def test_a_malformed_promise_is_reset():
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 2, GET[1:]))
    (sent,) = peer.sent(RST_STREAM)
    assert (sent.stream_id, sent.error_code) == (2, ErrorCode.PROTOCOL_ERROR)
    assert not peer.of(H2PushedStreamReceived)


def test_a_promise_for_a_cancelled_request_is_declined():
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.connection.reset_stream(1)
    peer.send(peer.push_promise(1, 2))
    assert {f.stream_id for f in peer.sent(RST_STREAM)} == {1, 2}
    assert not peer.of(H2PushedStreamReceived)
    assert peer.connection.active_stream_count == 0


def test_data_before_the_pushed_response_is_an_error():
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 2), data(2, b"x"))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes in ([ErrorCode.PROTOCOL_ERROR], [ErrorCode.STREAM_CLOSED])


def test_a_raw_pushed_response_is_told():
    peer = RawPeer(client_side=True, config=PUSH)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.push_promise(1, 2), peer.headers(2, OK, end_stream=True))
    assert H2ResponseReceived(2, 200, ()) in peer.events
    assert H2StreamClosed(2, 0) in peer.events


def test_the_frame_of_a_promise():
    peer = RawPeer(peer_settings={2: 1})
    peer.send(peer.headers(1, end_stream=True))
    promised = peer.connection.push_stream(1, GET)
    (sent,) = peer.read()
    assert (sent.type, sent.stream_id) == (PUSH_PROMISE, 1)
    assert int.from_bytes(sent.payload[:4], "big") == promised
