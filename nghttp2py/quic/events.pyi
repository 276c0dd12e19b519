from dataclasses import dataclass

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

class QuicEvent: ...

@dataclass
class ConnectionIdIssued(QuicEvent):
    connection_id: bytes

@dataclass
class ConnectionIdRetired(QuicEvent):
    connection_id: bytes

@dataclass
class ConnectionTerminated(QuicEvent):
    error_code: int
    frame_type: int | None
    reason_phrase: str

@dataclass
class DatagramFrameReceived(QuicEvent):
    data: bytes

@dataclass
class HandshakeCompleted(QuicEvent):
    alpn_protocol: str | None
    early_data_accepted: bool
    session_resumed: bool

@dataclass
class PingAcknowledged(QuicEvent):
    uid: int

@dataclass
class ProtocolNegotiated(QuicEvent):
    alpn_protocol: str | None

@dataclass
class StopSendingReceived(QuicEvent):
    error_code: int
    stream_id: int

@dataclass
class StreamDataReceived(QuicEvent):
    data: bytes
    end_stream: bool
    stream_id: int
    @property
    def early_data(self) -> bool: ...
    @early_data.setter
    def early_data(self, value: bool) -> None: ...

@dataclass
class StreamReset(QuicEvent):
    error_code: int
    stream_id: int
