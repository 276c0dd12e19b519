# cython: nonecheck=True
"""What a stream of coroutines knows of its two halves, and how it learns that.

The connection calls it for each request and each piece of a body, so it is what costs
time.  The methods of the halves are in ``writer``, ``reader`` and ``stream``.
"""

from nghttp2py.exchange cimport Exchange, HTTPConnection, now
from nghttp2py.h2.events cimport RequestReceived

import weakref
from collections import deque

from nghttp2py.asyncio.memory import count_bytes

__all__ = ["Lent", "StreamState"]

# A peer may split a window of body into frames of one byte.  Beyond so many waiting
# pieces, small ones are joined, so that memory stays proportional to the window.
cdef Py_ssize_t MAX_SMALL_PIECES = 64
cdef Py_ssize_t SMALL_PIECE = 1024
# Informational responses that are kept; the oldest is forgotten.
MAX_INFORMATIONAL = 16


cdef class StreamState(Exchange):
    """The attributes of a stream, and what its connection reports to it.

    Each report wakes the coroutines that wait, and each of them checks its condition.
    A failure is a ``Failure`` of ``stream_link``.
    """

    cdef:
        public object protocol
        readonly bint is_over   # the stream is closed
        readonly list _waiting  # the futures of coroutines that wait, or None
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
        """Return a future that is done with the next event of the stream.

        The connection keeps a reference to the stream meanwhile.  ``end_wait`` follows
        in any case.
        """
        link = self.http
        future = link.loop.create_future()
        if self._waiting is None:
            self._waiting = [future]
            link.waiting.add(self)
        else:
            self._waiting.append(future)
        return future

    def end_wait(self, future):
        """Handle the end of a wait; return whether another coroutine still waits."""
        if self._waiting is None:
            return False
        if future in self._waiting:
            self._waiting.remove(future)
        if not self._waiting:
            self._waiting = None
            self.http.waiting.discard(self)
        return self._waiting is not None

    cdef int wake(self) except -1:
        cdef list waiting = self._waiting

        if waiting is not None:
            # A coroutine that is woken has the reference to the stream itself.
            self._waiting = None
            self.http.waiting.discard(self)
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        return 0

    def _wake(self):
        """Have each coroutine that waits check its condition."""
        self.wake()

    # ---- What the caller does most often ----

    def request_sent(self, bint ended, *, bint tunnel, double expecting=0.0):
        """Handle that our request's header section was sent.

        The first call that sends some of its body waits ``expecting`` seconds for 100
        (Continue).
        """
        self._sent_all = ended
        self._tunnel = tunnel
        self._expecting = expecting

    def check_response(self):
        """Raise if no final response will come any more."""
        if self._failure is not None or self._eof or self.is_over:
            self._raise_missing()

    def take_response(self):
        """Handle that the caller knows the final response."""
        self._response_taken = True
        if (
            self._eof
            and not self.is_over
            and not self._size
            and self.http.halves_end_alone
        ):
            self._body_finished()

    def read_now(self):
        """Return the whole body, or the rest of it, if it is here and not being read,
        or None."""
        if not self._eof or (
            self._read_lock is not None and self._read_lock.locked()
        ):
            return None
        return self._take(self._size) if self._size else self._eof_or_raise()

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
