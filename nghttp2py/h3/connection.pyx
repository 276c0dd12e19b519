"""One end of an HTTP/3 connection (RFC 9114), without I/O.

It speaks through an object that is like aioquic's ``QuicConnection``: QUIC
events go in by ``handle_event``, which returns HTTP/3 events; calls go out as
calls of that object.  What the peer does wrong closes the QUIC connection.
What the caller does wrong raises.

The names of this module are aioquic's.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.h3.session cimport H3Session, or_none, to_id
from nghttp2py.octets cimport to_bytes

from dataclasses import dataclass

import nghttp2py.h3.events as _events
from nghttp2py.h3.exceptions import InvalidStreamTypeError
from nghttp2py.h3.headers import (
    is_interim_response,
    validate_header_name,
    validate_header_value,
    validate_push_promise_headers,
    validate_request_headers,
    validate_response_headers,
    validate_trailers,
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


# ---- Frames and settings, as functions ----


cdef bytes varint(value):
    cdef uint8_t dest[8]

    if not 0 <= value <= lib.NGP_MAX_VARINT:
        raise ValueError(
            f"{value} is not a variable-length integer (RFC 9000, 16)"
        )
    return PyBytes_FromStringAndSize(
        <const char *>dest, lib.ngp_put_varint(dest, value)
    )


def encode_frame(frame_type, frame_data):
    """Return a frame (RFC 9114, 7.1)."""
    return varint(frame_type) + varint(len(frame_data)) + frame_data


def encode_settings(settings):
    """Return the payload of SETTINGS (RFC 9114, 7.2.4)."""
    return b"".join(
        varint(number) for setting in settings.items() for number in setting
    )


def parse_max_push_id(bytes data not None):
    """Return the push identifier in the payload of MAX_PUSH_ID (RFC 9114, 7.2.7).

    Raises ``FrameError`` unless it is one number.
    """
    cdef:
        uint64_t value = 0
        size_t n = lib.ngp_get_varint(
            <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &value
        )

    if n == 0:
        raise FrameError("Could not parse MAX_PUSH_ID frame")
    if n < <size_t>PyBytes_GET_SIZE(data):
        raise FrameError("MAX_PUSH_ID frame has trailing data")
    return value


def parse_settings(bytes data not None):
    """Return the settings in the payload of SETTINGS, a dict (RFC 9114, 7.2.4).

    Raises ``FrameError`` if it is malformed, and ``SettingsError`` for one
    that comes twice or is reserved.
    """
    cdef:
        size_t size = PyBytes_GET_SIZE(data)
        size_t n = 0
        size_t i
        uint64_t identifier = 0
        int rv
        lib.ngp_h3_setting *settings = <lib.ngp_h3_setting *>PyMem_Malloc(
            (size // 2 + 1) * sizeof(lib.ngp_h3_setting)
        )

    if settings == NULL:
        raise MemoryError
    try:
        rv = lib.ngp_h3_parse_settings(
            <const uint8_t *>PyBytes_AS_STRING(data), size, settings, &n, &identifier
        )
        if rv == lib.NGP_H3_SETTINGS_TRUNCATED:
            raise FrameError("Could not parse SETTINGS frame")
        if rv == lib.NGP_H3_SETTINGS_RESERVED:
            raise SettingsError(f"Setting identifier {identifier:#x} is reserved")
        if rv == lib.NGP_H3_SETTINGS_TWICE:
            raise SettingsError(f"Setting identifier {identifier:#x} is included twice")
        return {settings[i].id: settings[i].value for i in range(n)}
    finally:
        PyMem_Free(settings)


def stream_is_request_response(stream_id):
    """Tell whether it is a bidirectional stream that a client opened."""
    return stream_id % 4 == 0


# As in aioquic, they are here, too.
H3Event = _events.H3Event
Headers = _events.Headers

_HEADERS_STATES = tuple(HeadersState)


@dataclass
class H3Stream:
    """A look at one stream, for debugging: a copy of its state."""

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


cdef class H3Connection(H3Session):
    """One end of an HTTP/3 connection over ``quic``, which is like QuicConnection.

    Of ``quic`` it uses ``configuration.is_client``, ``_quic_logger`` and
    ``_remote_max_datagram_frame_size``; ``get_next_available_stream_id``,
    ``send_stream_data``, ``send_datagram_frame``, ``reset_stream``,
    ``stop_stream`` and ``close``.  The control stream, SETTINGS, MAX_PUSH_ID (of
    a client) and the QPACK streams are sent at once.

    ``config`` is an ``H3Configuration``; ``enable_webtransport`` announces
    WebTransport.
    """

    # ---- Messages ----

    def send_headers(self, stream_id, headers, end_stream=False):
        """Send a header section, or trailers, on the stream.

        ``headers`` is an iterable of pairs of bytes.  A server may send 1xx
        responses before the final one.

        Raises ``FrameUnexpected`` if HEADERS cannot follow what was sent;
        ``MessageError`` if the headers must not be sent (unless
        ``validate_outbound`` is off); ``GoingAwayError`` if the server takes no
        more requests; ``HeaderListTooLargeError`` if they are larger than the
        peer takes.  With ``H3Configuration.extended``, an Extended CONNECT
        raises ``NotEnabledError`` until the peer's settings allow it; and
        ``InvalidBodyLengthError`` is raised if the message ends here, but its
        body is shorter than its content-length (RFC 9114, 4.1.2).
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
        if not lib.ngp_h3_get_config(self._h3).server:
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

        It does what ``quic.reset_stream`` does, and frees what is kept of the
        stream here.  A no-op if our side has ended, or there is no such stream.
        Raises ``ValueError`` unless ``error_code`` is 0 to 2**62 - 1.
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

        It does what ``quic.stop_stream`` does, and no event follows for that side
        of the stream.  A no-op, and raises, as ``reset_stream``.
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

        ``data`` is bytes-like; the peer may not take it, and the network may lose it.
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
        """Take no more requests (as a server) or pushes (as a client).

        Those from ``last_id`` on are rejected (RFC 9114, 5.2).  Without it, a
        server names the first that it has not seen, and a client 0.  To shut
        down gracefully, a server sends 2**62 - 4, and a round trip later again
        without a number.

        Raises ``ValueError`` if it is larger than before, or if a server's is
        not that of a request.
        """
        self._require()
        if last_id is None:
            last_id = (
                lib.ngp_h3_next_request(self._h3)
                if lib.ngp_h3_get_config(self._h3).server
                else 0
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
        """Give up a push: not wanted, or not to come (RFC 9114, 7.2.3).

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

        They are the request's, or those of the last PRIORITY_UPDATE; (3, False)
        if the client has said nothing.
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
        """Return the number, from 1, of the frame of which more must come on a
        stream, or 0.

        A peer may keep it waiting for ever: bound it in time.  Frames of DATA do not
        count once their header is complete; a section that waits for QPACK's encoder
        stream does, and the type of a unidirectional stream.
        """
        self._require()
        return lib.ngp_h3_incomplete_frame(self._h3, to_id(stream_id, "stream_id"))

    def send_origin(self, origins):
        """Say for which origins, bytes like ``b"https://a.example"``, we answer
        (RFC 9412).

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

        Its bytes are sent by ``send_webtransport_data``, or straight by the
        QUIC connection.  With ``H3Configuration.extended``, raises
        ``InvalidStreamTypeError`` if there is no such session.
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

        ``quic.send_stream_data`` does so too, but leaves the state of a stream
        here until its session is closed.
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
        """Map an application's error code, 0 to 2**32 - 1, to the one that goes over
        the wire (draft-ietf-webtrans-http3, 4.4)."""
        return lib.ngp_h3_wt_to_http(error_code)

    # ---- For debugging: what aioquic's own tests look at ----

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
