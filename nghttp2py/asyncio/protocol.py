"""HTTP/2 streams for coroutines: aioh2's interface, and more of the same kind."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from nghttp2py.asyncio.health import Health
from nghttp2py.asyncio.pump import CLOSE_TIMEOUT, SETTINGS_TIMEOUT, H2Pump
from nghttp2py.asyncio.stream import H2Stream
from nghttp2py.asyncio.writer import Body, HeadersLike
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    NGHTTP2Error,
    NoSuchStreamError,
    ProtocolError,
    SendException,
    StreamClosedError,
    StreamResetError,
)
from nghttp2py.h2 import (
    H2BodyDrained,
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2Event,
    H2GoAway,
    H2InformationalResponseReceived,
    H2PingAcknowledged,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2SettingsReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    H2WindowUpdated,
    Setting,
)

__all__ = ["H2Protocol"]

logger = logging.getLogger("nghttp2py")

#: Received header fields: str, or bytes if ``header_encoding`` is ``None``.
Headers = list[tuple[str, str]] | list[tuple[bytes, bytes]]

# The window of a connection is no bound of ours: each stream's is, so that one
# which is not read does not stop the others.
_CONNECTION_WINDOW = 2**31 - 1
# Streams that a client keeps, for those who know their numbers only, after
# both halves have ended; a server keeps as many as may be open.
_FINISHED_STREAMS = 1000


class H2Protocol(H2Pump):
    """A connection whose streams coroutines use.

    A client calls ``start_request`` and ``recv_response``, a server
    ``recv_request`` and ``start_response``, with stream identifiers; or
    ``open_stream`` and ``accept_stream``, which give ``H2Stream`` objects.

    Header fields are given as a mapping or pairs, of str or bytes, pseudo-header
    fields included; received ones are lists of pairs of str in
    ``header_encoding`` (what does not decode is kept by surrogates), or of
    bytes if that is ``None``.

    ``concurrency`` is how many streams the peer may have open.
    ``functional_timeout``: see ``wait_functional``.  ``config`` has further
    settings; its ``manual_flow_control`` is always on, and credit is given when
    bytes are read.  After ``keepalive_interval`` seconds in which nothing came,
    PING asks for a sign of life, which must come within ``keepalive_timeout``.
    ``close_timeout`` is how long ``close`` lets streams finish.  With
    ``window_tuning``, the window of a stream that is read as fast as the peer
    sends grows with the round trip, up to 16 MiB.

    Each call that waits ends, if nothing else, by ``StreamResetError`` or
    ``ConnectionTerminatedError``.
    """

    def __init__(
        self,
        client_side: bool,
        *,
        concurrency: int | None = None,
        functional_timeout: float = 2,
        config: H2Configuration | None = None,
        header_encoding: str | None = "utf-8",
        settings_timeout: float = SETTINGS_TIMEOUT,
        idle_timeout: float | None = None,
        keepalive_interval: float | None = None,
        keepalive_timeout: float = 10.0,
        close_timeout: float = CLOSE_TIMEOUT,
        window_tuning: bool = True,
    ) -> None:
        if config is None:
            config = H2Configuration(
                max_concurrent_streams=8 if concurrency is None else concurrency,
                connection_window_size=_CONNECTION_WINDOW,
                manual_flow_control=True,
            )
        else:
            if concurrency is not None:
                config = dataclasses.replace(config, max_concurrent_streams=concurrency)
            config = dataclasses.replace(config, manual_flow_control=True)
        super().__init__(
            H2Connection(client_side=client_side, config=config),
            settings_timeout=settings_timeout,
            idle_timeout=idle_timeout,
        )
        #: Seconds without data after which ``wait_functional`` asks the peer.
        self.functional_timeout = functional_timeout
        self.close_timeout = close_timeout
        self._client_side = client_side
        self._encoding = header_encoding
        self._authority: str | None = None
        self._settings = {
            Setting.INITIAL_WINDOW_SIZE: config.initial_window_size,
            Setting.MAX_FRAME_SIZE: config.max_frame_size,
            Setting.MAX_CONCURRENT_STREAMS: config.max_concurrent_streams,
        }
        self._health = Health(
            self, keepalive_interval, keepalive_timeout, window_tuning
        )
        self._streams: dict[int, H2Stream] = {}
        self._finished: dict[int, H2Stream | None] = {}
        self._blocked: dict[H2Stream, int] = {}  # streams that wait to send
        self._arrived: deque[H2Stream] = deque()  # not accepted yet
        self._acceptors: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []  # wait for the transport
        self._open = 0  # our streams, and slots given to those who wait for one
        self._limit = 1  # of our streams; until SETTINGS come nobody knows more
        self._slots: deque[asyncio.Future[bool]] = deque()
        self._handler: asyncio.Task[Any] | None = None
        self._handler_wanted: Coroutine[Any, Any, Any] | None = None
        self._keeper: Keeper | None = None
        # Makes the exception that tells why no new streams can be had, and
        # the one that tells why the connection is over.
        self._refusal: Callable[[bool], ConnectionTerminatedError] | None = None
        self._over: Callable[[bool], ConnectionTerminatedError] | None = None
        self._lost = False
        self._gone_waiters: list[asyncio.Future[None]] = []

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection, and the handler's task."""
        super().connection_made(transport)
        if self._refused:
            return
        self._health.start()
        if self._keeper is not None:
            self._keeper.connection_made(self)
        if self._handler_wanted is not None:
            coroutine, self._handler_wanted = self._handler_wanted, None
            self._start_handler(coroutine)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self._wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything that waits, the handler's task first."""
        self._lost = True
        if self._handler is not None:
            self._handler.cancel()
        if self._handler_wanted is not None:
            self._handler_wanted.close()
        if exc is not None:
            self._end_waiters(
                ErrorCode.INTERNAL_ERROR,
                remote=True,
                reason=f"the connection was lost: {exc}",
            )
        elif self._refusal is not None:
            self._over = self._over or self._refusal
            self._end_waiters(ErrorCode.NO_ERROR, remote=True, reason="")
        else:
            self._end_waiters(
                ErrorCode.NO_ERROR,
                remote=not self._closing,
                reason="the transport was closed",
            )
        super().connection_lost(exc)
        self._check_gone()

    def _check_gone(self) -> None:
        """Tell when the connection is lost and its handler has ended."""
        if not self._lost or (self._handler is not None and not self._handler.done()):
            return
        for future in self._gone_waiters:
            if not future.done():
                future.set_result(None)
        self._gone_waiters.clear()
        if self._keeper is not None:
            self._keeper.connection_gone(self)
            self._keeper = None

    def _end(self, error_code: ErrorCode, reason: str) -> None:
        # Nobody should wait for a peer that does not even take our GOAWAY.
        self._end_waiters(error_code, remote=False, reason=reason)
        super()._end(error_code, reason)

    def abort(self) -> None:
        """Close the transport now; what it has not written yet is lost."""
        self._end_waiters(
            ErrorCode.CANCEL, remote=False, reason="the transport was aborted"
        )
        super().abort()

    # ---- Events ----

    def event_received(self, event: H2Event) -> None:
        """Tell the streams what has happened."""
        handle = _HANDLERS.get(type(event))
        if handle is not None:
            handle(self, event)

    def _on_request(self, event: H2RequestReceived | H2WebSocketRequest) -> None:
        stream = H2Stream(self, event.stream_id, event.request)
        self._streams[event.stream_id] = stream
        self._arrive(stream)

    def _on_push(self, event: H2PushedStreamReceived) -> None:
        stream = H2Stream(self, event.stream_id, event.request)
        self._streams[event.stream_id] = stream
        if len(self._arrived) >= self._settings[Setting.MAX_CONCURRENT_STREAMS]:
            self._arrived.popleft().reset()  # nobody wants it
        self._arrive(stream)

    def _on_response(self, event: H2ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._response = event
            stream._wake()

    def _on_informational(self, event: H2InformationalResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._inform(event)

    def _on_body(self, event: H2BodyReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            body = event.body
            reader = stream.reader
            if body.data:
                reader.feed_data(body.data)
            if not body.more:
                reader.feed_eof()
            stream._wake()

    def _on_trailers(self, event: H2TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._trailers = event.headers

    def _on_reset(self, event: H2StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._fail(
                lambda: StreamResetError(
                    event.stream_id,
                    event.error_code,
                    remote=event.remote,
                    unprocessed=event.unprocessed,
                    reason=event.reason,
                )
            )

    def _on_closed(self, event: H2StreamClosed) -> None:
        stream_id = event.stream_id
        if stream_id % 2 == self._client_side:
            self._open -= 1
            if self._slots:
                self._give_slots()
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        stream.closed = True
        if event.error_code and stream._failure is None:
            stream._failure = self._over_for(stream_id, event.error_code)
        if stream._kept:
            if event.error_code and stream in self._arrived:
                self._arrived.remove(stream)  # nobody has seen it
            else:
                self._finish_stream(stream)
        self._health.forget(stream)
        stream._wake()

    def _over_for(self, stream_id: int, error_code: int) -> Callable[[], ProtocolError]:
        """Why a stream was closed for which there was no reset."""
        over = self._over
        if over is not None:
            return lambda: over(False)
        return lambda: StreamResetError(stream_id, error_code, remote=False)

    def _on_window(self, event: H2WindowUpdated) -> None:
        if not self._blocked:
            return
        if event.stream_id == 0:
            self._wake_blocked()
        else:
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream._wake()

    def _on_drained(self, event: H2BodyDrained) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream._wake()

    def _on_settings(self, event: H2SettingsReceived) -> None:
        if Setting.MAX_CONCURRENT_STREAMS in event.settings:
            self._limit = event.settings[Setting.MAX_CONCURRENT_STREAMS]
        elif self._limit == 1 and not self._settings_seen:
            self._limit = 2**32 - 1
        self._settings_seen = True
        self._give_slots()

    _settings_seen = False

    def _on_ping(self, event: H2PingAcknowledged) -> None:
        self._health.acknowledged(event.data)

    def _on_goaway(self, event: H2GoAway) -> None:
        reason = event.debug_data.decode("utf-8", "replace") or "GOAWAY"
        self._refuse_streams(event.error_code, remote=True, reason=reason)

    def _on_connection_closed(self, event: H2ConnectionClosed) -> None:
        if not self._lost:
            self._end_waiters(
                event.error_code, remote=event.remote, reason=event.reason
            )

    # ---- The end ----

    def _refuse_streams(self, error_code: int, *, remote: bool, reason: str) -> None:
        """No new streams of ours: tell those who wait for one."""
        if self._refusal is None:
            self._refusal = lambda unprocessed: ConnectionTerminatedError(
                error_code, remote=remote, unprocessed=unprocessed, reason=reason
            )
        slots, self._slots = self._slots, deque()
        for future in slots:
            if not future.done():
                future.set_result(False)

    def _end_waiters(self, error_code: int, *, remote: bool, reason: str) -> None:
        """Nothing more comes or goes: wake everyone who waits for it."""
        if self._over is None:
            self._over = lambda unprocessed: ConnectionTerminatedError(
                error_code, remote=remote, unprocessed=unprocessed, reason=reason
            )
            self._refuse_streams(error_code, remote=remote, reason=reason)
        over = self._over
        for stream in list(self._streams.values()):
            stream._fail(lambda: over(False))
        self._wake_writers()
        self._wake_acceptors()
        self._health.stop()

    @property
    def is_available(self) -> bool:
        """Whether new streams can be opened: not after GOAWAY or the end."""
        return self._refusal is None and not self.is_closing

    @property
    def open_streams(self) -> int:
        """Streams that this end has opened and that are not closed."""
        return self._open

    @property
    def stream_limit(self) -> int | None:
        """How many the peer lets us open; ``None`` until it has told."""
        return self._limit if self._settings_seen else None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information: ``peername``, ``ssl_object``, ..."""
        if self.transport is None:
            return default
        return self.transport.get_extra_info(name, default)

    def close(self, timeout: float | None = None) -> None:
        """End the connection with GOAWAY when its streams have finished.

        What has not finished after ``timeout`` seconds (``close_timeout``) is
        broken off.  No new streams can be opened.  ``wait_closed`` waits for
        it.
        """
        self._refuse_streams(
            ErrorCode.NO_ERROR, remote=False, reason="close() was called"
        )
        super().close(self.close_timeout if timeout is None else timeout)

    def close_connection(self) -> None:
        """Close the transport after what is queued, without GOAWAY, as aioh2 does.

        Streams that are open end at once.
        """
        if self.transport is None:
            return
        self.flush()
        self._end_waiters(
            ErrorCode.NO_ERROR, remote=False, reason="close_connection() was called"
        )
        self._finish()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, and the handler's task has ended."""
        handler = self._handler
        if handler is not None and handler is asyncio.current_task():
            raise RuntimeError("the handler would wait for its own end")
        while not self._lost or (handler is not None and not handler.done()):
            await self._wait_in(self._gone_waiters)

    async def __aenter__(self) -> H2Protocol:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.close_connection()
        await self.wait_closed()

    # ---- The handler of a server's connection ----

    def set_handler(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as long as the connection lasts.

        It is cancelled when the connection is lost.  What it raises is logged
        and ends the connection with INTERNAL_ERROR.  Raises ``ProtocolError``
        if there is one already.
        """
        if self._handler is not None or self._handler_wanted is not None:
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
        if error is not None:
            if self._over is not None and isinstance(error, NGHTTP2Error):
                logger.debug("%s: the handler ended: %s", self, error)
            else:
                logger.error("%s: the handler failed", self, exc_info=error)
                if self.transport is not None:
                    self._end(ErrorCode.INTERNAL_ERROR, "the handler failed")
        self._check_gone()

    async def serve_streams(
        self, handler: Callable[[H2Stream], Awaitable[Any]]
    ) -> None:
        """Run ``handler(stream)`` as a task for each stream of the peer.

        A task is cancelled when its stream breaks off.  When it ends, a stream
        that has not finished is reset, with INTERNAL_ERROR if the handler
        failed, which is logged.  Returns when the connection is over and all
        tasks have ended.
        """
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                stream = await self.accept_stream()
                task = self._loop.create_task(self._serve_stream(handler, stream))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
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
        stream._task = asyncio.current_task()
        try:
            async with stream:
                stream._raise_failure()
                await handler(stream)
        except asyncio.CancelledError:
            if stream._failure is None:
                raise
        except Exception as error:
            if stream._failure is not None and isinstance(error, NGHTTP2Error):
                logger.debug("%s: the handler ended: %s", stream, error)
                return
            logger.exception("%s: the handler failed", stream)

    def _blame(self) -> ErrorCode:
        """The code of a stream that our side breaks off by an exception."""
        return ErrorCode.CANCEL if self._client_side else ErrorCode.INTERNAL_ERROR

    # ---- Waiting ----

    async def _writable(self) -> None:
        """Wait until the transport takes bytes."""
        while self._paused and self._over is None:
            await self._wait_in(self._writers)
        self._raise_over()

    async def _wait_in(self, waiters: list[asyncio.Future[None]]) -> None:
        future = self._loop.create_future()
        waiters.append(future)
        try:
            await future
        except BaseException:
            if future in waiters:
                waiters.remove(future)
            raise

    def _raise_over(self, unprocessed: bool = False) -> None:
        if self._over is not None:
            raise self._over(unprocessed)

    def _wake_blocked(self) -> None:
        for stream in list(self._blocked):
            stream._wake()

    def _wake_writers(self) -> None:
        for future in self._writers:
            if not future.done():
                future.set_result(None)
        self._writers.clear()
        self._wake_blocked()

    def _wake_acceptors(self) -> None:
        for future in self._acceptors:
            if not future.done():
                future.set_result(None)
        self._acceptors.clear()

    # ---- Opening and accepting streams ----

    async def open_stream(
        self, headers: HeadersLike, *, end_stream: bool = False
    ) -> H2Stream:
        """Send a request's header fields; return its stream.

        ``:method`` and ``:path`` must be among them; ``:scheme`` and
        ``:authority`` are the connection's if they are absent.  A body
        follows, unless ``end_stream``.  Waits while the peer allows no more
        streams.  Raises ``HeadersError``, and ``ConnectionTerminatedError``
        with ``unprocessed`` after GOAWAY or the end.
        """
        stream = await self._open_stream(headers, end_stream)
        stream._kept = False
        return stream

    async def _open_stream(self, headers: HeadersLike, end_stream: bool) -> H2Stream:
        if self._refusal is not None:
            raise self._refusal(True)
        if self._paused:
            await self._writable()
        if self._open >= self._limit or self._slots:
            await self._wait_for_slot()
        else:
            self._open += 1
        try:
            if self._refusal is not None:
                raise self._refusal(True)
            stream_id = self.connection.send_headers(
                None, self._request_fields(headers), end_stream=end_stream
            )
        except BaseException:
            self._open -= 1
            self._give_slots()
            raise
        stream = self._streams[stream_id] = H2Stream(self, stream_id)
        if end_stream:
            stream.writer._ended = True
        self.mark_dirty()
        return stream

    async def _wait_for_slot(self) -> None:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._slots.append(future)
        try:
            given = await future
        except BaseException:
            if future.done() and not future.cancelled() and future.result():
                self._open -= 1
                self._give_slots()
            raise
        if not given:
            assert self._refusal is not None
            raise self._refusal(True)

    def _give_slots(self) -> None:
        while self._slots and self._open < self._limit:
            future = self._slots.popleft()
            if not future.done():
                self._open += 1
                future.set_result(True)

    def _request_fields(self, headers: HeadersLike) -> list[Any]:
        fields: list[Any] = list(
            headers.items() if isinstance(headers, Mapping) else headers
        )
        names = {field[0] for field in fields}
        if ":path" in names or b":path" in names:
            if ":scheme" not in names and b":scheme" not in names:
                fields.insert(0, (b":scheme", self._scheme))
            if not names & _AUTHORITY:
                fields.insert(0, (b":authority", self._own_authority()))
        return fields

    @property
    def _scheme(self) -> bytes:
        return b"http" if self.get_extra_info("ssl_object") is None else b"https"

    def _set_authority(self, host: str, port: int | None) -> None:
        """The name by which the server was asked for."""
        self._authority = host if port is None else f"{host}:{port}"

    def _own_authority(self) -> str:
        if self._authority is None:
            peer = self.get_extra_info("peername")
            if isinstance(peer, tuple):
                host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
                self._set_authority(host, peer[1])
            else:
                self._authority = "localhost"
        assert self._authority is not None
        return self._authority

    def _arrive(self, stream: H2Stream) -> None:
        self._arrived.append(stream)
        if self._acceptors:
            self._wake_acceptors()

    async def _accept(self) -> H2Stream:
        while not self._arrived:
            self._raise_over()
            await self._wait_in(self._acceptors)
        return self._arrived.popleft()

    async def accept_stream(self) -> H2Stream:
        """Return the next request's stream, as soon as there is one.

        Raises ``ConnectionTerminatedError`` when there will be none.
        """
        stream = await self._accept()
        stream._kept = False
        self._finished.pop(stream.stream_id, None)
        return stream

    async def accept_push(self) -> H2Stream:
        """Return the next stream that the server pushes.

        It pushes only if ``config.enable_push`` is set.
        """
        return await self.accept_stream()

    async def _push(self, stream: H2Stream, headers: HeadersLike) -> H2Stream:
        if self._paused:
            await self._writable()
        stream._raise_failure()
        fields: list[Any] = list(
            headers.items() if isinstance(headers, Mapping) else headers
        )
        names = {field[0] for field in fields}
        request = stream.request
        assert request is not None or self._client_side
        if request is not None:
            if not names & _AUTHORITY and request.authority is not None:
                fields.insert(0, (b":authority", request.authority))
            if ":scheme" not in names and b":scheme" not in names:
                fields.insert(0, (b":scheme", request.scheme))
        if ":method" not in names and b":method" not in names:
            fields.insert(0, (b":method", b"GET"))
        stream_id = self.connection.push_stream(stream.stream_id, fields)
        self._open += 1
        pushed = self._streams[stream_id] = H2Stream(self, stream_id)
        pushed.reader.feed_eof()
        pushed._kept = False
        self.mark_dirty()
        return pushed

    def _reset(
        self, stream_id: int, error_code: int, *, after_flush: bool = False
    ) -> None:
        self.connection.reset_stream(stream_id, error_code, after_flush=after_flush)
        self.mark_dirty()

    def _acknowledge(self, stream: H2Stream, n: int, taken: int) -> None:
        connection = self.connection
        connection.acknowledge_received_data(n, stream.stream_id)
        self._health.taken(stream, taken)
        if connection.want_write:
            self.mark_dirty()

    # ---- Streams that are known by number ----

    def _finish_stream(self, stream: H2Stream) -> None:
        """Keep a closed stream for who will ask by number, within a bound."""
        finished = self._finished
        finished[stream.stream_id] = stream
        self._settle(stream)
        bound = (
            _FINISHED_STREAMS
            if self._client_side
            else self._settings[Setting.MAX_CONCURRENT_STREAMS]
        )
        while len(finished) > bound:
            del finished[next(iter(finished))]

    def _settle(self, stream: H2Stream) -> None:
        """Forget all of a closed stream that was taken: nothing is left to ask."""
        if (
            stream.reader.at_eof()
            and not stream._trailers
            and (stream._response_taken or stream._response is None)
            and stream.stream_id in self._finished
        ):
            self._finished[stream.stream_id] = None

    def _stream(self, stream_id: int) -> H2Stream:
        stream = self._streams.get(stream_id) or self._finished.get(stream_id)
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

        As ``open_stream``.
        """
        return (await self._open_stream(headers, end_stream)).stream_id

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
        stream = self._streams.get(stream_id) or self._finished.get(stream_id)
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
        pushed = await self._push(self._stream(stream_id), headers)
        pushed._kept = True
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
        response = await self._stream(stream_id).response()
        return self._decode(response.headers, response.status)

    async def recv_informational(self, stream_id: int) -> Headers | None:
        """Return the next 1xx response, or ``None`` if the final one has come."""
        event = await self._stream(stream_id).next_informational()
        return None if event is None else self._decode(event.headers, event.status)

    async def recv_trailers(self, stream_id: int) -> Headers | dict[str, str]:
        """Return the trailers, when the body has come in; ``{}`` if there are none."""
        if self._finished.get(stream_id, self) is None:
            del self._finished[stream_id]
            return {}
        stream = self._stream(stream_id)
        trailers = await stream.trailers()
        if stream.closed and stream.reader.at_eof():
            self._finished.pop(stream_id, None)
        return self._decode(trailers) if trailers else {}

    async def read_stream(self, stream_id: int, size: int | None = None) -> bytes:
        """Read from a stream's body; ``b""`` is its end.

        ``size`` ``None`` gives the rest of the DATA frame that came first,
        negative all until the end, else exactly so many bytes, less only at
        the end.
        """
        if self._finished.get(stream_id, self) is None:
            return b""
        reader = self._stream(stream_id).reader
        if size is None:
            return await reader.readframe()
        if size < 0:
            return await reader.read()
        return await reader._fill(size)

    # ---- The connection ----

    async def ping(self) -> float:
        """Send PING; return the seconds until its answer came."""
        return await self._health.ping()

    async def wait_functional(self) -> float | None:
        """Wait until the peer is known to be there.

        If something came in the last ``functional_timeout`` seconds, returns
        ``None``.  Else sends PING, each ``functional_timeout`` seconds until
        something comes, and returns the last round trip's time in seconds.
        """
        return await self._health.wait_functional(self.functional_timeout)

    def reprioritize(
        self,
        stream_id: int,
        depends_on: int | None = None,
        weight: int = 16,
        exclusive: bool = False,
    ) -> None:
        """Change how what we send on a stream ranks against other streams.

        RFC 7540's tree is obsolete; this server maps it to RFC 9218: a weight
        of 16 is urgency 3, 256 urgency 0, 1 urgency 7, and a stream that
        depends on another is less urgent than that by one.  On a client, whose
        streams share alike, it does nothing.  ``exclusive`` is not used.
        """
        if not 1 <= weight <= 256:
            raise ValueError(f"weight is {weight}, but must be from 1 to 256")
        stream = self._stream(stream_id)
        if self._client_side:
            return
        doublings = math.log2(weight / 16)
        urgency = round(3 - doublings * (0.75 if doublings > 0 else 1))
        if depends_on:
            urgency = min(7, self._stream(depends_on)._urgency + 1)
        stream._urgency = urgency
        self.connection.set_priority(stream_id, urgency, True, override=True)

    def update_settings(self, settings: Mapping[int, int]) -> None:
        """Send SETTINGS: ``Setting`` or number to value."""
        known = {Setting(k) if k in _KNOWN else k: v for k, v in settings.items()}
        super().update_settings(dict(known))
        for setting in self._settings:
            if setting in known:
                self._settings[setting] = known[setting]

    def _setting(setting: Setting, doc: str) -> Any:  # type: ignore[misc]
        def get(self: H2Protocol) -> int:
            return self._settings[setting]

        def set(self: H2Protocol, value: int) -> None:
            self.update_settings({setting: value})

        return property(get, set, doc=doc)

    initial_window_size = _setting(
        Setting.INITIAL_WINDOW_SIZE, "Bytes that the peer may send ahead on a stream."
    )
    max_frame_size = _setting(
        Setting.MAX_FRAME_SIZE, "The largest frame payload that we take."
    )
    max_concurrent_streams = _setting(
        Setting.MAX_CONCURRENT_STREAMS, "How many streams the peer may have open."
    )
    del _setting


class Keeper(Protocol):
    """Who keeps a server's connections together."""

    def connection_made(self, protocol: H2Protocol) -> None:
        """The connection is there: its handler may begin."""

    def connection_gone(self, protocol: H2Protocol) -> None:
        """It is lost, and its handler has ended."""


_AUTHORITY = frozenset({":authority", b":authority", "host", b"host"})
_KNOWN = frozenset(int(setting) for setting in Setting)

_HANDLERS: dict[type, Callable[[H2Protocol, Any], None]] = {
    H2BodyDrained: H2Protocol._on_drained,
    H2BodyReceived: H2Protocol._on_body,
    H2ConnectionClosed: H2Protocol._on_connection_closed,
    H2GoAway: H2Protocol._on_goaway,
    H2InformationalResponseReceived: H2Protocol._on_informational,
    H2PingAcknowledged: H2Protocol._on_ping,
    H2PushedStreamReceived: H2Protocol._on_push,
    H2RequestReceived: H2Protocol._on_request,
    H2ResponseReceived: H2Protocol._on_response,
    H2SettingsReceived: H2Protocol._on_settings,
    H2StreamClosed: H2Protocol._on_closed,
    H2StreamReset: H2Protocol._on_reset,
    H2TrailersReceived: H2Protocol._on_trailers,
    H2WebSocketRequest: H2Protocol._on_request,
    H2WindowUpdated: H2Protocol._on_window,
}
