from libc.stdint cimport int64_t, uint8_t, uint32_t

from nghttp2py.asyncio.http1 cimport HTTP1Exchanges


cdef class ReadBuffer:
    cdef readonly object view  # a memoryview
    cdef Py_buffer held        # keeps the bytes, whatever is done to the view
    cdef uint8_t *base         # where they are
    cdef bint busy             # they are being handled


cdef class Transfer:
    cdef public object transport   # None before and after the connection
    cdef public object _loop
    cdef object _time              # returns the time on the loop's clock
    cdef ReadBuffer _buffer        # that was last given to the transport
    cdef public double _last_active
    cdef public int64_t _written
    cdef public bint _busy
    cdef public bint _ended
    cdef public bint _paused
    cdef public bint _heard
    cdef bint _overridden          # a subclass has its own data_received()
    cdef bint _dirty
    cdef bint _scheduled

    cdef int schedule(self) except -1
    # What a subclass overrides.
    cdef int receive(self, data, const uint8_t *base, Py_ssize_t size) except -1
    cdef int write(self) except -1


cdef class H2Transfer(Transfer):
    cdef public object connection  # an H2Connection, or what has its methods
    cdef public object _reset_timer
    cdef public object _frames     # a FrameLog, or None
    cdef public double _counted
    cdef public double _frame_since
    cdef public uint32_t _frame
    cdef public bint _begun
    cdef public bint _notice_held
    cdef public bint _awaits_ping
    cdef public bint _watching

    cdef int run(self, events) except -1
    cdef int write_queued(self, events) except -1
    cdef int settle(self, bint again) except -1


cdef class H1Transfer(Transfer):
    cdef public HTTP1Exchanges http
    cdef public object _timer      # a BoundTimer, or None
    cdef public object _pace       # of the body that is being received, or None
    cdef double _bounds[6]         # seconds that each phase may take
    cdef double _first_bound       # the same for the first phase of all
    cdef public double _phase_since
    cdef public int _phase
    cdef public long _phase_number
    cdef public bint _reading
    cdef public bint _half_closed
    cdef public object _file_socket  # to which the kernel may copy files, or None
    cdef bint _awaits_write        # of what is queued before a file
    cdef bint _wrote               # at once, since the last read or turn of the loop

    cdef int regulate(self) except -1
    cdef int go_on(self, bint settled) except -1
    cdef int write_queued(self, bint settled) except -1
    cdef int write_bytes(self, bytes data) except -1
    cdef bint write_file(self) except -1
    cdef int note_phase(self) except -1
    cdef double phase_due(self) noexcept
