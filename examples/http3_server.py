#!/usr/bin/env python3
"""HTTP/3 with nghttp2py.h3 over its QUIC: pages, an echo, WebTransport.

    python examples/http3_server.py --certificate cert.pem --private-key key.pem

GET / answers with a page whose style is pushed, GET /N with N bytes, POST /echo
with what was posted.  The WebTransport session /wt echoes datagrams and streams.
"""

import argparse
import asyncio
import contextlib

from nghttp2py.asyncio import QuicConnectionProtocol, serve
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.events import (
    DatagramReceived,
    DataReceived,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from nghttp2py.h3.exceptions import NoAvailablePushIDError
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import ProtocolNegotiated

PAGE = b'<link rel="stylesheet" href="/style.css"><p>Hello, HTTP/3</p>\n'
STYLE = b"p { font: 2rem system-ui }\n"
MAX_BYTES = 50_000_000


class HTTP3Server(QuicConnectionProtocol):
    """Answers the requests of one connection."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = None
        self.requests = {}  # stream identifier: (headers, pieces of the body)

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(
                self._quic,
                enable_webtransport=True,
                config=H3Configuration(extended=True),
            )
        if self.http is not None:
            for received in self.http.handle_event(event):
                self.h3_event_received(received)
            self.transmit()

    def h3_event_received(self, event):
        if isinstance(event, HeadersReceived):
            headers = dict(event.headers)
            if headers.get(b":protocol", b"").startswith(b"webtransport"):
                found = headers[b":path"] == b"/wt"
                self.respond(event.stream_id, 200 if found else 404, None)
                return
            # Trailers do not change the answer.
            self.requests.setdefault(event.stream_id, (headers, []))
        elif isinstance(event, DataReceived):
            if event.stream_id in self.requests:
                self.requests[event.stream_id][1].append(event.data)
        elif isinstance(event, DatagramReceived):
            self.http.send_datagram(event.stream_id, event.data)
            return
        elif isinstance(event, WebTransportStreamDataReceived):
            if event.stream_id & 2 == 0:  # there is a way back
                self.http.send_webtransport_data(
                    event.stream_id, event.data, event.stream_ended
                )
            return
        else:
            return
        if event.stream_ended and event.stream_id in self.requests:
            self.answer(event.stream_id, *self.requests.pop(event.stream_id))

    def answer(self, stream_id, headers, pieces):
        method, path = headers[b":method"], headers[b":path"]
        if method == b"POST" and path == b"/echo":
            self.respond(stream_id, 200, b"".join(pieces))
        elif method not in (b"GET", b"HEAD"):
            self.respond(stream_id, 405, b"")
        elif path == b"/":
            self.push(stream_id, headers)
            self.respond(stream_id, 200, PAGE, b"text/html")
        elif path == b"/style.css":
            self.respond(stream_id, 200, STYLE, b"text/css")
        elif path[1:].isdigit() and int(path[1:]) <= MAX_BYTES:
            self.respond(stream_id, 200, b"Z" * int(path[1:]))
        else:
            self.respond(stream_id, 404, b"There is no such page.\n")

    def push(self, stream_id, headers):
        """Promise the style, if the client takes pushes."""
        promised = [
            (b":method", b"GET"),
            (b":scheme", headers[b":scheme"]),
            (b":authority", headers[b":authority"]),
            (b":path", b"/style.css"),
        ]
        try:
            push_stream_id = self.http.send_push_promise(stream_id, promised)
        except NoAvailablePushIDError:
            return
        self.respond(push_stream_id, 200, STYLE, b"text/css")

    def respond(self, stream_id, status, body, content_type=b"text/plain"):
        """Send a response; without a body, the stream stays open."""
        headers = [(b":status", b"%d" % status), (b"server", b"nghttp2py")]
        if body is not None:
            headers.append((b"content-type", content_type))
        self.http.send_headers(stream_id, headers)
        if body is not None:
            self.http.send_data(stream_id, body, end_stream=True)


async def main(options):
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536
    )
    configuration.load_cert_chain(options.certificate, options.private_key)
    server = await serve(
        options.host,
        options.port,
        configuration=configuration,
        create_protocol=HTTP3Server,
    )
    port = server._transport.get_extra_info("sockname")[1]
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
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
