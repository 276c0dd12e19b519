# cython: nonecheck=True
"""What a stream of coroutines knows of its two halves, and how it learns that.

The connection calls it for each request and each piece of a body, so it is what costs
time.  The methods of the halves are in ``writer``, ``reader`` and ``stream``.
"""

cimport cython
from cpython.object cimport PyObject

from nghttp2py.asyncio.deadlines cimport Deadline, Deadlines
from nghttp2py.awaitables cimport (
    PyContext_Enter,
    PyContext_Exit,
    give,
    ngp_step,
    ngp_step_function,
    take_result,
)
from nghttp2py.exchange cimport Exchange, HTTPConnection, now
from nghttp2py.h2.events cimport RequestReceived

import collections.abc
import warnings
import weakref
from asyncio import CancelledError, get_running_loop
from collections import deque

from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.errors import ReadTimeoutError

__all__ = ["Lent", "StreamState", "Wakeups"]

cdef extern from *:
    """
    NGP_SLOTS(ngp_waiter)
    NGP_SLOTS(ngp_call)
    """
    void ngp_waiter_prepare(object, ngp_step_function)
    void ngp_call_prepare(object, ngp_step_function)

# A peer may split a window of body into frames of one byte.  Beyond so many waiting
# pieces, small ones are joined, so that memory stays proportional to the window.
cdef Py_ssize_t MAX_SMALL_PIECES = 64
cdef Py_ssize_t SMALL_PIECE = 1024
# Informational responses that are kept; the oldest is forgotten.
MAX_INFORMATIONAL = 16


# ---- Waiting ----


cdef class Wakeups:
    """The streams of a connection on which tasks wait, and how these go on.

    The tasks that are woken by what was received at once share a call of the loop.
    """

    cdef readonly set waiting  # there may be no other reference to the streams
    cdef list _woken           # waiters that are done, or None

    def __init__(self):
        self.waiting = set()

    cdef int add(self, Waiter waiter) except -1:
        if self._woken is None:
            self._woken = [waiter]
            waiter._loop.call_soon(self._run)
        else:
            self._woken.append(waiter)
        return 0

    def _run(self):
        cdef list woken = self._woken
        cdef Py_ssize_t i = 0
        cdef Waiter waiter

        self._woken = None
        try:
            while i < len(woken):
                waiter = woken[i]
                i += 1
                waiter.call_back()
        finally:
            # After what ends the program, the others still have to learn of theirs.
            for waiter in woken[i:]:
                self.add(waiter)


cdef class Waiter(Deadline):
    """What a task waits for on a stream: it takes the place of a future.

    It has what asyncio's tasks need of one, and is done once; it has no result.
    """

    cdef Wakeups _wakeups
    cdef object _loop
    cdef object _callback   # of the task, or None
    cdef object _context
    cdef object _message    # of the cancellation
    #: What asyncio's tasks use to know a future that is awaited.
    cdef public bint _asyncio_future_blocking
    cdef bint _is_done
    cdef bint _is_cancelled
    cdef bint is_late       # its time was over
    cdef bint _was_given

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Advance the wait."""
        cdef PyObject *result = NULL

        if step_waiter(self, value, &result):
            return take_result(result)
        take_result(result)
        raise StopIteration

    cdef int wake(self) except -1:
        """Let the task go on; a second call is a no-op."""
        if not self._is_done:
            self._is_done = True
            self.leave()
            self._wakeups.add(self)
        return 0

    cdef int expire(self) except -1:
        self.is_late = True
        return self.wake()

    cdef int call_back(self) except -1:
        callback, self._callback = self._callback, None
        context, self._context = self._context, None
        if callback is None:
            return 0
        if context is None:
            callback(self)
            return 0
        PyContext_Enter(context)
        try:
            callback(self)
        finally:
            PyContext_Exit(context)
        return 0

    # ---- asyncio.Future ----

    def get_loop(self):
        """Return the loop of the task."""
        return self._loop

    def done(self):
        """Return whether the wait is over."""
        return self._is_done

    def cancelled(self):
        """Return whether it was cancelled."""
        return self._is_cancelled

    def cancel(self, msg=None):
        """End the wait with ``CancelledError``; return whether it was not over."""
        if self._is_done:
            return False
        self._is_cancelled = True
        self._message = msg
        self.wake()
        return True

    def result(self):
        """Raise ``CancelledError`` if the wait was cancelled."""
        if self._is_cancelled:
            if self._message is None:
                raise CancelledError
            raise CancelledError(self._message)

    def exception(self):
        """Return None; raise as ``result``."""
        return self.result()

    def add_done_callback(self, callback, *, context=None):
        """Have ``callback`` called when the wait is over: that of the task."""
        if self._callback is not None:
            raise RuntimeError("one task waits already")
        self._callback = callback
        self._context = context
        if self._is_done:
            self._wakeups.add(self)

    def remove_done_callback(self, callback):
        """Drop the callback; return how many were dropped."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = self._context = None
        return 1


cdef int step_waiter(self, value, PyObject **presult) except -1:
    cdef Waiter waiter = <Waiter>self

    if not waiter._is_done:
        if waiter._was_given:
            raise RuntimeError("a task of asyncio has to await it")
        waiter._was_given = waiter._asyncio_future_blocking = True
        give(waiter, presult)
        return 1
    waiter.result()
    return give(None, presult)


ngp_waiter_prepare(Waiter, step_waiter)


# ---- The stream ----


cdef class StreamState(Exchange):
    """The attributes of a stream, and what its connection reports to it.

    Each report wakes the coroutines that wait, and each of them checks its condition.
    A failure is a ``Failure`` of ``stream_link``.
    """

    cdef:
        public object protocol
        readonly bint is_over   # the stream is closed
        Wakeups _wakeups        # of the connection
        readonly list _waiting  # the Waiters of coroutines that wait, or None
        public object _task     # is cancelled when our half breaks off

        # The outgoing half.
        public object body_bytes_sent  # bytes of the body that were queued
        public object _unsent      # how many were never sent, once the stream is closed
        public double _expecting   # seconds to wait for 100 (Continue), at a client
        public bint _continued     # 100 (Continue) was sent, or is not expected
        public bint _sent_all      # our half has ended, even if its end is still queued
        public bint _tunnel        # a CONNECT tunnel: its halves end independently
        public object _stopped     # the failure of our half
        public object _send_lock

        # The incoming half.
        readonly list _pieces      # of the body that were not taken, or None
        Py_ssize_t _offset         # bytes of the first piece that were taken
        readonly Py_ssize_t _size
        readonly Py_ssize_t _unacknowledged  # of the bytes here, which come last
        readonly bint _eof
        public object _informational
        readonly object final_status  # of the final response, at a client
        readonly tuple final_fields
        public object _head        # what response() returns, once it was asked for
        public bint _response_taken
        readonly tuple _trailers
        readonly object _failure   # of the peer's half
        bint _discarding           # what arrives is dropped
        public object _read_lock
        object __weakref__

    def __init__(
        self,
        protocol,
        HTTPConnection http not None,
        stream_id,
        RequestReceived request=None,
    ):
        self.http = http
        self.stream_id = stream_id
        self.request = request
        self.started = now()
        self.protocol = protocol
        self._wakeups = http.wakeups
        self.body_bytes_sent = self._unsent = 0
        self._trailers = ()

    def __del__(self):
        # This may run in any thread, and after an __init__ that has raised.
        if not self.is_over and self.http is not None:
            self._dropped()

    @property
    def http(self):
        """The connection's half, a ``StreamLink``."""
        return self.http

    @property
    def link(self):
        """The same."""
        return self.http

    @property
    def request(self):
        """The request; None at a client, unless it is of a push."""
        return self.request

    @property
    def started(self):
        """When the request came, in seconds of the monotonic clock."""
        return self.started

    # ---- Waiting ----

    def begin_wait(self):
        """Return what is to be awaited for the next event of the stream.

        The connection keeps a reference to the stream meanwhile.  ``end_wait`` follows
        in any case.
        """
        return self.start_waiting()

    cdef Waiter start_waiting(self):
        cdef Waiter waiter = Waiter.__new__(Waiter)

        waiter._wakeups = self._wakeups
        waiter._loop = get_running_loop()
        if self._waiting is None:
            self._waiting = [waiter]
            self._wakeups.waiting.add(self)
        else:
            self._waiting.append(waiter)
        return waiter

    def end_wait(self, Waiter waiter not None):
        """Handle the end of a wait; return whether another coroutine still waits."""
        return self.stop_waiting(waiter)

    cdef bint stop_waiting(self, Waiter waiter) except -1:
        cdef list waiting = self._waiting

        if waiting is None:
            return False
        if waiter in waiting:
            waiter.leave()
            waiting.remove(waiter)
        if not waiting:
            self._waiting = None
            self._wakeups.waiting.discard(self)
        return self._waiting is not None

    cdef int wake(self) except -1:
        cdef list waiting = self._waiting
        cdef Waiter waiter

        if waiting is not None:
            # A coroutine that is woken has the reference to the stream itself.
            self._waiting = None
            self._wakeups.waiting.discard(self)
            for waiter in waiting:
                waiter.wake()
        return 0

    def _wake(self):
        """Have each coroutine that waits check its condition."""
        self.wake()

    # ---- What the caller does most often ----

    def request_sent(self, bint ended, *, bint tunnel=False, double expecting=0.0):
        """Handle that our request's header section was sent.

        The first call that sends some of its body waits ``expecting`` seconds for 100
        (Continue).
        """
        self._sent_all = ended
        self._tunnel = tunnel
        self._expecting = expecting

    cdef int check_response(self) except -1:
        """Raise if no final response will come any more."""
        if self._failure is not None or self._eof or self.is_over:
            self._raise_missing()
        return 0

    def take_head(self):
        """Return the final response, which has come, to the caller."""
        self.take()
        if self._head is None:
            self._head = self._make_head(self.final_status, self.final_fields)
        return self._head

    cdef int take(self) except -1:
        """Handle that the caller knows the final response."""
        self._response_taken = True
        if (
            self._eof
            and not self.is_over
            and not self._size
            and self.http.halves_end_alone
        ):
            self._body_finished()
        return 0

    cdef bytes take_rest(self):
        """Return the whole body, or the rest of it, if it is here and not being read,
        or None."""
        if not self._eof or (
            self._read_lock is not None and self._read_lock.locked()
        ):
            return None
        return self._take(self._size) if self._size else self._eof_or_raise()

    def response(self, timeout=None):
        """Wait for the final response, and return it: ``status`` and ``headers``.

        It may be called again.  Raises ``StreamResetError`` or
        ``ConnectionTerminatedError`` if there will be none; ``StreamTimeoutError`` if
        it has not come after ``timeout`` seconds: then the stream is reset.
        """
        if timeout is not None or self.http.timeout is not None:
            return self._respond(timeout)
        return new_call(self, RESPONSE)

    def until_response(self, Deadlines deadlines, due):
        """Wait until the final response begins, at most until ``due``.

        That is a time of ``deadlines``; both may be None.  The stream is reset if it
        does not, or the wait is cancelled.  Raises as ``response``, and
        ``ReadTimeoutError``.
        """
        cdef Call call = new_call(self, BEGINNING)

        if deadlines is not None:
            call.deadlines = deadlines
            call.due = due
        return call

    def read(self, n=-1):
        """Return up to ``n`` bytes, as soon as there are any; ``b""`` at the end.

        With ``n`` negative: everything until the end.
        """
        return self._read(n) if n >= 0 else new_call(self, BODY)

    cdef object read_later(self):
        return self._read(-1)

    # ---- What the connection reports ----

    cdef response_received(self, status, tuple fields):
        self.final_status = status
        self.final_fields = fields
        self.wake()

    cdef informational_received(self, status, tuple fields):
        if self._informational is None:
            self._informational = deque(maxlen=MAX_INFORMATIONAL)
        self._informational.append(self._make_head(status, fields))
        self.wake()

    cdef data_received(self, bytes data):
        cdef Py_ssize_t size = len(data)
        cdef list pieces = self._pieces

        if self._discarding:
            self.http.acknowledge(self, size)
            return
        if pieces is None:
            self._pieces = [data]
        elif len(pieces) > MAX_SMALL_PIECES and len(<bytes>pieces[-1]) < SMALL_PIECE:
            pieces[-1] = <bytes>pieces[-1] + data
        else:
            pieces.append(data)
        self._size += size
        self._unacknowledged += size
        self.wake()

    cdef trailers_received(self, tuple fields):
        self._trailers = fields

    cpdef datagram_received(self, bytes data):
        """Handle a datagram; over HTTP/3 there are some."""

    cdef end_received(self):
        self._eof = True
        if (
            self.final_status is not None
            and self.final_status >= 300
            and not self._tunnel
            and not self.http.halves_end_alone
        ):
            self._end_upload_soon()  # an error response ends ours unread
        self.wake()

    cdef writable(self):
        self.wake()

    cpdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        """Handle that one half, or both, broke off."""
        cdef bint lost = False

        if incoming and self._failure is None and not self._eof:
            self._failure = failure
            lost = True
        if outgoing and self._stopped is None and not self.is_over:
            self._unsent = self.http.queued(self)
            self._stopped = failure
            lost = True
        if lost and outgoing and self._task is not None:
            self._cancel_task()
        self.wake()

    cdef closed(self, failure, error_code, body_bytes_sent):
        if failure is not None and not self.http.halves_end_alone:
            self.aborted(failure, error_code, True, True)
        elif not self._eof and self._failure is None and not self.is_over:
            # We have declined the rest of the request: a pending read would never end.
            self._failure = failure or self.http.make_failure(
                self.stream_id, error_code, "the response was whole before the request"
            )
        # `aborted` has reported a half that broke off alone: ours may have ended well.
        self.is_over = True
        self._unsent = self.body_bytes_sent - body_bytes_sent
        self.wake()

    def without_request(self):
        """Note that nothing comes in: the request of a push is ours."""
        self.end_received()

    # ---- The bytes of the body that are here ----

    cpdef _acknowledge(self, Py_ssize_t n):
        """Give the peer credit for ``n`` bytes that had none yet."""
        self._unacknowledged -= n
        # The connection has returned the credit of a closed stream itself.
        if not self.is_over:
            self.http.acknowledge(self, n)

    def _first_piece(self):
        """Return how many bytes the first piece has that were not taken."""
        return len(<bytes>self._pieces[0]) - self._offset

    def _find(self, bytes separator not None, Py_ssize_t start):
        """Return where ``separator`` begins from ``start`` on, or -1."""
        if self._pieces is None:
            return -1
        if len(self._pieces) > 1:
            count_bytes(self._size)
            self._pieces = [b"".join(self._pieces)[self._offset :]]
            self._offset = 0
        found = self._pieces[0].find(separator, self._offset + start)
        return found - self._offset if found >= 0 else -1

    cpdef bytes _take(self, Py_ssize_t n):
        """Remove and return ``n`` of the bytes that are here."""
        cdef list pieces = self._pieces
        cdef bytes first = pieces[0]
        cdef Py_ssize_t start = self._offset
        cdef Py_ssize_t left, room, used

        if start == 0 and len(first) == n:
            data = first
            self._drop_pieces(1)
        elif len(first) - start >= n:
            count_bytes(n)
            data = first[start : start + n]
            if start + n == len(first):
                self._drop_pieces(1)
            else:
                self._offset = start + n
        else:
            # Before anything is taken, and before as many bytes are allocated again.
            count_bytes(n)
            parts = []
            used = 0
            left = n
            while left:
                first = pieces[used]
                room = len(first) - start
                if room > left:
                    parts.append(memoryview(first)[start : start + left])
                    break
                parts.append(memoryview(first)[start:] if start else first)
                used += 1
                start = 0
                left -= room
            data = b"".join(parts)
            self._drop_pieces(used)
            self._offset = start + left
        self._size -= n
        if self._size < self._unacknowledged:
            self._acknowledge(self._unacknowledged - self._size)
        if self._eof and not self._size and not self.is_over:
            self._body_finished()
        return data

    cdef int _drop_pieces(self, Py_ssize_t n) except -1:
        if n == len(self._pieces):
            self._pieces = None
        else:
            del self._pieces[:n]
        self._offset = 0
        return 0

    def discard(self):
        """Drop what was received and not read, and what will be."""
        self._discarding = True
        self._pieces = None
        self._size = self._offset = 0
        if self._unacknowledged:
            self._acknowledge(self._unacknowledged)


# ---- The calls of every request ----


cdef enum Kind:
    RESPONSE   # the result of response()
    BEGINNING  # until_response()
    BODY       # the rest of the body


cdef Call new_call(StreamState stream, Kind kind):
    cdef Call call = Call.__new__(Call)

    call.stream = stream
    call.kind = kind
    return call


@cython.freelist(64)
cdef class Call:
    """An awaitable of a stream's method, done at the first step if it can be.

    Nothing happens before it is awaited, as with a coroutine.
    """

    cdef StreamState stream
    cdef Deadlines deadlines
    cdef double due        # if there are any
    cdef Waiter waiter     # while it waits
    cdef object rest       # a coroutine that finishes it, or None
    cdef Kind kind
    cdef bint begun

    def __await__(self):
        # A second task would take the event for which the first one waits.
        if self.begun:
            raise RuntimeError("cannot await a call of a stream a second time")
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Advance it as a coroutine."""
        cdef PyObject *result = NULL

        if step_call(self, value, &result):
            return take_result(result)
        value = take_result(result)
        if value is None:
            raise StopIteration
        raise StopIteration(value)

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits."""
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        self.begun = True
        if self.rest is not None:
            return self.rest.throw(value)
        self.end()
        raise value

    def close(self):
        """End it."""
        self.begun = True
        if self.rest is not None:
            self.rest.close()
        else:
            self.end()

    cdef int end(self) except -1:
        """Handle that it raises."""
        cdef Waiter waiter = self.waiter

        if waiter is not None:
            self.waiter = None
            self.stream.stop_waiting(waiter)
        if self.kind == BEGINNING:
            self.stream.reset()
        return 0

    def __dealloc__(self):
        if not self.begun:
            warn_not_awaited(self.kind)


cdef int warn_not_awaited(Kind kind) except -1:
    name = "read" if kind == BODY else "response"
    warnings.warn(f"'{name}()' was never awaited", RuntimeWarning, stacklevel=2)
    return 0


cdef int step_call(self, value, PyObject **presult) except -1:
    """Advance a call: return 1 if it has to wait, 0 if it is done."""
    cdef Call call = <Call>self
    cdef StreamState stream = call.stream
    cdef Waiter waiter = call.waiter

    if call.rest is not None:
        return ngp_step(call.rest, value, presult)
    if waiter is None and call.begun:
        raise RuntimeError("cannot await a call of a stream a second time")
    call.begun = True
    if call.kind == BODY:
        data = stream.take_rest()
        if data is not None:
            return give(data, presult)
        call.rest = stream.read_later()
        return ngp_step(call.rest, None, presult)
    if stream.final_status is None:
        try:
            if waiter is not None:
                waiter.result()
                if waiter.is_late:
                    raise ReadTimeoutError(
                        f"no response in {call.deadlines.seconds} seconds"
                    )
            stream.check_response()
        except BaseException:
            call.end()
            raise
        call.waiter = stream.start_waiting()
        if call.deadlines is not None:
            # Progress, such as a 1xx response, does not extend it.
            call.deadlines.enter(call.waiter, call.due)
        if waiter is not None:
            stream.stop_waiting(waiter)
        return step_waiter(call.waiter, None, presult)
    if waiter is not None:
        call.waiter = None
        stream.stop_waiting(waiter)
    if call.kind == BEGINNING:
        stream.take()
        return give(None, presult)
    return give(stream.take_head(), presult)


# asyncio's tasks, wait_for() and gather() take them for coroutines.
ngp_call_prepare(Call, step_call)
collections.abc.Coroutine.register(Call)


cdef class Lent(Exchange):
    """Reports the ends of a pushed stream, to which it refers only weakly.

    A stream is reset when its user drops it; a connection refers to its exchanges.
    """

    cdef object _stream

    def __init__(self, StreamState stream not None):
        self.http = stream.http
        self.stream_id = stream.stream_id
        self.started = stream.started
        self._stream = weakref.ref(stream)

    cdef writable(self):
        cdef StreamState stream = self._stream()

        if stream is not None:
            stream.writable()

    cdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        cdef StreamState stream = self._stream()

        if stream is not None:
            stream.aborted(failure, error_code, incoming, outgoing)

    cdef closed(self, failure, error_code, body_bytes_sent):
        cdef StreamState stream = self._stream()

        if stream is not None:
            stream.closed(failure, error_code, body_bytes_sent)
