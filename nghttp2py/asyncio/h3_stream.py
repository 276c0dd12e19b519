"""A request and its response over HTTP/3, at either end."""

from __future__ import annotations

from collections import deque
from typing import Any

from nghttp2py.asyncio.h3_link import H3Link
from nghttp2py.asyncio.http3 import to_fields
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.writer import HeadersLike
from nghttp2py.errors import StreamClosedError, StreamStateError
from nghttp2py.h2.convert import make_request
from nghttp2py.h3.events import Headers

__all__ = ["EXPECT", "H3RequestStream", "HeaderSection"]

# The field of a client that waits for 100 (Continue) (RFC 9110, 10.1.1).
EXPECT = (b"expect", b"100-continue")

# Datagrams that are kept; newer ones are dropped (RFC 9297, 2.1).
_MAX_DATAGRAMS = 64


class HeaderSection(list[tuple[bytes, bytes]]):
    """A response's header section: a list of its fields, ``:status`` first.

    ``status`` is an int, ``headers`` the fields without pseudo-header fields.
    """

    def __init__(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__([(b":status", b"%d" % status), *headers])
        self.status = status
        self.headers = headers


class H3RequestStream(Stream):
    """A stream of HTTP/3, made by ``H3Protocol``.

    In addition to ``Stream``, it has its fields in the form of HTTP/3, and can send and
    receive datagrams (RFC 9297).
    """

    __slots__ = ("_datagrams", "_fields")

    def __init__(
        self,
        protocol: Any,
        http: H3Link,
        stream_id: int,
        fields: Headers,
        *,
        client: bool,
    ) -> None:
        super().__init__(
            protocol, http, stream_id, None if client else make_request(fields, "3")
        )
        self._fields = fields
        self._datagrams: deque[bytes] | None = None

    # ---- What it is ----

    @property
    def headers(self) -> Headers:
        """The received header section: the request's, or the final response's."""
        if self.request is not None:
            return self._fields
        if self.final_status is None:
            return []
        return HeaderSection(self.final_status, self.final_fields)

    @property
    def method(self) -> bytes | None:
        """The request's ``:method``."""
        return self._pseudo(b":method")

    @property
    def path(self) -> bytes | None:
        """The request's ``:path``; ``None`` for CONNECT (RFC 9114, 4.4)."""
        return self._pseudo(b":path")

    @property
    def scheme(self) -> bytes | None:
        """The request's ``:scheme``; ``None`` for CONNECT."""
        return self._pseudo(b":scheme")

    @property
    def authority(self) -> bytes | None:
        """The request's ``:authority``, if it has one."""
        return self._pseudo(b":authority")

    def _pseudo(self, name: bytes) -> bytes | None:
        for field in self._fields:
            if field[0] == name:
                return field[1]
        return None

    @property
    def early_data(self) -> bool:
        """Whether bytes of a request came as early data, which an attacker may replay:
        a server may answer 425 (RFC 8470, 5.2)."""
        early: bool = self.protocol.has_early_data(self.stream_id)
        return early

    def _make_head(self, status: int, fields: Any) -> Any:
        return HeaderSection(status, tuple(fields))

    # ---- What comes in ----

    async def readany(self) -> bytes:
        """Return the next piece of the body; ``b""`` at its end."""
        return await self.readframe()

    async def receive_datagram(self) -> bytes:
        """Return the next datagram of the stream (RFC 9297, 2.1).

        64 are kept, and more are dropped.  Raises ``StreamClosedError`` when the peer
        has ended the stream, ``StreamResetError`` or ``ConnectionTerminatedError`` if
        the stream breaks off.
        """
        while not self._datagrams:
            self._raise_failure()
            if self._eof or self.closed:
                raise StreamClosedError(
                    f"stream {self.stream_id}: the peer has ended it", self.stream_id
                )
            await self._wait()
        return self._datagrams.popleft()

    def datagram_received(self, data: bytes) -> None:
        """Handle a datagram of the connection."""
        if not self._receives:
            return
        if self._datagrams is None:
            self._datagrams = deque()
        if len(self._datagrams) < _MAX_DATAGRAMS:
            self._datagrams.append(data)
            self._wake()

    # ---- What goes out ----

    async def push(self, headers: HeadersLike) -> H3RequestStream:
        """Promise a response: see ``Stream.push``."""
        fields = to_fields(self.make_promise(headers))
        pushed: H3RequestStream = self.protocol.push_stream(self, fields)
        return pushed

    def send_headers(self, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a header section; after the body, trailers.

        Raises ``ProtocolError`` of ``nghttp2py.h3.connection`` for fields that
        must not be sent.
        """
        self._raise_stopped()
        self.http.send_section(self, headers, end_stream)
        name, value = headers[0][:2] if headers else (b"", b"")
        if name == b":status" and value == b"100":
            self._continued = True
        self._sent_all = self._sent_all or end_stream

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a datagram, which may be lost (RFC 9297, 2.1).

        Both configurations of QUIC need ``max_datagram_frame_size``.  Raises
        ``NotEnabledError`` unless the peer's SETTINGS allow datagrams:
        ``wait_settings`` of the connection waits for them.  Raises
        ``StreamStateError`` when our half of the stream has ended.
        """
        self._raise_stopped()
        if self._sent_all:
            raise StreamStateError(f"stream {self.stream_id}: our half has ended")
        self.http.send_datagram(self, data)
