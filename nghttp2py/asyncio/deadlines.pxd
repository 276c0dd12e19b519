cdef class Deadline:
    cdef Deadlines _deadlines  # in which it is, or None
    # Its neighbours there, or NULL.  They are borrowed: one that is freed leaves.
    cdef void *_earlier
    cdef void *_later
    cdef readonly double due   # on the loop's clock

    cdef int leave(self) noexcept
    cdef int expire(self) except -1


cdef class Deadlines:
    cdef readonly object seconds
    cdef object _loop
    cdef object _time
    cdef object _timer
    cdef double _armed         # the time of that
    cdef void *_first          # in the order of their times; borrowed, see Deadline
    cdef void *_last

    cdef int enter(self, Deadline item, double due) except -1
    cdef int _arm(self, double due) except -1


cdef object find_clock(loop)
