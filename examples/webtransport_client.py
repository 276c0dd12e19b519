#!/usr/bin/env python3
"""A WebTransport client: a message comes back on a stream, another in a datagram.

    python examples/webtransport_client.py certificate.pem https://127.0.0.1:8080/echo

The certificate is the server's own, or that of an authority.
"""

import asyncio
import sys
from typing import Any, cast
from urllib.parse import urlsplit

from nghttp2py.asyncio import QuicConnectionProtocol, connect
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.events import (
    DatagramReceived,
    HeadersReceived,
    SettingsReceived,
    WebTransportStreamDataReceived,
)
from nghttp2py.quic import QuicConfiguration
from nghttp2py.quic.events import ConnectionTerminated, QuicEvent

# Seconds within which the server must answer.
TIMEOUT = 10


class Sessions(QuicConnectionProtocol):
    """A connection of HTTP/3 that keeps what arrives."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        config = H3Configuration(extended=True)
        self.http = H3Connection(self._quic, enable_webtransport=True, config=config)
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.events.put_nowait(event)
        for received in self.http.handle_event(event):
            self.events.put_nowait(received)

    async def wait_for(self, kind: type[Any]) -> Any:
        """Return the next event of a kind."""
        while True:
            event = await asyncio.wait_for(self.events.get(), TIMEOUT)
            if isinstance(event, kind):
                return event
            if isinstance(event, ConnectionTerminated):
                raise ConnectionError(f"the connection has ended: {event}")

    async def open_session(self, authority: str, path: str) -> int:
        """Open a session; return its identifier."""
        # Only the server's SETTINGS show whether it has WebTransport.
        await self.wait_for(SettingsReceived)
        session_id = self._quic.get_next_available_stream_id()
        headers = [
            (b":method", b"CONNECT"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
        ]
        self.http.send_headers(session_id, headers)
        self.transmit()
        response = await self.wait_for(HeadersReceived)
        status = dict(response.headers)[b":status"].decode()
        if not status.startswith("2"):
            raise ConnectionError(f"the session is refused: {status}")
        return session_id

    async def send_by_stream(self, session_id: int, data: bytes) -> bytes:
        """Send data on a stream of a session; return what comes back."""
        stream_id = self.http.create_webtransport_stream(session_id)
        self.http.send_webtransport_data(stream_id, data, end_stream=True)
        self.transmit()
        answer = bytearray()
        while True:
            event = await self.wait_for(WebTransportStreamDataReceived)
            answer += event.data
            if event.stream_ended:
                return bytes(answer)

    async def send_by_datagram(self, session_id: int, data: bytes) -> bytes:
        """Send data in datagrams until one comes back: any may be lost."""

        async def repeat() -> None:
            while True:
                self.http.send_datagram(session_id, data)
                self.transmit()
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(repeat())
        try:
            answer: DatagramReceived = await self.wait_for(DatagramReceived)
            return answer.data
        finally:
            sending.cancel()


async def main(certificate: str, url: str) -> None:
    """Open a session, and use it."""
    parts = urlsplit(url)
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        cafile=certificate,
        max_datagram_frame_size=65536,  # WebTransport needs QUIC's datagrams
    )
    async with connect(
        parts.hostname or "",
        parts.port or 443,
        configuration=configuration,
        create_protocol=Sessions,
    ) as protocol:
        client = cast(Sessions, protocol)
        session = await client.open_session(parts.netloc, parts.path or "/")
        print("stream:", (await client.send_by_stream(session, b"Hello")).decode())
        print("datagram:", (await client.send_by_datagram(session, b"Hello")).decode())
        client.http.close_webtransport_session(session, 0, "done")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: webtransport_client.py certificate.pem URL")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, NGHTTP2Error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
