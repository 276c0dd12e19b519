"""Frames that are incomplete and bodies that are slow, by a clock of our own."""

import pytest
from helpers import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    MAGIC,
    POST,
    RST_STREAM,
    RawPeer,
    data,
    frame,
    ping,
    settings,
    window_update,
)

from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import H2Configuration, H2StreamClosed, H2StreamReset

MANUAL = H2Configuration(manual_flow_control=True)
CONNECT = ((b":method", b"CONNECT"), (b":authority", b"example.org:443"))


def look(peer, now, **options):
    options = {"body": 10, "response": 10, **options}
    return peer.connection.check_pace(now, **options)


def looks(peer, until, start=0.0, **options):
    """Look as often as must be; return when a stream was found too slow."""
    now = start
    while now <= until:
        slow, stalled, _ = look(peer, now, **options)
        if slow or stalled:
            return now
        now += 2.5
    return None


def whole(peer):
    return peer.block(GET)


@pytest.mark.parametrize(
    "wire",
    [
        lambda peer: ping()[:1],
        lambda peer: ping()[:9],
        lambda peer: settings({3: 1})[:-1],
        lambda peer: frame(HEADERS, END_HEADERS, 1, whole(peer))[:12],
        lambda peer: frame(HEADERS, 0, 1, whole(peer)),
        lambda peer: frame(HEADERS, 0, 1, whole(peer)) + frame(9, 0, 1, b""),
        lambda peer: frame(0xBA, 0, 0, b"unknown")[:-1],
        lambda peer: data(1, b"x")[:8],
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_a_frame_is_incomplete_until_its_last_byte(wire, chunk):
    peer = RawPeer(chunk=chunk)
    assert peer.connection.incomplete_frame == 0
    peer.feed(wire(peer))
    assert peer.connection.incomplete_frame != 0


@pytest.mark.parametrize(
    "wire",
    [
        lambda peer: ping(),
        lambda peer: frame(HEADERS, 0, 1, whole(peer)) + frame(9, 4, 1, b""),
        lambda peer: frame(HEADERS, END_HEADERS, 1, whole(peer)) + data(1, b"xyz")[:10],
        lambda peer: frame(0xBA, 0, 0, b"unknown"),
        lambda peer: frame(0xBA, 0, 0, b""),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_whole_frames_and_the_payload_of_data_are_not_incomplete(wire, chunk):
    peer = RawPeer(chunk=chunk)
    peer.feed(wire(peer))
    assert peer.connection.incomplete_frame == 0


def test_each_incomplete_frame_has_a_number_of_its_own():
    peer = RawPeer()
    seen = set()
    for _ in range(5):
        peer.feed(ping()[:10])
        number = peer.connection.incomplete_frame
        peer.feed(ping()[10:12])
        assert peer.connection.incomplete_frame == number
        peer.feed(ping()[12:])
        seen.add(number)
    assert len(seen) == 5


def test_a_header_block_in_many_frames_keeps_its_number():
    peer = RawPeer()
    block = whole(peer)
    peer.feed(frame(HEADERS, 0, 1, block[:3]))
    number = peer.connection.incomplete_frame
    peer.feed(frame(9, 0, 1, block[3:6]) + frame(9, 0, 1, block[6:])[:11])
    assert peer.connection.incomplete_frame == number != 0


def test_the_preface_and_an_ended_connection_have_no_incomplete_frame():
    peer = RawPeer(handshake=False)
    peer.connection.initiate_connection()
    peer.feed(MAGIC[:5])
    assert peer.connection.incomplete_frame == 0
    peer.feed(b"nonsense" * 10)
    assert peer.connection.incomplete_frame == 0


def test_a_stalled_upload_is_reset_with_cancel():
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    assert looks(peer, 30) == 10
    peer.read()
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [ErrorCode.CANCEL]
    (reset,) = peer.of(H2StreamReset)
    assert reset.error_code == ErrorCode.CANCEL and not reset.remote
    assert "progress" in reset.reason
    assert peer.of(H2StreamClosed) == [H2StreamClosed(1, ErrorCode.CANCEL)]
    assert look(peer, 100) == (0, False, False)


def test_a_look_that_resets_nothing_changes_nothing():
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    assert looks(peer, 30, reset=False) == 10
    assert peer.read() == []
    peer.send(data(1, bytes(5000)))
    assert look(peer, 12.5) == (0, False, True)


@pytest.mark.parametrize("size, end", [(1, 10), (200, 10), (700, None)])
def test_an_upload_must_be_as_fast_as_the_rate(size, end):
    """240 bytes a second: 600 in the 2.5 seconds between two looks."""
    peer = RawPeer(config=H2Configuration(initial_window_size=1 << 20))
    peer.send(peer.headers(1, POST))
    now, found = 0.0, None
    while now < 40 and found is None:
        found = now if look(peer, now)[0] else None
        peer.send(data(1, bytes(size)))
        now += 2.5
    assert found == end


@pytest.mark.parametrize(
    "setup",
    [
        lambda peer: peer.send(peer.headers(1, GET, end_stream=True)),
        lambda peer: peer.send(peer.headers(1, CONNECT)),
        lambda peer: (
            peer.send(peer.headers(1, POST)),
            peer.connection.send_response_headers(1, 200, []),
            peer.read(),
        ),
    ],
    ids=["whole", "tunnel", "answered"],
)
def test_nothing_is_owed_of_such_requests(setup):
    peer = RawPeer()
    setup(peer)
    assert looks(peer, 100) is None


def test_credit_that_is_held_back_stops_the_clock():
    peer = RawPeer(config=MANUAL)
    peer.send(peer.headers(1, POST))
    for _ in range(3):
        peer.send(data(1, bytes(16000)))
    assert looks(peer, 100) is None
    peer.connection.acknowledge_received_data(48000, 1)
    assert looks(peer, 200, start=102.5) == 112.5


EXPECTING = (*POST, (b"expect", b"100-Continue"))


def test_a_body_that_waits_for_100_is_not_owed_before_it():
    """RFC 9110, 10.1.1."""
    peer = RawPeer()
    peer.send(peer.headers(1, EXPECTING))
    assert looks(peer, 100) is None
    peer.connection.send_informational(1, 103)
    assert looks(peer, 200, start=100.0) is None
    peer.connection.send_informational(1, 100)
    assert looks(peer, 300, start=202.5) == 212.5


def test_a_body_that_did_not_wait_for_100_is_owed():
    peer = RawPeer()
    peer.send(peer.headers(1, EXPECTING), data(1, b"x"))
    assert looks(peer, 100) == 10


def answer(peer, size=100000, **options):
    peer.send(peer.headers(1, GET, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, bytes(size), **options)
    peer.read()


@pytest.mark.parametrize("grant, end", [(0, 10), (1, 10), (700, None)])
def test_a_response_must_be_taken_as_fast_as_the_rate(grant, end):
    peer = RawPeer(peer_settings={4: 0})
    answer(peer)
    now, found = 0.0, None
    while now < 40 and found is None:
        found = now if look(peer, now)[0] else None
        if grant:
            peer.send(window_update(1, grant))
        now += 2.5
    assert found == end


def test_an_empty_last_frame_that_needs_no_window_is_not_waited_for():
    peer = RawPeer(peer_settings={4: 0})
    peer.send(peer.headers(1, GET, end_stream=True))
    peer.connection.send_response_headers(1, 200, [], end_stream=True)
    frames = peer.read()
    assert frames[-1].flags & END_STREAM
    assert look(peer, 0) == (0, False, False)


def test_a_response_that_is_not_produced_is_not_waited_for():
    peer = RawPeer(peer_settings={4: 0})
    peer.send(peer.headers(1, GET, end_stream=True))
    assert looks(peer, 100) is None
    peer.connection.send_response_headers(1, 200, [])
    peer.read()
    assert looks(peer, 200, start=100.0) is None


def test_a_source_that_the_window_keeps_waiting_is_watched():
    peer = RawPeer(peer_settings={4: 0})
    peer.send(peer.headers(1, GET, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, iter([bytes(1000)] * 100))
    peer.read()
    assert looks(peer, 100) == 10


def test_the_window_of_the_connection_is_everybodys():
    peer = RawPeer(peer_settings={4: 2**31 - 1})
    answer(peer)
    assert looks(peer, 100) == 10
    assert look(peer, 100)[:2] == (0, True)
    peer.send(window_update(0, 1 << 20))
    assert sum(len(f.payload) for f in peer.sent(DATA)) == 100000
    assert look(peer, 100)[1] is False


def test_no_bound_is_no_bound():
    peer = RawPeer(peer_settings={4: 0})
    answer(peer)
    peer.send(peer.headers(3, POST))
    assert looks(peer, 1000, body=None, response=None) is None


def test_a_client_is_bounded_in_what_it_must_take_alone():
    peer = RawPeer(client_side=True, peer_settings={4: 0})
    peer.connection.send_request("POST", "/", authority="test", end_stream=False)
    peer.connection.send_body(1, bytes(1000))
    peer.read()
    assert looks(peer, 100, response=None) is None
    assert looks(peer, 200, start=102.5) == 112.5
