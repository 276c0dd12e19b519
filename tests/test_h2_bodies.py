"""Bodies on their way out: bytes, files, iterators, callables (DESIGN: the pull)."""

import array
import gc
import io
import mmap
import sys
import weakref

import pytest
from helpers import (
    DATA,
    END_STREAM,
    HEADERS,
    PADDED,
    RST_STREAM,
    Peers,
    RawPeer,
    body_of,
    ends_of,
    exchange,
    parse,
    rst_stream,
    window_update,
)

from nghttp2py.errors import (
    BodyQueueFullError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2 import (
    H2BodyDrained,
    H2BodyFailed,
    H2Configuration,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
)
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK

BODY = bytes(range(256)) * 1200


def from_file(body):
    return io.BytesIO(body)


def from_iterator(body):
    return (body[i : i + 1000] for i in range(0, len(body), 1000))


def from_list(body):
    return [bytearray(body[:7]), b"", memoryview(body[7:])]


def from_callable(body):
    stream = io.BytesIO(body)

    def read(n):
        data = stream.read(n)
        return data, DATA_EOF if stream.tell() == len(body) else DATA_OK

    return read


def from_bytearray(body):
    return bytearray(body)


def from_bytes(body):
    return body


SOURCES = [
    from_bytes,
    from_bytearray,
    from_file,
    from_iterator,
    from_list,
    from_callable,
]


@pytest.fixture
def answered():
    """A server with stream 1 answered, whose body is to come."""
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.read()
    peer.frames.clear()
    peer.events.clear()
    return peer


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("body", [b"", b"x", BODY], ids=["empty", "one", "large"])
def test_every_kind_of_body_arrives(source, body):
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, source(body))
    events, server_events = peers.pump()
    assert body_of(events, stream_id) == body
    assert ends_of(events, stream_id) == 1
    assert H2StreamClosed(stream_id, 0) in server_events
    assert peers.server.queued_body() == 0


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_body_takes_trailers(source):
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, source(BODY), trailers=[("a", "b")])
    _, events = peers.pump()
    assert body_of(events, stream_id) == BODY
    assert events[-2] == H2TrailersReceived(stream_id, ((b"a", b"b"),))


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_body_may_leave_the_stream_open(source):
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, source(b"one"), end_stream=False)
    _, events = peers.pump()
    assert ends_of(events, stream_id) == 0
    peers.client.send_body(stream_id, source(b"two"))
    peers.pump()
    assert body_of(peers.server_events, stream_id) == b"onetwo"
    assert ends_of(peers.server_events, stream_id) == 1


def test_any_buffer_is_bytes_like(answered):
    """Also one whose items are wider, and in pieces; a mapped file is a file."""
    body = array.array("H", [258, 772])
    answered.connection.send_body(1, body, end_stream=False)
    answered.connection.send_body(1, iter([body]), end_stream=False)
    sent = b"".join(frame.payload for frame in answered.read())
    assert sent == body.tobytes() * 2
    with mmap.mmap(-1, 4) as mapped:
        mapped.write(b"1234")
        mapped.seek(2)
        answered.connection.send_body(1, mapped)
        assert b"".join(frame.payload for frame in answered.read()) == b"34"


def test_a_real_file_is_sent(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(BODY)
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    with path.open("rb") as file:
        peers.server.send_body(stream_id, file)
        events, _ = peers.pump()
    assert body_of(events, stream_id) == BODY


def test_the_end_goes_with_the_last_byte(answered):
    """A lone empty DATA frame would have to wait for the connection's window."""
    answered.connection.send_body(1, io.BytesIO(b"hello"))
    assert answered.read() == [(DATA, END_STREAM, 1, b"hello")]


def test_pieces_are_gathered_in_order(answered):
    answered.connection.send_body(1, b"a", end_stream=False)
    answered.connection.send_body(1, b"b", end_stream=False)
    answered.connection.send_body(1, b"c")
    frames = answered.read()
    assert b"".join(f.payload for f in frames) == b"abc"
    assert [f.flags for f in frames] == [0] * (len(frames) - 1) + [END_STREAM]


def test_a_source_is_asked_only_for_what_can_be_sent(answered):
    asked = []

    def source(n):
        asked.append(n)
        return b"x" * n, DATA_OK

    answered.connection.send_body(1, source)
    assert asked == []
    answered.read()
    assert sum(asked) == 65535
    assert answered.connection.local_flow_control_window(1) == 0
    answered.read()
    assert sum(asked) == 65535
    answered.send(window_update(0, 100), window_update(1, 100))
    assert sum(asked) == 65635


def test_a_deferred_source_is_asked_again_when_resumed(answered):
    answers = [(b"a", DATA_OK), (None, DATA_DEFERRED), (b"b", DATA_EOF)]
    answered.connection.send_body(1, lambda n: answers.pop(0))
    assert [f.payload for f in answered.read()] == [b"a"]
    assert answered.read() == []
    assert len(answers) == 1
    answered.connection.resume_body(1)
    assert [f.payload for f in answered.read()] == [b"b"]
    answered.connection.resume_body(1)
    answered.connection.resume_body(99)


class Failure(Exception):
    pass


def raising(n):
    raise Failure


@pytest.mark.parametrize(
    "source,error",
    [
        (raising, Failure),
        (lambda n: b"x", TypeError),
        (lambda n: ("x", DATA_OK), TypeError),
        (lambda n: (b"x" * (n + 1), DATA_OK), ValueError),
        (lambda n: (b"x", 5), ValueError),
        (lambda n: (b"x", DATA_DEFERRED), ValueError),
        (lambda n: (b"", DATA_OK), ValueError),
        (["text"], TypeError),
        ((b"" for _ in range(10000)), ValueError),
        (io.StringIO("text"), TypeError),
    ],
)
def test_a_source_that_fails_resets_its_stream(answered, source, error):
    answered.connection.send_body(1, source)
    (sent,) = answered.read()
    assert (sent.type, sent.error_code) == (RST_STREAM, ErrorCode.INTERNAL_ERROR)
    failed, closed = answered.events
    assert isinstance(failed, H2BodyFailed)
    assert failed.stream_id == 1
    assert isinstance(failed.exception, error)
    assert closed == H2StreamClosed(1, ErrorCode.INTERNAL_ERROR)


def test_a_file_that_would_block_fails(answered):
    class NonBlocking(io.RawIOBase):
        def read(self, n):
            return None

    answered.connection.send_body(1, NonBlocking())
    answered.read()
    assert isinstance(answered.events[0].exception, BlockingIOError)


def test_a_source_of_the_wrong_length_fails():
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [("content-length", "5")])
    peers.server.send_body(stream_id, iter([b"abc"]))
    client_events, server_events = peers.pump()
    assert isinstance(server_events[0].exception, InvalidBodyLengthError)
    assert client_events[-1] == H2StreamClosed(stream_id, ErrorCode.INTERNAL_ERROR)


def test_one_failing_source_leaves_other_streams_alone():
    peers = Peers()
    bad, good = peers.request(), peers.request()
    for stream_id in (bad, good):
        peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(bad, raising)
    peers.server.send_body(good, iter([b"fine"]))
    events, _ = peers.pump()
    assert body_of(events, good) == b"fine"
    assert H2StreamReset(bad, ErrorCode.INTERNAL_ERROR, True) in events


def test_a_cancellation_in_a_source_is_its_streams_failure(answered):
    """It is no ``Exception`` in asyncio, nor in other frameworks."""

    class Cancelled(BaseException):
        pass

    def cancelled(n):
        raise Cancelled

    answered.connection.send_body(1, cancelled)
    assert answered.read()[0].type == RST_STREAM
    assert isinstance(answered.events[0].exception, Cancelled)


def test_a_keyboard_interrupt_in_a_source_passes_through(answered):
    def source(n):
        raise KeyboardInterrupt

    answered.connection.send_body(1, source)
    with pytest.raises(KeyboardInterrupt):
        answered.connection.data_to_send()
    assert answered.read()[0].type == RST_STREAM


def test_a_source_may_call_anything_but_the_two_ends(answered):
    connection = answered.connection
    seen = []

    def source(n):
        for call in (connection.data_to_send, lambda: connection.receive_data(b"")):
            with pytest.raises(ProtocolError, match="within themselves"):
                call()
        connection.ping()
        seen.append(connection.queued_body(1))
        return b"x", DATA_EOF

    connection.send_body(1, source)
    assert {f.payload for f in answered.read()} == {b"\0" * 8, b"x"}
    assert seen == [0]


def test_a_source_may_reset_its_own_stream(answered):
    def source(n):
        answered.connection.reset_stream(1, ErrorCode.CANCEL)
        return b"x", DATA_EOF

    answered.connection.send_body(1, source)
    (sent,) = answered.read()
    assert (sent.type, sent.error_code) == (RST_STREAM, ErrorCode.CANCEL)
    assert answered.events == [H2StreamClosed(1, ErrorCode.CANCEL)]


def test_a_source_owns_its_streams_body(answered):
    connection = answered.connection
    connection.send_body(1, iter([b"x"]))
    for call in (
        lambda: connection.send_body(1, b"y"),
        lambda: connection.send_body(1, iter([b"y"])),
        lambda: connection.send_data(1, b"y"),
        lambda: connection.send_trailers(1, [("a", "b")]),
        lambda: connection.end_stream(1),
    ):
        with pytest.raises(StreamStateError, match="source"):
            call()


def test_a_source_is_let_go_when_its_stream_ends(answered):
    class Source:
        def __call__(self, n):
            return None, DATA_DEFERRED

    source = Source()
    gone = weakref.ref(source)
    answered.connection.send_body(1, source)
    answered.read()
    del source
    assert gone() is not None
    answered.send(rst_stream(1))
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("body", ["text", 5, None, object()])
def test_what_is_no_body_is_a_type_error(answered, body):
    with pytest.raises(TypeError, match="body must be"):
        answered.connection.send_body(1, body)
    answered.connection.send_body(1, b"fine")


def test_trailers_need_the_end(answered):
    with pytest.raises(ValueError, match="end_stream"):
        answered.connection.send_body(1, b"", trailers=[("a", "b")], end_stream=False)


@pytest.mark.parametrize("body", [b"x", [b"x"]])
def test_bad_trailers_are_refused_before_anything_is_queued(answered, body):
    with pytest.raises(HeadersError):
        answered.connection.send_body(1, body, trailers=[(":status", "200")])
    assert answered.connection.queued_body() == 0
    assert answered.read() == []
    answered.connection.send_body(1, b"fine")
    assert answered.read()[0].payload == b"fine"


def test_the_queue_of_a_stream_is_bounded():
    peer = RawPeer(config=H2Configuration(max_body_queue=1000))
    peer.send(peer.headers(1, end_stream=True))
    connection = peer.connection
    connection.send_response_headers(1, 200, [])
    connection.send_body(1, b"x" * 600, end_stream=False)
    with pytest.raises(BodyQueueFullError):
        connection.send_body(1, b"x" * 401, end_stream=False)
    connection.send_body(1, b"x" * 400, end_stream=False)
    assert connection.queued_body(1) == connection.queued_body() == 1000
    peer.read()
    assert connection.queued_body(1) == 0
    # One piece that exists already is taken, however large.
    connection.send_body(1, b"x" * 5000, end_stream=False)
    with pytest.raises(BodyQueueFullError):
        connection.send_body(1, b"x")
    connection.end_stream(1)
    peer.read()


def test_drained_is_told_when_asked_for(answered):
    connection = answered.connection
    connection.send_body(1, b"x" * 70000, end_stream=False)
    assert connection.notify_drained(1, 5000) is False
    answered.read()
    assert connection.queued_body(1) == 70000 - 65535
    assert answered.events == [H2BodyDrained(1)]
    assert connection.notify_drained(1, 5000) is True
    assert connection.notify_drained(1) is False
    answered.send(window_update(0, 70000), window_update(1, 70000))
    assert answered.of(H2BodyDrained) == [H2BodyDrained(1)] * 2


def test_a_stream_that_is_gone_is_drained(answered):
    answered.connection.send_body(1, b"x" * 70000, end_stream=False)
    answered.read()
    answered.connection.notify_drained(1)
    answered.send(rst_stream(1))
    assert answered.connection.notify_drained(1) is True
    assert answered.connection.queued_body(1) == 0


def test_large_bytes_are_not_copied(answered):
    body = b"x" * 20000
    answered.connection.send_body(1, body)
    pieces = answered.connection.data_to_send_vectored()
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert views
    assert all(view.obj is body for view in views)
    assert all(view.readonly for view in views)
    frames = parse(b"".join(pieces))
    assert b"".join(f.payload for f in frames) == body


def test_vectored_and_joined_output_are_the_same_bytes():
    outputs = []
    for vectored in (False, True):
        peer = RawPeer()
        connection = peer.connection
        peer.send(peer.headers(1, end_stream=True), peer.headers(3, end_stream=True))
        for stream_id in (1, 3):
            connection.send_response_headers(stream_id, 200, [("a", "b")])
        connection.send_body(1, b"a" * 30000)
        connection.send_body(3, [b"b" * 5000, b"c" * 10, b"d" * 4096])
        connection.ping()
        if vectored:
            outputs.append(b"".join(connection.data_to_send_vectored()))
        else:
            outputs.append(connection.data_to_send())
    assert outputs[0] == outputs[1]


def test_sent_bytes_are_let_go(answered):
    chunk = bytes(8000)
    before = sys.getrefcount(chunk)
    answered.connection.send_body(1, chunk, end_stream=False)
    assert sys.getrefcount(chunk) == before + 1
    answered.read()
    assert sys.getrefcount(chunk) == before


def test_bytes_that_could_not_be_sent_are_let_go(answered):
    chunk = bytes(80000)
    before = sys.getrefcount(chunk)
    answered.connection.send_body(1, chunk)
    answered.read()
    assert sys.getrefcount(chunk) == before + 1
    answered.send(rst_stream(1))
    assert sys.getrefcount(chunk) == before


def test_a_view_outlives_the_connection(answered):
    answered.connection.send_body(1, b"y" * 10000)
    pieces = answered.connection.data_to_send_vectored()
    answered.connection = None
    gc.collect()
    assert b"y" * 10000 in b"".join(pieces)


def test_a_limit_stops_between_frames():
    peer = RawPeer(peer_settings={4: 2**20})
    peer.send(peer.headers(1, end_stream=True), window_update(0, 2**20))
    connection = peer.connection
    connection.send_response_headers(1, 200, [])
    connection.send_body(1, b"x" * 100000)
    first = connection.data_to_send(20000)
    assert 20000 <= len(first) <= 20000 + 16384 + 9
    parse(first)
    rest = []
    while piece := connection.data_to_send(20000):
        rest.append(piece)
    body = b"".join(f.payload for f in parse(first + b"".join(rest)) if f.type == DATA)
    assert body == b"x" * 100000
    assert len(rest) >= 3


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_a_small_limit_still_gets_everything_out(limit):
    peers = Peers()
    stream_id = peers.request()
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, from_iterator(BODY[:5000]))
    events, _ = exchange(peers.client, peers.server, limit=limit)
    assert body_of(events, stream_id) == BODY[:5000]


def test_a_limit_is_not_negative():
    with pytest.raises((ValueError, OverflowError)):
        Peers().client.data_to_send(-1)


def test_frames_are_no_larger_than_the_peer_takes():
    peer = RawPeer(peer_settings={4: 2**20, 5: 20000})
    peer.send(peer.headers(1, end_stream=True), window_update(0, 2**20))
    assert peer.connection.max_outbound_frame_size == 20000
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 100000)
    sizes = [len(f.payload) for f in peer.read() if f.type == DATA]
    assert max(sizes) == 20000
    assert sum(sizes) == 100000


def test_frames_are_no_larger_than_configured():
    config = H2Configuration(max_data_frame=1000)
    peer = RawPeer(config=config)
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 5500)
    sizes = [len(f.payload) for f in peer.read() if f.type == DATA]
    assert sizes == [1000] * 5 + [500]


def test_padding_hides_the_length():
    """RFC 9113, 6.1, 10.7."""
    peer = RawPeer(config=H2Configuration(pad_multiple=64))
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"hello")
    head, body = peer.read()
    assert head.type == HEADERS
    assert len(head.payload) == len(body.payload) == 64
    assert head.flags & PADDED and body.flags & PADDED
    pad = body.payload[0]
    assert body.payload[1 : 64 - pad] == b"hello"
    assert body.payload[64 - pad :] == b"\0" * pad


def test_padded_messages_arrive():
    config = H2Configuration(pad_multiple=100)
    peers = Peers(client=config, server=config)
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, from_iterator(BODY))
    peers.server.send_response_headers(stream_id, 200, [])
    peers.server.send_body(stream_id, BODY, trailers=[("a", "b")])
    peers.pump()
    assert body_of(peers.client_events, stream_id) == BODY
    assert body_of(peers.server_events, stream_id) == BODY
    assert peers.server.remote_flow_control_window() > 65535 // 2


def test_an_empty_body_may_be_sent_in_pieces(answered):
    answered.connection.send_body(1, b"", end_stream=False)
    assert answered.read() == []
    assert answered.connection.send_data(1, b"") == 0
    assert answered.connection.send_data(1, b"", end_stream=True) == 0
    assert answered.read() == [(DATA, END_STREAM, 1, b"")]


def test_a_body_of_another_thread_is_independent():
    """Different connections in different threads know nothing of each other."""
    from concurrent.futures import ThreadPoolExecutor

    def run(seed):
        body = bytes([seed]) * 200000
        for _ in range(10):
            peers = Peers()
            stream_id = peers.request("POST", end_stream=False)
            peers.client.send_body(stream_id, from_iterator(body))
            peers.server.send_response_headers(stream_id, 200, [("x", str(seed))])
            peers.server.send_body(stream_id, body)
            peers.pump()
            assert body_of(peers.client_events, stream_id) == body
            assert body_of(peers.server_events, stream_id) == body
        return seed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == list(range(4))


def test_a_reset_by_the_peer_ends_the_body(answered):
    answered.connection.send_body(1, b"x" * 70000, end_stream=False)
    answered.send(rst_stream(1))
    assert answered.connection.queued_body() == 0
    with pytest.raises(StreamClosedError):
        answered.connection.send_body(1, b"x")
