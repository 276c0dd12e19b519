"""The choice of a protocol for a server's connection, by what the client sends first.

Over TLS the client has chosen by ALPN (RFC 7301).  In the clear a connection of HTTP/2
begins with the client's preface (RFC 9113, 3.4), and any other is one of HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, cast

from nghttp2py.asyncio.bounds import LINGER_SIZE, LINGER_TIME
from nghttp2py.asyncio.listener import LAST_REQUEST_TIME, ConnectionSet
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.transfer import SharedReads
from nghttp2py.log_budget import peer_lines

__all__ = ["Choice"]

logger = logging.getLogger(__name__)

# The beginning of the client's preface: the method is reserved (RFC 9113, 11.6).
_PREFACE = b"PRI "
# Bytes of a request line that are kept to know it from other protocols.
_MAX_LINE = 8192
_REQUEST_LINE = re.compile(rb"[A-Za-z-]+ \S+ HTTP/1\.[0-9]\r?\n")
# Seconds that a server of HTTP/2 alone waits for a first byte before it sends its
# SETTINGS: a client of HTTP/1.1 sends its request at once, and would not understand
# them.
_FIRST_BYTE = 0.2
# What such a client gets.  426 (Upgrade Required) would have to name a protocol that
# the client can upgrade to, and RFC 9113, 3.1, has no upgrade to HTTP/2: so 505 (RFC
# 9110, 15.6.6).
_TEXT = b"This server speaks HTTP/2 only.\n"
_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b"
) % (len(_TEXT), _TEXT)
_peer_lines = peer_lines(logger)


class Choice(SharedReads, asyncio.Protocol, asyncio.BufferedProtocol):
    """A connection whose protocol is not known yet.

    ``new_http2`` and ``new_http1`` make the protocols; the latter may be ``None``: then
    a request of HTTP/1.1 gets a response that says so.  Until then the connection is in
    ``connections``, as the one that is made will be.
    """

    transport: asyncio.Transport | None = None
    stream_count = 0

    def __init__(
        self,
        new_http2: Callable[[], asyncio.BaseProtocol],
        new_http1: Callable[[bool], asyncio.BaseProtocol] | None,
        connections: ConnectionSet[Any],
        timeouts: Timeouts,
    ) -> None:
        self._new_http2 = new_http2
        self._new_http1 = new_http1
        self._connections = connections
        self._timeouts = timeouts
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None
        self._chosen: Any = None
        self._closing = False
        self._close_timeout: float | None = None
        self._linger_left = -1  # bytes that are discarded after the answer

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose by ALPN, or wait for the first bytes."""
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            # A client that offers other protocols only is refused as by HTTP/2.
            offered = transport.get_extra_info("alpn_offered")
            if tls.selected_alpn_protocol() == "http/1.1" or offered == []:
                self._choose(self._new_http1, True)
            else:
                self._choose(None)
        elif self._new_http1 is None:
            self._timer = self._loop.call_later(
                min(_FIRST_BYTE, self._timeouts.settings / 2), self._choose, None
            )
        else:
            self._timer = self._loop.call_later(
                self._timeouts.handshake, self._time_out
            )

    def data_received(self, data: bytes) -> None:
        """Choose by the first bytes."""
        if self._linger_left >= 0:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.abort()
            return
        if self._new_http1 is None and not self._data:
            self._set_timer(self._timeouts.settings, self._time_out)
        self._data += data
        data = self._data
        if data[: len(_PREFACE)] == _PREFACE:
            self._choose(None)
        elif _PREFACE.startswith(data):
            pass
        elif self._new_http1 is not None:
            self._choose(self._new_http1, False)
        elif _REQUEST_LINE.match(data):
            self._answer()
        elif b"\n" in data or len(data) > _MAX_LINE or not data[:1].isalpha():
            self._choose(None)  # it ends as HTTP/2 does

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def pause_writing(self) -> None:
        """Pass it on, if TLS has called this before the protocol was set."""
        if self._chosen is not None:
            self._chosen.pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.transport = None
        self._stop_timer()
        self._connections.discard(self)

    # ---- The choice ----

    def _choose(
        self, make: Callable[[bool], asyncio.BaseProtocol] | None, *secure: bool
    ) -> None:
        """Set the protocol that ``make`` returns, or that of HTTP/2."""
        transport, self.transport = self.transport, None
        self._stop_timer()
        if transport is None:
            return
        try:
            chosen: Any = self._new_http2() if make is None else make(*secure)
        except MemoryError:  # there is none for a log line, either
            transport.abort()
            self._connections.discard(self)
            return
        self._chosen = chosen
        data, self._data = self._data, b""
        try:
            if transport.is_closing():
                transport.abort()
                return
            transport.set_protocol(chosen)
            chosen.connection_made(transport)
            if data:
                chosen.data_received(data)
            if self._closing:
                chosen.close(self._close_timeout)
        finally:
            self._connections.discard(self)

    def _answer(self) -> None:
        """Answer a request of HTTP/1.1 by a server of HTTP/2 alone."""
        transport = self.transport
        assert transport is not None
        _peer_lines.log(
            "%s: the client speaks HTTP/1.1, not HTTP/2",
            transport.get_extra_info("peername"),
        )
        self._linger_left = LINGER_SIZE
        self._set_timer(LINGER_TIME, transport.close)
        # Only our half is closed: closing both would drop what the client has not read
        # (see BoundedTransport).
        self._data = b""
        transport.write(_ANSWER)
        try:
            transport.write_eof()
        except OSError:  # the client has reset it
            transport.abort()

    # ---- The end ----

    def _set_timer(self, delay: float, call: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        logger.debug("a connection was closed: nothing came that tells its protocol")
        self.abort()

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the transport is closing."""
        return self._closing or self.transport is None or self.transport.is_closing()

    def close(self, timeout: float | None = None) -> None:
        """Close the connection soon, unless its first bytes have come."""
        self._closing = True
        self._close_timeout = timeout
        if self.transport is not None:
            seconds = self._timeouts.close if timeout is None else timeout
            # A client that sends a request now does not know that it comes too late.
            self._loop.call_later(min(seconds, LAST_REQUEST_TIME), self._close_now)
            if self._data:
                self._set_timer(seconds, self.abort)

    def _close_now(self) -> None:
        if self.transport is not None and not self._data and self._linger_left < 0:
            self.transport.close()

    def abort(self) -> None:
        """Close the transport now."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def give_up(self, error: BaseException) -> None:
        """Abort for want of memory."""
        self.abort()
