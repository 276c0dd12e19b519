"""Making a client's connection, with everything closed if that fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any

from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.tls import TLSFault
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ConnectTimeoutError,
    ErrorCode,
    HTTPVersionError,
)

__all__ = ["establish"]

# Turns of the loop until an aborted transport has called ``connection_lost``: one, or
# two over TLS; and one more in which asyncio closes the socket.
_TURNS_TO_END = 3


async def establish(
    pump: H2Pump,
    attempt: Coroutine[Any, Any, object],
    where: object,
    timeout: float | None,
) -> None:
    """Wait until ``attempt``, from ``loop.create_connection``, has connected ``pump``.

    ``timeout`` is in seconds; ``None`` means no limit.  Raises what ``attempt`` raises;
    ``ConnectTimeoutError`` that names ``where``; ``HTTPVersionError`` if TLS has not
    negotiated HTTP/2; ``ConnectionTerminatedError`` if HTTP/2 must not use what it has
    negotiated.  If it raises or is cancelled, the connection is closed before it
    returns.
    """
    frame = attempt.cr_frame if isinstance(attempt, CoroutineType) else None
    task = asyncio.ensure_future(attempt)
    try:
        # Not wait_for(): the system's own timeout is a TimeoutError, too, and must be
        # raised unchanged.
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise ConnectTimeoutError(f"no connection to {where} in {timeout} seconds")
        try:
            task.result()
        except ssl.SSLError as error:
            if "NO_APPLICATION_PROTOCOL" not in (error.reason or ""):
                raise
            raise HTTPVersionError(
                ErrorCode.HTTP_1_1_REQUIRED,
                negotiated=None,
                remote=True,
                reason="the server has refused h2 by ALPN",
            ) from None
        if frame is not None:
            # asyncio's create_connection() keeps the errors of the addresses that
            # it could not reach. Their tracebacks refer to its frame, and the
            # frame to the connection.
            frame.clear()
        if pump.tls_fault is not None:
            raise _make_error(pump.tls_fault)
    except BaseException:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # mark it retrieved
        pump.abort()
        for _ in range(_TURNS_TO_END):
            await asyncio.sleep(0)
        if pump.transport is not None:
            # uvloop does not call a protocol that was connected in the turn in which
            # its attempt was cancelled.
            pump.connection_lost(None)
        raise


def _make_error(fault: TLSFault) -> ConnectionTerminatedError:
    """Make the exception for a TLS connection that HTTP/2 must not use."""
    if fault.error_code == ErrorCode.HTTP_1_1_REQUIRED:
        return HTTPVersionError(
            fault.error_code, negotiated=fault.negotiated, reason=fault.reason
        )
    return ConnectionTerminatedError(
        fault.error_code, remote=False, reason=fault.reason
    )
