"""The programs of examples/ do what they say."""

import contextlib
import json
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from ssl import OP_ALL, OP_NO_SSLv2

from loops import in_loop
from peers import run

import nghttp2py

EXAMPLES = Path(__file__).parent.parent / "examples"


@in_loop
async def test_hello_answers_by_two_versions_and_ends_its_events_when_it_stops():
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "hello.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = process.stdout.readline().split()[1]
            authority = process.stdout.readline().split()[3]
            assert "--origin-to-force-quic-on" in process.stdout.readline()
            curl = ["curl", "-sS", "--cacert", authority]
            page = await run(*curl, url)
            assert '"http": "2"' in page and '"FACTS"' not in page
            assert await run(*curl, "--http1.1", url + "ping") == '{"http": "1.1"}'
            assert await run(*curl, url + "none") == "Not found\n"
            sent = await run(*curl, "-d", "12345", url + "upload")
            assert sent == '{"http": "2", "bytes": 5}'
            clock = await run(*curl, url + "clock")
            assert clock.count("data: ") == 5
            with subprocess.Popen(
                [*curl, "--no-buffer", url + "activity"],
                stdout=subprocess.PIPE,
                text=True,
            ) as watching:
                first = json.loads(watching.stdout.readline().removeprefix("data: "))
                assert first["requests"] == 5 and first["streams"] == 1
                # What came before is there at once.
                paths = [one["path"] for one in first["exchanges"]]
                assert paths == ["/", "/ping", "/none", "/upload", "/clock"]
                process.terminate()
                assert process.wait(10) == 0
                # The end of the response: curl has no error.
                assert watching.wait(10) == 0
        finally:
            process.kill()


def test_hello_takes_another_port_unless_the_one_in_use_was_asked_for():
    """As on a machine on which another program has port 8443."""
    program = [sys.executable, "-u", EXAMPLES / "hello.py"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # another program has it indeed
            taken.bind(("127.0.0.1", 8443))
            taken.listen()
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            try:
                said = process.stdout.readline()
                assert said.startswith("Port 8443 is in use by another program, so")
                url = process.stdout.readline().split()[1]
                assert url.startswith("https://127.0.0.1:") and ":8443/" not in url
                assert any(line.startswith("HTTP/3: ") for line in process.stdout)
            finally:
                process.terminate()
        assert process.returncode == 0
        for port, said in (("8443", "is in use by another program"), ("x", "no port")):
            ended = subprocess.run([*program, port], capture_output=True, text=True)
            assert ended.returncode == 1 and said in ended.stderr
            assert ended.stderr.count("\n") == 1


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
