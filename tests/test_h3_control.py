"""What H3Configuration(extended=True) adds on the control stream."""

import pytest
from fake_quic import REQUEST, RESPONSE, Pair, StopSendingReceived, StreamReset

from nghttp2py.h3 import H3Configuration
from nghttp2py.h3.connection import ErrorCode, Setting
from nghttp2py.h3.events import (
    GoAwayReceived,
    HeadersReceived,
    MaxPushIdReceived,
    OriginReceived,
    PriorityUpdated,
    PushCancelled,
    SettingsReceived,
)
from nghttp2py.h3.events import StopSendingReceived as StopSending
from nghttp2py.h3.events import StreamReset as Reset
from nghttp2py.h3.exceptions import (
    GoingAwayError,
    InvalidStreamTypeError,
    NotEnabledError,
)

EXTENDED = H3Configuration(extended=True)
CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *REQUEST[1:],
]


@pytest.fixture(params=[None, 1])
def pair(request):
    return Pair(config=EXTENDED, chunk=request.param)


def test_without_extended_the_events_are_those_of_aioquic():
    pair = Pair()
    assert pair.first == ([], [])
    pair.client.send_max_push_id(10)
    pair.client.update_priority(b"u=1", stream_id=0)
    assert pair.to_server() == []
    pair.server.send_goaway(0)
    pair.server.send_origin([b"https://a.example"])
    assert pair.to_client() == []
    pair.assert_open()


def test_settings_are_reported(pair):
    to_client, to_server = pair.first
    assert to_client == [SettingsReceived(pair.server.sent_settings)]
    assert to_server == [
        SettingsReceived(pair.client.sent_settings),
        MaxPushIdReceived(8),
    ]
    assert pair.client.received_settings == pair.server.sent_settings


# ---- GOAWAY (RFC 9114, 5.2) ----


def test_a_server_drains(pair):
    first, _ = pair.request()
    pair.server.send_goaway((1 << 62) - 4)
    assert pair.to_client() == [GoAwayReceived((1 << 62) - 4)]
    # What is on its way is still taken.
    second, events = pair.request()
    assert events[0].headers == REQUEST
    pair.server.send_goaway()
    assert pair.to_client() == [GoAwayReceived(second + 4)]
    with pytest.raises(GoingAwayError):
        pair.request()
    for stream_id in (first, second):
        pair.server.send_headers(stream_id, RESPONSE, end_stream=True)
    events = pair.to_client()
    assert {event.stream_id for event in events} == {first, second}
    pair.assert_open()


def test_a_request_after_goaway_is_rejected(pair):
    pair.server.send_goaway()
    stream_id, events = pair.request()
    assert events == []
    assert (
        StreamReset(ErrorCode.H3_REQUEST_REJECTED, stream_id) in pair.server_quic.queue
    )
    assert (
        StopSendingReceived(ErrorCode.H3_REQUEST_REJECTED, stream_id)
        in pair.server_quic.queue
    )
    assert stream_id not in pair.server._stream


def test_goaway_names_less_each_time():
    pair = Pair()
    pair.server.send_goaway(8)
    with pytest.raises(ValueError, match="range"):
        pair.server.send_goaway(12)
    with pytest.raises(ValueError, match="range"):
        pair.server.send_goaway(3)


def test_a_client_stops_pushes(pair):
    stream_id, _ = pair.request()
    pair.client.send_goaway()
    assert pair.to_server() == [GoAwayReceived(0)]
    with pytest.raises(Exception, match="push"):
        pair.server.send_push_promise(stream_id, REQUEST)


# ---- Pushes ----


def test_pushes_are_cancelled_by_either_side(pair):
    stream_id, _ = pair.request()
    pair.server.send_push_promise(stream_id, REQUEST)
    pair.to_client()
    pair.client.cancel_push(0)
    assert pair.to_server() == [PushCancelled(0)]
    pair.server.cancel_push(0)
    assert pair.to_client() == [PushCancelled(0)]
    with pytest.raises(ValueError, match="range"):
        pair.server.cancel_push(1)
    with pytest.raises(ValueError, match="range"):
        pair.client.cancel_push(9)


def test_max_push_id_only_grows(pair):
    pair.client.send_max_push_id(20)
    assert pair.to_server() == [MaxPushIdReceived(20)]
    with pytest.raises(ValueError, match="range"):
        pair.client.send_max_push_id(19)
    with pytest.raises(RuntimeError):
        pair.server.send_max_push_id(30)


# ---- Priorities (RFC 9218) ----


def test_a_request_says_how_urgent_it_is():
    pair = Pair()
    stream_id, _ = pair.request([*REQUEST, (b"priority", b"u=1, i")])
    assert pair.server.priority(stream_id) == (1, True)
    assert pair.server.priority(400) == (3, False)


def test_a_priority_that_cannot_be_parsed_is_ignored():
    pair = Pair()
    stream_id, _ = pair.request([*REQUEST, (b"priority", b"u=x, ?")])
    assert pair.server.priority(stream_id) == (3, False)


def test_a_priority_is_changed(pair):
    stream_id, _ = pair.request([*REQUEST, (b"priority", b"u=1")])
    pair.client.update_priority(b"u=5, i", stream_id=stream_id)
    assert pair.to_server() == [PriorityUpdated(b"u=5, i", stream_id, None)]
    assert pair.server.priority(stream_id) == (5, True)


def test_a_priority_may_overtake_its_request(pair):
    pair.client.update_priority(b"u=0", stream_id=0)
    pair.to_server()
    pair.request([*REQUEST, (b"priority", b"u=7")])
    assert pair.server.priority(0) == (0, False)


def test_early_priorities_have_a_bound():
    pair = Pair()
    for i in range(20):
        pair.client.update_priority(b"u=0", stream_id=4 * i)
    pair.to_server()
    for _ in range(20):
        pair.request()
    urgencies = [pair.server.priority(4 * i)[0] for i in range(20)]
    assert urgencies == [3] * 4 + [0] * 16


def test_a_push_has_a_priority(pair):
    stream_id, _ = pair.request()
    push_stream_id = pair.server.send_push_promise(stream_id, REQUEST)
    pair.to_client()
    pair.client.update_priority(b"u=6", push_id=0)
    assert pair.to_server() == [PriorityUpdated(b"u=6", None, 0)]
    assert pair.server.priority(push_stream_id) == (6, False)


def test_what_cannot_have_a_priority():
    pair = Pair()
    with pytest.raises(InvalidStreamTypeError):
        pair.client.update_priority(b"u=1", stream_id=2)
    with pytest.raises(TypeError):
        pair.client.update_priority(b"u=1")
    with pytest.raises(RuntimeError):
        pair.server.update_priority(b"u=1", stream_id=0)


# ---- ORIGIN (RFC 9412) ----


def test_a_server_names_its_origins(pair):
    origins = [b"https://a.example", b"https://b.example:8443"]
    pair.server.send_origin(origins)
    assert pair.to_client() == [OriginReceived(origins)]
    with pytest.raises(RuntimeError):
        pair.client.send_origin(origins)


# ---- Extended CONNECT (RFC 9220) ----


def test_extended_connect_waits_for_the_peers_setting():
    config = H3Configuration(
        extended=True, settings={Setting.ENABLE_CONNECT_PROTOCOL: None}
    )
    pair = Pair(config=config)
    with pytest.raises(NotEnabledError):
        pair.request(CONNECT)
    assert 0 not in pair.client._stream
    pair.request(REQUEST)


def test_extended_connect(pair):
    stream_id, events = pair.request(CONNECT, end_stream=False)
    assert events == [HeadersReceived(CONNECT, stream_id, False)]


# ---- Streams that do not come to their end ----


def test_resets_and_requests_to_stop_are_reported(pair):
    stream_id, _ = pair.request(end_stream=False)
    pair.client_quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    pair.client_quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    assert pair.to_server() == [
        Reset(ErrorCode.H3_REQUEST_CANCELLED, stream_id),
        StopSending(ErrorCode.H3_REQUEST_CANCELLED, stream_id),
    ]
    assert stream_id not in pair.server._stream


# ---- MAX_FIELD_SECTION_SIZE ----


def test_nothing_larger_is_sent_than_the_peer_takes():
    pair = Pair(config=H3Configuration(max_field_section_size=300))
    pair.request()
    with pytest.raises(Exception, match="too large"):
        pair.request([*REQUEST, (b"x", b"y" * 200)])
    pair.assert_open()
