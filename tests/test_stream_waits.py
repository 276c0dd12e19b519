"""How tasks wait for streams: awaitables, cancellation, and the time of a request."""

import asyncio
import gc
import warnings

import pytest
from loops import in_loop, in_loops, in_virtual_time, until
from virtual_time import pass_time

from nghttp2py.asyncio.deadlines import Deadline, Deadlines
from nghttp2py.errors import ErrorCode, ReadTimeoutError

VERSIONS = pytest.mark.parametrize("http3", [False, "only"], ids=["HTTP/2", "HTTP/3"])


class Gate:
    """Answers when it is opened."""

    def __init__(self):
        self.opened = asyncio.Event()
        self.requests = 0

    async def __call__(self, stream):
        self.requests += 1
        await self.opened.wait()
        await stream.send_response(200, body=b"body")


async def open_stream(client):
    """Return a stream of a client's connection."""
    await (await client.get("/")).read()
    return await client.connections.current.open_stream(
        client._make_fields("GET", "/", (), None), end_stream=True
    )


# ---- Awaitables ----


@VERSIONS
@in_loops
async def test_the_calls_of_a_stream_are_awaited_in_each_way_of_asyncio(http3, serving):
    async def answer(stream):
        await stream.send_response(200, body=b"body")

    async with serving(answer, http3) as client:
        streams = [await open_stream(client) for _ in range(4)]
        first = asyncio.create_task(streams[0].response())
        heads = [
            await first,
            *await asyncio.gather(streams[1].response(), streams[1].response()),
            await asyncio.wait_for(streams[2].response(), 20),
            await asyncio.shield(streams[3].response()),
        ]
        assert [head.status for head in heads] == [200] * 5
        assert [await asyncio.wait_for(s.read(), 20) for s in streams] == [b"body"] * 4
        assert await streams[0].read() == b""


@VERSIONS
@in_loops
async def test_tasks_that_wait_for_one_response_all_get_it(http3, serving):
    gate = Gate()
    gate.opened.set()
    async with serving(gate, http3) as client:
        await (await client.get("/")).read()
        gate.opened.clear()
        stream = await client.connections.current.open_stream(
            client._make_fields("GET", "/", (), None), end_stream=True
        )
        tasks = [asyncio.create_task(stream.response()) for _ in range(3)]
        tasks.append(asyncio.create_task(stream.read()))
        await until(lambda: len(stream._waiting or ()) == 4)
        tasks[1].cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert tasks[1].cancelled() and len(stream._waiting) == 3
        gate.opened.set()
        first, last, body = await asyncio.gather(tasks[0], tasks[2], tasks[3])
        assert first is last and body == b"body"
        assert not client.connections.current._link.waiting


@in_loop
async def test_a_call_is_awaited_once(serving):
    async def answer(stream):
        await stream.send_response(200, body=b"body")

    async with serving(answer, False) as client:
        stream = await open_stream(client)
        call = stream.response()
        assert (await call).status == 200
        with pytest.raises(RuntimeError, match="second time"):
            await call


@pytest.mark.parametrize("name", ["response", "read"])
@VERSIONS
@in_loops
async def test_a_second_task_that_awaits_a_call_leaves_the_first_one_alone(
    http3, name, serving
):
    gate = Gate()
    gate.opened.set()
    async with serving(gate, http3) as client:
        await (await client.get("/")).read()
        gate.opened.clear()
        stream = await client.connections.current.open_stream(
            client._make_fields("GET", "/", (), None), end_stream=True
        )
        call = getattr(stream, name)()

        async def await_it():
            return await call

        first = asyncio.create_task(await_it())
        await until(lambda: stream._waiting)
        with pytest.raises(RuntimeError, match="second time"):
            await await_it()
        gate.opened.set()
        result = await first
        assert (result if name == "read" else await stream.read()) == b"body"


@in_loop
async def test_a_call_that_is_never_awaited_is_warned_of(serving):
    async def answer(stream):
        await stream.send_response(200, body=b"body")

    async with serving(answer, False) as client:
        stream = await open_stream(client)
        with pytest.warns(RuntimeWarning, match="'read\\(\\)' was never awaited"):
            stream.read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert await stream.read() == b"body"


# ---- Cancellation ----


@VERSIONS
@in_loops
async def test_a_request_that_is_cancelled_while_its_response_comes_leaves_no_stream(
    http3, serving
):
    gate = Gate()
    gate.opened.set()
    async with serving(gate, http3) as client:
        await (await client.get("/")).read()
        connection = client.connections.current
        gate.opened.clear()
        tasks = [asyncio.create_task(client.get("/")) for _ in range(20)]
        await until(lambda: gate.requests == 21)
        gate.opened.set()

        async def cancel_one():
            # Beside the first response that comes, whose own task it may be.
            await tasks[0]
            for task in tasks[1::2]:
                task.cancel()

        await cancel_one()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for result in done:
            if not isinstance(result, asyncio.CancelledError):
                assert await result.read() == b"body"
        await until(lambda: not connection.stream_count)
        assert not connection._link.waiting


@VERSIONS
@in_loops
async def test_a_task_that_is_cancelled_twice_ends_once(http3, serving):
    gate = Gate()
    async with serving(gate, http3) as client:
        task = asyncio.create_task(client.get("/"))
        await until(lambda: gate.requests)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        connection = client.connections.current
        await until(lambda: not connection.stream_count)
        gate.opened.set()
        assert await (await client.get("/")).read() == b"body"


# ---- The time of a request ----


@in_virtual_time
async def test_a_request_that_is_sent_again_has_the_time_of_the_first(serving):
    requests = []

    async def app(stream):
        requests.append(stream)
        await pass_time(6 if len(requests) == 1 else 100)
        stream.reset(ErrorCode.REFUSED_STREAM)

    async with serving(app, False, timeout=10) as client:
        now = asyncio.get_running_loop().time
        begun = now()
        with pytest.raises(ReadTimeoutError, match="no response in 10 seconds"):
            await client.get("/")
        assert len(requests) == 2
        assert 10 <= now() - begun < 15


@in_virtual_time
async def test_informational_responses_give_a_response_no_more_time(serving):
    async def app(stream):
        while not stream.closed:
            await pass_time(1)
            await stream.send_informational(102)

    async with serving(app, False, timeout=10) as client:
        now = asyncio.get_running_loop().time
        begun = now()
        with pytest.raises(ReadTimeoutError):
            await client.get("/")
        assert 10 <= now() - begun < 15


class Named(Deadline):
    def __init__(self, name, log):
        self.name = name
        self.log = log

    def _expire(self):
        self.log.append(self.name)


class FakeLoop:
    """Keeps timers, which a test runs."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, function):
        self.timers.append(Timer(self, when, function))
        return self.timers[-1]

    def run_until(self, now):
        while self.timers and min(t.when for t in self.timers) <= now:
            timer = min(self.timers, key=lambda t: t.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.function()
        self.now = now


class Timer:
    def __init__(self, loop, when, function):
        self.loop, self.when, self.function = loop, when, function

    def cancel(self):
        if self in self.loop.timers:
            self.loop.timers.remove(self)


def test_deadlines_expire_in_their_order_by_one_timer():
    loop, log = FakeLoop(), []
    deadlines = Deadlines(10, loop)
    items = [Named(name, log) for name in "abcd"]
    for item in items:
        deadlines.add(item)
        loop.now += 1
    assert len(loop.timers) == 1
    deadlines.discard(items[1])
    deadlines.discard(items[1])
    loop.run_until(112)
    assert log == ["a", "c"] and len(loop.timers) == 1
    loop.run_until(200)
    assert log == ["a", "c", "d"] and not loop.timers


def test_an_earlier_deadline_is_not_late():
    loop, log = FakeLoop(), []
    deadlines = Deadlines(10, loop)
    first, last = Named("first", log), Named("last", log)
    deadlines.add(last)
    deadlines.add(first, 103)
    loop.run_until(103)
    assert log == ["first"]
    # What is added again is moved.
    loop.run_until(105)
    deadlines.add(last)
    loop.run_until(114)
    assert log == ["first"]
    loop.run_until(115)
    assert log == ["first", "last"]


def test_what_is_freed_does_not_expire():
    loop, log = FakeLoop(), []
    deadlines = Deadlines(10, loop)
    kept = [Named(i, log) for i in range(3)]
    dropped = [Named(f"dropped {i}", log) for i in range(3)]
    for pair in zip(kept, dropped, strict=True):
        for item in pair:
            deadlines.add(item)
    del pair, item, dropped
    gc.collect()
    loop.run_until(200)
    assert log == [0, 1, 2]


def test_deadlines_that_are_closed_have_no_timer():
    loop, log = FakeLoop(), []
    deadlines = Deadlines(10, loop)
    item = Named("a", log)
    deadlines.add(item)
    deadlines.close()
    deadlines.close()
    assert not loop.timers
    del deadlines
    gc.collect()
    loop.run_until(200)
    assert not log and item.due == 110
