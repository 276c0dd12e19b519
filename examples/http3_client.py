#!/usr/bin/env python3
"""Fetch URLs of one server over HTTP/3, all at once, on one connection.

    python examples/http3_client.py [--ca-certs FILE] [--data TEXT] URL...

Bodies are written to standard output in the order of the URLs; what the server
pushes is named on standard error.
"""

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

from nghttp2py.asyncio import QuicConnectionProtocol, connect
from nghttp2py.h3 import H3_ALPN, H3Connection
from nghttp2py.h3.events import DataReceived, HeadersReceived, PushPromiseReceived
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import ConnectionTerminated


class HTTP3Client(QuicConnectionProtocol):
    """Sends requests; each is answered by a future of (headers, body)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic)
        self.responses = {}  # stream identifier: (future, headers, pieces)

    async def request(self, method, url, data=None):
        parts = urlsplit(url)
        path = parts.path or "/"
        if parts.query:
            path += "?" + parts.query
        headers = [
            (b":method", method.encode()),
            (b":scheme", parts.scheme.encode()),
            (b":authority", parts.netloc.encode()),
            (b":path", path.encode()),
            (b"user-agent", b"nghttp2py"),
        ]
        stream_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, headers, end_stream=data is None)
        if data is not None:
            self.http.send_data(stream_id, data, end_stream=True)
        future = asyncio.get_running_loop().create_future()
        self.responses[stream_id] = (future, [], [])
        self.transmit()
        return await future

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for future, _, _ in self.responses.values():
                future.set_exception(ConnectionError(event.reason_phrase))
            self.responses.clear()
        for received in self.http.handle_event(event):
            self.h3_event_received(received)

    def h3_event_received(self, event):
        if isinstance(event, PushPromiseReceived):
            path = dict(event.headers)[b":path"].decode()
            print(f"pushed: {path}", file=sys.stderr)
        if not isinstance(event, (HeadersReceived, DataReceived)):
            return
        if event.stream_id not in self.responses:
            return
        future, headers, pieces = self.responses[event.stream_id]
        if isinstance(event, HeadersReceived):
            headers += event.headers
        else:
            pieces.append(event.data)
        if event.stream_ended:
            del self.responses[event.stream_id]
            future.set_result((headers, b"".join(pieces)))


async def main(options):
    server = urlsplit(options.url[0])
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN)
    if options.ca_certs:
        configuration.load_verify_locations(options.ca_certs)
    data = None if options.data is None else options.data.encode()
    async with connect(
        server.hostname,
        server.port or 443,
        configuration=configuration,
        create_protocol=HTTP3Client,
    ) as client:
        answers = await asyncio.gather(
            *(
                client.request("GET" if data is None else "POST", url, data)
                for url in options.url
            )
        )
    for url, (headers, body) in zip(options.url, answers, strict=True):
        print(f"{dict(headers)[b':status'].decode()} {url}", file=sys.stderr)
        sys.stdout.buffer.write(body)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="+", metavar="URL")
    parser.add_argument("--ca-certs", metavar="FILE")
    parser.add_argument("--data", metavar="TEXT", help="POST this")
    sys.exit(asyncio.run(main(parser.parse_args())))
