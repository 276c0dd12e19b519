#!/usr/bin/env python3
"""A reverse proxy: HTTP/1.1, HTTP/2 and HTTP/3 in front, HTTP/1.1 or HTTP/2 behind.

    python examples/reverse_proxy.py [--http2] [--port N] [--tls CERTIFICATE KEY] URL

URL is the origin of the server behind.  With --http2 an origin of http is asked over
HTTP/2 without TLS; one of https decides it by ALPN.
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterable, Iterable

import httpx

from nghttp2py.asyncio import Server, Stream
from nghttp2py.httpx import AsyncTransport

Pairs = list[tuple[bytes, bytes]]

# Fields of one connection, which are not forwarded (RFC 9110, 7.6.1).
HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
    *(b"transfer-encoding", b"upgrade"),
}
# Seconds that the server behind has.
TIMES = {"connect": 5.0, "read": 60.0, "write": 60.0, "pool": 5.0}


class Proxy:
    """Answers each request by what the server at ``origin`` answers."""

    def __init__(self, origin: str, http2: bool) -> None:
        self.origin = httpx.URL(origin)
        self.transport = AsyncTransport(http1=not http2)

    async def __call__(self, stream: Stream) -> None:
        """Forward one request.  It is cancelled if the client is gone."""
        try:
            response = await self.transport.handle_async_request(self.request(stream))
        except httpx.TimeoutException:
            await stream.send_response(504, body=b"the server behind is too slow\n")
            return
        except httpx.TransportError:
            await stream.send_response(502, body=b"the server behind is not there\n")
            return
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            headers = forwarded(response.headers.raw)
            # Each piece is read when the client has taken the one before.
            await stream.send_response(response.status_code, headers, response.stream)
        finally:
            await response.aclose()

    def request(self, stream: Stream) -> httpx.Request:
        """Return the request for the server behind."""
        asked = stream.request
        assert asked is not None  # a server's stream has one
        host = stream.http.get_extra_info("peername")[0]
        headers = forwarded(asked.headers)
        headers += [
            (b"x-forwarded-for", host.encode()),
            (b"x-forwarded-proto", asked.scheme or b"http"),
        ]
        body: AsyncIterable[bytes] | None = None if stream.at_eof() else stream
        extensions = {"timeout": TIMES, "target": asked.target}
        return httpx.Request(
            asked.method.decode(),
            self.origin,
            headers=headers,
            content=body,
            extensions=extensions,
        )


def forwarded(fields: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Return the fields that are for the next hop, too."""
    pairs = [(name.lower(), value) for name, value in fields]
    named = {
        name.strip().lower()
        for field, value in pairs
        if field == b"connection"
        for name in value.split(b",")
    }
    return [pair for pair in pairs if pair[0] not in HOP_BY_HOP | named]


async def main(options: argparse.Namespace) -> None:
    """Serve until a signal."""
    proxy = Proxy(options.url, options.http2)
    tls = tuple(options.tls) if options.tls else None
    address = ("127.0.0.1", options.port)
    async with (
        proxy.transport,
        Server(proxy, address, ssl=tls, http3=tls is not None) as server,
    ):
        scheme = "https" if tls else "http"
        print(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    asyncio.run(main(parser.parse_args()))
