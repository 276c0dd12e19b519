"""Traces of connections in qlog (draft-ietf-quic-qlog-main-schema).

We write them ourselves: the writer in ngtcp2 1.11 has a flaw (CVE-2026-40170).
"""

from __future__ import annotations

import json
import os
from collections import deque
from datetime import datetime, timezone
from typing import Any

__all__ = ["QuicFileLogger", "QuicLogger", "QuicLoggerTrace"]

QLOG_VERSION = "0.3"

# A trace keeps only so many events, the latest.
MAX_EVENTS = 100_000


class QuicLoggerTrace:
    """The events of one connection."""

    def __init__(self, *, is_client: bool, odcid: bytes) -> None:
        self._odcid = odcid
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._vantage_point = {
            "name": "nghttp2py",
            "type": "client" if is_client else "server",
        }

    def encode_time(self, seconds: float) -> float:
        """Convert a time to milliseconds."""
        return seconds * 1000

    def encode_http3_data_frame(self, length: int, stream_id: int) -> dict[str, Any]:
        """Describe a DATA frame of HTTP/3."""
        return {
            "frame": {"frame_type": "data"},
            "length": length,
            "stream_id": stream_id,
        }

    def encode_http3_headers_frame(
        self, length: int, headers: list[tuple[bytes, bytes]], stream_id: int
    ) -> dict[str, Any]:
        """Describe a HEADERS frame of HTTP/3."""
        return {
            "frame": {"frame_type": "headers", "headers": _encode_headers(headers)},
            "length": length,
            "stream_id": stream_id,
        }

    def encode_http3_push_promise_frame(
        self,
        length: int,
        headers: list[tuple[bytes, bytes]],
        push_id: int,
        stream_id: int,
    ) -> dict[str, Any]:
        """Describe a PUSH_PROMISE frame of HTTP/3."""
        return {
            "frame": {
                "frame_type": "push_promise",
                "headers": _encode_headers(headers),
                "push_id": push_id,
            },
            "length": length,
            "stream_id": stream_id,
        }

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        """Add an event, with the time of the machine's clock."""
        self._events.append(
            {
                "data": data,
                "name": f"{category}:{event}",
                "time": self.encode_time(datetime.now(timezone.utc).timestamp()),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as a dictionary that can be written as JSON."""
        return {
            "common_fields": {"ODCID": self._odcid.hex()},
            "events": list(self._events),
            "vantage_point": self._vantage_point,
        }


def _encode_headers(headers: list[tuple[bytes, bytes]]) -> list[dict[str, str]]:
    return [
        {
            "name": name.decode("utf8", "replace"),
            "value": value.decode("utf8", "replace"),
        }
        for name, value in headers
    ]


class QuicLogger:
    """Keeps traces in memory."""

    def __init__(self) -> None:
        self._traces: list[QuicLoggerTrace] = []

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        """Begin the trace of a connection."""
        trace = QuicLoggerTrace(is_client=is_client, odcid=odcid)
        self._traces.append(trace)
        return trace

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """End a trace, which must be one of this logger."""
        if trace not in self._traces:
            raise ValueError("QuicLoggerTrace does not belong to QuicLogger")

    def to_dict(self) -> dict[str, Any]:
        """Return all traces as a dictionary that can be written as JSON."""
        return {
            "qlog_format": "JSON",
            "qlog_version": QLOG_VERSION,
            "traces": [trace.to_dict() for trace in self._traces],
        }


class QuicFileLogger(QuicLogger):
    """Writes each trace to a file of its own when it ends."""

    def __init__(self, path: str) -> None:
        if not os.path.isdir(path):
            raise ValueError(f"QUIC log output directory '{path}' does not exist")
        self.path = path
        super().__init__()

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """Write a trace to the directory, named by its connection id."""
        super().end_trace(trace)
        trace_dict = trace.to_dict()
        name = trace_dict["common_fields"]["ODCID"] + ".qlog"
        with open(os.path.join(self.path, name), "w") as file:
            json.dump(
                {
                    "qlog_format": "JSON",
                    "qlog_version": QLOG_VERSION,
                    "traces": [trace_dict],
                },
                file,
            )
        self._traces.remove(trace)
