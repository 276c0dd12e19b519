"""``Client`` and the servers that people run: the same requests to each of them.

nghttpd and nginx speak HTTP/2, gtlsserver HTTP/3, hypercorn (with aioquic) and
``nghttp2py run`` both.
"""

import asyncio
import contextlib
import hashlib
import random
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from loops import in_loop, until
from peers import (
    authority,
    certificate,
    client_tls,
    free_port,
    listening,
    nghttpd,
    nginx,
    program,
)
from programs import wait_for_udp_port

from nghttp2py.asyncio import Client

DATA = random.Random(17).randbytes(1_500_000)

SETTINGS = """
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {root}/cert.pem;
        ssl_certificate_key {root}/key.pem;
        root {root}/site;
    }}
"""

APP = """
from pathlib import Path

SITE = Path(__file__).parent / "site"

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    path = SITE / scope["path"].lstrip("/")
    status, body = (200, path.read_bytes()) if path.is_file() else (404, b"")
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with a site, its certificate, and an application that serves it."""
    root = tmp_path_factory.mktemp("peers")
    (root / "site").mkdir()
    (root / "site" / "data").write_bytes(DATA)
    (root / "site" / "text").write_text("hello")
    (root / "app.py").write_text(APP)
    certificate().private_key_pem.write_to_path(root / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(root / "cert.pem")
    authority().cert_pem.write_to_path(root / "authority.pem")
    return root


@contextlib.contextmanager
def run_nghttpd(root):
    with nghttpd(root / "site", tls=True) as port:
        yield port


@contextlib.contextmanager
def run_nginx(root):
    port = free_port()
    with nginx(root, port, SETTINGS.format(root=root, port=port)):
        yield port


@contextlib.contextmanager
def run_gtlsserver(root):
    port = free_port(socket.SOCK_DGRAM)
    command = (program("gtlsserver"), "--quiet", f"--htdocs={root / 'site'}")
    files = (root / "key.pem", root / "cert.pem")
    # Its clients wait until it listens.
    with subprocess.Popen(
        [*command, "127.0.0.1", str(port), *files],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield port
        finally:
            process.terminate()


@contextlib.contextmanager
def run_hypercorn(root):
    port = free_port()
    options = (
        *(f"--bind=127.0.0.1:{port}", f"--quic-bind=127.0.0.1:{port}"),
        *(f"--certfile={root / 'cert.pem'}", f"--keyfile={root / 'key.pem'}"),
    )
    command = (sys.executable, "-m", "hypercorn", *options, "app:app")
    with listening(command, port, cwd=root):
        yield port


@contextlib.contextmanager
def run_ours(root):
    port = free_port()
    options = (
        *(f"--port={port}", "--host=127.0.0.1", "--http3"),
        *("--ssl-certfile", root / "cert.pem", "--ssl-keyfile", root / "key.pem"),
    )
    command = (sys.executable, "-m", "nghttp2py", "run", *options, "app:app")
    with listening(command, port, cwd=root):
        yield port


SERVERS = {
    "nghttpd": (run_nghttpd, False),
    "nginx": (run_nginx, False),
    "gtlsserver": (run_gtlsserver, "only"),
    "hypercorn, HTTP/2": (run_hypercorn, False),
    "hypercorn": (run_hypercorn, True),
    "run, HTTP/2": (run_ours, False),
    "run": (run_ours, True),
}


@pytest.mark.parametrize("name", SERVERS)
@in_loop
async def test_pages_downloads_and_what_is_given_up(name, root):
    run, http3 = SERVERS[name]
    with run(root) as port:
        if http3 == "only":
            await wait_for_udp_port(port, SimpleNamespace(returncode=None), [])
        await visit(f"https://127.0.0.1:{port}", http3)


async def visit(where, http3):
    async with Client(where, ssl=client_tls(), http3=http3) as client:

        async def get(path):
            response = await client.get(path)
            return response.status, await response.read()

        assert await get("/text") == (200, b"hello")
        answers = await asyncio.gather(*(get("/text") for _ in range(100)))
        assert answers == [(200, b"hello")] * 100
        version = (await client.head("/text")).http_version
        assert version == ("HTTP/3" if http3 else "HTTP/2")

        digest = hashlib.sha256()
        async for piece in await client.get("/data"):
            digest.update(piece)
        assert digest.digest() == hashlib.sha256(DATA).digest()

        assert (await get("/missing"))[0] == 404

        tasks = [asyncio.ensure_future(get("/data")) for _ in range(30)]
        for turn, task in enumerate(tasks):
            asyncio.get_running_loop().call_later(turn / 300, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not client._connection.stream_count)
        assert await get("/text") == (200, b"hello")
