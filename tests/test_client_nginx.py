"""Clients against Debian's nginx, which ends connections as it pleases."""

import asyncio
import hashlib
import random

import peers
import pytest
from loops import in_loops
from peers import certificate, client_tls, free_port, nghttp2py

from nghttp2py.asyncio import Client
from nghttp2py.client import BaseResponseHandler, HTTP2Client

DATA = random.Random(5).randbytes(3_000_000)

SETTINGS = """
    keepalive_requests 40;  # then GOAWAY
    http2_max_concurrent_streams 16;
    client_max_body_size 1m;
    server {{
        listen 127.0.0.1:{clear} http2;
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {root}/cert.pem;
        ssl_certificate_key {root}/key.pem;
        root {root}/site;
        location /drop {{ return 444; }}
    }}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """Run nginx; give its ports, in the clear and with TLS."""
    root = tmp_path_factory.mktemp("nginx")
    (root / "site").mkdir()
    (root / "site" / "data").write_bytes(DATA)
    (root / "site" / "text").write_text("hello")
    certificate().private_key_pem.write_to_path(root / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(root / "cert.pem")
    clear, tls = free_port(), free_port()
    settings = SETTINGS.format(root=root, clear=clear, tls=tls)
    with peers.nginx(root, clear, settings):
        yield clear, tls


@in_loops
async def test_no_request_is_lost_when_nginx_ends_the_connection(nginx):
    """It sends GOAWAY every 40 requests, with others in flight."""

    async def get(client):
        response = await client.get("/text")
        return response.status, await response.read()

    async with Client(f"http://127.0.0.1:{nginx[0]}") as client:
        answers = await asyncio.gather(*(get(client) for _ in range(500)))
    assert answers == [(200, b"hello")] * 500


@in_loops
async def test_a_large_file_comes_over_tls(nginx):
    async with Client(f"https://localhost:{nginx[1]}", ssl=client_tls()) as client:
        digest = hashlib.sha256()
        async for chunk in await client.get("/data"):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(DATA).digest()


@in_loops
async def test_an_upload_that_is_too_large_is_answered(nginx):
    """nginx answers before the body has come, and wants no more of it."""
    async with Client(f"http://127.0.0.1:{nginx[0]}") as client:
        body = iter([bytes(65536)] * 40)
        headers = {"content-length": str(40 * 65536)}
        response = await client.post("/text", body, headers=headers)
        assert response.status == 413
        assert b"413" in await response.read()
        assert (await client.get("/text")).status == 200


def test_http2client_gets_along_with_it(nginx):
    class Counter(BaseResponseHandler):
        def on_data(self, data):
            sizes.append(len(data))

    sizes = []
    with HTTP2Client(("localhost", nginx[1]), ssl=client_tls()) as client:
        for _ in range(20):
            client.send_request(url="/text", handler=Counter())
        client.send_request(url="/data", handler=Counter())
    assert sum(sizes) == 20 * 5 + len(DATA)


def test_a_server_that_drops_the_request_is_one_line(nginx):
    done = nghttp2py("get", f"http://127.0.0.1:{nginx[0]}/drop")
    assert done.returncode == 92
    assert len(done.stderr.splitlines()) == 1
