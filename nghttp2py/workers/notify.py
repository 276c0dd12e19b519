"""Messages to systemd about the state of the service: sd_notify(3), without libsystemd.

Each function is a no-op, and returns False, unless ``$NOTIFY_SOCKET`` is set, as
systemd does for a unit of ``Type=notify`` or ``notify-reload``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Mapping

__all__ = [
    "VARIABLES",
    "Watchdog",
    "ready",
    "reloading",
    "send",
    "stopping",
    "watchdog",
    "watchdog_interval",
]

logger = logging.getLogger(__name__)

#: What a process that shall not send messages must not find in its environment.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

# What fits into 64 bits, as systemd's times do.
_USEC = re.compile(r"[0-9]{1,19}")
# Seconds between two calls of ``watchdog``: fewer would keep the process busy.
_LEAST_INTERVAL = 0.05
# Seconds for which a message may wait while the socket's queue is full.
_PATIENCE = 1.0


def send(*assignments: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send one message of ``NAME=value`` lines; return whether it was sent.

    It may block for a second.  An error is logged, and is not raised: the service goes
    on without the manager.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        logger.warning("$NOTIFY_SOCKET is %r: it must be a path", address)
        return False
    if address[0] == "@":  # an abstract name of Linux
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(address)
            sock.sendall("\n".join(assignments).encode())
    except OSError as error:
        logger.warning("systemd is not notified of %s: %s", assignments[0], error)
        return False
    return True


def ready(text: str = "") -> bool:
    """Report that the service is ready: it was started, or has reloaded.

    ``text`` becomes its status.
    """
    return send("READY=1", f"MAINPID={os.getpid()}", *_to_status(text))


def reloading(text: str = "") -> bool:
    """Report that the service reloads its configuration; ``ready`` ends that."""
    # The time lets systemd tell this from a reload that it has asked for before.
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return send("RELOADING=1", f"MONOTONIC_USEC={now}", *_to_status(text))


def stopping(text: str = "") -> bool:
    """Report that the service has begun to stop."""
    return send("STOPPING=1", *_to_status(text))


def watchdog() -> bool:
    """Report that the service is alive: due at least once a ``watchdog_interval``."""
    return send("WATCHDOG=1")


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds between two calls of ``watchdog``, or None for no watchdog.

    It is half of the time after which systemd ends the service, ``WatchdogSec=``, and
    not less than 0.05 seconds.
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID")
    if not environ.get("NOTIFY_SOCKET") or not _USEC.fullmatch(microseconds):
        return None
    if pid is not None and pid != str(os.getpid()):
        return None  # meant for another process of the service
    if not int(microseconds):
        return None
    return max(int(microseconds) / 2e6, _LEAST_INTERVAL)


class Watchdog:
    """Reports regularly that the event loop runs, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Report it now, and again in each ``watchdog_interval``."""
        interval = watchdog_interval()
        if interval is not None:
            watchdog()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(interval, self.start)

    def stop(self) -> None:
        """Report nothing more."""
        if self._timer is not None:
            self._timer.cancel()


def _to_status(text: str) -> list[str]:
    # A line ends an assignment.
    return [f"STATUS={' '.join(text.splitlines())}"] if text else []
