"""Messages that are malformed, incomplete or over a limit: one stream pays.

RFC 9114, 4.1 and 4.1.2.  test_fields.py has what is wrong in the fields alone.
"""

import asyncio
import functools

import pytest
from fake_quic import (
    REQUEST,
    RESPONSE,
    FakeQuic,
    Pair,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from h3_streams import OK, pair, request, whole
from loops import in_loop

from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.errors import InvalidBodyLengthError, StreamResetError
from nghttp2py.h3 import H3Configuration, H3Connection, QPACKEncoder
from nghttp2py.h3.connection import (
    ErrorCode,
    FrameUnexpected,
    encode_frame,
    encode_settings,
)
from nghttp2py.h3.events import (
    DataReceived,
    HeadersReceived,
    StreamAborted,
)
from nghttp2py.h3.exceptions import NotEnabledError

STRICT = H3Configuration(extended=True, stream_errors=True)
BARE = H3Configuration()
MESSAGE = ErrorCode.H3_MESSAGE_ERROR
INCOMPLETE = ErrorCode.H3_REQUEST_INCOMPLETE
LOAD = ErrorCode.H3_EXCESSIVE_LOAD
CANCELLED = ErrorCode.H3_REQUEST_CANCELLED
CONNECT = [(b":method", b"CONNECT"), (b":authority", b"a.example:443")]
HEAD = [(b":method", b"HEAD"), *REQUEST[1:]]
TRAILERS = [(b"x-sum", b"1")]

chunks = pytest.mark.parametrize("chunk", [None, 1])


def headers(fields):
    return encode_frame(1, QPACKEncoder().encode(0, fields))


def body(data=b"body"):
    return encode_frame(0, data)


def with_length(fields, length):
    return [*fields, (b"content-length", b"%d" % length)]


class End:
    """One end, to which bytes are given as its peer would send them."""

    def __init__(self, *, client=False, config=STRICT, request=REQUEST):
        self.quic = FakeQuic(client)
        self.h3 = H3Connection(self.quic, config=config)
        if client:
            self.h3.send_headers(0, request, end_stream=request is not CONNECT)
        self.quic.queue.clear()

    def give(self, data, fin=False, *, stream_id=0, chunk=None):
        size = chunk or max(len(data), 1)
        parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        events = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            events += self.h3.handle_event(
                StreamDataReceived(part, fin and last, stream_id)
            )
        return events

    def ends(self):
        """What ended streams, in order."""
        return [e for e in self.quic.queue if not isinstance(e, StreamDataReceived)]

    def assert_aborted(self, events, code=MESSAGE):
        """The last event says so, and no event says that the message has ended."""
        assert self.quic.closed is None
        assert isinstance(events[-1], StreamAborted)
        assert (events[-1].error_code, events[-1].stream_id) == (code, 0)
        assert events[-1].reason
        assert not any(getattr(event, "stream_ended", False) for event in events)
        assert all(end.error_code == code for end in self.ends())
        # The connection lives on.
        if not self.quic.configuration.is_client:
            assert self.give(headers(REQUEST), True, stream_id=400)[0].stream_ended


# ---- Responses without a body ----


@chunks
@pytest.mark.parametrize(
    ("request_", "status"), [(HEAD, b"200"), (REQUEST, b"204"), (REQUEST, b"304")]
)
def test_a_body_where_there_is_none_ends_the_stream(request_, status, chunk):
    end = End(client=True, request=request_)
    data = headers([(b":status", status)]) + body(b"smuggled")
    events = end.give(data, True, chunk=chunk)
    end.assert_aborted(events)
    assert not any(isinstance(event, DataReceived) for event in events)

    end = End(client=True, request=request_, config=BARE)
    assert not any(e.__class__ is DataReceived for e in end.give(data, chunk=chunk))
    assert end.quic.closed[0] == MESSAGE


def test_an_empty_frame_is_no_body():
    end = End(client=True, request=HEAD)
    events = end.give(headers(with_length(RESPONSE, 9)) + body(b""), True)
    assert events[-1].stream_ended
    assert end.quic.closed is None


# ---- CONNECT ----


def test_a_connected_tunnel_has_no_trailers():
    """RFC 9114, 4.4: any frame but DATA is a connection error."""
    for config in (STRICT, BARE):
        end = End(client=True, request=CONNECT, config=config)
        assert len(end.give(headers(RESPONSE) + body())) == 2
        end.give(headers(TRAILERS))
        assert end.quic.closed[0] == ErrorCode.H3_FRAME_UNEXPECTED

        end = End(config=config)
        end.give(headers(CONNECT))
        end.h3.send_headers(0, RESPONSE)
        end.h3.send_data(0, b"x", False)
        with pytest.raises(FrameUnexpected):
            end.h3.send_headers(0, TRAILERS)
        end.give(headers(TRAILERS))
        assert end.quic.closed[0] == ErrorCode.H3_FRAME_UNEXPECTED


def test_a_refused_connect_is_a_message_like_others():
    end = End(client=True, request=CONNECT)
    refusal = headers(with_length([(b":status", b"407")], 4))
    events = end.give(refusal + body() + headers(TRAILERS), True)
    assert events[-1].stream_ended
    end = End(client=True, request=CONNECT)
    # A length of the 2xx response means nothing (RFC 9110, 8.6).
    events = end.give(headers(with_length(RESPONSE, 1)) + body(b"tunnel"), True)
    assert events[-1].stream_ended


# ---- content-length ----


@chunks
@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize(
    ("length", "rest"),
    [
        (3, body()),
        (5, body()),
        (5, body() + headers(TRAILERS)),
        (5, b"\x21\0"),
        (5, b""),
    ],
)
def test_a_body_of_another_length_never_ends_well(client, length, rest, chunk):
    fields = with_length(RESPONSE if client else REQUEST, length)
    end = End(client=client)
    events = end.give(headers(fields) + rest, True, chunk=chunk)
    end.assert_aborted(events)

    end = End(client=client)
    events = end.give(headers(fields) + rest, chunk=chunk)
    events += end.give(b"", True)
    end.assert_aborted(events)


def test_a_body_that_is_too_long_is_refused_at_once():
    end = End()
    events = end.give(headers(with_length(REQUEST, 3)) + body())
    end.assert_aborted(events)
    assert end.ends()[:2] == [StopSendingReceived(MESSAGE, 0), StreamReset(MESSAGE, 0)]


# ---- Streams that end too early ----


@chunks
@pytest.mark.parametrize("data", [b"", b"\x21\3abc"])
def test_a_stream_that_ends_without_a_request_is_reset(data, chunk):
    end = End()
    (event,) = end.give(data, True, chunk=chunk)
    end.assert_aborted([event], INCOMPLETE)
    assert end.ends()[0] == StreamReset(INCOMPLETE, 0)
    assert 0 not in end.h3._stream

    end = End(config=BARE)
    assert end.give(data, True, chunk=chunk) == []
    assert end.ends() == [StreamReset(INCOMPLETE, 0)]
    assert end.quic.closed is None


@chunks
@pytest.mark.parametrize("data", [b"", b"\x21\3abc", headers([(b":status", b"103")])])
def test_a_stream_that_ends_without_a_response_is_no_good_end(data, chunk):
    end = End(client=True)
    end.assert_aborted(end.give(data, True, chunk=chunk))

    end = End(client=True, config=BARE)
    events = end.give(data, True, chunk=chunk)
    assert not any(event.stream_ended for event in events)
    assert end.quic.closed[0] == MESSAGE


def test_a_promised_response_must_come_too():
    config = H3Configuration(stream_errors=True)
    pair = Pair(config=config)
    stream_id, _ = pair.request()
    push = pair.server.send_push_promise(stream_id, REQUEST)
    pair.to_client()
    pair.server_quic.send_stream_data(push, b"", True)
    (event,) = pair.to_client()
    assert isinstance(event, StreamAborted)
    assert (event.stream_id, event.push_id) == (push, 0)
    pair.assert_open()


def test_an_aborted_stream_cancels_its_field_sections():
    """RFC 9204, 2.2.2.2"""
    end = End()
    end.give(headers([*REQUEST, (b"Bad", b"")]))
    decoder = end.h3._local_decoder_stream_id
    assert end.quic.sent(decoder) == b"\x40"


def test_what_waits_behind_a_blocked_section_goes_with_its_stream():
    pair = Pair(config=STRICT)
    fields = with_length([*REQUEST, (b"x-much", b"v" * 30)], 3)
    pair.request(with_length(fields[:-1], 0))
    pair.to_client()
    # Their encoder stream is late.
    pair.client.send_headers(100, fields)
    pair.client.send_data(100, b"ab", False)
    queue = list(pair.client_quic.queue)
    late = [e for e in queue if e.stream_id == pair.client._local_encoder_stream_id]
    for event in queue:
        if event not in late:
            pair.server.handle_event(event)
    assert late
    assert pair.server._stream[100].blocked
    events = [e for event in late for e in pair.server.handle_event(event)]
    events += pair.server.handle_event(StreamDataReceived(b"", True, 100))
    assert isinstance(events[-1], StreamAborted)
    assert not any(getattr(event, "stream_ended", False) for event in events)
    assert 100 not in pair.server._stream
    pair.client_quic.queue.clear()
    _, events = pair.request()
    assert events[0].stream_ended


# ---- What we send ----


def server_of(request, config=STRICT):
    end = End(config=config)
    end.give(headers(request), True)
    end.quic.queue.clear()
    return end


def test_a_body_is_sent_as_long_as_it_was_announced():
    """RFC 9114, 4.1.2"""
    end = server_of(REQUEST)
    with pytest.raises(InvalidBodyLengthError) as caught:
        end.h3.send_headers(0, with_length(RESPONSE, 5), end_stream=True)
    assert (caught.value.expected, caught.value.actual) == (5, 0)
    end.h3.send_headers(0, with_length(RESPONSE, 5))
    end.quic.queue.clear()
    for data, ends in ((b"123456", False), (b"1234", True), (b"", True)):
        with pytest.raises(InvalidBodyLengthError):
            end.h3.send_data(0, data, ends)
    with pytest.raises(InvalidBodyLengthError):
        end.h3.send_headers(0, TRAILERS, end_stream=True)
    assert not end.quic.queue
    end.h3.send_data(0, b"123", False)
    with pytest.raises(InvalidBodyLengthError) as caught:
        end.h3.send_data(0, b"456", False)
    assert (caught.value.expected, caught.value.actual) == (5, 6)
    end.h3.send_data(0, b"45", True)
    assert end.quic.queue[-1].end_stream
    assert 0 not in end.h3._stream


def test_a_request_body_is_as_long_as_announced():
    end = End(client=True)
    end.h3.send_headers(4, with_length(REQUEST, 2))
    end.quic.queue.clear()
    with pytest.raises(InvalidBodyLengthError):
        end.h3.send_data(4, b"1", True)
    with pytest.raises(InvalidBodyLengthError):
        end.h3.send_headers(8, with_length(REQUEST, 2), end_stream=True)
    assert not end.quic.queue


@pytest.mark.parametrize(
    ("request_", "status"), [(HEAD, b"200"), (REQUEST, b"204"), (REQUEST, b"304")]
)
def test_no_body_is_sent_where_there_is_none(request_, status):
    end = server_of(request_)
    fields = [(b":status", status)]
    if status != b"204":
        fields = with_length(fields, 9)
    end.h3.send_headers(0, fields)
    end.quic.queue.clear()
    with pytest.raises(InvalidBodyLengthError):
        end.h3.send_data(0, b"x", False)
    assert not end.quic.queue
    end.h3.send_data(0, b"", True)
    assert end.quic.queue[-1].end_stream


def test_a_tunnel_has_no_length():
    end = End()
    end.give(headers(CONNECT))
    end.h3.send_headers(0, RESPONSE)
    end.h3.send_data(0, b"anything", False)
    end.h3.send_data(0, b"", True)


def test_interim_responses_do_not_count():
    end = server_of(REQUEST)
    end.h3.send_headers(0, [(b":status", b"103")])
    end.h3.send_headers(0, with_length(RESPONSE, 2))
    end.h3.send_data(0, b"ab", True)


# ---- Streams that we end ----


def test_a_stream_that_is_reset_and_stopped_leaves_nothing():
    """RFC 9114, 4.1.1"""
    end = End()
    end.give(headers(REQUEST) + body(b"a"))
    end.quic.queue.clear()
    end.h3.stop_stream(0, ErrorCode.H3_NO_ERROR)
    assert end.give(body(b"b")) == []
    end.h3.reset_stream(0, CANCELLED)
    for _ in range(2):
        end.h3.stop_stream(0, CANCELLED)
        end.h3.reset_stream(0, CANCELLED)
    assert end.ends() == [
        StopSendingReceived(ErrorCode.H3_NO_ERROR, 0),
        StreamReset(CANCELLED, 0),
    ]
    assert end.h3.handle_event(StreamReset(CANCELLED, 0)) == []
    assert 0 not in end.h3._stream


def test_a_response_goes_on_when_its_request_is_stopped():
    end = End()
    end.give(headers(REQUEST))
    end.h3.stop_stream(0, ErrorCode.H3_NO_ERROR)
    end.h3.send_headers(0, RESPONSE)
    assert end.h3.handle_event(StreamReset(CANCELLED, 0)) == []
    (event,) = end.h3.handle_event(StopSendingReceived(CANCELLED, 0))
    assert event.error_code == CANCELLED
    assert 0 not in end.h3._stream


def test_an_error_code_has_its_range():
    end = End()
    for call in (end.h3.reset_stream, end.h3.stop_stream):
        with pytest.raises(ValueError, match="error code"):
            call(0, 1 << 62)
        with pytest.raises(ValueError, match="error code"):
            call(0, -1)
        call(4000, 1)  # there is none
    assert not end.quic.queue


# ---- Bounds ----


def many(n):
    return [*REQUEST, *[(b"a", b"")] * (n - len(REQUEST))]


def test_the_number_of_fields_has_a_bound():
    end = End()
    assert isinstance(end.give(headers(many(256)))[0], HeadersReceived)
    end = End()
    end.assert_aborted(end.give(headers(many(257))), LOAD)
    end = End(config=BARE)
    assert end.give(headers(many(257))) == []
    assert end.quic.closed == (LOAD, "Field section has too many fields")
    end = End()
    events = end.give(headers(REQUEST) + headers([(b"a", b"")] * 257), True)
    end.assert_aborted(events, LOAD)
    end = End(client=True, config=H3Configuration(max_field_count=2))
    end.give(headers([*RESPONSE, (b"a", b"")]))
    assert end.quic.closed[0] == LOAD


@chunks
def test_a_section_that_is_too_large_costs_its_stream(chunk):
    end = End()
    large = headers([*REQUEST, *[(b"a", b"x" * 4000)] * 20])
    end.assert_aborted(end.give(large, chunk=chunk), LOAD)
    # The frame's length is enough to know.
    end = End()
    end.assert_aborted(end.give(b"\1\x80\x10\0\0", chunk=chunk), LOAD)
    assert end.give(bytes(2000)) == []


def request_and_reset(end, stream_id):
    end.give(headers(REQUEST), stream_id=stream_id)
    end.h3.handle_event(StreamReset(CANCELLED, stream_id))
    end.h3.handle_event(StopSendingReceived(CANCELLED, stream_id))


def request_and_stop(end, stream_id):
    end.give(headers(REQUEST), True, stream_id=stream_id)
    end.h3.handle_event(StopSendingReceived(CANCELLED, stream_id))


def reset_before_the_response_has_a_body(end, stream_id):
    end.give(headers(REQUEST), stream_id=stream_id)
    end.h3.send_headers(stream_id, RESPONSE)
    end.h3.handle_event(StreamReset(CANCELLED, stream_id))


def half_a_request(end, stream_id):
    end.give(headers(REQUEST)[:5], stream_id=stream_id)
    end.h3.handle_event(StreamReset(CANCELLED, stream_id))


def no_request(end, stream_id):
    end.give(b"", True, stream_id=stream_id)


def nothing_but_a_reset(end, stream_id):
    end.h3.handle_event(StreamReset(CANCELLED, stream_id))


def malformed(end, stream_id):
    end.give(headers([*REQUEST, (b"Bad", b"")]), stream_id=stream_id)


def too_many_fields(end, stream_id):
    end.give(headers(many(300)), stream_id=stream_id)


BAD = [
    request_and_reset,
    request_and_stop,
    reset_before_the_response_has_a_body,
    half_a_request,
    no_request,
    nothing_but_a_reset,
    malformed,
    too_many_fields,
]


@pytest.mark.parametrize("abuse", BAD)
def test_requests_that_end_badly_have_a_bound(abuse):
    end = End()
    for i in range(1000):
        abuse(end, 4 * i)
        assert end.quic.closed is None
    abuse(end, 4000)
    assert end.quic.closed == (LOAD, "Too many requests do not end well")
    assert len(end.h3._stream) <= 2000


def test_requests_that_end_well_make_up_for_others():
    end = End()
    for i in range(3000):
        request_and_reset(end, 8 * i)
        end.give(headers(REQUEST), True, stream_id=8 * i + 4)
        end.h3.send_headers(8 * i + 4, RESPONSE, end_stream=True)
    assert end.quic.closed is None


def test_who_cancels_what_has_begun_to_come_is_no_attacker():
    """A browser that leaves a page, a player that seeks."""
    end = End()
    for stream_id in range(0, 4 * 3000, 4):
        end.give(headers(REQUEST), True, stream_id=stream_id)
        end.h3.send_headers(stream_id, RESPONSE)
        end.h3.send_data(stream_id, b"some of it", False)
        end.h3.handle_event(StopSendingReceived(CANCELLED, stream_id))
    assert end.quic.closed is None
    assert not [i for i in end.h3._stream if i % 4 == 0]


def test_uploads_that_were_answered_early_are_no_attack():
    end = End()
    for stream_id in range(0, 4 * 3000, 4):
        end.give(headers(REQUEST) + body(), stream_id=stream_id)
        end.h3.send_headers(stream_id, RESPONSE, end_stream=True)
        end.h3.stop_stream(stream_id, ErrorCode.H3_NO_ERROR)
        end.h3.handle_event(StreamReset(ErrorCode.H3_NO_ERROR, stream_id))
    assert end.quic.closed is None


def test_a_client_does_not_count_what_its_server_resets():
    end = End(client=True)
    for stream_id in range(0, 4 * 1500, 4):
        end.h3.send_headers(stream_id + 4, REQUEST, end_stream=True)
        end.h3.handle_event(StreamReset(ErrorCode.H3_REQUEST_REJECTED, stream_id + 4))
    assert end.quic.closed is None


@pytest.mark.parametrize("data", [b"\x21", b"\x40", b"", None])
def test_unidirectional_streams_that_carry_nothing_have_a_bound(data):
    end = End()
    for i in range(1001):
        assert end.quic.closed is None
        if data is None:
            end.h3.handle_event(StreamReset(CANCELLED, 14 + 4 * i))
        else:
            end.give(data, True, stream_id=14 + 4 * i)
    assert end.quic.closed[0] == LOAD


# ---- Options ----


def test_cookies_are_joined_if_asked():
    """RFC 9114, 4.2.1"""
    crumbs = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")]
    (event,) = End().give(headers([*REQUEST, *crumbs]))
    assert event.headers[4:] == crumbs
    config = H3Configuration(join_cookies=True)
    (event,) = End(config=config).give(headers([*REQUEST, *crumbs]))
    assert event.headers == [*REQUEST, (b"cookie", b"a=1; b=2"), (b"x", b"y")]
    (event,) = End(config=config).give(headers([*REQUEST, crumbs[0]]))
    assert event.headers == [*REQUEST, crumbs[0]]


def test_white_space_around_values_is_stripped_if_allowed():
    config = H3Configuration(stream_errors=True, lenient_inbound_headers=True)
    end = End(config=config)
    fields = [*REQUEST, (b"a", b" \tb c\t "), (b"host", b"a.example "), (b"e", b" ")]
    (event,) = end.give(headers(fields))
    assert event.headers == [
        *REQUEST,
        (b"a", b"b c"),
        (b"host", b"a.example"),
        (b"e", b""),
    ]
    for bad in ((b"a", b" \n"), (b"host", b" b.example"), (b":x", b" ")):
        end = End(config=config)
        end.assert_aborted(end.give(headers([*REQUEST, bad])))


# ---- Extended CONNECT (RFC 9220, 3) ----


def test_extended_connect_waits_for_settings():
    request = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        *REQUEST[1:],
    ]
    end = End(client=True)
    assert end.h3.received_settings is None
    with pytest.raises(NotEnabledError, match="have not arrived"):
        end.h3.send_headers(4, request)
    end.give(b"\0" + encode_frame(4, b""), stream_id=3)
    assert end.h3.received_settings == {}
    with pytest.raises(NotEnabledError, match="do not allow"):
        end.h3.send_headers(4, request)
    assert not end.quic.queue

    end = End(client=True)
    end.give(b"\0" + encode_frame(4, encode_settings({8: 1})), stream_id=3)
    end.h3.send_headers(4, request)
    assert end.quic.queue


# ---- Over the network ----

# It sends anything.
careless = functools.partial(
    H3Protocol, config=H3Configuration(extended=True, validate_outbound=False)
)


@in_loop
@pytest.mark.parametrize(
    "options", [{}, {"config": H3Configuration(join_cookies=True)}]
)
async def test_a_malformed_request_does_not_reach_its_handler(options):
    seen = []

    async def handler(stream):
        seen.append(stream.headers)
        stream.send_headers(OK, end_stream=True)

    async with pair(handler, careless, **options) as (client, _):
        smuggled = [
            (b":method", b"GET /admin/delete HTTP/1.1"),
            *request()[1:],
        ]
        good = await client.open_stream(request(), end_stream=True)
        bad = await client.open_stream(smuggled, end_stream=True)
        with pytest.raises(StreamResetError) as caught:
            await bad.response()
        assert caught.value.error_code == MESSAGE
        assert await good.response() == OK
        crumbs = [(b"cookie", b"a=1"), (b"cookie", b"b=2")]
        stream = await client.open_stream([*request(), *crumbs], end_stream=True)
        assert await stream.response() == OK
        assert seen == [request(), [*request(), (b"cookie", b"a=1; b=2")]]


@in_loop
async def test_a_request_that_turns_out_malformed_ends_its_handler():
    begun = asyncio.Event()
    ended = asyncio.get_running_loop().create_future()

    async def handler(stream):
        begun.set()
        try:
            async for _ in stream:
                pass
        except BaseException as error:
            ended.set_result(error)
            raise

    async with pair(handler, careless) as (client, _):
        fields = [*request(method=b"POST"), (b"content-length", b"9")]
        stream = await client.open_stream(fields)
        await begun.wait()
        await stream.send_data(b"short", end_stream=True)
        with pytest.raises(StreamResetError):
            await stream.response()
        assert isinstance(await ended, (StreamResetError, asyncio.CancelledError))
        await client.ping()


@in_loop
async def test_a_malformed_response_is_the_streams_error():
    """RFC 9114, 4.1.2, from each way in which a response may be none."""

    async def handler(stream):
        http = stream.protocol._http
        path = dict(stream.headers)[b":path"]
        quic = stream.protocol._quic
        if path == b"/none":
            quic.send_stream_data(stream.stream_id, b"", True)
        elif path == b"/bad":
            quic.send_stream_data(
                stream.stream_id, headers([(b":status", b"099")]), True
            )
        elif path == b"/short":
            fields = headers([*OK, (b"content-length", b"9")])
            quic.send_stream_data(stream.stream_id, fields + body(), True)
        else:
            http.send_headers(stream.stream_id, OK, True)
        stream.protocol.transmit()
        await asyncio.Event().wait()

    async with pair(handler) as (client, _):
        for path in (b"/none", b"/bad", b"/short"):
            stream = await client.open_stream(request(path), end_stream=True)
            with pytest.raises(StreamResetError) as caught:
                await stream.response()
                await whole(stream)
            assert caught.value.error_code == MESSAGE
            assert not caught.value.remote
        stream = await client.open_stream(request(b"/"), end_stream=True)
        assert await stream.response() == OK
