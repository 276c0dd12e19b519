"""The bounds of time on the peer of a transport, and the end of a connection.

``BoundTimer`` is the one timer of a connection; ``BoundedTransport`` is the base class
of ``H2Pump`` and ``H1Pump``.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeAlias

from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.log_budget import LogBudget, MemoryLog

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["LINGER_SIZE", "LINGER_TIME", "LOOKS", "BoundTimer", "BoundedTransport"]

#: Seconds without bytes after which a connection that has ended is closed even if the
#: peer has not closed its half: a round trip, and the time to read what was sent.
LINGER_TIME = 2.0
#: Bytes that are read and discarded meanwhile: uploads in flight.
LINGER_SIZE = 4 * 1024 * 1024
#: How often the pace of a body is checked within the time of its bound.
LOOKS = 4
# Turns of the loop that a timer waits before it ends a connection, so that bytes that
# have arrived in time are read.
_MAX_TURNS = 16

#: The action that is due, or ``None``, and the time of the next check.
Verdict: TypeAlias = tuple[Callable[[], object] | None, float]


class BoundTimer:
    """The one timer of a connection, which serves all its bounds.

    It is set for the earliest, and not moved when that is cancelled: ``look`` computes
    the next time when the timer fires.  So a request costs nothing here.
    """

    __slots__ = ("_handle", "_look", "_loop", "_max_turns", "due", "turns")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], object],
        *,
        max_turns: int = _MAX_TURNS,
    ) -> None:
        self._loop = loop
        self._look: Callable[[], object] | None = look
        self._max_turns = max_turns
        self._handle: asyncio.TimerHandle | None = None
        #: When it fires, at the latest; infinite if it is not set.
        self.due = math.inf
        #: Turns of the loop that what is overdue has got so far.
        self.turns = 0

    def arm(self, when: float) -> None:
        """Make the timer fire at ``when``, at the latest."""
        if when >= self.due:
            return
        self._disarm()
        if self._look is not None:
            self.due = when
            self._handle = self._loop.call_at(when, self.fire)

    def fire(self) -> None:
        """Call ``look`` now."""
        self._disarm()
        if self._look is not None:
            self._look()

    def grant_turn(self, heard: bool) -> bool:
        """Return whether what is overdue gets another turn of the loop.

        The loop may have been blocked; then timers can run before bytes are read that
        have arrived in time.  So there is a turn before the end, and there are more as
        long as they bring bytes, which is ``heard``.
        """
        if self.turns and not (heard and self.turns < self._max_turns):
            self.turns = 0
            return False
        self.turns += 1
        # uvloop runs the callbacks of call_soon() before it reads.
        self._loop.call_soon(self._loop.call_soon, self.fire)
        return True

    def stop(self) -> None:
        """Never fire again, and drop the reference to the connection."""
        self._look = None
        self._disarm()

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.due = math.inf


class Mark:
    """The value and the time of a counter when it last made enough progress."""

    __slots__ = ("count", "since")

    def __init__(self, since: float, count: int) -> None:
        self.since = since
        self.count = count


class BoundedTransport:
    """What the pumps of all protocols know of a transport and its peer.

    A subclass has the attributes that are only annotated here; it sets ``transport`` in
    ``connection_made``, calls ``_begin_bounds`` after that, and overrides ``_judges``.
    """

    #: The log lines about peers, and about failures of ours: those of a module.
    _peer_lines: ClassVar[LogBudget]
    _memory_log: ClassVar[MemoryLog]

    transport: asyncio.Transport | None
    _loop: asyncio.AbstractEventLoop
    _ended: bool  # the transport was closed: nothing is written
    _heard: bool  # bytes have arrived since this was set to false
    _last_active: float  # when bytes last arrived, on the loop's clock
    _paused: bool  # the transport has paused writing
    _written: int  # bytes given to the transport

    # Whether the sending half is closed while the transport lingers.  A client waits
    # for nothing: it has received all its responses.
    _lingers = True
    _half_ended = False  # our half of a tunnel has ended
    # The time in which what a verdict has left is looked at.
    _look_interval = math.inf

    def _set_timeouts(self, timeouts: Timeouts) -> None:
        """Begin without a transport."""
        self._timeouts = timeouts
        # Seconds in which a peer must read from a paused transport.
        waits = (timeouts.response, timeouts.idle)
        self._stall_bound = min(
            (wait for wait in waits if wait is not None), default=math.inf
        )
        self._closing = False
        self._half_closed = False  # the peer has closed its half, but still reads
        self._close_due = math.inf
        self._linger_left = 0  # bytes that are still read after the end
        self._timer: BoundTimer | None = None
        # The progress of a paused transport; after the end, of what the peer has not
        # read.
        self._stall: Mark | None = None

    def _begin_bounds(self) -> float:
        """Begin with ``transport``; return the time."""
        self._timer = BoundTimer(self._loop, self._look)
        self._last_active = now = self._loop.time()
        return now

    def _stop_bounds(self) -> None:
        """Stop: the transport is lost."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def give_up(self, error: BaseException) -> None:
        """Abort after an error that neither the application nor the peer has caused.

        It may be a want of memory: then there is no memory for a traceback, and
        possibly none for a log line either.
        """
        try:
            self._memory_log.failed(error, "%s: the connection is given up", self)
        except Exception:
            pass
        finally:
            self.abort()

    # ---- The end ----

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the transport is closing."""
        return self._closing or self.transport is None or self.transport.is_closing()

    def abort(self) -> None:
        """Close the transport now; what it has not written is lost."""
        self._closing = self._ended = True
        if self.transport is not None:
            self.transport.abort()

    def _finish(self) -> None:
        """Close the transport: neither side has anything left to send.

        If a socket is closed while bytes are in flight to it, the kernel answers them
        by RST, and both kernels drop what was not sent or read yet.  So only the
        sending half is closed, and what arrives is read and discarded until the peer
        closes its half or sends nothing for some time.
        """
        transport = self.transport
        if transport is None or self._ended:
            return
        self._closing = self._ended = True
        self._end_by(self._timeouts.close)
        if transport.is_closing():
            return
        if self._half_closed or self._half_ended:
            transport.close()
            return
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                # asyncio's write_eof() raises if the peer has reset the connection.
                transport.abort()
                return
        elif not self._lingers:
            # asyncio's TLS waits for the peer's close_notify by itself.
            transport.close()
            return
        self._linger_left = LINGER_SIZE
        self._last_active = now = self._loop.time()
        self._stall = Mark(now, 0)
        self._arm(now + (LINGER_TIME / LOOKS if self._left() else LINGER_TIME))

    def _discard(self, size: int) -> None:
        """Discard what arrives after the end."""
        self._linger_left -= size
        if self._linger_left < 0:
            self.abort()

    def _end_by(self, timeout: float) -> None:
        """Abort after ``timeout`` seconds, unless an earlier deadline is set."""
        self._close_due = min(self._close_due, self._loop.time() + timeout)
        self._arm(self._close_due)

    # ---- The timer ----

    def _arm(self, when: float) -> None:
        """Make the timer fire at ``when``, at the latest."""
        if self._timer is not None:
            self._timer.arm(when)

    def _look(self) -> None:
        """End what is overdue; set the timer for the next bound."""
        if self.transport is None or self._timer is None:
            return
        try:
            verdict, due = self._judge(self._loop.time())
            if verdict is None:
                self._timer.turns = 0
            elif self._timer.grant_turn(self._heard):
                self._heard = False
                return
            else:
                verdict()
                due = min(self._close_due, self._loop.time() + self._look_interval)
            self._arm(due)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.give_up(error)

    def _judge(self, now: float) -> Verdict:
        """Return the action that is due, or ``None``, and the time of the next
        check."""
        due = self._close_due
        if now >= due:
            return self.abort, math.inf
        for judge in [self._judge_linger] if self._ended else self._judges():
            verdict, when = judge(now)
            if verdict is not None:
                return verdict, due
            due = min(due, when)
        return None, due

    def _judges(self) -> Iterator[Callable[[float], Verdict]]:
        """The checks of a connection that has not ended."""
        yield self._judge_transport

    def _judge_linger(self, now: float) -> Verdict:
        """Check a connection after its end: wait while the peer sends, or reads."""
        assert self.transport is not None
        if self.transport.is_closing():
            return None, math.inf
        left = self._left()
        if left or self._stall is None or self._stall.count:
            self._stall = Mark(now, left)
        quiet = max(self._last_active, self._stall.since)
        if now >= quiet + LINGER_TIME:
            return self.transport.close, math.inf
        return None, now + LINGER_TIME / LOOKS if left else quiet + LINGER_TIME

    def _judge_transport(self, now: float) -> Verdict:
        """Check that the peer reads while the transport is paused."""
        bound = self._stall_bound
        if not self._paused or bound == math.inf:
            self._stall = None
            return None, math.inf
        taken = self._taken()
        if self._stall is None or self._progressed(self._stall, taken, now, bound):
            self._stall = Mark(now, taken)
        elif now >= self._stall.since + bound:
            return self._abort_stalled, math.inf
        return None, now + bound / LOOKS

    def _abort_stalled(self) -> None:
        self._peer_lines.log("%s: aborted, for the peer takes no bytes", self)
        self.abort()

    def _progressed(self, mark: Mark, count: int, now: float, bound: float) -> bool:
        """Return whether a counter has grown fast enough since ``mark``."""
        elapsed = now - mark.since
        return (
            elapsed * LOOKS >= 0.9 * bound
            and count > mark.count
            and count - mark.count >= self._timeouts.min_rate * elapsed
        )

    def _taken(self) -> int:
        """Return how many bytes the peer has read, as far as known."""
        return self._written - self._left()

    def _left(self) -> int:
        """Return how many bytes the peer has not read."""
        transport = self.transport
        assert transport is not None
        left = transport.get_write_buffer_size()
        if sys.platform != "win32":
            socket = transport.get_extra_info("socket")
            try:
                queue = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
            except (AttributeError, OSError, ValueError):
                pass  # there is no socket, or the system does not report it
            else:
                left += int.from_bytes(queue, sys.byteorder)
        return left
