from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.h2 import H2Configuration, H2Event

__all__ = ["BaseRequestHandler", "HandlerProtocol"]

_Text: TypeAlias = str | bytes
_Buffer: TypeAlias = bytes | bytearray | memoryview
_Headers: TypeAlias = (
    Mapping[str, _Text]
    | Mapping[bytes, _Text]
    | Iterable[tuple[_Text, _Text] | tuple[_Text, _Text, bool]]
    | None
)

class _BinaryFile(Protocol):
    def read(self, n: int, /) -> bytes | None: ...

_Body: TypeAlias = (
    str
    | _Buffer
    | _BinaryFile
    | Iterable[_Buffer]
    | AsyncIterable[_Buffer]
    | Callable[[int], tuple[_Buffer | None, int]]
    | None
)

class BaseRequestHandler:
    http2: HandlerProtocol
    stream_id: int
    method: bytes
    path: bytes
    scheme: bytes | None
    status: int | None
    pushed: bool
    headers: list[tuple[bytes, bytes]]
    def __init__(self, http2: HandlerProtocol, stream_id: int) -> None: ...
    def on_headers(self) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_trailers(self, headers: list[tuple[bytes, bytes]]) -> None: ...
    def on_request_done(self) -> None: ...
    def on_close(self, error_code: int) -> None: ...
    @property
    def host(self) -> bytes | None: ...
    @property
    def client_address(self) -> Any: ...
    @property
    def remote_address(self) -> Any: ...
    @property
    def client_certificate(self) -> dict[str, Any] | None: ...
    def send_response(
        self,
        status: int = 200,
        headers: _Headers = None,
        body: _Body = None,
        *,
        trailers: _Headers = None,
    ) -> None: ...
    def send_informational(self, status: int, headers: _Headers = None) -> None: ...
    def send_headers(self, status: int = 200, headers: _Headers = None) -> None: ...
    def send_data(self, data: str | _Buffer) -> None: ...
    async def drain(self) -> None: ...
    def end(self, trailers: _Headers = None) -> None: ...
    def resume(self) -> None: ...
    def reset(self, error_code: int = ...) -> None: ...
    @property
    def push_enabled(self) -> bool: ...
    def push(
        self,
        path: _Text,
        method: _Text = "GET",
        request_headers: _Headers = None,
        status: int = 200,
        headers: _Headers = None,
        body: _Body = None,
    ) -> BaseRequestHandler: ...

class HandlerProtocol(H2Pump):
    client_address: Any
    def __init__(
        self,
        handler_class: type[BaseRequestHandler],
        config: H2Configuration,
        opened: Callable[[HandlerProtocol], object],
        closed: Callable[[HandlerProtocol], object],
        *,
        settings_timeout: float,
        idle_timeout: float | None,
    ) -> None: ...
    def events_received(self, events: Sequence[H2Event]) -> None: ...
    @property
    def handlers(self) -> dict[int, BaseRequestHandler]: ...
    @property
    def client_certificate(self) -> dict[str, Any] | None: ...

def log_access(
    version: str,
    address: Any,
    method: bytes,
    target: bytes,
    status: int | None,
    size: int,
) -> None: ...
