"""How exchanges with an ASGI application end, and what bounds them (ASGI HTTP 2.5)."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging

import anyio
import pytest
from asgi_servers import body, everywhere, hello, read_all, serving, start
from exchanges import settled
from loops import in_loop, pause, until

from nghttp2py.asgi import ASGIApp, ASGIOptions
from nghttp2py.errors import ClientDisconnectedError

# How the client of each version reports a response that was cut.
BROKEN = r"INTERNAL_ERROR|CANCEL|peer closed|reset|ConnectionClosed"


def errors_of(caplog):
    return [r for r in caplog.records if r.levelno >= logging.WARNING]


# ---- The client goes away ----


@pytest.mark.parametrize("how", ["reset", "vanish"])
@everywhere
async def test_send_after_a_disconnect_raises_an_oserror(version, how, caplog):
    seen = []
    begun = asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"x", True))
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        for _ in range(2):
            try:
                await send(body(b"y", True))
            except OSError as error:
                seen.append(error)
        await send(body(b"z"))

    async with serving(version, app) as peer:
        stream = await peer.open()
        await begun.wait()
        if how == "reset":
            stream.reset()
        else:
            await peer.vanish()
        await until(lambda: len(seen) == 2 and not peer.app.task_count)
        assert {type(error) for error in seen} == {ClientDisconnectedError}
    # The third came out of the application.
    assert not errors_of(caplog)


@pytest.mark.parametrize("length", [1, 2])
@everywhere
async def test_a_response_with_all_that_was_announced_is_complete(version, length):
    """A client may close as soon as it has that, before the application returns."""
    begun = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send(start(headers=[(b"content-length", b"%d" % length)]))
        await send(body(b"x", True))
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(version, app) as peer:
        stream = await peer.open()
        await begun.wait()
        stream.reset()
        await until(lambda: peer.log)
        (exchange,) = peer.log
        assert exchange.bytes_sent == 1
        assert exchange.complete is (length == 1)
        assert bool(exchange.error_code) is not exchange.complete


@everywhere
async def test_spec_version_2_3_ignores_what_is_sent_to_nobody(version):
    scopes = []
    done = asyncio.Event()

    async def app(scope, receive, send):
        scopes.append(scope["asgi"]["spec_version"])
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await pause()  # longer than the grace would be
        await hello(scope, receive, send)
        done.set()

    options = {"spec_version": "2.3", "disconnect_grace": 0.001}
    async with serving(version, app, **options) as peer:
        stream = await peer.open()
        await until(lambda: scopes)
        stream.reset()
        await done.wait()
        assert scopes == ["2.3"]


@everywhere
async def test_the_application_is_cancelled_after_the_grace(version, caplog):
    """An idle stream of server-sent events must end."""
    seen = []
    begun = asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"x", True))
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(error)
            raise

    async with serving(version, app, disconnect_grace=0.05) as peer:
        stream = await peer.open()
        await begun.wait()
        stream.reset()
        await until(lambda: seen)
    assert not errors_of(caplog)


@everywhere
async def test_the_application_may_finish_within_the_grace(version):
    seen = []
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await receive()
        await receive()
        await pause()
        seen.append("cleaned up")

    async with serving(version, app) as peer:
        stream = await peer.open()
        await begun.wait()
        stream.reset()
        await until(lambda: seen)


@everywhere
async def test_a_task_whose_response_is_complete_is_never_cancelled(version):
    """Starlette runs background tasks after the response."""
    seen = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        await go.wait()
        seen.append("background")

    async with serving(version, app, disconnect_grace=0) as peer:
        await peer.fetch()
        await peer.vanish()
        await pause()
        assert peer.app.task_count == 1
        go.set()
        await until(lambda: seen)


@everywhere
async def test_a_send_that_waits_is_woken_by_the_disconnect(version):
    seen = []

    async def app(scope, receive, send):
        await send(start())
        try:
            while True:
                await send(body(bytes(65536), True))
                seen.append(65536)
        except OSError as error:
            seen.append(error)
            raise

    async with serving(version, app) as peer:
        stream = await peer.open()
        await stream.response()
        await settled(lambda: len(seen))
        stream.reset()
        await until(lambda: isinstance(seen[-1], OSError))


@everywhere
async def test_an_upload_that_breaks_off_is_a_disconnect(version):
    seen = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    async with serving(version, app) as peer:
        stream = await peer.open(method=b"POST", end=False)
        await stream.send_data(b"data")
        await until(lambda: seen)
        stream.reset()
        await until(lambda: seen[-1] == "http.disconnect")


# ---- Failures ----


@everywhere
async def test_an_exception_before_the_start_is_answered_with_500(version, caplog):
    async def app(scope, receive, send):
        raise ValueError("of the application")

    async with serving(version, app) as peer:
        response = await peer.fetch()
        assert response.status == 500
        assert response.value(b"content-length") == b"%d" % len(response.body)
        assert response.value(b"date")
        assert (await peer.fetch(method=b"HEAD")).body == b""
        assert (await peer.fetch(method=b"POST", body=b"x" * 100_000)).status == 500
    assert "of the application" in caplog.text
    assert "Exception in ASGI application: GET /" in caplog.text


@everywhere
async def test_a_return_before_the_start_is_answered_with_500(version, caplog):
    async def app(scope, receive, send):
        pass

    async with serving(version, app) as peer:
        assert (await peer.fetch()).status == 500
    assert "returned without a response" in caplog.text


@pytest.mark.parametrize("how", ["raises", "returns"])
@everywhere
async def test_a_response_without_an_end_never_looks_whole(version, how, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/whole":
            await hello(scope, receive, send)
            return
        await send(start())
        await send(body(b"a part", True))
        if how == "raises":
            raise ValueError("later")

    async with serving(version, app) as peer:
        other = await peer.open(b"/whole")
        stream = await peer.open()
        with pytest.raises(Exception, match=BROKEN):
            await peer.take(stream)
        assert (await peer.take(other)).body == b"hello"
        assert (await peer.fetch(b"/whole")).body == b"hello"
        await until(lambda: len(peer.log) == 3)
        assert sorted(exchange.complete for exchange in peer.log) == [False, True, True]
    assert errors_of(caplog)


# Over HTTP/3 the client may drop what it has received before a reset (RFC 9000, 3.2).
@pytest.mark.parametrize("how", ["raises", "returns"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@in_loop
async def test_what_was_sent_of_a_response_without_an_end_arrives(version, how):
    """Though all of it is sent in one turn of the loop."""

    async def app(scope, receive, send):
        await send(start(201))
        await send(body(b"a part", True))
        if how == "raises":
            raise ValueError("later")

    async with serving(version, app) as peer:
        stream = await peer.open()
        assert (await stream.response()).status == 201
        assert await stream.read(6) == b"a part"
        with pytest.raises(Exception, match=BROKEN):
            await stream.read()


@everywhere
async def test_an_exception_after_the_response_is_only_logged(version, caplog):
    async def app(scope, receive, send):
        await hello(scope, receive, send)
        raise ValueError("afterwards")

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"hello"
        await until(lambda: not peer.app.task_count)
    assert "afterwards" in caplog.text


@everywhere
async def test_an_application_that_returns_no_awaitable_is_answered_with_500(
    version, caplog
):
    def app(scope, receive, send):
        return None

    async with serving(version, app) as peer:
        assert (await peer.fetch()).status == 500
    assert "must return an awaitable" in caplog.text


@everywhere
async def test_an_application_may_be_a_class_with_await(version):
    class App:
        def __init__(self, scope, receive, send):
            self.send = send

        def __await__(self):
            return hello(None, None, self.send).__await__()

    async with serving(version, App) as peer:
        assert (await peer.fetch()).body == b"hello"


@everywhere
async def test_an_application_that_cancels_itself_is_answered_with_500(version):
    async def app(scope, receive, send):
        asyncio.current_task().cancel()
        await asyncio.Event().wait()

    async with serving(version, app) as peer:
        assert (await peer.fetch()).status == 500
        assert not peer.app.task_count


# ---- Flow control ----


@everywhere
async def test_credit_is_given_when_the_application_takes_the_body(version):
    go = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/held":
            await go.wait()
        data = await read_all(receive)
        await send(start())
        await send(body(b"%d" % len(data)))

    async with serving(version, app) as peer:
        stream = await peer.open(b"/held", method=b"POST", end=False)
        sent = 0

        async def upload():
            nonlocal sent
            for _ in range(160):
                await stream.send_data(bytes(65536))
                sent += 65536
            await stream.end_stream()

        task = asyncio.ensure_future(upload())
        await settled(lambda: sent)
        assert sent < 8_000_000
        # It holds up no other.
        response = await peer.fetch(method=b"POST", body=bytes(500_000))
        assert response.body == b"500000"
        go.set()
        await task
        assert (await peer.take(stream)).body == b"%d" % (160 * 65536)


@everywhere
async def test_a_response_waits_for_the_client_s_window(version):
    accepted = []

    async def app(scope, receive, send):
        await send(start())
        if scope["path"] == "/small":
            await send(body(b"small"))
            return
        for _ in range(200):
            await send(body(bytes(65536), True))
            accepted.append(65536)
        await send(body())

    async with serving(version, app) as peer:
        stream = await peer.open()
        await stream.response()
        await settled(lambda: len(accepted))
        assert sum(accepted) < 8_000_000
        assert (await peer.fetch(b"/small")).body == b"small"
        assert len(await stream.read()) == 200 * 65536


@everywhere
async def test_a_piece_of_any_size_is_accepted(version):
    async def app(scope, receive, send):
        await send(start())
        await send(body(bytes(100_000), True))
        await send(body(bytes(5_000_000), True))
        await send(body(bytes(3_000_000), True))
        await send(body(bytes(2_000_000)))

    async with serving(version, app) as peer:
        assert len((await peer.fetch()).body) == 10_100_000


@everywhere
async def test_the_last_piece_may_be_large_while_another_is_queued(version):
    async def app(scope, receive, send):
        await send(start())
        await send(body(bytes(100_000), True))
        await send(body(bytes(5_000_000)))

    async with serving(version, app) as peer:
        assert len((await peer.fetch()).body) == 5_100_000


@everywhere
async def test_a_send_that_is_cancelled_leaves_no_bound_behind(version):
    blocked, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        waiting = asyncio.ensure_future(send(body(bytes(5_000_000), True)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        blocked.set()
        await go_on.wait()
        await send(body(b"end"))

    async with serving(version, app, response_stall=0.01) as peer:
        stream = await peer.open()
        await stream.response()
        await blocked.wait()
        data = await stream.read(5_000_000)
        for _ in range(4):
            await pause()
        go_on.set()
        assert (data + await stream.read()).endswith(b"end")


@everywhere
async def test_a_client_that_takes_nothing_has_a_bound_in_time(version):
    seen = []

    async def app(scope, receive, send):
        await send(start())
        try:
            while True:
                await send(body(bytes(65536), True))
        except OSError as error:
            seen.append(error)

    async with serving(version, app, response_stall=0.1) as peer:
        stream = await peer.open()
        await stream.response()
        await until(lambda: seen)
        with pytest.raises(Exception, match=BROKEN):
            await stream.read()


@everywhere
async def test_an_early_response_is_whole_and_the_upload_stopped(version):
    async with serving(version, hello) as peer:
        stream = await peer.open(method=b"POST", end=False)
        await stream.send_data(b"a part")
        response = await peer.take(stream)
        assert (response.status, response.body) == (200, b"hello")
        assert (await peer.fetch()).body == b"hello"


@everywhere
async def test_an_upload_that_is_not_read_gets_its_response(version):
    async with serving(version, hello) as peer:
        response = await peer.fetch(method=b"POST", body=bytes(1_000_000))
        assert response.body == b"hello"
        assert (await peer.fetch()).body == b"hello"


# ---- Limits ----


@everywhere
async def test_more_requests_than_limit_concurrency_get_503(version):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await go.wait()
        await hello(scope, receive, send)

    async with serving(version, app, limit_concurrency=1) as peer:
        first = await peer.open()
        await until(lambda: peer.app.task_count == 1)
        response = await peer.fetch()
        assert response.status == 503
        go.set()
        assert (await peer.take(first)).status == 200
        await until(lambda: not peer.app.task_count)
        assert (await peer.fetch()).status == 200


@everywhere
async def test_a_larger_body_than_allowed_gets_413(version):
    seen = []

    async def app(scope, receive, send):
        seen.append("called")
        try:
            data = await read_all(receive)
        except AssertionError:
            seen.append("disconnected")
            raise ClientDisconnectedError("as the framework does") from None
        await send(start())
        await send(body(b"%d" % len(data)))

    async with serving(version, app, max_request_body_size=1000) as peer:
        declared = [(b"content-length", b"1001")]
        response = await peer.fetch(method=b"POST", headers=declared, body=bytes(1001))
        assert response.status == 413
        assert not seen
        assert (await peer.fetch(method=b"POST", body=bytes(1000))).body == b"1000"
        stream = await peer.open(method=b"POST", end=False)
        await stream.send_data(bytes(1001))
        assert (await peer.take(stream)).status == 413
        await until(lambda: seen == ["called", "called", "disconnected"])


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
@in_loop
async def test_a_length_may_have_thousands_of_zeros(version, caplog):
    """h11, the client of HTTP/1.1, sends twenty digits at most."""

    async def app(scope, receive, send):
        await send(start())
        await send(body(await read_all(receive)))

    async with serving(version, app, max_request_body_size=1000) as peer:
        headers = [(b"content-length", b"1".rjust(5000, b"0"))]
        response = await peer.fetch(method=b"POST", headers=headers, body=b"x")
        assert (response.status, response.body) == (200, b"x")
    assert not errors_of(caplog)


@everywhere
async def test_a_task_may_begin_where_it_is_made(version):
    """As with asyncio.eager_task_factory of CPython 3.12."""
    seen = []

    def eager(loop, coroutine, **options):
        async def go_on(future):
            while True:
                if future is not None:
                    future._asyncio_future_blocking = False
                    await future
                try:
                    future = coroutine.send(None)
                except StopIteration:
                    return

        try:
            future = coroutine.send(None)
        except StopIteration:
            task = loop.create_future()
            task.set_result(None)
            return task
        return asyncio.Task(go_on(future), loop=loop)

    async def app(scope, receive, send):
        seen.append(await read_all(receive))
        await send(start())
        await send(body(b"done"))

    async with serving(version, app) as peer:
        asyncio.get_running_loop().set_task_factory(eager)
        try:
            assert (await peer.fetch()).body == b"done"
            response = await peer.fetch(method=b"POST", body=bytes(70_000))
            assert response.body == b"done"
        finally:
            asyncio.get_running_loop().set_task_factory(None)
        assert seen == [b"", bytes(70_000)]
        await until(lambda: not peer.app.task_count)


@everywhere
async def test_the_health_check_does_not_call_the_application(version):
    async def app(scope, receive, send):
        raise AssertionError

    async with serving(version, app, health_check_path="/up") as peer:
        response = await peer.fetch(b"/up?x")
        assert (response.status, response.body) == (200, b"OK\n")


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
@in_loop
async def test_connect_is_not_for_the_application(version):
    async def app(scope, receive, send):
        raise AssertionError

    async with serving(version, app) as peer:
        stream = await peer.client.open_stream(
            [(b":method", b"CONNECT"), (b":authority", b"example.org:443")]
        )
        assert (await peer.take(stream)).status == 501


@everywhere
async def test_a_path_that_is_not_utf_8_gets_400(version):
    async def app(scope, receive, send):
        raise AssertionError

    async with serving(version, app) as peer:
        assert (await peer.fetch(b"/%ff")).status == 400


# ---- Tasks ----

VARIABLE = contextvars.ContextVar("VARIABLE", default=None)


@everywhere
async def test_requests_share_no_context_and_no_task(version):
    seen = []

    async def app(scope, receive, send):
        task = asyncio.current_task()
        assert VARIABLE.get() is None
        VARIABLE.set(scope["path"])
        await asyncio.sleep(0)
        assert VARIABLE.get() == scope["path"]
        assert asyncio.current_task() is task
        seen.append(task)
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        streams = [await peer.open(b"/%d" % i) for i in range(5)]
        for stream in streams:
            assert (await peer.take(stream)).status == 200
        assert len(set(seen)) == 5


@everywhere
async def test_a_task_shows_where_the_application_is(version):
    seen = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        seen.append(asyncio.current_task())
        await go.wait()
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        stream = await peer.open()
        await until(lambda: seen)
        (task,) = seen
        (frame, *_) = task.get_stack()
        assert frame.f_code.co_name == "app"
        assert inspect.getcoroutinestate(task.get_coro()) == "CORO_SUSPENDED"
        assert "app" in repr(task) or "Runner" in repr(task)
        go.set()
        assert (await peer.take(stream)).body == b"hello"


@everywhere
async def test_anyio_s_task_groups_and_cancel_scopes_work(version):
    seen = []

    async def app(scope, receive, send):
        message = await receive()
        with anyio.move_on_after(0.001) as scope_:
            await receive()
        seen.append(scope_.cancelled_caught)
        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            await receive()
        seen.append(cancelled.cancelled_caught)
        async with anyio.create_task_group() as group:
            group.start_soon(send, start())
        seen.append(message["type"])
        await send(body(b"done"))

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"done"
        assert seen == [True, True, "http.request"]


@everywhere
async def test_a_context_can_be_given(version):
    seen = []

    async def app(scope, receive, send):
        seen.append(VARIABLE.get())
        VARIABLE.set("of a request")
        await hello(scope, receive, send)

    context = contextvars.copy_context()
    context.run(VARIABLE.set, "of the lifespan")
    async with serving(version, app, context=context) as peer:
        await peer.fetch()
        await peer.fetch()
        assert seen == ["of the lifespan"] * 2


@everywhere
async def test_the_state_is_a_shallow_copy_for_each_request(version):
    shared = []
    seen = []

    async def app(scope, receive, send):
        seen.append("own" in scope["state"])
        scope["state"]["own"] = True
        scope["state"]["shared"].append(1)
        scope["asgi"]["own"] = True
        scope["extensions"]["own"] = {}
        scope["headers"].append((b"own", b""))
        await hello(scope, receive, send)

    state = {"shared": shared}
    async with serving(version, app, state=state) as peer:
        await peer.fetch()
        await peer.fetch()
        assert seen == [False, False]
        assert shared == [1, 1]
        assert state == {"shared": shared}


@in_loop
async def test_drain_waits_for_background_tasks():
    go = asyncio.Event()

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        await go.wait()

    async with serving("HTTP/2", app) as peer:
        await peer.fetch()
        assert not await peer.app.drain(0.01)
        drained = asyncio.ensure_future(peer.app.drain())
        await asyncio.sleep(0)
        go.set()
        assert await drained


@in_loop
async def test_a_server_that_closes_waits_for_background_tasks():
    go = asyncio.Event()
    seen = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        await go.wait()
        seen.append("done")

    async with serving("HTTP/2", app) as peer:
        await peer.fetch()
        peer.server.close(5)
        waiting = asyncio.ensure_future(peer.server.wait_closed())
        await pause()
        assert not waiting.done()
        go.set()
        await waiting
        assert seen


@in_loop
async def test_cancel_ends_the_tasks_at_the_server_s_end():
    seen = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    async with serving("HTTP/2", app) as peer:
        stream = await peer.open()
        await until(lambda: peer.app.task_count)
        peer.app.cancel()
        assert (await peer.take(stream)).status == 500
        assert seen


# ---- Options ----


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"spec_version": "3"}, "spec_version"),
        ({"disconnect_grace": -1}, "disconnect_grace"),
        ({"state": 1}, "state"),
        ({"root_path": b"/x"}, "root_path"),
        ({"root_path_mode": "append"}, "root_path_mode"),
        ({"server_header": None}, "server_header"),
        ({"date_header": 1}, "date_header"),
        ({"headers": [("a", "b")]}, "headers"),
        ({"limit_concurrency": 0}, "limit_concurrency"),
        ({"max_request_body_size": "1"}, "max_request_body_size"),
        ({"response_stall": 0}, "response_stall"),
        ({"health_check_path": b"/"}, "health_check_path"),
        ({"disabled_extensions": ["http.response.nothing"]}, "disabled_extensions"),
        ({"context": {}}, "context"),
    ],
)
def test_a_wrong_option_is_named(options, names):
    with pytest.raises((TypeError, ValueError), match=names):
        ASGIOptions(**options)


def test_the_options_of_an_app_are_asgi_options():
    with pytest.raises(TypeError, match="options must be an ASGIOptions"):
        ASGIApp(hello, {"root_path": "/"})
