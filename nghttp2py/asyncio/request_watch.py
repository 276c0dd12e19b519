"""The bounds of one request in time, and the reports of its progress."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from nghttp2py.asyncio.deadlines import Deadlines
from nghttp2py.asyncio.origin import Connection, OriginConnections
from nghttp2py.asyncio.request_body import RequestBody
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.time_limits import (
    ProgressLimit,
    RequestTimeouts,
    TimeLimit,
    UploadLimit,
)
from nghttp2py.asyncio.writer import HeadersLike
from nghttp2py.errors import PoolTimeoutError

if TYPE_CHECKING:
    from nghttp2py.asyncio.client_options import Trace

__all__ = ["RequestWatch"]


class RequestWatch:
    """Takes the steps of a request with ``RequestTimeouts`` or a trace function.

    ``trace`` is called with the name of an event and a dict, and may return an
    awaitable.  Each step has the events ``.started``, ``.complete`` and ``.failed``.
    """

    def __init__(
        self,
        find_deadlines: Callable[[float | None], Deadlines | None],
        timeouts: RequestTimeouts | None,
        trace: Trace | None,
    ) -> None:
        self._find_deadlines = find_deadlines
        self.timeouts = timeouts
        self._trace = trace

    async def _run(
        self, name: str, step: Coroutine[Any, Any, Any], **about: Any
    ) -> Any:
        """Await a step of the request; report its begin and its end."""
        trace = self._trace
        if trace is None:
            return await step
        try:
            await _call(trace, f"{name}.started", about)
        except BaseException:
            step.close()
            raise
        try:
            result = await step
        except BaseException as error:
            await _call(trace, f"{name}.failed", {"exception": error})
            raise
        try:
            await _call(trace, f"{name}.complete", {"return_value": result})
        except BaseException:
            if isinstance(result, Stream):
                result.reset()
            raise
        return result

    async def find(self, connections: OriginConnections) -> Connection:
        """Find a connection: event ``connect``."""
        connection: Connection = await self._run(
            "connect", connections.find(self.timeouts)
        )
        return connection

    async def open_stream(
        self, connection: Connection, fields: list[Any], end_stream: bool
    ) -> Stream:
        """Send the header section: event ``send_request_headers``."""
        seconds = self.timeouts.pool if self.timeouts is not None else None
        with TimeLimit(
            self._find_deadlines(seconds), "no free stream", PoolTimeoutError
        ):
            if connection.is_full:
                await connection.wait_free()
            step = connection.open_stream(fields, end_stream=end_stream)
            stream: Stream = await self._run(
                "send_request_headers", step, fields=fields, connection=connection
            )
        return stream

    async def send_body(
        self, body: RequestBody, stream: Stream, trailers: HeadersLike | None
    ) -> None:
        """Queue the body or its source: event ``send_request_body``."""

        async def send() -> None:
            if self.timeouts is not None and self.timeouts.write is not None:
                body.count()
            body.send(stream, trailers)

        await self._run("send_request_body", send(), stream_id=stream.stream_id)

    async def respond(self, stream: Stream, body: RequestBody) -> Any:
        """Wait for the response: event ``receive_response_headers``."""
        timeouts = self.timeouts
        if timeouts is not None and body.is_empty:
            # One timer is enough for all requests without a body.
            deadlines = self._find_deadlines(timeouts.read)
            step = _respond_in_time(stream, deadlines)
        elif timeouts is not None and (timeouts.read or timeouts.write):
            step = _respond_within(stream, body, timeouts)
        else:
            step = stream.response()
        return await self._run(
            "receive_response_headers", step, stream_id=stream.stream_id
        )


async def _respond_in_time(stream: Stream, deadlines: Deadlines | None) -> Any:
    with TimeLimit(deadlines, "no response"):
        return await stream.response()


async def _respond_within(
    stream: Stream, body: RequestBody, timeouts: RequestTimeouts
) -> Any:
    with ProgressLimit(stream, body, timeouts):
        response = await stream.response()
    if timeouts.write is not None:
        UploadLimit(stream, body, timeouts.write)
    return response


async def _call(trace: Trace, name: str, about: dict[str, Any]) -> None:
    result = trace(name, about)
    if inspect.isawaitable(result):
        await result
