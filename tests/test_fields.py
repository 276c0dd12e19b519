"""The rules for fields, the same for HTTP/2 and HTTP/3 (RFC 9110, 9113, 9114).

Each section is received and sent over both, by a server and by a client.
"""

import contextlib

import pytest
from fake_quic import FakeQuic, StopSendingReceived, StreamDataReceived, StreamReset
from helpers import CHUNKS, GET, GOAWAY, OK, RST_STREAM, Peers, RawPeer

from nghttp2py.errors import HeadersError
from nghttp2py.h2 import (
    H2Configuration,
    H2Connection,
    H2InformationalResponseReceived,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
)
from nghttp2py.h3 import (
    H3Configuration,
    H3Connection,
    HeadersReceived,
    PushPromiseReceived,
    QPACKEncoder,
    StreamAborted,
)
from nghttp2py.h3.connection import ErrorCode, MessageError, encode_frame

METHOD, SCHEME, PATH, AUTHORITY = GET
CONNECT = (b":method", b"CONNECT")
WEBSOCKET = (b":protocol", b"websocket")
STRICT = H3Configuration(extended=True, stream_errors=True)


def target(authority=b"example.org", *, scheme=b"https", path=b"/", method=b"GET"):
    return (
        (b":method", method),
        (b":scheme", scheme),
        (b":path", path),
        (b":authority", authority),
    )


# What must not stand in any section, whatever its kind.
BAD_FIELDS = {
    "an empty name": (b"", b"x"),
    "a name with upper case": (b"X-Upper", b"x"),
    "a name with a space": (b"a b", b"x"),
    "a name with a control character": (b"a\x01", b"x"),
    "a name with DEL": (b"a\x7f", b"x"),
    "a name with a high byte": (b"a\x80", b"x"),
    "a name with a colon": (b"a:b", b"x"),
    "a name with a parenthesis": (b"a(b", b"x"),
    "a name with a slash": (b"a/b", b"x"),
    "a name with a quote": (b'a"b', b"x"),
    "a name with a brace": (b"a{b}", b"x"),
    "a name with an at sign": (b"a@b", b"x"),
    "a value with NUL": (b"a", b"x\0y"),
    "a value with CR": (b"a", b"x\ry"),
    "a value with LF": (b"a", b"x\ny"),
    "a value with SOH": (b"a", b"x\x01y"),
    "a long value with ESC": (b"a", b"x" * 20 + b"\x1b[0m" + b"y" * 20),
    "a long value that ends with US": (b"a", b"x" * 20 + b"\x1f"),
    "a value with DEL": (b"a", b"x\x7fy"),
    "a value of one control character": (b"a", b"\x08"),
    "a value that starts with a space": (b"a", b" x"),
    "a value that starts with a tab": (b"a", b"\tx"),
    "a value that ends with a space": (b"a", b"x "),
    "a value that ends with a tab": (b"a", b"x\t"),
    "a value of one space": (b"a", b" "),
    "connection": (b"connection", b"close"),
    "keep-alive": (b"keep-alive", b"1"),
    "proxy-connection": (b"proxy-connection", b"close"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "upgrade": (b"upgrade", b"h2c"),
    "te of another kind": (b"te", b"trailers, deflate"),
    "an unknown pseudo-header field": (b":test", b"x"),
    "a pseudo-header field without a name": (b":", b"x"),
}

BAD_REQUESTS = {
    **{name: (*GET, pair) for name, pair in BAD_FIELDS.items()},
    ":status": (*GET, (b":status", b"200")),
    "a late pseudo-header field": (METHOD, SCHEME, PATH, (b"a", b"b"), AUTHORITY),
    "no :method": (SCHEME, PATH, AUTHORITY),
    "no :scheme": (METHOD, PATH, AUTHORITY),
    "no :path": (METHOD, SCHEME, AUTHORITY),
    "neither :authority nor host": (METHOD, SCHEME, PATH),
    ":method twice": (METHOD, *GET),
    ":scheme twice": (*GET, SCHEME),
    ":path twice": (*GET, PATH),
    ":authority twice": (*GET, AUTHORITY),
    "an empty :method": target(method=b""),
    "a :method with a space": target(method=b"GE T"),
    "a :method that is a request line": target(method=b"GET /admin/delete HTTP/1.1"),
    "a :method with a slash": target(method=b"GET/"),
    "an empty :scheme": target(scheme=b""),
    "a :scheme with a colon": target(scheme=b"https:"),
    "a :scheme with slashes": target(scheme=b"https://evil/?"),
    "a :scheme with a space": target(scheme=b"ht tps"),
    "a :scheme that starts with a digit": target(scheme=b"1http"),
    "an empty :path": target(path=b""),
    "a relative :path": target(path=b"x"),
    "an absolute URI as :path": target(path=b"https://example.org/"),
    "* for GET": target(path=b"*"),
    "** for OPTIONS": target(path=b"**", method=b"OPTIONS"),
    "a :path with a space": target(path=b"/a b"),
    "a :path that is a request line": target(path=b"/ HTTP/1.1"),
    "a :path with a tab": target(path=b"/a\tb"),
    "a :path with DEL": target(path=b"/aaaaaaaaaaaaaaa\x7f"),
    "a :path with a fragment": target(path=b"/a#b"),
    "a :path with a fragment at its end": target(path=b"/aaaaaaaaaaaaaaaa#"),
    "an empty :authority": target(b""),
    "an :authority with userinfo": target(b"user@example.org"),
    "an :authority with a password": target(b"user:secret@example.org"),
    "an :authority with a slash": target(b"example.org/x"),
    "an :authority with a space": target(b"example.org x"),
    "an :authority with a backslash": target(b"example.org\\x"),
    "an :authority with a question mark": target(b"example.org?x"),
    "an :authority with a fragment": target(b"example.org#x"),
    "an :authority with a high byte": target(b"ex\xe4mple.org"),
    "an :authority with a port that is no number": target(b"example.org:http"),
    "an :authority with two ports": target(b"example.org:80:80"),
    "an :authority with a port that is too large": target(b"example.org:65536"),
    "an :authority with a huge port": target(b"example.org:" + b"9" * 30),
    "an :authority that is a port": target(b":443"),
    "an :authority with an IPv6 address without brackets": target(b"::1"),
    "an :authority with an open bracket": target(b"[::1"),
    "an :authority with something behind the bracket": target(b"[::1]x"),
    "an :authority with a zone": target(b"[fe80::1%25eth0]"),
    "an :authority with a raw zone": target(b"[fe80::1%eth0]"),
    "host twice": (*GET[:3], (b"host", b"a"), (b"host", b"a")),
    "host twice beside :authority": (*GET, *[(b"host", b"example.org")] * 2),
    "host of another name": (*GET, (b"host", b"example.com")),
    "host of another port": (*GET, (b"host", b"example.org:8443")),
    "host of http's port for https": (*GET, (b"host", b"example.org:80")),
    "an empty host beside :authority": (*GET, (b"host", b"")),
    "an empty host alone": (*GET[:3], (b"host", b"")),
    "a host with userinfo": (*GET[:3], (b"host", b"u@example.org")),
    "a host with userinfo beside :authority": (*GET, (b"host", b"u@example.org")),
    "a host with a slash": (*GET[:3], (b"host", b"example.org/x")),
    "a host with a space": (*GET[:3], (b"host", b"example.org x")),
    "a host with a bad port": (*GET[:3], (b"host", b"example.org:x")),
    "a host with a zone": (*GET[:3], (b"host", b"[fe80::1%25eth0]")),
    "a content-length that is no number": (*GET, (b"content-length", b"x")),
    "a negative content-length": (*GET, (b"content-length", b"-1")),
    "a content-length with a sign": (*GET, (b"content-length", b"+1")),
    "a content-length with an underscore": (*GET, (b"content-length", b"1_0")),
    "an empty content-length": (*GET, (b"content-length", b"")),
    "a content-length that is a list": (*GET, (b"content-length", b"0, 0")),
    "a content-length of 2^64": (*GET, (b"content-length", b"18446744073709551616")),
    "content-length twice": (*GET, *[(b"content-length", b"0")] * 2),
    "CONNECT with :scheme": (CONNECT, SCHEME, AUTHORITY),
    "CONNECT with :path": (CONNECT, PATH, AUTHORITY),
    "CONNECT with both": (CONNECT, SCHEME, PATH, AUTHORITY),
    "CONNECT without :authority": (CONNECT,),
    "CONNECT with host alone": (CONNECT, (b"host", b"example.org:443")),
    "CONNECT with userinfo": (CONNECT, (b":authority", b"u@example.org:443")),
    "CONNECT with an empty port": (CONNECT, (b":authority", b"example.org:")),
    "CONNECT with a content-length": (CONNECT, AUTHORITY, (b"content-length", b"9")),
    ":protocol without CONNECT": (*GET, WEBSOCKET),
    "an empty :protocol": (CONNECT, (b":protocol", b""), *GET[1:]),
    "a :protocol with a space": (CONNECT, (b":protocol", b"web socket"), *GET[1:]),
    "extended CONNECT without :path": (CONNECT, WEBSOCKET, SCHEME, AUTHORITY),
    "extended CONNECT without :scheme": (CONNECT, WEBSOCKET, PATH, AUTHORITY),
    "extended CONNECT without :authority": (CONNECT, WEBSOCKET, SCHEME, PATH),
}

GOOD_REQUESTS = {
    "a plain one": GET,
    "te": (*GET, (b"te", b"trailers")),
    "obs-text in a value": (*GET, (b"a", b"\x80\xff" * 10)),
    "an empty value": (*GET, (b"a", b"")),
    "a tab in a value": (*GET, (b"a", b"x\ty and a long enough value \t z")),
    "every character of a token": (*GET, (b"!#$%&'*+-.^_`|~09az", b"x")),
    "* for OPTIONS": target(path=b"*", method=b"OPTIONS"),
    "a method of one's own": target(method=b"M-SEARCH"),
    "a query": target(path=b"/a?b=c&d=/%20"),
    "CONNECT": (CONNECT, (b":authority", b"example.org:443")),
    "CONNECT without a port": (CONNECT, AUTHORITY),
    "extended CONNECT": (CONNECT, WEBSOCKET, *GET[1:]),
    "extended CONNECT with a version": (
        CONNECT,
        (b":protocol", b"connect-udp/1"),
        *GET[1:],
    ),
    "another scheme": target(scheme=b"foo", path=b"anything"),
    "host alone": (*GET[:3], (b"host", b"example.org")),
    "host alone with a port": (*GET[:3], (b"host", b"example.org:8443")),
    "the same host": (*GET, (b"host", b"example.org")),
    "the same host in other case": (*GET, (b"host", b"EXAMPLE.org")),
    "host with the default port": (*GET, (b"host", b"example.org:443")),
    "host with an empty port": (*GET, (b"host", b"example.org:")),
    ":authority with the default port": (
        *target(b"example.org:443"),
        (b"host", b"Example.org"),
    ),
    ":authority with an empty port": (
        *target(b"example.org:"),
        (b"host", b"example.org:443"),
    ),
    "http's default port": (
        *target(b"example.org", scheme=b"http"),
        (b"host", b"example.org:80"),
    ),
    "a port with a leading zero": (
        *target(b"example.org:0443"),
        (b"host", b"example.org"),
    ),
    "an IPv6 address": target(b"[2001:db8::1]:8443"),
    "an IPv6 address with the default port": (
        *target(b"[::1]:443"),
        (b"host", b"[::1]"),
    ),
    "a percent-encoded name": target(b"ex%C3%A4mple.org"),
    "a content-length of 0": (*GET, (b"content-length", b"0")),
    "a content-length of many digits": (*GET, (b"content-length", b"0" * 18)),
}

BAD_RESPONSES = {
    **{name: (*OK, pair) for name, pair in BAD_FIELDS.items()},
    "te": (*OK, (b"te", b"trailers")),
    "no :status": ((b"a", b"b"),),
    "nothing": (),
    ":status twice": (*OK, *OK),
    ":path": (*OK, (b":path", b"/")),
    "a late :status": ((b"a", b"b"), *OK),
    **{
        f":status {status!r}": ((b":status", status),)
        for status in (b"", b"20", b"2000", b"abc", b"+20", b"2_0", b"000", b"099")
    },
    "101": ((b":status", b"101"),),
    "a content-length that is no number": (*OK, (b"content-length", b"x")),
    "content-length twice": (*OK, *[(b"content-length", b"1")] * 2),
    "204 with a content-length": ((b":status", b"204"), (b"content-length", b"5")),
    "103 with a content-length": ((b":status", b"103"), (b"content-length", b"5")),
}

GOOD_RESPONSES = {
    "200": OK,
    "599": ((b":status", b"599"),),
    "103": ((b":status", b"103"), (b"link", b"</a>")),
    "304 with a content-length": ((b":status", b"304"), (b"content-length", b"5")),
    "two fields of one name": (*OK, *[(b"set-cookie", b"a=b")] * 2),
}

BAD_TRAILERS = {
    **{name: ((b"x-sum", b"1"), pair) for name, pair in BAD_FIELDS.items()},
    "te": ((b"te", b"trailers"),),
    ":path": ((b":path", b"/"),),
    ":status": ((b":status", b"200"),),
}

# Trailers that we do not send (RFC 9110, 6.5.1).  Some peers do.
LATE_TRAILERS = {
    b"content-length": b"5",
    b"content-encoding": b"gzip",
    b"content-range": b"bytes 0-1/2",
    b"content-type": b"text/plain",
    b"trailer": b"x-sum",
    b"host": b"example.org",
    b"authorization": b"Basic QQ==",
    b"proxy-authorization": b"Basic QQ==",
    b"cookie": b"a=b",
    b"set-cookie": b"a=b",
}
GOOD_TRAILERS = {
    b"grpc-status": b"0",
    b"grpc-message": b"",
    b"server-timing": b"a;dur=1",
    b"etag": b'"a"',
    b"digest": b"a=b",
    b"content-digest": b"a=:b:",
    b"cache-control": b"no-store",
    b"www-authenticate": b"Basic",
    b"priority": b"u=1",
    b"x-content-length": b"5",
}

BAD_PROMISES = {
    **BAD_REQUESTS,
    "POST": target(method=b"POST"),
    "a body": (*GET, (b"content-length", b"5")),
    ":protocol": (CONNECT, WEBSOCKET, *GET[1:]),
    "no :authority but host": (*GET[:3], (b"host", b"example.org")),
}
ANNOUNCED = H2Configuration(enable_connect_protocol=True)
PUSHED = H2Configuration(enable_push=True)


# ---- What comes in ----


def received_h2(kind, fields, chunk):
    """Give ``fields`` to HTTP/2's end; return whether it was reported."""
    client_side = kind in ("response", "promise")
    peer = RawPeer(
        client_side=client_side,
        chunk=chunk,
        config=PUSHED if client_side else ANNOUNCED,
    )
    event = {
        "request": (H2RequestReceived, H2WebSocketRequest),
        "response": (H2ResponseReceived, H2InformationalResponseReceived),
        "promise": H2PushedStreamReceived,
        "trailers": H2TrailersReceived,
    }[kind]
    if client_side:
        peer.connection.send_request("GET", "/", authority="example.org")
        peer.read()
    elif kind == "trailers":
        peer.send(peer.headers(1))
    peer.events.clear()
    if kind == "promise":
        peer.send(peer.push_promise(1, 2, fields))
    else:
        peer.send(peer.headers(1, fields, end_stream=kind == "trailers"))
    if any(isinstance(item, event) for item in peer.events):
        assert not peer.sent(RST_STREAM)
        return True
    codes = [f.error_code for f in peer.frames if f.type in (RST_STREAM, GOAWAY)]
    assert codes == [1]
    assert any(isinstance(item, H2StreamReset) for item in peer.events) or peer.sent(
        GOAWAY
    )
    return False


def connect_h3(is_client, config):
    quic = FakeQuic(is_client)
    h3 = H3Connection(quic, config=config)
    if is_client:
        h3.send_headers(0, GET, end_stream=True)
    quic.queue.clear()
    return quic, h3


def give_h3(h3, stream_id, data, fin=False, chunk=None):
    size = chunk or max(len(data), 1)
    parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    events = []
    for i, part in enumerate(parts):
        events += h3.handle_event(
            StreamDataReceived(part, fin and i == len(parts) - 1, stream_id)
        )
    return events


def headers(fields):
    return encode_frame(1, QPACKEncoder().encode(0, fields))


def received_h3(kind, fields, chunk, config=STRICT):
    """Give ``fields`` to HTTP/3's end; return whether it was reported."""
    quic, h3 = connect_h3(kind in ("response", "promise"), config)
    section = QPACKEncoder().encode(0, fields)
    if kind == "trailers":
        give_h3(h3, 0, headers(GET))
    if kind == "promise":
        data = encode_frame(5, b"\0" + section)
    else:
        data = encode_frame(1, section)
    events = give_h3(h3, 0, data, chunk=chunk)
    if any(isinstance(e, (HeadersReceived, PushPromiseReceived)) for e in events):
        assert quic.closed is None
        assert not quic.queue
        return True
    if not config.stream_errors:
        assert quic.closed[0] == ErrorCode.H3_MESSAGE_ERROR
        assert quic.closed[1]
        assert events == []
        return False
    assert quic.closed is None
    (event,) = events
    assert isinstance(event, StreamAborted)
    assert (event.stream_id, event.error_code) == (0, ErrorCode.H3_MESSAGE_ERROR)
    assert event.reason
    ended = [e for e in quic.queue if not isinstance(e, StreamDataReceived)]
    expected = [StopSendingReceived(ErrorCode.H3_MESSAGE_ERROR, 0)]
    if kind in ("request", "trailers"):
        expected.append(StreamReset(ErrorCode.H3_MESSAGE_ERROR, 0))
    assert ended == expected
    # What follows on the stream is dropped; the connection goes on.
    assert give_h3(h3, 0, encode_frame(0, b"x"), chunk=chunk) == []
    assert h3.handle_event(StreamReset(ErrorCode.H3_REQUEST_CANCELLED, 0)) == []
    assert 0 not in h3._stream
    if not quic.configuration.is_client:
        (event,) = give_h3(h3, 4, headers(GET), chunk=chunk)
        assert event.headers == list(GET)
    return False


RECEIVED = {"HTTP/2": received_h2, "HTTP/3": received_h3}

both = pytest.mark.parametrize("protocol", RECEIVED)
in_pieces = pytest.mark.parametrize("chunk", [CHUNKS[0], None])


@both
@in_pieces
@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_malformed_request_costs_its_stream_only(name, protocol, chunk):
    assert not RECEIVED[protocol]("request", BAD_REQUESTS[name], chunk)


@both
@in_pieces
@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_an_unusual_request_is_reported(name, protocol, chunk):
    assert RECEIVED[protocol]("request", GOOD_REQUESTS[name], chunk)


@both
@in_pieces
@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_a_malformed_response_costs_its_stream_only(name, protocol, chunk):
    assert not RECEIVED[protocol]("response", BAD_RESPONSES[name], chunk)


@both
@pytest.mark.parametrize("name", GOOD_RESPONSES)
def test_a_right_response_is_reported(name, protocol):
    assert RECEIVED[protocol]("response", GOOD_RESPONSES[name], None)


@both
@pytest.mark.parametrize("status", [b"600", b"999"])
def test_a_status_above_599_is_left_to_the_client(status, protocol):
    """RFC 9110, 15: a client treats it as 5xx."""
    assert RECEIVED[protocol]("response", ((b":status", status),), None)


@both
@in_pieces
@pytest.mark.parametrize("name", BAD_TRAILERS)
def test_malformed_trailers_cost_their_stream_only(name, protocol, chunk):
    assert not RECEIVED[protocol]("trailers", BAD_TRAILERS[name], chunk)


@both
@pytest.mark.parametrize("name", {**LATE_TRAILERS, **GOOD_TRAILERS})
def test_a_trailer_of_another_kind_is_reported(name, protocol):
    value = {**LATE_TRAILERS, **GOOD_TRAILERS}[name]
    # libnghttp2 takes a content-length for that of the message, which has no content.
    taken = protocol == "HTTP/3" or name != b"content-length"
    fields = ((b"x-sum", b"1"), (name, value))
    assert RECEIVED[protocol]("trailers", fields, None) == taken


@both
@pytest.mark.parametrize("name", BAD_PROMISES)
def test_a_malformed_promise_is_refused(name, protocol):
    assert not RECEIVED[protocol]("promise", BAD_PROMISES[name], None)


def test_extended_connect_must_have_been_announced():
    config = H3Configuration(extended=True, stream_errors=True, settings={8: None})
    fields = GOOD_REQUESTS["extended CONNECT"]
    assert not received_h3("request", fields, None, config)
    assert received_h3("request", GOOD_REQUESTS["CONNECT"], None, config)


# ---- aioquic's contract: H3Connection alone ----

BARE = H3Configuration()
# aioquic's tests send these, or ours have always taken them.
TAKEN_BARE = {"204 with a content-length", "103 with a content-length"}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_alone_a_malformed_request_closes_the_connection(name):
    assert not received_h3("request", BAD_REQUESTS[name], None, BARE)


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_alone_an_unusual_request_is_reported(name):
    assert received_h3("request", GOOD_REQUESTS[name], None, BARE)


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_alone_a_malformed_response_closes_the_connection(name):
    taken = received_h3("response", BAD_RESPONSES[name], None, BARE)
    assert taken == (name in TAKEN_BARE)


@pytest.mark.parametrize("name", BAD_TRAILERS)
def test_alone_malformed_trailers_close_the_connection(name):
    assert not received_h3("trailers", BAD_TRAILERS[name], None, BARE)


# ---- What goes out ----


def send_h2(kind, fields):
    if kind == "request":
        peers = Peers(server=ANNOUNCED)
        peers.client.send_headers(None, fields)
        return
    peers = Peers(client=PUSHED)
    stream_id = peers.request()
    if kind == "promise":
        peers.server.push_stream(stream_id, fields)
        return
    if kind == "trailers":
        peers.server.send_response_headers(stream_id, 200, [])
        peers.server.send_trailers(stream_id, fields)
        return
    peers.server.send_headers(stream_id, fields)


def send_h3(kind, fields, config=STRICT):
    quic, h3 = connect_h3(kind == "request", config)
    if kind == "request":
        give_h3(h3, 3, b"\0" + encode_frame(4, b"\x08\x01"))
        h3.send_headers(4, fields)
        return
    give_h3(h3, 2, b"\0" + encode_frame(4, b"") + b"\x0d\1\x09")
    give_h3(h3, 0, headers(GET), fin=True)
    quic.queue.clear()
    try:
        if kind == "promise":
            h3.send_push_promise(0, fields)
            return
        if kind == "trailers":
            h3.send_headers(0, OK)
            quic.queue.clear()
        h3.send_headers(0, fields)
    except MessageError:
        assert not quic.queue
        raise


SENT = {
    "HTTP/2": (send_h2, HeadersError),
    "HTTP/3": (send_h3, MessageError),
    "HTTP/3 alone": (
        lambda kind, fields: send_h3(kind, fields, BARE),
        MessageError,
    ),
}
every = pytest.mark.parametrize("protocol", SENT)
# Upper case is sent in lower case over HTTP/2.
LOWERED = "a name with upper case"


def refuses(protocol, kind, fields):
    send, error = SENT[protocol]
    with contextlib.suppress(error):
        send(kind, fields)
        return False
    return True


@every
@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_malformed_request_is_not_sent(name, protocol):
    taken = (name == LOWERED and protocol == "HTTP/2") or (
        "content-length" in name
        and not name.startswith(("CONNECT", "content-length"))
        and protocol == "HTTP/3 alone"
    )
    assert refuses(protocol, "request", BAD_REQUESTS[name]) != taken


@every
@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_an_unusual_request_is_sent(name, protocol):
    assert not refuses(protocol, "request", GOOD_REQUESTS[name])


@every
@pytest.mark.parametrize("name", {**BAD_RESPONSES, "600": (), "999": ()})
def test_a_malformed_response_is_not_sent(name, protocol):
    fields = BAD_RESPONSES.get(name, ((b":status", name.encode()),))
    taken = (name == LOWERED and protocol == "HTTP/2") or (
        "content-length" in name
        and not name.startswith("content-length")
        and protocol == "HTTP/3 alone"
    )
    assert refuses(protocol, "response", fields) != taken


@every
@pytest.mark.parametrize("name", GOOD_RESPONSES)
def test_a_right_response_is_sent(name, protocol):
    assert not refuses(protocol, "response", GOOD_RESPONSES[name])


@every
@pytest.mark.parametrize("name", BAD_TRAILERS)
def test_malformed_trailers_are_not_sent(name, protocol):
    taken = name == LOWERED and protocol == "HTTP/2"
    assert refuses(protocol, "trailers", BAD_TRAILERS[name]) != taken


@every
@pytest.mark.parametrize("name", LATE_TRAILERS)
def test_a_field_that_the_content_needs_is_no_trailer(name, protocol):
    """aioquic's contract takes it."""
    fields = ((b"x-sum", b"1"), (name, LATE_TRAILERS[name]))
    assert refuses(protocol, "trailers", fields) == (protocol != "HTTP/3 alone")


@every
@pytest.mark.parametrize("name", GOOD_TRAILERS)
def test_another_trailer_is_sent(name, protocol):
    assert not refuses(protocol, "trailers", ((name, GOOD_TRAILERS[name]),))


@every
@pytest.mark.parametrize("name", BAD_PROMISES)
def test_a_malformed_promise_is_not_sent(name, protocol):
    taken = (name == LOWERED and protocol == "HTTP/2") or (
        name
        in (
            "a content-length that is no number",
            "a negative content-length",
            "a content-length with a sign",
            "a content-length with an underscore",
            "an empty content-length",
            "a content-length that is a list",
            "a content-length of 2^64",
            "a body",
        )
        and protocol == "HTTP/3 alone"
    )
    assert refuses(protocol, "promise", BAD_PROMISES[name]) != taken


def test_refusals_name_the_value_and_the_rule_but_no_password():
    client = H2Connection(client_side=True)
    client.initiate_connection()
    fields = target(path=b"/a b")
    for send in (
        lambda: client.send_headers(None, fields),
        lambda: send_h3("request", fields),
    ):
        with pytest.raises((HeadersError, MessageError)) as caught:
            send()
        assert "b'/a b'" in str(caught.value)
        assert "RFC 911" in str(caught.value)
    with pytest.raises(MessageError) as caught:
        send_h3("request", BAD_REQUESTS["an :authority with a password"])
    assert "secret" not in str(caught.value)
