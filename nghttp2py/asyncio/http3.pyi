from asyncio import AbstractEventLoop
from collections.abc import Callable, MutableMapping
from typing import Any

from nghttp2py.asyncio.h3_bounds import Arrival, Outgoing, Watch
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import StreamResetError
from nghttp2py.exchange import Exchange, ExchangeFactory, HTTPConnection
from nghttp2py.h3 import DataReceived, H3Connection, HeadersReceived
from nghttp2py.h3.events import Headers
from nghttp2py.quic import QuicConnection
from nghttp2py.quic.events import StreamDataReceived

__all__ = [
    "ExchangeState",
    "HTTP3Exchanges",
    "are_trailers",
    "reset_failure",
    "to_fields",
]

UNREAD: int
AHEAD: int
STREAM_QUEUE: int
CONNECTION_QUEUE: int
SHARE: int

def to_fields(headers: Any, status: Any = None) -> Headers: ...
def are_trailers(headers: Headers) -> bool: ...
def reset_failure(
    stream_id: int, error_code: int, *, remote: bool, text: str = ""
) -> Callable[[], StreamResetError]: ...

class ExchangeState:
    sends: bool
    receives: bool
    stopped: bool
    tunnel: bool
    answered: bool
    declined: bool
    deferred: bool
    failure: Callable[[], Exception] | None
    error_code: int
    unread: int
    arrival: Arrival
    outgoing: Outgoing | None
    body_bytes_sent: int
    wanted: int
    low: int
    source: Any
    trailers: Any
    def __init__(self, *, tunnel: bool) -> None: ...

class HTTP3Exchanges(HTTPConnection):
    loop: AbstractEventLoop
    connection: H3Connection | None
    ending: int
    direct: bool
    serves: bool
    is_closing: bool
    _closed: dict[int, tuple[Exchange, int]]
    @property
    def exchanges(self) -> MutableMapping[int, Exchange]: ...
    @property
    def states(self) -> dict[int, ExchangeState]: ...
    @property
    def answered(self) -> dict[int, None]: ...
    @property
    def cut_short(self) -> dict[int, None]: ...
    @property
    def _quic(self) -> QuicConnection: ...
    @property
    def _defers(self) -> bool: ...
    @property
    def _senders(self) -> set[int]: ...
    @property
    def _unsent(self) -> set[int]: ...
    def __init__(
        self,
        owner: Any,
        quic: QuicConnection,
        watch: Watch,
        timeouts: Timeouts,
        client_side: bool,
        factory: ExchangeFactory | None,
    ) -> None: ...
    def begin_events(self) -> None: ...
    def end_events(self) -> None: ...
    def stream_data_received(self, event: StreamDataReceived) -> None: ...
    def follow_frame(self, stream_id: int) -> None: ...
    def section_received(self, event: HeadersReceived) -> None: ...
    def piece_received(self, event: DataReceived) -> None: ...
    def datagram_received(self, exchange: Exchange, data: bytes) -> None: ...
    def message_ended(self, exchange: Exchange) -> None: ...
    def break_off(
        self,
        exchange: Exchange,
        failure: Callable[[], Exception],
        error_code: int,
        *,
        incoming: bool = True,
        outgoing: bool = True,
    ) -> None: ...
    def tell_aborted(
        self,
        exchange: Exchange,
        failure: Callable[[], Exception],
        error_code: int,
        incoming: bool,
        outgoing: bool,
    ) -> None: ...
    def tell_closing(self, exchange: Exchange) -> None: ...
    def close_exchange(self, exchange: Exchange) -> None: ...
    def check_end(self, exchange: Exchange) -> None: ...
    def tell_closed(
        self,
        exchange: Exchange,
        failure: Callable[[], Exception] | None,
        error_code: int,
        body_bytes_sent: int,
    ) -> None: ...
    def connection_lost(self) -> None: ...
    def push_begun(self, exchange: Exchange) -> None: ...
    def tell_ends(self) -> None: ...
    def call(self, exchange: Exchange, call: Callable[[], object]) -> None: ...
    def make_writable(self, exchange: Exchange) -> None: ...
    def send_section(self, exchange: Exchange, headers: Headers, end: bool) -> None: ...
    def fail_stopped(self, exchange: Exchange) -> None: ...
    def _state(self, exchange: Exchange) -> ExchangeState: ...
    def _sending(self, exchange: Exchange) -> ExchangeState: ...
    def _sending_by_call(self, exchange: Exchange) -> ExchangeState: ...
    def _http(self) -> H3Connection: ...
    def _queue_piece(
        self, exchange: Exchange, state: ExchangeState, data: Any, end: bool
    ) -> None: ...
    def _was_queued(
        self,
        exchange: Exchange,
        state: ExchangeState,
        n: int,
        was_empty: bool,
        end: bool,
    ) -> None: ...
    def _room(self, stream_id: int, wanted: int) -> int: ...
    def _has_room_below(self, stream_id: int, low: int) -> bool: ...
