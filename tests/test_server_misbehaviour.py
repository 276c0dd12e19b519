"""HTTP2Server with programs and clients that do what they should not."""

import asyncio
import gc
import logging
import weakref

import pytest
from handlers import Good, failing, mixed, serve, with_good_neighbours
from loops import in_loop, until

from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2 import H2Configuration, H2GoAway
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK
from nghttp2py.server import BaseRequestHandler

INTERNAL_ERROR = ErrorCode.INTERNAL_ERROR


# ---- Callbacks that raise ----


@pytest.mark.parametrize(
    "callback", ["on_headers", "on_data", "on_trailers", "on_request_done"]
)
@in_loop
async def test_a_callback_that_raises_is_a_500(callback, caplog):
    client = serve(mixed(failing(callback)))
    good = client.request("/good")
    stream_id = client.request("/bad", method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"x", trailers={"t": "1"})
    await client.exchange()
    response = client.response(stream_id)
    assert (response.status, response.closed) == (500, 0)
    assert response.body == b"500 Internal Server Error\n"
    assert (b"content-type", b"text/plain; charset=utf-8") in response.headers
    assert client.response(good).body == b"good"
    assert "RuntimeError: on purpose" in caplog.text
    assert "b'/bad'" in caplog.text
    assert {record.name for record in caplog.records} == {"nghttp2py.handler"}


@pytest.mark.parametrize(
    "callback", ["on_headers", "on_data", "on_trailers", "on_request_done", "on_close"]
)
@in_loop
async def test_a_cancelled_future_in_a_callback_ends_one_stream(callback, caplog):
    bad = failing(callback, asyncio.CancelledError)
    if callback == "on_close":
        bad.on_request_done = Good.on_request_done
    client = serve(mixed(bad))
    good = client.request("/good", method="POST", end_stream=False)
    stream_id = client.request("/bad", method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"x", trailers={"t": "1"})
    await client.exchange()
    client.connection.end_stream(good)
    await client.exchange()
    assert client.response(stream_id).status == (200 if callback == "on_close" else 500)
    assert client.response(good).body == b"good"
    assert "CancelledError: on purpose" in caplog.text


@in_loop
async def test_a_cancelled_future_in_a_constructor_or_body_ends_one_stream():
    class Bad(BaseRequestHandler):
        def __init__(self, http2, stream_id):
            super().__init__(http2, stream_id)
            if self.path == b"/made":
                raise asyncio.CancelledError

        def on_headers(self):
            self.send_response(body=self.read if self.path == b"/read" else b"good")

        def read(self, n):
            raise asyncio.CancelledError

    client = serve(Bad)
    made, good, read = map(client.request, ("/made", "/good", "/read"))
    await client.exchange()
    assert client.response(made).status == 500
    assert client.response(read).closed == INTERNAL_ERROR
    assert client.response(good).body == b"good"


@in_loop
async def test_a_constructor_may_send_and_then_raise(caplog):
    class Bad(BaseRequestHandler):
        def __init__(self, http2, stream_id):
            assert self.host == b"test"
            super().__init__(http2, stream_id)
            self.send_response(body=b"whole")
            if self.path == b"/bad":
                raise RuntimeError("on purpose")

        def on_close(self, error_code):
            assert self.path == b"/good", "it was never made"

    client = serve(Bad)
    get = client.request("/good")
    bad = client.request("/bad")
    head = client.request("/good", method="HEAD")
    await client.exchange()
    assert client.response(get).body == b"whole"
    assert client.response(bad).closed == INTERNAL_ERROR
    assert (client.response(head).status, client.response(head).body) == (200, b"")
    assert "it was never made" not in caplog.text


@in_loop
async def test_a_lost_instance_that_has_sent_is_reset():
    """A metaclass may make handlers of which the server learns nothing."""

    class Losing(type):
        def __call__(cls, http2, stream_id):
            handler = super().__call__(http2, stream_id)
            if stream_id == 1:
                handler.send_informational(103)
                raise RuntimeError("on purpose")
            return handler

    class Bad(BaseRequestHandler, metaclass=Losing):
        def on_headers(self):
            self.send_response(body=b"good")

    client = serve(Bad)
    assert (await client.fetch()).status == 500
    assert (await client.fetch()).body == b"good"


@in_loop
async def test_a_constructor_that_raises_is_a_500(caplog):
    class Bad(BaseRequestHandler):
        def __init__(self, http2, stream_id):
            super().__init__(http2, stream_id)
            if stream_id == 1:
                raise RuntimeError("on purpose")

        def on_headers(self):
            self.send_response(body=b"good")

    client = serve(Bad)
    response = await client.fetch(method="POST", body=bytes(100_000))
    assert (response.status, response.closed) == (500, 0)
    assert (await client.fetch()).body == b"good"
    assert "on purpose" in caplog.text


@in_loop
async def test_on_close_that_raises_is_logged(caplog):
    class Bad(Good):
        def on_close(self, error_code):
            raise RuntimeError("on purpose")

    response = await with_good_neighbours(Bad)
    assert (response.status, response.closed) == (200, 0)
    assert "on purpose" in caplog.text


@in_loop
async def test_a_callback_that_raises_after_the_response_began_resets(caplog):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(200)
            self.send_data(b"some")
            raise RuntimeError("on purpose")

    response = await with_good_neighbours(Bad)
    assert response.closed == INTERNAL_ERROR
    assert "on purpose" in caplog.text


@in_loop
async def test_a_handler_that_failed_is_only_closed():
    calls = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            raise RuntimeError("on purpose")

        def on_data(self, data):
            calls.append("data")

        def on_request_done(self):
            calls.append("done")

        def on_close(self, error_code):
            calls.append(("close", error_code))

    await with_good_neighbours(Bad, method="POST", body=bytes(100_000))
    assert calls == [("close", 0)]


@in_loop
async def test_a_system_exit_is_not_swallowed():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            raise SystemExit

    client = serve(Bad)
    client.request()
    with pytest.raises(SystemExit):
        client.protocol.data_received(client.connection.data_to_send())


# ---- Calls at the wrong time ----


@in_loop
async def test_a_second_response_is_an_error():
    errors = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, b"first")
            for again in self.send_response, self.send_headers:
                with pytest.raises(StreamStateError, match="sent already") as caught:
                    again(201)
                errors.append(caught.value)
            assert self.status == 200

    response = await with_good_neighbours(Bad)
    assert (response.status, response.body, response.closed) == (200, b"first", 0)
    assert len(errors) == 2


@in_loop
async def test_everything_after_close_is_an_error_but_resume_and_reset():
    kept = []

    class Bad(Good):
        def on_close(self, error_code):
            kept.append(self)

    await with_good_neighbours(Bad)
    (handler,) = kept
    for call in (
        handler.send_response,
        handler.send_headers,
        handler.end,
        lambda: handler.send_data(b"x"),
        lambda: handler.send_informational(103),
        lambda: handler.push("/x"),
    ):
        with pytest.raises(StreamClosedError):
            call()
    with pytest.raises(StreamClosedError):
        await handler.drain()
    assert not handler.push_enabled
    handler.resume()
    handler.reset()


@in_loop
async def test_calls_after_the_connection_is_lost_are_errors():
    made = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            made.append(self)

    client = serve(Bad)
    client.request()
    await client.exchange()
    client.protocol.connection_lost(None)
    with pytest.raises(StreamClosedError):
        made[0].send_response()
    made[0].resume()
    made[0].reset()


@in_loop
async def test_data_before_headers_are_an_error():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            with pytest.raises(StreamStateError, match="headers must be sent first"):
                self.send_data(b"x")
            with pytest.raises(StreamStateError, match="headers must be sent first"):
                self.end({"t": "1"})
            self.send_response(body=b"fine")

    assert (await with_good_neighbours(Bad)).body == b"fine"


@in_loop
async def test_a_response_from_another_task_is_sent():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.task = asyncio.get_running_loop().create_task(self.respond())

        async def respond(self):
            await asyncio.sleep(0)
            self.send_response(200, None, b"later")

    client = serve(mixed(Bad))
    response = await client.fetch("/bad")
    assert response.body == b"later"


@in_loop
async def test_a_response_from_another_streams_callback_is_sent():
    waiting = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            if waiting:
                waiting.pop().send_response(body=b"by the other")
                self.send_response(body=b"by itself")
            else:
                waiting.append(self)

    client = serve(Bad)
    first, second = client.request(), client.request()
    await client.exchange()
    assert client.response(first).body == b"by the other"
    assert client.response(second).body == b"by itself"


@in_loop
async def test_a_response_from_another_streams_on_close_is_sent():
    waiting = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            waiting.append(self)
            if len(waiting) == 2:
                self.send_response(body=b"first")

        def on_close(self, error_code):
            if self.stream_id == 3:
                waiting[0].send_response(body=b"second")

    client = serve(Bad)
    client.request(), client.request()
    await client.exchange()
    assert client.response(1).body == b"second"


@in_loop
async def test_resume_inside_on_data_is_safe():
    class Echo(BaseRequestHandler):
        def on_headers(self):
            self.pieces = []
            self.ended = False
            self.send_headers(200)
            self.http2.connection.send_body(self.stream_id, self.read)

        def read(self, n):
            if not self.pieces:
                return b"", DATA_EOF if self.ended else DATA_DEFERRED
            piece = self.pieces.pop(0)
            if len(piece) > n:
                self.pieces.insert(0, piece[n:])
            return piece[:n], DATA_OK

        def on_data(self, data):
            self.pieces.append(data)
            self.resume()
            self.resume()

        def on_request_done(self):
            self.ended = True
            self.resume()

    client = serve(Echo)
    body = bytes(range(256)) * 1000
    response = await client.fetch(method="POST", body=body)
    assert response.body == body and response.closed == 0


# ---- What cannot be sent ----


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"status": 0}, HeadersError, "status"),
        ({"status": 1000}, HeadersError, "status"),
        ({"status": 103}, HeadersError, "1xx"),
        ({"status": "20x"}, TypeError, "status must be an int"),
        ({"status": None}, TypeError, "status must be an int"),
        ({"headers": [("x", "a\r\nset-cookie: b")]}, HeadersError, "x"),
        ({"headers": [("x y", "a")]}, HeadersError, "x y"),
        ({"headers": [(":status", "200")]}, HeadersError, ":status"),
        ({"headers": [("connection", "close")]}, HeadersError, "connection"),
        ({"headers": [("x", 5.0)]}, TypeError, "a field value"),
        ({"headers": {"x": True}}, TypeError, "a field value"),
        ({"headers": 5}, TypeError, ""),
        ({"body": 5}, TypeError, "body must be"),
        ({"body": b"x", "trailers": [(":path", "/")]}, HeadersError, ":path"),
    ],
)
@in_loop
async def test_what_cannot_be_sent_is_a_clear_exception(arguments, error, text):
    caught = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            try:
                self.send_response(**arguments)
            except Exception as exception:
                caught.append(exception)
                raise

    response = await with_good_neighbours(Bad)
    assert isinstance(caught[0], error) and text in str(caught[0])
    if "trailers" in arguments:
        assert response.closed == INTERNAL_ERROR
    else:
        assert (response.status, response.closed) == (500, 0)


@pytest.mark.parametrize("body", [b"12345", b"123"])
@in_loop
async def test_a_body_that_does_not_fit_its_content_length_is_an_error(body):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            with pytest.raises(InvalidBodyLengthError, match="content-length is 4"):
                self.send_response(200, {"content-length": "4"}, body)

    response = await with_good_neighbours(Bad)
    assert response.closed == INTERNAL_ERROR


@in_loop
async def test_a_streamed_body_too_large_for_its_content_length_is_an_error():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(200, {"content-length": "4"})
            self.send_data(b"12")
            with pytest.raises(InvalidBodyLengthError):
                self.send_data(b"345")
            with pytest.raises(InvalidBodyLengthError):
                self.end()
            self.send_data(b"34")
            self.end()

    response = await with_good_neighbours(Bad)
    assert (response.body, response.closed) == (b"1234", 0)


@in_loop
async def test_a_push_that_cannot_be_sent_is_an_error():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            with pytest.raises(HeadersError):
                self.push("/a", request_headers={"connection": "close"})
            with pytest.raises(HeadersError):
                self.push("/b", headers={"x": "\n"})
            self.send_response(body=b"page")

    client = serve(Bad, config=H2Configuration(enable_push=True))
    await client.exchange()
    stream_id = client.request()
    await client.exchange()
    assert client.response(stream_id).body == b"page"
    # The promise of /b was out when its response was found bad.
    assert [request.target for request in client.pushed.values()] == [b"/b"]
    assert client.response(2).closed == INTERNAL_ERROR


@pytest.mark.parametrize("enable_push", [False, True])
@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"path": "/", "request_headers": [("x", 0.5)]}, TypeError),
        ({"path": "/", "request_headers": [("x",)]}, TypeError),
        ({"path": "/", "request_headers": "x"}, TypeError),
        ({"path": 0}, TypeError),
        ({"path": "/", "request_headers": {"connection": "close"}}, HeadersError),
        ({"path": "/", "method": "P T"}, HeadersError),
    ],
)
@in_loop
async def test_a_bad_promise_is_an_error_to_every_client(arguments, error, enable_push):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            with pytest.raises(error):
                self.push(**arguments)
            self.send_response(body=b"page")

    client = serve(Bad, config=H2Configuration(enable_push=enable_push))
    await client.exchange()
    assert (await client.fetch()).body == b"page"
    assert client.pushed == {}


@in_loop
async def test_a_promise_whose_handler_cannot_be_made_is_reset():
    class Bad(BaseRequestHandler):
        def __init__(self, http2, stream_id):
            super().__init__(http2, stream_id)
            if self.pushed:
                raise RuntimeError("on purpose")

        def on_headers(self):
            with pytest.raises(RuntimeError, match="on purpose"):
                self.push("/style.css")
            self.send_response(body=b"page")

    client = serve(Bad, config=H2Configuration(enable_push=True))
    await client.exchange()
    stream_id = client.request()
    await client.exchange()
    assert client.response(stream_id).body == b"page"
    assert client.response(2).reset == INTERNAL_ERROR


@in_loop
async def test_a_pushed_stream_pushes_nothing():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            pushed = self.push("/a", body=b"a")
            with pytest.raises(StreamStateError, match="promises no others"):
                pushed.push("/b")
            self.send_response(body=b"page")

    client = serve(Bad, config=H2Configuration(enable_push=True))
    await client.exchange()
    assert (await client.fetch()).body == b"page"
    assert client.response(2).body == b"a"


# ---- The access log ----


@in_loop
async def test_handlers_may_reuse_the_attributes_of_the_request(caplog):
    """What HTTP/2 and the access log need is not read from them."""
    caplog.set_level(logging.INFO, "nghttp2py.access")

    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.method = "GET"
            self.path = "/\N{SNOWMAN}"
            self.send_response(body=b"body")

    response = await with_good_neighbours(Bad, method="HEAD")
    assert (response.status, response.body) == (200, b"")
    assert '"HEAD /bad HTTP/2" 200' in caplog.text


@in_loop
async def test_an_access_log_that_fails_ends_no_connection(caplog, monkeypatch):
    class Refusing(logging.Filter):
        def filter(self, record):
            raise RuntimeError("no log today")

    caplog.set_level(logging.INFO, "nghttp2py.access")
    refusing = Refusing()
    access_logger = logging.getLogger("nghttp2py.access")
    access_logger.addFilter(refusing)
    try:
        response = await with_good_neighbours(Good)
    finally:
        access_logger.removeFilter(refusing)
    assert response.body == b"good"
    assert "no log today" in caplog.text


# ---- Clients ----


@in_loop
async def test_a_client_that_resets_in_mid_body_closes_the_handler():
    codes = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, (bytes(10_000) for _ in iter(int, 1)))

        def on_close(self, error_code):
            codes.append(error_code)

    client = serve(Handler)
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    await client.exchange()
    assert codes == [ErrorCode.CANCEL]
    assert client.protocol.handlers == {}


@in_loop
async def test_a_client_that_resets_in_mid_upload_closes_the_handler():
    calls = []

    class Handler(BaseRequestHandler):
        def on_data(self, data):
            calls.append(len(data))

        def on_request_done(self):
            calls.append("done")

        def on_close(self, error_code):
            calls.append(error_code)

    client = serve(Handler)
    for _ in range(20):
        # Credit that a handler never took goes back to the connection.
        stream_id = client.request(method="POST", end_stream=False)
        client.connection.send_body(stream_id, bytes(50_000), end_stream=False)
        await client.exchange()
        client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        await client.exchange()
        assert sum(calls[:-1]) == 50_000 and calls[-1] == ErrorCode.CANCEL
        calls.clear()


@in_loop
async def test_a_client_that_vanishes_closes_every_handler():
    codes = {}
    cancelled = asyncio.Event()

    async def pieces():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    class Handler(BaseRequestHandler):
        def on_headers(self):
            if self.path == b"/body":
                self.send_response(200, None, pieces())

        def on_close(self, error_code):
            codes[self.path] = error_code
            with pytest.raises(StreamClosedError):
                self.send_response()

    client = serve(Handler)
    client.request("/body"), client.request("/waiting")
    client.request("/upload", method="POST", end_stream=False)
    await client.exchange()
    client.protocol.connection_lost(ConnectionResetError())
    assert codes == dict.fromkeys([b"/body", b"/waiting", b"/upload"], INTERNAL_ERROR)
    assert client.protocol.handlers == {}
    await until(cancelled.is_set)


@in_loop
async def test_a_client_that_breaks_the_protocol_closes_every_handler():
    codes = []

    class Handler(BaseRequestHandler):
        def on_close(self, error_code):
            codes.append(error_code)

    client = serve(Handler)
    client.request(method="POST", end_stream=False)
    await client.exchange()
    client.protocol.data_received(b"\0\0\1\4\0\0\0\0\0x")  # SETTINGS of one byte
    assert codes == [ErrorCode.FRAME_SIZE_ERROR]
    assert client.transport.closing
    events = client.connection.receive_data(client.transport.take())
    assert H2GoAway(1, ErrorCode.FRAME_SIZE_ERROR) in events


@in_loop
async def test_requests_over_the_limit_are_refused():
    class Handler(BaseRequestHandler):
        pass

    client = serve(Handler)
    await client.exchange()
    for _ in range(100):
        client.request()
    await client.exchange()
    assert len(client.protocol.handlers) == 100


@in_loop
async def test_a_lost_connection_leaves_no_cycle():
    client = serve(Good)
    assert (await client.fetch()).body == b"good"
    client.request(method="POST", end_stream=False)
    await client.exchange()
    gone = weakref.ref(client.protocol)
    gc.collect()
    gc.disable()
    try:
        client.transport.closed = True
        client.protocol.connection_lost(None)
        client.protocol = client.transport.protocol = None
        assert gone() is None
    finally:
        gc.enable()
