"""One application for every version of HTTP, and for handlers and coroutines."""

from __future__ import annotations

import asyncio
import contextlib

from h3_streams import serving
from loops import pause, until
from quic_pair import client_configuration

from nghttp2py import access
from nghttp2py.asyncio import open_connection, start_server
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.h3 import H3_ALPN
from nghttp2py.server import BaseRequestHandler, HTTP2Server

HOST = "127.0.0.1"


class OfHandler:
    """A request, as a ``BaseRequestHandler`` answers it."""

    def __init__(self, handler):
        self.inner = handler
        self.path = handler.path

    async def read(self, n=-1):
        return await self.inner.read(n)

    async def respond(self, status=200, headers=(), body=None, trailers=None):
        self.inner.send_response(status, headers, body, trailers=trailers)

    async def begin(self, status=200, headers=()):
        self.inner.send_headers(status, headers)

    async def send(self, data):
        self.inner.send_data(data)
        await self.inner.drain()

    async def end(self, trailers=None):
        self.inner.end(trailers)

    async def inform(self, status, headers=()):
        self.inner.send_informational(status, headers)

    def reset(self):
        self.inner.reset()


class OfStream:
    """A request, as a coroutine function answers it, with its ``Stream``."""

    def __init__(self, stream):
        self.inner = stream
        self.path = stream.request.target

    async def read(self, n=-1):
        return await self.inner.read(n)

    async def respond(self, status=200, headers=(), body=None, trailers=None):
        await self.inner.send_response(status, headers, body, trailers=trailers)

    async def begin(self, status=200, headers=()):
        await self.inner.start_response([(b":status", b"%d" % status), *headers])

    async def send(self, data):
        await self.inner.send_data(data)

    async def end(self, trailers=None):
        if trailers is None:
            await self.inner.end_stream()
        else:
            await self.inner.send_trailers(trailers)

    async def inform(self, status, headers=()):
        await self.inner.send_informational(status, headers)

    def reset(self):
        self.inner.reset()


class App:
    """Has every request answered by ``answer(app, request)``, and keeps what it saw."""

    def __init__(self, answer):
        self.answer = answer
        self.begun = 0
        self.ended = 0
        self.cancelled = 0
        self.trailers = []
        self.seen = []
        self.go = asyncio.Event()

    async def run(self, request):
        self.begun += 1
        try:
            await self.answer(self, request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1

    def handler_class(self):
        app = self

        class Handler(BaseRequestHandler):
            max_body_size = 1 << 30

            async def on_request(self):
                await app.run(OfHandler(self))

            def on_trailers(self, headers):
                app.trailers.append(headers)

        return Handler

    async def handle(self, stream):
        await self.run(OfStream(stream))
        if stream.is_whole and stream.trailers:
            self.trailers.append(list(stream.trailers))


class Ends:
    """A client, and how its server is ended."""

    def __init__(self, client, shut_down, abort):
        self.client = client
        self.shut_down = shut_down
        self.abort = abort
        self.log = []

    async def fetch(self, path=b"/", method=b"GET", headers=(), body=None):
        """Make a request and read its response: status, body, trailers."""
        stream = await self.open(path, method, headers, end_stream=body is None)
        if body is not None:
            await stream.send_body(body)
        return await self.take(stream)

    async def open(self, path=b"/", method=b"GET", headers=(), *, end_stream=False):
        return await self.client.open_stream(
            [
                (b":method", method),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path),
                *headers,
            ],
            end_stream=end_stream,
        )

    async def take(self, stream):
        response = await stream.response()
        body = await stream.read()
        return response.status, body, list(await stream.trailers())


@contextlib.asynccontextmanager
async def _over_http2(app, kind):
    if kind == "handler":
        server = HTTP2Server((HOST, 0), app.handler_class())
        await server.start()
    else:
        server = await start_server(
            lambda protocol: protocol.serve_streams(app.handle), HOST, 0
        )
    client = await open_connection(HOST, server.sockets[0].getsockname()[1])

    async def shut_down(timeout):
        server.close(timeout)
        await server.wait_closed()

    try:
        yield Ends(client, shut_down, server.abort)
    finally:
        client.close(1)
        await client.wait_closed()
        server.close(1)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _over_http3(app, kind):
    handler = app.handler_class() if kind == "handler" else app.handle
    async with (
        serving(handler) as (ends, port),
        connect(
            HOST,
            port,
            configuration=client_configuration(alpn_protocols=H3_ALPN),
            create_protocol=H3Protocol,
        ) as client,
    ):

        async def shut_down(timeout):
            for protocol in ends.protocols:
                await protocol.shutdown(timeout)

        def abort():
            for protocol in ends.protocols:
                protocol.abort()

        yield Ends(client, shut_down, abort)


@contextlib.asynccontextmanager
async def exchanging(version, kind, answer):
    """A client, and a server that answers each request by ``answer(app, request)``."""
    app = App(answer)
    over = _over_http2 if version == "HTTP/2" else _over_http3
    async with over(app, kind) as ends:
        access.add_hook(ends.log.append)
        try:
            yield app, ends
        finally:
            access.remove_hook(ends.log.append)
            app.go.set()
    await until(lambda: app.begun == app.ended)


async def settled(value):
    """Wait until a number that grew does not grow any more."""
    await until(value)
    still = 0
    while still < 20:
        before = value()
        await pause()
        still = still + 1 if value() == before else 0
