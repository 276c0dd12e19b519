"""HTTP/1.1's half of the exchanges that are coroutine streams (RFC 9112)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nghttp2py.asyncio.h1_pump import H1Pump
from nghttp2py.asyncio.http1 import HTTP1Exchanges
from nghttp2py.asyncio.stream import Stream, serve_stream
from nghttp2py.asyncio.stream_link import StreamLink
from nghttp2py.asyncio.writer import PIECE
from nghttp2py.errors import ErrorCode
from nghttp2py.exchange import Exchange, ExchangeFactory, HTTPConnection
from nghttp2py.h1 import H1Connection
from nghttp2py.h2 import RequestReceived

__all__ = ["H1Link", "H1Streams"]


class H1Link(StreamLink, HTTP1Exchanges):
    """The HTTP/1.1 connection of coroutine streams."""

    def __init__(
        self,
        owner: H1Pump,
        connection: H1Connection,
        factory: ExchangeFactory | None,
        window: int,
    ) -> None:
        HTTP1Exchanges.__init__(self, owner, connection, factory, window=window)
        self.prepare()

    @property
    def is_paused(self) -> bool:
        """Whether the transport has paused writing."""
        return self.paused

    async def wait_transport(self) -> None:
        """Wait until the transport accepts bytes; raise if it never will."""
        owner = self.owner
        if owner is not None:
            await owner.wait_transport()

    def keep_record(self, exchange: Exchange) -> None:
        """Do nothing: the connection refers to a stream until it is closed."""

    def resume_stream(self, stream_id: int) -> None:
        """Ask the body's source of a stream again, if the stream is open."""
        stream = self.exchanges.get(stream_id)
        if stream is not None:
            self.resume_body(stream)

    def room(self, exchange: Exchange, wanted: int, ahead: bool) -> int:
        """Return how many of ``wanted`` bytes may be queued now.

        With ``ahead`` a single larger piece is accepted if none is queued.
        """
        queued: int = self.queued(exchange)
        if ahead and not queued:
            return wanted
        if ahead:
            low = 0
            if wanted <= PIECE:
                low = max(0, min(PIECE, self.connection.max_body_queue - wanted))
            return wanted if queued <= low or self.notify_writable(exchange, low) else 0
        n: int = HTTP1Exchanges.room(self, exchange, wanted, False)
        return n

    # Not that of StreamLink, which comes first.
    is_under_way = HTTP1Exchanges.is_under_way

    def drop(self, stream_id: int, sends: bool, receives: bool, task: Any) -> None:
        """Reset a stream that nothing refers to any more."""
        stream = self.exchanges.get(stream_id)
        if stream is not None:
            self.reset(stream, ErrorCode.CANCEL)


class H1Streams(H1Pump):
    """One HTTP/1.1 connection of a server, whose requests a coroutine answers.

    ``handler(stream)`` runs as a task for each of them.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Any]],
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(
            ExchangeFactory(partial(_new_stream, handler)), *args, **options
        )

    def _make_exchanges(
        self, connection: H1Connection, factory: ExchangeFactory | None, window: int
    ) -> HTTP1Exchanges:
        return H1Link(self, connection, factory, window)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        http: Any = self.http
        http.loop = asyncio.get_running_loop()
        super().connection_made(transport)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information: ``peername``, ``ssl_object``, ..."""
        return self.http.get_extra_info(name, default)


def _new_stream(
    handler: Callable[[Any], Awaitable[Any]],
    link: HTTPConnection,
    stream_id: int,
    request: RequestReceived,
) -> Exchange:
    http: Any = link
    stream = Stream(http.owner, http, stream_id, request)
    http.tasks.start(serve_stream(handler, stream), _ended)
    return stream


def _ended(task: asyncio.Future[Any]) -> None:
    """Do nothing: ``serve_stream`` has logged what was raised."""
