from libc.stdint cimport int64_t


cdef class Arrival:
    cdef public int64_t came
    cdef public int64_t came_before
    cdef public double interval
    cdef public double since
    cdef public bint withheld


cdef class Outgoing:
    cdef public object stream_id
    cdef public int64_t total
    cdef public int64_t taken
    cdef public int64_t all_taken
    cdef public int64_t queued
    cdef public double since
    cdef public bint listed


cdef class Watch:
    cdef object _owner
    cdef object _loop
    cdef object _quic
    cdef object _timeouts
    cdef readonly object _timer
    cdef object _packets
    cdef object _settings_due
    cdef readonly dict _incomplete
    cdef readonly dict _outgoing
    cdef double _heard
    cdef double _idle_since
    cdef Py_ssize_t _sweep_at
    cdef int64_t _total
    cdef readonly bint _busy

    cpdef section_begun(self, Py_ssize_t stream_id, Py_ssize_t frame=*)
    cpdef section_ended(self, Py_ssize_t stream_id)
    cpdef queued(self, Outgoing outgoing, Py_ssize_t n, bint was_empty)
