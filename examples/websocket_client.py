#!/usr/bin/env python3
"""Send messages through a WebSocket over HTTP/1.1, HTTP/2 and HTTP/3.

python examples/websocket_client.py https://127.0.0.1:8443/echo [authority.pem]
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import websockets

from nghttp2py.asyncio import Client, Response
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.quic import QuicConfiguration
from nghttp2py.websocket import Closed, MessageReceived, WebSocketConnection


class WebSocket:
    """A WebSocket through a tunnel of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220)."""

    def __init__(self, tunnel: Response) -> None:
        self.stream = tunnel.stream
        self.connection = WebSocketConnection(client_side=True)
        self.received: list[str | bytes] = []

    async def send(self, message: str | bytes) -> None:
        """Send a message, when the server takes it."""
        self.connection.send_message(message)
        await self.stream.send_data(self.connection.data_to_send())

    async def recv(self) -> str | bytes:
        """Return the next message; raise ``EOFError`` if there is none."""
        while not self.received:
            data = await self.stream.readany()
            connection = self.connection
            events = connection.receive_data(data) if data else connection.receive_eof()
            for event in events:
                if isinstance(event, MessageReceived):
                    self.received.append(event.data)
                elif isinstance(event, Closed) and not self.received:
                    raise EOFError(f"closed with {event.code} {event.reason}")
            if answer := connection.data_to_send():  # to a ping
                await self.stream.send_data(answer)
        return self.received.pop(0)

    async def close(self) -> None:
        """Take leave of the server."""
        self.connection.close()
        await self.stream.send_data(self.connection.data_to_send(), end_stream=True)


@asynccontextmanager
async def open_tunnel(client: Client, path: str) -> AsyncIterator[WebSocket]:
    """Open a WebSocket by an extended CONNECT, on a connection of its own."""
    fields = {"sec-websocket-version": "13"}
    async with (
        client,
        await client.open_tunnel(path, protocol="websocket", headers=fields) as tunnel,
    ):
        if tunnel.status != 200:
            raise OSError(f"status {tunnel.status}")
        socket = WebSocket(tunnel)
        yield socket
        await socket.close()


async def greet(socket: WebSocket | websockets.ClientConnection) -> None:
    """Print the version that the server reports, and the echo of a message."""
    version = await socket.recv()
    await socket.send("hello")
    print(f"{version!s}: {await socket.recv()!s}")


async def main(url: str, authority: str | None = None) -> None:
    """Try each version."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    # TLS over TCP is OpenSSL's; that of QUIC is GnuTLS's, and configured for itself.
    trusted = ssl.create_default_context(cafile=authority)
    quic = QuicConfiguration(cafile=authority)
    over_http1 = websockets.connect(url.replace("https:", "wss:"), ssl=trusted)
    over_http2 = open_tunnel(Client(origin, ssl=trusted), parts.path)
    over_http3 = open_tunnel(Client(origin, http3=quic), parts.path)
    async with over_http1 as socket:
        await greet(socket)
    async with over_http2 as tunnel:
        await greet(tunnel)
    async with over_http3 as tunnel:
        await greet(tunnel)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: websocket_client.py URL [authority.pem]")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, EOFError, NGHTTP2Error, websockets.WebSocketException) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
