"""Bodies through coroutines: back-pressure both ways, forms, readers, windows."""

import array
import asyncio
import hashlib
import io
import random

import pytest
from helpers import (
    DATA,
    GET,
    HEADERS,
    OK,
    WINDOW_UPDATE,
    data,
    rst_stream,
    window_update,
)
from loops import idle, in_loops, until
from streams import Pair, Raw

from nghttp2py.errors import (
    BodyQueueFullError,
    ErrorCode,
    InvalidBodyLengthError,
    PushDisabledError,
    SendException,
    StreamResetError,
)
from nghttp2py.h2 import H2Configuration, Setting

REQUEST = {":method": "POST", ":path": "/"}
MEGABYTE = 1024 * 1024


async def open_pair(pair, **options):
    """Both ends of a stream."""
    stream = await pair.client.open_stream(REQUEST, **options)
    return stream, await pair.server.accept_stream()


@in_loops
async def test_a_slow_reader_stops_the_sender():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_data(b"x" * 10 * MEGABYTE))
        await until(lambda: served._size == 65535)
        await idle()
        assert not sending.done()
        assert served._size == 65535  # a window, and no more
        assert pair.client.connection.queued_body() <= 65536
        got = 0
        while got < 10 * MEGABYTE:
            got += len(await served.readany())
            assert served._size <= 16 * MEGABYTE
        await sending


@in_loops
async def test_a_client_lets_more_be_sent_ahead_than_a_server():
    async with Pair() as pair:
        assert pair.server.initial_window_size == 65535
        assert pair.client.initial_window_size == 262144
        stream, served = await open_pair(pair, end_stream=True)
        sending = asyncio.ensure_future(served.send_response(200, {}, b"x" * MEGABYTE))
        await idle()
        assert stream._size == 262144
        assert len(await stream.read()) == MEGABYTE
        await sending


@in_loops
async def test_a_stream_that_is_not_read_does_not_stop_others():
    async with Pair() as pair:
        stuck, _ = await open_pair(pair)
        sending = asyncio.ensure_future(stuck.send_data(b"x" * MEGABYTE))
        stream, served = await open_pair(pair)
        other = asyncio.ensure_future(
            stream.send_data(b"y" * MEGABYTE, end_stream=True)
        )
        assert len(await served.read()) == MEGABYTE
        await other
        assert not sending.done()
        sending.cancel()


@in_loops
async def test_a_transport_that_is_full_makes_senders_wait():
    config = H2Configuration(initial_window_size=2**30, connection_window_size=2**30)
    async with Pair(server={"config": config}) as pair:
        await pair.client.ping()
        stream, served = await open_pair(pair)
        pair.pipe.hold()
        sending = asyncio.ensure_future(
            stream.send_data(b"x" * 10 * MEGABYTE, end_stream=True)
        )
        await until(lambda: pair.pipe.paused)
        await idle()
        assert not sending.done()
        assert pair.pipe.largest < 300000
        more = asyncio.ensure_future(pair.client.start_request(REQUEST))
        await idle()
        assert not more.done()
        pair.pipe.release()
        assert len(await served.read()) == 10 * MEGABYTE
        await sending
        await more


@in_loops
async def test_drain_waits_until_the_queue_is_short():
    raw = Raw(peer_settings={Setting.INITIAL_WINDOW_SIZE: 0})
    stream = await raw.protocol.open_stream(REQUEST)
    stream.write(b"x" * 1000)
    await stream.drain()  # little waits
    stream.write(b"y" * 100000)
    draining = asyncio.ensure_future(stream.drain())
    await raw.frames(HEADERS)
    assert not draining.done()
    raw.feed(window_update(1, 35000))
    await until(lambda: raw.protocol.connection.queued_body(1) == 66000)
    assert not draining.done()
    raw.feed(window_update(1, 1000))
    await draining
    await raw.close()


@in_loops
async def test_write_has_a_bound():
    raw = Raw(peer_settings={Setting.INITIAL_WINDOW_SIZE: 0})
    stream = await raw.protocol.open_stream(REQUEST)
    stream.write(b"x" * MEGABYTE)
    with pytest.raises(BodyQueueFullError):
        stream.write(b"x")
    await raw.close()


@in_loops
async def test_a_writer_works_as_those_of_asyncio():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        writer = stream.writer
        assert writer.can_write_eof() and not writer.is_closing()
        writer.write(b"one ")
        writer.writelines([b"two ", bytearray(b"three ")])
        await writer.drain()
        writer.write(memoryview(b"four"))
        writer.write_eof()
        writer.write_eof()
        assert writer.is_closing()
        await writer.wait_closed()
        writer.close()
        assert writer.get_extra_info("peername") == ("192.0.2.1", 443)
        assert writer.get_extra_info("no such", 1) == 1
        assert await served.reader.read() == b"one two three four"
        with pytest.raises(SendException):
            await stream.send_data(b"more")


@in_loops
async def test_a_reader_works_as_those_of_asyncio():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        reader = served.reader
        await stream.send_data(b"one\ntwo\nthree;fo")
        assert await reader.readline() == b"one\n"
        assert await reader.readuntil(b"o\n") == b"two\n"
        assert await reader.readuntil(b";") == b"three;"
        assert await reader.read(1) == b"f"
        waiting = asyncio.ensure_future(reader.readexactly(3))
        await idle()
        await stream.send_data(b"ur\nfive", end_stream=True)
        assert await waiting == b"our"
        assert [line async for line in reader] == [b"\n", b"five"]
        assert reader.at_eof()
        assert await reader.read() == b"" == await reader.read(5)
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(1)
        assert await reader.readexactly(0) == b""
        with pytest.raises(ValueError):
            await reader.readexactly(-1)
        with pytest.raises(ValueError):
            await reader.readuntil(b"")


@in_loops
async def test_a_body_that_ends_early_is_an_incomplete_read():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        await stream.send_data(b"abc", end_stream=True)
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await served.readexactly(5)
        assert info.value.partial == b"abc" and info.value.expected == 5

        stream, served = await open_pair(pair)
        await stream.send_data(b"abc", end_stream=True)
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await served.reader.readuntil(b";")
        assert info.value.partial == b"abc"


@in_loops
async def test_a_line_without_end_is_refused():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_data(b"x" * 100000))
        with pytest.raises(asyncio.LimitOverrunError):
            await served.reader.readuntil(b";")
        with pytest.raises(ValueError):
            await served.reader.readline()
        assert len(await served.readexactly(100000)) == 100000
        await sending


@pytest.mark.parametrize("size", [1, 7, 1000, 100000])
@in_loops
async def test_reads_of_any_size_give_the_same_bytes(size):
    body = random.Random(1).randbytes(3000 if size == 1 else 300000)
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_data(body, end_stream=True))
        pieces = []
        while piece := await served.read(size):
            assert len(piece) <= size
            pieces.append(piece)
        assert b"".join(pieces) == body
        await sending


@in_loops
async def test_tiny_frames_take_little_memory():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET))
    served = await raw.protocol.accept_stream()
    for _ in range(65):
        raw.feed(*[data(1, b"x")] * 1000)
    assert len(served._pieces) < 200
    assert await served.readexactly(65000) == b"x" * 65000
    await raw.close()


async def pieces():
    for n in range(5):
        await asyncio.sleep(0)
        yield b"%d" % n * 50000


@pytest.mark.parametrize(
    "body",
    [
        lambda: b"".join(b"%d" % n * 50000 for n in range(5)),
        lambda: bytearray(b"".join(b"%d" % n * 50000 for n in range(5))),
        lambda: io.BytesIO(b"".join(b"%d" % n * 50000 for n in range(5))),
        lambda: [b"%d" % n * 50000 for n in range(5)],
        lambda: (b"%d" % n * 50000 for n in range(5)),
        pieces,
    ],
    ids=["bytes", "bytearray", "file", "list", "generator", "async generator"],
)
@in_loops
async def test_send_body_takes_any_form(body):
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_body(body(), trailers={"n": "5"}))
        got = await served.read()
        assert got == b"".join(b"%d" % n * 50000 for n in range(5))
        assert await served.trailers() == ((b"n", b"5"),)
        await sending


@pytest.mark.parametrize("body", ["text", 5, ["text"]])
@in_loops
async def test_send_body_refuses_what_is_no_body(body):
    async with Pair() as pair:
        stream, _ = await open_pair(pair)
        with pytest.raises(TypeError):
            await stream.send_body(body)


@in_loops
async def test_a_body_that_breaks_off_tells_its_rest():
    raw = Raw(peer_settings={Setting.INITIAL_WINDOW_SIZE: 3})
    for stream_id, end in ((1, "reset"), (3, "refused"), (5, "lost")):
        stream = await raw.protocol.open_stream(REQUEST)
        sending = asyncio.ensure_future(stream.send_body(b"12345678"))
        await raw.frames(DATA)
        if end == "reset":
            stream.reset()
        elif end == "refused":
            raw.feed(rst_stream(stream_id))
        else:
            raw.transport.close()
        with pytest.raises(SendException) as info:
            await sending
        assert info.value.data == b"45678"
    await raw.protocol.wait_closed()


@in_loops
async def test_the_rest_is_counted_in_bytes_whatever_was_written_before():
    raw = Raw(peer_settings={Setting.INITIAL_WINDOW_SIZE: 13})
    stream = await raw.protocol.open_stream(REQUEST)
    stream.write(memoryview(array.array("I", [1, 2])))
    sending = asyncio.ensure_future(stream.send_body(b"12345678"))
    await raw.frames(DATA)
    raw.feed(rst_stream(1))
    with pytest.raises(SendException) as info:
        await sending
    assert info.value.data == b"678"
    await raw.close()


@in_loops
async def test_pieces_are_any_kind_of_buffer():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        await stream.send_body([array.array("I", [1, 2]), memoryview(b"x")])
        assert await served.read() == array.array("I", [1, 2]).tobytes() + b"x"


@in_loops
async def test_a_source_that_fails_resets_the_stream():
    closed = []

    async def failing():
        try:
            yield b"half"
            raise RuntimeError("mine")
        finally:
            closed.append(True)

    async with Pair() as pair:
        stream, served = await open_pair(pair)
        with pytest.raises(RuntimeError, match="mine"):
            await stream.send_body(failing())
        with pytest.raises(StreamResetError) as info:
            await served.read()
        assert info.value.error_code == ErrorCode.INTERNAL_ERROR
        assert closed == [True]


@in_loops
async def test_a_source_is_closed_when_its_stream_breaks_off():
    closed = []

    async def endless():
        try:
            while True:
                yield b"x" * 10000
        finally:
            closed.append(True)

    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_body(endless()))
        await served.readexactly(100000)
        served.reset(ErrorCode.ENHANCE_YOUR_CALM)
        with pytest.raises(SendException) as info:
            await sending
        assert info.value.__cause__.error_code == ErrorCode.ENHANCE_YOUR_CALM
        assert closed == [True]


@in_loops
async def test_a_source_is_asked_no_faster_than_it_is_sent():
    asked = 0

    async def endless():
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 10000

    async with Pair() as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_body(endless()))
        await until(lambda: served._size == 65535)
        await idle()
        assert asked == 14  # a window of 64 KiB and a queue as long
        sending.cancel()
        with pytest.raises(StreamResetError):
            await served.read()


@in_loops
async def test_a_body_that_does_not_fit_its_length_is_the_callers_fault():
    async with Pair() as pair:
        stream = await pair.client.open_stream({**REQUEST, "content-length": "3"})
        with pytest.raises(SendException) as info:
            await stream.send_data(b"four")
        assert isinstance(info.value.__cause__, InvalidBodyLengthError)


@in_loops
async def test_informational_responses_come_before_the_final_one():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        await served.send_informational(100)
        await served.send_informational(103, {"link": "</a.css>"})
        await served.send_response(200, body=b"x")
        statuses = [event.status async for event in stream.informational()]
        assert statuses == [100, 103]
        assert (await stream.response()).status == 200
        assert await stream.read() == b"x"


@in_loops
async def test_a_server_pushes():
    config = H2Configuration(enable_push=True)
    async with Pair(client={"config": config}) as pair:
        stream, served = await open_pair(pair, end_stream=True)
        pushed = await served.push({":path": "/a.css"})
        await served.send_response(200, body=b"page")
        await pushed.send_response(200, {"content-type": "text/css"}, b"style")
        assert await stream.read() == b"page"
        promised = await pair.client.accept_push()
        assert promised.request.target == b"/a.css"
        assert promised.request.method == b"GET"
        assert promised.request.authority == b"192.0.2.1:443"
        assert (await promised.response()).status == 200
        assert await promised.read() == b"style"
        # And by numbers, after the end.
        stream, served = await open_pair(pair, end_stream=True)
        number = await pair.server.push(served.stream_id, {":path": "/b.css"})
        await pair.server.start_response(number, {":status": "200"})
        await pair.server.send_data(number, b"more", end_stream=True)
        await served.send_response(204)
        await stream.response()
        got, headers = await pair.client.recv_request()
        assert got == number and (":path", "/b.css") in headers
        assert await pair.client.read_stream(got, -1) == b"more"


@in_loops
async def test_a_push_that_the_client_does_not_want_is_refused():
    async with Pair() as pair:
        _, served = await open_pair(pair, end_stream=True)
        with pytest.raises(PushDisabledError):
            await served.push({":path": "/a.css"})


@in_loops
async def test_trailers_go_both_ways():
    async with Pair() as pair:
        stream, served = await open_pair(pair)
        await stream.send_data(b"abc")
        await stream.send_trailers({"sum": "6"})
        assert await served.read() == b"abc"
        assert await served.trailers() == ((b"sum", b"6"),)
        await served.start_response({":status": "200"})
        await served.send_body(b"x", trailers=[("end", "true")])
        assert [chunk async for chunk in stream] == [b"x"]
        assert await stream.trailers() == ((b"end", b"true"),)


@in_loops
async def test_a_window_grows_with_a_reader_that_is_fast():
    """The peer is a window a round trip away, and all it sends is read."""
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET))
    served = await raw.protocol.accept_stream()
    connection = raw.protocol.connection
    window, pending = 65535, []
    for _ in range(6):
        sent = 0
        while window - sent >= 16000:
            raw.feed(data(1, b"x" * 16000))
            sent += 16000
            await served.readany()
        raw.protocol.flush()
        pending = [f for f in raw.take() if f.type == 6]
        raw.feed(*(bytes([0, 0, 8, 6, 1, 0, 0, 0, 0]) + f.payload for f in pending))
        raw.protocol.flush()
        window = connection.remote_flow_control_window(1)
    assert window > 4 * 65535
    await raw.close()


@pytest.mark.parametrize("tuning", [True, False])
@in_loops
async def test_a_window_does_not_grow_if_it_should_not(tuning):
    """Of a reader that is slow, or without tuning."""
    raw = Raw(client_side=False, window_tuning=tuning)
    raw.feed(raw.headers(1, GET))
    served = await raw.protocol.accept_stream()
    for _ in range(50):
        raw.feed(data(1, b"x" * 16000))
        if tuning:
            await served.read(15000)
            raw.protocol.flush()
            pings = [f for f in raw.take() if f.type == 6]
            raw.feed(*(bytes([0, 0, 8, 6, 1, 0, 0, 0, 0]) + f.payload for f in pings))
        else:
            await served.readany()
        if raw.protocol.connection.remote_flow_control_window(1) < 16000:
            break
    if served._size:
        await served.readany()
    assert raw.protocol.connection.remote_flow_control_window(1) <= 65535
    await raw.close()


@in_loops
async def test_reading_credits_a_closed_stream_no_more():
    raw = Raw()
    stream = await raw.protocol.open_stream(REQUEST, end_stream=True)
    raw.feed(raw.headers(1, OK), *[data(1, b"x" * 10000)] * 4, data(1, end_stream=True))
    await raw.frames(HEADERS)
    assert len(await stream.read()) == 40000
    raw.protocol.flush()
    assert all(f.stream_id == 0 for f in raw.take() if f.type == WINDOW_UPDATE)
    await raw.close()


@in_loops
async def test_random_traffic_keeps_every_byte():
    """Many streams at once, of all sizes, some of them cancelled on either side."""
    dice = random.Random(7)

    async def handler(stream):
        digest, size = hashlib.sha256(), 0
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
            if dice.random() < 0.01:
                stream.reset(ErrorCode.REFUSED_STREAM)
        await stream.send_response(
            200, {"digest": digest.hexdigest()}, dice.randbytes(size)
        )

    async def ask(client):
        body = dice.randbytes(int(2 ** dice.uniform(0, 18)))
        async with await client.open_stream(REQUEST) as stream:
            try:
                sending = asyncio.ensure_future(stream.send_body(body))
                try:
                    if dice.random() < 0.1:
                        for _ in range(dice.randrange(20)):
                            await asyncio.sleep(0)
                        return
                    response = await stream.response()
                    back = await stream.read()
                    await sending
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])
                digest = hashlib.sha256(body).hexdigest().encode()
                assert dict(response.headers)[b"digest"] == digest
                assert len(back) == len(body)
            except (StreamResetError, SendException) as error:
                assert (error.__cause__ or error).error_code in (7, 8)

    async with Pair(
        lambda proto: proto.serve_streams(handler), server={"concurrency": 20}
    ) as pair:
        for _ in range(4):
            await asyncio.gather(*(ask(pair.client) for _ in range(40)))
        await until(
            lambda: not pair.client.stream_count and not pair.server.stream_count
        )
        assert pair.client.open_streams == 0
        assert pair.client.connection.active_stream_count == 0


@pytest.mark.parametrize("bound", [1000, 65536, 100000])
@in_loops
async def test_a_body_in_pieces_keeps_to_the_bound_of_the_queue(bound):
    pieces = [b"x" * 60000] * 3 + [b"y" * 900] * 300
    options = {"config": H2Configuration(max_body_queue=bound)}
    async with Pair(client=options) as pair:
        stream, served = await open_pair(pair)
        sending = asyncio.ensure_future(stream.send_body(pieces))
        assert await served.read() == b"".join(pieces)
        await sending


@in_loops
async def test_a_body_before_its_headers_leaves_the_stream_as_it_was():
    async with Pair() as pair:
        client, server = await open_pair(pair)
        with pytest.raises(SendException):
            await server.send_body(b"too early")
        assert server.error is None
        await server.send_response(200, body=b"body")
        assert (await client.response()).status == 200
        assert await client.read() == b"body"
