from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from typing_extensions import Buffer

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
from nghttp2py.h3.events import H3Event as H3Event
from nghttp2py.h3.events import Headers as Headers
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

_Pairs = Iterable[tuple[bytes, bytes]]

def stream_is_request_response(stream_id: int) -> bool: ...

@dataclass
class H3Stream:
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

class H3Connection:
    def __init__(
        self,
        quic: Any,
        enable_webtransport: bool = False,
        *,
        config: H3Configuration | None = None,
    ) -> None: ...
    def handle_event(self, event: Any) -> list[H3Event]: ...
    @property
    def received_settings(self) -> dict[int, int] | None: ...
    @property
    def sent_settings(self) -> dict[int, int]: ...
    def send_headers(
        self, stream_id: int, headers: _Pairs, end_stream: bool = False
    ) -> None: ...
    def send_data(self, stream_id: int, data: Buffer, end_stream: bool) -> None: ...
    @property
    def next_push_id(self) -> int | None: ...
    def send_push_promise(self, stream_id: int, headers: _Pairs) -> int: ...
    def reset_stream(self, stream_id: int, error_code: int) -> None: ...
    def stop_stream(self, stream_id: int, error_code: int) -> None: ...
    def send_datagram(self, stream_id: int, data: Buffer) -> None: ...
    def send_goaway(self, last_id: int | None = None) -> None: ...
    def send_max_push_id(self, max_push_id: int) -> None: ...
    def cancel_push(self, push_id: int) -> None: ...
    def update_priority(
        self,
        priority: Buffer,
        *,
        stream_id: int | None = None,
        push_id: int | None = None,
    ) -> None: ...
    def priority(self, stream_id: int) -> tuple[int, bool]: ...
    def incomplete_frame(self, stream_id: int) -> int: ...
    def send_origin(self, origins: Iterable[bytes]) -> None: ...
    def create_webtransport_stream(
        self, session_id: int, is_unidirectional: bool = False
    ) -> int: ...
    def send_webtransport_data(
        self, stream_id: int, data: Buffer, end_stream: bool = False
    ) -> None: ...
    def close_webtransport_session(
        self, session_id: int, error_code: int = 0, reason: str = ""
    ) -> None: ...
    def drain_webtransport_session(self, session_id: int) -> None: ...
    def send_capsule(self, stream_id: int, capsule_type: int, data: Buffer) -> None: ...
    @staticmethod
    def webtransport_error_to_http(error_code: int) -> int: ...
