"""What happens on an HTTP/3 connection, as values.

Events compare by value, print themselves and can be matched.  Those after
``WebTransportStreamDataReceived`` come only if ``H3Configuration.extended`` is
set.

Cython compiles this file as it stands, with the fields that ``events.pxd`` declares.
"""

from dataclasses import dataclass
from typing import Any

__all__ = [
    "CapsuleReceived",
    "DataReceived",
    "DatagramReceived",
    "GoAwayReceived",
    "H3Event",
    "Headers",
    "HeadersReceived",
    "MaxPushIdReceived",
    "OriginReceived",
    "PriorityUpdated",
    "PushCancelled",
    "PushPromiseReceived",
    "SettingsReceived",
    "StopSendingReceived",
    "StreamAborted",
    "StreamReset",
    "WebTransportSessionClosed",
    "WebTransportSessionDrained",
    "WebTransportStreamDataReceived",
]

Headers = list[tuple[bytes, bytes]]


class H3Event:
    """Base of the events."""

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Events can be copied and pickled, as aioquic's can."""
        names = getattr(self, "__match_args__", ())
        return type(self), tuple([getattr(self, name) for name in names])


@dataclass
class DataReceived(H3Event):
    """A piece of a body; ``push_id`` is ``None`` but for a pushed response.

    ``stream_ended`` is true if nothing more comes on the stream.
    """

    data: bytes
    stream_id: int
    stream_ended: bool
    push_id: int | None = None


@dataclass
class DatagramReceived(H3Event):
    """A datagram that belongs to the request ``stream_id`` (RFC 9297, 2.1)."""

    data: bytes
    stream_id: int


@dataclass
class HeadersReceived(H3Event):
    """A header section: request, response (1xx too) or trailers."""

    headers: Headers
    stream_id: int
    stream_ended: bool
    push_id: int | None = None


@dataclass
class PushPromiseReceived(H3Event):
    """On ``stream_id`` the server promises to push the response to ``headers``."""

    headers: Headers
    push_id: int
    stream_id: int


@dataclass
class WebTransportStreamDataReceived(H3Event):
    """Some bytes of a stream of the WebTransport session ``session_id``."""

    data: bytes
    stream_id: int
    stream_ended: bool
    session_id: int


@dataclass
class SettingsReceived(H3Event):
    """The peer's settings (RFC 9114, 7.2.4)."""

    settings: dict[int, int]


@dataclass
class GoAwayReceived(H3Event):
    """Requests (or pushes) from ``last_id`` on are not processed (RFC 9114, 5.2)."""

    last_id: int


@dataclass
class MaxPushIdReceived(H3Event):
    """We may push up to and including ``max_push_id`` (RFC 9114, 7.2.7)."""

    max_push_id: int


@dataclass
class PushCancelled(H3Event):
    """The peer cancels the push ``push_id`` (RFC 9114, 7.2.3)."""

    push_id: int


@dataclass
class PriorityUpdated(H3Event):
    """A priority field value for a request or a push (RFC 9218, 7.2)."""

    priority: bytes
    stream_id: int | None = None
    push_id: int | None = None


@dataclass
class OriginReceived(H3Event):
    """The origins that the server is authoritative for, as bytes (RFC 9412)."""

    origins: list[bytes]


@dataclass
class StreamReset(H3Event):
    """The peer has reset its side of a stream.

    ``session_id`` is ``None`` unless it is a stream of WebTransport.  Then the error
    code is the application's (draft-ietf-webtrans-http3, 4.4), or HTTP/3's if it maps
    to none.
    """

    error_code: int
    stream_id: int
    session_id: int | None = None


@dataclass
class StopSendingReceived(H3Event):
    """The peer has asked us to stop sending on a stream; fields as ``StreamReset``."""

    error_code: int
    stream_id: int
    session_id: int | None = None


@dataclass
class StreamAborted(H3Event):
    """We have ended both sides of a stream because of what the peer sent on it.

    The message is malformed (RFC 9114, 4.1.2), ends before its header section, or is
    over a limit: ``reason`` says how, in ASCII; ``error_code`` was sent. It is the last
    event of the stream.  It comes only if ``H3Configuration.stream_errors`` is set;
    otherwise the connection is closed.
    """

    error_code: int
    stream_id: int
    reason: str
    push_id: int | None = None


@dataclass
class CapsuleReceived(H3Event):
    """A capsule on a stream that carries them (RFC 9297, 3.2)."""

    capsule_type: int
    data: bytes
    stream_id: int


@dataclass
class WebTransportSessionDrained(H3Event):
    """The peer asks us to close the session soon."""

    session_id: int


@dataclass
class WebTransportSessionClosed(H3Event):
    """The peer has ended the session; its streams are aborted."""

    session_id: int
    error_code: int
    reason: str
