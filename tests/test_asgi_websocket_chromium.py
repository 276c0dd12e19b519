"""WebSockets of ASGI applications with a browser, over each version of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

import pytest
from asgi_servers import body, read_all, start
from cryptography.hazmat.primitives import serialization
from loops import in_loop, until
from test_h3_chromium import CHROMIUM, DEADLINE, PAGE, identity

from nghttp2py import access
from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server

__all__ = ["identity"]

SCRIPT = """
  const open = (path, protocols) => new Promise((resolve, reject) => {
    const socket = new WebSocket(new URL(path, location).href, protocols);
    socket.binaryType = "arraybuffer";
    socket.queue = [];
    socket.wait = [];
    socket.next = () => socket.queue.length
      ? Promise.resolve(socket.queue.shift())
      : new Promise((resolve) => socket.wait.push(resolve));
    socket.onmessage = ({ data }) => socket.wait.length
      ? socket.wait.shift()(data) : socket.queue.push(data);
    socket.end = new Promise((resolve) => socket.onclose = (event) =>
      resolve([event.code, event.reason, event.wasClean]));
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error("refused"));
  });
  const report = {};
  const socket = await open("/echo", ["other", "chat"]);
  report.protocol = socket.protocol;
  report.extensions = socket.extensions;
  socket.send("Grüße");
  report.text = await socket.next();
  const large = bytes(1 << 20);
  socket.send(large);
  report.large = await hex(await socket.next()) === await hex(large.buffer);
  for (let i = 0; i < 1000; i++) socket.send(String(i));
  report.many = true;
  for (let i = 0; i < 1000; i++) report.many &&= await socket.next() === String(i);
  socket.close(4001, "done");
  report.end = await socket.end;
  report.closed = await (await open("/close")).end;
  report.failed = await (await open("/fail")).end;
  report.denied = await open("/deny").then(() => "opened", String);
  report.page = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  return report;
"""


class Site:
    """The page, its report, and the WebSockets that it opens."""

    def __init__(self):
        self.reports = asyncio.Queue()
        self.ends = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await getattr(self, scope["path"][1:])(scope, receive, send)
        elif scope["path"] == "/page":
            page = PAGE.replace("%s", SCRIPT).encode()
            await send(start(200, [(b"content-type", b"text/html; charset=utf-8")]))
            await send(body(page))
        else:
            if scope["path"] == "/report":
                self.reports.put_nowait(json.loads(await read_all(receive)))
            await send(start(204))
            await send(body())

    async def echo(self, scope, receive, send):
        assert scope["subprotocols"] == ["other", "chat"]
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.ends.append((message["code"], message["reason"]))

    async def close(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4321, "reason": "Schluß"})

    async def fail(self, scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    async def deny(self, scope, receive, send):
        await send({"type": "websocket.close"})


def is_socket(entry):
    """Whether an entry of the access log is one of a WebSocket."""
    return entry.target in (b"/echo", b"/close", b"/fail", b"/deny")


@contextlib.asynccontextmanager
async def chromium(directory, url, *options):
    """Chromium on a page."""
    process = await asyncio.create_subprocess_exec(
        *CHROMIUM,
        f"--user-data-dir={directory}",
        "--host-resolver-rules=MAP localhost 127.0.0.1",
        "--remote-debugging-port=0",  # or it exits when the page has loaded
        *options,
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # With all the processes that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2", "HTTP/3"])
@in_loop
async def test_chromium_speaks_websocket(identity, tmp_path, version, caplog):
    certificate, key, fingerprint = identity
    site = Site()
    options = [f"--ignore-certificate-errors-spki-list={fingerprint}"]
    arguments = {}
    if version != "HTTP/1.1":
        paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key)
        arguments["ssl"] = paths
    if version == "HTTP/3":
        arguments["http3"] = True
    log = []
    access.add_hook(log.append)
    server = Server(ASGIApp(site), ("127.0.0.1", 0), **arguments)
    try:
        await server.start()
        port = server.sockets[0].getsockname()[1]
        if version == "HTTP/3":
            options.append(f"--origin-to-force-quic-on=localhost:{port}")
            options.append("--enable-features=EnableWebsocketsOverHttp3")
        scheme = "http" if version == "HTTP/1.1" else "https"
        async with chromium(tmp_path, f"{scheme}://localhost:{port}/page", *options):
            report = await asyncio.wait_for(site.reports.get(), DEADLINE)
            await until(lambda: len([e for e in log if is_socket(e)]) == 4)
    finally:
        access.remove_hook(log.append)
        server.close(1)
        await server.wait_closed()
    extension = report.pop("extensions", None)
    assert report == {
        "protocol": "chat",
        "text": "Grüße",
        "large": True,
        "many": True,
        "end": [4001, "done", True],
        "closed": [4321, "Schluß", True],
        "failed": [1011, "", True],
        "denied": "Error: refused",
        "page": {"HTTP/1.1": "http/1.1", "HTTP/2": "h2", "HTTP/3": "h3"}[version],
    }
    assert extension.startswith("permessage-deflate")
    assert site.ends == [(4001, "done")]
    (status,) = [each.status for each in log if each.target == b"/echo"]
    assert status == (101 if version == "HTTP/1.1" else 200)
    assert {each.protocol for each in log} == {version}
