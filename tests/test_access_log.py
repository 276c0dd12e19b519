"""The access log of servers whose handlers are coroutines, over both protocols."""

import logging

import pytest
from h3_streams import POST, headers_frame, pair, raw_client, request, serving
from loops import in_loop, until
from streams import Pair

from nghttp2py import BaseRequestHandler, access
from nghttp2py.errors import StreamResetError
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3.connection import ErrorCode

GET = {":method": "GET", ":path": "/"}


async def answer(stream):
    path = stream.request.target
    if path == b"/fails":
        raise RuntimeError("on purpose")
    await stream.start_response([(":status", "203")])
    await stream.send_data(b"part")
    if path == b"/breaks":
        stream.reset()
    else:
        await stream.send_data(b"rest", end_stream=True)


async def ask_over_http2(path, records):
    async with Pair(handler=lambda server: server.serve_streams(answer)) as both:
        await both.client.start_request(
            {":method": "GET", ":path": path}, end_stream=True
        )
        await until(lambda: records)


async def ask_over_http3(path, records):
    async with pair(answer) as (client, _):
        # Dropped, it would be cancelled.
        stream = await client.open_stream(request(path.encode()), end_stream=True)
        assert stream is not None
        await until(lambda: records)


@pytest.mark.parametrize(
    "protocol, ask", [("HTTP/2", ask_over_http2), ("HTTP/3", ask_over_http3)]
)
@pytest.mark.parametrize(
    "path, status, size, complete",
    [("/", 203, 8, True), ("/breaks", 203, None, False), ("/fails", 500, 26, True)],
)
@in_loop
async def test_the_log_has_every_exchange(
    protocol, ask, path, status, size, complete, caplog
):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    caplog.set_level(logging.INFO, "nghttp2py.access")
    handler = Keep()
    logger = logging.getLogger("nghttp2py.access")
    logger.addHandler(handler)
    try:
        await ask(path, records)
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert (record.protocol, record.method) == (protocol, b"GET")
    assert (record.target, record.status) == (path.encode(), status)
    assert (record.complete, bool(record.error_code)) == (complete, not complete)
    assert size is None or record.bytes_sent == size
    assert record.getMessage().endswith(" incomplete") is not complete


@in_loop
async def test_a_pushed_response_is_no_exchange_of_the_log(caplog):
    exchanges = []

    async def push(stream):
        pushed = await stream.push({":path": "/pushed"})
        await pushed.send_response(200, body=b"pushed")
        await stream.send_response(200, body=b"asked for")

    access.add_hook(exchanges.append)
    try:
        async with Pair(
            handler=lambda server: server.serve_streams(push),
            client={"config": H2Configuration(enable_push=True)},
        ) as both:
            stream = await both.client.open_stream(GET, end_stream=True)
            pushed = await both.client.accept_push()
            assert await pushed.reader.read() == b"pushed"
            assert await stream.reader.read() == b"asked for"
            await until(lambda: exchanges)
    finally:
        access.remove_hook(exchanges.append)
    assert [exchange.target for exchange in exchanges] == [b"/"]
    assert not caplog.records


@in_loop
async def test_the_log_has_the_address_of_a_client_that_is_gone():
    exchanges = []

    async def begin(stream):
        await stream.start_response({":status": "200"})
        await stream.connection.wait_closing()

    access.add_hook(exchanges.append)
    try:
        async with Pair(handler=lambda server: server.serve_streams(begin)) as both:
            stream = await both.client.open_stream(GET, end_stream=True)
            await stream.response()
            both.server_pipe.abort()
            await until(lambda: exchanges)
    finally:
        access.remove_hook(exchanges.append)
    assert exchanges[0].address == ("192.0.2.1", 443)


async def end_with_trailers(stream):
    await stream.start_response({":status": "203"})
    await stream.start_response({"x-end": "here"}, end_stream=True)


async def fail_after_early_hints(stream):
    await stream.start_response({":status": "103"})
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "handler, status", [(end_with_trailers, 203), (fail_after_early_hints, 500)]
)
@in_loop
async def test_the_status_is_that_of_the_final_response(version, handler, status):
    exchanges = []
    if version == 2:
        both = Pair(handler=lambda server: server.serve_streams(handler))
    else:
        both = pair(handler)
    access.add_hook(exchanges.append)
    try:
        async with both as ends:
            client = ends.client if version == 2 else ends[0]
            fields = GET if version == 2 else request(b"/")
            stream = await client.open_stream(fields, end_stream=True)
            assert (await stream.response()).status == status
            await until(lambda: exchanges)
    finally:
        access.remove_hook(exchanges.append)
    assert [exchange.status for exchange in exchanges] == [status]


@in_loop
async def test_a_request_may_be_stopped_before_it_is_answered():
    exchanges = []

    async def refuse(stream):
        stream.stop()
        await stream.send_response(413, body=b"no")

    access.add_hook(exchanges.append)
    try:
        async with serving(refuse) as (_, port), raw_client(port) as client:
            client.send(0, headers_frame(POST))
            await until(lambda: exchanges)
            await until(lambda: 0 in client.ended)
            assert client.stops == {0: ErrorCode.H3_NO_ERROR}
    finally:
        access.remove_hook(exchanges.append)
    (exchange,) = exchanges
    assert (exchange.status, exchange.bytes_sent) == (413, 2)
    assert (exchange.error_code, exchange.complete) == (0, True)


@in_loop
async def test_a_response_is_incomplete_if_its_body_fails_after_the_request(caplog):
    """Also if it was begun before the end of the request was known."""
    caplog.set_level(logging.INFO, logger="nghttp2py.access")

    async def pieces():
        yield b"x"
        raise ValueError("a mistake")

    class Fails(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=pieces())

    async with pair(Fails) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(StreamResetError):
            await stream.read()
        await until(lambda: any("HTTP/3" in line for line in caplog.messages))
    assert caplog.messages[-1].endswith('"GET / HTTP/3" 200 1 incomplete')
