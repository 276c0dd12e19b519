"""What coroutine streams need from their connection."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nghttp2py.asyncio.stream_state import Wakeups
from nghttp2py.errors import ErrorCode, StreamResetError, error_code_name
from nghttp2py.exchange import Exchange, HTTPConnection

__all__ = ["Codes", "Failure", "StreamLink"]

#: Makes the exception for why a half of a stream broke off.  An exception raised twice
#: would keep the frames of both.
Failure = Callable[[], Exception]


@dataclass(frozen=True)
class Codes:
    """The error codes of a protocol, by their meaning."""

    no_error: int
    cancelled: int
    internal_error: int
    message_error: int


# HTTP/1.1 has none of its own.
_CODES_OF_HTTP2 = Codes(
    no_error=ErrorCode.NO_ERROR,
    cancelled=ErrorCode.CANCEL,
    internal_error=ErrorCode.INTERNAL_ERROR,
    message_error=ErrorCode.PROTOCOL_ERROR,
)


class StreamLink(HTTPConnection):
    """The connection's half of exchanges that are coroutine streams.

    ``timeout`` bounds a wait on a stream while nothing happens to the stream, in
    seconds.  ``waiting`` refers to the streams on which a call waits: there may be no
    other reference to them.
    """

    codes = _CODES_OF_HTTP2
    #: Whether one half of a stream can be broken off alone.  If so, a server stops a
    #: request that it has answered; over HTTP/2, which cannot, a client resets the
    #: stream as soon as an error response is complete.
    halves_end_alone = False
    #: The largest error code.
    max_code = 2**32 - 1
    #: The event loop of the connection.
    loop: asyncio.AbstractEventLoop

    def prepare(self, timeout: float | None = None) -> None:
        """Set the attributes that an ``HTTPConnection`` does not have."""
        self.timeout = timeout
        self.wakeups = Wakeups()
        self.waiting = self.wakeups.waiting

    def code_name(self, error_code: int) -> str:
        """Return the name of an error code of the protocol, or the number."""
        return error_code_name(error_code)

    def make_failure(
        self, stream_id: int, error_code: int, reason: str
    ) -> Callable[[], Exception]:
        """Return a function that makes the exception of a stream that we reset."""
        return lambda: StreamResetError(
            stream_id, error_code, remote=False, reason=reason
        )

    @property
    def is_paused(self) -> bool:
        """Whether the transport has paused writing."""
        return False

    def check_code(self, error_code: int) -> None:
        """Raise for what cannot be an error code."""
        if not 0 <= error_code <= self.max_code:
            raise ValueError(f"an error code is 0 to {self.max_code}, not {error_code}")

    def release(self, exchange: Exchange) -> None:
        """Drop the reference to a stream on which nothing waits any more."""
        self.waiting.discard(exchange)

    async def wait_transport(self) -> None:
        """Wait until the transport accepts bytes; raise if it never will."""

    def is_under_way(self, exchange: Exchange) -> bool:
        """Return whether the peer's credit, and our bounds, allow sending all that is
        queued."""
        return True

    def refuse_body(self, exchange: Exchange) -> None:
        """Handle that a client's body is refused: its half is not needed any more.

        A protocol in which a half cannot end alone waits for the whole response.
        """

    @abstractmethod
    def drop(self, stream_id: int, sends: bool, receives: bool, task: Any) -> None:
        """Reset a stream that nothing refers to any more."""
