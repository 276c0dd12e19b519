"""HTTP/3: whatever a client keeps a server waiting for has a bound."""

import asyncio
import contextlib
import functools
import logging

import pytest
from h3_streams import (
    GET,
    OK,
    POST,
    data_frame,
    headers_frame,
    pair,
    raw_pair,
    request,
)
from loops import in_loop, in_loops, in_virtual_time, stand_still, until
from quic_pair import client_configuration, server_configuration
from virtual_time import pass_time

from nghttp2py import BaseRequestHandler
from nghttp2py.asyncio import h3
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.h3_bounds import Rate, Watch
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ConnectionTerminatedError, StreamResetError
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ErrorCode

DEFAULT = Timeouts()


class Handler:
    """Remembers how the requests of a server have ended."""

    def __init__(self, answer):
        self.answer = answer
        self.begun = 0
        self.ended = []

    async def __call__(self, stream):
        self.begun += 1
        try:
            await self.answer(stream)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("")


async def read_all(stream):
    async for _ in stream:
        pass
    stream.send_headers(OK, end_stream=True)


async def send_for_ever(stream):
    stream.send_headers(OK)
    while True:
        await stream.send_data(bytes(65536))


async def send_little(stream):
    stream.send_headers(OK)
    # A fast machine makes thousands of round trips while one byte is taken in each.
    await stream.send_data(bytes(50_000), end_stream=True)


async def drip(client, stream_id, data):
    """Send a byte every hundredth of a second, until the stream is over."""
    for i in range(len(data)):
        if stream_id in client.resets or client.over is not None:
            return
        with contextlib.suppress(RuntimeError, ValueError):
            client.send(stream_id, data[i : i + 1])
        await pass_time(1)


REQUEST = headers_frame(POST)


@pytest.mark.parametrize("settings", [b"", b"\x00", b"\x00\x04", b"\x00\x04\x08\x01"])
@in_virtual_time
async def test_a_client_that_sends_no_settings_is_closed(settings):
    async with raw_pair(read_all, settings=settings) as (client, _):
        await client.ping_until(lambda: client.over is not None)
        assert client.over == ErrorCode.H3_MISSING_SETTINGS


@in_virtual_time
async def test_a_client_bounds_nothing_but_the_wait_for_settings():
    gate = asyncio.Event()

    async def wait(stream):
        await gate.wait()
        stream.send_headers(OK, end_stream=True)

    async with pair(wait) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        await pass_time(100)
        gate.set()
        assert await stream.response() == OK


@in_virtual_time
async def test_a_client_may_bound_its_uploads_and_its_idleness():
    async def wait(stream):
        await asyncio.Event().wait()

    create = functools.partial(H3Protocol, timeouts=DEFAULT)
    fields = {"max_stream_data": 1000}
    async with pair(wait, create, fields=fields) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        with pytest.raises(StreamResetError, match="H3_REQUEST_CANCELLED"):
            await stream.send_body(bytes(1_000_000))
        await client.wait_closed()


@in_loops
async def test_what_has_come_in_time_is_read_before_it_is_overdue():
    """The loop may stand; uvloop's runs timers before it reads."""
    async with raw_pair(
        read_all, timeouts=Timeouts(settings=0.3, headers=0.3), settings=b"\x00\x04"
    ) as (client, ends):
        client.send(0, REQUEST[:3])
        await until(lambda: ends.protocols and ends.protocols[0]._watch._incomplete)
        client.send(2, b"\x00")
        client.send(0, REQUEST[3:], True)
        stand_still(0.5)
        await until(lambda: 0 in client.ended)
        assert client.over is None


@pytest.mark.parametrize("deaf", [True, False])
@in_virtual_time
async def test_a_client_that_is_gone_ends_its_requests(deaf):
    """One that answers PINGs may wait for as long as it likes."""
    handler = Handler(hang)
    async with raw_pair(handler) as (client, _):
        client.send(0, headers_frame(), True)
        await until(lambda: handler.begun)
        if deaf:
            loop = asyncio.get_running_loop()
            loop.remove_reader(client._transport.get_extra_info("socket"))
            await until(lambda: handler.ended == ["CancelledError"])
            return
        for _ in range(20):
            await client.ping()
            await pass_time(20)
        assert not handler.ended


async def hang(stream):
    await asyncio.Event().wait()


@in_virtual_time
async def test_a_server_that_sends_no_settings_is_left():
    server = await serve(
        "127.0.0.1", 0, configuration=server_configuration(alpn_protocols=H3_ALPN)
    )
    try:
        async with connect(
            *server.sockets[0].getsockname()[:2],
            configuration=client_configuration(alpn_protocols=H3_ALPN),
            create_protocol=H3Protocol,
        ) as client:
            with pytest.raises(ConnectionTerminatedError, match="no SETTINGS"):
                await client.wait_settings()
    finally:
        server.close()


@in_virtual_time
async def test_settings_that_come_leave_the_connection_open():
    async with raw_pair(read_all) as (client, _):
        await pass_time(20)
        client.send(0, headers_frame(), True)
        await until(lambda: 0 in client.ended)


@pytest.mark.parametrize(
    "part",
    [
        *(b"\x01", REQUEST[:2], REQUEST[:-1], b"\x21\x05abc"),
        b"\x01\x03\x02\x00\x80",  # waits for QPACK's encoder stream
        b"\x01\x44\x00" + bytes(60),
        b"\x21\x44\x00" + bytes(60),
    ],
)
@in_virtual_time
async def test_a_header_section_that_is_not_completed_ends_its_stream(part):
    """The last two drip."""
    handler = Handler(read_all)
    async with raw_pair(handler) as (client, ends):
        if len(part) > 60:
            await drip(client, 0, part)
        else:
            client.send(0, part)
        await client.ping_until(lambda: 0 in client.resets)
        assert client.resets[0] == ErrorCode.H3_REQUEST_INCOMPLETE
        await until(lambda: 0 in client.stops)
        # Others are served, and the stream has left nothing.
        client.send(4, headers_frame(), True)
        await until(lambda: 4 in client.ended)
        assert handler.ended == [""]
        assert not ends.protocols[0]._watch._incomplete
        assert 0 not in ends.protocols[0]._http._stream


async def talk_on(stream):
    stream.send_headers(OK)
    await stream.send_data(b"first")
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "part",
    [
        b"\x01",
        b"\x01\x05\x00",
        b"\x01\x03\x02\x00\x80",  # waits for QPACK's encoder stream
        b"\x21\x05abc",
        b"\x01\x3f\x00" + bytes(30),  # drips
        data_frame(b"more") + b"\x01\x05",
    ],
)
@in_virtual_time
async def test_trailers_have_a_bound_after_the_response_has_begun(part):
    handler = Handler(talk_on)
    async with raw_pair(handler) as (client, ends):
        client.send(0, REQUEST + data_frame(b"body"))
        await until(lambda: client.received.get(0, b"").endswith(b"first"))
        if len(part) > 20:
            await drip(client, 0, part)
        else:
            client.send(0, part)
        await client.ping_until(lambda: 0 in client.resets)
        assert client.resets[0] == ErrorCode.H3_REQUEST_INCOMPLETE
        await until(lambda: 0 in client.stops and handler.ended == ["CancelledError"])
        assert not ends.protocols[0]._watch._incomplete
        assert client.over is None


@in_virtual_time
async def test_a_frame_of_data_and_whole_frames_have_no_such_bound():
    gate = asyncio.Event()

    async def talk(stream):
        stream.send_headers(OK)
        await gate.wait()
        assert await stream.read() == b"body"
        await stream.send_data(b"", end_stream=True)

    async with raw_pair(talk) as (client, _):
        client.send(0, REQUEST + b"\x00\x04bo")
        await until(lambda: 0 in client.received)
        client.send(2, b"\x21\x01x")
        await pass_time(30)
        # Each frame has its own time.
        for part in (b"\x21\x02x", b"y\x21\x02x", b"y\x21\x02x", b"y"):
            client.send(2, part)
            await pass_time(6)
        gate.set()
        client.send(0, b"dy", True)
        await until(lambda: 0 in client.ended)
        assert client.over is None


@pytest.mark.parametrize(
    ("stream_id", "part"),
    [
        (2, b"\x07"),
        (2, b"\x07\x04\x80"),
        (2, b"\x21\x3fabc"),
        (6, b"\x40"),  # the type of a stream
    ],
)
@pytest.mark.parametrize("way", ["silent", "dripping"])
@in_virtual_time
async def test_half_a_frame_on_the_control_stream_closes_the_connection(
    stream_id, part, way
):
    """While a request is open, too, which keeps the connection from being idle."""
    handler = Handler(hang)
    async with raw_pair(handler) as (client, _):
        client.send(0, headers_frame(), True)
        await until(lambda: handler.begun)
        client.send(stream_id, part)
        if way == "dripping" and part[1:2] == b"\x3f":
            await drip(client, stream_id, bytes(50))
        await client.ping_until(lambda: client.over is not None)
        assert client.over == ErrorCode.H3_EXCESSIVE_LOAD
        await until(lambda: handler.ended == ["CancelledError"])


@pytest.mark.parametrize("way", ["silent", "dripping", "pinging", "trailers"])
@in_virtual_time
async def test_a_body_that_makes_no_progress_ends_its_stream(way):
    handler = Handler(read_all)
    async with raw_pair(handler) as (client, _):
        client.send(0, REQUEST)
        if way == "dripping":
            await drip(client, 0, data_frame(b"x") * 200)
        elif way == "trailers":
            client.send(0, data_frame(b"body"))
            await drip(client, 0, b"\x01\x3f" + bytes(60))
        await client.ping_until(lambda: 0 in client.resets)
        assert client.resets[0] == ErrorCode.H3_REQUEST_INCOMPLETE
        await until(lambda: handler.ended)
        assert handler.ended[0] in ("CancelledError", "StreamResetError")
        client.send(4, headers_frame(), True)
        await until(lambda: 4 in client.ended)


@in_virtual_time
async def test_a_body_that_comes_fast_enough_is_waited_for():
    handler = Handler(read_all)
    async with raw_pair(handler) as (client, _):
        client.send(0, REQUEST)
        for _ in range(60):
            client.send(0, data_frame(bytes(60)) * 5)
            await pass_time(1)
        client.send(0, b"", True)
        await until(lambda: 0 in client.ended)
        assert handler.ended == [""]


@in_virtual_time
async def test_a_body_is_not_waited_for_while_the_application_holds_it_back():
    gate = asyncio.Event()

    async def slow(stream):
        await gate.wait()
        await read_all(stream)

    handler = Handler(slow)
    async with raw_pair(handler) as (client, _):
        # More than the server takes without its being read.
        frames = (b"\x00\x80\x20\x00\x00" + bytes(0x200000)) * 2
        client.send(0, REQUEST + frames, True)
        await pass_time(100)
        assert not handler.ended
        gate.set()
        await until(lambda: 0 in client.ended)


@in_virtual_time
async def test_a_response_that_has_begun_may_take_its_time():
    """As on a stream whose two ends talk: the request's body has no bound then."""
    gate = asyncio.Event()

    async def talk(stream):
        stream.send_headers(OK)
        await gate.wait()
        await stream.send_data(b"at last", end_stream=True)

    async with raw_pair(talk) as (client, _):
        client.send(0, REQUEST)
        await client.ping()
        await pass_time(300)
        gate.set()
        await until(lambda: 0 in client.ended)
        assert client.received[0].endswith(b"at last")


async def assert_ended(answer, timeouts, **window):
    handler = Handler(answer)
    async with raw_pair(handler, timeouts=timeouts, **window) as (client, ends):
        await client.ping()
        # What it does not take out of its connection gives no credit.
        client.deaf = "max_data" in window
        for stream_id in (0, 4):
            client.send(stream_id, headers_frame(), True)
        await until(lambda: ends.protocols and handler.begun == 2)
        protocol = ends.protocols[0]
        await until(lambda: len(handler.ended) == 2)
        await until(lambda: not protocol._streams_by_id)
        await until(lambda: not protocol._watch._outgoing)
        client.deaf = False
        await client.ping_until(lambda: {0, 4} <= set(client.resets))
        assert client.resets[0] == ErrorCode.H3_REQUEST_CANCELLED
        await client.ping_until(lambda: protocol._quic.queued_data() < 200)


ANSWERS = pytest.mark.parametrize("answer", [send_for_ever, send_little])


@ANSWERS
@pytest.mark.parametrize("window", [{"max_stream_data": 0}, {"max_data": 1000}])
@in_virtual_time
async def test_a_response_that_is_not_taken_ends_its_stream(answer, window):
    await assert_ended(answer, DEFAULT, **window)


@ANSWERS
@in_loop
async def test_a_response_that_is_taken_too_slowly_ends_its_stream(answer):
    """A byte is taken in each round trip, which is short, but takes real time."""
    await assert_ended(answer, Timeouts(response=0.2, min_rate=1e6), max_stream_data=1)


@in_virtual_time
async def test_a_response_that_is_taken_slowly_or_in_its_turn_is_not_ended():
    """Responses of one urgency go one after the other: the last waits for all."""
    size = 400_000

    async def answer(stream):
        stream.send_headers(OK)
        await stream.send_data(bytes(size), end_stream=True)

    async with raw_pair(answer, max_data=10_000, max_stream_data=1 << 20) as (
        client,
        _,
    ):
        streams = range(0, 40, 4)
        for stream_id in streams:
            client.send(stream_id, headers_frame(), True)
        await until(lambda: set(streams) <= set(client.ended))
        assert not client.resets
        assert all(len(client.received[s]) > size for s in streams)


@in_virtual_time
async def test_a_response_that_its_handler_sends_slowly_is_not_ended():
    async def events(stream):
        stream.send_headers(OK)
        for _ in range(20):
            await stream.send_data(b"event")
            await pass_time(20)
        await stream.send_data(b"", end_stream=True)

    async with raw_pair(events) as (client, _):
        client.send(0, headers_frame(), True)
        await until(lambda: 0 in client.ended)
        assert not client.resets


@in_virtual_time
async def test_half_an_instruction_of_qpack_keeps_no_connection_open():
    async with raw_pair(read_all) as (client, _):
        client.send(6, b"\x02" + b"\xc0\x7f\x81\xff\x03")
        for _ in range(100):
            with contextlib.suppress(RuntimeError, ValueError, ConnectionError):
                client.send(6, b"x")
                await client.ping()
            await pass_time(2)
        assert client.over == ErrorCode.H3_NO_ERROR


@pytest.mark.parametrize("served", [False, True])
@in_virtual_time
async def test_a_connection_without_requests_is_closed(served):
    """PING and SETTINGS keep nothing open (RFC 9114, 5.1)."""
    async with raw_pair(read_all) as (client, ends):
        if served:
            client.send(0, headers_frame(), True)
            await until(lambda: 0 in client.ended)
        await client.ping_until(lambda: client.over is not None)
        assert client.over == ErrorCode.H3_NO_ERROR
        assert ends.protocols[0].is_closing


@in_virtual_time
async def test_a_connection_with_a_request_is_not_idle():
    gate = asyncio.Event()

    async def wait(stream):
        await gate.wait()
        stream.send_headers(OK, end_stream=True)

    async with raw_pair(wait) as (client, _):
        client.send(0, headers_frame(), True)
        await pass_time(300)
        gate.set()
        await until(lambda: 0 in client.ended)


# ---- Rates ----


def test_a_rate_is_a_bucket_of_tokens():
    rate = Rate(3, 10)
    assert [rate.spend(5.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [rate.spend(5.15) for _ in range(2)] == [True, False]
    assert [rate.spend(99.0) for _ in range(4)] == [True] * 3 + [False]


def abandoned_at_once(client, stream_id):
    client._quic.send_stream_data(stream_id, headers_frame(GET))
    client._quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    client._quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)


def never_begun(client, stream_id):
    client._quic.send_stream_data(stream_id, b"", True)


def half_begun(client, stream_id):
    client._quic.send_stream_data(stream_id, headers_frame()[:5])
    client._quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)


@pytest.mark.parametrize("abandon", [abandoned_at_once, never_begun, half_begun])
@pytest.mark.parametrize("pause", [0, 0.003])
@in_virtual_time
async def test_requests_that_are_abandoned_have_a_rate(abandon, pause, caplog):
    caplog.set_level(logging.INFO, logger="nghttp2py")
    handler = Handler(read_all)
    async with raw_pair(handler) as (client, ends):
        await client.ping()
        stream_id = 0
        while client.over is None and stream_id < 4 * 4000:
            for _ in range(50):
                abandon(client, stream_id)
                stream_id += 4
            client.transmit()
            with contextlib.suppress(ConnectionError):
                await client.ping()
            await pass_time(pause)
        await until(lambda: client.over is not None)
        assert client.over == ErrorCode.H3_EXCESSIVE_LOAD
        assert 900 * 4 < stream_id < 1500 * 4
        await until(lambda: ends.protocols[0]._terminated is not None)
        # Those that had been abandoned when they came have run nothing.
        assert handler.begun <= 50
    assert len(caplog.text) < 1000
    assert all(record.levelno <= logging.INFO for record in caplog.records)
    # The address as in a URL, as every line about QUIC has it.
    (told,) = (r for r in caplog.messages if r.endswith("requests were abandoned"))
    assert told.startswith("127.0.0.1:")


async def answer_20k(stream):
    await stream.send_response(body=bytes(20_000))


async def refuse(stream):
    stream.send_headers([(b":status", b"413")], end_stream=True)


async def refuse_and_stop(stream):
    await refuse(stream)
    stream.stop()


async def stop_what_is_queued(client, protocol, streams):
    """Stop the responses when they are complete here, and nothing was acknowledged."""
    client.unplugged = True
    for stream_id in streams:
        client._quic.send_stream_data(stream_id, headers_frame(GET), True)
    client.transmit()
    quic = protocol._quic
    await until(
        lambda: quic.closed or (quic.queued_data() and not protocol._streams_by_id)
    )
    for stream_id in streams:
        client._quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    client.unplugged = False
    client.transmit()


async def send_half_of_uploads(client, protocol, streams):
    for stream_id in streams:
        client._quic.send_stream_data(stream_id, headers_frame(POST))
    client.transmit()
    await until(lambda: client.over is not None or set(streams) <= client.ended.keys())


@pytest.mark.parametrize(
    ("answer", "act", "most"),
    [
        (answer_20k, stop_what_is_queued, 1500),
        (refuse, send_half_of_uploads, 3000),
        (refuse_and_stop, send_half_of_uploads, 3000),
    ],
)
@in_loop
async def test_exchanges_that_are_cut_short_have_a_rate(answer, act, most, caplog):
    """Whole responses that are stopped, uploads that are answered early and do not
    end: whichever end cuts them short."""
    caplog.set_level(logging.INFO, logger="nghttp2py.asyncio.h3")
    # So that no wait for MAX_STREAMS, or for more credit, is in the way.
    fields = {"max_streams_bidi": 5000}
    async with raw_pair(Handler(answer), fields=fields, max_data=1 << 24) as (
        client,
        ends,
    ):
        await client.ping()
        begun = 0
        while client.over is None and begun < 4000:
            streams = range(4 * begun, 4 * begun + 200, 4)
            begun += len(streams)
            await act(client, ends.protocols[0], streams)
            with contextlib.suppress(ConnectionError):
                await client.ping()
        await until(lambda: client.over is not None)
        assert client.over == ErrorCode.H3_EXCESSIVE_LOAD
        assert 900 < begun < most
    assert len([r for r in caplog.records if r.name == "nghttp2py.asyncio.h3"]) == 1


@pytest.mark.parametrize("stopped", [True, False])
@in_virtual_time
async def test_requests_that_are_refused_early_are_not_abandoned(stopped, monkeypatch):
    """The client resets what the server has answered, or stopped: that is no abuse."""
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.05 if stopped else 600)

    async with raw_pair(refuse) as (client, ends):
        for stream_id in range(0, 4 * 1500, 4):
            client.send(stream_id, headers_frame(POST) + data_frame(b"body"))
            if stream_id % 400 == 396 and stopped:
                await until(lambda stream_id=stream_id: stream_id in client.stops)
            elif stream_id % 400 == 396:
                await until(lambda stream_id=stream_id: stream_id in client.ended)
                for each in range(stream_id - 396, stream_id + 4, 4):
                    client._quic.reset_stream(each, ErrorCode.H3_REQUEST_CANCELLED)
                client.transmit()
        await until(lambda: len(client.ended) == 1500)
        await until(lambda: not ends.protocols[0]._streams_by_id)
        assert client.over is None
        assert len(client.stops) == 1500 or not stopped


async def talk_whole(stream):
    stream.send_headers(OK)
    await stream.read()
    await stream.send_data(b"hello", end_stream=True)


class AtOnce(BaseRequestHandler):
    """Answers within the call that brings the request."""

    def on_headers(self):
        self.send_response(200, (), b"hello")


@in_loop
async def test_requests_that_are_answered_at_once_are_not_abandoned():
    async with raw_pair(AtOnce) as (client, _):
        for stream_id in range(0, 4 * 1500, 4):
            client.send(stream_id, headers_frame(), True)
            if stream_id % 200 == 196:
                await until(
                    lambda n=stream_id // 4: len(client.ended) > n or client.over
                )
        assert client.over is None


# SETTINGS, and the type of QPACK's encoder stream; what that inserts, and a header
# section that refers to it.
INSERTION = b"\x3f\xbd\x01" + b"\xc0\x01a"
WAITING = headers_frame(b"\x02\x00\xd1\xd7\xc1\x80")


@pytest.mark.parametrize("whole", [True, False])
@in_virtual_time
async def test_a_request_that_waits_for_qpack_is_answered_when_it_can_be_read(whole):
    async with raw_pair(talk_whole) as (client, ends):
        client.send(0, WAITING, whole)
        await until(lambda: ends.protocols and ends.protocols[0]._watch._incomplete)
        client.send(6, b"\x02" + INSERTION)
        await until(lambda: 0 in client.received)
        assert not ends.protocols[0]._watch._incomplete
        await pass_time(DEFAULT.headers + 1)
        if not whole:
            client.send(0, data_frame(b"body"), True)
        await until(lambda: 0 in client.ended)
        assert client.over is None


@in_virtual_time
async def test_a_whole_request_that_waits_for_qpack_has_a_bound_too():
    handler = Handler(read_all)
    async with raw_pair(handler) as (client, _):
        client.send(0, WAITING, True)
        await client.ping_until(lambda: 0 in client.resets)
        assert client.resets[0] == ErrorCode.H3_REQUEST_INCOMPLETE
        assert not handler.begun


class RefuseByHandler(BaseRequestHandler):
    def on_headers(self):
        self.send_response(413, body=b"too large")


async def refuse_in_a_block(stream):
    async with stream:
        await stream.send_response(413, body=b"too large")


async def refuse_and_ask_to_stop(stream):
    await stream.send_response(413, body=b"too large")
    stream.stop()
    with pytest.raises(StreamResetError, match="stop"):
        await stream.read()


async def refuse_and_fail(stream):
    raise ValueError("500 is the answer")


early = pytest.mark.parametrize(
    "answer",
    [
        refuse,
        RefuseByHandler,
        refuse_in_a_block,
        refuse_and_ask_to_stop,
        refuse_and_fail,
    ],
)


@early
@in_virtual_time
async def test_an_upload_goes_on_after_its_answer_while_it_makes_progress(answer):
    """Chromium gives its page the response only then."""
    async with raw_pair(answer) as (client, ends):
        client.send(0, REQUEST + data_frame(b"body"))
        await until(lambda: 0 in client.ended)
        for _ in range(60):
            client.send(0, data_frame(bytes(60)) * 5)
            await pass_time(1)
        assert not client.stops
        assert ends.protocols[0].stream_count == 1
        client.send(0, b"", True)
        await until(lambda: not ends.protocols[0].stream_count)
        assert not client.stops


@pytest.mark.parametrize(
    "rest", [b"", data_frame(bytes(60)) * 30, b"\x00\x00" * 500, b"\x21\x00" * 500]
)
@early
@in_virtual_time
async def test_an_upload_that_comes_too_slowly_after_its_answer_is_stopped(
    answer, rest
):
    """Empty frames, and those of an unknown type, are no progress."""
    async with raw_pair(answer) as (client, ends):
        client.send(0, REQUEST + data_frame(b"body"))
        await until(lambda: 0 in client.ended)
        begun = asyncio.get_running_loop().time()
        client.send(0, rest)
        await until(lambda: 0 in client.stops)
        assert client.stops[0] == ErrorCode.H3_NO_ERROR
        assert 9 < asyncio.get_running_loop().time() - begun < 12
        assert not ends.protocols[0].stream_count
        assert client.over is None


@early
@in_virtual_time
async def test_an_upload_that_is_too_long_after_its_answer_is_stopped(
    answer, monkeypatch
):
    monkeypatch.setattr(h3, "_DISCARDED", 3_000_000)
    async with raw_pair(answer) as (client, ends):
        # No more than the server's credit is on its way beyond the bound.
        client.send(0, REQUEST + b"\x00\x80" + (8_000_000).to_bytes(3, "big"))
        await until(lambda: 0 in client.ended)
        client.send(0, bytes(2_900_000))
        await until(lambda: not client._quic.queued_data(0))
        assert not client.stops
        client.send(0, bytes(5_000_000))
        await until(lambda: 0 in client.stops)
        assert client.stops[0] == ErrorCode.H3_NO_ERROR
        assert not ends.protocols[0].stream_count


@in_loop
async def test_connect_that_is_refused_does_not_stay_open(monkeypatch):
    """RFC 9114, 4.4: only 2xx begins a tunnel, whose halves end one by one."""
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.05)
    section = b"\x00\x00\xcf\x50\x0blocalhost:1"
    async with raw_pair(refuse) as (client, ends):
        client.send(0, headers_frame(section))
        await until(lambda: 0 in client.stops)
        assert client.stops[0] == ErrorCode.H3_NO_ERROR
        assert not ends.protocols[0].stream_count


@in_loop
async def test_a_response_that_is_stopped_before_its_request_comes_is_not_made(caplog):
    handler = Handler(answer_20k)
    async with raw_pair(handler) as (client, ends):
        # It opens the stream, and what is sent next begins with HEADERS.
        client.send(0, b"\x21\x00")
        await until(lambda: ends.protocols and ends.protocols[0]._watch._incomplete)
        client._quic.stop_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
        client.transmit()
        await client.ping()
        client.send(0, headers_frame(), True)
        client.send(4, headers_frame(), True)
        await until(lambda: 4 in client.ended)
        assert handler.ended == [""]
        assert not ends.protocols[0]._streams_by_id
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@pytest.mark.parametrize("error", ["reset", "stop", "close"])
@in_virtual_time
async def test_what_a_client_does_is_no_failure_of_the_handler(error, caplog):
    """Neither a traceback nor a line above DEBUG for each of its requests."""
    caplog.set_level(logging.DEBUG, logger="nghttp2py")
    gate = asyncio.Event()

    async def answer(stream):
        await gate.wait()
        await stream.read()
        stream.send_headers(OK)
        await stream.send_data(bytes(3_000_000), end_stream=True)

    async with raw_pair(answer, max_stream_data=100) as (client, ends):
        streams = range(0, 400, 4)
        for stream_id in streams:
            client._quic.send_stream_data(stream_id, headers_frame(POST))
        client.transmit()
        await until(
            lambda: ends.protocols and len(ends.protocols[0]._streams_by_id) == 100
        )
        for stream_id in streams:
            if error == "reset":
                client._quic.reset_stream(stream_id, 0x10C)
            elif error == "stop":
                client._quic.stop_stream(stream_id, 0x100)
        if error == "close":
            client.close()
        client.transmit()
        gate.set()
        await until(lambda: not ends.protocols[0]._streams_by_id)
        await pass_time(1)
    told = [r for r in caplog.records if r.name == "nghttp2py.asyncio.h3"]
    assert all(r.levelno <= logging.DEBUG and not r.exc_info for r in told)


@in_virtual_time
async def test_streams_that_miss_a_bound_do_not_fill_the_log(caplog):
    caplog.set_level(logging.INFO, logger="nghttp2py")
    streams = [4 * i for i in range(100)]
    async with raw_pair(read_all) as (client, _):
        for stream_id in streams:
            client.send(stream_id, REQUEST[:5])
        await client.ping_until(lambda: set(streams) <= client.stops.keys())
    lines = [r for r in caplog.records if "made no progress" in r.getMessage()]
    # They may fall into several seconds of a busy machine.
    assert 1 <= len(lines) <= 80
    assert all(r.name == "nghttp2py.asyncio.h3" for r in lines)


class Owner:
    """A connection without requests, and a loop that counts its timers."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self._loop = self._quic = self
        self.time = self.loop.time
        self.call_soon = self.loop.call_soon
        self.stats = {"packets_received": 0}
        self.timers = []
        self.overdue = []

    def call_at(self, when, *args):
        self.timers.append(self.loop.call_at(when, *args))
        return self.timers[-1]

    def _bodies_awaited(self):
        return ()

    def _overdue(self, what, stream_id):
        self.overdue.append(what)


@in_loop
async def test_a_watch_that_was_stopped_leaves_no_timer():
    owner = Owner()
    loop = owner.loop
    watch = Watch(owner, Timeouts(idle=0.05))
    watch.handshake_completed()

    def read_in_time():
        # The timer has run out, and what had arrived is read before the verdict.
        if watch._timer.turns:
            watch.busy()
        elif not owner.overdue:
            loop.call_soon(read_in_time)

    loop.call_soon(read_in_time)
    await until(lambda: watch._busy and not watch._timer.turns)
    watch.stop()
    assert owner.overdue == []
    assert [timer for timer in owner.timers if timer.when() > loop.time()] != []
    assert all(t.cancelled() for t in owner.timers if t.when() > loop.time())
