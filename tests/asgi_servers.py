"""ASGI applications on a running ``asyncio.Server``, for each version of HTTP.

``serving(version, app)`` gives a ``Peer``: a client that has one interface for all of
them.  Its requests are streams of ours over HTTP/2 and HTTP/3, and those of h11, on a
connection each, over HTTP/1.1.  ``everywhere`` runs a test over each version.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from types import SimpleNamespace
from typing import NamedTuple

import h11
import pytest
from loops import in_loop
from quic_pair import authority, client_configuration, identity, server_configuration

from nghttp2py import access
from nghttp2py.asgi import ASGIApp, ASGIOptions
from nghttp2py.asyncio import Server, open_connection
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import ProtocolError
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3_ALPN

HOST = "127.0.0.1"
VERSIONS = ("HTTP/1.1", "HTTP/2", "HTTP/3")

versions = pytest.mark.parametrize("version", VERSIONS)


def everywhere(test):
    """Run a test, a coroutine function of ``version``, over each version."""
    return versions(in_loop(test))


class Response(NamedTuple):
    """A whole response; ``headers`` are pairs without pseudo-header fields."""

    status: int
    headers: list
    body: bytes
    trailers: list

    def values(self, name):
        """All values of a field."""
        return [value for key, value in self.headers if key == name]

    def value(self, name):
        """The value of a field that there is once, or None."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None


class Http1Stream:
    """A request on a connection of its own, over HTTP/1.1, and its response.

    h11 reads the response: what it says is wrong, such as a body without its end,
    raises ``h11.RemoteProtocolError``.
    """

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._h11 = h11.Connection(h11.CLIENT)
        self._response = None
        self._trailers = None
        self.informational = []

    async def begin(self, fields, end):
        pseudo = {name: value for name, value, *_ in fields if name[:1] == b":"}
        headers = [(b"host", pseudo[b":authority"])]
        headers += [field[:2] for field in fields if field[0][:1] != b":"]
        names = {name for name, _ in headers}
        if not end and b"content-length" not in names:
            headers.append((b"transfer-encoding", b"chunked"))
        await self._send(
            h11.Request(
                method=pseudo[b":method"], target=pseudo[b":path"], headers=headers
            )
        )
        if end:
            await self.end_stream()

    async def _send(self, event):
        self._writer.write(self._h11.send(event))
        await self._writer.drain()

    async def send_data(self, data):
        await self._send(h11.Data(data=data))

    async def send_body(self, data):
        await self.send_data(data)
        await self.end_stream()

    async def end_stream(self):
        await self._send(h11.EndOfMessage())

    async def send_trailers(self, fields):
        await self._send(h11.EndOfMessage(headers=fields))

    async def _next(self):
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._reader.read(65536))
        return event

    async def response(self):
        while self._response is None:
            event = await self._next()
            if isinstance(event, h11.Response):
                self._response = event
            else:
                self.informational.append((event.status_code, list(event.headers)))
        return SimpleNamespace(
            status=self._response.status_code, headers=list(self._response.headers)
        )

    async def read(self, n=-1):
        """Read the rest of the body, or some of it."""
        await self.response()
        pieces = []
        while self._trailers is None:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                self._trailers = list(event.headers)
                self._writer.close()
            else:
                pieces.append(bytes(event.data))
                if n > 0:
                    break
        return b"".join(pieces)

    async def trailers(self):
        await self.read()
        return self._trailers

    def reset(self):
        """Break the request off: over HTTP/1.1 its connection ends."""
        self._writer.transport.abort()


class Http1Client:
    """Opens a connection for each request."""

    def __init__(self, port):
        self._port = port
        self._streams = []

    async def open_stream(self, fields, end_stream=False):
        sock = socket.socket()
        # What the kernel keeps would hide that the server waits.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (HOST, self._port))
        stream = Http1Stream(*await asyncio.open_connection(sock=sock))
        self._streams.append(stream)
        await stream.begin(fields, end_stream)
        return stream

    def abort(self):
        for stream in self._streams:
            stream.reset()


class Peer:
    """A client, and the server of the application that it asks.

    ``app`` is the ``ASGIApp``, ``server`` the ``Server``, ``port`` its port, ``log``
    has the ``access.Exchange`` of each request that has ended.
    """

    def __init__(self, version, app, server):
        self.version = version
        self.app = app
        self.server = server
        self.port = server.sockets[0].getsockname()[1]
        self.client = None
        self.log = []

    @property
    def scheme(self):
        return b"https" if self.version == "HTTP/3" else b"http"

    @property
    def authority(self):
        return b"localhost:%d" % self.port

    async def open(self, path=b"/", method=b"GET", headers=(), *, end=True):
        """Send a request's header section; ``end`` is whether it has no body.

        The result has ``send_data(data)``, ``end_stream()``, ``send_trailers(fields)``,
        ``response()``, ``read(n=-1)``, ``trailers()`` and ``reset()``.
        """
        return await self.client.open_stream(
            [
                (b":method", method),
                (b":scheme", self.scheme),
                (b":authority", self.authority),
                (b":path", path),
                *headers,
            ],
            end_stream=end,
        )

    async def take(self, stream):
        """Wait for the whole response of ``open``."""
        response = await stream.response()
        headers = [pair[:2] for pair in response.headers if pair[0][:1] != b":"]
        body = await stream.read()
        trailers = [pair[:2] for pair in await stream.trailers()]
        return Response(response.status, headers, body, trailers)

    async def fetch(self, path=b"/", method=b"GET", headers=(), body=None):
        """Make a request and return its ``Response``."""
        stream = await self.open(path, method, headers, end=body is None)
        if body is not None:
            # The server may stop the upload and answer nevertheless.
            with contextlib.suppress(ProtocolError, ConnectionError):
                await stream.send_body(body)
        return await self.take(stream)

    async def vanish(self):
        """Lose the connection at once."""
        self.client.abort()


def tls_paths(directory):
    """Write the certificate of the server and its key; return their paths."""
    paths = directory / "cert.pem", directory / "key.pem"
    for path, pem in zip(paths, identity(), strict=True):
        path.write_bytes(pem)
    return paths


def server_context():
    """A TLS context with the certificate of the tests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost", HOST).configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def serving(
    version, app, *, server=None, config=None, client_config=None, quic=None, **options
):
    """A ``Peer`` of a server of ``app``, an application or an ``ASGIApp``.

    ``server`` has keyword arguments of ``Server``, ``options`` are those of
    ``ASGIOptions``; ``client_config`` is the configuration of the client over HTTP/2
    or HTTP/3, ``quic`` has fields of both ends' ``QuicConfiguration``.
    """
    if not isinstance(app, ASGIApp):
        app = ASGIApp(app, ASGIOptions(**options))
    arguments = dict(server or {})
    if config is not None:
        arguments["config"] = config
    quic = quic or {}
    if version == "HTTP/3":
        arguments["ssl"] = server_context()
        arguments["http3"] = server_configuration(alpn_protocols=H3_ALPN, **quic)
    made = Server(app, (HOST, 0), **arguments)
    async with contextlib.AsyncExitStack() as stack:
        await made.start()
        stack.push_async_callback(_stop, made, app)
        peer = Peer(version, app, made)
        access.add_hook(peer.log.append)
        stack.callback(access.remove_hook, peer.log.append)
        if version == "HTTP/3":
            peer.client = await stack.enter_async_context(
                connect(
                    HOST,
                    peer.port,
                    configuration=client_configuration(alpn_protocols=H3_ALPN, **quic),
                    create_protocol=functools.partial(H3Protocol, config=client_config)
                    if client_config
                    else H3Protocol,
                )
            )
        elif version == "HTTP/1.1":
            peer.client = Http1Client(peer.port)
            stack.callback(peer.client.abort)
        else:
            peer.client = await open_connection(
                HOST, peer.port, config=client_config or H2Configuration()
            )
            stack.push_async_callback(_leave, peer.client)
        yield peer


async def _leave(client):
    client.close(1)
    await client.wait_closed()


async def _stop(server, app):
    server.close(1)
    await server.wait_closed()
    app.cancel()
    assert await app.drain(5), "a task of the application does not end"


# ---- Messages ----


def start(status=200, headers=(), **keys):
    return {
        "type": "http.response.start",
        "status": status,
        "headers": list(headers),
        **keys,
    }


def body(data=b"", more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def hello(scope, receive, send):
    """Answer ``hello``."""
    await send(start(200, [(b"content-type", b"text/plain")]))
    await send(body(b"hello"))


async def read_all(receive):
    """Return the body of a request."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


class Recorder:
    """An application that keeps its scopes, and answers by ``answer``."""

    def __init__(self, answer=hello):
        self.answer = answer
        self.scopes = []
        self.events = []
        self.done = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        try:
            await self.answer(scope, receive, send)
        except BaseException as error:
            self.events.append(error)
            raise
        finally:
            self.done.set()
