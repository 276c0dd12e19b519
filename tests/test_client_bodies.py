"""Whatever gives bytes is a body: for clients, streams and connections."""

import asyncio
import io

import pytest
from loops import in_loop, in_loops, until
from peers import ScriptedServer, echo_server, echo_thread
from streams import Pair

from nghttp2py import DATA_EOF, DATA_OK
from nghttp2py.asyncio import Client, open_connection, start_server
from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.h2 import H2RequestReceived
from nghttp2py.server import BaseRequestHandler, HTTP2Server

POST = {":method": "POST", ":path": "/", ":scheme": "http", ":authority": "test"}
GET = {**POST, ":method": "GET"}


def origin(server):
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class AsyncFile:
    """As aiofiles has it: all methods are coroutines, iterating gives lines."""

    def __init__(self, data=b"one\ntwo"):
        self.file = io.BytesIO(data)

    async def read(self, n=-1):
        await asyncio.sleep(0)
        return self.file.read(n)

    async def seekable(self):
        return True

    async def tell(self):
        return 0


class LineFile(AsyncFile):
    def __aiter__(self):
        return self

    async def __anext__(self):
        line = self.file.readline()
        if not line:
            raise StopAsyncIteration
        return line


class FutureFile:
    """A plain function that returns something to await."""

    def __init__(self):
        self.inner = AsyncFile()

    def read(self, n):
        return self.inner.read(n)


class SyncFile:
    """A file that io does not know."""

    def __init__(self):
        self.read = io.BytesIO(b"one\ntwo").read


class Iterable:
    def __iter__(self):
        return iter((b"one\n", bytearray(b""), memoryview(b"two")))


async def generator():
    yield b"one\n"
    yield b""
    yield b"two"


def reader():
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\ntwo")
    stream.feed_eof()
    return stream


BODIES = [AsyncFile, LineFile, SyncFile, Iterable, generator, reader]


@pytest.mark.parametrize("body", [*BODIES, FutureFile])
@in_loops
async def test_client_sends_it(body):
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.post("/", body())
        assert await response.read() == b"one\ntwo"


@pytest.mark.parametrize("body", BODIES)
@in_loops
async def test_http2client_sends_it(body):
    class Handler(BaseResponseHandler):
        def on_data(self, data):
            got.append(data)

    got = []
    async with echo_server() as server:
        address = server.sockets[0].getsockname()[:2]
        async with HTTP2Client(address) as client:
            client.send_request("POST", body=body(), handler=Handler())
    assert b"".join(got) == b"one\ntwo"


@pytest.mark.parametrize("body", [*BODIES, FutureFile])
@in_loops
async def test_a_stream_sends_it(body):
    async with Pair() as pair:
        stream = await pair.client.open_stream(POST)
        served = await pair.server.accept_stream()
        await stream.send_body(body())
        assert await served.read() == b"one\ntwo"
        await served.send_response(200, body=body())
        assert await stream.read() == b"one\ntwo"


@in_loops
async def test_a_proxy_of_streams_hands_bodies_through():
    """Its own requests are the bodies of others, and their responses its answers."""

    async def proxy(stream):
        upstream = await connection.open_stream({**POST, ":path": "/a"})
        sending = asyncio.ensure_future(upstream.send_body(stream))
        response = await upstream.response()
        await stream.send_response(response.status, body=upstream)
        await sending

    async def serve(protocol):
        await protocol.serve_streams(proxy)

    data = bytes(range(256)) * 4096
    async with echo_server() as server:
        connection = await open_connection(*server.sockets[0].getsockname()[:2])
        async with (
            connection,
            await start_server(serve, "127.0.0.1", 0) as front,
            Client(origin(front)) as client,
        ):
            response = await client.post("/", data)
            assert await response.read() == data


@in_loops
async def test_a_proxy_of_client_and_streams_hands_bodies_through():
    async def proxy(stream):
        response = await upstream.post("/", stream)
        await stream.send_response(response.status, body=response)

    async def serve(protocol):
        await protocol.serve_streams(proxy)

    data = bytes(range(256)) * 4096
    async with (
        echo_server() as server,
        Client(origin(server)) as upstream,
        await start_server(serve, "127.0.0.1", 0) as front,
        Client(origin(front)) as client,
    ):
        response = await client.post("/", data)
        assert await response.read() == data


class CallableFile:
    """As programs of old have bodies: callable, with a ``read`` besides."""

    def __init__(self):
        self.given = iter([(b"one\n", DATA_OK), (b"two", DATA_EOF)])

    def __call__(self, n):
        return next(self.given)

    def read(self, n):
        raise AssertionError("called, not read")

    __iter__ = __aiter__ = read


@in_loop
async def test_a_callable_is_called_whatever_else_it_has():
    class Serve(BaseRequestHandler):
        def on_request_done(self):
            self.send_response(200, body=CallableFile())

    class Handler(BaseResponseHandler):
        def on_data(self, data):
            got.append(data)

    got = []
    async with echo_server() as echo, HTTP2Server(("127.0.0.1", 0), Serve) as server:
        for which in (echo, server):
            async with HTTP2Client(which.sockets[0].getsockname()[:2]) as client:
                client.send_request("POST", body=CallableFile(), handler=Handler())
            assert b"".join(got) == b"one\ntwo"
            got.clear()


async def empty_for_ever():
    while True:
        yield b""


def empty_iterator():
    while True:
        yield b""


@pytest.mark.parametrize("body", [empty_for_ever, empty_iterator])
@in_loops
async def test_a_body_of_nothing_lets_others_have_their_turn(body):
    async def serve(peer):
        while True:
            event = await peer.next(H2RequestReceived)
            if event.request.method == b"GET":
                peer.respond(event.stream_id, b"answer")

    async with (
        ScriptedServer(serve) as server,
        Client(f"http://127.0.0.1:{server.port}") as client,
    ):
        posting = asyncio.ensure_future(client.post("/", body()))
        assert await (await client.get("/")).read() == b"answer"
        posting.cancel()
        await asyncio.wait([posting])
    async with Pair() as pair:
        stream = await pair.client.open_stream(POST)
        sending = asyncio.ensure_future(stream.send_body(body()))
        other = await pair.client.open_stream(GET, end_stream=True)
        served = [await pair.server.accept_stream() for _ in range(2)]
        await served[1].send_response(200, body=b"answer")
        assert await other.read() == b"answer"
        sending.cancel()
        await until(lambda: stream.error is not None)


def test_an_asynchronous_body_needs_no_running_loop_of_its_own():
    """``HTTP2Client`` runs its loop later."""

    class Handler(BaseResponseHandler):
        def on_data(self, data):
            got.append(data)

    got = []
    with echo_thread() as address, HTTP2Client(address) as client:
        client.send_request("POST", body=generator(), handler=Handler())
    assert b"".join(got) == b"one\ntwo"
