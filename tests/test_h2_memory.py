"""Connections that are dropped in any state leave nothing behind."""

import gc
import sys
import tracemalloc

import pytest
from helpers import GET, MAGIC, Peers, RawPeer, frame, rst_stream

from nghttp2py.h2 import H2Configuration, H2Connection


def fresh():
    H2Connection()


def begun():
    Peers()


def half_a_header_block():
    peer = RawPeer()
    peer.feed(frame(1, 0, 1, peer.block(GET)))


def half_a_frame_header():
    RawPeer(handshake=False).connection.initiate_connection()
    peer = RawPeer()
    peer.feed(MAGIC[:5])


def unread_events():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 204, [], end_stream=True)
    peers.server.data_to_send()


def queued_bodies():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, b"x" * 100000, trailers=[("a", "b")])
    peers.client.data_to_send()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, iter([b"y" * 1000] * 100))


def queued_requests():
    peers = Peers(server=H2Configuration(max_concurrent_streams=1))
    for _ in range(10):
        peers.request(end_stream=False)


def queued_extensions():
    client = Peers().client
    for _ in range(5):
        client.send_extension_frame(0xFA, 0, 0, b"x" * 1000)


def unsent_promises():
    peers = Peers(client=H2Configuration(enable_push=True))
    stream_id = peers.request()
    promised = peers.server.push_stream(stream_id, GET)
    peers.server.send_response_headers(promised, 200, [("a", "b")])
    peers.server.send_body(promised, b"x" * 10000)


def failed():
    peer = RawPeer()
    peer.send(peer.headers(1), frame(0, 0, 99, b"x"))


def lost():
    peers = Peers()
    for _ in range(5):
        peers.request(end_stream=False)
    peers.server.receive_eof()


def many_resets():
    peer = RawPeer()
    for stream_id in range(1, 41, 2):
        peer.send(peer.headers(stream_id), rst_stream(stream_id))


def a_body_that_holds_its_connection():
    """A cycle: the collector must see through us."""
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, lambda n: (peers.server.counters, 2))
    peers.server.data_to_send()


STATES = [
    fresh,
    begun,
    half_a_header_block,
    half_a_frame_header,
    unread_events,
    queued_bodies,
    queued_requests,
    queued_extensions,
    unsent_promises,
    failed,
    lost,
    many_resets,
    a_body_that_holds_its_connection,
]


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("state", STATES)
def test_a_dropped_connection_leaves_nothing(state):
    def fifty():
        for _ in range(5):
            for _ in range(10):
                state()
            gc.collect()
        gc.collect()  # without the GIL, some memory is freed by the next one only

    fifty()
    tracemalloc.start()
    fifty()
    before, _ = tracemalloc.get_traced_memory()
    size = resident()
    fifty()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 5000
    # Fifty connections are megabytes, if they stay.
    assert resident() - size < 2**20


def test_bytes_are_let_go_with_the_connection():
    chunk = bytes(100000)
    before = sys.getrefcount(chunk)
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, chunk)
    peer.read()
    assert sys.getrefcount(chunk) == before + 1
    peer.connection = None
    gc.collect()
    assert sys.getrefcount(chunk) == before


def test_an_idle_connection_is_small():
    def idle():
        peer = RawPeer()
        for stream_id in range(1, 21, 2):
            peer.send(peer.headers(stream_id, end_stream=True))
            peer.connection.send_response_headers(stream_id, 200, [])
            peer.connection.send_body(stream_id, b"x" * 60000)
            peer.send(frame(8, 0, 0, (60000).to_bytes(4, "big")))
        return peer.connection

    idle()
    gc.collect()
    size = resident()
    kept = [idle() for _ in range(100)]
    gc.collect()
    # nghttp2's own 25 KiB (a DATA frame's buffer and tables among it) and ours.
    assert (resident() - size) / len(kept) < 120 * 1024


def test_a_long_life_takes_no_memory():
    peers = Peers()

    def exchange():
        stream_id = peers.request("POST", end_stream=False)
        peers.client.send_body(stream_id, b"x" * 1000)
        peers.server.send_response_headers(stream_id, 200, [("a", str(stream_id))])
        peers.server.send_body(stream_id, b"y" * 1000)
        peers.pump()
        peers.clear()

    for _ in range(500):
        exchange()
    gc.collect()
    size = resident()
    for _ in range(2000):
        exchange()
    assert resident() - size < 2**20
