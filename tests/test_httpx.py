"""The transports of httpx: requests, responses, extensions and errors."""

import asyncio
import contextlib
import io

import httpx
import pytest
from httpx_clients import MODULES, VERSIONS, calling, everywhere, serve, ways
from loops import in_loop, until
from peers import ScriptedServer, expect_a_broken_handshake, silent_server

from nghttp2py.errors import ConnectTimeoutError, ErrorCode
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode
from nghttp2py.httpx import AsyncTransport

LARGE = b"0123456789" * 40_000
modules = pytest.mark.parametrize("module", MODULES)


class Application:
    """Answers with the request; what its path asks for comes first."""

    def __init__(self):
        self.requests = []
        self.connections = set()
        self.errors = []
        self.release = asyncio.Event()

    async def __call__(self, stream):
        self.connections.add(stream.connection)
        self.requests.append(stream.request)
        step = getattr(self, stream.request.target.decode()[1:].partition("?")[0], None)
        try:
            await (self.echo if step is None else step)(stream)
        finally:
            if stream.error is not None:
                self.errors.append(stream.error)

    async def echo(self, stream):
        body = await stream.read()
        await stream.send_response(200, {"x-of": "ours"}, body or stream.request.target)

    async def early(self, stream):
        await stream.send_informational(103, {"link": "</style.css>"})
        await stream.start_response({":status": "200"})
        await stream.send_data(b"body")
        await stream.send_trailers({"x-end": "1"})

    async def large(self, stream):
        await stream.send_response(200, body=LARGE)

    async def some(self, stream):
        await stream.start_response({":status": "200"})
        await stream.send_data(b"some")
        await self.release.wait()

    async def silence(self, stream):
        await self.release.wait()

    async def reset(self, stream):
        is_http2 = stream.link.version == "HTTP/2"
        stream.reset(
            ErrorCode.INTERNAL_ERROR if is_http2 else H3ErrorCode.H3_INTERNAL_ERROR
        )

    @property
    def open_streams(self):
        return sum(connection.stream_count for connection in self.connections)


@pytest.fixture
def serving(paths, tls):
    """Serves an ``Application`` with a caller of one kind."""

    @contextlib.asynccontextmanager
    async def serving(way, version, *, app=None, server=None, **options):
        app = app or Application()
        options = {"http3": VERSIONS[version]} | options
        async with (
            serve(app, paths, **(server or {})) as origin,
            calling(way, tls.authority, **options) as caller,
        ):
            yield caller, app, origin
            app.release.set()

    return serving


# ---- Requests and responses ----


@modules
@everywhere
@in_loop
async def test_a_response_is_of_the_module_of_its_request(
    way, version, module, serving
):
    module = MODULES[module]
    async with serving(way, version, module=module) as (caller, app, origin):
        response = await caller.get(f"{origin}/path?q=1", headers={"X-Upper": "A"})
        assert type(response) is module.Response
        assert response.status_code == 200
        assert response.text == "/path?q=1"
        assert response.headers["x-of"] == "ours"
        assert response.http_version == version
        assert response.extensions["stream_id"] == (1 if version == "HTTP/2" else 0)
        stream = response.extensions["network_stream"]
        assert stream.get_extra_info("server_addr")[0].endswith("127.0.0.1")
        has_tls = stream.get_extra_info("ssl_object") is not None
        assert has_tls == (version == "HTTP/2")
        request = app.requests[0]
        assert (b"x-upper", b"A") in request.headers
        names = {name for name, _ in request.headers}
        assert not names & {b"connection", b"transfer-encoding"}
        await caller.get(origin)
        assert len(app.connections) == 1


def pieces():
    yield b"one "
    yield b"two"


async def async_pieces():
    for piece in pieces():
        yield piece


@everywhere
@in_loop
async def test_bodies_are_sent(way, version, serving):
    async with serving(way, version) as (caller, _, origin):
        for content in (
            "text",
            b"bytes",
            LARGE,
            pieces() if way == "sync" else async_pieces(),
        ):
            response = await caller.request("POST", origin, content=content)
            expected = {str: b"text"}.get(type(content), content)
            if not isinstance(expected, bytes):
                expected = b"one two"
            assert response.content == expected
        response = await caller.request("PUT", origin, json={"a": 1})
        assert response.json() == {"a": 1}
        response = await caller.request(
            "POST", origin, files={"file": ("name", io.BytesIO(LARGE))}, data={"a": "b"}
        )
        assert LARGE in response.content
        assert b'name="a"' in response.content
        response = await caller.request("HEAD", f"{origin}/path")
        assert response.status_code == 200
        assert response.content == b""


@everywhere
@in_loop
async def test_early_hints_and_trailers_are_extensions(way, version, serving):
    async with serving(way, version) as (caller, _, origin):
        response = await caller.open("GET", f"{origin}/early")
        early = response.extensions["early_hints"]
        assert [fields["link"] for fields in early] == ["</style.css>"]
        assert await caller.read(response) == b"body"
        assert response.extensions["trailers"]["X-End"] == "1"


@everywhere
@in_loop
async def test_a_large_body_is_iterated_over(way, version, serving):
    async with serving(way, version) as (caller, _, origin):
        response = await caller.open("GET", f"{origin}/large")
        assert await caller.read(response) == LARGE
        assert response.num_bytes_downloaded == len(LARGE)


@everywhere
@in_loop
async def test_many_requests_at_once_share_a_connection(way, version, serving):
    async with serving(way, version) as (caller, app, origin):
        responses = await asyncio.gather(
            *(caller.get(f"{origin}/{n}") for n in range(30))
        )
        assert [r.text for r in responses] == [f"/{n}" for n in range(30)]
        assert len(app.connections) == 1


# ---- Errors ----


@everywhere
@in_loop
async def test_a_refused_connection_is_a_connect_error(way, version, serving):
    async with serving(way, version) as (caller, _, _):
        with pytest.raises(httpx.ConnectError) as caught:
            await caller.get("https://127.0.0.1:1/")
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.request.url == "https://127.0.0.1:1/"


@everywhere
@in_loop
async def test_an_untrusted_server_is_a_connect_error(way, version, paths):
    expect_a_broken_handshake()
    options = {"http3": "only"} if version == "HTTP/3" else {}
    async with (
        serve(Application(), paths) as origin,
        calling(way, True, **options) as caller,
    ):
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await caller.get(origin)
    async with (
        serve(Application(), paths) as origin,
        calling(way, False, **options) as caller,
    ):
        assert (await caller.get(origin)).http_version == version


@everywhere
@in_loop
async def test_each_kind_of_timeout_is_raised(way, version, serving):
    soon = 0.1
    async with serving(way, version) as (caller, app, origin):
        with pytest.raises(httpx.ReadTimeout):
            await caller.get(f"{origin}/silence", timeout=httpx.Timeout(5, read=soon))
        response = await caller.open(
            "GET", f"{origin}/some", timeout=httpx.Timeout(5, read=soon)
        )
        with pytest.raises(httpx.ReadTimeout):
            await caller.read(response)
        with pytest.raises(httpx.WriteTimeout):
            await caller.request(
                "POST",
                f"{origin}/silence",
                content=b"x" * 10_000_000,
                timeout=httpx.Timeout(5, write=soon),
            )
        # The connection and its other streams are not concerned.
        assert (await caller.get(origin)).text == "/"
        assert len(app.connections) == 1
        await until(lambda: app.open_streams == 0)
    async with silent_server() as (address, _):
        options = {"http3": "only"} if version == "HTTP/3" else {}
        async with calling(way, False, **options) as caller:
            url = f"https://127.0.0.1:{address[1]}"
            if version == "HTTP/2":
                with pytest.raises(httpx.ConnectTimeout) as caught:
                    await caller.get(url, timeout=httpx.Timeout(5, connect=soon))
                assert isinstance(caught.value.__cause__, ConnectTimeoutError)


@everywhere
@in_loop
async def test_a_request_waits_for_a_connection_no_longer_than_it_may(
    way, version, serving, paths
):
    limits = httpx.Limits(max_connections=1)
    async with (
        serving(way, version, limits=limits) as (caller, _, origin),
        serve(Application(), paths) as other,
    ):
        response = await caller.open("GET", f"{origin}/some")
        with pytest.raises(httpx.PoolTimeout):
            await caller.get(other, timeout=httpx.Timeout(5, pool=0.1))
        await caller.close(response)
        assert (await caller.get(other)).status_code == 200


@everywhere
@in_loop
async def test_what_breaks_off_is_an_error_of_httpx(way, version, serving):
    async with serving(way, version) as (caller, app, origin):
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.get(f"{origin}/reset")
        with pytest.raises(httpx.LocalProtocolError):
            await caller.get(origin, headers={"x-bad": "a\nb"})
        with pytest.raises(httpx.LocalProtocolError):
            await caller.request(
                "POST", origin, content=b"abc", headers={"content-length": "2"}
            )
        with pytest.raises(httpx.UnsupportedProtocol):
            await caller.get("ftp://127.0.0.1/")
        response = await caller.open("GET", f"{origin}/some")
        for connection in app.connections:
            connection.abort()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await caller.read(response)


@everywhere
@in_loop
async def test_an_error_of_the_body_is_raised_as_it_is(way, version, serving):
    def sync_body():
        yield b"some"
        raise OSError("of the body")

    async def async_body():
        for piece in sync_body():
            yield piece

    async with serving(way, version) as (caller, app, origin):
        body = sync_body() if way == "sync" else async_body()
        with pytest.raises(OSError, match="of the body"):
            await caller.request("POST", origin, content=body)
        assert (await caller.get(origin)).status_code == 200
        await until(lambda: app.open_streams == 0)


# ---- Ends ----


@everywhere
@in_loop
async def test_a_response_that_is_closed_unread_resets_its_stream(
    way, version, serving
):
    async with serving(way, version) as (caller, app, origin):
        response = await caller.open("GET", f"{origin}/some")
        await caller.close(response)
        await until(lambda: len(app.errors) == 1)
        assert app.errors[0].remote
        assert (await caller.get(origin)).status_code == 200


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
@in_loop
async def test_300_cancelled_downloads_leave_no_stream(version, serving):
    """encode/httpcore#1022."""
    async with serving("async", version) as (caller, app, origin):
        for n in range(3):
            tasks = [
                asyncio.ensure_future(caller.get(f"{origin}/some")) for _ in range(100)
            ]
            await until(lambda n=n: len(app.requests) > n * 100 + 50)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert (await caller.get(origin)).status_code == 200
        await until(lambda: app.open_streams == 0)
        assert len(app.connections) == 1


# ---- HTTP/1.1 ----


async def serve_http11(tls, versions):
    """Answer over HTTP/1.1 only, and count the connections."""

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            line = head.split(b"\r\n")[0]
            versions.append(line.split()[-1])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")

    async def handle(reader, writer):
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    if tls is not None:
        tls.set_alpn_protocols(["http/1.1"])
    return await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)


@modules
@ways
@in_loop
async def test_an_origin_without_http2_is_served_over_http11(way, module, tls):
    versions = []
    server = await serve_http11(tls.server, versions)
    async with server, calling(way, tls.authority, MODULES[module]) as caller:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            response = await caller.get(f"https://127.0.0.1:{port}/")
            assert response.text == "old"
            assert response.http_version == "HTTP/1.1"
        content = pieces() if way == "sync" else async_pieces()
        response = await caller.request(
            "POST", f"https://127.0.0.1:{port}/", content=content
        )
        assert response.text == "old"
        assert versions[0] == b"HTTP/1.1"


@ways
@in_loop
async def test_http_is_http11_unless_http2_is_all_that_is_allowed(way, tls):
    versions = []
    server = await serve_http11(None, versions)
    async with server, calling(way, tls.authority) as caller:
        port = server.sockets[0].getsockname()[1]
        response = await caller.get(f"http://127.0.0.1:{port}/")
        assert response.http_version == "HTTP/1.1"

    async with (
        ScriptedServer(lambda peer: peer.serve()) as server,
        calling(way, tls.authority, http1=False) as caller,
    ):
        response = await caller.get(f"http://127.0.0.1:{server.port}/path")
        assert response.http_version == "HTTP/2"
        assert response.text == "/path"


def test_a_transport_is_a_base_transport_of_httpx():
    assert isinstance(AsyncTransport(), httpx.AsyncBaseTransport)
