"""Clients that close their half of a TCP connection, and read on."""

import asyncio
import contextlib

import hpack
import pytest
from helpers import DATA, GOAWAY, HEADERS, MAGIC, RST_STREAM, frame, parse, settings
from loops import in_loop, in_virtual_time, until
from test_client_early import GET, POST
from virtual_time import pass_time

from nghttp2py.asyncio import start_server
from nghttp2py.server import BaseRequestHandler, HTTP2Server


def request(fields, *, end_stream=True, stream_id=1):
    flags = 4 | (1 if end_stream else 0)
    block = hpack.Encoder().encode(list(fields.items()))
    return frame(HEADERS, flags, stream_id, block)


class Late(BaseRequestHandler):
    async def on_request_done(self):
        await pass_time(8)
        self.send_response(200, body=b"late")

    def on_close(self, error_code):
        closed.append(error_code)


closed = []


async def late(stream):
    try:
        await stream.read()
        await pass_time(8)
        await stream.send_response(200, body=b"late")
    finally:
        closed.append(stream.error and stream.error.error_code)


async def serve(protocol):
    await protocol.serve_streams(late)


async def listen(kind):
    if kind == "HTTP2Server":
        return HTTP2Server(("127.0.0.1", 0), Late, close_timeout=20)
    return await start_server(serve, "127.0.0.1", 0, close_timeout=20)


async def talk(server, *frames):
    address = server.sockets[0].getsockname()[:2]
    reader, writer = await asyncio.open_connection(*address)
    writer.write(MAGIC + settings() + b"".join(frames))
    writer.write_eof()
    answer = parse(await asyncio.wait_for(reader.read(), 10))
    writer.close()
    return answer


@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@in_virtual_time
async def test_a_request_that_is_followed_by_the_end_is_answered(kind):
    closed.clear()
    async with await listen(kind) as server:
        answer = await talk(server, request(GET))
        assert [f.payload for f in answer if f.type == DATA and f.payload] == [b"late"]
        assert any(f.type == GOAWAY for f in answer)


@pytest.mark.parametrize("over_tls", [False, True], ids=["clear", "tls"])
@in_loop
async def test_a_client_that_has_closed_both_halves_is_not_waited_for(tls, over_tls):
    """A quiet response does not notice it: a PING finds out."""
    begun, gone = asyncio.Event(), asyncio.Event()

    class Quiet(BaseRequestHandler):
        def on_request_done(self):
            begun.set()

        def on_close(self, error_code):
            assert error_code
            gone.set()

    context = tls.server if over_tls else None
    async with HTTP2Server(
        ("127.0.0.1", 0), Quiet, ssl=context, close_timeout=60
    ) as server:
        address = server.sockets[0].getsockname()[:2]
        options = {"ssl": tls.client, "server_hostname": "localhost"}
        _, writer = await asyncio.open_connection(
            *address, **(options if over_tls else {})
        )
        writer.write(MAGIC + settings() + request(GET | {":scheme": "http"}))
        await asyncio.wait_for(begun.wait(), 10)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@in_virtual_time
async def test_a_request_that_is_cut_off_by_the_end_is_reset(kind):
    closed.clear()
    async with await listen(kind) as server:
        answer = await talk(
            server, request(GET), request(POST, end_stream=False, stream_id=3)
        )
        assert [f.payload for f in answer if f.type == DATA and f.payload] == [b"late"]
        assert {f.stream_id for f in answer if f.type == RST_STREAM} == {3}


@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@pytest.mark.parametrize(
    "frames",
    [
        [request(POST, end_stream=False)],
        [request(GET), frame(GOAWAY, 0, 0, bytes(8))],
        [request(GET), frame(RST_STREAM, 0, 1, b"\0\0\0\10")],
    ],
    ids=["upload", "goaway", "reset"],
)
@in_virtual_time
async def test_nothing_is_waited_for_if_nothing_is_to_be_answered(kind, frames):
    closed.clear()
    async with await listen(kind) as server:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        answer = await talk(server, *frames)
        assert not any(f.type == DATA and f.payload for f in answer)
        # A stream that was reset at once never had a handler's task.
        await until(lambda: closed or not getattr(server, "connections", True))
        assert loop.time() - begin < 8  # as long as a handler takes


class Gone(BaseRequestHandler):
    def on_request_done(self):
        # As when TLS has failed, or the peer has reset the connection meanwhile.
        self.http2.transport.close()
        self.send_response(200, body=b"lost")

    def on_close(self, error_code):
        closed.append(error_code)


@in_virtual_time
async def test_what_is_given_to_a_closed_transport_is_no_good_end():
    closed.clear()
    async with HTTP2Server(("127.0.0.1", 0), Gone) as server:
        address = server.sockets[0].getsockname()[:2]
        _, writer = await asyncio.open_connection(*address)
        writer.write(MAGIC + settings() + request(GET))
        await until(lambda: closed)
        assert closed[0] != 0
        writer.close()
