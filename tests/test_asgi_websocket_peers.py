"""WebSockets of ASGI applications with clients of others."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
import websockets
import wsproto
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio import connect as aioquic_connect
from aioquic.h3.connection import H3_ALPN as AIOQUIC_ALPN
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from asgi_servers import HOST, server_context
from asgi_websockets import App, disconnect, echo
from loops import in_loop, until
from peers import program
from programs import node_module
from quic_pair import authority, server_configuration
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server
from nghttp2py.h3 import H3_ALPN

MEGABYTE = bytes(i * i >> 8 & 0xFF for i in range(1 << 20))


@contextlib.asynccontextmanager
async def serving(app, **arguments):
    """A server of an application; gives its port."""
    server = Server(ASGIApp(app), (HOST, 0), **arguments)
    await server.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close(1)
        await server.wait_closed()


# ---- Node.js over HTTP/2 ----

NODE = r"""
const http2 = require("node:http2");
const { randomBytes } = require("node:crypto");
const frame = (opcode, data) => {
  const head = data.length < 126 ? Buffer.from([0x80 | opcode, 0x80 | data.length])
    : data.length < 65536 ? Buffer.alloc(4) : Buffer.alloc(10);
  if (head.length > 2) { head[0] = 0x80 | opcode; }
  if (head.length === 4) { head[1] = 0xfe; head.writeUInt16BE(data.length, 2); }
  if (head.length === 10) {
    head[1] = 0xff; head.writeBigUInt64BE(BigInt(data.length), 2);
  }
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, data.map((octet, i) => octet ^ mask[i & 3])]);
};
const session = http2.connect("http://127.0.0.1:" + process.argv[1]);
session.on("remoteSettings", (settings) => {
  if (!settings.enableConnectProtocol) throw new Error("no extended CONNECT");
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http",
    ":authority": "localhost", ":path": "/chat", "sec-websocket-version": "13",
  }, { endStream: false });
  const large = Buffer.alloc(1 << 20, "abc");
  let buffer = Buffer.alloc(0);
  stream.on("response", (headers) => {
    console.log(headers[":status"]);
    stream.write(frame(1, Buffer.from("Grüße")));
    stream.write(frame(9, Buffer.from("ping")));
    stream.write(frame(2, large));
  });
  stream.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (;;) {
      if (buffer.length < 2) return;
      let size = buffer[1], at = 2;
      if (size === 126) {
        if (buffer.length < 4) return;
        size = buffer.readUInt16BE(2); at = 4;
      } else if (size === 127) {
        if (buffer.length < 10) return;
        size = Number(buffer.readBigUInt64BE(2)); at = 10;
      }
      if (buffer.length < at + size) return;
      const opcode = buffer[0] & 15, body = buffer.subarray(at, at + size);
      buffer = buffer.subarray(at + size);
      if (opcode === 2) {
        console.log(opcode, Buffer.compare(body, large));
        stream.write(frame(8, Buffer.from([0x0f, 0xa1])));
      } else if (opcode === 8) {
        console.log(opcode, body.readUInt16BE(0));
      } else {
        console.log(opcode, String(body));
      }
    }
  });
  stream.on("end", () => { console.log("end"); stream.end(); });
  stream.on("close", () => { console.log("close", stream.rstCode); session.close(); });
});
"""


@in_loop
async def test_node_speaks_websocket_over_http2():
    app = App()
    async with serving(app) as port:
        process = await asyncio.create_subprocess_exec(
            program("node"), "-e", NODE, str(port), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        await until(app.done.is_set)
    lines = output.decode().splitlines()
    assert sorted(lines[1:4]) == ["1 Grüße", "10 ping", "2 0"]
    assert [lines[0], *lines[4:]] == ["200", "8 4001", "end", "close 0"]
    assert app.seen[-1] == disconnect(4001)


# npm's ws on a stream of node:http2.  Its client class opens connections of HTTP/1.1
# only, so that it is given the stream as the socket of an accepted one.
WS = r"""
const http2 = require("node:http2");
const WebSocket = require("ws");
const { dirname, join } = require("node:path");
const lib = join(dirname(require.resolve("ws")), "lib");
const PerMessageDeflate = require(join(lib, "permessage-deflate"));
const extension = require(join(lib, "extension"));
const session = http2.connect("http://127.0.0.1:" + process.argv[1]);
session.on("remoteSettings", () => {
  const deflate = new PerMessageDeflate({ threshold: 0 }, false);
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http",
    ":authority": "localhost", ":path": "/chat", "sec-websocket-version": "13",
    "sec-websocket-extensions":
      extension.format({ [PerMessageDeflate.extensionName]: deflate.offer() }),
  }, { endStream: false });
  const large = Buffer.alloc(1 << 20, "abc");
  stream.on("response", (headers) => {
    const accepted = extension.parse(headers["sec-websocket-extensions"]);
    deflate.accept(accepted[PerMessageDeflate.extensionName]);
    console.log(headers[":status"], Object.keys(accepted).join());
    const socket = new WebSocket(null, undefined, { autoPong: true });
    socket._isServer = false;
    socket._extensions[PerMessageDeflate.extensionName] = deflate;
    socket.on("message", (data, binary) => {
      console.log(binary ? Buffer.compare(data, large) : String(data));
      if (binary) socket.close(4001, "bye");
    });
    socket.on("pong", (data) => console.log("pong", String(data)));
    socket.on("close", (code, reason) => {
      console.log("close", code, String(reason));
      session.close();
    });
    socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 1 << 24 });
    socket.send("Grüße");
    socket.ping("ping");
    socket.send(large);
  });
});
"""


@in_loop
async def test_the_package_ws_speaks_websocket_over_http2():
    app = App()
    async with serving(app) as port:
        process = await asyncio.create_subprocess_exec(
            *(program("node"), "-e", WS, str(port)),
            env={**os.environ, "NODE_PATH": str(node_module("ws", "8.18.3"))},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        await until(app.done.is_set)
    first, *lines, last = output.decode().splitlines()
    assert first == "200 permessage-deflate"
    assert sorted(lines) == ["0", "Grüße", "pong ping"]
    assert last == "close 4001 bye"
    assert app.seen[-1] == disconnect(4001, "bye")


# ---- aioquic over HTTP/3, with wsproto ----


class AioquicClient(QuicConnectionProtocol):
    """aioquic's HTTP/3 with wsproto's frames, as in its example."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.headers = asyncio.get_running_loop().create_future()
        self.events = asyncio.Queue()
        self.deflate = PerMessageDeflate()
        self.socket = None

    def open(self, authority):
        self.stream_id = self._quic.get_next_available_stream_id()
        offer = self.deflate.offer()
        self.http.send_headers(
            self.stream_id,
            [
                (b":method", b"CONNECT"),
                (b":protocol", b"websocket"),
                (b":scheme", b"https"),
                (b":authority", authority),
                (b":path", b"/chat"),
                (b"sec-websocket-version", b"13"),
                (b"sec-websocket-extensions", f"permessage-deflate; {offer}".encode()),
            ],
        )
        self.transmit()

    def send(self, *events):
        for event in events:
            self.http.send_data(self.stream_id, self.socket.send(event), False)
        self.transmit()

    def quic_event_received(self, event):
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                fields = dict(each.headers)
                self.deflate.finalize(fields[b"sec-websocket-extensions"].decode())
                self.socket = wsproto.Connection(
                    wsproto.ConnectionType.CLIENT, [self.deflate]
                )
                self.headers.set_result(fields)
            elif isinstance(each, DataReceived):
                self.socket.receive_data(each.data or None)
                for found in self.socket.events():
                    self.events.put_nowait(found)

    async def message(self, kind):
        """Collect the pieces of a message."""
        data = kind(data="").data if kind is TextMessage else b""
        while True:
            event = await self.events.get()
            assert isinstance(event, kind), event
            data += event.data
            if event.message_finished:
                return data


@in_loop
async def test_aioquic_speaks_websocket_over_http3():
    app = App()
    quic = server_configuration(alpn_protocols=H3_ALPN)
    async with serving(app, ssl=server_context(), http3=quic) as port:
        configuration = QuicConfiguration(alpn_protocols=AIOQUIC_ALPN)
        configuration.server_name = "localhost"
        configuration.load_verify_locations(cadata=authority().cert_pem.bytes())
        async with aioquic_connect(
            HOST, port, configuration=configuration, create_protocol=AioquicClient
        ) as client:
            client.open(b"localhost:%d" % port)
            fields = await client.headers
            assert fields[b":status"] == b"200"
            assert client.deflate.enabled()
            client.send(TextMessage(data="Grüße"), Ping(payload=b"ping"))
            found = await client.events.get()
            if isinstance(found, Pong):
                assert found.payload == b"ping"
                assert await client.message(TextMessage) == "Grüße"
            else:
                assert found.data == "Grüße"
                assert isinstance(await client.events.get(), Pong)
            client.send(BytesMessage(data=MEGABYTE))
            assert await client.message(BytesMessage) == MEGABYTE
            client.send(CloseConnection(code=4001, reason="bye"))
            end = await client.events.get()
            assert isinstance(end, CloseConnection) and end.code == 4001
        await until(app.done.is_set)
    assert app.seen[-1] == disconnect(4001, "bye")


# ---- The websockets package over HTTP/1.1 ----


@pytest.mark.parametrize("compression", [None, "deflate"])
@in_loop
async def test_websockets_speaks_with_it_over_http1(compression):
    async def talk(app, receive, send):
        if app.scopes[-1]["path"] == "/close":
            await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        else:
            await echo(app, receive, send)

    app = App(talk, accept={"type": "websocket.accept", "subprotocol": "chat"})
    async with serving(app) as port:
        options = {"compression": compression, "subprotocols": ["other", "chat"]}
        url = f"ws://{HOST}:{port}"
        async with websockets.connect(url, max_size=None, **options) as socket:
            assert socket.subprotocol == "chat"
            await socket.send("Grüße")
            assert await socket.recv() == "Grüße"
            await socket.send(MEGABYTE)
            assert await socket.recv() == MEGABYTE
            await socket.send(["frag", "ments"])
            assert await socket.recv() == "fragments"
            await (await socket.ping())
            for i in range(1000):
                await socket.send(str(i))
            assert [await socket.recv() for _ in range(1000)] == [
                str(i) for i in range(1000)
            ]
            await socket.close(4001, "bye")
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(4001, "bye")
        async with websockets.connect(f"{url}/close", **options) as socket:
            with pytest.raises(websockets.exceptions.ConnectionClosedError) as caught:
                await socket.recv()
            assert caught.value.rcvd.code == 4000
            assert caught.value.rcvd.reason == "enough"


@in_loop
async def test_websockets_is_told_why_it_is_denied():
    async def deny(app, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 402})
        await send({"type": "websocket.http.response.body", "body": b"pay"})

    async with serving(App(deny, accept=None)) as port:
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            await websockets.connect(f"ws://{HOST}:{port}")
        assert caught.value.response.status_code == 402
        assert caught.value.response.body == b"pay"
