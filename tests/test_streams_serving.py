"""Handlers that fail, and peers for which that is no failure of a handler."""

import asyncio
import logging

import pytest
from helpers import data, rst_stream
from loops import in_loops, until
from streams import Pair, Raw

from nghttp2py.errors import ErrorCode, NGHTTP2Error

GET = {":method": "GET", ":path": "/", ":scheme": "http", ":authority": "test"}
POST = {**GET, ":method": "POST"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@in_loops
async def test_a_handler_that_fails_before_it_answered_gives_500(method, caplog):
    async def handler(stream):
        if stream.request.target == b"/":
            raise RuntimeError("mine")
        await stream.send_response(200)

    async with Pair(lambda proto: proto.serve_streams(handler)) as pair:
        stream = await pair.client.open_stream({**GET, ":method": method})
        response = await stream.response()
        assert response.status == 500
        fields = dict(response.headers)
        assert fields[b"content-type"].startswith(b"text/plain")
        body = await stream.read()
        assert (b"500" in body) is (method != "HEAD")
        stream = await pair.client.open_stream({**GET, ":path": "/well"})
        assert (await stream.response()).status == 200
    assert caplog.text.count("handler failed") == 1


@in_loops
async def test_a_handler_that_fails_after_a_1xx_response_gives_500():
    async def handler(stream):
        await stream.send_informational(103)
        raise RuntimeError("mine")

    async with Pair(lambda proto: proto.serve_streams(handler)) as pair:
        stream = await pair.client.open_stream(GET, end_stream=True)
        assert (await stream.response()).status == 500


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", 200), ("GET", 204), ("GET", 205), ("GET", 304)],
)
@in_loops
async def test_a_response_that_has_no_content_is_sent_without(method, status, caplog):
    async def handler(stream):
        # It may say how long the body would be, but for 204 (RFC 9110, 8.6).
        fields = {} if status in (204, 205) else {"content-length": "4"}
        await stream.send_response(status, fields, b"body", trailers={"a": "b"})

    async with Pair(lambda proto: proto.serve_streams(handler)) as pair:
        fields = {**GET, ":method": method}
        stream = await pair.client.open_stream(fields, end_stream=True)
        assert (await stream.response()).status == status
        assert await stream.read() == b""
    assert not other_than_access(caplog)


def other_than_access(caplog):
    return [r for r in caplog.records if r.name != "nghttp2py.access"]


class OfTheProgram(Exception):
    pass


async def answers(stream):
    await stream.start_response({":status": "200"})
    while True:
        await stream.send_data(b"x" * 10000)


async def reads(stream):
    await stream.read()


async def wraps(stream):
    try:
        await stream.read()
    except (NGHTTP2Error, asyncio.CancelledError) as error:
        raise OfTheProgram from error


async def goes_on(stream):
    try:
        await stream.read()
    except (NGHTTP2Error, asyncio.CancelledError):
        await stream.send_response(200)


@pytest.mark.parametrize("handler", [answers, reads, wraps, goes_on])
@pytest.mark.parametrize("at_once", [True, False])
@in_loops
async def test_a_reset_by_the_peer_is_no_failure_of_a_stream_handler(
    handler, at_once, caplog
):
    caplog.set_level(logging.INFO, "nghttp2py")
    raw = Raw(client_side=False)
    raw.protocol.set_handler(raw.protocol.serve_streams(handler))
    for n in range(20):
        request = raw.headers(1 + 2 * n, POST.items())
        if at_once:
            raw.feed(request + rst_stream(1 + 2 * n, ErrorCode.CANCEL))
        else:
            raw.feed(request)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raw.feed(rst_stream(1 + 2 * n, ErrorCode.CANCEL))
    await until(lambda: not raw.protocol.stream_count)
    await until(lambda: len(asyncio.all_tasks()) <= 3)
    await raw.close()
    assert not other_than_access(caplog)


@in_loops
async def test_a_reset_by_the_peer_is_no_failure_of_a_connections_handler(caplog):
    async def handler(proto):
        while True:
            stream_id, _ = await proto.recv_request()
            await proto.read_stream(stream_id, -1)
            await proto.start_response(stream_id, {":status": "200"}, end_stream=True)

    caplog.set_level(logging.INFO, "nghttp2py")
    raw = Raw(client_side=False)
    raw.protocol.set_handler(handler(raw.protocol))
    raw.feed(raw.headers(1, POST.items()))
    await asyncio.sleep(0)
    raw.feed(rst_stream(1, ErrorCode.CANCEL))
    goaways = await raw.frames(7)
    assert {goaway.payload[7] for goaway in goaways} == {ErrorCode.NO_ERROR}
    await raw.protocol.wait_closed()
    (record,) = other_than_access(caplog)
    assert (record.levelname, record.exc_info) == ("INFO", None)


@pytest.mark.parametrize("together", [False, True])
@in_loops
async def test_a_connection_that_an_error_ends_is_no_failure_of_handlers(
    together, caplog
):
    caplog.set_level(logging.INFO)
    ends = []

    async def handler(stream):
        try:
            await answers(stream)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    raw = Raw(client_side=False)
    raw.protocol.set_handler(raw.protocol.serve_streams(handler))
    fields = [(name.encode(), value.encode()) for name, value in GET.items()]
    requests = [raw.headers(n, fields, end_stream=True) for n in (1, 3, 5)]
    fault = data(0, b"on stream 0")
    if together:
        raw.feed(*requests, fault)
    else:
        raw.feed(*requests)
        await until(lambda: len(raw.protocol._link.blocked) == 3)
        raw.feed(fault)
    await raw.close()
    assert ends == ([] if together else ["cancelled"] * 3)
    assert not [r for r in other_than_access(caplog) if r.levelno > logging.INFO]
