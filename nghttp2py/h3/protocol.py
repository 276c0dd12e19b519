"""The registered numbers of HTTP/3, and the errors with a code.

The names are aioquic's; ``nghttp2py.h3.connection`` has them all.
"""

from enum import Enum, IntEnum

from nghttp2py import errors

H3_ALPN = ["h3"]


class ErrorCode(IntEnum):
    """Error codes of HTTP/3 and QPACK (RFC 9114, 8.1; RFC 9204, 6).

    The first is for datagrams and capsules (RFC 9297, 5.2), the last two are
    WebTransport's (draft-ietf-webtrans-http3, 9.5).
    """

    H3_DATAGRAM_ERROR = 0x33
    H3_NO_ERROR = 0x100
    H3_GENERAL_PROTOCOL_ERROR = 0x101
    H3_INTERNAL_ERROR = 0x102
    H3_STREAM_CREATION_ERROR = 0x103
    H3_CLOSED_CRITICAL_STREAM = 0x104
    H3_FRAME_UNEXPECTED = 0x105
    H3_FRAME_ERROR = 0x106
    H3_EXCESSIVE_LOAD = 0x107
    H3_ID_ERROR = 0x108
    H3_SETTINGS_ERROR = 0x109
    H3_MISSING_SETTINGS = 0x10A
    H3_REQUEST_REJECTED = 0x10B
    H3_REQUEST_CANCELLED = 0x10C
    H3_REQUEST_INCOMPLETE = 0x10D
    H3_MESSAGE_ERROR = 0x10E
    H3_CONNECT_ERROR = 0x10F
    H3_VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202
    WT_SESSION_GONE = 0x170D7B68
    WT_BUFFERED_STREAM_REJECTED = 0x3994BD84


class FrameType(IntEnum):
    """Frame types (RFC 9114, 7.2; RFC 9412; RFC 9218, 7.2)."""

    DATA = 0x0
    HEADERS = 0x1
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    GOAWAY = 0x7
    ORIGIN = 0xC
    MAX_PUSH_ID = 0xD
    WEBTRANSPORT_STREAM = 0x41
    PRIORITY_UPDATE_REQUEST = 0xF0700
    PRIORITY_UPDATE_PUSH = 0xF0701


class HeadersState(Enum):
    """How far a message has come, in one direction."""

    INITIAL = 0
    AFTER_HEADERS = 1
    AFTER_TRAILERS = 2


class Setting(IntEnum):
    """Settings (RFC 9114, 7.2.4.1; RFC 9204, 5; RFC 9220, 3; RFC 9297, 2.1.1).

    ``DUMMY`` is a reserved one, which must be ignored.  Those beyond these RFCs are of
    WebTransport's drafts, and of the datagrams before RFC 9297 that browsers still
    require.
    """

    QPACK_MAX_TABLE_CAPACITY = 0x1
    MAX_FIELD_SECTION_SIZE = 0x6
    QPACK_BLOCKED_STREAMS = 0x7
    ENABLE_CONNECT_PROTOCOL = 0x8
    DUMMY = 0x21
    H3_DATAGRAM = 0x33
    H3_DATAGRAM_DRAFT04 = 0xFFD277
    ENABLE_WEBTRANSPORT = 0x2B603742
    WT_ENABLED = 0x2C7CF000
    WEBTRANSPORT_MAX_SESSIONS = 0xC671706A


class StreamType(IntEnum):
    """Types of unidirectional streams (RFC 9114, 6.2; RFC 9204, 4.2)."""

    CONTROL = 0
    PUSH = 1
    QPACK_ENCODER = 2
    QPACK_DECODER = 3
    WEBTRANSPORT = 0x54


class ProtocolError(errors.ProtocolError):
    """A rule of HTTP/3 is broken.

    If the peer breaks it, the connection is closed with ``error_code`` and
    ``reason_phrase``, and nothing is raised.  If a call would break it, the call
    raises.
    """

    error_code = ErrorCode.H3_GENERAL_PROTOCOL_ERROR

    def __init__(self, reason_phrase: str = "") -> None:
        super().__init__(reason_phrase)
        self.reason_phrase = reason_phrase


class QpackDecompressionFailed(ProtocolError):
    """A field section cannot be decoded."""

    error_code = ErrorCode.QPACK_DECOMPRESSION_FAILED


class QpackDecoderStreamError(ProtocolError):
    """The decoder stream is malformed."""

    error_code = ErrorCode.QPACK_DECODER_STREAM_ERROR


class QpackEncoderStreamError(ProtocolError):
    """The encoder stream is malformed."""

    error_code = ErrorCode.QPACK_ENCODER_STREAM_ERROR


class ClosedCriticalStream(ProtocolError):
    """A critical stream was closed."""

    error_code = ErrorCode.H3_CLOSED_CRITICAL_STREAM


class DatagramError(ProtocolError):
    """A datagram or a capsule is malformed."""

    error_code = ErrorCode.H3_DATAGRAM_ERROR


class FrameError(ProtocolError):
    """A frame is malformed."""

    error_code = ErrorCode.H3_FRAME_ERROR


class FrameUnexpected(ProtocolError, errors.StreamStateError):
    """A frame is not allowed on this stream, or not now."""

    error_code = ErrorCode.H3_FRAME_UNEXPECTED


class IdError(ProtocolError):
    """An identifier is out of its range."""

    error_code = ErrorCode.H3_ID_ERROR


class MessageError(ProtocolError, errors.HeadersError):
    """A message is malformed."""

    error_code = ErrorCode.H3_MESSAGE_ERROR


class MissingSettingsError(ProtocolError):
    """The control stream does not begin with SETTINGS."""

    error_code = ErrorCode.H3_MISSING_SETTINGS


class SettingsError(ProtocolError):
    """A setting must not be sent, or not with this value."""

    error_code = ErrorCode.H3_SETTINGS_ERROR


class StreamCreationError(ProtocolError):
    """The peer opened a stream that it must not open."""

    error_code = ErrorCode.H3_STREAM_CREATION_ERROR
