"""An event loop whose clock does not run, but jumps to the next timer.

A test in it waits for hours of the loop's time in milliseconds.  The clock jumps
only if nothing else can happen: no callback is ready, no socket is, and no thread
works for the loop.  Loopback delivers within the call that sends, so a socket that
is not ready within ``_GRACE`` has nothing to come; without sockets, as with
``memory.py``, there is no such wait.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

#: Real seconds that a socket is given to become ready before the clock jumps.
_GRACE = 0.001
#: Real seconds that a test may take.
_DEADLINE = 60


class _Selector(selectors.DefaultSelector):
    """Asks for what is ready, and else moves its loop's clock."""

    loop: VirtualTime

    def select(self, timeout: float | None = None) -> list[Any]:
        loop = self.loop
        deadline = loop.deadline
        if loop.overdue():
            raise TimeoutError(f"the test takes more than {deadline} seconds")
        events = super().select(0)
        if loop.check_conditions() or events or timeout == 0:
            return events
        # A loop has one descriptor of its own, by which threads wake it.
        if loop.working:
            return super().select(_GRACE)
        if len(self.get_map()) > 1:
            events = super().select(_GRACE)
        if not events:
            if timeout is None:
                # No timer is set: only the world outside can go on.
                return super().select(0.1)
            loop.now += timeout
        return events


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop with a virtual clock, which starts at 1000 seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        #: How many calls threads of the default executor are at.
        self.working = 0
        self._conditions: list[tuple[Callable[[], Any], asyncio.Future[None]]] = []
        #: How many real seconds the test may take.
        self.deadline: float = _DEADLINE
        self._begun = time.monotonic()
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now

    def overdue(self) -> bool:
        """Whether the test takes too long; True once, so that it can be ended."""
        if time.monotonic() < self._begun + self.deadline:
            return False
        self.deadline = float("inf")
        return True

    def cancel_tasks(self) -> None:
        """Cancel what a test that failed has left, so that the loop can close."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.call_later(1, self.stop)
            self.run_forever()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run a function in a thread, while which the clock stands."""
        self.working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _: asyncio.Future[Any]) -> None:
        self.working -= 1

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until ``condition()`` holds; look before each jump of the clock."""
        if not condition():
            future = self.create_future()
            self._conditions.append((condition, future))
            await future

    def check_conditions(self) -> bool:
        """Wake the waiters whose condition holds now; return whether there are any."""
        waiting, self._conditions = self._conditions, []
        for condition, future in waiting:
            if future.done():
                continue
            try:
                holds = condition()
            except Exception as error:
                future.set_exception(error)
            else:
                if holds:
                    future.set_result(None)
                else:
                    self._conditions.append((condition, future))
        return len(self._conditions) < len(waiting)


async def pass_time(seconds: float) -> None:
    """Let the clock of a ``VirtualTime`` move on by a number of seconds."""
    assert isinstance(asyncio.get_running_loop(), VirtualTime)
    await asyncio.sleep(seconds)
