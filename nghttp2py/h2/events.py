"""What happens on an HTTP/2 connection, as values.

Events are immutable, compare by value, print themselves and can be matched.

Cython compiles this file as it stands.  ``events.pxd`` declares the classes that other
compiled modules make without ``__init__`` or read often, and those with a field that
has to stay an ``ErrorCode``.  The others are marked ``@cython.cclass``; frequent ones
have a freelist.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import cython

__all__ = [
    "BodyReceived",
    "H2AlternativeServiceReceived",
    "H2BodyDrained",
    "H2BodyFailed",
    "H2BodyReceived",
    "H2ConnectionClosed",
    "H2Event",
    "H2ExtensionFrameReceived",
    "H2GoAway",
    "H2InformationalResponseReceived",
    "H2OriginReceived",
    "H2PingAcknowledged",
    "H2PingReceived",
    "H2PriorityUpdated",
    "H2PushedStreamReceived",
    "H2RequestReceived",
    "H2RequestSent",
    "H2ResponseReceived",
    "H2SettingsAcknowledged",
    "H2SettingsReceived",
    "H2StreamClosed",
    "H2StreamReset",
    "H2TrailersReceived",
    "H2WebSocketRequest",
    "H2WindowUpdated",
    "RequestReceived",
]

_Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


@cython.cclass
@cython.freelist(64)
class RequestReceived:
    """A request's header section (RFC 9113, 8.3.1).

    ``method``, ``target``, ``scheme`` and ``authority`` are bytes or, but for the first
    two, ``None``; ``target`` is ``:path``, or ``:authority`` for a CONNECT that has no
    path.  ``protocol`` is that of an extended CONNECT (RFC 8441), else ``None``.
    ``fields`` are all fields as they came, pseudo-header fields first; ``headers`` are
    the others of them, with ``host`` first, made from ``:authority`` if there was none.
    Several ``cookie`` fields are joined in both (RFC 9113, 8.2.3).
    """

    __match_args__ = ("method", "target", "headers", "http_version")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        http_version: str = "2",
        *,
        scheme: bytes | None = None,
        authority: bytes | None = None,
        protocol: bytes | None = None,
        fields: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self.method: Final = method
        self.target: Final = target
        self.http_version: Final = http_version
        self.scheme: Final = scheme
        self.authority: Final = authority
        self.protocol: Final = protocol
        self._headers: _Fields | None = tuple(headers)
        self.fields: Final = self._headers if fields is None else tuple(fields)

    @property
    @cython.critical_section  # several threads may read an event
    def headers(self) -> _Fields:
        """The fields but the pseudo-header fields, ``host`` first: a tuple of pairs."""
        if self._headers is None:
            headers: list[tuple[bytes, bytes]] = []
            host = False
            for pair in self.fields:
                name = pair[0]
                if name[:1] == b":":
                    continue
                if name == b"host":
                    host = True
                    headers.insert(0, pair)
                else:
                    headers.append(pair)
            if not host and self.authority is not None:
                headers.insert(0, (b"host", self.authority))
            self._headers = tuple(headers)
        return self._headers

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, RequestReceived):
            return NotImplemented
        return (self.method, self.target, self.headers, self.http_version) == (
            other.method,
            other.target,
            other.headers,
            other.http_version,
        )

    def __hash__(self) -> int:
        return hash((self.method, self.target, self.headers, self.http_version))

    def __repr__(self) -> str:
        return (
            f"RequestReceived(method={self.method!r}, target={self.target!r}, "
            f"headers={self.headers!r}, http_version={self.http_version!r})"
        )


@cython.cclass
@cython.freelist(64)
@dataclass(frozen=True)
class BodyReceived:
    """A piece of a body; ``more`` is false with the last, which may be empty."""

    data: bytes
    more: bool


@cython.cclass
@cython.freelist(64)
@dataclass(frozen=True)
class H2RequestReceived:
    """A request has arrived on a new stream."""

    stream_id: int
    request: RequestReceived


@dataclass(frozen=True)
class H2WebSocketRequest:
    """An extended CONNECT asks for a WebSocket (RFC 8441)."""

    stream_id: int
    request: RequestReceived
    ws_path: bytes


@cython.cclass
@cython.freelist(64)
@dataclass(frozen=True)
class H2ResponseReceived:
    """A final response's header section; ``headers`` is without ``:status``."""

    stream_id: int
    status: int
    headers: tuple[tuple[bytes, bytes], ...]


@cython.cclass
@dataclass(frozen=True)
class H2InformationalResponseReceived:
    """A 1xx response, before the final one (RFC 9110, 15.2)."""

    stream_id: int
    status: int
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class H2TrailersReceived:
    """A trailer section (RFC 9113, 8.1).  The end of the body follows it."""

    stream_id: int
    headers: tuple[tuple[bytes, bytes], ...]


@cython.cclass
@dataclass(frozen=True)
class H2PushedStreamReceived:
    """The server promises a response to ``request`` on ``stream_id``.

    ``reset_stream(stream_id, ErrorCode.CANCEL)`` declines it.
    """

    stream_id: int
    parent_stream_id: int
    request: RequestReceived


@cython.cclass
@cython.freelist(64)
@dataclass(frozen=True)
class H2BodyReceived:
    """A piece of a message's body; only the last of a stream has ``more`` false."""

    stream_id: int
    body: BodyReceived


@dataclass(frozen=True)
class H2StreamReset:
    """The peer has reset a stream, or we have because of an error of the peer.

    ``remote`` is true if the peer did it; ``unprocessed`` is true if the peer says that
    it did not act on the request, so that it is safe to send it again (RFC 9113, 8.7);
    ``reason`` is text for people.  Comparisons ignore these three.
    """

    stream_id: int
    error_code: int
    remote: bool = field(default=True, compare=False)
    unprocessed: bool = field(default=False, compare=False)
    reason: str = field(default="", compare=False)


@cython.cclass
@cython.freelist(64)
@dataclass(frozen=True)
class H2StreamClosed:
    """The last event of a stream.

    ``complete`` is true if both halves ended by END_STREAM, or if the response did and
    NO_ERROR declined the rest of the request (RFC 9113, 8.1), even if a reset of the
    client came first. ``error_code`` is then 0; otherwise it is that of the reset:
    CANCEL if the peer broke the stream off with NO_ERROR, and 0 only if
    ``reset_stream`` was called with 0.

    ``body_bytes_sent`` is the size of our body that went out.  Comparisons ignore it
    and ``complete``.
    """

    stream_id: int
    error_code: int
    body_bytes_sent: int = field(default=0, compare=False)
    complete: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class H2GoAway:
    """The peer accepts no new streams (RFC 9113, 6.8).

    Streams up to ``last_stream_id`` go on.
    """

    last_stream_id: int
    error_code: int
    debug_data: bytes = field(default=b"", compare=False)


@cython.cclass
@cython.freelist(16)
@dataclass(frozen=True)
class H2WindowUpdated:
    """More may be sent on ``stream_id``, or, if it is 0, on any stream.

    ``increment`` is the number of bytes, or 0 if the cause was not WINDOW_UPDATE;
    comparisons ignore it.
    """

    stream_id: int
    increment: int = field(default=0, compare=False)


@cython.cclass
@dataclass(frozen=True)
class H2SettingsReceived:
    """The peer's SETTINGS: identifier to value (RFC 9113, 6.5)."""

    settings: dict[int, int]


@cython.cclass
@dataclass(frozen=True)
class H2SettingsAcknowledged:
    """The peer has acknowledged these settings of ours."""

    settings: dict[int, int]


@cython.cclass
@dataclass(frozen=True)
class H2PingReceived:
    """The peer's PING, 8 bytes (RFC 9113, 6.7)."""

    data: bytes


@cython.cclass
@dataclass(frozen=True)
class H2PingAcknowledged:
    """The answer to our PING with the same 8 bytes."""

    data: bytes


@cython.cclass
@dataclass(frozen=True)
class H2PriorityUpdated:
    """The client's PRIORITY_UPDATE for ``stream_id`` (RFC 9218, 7.1)."""

    stream_id: int
    priority: bytes


@cython.cclass
@dataclass(frozen=True)
class H2AlternativeServiceReceived:
    """An ALTSVC frame (RFC 7838, 4)."""

    stream_id: int
    origin: bytes
    field_value: bytes


@cython.cclass
@dataclass(frozen=True)
class H2OriginReceived:
    """One origin of an ORIGIN frame (RFC 8336)."""

    origin: bytes


@cython.cclass
@dataclass(frozen=True)
class H2ExtensionFrameReceived:
    """A frame of a type that RFC 9113 does not define (5.5)."""

    stream_id: int
    frame_type: int
    flags: int
    payload: bytes


@cython.cclass
@dataclass(frozen=True)
class H2RequestSent:
    """A request that had to wait for the peer's stream limit was sent."""

    stream_id: int


@dataclass(frozen=True)
class H2BodyDrained:
    """The body queue of ``stream_id`` has fallen to the level asked for."""

    stream_id: int


@dataclass(frozen=True)
class H2BodyFailed:
    """A body's source raised ``exception``; its stream was reset."""

    stream_id: int
    exception: BaseException


@dataclass(frozen=True)
class H2ConnectionClosed:
    """The last event of a connection.

    ``remote`` is true if the peer ended the connection, false if we closed it because
    of an error of the peer or a call; ``reason`` is text for people, which comparisons
    ignore.
    """

    error_code: int
    remote: bool
    reason: str = field(default="", compare=False)


H2Event: TypeAlias = (
    H2AlternativeServiceReceived
    | H2BodyDrained
    | H2BodyFailed
    | H2BodyReceived
    | H2ConnectionClosed
    | H2ExtensionFrameReceived
    | H2GoAway
    | H2InformationalResponseReceived
    | H2OriginReceived
    | H2PingAcknowledged
    | H2PingReceived
    | H2PriorityUpdated
    | H2PushedStreamReceived
    | H2RequestReceived
    | H2RequestSent
    | H2ResponseReceived
    | H2SettingsAcknowledged
    | H2SettingsReceived
    | H2StreamClosed
    | H2StreamReset
    | H2TrailersReceived
    | H2WebSocketRequest
    | H2WindowUpdated
)
