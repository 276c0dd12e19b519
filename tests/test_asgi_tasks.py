"""The task that an ASGI application runs in, which may have run others before."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import weakref

import anyio
import pytest
from asgi_servers import body, everywhere, serving, start, versions
from loops import in_loop, pause, until

from nghttp2py.asgi import ASGIApp, ASGIOptions

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def answer(send, text=b"ok"):
    await send(start())
    await send(body(text))


async def ask(peer, number, *, together=False):
    """Make so many requests, one after the other or in one turn of the loop."""
    if together:
        return await asyncio.gather(*(peer.fetch() for _ in range(number)))
    return [await peer.fetch() for _ in range(number)]


together = pytest.mark.parametrize("together", [False, True])


@together
@everywhere
async def test_the_current_task_stays_the_same_when_it_waits(version, together):
    seen = []

    async def app(scope, receive, send):
        task = asyncio.current_task()
        seen.append(task)
        for wait in (asyncio.sleep(0), pause(), receive()):
            await wait
            assert asyncio.current_task() is task
        await answer(send)

    async with serving(version, app) as peer:
        assert [r.body for r in await ask(peer, 4, together=together)] == [b"ok"] * 4
    assert len(set(map(id, seen))) == 4
    assert all(isinstance(task, asyncio.Task) for task in seen)
    await until(lambda: all(task.done() and not task.cancelled() for task in seen))


def keep(task, kept):
    kept.append(task)


def keep_weakly(task, kept):
    kept.append(weakref.ref(task, lambda _: None))


def add_callback(task, kept):
    task.add_done_callback(lambda _: kept.append(1))


def keep_in_attribute(task, kept):
    if not hasattr(task, "mark"):
        task.mark = True
        kept.append(1)


def set_name(task, kept):
    if task.get_name() == "ASGI":
        task.set_name("mine")
        kept.append(1)


def set_variable(task, kept):
    if VARIABLE.get("") != "set":
        VARIABLE.set("set")
        kept.append(1)


def cancel(task, kept):
    if not task.cancelling():
        task.cancel()
        kept.append(1)


NOTICED = [keep, keep_weakly, add_callback, keep_in_attribute, set_name, set_variable]
if sys.version_info >= (3, 11):
    NOTICED.append(cancel)


@together
@pytest.mark.parametrize("notice", NOTICED, ids=lambda f: f.__name__)
@everywhere
async def test_no_request_sees_what_another_did_with_its_task(
    version, notice, together
):
    kept = []

    async def app(scope, receive, send):
        await answer(send)
        notice(asyncio.current_task(), kept)

    async with serving(version, app) as peer:
        await ask(peer, 3, together=together)
        await until(lambda: len(kept) == 3)
        if notice is keep:
            assert len(set(map(id, kept))) == 3
            await until(lambda: all(task.done() for task in kept))


@versions
@in_loop
async def test_a_variable_that_is_reset_has_its_value_again(version):
    seen = []

    async def app(scope, receive, send):
        token = VARIABLE.set("inner")
        seen.append(VARIABLE.get())
        VARIABLE.reset(token)
        seen.append(VARIABLE.get())
        await answer(send)

    context = contextvars.copy_context()
    context.run(VARIABLE.set, "outer")
    asgi = ASGIApp(app, ASGIOptions(context=context))
    async with serving(version, asgi) as peer:
        await ask(peer, 3)
        assert seen == ["inner", "outer"] * 3
        context.run(VARIABLE.set, "changed")
        await ask(peer, 1)
        assert seen[-1] == "changed"


@everywhere
async def test_variables_that_cannot_be_compared_are_of_one_request(version):
    class Odd:
        def __eq__(self, other):
            raise ValueError("it has no truth")

        __hash__ = None

    seen = []
    context = contextvars.copy_context()
    context.run(VARIABLE.set, Odd())

    async def app(scope, receive, send):
        seen.append(VARIABLE.get())
        VARIABLE.set(Odd())
        await answer(send)

    async with serving(version, ASGIApp(app, ASGIOptions(context=context))) as peer:
        assert (await ask(peer, 3))[2].body == b"ok"
    assert seen[0] is seen[1] is seen[2]


@everywhere
async def test_a_variable_that_is_set_to_an_equal_value_is_of_one_request(version):
    first = []
    seen = []
    context = contextvars.copy_context()
    context.run(VARIABLE.set, first)

    async def app(scope, receive, send):
        seen.append(VARIABLE.get())
        VARIABLE.set([])
        await answer(send)

    async with serving(version, ASGIApp(app, ASGIOptions(context=context))) as peer:
        await ask(peer, 3)
    assert all(value is first for value in seen)


@everywhere
async def test_a_task_that_cancels_itself_is_cancelled_where_it_waits(version):
    seen = []

    async def app(scope, receive, send):
        await answer(send)
        future = asyncio.get_running_loop().create_future()
        asyncio.current_task().cancel("enough")
        try:
            await future
        except asyncio.CancelledError as error:
            seen.append((future.cancelled(), str(error)))
            raise

    async with serving(version, app) as peer:
        await ask(peer, 3)
        await until(lambda: len(seen) == 3)
        # CPython 3.10 gives the message as another exception's.
        assert [cancelled for cancelled, _ in seen] == [True] * 3


@everywhere
async def test_a_task_may_be_cancelled_before_the_loop_has_begun_it(version):
    seen = []

    async def app(scope, receive, send):
        task = asyncio.current_task()
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(task)
        await answer(send, b"late")

    async with serving(version, app) as peer:
        assert [r.body for r in await ask(peer, 3)] == [b"late"] * 3
    assert len(seen) == 3


if sys.version_info >= (3, 11):

    @everywhere
    async def test_what_asyncio_builds_on_the_current_task_works(version):
        async def app(scope, receive, send):
            async def double(n):
                await asyncio.sleep(0)
                return 2 * n

            async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
                tasks = [group.create_task(double(n)) for n in range(3)]
            message = await asyncio.wait_for(receive(), 3600)
            assert message["type"] == "http.request"
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                await answer(send, b"%d" % sum(task.result() for task in tasks))

        async with serving(version, app) as peer:
            assert [r.body for r in await ask(peer, 3)] == [b"6"] * 3


@everywhere
async def test_what_anyio_builds_on_the_current_task_works(version):
    async def app(scope, receive, send):
        async def nothing():
            await anyio.lowlevel.checkpoint()

        with anyio.move_on_after(0.001) as moved:
            await anyio.sleep_forever()
        with anyio.CancelScope():
            pass
        async with anyio.create_task_group() as group:
            group.start_soon(nothing)
        text = await anyio.to_thread.run_sync(lambda: b"thread")
        await answer(send, text if moved.cancelled_caught else b"")

    async with serving(version, app) as peer:
        assert [r.body for r in await ask(peer, 3)] == [b"thread"] * 3


@everywhere
async def test_an_exception_of_one_leaves_the_next_one_alone(version, caplog):
    count = 0

    async def app(scope, receive, send):
        nonlocal count
        count += 1
        if count == 1:
            raise ValueError("the first")
        if count == 2:
            raise asyncio.CancelledError
        await answer(send)

    async with serving(version, app) as peer:
        found = await ask(peer, 4)
        assert [r.status for r in found] == [500, 500, 200, 200]
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ValueError]


@everywhere
async def test_no_task_is_left_when_the_connections_have_ended(version):
    async def app(scope, receive, send):
        await answer(send)

    before = asyncio.all_tasks()
    async with serving(version, app) as peer:
        await ask(peer, 3)
    await until(lambda: asyncio.all_tasks() == before)


@everywhere
async def test_several_requests_and_other_tasks_wait_for_the_same_future(version):
    shared = asyncio.get_running_loop().create_future()
    waiting = []

    async def other():
        return await shared

    async def app(scope, receive, send):
        waiting.append(asyncio.ensure_future(other()))
        if len(waiting) == 4:
            asyncio.get_running_loop().call_later(0.01, shared.set_result, b"shared")
        await answer(send, await shared)

    async with serving(version, app) as peer:
        found = await ask(peer, 4, together=True)
        assert [r.body for r in found] == [b"shared"] * 4
        assert await asyncio.gather(*waiting) == [b"shared"] * 4


@everywhere
async def test_a_future_that_is_yielded_but_not_awaited_is_an_error(version):
    class Wrong:
        def __await__(self):
            yield asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        with pytest.raises(RuntimeError, match="yield was used instead"):
            await Wrong()
        await answer(send)

    async with serving(version, app) as peer:
        assert [r.body for r in await ask(peer, 2)] == [b"ok"] * 2
