"""Timeouts of the same length, which share a timer."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Deadlines"]


class Expiring(Protocol):
    """An object with a deadline; hashed by identity."""

    def _expire(self) -> None:
        """Handle the expiry of the deadline."""


class Deadlines:
    """Timeouts of the same length, for which one timer is enough."""

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.seconds = seconds
        self._loop = loop
        self._pending: dict[Expiring, float] = {}  # in the order of their deadlines
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Expiring) -> None:
        """Set a deadline for ``item``, which has none."""
        self._pending[item] = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._run)

    def discard(self, item: Expiring) -> None:
        """Drop the deadline of ``item``, if it has one."""
        # The timer keeps running: it handles what is pending when it fires.
        self._pending.pop(item, None)

    def close(self) -> None:
        """Stop the timer; nothing expires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        while self._pending:
            item, when = next(iter(self._pending.items()))
            if when > self._loop.time():
                self._timer = self._loop.call_at(when, self._run)
                return
            del self._pending[item]
            item._expire()
