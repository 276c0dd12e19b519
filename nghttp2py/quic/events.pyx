"""What happens on a QUIC connection, as values.

The names and fields are aioquic's.  Events compare by value, print themselves
and can be matched.
"""

from cython cimport dataclasses

__all__ = [
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "ConnectionTerminated",
    "DatagramFrameReceived",
    "HandshakeCompleted",
    "PingAcknowledged",
    "ProtocolNegotiated",
    "QuicEvent",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
]


cdef class QuicEvent:
    """Base of all events."""


@dataclasses.dataclass
cdef class ConnectionIdIssued(QuicEvent):
    """The peer is offered another connection id of ours (bytes)."""

    connection_id: object


@dataclasses.dataclass
cdef class ConnectionIdRetired(QuicEvent):
    """The peer will not use a connection id of ours any more (bytes)."""

    connection_id: object


@dataclasses.dataclass
cdef class ConnectionTerminated(QuicEvent):
    """The connection is over: the last event.

    ``frame_type`` is that of the frame that caused it, or ``None`` if it was the
    application; ``reason_phrase`` is a string.
    """

    error_code: object
    frame_type: object
    reason_phrase: object


@dataclasses.dataclass
cdef class DatagramFrameReceived(QuicEvent):
    """A DATAGRAM frame came in (RFC 9221); ``data`` is bytes."""

    data: object


@dataclasses.dataclass
cdef class HandshakeCompleted(QuicEvent):
    """The TLS handshake is complete.  ``alpn_protocol`` is a string or ``None``."""

    alpn_protocol: object
    early_data_accepted: object
    session_resumed: object


@dataclasses.dataclass
cdef class PingAcknowledged(QuicEvent):
    """The peer has acknowledged the PING frame of ``uid``."""

    uid: object


@dataclasses.dataclass
cdef class ProtocolNegotiated(QuicEvent):
    """ALPN has decided on a protocol, a string, or on none: ``None``."""

    alpn_protocol: object


@dataclasses.dataclass
cdef class StopSendingReceived(QuicEvent):
    """The peer wants no more on a stream; it has been reset in answer."""

    error_code: object
    stream_id: object


@dataclasses.dataclass
cdef class StreamDataReceived(QuicEvent):
    """The next bytes of a stream; ``end_stream`` is true with the last."""

    data: object
    end_stream: object
    stream_id: object


@dataclasses.dataclass
cdef class StreamReset(QuicEvent):
    """The peer has given up sending on a stream."""

    error_code: object
    stream_id: object
