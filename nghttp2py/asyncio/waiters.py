"""Coroutines that wait for something to happen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["Waiters", "wait_for"]

T = TypeVar("T")

if sys.version_info >= (3, 12):
    wait_for = asyncio.wait_for
else:

    async def wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:
        """Do what ``asyncio.wait_for`` of Python 3.12 does.

        Older versions lose a cancellation if what they wait for is done in the same
        turn of the loop.
        """
        future = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait([future], timeout=timeout)
        except asyncio.CancelledError:
            if future.done():
                if not future.cancelled():
                    future.exception()  # mark it retrieved
                raise
            future.cancel()
            await asyncio.wait([future])
            return future.result()
        if not future.done():
            future.cancel()
            await asyncio.wait([future])
            if future.cancelled():
                raise asyncio.TimeoutError
        return future.result()


class Waiters(list["asyncio.Future[None]"]):
    """Coroutines that wait; ``wake`` lets each of them check its condition.

    So each waits in a loop, for a condition of its own.  It is a list of their futures,
    because most often there are none: that is asked without a call.
    """

    __slots__ = ()

    async def wait(self) -> None:
        """Wait for the next ``wake``."""
        future = asyncio.get_running_loop().create_future()
        self.append(future)
        try:
            await future
        except BaseException:
            if future in self:
                self.remove(future)
            raise

    def wake(self) -> None:
        """End all current waits."""
        for future in self:
            if not future.done():
                future.set_result(None)
        self.clear()
