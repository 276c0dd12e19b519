"""Messages that are malformed (RFC 9113, 8.1 to 8.5): the stream is reset."""

import pytest
from helpers import (
    CHUNKS,
    GET,
    GOAWAY,
    OK,
    POST,
    RST_STREAM,
    RawPeer,
    body_of,
    data,
    ends_of,
    ping,
)

from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import (
    H2InformationalResponseReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
METHOD, SCHEME, PATH, AUTHORITY = GET

REQUESTS = {
    # 8.2.1
    "upper-case name": (*GET, (b"X-Upper", b"x")),
    "name with a space": (*GET, (b"a b", b"x")),
    "name with a control": (*GET, (b"a\x01", b"x")),
    "name with a high byte": (*GET, (b"a\x80", b"x")),
    "name with a colon": (*GET, (b"a:b", b"x")),
    "empty name": (*GET, (b"", b"x")),
    "value with NUL": (*GET, (b"a", b"\0")),
    "value with LF": (*GET, (b"a", b"x\ny")),
    "value with CR": (*GET, (b"a", b"x\ry")),
    "value with leading space": (*GET, (b"a", b" x")),
    "value with trailing space": (*GET, (b"a", b"x ")),
    "value with leading tab": (*GET, (b"a", b"\tx")),
    # 8.2.2
    "connection": (*GET, (b"connection", b"close")),
    "proxy-connection": (*GET, (b"proxy-connection", b"close")),
    "keep-alive": (*GET, (b"keep-alive", b"1")),
    "transfer-encoding": (*GET, (b"transfer-encoding", b"chunked")),
    "upgrade": (*GET, (b"upgrade", b"h2c")),
    "te other than trailers": (*GET, (b"te", b"trailers, deflate")),
    # 8.3
    "unknown pseudo-header field": (*GET, (b":test", b"x")),
    "response's pseudo-header field": (*GET, (b":status", b"200")),
    "pseudo-header field after regular": (
        METHOD,
        SCHEME,
        PATH,
        (b"a", b"b"),
        AUTHORITY,
    ),
    # 8.3.1
    "no :method": (SCHEME, PATH, AUTHORITY),
    "no :scheme": (METHOD, PATH, AUTHORITY),
    "no :path": (METHOD, SCHEME, AUTHORITY),
    "no :authority or host": (METHOD, SCHEME, PATH),
    "empty :path": (METHOD, SCHEME, (b":path", b""), AUTHORITY),
    "relative :path": (METHOD, SCHEME, (b":path", b"x"), AUTHORITY),
    "* for GET": (METHOD, SCHEME, (b":path", b"*"), AUTHORITY),
    ":method twice": (METHOD, *GET),
    ":scheme twice": (*GET, SCHEME),
    ":path twice": (*GET, PATH),
    ":authority twice": (*GET, AUTHORITY),
    "host twice": (*GET, (b"host", b"example.org"), (b"host", b"example.org")),
    "host that differs": (*GET, (b"host", b"example.com")),
    ":method that is no token": ((b":method", b"GE T"), SCHEME, PATH, AUTHORITY),
    # 8.1.1
    "content-length that is no number": (*GET, (b"content-length", b"x")),
    "negative content-length": (*GET, (b"content-length", b"-1")),
    "content-length twice": (
        *GET,
        (b"content-length", b"0"),
        (b"content-length", b"0"),
    ),
    # 8.5
    "CONNECT with :scheme": ((b":method", b"CONNECT"), SCHEME, AUTHORITY),
    "CONNECT with :path": ((b":method", b"CONNECT"), PATH, AUTHORITY),
    "CONNECT without :authority": ((b":method", b"CONNECT"),),
    # RFC 8441, 4
    ":protocol without CONNECT": (*GET, (b":protocol", b"websocket")),
    "extended CONNECT without :path": (
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        SCHEME,
        AUTHORITY,
    ),
}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_malformed_request_is_reset_and_not_told(name, chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1, REQUESTS[name], end_stream=True))
    assert [(f.stream_id, f.error_code) for f in peer.sent(RST_STREAM)] == [
        (1, PROTOCOL)
    ]
    assert peer.events == [
        H2StreamReset(1, PROTOCOL, False),
        H2StreamClosed(1, PROTOCOL),
    ]
    assert peer.events[0].reason
    assert peer.connection.active_stream_count == 0
    # The header table is whole, and the connection goes on.
    peer.events.clear()
    peer.send(peer.headers(3, GET, end_stream=True), ping())
    assert isinstance(peer.events[0], H2RequestReceived)
    assert not peer.sent(GOAWAY)


@pytest.mark.parametrize(
    "fields",
    [
        (*GET, (b"te", b"trailers")),
        (*GET, (b"a", b"\x80\xff")),
        (*GET, (b"a", b"")),
        (*GET, (b"a", b"x\ty z")),
        ((b":method", b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY),
        ((b":method", b"CONNECT"), AUTHORITY),
        ((b":method", b"M-SEARCH"), SCHEME, PATH, AUTHORITY),
        (METHOD, (b":scheme", b"foo"), (b":path", b"anything"), AUTHORITY),
        (METHOD, SCHEME, PATH, (b"host", b"example.org")),
    ],
)
def test_unusual_requests_pass(fields):
    peer = RawPeer()
    peer.send(peer.headers(1, fields, end_stream=True))
    assert isinstance(peer.events[0], H2RequestReceived)
    assert peer.events[0].request.fields == fields


def with_length(n):
    return (*POST, (b"content-length", str(n).encode()))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("sent", [b"1234", b"123456"])
def test_a_body_of_another_length_resets_the_stream(sent, chunk):
    """RFC 9113, 8.1.1."""
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1, with_length(5)), data(1, sent, end_stream=True))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [PROTOCOL]
    assert ends_of(peer.events, 1) == 0
    assert peer.events[-2:] == [
        H2StreamReset(1, PROTOCOL, False),
        H2StreamClosed(1, PROTOCOL),
    ]


def test_a_bodiless_request_must_not_state_a_length():
    peer = RawPeer()
    peer.send(peer.headers(1, with_length(5), end_stream=True))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [PROTOCOL]
    assert not peer.of(H2RequestReceived)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_body_of_the_stated_length_passes(chunk):
    peer = RawPeer(chunk=chunk)
    peer.send(
        peer.headers(1, with_length(5)),
        data(1, b"123"),
        data(1, b"45"),
        peer.headers(1, [(b"a", b"b")], end_stream=True),
    )
    assert body_of(peer.events, 1) == b"12345"
    assert ends_of(peer.events, 1) == 1


TRAILERS = {
    "without END_STREAM": ([(b"a", b"b")], False),
    "with a pseudo-header field": ([(b":path", b"/")], True),
    "with an upper-case name": ([(b"A", b"b")], True),
    "with connection": ([(b"connection", b"close")], True),
}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", TRAILERS)
def test_malformed_trailers_reset_the_stream(name, chunk):
    """RFC 9113, 8.1."""
    fields, end_stream = TRAILERS[name]
    peer = RawPeer(chunk=chunk)
    peer.send(peer.headers(1), data(1, b"x"))
    peer.send(peer.headers(1, fields, end_stream=end_stream))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [PROTOCOL]
    assert not peer.of(H2TrailersReceived)
    assert ends_of(peer.events, 1) == 0


RESPONSES = {
    "no :status": ((b"a", b"b"),),
    "empty": (),
    ":status twice": (*OK, *OK),
    "request's pseudo-header field": (*OK, (b":path", b"/")),
    ":status after regular": ((b"a", b"b"), *OK),
    ":status of two digits": ((b":status", b"20"),),
    ":status of four digits": ((b":status", b"2000"),),
    ":status that is no number": ((b":status", b"abc"),),
    "101": ((b":status", b"101"),),
    "connection": (*OK, (b"connection", b"close")),
    "upper-case name": (*OK, (b"X", b"y")),
    "value with LF": (*OK, (b"x", b"y\n")),
    "content-length twice": (
        *OK,
        (b"content-length", b"1"),
        (b"content-length", b"1"),
    ),
}


def client():
    peer = RawPeer(client_side=True)
    peer.connection.send_request("GET", "/", authority="h")
    peer.read()
    peer.frames.clear()
    return peer


@pytest.mark.parametrize("name", RESPONSES)
def test_a_malformed_response_is_reset_and_not_told(name):
    """RFC 9113, 8.3.2."""
    peer = client()
    peer.send(peer.headers(1, RESPONSES[name]))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [PROTOCOL]
    assert not peer.of(H2ResponseReceived)
    assert H2StreamClosed(1, PROTOCOL) in peer.events


def test_an_informational_response_must_not_end_the_stream():
    """RFC 9113, 8.1."""
    peer = client()
    peer.send(peer.headers(1, [(b":status", b"103")], end_stream=True))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [PROTOCOL]
    assert not peer.of(H2InformationalResponseReceived)


def test_a_second_final_response_is_malformed():
    peer = client()
    peer.send(peer.headers(1, OK), peer.headers(1, OK, end_stream=True))
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [PROTOCOL]
    assert len(peer.of(H2ResponseReceived)) == 1


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_body_where_there_is_none_is_malformed(status):
    peer = client()
    peer.send(peer.headers(1, [(b":status", status)]), data(1, b"x", end_stream=True))
    assert [f.error_code for f in peer.sent(RST_STREAM)] == [PROTOCOL]
    assert ends_of(peer.events, 1) == 0


def test_a_response_to_head_states_a_length_without_body():
    peer = RawPeer(client_side=True)
    peer.connection.send_request("HEAD", "/", authority="h")
    peer.read()
    peer.send(peer.headers(1, (*OK, (b"content-length", b"5")), end_stream=True))
    assert not peer.sent(RST_STREAM)
    assert peer.events[-1] == H2StreamClosed(1, 0)
