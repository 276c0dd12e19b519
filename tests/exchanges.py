"""One application for every version of HTTP, and for handlers and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest
from h1_client import H1Client, shrink_buffers
from h3_streams import serving
from loops import in_loop, pause, until
from quic_pair import client_configuration

from nghttp2py import access
from nghttp2py.asyncio import Server, open_connection, start_server
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import PushDisabledError
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3_ALPN, H3Configuration
from nghttp2py.h3.connection import Setting
from nghttp2py.server import BaseRequestHandler, HTTP2Server

HOST = "127.0.0.1"

both_versions = pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
every_version = pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2", "HTTP/3"])
both_kinds = pytest.mark.parametrize("kind", ["handler", "coroutine"])


def everywhere(test):
    """Run a test over every version, with both kinds of application."""
    return every_version(both_kinds(in_loop(test)))


def multiplexed(test):
    """Run a test over the versions with more than HTTP/1.1 has."""
    return both_versions(both_kinds(in_loop(test)))


def pattern(size):
    """Bytes in which no piece is like another."""
    seed = hashlib.sha256(b"%d" % size).digest()
    return (b"".join(seed + b"%012d" % i for i in range(size // 44 + 1)))[:size]


def cut(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


class Of:
    """A request, as ``App.answer`` has it, whatever it is for the application."""

    def __init__(self, inner, path):
        self.inner = inner
        self.path = path

    async def read(self, n=-1):
        return await self.inner.read(n)

    async def drain(self):
        await self.inner.drain()

    @property
    def push_enabled(self):
        return self.inner.push_enabled

    def reset(self):
        self.inner.reset()


class OfHandler(Of):
    """A request, as a ``BaseRequestHandler`` answers it."""

    def __init__(self, handler):
        super().__init__(handler, handler.path)

    async def respond(self, status=200, headers=(), body=None, trailers=None):
        self.inner.send_response(status, headers, body, trailers=trailers)

    async def begin(self, status=200, headers=()):
        self.inner.send_headers(status, headers)

    def queue(self, data):
        self.inner.send_data(data)

    async def send(self, data):
        self.queue(data)
        await self.drain()

    async def end(self, trailers=None):
        self.inner.end(trailers)

    async def inform(self, status, headers=()):
        self.inner.send_informational(status, headers)

    async def push(self, path, body):
        """Push a response; return whether the client was promised it."""
        return self.inner.push(path, body=body).stream_id != -1


class OfStream(Of):
    """A request, as a coroutine function answers it, with its ``Stream``."""

    def __init__(self, stream):
        super().__init__(stream, stream.request.target)

    async def respond(self, status=200, headers=(), body=None, trailers=None):
        await self.inner.send_response(status, headers, body, trailers=trailers)

    async def begin(self, status=200, headers=()):
        await self.inner.start_response([(b":status", b"%d" % status), *headers])

    def queue(self, data):
        self.inner.write(data)

    async def send(self, data):
        await self.inner.send_data(data)

    async def end(self, trailers=None):
        if trailers is None:
            await self.inner.end_stream()
        else:
            await self.inner.send_trailers(trailers)

    async def inform(self, status, headers=()):
        await self.inner.send_informational(status, headers)

    async def push(self, path, body):
        """Push a response; return whether the client was promised it."""
        try:
            pushed = await self.inner.push([(b":path", path)])
        except PushDisabledError:
            return False
        await pushed.send_response(200, body=body)
        return True


class Upload:
    """Sends a body in pieces, and counts what went out of it."""

    def __init__(self, stream, data, trailers=None):
        self.sent = 0
        self.task = asyncio.create_task(self._send(stream, data, trailers))

    async def _send(self, stream, data, trailers):
        for piece in cut(data, 10_000):
            await stream.send_data(piece)
            self.sent += len(piece)
        if trailers is None:
            await stream.end_stream()
        else:
            await stream.send_trailers(trailers)

    async def stops(self):
        """Wait until the server gives no more credit; return what was sent."""
        await settled(lambda: self.sent)
        return self.sent


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

    def __init__(self, version, client, shut_down, abort):
        self.version = version
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

    async def ping(self):
        """Let what was sent before arrive."""
        await self.client.ping()

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


# Configurations of servers that take extended CONNECT, of both ends with datagrams,
# and of clients that take pushes.
H2_CONNECT = H2Configuration(enable_connect_protocol=True, manual_flow_control=True)
H3_CONNECT = H3Configuration(settings={Setting.ENABLE_CONNECT_PROTOCOL: 1})
DATAGRAMS = {"max_datagram_frame_size": 1500}
PUSHES = H2Configuration(enable_push=True)


@contextlib.asynccontextmanager
async def _over_http1(application):
    server = Server(application, (HOST, 0))
    await server.start()
    for sock in server.sockets:
        shrink_buffers(sock)
    client = H1Client(server.sockets[0].getsockname())

    async def shut_down(timeout):
        server.close(timeout)
        await server.wait_closed()

    try:
        yield Ends("HTTP/1.1", client, shut_down, server.abort)
    finally:
        await client.close()
        server.close(1)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _over_http2(application):
    if isinstance(application, type):
        server = HTTP2Server((HOST, 0), application, config=H2_CONNECT)
        await server.start()
    else:
        server = await start_server(
            lambda protocol: protocol.serve_streams(application), HOST, 0
        )
    client = await open_connection(
        HOST, server.sockets[0].getsockname()[1], config=PUSHES
    )

    async def shut_down(timeout):
        server.close(timeout)
        await server.wait_closed()

    try:
        yield Ends("HTTP/2", client, shut_down, server.abort)
    finally:
        client.close(1)
        await client.wait_closed()
        server.close(1)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _over_http3(application):
    async with (
        serving(application, fields=DATAGRAMS, config=H3_CONNECT) as (ends, port),
        connect(
            HOST,
            port,
            configuration=client_configuration(alpn_protocols=H3_ALPN, **DATAGRAMS),
            create_protocol=H3Protocol,
        ) as client,
    ):

        async def shut_down(timeout):
            for protocol in ends.protocols:
                await protocol.shutdown(timeout)

        def abort():
            for protocol in ends.protocols:
                protocol.abort()

        yield Ends("HTTP/3", client, shut_down, abort)


@contextlib.asynccontextmanager
async def serving_app(version, application):
    """A client, and a server of a handler class or a coroutine function."""
    over = {"HTTP/1.1": _over_http1, "HTTP/2": _over_http2, "HTTP/3": _over_http3}
    async with over[version](application) as ends:
        access.add_hook(ends.log.append)
        try:
            yield ends
        finally:
            access.remove_hook(ends.log.append)


@contextlib.asynccontextmanager
async def exchanging(version, kind, answer):
    """A client, and a server that answers each request by ``answer(app, request)``."""
    app = App(answer)
    application = app.handler_class() if kind == "handler" else app.handle
    async with serving_app(version, application) as ends:
        try:
            yield app, ends
        finally:
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
