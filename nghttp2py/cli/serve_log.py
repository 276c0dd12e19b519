"""The log of ``nghttp2py serve`` on a terminal: a short line in color per request."""

from __future__ import annotations

import logging
import time

from nghttp2py.access import format_address, quote
from nghttp2py.listings import format_size

__all__ = ["AccessFormatter"]

_DIM, _END = "\x1b[2m", "\x1b[0m"
# By the first digit of the status.
_COLORS = {2: "\x1b[32m", 3: "\x1b[36m", 4: "\x1b[33m", 5: "\x1b[31m"}
_VERSION_COLORS = {"HTTP/3": "\x1b[35m", "HTTP/2": "\x1b[34m"}


class AccessFormatter(logging.Formatter):
    """Formats the records of the logger ``nghttp2py.access``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a request; other records are formatted as usual."""
        fields = record.__dict__
        if "status" not in fields or "protocol" not in fields:
            return super().format(record)
        status, protocol = fields["status"], fields["protocol"]
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        color = _COLORS.get((status or 0) // 100, "\x1b[31m")
        version = _VERSION_COLORS.get(protocol, _DIM)
        incomplete = "" if fields["complete"] else " incomplete"
        return (
            f"{_DIM}{clock}{_END} {color}{status or '---'}{_END} "
            f"{version}{protocol:8}{_END} {quote(fields['method'])} "
            f"{quote(fields['target'])} {_DIM}{format_size(fields['bytes_sent'])}, "
            f"{fields['duration'] * 1000:.1f} ms, "
            f"{format_address(fields['address'])}{incomplete}{_END}"
        )
