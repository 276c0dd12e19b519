"""What is read as a request is what h11 reads, and nothing that h11 refuses is.

The differences, each by the name of its rule, are those in which RFC 9112 leaves a
choice, or in which h11 reads more than it allows.
"""

import h11
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
    """A request without what is ours: joined cookies, equal lengths that h11 merges."""
    method, fields, body, trailers, whole = request
    return (
        method,
        [pair for pair in fields if pair[0] != b"cookie"],
        body,
        trailers,
        whole,
    )


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
