# cython: nonecheck=True
"""Timeouts of the same length, which share a timer."""

cimport cython

import asyncio
import time

__all__ = ["Deadline", "Deadlines"]

cdef object monotonic = time.monotonic
cdef object clock_of_loops = asyncio.BaseEventLoop.time


cdef object find_clock(loop):
    """Return the function that gives the time of a loop.

    That of asyncio's own loops is in Python and calls another.
    """
    clock = loop.time
    return monotonic if getattr(clock, "__func__", None) is clock_of_loops else clock


# Its place among the others is needed when it is freed.
@cython.no_gc_clear
cdef class Deadline:
    """A time until which something may last.

    A subclass overrides ``_expire``, or, if it is compiled, ``expire``.
    """

    def __dealloc__(self):
        self.leave()

    cdef int leave(self) noexcept:
        """Drop the time, if there is one."""
        cdef Deadlines deadlines = self._deadlines

        if deadlines is None:
            return 0
        if self._earlier == NULL:
            deadlines._first = self._later
        else:
            (<Deadline>self._earlier)._later = self._later
        if self._later == NULL:
            deadlines._last = self._earlier
        else:
            (<Deadline>self._later)._earlier = self._earlier
        self._earlier = self._later = NULL
        self._deadlines = None
        return 0

    cdef int expire(self) except -1:
        self._expire()
        return 0

    def _expire(self):
        """Handle that the time has come."""


cdef class Deadlines:
    """Timeouts of the same length, for which one timer is enough.

    It has no reference to what may expire: that is dropped with its last user.
    """

    def __init__(self, seconds, loop):
        self.seconds = seconds
        self._loop = loop
        self._time = find_clock(loop)

    def next_due(self):
        """Return the time of what begins now."""
        return self._time() + self.seconds

    def add(self, Deadline item not None, due=None):
        """Set the time of ``item``, which has none; ``due`` is an earlier one."""
        self.enter(item, self._time() + self.seconds if due is None else due)

    cdef int enter(self, Deadline item, double due) except -1:
        cdef void *before

        item.leave()
        before = self._last  # it is the next one most often
        while before != NULL and (<Deadline>before).due > due:
            before = (<Deadline>before)._earlier
        item.due = due
        item._earlier = before
        if before == NULL:
            item._later = self._first
            self._first = <void *>item
        else:
            item._later = (<Deadline>before)._later
            (<Deadline>before)._later = <void *>item
        if item._later == NULL:
            self._last = <void *>item
        else:
            (<Deadline>item._later)._earlier = <void *>item
        item._deadlines = self
        if self._timer is None or due < self._armed:
            self._arm(due)
        return 0

    cdef int _arm(self, double due) except -1:
        self.close()
        self._armed = due
        self._timer = self._loop.call_at(due, self._run)
        return 0

    def discard(self, Deadline item not None):
        """Drop the time of ``item``, if it has one."""
        # The timer keeps running: it handles what is pending when it fires.
        item.leave()

    def close(self):
        """Stop the timer; nothing expires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self):
        cdef Deadline item

        self._timer = None
        while self._first != NULL:
            item = <Deadline>self._first
            if item.due > self._time():
                self._arm(item.due)
                return
            item.leave()
            item.expire()
