"""The carrier of bytes between a transport and an ``H2Connection``.

``H2Pump`` is an asyncio protocol that others build on.  It owns the transport
and the connection, and knows when to write, when to wait and when to give up;
what a request or a response is, it does not know.  A subclass overrides
``event_received`` and sends by calling ``connection`` and then ``mark_dirty``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Sequence
from typing import cast

from nghttp2py.asyncio.tls import find_tls_fault
from nghttp2py.errors import ErrorCode, error_code_name
from nghttp2py.h2 import H2Connection, H2Event, H2PingAcknowledged

__all__ = ["H2Pump"]

logger = logging.getLogger(__name__)

#: Seconds that the peer has to acknowledge our SETTINGS (RFC 9113, 6.5.3).
SETTINGS_TIMEOUT = 5.0
#: Seconds that streams have to finish after ``close``.
CLOSE_TIMEOUT = 10.0

# Bytes gathered for one write.  As many again may wait in the transport before
# it asks for a pause, so a connection buffers about twice this.
_WRITE_SIZE = 65536
# Writes in one go, before other connections get their turn.
_WRITES_IN_A_TURN = 16
# Seconds, once or twice, from the end of a response to the RST_STREAM that declines
# the rest of its request: a client that reads both at once may lose the response.
_RESET_DELAY = 0.02
# What the PING carries that measures a round trip before the last GOAWAY.
_GOAWAY_PING = b"shutdown"


class H2Pump(asyncio.Protocol):
    """Carries bytes between a transport and ``connection``, events to its owner.

    ``settings_timeout`` is the time, in seconds, that the peer has to
    acknowledge SETTINGS; past it the connection ends with SETTINGS_TIMEOUT.
    ``idle_timeout`` is the time after which a connection is closed on which
    nothing came in, if it has no open streams or the peer takes no bytes;
    ``None`` waits for ever.

    Over TLS the peer must have negotiated ``h2`` by ALPN and at least TLS 1.2
    (RFC 9113, 3.2 and 9.2), else the connection is closed with a log line.
    """

    transport: asyncio.Transport | None = None

    def __init__(
        self,
        connection: H2Connection,
        *,
        settings_timeout: float = SETTINGS_TIMEOUT,
        idle_timeout: float | None = None,
    ) -> None:
        self.connection = connection
        # Why TLS is not fit for HTTP/2: an error code, and a text for people.  Unless
        # it is None, the connection was never begun.
        self.tls_fault: tuple[ErrorCode, str] | None = None
        self._settings_timeout = settings_timeout
        self._idle_timeout = idle_timeout
        self._begun = False  # the preface was queued
        self._busy = False  # in flush(), which sees to everything queued now
        self._dirty = False  # something was queued while busy
        self._scheduled = False  # a flush is due by call_soon()
        self._paused = False  # the transport wants no bytes now
        self._closing = False
        self._ended = False  # the transport was closed: nothing is written
        self._awaits_ping = False  # after the shutdown notice
        self._last_active = 0.0
        self._counted = 0.0  # up to when the connection was told of time
        self._settings_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._close_due = math.inf
        self._reset_timer: asyncio.TimerHandle | None = None
        connection.hold_resets = True

    # ---- What a subclass overrides ----

    def event_received(self, event: H2Event) -> None:
        """Take an event of the connection, in the order in which they happened.

        It may send at will.  What it raises is logged, and the events after
        it are still given.
        """

    def events_received(self, events: Sequence[H2Event]) -> None:
        """Take several events: give each to ``event_received``.

        An owner that has a faster way overrides this instead; it must let no
        exception of one event's keep it from the next.
        """
        for event in events:
            try:
                self.event_received(event)
            except (Exception, asyncio.CancelledError):
                logger.exception("%s: %r failed", self, event)

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection: send the preface and SETTINGS."""
        self._loop = asyncio.get_running_loop()
        # Not asserted: uvloop's transports do not derive from asyncio's.
        transport = cast(asyncio.Transport, transport)
        self.transport = transport
        if self._closing:
            # close() or abort() was called before there was a transport.
            transport.abort()
            return
        self.tls_fault = find_tls_fault(transport)
        if self.tls_fault is not None:
            logger.info("%s: %s", self, self.tls_fault[1])
            transport.close()
            self._start_close_timer(CLOSE_TIMEOUT)
            return
        transport.set_write_buffer_limits(high=_WRITE_SIZE)
        self._last_active = self._counted = self._loop.time()
        if self._idle_timeout is not None:
            self._idle_timer = self._loop.call_later(
                self._idle_timeout, self._check_idle
            )
        self.connection.initiate_connection()
        self._begun = True
        self._start_settings_timer()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the connection, its events to the owner, and answer."""
        if not self._begun:
            return
        self._last_active = now = self._loop.time()
        if now - self._counted >= 1:
            seconds = int(now - self._counted)
            self._counted += seconds
            self.connection.time_passed(min(seconds, 3600))
        self.flush(self.connection.receive_data(data))

    def eof_received(self) -> None:
        """Let the transport close: HTTP/2 has no use for half a connection."""

    def pause_writing(self) -> None:
        """Gather no more bytes: the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on where ``pause_writing`` has stopped."""
        self._paused = False
        self._last_active = self._loop.time()
        self.mark_dirty()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close every stream, and tell the owner of it."""
        if sys.version_info < (3, 11) and self.transport is not None:
            # Its TLS transports do not know that they are closed until they are told,
            # and warn of it when they are collected.
            self.transport.close()
        self.transport = None
        for timer in (
            self._settings_timer,
            self._idle_timer,
            self._close_timer,
            self._reset_timer,
        ):
            if timer is not None:
                timer.cancel()
        self._settings_timer = self._idle_timer = None
        self._close_timer = self._reset_timer = None
        if self._begun:
            self.flush(self.connection.receive_eof())

    # ---- Writing ----

    def mark_dirty(self) -> None:
        """Say that something was queued on the connection from outside.

        It is written in the event loop's next turn, with all that others
        queue until then.
        """
        if self._busy:
            self._dirty = True
        elif not self._scheduled and not self._paused and self.transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self, events: Sequence[H2Event] = ()) -> None:
        """Hand out ``events`` and write what is queued, until both are done.

        Sending makes events, and events make the owner send; so one loop sees
        to both.  Nothing is gathered while the transport is paused.
        """
        if self._busy:
            self._dirty = True
            return
        connection = self.connection
        writes = 0
        again = False
        self._busy = True
        try:
            while True:
                if self._awaits_ping:
                    events = self._watch_ping(events)
                if events:
                    self.events_received(events)
                self._dirty = False
                data = b""
                if not (self._paused or self._ended or self.transport is None):
                    if writes == _WRITES_IN_A_TURN:
                        break
                    data = connection.data_to_send(_WRITE_SIZE)
                    if data:
                        self.transport.write(data)
                        writes += 1
                events = connection.pending_events()
                if not data and not events:
                    # A body that asks to be asked again whenever it is asked
                    # must not hold the loop: its turn comes after the others'.
                    again = self._dirty
                    break
        except Exception:
            # Not the owner's fault, nor the peer's: there is no way on.
            logger.exception("%s: the connection is given up", self)
            self.abort()
        finally:
            self._busy = False
        if self._settings_timer is not None and not connection.settings_unacknowledged:
            self._settings_timer.cancel()
            self._settings_timer = None
        if self._reset_timer is None and connection.held_resets:
            self._reset_timer = self._loop.call_later(
                _RESET_DELAY, self._release_resets
            )
        if again or writes == _WRITES_IN_A_TURN:
            self.mark_dirty()
        elif not connection.want_read and not connection.want_write:
            self._finish()

    def _release_resets(self) -> None:
        self._reset_timer = None
        self.connection.release_resets()
        self.mark_dirty()

    # ---- The end ----

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the transport is closing."""
        return self._closing or self.transport is None or self.transport.is_closing()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """End the connection with GOAWAY, when its streams have finished.

        A server first warns the client and waits for a round trip, so that no
        request on its way is lost (RFC 9113, 6.8).  What has not finished
        after ``timeout`` seconds is aborted.

        This may be called in every state.  Once the connection is closing, a
        call only shortens the time that is left; before there is a transport,
        it makes ``connection_made`` abort it.
        """
        if self.transport is None:
            self._closing = True
            return
        self._start_close_timer(timeout)
        if self._closing:
            return
        self._closing = True
        # A session that an error has ended takes no more frames.
        if self._begun and self.connection.want_read:
            if self.connection.client_side:
                self.connection.close_connection()
            else:
                self.connection.shutdown_notice()
                self.connection.ping(_GOAWAY_PING)
                self._awaits_ping = True
        self.mark_dirty()

    def terminate(self, error_code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """End the connection with GOAWAY at once: open streams are closed.

        This is a no-op once the connection has ended.
        """
        if self.transport is None:
            self._closing = True
            return
        if self._begun:
            self.connection.terminate(error_code)
        self._start_close_timer(CLOSE_TIMEOUT)
        self.mark_dirty()

    def abort(self) -> None:
        """Close the transport now; what it has not written yet is lost."""
        self._closing = self._ended = True
        if self.transport is not None:
            self.transport.abort()

    def _watch_ping(self, events: Sequence[H2Event]) -> list[H2Event]:
        """Send the last GOAWAY when a round trip has gone by since the warning."""
        events = list(events)
        for event in events:
            if isinstance(event, H2PingAcknowledged) and event.data == _GOAWAY_PING:
                self._awaits_ping = False
                events.remove(event)
                self.connection.close_connection()
                break
        return events

    def _finish(self) -> None:
        """Close the transport: both sides have said all they have to say."""
        if self.transport is not None and not self.transport.is_closing():
            self._closing = self._ended = True
            self.transport.close()
            self._start_close_timer(CLOSE_TIMEOUT)

    def _end(self, error_code: ErrorCode, reason: str) -> None:
        """End the connection with GOAWAY at once."""
        logger.info("%s: %s: %s", self, error_code_name(error_code), reason)
        self.terminate(error_code)

    # ---- Timers ----

    def update_settings(self, settings: dict[int, int]) -> None:
        """Send SETTINGS; the peer has ``settings_timeout`` to acknowledge them."""
        self.connection.update_settings(settings)
        self._start_settings_timer()
        self.mark_dirty()

    def _start_settings_timer(self) -> None:
        # With several SETTINGS in flight the oldest counts until all are
        # acknowledged: each of them is answered in order.
        if self._settings_timer is None:
            self._settings_timer = self._loop.call_later(
                self._settings_timeout, self._settings_timed_out
            )

    def _settings_timed_out(self) -> None:
        self._settings_timer = None
        self._end(
            ErrorCode.SETTINGS_TIMEOUT,
            f"SETTINGS were not acknowledged for {self._settings_timeout} seconds",
        )

    def _start_close_timer(self, timeout: float) -> None:
        """Abort after ``timeout`` seconds, or earlier if that is due already."""
        due = self._loop.time() + timeout
        if due >= self._close_due:
            return
        self._close_due = due
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._close_timer = self._loop.call_later(timeout, self.abort)

    def _check_idle(self) -> None:
        assert self._idle_timeout is not None
        left = self._last_active + self._idle_timeout - self._loop.time()
        if left <= 0 and (self._paused or not self.connection.active_stream_count):
            self._idle_timer = None
            if self._paused:
                self.abort()
            else:
                self.close()
            return
        if left <= 0:
            left = self._idle_timeout
        self._idle_timer = self._loop.call_later(left, self._check_idle)

    def __repr__(self) -> str:
        peer = None
        if self.transport is not None:
            peer = self.transport.get_extra_info("peername")
        return f"<{type(self).__name__} {peer or 'not connected'}>"
