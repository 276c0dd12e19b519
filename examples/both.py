#!/usr/bin/env python3
"""A server of HTTP/2 and HTTP/3 on one port: it says which one it was asked by.

    python examples/both.py certificate.pem key.pem [port]

It prints its URL, and ends at Ctrl-C when the open requests are answered.
"""

import asyncio
import signal
import sys

from nghttp2py.asyncio import Server, Stream


async def app(stream: Stream) -> None:
    """Answer one request."""
    body = await stream.read()
    agent = stream.fields.get("user-agent", "somebody")
    assert stream.request is not None  # which a client's stream has not
    target = stream.request.target.decode("latin-1")
    text = f"{agent} sent {len(body)} bytes to {target} by {stream.http.version}\n"
    await stream.send_response(200, {"content-type": "text/plain"}, text.encode())


async def main(certificate: str, key: str, port: str = "4433") -> None:
    """Serve until a signal."""
    async with Server(
        app, ("127.0.0.1", int(port)), ssl=(certificate, key), http3=True
    ) as server:
        _, number = server.sockets[0].getsockname()
        print(f"https://127.0.0.1:{number}/", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: both.py certificate.pem key.pem [port]")
    asyncio.run(main(*sys.argv[1:]))
