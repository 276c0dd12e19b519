"""What a stream of coroutines knows of its two halves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from nghttp2py.asyncio.stream_link import StreamLink
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.exchange import PythonExchange

__all__ = ["Failure", "StreamState"]

#: Makes the exception for why a half of a stream broke off.  An exception raised twice
#: would keep the frames of both.
Failure = Callable[[], Exception]


class StreamState(PythonExchange):
    """The attributes of a stream.

    They are set in one call: a constructor for each half costs several percent of what
    a request does.
    """

    __slots__ = (
        "_chunks",
        "_continued",
        "_discarding",
        "_eof",
        "_expecting",
        "_failure",
        "_informational",
        "_offset",
        "_read_lock",
        "_response",
        "_response_taken",
        "_send_lock",
        "_sent_all",
        "_size",
        "_stopped",
        "_task",
        "_trailers",
        "_tunnel",
        "_unacknowledged",
        "_unsent",
        "_waiters",
        "body_bytes_sent",
        "closed",
        "link",
        "protocol",
    )

    def __init__(
        self, protocol: Any, http: StreamLink, stream_id: int, request: Any = None
    ) -> None:
        PythonExchange.__init__(self, http, stream_id, request)
        self.protocol = protocol
        #: ``http``, of which Python code reads a slot faster.
        self.link: Any = http
        #: Whether the stream is closed.
        self.closed = False
        self._waiters = Waiters()
        # The task that is cancelled when our half breaks off.
        self._task: asyncio.Task[Any] | None = None

        # The outgoing half.
        #: Bytes of the body that were queued.
        self.body_bytes_sent = 0
        self._unsent = 0  # how many of them were never sent, once the stream is closed
        self._expecting = 0.0  # seconds to wait for 100 (Continue), at a client
        self._continued = False  # 100 (Continue) was sent, or is not expected
        self._sent_all = False  # our half has ended, even if its end is still queued
        self._tunnel = False  # a CONNECT tunnel: its halves end independently
        self._stopped: Failure | None = None  # why our half broke off
        self._send_lock: asyncio.Lock | None = None

        # The incoming half.
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # bytes of the first chunk that were taken
        self._size = 0
        self._unacknowledged = 0  # of the bytes here, which come last in the body
        self._eof = False
        self._informational: deque[Any] | None = None
        self._response: Any = None
        self._response_taken = False
        self._trailers: tuple[tuple[bytes, bytes], ...] = ()
        self._failure: Failure | None = None  # why the peer's half broke off
        self._discarding = False  # what arrives is dropped
        self._read_lock: asyncio.Lock | None = None
