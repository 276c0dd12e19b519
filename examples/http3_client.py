#!/usr/bin/env python3
"""Fetch and upload over HTTP/3, or try a WebTransport echo.

    python examples/http3_client.py [--ca-certs FILE] [--data TEXT] URL...
    python examples/http3_client.py [--ca-certs FILE] --webtransport TEXT URL

The requests go at once, on one connection.  Bodies are written to standard output
in the order of the URLs; what else there is to say, to standard error.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

from nghttp2py.asyncio import QuicConnectionProtocol, connect
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.events import (
    DatagramReceived,
    DataReceived,
    H3Event,
    HeadersReceived,
    PushPromiseReceived,
    SettingsReceived,
    StreamReset,
    WebTransportSessionClosed,
    WebTransportStreamDataReceived,
)
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import ConnectionTerminated, QuicEvent

ENDS = (ConnectionTerminated, StreamReset, WebTransportSessionClosed)
OF_A_STREAM = (
    *ENDS,
    DatagramReceived,
    DataReceived,
    HeadersReceived,
    WebTransportStreamDataReceived,
)


class HTTP3Client(QuicConnectionProtocol):
    """One connection.  Each stream has a queue of its events."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http = H3Connection(
            self._quic, enable_webtransport=True, config=H3Configuration(extended=True)
        )
        self.greeted = asyncio.Event()  # the server's settings are here, or the end
        self.end: ConnectionTerminated | None = None
        self.queues: dict[int | None, asyncio.Queue[Any]] = {}
        #: Of the streams that the server opens.
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.end = event
            self.greeted.set()
            for queue in (self.incoming, *self.queues.values()):
                queue.put_nowait(event)
        for received in self.http.handle_event(event):
            self.h3_event_received(received)

    def h3_event_received(self, event: H3Event) -> None:
        if isinstance(event, SettingsReceived):
            self.greeted.set()
        elif isinstance(event, PushPromiseReceived):
            path = dict(event.headers)[b":path"].decode()
            print(f"pushed: {path}", file=sys.stderr)
        elif getattr(event, "push_id", None) is not None:
            pass  # the push itself: a browser would keep it
        elif isinstance(event, WebTransportSessionClosed):
            self.queues[event.session_id].put_nowait(event)
        elif isinstance(event, OF_A_STREAM):
            stream_id = getattr(event, "stream_id", None)
            self.queues.get(stream_id, self.incoming).put_nowait(event)

    async def next_event(self, stream_id: int | None) -> Any:
        """Return the stream's next event; ``None`` is any that the server opens."""
        event = await self.queues.get(stream_id, self.incoming).get()
        if isinstance(event, ENDS):
            raise ConnectionError(f"the answer is cut short: {event}")
        return event

    async def read(self, stream_id: int | None) -> bytes:
        """Return what comes on the stream up to its end."""
        pieces = []
        while True:
            event = await self.next_event(stream_id)
            if not isinstance(event, HeadersReceived):  # trailers
                pieces.append(event.data)
            if event.stream_ended:
                self.queues.pop(stream_id, None)
                return b"".join(pieces)

    def send_headers(
        self, url: str, *pseudo_headers: tuple[bytes, bytes], end_stream: bool = False
    ) -> int:
        """Send the headers of a request; return its stream."""
        parts = urlsplit(url)
        path = (parts.path or "/") + (parts.query and "?" + parts.query)
        headers = [
            *pseudo_headers,
            (b":scheme", parts.scheme.encode()),
            (b":authority", parts.netloc.encode()),
            (b":path", path.encode()),
            (b"user-agent", b"nghttp2py"),
        ]
        stream_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, headers, end_stream)
        self.queues[stream_id] = asyncio.Queue()
        if self.end is not None:
            self.queues[stream_id].put_nowait(self.end)
        return stream_id

    async def request(self, url: str, data: bytes | None = None) -> tuple[int, bytes]:
        """GET the URL, or POST the data to it; return status and body."""
        method = (b":method", b"GET" if data is None else b"POST")
        stream_id = self.send_headers(url, method, end_stream=data is None)
        if data is not None:
            self.http.send_data(stream_id, data, end_stream=True)
        self.transmit()
        response = await self.next_event(stream_id)
        body = b"" if response.stream_ended else await self.read(stream_id)
        return int(dict(response.headers)[b":status"]), body

    async def try_webtransport(self, url: str, data: bytes) -> AsyncIterator[bytes]:
        """Have the data come back on streams of both kinds and in a datagram."""
        # Only the server's settings show whether it has WebTransport.
        await self.greeted.wait()
        session_id = self.send_headers(
            url, (b":method", b"CONNECT"), (b":protocol", b"webtransport")
        )
        self.transmit()
        response = await self.next_event(session_id)
        status = dict(response.headers)[b":status"]
        if not status.startswith(b"2"):
            raise ConnectionError(f"the session is refused: {status.decode()}")
        for is_unidirectional in (False, True):
            stream_id = self.http.create_webtransport_stream(
                session_id, is_unidirectional
            )
            if not is_unidirectional:
                self.queues[stream_id] = asyncio.Queue()
            self.http.send_webtransport_data(stream_id, data, end_stream=True)
            self.transmit()
            yield await self.read(None if is_unidirectional else stream_id)
        # A datagram may be lost; a program that needs it would send it again.
        self.http.send_datagram(session_id, data)
        self.transmit()
        yield (await asyncio.wait_for(self.next_event(session_id), 5)).data
        self.http.close_webtransport_session(session_id, 0, "done")


async def main(options: argparse.Namespace) -> None:
    server = urlsplit(options.url[0])
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        max_datagram_frame_size=65536,  # WebTransport needs QUIC's datagrams
    )
    if options.ca_certs:
        configuration.load_verify_locations(options.ca_certs)
    async with connect(
        server.hostname,
        server.port or 443,
        configuration=configuration,
        create_protocol=HTTP3Client,
    ) as protocol:
        client = cast(HTTP3Client, protocol)
        if options.webtransport is not None:
            data = options.webtransport.encode()
            async for echo in client.try_webtransport(options.url[0], data):
                print(echo.decode())
            return
        data = None if options.data is None else options.data.encode()
        answers = await asyncio.gather(
            *(client.request(url, data) for url in options.url)
        )
    for url, (status, body) in zip(options.url, answers, strict=True):
        print(status, url, file=sys.stderr)
        sys.stdout.buffer.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="+", metavar="URL")
    parser.add_argument("--ca-certs", metavar="FILE", help="trust these authorities")
    parser.add_argument("--data", metavar="TEXT", help="POST this")
    parser.add_argument("--webtransport", metavar="TEXT", help="have this come back")
    try:
        asyncio.run(main(parser.parse_args()))
    except (OSError, NGHTTP2Error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
