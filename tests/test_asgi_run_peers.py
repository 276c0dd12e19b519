"""``nghttp2py run`` behind proxies: Flask by WSGI, the access log, and metrics."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from loops import DEADLINE
from test_cli_run import URL, Program, curl

APPS = Path(__file__).parent
FLASK = ["asgi_apps.flask_site:make_app", "--factory", "--interface=wsgi"]


@pytest.fixture
def running(tmp_path):
    """Run the command with Flask; what it prints goes to a file."""
    processes = []

    def start(*arguments):
        output = tmp_path / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nghttp2py", "run", *FLASK),
                    *(f"--app-dir={APPS}", "--bind=127.0.0.1:0", *arguments),
                ],
                cwd=tmp_path,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
            )
        processes.append(process)
        return Program(process), output

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_proxy_is_believed_and_the_log_is_json(running):
    server, output = running(
        *("--access-logformat=json", "--metrics-port=0"),
        *("--forwarded-fields=for", "--forwarded-fields=proto"),
        "--forwarded-fields=host",
    )
    metrics = server.wait_for(r"metrics are at http://(\S+?)/metrics")
    port = server.wait_for(URL)[3]
    for version in ("--http1.1", "--http2-prior-knowledge"):
        answer = curl(
            f"http://127.0.0.1:{port}/hello?name=a",
            version,
            *("--header", "x-forwarded-for: 192.0.2.1"),
            *("--header", "x-forwarded-proto: https"),
            *("--header", "x-forwarded-host: example.org"),
        )
        seen = json.loads(answer)
        assert (seen["host"], seen["secure"]) == ("example.org", True)
    text = curl(f"http://{metrics[1]}/metrics", "--http1.1")
    for version in ("1.1", "2"):
        labels = f'method="GET",status="200",version="{version}"'
        assert f"nghttp2py_requests_total{{{labels}}} 1.0" in text
    assert 'nghttp2py_connections_total{transport="tcp"} 2.0' in text
    assert server.stop() == 0
    entries = [json.loads(line) for line in output.read_text().splitlines()]
    assert [entry["protocol"] for entry in entries] == ["HTTP/1.1", "HTTP/2"]
    assert {entry["target"] for entry in entries} == {"/hello?name=a"}


def test_the_header_of_a_load_balancer_is_in_the_log(running):
    server, output = running(
        "--proxy-protocol=v1", '--access-logformat=%(h)s "%(r)s" %(s)s %(a)s'
    )
    port = int(server.wait_for(URL)[3])
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.sendall(
            b"PROXY TCP4 192.0.2.7 198.51.100.2 5000 443\r\n"
            b"GET /count HTTP/1.1\r\nhost: a\r\nuser-agent: me\r\n"
            b"connection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b'{"count":1}' in answer
    assert server.stop() == 0
    assert output.read_text() == '192.0.2.7 "GET /count HTTP/1.1" 200 me\n'
