from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias

from nghttp2py.h2.config import H2Configuration
from nghttp2py.h2.session import H2Session

__all__ = ["H2Connection", "is_h2_available"]

_Text: TypeAlias = str | bytes
_Buffer: TypeAlias = bytes | bytearray | memoryview
_Headers: TypeAlias = (
    Mapping[str, _Text]
    | Mapping[bytes, _Text]
    | Iterable[tuple[_Text, _Text] | tuple[_Text, _Text, bool]]
)

class _BinaryFile(Protocol):
    def read(self, n: int, /) -> bytes | None: ...

_Body: TypeAlias = (
    _Buffer
    | _BinaryFile
    | Iterable[_Buffer]
    | Callable[[int], tuple[_Buffer | None, int]]
)

def is_h2_available() -> bool: ...

class H2Connection(H2Session):
    def __new__(
        cls, *, client_side: bool = False, config: H2Configuration | None = None
    ) -> H2Connection: ...
    def send_request(
        self,
        method: _Text,
        target: _Text,
        headers: _Headers = (),
        *,
        scheme: _Text = b"https",
        authority: _Text | None = None,
        protocol: _Text | None = None,
        end_stream: bool | None = None,
    ) -> int: ...
    def send_headers(
        self, stream_id: int | None, headers: _Headers, end_stream: bool = False
    ) -> int: ...
    def send_response_headers(
        self,
        stream_id: int,
        status: int,
        headers: _Headers,
        end_stream: bool = False,
    ) -> None: ...
    def send_informational(
        self, stream_id: int, status: int, headers: _Headers = ()
    ) -> None: ...
    def send_trailers(self, stream_id: int, headers: _Headers) -> None: ...
    def push_stream(self, stream_id: int, headers: _Headers) -> int: ...
    @property
    def push_enabled(self) -> bool: ...
    def send_data(
        self, stream_id: int, data: _Buffer, end_stream: bool = False
    ) -> int: ...
    def send_body(
        self,
        stream_id: int,
        body: _Body,
        *,
        trailers: _Headers | None = None,
        end_stream: bool = True,
    ) -> None: ...
    def resume_body(self, stream_id: int) -> None: ...
    def end_stream(self, stream_id: int) -> None: ...
    def queued_body(self, stream_id: int = 0) -> int: ...
    def notify_drained(self, stream_id: int, low: int = 0) -> bool: ...
    def reset_stream(
        self, stream_id: int, error_code: int = ..., *, after_flush: bool = False
    ) -> None: ...
    def stream_ended(self, stream_id: int) -> bool: ...
    def remove_stream(self, stream_id: int) -> None: ...
    @property
    def active_stream_count(self) -> int: ...
    @property
    def queued_requests(self) -> int: ...
