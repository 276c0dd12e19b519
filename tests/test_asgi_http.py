"""HTTP requests for ASGI applications, over each version: what the scope holds."""

from __future__ import annotations

import pytest
from asgi_servers import Recorder, body, everywhere, hello, read_all, serving, start

from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Server
from nghttp2py.hpack import NeverIndexed

NAMES = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2": "2", "HTTP/3": "3"}


def test_an_asgi_callable_has_to_be_wrapped_for_a_server():
    with pytest.raises(TypeError, match=r"wrap it.*ASGIApp"):
        Server(hello, ("127.0.0.1", 0))


def test_an_application_must_be_callable():
    with pytest.raises(TypeError, match="app must be callable"):
        ASGIApp("module:app")


@everywhere
async def test_a_request_is_answered(version):
    async with serving(version, hello) as peer:
        response = await peer.fetch()
        assert response.status == 200
        assert response.value(b"content-type") == b"text/plain"
        assert response.body == b"hello"


@everywhere
async def test_the_scope_has_every_key(version):
    app = Recorder()
    async with serving(version, app, state={"pool": 1}) as peer:
        await peer.fetch(b"/a%20b/%C3%A4?x=%20&y", headers=[(b"x-one", b"1")])
        (scope,) = app.scopes
        host, port = scope["client"]
        assert host == "127.0.0.1"
        assert type(port) is int
        assert port > 0
        assert scope["server"] == ("127.0.0.1", peer.port)
        assert type(scope) is dict
        assert type(scope["headers"]) is list
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert scope["http_version"] == NAMES[version]
        assert scope["method"] == "GET"
        assert scope["scheme"] == peer.scheme.decode()
        assert scope["path"] == "/a b/\u00e4"
        assert scope["raw_path"] == b"/a%20b/%C3%A4"
        assert scope["query_string"] == b"x=%20&y"
        assert scope["root_path"] == ""
        assert scope["state"] == {"pool": 1}
        assert scope["headers"][0] == (b"host", peer.authority)
        assert (b"x-one", b"1") in scope["headers"]
        assert not [name for name, _ in scope["headers"] if name[:1] == b":"]


@everywhere
async def test_the_body_of_a_request_arrives_whole(version):
    seen = []

    async def app(scope, receive, send):
        seen.append(await read_all(receive))
        await send(start())
        await send(body(seen[0]))

    async with serving(version, app) as peer:
        data = bytes(range(256)) * 3000
        response = await peer.fetch(method=b"POST", body=data)
        assert seen == [data]
        assert response.body == data


@everywhere
async def test_fields_that_hpack_never_indexes_are_plain_pairs(version):
    """Clients send cookies and credentials so (RFC 7541, 7.1.3)."""
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    sent = [
        NeverIndexed(b"cookie", b"a=1"),
        NeverIndexed(b"authorization", b"Basic dTpw"),
        NeverIndexed(b"cookie", b"b=2"),
        NeverIndexed(b"te", b"trailers"),
    ]
    async with serving(version, app, max_request_body_size=10) as peer:
        assert (await peer.fetch(headers=sent)).status == 204
        sent.append(NeverIndexed(b"content-length", b"1"))
        assert (await peer.fetch(b"/", b"POST", sent, b"x")).status == 204
    for scope in scopes:
        assert all(type(pair) is tuple for pair in scope["headers"])
        fields = dict(scope["headers"])
        assert fields[b"cookie"] == b"a=1; b=2"
        assert fields[b"authorization"] == b"Basic dTpw"
        assert "http.response.trailers" in scope["extensions"]
