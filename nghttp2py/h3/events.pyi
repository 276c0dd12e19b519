from dataclasses import dataclass

__all__ = [
    "CapsuleReceived",
    "DataReceived",
    "DatagramReceived",
    "GoAwayReceived",
    "H3Event",
    "Headers",
    "HeadersReceived",
    "MaxPushIdReceived",
    "OriginReceived",
    "PriorityUpdated",
    "PushCancelled",
    "PushPromiseReceived",
    "SettingsReceived",
    "StopSendingReceived",
    "StreamAborted",
    "StreamReset",
    "WebTransportSessionClosed",
    "WebTransportSessionDrained",
    "WebTransportStreamDataReceived",
]

Headers = list[tuple[bytes, bytes]]

class H3Event: ...

@dataclass
class DataReceived(H3Event):
    data: bytes
    stream_id: int
    stream_ended: bool
    push_id: int | None = None

@dataclass
class DatagramReceived(H3Event):
    data: bytes
    stream_id: int

@dataclass
class HeadersReceived(H3Event):
    headers: Headers
    stream_id: int
    stream_ended: bool
    push_id: int | None = None

@dataclass
class PushPromiseReceived(H3Event):
    headers: Headers
    push_id: int
    stream_id: int

@dataclass
class WebTransportStreamDataReceived(H3Event):
    data: bytes
    stream_id: int
    stream_ended: bool
    session_id: int

@dataclass
class SettingsReceived(H3Event):
    settings: dict[int, int]

@dataclass
class GoAwayReceived(H3Event):
    last_id: int

@dataclass
class MaxPushIdReceived(H3Event):
    max_push_id: int

@dataclass
class PushCancelled(H3Event):
    push_id: int

@dataclass
class PriorityUpdated(H3Event):
    priority: bytes
    stream_id: int | None = None
    push_id: int | None = None

@dataclass
class OriginReceived(H3Event):
    origins: list[bytes]

@dataclass
class StreamReset(H3Event):
    error_code: int
    stream_id: int
    session_id: int | None = None

@dataclass
class StopSendingReceived(H3Event):
    error_code: int
    stream_id: int
    session_id: int | None = None

@dataclass
class StreamAborted(H3Event):
    error_code: int
    stream_id: int
    reason: str
    push_id: int | None = None

@dataclass
class CapsuleReceived(H3Event):
    capsule_type: int
    data: bytes
    stream_id: int

@dataclass
class WebTransportSessionDrained(H3Event):
    session_id: int

@dataclass
class WebTransportSessionClosed(H3Event):
    session_id: int
    error_code: int
    reason: str
