"""What the C library leaves to us, each where a peer or a program hits it."""

from __future__ import annotations

import pytest
from helpers import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GET,
    GOAWAY,
    HEADERS,
    MAGIC,
    PADDED,
    POST,
    PUSH_PROMISE,
    RST_STREAM,
    Peers,
    RawPeer,
    data,
    frame,
    goaway,
    ping,
    rst_stream,
    settings,
    window_update,
)

from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    InvalidSettingsValueError,
    RequestQueueFullError,
)
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2InformationalResponseReceived,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    Setting,
)
from nghttp2py.h2.body import DATA_DEFERRED

WIDE = {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}


def interrupt(n: int) -> tuple[bytes, int]:
    raise KeyboardInterrupt


def failed_gathering(body: bytes) -> RawPeer:
    """A server that was interrupted with ``body`` gathered by reference."""
    peer = RawPeer(peer_settings=WIDE)
    peer.send(
        window_update(0, 2**30),
        peer.headers(1, end_stream=True),
        peer.headers(3, end_stream=True),
    )
    connection = peer.connection
    connection.send_response_headers(1, 200, [])
    connection.send_response_headers(3, 200, [])
    connection.send_body(1, body)
    connection.send_body(3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.data_to_send_vectored()
    return peer


@pytest.mark.parametrize("vectored", [False, True])
def test_what_an_interrupted_call_has_gathered_goes_out_with_the_next(vectored):
    # Built here, so that only the connection keeps it alive.
    peer = failed_gathering(b"%d" % 7 * 400_000)
    connection = peer.connection
    out = (
        b"".join(connection.data_to_send_vectored())
        if vectored
        else connection.data_to_send()
    )
    assert out.count(b"7" * 16384) == 400_000 // 16384
    assert out.count(b"7") >= 400_000
    assert connection.queued_body() == 0


def test_a_connection_may_vanish_with_references_in_its_output():
    peer = failed_gathering(b"%d" % 7 * 400_000)
    peer.connection.receive_data(ping())
    del peer.connection


def test_send_data_takes_what_the_windows_allow_whatever_the_queue_bound_is():
    peer = RawPeer(config=H2Configuration(max_body_queue=1000), peer_settings=WIDE)
    peer.send(peer.headers(1, end_stream=True), window_update(0, 2**31 - 1 - 65535))
    connection = peer.connection
    connection.send_response_headers(1, 200, [])
    assert [connection.send_data(1, b"x" * 65536) for _ in range(40)] == [65536] * 40
    assert connection.queued_body(1) == 40 * 65536


# ---- Stream identifiers ----


def limited(chunk: int | None) -> RawPeer:
    """A server with two places, whose SETTINGS are not acknowledged yet."""
    peer = RawPeer(
        handshake=False, config=H2Configuration(max_concurrent_streams=2), chunk=chunk
    )
    peer.connection.initiate_connection()
    peer.feed(MAGIC + settings())
    peer.read()
    peer.events.clear()
    peer.frames.clear()
    return peer


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_trailers_of_a_refused_request_are_ignored(chunk):
    peer = limited(chunk)
    peer.send(
        peer.headers(1),
        peer.headers(3),
        peer.headers(5),
        rst_stream(1),
        peer.headers(7),
        data(5, b"late"),
        peer.headers(5, ((b"x", b"y"),), end_stream=True),
    )
    assert peer.sent(GOAWAY) == []
    (refused,) = peer.sent(RST_STREAM)
    assert (refused.stream_id, refused.error_code) == (5, ErrorCode.REFUSED_STREAM)
    assert not peer.of(H2ConnectionClosed)


@pytest.mark.parametrize("late", [HEADERS, DATA])
@pytest.mark.parametrize("streams", [1, 200])
def test_a_stream_that_was_passed_over_cannot_be_opened(streams, late):
    peer = RawPeer()
    peer.send(peer.headers(5, end_stream=True))
    for stream_id in range(7, 7 + 2 * streams, 2):
        peer.send(peer.headers(stream_id, end_stream=True))
        peer.connection.send_response_headers(stream_id, 204, [], end_stream=True)
        peer.read()
    peer.send(peer.headers(3) if late == HEADERS else data(3, b"x"))
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.PROTOCOL_ERROR


def test_data_on_a_promised_stream_end_the_connection():
    peer = RawPeer(peer_settings={Setting.ENABLE_PUSH: 1})
    peer.send(peer.headers(1, end_stream=True))
    promised = peer.connection.push_stream(1, GET)
    peer.read()
    peer.send(data(promised, b"x"))
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("client_side", [False, True])
@pytest.mark.parametrize("kind", [DATA, HEADERS, PUSH_PROMISE])
def test_a_padded_frame_without_a_padding_length_has_the_wrong_size(kind, client_side):
    peer = RawPeer(
        client_side=client_side,
        config=H2Configuration(enable_push=client_side),
    )
    if client_side:
        peer.connection.send_request("GET", "/", authority="example.org")
        peer.read()
    elif kind == DATA:
        peer.send(peer.headers(1))
    peer.send(frame(kind, PADDED | END_HEADERS, 1))
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.FRAME_SIZE_ERROR
    assert not peer.sent(CONTINUATION)


# ---- Requests that wait ----


def waiting(n: int) -> RawPeer:
    peer = RawPeer(client_side=True, peer_settings={Setting.MAX_CONCURRENT_STREAMS: 1})
    for _ in range(n):
        peer.connection.send_request("GET", "/", authority="example.org")
    peer.read()
    peer.events.clear()
    return peer


@pytest.mark.parametrize("by_fault", [False, True])
def test_requests_never_sent_are_told_unprocessed_when_the_connection_ends(by_fault):
    peer = waiting(20)
    if by_fault:
        peer.feed(frame(6, 0, 0, b"short"))
    else:
        peer.events += peer.connection.receive_eof()
    resets = peer.of(H2StreamReset)
    assert [event.stream_id for event in resets] == list(range(3, 41, 2))
    assert all(event.unprocessed for event in resets)
    assert {event.error_code for event in resets} == {ErrorCode.REFUSED_STREAM}
    closed = peer.of(H2StreamClosed)
    assert [event.stream_id for event in closed] == list(range(1, 41, 2))
    assert closed[0].error_code not in (0, ErrorCode.REFUSED_STREAM)
    assert isinstance(peer.events[-1], H2ConnectionClosed)
    assert bool(peer.events[-1].reason) is by_fault


def test_goaway_refuses_the_requests_that_wait_in_their_order():
    peer = waiting(500)
    peer.feed(goaway(1))
    assert [event.stream_id for event in peer.of(H2StreamReset)] == list(
        range(3, 1001, 2)
    )
    assert peer.connection.queued_requests == 0


# ---- Windows ----


def test_an_initial_window_that_overflows_a_stream_ends_the_connection():
    peer = RawPeer()
    peer.send(peer.headers(1), window_update(1, 2**31 - 1 - 65535))
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 65536}))
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.FLOW_CONTROL_ERROR
    assert peer.events[-1] == H2ConnectionClosed(ErrorCode.FLOW_CONTROL_ERROR, False)


def test_a_window_update_that_overflows_a_stream_is_not_taken_for_settings():
    """RFC 9113, 6.9.1: a stream error; newer C libraries end the connection."""
    peer = RawPeer()
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 65536}), peer.headers(1))
    peer.send(window_update(1, 2**31 - 1))
    (answer,) = [f for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert answer.error_code == ErrorCode.FLOW_CONTROL_ERROR


def test_the_connection_window_is_shared_out_as_stream_windows_change():
    peer = RawPeer(peer_settings={Setting.INITIAL_WINDOW_SIZE: 10})
    peer.send(peer.headers(1), peer.headers(3))
    connection = peer.connection
    for stream_id in (1, 3):
        connection.send_response_headers(stream_id, 200, [])
    connection.send_body(1, bytes(100_000), end_stream=False)
    assert connection.send_data(3, bytes(100)) == 10
    peer.read()
    # Of the connection's window 20 are gone.  Stream 1 may now have it all...
    peer.send(window_update(1, 70_000))
    assert connection.queued_body(1) == 100_000 - 65535 + 10
    peer.send(window_update(3, 100), window_update(0, 1000))
    # ... and what comes new goes to stream 1 first.
    assert connection.local_flow_control_window(3) in (0, 100)
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 0}), window_update(0, 100_000))
    peer.send(rst_stream(1))
    assert connection.local_flow_control_window(3) == 90
    assert connection.queued_body() == 0


# ---- Messages ----


def client() -> H2Connection:
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    return connection


@pytest.mark.parametrize(
    ("method", "target", "headers", "authority", "reason"),
    [
        ("GET", "/", [("host", "b")], "a", "host differs"),
        ("GET", "/", [("host", "a"), ("host", "a")], None, "repeated"),
        ("GET", "/", [], "", "empty"),
        ("GET", "/", [], "user:secret@a", "userinfo"),
        ("GET", "/a#b", [], "a", ":path"),
        ("CONNECT", "user@a:1", [], None, "userinfo"),
        ("CONNECT", "a:1", [("content-length", "0")], None, "content-length"),
        ("GET", "/", [("x", "a\x01")], "a", "control character"),
    ],
)
def test_requests_that_a_peer_would_refuse_are_not_sent(
    method, target, headers, authority, reason
):
    with pytest.raises(HeadersError, match=reason):
        client().send_request(method, target, headers, authority=authority)


def test_a_host_like_the_authority_may_be_sent():
    peers = Peers()
    peers.client.send_request(
        "GET", "/", [("host", "EXAMPLE.org")], authority="example.org"
    )
    peers.pump()
    assert peers.server_events


@pytest.mark.parametrize(
    "fields",
    [
        (*GET[:3], (b":authority", b"user@example.org")),
        (*GET[:2], (b":path", b"/a#b"), GET[3]),
        ((b":method", b"CONNECT"), (b":authority", b"user@example.org:1")),
    ],
)
def test_userinfo_and_fragments_that_come_in_are_refused(fields):
    peer = RawPeer()
    peer.send(peer.headers(1, fields, end_stream=True))
    assert peer.sent(RST_STREAM)[0].error_code == ErrorCode.PROTOCOL_ERROR
    assert not peer.of(H2RequestReceived)


@pytest.mark.parametrize("status", [b"000", b"099"])
def test_a_status_below_100_is_no_status(status):
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="example.org")
    peer.read()
    peer.send(peer.headers(1, ((b":status", status),), end_stream=True))
    assert peer.sent(RST_STREAM)[0].error_code == ErrorCode.PROTOCOL_ERROR
    assert not peer.of(H2ResponseReceived)


@pytest.mark.parametrize(
    "fields",
    [
        ((b":method", b"PUT"), *GET[1:]),
        (*GET, (b"content-length", b"3")),
        (*GET, (b"host", b"elsewhere")),
        (*GET[:3], (b"host", b"example.org")),
    ],
)
def test_a_promise_of_what_may_not_be_pushed_is_reset(fields):
    peer = RawPeer(client_side=True, config=H2Configuration(enable_push=True))
    peer.connection.send_request("GET", "/", authority="example.org")
    peer.read()
    peer.send(peer.push_promise(1, 2, fields))
    (reset,) = peer.sent(RST_STREAM)
    assert (reset.stream_id, reset.error_code) == (2, ErrorCode.PROTOCOL_ERROR)
    assert not peer.of(H2PushedStreamReceived)


@pytest.mark.parametrize(
    "fields",
    [
        ((b":METHOD", b"POST"), *GET[1:]),
        (*GET, (b"content-length", b"3")),
        (*GET[:3], (b"host", b"example.org")),
    ],
)
def test_what_may_not_be_pushed_is_not_promised(fields):
    peer = RawPeer(peer_settings={Setting.ENABLE_PUSH: 1})
    peer.send(peer.headers(1, end_stream=True))
    with pytest.raises(HeadersError, match="promised"):
        peer.connection.push_stream(1, fields)


CONNECT = ((b":method", b"CONNECT"), (b":authority", b"example.org:443"))


def extended(protocol: bytes = b"websocket") -> tuple[tuple[bytes, bytes], ...]:
    return ((b":method", b"CONNECT"), *GET[1:], (b":protocol", protocol))


def test_a_connected_stream_takes_no_trailers():
    peer = RawPeer()
    peer.send(peer.headers(1, CONNECT))
    peer.connection.send_response_headers(1, 200, [])
    with pytest.raises(HeadersError, match="trailers"):
        peer.connection.send_trailers(1, [("x", "y")])
    peer.send(peer.headers(1, ((b"x", b"y"),), end_stream=True))
    assert peer.sent(RST_STREAM)[0].error_code == ErrorCode.PROTOCOL_ERROR
    assert not peer.of(H2TrailersReceived)


def test_a_client_takes_no_trailers_from_its_tunnel():
    peer = RawPeer(client_side=True)
    peer.connection.send_request("CONNECT", "example.org:443", end_stream=False)
    peer.read()
    peer.send(
        peer.headers(1, ((b":status", b"200"),)),
        peer.headers(1, ((b"x", b"y"),), end_stream=True),
    )
    assert peer.sent(RST_STREAM)[0].error_code == ErrorCode.PROTOCOL_ERROR
    assert not peer.of(H2TrailersReceived)


@pytest.mark.parametrize("fields", [extended(), POST])
def test_other_streams_take_trailers_after_2xx(fields):
    peer = RawPeer()
    peer.send(peer.headers(1, fields))
    peer.connection.send_response_headers(1, 200, [])
    peer.send(peer.headers(1, ((b"x", b"y"),), end_stream=True))
    peer.connection.send_trailers(1, [("x", "y")])
    assert peer.of(H2TrailersReceived)
    assert not peer.sent(RST_STREAM)


@pytest.mark.parametrize("protocol", [b"websocket", b"WebSocket"])
def test_websocket_is_known_in_any_case(protocol):
    peer = RawPeer()
    peer.send(peer.headers(1, extended(protocol)))
    assert peer.of(H2WebSocketRequest)


def test_an_informational_response_may_be_sent_as_a_response_that_goes_on():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 103, [("link", "</a>")])
    with pytest.raises(HeadersError):
        peers.server.send_response_headers(stream_id, 103, [], end_stream=True)
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.pump()
    assert [type(event) for event in peers.client_events[:2]] == [
        H2InformationalResponseReceived,
        H2ResponseReceived,
    ]


@pytest.mark.parametrize(
    "name", ["authorization", "Cookie", "set-cookie", "proxy-authorization"]
)
def test_errors_show_no_secrets_and_no_long_values(name):
    with pytest.raises(HeadersError) as caught:
        client().send_request("GET", "/", [(name, "hunter2\n")], authority="a")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(HeadersError) as caught:
        client().send_request("GET", "/", [("x", "y" * 5000 + "\n")], authority="a")
    assert len(str(caught.value)) < 300


# ---- The connection ----


def test_a_reset_by_us_equals_one_of_its_code():
    peer = RawPeer()
    peer.send(peer.headers(1, (*GET, (b"host", b"other"))))
    assert H2StreamReset(1, ErrorCode.PROTOCOL_ERROR) in peer.events
    assert not peer.of(H2StreamReset)[0].remote


def test_a_removed_stream_is_not_counted_and_its_source_is_dropped():
    peer = RawPeer()
    peer.send(peer.headers(1), peer.headers(3))
    connection = peer.connection
    connection.send_response_headers(1, 200, [])
    connection.send_body(1, lambda n: (b"", DATA_DEFERRED))
    connection.remove_stream(1)
    connection.remove_stream(1)
    assert connection.active_stream_count == 1
    connection.resume_body(1)
    peer.read()
    assert peer.sent(RST_STREAM)[0].error_code == ErrorCode.CANCEL
    assert connection.active_stream_count == 1
    connection.remove_stream(3)
    assert connection.active_stream_count == 0
    peer.send(rst_stream(3))
    assert connection.active_stream_count == 0
    peer.send(peer.headers(5))
    assert connection.active_stream_count == 1


@pytest.mark.parametrize("client_side", [False, True])
def test_there_is_nothing_to_send_before_the_beginning(client_side):
    connection = H2Connection(client_side=client_side)
    assert connection.data_to_send() == b""
    assert connection.data_to_send_vectored() == []
    connection.initiate_connection()
    assert connection.data_to_send().startswith(MAGIC if client_side else b"\0")


@pytest.mark.parametrize(
    "values", [{Setting.ENABLE_PUSH: 1}, {Setting.ENABLE_CONNECT_PROTOCOL: 0}]
)
def test_settings_that_a_client_would_not_bear_are_refused(values):
    peer = RawPeer()
    with pytest.raises(InvalidSettingsValueError):
        peer.connection.update_settings(values)
    peer.connection.update_settings({Setting.ENABLE_PUSH: 0})
    assert len(peer.read()) == 1


def test_settings_that_were_refused_are_as_if_never_sent():
    config = H2Configuration(enable_connect_protocol=False)
    connection = RawPeer(config=config).connection
    with pytest.raises(InvalidSettingsValueError):
        connection.update_settings(
            {Setting.ENABLE_CONNECT_PROTOCOL: 1, Setting.INITIAL_WINDOW_SIZE: 2**31}
        )
    connection.update_settings({Setting.ENABLE_CONNECT_PROTOCOL: 0})


def test_requests_that_wait_are_bounded():
    peer = RawPeer(
        client_side=True,
        config=H2Configuration(max_queued_requests=3),
        peer_settings={Setting.MAX_CONCURRENT_STREAMS: 0},
    )
    for _ in range(3):
        peer.connection.send_request("GET", "/", authority="a")
    with pytest.raises(RequestQueueFullError, match="max_queued_requests"):
        peer.connection.send_request("GET", "/", authority="a")
    peer.connection.reset_stream(1)
    peer.connection.send_request("GET", "/", authority="a")


def test_received_fields_are_kept_only_to_a_bound():
    """Fields that no table holds must not stay with an idle connection."""
    peer = RawPeer()
    for stream_id in range(1, 161, 2):
        fields = [
            (b"x-%d-%d" % (stream_id, i), bytes([97 + i]) * 500) for i in range(8)
        ]
        peer.send(peer.headers(stream_id, (*GET, *fields), end_stream=True))
        peer.send(rst_stream(stream_id))
        for request in peer.of(H2RequestReceived):
            assert request.request.headers[1:] == tuple(fields)
        peer.events.clear()
