"""What is read as a request is what h11 reads, and nothing that h11 refuses is.

The differences, each by the name of its rule, are those in which RFC 9112 leaves a
choice, or in which h11 reads more than it allows.  What both h11 and llhttp (httptools)
read is read here, but for rules that keep one message from being read in two ways.
"""

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nghttp2py.h1 import (
    H1BodyReceived,
    H1Connection,
    H1EndReceived,
    H1RequestRefused,
    H1TrailersReceived,
    RequestReceived,
)

# What only h11 accepts: a line end without CR, folded fields, an empty or odd host, a
# target without a valid form, equal lengths, more forms of chunks.
H11_IS_LENIENT = {
    "a line must end with CR LF",
    "a field must not be folded",
    "host must not be empty",
    "host holds a character that is not allowed",
    "host has an invalid port",
    "the version must be HTTP/1.1 or HTTP/1.0",
    "the request target has no valid form",
    "the target of CONNECT must be host:port",
    "content-length must not be sent with transfer-encoding",
    "content-length must be a decimal number",  # but a list of equal ones
    "content-length must not be repeated",
    "transfer-encoding is not for HTTP/1.0",
    "CONNECT must not have content",
    "the size of a chunk must be a hexadecimal number",
    "this field must not be in trailers",
    ":path must not have a fragment",
    ":path must start with '/', or be '*' for OPTIONS",
}


def ours(data):
    """The parts of each request; None for the rest if it is refused, and the reason."""
    connection = H1Connection()
    read, reason = [], None
    events = connection.receive_data(data)
    while events:
        for event in events:
            if isinstance(event, RequestReceived):
                read.append([event.method, event.fields, b"", (), False])
            elif isinstance(event, H1BodyReceived):
                read[-1][2] += event.data
            elif isinstance(event, H1TrailersReceived):
                read[-1][3] = event.headers
            elif isinstance(event, H1EndReceived):
                read[-1][4] = True
            elif isinstance(event, H1RequestRefused):
                reason = event.reason
        if reason or not (read and read[-1][4]):
            break
        connection.send_response(200, end=True)
        if connection.closing:
            break
        events = connection.receive_data(b"")
    return read, reason


def theirs(data):
    """The same by h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    read, reason = [], None
    connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            reason = str(error)
            break
        if isinstance(event, h11.Request):
            fields = tuple((bytes(n), bytes(v)) for n, v in event.headers)
            read.append([bytes(event.method), fields, b"", (), False])
        elif isinstance(event, h11.Data):
            read[-1][2] += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            read[-1][3] = tuple((bytes(n), bytes(v)) for n, v in event.headers)
            read[-1][4] = True
            connection.send(h11.Response(status_code=200, headers=[]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                break
            if connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
        else:
            break
    return read, reason


class Llhttp:
    """The same by llhttp, whose callbacks these are."""

    def __init__(self, data):
        self.read = []
        self.reason = None
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reason = str(error) or type(error).__name__

    def on_message_begin(self):
        self.read.append([b"", (), b"", (), False])
        self.in_head = True

    def on_header(self, name, value):
        self.read[-1][1 if self.in_head else 3] += (
            (name.lower(), value.strip(b" \t")),
        )

    def on_headers_complete(self):
        self.in_head = False
        self.read[-1][0] = self.parser.get_method()

    def on_body(self, body):
        self.read[-1][2] += body

    def on_message_complete(self):
        self.read[-1][4] = True


# Rules that refuse what both others read, so that no proxy in front and this server
# read a message in two ways ("request smuggling"): how it is framed, and for whom.
STRICT = {
    "host must not be empty",
    "host holds a character that is not allowed",
    "host has an invalid port",
    "content-length must not be sent with transfer-encoding",
    "transfer-encoding is not for HTTP/1.0",
    "this field must not be in trailers",
    ":path must not have a fragment",
    "the request target has no valid form",
    ":path must start with '/', or be '*' for OPTIONS",
    "the target of CONNECT must be host:port",
    "CONNECT must not have content",
}


def compare_with_both(data):
    """Check that what both others read whole is read, with the same parts."""
    mine, reason = ours(data)
    one, _ = theirs(data)
    other = Llhttp(data).read
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if not (a[4] and b[4] and normal(a) == normal(b)):
            return
        if number >= len(mine) or not mine[number][4]:
            if reason is None:
                # A response of ours has ended the connection, as the client asked.
                assert number >= len(mine) > 0, data
            else:
                assert any(reason.startswith(rule) for rule in STRICT), (data, reason)
            return
        assert normal(mine[number]) == normal(a), data


def compare(data):
    """Check that both read the same, but for the differences that have a name."""
    mine, reason = ours(data)
    other, complaint = theirs(data)
    for one, two in zip(mine, other, strict=False):
        if reason is None and complaint is None:
            assert normal(one) == normal(two), data
        else:
            assert one[0] == two[0], data
    if reason is None and complaint is not None:
        # It refuses what RFC 9112 allows.
        assert allowed(complaint, data), (data, complaint)
    elif reason is not None and complaint is None and extent(other) > extent(mine):
        # It has read more, and does not just wait for more.
        known = any(reason.startswith(rule) for rule in H11_IS_LENIENT)
        assert known, (data, reason)


def extent(read):
    """How much was read: the requests, and how many of them are whole."""
    return len(read), sum(request[4] for request in read)


def allowed(complaint, data):
    """Whether a complaint of h11 is about what RFC 9112 lets a server accept."""
    return (
        "no request line received" in complaint  # 2.2: an empty line before
        # The rules for a path are those of HTTP/2: octets that are no ASCII are passed
        # on, as browsers of old send them.
        or ("illegal request line" in complaint and not data.isascii())
    )


def normal(request):
    """A request without what is ours or h11's: joined cookies, values written anew."""
    method, fields, body, trailers, whole = request
    kept = []
    for name, value in fields:
        if name == b"content-length":
            kept.append((name, value.partition(b",")[0].lstrip(b"0") or b"0"))
        elif name == b"transfer-encoding":
            kept.append((name, value.lower()))
        elif name != b"cookie":
            kept.append((name, value))
    return method, kept, body, trailers, whole


# ---- Requests of a grammar, with mistakes ----

TOKENS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"x-own", b"G T", b""])
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"*", b"a", b"/\x7f", b"/ b", b"//"])
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1", b"http/1.1"])
ENDS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n"])
NAMES = st.sampled_from(
    [
        *(
            b"X-A",
            b"accept",
            b"Cookie",
            b"x_y",
            b"a b",
            b"a ",
            b" a",
            b"",
            b"a\x00",
            b"\xe4",
        ),
        *(b"Content-Length", b"Transfer-Encoding", b"Connection", b"Host", b"Expect"),
    ]
)
VALUES = st.sampled_from(
    [
        *(
            b"1",
            b"3",
            b"chunked",
            b"close",
            b"keep-alive",
            b"",
            b"a b",
            b"\tx ",
            b"\xe4",
        ),
        *(b"+3", b"3, 3", b"0x3", b"\xa0chunked", b"gzip, chunked", b"a\x00", b"a\x0b"),
    ]
)
CHUNKS = st.sampled_from(
    [
        *(b"3\r\nabc\r\n", b"3;x=y\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n"),
        *(b"03\r\nabc\r\n", b"3 \r\nabc\r\n", b"+3\r\nabc\r\n", b"3\nabc\n", b"\r\n"),
    ]
)


@st.composite
def messages(draw):
    host = draw(st.sampled_from([[b"Host: x"]] * 8 + [[], [b"Host: x", b"host: y"]]))
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    lines = [
        b" ".join([draw(TOKENS), draw(TARGETS), draw(VERSIONS)]),
        *host,
        *(name + b": " + value for name, value in fields),
        b"",
    ]
    head = b"".join(line + draw(ENDS) for line in lines)
    body = draw(st.sampled_from([b"", b"abc"])) + b"".join(
        draw(st.lists(CHUNKS, max_size=3))
    )
    return head + body


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(messages(), min_size=1, max_size=2).map(b"".join))
def test_requests_with_mistakes_are_read_as_h11_reads_them(data):
    compare(data)


METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"PROPFIND"]
)
WHOLE_TARGETS = st.sampled_from(
    [b"/", b"/a?b=c&d", b"//a", b"/%zz", b"/a;b=1", b"/?", b"http://x/a?b", b"/'(~!"]
)
FIELDS = st.sampled_from(
    [
        *(
            b"X-A: b",
            b"X-A:b",
            b"x_y: \t a b \t",
            b"X-Empty:",
            b"Accept: */*, text/x;q=0",
        ),
        *(b"!#$%&'*+-.^_`|~9: odd", b"X-Text: \xe4\x80", b"Cookie: a=b", b"Cookie: c"),
        *(b"Connection: keep-alive", b"Connection: x, Keep-Alive", b"Expect: x"),
        *(b"Keep-Alive: timeout=5", b"TE: trailers", b"X-Colon: a:b: c", b"Range: x"),
        *(b"Referer: http://\xff/", b'If-Match: "a", W/"b"', b'X-Q: "\\"\t"'),
    ]
)
BODIES = st.sampled_from(
    [
        (),
        (b"Content-Length: 0", b""),
        (b"content-length:  5\t", b"hello"),
        (b"Content-Length: 0003", b"a\r\n"),
        (b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
        (b"transfer-encoding: CHUNKED", b"05\r\nhello\r\n1\r\n!\r\n00\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"A;x=y;z\r\n0123456789\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b'1;x="a b"\r\n\n\r\n0\r\nX-T: 1\r\n\r\n'),
    ]
)


@st.composite
def whole_messages(draw):
    fields = [b"Host: x", *draw(st.lists(FIELDS, max_size=6))]
    framing, body = draw(BODIES) or (None, b"")
    if framing:
        fields.insert(draw(st.integers(0, len(fields))), framing)
    line = b"%b %b HTTP/1.%d" % (
        draw(METHODS),
        draw(WHOLE_TARGETS),
        1 if framing and framing.lower().startswith(b"t") else draw(st.integers(0, 1)),
    )
    return b"\r\n".join([line, *fields, b"", b""]) + body


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(whole_messages(), min_size=1, max_size=4).map(b"".join))
def test_what_h11_and_llhttp_read_is_read_with_the_same_parts(data):
    first = [read[0] for read in (ours(data)[0], theirs(data)[0], Llhttp(data).read)]
    assert normal(first[0]) == normal(first[1]) == normal(first[2]) and first[0][4]
    compare_with_both(data)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(messages(), min_size=1, max_size=2).map(b"".join))
def test_only_rules_against_smuggling_refuse_what_both_read(data):
    compare_with_both(data)


GOOD = (
    b"POST /a HTTP/1.1\r\nHost: x\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    b"GET /b HTTP/1.1\r\nHost: y\r\nContent-Length: 3\r\n\r\nabc"
)


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.integers(0, len(GOOD) - 1),
    st.integers(0, 2),
    st.sampled_from(
        [b" ", b"\t", b"\r", b"\n", b"\0", b":", b"x", b"0", b"\xa0", b";"]
    ),
)
def test_a_changed_octet_is_read_as_h11_reads_it(at, dropped, octet):
    compare(GOOD[:at] + octet + GOOD[at + dropped :])


@pytest.mark.parametrize("size", [1, 7, None])
def test_both_read_good_requests(size):
    assert ours(GOOD)[0] and ours(GOOD)[1] is None
    assert [normal(r) for r in ours(GOOD)[0]] == [normal(r) for r in theirs(GOOD)[0]]
