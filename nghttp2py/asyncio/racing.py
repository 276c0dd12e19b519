"""Connection attempts to several addresses of a name (RFC 8305)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

__all__ = ["interleave", "race"]

#: The delay in seconds before the next address is tried in parallel (RFC 8305, 5).
ATTEMPT_DELAY = 0.25

A = TypeVar("A")
T = TypeVar("T")


def interleave(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return what ``getaddrinfo`` has found with alternating families (RFC 8305, 4)."""
    by_family: dict[int, list[tuple[Any, ...]]] = {}
    for entry in found:
        by_family.setdefault(entry[0], []).append(entry)
    turns = itertools.zip_longest(*by_family.values())
    return [entry for turn in turns for entry in turn if entry is not None]


async def race(
    attempt: Callable[[A], Coroutine[Any, Any, T]],
    addresses: Iterable[A],
    discard: Callable[[T], object],
) -> T:
    """Try each address some time after the previous one, or when that has failed.

    Return the result of the first attempt that succeeds; ``discard`` is called with
    those of others that succeed, too.  Raises the first error if all fail.
    """
    tasks: list[asyncio.Task[T]] = []
    chosen: asyncio.Task[T] | None = None
    errors: list[BaseException] = []
    try:
        waiting = list(addresses)
        running: set[asyncio.Task[T]] = set()
        while chosen is None and (waiting or running):
            if waiting:
                task = asyncio.ensure_future(attempt(waiting.pop(0)))
                tasks.append(task)
                running.add(task)
            done, running = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is not None:
                    errors.append(error)
                elif chosen is None:
                    chosen = task
    except BaseException:
        chosen = None
        raise
    finally:
        pending = [task for task in tasks if not task.done()]
        for task in pending:
            task.cancel()
        try:
            if pending:
                await asyncio.wait(pending)
        except BaseException:
            chosen = None
            raise
        finally:
            for task in tasks:
                if task is not chosen:
                    _discard(task, discard)
    if chosen is None:
        raise errors[0]
    return chosen.result()


def _discard(task: asyncio.Task[T], discard: Callable[[T], object]) -> None:
    """Discard the result of an attempt, if it has one or will have one."""
    if not task.done():
        task.add_done_callback(partial(_discard, discard=discard))
    elif not task.cancelled() and task.exception() is None:
        discard(task.result())
