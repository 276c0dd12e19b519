"""One end of an HTTP/2 connection (RFC 9113), without I/O.

``receive_data`` takes bytes of the peer and returns events; calls queue;
``data_to_send`` returns the bytes for the peer.  There is no clock, no socket and no
event loop here.

An error of the peer is an event, and the answer to it is in ``data_to_send``.  A
mistake of the caller raises an exception of ``nghttp2py.errors``.

One connection is driven by one thread at a time; connections are independent
of each other.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF
from libc.stddef cimport size_t
from libc.stdint cimport SIZE_MAX, int32_t, uint8_t, uint32_t

from nghttp2py cimport cngp as lib, cngp_pool
from nghttp2py.h2.bodies cimport new_sources
from nghttp2py.h2.convert cimport (
    MAX_SETTINGS,
    MAX_WINDOW,
    EventReader,
    FieldList,
    as_bytes,
    borrow_fields,
    check,
    check_message,
    check_settings,
    decode_settings,
    describe_counters,
    fill_options,
    join_output,
    list_output,
    pack_settings,
    read_session_settings,
    request_fields,
    status_text,
    to_stream_id,
    to_uint32,
    write_settings,
)
from nghttp2py.octets cimport hold_items

import base64

from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    FlowControlError,
    InvalidSettingsValueError,
    NoSuchStreamError,
    ProtocolError,
    PushDisabledError,
    RequestQueueFullError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2.body import is_bytes_like, make_source
from nghttp2py.h2.config import H2Configuration, Setting, check_config

__all__ = ["H2Connection", "is_h2_available"]


def is_h2_available():
    """Return True: HTTP/2 is always there."""
    return True


cdef class H2Connection:
    """One end of an HTTP/2 connection, which converts bytes to events and calls to
    bytes.

    ``client_side`` chooses the end; ``config`` is an ``H2Configuration``.
    ``initiate_connection`` must be called first.  Methods with a stream identifier
    raise ``NoSuchStreamError`` if there never was such a stream, and
    ``StreamClosedError`` if it, or our half of it, is closed; ``ConnectionClosedError``
    if the connection is.  All may be called at any time, except that a body's source
    must not call ``receive_data`` or ``data_to_send``.
    """

    def __cinit__(self, *, bint client_side=False, config=None):
        cdef lib.ngp_h2_options options

        if config is None:
            config = H2Configuration()
        check_config(config)
        self.config = config
        self.client_side = client_side
        self._max_queued_requests = config.max_queued_requests
        self._normalizes = config.normalize_outbound_headers
        fill_options(&options, config, client_side)
        check(lib.ngp_h2_new(&self._h2, &options, cngp_pool.ngp_mem_default()))
        self._pending = []
        self._bodies = new_sources(self._h2)
        self.read_by(EventReader)

    def __dealloc__(self):
        if self._h2 != NULL:
            lib.ngp_h2_abandon_bodies(self._h2)
            self._release_owners()
            lib.ngp_h2_del(self._h2)

    cdef EventReader read_by(self, type reader):
        """Have a new instance of ``reader`` take what C records from now on."""
        self._reader = reader(
            self._bodies.sources, self.config.lenient_inbound_headers
        )
        return self._reader

    # ---- Bytes in ----

    def initiate_connection(self):
        """Queue the preface: for a client its magic, for both SETTINGS (3.4).

        Raises ``ProtocolError`` if it was done before.
        """
        if self._initiated:
            raise ProtocolError("initiate_connection() was called before")
        self._start()

    cdef int _start(self) except -1:
        self._initiated = True
        self._submit_settings(self.config.settings(self.client_side))
        return self._widen()

    cdef int _widen(self) except -1:
        if self.config.connection_window_size > 65535:
            check(
                lib.ngp_h2_set_local_window_size(
                    self._h2, 0, self.config.connection_window_size
                )
            )
        return 0

    cdef int _enter(self) except -1:
        """Begin to read what C has recorded; raise if that is being done already."""
        if self._busy:
            raise ProtocolError(
                "receive_data() and data_to_send() must not be called from within "
                "themselves"
            )
        self._busy = True
        return 0

    def receive_data(self, data not None):
        """Handle bytes of the peer; return the list of events that they cause.

        ``data`` is any bytes-like object, cut anywhere.  Events that sending has
        produced since come first.  After the end of the connection the bytes are
        ignored.  Errors of the peer raise nothing.

        A frame has at least 9 bytes, so the caller can bound the number of events by
        the number of bytes that it passes at once.
        """
        cdef Py_buffer view

        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.receive(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef list receive(self, const uint8_t *base, size_t left):
        """Do the same with bytes that stay in place meanwhile."""
        cdef size_t consumed = 0
        cdef list events = self._pending

        self._need_start()
        self._enter()
        self._reader.receiving = True
        try:
            self._pending = []
            while left and lib.ngp_h2_alive(self._h2):
                check(lib.ngp_h2_recv(self._h2, base, left, &consumed))
                self._reader.take(self._h2, events)
                base += consumed
                left -= consumed
            self._release_owners()
            return events
        finally:
            self._busy = self._reader.receiving = False

    def receive_eof(self, uint32_t error_code=ErrorCode.INTERNAL_ERROR):
        """Report that the transport is lost; return the events that close everything.

        Open streams are closed with ``error_code``.
        """
        cdef list events

        self._need_start()
        self._enter()
        try:
            events = self._pending
            self._pending = []
            check(lib.ngp_h2_recv_eof(self._h2, error_code))
            self._reader.take(self._h2, events)
            self._release_owners()
            return events
        finally:
            self._busy = False

    def pending_events(self):
        """Return the events that sending has produced, and forget them."""
        events, self._pending = self._pending, []
        return events

    # ---- Bytes out ----

    def data_to_send(self, limit=None):
        """Return the bytes for the peer; empty if there are none.

        Before ``initiate_connection`` there are none.

        With ``limit``, gathering stops after the frame that reaches it, and
        what is left comes with the next call.
        """
        return self.take_output(SIZE_MAX if limit is None else limit)

    cdef bytes take_output(self, size_t limit):
        """Do the same, without the conversion."""
        if not self._initiated:
            return b""
        self._enter()
        try:
            # By reference, so that large bodies are copied once.
            self._gather(limit)
            return join_output(self._h2)
        finally:
            self._busy = False
            self._release_owners()

    def data_to_send_vectored(self, limit=None):
        """Return the bytes for the peer as a list of bytes and memoryviews.

        Large bodies given as bytes are not copied: the views point into them.
        It suits ``writelines`` and ``sendmsg``.
        """
        if not self._initiated:
            return []
        self._enter()
        try:
            self._gather(SIZE_MAX if limit is None else limit)
            return list_output(self._h2)
        finally:
            self._busy = False
            self._release_owners()

    def time_passed(self, seconds):
        """Report that ``seconds`` more have passed: there is no clock here.

        This allows more frames without effect (``max_glitches`` of
        ``H2Configuration``), so that keep-alive does not end an idle connection.
        """
        lib.ngp_h2_time_passed(self._h2, to_uint32(seconds, "seconds"))

    @property
    def hold_resets(self):
        """Whether resets that follow a response wait for ``release_resets``.

        A client that reads a complete response and RST_STREAM at once may lose the
        response, as old releases of curl do.  So such a reset (see ``reset_stream``) is
        not in the same output as the end that it follows. By default it comes with the
        next call of ``data_to_send``.  A caller that has a clock sets this, and calls
        ``release_resets`` some milliseconds later, and as often as any are held.
        """
        return self._hold_resets

    @hold_resets.setter
    def hold_resets(self, bint value):
        self._hold_resets = value
        lib.ngp_h2_hold_resets(self._h2, value)

    @property
    def held_resets(self):
        """How many resets wait: see ``hold_resets``."""
        return lib.ngp_h2_held_resets(self._h2)

    def release_resets(self):
        """Queue the resets that waited already at the previous call.

        So each waits for at least the time between two calls: see ``hold_resets``.
        """
        check(lib.ngp_h2_release_resets(self._h2, 0))

    cdef int _gather(self, size_t limit) except -1:
        cdef:
            int32_t stream_id = 0
            size_t wanted = 0
            bint fed = True

        while fed:
            check(lib.ngp_h2_send(self._h2, limit, 1))
            self._reader.take(self._h2, self._pending)
            fed = False
            while lib.ngp_h2_take_wanted(self._h2, &stream_id, &wanted):
                fed = (
                    self._bodies.feed(stream_id, wanted, self._reader, self._pending)
                    or fed
                )
        return 0

    cdef int _release_owners(self) except -1:
        cdef void *owner = lib.ngp_h2_take_owner(self._h2)

        while owner != NULL:
            Py_DECREF(<object>owner)
            owner = lib.ngp_h2_take_owner(self._h2)
        return 0

    # ---- Receive flow control (RFC 9113, 5.2) ----

    def acknowledge_received_data(self, n, stream_id):
        """Give the peer credit for ``n`` bytes of body that were consumed.

        Only under ``config.manual_flow_control``.  Bytes of a closed stream are
        ignored: its unread bytes went back to the connection's window when it closed.
        So are those of a connection that has ended.  Raises ``FlowControlError`` for
        more bytes than were received.
        """
        if not self.config.manual_flow_control:
            raise ProtocolError("received data are acknowledged automatically")
        self.acknowledge(to_stream_id(stream_id), n)

    cdef int acknowledge(self, int32_t stream_id, n) except -1:
        """Do the same, without the conversions."""
        cdef int rv = lib.ngp_h2_consume(self._h2, stream_id, to_uint32(n, "n"))

        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise FlowControlError(
                f"stream {stream_id}: {n} bytes acknowledged, but only "
                f"{lib.ngp_h2_unacked(self._h2, stream_id)} are unacknowledged"
            )
        if rv == lib.NGP_ERR_CONNECTION_CLOSED and self._initiated:
            return 0
        return check(rv, stream_id)

    def unacknowledged_data(self, stream_id):
        """Return the bytes received on a stream and not acknowledged."""
        return lib.ngp_h2_unacked(self._h2, to_stream_id(stream_id))

    def local_flow_control_window(self, stream_id):
        """Return how many bytes ``send_data`` would accept now on a stream.

        That is the lesser of the stream's and the connection's window, less
        what is queued; 0 for a closed stream.
        """
        cdef int32_t id = to_stream_id(stream_id)

        self._known(id)
        return lib.ngp_h2_sendable(self._h2, id)

    def remote_flow_control_window(self, stream_id=0):
        """Return how many bytes the peer may send on a stream, or on the connection
        (0)."""
        cdef lib.nghttp2_session *session = lib.ngp_h2_session(self._h2)
        cdef int32_t window = lib.nghttp2_session_get_local_window_size(session)
        cdef int32_t id

        if stream_id == 0:
            return window
        id = to_stream_id(stream_id)
        self._known(id)
        return max(
            0,
            min(window, lib.nghttp2_session_get_stream_local_window_size(session, id)),
        )

    def increment_flow_control_window(self, increment, stream_id=None):
        """Queue WINDOW_UPDATE: the peer may send ``increment`` bytes more.

        Raises ``FlowControlError`` past 2**31-1 (RFC 9113, 6.9.1).
        """
        cdef int32_t id = 0 if stream_id is None else to_stream_id(stream_id)
        cdef uint32_t n = to_uint32(increment, "increment")

        self._need_start()
        if not 0 < n <= MAX_WINDOW:
            raise FlowControlError(
                f"increment is {n}, but must be from 1 to {MAX_WINDOW} (RFC 9113, 6.9)"
            )
        if id:
            self._known(id)
        check(lib.ngp_h2_submit_window_update(self._h2, id, n), stream_id)

    def set_local_window_size(self, size, stream_id=None):
        """Set the window that the peer has on a stream, or on the connection."""
        cdef int32_t id = 0 if stream_id is None else to_stream_id(stream_id)
        cdef uint32_t n = to_uint32(size, "size")

        self._need_start()
        if n > MAX_WINDOW:
            raise FlowControlError(
                f"size is {n}, but must be at most {MAX_WINDOW} (RFC 9113, 6.9.1)"
            )
        check(lib.ngp_h2_set_local_window_size(self._h2, id, n), stream_id)

    cdef int _known(self, int32_t stream_id) except -1:
        cdef uint32_t flags = 0

        if lib.ngp_h2_stream_get(self._h2, stream_id, &flags) == lib.NGP_H2_STATE_IDLE:
            raise NoSuchStreamError(f"there is no stream {stream_id}", stream_id)
        return flags

    # ---- The connection ----

    cdef int _need_start(self) except -1:
        if not self._initiated:
            raise ProtocolError("initiate_connection() must be called first")
        return 0

    @property
    def want_read(self):
        """Whether input is still expected."""
        return lib.ngp_h2_want_read(self._h2)

    @property
    def want_write(self):
        """Whether ``data_to_send`` may return bytes."""
        return lib.ngp_h2_want_write(self._h2)

    @property
    def is_closed(self):
        """Whether GOAWAY was sent or received, or the connection has ended."""
        return self._goaway_sent or self._reader.going_away

    @property
    def incomplete_frame(self):
        """A number other than 0 while a frame or header block is incomplete.

        It differs for each of them, so that a caller with a clock can bound the time
        until the rest arrives.  The payload of DATA does not count: see ``check_pace``.
        """
        return lib.ngp_h2_mid_frame(self._h2)

    def check_pace(
        self, now, *, body=None, response=None, min_rate=240.0, reset=True
    ):
        """Check for bodies that the peer does not send or receive fast enough.

        ``now`` is in seconds of a monotonic clock; call this at least four times within
        the shorter of the bounds.  A request without a response is too slow if for
        ``body`` seconds it brings less than ``min_rate`` bytes a second; time in which
        credit is withheld, and tunnels, do not count.  Where the peer's windows block
        bodies, the peer is too slow if it accepts less than that for ``response``
        seconds.  ``None`` means no bound.

        Returns a tuple: how many streams are too slow, which are reset with CANCEL
        unless ``reset`` is false; whether the connection's window is too slow for all;
        and whether there is any body to check again.
        """
        cdef lib.ngp_h2_bounds bounds
        cdef lib.ngp_h2_pace pace

        bounds.body = body or 0
        bounds.response = response or 0
        bounds.min_rate = min_rate
        check(
            lib.ngp_h2_check_pace(self._h2, now, &bounds, bool(reset), &pace)
        )
        if pace.slow and reset:
            self._reader.take(self._h2, self._pending)
        return pace.slow, pace.stalled, pace.watched

    def close_connection(
        self, error_code=ErrorCode.NO_ERROR, additional_data=None, last_stream_id=None
    ):
        """Queue GOAWAY (RFC 9113, 6.8): no new streams; open ones may finish.

        ``last_stream_id`` is by default the last that the peer has opened. This is a
        no-op on a connection that has ended, and if it repeats a GOAWAY.
        """
        try:
            self.send_goaway(last_stream_id, error_code, additional_data or b"")
        except ConnectionClosedError:
            pass

    def send_goaway(
        self, last_stream_id=None, error_code=ErrorCode.NO_ERROR, debug_data=b""
    ):
        """Queue GOAWAY; streams of the peer past ``last_stream_id`` are refused.

        A later one may lower the identifier, never raise it.
        """
        cdef bytes debug = as_bytes(debug_data)
        cdef int32_t last = -1

        if last_stream_id is not None and last_stream_id != 0:
            last = to_stream_id(last_stream_id)
        elif last_stream_id == 0:
            last = 0
        self._need_start()
        check(
            lib.ngp_h2_submit_goaway(
                self._h2, last, to_uint32(error_code, "error_code"),
                <const uint8_t *>PyBytes_AS_STRING(debug), PyBytes_GET_SIZE(debug),
            )
        )
        self._goaway_sent = True

    def shutdown_notice(self):
        """Queue the server's warning before GOAWAY (RFC 9113, 6.8).

        At least a round trip later ``close_connection`` ends it without losing a
        request in flight.  This is a no-op on a connection that has ended.
        """
        if self.client_side:
            raise ProtocolError("the shutdown notice is the server's (RFC 9113, 6.8)")
        self._need_start()
        self._check_end(lib.ngp_h2_submit_shutdown_notice(self._h2))

    def terminate(self, error_code=ErrorCode.NO_ERROR):
        """Queue GOAWAY, and nothing after it: open streams are dropped.

        What was queued before goes out first.  From then on calls that would send a
        frame raise ``ConnectionClosedError``, except those on open streams. This is a
        no-op on a connection that has ended.
        """
        self._need_start()
        self._check_end(
            lib.ngp_h2_terminate(self._h2, to_uint32(error_code, "error_code"))
        )

    cdef int _check_end(self, int rv) except -1:
        """Check the result of a call that ends the connection, if it has not."""
        if rv != lib.NGP_ERR_CONNECTION_CLOSED:
            check(rv)
        self._goaway_sent = True
        return 0

    def ping(self, opaque_data=b"\0" * 8):
        """Queue PING with 8 bytes (RFC 9113, 6.7)."""
        self._submit_ping(opaque_data, False)

    def acknowledge_ping(self, opaque_data):
        """Answer a PING; only without ``config.automatic_ping_ack``."""
        if self.config.automatic_ping_ack:
            raise ProtocolError("PINGs are answered automatically")
        self._submit_ping(opaque_data, True)

    cdef int _submit_ping(self, opaque_data, bint ack) except -1:
        cdef bytes data = as_bytes(opaque_data)

        self._need_start()
        if len(data) != 8:
            raise ValueError(f"PING carries 8 bytes, not {len(data)} (RFC 9113, 6.7)")
        return check(
            lib.ngp_h2_submit_ping(
                self._h2, <const uint8_t *>PyBytes_AS_STRING(data), ack
            )
        )

    def update_settings(self, settings):
        """Queue SETTINGS: a mapping of ``Setting`` to value (RFC 9113, 6.5).

        They apply when ``H2SettingsAcknowledged`` comes.  Raises
        ``InvalidSettingsValueError``.
        """
        self._need_start()
        self._submit_settings({int(key): value for key, value in settings.items()})

    cdef int _submit_settings(self, dict settings) except -1:
        cdef lib.nghttp2_settings_entry entries[MAX_SETTINGS]
        cdef size_t n = write_settings(settings, entries)
        cdef int rv

        check_settings(settings, self.client_side, self._connect_enabled)
        rv = lib.ngp_h2_submit_settings(self._h2, entries, n)
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise InvalidSettingsValueError(
                f"{settings}: a value is out of range (RFC 9113, 6.5.2)", code=rv
            )
        check(rv)
        self._reader.settings_sent.append(settings)
        if settings.get(int(Setting.ENABLE_CONNECT_PROTOCOL)):
            self._connect_enabled = True
        return 0

    @property
    def settings_unacknowledged(self):
        """How many of our SETTINGS frames the peer has not acknowledged."""
        return len(self._reader.settings_sent)

    cdef uint32_t _remote(self, int setting):
        return lib.nghttp2_session_get_remote_settings(
            lib.ngp_h2_session(self._h2), <lib.nghttp2_settings_id>setting
        )

    @property
    def remote_settings(self):
        """The peer's settings in force: ``Setting`` to value."""
        return read_session_settings(self._h2, False)

    @property
    def local_settings(self):
        """Our settings that the peer has acknowledged: ``Setting`` to value."""
        return read_session_settings(self._h2, True)

    @property
    def max_outbound_frame_size(self):
        """The largest frame payload that the peer accepts."""
        return self._remote(Setting.MAX_FRAME_SIZE)

    def initiate_upgrade_connection(self, settings_header=None, *, head_request=False):
        """Begin after an HTTP/1.1 Upgrade to ``h2c`` (RFC 7540, 3.2).

        A client passes nothing, and this returns the value of its HTTP2-Settings field;
        its request is stream 1.  A server passes that field's value, and answers stream
        1. ``head_request`` is true if the request was HEAD. Raises ``ProtocolError``
        for a value that does not decode.
        """
        cdef bytes data
        cdef int rv

        if self._initiated:
            raise ProtocolError("initiate_connection() was called before")
        if self.client_side:
            data = pack_settings(self.config.settings(True))
        else:
            data = decode_settings(settings_header)
        rv = lib.ngp_h2_upgrade(
            self._h2, <const uint8_t *>PyBytes_AS_STRING(data),
            PyBytes_GET_SIZE(data), bool(head_request),
        )
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise ProtocolError(
                f"HTTP2-Settings {settings_header!r} holds no valid settings "
                "(RFC 7540, 3.2.1)", code=rv,
            )
        check(rv)
        if self.client_side:
            # The C library has these settings now, and sends them itself.
            self._initiated = True
            self._reader.settings_sent.append(self.config.settings(True))
            self._widen()
            return base64.urlsafe_b64encode(data).rstrip(b"=")
        self._start()
        return None

    # ---- Priorities (RFC 9218) and extensions ----

    def send_priority_update(self, stream_id, priority):
        """Queue PRIORITY_UPDATE for a request; ``priority`` is a field value.

        It goes out only if the server has sent NO_RFC7540_PRIORITIES.
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef bytes value = as_bytes(priority)

        if not self.client_side:
            raise ProtocolError("PRIORITY_UPDATE is the client's (RFC 9218, 7.1)")
        self._need_start()
        check(
            lib.ngp_h2_submit_priority_update(
                self._h2, id, <const uint8_t *>PyBytes_AS_STRING(value),
                PyBytes_GET_SIZE(value),
            ),
            id,
        )

    def set_priority(self, stream_id, urgency=3, incremental=False, *, override=False):
        """Set how a stream of ours is scheduled (RFC 9218, 8).

        ``urgency`` is from 0, the most urgent, to 7.  With ``override``, later signals
        of the client are ignored.
        """
        cdef int32_t id = to_stream_id(stream_id)

        self._server_stream(id)
        if to_uint32(urgency, "urgency") > 7:
            raise ValueError(f"urgency is {urgency}, but must be from 0 to 7")
        check(
            lib.ngp_h2_set_priority(
                self._h2, id, urgency, bool(incremental), bool(override)
            ),
            id,
        )

    def get_priority(self, stream_id):
        """Return ``(urgency, incremental)`` of a stream.

        Raises ``ProtocolError`` if the C library does not support it (before 1.59).
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef uint32_t urgency = 0
        cdef int incremental = 0

        self._server_stream(id)
        check(lib.ngp_h2_get_priority(self._h2, id, &urgency, &incremental), id)
        return urgency, bool(incremental)

    cdef int _server_stream(self, int32_t stream_id) except -1:
        if self.client_side:
            raise ProtocolError("only a server schedules by priority (RFC 9218)")
        self._known(stream_id)
        if not self.is_open(stream_id):
            raise StreamClosedError(f"stream {stream_id} is closed", stream_id)
        return 0

    def advertise_alternative_service(self, field_value, origin=None, stream_id=None):
        """Queue ALTSVC for an ``origin``, or for that of a stream (RFC 7838, 4)."""
        cdef bytes value = as_bytes(field_value)
        cdef bytes source = b"" if origin is None else as_bytes(origin)
        cdef int32_t id = 0 if stream_id is None else to_stream_id(stream_id)

        if self.client_side:
            raise ProtocolError("ALTSVC is the server's (RFC 7838, 4)")
        self._need_start()
        if bool(source) == bool(id):
            raise ValueError("give either an origin or a stream_id (RFC 7838, 4)")
        check(
            lib.ngp_h2_submit_altsvc(
                self._h2, id, <const uint8_t *>PyBytes_AS_STRING(source),
                PyBytes_GET_SIZE(source), <const uint8_t *>PyBytes_AS_STRING(value),
                PyBytes_GET_SIZE(value),
            ),
            stream_id,
        )

    def send_origins(self, origins):
        """Queue ORIGIN with the origins that we are authoritative for (RFC 8336)."""
        cdef lib.nghttp2_origin_entry entries[64]
        cdef list values = [as_bytes(origin) for origin in origins]
        cdef bytes value
        cdef size_t n = 0

        if self.client_side:
            raise ProtocolError("ORIGIN is the server's (RFC 8336, 2)")
        self._need_start()
        if len(values) > 64:
            raise ValueError(f"at most 64 origins fit one frame, not {len(values)}")
        for value in values:
            entries[n].origin = <uint8_t *>PyBytes_AS_STRING(value)
            entries[n].origin_len = PyBytes_GET_SIZE(value)
            n += 1
        check(lib.ngp_h2_submit_origin(self._h2, entries, n))

    def send_extension_frame(self, frame_type, flags, stream_id, payload):
        """Queue a frame of a type above 0x9 (RFC 9113, 5.5).

        ``payload`` is at most 16384 bytes; ``stream_id`` may be 0.
        """
        cdef bytes data = as_bytes(payload)
        cdef int32_t id = 0 if stream_id == 0 else to_stream_id(stream_id)

        for name, value in (("frame_type", frame_type), ("flags", flags)):
            if to_uint32(value, name) > 255:
                raise ValueError(f"{name} is {value}, but must be at most 255")
        if frame_type <= 9 or len(data) > 16384:
            raise ValueError(
                f"frame_type is {frame_type} with {len(data)} bytes, but must be past "
                "9 with at most 16384 (RFC 9113, 5.5)"
            )
        self._need_start()
        check(
            lib.ngp_h2_submit_extension(
                self._h2, frame_type, flags, id,
                <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
            ),
            id,
        )

    # ---- Sending messages ----

    cdef int _normalize(self, FieldList fields) except -1:
        return fields.normalize() if self._normalizes else 0

    def send_request(
        self,
        method,
        target,
        headers=(),
        *,
        scheme=b"https",
        authority=None,
        protocol=None,
        end_stream=None,
    ):
        """Queue a request; return its stream identifier.

        Strings are bytes or str; ``headers`` any iterable of pairs, or a
        mapping.  ``authority`` may be left out if ``headers`` has ``host``.
        For CONNECT, ``target`` is the authority and ``scheme`` is not sent,
        unless ``protocol`` makes it an extended CONNECT (RFC 8441).  With
        ``end_stream`` false a body follows by ``send_body`` or ``send_data``.
        It is true by default, but for CONNECT, whose stream is a tunnel
        (RFC 9113, 8.5).

        A request over the peer's limit of concurrent streams waits
        (``queued_requests``); ``H2RequestSent`` reports that it goes out.

        Raises ``HeadersError``, ``InvalidBodyLengthError``,
        ``RequestQueueFullError`` if ``config.max_queued_requests`` wait,
        ``NoAvailableStreamIDError``, ``ConnectionClosedError`` after GOAWAY.
        """
        cdef FieldList fields = request_fields(
            method, target, scheme, authority, protocol
        )

        if end_stream is None:
            end_stream = method not in (b"CONNECT", "CONNECT")
        fields.extend(headers)
        return self._submit_request(fields, end_stream)

    cdef object _submit_request(self, FieldList fields, bint end_stream):
        cdef lib.ngp_h2_header_error error
        cdef size_t queued = 0
        cdef int32_t rv

        self._need_start()
        lib.ngp_h2_stream_count(self._h2, &queued)
        if queued >= self._max_queued_requests:
            raise RequestQueueFullError(
                f"{queued} requests wait to be sent, as many as max_queued_requests "
                "allows"
            )
        self._normalize(fields)
        rv = lib.ngp_h2_submit_request(
            self._h2, fields.nva(), fields.nvlen(), end_stream, &error
        )
        return check_message(
            self._h2, rv, fields, &error, None, "a server sends no requests"
        )

    def send_headers(self, stream_id, headers, end_stream=False):
        """Queue a header section as it is, pseudo-header fields included.

        The state of the stream decides what it is: with ``stream_id`` ``None`` a
        client's request, whose identifier is returned; otherwise a response
        (informational if ``:status`` is 1xx), or after that the trailers, which need
        ``end_stream``.  Raises as ``send_request``.
        """
        cdef:
            FieldList fields = FieldList()
            uint32_t flags = 0
            int32_t id

        fields.extend(headers)
        if stream_id is None:
            return self._submit_request(fields, end_stream)
        id = to_stream_id(stream_id)
        lib.ngp_h2_stream_get(self._h2, id, &flags)
        if flags & lib.NGP_H2_FLAG_LOCAL_HEADERS:
            if not end_stream:
                raise StreamStateError(
                    f"stream {id}: headers were sent already, and trailers need "
                    "end_stream"
                )
            self._normalize(fields)
            self._bodies.submit_trailers(id, fields)
        elif fields.is_informational():
            if end_stream:
                raise StreamStateError(
                    f"stream {id}: an informational response does not end the stream"
                )
            self._submit_informational(id, fields)
        else:
            self._submit_response(id, fields, end_stream)
        return id

    def send_response_headers(self, stream_id, status, headers, end_stream=False):
        """Queue a response's header section.

        ``status`` is an int from 200 to 999 of the final response, or, as for
        ``send_informational``, from 100 to 199 without ``end_stream``.

        With ``end_stream`` false a body follows, an empty one for HEAD, 204 and 304.
        Raises ``HeadersError``, ``InvalidBodyLengthError`` and, if a response was sent
        already, ``StreamStateError``.
        """
        if isinstance(status, int) and 100 <= status < 200 and not end_stream:
            self.send_informational(stream_id, status, headers)
            return
        self.respond(to_stream_id(stream_id), status, headers, end_stream)

    cdef int respond(
        self, int32_t stream_id, status, headers, bint end_stream
    ) except -1:
        cdef:
            lib.nghttp2_nv nva[16]
            lib.ngp_h2_header_error error
            bytes text = status_text(status)
            Py_ssize_t n = -1
            FieldList fields

        if not self._normalizes:
            held = hold_items(headers)
            n = borrow_fields(held, &nva[1], 15)
        if n >= 0:
            nva[0].name = <uint8_t *>b":status"
            nva[0].namelen = 7
            nva[0].value = <uint8_t *>PyBytes_AS_STRING(text)
            nva[0].valuelen = 3
            nva[0].flags = lib.NGHTTP2_NV_FLAG_NONE
            if lib.ngp_h2_submit_response(
                self._h2, stream_id, nva, n + 1, end_stream, &error
            ) == 0:
                return 0
        # Other forms of headers, and what was refused: nothing was queued then.
        fields = FieldList()
        fields.add(b":status", text)
        fields.extend(headers)
        return self._submit_response(stream_id, fields, end_stream)

    cdef int _submit_response(
        self, int32_t stream_id, FieldList fields, bint end_stream
    ) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        self._normalize(fields)
        rv = lib.ngp_h2_submit_response(
            self._h2, stream_id, fields.nva(), fields.nvlen(), end_stream, &error
        )
        return check_message(
            self._h2, rv, fields, &error, stream_id,
            "a client sends no responses" if self.client_side
            else "a response was sent already",
        )

    def send_informational(self, stream_id, status, headers=()):
        """Queue a 1xx response, before the final one (RFC 9110, 15.2).

        ``status`` is from 100 to 199, but not 101.
        """
        cdef FieldList fields = FieldList()

        fields.add(b":status", status_text(status))
        fields.extend(headers)
        self._submit_informational(to_stream_id(stream_id), fields)

    cdef int _submit_informational(
        self, int32_t stream_id, FieldList fields
    ) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        self._normalize(fields)
        rv = lib.ngp_h2_submit_informational(
            self._h2, stream_id, fields.nva(), fields.nvlen(), &error
        )
        return check_message(
            self._h2, rv, fields, &error, stream_id,
            "an informational response comes before the final one",
        )

    def send_trailers(self, stream_id, headers):
        """End the stream with a trailer section, after its queued body."""
        cdef FieldList fields = FieldList()

        fields.extend(headers)
        self._normalize(fields)
        self._bodies.submit_trailers(to_stream_id(stream_id), fields)

    def push_stream(self, stream_id, headers):
        """Promise a response to a request that the client did not make.

        ``headers`` is the whole request, pseudo-header fields included
        (RFC 9113, 8.4).  Returns the promised stream's identifier, on which
        ``send_response_headers`` answers.  Raises ``PushDisabledError``, and
        ``StreamStateError`` if this end may not push on that stream.
        """
        cdef:
            FieldList fields = FieldList()
            lib.ngp_h2_header_error error
            int32_t id = to_stream_id(stream_id)
            int32_t rv

        fields.extend(headers)
        self._normalize(fields)
        rv = lib.ngp_h2_submit_push_promise(
            self._h2, id, fields.nva(), fields.nvlen(), &error
        )
        if rv == lib.NGHTTP2_ERR_PUSH_DISABLED:
            raise PushDisabledError(
                "the peer has set SETTINGS_ENABLE_PUSH to 0 (RFC 9113, 6.5.2)", code=rv
            )
        return check_message(
            self._h2, rv, fields, &error, id,
            "only a server pushes, and on a client's stream",
        )

    @property
    def push_enabled(self):
        """Whether ``push_stream`` may be called: a server whose peer allows it."""
        return not self.client_side and bool(self._remote(Setting.ENABLE_PUSH))

    def send_data(self, stream_id, data, end_stream=False):
        """Queue what the windows allow of ``data`` now; return how many bytes.

        What was queued will be sent without another WINDOW_UPDATE.  END_STREAM is sent
        only if all was queued.  Try the rest after ``H2WindowUpdated`` for this stream
        or for 0.
        """
        cdef:
            int32_t id = to_stream_id(stream_id)
            size_t room = lib.ngp_h2_sendable(self._h2, id)
            Py_ssize_t n
            bytes piece

        self._bodies.require_none(id)
        data = as_bytes(data)
        n = min(<size_t>len(data), room)
        if n < len(data):
            end_stream = False
        piece = data if n == len(data) else data[:n]
        self._bodies.check_queued(
            lib.ngp_h2_queue_data(
                self._h2, id, <const uint8_t *>PyBytes_AS_STRING(piece), n,
                <void *>piece, end_stream,
            ),
            id, piece,
        )
        return n

    def send_body(self, stream_id, body, *, trailers=None, end_stream=True):
        """Queue a body, or a piece of one, to be sent as windows open.

        ``body`` is bytes-like (immutable bytes are not copied), or read when the stream
        can send: a binary file, an iterable of bytes-like pieces, or a callable ``f(n)
        -> (data, flag)`` with at most ``n`` bytes and ``DATA_OK``, ``DATA_EOF``, or
        ``DATA_DEFERRED`` (see ``resume_body``).  If such a source raises or breaks its
        rules, the stream is reset, and ``H2BodyFailed`` reports the exception.

        With ``end_stream`` the stream ends after it, with ``trailers`` if given.
        Raises ``BodyQueueFullError`` if more than ``config.max_body_queue`` bytes would
        be queued (an empty queue accepts a single larger piece) and
        ``InvalidBodyLengthError`` if the body does not fit its content-length.
        """
        cdef:
            int32_t id = to_stream_id(stream_id)
            FieldList fields = None
            bytes data

        self._bodies.require_none(id)
        if trailers is not None:
            if not end_stream:
                raise ValueError("trailers end the stream: end_stream must be true")
            fields = FieldList()
            fields.extend(trailers)
            self._normalize(fields)
        if is_bytes_like(body):
            data = as_bytes(body)
            if fields is not None:
                # Checked before anything is queued, so that an exception changes
                # nothing.
                self._bodies.check_trailers(id, fields, len(data))
            self._bodies.queue(id, data, end_stream and fields is None)
            if fields is not None:
                self._bodies.submit_trailers(id, fields)
            return
        if isinstance(body, str):
            raise TypeError("a body must be bytes, not str: encode it")
        source = make_source(body)
        if fields is not None:
            self._bodies.check_trailers(id, fields, SIZE_MAX)
        self._bodies.add(id, source, fields, bool(end_stream))

    def resume_body(self, stream_id):
        """Ask a source again that has returned DATA_DEFERRED; otherwise a no-op."""
        self._bodies.resume(to_stream_id(stream_id))

    def end_stream(self, stream_id):
        """End our half of the stream, after its queued body."""
        cdef int32_t id = to_stream_id(stream_id)

        self._bodies.require_none(id)
        self._bodies.queue(id, b"", True)

    cdef int queue_body(
        self, int32_t stream_id, bytes data, bint end_stream
    ) except -1:
        """Queue a piece of a body that has no source."""
        self._bodies.require_none(stream_id)
        return self._bodies.queue(stream_id, data, end_stream)

    cdef bint is_under_way(self, int32_t stream_id) noexcept:
        """Whether the windows allow all that is queued on a stream."""
        return lib.ngp_h2_under_way(self._h2, stream_id)

    cdef bint is_open(self, int32_t stream_id) noexcept:
        """Return whether a stream can still send or receive anything."""
        cdef uint32_t flags = 0

        return lib.ngp_h2_stream_get(
            self._h2, stream_id, &flags
        ) == lib.NGP_H2_STATE_OPEN

    cdef int stop_request(self, int32_t stream_id) except -1:
        """Decline the rest of a request after our response.

        A no-op for a tunnel, whose halves end independently (RFC 9113, 8.5).
        """
        cdef uint32_t flags = 0

        lib.ngp_h2_stream_get(self._h2, stream_id, &flags)
        if flags & (lib.NGP_H2_FLAG_CONNECTED | lib.NGP_H2_FLAG_REMOTE_END):
            return 0
        return check(
            lib.ngp_h2_submit_rst(self._h2, stream_id, ErrorCode.NO_ERROR, 1),
            stream_id,
        )

    def queued_body(self, stream_id=0):
        """Return how many body bytes are queued on a stream, or on all (0)."""
        return lib.ngp_h2_queued_body(
            self._h2, 0 if stream_id == 0 else to_stream_id(stream_id)
        )

    def notify_drained(self, stream_id, low=0):
        """Request ``H2BodyDrained`` for when at most ``low`` bytes are queued on a
        stream.

        Returns true if that is so already; then no event comes.
        """
        return bool(
            lib.ngp_h2_watch_body(
                self._h2, to_stream_id(stream_id), to_uint32(low, "low")
            )
        )

    def reset_stream(
        self, stream_id, error_code=ErrorCode.NO_ERROR, *, after_flush=False
    ):
        """Queue RST_STREAM (RFC 9113, 6.4); ``H2StreamClosed`` is then the only
        event of the stream.

        What ``send_body`` has queued on the stream is dropped; a complete response made
        by ``send_response_headers`` and ``send_data`` is sent first.  With
        ``after_flush`` the reset always waits for the end of our half, is not sent if
        the peer's half has ended by then, and is in a later output than that end: see
        ``hold_resets``.  A no-op on a closed stream and after the end of the
        connection.
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef int rv

        self._need_start()
        rv = lib.ngp_h2_submit_rst(
            self._h2, id, to_uint32(error_code, "error_code"), bool(after_flush)
        )
        if rv == lib.NGP_ERR_CONNECTION_CLOSED:
            return
        check(rv, id)
        if not after_flush:
            self._bodies.drop(id)

    # ---- Streams ----

    def stream_ended(self, stream_id):
        """Return whether the peer's half of a stream has ended; false if it never
        began."""
        cdef uint32_t flags = 0
        cdef lib.ngp_h2_stream_state state = lib.ngp_h2_stream_get(
            self._h2, to_stream_id(stream_id), &flags
        )

        return state == lib.NGP_H2_STATE_CLOSED or bool(
            flags & lib.NGP_H2_FLAG_REMOTE_END
        )

    def remove_stream(self, stream_id):
        """Report that the caller has finished with a stream.

        It no longer counts in ``active_stream_count``.  A source that is not at its end
        is dropped, and the stream reset (CANCEL): the peer must not take an incomplete
        body for a complete one.
        """
        cdef int32_t id = to_stream_id(stream_id)

        if not self.is_open(id):
            return
        self._reader.removed.add(id)
        if self._bodies.drop(id):
            check(lib.ngp_h2_submit_rst(self._h2, id, ErrorCode.CANCEL, 0), id)

    @property
    def active_stream_count(self):
        """Streams neither closed nor removed, queued requests included."""
        return lib.ngp_h2_stream_count(self._h2, NULL) - len(self._reader.removed)

    @property
    def queued_requests(self):
        """Requests that wait for the peer's limit of streams."""
        cdef size_t queued = 0

        lib.ngp_h2_stream_count(self._h2, &queued)
        return queued

    # ---- Counters ----

    @property
    def counters(self):
        """Counts since the connection began, and sizes now: a dict of ints.

        ``frames_received`` and ``frames_sent`` are dicts by frame type.
        """
        return describe_counters(self._h2)
