"""The frames of connections on the logger ``nghttp2py.frames``, at level DEBUG.

Whether they are logged is decided when a connection begins; otherwise they cost
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from nghttp2py.asyncio.binding import describe_address
from nghttp2py.frames import Described, FrameDecoder

__all__ = [
    "FrameLog",
    "log_event",
    "log_frame",
    "logger",
    "open_frame_log",
]

#: The logger ``nghttp2py.frames``.
logger = logging.getLogger("nghttp2py.frames")

# Logs are kept, and read by others, so they have no secrets.
_SECRET = {"authorization", "proxy-authorization", "cookie", "set-cookie"}


class FrameLog:
    """Logs the frames of one connection of HTTP/2."""

    def __init__(self, peer: object, *, client_side: bool) -> None:
        self._peer = describe_peer(peer)
        self._decoder = FrameDecoder(client_side=client_side)

    def sent(self, data: bytes) -> None:
        """Log the frames in bytes that were sent."""
        self._log("send", data)

    def received(self, data: bytes) -> None:
        """Log the frames in bytes that were received."""
        self._log("recv", data)

    def _log(self, way: str, data: bytes) -> None:
        for frame in self._decoder.feed(way, data):
            log_frame(self._peer, way, frame)


def open_frame_log(transport: Any, *, client_side: bool) -> FrameLog | None:
    """Return the log of a new connection of HTTP/2, or None if it is not wanted."""
    if not logger.isEnabledFor(logging.DEBUG):
        return None
    return FrameLog(transport.get_extra_info("peername"), client_side=client_side)


def log_frame(peer: str, way: str, frame: Described) -> None:
    """Log one frame."""
    flags = "".join(f" {flag}" for flag in frame.flags)
    details = "; ".join(map(_format, frame.details))
    logger.debug(
        "%s %s %s%s%s%s",
        *(peer, way, frame.name, frame.about, flags),
        f": {details}" if details else "",
    )


def _format(detail: tuple[str, str]) -> str:
    name, value = detail
    if name.strip().lower() in _SECRET:  # the peer may break the rules for names
        value = f"({len(value)} characters)"
    return f"{name} {value}".rstrip()


def describe_peer(address: object) -> str:
    """Return the address of a peer as it is logged."""
    return describe_address(address) if address else "-"


def log_event(peer: object, way: str, name: str, details: Iterable[Any] = ()) -> None:
    """Log a frame of HTTP/3 that is no event of a qlog trace."""
    if logger.isEnabledFor(logging.DEBUG):
        pairs = [(str(key), str(value)) for key, value in details]
        log_frame(describe_peer(peer), way, Described(name, "", pairs, []))
