"""Our exceptions as those of httpx."""

from __future__ import annotations

import ssl

from nghttp2py.asyncio.connection import LOST
from nghttp2py.errors import (
    ConnectionClosedError,
    ConnectionTerminatedError,
    ConnectTimeoutError,
    ErrorCode,
    HTTPVersionError,
    NGHTTP2Error,
    PoolTimeoutError,
    ReadTimeoutError,
    RequestQueueFullError,
    StreamResetError,
    StreamTimeoutError,
    TunnelsNotEnabledError,
    WriteTimeoutError,
)
from nghttp2py.httpx.modules import Module

__all__ = ["NOT_CONNECTED", "find_name", "translate"]

#: The exceptions after which another attempt to connect can be made.
NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout"})

# The first that fits; subclasses come before their bases.
_NAMES: tuple[tuple[type[Exception], str], ...] = (
    (ConnectTimeoutError, "ConnectTimeout"),
    (PoolTimeoutError, "PoolTimeout"),
    (WriteTimeoutError, "WriteTimeout"),
    (ReadTimeoutError, "ReadTimeout"),
    (StreamTimeoutError, "ReadTimeout"),
    (RequestQueueFullError, "PoolTimeout"),
    (HTTPVersionError, "ConnectError"),
    (TunnelsNotEnabledError, "RemoteProtocolError"),
)


def find_name(error: Exception, *, sending: bool = False) -> str | None:
    """Return the name of httpx's exception for one of ours, or ``None``.

    ``sending`` is true while the request's body is not sent.
    """
    for kind, name in _NAMES:
        if isinstance(error, kind):
            return name
    if isinstance(error, StreamResetError):
        cancelled = not error.remote and error.error_code == ErrorCode.CANCEL
        return "ReadError" if cancelled else "RemoteProtocolError"
    if isinstance(error, ConnectionTerminatedError):
        return _name_end(error, sending)
    if isinstance(error, ConnectionClosedError):
        return "ReadError"
    if isinstance(error, NGHTTP2Error):
        return "LocalProtocolError"
    if isinstance(error, TimeoutError):  # the system's own
        return "ConnectTimeout"
    if isinstance(error, (ssl.SSLError, OSError)):
        return "ConnectError"
    return None


def _name_end(error: ConnectionTerminatedError, sending: bool) -> str:
    """Return the name for the end of a connection."""
    if error.unprocessed and not error.remote:
        return "ConnectError"
    if sending:
        return "WriteError"
    aborted = not error.remote and error.error_code == ErrorCode.CANCEL
    if aborted or error.reason.startswith(LOST):
        return "ReadError"
    return "RemoteProtocolError"


def translate(module: Module, error: Exception, *, sending: bool = False) -> Exception:
    """Return httpx's exception for one of ours; any other is returned as it is."""
    name = find_name(error, sending=sending)
    if name is None:
        return error
    found: Exception = module.get_exception(name)(str(error) or type(error).__name__)
    return found
