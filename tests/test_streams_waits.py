"""Time bounds of streams, and Expect: 100-continue, from either end."""

import asyncio

import pytest
from helpers import settings
from loops import in_loops, in_virtual_time, until
from peers import ScriptedServer
from streams import Pair, Raw
from virtual_time import pass_time

from nghttp2py.asyncio import Client, open_connection, start_server
from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    StreamResetError,
    StreamTimeoutError,
)
from nghttp2py.h2 import (
    H2BodyReceived,
    H2PingAcknowledged,
    H2RequestReceived,
    H2StreamReset,
    Setting,
)

POST = {":method": "POST", ":path": "/", ":scheme": "http", ":authority": "test"}
GET = {**POST, ":method": "GET"}
LARGE = bytes(300_000)


def origin(server):
    return f"http://127.0.0.1:{server.port}"


# ---- Time ----


async def respond(stream):
    await stream.response()


async def read(stream):
    await stream.read()


async def trailers(stream):
    await stream.trailers()


async def send(stream):
    await stream.send_data(LARGE)


async def body(stream):
    await stream.send_body(LARGE)


async def drain(stream):
    stream.write(LARGE)
    await stream.drain()


@pytest.mark.parametrize("wait", [respond, read, trailers, send, body, drain])
@in_loops
async def test_a_server_that_does_nothing_is_waited_for_no_longer(wait):
    async with Pair(client={"timeout": 0.05}) as pair:
        stream = await pair.client.open_stream(POST)
        # On a slow machine the time may pass before a request goes out, if nothing
        # waits for that.
        served = await pair.server.accept_stream()
        with pytest.raises(Exception) as caught:
            await wait(stream)
        error = caught.value
        if not isinstance(error, TimeoutError):
            error = error.__cause__  # of SendException
        assert isinstance(error, StreamTimeoutError)
        assert isinstance(error, (TimeoutError, StreamResetError))
        await until(lambda: served.closed)
        assert served.error.error_code == ErrorCode.CANCEL
        assert pair.client.is_available


@in_loops
async def test_a_response_is_waited_for_as_long_as_is_told():
    async with Pair() as pair:
        stream = await pair.client.open_stream(POST)
        silent = await pair.server.accept_stream()
        with pytest.raises(TimeoutError, match=r"0\.05 seconds"):
            await stream.response(timeout=0.05)
        assert not silent.closed
        with pytest.raises(StreamTimeoutError):
            await stream.read()
        stream = await pair.client.open_stream(GET, end_stream=True)
        served = await pair.server.accept_stream()
        await served.send_response(200)
        assert (await stream.response(timeout=5)).status == 200


@in_loops
async def test_a_turn_is_waited_for_no_longer():
    raw = Raw(peer_settings={Setting.MAX_CONCURRENT_STREAMS: 0}, timeout=0.05)
    with pytest.raises(TimeoutError):
        await raw.protocol.open_stream(GET)
    assert raw.protocol.open_streams == 0
    raw.feed(settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
    stream = await raw.protocol.open_stream(GET)
    stream.reset()
    await raw.close()


@in_virtual_time
async def test_pieces_that_come_in_time_are_no_timeout():
    async with Pair(client={"timeout": 15}) as pair:
        stream = await pair.client.open_stream(GET, end_stream=True)
        served = await pair.server.accept_stream()
        await served.start_response({":status": "200"})

        async def drip():
            for _ in range(7):
                await pass_time(10)
                await served.send_data(b"x")
            await served.end_stream()

        dripping = asyncio.ensure_future(drip())
        assert await stream.read() == b"x" * 7
        await dripping


# ---- Leaving after an end that the peer has caused ----


@pytest.mark.parametrize("kind", [None, ValueError])
@in_loops
async def test_leaving_after_a_settings_timeout_is_good(kind):
    async def mute(reader, writer):
        writer.write(settings())  # and never acknowledges the client's
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        connection = await open_connection(*address, settings_timeout=0.1)
        stream = await connection.open_stream(GET, end_stream=True)
        with pytest.raises(ConnectionTerminatedError) as caught:
            await stream.response()
        assert caught.value.error_code == ErrorCode.SETTINGS_TIMEOUT
        await connection.__aexit__(kind)
        where = f"http://127.0.0.1:{address[1]}"
        client = Client(where, settings_timeout=0.1)
        with pytest.raises(ConnectionTerminatedError):
            await client.get("/")
        await client.__aexit__(kind)


@in_loops
async def test_leaving_after_a_keepalive_timeout_is_good():
    async def deaf(reader, writer):
        writer.write(settings() + b"\0\0\0\4\1\0\0\0\0")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        options = {"keepalive_interval": 0.05, "keepalive_timeout": 0.05}
        async with await open_connection(*address, **options) as connection:
            stream = await connection.open_stream(GET, end_stream=True)
            with pytest.raises(ConnectionTerminatedError, match="after PING"):
                await stream.response()
        async with Client(f"http://127.0.0.1:{address[1]}", **options) as client:
            with pytest.raises(ConnectionTerminatedError, match="after PING"):
                await client.get("/")


@pytest.mark.parametrize("kind", [None, ValueError])
@in_loops
async def test_leaving_after_a_protocol_error_is_good(kind):
    async def nonsense(peer):
        await peer.next(H2RequestReceived)
        peer.writer.write(b"\0\0\1\0\0\0\0\0\0x")  # DATA on stream 0
        await peer.drained()

    async with ScriptedServer(nonsense) as server:
        client = Client(origin(server))
        with pytest.raises((ConnectionTerminatedError, StreamResetError)):
            await client.get("/")
        await client.__aexit__(kind)
        connection = await open_connection("127.0.0.1", server.port)
        stream = await connection.open_stream(GET)
        with pytest.raises((ConnectionTerminatedError, StreamResetError)):
            await stream.response()
        stream.reset()
        stream.writer.close()
        connection.close()
        await connection.__aexit__(kind)


# ---- Expect: 100-continue (RFC 9110, 10.1.1) ----

EXPECT = {**POST, "expect": "100-continue"}


@in_loops
async def test_a_handler_that_reads_asks_for_the_body():
    async with Pair() as pair:
        stream = await pair.client.open_stream(EXPECT)
        served = await pair.server.accept_stream()
        reading = asyncio.ensure_future(served.read())
        event = await stream.next_informational()
        assert event.status == 100
        await stream.send_data(b"body", end_stream=True)
        assert await reading == b"body"
        await served.send_response(200)
        assert await stream.next_informational() is None  # once


@in_loops
async def test_a_handler_of_numbers_asks_for_the_body_too():
    async with Pair() as pair:
        number = await pair.client.start_request(EXPECT)
        served, _ = await pair.server.recv_request()
        reading = asyncio.ensure_future(pair.server.read_stream(served, 4))
        assert await pair.client.recv_informational(number) == [(":status", "100")]
        await pair.client.send_data(number, b"body", end_stream=True)
        assert await reading == b"body"


@pytest.mark.parametrize("what", ["answered", "sent", "here", "unasked"])
@in_loops
async def test_the_body_is_not_asked_for_without_need(what):
    async with Pair() as pair:
        stream = await pair.client.open_stream(POST if what == "unasked" else EXPECT)
        if what == "here":
            await stream.send_data(b"body", end_stream=True)
        served = await pair.server.accept_stream()
        if what == "answered":
            await served.start_response({":status": "200"})
        elif what == "sent":
            await served.send_informational(100)
        elif what == "here":
            await until(lambda: served._eof)
        reading = asyncio.ensure_future(served.read())
        await asyncio.sleep(0)
        if what != "here":
            await stream.send_data(b"body", end_stream=True)
        assert await reading == b"body"
        if what != "answered":
            await served.send_response(200)
        statuses = [event.status async for event in stream.informational()]
        assert statuses == ([100] if what == "sent" else [])


async def post_by_streams(server, expect_continue):
    async with Client(origin(server)) as client:
        response = await client.request(
            "POST", "/", body="body", expect_continue=expect_continue
        )
        body = await response.read()
        informed = [status for status, _ in response.informational]
        return response.status, informed, body


async def post_by_handlers(server, expect_continue):
    class Handler(BaseResponseHandler):
        body = b""

        def on_informational(self, status, headers):
            informed.append(status)

        def on_data(self, data):
            self.body += data

        def on_close(self, error_code):
            assert error_code == 0

    informed = []
    handler = Handler()
    async with HTTP2Client(("127.0.0.1", server.port)) as client:
        client.send_request(
            "POST", body="body", handler=handler, expect_continue=expect_continue
        )
    return handler.status, informed, handler.body


CLIENTS = pytest.mark.parametrize("post", [post_by_streams, post_by_handlers])


@CLIENTS
@in_virtual_time
async def test_client_waits_for_100(post):
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        assert (b"expect", b"100-continue") in event.request.headers
        await pass_time(10)
        peer.connection.ping()
        kinds = H2BodyReceived, H2PingAcknowledged
        assert isinstance(await peer.next(kinds), H2PingAcknowledged)
        peer.connection.send_informational(event.stream_id, 100)
        piece = await peer.next(H2BodyReceived)
        peer.respond(event.stream_id, piece.body.data)
        await peer.drained()

    async with ScriptedServer(script) as server:
        assert await post(server, 30) == (200, [100], b"body")


@CLIENTS
@in_virtual_time
async def test_client_waits_for_100_no_longer_than_told(post):
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        piece = await peer.next(H2BodyReceived)
        times.append(loop.time())
        peer.respond(event.stream_id, piece.body.data)
        await peer.drained()

    loop = asyncio.get_running_loop()
    times = [loop.time()]
    async with ScriptedServer(script) as server:
        assert await post(server, 30) == (200, [], b"body")
    assert times[1] - times[0] == pytest.approx(30, abs=1)


# A ``Client`` repeats what 417 refuses: see below.
@pytest.mark.parametrize(
    ("post", "status"),
    [(post_by_streams, 403), (post_by_handlers, 403), (post_by_handlers, 417)],
)
@in_virtual_time
async def test_client_sends_no_body_that_is_refused(post, status):
    async def script(peer):
        while True:
            event = await peer.next((H2RequestReceived, H2BodyReceived, H2StreamReset))
            kinds.append(type(event))
            if isinstance(event, H2RequestReceived):
                peer.respond(event.stream_id, b"no", status=status)

    kinds = []
    async with ScriptedServer(script) as server:
        assert await post(server, 30) == (status, [], b"no")
        await until(lambda: len(kinds) == 2)
    assert kinds == [H2RequestReceived, H2StreamReset]


@in_loops
async def test_client_repeats_without_an_expectation_that_fails():
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        peer.respond(event.stream_id, status=417)
        event = await peer.next(H2RequestReceived)
        assert b"expect" not in dict(event.request.headers)
        piece = await peer.next(H2BodyReceived)
        peer.respond(event.stream_id, piece.body.data)
        await peer.drained()

    async with ScriptedServer(script) as server, Client(origin(server)) as client:
        response = await client.request("POST", "/", body="body", expect_continue=30)
        assert (response.status, await response.read()) == (200, b"body")


@in_loops
async def test_client_and_server_of_ours_agree_on_100():
    async def echo(stream):
        await stream.send_response(200, body=await stream.read())

    async def serve(protocol):
        await protocol.serve_streams(echo)

    async with await start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}") as client:
            response = await client.request("POST", "/", body=LARGE, expect_continue=30)
            assert await response.read() == LARGE
