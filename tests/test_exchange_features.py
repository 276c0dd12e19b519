"""What an exchange may ask for is the same over every version, or is refused."""

import asyncio
import contextlib
import logging

import pytest
from exchanges import (
    Upload,
    both_kinds,
    every_version,
    everywhere,
    exchanging,
    multiplexed,
    pattern,
    serving_app,
    settled,
)
from loops import in_loop, pause, until

from nghttp2py import DATA_DEFERRED, DATA_EOF, DATA_OK
from nghttp2py.errors import (
    HeadersError,
    PushDisabledError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.server import BaseRequestHandler

# ---- Bodies that have nothing for a time ----


class Deferred:
    """A body callable that has nothing until it is given a piece."""

    def __init__(self):
        self.pieces = []
        self.whole = False
        self.asked = 0

    def __call__(self, n):
        self.asked += 1
        if self.pieces:
            return self.pieces.pop(0), DATA_OK
        return b"", DATA_EOF if self.whole else DATA_DEFERRED


@every_version
@in_loop
async def test_a_deferred_body_goes_on_when_it_is_resumed(version):
    handlers, body = [], Deferred()

    class Handler(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)
            self.send_response(200, body=body)

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(end_stream=True)
        assert (await stream.response()).status == 200
        asked = body.asked
        assert asked
        for i in range(3):
            body.pieces = [b"%d" % i, b"more"]
            handlers[0].resume()
            assert await stream.readexactly(5) == b"%dmore" % i
        await settled(lambda: body.asked)
        handlers[0].resume()  # with nothing
        body.whole = True
        handlers[0].resume()
        handlers[0].resume()
        assert await stream.read() == b""
        handlers[0].resume()  # after the end


@every_version
@in_loop
async def test_a_deferred_body_is_reset_while_it_has_nothing(version):
    handlers, codes = [], []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)
            self.send_response(200, body=Deferred())

        def on_close(self, error_code):
            codes.append(error_code)

    async with serving_app(version, Handler) as ends:
        for way in ("client", "server"):
            stream = await ends.open(end_stream=True)
            assert (await stream.response()).status == 200
            handler = handlers.pop()
            if way == "client":
                stream.reset()
            else:
                handler.reset()
                with pytest.raises(StreamResetError):
                    await stream.read()
            await until(lambda: codes)
            assert codes.pop() != 0
            handler.resume()
        await until(lambda: len(ends.log) == 2)
    assert not any(entry.complete for entry in ends.log)


@everywhere
async def test_an_asynchronous_body_may_wait_for_its_pieces(version, kind):
    async def pieces(app):
        for i in range(3):
            yield b"%d" % i
            await app.go.wait()
            app.go.clear()

    async def answer(app, request):
        await request.respond(200, [], pieces(app), [(b"x-t", b"1")])

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        for i in range(3):
            assert await stream.read(9) == b"%d" % i
            app.go.set()
        assert await stream.read() == b""
        assert list(await stream.trailers()) == [(b"x-t", b"1")]


# ---- Bodies that are not wanted yet ----


@every_version
@in_loop
async def test_a_paused_handler_gets_the_rest_when_it_resumes(version):
    data = pattern(2_000_000)
    handlers, got = [], []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)

        def on_data(self, piece):
            got.append(piece)
            self.pause_reading()

        def on_trailers(self, headers):
            got.append(headers)

        def on_request_done(self):
            got.append("done")
            self.send_response(200, body=b"thanks")

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(method=b"POST")
        upload = Upload(stream, data, [(b"x-t", b"1")])
        await until(lambda: got)
        assert await upload.stops() < 1_500_000
        assert len(got) == 1
        while "done" not in got:
            n = len(got)
            handlers[0].resume_reading()
            handlers[0].resume_reading()
            await until(lambda n=n: len(got) > n)
        assert b"".join(got[:-2]) == data
        assert got[-2] == [(b"x-t", b"1")]
        assert (await ends.take(stream))[:2] == (200, b"thanks")
        await upload.task


@every_version
@in_loop
async def test_a_handler_that_is_paused_from_the_start_gets_nothing(version):
    handlers, calls = [], []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)
            self.pause_reading()

        def on_data(self, data):
            calls.append(data)

        def on_request_done(self):
            calls.append("done")
            self.send_response()

        def on_close(self, error_code):
            calls.append(error_code)

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(method=b"POST")
        await stream.send_data(b"upload", end_stream=True)
        await until(lambda: handlers)
        await ends.ping()
        await pause()
        assert calls == []
        handlers[0].resume_reading()
        assert (await ends.take(stream))[0] == 200
        await until(lambda: calls[-1:] == [0])
        assert calls == [b"upload", "done", 0]


@pytest.mark.parametrize("way", ["paused", "coroutine"])
@every_version
@in_loop
async def test_credit_comes_when_the_piece_is_done_with(version, way):
    """What was given to on_data() counts as received until that has ended."""
    handlers, got = [], 0
    gate = asyncio.Event()

    class Paused(BaseRequestHandler):
        def on_headers(self):
            handlers.append(self)

        def on_data(self, data):
            nonlocal got
            got += len(data)
            if not gate.is_set():
                self.pause_reading()

        def on_request_done(self):
            self.send_response()

    class Waiting(Paused):
        async def on_data(self, data):
            nonlocal got
            got += len(data)
            await gate.wait()

    data = pattern(3_000_000)
    handler = Paused if way == "paused" else Waiting
    async with serving_app(version, handler) as ends:
        stream = await ends.open(method=b"POST")
        upload = Upload(stream, data)
        await until(lambda: got)
        assert 0 < got < await upload.stops() < 2_500_000
        gate.set()
        handlers[0].resume_reading()
        assert (await ends.take(stream))[0] == 200
        await upload.task
        assert got == len(data)


# ---- Trailers ----


@pytest.mark.parametrize("body", [None, b""])
@everywhere
async def test_trailers_may_follow_an_empty_body(version, kind, body):
    async def answer(app, request):
        app.seen.append(await request.read())
        await request.respond(200, [], body, [(b"x-ours", b"1")])

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        if body is None:
            await stream.send_trailers([(b"x-theirs", b"2")])
        else:
            await stream.send_body(body, trailers=[(b"x-theirs", b"2")])
        assert await ends.take(stream) == (200, b"", [(b"x-ours", b"1")])
        await until(lambda: app.trailers)
    assert app.seen == [b""]
    assert app.trailers == [[(b"x-theirs", b"2")]]


async def slowly(pieces):
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


no_trailer = pytest.raises(HeadersError, match=r"must not be a trailer.*6\.5\.1")


@pytest.mark.parametrize("name", [b"content-length", b"Host", b"content-type"])
@everywhere
async def test_a_field_that_the_body_needs_is_no_trailer(version, kind, name):
    async def answer(app, request):
        await request.begin()
        await request.send(b"sent")
        with no_trailer:
            await request.end([(b"x-t", b"1"), (name, b"5")])
        await request.end([(b"x-t", b"1")])

    async with exchanging(version, kind, answer) as (_, ends):
        assert await ends.fetch() == (200, b"sent", [(b"x-t", b"1")])


@pytest.mark.parametrize("form", [b"".join, iter, slowly])
@everywhere
async def test_a_response_with_such_a_trailer_is_reset(version, kind, form, caplog):
    async def answer(app, request):
        with no_trailer:
            body = form([bytes(100_000)] * 10)
            await request.respond(200, [], body, [(b"content-length", b"5")])
        app.seen.append("refused")

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        if kind == "handler":
            await until(lambda: app.seen)  # before the body is taken
        with pytest.raises(StreamResetError):
            await ends.take(stream)
        assert app.seen == ["refused"]
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@everywhere
async def test_trailers_may_end_a_response_that_was_begun_without_a_body(version, kind):
    async def answer(app, request):
        await request.begin()
        await request.end([(b"x-ours", b"1")])

    async with exchanging(version, kind, answer) as (_, ends):
        assert await ends.fetch() == (200, b"", [(b"x-ours", b"1")])


@pytest.mark.parametrize("body", [b"dropped", [b"drop", b"ped"], None])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@everywhere
async def test_a_response_without_content_has_no_trailers(version, kind, method, body):
    status = 200 if method == b"HEAD" else 304

    async def answer(app, request):
        await request.respond(status, [], body, [(b"x-t", b"1")])

    async with exchanging(version, kind, answer) as (_, ends):
        assert await ends.fetch(method=method) == (status, b"", [])
        await until(lambda: ends.log)
    assert [(e.bytes_sent, e.complete) for e in ends.log] == [(0, True)]


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)]
)
@everywhere
async def test_pieces_of_a_response_without_content_are_dropped(
    version, kind, method, status
):
    async def answer(app, request):
        await request.begin(status, [(b"x-a", b"b")])
        await request.send(b"dropped")
        await request.end()

    async with exchanging(version, kind, answer) as (_, ends):
        assert await ends.fetch(method=method) == (status, b"", [])
        await until(lambda: ends.log)
    assert [(e.bytes_sent, e.complete) for e in ends.log] == [(0, True)]


# ---- 100 (Continue) ----

EXPECT = [(b"expect", b"100-continue")]


@everywhere
async def test_100_is_sent_once(version, kind):
    async def answer(app, request):
        await request.inform(100)
        await request.respond(200, [], await request.read())

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(method=b"POST", headers=EXPECT)
        assert (await stream.next_informational()).status == 100
        await stream.send_body(b"upload")
        assert await stream.next_informational() is None
        assert (await ends.take(stream))[:2] == (200, b"upload")


@everywhere
async def test_100_is_not_sent_when_the_body_is_there(version, kind):
    async def answer(app, request):
        await app.go.wait()
        await request.respond(200, [], await request.read())

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST", headers=EXPECT)
        await stream.send_body(b"upload")
        await ends.ping()
        app.go.set()
        assert await stream.next_informational() is None
        assert (await ends.take(stream))[:2] == (200, b"upload")


@every_version
@in_loop
async def test_a_handler_of_callbacks_asks_for_the_body(version):
    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.auto_continue = self.path != b"/no"
            if self.path == b"/refused":
                self.send_response(417)

        def on_request_done(self):
            if self.status is None:
                self.send_response(200, body=b"done")

    async with serving_app(version, Handler) as ends:
        stream = await ends.open(b"/yes", b"POST", EXPECT)
        assert (await stream.next_informational()).status == 100
        await stream.end_stream()
        assert (await ends.take(stream))[:2] == (200, b"done")
        stream = await ends.open(b"/no", b"POST", EXPECT)
        await stream.end_stream()
        assert await stream.next_informational() is None
        assert (await ends.take(stream))[:2] == (200, b"done")
        stream = await ends.open(b"/refused", b"POST", EXPECT)
        assert await stream.next_informational() is None
        assert (await stream.response()).status == 417


# ---- Tunnels ----

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"example.com:443")]
WEBSOCKET = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/chat"),
    (b"sec-websocket-version", b"13"),
]


def every_tunnel(test):
    """Extended CONNECT is of HTTP/2 and HTTP/3: HTTP/1.1 has upgrades instead."""
    tunnels = [
        pytest.param(version, fields, id=f"{name}-{version}")
        for name, fields in [("CONNECT", CONNECT), ("WebSocket", WEBSOCKET)]
        for version in ["HTTP/1.1", "HTTP/2", "HTTP/3"]
        if fields is CONNECT or version != "HTTP/1.1"
    ]
    arguments = pytest.mark.parametrize(("version", "fields"), tunnels)
    return arguments(both_kinds(in_loop(test)))


async def open_tunnel(ends, fields):
    if ends.version == "HTTP/3":
        await ends.client.wait_settings()
    return await ends.client.open_stream(fields)


@every_tunnel
async def test_a_tunnel_carries_bytes_both_ways(version, kind, fields):
    async def answer(app, request):
        app.seen.append(request.path)
        await request.begin()
        while piece := await request.read(65536):
            await request.send(piece)
        await request.send(b"the end")
        await request.end()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await open_tunnel(ends, fields)
        assert (await stream.response()).status == 200
        for size in (1, 10_000, 100_000):
            await stream.send_data(pattern(size))
            assert await stream.readexactly(size) == pattern(size)
        await stream.end_stream()
        assert await stream.read() == b"the end"
        await until(lambda: ends.log)
    assert ends.log[0].complete
    assert ends.log[0].method == b"CONNECT"
    if fields is WEBSOCKET:
        assert app.seen == [b"/chat"]


@every_tunnel
async def test_either_half_of_a_tunnel_ends_first(version, kind, fields):
    """RFC 9113, 8.5; RFC 9114, 4.4."""

    async def answer(app, request):
        await request.begin()
        await request.end()
        app.seen.append(await request.read())

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await open_tunnel(ends, fields)
        assert (await stream.response()).status == 200
        assert await stream.read() == b""
        for _ in range(3):
            await stream.send_data(b"still open ")
            await ends.ping()
        await stream.end_stream()
        await until(lambda: app.seen)
        await until(lambda: ends.log)
    assert app.seen == [b"still open " * 3]
    assert ends.log[0].complete


@every_tunnel
async def test_a_tunnel_is_refused_as_any_request(version, kind, fields):
    async def answer(app, request):
        await request.respond(405, [(b"allow", b"GET")], b"no")

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await open_tunnel(ends, fields)
        assert (await ends.take(stream))[:2] == (405, b"no")
        with contextlib.suppress(StreamResetError, ConnectionError, StreamClosedError):
            await stream.end_stream()
        assert (await ends.fetch())[0] == 405


@every_tunnel
async def test_a_tunnel_breaks_off(version, kind, fields):
    async def answer(app, request):
        await request.begin()
        app.seen.append(await request.read(4))
        if app.seen == [b"ours"]:
            request.reset()
        else:
            await request.read(4)

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await open_tunnel(ends, fields)
        assert (await stream.response()).status == 200
        await stream.send_data(b"ours")
        with pytest.raises(StreamResetError):
            await stream.read()
        stream = await open_tunnel(ends, fields)
        await stream.send_data(b"data")
        await until(lambda: len(app.seen) == 2)
        stream.reset()
        await until(lambda: app.ended == 2 and len(ends.log) == 2)
    assert not any(entry.complete for entry in ends.log)


# ---- Server push ----


@everywhere
async def test_push_is_a_capability(version, kind):
    """HTTP/2 has it (RFC 9113, 8.4), and HTTP/3; our clients of HTTP/3 take none."""

    async def answer(app, request):
        app.seen.append(request.push_enabled)
        app.seen.append(await request.push(b"/style", b"pushed"))
        await request.respond(200, [], b"page")
        app.seen.append(request.push_enabled)

    async with exchanging(version, kind, answer) as (app, ends):
        assert (await ends.fetch())[:2] == (200, b"page")
        can = version == "HTTP/2"
        await until(lambda: len(app.seen) == 3)
        assert app.seen[:2] == [can, can]
        if can:
            pushed = await ends.client.accept_push()
            assert pushed.request.target == b"/style"
            assert (await ends.take(pushed))[:2] == (200, b"pushed")
    assert sum(entry.target == b"/" for entry in ends.log) == 1


@everywhere
async def test_a_push_that_cannot_be_is_an_error_of_its_caller(version, kind):
    async def answer(app, request):
        stream = request.inner
        if kind == "handler":
            pushed = stream.push("/style", body=b"pushed")
            with pytest.raises((StreamStateError, StreamClosedError)):
                pushed.push("/other")
        elif version == "HTTP/2":
            pushed = await stream.push([(b":path", b"/style")])
            assert not pushed.push_enabled
            with pytest.raises(StreamStateError, match="stream 2: a pushed stream"):
                await pushed.push([(b":path", b"/other")])
            await pushed.send_response()
        else:
            reason = "has no server push" if version == "HTTP/1.1" else "takes no push"
            with pytest.raises(PushDisabledError, match=reason):
                await stream.push([(b":path", b"/style")])
        await request.respond()

    async with exchanging(version, kind, answer) as (_, ends):
        assert (await ends.fetch())[0] == 200


# ---- Priorities ----


@multiplexed
async def test_an_urgent_response_overtakes_the_others(version, kind):
    """RFC 9218, 4.1 and 10: the scheme is the same in both versions."""
    size = 200_000

    async def answer(app, request):
        await app.go.wait()
        await request.respond(200, [], bytes(size))

    async with exchanging(version, kind, answer) as (app, ends):
        done = []

        async def take(urgency):
            stream = await ends.open(
                b"/%d" % urgency,
                headers=[(b"priority", b"u=%d" % urgency)],
                end_stream=True,
            )
            _, body, _ = await ends.take(stream)
            assert len(body) == size
            done.append(urgency)

        tasks = [asyncio.create_task(take(u)) for u in (7, 7, 5, 5, 3, 3, 0)]
        await until(lambda: app.begun == len(tasks))
        app.go.set()
        await asyncio.gather(*tasks)
    assert done[0] == 0
    assert done[-1] == 7


# ---- Datagrams ----


@both_kinds
@in_loop
async def test_datagrams_are_of_streams_of_http3(kind):
    """RFC 9297, 2.1; a handler has no use for them."""

    async def answer(app, request):
        if kind == "coroutine":
            data = await request.inner.receive_datagram()
            request.inner.send_datagram(data + b" back")
        else:
            app.seen.append(await request.read(4))
        await request.respond(200, [], await request.read())

    async with exchanging("HTTP/3", kind, answer) as (app, ends):
        await ends.client.wait_settings()
        stream = await ends.open(method=b"POST")
        # One that overtakes the request may be dropped.
        await until(lambda: app.begun)
        for _ in range(100):
            stream.send_datagram(b"ping")
        if kind == "coroutine":
            assert await stream.receive_datagram() == b"ping back"
        else:
            await stream.send_data(b"body")
        await stream.end_stream()
        assert (await ends.take(stream))[:2] == (200, b"")


@in_loop
async def test_a_stream_of_http2_has_no_datagrams():
    async def app(stream):
        assert not hasattr(stream, "send_datagram")
        await stream.send_response()

    async with serving_app("HTTP/2", app) as ends:
        assert (await ends.fetch())[0] == 200


@both_kinds
@in_loop
async def test_a_datagram_capsule_is_a_part_of_the_body(kind):
    """RFC 9297, 3.5: over HTTP/2 datagrams are capsules, which the program reads."""

    async def answer(app, request):
        await request.begin()
        app.seen.append(await request.read())
        await request.end()

    async with exchanging("HTTP/2", kind, answer) as (app, ends):
        stream = await open_tunnel(ends, WEBSOCKET)
        await stream.send_data(b"\x00\x04ping", end_stream=True)
        assert await stream.read() == b""
    assert app.seen == [b"\x00\x04ping"]
