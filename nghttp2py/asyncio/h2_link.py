"""HTTP/2's half of the exchanges that are coroutine streams (RFC 9113)."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from nghttp2py.asyncio.http2 import HTTP2Streams
from nghttp2py.asyncio.stream_link import StreamLink
from nghttp2py.asyncio.writer import PIECE
from nghttp2py.errors import ErrorCode, StreamClosedError
from nghttp2py.exchange import Exchange, ExchangeFactory, HTTPConnection
from nghttp2py.h2 import H2Connection, RequestReceived

__all__ = ["H2Link"]


def _new_stream(
    link: HTTPConnection, stream_id: int, request: RequestReceived
) -> Exchange:
    stream: Exchange = link.owner.request_received(stream_id, request)
    return stream


_FACTORY = ExchangeFactory(_new_stream)


class H2Link(StreamLink, HTTP2Streams):
    """The HTTP/2 connection of coroutine streams."""

    #: Whether the transport has paused writing.
    is_paused = False

    def __init__(
        self,
        owner: Any,
        connection: H2Connection,
        timeout: float | None,
        amounts: dict[int, int],
    ) -> None:
        # Weak, because the connection refers to this object: a cycle would outlive it.
        proxy: Any = weakref.proxy(owner)
        HTTP2Streams.__init__(self, proxy, connection, _FACTORY, amounts)
        self.prepare(timeout)

    async def wait_transport(self) -> None:
        """Wait until the transport accepts bytes; raise if it never will."""
        await self.owner.wait_transport()

    def release(self, exchange: Exchange) -> None:
        """Drop the reference to a stream on which nothing waits any more."""
        self.waiting.discard(exchange)
        self.blocked.discard(exchange.stream_id)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information."""
        with contextlib.suppress(ReferenceError):
            return super().get_extra_info(name, default)
        return default

    # ---- Sending ----

    def resume_stream(self, stream_id: int) -> None:
        """Ask the body's source of a stream again, if the stream is open."""
        self.connection.resume_body(stream_id)
        self.flush_soon()

    def room(self, exchange: Exchange, wanted: int, ahead: bool) -> int:
        """Return how many of ``wanted`` bytes may be queued now.

        With ``ahead`` a single larger piece is accepted if none is queued: C sends it
        as windows open.
        """
        stream_id = exchange.stream_id
        connection = self.connection
        queued = connection.queued_body(stream_id)
        if ahead:
            if not queued:
                return wanted
            low = 0
            if wanted <= PIECE:
                low = max(0, min(PIECE, connection.config.max_body_queue - wanted))
            return wanted if queued <= low or self.notify_writable(exchange, low) else 0
        if self.is_paused:
            self.blocked.add(stream_id)
            return 0
        n = min(
            wanted,
            PIECE - queued,
            connection.local_flow_control_window(stream_id),
        )
        if n > 0:
            return n
        self.blocked.add(stream_id)
        self.notify_writable(exchange, PIECE - 1)
        return 0

    def notify_writable(self, exchange: Exchange, low: int) -> bool:
        """Return whether at most ``low`` bytes are queued; if not, call ``writable``
        later."""
        try:
            return self.connection.notify_drained(exchange.stream_id, low)
        except StreamClosedError:
            return True  # our half was sent completely

    # Not that of StreamLink, which comes first.
    is_under_way = HTTP2Streams.is_under_way

    # ---- Receiving ----

    def push_received(
        self, stream_id: int, request: RequestReceived, parent: Exchange | None
    ) -> None:
        """Handle the promise of a response."""
        self.owner.push_received(stream_id, request)

    # ---- The end ----

    def stop_request(self, exchange: Exchange, error_code: int | None = None) -> None:
        """Ask the peer to stop sending.

        RFC 9113, 8.1: a server asks so after its response.  A client can only reset the
        stream when its own half has ended; until then it discards what arrives.
        """
        code = ErrorCode.CANCEL if self.client_side else ErrorCode.NO_ERROR
        self.connection.reset_stream(exchange.stream_id, code, after_flush=True)
        self.flush_soon()

    def drop(self, stream_id: int, sends: bool, receives: bool, task: Any) -> None:
        """Reset a stream that nothing refers to any more."""
        if task is not None:
            task.cancel()
        if sends or self.client_side:
            self.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        else:
            # RFC 9113, 8.1: the response is complete, the request need not be.
            self.connection.reset_stream(
                stream_id, ErrorCode.NO_ERROR, after_flush=True
            )
        self.flush_soon()
