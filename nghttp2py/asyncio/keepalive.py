"""Uses of PING: checking that the peer is alive, round trips, window tuning."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from typing import Protocol

from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.errors import ConnectionClosedError
from nghttp2py.h2 import H2Connection

__all__ = ["KeepAlive"]

#: The largest window that tuning gives a stream: 16 MiB allow 1.3 Gbit/s at 0.1 s.
MAX_WINDOW = 16 * 1024 * 1024


class Pinged(Protocol):
    """What ``KeepAlive`` needs from a connection."""

    connection: H2Connection

    @property
    def last_active(self) -> float:
        """When bytes last arrived, on the loop's clock."""

    @property
    def stream_window(self) -> int:
        """The initial window of streams, in bytes."""

    def check_alive(self) -> None:
        """Raise ``ConnectionTerminatedError`` if the connection has ended."""

    def mark_dirty(self) -> None:
        """Write what is queued, soon."""


class KeepAlive:
    """The PINGs of one connection, distinguished by a counter in their 8 bytes."""

    def __init__(
        self,
        protocol: Pinged,
        window_tuning: bool,
    ) -> None:
        # Weak, because the connection refers to this object: a cycle would outlive it.
        self._protocol: Pinged = weakref.proxy(protocol)
        self._count = 0
        self._sent: dict[bytes, float] = {}
        self._waiters = Waiters()
        self._tuning = window_tuning
        self._sample: tuple[bytes, int, int] | None = None
        self._windows: dict[int, int] = {}  # by stream
        #: Bytes that were read of each open stream.
        self.amounts: dict[int, int] = {}
        #: The last round-trip time in seconds, ``None`` before the first.
        self.rtt: float | None = None

    def stop(self) -> None:
        """Handle the end of the connection: no PING will be answered."""
        self._sample = None
        self._windows.clear()
        self.amounts.clear()
        self._waiters.wake()

    # ---- PING ----

    def send(self) -> bytes:
        """Send PING; return its 8 bytes."""
        protocol = self._protocol
        self._count += 1
        data = self._count.to_bytes(8, "big")
        # The loop's clock may be as coarse as a millisecond.
        self._sent[data] = time.perf_counter()
        with contextlib.suppress(ConnectionClosedError):
            protocol.connection.ping(data)
        protocol.mark_dirty()
        return data

    def acknowledged(self, data: bytes) -> None:
        """Handle the answer to a PING."""
        sent = self._sent.pop(data, None)
        if sent is None:
            return
        self.rtt = time.perf_counter() - sent
        self._waiters.wake()
        if self._sample is not None and self._sample[0] == data:
            self._end_sample()

    async def ping(self) -> float:
        """Send PING, wait for its answer, and return the round-trip time in seconds."""
        protocol = self._protocol
        protocol.check_alive()
        data = self.send()
        while data in self._sent:
            protocol.check_alive()
            await self._waiters.wait()
        assert self.rtt is not None
        return self.rtt

    async def wait_functional(self, timeout: float) -> float | None:
        """See ``H2Protocol.wait_functional``."""
        protocol = self._protocol
        protocol.check_alive()
        loop = asyncio.get_running_loop()
        if loop.time() - protocol.last_active < timeout:
            return None
        asked = loop.time()
        while True:
            self.send()
            timer = loop.call_later(timeout, self._waiters.wake)
            try:
                await self._waiters.wait()
            finally:
                timer.cancel()
            protocol.check_alive()
            if protocol.last_active >= asked:
                return self.rtt

    # ---- Window tuning ----

    def _window(self) -> int:
        """The initial window of streams."""
        return self._protocol.stream_window

    def taken(self, stream_id: int, n: int) -> None:
        """Count ``n`` bytes of a stream that were read, and possibly enlarge its
        window.

        One stream at a time is sampled: the bytes read of it in the round trip after
        this read.  If these are a large part of its window, the window and not the
        reader limits the peer, and it is doubled.  The window of a stream that is read
        rarely or never stays the same.
        """
        if not self._tuning:
            return
        taken = self.amounts[stream_id] = self.amounts.get(stream_id, 0) + n
        if self._sample is not None:
            return
        window = self._windows.get(stream_id) or self._window()
        if (
            taken * 2 >= window
            and window < MAX_WINDOW
            and not self._protocol.connection.stream_ended(stream_id)
        ):
            self._sample = (self.send(), stream_id, taken)

    def _end_sample(self) -> None:
        assert self._sample is not None
        _, stream_id, before = self._sample
        self._sample = None
        connection = self._protocol.connection
        if stream_id not in self.amounts or connection.stream_ended(stream_id):
            return
        took = self.amounts[stream_id] - before
        window = self._windows.get(stream_id) or self._window()
        if took * 3 >= window:
            window = min(MAX_WINDOW, 2 * window)
            self._windows[stream_id] = window
            connection.set_local_window_size(window, stream_id)
            self._protocol.mark_dirty()

    def forget(self, stream_id: int) -> None:
        """Forget a closed stream."""
        self._windows.pop(stream_id, None)
        self.amounts.pop(stream_id, None)
        if self._sample is not None and self._sample[1] == stream_id:
            self._sample = None
