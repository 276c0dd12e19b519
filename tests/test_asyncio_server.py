"""``Server``: one program, over HTTP/2 and over HTTP/3."""

import asyncio
import contextlib
import functools
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from loops import in_loop, in_loops, until
from peers import run

from nghttp2py import BaseRequestHandler, HTTP2Server
from nghttp2py.asyncio import (
    Server,
    Stream,
    Timeouts,
    binding,
    connect,
    open_connection,
    open_unix_connection,
)
from nghttp2py.asyncio import server as server_module
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ProtocolError,
    StreamResetError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ProtocolError as H3ProtocolError
from nghttp2py.h3.exceptions import GoingAwayError
from nghttp2py.quic import QuicConfiguration
from nghttp2py.static_files import FileRequestHandler, StaticFiles, answer_stream

EXAMPLES = Path(__file__).parent.parent / "examples"
LOOPBACK = ("127.0.0.1", 0)
VERSIONS = pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])


@contextlib.asynccontextmanager
async def client(server, version, tls):
    """A connection to a server, by one protocol or the other."""
    port = server.sockets[0].getsockname()[1]
    if version == "HTTP/2":
        connection = await open_connection("127.0.0.1", port, ssl=tls.client)
        async with connection:
            yield connection
        return
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, cafile=tls.authority)
    async with connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=H3Protocol
    ) as connection:
        yield connection


@contextlib.asynccontextmanager
async def serving(app, version, paths, tls, **options):
    """A server of both protocols, and a connection to it by one of them."""
    async with (
        Server(app, LOOPBACK, ssl=paths, http3=True, **options) as server,
        client(server, version, tls) as connection,
    ):
        yield server, connection


class Waiting:
    """An app that never answers."""

    def __init__(self):
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, stream):
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


def fields(method="GET", path="/"):
    return [
        (b":method", method.encode()),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path.encode()),
        (b"x-one", b"1"),
        (b"x-one", b"2"),
    ]


async def ask(connection, method="GET", path="/", body=None):
    stream = await connection.open_stream(fields(method, path), end_stream=body is None)
    if body is not None:
        await stream.send_data(body, end_stream=True)
    response = await stream.response()
    return response.status, stream, await stream.read()


# ---- Requests ----


@VERSIONS
@in_loops
async def test_a_coroutine_function_answers_requests(version, paths, tls):
    async def app(stream: Stream):
        body = await stream.read()
        assert (stream.scheme, stream.authority) == (b"https", b"localhost")
        await stream.send_response(
            200,
            [(b"seen", stream.fields["X-One"].encode()), (b"b", b"1"), (b"b", b"2")],
            b" ".join((stream.method, stream.path, body)),
        )

    async with serving(app, version, paths, tls) as (_, connection):
        status, stream, body = await ask(connection, "POST", "/x", b"hello")
        assert (status, body) == (200, b"POST /x hello")
        assert stream.fields["Seen"] == "1, 2"
        assert stream.fields.get_all("B") == ["1", "2"]
        assert "absent" not in stream.fields and ":status" not in stream.fields


@VERSIONS
@in_loop
async def test_an_app_that_raises_before_it_answers_gives_500(
    version, paths, tls, caplog
):
    async def app(stream):
        raise RuntimeError("it is broken")

    async with serving(app, version, paths, tls) as (_, connection):
        assert (await ask(connection))[0] == 500
    assert "it is broken" in caplog.text


@in_loop
async def test_objects_and_partial_functions_are_apps(tls):
    class Application:
        async def __call__(self, stream):
            await stream.send_response(200, (), b"object")

        async def answer(self, body, stream):
            await stream.send_response(200, (), body)

    for app in (Application(), functools.partial(Application().answer, b"object")):
        async with Server(app, LOOPBACK) as server:
            port = server.sockets[0].getsockname()[1]
            async with await open_connection("127.0.0.1", port) as connection:
                assert (await ask(connection))[2] == b"object"


class Handler(BaseRequestHandler):
    def on_request_done(self):
        self.send_response(200, [("content-type", "text/plain")], b"handler")


@VERSIONS
@in_loop
async def test_a_handler_class_is_an_app(version, paths, tls):
    async with serving(Handler, version, paths, tls) as (_, connection):
        status, stream, body = await ask(connection)
        assert (status, body) == (200, b"handler")
        assert stream.fields["content-type"] == "text/plain"


@VERSIONS
@pytest.mark.parametrize("kind", ["handler", "coroutine"])
@in_loops
async def test_files_are_served_by_either_kind_of_app(
    version, kind, tmp_path, paths, tls
):
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "below").mkdir()

    class Files(FileRequestHandler):
        files = StaticFiles(tmp_path, listing=True)

    app = Files if kind == "handler" else functools.partial(answer_stream, Files.files)
    async with serving(app, version, paths, tls) as (_, connection):
        status, stream, body = await ask(connection, path="/file")
        assert (status, body) == (200, content)
        assert stream.fields["content-length"] == str(len(content))
        assert stream.fields["date"].endswith(" GMT")
        status, stream, body = await ask(connection, "HEAD", "/file")
        assert (status, body) == (200, b"")
        assert stream.fields["content-length"] == str(len(content))
        assert (await ask(connection, path="/empty"))[::2] == (200, b"")
        assert (await ask(connection, path="/none"))[0] == 404
        assert (await ask(connection, "POST", "/file", b"body"))[0] == 405
        assert b'href="./file"' in (await ask(connection, path="/"))[2]


# ---- Where else the server is ----


async def echo(stream):
    await stream.send_response(200, (), await stream.read())


async def plain(stream):
    await stream.start_response([(":status", "200"), ("x", "y")], end_stream=True)


@pytest.mark.parametrize("app", [echo, plain, Handler])
@in_loop
async def test_responses_over_http2_tell_of_http3(app, paths, tls):
    async with serving(app, "HTTP/2", paths, tls) as (server, connection):
        port = server.sockets[0].getsockname()[1]
        assert {each.getsockname()[1] for each in server.sockets} == {port}
        _, stream, _ = await ask(connection)
        assert stream.fields["alt-svc"] == f'h3=":{port}"'
    for options in ({"http3": True, "alt_svc": False}, {}):
        async with (
            Server(app, LOOPBACK, ssl=paths, **options) as server,
            client(server, "HTTP/2", tls) as connection,
        ):
            assert "alt-svc" not in (await ask(connection))[1].fields


@in_loop
async def test_an_alt_svc_of_the_app_stays(paths, tls):
    async def app(stream):
        await stream.send_response(200, {"Alt-Svc": "clear"}, b"")

    async with serving(app, "HTTP/2", paths, tls) as (_, connection):
        assert (await ask(connection))[1].fields.get_all("alt-svc") == ["clear"]


@in_loop
async def test_curl_is_answered(paths, tls):
    async with Server(echo, LOOPBACK, ssl=paths, http3=True) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}/"
        curl = ["curl", "-sSi", "--cacert", tls.authority, "-d", "hello"]
        answer = await run(*curl, "--http2", url)
        assert answer.startswith("HTTP/2 200") and answer.endswith("hello")
        assert f'alt-svc: h3=":{port}"' in answer


@in_loop
async def test_the_example_answers_by_both_protocols(paths, tls):
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "both.py", *paths, "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = process.stdout.readline().strip()
            answer = await run("curl", "-sS", "--cacert", tls.authority, url + "x")
            assert "sent 0 bytes to /x by HTTP/2" in answer
            answer = await run(
                sys.executable,
                *("-m", "nghttp2py", "get", "--http3-only"),
                *("--cacert", tls.authority, url + "y"),
            )
            assert "sent 0 bytes to /y by HTTP/3" in answer
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


# ---- The end ----


@VERSIONS
@in_loops
async def test_close_lets_open_streams_finish(version, paths, tls):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def app(stream):
        arrived.set()
        await go.wait()
        await stream.send_response(200, (), b"late")

    async with serving(app, version, paths, tls) as (server, connection):
        answer = asyncio.ensure_future(ask(connection))
        await arrived.wait()
        server.close()
        server.close()
        assert server.sockets == ()
        await until(lambda: not connection.is_available)
        go.set()
        assert (await answer)[2] == b"late"
        with pytest.raises((ConnectionTerminatedError, GoingAwayError)):
            await ask(connection)
        await server.wait_closed()


@VERSIONS
@in_loop
async def test_close_breaks_off_what_takes_longer_than_its_timeout(version, paths, tls):
    app = Waiting()
    async with serving(app, version, paths, tls) as (server, connection):
        answer = asyncio.ensure_future(ask(connection))
        await app.arrived.wait()
        server.close(0.05)
        await server.wait_closed()
        await app.cancelled.wait()
        with pytest.raises((ConnectionTerminatedError, OSError)):
            await answer
        server.close()
        server.abort()
        await server.wait_closed()


@VERSIONS
@in_loop
async def test_abort_ends_every_connection_at_once(version, paths, tls):
    app = Waiting()
    async with serving(app, version, paths, tls) as (server, connection):
        answer = asyncio.ensure_future(ask(connection))
        await app.arrived.wait()
        server.abort()
        await server.wait_closed()
        with pytest.raises((ConnectionTerminatedError, OSError)):
            await answer


@VERSIONS
@in_loop
async def test_a_server_that_is_closed_under_load_answers_what_it_has_begun(
    version, paths, tls
):
    begun = finished = 0

    async def app(stream):
        nonlocal begun, finished
        begun += 1
        body = await stream.read()
        await stream.send_response(200, (), body)
        finished += 1

    good = 0

    async def load(connection):
        nonlocal good
        with contextlib.suppress(ConnectionTerminatedError, GoingAwayError):
            while True:
                status, _, body = await ask(connection, "POST", "/", bytes(3000))
                assert (status, len(body)) == (200, 3000)
                good += 1

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            Server(app, LOOPBACK, ssl=paths, http3=True)
        )
        connections = [
            await stack.enter_async_context(client(server, version, tls))
            for _ in range(3)
        ]
        tasks = [
            asyncio.ensure_future(load(each)) for each in connections for _ in range(4)
        ]
        await until(lambda: good > 50)
        server.close()
        await server.wait_closed()
        await asyncio.gather(*tasks)
    assert begun == finished == good


@in_loop
async def test_stop_closes_first_and_aborts_then(paths, tls, caplog):
    app = Waiting()
    async with (
        Server(app, LOOPBACK, ssl=paths, http3=True) as server,
        client(server, "HTTP/2", tls) as one,
        client(server, "HTTP/3", tls) as other,
    ):
        serving = asyncio.ensure_future(server.serve())
        answers = [asyncio.ensure_future(ask(one))]
        await app.arrived.wait()
        app.arrived.clear()
        answers.append(asyncio.ensure_future(ask(other)))
        await app.arrived.wait()
        server.stop()
        assert "for 2 connections with 2 open streams" in caplog.text
        server.stop()
        await serving
        for answer in answers:
            with pytest.raises((ConnectionTerminatedError, OSError)):
                await answer


# ---- One limit, and one set of bounds ----


@in_loop
async def test_both_protocols_share_the_limit_of_connections(paths, tls):
    async with serving(echo, "HTTP/2", paths, tls, limit_connections=2) as (
        server,
        one,
    ):
        async with client(server, "HTTP/3", tls) as other:
            assert (await ask(one))[0] == (await ask(other))[0] == 200
            with pytest.raises(ConnectionError):
                async with client(server, "HTTP/3", tls):
                    pass
            waiting = asyncio.ensure_future(
                open_connection(*server.sockets[0].getsockname(), ssl=tls.client)
            )
            await ask(one)
            assert not waiting.done()
        # The one of QUIC is gone, and makes room.
        async with await waiting as third:
            assert (await ask(third))[0] == 200


@VERSIONS
@in_loop
async def test_timeouts_are_those_of_both_protocols(version, paths, tls):
    timeouts = Timeouts(body=0.1, idle=0.1)
    async with serving(echo, version, paths, tls, timeouts=timeouts) as (_, connection):
        # HTTP/3 has that of idleness in QUIC, too.
        stream = await connection.open_stream(fields("POST"))
        with pytest.raises(StreamResetError):
            await stream.response()
        await until(lambda: not connection.is_available)


# ---- Arguments ----


@in_loop
async def test_an_address_is_a_path_or_a_socket_too(tmp_path):
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with (
        Server(echo, None, sock=sock),
        await open_connection("127.0.0.1", port) as connection,
    ):
        assert (await ask(connection))[0] == 200
    path = tmp_path / "socket"
    async with Server(echo, path) as server:
        assert server.sockets[0].family == socket.AF_UNIX
    assert not path.exists()


@in_loop
async def test_sockets_of_the_caller_have_http3_at_their_ports(paths, tls):
    sock = socket.create_server(("127.0.0.1", 0))
    async with (
        Server(echo, sock=sock, ssl=tls.server, http3=paths) as server,
        client(server, "HTTP/3", tls) as connection,
    ):
        assert (await ask(connection))[0] == 200


@pytest.mark.parametrize("tcp", ["an address of IP", "a Unix socket", "none"])
@in_loop
async def test_http3_is_served_on_given_sockets_of_udp(tcp, paths, tls, tmp_path):
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(LOOPBACK)
    port = udp.getsockname()[1]
    given = [udp]
    if tcp == "an address of IP":
        given.append(socket.create_server(LOOPBACK))
    elif tcp == "a Unix socket":
        given.append(socket.socket(socket.AF_UNIX))
        given[-1].bind(str(tmp_path / "socket"))
    async with Server(echo, sock=given, ssl=tls.server, http3=paths) as server:
        assert set(server.sockets) == set(given)
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, cafile=tls.authority)
        async with connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=H3Protocol
        ) as connection:
            assert (await ask(connection))[0] == 200
        if tcp == "an address of IP":
            async with client(server, "HTTP/2", tls) as connection:
                _, stream, _ = await ask(connection)
                assert stream.fields["alt-svc"] == f'h3=":{port}"'
        elif tcp == "a Unix socket":
            path = str(tmp_path / "socket")
            async with await open_unix_connection(
                path, ssl=tls.client, server_hostname="localhost"
            ) as connection:
                _, stream, _ = await ask(connection)
                assert "alt-svc" not in stream.fields
    assert {one.fileno() for one in given} == {-1}


@in_loop
async def test_a_socket_of_udp_needs_http3(tls):
    with (
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        pytest.raises(ValueError, match="sock must be a stream socket"),
    ):
        Server(echo, sock=udp, ssl=tls.server)


@in_loop
async def test_a_configuration_of_quic_brings_its_certificate(paths, tls):
    configuration = QuicConfiguration(is_client=False)
    configuration.load_cert_chain(*paths)
    async with (
        Server(echo, LOOPBACK, ssl=tls.server, http3=configuration) as server,
        client(server, "HTTP/3", tls) as connection,
    ):
        assert (await ask(connection))[0] == 200
    assert configuration.alpn_protocols is None


async def asgi(scope, receive, send):
    pass


class ASGI:
    async def __call__(self, scope, receive, send):
        pass


@pytest.mark.parametrize("app", [asgi, ASGI()])
def test_an_asgi_application_is_refused_by_name(app):
    with pytest.raises(TypeError, match=r"ASGI application.*wrap it"):
        Server(app, LOOPBACK)


def not_a_coroutine(stream):
    pass


async def two(stream, other):
    pass


@pytest.mark.parametrize("app", [None, 1, "app", dict, not_a_coroutine, two])
def test_what_cannot_answer_is_refused(app):
    with pytest.raises(TypeError, match="app must be a coroutine function"):
        Server(app, LOOPBACK)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "or give sock"),
        ({"address": LOOPBACK, "ssl": "cert.pem"}, TypeError, "ssl must be"),
        ({"address": LOOPBACK, "ssl": ("a", "b", "c")}, ValueError, "two paths"),
        ({"address": LOOPBACK, "ssl": ("/none", None)}, OSError, "No such file"),
        ({"address": LOOPBACK, "http3": True}, ValueError, "http3 needs ssl"),
        ({"address": "/run/x", "http3": True}, ValueError, "an address of IP"),
        ({"address": LOOPBACK, "alt_svc": 1}, TypeError, "alt_svc must be a bool"),
        ({"address": LOOPBACK, "config": {}}, TypeError, "config"),
        ({"address": LOOPBACK, "limit_connections": 0}, ValueError, "limit"),
        ({"address": LOOPBACK, "backlog": -1}, ValueError, "backlog"),
        ({"address": LOOPBACK, "reuse_port": 1}, TypeError, "reuse_port"),
        ({"address": LOOPBACK, "timeouts": 3}, TypeError, "timeouts"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        Server(echo, **options)


@pytest.mark.parametrize(
    ("http3", "error", "text"),
    [
        (True, ValueError, "does not give its certificate"),
        (443, TypeError, "http3 must be a bool"),
        (("a", "b", "c"), ValueError, "two paths"),
        (QuicConfiguration(alpn_protocols=["hq"]), ValueError, "h3 must be among"),
    ],
)
def test_an_http3_that_cannot_be_meant_is_refused(http3, error, text, tls):
    with pytest.raises(error, match=text):
        Server(echo, LOOPBACK, ssl=tls.server, http3=http3)


def test_a_server_is_ended_before_it_began():
    server = Server(echo, LOOPBACK, config=H2Configuration())
    server.close()
    server.abort()
    assert server.sockets == ()
    assert issubclass(HTTP2Server, Server)


@pytest.mark.parametrize("unlucky", [2, 99])
@in_loop
async def test_port_0_is_one_that_tcp_and_udp_have_free(unlucky, paths, monkeypatch):
    """A port of TCP that UDP has not free is given up for another."""
    given_up, taken = [], []

    def bind_udp(sock, **options):
        if len(given_up) < unlucky:
            given_up.append(sock)
            taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken[-1].bind(sock.getsockname())
        return binding.bind_udp(sock, **options)

    monkeypatch.setattr(server_module, "bind_udp", bind_udp)
    server = Server(echo, LOOPBACK, ssl=paths, http3=True)
    try:
        if unlucky > 16:
            with pytest.raises(OSError, match="in use"):
                await server.start()
            assert len(given_up) == 16
        else:
            async with server:
                tcp, udp = server.sockets
                assert tcp.getsockname() == udp.getsockname()
        assert all(sock.fileno() < 0 for sock in given_up)
    finally:
        for sock in taken:
            sock.close()


@in_loop
async def test_a_port_of_udp_that_is_taken_is_an_error_of_the_start(paths):
    async with Server(echo, LOOPBACK, ssl=paths, http3=True) as server:
        address = server.sockets[0].getsockname()  # free for TCP, too
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(address)
        server = Server(echo, address, ssl=paths, http3=True)
        with pytest.raises(OSError, match="for UDP"):
            await server.start()
    async with server:
        assert len(server.sockets) == 2


def test_errors_of_http3_are_those_of_http():
    assert issubclass(H3ProtocolError, ProtocolError)
