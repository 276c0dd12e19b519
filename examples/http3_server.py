#!/usr/bin/env python3
"""An HTTP/3 server: a page, an echo, bytes to measure with, and WebTransport.

    python examples/http3_server.py --certificate cert.pem --private-key key.pem

GET /         a page that tries the WebTransport echo; its style is pushed
GET /N        N bytes
POST /echo    what was posted
CONNECT /wt   a WebTransport session.  Datagrams and streams come back; what is
              sent on a unidirectional stream, on another.  The datagram "bye"
              closes the session.

docs/h3.rst tells how to visit it with Chromium.
"""

import argparse
import asyncio
import contextlib
import re
from typing import Any

from nghttp2py.asyncio import QuicConnectionProtocol, serve
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.events import (
    DatagramReceived,
    DataReceived,
    H3Event,
    HeadersReceived,
    StreamReset,
    WebTransportStreamDataReceived,
)
from nghttp2py.h3.exceptions import NoAvailablePushIDError
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import ProtocolNegotiated, QuicEvent

PAGE = b"""<!doctype html>
<link rel="stylesheet" href="/style.css">
<p>Hello, HTTP/3</p>
<p id="echo"></p>
<script type="module">
const session = new WebTransport(new URL("/wt", location));
await session.ready;
const stream = await session.createBidirectionalStream();
new Blob(["Hello, WebTransport"]).stream().pipeTo(stream.writable);
document.getElementById("echo").textContent =
  await new Response(stream.readable).text();
</script>
"""
STYLE = b"p { font: 2rem system-ui }\n"
MAX_BYTES = 50_000_000


class HTTP3Server(QuicConnectionProtocol):
    """One connection: QUIC's events go in HTTP/3, and come out as its events."""

    http: H3Connection  # as soon as ALPN has chosen it

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: Of a stream: its headers, and its body so far.
        self.requests: dict[int, tuple[dict[bytes, bytes], bytearray]] = {}
        #: Of a WebTransport stream of the client: ours.
        self.echoes: dict[int, int] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            # What the later drafts of WebTransport have is in "extended" too.
            self.http = H3Connection(
                self._quic,
                enable_webtransport=True,
                config=H3Configuration(extended=True),
            )
        if hasattr(self, "http"):
            for received in self.http.handle_event(event):
                self.h3_event_received(received)

    def h3_event_received(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.headers_received(event)
        elif isinstance(event, DataReceived):
            self.data_received(event)
        elif isinstance(event, StreamReset):
            self.requests.pop(event.stream_id, None)
            self.echoes.pop(event.stream_id, None)
        elif isinstance(event, DatagramReceived):
            # A datagram and a session have the identifier of the CONNECT.
            if event.data == b"bye":
                self.http.close_webtransport_session(event.stream_id, 0, "bye")
            else:
                self.http.send_datagram(event.stream_id, event.data)
        elif isinstance(event, WebTransportStreamDataReceived):
            self.echo(event)

    def headers_received(self, event: HeadersReceived) -> None:
        headers = dict(event.headers)
        if b":protocol" in headers:
            # The response makes the session, and its stream stays open.
            found = headers[b":protocol"].startswith(b"webtransport")
            if found and headers[b":path"] == b"/wt":
                self.http.send_headers(event.stream_id, [(b":status", b"200")])
            else:
                self.respond(event.stream_id, 404)
            return
        if b":method" in headers:  # else they are trailers; we need none
            self.requests[event.stream_id] = (headers, bytearray())
        if event.stream_ended and event.stream_id in self.requests:
            self.request_received(event.stream_id)

    def data_received(self, event: DataReceived) -> None:
        if event.stream_id not in self.requests:
            return
        _, body = self.requests[event.stream_id]
        body += event.data
        if len(body) > MAX_BYTES:
            del self.requests[event.stream_id]
            self.respond(event.stream_id, 413)
            self._quic.stop_stream(event.stream_id, ErrorCode.H3_NO_ERROR)
        elif event.stream_ended:
            self.request_received(event.stream_id)

    def request_received(self, stream_id: int) -> None:
        headers, body = self.requests.pop(stream_id)
        # A CONNECT without ":protocol" has no path.
        method, path = headers[b":method"], headers.get(b":path", b"")
        if method == b"POST" and path == b"/echo":
            self.respond(stream_id, 200, bytes(body))
        elif method != b"GET":
            self.respond(stream_id, 405)
        elif path == b"/":
            self.push(stream_id, headers, b"/style.css", STYLE, b"text/css")
            self.respond(stream_id, 200, PAGE, b"text/html")
        elif path == b"/style.css":
            self.respond(stream_id, 200, STYLE, b"text/css")
        elif re.fullmatch(rb"/\d{1,8}", path) and int(path[1:]) <= MAX_BYTES:
            self.respond(stream_id, 200, bytes(int(path[1:])))
        else:
            self.respond(stream_id, 404, b"There is no such page.\n")

    def respond(
        self,
        stream_id: int,
        status: int,
        body: bytes = b"",
        content_type: bytes = b"text/plain",
    ) -> None:
        headers = [
            (b":status", b"%d" % status),
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
        ]
        # What the client is in a hurry for overtakes the rest (RFC 9218).
        self._quic.set_stream_priority(stream_id, *self.http.priority(stream_id))
        self.http.send_headers(stream_id, headers)
        self.http.send_data(stream_id, body, end_stream=True)

    def push(
        self,
        stream_id: int,
        headers: dict[bytes, bytes],
        path: bytes,
        body: bytes,
        content_type: bytes,
    ) -> None:
        """Answer a request that we expect, if the client takes pushes."""
        promised = [
            (b":method", b"GET"),
            (b":scheme", headers[b":scheme"]),
            (b":authority", headers[b":authority"]),
            (b":path", path),
        ]
        with contextlib.suppress(NoAvailablePushIDError):
            push_stream_id = self.http.send_push_promise(stream_id, promised)
            self.respond(push_stream_id, 200, body, content_type)

    def echo(self, event: WebTransportStreamDataReceived) -> None:
        stream_id = event.stream_id
        if stream_id & 2:  # unidirectional
            if stream_id not in self.echoes:
                self.echoes[stream_id] = self.http.create_webtransport_stream(
                    event.session_id, is_unidirectional=True
                )
            stream_id = self.echoes[stream_id]
            if event.stream_ended:
                del self.echoes[event.stream_id]
        self.http.send_webtransport_data(stream_id, event.data, event.stream_ended)


async def main(options: argparse.Namespace) -> None:
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        max_datagram_frame_size=65536,  # WebTransport needs QUIC's datagrams
    )
    configuration.load_cert_chain(options.certificate, options.private_key)
    server = await serve(
        options.host,
        options.port,
        configuration=configuration,
        create_protocol=HTTP3Server,
        retry=options.retry,
    )
    port = server.sockets[0].getsockname()[1]
    print(f"https://{options.host}:{port}/", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--certificate", required=True, metavar="FILE")
    parser.add_argument("--private-key", required=True, metavar="FILE")
    parser.add_argument(
        "--retry", action="store_true", help="have clients prove their address"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
