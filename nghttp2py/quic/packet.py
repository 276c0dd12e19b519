"""Numbers and packet headers of QUIC, by aioquic's names."""

from enum import IntEnum

from nghttp2py.quic.header import (
    CONNECTION_ID_MAX_SIZE,
    PACKET_FIXED_BIT,
    PACKET_LONG_HEADER,
    PACKET_TYPE_INITIAL,
    QuicHeader,
    QuicPacketType,
    encode_quic_version_negotiation,
    is_long_header,
    pull_quic_header,
)

__all__ = [
    "CONNECTION_ID_MAX_SIZE",
    "PACKET_FIXED_BIT",
    "PACKET_LONG_HEADER",
    "PACKET_TYPE_INITIAL",
    "QuicErrorCode",
    "QuicFrameType",
    "QuicHeader",
    "QuicPacketType",
    "QuicProtocolVersion",
    "encode_quic_version_negotiation",
    "error_name",
    "is_long_header",
    "pull_quic_header",
]

# The alerts of TLS 1.3 (RFC 8446, 6; RFC 7301, 3.2) that end a handshake.
_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}


def error_name(error_code: int) -> str:
    """Return the name of a transport error code, or the number if it has none.

    A TLS alert is named as in RFC 8446, 6: ``CRYPTO_ERROR(no_application_protocol)``.
    """
    if QuicErrorCode.CRYPTO_ERROR <= error_code < QuicErrorCode.CRYPTO_ERROR + 0x100:
        alert = error_code - QuicErrorCode.CRYPTO_ERROR
        return f"CRYPTO_ERROR({_ALERTS.get(alert, alert)})"
    try:
        return QuicErrorCode(error_code).name
    except ValueError:
        return f"{error_code:#x}"


class QuicErrorCode(IntEnum):
    """Error codes of the transport (RFC 9000, 20.1).

    ``CRYPTO_ERROR`` is the first of 256: the TLS alert is added to it.
    """

    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    CONNECTION_REFUSED = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_LIMIT_ERROR = 0x4
    STREAM_STATE_ERROR = 0x5
    FINAL_SIZE_ERROR = 0x6
    FRAME_ENCODING_ERROR = 0x7
    TRANSPORT_PARAMETER_ERROR = 0x8
    CONNECTION_ID_LIMIT_ERROR = 0x9
    PROTOCOL_VIOLATION = 0xA
    INVALID_TOKEN = 0xB
    APPLICATION_ERROR = 0xC
    CRYPTO_BUFFER_EXCEEDED = 0xD
    KEY_UPDATE_ERROR = 0xE
    AEAD_LIMIT_REACHED = 0xF
    NO_VIABLE_PATH = 0x10
    VERSION_NEGOTIATION_ERROR = 0x11
    CRYPTO_ERROR = 0x100


class QuicFrameType(IntEnum):
    """Frame types (RFC 9000, 19; RFC 9221, 4)."""

    PADDING = 0x00
    PING = 0x01
    ACK = 0x02
    ACK_ECN = 0x03
    RESET_STREAM = 0x04
    STOP_SENDING = 0x05
    CRYPTO = 0x06
    NEW_TOKEN = 0x07
    STREAM_BASE = 0x08
    MAX_DATA = 0x10
    MAX_STREAM_DATA = 0x11
    MAX_STREAMS_BIDI = 0x12
    MAX_STREAMS_UNI = 0x13
    DATA_BLOCKED = 0x14
    STREAM_DATA_BLOCKED = 0x15
    STREAMS_BLOCKED_BIDI = 0x16
    STREAMS_BLOCKED_UNI = 0x17
    NEW_CONNECTION_ID = 0x18
    RETIRE_CONNECTION_ID = 0x19
    PATH_CHALLENGE = 0x1A
    PATH_RESPONSE = 0x1B
    TRANSPORT_CLOSE = 0x1C
    APPLICATION_CLOSE = 0x1D
    HANDSHAKE_DONE = 0x1E
    DATAGRAM = 0x30
    DATAGRAM_WITH_LENGTH = 0x31


class QuicProtocolVersion(IntEnum):
    """Versions of QUIC (RFC 9000, 15; RFC 9369, 3.1)."""

    NEGOTIATION = 0
    VERSION_1 = 0x00000001
    VERSION_2 = 0x6B3343CF
