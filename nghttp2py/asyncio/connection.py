"""An HTTP/2 connection with stream objects: opening, accepting, waiting, closing."""

from __future__ import annotations

import asyncio
import dataclasses
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from nghttp2py.arguments import check_bool, check_int, check_seconds
from nghttp2py.asyncio.h2_link import H2Link
from nghttp2py.asyncio.keepalive import KeepAlive
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.stream import AUTHORITY, METHOD, SCHEME, H2Stream
from nghttp2py.asyncio.timeouts import (
    UNSET,
    Timeouts,
    check_keepalive,
    merge_timeouts,
)
from nghttp2py.asyncio.url import make_authority
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.asyncio.writer import HeadersLike, to_pairs
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    TunnelsNotEnabledError,
    printable,
)
from nghttp2py.h2 import (
    H2AlternativeServiceReceived,
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2Event,
    H2GoAway,
    H2PingAcknowledged,
    H2SettingsReceived,
    RequestReceived,
    Setting,
)
from nghttp2py.h2.config import check_config

__all__ = ["LOST", "H2ConnectionOwner", "H2StreamConnection"]

#: How the reason of a ``ConnectionTerminatedError`` begins if the system has reported
#: the end of the connection, as by ECONNRESET.
LOST = "the connection was lost"

# The window of a connection is unbounded, those of streams bound what the peer may
# send: so a stream that is not read does not stop the others.
_CONNECTION_WINDOW = 2**31 - 1
# The window of a client's streams.  A client opens its streams itself, mostly to
# receive.  With 64 KiB, the bound of servers for unknown clients, a download costs a
# third more CPU time, because WINDOW_UPDATE frames become many and small.
_CLIENT_WINDOW = 262144


C = TypeVar("C", bound="H2StreamConnection")


def with_wide_window(config: H2Configuration) -> H2Configuration:
    """Return ``config`` with the changes that a connection with readers needs.

    Credit is given when bytes are read.  A few unread streams could use up a small
    connection window and stop all others, so it is the maximum, unless ``config`` has
    another value than HTTP/2's 65,535.
    """
    window = config.connection_window_size
    return dataclasses.replace(
        config,
        manual_flow_control=True,
        connection_window_size=_CONNECTION_WINDOW if window == 65535 else window,
    )


def check_concurrency(concurrency: int | None) -> None:
    """Raise for a number of streams that SETTINGS cannot carry (RFC 9113, 6.5.2)."""
    if concurrency is not None:
        check_int("concurrency", concurrency, 0, 2**32 - 1)


class H2StreamConnection(H2Pump):
    """A connection whose streams are objects; ``H2Protocol`` describes its
    parameters."""

    #: The class of the connection without I/O: a subclass can see every byte.
    connection_class: type[H2Connection] = H2Connection
    #: Called with stream, origin and value of an ALTSVC frame (RFC 7838, 4).
    alternative_hook: Callable[[int, bytes, bytes], object] | None = None

    def __init__(
        self,
        client_side: bool,
        *,
        concurrency: int | None = None,
        config: H2Configuration | None = None,
        timeouts: Timeouts | None = None,
        settings_timeout: float = UNSET,
        idle_timeout: float | None = UNSET,
        keepalive_interval: float | None = None,
        keepalive_timeout: float = 10.0,
        close_timeout: float = UNSET,
        window_tuning: bool = True,
        timeout: float | None = None,
    ) -> None:
        check_seconds("timeout", timeout)
        check_keepalive(keepalive_interval, keepalive_timeout)
        check_bool("window_tuning", window_tuning)
        check_concurrency(concurrency)
        check_config(config)
        if config is None:
            config = H2Configuration(
                max_concurrent_streams=100 if concurrency is None else concurrency,
                initial_window_size=_CLIENT_WINDOW if client_side else 65535,
                connection_window_size=_CONNECTION_WINDOW,
                manual_flow_control=True,
            )
        else:
            if concurrency is not None:
                config = dataclasses.replace(config, max_concurrent_streams=concurrency)
            config = with_wide_window(config)
        super().__init__(
            self.connection_class(client_side=client_side, config=config),
            timeouts=merge_timeouts(
                timeouts,
                client=client_side,
                settings=settings_timeout,
                idle=idle_timeout,
                close=close_timeout,
                keepalive=keepalive_interval or UNSET,
                keepalive_answer=keepalive_timeout if keepalive_interval else UNSET,
            ),
        )
        self.keepalive_idle = keepalive_interval is not None
        self.close_timeout = self._timeouts.close
        self._client_side = client_side
        # The host and port that the caller has connected to, if it has given these.
        self._asked_for: tuple[str, int] | None = None
        self._own_fields: tuple[list[tuple[bytes, bytes]], ...] = ()
        self._settings = {
            Setting.INITIAL_WINDOW_SIZE: config.initial_window_size,
            Setting.MAX_FRAME_SIZE: config.max_frame_size,
            Setting.MAX_CONCURRENT_STREAMS: config.max_concurrent_streams,
        }
        self._keepalive_pings = KeepAlive(self, window_tuning)
        self._link = H2Link(
            self, self.connection, timeout, self._keepalive_pings.amounts
        )
        # Streams whose handler may return before all is sent: kept for the access log.
        self._handled: dict[int, H2Stream] = self._link.handled
        self._idle_hook: Callable[[], object] | None = None
        self._arrived: deque[H2Stream] = deque()  # not accepted yet
        self._acceptors = Waiters()
        self._writers = Waiters()  # wait for the transport
        self._stoppers = Waiters()  # wait for is_closing
        self._settled = Waiters()  # wait for the peer's SETTINGS
        self._limit = 1  # of our streams, which is assumed until SETTINGS come
        self._owner: H2ConnectionOwner | None = None
        # They make the exceptions for why no new streams can be opened, and why the
        # connection has ended.
        self._refusal: Callable[[bool], ConnectionTerminatedError] | None = None
        self._over: Callable[[bool], ConnectionTerminatedError] | None = None
        self._lost = False
        self._gone = asyncio.Event()
        self._settings_seen = False

    def set_origin(self, host: str, port: int) -> None:
        """Set the host and port that the caller has connected to, for
        ``:authority``."""
        self._asked_for = host, port

    def set_owner(self, owner: H2ConnectionOwner) -> None:
        """Report the connection and its end to ``owner``."""
        self._owner = owner

    @property
    def idle_hook(self) -> Callable[[], object] | None:
        """Called without arguments when the last stream of this end has ended."""
        return self._idle_hook

    @idle_hook.setter
    def idle_hook(self, hook: Callable[[], object] | None) -> None:
        self._idle_hook = hook
        self._link.notifies_idle = hook is not None

    @property
    def last_active(self) -> float:
        """When bytes last arrived, on the loop's clock."""
        return self._last_active

    @property
    def stream_window(self) -> int:
        """The initial window of streams, in bytes."""
        return self._settings[Setting.INITIAL_WINDOW_SIZE]

    def check_alive(self) -> None:
        """Raise ``ConnectionTerminatedError`` if the connection has ended."""
        self._raise_over()

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection."""
        self._link.connected(transport)
        self._link.loop = asyncio.get_running_loop()
        super().connection_made(transport)
        if not self._begun:
            return
        self._make_own_fields()
        if self._owner is not None:
            self._owner.connection_made(self)

    def pause_writing(self) -> None:
        """Have the streams wait."""
        super().pause_writing()
        self._link.is_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._link.is_paused = False
        super().resume_writing()
        self._wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything that waits."""
        self._lost = True
        if exc is not None:
            self._end_waiters(
                ErrorCode.INTERNAL_ERROR,
                remote=True,
                reason=f"{LOST}: {exc}",
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

    def _is_gone(self) -> bool:
        return self._lost

    def _check_gone(self) -> None:
        """Handle the loss of the connection."""
        if not self._is_gone():
            return
        self._gone.set()
        if self._owner is not None:
            self._owner.connection_gone(self)
            self._owner = None

    def _terminate(self, error_code: ErrorCode, reason: str) -> None:
        # Callers must not wait for a peer that does not even read our GOAWAY.
        self._end_waiters(error_code, remote=False, reason=reason)
        super()._terminate(error_code, reason)

    def abort(self) -> None:
        """Close the transport now; what it has not written is lost."""
        self._end_waiters(
            ErrorCode.CANCEL, remote=False, reason="the transport was aborted"
        )
        super().abort()

    def _send_keepalive(self) -> None:
        self._keepalive_pings.send()

    # ---- Events ----

    @property
    def timeout(self) -> float | None:
        """Seconds that a call on a stream waits while nothing happens to the stream."""
        return self._link.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._link.timeout = seconds

    def _add(self, stream_id: int, kept: bool) -> H2Stream:
        """Make a stream; a reference is kept unless the caller gets it at once."""
        stream = H2Stream(self, self._link, stream_id)
        self._link.adopt(stream)
        if not kept:
            self._link.lend(stream)
        return stream

    def _hand_out(self, stream: H2Stream) -> H2Stream:
        """Hand out a stream: it is reset when its user drops it."""
        stream.protocol = self
        self._link.lend(stream)
        return stream

    def keep_until_closed(self, stream: H2Stream) -> None:
        """Keep a reference to a stream that is handled here until it is closed."""
        if not stream.closed:
            self._handled[stream.stream_id] = stream

    def _find(self, stream_id: int) -> H2Stream | None:
        return cast("H2Stream | None", self._link.get_exchange(stream_id))

    def _open_stream_ids(self) -> list[int]:
        return [stream_id for stream_id in self._link.open_streams() if stream_id % 2]

    def _live_streams(self) -> list[H2Stream]:
        # A request that failed before it was a stream has another exchange.
        exchanges = self._link.get_exchanges()
        return [stream for stream in exchanges if isinstance(stream, H2Stream)]

    def event_received(self, event: H2Event) -> None:
        """Handle an event that concerns no stream."""
        handle = _HANDLERS.get(type(event))
        if handle is not None:
            handle(self, event)

    def request_received(self, stream_id: int, request: RequestReceived) -> H2Stream:
        """Make the stream of a request that has come."""
        stream = H2Stream(self, self._link, stream_id, request)
        self._arrive(stream)
        return stream

    def push_received(self, stream_id: int, request: RequestReceived) -> None:
        """Make the stream of a push that was promised."""
        stream = H2Stream(self, self._link, stream_id, request)
        self._link.adopt(stream)
        if len(self._arrived) >= self._settings[Setting.MAX_CONCURRENT_STREAMS]:
            self._arrived.popleft().reset()  # the application accepts none
        self._arrive(stream)

    def stream_closed(
        self, stream_id: int, stream: H2Stream | None, kept: bool, complete: bool
    ) -> None:
        """Take notice that a stream is closed; what was handed out is not ``kept``."""
        if stream_id % 2 == self._client_side:
            if self._link.slots:
                self._give_slots()
            elif self._idle_hook is not None and not self._link.opened:
                self._idle_hook()
        if self._keepalive_pings.amounts:
            self._keepalive_pings.forget(stream_id)
        if self._handled:
            self._handled.pop(stream_id, None)
        if not isinstance(stream, H2Stream) or not kept:
            return
        if not complete and stream in self._arrived:
            self._arrived.remove(stream)  # it was not handed out
        else:
            # Weak, so that no cycle outlives the connection.
            stream.protocol = weakref.proxy(self)
            self._keep(stream)

    @property
    def over(self) -> Callable[[bool], ConnectionTerminatedError] | None:
        """The function that makes the exception for why the connection has ended."""
        return self._over

    def _on_settings(self, event: H2SettingsReceived) -> None:
        if Setting.MAX_CONCURRENT_STREAMS in event.settings:
            self._limit = event.settings[Setting.MAX_CONCURRENT_STREAMS]
        elif self._limit == 1 and not self._settings_seen:
            self._limit = 2**32 - 1
        self._settings_seen = True
        self._give_slots()
        self._settled.wake()

    def _on_alternative(self, event: H2AlternativeServiceReceived) -> None:
        if self.alternative_hook is not None:
            self.alternative_hook(event.stream_id, event.origin, event.field_value)

    def _on_ping(self, event: H2PingAcknowledged) -> None:
        self._keepalive_pings.acknowledged(event.data)

    def _on_goaway(self, event: H2GoAway) -> None:
        reason = printable(event.debug_data) or "GOAWAY"
        self._refuse_streams(event.error_code, remote=True, reason=reason)

    def _on_connection_closed(self, event: H2ConnectionClosed) -> None:
        if not self._lost:
            self._end_waiters(
                event.error_code, remote=event.remote, reason=event.reason
            )

    # ---- The end ----

    def _refuse_streams(self, error_code: int, *, remote: bool, reason: str) -> None:
        """Allow no new streams of ours, and wake the callers that wait for one."""
        if self._refusal is None:
            self._refusal = lambda unprocessed: ConnectionTerminatedError(
                error_code, remote=remote, unprocessed=unprocessed, reason=reason
            )
        slots, self._link.slots = self._link.slots, deque()
        for future in slots:
            if not future.done():
                future.set_result(False)
        self._stoppers.wake()

    def _end_waiters(self, error_code: int, *, remote: bool, reason: str) -> None:
        """Handle the end of the connection: wake all waiters."""
        if self._over is None:
            self._over = lambda unprocessed: ConnectionTerminatedError(
                error_code, remote=remote, unprocessed=unprocessed, reason=reason
            )
            self._refuse_streams(error_code, remote=remote, reason=reason)
        over = self._over
        for stream in self._live_streams():
            stream.aborted(lambda: over(False), error_code, True, True)
        self._wake_writers()
        self._acceptors.wake()
        self._stoppers.wake()
        self._settled.wake()
        self._keepalive_pings.stop()

    @property
    def is_available(self) -> bool:
        """Whether new streams can be opened: not after GOAWAY or the end."""
        return self._refusal is None and not self.is_closing

    @property
    def is_closed(self) -> bool:
        """Whether the connection is lost."""
        return self._lost

    def set_alt_svc(self, value: bytes) -> None:
        """Add Alt-Svc to each final response of a server (RFC 7838)."""
        self._link.alt_svc = value

    @property
    def stream_count(self) -> int:
        """The open streams of both ends."""
        return len(self._link.open_streams())

    @property
    def open_streams(self) -> int:
        """The open streams that this end has opened."""
        return self._link.opened

    @property
    def is_full(self) -> bool:
        """Whether a further stream would wait for the end of another."""
        return self._settings_seen and self._link.opened >= self._limit

    @property
    def stream_limit(self) -> int | None:
        """How many streams the peer lets us open; ``None`` until its SETTINGS come."""
        return self._limit if self._settings_seen else None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the transport's information: ``peername``, ``ssl_object``, ...

        ``peername`` and ``peercert`` stay known after the connection is lost.
        """
        return self._link.get_extra_info(name, default)

    def close(self, timeout: float | None = None) -> None:
        """End the connection with GOAWAY when its streams have finished.

        What has not finished after ``timeout`` seconds (``close_timeout``) is aborted.
        No new streams can be opened.  ``wait_closed`` waits for the end.
        """
        self._refuse_streams(
            ErrorCode.NO_ERROR, remote=False, reason="close() was called"
        )
        if self._client_side:
            for stream in self._live_streams():
                stream.end_upload()
        super().close(self.close_timeout if timeout is None else timeout)

    def close_connection(self) -> None:
        """Close the transport when what is queued is written, without GOAWAY, as aioh2
        does.

        Open streams end at once.
        """
        if self.transport is None:
            return
        self.flush()
        if self._client_side:
            # The server must stop sending responses that are not read.
            for stream in self._live_streams():
                number = stream.stream_id
                if stream.sent_all and not self.connection.queued_body(number):
                    self.connection.reset_stream(number, ErrorCode.CANCEL)
            self.flush()
        self._end_waiters(
            ErrorCode.NO_ERROR, remote=False, reason="close_connection() was called"
        )
        self._finish()

    async def wait_closing(self) -> None:
        """Wait until ``is_closing`` is true: this end is closing the connection.

        A handler of an endless response (server-sent events) should wait for this and
        then end its response: otherwise a graceful close takes the whole
        ``close_timeout``.
        """
        while not self.is_closing:
            await self._stoppers.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection is lost, and the tasks of its handlers have
        ended."""
        await self._gone.wait()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.close_connection()
        await self.wait_closed()

    # ---- Waiting ----

    async def wait_free(self) -> None:
        """Return at once: it is ``open_stream`` that waits for a free stream."""

    async def wait_tunnels(self) -> None:
        """Wait for the peer's SETTINGS, which must allow extended CONNECT.

        Raises ``TunnelsNotEnabledError`` if they do not (RFC 8441, 3), and
        ``ConnectionTerminatedError`` if the connection ends before.
        """
        while not self._settings_seen:
            self._raise_over(unprocessed=True)
            await self._settled.wait()
        if not self.connection.remote_settings.get(Setting.ENABLE_CONNECT_PROTOCOL):
            raise TunnelsNotEnabledError

    async def wait_transport(self) -> None:
        """Wait until the transport accepts bytes.

        Raises ``ConnectionTerminatedError`` if it never will, and ``TimeoutError``.
        """
        await self._writable()

    def bytes_taken(self, stream_id: int, n: int) -> None:
        """Count ``n`` bytes of a stream that were read."""
        self._keepalive_pings.taken(stream_id, n)

    async def _writable(self, *, unprocessed: bool = False) -> None:
        """Wait until the transport accepts bytes; raise if it never will."""
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            self._writers.wake()

        timer = None
        if self.timeout is not None and self._paused:
            timer = self._loop.call_later(self.timeout, expire)
        try:
            while self._paused and self._over is None:
                if late:
                    raise TimeoutError(f"the peer took no bytes for {self.timeout} s")
                await self._writers.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._raise_over(unprocessed)

    def _raise_over(self, unprocessed: bool = False) -> None:
        if self._over is not None:
            raise self._over(unprocessed)

    def _raise_refusal(self) -> None:
        """Raise if no new streams can be opened: the request was not sent."""
        if self._refusal is not None:
            raise self._refusal(True)

    def _wake_writers(self) -> None:
        self._writers.wake()
        self._link.wake_blocked()

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
        fields = self._request_fields(headers)
        stream = self.try_open(fields, end_stream)
        if stream is None:
            await self._wait_to_open()
            stream = self._send_request(fields, end_stream)
        return stream

    def try_open(
        self, fields: list[Any], end_stream: bool, *, kept: bool = False
    ) -> H2Stream | None:
        """Send a complete header section of a request, or return ``None`` if it has to
        wait, or cannot be sent any more: see ``open_stream``.

        A reference to a stream that is ``kept`` is kept here.
        """
        link = self._link
        if (
            link.opened >= self._limit
            or link.slots
            or self._paused
            or self._refusal is not None
        ):
            return None
        link.opened += 1
        return self._send_request(fields, end_stream, kept=kept)

    async def _wait_to_open(self) -> None:
        """Wait until a stream can be opened, and count it."""
        self._raise_refusal()
        if self._paused:
            await self._writable(unprocessed=True)
            self._raise_refusal()
        if self._link.opened >= self._limit or self._link.slots:
            await self._wait_for_slot()
        else:
            self._link.opened += 1

    def _send_request(
        self, fields: list[Any], end_stream: bool, *, kept: bool = False
    ) -> H2Stream:
        """Send a request whose stream is counted already."""
        try:
            if self._refusal is not None:
                raise self._refusal(True)
            stream: H2Stream = self._link.send_request(
                H2Stream, self, fields, end_stream, kept
            )
        except BaseException:
            self._link.opened -= 1
            self._give_slots()
            raise
        if end_stream:
            stream.request_sent(True)
        else:
            method = next((field[1] for field in fields if field[0] in METHOD), None)
            stream.request_sent(False, tunnel=method in _CONNECT)
        return stream

    async def _wait_for_slot(self) -> None:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._link.slots.append(future)
        timer = None
        if self.timeout is not None:
            timer = self._loop.call_later(self.timeout, _time_out, future, self.timeout)
        try:
            given = await future
        except BaseException:
            if (
                future.done()
                and not future.cancelled()
                and not future.exception()
                and future.result()
            ):
                self._link.opened -= 1
                self._give_slots()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not given:
            self._raise_refusal()

    def _give_slots(self) -> None:
        while self._link.slots and self._link.opened < self._limit:
            future = self._link.slots.popleft()
            if not future.done():
                self._link.opened += 1
                future.set_result(True)

    def _request_fields(self, headers: HeadersLike) -> list[Any]:
        """Add the connection's ``:scheme`` and ``:authority``, if they are missing."""
        fields = headers if type(headers) is list else list(to_pairs(headers))
        lack = 3
        path = False
        for field in fields:
            name = field[0]
            if name in AUTHORITY:
                lack &= 2
            elif name in SCHEME:
                lack &= 1
            elif name in _PATH:
                path = True
        # CONNECT has neither of them (RFC 9113, 8.5).
        return self._own_fields[lack] + fields if path and lack else fields

    def _make_own_fields(self) -> None:
        """Make ``:scheme`` and ``:authority`` from the address of the transport."""
        scheme = "http" if self.get_extra_info("ssl_object") is None else "https"
        address = self._asked_for or self.get_extra_info("peername")
        authority = "localhost"  # the path of a Unix socket
        if isinstance(address, tuple):
            authority = make_authority(scheme, *address[:2])
        fields = [(b":authority", authority.encode()), (b":scheme", scheme.encode())]
        self._own_fields = ([], fields[:1], fields[1:], fields)

    def _arrive(self, stream: H2Stream) -> None:
        self._arrived.append(stream)
        self._acceptors.wake()

    async def _accept(self) -> H2Stream:
        while not self._arrived:
            self._raise_over()
            await self._acceptors.wait()
        return self._arrived.popleft()

    async def accept_stream(self) -> H2Stream:
        """Wait for the next request, and return its stream.

        Raises ``ConnectionTerminatedError`` when there will be no more.
        """
        arrived = self._arrived
        stream = self._hand_out(arrived.popleft() if arrived else await self._accept())
        self._forget(stream)
        return stream

    async def accept_push(self) -> H2Stream:
        """Wait for the next stream that the server pushes, and return it.

        It pushes only if ``config.enable_push`` is set.
        """
        return await self.accept_stream()

    async def push_stream(
        self, stream: H2Stream, headers: HeadersLike, *, kept: bool = False
    ) -> H2Stream:
        """Promise a response on ``stream``: see ``H2Stream.push``."""
        if self._paused:
            await self._writable()
        fields = stream.make_promise(headers)
        stream_id = self.connection.push_stream(stream.stream_id, fields)
        self._link.opened += 1
        pushed = self._add(stream_id, kept)
        pushed.without_request()
        self.mark_dirty()
        return pushed

    # ---- Hooks for programs that use stream identifiers ----

    def _keep(self, stream: H2Stream) -> None:
        """Handle the end of a stream that is known only by its identifier."""

    def _forget(self, stream: H2Stream) -> None:
        """Handle that such a stream was handed out as an object."""


def _time_out(slot: asyncio.Future[bool], seconds: float) -> None:
    if not slot.done():
        slot.set_exception(
            TimeoutError(f"the peer allowed no further stream in {seconds} seconds")
        )


class H2ConnectionOwner(Protocol):
    """A server, as its connections see it."""

    def connection_made(self, protocol: H2StreamConnection) -> None:
        """Handle a new connection: start its handler."""

    def connection_gone(self, protocol: H2StreamConnection) -> None:
        """Handle that the connection is lost and its handler has ended."""


_PATH = frozenset({":path", b":path"})
_CONNECT = frozenset({"CONNECT", b"CONNECT"})

_HANDLERS: dict[type, Callable[[H2StreamConnection, Any], None]] = {
    H2AlternativeServiceReceived: H2StreamConnection._on_alternative,
    H2ConnectionClosed: H2StreamConnection._on_connection_closed,
    H2GoAway: H2StreamConnection._on_goaway,
    H2PingAcknowledged: H2StreamConnection._on_ping,
    H2SettingsReceived: H2StreamConnection._on_settings,
}
