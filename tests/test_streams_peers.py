"""The streams API with other people's programs, over sockets and TLS."""

import asyncio
import contextlib
import gc
import hashlib
import random
import re
import ssl
import subprocess

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from loops import in_loops, until
from peers import client_tls, expect_a_broken_handshake, nghttpd, run
from streams import connect
from test_server_chromium import PAGE, dump_dom
from test_server_peers import H2Client

from nghttp2py.asyncio import (
    H2Protocol,
    H2Server,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    SendException,
    StreamResetError,
)

GET = {":method": "GET"}
TLS_VERSIONS = {
    "cleartext": None,
    "TLS 1.2": ssl.TLSVersion.TLSv1_2,
    "TLS 1.3": ssl.TLSVersion.TLSv1_3,
}


async def site(stream):
    """Answer as the path says."""
    path = stream.request.target
    if path == b"/upload":
        digest, size = hashlib.sha256(), 0
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
        await stream.send_response(200, {}, f"{size} {digest.hexdigest()}".encode())
    elif path == b"/trailers":
        await stream.send_informational(103, {"link": "</style.css>; rel=preload"})
        await stream.send_response(200, {}, b"body", trailers={"checksum": "1"})
    elif path.startswith(b"/bytes/"):
        size = int(path[7:])
        await stream.send_response(
            200, {}, (b"x" * 10000 for _ in range(size // 10000))
        )
    else:
        await stream.send_response(200, {}, b"hello")


def serve(**options):
    options = {"concurrency": 100, "host": "127.0.0.1", "port": 0, **options}
    return start_server(lambda proto: proto.serve_streams(site), **options)


def port_of(server):
    return server.sockets[0].getsockname()[1]


@pytest.fixture
def upload(tmp_path):
    """A file of 3 MB and its hash."""
    path = tmp_path / "upload"
    path.write_bytes(random.Random(3).randbytes(3_000_000))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", TLS_VERSIONS)
@in_loops
async def test_both_ends_speak_over_sockets(version, tls):
    secure = TLS_VERSIONS[version]
    options = [{}, {}]
    if secure:
        tls.server.maximum_version = tls.server.minimum_version = secure
        options = [{"ssl": tls.server}, {"ssl": tls.client}]
    body = random.Random(5).randbytes(1_000_000)
    async with (
        await serve(**options[0]) as server,
        await open_connection("127.0.0.1", port_of(server), **options[1]) as client,
    ):
        if secure:
            assert client.get_extra_info("ssl_object").version()[-1] == version[-1]
        stream = await client.open_stream({":method": "POST", ":path": "/upload"})
        await stream.send_body(body)
        answer = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        assert await stream.read() == answer
        stream = await client.open_stream({**GET, ":path": "/bytes/1000000"})
        await stream.end_stream()
        assert len(await stream.read()) == 1_000_000


@in_loops
async def test_a_server_that_is_cancelled_ends_its_connections():
    server = await serve()
    serving = asyncio.ensure_future(server.serve_forever())
    async with await open_connection("127.0.0.1", port_of(server)) as client:
        await until(lambda: server.connections)
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled()
        assert not server.connections and not server.is_serving()
        await client.wait_closed()


@pytest.mark.parametrize("end", [H2Server.close_clients, H2Server.abort_clients])
@in_loops
async def test_a_server_may_end_its_connections_and_take_others(end):
    async with await serve() as server:
        for _ in range(2):
            client = await open_connection("127.0.0.1", port_of(server))
            stream = await client.open_stream({**GET, ":path": "/upload"})
            await until(lambda: server.connections)
            end(server)
            with pytest.raises((ConnectionTerminatedError, StreamResetError)):
                await stream.response()
            await client.wait_closed()
            await until(lambda: not server.connections)


@in_loops
async def test_a_server_that_is_closed_serves_forever_no_more():
    server = await serve()
    serving = asyncio.ensure_future(server.serve_forever())
    async with await open_connection("127.0.0.1", port_of(server)):
        await until(lambda: server.connections)
        server.close()
        await serving
        assert not server.connections
    await server.serve_forever()  # which is over at once


@in_loops
async def test_a_server_that_speaks_no_http2_is_refused(tls):
    async def http1(reader, writer):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read()
        writer.close()

    tls.server.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(http1, "127.0.0.1", 0, ssl=tls.server)
    async with server:
        # OpenSSL of a server that has no common protocol may just say nothing.
        with pytest.raises(ConnectionTerminatedError) as info:
            await open_connection("127.0.0.1", port_of(server), ssl=tls.client)
        assert info.value.error_code == ErrorCode.HTTP_1_1_REQUIRED
        assert "ALPN" in info.value.reason


@in_loops
async def test_alpn_is_set_and_renegotiation_forbidden(tls):
    """RFC 9113, 3.2 and 9.2.1."""
    assert not tls.server.options & ssl.OP_NO_RENEGOTIATION
    async with (
        await serve(ssl=tls.server) as server,
        await open_connection("127.0.0.1", port_of(server), ssl=tls.client) as client,
    ):
        chosen = client.get_extra_info("ssl_object").selected_alpn_protocol()
        assert chosen == "h2"
    assert tls.server.options & tls.client.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
@in_loops
async def test_a_context_that_others_change_meanwhile_offers_http2(unix, tls, tmp_path):
    """As httpx does, which offers its own versions by the same context."""
    path = str(tmp_path / "socket")
    if unix:
        server = await start_unix_server(
            lambda proto: proto.serve_streams(site), path, ssl=tls.server
        )
        connecting = open_unix_connection(
            path, ssl=tls.client, server_hostname="localhost"
        )
    else:
        server = await serve(ssl=tls.server)
        connecting = open_connection("127.0.0.1", port_of(server), ssl=tls.client)
    async with server:
        task = asyncio.ensure_future(connecting)
        await asyncio.sleep(0)  # the call has begun
        tls.client.set_alpn_protocols(["http/1.1"])
        async with await task as client:
            chosen = client.get_extra_info("ssl_object").selected_alpn_protocol()
            assert chosen == "h2"


@in_loops
async def test_a_certificate_that_is_not_trusted_is_an_ssl_error(tls):
    expect_a_broken_handshake()
    async with await serve(ssl=tls.server) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_connection("127.0.0.1", port_of(server), ssl=True)


@pytest.mark.parametrize("secure", [False, True])
@in_loops
async def test_a_client_fetches_from_nghttpd(secure, upload):
    path, digest = upload
    secured = {"ssl": client_tls()} if secure else {}
    with nghttpd(path.parent, "--trailer", "checksum: 1", tls=secure) as port:
        async with await open_connection("127.0.0.1", port, **secured) as client:

            async def fetch():
                stream = await client.open_stream(
                    {**GET, ":path": "/upload"}, end_stream=True
                )
                response = await stream.response()
                assert response.status == 200
                received = hashlib.sha256()
                async for chunk in stream:
                    received.update(chunk)
                assert received.hexdigest() == digest
                assert (b"checksum", b"1") in await stream.trailers()

            await asyncio.gather(*(fetch() for _ in range(8)))
            stream_id = await client.start_request(
                {**GET, ":path": "/none"}, end_stream=True
            )
            assert dict(await client.recv_response(stream_id))[":status"] == "404"
            assert 0 < await client.ping() < 10


@in_loops
async def test_a_client_uploads_to_nghttpd(upload):
    path, digest = upload
    with nghttpd(path.parent, "--echo-upload") as port:
        async with await open_connection("127.0.0.1", port) as client:
            stream = await client.open_stream({":method": "POST", ":path": "/"})
            with path.open("rb") as file:
                sending = asyncio.ensure_future(stream.send_body(file))
                assert (await stream.response()).status == 200
                received = hashlib.sha256(await stream.read())
                await sending
            assert received.hexdigest() == digest


@in_loops
async def test_a_server_answers_curl(tls, upload):
    path, digest = upload
    async with await serve(ssl=tls.server) as server:
        url = f"https://127.0.0.1:{port_of(server)}"
        curl = ["curl", "-sS", "--http2", "--cacert", tls.authority]
        assert await run(*curl, url) == "hello"
        answer = await run(*curl, "-H", "expect:", "-T", str(path), url + "/upload")
        assert answer == f"3000000 {digest}"
        seen = await run(*curl, "-i", url + "/trailers")
        assert "HTTP/2 103" in seen and "HTTP/2 200" in seen and "checksum: 1" in seen
        assert len(await run(*curl, url + "/bytes/2000000")) == 2_000_000


@in_loops
async def test_a_server_answers_nghttp(upload):
    path, digest = upload
    async with await serve() as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        assert await run("nghttp", url) == "hello"
        answer = await run("nghttp", "-d", str(path), url + "/upload")
        assert answer == f"3000000 {digest}"
        assert "checksum: 1" in await run("nghttp", "-v", url + "/trailers")


@in_loops
async def test_a_server_answers_httpx(tls, upload):
    path, digest = upload
    async with (
        await serve(ssl=tls.server) as server,
        httpx.AsyncClient(
            http1=False,
            http2=True,
            trust_env=False,
            verify=ssl.create_default_context(cafile=tls.authority),
            base_url=f"https://127.0.0.1:{port_of(server)}",
        ) as client,
    ):
        answers = await asyncio.gather(*(client.get("/") for _ in range(50)))
        assert {(a.http_version, a.text) for a in answers} == {("HTTP/2", "hello")}
        answer = await client.post("/upload", content=path.read_bytes())
        assert answer.text == f"3000000 {digest}"
        assert (await client.get("/bytes/2000000")).content == b"x" * 2_000_000
        async with client.stream("GET", "/bytes/9000000") as answer:
            assert answer.status_code == 200  # and leaves the rest
        assert (await client.get("/trailers")).text == "body"


@in_loops
async def test_a_server_answers_chromium(tls, tmp_path):
    asked = []

    async def page(stream):
        asked.append(stream.request.target)
        if stream.request.target == b"/":
            body = PAGE.encode()
            await stream.send_response(200, {"content-type": "text/html"}, body)
        elif stream.request.target == b"/style.css":
            style = b"body { color: rgb(1, 2, 3) }"
            await stream.send_response(200, {"content-type": "text/css"}, style)
        else:
            await stream.send_response(404)

    async with await start_server(
        lambda proto: proto.serve_streams(page),
        "127.0.0.1",
        0,
        ssl=tls.server,
        concurrency=100,
    ) as server:
        document = await dump_dom(f"https://localhost:{port_of(server)}/", tmp_path)
    assert "rgb(1, 2, 3) by h2" in document
    assert b"/style.css" in asked


@in_loops
async def test_a_server_answers_hyper_h2():
    body = random.Random(2).randbytes(300_000)
    async with await serve() as server:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(
            H2Client, "127.0.0.1", port_of(server)
        )
        asked = [client.request(b"POST", b"/upload", body) for _ in range(4)]
        client.flush()
        await until(lambda: client.ended.issuperset(asked))
        answer = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        assert [client.answers[stream_id] for stream_id in asked] == [answer] * 4
        transport.close()


class H2Server(asyncio.Protocol):
    """A server of hyper-h2: it echoes each request's body."""

    def connection_made(self, transport):
        self.transport = transport
        self.bodies = {}
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False)
        )
        self.h2.initiate_connection()
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.bodies[event.stream_id] = b""
                self.h2.send_headers(event.stream_id, [(":status", "200")])
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif isinstance(event, h2.events.StreamEnded):
                body = self.bodies.pop(event.stream_id)
                self.h2.send_data(event.stream_id, body[:16384], end_stream=True)
        self.transport.write(self.h2.data_to_send())


@in_loops
async def test_a_client_asks_hyper_h2():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(H2Server, "127.0.0.1", 0)
    async with server, await open_connection("127.0.0.1", port_of(server)) as client:

        async def ask(n):
            stream = await client.open_stream({":method": "POST", ":path": "/"})
            await stream.send_body(b"%d " % n * 1000)
            assert await stream.read() == b"%d " % n * 1000

        await asyncio.gather(*(ask(n) for n in range(200)))


@in_loops
async def test_a_connection_that_opens_after_the_close_is_sent_away():
    server = await serve()
    # As one whose TLS handshake was still going on.
    late, client = server._factory(), H2Protocol(True)
    server.close()
    connect(client, late)
    await client.wait_closed()
    await late.wait_closed()
    await server.wait_closed()


def succeeded(output):
    """How many requests h2load has counted as done, and as well done."""
    counts = re.search(r"(\d+) done, (\d+) succeeded", output)
    return int(counts[1]), int(counts[2])


@in_loops
async def test_a_server_answers_h2load():
    async with await serve() as server:
        url = f"http://127.0.0.1:{port_of(server)}/"
        output = await run("h2load", "-n1000", "-c4", "-m10", url)
        assert succeeded(output) == (1000, 1000)
        await until(lambda: not server.connections)


@in_loops
async def test_a_server_that_closes_loses_no_request_it_accepted():
    """h2load is in full swing; what it counts as failed was never accepted."""
    answered = 0

    async def counting(stream):
        nonlocal answered
        await asyncio.sleep(0)  # others are in progress when it closes
        await stream.send_response(200, {}, b"hello")
        answered += 1

    server = await serve()
    server._connected = lambda proto: proto.serve_streams(counting)
    url = f"http://127.0.0.1:{port_of(server)}/"
    process = await asyncio.create_subprocess_exec(
        "h2load", "-n100000", "-c2", "-m10", url, stdout=subprocess.PIPE
    )
    await until(lambda: answered > 300)
    server.close()
    await server.wait_closed()
    output, _ = await process.communicate()
    assert succeeded(output.decode())[1] == answered


@in_loops
async def test_thousands_of_requests_with_resets_on_both_sides_keep_every_byte():
    """Random sizes, random cancellations; over real sockets, bodies by hash."""
    dice = random.Random(11)
    outcomes = {"whole": 0, "broken": 0}

    async def echo(stream):
        await stream.start_response({":status": "200"})
        async for chunk in stream:
            if dice.random() < 0.02:
                stream.reset(ErrorCode.ENHANCE_YOUR_CALM)
            await stream.send_data(chunk)
        await stream.end_stream()

    async def ask(client):
        body = dice.randbytes(int(2 ** dice.uniform(0, 20)))
        headers = {":method": "POST", ":path": "/"}
        async with await client.open_stream(headers) as stream:
            sending = asyncio.ensure_future(stream.send_body(body))
            digest, size = hashlib.sha256(), 0
            try:
                async for chunk in stream:
                    digest.update(chunk)
                    size += len(chunk)
                    if dice.random() < 0.02:
                        outcomes["broken"] += 1
                        return
                await sending
            except (StreamResetError, SendException):
                outcomes["broken"] += 1
                return
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()
            assert size == len(body)
            assert digest.digest() == hashlib.sha256(body).digest()
            outcomes["whole"] += 1

    server = await start_server(
        lambda proto: proto.serve_streams(echo), "127.0.0.1", 0, concurrency=50
    )
    async with (
        server,
        await open_connection("127.0.0.1", port_of(server)) as client,
    ):
        for _ in range(6):
            await asyncio.gather(*(ask(client) for _ in range(50)))
        assert outcomes["whole"] > 100 and outcomes["broken"] > 10
        (served,) = server.connections
        await until(lambda: not client.stream_count and not served.stream_count)
        assert not client._finished and not served._finished
        assert not client._link.blocked and not served._link.blocked
        assert client.connection.active_stream_count == 0


@in_loops
async def test_a_thousand_requests_leave_no_objects_behind():
    async with (
        await serve() as server,
        await open_connection("127.0.0.1", port_of(server)) as client,
    ):

        async def ask(n):
            for _ in range(n):
                stream_id = await client.start_request(
                    {**GET, ":path": "/"}, end_stream=True
                )
                await client.recv_response(stream_id)
                assert await client.read_stream(stream_id, -1) == b"hello"

        await asyncio.gather(*(ask(50) for _ in range(20)))
        gc.collect()
        before = len(gc.get_objects())
        await asyncio.gather(*(ask(50) for _ in range(20)))
        gc.collect()
        assert len(gc.get_objects()) - before < 300
