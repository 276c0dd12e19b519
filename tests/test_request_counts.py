"""The counters of requests, and the records, of every kind of server."""

import contextlib

import pytest
from exchanges import every_version, exchanging
from loops import in_loop, until

from nghttp2py import BaseRequestHandler, HTTP2Server, access
from nghttp2py.access_formats import as_dict
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Client, Server, start_server
from nghttp2py.errors import StreamResetError


async def answer(app, request):
    if request.path == b"/breaks":
        await request.begin(200)
        await request.send(b"part")
        request.reset()
    else:
        await request.respond(203, [], b"body")


@every_version
@in_loop
async def test_requests_are_counted_by_status_and_version(version):
    with access.RequestCounts() as counts:
        async with exchanging(version, "coroutine", answer) as (_, ends):
            for _ in range(3):
                await ends.fetch()
        await until(lambda: counts.requests == 3)
    assert counts.statuses == {203: 3} and counts.protocols == {version: 3}
    assert (counts.bytes_sent, counts.incomplete) == (12, 0)
    assert counts.seconds > 0 and repr(counts) == "<RequestCounts 3 requests>"
    async with exchanging(version, "coroutine", answer) as (_, ends):
        await ends.fetch()
        await until(lambda: ends.log)
    assert counts.requests == 3


@in_loop
async def test_a_request_that_breaks_off_is_counted_as_incomplete():
    counts = access.RequestCounts()
    counts.start()
    counts.start()
    try:
        async with exchanging("HTTP/2", "handler", answer) as (_, ends):
            with pytest.raises(StreamResetError):
                await ends.fetch(b"/breaks")
            await until(lambda: counts.requests)
    finally:
        counts.stop()
        counts.stop()
    assert (counts.requests, counts.incomplete) == (1, 1)


# ---- Every kind of server ----


class Handler(BaseRequestHandler):
    def on_headers(self):
        self.send_response(body=b"body")


async def coroutine(stream):
    await stream.send_response(200, body=b"body")


async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"body"})


@contextlib.asynccontextmanager
async def streams():
    server = await start_server(
        lambda protocol: protocol.serve_streams(coroutine), "127.0.0.1", 0
    )
    async with server:
        yield server


SERVERS = {
    "handlers": lambda: HTTP2Server(("127.0.0.1", 0), Handler),
    "coroutines": lambda: Server(coroutine, ("127.0.0.1", 0)),
    "classes": lambda: Server(Handler, ("127.0.0.1", 0)),
    "ASGI": lambda: Server(ASGIApp(asgi), ("127.0.0.1", 0)),
    "streams": streams,
}


@pytest.mark.parametrize("kind", SERVERS)
@in_loop
async def test_each_kind_of_server_makes_the_same_record(kind):
    access.keep_details()
    records = []
    access.add_hook(records.append)
    try:
        async with SERVERS[kind]() as server:
            port = server.sockets[0].getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}") as client:
                fields = {"user-agent": "agent"}
                response = await client.get("/path?query", headers=fields)
                assert await response.read() == b"body"
            await until(lambda: records)
    finally:
        access.remove_hook(records.append)
        access.details.clear()
    entry = as_dict(records[0])
    assert entry.pop("seconds") >= 0
    assert entry == {
        "client": "127.0.0.1",
        "method": "GET",
        "target": "/path?query",
        "path": "/path",
        "scheme": "http",
        "protocol": "HTTP/2",
        "status": 200,
        "bytes": 4,
        "complete": True,
        "error_code": 0,
        "host": f"127.0.0.1:{port}",
        "referer": None,
        "user_agent": "agent",
    }
