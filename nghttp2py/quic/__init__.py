"""QUIC without I/O (RFC 9000, 9001, 9002, 9221, 9369), with aioquic's interface."""

try:
    from nghttp2py.quic.connection import QuicConnection
except ModuleNotFoundError as _error:
    if _error.name != "nghttp2py.quic.connection":
        raise
    raise ImportError(
        "nghttp2py was built without QUIC: install libngtcp2 1.11 or newer with its "
        "GnuTLS helper, and GnuTLS, with their headers (Debian: libngtcp2-dev, "
        "libngtcp2-crypto-gnutls-dev, libgnutls28-dev, for Debian 12 from "
        "bookworm-backports) and build nghttp2py again"
    ) from None

from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    PingAcknowledged,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from nghttp2py.quic.logger import QuicFileLogger, QuicLogger
from nghttp2py.quic.packet import QuicErrorCode, QuicProtocolVersion
from nghttp2py.quic.tls import SessionTicket

__all__ = [
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "ConnectionTerminated",
    "DatagramFrameReceived",
    "HandshakeCompleted",
    "PingAcknowledged",
    "ProtocolNegotiated",
    "QuicConfiguration",
    "QuicConnection",
    "QuicErrorCode",
    "QuicEvent",
    "QuicFileLogger",
    "QuicLogger",
    "QuicProtocolVersion",
    "SessionTicket",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
]
