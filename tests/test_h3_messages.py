"""Requests, responses, pushes and their states (RFC 9114, 4)."""

import pytest
from fake_quic import REQUEST, RESPONSE, Pair, StreamReset

from nghttp2py.h3 import H3Configuration
from nghttp2py.h3.connection import ErrorCode, FrameUnexpected, MessageError
from nghttp2py.h3.events import DataReceived, HeadersReceived, PushPromiseReceived
from nghttp2py.h3.exceptions import InvalidStreamTypeError, NoAvailablePushIDError

TRAILERS = [(b"x-checksum", b"1234")]


def joined(events):
    """Put DATA that arrived in pieces together again."""
    result = []
    for event in events:
        if (
            isinstance(event, DataReceived)
            and result
            and isinstance(result[-1], DataReceived)
        ):
            last = result.pop()
            event = DataReceived(
                last.data + event.data, event.stream_id, event.stream_ended
            )
        result.append(event)
    return result


@pytest.fixture(params=[None, 1, 7])
def pair(request):
    return Pair(chunk=request.param)


def test_a_request_and_its_response(pair):
    stream_id, events = pair.request(end_stream=False)
    pair.client.send_data(stream_id, b"some body", end_stream=True)
    events += pair.to_server()
    assert joined(events) == [
        HeadersReceived(REQUEST, stream_id, False),
        DataReceived(b"some body", stream_id, True),
    ]

    pair.server.send_headers(stream_id, RESPONSE)
    pair.server.send_data(stream_id, b"answer", True)
    assert joined(pair.to_client()) == [
        HeadersReceived(RESPONSE, stream_id, False),
        DataReceived(b"answer", stream_id, True),
    ]
    pair.assert_open()
    assert stream_id not in pair.client._stream
    assert stream_id not in pair.server._stream


def test_a_request_without_a_body_ends_with_its_headers():
    stream_id, events = Pair().request()
    assert events == [HeadersReceived(REQUEST, stream_id, True)]


def test_trailers_end_a_message(pair):
    stream_id, _ = pair.request()
    pair.server.send_headers(stream_id, RESPONSE)
    pair.server.send_data(stream_id, b"x", False)
    pair.server.send_headers(stream_id, TRAILERS, end_stream=True)
    events = pair.to_client()
    assert [type(event).__name__ for event in events[:3]] == [
        "HeadersReceived",
        "DataReceived",
        "HeadersReceived",
    ]
    assert events[2].headers == TRAILERS
    assert events[-1].stream_ended


def test_interim_responses_come_before_the_final_one(pair):
    stream_id, _ = pair.request()
    pair.server.send_headers(stream_id, [(b":status", b"103"), (b"link", b"</a>")])
    pair.server.send_headers(stream_id, [(b":status", b"100")])
    pair.server.send_headers(stream_id, RESPONSE, end_stream=True)
    headers = [e.headers[0] for e in pair.to_client() if isinstance(e, HeadersReceived)]
    assert headers == [(b":status", b"103"), (b":status", b"100"), (b":status", b"200")]


def test_an_interim_response_cannot_end_the_stream():
    pair = Pair()
    stream_id, _ = pair.request()
    with pytest.raises(FrameUnexpected, match="Interim response cannot end"):
        pair.server.send_headers(stream_id, [(b":status", b"103")], end_stream=True)


def test_data_arrives_as_it_comes():
    pair = Pair(chunk=3)
    _, _ = pair.request(end_stream=False)
    pair.client.send_data(0, b"abcdef", False)
    assert [event.data for event in pair.to_server()] == [b"a", b"bcd", b"ef"]


def test_a_frame_without_body_is_sent_but_not_reported():
    pair = Pair()
    pair.request(end_stream=False)
    pair.client.send_data(0, b"", False)
    assert pair.client_quic.sent(0) == b"\0\0"
    assert pair.to_server() == []


@pytest.mark.parametrize("data", [bytearray(b"body"), memoryview(b"body")])
def test_bodies_may_be_any_bytes(data):
    pair = Pair()
    pair.request(end_stream=False)
    pair.client.send_data(0, data, True)
    assert pair.to_server() == [DataReceived(b"body", 0, True)]


def test_headers_may_be_any_pairs_of_bytes():
    pair = Pair()
    _, events = pair.request([[bytearray(n), memoryview(v)] for n, v in REQUEST])
    assert events[0].headers == REQUEST


def test_more_fields_than_most_messages_have():
    pair = Pair()
    many = REQUEST + [(b"x-%d" % i, b"v" * i) for i in range(200)]
    _, events = pair.request(many)
    assert events[0].headers == many


def test_names_must_be_bytes():
    pair = Pair()
    with pytest.raises(TypeError, match="must be bytes"):
        pair.client.send_headers(0, [(":method", "GET")])
    assert pair.client._stream.keys() == {3, 7, 11}


# ---- The state of what we send ----


def test_data_before_headers_is_refused():
    with pytest.raises(FrameUnexpected) as caught:
        Pair().client.send_data(0, b"x", False)
    assert caught.value.reason_phrase == "DATA frame is not allowed in this state"


def test_nothing_follows_trailers():
    pair = Pair()
    pair.request(end_stream=False)
    pair.client.send_headers(0, TRAILERS)
    with pytest.raises(FrameUnexpected, match="DATA frame"):
        pair.client.send_data(0, b"x", False)
    with pytest.raises(FrameUnexpected, match="HEADERS frame"):
        pair.client.send_headers(0, TRAILERS)


def test_a_stream_ends_once():
    pair = Pair()
    pair.request()
    with pytest.raises(FrameUnexpected, match="stream was already ended"):
        pair.client.send_data(0, b"", True)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([*REQUEST, (b"x", b"a\r\nb")], "Header b'x' value has forbidden characters"),
        ([*REQUEST, (b"X", b"")], "Header b'X' contains invalid characters"),
        ([*REQUEST, (b"upgrade", b"h2")], "Header b'upgrade' is connection-specific"),
        (REQUEST[:1], "Pseudo-headers [b':authority'] are missing"),
    ],
)
def test_headers_that_break_a_rule_are_not_sent(headers, reason):
    pair = Pair()
    with pytest.raises(MessageError) as caught:
        pair.client.send_headers(0, headers)
    assert caught.value.reason_phrase == reason
    assert not pair.client_quic.queue
    assert 0 not in pair.client._stream


def test_the_check_of_what_is_sent_can_be_switched_off():
    pair = Pair(config=H3Configuration(validate_outbound=False))
    pair.request([*REQUEST, (b"X", b"")])
    assert pair.server_quic.closed == (
        ErrorCode.H3_MESSAGE_ERROR,
        "Header b'X' contains invalid characters",
    )


# ---- content-length ----


@pytest.mark.parametrize("length", [b"3", b"5"])
def test_a_body_must_have_the_length_that_was_announced(length):
    pair = Pair()
    pair.request([*REQUEST, (b"content-length", length)], end_stream=False)
    pair.client.send_data(0, b"four", True)
    assert pair.to_server() == []
    assert pair.server_quic.closed == (
        ErrorCode.H3_MESSAGE_ERROR,
        "content-length does not match data size",
    )


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"GET", b"304"), (b"GET", b"204")]
)
def test_a_response_that_has_no_body_may_announce_one(method, status):
    """RFC 9114, 4.1.2"""
    pair = Pair()
    stream_id, _ = pair.request([(b":method", method), *REQUEST[1:]])
    pair.server.send_headers(
        stream_id, [(b":status", status), (b"content-length", b"10")], True
    )
    assert len(pair.to_client()) == 1
    pair.assert_open()


# ---- Push ----


def test_a_push(pair):
    stream_id, _ = pair.request()
    promised = [*REQUEST[:3], (b":path", b"/app.css")]
    push_stream_id = pair.server.send_push_promise(stream_id, promised)
    assert push_stream_id == 15
    pair.server.send_headers(stream_id, RESPONSE, end_stream=True)
    pair.server.send_headers(push_stream_id, RESPONSE)
    pair.server.send_data(push_stream_id, b"p", True)
    events = pair.to_client()
    assert events[0] == PushPromiseReceived(promised, 0, stream_id)
    pushed = [e for e in events if getattr(e, "stream_id", None) == push_stream_id]
    assert pushed[0] == HeadersReceived(RESPONSE, push_stream_id, False, 0)
    assert pushed[1].data == b"p"
    assert pushed[1].push_id == 0
    assert pushed[-1].stream_ended
    pair.assert_open()
    assert push_stream_id not in pair.client._stream
    assert push_stream_id not in pair.server._stream


def test_pushes_end_at_max_push_id():
    """RFC 9114, 7.2.7: the number itself is allowed, so that 8 lets 9 through."""
    pair = Pair()
    stream_id, _ = pair.request()
    for _ in range(9):
        pair.server.send_push_promise(stream_id, REQUEST)
    with pytest.raises(NoAvailablePushIDError):
        pair.server.send_push_promise(stream_id, REQUEST)
    pair.client.send_max_push_id(9)
    pair.to_server()
    pair.server.send_push_promise(stream_id, REQUEST)
    pair.to_client()
    pair.assert_open()


def test_who_allows_no_push_gets_none():
    pair = Pair(config=H3Configuration(max_push_id=None))
    stream_id, _ = pair.request()
    with pytest.raises(NoAvailablePushIDError):
        pair.server.send_push_promise(stream_id, REQUEST)


def test_only_servers_push():
    with pytest.raises(RuntimeError, match="Only servers may send a push promise"):
        Pair().client.send_push_promise(0, REQUEST)


def test_a_push_needs_a_request():
    with pytest.raises(InvalidStreamTypeError):
        Pair().server.send_push_promise(3, REQUEST)


# ---- Streams that do not come to their end ----


def test_a_request_that_ends_before_its_headers_is_aborted():
    """RFC 9114, 4.1"""
    pair = Pair()
    pair.client_quic.send_stream_data(0, b"", True)
    assert pair.to_server() == []
    assert pair.server_quic.queue.pop() == StreamReset(
        ErrorCode.H3_REQUEST_INCOMPLETE, 0
    )
    assert 0 not in pair.server._stream


def test_a_reset_cancels_the_field_sections_of_the_stream():
    """RFC 9204, 2.2.2.2"""
    pair = Pair()
    pair.request(end_stream=False)
    pair.to_client()
    pair.client_quic.reset_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
    assert pair.to_server() == []
    assert pair.server_quic.sent(11) == b"\x40"
    pair.to_client()
    pair.assert_open()


def test_a_stream_is_forgotten_when_both_sides_are_over():
    pair = Pair()
    pair.request()
    assert 0 in pair.server._stream
    pair.client_quic.stop_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
    assert pair.to_server() == []
    assert 0 not in pair.server._stream
