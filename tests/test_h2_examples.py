"""The programs without asyncio in examples/: a server, a client, a proxy."""

import contextlib
import runpy
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import H2BodyReceived, H2Connection

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE = 30


@contextlib.contextmanager
def running(name, *arguments):
    """Run a server of examples/, which must not fail; its address is the value."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()


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


def test_the_server_goes_on_when_a_client_leaves_in_the_middle():
    with running("sansio_server.py", "0") as url:
        address = ("127.0.0.1", int(url[:-1].rpartition(":")[2]))
        with socket.create_connection(address, DEADLINE) as sock:
            connection = H2Connection(client_side=True)
            connection.initiate_connection()

            def ask():
                return connection.send_request(
                    "GET", "/", scheme="http", authority="localhost"
                )

            # A stream is left in the very bytes that open it; the next is answered.
            out = connection.data_to_send()
            left = ask()
            out += connection.data_to_send()
            connection.reset_stream(left, ErrorCode.CANCEL)
            asked = ask()
            sock.sendall(out + connection.data_to_send())
            body = b""
            while not body:
                for event in connection.receive_data(sock.recv(65536)):
                    if isinstance(event, H2BodyReceived):
                        assert event.stream_id == asked
                        body += event.body.data
            # And the connection is left by a reset.
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert "GET /one" in client(url + "one")


def test_the_client_says_in_a_line_what_went_wrong():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def speak_http1():
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak_http1)
        thread.start()
        command = [sys.executable, EXAMPLES / "sansio_client.py"]
        done = subprocess.run(
            [*command, url], capture_output=True, text=True, timeout=DEADLINE
        )
        thread.join(DEADLINE)
    assert done.returncode == 1 and not done.stdout
    assert f"{url}: PROTOCOL_ERROR\n" in done.stderr
    assert "Traceback" not in done.stderr
    for wrong in [url], ["ftp://localhost/"], [url, "http://localhost:1/"]:
        done = subprocess.run([*command, *wrong], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_the_proxy_waits_for_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    with running("sansio_proxy.py", f"127.0.0.1:{port}", "0") as url:
        curl = ["curl", "-sS", "--http2-prior-knowledge", url]
        assert subprocess.run(curl, stderr=subprocess.DEVNULL).returncode != 0
        with running("sansio_server.py", port):
            assert run(*curl) == "GET /, 0 bytes\n"


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
