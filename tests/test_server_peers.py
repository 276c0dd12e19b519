"""HTTP2Server with other people's clients, over sockets."""

import asyncio
import hashlib
import json
import logging
import re
import ssl
import subprocess
import sys

import h2.config
import h2.connection
import h2.events
import pytest
from loops import DEADLINE, in_loop, until
from peers import run

from nghttp2py.server import BaseRequestHandler, HTTP2Server

PAGE = b"<!doctype html><title>page</title>"
STYLE = b"body { margin: 0 }"


class Site(BaseRequestHandler):
    """A page that pushes its style, an upload's hash, a slow answer, trailers."""

    def on_headers(self):
        self.hash = hashlib.sha256()
        self.size = 0
        if self.path == b"/":
            self.push(
                "/style.css", headers={"content-type": "text/css"}, body=STYLE.decode()
            )
            self.send_response(200, {"content-type": "text/html"}, PAGE)
        elif self.path == b"/early":
            self.send_informational(103, {"link": "</style.css>; rel=preload"})
            self.send_response(200, None, self.pieces())
        elif self.path == b"/trailers":
            self.send_response(200, None, b"body", trailers={"checksum": "1"})
        elif self.path == b"/refused":
            self.send_response(413, None, b"too large")
        elif self.path == b"/certificate":
            self.send_response(200, None, json.dumps(self.client_certificate))

    async def pieces(self):
        for i in range(5):
            await asyncio.sleep(0)
            yield b"piece %d\n" % i

    def on_data(self, data):
        self.hash.update(data)
        self.size += len(data)

    def on_request_done(self):
        if self.path == b"/upload":
            self.send_response(200, None, f"{self.size} {self.hash.hexdigest()}")
        elif self.status is None:
            self.send_response(404, None, self.method + b" " + self.path)


class Running:
    """A server of ``Site`` on a free port, and the URL to reach it."""

    def __init__(self, tls):
        self.tls = tls
        context = tls and tls.server
        self.server = HTTP2Server(("127.0.0.1", 0), Site, ssl=context)

    async def __aenter__(self):
        await self.server.start()
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc_info):
        self.server.close()
        await self.server.wait_closed()

    async def curl(self, path, *arguments):
        if self.tls:
            how = ["--http2", "--cacert", self.tls.authority]
        else:
            how = ["--http2-prior-knowledge"]
        return await run("curl", "-sS", *how, *arguments, self.url + path)


@pytest.fixture(params=["cleartext", "tls"])
def site(request):
    """A ``Running`` server, not yet entered."""
    return Running(request.getfixturevalue("tls") if request.param == "tls" else None)


@pytest.fixture
def upload(tmp_path):
    """A file to upload, and what ``Site`` says of it."""
    data = bytes(range(256)) * 4000
    path = tmp_path / "upload"
    path.write_bytes(data)
    return str(path), f"{len(data)} {hashlib.sha256(data).hexdigest()}"


# ---- curl ----


@in_loop
async def test_curl_gets_a_page(site):
    async with site:
        answer = await site.curl("/", "-w", "%{http_version} %{http_code}")
    assert answer == PAGE.decode() + "2 200"


@in_loop
async def test_curl_gets_an_answer_before_its_upload_ends(site, tmp_path):
    """curl 7.88 loses it if RST_STREAM comes with it."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    async with site:
        for _ in range(5):
            answer = await site.curl("/refused", "-T", str(path), "-w", "%{http_code}")
            assert answer == "too large413"


@in_loop
async def test_curl_uploads_a_file(site, upload):
    path, expected = upload
    async with site:
        assert await site.curl("/upload", "--data-binary", "@" + path) == expected


@in_loop
async def test_curl_asks_for_the_headers_only(site):
    async with site:
        answer = await site.curl("/", "--head")
        assert answer.startswith("HTTP/2 200") and "text/html" in answer
        answer = await site.curl("/nothing", "--head")
        assert answer.startswith("HTTP/2 404")


@in_loop
async def test_curl_sees_early_hints_and_trailers(site):
    async with site:
        answer = await site.curl("/early", "-i")
        assert answer.startswith("HTTP/2 103")
        assert answer.endswith("".join(f"piece {i}\n" for i in range(5)))
        answer = await site.curl("/trailers", "-i")
        assert answer.endswith("bodychecksum: 1\r\n")


@in_loop
async def test_curl_makes_many_requests_at_once(tls):
    # Over TLS only: in the clear, curl 7.88 fails with every server.
    async with Running(tls) as site:
        answer = await site.curl("/[1-50]", "--parallel")
    assert sorted(re.findall(r"/(\d+)", answer)) == sorted(map(str, range(1, 51)))


@in_loop
async def test_curl_shows_its_certificate(tls, certificates, tmp_path):
    """A handler sees what the TLS layer has verified."""
    tls.server.verify_mode = ssl.CERT_OPTIONAL
    pem = tmp_path / "client.pem"
    certificates[2].private_key_and_cert_chain_pem.write_to_path(str(pem))
    async with Running(tls) as site:
        shown = json.loads(await site.curl("/certificate", "--cert", str(pem)))
        assert ["email", "client@example.org"] in shown["subjectAltName"]
        assert json.loads(await site.curl("/certificate")) is None


@in_loop
async def test_a_client_without_h2_in_alpn_is_closed(tls, caplog):
    caplog.set_level(logging.INFO, "nghttp2py")
    tls.client.set_alpn_protocols(["http/1.1"])
    async with Running(tls) as site:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.port, ssl=tls.client
        )
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert "not h2" in caplog.text


@in_loop
async def test_curl_over_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    async with HTTP2Server(path, Site):
        answer = await run(
            "curl",
            "-sS",
            "--http2-prior-knowledge",
            "--unix-socket",
            str(path),
            "http://test/",
        )
    assert answer == PAGE.decode()


# ---- nghttp and h2load ----


@in_loop
async def test_nghttp_is_pushed_the_style(site):
    async with site:
        answer = await run("nghttp", "-v", "--no-verify-peer", site.url + "/")
    assert "recv PUSH_PROMISE frame" in answer
    assert ":path: /style.css" in answer
    assert PAGE.decode() in answer and STYLE.decode() in answer
    assert answer.count(":status: 200") == 2


@in_loop
async def test_nghttp_uploads_a_file(site, upload):
    path, expected = upload
    async with site:
        answer = await run(
            "nghttp", "--no-verify-peer", "-d", path, site.url + "/upload"
        )
    assert answer == expected


@in_loop
async def test_nghttp_stops_an_upload_that_is_refused(site, upload):
    async with site:
        answer = await run(
            "nghttp", "-v", "--no-verify-peer", "-d", upload[0], site.url + "/refused"
        )
    assert ":status: 413" in answer and "too large" in answer
    assert re.search(r"recv RST_STREAM.*\n.*NO_ERROR", answer)


@in_loop
async def test_nghttp_sends_trailers(site, upload):
    path, expected = upload
    async with site:
        answer = await run(
            "nghttp",
            "--no-verify-peer",
            "-d",
            path,
            "--trailer=checksum: 1",
            site.url + "/upload",
        )
    assert answer == expected


@in_loop
async def test_h2load_gets_a_thousand_answers_on_ten_connections(site):
    async with site:
        answer = await run(
            "h2load", "-n", "1000", "-c", "10", "-m", "100", site.url + "/"
        )
    assert "1000 done, 1000 succeeded, 0 failed, 0 errored" in answer


@in_loop
async def test_h2load_uploads(site, upload):
    async with site:
        answer = await run(
            "h2load", "-n50", "-c5", "-m10", "-d", upload[0], site.url + "/upload"
        )
    assert "50 done, 50 succeeded, 0 failed, 0 errored" in answer


# ---- h2 on asyncio ----


class H2Client(asyncio.Protocol):
    """A client of hyper-h2: one upload, told apart by streams."""

    def __init__(self):
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        self.answers = {}
        self.ended = set()
        self.rest = {}

    def connection_made(self, transport):
        self.transport = transport
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.ENABLE_PUSH: 0})
        self.flush()

    def flush(self):
        for stream_id, rest in list(self.rest.items()):
            while rest:
                n = min(
                    len(rest),
                    self.h2.local_flow_control_window(stream_id),
                    self.h2.max_outbound_frame_size,
                )
                if n == 0:
                    break
                self.h2.send_data(stream_id, rest[:n])
                rest = self.rest[stream_id] = rest[n:]
            if not rest:
                self.h2.end_stream(stream_id)
                del self.rest[stream_id]
        self.transport.write(self.h2.data_to_send())

    def request(self, method, path, body=None):
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream_id,
            [
                (b":method", method),
                (b":scheme", b"https"),
                (b":path", path),
                (b":authority", b"test"),
            ],
            end_stream=body is None,
        )
        if body is not None:
            self.rest[stream_id] = body
        self.answers[stream_id] = b""
        return stream_id

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.answers[event.stream_id] += event.data
                self.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
        self.flush()


@in_loop
async def test_h2_gets_pages_and_uploads(site, upload):
    path, expected = upload
    with open(path, "rb") as file:
        body = file.read()
    async with site:
        transport, client = await asyncio.get_running_loop().create_connection(
            H2Client, "127.0.0.1", site.port, ssl=site.tls and site.tls.client
        )
        page = client.request(b"GET", b"/")
        uploads = [client.request(b"POST", b"/upload", body) for _ in range(3)]
        client.flush()
        await until(lambda: client.ended >= {page, *uploads})
        assert client.answers[page] == PAGE
        assert {client.answers[s] for s in uploads} == {expected.encode()}
        transport.close()


# ---- Memory ----

LARGE = 64 << 20

BULK = """
import sys
from nghttp2py.server import BaseRequestHandler, HTTP2Server

class Bulk(BaseRequestHandler):
    size = 0

    def on_data(self, data):
        self.size += len(data)

    def on_request_done(self):
        if self.method == b"POST":
            self.send_response(200, None, str(self.size))
        else:
            piece = bytes(65536)
            count = int(self.path[1:]) // len(piece)
            self.send_response(200, None, (piece for _ in range(count)))

class Server(HTTP2Server):
    async def start(self):
        await super().start()
        print(self.sockets[0].getsockname()[1], flush=True)

Server(("127.0.0.1", 0), Bulk).serve_forever()
"""


def peak_memory(pid):
    """The most resident memory, in bytes, that a process ever had."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


async def bulk(transfer):
    """Run ``transfer(url)`` against a server; return by how much that grew."""
    with subprocess.Popen(
        [sys.executable, "-c", BULK], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            await run("curl", "-sS", "--http2-prior-knowledge", url + "/0")
            before = peak_memory(process.pid)
            await transfer(url)
            grown = peak_memory(process.pid) - before
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
    return grown


@in_loop
async def test_a_large_response_takes_little_memory():
    async def download(url):
        answer = await run(
            "curl",
            "-sS",
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            f"{url}/{LARGE}",
        )
        assert answer == str(LARGE)

    assert await bulk(download) < 8 << 20


@in_loop
async def test_a_large_upload_takes_little_memory(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE)

    async def upload(url):
        assert await run("nghttp", "-d", str(path), url + "/") == str(LARGE)

    assert await bulk(upload) < 8 << 20
