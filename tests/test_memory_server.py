"""``MemoryServer``: applications in memory, over every version."""

import asyncio

import pytest
from exchanges import pattern
from loops import in_loop, in_loops, until

from nghttp2py import BaseRequestHandler
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Timeouts
from nghttp2py.errors import StreamResetError
from nghttp2py.testing import MemoryServer

VERSIONS = pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])


class Handler(BaseRequestHandler):
    max_body_size = 1 << 24

    async def on_request(self):
        self.send_response(200, body=self.path + b" " + await self.read())


async def coroutine(stream):
    body = await stream.read()
    await stream.send_response(200, body=stream.request.target + b" " + body)


async def asgi(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    text = scope["raw_path"] + b" " + body
    await send({"type": "http.response.body", "body": text})


KINDS = pytest.mark.parametrize(
    "make",
    [lambda: Handler, lambda: coroutine, lambda: ASGIApp(asgi)],
    ids=["handler", "coroutine", "ASGI"],
)


@KINDS
@VERSIONS
@in_loop
async def test_an_application_answers_many_requests_at_once(version, make):
    async with MemoryServer(make()) as server, server.client(version) as client:
        responses = await asyncio.gather(
            *(client.post(f"/{i}", b"%d" % i) for i in range(20))
        )
        assert [await response.read() for response in responses] == [
            b"/%d %d" % (i, i) for i in range(20)
        ]
        assert {response.http_version for response in responses} == {version}
        counts = server.counts
        assert (counts.connections, counts.quic_connections) == (
            (1, 0) if version == "HTTP/2" else (0, 1)
        )


@KINDS
@in_loop
async def test_a_server_answers_clients_of_every_version_in_any_order(make):
    async with MemoryServer(make()) as server:
        for version in ("HTTP/3", "HTTP/2", "HTTP/3"):
            async with server.client(version) as client:
                response = await client.get("/")
                assert await response.read() == b"/ "
                assert response.headers.get("alt-svc") is None
            reader, writer = await server.open_connection()
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()


@VERSIONS
@in_loop
async def test_large_bodies_pass_in_both_directions(version):
    """They are more than what may wait, and than the windows."""
    body = pattern(3_000_000)
    async with MemoryServer(Handler) as server, server.client(version) as client:
        response = await client.post("/", body)
        assert await response.read() == b"/ " + body


@KINDS
@in_loops
async def test_a_plain_connection_speaks_http1(make):
    async with MemoryServer(make()) as server:
        reader, writer = await server.open_connection()
        for i in range(3):
            writer.write(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % i)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            if b"chunked" in head:
                assert await reader.readuntil(b"0\r\n\r\n")
            else:
                assert await reader.readexactly(3) == b"/%d " % i
        writer.close()
        await until(lambda: not server.counts.connections)


@in_loops
async def test_a_client_that_hangs_up_is_gone_at_the_server():
    begun = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait(stream):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with MemoryServer(wait) as server:
        _, writer = await server.open_connection()
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await begun.wait()
        writer.transport.abort()
        await cancelled.wait()


@VERSIONS
@in_loop
async def test_open_requests_finish_when_the_block_is_left(version):
    go = asyncio.Event()

    async def answer(stream):
        go.set()
        await stream.connection.wait_closing()
        await stream.send_response(200, body=b"finished")

    async with MemoryServer(answer) as server:
        client = server.client(version)
        asked = asyncio.create_task(client.get("/"))
        await go.wait()
    async with client:
        response = await asked
        assert await response.read() == b"finished"
        with pytest.raises(ConnectionRefusedError):
            await client.get("/")
    with pytest.raises(RuntimeError):
        server.client(version)


@VERSIONS
@in_loop
async def test_what_the_application_resets_is_reset_at_the_client(version):
    async def answer(stream):
        await stream.start_response({":status": "200"})
        await stream.send_data(b"part")
        stream.reset()

    async with MemoryServer(answer) as server, server.client(version) as client:
        with pytest.raises(StreamResetError):
            await (await client.get("/")).read()


@in_loop
async def test_bounds_of_time_apply():
    async with MemoryServer(coroutine, timeouts=Timeouts(body=0.01)) as server:
        reader, writer = await server.open_connection()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        assert b" 408 " in await reader.read()
        writer.close()


@in_loop
async def test_a_server_that_does_not_run_has_no_clients():
    server = MemoryServer(Handler)
    with pytest.raises(RuntimeError, match="async with"):
        server.client()
    with pytest.raises(ConnectionRefusedError):
        await server.open_connection()
    async with server:
        with pytest.raises(ValueError, match=r"HTTP/1\.1"):
            server.client("HTTP/1.1")
