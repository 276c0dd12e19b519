# cython: nonecheck=True
"""The part of both pumps that runs for each read and each write."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from nghttp2py cimport cngp as lib
from nghttp2py.asyncio.deadlines cimport find_clock
from nghttp2py.asyncio.http1 cimport WAITS_REQUEST, HTTP1Exchanges, Phase
from nghttp2py.asyncio.memory cimport count_bytes
from nghttp2py.h2.connection cimport H2Connection

import threading
import time

from nghttp2py.h2 import H2ConnectionClosed

__all__ = ["H1Transfer", "H2Transfer", "SharedReads"]

# What ends the program.  Whatever else a subclass of H2Connection raises, such as
# CancelledError, ends its connection: asyncio would leave that open.
FATAL = (KeyboardInterrupt, SystemExit)

# Bytes that are read at a time: as many as asyncio reads.
cdef Py_ssize_t READ_SIZE = 262144
# Its ``buffer`` is shared by all connections of a thread.
local = threading.local()
#: Bytes gathered for one write.  The transport buffers as many again before it pauses
#: writing, so a connection buffers about twice this.
WRITE_SIZE = 65536
cdef size_t write_size = WRITE_SIZE
# Writes, and seconds, after which other connections get their turn: a body may consist
# of tiny pieces, or be produced slowly.
cdef int WRITES_IN_A_TURN = 16
cdef double TURN_TIME = 0.05
# Seconds, at least once and at most twice, from the end of a response to the RST_STREAM
# that declines the rest of its request: a client that reads both at once may lose the
# response.
RESET_DELAY = 0.02


# The collector must not clear it: Cython would forget the buffer of `held` without
# releasing it, and the end of the bytearray would print a SystemError.
@cython.no_gc_clear
cdef class ReadBuffer:
    """What a plain transport of asyncio reads into."""

    def __cinit__(self):
        data = bytearray(READ_SIZE)
        PyObject_GetBuffer(data, &self.held, PyBUF_SIMPLE)
        self.base = <uint8_t *>self.held.buf
        self.view = memoryview(data)

    def __dealloc__(self):
        PyBuffer_Release(&self.held)


cdef int check_size(Py_ssize_t size) except -1:
    """Raise for what cannot have been read into a buffer."""
    if not 0 <= size <= READ_SIZE:
        raise ValueError(f"nbytes must be from 0 to {READ_SIZE}, not {size}")
    return 0


cdef ReadBuffer find_buffer():
    """Return the thread's buffer, or a new one while that is being handled.

    An application that is called for what was read may run the loop itself.
    """
    cdef ReadBuffer buffer = getattr(local, "buffer", None)

    if buffer is None or buffer.busy:
        buffer = local.buffer = ReadBuffer()
    return buffer


class SharedReads:
    """What a protocol needs for reading into the thread's buffer, but not for long.

    It is a base class beside ``asyncio.BufferedProtocol``, for one that copies what was
    read at once, into the argument of ``data_received``.
    """

    __slots__ = ("_read_buffer",)

    def get_buffer(self, sizehint):
        """Return the buffer that asyncio's plain transport reads into."""
        cdef ReadBuffer buffer = find_buffer()

        self._read_buffer = buffer
        return buffer.view

    def buffer_updated(self, nbytes):
        """Copy what was read, before another connection of the thread reads."""
        cdef ReadBuffer buffer = self._read_buffer

        check_size(nbytes)
        self._read_buffer = None
        try:
            data = PyBytes_FromStringAndSize(<const char *>buffer.base, nbytes)
        except MemoryError as error:
            self.give_up(error)
            return
        self.data_received(data)


cdef class Transfer:
    """Passes bytes between a transport and a connection, of any version.

    This is the half of a pump that runs for each read and write.  The other decides
    when to wait, and when to end.  A subclass overrides ``receive``, which handles
    bytes that stay in place meanwhile (``data`` has them, or is None), and ``write``,
    which writes what is queued.
    """

    def _begin_transfer(self, loop, transport):
        """Set what reads and writes need, before there are any."""
        self._loop = loop
        self._time = find_clock(loop)
        self._overridden = type(self).data_received is not own_data_received
        self.transport = transport

    def get_buffer(self, sizehint):
        """Return the buffer that asyncio's plain transport reads into.

        For a protocol without one it allocates 256 KiB for each read, and logs a
        traceback for each connection when that fails.
        """
        self._buffer = find_buffer()
        return self._buffer.view

    def buffer_updated(self, nbytes):
        """Handle what was read, before another connection of the thread reads.

        It is not copied: whatever reads meanwhile gets another buffer.
        """
        cdef ReadBuffer buffer = self._buffer
        cdef Py_ssize_t size = nbytes

        check_size(size)
        self._buffer = None
        if self._overridden:
            # What a subclass gets may be kept.
            self.data_received(buffer.view[:size].tobytes())
            return
        buffer.busy = True
        try:
            self.receive(None, buffer.base, size)
        finally:
            buffer.busy = False

    def data_received(self, data):
        """Pass bytes to the connection and its events to the owner, and write the
        answers."""
        cdef Py_buffer view

        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.receive(data, <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def pause_writing(self):
        """Stop writing: the transport's buffer is full."""
        self._paused = True

    cdef int schedule(self) except -1:
        """Have ``write`` called after what is being handled, or in the next turn."""
        if self._busy:
            self._dirty = True
        elif not self._scheduled and self.transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)
        return 0

    def _flush_soon(self):
        self._scheduled = False
        self.write()

    cdef int receive(self, data, const uint8_t *base, Py_ssize_t size) except -1:
        return 0

    cdef int write(self) except -1:
        return 0


cdef object own_data_received = Transfer.data_received


cdef class H2Transfer(Transfer):
    """Passes bytes between a transport and a connection: see ``H2Pump``."""

    # ---- Bytes in ----

    cdef int receive(self, data, const uint8_t *base, Py_ssize_t size) except -1:
        cdef double now

        if not self._begun:
            return 0
        self._heard = True
        self._last_active = now = self._time()
        if self._ended:
            self._discard(size)
            return 0
        if now - self._counted >= 1:
            seconds = int(now - self._counted)
            self._counted += seconds
            self.connection.time_passed(min(seconds, 3600))
        self._busy = True  # what is queued by those that are called, run() writes
        try:
            count_bytes(size)
            connection = self.connection
            if self._frames is not None:
                self._frames.received(
                    PyBytes_FromStringAndSize(<const char *>base, size)
                )
            if type(connection) is H2Connection:
                events = (<H2Connection>connection).receive(base, size)
            else:
                if data is None:
                    data = PyBytes_FromStringAndSize(<const char *>base, size)
                events = connection.receive_data(data)
            if events and type(events[-1]) is H2ConnectionClosed:
                self._log_fault(
                    events[-1], PyBytes_FromStringAndSize(<const char *>base, size)
                )
        except FATAL:
            raise
        except BaseException as error:
            self.give_up(error)
            return 0
        finally:
            self._busy = False
        return self.run(events)

    # ---- Bytes out ----

    def mark_dirty(self):
        """Schedule a flush, because something was queued on the connection from
        outside.

        It is written in the event loop's next turn, with everything that is queued
        until then.
        """
        if self._busy or not self._paused:
            self.schedule()

    cdef int write(self) except -1:
        return self.run(None)

    def flush(self, events=()):
        """Handle ``events`` and write what is queued, until nothing of either is left.

        Sending makes events, and events make the owner send, so one loop does both.
        Nothing is gathered while the transport is paused.
        """
        self.run(events)

    cdef int run(self, events) except -1:
        if self._busy:
            self._dirty = True
            return 0
        self._busy = True
        try:
            self.write_queued(events)
        except FATAL:
            raise
        except BaseException as error:
            self.give_up(error)
        finally:
            self._busy = False
        return 0

    cdef int write_queued(self, events) except -1:
        cdef:
            bint direct = type(self.connection) is H2Connection
            H2Connection own = self.connection if direct else None
            int writes = 0
            bint again = False
            bint over = False  # the time of this turn
            double begun = 0
            double now
            bytes data

        connection = self.connection
        while True:
            if self._notice_held or self._awaits_ping:
                events = self._watch_notice(events or ())
            if events:
                self.events_received(events)
            self._dirty = False
            data = None
            # A closing transport drops what is written, but a stream whose end was
            # gathered would count as complete.
            transport = None if self._paused or self._ended else self.transport
            if (
                transport is not None
                and (
                    not writes
                    or (
                        lib.ngp_h2_want_write(own._h2)
                        if direct else connection.want_write
                    )
                )
                and not transport.is_closing()
            ):
                if writes:
                    # The loop's own clock may be cached during a turn.
                    now = time.monotonic()
                    begun = begun or now
                    over = now > begun + TURN_TIME
                if over or writes == WRITES_IN_A_TURN:
                    over = True
                    break
                data = (
                    own.take_output(write_size)
                    if direct else connection.data_to_send(WRITE_SIZE)
                )
                if data:
                    count_bytes(len(data))
                    if self._frames is not None:
                        self._frames.sent(data)
                    transport.write(data)
                    self._written += len(data)
                    writes += 1
            if not direct:
                events = connection.pending_events()
            elif own._pending:
                events = own.pending_events()
            else:
                events = None
            if not data and not events:
                # A body that calls resume whenever it is asked must not block the
                # loop: its turn comes after the others'.
                again = self._dirty
                break
        self._busy = False
        return self.settle(again or over)

    cdef int settle(self, bint again) except -1:
        """Watch what has begun, go on if there is more, or end the connection."""
        cdef:
            H2Connection own
            uint32_t frame
            bint held, wanted

        connection = self.connection
        if type(connection) is H2Connection:
            own = connection
            held = lib.ngp_h2_held_resets(own._h2) != 0
            frame = lib.ngp_h2_mid_frame(own._h2)
            wanted = lib.ngp_h2_want_read(own._h2) or lib.ngp_h2_want_write(own._h2)
        else:
            held = connection.held_resets
            frame = connection.incomplete_frame
            wanted = connection.want_read or connection.want_write
        if held and self._reset_timer is None:
            self._reset_timer = self._loop.call_later(
                RESET_DELAY, self._release_resets
            )
        if frame != self._frame:
            self._frame = frame
            self._frame_since = self._last_active
            if frame:
                self._arm_frame()
        if not self._watching and (connection.active_stream_count or self._paused):
            self._watch()
        if again:
            self.mark_dirty()
        elif not wanted:
            self._finish()
        return 0


cdef class H1Transfer(Transfer):
    """Passes bytes between a transport and ``HTTP1Exchanges``: see ``H1Pump``."""

    def __cinit__(self):
        self._phase = self._phase_number = -1
        self._reading = True

    # ---- Bytes in ----

    cdef int receive(self, data, const uint8_t *base, Py_ssize_t size) except -1:
        self._heard = True
        self._wrote = False
        self._last_active = self._time()
        if self._ended:
            self._discard(size)
            return 0
        self._busy = True  # what is queued by those that are called, go_on() writes
        try:
            count_bytes(size)
            self.http.receive(base, size)
        except FATAL:
            raise
        except BaseException as error:
            self.give_up(error)
            return 0
        finally:
            self._busy = False
        return self.go_on(True)

    def update_reading(self):
        """Read only while what is not acknowledged is within its bound."""
        self.regulate()

    cdef int regulate(self) except -1:
        cdef bint reads = self._ended or self.http.accepts()

        if reads != self._reading and self.transport is not None:
            self._reading = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()
                self._arm_unread()
        return 0

    # ---- Bytes out ----

    def mark_dirty(self):
        """Schedule a flush, because something was queued from outside."""
        self.schedule()

    def write_now(self):
        """Write what is queued, without what follows from it.

        In a turn of the loop this is done once: what is queued after that is gathered
        for one write.
        """
        if self._busy or self._scheduled or self._wrote or self._half_closed:
            self.schedule()
            return
        self._wrote = True
        if not (self._paused or self._ended or self.transport is None):
            try:
                self.write_bytes(self.http.take_output())
                if self.http.connection.out_size:
                    self.schedule()
            except FATAL:
                raise
            except BaseException as error:
                self.give_up(error)

    def flush(self, *, settled=False):
        """Write what is queued, and go on with the next requests.

        ``settled`` is whether ``http`` has done already what it can do.
        """
        self.go_on(settled)

    cdef int write(self) except -1:
        self._wrote = False
        return self.go_on(False)

    cdef int go_on(self, bint settled) except -1:
        if self._busy:
            self._dirty = True
            return 0
        self._busy = True
        try:
            self.write_queued(settled)
        except FATAL:
            raise
        except BaseException as error:
            self.give_up(error)
        finally:
            self._busy = False
        return 0

    cdef int write_bytes(self, bytes data) except -1:
        count_bytes(len(data))
        self.transport.write(data)
        self._written += len(data)
        return 0

    cdef bint write_file(self) except -1:
        """Have the kernel send a part of a file; return whether to go on at once."""
        cdef int fd = self._file_socket.fileno()
        cdef Py_ssize_t n

        if fd < 0 or self.transport.is_closing():
            return False
        if self.transport.get_write_buffer_size():
            # uvloop writes at the end of the loop's turn; else the socket is full.
            self._awaits_write = self.http.sends_files = not self._awaits_write
            self._dirty = True
            return not self._awaits_write
        self._awaits_write = False
        n = self.http.send_file(fd)
        if n < 0:
            # The transport waits until the socket takes more: it gets a piece.
            self.http.sends_files = False
        else:
            self._written += n
        return True

    cdef int write_queued(self, bint settled) except -1:
        cdef HTTP1Exchanges http = self.http
        cdef int writes = 0
        cdef bytes data

        while True:
            self._dirty = False
            if not settled:
                http.settle()
            settled = False
            if http.fault is not None and http.aborts:
                self._break_off()
                return 0
            if self._paused or self._ended or self.transport is None:
                break
            data = http.take_output()
            if data:
                if self._half_closed:
                    data = self._follow_ahead(data)
                self.write_bytes(data)
            elif not http.file_follows() or not self.write_file():
                break
            writes += 1
            if writes == WRITES_IN_A_TURN:
                self._dirty = True
                break
        self._busy = False
        if not http.connection.out_size:
            if http.is_over() and not self._awaits_last:
                self._finish()
                return 0
            if http.half_ends():
                self._end_half()
        if self._dirty:
            self.schedule()
        self.regulate()
        return self.note_phase()

    # ---- The phase ----

    def _set_bounds(self, first, bounds):
        """Set the seconds that each phase may take; ``first`` is for the first one."""
        self._first_bound = first
        for phase, bound in bounds.items():
            self._bounds[<int>phase] = bound

    def _phase_due(self):
        """Return when to look at the current phase."""
        return self.phase_due()

    cdef double phase_due(self) noexcept:
        if self._phase == WAITS_REQUEST and not self._phase_number:
            return self._phase_since + self._first_bound
        return self._phase_since + self._bounds[self._phase]

    cdef int note_phase(self) except -1:
        """Record what the connection waits for."""
        cdef Phase phase = self.http.find_phase()
        cdef long number = self.http.number
        cdef double due

        if phase == self._phase and number == self._phase_number:
            return 0
        self._phase = phase
        self._phase_number = number
        # Now, not when the client was heard last: a response may have taken long since.
        self._phase_since = self._time()
        self._pace = None
        if self._timer is not None:
            due = self.phase_due()
            if due < <double>self._timer.due:
                self._timer.arm(due)
        return 0
