"""Exchanges are the same over every version, for handlers and for coroutines."""

import asyncio
import io
import logging

import pytest
from exchanges import Upload, both_kinds, cut, everywhere, exchanging, pattern, settled
from loops import in_loop, until

from nghttp2py.errors import (
    ConnectionTerminatedError,
    StreamClosedError,
    StreamResetError,
)
from nghttp2py.h3.connection import ErrorCode


class SlowReader:
    """A reader whose ``read`` is a coroutine function."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    async def read(self, n):
        await asyncio.sleep(0)
        return self.file.read(n)


async def slowly(data, size):
    for piece in cut(data, size):
        await asyncio.sleep(0)
        yield piece


BODIES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "file": io.BytesIO,
    "small pieces": lambda data: cut(data, 1000),
    "large pieces": lambda data: cut(data, 1 << 21),
    "async pieces": lambda data: slowly(data, 50000),
    "large async pieces": lambda data: slowly(data, 1 << 21),
    "async reader": SlowReader,
}
every_body = pytest.mark.parametrize("form", BODIES)
every_size = pytest.mark.parametrize("size", [0, 70_000, 3_000_000])


# ---- Bodies ----


@every_body
@every_size
@everywhere
async def test_a_response_has_the_body_that_it_is_given(version, kind, form, size):
    data = pattern(size)

    async def answer(app, request):
        await request.respond(200, [(b"x-a", b"b")], BODIES[form](data))

    async with exchanging(version, kind, answer) as (_, ends):
        status, body, trailers = await ends.fetch()
    assert status == 200
    assert body == data
    assert trailers == []


@every_body
@every_size
@everywhere
async def test_a_request_has_the_body_that_it_is_given(version, kind, form, size):
    data = pattern(size)

    async def answer(app, request):
        app.seen.append(await request.read())
        await request.respond()

    async with exchanging(version, kind, answer) as (app, ends):
        status, body, _ = await ends.fetch(method=b"POST", body=BODIES[form](data))
    assert (status, body) == (200, b"")
    assert app.seen == [data]


@everywhere
async def test_a_body_is_sent_back_piece_by_piece(version, kind):
    data = pattern(3_000_000)

    async def answer(app, request):
        await request.begin()
        while piece := await request.read(30_000):
            await request.send(piece)
        await request.end()

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(method=b"POST")
        upload = asyncio.create_task(stream.send_body(data))
        _, body, _ = await ends.take(stream)
        await upload
    assert body == data


@everywhere
async def test_many_requests_are_answered_at_once(version, kind):
    async def answer(app, request):
        await request.respond(200, [], request.path + await request.read())

    async with exchanging(version, kind, answer) as (_, ends):
        answers = await asyncio.gather(
            *(
                ends.fetch(b"/%d" % i, b"POST", body=pattern(i * 1000))
                for i in range(50)
            )
        )
    assert [body for _, body, _ in answers] == [
        b"/%d" % i + pattern(i * 1000) for i in range(50)
    ]


@everywhere
async def test_trailers_go_both_ways(version, kind):
    async def answer(app, request):
        app.seen.append(await request.read())
        await request.begin()
        await request.send(b"body")
        await request.end([(b"x-ours", b"1")])

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        await stream.send_body(b"upload", trailers=[(b"x-theirs", b"2")])
        assert await ends.take(stream) == (200, b"body", [(b"x-ours", b"1")])
        await until(lambda: app.trailers)
    assert app.seen == [b"upload"]
    assert app.trailers == [[(b"x-theirs", b"2")]]


@everywhere
async def test_trailers_follow_a_body_of_any_form(version, kind):
    data = pattern(200_000)

    async def answer(app, request):
        body = BODIES[request.path[1:].decode().replace("-", " ")](data)
        await request.respond(200, [], body, [(b"x-t", b"1")])

    async with exchanging(version, kind, answer) as (_, ends):
        for form in BODIES:
            path = b"/" + form.replace(" ", "-").encode()
            assert await ends.fetch(path) == (200, data, [(b"x-t", b"1")]), form


# ---- Responses without content, and informational ones ----


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 205), (b"GET", 304)]
)
@everywhere
async def test_a_response_without_content_has_none(version, kind, method, status):
    async def answer(app, request):
        await request.respond(status, [(b"x-a", b"b")], b"dropped")

    async with exchanging(version, kind, answer) as (_, ends):
        assert await ends.fetch(method=method) == (status, b"", [])
        assert await ends.fetch(method=method) == (status, b"", [])
        await until(lambda: len(ends.log) == 2)
    assert all(entry.complete for entry in ends.log)


@everywhere
async def test_informational_responses_come_before_the_final_one(version, kind):
    async def answer(app, request):
        await request.inform(103, [(b"link", b"</a>")])
        await request.respond(200, [], b"x")

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(end_stream=True)
        heads = [head async for head in stream.informational()]
        assert [(h.status, list(h.headers)) for h in heads] == [
            (103, [(b"link", b"</a>")])
        ]
        assert (await ends.take(stream))[:2] == (200, b"x")


@everywhere
async def test_a_client_is_told_to_continue_when_its_body_is_read(version, kind):
    async def answer(app, request):
        await request.respond(200, [], await request.read())

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(method=b"POST", headers=[(b"expect", b"100-continue")])
        head = await stream.next_informational()
        assert head.status == 100
        await stream.send_body(b"upload")
        assert (await ends.take(stream))[:2] == (200, b"upload")


@everywhere
async def test_a_client_is_not_told_to_continue_when_it_is_refused(version, kind):
    async def answer(app, request):
        await request.respond(417)

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(method=b"POST", headers=[(b"expect", b"100-continue")])
        assert await stream.next_informational() is None
        assert (await stream.response()).status == 417


# ---- Ends before the end ----


@everywhere
async def test_an_upload_is_answered_before_it_is_whole(version, kind):
    async def answer(app, request):
        if request.path == b"/large":
            await request.respond(413, [], b"too large")
        else:
            await request.respond(200, [], b"fine")

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(b"/large", b"POST")

        async def upload():
            while True:
                await stream.send_data(bytes(50_000))

        sending = asyncio.create_task(upload())
        assert (await ends.take(stream))[:2] == (413, b"too large")
        with pytest.raises((StreamResetError, ConnectionError)):
            await sending
        # The connection lives on.
        assert (await ends.fetch())[:2] == (200, b"fine")
        await until(lambda: len(ends.log) == 2)
    assert [entry.status for entry in ends.log] == [413, 200]


@everywhere
async def test_a_reset_by_the_application_reaches_the_client(version, kind):
    async def answer(app, request):
        if request.path == b"/reset":
            await request.begin()
            await request.send(b"half")
            await app.go.wait()
            request.reset()
        else:
            await request.respond(200, [], b"fine")

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(b"/reset", end_stream=True)
        assert (await stream.response()).status == 200
        assert await stream.read(4) == b"half"
        app.go.set()
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        assert caught.value.remote
        assert (await ends.fetch())[:2] == (200, b"fine")
        await until(lambda: len(ends.log) == 2)
    assert [(e.status, e.complete) for e in ends.log] == [(200, False), (200, True)]
    assert ends.log[0].error_code != 0


@pytest.mark.parametrize("begun", [False, True])
@everywhere
async def test_a_reset_by_the_client_cancels_the_application(version, kind, begun):
    async def answer(app, request):
        if request.path == b"/other":
            await request.respond(200, [], b"fine")
            return
        if begun:
            await request.begin()
            await request.send(b"half")
        await app.go.wait()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        if begun:
            assert await stream.read(4) == b"half"
        await until(lambda: app.begun == 1)
        stream.reset()
        await until(lambda: app.cancelled == 1)
        assert (await ends.fetch(b"/other"))[:2] == (200, b"fine")
        await until(lambda: len(ends.log) == 2)
    first = ends.log[0]
    assert (first.status, first.complete) == (200 if begun else None, False)


@everywhere
async def test_a_reader_learns_that_its_request_broke_off(version, kind):
    async def answer(app, request):
        try:
            await request.read()
        except (StreamResetError, asyncio.CancelledError, Exception) as error:
            app.seen.append(error)
            raise

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        await stream.send_data(b"half")
        await until(lambda: app.begun == 1)
        stream.reset()
        await until(lambda: app.seen)
        await until(lambda: len(ends.log) == 1)
    assert not ends.log[0].complete


@everywhere
async def test_an_exception_before_the_response_is_answered_with_500(version, kind):
    async def answer(app, request):
        if request.path == b"/returns":
            return
        raise ValueError("a mistake")

    async with exchanging(version, kind, answer) as (_, ends):
        for path in (b"/raises", b"/returns"):
            status, body, _ = await ends.fetch(path)
            assert status == 500
            assert body == b"500 Internal Server Error\n"
        assert await ends.fetch(method=b"HEAD") == (500, b"", [])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("the database is down"),
        ConnectionTerminatedError(0, remote=True),
        StreamResetError(3, 8, remote=True),
    ],
)
@everywhere
async def test_what_another_connection_raises_is_a_failure(
    version, kind, error, caplog
):
    """Of a database, or of the client in a proxy: the request itself is open."""

    async def answer(app, request):
        raise error

    async with exchanging(version, kind, answer) as (_, ends):
        assert (await ends.fetch())[0] == 500
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert record.exc_info[1] is error


@everywhere
async def test_an_exception_amid_the_response_resets_it(version, kind):
    async def answer(app, request):
        await request.begin()
        await request.send(b"half")
        await app.go.wait()
        raise ValueError("a mistake")

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        assert await stream.read(4) == b"half"
        app.go.set()
        with pytest.raises(StreamResetError, match="INTERNAL_ERROR"):
            await stream.read()


@pytest.mark.parametrize("asynchronous", [False, True])
@everywhere
async def test_a_source_that_fails_resets_its_response(version, kind, asynchronous):
    def fails():
        yield bytes(100_000)
        raise ValueError("a mistake")

    async def fails_later():
        for piece in fails():
            yield piece

    async def answer(app, request):
        body = fails_later() if asynchronous else fails()
        await request.respond(200, [], body)

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(end_stream=True)
        with pytest.raises(StreamResetError, match="INTERNAL_ERROR"):
            await stream.response()
            await stream.read()
        await until(lambda: len(ends.log) == 1)
    assert not ends.log[0].complete


# ---- Back-pressure ----


@everywhere
async def test_a_request_that_is_not_read_holds_its_client_back(version, kind):
    data = pattern(8_000_000)

    async def answer(app, request):
        await app.go.wait()
        app.seen.append(await request.read())
        await request.respond()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        upload = Upload(stream, data)
        assert 0 < await upload.stops() < 4_000_000
        app.go.set()
        assert (await ends.take(stream))[0] == 200
        await upload.task
    assert app.seen == [data]


@pytest.mark.parametrize("way", ["sent in pieces", "a source"])
@everywhere
async def test_a_client_that_does_not_read_holds_the_response_back(version, kind, way):
    data = pattern(8_000_000)
    taken = 0

    def pieces():
        nonlocal taken
        for piece in cut(data, 10_000):
            taken += len(piece)
            yield piece

    async def answer(app, request):
        if way == "a source":
            await request.respond(200, [], pieces())
            return
        await request.begin()
        for piece in pieces():
            await request.send(piece)
        await request.end()

    async with exchanging(version, kind, answer) as (_, ends):
        stream = await ends.open(end_stream=True)
        await settled(lambda: taken)
        assert 0 < taken < 4_000_000
        assert (await ends.take(stream))[1] == data


# ---- The server's end ----


@everywhere
async def test_a_graceful_close_delivers_what_was_accepted(version, kind):
    data = pattern(500_000)

    async def answer(app, request):
        await app.go.wait()
        await request.respond(200, [], io.BytesIO(data))

    async with exchanging(version, kind, answer) as (app, ends):
        streams = [await ends.open(end_stream=True) for _ in range(10)]
        await until(lambda: app.begun == 10)
        closing = asyncio.create_task(ends.shut_down(20))
        taking = asyncio.gather(*map(ends.take, streams))
        app.go.set()
        assert await taking == [(200, data, [])] * 10
        await closing
        await until(lambda: len(ends.log) == 10)
    assert all(entry.complete for entry in ends.log)


@everywhere
async def test_a_close_breaks_off_what_does_not_end_in_time(version, kind):
    async def answer(app, request):
        await request.begin()
        await request.send(b"half")
        await app.go.wait()

    async with exchanging(version, kind, answer) as (app, ends):
        stream = await ends.open(end_stream=True)
        assert await stream.read(4) == b"half"
        await ends.shut_down(0.1)
        assert app.cancelled == app.ended == 1
        with pytest.raises((StreamResetError, ConnectionTerminatedError)):
            await stream.read()
        await until(lambda: len(ends.log) == 1)
    assert (ends.log[0].status, ends.log[0].complete) == (200, False)


@everywhere
async def test_an_abort_ends_every_wait(version, kind):
    async def answer(app, request):
        await app.go.wait()

    async with exchanging(version, kind, answer) as (app, ends):
        streams = [await ends.open(end_stream=True) for _ in range(3)]
        await until(lambda: app.begun == 3)
        ends.abort()
        for stream in streams:
            with pytest.raises((StreamResetError, ConnectionTerminatedError)):
                await stream.response()
        await until(lambda: app.cancelled == 3 and len(ends.log) == 3)
    assert not any(entry.complete for entry in ends.log)


# ---- The access log ----


@everywhere
async def test_each_exchange_is_logged_once(version, kind):
    async def answer(app, request):
        await request.respond(201, [], b"four")

    async with exchanging(version, kind, answer) as (_, ends):
        for _ in range(3):
            await ends.fetch(b"/path?query", b"POST", body=b"x")
        await until(lambda: len(ends.log) == 3)
    for entry in ends.log:
        assert entry.protocol == version
        assert entry.address[0] == "127.0.0.1"
        assert (entry.method, entry.target) == (b"POST", b"/path?query")
        assert (entry.status, entry.bytes_sent) == (201, 4)
        assert (entry.error_code, entry.complete) == (0, True)


@both_kinds
@in_loop
async def test_a_body_that_breaks_off_after_the_response_is_not_whole(kind):
    async def answer(app, request):
        app.seen.append(await request.read(4))
        await request.respond(200, body=b"early")
        await app.go.wait()
        try:
            app.seen.append(await request.read())
        except (asyncio.CancelledError, StreamClosedError, StreamResetError):
            app.seen.append("broke off")
            raise

    async with exchanging("HTTP/3", kind, answer) as (app, ends):
        stream = await ends.open(method=b"POST")
        await stream.send_data(b"part")
        assert (await stream.response()).status == 200
        ends.client._quic.reset_stream(stream.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        await ends.client.ping()  # the reset has come
        app.go.set()
        await until(lambda: app.ended)
        assert app.seen == [b"part", "broke off"]
