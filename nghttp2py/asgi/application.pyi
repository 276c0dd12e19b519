from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.exchange import Exchange, ExchangeFactory

__all__ = ["Application", "ApplicationExchange"]

_Message: TypeAlias = MutableMapping[str, Any]
_ASGICallable: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[_Message]],
        Callable[[_Message], Awaitable[None]],
    ],
    Awaitable[None],
]

class Application(ExchangeFactory):
    @property
    def app(self) -> _ASGICallable: ...
    @property
    def options(self) -> ASGIOptions: ...
    def __init__(
        self, app: _ASGICallable, options: ASGIOptions | None = None
    ) -> None: ...
    @property
    def task_count(self) -> int: ...
    async def drain(self, timeout: float | None = None) -> bool: ...
    def cancel(self) -> None: ...

class ApplicationExchange(Exchange):
    def receive(self) -> Awaitable[_Message]: ...
    def send(self, message: _Message) -> Awaitable[None]: ...
    async def wait_message(self) -> _Message: ...
    async def wait_to_send(self) -> None: ...
