"""HTTP/3 for ``get``: the settings of its ``Client``, and the frames that it shows.

Imported when ``--http3`` asks for it: not every build has QUIC.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.cli.frames import LinePrinter
from nghttp2py.frames import describe_http3
from nghttp2py.h3 import (
    GoAwayReceived,
    H3Event,
    SettingsReceived,
)
from nghttp2py.h3.connection import Setting
from nghttp2py.quic import QuicConfiguration, QuicLogger
from nghttp2py.quic.events import HandshakeCompleted, QuicEvent
from nghttp2py.quic.logger import QuicLoggerTrace

__all__ = ["HANDSHAKE_TIMEOUT", "Protocol", "make_configuration"]

#: Seconds to wait for a server's answer over UDP.
HANDSHAKE_TIMEOUT = 10.0

# A window of 1 MiB keeps a distant server busy while the file is written.
_WINDOW = 1 << 20
_CONNECTION_WINDOW = 8 << 20


def make_configuration(
    insecure: bool,
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
    *,
    timeout: float,
    printer: LinePrinter | None,
) -> QuicConfiguration:
    """Make the configuration of a client.  Raises OSError and ValueError."""
    configuration = QuicConfiguration(
        is_client=True,
        congestion_control_algorithm="cubic",
        # The wait for a response has the shorter bound.
        idle_timeout=timeout + HANDSHAKE_TIMEOUT,
        max_data=_CONNECTION_WINDOW,
        max_stream_data=_WINDOW,
        probe_datagram_size=True,
    )
    if insecure:
        configuration.verify_mode = ssl.CERT_NONE
    if cacert is not None:
        configuration.load_verify_locations(str(cacert))
    if cert is not None:
        configuration.load_cert_chain(cert, key)
    if printer is not None:
        configuration.quic_logger = _FrameLogger(printer)
    return configuration


class Protocol(H3Protocol):
    """Knows whether the server has spoken QUIC; shows what no trace of frames has."""

    heard = False

    def __init__(
        self, *arguments: Any, printer: LinePrinter | None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._printer = printer

    def quic_event_received(self, event: QuicEvent) -> None:
        super().quic_event_received(event)
        if isinstance(event, HandshakeCompleted):
            self.heard = True
            if self._printer is not None:
                sent = self._require_http().sent_settings
                self._printer.show("send", "SETTINGS", "", _settings(sent))

    def h3_event_received(self, event: H3Event) -> None:
        if self._printer is not None:
            if isinstance(event, SettingsReceived):
                self._printer.show("recv", "SETTINGS", "", _settings(event.settings))
            elif isinstance(event, GoAwayReceived):
                self._printer.show("recv", "GOAWAY", f", last stream {event.last_id}")
        super().h3_event_received(event)


class _FrameLogger(QuicLogger):
    """Prints the frames of HTTP/3 instead of keeping a trace of them."""

    def __init__(self, printer: LinePrinter) -> None:
        super().__init__()
        self._printer = printer

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        trace = _FrameTrace(is_client=is_client, odcid=odcid)
        trace.printer = self._printer
        self._traces.append(trace)
        return trace


class _FrameTrace(QuicLoggerTrace):
    printer: LinePrinter

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        described = describe_http3(event, data) if category == "http" else None
        if described is not None:
            way, frame = described
            self.printer.show(way, *frame)


def _settings(settings: dict[int, int]) -> list[tuple[str, str]]:
    known = {int(setting): setting.name for setting in Setting}
    return [(known.get(key, hex(key)), str(n)) for key, n in settings.items()]
