"""What the parts of ``get`` know of a request and of what became of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Answer", "Peer", "Record", "Request", "find_field"]

#: Header fields as they were received or are sent.
FieldList = list[tuple[bytes, bytes]]


def find_field(fields: FieldList, name: bytes) -> bytes | None:
    """Return the first value of a field, whose ``name`` is in lower case."""
    return next((value for key, value in fields if key.lower() == name), None)


@dataclass
class Request:
    """One request, as it is sent."""

    method: str
    url: str
    fields: FieldList
    #: Bytes, the path of a file, or a binary file that cannot be read twice.
    body: Any = None

    @property
    def can_repeat(self) -> bool:
        """Whether its body can be sent again."""
        return self.body is None or isinstance(self.body, (bytes, Path))


@dataclass
class Peer:
    """A connection, and when the steps of making it were done.

    The times are those of ``time.perf_counter``; 0 means that there was no such step.
    """

    start: float = 0.0
    looked_up: float = 0.0
    connected: float = 0.0
    secured: float = 0.0
    remote: tuple[str, int] = ("", 0)
    local: tuple[str, int] = ("", 0)
    #: The status of a proxy's response to CONNECT.
    proxy_status: int = 0
    number: int = 0
    is_used: bool = False


@dataclass
class Record:
    """A request that was sent, its response, and when what happened."""

    request: Request
    start: float = field(default_factory=time.perf_counter)
    #: Seconds since the epoch.
    wall: float = field(default_factory=time.time)
    peer: Peer | None = None
    #: Whether the connection was made for this request.
    is_first: bool = False
    answered: float = 0.0
    end: float = 0.0
    version: str = "0"
    status: int = 0
    reason: str = ""
    fields: FieldList = field(default_factory=list)
    trailers: FieldList = field(default_factory=list)
    head_size: int = 0
    #: Bytes of the body before it was decoded.
    size: int = 0
    sent: int = 0
    #: The decoded body, as much of it as is kept for a HAR file.
    body: bytearray | None = None
    redirect: str = ""

    def since(self, when: float) -> float:
        """Return the seconds from the start to a time; 0 if there is none."""
        return max(0.0, when - self.start) if when else 0.0


class Answer(Protocol):
    """A response whose body may still be arriving, of any version of HTTP."""

    version: str
    status: int
    reason: str
    fields: FieldList
    #: The 1xx responses before it: status, reason and fields of each.
    informational: list[tuple[int, str, FieldList]]
    peer: Peer

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""

    async def trailers(self) -> FieldList:
        """Return the trailer fields, once the body was read."""

    async def close(self) -> None:
        """Discard what was not read."""
