"""HTTP/0.9 over QUIC, which interoperability tests of QUIC use (``hq-interop``).

A request is the line ``GET /path``, a response is its body; each ends with its half of
a bidirectional stream.  The interface and the events are those of HTTP/3, as in
``aioquic.h0.connection``.
"""

from __future__ import annotations

from nghttp2py.h3.events import DataReceived, H3Event, Headers, HeadersReceived
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import QuicEvent, StreamDataReceived, StreamReset

__all__ = ["H0_ALPN", "H0Connection"]

H0_ALPN = ["hq-interop"]

#: Octets of a request line; beyond it the server stops reading the stream.
MAX_REQUEST_LINE = 8192

_NO_ERROR = 0


class H0Connection:
    """HTTP/0.9 over ``quic``, in either role."""

    def __init__(self, quic: QuicConnection) -> None:
        self._quic = quic
        self._is_client = quic.configuration.is_client
        # The request lines that are incomplete, and the streams whose headers were
        # reported and whose end was not.
        self._lines: dict[int, bytes] = {}
        self._open: set[int] = set()

    def handle_event(self, event: QuicEvent) -> list[H3Event]:
        """Handle an event of QUIC; return the HTTP events that it causes.

        A request is reported when its line is complete.  A client's response has
        no headers: an event with an empty list precedes the body.
        """
        if isinstance(event, StreamReset):
            self._lines.pop(event.stream_id, None)
            self._open.discard(event.stream_id)
            return []
        if not isinstance(event, StreamDataReceived) or event.stream_id % 4:
            return []
        stream_id, data = event.stream_id, event.data
        events: list[H3Event] = []
        if stream_id not in self._open:
            headers: Headers = []
            if not self._is_client:
                line = self._lines.pop(stream_id, b"") + data
                if not (line.endswith(b"\r\n") or event.end_stream):
                    self._keep_line(stream_id, line)
                    return []
                method, _, path = line.rstrip().partition(b" ")
                if not path:
                    self._quic.reset_stream(stream_id, _NO_ERROR)
                    return []
                headers, data = [(b":method", method), (b":path", path)], b""
            self._open.add(stream_id)
            events.append(
                HeadersReceived(
                    headers=headers, stream_id=stream_id, stream_ended=False
                )
            )
        if event.end_stream:
            self._open.discard(stream_id)
        events.append(
            DataReceived(data=data, stream_id=stream_id, stream_ended=event.end_stream)
        )
        return events

    def _keep_line(self, stream_id: int, line: bytes) -> None:
        if len(line) <= MAX_REQUEST_LINE:
            self._lines[stream_id] = line
        else:
            self._quic.stop_stream(stream_id, _NO_ERROR)
            self._quic.reset_stream(stream_id, _NO_ERROR)

    def send_headers(
        self, stream_id: int, headers: Headers, end_stream: bool = False
    ) -> None:
        """Send a client's request line; at a server this sends nothing.

        Raises ``KeyError`` for a request without ``:method`` or ``:path``.
        """
        line = b""
        if self._is_client:
            fields = dict(headers)
            line = fields[b":method"] + b" " + fields[b":path"] + b"\r\n"
        self._quic.send_stream_data(stream_id, line, end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Send octets of a body."""
        self._quic.send_stream_data(stream_id, data, end_stream)
