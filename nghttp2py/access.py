"""The access log, and hooks for metrics, of the servers of every HTTP version.

Each exchange, one request and its response, is logged when it has ended, on the
logger ``nghttp2py.access``, and given to the functions of ``add_hook``.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nghttp2py.errors import printable

__all__ = [
    "Exchange",
    "RequestCounts",
    "add_hook",
    "hooks",
    "is_wanted",
    "keep_details",
    "log",
    "logger",
    "remove_hook",
]

#: The logger ``nghttp2py.access``.
logger = logging.getLogger("nghttp2py.access")

# The months of the common log format, whatever the locale calls them.
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class _Exchange(NamedTuple):
    protocol: str
    address: Any
    method: bytes
    target: bytes
    status: int | None
    bytes_sent: int
    duration: float
    error_code: int
    complete: bool


class Exchange(_Exchange):
    """A request and its response, when both have ended.

    ``address`` is the client's, as its socket gives it.  ``status`` is ``None`` if
    no response was begun.  ``bytes_sent`` counts the body that went out;
    ``duration`` is in seconds, from the request's header section to the end.
    ``error_code`` is that of RST_STREAM, RESET_STREAM or the connection's end.
    ``complete`` is whether the whole response went out: an exchange that broke
    off is not complete, whatever its status and its code.  If the response is whole,
    and the server has declined the rest of the request, the exchange is complete
    whatever becomes of the request (RFC 9113, 8.1; RFC 9114, 4.1).  Likewise that of
    an ASGI application if all went out that content-length announces, and a WebSocket
    of it whose closing handshake is done, whatever becomes of the stream; the code is
    0 then.

    ``scheme``, ``request_fields`` and ``response_fields`` are no members of the tuple,
    and are empty unless ``keep_details`` was called.  The fields are pairs of name and
    value; those of the response are as the application gave them.
    """

    #: The scheme of the request.
    scheme: bytes | None = None
    #: The fields of the request, with names in lower case.
    request_fields: Sequence[tuple[Any, ...]] = ()
    #: The fields of the final response.
    response_fields: Sequence[tuple[Any, ...]] = ()


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


class RequestCounts:
    """Counts the requests of all servers of the process, from ``start`` to ``stop``.

    ``with RequestCounts() as counts`` calls both.  A request counts when it has ended.
    """

    def __init__(self) -> None:
        #: Requests.
        self.requests = 0
        #: Those whose response was not complete.
        self.incomplete = 0
        #: Bytes of response bodies that went out.
        self.bytes_sent = 0
        #: The sum of the durations, in seconds.
        self.seconds = 0.0
        #: Requests by status; ``None`` is for those without a response.
        self.statuses: Counter[int | None] = Counter()
        #: Requests by version of HTTP, such as ``"HTTP/2"``.
        self.protocols: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to count.  A second call is a no-op."""
        if self._add not in hooks:
            add_hook(self._add)

    def stop(self) -> None:
        """Cease to count.  A second call is a no-op."""
        if self._add in hooks:
            remove_hook(self._add)

    def __enter__(self) -> RequestCounts:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _add(self, exchange: Exchange) -> None:
        self.requests += 1
        self.incomplete += not exchange.complete
        self.bytes_sent += exchange.bytes_sent
        self.seconds += exchange.duration
        self.statuses[exchange.status] += 1
        self.protocols[exchange.protocol] += 1

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.requests} requests>"


def is_wanted() -> bool:
    """Return whether ``log`` has anything to do."""
    return bool(hooks) or logger.isEnabledFor(logging.INFO)


#: The calls of ``keep_details``: something is kept if there are any.
details: list[None] = []


def keep_details() -> None:
    """Keep the fields of requests and responses for the log, and for hooks.

    From now on ``Exchange`` has its ``scheme``, ``request_fields`` and
    ``response_fields``.
    """
    if not details:
        details.append(None)


def log(exchange: Exchange) -> None:
    """Log an exchange, and call the hooks with it; raise what one of them raises.

    The line has the common log format; that of an exchange that broke off ends in
    ``incomplete``.  It is made when a formatter asks for the message.  The record has
    the members of ``Exchange`` as attributes, for formatters such as those of
    ``nghttp2py.access_formats``.
    """
    if logger.isEnabledFor(logging.INFO):
        extra = exchange._asdict()
        if details:
            extra["scheme"] = exchange.scheme
            extra["request_fields"] = exchange.request_fields
            extra["response_fields"] = exchange.response_fields
        logger.info(_Line(exchange), extra=extra)
    failure = None
    for hook in list(hooks):
        try:
            hook(exchange)
        except Exception as error:
            failure = error  # the other hooks are called nevertheless
    if failure is not None:
        raise failure


class _Line:
    """The line of an exchange, as text."""

    __slots__ = ("_exchange", "_time")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._time = time.time()

    def __str__(self) -> str:
        exchange = self._exchange
        status, size = exchange.status, exchange.bytes_sent
        return (
            f"{format_address(exchange.address)} - - [{format_time(self._time)}] "
            f'"{quote(exchange.method)} {quote(exchange.target)} {exchange.protocol}" '
            f"{'-' if status is None else status} {size or '-'}"
            f"{'' if exchange.complete else ' incomplete'}"
        )

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A record that is sent to another process takes the text along.
        return str, (str(self),)


def format_address(address: object) -> str:
    """Return the host of a client's address, or ``-`` if it has none."""
    return str(address[0]) if isinstance(address, tuple) else "-"


class _Clock:
    """Formats times; that of the last second is kept."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, seconds: float) -> str:
        """Return a time as the common log format has it."""
        second = int(seconds)
        if second != self._second:
            now = time.localtime(second)
            self._text = time.strftime(
                f"%d/{_MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z", now
            )
            self._second = second
        return self._text


format_time = _Clock().format


def quote(value: bytes | str) -> str:
    """Escape what would end the quoted string, or act in a terminal."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "backslashreplace")
    return printable(value).replace('"', "\\x22")
