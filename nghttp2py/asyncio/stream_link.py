"""What coroutine streams need of their connection's half of an exchange."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nghttp2py.errors import StreamResetError
from nghttp2py.exchange import Exchange, HTTPConnection

__all__ = ["Codes", "StreamLink"]


@dataclass(frozen=True)
class Codes:
    """The error codes of a protocol, by what they mean."""

    no_error: int
    cancelled: int
    internal_error: int
    message_error: int


class StreamLink(HTTPConnection):
    """A connection's half of the exchanges that are coroutine streams.

    ``timeout`` is how long a wait on a stream may last in which nothing happens to
    it, in seconds.  ``waiting`` keeps the streams that have a wait: their users may
    have nothing else that refers to them.
    """

    codes: Codes
    #: Whether one half of a stream can be broken off by itself.  A server stops a
    #: request that it has answered then; over HTTP/2 a client gives up the stream as
    #: soon as an error response is whole.
    halves_end_alone = False
    #: The largest error code.
    max_code = 2**32 - 1
    #: The event loop of the connection.
    loop: asyncio.AbstractEventLoop

    def prepare(self, timeout: float | None = None) -> None:
        """Set what streams need besides what an ``HTTPConnection`` has."""
        self.timeout = timeout
        self.waiting: set[Any] = set()

    def make_failure(
        self, stream_id: int, error_code: int, reason: str
    ) -> Callable[[], Exception]:
        """Return what makes the exception of a stream that we reset."""
        return lambda: StreamResetError(
            stream_id, error_code, remote=False, reason=reason
        )

    @property
    def is_paused(self) -> bool:
        """Whether the transport wants no bytes now."""
        return False

    def check_code(self, error_code: int) -> None:
        """Refuse what cannot be an error code."""
        if not 0 <= error_code <= self.max_code:
            raise ValueError(f"an error code is 0 to {self.max_code}, not {error_code}")

    def release(self, exchange: Exchange) -> None:
        """Let go of a stream on which nothing waits any more."""
        self.waiting.discard(exchange)

    async def wait_transport(self) -> None:
        """Wait until the transport takes bytes; raise if it never will."""

    def is_under_way(self, exchange: Exchange) -> bool:
        """Whether the peer's credit, and ours, suffice for all that is queued."""
        return True

    def refuse_body(self, exchange: Exchange) -> None:
        """A client's body is refused: its half is of no use any more.

        A protocol in which a half cannot end alone waits for the whole response.
        """

    @abstractmethod
    def drop(self, stream_id: int, sends: bool, receives: bool, task: Any) -> None:
        """Reset a stream that nothing refers to any more."""
