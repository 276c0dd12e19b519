"""A trace of qlog that logs the frames of HTTP/3 and keeps nothing."""

from __future__ import annotations

import copy
import logging
from typing import Any

from nghttp2py.asyncio.frame_log import describe_peer, log_frame, logger
from nghttp2py.frames import describe_http3
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.logger import QuicLogger, QuicLoggerTrace

__all__ = ["FrameLogger", "with_frame_log"]


class FrameLogger(QuicLogger):
    """Makes the trace of one connection, whose peer is at ``peer``."""

    def __init__(self, peer: str) -> None:
        super().__init__()
        self._peer = peer

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        """Begin the trace."""
        return _Trace(self._peer, is_client=is_client, odcid=odcid)

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """Do nothing: all is logged."""


class _Trace(QuicLoggerTrace):
    def __init__(self, peer: str, **options: Any) -> None:
        super().__init__(**options)
        self._peer = peer

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        if category == "http":
            described = describe_http3(event, data)
            if described is not None:
                log_frame(self._peer, *described)


def with_frame_log(configuration: QuicConfiguration, peer: object) -> QuicConfiguration:
    """Return the configuration of a new connection: frames are logged if wanted.

    A ``quic_logger`` that it has is left alone.
    """
    if not logger.isEnabledFor(logging.DEBUG) or configuration.quic_logger is not None:
        return configuration
    configuration = copy.copy(configuration)
    configuration.quic_logger = FrameLogger(describe_peer(peer))
    return configuration
