"""How a stream ended: an end by RST_STREAM never looks like one by END_STREAM."""

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
    POST,
    RST_STREAM,
    Peers,
    RawPeer,
    data,
    frame,
    parse,
    rst_stream,
)

from nghttp2py.errors import ErrorCode, StreamClosedError
from nghttp2py.h2 import (
    H2BodyReceived,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
)

CONNECT = ((b":method", b"CONNECT"), (b":authority", b"example.org:443"))
WEBSOCKET = (
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *GET[1:],
)


def closed(peer, stream_id=1):
    """The end of a stream, as the connection has told it: (error code, complete)."""
    (event,) = [e for e in peer.of(H2StreamClosed) if e.stream_id == stream_id]
    return event.error_code, event.complete


def client(chunk=None, fields=GET, end_stream=True):
    """A connection of a client's that has sent one request, and its server."""
    peer = RawPeer(client_side=True, chunk=chunk, peer_settings={8: 1})
    peer.connection.send_headers(None, fields, end_stream=end_stream)
    peer.read()
    return peer


# ---- NO_ERROR in the middle of a message ----


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_error_in_the_middle_of_a_response_is_no_good_end(chunk):
    peer = client(chunk)
    peer.send(peer.headers(1, OK) + data(1, b"half") + rst_stream(1, 0))
    assert H2StreamReset(1, ErrorCode.NO_ERROR) in peer.events
    assert closed(peer) == (ErrorCode.CANCEL, False)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_error_before_a_response_is_no_good_end(chunk):
    peer = client(chunk)
    peer.send(rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.CANCEL, False)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_error_in_the_middle_of_a_request_is_no_good_end(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1, POST) + data(1, b"half") + rst_stream(1, 0))
    assert H2StreamReset(1, ErrorCode.NO_ERROR) in peer.events
    assert closed(peer) == (ErrorCode.CANCEL, False)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_error_of_a_client_in_the_middle_of_a_response_is_no_good_end(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_data(1, b"half")
    peer.read()
    peer.send(rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.CANCEL, False)


def test_no_error_of_a_client_that_ends_its_request_is_no_good_end():
    """The response was complete, but the server has not asked the client to stop."""
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 200, [], end_stream=True)
    peer.read()
    peer.send(rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.CANCEL, False)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_error_after_a_whole_response_is_a_good_end_for_a_client(chunk):
    """RFC 9113, 8.1: the client must not discard the response."""
    peer = client(chunk, POST, end_stream=False)
    peer.send(peer.headers(1, OK) + data(1, b"x", end_stream=True) + rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.NO_ERROR, True)


def test_another_code_after_a_whole_response_is_told_as_it_is():
    peer = client(None, POST, end_stream=False)
    peer.send(peer.headers(1, OK, end_stream=True) + rst_stream(1, 8))
    assert closed(peer) == (ErrorCode.CANCEL, False)


def test_no_error_of_a_client_that_was_asked_to_stop_is_a_good_end():
    """It may have had the response before our own RST_STREAM."""
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.connection.reset_stream(1, ErrorCode.NO_ERROR, after_flush=True)
    peer.read()
    peer.send(rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.NO_ERROR, True)
    assert not peer.sent(RST_STREAM)


def test_what_the_caller_resets_with_no_error_is_not_complete():
    peer = RawPeer()
    peer.send(peer.headers(1, end_stream=True))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_data(1, b"half")
    peer.connection.reset_stream(1)
    peer.read()
    assert closed(peer) == (ErrorCode.NO_ERROR, False)


# ---- Refusals in the last frame ----


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([(b":status", b"000")], ErrorCode.PROTOCOL_ERROR),
        (
            [(b":status", b"200"), *[(b"x", b"y" * 40000)] * 2],
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
        ([(b":status", b"200"), (b"X", b"y")], ErrorCode.PROTOCOL_ERROR),
        ([(b":status", b"200"), (b"content-length", b"3")], ErrorCode.PROTOCOL_ERROR),
        ([], ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_a_response_refused_in_its_last_frame_is_no_good_end(fields, code, chunk):
    peer = client(chunk)
    block = peer.block(fields)
    pieces = [block[i : i + 16384] for i in range(0, len(block), 16384)] or [b""]
    wire = b""
    for i, piece in enumerate(pieces):
        flags = END_STREAM if i == 0 else 0
        if i == len(pieces) - 1:
            flags |= END_HEADERS
        wire += frame(CONTINUATION if i else HEADERS, flags, 1, piece)
    peer.send(wire)
    assert H2StreamReset(1, code, False) in peer.events
    assert closed(peer) == (code, False)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_trailers_refused_are_no_good_end(chunk):
    peer = client(chunk)
    trailers = [(b"x", b"y")] * 300
    peer.send(
        peer.headers(1, OK), data(1, b"x"), peer.headers(1, trailers, end_stream=True)
    )
    assert closed(peer) == (ErrorCode.ENHANCE_YOUR_CALM, False)


def test_a_reset_of_the_callers_that_comes_too_late_keeps_its_code():
    """The caller was told nothing more of the stream, so not that it ended well."""
    peer = client()
    peer.send(peer.headers(1, OK))
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    peer.send(data(1, b"x", end_stream=True))
    assert closed(peer) == (ErrorCode.CANCEL, False)


# ---- A reset after a response ----


@pytest.mark.parametrize("code", [ErrorCode.NO_ERROR, ErrorCode.ENHANCE_YOUR_CALM])
@pytest.mark.parametrize("body", [b"", b"too large"])
def test_a_whole_response_goes_out_before_a_reset(body, code):
    """As with hyper-h2: pounce answers 413 and 408 so."""
    peer = RawPeer()
    peer.send(peer.headers(1, POST) + data(1, b"much"))
    peer.connection.send_response_headers(1, 413, [], end_stream=not body)
    if body:
        assert peer.connection.send_data(1, body, end_stream=True) == len(body)
    peer.connection.reset_stream(1, code)
    # Nothing more is told, and nothing more can be said.
    assert peer.feed(data(1, b"late")) == []
    with pytest.raises(StreamClosedError):
        peer.connection.send_data(1, b"x")
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    frames = peer.read()
    assert [f.type for f in frames] == [HEADERS, *([DATA] if body else []), RST_STREAM]
    assert frames[-1].error_code == code
    assert closed(peer) == (code, code == ErrorCode.NO_ERROR)


def test_a_reset_is_left_out_if_the_request_ends_before_the_response_is_out():
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.connection.reset_stream(1, ErrorCode.ENHANCE_YOUR_CALM)
    peer.feed(data(1, b"", end_stream=True))
    assert [f.type for f in peer.read()] == [HEADERS]
    assert closed(peer) == (ErrorCode.ENHANCE_YOUR_CALM, False)
    peer.send(peer.headers(3, end_stream=True))
    assert len(peer.of(H2RequestReceived)) == 2
    assert not peer.sent(GOAWAY)


def test_a_response_that_a_window_keeps_back_does_not_keep_back_a_reset():
    peer = RawPeer(peer_settings={4: 10})
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_body(1, b"x" * 100)
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    assert [f.type for f in peer.read()] == [RST_STREAM]


def test_a_reset_after_a_response_has_an_output_of_its_own():
    peer = RawPeer()
    peer.send(peer.headers(1, POST) + peer.headers(3, POST))
    for stream_id in (1, 3):
        peer.connection.send_response_headers(stream_id, 413, [], end_stream=True)
        peer.connection.reset_stream(stream_id, after_flush=True)
    assert [f.type for f in peer.read()] == [HEADERS, HEADERS]
    assert peer.connection.held_resets == 2
    assert peer.connection.want_write
    assert [f.type for f in peer.read()] == [RST_STREAM, RST_STREAM]
    assert not peer.connection.held_resets
    assert not peer.connection.want_write
    assert closed(peer) == closed(peer, 3) == (ErrorCode.NO_ERROR, True)


def test_a_reset_asked_for_after_the_response_is_out_comes_next():
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.read()
    peer.connection.reset_stream(1, after_flush=True)
    assert [f.type for f in peer.read()] == [RST_STREAM]


def test_a_response_that_reading_has_gathered_goes_out_before_its_reset():
    """What the peer does wrong on another stream makes output at once."""
    peer = RawPeer()
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.connection.reset_stream(1, after_flush=True)
    peer.feed(peer.headers(3, [(b"X", b"y")]))
    assert [(f.type, f.stream_id) for f in peer.read() if f.stream_id == 1] == [
        (HEADERS, 1)
    ]
    assert [(f.type, f.stream_id) for f in peer.read()] == [(RST_STREAM, 1)]


def test_resets_are_held_until_they_have_waited_for_a_whole_interval():
    peer = RawPeer()
    connection = peer.connection
    connection.hold_resets = True
    assert connection.hold_resets
    peer.send(peer.headers(1, POST))
    connection.send_response_headers(1, 413, [], end_stream=True)
    connection.reset_stream(1, ErrorCode.CANCEL)
    assert [f.type for f in peer.read()] == [HEADERS]
    assert peer.read() == []
    assert connection.want_write
    connection.release_resets()
    assert peer.read() == []
    connection.release_resets()
    assert [f.type for f in peer.read()] == [RST_STREAM]
    connection.release_resets()
    assert peer.read() == []


def test_a_declined_request_that_ends_too_short_is_no_other_end():
    """As curl 7.88 ends its upload when it has read an error."""
    peer = RawPeer()
    peer.connection.hold_resets = True
    peer.send(peer.headers(1, [*POST, (b"content-length", b"3")]))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.connection.reset_stream(1, after_flush=True)
    peer.read()
    peer.feed(data(1, b"", end_stream=True))
    peer.read()
    assert closed(peer) == (0, True)
    assert not [e for e in peer.events if isinstance(e, H2StreamReset)]


@pytest.mark.parametrize("end", ["request", "reset", "connection"])
def test_a_held_reset_is_left_out_if_the_stream_has_ended(end):
    peer = RawPeer()
    peer.connection.hold_resets = True
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [], end_stream=True)
    peer.connection.reset_stream(1, after_flush=True)
    peer.read()
    if end == "request":
        peer.feed(data(1, b"", end_stream=True))
    elif end == "reset":
        peer.feed(rst_stream(1, 8))
    else:
        peer.events += peer.connection.receive_eof()
    assert not peer.connection.held_resets
    peer.connection.release_resets()
    peer.connection.release_resets()
    assert not [f for f in peer.read() if f.type == RST_STREAM]
    # What it would have declined does not come: that is all.
    assert closed(peer) == (0, True)


@pytest.mark.parametrize("end", ["reset", "connection"])
@pytest.mark.parametrize("how", ["failed", "kept back", "not declined"])
def test_a_cut_request_is_no_good_end_without_a_whole_declining_response(how, end):
    peer = RawPeer(peer_settings={4: 4})
    peer.connection.hold_resets = True
    peer.send(peer.headers(1, POST))
    peer.connection.send_response_headers(1, 413, [])
    peer.connection.send_data(1, b"full" + b"!" * (how == "kept back"), True)
    if how != "not declined":
        code = 2 if how == "failed" else 0
        peer.connection.reset_stream(1, code, after_flush=True)
    peer.read()
    if end == "reset":
        peer.feed(rst_stream(1, 8))
    else:
        peer.events += peer.connection.receive_eof()
    code, complete = closed(peer)
    assert (code != 0, complete) == (True, False)


# ---- Tunnels: each half ends by itself (RFC 9113, 8.5) ----


@pytest.mark.parametrize("fields", [CONNECT, WEBSOCKET])
def test_a_clients_connect_stays_open_by_default(fields):
    peers = Peers()
    if fields is CONNECT:
        stream_id = peers.client.send_request("CONNECT", "example.org:443")
    else:
        stream_id = peers.client.send_request(
            b"CONNECT", "/chat", authority="example.org", protocol="websocket"
        )
    peers.pump()
    assert not peers.server.stream_ended(stream_id)
    peers.client.send_data(stream_id, b"through")
    peers.pump()
    assert not peers.server.stream_ended(stream_id)


def test_a_clients_connect_ends_if_that_is_wanted():
    peers = Peers()
    stream_id = peers.client.send_request("CONNECT", "example.org:443", end_stream=True)
    peers.pump()
    assert peers.server.stream_ended(stream_id)


@pytest.mark.parametrize("status", [200, 204, 205, 299])
@pytest.mark.parametrize("fields", [CONNECT, WEBSOCKET])
def test_a_tunnel_carries_data_whatever_the_status(fields, status):
    peer = RawPeer()
    peer.send(peer.headers(1, fields))
    peer.connection.send_response_headers(1, status, [])
    peer.connection.send_data(1, b"through", end_stream=True)
    assert [f.type for f in peer.read()] == [HEADERS, DATA]
    assert peer.feed(data(1, b"back")) != []
    peer.send(data(1, b"", end_stream=True))
    assert closed(peer) == (ErrorCode.NO_ERROR, True)


@pytest.mark.parametrize("fields", [CONNECT, WEBSOCKET])
def test_no_error_in_a_tunnel_is_no_good_end(fields):
    peer = RawPeer()
    peer.send(peer.headers(1, fields))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_data(1, b"all", end_stream=True)
    peer.read()
    peer.send(rst_stream(1, 0))
    assert closed(peer) == (ErrorCode.CANCEL, False)
    other = client(None, fields, end_stream=False)
    other.send(other.headers(1, OK) + data(1, b"all", end_stream=True))
    assert other.of(H2BodyReceived)
    other.send(rst_stream(1, 0))
    assert closed(other) == (ErrorCode.CANCEL, False)


@pytest.mark.parametrize("fields", [CONNECT, WEBSOCKET])
def test_a_tunnel_is_not_reset_by_no_error(fields):
    peer = RawPeer()
    peer.send(peer.headers(1, fields))
    peer.connection.send_response_headers(1, 200, [])
    peer.connection.send_data(1, b"all", end_stream=True)
    peer.connection.reset_stream(1, after_flush=True)
    peer.read()
    assert [f.error_code for f in peer.read()] == [ErrorCode.CANCEL]
    refused = RawPeer()
    refused.send(refused.headers(1, fields))
    refused.connection.send_response_headers(1, 403, [], end_stream=True)
    refused.connection.reset_stream(1, after_flush=True)
    refused.read()
    assert [f.error_code for f in refused.read()] == [ErrorCode.NO_ERROR]


# ---- hyper-h2's positions ----


def test_end_stream_may_be_given_by_position():
    peers = Peers()
    stream_id = peers.client.send_headers(None, POST, False)
    assert peers.client.send_data(stream_id, b"x", True) == 1
    peers.pump()
    assert peers.server.stream_ended(stream_id)
    peers.server.send_response_headers(stream_id, 200, [], True)
    assert [f.flags & 1 for f in parse(peers.server.data_to_send())] == [1]
