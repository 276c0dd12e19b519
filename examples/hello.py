#!/usr/bin/env python3
"""A page over HTTPS that shows live what the server of it does.

    python examples/hello.py [port]

The page comes by HTTP/2, or HTTP/1.1, and goes on by HTTP/3.  It is an application of
ASGI; the certificate is made at the first start, and is good for this machine only.
"""

import asyncio
import errno
import json
import signal
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nghttp2py
from nghttp2py import access
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server
from nghttp2py.local_certificate import local_certificate

PAGE = Path(__file__).with_suffix(".html")
# What a viewer of /activity may be behind, and what one sees at first, in exchanges.
BACKLOG = 500
LATEST = 12


class Hello:
    """The application, and what it knows of its server."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.chromium = ""
        self.stopping = asyncio.Event()
        self.requests = self.bytes = 0
        self.viewers: set[Viewer] = set()
        self.latest: deque[dict[str, object]] = deque(maxlen=LATEST)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request or WebSocket."""
        if scope["type"] == "websocket":
            await self.echo(scope, receive, send)
            return
        assert scope["type"] == "http"
        route = {
            ("GET", "/"): self.page,
            ("GET", "/ping"): self.ping,
            ("GET", "/activity"): self.activity,
            ("GET", "/clock"): self.clock,
            ("POST", "/upload"): self.upload,
        }.get((scope["method"], scope["path"]))
        if route is None:
            await respond(send, 404, "text/plain", b"Not found\n")
        else:
            await route(scope, receive, send)

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the page, with what only the server knows."""
        facts = {
            "version": nghttp2py.__version__,
            "nghttp2": nghttp2py.features()["nghttp2"],
            "http": scope["http_version"],
            "chromium": self.chromium,
        }
        text = PAGE.read_text().replace('"FACTS"', json.dumps(facts))
        await respond(send, 200, "text/html; charset=utf-8", text.encode())

    async def ping(self, scope: Any, receive: Any, send: Any) -> None:
        """Tell by which version of HTTP the request came."""
        body = json.dumps({"http": scope["http_version"]}).encode()
        await respond(send, 200, "application/json", body)

    async def upload(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what is uploaded; the client sends as fast as this reads."""
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = json.dumps({"http": scope["http_version"], "bytes": size}).encode()
        await respond(send, 200, "application/json", body)

    async def clock(self, scope: Any, receive: Any, send: Any) -> None:
        """Send five events, a fifth of a second apart."""
        await begin_events(send)
        for number in range(1, 6):
            await send_event(send, {"number": number, "http": scope["http_version"]})
            await asyncio.sleep(0.2)
        await send({"type": "http.response.body"})

    async def activity(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what the server does, until the client or the server ends."""
        viewer = Viewer(self.latest)
        self.viewers.add(viewer)
        try:
            await begin_events(send)
            while not self.stopping.is_set():
                await send_event(send, {**self.counts(), "exchanges": viewer.take()})
                await viewer.wait()
            await send({"type": "http.response.body"})
        finally:
            self.viewers.discard(viewer)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        """Send back each message; the first one from here tells the version."""
        if scope["path"] != "/echo":
            await send({"type": "websocket.close"})
            return
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["http_version"]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    def counts(self) -> dict[str, int]:
        """Return the numbers of the page."""
        assert self.server is not None
        counts = self.server.counts
        return {
            "requests": self.requests,
            "bytes": self.bytes,
            "streams": counts.streams,
            "connections": counts.connections + counts.quic_connections,
        }

    def exchange_ended(self, exchange: access.Exchange) -> None:
        """Tell the viewers of a request whose response is complete."""
        self.requests += 1
        self.bytes += exchange.bytes_sent
        told: dict[str, object] = {
            "http": exchange.protocol.removeprefix("HTTP/"),
            "method": exchange.method.decode("latin-1"),
            "path": exchange.target.decode("latin-1"),
            "status": exchange.status,
            "bytes": exchange.bytes_sent,
            "ms": round(exchange.duration * 1000, 2),
        }
        self.latest.append(told)
        for viewer in self.viewers:
            viewer.tell(told)

    def stop(self) -> None:
        """End the streams of events, and then the server."""
        self.stopping.set()
        for viewer in self.viewers:
            viewer.news.set()
        assert self.server is not None
        self.server.stop()


class Viewer:
    """A client of /activity: the latest exchanges that it has not seen."""

    def __init__(self, latest: Iterable[dict[str, object]]) -> None:
        self.news = asyncio.Event()
        self.exchanges = deque(latest, maxlen=BACKLOG)

    def tell(self, exchange: dict[str, object]) -> None:
        """Keep an exchange for it."""
        self.exchanges.append(exchange)
        self.news.set()

    def take(self) -> list[dict[str, object]]:
        """Return what it has not seen."""
        taken = list(self.exchanges)
        self.exchanges.clear()
        self.news.clear()
        return taken

    async def wait(self) -> None:
        """Wait for news, and a little longer, so that many come together."""
        await self.news.wait()
        await asyncio.sleep(0.05)


async def respond(send: Any, status: int, kind: str, body: bytes) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def begin_events(send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_event(send: Any, value: object) -> None:
    body = f"data: {json.dumps(value)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def start(hello: Hello, paths: tuple[Path, Path]) -> Server:
    """Start the server at the port of the command line, else at 8443 if it is free."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given and not (given.isdecimal() and int(given) <= 65535):
        sys.exit(f"{given!r} is no port: give a number up to 65535; 0 is any free one.")
    port = int(given or 8443)
    try:
        return await listen(hello, port, paths)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            sys.exit(f"Cannot listen on port {port}: {error.strerror}.")
    if given:
        sys.exit(f"Port {port} is in use by another program; 0 takes one that is free.")
    print("Port 8443 is in use by another program, so this is another one:")
    return await listen(hello, 0, paths)


async def listen(hello: Hello, port: int, paths: tuple[Path, Path]) -> Server:
    server = Server(ASGIApp(hello), ("127.0.0.1", port), ssl=paths, http3=True)
    await server.start()
    return server


async def main() -> None:
    made = local_certificate()
    hello = Hello()
    hello.server = await start(hello, (made.certificate, made.key))
    port = hello.server.sockets[0].getsockname()[1]
    url = f"https://127.0.0.1:{port}/"
    # Of a name for which QUIC is forced somewhere, Chromium takes any authority.
    hello.chromium = (
        "chromium --user-data-dir=$(mktemp -d) "
        f"--ignore-certificate-errors-spki-list={made.fingerprint} "
        f"--origin-to-force-quic-on=127.0.0.1:1 {url}"
    )
    access.add_hook(hello.exchange_ended)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hello.stop)
    print(f"Serving {url}  (Ctrl-C stops)")
    print(f"Try:    curl --cacert {made.certificate} {url}ping")
    print(f"HTTP/3: {hello.chromium}", flush=True)
    await hello.server.serve()


if __name__ == "__main__":
    asyncio.run(main())
