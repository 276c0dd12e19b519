"""The transfer of bytes between a transport and a server's HTTP/1.1 connection.

``H1Pump`` is an asyncio protocol.  It owns the transport and decides when to write, to
read, to wait and to abort, as ``H2Pump`` does for HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from nghttp2py.asyncio.bounds import (
    LINGER_TIME,
    LOOKS,
    BoundedTransport,
    Mark,
    Verdict,
)
from nghttp2py.asyncio.http1 import HTTP1Exchanges, Phase
from nghttp2py.asyncio.listener import LAST_REQUEST_TIME
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.transfer import WRITE_SIZE, H1Transfer
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.errors import ConnectionTerminatedError, ErrorCode, printable
from nghttp2py.exchange import ExchangeFactory
from nghttp2py.h1 import H1Connection
from nghttp2py.h2 import H2Configuration
from nghttp2py.log_budget import MemoryLog, peer_lines

__all__ = ["H1Pump"]

logger = logging.getLogger(__name__)

#: Seconds within which a response goes on to a client that has closed its half of the
#: connection.
HALF_CLOSED_TIME = 10.0
#: The same if nothing can be sent to learn whether the client has closed both halves.
UNKNOWN_TIME = 1.0
#: Seconds from the end of the client's half to the first octet that is sent ahead to
#: learn it: most responses are there before.  Each interval is twice the last.
PROBE_INTERVAL = 0.02
# Seconds between two looks whether a client is gone while nothing is read.
_UNREAD_LOOK = 1.0


class H1Pump(BoundedTransport, H1Transfer, asyncio.Protocol, asyncio.BufferedProtocol):
    """One HTTP/1.1 connection of a server.

    ``factory`` makes the exchanges of its requests.  ``opened`` and ``closed`` are
    called with it when it is connected, and when it is not any more.
    """

    _peer_lines = peer_lines(logger)
    _memory_log = MemoryLog(logger)

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
        self._set_timeouts(timeouts)
        #: The client's address and its certificate as a dict, or None.
        self.client_address: Any = None
        self.client_certificate: dict[str, Any] | None = None
        self._lost = False
        self._stoppers = Waiters()
        self._writers = Waiters()
        looks = math.inf if timeouts.body is None else timeouts.body / LOOKS
        keep_alive = math.inf if timeouts.keep_alive is None else timeouts.keep_alive
        self._set_bounds(
            timeouts.handshake,
            {
                Phase.WAITS_REQUEST: keep_alive,
                Phase.WAITS_HEAD: timeouts.headers,
                Phase.WAITS_BODY: looks,
                Phase.WAITS_UPLOAD: looks,
                Phase.WAITS_REST: LINGER_TIME,
                Phase.WAITS_NOTHING: self._stall_bound / LOOKS,
            },
        )
        # The state that the timer checks: see _judges().
        # What was written when _pace was set, and the progress of a client whose
        # response is under way.
        self._pace_written = 0
        self._reads: Mark | None = None
        # Octets that were sent ahead of a response, and when the next one is due.
        self._ahead = 0
        self._probe_due = math.inf
        self._probe_interval = PROBE_INTERVAL
        # The wait of a closing connection for one more request, and the number of the
        # one before.
        self._last_timer: asyncio.TimerHandle | None = None
        self._last_number = 0

    def _make_exchanges(
        self, connection: H1Connection, factory: ExchangeFactory | None, window: int
    ) -> HTTP1Exchanges:
        return HTTP1Exchanges(self, connection, factory, window=window)

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        transport = cast(asyncio.Transport, transport)
        self._begin_transfer(asyncio.get_running_loop(), transport)
        self.http.connected(transport)
        self.client_address = self.http.get_extra_info("peername")
        self.client_certificate = self.http.get_extra_info("peercert") or None
        if self._closing:
            # close() or abort() was called before there was a transport.
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_SIZE)
        secure = self.http.connection.secure or transport.get_extra_info("sslcontext")
        self._file_socket = None if secure else transport.get_extra_info("socket")
        self._send_files()
        self._last_written = self._begin_bounds()
        self.flush()
        self._opened(self)

    def request_refused(self, status: int | None, reason: str) -> None:
        """Log that the client has sent what is no valid request."""
        self._peer_lines.log("%s: a request was refused: %s", self, printable(reason))

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
        if owed and self._is_hung_up():
            return False  # it has closed the other half, too
        if owed:
            self._half_closed = True
            self._send_files()
            self._last_written = self._loop.time()
            self._restart_probes()
            self.mark_dirty()
        return owed

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._paused = self.http.paused = True
        self._stall = None
        bound = self._stall_bound
        if bound < math.inf:
            self._arm(self._loop.time() + bound / LOOKS)

    def resume_writing(self) -> None:
        """Continue writing after ``pause_writing``."""
        self._paused = self.http.paused = False
        self._stall = None
        self._send_files()
        self._writers.wake()
        self.http.wake_blocked()
        self.mark_dirty()

    def _send_files(self) -> None:
        """Let the kernel copy files to the socket, unless what is sent is counted."""
        self.http.sends_files = not (self._file_socket is None or self._half_closed)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the exchange, and report the end to the owner."""
        transport, self.transport = self.transport, None
        if sys.version_info < (3, 11) and transport is not None:
            # See H2Pump.
            transport.close()
        self._stop_bounds()
        if self._last_timer is not None:
            self._last_timer.cancel()
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
            self._memory_log.failed(error, "%s: its end failed", self)
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
        self.http.tasks.release_after(min(timeout, self._timeouts.close))

    def _arm_unread(self) -> None:
        """Look in a while whether the client is gone, of which nothing is read."""
        self._arm(self._loop.time() + _UNREAD_LOOK)

    # ---- The end ----

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
        if not self.http.exchanges:
            # A client that sends a request now does not know that it comes too late.
            self._last_number = self.http.number
            self._last_timer = self._loop.call_later(
                min(timeout, LAST_REQUEST_TIME), self._end_wait
            )
        self.http.begin_closing()
        self.mark_dirty()

    @property
    def _awaits_last(self) -> bool:
        """Whether a closing connection waits for one more request."""
        return self._last_timer is not None and self._last_number == self.http.number

    def _end_wait(self) -> None:
        """Close the connection, unless its last request has begun to come."""
        if self._awaits_last and self._phase == Phase.WAITS_HEAD:
            self._last_timer = self._loop.call_later(LAST_REQUEST_TIME, self._end_wait)
        elif self._awaits_last:
            self._last_timer = None
            self.http.connection.close()
            self.mark_dirty()

    def abort(self) -> None:
        """Close the transport now; what it has not written is lost."""
        transport = self.transport
        if transport is not None and self._would_seem_whole:
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(AttributeError, OSError):
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        super().abort()
        self._close_due = 0
        self._stoppers.wake()
        self.http.tasks.release()

    @property
    def _would_seem_whole(self) -> bool:
        """Whether a client would take FIN for the end of a response that breaks off.

        It has no length, or zeros were sent ahead: CPython's http.client and urllib3
        take them for the last chunk, even without the end of their line.
        """
        return self.http.connection.is_until_close or self._ahead > 0

    def _break_off(self) -> None:
        """End the connection in the middle of a response, so that the client sees it.

        What is queued is written if the client cannot take it for the whole.
        """
        transport = self.transport
        if transport is None or self._ended:
            return
        data = self.http.take_rest()
        if self._ahead and data:
            data = self._follow_ahead(data)
        self._closing = self._ended = True
        if data and not self._paused:
            transport.write(data)
        if self._paused or self._would_seem_whole:
            self.abort()
        else:
            self._end_by(LINGER_TIME)
            transport.close()

    def _finish(self) -> None:
        """Close the transport: neither side has anything left to send."""
        super()._finish()
        self._stoppers.wake()
        self.update_reading()

    def _end_half(self) -> None:
        """Close our half of a tunnel, while the client's goes on."""
        transport = self.transport
        if self._half_ended or transport is None or not transport.can_write_eof():
            return
        self._half_ended = True
        with contextlib.suppress(OSError):  # the client may have reset it
            transport.write_eof()

    # ---- The timer ----

    def _judges(self) -> Iterator[Callable[[float], Verdict]]:
        """The checks of a connection that has not ended."""
        yield self._judge_presence
        yield self._judge_phase
        yield self._judge_transport
        yield self._judge_response

    def _judge_presence(self, now: float) -> Verdict:
        """Check that a client is still there of which nothing is received."""
        if self._reading and not self._half_closed:
            return None, math.inf
        if self._is_hung_up():
            return self._abort_gone, math.inf
        if not self._half_closed:
            return None, now + _UNREAD_LOOK
        if self._paused:
            return None, math.inf  # as long as it reads
        ahead = self.http.find_ahead()
        over = self._last_written + (HALF_CLOSED_TIME if ahead else UNKNOWN_TIME)
        if now >= over:
            return self._abort_gone, math.inf
        if now >= self._probe_due:
            self._probe_due = now + self._probe_interval
            self._probe_interval *= 2
            if self._ahead < len(ahead) and self.transport is not None:
                self.transport.write(ahead[self._ahead : self._ahead + 1])
                self._ahead += 1
                self._written += 1
        return None, min(over, self._probe_due)

    def _restart_probes(self) -> None:
        """Begin to check whether a client that has closed its half still reads.

        A client's system that has closed both halves answers the next octets with RST.
        So octets are sent ahead with which every response begins.
        """
        self._probe_interval = PROBE_INTERVAL
        self._probe_due = self._loop.time() + PROBE_INTERVAL
        self._arm(self._probe_due)

    def _follow_ahead(self, data: bytes) -> bytes:
        """Return the rest of a response that was begun ahead."""
        self._last_written = self._loop.time()
        self._restart_probes()
        n, self._ahead = self._ahead, 0
        # Zeros before the size of a chunk are no part of the response.
        return data[n:] if data[:1] == b"H" else data

    def _is_hung_up(self) -> bool:
        """Return whether the client's system has reset the connection.

        The event loop does not report it while it does not read.
        """
        sock = None
        if self.transport is not None and hasattr(select, "poll"):
            sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return bool(poll.poll(0))

    def _abort_gone(self) -> None:
        """Abort: the client has closed the connection."""
        self._busy = True
        try:
            self.http.lose(
                partial(
                    ConnectionTerminatedError,
                    ErrorCode.CANCEL,
                    remote=True,
                    reason="the client closed the connection",
                ),
                ErrorCode.CANCEL,
            )
        finally:
            self._busy = False
            self.abort()

    def _judge_phase(self, now: float) -> Verdict:
        """Check that what the client owes comes in time."""
        phase = self._phase
        timeouts = self._timeouts
        if phase == Phase.WAITS_NOTHING:
            return None, math.inf
        if phase in (Phase.WAITS_BODY, Phase.WAITS_UPLOAD):
            return self._judge_body(now)
        if phase == Phase.WAITS_REST:
            # Progress keeps it, for a while.
            quiet = self._last_active + LINGER_TIME
            over = self._phase_since + timeouts.close
            if now >= min(quiet, over):
                return self._finish, math.inf
            return None, min(quiet, over)
        when = self._phase_due()
        if now < when:
            return None, when
        if phase == Phase.WAITS_HEAD:
            return partial(
                self._refuse,
                f"the header section was incomplete for {timeouts.headers} seconds",
            ), math.inf
        return self._finish, math.inf

    def _judge_body(self, now: float) -> Verdict:
        timeouts = self._timeouts
        bound = timeouts.body
        if bound is None:
            return None, math.inf
        count = self.http.received
        mark = self._pace
        if not self._reading or mark is None:
            # The application withholds credit, or the body has just begun.
            mark = Mark(self._phase_since if self._reading else now, count)
            self._pace_written = self._written
        elif self._phase == Phase.WAITS_UPLOAD and self._written > self._pace_written:
            # The client may wait for what the application says to the body so far.
            mark = Mark(now, count)
            self._pace_written = self._written
        elif self._progressed(mark, count, now, bound):
            mark = Mark(now, count)
        self._pace = mark
        if now >= mark.since + bound:
            return partial(
                self._refuse, f"the body made no progress for {bound} seconds"
            ), math.inf
        return None, now + bound / LOOKS

    def _judge_response(self, now: float) -> Verdict:
        """Check that a client receives what was written of a response under way.

        A client that has vanished without FIN or RST acknowledges nothing.  TCP may
        retransmit for a quarter of an hour.
        """
        bound = self._stall_bound
        if self._paused or bound == math.inf or not self.stream_count:
            self._reads = None
            return None, math.inf
        left = self._left()
        taken = self._written - left
        if not left or self._reads is None or self._reads.count != taken:
            self._reads = Mark(now, taken)
        elif now >= self._reads.since + bound:
            return self._abort_stalled, math.inf
        return None, now + bound / LOOKS

    def _refuse(self, reason: str) -> None:
        """Answer 408 (Request Timeout), and end the connection."""
        self._busy = True
        try:
            self.http.refuse(408, reason)
        finally:
            self._busy = False
        self.flush(settled=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_address or 'not connected'}>"
