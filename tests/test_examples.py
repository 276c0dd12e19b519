"""The programs of examples/ do what they say."""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from ssl import OP_ALL, OP_NO_SSLv2

from loops import in_loop
from peers import run

import nghttp2py

EXAMPLES = Path(__file__).parent.parent / "examples"


@in_loop
async def test_hello_serves_its_page_over_https_and_pushes_its_style(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "hello.py", "0"],
        env={**os.environ, "HELLO_STATE": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = process.stdout.readline().split()[1]
            authority = tmp_path / "localhost.pem"
            curl = ["curl", "-sS", "--cacert", str(authority)]
            page = await run(*curl, url)
            assert "stream 1" in page and ":authority" in page
            assert "takes no pushes" in page
            assert "main {" in await run(*curl, url + "style.css")
            assert await run(*curl, url + "none") == "Not found\n"
            assert "HTTP/2 405" in await run(*curl, "-i", "-X", "PUT", url)
            seen = await run("nghttp", "-v", "--no-verify-peer", url)
            assert "recv PUSH_PROMISE" in seen and "pushed to you" in seen
            assert (tmp_path / "localhost.key").stat().st_mode & 0o077 == 0
            process.terminate()
            rest = process.stdout.read()
            assert "pushed /style.css 200 to 127.0.0.1" in rest
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_hello_renews_its_certificate_before_it_expires(tmp_path, monkeypatch):
    monkeypatch.setenv("HELLO_STATE", str(tmp_path))
    hello = runpy.run_path(str(EXAMPLES / "hello.py"))
    hello["make_context"]()
    made = (tmp_path / "localhost.pem").read_bytes()
    hello["make_context"]()
    assert (tmp_path / "localhost.pem").read_bytes() == made
    # As if it were 340 of its 365 days old, and its key longer than the next.
    old = time.time() - 340 * 24 * 3600
    os.utime(tmp_path / "localhost.pem", (old, old))
    with open(tmp_path / "localhost.key", "ab") as file:
        file.write(b"of another key")
    hello["make_context"]()
    assert (tmp_path / "localhost.pem").read_bytes() != made
    assert b"of another key" not in (tmp_path / "localhost.key").read_bytes()


@in_loop
async def test_a_script_for_the_old_bindings_pushes(
    certificates, tmp_path, monkeypatch
):
    """On a free port, and in this loop: else it is run as it stands."""
    certificate = certificates[1]
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "server.crt"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "server.key"))

    class Server(nghttp2py.HTTP2Server):
        def __init__(self, address, *args, ssl):
            # Scripts of that time set the options so, without asking what they are.
            ssl.options = OP_ALL | OP_NO_SSLv2
            super().__init__((address[0], 0), *args, ssl=ssl)

        def serve_forever(self):
            started.append(self)

    started = []
    monkeypatch.setattr(nghttp2py, "HTTP2Server", Server)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "push.py"))
    async with started[0] as server:
        port = server.sockets[0].getsockname()[1]
        seen = await run(
            "nghttp", "-v", "--no-verify-peer", f"https://localhost:{port}"
        )
    assert "recv PUSH_PROMISE" in seen
    assert "In colour." in seen and "p { color: teal }" in seen


@in_loop
async def test_a_service_of_json_answers_by_one_coroutine(tmp_path):
    handler = runpy.run_path(str(EXAMPLES / "json_api.py"))["Handler"]
    async with nghttp2py.HTTP2Server(("localhost", 0), handler) as server:
        url = f"http://localhost:{server.sockets[0].getsockname()[1]}/sum"
        curl = ["curl", "-sS", "--http2-prior-knowledge"]
        answer = await run(*curl, "-d", "[1, 2, 3]", url + "?name=total")
        assert answer == '{"total": 6}\n'
        assert await run(*curl, "-d", "[]", url) == '{"sum": 0}\n'
        assert "is not JSON" in await run(*curl, "-d", "[", url)
        assert "integers" in await run(*curl, "-d", "{}", url)
        assert "HTTP/2 404" in await run(*curl, "-i", url)
        (tmp_path / "many").write_text("[" + "1," * 40000 + "1]")
        many = await run(*curl, "-d", f"@{tmp_path / 'many'}", url)
        assert "larger than 65536 bytes" in many
