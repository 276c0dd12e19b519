"""The connection as a whole: its bytes, its settings, windows and end.

``H2Connection`` adds the messages.  This module is not for use by itself.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.ref cimport Py_DECREF
from libc.stddef cimport size_t
from libc.stdint cimport SIZE_MAX, int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from nghttp2py cimport cngp as lib
from nghttp2py.h2.reader cimport EventReader
from nghttp2py.octets cimport copy_bytes

import base64
import binascii

from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    FlowControlError,
    InvalidSettingsValueError,
    NoSuchStreamError,
    ProtocolError,
    StreamClosedError,
    from_code,
)
from nghttp2py.h2.config import H2Configuration, Setting, check_config

__all__ = ["H2Session"]

cdef enum:
    # The most that a 31-bit window can be (RFC 9113, 6.9.1).
    MAX_WINDOW = 0x7FFFFFFF
    # A frame's type (RFC 9113, 6.4).
    RST_STREAM = 3
    # Entries of a SETTINGS frame that we send; nghttp2 receives as many.
    MAX_SETTINGS = 32


cdef list find_missing_options():
    """The bounds that this build's C library lacks, as the configuration names them."""
    cdef const lib.ngp_feature *feature = lib.ngp_features()
    cdef list missing = []
    options = {
        "stream_reset_rate_limit": "stream_reset_burst",
        "max_continuations": "max_continuations",
        "max_outbound_queue_size": "max_outbound_queue_size",
        "glitch_rate_limit": "glitch_burst",
    }

    while feature.name != NULL:
        name = feature.name.decode()
        if name in options and not feature.present:
            missing.append(options[name])
        feature += 1
    return missing


cdef list MISSING_OPTIONS = find_missing_options()


cdef int check(int rv, object stream_id=None) except -1:
    """Turn a negative return code into the exception that names it."""
    if rv < 0:
        raise from_code(rv, lib.ngp_strerror(rv).decode(), stream_id)
    return rv


cdef uint32_t to_uint32(value, what) except? 0xFFFFFFFF:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{what} is {value}, but must be from 0 to {0xFFFFFFFF}")
    return value


cdef int32_t to_stream_id(value) except -1:
    """Check an identifier that a caller gave (RFC 9113, 5.1.1)."""
    cdef:
        long long n
        int overflow = 0

    if PyLong_CheckExact(value):
        # As C numbers: this is called for every message and piece of a body.
        n = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and 0 < n <= MAX_WINDOW:
            return <int32_t>n
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"stream_id must be an int, not {type(value).__name__}")
    if not 0 < value <= MAX_WINDOW:
        raise NoSuchStreamError(f"there is no stream {value}", value)
    return value


cdef class H2Session:
    """One end of a connection, without the messages: see ``H2Connection``."""

    def __cinit__(self, *, bint client_side=False, config=None):
        cdef lib.ngp_h2_options options

        if config is None:
            config = H2Configuration()
        check_config(config)
        for name in MISSING_OPTIONS:
            if getattr(config, name) is not None:
                raise InvalidSettingsValueError(
                    f"{name} is set, but this build's nghttp2 "
                    f"{lib.nghttp2_version(0).version_str.decode()} does not have it"
                )
        self.config = config
        self.client_side = client_side
        self._max_queued_requests = config.max_queued_requests
        options.client = client_side
        options.manual_credit = config.manual_flow_control
        options.default_incremental = config.default_incremental
        options.recv_extensions = config.receive_extension_frames
        options.no_deflate_table = config.max_deflate_dynamic_table_size == 0
        options.no_auto_ping_ack = not config.automatic_ping_ack
        options.lenient_fields = config.lenient_inbound_headers
        options.pad_multiple = config.pad_multiple
        options.max_header_list_bytes = config.max_header_list_bytes
        options.max_header_list_count = config.max_header_list_count
        options.max_body_queue = config.max_body_queue
        options.max_data_frame = config.max_data_frame
        options.max_provoked_resets = config.max_provoked_resets
        options.max_glitches = config.max_glitches
        options.peer_max_concurrent_streams = config.peer_max_concurrent_streams or 0
        options.max_reserved_remote_streams = config.max_reserved_remote_streams or 0
        options.max_send_header_block_length = config.max_send_header_block_length or 0
        options.max_deflate_dynamic_table_size = (
            config.max_deflate_dynamic_table_size or 0
        )
        options.max_outbound_ack = config.max_outbound_ack or 0
        options.max_settings = config.max_settings or 0
        options.max_continuations = config.max_continuations or 0
        options.max_outbound_queue_size = config.max_outbound_queue_size or 0
        options.stream_reset_burst = config.stream_reset_burst or 0
        options.stream_reset_rate = config.stream_reset_rate or 0
        options.glitch_burst = config.glitch_burst or 0
        options.glitch_rate = config.glitch_rate or 0
        check(lib.ngp_h2_new(&self._h2, &options, NULL))
        self._pending = []
        self._sources = {}
        self._reader = EventReader(self._sources, config.lenient_inbound_headers)

    def __dealloc__(self):
        if self._h2 != NULL:
            lib.ngp_h2_abandon_bodies(self._h2)
            self._release_owners()
            lib.ngp_h2_del(self._h2)

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
        """Begin to read what C has recorded, which must not be done twice."""
        if self._busy:
            raise ProtocolError(
                "receive_data() and data_to_send() must not be called from within "
                "themselves"
            )
        self._busy = True
        return 0

    def receive_data(self, data not None):
        """Take bytes of the peer; return the list of events they caused.

        ``data`` is any bytes-like object, cut anywhere.  Events that sending
        has produced since come first.  After the end of the connection the
        bytes are ignored.  Raises nothing for what the peer does.

        A frame has at least 9 bytes, so that the caller bounds the number of
        events by that of the bytes it passes at a time.
        """
        cdef:
            Py_buffer view
            const uint8_t *base
            size_t left
            size_t consumed = 0
            int rv
            list events

        self._need_start()
        self._enter()
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                events = self._pending
                self._pending = []
                base = <const uint8_t *>view.buf
                left = view.len
                while left and lib.ngp_h2_alive(self._h2):
                    rv = lib.ngp_h2_recv(self._h2, base, left, &consumed)
                    check(rv)
                    self._reader.take(self._h2, events)
                    base += consumed
                    left -= consumed
            finally:
                PyBuffer_Release(&view)
            self._release_owners()
            return events
        finally:
            self._busy = False

    def receive_eof(self, uint32_t error_code=ErrorCode.INTERNAL_ERROR):
        """Tell that the peer is gone; return the events that close everything.

        Streams that were open are closed with ``error_code``.
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
        cdef list events = self._pending

        if events:
            self._pending = []
            return events
        return []

    # ---- Bytes out ----

    def data_to_send(self, limit=None):
        """Return the bytes for the peer; empty if there is nothing to say.

        Before ``initiate_connection`` there is not.

        With ``limit``, gathering stops after the frame that reaches it, and
        what is left comes with the next call.
        """
        cdef:
            const lib.ngp_h2_segment *segment
            size_t n = 0
            size_t total = 0
            size_t i
            char *end
            bytes data

        if not self._initiated:
            return b""
        self._enter()
        try:
            # By reference, so that large bodies are copied once, to here.
            self._gather(SIZE_MAX if limit is None else limit)
            segment = lib.ngp_h2_output(self._h2, &n, &total)
            if n == 0:
                return b""
            data = PyBytes_FromStringAndSize(NULL, total)
            end = PyBytes_AS_STRING(data)
            for i in range(n):
                memcpy(end, segment[i].base, segment[i].len)
                end += segment[i].len
            lib.ngp_h2_clear_output(self._h2)
            return data
        finally:
            self._busy = False
            self._release_owners()

    def data_to_send_vectored(self, limit=None):
        """Return the bytes for the peer as a list of bytes and memoryviews.

        Large bodies given as bytes are not copied: the views point into them.
        It suits ``writelines`` and ``sendmsg``.
        """
        cdef:
            const lib.ngp_h2_segment *segment
            size_t n = 0
            size_t total = 0
            size_t i
            size_t start
            list pieces = []

        if not self._initiated:
            return pieces
        self._enter()
        try:
            self._gather(SIZE_MAX if limit is None else limit)
            segment = lib.ngp_h2_output(self._h2, &n, &total)
            for i in range(n):
                if segment[i].owner == NULL:
                    pieces.append(copy_bytes(segment[i].base, segment[i].len))
                    continue
                owner = <bytes>segment[i].owner
                start = segment[i].base - <const uint8_t *>PyBytes_AS_STRING(owner)
                if start == 0 and segment[i].len == <size_t>PyBytes_GET_SIZE(owner):
                    pieces.append(owner)
                else:
                    pieces.append(memoryview(owner)[start : start + segment[i].len])
            lib.ngp_h2_clear_output(self._h2)
            return pieces
        finally:
            self._busy = False
            self._release_owners()

    def time_passed(self, seconds):
        """Say that whole ``seconds`` more have gone by: there is no clock here.

        Some of the frames that do nothing are forgiven (``max_glitches`` of
        ``H2Configuration``), so that keep-alive does not end an idle connection.
        """
        lib.ngp_h2_time_passed(self._h2, to_uint32(seconds, "seconds"))

    @property
    def hold_resets(self):
        """Whether resets that follow a response wait for ``release_resets``.

        A client that reads a whole response and RST_STREAM at once may lose the
        response: old releases of curl do.  So such a reset (see
        ``reset_stream``) is not in the same output as the end that it follows.
        By default it comes with the next call of ``data_to_send``.  A caller
        that has a clock sets this, and calls ``release_resets`` some
        milliseconds later, and as often as any are held.
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
        """Queue the resets that waited when this was called last.

        So that none waits less than the time between: see ``hold_resets``.
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
                fed = self._feed(stream_id, wanted) or fed
        return 0

    cdef int _release_owners(self) except -1:
        cdef void *owner = lib.ngp_h2_take_owner(self._h2)

        while owner != NULL:
            Py_DECREF(<object>owner)
            owner = lib.ngp_h2_take_owner(self._h2)
        return 0

    cdef bint _feed(self, int32_t stream_id, size_t wanted) except -1:
        """Queue a piece of a body's source; return whether there is more to send.

        Sources come with the messages: there are none here.
        """
        return False

    # ---- Receive flow control (RFC 9113, 5.2) ----

    def acknowledge_received_data(self, n, stream_id):
        """Give the peer credit for ``n`` bytes of body that were taken.

        Only under ``config.manual_flow_control``.  Bytes of a closed stream
        are ignored: what it left unread went back to the connection's window
        when it closed.  So are those of a connection that has ended.  Raises
        ``FlowControlError`` for more than came in.
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef int rv

        if not self.config.manual_flow_control:
            raise ProtocolError("received data are acknowledged automatically")
        rv = lib.ngp_h2_consume(self._h2, id, to_uint32(n, "n"))
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise FlowControlError(
                f"stream {id}: {n} bytes acknowledged, but only "
                f"{lib.ngp_h2_unacked(self._h2, id)} are unacknowledged"
            )
        if rv == lib.NGP_ERR_CONNECTION_CLOSED and self._initiated:
            return
        check(rv, id)

    def unacknowledged_data(self, stream_id):
        """Return the bytes received on a stream and not acknowledged."""
        return lib.ngp_h2_unacked(self._h2, to_stream_id(stream_id))

    def local_flow_control_window(self, stream_id):
        """Return how many bytes ``send_data`` would take now on a stream.

        That is the lesser of the stream's and the connection's window, less
        what is queued; 0 for a closed stream.
        """
        cdef int32_t id = to_stream_id(stream_id)

        self._known(id)
        return lib.ngp_h2_sendable(self._h2, id)

    def remote_flow_control_window(self, stream_id=0):
        """Return how many bytes the peer may send on a stream, or at all (0)."""
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
        """Whether anything may still come in."""
        return lib.ngp_h2_want_read(self._h2)

    @property
    def want_write(self):
        """Whether ``data_to_send`` may have something to say."""
        return lib.ngp_h2_want_write(self._h2)

    @property
    def is_closed(self):
        """Whether GOAWAY was sent or received, or the connection has ended."""
        return self._goaway_sent or self._reader.going_away

    @property
    def incomplete_frame(self):
        """A number other than 0 while part of a frame or header block has come.

        It is another for each of them, so that the owner, who has a clock, can
        bound the time until the rest comes.  The payload of DATA does not count:
        see ``check_pace``.
        """
        return lib.ngp_h2_mid_frame(self._h2)

    def check_pace(
        self, now, *, body=None, response=None, min_rate=240.0, reset=True
    ):
        """Look for bodies that the peer does not send or take fast enough.

        ``now`` is in seconds, of a clock that never goes back; call this at
        least four times in the shorter of the bounds.  A request without
        response must bring ``min_rate`` bytes a second, or is too slow after
        ``body`` seconds; time in which credit is held back, and tunnels, are not
        counted.  Where the peer's windows hold bodies back it must take as many,
        or is too slow after ``response`` seconds.  ``None`` is no bound.

        Returns a tuple: how many streams are too slow, which are reset with
        CANCEL unless ``reset`` is false; whether the connection's window is too
        slow for all; and whether there is any body to look at again.
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
        """Queue GOAWAY (RFC 9113, 6.8): no new streams, those open may finish.

        ``last_stream_id`` is by default the last that the peer has opened.
        This is a no-op on a connection that has ended.
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

        At least a round trip later ``close_connection`` ends it without losing
        a request that was on its way.  This is a no-op on a connection that has
        ended.
        """
        if self.client_side:
            raise ProtocolError("the shutdown notice is the server's (RFC 9113, 6.8)")
        self._need_start()
        self._check_end(lib.ngp_h2_submit_shutdown_notice(self._h2))

    def terminate(self, error_code=ErrorCode.NO_ERROR):
        """Queue GOAWAY, and nothing after it: open streams are dropped.

        This is a no-op on a connection that has ended.
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

        They hold when ``H2SettingsAcknowledged`` comes.  Raises
        ``InvalidSettingsValueError``.
        """
        self._need_start()
        self._submit_settings({int(key): value for key, value in settings.items()})

    cdef int _submit_settings(self, dict settings) except -1:
        cdef lib.nghttp2_settings_entry entries[MAX_SETTINGS]
        cdef size_t n = write_settings(settings, entries)
        cdef int rv

        self._check_settings(settings)
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

    cdef int _check_settings(self, dict settings) except -1:
        """Refuse what no peer would bear from this end."""
        if not self.client_side and settings.get(int(Setting.ENABLE_PUSH)):
            raise InvalidSettingsValueError(
                "ENABLE_PUSH of a server must be 0 (RFC 9113, 6.5.2)"
            )
        if (
            self._connect_enabled
            and settings.get(int(Setting.ENABLE_CONNECT_PROTOCOL)) == 0
        ):
            raise InvalidSettingsValueError(
                "ENABLE_CONNECT_PROTOCOL must not go back from 1 to 0 (RFC 8441, 3)"
            )
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
        return {setting: self._remote(setting) for setting in Setting}

    @property
    def local_settings(self):
        """Our settings that the peer has acknowledged: ``Setting`` to value."""
        return {
            setting: lib.nghttp2_session_get_local_settings(
                lib.ngp_h2_session(self._h2),
                <lib.nghttp2_settings_id><int>setting,
            )
            for setting in Setting
        }

    @property
    def max_outbound_frame_size(self):
        """The largest frame payload that the peer takes."""
        return self._remote(Setting.MAX_FRAME_SIZE)

    def initiate_upgrade_connection(self, settings_header=None, *, head_request=False):
        """Begin after an HTTP/1.1 Upgrade to ``h2c`` (RFC 7540, 3.2).

        A client passes nothing and gets the value of its HTTP2-Settings field;
        its request is stream 1.  A server passes that field's value, and
        answers stream 1.  ``head_request`` says that the request was HEAD.
        Raises ``ProtocolError`` for a value that does not decode.
        """
        cdef uint8_t payload[6 * MAX_SETTINGS]
        cdef lib.nghttp2_settings_entry entries[MAX_SETTINGS]
        cdef bytes data
        cdef Py_ssize_t n
        cdef int rv

        if self._initiated:
            raise ProtocolError("initiate_connection() was called before")
        if self.client_side:
            n = lib.nghttp2_pack_settings_payload2(
                payload, sizeof(payload), entries,
                write_settings(self.config.settings(True), entries),
            )
            check(n)
            data = copy_bytes(payload, n)
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
            # The C library sends them itself, now that it knows them.
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

        ``urgency`` is from 0, the most urgent, to 7.  ``override`` keeps it
        against what the client says later.
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

        Raises ``ProtocolError`` if the C library cannot tell (before 1.59).
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef uint32_t urgency = 0
        cdef int incremental = 0

        self._server_stream(id)
        check(lib.ngp_h2_get_priority(self._h2, id, &urgency, &incremental), id)
        return urgency, bool(incremental)

    cdef int _server_stream(self, int32_t stream_id) except -1:
        cdef uint32_t flags = 0

        if self.client_side:
            raise ProtocolError("only a server schedules by priority (RFC 9218)")
        self._known(stream_id)
        if (
            lib.ngp_h2_stream_get(self._h2, stream_id, &flags)
            != lib.NGP_H2_STATE_OPEN
        ):
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
        """Queue a frame of a type past 0x9 (RFC 9113, 5.5).

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

    # ---- Counters ----

    @property
    def counters(self):
        """Counts since the connection began, and sizes now: a dict of ints.

        ``frames_received`` and ``frames_sent`` are dicts by frame type.
        """
        cdef const lib.ngp_h2_counters *c = lib.ngp_h2_get_counters(self._h2)
        cdef lib.nghttp2_session *session = lib.ngp_h2_session(self._h2)
        cdef int i

        return {
            "frames_received": {
                i: c.frames_received[i]
                for i in range(lib.NGP_H2_FRAME_TYPES)
                if c.frames_received[i]
            },
            "frames_sent": {
                i: c.frames_sent[i]
                for i in range(lib.NGP_H2_FRAME_TYPES)
                if c.frames_sent[i]
            },
            "bytes_received": c.bytes_received,
            "bytes_sent": c.bytes_sent,
            "header_bytes_received": c.header_bytes_received,
            "header_block_bytes_received": c.header_block_bytes_received,
            "header_bytes_sent": c.header_bytes_sent,
            "header_block_bytes_sent": c.header_block_bytes_sent,
            "resets_received": c.frames_received[RST_STREAM],
            "resets_sent": c.frames_sent[RST_STREAM],
            "streams_opened": c.streams_opened,
            "provoked_resets": c.provoked_resets,
            "glitches": c.glitches,
            "outbound_queue": lib.nghttp2_session_get_outbound_queue_size(session),
            "inflate_table_size": (
                lib.nghttp2_session_get_hd_inflate_dynamic_table_size(session)
            ),
            "deflate_table_size": (
                lib.nghttp2_session_get_hd_deflate_dynamic_table_size(session)
            ),
        }


cdef bytes as_bytes(value):
    if PyBytes_CheckExact(value):
        return value
    if PyObject_CheckBuffer(value):
        return bytes(value)
    raise TypeError(f"bytes are wanted, not {type(value).__name__}")


cdef size_t write_settings(
    dict settings, lib.nghttp2_settings_entry *entries
) except? 0:
    cdef size_t n = 0

    if len(settings) > MAX_SETTINGS:
        raise InvalidSettingsValueError(
            f"{len(settings)} settings in a frame, but {MAX_SETTINGS} are the most"
        )
    for setting, value in settings.items():
        if to_uint32(setting, "a setting's identifier") > 0xFFFF:
            raise InvalidSettingsValueError(
                f"{setting} is not a setting's identifier (RFC 9113, 6.5.1)"
            )
        entries[n].settings_id = setting
        entries[n].value = to_uint32(value, f"setting {setting}")
        n += 1
    return n


cdef bytes decode_settings(value):
    """Decode an HTTP2-Settings field (RFC 7540, 3.2.1)."""
    if value is None:
        raise TypeError("a server needs the value of HTTP2-Settings")
    data = value.encode("ascii", "replace") if isinstance(value, str) else bytes(value)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"HTTP2-Settings {value!r}: {error}") from None
