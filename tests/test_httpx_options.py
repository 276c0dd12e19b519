"""The parameters of the transports of httpx, and the extensions of its requests."""

import asyncio
import contextlib
import socket
import ssl
import subprocess

import httpx
import pytest
from httpx_clients import calling, everywhere, serve, ways
from loops import in_loop
from peers import ScriptedServer, expect_a_broken_handshake

from nghttp2py.asyncio import Server, TLSOptions
from nghttp2py.errors import ConfigurationError, ErrorCode, TLSConfigurationError
from nghttp2py.h2 import Setting
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode
from nghttp2py.httpx import AsyncTransport, Transport


async def echo(stream):
    """Answer with what the request names."""
    request = stream.request
    await stream.send_response(200, body=b"%s %s" % (request.authority, request.target))


class Recorder:
    """Answers, and keeps the requests and connections."""

    def __init__(self):
        self.requests = []
        self.connections = set()

    async def __call__(self, stream):
        self.requests.append(stream.request)
        self.connections.add(stream.connection)
        await stream.send_response(200, body=await stream.read())


# ---- Trust ----


@everywhere
@in_loop
async def test_verify_names_the_authorities_for_both_versions(
    way, version, paths, tls, tmp_path, monkeypatch
):
    http3 = "only" if version == "HTTP/3" else False
    directory = tmp_path / "authorities"
    directory.mkdir()
    with open(tls.authority, "rb") as file:
        pem = file.read()
    # OpenSSL finds a certificate by the hash of its name.
    (directory / "authority.pem").write_bytes(pem)
    command = ["openssl", "x509", "-noout", "-hash", "-in", tls.authority]
    name = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    (directory / f"{name.strip()}.0").write_bytes(pem)
    context = ssl.create_default_context(cafile=tls.authority)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with serve(echo, paths) as origin:
        for verify in (tls.authority, str(directory), context):
            async with calling(way, verify, http3=http3) as caller:
                assert (await caller.get(origin)).http_version == version
        for variable, value in (
            ("SSL_CERT_FILE", tls.authority),
            ("SSL_CERT_DIR", str(directory)),
        ):
            monkeypatch.setenv(variable, value)
            async with calling(way, True, http3=http3) as caller:
                assert (await caller.get(origin)).status_code == 200
            expect_a_broken_handshake()
            async with calling(way, True, http3=http3, trust_env=False) as caller:
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    await caller.get(origin)
            monkeypatch.delenv(variable)


def test_what_quic_cannot_verify_is_refused():
    context = ssl.create_default_context()
    context.check_hostname = False
    for kind in (AsyncTransport, Transport):
        with pytest.raises(TLSConfigurationError, match="check_hostname"):
            kind(verify=context, http3=True)
        kind(verify=context)


@everywhere
@in_loop
async def test_cert_is_the_certificate_of_the_client(
    way, version, paths, tls, certificates, tmp_path
):
    _, _, client, _ = certificates
    path = tmp_path / "of_client.pem"
    client.private_key_and_cert_chain_pem.write_to_path(str(path))
    key = tmp_path / "key_of_client.pem"
    client.private_key_pem.write_to_path(str(key))
    http3 = "only" if version == "HTTP/3" else False

    async def app(stream):
        found = stream.link.get_extra_info("peercert")
        await stream.send_response(200, body=b"yes" if found else b"no")

    server_tls = TLSOptions(
        [paths], ca_certs=tls.authority, verify_mode=ssl.CERT_OPTIONAL
    )
    async with serve(app, server_tls) as origin:
        for cert in (str(path), (str(path), str(key))):
            async with calling(way, tls.authority, cert=cert, http3=http3) as caller:
                assert (await caller.get(origin)).text == "yes"


def test_wrong_arguments_are_refused():
    for arguments, error in (
        ({"verify": 1}, TypeError),
        ({"verify": "/no/such/file"}, OSError),
        ({"cert": 1}, TypeError),
        ({"trust_env": "yes"}, TypeError),
        ({"http1": 1}, TypeError),
        ({"http3": "yes"}, ConfigurationError),
        ({"http3": True, "http2": False}, ConfigurationError),
        ({"http3": True, "uds": "/socket"}, ConfigurationError),
        ({"http3": "only", "proxy": "http://127.0.0.1:1"}, ConfigurationError),
        ({"http1": False, "http2": False}, ConfigurationError),
        ({"http1": False, "proxy": "http://127.0.0.1:1"}, ConfigurationError),
        ({"retries": -1}, ValueError),
        ({"limits": httpx.Limits(max_connections=0)}, ValueError),
    ):
        for kind in (AsyncTransport, Transport):
            with pytest.raises(error):
                kind(**arguments)


def test_no_limit_and_no_keep_alive_can_be_asked_for():
    AsyncTransport(
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=0
        )
    )


# ---- Where connections are made to, and from ----


@ways
@in_loop
async def test_uds_is_the_path_of_a_unix_socket(way, tmp_path, paths, tls):
    path = str(tmp_path / "socket")
    async with (
        Server(echo, path, ssl=paths),
        calling(way, tls.authority, uds=path) as caller,
    ):
        response = await caller.get("https://localhost/path")
        assert response.text == "localhost /path"
        assert response.http_version == "HTTP/2"


@ways
@in_loop
async def test_local_address_and_socket_options_are_used(way, paths, tls):
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for options in ({}, {"local_address": "127.0.0.2"}):
        async with (
            serve(echo, paths) as origin,
            calling(
                way, tls.authority, socket_options=iter([option]), **options
            ) as caller,
        ):
            response = await caller.get(origin)
            stream = response.extensions["network_stream"]
            host = options.get("local_address", "127.0.0.1")
            assert stream.get_extra_info("client_addr")[0] == host
            found = stream.get_extra_info("socket")
            assert found.getsockopt(*option[:2])


@ways
@in_loop
async def test_what_goes_through_a_proxy_is_httpxs(way, paths, tls):
    """CONNECT for https."""
    targets = []

    async def connect(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        targets.append(head.split()[1].decode())
        host, _, port = targets[-1].rpartition(":")
        other_reader, other_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def copy(source, target):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    target.write(data)
            target.close()

        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))

    async with (
        serve(echo, paths) as origin,
        await asyncio.start_server(connect, "127.0.0.1", 0) as server,
    ):
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with calling(way, tls.authority, proxy=proxy) as caller:
            response = await caller.get(origin)
            assert response.http_version == "HTTP/1.1"
            assert targets == [origin.removeprefix("https://")]
        async with calling(way, tls.authority, proxy="http://127.0.0.1:1") as caller:
            with pytest.raises(httpx.ConnectError):
                await caller.get(origin)


@ways
@in_loop
async def test_connecting_is_tried_again(way, tls):
    """As often as ``retries`` says."""
    attempts = []

    def refuse(reader, writer):
        attempts.append(writer)
        writer.transport.abort()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, calling(way, tls.authority, retries=1) as caller:
        with pytest.raises(httpx.ConnectError):
            await caller.get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert len(attempts) == 2


# ---- Extensions of requests ----


@everywhere
@in_loop
async def test_host_and_target_are_what_the_request_says(way, version, paths, tls):
    http3 = "only" if version == "HTTP/3" else False
    async with (
        serve(echo, paths) as origin,
        calling(way, tls.authority, http3=http3) as caller,
    ):
        response = await caller.get(f"{origin}/a b?q=%41", headers={"host": "other"})
        assert response.text == "other /a%20b?q=%41"
        response = await caller.request("OPTIONS", origin, extensions={"target": b"*"})
        assert response.text.endswith(" *")


@everywhere
@in_loop
async def test_sni_hostname_is_the_name_of_the_certificate(
    way, version, paths, tls, certificates
):
    http3 = "only" if version == "HTTP/3" else False
    app = Recorder()
    expect_a_broken_handshake()
    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority, http3=http3) as caller,
    ):
        for _ in range(2):
            response = await caller.get(
                origin, extensions={"sni_hostname": "localhost"}
            )
            assert response.status_code == 200
        assert len(app.connections) == 1
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await caller.get(origin, extensions={"sni_hostname": "example.org"})
        await caller.get(origin)
        assert len(app.connections) == 2


CONNECTING = {
    "HTTP/2": ["connection.connect_tcp", "connection.start_tls"],
    "HTTP/3": ["connection.connect_quic"],
}
STEPS = [
    "send_connection_init",
    "send_request_headers",
    "send_request_body",
    "receive_response_headers",
    "receive_response_body",
    "response_closed",
]


@everywhere
@in_loop
async def test_trace_gets_the_events_of_httpcore(way, version, paths, tls):
    http3 = "only" if version == "HTTP/3" else False
    events = []

    def trace(name, info):
        events.append(name)
        if name.endswith("receive_response_headers.complete"):
            status, fields = info["return_value"]
            assert status == 200
            assert all(isinstance(name, bytes) for name, _ in fields)

    async def async_trace(name, info):
        trace(name, info)

    function = trace if way == "sync" else async_trace
    prefix = version.lower().replace("/", "")
    async with (
        serve(Recorder(), paths) as origin,
        calling(way, tls.authority, http3=http3) as caller,
    ):
        for body in (None, b"body"):
            await caller.request(
                "POST", origin, content=body, extensions={"trace": function}
            )
        first = [*CONNECTING[version], *(f"{prefix}.{step}" for step in STEPS)]
        again = [f"{prefix}.{step}" for step in STEPS[1:]]
        assert events == [
            f"{name}.{end}"
            for name in (*first, *again)
            for end in ("started", "complete")
        ]
        events.clear()
        with pytest.raises(httpx.ConnectError):
            await caller.get("https://127.0.0.1:1/", extensions={"trace": function})
        name = CONNECTING[version][0]
        assert events == [f"{name}.started", f"{name}.failed"]

        def fail(name, info):
            raise LookupError(name)

        with pytest.raises(LookupError):
            await caller.get(origin, extensions={"trace": fail})
        assert (await caller.get(origin)).status_code == 200


# ---- Known problems of other transports ----


@ways
@in_loop
async def test_a_lower_limit_of_streams_deadlocks_nothing(way, tls):
    """pydantic/httpx2#1216."""

    async def script(peer):
        first = [await peer.next_request() for _ in range(10)]
        peer.connection.update_settings({Setting.MAX_CONCURRENT_STREAMS: 1})
        for stream_id in first:
            peer.respond(stream_id, b"first")
        await peer.flush()
        await peer.serve()

    async with (
        ScriptedServer(script) as server,
        calling(way, tls.authority, http1=False) as caller,
    ):
        url = f"http://127.0.0.1:{server.port}/path"
        found = await asyncio.gather(*(caller.get(url) for _ in range(30)))
        assert sorted(r.text for r in found) == ["/path"] * 20 + ["first"] * 10
        assert server.connections == 1


@ways
@in_loop
async def test_what_goaway_leaves_unprocessed_is_sent_again(way, tls):
    """httpcore#1054."""

    async def script(peer):
        first, _ = [await peer.next_request() for _ in range(2)]
        peer.connection.send_goaway(first)
        peer.respond(first, b"first")
        await peer.flush()
        await peer.drained()

    async with (
        ScriptedServer(script, lambda peer: peer.serve()) as server,
        calling(way, tls.authority, http1=False) as caller,
    ):
        url = f"http://127.0.0.1:{server.port}/path"
        found = await asyncio.gather(caller.get(url), caller.get(url))
        assert sorted(r.text for r in found) == ["/path", "first"]
        assert server.connections == 2


@everywhere
@in_loop
async def test_streams_that_are_not_read_starve_no_other(way, version, paths, tls):
    """httpcore#943."""
    http3 = "only" if version == "HTTP/3" else False
    large = b"x" * 3_000_000

    async def app(stream):
        await stream.send_response(200, body=large)

    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority, http3=http3) as caller,
    ):
        held = [await caller.open("GET", origin) for _ in range(4)]
        assert (await caller.get(origin)).content == large
        assert await caller.read(held[0]) == large
        for response in held[1:]:
            await caller.close(response)


@ways
@in_loop
async def test_http_1_1_required_is_obeyed_from_then_on(way, paths, tls):
    """RFC 9113, 7."""
    requests = []

    async def app(stream):
        requests.append(stream.link.version)
        if stream.link.version == "HTTP/2":
            stream.reset(ErrorCode.HTTP_1_1_REQUIRED)
        else:
            await stream.send_response(200, body=await stream.read())

    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority) as caller,
    ):
        for _ in range(2):
            response = await caller.request("POST", origin, content=b"body")
            assert response.content == b"body"
            assert response.http_version == "HTTP/1.1"
    assert requests == ["HTTP/2", "HTTP/1.1", "HTTP/1.1"]


@ways
@in_loop
async def test_h3_version_fallback_is_obeyed_from_then_on(way, paths, tls):
    """RFC 9114, 8.1; even if the server goes on offering HTTP/3."""
    versions = []

    async def app(stream):
        versions.append(stream.link.version)
        if stream.link.version == "HTTP/3":
            stream.reset(H3ErrorCode.H3_VERSION_FALLBACK)
        else:
            await stream.send_response(200, body=await stream.read())

    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority, http3=True) as caller,
    ):

        async def ask():
            response = await caller.request("POST", origin, content=b"body")
            assert response.content == b"body"
            return response.http_version

        # A slow machine may use HTTP/2 again after the head start.
        for _ in range(100):
            if await ask() == "HTTP/1.1":
                break
        assert [await ask() for _ in range(3)] == ["HTTP/1.1"] * 3
    assert versions.count("HTTP/3") == 1
    assert versions[-4:] == ["HTTP/1.1"] * 4
    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority, http3="only") as caller,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="H3_VERSION_FALLBACK"):
            await caller.get(origin)


@contextlib.asynccontextmanager
async def serving_http11(tls, *fields):
    """A server of HTTP/1.1 over TLS, whose responses have these fields; its origin."""

    async def answer(reader, writer):
        head = "".join(f"{field}\r\n" for field in fields)
        text = f"HTTP/1.1 200 OK\r\n{head}content-length: 3\r\n\r\nold"
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(text.encode())
        writer.close()

    tls.server.set_alpn_protocols(["http/1.1"])
    expect_a_broken_handshake()
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.server)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@ways
@in_loop
async def test_alt_svc_of_http11_leads_to_http3(way, paths, tls):
    async with serve(Recorder(), paths) as newer:
        port = newer.rpartition(":")[2]
        async with (
            serving_http11(tls, f'alt-svc: h3=":{port}"') as origin,
            calling(way, tls.authority, http3=True) as caller,
        ):
            assert (await caller.get(origin)).text == "old"
            for _ in range(100):
                response = await caller.get(origin)
                if response.http_version == "HTTP/3":
                    break
                assert response.http_version == "HTTP/1.1"
            assert (response.http_version, response.text) == ("HTTP/3", "")


@pytest.mark.parametrize(
    "fields",
    [
        ('alt-svc: h3=":{port}"; ma=60', "age: 60"),
        ('alt-svc: h3=":{port}"; ma=0',),
        ('alt-svc: h2=":{port}"',),
        ("alt-svc: clear",),
        ("alt-svc: nonsense", "age: nonsense"),
    ],
)
@in_loop
async def test_alt_svc_of_http11_that_offers_no_http3_is_ignored(fields, paths, tls):
    async with serve(Recorder(), paths) as newer:
        fields = [field.format(port=newer.rpartition(":")[2]) for field in fields]
        async with (
            serving_http11(tls, *fields) as origin,
            calling("async", tls.authority, http3=True) as caller,
        ):
            for _ in range(3):
                assert (await caller.get(origin)).http_version == "HTTP/1.1"


@ways
@in_loop
async def test_without_http11_an_origin_that_speaks_nothing_else_is_an_error(way, tls):
    tls.server.set_alpn_protocols(["http/1.1"])
    expect_a_broken_handshake()
    server = await asyncio.start_server(
        lambda r, w: w.close(), "127.0.0.1", 0, ssl=tls.server
    )
    async with server, calling(way, tls.authority, http1=False) as caller:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(httpx.ConnectError, match="does not speak HTTP/2"):
            await caller.get(f"https://127.0.0.1:{port}")


@ways
@in_loop
async def test_alt_svc_leads_to_http3(way, paths, tls):
    app = Recorder()
    async with (
        serve(app, paths) as origin,
        calling(way, tls.authority, http3=True) as caller,
    ):
        versions = [(await caller.get(origin)).http_version for _ in range(3)]
        assert versions == ["HTTP/2", "HTTP/3", "HTTP/3"]


# ---- Event loops ----


def test_a_transport_serves_one_loop_after_the_other(paths, tls):
    transport = AsyncTransport(verify=tls.authority)

    async def ask():
        async with serve(echo, paths) as origin:
            client = httpx.AsyncClient(transport=transport)
            return (await client.get(origin)).status_code

    assert [asyncio.run(ask()) for _ in range(2)] == [200, 200]


@in_loop
async def test_a_transport_refuses_a_second_loop(paths, tls):
    async with (
        serve(echo, paths) as origin,
        calling("async", tls.authority) as caller,
    ):
        await caller.get(origin)

        def ask():
            asyncio.run(caller.get(origin))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(ask)
        await caller.transport.aclose()
        # A closed one can be used again, as httpx's own.
        assert (await caller.get(origin)).status_code == 200
