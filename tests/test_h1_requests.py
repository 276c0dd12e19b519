"""Requests of HTTP/1.1, as the connection without I/O reads them."""

import pytest

from nghttp2py.h1 import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    H1BodyReceived,
    H1Connection,
    H1EndReceived,
    H1RequestRefused,
    H1TrailersReceived,
    RequestReceived,
)


def receive(data, connection=None, *, size=None, **options):
    """The events of bytes, which come in pieces of a size; bodies are joined."""
    connection = connection or H1Connection(**options)
    size = size or len(data)
    events = []
    for start in range(0, len(data), size):
        for event in connection.receive_data(data[start : start + size]):
            if (
                events
                and isinstance(event, H1BodyReceived)
                and isinstance(events[-1], H1BodyReceived)
            ):
                events[-1] = H1BodyReceived(events[-1].data + event.data)
            else:
                events.append(event)
    return events


def both_ways(data, **options):
    """The events of bytes, which are the same if they come one by one."""
    events = receive(data, **options)
    assert receive(data, size=1, **options) == events
    return events


def request_of(data, **options):
    events = both_ways(data, **options)
    assert isinstance(events[0], RequestReceived), events
    return events[0]


def get(line=b"GET / HTTP/1.1", *fields, host=b"host: localhost"):
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refusal(data, **options):
    """The status and the reason with which bytes are refused, and the answer."""
    connection = H1Connection(**options)
    events = receive(data, connection)
    answer = connection.data_to_send()
    assert isinstance(events[-1], H1RequestRefused), events
    size = 1 if len(data) < 1000 else 1000
    assert receive(data, size=size, **options)[-1].status == events[-1].status
    status, reason = events[-1].status, events[-1].reason
    assert connection.closing
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert reason.encode() in body
    assert b"content-length: %d" % len(body) in head
    assert not connection.receive_data(get())
    return status, reason


# ---- Requests ----


def test_a_request_has_its_parts():
    data = get(b"GET /path?a=b HTTP/1.1", b"Accept: */*", b"X-Empty:", b"x: \ta b \t")
    request = request_of(data)
    assert request.method == b"GET" and request.target == b"/path?a=b"
    assert request.http_version == "1.1" and request.protocol is None
    assert request.scheme == b"http" and request.authority == b"localhost"
    assert request.fields == (
        (b"host", b"localhost"),
        (b"accept", b"*/*"),
        (b"x-empty", b""),
        (b"x", b"a b"),
    )
    assert receive(data)[1:] == [H1EndReceived()]


def test_the_scheme_is_that_of_the_connection():
    assert request_of(get(), secure=True).scheme == b"https"


@pytest.mark.parametrize("method", [b"GET", b"PROPFIND", b"QUERY", b"X-Own_1"])
def test_any_token_is_a_method(method):
    assert request_of(get(method + b" / HTTP/1.1")).method == method


def test_octets_of_values_stay_as_they_are():
    assert (b"x", b"\xe4\xff") in request_of(
        get(b"GET / HTTP/1.1", b"X: \xe4\xff")
    ).fields


def test_several_cookies_are_one_field():
    data = get(b"GET / HTTP/1.1", b"Cookie: a=1", b"x: y", b"cookie: b=2")
    assert request_of(data).fields[1:] == ((b"x", b"y"), (b"cookie", b"a=1; b=2"))


def test_repeated_fields_stay_in_their_order():
    fields = request_of(get(b"GET / HTTP/1.1", b"X: 1", b"y: 2", b"x: 3")).fields
    assert fields[1:] == ((b"x", b"1"), (b"y", b"2"), (b"x", b"3"))


def test_one_empty_line_before_a_request_is_ignored():
    assert request_of(b"\r\n" + get()).method == b"GET"
    assert refusal(b"\r\n\r\n" + get())[0] == 400


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"http://example.org/a?b", b"example.org", b"/a?b"),
        (b"HTTPS://example.org:8443", b"example.org:8443", b"/"),
        (b"http://example.org?q", b"example.org", b"/?q"),
        (b"http://[::1]:80/", b"[::1]:80", b"/"),
    ],
)
def test_the_absolute_form_is_split_and_wins_over_host(target, authority, path):
    secure = target[:5] == b"HTTPS"
    request = request_of(get(b"GET %b HTTP/1.1" % target), secure=secure)
    assert (request.authority, request.target) == (authority, path)
    assert request.fields == ((b"host", authority),)
    assert request.scheme == target.partition(b":")[0].lower()


def test_options_may_be_for_the_whole_server():
    assert request_of(get(b"OPTIONS * HTTP/1.1")).target == b"*"
    assert request_of(get(b"OPTIONS http://localhost HTTP/1.1")).target == b"*"
    assert refusal(get(b"GET * HTTP/1.1"))[0] == 400


def test_connect_has_an_authority_and_does_not_end():
    data = get(b"CONNECT example.org:443 HTTP/1.1") + b"early"
    connection = H1Connection()
    (request,) = receive(data, connection)
    assert request.method == b"CONNECT" and request.scheme is None
    assert request.target == request.authority == b"example.org:443"
    connection.switch_protocols([("x", "y")])
    assert connection.data_to_send() == b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"
    assert connection.receive_data(b"") == [H1BodyReceived(b"early")]
    assert connection.receive_data(b"more") == [H1BodyReceived(b"more")]
    connection.send_data(b"back")
    assert connection.data_to_send() == b"back"


@pytest.mark.parametrize(
    "target",
    [b"example.org", b"/", b"[::1]", b"user@example.org:1", b"a:x", b"a:70000"],
)
def test_connect_needs_host_and_port(target):
    assert refusal(get(b"CONNECT %b HTTP/1.1" % target))[0] == 400


@pytest.mark.parametrize("field", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
def test_connect_must_not_have_content(field):
    assert refusal(get(b"CONNECT a:1 HTTP/1.1", field))[0] == 400


def test_http_1_0_needs_no_host():
    request = request_of(get(b"GET / HTTP/1.0", host=None))
    assert request.http_version == "1.0" and request.authority is None


# ---- Bodies ----


@pytest.mark.parametrize("size", [0, 1, 5, 100_000])
def test_a_body_may_have_a_length(size):
    body = b"x" * size
    connection = H1Connection()
    data = get(b"POST / HTTP/1.1", b"Content-Length: %d" % size) + body
    events = receive(data, connection, size=1000)
    assert events[1:] == [*([H1BodyReceived(body)] if body else []), H1EndReceived()]
    assert connection.request_complete


@pytest.mark.parametrize(
    "coded",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"1\r\nh\r\n04\r\nello\r\n000\r\n\r\n",
        b'5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n',
        b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ],
)
def test_a_body_may_be_chunked(coded):
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: CHUNKED") + coded
    assert both_ways(data)[1:] == [H1BodyReceived(b"hello"), H1EndReceived()]


def test_the_sizes_of_chunks_are_hexadecimal():
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    data += b"Fe\r\n" + b"x" * 254 + b"\r\n0\r\n\r\n"
    assert both_ways(data)[1] == H1BodyReceived(b"x" * 254)


def test_chunks_of_one_read_are_one_piece():
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    data += b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"
    assert receive(data)[1:] == [H1BodyReceived(b"x" * 1000), H1EndReceived()]


def test_a_chunked_body_may_have_trailers():
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    data += b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nB: 2\r\n\r\n"
    assert both_ways(data)[1:] == [
        H1BodyReceived(b"hi"),
        H1TrailersReceived(((b"x-sum", b"1"), (b"b", b"2"))),
        H1EndReceived(),
    ]


@pytest.mark.parametrize(
    "trailer",
    [
        b"Host: x",
        b"Content-Length: 1",
        b"Transfer-Encoding: chunked",
        b" folded",
        b"a : b",
        b"a\x00: b",
        b"no colon",
        b"x: " + b"y" * MAX_HEAD,
        b"\r\n".join([b"x: y"] * (MAX_FIELDS + 1)),
    ],
)
def test_trailers_have_rules_too(trailer):
    connection = H1Connection()
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked") + b"0\r\n"
    event = receive(data + trailer + b"\r\n\r\n", connection)[-1]
    assert event.status in (400, 431)
    assert b"connection: close" in connection.data_to_send()


# ---- Pipelines ----


def answer(connection, body=b"ok"):
    connection.send_response(200, [("content-length", len(body))])
    connection.send_data(body, end=True)
    return connection.data_to_send()


def test_the_next_request_waits_until_one_is_answered():
    connection = H1Connection()
    first = get(b"POST /1 HTTP/1.1", b"content-length: 2") + b"hi"
    assert len(receive(first + get(b"GET /2 HTTP/1.1"), connection)) == 3
    assert connection.receive_data(get(b"GET /3 HTTP/1.1")) == []
    assert connection.waiting == len(get(b"GET /2 HTTP/1.1") * 2)
    for number in b"2", b"3":
        assert answer(connection).endswith(b"\r\n\r\nok")
        request, end = connection.receive_data(b"")
        assert request.target == b"/" + number and end == H1EndReceived()
    assert answer(connection) and connection.receive_data(b"") == []
    assert connection.idle


def test_a_request_may_come_in_one_read_with_the_end_of_another():
    connection = H1Connection()
    receive(get(), connection)
    answer(connection)
    assert connection.receive_data(get()[:20]) == []
    assert len(connection.receive_data(get()[20:])) == 2


# ---- Upgrades ----

UPGRADE = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def test_an_upgrade_to_websocket_is_reported_and_keeps_early_bytes():
    connection = H1Connection(tunnels=True)
    (request,) = receive(get(b"GET /chat HTTP/1.1", *UPGRADE) + b"early", connection)
    assert request.protocol == b"websocket" and request.method == b"GET"
    assert not connection.request_complete
    connection.switch_protocols([("sec-websocket-accept", "x"), ("upgrade", "no")])
    assert connection.data_to_send() == (
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\n"
        b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    )
    assert connection.receive_data(b"") == [H1BodyReceived(b"early")]


def test_a_refused_upgrade_keeps_the_connection():
    connection = H1Connection(tunnels=True)
    receive(get(b"GET / HTTP/1.1", *UPGRADE) + get(b"GET /next HTTP/1.1"), connection)
    connection.send_response(403, end=True)
    assert b"content-length: 0" in connection.data_to_send()
    request, _ = connection.receive_data(b"")
    assert request.target == b"/next" and request.protocol is None


@pytest.mark.parametrize("left_out", range(2))
def test_an_upgrade_that_is_not_whole_is_ignored(left_out):
    fields = [field for i, field in enumerate(UPGRADE) if i != left_out]
    events = receive(get(b"GET / HTTP/1.1", *fields), tunnels=True)
    assert events[0].protocol is None and events[1] == H1EndReceived()


@pytest.mark.parametrize("left_out", range(2, 4))
def test_a_handshake_that_is_not_whole_is_left_to_who_accepts_it(left_out):
    fields = [field for i, field in enumerate(UPGRADE) if i != left_out]
    (request,) = receive(get(b"GET / HTTP/1.1", *fields), tunnels=True)
    assert request.protocol == b"websocket"


def test_an_upgrade_is_ignored_unless_it_is_served():
    events = receive(get(b"GET / HTTP/1.1", *UPGRADE))
    assert events[0].protocol is None and events[1] == H1EndReceived()


def test_an_upgrade_to_http2_is_ignored_and_loses_no_body():
    data = get(
        b"POST / HTTP/1.1",
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"Content-Length: 5",
    )
    events = both_ways(data + b"hello", tunnels=True)
    assert events[0].protocol is None
    assert events[1:] == [H1BodyReceived(b"hello"), H1EndReceived()]


# ---- What is refused ----


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: +1"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1_0"],
        [b"Content-Length: 0x1"],
        [b"Content-Length: 1 1"],
        [b"Content-Length: 1, 1"],
        [b"Content-Length:"],
        [b"Content-Length: \xb2"],
        [b"Content-Length: 99999999999999999999"],
        [b"Content-Length: 1", b"Content-Length: 1"],
        [b"Content-Length: 1", b"content-length: 2"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: \xa0chunked"],
        [b"Transfer-Encoding: \x0bchunked"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked;a=b"],
        [b"Transfer-Encoding:"],
        [b'Transfer-Encoding: "chunked"'],
        [b"Transfer-Encoding\t: chunked"],
        [b"Transfer_Encoding : chunked"],
        [b"Content-Length : 1"],
        [b" Content-Length: 1"],
        [b"X: a", b" folded"],
        [b"X: a", b"\tfolded"],
        [b"X: a\rb"],
        [b"X: a\x00b"],
        [b"X: a\nb: c"],
        [b"X: a\x7fb"],
        [b"X: a\x1bb"],
        [b": no name"],
        [b"no colon"],
        [b"X\x00: a"],
        [b"X(: a"],
        [b"\xe4: a"],
        [b"Host: other"],
        [b"Host: localhost"],
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(fields):
    assert refusal(get(b"POST / HTTP/1.1", *fields))[0] == 400


@pytest.mark.parametrize("space", range(2))
def test_the_first_field_must_not_be_folded(space):
    line = (b" ", b"\t")[space]
    assert refusal(b"GET / HTTP/1.1\r\n" + line + b"Host: x\r\n\r\n")[0] == 400


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1,1",
        b"GET / http/1.1",
        b"GET / XHTTP/1.1",
        b"GET / HTTP/1.1x",
        b"GET / HTTP/+1.1",
        b"GET /",
        b"GET",
        b"GET / ",
        b"/ HTTP/1.1",
        b"GET / a HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /#a HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET ftp://a/ HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://u@a/ HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"\x00GET / HTTP/1.1",
    ],
)
def test_a_request_line_has_one_form(line):
    assert refusal(get(line))[0] == 400


@pytest.mark.parametrize("version", [b"2.0", b"1.2", b"0.9", b"3.0", b"9.9"])
def test_another_version_is_not_supported(version):
    assert refusal(get(b"GET / HTTP/" + version))[0] == 505


def test_the_preface_of_http2_is_no_request():
    assert refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] == 505


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\r\n",
        b"GET / HTTP/1.1\rHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"\n" + get(),
    ],
)
def test_a_line_ends_with_cr_lf(data):
    assert refusal(data)[0] == 400


@pytest.mark.parametrize(
    "host", [None, b"Host:", b"Host: a b", b"Host: u@a", b"Host: a/b"]
)
def test_a_request_needs_one_valid_host(host):
    assert refusal(get(host=host))[0] == 400


def test_transfer_encoding_is_not_for_http_1_0():
    line = b"POST / HTTP/1.0"
    assert refusal(get(line, b"Transfer-Encoding: chunked"))[0] == 400


def test_another_transfer_coding_is_not_implemented():
    line = b"POST / HTTP/1.1"
    assert refusal(get(line, b"Transfer-Encoding: gzip, chunked"))[0] == 501


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5 ;a\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\rx0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"1000000000000005\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\n",
        b"0\n\r\n",
    ],
)
def test_chunks_have_one_form(coded):
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    for size in None, 1:
        connection = H1Connection()
        # What follows is needed to see that a body is too short.
        event = receive(data + coded + get(), connection, size=size)[-1]
        assert isinstance(event, H1RequestRefused) and event.status == 400
        assert connection.data_to_send().startswith(b"HTTP/1.1 400 ")


# ---- Limits ----


def test_a_long_target_is_refused_before_it_ends():
    target = b"/" + b"x" * (MAX_TARGET - 1)
    assert request_of(get(b"GET %b HTTP/1.1" % target)).target == target
    assert refusal(b"GET %bx" % target + b"y" * 100)[0] == 414
    assert refusal(get(b"GET %bx HTTP/1.1" % target))[0] == 414


def test_a_large_head_is_refused_before_it_ends():
    assert refusal(get()[:-2] + b"x: " + b"y" * MAX_HEAD)[0] == 431
    assert refusal(get()[:-2] + b"x: %b\r\n" % (b"y" * 40000) * 2)[0] == 431


def test_many_fields_are_refused():
    most = [b"x: y"] * (MAX_FIELDS - 1)
    assert len(request_of(get(b"GET / HTTP/1.1", *most)).fields) == MAX_FIELDS
    assert refusal(get(b"GET / HTTP/1.1", *most, b"x: y"))[0] == 431


def test_the_lines_of_chunks_are_bounded():
    data = get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    assert receive(data + b"5;" + b"x" * 5000)[-1].status == 400
    small = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    assert receive(data + small * 10)[-1] == H1BodyReceived(b"a" * 10)
    assert receive(data + small * 30)[-1].status == 400


def test_what_is_no_http_is_refused_at_once():
    assert refusal(b"\x16\x03\x01\x02\x00")[0] == 400


def test_head_is_refused_without_content():
    connection = H1Connection()
    receive(b"HEAD / HTTP/1.1\r\n\r\n", connection)
    assert connection.data_to_send().startswith(b"HTTP/1.1 400 ")


def test_what_follows_a_declined_request_on_a_closing_connection_is_dropped():
    connection = H1Connection()
    connection.receive_data(get(b"POST / HTTP/1.1", b"Content-Length: 4") + b"ab")
    connection.close()
    connection.send_response(200, end=True)
    connection.discard_request()
    connection.data_to_send()
    assert not connection.receive_data(b"cd" + get(b"GET /next HTTP/1.1") + b"x: y")
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("secure", [False, True])
def test_an_absolute_target_must_have_the_scheme_of_the_connection(secure):
    other = b"http" if secure else b"https"
    data = get(b"GET %b://example.com/ HTTP/1.1" % other)
    (event,) = receive(data, H1Connection(secure=secure))
    assert event == H1RequestRefused(421, event.reason)
