"""``get --http3`` and ``serve --http3``: with one another, gtlsclient and gtlsserver,
aioquic's client and server, and curl."""

import asyncio
import contextlib
import functools
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys

import pytest
from aioquic.asyncio.client import connect as aioquic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol as AioquicProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.connection import H3Connection as AioquicH3
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration as AioquicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from get_site import get as run_get
from loops import DEADLINE, in_loop, until
from peers import (
    assert_shown,
    authority,
    certificate,
    free_port,
    hang_up,
    nghttp2py,
    one_line,
    program,
    serving,
    serving_process,
)

from nghttp2py.asyncio import H3Protocol, serve
from nghttp2py.asyncio.pump import CLOSE_TIMEOUT
from nghttp2py.cli import http3_client
from nghttp2py.quic import QuicConfiguration

LARGE = random.Random(11).randbytes(64 << 20)
LARGE_DIGEST = hashlib.sha256(LARGE).digest()
SMALL = LARGE[:1_000_000]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A certificate, its key, another's, the authority, and a site."""
    directory = tmp_path_factory.mktemp("http3")
    authority().cert_pem.write_to_path(directory / "ca.pem")
    other = authority().issue_cert("other.example")
    for name, issued in (("cert", certificate()), ("other", other)):
        issued.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
    site = directory / "site"
    (site / "below").mkdir(parents=True)
    (site / "index.html").write_text("<p>index")
    (site / "below" / "page.html").write_text("<p>page")
    (site / "text.txt").write_text("0123456789")
    (site / "data").write_bytes(SMALL)
    (site / "large").write_bytes(LARGE)
    return directory


@pytest.fixture(scope="module")
def serve3(directory):
    """Runs ``serve --http3`` with more options, on the site."""

    def run(*options, cert="cert", start=serving, **more):
        return start(
            directory / "site",
            *("--http3", "--cert", directory / f"{cert}.pem", *options),
            **more,
        )

    return run


@pytest.fixture(scope="module")
def url(serve3):
    with serve3("--quiet", "--no-listing") as url:
        yield url


@pytest.fixture
def get(directory):
    """Runs ``get --http3-only``."""
    return functools.partial(run_get, "--http3-only", "--cacert", directory / "ca.pem")


def getting(directory, *arguments):
    """The command line of ``get --http3-only``."""
    command = [sys.executable, "-m", "nghttp2py", "get", "--http3-only"]
    return [*command, "--cacert", str(directory / "ca.pem"), *map(str, arguments)]


def peak(pid):
    """The most memory that a process has had, in KiB."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))


# ---- get from our serve ----


def test_get_and_serve_understand_each_other(get, url):
    done = get("-i", f"{url}/text.txt")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert (done.returncode, done.stderr, body) == (0, b"", b"0123456789")
    assert head.startswith(b"HTTP/3 200 \r\n")
    for field in (
        b"content-type: text/plain; charset=utf-8",
        b"content-length: 10",
        b"accept-ranges: bytes",
        b"date: ",
    ):
        assert field in head


def test_64_mib_go_to_a_file_byte_for_byte(get, url, tmp_path):
    done = get("-o", tmp_path / "out", f"{url}/large")
    assert (done.returncode, done.stdout) == (0, b"")
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == LARGE_DIGEST


def test_parts_and_conditions_are_those_of_http2(get, url):
    part = get("-i", "-H", "range: bytes=500000-699999", f"{url}/data")
    head, _, body = part.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/3 206 \r\n")
    assert b"content-range: bytes 500000-699999/1000000" in head
    assert body == SMALL[500_000:700_000]
    etag = re.search(rb"etag: (.*)", head).group(1).decode()
    unchanged = get("-i", "-H", f"if-none-match: {etag}", f"{url}/data")
    assert unchanged.stdout.startswith(b"HTTP/3 304 \r\n")
    beyond = get("-i", "-r", "2000000-", f"{url}/data")
    assert beyond.stdout.startswith(b"HTTP/3 416 \r\n")
    assert beyond.returncode == 0
    assert get("-I", f"{url}/data").stdout.endswith(b"content-length: 1000000\r\n\r\n")


def test_directories_and_what_is_not_there(get, url):
    assert get(f"{url}/").stdout == b"<p>index"
    assert b"location: /below/" in get("-i", f"{url}/below").stdout
    missing = one_line(get("-f", f"{url}/below/"), 22)
    assert missing == "Error: the server answered 404 Not Found"
    assert "404" in one_line(get("-f", f"{url}/%2e%2e/cert.pem"), 22)


def test_a_missing_file_leaves_no_output(get, url, tmp_path):
    done = get("-f", "-o", tmp_path / "out", f"{url}/missing")
    assert one_line(done, 22) == "Error: the server answered 404 Not Found"
    assert not (tmp_path / "out").exists()


def test_an_upload_is_refused_before_it_has_come_whole(get, url, directory):
    upload = f"@{directory / 'site' / 'large'}"
    done = get("-i", "--data-binary", upload, f"{url}/text.txt")
    assert done.stdout.startswith(b"HTTP/3 405 \r\n")
    assert b"allow: GET, HEAD" in done.stdout


def test_many_requests_are_answered_at_once(get, url):
    done = get("-n", "3000", f"{url}/text.txt")
    assert (done.returncode, done.stdout) == (0, b"")
    assert "3000 of 3000 responses, 30000 bytes" in done.stderr.decode()


def test_verbose_prints_the_frames_of_both_sides(get, url):
    done = get("--frames", "-H", "X-Own: value", f"{url}/text.txt")
    assert done.stdout == b"0123456789"
    assert_shown(
        done,
        r"send SETTINGS\n +QPACK_MAX_TABLE_CAPACITY: \d+",
        r"recv SETTINGS\n +QPACK_MAX_TABLE_CAPACITY: \d+",
        r"send HEADERS stream 0, \d+ bytes",
        r"  :path: /text.txt",
        r"  x-own: value",
        r"recv HEADERS stream 0, \d+ bytes",
        r"  :status: 200",
        r"recv DATA stream 0, 10 bytes",
    )


def test_timing_prints_when_what_came(get, url):
    table = get("--timing", f"{url}/text.txt").stderr.decode()
    assert "response" in table and " ms" in table and "200" in table


# ---- get: what goes wrong ----


def test_a_certificate_that_is_not_trusted_is_one_clear_line(url):
    for option in ("--http3", "--http3-only"):
        done = run_get(option, f"{url}/")
        assert "is not trusted: The certificate is NOT trusted." in one_line(done, 60)
    assert run_get("--http3", "-k", f"{url}/text.txt").stdout == b"0123456789"


def test_a_certificate_for_another_name_is_one_clear_line(get, serve3):
    with serve3(cert="other") as url:
        assert "The name in the certificate does not match" in one_line(get(url), 60)


def test_a_server_that_does_not_answer_is_one_clear_line(get):
    with socket.socket(type=socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        # All wait for one connection, and not one after the other.
        done = get("-n", "100", "--timeout", "0.3", f"https://127.0.0.1:{port}/")
    assert one_line(done, 28) == (
        f"Error: 127.0.0.1:{port} does not answer over UDP, which HTTP/3 needs, "
        "in 0.3 seconds"
    )


def test_no_server_is_one_clear_line(get):
    port = free_port(socket.SOCK_DGRAM)
    done = get("-n", "100", f"https://127.0.0.1:{port}/")
    assert one_line(done, 7) == (
        f"Error: 127.0.0.1:{port} refuses connections over UDP, which HTTP/3 needs"
    )


@pytest.mark.aioquic17
@in_loop
async def test_a_quic_server_of_something_else_is_one_clear_line(get, directory):
    configuration = aioquic_configuration(directory, alpn_protocols=["other"])
    async with aioquic_server(configuration) as port:
        done = await asyncio.to_thread(get, f"https://127.0.0.1:{port}/")
    assert "does not speak HTTP/3" in one_line(done, 7)


def test_a_field_that_must_not_be_sent_is_one_clear_line(get, url):
    done = get("-H", "a b: c", f"{url}/text.txt")
    assert done.returncode == 2
    assert "'a b: c' must not be sent" in done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["https://name.invalid/"], 6, "no host"),
        (["--cacert={text}", "{url}"], 77, "a certificate cannot be read"),
        (["--cert={text}", "{url}"], 58, "a certificate cannot be read"),
        (["--cacert=none", "{url}"], 77, "cannot be read: No such file"),
    ],
)
def test_a_bad_option_is_one_clear_line(url, directory, options, code, sentence):
    text = directory / "site" / "text.txt"
    done = run_get("--http3", *(o.format(url=url, text=text) for o in options))
    assert sentence in one_line(done, code)


def test_a_system_that_trusts_nobody_is_not_a_bad_certificate(monkeypatch):
    text = "this system has no certificates that it trusts"

    def make_configuration(*_, **__):
        raise ValueError(text)

    monkeypatch.setattr(http3_client, "make_configuration", make_configuration)
    done = run_get("--http3", "https://127.0.0.1/")
    assert (done.returncode, done.errors) == (77, f"Error: {text}\n")


def test_http3_is_not_to_be_had_in_the_clear():
    done = run_get("--http3", "http://127.0.0.1/")
    assert done.returncode == 2
    assert "--http3 needs a URL that begins with https://" in done.stderr.decode()


# The command, in a build that has not these modules.
WITHOUT = """
import sys

class Finder:
    def find_spec(self, name, *_):
        if name in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
from nghttp2py.cli import main
main()
"""


@pytest.mark.parametrize("command", ["get", "serve"])
@pytest.mark.parametrize(
    "missing",
    [
        ("nghttp2py.quic.connection", "nghttp2py.asyncio.udp"),
        ("nghttp2py.h3.connection",),
    ],
    ids=["quic", "h3"],
)
def test_a_build_without_http3_says_what_is_missing(directory, missing, command):
    arguments = {
        "get": ["get", "--http3", "https://127.0.0.1/"],
        "serve": ["serve", "--http3", "--cert", directory / "cert.pem", directory],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing), *map(str, arguments)],
        capture_output=True,
        timeout=DEADLINE,
    )
    code = {"get": 4, "serve": 1}[command]
    assert "nghttp2py was built without" in one_line(done, code)


def test_a_reader_that_goes_ends_the_command_quietly(url):
    assert hang_up("get", "--http3", "-k", f"{url}/large") == b""


def measured(directory, *arguments):
    """The most memory that ``get --http3`` has, in KiB, and its output."""
    with subprocess.Popen(
        getting(directory, *arguments), stdout=subprocess.PIPE
    ) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss, output


# How much memory may grow, in KiB: windows and queues.  The file has 64 MiB.
GROWTH = 24 << 10


def test_memory_does_not_grow_with_a_download(serve3, directory, tmp_path):
    with serve3("--quiet", start=serving_process) as (process, url):
        found = []
        for name in ("data", "large"):
            used, _ = measured(directory, "-o", tmp_path / "out", f"{url}/{name}")
            found.append((used, peak(process.pid)))
    for before, after in zip(*found, strict=True):
        assert after - before < GROWTH, found


@contextlib.asynccontextmanager
async def our_server(directory, handler):
    """A server whose requests ``handler`` answers; its URL."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(directory / "cert.pem")
    server = await serve(
        "127.0.0.1",
        0,
        configuration=configuration,
        create_protocol=functools.partial(H3Protocol, request_handler=handler),
    )
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


@in_loop
async def test_memory_does_not_grow_with_an_upload(directory):
    """And all of it comes."""

    async def handler(stream):
        digest = hashlib.sha256()
        async for piece in stream:
            digest.update(piece)
        stream.send_headers([(b":status", b"200")])
        await stream.send_data(digest.hexdigest().encode(), end_stream=True)

    used = {}
    async with our_server(directory, handler) as url:
        for name in ("data", "large"):
            path = directory / "site" / name
            used[name], said = await asyncio.to_thread(
                measured, directory, "--data-binary", f"@{path}", url
            )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert said.decode() == digest
    assert used["large"] - used["data"] < GROWTH, used


@in_loop
async def test_what_a_server_that_goes_has_not_processed_is_sent_again(get, directory):
    """Each connection answers ten requests, and is then shut down."""
    connections = {}

    async def handler(stream):
        task, count = connections.get(stream.protocol, (None, 0))
        if task is None and count == 9:
            task = asyncio.create_task(stream.protocol.shutdown())
        connections[stream.protocol] = task, count + 1
        stream.send_headers([(b":status", b"200")], end_stream=True)

    async with our_server(directory, handler) as url:
        done = await asyncio.to_thread(get, "-n", "800", url)
        await asyncio.gather(*(task for task, _ in connections.values() if task))
    shown = done.stderr.decode()
    assert "800 of 800 responses" in shown, shown
    assert len(connections) > 1


def test_ctrl_c_ends_a_download_at_once(url, directory, tmp_path):
    with subprocess.Popen(
        getting(directory, f"{url}/large"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.read(100_000)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert said.strip() == b"Aborted!"


# ---- serve: other clients, and its life ----


def test_http2_advertises_http3_on_the_same_port(url, directory):
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [
            "curl",
            "-sSi",
            "--http2",
            "--cacert",
            directory / "ca.pem",
            f"{url}/text.txt",
        ],
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout.startswith(b"HTTP/2 200")
    assert f'alt-svc: h3=":{port}"\r\n'.encode() in done.stdout
    assert done.stdout.endswith(b"0123456789")


def test_without_http3_nothing_is_advertised(directory):
    cert = ("--cert", directory / "cert.pem")
    with serving(directory / "site", "--no-http3", *cert) as url:
        done = nghttp2py("get", "-i", "-k", f"{url}/text.txt")
    assert done.stdout.startswith(b"HTTP/2 200 \r\n")
    assert b"alt-svc" not in done.stdout


def test_gtlsclient_gets_files_by_hash(url, tmp_path):
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [
            *(program("gtlsclient"), "--exit-on-all-streams-close", "--quiet"),
            *(f"--download={tmp_path}", "127.0.0.1", port),
            *(f"{url}/{name}" for name in ("text.txt", "data", "large")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=3 * DEADLINE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "text.txt").read_bytes() == b"0123456789"
    assert (tmp_path / "data").read_bytes() == SMALL
    assert hashlib.sha256((tmp_path / "large").read_bytes()).digest() == LARGE_DIGEST


class AioquicClient(AioquicProtocol):
    """Sends requests; each ends with (headers, body)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = AioquicH3(self._quic)
        self.responses = {}

    async def request(self, url, path, method="GET", body=None, headers=()):
        stream_id = self._quic.get_next_available_stream_id()
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", url.partition("//")[2].encode()),
            (b":path", path.encode()),
            *headers,
        ]
        self.http.send_headers(stream_id, fields, end_stream=body is None)
        if body is not None:
            self.http.send_data(stream_id, body, end_stream=True)
        future = asyncio.get_running_loop().create_future()
        self.responses[stream_id] = (future, [], [])
        self.transmit()
        return await future

    def quic_event_received(self, event):
        for received in self.http.handle_event(event):
            if not isinstance(received, (HeadersReceived, DataReceived)):
                continue
            future, headers, pieces = self.responses[received.stream_id]
            if isinstance(received, HeadersReceived):
                headers += received.headers
            else:
                pieces.append(received.data)
            if received.stream_ended:
                future.set_result((dict(headers), b"".join(pieces)))


def aioquic_client(url, directory):
    host, port = url.partition("//")[2].split(":")
    configuration = AioquicConfiguration(
        alpn_protocols=H3_ALPN, cafile=str(directory / "ca.pem")
    )
    return aioquic_connect(
        host, int(port), configuration=configuration, create_protocol=AioquicClient
    )


@in_loop
async def test_aioquic_gets_files_at_once(url, directory):
    async with aioquic_client(url, directory) as client:
        found = await asyncio.gather(
            *(client.request(url, "/data") for _ in range(5)),
            client.request(url, "/data", headers=[(b"range", b"bytes=-5")]),
            client.request(url, "/text.txt", "DELETE"),
            client.request(url, "/missing"),
        )
    assert [body for _, body in found[:5]] == [SMALL] * 5
    assert [headers[b":status"] for headers, _ in found[5:]] == [
        *(b"206", b"405", b"404")
    ]
    assert found[5][1] == SMALL[-5:]


@in_loop
async def test_aioquic_gets_the_response_that_refuses_its_upload(url, directory):
    async with aioquic_client(url, directory) as client:
        found = await asyncio.gather(
            *(client.request(url, "/text.txt", "POST", 4 * SMALL) for _ in range(3))
        )
    assert [headers[b":status"] for headers, _ in found] == [b"405"] * 3


def test_gtlsclient_gets_the_response_that_refuses_its_upload(url, directory):
    done = subprocess.run(
        [
            *(program("gtlsclient"), "--exit-on-all-streams-close"),
            *("--http-method=POST", f"--data={directory / 'site' / 'large'}"),
            *("127.0.0.1", url.rpartition(":")[2], f"{url}/text.txt"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=3 * DEADLINE,
    )
    assert b":status: 405" in done.stderr, done.stderr[-2000:]
    assert done.returncode == 0


@pytest.mark.parametrize("http3", [False, True], ids=["HTTP/2", "HTTP/3"])
def test_a_file_that_becomes_shorter_is_not_taken_for_whole(directory, tmp_path, http3):
    (tmp_path / "file").write_bytes(b"")
    os.truncate(tmp_path / "file", len(LARGE))
    log = tmp_path / "log"
    cert = ("--cert", directory / "cert.pem")
    with serving(tmp_path, "--http3", *cert, log=log) as url:
        command = getting(directory, f"{url}/file")
        if not http3:
            command.remove("--http3-only")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.read(1)
            os.truncate(tmp_path / "file", 1_000_000)
            body, said = process.communicate(timeout=DEADLINE)
        # Other requests are answered as before.
        done = nghttp2py("get", "-k", f"{url}/file")
    assert process.returncode == 92
    assert len(body) < len(LARGE)
    assert b"was reset by the peer" in said
    assert done.stdout == bytes(1_000_000)
    assert "the file has become shorter" in log.read_text()


def test_requests_are_logged_as_those_of_http2_are(get, serve3, tmp_path):
    log = tmp_path / "log"
    with serve3(log=log) as url:
        get(f"{url}/text.txt")
        get("-d", "body", f"{url}/text.txt")
    text = log.read_text()
    assert re.search(r'127\.0\.0\.1 - - \[.+\] "GET /text.txt HTTP/3" 200 10\n', text)
    assert '"POST /text.txt HTTP/3" 405 -\n' in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@in_loop
async def test_a_signal_lets_downloads_finish(serve3, directory, tmp_path, number):
    out = tmp_path / "out"
    with serve3("--quiet", start=serving_process) as (process, url):
        with subprocess.Popen(getting(directory, "-o", out, f"{url}/large")) as client:
            await until(lambda: out.exists() and out.stat().st_size)
            process.send_signal(number)
            assert client.wait(DEADLINE) == 0
        assert process.wait(DEADLINE) == 0
    assert hashlib.sha256(out.read_bytes()).digest() == LARGE_DIGEST


@in_loop
async def test_a_signal_ends_an_idle_server_at_once(serve3, directory):
    with serve3("--quiet", start=serving_process) as (process, url):
        async with aioquic_client(url, directory) as client:
            await client.request(url, "/text.txt")
            process.send_signal(signal.SIGINT)
            await client.wait_closed()
            # Open streams would have twice as long.
            assert await asyncio.to_thread(process.wait, CLOSE_TIMEOUT / 2) == 0


@pytest.mark.parametrize(
    ("options", "sentence", "status"),
    [
        (["--http3", "--no-tls"], "--http3 needs TLS", 2),
        (["--http3", "--cert={text}"], "no certificate", 1),
        (["--http3", "--cert={cert}", "--host=256.0.0.1"], "cannot listen", 1),
        (["--http3", "--cert={cert}", "--port={taken}"], "cannot listen", 1),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(directory, options, sentence, status):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        names = {
            "text": directory / "site" / "text.txt",
            "cert": directory / "cert.pem",
            "taken": taken.getsockname()[1],
        }
        done = nghttp2py("serve", directory, *(o.format(**names) for o in options))
    assert done.returncode == status
    assert sentence in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode().splitlines()[-1].startswith("Error: ")


def test_a_taken_tcp_port_is_told_too(directory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = nghttp2py(
            *("serve", directory, "--http3", "--cert", directory / "cert.pem"),
            *("--port", port),
        )
    assert f"cannot listen on 127.0.0.1 port {port}" in one_line(done)


# ---- get from other servers ----


def test_get_from_gtlsserver(get, directory, tmp_path):
    port = free_port(socket.SOCK_DGRAM)
    with subprocess.Popen(
        [
            *(program("gtlsserver"), "--quiet", f"--htdocs={directory / 'site'}"),
            *("127.0.0.1", str(port), *[directory / "cert.pem"] * 2),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"https://127.0.0.1:{port}"
            # It may not listen yet.
            patience = ("--retry", "500", "--retry-delay", "0.02")
            done = get(*patience, "--retry-connrefused", "-s", f"{url}/text.txt")
            assert done.stdout == b"0123456789"
            done = get("-o", tmp_path / "out", f"{url}/large")
            assert done.returncode == 0, done.stderr
            assert (
                hashlib.sha256((tmp_path / "out").read_bytes()).digest() == LARGE_DIGEST
            )
            done = get("-n", "250", f"{url}/text.txt")
            assert "250 of 250 responses" in done.stderr.decode()
            assert "404" in one_line(get("-f", f"{url}/missing"), 22)
        finally:
            process.terminate()
            process.wait(DEADLINE)


class AioquicServer(AioquicProtocol):
    """Answers POST with what was posted, GET /N with N bytes, and all of it once."""

    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = AioquicH3(self._quic)
            self.requests = {}
        for received in self.http.handle_event(event) if self.http else ():
            if isinstance(received, HeadersReceived):
                self.requests[received.stream_id] = (dict(received.headers), [])
            elif isinstance(received, DataReceived):
                self.requests[received.stream_id][1].append(received.data)
            if getattr(received, "stream_ended", False):
                self.respond(received.stream_id)
        self.transmit()

    def respond(self, stream_id):
        headers, pieces = self.requests.pop(stream_id)
        body = b"".join(pieces)
        if headers[b":method"] == b"GET":
            body = LARGE[: int(headers[b":path"][1:])]
        self.http.send_headers(
            stream_id,
            [
                (b":status", b"200"),
                (b"x-method", headers[b":method"]),
                (b"x-length", headers.get(b"content-length", b"-")),
            ],
        )
        self.http.send_data(stream_id, body, end_stream=True)


def aioquic_configuration(directory, **fields):
    configuration = AioquicConfiguration(is_client=False, **fields)
    configuration.load_cert_chain(*[str(directory / "cert.pem")] * 2)
    return configuration


@contextlib.asynccontextmanager
async def aioquic_server(configuration):
    server = await aioquic_serve(
        "127.0.0.1", 0, configuration=configuration, create_protocol=AioquicServer
    )
    try:
        yield server._transport.get_extra_info("sockname")[1]
    finally:
        server.close()


@in_loop
async def test_get_from_aioquic_and_post_to_it(get, directory, tmp_path):
    (tmp_path / "body").write_bytes(SMALL)
    configuration = aioquic_configuration(directory, alpn_protocols=H3_ALPN)
    async with aioquic_server(configuration) as port:
        url = f"https://127.0.0.1:{port}"
        done = await asyncio.to_thread(get, f"{url}/3000000")
        assert done.stdout == LARGE[:3_000_000], done.stderr
        done = await asyncio.to_thread(
            get, "-i", "--data-binary", f"@{tmp_path / 'body'}", "-X", "PUT", f"{url}/"
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        assert body == SMALL, done.stderr
        assert b"x-method: PUT\r\n" in head
        assert b"x-length: 1000000" in head
        done = await asyncio.to_thread(
            get, "--data-binary", "@-", f"{url}/", input=b"piped" * 50_000
        )
        assert done.stdout == b"piped" * 50_000, done.stderr
