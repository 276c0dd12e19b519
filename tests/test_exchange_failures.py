"""What goes wrong in an exchange ends it in the same way over every version."""

import asyncio
import contextlib
import gc
import logging
import weakref

import pytest
from exchanges import every_version, everywhere, exchanging, pattern, serving_app
from loops import in_loop, until
from memory import MemoryClient

from nghttp2py.asyncio import H2Protocol
from nghttp2py.errors import StreamClosedError, StreamResetError
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.body import DATA_OK
from nghttp2py.server import BaseRequestHandler

CALLBACKS = ["on_headers", "on_data", "on_trailers", "on_request_done"]


class Callbacks(BaseRequestHandler):
    """Fails in one callback, at requests for /fails; writes down all of them."""

    calls: list
    failing = "on_headers"
    begun = False

    def _see(self, name):
        if self.path == b"/fails":
            self.calls.append(name)
            if self.begun and name == "on_headers":
                self.send_headers(200)
                self.send_data(b"half")
            if name == self.failing:
                raise ValueError("a mistake")

    def on_headers(self):
        self._see("on_headers")

    def on_data(self, data):
        self._see("on_data")

    def on_trailers(self, headers):
        self._see("on_trailers")

    def on_request_done(self):
        self._see("on_request_done")
        if self.begun and self.path == b"/fails":
            self.end()
        else:
            self.send_response(200, body=b"good")

    def on_close(self, error_code):
        self._see("on_close")
        if self.path == b"/fails":
            self.calls.append(error_code)


class Later(Callbacks):
    """The same with coroutine functions."""

    async def _see_later(self, name):
        await asyncio.sleep(0)
        self._see(name)

    async def on_headers(self):
        await self._see_later("on_headers")

    async def on_data(self, data):
        await self._see_later("on_data")

    async def on_trailers(self, headers):
        await self._see_later("on_trailers")

    async def on_request_done(self):
        await asyncio.sleep(0)
        super().on_request_done()

    async def on_close(self, error_code):
        await asyncio.sleep(0)
        super().on_close(error_code)


both_ways = pytest.mark.parametrize("base", [Callbacks, Later])


async def upload(ends, path):
    stream = await ends.open(path, b"POST")
    await stream.send_data(b"upload")
    await stream.send_trailers([(b"x-t", b"1")])
    return stream


def failures(caplog):
    return [r for r in caplog.records if r.levelno >= logging.ERROR]


@both_ways
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("failing", CALLBACKS)
@every_version
@in_loop
async def test_a_callback_that_raises_ends_its_exchange(
    version, failing, begun, base, caplog
):
    fields = {"calls": [], "failing": failing, "begun": begun}
    handler = type("Handler", (base,), fields)
    async with serving_app(version, handler) as ends:
        neighbour = await ends.open(b"/good", b"POST")
        stream = await upload(ends, b"/fails")
        if begun:
            with pytest.raises(StreamResetError, match="INTERNAL_ERROR"):
                await stream.response()
                await stream.read()
        else:
            status, body, _ = await ends.take(stream)
            assert (status, body) == (500, b"500 Internal Server Error\n")
        await neighbour.end_stream()
        assert (await ends.take(neighbour))[:2] == (200, b"good")
        await until(lambda: len(ends.log) == 2 and len(handler.calls) > 1)
        await until(lambda: isinstance(handler.calls[-1], int))
    *calls, last, code = handler.calls
    # on_close() is called once and last, on what had failed before no other.
    assert calls == CALLBACKS[: CALLBACKS.index(failing) + 1]
    assert last == "on_close"
    assert (code != 0) == begun
    (failure,) = failures(caplog)
    assert "a mistake" in str(failure.exc_info[1])
    entry = next(entry for entry in ends.log if entry.target == b"/fails")
    assert (entry.status, entry.complete) == (200 if begun else 500, not begun)


@both_ways
@every_version
@in_loop
async def test_on_close_that_raises_is_logged_and_nothing_else(version, base, caplog):
    handler = type("Handler", (base,), {"calls": [], "failing": "on_close"})
    async with serving_app(version, handler) as ends:
        for _ in range(2):
            stream = await upload(ends, b"/fails")
            assert (await ends.take(stream))[:2] == (200, b"good")
        await until(lambda: len(failures(caplog)) == 2)
        assert (await ends.fetch())[:2] == (200, b"good")
    assert handler.calls == [*CALLBACKS, "on_close"] * 2
    assert all(entry.complete for entry in ends.log)


@every_version
@in_loop
async def test_a_handler_that_cannot_be_made_is_answered_with_500(version, caplog):
    class Handler(BaseRequestHandler):
        def __init__(self, http2, stream_id):
            super().__init__(http2, stream_id)
            raise ValueError("a mistake")

    async with serving_app(version, Handler) as ends:
        for method in (b"GET", b"HEAD"):
            assert (await ends.fetch(method=method))[0] == 500
        await until(lambda: len(ends.log) == 2)
    assert len(failures(caplog)) == 2
    assert [entry.status for entry in ends.log] == [500, 500]


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, GeneratorExit, MemoryError, StopIteration]
)
@everywhere
async def test_whatever_an_application_raises_ends_one_exchange(
    version, kind, error, caplog
):
    async def answer(app, request):
        if request.path != b"/fails":
            await request.respond(200, [], b"good")
        elif app.begun == 1:
            raise error
        else:
            await request.begin()
            raise error

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(b"/fails", end_stream=True)
        try:
            status = (await stream.response()).status
        except StreamResetError:
            status = 0
        assert status in (500, 0)
        stream = await ends.open(b"/fails", end_stream=True)
        with pytest.raises(StreamResetError):
            await stream.response()
            await stream.read()
        assert (await ends.fetch())[:2] == (200, b"good")
        await until(lambda: len(ends.log) == 3)


# ---- Bodies that fail ----


class Broken:
    """A file that fails after a piece, or gives what is no bytes."""

    def __init__(self, second):
        self.second = second
        self.reads = 0

    def read(self, n):
        self.reads += 1
        if self.reads == 1:
            return b"half"
        if isinstance(self.second, BaseException):
            raise self.second
        return self.second


class BrokenLater(Broken):
    async def read(self, n):
        await asyncio.sleep(0)
        return super().read(n)


def broken_pieces(second):
    yield b"half"
    if isinstance(second, BaseException):
        raise second
    yield second


async def broken_pieces_later(second):
    for piece in broken_pieces(second):
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize(
    "second", [OSError("a mistake"), "str", 7, asyncio.CancelledError()], ids=repr
)
@pytest.mark.parametrize(
    "form", [Broken, BrokenLater, broken_pieces, broken_pieces_later]
)
@everywhere
async def test_a_body_that_fails_resets_its_response(version, kind, form, second):
    async def answer(app, request):
        if request.path == b"/fails":
            await request.respond(200, [], form(second))
        else:
            await request.respond(200, [], b"good")

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(b"/fails", end_stream=True)
        with pytest.raises(StreamResetError):
            await stream.response()
            await stream.read()
        assert (await ends.fetch())[:2] == (200, b"good")
        await until(lambda: len(ends.log) == 2)
    first = next(entry for entry in ends.log if entry.target == b"/fails")
    assert not first.complete
    assert first.error_code != 0


@everywhere
async def test_a_source_is_closed_when_its_exchange_breaks_off(version, kind):
    closed = []

    async def pieces():
        try:
            while True:
                yield bytes(10_000)
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def answer(app, request):
        await request.respond(200, [], pieces())

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(end_stream=True)
        await stream.read(1)
        stream.reset()
        await until(lambda: closed)
    assert closed == [True]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("when", [2, 60])
@every_version
@in_loop
async def test_a_source_may_reset_its_own_response(version, when, fails, caplog):
    class Handler(BaseRequestHandler):
        def on_request_done(self):
            if self.path == b"/good":
                self.send_response(200, body=b"good")
                return
            self.reads = 0
            self.send_response(200, body=self.read_source)

        def read_source(self, n):
            self.reads += 1
            if self.reads == when:
                self.reset()
                if fails:
                    raise ValueError("a mistake")
            return bytes(n), DATA_OK

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(end_stream=True)
        with pytest.raises(StreamResetError):
            await stream.response()
            await stream.read()
        assert (await ends.fetch(b"/good"))[:2] == (200, b"good")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [type(record.exc_info[1]) for record in errors] == [ValueError] * fails


@in_loop
async def test_what_comes_after_stop_sending_calls_no_handler(caplog):
    closed = []

    class Handler(BaseRequestHandler):
        def on_request_done(self):
            self.send_response(200)

        def on_close(self, error_code):
            closed.append(error_code)

    async with serving_app("HTTP/3", Handler) as ends:
        stream = await ends.open(method=b"POST")
        await ends.ping()
        ends.client._quic.stop_stream(stream.stream_id, 0x10C)
        ends.client.transmit()
        await stream.send_data(b"the end", end_stream=True)
        await until(lambda: closed)
    assert closed == [0x10C]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("first", [False, True], ids=["with", "before"])
@pytest.mark.parametrize("body", [b"hello", None])
@pytest.mark.parametrize("callback", ["on_headers", "on_request_done"])
@in_loop
async def test_stop_sending_and_the_request_are_no_failure_of_the_handler(
    callback, body, first, caplog
):
    closed = []

    class Handler(BaseRequestHandler):
        def on_close(self, error_code):
            closed.append(error_code)

    setattr(Handler, callback, lambda self: self.send_response(200, body=body))
    async with serving_app("HTTP/3", Handler) as ends:
        await ends.ping()
        quic = ends.client._quic
        stream_id = quic.get_next_available_stream_id()
        fields = [(b":method", b"GET"), (b":scheme", b"https")]
        fields += [(b":authority", b"test"), (b":path", b"/")]
        http = ends.client.require_http()
        if first:
            quic.send_stream_data(stream_id, b"")  # it exists
            quic.stop_stream(stream_id, 0x10C)
            ends.client.transmit()
            await ends.ping()
            http.send_headers(stream_id, fields, True)
        else:
            http.send_headers(stream_id, fields, True)
            quic.stop_stream(stream_id, 0x10C)
        ends.client.transmit()
        await until(lambda: closed)
    assert closed == [0x10C]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("end", ["abort", "close", "lost"])
@in_loop
async def test_a_request_without_memory_for_its_stream_ends_like_others(end, caplog):
    class NoMemory(H2Protocol):
        def request_received(self, stream_id, request):
            raise MemoryError

    protocol = NoMemory(client_side=False, close_timeout=0.1)
    # The answer waits for credit, so that the stream is open.
    window = H2Configuration(initial_window_size=0)
    client = MemoryClient(protocol, config=window)
    client.request(method="POST", end_stream=False)
    await client.exchange()
    assert protocol.stream_count == 1
    if end == "lost":
        client.transport.abort()
    else:
        getattr(protocol, end)()
    await client.exchange()
    await protocol.wait_closed()
    assert not [record for record in caplog.records if record.exc_info]


# ---- Waits that are given up ----


@everywhere
async def test_a_read_that_is_given_up_loses_nothing(version, kind):
    data = pattern(100_000)

    async def answer(app, request):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(request.read(), 0.05)
        app.seen.append("given up")
        await request.respond(200, [], await request.read())

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        await stream.send_data(data[:50_000])
        await until(lambda: app.seen)
        await stream.send_data(data[50_000:], end_stream=True)
        assert (await ends.take(stream))[:2] == (200, data)


@every_version
@in_loop
async def test_what_a_given_up_read_had_taken_is_given_to_on_data(version):
    data, got, started = pattern(600_000), [], asyncio.Event()

    class Handler(BaseRequestHandler):
        async def on_headers(self):
            got.append(await self.read(7))
            started.set()
            for _ in range(2):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(self.read(), 0.05)
            got.append(await self.read(7))
            got.append(await self.read(100_000))

        def on_data(self, data):
            got.append(data)

        def on_request_done(self):
            self.send_response()

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(method=b"POST")
        await stream.send_data(data[:300_000])
        await started.wait()
        await until(lambda: len(got) > 3)
        await stream.send_data(data[300_000:], end_stream=True)
        assert (await ends.take(stream))[0] == 200
    assert [len(piece) for piece in got[:2]] == [7, 7]
    assert b"".join(got) == data


@everywhere
async def test_a_drain_that_is_given_up_leaves_the_response_whole(version, kind):
    piece = pattern(100_000)

    async def answer(app, request):
        await request.begin()
        given_up = n = 0
        while given_up < 3:
            request.queue(piece)
            n += 1
            try:
                await asyncio.wait_for(request.drain(), 0.05)
            except asyncio.TimeoutError:
                given_up += 1
        app.seen.append(n)
        await request.drain()
        await request.send(b"the end")
        await request.end()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        await until(lambda: app.seen)
        _, body, _ = await ends.take(stream)
        assert body == piece * app.seen[0] + b"the end"
        await until(lambda: ends.log)
    assert ends.log[0].complete


@pytest.mark.parametrize("where", ["read", "drain", "send"])
@everywhere
async def test_a_task_that_is_cancelled_in_a_wait_ends_its_exchange(
    version, kind, where, caplog
):
    tasks = []

    async def answer(app, request):
        if request.path == b"/good":
            await request.respond(200, [], b"good")
            return
        tasks.append(asyncio.current_task())
        if where == "read":
            await request.read()
        await request.begin()
        while True:
            if where == "send":
                await request.send(bytes(100_000))
            else:
                request.queue(bytes(100_000))
                await request.drain()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        await until(lambda: tasks)
        await ends.ping()
        if where != "read":
            await stream.response()
        tasks[0].cancel()
        await until(lambda: app.cancelled == 1)
        if where == "read":
            with contextlib.suppress(StreamResetError):
                assert (await stream.response()).status == 500
        else:
            with pytest.raises(StreamResetError):
                await stream.read()
        assert (await ends.fetch(b"/good"))[:2] == (200, b"good")
        await until(lambda: len(ends.log) == 2)


# ---- Resets of the client ----


class Watching(BaseRequestHandler):
    """Answers as a test asks, and writes down the end."""

    ends: list

    def on_close(self, error_code):
        self.ends.append(error_code)


def reset_halves(ends, stream, way):
    """Reset a stream, or over HTTP/3 only a half of it."""
    quic = getattr(ends.client, "_quic", None)
    if way == "both" or quic is None:
        stream.reset()
        return
    if way == "ours":
        quic.reset_stream(stream.stream_id, 0x10C)
    else:
        quic.stop_stream(stream.stream_id, 0x10C)
    ends.client.transmit()


@pytest.mark.parametrize("way", ["both", "ours", "theirs"])
@pytest.mark.parametrize(
    "point", ["headers", "body", "informational", "begun", "blocked", "source"]
)
@everywhere
async def test_a_client_may_break_off_at_any_point(version, kind, point, way):
    async def answer(app, request):
        if request.path == b"/good":
            await request.respond(200, [], b"good")
            return
        if point == "body":
            app.seen.append(await request.read(4))
        elif point == "informational":
            await request.inform(103, [(b"link", b"</a>")])
        elif point in ("begun", "blocked"):
            await request.begin()
            await request.send(b"half")
        app.seen.append("there")
        if point == "source":
            await request.respond(200, [], iter(lambda: bytes(10_000), None))
        while point == "blocked":
            await request.send(bytes(10_000))
        await request.read()
        await app.go.wait()
        await request.respond(200, [], b"late")

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        if point == "body":
            await stream.send_data(b"half")
        if point == "informational":
            assert (await stream.next_informational()).status == 103
        if point in ("begun", "blocked", "source"):
            await stream.read(4)
        await until(lambda: "there" in app.seen)
        await ends.ping()
        reset_halves(ends, stream, way)
        await ends.ping()
        if way != "both":
            # The other half may go on: it ends here.
            app.go.set()
            stream.reset()
        await until(lambda: app.ended == 1)
        assert (await ends.fetch(b"/good"))[:2] == (200, b"good")
        await until(lambda: len(ends.log) == 2)
    first = next(entry for entry in ends.log if entry.target == b"/")
    assert not first.complete
    assert first.error_code != 0


@every_version
@in_loop
async def test_a_handler_is_closed_once_when_its_client_breaks_off(version):
    calls, handlers = [], []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)
            calls.append("headers")
            if self.path == b"/begun":
                self.send_headers(200)

        def on_data(self, data):
            calls.append(data)

        def on_request_done(self):
            calls.append("done")

        def on_close(self, error_code):
            calls.append(error_code != 0)
            with pytest.raises(StreamClosedError):
                self.send_response(200)
            self.reset()
            self.resume()
            self.pause_reading()
            self.resume_reading()

    async with serving_app(version, Handler) as ends:
        for path in (b"/", b"/begun"):
            stream = await ends.open(path, b"POST")
            await stream.send_data(b"data")
            await until(lambda: b"data" in calls)
            stream.reset()
            await until(lambda: True in calls)
            await ends.ping()
            assert calls == ["headers", b"data", True]
            calls.clear()


@pytest.mark.parametrize("stage", ["request", "sent", "queued"])
@everywhere
async def test_a_lost_connection_ends_every_exchange(version, kind, stage):
    async def answer(app, request):
        if stage == "request":
            await request.read()
        await request.begin()
        while stage == "sent":
            await request.send(bytes(10_000))
        while True:
            request.queue(bytes(10_000))
            await request.drain()

    async with exchanging(version, kind, answer) as (app, ends):
        streams = [await ends.open(method=b"POST") for _ in range(5)]
        await until(lambda: app.begun == 5)
        assert len(streams) == 5
        ends.client.abort()
        await until(lambda: app.ended == 5 and len(ends.log) == 5)
    assert not any(entry.complete for entry in ends.log)


# ---- Lifetimes ----


@pytest.mark.parametrize("how", ["whole", "reset", "fails"])
@every_version
@in_loop
async def test_a_handler_that_refers_to_itself_is_collected(version, how, caplog):
    caplog.set_level(logging.CRITICAL, "nghttp2py.handler")  # pytest keeps tracebacks
    refs = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.me = self
            self.call = self.on_data
            refs.append(weakref.ref(self))

        def on_data(self, data):
            self.pieces = [self, data]

        async def on_request_done(self):
            self.task = asyncio.current_task()
            if how == "fails":
                raise ValueError("a mistake")
            if how == "whole":
                self.send_response(200, body=iter([b"a", b"b"]))
            await asyncio.sleep(0)

    async with serving_app(version, Handler) as ends:
        for i in range(3):
            stream = await ends.open(method=b"POST")
            await stream.send_data(b"data", end_stream=True)
            await until(lambda i=i: len(refs) > i)
            if how == "reset":
                stream.reset()
            else:
                await ends.take(stream)
        await until(lambda: len(refs) == len(ends.log) == 3)
        await ends.ping()

        def collected():
            gc.collect()
            return not any(ref() for ref in refs)

        # The connection is open still.
        await until(collected)


@every_version
@in_loop
async def test_a_handler_without_a_cycle_needs_no_collector(version):
    refs = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            refs.append(weakref.ref(self))

        def on_request_done(self):
            self.send_response(200, body=b"whole")

    async with serving_app(version, Handler) as ends:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await ends.fetch(method=b"POST", body=b"data")
            await until(lambda: not any(ref() for ref in refs))
        finally:
            gc.enable()


@every_version
@in_loop
async def test_a_stream_that_refers_to_itself_is_collected(version):
    refs = []

    class Cycle:
        pass

    async def app(stream):
        cycle = Cycle()
        cycle.stream, cycle.me = stream, cycle
        refs.append(weakref.ref(stream))
        await stream.send_response(200, body=await stream.read())

    async with serving_app(version, app) as ends:
        for _ in range(3):
            await ends.fetch(method=b"POST", body=b"data")

        def collected():
            gc.collect()
            return not any(ref() for ref in refs)

        await until(collected)
