"""Servers of HTTP/1.1 over sockets: the choice of the protocol, and what it bounds."""

import asyncio
import contextlib
import re
import socket

import pytest
from loops import in_loop, in_loops, in_virtual_time, until
from virtual_time import pass_time

from nghttp2py import BaseRequestHandler, HTTP2Server
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server, Timeouts, open_connection

HOST = "127.0.0.1"
MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Handler(BaseRequestHandler):
    """Echoes, unless the path asks for something else."""

    max_body_size = 1 << 30

    async def on_request(self):
        if self.path == b"/early":
            self.send_response(413, None, b"no")
            return
        body = await self.read()
        fields = [("content-length", len(body)), ("x-path", self.path)]
        self.send_response(200, fields, body)


async def echo(stream):
    if stream.request.target == b"/early":
        await stream.send_response(413, (), b"no")
        return
    body = await stream.read()
    fields = [("content-length", str(len(body))), ("x-path", stream.request.target)]
    await stream.send_response(200, fields, body)


APPS = {"handler": Handler, "coroutine": echo}
each_app = pytest.mark.parametrize("app", list(APPS))


def get(path=b"/", *fields, method=b"GET", version=b"1.1", body=b""):
    if body:
        fields = (*fields, b"content-length: %d" % len(body))
    head = [b"%b %b HTTP/%b" % (method, path, version), b"host: localhost", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class Wire:
    """A client that writes bytes and reads responses."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def send(self, data, *, size=None):
        for start in range(0, len(data), size or len(data)):
            self.writer.write(data[start : start + (size or len(data))])
            if size:
                await self.writer.drain()
                for _ in range(3):
                    await asyncio.sleep(0)

    async def response(self):
        """The status, the fields and the body of the next response."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        status = int(head[0].split()[1])
        fields = dict(line.split(b": ", 1) for line in head[1:])
        if b"content-length" in fields:
            body = await self.reader.readexactly(int(fields[b"content-length"]))
        elif fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            body = b"" if status < 200 else await self.reader.read()
        return status, fields, body

    async def ask(self, *args, **options):
        await self.send(get(*args, **options))
        status, _, body = await self.response()
        return status, body

    async def ended(self):
        """Whether the server has closed the connection, with nothing more to read."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True


@contextlib.asynccontextmanager
async def connected(server, **options):
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(HOST, port, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(app="handler", **options):
    app = APPS.get(app, app) if isinstance(app, str) else app
    async with Server(app, (HOST, 0), **options) as server:
        yield server


# ---- The choice of the protocol ----


@pytest.mark.parametrize("size", [None, 1])
@each_app
@in_loops
async def test_both_versions_are_served_in_the_clear(app, size):
    async with serving(app) as server:
        async with connected(server) as wire:
            await wire.send(get(b"/a", method=b"POST", body=b"hello"), size=size)
            status, fields, body = await wire.response()
            assert (status, fields[b"x-path"], body) == (200, b"/a", b"hello")
        async with connected(server) as wire:
            await wire.send(MAGIC + b"\0\0\0\4\0\0\0\0\0", size=size)
            assert (await wire.reader.readexactly(9))[3] == 4  # SETTINGS
        port = server.sockets[0].getsockname()[1]
        async with await open_connection(HOST, port) as client:
            stream = await client.open_stream(
                {":method": "GET", ":path": "/b"}, end_stream=True
            )
            assert (await stream.response()).status == 200


@pytest.mark.parametrize(
    ("alpn", "version"), [(["http/1.1"], b"1.1"), (None, b"1.1"), (["h2"], b"2")]
)
@each_app
@in_loops
async def test_a_client_chooses_by_alpn(app, alpn, version, paths, tls):
    if alpn is None:
        context = tls.client
        context.set_alpn_protocols([])
    else:
        context = tls.client
        context.set_alpn_protocols(alpn)
    async with (
        serving(app, ssl=paths) as server,
        connected(server, ssl=context, server_hostname="localhost") as wire,
    ):
        if version == b"2":
            await wire.send(MAGIC + b"\0\0\0\4\0\0\0\0\0")
            assert (await wire.reader.readexactly(9))[3] == 4
        else:
            assert await wire.ask(method=b"POST", body=b"hi") == (200, b"hi")
            assert await wire.ask() == (200, b"")


@in_loop
async def test_a_client_without_a_common_protocol_is_sent_away(paths, tls):
    tls.client.set_alpn_protocols(["h3"])
    async with (
        serving(ssl=paths) as server,
        connected(server, ssl=tls.client, server_hostname="localhost") as wire,
    ):
        await wire.send(get())
        assert await wire.ended()


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("kind", ["HTTP2Server", "Server"])
@in_loop
async def test_a_server_of_http2_alone_answers_http1_with_a_line(kind, size, caplog):
    if kind == "HTTP2Server":
        server = HTTP2Server((HOST, 0), Handler)
    else:
        server = Server(Handler, (HOST, 0), http1=False)
    async with server, connected(server) as wire:
        await wire.send(get(), size=size)
        status, fields, body = await wire.response()
        assert status == 505 and fields[b"connection"] == b"close"
        assert re.search(rb"HTTP/2\b.*\n$", body)
        assert await wire.ended()


@in_loop
async def test_a_server_of_http2_alone_sends_settings_to_who_waits_for_them():
    async with HTTP2Server((HOST, 0), Handler) as server, connected(server) as wire:
        assert (await wire.reader.readexactly(9))[3] == 4


@in_loop
async def test_what_is_no_protocol_gets_an_answer_of_each_server():
    async with serving() as server, connected(server) as wire:
        await wire.send(b"\x16\x03\x01\0\0")
        assert (await wire.response())[0] == 400
    async with HTTP2Server((HOST, 0), Handler) as server, connected(server) as wire:
        await wire.send(b"\x16\x03\x01\0\0" + bytes(30))
        assert (await wire.reader.readexactly(9))[3] == 4


@in_virtual_time
async def test_a_connection_that_says_nothing_ends():
    begun = asyncio.get_running_loop().time()
    async with serving() as server, connected(server) as wire:
        assert await wire.ended()
    assert 10 <= asyncio.get_running_loop().time() - begun <= 12


@in_loop
async def test_a_connection_that_has_not_chosen_is_closed_with_its_server():
    async with serving(limit_connections=1) as server, connected(server) as wire:
        await wire.send(b"PRI")
        await until(lambda: len(server._connections) == 1)
        server.close(0.1)
        assert await wire.ended()
        await server.wait_closed()


# ---- Requests ----


@each_app
@in_loops
async def test_a_connection_has_many_requests(app):
    async with serving(app) as server, connected(server) as wire:
        for i in range(3):
            path, body = b"/%d" % i, b"x" * i
            assert await wire.ask(path, method=b"POST", body=body) == (200, body)
        assert await wire.ask(b"/", b"connection: close") == (200, b"")
        assert await wire.ended()


@each_app
@in_loops
async def test_requests_in_one_write_are_answered_in_order(app):
    async with serving(app) as server, connected(server) as wire:
        bodies = [b"x" * (i * 100) for i in range(50)]
        await wire.send(b"".join(get(b"/", method=b"POST", body=b) for b in bodies))
        for body in bodies:
            status, _, got = await wire.response()
            assert (status, got) == (200, body)


@each_app
@in_loop
async def test_a_flood_of_requests_is_read_as_they_are_answered(app):
    data = get(b"/", method=b"POST", body=bytes(10_000)) * 1000
    async with serving(app) as server, connected(server) as wire:
        wire.writer.transport.set_write_buffer_limits(0)
        writing = asyncio.create_task(wire.send(data))
        for _ in range(1000):
            status, _, body = await wire.response()
            assert (status, len(body)) == (200, 10_000)
        await writing


@each_app
@in_loop
async def test_head_has_no_body(app):
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(method=b"HEAD") + get(b"/next"))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"content-length: 0" in head
        assert (await wire.response())[1][b"x-path"] == b"/next"


@each_app
@in_loop
async def test_a_client_of_http_1_0_is_served(app):
    async with serving(app) as server, connected(server) as wire:
        fields = (b"connection: keep-alive",)
        for _ in range(2):
            assert await wire.ask(b"/", *fields, version=b"1.0") == (200, b"")
        assert await wire.ask(version=b"1.0") == (200, b"")
        assert await wire.ended()


@each_app
@in_loop
async def test_a_request_that_is_answered_early_keeps_the_connection(app):
    body = bytes(300_000)
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/early", b"content-length: %d" % len(body)))
        status, fields, text = await wire.response()
        assert (status, text) == (413, b"no") and b"connection" not in fields
        await wire.send(body)
        assert await wire.ask(b"/next", method=b"POST", body=b"hi") == (200, b"hi")


@each_app
@in_loop
async def test_a_large_request_that_is_answered_early_loses_no_response(app):
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/early", b"content-length: %d" % (1 << 30)))

        async def upload():
            with contextlib.suppress(ConnectionError):
                while True:
                    wire.writer.write(bytes(100_000))
                    await wire.writer.drain()

        task = asyncio.create_task(upload())
        assert (await wire.response())[::2] == (413, b"no")
        assert await wire.ended()
        await task


@each_app
@in_loop
async def test_a_bad_request_after_good_ones_is_refused(app):
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/1") + get(b"/2") + b"nonsense\r\n\r\n" + get(b"/3"))
        for path in b"/1", b"/2":
            assert (await wire.response())[1][b"x-path"] == path
        assert (await wire.response())[0] == 400
        assert await wire.ended()


@each_app
@in_loop
async def test_a_bad_chunk_ends_its_request(app):
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/", b"transfer-encoding: chunked", method=b"POST"))
        await wire.send(b"5\r\nhello\r\nx\r\n")
        assert (await wire.response())[0] == 400
        assert await wire.ended()


@each_app
@in_loop
async def test_a_client_that_waits_for_100_gets_it(app):
    async with serving(app) as server, connected(server) as wire:
        fields = (b"expect: 100-continue", b"content-length: 5")
        await wire.send(get(b"/", *fields, method=b"POST"))
        assert (await wire.response())[0] == 100
        await wire.send(b"hello")
        assert (await wire.response())[::2] == (200, b"hello")
        assert await wire.ask(b"/early", *fields, method=b"POST") == (413, b"no")
        assert await wire.ended()


# ---- Ends ----


@each_app
@in_loops
async def test_a_client_may_close_its_half_after_its_requests(app):
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/1") + get(b"/2", method=b"POST", body=b"hi"))
        wire.writer.write_eof()
        assert (await wire.response())[1][b"x-path"] == b"/1"
        assert (await wire.response())[2] == b"hi"
        assert await wire.ended()


@in_virtual_time
async def test_a_client_that_is_gone_ends_its_request():
    ended = []

    async def app(stream):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    async with serving(app) as server:
        async with connected(server) as wire:
            await wire.send(get())
            await until(lambda: server._connections)
            begun = asyncio.get_running_loop().time()
        await until(lambda: ended)
    assert ended[0] - begun <= 1.5


@each_app
@in_loop
async def test_a_graceful_close_finishes_the_response_and_says_so(app):
    go = asyncio.Event()
    inner = APPS[app]

    async def slow_stream(stream):
        await go.wait()
        await inner(stream)

    class SlowHandler(Handler):
        async def on_request(self):
            await go.wait()
            await super().on_request()

    slow = slow_stream if app == "coroutine" else SlowHandler
    async with serving(slow) as server, connected(server) as wire:
        await wire.send(get())
        await until(lambda: any(c.stream_count for c in server._connections))
        async with connected(server) as idle:
            server.close(5)
            go.set()
            status, fields, _ = await wire.response()
            assert status == 200 and fields[b"connection"] == b"close"
            assert await wire.ended() and await idle.ended()


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("headers", b"GET / HTTP/1.1\r\nhost: ", 408),
        ("body", get(b"/", b"content-length: 100", method=b"POST") + b"x", 408),
        ("keep_alive", get(), 200),
    ],
)
@each_app
@in_virtual_time
async def test_a_client_that_makes_no_progress_is_sent_away(app, name, data, status):
    async with serving(app) as server, connected(server) as wire:
        begun = asyncio.get_running_loop().time()
        await wire.send(data)
        assert (await wire.response())[0] == status
        assert await wire.ended()
    bound = getattr(Timeouts(), name)
    assert bound <= asyncio.get_running_loop().time() - begun <= 1.5 * bound + 2


@each_app
@in_virtual_time
async def test_a_client_that_does_not_read_is_aborted(app):
    class Big(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, (bytes(65536) for _ in range(10_000)))

    async def big(stream):
        await stream.send_response(200, (), (bytes(65536) for _ in range(10_000)))

    async with serving(big if app == "coroutine" else Big) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            await loop.sock_sendall(sock, get())
            await until(lambda: len(server._connections))
            begun = loop.time()
            await until(lambda: not len(server._connections))
            assert 30 <= loop.time() - begun <= 60


class EarlyHandler(BaseRequestHandler):
    def on_headers(self):
        self.send_response(200, None, b"early")


async def early_stream(stream):
    await stream.send_response(200, (), b"early")


async def early_asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"early"})


EARLY = {
    "handler": EarlyHandler,
    "coroutine": early_stream,
    "asgi": ASGIApp(early_asgi),
}
CHUNKED = get(b"/", b"transfer-encoding: chunked", method=b"POST")


@pytest.mark.parametrize("app", list(EARLY))
@in_virtual_time
async def test_what_is_invalid_after_a_whole_response_does_not_take_it_back(
    app, caplog
):
    async with serving(EARLY[app]) as server, connected(server) as wire:
        await wire.send(b"PO")  # the protocol is chosen
        await until(lambda: any(hasattr(c, "http") for c in server._connections))
        (pump,) = server._connections
        pump.data_received(CHUNKED[2:])
        # Behind what the application does at once, and before that is written.
        asyncio.get_running_loop().call_soon(pump.data_received, b"no chunk\r\n")
        assert (await wire.response())[::2] == (200, b"early")
        assert await wire.ended()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("app", list(EARLY))
@in_virtual_time
async def test_a_request_that_is_invalid_as_it_comes_reaches_no_application(
    app, caplog
):
    async with serving(EARLY[app]) as server, connected(server) as wire:
        await wire.send(CHUNKED + b"no chunk\r\n")
        assert (await wire.response())[0] == 400
        assert await wire.ended()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@in_loop
async def test_alt_svc_is_announced_over_http1_too(paths, tls):
    tls.client.set_alpn_protocols(["http/1.1"])
    async with (
        serving(ssl=paths, http3=True) as server,
        connected(server, ssl=tls.client, server_hostname="localhost") as wire,
    ):
        await wire.send(get())
        _, fields, _ = await wire.response()
        port = server.sockets[0].getsockname()[1]
        assert fields[b"alt-svc"] == b'h3=":%d"' % port


@in_virtual_time
async def test_a_client_may_go_on_after_a_response_that_took_long():
    async def slow(stream):
        await pass_time(10 * Timeouts().keep_alive)
        await stream.send_response(200, (), b"late")

    async with serving(slow) as server, connected(server) as wire:
        for _ in range(2):
            assert await wire.ask() == (200, b"late")
            await pass_time(0.9 * Timeouts().keep_alive)
