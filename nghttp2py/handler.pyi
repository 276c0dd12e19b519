from collections.abc import (
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from typing import Any, Protocol, TypeAlias

from nghttp2py.exchange import Exchange, ExchangeFactory
from nghttp2py.query import Query

__all__ = ["BaseRequestHandler", "HandlerFactory"]

_Text: TypeAlias = str | bytes
_Buffer: TypeAlias = bytes | bytearray | memoryview
_Value: TypeAlias = str | bytes | int
_Headers: TypeAlias = (
    Mapping[str, _Value]
    | Mapping[bytes, _Value]
    | Iterable[tuple[_Text, _Value] | tuple[_Text, _Text, bool]]
    | None
)
# A callback is a function or a coroutine function.
_Result: TypeAlias = Coroutine[Any, Any, None] | None

class _BinaryFile(Protocol):
    def read(self, n: int, /) -> bytes | None: ...

class _AsyncFile(Protocol):
    async def read(self, n: int, /) -> bytes: ...

_Body: TypeAlias = (
    str
    | _Buffer
    | _BinaryFile
    | _AsyncFile
    | Iterable[_Buffer]
    | AsyncIterable[_Buffer]
    | Callable[[int], tuple[_Buffer | None, int]]
    | None
)

class BaseRequestHandler(Exchange):
    http2: Any
    method: bytes
    path: bytes
    scheme: bytes | None
    pushed: bool
    headers: list[tuple[bytes, bytes]]
    host: bytes | None
    auto_continue: bool
    max_body_size: int
    query: Query
    def __init__(self, http2: Any, stream_id: int) -> None: ...
    def on_headers(self) -> _Result: ...
    async def on_request(self) -> None: ...
    def on_data(self, data: bytes) -> _Result: ...
    def on_trailers(self, headers: list[tuple[bytes, bytes]]) -> _Result: ...
    def on_request_done(self) -> _Result: ...
    def on_close(self, error_code: int) -> _Result: ...
    def on_closing(self) -> _Result: ...
    @property
    def client_address(self) -> Any: ...
    @property
    def remote_address(self) -> Any: ...
    @property
    def client_certificate(self) -> dict[str, Any] | None: ...
    async def read(self, n: int = -1) -> bytes: ...
    async def json(self) -> Any: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    @property
    def is_closing(self) -> bool: ...
    async def wait_closing(self) -> None: ...
    def send_response(
        self,
        status: int | str = 200,
        headers: _Headers = None,
        body: _Body = None,
        *,
        trailers: _Headers = None,
    ) -> None: ...
    def send_informational(
        self, status: int | str, headers: _Headers = None
    ) -> None: ...
    def send_headers(
        self, status: int | str = 200, headers: _Headers = None
    ) -> None: ...
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
        status: int | str = 200,
        headers: _Headers = None,
        body: _Body = None,
    ) -> BaseRequestHandler: ...

class HandlerFactory(ExchangeFactory):
    def __init__(
        self, handler_class: Callable[[Any, int], BaseRequestHandler]
    ) -> None: ...
