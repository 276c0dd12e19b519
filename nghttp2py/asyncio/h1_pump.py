"""The transfer of bytes between a transport and a server's HTTP/1.1 connection.

``H1Pump`` is an asyncio protocol.  It owns the transport and decides when to write, to
read, to wait and to abort, as ``H2Pump`` does for HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from nghttp2py.asyncio.http1 import (
    WAITS_BODY,
    WAITS_HEAD,
    WAITS_NOTHING,
    WAITS_REQUEST,
    WAITS_REST,
    HTTP1Exchanges,
)
from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.asyncio.pump import LINGER_SIZE, LINGER_TIME
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.transfer import SharedReads
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.errors import ConnectionTerminatedError, ErrorCode, printable
from nghttp2py.exchange import ExchangeFactory
from nghttp2py.h1 import H1Connection
from nghttp2py.h2 import H2Configuration
from nghttp2py.log_budget import LogBudget, MemoryLog

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["H1Pump"]

logger = logging.getLogger(__name__)

# Bytes that the transport buffers before it pauses writing.
_WRITE_SIZE = 65536
# Writes after which other connections get their turn.
_WRITES_IN_A_TURN = 16
# How often the pace of bodies is checked within the time of a bound.
_LOOKS = 4
# Turns of the loop that a timer waits before it ends a connection, so that bytes that
# have arrived in time are read.
_MAX_TURNS = 16
#: Seconds within which a response goes on to a client that has closed its half of the
#: connection.  It may have closed both: TCP does not tell before it is sent something.
HALF_CLOSED_TIME = 1.0
# Seconds that cancelled coroutines have to end, even if the close timeout is over.
_LEAST_PATIENCE = 1.0
# Log lines about peers, and in how many seconds, for all connections of the program.
_LINES, _LINES_INTERVAL = 100, 5.0
_peer_lines = LogBudget(logger, logging.INFO, _LINES, _LINES_INTERVAL)
_memory_log = MemoryLog(logger)


class H1Pump(SharedReads, asyncio.Protocol, asyncio.BufferedProtocol):
    """One HTTP/1.1 connection of a server.

    ``factory`` makes the exchanges of its requests.  ``opened`` and ``closed`` are
    called with it when it is connected, and when it is not any more.
    """

    transport: asyncio.Transport | None = None

    def __init__(
        self,
        factory: ExchangeFactory | None,
        config: H2Configuration,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
        *,
        timeouts: Timeouts,
        secure: bool = False,
        tunnels: bool = False,
    ) -> None:
        self.http = self._make_exchanges(
            H1Connection(
                secure=secure, tunnels=tunnels, max_body_queue=config.max_body_queue
            ),
            factory,
            config.initial_window_size,
        )
        self._opened = opened
        self._closed = closed
        self._timeouts = timeouts
        #: The client's address and its certificate as a dict, or None.
        self.client_address: Any = None
        self.client_certificate: dict[str, Any] | None = None
        self._busy = False  # in flush(), which also writes what is queued now
        self._dirty = False
        self._scheduled = False
        self._paused = False
        self._reading = True
        self._closing = False
        self._half_closed = False  # the client has closed its half
        self._half_ended = False  # our half of a tunnel has ended
        self._ended = False  # nothing is written any more
        self._lost = False
        self._written = 0
        self._linger_left = 0
        self._stoppers = Waiters()
        self._writers = Waiters()
        # The state that the timer checks: see _look().
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._turns = 0
        self._heard = False
        self._last_active = 0.0
        self._last_written = 0.0
        self._phase = -1
        self._phase_number = -1
        self._phase_since = 0.0
        self._close_due = math.inf
        # The pace of a body, and that of a client which does not read: since when, and
        # the count at that time.
        self._pace: tuple[float, int] | None = None
        self._stall: tuple[float, int] | None = None

    def _make_exchanges(
        self, connection: H1Connection, factory: ExchangeFactory | None, window: int
    ) -> HTTP1Exchanges:
        return HTTP1Exchanges(self, connection, factory, window=window)

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._loop = asyncio.get_running_loop()
        transport = cast(asyncio.Transport, transport)
        self.transport = transport
        self.http.connected(transport)
        self.client_address = self.http.get_extra_info("peername")
        self.client_certificate = self.http.get_extra_info("peercert") or None
        if self._closing:
            # close() or abort() was called before there was a transport.
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WRITE_SIZE)
        self._last_active = self._last_written = self._loop.time()
        self._note_phase()
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, and write the answers."""
        self._heard = True
        self._last_active = self._loop.time()
        if self._ended:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.abort()
            return
        self._busy = True  # what is queued by those that are called, flush() writes
        try:
            count_bytes(len(data))
            self.http.receive(data)
        except Exception as error:
            self.give_up(error)
            return
        finally:
            self._busy = False
        self.flush(settled=True)

    def request_refused(self, status: int | None, reason: str) -> None:
        """Log that the client has sent what is no valid request."""
        _peer_lines.log("%s: a request was refused: %s", self, printable(reason))

    def eof_received(self) -> bool:
        """Let the transport close, unless a request waits for its response.

        A client may close its half of the connection after its request, and still read.
        """
        if self._ended:
            return False
        self._busy = True
        try:
            owed = self.http.receive_eof()
        except Exception as error:
            self.give_up(error)
            return False
        finally:
            self._busy = False
        if self._ended:
            return False
        if owed:
            self._half_closed = True
            self._last_written = now = self._loop.time()
            self._arm(now + HALF_CLOSED_TIME)
            self.mark_dirty()
        return owed

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._paused = self.http.paused = True
        self._stall = None
        bound = self._stall_bound()
        if bound < math.inf:
            self._arm(self._loop.time() + bound / _LOOKS)

    def resume_writing(self) -> None:
        """Continue writing after ``pause_writing``."""
        self._paused = self.http.paused = False
        self._stall = None
        self._writers.wake()
        self.http.wake_blocked()
        self.mark_dirty()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the exchange, and report the end to the owner."""
        transport, self.transport = self.transport, None
        if sys.version_info < (3, 11) and transport is not None:
            # See H2Pump.
            transport.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost = self._ended = True
        reason = "the transport was closed" if exc is None else f"it was lost: {exc}"
        fault = self.http.fault
        # What a task does after its response must not depend on whether the client
        # keeps the connection.
        broken = fault is not None or bool(self.http.exchanges)
        try:
            if fault is None:
                fault = (
                    partial(
                        ConnectionTerminatedError,
                        ErrorCode.CANCEL,
                        remote=not self._closing,
                        reason=reason,
                    ),
                    ErrorCode.CANCEL,
                )
            self.http.lose(*fault)
        except Exception as error:
            _memory_log.failed(error, "%s: its end failed", self)
        finally:
            tasks = self.http.tasks
            self.http.disconnected()
            self._stoppers.wake()
            self._writers.wake()
            tasks.connection_lost(
                partial(self._closed, self),
                patience=0.0 if broken else self._timeouts.close,
            )
            if self._closing:
                self._release_after(self._close_due - self._loop.time())

    def _release_after(self, timeout: float) -> None:
        self.http.tasks.release_after(
            max(min(timeout, self._timeouts.close), _LEAST_PATIENCE)
        )

    # ---- Writing ----

    def mark_dirty(self) -> None:
        """Schedule a flush, because something was queued from outside."""
        if self._busy:
            self._dirty = True
        elif not self._scheduled and self.transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self, *, settled: bool = False) -> None:
        """Write what is queued, and go on with the next requests.

        ``settled`` is whether ``http`` has done already what it can do.
        """
        if self._busy:
            self._dirty = True
            return
        http = self.http
        writes = 0
        self._busy = True
        try:
            while True:
                self._dirty = False
                if not settled:
                    http.settle()
                settled = False
                if http.fault is not None and http.aborts:
                    self._break_off()
                    return
                transport = self.transport
                if self._paused or self._ended or transport is None:
                    break
                data = http.take_output()
                if not data:
                    break
                count_bytes(len(data))
                transport.write(data)
                self._written += len(data)
                writes += 1
                if self._half_closed:
                    self._last_written = self._loop.time()
                if writes == _WRITES_IN_A_TURN:
                    self._dirty = True
                    break
            self._busy = False
            if http.is_over and not http.queued_bytes:
                self._finish()
                return
            if http.half_ends and not http.queued_bytes:
                self._end_half()
            if self._dirty:
                self.mark_dirty()
            self.update_reading()
            self._note_phase()
        except Exception as error:
            self.give_up(error)
        finally:
            self._busy = False

    def update_reading(self) -> None:
        """Read only while what is not acknowledged is within its bound."""
        reads = self._ended or self.http.reads
        if reads is not self._reading and self.transport is not None:
            self._reading = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def give_up(self, error: BaseException) -> None:
        """Abort after an error that neither the application nor the peer has caused."""
        try:
            _memory_log.failed(error, "%s: the connection is given up", self)
        except Exception:
            pass
        finally:
            self.abort()

    # ---- The end ----

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the transport is closing."""
        return self._closing or self.transport is None or self.transport.is_closing()

    @property
    def is_paused(self) -> bool:
        """Whether the transport has paused writing."""
        return self._paused

    @property
    def stream_count(self) -> int:
        """The requests that are open: at most one."""
        return len(self.http.exchanges)

    @property
    def handlers(self) -> dict[int, Any]:
        """The exchange of the open request, by its number."""
        return self.http.exchanges

    def set_alt_svc(self, value: bytes) -> None:
        """Add Alt-Svc to each final response (RFC 7838)."""
        self.http.alt_svc = value

    async def wait_closing(self) -> None:
        """Wait until ``is_closing`` is true: this end is closing the connection."""
        while not self.is_closing:
            await self._stoppers.wait()

    async def wait_transport(self) -> None:
        """Wait until the transport accepts bytes; raise if it never will."""
        while self._paused and not self._lost:
            await self._writers.wait()
        if self._lost:
            raise ConnectionTerminatedError(
                ErrorCode.CANCEL, remote=not self._closing, reason="it was lost"
            )

    def close(self, timeout: float | None = None) -> None:
        """End the connection after the current response, which says so.

        What has not finished after ``timeout`` seconds (``timeouts.close``) is aborted.
        This may be called in every state.  A later call can only shorten the time that
        is left.
        """
        if timeout is None:
            timeout = self._timeouts.close
        if self._lost:
            self._release_after(timeout)
            return
        if self.transport is None:
            self._closing = True
            return
        self._end_by(timeout)
        if self._closing:
            return
        self._closing = True
        self._stoppers.wake()
        self.http.begin_closing()
        self.mark_dirty()

    def abort(self) -> None:
        """Close the transport now; what it has not written is lost."""
        self._closing = self._ended = True
        self._close_due = 0
        self._stoppers.wake()
        if self.transport is not None:
            self.transport.abort()
        self.http.tasks.release()

    def _break_off(self) -> None:
        """End the connection in the middle of a response, so that the client sees it.

        The response before it is written.
        """
        transport = self.transport
        if transport is None or self._ended:
            return
        data = self.http.take_complete()
        self._closing = self._ended = True
        if data and not self._paused:
            transport.write(data)
        sock = transport.get_extra_info("socket")
        if sock is not None and self.http.connection.is_until_close:
            # A response without a length would seem to be whole after FIN.
            with contextlib.suppress(OSError):
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            transport.abort()
        elif self._paused:
            transport.abort()
        else:
            self._end_by(LINGER_TIME)
            transport.close()

    def _finish(self) -> None:
        """Close the transport: neither side has anything left to send.

        See ``H2Pump``: only the sending half is closed, and what arrives is read and
        discarded until the client closes its half, or sends nothing for some time.
        """
        transport = self.transport
        if transport is None or self._ended:
            return
        self._closing = self._ended = True
        self._stoppers.wake()
        self._end_by(self._timeouts.close)
        if transport.is_closing():
            return
        if self._half_closed or self._half_ended or not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:
            transport.abort()
            return
        self._linger_left = LINGER_SIZE
        self._last_active = now = self._loop.time()
        self.update_reading()
        self._arm(now + LINGER_TIME)

    def _end_half(self) -> None:
        """Close our half of a tunnel, while the client's goes on."""
        transport = self.transport
        if self._half_ended or transport is None or not transport.can_write_eof():
            return
        self._half_ended = True
        with contextlib.suppress(OSError):  # the client may have reset it
            transport.write_eof()

    def _end_by(self, timeout: float) -> None:
        """Abort after ``timeout`` seconds, unless an earlier deadline is set."""
        self._close_due = min(self._close_due, self._loop.time() + timeout)
        self._arm(self._close_due)

    # ---- The timer ----
    #
    # As in H2Pump, one timer serves all bounds.  It is not moved when the earliest is
    # cancelled: when it fires, it computes the next time.

    def _arm(self, when: float) -> None:
        if self.transport is None:
            return
        if self._timer is not None:
            if self._timer_due <= when:
                return
            self._timer.cancel()
        self._timer_due = when
        self._timer = self._loop.call_at(when, self._look)

    def _note_phase(self) -> None:
        """Take notice of what the connection waits for."""
        phase = self.http.find_phase()
        number = self.http.number
        if phase == self._phase and number == self._phase_number:
            return
        self._phase = phase
        self._phase_number = number
        # Now, not when the client was heard last: a response may have taken long since.
        self._phase_since = self._loop.time()
        self._pace = None
        due = self._phase_due()
        if due < math.inf:
            self._arm(due)

    def _phase_due(self) -> float:
        """Return when to look at the current phase."""
        timeouts = self._timeouts
        bound: float | None = None
        if self._phase == WAITS_REQUEST:
            bound = timeouts.keep_alive if self._phase_number else timeouts.handshake
        elif self._phase == WAITS_HEAD:
            bound = timeouts.headers
        elif self._phase == WAITS_BODY:
            bound = None if timeouts.body is None else timeouts.body / _LOOKS
        elif self._phase == WAITS_REST:
            bound = LINGER_TIME
        return math.inf if bound is None else self._phase_since + bound

    def _look(self) -> None:
        """End what is overdue; set the timer for the next bound.

        See ``H2Pump``: what is overdue gets another turn of the loop, in which bytes
        are read that have arrived in time.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is None:
            return
        try:
            verdict, due = self._judge(self._loop.time())
            if verdict is None:
                self._turns = 0
            elif self._turns == 0 or (self._heard and self._turns < _MAX_TURNS):
                self._turns += 1
                self._heard = False
                self._loop.call_soon(self._loop.call_soon, self._look)
                return
            else:
                self._turns = 0
                verdict()
                due = self._close_due
            if due < math.inf and self.transport is not None:
                self._arm(due)
        except Exception as error:
            self.give_up(error)

    def _judge(self, now: float) -> tuple[Callable[[], object] | None, float]:
        """Return the action that is due, or ``None``, and the time of the next
        check."""
        due = self._close_due
        if now >= due:
            return self.abort, math.inf
        assert self.transport is not None
        if self._ended:
            if self.transport.is_closing():
                return None, due
            if now >= self._last_active + LINGER_TIME:
                return self.transport.close, due
            return None, min(due, self._last_active + LINGER_TIME)
        if self._half_closed and not self._paused:
            when = self._last_written + HALF_CLOSED_TIME
            if now >= when:
                return self.abort, math.inf
            due = min(due, when)
        for judge in (self._judge_phase, self._judge_transport):
            verdict, when = judge(now)
            if verdict is not None:
                return verdict, due
            due = min(due, when)
        return None, due

    def _judge_phase(self, now: float) -> tuple[Callable[[], object] | None, float]:
        """Check that what the client owes comes in time."""
        phase = self._phase
        timeouts = self._timeouts
        if phase == WAITS_NOTHING:
            return None, math.inf
        if phase == WAITS_BODY:
            return self._judge_body(now)
        if phase == WAITS_REST:
            # Progress keeps it, for a while.
            quiet = self._last_active + LINGER_TIME
            over = self._phase_since + timeouts.close
            if now >= min(quiet, over):
                return self._finish, math.inf
            return None, min(quiet, over)
        when = self._phase_due()
        if now < when:
            return None, when
        if phase == WAITS_HEAD:
            return partial(
                self._refuse,
                f"the header section was incomplete for {timeouts.headers} seconds",
            ), math.inf
        return self._finish, math.inf

    def _judge_body(self, now: float) -> tuple[Callable[[], object] | None, float]:
        timeouts = self._timeouts
        bound = timeouts.body
        if bound is None:
            return None, math.inf
        count = self.http.received
        if not self._reading or self._pace is None:
            # The application withholds credit, or the body has just begun.
            self._pace = (now if not self._reading else self._phase_since, count)
        since, before = self._pace
        elapsed = now - since
        if elapsed >= 0.9 * bound / _LOOKS and (
            count - before >= timeouts.min_rate * elapsed and count > before
        ):
            self._pace = (now, count)
        elif elapsed >= bound:
            return partial(
                self._refuse, f"the body made no progress for {bound} seconds"
            ), math.inf
        return None, now + bound / _LOOKS

    def _refuse(self, reason: str) -> None:
        """Answer 408 (Request Timeout), and end the connection."""
        self._busy = True
        try:
            self.http.refuse(408, reason)
        finally:
            self._busy = False
        self.flush(settled=True)

    def _stall_bound(self) -> float:
        """Return the seconds in which a client must read from a paused transport."""
        waits = (self._timeouts.response, self._timeouts.idle)
        return min((wait for wait in waits if wait is not None), default=math.inf)

    def _judge_transport(self, now: float) -> tuple[Callable[[], object] | None, float]:
        """Check that the client reads while the transport is paused."""
        bound = self._stall_bound()
        if not self._paused or bound == math.inf:
            self._stall = None
            return None, math.inf
        taken = self._written - self._left()
        if self._stall is None:
            self._stall = (now, taken)
        since, before = self._stall
        elapsed = now - since
        if (
            elapsed * _LOOKS >= 0.9 * bound
            and taken > before
            and taken - before >= self._timeouts.min_rate * elapsed
        ):
            self._stall = (now, taken)
        elif elapsed >= bound:
            return self._abort_stalled, math.inf
        return None, now + bound / _LOOKS

    def _abort_stalled(self) -> None:
        _peer_lines.log("%s: aborted, for the peer takes no bytes", self)
        self.abort()

    def _left(self) -> int:
        """Return how many bytes the client has not read."""
        transport = self.transport
        assert transport is not None
        left = transport.get_write_buffer_size()
        if sys.platform != "win32":
            sock = transport.get_extra_info("socket")
            try:
                queue = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            except (AttributeError, OSError, ValueError):
                pass  # there is no socket, or the system does not report it
            else:
                left += int.from_bytes(queue, sys.byteorder)
        return left

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_address or 'not connected'}>"
