"""Log lines for the operator: why QUIC connections were refused or ended."""

from __future__ import annotations

import logging
from typing import Any

from nghttp2py.asyncio.binding import describe_address
from nghttp2py.errors import printable
from nghttp2py.log_budget import LogBudget, MemoryLog
from nghttp2py.quic.events import ConnectionTerminated
from nghttp2py.quic.packet import error_name

__all__ = ["EndLog", "logger"]

logger = logging.getLogger("nghttp2py.asyncio.quic")

# Lines written in a second: any peer can cause a line.
MAX_LINES = 20

# H3_NO_ERROR (RFC 9114, 8.1), which ends connections as QUIC's own 0 does.
_NO_ERRORS = frozenset({0, 0x100})


class EndLog:
    """Writes lines about connections, at a bounded rate."""

    def __init__(self) -> None:
        self._lines = LogBudget(logger, logging.INFO, MAX_LINES, 1.0)
        self._failures = LogBudget(logger, logging.ERROR, MAX_LINES, 1.0)
        self._wants = MemoryLog(logger)
        self._others: dict[logging.Logger, LogBudget] = {}

    def ended(self, addr: Any, event: ConnectionTerminated, by_peer: bool) -> None:
        """Log that an error has ended a connection."""
        application = event.frame_type is None
        if event.error_code in _NO_ERRORS and (application or not event.error_code):
            return
        who = "by the peer" if by_peer else "here"
        name = (
            f"application error {event.error_code:#x}"
            if application
            else error_name(event.error_code)
        )
        reason = f": {event.reason_phrase}" if event.reason_phrase else ""
        self.tell(addr, f"the connection was ended {who}: {name}{reason}")

    def tell(self, addr: Any, text: str) -> None:
        """Write a line about a peer, with the peer's text escaped."""
        self._lines.log("%s: %s", describe_address(addr), printable(text))

    def tell_by(self, other: logging.Logger, addr: Any, text: str) -> None:
        """Write a line to the logger of a protocol over QUIC, with a bound of its
        own."""
        lines = self._others.get(other)
        if lines is None:
            lines = LogBudget(other, logging.INFO, MAX_LINES, 1.0)
            self._others[other] = lines
        lines.log("%s: %s", describe_address(addr), printable(text))

    def failed(self, addr: Any, text: str) -> None:
        """Write a line about an error of ours, with the exception being handled."""
        self._failures.log("%s: %s", describe_address(addr), text, exc_info=True)

    def memory_wanted(self, addr: Any, text: str) -> None:
        """Write a line about a want of memory, if there is enough for the line."""
        self._wants.log("%s: %s", describe_address(addr), text)
