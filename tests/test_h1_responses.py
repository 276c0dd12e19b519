"""Responses of HTTP/1.1, as the connection without I/O writes them."""

import pytest

from nghttp2py.errors import (
    BodyQueueFullError,
    HeadersError,
    InvalidBodyLengthError,
    StreamStateError,
)
from nghttp2py.h1 import H1Connection, H1EndReceived, H1RequestRefused

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def asked(*fields, method=b"GET", version=b"1.1", body=b"", **options):
    """A connection with one request."""
    connection = H1Connection(**options)
    lines = [b"%b / HTTP/%b" % (method, version), b"host: x", *fields]
    events = connection.receive_data(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    assert not isinstance(events[-1], H1RequestRefused), events
    return connection


def sent(connection):
    """The head and the rest of what is sent."""
    head, _, rest = connection.data_to_send().partition(b"\r\n\r\n")
    return head.split(b"\r\n"), rest


# ---- How a response ends ----


def test_a_body_has_the_length_that_is_given():
    connection = asked()
    connection.send_response(200, {"content-length": 5})
    connection.send_data(b"hel")
    connection.send_data(b"lo", end=True)
    head = [b"HTTP/1.1 200 OK", b"content-length: 5"]
    assert sent(connection) == (head, b"hello")
    assert connection.response_complete and not connection.closing


def test_a_body_without_a_length_is_chunked():
    connection = asked()
    connection.send_response(200)
    connection.send_data(b"hello")
    connection.send_data(b"")
    connection.send_data(b"x" * 20000)
    connection.send_data(b"!", end=True)
    head, rest = sent(connection)
    assert head == [b"HTTP/1.1 200 OK", b"transfer-encoding: chunked"]
    chunks = b"5\r\nhello\r\n4e20\r\n%b\r\n1\r\n!\r\n0\r\n\r\n" % (b"x" * 20000)
    assert rest == chunks


def test_a_response_without_a_body_says_so():
    connection = asked()
    connection.send_response(404, end=True)
    assert sent(connection) == ([b"HTTP/1.1 404 Not Found", b"content-length: 0"], b"")


@pytest.mark.parametrize(
    ("method", "status", "given", "expected"),
    [
        (b"HEAD", 200, [(b"content-length", b"7")], [b"content-length: 7"]),
        (b"HEAD", 200, [], []),
        (b"GET", 304, [(b"content-length", b"7")], [b"content-length: 7"]),
        (b"GET", 204, [(b"content-length", b"0")], []),
        (b"GET", 204, [], []),
        (b"GET", 205, [], [b"content-length: 0"]),
    ],
)
def test_some_responses_have_no_content(method, status, given, expected):
    for end in True, False:
        connection = asked(method=method)
        connection.send_response(status, given, end=end)
        if not end:
            with pytest.raises(InvalidBodyLengthError):
                connection.send_data(b"x")
            connection.send_data(b"", end=True)
        head, rest = sent(connection)
        assert head[1:] == expected and rest == b""
        assert connection.response_complete and not connection.closing


@pytest.mark.parametrize(
    ("pieces", "actual"), [([b"hello!"], 6), ([b"hel", b"lo!"], 6), ([b"hell"], 4)]
)
def test_a_body_must_fit_its_length(pieces, actual):
    connection = asked()
    connection.send_response(200, [("content-length", "5")])
    *most, last = pieces
    for piece in most:
        connection.send_data(piece)
    with pytest.raises(InvalidBodyLengthError) as caught:
        connection.send_data(last, end=True)
    assert (caught.value.expected, caught.value.actual) == (5, actual)
    assert not connection.response_complete


def test_a_response_that_ends_at_once_must_fit_its_length():
    connection = asked()
    with pytest.raises(InvalidBodyLengthError):
        connection.send_response(200, [("content-length", "5")], end=True)
    connection.send_response(500, end=True)
    assert connection.data_to_send().startswith(b"HTTP/1.1 500 ")


# ---- Trailers ----


@pytest.mark.parametrize("value", [b"gzip, trailers", b"Trailers;q=1, gzip;q=0.5"])
def test_trailers_are_for_a_client_that_asks_for_them(value):
    connection = asked(b"TE: " + value)
    connection.send_response(200)
    connection.send_data(b"hi")
    connection.send_trailers([("x-sum", "1"), ("te", "no")])
    assert sent(connection)[1] == b"2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"
    assert connection.response_complete


def test_other_clients_get_no_trailers():
    for fields, length in [((), None), ((b"TE: trailers",), 2)]:
        connection = asked(*fields)
        connection.send_response(200, {"content-length": length} if length else {})
        connection.send_data(b"hi")
        connection.send_trailers([("x-sum", "1")])
        rest = sent(connection)[1]
        assert rest == (b"hi" if length else b"2\r\nhi\r\n0\r\n\r\n")
        assert connection.response_complete


def test_trailers_must_be_valid_and_come_last():
    connection = asked()
    with pytest.raises(StreamStateError):
        connection.send_trailers([])
    connection.send_response(200)
    with pytest.raises(HeadersError):
        connection.send_trailers([("a b", "1")])
    with pytest.raises(HeadersError):
        connection.send_trailers([(":status", "200")])
    connection.send_trailers([])
    with pytest.raises(StreamStateError):
        connection.send_data(b"x")


# ---- Whether the connection goes on ----


@pytest.mark.parametrize(
    ("version", "fields", "sent_field"),
    [
        (b"1.1", [], None),
        (b"1.1", [b"Connection: keep-alive"], None),
        (b"1.1", [b"Connection: Close"], b"connection: close"),
        (b"1.1", [b"Connection: keep-alive, close"], b"connection: close"),
        (b"1.1", [b"Connection: x", b"Connection: close"], b"connection: close"),
        (b"1.0", [], b"connection: close"),
        (b"1.0", [b"Connection: keep-alive"], b"connection: keep-alive"),
    ],
)
def test_the_client_says_whether_the_connection_goes_on(version, fields, sent_field):
    connection = asked(*fields, version=version)
    connection.send_response(200, end=True)
    head, _ = sent(connection)
    options = [field for field in head if field.startswith(b"connection:")]
    assert options == ([sent_field] if sent_field else [])
    assert connection.closing is (sent_field == b"connection: close")
    assert bool(connection.receive_data(GET)) is not connection.closing


def test_a_body_without_a_length_ends_with_a_connection_of_http_1_0():
    connection = asked(b"Connection: keep-alive", version=b"1.0")
    connection.send_response(200)
    connection.send_data(b"hel")
    connection.send_data(b"lo", end=True)
    head, rest = sent(connection)
    assert head == [b"HTTP/1.1 200 OK", b"connection: close"] and rest == b"hello"
    assert connection.closing


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 20_000])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_body_that_is_known_with_the_head_has_its_length(body, version):
    connection = asked(version=version)
    connection.send_response(200, {"x": "y"})
    connection.send_data(body, end=True)
    head, rest = sent(connection)
    assert b"content-length: %d" % len(body) in head and rest == body
    assert not any(line.startswith(b"transfer-encoding") for line in head)
    assert connection.response_complete


@pytest.mark.parametrize("written", [True, False])
def test_a_body_in_pieces_or_after_its_head_is_chunked(written):
    connection = asked()
    connection.send_response(200)
    head = connection.data_to_send() if written else b""
    if not written:
        connection.send_data(b"he")
    connection.send_data(b"llo", end=True)
    head, _, rest = (head + connection.data_to_send()).partition(b"\r\n\r\n")
    assert head.endswith(b"\r\ntransfer-encoding: chunked")
    assert rest.endswith(b"3\r\nllo\r\n0\r\n\r\n")


def test_the_length_of_a_response_is_not_that_of_the_one_before():
    connection = asked(body=GET)
    for body in b"first", b"second":
        connection.send_response(200)
        connection.send_data(body, end=True)
        connection.receive_data(b"")
    assert connection.data_to_send().split(b"\r\n") == [
        *(b"HTTP/1.1 200 OK", b"content-length: 5", b""),
        *(b"firstHTTP/1.1 200 OK", b"content-length: 6", b"", b"second"),
    ]


def test_a_connection_that_is_closing_says_so():
    connection = asked()
    connection.close()
    connection.send_response(200, end=True)
    assert b"connection: close" in sent(connection)[0]
    assert connection.receive_data(GET) == []


def test_fields_of_the_connection_are_ours():
    connection = asked()
    fields = [
        ("Connection", "keep-alive, x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "gzip"),
        ("upgrade", "h2c"),
        ("te", "trailers"),
        ("X-Other", "1"),
    ]
    connection.send_response(200, fields, end=True)
    head, _ = sent(connection)
    assert head == [b"HTTP/1.1 200 OK", b"X-Other: 1", b"content-length: 0"]


def test_the_application_may_close_the_connection():
    connection = asked()
    connection.send_response(200, [("connection", "Close")], end=True)
    assert sent(connection)[0][-1] == b"connection: close" and connection.closing


def test_426_names_its_protocol():
    connection = asked()
    connection.send_response(426, [("upgrade", "websocket")], end=True)
    head, _ = sent(connection)
    assert b"upgrade: websocket" in head and b"connection: upgrade" in head


# ---- Informational responses ----


def test_informational_responses_come_first():
    connection = asked()
    connection.send_informational(103, [("link", "</a>"), ("content-length", "0")])
    connection.send_response(200, end=True)
    data = connection.data_to_send()
    assert data.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 "
    )
    with pytest.raises(StreamStateError):
        connection.send_informational(103)


@pytest.mark.parametrize("status", [101, 200, 99, 1000])
def test_informational_responses_have_their_status(status):
    with pytest.raises(HeadersError):
        asked().send_informational(status)


EXPECT = (b"Expect: 100-continue", b"Content-Length: 2")


def test_continue_is_sent_once_and_only_to_who_waits_for_it():
    connection = asked(*EXPECT)
    connection.send_continue()
    connection.send_continue()
    assert connection.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.receive_data(b"hi")
    connection.send_response(200, end=True)
    assert not connection.closing
    for other in (
        asked(b"Content-Length: 2"),
        asked(*EXPECT, version=b"1.0"),
        asked(*EXPECT, body=b"h"),
        asked(*EXPECT, body=b"hi"),
        asked(b"Expect: 100-continue"),
    ):
        other.send_continue()
        assert other.data_to_send() == b""


def test_a_final_response_instead_of_continue_ends_the_connection():
    """The client may send the body, or not (RFC 9110, 10.1.1)."""
    connection = asked(*EXPECT)
    connection.send_response(413, end=True)
    assert sent(connection)[0][-1] == b"connection: close" and connection.closing


# ---- Misuse ----


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999, 1000, 0])
def test_a_final_response_has_its_status(status):
    with pytest.raises(HeadersError):
        asked().send_response(status)


@pytest.mark.parametrize("status", ["200", None, True, 200.0])
def test_a_status_is_an_int(status):
    with pytest.raises(TypeError):
        asked().send_response(status)


@pytest.mark.parametrize(
    "field",
    [
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("x", " a"),
        ("x\r\ny", "a"),
        ("x:y", "a"),
        ("", "a"),
        (":path", "/"),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
    ],
)
def test_invalid_fields_are_refused(field):
    connection = asked()
    with pytest.raises(HeadersError):
        connection.send_response(200, [field])
    assert connection.data_to_send() == b""
    connection.send_response(200, end=True)


def test_calls_in_a_wrong_order_are_refused():
    connection = H1Connection()
    for call, *arguments in [
        (connection.send_response, 200),
        (connection.send_data, b"x"),
        (connection.send_trailers, ()),
        (connection.send_informational, 103),
        (connection.switch_protocols,),
    ]:
        with pytest.raises(StreamStateError):
            call(*arguments)
    connection.receive_data(GET)
    with pytest.raises(StreamStateError):
        connection.switch_protocols()
    with pytest.raises(StreamStateError):
        connection.send_data(b"x")
    connection.send_response(200)
    with pytest.raises(StreamStateError):
        connection.send_response(200)


def test_the_queue_of_a_body_is_bounded():
    connection = asked(max_body_queue=10)
    connection.send_response(200)
    connection.send_data(b"x" * 20)  # one piece of any size
    with pytest.raises(BodyQueueFullError):
        connection.send_data(b"x")
    connection.data_to_send()
    connection.send_data(b"x")


def test_what_is_sent_may_be_taken_in_parts():
    body = bytes(range(256)) * 1000
    connection = asked()
    connection.send_response(200, {"content-length": len(body)})
    connection.send_data(body[:100_000])
    connection.send_data(body[100_000:], end=True)
    parts = []
    while part := connection.data_to_send(30_000):
        assert len(part) <= 30_000
        parts.append(part)
    assert b"".join(parts).endswith(b"\r\n\r\n" + body)


# ---- Requests that are declined, or refused too late ----


def test_the_rest_of_a_declined_request_is_dropped():
    connection = asked(b"Content-Length: 10", body=b"hello")
    connection.send_response(413, end=True)
    connection.discard_request()
    assert connection.receive_data(b"wor") == []
    request, end = connection.receive_data(b"ld" + GET)
    assert request.method == b"GET" and end == H1EndReceived()


def test_an_invalid_body_after_the_response_began_breaks_it():
    connection = asked(b"Transfer-Encoding: chunked")
    connection.send_response(200)
    connection.data_to_send()
    (event,) = connection.receive_data(b"x\r\n")
    assert event.status is None and connection.closing
    assert connection.data_to_send() == b""


def test_a_late_request_is_refused_by_its_server():
    connection = asked(b"Content-Length: 10")
    (event,) = connection.refuse(408, "too slow")
    assert event == H1RequestRefused(408, "too slow")
    assert connection.data_to_send().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert connection.refuse(408, "again") == []


def test_a_205_has_no_length_but_zero():
    connection = asked()
    with pytest.raises(InvalidBodyLengthError):
        connection.send_response(205, [(b"content-length", b"5")])


def test_a_large_piece_is_queued_in_parts_and_leaves_whole():
    connection = asked()
    body = bytes(range(256)) * 2000
    connection.send_response(200, [(b"content-length", b"%d" % len(body))])
    connection.send_data(body, end=True)
    data = b""
    while piece := connection.data_to_send(50_000):
        assert len(piece) <= 50_000
        data += piece
    assert data.partition(b"\r\n\r\n")[2] == body
