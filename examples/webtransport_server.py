#!/usr/bin/env python3
"""A WebTransport server, and a page that has its messages come back.

    python examples/webtransport_server.py certificate.pem key.pem [port]

The page is at http://localhost:PORT/; the sessions are at the UDP port of the same
number, with the path /echo.  Streams and datagrams come back.
"""

import asyncio
import hashlib
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from nghttp2py.asyncio import QuicConnectionProtocol, Server, Stream, serve
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.events import (
    DatagramReceived,
    H3Event,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from nghttp2py.quic import QuicConfiguration
from nghttp2py.quic.events import ProtocolNegotiated, QuicEvent

# A browser needs no authority if it knows the hash of the certificate.
PAGE = """<!doctype html>
<title>WebTransport</title>
<script type="module">
const show = (id, bytes) =>
  document.getElementById(id).textContent = new TextDecoder().decode(bytes);
const bytes = (text) => new TextEncoder().encode(text);
try {
  const session = new WebTransport("https://127.0.0.1:%d/echo", {
    serverCertificateHashes: [{ algorithm: "sha-256", value: new Uint8Array(%s) }],
  });
  await session.ready;
  const stream = await session.createBidirectionalStream();
  const writer = stream.writable.getWriter();
  await writer.write(bytes("Hello, stream"));
  await writer.close();
  show("stream", await new Response(stream.readable).arrayBuffer());
  // A datagram may be lost: it is sent until one has come back.
  const datagrams = session.datagrams.writable.getWriter();
  const timer = setInterval(() => datagrams.write(bytes("Hello, datagram")), 100);
  show("datagram", (await session.datagrams.readable.getReader().read()).value);
  clearInterval(timer);
} catch (error) {
  document.getElementById("error").textContent = error;
}
</script>
<p>stream: <b id="stream"></b><p>datagram: <b id="datagram"></b><p id="error"></p>
"""


class Echo(QuicConnectionProtocol):
    """One connection of HTTP/3."""

    http: H3Connection  # as soon as ALPN has chosen it

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            config = H3Configuration(extended=True)
            self.http = H3Connection(
                self._quic, enable_webtransport=True, config=config
            )
        if hasattr(self, "http"):
            for received in self.http.handle_event(event):
                self.h3_event_received(received)

    def h3_event_received(self, event: H3Event) -> None:
        """Accept sessions, and return what is sent in them."""
        if isinstance(event, HeadersReceived):
            fields = dict(event.headers)
            # The response makes the session, whose identifier is that of its stream.
            accepted = (
                fields.get(b":protocol", b"").startswith(b"webtransport")
                and fields[b":path"] == b"/echo"
            )
            status = b"200" if accepted else b"404"
            self.http.send_headers(
                event.stream_id, [(b":status", status)], end_stream=not accepted
            )
        elif isinstance(event, WebTransportStreamDataReceived):
            if not event.stream_id & 2:  # it has two directions
                self.http.send_webtransport_data(
                    event.stream_id, event.data, event.stream_ended
                )
        elif isinstance(event, DatagramReceived):
            self.http.send_datagram(event.stream_id, event.data)


async def main(certificate: str, key: str, port: str = "8080") -> None:
    """Serve the page and the sessions until a signal."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        max_datagram_frame_size=65536,  # WebTransport needs QUIC's datagrams
    )
    configuration.load_cert_chain(certificate, key)
    der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
    digest = list(hashlib.sha256(der).digest())

    async def page(stream: Stream) -> None:
        body = PAGE % (number, digest)
        await stream.send_response(200, {"content-type": "text/html"}, body.encode())

    async with Server(page, ("127.0.0.1", int(port))) as server:
        number = server.sockets[0].getsockname()[1]
        sessions: Any = await serve(
            "127.0.0.1", number, configuration=configuration, create_protocol=Echo
        )
        print(f"http://localhost:{number}/", flush=True)
        try:
            await server.serve(signals=(signal.SIGINT, signal.SIGTERM))
        finally:
            sessions.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: webtransport_server.py certificate.pem key.pem [port]")
    asyncio.run(main(*sys.argv[1:]))
