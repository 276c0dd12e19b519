"""``nghttp2py get`` and ``features``, as a new user would try them."""

import asyncio
import contextlib
import gc
import http.server
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import warnings

import pytest
from get_site import get
from loops import DEADLINE, in_loop
from peers import (
    assert_shown,
    authority,
    free_port,
    hang_up,
    nghttp2py,
    nghttpd,
    one_line,
    server_tls,
    serving,
)

from nghttp2py.cli.get.dialing import Dialer, Routes
from nghttp2py.cli.get.verbose import Log

DATA = random.Random(9).randbytes(1_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    (directory / "text.txt").write_text("hello\n")
    (directory / "data").write_bytes(DATA)
    return directory


@pytest.fixture(scope="module")
def url(site):
    with nghttpd(site, "--echo-upload") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def tls_port(site):
    with nghttpd(site, tls=True) as port:
        yield port


@pytest.fixture
def ca(tmp_path):
    path = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return path


def test_the_body_goes_to_standard_output(url):
    done = get(f"{url}/text.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_output_goes_to_a_file_byte_for_byte(url, tmp_path):
    done = nghttp2py("get", "-o", tmp_path / "out", f"{url}/data")
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out").read_bytes() == DATA


def on_terminal(*arguments):
    """Run the command with a terminal as its stderr; return what that shows."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nghttp2py", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal hangs up
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert process.wait(DEADLINE) == 0
    return shown.decode()


def test_a_terminal_shows_a_progress_bar(url, tmp_path):
    shown = on_terminal("get", "-o", tmp_path / "out", f"{url}/data")
    assert "out" in shown and "1.0/1.0 MB" in shown
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_terminal_shows_frames_in_colour(url):
    shown = on_terminal("get", "--frames", f"{url}/text.txt")
    assert "\x1b[35msend\x1b[0m" in shown
    assert "\x1b[36mrecv\x1b[0m" in shown


def body_on_terminal(*arguments):
    """Run the command with a terminal as its stdout; return code, output, errors."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nghttp2py", "get", *map(str, arguments)],
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal hangs up
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    _, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, shown, errors.decode()


def test_a_terminal_shows_text_but_no_binary_body(url, site):
    (site / "binary").write_bytes(b"\x7fELF\x1b[31m\0")
    assert body_on_terminal(f"{url}/text.txt") == (0, b"hello\r\n", "")
    code, shown, errors = body_on_terminal(f"{url}/binary")
    assert (code, shown) == (23, b"")
    assert errors.startswith("Error: the body is binary") and "-o FILE" in errors
    assert body_on_terminal("-o", "-", f"{url}/binary")[:2] == (
        0,
        b"\x7fELF\x1b[31m\0",
    )
    assert get(f"{url}/binary").stdout == b"\x7fELF\x1b[31m\0"


def test_include_prints_status_and_fields(url):
    done = get("--include", f"{url}/text.txt")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/2 200 \r\n")
    assert b"content-length: 6" in head
    assert body == b"hello\n"


def test_data_is_posted(url, tmp_path):
    (tmp_path / "body").write_bytes(DATA)
    for data, body in (("text", b"text"), (f"@{tmp_path / 'body'}", DATA)):
        done = get("--frames", "--data-binary", data, f"{url}/echo")
        assert done.stdout == body
        assert b":method: POST" in done.stderr
    done = get("-X", "PUT", "--frames", "-d", "@-", f"{url}/", input=b"piped")
    assert done.stdout == b"piped"
    assert b":method: PUT" in done.stderr


def test_verbose_prints_the_frames_of_both_sides(url):
    done = get("--frames", "-H", "X-Own: value", f"{url}/text.txt")
    assert done.stdout == b"hello\n"
    assert_shown(
        done,
        r"send SETTINGS, \d+ bytes",
        r"recv SETTINGS, 0 bytes ACK",
        r"send HEADERS stream 1, \d+ bytes END_STREAM END_HEADERS",
        r"  :path: /text.txt",
        r"  x-own: value",
        r"recv HEADERS stream 1, \d+ bytes END_HEADERS",
        r"  :status: 200",
        r"recv DATA stream 1, 6 bytes",
        r"send GOAWAY",
    )


def test_timing_prints_when_what_came(url):
    done = get("--timing", f"{url}/text.txt")
    assert done.stdout == b"hello\n"
    table = done.stderr.decode()
    assert "response" in table and " ms" in table and "200" in table


@pytest.mark.parametrize("count", [5, 200])
def test_many_requests_are_counted(url, count):
    done = get("-n", count, f"{url}/text.txt")
    assert (done.returncode, done.stdout) == (0, b"")
    told = done.stderr.decode()
    assert f"{count} of {count} responses, {6 * count} bytes" in told
    assert f"{count} with status 200" in told


def test_https_trusts_what_it_is_told_to(tls_port, ca):
    url = f"https://localhost:{tls_port}/text.txt"
    assert get("--cacert", ca, url).stdout == b"hello\n"
    assert get("-k", url).stdout == b"hello\n"


def test_a_certificate_that_is_not_trusted_is_one_clear_line(tls_port):
    done = get(f"https://localhost:{tls_port}/")
    assert "is not trusted" in one_line(done, 60)


def test_a_refused_connection_is_one_clear_line():
    port = free_port()
    done = get(f"http://127.0.0.1:{port}/")
    assert one_line(done, 7) == f"Error: 127.0.0.1:{port} refuses connections"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connection_to_a_proxy_names_the_proxy(scheme):
    proxy = f"127.0.0.1:{free_port()}"
    done = get("-x", f"http://{proxy}", f"{scheme}://127.0.0.1/")
    assert one_line(done, 7) == f"Error: the proxy {proxy} refuses connections"


def test_a_missing_file_is_one_clear_line(url, tmp_path):
    done = get("-f", "-o", tmp_path / "out", f"{url}/missing")
    assert one_line(done, 22) == "Error: the server answered 404 Not Found"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("ftp://example.org/", 1, "http"),
        ("http://", 3, "no host"),
        ("http://127.0.0.1:99999/", 3, "ort"),
        ("http://127.0.0.1/a b", 3, "spaces"),
        ("http://name.invalid/", 6, "no host"),
    ],
)
def test_a_bad_url_is_one_clear_line(url, code, sentence):
    assert sentence in one_line(get(url), code)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-H", "no colon"], "name: value"),
        (["-H", ": empty"], "name: value"),
        (["-o", "."], "directory"),
        (["-n", "0"], "0"),
        (["--timeout", "0"], "0"),
        (["--key", __file__], "--key needs --cert"),
    ],
)
def test_a_wrong_option_is_told(url, options, sentence):
    done = get(*options, f"{url}/text.txt")
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_field_that_must_not_be_sent_is_one_clear_line(url):
    done = get("-H", "a b: c", f"{url}/text.txt")
    assert done.returncode == 2
    assert "'a b: c' must not be sent" in done.stderr.decode().splitlines()[-1]


@pytest.fixture
def http1():
    """A server of HTTP/1 only."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_of_http1_only_is_asked_by_http1(http1):
    url = f"http://127.0.0.1:{http1.server_port}/"
    for options in ([], ["--http2"], ["-n", "2"], ["--frames"]):
        done = get("-o", "/dev/null", "-w", "%{http_version}", *options, url)
        assert (done.returncode, done.stdout) == (0, b"1.0")
    done = get("--http2-prior-knowledge", url)
    assert "does not speak HTTP/2" in one_line(done, 7)


def test_a_tls_server_without_h2_is_asked_by_http1(http1, ca):
    http1.socket = server_tls(alpn=("http/1.1",)).wrap_socket(
        http1.socket, server_side=True
    )
    url = f"https://localhost:{http1.server_port}/"
    done = get("--cacert", ca, "-w", "%{http_version} %{num_connects}", url)
    assert (done.returncode, done.stdout[-5:]) == (0, b"1.0 1")
    done = get("--cacert", ca, "--http2-prior-knowledge", url)
    assert "does not speak HTTP/2" in one_line(done, 7)


def test_a_server_that_does_not_answer_the_end_of_tls_leaves_no_socket_open(ca):
    """The command has refused the server, because it does not speak HTTP/2."""
    ended = threading.Event()

    def accept():
        with listener.accept()[0] as sock:
            tls = server_tls(alpn=("http/1.1",)).wrap_socket(sock, server_side=True)
            ended.wait(DEADLINE)
            tls.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}/"
        gc.collect()  # of other tests
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                done = get("--cacert", ca, "--http2-prior-knowledge", url)
                gc.collect()
        finally:
            ended.set()
            thread.join()
    assert "does not speak HTTP/2" in one_line(done, 7)
    assert [str(w.message) for w in seen if w.category is ResourceWarning] == []


@in_loop
async def test_a_connection_that_is_made_as_its_wait_is_cancelled_is_aborted():
    class Made:
        aborted = False

        def abort(self):
            self.aborted = True

    made = Made()
    gate = asyncio.get_running_loop().create_future()

    async def work():
        await gate
        return made

    wait = asyncio.ensure_future(Dialer(Routes(), Log(False)).within(work(), "it"))
    for _ in range(3):
        await asyncio.sleep(0)
    gate.set_result(None)
    await asyncio.sleep(0)
    wait.cancel()
    await asyncio.wait([wait])
    assert wait.cancelled()
    assert made.aborted


def test_a_reader_that_goes_ends_the_command_quietly(url):
    assert hang_up("get", f"{url}/data") == b""


def test_serve_and_get_understand_each_other(site):
    with serving(site) as url:
        assert get(f"{url}/data").stdout == DATA


def test_an_upload_is_refused_before_it_has_come_whole(site):
    with serving(site) as url:
        upload = f"@{site / 'data'}"
        done = get("--http2", "-i", "-d", upload, f"{url}/text.txt")
    assert done.returncode == 0
    assert done.stdout.startswith(b"HTTP/2 405 \r\n")
    assert b"allow: GET, HEAD" in done.stdout


def test_features_are_told_in_words_and_json():
    words = nghttp2py("features").stdout.decode()
    found = json.loads(nghttp2py("features", "--json").stdout)
    origins = found.pop("origins")
    assert set(origins) == {k for k, v in found.items() if type(v) is str} - {
        "nghttp2py"
    }
    for name, origin in origins.items():
        assert origin in ("built in", "system")
        assert re.search(
            rf"^{name} +{re.escape(found[name])} +\({origin}\)$", words, re.M
        )
    for name, value in found.items():
        assert name in words
        assert isinstance(value, (str, bool))
