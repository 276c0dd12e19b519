"""The recipes of the cookbook, by the commands of their pages."""

import subprocess
import sys

import pytest
from loops import DEADLINE, TEST_DEADLINE
from recipes import EXAMPLES, Page

TOO_LARGE = "the body is larger than 65536 bytes"
CHUNKED = "-H", "content-length:", "-T", "large"


def test_the_json_api_answers_as_its_page_shows(tmp_path):
    page = Page("cookbook/json_api", tmp_path)
    with page.serving("python examples/json_api.py", page.port):
        page.run_each("curl")
        (tmp_path / "many").write_text('{"text": "%s"}' % ("a" * 65536))
        (tmp_path / "large").write_bytes(bytes(80_000_000))
        url = f"http://127.0.0.1:{page.port}/notes"
        for arguments, answer in {
            (url,): "[]",
            (url + "/1",): '{"error": "there is no note 1"}',
            ("-d", "@many", url): TOO_LARGE,
            # The length is not known when the body begins.
            ("--http2-prior-knowledge", "-X", "POST", *CHUNKED, url): TOO_LARGE,
            ("-d", "[]", url): '{"error": "a note is {\\"text\\": \\"...\\"}"}',
            ("-d", '{"text": "a"}', url): '{"id": "2", "text": "a"}',
            ("-T-", url + "/2"): '{"id": "2", "text": "b"}',
            (url + "/2",): '{"id": "2", "text": "b"}',
            ("-d", "", url + "/2"): '{"error": "no such method"}',
            ("-X", "PUT", url): '{"error": "GET or POST"}',
            (url + "/2/3",): '{"error": "the notes are at /notes"}',
        }.items():
            done = subprocess.run(
                ["curl", "-sS", *arguments],
                input='{"text": "b"}',
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=TEST_DEADLINE,
            )
            assert done.stdout.strip() == answer, arguments


def test_events_go_on_after_the_last_one_and_end_when_the_server_stops(tmp_path):
    page = Page("cookbook/events", tmp_path)
    with (
        page.serving("python examples/events.py", page.port) as server,
        page.reading("curl -N http") as first,
        page.reading("curl -N -H") as second,
    ):
        assert first.stdout.readline() == "id: 1\n"
        assert first.stdout.readline() == 'data: {"number": 1}\n'
        assert second.stdout.readline() == "id: 1001\n"
        server.stop()
        for client in first, second:
            rest = client.stdout.read()
            assert rest.endswith("event: end\ndata: the server stops\n\n")
            assert client.wait(DEADLINE) == 0


def test_an_upload_shows_its_progress_and_one_too_large_is_not_sent(tmp_path):
    page = Page("cookbook/upload", tmp_path)
    page.run_each("head")
    with page.serving("python examples/upload.py", page.port) as server:
        upload = "python examples/upload_client.py http://127.0.0.1:8080/upload "
        assert page.run(upload + "good") == "201 8388608 bytes\n"
        server.wait_for("100 % of 8388608 bytes")
        assert page.run(upload + "large") == "413 more than 10485760 bytes\n"
        assert "83886080" not in server.log.read_text()
        assert page.run("curl") == "more than 10485760 bytes\n"
        # Of unknown length: refused when it has become too large.
        url = f"http://127.0.0.1:{page.port}/upload"
        for command in (
            ["curl", "-sS", "--http1.1", "-H", "transfer-encoding: chunked"],
            ["curl", "-sS", "--http2-prior-knowledge"],
            ["nghttp2py", "get", "-sS", "--http2-prior-knowledge"],
        ):
            with (tmp_path / "large.bin").open("rb") as file:
                large = subprocess.run(
                    [*command, "-T", "-", url],
                    stdin=file,
                    env=page.environment,
                    capture_output=True,
                    text=True,
                    timeout=2 * DEADLINE,
                )
            assert large.stdout == "more than 10485760 bytes\n", large


def test_a_file_is_downloaded_in_parts_and_a_download_is_resumed(tmp_path):
    page = Page("cookbook/download", tmp_path)
    page.run("mkdir")
    page.run("head")
    whole = (tmp_path / "files" / "large.bin").read_bytes()
    with page.serving("python examples/download_server.py", page.port):
        page.run("curl -r")
        first = (tmp_path / "first").read_bytes()
        assert first.startswith(b"HTTP/1.1 206 ")
        assert b"content-range: bytes 0-99/83886080" in first
        assert first.endswith(whole[:100])
        assert page.run("python examples/download.py") == "large.bin: 83886080 bytes\n"
        page.run("cmp")
        for command in "curl -C", "nghttp2py get -C":
            (tmp_path / "large.bin").write_bytes(whole[:1000])
            page.run(command)
            page.run("cmp")


def test_a_websocket_is_opened_over_each_version(tmp_path):
    """By websocket_client.py to websocket_echo.py."""
    page = Page("cookbook/websocket", tmp_path)
    page.run("python -c")
    with page.serving("nghttp2py run") as server:
        server.wait_for("HTTP/3")
        page.run("python examples/websocket_client.py")
        refused = subprocess.run(
            [
                *(sys.executable, EXAMPLES / "websocket_client.py"),
                f"https://127.0.0.1:{page.port}/none",
                (tmp_path / "made").read_text().split()[0],
            ],
            capture_output=True,
            text=True,
        )
        assert refused.returncode == 1
        assert "403" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize("application", ["app", "old"])
def test_applications_of_asgi_and_wsgi_are_served(application, tmp_path):
    """Those of asgi_and_wsgi.py."""
    page = Page("cookbook/asgi_and_wsgi", tmp_path)
    command = f"nghttp2py run asgi_and_wsgi:{application}"
    with page.serving(command, f"--port {page.port}"):
        if application == "app":
            page.run_each("curl")
        else:
            done = subprocess.run(
                ["curl", "-sS", f"http://127.0.0.1:{page.port}/hello/Ada"],
                capture_output=True,
                text=True,
            )
            assert done.stdout == '{"by":"Flask","hello":"Ada","over":"HTTP/1.1"}\n'


def test_a_certificate_for_this_machine_is_used(tmp_path):
    page = Page("cookbook/certificates", tmp_path)
    page.run("python -c")
    with page.serving("nghttp2py run asgi_hello:app"):
        page.run("curl --cacert")
