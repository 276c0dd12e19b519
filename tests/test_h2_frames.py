"""Frames that break the rules of RFC 9113, 4 to 6: which error, and on what level."""

import struct

import pytest
from helpers import (
    CHUNKS,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawPeer,
    body_of,
    data,
    end_of_body,
    ends_of,
    frame,
    ping,
    rst_stream,
    window_update,
)

from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import (
    H2Configuration,
    H2ConnectionClosed,
    H2PingReceived,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
)

PROTOCOL, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR
CLOSED, COMPRESSION = ErrorCode.STREAM_CLOSED, ErrorCode.COMPRESSION_ERROR

# The block of GET in literals without indexing, so that it needs no encoder.
BLOCK = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in GET)
HALF = len(BLOCK) // 2
OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)
ENDED = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)


def assert_connection_error(peer, code):
    """The connection has ended with GOAWAY, and says so last."""
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code == code
    assert peer.events[-1] == H2ConnectionClosed(code, False)
    assert peer.events[-1].reason
    assert not peer.connection.want_read
    assert peer.connection.active_stream_count == 0
    assert peer.feed(ping()) == []
    assert peer.read() == []


def assert_stream_error(peer, stream_id, code):
    """The stream was reset, and the connection goes on."""
    assert [(f.stream_id, f.error_code) for f in peer.sent(RST_STREAM)] == [
        (stream_id, code)
    ]
    assert H2StreamReset(stream_id, code, False) in peer.events
    assert peer.events[-1] == H2StreamClosed(stream_id, code)
    assert not peer.sent(GOAWAY)
    assert [f.type for f in peer.send(ping())] == [PING]


CONNECTION_ERRORS = {
    # 4.1, 4.2: the frame's size
    "DATA larger than announced": (OPEN + frame(DATA, 0, 1, b"x" * 16385), SIZE),
    "HEADERS larger than announced": (frame(HEADERS, 4, 1, b"\x82" * 16385), SIZE),
    "unknown frame larger than announced": (frame(0xFA, 0, 0, b"x" * 16385), SIZE),
    # 4.3: header blocks
    "block that does not decode": (frame(HEADERS, 4, 1, b"\xff\xff\xff"), COMPRESSION),
    "block that breaks off": (frame(HEADERS, 4, 1, b"\x40\x05ab"), COMPRESSION),
    "table entry that is not there": (frame(HEADERS, 4, 1, b"\xbe"), COMPRESSION),
    "index 0": (frame(HEADERS, 4, 1, b"\x80"), COMPRESSION),
    "table size over the limit": (frame(HEADERS, 4, 1, b"\x3f\xe2\x1f"), COMPRESSION),
    "table size within the block": (
        frame(HEADERS, 4, 1, b"\x82\x20\x86\x84"),
        COMPRESSION,
    ),
    "Huffman code with the end symbol": (
        frame(HEADERS, 4, 1, b"\x00\x01a\x84\xff\xff\xff\xff"),
        COMPRESSION,
    ),
    "Huffman padding of zeros": (
        frame(HEADERS, 4, 1, b"\x00\x01a\x81\x00"),
        COMPRESSION,
    ),
    "Huffman padding too long": (
        frame(HEADERS, 4, 1, b"\x00\x01a\x82\x1f\xff"),
        COMPRESSION,
    ),
    "integer that overflows": (
        frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\x0f"),
        COMPRESSION,
    ),
    "another frame within a block": (
        frame(HEADERS, 0, 1, BLOCK[:HALF]) + ping(),
        PROTOCOL,
    ),
    "unknown frame within a block": (
        frame(HEADERS, 0, 1, BLOCK[:HALF]) + frame(0xFA, 0, 0),
        PROTOCOL,
    ),
    "another stream's CONTINUATION": (
        frame(HEADERS, 0, 1, BLOCK[:HALF]) + frame(CONTINUATION, 4, 3, BLOCK[HALF:]),
        PROTOCOL,
    ),
    "HEADERS within a block": (
        frame(HEADERS, 0, 1, BLOCK[:HALF]) + frame(HEADERS, 4, 3, BLOCK),
        PROTOCOL,
    ),
    # 5.1: the stream's state
    "DATA on an idle stream": (data(1, b"x"), PROTOCOL),
    "RST_STREAM on an idle stream": (rst_stream(1), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (window_update(1, 1), PROTOCOL),
    "CONTINUATION on an idle stream": (frame(CONTINUATION, 4, 1, BLOCK), PROTOCOL),
    # 5.1.1: identifiers
    "even stream": (frame(HEADERS, 4, 2, BLOCK), PROTOCOL),
    "stream 0": (frame(HEADERS, 4, 0, BLOCK), PROTOCOL),
    "lower than before": (
        frame(HEADERS, 5, 5, BLOCK) + frame(HEADERS, 5, 3, BLOCK),
        PROTOCOL,
    ),
    # 6.1 DATA
    "DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "DATA padded past its end": (
        OPEN + frame(DATA, PADDED, 1, b"\x05abc"),
        PROTOCOL,
    ),
    "DATA without its pad length": (OPEN + frame(DATA, PADDED, 1, b""), None),
    # 6.2 HEADERS
    "HEADERS padded past its end": (
        frame(HEADERS, PADDED | 4, 1, b"\xff" + BLOCK),
        PROTOCOL,
    ),
    "HEADERS without its pad length": (frame(HEADERS, PADDED | 4, 1, b""), None),
    "HEADERS without its priority": (
        frame(HEADERS, PRIORITY_FLAG | 4, 1, b"\0\0\0"),
        SIZE,
    ),
    # 6.3 PRIORITY
    "PRIORITY on stream 0": (frame(PRIORITY, 0, 0, b"\0" * 5), PROTOCOL),
    # 6.4 RST_STREAM
    "RST_STREAM on stream 0": (rst_stream(0), PROTOCOL),
    "RST_STREAM of 3 bytes": (OPEN + frame(RST_STREAM, 0, 1, b"\0" * 3), SIZE),
    "RST_STREAM of 5 bytes": (OPEN + frame(RST_STREAM, 0, 1, b"\0" * 5), SIZE),
    # 6.9 WINDOW_UPDATE
    "WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, 0, 0, b"\0" * 3), SIZE),
    "WINDOW_UPDATE of 5 bytes": (frame(WINDOW_UPDATE, 0, 0, b"\0" * 5), SIZE),
    # 6.10 CONTINUATION
    "CONTINUATION on stream 0": (frame(CONTINUATION, 4, 0, b""), PROTOCOL),
    "CONTINUATION after DATA": (
        OPEN + data(1, b"x") + frame(CONTINUATION, 4, 1, b""),
        PROTOCOL,
    ),
    "CONTINUATION after END_HEADERS": (
        OPEN + frame(CONTINUATION, 4, 1, BLOCK),
        PROTOCOL,
    ),
}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_a_violation_ends_the_connection(name, chunk):
    wire, code = CONNECTION_ERRORS[name]
    peer = RawPeer(chunk=chunk)
    peer.send(wire)
    if code is None:
        # The RFC leaves the code to us.
        (sent,) = peer.sent(GOAWAY)
        code = sent.error_code
        assert code in (PROTOCOL, SIZE, CLOSED)
    assert_connection_error(peer, code)


STREAM_ERRORS = {
    # 5.1: half-closed (remote)
    "HEADERS after the end": (ENDED + frame(HEADERS, 5, 1, BLOCK), CLOSED),
    # 5.3.2, 6.3
    "PRIORITY of 4 bytes": (OPEN + frame(PRIORITY, 0, 1, b"\0" * 4), SIZE),
}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_a_violation_on_a_stream_is_at_least_a_stream_error(name, chunk):
    """RFC 9113, 5.4.2: an endpoint may treat it as a connection error, too."""
    wire, code = STREAM_ERRORS[name]
    peer = RawPeer(chunk=chunk)
    peer.send(wire)
    if peer.sent(GOAWAY):
        assert_connection_error(peer, code)
    else:
        assert_stream_error(peer, 1, code)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_data_after_the_end_are_an_error(chunk):
    """RFC 9113, 5.1: STREAM_CLOSED, and no byte reaches the application."""
    peer = RawPeer(chunk=chunk)
    peer.send(ENDED + data(1, b"late"))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [CLOSED]
    assert body_of(peer.events, 1) == b""
    assert ends_of(peer.events, 1) == 1


LATE = {"DATA": data(1, b"late"), "HEADERS": OPEN}


def close(peer, how):
    """Have stream 1 closed, one way or another."""
    if how == "the peer's reset":
        peer.send(OPEN, rst_stream(1))
    else:
        peer.send(ENDED if how == "both ends" else OPEN)
        peer.connection.send_response_headers(1, 204, [], end_stream=True)
        if how == "our reset":
            peer.connection.reset_stream(1, ErrorCode.CANCEL)
    peer.read()
    assert peer.connection.active_stream_count == 0
    peer.events.clear()
    peer.frames.clear()


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("how", ["both ends", "the peer's reset"])
def test_frames_on_a_stream_that_the_peer_has_closed_end_the_connection(
    how, late, chunk
):
    """RFC 9113, 5.1: closed."""
    peer = RawPeer(chunk=chunk)
    close(peer, how)
    peer.send(ping(), LATE[late])
    assert_connection_error(peer, CLOSED)
    assert isinstance(peer.events[0], H2PingReceived)
    assert len(peer.events) == 2


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("late", LATE)
def test_frames_on_a_stream_that_we_have_reset_are_ignored(late, chunk):
    """RFC 9113, 5.1: the peer may not have known."""
    peer = RawPeer(chunk=chunk)
    close(peer, "our reset")
    peer.send(LATE[late])
    assert peer.frames == []
    assert peer.events == []


def test_closed_streams_are_told_apart_within_one_read():
    peer = RawPeer()
    peer.feed(OPEN + rst_stream(1) + LATE["DATA"] + ping())
    peer.read()
    assert_connection_error(peer, CLOSED)
    assert H2StreamClosed(1, ErrorCode.CANCEL) in peer.events
    assert not peer.of(H2PingReceived)


def test_streams_closed_long_ago_are_forgotten():
    """What is remembered is bounded; what is not remembered is ignored."""
    peer = RawPeer()
    for stream_id in range(1, 601, 2):
        peer.send(peer.headers(stream_id, end_stream=True))
        peer.connection.send_response_headers(stream_id, 204, [], end_stream=True)
        peer.read()
    peer.frames.clear()
    assert peer.send(data(1, b"late"), frame(HEADERS, 5, 3, BLOCK)) == []
    (answer,) = peer.send(data(599, b"late"))
    assert answer.error_code == CLOSED


@pytest.mark.parametrize("late", LATE)
def test_a_client_minds_closed_streams_too(late):
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(frame(HEADERS, 5, 1, b"\x88"))
    peer.send(data(1, b"x") if late == "DATA" else frame(HEADERS, 5, 1, b"\x88"))
    assert_connection_error(peer, CLOSED)


@pytest.mark.parametrize(
    "wire",
    [window_update(1, 1), rst_stream(1), frame(PRIORITY, 0, 1, b"\0\0\0\3\0")],
    ids=["WINDOW_UPDATE", "RST_STREAM", "PRIORITY"],
)
def test_frames_that_may_still_come_on_a_closed_stream_do_no_harm(wire):
    """RFC 9113, 5.1: closed."""
    peer = RawPeer()
    peer.send(ENDED)
    peer.connection.send_response_headers(1, 204, [], end_stream=True)
    peer.read()
    peer.frames.clear()
    peer.events.clear()
    peer.send(wire)
    assert peer.frames == []
    assert not any(isinstance(e, H2ConnectionClosed) for e in peer.events)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_block_may_come_in_pieces(chunk):
    """RFC 9113, 6.10."""
    peer = RawPeer(chunk=chunk)
    third = len(BLOCK) // 3
    peer.send(
        frame(HEADERS, END_STREAM, 1, BLOCK[:third]),
        frame(CONTINUATION, 0, 1, b""),
        frame(CONTINUATION, 0, 1, BLOCK[third : 2 * third]),
        frame(CONTINUATION, END_HEADERS, 1, BLOCK[2 * third :]),
    )
    assert peer.events[0].request.fields == GET
    assert peer.events[1] == end_of_body(1)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_padding_and_priority_are_taken_off(chunk):
    """RFC 9113, 6.1, 6.2."""
    peer = RawPeer(chunk=chunk)
    head = b"\x03" + b"\x80\0\0\7\xff" + BLOCK + b"\0" * 3
    peer.send(
        frame(HEADERS, PADDED | PRIORITY_FLAG | END_HEADERS, 1, head),
        frame(DATA, PADDED, 1, b"\x04abcd" + b"\0" * 4),
        frame(DATA, PADDED, 1, b"\x00"),
        frame(DATA, PADDED | END_STREAM, 1, b"\x02\0\0"),
    )
    assert peer.events[0].request.fields == GET
    assert body_of(peer.events, 1) == b"abcd"
    assert ends_of(peer.events, 1) == 1
    assert not peer.sent(GOAWAY)


def test_flags_that_a_frame_does_not_have_are_ignored():
    """RFC 9113, 4.1."""
    peer = RawPeer()
    peer.send(
        frame(HEADERS, END_HEADERS | 0x42, 1, BLOCK),
        frame(DATA, 0xF6, 1, b"abc"),
        frame(PING, 0xFE, 0, b"12345678"),
        frame(SETTINGS, 0xFE, 0),
        frame(WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"),
    )
    assert not peer.sent(GOAWAY)
    assert body_of(peer.events, 1) == b"abc"


def test_the_reserved_bit_is_ignored():
    """RFC 9113, 4.1, 6.9."""
    peer = RawPeer()
    peer.send(
        frame(HEADERS, END_HEADERS, 0x80000001, BLOCK),
        frame(WINDOW_UPDATE, 0, 0x80000001, b"\x80\0\0\1"),
    )
    assert not peer.sent(GOAWAY)
    assert isinstance(peer.events[0], H2RequestReceived)


def test_a_stream_that_depends_on_itself_is_no_longer_an_error():
    """RFC 9113, 5.3.2 deprecates what RFC 7540, 5.3.1 forbade; either is allowed."""
    peer = RawPeer()
    peer.send(frame(HEADERS, PRIORITY_FLAG | 5, 1, b"\0\0\0\1\xff" + BLOCK))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes in ([], [PROTOCOL])


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_frame_of_the_announced_size_is_taken(chunk):
    peer = RawPeer(config=H2Configuration(max_frame_size=20000), chunk=chunk)
    peer.send(OPEN, data(1, b"x" * 20000))
    assert body_of(peer.events, 1) == b"x" * 20000


@pytest.mark.parametrize("chunk", CHUNKS)
def test_empty_data_frames_say_nothing(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(OPEN, data(1), data(1), data(1, b"x"), data(1), data(1, end_stream=True))
    assert body_of(peer.events, 1) == b"x"
    assert ends_of(peer.events, 1) == 1


def test_streams_may_skip_identifiers():
    """RFC 9113, 5.1.1: the skipped ones are closed."""
    peer = RawPeer()
    peer.send(frame(HEADERS, 5, 7, BLOCK))
    assert peer.connection.stream_ended(3)
    peer.send(frame(HEADERS, 5, 2**31 - 1, BLOCK))
    assert len(peer.of(H2RequestReceived)) == 2


@pytest.mark.parametrize(
    "wire",
    [
        frame(PUSH_PROMISE, 4, 0, struct.pack(">I", 2) + BLOCK),
        frame(PUSH_PROMISE, 4, 1, b"\0\0"),
        frame(HEADERS, 4, 2, b"\x88"),
        frame(HEADERS, 4, 3, b"\x88"),
        data(3, b"x"),
        data(2, b"x"),
    ],
    ids=[
        "PUSH_PROMISE on 0",
        "short PUSH_PROMISE",
        "response on an idle even stream",
        "response on an idle odd stream",
        "DATA on an idle odd stream",
        "DATA on an idle even stream",
    ],
)
def test_a_server_that_breaks_the_rules_is_left(wire):
    config = H2Configuration(enable_push=True)
    peer = RawPeer(client_side=True, config=config)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(wire)
    (sent,) = peer.sent(GOAWAY)
    assert sent.error_code in (PROTOCOL, SIZE)
    assert isinstance(peer.events[-1], H2ConnectionClosed)
    assert peer.connection.active_stream_count == 0


def test_data_before_the_response_are_an_error():
    """RFC 9113, 8.1."""
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(data(1, b"x"))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [PROTOCOL]
    assert body_of(peer.events, 1) == b""


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_response_on_a_reserved_stream_has_no_window_yet(chunk):
    peer = RawPeer(client_side=True, chunk=chunk)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.send(peer.headers(1, OK), data(1, b"abc", end_stream=True))
    assert body_of(peer.events, 1) == b"abc"
