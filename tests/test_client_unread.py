"""Unread responses do not block others, and use bounded memory."""

import asyncio

import pytest
from loops import in_loop, in_loops, until
from peers import ScriptedServer

from nghttp2py.asyncio import Client, open_connection
from nghttp2py.h2 import H2Configuration, H2RequestReceived

SIZE = 1_048_576


async def send_much(peer):
    """Answer ``/n`` with n bytes, as the client's windows allow."""
    while True:
        event = await peer.next(H2RequestReceived)
        peer.respond(event.stream_id, bytes(int(event.request.target[1:])))


def origin(server):
    return f"http://127.0.0.1:{server.port}"


CONFIG = H2Configuration(max_body_queue=64 * SIZE)


@in_loops
async def test_unread_responses_hold_up_no_other():
    async with (
        ScriptedServer(send_much, config=CONFIG) as server,
        Client(origin(server), timeout=10) as client,
    ):
        unread = [await client.get(f"/{2 * SIZE}") for _ in range(24)]
        response = await client.get(f"/{SIZE}")
        assert len(await response.read()) == SIZE
        for response in unread:
            assert response._stream._size <= SIZE
            response.close()


@pytest.mark.parametrize(
    "config",
    [None, H2Configuration(), H2Configuration(initial_window_size=65535 * 4)],
    ids=["default", "plain", "wide"],
)
@in_loop
async def test_unread_streams_hold_up_no_other(config):
    async with (
        ScriptedServer(send_much, config=CONFIG) as server,
        await open_connection("127.0.0.1", server.port, config=config) as connection,
    ):

        async def get(size):
            fields = {":method": "GET", ":path": f"/{size}"}
            stream = await connection.open_stream(fields, end_stream=True)
            await stream.response()
            return stream

        unread = [await get(SIZE) for _ in range(9)]
        stream = await asyncio.wait_for(get(200_000), 10)
        assert len(await asyncio.wait_for(stream.read(), 10)) == 200_000
        window = connection.initial_window_size
        await until(lambda: all(s._size == window for s in unread))
        for stream in unread:
            stream.reset()
