# cython: nonecheck=True
"""The layer between protocols and applications: exchanges and connections.

An exchange is one request and its response (RFC 9110, 3.4).  ``Exchange`` is the
application's half of it; ``HTTPConnection`` is the connection's half of all its
exchanges.  A protocol (HTTP/1.1, HTTP/2, HTTP/3) is a subclass of ``HTTPConnection``,
an application (handler objects, coroutine streams, ASGI) a subclass of ``Exchange``.
Neither knows more about the other than these two classes.

A connection never calls an exchange from within a call of the application, and
never from a callback of a C library.  It calls ``closed`` last and exactly once.
There is no I/O here.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from nghttp2py.h2.events cimport RequestReceived

import logging
from collections.abc import Mapping

from nghttp2py import access
from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    NGHTTP2Error,
    PushDisabledError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.log_budget import MemoryLog

logger = logging.getLogger(__name__)
memory_log = MemoryLog(logger)
cdef object log_enabled = access.logger.isEnabledFor
cdef int INFO = logging.INFO
cdef list access_hooks = access.hooks
cdef list access_details = access.details

FATAL = (KeyboardInterrupt, SystemExit)

# What the methods that send raise when the peer or the connection is gone.
GONE = (StreamClosedError, ConnectionClosedError)

#: Body and fields of the response to a request whose application has failed.
FAILURE = b"500 Internal Server Error\n"
FAILURE_FIELDS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(FAILURE)),
]


cdef double now() noexcept:
    """Return the seconds of the monotonic clock."""
    cdef timespec time

    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


# ---- The application's half ----


cdef class Exchange:
    """The application's half of one request and its response.

    The connection calls the methods, which do nothing here.  They are C-level: a
    subclass in Python derives from ``PythonExchange``.  If a method raises, the
    exception is logged, the exchange is answered with 500 or reset, and only ``closed``
    is called after that; other exchanges go on.

    ``stream_id`` is the stream's identifier; ``status`` is that of the
    final response that was sent, or None.
    """

    cdef request_received(self, RequestReceived request):
        """Receive the request's header section, at a server: the first call."""

    cdef informational_received(self, status, tuple fields):
        """Receive a 1xx response, at a client (RFC 9110, 15.2)."""

    cdef response_received(self, status, tuple fields):
        """Receive the final response's header section, at a client.

        ``fields`` has no pseudo-header fields, here and in the other methods.
        """

    cdef data_received(self, bytes data):
        """Receive a piece of the body.

        The peer gets credit for it only by ``HTTPConnection.acknowledge``.
        """

    cdef trailers_received(self, tuple fields):
        """Receive the trailer section (RFC 9110, 6.5)."""

    cdef datagram_received(self, bytes data):
        """Receive an HTTP datagram (RFC 9297)."""

    cdef end_received(self):
        """Handle the end of the peer's message, which is complete."""

    cdef writable(self):
        """Go on sending: the condition of ``notify_writable`` or ``room`` holds now."""

    cdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        """Handle that one half, or both, broke off.

        The peer, the connection, or a failed source of a body caused it. RST_STREAM of
        HTTP/2 ends both halves; RESET_STREAM of QUIC ends the ``incoming`` half,
        STOP_SENDING the ``outgoing`` one.  ``failure()`` makes the exception that
        reports it, a new one for each caller that raises it.
        """

    cdef closing(self):
        """Handle that the server begins to stop.

        A response that has no end by itself should be ended now.
        """

    cdef closed(self, failure, error_code, body_bytes_sent):
        """Handle the end of the exchange: the last call, made exactly once.

        ``failure`` is None only if both halves ended as the protocol says; otherwise
        ``failure()`` makes the exception that gives the reason.  ``error_code`` is the
        protocol's own.  ``body_bytes_sent`` counts the octets of our body that went
        out.
        """

    cdef bint is_finished(self, body_bytes_sent) except -1:
        """Return whether the exchange is complete although its stream broke off.

        The access log asks before ``closed``.
        """
        return False

    cdef run_postponed(self, list exchanges):
        """Run this exchange and others: the first of those that were postponed.

        See ``HTTPConnection.postpone``.  ``closed`` may have been called already.
        """


cdef class PythonExchange(Exchange):
    """An ``Exchange`` whose methods a subclass in Python overrides.

    The constructor takes the ``HTTPConnection``, which becomes the attribute ``http``,
    the stream's identifier, and, at a server, the request.
    """

    def __init__(
        self, HTTPConnection http, stream_id, RequestReceived request=None
    ):
        self.http = http
        self.stream_id = stream_id
        self.request = request
        self.started = now()

    @property
    def http(self):
        """The connection's half."""
        return self.http

    @property
    def request(self):
        """The request, a ``RequestReceived``; None at a client."""
        return self.request

    @property
    def started(self):
        """When the request came, in seconds of the monotonic clock."""
        return self.started

    cpdef request_received(self, RequestReceived request):
        """See ``Exchange``: the request's header section, at a server."""

    cpdef informational_received(self, status, tuple fields):
        """See ``Exchange``: a 1xx response, at a client."""

    cpdef response_received(self, status, tuple fields):
        """See ``Exchange``: the final response's header section, at a client."""

    cpdef data_received(self, bytes data):
        """See ``Exchange``: a piece of the body, without credit."""

    cpdef trailers_received(self, tuple fields):
        """See ``Exchange``: the trailer section."""

    cpdef datagram_received(self, bytes data):
        """See ``Exchange``: an HTTP datagram."""

    cpdef end_received(self):
        """See ``Exchange``: the peer's message is complete."""

    cpdef writable(self):
        """See ``Exchange``: there is room to send again."""

    cpdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        """See ``Exchange``: a half, or both, broke off."""

    cdef closing(self):
        self.server_closing()

    cdef closed(self, failure, error_code, body_bytes_sent):
        self.exchange_closed(failure, error_code, body_bytes_sent)

    cpdef server_closing(self):
        """See ``Exchange.closing``: the server begins to stop."""

    cpdef exchange_closed(self, failure, error_code, body_bytes_sent):
        """See ``Exchange.closed``: the end."""


cdef class ExchangeFactory:
    """Makes the exchange of each request that a connection receives.

    ``function(http, stream_id, request)`` returns an ``Exchange``.  If it raises, the
    exception is logged and the request is answered with 500.  A server whose factory
    ``takes_tunnels`` announces extended CONNECT (RFC 8441, RFC 9220), unless its
    configuration decides that.
    """

    def __init__(self, function):
        self._function = function

    cdef Exchange new_exchange(
        self, HTTPConnection http, stream_id, RequestReceived request
    ):
        cdef Exchange exchange = self._function(http, stream_id, request)

        if exchange is None:
            raise TypeError(f"{self._function!r} must return an Exchange, not None")
        exchange.http = http
        exchange.stream_id = stream_id
        exchange.request = request
        return exchange

    cdef int connection_lost(self) except -1:
        """Handle that a connection has ended that had this factory."""
        return 0


cdef list factories = []


def register_factory(kind, make_factory):
    """Have ``find_factory`` call ``make_factory`` with the subclasses of ``kind``."""
    factories.append((kind, make_factory))


def find_factory(application):
    """Return the ``ExchangeFactory`` for what answers requests, or None.

    ``handler`` is such a factory, or a class that is instantiated for each request.
    """
    if isinstance(application, ExchangeFactory):
        return application
    if isinstance(application, type):
        for kind, make_factory in factories:
            if issubclass(application, kind):
                return make_factory(application)
    return None


cdef int copy_exchange(Exchange copy, Exchange exchange) except -1:
    copy.http = exchange.http
    copy.stream_id = exchange.stream_id
    copy.status = exchange.status
    copy.response_fields = exchange.response_fields
    copy.request = exchange.request
    copy.started = exchange.started
    return 0


cdef Exchange make_unmade(HTTPConnection http, stream_id, RequestReceived request):
    """Make the exchange of a request for which the factory has made none."""
    cdef Exchange exchange = Exchange()

    exchange.http = http
    exchange.stream_id = stream_id
    exchange.request = request
    exchange.started = now()
    return exchange


cdef Exchange make_record(Exchange exchange):
    """Make an exchange that does nothing, for the log of one that is being dropped."""
    cdef Exchange record = Exchange()

    copy_exchange(record, exchange)
    return record


cdef class FailedExchange(Exchange):
    """Replaces an exchange whose application has failed, of which only ``closed`` is
    called."""

    cdef Exchange _failed

    cdef data_received(self, bytes data):
        self.http.acknowledge(self, len(data))

    cdef closed(self, failure, error_code, body_bytes_sent):
        self._failed.closed(failure, error_code, body_bytes_sent)


# ---- The connection's half ----


cdef class HTTPConnection:
    """The connection's half of its exchanges, whose methods an application calls.

    ``version`` is the name for the log, such as "HTTP/2"; ``owner`` is the object that
    does the I/O, None when the connection is lost; ``client_side`` is the role;
    ``factory`` makes the exchanges of a server's requests; ``tasks`` is the
    ``CallbackTasks`` of ``asyncio.tasks`` that runs the coroutines of applications,
    None where there is no event loop; ``secure`` is whether the transport is TLS or
    QUIC. A method that a protocol does not have raises an
    exception of ``nghttp2py.errors``; so does a call that the state of an exchange does
    not allow: ``StreamStateError``, ``StreamClosedError``, ``HeadersError``,
    ``InvalidBodyLengthError``.  Fields are given as iterables of (name, value) pairs,
    or mappings; names and values are bytes or str.

    What a call queues is written without another call: at the end of a batch of
    received events, or in the next turn of the event loop.
    """

    def __init__(
        self,
        version,
        bint client_side=False,
        owner=None,
        ExchangeFactory factory=None,
    ):
        self.version = version
        self.client_side = client_side
        self.owner = owner
        self.factory = factory

    cdef bint postpone(self, Exchange exchange) except -1:
        """Arrange that an exchange is run after the events that are being handled.

        Then it knows all that has come with its request, such as that the body has
        ended.  Return False if the connection has no such time.
        """
        if not self.postpones:
            return False
        if self.postponed is None:
            self.postponed = []
        self.postponed.append(exchange)
        return True

    cdef int run_postponed(self) except -1:
        """Run the exchanges that were postponed; only ``FATAL`` is raised."""
        cdef list exchanges = self.postponed

        self.postpones = False
        if exchanges is not None:
            self.postponed = None
            (<Exchange>exchanges[0]).run_postponed(exchanges)
        return 0

    cdef _missing(self, str what):
        raise StreamStateError(f"{self.version} has no {what}")

    # ---- Messages ----

    cpdef send_response(self, Exchange exchange, status, fields, bint end):
        """Send the final response's header section, and set ``exchange.status``.

        ``status`` is an int from 200 to 999.  With ``end`` nothing follows it.
        """
        self._missing("responses")

    cpdef send_fields(self, Exchange exchange, fields, bint end):
        """Send a whole header section as it is, pseudo-header fields included.

        The state of the exchange decides what it is: a client's request; a response,
        informational or final; after that the trailers, which need ``end``.
        """
        self._missing("header sections with pseudo-header fields")

    cpdef send_informational(self, Exchange exchange, status, fields):
        """Send a 1xx response, but not 101, before the final one."""
        self._missing("informational responses")

    cpdef send_continue(self, Exchange exchange):
        """Send 100 (Continue), unless the request is complete or it is closed."""
        self.send_informational(exchange, 100, ())

    cpdef accept_tunnel(self, Exchange exchange, fields):
        """Accept a CONNECT, an extended CONNECT or an upgrade: begin a tunnel.

        ``fields`` are those of the accepting response, which is 200, or over HTTP/1.1
        101 (Switching Protocols) for an upgrade (RFC 9110, 9.3.6 and 7.8; RFC 8441, 4;
        RFC 9220, 3).  ``exchange.status`` is set to it.  After that, ``data_received``
        and ``queue_body`` carry the bytes of the tunnel, and the end of a half is the
        end of its bytes.  An exchange declines a tunnel by ``send_response``.
        """
        self.send_response(exchange, 200, fields, False)

    cpdef send_trailers(self, Exchange exchange, fields):
        """End our message with a trailer section, after the queued body."""
        self._missing("trailer sections")

    # ---- Bodies ----

    cpdef queue_body(self, Exchange exchange, data, bint end):
        """Queue a bytes-like piece of our body; with ``end`` it is the last.

        Raises ``BodyQueueFullError`` if more would wait than the bound allows.
        """
        self._missing("bodies")

    cpdef send_body(self, Exchange exchange, body, trailers):
        """Send a body to its end, as the peer takes it, then ``trailers``.

        ``body`` is bytes-like or a source: a binary file, an iterable of bytes,
        or a callable ``f(n) -> (data, flag)``.  The connection holds the source.
        If it fails, the exchange is reset and ``aborted``.  ``trailers`` may be None.
        """
        self._missing("bodies from a source")

    cpdef resume_body(self, Exchange exchange):
        """Ask a source again that has returned ``DATA_DEFERRED``; otherwise a no-op."""

    cpdef end(self, Exchange exchange):
        """End our message after what is queued."""
        self.queue_body(exchange, b"", True)

    cpdef queued(self, Exchange exchange):
        """Return how many octets of our body are queued."""
        return 0

    cpdef room(self, Exchange exchange, wanted, bint ahead):
        """Return how many octets, up to ``wanted``, could be sent now.

        The peer's credit and our own bounds allow that many.  With ``ahead``, a
        connection that sends its queue by itself as credit comes looks at the bounds
        only.  If the result is 0, ``writable`` is called when there is room.
        """
        return wanted

    cpdef notify_writable(self, Exchange exchange, low):
        """Return whether at most ``low`` octets are queued; if not, call ``writable``
        later.

        ``writable`` is then called once, when no more than ``low`` are left.
        """
        return True

    cpdef acknowledge(self, Exchange exchange, n):
        """Give the peer credit for ``n`` received octets of its body.

        A no-op when the exchange is closed.
        """

    # ---- The end of an exchange ----

    cpdef reset(self, Exchange exchange, error_code):
        """Reset both halves; what is queued is dropped.  A no-op if it is closed.

        ``error_code`` is an ``ErrorCode``; a protocol with other codes sends its own
        code of the same meaning.
        """
        self._missing("resets")

    cpdef stop_request(self, Exchange exchange, error_code=None):
        """Decline the rest of a request whose response is complete.

        RFC 9113, 8.1; RFC 9114, 4.1.  The reset or STOP_SENDING goes out after the
        response, and only if the request has not ended by then.  A no-op for an
        accepted CONNECT. ``error_code`` is the protocol's own, by default that for no
        error.
        """

    cpdef is_open(self, Exchange exchange):
        """Return whether the exchange can still send or receive anything."""
        return False

    # ---- What not every protocol has ----

    cpdef push_enabled(self):
        """Return whether ``push`` may be called."""
        return False

    cpdef push(self, Exchange exchange, fields):
        """Promise a response to a request that the client did not make.

        ``fields`` is the whole request, pseudo-header fields included.  Return a
        pair: the promised stream's identifier, or -1 if the client takes no pushes,
        and the ``RequestReceived``.  The caller makes an exchange of them and gives
        it to ``adopt``.
        """
        raise PushDisabledError(f"{self.version} has no server push")

    cpdef adopt(self, Exchange exchange):
        """Make an exchange of the application the one that is called from now on."""
        raise PushDisabledError(f"{self.version} has no server push")

    cpdef send_datagram(self, Exchange exchange, data):
        """Send an HTTP datagram (RFC 9297)."""
        self._missing("datagrams")

    cpdef set_priority(self, Exchange exchange, urgency, incremental):
        """Change the priority of our body (RFC 9218, 4); elsewhere a no-op."""

    # ---- The connection ----

    def connected(self, transport):
        """Copy the transport's information that must stay available after its loss.

        The values are copied, because a method of the transport would keep it, and its
        buffers, in a cycle.
        """
        self.extra = {
            name: transport.get_extra_info(name) for name in ("peername", "peercert")
        }
        self.secure = transport.get_extra_info("ssl_object") is not None

    cpdef get_extra_info(self, name, default=None):
        """Return the transport's information, as asyncio's transports do.

        "peername" and "peercert" stay known after the connection is lost.
        """
        value = None if self.extra is None else self.extra.get(name)
        if value is None:
            transport = getattr(self.owner, "transport", None)
            if transport is not None:
                return transport.get_extra_info(name, default)
        return default if value is None else value

    cpdef flush_soon(self):
        """Arrange that what is queued is written without another call."""


cdef class PythonConnection(HTTPConnection):
    """An ``HTTPConnection`` that is written in Python.

    A subclass overrides the methods of ``HTTPConnection``.  It calls the C-level
    methods of exchanges by the methods of this class, which raise what the exchange
    raises.  ``send_response`` has to set ``exchange.status``.
    """

    def request_received(self, Exchange exchange not None, RequestReceived request):
        """Call ``exchange.request_received``."""
        exchange.request = request
        exchange.started = now()
        exchange.request_received(request)

    def push_begun(self, Exchange exchange not None):
        """Note the time at which an exchange began that we push."""
        exchange.started = now()

    def informational_received(self, Exchange exchange not None, status, fields):
        """Call ``exchange.informational_received``."""
        exchange.informational_received(status, tuple(fields))

    def response_received(self, Exchange exchange not None, status, fields):
        """Call ``exchange.response_received``."""
        exchange.response_received(status, tuple(fields))

    def data_received(self, Exchange exchange not None, bytes data not None):
        """Call ``exchange.data_received``."""
        exchange.data_received(data)

    def trailers_received(self, Exchange exchange not None, fields):
        """Call ``exchange.trailers_received``."""
        exchange.trailers_received(tuple(fields))

    def datagram_received(self, Exchange exchange not None, bytes data not None):
        """Call ``exchange.datagram_received``."""
        exchange.datagram_received(data)

    def end_received(self, Exchange exchange not None):
        """Call ``exchange.end_received``."""
        exchange.end_received()

    def writable(self, Exchange exchange not None):
        """Call ``exchange.writable``."""
        exchange.writable()

    def aborted(
        self,
        Exchange exchange not None,
        failure,
        error_code,
        *,
        bint incoming=True,
        bint outgoing=True,
    ):
        """Call ``exchange.aborted``."""
        exchange.aborted(failure, error_code, incoming, outgoing)

    def closing(self, Exchange exchange not None):
        """Call ``exchange.closing``."""
        exchange.closing()

    def closed(
        self, Exchange exchange not None, failure, error_code, body_bytes_sent
    ):
        """Call ``exchange.closed``, after the access log at a server."""
        if not self.client_side and log_wanted():
            log_access(exchange, error_code, body_bytes_sent, failure is None)
        exchange.closed(failure, error_code, body_bytes_sent)

    def new_exchange(self, stream_id, RequestReceived request):
        """Make the exchange of a request by ``factory``."""
        return self.factory.new_exchange(self, stream_id, request)


# ---- The rules that all of them share ----


cpdef bint has_content(bytes method, status) except -1:
    """Return whether a final response with ``status`` to ``method`` has content.

    Responses to HEAD and those with 204, 205 or 304 have none (RFC 9110, 9.3.2, 15.3.5,
    15.3.6 and 15.4.5).  Any 2xx to CONNECT begins a tunnel (9.3.6).
    """
    if status == 204 or status == 205:
        return method == b"CONNECT"
    return status != 304 and method != b"HEAD"


cdef object content_length(RequestReceived request):
    """Return the size of the body that content-length states, 0 without it."""
    for pair in request.fields:
        if pair[0] == b"content-length":
            # int() refuses thousands of digits, zeros too.
            return int((<bytes>pair[1]).lstrip(b"0") or 0)
    return 0


cpdef bint expects_continue(RequestReceived request) except -1:
    """Return whether a client waits for 100 (Continue) (RFC 9110, 10.1.1)."""
    if request is None:
        return False
    for pair in request.fields:
        if pair[0] == b"expect" and (<bytes>pair[1]).lower() == b"100-continue":
            return True
    return False


cpdef bint answer_failure(Exchange exchange) except -1:
    """Answer an exchange whose application failed with 500, or reset it.

    Return whether 500 was sent.
    """
    cdef HTTPConnection http = exchange.http
    cdef bint whole

    if exchange.status is None and not http.client_side:
        whole = not has_content(exchange.request.method, 500)
        try:
            http.send_response(exchange, 500, FAILURE_FIELDS, whole)
            if not whole:
                http.queue_body(exchange, FAILURE, True)
            http.stop_request(exchange)
            return True
        except NGHTTP2Error:
            pass  # the exchange is closed, or another object has answered it
    http.reset(exchange, ErrorCode.INTERNAL_ERROR)
    return False


cpdef Exchange exchange_failed(Exchange exchange, error):
    """Log what the application of an exchange raised, and answer the exchange.

    An exception that only reports that the peer has ended the exchange is logged at
    DEBUG.  Return the exchange that the connection calls from now on.
    """
    cdef HTTPConnection http = exchange.http
    cdef FailedExchange failed = FailedExchange()

    if isinstance(error, GONE) and (
        not http.is_open(exchange)
    ):
        logger.debug("%s: stream %s: %s", http.owner, exchange.stream_id, error)
    else:
        memory_log.failed(
            error, "%s: stream %s failed", http.owner, exchange.stream_id
        )
    answer_failure(exchange)
    copy_exchange(failed, exchange)
    failed._failed = exchange
    return failed


cpdef bint log_wanted() except -1:
    """Return whether there is a log or a hook for ``log_access``."""
    return bool(access_hooks) or log_enabled(INFO)


cpdef keep_response_fields(Exchange exchange, fields):
    """Keep a final response's fields for the log, if it wants them.

    Return the fields, which may have been an iterator.
    """
    if access_details:
        fields = list(fields.items() if isinstance(fields, Mapping) else fields or ())
        exchange.response_fields = tuple(fields)
    return fields


cpdef log_access(Exchange exchange, error_code, body_bytes_sent, bint complete):
    """Log an exchange of a server that has ended, and call the hooks.

    ``complete`` is whether the stream ended as the protocol says; otherwise the
    exchange itself may know that it is complete.  What a hook raises is
    logged.  An exchange without a request, which the server has pushed, is not logged,
    nor are those of an ``unlogged`` connection.  See ``nghttp2py.access``.
    """
    cdef RequestReceived request = exchange.request

    if request is None or exchange.http.unlogged:
        return
    try:
        if not complete and exchange.is_finished(body_bytes_sent):
            complete = True
            error_code = 0
        entry = access.Exchange(
            exchange.http.version,
            exchange.http.get_extra_info("peername"),
            request.method,
            request.target,
            exchange.status,
            body_bytes_sent,
            now() - exchange.started,
            error_code,
            complete,
        )
        if access_details:
            entry.scheme = request.scheme
            entry.request_fields = request.fields
            entry.response_fields = exchange.response_fields or ()
        access.log(entry)
    except Exception as error:
        memory_log.failed(error, "%r: the access log failed", exchange.http)
