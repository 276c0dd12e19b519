"""The connection without the messages: events in, and what they ask for.

``H3Connection`` adds what the application sends.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.h3.events cimport (
    CapsuleReceived,
    DatagramReceived,
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    MaxPushIdReceived,
    OriginReceived,
    PriorityUpdated,
    PushCancelled,
    PushPromiseReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamAborted,
    StreamReset,
    WebTransportSessionClosed,
    WebTransportSessionDrained,
    WebTransportStreamDataReceived,
)
from nghttp2py.h3.headers cimport (
    JOIN_COOKIES,
    STRIP_VALUES,
    FieldList,
    make_headers,
    names_free,
)
from nghttp2py.octets cimport to_bytes
from nghttp2py.quic_link cimport LEASE_STREAM, BufferLease, link_to

from nghttp2py.errors import (
    HeaderListTooLargeError,
    InvalidBodyLengthError,
    NGHTTP2Error,
)
from nghttp2py.h3.config import H3Configuration
from nghttp2py.h3.exceptions import (
    GoingAwayError,
    InvalidStreamTypeError,
    NoAvailablePushIDError,
    NotEnabledError,
)
from nghttp2py.h3.protocol import (
    ErrorCode,
    FrameUnexpected,
    MessageError,
    StreamType,
)

__all__ = ["H3Session"]

cdef enum Kind:
    NOTHING
    STREAM_DATA
    STREAM_RESET
    STOP_SENDING
    DATAGRAM


# The QUIC events that matter, by name: they are aioquic's, ours, or those of
# whatever stands in for them.
_KINDS = {
    "StreamDataReceived": STREAM_DATA,
    "DatagramFrameReceived": DATAGRAM,
    "StreamReset": STREAM_RESET,
    "StopSendingReceived": STOP_SENDING,
}

_STREAM_TYPE_NAMES = {kind.value: kind.name.lower() for kind in StreamType}


cdef object or_none(int64_t number):
    return None if number == lib.NGP_H3_NO_ID else number


cdef int64_t to_id(value, str name) except -1:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= lib.NGP_MAX_VARINT:
        raise ValueError(f"{name} is {value}, but must be from 0 to 2**62 - 1")
    return value


cdef list split_origins(const uint8_t *data, size_t n):
    """Take the payload of ORIGIN apart, whose form has been checked."""
    cdef:
        list origins = []
        size_t i = 0
        size_t length

    while i < n:
        length = data[i] << 8 | data[i + 1]
        i += 2
        origins.append((<const char *>data)[i:i + length])
        i += length
    return origins


cdef class H3Session:
    """One end of a connection, without the messages: see ``H3Connection``."""

    def __init__(self, quic, enable_webtransport=False, *, config=None):
        cdef lib.ngp_h3_config options

        if self._h3 != NULL:
            raise RuntimeError("H3Connection.__init__() was called before")
        if config is None:
            config = H3Configuration()
        elif not isinstance(config, H3Configuration):
            raise TypeError(
                f"config must be an H3Configuration, not {type(config).__name__}"
            )
        self._quic = quic
        self._link = link_to(quic)
        self._quic_logger = getattr(quic, "_quic_logger", None)
        self._config = config
        self._kinds = {}
        self._fields = FieldList()
        self._validate = config.validate_outbound
        self._changes = (
            (JOIN_COOKIES if config.join_cookies else 0)
            | (STRIP_VALUES if config.lenient_inbound_headers else 0)
        )

        lib.ngp_h3_config_default(&options)
        options.server = not quic.configuration.is_client
        options.webtransport = bool(enable_webtransport)
        options.extended = config.extended
        options.stream_errors = config.stream_errors
        options.spaces = config.lenient_inbound_headers
        options.log = self._quic_logger is not None
        options.qpack_capacity = config.qpack_max_table_capacity
        options.qpack_blocked_streams = config.qpack_blocked_streams
        options.qpack_encoder_capacity = config.qpack_encoder_table_capacity
        if config.max_field_section_size is not None:
            options.max_field_section_size = config.max_field_section_size
        options.max_field_count = config.max_field_count
        options.max_buffered = config.max_buffered
        options.max_sessions = config.webtransport_max_sessions
        options.max_glitches = config.max_glitches
        options.max_reset_streams = config.max_reset_streams
        self._check(lib.ngp_h3_new(&self._h3, &options, NULL))
        self._start(enable_webtransport, not options.server)

    def __dealloc__(self):
        names_free(&self._names)
        lib.ngp_h3_del(self._h3)

    def _start(self, webtransport, is_client):
        """Open our streams and say what we must say first (RFC 9114, 3.2)."""
        self._open(StreamType.CONTROL)
        self._sent = self._config.sent_settings(webtransport)
        self._send_settings()
        if is_client and self._config.max_push_id is not None:
            self._send_max_push_id(self._config.max_push_id)
        self._open(StreamType.QPACK_ENCODER)
        self._open(StreamType.QPACK_DECODER)

    def _open(self, stream_type):
        stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._log_stream_type(stream_id, stream_type)
        self._check(lib.ngp_h3_open(self._h3, stream_type, stream_id))
        self._perform()
        # GOAWAY and what decodes field sections must not wait for a body.
        self._link.set_critical(stream_id)

    def _send_max_push_id(self, max_push_id):
        self._check(
            lib.ngp_h3_send_max_push_id(self._h3, to_id(max_push_id, "max_push_id"))
        )
        self._perform()

    def _send_settings(self):
        cdef:
            size_t n = len(self._sent)
            size_t i = 0
            lib.ngp_h3_setting *settings = <lib.ngp_h3_setting *>PyMem_Malloc(
                (n + 1) * sizeof(lib.ngp_h3_setting)
            )

        if settings == NULL:
            raise MemoryError
        try:
            for identifier, value in self._sent.items():
                settings[i].id = identifier
                settings[i].value = value
                i += 1
            self._check(lib.ngp_h3_send_settings(self._h3, settings, n))
        finally:
            PyMem_Free(settings)
        self._perform()

    # ---- Helpers ----

    cdef int _require(self) except -1:
        if self._h3 == NULL:
            raise RuntimeError("H3Connection.__init__() was not called")
        return 0

    cdef int _check(self, int rv) except -1:
        """Turn a negative return code into the exception that names it."""
        cdef:
            const lib.ngp_h3_phrase *phrase
            uint64_t expected = 0
            uint64_t actual = 0

        if rv == 0:
            return 0
        if rv == lib.NGP_H3_ERR_FRAME_UNEXPECTED or rv == lib.NGP_H3_ERR_MALFORMED:
            phrase = lib.ngp_h3_phrase_of_error(self._h3)
            text = phrase.text[:phrase.len].decode("ascii")
            if rv == lib.NGP_H3_ERR_MALFORMED:
                raise MessageError(text)
            raise FrameUnexpected(text)
        if rv == lib.NGP_H3_ERR_BODY_LENGTH:
            lib.ngp_h3_body_error(self._h3, &expected, &actual)
            raise InvalidBodyLengthError(expected, actual)
        text = lib.ngp_h3_strerror(rv).decode("ascii")
        if rv == lib.NGP_H3_ERR_STREAM_TYPE:
            raise InvalidStreamTypeError(text, code=rv)
        if rv == lib.NGP_H3_ERR_NO_PUSH_ID:
            raise NoAvailablePushIDError(text, code=rv)
        if rv == lib.NGP_H3_ERR_NOT_ENABLED or rv == lib.NGP_H3_ERR_NO_SETTINGS:
            raise NotEnabledError(text, code=rv)
        if rv == lib.NGP_H3_ERR_GOING_AWAY:
            raise GoingAwayError(text, code=rv)
        if rv == lib.NGP_H3_ERR_ROLE:
            raise RuntimeError(text)
        if rv == lib.NGP_H3_ERR_RANGE:
            raise ValueError(text)
        if rv == lib.NGP_QPACK_ERR_TOO_LARGE:
            raise HeaderListTooLargeError(text, code=rv)
        raise MemoryError(text)

    cdef int _perform(self) except -1:
        """Have the QUIC connection do what the last call recorded."""
        cdef:
            size_t n = 0
            size_t i
            size_t size = 0
            const lib.ngp_h3_op *ops = lib.ngp_h3_ops(self._h3, &n)
            const uint8_t *output = lib.ngp_h3_output(self._h3)
            bytes kept_ops
            bytes kept_output

        if n > 1 and self._link.calls_python():
            # The QUIC connection may call us, which ends the life of both.
            for i in range(n):
                if ops[i].type == lib.NGP_H3_OP_SEND:
                    size = ops[i].offset + ops[i].len
            kept_ops = (<const char *>ops)[:n * sizeof(lib.ngp_h3_op)]
            kept_output = (<const char *>output)[:size]
            ops = <const lib.ngp_h3_op *>PyBytes_AS_STRING(kept_ops)
            output = <const uint8_t *>PyBytes_AS_STRING(kept_output)
        for i in range(n):
            if ops[i].type == lib.NGP_H3_OP_SEND:
                self._link.send(
                    ops[i].stream_id, output + ops[i].offset, ops[i].len, None,
                    ops[i].fin,
                )
            else:
                self._reset_or_stop(
                    ops[i].type, ops[i].stream_id, ops[i].error_code,
                    ops[i].best_effort,
                )
        return 0

    cdef int _reset_or_stop(
        self, int what, stream_id, error_code, bint best_effort
    ) except -1:
        """Reset a stream, or stop it."""
        try:
            if what == lib.NGP_H3_OP_RESET:
                self._quic.reset_stream(stream_id, error_code)
            else:
                self._quic.stop_stream(stream_id, error_code)
        except (AssertionError, NGHTTP2Error, RuntimeError, ValueError):
            # The application ends streams of WebTransport without our
            # knowledge; what is over needs no end.
            if not best_effort:
                raise
        return 0

    cdef bytes _take(self, const lib.ngp_h3_event *event, bytes whole):
        """Return the event's data; without a copy if it is all of the input."""
        if (
            whole is not None
            and event.data == <const uint8_t *>PyBytes_AS_STRING(whole)
            and event.len == <size_t>PyBytes_GET_SIZE(whole)
        ):
            return whole
        if event.len == 0:
            return b""
        return PyBytes_FromStringAndSize(<const char *>event.data, event.len)

    cdef object _new_event(
        self,
        const lib.ngp_h3_event *event,
        const lib.nghttp3_qpack_nv *fields,
        bytes whole,
    ):
        cdef:
            DataReceived data
            HeadersReceived headers
            PushPromiseReceived promise
            DatagramReceived datagram
            WebTransportStreamDataReceived stream_data
            uint32_t error_code = 0

        if event.type == lib.NGP_H3_EVENT_DATA:
            data = DataReceived.__new__(DataReceived)
            data.data = self._take(event, whole)
            data.stream_id = event.stream_id
            data.stream_ended = bool(event.stream_ended)
            data.push_id = or_none(event.push_id)
            return data
        if event.type == lib.NGP_H3_EVENT_HEADERS:
            headers = HeadersReceived.__new__(HeadersReceived)
            headers.headers = make_headers(
                &self._names, fields + event.field, event.nfields, self._changes
            )
            headers.stream_id = event.stream_id
            headers.stream_ended = bool(event.stream_ended)
            headers.push_id = or_none(event.push_id)
            if self._quic_logger is not None:
                self._log_frame(
                    "frame_parsed",
                    self._quic_logger.encode_http3_headers_frame(
                        length=event.frame_len,
                        headers=headers.headers,
                        stream_id=event.stream_id,
                    ),
                )
            return headers
        if event.type == lib.NGP_H3_EVENT_PUSH_PROMISE:
            promise = PushPromiseReceived.__new__(PushPromiseReceived)
            promise.headers = make_headers(
                &self._names, fields + event.field, event.nfields, self._changes
            )
            promise.push_id = event.push_id
            promise.stream_id = event.stream_id
            if self._quic_logger is not None:
                self._log_frame(
                    "frame_parsed",
                    self._quic_logger.encode_http3_push_promise_frame(
                        length=event.frame_len,
                        headers=promise.headers,
                        push_id=event.push_id,
                        stream_id=event.stream_id,
                    ),
                )
            return promise
        if event.type == lib.NGP_H3_EVENT_DATAGRAM:
            datagram = DatagramReceived.__new__(DatagramReceived)
            datagram.data = self._take(event, whole)
            datagram.stream_id = event.stream_id
            return datagram
        if event.type == lib.NGP_H3_EVENT_WEBTRANSPORT_DATA:
            stream_data = WebTransportStreamDataReceived.__new__(
                WebTransportStreamDataReceived
            )
            stream_data.data = self._take(event, whole)
            stream_data.stream_id = event.stream_id
            stream_data.stream_ended = bool(event.stream_ended)
            stream_data.session_id = event.session_id
            return stream_data
        if event.type == lib.NGP_H3_EVENT_SETTINGS:
            return SettingsReceived(self.received_settings)
        if event.type == lib.NGP_H3_EVENT_GOAWAY:
            return GoAwayReceived(event.value)
        if event.type == lib.NGP_H3_EVENT_MAX_PUSH_ID:
            return MaxPushIdReceived(event.value)
        if event.type == lib.NGP_H3_EVENT_CANCEL_PUSH:
            return PushCancelled(event.push_id)
        if event.type == lib.NGP_H3_EVENT_PRIORITY_UPDATE:
            return PriorityUpdated(
                self._take(event, None),
                or_none(event.stream_id),
                or_none(event.push_id),
            )
        if event.type == lib.NGP_H3_EVENT_ORIGIN:
            return OriginReceived(split_origins(event.data, event.len))
        if (
            event.type == lib.NGP_H3_EVENT_STREAM_RESET
            or event.type == lib.NGP_H3_EVENT_STOP_SENDING
        ):
            kind = (
                StreamReset
                if event.type == lib.NGP_H3_EVENT_STREAM_RESET
                else StopSendingReceived
            )
            if event.session_id == lib.NGP_H3_NO_ID:
                return kind(event.value, event.stream_id)
            if lib.ngp_h3_wt_from_http(event.value, &error_code) == 0:
                return kind(error_code, event.stream_id, event.session_id)
            return kind(event.value, event.stream_id, event.session_id)
        if event.type == lib.NGP_H3_EVENT_ABORTED:
            return StreamAborted(
                ErrorCode(event.value),
                event.stream_id,
                self._take(event, None).decode("ascii"),
                or_none(event.push_id),
            )
        if event.type == lib.NGP_H3_EVENT_CAPSULE:
            return CapsuleReceived(
                event.value, self._take(event, None), event.stream_id
            )
        if event.type == lib.NGP_H3_EVENT_SESSION_DRAINED:
            return WebTransportSessionDrained(event.stream_id)
        if event.type == lib.NGP_H3_EVENT_SESSION_CLOSED:
            return WebTransportSessionClosed(
                event.stream_id,
                event.value,
                self._take(event, None).decode("utf-8", "replace"),
            )
        if event.type == lib.NGP_H3_EVENT_LOG_DATA_FRAME:
            self._log_frame(
                "frame_parsed",
                self._quic_logger.encode_http3_data_frame(
                    length=event.value, stream_id=event.stream_id
                ),
            )
        else:
            self._log_stream_type(
                event.stream_id, event.value, or_none(event.push_id)
            )
        return None

    cdef list _finish(self, int rv, bytes whole):
        """Return the events of the last input, and do what it asks for.

        ``whole`` is the input, if it is a bytes object, else ``None``.
        """
        cdef:
            size_t n = 0
            size_t i
            uint64_t code = 0
            const lib.ngp_h3_event *events
            const lib.nghttp3_qpack_nv *fields
            const lib.ngp_h3_phrase *phrase
            list result = []

        if rv == lib.NGP_H3_ERR_PROTOCOL:
            phrase = lib.ngp_h3_closing(self._h3, &code)
            self._quic.close(
                error_code=ErrorCode(code),
                reason_phrase=phrase.text[:phrase.len].decode("ascii"),
            )
            return result
        self._check(rv)
        events = lib.ngp_h3_events(self._h3, &n)
        fields = lib.ngp_h3_fields(self._h3)
        for i in range(n):
            event = self._new_event(&events[i], fields, whole)
            if event is not None:
                result.append(event)
        self._perform()
        return result

    def _log_frame(self, event, data):
        self._quic_logger.log_event(category="http", event=event, data=data)

    cdef int _log_stream_type(self, stream_id, stream_type, push_id=None) except -1:
        if self._quic_logger is None:
            return 0
        data = {
            "new": _STREAM_TYPE_NAMES.get(stream_type, "unknown"),
            "stream_id": stream_id,
        }
        if push_id is not None:
            data["associated_push_id"] = push_id
        self._quic_logger.log_event(
            category="http", event="stream_type_set", data=data
        )
        return 0

    # ---- What the QUIC connection received ----

    cdef list _receive_stream(
        self, int64_t stream_id, const uint8_t *data, size_t n, bint end_stream,
        bytes whole,
    ):
        """Take ``n`` bytes at ``data``, of which nothing is kept."""
        if not self._settings_known:
            self._learn_datagrams()
        return self._finish(
            lib.ngp_h3_recv_stream(self._h3, stream_id, data, n, end_stream), whole
        )

    cdef list _receive_datagram(self, const uint8_t *data, size_t n, bytes whole):
        return self._finish(lib.ngp_h3_recv_datagram(self._h3, data, n), whole)

    def _learn_datagrams(self):
        """Before SETTINGS are judged: may the peer send DATAGRAM frames?"""
        cdef size_t n = 0

        if lib.ngp_h3_peer_settings(self._h3, &n) != NULL:
            self._settings_known = True
        else:
            lib.ngp_h3_set_peer_datagrams(
                self._h3,
                getattr(self._quic, "_remote_max_datagram_frame_size", None)
                is not None,
            )

    cdef int _kind_of(self, event) except -1:
        for base in type(event).__mro__:
            kind = _KINDS.get(base.__name__)
            if kind is not None:
                break
        else:
            kind = NOTHING
        self._kinds[type(event)] = kind
        return kind

    def handle_event(self, event):
        """Take a QUIC event; return the HTTP/3 events that it causes, a list.

        If the peer has broken a rule, the QUIC connection is closed with the
        error code and the reason; from then on, nothing is returned.
        """
        cdef:
            int kind
            bytes data
            BufferLease lease

        self._require()
        if self._link.lease(event, &lease):
            try:
                if lease.kind == LEASE_STREAM:
                    return self._receive_stream(
                        lease.stream_id, lease.data, lease.len, lease.end_stream, None
                    )
                return self._receive_datagram(lease.data, lease.len, None)
            finally:
                self._link.release(&lease)
        known = self._kinds.get(type(event))
        kind = self._kind_of(event) if known is None else known
        if kind == STREAM_DATA:
            data = to_bytes(event.data)
            return self._receive_stream(
                event.stream_id,
                <const uint8_t *>PyBytes_AS_STRING(data),
                PyBytes_GET_SIZE(data),
                bool(event.end_stream),
                data,
            )
        if kind == DATAGRAM:
            data = to_bytes(event.data)
            return self._receive_datagram(
                <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data
            )
        if kind == STREAM_RESET:
            return self._finish(
                lib.ngp_h3_recv_reset(self._h3, event.stream_id, event.error_code),
                None,
            )
        if kind == STOP_SENDING:
            return self._finish(
                lib.ngp_h3_recv_stop_sending(
                    self._h3, event.stream_id, event.error_code
                ),
                None,
            )
        return []

    # ---- Settings ----

    @property
    def received_settings(self):
        """The peer's settings, a dict; ``None`` until they arrive."""
        cdef:
            size_t n = 0
            size_t i
            const lib.ngp_h3_setting *settings

        self._require()
        if self._received is None:
            settings = lib.ngp_h3_peer_settings(self._h3, &n)
            if settings != NULL:
                self._received = {settings[i].id: settings[i].value for i in range(n)}
        return self._received

    @property
    def sent_settings(self):
        """Our settings, a dict."""
        return self._sent
