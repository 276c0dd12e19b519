"""Event loops for tests: a test runs in one, or in each kind, with a deadline."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from virtual_time import VirtualTime

#: Seconds after which something that should happen has not, and those after which
#: a test should be over: other programs may have the machine meanwhile.
DEADLINE = 20
TEST_DEADLINE = 60

Test = Callable[..., Coroutine[Any, Any, None]]


class Counting:
    """A loop that counts what it is given to call, so that ``idle`` can tell."""

    given = 0

    def call_soon(self, callback, *args, context=None):
        self.given += 1
        return super().call_soon(callback, *args, context=context)


class Asyncio(Counting, asyncio.SelectorEventLoop):
    """asyncio's loop."""


class Uvloop(Counting, uvloop.Loop):
    """uvloop's."""


class Virtual(Counting, VirtualTime):
    """A loop whose clock jumps to the next timer."""


LOOPS = {"asyncio": Asyncio, "uvloop": Uvloop}


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    """Run a test; fail after the deadline, even if it bears being cancelled."""
    task = asyncio.ensure_future(test)
    await asyncio.wait([task], timeout=TEST_DEADLINE)
    in_time = task.done()
    if not in_time:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
    assert in_time, f"the test takes more than {TEST_DEADLINE} seconds"
    task.result()


def in_loop(test: Test) -> Callable[..., None]:
    """Make a test of a coroutine function: it runs in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(_bounded(test(*args, **kwargs)))

    return run


def _run(made: asyncio.AbstractEventLoop, test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop, in debug mode, and close the loop.

    It fails if the loop has something to complain about, or a task is left.
    """
    complaints: list[Any] = []

    async def bounded() -> None:
        made.set_exception_handler(lambda _, context: complaints.append(context))
        # A loop with a virtual clock has a deadline of its own.
        await (test if isinstance(made, VirtualTime) else _bounded(test))
        # What has ended may need a turn to be gone.
        await until(lambda: len(asyncio.all_tasks()) == 1)
        gc.collect(1)  # what is young: it is all the test has made

    made.set_debug(True)
    made.slow_callback_duration = 5
    # A test that fails may leave a server, with which uvloop cannot close.
    passed = False
    try:
        made.run_until_complete(bounded())
        made.run_until_complete(made.shutdown_asyncgens())
        made.run_until_complete(made.shutdown_default_executor())
        passed = True
    finally:
        if not passed and isinstance(made, VirtualTime):
            made.cancel_tasks()
        if passed or not isinstance(made, Uvloop):
            made.close()
    assert not complaints, complaints


def in_loops(test: Test) -> Callable[..., None]:
    """Run a test in each kind of event loop, in debug mode.

    It fails if the loop has something to complain about, or a task is left.
    """

    def run(loop: str, **arguments: Any) -> None:
        _run(LOOPS[loop](), test(**arguments))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__dict__.update(
        vars(test),  # its marks
        __signature__=signature.replace(
            parameters=[loop, *signature.parameters.values()]
        ),
    )
    return pytest.mark.parametrize("loop", list(LOOPS))(run)


def in_virtual_time(test: Test) -> Callable[..., None]:
    """Run a test in a loop whose clock jumps to the next timer, in debug mode.

    It fails as with ``in_loops``.  ``until`` takes no time there: the condition is
    looked at before each jump; ``pass_time`` lets the clock move on.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        _run(Virtual(), test(*args, **kwargs))

    return run


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until ``condition()`` holds; fail after the deadline."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTime):
        await loop.until(condition)
        return
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, "it did not happen"
        await asyncio.sleep(0.001)


async def pause() -> None:
    """Let a moment pass: a second of virtual time, or a hundredth of a real one."""
    virtual = isinstance(asyncio.get_running_loop(), VirtualTime)
    await asyncio.sleep(1 if virtual else 0.01)


def stand_still(seconds: float) -> None:
    """Keep the loop from turning, as a handler that computes does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def idle() -> None:
    """Let the loop turn until it has nothing to call: what could happen has.

    This is for connections in memory, in a loop of ``in_loops``.  What a timer, a
    socket or a thread will set going may yet come.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Counting)
    end = loop.time() + DEADLINE
    while True:
        given = loop.given
        await asyncio.sleep(0)
        if loop.given == given + 1:  # our own turn
            return
        assert loop.time() < end, "it does not come to rest"
