# cython: nonecheck=True
"""WebSockets for an ASGI application (ASGI 3.0, WebSocket 2.5), over each version.

The peer gets credit for what was parsed.  Nothing is parsed while enough messages wait
for the application, or while too much is queued for the peer; nor before the
application has accepted.  ``send()`` waits once more than ``QUEUED`` octets are queued.
The end of the stream is looked at after the messages before it.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

from nghttp2py.asgi.application cimport message_type
from nghttp2py.asgi.exchange cimport COMPLETE, QUEUED, ASGIExchange, HTTPApplication
from nghttp2py.exchange cimport GONE
from nghttp2py.h2.events cimport RequestReceived

import os
import sys
from asyncio import CancelledError
from collections import deque

from nghttp2py.asgi.application import logger
from nghttp2py.errors import (
    ASGIMessageError,
    BodyQueueFullError,
    ConfigurationError,
    ErrorCode,
)
from nghttp2py.websocket import (
    Closed,
    MessageReceived,
    PongReceived,
    Refusal,
    WebSocketConnection,
    WebSocketOptions,
    read_handshake,
    shorten_reason,
)

__all__ = ["WebSocketExchange", "new_websocket"]

# Octets that are parsed before the queue's bound is looked at again: a message of 64
# KiB that was read at once is not copied for it.  Compression makes at most a thousand
# times as many of them.
cdef Py_ssize_t SLICE = 131072
cdef Py_ssize_t DEFLATED_SLICE = 4096

#: Seconds that a client has to end its half of a stream after a WebSocket has ended, if
#: it has read all of the other half.
ENDED_TIME = 0.5

cdef str WEBSOCKET = sys.intern("websocket")
cdef str SEND = sys.intern("websocket.send")
cdef str RECEIVE = sys.intern("websocket.receive")
cdef tuple LOST = (1006, "")

# What the server answers itself (RFC 6455, 4.2.2).
cdef set RESERVED = {
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
}
# What the response that begins a tunnel has from its connection, or must not have
# (RFC 9110, 9.3.6).
cdef set DROPPED = {b"connection", b"upgrade", b"content-length"}

cdef object DEFAULT_OPTIONS = WebSocketOptions()

cdef enum Phase:
    CONNECTING  # the application has not answered
    DENYING     # it sends a response instead
    OPEN        # it has accepted; `_end` is set when the WebSocket ends


def new_websocket(HTTPApplication application not None):
    """Return an exchange for a request that asks for a WebSocket."""
    cdef WebSocketExchange exchange = WebSocketExchange.__new__(WebSocketExchange)

    exchange.application = application
    exchange._options = application.options.websocket or DEFAULT_OPTIONS
    return exchange


cdef class WebSocketExchange(ASGIExchange):
    """A WebSocket of an ASGI application."""

    cdef Phase _phase
    cdef object _options
    cdef object _handshake
    cdef object _socket        # the WebSocketConnection, once accepted
    cdef tuple _end            # code and reason for "websocket.disconnect"
    cdef object _messages      # a deque of those that wait for the application
    cdef Py_ssize_t _size      # of those, in octets or characters
    cdef Py_ssize_t _max_messages
    cdef Py_ssize_t _max_size
    cdef Py_ssize_t _slice
    cdef list _held            # received but not parsed: the peer has no credit for it
    cdef list _pending         # output for which the connection's queue has no room
    cdef bint _connect_taken   # the application has "websocket.connect"
    cdef bint _server_closing
    cdef bint _closed_here     # the application has closed or denied
    cdef bint _output_ended
    cdef bint _shook           # the closing handshake is done
    cdef object _timer         # of the next ping, of its pong, or of the close
    cdef bytes _ping           # the data of the ping that was sent last

    # ---- What the connection calls ----

    cdef request_received(self, RequestReceived request):
        cdef HTTPApplication application = <HTTPApplication>self.application
        cdef dict scope

        if application._limit >= 0:
            if len(application.running) >= application._limit:
                return self._refuse(503)
        try:
            handshake = read_handshake(request)
        except ConfigurationError as error:
            logger.error("%s", error)
            return self._refuse(501)
        if isinstance(handshake, Refusal):
            return self._refuse_handshake(handshake)
        scope = application.scopes.make(WEBSOCKET, self.http, request)
        if scope is None:
            return self._refuse(400)
        self._handshake = handshake
        self.start(scope)

    def _refuse_handshake(self, refusal):
        text = refusal.reason.encode() + b"\n"
        headers = [
            *refusal.fields,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
        ]
        (<HTTPApplication>self.application).add_defaults(headers, 0)
        self._ended_here = True
        self._state = COMPLETE
        self.http.send_response(self, refusal.status, headers, False)
        self.http.queue_body(self, text, True)
        self.http.stop_request(self)

    cdef data_received(self, bytes data):
        if self._socket is not None:
            if self._held is None:
                self._parse_all([data])
            else:
                self._held.append(data)
        elif self._phase == CONNECTING and self._state != COMPLETE:
            # A client may send before it is accepted (RFC 8441, 5); the window, which
            # it gets no credit for, bounds that.
            if self._held is None:
                self._held = []
            self._held.append(data)
        else:
            self.http.acknowledge(self, PyBytes_GET_SIZE(data))

    cdef end_received(self):
        self._request_ended = True
        if self._socket is not None:
            if self._held is None:
                self._receive_end()
        elif self._phase == CONNECTING and self._state != COMPLETE:
            # Such as a TCP connection that is closed in the middle of the handshake.
            self._end = LOST
            self._give_up(400)
            self._state = COMPLETE

    cdef writable(self):
        cdef list pending = self._pending

        if pending is not None:
            self._pending = None
            self._queue_output(b"".join(pending))
        if self._pending is None:
            self.wake_senders()
            if self._held is not None and self._socket is not None:
                self._parse_held()

    cdef aborted(self, failure, error_code, bint incoming, bint outgoing):
        if self._phase == DENYING or self._state == COMPLETE:
            return ASGIExchange.aborted(self, failure, error_code, incoming, outgoing)
        if not (incoming and outgoing):
            # As with a TCP connection, half of one is of no use (RFC 8441, 5).
            self.http.reset(self, ErrorCode.CANCEL)
        self._lost()

    cdef closing(self):
        self._server_closing = True
        if self._phase == OPEN and self._end is None:
            self._shut(1012)

    cdef bint is_finished(self, body_bytes_sent) except -1:
        """Return whether the closing handshake is done (RFC 6455, 7.1.4).

        A client need not end its half of a stream then.
        """
        if self._phase != OPEN:
            return ASGIExchange.is_finished(self, body_bytes_sent)
        return self._output_ended and self._shook

    cdef closed(self, failure, error_code, body_bytes_sent):
        self._stop_timer()
        self._output_ended = True
        self._pending = None
        if self._phase != OPEN:
            if self._end is None:
                self._end = LOST
            self._held = None
            ASGIExchange.closed(self, failure, error_code, body_bytes_sent)
            self.wake_receivers()
            return
        self._stop_stall()
        self._lost()
        self.watch_task()

    # ---- From the peer ----

    cdef bint _is_full(self) except -1:
        """Return whether nothing may be parsed now."""
        if self._end is not None:
            return False  # what comes is dropped
        if len(self._messages) >= self._max_messages or self._size >= self._max_size:
            return True
        if self._pending is not None:
            return True
        try:
            # Pongs must not become many while the peer does not read.
            return not self.http.notify_writable(self, 2 * QUEUED)
        except GONE:
            return False

    cdef int _parse_held(self) except -1:
        """Parse what was held back, and the end of the stream after it."""
        held, self._held = self._held, None
        if held is not None:
            self._parse_all(held)
        if self._request_ended and self._held is None:
            self._receive_end()
        return 0

    cdef int _parse_all(self, list pieces) except -1:
        """Parse pieces of the stream, as far as there is room for their messages."""
        cdef Py_ssize_t parsed = 0
        cdef Py_ssize_t at, size
        cdef Py_ssize_t number
        cdef bytes data, piece

        for number in range(len(pieces)):
            data = pieces[number]
            size = PyBytes_GET_SIZE(data)
            at = 0
            # After the end messages are dropped.
            while at < size and (self._end is not None or not self._is_full()):
                piece = data
                if size > self._slice:
                    piece = data[at : at + max(self._slice, self._socket.missing)]
                at += PyBytes_GET_SIZE(piece)
                self._handle(self._socket.receive_data(piece))
            parsed += at
            if at < size:
                self._held = [data[at:] if at else data, *pieces[number + 1 :]]
                break
        if parsed:
            self.http.acknowledge(self, parsed)
            self._flush()
        return 0

    cdef int _receive_end(self) except -1:
        if self._messages and self._end is None:
            # A client that has closed its half may read what the application answers.
            return 0
        self._handle(self._socket.receive_eof())
        self._flush()
        return 0

    cdef int _handle(self, list events) except -1:
        for event in events:
            kind = type(event)
            if kind is MessageReceived:
                if self._end is None:
                    data = event.data
                    self._messages.append(data)
                    self._size += len(data)
                    self.wake_receivers()
            elif kind is PongReceived:
                if self._ping is not None and event.data == self._ping:
                    self._ping = None
                    self._stop_timer()
                    self._start_pings()
            elif kind is Closed:
                self._shook = event.remote
                self._finish_socket(event.code, event.reason)
        return 0

    cdef int _finish_socket(self, code, reason) except -1:
        """Handle that the peer sends nothing more, or that it has failed."""
        if self._end is None:
            self._end = code, reason
        self._await_end()
        return self.disconnect()

    cdef int _lost(self) except -1:
        """Handle that the stream has broken off."""
        self._stop_timer()
        self._held = None
        self._output_ended = True
        self._pending = None
        if self._end is None:
            self._end = LOST
        self.disconnect()
        self.wake_receivers()
        return 0

    # ---- receive() ----

    cdef object take_message(self):
        if not self._connect_taken:
            self._connect_taken = True
            return {"type": "websocket.connect"}
        if self._messages:
            data = self._messages.popleft()
            self._size -= len(data)
            if self._held is not None:
                self._parse_held()
            if self._end is not None:
                self._extend_grace()
            if type(data) is str:
                return {"type": RECEIVE, "text": data}
            return {"type": RECEIVE, "bytes": data}
        if self._request_ended and self._socket is not None and self._held is None:
            self._receive_end()
        if self._end is not None or self.disconnected or self._state == COMPLETE:
            # It knows: there is no need to cancel it.
            self.finish_response()
            code, reason = self._end or LOST
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        return None

    cdef int about_to_wait(self) except -1:
        return 0

    cdef int _extend_grace(self) except -1:
        """Begin the grace anew: the application still takes messages."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
            self.disconnected = False
            self.disconnect()
        return 0

    # ---- send() ----

    cdef object send_message(self, message):
        cdef str kind = message_type(message)

        try:
            if kind == SEND and self._phase == OPEN and self._end is None:
                self._socket.send_message(take_data(message))
                self._flush()
                return self._wait_if_full()
            return self._send_rest(kind, message)
        except GONE:
            return self._client_is_gone()

    cdef object _wait_if_full(self):
        if self._pending is None and self._has_room():
            return None
        return self._wait_for_room()

    cdef object _send_rest(self, str kind, message):
        """Handle a message but the usual one."""
        if kind == "websocket.http.response.start":
            known = self._phase == CONNECTING
        elif kind == "websocket.http.response.body":
            known = self._phase == DENYING
        elif kind == "websocket.accept":
            known = self._phase == CONNECTING
        elif kind == SEND:
            known = self._phase == OPEN
        elif kind == "websocket.close":
            known = self._phase != DENYING
        else:
            raise ASGIMessageError(f"the type {kind!r} is not one of a WebSocket")
        if self._closed_here:
            raise ASGIMessageError(
                f"{kind} was sent, but the application has closed the WebSocket"
            )
        if self._end is not None or self.disconnected:
            return self.refuse_send()
        if not known:
            raise ASGIMessageError(
                f"{kind} was sent, but the WebSocket "
                + (
                    "is not accepted yet",
                    "is denied: websocket.http.response.body comes next",
                    "is accepted already",
                )[<int>self._phase]
            )
        if kind == "websocket.accept":
            return self._accept(message)
        if kind == "websocket.close":
            return self._close(message)
        self._check_announced("websocket.http.response")
        if kind == "websocket.http.response.start":
            return self._deny(message)
        waiting = self._send_body(message)
        if self._state == COMPLETE:
            self._closed_here = True
        return waiting

    cdef object _accept(self, message):
        cdef HTTPApplication application = <HTTPApplication>self.application
        cdef int present = 0
        cdef list headers

        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise ASGIMessageError(f"subprotocol must be a str, not {subprotocol!r}")
        headers = self._take_headers(message.get("headers") or (), &present)
        for name, _ in headers:
            if name in RESERVED:
                raise ASGIMessageError(
                    f"headers has {name!r}, which the server sends; the subprotocol "
                    "has a key of its own"
                )
        try:
            accepted = self._handshake.accept(subprotocol, self._options)
        except ValueError as error:
            raise ASGIMessageError(str(error)) from None
        headers = [pair for pair in headers if pair[0] not in DROPPED]
        application.add_defaults(headers, present)
        self.http.accept_tunnel(self, [*accepted.fields, *headers])
        self._socket = WebSocketConnection(
            self._options, extensions=accepted.extensions
        )
        self._phase = OPEN
        self._messages = deque()
        self._max_messages = self._options.max_queue
        self._max_size = self._options.max_queue_bytes
        self._slice = DEFLATED_SLICE if accepted.extensions else SLICE
        self._start_pings()
        self._parse_held()
        if self._server_closing and self._end is None:
            self._shut(1012)
        return None

    cdef object _close(self, message):
        code = message.get("code")
        reason = message.get("reason")
        if self._phase == CONNECTING:
            self._end = LOST
            self._closed_here = True
            self._refuse(403)
            self._drop_held()
            self.finish_response()
            return None
        code = 1000 if code is None else code
        reason = "" if reason is None else reason
        if not isinstance(reason, str):
            raise ASGIMessageError(f"reason must be a str, not {reason!r}")
        self._close_socket(code, shorten_reason(reason))
        self._closed_here = True
        self.finish_response()
        return None

    cdef int _close_socket(self, code, reason) except -1:
        """Begin the closing handshake, and drop what the application has not taken."""
        try:
            self._socket.close(code, reason)
        except ValueError as error:
            raise ASGIMessageError(str(error)) from None
        self._end = code, reason
        self._messages.clear()
        self._size = 0
        self._await_end()
        self._flush()
        self._parse_held()
        return 0

    cdef object _deny(self, message):
        status = message.get("status")
        if self.request.method == b"CONNECT" and isinstance(status, int):
            if 200 <= status <= 299:
                raise ASGIMessageError(
                    f"status is {status}, but any 2xx accepts a WebSocket over "
                    f"{self.http.version} (RFC 8441, 4)"
                )
        self._send_start(message)
        self._phase = DENYING
        self._drop_held()
        if self._no_body:
            self._closed_here = True
        return None

    cdef int _drop_held(self) except -1:
        held, self._held = self._held, None
        if held is not None:
            self.http.acknowledge(self, sum(map(len, held)))
        return 0

    # ---- To the peer ----

    cdef int _flush(self) except -1:
        """Queue what the WebSocket has for the peer."""
        data = self._socket.data_to_send()
        if self._pending is not None:
            if data:
                self._pending.append(data)
        elif data or (self._socket.output_ended and not self._output_ended):
            self._queue_output(data)
        return 0

    cdef int _queue_output(self, data) except -1:
        cdef bint end = self._socket.output_ended

        if self._output_ended:
            return 0
        try:
            self.http.queue_body(self, data, end)
            self._output_ended = end
            if end and not self._request_ended:
                self._stop_timer()
                self._timer = self.loop.call_later(
                    min(ENDED_TIME, self._options.close_timeout), self._miss_half
                )
        except BodyQueueFullError:
            self._pending = [data]
            if self.http.notify_writable(self, 0):
                self.http.flush_soon()
        except GONE:
            self._output_ended = True  # the event that reports it comes next
        return 0

    cdef int _shut(self, code) except -1:
        """Close the WebSocket instead of the application."""
        self._socket.close(code)
        self._end = code, ""
        self._await_end()
        self._flush()
        self._parse_held()  # the peer's close comes behind it
        return self.disconnect()

    # ---- Timers ----

    cdef int _stop_timer(self) except -1:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return 0

    cdef int _start_pings(self) except -1:
        if self._options.ping_interval is not None and self._end is None:
            self._timer = self.loop.call_later(
                self._options.ping_interval, self._send_ping
            )
        return 0

    def _send_ping(self):
        self._timer = None
        if not self._socket.is_open:
            return
        self._ping = os.urandom(4)
        self._socket.send_ping(self._ping)
        self._flush()
        if self._options.ping_timeout is None:
            self._start_pings()
        else:
            self._await_pong()

    def _await_pong(self):
        self._timer = self.loop.call_later(self._options.ping_timeout, self._miss_pong)

    def _miss_pong(self):
        self._timer = None
        if self._held is not None:
            # The pong may be behind messages that the application leaves unread.
            return self._await_pong()
        self._socket.fail(1011, "keepalive ping timeout")
        self._finish_socket(1011, "keepalive ping timeout")
        self._flush()

    cdef int _await_end(self) except -1:
        """Bound the time in which the peer ends its half."""
        self._stop_timer()
        self._timer = self.loop.call_later(self._options.close_timeout, self._miss_end)
        return 0

    def _miss_half(self):
        """End the client's half, too: it may wait for the server (RFC 6455, 7.1.1)."""
        self._timer = None
        if self.http.queued(self):
            self._await_end()
        else:
            self._miss_end()

    def _miss_end(self):
        self._timer = None
        self.http.reset(self, ErrorCode.CANCEL)

    # ---- The end of the application ----

    cdef int application_returned(self) except -1:
        if self._phase == DENYING:
            return ASGIExchange.application_returned(self)
        if self._end is not None or self.disconnected or self._state == COMPLETE:
            return self._forget_messages()
        if self._phase == OPEN:
            return self._close_socket(1000, "")
        logger.error(
            "ASGI application returned without accepting or closing a WebSocket: %s",
            self.request.target.decode("ascii", "backslashreplace"),
        )
        self._drop_held()
        return self._break_off()

    cdef int application_failed(self, error) except -1:
        if self._phase == DENYING:
            return ASGIExchange.application_failed(self, error)
        if self._end is not None or self.disconnected or self._state == COMPLETE:
            return self._forget_messages()
        if self._phase == OPEN:
            stopped = self._server_closing and isinstance(error, CancelledError)
            return self._close_socket(1012 if stopped else 1011, "")
        self._drop_held()
        return self._break_off()

    cdef int _forget_messages(self) except -1:
        """Drop what the application has not taken."""
        if self._messages is not None:
            self._messages.clear()
        if self._socket is not None:
            self._parse_held()
        return 0


cdef object take_data(message):
    """Return the text or the bytes of "websocket.send", of which there is one."""
    text = message.get("text")
    data = message.get("bytes")
    if (text is None) == (data is None):
        raise ASGIMessageError(
            "websocket.send must have either text or bytes, not "
            + ("both" if data is not None else "none")
        )
    if data is None:
        if not isinstance(text, str):
            raise ASGIMessageError(f"text must be a str, not {type(text).__name__}")
        return text
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ASGIMessageError(f"bytes must be bytes, not {type(data).__name__}")
    return data
