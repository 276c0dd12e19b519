"""A real application in a browser: Chromium, headless, over each version."""

import asyncio
import base64
import contextlib
import hashlib
import os
import signal

import pytest
from asgi_apps import starlette_site
from asgi_sites import serving_site
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from loops import in_loop, until
from quic_pair import identity

#: Seconds that Chromium may take to start and run a page on a loaded machine.
DEADLINE = 45

UPLOAD = bytes(i * i >> 8 & 0xFF for i in range(3 << 20))

# Options of Chromium for each version.  Over HTTP/2 it uses RFC 8441 by itself; RFC
# 9220 is behind a switch.
VERSIONS = {
    "http/1.1": ["--disable-http2", "--disable-quic"],
    "h2": ["--disable-quic"],
    "h3": ["--enable-features=EnableWebsocketsOverHttp3"],
}


def fingerprint():
    """The digest of the certificate's key, for Chromium's option to trust it."""
    certificate = x509.load_pem_x509_certificate(identity()[0])
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@contextlib.asynccontextmanager
async def chromium(directory, url, *options):
    process = await asyncio.create_subprocess_exec(
        *("chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage"),
        "--no-sandbox",  # which root cannot have
        *("--disable-background-networking", "--disable-component-update"),
        f"--user-data-dir={directory / 'profile'}",
        "--host-resolver-rules=MAP localhost 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={fingerprint()}",
        "--remote-debugging-port=0",  # or it exits when the page has loaded
        *options,
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # With all the processes that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.parametrize("version", list(VERSIONS))
@in_loop
async def test_a_page_streams_events_and_websockets_come(version, tmp_path):
    files = tmp_path / "static"
    files.mkdir()
    (files / "style.css").write_text("body { color: rgb(1, 2, 3) }")
    app = starlette_site.make_app(files)
    options = list(VERSIONS[version])
    async with serving_site(app, tmp_path, disconnect_grace=0.1) as site:
        if version == "h3":
            options.append(f"--origin-to-force-quic-on=localhost:{site.port}")
        async with chromium(tmp_path, f"{site.origin}/?echo", *options):
            report = await asyncio.wait_for(app.seen.reports.get(), DEADLINE)
            # EventSource has closed it.
            await until(lambda: app.seen.sources == [1, 1])
    assert report == {
        "color": "rgb(1, 2, 3)",
        "events": ["event 0", "event 1", "event 2"],
        "stream": len(starlette_site.PIECE) * starlette_site.PIECES,
        "upload": {"size": 3 << 20, "sha256": hashlib.sha256(UPLOAD).hexdigest()},
        "protocol": version,
        "echo": ["text", "more", 1000, "done"],
    }
