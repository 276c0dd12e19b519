"""The bounds of time and rate on the peer of an HTTP/3 connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Protocol

import cython
from nghttp2py.asyncio.bounds import BoundTimer
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.quic import QuicConnection

__all__ = ["Arrival", "Outgoing", "Rate", "Watch", "Watched"]

# How many bodies are tracked before the finished ones are forgotten.
_SWEEP = 64
# Turns of the loop to read what has arrived, before something counts as overdue.
_MAX_TURNS = 50


class Rate:
    """A token bucket: ``burst`` at once, and then ``rate`` a second."""

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._since = -math.inf

    def spend(self, now: float, n: float = 1.0) -> bool:
        """Take ``n`` tokens; return whether there were that many."""
        earned = (now - self._since) * self._rate
        self._left = min(self._burst, self._left + earned)
        self._since = now
        if self._left < n:
            return False
        self._left -= n
        return True


class Arrival:
    """The progress of a request's body."""

    def __init__(self) -> None:
        #: Bytes that have arrived.
        self.came = 0
        #: Whether the application withholds credit.
        self.withheld = False
        # The length of the measured intervals, when this one began, and how many bytes
        # had arrived by then.
        self.interval = math.inf
        self.since = 0.0
        self.came_before = 0


class Outgoing:
    """The progress of what a stream sends."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        #: Bytes that were ever queued.
        self.total = 0
        #: Whether the watch tracks it.
        self.listed = False
        # When the measured interval began, and, at that time, the bytes that the peer
        # had received of it and of all streams, and the bytes queued.
        self.since = 0.0
        self.taken = 0
        self.all_taken = 0
        self.queued = 0


class Watched(Protocol):
    """What a ``Watch`` needs from a connection."""

    _loop: asyncio.AbstractEventLoop
    _quic: QuicConnection

    def _bodies_awaited(self) -> Collection[tuple[int, Arrival]]:
        """The requests whose bodies must progress, by number."""

    def _overdue(self, what: str, stream_id: int | None) -> None:
        """End a stream, or the connection, that has missed a bound: ``what`` is
        its name in ``Timeouts``."""


class Watch:
    """Ends streams and connections that miss a bound: see ``Timeouts``.

    A connection has one timer.  When it fires, everything open is checked: at most what
    the peer may have open.
    """

    def __init__(self, owner: Watched, timeouts: Timeouts) -> None:
        self._owner: Watched | None = owner
        self._loop = owner._loop
        self._quic = owner._quic
        self._timeouts = timeouts
        self._timer = BoundTimer(self._loop, self._run, max_turns=_MAX_TURNS)
        # The count of received packets at the last check, and its time.
        self._packets = 0
        self._heard = 0.0
        self._settings_due = math.inf
        self._busy = False
        self._idle_since = 0.0
        # Streams with an incomplete header section or other frame: the time by which it
        # must be complete, and its number.  The first is due first.
        self._incomplete: dict[int, tuple[float, int]] = {}
        # Streams whose bytes were not all received by the peer at the last check.
        self._outgoing: dict[int, Outgoing] = {}
        self._sweep_at = _SWEEP
        self._total = 0

    def stop(self) -> None:
        """Stop: the connection has ended."""
        self._owner = None
        self._incomplete.clear()
        self._outgoing.clear()
        self._timer.stop()

    # ---- Reports of events ----

    def handshake_completed(self) -> None:
        """Begin to wait for SETTINGS and requests."""
        self._settings_due = self._loop.time() + self._timeouts.settings
        self._timer.arm(self._settings_due)
        self.idle()

    def settings_received(self) -> None:
        """Handle the peer's SETTINGS."""
        self._settings_due = math.inf

    def idle(self) -> None:
        """Handle the end of the last request."""
        self._busy = False
        self._idle_since = self._loop.time()
        if self._timeouts.idle is not None:
            self._timer.arm(self._idle_since + self._timeouts.idle)

    def busy(self) -> None:
        """Handle an open request."""
        if not self._busy:
            self._busy = True
            if self._timeouts.keepalive is not None:
                self._heard = self._loop.time()
                self._timer.arm(self._heard + self._timeouts.keepalive)

    def section_begun(
        self, stream_id: cython.Py_ssize_t, frame: cython.Py_ssize_t = 0
    ) -> None:
        """Handle bytes of an incomplete header section, or of another incomplete
        ``frame``, a number, on a stream."""
        known = self._incomplete.get(stream_id)
        if known is None or known[1] != frame:
            self._incomplete.pop(stream_id, None)
            due = self._loop.time() + self._timeouts.headers
            self._incomplete[stream_id] = due, frame
            self._timer.arm(due)

    def section_ended(self, stream_id: cython.Py_ssize_t) -> bool:
        """Handle that a header section is complete, or will never be.  Return whether
        it had begun before."""
        return self._incomplete.pop(stream_id, None) is not None

    def body_begun(self, arrival: Arrival, interval: float | None) -> None:
        """Require progress of a body in each ``interval`` from now on."""
        if interval is not None:
            arrival.interval = interval
            arrival.since = self._loop.time()
            self._timer.arm(arrival.since + interval)

    def queued(self, outgoing: Outgoing, n: cython.Py_ssize_t, was_empty: bool) -> None:
        """Handle that ``n`` bytes were queued on a stream, which was empty before if
        ``was_empty``."""
        if self._timeouts.response is None:
            return
        outgoing.total += n
        self._total += n
        if was_empty or not outgoing.listed:
            self._measure(outgoing, self._quic.queued_data(outgoing.stream_id))
            self._timer.arm(outgoing.since + self._timeouts.response)
        if not outgoing.listed:
            if len(self._outgoing) >= self._sweep_at:
                self._sweep()
            self._outgoing[outgoing.stream_id] = outgoing
            outgoing.listed = True

    # ---- Checks ----

    def _run(self) -> None:
        """Check everything open, after what has arrived was read."""
        packets = self._quic.stats["packets_received"]
        heard = packets != self._packets
        if heard:
            self._packets = packets
            self._heard = self._loop.time()
        if self._timer.grant_turn(heard):
            return
        now = self._loop.time()
        self._timer.arm(
            min(
                self._check_connection(now),
                self._check_sections(now),
                self._check_bodies(now),
                self._check_responses(now),
            )
        )

    def _report_overdue(self, what: str, stream_id: int | None = None) -> None:
        if self._owner is not None:
            self._owner._overdue(what, stream_id)

    def _check_connection(self, now: float) -> float:
        if now >= self._settings_due:
            self._settings_due = math.inf
            self._report_overdue("settings")
        due = self._settings_due
        if self._busy and self._timeouts.keepalive is not None:
            # PINGs are sent meanwhile, which the peer acknowledges.
            answer = self._timeouts.keepalive_answer
            if now >= self._heard + self._timeouts.keepalive + answer:
                self._report_overdue("keepalive")
            else:
                due = min(due, now + answer)
        elif not self._busy and self._timeouts.idle is not None:
            idle_due = self._idle_since + self._timeouts.idle
            if now < idle_due:
                due = min(due, idle_due)
            else:
                self._idle_since = now
                self._report_overdue("idle")
        return due

    def _check_sections(self, now: float) -> float:
        for stream_id, (due, _) in list(self._incomplete.items()):
            if now < due:
                return due
            self._incomplete.pop(stream_id, None)
            self._report_overdue("headers", stream_id)
        return math.inf

    def _check_bodies(self, now: float) -> float:
        first = math.inf
        if self._owner is None:
            return first
        for stream_id, arrival in list(self._owner._bodies_awaited()):
            if arrival.withheld or now >= arrival.since + arrival.interval:
                needed = arrival.interval * self._timeouts.min_rate
                came = arrival.came - arrival.came_before
                arrival.since, arrival.came_before = now, arrival.came
                if came < needed and not arrival.withheld:
                    self._report_overdue("body", stream_id)
            first = min(first, arrival.since + arrival.interval)
        return first

    def _check_responses(self, now: float) -> float:
        interval = self._timeouts.response
        if interval is None:
            return math.inf
        first = math.inf
        for stream_id, outgoing in list(self._outgoing.items()):
            queued = self._quic.queued_data(stream_id)
            if queued and now >= outgoing.since + interval:
                if self._is_stalled(outgoing, queued, interval):
                    self._report_overdue("response", stream_id)
                    queued = 0
                else:
                    self._measure(outgoing, queued)
            if queued:
                first = min(first, outgoing.since + interval)
            else:
                outgoing.listed = False
                self._outgoing.pop(stream_id, None)
        return first

    def _is_stalled(self, outgoing: Outgoing, queued: int, interval: float) -> bool:
        """Return whether the peer has received too little of a stream."""
        quic = self._quic
        stream_id = outgoing.stream_id
        needed = self._timeouts.min_rate * interval
        taken = outgoing.total - queued - outgoing.taken
        if taken >= needed:
            return False
        unsent = quic.unsent_data(stream_id)
        if unsent and not quic.send_credit(stream_id):
            return True  # its own window holds it back
        if taken >= outgoing.queued:
            return False  # the application had no more
        # The connection's window blocks it, or it waits behind other streams.
        all_taken = self._total - quic.queued_data() - outgoing.all_taken
        return not unsent or all_taken < needed

    def _measure(self, outgoing: Outgoing, queued: int) -> None:
        """Begin an interval."""
        outgoing.since = self._loop.time()
        outgoing.taken = outgoing.total - queued
        outgoing.all_taken = self._total - self._quic.queued_data()
        outgoing.queued = queued

    def _sweep(self) -> None:
        """Forget the streams of which the peer has received everything."""
        for stream_id, outgoing in list(self._outgoing.items()):
            if not self._quic.queued_data(stream_id):
                outgoing.listed = False
                del self._outgoing[stream_id]
        self._sweep_at = 2 * len(self._outgoing) + _SWEEP
