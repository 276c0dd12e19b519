from libc.stdint cimport int64_t, uint8_t, uint32_t

from nghttp2py.h2.connection cimport H2Connection


cdef class ReadBuffer:
    cdef readonly object view  # a memoryview
    cdef Py_buffer held        # keeps the bytes, whatever is done to the view
    cdef uint8_t *base         # where they are
    cdef bint busy             # they are being handled


cdef class Transfer:
    cdef public object connection  # an H2Connection, or what has its methods
    cdef public object transport   # None before and after the connection
    cdef public object _loop
    cdef public object _reset_timer
    cdef object _time              # returns the time on the loop's clock
    cdef ReadBuffer _buffer        # that was last given to the transport
    cdef public double _last_active
    cdef public double _counted
    cdef public double _frame_since
    cdef public int64_t _written
    cdef public uint32_t _frame
    cdef public bint _begun
    cdef public bint _busy
    cdef public bint _ended
    cdef public bint _paused
    cdef public bint _notice_held
    cdef public bint _awaits_ping
    cdef public bint _heard
    cdef public bint _watching
    cdef bint _overridden          # a subclass has its own data_received()
    cdef bint _dirty
    cdef bint _scheduled

    cdef int receive(
        self, data, const uint8_t *base, Py_ssize_t size
    ) except -1
    cdef int run(self, events) except -1
    cdef int write_queued(self, events) except -1
    cdef int settle(self, bint again) except -1
