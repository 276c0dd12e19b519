"""The end of a server, for the responses of an application that have none."""

from __future__ import annotations

import asyncio
import contextvars

__all__ = ["begin", "enter", "wait_closing"]

# Set when the server whose requests have this context begins to stop.
_closing: contextvars.ContextVar[asyncio.Event] = contextvars.ContextVar("closing")


def begin() -> asyncio.Event:
    """Make the event of a server, and have the current context know it."""
    event = asyncio.Event()
    _closing.set(event)
    return event


def enter(context: contextvars.Context, event: asyncio.Event) -> None:
    """Have another context know the event."""
    context.run(_closing.set, event)


async def wait_closing() -> None:
    """Wait until the server of this request begins to stop.

    A response without an end, such as server-sent events, should end then: the server
    waits for it until ``timeout_graceful_shutdown`` is over, and then cancels it.
    Outside of :class:`nghttp2py.asgi.Server` and what uses it, as in tests of an
    application, this waits until it is cancelled.
    """
    event = _closing.get(None)
    await (asyncio.Event() if event is None else event).wait()
