"""Responses, from the server's call to the client's event (RFC 9113, 8.1, 8.3.2)."""

import pytest
from helpers import (
    CHUNKS,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OK,
    RST_STREAM,
    Peers,
    RawPeer,
    body_of,
    data,
    end_of_body,
    ends_of,
    rst_stream,
)

from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2 import (
    H2BodyReceived,
    H2InformationalResponseReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_response_arrives_with_body_and_end(chunk):
    peers = Peers(chunk=chunk)
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [(b"server", b"x")])
    assert peers.server.send_data(stream_id, b"hello", end_stream=True) == 5
    events, server_events = peers.pump()
    assert events[0] == H2ResponseReceived(stream_id, 200, ((b"server", b"x"),))
    assert body_of(events, stream_id) == b"hello"
    assert ends_of(events, stream_id) == 1
    assert events[-1] == H2StreamClosed(stream_id, ErrorCode.NO_ERROR)
    assert server_events == [H2StreamClosed(stream_id, ErrorCode.NO_ERROR)]


def test_a_response_without_a_body_ends_at_once():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 404, [], end_stream=True)
    events, _ = peers.pump()
    assert events == [
        H2ResponseReceived(stream_id, 404, ()),
        end_of_body(stream_id),
        H2StreamClosed(stream_id, 0),
    ]


def test_the_frames_of_a_response():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [("X-A", "b")])
    peer.connection.send_data(1, b"hello", end_stream=True)
    head, body = peer.read()
    assert (head.type, head.flags, head.stream_id) == (HEADERS, 4, 1)
    assert peer.fields(head) == [(b":status", b"200"), (b"x-a", b"b")]
    assert body == (DATA, END_STREAM, 1, b"hello")


@pytest.mark.parametrize("chunk", CHUNKS)
def test_informational_responses_come_before_the_final_one(chunk):
    peers = Peers(chunk=chunk)
    stream_id = peers.request()
    peers.server.send_informational(stream_id, 100)
    peers.server.send_informational(stream_id, 103, [("link", "</a>")])
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    events, _ = peers.pump()
    assert events[:3] == [
        H2InformationalResponseReceived(stream_id, 100, ()),
        H2InformationalResponseReceived(stream_id, 103, ((b"link", b"</a>"),)),
        H2ResponseReceived(stream_id, 200, ()),
    ]


def test_send_headers_tells_messages_apart():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_headers(stream_id, [(":status", "103")])
    peers.server.send_headers(stream_id, [(":status", "200")])
    peers.server.send_headers(stream_id, [("t", "v")], end_stream=True)
    events, _ = peers.pump()
    assert [type(event) for event in events] == [
        H2InformationalResponseReceived,
        H2ResponseReceived,
        H2TrailersReceived,
        H2BodyReceived,
        H2StreamClosed,
    ]


def test_trailers_need_the_end_of_the_stream():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_headers(stream_id, OK)
    with pytest.raises(StreamStateError, match="end_stream"):
        peers.server.send_headers(stream_id, [("t", "v")])


def test_an_informational_response_does_not_end_the_stream():
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(StreamStateError, match="informational"):
        peers.server.send_headers(stream_id, [(":status", "103")], end_stream=True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_trailers_follow_the_body(chunk):
    """RFC 9113, 8.1."""
    peers = Peers(chunk=chunk)
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"x" * 1000, end_stream=False)
    peers.server.send_trailers(stream_id, [("grpc-status", "0")])
    events, _ = peers.pump()
    assert body_of(events, stream_id) == b"x" * 1000
    assert ends_of(events, stream_id) == 1
    assert events[-3:] == [
        H2TrailersReceived(stream_id, ((b"grpc-status", b"0"),)),
        end_of_body(stream_id),
        H2StreamClosed(stream_id, 0),
    ]


def test_empty_trailers_just_end_the_stream():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_trailers(1, [])
    assert peer.read()[-1] == (DATA, END_STREAM, 1, b"")


@pytest.mark.parametrize("status", [200, 204, 304, 418, 599])
def test_any_final_status_may_be_sent(status):
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, status, [], end_stream=True)
    events, _ = peers.pump()
    assert events[0].status == status


@pytest.mark.parametrize("status", [0, 99, 101, 600, 999, 1000, -1])
def test_other_numbers_are_no_status(status):
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(HeadersError, match="status"):
        peers.server.send_response_headers(stream_id, status, [])


@pytest.mark.parametrize("status", [101, 200, 404, 99])
def test_other_numbers_are_no_informational_status(status):
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(HeadersError, match="status"):
        peers.server.send_informational(stream_id, status)


@pytest.mark.parametrize("status", ["200", b"200", None, 200.0, True])
def test_a_status_is_an_int(status):
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(TypeError, match="status must be an int"):
        peers.server.send_response_headers(stream_id, status, [])


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/"),
        (b":status", b"200"),
        (b"connection", b"close"),
        (b"te", b"trailers"),
        (b"bad name", b"x"),
        (b"a", b"x\r\ny: z"),
        (b"content-length", b"many"),
    ],
)
def test_a_bad_field_is_refused_and_the_response_can_be_sent_still(field):
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(HeadersError):
        peers.server.send_response_headers(stream_id, 200, [field])
    with pytest.raises(HeadersError):
        peers.server.send_informational(stream_id, 103, [field])
    peers.server.send_response_headers(stream_id, 200, [])
    with pytest.raises(HeadersError):
        peers.server.send_trailers(stream_id, [field])
    peers.server.end_stream(stream_id)
    events, _ = peers.pump()
    assert events[-1] == H2StreamClosed(stream_id, 0)


def test_pseudo_fields_have_no_place_in_trailers():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    with pytest.raises(HeadersError, match="pseudo"):
        peers.server.send_trailers(stream_id, [(":status", "200")])


def test_a_second_response_is_refused():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    with pytest.raises(StreamStateError, match="sent already"):
        peers.server.send_response_headers(stream_id, 200, [])
    with pytest.raises(StreamStateError, match="before the final"):
        peers.server.send_informational(stream_id, 103)


def test_nothing_follows_the_end():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    for call in (
        lambda: peers.server.send_response_headers(stream_id, 200, []),
        lambda: peers.server.send_informational(stream_id, 103),
        lambda: peers.server.send_data(stream_id, b"x"),
        lambda: peers.server.send_body(stream_id, b"x"),
        lambda: peers.server.send_body(stream_id, iter([b"x"])),
        lambda: peers.server.send_trailers(stream_id, []),
        lambda: peers.server.end_stream(stream_id),
    ):
        with pytest.raises(StreamClosedError) as info:
            call()
        assert info.value.stream_id == stream_id


def test_a_body_needs_its_headers_first():
    peers = Peers()
    stream_id = peers.request()
    for call in (
        lambda: peers.server.send_data(stream_id, b"x"),
        lambda: peers.server.send_body(stream_id, b"x"),
        lambda: peers.server.send_body(stream_id, iter([b"x"])),
        lambda: peers.server.send_trailers(stream_id, []),
        lambda: peers.server.end_stream(stream_id),
    ):
        with pytest.raises(StreamStateError, match="headers must be sent first"):
            call()


def test_a_client_sends_no_responses():
    peers = Peers()
    stream_id = peers.request(end_stream=False)
    with pytest.raises(StreamStateError, match="client sends no responses"):
        peers.client.send_response_headers(stream_id, 200, [])
    with pytest.raises(StreamStateError):
        peers.client.send_informational(stream_id, 103)


def test_the_client_may_be_answered_before_its_body_has_ended():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.server.send_response_headers(stream_id, 413, [], end_stream=True)
    events, _ = peers.pump()
    assert events == [H2ResponseReceived(stream_id, 413, ()), end_of_body(stream_id)]
    peers.client.send_body(stream_id, b"rest")
    client_events, server_events = peers.pump()
    assert client_events == [H2StreamClosed(stream_id, 0)]
    assert server_events[-1] == H2StreamClosed(stream_id, 0)


def test_a_reset_after_flush_follows_the_response():
    """RFC 9113, 8.1: a complete response, then RST_STREAM(NO_ERROR)."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.send_response_headers(1, 413, [])
    peer.connection.send_body(1, b"too large")
    peer.connection.reset_stream(1, ErrorCode.NO_ERROR, after_flush=True)
    assert [f.type for f in peer.read()] == [HEADERS, DATA]
    # In an output of its own: a client that reads both at once may lose the response.
    assert peer.connection.want_write
    (reset,) = peer.read()
    assert (reset.type, reset.error_code) == (RST_STREAM, ErrorCode.NO_ERROR)
    assert peer.events[-1] == H2StreamClosed(1, 0)
    assert peer.events[-1].complete
    assert peer.feed(data(1, b"late")) == []


def test_a_reset_after_flush_is_left_out_if_the_request_has_ended():
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.send_response_headers(1, 413, [])
    peer.connection.send_body(1, b"x")
    peer.connection.reset_stream(1, after_flush=True)
    peer.send(data(1, b"", end_stream=True))
    assert not peer.sent(RST_STREAM)
    assert peer.events[-1] == H2StreamClosed(1, 0)


def test_a_reset_drops_what_is_queued():
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 1000)
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    (sent,) = peer.read()
    assert (sent.type, sent.stream_id, sent.error_code) == (RST_STREAM, 1, 8)
    assert peer.connection.queued_body() == 0
    assert peer.events[-1] == H2StreamClosed(1, ErrorCode.CANCEL)


def test_nothing_is_told_of_a_stream_that_we_have_reset_but_its_end():
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    peer.events.clear()
    peer.feed(data(1, b"late") + peer.headers(1, [(b"t", b"v")], end_stream=True))
    peer.read()
    assert peer.events == [H2StreamClosed(1, ErrorCode.CANCEL)]
    assert not peer.sent(GOAWAY)


def test_resetting_twice_or_too_late_does_nothing():
    peer = RawPeer()
    peer.send(peer.headers(1))
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    peer.connection.reset_stream(1, ErrorCode.INTERNAL_ERROR)
    (sent,) = peer.read()
    assert sent.error_code == ErrorCode.CANCEL
    peer.connection.reset_stream(1, ErrorCode.INTERNAL_ERROR)
    assert peer.read() == []


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_reset_by_the_peer_is_told(chunk):
    """RFC 9113, 6.4."""
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1), rst_stream(1, ErrorCode.CANCEL))
    assert peer.events[-2:] == [
        H2StreamReset(1, ErrorCode.CANCEL, True),
        H2StreamClosed(1, ErrorCode.CANCEL),
    ]
    assert peer.events[-2].unprocessed is False
    with pytest.raises(StreamClosedError):
        peer.connection.send_response_headers(1, 200, [])


def test_an_unknown_error_code_passes():
    """RFC 9113, 7."""
    peer = RawPeer()
    peer.send(peer.headers(1), rst_stream(1, 0xDEADBEEF))
    assert peer.events[-1] == H2StreamClosed(1, 0xDEADBEEF)
    peer.send(peer.headers(3))
    peer.connection.reset_stream(3, 0xCAFE)
    assert peer.read()[0].error_code == 0xCAFE


@pytest.mark.parametrize("error_code", [-1, 2**32])
def test_an_error_code_has_32_bits(error_code):
    peer = RawPeer()
    peer.send(peer.headers(1))
    with pytest.raises(ValueError, match="error_code"):
        peer.connection.reset_stream(1, error_code)


def test_a_body_must_have_the_length_that_was_stated():
    """RFC 9113, 8.1.1."""
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [("content-length", "5")])
    with pytest.raises(InvalidBodyLengthError) as info:
        peers.server.send_body(stream_id, b"123456")
    assert (info.value.expected, info.value.actual) == (5, 6)
    with pytest.raises(InvalidBodyLengthError):
        peers.server.send_body(stream_id, b"1234")
    with pytest.raises(InvalidBodyLengthError):
        peers.server.end_stream(stream_id)
    peers.server.send_body(stream_id, b"12", end_stream=False)
    with pytest.raises(InvalidBodyLengthError) as info:
        peers.server.send_trailers(stream_id, [("a", "b")])
    assert (info.value.expected, info.value.actual) == (5, 2)
    peers.server.send_body(stream_id, b"345")
    events, _ = peers.pump()
    assert body_of(events, stream_id) == b"12345"


def test_a_partial_send_does_not_break_the_stated_length():
    """send_data takes what fits; END_STREAM goes out only with the last byte."""
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [("content-length", "100000")])
    body = b"x" * 100000
    sent = peers.server.send_data(stream_id, body, end_stream=True)
    assert sent == 65535
    peers.pump()
    assert peers.server.send_data(stream_id, body[sent:], end_stream=True) == 34465
    events, _ = peers.pump()
    assert events[-1] == H2StreamClosed(stream_id, 0)


@pytest.mark.parametrize("method,status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_takes_no_body(method, status):
    """RFC 9110, 6.4.1."""
    peers = Peers()
    stream_id = peers.request(method)
    length = [] if status == 204 else [("content-length", "5")]
    peers.server.send_response_headers(stream_id, status, length)
    with pytest.raises(InvalidBodyLengthError) as info:
        peers.server.send_body(stream_id, b"hello")
    assert (info.value.expected, info.value.actual) == (0, 5)
    peers.server.send_body(stream_id, b"")
    events, _ = peers.pump()
    assert body_of(events, stream_id) == b""
    assert events[-1] == H2StreamClosed(stream_id, 0)


def test_a_response_to_head_may_end_with_its_headers():
    peers = Peers()
    stream_id = peers.request("HEAD")
    peers.server.send_response_headers(
        stream_id, 200, [("content-length", "5")], end_stream=True
    )
    events, _ = peers.pump()
    assert events[0].headers == ((b"content-length", b"5"),)
    assert events[-1] == H2StreamClosed(stream_id, 0)


@pytest.mark.parametrize("status", [103, 204])
def test_a_length_that_cannot_be_is_refused(status):
    """RFC 9110, 8.6."""
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(HeadersError, match="content-length"):
        peers.server.send_headers(
            stream_id, [(":status", str(status)), ("content-length", "1")]
        )


def test_a_response_that_ends_must_not_promise_a_body():
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(InvalidBodyLengthError) as info:
        peers.server.send_response_headers(
            stream_id, 200, [("content-length", "5")], end_stream=True
        )
    assert (info.value.expected, info.value.actual) == (5, 0)


def test_a_closed_connection_takes_nothing():
    peers = Peers()
    stream_id = peers.request(end_stream=False)
    for connection in (peers.client, peers.server):
        connection.receive_eof()
        for call in (
            lambda c=connection: c.send_data(stream_id, b"x"),
            lambda c=connection: c.send_body(stream_id, b"x"),
            lambda c=connection: c.send_trailers(stream_id, []),
            lambda c=connection: c.ping(),
            lambda c=connection: c.update_settings({}),
            lambda c=connection: c.increment_flow_control_window(1),
        ):
            with pytest.raises(ConnectionClosedError):
                call()
        # What ends something, or gives credit, has nothing left to do.
        connection.reset_stream(stream_id)
        connection.reset_stream(stream_id, after_flush=True)
    with pytest.raises(ConnectionClosedError):
        peers.client.send_request("GET", "/", authority="h")


def test_a_cookie_in_a_response_is_left_alone():
    """RFC 9113, 8.2.3 is about requests."""
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    fields = (*OK, (b"cookie", b"a"), (b"cookie", b"b"))
    peer.send(peer.headers(1, fields, end_stream=True))
    assert peer.events[0].headers == fields[1:]
