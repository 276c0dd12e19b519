import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from nghttp2py.asyncio.bounds import BoundTimer, Mark
from nghttp2py.asyncio.frame_log import FrameLog
from nghttp2py.asyncio.http1 import HTTP1Exchanges
from nghttp2py.h2 import H2Connection, H2Event

__all__ = ["H1Transfer", "H2Transfer", "SharedReads"]

FATAL: tuple[type[BaseException], ...]
WRITE_SIZE: int
RESET_DELAY: float

class SharedReads:
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...

class Transfer:
    transport: asyncio.Transport | None
    _loop: asyncio.AbstractEventLoop
    _last_active: float
    _written: int
    _busy: bool
    _ended: bool
    _paused: bool
    _heard: bool
    def _begin_transfer(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport
    ) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...

class H2Transfer(Transfer):
    connection: H2Connection
    _reset_timer: asyncio.TimerHandle | None
    _frames: FrameLog | None
    _counted: float
    _frame_since: float
    _frame: int
    _begun: bool
    _notice_held: bool
    _awaits_ping: bool
    _watching: bool
    def mark_dirty(self) -> None: ...
    def flush(self, events: Sequence[H2Event] = ()) -> None: ...

class H1Transfer(Transfer):
    http: HTTP1Exchanges
    _timer: BoundTimer | None
    _pace: Mark | None
    _phase_since: float
    _phase: int
    _phase_number: int
    _reading: bool
    _half_closed: bool
    _file_socket: Any
    def update_reading(self) -> None: ...
    def mark_dirty(self) -> None: ...
    def write_now(self) -> None: ...
    def flush(self, *, settled: bool = False) -> None: ...
    def _set_bounds(self, first: float, bounds: Mapping[int, float]) -> None: ...
    def _phase_due(self) -> float: ...
