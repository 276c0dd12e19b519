"""Log lines that peers can cause, at a bounded rate."""

from __future__ import annotations

import contextlib
import logging
import time

__all__ = ["MEMORY_LINES", "PEER_LINES", "LogBudget", "MemoryLog", "peer_lines"]

#: Lines about a want of memory that one part may write, and in how many seconds.
MEMORY_LINES = (10, 10.0)
#: Lines about peers that a module may write for all connections of the program, and in
#: how many seconds.
PEER_LINES = (100, 5.0)


class LogBudget:
    """Writes at most ``burst`` lines in ``interval`` seconds, and counts the others.

    The first line of the next interval has the number of those left out.
    """

    __slots__ = ("_burst", "_interval", "_level", "_logger", "_omitted", "_spent", "_t")

    def __init__(
        self, logger: logging.Logger, level: int, burst: int, interval: float
    ) -> None:
        self._logger = logger
        self._level = level
        self._burst = burst
        self._interval = interval
        self._t = -interval
        self._spent = 0
        self._omitted = 0

    def log(self, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a line, unless the interval's lines are used up.

        With ``exc_info`` the line has the traceback of the exception being handled.
        """
        if not self._logger.isEnabledFor(self._level):
            return
        now = time.monotonic()
        if now - self._t >= self._interval:
            self._t = now
            self._spent = 0
        if self._spent >= self._burst:
            self._omitted += 1
            return
        self._spent += 1
        if self._omitted:
            message += " (%d lines like this one were left out)"
            args = (*args, self._omitted)
            self._omitted = 0
        self._logger.log(self._level, message, *args, exc_info=exc_info or None)


def peer_lines(logger: logging.Logger) -> LogBudget:
    """Return the budget for a module's lines about what peers do wrong."""
    return LogBudget(logger, logging.INFO, *PEER_LINES)


class MemoryLog:
    """Writes lines about a want of memory, at a bounded rate and without tracebacks."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lines = LogBudget(logger, logging.WARNING, *MEMORY_LINES)

    def log(self, message: str, *args: object) -> None:
        """Write a line, if there is enough memory for it."""
        with contextlib.suppress(MemoryError):
            self._lines.log(message + ": there is not enough memory", *args)

    def failed(self, error: BaseException, message: str, *args: object) -> None:
        """Log what an application raised, with its traceback.

        A ``MemoryError``, which peers can cause, gets a line as from ``log``.
        """
        if isinstance(error, MemoryError):
            self.log(message, *args)
        else:
            self._logger.error(message, *args, exc_info=error)
