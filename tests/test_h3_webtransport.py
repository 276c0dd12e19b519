"""WebTransport (draft-ietf-webtrans-http3), datagrams and capsules (RFC 9297)."""

import pytest
from fake_quic import (
    REQUEST,
    Pair,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from nghttp2py.h3 import H3Configuration
from nghttp2py.h3.connection import ErrorCode, H3Connection, encode_frame
from nghttp2py.h3.events import (
    CapsuleReceived,
    DatagramReceived,
    DataReceived,
    HeadersReceived,
    WebTransportSessionClosed,
    WebTransportSessionDrained,
    WebTransportStreamDataReceived,
)
from nghttp2py.h3.events import StreamReset as Reset
from nghttp2py.h3.exceptions import InvalidStreamTypeError, NotEnabledError

CONNECT = [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), *REQUEST[1:]]
OK = [(b":status", b"200")]
GONE = ErrorCode.WT_SESSION_GONE
REJECTED = ErrorCode.WT_BUFFERED_STREAM_REJECTED


def make_pair(extended=True, chunk=None):
    config = H3Configuration(extended=extended)
    return Pair(webtransport=True, config=config, chunk=chunk)


def open_session(pair):
    session_id, _ = pair.request(CONNECT, end_stream=False)
    pair.server.send_headers(session_id, OK)
    pair.to_client()
    return session_id


@pytest.fixture(params=[(False, None), (True, None), (True, 1)])
def pair(request):
    return make_pair(*request.param)


@pytest.fixture
def extended():
    return make_pair()


def ends(pair, role):
    if role == "client":
        return pair.client, pair.client_quic, pair.to_server
    return pair.server, pair.server_quic, pair.to_client


def bytes_of(events):
    assert all(isinstance(e, WebTransportStreamDataReceived) for e in events)
    return b"".join(event.data for event in events)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("uni", [False, True])
def test_streams_of_a_session(pair, role, uni):
    session_id = open_session(pair)
    h3, quic, deliver = ends(pair, role)
    stream_id = h3.create_webtransport_stream(session_id, is_unidirectional=uni)
    quic.send_stream_data(stream_id, b"some ")
    quic.send_stream_data(stream_id, b"bytes", True)
    events = deliver()
    assert bytes_of(events) == b"some bytes"
    assert {event.session_id for event in events} == {session_id}
    assert {event.stream_id for event in events} == {stream_id}
    assert events[-1].stream_ended
    pair.assert_open()


@pytest.mark.parametrize("role", ["client", "server"])
def test_what_comes_back_on_a_stream_is_the_sessions(pair, role):
    session_id = open_session(pair)
    h3, _, deliver = ends(pair, role)
    stream_id = h3.create_webtransport_stream(session_id)
    h3.send_webtransport_data(stream_id, b"ping", end_stream=True)
    assert bytes_of(deliver()) == b"ping"
    peer, _, back = ends(pair, "server" if role == "client" else "client")
    peer.send_webtransport_data(stream_id, b"\1\2pong", end_stream=True)
    assert bytes_of(back()) == b"\1\2pong"
    assert stream_id not in pair.client._stream
    assert stream_id not in pair.server._stream
    pair.assert_open()


@pytest.mark.parametrize("role", ["client", "server"])
def test_datagrams_of_a_session(pair, role):
    session_id = open_session(pair)
    h3, _, deliver = ends(pair, role)
    h3.send_datagram(session_id, b"now")
    assert deliver() == [DatagramReceived(b"now", session_id)]
    with pytest.raises(InvalidStreamTypeError):
        h3.send_datagram(1, b"x")


def test_settings_serve_the_drafts_in_use(extended):
    """Draft 02, which browsers speak, and those after it."""
    for h3 in (extended.client, extended.server):
        assert {0x33: 1, 0x2B603742: 1, 0xFFD277: 1, 0x2C7CF000: 1}.items() <= (
            h3.received_settings.items()
        )


def test_the_newest_name_of_the_protocol_is_known_too(extended):
    headers = [CONNECT[0], (b":protocol", b"webtransport-h3"), *CONNECT[2:]]
    session_id, _ = extended.request(headers, end_stream=False)
    extended.server.send_headers(session_id, OK)
    extended.to_client()
    stream_id = extended.client.create_webtransport_stream(session_id)
    extended.client.send_webtransport_data(stream_id, b"hello")
    assert bytes_of(extended.to_server()) == b"hello"


def test_a_session_needs_the_peers_setting():
    pair = Pair(config=H3Configuration(extended=True))
    with pytest.raises(NotEnabledError):
        pair.request(CONNECT, end_stream=False)


@pytest.mark.parametrize("setting", [0x2B603742, 0xC671706A, 0x2C7CF000])
def test_any_drafts_setting_will_do(setting):
    without = dict.fromkeys([0x2B603742, 0xC671706A, 0x2C7CF000], None)
    config = H3Configuration(extended=True, settings={**without, setting: 1})
    pair = Pair(webtransport=True, config=config)
    open_session(pair)
    pair.assert_open()


def test_no_more_sessions_are_open_than_were_announced():
    config = H3Configuration(extended=True, webtransport_max_sessions=2)
    pair = Pair(webtransport=True, config=config)
    first, second = open_session(pair), open_session(pair)
    assert pair.client.received_settings[0xC671706A] == 2
    # A stream that came before its session goes with it.
    early = pair.client_quic.get_next_available_stream_id(is_unidirectional=True)
    pair.client_quic.send_stream_data(early, b"\x40\x54\x08early")
    pair.to_server()
    third, events = pair.request(CONNECT, end_stream=False)
    assert third == 8 and events == []
    said = list(pair.server_quic.queue)
    assert StreamReset(ErrorCode.H3_REQUEST_REJECTED, third) in said
    assert StopSendingReceived(ErrorCode.H3_REQUEST_REJECTED, third) in said
    assert StopSendingReceived(GONE, early) in said
    pair.to_client()
    pair.client_quic.send_stream_data(third, b"more", True)
    assert pair.to_server() == []
    assert third not in pair.server._stream
    # One that ends makes room.
    pair.client.close_webtransport_session(first)
    pair.to_server()
    pair.client.create_webtransport_stream(second)
    open_session(pair)
    pair.assert_open()


def test_a_stream_needs_a_session(extended):
    with pytest.raises(InvalidStreamTypeError):
        extended.client.create_webtransport_stream(0)
    extended.request()
    with pytest.raises(InvalidStreamTypeError):
        extended.server.create_webtransport_stream(0)
    assert not extended.server_quic.sent(1)


def test_a_session_must_be_a_request(extended):
    extended.client_quic.send_stream_data(14, b"\x40\x54\1", False)
    extended.to_server()
    assert extended.server_quic.closed == (
        ErrorCode.H3_ID_ERROR,
        "Session ID is not a request",
    )


def test_a_stream_begins_with_its_session(pair):
    stream_id, _ = pair.request(end_stream=False)
    pair.client_quic.send_stream_data(stream_id, b"\x40\x41\0")
    pair.to_server()
    assert pair.server_quic.closed == (
        ErrorCode.H3_FRAME_ERROR,
        "WEBTRANSPORT_STREAM must be the first frame",
    )


# ---- What overtakes the session ----


def test_what_overtakes_the_request_waits_for_it(extended):
    quic = extended.client_quic
    quic.send_stream_data(4, b"\x40\x41\0first", False)
    quic.send_stream_data(14, b"\x40\x54\0uni", True)
    quic.send_datagram_frame(b"\0gram")
    assert extended.to_server() == []
    _, events = extended.request(CONNECT, end_stream=False)
    assert events[0] == HeadersReceived(CONNECT, 0, False)
    assert sorted(events[1:], key=repr) == [
        DatagramReceived(b"gram", 0),
        WebTransportStreamDataReceived(b"first", 4, False, 0),
        WebTransportStreamDataReceived(b"uni", 14, True, 0),
    ]
    assert 14 not in extended.server._stream
    quic.send_stream_data(4, b"more", True)
    assert extended.to_server() == [WebTransportStreamDataReceived(b"more", 4, True, 0)]


def test_what_overtakes_the_response_waits_for_it(extended):
    session_id, _ = extended.request(CONNECT, end_stream=False)
    extended.server.send_headers(session_id, OK)
    stream_id = extended.server.create_webtransport_stream(session_id)
    extended.server.send_webtransport_data(stream_id, b"early")
    # The response comes last.
    extended.server_quic.queue.rotate(-1)
    events = extended.to_client()
    assert events == [
        HeadersReceived(OK, session_id, False),
        WebTransportStreamDataReceived(b"early", stream_id, False, session_id),
    ]


def test_what_waits_for_a_session_that_is_none_is_rejected(extended):
    extended.client_quic.send_stream_data(4, b"\x40\x41\0first", False)
    extended.client_quic.send_datagram_frame(b"\0gram")
    extended.to_server()
    _, events = extended.request(REQUEST)
    assert len(events) == 1
    assert StreamReset(GONE, 4) in extended.server_quic.queue
    assert StopSendingReceived(GONE, 4) in extended.server_quic.queue


def test_what_waits_has_a_bound(extended):
    quic = extended.client_quic
    for i in range(70):
        quic.send_stream_data(14 + 4 * i, b"\x40\x54\0x", False)
        quic.send_datagram_frame(b"\0d")
    extended.to_server()
    stopped = [
        e for e in extended.server_quic.queue if isinstance(e, StopSendingReceived)
    ]
    assert {event.error_code for event in stopped} == {REJECTED}
    assert len(stopped) == 6
    _, events = extended.request(CONNECT, end_stream=False)
    assert len(events) == 1 + 64 + 64


def test_the_bytes_that_wait_have_a_bound():
    config = H3Configuration(extended=True, max_buffered=100)
    pair = Pair(webtransport=True, config=config)
    pair.client_quic.send_stream_data(14, b"\x40\x54\0" + bytes(100), False)
    pair.to_server()
    assert not any(isinstance(e, StopSendingReceived) for e in pair.server_quic.queue)
    pair.client_quic.send_stream_data(18, b"\x40\x54\0x", False)
    pair.to_server()
    assert StopSendingReceived(REJECTED, 18) in pair.server_quic.queue
    pair.assert_open()


def test_a_refused_session_takes_its_streams_with_it(extended):
    session_id, _ = extended.request(CONNECT, end_stream=False)
    extended.client_quic.send_stream_data(4, b"\x40\x41\0x", False)
    assert len(extended.to_server()) == 1
    extended.server.send_headers(session_id, [(b":status", b"403")], end_stream=True)
    assert StreamReset(GONE, 4) in extended.server_quic.queue
    extended.to_client()
    with pytest.raises(InvalidStreamTypeError):
        extended.client.create_webtransport_stream(session_id)
    extended.assert_open()


# ---- The end of a session ----


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_session_is_closed_with_code_and_reason(extended, role):
    session_id = open_session(extended)
    h3, quic, deliver = ends(extended, role)
    stream_id = h3.create_webtransport_stream(session_id)
    deliver()
    h3.close_webtransport_session(session_id, 7, "fin\u00e9")
    assert StreamReset(GONE, stream_id) in quic.queue
    events = deliver()
    assert WebTransportSessionClosed(session_id, 7, "fin\u00e9") in events
    with pytest.raises(InvalidStreamTypeError):
        h3.create_webtransport_stream(session_id)
    with pytest.raises(InvalidStreamTypeError):
        h3.close_webtransport_session(session_id)
    extended.assert_open()


def test_a_session_ends_with_its_stream(extended):
    session_id = open_session(extended)
    extended.client.send_data(session_id, b"", end_stream=True)
    events = extended.to_server()
    assert events == [
        DataReceived(b"", session_id, True),
        WebTransportSessionClosed(session_id, 0, ""),
    ]


def test_a_session_ends_with_the_reset_of_its_stream(extended):
    session_id = open_session(extended)
    stream_id = extended.server.create_webtransport_stream(session_id)
    extended.to_client()
    extended.client_quic.reset_stream(session_id, 0x10C)
    assert extended.to_server() == [
        Reset(0x10C, session_id),
        WebTransportSessionClosed(session_id, 0, ""),
    ]
    assert StreamReset(GONE, stream_id) in extended.server_quic.queue


def test_a_session_is_drained(extended):
    session_id = open_session(extended)
    extended.server.drain_webtransport_session(session_id)
    assert extended.to_client() == [WebTransportSessionDrained(session_id)]
    extended.client.create_webtransport_stream(session_id)


def test_a_reason_has_a_bound(extended):
    session_id = open_session(extended)
    with pytest.raises(ValueError, match="range"):
        extended.client.close_webtransport_session(session_id, 0, "x" * 1025)
    extended.client.close_webtransport_session(session_id, 0, "x" * 1024)
    assert WebTransportSessionClosed(session_id, 0, "x" * 1024) in extended.to_server()


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", bytes(4 + 1025)])
def test_a_malformed_close_closes_the_connection(extended, payload):
    session_id = open_session(extended)
    extended.client.send_capsule(session_id, 0x2843, payload)
    extended.to_server()
    assert extended.server_quic.closed == (
        ErrorCode.H3_DATAGRAM_ERROR,
        "Could not parse CLOSE_WEBTRANSPORT_SESSION",
    )


# ---- Error codes ----


@pytest.mark.parametrize(
    ("code", "wire"),
    [
        (0, 0x52E4A40FA8DB),
        (0x1D, 0x52E4A40FA8F8),
        (0x1E, 0x52E4A40FA8FA),
        (0xFFFFFFFF, 0x52E5AC983162),
    ],
)
def test_error_codes_are_mapped_there_and_back(extended, code, wire):
    """draft-ietf-webtrans-http3, 4.4"""
    assert H3Connection.webtransport_error_to_http(code) == wire
    session_id = open_session(extended)
    stream_id = extended.client.create_webtransport_stream(session_id)
    extended.client_quic.reset_stream(stream_id, wire)
    assert extended.to_server()[-1] == Reset(code, stream_id, session_id)


def test_other_error_codes_stay_as_they_are(extended):
    session_id = open_session(extended)
    stream_id = extended.client.create_webtransport_stream(session_id)
    extended.client_quic.reset_stream(stream_id, 0x52E4A40FA8F9)
    assert extended.to_server()[-1] == Reset(0x52E4A40FA8F9, stream_id, session_id)


# ---- Capsules (RFC 9297, 3.2) ----


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_capsules_are_reported_whole(chunk):
    pair = make_pair(chunk=chunk)
    session_id = open_session(pair)
    pair.client.send_capsule(session_id, 0x17, b"capsule")
    pair.client.send_capsule(session_id, 0x4000, b"")
    # One that begins in one DATA frame and ends in the next.
    pair.client.send_data(session_id, b"\x18\4ab", False)
    pair.client.send_data(session_id, b"cd\x19\1e", False)
    assert pair.to_server() == [
        CapsuleReceived(0x17, b"capsule", session_id),
        CapsuleReceived(0x4000, b"", session_id),
        CapsuleReceived(0x18, b"abcd", session_id),
        CapsuleReceived(0x19, b"e", session_id),
    ]


@pytest.mark.parametrize("chunk", [None, 1000])
def test_a_long_capsule_is_skipped(chunk):
    pair = make_pair(chunk=chunk)
    session_id = open_session(pair)
    pair.client.send_capsule(session_id, 0x17, bytes(20000))
    pair.client.send_capsule(session_id, 0x17, b"x")
    assert pair.to_server() == [CapsuleReceived(0x17, b"x", session_id)]


def test_a_close_that_is_too_long_is_an_error(extended):
    session_id = open_session(extended)
    extended.client.send_capsule(session_id, 0x2843, bytes(20000))
    extended.to_server()
    assert extended.server_quic.closed == (
        ErrorCode.H3_EXCESSIVE_LOAD,
        "Capsule is too large",
    )


def test_other_protocols_carry_capsules_if_they_say_so(extended):
    headers = [
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-udp"),
        *REQUEST[1:],
        (b"capsule-protocol", b"?1"),
    ]
    stream_id, _ = extended.request(headers, end_stream=False)
    extended.client.send_capsule(stream_id, 0, b"datagram")
    assert extended.to_server() == [CapsuleReceived(0, b"datagram", stream_id)]


def test_data_of_other_requests_stays_data(extended):
    stream_id, _ = extended.request(end_stream=False)
    extended.client_quic.send_stream_data(stream_id, encode_frame(0, b"\x17\1x"))
    assert extended.to_server() == [DataReceived(b"\x17\1x", stream_id, False)]


def test_without_webtransport_its_streams_mean_nothing():
    pair = Pair(config=H3Configuration(extended=True))
    pair.client_quic.send_stream_data(14, b"\x40\x54\0x", False)
    # An unknown frame of three bytes, then a request.
    pair.client_quic.send_stream_data(0, b"\x40\x41\3abc", False)
    pair.client_quic.queue.append(StreamDataReceived(b"", False, 0))
    assert pair.to_server() == []
    _, events = pair.request()
    assert len(events) == 1
    pair.assert_open()
