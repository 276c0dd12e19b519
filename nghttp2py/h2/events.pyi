from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

__all__ = [
    "BodyReceived",
    "H2AlternativeServiceReceived",
    "H2BodyDrained",
    "H2BodyFailed",
    "H2BodyReceived",
    "H2ConnectionClosed",
    "H2Event",
    "H2ExtensionFrameReceived",
    "H2GoAway",
    "H2InformationalResponseReceived",
    "H2OriginReceived",
    "H2PingAcknowledged",
    "H2PingReceived",
    "H2PriorityUpdated",
    "H2PushedStreamReceived",
    "H2RequestReceived",
    "H2RequestSent",
    "H2ResponseReceived",
    "H2SettingsAcknowledged",
    "H2SettingsReceived",
    "H2StreamClosed",
    "H2StreamReset",
    "H2TrailersReceived",
    "H2WebSocketRequest",
    "H2WindowUpdated",
    "RequestReceived",
]

_Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

class RequestReceived:
    __match_args__: ClassVar[tuple[str, ...]]
    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        http_version: str = "2",
        *,
        scheme: bytes | None = None,
        authority: bytes | None = None,
        protocol: bytes | None = None,
        fields: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None: ...
    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def headers(self) -> _Fields: ...
    @property
    def http_version(self) -> str: ...
    @property
    def scheme(self) -> bytes | None: ...
    @property
    def authority(self) -> bytes | None: ...
    @property
    def protocol(self) -> bytes | None: ...
    @property
    def fields(self) -> _Fields: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@dataclass(frozen=True)
class BodyReceived:
    data: bytes
    more: bool

@dataclass(frozen=True)
class H2RequestReceived:
    stream_id: int
    request: RequestReceived

@dataclass(frozen=True)
class H2WebSocketRequest:
    stream_id: int
    request: RequestReceived
    ws_path: bytes

@dataclass(frozen=True)
class H2ResponseReceived:
    stream_id: int
    status: int
    headers: _Fields

@dataclass(frozen=True)
class H2InformationalResponseReceived:
    stream_id: int
    status: int
    headers: _Fields

@dataclass(frozen=True)
class H2TrailersReceived:
    stream_id: int
    headers: _Fields

@dataclass(frozen=True)
class H2PushedStreamReceived:
    stream_id: int
    parent_stream_id: int
    request: RequestReceived

@dataclass(frozen=True)
class H2BodyReceived:
    stream_id: int
    body: BodyReceived

@dataclass(frozen=True)
class H2StreamReset:
    stream_id: int
    error_code: int
    remote: bool = True
    unprocessed: bool = False
    reason: str = ""

@dataclass(frozen=True)
class H2StreamClosed:
    stream_id: int
    error_code: int
    body_bytes_sent: int = 0
    complete: bool = True

@dataclass(frozen=True)
class H2GoAway:
    last_stream_id: int
    error_code: int
    debug_data: bytes = b""

@dataclass(frozen=True)
class H2WindowUpdated:
    stream_id: int
    increment: int = 0

@dataclass(frozen=True)
class H2SettingsReceived:
    settings: dict[int, int]

@dataclass(frozen=True)
class H2SettingsAcknowledged:
    settings: dict[int, int]

@dataclass(frozen=True)
class H2PingReceived:
    data: bytes

@dataclass(frozen=True)
class H2PingAcknowledged:
    data: bytes

@dataclass(frozen=True)
class H2PriorityUpdated:
    stream_id: int
    priority: bytes

@dataclass(frozen=True)
class H2AlternativeServiceReceived:
    stream_id: int
    origin: bytes
    field_value: bytes

@dataclass(frozen=True)
class H2OriginReceived:
    origin: bytes

@dataclass(frozen=True)
class H2ExtensionFrameReceived:
    stream_id: int
    frame_type: int
    flags: int
    payload: bytes

@dataclass(frozen=True)
class H2RequestSent:
    stream_id: int

@dataclass(frozen=True)
class H2BodyDrained:
    stream_id: int

@dataclass(frozen=True)
class H2BodyFailed:
    stream_id: int
    exception: BaseException

@dataclass(frozen=True)
class H2ConnectionClosed:
    error_code: int
    remote: bool
    reason: str = ""

H2Event: TypeAlias = (
    H2AlternativeServiceReceived
    | H2BodyDrained
    | H2BodyFailed
    | H2BodyReceived
    | H2ConnectionClosed
    | H2ExtensionFrameReceived
    | H2GoAway
    | H2InformationalResponseReceived
    | H2OriginReceived
    | H2PingAcknowledged
    | H2PingReceived
    | H2PriorityUpdated
    | H2PushedStreamReceived
    | H2RequestReceived
    | H2RequestSent
    | H2ResponseReceived
    | H2SettingsAcknowledged
    | H2SettingsReceived
    | H2StreamClosed
    | H2StreamReset
    | H2TrailersReceived
    | H2WebSocketRequest
    | H2WindowUpdated
)
