"""WebSockets of httpx-ws and of httpx2 on our transports, and tunnels."""

import asyncio
import contextlib

import httpcore
import httpx
import pytest
from httpx_clients import MODULES, VERSIONS, calling, everywhere, in_thread, serve, ways
from loops import in_loop
from peers import Peer
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from nghttp2py.asgi import ASGIApp, ASGIOptions
from nghttp2py.h2 import H2Configuration

LARGE = "large " * 5_000


async def echo(scope, receive, send):
    """Accept a WebSocket, send back what comes; refuse that of /refused."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(
            {"type": "http.response.body", "body": scope["http_version"].encode()}
        )
        return
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": (scope["subprotocols"] or [None])[0],
            "headers": [(b"x-version", scope["http_version"].encode())],
        }
    )
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 3000})
        else:
            await send(message | {"type": "websocket.send"})


def make_app():
    return ASGIApp(echo, ASGIOptions())


def find_names(module):
    """The module that has the exceptions of WebSockets."""
    if module is httpx:
        import httpx_ws

        return httpx_ws
    import httpx2.websockets

    return httpx2.websockets


def connect(way, module, client, url, **options):
    """Return the context manager of a WebSocket."""
    if module is not httpx:
        return client.websocket(url, **options)
    names = find_names(module)
    if way == "sync":
        return names.connect_ws(url, client, **options)
    return names.aconnect_ws(url, client, **options)


async def talk(way, module, client, url):
    """Send messages and get them back; return the version that the server has seen."""
    disconnected = find_names(module).WebSocketDisconnect
    if way == "sync":

        def run():
            with connect(way, module, client, url, subprotocols=["one"]) as session:
                session.send_text("text")
                assert session.receive_text() == "text"
                session.send_bytes(b"bytes")
                assert session.receive_bytes() == b"bytes"
                session.send_text(LARGE)
                assert session.receive_text() == LARGE
                assert session.subprotocol == "one"
                session.send_text("close")
                with pytest.raises(disconnected):
                    session.receive_text()
                return session.response.headers["x-version"]

        return await in_thread(run)
    async with connect(way, module, client, url, subprotocols=["one"]) as session:
        await session.send_text("text")
        assert await session.receive_text() == "text"
        await session.send_bytes(b"bytes")
        assert await session.receive_bytes() == b"bytes"
        await session.send_text(LARGE)
        assert await session.receive_text() == LARGE
        assert session.subprotocol == "one"
        await session.send_text("close")
        with pytest.raises(disconnected):
            await session.receive_text()
        return session.response.headers["x-version"]


@pytest.mark.parametrize("module", MODULES)
@everywhere
@in_loop
async def test_a_websocket_is_a_stream_of_the_shared_connection(
    way, version, module, paths, tls
):
    """RFC 8441, RFC 9220."""
    module = MODULES[module]
    options = {"http3": VERSIONS[version]}
    async with (
        serve(make_app(), paths) as origin,
        calling(way, tls.authority, module, **options) as caller,
    ):
        for scheme in ("https", "wss"):
            url = origin.replace("https", scheme)
            found = await talk(way, module, caller.client, url)
            assert found == version.removeprefix("HTTP/")
        refused = connect(way, module, caller.client, f"{origin}/refused")
        with pytest.raises(find_names(module).WebSocketUpgradeError) as caught:
            if way == "sync":
                await in_thread(refused.__enter__)
            else:
                await refused.__aenter__()
        assert caught.value.response.status_code == 403
        assert (await caller.get(origin)).text == version.removeprefix("HTTP/")


async def serve_both(reader, writer):
    """Serve HTTP/2 without extended CONNECT, and WebSockets over HTTP/1.1."""
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
        peer = Peer(reader, writer, H2Configuration(enable_connect_protocol=False))
        with contextlib.suppress(ConnectionError):
            await peer.start()
            await peer.serve()
        writer.close()
        return
    protocol = ServerProtocol(subprotocols=["one"])
    while data := await reader.read(65536):
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                response = protocol.accept(event)
                response.headers["x-version"] = "1.1"
                protocol.send_response(response)
            elif event.data == b"close":
                protocol.send_close(3000)
            elif event.opcode is Opcode.TEXT:
                protocol.send_text(event.data)
            elif event.opcode is Opcode.BINARY:
                protocol.send_binary(event.data)
        for piece in protocol.data_to_send():
            writer.write(piece)
    writer.close()


@pytest.mark.parametrize("module", MODULES)
@ways
@in_loop
async def test_without_extended_connect_a_websocket_is_one_of_http11(way, module, tls):
    module = MODULES[module]
    tls.server.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(serve_both, "127.0.0.1", 0, ssl=tls.server)
    async with server, calling(way, tls.authority, module) as caller:
        origin = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await talk(way, module, caller.client, origin) == "1.1"
        # Other requests are not concerned.
        assert (await caller.get(origin)).http_version == "HTTP/2"


@everywhere
@in_loop
async def test_connect_opens_a_tunnel(way, version, paths, tls):
    """RFC 9110, 9.3.6."""
    targets = []

    async def tunnel(stream):
        targets.append(stream.request.authority)
        await stream.start_response({":status": "200"})
        async for piece in stream:
            await stream.send_data(piece.upper())
        await stream.end_stream()

    async with (
        serve(tunnel, paths) as origin,
        calling(way, tls.authority, http3=VERSIONS[version]) as caller,
    ):
        response = await caller.open(
            "CONNECT", origin, extensions={"target": b"example.org:443"}
        )
        assert response.status_code == 200
        stream = response.extensions["network_stream"]

        async def call(function, *args):
            if way == "sync":
                return await in_thread(lambda: function(*args))
            return await function(*args)

        await call(stream.write, b"some")
        assert await call(stream.read, 100) == b"SOME"
        with pytest.raises(httpcore.ReadTimeout):
            await call(stream.read, 100, 0.05)
        await call(stream.close if way == "sync" else stream.aclose)
        assert await call(stream.read, 100) == b""
        with pytest.raises(httpcore.WriteError):
            await call(stream.write, b"more")
        await caller.close(response)
        assert targets == [b"example.org:443"]
        response = await caller.open("GET", origin)
        with pytest.raises(RuntimeError, match="carries a response"):
            await call(response.extensions["network_stream"].read, 1)
        await caller.close(response)
