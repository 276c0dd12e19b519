"""Coroutines that wait for something to happen."""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """Those who wait; ``wake`` lets all of them see whether it is theirs.

    So each waits in a loop, on a condition of its own.
    """

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._futures)

    async def wait(self) -> None:
        """Wait for the next ``wake``."""
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            await future
        except BaseException:
            if future in self._futures:
                self._futures.remove(future)
            raise

    def wake(self) -> None:
        """End the wait of all who wait now."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()
