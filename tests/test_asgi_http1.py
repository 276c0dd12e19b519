"""ASGI applications over HTTP/1.1: what differs from the other versions."""

from __future__ import annotations

import pytest
from asgi_servers import body, start
from loops import in_virtual_time, until
from test_h1_server import connected, get, serving
from virtual_time import pass_time

from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Timeouts


@in_virtual_time
async def test_the_time_of_a_body_begins_when_it_is_asked_for():
    async def app(scope, receive, send):
        await pass_time(10 * Timeouts().body)
        message = await receive()
        await send(start())
        await send(body(message["body"]))

    async with serving(ASGIApp(app)) as server, connected(server) as wire:
        fields = b"expect: 100-continue", b"content-length: 2"
        await wire.send(get(b"/", *fields, method=b"POST"))
        assert (await wire.response())[0] == 100
        await pass_time(0.5 * Timeouts().body)
        await wire.send(b"ok")
        status, _, answer = await wire.response()
        assert (status, answer) == (200, b"ok")


@in_virtual_time
async def test_an_application_may_close_a_connection_of_http_1_0():
    async def app(scope, receive, send):
        fields = [(b"Connection", b"close"), (b"content-length", b"2")]
        await send(start(200, fields))
        await send(body(b"ok"))

    async with serving(ASGIApp(app)) as server, connected(server) as wire:
        await wire.send(get(b"/", b"connection: keep-alive", version=b"1.0"))
        _, fields, answer = await wire.response()
        assert fields[b"connection"] == b"close" and answer == b"ok"
        assert await wire.ended()


@in_virtual_time
async def test_an_answer_to_head_that_fails_declines_the_rest_of_the_request():
    async def app(scope, receive, send):
        await send(start())
        raise ValueError("the application fails")

    asgi = ASGIApp(app)
    async with serving(asgi) as server, connected(server) as wire:
        await wire.send(get(b"/", b"content-length: 2", method=b"HEAD"))
        assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        (pump,) = server._connections
        await until(lambda: not pump.stream_count)
        assert not asgi.task_count


@pytest.mark.parametrize(
    ("version", "fields", "seen"),
    [
        (b"1.1", [], b"\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsome \r\n"),
        (b"1.1", [(b"content-length", b"9")], b"\r\n\r\nsome "),
        (b"1.0", [], None),
    ],
    ids=["chunked", "too short", "HTTP/1.0"],
)
@in_virtual_time
async def test_a_response_that_fails_at_once_does_not_seem_whole(version, fields, seen):
    async def app(scope, receive, send):
        await send(start(200, fields))
        await send(body(b"some ", more=True))
        raise ValueError("the application fails")

    async with serving(ASGIApp(app)) as server, connected(server) as wire:
        await wire.send(get(version=version))
        try:
            answer = await wire.reader.read()
        except ConnectionResetError:
            assert version == b"1.0"
        else:
            assert seen and answer.endswith(seen)


@in_virtual_time
async def test_a_body_in_one_message_has_content_length():
    async def app(scope, receive, send):
        await send(start())
        await send(body(scope["path"].encode()))

    async with serving(ASGIApp(app)) as server, connected(server) as wire:
        for path in b"/", b"/longer":
            await wire.send(get(path))
            _, fields, answer = await wire.response()
            assert fields[b"content-length"] == b"%d" % len(path)
            assert b"transfer-encoding" not in fields and answer == path
