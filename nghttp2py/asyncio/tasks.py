"""Tasks for the coroutines that callbacks of a connection return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["CallbackTasks"]

# Seconds that cancelled coroutines have to end, even if the close timeout is over.
_LEAST_PATIENCE = 1.0

# An event loop keeps only weak references to its tasks.
_tasks: set[asyncio.Future[Any]] = set()


class CallbackTasks:
    """Runs coroutines of a connection; at its end cancels them and waits for them."""

    __slots__ = ("_cancelling", "_cleanups", "_released", "_running", "_timer", "lost")

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()
        self._cleanups: set[asyncio.Future[Any]] = set()
        self._released: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling: asyncio.TimerHandle | None = None
        #: Whether the connection is lost, and the tasks were cancelled.
        self.lost = False

    def start(
        self,
        coroutine: Awaitable[Any],
        ended: Callable[[asyncio.Future[Any]], object],
        *,
        cleanup: bool = False,
    ) -> asyncio.Future[Any]:
        """Run a coroutine as a task, and call ``ended`` with it.

        A ``cleanup`` is never cancelled.  Any other is cancelled at once if the
        connection is lost already.
        """
        task = asyncio.ensure_future(coroutine)
        _tasks.add(task)
        (self._cleanups if cleanup else self._running).add(task)
        task.add_done_callback(ended)
        # This comes last, because the end of a task may start a cleanup.
        task.add_done_callback(self._task_ended)
        if self.lost and not cleanup:
            task.cancel()
        return task

    def watch(self, task: asyncio.Future[Any]) -> None:
        """Wait for a task of others, too, which is not cancelled."""
        if not task.done():
            self._cleanups.add(task)
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Future[Any]) -> None:
        _tasks.discard(task)
        self._running.discard(task)
        self._cleanups.discard(task)
        if not (self._running or self._cleanups):
            self.release()

    def connection_lost(
        self, released: Callable[[], object], *, patience: float = 0.0
    ) -> None:
        """Cancel the tasks; call ``released`` when all of them have ended.

        They have ``patience`` seconds to end by themselves.
        """
        self.lost = True
        self._released = released
        if patience and self._running:
            loop = asyncio.get_running_loop()
            self._cancelling = loop.call_later(patience, self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        self._cancelling = None
        for task in list(self._running):
            task.cancel()
        if not (self._running or self._cleanups):
            self.release()

    def release_after(self, timeout: float) -> None:
        """Bound the wait for a lost connection's tasks to ``timeout`` seconds.

        They have a second to handle that they are cancelled, even if it is less.
        """
        if self._released is None:
            return
        timeout = max(timeout, _LEAST_PATIENCE)
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + timeout:
                return
            self._timer.cancel()
        self._timer = loop.call_later(timeout, self.release)

    def release(self) -> None:
        """Stop waiting for the tasks of a lost connection."""
        released, self._released = self._released, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cancelling is not None and not self._running:
            self._cancelling.cancel()
            self._cancelling = None
        if released is not None:
            released()
