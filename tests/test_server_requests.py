"""Handlers that answer in one coroutine: on_request(), read(), json(), query."""

import asyncio
import json
import logging

import pytest
from handlers import exchange_until, failing, serve, with_good_neighbours
from loops import in_loop, until

from nghttp2py.errors import BodyFormatError, BodyTooLargeError, StreamClosedError
from nghttp2py.query import Query
from nghttp2py.server import BaseRequestHandler


def handler_of(on_request, **members):
    return type("Handler", (BaseRequestHandler,), {"on_request": on_request, **members})


async def echo(self):
    self.send_response(body=await self.read())


@in_loop
async def test_a_coroutine_answers_a_request():
    async def on_request(self):
        await asyncio.sleep(0)
        self.send_response(201, {"x": "y"}, b"hello")

    response = await serve(handler_of(on_request)).fetch("/")
    assert (response.status, response.body, response.closed) == (201, b"hello", 0)


@pytest.mark.parametrize("size", [0, 1, 16384, 200_000])
@in_loop
async def test_a_body_is_read_whole(size):
    body = bytes(range(250)) * (size // 250 + 1)
    response = await serve(handler_of(echo)).fetch("/", method="POST", body=body[:size])
    assert (response.status, response.body, response.closed) == (200, body[:size], 0)


@pytest.mark.parametrize("n", [1, 7, 16384, 100_000])
@in_loop
async def test_a_body_is_read_in_pieces(n):
    body = bytes(range(250)) * 100
    sizes = []

    async def on_request(self):
        pieces = []
        while piece := await self.read(n):
            sizes.append(len(piece))
            pieces.append(piece)
        assert await self.read(n) == await self.read() == b""
        self.send_response(body=b"".join(pieces))

    response = await serve(handler_of(on_request)).fetch("/", method="POST", body=body)
    assert response.body == body and max(sizes) <= n


@in_loop
async def test_a_body_that_comes_slowly_is_waited_for():
    client = serve(handler_of(echo))
    stream_id = client.request(method="POST", end_stream=False)
    for piece in b"one", b"two":
        await client.exchange()
        client.connection.send_body(stream_id, piece, end_stream=False)
    await client.exchange()
    assert client.response(stream_id).status is None
    client.connection.send_body(stream_id, b"", trailers={"t": "1"})
    response = await client.finish(stream_id)
    assert response.body == b"onetwo"


@in_loop
async def test_reading_nothing_does_not_wait():
    async def on_request(self):
        assert await self.read(0) == b""
        self.send_response()

    client = serve(handler_of(on_request))
    stream_id = client.request(method="POST", end_stream=False)
    response = await client.finish(stream_id)
    assert response.status == 200


@in_loop
async def test_what_is_not_read_gets_no_credit():
    go_on = asyncio.Event()

    async def on_request(self):
        await go_on.wait()
        size = 0
        while piece := await self.read(1000):
            size += len(piece)
        self.send_response(body=b"%d" % size)

    client = serve(handler_of(on_request))
    body = bytes(1_000_000)
    stream_id = client.request(method="POST", body=body)
    await client.exchange()
    window = client.protocol.connection.config.initial_window_size
    assert client.connection.queued_body(stream_id) == len(body) - window
    go_on.set()
    response = await client.finish(stream_id)
    assert response.body == b"1000000"


@in_loop
async def test_a_coroutine_of_on_headers_reads_the_body():
    async def on_headers(self):
        self.send_response(body=await self.read())

    handler = type("Handler", (BaseRequestHandler,), {"on_headers": on_headers})
    response = await serve(handler).fetch("/", method="POST", body=b"body")
    assert (response.body, response.closed) == (b"body", 0)


@in_loop
async def test_what_a_coroutine_has_not_read_is_for_the_callbacks():
    calls = []

    class Handler(BaseRequestHandler):
        async def on_headers(self):
            calls.append(await self.read(5))

        def on_data(self, data):
            calls.append(data)

        def on_trailers(self, headers):
            calls.append(headers)

        def on_request_done(self):
            calls.append("done")
            self.send_response()

    client = serve(Handler)
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"beginning", trailers={"t": "1"})
    response = await client.finish(stream_id)
    assert response.closed == 0
    assert calls == [b"begin", b"ning", [(b"t", b"1")], "done"]
    assert client.protocol.connection.unacknowledged_data(stream_id) == 0


@in_loop
async def test_a_coroutine_of_on_data_reads_the_rest():
    class Handler(BaseRequestHandler):
        async def on_data(self, data):
            self.send_response(body=data + await self.read())

    client = serve(Handler)
    stream_id = client.request(method="POST", end_stream=False)
    for piece in b"one", b"two":
        client.connection.send_body(stream_id, piece, end_stream=False)
        await client.exchange()
    client.connection.end_stream(stream_id)
    response = await client.finish(stream_id)
    assert response.body == b"onetwo"


@in_loop
async def test_on_headers_comes_before_on_request():
    calls = []

    class Handler(BaseRequestHandler):
        async def on_headers(self):
            await asyncio.sleep(0)
            calls.append("headers")

        async def on_request(self):
            calls.append("request")
            self.send_response()

        def on_request_done(self):
            calls.append("done")

        def on_close(self, error_code):
            calls.append(error_code)

    await serve(Handler).fetch("/")
    assert calls == ["headers", "request", "done", 0]


@in_loop
async def test_on_request_is_not_called_after_a_response():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(404)

        async def on_request(self):
            raise AssertionError("called")

    response = await serve(Handler).fetch("/")
    assert response.status == 404


@in_loop
async def test_on_request_waits_while_reading_is_paused():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.pause_reading()
            handlers.append(self)

        async def on_request(self):
            self.send_response(body=await self.read())

    handlers: list = []
    client = serve(Handler)
    stream_id = client.request("/", method="POST", body=b"body")
    await client.exchange()
    assert client.response(stream_id).status is None
    handlers[0].resume_reading()
    response = await client.finish(stream_id)
    assert response.body == b"body"


@in_loop
async def test_a_task_of_its_own_reads_what_was_held_back():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.pause_reading()
            self.task = asyncio.ensure_future(self.work())

        async def work(self):
            self.body = await self.read()
            self.resume_reading()

        def on_request_done(self):
            self.send_response(body=self.body)

    response = await serve(Handler).fetch("/", method="POST", body=b"body")
    assert response.body == b"body"


@in_loop
async def test_reading_where_callbacks_get_the_body_is_refused(caplog):
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.reading = asyncio.ensure_future(self.read())
            self.reading.add_done_callback(
                lambda task: self.send_response(body=str(task.exception()))
            )

    response = await serve(Handler).fetch("/", method="POST", body=b"body")
    assert b"elsewhere call pause_reading()" in response.body


@in_loop
async def test_an_early_answer_stops_the_request():
    async def on_request(self):
        await self.read(1)
        self.send_response(403)

    client = serve(handler_of(on_request))
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"much", end_stream=False)
    response = await client.finish(stream_id)
    assert (response.status, response.reset) == (403, 0)


@in_loop
async def test_a_reset_cancels_the_coroutine():
    ended = []

    async def on_request(self):
        try:
            await self.read()
        finally:
            ended.append("request")

    client = serve(
        handler_of(on_request, on_close=lambda self, code: ended.append(code))
    )
    stream_id = client.request(method="POST", end_stream=False)
    await client.exchange()
    client.connection.reset_stream(stream_id, 8)
    await exchange_until(client, lambda: len(ended) == 2)
    assert ended == ["request", 8]


@in_loop
async def test_a_reset_ends_the_reading_of_another_task():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.pause_reading()
            tasks.append(asyncio.ensure_future(self.read()))

    tasks: list = []
    client = serve(Handler)
    stream_id = client.request(method="POST", end_stream=False)
    await client.exchange()
    client.connection.reset_stream(stream_id, 8)
    await client.exchange()
    await until(tasks[0].done)
    assert isinstance(tasks[0].exception(), StreamClosedError)


@in_loop
async def test_a_coroutine_that_does_not_answer_gets_500(caplog):
    async def on_request(self):
        pass

    response = await with_good_neighbours(handler_of(on_request))
    assert response.status == 500
    assert "on_request() has returned without a response" in caplog.text


@in_loop
async def test_a_plain_function_may_answer_too(caplog):
    def on_request(self):
        self.send_response(body=b"plain")

    response = await with_good_neighbours(handler_of(on_request))
    assert response.body == b"plain"
    response = await with_good_neighbours(handler_of(lambda self: None))
    assert response.status == 500


@in_loop
async def test_a_coroutine_that_fails_gets_500(caplog):
    response = await with_good_neighbours(failing("on_request"))
    assert response.status == 500
    assert "on purpose" in caplog.text


@in_loop
async def test_a_client_is_asked_for_the_body_when_it_is_read():
    go_on = asyncio.Event()

    async def on_request(self):
        await go_on.wait()
        self.send_response(body=await self.read())

    client = serve(handler_of(on_request))
    stream_id = client.request(
        method="POST", headers={"expect": "100-continue"}, end_stream=False
    )
    await client.exchange()
    response = client.response(stream_id)
    assert not response.informational
    go_on.set()
    await exchange_until(client, lambda: response.informational)
    client.connection.send_body(stream_id, b"body")
    await client.finish(stream_id)
    assert response.body == b"body"
    assert [status for status, _ in response.informational] == [100]


@in_loop
async def test_a_client_is_not_asked_for_a_body_that_is_refused():
    async def on_request(self):
        self.send_response(413)

    response = await serve(handler_of(on_request)).fetch(
        method="POST", headers={"expect": "100-continue"}, end_stream=False
    )
    assert response.status == 413 and not response.informational


# ---- Bounds ----


@pytest.mark.parametrize("stated", [True, False])
@in_loop
async def test_a_body_that_is_too_large_gets_413(stated, caplog):
    caplog.set_level(logging.INFO, "nghttp2py.handler")
    client = serve(handler_of(echo, max_body_size=1000))
    body = bytes(1001)
    headers = {"content-length": "1001"} if stated else {}
    stream_id = client.request(method="POST", headers=headers, end_stream=False)
    await client.exchange()
    if not stated:
        client.connection.send_body(stream_id, body, end_stream=False)
    response = await client.finish(stream_id)
    assert response.status == 413
    assert response.body == b"the body is larger than 1000 bytes\n"
    assert (b"content-length", b"35") in response.headers
    assert caplog.text == ""


@in_loop
async def test_a_body_as_large_as_the_bound_is_read():
    client = serve(handler_of(echo, max_body_size=1000))
    response = await client.fetch(method="POST", body=bytes(1000))
    assert response.body == bytes(1000)


@in_loop
async def test_a_handler_may_answer_a_large_body_itself():
    async def on_request(self):
        try:
            await self.read()
        except BodyTooLargeError:
            self.send_response(400, body=b"no")

    client = serve(handler_of(on_request, max_body_size=10))
    response = await client.fetch(method="POST", body=bytes(11))
    assert (response.status, response.body) == (400, b"no")


@in_loop
async def test_the_same_fault_of_another_body_is_a_failure(caplog):
    """A handler may be a client of another server."""

    async def on_request(self):
        raise BodyTooLargeError("another's")

    response = await with_good_neighbours(handler_of(on_request))
    assert response.status == 500
    assert "another's" in caplog.text


# ---- JSON ----


async def double(self):
    value = await self.json()
    self.send_response(body=json.dumps(value * 2))


@in_loop
async def test_json_is_decoded():
    client = serve(handler_of(double))
    response = await client.fetch(method="POST", body='["ä"]'.encode())
    assert json.loads(response.body) == ["ä", "ä"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe\xff",
        b'"\xe4"',
        b"NaN",
        b"[-Infinity]",
        b"[" * 100_000,
        b"1" * 100_000,
        b"{'a': 1}",
    ],
)
@in_loop
async def test_what_is_not_json_gets_400(body, caplog):
    caplog.set_level(logging.INFO, "nghttp2py.handler")
    client = serve(handler_of(double))
    response = await client.fetch(method="POST", body=body)
    assert response.status == 400
    assert response.body.startswith(b"the body is not JSON: ")
    assert caplog.text == ""


@in_loop
async def test_a_handler_may_answer_what_is_not_json_itself():
    async def on_request(self):
        try:
            await self.json()
        except ValueError as error:
            assert isinstance(error, BodyFormatError)
            self.send_response(422)

    response = await serve(handler_of(on_request)).fetch(method="POST", body=b"{")
    assert response.status == 422


@in_loop
async def test_what_is_not_json_after_the_response_was_begun_is_a_reset():
    async def on_request(self):
        self.send_headers(200)
        await self.json()

    client = serve(handler_of(on_request))
    response = await client.fetch(method="POST", body=b"{")
    assert (response.status, response.reset) == (200, 2)


# ---- The query ----


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        (b"/", []),
        (b"/?", []),
        (b"/?a", [("a", "")]),
        (b"/?a=", [("a", "")]),
        (b"/?a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"/?a=%C3%A4+b", [("a", "ä b")]),
        (b"/?a=%ff", [("a", "\ufffd")]),
        (b"/?\xff=1", [("\ufffd", "1")]),
        (b"/?a=b?c=d", [("a", "b?c=d")]),
        (b"/?a;b=1", [("a;b", "1")]),
        (b"example.org:443", []),
    ],
)
def test_a_query_is_a_dict_of_the_first_values(target, pairs):
    query = Query(target)
    assert query.pairs == pairs
    assert list(query.items()) == [
        (name, next(value for other, value in pairs if other == name)) for name in query
    ]
    for name in query:
        assert query.get_all(name) == [v for other, v in pairs if other == name]
    assert query.get_all("none") == [] and query.get("none") is None


@in_loop
async def test_a_handler_has_the_query_of_its_request():
    async def on_request(self):
        assert self.query is self.query
        text = f"{self.query['a']} {self.query.get_all('a')} {self.path!r}"
        self.query = {"own": "value"}
        assert self.query == {"own": "value"}
        self.send_response(body=text)

    response = await serve(handler_of(on_request)).fetch("/x?a=1&a=2")
    assert response.body == b"1 ['1', '2'] b'/x?a=1&a=2'"


def test_a_handler_without_a_request_has_no_query():
    assert BaseRequestHandler(None, 1).query is None
