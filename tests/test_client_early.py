"""Responses that are whole before their request (RFC 9113, 8.1), dropped streams."""

import asyncio
import gc
import weakref

import pytest
from helpers import data, rst_stream
from loops import idle, in_loop, in_loops, until
from peers import ScriptedServer, client_tls, server_tls
from streams import Pair, Raw

from nghttp2py.asyncio import Client, open_connection, start_server
from nghttp2py.errors import ErrorCode, StreamResetError
from nghttp2py.h2 import H2Configuration, H2RequestReceived, H2StreamReset

ONE = H2Configuration(max_concurrent_streams=1)
POST = {":method": "POST", ":path": "/", ":scheme": "http", ":authority": "test"}
GET = {**POST, ":method": "GET"}
NAME = {False: None, True: "localhost"}
RST_STREAM = 3
#: More than the windows that a server opens.
LARGE = bytes(300_000)


def origin(server):
    return f"http://127.0.0.1:{server.port}"


def answer_early(status=413, body=b"enough"):
    """Make a script: a whole answer to each request's header section, no reset."""

    async def script(peer):
        peer.resets = []
        while True:
            event = await peer.next((H2RequestReceived, H2StreamReset))
            if isinstance(event, H2StreamReset):
                peer.resets.append(event.error_code)
            elif body:
                peer.respond(event.stream_id, body, status=status)
            else:
                peer.connection.send_response_headers(
                    event.stream_id, status, [], end_stream=True
                )

    return script


async def endless():
    while True:
        yield b"x"
        await asyncio.sleep(0)


async def read(response):
    assert await response.read() == b"enough"
    return response


async def hold(response):
    return response


async def drop(response):
    return None


@pytest.mark.parametrize("body", [lambda: LARGE, endless], ids=["bytes", "async"])
@pytest.mark.parametrize(
    ("status", "use"), [(413, read), (413, hold), (413, drop), (200, read), (200, drop)]
)
@in_loops
async def test_an_early_answer_frees_its_stream(status, use, body):
    async with (
        ScriptedServer(answer_early(status), config=ONE) as server,
        Client(origin(server), timeout=10, close_timeout=60) as client,
    ):
        kept = await use(await client.post("/", body()))
        assert await (await client.get("/")).read() == b"enough"
        assert await (await client.get("/")).read() == b"enough"
        if use is hold:
            assert await kept.read() == b"enough"
            assert kept.status == 413


@in_loops
async def test_an_early_answer_without_a_body_frees_its_stream():
    async with (
        ScriptedServer(answer_early(413, b""), config=ONE) as server,
        Client(origin(server), timeout=10, close_timeout=60) as client,
    ):
        response = await client.post("/", LARGE)
        assert response.status == 413
        assert (await client.get("/")).status == 413
        assert await response.read() == b""


@in_loop
async def test_a_held_early_answer_does_not_hold_up_the_end():
    begin = asyncio.get_running_loop().time()
    async with ScriptedServer(answer_early(200)) as server:
        async with Client(origin(server), close_timeout=60) as client:
            response = await client.post("/", LARGE)
        assert response.status == 200
        connection = await open_connection("127.0.0.1", server.port, close_timeout=60)
        async with connection:
            stream = await connection.open_stream(POST)
            number = await connection.start_request(POST)
            await stream.response()
            assert await connection.read_stream(number, -1) == b"enough"
    assert asyncio.get_running_loop().time() - begin < 20


@in_loops
async def test_an_early_error_ends_a_streams_upload():
    async with Pair(server={"concurrency": 1}) as pair:
        stream = await pair.client.open_stream(POST)
        sending = asyncio.ensure_future(stream.send_body(LARGE))
        served = await pair.server.accept_stream()
        await served.send_response(413, body=b"enough")
        with pytest.raises(Exception, match="response was whole"):
            await sending
        assert await stream.read() == b"enough"
        assert (await stream.response()).status == 413
        second = await asyncio.wait_for(pair.client.open_stream(GET), 10)
        second.reset()
        await until(lambda: served.closed)
        assert served.error.error_code == ErrorCode.CANCEL


@in_loops
async def test_an_upload_goes_on_until_an_early_success_is_read():
    async with Pair() as pair:
        stream = await pair.client.open_stream(POST)
        served = await pair.server.accept_stream()
        await served.start_response({":status": "200"}, end_stream=True)
        assert (await stream.response()).status == 200
        await until(lambda: stream._eof)
        await stream.send_data(b"body", end_stream=True)
        assert await stream.read() == b""
        assert await served.read() == b"body"
        stream = await pair.client.open_stream(POST)
        served = await pair.server.accept_stream()
        await served.send_response(200, body=b"enough")
        assert await stream.read() == b"enough"
        await until(lambda: served.closed)
        assert served.error.error_code == ErrorCode.CANCEL


@pytest.mark.parametrize("more", [{}, {":protocol": "websocket"}])
@in_loops
async def test_the_halves_of_a_tunnel_end_one_by_one(more):
    fields = {":method": "CONNECT", ":authority": "h:1"}
    if more:
        fields |= {":scheme": "http", ":path": "/", **more}
    async with Pair() as pair:
        await pair.client.ping()  # so that SETTINGS have come
        stream = await pair.client.open_stream(fields)
        served = await pair.server.accept_stream()
        await served.send_response(200, body=b"theirs")
        assert await stream.read() == b"theirs"
        await idle()
        await stream.send_data(b"ours", end_stream=True)
        assert await served.read() == b"ours"


@pytest.mark.parametrize("collector", [False, True])
@in_loops
async def test_a_dropped_stream_is_reset(collector):
    gc.collect()
    if not collector:
        gc.disable()
    try:
        raw = Raw()
        stream = await raw.protocol.open_stream(POST)
        stream.write(b"some")
        reader = stream.reader
        number = stream.stream_id
        ref = weakref.ref(stream)
        del stream
        assert ref() is not None
        del reader
        (reset,) = await raw.frames(RST_STREAM)
        assert (reset.stream_id, ref()) == (number, None)
        assert reset.payload == bytes([0, 0, 0, ErrorCode.CANCEL])
        assert raw.protocol.open_streams == 0
        await raw.close()
    finally:
        gc.enable()


@in_loops
async def test_a_stream_on_which_a_task_waits_is_kept():
    raw = Raw()

    async def ask():
        stream = await raw.protocol.open_stream(GET, end_stream=True)
        answers.append((await stream.response()).status)

    answers = []
    waiting = asyncio.ensure_future(ask())
    await raw.frames(1)
    ref = weakref.ref(waiting)
    del waiting
    gc.collect()
    assert ref() is not None
    raw.feed(raw.headers(1, [(":status", "204")], end_stream=True))
    await until(lambda: answers == [204])
    await raw.close()


@in_loops
async def test_a_server_that_drops_a_stream_resets_what_is_not_whole():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET.items(), end_stream=True))
    raw.feed(raw.headers(3, POST.items()))
    raw.feed(raw.headers(5, POST.items()))
    await raw.protocol.accept_stream()
    # The answer is whole and is sent; only the upload is stopped.
    await (await raw.protocol.accept_stream()).send_response(200, body=b"whole")
    number, _ = await raw.protocol.recv_request()
    gc.collect()
    await raw.frames(0)
    await until(lambda: raw.protocol.connection.active_stream_count == 1)
    resets = {f.stream_id: f.payload[3] for f in await raw.frames(RST_STREAM)}
    assert resets == {1: ErrorCode.CANCEL, 3: ErrorCode.NO_ERROR}
    assert number == 5
    await raw.close()


@in_loops
async def test_a_dropped_response_is_reset():
    async def half(peer):
        event = await peer.next(H2RequestReceived)
        peer.connection.send_response_headers(event.stream_id, 200, [])
        peer.connection.send_body(event.stream_id, b"half", end_stream=False)
        resets.append((await peer.next(H2StreamReset)).error_code)
        await peer.drained()

    resets = []
    async with ScriptedServer(half) as server, Client(origin(server)) as client:
        response = await client.post("/", endless())
        assert response.status == 200
        del response
        await until(lambda: resets)
        assert resets == [ErrorCode.CANCEL]


# ---- RST_STREAM with NO_ERROR (A response that is not whole has not ended) ----


@in_loops
async def test_a_reset_without_error_is_no_end_of_a_body():
    async def half(peer):
        event = await peer.next(H2RequestReceived)
        peer.connection.send_response_headers(event.stream_id, 200, [])
        peer.connection.send_body(event.stream_id, b"half", end_stream=False)
        await peer.flush()
        peer.writer.write(rst_stream(event.stream_id, 0))
        await peer.drained()

    async with ScriptedServer(half) as server:
        async with Client(origin(server)) as client:
            response = await client.get("/")
            with pytest.raises(StreamResetError):
                await response.read()
        async with await open_connection("127.0.0.1", server.port) as connection:
            stream = await connection.open_stream(GET, end_stream=True)
            assert await stream.readexactly(4) == b"half"
            with pytest.raises(StreamResetError):
                await stream.readany()
            assert stream.error is not None


@in_loops
async def test_a_request_that_is_reset_without_error_has_not_ended():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, POST.items()), data(1, b"half"), rst_stream(1, 0))
    raw.feed(raw.headers(3, POST.items()))
    stream = await raw.protocol.accept_stream()
    if stream.stream_id == 1:
        assert await stream.readexactly(4) == b"half"
        with pytest.raises(StreamResetError):
            await stream.read()
        stream = await raw.protocol.accept_stream()
    assert stream.stream_id == 3
    raw.feed(data(3, b"half"), rst_stream(3, 0))
    assert await stream.readexactly(4) == b"half"
    with pytest.raises(StreamResetError):
        await stream.read()
    await raw.close()


@pytest.mark.parametrize("tls", [False, True])
@in_loops
async def test_no_cycle_of_references_outlives_a_connection(tls):
    """The collector may not come for long: memory would wait for it."""

    async def serve(protocol):
        keep(protocol)
        await protocol.serve_streams(answer)

    async def answer(stream):
        keep(stream)
        if stream.request.method == b"GET":
            await stream.send_response(200, body=b"body")
        else:
            await stream.read()

    def keep(thing):
        things.append(weakref.ref(thing))

    async def use(address):
        connection = await open_connection(
            *address[:2], ssl=client_tls() if tls else None, server_hostname=NAME[tls]
        )
        keep(connection)
        async with connection:
            stream = await connection.open_stream(GET, end_stream=True)
            keep(stream)
            assert await stream.read() == b"body"
            unread = await connection.open_stream(POST)
            keep(unread)
            await connection.start_request(POST)
            assert await connection.ping() >= 0
            connection.close(0.01)

    things = []
    gc.collect()
    gc.disable()
    try:
        server = await start_server(
            serve, "127.0.0.1", 0, ssl=server_tls() if tls else None
        )
        async with server:
            await use(server.sockets[0].getsockname())
        await until(lambda: not any(ref() for ref in things))
        assert len(things) == 7
    finally:
        gc.enable()
