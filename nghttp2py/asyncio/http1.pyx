# cython: nonecheck=True
"""HTTP/1.1's half of exchanges: from an H1Connection's events to their methods."""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from nghttp2py.exchange cimport (
    FATAL,
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    exchange_failed,
    keep_response_fields,
    log_access,
    log_wanted,
    make_unmade,
    now,
)
from nghttp2py.h1.connection cimport (
    CHUNKED,
    COMPLETE,
    GATHERED,
    LENGTH,
    OWED,
    REFUSED,
    REQUEST_LINE,
    SENT,
    TUNNEL,
    TUNNELLED,
    UNDECIDED,
    FIELDS,
    H1Connection,
)
from nghttp2py.h2.convert cimport add_pairs, as_bytes
from nghttp2py.h2.events cimport RequestReceived

import errno
import logging
from functools import partial

from nghttp2py.asyncio import memory
from nghttp2py.asyncio.fields import add_field
from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.asyncio.tasks import CallbackTasks
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    HeadersError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.h1.events import (
    H1BodyReceived,
    H1EndReceived,
    H1RequestRefused,
    H1TrailersReceived,
)
from nghttp2py.h2 import body as bodies
from nghttp2py.h2.convert import make_request
from nghttp2py.log_budget import MemoryLog

logger = logging.getLogger(__name__)
# The client's system is gone, or the way to it.
UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
# sendfile() is not for each file system.
UNSENDABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
memory_log = MemoryLog(logger)

cdef:
    # A smaller piece of a body was counted with what was read.
    Py_ssize_t COUNTED = memory.LEAST
    # What is read from a source at once.
    Py_ssize_t PIECE = 65536
    # What the kernel copies from a file at once.  One that is smaller than PIECE leaves
    # together with its head.
    Py_ssize_t FILE_PIECE = 262144
    # Pieces of a source that are read before they are written.
    int MAX_PIECES = 64
    # Octets of requests that wait until the current one is answered.
    Py_ssize_t MAX_WAITING = 65536
    # Octets of a declined request that are received and dropped, in order to keep the
    # connection.
    size_t MAX_DISCARDED = 4194304

# What a status line begins with, and zeros that the size of a chunk may begin with
# (RFC 9112, 4 and 7.1): clients read sizes of up to 16 digits.
cdef bytes STATUS_LINE = b"HTTP/1.1 "
cdef bytes ZEROS = b"00000000"


cdef class HTTP1Exchanges(HTTPConnection):
    """The exchanges of a server's HTTP/1.1 connection: one is open at a time.

    ``owner`` is the ``H1Pump``; ``factory`` makes the exchanges; ``window`` bounds the
    octets of a body that are not acknowledged.  ``stream_id`` of the exchanges counts
    from 1.
    """

    def __init__(
        self,
        owner,
        H1Connection connection not None,
        ExchangeFactory factory=None,
        *,
        window=262144,
    ):
        HTTPConnection.__init__(self, "HTTP/1.1", False, owner, factory)
        self.connection = connection
        self.window = window
        self.low = -1
        self.tasks = CallbackTasks()

    # ---- What the pump calls ----

    cdef int receive(self, const uint8_t *base, Py_ssize_t size) except -1:
        """Handle received bytes."""
        self.dispatching = True
        try:
            self.now = now()
            self._dispatch(self.connection.receive(base, size, None))
            self._settle()
        finally:
            self.dispatching = False
        return 0

    cdef int settle(self) except -1:
        """Go on: read sources, close what is complete, begin what has waited."""
        self.dispatching = True
        try:
            self.now = now()
            self._settle()
        finally:
            self.dispatching = False
        return 0

    cdef bytes take_output(self):
        """Return the next bytes to write, and wake what waits for room."""
        cdef bytes data = self.connection.take_output(GATHERED)

        if self.before:
            self.before = max(0, self.before - len(data))
        if data and (self.low >= 0 or self.blocked):
            self._wake()
        return data

    cdef bint file_follows(self) noexcept:
        """Return whether ``send_file`` is to follow what is queued."""
        return (
            self.sends_files
            and self.send_to is not None
            and self.source is not None
            and self.fault is None
            and self.connection.output == LENGTH
            and self.connection.expected - self.connection.body_size >= PIECE
        )

    cdef Py_ssize_t send_file(self, int fd) except -2:
        """Have the kernel send a part of the body from its file to a socket.

        Return how many octets, or -1 if the socket takes none now.
        """
        cdef H1Connection connection = self.connection
        cdef Py_ssize_t n = min(connection.expected - connection.body_size, FILE_PIECE)

        try:
            n = self.send_to(fd, n)
        except (BlockingIOError, ConnectionError):
            return -1  # what the transport writes meets the same
        except BaseException as error:
            if isinstance(error, OSError):
                if error.errno in UNREACHABLE:
                    return -1
                if error.errno in UNSENDABLE:
                    self.send_to = None
                    return -1
            self._fail_body(error)
            if isinstance(error, FATAL):
                raise
            return 0
        if not n:
            self.send_to = None  # what read() gives there decides
        connection.body_size += n
        return n

    def take_rest(self):
        """Return what is written although the response breaks off.

        A part of it is dropped if it would seem to be whole.
        """
        cdef bint cut = self.connection.shows_end()
        cdef bytes data = self.connection.take_output(self.connection.out_size)

        return data if cut else data[: self.before]

    def refuse(self, int status, str reason):
        """Refuse the request that is being received, as it takes too long."""
        self.dispatching = True
        try:
            self._dispatch(self.connection.refuse(status, reason))
            self._settle()
        finally:
            self.dispatching = False

    def receive_eof(self):
        """Handle that the client has closed its half.

        Return whether an answer is still owed to it.
        """
        cdef Exchange exchange = self.exchange
        cdef H1Connection connection = self.connection

        self.eof = True
        if exchange is None:
            if self.paused and connection.rest:
                return True  # whole requests may wait for what is being written
            connection.closing = True
            return bool(connection.out_size)
        if connection.input == TUNNEL:
            connection.input = COMPLETE
            self.receive(NULL, 0)
            if not self.ended:
                self.dispatching = True
                try:
                    self._end()
                    self._settle()
                finally:
                    self.dispatching = False
            return self.exchange is not None or bool(connection.out_size)
        if connection.input == COMPLETE or connection.input == UNDECIDED:
            return True
        if connection.output == SENT and connection.out_size:
            return True
        self.lose(
            partial(
                ConnectionTerminatedError,
                ErrorCode.CANCEL,
                remote=True,
                reason="the client closed the connection within its request",
            ),
            ErrorCode.CANCEL,
        )
        return False

    def lose(self, failure, error_code):
        """Close the current exchange, because the connection has ended."""
        self.dispatching = True
        try:
            self.now = now()
            self._break_off(failure, error_code, None)
            if self.exchange is not None:
                self._close(failure, error_code)
        finally:
            self.dispatching = False

    def disconnected(self):
        """Drop the reference to the owner, which refers to this object."""
        self.owner = None
        self.source = self.send_to = None
        if self.factory is not None:
            self.factory.connection_lost()

    def begin_closing(self):
        """Report to the exchange that the server is stopping.

        Without an exchange, one more request is received.
        """
        cdef Exchange exchange = self.exchange

        self.going = True
        self.connection.close(last=exchange is None)
        if exchange is not None:
            try:
                exchange.closing()
            except FATAL:
                raise
            except BaseException as error:
                self._fail(exchange, error)

    @property
    def exchanges(self):
        """The open exchange by its number, as a dict; there is at most one."""
        return {} if self.exchange is None else {self.number: self.exchange}

    cdef bint is_over(self) noexcept:
        """Return whether the connection ends when what is queued is written."""
        return self.exchange is None and self.connection.closing

    cdef Phase find_phase(self) noexcept:
        """Return what the connection waits for."""
        cdef H1Connection connection = self.connection

        if self.exchange is None:
            if connection.discards:
                return WAITS_REST
            if connection.input == FIELDS:
                return WAITS_HEAD
            if connection.input == REQUEST_LINE:
                return WAITS_HEAD if connection.rest else WAITS_REQUEST
        elif self._is_received():
            return WAITS_NOTHING
        elif connection.output != OWED:
            return WAITS_UPLOAD
        elif not connection.expects:  # 100 (Continue) was sent, or is not needed
            return WAITS_BODY
        return WAITS_NOTHING

    def find_ahead(self):
        """Return the octets that the rest of the response can begin with.

        These may be sent before it is known.  They are those of a status line, or zeros
        that may be sent in addition.
        """
        if self.exchange is None or self.fault is not None or self.connection.out_size:
            return b""
        if self.connection.output == OWED:
            return STATUS_LINE
        return ZEROS if self.connection.output == CHUNKED else b""

    cdef bint _is_received(self) noexcept:
        return (
            self.connection.input == COMPLETE
            or self.connection.input == UNDECIDED
            or self.connection.input == TUNNEL
            or self.connection.input == REFUSED
        )

    cdef bint half_ends(self) noexcept:
        """Return whether our half of a tunnel has ended, and the client's goes on."""
        return self.connection.output == SENT and self.connection.input == TUNNEL

    cdef bint accepts(self) noexcept:
        """Return whether more may be received now."""
        if self.connection.input == COMPLETE or self.connection.input == UNDECIDED:
            return PyBytes_GET_SIZE(self.connection.rest) < MAX_WAITING
        return self.unacknowledged < self.window

    @property
    def queued_bytes(self):
        """How many octets are queued, header sections included."""
        return self.connection.out_size

    # ---- From events to calls ----

    cdef int _dispatch(self, list events) except -1:
        self.postpones = True
        try:
            for event in events:
                self._handle(event)
        finally:
            self.run_postponed()
        return 0

    cdef int _handle(self, event) except -1:
        cdef Exchange exchange = self.exchange

        kind = type(event)
        try:
            if kind is RequestReceived:
                self._receive_request(<RequestReceived>event)
            elif kind is H1RequestRefused:
                self._refused(event.status, event.reason)
            elif exchange is None:
                pass
            elif kind is H1EndReceived:
                self._end()
            elif kind is H1BodyReceived:
                data = event.data
                self.unacknowledged += len(data)
                self.received += len(data)
                exchange.data_received(data)
            elif kind is H1TrailersReceived:
                exchange.trailers_received(event.headers)
        except FATAL:
            raise
        except BaseException as error:
            if self.exchange is None:
                raise
            self._fail(self.exchange, error)
        return 0

    cdef int _end(self) except -1:
        self.ended = True
        self.exchange.end_received()
        return 0

    def _refused(self, status, str reason):
        """Handle that the rest of a request is invalid."""
        if self.owner is not None:
            self.owner.request_refused(status, reason)
        if self.exchange is None:
            return
        if status is None and self.connection.output == SENT:
            # The response is whole, and is written.
            if self.declined:
                return  # the exchange ends well
        else:
            self.aborts = status is None
        self._break_off(
            partial(
                StreamResetError,
                self.number,
                ErrorCode.PROTOCOL_ERROR,
                remote=False,
                reason=reason,
            ),
            ErrorCode.PROTOCOL_ERROR,
            status,
        )

    cdef int _receive_request(self, RequestReceived request) except -1:
        cdef Exchange exchange

        if self.connection.input == REFUSED:
            return 0  # what came with it was refused, and the answer is queued
        self.number += 1
        self.version = "HTTP/1.0" if self.connection.old else "HTTP/1.1"
        self.unacknowledged = 0
        self.declined = self.ended = self.deferred = self.blocked = False
        self.low = -1
        self.before = self.connection.out_size
        try:
            exchange = self.factory.new_exchange(self, self.number, request)
        except FATAL:
            raise
        except BaseException as error:
            self.exchange = make_unmade(self, self.number, request)
            exchange_failed(self.exchange, error)
            return 0
        exchange.started = self.now
        self.exchange = exchange
        exchange.request_received(request)
        if self.going:
            exchange.closing()
        return 0

    cdef int _settle(self) except -1:
        """Do what there is to do, as far as it can be done now."""
        cdef H1Connection connection = self.connection
        cdef list events
        cdef int pieces = 0

        while True:
            if self.exchange is None:
                if connection.discards and connection.discarded > MAX_DISCARDED:
                    connection.closing = True
                if self.eof and not connection.rest:
                    connection.closing = True
                if (
                    connection.input != REQUEST_LINE
                    or not connection.rest
                    or connection.closing
                    or self.paused
                    or connection.out_size >= PIECE
                ):
                    return 0
                events = connection.receive(NULL, 0, None)
                if not events:
                    if self.eof:
                        connection.closing = True  # what waits is not whole
                    return 0
                self._dispatch(events)
                continue
            if self.fault is not None:
                failure, error_code = self.fault
                self._close(failure, error_code)
                return 0
            if connection.input == TUNNEL and connection.rest:
                # What came before the tunnel was accepted.
                self._dispatch(connection.receive(NULL, 0, None))
                continue
            if self.source is not None and not self.deferred:
                if self.paused or connection.out_size >= PIECE or pieces == MAX_PIECES:
                    return 0
                if self.file_follows():
                    return 0
                pieces += 1
                self._feed()
                continue
            if connection.output != SENT:
                return 0
            if connection.out_size > PIECE or (self.paused and connection.out_size):
                return 0  # it is closed when it is written
            if connection.input != COMPLETE:
                if connection.input == TUNNEL and connection.method == b"CONNECT":
                    return 0  # its halves end independently
                if connection.input == TUNNEL:
                    connection.closing = True
                elif connection.input != REFUSED:
                    if not self.declined:
                        return 0
                    connection.discard()
            elif not self.ended:
                # An upgrade was refused.
                try:
                    self._end()
                except FATAL:
                    raise
                except BaseException as error:
                    self._fail(self.exchange, error)
            self._close(None, 0)
            if connection.input == COMPLETE:
                connection.go_on()

    cdef int _feed(self) except -1:
        """Queue a piece of the body from its source."""
        source = self.source
        try:
            data, flag = source.read(PIECE)
            if self.source is not source or self.fault is not None:
                return 0  # it has reset its own exchange
            if flag == bodies.DATA_DEFERRED:
                self.deferred = True
            elif flag == bodies.DATA_EOF:
                self.source = self.send_to = None
                if self.trailers is None:
                    self.connection.send(data, True)
                else:
                    self.connection.send(data, False)
                    self.connection.trail(self.trailers)
            else:
                self.connection.send(data, False)
        except BaseException as error:
            if self.exchange is not None:
                self._fail_body(error)
            if isinstance(error, FATAL):
                raise
        return 0

    cdef int _fail_body(self, error) except -1:
        """Log what a source raised, and end its exchange."""
        memory_log.failed(
            error, "%s: the body of stream %d failed", self.owner, self.number
        )
        self.aborts = True
        return self._break_off(
            partial(
                StreamResetError,
                self.number,
                ErrorCode.INTERNAL_ERROR,
                remote=False,
                reason="the source of the body failed",
            ),
            ErrorCode.INTERNAL_ERROR,
            None,
        )

    cdef int _break_off(self, failure, error_code, status) except -1:
        """Report that both halves broke off: the exchange is closed after that."""
        cdef Exchange exchange = self.exchange

        self.source = self.send_to = None
        if exchange is None or self.fault is not None:
            return 0
        self.fault = (failure, error_code)
        if status is not None:
            exchange.status = status
        try:
            exchange.aborted(failure, error_code, True, True)
        except FATAL:
            raise
        except BaseException as error:
            self._fail(exchange, error)
        return 0

    cdef int _fail(self, Exchange exchange, error) except -1:
        """End an exchange whose application failed: none but closed() is called."""
        failed = exchange_failed(exchange, error)
        if self.exchange is exchange:
            self.exchange = failed
        return 0

    cdef int _close(self, failure, error_code) except -1:
        """Close the current exchange: the last call of it."""
        cdef Exchange exchange = self.exchange
        cdef object size = self.connection.body_size

        self.exchange = None
        self.source = self.send_to = self.trailers = None
        self.low = -1
        self.unacknowledged = 0
        if failure is not None:
            size -= self.connection.out_body
            self.connection.closing = True
            if self.fault is None:
                self.fault = (failure, error_code)
        if log_wanted():
            log_access(exchange, error_code, size, failure is None)
        try:
            exchange.closed(failure, error_code, size)
        except FATAL:
            raise
        except BaseException as error:
            exchange_failed(exchange, error)
        return 0

    cdef int _wake(self) except -1:
        """Call ``writable`` if what it waits for is true."""
        cdef Exchange exchange = self.exchange
        cdef bint wanted = False

        if 0 <= self.low and self.connection.out_body <= self.low:
            self.low = -1
            wanted = True
        if self.blocked and not self.paused and self.connection.out_body < PIECE:
            self.blocked = False
            wanted = True
        if wanted and exchange is not None and self.fault is None:
            self.dispatching = True
            try:
                exchange.writable()
            except FATAL:
                raise
            except BaseException as error:
                self._fail(exchange, error)
            finally:
                self.dispatching = False
        return 0

    cpdef wake_blocked(self):
        """Wake the exchange if it waits for room."""
        self._wake()

    cpdef find_end(self):
        """Return a function that makes the exception for why it has ended, or None."""
        return None if self.fault is None else self.fault[0]

    # ---- Messages ----

    cdef bint is_current(self, Exchange exchange) noexcept:
        return (
            self.exchange is not None
            and self.fault is None
            and exchange.stream_id == self.number
        )

    cdef int _require_open(self, Exchange exchange) except -1:
        if not self.is_current(exchange):
            raise StreamClosedError(
                f"stream {exchange.stream_id} is closed", exchange.stream_id
            )
        if self.connection.output == SENT:
            raise StreamClosedError(
                f"stream {exchange.stream_id}: our half has ended", exchange.stream_id
            )
        return 0

    cdef int _require_no_source(self, Exchange exchange) except -1:
        if self.source is not None:
            raise StreamStateError(
                f"stream {exchange.stream_id}: its body comes from a source"
            )
        return 0

    cpdef send_response(self, Exchange exchange, status, fields, bint end):
        """See ``HTTPConnection``."""
        self._require_open(exchange)
        if self.alt_svc is not None:
            fields = add_field(fields, b"alt-svc", self.alt_svc)
        fields = keep_response_fields(exchange, fields)
        self.connection.respond(status, fields, end)
        exchange.status = status
        self.flush_soon()

    cpdef send_fields(self, Exchange exchange, fields, bint end):
        """See ``HTTPConnection``: ``:status`` says what a response is."""
        cdef list pairs = []
        cdef tuple pair

        add_pairs(pairs, fields)
        if exchange.status is not None:
            if not end:
                raise StreamStateError("trailers must end the stream")
            self.send_trailers(exchange, pairs)
            return
        if not pairs or pairs[0][0] != b":status":
            raise HeadersError("a response needs :status")
        pair = <tuple>pairs[0]
        if len(pair[1]) != 3 or not pair[1].isdigit():
            raise HeadersError(":status must have three digits")
        status = int(pair[1])
        if status >= 200:
            self.send_response(exchange, status, pairs[1:], end)
        elif end:
            raise StreamStateError("an informational response cannot end the stream")
        else:
            self.send_informational(exchange, status, pairs[1:])

    cpdef send_informational(self, Exchange exchange, status, fields):
        """See ``HTTPConnection``; a client of HTTP/1.0 gets none."""
        self._require_open(exchange)
        self.connection.inform(status, fields)
        self.flush_soon()

    cpdef send_continue(self, Exchange exchange):
        """See ``HTTPConnection``: only to a client that waits for it."""
        if self.is_current(exchange) and self.connection.output == OWED:
            self.connection.send_continue()
            self.flush_soon()

    cpdef accept_tunnel(self, Exchange exchange, fields):
        """See ``HTTPConnection``: 101, or 200 to CONNECT (RFC 9110, 7.8)."""
        self._require_open(exchange)
        self.connection.begin_tunnel(fields)
        exchange.status = 200 if self.connection.method == b"CONNECT" else 101
        self.flush_soon()  # delivers what the client has sent before

    cpdef send_trailers(self, Exchange exchange, fields):
        """See ``HTTPConnection``: a client gets those only if it has asked for them."""
        self._require_open(exchange)
        self._require_no_source(exchange)
        if self.connection.output == OWED:
            raise StreamStateError("headers must be sent first")
        self.connection.trail(self.connection.check_trailers(fields))
        self.flush_soon()

    # ---- Bodies ----

    cpdef queue_body(self, Exchange exchange, data, bint end):
        """See ``HTTPConnection``."""
        cdef bytes piece = as_bytes(data)

        self._require_open(exchange)
        self._require_no_source(exchange)
        if len(piece) > COUNTED:
            count_bytes(len(piece))
        self.connection.send(piece, end)
        if (
            self.connection.output == TUNNELLED
            and self.low < 0
            and not self.blocked
            and not self.dispatching
            and self.owner is not None
        ):
            # Nothing follows from it, so it need not wait for the next turn.
            self.owner.write_now()
        else:
            self.flush_soon()

    cpdef send_body(self, Exchange exchange, body, trailers):
        """See ``HTTPConnection``."""
        cdef list fields = None

        self._require_open(exchange)
        self._require_no_source(exchange)
        if trailers is not None:
            fields = self.connection.check_trailers(trailers)
        if bodies.is_bytes_like(body):
            piece = as_bytes(body)
            self.connection.check_send(len(piece), True)
            if len(piece) > COUNTED:
                count_bytes(len(piece))
            if fields is None:
                self.connection.send(piece, True)
            else:
                self.connection.send(piece, False)
                self.connection.trail(fields)
        else:
            source = bodies.make_source(body)
            self.connection.check_send(0, False)
            self.source = source
            self.send_to = getattr(source, "send_to", None)
            self.trailers = fields
            self.deferred = False
        self.flush_soon()

    cpdef resume_body(self, Exchange exchange):
        """See ``HTTPConnection``."""
        if self.is_current(exchange) and self.deferred:
            self.deferred = False
            self.flush_soon()

    cpdef queued(self, Exchange exchange):
        """See ``HTTPConnection``."""
        return self.connection.out_body if self.is_current(exchange) else 0

    cpdef room(self, Exchange exchange, wanted, bint ahead):
        """See ``HTTPConnection``: the queue is written while the transport takes it."""
        cdef Py_ssize_t left

        if not self.is_current(exchange):
            return wanted
        if ahead:
            left = <Py_ssize_t>self.connection.max_body_queue
            left -= self.connection.out_body
            if left <= 0:
                self.low = <Py_ssize_t>self.connection.max_body_queue // 2
            return max(0, min(wanted, left))
        left = 0 if self.paused else PIECE - self.connection.out_body
        if left <= 0:
            self.blocked = True
        return max(0, min(wanted, left))

    cpdef is_under_way(self, Exchange exchange):
        """Return whether the transport takes all that is queued."""
        return not (self.paused and self.queued(exchange))

    cpdef notify_writable(self, Exchange exchange, low):
        """See ``HTTPConnection``."""
        if not self.is_current(exchange) or self.connection.out_body <= low:
            return True
        self.low = low
        return False

    cpdef acknowledge(self, Exchange exchange, n):
        """See ``HTTPConnection``: reading pauses while too much is not acknowledged."""
        if self.exchange is not None and exchange.stream_id == self.number:
            self.unacknowledged -= n
            if self.owner is not None and not self.dispatching:
                self.owner.update_reading()

    # ---- The end of an exchange ----

    cpdef reset(self, Exchange exchange, error_code):
        """See ``HTTPConnection``: the connection ends, too."""
        if not self.is_current(exchange):
            return
        self.source = self.send_to = None
        if self.connection.output == SENT and not self.connection.out_size:
            # The response is out, only the rest of the request is reset.
            self.declined = True
        else:
            self.aborts = True
            self.fault = (
                partial(StreamResetError, self.number, error_code, remote=False),
                error_code or ErrorCode.CANCEL,
            )
        self.flush_soon()

    cpdef stop_request(self, Exchange exchange, error_code=None):
        """See ``HTTPConnection``: the rest is received and dropped, within bounds."""
        if self.is_current(exchange) and self.connection.input != TUNNEL:
            self.declined = True
            self.flush_soon()

    cpdef is_open(self, Exchange exchange):
        """See ``HTTPConnection``."""
        return self.is_current(exchange)

    cpdef push(self, Exchange exchange, fields):
        """Return -1 and the request: HTTP/1.1 has no pushes."""
        cdef list pairs = []

        add_pairs(pairs, fields)
        return -1, make_request([pair[:2] for pair in pairs], self.version[5:])

    # ---- The connection ----

    cpdef flush_soon(self):
        """See ``HTTPConnection``: while events are dispatched, after them."""
        if not self.dispatching and self.owner is not None:
            self.owner.mark_dirty()
