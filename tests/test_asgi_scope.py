"""The scopes of HTTP requests where versions, transports and options differ."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from asgi_servers import (
    HOST,
    Recorder,
    body,
    everywhere,
    hello,
    server_context,
    serving,
    start,
)
from loops import in_loop, pause, until
from quic_pair import authority

from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server, open_connection
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3Configuration

NEWER = pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])


@everywhere
async def test_cookies_are_one_field(version):
    app = Recorder()
    async with serving(version, app) as peer:
        crumbs = [(b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"b=2")]
        await peer.fetch(headers=crumbs)
        headers = app.scopes[0]["headers"]
        assert [v for n, v in headers if n == b"cookie"] == [b"a=1; b=2"]
        assert (b"x-a", b"b") in headers


@everywhere
async def test_other_fields_keep_their_order_and_number(version):
    app = Recorder()
    async with serving(version, app) as peer:
        await peer.fetch(headers=[(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")])
        found = [(n, v) for n, v in app.scopes[0]["headers"] if n[:2] == b"x-"]
        assert found == [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]


@NEWER
@in_loop
async def test_the_host_is_the_authority(version):
    app = Recorder()
    async with serving(version, app) as peer:
        await peer.fetch(headers=[(b"x-a", b"b"), (b"host", peer.authority)])
        headers = app.scopes[0]["headers"]
        assert headers[0] == (b"host", peer.authority)
        assert [n for n, _ in headers].count(b"host") == 1


@NEWER
@in_loop
async def test_the_scheme_of_the_client_has_no_effect(version):
    app = Recorder()
    async with serving(version, app) as peer:
        stream = await peer.client.open_stream(
            [
                (b":method", b"GET"),
                (b":scheme", b"http" if version == "HTTP/3" else b"https"),
                (b":authority", peer.authority),
                (b":path", b"/"),
            ],
            end_stream=True,
        )
        assert (await peer.take(stream)).status == 200
        assert app.scopes[0]["scheme"] == peer.scheme.decode()


@pytest.mark.parametrize(
    ("mode", "path", "raw_path"),
    [("prepend", "/api \u00e4/x", b"/api%20%C3%A4/x"), ("set", "/x", b"/x")],
)
@everywhere
async def test_root_path_has_both_meanings(version, mode, path, raw_path):
    app = Recorder()
    options = {"root_path": "/api \u00e4", "root_path_mode": mode}
    async with serving(version, app, **options) as peer:
        await peer.fetch(b"/x?q")
        (scope,) = app.scopes
        assert scope["root_path"] == "/api \u00e4"
        assert (scope["path"], scope["raw_path"]) == (path, raw_path)
        assert scope["query_string"] == b"q"


@everywhere
async def test_a_request_for_the_server_itself_has_the_path_star(version):
    app = Recorder()
    async with serving(version, app, root_path="/api") as peer:
        await peer.fetch(b"*", method=b"OPTIONS")
        (scope,) = app.scopes
        assert (scope["path"], scope["raw_path"]) == ("*", b"*")


@everywhere
async def test_a_method_of_its_own_arrives(version):
    app = Recorder()
    async with serving(version, app) as peer:
        await peer.fetch(method=b"PURGE")
        assert app.scopes[0]["method"] == "PURGE"


@in_loop
async def test_a_unix_socket_has_no_client_address(tmp_path):
    app = Recorder()
    path = str(tmp_path / "socket")
    async with Server(ASGIApp(app), path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        client = await open_connection(sock=sock)
        stream = await client.open_stream(
            [
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":authority", b"localhost"),
                (b":path", b"/"),
            ],
            end_stream=True,
        )
        await stream.response()
        client.close(1)
        await client.wait_closed()
        assert app.scopes[0]["client"] is None
        assert app.scopes[0]["server"] == (path, None)


@in_loop
async def test_over_tls_the_scope_has_the_tls_extension():
    app = Recorder()
    certificate = authority().issue_cert("client@example.org", common_name="Cl, ient")
    serves = server_context()
    authority().configure_trust(serves)
    serves.verify_mode = ssl.CERT_OPTIONAL
    asks = ssl.create_default_context()
    authority().configure_trust(asks)
    asks.set_alpn_protocols(["h2"])
    async with Server(ASGIApp(app), (HOST, 0), ssl=serves) as server:
        port = server.sockets[0].getsockname()[1]
        for known in (False, True):
            if known:
                certificate.configure_cert(asks)
            client = await open_connection(
                HOST, port, ssl=asks, server_hostname="localhost"
            )
            stream = await client.open_stream(
                [
                    (b":method", b"GET"),
                    (b":scheme", b"https"),
                    (b":authority", b"localhost"),
                    (b":path", b"/"),
                ],
                end_stream=True,
            )
            await stream.response()
            client.close(1)
            await client.wait_closed()
    first, second = app.scopes
    assert first["scheme"] == "https"
    tls = first["extensions"]["tls"]
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    assert tls["client_cert_chain"] == []
    assert tls["client_cert_name"] is None
    tls = second["extensions"]["tls"]
    assert tls["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert "CN=Cl\\, ient" in tls["client_cert_name"]


@everywhere
async def test_the_tls_extension_is_announced_where_there_is_tls(version):
    app = Recorder()
    async with serving(version, app) as peer:
        await peer.fetch()
        extensions = app.scopes[0]["extensions"]
        assert ("tls" in extensions) == (version == "HTTP/3")
        if version == "HTTP/3":
            assert extensions["tls"]["tls_version"] == 0x0304


# Configurations of clients that take pushes.
PUSHES = {
    "HTTP/2": H2Configuration(enable_push=True),
    "HTTP/3": H3Configuration(max_push_id=8),
}


@pytest.mark.parametrize("version", PUSHES)
@in_loop
async def test_push_is_announced_to_a_client_that_takes_it(version):
    app = Recorder()
    async with serving(version, app) as peer:
        await peer.fetch()
    async with serving(version, app, client_config=PUSHES[version]) as peer:
        await peer.fetch()
    first, second = (scope["extensions"] for scope in app.scopes)
    assert "http.response.push" not in first
    assert "http.response.push" in second


@pytest.mark.parametrize("version", PUSHES)
@in_loop
async def test_a_push_is_a_request_of_its_own(version):
    paths = []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await send(start())
        if scope["path"] == "/":
            await send(
                {
                    "type": "http.response.push",
                    "path": "/style.css?v=1",
                    "headers": [(b"accept", b"text/css")],
                }
            )
        else:
            assert scope["query_string"] == b"v=1"
            assert (b"accept", b"text/css") in scope["headers"]
        await send(body(scope["path"].encode()))

    async with serving(version, app, client_config=PUSHES[version]) as peer:
        assert (await peer.fetch()).body == b"/"
        await until(lambda: paths == ["/", "/style.css"])
        await until(lambda: not peer.app.task_count)


@everywhere
async def test_100_continue_is_sent_when_the_application_asks_for_the_body(version):
    go = asyncio.Event()
    seen = []

    async def app(scope, receive, send):
        seen.append("called")
        await go.wait()
        seen.append(await receive())
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        fields = [(b"expect", b"100-continue"), (b"content-length", b"4")]
        stream = await peer.open(method=b"POST", headers=fields, end=False)
        await until(lambda: seen)
        await pause()
        if version == "HTTP/1.1":
            assert not stream.informational
        go.set()
        if version == "HTTP/1.1":
            event = await stream._next()
            assert event.status_code == 100
        await stream.send_data(b"data")
        await stream.end_stream()
        assert (await peer.take(stream)).status == 200
        assert seen[1]["body"] == b"data"


@in_loop
async def test_a_response_without_the_body_sends_no_100_continue():
    async with serving("HTTP/1.1", hello) as peer:
        fields = [(b"expect", b"100-continue"), (b"content-length", b"4")]
        stream = await peer.open(method=b"POST", headers=fields, end=False)
        assert (await stream.response()).status == 200
        assert not stream.informational


@everywhere
async def test_informational_responses_arrive(version):
    async def app(scope, receive, send):
        await send(
            {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}
        )
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        stream = await peer.open()
        assert (await peer.take(stream)).body == b"hello"
        if version == "HTTP/1.1":
            ((status, headers),) = stream.informational
            assert (status, headers) == (103, [(b"link", b"</a>; rel=preload")])
