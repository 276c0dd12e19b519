# cython: nonecheck=True
"""HTTP requests for an ASGI application (ASGI 3.0, HTTP 2.5), over each version.

A request's body is kept until the application takes it, and the client gets credit for
it only then.  A response is queued as the client's window lets it out: ``send()`` waits
once more than ``QUEUED`` octets of it are queued, until few are left.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.time cimport time, time_t

from nghttp2py.asgi.application cimport (
    Application,
    ApplicationExchange,
    check_message,
)
from nghttp2py.exchange cimport (
    GONE,
    Exchange,
    HTTPConnection,
    content_length,
    expects_continue,
    has_content,
)
from nghttp2py.h2.convert cimport takes_trailers
from nghttp2py.h2.events cimport RequestReceived

import logging
import os
import sys
from email.utils import formatdate

from nghttp2py.errors import (
    ASGIMessageError,
    BodyQueueFullError,
    ErrorCode,
    NGHTTP2Error,
)

__all__ = ["ASGIExchange", "HTTPApplication"]

logger = logging.getLogger("nghttp2py.asgi")

# Octets of a file that are read at once.
cdef Py_ssize_t PIECE = 65536

cdef str HTTP = sys.intern("http")
cdef str START = sys.intern("http.response.start")
cdef str BODY = sys.intern("http.response.body")

# What becomes of fields of a response: those that concern the connection are removed
# (RFC 9113, 8.2.2; RFC 9114, 4.2), HTTP/1.1 has its own rules for them.
cdef enum:
    OF_CONNECTION = 1
    OF_FRAMING = 2
    DATE = 4
    SERVER = 8

cdef dict KNOWN = {
    b"connection": OF_CONNECTION,
    b"keep-alive": OF_CONNECTION,
    b"proxy-connection": OF_CONNECTION,
    b"upgrade": OF_CONNECTION,
    b"te": OF_CONNECTION,
    b"transfer-encoding": OF_CONNECTION | OF_FRAMING,
    b"date": DATE,
    b"server": SERVER,
}


cdef class HTTPApplication(Application):
    """Makes the exchanges of an application's HTTP requests."""

    def __init__(self, app, options=None):
        Application.__init__(self, app, options)
        options = self.options
        self._date = -1
        self._server_pair = None
        if options.server_header:
            self._server_pair = (b"server", options.server_header.encode("latin-1"))
        self._dates = options.date_header
        self._headers = list(options.headers)
        self._limit = -1
        if options.limit_concurrency is not None:
            self._limit = options.limit_concurrency
        self._max_body = options.max_request_body_size
        if options.health_check_path is not None:
            self._health_path = options.health_check_path.encode()

    cdef Exchange new_exchange(
        self, HTTPConnection http, stream_id, RequestReceived request
    ):
        cdef Exchange exchange

        if request.protocol is not None or request.method == b"CONNECT":
            exchange = self.new_tunnel(http, stream_id, request)
        else:
            exchange = self.new_request()
        exchange.http = http
        exchange.stream_id = stream_id
        exchange.request = request
        return exchange

    cdef ASGIExchange new_request(self):
        cdef ASGIExchange exchange = ASGIExchange.__new__(ASGIExchange)

        exchange.application = self
        return exchange

    def new_tunnel(self, http, stream_id, request):
        """Return the exchange of a CONNECT or an upgrade: here it is refused."""
        return Refusal(self, 501)

    cdef tuple date_field(self):
        """Return the date field, which is made once a second (RFC 9110, 6.6.1)."""
        cdef time_t now = time(NULL)

        if now != self._date:
            self._date = now
            self._date_pair = (b"date", formatdate(now, usegmt=True).encode())
        return self._date_pair

    cdef int add_defaults(self, list headers, int present) except -1:
        """Add the fields of each response that the application has not set."""
        if not present & DATE and self._dates:
            headers.append(self.date_field())
        if not present & SERVER and self._server_pair is not None:
            headers.append(self._server_pair)
        if self._headers:
            headers.extend(self._headers)
        return 0


cdef class Refusal(Exchange):
    """Answers a request with a status and a line of text, without the application."""

    cdef HTTPApplication _application
    cdef int _status

    def __init__(self, HTTPApplication application not None, status):
        self._application = application
        self._status = status

    cdef request_received(self, RequestReceived request):
        answer(self, self._application, self._status)

    cdef data_received(self, bytes data):
        self.http.acknowledge(self, len(data))


cdef dict TEXTS = {
    200: b"OK\n",
    400: b"400 Bad Request\n",
    403: b"403 Forbidden\n",
    413: b"413 Content Too Large\n",
    500: b"500 Internal Server Error\n",
    501: b"501 Not Implemented\n",
    503: b"503 Service Unavailable\n",
}


cdef int answer(Exchange exchange, HTTPApplication application, int status) except -1:
    """Send a whole response, a line of text, and decline the rest of the request."""
    cdef HTTPConnection http = exchange.http
    cdef bytes text = TEXTS[status]
    cdef bint content = has_content(exchange.request.method, status)
    cdef list headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
    ]

    if status == 503:
        headers.append((b"retry-after", b"1"))
    application.add_defaults(headers, 0)
    try:
        http.send_response(exchange, status, headers, not content)
        if content:
            http.queue_body(exchange, text, True)
        http.stop_request(exchange)
    except NGHTTP2Error:
        http.reset(exchange, ErrorCode.INTERNAL_ERROR)  # a no-op if it is closed
    return 0


cdef class ASGIExchange(ApplicationExchange):
    """An HTTP request, which an ASGI application answers."""

    # ---- What the connection calls ----

    cdef request_received(self, RequestReceived request):
        cdef HTTPApplication application = <HTTPApplication>self.application
        cdef dict scope

        if application._health_path is not None:
            if request.target.partition(b"?")[0] == application._health_path:
                return self._refuse(200)
        if application._limit >= 0:
            if len(application.running) >= application._limit:
                return self._refuse(503)
        if application._max_body is not None:
            if content_length(request) > application._max_body:
                return self._refuse(413)
        scope = application.scopes.make(HTTP, self.http, request)
        if scope is None:
            return self._refuse(400)
        self.start(scope)

    cdef data_received(self, bytes data):
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)

        if self._state == COMPLETE or self.disconnected:
            self.http.acknowledge(self, n)
            return
        if (<HTTPApplication>self.application)._max_body is not None:
            self._received = n + (self._received or 0)
            if self._received > (<HTTPApplication>self.application)._max_body:
                self.http.acknowledge(self, n)
                return self._give_up(413)
        if self._body is None:
            self._body = []
        self._body.append(data)
        self._unread += n
        self.wake_receivers()

    cdef end_received(self):
        self._request_ended = True
        self.wake_receivers()

    cdef writable(self):
        self.wake_senders()

    cdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        if self._state == COMPLETE and not outgoing:
            return  # the client sends no more of a request that is answered already
        if not (incoming and outgoing):
            # An application cannot use half an exchange.
            self.http.reset(self, error_code)
        self.disconnect()

    cdef bint is_finished(self, body_bytes_sent) except -1:
        """Return whether all went out that content-length has announced.

        A client may close then, before the application has returned.
        """
        if not body_bytes_sent or self._response is None:
            return False
        for name, value in self._response:
            if name == b"content-length":
                return value == b"%d" % body_bytes_sent
        return False

    cdef closed(self, failure, error_code, body_bytes_sent):
        self._close_file()
        self._stop_stall()
        self._body = None
        if failure is not None or not (
            self._state == COMPLETE or self._no_body or self._ended_here
        ):
            self.disconnect()
        self.watch_task()

    # ---- receive() ----

    cdef object take_message(self):
        cdef list pieces = self._body
        cdef Py_ssize_t n

        if self._state == COMPLETE or self.disconnected:
            return {"type": "http.disconnect"}
        if pieces is not None:
            self._body = None
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            n, self._unread = self._unread, 0
            self.http.acknowledge(self, n)
            self._end_taken = self._request_ended
            return {
                "type": "http.request",
                "body": data,
                "more_body": not self._request_ended,
            }
        if self._request_ended and not self._end_taken:
            self._end_taken = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return None

    cdef int about_to_wait(self) except -1:
        """Ask a client for the body that waits for 100 (RFC 9110, 10.1.1)."""
        if not self._continued and self._state == AWAITS_START:
            self._continued = True
            if not self._request_ended and expects_continue(self.request):
                try:
                    self.http.send_continue(self)
                except GONE:
                    pass
        return 0

    # ---- send() ----

    cdef object send_message(self, message):
        cdef dict checked = check_message(message)
        cdef str kind = checked["type"]

        if self.disconnected and self._state != COMPLETE:
            return self.refuse_send()
        try:
            if kind == BODY:
                return self._send_body(checked)
            if kind == START:
                return self._send_start(checked)
            return self._send_other(kind, checked)
        except GONE:
            return self._client_is_gone()

    cdef object _client_is_gone(self):
        """Handle a client that is gone before the connection has reported it."""
        self.disconnect()
        return self.refuse_send()

    cdef int _expect(self, str kind, State state) except -1:
        if self._state != state:
            if self._ended_here:
                raise ASGIMessageError(
                    f"{kind} was sent, but the server has ended the response"
                )
            raise ASGIMessageError(
                f"{kind} was sent, but the response "
                + (
                    "has not started: http.response.start comes first",
                    "has started: http.response.body comes next",
                    "has its whole body: http.response.trailers comes next",
                    "is complete",
                )[<int>self._state]
            )
        return 0

    cdef object _send_start(self, dict message):
        cdef HTTPApplication application = <HTTPApplication>self.application
        cdef list headers
        cdef int status
        cdef int present = 0

        self._expect(START, AWAITS_START)
        value = required(message, "status")
        if type(value) is not int and (
            not isinstance(value, int) or isinstance(value, bool)
        ):
            raise ASGIMessageError(f"status must be an int, not {value!r}")
        if not 200 <= value <= 599:
            raise ASGIMessageError(f"status is {value}, but must be from 200 to 599")
        status = value
        headers = self._take_headers(message.get("headers", ()), &present)
        application.add_defaults(headers, present)
        self._no_body = not has_content(self.request.method, status)
        if status == 204 or status == 205:
            # Applications send it with the length of what has been dropped (RFC 9110,
            # 8.6 and 15.3.6).
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        self.http.send_response(self, status, headers, self._no_body)
        self._response = headers
        if message.get("trailers", False):
            self._sends_trailers = not self._no_body and self._takes_trailers()
            self._drops_trailers = not self._sends_trailers
        self._state = AWAITS_BODY
        return None

    cdef bint _takes_trailers(self) except -1:
        """Return whether the scope has announced trailers."""
        if "http.response.trailers" in self.application.options.disabled_extensions:
            return False
        for pair in self.request.fields:
            if pair[0] == b"te" and takes_trailers(<bytes?>pair[1]):
                return True
        return False

    cdef list _take_headers(self, given, int *present):
        """Return the fields of a message, checked, without those of the connection."""
        cdef list headers = []
        cdef bytes name
        cdef int known

        if given is None or isinstance(given, str | bytes):
            raise ASGIMessageError(f"headers must be pairs of bytes, not {given!r}")
        for pair in given:
            try:
                raw_name, value = pair
            except (TypeError, ValueError):
                raise ASGIMessageError(
                    f"headers must be pairs of bytes, not {pair!r}"
                ) from None
            if not PyBytes_CheckExact(raw_name) or not PyBytes_CheckExact(value):
                if not isinstance(raw_name, bytes) or not isinstance(value, bytes):
                    raise ASGIMessageError(
                        f"headers must be pairs of bytes, not ({raw_name!r}, "
                        f"{type(value).__name__})"
                    )
                raw_name, value = bytes(raw_name), bytes(value)
            name = <bytes>raw_name
            if not is_lower(name):
                name = name.lower()
            if PyBytes_GET_SIZE(name) and PyBytes_AS_STRING(name)[0] == c":":
                raise ASGIMessageError(
                    f"headers has {name!r}: a response's status is the key status"
                )
            kind = KNOWN.get(name)
            if kind is not None:
                known = kind
                if known & OF_FRAMING:
                    continue
                if known & OF_CONNECTION and not self.http.version.startswith("HTTP/1"):
                    continue
                present[0] |= known
            if has_outer_space(<bytes>value):
                # It does not belong to the value (RFC 9110, 5.5).
                value = value.strip(b" \t")
            headers.append((name, value))
        return headers

    cdef object _send_body(self, dict message):
        cdef bint more

        self._expect(BODY, AWAITS_BODY)
        body = message.get("body", b"")
        if not PyBytes_CheckExact(body):
            if not isinstance(body, bytes | bytearray | memoryview):
                raise ASGIMessageError(
                    f"body must be bytes, not {type(body).__name__}"
                )
            body = bytes(body)
        more = bool(message.get("more_body", False))
        if self._no_body:
            if not more:
                self._body_sent()
            return None
        if not more:
            if self._sends_trailers:
                if PyBytes_GET_SIZE(<bytes>body):
                    return self._queue(body, True)
            else:
                try:
                    self.http.queue_body(self, body, True)
                except BodyQueueFullError:
                    return self._queue_later(body, True, True)
            self._body_sent()
            return None
        if not PyBytes_GET_SIZE(<bytes>body):
            return None
        return self._queue(body, False)

    cdef object _queue(self, body, bint last):
        """Queue a piece that is not the response's end; return what waits for room.

        After the ``last`` piece, trailers follow.
        """
        try:
            self.http.queue_body(self, body, False)
        except BodyQueueFullError:
            return self._queue_later(body, last, False)
        if last:
            self._body_sent()
        return None if self._has_room() else self._wait_for_room()

    cdef bint _has_room(self) except -1:
        """Return whether ``send()`` need not wait; else have it woken."""
        return self.http.queued(self) <= QUEUED or self.http.notify_writable(self, LOW)

    async def _queue_later(self, body, last, end):
        """Queue a large piece when the others have gone.

        After the ``last`` piece, trailers follow, unless it is the response's ``end``.
        """
        while not self.http.notify_writable(self, 0):
            await self._wait_for_room()
            if self.disconnected:
                return
        try:
            self.http.queue_body(self, body, end)
        except GONE:
            self._client_is_gone()
            return
        if last:
            self._body_sent()
        if not end and not self._has_room():
            await self._wait_for_room()

    async def _wait_for_room(self):
        """Wait until the client has taken enough of what is queued."""
        self._start_stall()
        try:
            await self.wait_to_send()
        finally:
            # Also if the application no longer waits, for its response may be idle.
            if not self._senders:
                self._stop_stall()
        if self.disconnected:
            self.refuse_send()

    cdef int _body_sent(self) except -1:
        """Handle the end of the application's body."""
        if self._sends_trailers:
            self._state = AWAITS_TRAILERS
            return 0
        return self._finish()

    cdef int _finish(self) except -1:
        """Handle that the response is complete: decline the rest of the request."""
        self._state = COMPLETE
        self.finish_response()
        if not self._request_ended:
            self._drop_body()
            self.http.stop_request(self)
        return 0

    cdef int _drop_body(self) except -1:
        """Give credit for what the application will not take."""
        if self._body is not None:
            self._body = None
            n, self._unread = self._unread, 0
            self.http.acknowledge(self, n)
        return 0

    # ---- Extensions ----

    cdef object _send_other(self, str kind, dict message):
        if kind == "http.response.trailers":
            return self._send_trailers(message)
        if kind == "http.response.early_hint":
            return self._send_early_hint(message)
        if kind == "http.response.informational":
            return self._send_informational(message)
        if kind == "http.response.pathsend":
            return self._send_path(message)
        if kind == "http.response.zerocopysend":
            return self._send_file(message)
        if kind == "http.response.push":
            return self._push(message)
        raise ASGIMessageError(
            f"the type {kind!r} is not one of a response to an HTTP request"
        )

    cdef int _check_announced(self, str kind) except -1:
        if kind in self.application.options.disabled_extensions:
            raise ASGIMessageError(
                f"{kind} was sent, but scope['extensions'] does not announce it"
            )
        return 0

    cdef object _send_trailers(self, dict message):
        cdef int present = 0
        cdef list headers

        if self._state != COMPLETE or not self._drops_trailers:
            self._expect("http.response.trailers", AWAITS_TRAILERS)
        headers = self._take_headers(message.get("headers", ()), &present)
        if self._trailer_fields is None:
            self._trailer_fields = []
        self._trailer_fields.extend(headers)
        if message.get("more_trailers", False):
            return None
        if self._drops_trailers:
            self._drops_trailers = False
            return None
        if self._trailer_fields:
            self.http.send_trailers(self, self._trailer_fields)
        else:
            self.http.end(self)
        self._finish()
        return None

    cdef object _send_early_hint(self, dict message):
        self._check_announced("http.response.early_hint")
        self._expect("http.response.early_hint", AWAITS_START)
        links = required(message, "links")
        fields = []
        for link in links:
            if not isinstance(link, bytes):
                raise ASGIMessageError(f"links must be bytes, not {link!r}")
            fields.append((b"link", link))
        return self._inform(103, fields)

    cdef object _send_informational(self, dict message):
        cdef int present = 0

        self._check_announced("http.response.informational")
        self._expect("http.response.informational", AWAITS_START)
        status = required(message, "status")
        if not isinstance(status, int) or not 102 <= status <= 199:
            raise ASGIMessageError(
                f"status is {status!r}, but must be an int from 102 to 199"
            )
        fields = self._take_headers(message.get("headers", ()), &present)
        return self._inform(status, fields)

    cdef object _inform(self, status, fields):
        if self.request.http_version != "1.0":  # RFC 9110, 15.2
            self.http.send_informational(self, status, fields)
        return None

    cdef object _send_path(self, dict message):
        self._check_announced("http.response.pathsend")
        self._expect("http.response.pathsend", AWAITS_BODY)
        path = required(message, "path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise ASGIMessageError(f"path must be an absolute path, not {path!r}")
        file = open(path, "rb", buffering=0)
        if self._no_body:
            file.close()
            self._body_sent()
            return None
        self._file = file
        if self._sends_trailers:
            return self._send_pieces(file.fileno(), None, None, False)
        self.http.send_body(self, file, None)
        self._body_sent()
        return None

    cdef object _send_file(self, dict message):
        self._check_announced("http.response.zerocopysend")
        self._expect("http.response.zerocopysend", AWAITS_BODY)
        file = required(message, "file")
        offset = message.get("offset")
        count = message.get("count")
        for name, value in (("offset", offset), ("count", count)):
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or value < 0
            ):
                raise ASGIMessageError(
                    f"{name} must be an int that is not negative, not {value!r}"
                )
        try:
            number = file.fileno()
        except (AttributeError, OSError) as error:
            raise ASGIMessageError(
                f"file must have a file descriptor, but {file!r} has none"
            ) from error
        return self._send_pieces(
            number, offset, count, bool(message.get("more_body", False))
        )

    async def _send_pieces(self, number, offset, count, more):
        """Send a part of a file, from ``offset`` or the file's position."""
        while not self._no_body and count != 0:
            size = PIECE if count is None else min(count, PIECE)
            if offset is None:
                piece = os.read(number, size)
            else:
                piece = os.pread(number, size, offset)
                offset += len(piece)
            if not piece:
                break
            if count is not None:
                count -= len(piece)
            try:
                waiting = self._queue(piece, False)
            except GONE:
                waiting = self._client_is_gone()
            if waiting is not None:
                await waiting
            if self.disconnected:
                return
        if not more:
            if not self._no_body and not self._sends_trailers:
                try:
                    self.http.end(self)
                except GONE:
                    self._client_is_gone()
                    return
            self._body_sent()

    cdef object _push(self, dict message):
        cdef ASGIExchange pushed
        cdef RequestReceived request
        cdef dict scope
        cdef int present = 0

        self._check_announced("http.response.push")
        self._expect("http.response.push", AWAITS_BODY)
        path = required(message, "path")
        if not isinstance(path, str):
            raise ASGIMessageError(f"path must be a str, not {path!r}")
        headers = self._take_headers(message.get("headers", ()), &present)
        if self._pushed or not self.http.push_enabled():
            return None
        stream_id, request = self.http.push(
            self,
            [
                (b":method", b"GET"),
                (b":scheme", self.request.scheme or b"https"),
                (b":authority", self.request.authority or b""),
                (b":path", path.encode()),
                *headers,
            ],
        )
        if stream_id == -1:
            return None
        pushed = (<HTTPApplication>self.application).new_request()
        pushed.http = self.http
        pushed.stream_id = stream_id
        pushed.request = request
        pushed._pushed = True
        pushed._request_ended = True
        self.http.adopt(pushed)
        scope = self.application.scopes.make(HTTP, self.http, request)
        if scope is None:
            self.http.reset(pushed, ErrorCode.INTERNAL_ERROR)
        else:
            pushed.start(scope)
        return None

    # ---- The end ----

    cdef object _refuse(self, int status):
        """Answer without the application."""
        self._ended_here = True
        self._state = COMPLETE
        answer(self, <HTTPApplication>self.application, status)

    cdef object _give_up(self, int status):
        """Answer in place of an application that runs, or reset what it has begun."""
        self._drop_body()
        if self._state == AWAITS_START:
            answer(self, <HTTPApplication>self.application, status)
        else:
            self.http.reset(self, ErrorCode.CANCEL)
        self._ended_here = True
        self.disconnect()

    cdef int application_returned(self) except -1:
        if self._state == COMPLETE or self.disconnected:
            return 0
        self._log_incomplete()
        return self._break_off()

    cdef int application_failed(self, error) except -1:
        if self._state == COMPLETE or self.disconnected:
            return 0
        return self._break_off()

    def _log_incomplete(self):
        logger.error(
            "ASGI application returned %s: %s %s",
            "without a response" if self._state == AWAITS_START
            else "before the end of its response",
            self.request.method.decode("latin-1"),
            self.request.target.decode("ascii", "backslashreplace"),
        )

    cdef int _break_off(self) except -1:
        """Answer 500, or reset a response that has no end."""
        cdef State state = self._state

        self._state = COMPLETE
        self._ended_here = True
        self.complete = True
        self.wake_receivers()
        self._drop_body()
        if state == AWAITS_START:
            answer(self, <HTTPApplication>self.application, 500)
        elif not self._no_body:
            # What is queued goes out first: a reset would drop it.
            self.loop.call_soon(Reset(self))
        elif not self._request_ended:
            self.http.stop_request(self)  # the response is whole without its body
        return 0

    cdef int _close_file(self) except -1:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        return 0

    # ---- The bound of a waiting send() ----

    cdef int _start_stall(self) except -1:
        seconds = self.application.options.response_stall
        if seconds is not None and self._stall is None:
            self._stall_queued = self.http.queued(self)
            self._stall = self.loop.call_later(seconds, Stall(self))
        return 0

    cdef int _stop_stall(self) except -1:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        return 0

    cdef int _check_stall(self) except -1:
        """Reset the response if the client has taken nothing of it."""
        self._stall = None
        if self._state == COMPLETE or self.disconnected:
            return 0
        if self.http.queued(self) < self._stall_queued:
            return self._start_stall()
        self.http.reset(self, ErrorCode.CANCEL)
        return self.disconnect()


cdef class Reset:
    """Resets a response that its application has not ended."""

    cdef ASGIExchange exchange

    def __cinit__(self, ASGIExchange exchange not None):
        self.exchange = exchange

    def __call__(self):
        self.exchange.http.reset(self.exchange, ErrorCode.INTERNAL_ERROR)


cdef class Stall:
    """Checks whether a response that waits has made progress."""

    cdef ASGIExchange exchange

    def __cinit__(self, ASGIExchange exchange not None):
        self.exchange = exchange

    def __call__(self):
        self.exchange._check_stall()


cdef object required(dict message, str key):
    """Return a key of a message that has no default."""
    try:
        return message[key]
    except KeyError:
        raise ASGIMessageError(f"{message['type']} must have {key!r}") from None


cdef bint has_outer_space(bytes value) noexcept:
    """Return whether a value begins or ends with a space or a tab."""
    cdef const char *text = PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)

    return size > 0 and (
        text[0] in (c" ", c"\t") or text[size - 1] in (c" ", c"\t")
    )


cdef bint is_lower(bytes name) noexcept:
    """Return whether a name has no upper-case letters."""
    cdef const char *text = PyBytes_AS_STRING(name)
    cdef Py_ssize_t i

    for i in range(PyBytes_GET_SIZE(name)):
        if c"A" <= text[i] <= c"Z":
            return False
    return True
