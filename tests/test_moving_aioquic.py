"""aioquic's own programs and tests run with ``aioquic`` replaced by ``nghttp2py``."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys

import pytest
from loops import DEADLINE
from peers import authority, certificate, free_port
from programs import change_imports, environment, run, running_server, source

pytestmark = pytest.mark.aioquic17

SIDES = ["aioquic", "nghttp2py"]
PAIRS = pytest.mark.parametrize("client", SIDES)
SERVERS = pytest.mark.parametrize("server", SIDES)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Directories of the examples: as they come, and with their imports changed."""
    directory = tmp_path_factory.mktemp("examples")
    for side in SIDES:
        shutil.copytree(source("aioquic") / "examples", directory / side)
        (directory / side / "htdocs" / "logs").mkdir(exist_ok=True)
    change_imports(directory / "nghttp2py", r"\baioquic\b", "nghttp2py")
    certificate().private_key_pem.write_to_path(directory / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(directory / "cert.pem")
    authority().cert_pem.write_to_path(directory / "authority.pem")
    return directory


def http3_server(examples, server, port, *options):
    return running_server(
        port,
        "http3_server.py",
        "--certificate=../cert.pem",
        "--private-key=../key.pem",
        "--host=127.0.0.1",
        f"--port={port}",
        "--verbose",
        *options,
        cwd=examples / server,
    )


@SERVERS
@PAIRS
def test_http3_example_serves_its_pages(examples, client, server, tmp_path):
    """A page with pushes, an echo, a megabyte, each logged by the connection's id."""

    pushed = tmp_path / "style.css"

    async def main():
        port = free_port()
        origin = f"https://localhost:{port}"
        async with http3_server(examples, server, port) as output:
            fetch = "http3_client.py", "--ca-certs=../authority.pem"
            fetch = *fetch, "--include", f"--output-dir={tmp_path}"
            at = examples / client
            # The client saves what it has of a push when its own responses are whole.
            for _ in range(10):
                await run(*fetch, f"{origin}/", f"{origin}/1000000", cwd=at)
                if pushed.exists() and pushed.stat().st_size:
                    break
            await run(*fetch, "--data=a body", f"{origin}/echo", cwd=at)
        return b"".join(output).decode()

    log = asyncio.run(main())
    page = (tmp_path / "index.html").read_bytes()
    head, _, body = page.partition(b"\r\n\r\n")
    assert b":status: 200" in head
    assert b"<!DOCTYPE html>" in body
    _, _, megabyte = (tmp_path / "1000000").read_bytes().partition(b"\r\n\r\n")
    assert len(megabyte) == 1_000_000
    assert pushed.read_bytes().startswith(b":status: 200")
    assert (tmp_path / "echo").read_bytes().endswith(b"\r\n\r\na body")
    assert "HTTP request GET /1000000" in log
    assert "Traceback" not in log


@SERVERS
@PAIRS
def test_http3_example_speaks_websocket_and_http_0_9(
    examples, client, server, tmp_path
):
    async def main():
        port = free_port()
        async with http3_server(examples, server, port, "--retry"):
            fetch = "http3_client.py", "--ca-certs=../authority.pem"
            at = examples / client
            said = await run(*fetch, f"wss://localhost:{port}/ws", cwd=at)
            await run(
                *(*fetch, "--legacy-http", f"--output-dir={tmp_path}"),
                f"https://localhost:{port}/5000",
                cwd=at,
            )
        return said

    said = asyncio.run(main())
    assert "< Hello 1, WebSocket!" in said
    assert len((tmp_path / "5000").read_bytes()) == 5000


@SERVERS
@PAIRS
def test_http3_example_resumes_a_session_with_early_data(
    examples, client, server, tmp_path
):
    async def main():
        port = free_port()
        async with http3_server(examples, server, port):
            fetch = (
                *("http3_client.py", "--ca-certs=../authority.pem", "--verbose"),
                *(f"--session-ticket={tmp_path / 'ticket'}", "--zero-rtt"),
                f"https://localhost:{port}/100",
            )
            first = await run(*fetch, cwd=examples / client)
            return first, await run(*fetch, cwd=examples / client)

    first, second = asyncio.run(main())
    assert "New session ticket received" in first
    assert "Response received for GET /100" in second


# The server asks a resolver; here every name has one address.
DOQ_SERVER = """
import runpy, sys
from dnslib.dns import DNSRecord, RR
def send(self, *_):
    reply = self.reply()
    reply.add_answer(*RR.fromZone("example.org 60 A 192.0.2.7"))
    return reply.pack()
DNSRecord.send = send
sys.argv[0] = "doq_server.py"
sys.path.insert(0, ".")
runpy.run_path("doq_server.py", run_name="__main__")
"""


@SERVERS
@PAIRS
def test_doq_example_resolves_a_name(examples, client, server):
    async def main():
        port = free_port()
        async with running_server(
            port,
            *("-c", DOQ_SERVER, "--certificate=../cert.pem"),
            *("--private-key=../key.pem", "--host=127.0.0.1", f"--port={port}"),
            cwd=examples / server,
        ):
            return await run(
                *("doq_client.py", "--ca-certs=../authority.pem", "--verbose"),
                *("--host=localhost", f"--port={port}", "--query-name=example.org"),
                cwd=examples / client,
            )

    assert "192.0.2.7" in asyncio.run(main())


# What these tests of aioquic patch is inside of it, and has no counterpart here.
INTERNAL = {
    "test_asyncio": ["HighLevelTest::test_connect_and_serve_with_retry_bad_token"],
}


@pytest.mark.parametrize("name", ["test_asyncio", "test_logger", "test_buffer"])
def test_tests_of_aioquic_pass(name, tmp_path):
    """Their helpers stay as they are: they make certificates by aioquic's names."""
    shutil.copytree(source("aioquic") / "tests", tmp_path / "tests")
    path = tmp_path / "tests" / f"{name}.py"
    path.write_text(path.read_text().replace("aioquic", "nghttp2py"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--rootdir={tmp_path}", f"tests/{name}.py"),
            *(f"--deselect=tests/{name}.py::{test}" for test in INTERNAL.get(name, ())),
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=10 * DEADLINE,
    )
    assert done.returncode == 0, done.stdout
