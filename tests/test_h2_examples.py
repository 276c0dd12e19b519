"""The programs without asyncio in examples/: a server, a client, a proxy."""

import contextlib
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE = 30


@contextlib.contextmanager
def running(name, *arguments):
    """Run a server of examples/; its address is the value."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / name, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def run(*command, data=None):
    done = subprocess.run(
        command, input=data, capture_output=True, timeout=DEADLINE, check=True
    )
    return done.stdout.decode()


def client(*urls):
    return run(sys.executable, EXAMPLES / "sansio_client.py", *urls)


def test_the_client_asks_the_server_on_one_connection():
    with running("sansio_server.py", "0") as url:
        out = client(url + "one", url + "two?x=y")
    assert f"{url}one: 200" in out
    assert "GET /one, 0 bytes\n" in out
    assert "GET /two?x=y, 0 bytes\n" in out


def test_the_server_answers_curl():
    assert shutil.which("curl")
    with running("sansio_server.py", "0") as url:
        curl = ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", "@-"]
        assert run(*curl, url + "up", data=b"x" * 1000000) == (
            "POST /up, 1000000 bytes\n"
        )
        assert "content-length: 16" in run(
            "curl", "-sSI", "--http2-prior-knowledge", url
        )


def test_the_proxy_carries_messages_in_both_directions():
    with (
        running("sansio_server.py", "0") as server,
        running("sansio_proxy.py", server[7:-1], "0") as url,
    ):
        out = client(url + "one", url + "two", url + "three")
        for name in ("one", "two", "three"):
            assert f"GET /{name}, 0 bytes\n" in out
        curl = ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", "@-"]
        assert run(*curl, url + "up", data=b"x" * 3000000) == (
            "POST /up, 3000000 bytes\n"
        )


def test_the_proxy_carries_large_responses():
    body = bytes(range(256)) * 20000
    example = runpy.run_path(str(EXAMPLES / "sansio_server.py"))

    def answer(connection, stream_id, request, _):
        connection.send_response_headers(stream_id, 200, [])
        connection.send_body(stream_id, body, trailers=[("t", "v")])

    example["handle"].__globals__["answer"] = answer
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def serve():
            example["serve_client"](listener.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        with running("sansio_proxy.py", address, "0") as url:
            got = subprocess.run(
                ["curl", "-sS", "--http2-prior-knowledge", url + "file"],
                capture_output=True,
                timeout=DEADLINE,
                check=True,
            ).stdout
        thread.join(DEADLINE)
    assert got == body
