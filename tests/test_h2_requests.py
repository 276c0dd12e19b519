"""Requests, from the client's call to the server's event (RFC 9113, 8.3.1)."""

import pytest
from helpers import (
    CHUNKS,
    GET,
    Peers,
    RawPeer,
    body_of,
    end_of_body,
    window_update,
)

from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    NoSuchStreamError,
    ProtocolError,
    StreamStateError,
)
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2RequestReceived,
    H2RequestSent,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    RequestReceived,
    Setting,
    is_h2_available,
)


def test_http2_is_available():
    assert is_h2_available() is True


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_get_is_a_request_and_the_end_of_its_body(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1, (*GET, (b"accept", b"*/*")), end_stream=True))
    request = RequestReceived(
        b"GET", b"/", ((b"host", b"example.org"), (b"accept", b"*/*"))
    )
    assert peer.events == [H2RequestReceived(1, request), end_of_body(1)]
    received = peer.events[0].request
    assert received.http_version == "2"
    assert (received.scheme, received.authority) == (b"https", b"example.org")
    assert received.protocol is None
    assert received.fields == (*GET, (b"accept", b"*/*"))


def test_a_request_with_a_body_has_no_end_yet():
    peer = RawPeer()
    peer.send(peer.headers(1))
    assert [type(event) for event in peer.events] == [H2RequestReceived]
    assert not peer.connection.stream_ended(1)


def test_host_is_not_made_twice():
    peer = RawPeer()
    peer.send(
        peer.headers(
            1, (*GET, (b"x", b"y"), (b"host", b"example.org")), end_stream=True
        )
    )
    assert peer.events[0].request.headers == (
        (b"host", b"example.org"),
        (b"x", b"y"),
    )


def test_host_alone_stands_first():
    peer = RawPeer()
    fields = (*GET[:3], (b"a", b"b"), (b"host", b"example.org"))
    peer.send(peer.headers(1, fields, end_stream=True))
    request = peer.events[0].request
    assert request.headers == ((b"host", b"example.org"), (b"a", b"b"))
    assert request.authority is None


def test_an_authority_that_differs_from_host_resets_the_stream():
    """RFC 9113, 8.3.1."""
    peer = RawPeer()
    answer = peer.send(peer.headers(1, (*GET, (b"host", b"other.org"))))
    assert peer.events[:1] == [H2StreamReset(1, ErrorCode.PROTOCOL_ERROR, False)]
    assert "host" in peer.events[0].reason
    assert [f.error_code for f in answer] == [ErrorCode.PROTOCOL_ERROR]
    assert peer.events[-1] == H2StreamClosed(1, ErrorCode.PROTOCOL_ERROR)


def test_host_and_authority_are_compared_without_case():
    peer = RawPeer()
    peer.send(peer.headers(1, (*GET, (b"host", b"EXAMPLE.org")), end_stream=True))
    assert isinstance(peer.events[0], H2RequestReceived)


def test_cookie_crumbs_are_joined():
    """RFC 9113, 8.2.3."""
    peer = RawPeer()
    crumbs = ((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))
    peer.send(peer.headers(1, (*GET, *crumbs), end_stream=True))
    assert peer.events[0].request.headers == (
        (b"host", b"example.org"),
        (b"x", b"y"),
        (b"cookie", b"a=1; b=2"),
    )


def test_a_joined_cookie_is_never_indexed_if_a_crumb_was():
    """RFC 7541, 7.1.3: an intermediary must keep the mark of the field."""
    import hpack

    from nghttp2py.hpack import NeverIndexed

    peer = RawPeer()
    fields = [
        *GET,
        (b"cookie", b"a=1"),
        hpack.NeverIndexedHeaderTuple(b"cookie", b"b=2"),
    ]
    peer.send(peer.headers(1, fields, end_stream=True))
    assert isinstance(peer.events[0].request.headers[-1], NeverIndexed)


def test_bytes_of_any_encoding_pass_unharmed():
    peers = Peers()
    value = bytes(range(0x80, 0x100))
    peers.request(headers=[(b"x", value), ("y", "\u00e9")])
    headers = dict(peers.server_events[0].request.headers)
    assert headers[b"x"] == value
    assert headers[b"y"] == "\u00e9".encode()


def test_options_of_the_whole_server():
    peers = Peers()
    peers.client.send_request("OPTIONS", "*", authority="h")
    peers.pump()
    assert peers.server_events[0].request.target == b"*"


def test_connect_has_its_authority_as_target():
    """RFC 9113, 8.5."""
    peers = Peers()
    peers.client.send_request("CONNECT", "example.org:443", end_stream=False)
    peers.pump()
    request = peers.server_events[0].request
    assert (request.method, request.target) == (b"CONNECT", b"example.org:443")
    assert request.scheme is None
    assert request.headers == ((b"host", b"example.org:443"),)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_extended_connect_for_websocket_has_its_own_event(chunk):
    """RFC 8441."""
    peers = Peers(chunk=chunk)
    stream_id = peers.client.send_request(
        "CONNECT", "/chat", authority="h", protocol="websocket", end_stream=False
    )
    peers.pump()
    (event,) = peers.server_events
    assert isinstance(event, H2WebSocketRequest)
    assert (event.stream_id, event.ws_path) == (stream_id, b"/chat")
    assert event.request.method == b"CONNECT"
    assert event.request.protocol == b"websocket"
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"\x81\x02hi", end_stream=False)
    client_events, _ = peers.pump()
    assert client_events[0].status == 200
    assert body_of(client_events, stream_id) == b"\x81\x02hi"


def test_extended_connect_of_another_protocol_is_a_request():
    peers = Peers()
    peers.client.send_request(
        "CONNECT", "/", authority="h", protocol="webtransport", end_stream=False
    )
    peers.pump()
    assert isinstance(peers.server_events[0], H2RequestReceived)
    assert peers.server_events[0].request.protocol == b"webtransport"


def test_extended_connect_needs_the_servers_consent():
    """RFC 8441, 3."""
    peers = Peers(server=H2Configuration(enable_connect_protocol=False))
    with pytest.raises(HeadersError, match="ENABLE_CONNECT_PROTOCOL"):
        peers.client.send_request("CONNECT", "/", authority="h", protocol="x")
    assert peers.client.active_stream_count == 0


def test_a_client_that_uses_protocol_without_consent_is_reset():
    peer = RawPeer(config=H2Configuration(enable_connect_protocol=False))
    fields = ((b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket"))
    (answer,) = peer.send(peer.headers(1, fields))
    assert answer.error_code == ErrorCode.PROTOCOL_ERROR
    assert answer.stream_id == 1


def test_send_request_returns_the_next_odd_stream():
    peers = Peers()
    ids = [peers.client.send_request("GET", "/", authority="h") for _ in range(3)]
    assert ids == [1, 3, 5]


def test_send_headers_makes_a_raw_request():
    peers = Peers()
    stream_id = peers.client.send_headers(None, GET, end_stream=True)
    peers.pump()
    assert stream_id == 1
    assert peers.server_events[0].request.fields == GET


def test_headers_may_be_a_mapping_or_an_iterator():
    peers = Peers()
    peers.request(headers={"A": "1"})
    peers.request(headers=iter([("b", b"2")]))
    requests = [
        e.request for e in peers.server_events if isinstance(e, H2RequestReceived)
    ]
    assert [r.headers[1] for r in requests] == [(b"a", b"1"), (b"b", b"2")]


def test_never_indexed_fields_stay_so():
    """RFC 7541, 7.1.3; proxy-authorization and authorization without being asked."""
    peer = RawPeer(client_side=True)
    fields = [("authorization", "a"), ("proxy-authorization", "b"), ("x", "c", True)]
    peer.connection.send_request("GET", "/", fields, authority="h")
    (sent,) = peer.read()
    decoded = {
        bytes(f[0]): f.indexable for f in peer.decoder.decode(sent.payload, raw=True)
    }
    assert not decoded[b"authorization"]
    assert not decoded[b"proxy-authorization"]
    assert not decoded[b"x"]
    assert decoded[b":authority"]


def test_fields_that_the_hpack_package_marks_stay_never_indexed():
    import hpack

    from nghttp2py.hpack import NeverIndexed

    peers = Peers()
    fields = [hpack.NeverIndexedHeaderTuple("x", "1"), hpack.HeaderTuple(b"y", b"2")]
    peers.request(headers=fields)
    request = peers.server_events[0].request
    marks = {f[0]: isinstance(f, NeverIndexed) for f in request.headers}
    assert marks[b"x"] and not marks[b"y"]


def test_received_never_indexed_fields_can_be_told():
    import hpack

    from nghttp2py.hpack import NeverIndexed

    peer = RawPeer()
    fields = [*GET, hpack.NeverIndexedHeaderTuple(b"x", b"secret"), (b"y", b"z")]
    peer.send(peer.headers(1, fields, end_stream=True))
    _, x, y = peer.events[0].request.headers
    assert isinstance(x, NeverIndexed)
    assert x == (b"x", b"secret")
    assert not isinstance(y, NeverIndexed)


def test_trailers_of_a_request_come_before_its_end():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, b"body", trailers=[("digest", "x")])
    _, events = peers.pump()
    assert events[1] == H2TrailersReceived(stream_id, ((b"digest", b"x"),))
    assert events[2] == end_of_body(stream_id)
    assert peers.server.stream_ended(stream_id)


def test_requests_over_the_peers_limit_wait_and_say_so():
    """RFC 9113, 5.1.2."""
    peers = Peers(server=H2Configuration(max_concurrent_streams=1))
    first = peers.client.send_request("GET", "/1", authority="h")
    second = peers.client.send_request("GET", "/2", authority="h")
    assert peers.client.queued_requests == 2
    peers.pump()
    assert peers.client.queued_requests == 1
    assert [e.stream_id for e in peers.server_events[:1]] == [first]
    assert peers.client.active_stream_count == 2
    peers.server.send_response_headers(first, 204, [], end_stream=True)
    client_events, server_events = peers.pump()
    assert H2RequestSent(second) in client_events
    assert peers.client.queued_requests == 0
    assert any(
        isinstance(e, H2RequestReceived) and e.stream_id == second
        for e in server_events
    )


def test_a_request_that_need_not_wait_is_not_told():
    peers = Peers()
    peers.request()
    assert not any(isinstance(e, H2RequestSent) for e in peers.client_events)


def test_a_waiting_request_can_be_cancelled():
    peers = Peers(server=H2Configuration(max_concurrent_streams=1))
    peers.request()
    second = peers.request()
    peers.client.reset_stream(second, ErrorCode.CANCEL)
    client_events, server_events = peers.pump()
    assert client_events == [H2StreamClosed(second, ErrorCode.CANCEL)]
    assert server_events == []
    assert peers.client.queued_requests == 0


def test_a_refused_request_is_safe_to_send_again():
    """RFC 9113, 8.7."""
    peers = Peers()
    stream_id = peers.request()
    peers.server.reset_stream(stream_id, ErrorCode.REFUSED_STREAM)
    peers.pump()
    reset, closed = peers.client_events
    assert reset == H2StreamReset(stream_id, ErrorCode.REFUSED_STREAM, True)
    assert reset.unprocessed is True
    assert closed == H2StreamClosed(stream_id, ErrorCode.REFUSED_STREAM)


def test_a_cancelled_request_is_not_called_safe_to_send_again():
    peers = Peers()
    stream_id = peers.request()
    peers.server.reset_stream(stream_id, ErrorCode.CANCEL)
    peers.pump()
    assert peers.client_events[0].unprocessed is False


BAD_REQUESTS = {
    "no method": GET[1:],
    "no scheme": (GET[0], *GET[2:]),
    "no path": (*GET[:2], GET[3]),
    "no authority": GET[:3],
    "empty path": (*GET[:2], (b":path", b""), GET[3]),
    "path without a slash": (*GET[:2], (b":path", b"x"), GET[3]),
    "star with GET": (*GET[:2], (b":path", b"*"), GET[3]),
    "CONNECT with path": ((b":method", b"CONNECT"), *GET[2:]),
    "CONNECT without authority": ((b":method", b"CONNECT"),),
    "protocol without CONNECT": (*GET, (b":protocol", b"x")),
    "method twice": (GET[0], *GET),
    "status": (*GET, (b":status", b"200")),
    "unknown pseudo": (*GET, (b":foo", b"bar")),
    "pseudo after regular": ((b"a", b"b"), *GET),
    "connection": (*GET, (b"connection", b"close")),
    "Keep-Alive": (*GET, (b"Keep-Alive", b"1")),
    "proxy-connection": (*GET, (b"proxy-connection", b"close")),
    "transfer-encoding": (*GET, (b"transfer-encoding", b"chunked")),
    "upgrade": (*GET, (b"upgrade", b"h2c")),
    "te": (*GET, (b"te", b"gzip")),
    "empty name": (*GET, (b"", b"x")),
    "space in name": (*GET, (b"a b", b"x")),
    "colon in name": (*GET, (b"a:b", b"x")),
    "newline in name": (*GET, (b"a\n", b"x")),
    "CR in value": (*GET, (b"a", b"x\ry")),
    "LF in value": (*GET, (b"a", b"x\ny")),
    "NUL in value": (*GET, (b"a", b"x\0y")),
    "leading space": (*GET, (b"a", b" x")),
    "trailing tab": (*GET, (b"a", b"x\t")),
    "content-length": (*GET, (b"content-length", b"-1")),
    "content-length twice": (
        *GET,
        (b"content-length", b"1"),
        (b"content-length", b"1"),
    ),
    "LF in path": (*GET[:2], (b":path", b"/\nx"), GET[3]),
    "space in method": ((b":method", b"GE T"), *GET[1:]),
    "space in path": (*GET[:2], (b":path", b"/a b"), GET[3]),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_and_leaves_no_trace(name):
    """RFC 9113, 8.2 and 8.3."""
    peers = Peers()
    with pytest.raises(HeadersError):
        peers.client.send_headers(None, BAD_REQUESTS[name], end_stream=False)
    assert peers.client.active_stream_count == 0
    assert peers.client.data_to_send() == b""
    assert peers.request() == 1


def test_the_error_names_the_field_and_the_rule():
    peers = Peers()
    with pytest.raises(HeadersError, match=r"b'connection'.*RFC 9113, 8\.2\.2"):
        peers.request(headers=[("connection", "close")])


def test_te_trailers_is_allowed():
    peers = Peers()
    peers.request(headers=[("te", "trailers")])
    assert (b"te", b"trailers") in peers.server_events[0].request.headers


def test_upper_case_names_go_out_in_lower_case():
    peers = Peers()
    peers.request(headers=[("X-Upper", "Value")])
    assert (b"x-upper", b"Value") in peers.server_events[0].request.headers


@pytest.mark.parametrize(
    "headers",
    [
        "a: b",
        b"ab",
        [("a",)],
        [("a", "b", True, 1)],
        ["ab"],
        [(1, "b")],
        [("a", None)],
        5,
    ],
)
def test_headers_that_are_no_pairs_are_a_type_error(headers):
    peers = Peers()
    with pytest.raises(TypeError):
        peers.request(headers=headers)
    assert peers.client.active_stream_count == 0


def test_a_header_section_that_is_too_large_is_refused():
    peers = Peers()
    with pytest.raises(HeadersError, match="max_send_header_block_length"):
        peers.request(headers=[("a", "x" * 70000)])


def test_a_request_that_ends_must_not_promise_a_body():
    peers = Peers()
    with pytest.raises(InvalidBodyLengthError) as info:
        peers.request(headers=[("content-length", "5")])
    assert (info.value.expected, info.value.actual) == (5, 0)


def test_a_server_sends_no_requests():
    peers = Peers()
    with pytest.raises(StreamStateError, match="server sends no requests"):
        peers.server.send_request("GET", "/", authority="h")


def test_nothing_can_be_sent_before_the_preface():
    client = H2Connection(client_side=True)
    with pytest.raises(ProtocolError, match="initiate_connection"):
        client.send_request("GET", "/", authority="h")
    for call in (
        client.ping,
        client.close_connection,
        client.send_goaway,
        client.terminate,
        client.receive_eof,
        lambda: client.receive_data(b""),
        lambda: client.increment_flow_control_window(1),
        lambda: client.set_local_window_size(70000),
        lambda: client.update_settings({}),
        lambda: client.send_extension_frame(0xFA, 0, 0, b""),
        lambda: client.send_priority_update(1, b"u=1"),
    ):
        with pytest.raises(ProtocolError, match="initiate_connection"):
            call()
    server = H2Connection()
    for call in (
        server.shutdown_notice,
        lambda: server.advertise_alternative_service(b"h2", b"https://h"),
        lambda: server.send_origins([b"https://h"]),
    ):
        with pytest.raises(ProtocolError, match="initiate_connection"):
            call()


def test_the_preface_goes_out_once():
    peers = Peers()
    with pytest.raises(ProtocolError, match="before"):
        peers.client.initiate_connection()


@pytest.mark.parametrize("stream_id", [1, 2, 3, 2**31 - 1])
def test_an_unknown_stream_is_named_in_the_error(stream_id):
    server = Peers().server
    for call in (
        lambda: server.send_response_headers(stream_id, 200, []),
        lambda: server.send_informational(stream_id, 103),
        lambda: server.send_data(stream_id, b""),
        lambda: server.send_body(stream_id, b""),
        lambda: server.send_body(stream_id, iter([b""])),
        lambda: server.send_trailers(stream_id, []),
        lambda: server.end_stream(stream_id),
        lambda: server.reset_stream(stream_id),
        lambda: server.push_stream(stream_id, GET),
        lambda: server.local_flow_control_window(stream_id),
        lambda: server.remote_flow_control_window(stream_id),
        lambda: server.increment_flow_control_window(1, stream_id),
        lambda: server.set_priority(stream_id),
        lambda: server.get_priority(stream_id),
    ):
        with pytest.raises(NoSuchStreamError) as info:
            call()
        assert info.value.stream_id == stream_id


def test_no_request_can_follow_a_goaway():
    peers = Peers()
    peers.server.close_connection()
    peers.pump()
    with pytest.raises(ConnectionClosedError):
        peers.request()


def test_a_body_before_the_request_is_sent_waits_for_its_stream():
    peers = Peers(server=H2Configuration(max_concurrent_streams=1))
    first = peers.request()
    second = peers.client.send_request("POST", "/", authority="h", end_stream=False)
    assert peers.client.send_data(second, b"body", end_stream=True) == 4
    peers.pump()
    peers.server.reset_stream(first)
    _, events = peers.pump()
    assert events[-1].body.data == b"body"
    assert not events[-1].body.more


def test_remove_stream_does_no_harm():
    peers = Peers()
    stream_id = peers.request()
    peers.server.remove_stream(stream_id)
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.pump()
    peers.server.remove_stream(stream_id)
    assert peers.server.active_stream_count == 0


def test_streams_are_counted():
    peers = Peers()
    assert peers.server.active_stream_count == 0
    stream_id = peers.request()
    assert peers.server.active_stream_count == 1
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    assert peers.server.active_stream_count == 1
    peers.pump()
    assert peers.server.active_stream_count == 0


def test_stream_ended_follows_the_peers_half():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    assert not peers.server.stream_ended(stream_id)
    assert not peers.server.stream_ended(stream_id + 2)
    peers.client.end_stream(stream_id)
    peers.pump()
    assert peers.server.stream_ended(stream_id)
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    peers.pump()
    assert peers.server.stream_ended(stream_id)


def test_the_first_settings_of_a_server_have_the_two_that_must_be_first():
    """RFC 8441, 3; RFC 9218, 2.1."""
    peer = RawPeer(handshake=False)
    peer.connection.initiate_connection()
    (sent,) = peer.read()
    entries = {
        int.from_bytes(sent.payload[i : i + 2], "big"): int.from_bytes(
            sent.payload[i + 2 : i + 6], "big"
        )
        for i in range(0, len(sent.payload), 6)
    }
    assert entries[Setting.ENABLE_CONNECT_PROTOCOL] == 1
    assert entries[Setting.NO_RFC7540_PRIORITIES] == 1


def test_a_window_update_on_a_request_without_body_does_no_harm():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True), window_update(1, 100))
    assert not peer.frames


def test_fields_that_the_table_repeats_are_made_once():
    """Static entries and a peer's own: the pairs are the same objects."""
    peer = RawPeer()
    fields = (
        *GET,
        (b"accept-encoding", b"gzip, deflate"),
        (b"user-agent", b"test"),
        (b"accept", b"*/*"),
    )
    for stream_id in (1, 3, 5):
        peer.send(peer.headers(stream_id, fields, end_stream=True))
    second, third = (e.request for e in peer.of(H2RequestReceived)[1:])
    assert second.fields == third.fields == fields
    same = [a is b for a, b in zip(second.fields, third.fields, strict=True)]
    assert sum(same) >= len(same) - 1
