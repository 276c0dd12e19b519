"""The switches for what others do not do quite right: by default both are off."""

import pytest
from helpers import CHUNKS, GET, OK, Peers, RawPeer
from hpack import NeverIndexedHeaderTuple

from nghttp2py.errors import ErrorCode, HeadersError
from nghttp2py.h2 import (
    H2Configuration,
    H2ConnectionClosed,
    H2InformationalResponseReceived,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamReset,
    H2TrailersReceived,
)
from nghttp2py.hpack import NeverIndexed

LENIENT = H2Configuration(lenient_inbound_headers=True)
SPACED = (
    (b"server", b" one\t"),
    (b"empty", b" \t "),
    (b"empty", b""),
    (b"words", b"\ttwo words "),
)
STRIPPED = (
    (b"server", b"one"),
    (b"empty", b""),
    (b"empty", b""),
    (b"words", b"two words"),
)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_white_space_around_a_value_is_refused_by_default(chunk):
    peer = RawPeer(client_side=True, chunk=chunk)
    peer.connection.send_request("GET", "/", authority="a")
    peer.read()
    peer.send(peer.headers(1, OK + SPACED))
    assert H2StreamReset(1, ErrorCode.PROTOCOL_ERROR, False) in peer.events
    server = RawPeer(chunk=chunk)
    server.send(server.headers(1, GET + SPACED))
    assert H2StreamReset(1, ErrorCode.PROTOCOL_ERROR, False) in server.events


@pytest.mark.parametrize("chunk", CHUNKS)
def test_white_space_around_values_of_a_response_is_stripped(chunk):
    peer = RawPeer(client_side=True, chunk=chunk, config=LENIENT)
    peer.connection.send_request("GET", "/", authority="a")
    peer.read()
    for _ in range(3):  # from the HPACK table too
        peer.send(peer.headers(1, ((b":status", b"103"), *SPACED)))
    peer.send(peer.headers(1, OK + SPACED))
    peer.send(peer.headers(1, SPACED, end_stream=True))
    assert [e.headers for e in peer.of(H2InformationalResponseReceived)] == [
        STRIPPED
    ] * 3
    assert peer.of(H2ResponseReceived) == [H2ResponseReceived(1, 200, STRIPPED)]
    assert peer.of(H2TrailersReceived) == [H2TrailersReceived(1, STRIPPED)]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_white_space_around_values_of_a_request_is_stripped(chunk):
    peer = RawPeer(chunk=chunk, config=LENIENT)
    cookies = (b"cookie", b" a=1"), (b"cookie", b"b=2 ")
    peer.send(peer.headers(1, (*GET, *SPACED, *cookies), end_stream=True))
    (event,) = peer.of(H2RequestReceived)
    assert event.request.fields == (*GET, *STRIPPED, (b"cookie", b"a=1; b=2"))


def test_white_space_around_a_value_that_is_never_indexed_is_stripped():
    peer = RawPeer(config=LENIENT)
    peer.send(peer.headers(1, [*GET, NeverIndexedHeaderTuple(b"secret", b" x ")]))
    (event,) = peer.of(H2RequestReceived)
    (secret,) = [p for p in event.request.fields if p[0] == b"secret"]
    assert secret == (b"secret", b"x")
    assert isinstance(secret, NeverIndexed)


def test_white_space_around_values_of_a_promise_is_stripped():
    peer = RawPeer(
        client_side=True,
        config=H2Configuration(lenient_inbound_headers=True, enable_push=True),
    )
    peer.connection.send_request("GET", "/", authority="a")
    peer.read()
    peer.send(peer.push_promise(1, 2, GET + SPACED))
    (event,) = peer.of(H2PushedStreamReceived)
    assert event.request.fields == GET + STRIPPED


@pytest.mark.parametrize(
    "fields",
    [
        (*GET, (b"x", b"a\nb")),
        (*GET, (b"x", b"\ra")),
        (*GET, (b"x", b"a\0")),
        (*GET, (b"a b", b"x")),
        (*GET, (b" a", b"x")),
        # nghttp2 reads these two itself.
        (*GET, (b"host", b" example.org")),
        (*GET, (b"content-length", b" 1")),
        (*GET, (b"connection", b" close")),
        (*GET[:3], (b":authority", b" example.org")),
        (GET[0], GET[1], (b":path", b" /"), GET[3]),
    ],
)
def test_nothing_else_is_let_in(fields):
    peer = RawPeer(config=LENIENT)
    peer.send(peer.headers(1, fields))
    assert H2StreamReset(1, ErrorCode.PROTOCOL_ERROR, False) in peer.events
    assert not peer.of(H2RequestReceived)
    assert not peer.of(H2ConnectionClosed)


# ---- What is sent ----

NORMALIZING = H2Configuration(normalize_outbound_headers=True)
UNTIDY = [
    (" X-Spaced ", " value\t"),
    ("Connection", "keep-alive, x"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "close"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
    (b"last", b"one "),
]
TIDY = ((b"x-spaced", b"value"), (b"last", b"one"))


def test_untidy_fields_are_refused_by_default():
    peers = Peers()
    for field in UNTIDY:
        with pytest.raises(HeadersError):
            peers.client.send_request("GET", "/", [field], authority="a")


def test_untidy_fields_are_tidied_in_every_message():
    """As hyper-h2 does by default."""
    peers = Peers(
        client=H2Configuration(normalize_outbound_headers=True, enable_push=True),
        server=NORMALIZING,
    )
    stream_id = peers.client.send_request(
        "POST", "/", UNTIDY, authority="a", end_stream=False
    )
    peers.client.send_body(stream_id, b"x", trailers=UNTIDY)
    peers.pump()
    peers.server.send_informational(stream_id, 103, UNTIDY)
    pushed = peers.server.push_stream(stream_id, [*GET, *UNTIDY])
    peers.server.send_response_headers(pushed, 200, UNTIDY, end_stream=True)
    peers.server.send_headers(stream_id, [(":status", "200"), *UNTIDY])
    peers.server.send_trailers(stream_id, UNTIDY)
    peers.pump()
    (request,) = [e for e in peers.server_events if isinstance(e, H2RequestReceived)]
    assert request.request.fields[4:] == TIDY
    kinds = (H2InformationalResponseReceived, H2ResponseReceived, H2TrailersReceived)
    seen = [
        e.headers
        for e in (*peers.server_events, *peers.client_events)
        if isinstance(e, kinds)
    ]
    assert seen == [TIDY] * 5
    (promise,) = [
        e for e in peers.client_events if isinstance(e, H2PushedStreamReceived)
    ]
    assert promise.request.fields == GET + TIDY


def test_a_body_from_a_source_may_have_untidy_trailers():
    peers = Peers(client=NORMALIZING)
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, iter([b"x", b"y"]), trailers=UNTIDY)
    peers.pump()
    assert H2TrailersReceived(stream_id, TIDY) in peers.server_events


def test_what_stays_wrong_is_refused_and_named():
    peers = Peers(server=NORMALIZING)
    stream_id = peers.request()
    with pytest.raises(HeadersError, match="b'x y': b'1'"):
        peers.server.send_response_headers(
            stream_id, 200, [("connection", "close"), ("x y", "1")]
        )
    with pytest.raises(HeadersError):
        peers.server.send_response_headers(stream_id, 200, [("x", "a\r\nb")])
    secret = NeverIndexed(b"secret ", b" x")
    peers.server.send_response_headers(stream_id, 200, [secret])
    peers.pump()
    (event,) = [e for e in peers.client_events if isinstance(e, H2ResponseReceived)]
    assert event.headers == ((b"secret", b"x"),)
    assert isinstance(event.headers[0], NeverIndexed)
