import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.exchange import Exchange, ExchangeFactory, HTTPConnection
from nghttp2py.h2 import H2Configuration, H2Connection, RequestReceived

class HTTP2Exchanges(HTTPConnection):
    alt_svc: bytes | None
    @property
    def connection(self) -> H2Connection: ...
    @property
    def exchanges(self) -> dict[int, Exchange]: ...
    @property
    def blocked(self) -> set[int]: ...
    def __init__(
        self,
        owner: H2Pump,
        connection: H2Connection,
        factory: ExchangeFactory | None = None,
    ) -> None: ...
    def get_exchange(self, stream_id: int) -> Exchange | None: ...
    def get_exchanges(self) -> list[Exchange]: ...
    def open_streams(self) -> list[int]: ...
    def lend(self, exchange: Exchange) -> None: ...
    def keep_record(self, exchange: Exchange) -> None: ...
    def push_received(
        self, stream_id: int, request: RequestReceived, parent: Any
    ) -> None: ...
    def stream_closed(
        self, stream_id: int, exchange: Exchange | None, kept: bool, complete: bool
    ) -> None: ...
    def find_end(self) -> Callable[[bool], Exception] | None: ...
    def is_under_way(self, exchange: Exchange) -> bool: ...
    def wake_blocked(self) -> None: ...
    def disconnected(self) -> None: ...
    def begin_closing(self) -> None: ...

class HTTP2Streams(HTTP2Exchanges):
    opened: int
    slots: deque[asyncio.Future[bool]]
    notifies_idle: bool
    def __init__(
        self,
        owner: Any,
        connection: H2Connection,
        factory: ExchangeFactory,
        amounts: dict[int, int],
    ) -> None: ...
    @property
    def handled(self) -> dict[int, Any]: ...
    @property
    def amounts(self) -> dict[int, int]: ...
    def send_request(
        self, kind: type, protocol: Any, headers: list[Any], end: bool, kept: bool
    ) -> Any: ...

class HTTP2Protocol(H2Pump):
    http: HTTP2Exchanges
    client_address: Any
    client_certificate: dict[str, Any] | None
    def __init__(
        self,
        factory: ExchangeFactory,
        config: H2Configuration,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
        *,
        timeouts: Timeouts | None = None,
    ) -> None: ...
