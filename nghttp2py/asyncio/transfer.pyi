import asyncio
from collections.abc import Sequence

from nghttp2py.h2 import H2Connection, H2Event

__all__ = ["SharedReads", "Transfer"]

FATAL: tuple[type[BaseException], ...]
WRITE_SIZE: int
RESET_DELAY: float

class SharedReads:
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...

class Transfer:
    connection: H2Connection
    transport: asyncio.Transport | None
    _loop: asyncio.AbstractEventLoop
    _reset_timer: asyncio.TimerHandle | None
    _last_active: float
    _counted: float
    _frame_since: float
    _written: int
    _frame: int
    _begun: bool
    _busy: bool
    _ended: bool
    _paused: bool
    _notice_held: bool
    _awaits_ping: bool
    _heard: bool
    _watching: bool
    def _begin_transfer(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport
    ) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def mark_dirty(self) -> None: ...
    def flush(self, events: Sequence[H2Event] = ()) -> None: ...
