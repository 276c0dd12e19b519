"""The event loop of code that no event loop runs yet."""

from __future__ import annotations

import asyncio
import importlib.util
import sys

# Documented for other classes of tasks ("Extending", of asyncio's reference).
from asyncio.tasks import _unregister_task
from collections.abc import Coroutine
from typing import Any, TypeVar

from nghttp2py.errors import ConfigurationError

__all__ = [
    "LOOPS",
    "drop_tasks",
    "get_current_loop",
    "is_loop_running",
    "run",
    "run_in",
]

#: The names that ``run_in`` takes.
LOOPS = ("auto", "asyncio", "uvloop")

T = TypeVar("T")


def get_current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the thread's current event loop, if one is set that can be run.

    Programs set one by ``asyncio.set_event_loop``, or by ``asyncio.get_event_loop``
    where Python still makes one.  A running or closed loop is not returned, and no loop
    is made.
    """
    loop: asyncio.AbstractEventLoop | None
    if sys.version_info >= (3, 14):
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:
            return None
    else:
        # get_event_loop() would make one where none is set.
        local = getattr(asyncio.get_event_loop_policy(), "_local", None)
        current: asyncio.AbstractEventLoop | None = getattr(local, "_loop", None)
        loop = current
    if loop is None or loop.is_closed() or loop.is_running():
        return None
    return loop


def is_loop_running() -> bool:
    """Return whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in a new event loop, uvloop's if that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    result: T = uvloop.run(main)
    return result


def run_in(main: Coroutine[Any, Any, T], loop: str) -> T:
    """Run ``main`` in a new event loop of ``LOOPS``; "auto" is that of ``run``.

    Raises ``ConfigurationError`` if uvloop is to be used and not installed.
    """
    if loop == "asyncio":
        return asyncio.run(main)
    if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        main.close()
        raise ConfigurationError(
            "loop uvloop needs the uvloop package: pip install 'nghttp2py[speed]'"
        )
    return run(main)


async def drop_tasks(timeout: float) -> int:
    """Cancel all other tasks of the loop, and wait for them, at most ``timeout`` s.

    Those that go on are not waited for when ``run`` ends: asyncio would wait for ever
    for a task that does not let itself be cancelled.  Return their number.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return 0
    _, left = await asyncio.wait(others, timeout=timeout)
    for task in left:
        _unregister_task(task)
    return len(left)
