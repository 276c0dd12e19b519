"""The transfer of bytes between a transport and an ``H2Connection``.

``H2Pump`` is an asyncio protocol and a base class.  It owns the transport and the
connection, and decides when to write, when to wait and when to abort; it does not
handle requests or responses.  A subclass overrides ``event_received`` and sends by
calling ``connection`` and then ``mark_dirty``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import cast

from nghttp2py.asyncio.bounds import LOOKS, BoundedTransport, Verdict
from nghttp2py.asyncio.frame_log import open_frame_log
from nghttp2py.asyncio.listener import LAST_REQUEST_TIME
from nghttp2py.asyncio.timeouts import UNSET, Timeouts, merge_timeouts
from nghttp2py.asyncio.tls import TLSFault, find_tls_fault
from nghttp2py.asyncio.transfer import FATAL, WRITE_SIZE, H2Transfer
from nghttp2py.errors import ErrorCode, error_code_name, printable
from nghttp2py.h2 import (
    H2Connection,
    H2ConnectionClosed,
    H2Event,
    H2PingAcknowledged,
)
from nghttp2py.log_budget import MemoryLog, peer_lines

__all__ = ["H2Pump"]

logger = logging.getLogger(__name__)

#: Seconds that streams have to finish after ``close``.
CLOSE_TIMEOUT = Timeouts.close

# Attempts to report the end of the streams when memory is short; each needs less.
_ATTEMPTS = 3
# The data of the PING that measures a round trip before the last GOAWAY.
_GOAWAY_PING = b"shutdown"
# Seconds for which its answer is waited for.  Clients such as httpx do not read, and so
# do not answer, while they have no request open.
NOTICE_TIME = 1.0
# Seconds that open requests have before the first GOAWAY.  Clients that use the package
# h2, such as httpx, read nothing that comes after a GOAWAY, and lose their responses.
# In the first half of this time the client must be quiet, too.
NOTICE_DELAY = 6.0
# Seconds without a request after which a client counts as having none ready.
QUIET_TIME = 0.5
# The data of the PINGs to a peer that has closed its half, and the seconds between the
# first two: about the round trip of a near peer.  Each interval is twice the last.
_PROBE_PING = b"reading?"
_PROBE_INTERVAL = 0.05
# The data of the keep-alive PING.
_KEEPALIVE_PING = b"alive?\0\0"


class _Asked:
    """The state of a keep-alive PING."""

    def __init__(self, since: float, taken: int, written: int) -> None:
        self.since = since
        self.due_from = since  # the time for the answer counts from here
        self.taken = taken
        self.written = written  # bytes written before the PING


class H2Pump(BoundedTransport, H2Transfer, asyncio.Protocol, asyncio.BufferedProtocol):
    """Passes bytes between a transport and ``connection``, and events to its owner.

    ``timeouts`` bounds what the peer can make this end wait for; the default is
    ``Timeouts()`` for a server, and for a client only its ``settings``, ``headers`` and
    ``close``.  ``settings_timeout`` and ``idle_timeout``, in seconds, replace one field
    of it; ``idle_timeout=None`` means no bound.

    Over TLS the peer must have negotiated ``h2`` by ALPN and at least TLS 1.2 (RFC
    9113, 3.2 and 9.2); otherwise the connection is closed and a line logged.
    """

    _peer_lines = peer_lines(logger)
    _memory_log = MemoryLog(logger)

    def __init__(
        self,
        connection: H2Connection,
        *,
        timeouts: Timeouts | None = None,
        settings_timeout: float = UNSET,
        idle_timeout: float | None = UNSET,
    ) -> None:
        self.connection = connection
        # Why HTTP/2 must not use this TLS connection.  Unless it is None, the
        # connection was never begun.
        self.tls_fault: TLSFault | None = None
        timeouts = merge_timeouts(
            timeouts,
            client=connection.client_side,
            settings=settings_timeout,
            idle=idle_timeout,
        )
        self._set_timeouts(timeouts)
        self._lingers = not connection.client_side
        self._begun = False  # the preface was queued
        self._paused = False  # the transport has paused writing
        self._probe_timer: asyncio.TimerHandle | None = None
        # Before the first GOAWAY, or after it; and the time by which to go on.
        self._notice_held = self._awaits_ping = False
        self._notice_due = self._notice_limit = self._quiet_limit = math.inf
        self._first_due = 0.0  # the first request has until then to come
        self._quiet_from = math.inf  # no request was open since, at a close
        # The state that the timer checks: see _judges().
        self._counted = 0.0  # the time up to which time_passed() was called
        self._reset_timer: asyncio.TimerHandle | None = None
        connection.hold_resets = True
        self._settings_due = math.inf
        self._frame = 0  # the incomplete frame, and when its first byte came
        self._frame_since = 0.0
        self._watching = False  # the timer will look at the streams
        self._asked: _Asked | None = None  # the keep-alive PING
        #: Whether keep-alive applies to a connection without open streams, too.
        self.keepalive_idle = False
        self._opened = 0  # the count of streams at the last check; -1: some were open
        self._idle_since = 0.0
        waits = [timeouts.response, None if connection.client_side else timeouts.body]
        self._look_interval = min(
            (wait / LOOKS for wait in waits if wait is not None), default=math.inf
        )

    # ---- What a subclass overrides ----

    def event_received(self, event: H2Event) -> None:
        """Handle an event of the connection; events come in the order of their
        occurrence.

        It may send.  An exception is logged, and the events after it are still handled.
        """

    def events_received(self, events: Sequence[H2Event]) -> None:
        """Handle several events: pass each to ``event_received``.

        A subclass with a faster way overrides this instead; an exception for one event
        must not keep it from the next.
        """
        for event in events:
            try:
                self.event_received(event)
            except (Exception, asyncio.CancelledError) as error:
                self._memory_log.failed(error, "%s: %r failed", self, event)

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection: send the preface and SETTINGS."""
        # No isinstance check: uvloop's transports do not derive from asyncio's.
        transport = cast(asyncio.Transport, transport)
        self._begin_transfer(asyncio.get_running_loop(), transport)
        if self._closing:
            # close() or abort() was called before there was a transport.
            transport.abort()
            return
        self._counted = self._idle_since = now = self._begin_bounds()
        idle = self._timeouts.idle
        self._first_due = now + min(LAST_REQUEST_TIME, idle or LAST_REQUEST_TIME)
        self.tls_fault = find_tls_fault(transport)
        if self.tls_fault is not None:
            self._peer_lines.log("%s: %s", self, self.tls_fault.reason)
            transport.close()
            self._end_by(CLOSE_TIMEOUT)
            return
        transport.set_write_buffer_limits(high=WRITE_SIZE)
        self._frames = open_frame_log(
            transport, client_side=self.connection.client_side
        )
        self._settings_due = now + self._timeouts.settings
        waits = [self._timeouts.settings, self._timeouts.idle]
        if self.keepalive_idle:
            waits.append(self._timeouts.keepalive)
        self._arm(now + min(wait for wait in waits if wait is not None))
        try:
            self.connection.initiate_connection()
        except FATAL:
            raise
        except BaseException as error:
            self.give_up(error)
            return
        self._begun = True
        self.flush()

    def _log_fault(self, event: H2ConnectionClosed, data: bytes) -> None:
        """Log which error of the peer has ended the connection."""
        if event.remote or not event.reason:
            return
        reason = event.reason
        if not self.connection.client_side and "magic" in reason:
            # The client has not sent the preface (RFC 9113, 3.4).
            if data.startswith(b"\x16\x03"):
                reason = "the client speaks TLS, to a server in the clear"
            elif re.match(rb"[A-Z]+( |$)", data):
                reason = "the client speaks HTTP/1.1, not HTTP/2"
        self._peer_lines.log(
            "%s: %s: %s", self, error_code_name(event.error_code), printable(reason)
        )

    def eof_received(self) -> bool:
        """Let the transport close, unless complete requests wait for their response.

        A client may close its half of the TCP connection after its requests, and still
        read.  One that has sent GOAWAY before is leaving.  What is not answered after
        ``Timeouts.close`` is aborted.
        """
        connection = self.connection
        if connection.client_side or not self._begun or self._ended:
            return False
        if not self._closing and connection.is_closed:
            return False
        streams = {n: connection.stream_ended(n) for n in self._open_stream_ids()}
        if not any(streams.values()):
            return False
        for stream_id, whole in streams.items():
            if not whole:
                connection.reset_stream(stream_id, ErrorCode.CANCEL)
        self._half_closed = True
        # An acknowledgement of our SETTINGS will not come: ``close`` is the bound.
        self._settings_due = math.inf
        if self._notice_held or self._awaits_ping:
            self._end_notice()  # the answer to its PING will not come
        self.close(self._timeouts.close)
        self._probe(_PROBE_INTERVAL)
        return True

    def _probe(self, interval: float) -> None:
        """Find out whether a peer that has closed its half still reads.

        The system of one that has closed both halves answers with RST to what we write,
        and the next write fails.  A response that is quiet would not be missed before
        ``Timeouts.close``.
        """
        self._probe_timer = None
        if self.transport is None or self._ended:
            return
        if not self._paused:
            self.connection.ping(_PROBE_PING)
            self.mark_dirty()
        self._probe_timer = self._loop.call_later(interval, self._probe, 2 * interval)

    def _open_stream_ids(self) -> Iterable[int]:
        """The open streams of the peer, at a server."""
        return ()

    def resume_writing(self) -> None:
        """Continue writing after ``pause_writing``."""
        self._paused = False
        self._last_active = self._loop.time()
        self.mark_dirty()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close every stream, and report it to the owner."""
        if sys.version_info < (3, 11) and self.transport is not None:
            # asyncio's TLS transports do not notice that they are closed; without this
            # call they warn when they are collected.
            self.transport.close()
        self.transport = None
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        if self._reset_timer is not None:
            self._reset_timer.cancel()
            self._reset_timer = None
        self._stop_bounds()
        if not self._begun:
            return
        for _ in range(_ATTEMPTS):
            try:
                events = self.connection.receive_eof()
            except MemoryError:
                continue  # streams that it has closed are not closed again
            self.flush(events)
            break

    def _release_resets(self) -> None:
        self._reset_timer = None
        self.connection.release_resets()
        self.mark_dirty()

    # ---- The end ----

    def close(self, timeout: float | None = None) -> None:
        """End the connection with GOAWAY, when its streams have finished.

        A server first sends a warning and waits for a round trip, at most a second, so
        that no request in flight is lost (RFC 9113, 6.8).  The warning comes when the
        client has had no open request for 0.5 seconds; after 3 seconds, when none is
        open; at the latest after 6 seconds or half of ``timeout``.  The first request
        of a connection may come until the connection is a second old.  What has not
        finished after ``timeout`` seconds (``timeouts.close``) is aborted.

        This may be called in every state.  When the connection is closing already, a
        call can only shorten the time that is left.  Before there is a transport, it
        makes ``connection_made`` abort the transport.
        """
        if self.transport is None:
            self._closing = True
            return
        timeout = self._timeouts.close if timeout is None else timeout
        self._end_by(timeout)
        now = self._loop.time()
        wait = min(NOTICE_DELAY, timeout / 2)
        self._quiet_limit = min(self._quiet_limit, now + wait / 2)
        self._notice_limit = min(self._notice_limit, now + wait)
        if self._closing:
            if self._notice_held:
                self._hold_notice()
            return
        self._closing = True
        self._quiet_from = min(self._quiet_from, now)
        # A session that an error has ended accepts no more frames.
        if self._begun and self.connection.want_read:
            if self.connection.client_side or self._half_closed:
                self.connection.close_connection()
            else:
                self._hold_notice()
        self.mark_dirty()

    def _close_idle(self) -> None:
        """Close a connection that has had no request for ``timeouts.idle``."""
        self._quiet_from = -math.inf
        # Allow a round trip, in which a request may still arrive.
        self.close(min(self._timeouts.close, self._timeouts.settings))

    def _find_notice(self, now: float) -> float:
        """Return when the first GOAWAY is due.

        nghttp2's clients fail the requests that they have ready when it comes.  So a
        new connection has some time for its first request, and one with requests must
        have been quiet.
        """
        if self.connection.active_stream_count:
            self._quiet_from = now
            return self._notice_limit
        if self.connection.counters["streams_opened"]:
            due = self._quiet_from + QUIET_TIME
        else:
            due = self._first_due
        return min(due, self._quiet_limit)

    def _hold_notice(self) -> None:
        """Send the first GOAWAY if it is due, or else hold it."""
        now = self._loop.time()
        due = self._find_notice(now)
        if due <= now:
            self._send_notice()
            return
        self._notice_held = True
        if due != self._notice_due:
            self._notice_due = due
            self._arm(due)

    def _send_notice(self) -> None:
        """Send the first GOAWAY, which only warns, and measure a round trip."""
        self._notice_held = False
        self._notice_due = math.inf
        if not self.connection.want_read:
            return  # an error has ended the session meanwhile
        self._awaits_ping = True
        self.connection.shutdown_notice()
        self.connection.ping(_GOAWAY_PING)
        self._notice_due = self._loop.time() + NOTICE_TIME
        self._arm(self._notice_due)
        self.mark_dirty()

    def _end_notice(self) -> None:
        """Send the last GOAWAY."""
        self._notice_held = self._awaits_ping = False
        self._notice_due = math.inf
        if self.connection.want_read:
            self.connection.close_connection()
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
        self._end_by(self._timeouts.close)
        self.mark_dirty()

    def _watch_notice(self, events: Sequence[H2Event]) -> Sequence[H2Event]:
        """Send a GOAWAY if it is time: the first, or a round trip later the last."""
        if self._notice_held:
            self._hold_notice()
            return events
        events = list(events)
        for event in events:
            if isinstance(event, H2PingAcknowledged) and event.data == _GOAWAY_PING:
                events.remove(event)
                self._end_notice()
                break
        return events

    def _terminate(self, error_code: ErrorCode, reason: str) -> None:
        """End the connection with GOAWAY at once, because something is overdue."""
        self._peer_lines.log("%s: %s: %s", self, error_code_name(error_code), reason)
        self.terminate(error_code)

    # ---- Settings and keep-alive ----

    def update_settings(self, settings: dict[int, int]) -> None:
        """Send SETTINGS; the peer has ``settings_timeout`` to acknowledge them."""
        waiting = self.connection.settings_unacknowledged
        self.connection.update_settings(settings)
        if not waiting:
            # With several SETTINGS in flight, the time of the oldest counts until all
            # are acknowledged, in order.
            self._settings_due = self._loop.time() + self._timeouts.settings
            self._arm(self._settings_due)
        self.mark_dirty()

    def _send_keepalive(self) -> None:
        """Send PING."""
        if self.connection.want_read:  # otherwise GOAWAY is not written yet
            self.connection.ping(_KEEPALIVE_PING)
            self.mark_dirty()

    # ---- The timer ----

    def _arm_frame(self) -> None:
        """Bound the time of an incomplete frame, which has just begun."""
        self._arm(self._frame_since + self._timeouts.headers)

    def _watch(self) -> None:
        """Make the timer check the streams, and a paused transport."""
        self._watching = True
        now = self._loop.time()
        when = now + self._look_interval
        if self._paused:
            when = min(when, now + self._stall_bound / LOOKS)
        if self._timeouts.keepalive is not None:
            when = min(when, now + self._timeouts.keepalive)
        if when < math.inf:
            self._arm(when)

    def _judges(self) -> Iterator[Callable[[float], Verdict]]:
        """The checks of a connection that has not ended."""
        if self._begun:
            yield self._judge_notice
            yield self._judge_settings
            yield self._judge_frame
            yield self._judge_transport
            yield self._judge_bodies
            yield self._judge_silence

    def _judge_notice(self, now: float) -> Verdict:
        """Go on with the end when a GOAWAY was waited for long enough."""
        if now < self._notice_due:
            return None, self._notice_due
        return self._send_notice if self._notice_held else self._end_notice, math.inf

    def _judge_settings(self, now: float) -> Verdict:
        """Check that the peer acknowledges our SETTINGS."""
        if not self.connection.settings_unacknowledged:
            return None, math.inf
        if now < self._settings_due:
            return None, self._settings_due
        return partial(
            self._terminate,
            ErrorCode.SETTINGS_TIMEOUT,
            f"SETTINGS were not acknowledged for {self._timeouts.settings} seconds",
        ), math.inf

    def _judge_frame(self, now: float) -> Verdict:
        """Check that a frame or header block becomes complete."""
        if not self._frame:
            return None, math.inf
        when = self._frame_since + self._timeouts.headers
        if now < when:
            return None, when
        return partial(
            self._terminate,
            ErrorCode.ENHANCE_YOUR_CALM,
            "a frame or header block is incomplete for "
            f"{self._timeouts.headers} seconds",
        ), math.inf

    def _judge_bodies(self, now: float) -> Verdict:
        """Check that the peer sends and reads bodies fast enough."""
        timeouts = self._timeouts
        self._watching = False
        if self._look_interval == math.inf or not self.connection.active_stream_count:
            return None, math.inf
        slow, stalled, watched = self._check_pace(now, reset=False)
        if stalled:
            return partial(
                self._terminate,
                ErrorCode.ENHANCE_YOUR_CALM,
                "the connection's window holds all bodies back for "
                f"{timeouts.response} seconds",
            ), math.inf
        if slow:
            return self._reset_slow, math.inf
        self._watching = watched
        return None, now + self._look_interval if watched else math.inf

    def _judge_silence(self, now: float) -> Verdict:
        """Check that the peer is alive, and that anything is open."""
        timeouts = self._timeouts
        connection = self.connection
        busy = connection.active_stream_count
        due = math.inf
        if timeouts.keepalive is not None and (busy or self.keepalive_idle):
            verdict, due = self._judge_keepalive(now, timeouts.keepalive)
            if verdict is not None:
                return verdict, due
        else:
            self._asked = None
        if timeouts.idle is None or self._closing:
            pass
        elif busy:
            self._opened = -1
            due = min(due, now + timeouts.idle)
        else:
            opened = connection.counters["streams_opened"]
            if self._opened == -1:
                self._idle_since = now
            elif opened != self._opened:
                self._idle_since = self._last_active
            self._opened = opened
            if now >= self._idle_since + timeouts.idle:
                return self._close_idle, due
            due = min(due, self._idle_since + timeouts.idle)
        return None, due

    def _judge_keepalive(self, now: float, interval: float) -> Verdict:
        """Send the keep-alive PING, or check that something has arrived since."""
        answer = self._timeouts.keepalive_answer
        asked = self._asked
        if asked is not None and self._last_active < asked.since:
            taken = self._taken()
            if asked.taken < asked.written and taken > asked.taken:
                # The PING waits behind a body, which the peer does read.
                asked.taken = taken
                asked.due_from = now
            if now < asked.due_from + answer:
                return None, asked.due_from + answer
            return partial(
                self._terminate,
                ErrorCode.NO_ERROR,
                f"nothing came in the {answer} seconds after PING",
            ), math.inf
        self._asked = None
        when = self._last_active + interval
        if now < when:
            return None, when
        taken = self._taken()
        self._send_keepalive()
        self.flush()
        self._asked = _Asked(now, taken, self._written)
        return None, now + min(answer, interval)

    def _check_pace(self, now: float, *, reset: bool) -> tuple[int, bool, bool]:
        return self.connection.check_pace(
            now,
            body=self._timeouts.body,
            response=self._timeouts.response,
            min_rate=self._timeouts.min_rate,
            reset=reset,
        )

    def _reset_slow(self) -> None:
        slow, _, _ = self._check_pace(self._loop.time(), reset=True)
        self._peer_lines.log("%s: %d streams without progress are reset", self, slow)
        self._watching = True
        self.flush()

    def __repr__(self) -> str:
        peer = None
        if self.transport is not None:
            peer = self.transport.get_extra_info("peername")
        return f"<{type(self).__name__} {peer or 'not connected'}>"
