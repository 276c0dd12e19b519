"""Waiting with a timeout: cancelled waiters end, and results are reported."""

import asyncio

import pytest
from loops import DEADLINE, in_loops

from nghttp2py.asyncio.waiters import wait_for


@pytest.mark.parametrize("turns", range(4))
@in_loops
async def test_a_cancellation_is_not_lost_when_the_wait_ends(turns):
    future = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(wait_for(future, DEADLINE))
    await asyncio.sleep(0)
    future.set_result(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_over = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is not was_over


@in_loops
async def test_who_waits_gets_the_result_or_the_exception():
    async def fail():
        raise KeyError("this")

    assert await wait_for(asyncio.sleep(0, "that"), None) == "that"
    with pytest.raises(KeyError, match="this"):
        await wait_for(fail(), DEADLINE)


@in_loops
async def test_what_takes_too_long_is_cancelled():
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(asyncio.TimeoutError):
        await wait_for(future, 0.001)
    assert future.cancelled()


@pytest.mark.parametrize("timeout", [0.001, DEADLINE])
@in_loops
async def test_what_comes_of_being_cancelled_is_told(timeout):
    waiting = asyncio.Event()

    async def insist():
        try:
            waiting.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "done"

    task = asyncio.ensure_future(wait_for(insist(), timeout))
    await waiting.wait()
    if timeout == DEADLINE:
        task.cancel()
    assert await task == "done"


@in_loops
async def test_who_is_cancelled_takes_what_he_waited_for_with_him():
    future = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(wait_for(future, DEADLINE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and future.cancelled()
