"""Hostile peers: bounded memory, the right error code, other connections unaffected."""

import gc
import struct
import tracemalloc

import hpack
import pytest
from helpers import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peers,
    RawPeer,
    body_of,
    chunks,
    data,
    frame,
    ping,
    rst_stream,
    settings,
    window_update,
)

import nghttp2py
from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import (
    H2Configuration,
    H2ConnectionClosed,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM


def resident():
    """Bytes of this process in memory: what Python does not see counts, too."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture
def bounded():
    """Fail if the test leaves this process more than 8 MiB larger."""
    gc.collect()
    before = resident()
    yield
    assert resident() - before < 8 * 2**20


def flood(peer, wire, times, *, answer=True):
    """Send ``wire`` over and over, in large reads, until the connection ends."""
    # The C library takes a thousand answers that wait for a flood.
    per_read = 500
    for _ in range(times // per_read + 1):
        peer.connection.receive_data(wire * per_read)
        if answer:
            peer.frames += peer.read()[-3:]
        if not peer.connection.want_read:
            break
    peer.read()


def assert_still_serving(peer):
    assert [f.type for f in peer.send(ping())] == [6]


def test_rapid_reset_ends_the_connection(bounded):
    """CVE-2023-44487."""
    assert nghttp2py.features()["stream_reset_rate_limit"]
    peer = RawPeer()
    requests = 0
    for i in range(5000):
        stream_id = 2 * i + 1
        events = peer.feed(
            peer.headers(stream_id, end_stream=True) + rst_stream(stream_id)
        )
        requests += any(isinstance(e, H2RequestReceived) for e in events)
        peer.read()
        peer.events.clear()
        if not peer.connection.want_read:
            break
    # The burst is 1000; a little comes back each second.
    assert 1000 <= requests <= 1500
    assert peer.sent(GOAWAY)
    assert peer.connection.active_stream_count == 0


def test_the_reset_rate_can_be_configured():
    config = H2Configuration(stream_reset_burst=10, stream_reset_rate=1)
    peer = RawPeer(config=config)
    for stream_id in range(1, 101, 2):
        peer.send(peer.headers(stream_id, end_stream=True), rst_stream(stream_id))
    assert peer.sent(GOAWAY)
    assert peer.connection.counters["streams_opened"] < 20


PROVOCATIONS = {
    "zero increment": lambda peer, i: peer.headers(i) + window_update(i, 0),
    "window overflow": lambda peer, i: peer.headers(i) + window_update(i, 2**31 - 1),
    "malformed request": lambda peer, i: peer.headers(i, GET[1:]),
    "wrong content-length": lambda peer, i: peer.headers(
        i, [*GET, (b"content-length", b"5")], end_stream=True
    ),
    "large header list": lambda peer, i: peer.headers(
        i, [*GET, *[(b"a", b"b")] * 300], end_stream=True
    ),
}


@pytest.mark.parametrize("how", PROVOCATIONS)
def test_resets_that_the_peer_provokes_are_counted(how, bounded):
    """CVE-2025-8671, "MadeYouReset"."""
    peer = RawPeer()
    sent = 0
    for i in range(5000):
        sent += 1
        peer.send(PROVOCATIONS[how](peer, 2 * i + 1))
        peer.events.clear()
        if not peer.connection.want_read:
            break
    assert sent <= 1002
    assert peer.sent(GOAWAY)[-1].error_code in (
        CALM,
        # Newer releases of the C library take some of these for the connection's.
        ErrorCode.FLOW_CONTROL_ERROR,
        ErrorCode.PROTOCOL_ERROR,
    )


def test_a_bound_on_provoked_resets_can_be_configured():
    peer = RawPeer(config=H2Configuration(max_provoked_resets=3))
    for stream_id in (1, 3, 5, 7):
        assert not peer.sent(GOAWAY)
        peer.send(peer.headers(stream_id, GET[1:]))
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == CALM
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)
    assert peer.connection.counters["provoked_resets"] == 4


def test_streams_that_end_well_make_good_for_provoked_resets():
    peer = RawPeer(config=H2Configuration(max_provoked_resets=3))
    for i in range(20):
        peer.send(peer.headers(4 * i + 1, GET[1:]))
        peer.send(peer.headers(4 * i + 3, end_stream=True))
        peer.connection.send_response_headers(4 * i + 3, 204, [], end_stream=True)
        peer.read()
    assert not peer.sent(GOAWAY)


def test_our_own_resets_are_not_held_against_the_peer():
    peer = RawPeer(config=H2Configuration(max_provoked_resets=3))
    for stream_id in range(1, 41, 2):
        peer.send(peer.headers(stream_id))
        peer.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        peer.read()
    assert not peer.sent(GOAWAY)


@pytest.mark.parametrize("chunk", [1, None])
def test_a_continuation_flood_ends_the_connection(chunk, bounded):
    """CVE-2024-28182."""
    assert nghttp2py.features()["max_continuations"]
    peer = RawPeer(chunk=chunk)
    peer.feed(frame(HEADERS, END_STREAM, 1, b"\x82"))
    sent = 0
    while peer.connection.want_read:
        peer.feed(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"))
        sent += 1
    peer.read()
    assert sent <= 10
    assert peer.sent(GOAWAY)[0].error_code == CALM
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)


@pytest.mark.parametrize("chunk", [1, None])
def test_a_block_in_eight_continuations_is_no_flood(chunk):
    peer = RawPeer(chunk=chunk)
    block = peer.block(GET)
    pieces = list(chunks(block, len(block) // 8 + 1))
    flags = [0] * (len(pieces) - 1) + [END_HEADERS]
    wire = frame(HEADERS, END_STREAM, 1, b"")
    for piece, flag in zip(pieces, flags, strict=True):
        wire += frame(CONTINUATION, flag, 1, piece)
    peer.send(wire)
    assert isinstance(peer.events[0], H2RequestReceived)


def bomb():
    """A table entry of 4000 bytes, and blocks that repeat it a thousand times."""
    encoder = hpack.Encoder()
    first = encoder.encode([*GET, (b"a", b"x" * 3900)], huffman=False)
    return first, encoder.encode([*GET, *[(b"a", b"x" * 3900)] * 15000])


def test_an_hpack_bomb_is_refused(bounded):
    """A block of 15 KiB that stands for 58 MiB."""
    first, blown = bomb()
    assert len(blown) < 16000
    peer = RawPeer()
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, first))
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, blown))
    # To refuse the stream alone, all of it would have to be decoded.
    assert peer.sent(GOAWAY)[-1].error_code == CALM
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)
    assert "many times" in peer.events[-1].reason
    assert peer.connection.counters["header_bytes_received"] < 300000
    assert len(peer.of(H2RequestReceived)) == 1


def test_many_small_bombs_in_one_read_stay_small():
    """Each is below the bound, and repeats large entries of the table."""
    encoder = hpack.Encoder()
    fields = [*GET, *[(b"%d" % i, b"x" * 550) for i in range(6)]]
    peer = RawPeer()
    peer.send(
        frame(
            HEADERS, END_HEADERS | END_STREAM, 1, encoder.encode(fields, huffman=False)
        )
    )
    block = encoder.encode(GET + tuple(fields[4:]) * 15, huffman=False)
    assert len(block) < 120
    wire = b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block)
        + rst_stream(stream_id)
        for stream_id in range(3, 1003, 2)
    )
    gc.collect()
    tracemalloc.start()
    events = peer.connection.receive_data(wire)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    received = [e for e in events if isinstance(e, H2RequestReceived)]
    assert len(received) == 500
    assert sum(len(v) for e in received for _, v in e.request.headers) > 20 * 2**20
    assert peak < 4 * 2**20


def test_a_header_list_that_is_too_long_resets_the_stream():
    peer = RawPeer(config=H2Configuration(max_header_list_bytes=1000))
    peer.send(peer.headers(1, [*GET, (b"a", b"x" * 1000)], end_stream=True))
    assert peer.events[0] == H2StreamReset(1, CALM, False)
    assert "header list" in peer.events[0].reason
    peer.send(peer.headers(3, [*GET, (b"a", b"x" * 500)], end_stream=True))
    assert isinstance(peer.events[-2], H2RequestReceived)


def test_a_header_list_of_too_many_fields_resets_the_stream():
    peer = RawPeer(config=H2Configuration(max_header_list_count=10))
    peer.send(peer.headers(1, [*GET, *[(b"a", b"b")] * 7], end_stream=True))
    assert peer.events[0] == H2StreamReset(1, CALM, False)
    peer.send(peer.headers(3, [*GET, *[(b"a", b"b")] * 6], end_stream=True))
    assert isinstance(peer.events[-2], H2RequestReceived)


@pytest.mark.parametrize("kind", ["trailers", "response", "promise"])
def test_every_header_list_is_bounded(kind):
    fields = [(b"a", b"b")] * 300
    if kind == "trailers":
        peer = RawPeer()
        peer.send(peer.headers(1), peer.headers(1, fields, end_stream=True))
    else:
        peer = RawPeer(client_side=True, config=H2Configuration(enable_push=True))
        peer.connection.send_request("GET", "/", authority="h")
        peer.read()
        if kind == "response":
            peer.send(peer.headers(1, [(b":status", b"200"), *fields]))
        else:
            peer.send(peer.push_promise(1, 2, [*GET, *fields]))
    (sent,) = peer.sent(RST_STREAM)
    assert sent.error_code in (CALM, ErrorCode.CANCEL)


@pytest.mark.parametrize(
    "wire",
    [settings({3: 100}), ping()],
    ids=["SETTINGS", "PING"],
)
def test_a_flood_that_wants_answers_ends_if_nobody_reads_them(wire, bounded):
    """CVE-2019-9512, CVE-2019-9515."""
    peer = RawPeer()
    flood(peer, wire, 100000, answer=False)
    assert not peer.connection.want_read
    assert peer.sent(GOAWAY)[-1].error_code == CALM


@pytest.mark.parametrize(
    "wire",
    [
        settings({3: 100}),
        ping(),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\0"),
        window_update(0, 1),
        frame(0xFA, 0, 0, b"x" * 100),
        frame(SETTINGS, 0, 0, b""),
        ping(ack=True),
    ],
    ids=["SETTINGS", "PING", "PRIORITY", "WINDOW_UPDATE", "unknown", "empty", "ack"],
)
def test_a_flood_that_is_read_takes_no_memory(wire, bounded):
    peer = RawPeer()
    flood(peer, wire, 50000)
    assert peer.connection.counters["outbound_queue"] == 0


def test_large_settings_frames_end_the_connection():
    """CVE-2020-11080."""
    peer = RawPeer()
    peer.send(settings(dict.fromkeys(range(1000, 1100), 0)))
    assert peer.sent(GOAWAY)[0].error_code in (CALM, ErrorCode.PROTOCOL_ERROR)
    assert isinstance(peer.events[-1], H2ConnectionClosed)


def test_empty_frames_without_end_take_no_memory(bounded):
    """CVE-2019-9518."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    flood(peer, data(1), 50000)
    assert not peer.connection.want_read
    assert peer.sent(GOAWAY)[-1].error_code == CALM


def test_priority_updates_for_idle_streams_take_no_memory(bounded):
    """RFC 9218, 7.1."""
    peer = RawPeer()
    for i in range(20000):
        peer.send(frame(0x10, 0, 0, struct.pack(">I", 2 * i + 1) + b"u=1"))
        peer.events.clear()
        if not peer.connection.want_read:
            break


def test_a_peer_with_a_closed_window_holds_no_more_than_the_queue(bounded):
    """CVE-2019-9511, CVE-2019-9517: it asks, and does not read."""
    peer = RawPeer(peer_settings={4: 0})
    body = b"x" * 1000000
    for i in range(100):
        stream_id = 2 * i + 1
        peer.send(peer.headers(stream_id, end_stream=True))
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, body)
    frames = peer.read()
    assert not [f for f in frames if f.type == DATA]
    assert peer.connection.queued_body() == 100 * len(body)
    # One byte at a time: each is one small frame, and no more memory.
    for _ in range(1000):
        peer.send(window_update(1, 1))
    assert peer.connection.queued_body() == 100 * len(body) - 1000


def test_a_source_is_not_pulled_for_a_closed_window():
    peer = RawPeer(peer_settings={4: 0})
    peer.send(peer.headers(1, end_stream=True))
    pulled = []

    def source(n):
        pulled.append(n)
        return b"x" * n, 0

    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, source)
    peer.read()
    assert sum(pulled) <= 65536


def test_a_slow_header_trickle_holds_little(bounded):
    """One byte of a header block at a time, on many connections."""
    peers = [RawPeer() for _ in range(20)]
    for peer in peers:
        wire = frame(HEADERS, 0, 1, peer.block([*GET, (b"a", b"x" * 10000)]))
        peer.connection.receive_data(wire[:9])
        for piece in chunks(wire[9:-1], 100):
            assert peer.connection.receive_data(piece) == []
    assert sum(p.connection.active_stream_count for p in peers) == 20
    assert peers[0].connection.receive_eof()[-1] == H2ConnectionClosed(2, True)


def test_settings_that_are_never_acknowledged_are_counted(bounded):
    peer = RawPeer()
    for i in range(1000):
        peer.connection.update_settings({3: 100 + i})
        peer.read()
    assert peer.connection.settings_unacknowledged == 1000
    assert_still_serving(peer)


def test_more_streams_than_allowed_end_the_connection():
    """RFC 9113, 5.1.2."""
    peer = RawPeer(config=H2Configuration(max_concurrent_streams=10))
    for i in range(11):
        peer.send(peer.headers(2 * i + 1))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes in ([ErrorCode.PROTOCOL_ERROR], [ErrorCode.REFUSED_STREAM])
    assert len(peer.of(H2RequestReceived)) == 10


def test_a_connection_that_fails_leaves_others_alone():
    peers = Peers()
    stream_id = peers.request()
    bad = RawPeer()
    bad.send(data(99, b"x"))
    assert bad.sent(GOAWAY)
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, b"fine")
    events, _ = peers.pump()
    assert body_of(events, stream_id) == b"fine"


def test_glitches_are_bounded_where_the_library_can():
    if not nghttp2py.features()["glitch_rate_limit"]:
        return
    peer = RawPeer(config=H2Configuration(glitch_burst=5, glitch_rate=1))
    for stream_id in range(1, 41, 2):
        peer.send(peer.headers(stream_id, GET[1:]))
    assert peer.sent(GOAWAY)


def test_a_peer_that_never_reads_our_goaway_gets_no_more():
    peer = RawPeer()
    peer.feed(data(99, b"x"))
    before = len(peer.events)
    for _ in range(100):
        peer.feed(ping())
    assert len(peer.events) == before
    out = peer.read()
    assert [f.type for f in out] == [GOAWAY]


def test_window_updates_of_a_manual_reader_are_few():
    """Tiny DATA frames must not make us answer each."""
    peer = RawPeer()
    peer.send(peer.headers(1))
    for _ in range(5000):
        peer.send(data(1, b"x"))
    assert len(peer.sent(WINDOW_UPDATE)) < 10


def test_acks_nobody_asked_for_end_the_connection():
    peer = RawPeer()
    peer.send(frame(SETTINGS, ACK, 0))
    assert peer.sent(GOAWAY)[0].error_code == ErrorCode.PROTOCOL_ERROR


def test_closed_streams_are_told_once():
    peer = RawPeer()
    peer.send(peer.headers(1), rst_stream(1), rst_stream(1), rst_stream(1))
    assert len(peer.of(H2StreamClosed)) == 1


# ---- Frames that do nothing ----

# How many of them end a connection by default, and some more.
MANY = 12000


def useless(peer):
    """Frames of each kind that do nothing, as often as one likes."""
    return {
        "window of the connection": window_update(0, 1),
        "window of a stream": window_update(1, 1),
        "window of a closed stream": window_update(3, 1),
        "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\0\0"),
        "PRIORITY_UPDATE": frame(0x10, 0, 0, b"\0\0\0\1u=1"),
        "empty DATA": data(1),
        "padded DATA": frame(DATA, 8, 1, b"\x05" + bytes(5)),
        "unknown": frame(0xAB, 0, 0, b"x"),
        "unknown of a stream": frame(0xAB, 0, 1),
        "SETTINGS": settings({4: 65535}),
        "PING": ping(),
        "PING's answer": ping(ack=True),
        "RST_STREAM of a closed stream": rst_stream(3),
    }


@pytest.mark.parametrize(
    ("client_side", "kind"),
    [
        (client_side, kind)
        for client_side in (False, True)
        for kind in useless(None)
        # An error of the connection at once, and bounded by nghttp2.
        if (client_side, kind)
        not in (
            (True, "PRIORITY_UPDATE"),
            (False, "RST_STREAM of a closed stream"),
        )
    ],
)
def test_frames_that_do_nothing_end_the_connection(bounded, kind, client_side):
    peer = RawPeer(client_side=client_side)
    if client_side:
        for _ in range(2):
            peer.connection.send_request("POST", "/", authority="a", end_stream=False)
        peer.read()
        peer.send(peer.headers(1, [(b":status", b"200")]), rst_stream(3, 8))
    else:
        peer.send(peer.headers(1) + peer.headers(3), rst_stream(3, 8))
    peer.events.clear()
    wire = useless(peer)[kind]
    peer.events += peer.connection.receive_data(wire * 500)
    assert peer.connection.want_read
    flood(peer, wire, MANY)
    assert not peer.connection.want_read
    assert peer.sent(GOAWAY)[-1].error_code == CALM


def test_frames_that_do_nothing_byte_by_byte():
    peer = RawPeer(config=H2Configuration(max_glitches=50), chunk=1)
    peer.send(peer.headers(1))
    peer.send(window_update(1, 1) * 500)
    assert peer.sent(GOAWAY)[-1].error_code == CALM
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)
    assert "do nothing" in peer.events[-1].reason


def test_time_forgives_frames_that_do_nothing():
    peer = RawPeer(config=H2Configuration(max_glitches=400))
    for _ in range(100):
        peer.send(ping() * 300)
        peer.connection.time_passed(1)
    # No more are forgiven than there were.
    peer.connection.time_passed(2**32 - 1)
    peer.send(ping() * 399)
    assert_still_serving(peer)
    peer.send(ping() * 2)
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)


def test_frames_that_do_nothing_end_a_connection_that_does_not_read():
    peer = RawPeer()
    peer.send(peer.headers(1))
    flood(peer, window_update(1, 1), MANY, answer=False)
    assert not peer.connection.want_read


def test_a_reader_that_returns_credit_byte_by_byte_is_served():
    """It sends two WINDOW_UPDATEs for each byte, the last ones after the response."""
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 100000)
    left = 100000
    while left:
        got = sum(len(f.payload) for f in peer.read() if f.type == DATA)
        peer.frames.clear()
        left -= got
        for _ in range(got):
            peer.feed(window_update(0, 1) + window_update(1, 1))
        peer.events.clear()
    assert_still_serving(peer)


def test_a_window_of_one_byte_is_served():
    peer = RawPeer(peer_settings={4: 1})
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 30000)
    for _ in range(29999):
        peer.send(window_update(1, 1))
        peer.frames.clear()
    peer.read()
    assert peer.events[-1] == H2StreamClosed(1, 0)
    assert_still_serving(peer)


def test_requests_pay_for_the_frames_that_come_with_them():
    peer = RawPeer()
    for stream_id in range(1, 6001, 2):
        peer.feed(peer.headers(stream_id, end_stream=True))
        peer.feed(
            window_update(stream_id, 1 << 20)
            + frame(0x10, 0, 0, struct.pack(">I", stream_id) + b"u=1")
            + ping() * 4
        )
        peer.connection.send_response_headers(stream_id, 204, [], end_stream=True)
        peer.read()
        peer.frames.clear()
    assert_still_serving(peer)


def test_updates_of_a_read_are_one_event_for_each_stream():
    peer = RawPeer()
    peer.send(peer.headers(1) + peer.headers(3))
    peer.events.clear()
    wire = window_update(0, 1) + window_update(1, 2) + window_update(3, 3)
    events = peer.feed(wire * 100)
    assert sorted((e.stream_id, e.increment) for e in events) == [
        (0, 100),
        (1, 200),
        (3, 300),
    ]
    assert [(e.stream_id, e.increment) for e in peer.feed(wire)] == [
        (0, 1),
        (1, 2),
        (3, 3),
    ]


# ---- Header lists that are far too large ----


@pytest.mark.parametrize("client_side", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_a_bomb_ends_the_connection_in_either_role(client_side, chunk):
    peer = RawPeer(client_side=client_side, chunk=chunk)
    stream_id = 1
    fields = [*GET, (b"x", b"y" * 3000)]
    if client_side:
        fields = [(b":status", b"103"), (b"x", b"y" * 3000)]
        stream_id = peer.connection.send_request("GET", "/", authority="a")
        peer.read()
    peer.send(peer.headers(stream_id, fields))
    block = peer.block([*fields, *[fields[-1]] * 12000])
    assert len(block) < 16000
    stream_id = 1 if client_side else 3
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
    assert peer.sent(GOAWAY)[-1].error_code == CALM
    assert peer.events[-1] == H2ConnectionClosed(CALM, False)
    assert peer.connection.counters["header_bytes_received"] < 300000


def test_a_block_that_is_too_large_but_no_bomb_costs_its_stream_only():
    peer = RawPeer()
    lists = [
        [(b"x", b"y" * 40000), (b"z", b"y" * 40000)],
        [(b"n%d" % i, b"") for i in range(1000)],
        [(b"cookie", b"y" * 4000)] * 30,
    ]
    for stream_id, fields in enumerate(lists):
        block = peer.block([*GET, *fields])
        pieces = [block[i : i + 16384] for i in range(0, len(block), 16384)]
        wire = b""
        for i, piece in enumerate(pieces):
            flags = END_HEADERS if i == len(pieces) - 1 else 0
            kind = CONTINUATION if i else HEADERS
            wire += frame(kind, flags, 2 * stream_id + 1, piece)
        peer.send(wire)
        assert H2StreamReset(2 * stream_id + 1, CALM, False) in peer.events
    assert_still_serving(peer)


def test_many_refused_blocks_end_the_connection():
    peer = RawPeer()
    first = [*GET, (b"x", b"y" * 3000)]
    peer.send(peer.headers(1, first, end_stream=True))
    block = peer.block([*first, *[first[-1]] * 60])
    for stream_id in range(3, 1003, 2):
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
        if not peer.connection.want_read:
            break
    assert stream_id < 201
    assert peer.sent(GOAWAY)[-1].error_code == CALM
