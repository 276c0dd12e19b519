"""HTTP/3 for ``get``, with requests and responses like those of ``Client``.

Imported when ``--http3`` asks for it: not every build has QUIC.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nghttp2py import errors
from nghttp2py.asyncio import Fields
from nghttp2py.asyncio.h3 import H3Protocol, H3RequestStream
from nghttp2py.asyncio.quic import connect
from nghttp2py.asyncio.url import SplitURL
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.cli.frames import LinePrinter, printable
from nghttp2py.errors import HeadersError, StreamResetError
from nghttp2py.h3 import (
    H3_ALPN,
    GoAwayReceived,
    H3Event,
    SettingsReceived,
)
from nghttp2py.h3.connection import ProtocolError, Setting
from nghttp2py.h3.exceptions import GoingAwayError
from nghttp2py.quic import (
    QuicConfiguration,
    QuicConnection,
    QuicErrorCode,
    QuicLogger,
)
from nghttp2py.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from nghttp2py.quic.logger import QuicLoggerTrace

__all__ = ["HTTP3Client", "HTTP3Response", "make_configuration"]

#: Seconds to wait for a server's answer over UDP.
HANDSHAKE_TIMEOUT = 10.0

#: How often a request that the server has not processed is sent again.
RETRIES = 3

# A window of 1 MiB keeps a distant server busy while the file is written.
_WINDOW = 1 << 20
_CONNECTION_WINDOW = 8 << 20

# Alerts of TLS: those about certificates (RFC 8446, 6.2), and RFC 7301, 3.2.
_CERTIFICATE_ALERTS = range(42, 49)
_NO_APPLICATION_PROTOCOL = 120


class HandshakeError(ConnectionError):
    """There is no connection; the text is a sentence with the reason."""


def make_configuration(
    insecure: bool,
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
    *,
    timeout: float,
) -> QuicConfiguration:
    """Make the configuration of a client.  Raises OSError and ValueError."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
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
    # A connection is made to read the files, and raises if they are invalid.
    QuicConnection(configuration=configuration)
    return configuration


class HTTP3Response:
    """A response whose body may still be arriving."""

    def __init__(
        self,
        stream: H3RequestStream,
        sender: asyncio.Task[None] | None,
        timeout: float,
    ) -> None:
        self._stream = stream
        self._sender = sender
        self._timeout = timeout
        self.status = int(stream.headers[0][1])
        self.headers = Fields(f for f in stream.headers if f[0][:1] != b":")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives; the server gets credit for each
        piece."""
        while piece := await _within(
            self._timeout, self._stream.readany(), "nothing of the body came"
        ):
            yield piece

    async def __aenter__(self) -> HTTP3Response:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stream.reset()
        if self._sender is not None:
            await _stop_sending(self._sender)


class HTTP3Client:
    """Sends requests to one server, over a connection that is made when it is needed.

    A request that the server declares not to have processed (RFC 9114, 4.1.1)
    is sent again on another one.
    """

    def __init__(
        self,
        url: SplitURL,
        configuration: QuicConfiguration,
        *,
        timeout: float,
        printer: LinePrinter | None,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._printer = printer
        self._configuration = configuration
        if printer is not None:
            configuration.quic_logger = _FrameLogger(printer)
        self._connections = contextlib.AsyncExitStack()
        self._opening: asyncio.Task[_Protocol] | None = None
        self._protocol: _Protocol | None = None

    async def __aenter__(self) -> HTTP3Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._connections.aclose()

    async def request(
        self, method: str, target: str, *, headers: Any, body: Any
    ) -> HTTP3Response:
        """Send a request and wait until its response begins."""
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", (self._url.authority or "").encode()),
            (b":path", target.encode()),
            *((name.lower().encode(), value.encode()) for name, value in headers),
        ]
        if body is not None and not any(f[0] == b"content-length" for f in fields):
            size = _size(body)
            if size is not None:
                fields.append((b"content-length", b"%d" % size))
        # A server that does not answer at all is reported differently.
        await self._connect()
        response: HTTP3Response = await _within(
            self._timeout, self._request(fields, body), "no response"
        )
        return response

    async def _request(
        self, fields: list[tuple[bytes, bytes]], body: Any
    ) -> HTTP3Response:
        attempt = 0
        while True:
            protocol = await self._connect()
            try:
                return await self._request_once(protocol, fields, body)
            except (StreamResetError, GoingAwayError) as error:
                if isinstance(error, StreamResetError) and not error.unprocessed:
                    raise
                # A server may cap the requests of a connection.  Retry on a new one,
                # without counting an attempt, as long as some are answered.
                if protocol.is_available or not protocol.answered:
                    if attempt == RETRIES:
                        raise
                    attempt += 1

    async def _request_once(
        self, protocol: _Protocol, fields: list[tuple[bytes, bytes]], body: Any
    ) -> HTTP3Response:
        try:
            stream = await protocol.open_stream(fields, end_stream=body is None)
        except ProtocolError as error:
            raise HeadersError(str(error)) from None
        sender = None
        try:
            if body is not None:
                sender = asyncio.create_task(_send(stream, body))
            await stream.response()
        except BaseException:
            stream.reset()
            if sender is not None:
                await _stop_sending(sender)
            raise
        protocol.answered = True
        return HTTP3Response(stream, sender, self._timeout)

    async def _connect(self) -> _Protocol:
        """Return a connection that accepts requests; callers share the one being
        made."""
        if self._protocol is None or not self._protocol.is_available:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(self._opened)
            self._protocol = await asyncio.shield(self._opening)
        return self._protocol

    def _opened(self, task: asyncio.Task[_Protocol]) -> None:
        self._opening = None

    async def _open(self) -> _Protocol:
        protocols: list[_Protocol] = []

        def create(*arguments: Any, **options: Any) -> _Protocol:
            protocols.append(_Protocol(*arguments, printer=self._printer, **options))
            return protocols[0]

        assert self._url.host is not None and self._url.port is not None
        seconds = min(HANDSHAKE_TIMEOUT, self._timeout)
        try:
            await wait_for(
                self._connections.enter_async_context(
                    connect(
                        self._url.host,
                        self._url.port,
                        configuration=self._configuration,
                        create_protocol=create,
                    )
                ),
                seconds,
            )
        except asyncio.TimeoutError:
            raise HandshakeError(
                f"{self._url.authority} does not answer over UDP, which HTTP/3 needs, "
                f"in {seconds:g} seconds"
            ) from None
        except ConnectionError:
            if not protocols or protocols[0].terminated is None:
                raise
            raise HandshakeError(
                _explain(f"{self._url.authority}", protocols[0].terminated)
            ) from None
        return protocols[0]


class _Protocol(H3Protocol):
    """Shows what the trace of frames does not have, and keeps the end of the
    connection."""

    terminated: ConnectionTerminated | None = None
    answered = False

    def __init__(
        self, *arguments: Any, printer: LinePrinter | None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._printer = printer

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        super().quic_event_received(event)
        if self._printer is not None and isinstance(event, HandshakeCompleted):
            self._printer.show(
                "send", "SETTINGS", "", _settings(self._require_http().sent_settings)
            )

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
        if category != "http" or "frame" not in data:
            return
        frame = data["frame"]
        self.printer.show(
            "send" if event == "frame_created" else "recv",
            frame["frame_type"].upper(),
            f" stream {data['stream_id']}, {data['length']} bytes",
            (
                (printable(f["name"].encode()), printable(f["value"].encode()))
                for f in frame.get("headers", ())
            ),
        )


def _settings(settings: dict[int, int]) -> list[tuple[str, str]]:
    known = {int(setting): setting.name for setting in Setting}
    return [(known.get(key, hex(key)), str(n)) for key, n in settings.items()]


async def _within(seconds: float, awaitable: Any, what: str) -> Any:
    try:
        return await wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise TimeoutError(f"{what} in {seconds} seconds") from None


async def _send(stream: H3RequestStream, body: Any) -> None:
    # If the server declines the body, that is no error: its response gives the reason.
    with contextlib.suppress(StreamResetError, ConnectionError):
        if isinstance(body, bytes):
            await stream.send_data(body, end_stream=True)
            return
        if body.seekable():
            body.seek(0)
        try:
            await stream.send_body(body.read)
        except (OSError, ProtocolError):
            stream.reset()
            raise


async def _stop_sending(sender: asyncio.Task[None]) -> None:
    """End a task of ``_send``; raise what the source of its body has raised."""
    sender.cancel()
    await asyncio.wait([sender])
    if not sender.cancelled() and (error := sender.exception()):
        raise error from None


def _size(body: Any) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return os.fstat(body.fileno()).st_size if body.seekable() else None


def _explain(server: str, event: ConnectionTerminated) -> str:
    """Return the reason why there is no connection."""
    reason = errors.printable(event.reason_phrase)
    if event.frame_type is None or event.error_code < QuicErrorCode.CRYPTO_ERROR:
        return (
            f"no QUIC connection to {server}: {event.error_code:#x} {reason}".rstrip()
        )
    alert = event.error_code - QuicErrorCode.CRYPTO_ERROR
    if alert == _NO_APPLICATION_PROTOCOL:
        return f"{server} does not speak HTTP/3"
    # The text is our own: a peer's alert has none.
    if alert in _CERTIFICATE_ALERTS and reason:
        return f"the certificate of {server} is not trusted: {reason}"
    return f"no TLS connection to {server}: alert {alert} {reason}".rstrip()
