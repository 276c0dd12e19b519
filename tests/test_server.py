"""HTTP2Server and BaseRequestHandler with well-behaved programs."""

import asyncio
import io
import logging
import os

import pytest
from handlers import recorder, serve
from loops import in_loop, until

from nghttp2py.errors import (
    BodyQueueFullError,
    ErrorCode,
    StreamClosedError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK
from nghttp2py.hpack import NeverIndexed
from nghttp2py.server import BaseRequestHandler


def answering(*args, **kwargs):
    """A handler class that answers every request with this response."""

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(*args, **kwargs)

    return Handler


# ---- Requests ----


@in_loop
async def test_callbacks_come_in_order():
    handler = recorder()
    client = serve(handler)
    await client.fetch(method="POST", body=b"one two")
    assert handler.calls == ["headers", ("data", b"one two"), "done", ("close", 0)]


@in_loop
async def test_request_trailers_come_before_the_end():
    handler = recorder()
    client = serve(handler)
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"x", trailers=[("checksum", "1")])
    await client.exchange()
    assert handler.calls == [
        "headers",
        ("data", b"x"),
        ("trailers", [(b"checksum", b"1")]),
        "done",
        ("close", 0),
    ]


@in_loop
async def test_a_handler_knows_its_request():
    handler = recorder()
    client = serve(handler)
    await client.fetch(
        "/path?query",
        headers=[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")],
        method="PUT",
    )
    (made,) = handler.made
    assert made.stream_id == 1
    assert (made.method, made.path, made.scheme) == (b"PUT", b"/path?query", b"https")
    assert made.host == b"test"
    assert made.headers == [
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b":path", b"/path?query"),
        (b":authority", b"test"),
        (b"x", b"y"),
        (b"cookie", b"a=1; b=2"),
    ]
    assert made.client_address == made.remote_address == ("192.0.2.1", 40000)
    assert made.client_certificate is None
    assert made.status == 200 and made.pushed is False
    assert made.http2 is client.protocol


@in_loop
async def test_the_host_field_stands_for_a_missing_authority():
    handler = recorder()
    client = serve(handler)
    await client.fetch(headers=[("host", "other")], authority=None)
    assert handler.made[0].host == b"other"


@in_loop
async def test_an_upload_is_credited_as_it_is_handed_over():
    class Count(BaseRequestHandler):
        size = 0

        def on_data(self, data):
            self.size += len(data)

        def on_request_done(self):
            self.send_response(body=str(self.size))

    client = serve(Count)
    response = await client.fetch(method="POST", body=bytes(3_000_000))
    assert response.body == b"3000000"


@in_loop
async def test_a_thousand_streams_on_ten_connections_are_all_answered():
    class Echo(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, [("path", self.path)], self.path)

    clients = [serve(Echo) for _ in range(10)]
    for client in clients:
        streams = {client.request(f"/{i}"): b"/%d" % i for i in range(100)}
        await client.exchange()
        for stream_id, path in streams.items():
            response = client.response(stream_id)
            assert (response.body, response.headers) == (path, ((b"path", path),))
            assert response.closed == 0


# ---- Bodies ----


class AsyncPieces:
    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.pieces:
            raise StopAsyncIteration
        return self.pieces.pop(0)


async def generate():
    yield b"hello "
    await asyncio.sleep(0)
    yield b""
    yield b"world"


def callable_body():
    answers = [(b"hello ", DATA_OK), (b"world", DATA_EOF)]
    return lambda n: answers.pop(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "hello world",
        lambda: b"hello world",
        lambda: bytearray(b"hello world"),
        lambda: memoryview(b"hello world"),
        lambda: io.BytesIO(b"hello world"),
        lambda: [b"hello ", b"world"],
        lambda: iter([b"hello", b"", b" world"]),
        lambda: (piece for piece in (b"hello ", b"world")),
        callable_body,
        generate,
        lambda: AsyncPieces(b"hello ", b"world"),
    ],
)
@pytest.mark.parametrize("trailers", [None, [("t", "1")]])
@in_loop
async def test_a_body_may_have_any_form(make, trailers):
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, {"server": "x"}, make(), trailers=trailers)

    response = await serve(Handler).fetch()
    assert response.status == 200
    assert response.headers == ((b"server", b"x"),)
    assert response.body == b"hello world"
    assert response.trailers == (trailers and ((b"t", b"1"),))
    assert response.closed == 0


@in_loop
async def test_no_body_is_an_end_with_the_headers():
    client = serve(answering(404))
    response = await client.fetch()
    assert (response.status, response.body, response.done) == (404, b"", True)


@in_loop
async def test_trailers_may_follow_no_body():
    response = await serve(answering(200, trailers={"t": "1"})).fetch()
    assert (response.body, response.trailers) == (b"", ((b"t", b"1"),))


@in_loop
async def test_a_file_is_read_as_it_is_taken(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1_000_000))
    with path.open("rb") as file:
        response = await serve(answering(200, None, file)).fetch()
        assert not file.closed
    assert response.body == path.read_bytes()


@in_loop
async def test_a_deferred_body_goes_on_when_it_is_resumed():
    queue = []

    class Handler(BaseRequestHandler):
        made = None
        asked = 0

        def on_headers(self):
            Handler.made = self
            self.send_response(200, None, self.read)

        def read(self, n):
            Handler.asked += 1
            return queue.pop(0) if queue else (None, DATA_DEFERRED)

    client = serve(Handler)
    response = client.response(client.request())
    await client.exchange()
    assert (response.status, response.body, Handler.asked) == (200, b"", 1)
    queue.append((b"first", DATA_OK))
    Handler.made.resume()
    Handler.made.resume()
    await client.exchange()
    assert response.body == b"first" and not response.done
    queue.append((None, DATA_EOF))
    Handler.made.resume()
    await client.exchange()
    assert response.done and response.closed == 0
    Handler.made.resume()


@in_loop
async def test_an_async_body_is_asked_no_more_than_one_piece_ahead():
    given = 0

    async def pieces():
        nonlocal given
        for _ in range(1000):
            given += 1
            yield bytes(10_000)

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, pieces())

    client = serve(Handler, config=H2Configuration(manual_flow_control=True))
    response = client.response(client.request())
    await client.exchange()
    assert len(response.body) == 65535
    assert given <= 8


@in_loop
async def test_an_async_body_is_closed_when_the_client_resets():
    closed = asyncio.Event()

    async def pieces():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            closed.set()

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, pieces())

    client = serve(Handler)
    stream_id = client.request()
    await client.exchange()
    assert client.response(stream_id).body == b"x"
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    await client.exchange()
    await until(closed.is_set)


@pytest.mark.parametrize("status, method", [(200, "HEAD"), (204, "GET"), (304, "GET")])
@pytest.mark.parametrize(
    "body", [b"body", io.BytesIO(b"body"), AsyncPieces(b"body"), None]
)
@in_loop
async def test_some_responses_have_no_body(status, method, body):
    """RFC 9110, 9.3.2, 15.3.5 and 15.4.5."""
    headers = [] if status == 204 else [("content-length", "4")]
    client = serve(answering(status, headers, body, trailers={"t": "1"}))
    response = await client.fetch(method=method)
    assert (response.status, response.body, response.done) == (status, b"", True)
    assert response.trailers is None


@in_loop
async def test_a_streamed_response_to_head_has_no_body():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(200, {"content-length": "4"})
            self.send_data(b"body")
            self.end({"t": "1"})

        def on_request_done(self):
            self.http2._loop.create_task(self.drain())

    response = await serve(Handler).fetch(method="HEAD")
    assert (response.body, response.done, response.closed) == (b"", True, 0)


# ---- Streaming, informational responses ----


@in_loop
async def test_a_response_may_be_streamed():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.task = asyncio.get_running_loop().create_task(self.respond())

        async def respond(self):
            self.send_headers(200, {"server": "x"})
            await asyncio.sleep(0)
            self.send_data("first ")
            await self.drain()
            self.send_data(b"second")
            await asyncio.sleep(0)
            self.end({"t": "1"})

    response = await serve(Handler).fetch()
    assert response.body == b"first second"
    assert response.trailers == ((b"t", b"1"),)


@in_loop
async def test_drain_waits_for_the_client():
    class Handler(BaseRequestHandler):
        size = 0

        def on_headers(self):
            self.task = asyncio.get_running_loop().create_task(self.respond())

        async def respond(self):
            self.send_headers()
            for _ in range(20):
                self.send_data(bytes(100_000))
                Handler.size += 100_000
                await self.drain()
            self.end()

    client = serve(Handler, config=H2Configuration(manual_flow_control=True))
    stream_id = client.request()
    response = client.response(stream_id)
    await client.exchange()
    assert Handler.size < 300_000
    taken = 0
    while not response.done:
        unread = len(response.data) - taken
        assert Handler.size - len(response.data) < 300_000
        client.connection.acknowledge_received_data(unread, stream_id)
        taken += unread
        await client.exchange()
    assert len(response.body) == 2_000_000


@in_loop
async def test_drain_raises_when_the_stream_is_closed():
    errors = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.task = asyncio.get_running_loop().create_task(self.respond())

        async def respond(self):
            self.send_headers()
            self.send_data(bytes(1_000_000))
            try:
                await self.drain()
            except StreamClosedError as error:
                errors.append(error)

    client = serve(Handler)
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    await asyncio.sleep(0)
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    client.protocol.data_received(client.connection.data_to_send())
    await until(lambda: errors)


@in_loop
async def test_data_that_nobody_takes_is_bounded():
    class Handler(BaseRequestHandler):
        size = 0

        def on_headers(self):
            self.send_headers()
            with pytest.raises(BodyQueueFullError):
                while True:
                    self.send_data(bytes(10_000))
                    Handler.size += 10_000

    client = serve(Handler)
    client.request()
    await client.exchange()
    assert 1_000_000 < Handler.size < 1_100_000


@in_loop
async def test_informational_responses_come_first():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_informational(103, {"link": "</style.css>; rel=preload"})
            self.send_informational(102)
            self.send_response(200)

    response = await serve(Handler).fetch()
    assert response.status == 200
    assert response.informational == [
        (103, ((b"link", b"</style.css>; rel=preload"),)),
        (102, ()),
    ]


# ---- The end of a request that is not wanted ----


@in_loop
async def test_a_response_before_the_requests_end_stops_the_upload():
    """RFC 9113, 8.1: RST_STREAM with NO_ERROR, after the whole response."""
    client = serve(answering(413, None, b"too large"))
    stream_id = client.request(method="POST", end_stream=False)
    response = await client.finish(stream_id)
    assert (response.status, response.body) == (413, b"too large")
    assert (response.reset, response.closed) == (0, 0)


@in_loop
async def test_a_streamed_response_before_the_requests_end_stops_the_upload():
    class Handler(BaseRequestHandler):
        def on_data(self, data):
            self.send_headers(413)
            self.send_data("too large")
            self.end()

    client = serve(Handler)
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"x", end_stream=False)
    response = await client.finish(stream_id)
    assert (response.body, response.reset, response.closed) == (b"too large", 0, 0)


@in_loop
async def test_a_streamed_response_without_body_stops_the_upload():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(204)

    client = serve(Handler)
    stream_id = client.request(method="POST", end_stream=False)
    response = await client.finish(stream_id)
    assert (response.status, response.reset, response.closed) == (204, 0, 0)


@in_loop
async def test_a_response_after_the_requests_end_resets_nothing():
    client = serve(answering(200, None, b"x"))
    response = await client.fetch()
    assert (response.reset, response.closed) == (None, 0)


@in_loop
async def test_reset_ends_the_stream_with_its_code():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.reset(ErrorCode.REFUSED_STREAM)

    response = await serve(Handler).fetch()
    assert response.reset == response.closed == ErrorCode.REFUSED_STREAM


# ---- Push ----


class Pusher(BaseRequestHandler):
    closed: list
    pushes: list

    def on_headers(self):
        if not self.pushed:
            assert self.push_enabled is self.expected
            pushed = self.push(
                "/style.css",
                request_headers={"accept": "text/css"},
                headers=[("content-type", "text/css")],
                body="body{}",
            )
            self.pushes.append(pushed)
            self.send_response(body=b"page")

    def on_close(self, error_code):
        self.closed.append((self.pushed, error_code))


def pusher(expected):
    return type(
        "Handler", (Pusher,), {"closed": [], "pushes": [], "expected": expected}
    )


@in_loop
async def test_a_push_is_promised_and_answered():
    handler = pusher(True)
    client = serve(handler, config=H2Configuration(enable_push=True))
    await client.exchange()
    response = await client.fetch("/page")
    assert response.body == b"page"
    assert client.pushed[2].fields == (
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"test"),
        (b":path", b"/style.css"),
        (b"accept", b"text/css"),
    )
    pushed = client.response(2)
    assert (pushed.status, pushed.body) == (200, b"body{}")
    assert pushed.headers == ((b"content-type", b"text/css"),)
    (made,) = handler.pushes
    assert type(made) is handler
    assert (made.stream_id, made.pushed, made.status) == (2, True, 200)
    assert (made.method, made.path, made.scheme) == (b"GET", b"/style.css", b"https")
    assert made.host == b"test"
    assert not made.push_enabled
    assert sorted(handler.closed) == [(False, 0), (True, 0)]


@in_loop
async def test_a_promise_takes_header_fields_in_every_form():
    made = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            fields = [("a", b"1", True), NeverIndexed(b"b", b"2"), (b"c", "3", False)]
            made.append(self.push(b"/p", request_headers=fields))
            self.send_response()

    client = serve(Handler, config=H2Configuration(enable_push=True))
    await client.exchange()
    await client.fetch()
    fields = client.pushed[2].fields[4:]
    assert fields == ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    assert [isinstance(field, NeverIndexed) for field in fields] == [True, True, False]
    assert made[0].headers[4:] == list(fields)


@in_loop
async def test_a_push_that_the_client_forbids_is_refused_at_once(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")
    handler = pusher(False)
    client = serve(handler)
    await client.exchange()
    response = await client.fetch("/page")
    assert response.body == b"page"
    assert client.pushed == {}
    (made,) = handler.pushes
    assert made.pushed and made.stream_id == -1 and made.path == b"/style.css"
    assert handler.closed == [(True, ErrorCode.REFUSED_STREAM), (False, 0)]
    with pytest.raises(StreamClosedError):
        made.send_response()
    # What was never on the wire is not in the log.
    assert len(caplog.records) == 1


@in_loop
async def test_a_push_that_the_client_cancels_is_closed():
    handler = pusher(True)
    client = serve(handler, config=H2Configuration(enable_push=True))
    await client.exchange()
    client.request()
    client.protocol.data_received(client.connection.data_to_send())
    client.connection.receive_data(client.transport.take())
    client.connection.reset_stream(2, ErrorCode.CANCEL)
    await client.exchange()
    # The response was complete before the reset came.
    assert sorted(handler.closed) == [(False, 0), (True, 0)]


# ---- Access log ----


@in_loop
async def test_the_access_log_has_the_common_format(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")
    client = serve(answering(200, None, b"hello"))
    await client.fetch('/with"quote\xe9')
    (record,) = caplog.records
    head, _, rest = record.getMessage().partition("[")
    stamp, _, tail = rest.partition("]")
    assert head == "192.0.2.1 - - "
    assert len(stamp) == len("21/Nov/2026:07:21:10 +0000")
    assert tail == r' "GET /with\x22quote\xc3\xa9 HTTP/2" 200 5'


@in_loop
async def test_the_access_log_is_not_formatted_when_nobody_reads_it(caplog):
    caplog.set_level(logging.WARNING, "nghttp2py.access")
    await serve(answering(200)).fetch()
    assert caplog.records == []


@pytest.mark.parametrize(
    "make, size",
    [
        (lambda: None, "-"),
        (lambda: io.BytesIO(bytes(70_000)), "70000"),
        (lambda: [b"12345", b"6"], "6"),
    ],
)
@in_loop
async def test_the_access_log_tells_the_body_bytes_that_were_sent(make, size, caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, make())

    await serve(Handler).fetch()
    assert caplog.records[0].getMessage().split()[-1] == size


# ---- Streams that NO_ERROR breaks off ----


@in_loop
@pytest.mark.parametrize("part", ["request", "response"])
async def test_no_error_in_the_middle_of_a_message_is_no_good_end(part, caplog):
    caplog.set_level("INFO", "nghttp2py.access")
    ends = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            if part == "response":
                self.send_response(200, None, b"x" * 1000000)

        def on_close(self, error_code):
            ends.append(error_code)

    client = serve(Handler)
    # More than the window lets through.
    stream_id = client.request(method="POST", end_stream=part == "response", headers=[])
    client.converse()
    client.connection.reset_stream(stream_id, ErrorCode.NO_ERROR)
    await client.exchange()
    assert ends == [ErrorCode.CANCEL]
    assert "incomplete" in caplog.messages[-1]


@in_loop
async def test_a_tunnels_halves_end_each_by_itself():
    """RFC 9113, 8.5."""
    seen = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(200)
            self.send_data(b"through")
            self.end()

        def on_data(self, data):
            seen.append(data)

        def on_request_done(self):
            seen.append("done")

        def on_close(self, error_code):
            seen.append(error_code)

    client = serve(Handler)
    stream_id = client.connection.send_request("CONNECT", "example.org:443")
    await client.exchange()
    response = client.response(stream_id)
    assert (response.status, response.done, response.reset) == (200, True, None)
    client.connection.send_data(stream_id, b"back", end_stream=True)
    await client.finish(stream_id)
    await client.exchange()
    assert seen == [b"back", "done", 0]
