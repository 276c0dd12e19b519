"""Clients of HTTP/1.1 that are gone, close one half, or leave a body incomplete."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import types
from typing import Any

import pytest
from asgi_servers import body, start
from loops import in_loops, in_virtual_time, pause, until
from memory import MemoryTransport
from test_h1_server import HOST, Handler, connected, get, serving
from virtual_time import pass_time

from nghttp2py import HTTP2Server
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server, Timeouts, start_server
from nghttp2py.asyncio.h1_pump import H1Pump
from nghttp2py.errors import StreamResetError
from nghttp2py.exchange import find_factory
from nghttp2py.h2 import H2Configuration

NOW = asyncio.get_running_loop


class Waits:
    """Applications that wait for the end of their client."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.ended = []

    async def asgi(self, scope, receive, send):
        assert (await receive())["type"] == "http.request"
        self.begun.set()
        assert (await receive())["type"] == "http.disconnect"
        self.ended.append(NOW().time())

    async def coroutine(self, stream):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(NOW().time())

    def app(self, kind):
        return ASGIApp(self.asgi) if kind == "asgi" else self.coroutine


async def gone(reader, writer, *, reset):
    """Close the connection of a client, or reset it."""
    sock = writer.get_extra_info("socket")
    if reset:
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("kind", ["asgi", "coroutine"])
@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
@pytest.mark.parametrize("secure", [False, True], ids=["clear", "TLS"])
@in_virtual_time
async def test_a_client_that_is_gone_is_noticed_soon(kind, reset, secure, paths, tls):
    waits = Waits()
    options: dict[str, Any] = {}
    if secure:
        tls.client.set_alpn_protocols(["http/1.1"])
        options = {"ssl": tls.client, "server_hostname": "localhost"}
    async with serving(waits.app(kind), ssl=paths if secure else None) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address[:2], **options)
        writer.write(get())
        await waits.begun.wait()
        at = NOW().time()
        await gone(reader, writer, reset=reset)
        await until(lambda: waits.ended)
    assert waits.ended[0] - at <= (0 if reset else 0.1)


@in_loops
async def test_a_client_that_is_gone_is_noticed_soon_by_each_loop():
    waits = Waits()
    async with serving(waits.app("asgi")) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(get())
        await waits.begun.wait()
        at = NOW().time()
        await gone(reader, writer, reset=False)
        await until(lambda: waits.ended)
    assert waits.ended[0] - at <= 0.9


@in_virtual_time
async def test_a_client_over_a_unix_socket_is_noticed_at_once(tmp_path):
    waits = Waits()
    path = str(tmp_path / "socket")
    async with Server(waits.app("asgi"), path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get())
        await waits.begun.wait()
        at = NOW().time()
        await gone(reader, writer, reset=False)
        await until(lambda: waits.ended)
    assert waits.ended[0] == at


@in_virtual_time
async def test_a_client_that_is_gone_is_noticed_while_its_body_is_not_read():
    ended = []

    async def app(stream):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(NOW().time())

    async with serving(app, timeouts=Timeouts(body=None)) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(get(b"/", b"content-length: 9999999", method=b"POST"))
        writer.write(bytes(2_000_000))
        await until(
            lambda: any(not getattr(c, "_reading", True) for c in server._connections)
        )
        at = NOW().time()
        await gone(reader, writer, reset=True)
        await until(lambda: ended)
    assert ended[0] - at <= 1


@pytest.mark.parametrize("kind", ["whole", "chunked", "early", "pipelined"])
@in_virtual_time
async def test_a_client_that_closes_its_half_gets_the_same_response(kind):
    async def app(scope, receive, send):
        await pass_time(7)
        fields = [] if kind == "chunked" else [(b"content-length", b"4")]
        if kind == "early":
            await send({"type": "http.response.early_hint", "links": [b"</a>"]})
            await pass_time(7)
        await send(start(200, fields))
        if kind == "chunked":
            for piece in b"la", b"te":
                await pass_time(7)
                await send(body(piece, more=True))
            await pass_time(7)
            await send(body(b""))
        else:
            await send(body(b"late"))

    number = 2 if kind == "pipelined" else 1
    async with serving(ASGIApp(app)) as server, connected(server) as wire:
        await wire.send(get() * number)
        wire.writer.write_eof()
        for _ in range(number):
            if kind == "early":
                assert (await wire.response())[0] == 103
            status, _, answer = await wire.response()
            assert (status, answer) == (200, b"late")
        assert await wire.ended()


@pytest.mark.parametrize(("version", "bound"), [(b"1.1", 10), (b"1.0", 1)])
@in_virtual_time
async def test_a_quiet_response_to_a_half_closed_client_is_bounded(version, bound):
    waits = Waits()

    async def app(stream):
        await stream.start_response({":status": "200"})
        await stream.send_data(b"some")
        await waits.coroutine(stream)

    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/", version=version))
        await wire.reader.readuntil(b"some")
        at = NOW().time()
        wire.writer.write_eof()
        await until(lambda: waits.ended)
        assert bound <= waits.ended[0] - at <= bound + 1
        # After FIN the client would take it for whole.
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()


@in_virtual_time
async def test_a_response_that_breaks_off_does_not_end_with_zeros_and_fin():
    async def app(stream):
        await stream.start_response({":status": "200"})
        await stream.send_data(b"some")
        await pass_time(7)
        raise ValueError("it fails")

    async with serving(app) as server, connected(server) as wire:
        await wire.send(get())
        wire.writer.write_eof()
        # CPython's http.client takes zeros and FIN for the last chunk.
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()


# ---- Without sockets: a client that receives nothing any more ----


def pump_of(factory, **timeouts):
    """An HTTP/1.1 connection over memory, with its transport."""
    pump = H1Pump(
        factory,
        H2Configuration(),
        lambda _: None,
        lambda _: None,
        timeouts=Timeouts(**timeouts),
        tunnels=True,
    )
    transport = MemoryTransport(pump)
    pump.connection_made(transport)
    return pump, transport


@pytest.mark.parametrize("receives", [True, False])
@in_virtual_time
async def test_a_client_that_acknowledges_nothing_is_aborted(receives):
    ended = []

    async def app(scope, receive, send):
        await receive()
        await send(start())
        for _ in range(100):
            await send(body(b"event", more=True))
            await pass_time(5)
            if receives:
                transport.take()
        ended.append(NOW().time())

    pump, transport = pump_of(find_factory(ASGIApp(app)))
    at = NOW().time()
    pump.data_received(get())
    await until(lambda: ended or transport.closed)
    assert transport.aborted is not receives
    if not receives:
        assert 30 <= NOW().time() - at <= 40


@in_virtual_time
async def test_a_message_is_written_when_it_is_sent_and_the_next_ones_together():
    written = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await pause()
        for text in "abc":
            await send({"type": "websocket.send", "text": text})
            written.append(bytes(transport.sent[-3:]))
        await receive()

    pump, transport = pump_of(find_factory(ASGIApp(app)))
    pump.data_received(
        get(
            b"/",
            *(b"Upgrade: websocket", b"Connection: Upgrade"),
            *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + b"A" * 22 + b"=="),
        )
    )
    await until(lambda: transport.sent.endswith(b"c"))
    assert written == [b"\x81\x01a"] * 3
    assert transport.writes[1:] == [3, 6]
    pump.abort()


@in_virtual_time
async def test_a_large_response_wakes_its_application_for_several_pieces():
    waits = []
    sent = []

    @types.coroutine
    def counted(call):
        for future in call.__await__():
            waits.append(1)
            yield future

    async def app(scope, receive, send):
        await send(start())
        for number in range(60):
            await counted(send(body(bytes(65536), more=number < 59)))
        sent.append(True)

    pump, transport = pump_of(find_factory(ASGIApp(app)))
    pump.data_received(get())
    while not sent:
        transport.take()
        await pause()
    assert 15 <= len(waits) <= 30
    pump.abort()


@in_virtual_time
async def test_a_piece_of_64_kib_leaves_in_one_write_with_what_frames_it():
    async def app(scope, receive, send):
        await send(start())
        await send(body(bytes(65536), more=True))
        await pause()
        await send(body(bytes(65536)))

    pump, transport = pump_of(find_factory(ASGIApp(app)))
    transport.set_write_buffer_limits(1 << 20)
    pump.data_received(get())
    await until(lambda: transport.sent.endswith(b"0\r\n\r\n"))
    assert len(transport.writes) == 2
    pump.abort()


# ---- The rest of a request whose response has begun ----


@pytest.mark.parametrize("whole", [True, False], ids=["response", "head"])
@in_virtual_time
async def test_a_body_must_progress_when_the_response_has_begun(whole, caplog):
    ended = []

    async def app(stream):
        await stream.start_response({":status": "200"})
        if whole:
            await stream.end_stream()
        at = NOW().time()
        try:
            await stream.read()
        finally:
            ended.append((NOW().time() - at, stream.error))

    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/", b"content-length: 100", method=b"POST") + b"some")
        await wire.reader.readuntil(b"\r\n\r\n")
        assert await wire.ended()
        await until(lambda: ended)
    time, error = ended[0]
    assert 30 <= time <= 40 and isinstance(error, StreamResetError)


@in_virtual_time
async def test_a_body_may_wait_for_what_the_response_says_to_it():
    async def app(stream):
        await stream.start_response({":status": "200"})
        async for piece in stream:
            await pass_time(20)
            await stream.send_data(piece.upper())
        await stream.end_stream()

    chunk = b"1\r\na\r\n"
    async with serving(app) as server, connected(server) as wire:
        await wire.send(get(b"/", b"transfer-encoding: chunked", method=b"POST"))
        await wire.reader.readuntil(b"\r\n\r\n")
        for _ in range(10):
            await wire.send(chunk)
            assert await wire.reader.readexactly(6) == chunk.upper()
        await wire.send(b"0\r\n\r\n")
        assert await wire.reader.readexactly(5) == b"0\r\n\r\n"
        assert await wire.ended()


# ---- TCP's own probes ----


@pytest.mark.parametrize("kind", ["Server", "HTTP2Server", "start_server"])
@in_virtual_time
async def test_tcp_probes_each_connection_that_is_accepted(kind):
    options = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 15,
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 4,
    }

    async def serve(protocol):
        await protocol.serve_streams(None)

    if kind == "start_server":
        server = await start_server(serve, HOST, 0)
    else:
        make = Server if kind == "Server" else HTTP2Server
        server = (
            make(Handler, (HOST, 0)) if make is Server else make((HOST, 0), Handler)
        )
    async with server, connected(server):
        await until(lambda: len(server._connections))
        (protocol,) = server._connections
        sock = protocol.transport.get_extra_info("socket")
        assert {key: sock.getsockopt(*key) for key in options} == options
