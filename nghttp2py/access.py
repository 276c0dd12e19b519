"""The access log, and hooks for metrics, of the servers of every HTTP version.

Each exchange, one request and its response, is logged when it has ended, on the
logger ``nghttp2py.access``, and given to the functions of ``add_hook``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nghttp2py.errors import printable

__all__ = ["Exchange", "add_hook", "hooks", "is_wanted", "log", "logger", "remove_hook"]

#: The logger ``nghttp2py.access``.
logger = logging.getLogger("nghttp2py.access")

# The months of the common log format, whatever the locale calls them.
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class Exchange(NamedTuple):
    """A request and its response, when both have ended.

    ``address`` is the client's, as its socket gives it.  ``status`` is ``None`` if
    no response was begun.  ``bytes_sent`` counts the body that went out;
    ``duration`` is in seconds, from the request's header section to the end.
    ``error_code`` is that of RST_STREAM, RESET_STREAM or the connection's end.
    ``complete`` is whether the whole response went out: an exchange that broke
    off is not complete, whatever its status and its code.  If the response is whole,
    and the server has declined the rest of the request, the exchange is complete
    whatever becomes of the request (RFC 9113, 8.1; RFC 9114, 4.1).
    """

    protocol: str
    address: Any
    method: bytes
    target: bytes
    status: int | None
    bytes_sent: int
    duration: float
    error_code: int
    complete: bool


#: The functions that ``add_hook`` has added.
hooks: list[Callable[[Exchange], object]] = []


def add_hook(function: Callable[[Exchange], object]) -> None:
    """Have ``function`` called with each ``Exchange`` of every server.

    It is called in the event loop and must not block.  What it raises is logged.
    """
    hooks.append(function)


def remove_hook(function: Callable[[Exchange], object]) -> None:
    """Undo ``add_hook``.  Raises ``ValueError`` if there was none."""
    hooks.remove(function)


def is_wanted() -> bool:
    """Return whether ``log`` has anything to do."""
    return bool(hooks) or logger.isEnabledFor(logging.INFO)


def log(exchange: Exchange) -> None:
    """Log an exchange, and call the hooks with it; raise what one of them raises.

    The line has the common log format; that of an exchange that broke off ends in
    ``incomplete``.  The record has the members of ``Exchange`` as attributes, for
    a formatter that writes JSON, for example.
    """
    if logger.isEnabledFor(logging.INFO):
        now = time.localtime()
        status, size = exchange.status, exchange.bytes_sent
        address = exchange.address
        logger.info(
            '%s - - [%s] "%s %s %s" %s %s%s',
            address[0] if isinstance(address, tuple) else "-",
            time.strftime(f"%d/{_MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z", now),
            _quoted(exchange.method),
            _quoted(exchange.target),
            exchange.protocol,
            "-" if status is None else status,
            size or "-",
            "" if exchange.complete else " incomplete",
            extra=exchange._asdict(),
        )
    failure = None
    for hook in list(hooks):
        try:
            hook(exchange)
        except Exception as error:
            failure = error  # the other hooks are called nevertheless
    if failure is not None:
        raise failure


def _quoted(value: bytes) -> str:
    """Escape what would end the quoted string, or act in a terminal."""
    text = value.decode("ascii", "backslashreplace")
    return printable(text).replace('"', "\\x22")
