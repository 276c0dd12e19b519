"""The recipes of the cookbook for proxies, other loops, captures and tests."""

import asyncio
import contextlib
import json
import re
import runpy
import subprocess
import sys

import pytest
from loops import DEADLINE, in_loop
from peers import free_port, run
from recipes import EXAMPLES, Page

from nghttp2py import HTTP2Server
from nghttp2py.asyncio import Client, Server
from nghttp2py.h2 import H2Connection
from nghttp2py.local_certificate import local_certificate
from nghttp2py.quic import QuicConfiguration

VERSIONS = {
    "HTTP/1.1": ["--http1.1"],
    "HTTP/2": ["--http2-prior-knowledge"],
}


@contextlib.contextmanager
def started(name, *arguments, stderr=None):
    """Run an example until the end of the block; gives the line that it prints."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            line = process.stdout.readline().strip()
            assert line, "it has ended"
            yield line, process
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


# ---- The reverse proxy ----


class Behind:
    """The server behind the proxy."""

    def __init__(self):
        self.requests = []
        self.breaks = asyncio.Event()

    async def __call__(self, stream):
        body = await stream.read()
        self.requests.append((stream.http.version, stream.request, body))
        if stream.request.target == b"/breaks":
            await stream.start_response({":status": "200"})
            await stream.send_data(b"part")
            await self.breaks.wait()
            stream.reset()
            return
        headers = {"x-own": "kept", "set-cookie": "a=b"}
        await stream.send_response(203, headers, b"behind: " + body)


@pytest.mark.parametrize("front", VERSIONS)
@pytest.mark.parametrize("behind", VERSIONS)
@in_loop
async def test_a_request_and_its_response_pass_the_proxy(front, behind):
    app = Behind()
    options = ["--http2"] if behind == "HTTP/2" else []
    async with Server(app, ("127.0.0.1", 0)) as server:
        port = server.sockets[0].getsockname()[1]
        with started(
            "reverse_proxy.py", "--port=0", *options, f"http://127.0.0.1:{port}"
        ) as (url, _):
            answer = await run(
                *("curl", "-sSi", *VERSIONS[front], "-d", "text"),
                *("-H", "connection: x-hop", "-H", "x-hop: 1", f"{url}path?a=%41"),
            )
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith(f"{front.removesuffix('.0')} 203")
    assert "x-own: kept" in head and "set-cookie: a=b" in head
    assert body == "behind: text"
    ((version, request, received),) = app.requests
    assert (version, request.method, received) == (behind, b"POST", b"text")
    assert request.target == b"/path?a=%41"
    fields = dict(request.headers)
    assert fields[b"x-forwarded-for"] == b"127.0.0.1"
    assert fields[b"host"] in url.encode()
    if front == "HTTP/1.1":  # curl itself drops "connection" over HTTP/2
        assert b"x-hop" not in fields
    assert b"accept-encoding" not in fields


@in_loop
async def test_the_proxy_tells_that_there_is_no_server_behind_it():
    with started("reverse_proxy.py", "--port=0", f"http://127.0.0.1:{free_port()}") as (
        url,
        _,
    ):
        assert " 502 " in await run("curl", "-sSi", url)


@pytest.mark.parametrize("front", VERSIONS)
@in_loop
async def test_a_response_that_breaks_off_behind_the_proxy_is_not_whole(front):
    app = Behind()
    async with Server(app, ("127.0.0.1", 0)) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with started("reverse_proxy.py", "--port=0", "--http2", origin) as (url, _):
            client = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "--no-buffer", *VERSIONS[front], f"{url}breaks"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert await client.stdout.readexactly(4) == b"part"
            app.breaks.set()
            assert await client.stdout.read() == b""
            assert await client.wait() != 0


@in_loop
async def test_the_proxy_takes_http3(tmp_path):
    made = local_certificate(directory=tmp_path)
    async with Server(Behind(), ("127.0.0.1", 0)) as server:
        port = server.sockets[0].getsockname()[1]
        with started(
            *("reverse_proxy.py", "--port=0", "--tls", made.certificate, made.key),
            f"http://127.0.0.1:{port}",
        ) as (url, _):
            trusted = QuicConfiguration(cafile=str(made.certificate))
            async with Client(url.rstrip("/"), http3=trusted) as client:
                response = await client.put("/", b"text")
                assert (response.status, response.http_version) == (203, "HTTP/3")
                assert await response.read() == b"behind: text"


@in_loop
async def test_the_api_behind_the_proxy_answers_as_the_page_shows(tmp_path):
    example = runpy.run_path(str(EXAMPLES / "json_api.py"))
    async with HTTP2Server(("127.0.0.1", 0), example["Handler"]) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with started("reverse_proxy.py", "--port=0", "--http2", origin) as (url, _):
            answer = await run(
                "curl", "-sS", "-d", '{"text": "buy milk"}', f"{url}notes"
            )
    assert answer == Page("cookbook/proxy", tmp_path).find("curl -d")[1]


# ---- trio ----


def test_the_server_on_trio_answers_as_the_page_shows(tmp_path):
    page = Page("cookbook/trio", tmp_path)
    with page.serving("python examples/trio_server.py", page.port):
        page.run("curl")


def test_a_server_on_trio_answers_many_requests_at_once():
    with started("trio_server.py", "0") as (url, _):

        async def ask():
            async with Client(url.rstrip("/")) as client:
                responses = await asyncio.gather(
                    *(client.post(f"/{i}", b"x" * i) for i in range(100))
                )
                return [await response.read() for response in responses]

        found = asyncio.run(ask())
        assert found == [b"POST /%d: %d bytes\n" % (i, i) for i in range(100)]


def test_the_programs_with_blocking_sockets_run_as_on_the_page(tmp_path):
    page = Page("cookbook/trio", tmp_path)
    command, _ = page.find("python examples/sansio_server.py")
    server = subprocess.Popen(
        ["sh", "-c", f"exec {page.moved(command)}"],
        cwd=tmp_path,
        env=page.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stdout.readline() == f"http://127.0.0.1:{page.port}/\n"
            answers = page.run("python examples/sansio_client.py")
        finally:
            server.kill()
    assert "GET /one, 0 bytes" in answers and "GET /two, 0 bytes" in answers


# ---- A capture ----


def exchange():
    """What a client and a server send in two exchanges."""
    client, server = H2Connection(client_side=True), H2Connection()
    client.initiate_connection()
    server.initiate_connection()
    pieces = []
    for _ in range(2):
        stream = client.send_request(
            "GET", "/", [("x-a", "b")], authority=b"test", end_stream=True
        )
        pieces.append(("client", data := client.data_to_send()))
        server.receive_data(data)
        server.send_response_headers(stream, 200, [("x-c", "d" * 99)], end_stream=True)
        pieces.append(("server", data := server.data_to_send()))
        client.receive_data(data)
    return pieces


def test_both_directions_of_a_capture_are_decoded(tmp_path):
    lines = ["Follow: tcp,raw"]
    for end, data in exchange():
        # Any cut of the bytes is possible.
        tab = "\t" if end == "server" else ""
        lines += [tab + data[:30].hex(), tab + data[30:].hex()]
    text = decode_text("\n".join(lines))
    page = Page("cookbook/capture", tmp_path).find("tshark -r capture.pcap -q")[1]
    assert set(page.splitlines()) <= {line.strip() for line in text.splitlines()}
    blocks = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    names = [block.partition("\n")[0] for block in blocks]
    assert names == [
        f"{end}, stream {number}" for number in (1, 3) for end in ("client", "server")
    ]
    for block in blocks[::2]:
        assert "b':authority': b'test'" in block and "b'x-a': b'b'" in block
    for block in blocks[1::2]:
        assert "b':status': b'200'" in block and f"b'x-c': b'{'d' * 99}'" in block


def test_a_capture_that_begins_in_the_middle_is_told_of():
    (_, first), (_, answer), (_, second), _ = exchange()
    assert first and answer
    # SETTINGS of the server, with a table of 8,192 bytes.
    settings = b"\x00\x00\x06\x04" + bytes(5) + b"\x00\x01\x00\x00\x20\x00"
    text = decode_text(f"{second.hex()}\n\t{settings.hex()}")
    assert "not decoded: " in text


def decode_text(text):
    return subprocess.run(
        [sys.executable, EXAMPLES / "decode_capture.py"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    ).stdout


# ---- Tests in memory ----


def test_the_tests_of_the_json_api_pass():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--rootdir={EXAMPLES}", "-c", "/dev/null"),
            EXAMPLES / "test_json_api.py",
        ],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


# ---- Observability ----


@in_loop
async def test_requests_are_records_and_are_counted():
    with started_observed() as (url, process):
        assert await run("curl", "-sS", f"{url}a?b") == "Hello\n"
        status = json.loads(await run("curl", "-sS", f"{url}status"))
        process.terminate()
        lines = process.stdout.read().splitlines()
        errors = process.stderr.read()
    assert status["requests"] == 1
    assert status["statuses"] == {"200": 1} and status["bytes"] == 6
    record = json.loads(lines[0])
    assert (record["method"], record["path"]) == ("GET", "/a")
    assert (record["status"], record["bytes"]) == (200, 6)
    assert (record["protocol"], record["client"]) == ("HTTP/1.1", "127.0.0.1")
    assert record["user_agent"].startswith("curl/") and record["seconds"] >= 0
    assert "listening on 127.0.0.1:" in errors


@contextlib.contextmanager
def started_observed(*options):
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "observed.py", *options, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = iter(process.stderr.readline, "")
            yield next(line for line in lines if line[:4] == "http").strip(), process
        finally:
            process.kill()


@in_loop
async def test_the_frames_of_a_server_are_shown():
    with started_observed("--frames") as (url, process):
        await run("curl", "-sS", *VERSIONS["HTTP/2"], "-H", "cookie: secret", url)
        process.terminate()
        errors = process.stderr.read()
    assert re.search(r"recv HEADERS stream 1, .*:method GET; .*cookie \(6 ch", errors)
    assert re.search(r"send HEADERS stream 1, .*:status 200", errors)
    assert "secret" not in errors
