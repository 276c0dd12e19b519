"""An event loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from nghttp2py.errors import ConnectionClosedError

__all__ = ["Errand", "LoopThread", "call_back"]

# Seconds that the end of a loop waits for its connections to be closed.
_CLOSING = 5.0

_CLOSED = "the transport is closed"

_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()
# The loops of a forked process's parent.  Both processes have their selectors: to close
# one here would remove the parent's sockets from it.
_inherited: list[object] = []

# The call from another thread in which the current task runs.
_current: contextvars.ContextVar[Errand] = contextvars.ContextVar("errand")


class LoopThread:
    """A thread that runs an event loop until ``end``, or until the interpreter exits.

    ``close`` is awaited at the end, for five seconds at most.
    """

    def __init__(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._ends = self._ended = False
        self._process = os.getpid()
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(
            target=self._run, name="nghttp2py.httpx", daemon=True
        )
        self._thread.start()
        _threads.add(self)

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked process, in which the thread does not run."""
        return self._process != os.getpid()

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call a function.

        Raises ``ConnectionClosedError`` if the loop has ended.
        """
        if self.is_inherited:
            raise ConnectionClosedError("the process was forked, and has no such loop")
        with self._lock:
            if self._ended:
                raise ConnectionClosedError(_CLOSED)
            self._loop.call_soon_threadsafe(function, *args)

    def end(self) -> None:
        """Close the connections and end the loop, without waiting for that."""
        if not self.is_inherited:
            with contextlib.suppress(ConnectionClosedError):
                self.submit(self._begin_end)

    def join(self) -> None:
        """Wait until the loop has ended."""
        if not self.is_inherited and self._thread is not threading.current_thread():
            self._thread.join(2 * _CLOSING)

    def _begin_end(self) -> None:
        if not self._ends:
            self._ends = True
            self._closing = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._close(), _CLOSING)
        finally:
            self._loop.stop()

    def _run(self) -> None:
        loop = self._loop
        try:
            loop.run_forever()
        finally:
            with self._lock:
                self._ended = True
            # What was submitted before runs now, and is cancelled.
            loop.run_until_complete(asyncio.sleep(0))
            while tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=_CLOSING))
                if asyncio.all_tasks(loop) >= tasks:
                    break
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


class Errand:
    """A call from another thread, which calls functions for the loop while it waits."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self._abandoned = False

    def run(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Await ``function(*args)`` in the loop; return its result.

        An exception here, as KeyboardInterrupt, cancels it.  Raises what it raises, and
        ``ConnectionClosedError`` if the loop ends before.
        """
        self._thread.submit(self._begin, function, args)
        try:
            while True:
                job = self._inbox.get()
                if not isinstance(job, _Job):
                    break
                job.run(self._thread)
        except BaseException:
            self._abandoned = True
            with contextlib.suppress(ConnectionClosedError):
                self._thread.submit(self._cancel)
            raise
        task: asyncio.Task[Any] = job
        if task.cancelled():
            raise ConnectionClosedError(_CLOSED)
        return task.result()

    def _begin(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._abandoned:
            return
        context = contextvars.copy_context()
        context.run(_current.set, self)
        self._task = context.run(
            asyncio.get_running_loop().create_task, function(*args)
        )
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if not self._abandoned:
            self._inbox.put(task)
        elif not task.cancelled():
            task.exception()  # mark it retrieved

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call a function in the thread that waits; return its result."""
        job = _Job(function)
        self._inbox.put(job)
        return await job.future


async def call_back(function: Callable[[], Any]) -> Any:
    """Call a function in the thread for which the current task runs."""
    return await _current.get().call(function)


class _Job:
    """A function to call in the thread that waits."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.future = asyncio.get_running_loop().create_future()

    def run(self, thread: LoopThread) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = self._function()
        except StopIteration as found:
            # A future cannot have it; in a coroutine it becomes the same (PEP 479).
            error = RuntimeError(f"{self._function} raised StopIteration")
            error.__cause__ = found
        except Exception as found:
            error = found
        thread.submit(self._finish, result, error)

    def _finish(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def _leave_parents_loops() -> None:
    """Keep what a forked process has inherited, and do not touch it."""
    _inherited.extend(_threads)
    _threads.clear()


def _end_all() -> None:
    """End all loops when the interpreter exits."""
    for thread in (threads := list(_threads)):
        thread.end()
    for thread in threads:
        thread.join()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parents_loops)
atexit.register(_end_all)
