from collections.abc import Callable, Sequence
from typing import Any

from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.exchange import Exchange, ExchangeFactory, HTTPConnection
from nghttp2py.h2 import H2Configuration, H2Connection, H2Event

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
        *,
        others: Callable[[H2Event], object] | None = None,
    ) -> None: ...
    def connected(self, transport: Any) -> None: ...
    def disconnected(self) -> None: ...
    def begin_closing(self) -> None: ...

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
    def events_received(self, events: Sequence[H2Event]) -> None: ...
