"""nghttp2py.asyncio.h3: requests on streams, over loopback."""

import asyncio
import hashlib
import itertools
import logging
import random

import pytest
from h3_streams import OK, Server, pair, request, whole
from loops import DEADLINE, in_loop, in_loops, until
from quic_pair import client_configuration, server_configuration

from nghttp2py.asyncio import h3
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.errors import SendException, StreamResetError
from nghttp2py.h3 import H3_ALPN, DataReceived
from nghttp2py.h3.connection import ErrorCode, MessageError
from nghttp2py.h3.exceptions import GoingAwayError

LARGE = random.Random(3).randbytes(6_000_000)
# More than can be queued, or be on its way to a reader that does not read.
HELD = 3 << 20


async def echo(stream):
    stream.send_headers(OK)
    async for piece in stream:
        await stream.send_data(piece)
    stream.send_headers([(b"x-trailer", stream.trailers[0][1])], end_stream=True)


@in_loops
async def test_bodies_and_trailers_go_both_ways():
    async with pair(echo) as (client, ends):
        stream = await client.open_stream(request(method=b"POST"))

        async def upload():
            await stream.send_data(LARGE)
            stream.send_headers([(b"x-trailer", b"last")], end_stream=True)

        task = asyncio.create_task(upload())
        assert await stream.response() == OK
        digest = hashlib.sha256()
        async for piece in stream:
            digest.update(piece)
        await task
        assert digest.digest() == hashlib.sha256(LARGE).digest()
        assert stream.trailers == [(b"x-trailer", b"last")]
        assert stream.body_bytes_sent == len(LARGE)
        await until(lambda: not ends.protocols[0]._streams_by_id)
        assert not client._streams_by_id


@in_loops
async def test_a_body_is_read_from_its_source_as_the_client_reads():
    offset = 0

    def read(n):
        nonlocal offset
        piece = LARGE[offset : offset + n]
        offset += len(piece)
        return piece

    async def handler(stream):
        stream.send_headers(OK)
        await stream.send_body(read)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        await stream.response()
        # The body is not read: another stream shows that all that may arrive has
        # arrived.
        for _ in range(5):
            await client.ping()
        assert 65536 <= offset < HELD
        assert stream._size < HELD
        assert await whole(stream) == LARGE


@in_loops
async def test_an_upload_that_is_not_read_stops_the_client():
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        body = await whole(stream)
        stream.send_headers(OK)
        await stream.send_data(hashlib.sha256(body).digest(), end_stream=True)

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(method=b"PUT"))
        task = asyncio.create_task(stream.send_data(LARGE, end_stream=True))
        for _ in range(5):
            await client.ping()
        assert not task.done()
        assert stream.body_bytes_sent < HELD
        assert next(iter(ends.protocols[0]._streams_by_id.values()))._size < HELD
        gate.set()
        await task
        await stream.response()
        assert await whole(stream) == hashlib.sha256(LARGE).digest()


class Watched(H3Protocol):
    """Keeps the pieces of bodies in the order in which they come, read or not."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.pieces = []

    def h3_event_received(self, event):
        if isinstance(event, DataReceived):
            self.pieces.append(event)
        super().h3_event_received(event)


@pytest.mark.parametrize("updated", [False, True], ids=["field", "PRIORITY_UPDATE"])
@in_loops
async def test_responses_come_in_the_order_of_their_priorities(updated):
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        stream.send_headers(OK)
        # Less than waits for a client: all of it is queued at once.
        await stream.send_data(LARGE[:900_000], end_stream=True)

    async with pair(handler, Watched) as (client, ends):
        first = await client.open_stream(request(), end_stream=True)
        priority = [] if updated else [(b"priority", b"u=0")]
        urgent = await client.open_stream([*request(), *priority], end_stream=True)
        if updated:
            await until(lambda: len(ends.protocols[0]._streams_by_id) == 2)
            client._http.update_priority(b"u=0", stream_id=urgent.stream_id)
        await client.ping()
        gate.set()
        for stream in (urgent, first):
            assert await whole(stream) == LARGE[:900_000]
    came = itertools.takewhile(lambda piece: not piece.stream_ended, client.pieces)
    sizes = {first.stream_id: 0, urgent.stream_id: 0}
    for piece in came:
        sizes[piece.stream_id] += len(piece.data)
    assert sizes[urgent.stream_id] > 800_000
    assert sizes[first.stream_id] < 450_000


@in_loop
async def test_many_streams_wait_for_one_another_but_none_for_ever():
    async def handler(stream):
        stream.send_headers(OK)
        await stream.send_data(LARGE[:100_000], end_stream=True)

    async with pair(handler) as (client, _):
        # More than the server lets be open at once.
        streams = [
            await client.open_stream(request(), end_stream=True) for _ in range(150)
        ]

        async def get(stream):
            await stream.response()
            return await whole(stream)

        for body in await asyncio.gather(*map(get, streams)):
            assert body == LARGE[:100_000]


@in_loop
async def test_thousands_of_requests_take_their_turns():
    """libnghttp3 closes a connection on 4 KiB of acknowledgements in a row."""

    async def handler(stream):
        stream.send_headers(OK, end_stream=True)

    async with pair(handler) as (client, _):
        most = 0

        async def get():
            nonlocal most
            stream = await client.open_stream(request(), end_stream=True)
            most = max(most, len(client._streams_by_id))
            return await stream.response()

        # A cancelled request gives its turn to others.
        tasks = [asyncio.create_task(get()) for _ in range(3000)]
        await until(lambda: most)
        for task in tasks[1000:1500]:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert found == OK or isinstance(found, asyncio.CancelledError)
        assert most == 512
        assert not client._openers


@in_loops
async def test_what_the_handler_leaves_unread_is_refused_without_an_error(monkeypatch):
    """A client may send on for a while: some answer their caller only then."""
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.2)

    async def handler(stream):
        stream.send_headers([(b":status", b"413")], end_stream=True)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        with pytest.raises(StreamResetError) as caught:
            while True:
                await stream.send_data(LARGE)
        assert caught.value.error_code == ErrorCode.H3_NO_ERROR
        assert caught.value.remote
        assert (await stream.response())[0] == (b":status", b"413")
        assert await whole(stream) == b""


@in_loops
async def test_trailers_that_come_when_the_handler_is_done_are_no_request():
    answered = []
    connected = []

    async def handler(stream):
        answered.append(stream.headers)
        stream.send_headers(OK, end_stream=True)
        # What the trailers wait for is on its way when they are refused.
        client, encoder = connected
        encoder.write(b"\x02\x3f\xbd\x01\x43x-a\x01b")
        client.transmit()

    server = await serve(
        "127.0.0.1",
        0,
        configuration=server_configuration(alpn_protocols=H3_ALPN),
        create_protocol=Server(handler).make,
    )
    try:
        async with connect(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            configuration=client_configuration(alpn_protocols=H3_ALPN),
        ) as client:
            _, control = await client.create_stream(is_unidirectional=True)
            control.write(b"\x00\x04\x00")
            _, encoder = await client.create_stream(is_unidirectional=True)
            connected += client, encoder
            reader, writer = await client.create_stream()
            fields = b"\x00\x00\xd4\xd7\xc1\x50\x09localhost"
            writer.write(b"\x01" + bytes([len(fields)]) + fields)
            # They refer to an entry that the decoder does not have yet.
            writer.write(b"\x01\x03\x02\x00\x80")
            assert (await reader.read()).startswith(b"\x01")
            await client.ping()
            assert len(answered) == 1
    finally:
        server.close()


@in_loops
async def test_a_reset_of_the_client_ends_the_handler():
    ended = asyncio.Event()

    async def handler(stream):
        try:
            stream.send_headers(OK)
            await stream.send_data(LARGE, end_stream=True)
        finally:
            ended.set()

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await stream.readany()
        stream.reset()
        with pytest.raises(StreamResetError, match="H3_REQUEST_CANCELLED"):
            await whole(stream)
        await ended.wait()
        await until(lambda: not ends.protocols[0]._streams_by_id)


@in_loops
async def test_an_error_code_that_is_none_leaves_the_stream_as_it_is():
    async with pair(echo) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        for end in (stream.reset, stream.stop):
            with pytest.raises(ValueError, match="error code"):
                end(1 << 62)
        await stream.send_data(b"as before")
        stream.send_headers([(b"x-trailer", b"last")], end_stream=True)
        assert await whole(stream) == b"as before"


@in_loops
async def test_interim_responses_are_passed_over():
    async def handler(stream):
        stream.send_headers([(b":status", b"103"), (b"link", b"</style.css>")])
        stream.send_headers(OK, end_stream=True)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.response() == OK


@in_loop
async def test_a_handler_that_raises_is_logged_and_answers_500(caplog):
    """What it raises after its response has begun resets the stream."""

    async def handler(stream):
        path = stream.path
        if path in (b"/good", b"/begun"):
            stream.send_headers(OK, end_stream=path == b"/good")
        if path in (b"/begun", b"/bad"):
            raise KeyError("broken")

    with caplog.at_level(logging.ERROR, logger="nghttp2py"):
        async with pair(handler) as (client, ends):
            stream = await client.open_stream(request(b"/bad"), end_stream=True)
            assert (b":status", b"500") in await stream.response()
            assert await whole(stream) == b"500 Internal Server Error\n"
            head = await client.open_stream(request(b"/bad", b"HEAD"), end_stream=True)
            assert (b":status", b"500") in await head.response()
            assert await whole(head) == b""
            # One that returns without a response is no better.
            stream = await client.open_stream(request(b"/none"), end_stream=True)
            assert (b":status", b"500") in await stream.response()
            begun = await client.open_stream(request(b"/begun"), end_stream=True)
            with pytest.raises(StreamResetError) as caught:
                await begun.response()
                await whole(begun)
            assert caught.value.error_code == ErrorCode.H3_INTERNAL_ERROR
            assert not caught.value.unprocessed
            good = await client.open_stream(request(b"/good"), end_stream=True)
            assert await good.response() == OK
            await until(lambda: not ends.protocols[0]._streams_by_id)
    assert caplog.text.count("KeyError: 'broken'") == 3


@in_loops
async def test_shutdown_lets_open_requests_finish_and_refuses_new_ones():
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        stream.send_headers(OK)
        await stream.send_data(LARGE[:300_000], end_stream=True)

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await until(lambda: ends.protocols[0]._streams_by_id)
        stopping = asyncio.create_task(ends.protocols[0].shutdown(10))
        await until(lambda: not client.is_available)
        with pytest.raises(GoingAwayError):
            await client.open_stream(request(), end_stream=True)
        gate.set()
        await stream.response()
        assert await whole(stream) == LARGE[:300_000]
        await stopping
        await client.wait_closed()


@in_loops
async def test_shutdown_ends_in_time_whoever_does_not_read():
    async def handler(stream):
        stream.send_headers(OK)
        await stream.send_data(LARGE, end_stream=True)

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await stream.response()
        await ends.protocols[0].shutdown(0.1)
        with pytest.raises(ConnectionError, match="H3_NO_ERROR"):
            await whole(stream)


@in_loop
async def test_shutdown_does_not_wait_long_for_an_idle_client_that_is_deaf():
    async with pair(echo) as (client, ends):
        # What it has not acknowledged yet, of the handshake, would be waited for.
        await until(lambda: ends.protocols[0]._is_finished())
        loop = asyncio.get_running_loop()
        loop.remove_reader(client._transport.get_extra_info("socket"))
        await asyncio.wait_for(ends.protocols[0].shutdown(None), DEADLINE)


@in_loops
async def test_a_connection_that_has_done_its_work_says_so():
    """RFC 9114, 5.3."""
    async with pair(echo) as (client, ends):
        await client.ping()
    event = ends.protocols[0]._terminated
    assert (event.error_code, event.frame_type) == (ErrorCode.H3_NO_ERROR, None)


@in_loops
async def test_the_end_of_the_connection_wakes_all_who_wait():
    async def handler(stream):
        await asyncio.Event().wait()

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(method=b"POST"))
        sending = asyncio.create_task(stream.send_data(LARGE))
        reading = asyncio.create_task(stream.response())
        await until(lambda: ends.protocols[0]._streams_by_id)
        ends.protocols[0].close(ErrorCode.H3_INTERNAL_ERROR, "the end")
        for task in (sending, reading):
            with pytest.raises(ConnectionError, match="H3_INTERNAL_ERROR: the end"):
                await task
        with pytest.raises(ConnectionError):
            await client.open_stream(request(), end_stream=True)


@in_loops
async def test_who_sends_after_the_end_of_all_does_not_wait():
    async with pair(echo) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(SendException, match="our half of stream 0 has ended"):
            await stream.send_data(b"more")
        client.close()
        with pytest.raises(SendException, match="our half of stream 0 has ended"):
            await stream.send_data(b"unheard")
        await client.wait_closed()
        with pytest.raises(SendException, match="stream 0 is closed"):
            await stream.send_data(b"more")


@in_loops
async def test_what_must_not_be_sent_is_told_and_leaves_no_stream():
    async with pair(echo) as (client, _):
        with pytest.raises(MessageError):
            await client.open_stream([*request(), (b"a b", b"")], end_stream=True)
        assert not client._streams_by_id


@in_loops
async def test_several_coroutines_may_wait_for_a_stream():
    """As on a stream of HTTP/2: one call reads at a time, others queue."""
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        stream.send_headers(OK)
        await stream.send_data(b"body", end_stream=True)

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        waiting = [
            asyncio.create_task(wait)
            for wait in (stream.response(), stream.readany(), stream.readany())
        ]
        await until(lambda: stream._waiting)
        gate.set()
        headers, *pieces = await asyncio.gather(*waiting)
        assert headers == OK
        assert pieces == [b"body", b""]
