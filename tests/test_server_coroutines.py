"""Callbacks of handlers that are coroutine functions, or hold the body back."""

import asyncio
import contextlib
import gc
import weakref

import pytest
from handlers import Good, exchange_until, mixed, serve, with_good_neighbours
from loops import in_loop, until

from nghttp2py.asyncio import open_connection
from nghttp2py.errors import ErrorCode, StreamClosedError
from nghttp2py.server import BaseRequestHandler, HTTP2Server

INTERNAL_ERROR = ErrorCode.INTERNAL_ERROR


class Slow(BaseRequestHandler):
    """Writes down its callbacks, each of which takes a few turns of the loop."""

    calls: list

    async def step(self, name):
        self.calls.append(("begin", name))
        for _ in range(3):
            await asyncio.sleep(0)
        self.calls.append(("end", name))

    async def on_headers(self):
        await self.step("headers")

    async def on_data(self, data):
        await self.step(data)

    async def on_trailers(self, headers):
        await self.step("trailers")

    async def on_request_done(self):
        await self.step("done")
        self.send_response(body=b"slow")

    async def on_close(self, error_code):
        await self.step(("close", error_code))


def slow():
    return type("Handler", (Slow,), {"calls": []})


@in_loop
async def test_coroutines_run_one_after_the_other():
    handler = slow()
    client = serve(handler)
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"one", end_stream=False)
    client.protocol.data_received(client.connection.data_to_send())
    client.connection.send_body(stream_id, b"two", trailers={"t": "1"})
    response = client.response(stream_id)
    await exchange_until(client, lambda: ("end", ("close", 0)) in handler.calls)
    assert response.body == b"slow"
    names = ["headers", b"one", b"two", "trailers", "done", ("close", 0)]
    assert handler.calls == [(what, n) for n in names for what in ("begin", "end")]
    assert client.protocol.handlers == {}


@pytest.mark.parametrize(
    "callback", ["on_headers", "on_data", "on_trailers", "on_request_done"]
)
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
@in_loop
async def test_a_coroutine_that_raises_is_a_500(callback, error, caplog):
    async def fail(self, *args):
        await asyncio.sleep(0)
        raise error("on purpose")

    client = serve(mixed(type("Bad", (BaseRequestHandler,), {callback: fail})))
    stream_id = client.request("/bad", method="POST", end_stream=False)
    client.connection.send_body(stream_id, b"x", trailers={"t": "1"})
    response = client.response(stream_id)
    await exchange_until(client, lambda: response.closed is not None)
    assert (response.status, response.closed) == (500, 0)
    assert (await client.fetch("/good")).body == b"good"
    (record,) = caplog.records
    assert record.name == "nghttp2py.handler"


@pytest.mark.parametrize("callback", ["on_headers", "on_data", "on_request_done"])
@in_loop
async def test_a_generator_function_is_refused(callback, caplog):
    async def generate(self, *args):
        yield

    bad = type("Bad", (BaseRequestHandler,), {callback: generate})
    response = await with_good_neighbours(bad, method="POST", body=b"x")
    assert response.status == 500
    assert f"{callback}() is a generator function" in caplog.text


@in_loop
async def test_what_a_callback_returns_besides_is_ignored(caplog):
    class Odd(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=b"odd")
            return True

        def on_data(self, data):
            return "text"

        def on_close(self, error_code):
            return 7

    assert (await with_good_neighbours(Odd, method="POST", body=b"x")).body == b"odd"
    assert caplog.records == []


@pytest.mark.parametrize("how", ["reset", "lost"])
@in_loop
async def test_a_coroutine_is_cancelled_when_its_stream_breaks_off(how, caplog):
    calls = []

    class Waiting(BaseRequestHandler):
        async def on_headers(self):
            try:
                await asyncio.Event().wait()
            finally:
                calls.append("cancelled")

        def on_data(self, data):
            calls.append(data)

        def on_close(self, error_code):
            calls.append(error_code)

    client = serve(Waiting)
    stream_id = client.request(method="POST", body=b"never given")
    await client.exchange()
    if how == "reset":
        client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        client.protocol.data_received(client.connection.data_to_send())
    else:
        client.protocol.connection_lost(None)
    await until(lambda: len(calls) == 2)
    code = ErrorCode.CANCEL if how == "reset" else INTERNAL_ERROR
    assert calls == ["cancelled", code]
    assert caplog.records == []


@in_loop
async def test_a_coroutine_goes_on_after_the_good_end_of_its_stream():
    calls = []
    go_on = asyncio.Event()

    class Handler(BaseRequestHandler):
        async def on_request_done(self):
            self.send_response(body=b"early")
            await go_on.wait()
            calls.append("went on")

        def on_close(self, error_code):
            calls.append(error_code)

    client = serve(Handler)
    assert (await client.fetch()).body == b"early"
    assert calls == [] and client.protocol.handlers == {}
    go_on.set()
    await until(lambda: len(calls) == 2)
    assert calls == ["went on", 0]


@in_loop
async def test_a_coroutine_of_on_close_that_outlives_its_connection_is_kept():
    ended = []
    # As what asyncio's streams wait for: nothing else refers to it.
    futures = weakref.WeakSet()

    class Waiting(BaseRequestHandler):
        def on_request_done(self):
            self.send_response()

        async def on_close(self, error_code):
            future = asyncio.get_running_loop().create_future()
            futures.add(future)
            await future
            ended.append(error_code)

    client = serve(Waiting)
    await client.fetch()
    await until(lambda: futures)
    client.protocol.connection_lost(None)
    del client
    gc.collect()
    for future in futures:
        future.set_result(None)
    await until(lambda: ended == [0])


# ---- The end of a connection ----


class Lingering(BaseRequestHandler):
    """Writes down its end, for which it takes a few turns of the loop."""

    calls: list

    async def on_request_done(self):
        if self.path == b"/early":
            self.send_response(body=b"early")
        self.calls.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.calls.append("cancelled")

    async def on_close(self, error_code):
        for _ in range(5):
            await asyncio.sleep(0)
        self.calls.append(error_code)


def lingering():
    return type("Handler", (Lingering,), {"calls": []})


@pytest.mark.parametrize(("path", "code"), [("/", INTERNAL_ERROR), ("/early", 0)])
@in_loop
async def test_the_end_of_a_connection_cancels_what_its_handlers_do(path, code, caplog):
    """Also what they do after their response."""
    handler = lingering()
    client = serve(handler)
    client.request(path)
    await exchange_until(client, lambda: handler.calls)
    client.protocol.connection_lost(None)
    await until(lambda: len(handler.calls) == 3)
    for _ in range(20):
        await asyncio.sleep(0)  # for a second on_close()
    assert handler.calls == ["begun", "cancelled", code]
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/", "/early"])
@pytest.mark.parametrize("how", ["close", "abort", "client"])
@in_loop
async def test_a_server_waits_until_its_handlers_have_ended(how, path, caplog):
    handler = lingering()
    async with HTTP2Server(("127.0.0.1", 0), handler) as server:
        connection = await open_connection(*server.sockets[0].getsockname())
        stream = await connection.open_stream({":method": "GET", ":path": path})
        await stream.end_stream()
        await until(lambda: handler.calls)
        if how == "client":
            (protocol,) = server._connections
            connection.abort()
            await until(lambda: protocol.transport is None)
            server.close()
        elif how == "abort":
            server.abort()
        else:
            server.close(0.05)
        await server.wait_closed()
        assert len(handler.calls) == 3
        assert handler.calls[:2] == ["begun", "cancelled"]
        connection.abort()
    assert caplog.records == []


@pytest.mark.parametrize("how", ["close", "abort", "twice"])
@in_loop
async def test_handlers_that_do_not_end_hold_up_a_server_for_a_time_only(how):
    begun = []
    released = asyncio.Event()

    class Stubborn(BaseRequestHandler):
        async def on_request_done(self):
            begun.append(1)
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

    server = HTTP2Server(("127.0.0.1", 0), Stubborn, close_timeout=0.05)
    await server.start()
    connection = await open_connection(*server.sockets[0].getsockname())
    stream = await connection.open_stream({":method": "GET", ":path": "/"})
    await stream.end_stream()
    await until(lambda: begun)
    loop = asyncio.get_running_loop()
    start = loop.time()
    if how == "close":
        server.close()
    else:
        server.abort()
    if how == "twice":
        (protocol,) = server._connections
        await until(lambda: protocol.transport is None)
        assert server._connections
        server.abort()
        assert not server._connections
    await asyncio.wait_for(server.wait_closed(), 3)
    assert loop.time() - start < 3
    released.set()
    connection.abort()


@in_loop
async def test_a_coroutine_holds_the_clients_credit_back():
    go_on = asyncio.Event()
    given = []

    class Handler(BaseRequestHandler):
        async def on_data(self, data):
            given.append(len(data))
            await go_on.wait()

        def on_request_done(self):
            self.send_response(body=b"%d" % sum(given))

    client = serve(Handler)
    stream_id = client.request(method="POST", body=bytes(2_000_000))
    await client.exchange()
    sent = 2_000_000 - client.connection.queued_body(stream_id)
    assert sent <= 262144 and len(given) == 1
    go_on.set()
    response = client.response(stream_id)
    await exchange_until(client, lambda: response.closed is not None)
    assert response.body == b"2000000"


# ---- Holding the body back ----


class Pausing(BaseRequestHandler):
    made: list

    def on_headers(self):
        self.made.append(self)
        self.given = []

    def on_data(self, data):
        self.given.append(data)
        self.pause_reading()

    def on_trailers(self, headers):
        self.given.append("trailers")

    def on_request_done(self):
        self.given.append("done")
        self.send_response(body=b"done")

    def on_close(self, error_code):
        self.given.append(error_code)


def pausing():
    return type("Handler", (Pausing,), {"made": []})


@in_loop
async def test_a_paused_handler_gets_nothing_and_gives_no_credit():
    handler_class = pausing()
    client = serve(handler_class)
    body = bytes(1_000_000)
    stream_id = client.request(method="POST", end_stream=False)
    client.connection.send_body(stream_id, body, trailers={"t": "1"})
    await client.exchange()
    (handler,) = handler_class.made
    assert len(handler.given) == 1
    assert len(body) - client.connection.queued_body(stream_id) <= 262144
    # Other streams go on, and other uploads too.
    for _ in range(5):
        client.request(method="POST", body=body)
    await client.exchange()
    assert all(len(other.given) == 1 for other in handler_class.made)
    response = client.response(stream_id)
    while response.closed is None:
        handler.resume_reading()
        await client.exchange()
    assert b"".join(handler.given[:-3]) == body
    assert handler.given[-3:] == ["trailers", "done", 0]
    handler.pause_reading(), handler.resume_reading()


@in_loop
async def test_a_paused_handler_is_closed_at_once():
    handler_class = pausing()
    client = serve(handler_class)
    stream_id = client.request(method="POST", body=bytes(100_000))
    await client.exchange()
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    await client.exchange()
    (handler,) = handler_class.made
    assert len(handler.given) == 2 and handler.given[-1] == ErrorCode.CANCEL
    handler.resume_reading()
    await client.exchange()
    assert len(handler.given) == 2


@in_loop
async def test_resuming_in_the_same_callback_changes_nothing():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.given = b""
            self.pause_reading()
            self.resume_reading()

        def on_data(self, data):
            self.given += data
            self.pause_reading()
            self.resume_reading()

        def on_request_done(self):
            self.send_response(body=b"%d" % len(self.given))

    client = serve(Handler)
    response = await client.fetch(method="POST", body=bytes(1_000_000))
    assert response.body == b"1000000"


@in_loop
async def test_a_handler_that_fails_while_it_is_paused_gets_nothing_more(caplog):
    class Bad(BaseRequestHandler):
        def on_data(self, data):
            self.pause_reading()
            raise RuntimeError("on purpose")

    response = await with_good_neighbours(Bad, method="POST", body=bytes(100_000))
    assert response.status == 500


# ---- Expect: 100-continue (RFC 9110, 10.1.1) ----

EXPECT = {"expect": "100-continue"}


@in_loop
async def test_a_handler_that_wants_the_body_sends_100():
    client = serve(Good)
    stream_id = client.request(method="POST", headers=EXPECT, end_stream=False)
    await client.exchange()
    response = client.response(stream_id)
    assert response.informational == [(100, ())]
    client.connection.send_body(stream_id, b"body")
    await client.exchange()
    assert response.body == b"good" and len(response.informational) == 1


@pytest.mark.parametrize(
    "headers, body", [(EXPECT, b"whole already"), ({}, None), ({"expect": "x"}, None)]
)
@in_loop
async def test_100_is_sent_only_when_it_is_waited_for(headers, body):
    client = serve(Good)
    stream_id = client.request(
        method="POST", headers=headers, body=body, end_stream=False
    )
    await client.exchange()
    assert client.response(stream_id).informational == []


@pytest.mark.parametrize("how", ["answers", "switched off", "sends its own"])
@in_loop
async def test_a_handler_decides_about_100(how):
    class Handler(BaseRequestHandler):
        auto_continue = how != "switched off"

        def on_headers(self):
            if how == "answers":
                self.send_response(413)
            elif how == "sends its own":
                self.send_informational("100", {"x": "own"})

    client = serve(Handler)
    stream_id = client.request(method="POST", headers=EXPECT, end_stream=False)
    await client.exchange()
    expected = [(100, ((b"x", b"own"),))] if how == "sends its own" else []
    assert client.response(stream_id).informational == expected


@pytest.mark.parametrize("how", ["coroutine", "paused"])
@in_loop
async def test_100_waits_until_the_body_is_wanted(how):
    made = []
    go_on = asyncio.Event()

    class Handler(BaseRequestHandler):
        def on_headers(self):
            made.append(self)
            if how == "coroutine":
                return go_on.wait()
            self.pause_reading()

    client = serve(Handler)
    stream_id = client.request(method="POST", headers=EXPECT, end_stream=False)
    await client.exchange()
    response = client.response(stream_id)
    assert response.informational == []
    go_on.set()
    made[0].resume_reading()
    await exchange_until(client, lambda: response.informational)
    assert response.informational == [(100, ())]


# ---- The server stops ----


@in_loop
async def test_a_handler_learns_that_the_server_stops():
    calls = []

    class Events(BaseRequestHandler):
        async def on_headers(self):
            self.send_headers()
            assert not self.is_closing
            await self.wait_closing()
            assert self.is_closing
            self.send_data(b"last")
            self.end()

        def on_closing(self):
            calls.append("closing")

        def on_close(self, error_code):
            calls.append(error_code)

    client = serve(Events)
    stream_id = client.request()
    await client.exchange()
    assert client.response(stream_id).status == 200
    client.protocol.close()
    client.protocol.close()
    await exchange_until(client, lambda: len(calls) == 2)
    assert client.response(stream_id).body == b"last"
    assert calls == ["closing", 0]


@in_loop
async def test_a_request_on_its_way_learns_it_too():
    calls = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            calls.append(self.is_closing)

        async def on_closing(self):
            await asyncio.sleep(0)
            self.send_response(503)

    client = serve(Handler)
    await client.exchange()
    client.protocol.close()
    stream_id = client.request()
    response = client.response(stream_id)
    await exchange_until(client, lambda: response.closed is not None)
    assert response.status == 503 and calls == [True]


@in_loop
async def test_on_closing_that_raises_ends_one_stream(caplog):
    class Bad(BaseRequestHandler):
        def on_closing(self):
            raise GeneratorExit("on purpose")

    class Waiting(BaseRequestHandler):
        def on_closing(self):
            self.send_response(body=b"good")

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.__class__ = Bad if self.path == b"/bad" else Waiting

    client = serve(Handler)
    bad, good = client.request("/bad"), client.request("/good")
    await client.exchange()
    client.protocol.close()
    await client.exchange()
    assert client.response(bad).status == 500
    assert client.response(good).body == b"good"


@in_loop
async def test_waiting_for_the_servers_stop_ends_with_the_stream():
    waiting = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            waiting.append(asyncio.ensure_future(self.wait_closing()))

    client = serve(Handler)
    client.request()
    await client.exchange()
    client.protocol.connection_lost(None)
    await until(lambda: waiting[0].done())
    assert waiting[0].result() is None


# ---- Exceptions that are no Exception ----


@pytest.mark.parametrize(
    "callback",
    ["__init__", "on_headers", "on_data", "on_trailers", "on_request_done", "on_close"],
)
@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError])
@in_loop
async def test_a_base_exception_in_a_callback_ends_one_stream(callback, error, caplog):
    def fail(self, *args):
        raise error("on purpose")

    bad = type("Bad", (Good,), {callback: fail})

    def make(http2, stream_id):
        # The second request is the bad one.
        return (bad if stream_id == 3 else Good)(http2, stream_id)

    client = serve(make)
    for expected in b"good", None, b"good":
        stream_id = client.request(method="POST", end_stream=False)
        client.connection.send_body(stream_id, b"x", trailers={"t": "1"})
        await client.exchange()
        if expected:
            assert client.response(stream_id).body == expected
    assert client.response(3).status == (200 if callback == "on_close" else 500)
    assert not client.protocol.is_closing
    assert "on purpose" in caplog.text


@in_loop
async def test_a_generator_exit_in_a_body_ends_one_stream():
    def pieces():
        yield b"x"
        raise GeneratorExit

    async def async_pieces():
        yield b"x"
        raise GeneratorExit

    for make in pieces, async_pieces:

        class Bad(BaseRequestHandler):
            def on_headers(self, make=make):
                self.send_response(200, None, make())

        client = serve(mixed(Bad))
        bad = client.response(client.request("/bad"))
        await exchange_until(client, lambda bad=bad: bad.closed is not None)
        assert bad.closed == INTERNAL_ERROR
        assert (await client.fetch("/good")).body == b"good"


# ---- Bodies and fields in every form ----


class AsyncFile:
    def __init__(self, data):
        self.data = data

    async def read(self, n):
        await asyncio.sleep(0)
        piece, self.data = self.data[:n], self.data[n:]
        return piece


@in_loop
async def test_an_asynchronous_file_may_be_a_body():
    data = bytes(range(256)) * 1000

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, {"content-length": len(data)}, AsyncFile(data))

    response = await serve(Handler).fetch()
    assert response.body == data
    assert (b"content-length", b"256000") in response.headers


@in_loop
async def test_an_async_body_of_empty_pieces_holds_up_nobody():
    async def pieces():
        while True:
            yield b""

    class Empty(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, pieces())

    client = serve(mixed(Empty))
    client.request("/bad")
    await client.exchange()
    assert (await client.fetch("/good")).body == b"good"
    client.protocol.connection_lost(None)


@in_loop
async def test_a_program_may_replace_the_host():
    class Handler(BaseRequestHandler):
        def on_headers(self):
            assert self.host == b"test"
            self.host = b"other"
            self.send_response(status="203", body=self.host)

    response = await serve(Handler).fetch()
    assert (response.status, response.body) == (203, b"other")


@in_loop
async def test_a_callable_may_make_the_handlers():
    def make(http2, stream_id):
        return Good(http2, stream_id)

    assert (await serve(make).fetch()).body == b"good"


@in_loop
async def test_a_callable_that_makes_no_handler_is_a_500(caplog):
    response = await serve(lambda http2, stream_id: object()).fetch()
    assert response.status == 500


# ---- Tunnels: each half ends by itself (RFC 9113, 8.5) ----


@pytest.mark.parametrize("status", [200, 205])
@in_loop
async def test_the_end_of_our_half_leaves_the_clients(status):
    given = []

    class Tunnel(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(status)
            self.send_data(b"from the server")
            self.end()

        def on_data(self, data):
            given.append(data)

        def on_request_done(self):
            given.append("done")

        def on_close(self, error_code):
            given.append(error_code)

    client = serve(Tunnel)
    stream_id = client.connection.send_request("CONNECT", "host:1", end_stream=False)
    await client.exchange()
    response = client.response(stream_id)
    assert response.body == b"from the server"
    assert response.done and response.reset is None
    client.connection.send_body(stream_id, b"from the client")
    await client.exchange()
    assert given == [b"from the client", "done", 0]


@in_loop
async def test_a_refused_connect_is_stopped():
    class Refusing(BaseRequestHandler):
        def on_headers(self):
            self.send_response(403, body=b"no")

    client = serve(Refusing)
    stream_id = client.connection.send_request("CONNECT", "host:1", end_stream=False)
    response = client.response(stream_id)
    # The reset follows the response in a later turn.
    await exchange_until(client, lambda: response.closed is not None)


@in_loop
async def test_drain_of_a_coroutine_ends_with_its_stream(caplog):
    class Endless(BaseRequestHandler):
        async def on_headers(self):
            self.send_headers()
            while True:
                self.send_data(bytes(100_000))
                await self.drain()

    client = serve(Endless)
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    await asyncio.sleep(0)
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    client.protocol.data_received(client.connection.data_to_send())
    await until(lambda: not client.protocol.handlers)
    assert caplog.records == []
    assert issubclass(StreamClosedError, Exception)
