"""HTTP/2 streams for coroutines: aioh2's interface, with additions."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from nghttp2py.arguments import check_seconds, check_type
from nghttp2py.asyncio.connection import H2StreamConnection
from nghttp2py.asyncio.stream import H2Stream, is_of_peer, serve_stream
from nghttp2py.asyncio.writer import Body, HeadersLike
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    NGHTTP2Error,
    NoSuchStreamError,
    ProtocolError,
    SendException,
    StreamClosedError,
)
from nghttp2py.h2 import H2Connection, Setting
from nghttp2py.log_budget import MemoryLog

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nghttp2py.asyncio.h2_options import StreamConnectionOptions

    # aioquic has these names at this path; QUIC is imported when they are first used.
    from nghttp2py.asyncio.quic_protocol import (
        QuicConnectionProtocol as QuicConnectionProtocol,
    )
    from nghttp2py.asyncio.quic_protocol import QuicStreamHandler as QuicStreamHandler

_QUIC = {"QuicConnectionProtocol", "QuicStreamHandler"}

__all__ = ["H2Protocol"]

logger = logging.getLogger(__name__)

_memory_log = MemoryLog(logger)

#: Received header fields: str, or bytes if ``header_encoding`` is ``None``.
Headers = list[tuple[str, str]] | list[tuple[bytes, bytes]]

# How many closed streams a client keeps for callers that use identifiers; a server
# keeps as many as may be open.
_FINISHED_STREAMS = 1000
_KNOWN = frozenset(int(setting) for setting in Setting)


def _setting_property(setting: Setting, doc: str) -> Any:
    """Make a property of ``H2Protocol`` for one of our settings."""

    def get(self: H2Protocol) -> int:
        return self._settings[setting]

    def set(self: H2Protocol, value: int) -> None:
        self.update_settings({setting: value})

    return property(get, set, doc=doc)


class H2Protocol(H2StreamConnection):
    """A connection whose streams coroutines use.

    A client calls ``start_request`` and ``recv_response``, a server ``recv_request``
    and ``start_response``, with stream identifiers; or ``open_stream`` and
    ``accept_stream``, which return ``H2Stream`` objects.

    Header fields are given as a mapping or pairs, of str or bytes, pseudo-header fields
    included; received ones are lists of pairs of str in ``header_encoding`` (invalid
    octets become surrogates), or of bytes if that is ``None``.

    ``concurrency`` is the number of streams that the peer may have open.
    ``functional_timeout``: see ``wait_functional``.  ``config`` has further settings;
    its ``manual_flow_control`` is always on, and credit is given when bytes are read.
    ``timeouts`` bounds what the peer can make this end wait for: a server's default is
    ``Timeouts()``; ``settings_timeout``, ``idle_timeout`` and ``close_timeout`` replace
    one field of it.  After ``keepalive_interval`` seconds in which nothing arrived,
    whether a request is open or not, PING is sent, and something must arrive within
    ``keepalive_timeout``.  With ``window_tuning``, the window of a stream that is read
    as fast as the peer sends grows with the round trip, up to 16 MiB.

    ``timeout`` bounds each wait of a call on a stream while nothing happens to the
    stream (``None``: no limit): for a response, a piece of a body, credit.  After it
    the call raises ``StreamTimeoutError``, which is a ``TimeoutError``, and the stream
    is reset; ``open_stream`` raises ``TimeoutError`` if its turn has not come.

    Each call that waits raises ``StreamResetError`` or ``ConnectionTerminatedError`` if
    the stream or the connection ends.
    """

    def __init__(
        self,
        client_side: bool,
        *,
        functional_timeout: float = 2,
        header_encoding: str | None = "utf-8",
        **options: Unpack[StreamConnectionOptions],
    ) -> None:
        check_seconds("functional_timeout", functional_timeout, optional=False)
        if header_encoding is not None:
            check_type("header_encoding", header_encoding, str, "a str or None")
        super().__init__(client_side, **options)
        #: Seconds without received data after which ``wait_functional`` sends PING.
        self.functional_timeout = functional_timeout
        self._encoding = header_encoding
        self._finished: dict[int, H2Stream | None] = {}
        self._handler: asyncio.Task[Any] | None = None
        self._handler_wanted: Coroutine[Any, Any, Any] | None = None
        self._handler_ended = False

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection, and the handler's task."""
        super().connection_made(transport)
        if self._handler_wanted is not None and self._begun:
            coroutine, self._handler_wanted = self._handler_wanted, None
            self._start_handler(coroutine)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the handler's task, and end everything else that waits."""
        if self._handler is not None:
            self._handler.cancel()
        if self._handler_wanted is not None:
            self._handler_wanted.close()
        super().connection_lost(exc)

    def _is_gone(self) -> bool:
        return self._lost and self._handler is None

    @property
    def _conn(self) -> H2Connection | None:
        # aioh2's name: programs check whether it is None.
        return None if self.transport is None else self.connection

    # ---- The handler of a server's connection ----

    def set_handler(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task, until the connection is lost.

        It is cancelled when the connection is lost.  An exception of it is logged and
        ends the connection with INTERNAL_ERROR.  Raises ``ProtocolError`` if there is a
        handler already.
        """
        if (
            self._handler is not None
            or self._handler_wanted is not None
            or self._handler_ended
        ):
            coroutine.close()
            raise ProtocolError("this connection has a handler already")
        if self._lost:
            coroutine.close()
        elif self.transport is None:
            self._handler_wanted = coroutine
        else:
            self._start_handler(coroutine)

    def _start_handler(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._handler = self._loop.create_task(coroutine)
        self._handler.add_done_callback(self._handler_done)

    def _handler_done(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        self._handler = None  # its traceback refers to this connection
        self._handler_ended = True
        if error is not None:
            if self._over is not None and isinstance(error, NGHTTP2Error):
                logger.debug("%s: the handler ended: %s", self, error)
            elif is_of_peer(error):
                # The program has not caught it; it is no failure of ours either.
                self._terminate(ErrorCode.NO_ERROR, f"the handler ended: {error}")
            else:
                _memory_log.failed(error, "%s: the handler failed", self)
                if self.transport is not None:
                    self._terminate(ErrorCode.INTERNAL_ERROR, "the handler failed")
        self._check_gone()

    async def serve_streams(
        self, handler: Callable[[H2Stream], Awaitable[Any]]
    ) -> None:
        """Run ``handler(stream)`` as a task for each stream of the peer.

        A task is cancelled when its stream breaks off.  A failure of a handler is
        logged; if it has not begun a response, or returns without one, the client gets
        status 500.  When a task ends, a stream that has not finished is reset, with
        INTERNAL_ERROR if the handler failed.  Returns when the connection has ended and
        all tasks have ended.
        """
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                stream = await self.accept_stream()
                task = self._loop.create_task(self._serve_stream(handler, stream))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                # An idle connection keeps nothing of its last request.
                del stream, task
        except ConnectionTerminatedError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            while tasks:
                await asyncio.wait(tasks)

    async def _serve_stream(
        self, handler: Callable[[H2Stream], Awaitable[Any]], stream: H2Stream
    ) -> None:
        self.keep_until_closed(stream)
        await serve_stream(handler, stream)

    # ---- Streams by identifier ----

    def _keep(self, stream: H2Stream) -> None:
        """Keep a closed stream for calls with its identifier, up to a bound."""
        finished = self._finished
        finished[stream.stream_id] = stream
        self._drop_finished(stream)
        bound = (
            _FINISHED_STREAMS
            if self._client_side
            else self._settings[Setting.MAX_CONCURRENT_STREAMS]
        )
        while len(finished) > bound:
            del finished[next(iter(finished))]

    def _forget(self, stream: H2Stream) -> None:
        self._finished.pop(stream.stream_id, None)

    def _drop_finished(self, stream: H2Stream) -> None:
        """Forget a closed stream of which nothing is left to read."""
        if stream.is_read and stream.stream_id in self._finished:
            self._finished[stream.stream_id] = None

    def _stream(self, stream_id: int) -> H2Stream:
        stream = self._find(stream_id) or self._finished.get(stream_id)
        if stream is None:
            self._raise_over()
            raise NoSuchStreamError(
                f"stream {stream_id} never was, or is closed and forgotten", stream_id
            )
        return stream

    def _decode(
        self,
        fields: tuple[tuple[bytes, bytes], ...],
        status: int | None = None,
    ) -> Headers:
        encoding = self._encoding
        if encoding is None:
            pairs = list(fields)
            if status is not None:
                pairs.insert(0, (b":status", b"%d" % status))
            return pairs
        headers = [] if status is None else [(":status", str(status))]
        headers += [
            (
                name.decode(encoding, "surrogateescape"),
                value.decode(encoding, "surrogateescape"),
            )
            for name, value in fields
        ]
        return headers

    async def start_request(
        self, headers: HeadersLike, *, end_stream: bool = False
    ) -> int:
        """Send a request's header fields; return its stream's identifier.

        It waits and raises as ``open_stream``.
        """
        fields = self._request_fields(headers)
        stream = self.try_open(fields, end_stream, kept=True)
        if stream is None:
            await self._wait_to_open()
            stream = self._send_request(fields, end_stream, kept=True)
        return stream.stream_id

    async def start_response(
        self, stream_id: int, headers: HeadersLike, *, end_stream: bool = False
    ) -> None:
        """Send a response's header fields: ``H2Stream.start_response``."""
        await self._stream(stream_id).start_response(headers, end_stream=end_stream)

    async def send_informational(
        self, stream_id: int, status: int, headers: HeadersLike = ()
    ) -> None:
        """Send a 1xx response: ``H2Stream.send_informational``."""
        await self._stream(stream_id).send_informational(status, headers)

    async def send_data(
        self,
        stream_id: int,
        data: bytes | bytearray | memoryview,
        *,
        end_stream: bool = False,
    ) -> None:
        """Send a piece of a body: ``H2StreamWriter.send_data``."""
        stream = self._find(stream_id) or self._finished.get(stream_id)
        if stream is None:
            raise SendException(
                bytes(data), f"{len(data)} bytes were not sent: no stream {stream_id}"
            ) from (
                StreamClosedError(f"stream {stream_id} is closed", stream_id)
                if self._over is None
                else self._over(False)
            )
        await stream.writer.send_data(data, end_stream=end_stream)

    async def send_body(
        self,
        stream_id: int,
        body: Body,
        *,
        trailers: HeadersLike | None = None,
        end_stream: bool = True,
    ) -> None:
        """Send a body of any form: ``H2StreamWriter.send_body``."""
        await self._stream(stream_id).writer.send_body(
            body, trailers=trailers, end_stream=end_stream
        )

    async def send_trailers(self, stream_id: int, headers: HeadersLike) -> None:
        """End our half of a stream with trailers."""
        await self._stream(stream_id).send_trailers(headers)

    async def end_stream(self, stream_id: int) -> None:
        """End our half of a stream."""
        await self._stream(stream_id).writer.end_stream()

    def reset_stream(self, stream_id: int, error_code: int = ErrorCode.CANCEL) -> None:
        """End both halves of a stream at once: ``H2Stream.reset``."""
        self._stream(stream_id).reset(error_code)

    async def push(self, stream_id: int, headers: HeadersLike) -> int:
        """Promise a response: ``H2Stream.push``; return its stream's identifier."""
        pushed = await self.push_stream(self._stream(stream_id), headers, kept=True)
        return pushed.stream_id

    async def recv_request(self) -> tuple[int, Headers]:
        """Return the next request's stream identifier and header fields.

        On a client: those of the next pushed stream.
        """
        stream = await self._accept()
        assert stream.request is not None
        return stream.stream_id, self._decode(stream.request.fields)

    async def recv_response(self, stream_id: int) -> Headers:
        """Return the final response's header fields, ``:status`` first."""
        stream = self._stream(stream_id)
        response = await stream.response()
        self._drop_finished(stream)
        return self._decode(response.headers, response.status)

    async def recv_informational(self, stream_id: int) -> Headers | None:
        """Wait for the next 1xx response; ``None`` if the final one has come."""
        event = await self._stream(stream_id).next_informational()
        return None if event is None else self._decode(event.headers, event.status)

    async def recv_trailers(self, stream_id: int) -> Headers | dict[str, str]:
        """Wait for the end of the body, and return the trailers; ``{}`` if there are
        none."""
        if self._finished.get(stream_id, self) is None:
            del self._finished[stream_id]
            return {}
        stream = self._stream(stream_id)
        trailers = await stream.trailers()
        if stream.closed and stream.at_eof():
            self._finished.pop(stream_id, None)
        return self._decode(trailers) if trailers else {}

    async def read_stream(self, stream_id: int, size: int | None = None) -> bytes:
        """Read from a stream's body; ``b""`` means its end.

        With ``size`` ``None`` it returns the rest of the oldest DATA frame, with a
        negative one everything until the end, otherwise exactly ``size`` bytes, fewer
        only at the end.
        """
        if self._finished.get(stream_id, self) is None:
            return b""
        stream = self._stream(stream_id)
        if size is None:
            data = await stream.readframe()
        elif size < 0:
            data = await stream.read()
        else:
            data = await stream.readatmost(size)
        self._drop_finished(stream)
        return data

    # ---- The connection ----

    async def ping(self) -> float:
        """Send PING, wait for its answer, and return the round-trip time in seconds."""
        return await self._keepalive_pings.ping()

    async def wait_functional(self) -> float | None:
        """Wait until the peer is known to be alive.

        If something arrived in the last ``functional_timeout`` seconds, it returns
        ``None``.  Otherwise it sends PING every ``functional_timeout`` seconds until
        something arrives, and returns the last round-trip time in seconds.
        """
        return await self._keepalive_pings.wait_functional(self.functional_timeout)

    def reprioritize(
        self,
        stream_id: int,
        depends_on: int | None = None,
        weight: int = 16,
        exclusive: bool = False,
    ) -> None:
        """Change the priority of what we send on a stream.

        RFC 7540's tree is obsolete; this server maps it to RFC 9218: a weight of 16 is
        urgency 3, 256 urgency 0, 1 urgency 7, and a stream that depends on another is
        less urgent than that by one.  On a client, whose streams share equally, this is
        a no-op.  ``exclusive`` is ignored.
        """
        if not 1 <= weight <= 256:
            raise ValueError(f"weight is {weight}, but must be from 1 to 256")
        stream = self._stream(stream_id)
        if self._client_side:
            return
        doublings = math.log2(weight / 16)
        urgency = round(3 - doublings * (0.75 if doublings > 0 else 1))
        if depends_on:
            urgency = min(7, self._stream(depends_on).urgency + 1)
        stream.urgency = urgency
        self.connection.set_priority(stream_id, urgency, True, override=True)

    def update_settings(self, settings: Mapping[int, int]) -> None:
        """Send SETTINGS: ``Setting`` or number to value."""
        known = {Setting(k) if k in _KNOWN else k: v for k, v in settings.items()}
        super().update_settings(dict(known))
        for setting in self._settings:
            if setting in known:
                self._settings[setting] = known[setting]

    initial_window_size = _setting_property(
        Setting.INITIAL_WINDOW_SIZE, "Bytes that the peer may send ahead on a stream."
    )
    max_frame_size = _setting_property(
        Setting.MAX_FRAME_SIZE, "The largest frame payload that we take."
    )
    max_concurrent_streams = _setting_property(
        Setting.MAX_CONCURRENT_STREAMS, "How many streams the peer may have open."
    )


def __getattr__(name: str) -> object:
    if name in _QUIC:
        from nghttp2py.asyncio import quic_protocol

        return getattr(quic_protocol, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
