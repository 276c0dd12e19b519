"""The lifespan of an application: startup before requests, shutdown after them.

One task runs the application with the lifespan scope, because what the application
opens at startup, such as a cancel scope of anyio, must be closed by the same task.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import MutableMapping
from typing import Any

from nghttp2py.arguments import check_seconds
from nghttp2py.asgi.loading import ASGIApplication
from nghttp2py.errors import LifespanError

__all__ = ["MODES", "SHUTDOWN_TIMEOUT", "STARTUP_TIMEOUT", "Lifespan"]

logger = logging.getLogger(__name__)

MODES = ("auto", "on", "off")

#: Seconds from lifespan.startup to the application's answer.
STARTUP_TIMEOUT = 60.0
#: Seconds from lifespan.shutdown to the application's answer.
SHUTDOWN_TIMEOUT = 30.0

# Seconds for which the application may run on after its last message, or after it was
# cancelled.
_GRACE = 1.0


class Lifespan:
    """Starts and stops an application by ASGI's lifespan protocol, version 2.0.

    In the mode "auto", an application that raises before it has started has no
    lifespan, and is served without; in the mode "on" it has failed to start.  "off"
    sends nothing to it.

    ``state`` is the dictionary that the application fills; each request gets a shallow
    copy.  ``context`` has the context variables that the application has set until it
    had started: requests inherit them.
    """

    def __init__(
        self,
        app: ASGIApplication,
        mode: str = "auto",
        *,
        startup_timeout: float | None = STARTUP_TIMEOUT,
        shutdown_timeout: float | None = SHUTDOWN_TIMEOUT,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"lifespan must be auto, on or off, not {mode!r}")
        check_seconds("startup_timeout", startup_timeout)
        check_seconds("shutdown_timeout", shutdown_timeout)
        self._app = app
        self._mode = mode
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self.state: dict[str, Any] = {}
        self.context: contextvars.Context | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[str | None] | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._stopped: asyncio.Future[str | None] | None = None
        self._received = 0  # messages that the application has asked for

    # ---- The server's side ----

    @property
    def has_ended(self) -> bool:
        """Whether the call of the application has returned, or never begun."""
        return self._task is None or self._task.done()

    async def startup(self) -> None:
        """Start the application, and wait until it has started.

        Raises :class:`~nghttp2py.errors.LifespanError` if it answers
        lifespan.startup.failed, exceeds the time limit, or in the mode "on" raises.
        If this is cancelled, so is the application.
        """
        if self._mode == "off" or self._task is not None:
            return
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._stopping = loop.create_future()
        self._stopped = loop.create_future()
        logger.info("waiting for the application to start")
        self._task = loop.create_task(self._run())
        try:
            await _wait(self._startup_timeout, self._task, self._started)
            await self._check_start(self._task, self._started)
        except BaseException:
            await self._end(self._task)
            raise

    async def _check_start(
        self, task: asyncio.Task[None], started: asyncio.Future[str | None]
    ) -> None:
        if started.done():
            failure = started.result()
            if failure is None:
                logger.info("the application has started")
                return
            # It may have more to do, or raise what it did not put into its message.
            await asyncio.wait([task], timeout=_GRACE)
            text, error = "the application has failed to start", _failure(task)
            if "\n" in failure:
                raise LifespanError(text, details=failure.rstrip() + "\n")
            if not failure and error is not None:
                failure = repr(error)
            raise LifespanError(f"{text}: {failure}" if failure else text)
        if not task.done():
            raise LifespanError(
                "the application has not started within "
                f"{self._startup_timeout:g} seconds"
            )
        error = _failure(task)
        reason = "it has ended" if error is None else f"it has raised {error!r}"
        if self._mode == "on":
            if error is not None:
                logger.error("the application has raised", exc_info=error)
            raise LifespanError(
                f"the application has no lifespan: {reason} before it had started"
            )
        if error is not None and self._received:
            logger.warning(
                "the application has raised while it started; it is served without "
                "a lifespan",
                exc_info=error,
            )
        else:
            logger.debug("the application took no startup: %s", reason)
            logger.info("the application has no lifespan, and is served without")

    async def shutdown(self) -> None:
        """Stop the application, and wait until it has stopped.

        This is a no-op unless it has started, and the second time.  What fails is
        logged; what exceeds the time limit is cancelled.
        """
        task, stopping, stopped = self._task, self._stopping, self._stopped
        if task is None or stopping is None or stopped is None or stopping.done():
            return
        stopping.set_result(None)
        if task.done():
            error = _failure(task)
            if error is not None and self.context is not None:
                logger.error("the lifespan of the application failed", exc_info=error)
            return
        logger.info("waiting for the application to stop")
        try:
            await _wait(self._shutdown_timeout, task, stopped)
            if stopped.done():
                failure = stopped.result()
                if failure is None:
                    logger.info("the application has stopped")
                else:
                    logger.error("the application has failed to stop: %s", failure)
                await asyncio.wait([task], timeout=_GRACE)
            elif not task.done():
                logger.error(
                    "the application has not stopped within %g seconds: its lifespan "
                    "is cancelled",
                    self._shutdown_timeout,
                )
        finally:
            await self._end(task)
        error = _failure(task)
        if error is not None and not stopped.done():
            logger.error("the application has raised while it stopped", exc_info=error)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Cancel the task, and wait for it for a moment."""
        if self._stopping is not None and not self._stopping.done():
            self._stopping.cancel()
        task.cancel()
        await asyncio.wait([task], timeout=_GRACE)
        _failure(task)  # reading it keeps asyncio from reporting it

    # ---- The application's side ----

    async def _run(self) -> None:
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        assert self._stopping is not None
        await asyncio.shield(self._stopping)
        if self._received == 2:
            return {"type": "lifespan.shutdown"}
        await asyncio.get_running_loop().create_future()  # there are no more messages
        raise AssertionError

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        assert self._started is not None and self._stopped is not None
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            answer, allowed = self._started, not self._started.done()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            answer, allowed = self._stopped, self._started.done()
            allowed = allowed and not self._stopped.done()
        else:
            raise ValueError(f"{kind!r} is no message of a lifespan")
        if not allowed:
            raise RuntimeError(f"{kind} is not allowed now")
        if kind == "lifespan.startup.complete":
            self.context = contextvars.copy_context()
        failed = kind.endswith(".failed")
        if answer is self._started and failed and self._stopping is not None:
            self._stopping.cancel()  # no message follows
        answer.set_result(str(message.get("message", "")) if failed else None)


async def _wait(timeout: float | None, *futures: asyncio.Future[Any]) -> None:
    """Wait until one of the futures is done, or the time is over."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    """Return why a task has failed; None if it has not, or runs."""
    if not task.done():
        return None
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception()
