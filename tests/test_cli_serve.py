"""``nghttp2py serve``, with curl and nghttp as its clients."""

import hashlib
import logging
import random
import re
import signal
import socket
import subprocess
import sys

import pytest
from loops import DEADLINE
from peers import (
    certificate,
    free_port,
    nghttp2py,
    one_line,
    serving,
    serving_process,
)

from nghttp2py.access import Exchange
from nghttp2py.cli.serve_log import AccessFormatter
from nghttp2py.h2 import H2BodyReceived, H2Configuration, H2Connection, H2GoAway

DATA = random.Random(7).randbytes(3_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    (directory / "below").mkdir()
    (directory / "index.html").write_text("<p>index")
    (directory / "text.txt").write_text("0123456789")
    (directory / "data").write_bytes(DATA)
    (directory / "below" / "page.html").write_text("<p>page")
    (directory / "out").symlink_to("..")
    return directory


@pytest.fixture(scope="module")
def url(site):
    with serving(site, "--quiet", "--no-listing") as url:
        yield url


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    key, cert = directory / "key.pem", directory / "cert.pem"
    certificate().private_key_pem.write_to_path(key)
    certificate().cert_chain_pems[0].write_to_path(cert)
    return cert, key


def curl(url, *options):
    """Return status, header fields and body of a response."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--include", "--path-as-is"),
            *("--http2-prior-knowledge", "--insecure", *options, url),
        ],
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def test_curl_gets_a_file(url):
    status, headers, body = curl(f"{url}/text.txt")
    assert (status, body) == (200, b"0123456789")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == "10"
    assert headers["date"].endswith("GMT")


def test_curl_gets_a_range(url):
    status, headers, body = curl(f"{url}/data", "--range", "1000000-1999999")
    assert status == 206
    assert headers["content-range"] == "bytes 1000000-1999999/3000000"
    assert body == DATA[1_000_000:2_000_000]


def test_curl_resumes_a_download(url, tmp_path):
    part = tmp_path / "data"
    part.write_bytes(DATA[:1_234_567])
    subprocess.run(
        [
            *("curl", "--silent", "--http2-prior-knowledge"),
            *("--continue-at", "-", "--output", part, f"{url}/data"),
        ],
        timeout=DEADLINE,
        check=True,
    )
    assert part.read_bytes() == DATA


def test_curl_is_told_what_has_not_changed(url):
    _, headers, _ = curl(f"{url}/data", "--head")
    etag = headers["etag"]
    status, _, body = curl(f"{url}/data", "--header", f"if-none-match: {etag}")
    assert (status, body) == (304, b"")
    modified = f"if-modified-since: {headers['last-modified']}"
    assert curl(f"{url}/data", "--header", modified)[0] == 304


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/%2e%2e/secret", "/..%2f..%2fetc/passwd", "/out/secret", "/a%00b"],
)
def test_curl_gets_nothing_from_outside(site, url, path):
    (site.parent / "secret").write_text("secret")
    status, _, body = curl(url + path)
    assert (status, body) == (404, b"")


def test_a_directory_is_its_index(url):
    assert curl(f"{url}/")[2] == b"<p>index"
    status, headers, _ = curl(f"{url}/below")
    assert (status, headers["location"]) == (301, "/below/")
    assert curl(f"{url}/below/")[0] == 404


def test_directories_are_listed_by_default(site):
    with serving(site) as url:
        status, headers, body = curl(f"{url}/below/")
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        assert b'<a href="./page.html">page.html</a>' in body


def test_nghttp_gets_many_files_at_once(url):
    done = subprocess.run(
        ["nghttp", "-m", "20", "-v", f"{url}/data"],
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout.count(b":status: 200") == 20
    assert done.stdout.count(b"END_STREAM") >= 20


def test_https_is_served_with_a_certificate(site, certificates):
    cert, key = certificates
    with serving(site, "--cert", cert, "--key", key) as url:
        assert url.startswith("https://")
        status, _, body = curl(f"{url}/data")
        assert status == 200
        assert hashlib.sha256(body).digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("quiet", [False, True])
def test_requests_are_logged_unless_quiet(site, tmp_path, quiet):
    log = tmp_path / "log"
    with serving(site, *["--quiet"] * quiet, log=log) as url:
        curl(f"{url}/text.txt")
    assert ('"GET /text.txt HTTP/2" 200 10' in log.read_text()) is not quiet


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing"], "does not exist"),
        (["."], "cannot listen"),
        ([".", "--key={key}"], "--key needs --cert"),
        ([".", "--no-tls", "--cert={text}"], "exclude each other"),
        ([".", "--no-tls", "--http3"], "--http3 needs TLS"),
        ([".", "--no-tls", "--auth=me"], "USER:PASSWORD"),
        ([".", "--cert={text}"], "no certificate"),
        ([".", "--host=256.0.0.1"], "cannot listen"),
        ([".", "--port=65536"], "port"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(
    tmp_path, certificates, arguments, sentence
):
    text = tmp_path / "text"
    text.write_text("no certificate")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nghttp2py(
            "serve",
            f"--port={port}",
            *(a.format(key=certificates[1], text=text) for a in arguments),
            cwd=tmp_path,
        )
    assert done.returncode != 0
    assert sentence in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode().splitlines()[-1].startswith("Error: ")


def test_the_port_printed_is_the_one_asked_for(site):
    port = free_port()
    with serving(site, f"--port={port}") as url:
        assert url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("secure", [False, True])
def test_all_of_ipv6_is_ipv4_too(site, certificates, secure):
    options = ["--cert", certificates[0], "--key", certificates[1]] if secure else []
    with serving(site, "--host=::", *options) as url:
        port = url.rpartition(":")[2]
        scheme = "https" if secure else "http"
        for host in "127.0.0.1", "[::1]":
            assert curl(f"{scheme}://{host}:{port}/text.txt")[2] == b"0123456789"


def test_http3_is_served_where_http2_is(site, certificates):
    cert, key = certificates
    with serving(site, "--host=::", "--cert", cert, "--key", key, "--http3") as url:
        port = url.rpartition(":")[2]
        for host in "127.0.0.1", "[::1]":
            done = nghttp2py(
                "get", "--http3-only", "-k", f"https://{host}:{port}/text.txt"
            )
            assert done.stdout == b"0123456789", done.stderr
            assert curl(f"https://{host}:{port}/text.txt")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(site, tmp_path, number):
    log = tmp_path / "log"
    connection = H2Connection(
        client_side=True, config=H2Configuration(initial_window_size=10)
    )
    connection.initiate_connection()
    connection.send_request("GET", "/data", (), authority=b"test", scheme=b"http")
    with serving_process(site, "--quiet", log=log) as (process, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.settimeout(DEADLINE)
            wait_for_event(connection, client, H2BodyReceived)
            process.send_signal(number)
            wait_for_event(connection, client, H2GoAway)
            process.send_signal(number)
            # A graceful close takes as long as its streams, up to 10 s.
            assert process.wait(9) == 0
    assert "waiting up to 10 seconds for 1 connections" in log.read_text()
    assert "stopping at once" in log.read_text()
    assert "Traceback" not in log.read_text()


def wait_for_event(connection, client, kind):
    """Carry bytes until an event of a kind comes."""
    events = []
    while not any(isinstance(event, kind) for event in events):
        client.sendall(connection.data_to_send())
        data = client.recv(65536)
        assert data, "the server has gone"
        events = connection.receive_data(data)


def test_a_port_in_use_is_said_once(site):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(nghttp2py("serve", site, f"--port={port}"))
    assert line == (
        f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use"
    )


# ---- Without options ----


def test_without_options_a_certificate_is_made_and_three_versions_are_served(
    site, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    authority = tmp_path / "nghttp2py" / "localhost.pem"
    lines = []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "nghttp2py", "serve", "--port=0"],
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            url = lines[0].split()[2]
            trusting = ["curl", "--silent", "--fail", "--cacert", authority]
            for version, shown in (("--http1.1", "1.1"), ("--http2", "2")):
                done = subprocess.run(
                    [*trusting, version, "--write-out", "%{http_version}", url],
                    capture_output=True,
                    timeout=DEADLINE,
                    check=True,
                )
                assert done.stdout.decode() == f"<p>index{shown}"
            done = nghttp2py("get", "--http3-only", "--cacert", authority, url)
            assert done.stdout == b"<p>index", done.stderr
        finally:
            process.terminate()
    assert process.returncode == 0
    assert "HTTP/1.1, HTTP/2 and HTTP/3" in lines[1] and "localhost.pem" in lines[1]
    assert "--ignore-certificate-errors-spki-list=" in lines[2]


def test_urls_and_a_code_lead_to_a_server_on_all_interfaces(site):
    with serving_process(site, "--host=0.0.0.0", "--qr") as (process, url):
        assert url.startswith("http://localhost:")
        port = url.rpartition(":")[2]
        others = []
        while "\u2588" not in (line := process.stdout.readline()):
            others += re.findall(r"http://(\S+):" + port, line)
        assert curl(f"http://localhost:{port}/text.txt")[0] == 200
        for host in others:
            assert curl(f"http://{host}:{port}/text.txt")[0] == 200


def test_options_that_can_do_nothing_are_warned_of(tmp_path):
    """Without index.html, and with a QR code of an address of loopback."""
    log = tmp_path / "log"
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving_process(empty, "--spa", "--qr", log=log) as (process, _):
        assert any("\u2588" in line for line in process.stdout)
    first, second = log.read_text().splitlines()
    assert first.startswith(f"Warning: there is no index.html in {empty}")
    assert second.startswith("Warning: --qr") and "--host 0.0.0.0" in second


def test_a_line_of_the_log_on_a_terminal_is_short_and_in_color():
    exchange = Exchange(
        *("HTTP/3", ("192.0.2.1", 5), b"GET", b"/a\x1b", 404, 2500, 0.0021, 0, True)
    )
    record = logging.makeLogRecord(exchange._asdict())
    line = AccessFormatter().format(record)
    plain = re.sub(r"\x1b\[\d+m", "", line)
    assert plain.endswith("404 HTTP/3   GET /a\\x1b 2.5 kB, 2.1 ms, 192.0.2.1")
    assert "\x1b[33m404\x1b[0m" in line
    other = logging.LogRecord("x", logging.INFO, "", 0, "a %s", ("line",), None)
    assert AccessFormatter().format(other) == "a line"


def test_the_password_can_come_from_the_environment(site, monkeypatch):
    monkeypatch.setenv("NGHTTP2PY_SERVE_AUTH", "me:secret")
    with serving(site) as url:
        assert curl(f"{url}/text.txt")[0] == 401
        assert curl(f"{url}/text.txt", "--user", "me:secret")[2] == b"0123456789"


def test_curl_uploads_a_file(site, tmp_path):
    (tmp_path / "new").write_bytes(DATA)
    with serving(site, "--upload", "--max-upload=3") as url:
        sent = ("--upload-file", tmp_path / "new")
        assert curl(f"{url}/below/new", *sent)[0] == 201
        assert (site / "below" / "new").read_bytes() == DATA
        (tmp_path / "new").write_bytes(DATA + DATA)
        assert curl(f"{url}/below/newer", *sent)[0] == 413
