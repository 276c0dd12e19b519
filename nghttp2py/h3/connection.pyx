"""One end of an HTTP/3 connection (RFC 9114), without I/O.

It works on an object like aioquic's ``QuicConnection``: ``handle_event`` takes QUIC
events and returns HTTP/3 events; what is to be sent becomes calls of that object.  An
error of the peer closes the QUIC connection.  A mistake of the caller raises.

The names of this module are aioquic's.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.cngp_pool cimport ngp_mem_default
from nghttp2py.h3.convert cimport (
    JOIN_COOKIES,
    STRIP_VALUES,
    FieldList,
    make_headers,
    names_free,
    pairs_free,
    or_none,
    split_origins,
    to_id,
)
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
from nghttp2py.link cimport LEASE_STREAM, BufferLease, link_to
from nghttp2py.octets cimport to_bytes

from dataclasses import dataclass

import nghttp2py.h3.events as _events
from nghttp2py.errors import (
    HeaderListTooLargeError,
    InvalidBodyLengthError,
    NGHTTP2Error,
)
from nghttp2py.h3.config import H3Configuration
from nghttp2py.h3.convert import (
    encode_frame,
    encode_settings,
    is_interim_response,
    parse_max_push_id,
    parse_settings,
    validate_header_name,
    validate_header_value,
    validate_push_promise_headers,
    validate_request_headers,
    validate_response_headers,
    validate_trailers,
)
from nghttp2py.h3.exceptions import (
    GoingAwayError,
    InvalidStreamTypeError,
    NoAvailablePushIDError,
    NotEnabledError,
)
from nghttp2py.h3.protocol import (
    H3_ALPN,
    ClosedCriticalStream,
    DatagramError,
    ErrorCode,
    FrameError,
    FrameType,
    FrameUnexpected,
    HeadersState,
    IdError,
    MessageError,
    MissingSettingsError,
    ProtocolError,
    QpackDecoderStreamError,
    QpackDecompressionFailed,
    QpackEncoderStreamError,
    Setting,
    SettingsError,
    StreamCreationError,
    StreamType,
)

__all__ = [
    "H3_ALPN",
    "ClosedCriticalStream",
    "DatagramError",
    "ErrorCode",
    "FrameError",
    "FrameType",
    "FrameUnexpected",
    "H3Connection",
    "H3Stream",
    "HeadersState",
    "IdError",
    "MessageError",
    "MissingSettingsError",
    "ProtocolError",
    "QpackDecoderStreamError",
    "QpackDecompressionFailed",
    "QpackEncoderStreamError",
    "Setting",
    "SettingsError",
    "StreamCreationError",
    "StreamType",
    "encode_frame",
    "encode_settings",
    "is_interim_response",
    "parse_max_push_id",
    "parse_settings",
    "stream_is_request_response",
    "validate_header_name",
    "validate_header_value",
    "validate_push_promise_headers",
    "validate_request_headers",
    "validate_response_headers",
    "validate_trailers",
]

cdef enum Kind:
    NOTHING
    STREAM_DATA
    STREAM_RESET
    STOP_SENDING
    DATAGRAM


# The QUIC events that are handled, by name: they may be aioquic's, ours, or those of
# another package.
_KINDS = {
    "StreamDataReceived": STREAM_DATA,
    "DatagramFrameReceived": DATAGRAM,
    "StreamReset": STREAM_RESET,
    "StopSendingReceived": STOP_SENDING,
}

_STREAM_TYPE_NAMES = {kind.value: kind.name.lower() for kind in StreamType}


def stream_is_request_response(stream_id):
    """Return whether it is a bidirectional stream that a client opened."""
    return stream_id % 4 == 0


# aioquic has these names in this module, too.
H3Event = _events.H3Event
Headers = _events.Headers

_HEADERS_STATES = tuple(HeadersState)


@dataclass
class H3Stream:
    """A copy of the state of one stream, for debugging."""

    stream_id: int
    stream_type: int | None
    blocked: bool
    buffer: bytes
    receiving_ended: bool
    sending_ended: bool
    frame_type: int | None
    frame_size: int | None
    headers_recv_state: HeadersState
    headers_send_state: HeadersState
    push_id: int | None
    session_id: int | None


cdef class H3Connection:
    """One end of an HTTP/3 connection over ``quic``, which is like QuicConnection.

    It uses these members of ``quic``: ``configuration.is_client``, ``_quic_logger`` and
    ``_remote_max_datagram_frame_size``; ``get_next_available_stream_id``,
    ``send_stream_data``, ``send_datagram_frame``, ``reset_stream``, ``stop_stream`` and
    ``close``.  The control stream, SETTINGS, MAX_PUSH_ID (of a client) and the QPACK
    streams are sent at once.

    ``config`` is an ``H3Configuration``; ``enable_webtransport`` announces
    WebTransport.
    """

    # Sphinx would read the asterisk of the signature as emphasis.
    @cython.embedsignature(False)
    def __init__(self, quic, enable_webtransport=False, *, config=None):
        cdef lib.ngp_h3_options options

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

        lib.ngp_h3_options_default(&options)
        options.is_client = bool(quic.configuration.is_client)
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
        self._check(lib.ngp_h3_new(&self._h3, &options, ngp_mem_default()))
        self._start(enable_webtransport, options.is_client)

    def __dealloc__(self):
        names_free(&self._names)
        if self._h3 != NULL:
            pairs_free(lib.ngp_h3_pairs(self._h3))
        lib.ngp_h3_del(self._h3)

    def _start(self, webtransport, is_client):
        """Open our streams and send our SETTINGS (RFC 9114, 3.2)."""
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
        # GOAWAY and the QPACK streams must not wait behind bodies.
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
        """Make the calls to the QUIC connection that the last call recorded."""
        cdef:
            size_t n = 0
            size_t i
            size_t size = 0
            const lib.ngp_h3_op *ops = lib.ngp_h3_ops(self._h3, &n)
            const uint8_t *output = lib.ngp_h3_output(self._h3)
            bytes kept_ops
            bytes kept_output

        if n > 1 and self._link.calls_python:
            # The QUIC connection may call us, which invalidates both pointers.
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
                    ops[i].end_stream,
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
            # The application may have ended a WebTransport stream by itself.
            if not best_effort:
                raise
        return 0

    cdef bytes _take(self, const lib.ngp_h3_event *event, bytes whole):
        """Return the event's data, without a copy if it is the whole input."""
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
            data.stream_ended = bool(event.end_stream)
            data.push_id = or_none(event.push_id)
            return data
        if event.type == lib.NGP_H3_EVENT_HEADERS:
            headers = HeadersReceived.__new__(HeadersReceived)
            headers.headers = make_headers(
                &self._names, lib.ngp_h3_pairs(self._h3), fields + event.field,
                event.nfields, self._changes,
            )
            headers.stream_id = event.stream_id
            headers.stream_ended = bool(event.end_stream)
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
                &self._names, lib.ngp_h3_pairs(self._h3), fields + event.field,
                event.nfields, self._changes,
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
            stream_data.stream_ended = bool(event.end_stream)
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
        """Return the events of the last input, and make the calls that it requires.

        ``whole`` is the input if it is a bytes object, otherwise ``None``.
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
        """Handle ``n`` bytes at ``data``, to which no reference is kept."""
        if not self._settings_known:
            self._learn_datagrams()
        return self._finish(
            lib.ngp_h3_recv_stream(self._h3, stream_id, data, n, end_stream), whole
        )

    cdef list _receive_datagram(self, const uint8_t *data, size_t n, bytes whole):
        return self._finish(lib.ngp_h3_recv_datagram(self._h3, data, n), whole)

    def _learn_datagrams(self):
        """Set whether the peer may send DATAGRAM frames, before SETTINGS are
        checked."""
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
        """Handle a QUIC event; return the HTTP/3 events that it causes, a list.

        If the peer has broken a rule, the QUIC connection is closed with the error code
        and the reason; later calls return an empty list.
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

    # ---- Messages ----

    def send_headers(self, stream_id, headers, end_stream=False):
        """Send a header section, or trailers, on the stream.

        ``headers`` is an iterable of pairs of bytes; a third item that is true keeps
        a field out of QPACK's table, as ``NeverIndexed`` does (RFC 9204, 7.1).  A
        server may send 1xx responses before the final one.

        Raises ``FrameUnexpected`` if HEADERS cannot follow what was sent;
        ``MessageError`` if the headers must not be sent (unless ``validate_outbound``
        is off); ``GoingAwayError`` if the server accepts no more requests;
        ``HeaderListTooLargeError`` if they are larger than the peer accepts.  With
        ``H3Configuration.extended``, an Extended CONNECT raises ``NotEnabledError``
        until the peer's settings allow it; and ``InvalidBodyLengthError`` is raised if
        the message ends here, but its body is shorter than its content-length (RFC
        9114, 4.1.2).
        """
        cdef int64_t stream = to_id(stream_id, "stream_id")

        self._require()
        self._fields.fill(headers)
        try:
            self._check(
                lib.ngp_h3_send_headers(
                    self._h3,
                    stream,
                    self._fields.nva,
                    self._fields.nvlen,
                    bool(end_stream),
                    self._validate,
                )
            )
            if self._quic_logger is not None:
                self._log_frame(
                    "frame_created",
                    self._quic_logger.encode_http3_headers_frame(
                        length=lib.ngp_h3_section_len(self._h3),
                        headers=list(self._fields._pairs),
                        stream_id=stream_id,
                    ),
                )
        finally:
            self._fields.clear()
        self._perform()

    def send_data(self, stream_id, data, end_stream):
        """Send ``data``, bytes-like, as one DATA frame.

        Raises ``FrameUnexpected`` unless the stream's headers were sent, and
        no trailers.  With ``H3Configuration.extended`` it raises
        ``InvalidBodyLengthError``, and sends nothing, if the body would not have
        the length that content-length states, or if the response must not have
        one: that to HEAD, 204 and 304 (RFC 9110, 6.4.1).
        """
        cdef:
            int64_t stream = to_id(stream_id, "stream_id")
            uint8_t header[lib.NGP_H3_MAX_FRAME_HEADER]
            size_t n = 0
            bint fin = bool(end_stream)
            bytes body = to_bytes(data)

        self._require()
        self._check(
            lib.ngp_h3_send_data(
                self._h3, stream, PyBytes_GET_SIZE(body), fin, header, &n
            )
        )
        if self._quic_logger is not None:
            self._log_frame(
                "frame_created",
                self._quic_logger.encode_http3_data_frame(
                    length=len(body), stream_id=stream_id
                ),
            )
        self._link.send(stream, header, n, body, fin)

    @property
    def next_push_id(self):
        """The identifier of the next push that a server promises (RFC 9114, 4.6).

        ``None`` if the client allows none, or no more, and for a client.
        """
        return or_none(lib.ngp_h3_next_push_id(self._h3))

    def send_push_promise(self, stream_id, headers):
        """Promise a response to the request ``headers`` (RFC 9114, 4.6).

        Returns the stream on which the response is then sent.  Raises
        ``RuntimeError`` for a client, ``InvalidStreamTypeError`` if
        ``stream_id`` is not a request, ``NoAvailablePushIDError`` if the client
        allows no push or no more of them, ``MessageError`` as
        ``send_headers`` does.
        """
        cdef:
            int64_t stream = to_id(stream_id, "stream_id")
            int64_t push_id = 0

        self._require()
        if lib.ngp_h3_get_options(self._h3).is_client:
            raise RuntimeError("Only servers may send a push promise.")
        self._fields.fill(headers)
        try:
            self._check(
                lib.ngp_h3_send_push_promise(
                    self._h3,
                    stream,
                    self._fields.nva,
                    self._fields.nvlen,
                    self._validate,
                    &push_id,
                )
            )
        finally:
            self._fields.clear()
        self._perform()
        push_stream_id = self._quic.get_next_available_stream_id(
            is_unidirectional=True
        )
        self._log_stream_type(push_stream_id, StreamType.PUSH, push_id)
        self._check(lib.ngp_h3_open_push(self._h3, push_stream_id, push_id))
        self._perform()
        return push_stream_id

    def reset_stream(self, stream_id, error_code):
        """Break off what we send on a request or push stream (RFC 9114, 4.1.1).

        It calls ``quic.reset_stream``, and frees the state of the stream here.  A no-op
        if our side has ended, or there is no such stream. Raises ``ValueError`` unless
        ``error_code`` is 0 to 2**62 - 1.
        """
        self._require()
        self._check(
            lib.ngp_h3_reset_stream(
                self._h3,
                to_id(stream_id, "stream_id"),
                to_id(error_code, "the error code"),
            )
        )
        self._perform()

    def stop_stream(self, stream_id, error_code):
        """Ask the peer to send no more on a stream, and drop what still comes.

        It calls ``quic.stop_stream``; no event follows for that side of the stream.  A
        no-op in the same cases as ``reset_stream``, and raises the same.
        """
        self._require()
        self._check(
            lib.ngp_h3_stop_stream(
                self._h3,
                to_id(stream_id, "stream_id"),
                to_id(error_code, "the error code"),
            )
        )
        self._perform()

    def send_datagram(self, stream_id, data):
        """Send a datagram that belongs to the request ``stream_id`` (RFC 9297, 2.1).

        ``data`` is bytes-like; the peer may drop it, and the network may lose it.
        Raises ``InvalidStreamTypeError`` if ``stream_id`` is not a request.
        """
        cdef:
            uint8_t header[8]
            size_t n = 0
            bytes payload

        self._require()
        self._check(
            lib.ngp_h3_datagram_header(to_id(stream_id, "stream_id"), header, &n)
        )
        payload = to_bytes(data)
        self._link.send_datagram(header, n, payload)

    # ---- The connection as a whole ----

    def send_goaway(self, last_id=None):
        """Send GOAWAY: accept no more requests (as a server) or pushes (as a client).

        Those from ``last_id`` on are rejected (RFC 9114, 5.2).  By default it is the
        first that a server has not seen, and 0 for a client.  To shut down gracefully,
        a server calls this with 2**62 - 4, and a round trip later without an argument.

        Raises ``ValueError`` if ``last_id`` is larger than before, or, for a server, is
        not that of a request.
        """
        self._require()
        if last_id is None:
            last_id = (
                0
                if lib.ngp_h3_get_options(self._h3).is_client
                else lib.ngp_h3_next_request(self._h3)
            )
        self._check(lib.ngp_h3_send_goaway(self._h3, to_id(last_id, "last_id")))
        self._perform()

    def send_max_push_id(self, max_push_id):
        """Let the server push up to and including ``max_push_id`` (RFC 9114, 7.2.7).

        Raises ``ValueError`` if it is smaller than before, ``RuntimeError`` for
        a server.
        """
        self._require()
        self._send_max_push_id(max_push_id)

    def cancel_push(self, push_id):
        """Cancel a push, as the client or as the server (RFC 9114, 7.2.3).

        A client that has the push stream already asks to stop it as well, with
        ``quic.stop_stream``.  Raises ``ValueError`` if the number was never
        allowed or promised.
        """
        self._require()
        self._check(
            lib.ngp_h3_send_cancel_push(self._h3, to_id(push_id, "push_id"))
        )
        self._perform()

    def update_priority(self, priority, *, stream_id=None, push_id=None):
        """Send PRIORITY_UPDATE for a request or a push (RFC 9218, 7.2).

        ``priority`` is a priority field value, such as ``b"u=1, i"``.  Raises
        ``RuntimeError`` for a server, ``InvalidStreamTypeError`` if
        ``stream_id`` is not a request.
        """
        cdef:
            bytes value = to_bytes(priority)
            bint push = push_id is not None

        self._require()
        if push == (stream_id is not None):
            raise TypeError("one of stream_id and push_id must be given")
        self._check(
            lib.ngp_h3_send_priority_update(
                self._h3,
                to_id(push_id if push else stream_id, "the identifier"),
                push,
                <const uint8_t *>PyBytes_AS_STRING(value),
                PyBytes_GET_SIZE(value),
            )
        )
        self._perform()

    def priority(self, stream_id):
        """Return urgency (0 to 7) and incremental of the response (RFC 9218, 4).

        They are the request's, or those of the last PRIORITY_UPDATE; (3, False) if the
        client has sent neither.
        """
        cdef:
            int incremental = 0
            int urgency

        self._require()
        urgency = lib.ngp_h3_priority(
            self._h3, to_id(stream_id, "stream_id"), &incremental
        )
        return urgency, bool(incremental)

    def incomplete_frame(self, stream_id):
        """Return the number, from 1, of the frame that is incomplete on a stream, or 0.

        A peer may never complete it: the caller should bound the time.  A DATA frame
        counts only until its header is complete.  A section that is blocked on QPACK's
        encoder stream counts, and so does the type of a unidirectional stream.
        """
        self._require()
        return lib.ngp_h3_incomplete_frame(self._h3, to_id(stream_id, "stream_id"))

    def send_origin(self, origins):
        """Send ORIGIN with the origins, like ``b"https://a.example"``, that we are
        authoritative for (RFC 9412).

        Raises ``RuntimeError`` for a client, ``OverflowError`` for an origin of more
        than 65,535 bytes.
        """
        cdef bytes payload

        self._require()
        payload = b"".join(
            len(origin).to_bytes(2, "big") + to_bytes(origin) for origin in origins
        )
        self._check(
            lib.ngp_h3_send_origin(
                self._h3,
                <const uint8_t *>PyBytes_AS_STRING(payload),
                PyBytes_GET_SIZE(payload),
            )
        )
        self._perform()

    # ---- WebTransport and capsules ----

    def create_webtransport_stream(self, session_id, is_unidirectional=False):
        """Open a stream of the WebTransport session; return its identifier.

        Send its bytes by ``send_webtransport_data``, or by the QUIC connection itself.
        With ``H3Configuration.extended``, raises ``InvalidStreamTypeError`` if there is
        no such session.
        """
        cdef:
            int64_t session = to_id(session_id, "session_id")
            bint uni = bool(is_unidirectional)

        self._require()
        if (
            self._config.extended
            and lib.ngp_h3_session_is_open(self._h3, session) == 0
        ):
            raise InvalidStreamTypeError(f"{session_id} is not an open session")
        stream_id = (
            self._quic.get_next_available_stream_id(is_unidirectional=True)
            if uni
            else self._quic.get_next_available_stream_id()
        )
        self._log_stream_type(stream_id, StreamType.WEBTRANSPORT)
        self._check(
            lib.ngp_h3_open_webtransport(self._h3, stream_id, session, uni)
        )
        self._perform()
        return stream_id

    def send_webtransport_data(self, stream_id, data, end_stream=False):
        """Send ``data`` as it is on a stream of a WebTransport session.

        ``quic.send_stream_data`` can be used, too, but then the state of the stream is
        kept here until its session is closed.
        """
        cdef int64_t stream = to_id(stream_id, "stream_id")

        self._require()
        self._link.send(stream, NULL, 0, to_bytes(data), bool(end_stream))
        if end_stream:
            lib.ngp_h3_end_webtransport(self._h3, stream)

    def close_webtransport_session(self, session_id, error_code=0, reason=""):
        """Close the session, and abort its streams.

        ``error_code`` is 0 to 2**32 - 1, ``reason`` at most 1,024 bytes of UTF-8.
        Needs ``H3Configuration.extended``.  Raises ``InvalidStreamTypeError`` if
        there is no such session, ``ValueError`` for a longer reason.
        """
        cdef bytes message = reason.encode()

        self._require()
        self._check(
            lib.ngp_h3_close_session(
                self._h3,
                to_id(session_id, "session_id"),
                error_code,
                <const uint8_t *>PyBytes_AS_STRING(message),
                PyBytes_GET_SIZE(message),
            )
        )
        self._perform()

    def drain_webtransport_session(self, session_id):
        """Ask the peer to close the session soon.

        Raises ``InvalidStreamTypeError`` if there is no such session.
        """
        self._require()
        self._check(
            lib.ngp_h3_drain_session(self._h3, to_id(session_id, "session_id"))
        )
        self._perform()

    def send_capsule(self, stream_id, capsule_type, data):
        """Send a capsule on the stream of a CONNECT request (RFC 9297, 3.2).

        Raises as ``send_data`` does.
        """
        cdef bytes value = to_bytes(data)

        self._require()
        self._check(
            lib.ngp_h3_send_capsule(
                self._h3,
                to_id(stream_id, "stream_id"),
                to_id(capsule_type, "capsule_type"),
                <const uint8_t *>PyBytes_AS_STRING(value),
                PyBytes_GET_SIZE(value),
            )
        )
        self._perform()

    @staticmethod
    def webtransport_error_to_http(error_code):
        """Map an application's error code, 0 to 2**32 - 1, to the code of HTTP/3 that
        is sent (draft-ietf-webtrans-http3, 4.4)."""
        return lib.ngp_h3_wt_to_http(error_code)

    # ---- For debugging: attributes that aioquic's tests read ----

    @property
    def _stream(self):
        cdef:
            size_t place = 0
            lib.ngp_h3_stream_info info
            dict streams = {}

        self._require()
        while lib.ngp_h3_next_stream(self._h3, &place, &info):
            streams[info.stream_id] = H3Stream(
                stream_id=info.stream_id,
                stream_type=(
                    None if info.type >= lib.NGP_H3_STREAM_REQUEST else info.type
                ),
                blocked=bool(info.blocked),
                buffer=PyBytes_FromStringAndSize(
                    <const char *>info.buffer, info.buffer_len
                ),
                receiving_ended=bool(info.recv_ended),
                sending_ended=bool(info.send_ended),
                frame_type=info.frame_type if info.in_frame else None,
                frame_size=info.frame_size if info.in_frame else None,
                headers_recv_state=_HEADERS_STATES[info.recv_state],
                headers_send_state=_HEADERS_STATES[info.send_state],
                push_id=or_none(info.push_id),
                session_id=or_none(info.session_id),
            )
        return dict(sorted(streams.items()))

    @property
    def _max_push_id(self):
        return or_none(lib.ngp_h3_max_push_id(self._h3))

    @property
    def _local_control_stream_id(self):
        return lib.ngp_h3_local_stream(self._h3, lib.NGP_H3_STREAM_CONTROL)

    @property
    def _local_encoder_stream_id(self):
        return lib.ngp_h3_local_stream(self._h3, lib.NGP_H3_STREAM_QPACK_ENCODER)

    @property
    def _local_decoder_stream_id(self):
        return lib.ngp_h3_local_stream(self._h3, lib.NGP_H3_STREAM_QPACK_DECODER)

    @property
    def _encoder_bytes_sent(self):
        return lib.ngp_h3_get_qpack_bytes(self._h3).encoder_sent

    @property
    def _encoder_bytes_received(self):
        return lib.ngp_h3_get_qpack_bytes(self._h3).encoder_received

    @property
    def _decoder_bytes_sent(self):
        return lib.ngp_h3_get_qpack_bytes(self._h3).decoder_sent

    @property
    def _decoder_bytes_received(self):
        return lib.ngp_h3_get_qpack_bytes(self._h3).decoder_received
