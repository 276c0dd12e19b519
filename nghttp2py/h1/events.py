"""What happens on an HTTP/1.1 connection, as values.

A request's header section is a ``RequestReceived``, as in all versions of HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nghttp2py.h2.events import RequestReceived

__all__ = [
    "H1BodyReceived",
    "H1EndReceived",
    "H1Event",
    "H1RequestRefused",
    "H1TrailersReceived",
    "RequestReceived",
]


@dataclass(frozen=True)
class H1BodyReceived:
    """A piece of a request's body, or of a tunnel's bytes."""

    data: bytes


@dataclass(frozen=True)
class H1TrailersReceived:
    """The trailer section of a chunked body (RFC 9112, 7.1.2)."""

    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class H1EndReceived:
    """The request is complete."""


@dataclass(frozen=True)
class H1RequestRefused:
    """What the client sent is no valid request, or is larger than a limit.

    ``status`` is that of the answer in ``data_to_send``, or None if a response had been
    begun.  Nothing is received any more.  ``reason`` is text for people.
    """

    status: int | None
    reason: str


H1Event: TypeAlias = (
    RequestReceived
    | H1BodyReceived
    | H1TrailersReceived
    | H1EndReceived
    | H1RequestRefused
)
