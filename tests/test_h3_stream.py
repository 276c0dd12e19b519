"""``H3RequestStream``: what it offers of ``H2Stream``, and what it holds."""

import asyncio
import contextlib
import io
import logging
import weakref

import pytest
from h3_streams import (
    OK,
    POST,
    data_frame,
    headers_frame,
    pair,
    raw_client,
    raw_pair,
    request,
    serving,
    whole,
)
from loops import in_loop, in_loops, until

from nghttp2py.asyncio import h3
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.h3_stream import _MAX_DATAGRAMS
from nghttp2py.asyncio.stream_state import MAX_INFORMATIONAL
from nghttp2py.errors import (
    ConnectionTerminatedError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.exceptions import NotEnabledError

BODY = bytes(range(256)) * 800  # some pieces


@in_loop
async def test_a_request_has_its_parts():
    found = []

    async def handler(stream):
        found.append(stream.request)
        found.append((stream.method, stream.scheme, stream.authority, stream.path))
        await stream.send_response(204)

    async with pair(handler) as (client, _):
        fields = [*request(b"/p?q", b"PUT"), (b"x-a", b"b")]
        stream = await client.open_stream(fields, end_stream=True)
        await stream.response()
        assert stream.request is None
        assert (stream.method, stream.path) == (b"PUT", b"/p?q")
    asked, parts = found
    assert parts == (b"PUT", b"https", b"localhost", b"/p?q")
    assert (asked.method, asked.target, asked.http_version) == (b"PUT", b"/p?q", "3")
    assert list(asked.headers) == [(b"host", b"localhost"), (b"x-a", b"b")]


@in_loops
async def test_a_body_is_read_as_on_a_stream_of_http2():
    async def handler(stream):
        assert await stream.readexactly(5) == BODY[:5]
        assert await stream.reader.readuntil(b"\x0a") == BODY[5:11]
        assert await stream.read(2) == BODY[11:13]
        assert await stream.readexactly(200_000) == BODY[13:200_013]
        assert await stream.read() == BODY[200_013:]
        assert stream.at_eof()
        await stream.send_response(200, {"x-a": "b"}, BODY, trailers={"x-t": "u"})

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        await stream.send_body(BODY)
        assert await stream.response() == [*OK, (b"x-a", b"b")]
        with pytest.raises(asyncio.IncompleteReadError):
            await stream.readexactly(len(BODY) + 1)
        assert stream.trailers == [(b"x-t", b"u")]


async def pieces():
    for i in range(0, len(BODY), 1000):
        yield BODY[i : i + 1000]
        yield b""


class AsyncFile:
    def __init__(self):
        self.file = io.BytesIO(BODY)

    async def read(self, n):
        await asyncio.sleep(0)
        return self.file.read(n)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BODY,
        lambda: bytearray(BODY),
        lambda: memoryview(BODY),
        lambda: io.BytesIO(BODY),
        lambda: io.BytesIO(BODY).read,
        lambda: [BODY[:7], b"", BODY[7:]],
        lambda: iter([BODY]),
        pieces,
        AsyncFile,
        lambda: AsyncFile().read,
    ],
)
@pytest.mark.parametrize("trailers", [None, [(b"x-t", b"u")]])
@in_loop
async def test_a_body_may_have_any_form(make, trailers):
    async def handler(stream):
        stream.send_headers([*OK, (b"content-length", b"%d" % len(BODY))])
        await stream.send_body(make(), trailers=trailers)
        assert stream.body_bytes_sent == len(BODY)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        assert await whole(stream) == BODY
        assert stream.trailers == (trailers or [])


@in_loop
async def test_the_stream_of_another_connection_is_a_body():
    async def origin(stream):
        await stream.send_response(200, body=BODY)

    async with pair(origin) as (upstream, _):

        async def proxy(stream):
            source = await upstream.open_stream(request(), end_stream=True)
            stream.send_headers(await source.response())
            await stream.send_body(source)

        async with pair(proxy) as (client, _):
            stream = await client.open_stream(request(), end_stream=True)
            assert await whole(stream) == BODY


class Failing:
    def read(self, n):
        raise OSError("no more")


async def failing():
    yield b"part"
    raise OSError("no more")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (Failing, OSError),
        (failing, OSError),
        (lambda: ["text"], TypeError),
        (lambda: 5, TypeError),
    ],
)
@in_loop
async def test_a_body_that_fails_resets_its_stream(make, error, caplog):
    async def handler(stream):
        stream.send_headers(OK)
        with pytest.raises(error):
            await stream.send_body(make())
        with pytest.raises(StreamResetError):
            await stream.send_data(b"more")

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(StreamResetError) as caught:
            await whole(stream)
        assert caught.value.error_code == ErrorCode.H3_INTERNAL_ERROR
    assert not caplog.records


@in_loop
async def test_an_asynchronous_body_of_nothing_leaves_others_their_turn():
    async def nothing():
        while True:
            yield b""

    async def handler(stream):
        stream.send_headers(OK)
        if stream.path == b"/other":
            await stream.send_body(b"other")
        await stream.send_body(nothing())

    async with pair(handler) as (client, ends):
        hanging = await client.open_stream(request(), end_stream=True)
        await hanging.response()
        other = await client.open_stream(request(b"/other"), end_stream=True)
        assert await asyncio.wait_for(other.read(), 10) == b"other"
        hanging.reset()
        await until(lambda: not ends.protocols[0]._streams_by_id)


@in_loops
async def test_informational_responses_go_before_the_final_one():
    async def handler(stream):
        for i in range(20):
            await stream.send_informational(103, {"link": f"</{i}>"})
        await stream.send_response(200, body=b"body")

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.response() == OK
        found = [headers async for headers in stream.informational()]
        assert len(found) == MAX_INFORMATIONAL
        assert found[-1] == [(b":status", b"103"), (b"link", b"</19>")]
        assert await stream.next_informational() is None
        assert await stream.read() == b"body"


@in_loop
async def test_an_informational_response_comes_before_the_request_is_whole():
    async def handler(stream):
        await stream.send_informational(100)
        assert await stream.read() == b"body"
        with pytest.raises(ValueError, match="must be 1xx"):
            await stream.send_informational(200)
        await stream.send_response(204)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        assert await stream.next_informational() == [(b":status", b"100")]
        await stream.send_body(b"body")
        assert await stream.response() == [(b":status", b"204")]
        assert await stream.next_informational() is None


@pytest.mark.parametrize("expects", [b"100-continue", b"100-Continue", None])
@in_loop
async def test_a_client_that_waits_for_it_is_told_to_send_its_body(expects):
    """RFC 9110, 10.1.1: when the handler first waits for the body."""

    async def handler(stream):
        assert await stream.read() == b"body"
        await stream.send_response(204)

    expect = [] if expects is None else [(b"expect", expects)]
    async with pair(handler) as (client, _):
        stream = await client.open_stream([*request(method=b"POST"), *expect])
        if expects is not None:
            assert await stream.next_informational() == [(b":status", b"100")]
        await stream.send_body(b"body")
        assert (b":status", b"204") in await stream.response()
        assert await stream.next_informational() is None


@pytest.mark.parametrize("whole", [True, False])
@in_loop
async def test_a_client_waits_until_it_is_asked_for_its_body(whole):
    came = []
    asks = asyncio.Event()

    async def handler(stream):
        assert (b"expect", b"100-continue") in stream.headers
        await asks.wait()
        came.append(stream.http.states[stream.stream_id].arrival.came)
        await stream.send_response(200, body=await stream.read())

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"), expect_continue=60)
        if whole:
            sending = asyncio.ensure_future(stream.send_body(b"body"))
        else:
            sending = asyncio.ensure_future(stream.send_data(b"body", end_stream=True))
        reading = asyncio.ensure_future(stream.read())
        await client.ping()
        assert not sending.done()
        asks.set()
        assert await reading == b"body"
        await sending
        assert came == [0]


@in_loop
async def test_a_client_waits_no_longer_than_told_for_100():
    came = asyncio.Event()

    async def handler(stream):
        while not stream.http.states[stream.stream_id].arrival.came:
            await asyncio.sleep(0)
        came.set()
        await stream.send_response(200, body=await stream.read())

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"), expect_continue=0.05)
        await stream.send_body(b"body")
        await came.wait()
        assert await stream.read() == b"body"


@pytest.mark.parametrize("status", [200, 403])
@in_loop
async def test_a_client_sends_no_body_that_a_response_refuses(status):
    async def handler(stream):
        stream.send_headers([(b":status", b"%d" % status)], end_stream=True)
        with contextlib.suppress(StreamResetError):
            came.append(await stream.read())

    came = []
    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"), expect_continue=60)
        await stream.send_body(b"body")
        assert await stream.response() == [(b":status", b"%d" % status)]
        await until(lambda: stream.closed)
        await client.ping()
        await until(lambda: came == ([b"body"] if status == 200 else []))


@in_loop
async def test_a_handler_that_refuses_a_body_does_not_ask_for_it():
    async def handler(stream):
        await stream.send_response(413)

    async with pair(handler) as (client, _):
        fields = [*request(method=b"POST"), (b"expect", b"100-continue")]
        stream = await client.open_stream(fields)
        assert await stream.response() == [(b":status", b"413")]
        assert await stream.next_informational() is None


@in_loop
async def test_a_response_may_be_waited_for_no_longer_than_a_time():
    async def handler(stream):
        await asyncio.Event().wait()

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(method=b"POST"))
        with pytest.raises(TimeoutError):
            await stream.response(timeout=0.05)
        assert stream.closed
        await until(lambda: not ends.protocols[0]._streams_by_id)


@pytest.mark.parametrize(
    ("method", "status"),
    [(b"HEAD", 200), (b"GET", 204), (b"GET", 205), (b"GET", 304)],
)
@in_loop
async def test_a_response_that_has_no_content_is_sent_without(method, status):
    async def handler(stream):
        # It may say how long the body would be, but for 204 (RFC 9110, 8.6).
        fields = {} if status in (204, 205) else {"content-length": "4"}
        await stream.send_response(status, fields, b"body")

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=method), end_stream=True)
        assert (b":status", b"%d" % status) in await stream.response()
        assert await stream.read() == b""


DATAGRAMS = {"max_datagram_frame_size": 1500}


@in_loops
async def test_datagrams_belong_to_a_stream():
    async def handler(stream):
        stream.send_headers(OK)
        for _ in range(3):
            stream.send_datagram(await stream.receive_datagram())
        await stream.read()
        with pytest.raises(StreamClosedError):
            await stream.receive_datagram()
        await stream.end_stream()
        with pytest.raises(StreamStateError):
            stream.send_datagram(b"late")

    async with pair(handler, fields=DATAGRAMS) as (client, _):
        await client.wait_settings()
        stream = await client.open_stream(request(method=b"POST"))
        await stream.response()
        for data in (b"one", b"", b"three"):
            stream.send_datagram(data)
            assert await stream.receive_datagram() == data
        await stream.end_stream()
        assert await stream.read() == b""


@in_loop
async def test_datagrams_that_nothing_takes_are_dropped():
    gate = asyncio.Event()
    found = []

    async def handler(stream):
        stream.send_headers(OK)
        await gate.wait()
        while stream._datagrams:
            found.append(await stream.receive_datagram())
        await stream.end_stream()

    async with pair(handler, fields=DATAGRAMS) as (client, ends):
        await client.wait_settings()
        stream = await client.open_stream(request(), end_stream=False)
        await stream.response()
        for i in range(200):
            stream.send_datagram(b"%d" % i)
            if i % 20 == 0:
                await client.ping()
        await client.ping()
        (served,) = ends.protocols[0]._streams_by_id.values()
        await until(lambda: len(served._datagrams) == _MAX_DATAGRAMS)
        gate.set()
        await stream.read()
    assert found == [b"%d" % i for i in range(_MAX_DATAGRAMS)]


@in_loop
async def test_datagrams_that_are_not_allowed_raise():
    async def handler(stream):
        with pytest.raises(NotEnabledError):
            stream.send_datagram(b"data")
        await stream.send_response(200)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.response() == OK


# ---- What is held ----


@pytest.mark.parametrize("source", ["data", "file", "pieces"])
@in_loop
async def test_a_response_that_is_not_taken_holds_little(source):
    """RFC 9000, 4.1: a peer that gives no credit makes us hold next to nothing."""
    piece = bytes(65536)

    class File:
        largest = 0

        def read(self, n):
            self.largest = max(self.largest, n)
            return piece[:n]

    file = File()

    async def handler(stream):
        stream.send_headers(OK)
        if source == "file":
            await stream.send_body(file)
        elif source == "pieces":
            await stream.send_body(iter(lambda: piece, None))
        while True:
            await stream.send_data(piece)

    async with raw_pair(handler, max_stream_data=1) as (client, ends):
        for i in range(120):
            client._quic.send_stream_data(4 * i, headers_frame(), True)
        client.deaf = True
        client.transmit()
        await until(lambda: ends.protocols)
        protocol = ends.protocols[0]
        await until(lambda: len(protocol._link.senders()) == 120)
        assert protocol._quic.queued_data() < 120 * 2500
        assert file.largest <= 2048
        client.deaf = False


@in_loop
async def test_a_body_in_tiny_frames_takes_no_more_than_its_bytes():
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        await stream.read()
        await stream.send_response(200)

    async with serving(handler) as (ends, port), raw_client(port) as client:
        client.send(0, headers_frame() + data_frame(b"x") * 20_000, True)
        await until(
            lambda: (
                ends.protocols
                and any(s._eof for s in ends.protocols[0]._streams_by_id.values())
            )
        )
        (stream,) = ends.protocols[0]._streams_by_id.values()
        assert stream._size == 20_000
        assert len(stream._pieces) < 200
        gate.set()
        await until(lambda: 0 in client.ended)


@in_loop
async def test_a_stream_keeps_no_cycle_of_references(caplog):
    """What is dropped is gone at once, whatever the collector does."""
    caplog.set_level(logging.INFO, logger="nghttp2py")

    async def handler(stream):
        await stream.send_response(200, body=b"body")

    async with pair(handler) as (client, _):
        assert isinstance(client, H3Protocol)
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.reader.read() == b"body"
        gone = weakref.ref(stream)
        del stream
        assert gone() is None


@in_loop
async def test_an_upload_that_is_cut_short_does_not_cancel_who_has_answered():
    begun, ends = [], []
    cut = asyncio.Event()

    async def answer(stream):
        await stream.send_response(200, body=b"whole")

    async def handler(stream):
        begun.append(stream.path)
        try:
            if stream.path == b"/before":
                with contextlib.suppress(StreamResetError):
                    await stream.read()
                await asyncio.gather(answer(stream))
            else:
                await answer(stream)
                await cut.wait()
            await asyncio.sleep(0)
            await stream.writer.wait_closed()
            ends.append("whole")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with pair(handler) as (client, _):
        for path in (b"/before", b"/after"):
            stream = await client.open_stream(request(path, b"POST"))
            await stream.send_data(b"part")
            await until(lambda path=path: path in begun)
            if path == b"/after":
                await stream.response()
            client._quic.reset_stream(stream.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            client.transmit()
            if path == b"/before":
                await stream.response()
            else:
                await client.ping()  # the reset has come
                cut.set()
            assert await stream.read() == b"whole"
        await until(lambda: len(ends) == 2)
    assert ends == ["whole", "whole"]


@in_loop
async def test_who_reads_a_request_that_is_declined_is_told(monkeypatch):
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.05)
    readers = []

    async def handler(stream):
        readers.append(asyncio.ensure_future(stream.read()))
        await asyncio.sleep(0)
        await stream.send_response(200, body=b"early")

    async with serving(handler) as (_, port), raw_client(port) as client:
        client.send(0, headers_frame(POST))
        await until(lambda: readers)
        with pytest.raises(StreamResetError):
            await asyncio.wait_for(asyncio.shield(readers[0]), 5)


@in_loop
async def test_a_second_body_does_not_cost_the_response():
    async def handler(stream):
        await stream.send_response(200, body=await stream.read())

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        await stream.send_body(b"all")
        with pytest.raises(Exception, match="ended"):
            await stream.send_body(b"again")
        assert await stream.read() == b"all"


@in_loop
async def test_a_response_that_the_client_stops_is_no_fault_of_the_server():
    async def handler(stream):
        await stream.start_response([(":status", "200")])
        await stream.read()  # is cancelled

    async with serving(handler) as (_, port), raw_client(port) as client:
        client.send(0, headers_frame(POST))
        await until(lambda: client.received.get(0))
        client._quic.stop_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
        client.transmit()
        await until(lambda: client.stops)
        assert client.stops == {0: ErrorCode.H3_NO_ERROR}


@pytest.mark.parametrize("end", ["sent", "lost", "given up"])
@in_loop
async def test_a_writer_waits_until_what_it_has_queued_is_sent(end):
    waits = []

    async def handler(stream):
        await stream.start_response(OK)
        stream.write(BODY * 4)
        stream.write_eof()
        waits.append(asyncio.ensure_future(stream.writer.wait_closed()))
        await asyncio.sleep(0)
        assert stream.closed and not waits[0].done()

    async with pair(handler, fields={"max_stream_data": 65536}) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await stream.response()
        assert not waits[0].done()
        if end == "lost":
            ends.protocols[0].close()
            with pytest.raises(ConnectionTerminatedError):
                await waits[0]
        elif end == "given up":
            assert ends.protocols[0]._link._closed
            waits[0].cancel()
            await asyncio.wait(waits)
            assert not ends.protocols[0]._link._closed
        else:
            assert await stream.read() == BODY * 4
            await waits[0]
