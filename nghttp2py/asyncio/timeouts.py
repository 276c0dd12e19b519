"""The time bounds of a server, one for every wait that a peer can cause.

HTTP/2 and HTTP/3, and all classes of servers, have the same defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from nghttp2py.arguments import check_seconds, describe

__all__ = [
    "CLIENT_TIMEOUTS",
    "UNSET",
    "Timeouts",
    "check_keepalive",
    "merge_timeouts",
]


# The bounds that may be ``None``.
_UNBOUNDED = frozenset({"body", "response", "idle", "keep_alive", "keepalive"})


def _check(name: str, value: Any, keyword: str) -> None:
    """Check a bound that was given as ``keyword``."""
    # close() may abort at once; every other bound must leave the peer some time.
    least = 0 if name == "close" else math.ulp(0)
    check_seconds(keyword, value, least=least, optional=name in _UNBOUNDED)


@dataclass(frozen=True)
class Timeouts:
    """How long a server waits for its peers, in seconds.

    A client can have them, too: ``body`` is for servers only, and ``response`` then
    bounds the sending of the client's body.

    ``None`` means no bound, where the type allows it: for ``body``, ``response``,
    ``idle``, ``keep_alive`` and ``keepalive``.  ``docs/limits.rst`` says from when to
    when each counts, and what happens at its end.  ``min_rate`` is in bytes per second.
    Raises
    ``TypeError`` and ``ValueError`` for a bound that is not a positive number.
    """

    #: From the first byte of a connection to the end of its TLS or QUIC handshake.
    handshake: float = 10.0
    #: From our SETTINGS to their acknowledgement (RFC 9113, 6.5.3); over HTTP/3 from
    #: the handshake to the peer's SETTINGS.  It also bounds the client's preface.
    settings: float = 5.0
    #: From the first byte of a header section, or of any other frame but DATA, to its
    #: end.  Progress does not extend it.
    headers: float = 10.0
    #: While a request's body is incomplete and its response has not begun: the time
    #: within which at least ``min_rate`` bytes per second must have been received.
    #: Time in which the application withholds credit is not counted.
    body: float | None = 30.0
    #: While bytes of a response are queued and flow control or the transport holds
    #: them back: the time within which the peer must take at least ``min_rate``
    #: bytes per second.  Window updates alone are no progress.
    response: float | None = 30.0
    #: Bytes per second that count as progress for ``body`` and ``response``.
    min_rate: float = 240.0
    #: Without an open request.  PING and other frames do not extend it.
    idle: float | None = 180.0
    #: Over HTTP/1.1, between two requests.
    keep_alive: float | None = 75.0
    #: While a request is open: time without bytes of the peer after which a PING is
    #: sent.
    keepalive: float | None = 60.0
    #: From that PING to any bytes of the peer.
    keepalive_answer: float = 20.0
    #: From the start of a graceful close to the abort of what has not finished.
    close: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name), field.name)


#: The bounds of a client, which chooses itself how long to wait for a response.
CLIENT_TIMEOUTS = Timeouts(body=None, response=None, idle=None, keepalive=None)

# The keywords that override fields of ``Timeouts``.
_KEYWORDS = {
    "settings": "settings_timeout",
    "idle": "idle_timeout",
    "keepalive": "keepalive_interval",
    "keepalive_answer": "keepalive_timeout",
    "close": "close_timeout",
}

#: The default of a keyword that overrides a field of ``Timeouts``.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()


def merge_timeouts(
    timeouts: Timeouts | None, *, client: bool = False, **overrides: Any
) -> Timeouts:
    """Return ``timeouts`` with the overrides that are not UNSET.

    The default of ``timeouts`` is that of servers, or of clients.
    """
    if timeouts is None:
        timeouts = CLIENT_TIMEOUTS if client else Timeouts()
    elif not isinstance(timeouts, Timeouts):
        raise TypeError(f"timeouts must be a Timeouts, not {describe(timeouts)}")
    given = {name: value for name, value in overrides.items() if value is not UNSET}
    for name, value in given.items():
        _check(name, value, _KEYWORDS[name])
    return replace(timeouts, **given) if given else timeouts


def check_keepalive(interval: object, timeout: object) -> None:
    """Check the keywords that override ``keepalive`` and ``keepalive_answer``."""
    if interval is not UNSET:
        _check("keepalive", interval, "keepalive_interval")
    if timeout is not UNSET:
        _check("keepalive_answer", timeout, "keepalive_timeout")
