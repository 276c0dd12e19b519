"""Priorities (RFC 9218), ALTSVC (RFC 7838), ORIGIN (RFC 8336), other frames (5.5)."""

import struct

import pytest
from helpers import (
    ALTSVC,
    CHUNKS,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    ORIGIN,
    PRIORITY,
    PRIORITY_UPDATE,
    RST_STREAM,
    Peers,
    RawPeer,
    frame,
    rst_stream,
    window_update,
)

import nghttp2py
from nghttp2py.errors import NoSuchStreamError, ProtocolError, StreamClosedError
from nghttp2py.h2 import (
    H2AlternativeServiceReceived,
    H2Configuration,
    H2ExtensionFrameReceived,
    H2OriginReceived,
    H2PriorityUpdated,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
)

INCREMENTAL = H2Configuration(default_incremental=True)


def order_of(peer, ids):
    """Answer each stream with three frames; return the order of their DATA."""
    for stream_id in ids:
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, b"x" * 3000)
    return [f.stream_id for f in peer.read() if f.type == DATA]


def request(peer, stream_id, priority=None):
    extra = [(b"priority", priority)] if priority else []
    peer.send(peer.headers(stream_id, [*GET, *extra], end_stream=True))


def small_frames(**kwargs):
    return RawPeer(config=H2Configuration(max_data_frame=1000, **kwargs))


def test_by_default_responses_follow_each_other():
    """RFC 9218, 4.2: non-incremental, in order of arrival."""
    peer = small_frames()
    for stream_id in (1, 3):
        request(peer, stream_id)
    assert order_of(peer, [1, 3]) == [1, 1, 1, 3, 3, 3]


def test_by_configuration_responses_share():
    peer = small_frames(default_incremental=True)
    for stream_id in (1, 3):
        request(peer, stream_id)
    assert order_of(peer, [1, 3]) == [1, 3, 1, 3, 1, 3]


def test_a_request_that_has_a_priority_is_not_made_incremental():
    peer = small_frames(default_incremental=True)
    for stream_id in (1, 3):
        request(peer, stream_id, b"u=3")
    assert order_of(peer, [1, 3]) == [1, 1, 1, 3, 3, 3]


def test_the_priority_field_decides():
    peer = small_frames()
    request(peer, 1, b"u=5")
    request(peer, 3, b"u=1")
    assert order_of(peer, [1, 3]) == [3, 3, 3, 1, 1, 1]


def test_incremental_responses_share():
    peer = small_frames()
    request(peer, 1, b"i")
    request(peer, 3, b"i")
    assert order_of(peer, [1, 3]) == [1, 3, 1, 3, 1, 3]


def test_the_server_may_set_a_priority():
    peer = small_frames()
    request(peer, 1)
    request(peer, 3)
    peer.connection.set_priority(3, 0)
    assert order_of(peer, [1, 3]) == [3, 3, 3, 1, 1, 1]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_priority_update_is_told_and_obeyed(chunk):
    peers = Peers(server=H2Configuration(max_data_frame=1000), chunk=chunk)
    first, second = peers.request(), peers.request()
    peers.client.send_priority_update(second, b"u=0")
    _, events = peers.pump()
    assert events == [H2PriorityUpdated(second, b"u=0")]
    for stream_id in (first, second):
        peers.server.send_response_headers(stream_id, 200, [])
        peers.server.send_body(stream_id, b"x" * 3000)
    client_events, _ = peers.pump()
    ended = [e.stream_id for e in client_events if type(e).__name__ == "H2StreamClosed"]
    assert ended == [second, first]


def test_a_server_keeps_its_own_mind_if_told_to():
    peer = small_frames()
    request(peer, 1)
    request(peer, 3)
    peer.connection.set_priority(1, 0, override=True)
    peer.send(frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", 1) + b"u=7"))
    assert order_of(peer, [1, 3])[0] == 1


@pytest.mark.parametrize("urgency", [-1, 8, 2**32])
def test_urgency_is_from_0_to_7(urgency):
    peers = Peers()
    stream_id = peers.request()
    with pytest.raises(ValueError, match="urgency"):
        peers.server.set_priority(stream_id, urgency)


def test_a_priority_can_be_read_where_the_library_tells():
    peers = Peers()
    stream_id = peers.request(headers=[("priority", "u=1, i")])
    if nghttp2py.features()["extensible_priorities"]:
        assert peers.server.get_priority(stream_id) == (1, True)
    else:
        with pytest.raises(ProtocolError):
            peers.server.get_priority(stream_id)


def test_priorities_are_the_servers_to_keep_and_the_clients_to_signal():
    peers = Peers()
    stream_id = peers.request()
    for call in (
        lambda: peers.client.set_priority(stream_id),
        lambda: peers.client.get_priority(stream_id),
        lambda: peers.server.send_priority_update(stream_id, b"u=1"),
    ):
        with pytest.raises(ProtocolError, match=r"server|client"):
            call()


def test_a_closed_stream_has_no_priority():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.pump()
    with pytest.raises(StreamClosedError):
        peers.server.set_priority(stream_id)


def test_old_priority_frames_are_ignored():
    """RFC 9113, 5.3.2, 6.3."""
    peer = RawPeer()
    peer.send(frame(PRIORITY, 0, 5, b"\0\0\0\1\xff"), peer.headers(1, end_stream=True))
    assert not peer.sent(GOAWAY)
    assert peer.connection.active_stream_count == 1


@pytest.mark.parametrize("chunk", CHUNKS)
def test_an_alternative_service_of_an_origin_is_told(chunk):
    peers = Peers(chunk=chunk)
    peers.server.advertise_alternative_service(b'h3=":443"', b"https://example.org")
    events, _ = peers.pump()
    assert events == [
        H2AlternativeServiceReceived(0, b"https://example.org", b'h3=":443"')
    ]


def test_an_alternative_service_of_a_stream_is_told():
    peers = Peers()
    stream_id = peers.request()
    peers.server.advertise_alternative_service(b"clear", stream_id=stream_id)
    events, _ = peers.pump()
    assert events == [H2AlternativeServiceReceived(stream_id, b"", b"clear")]


def test_an_alternative_service_has_one_origin():
    peers = Peers()
    with pytest.raises(ValueError, match="origin"):
        peers.server.advertise_alternative_service(b"clear")
    with pytest.raises(ValueError, match="origin"):
        peers.server.advertise_alternative_service(b"clear", b"https://h", 1)
    with pytest.raises(ProtocolError, match="server"):
        peers.client.advertise_alternative_service(b"clear", b"https://h")


@pytest.mark.parametrize("chunk", CHUNKS)
def test_origins_are_told_one_by_one(chunk):
    peers = Peers(chunk=chunk)
    peers.server.send_origins([b"https://a.example", b"https://b.example"])
    events, _ = peers.pump()
    assert events == [
        H2OriginReceived(b"https://a.example"),
        H2OriginReceived(b"https://b.example"),
    ]


def test_origins_are_the_servers_and_fit_a_frame():
    peers = Peers()
    with pytest.raises(ProtocolError, match="server"):
        peers.client.send_origins([b"https://h"])
    with pytest.raises(ValueError, match="64"):
        peers.server.send_origins([b"https://h"] * 65)
    with pytest.raises(ValueError):
        peers.server.send_origins([b"https://" + b"h" * 20000])


def test_frames_of_unknown_types_are_ignored():
    """RFC 9113, 5.5."""
    peer = RawPeer()
    peer.send(
        frame(0xFA, 0xFF, 0, b"x" * 100),
        frame(0x42, 0, 1, b""),
        peer.headers(1, end_stream=True),
    )
    assert not peer.sent(GOAWAY)
    assert len(peer.events) == 2


@pytest.mark.parametrize("chunk", CHUNKS)
def test_frames_of_unknown_types_can_be_told(chunk):
    peer = RawPeer(config=H2Configuration(receive_extension_frames=True), chunk=chunk)
    peer.send(frame(0xFA, 0x5, 7, b"payload"), frame(0xB, 0, 0, b""))
    assert peer.events == [
        H2ExtensionFrameReceived(7, 0xFA, 0x5, b"payload"),
        H2ExtensionFrameReceived(0, 0xB, 0, b""),
    ]


def test_extension_frames_can_be_sent():
    peers = Peers(server=H2Configuration(receive_extension_frames=True))
    peers.client.send_extension_frame(0xFA, 0x5, 0, b"x" * 16384)
    peers.client.send_extension_frame(0xFB, 0, 1, b"")
    _, events = peers.pump()
    assert events == [
        H2ExtensionFrameReceived(0, 0xFA, 0x5, b"x" * 16384),
        H2ExtensionFrameReceived(1, 0xFB, 0, b""),
    ]


@pytest.mark.parametrize(
    "arguments",
    [(9, 0, 0, b""), (256, 0, 0, b""), (0xFA, 256, 0, b""), (0xFA, 0, 0, b"x" * 16385)],
)
def test_extension_frames_are_checked(arguments):
    with pytest.raises(ValueError):
        Peers().client.send_extension_frame(*arguments)


def test_a_priority_update_for_no_stream_is_refused():
    peers = Peers()
    with pytest.raises(NoSuchStreamError):
        peers.client.send_priority_update(0, b"u=1")


@pytest.mark.parametrize(
    "wire",
    [
        frame(PRIORITY_UPDATE, 0, 1, struct.pack(">I", 1) + b"u=1"),
        frame(PRIORITY_UPDATE, 0, 0, b"\0\0"),
        frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", 2) + b"u=1"),
    ],
    ids=["on a stream", "short", "for an idle push"],
)
def test_malformed_priority_updates_end_the_connection(wire):
    """RFC 9218, 7.1."""
    peer = RawPeer()
    peer.send(wire)
    assert peer.sent(GOAWAY)


@pytest.mark.parametrize(
    "wire",
    [
        frame(ALTSVC, 0, 0, b"\0"),
        frame(ALTSVC, 0, 0, b"\0\0h2"),
        frame(ORIGIN, 0, 0, b"\0\5ab"),
    ],
)
def test_malformed_advisory_frames_are_ignored_or_end_the_connection(wire):
    peer = RawPeer(client_side=True)
    peer.send(wire)
    assert not any(
        isinstance(e, H2AlternativeServiceReceived | H2OriginReceived)
        for e in peer.events
    )


def test_alternative_services_from_a_client_are_ignored():
    """RFC 7838, 4."""
    peer = RawPeer()
    peer.send(frame(ALTSVC, 0, 0, b"\0\x09https://hclear"))
    assert peer.events == []
    peer.send(window_update(0, 1))
    assert not peer.sent(GOAWAY)


# ---- RFC 7540, 5.3.1: a stream cannot depend on itself ----


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("exclusive", [0, 1 << 31])
@pytest.mark.parametrize("client_side", [False, True])
def test_priority_of_a_stream_on_itself_is_a_stream_error(
    client_side, exclusive, chunk
):
    peer = RawPeer(client_side=client_side, chunk=chunk)
    if client_side:
        peer.connection.send_request("GET", "/", authority="a")
        peer.read()
    else:
        peer.send(peer.headers(1))
    peer.send(frame(PRIORITY, 0, 1, struct.pack(">IB", 1 | exclusive, 15)))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [1]
    assert H2StreamReset(1, 1, False) in peer.events
    assert peer.events[-1] == H2StreamClosed(1, 1)
    assert not peer.sent(GOAWAY)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_priority_of_an_idle_stream_on_itself_is_a_stream_error(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(frame(PRIORITY, 0, 5, struct.pack(">IB", 5, 15)))
    (reset,) = peer.sent(RST_STREAM)
    assert (reset.stream_id, reset.error_code) == (5, 1)
    peer.send(peer.headers(7, end_stream=True))
    assert len(peer.of(H2RequestReceived)) == 1
    assert not peer.sent(GOAWAY)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_priority_of_a_closed_stream_on_itself_is_ignored(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1), rst_stream(1, 8))
    peer.send(frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 15)))
    assert not peer.sent(RST_STREAM)
    assert not peer.sent(GOAWAY)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("padding", [None, 0, 7])
@pytest.mark.parametrize("end_stream", [False, True])
def test_headers_that_depend_on_their_stream_are_a_stream_error(
    end_stream, padding, chunk
):
    peer = RawPeer(chunk=chunk)
    flags = 0x20 | END_HEADERS | (END_STREAM if end_stream else 0)

    def headers(stream_id, depends_on):
        payload = struct.pack(">IB", depends_on, 15) + peer.block([*GET, (b"x", b"y")])
        if padding is not None:
            payload = bytes([padding]) + payload + bytes(padding)
        padded = 0 if padding is None else 0x8
        return frame(HEADERS, flags | padded, stream_id, payload)

    peer.send(headers(1, 1))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [1]
    assert peer.of(H2StreamClosed) == [H2StreamClosed(1, 1)]
    assert not peer.of(H2RequestReceived)
    # The block was decoded: the next one uses the table.
    peer.send(headers(3, 1))
    (event,) = peer.of(H2RequestReceived)
    assert event.request.fields == (*GET, (b"x", b"y"))
    assert not peer.sent(GOAWAY)


def test_streams_that_depend_on_themselves_are_bounded():
    peer = RawPeer()
    for i in range(5, 5001, 2):
        peer.send(frame(PRIORITY, 0, i, struct.pack(">IB", i, 15)))
        if not peer.connection.want_read:
            break
    assert peer.sent(GOAWAY)[-1].error_code == 11
