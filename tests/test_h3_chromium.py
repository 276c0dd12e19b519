"""HTTP/3 and WebTransport with a browser: Chromium, headless."""

import asyncio
import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import re
import runpy
import signal
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from devtools import CHROMIUM
from loops import in_loop
from peers import run

from nghttp2py.asyncio import H3Protocol, h3, serve
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.h3.events import (
    DatagramReceived,
    StreamReset,
    WebTransportStreamDataReceived,
)
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import HandshakeCompleted

#: Seconds that Chromium may take to start and run a page on a loaded machine.
DEADLINE = 45

ROOT = Path(__file__).parent.parent
HTTP3Server = runpy.run_path(str(ROOT / "examples" / "http3_server.py"))["HTTP3Server"]

MEGABYTE = bytes(i * i >> 8 & 0xFF for i in range(1 << 20))

# WebTransport's error codes: each end of a run of 30, which is how they are
# mapped to those of HTTP/3.
CODES = [0, 29, 30, 255]

# What the pages of the tests share.  run() posts to /report what a test returns,
# or what it throws.
PAGE = """<!doctype html>
<script type="module">
const hex = async (buffer) =>
  [...new Uint8Array(await crypto.subtle.digest("SHA-256", buffer))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
const bytes = (n) => new Uint8Array(n).map((_, i) => i * i >> 8);
const protocols = () =>
  performance.getEntries().map((entry) => entry.nextHopProtocol).filter(Boolean);
const readAll = async (readable) =>
  new Uint8Array(await new Response(readable).arrayBuffer());
const text = (chunk) => new TextDecoder().decode(chunk);
const write = async (writable, ...chunks) => {
  const writer = writable.getWriter();
  for (const chunk of chunks) await writer.write(chunk);
  await writer.close();
};
const failure = (streamErrorCode) => {
  try {
    return new WebTransportError("", { streamErrorCode });
  } catch {  // as it was before
    return new WebTransportError({ streamErrorCode });
  }
};
const run = async (test) => {
  let report;
  try {
    report = await test();
  } catch (error) {
    report = { error: String(error), stack: error.stack };
  }
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
};
await run(async () => { %s });
</script>
"""


class Site:
    """What the connections of one server share: its page, and what it has seen."""

    def __init__(self, script):
        self.page = PAGE.replace("%s", script).encode()
        self.asked = []  # (connection, method, path) of each request
        self.connections = []
        self.resets = []  # the error codes of streams of WebTransport
        self.wanted_resets = iter(CODES)  # those of the server's own
        self.reports = asyncio.Queue()

    def protocol(self, *args, **options):
        connection = Connection(self, *args, **options)
        self.connections.append(connection)
        return connection


class Connection(HTTP3Server):
    """The example's server, and what the pages of the tests ask beyond that."""

    def __init__(self, site, *args, **options):
        super().__init__(*args, **options)
        self.site = site
        self.handshake = None

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.handshake = event
        super().quic_event_received(event)

    def h3_event_received(self, event):
        if isinstance(event, DatagramReceived) and event.data == b"open":
            stream_id = self.http.create_webtransport_stream(event.stream_id)
            self.http.send_webtransport_data(stream_id, b"from the server")
        elif isinstance(event, WebTransportStreamDataReceived) and (
            event.data == b"reset"
        ):
            code = self.http.webtransport_error_to_http(next(self.site.wanted_resets))
            self._quic.reset_stream(event.stream_id, code)
        else:
            if isinstance(event, StreamReset) and event.session_id is not None:
                self.site.resets.append(event.error_code)
            super().h3_event_received(event)

    def request_received(self, stream_id):
        headers, body = self.requests[stream_id]
        method, path = headers[b":method"].decode(), headers[b":path"].decode()
        self.site.asked.append((self, method, path))
        if path == "/page":
            answer = (200, self.site.page, b"text/html")
        elif path == "/megabyte":
            answer = (200, MEGABYTE)
        elif path == "/sha256":
            answer = (200, hashlib.sha256(body).hexdigest().encode())
        elif path == "/report":
            self.site.reports.put_nowait(json.loads(bytes(body)))
            answer = (204,)
        elif path == "/goaway":
            self.http.send_goaway()
            answer = (204,)
        elif path == "/early":
            # Before the handshake is complete nothing but early data can come.
            if self.handshake and not self.handshake.early_data_accepted:
                self.close(ErrorCode.H3_NO_ERROR)
                return
            answer = (200, b"early data")
        else:
            super().request_received(stream_id)
            return
        del self.requests[stream_id]
        self.respond(stream_id, *answer)


@contextlib.asynccontextmanager
async def serving(site, certificate, key, **options):
    """A server of the site; gives its port."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        max_datagram_frame_size=65536,
        certificate=certificate,
        private_key=key,
    )
    server = await serve(
        "127.0.0.1",
        0,
        configuration=configuration,
        create_protocol=site.protocol,
        **options,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def chromium(directory, port, fingerprint, quic_port=None):
    """Chromium on the page of the site at the port.

    It trusts the public key of the fingerprint, and goes by QUIC from the first
    packet on unless ``quic_port`` is another.
    """
    process = await asyncio.create_subprocess_exec(
        *CHROMIUM,
        f"--user-data-dir={directory}",
        "--host-resolver-rules=MAP localhost 127.0.0.1",
        f"--origin-to-force-quic-on=localhost:{quic_port or port}",
        f"--ignore-certificate-errors-spki-list={fingerprint}",
        "--remote-debugging-port=0",  # or it exits when the page has loaded
        f"https://localhost:{port}/page",
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


@pytest.fixture(scope="module")
def identity():
    """A certificate, its key, and the fingerprint of its public key."""
    issued = trustme.CA().issue_cert("localhost")
    certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    fingerprint = base64.b64encode(hashlib.sha256(public).digest()).decode()
    return certificate, issued.private_key_pem.bytes(), fingerprint


async def report_of(script, identity, directory, **options):
    """Return what the test ``script`` says in Chromium, and the site."""
    certificate, key, fingerprint = identity
    site = Site(script)
    async with (
        serving(site, certificate, key, **options) as port,
        chromium(directory, port, fingerprint),
    ):
        return await asyncio.wait_for(site.reports.get(), DEADLINE), site


# ---- Pages ----


class RefusingSite(Site):
    """Refuses what is posted to it before it has come, with ``H3Protocol``."""

    def protocol(self, *args, **options):
        return H3Protocol(*args, request_handler=self.answer, **options)

    async def answer(self, stream):
        if stream.path == b"/page":
            await stream.send_response(200, {"content-type": "text/html"}, self.page)
        elif stream.path == b"/report":
            self.reports.put_nowait(json.loads(await stream.read()))
            await stream.send_response(204)
        else:
            await stream.send_response(413, body=b"too large")


@in_loop
async def test_a_response_that_refuses_an_upload_is_there(
    identity, tmp_path, monkeypatch
):
    """Chromium gives it to its page when it has sent all, however long that takes."""
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.5)
    script = """
      const found = [];
      for (const n of [1, 4, 48]) {
        const body = new Uint8Array(n << 20);
        const sent = await fetch("/upload", { method: "POST", body });
        found.push([sent.status, await sent.text()]);
      }
      return found;
    """
    certificate, key, fingerprint = identity
    site = RefusingSite(script)
    async with (
        serving(site, certificate, key) as port,
        chromium(tmp_path, port, fingerprint),
    ):
        report = await asyncio.wait_for(site.reports.get(), DEADLINE)
    assert report == [[413, "too large"]] * 3


@pytest.mark.parametrize("retry", [False, True])
@in_loop
async def test_a_page_and_its_fetches_come_over_http3(identity, tmp_path, retry):
    script = """
      const download = await fetch("/megabyte");
      const upload = await fetch("/sha256", { method: "POST", body: bytes(1 << 20) });
      return {
        download: await hex(await download.arrayBuffer()),
        upload: await upload.text(),
        missing: (await fetch("/nowhere")).status,
        protocols: protocols(),
      };
    """
    report, site = await report_of(script, identity, tmp_path, retry=retry)
    digest = hashlib.sha256(MEGABYTE).hexdigest()
    assert report == {
        "download": digest,
        "upload": digest,
        "missing": 404,
        "protocols": ["h3"] * 4,
    }
    # The page may come by another connection than what it fetches.
    used = {connection for connection, _, _ in site.asked}
    assert len(used) <= 2
    assert {connection.handshake.alpn_protocol for connection in used} == {"h3"}


@in_loop
async def test_a_hundred_fetches_share_a_connection(identity, tmp_path):
    script = """
      const sizes = Array.from({ length: 100 }, (_, i) => 1000 * i);
      const bodies = await Promise.all(sizes.map(async (size) =>
        (await (await fetch("/" + size)).arrayBuffer()).byteLength));
      return { sizes: bodies, protocols: protocols() };
    """
    report, site = await report_of(script, identity, tmp_path)
    assert report["sizes"] == [1000 * i for i in range(100)]
    assert set(report["protocols"]) == {"h3"}
    assert len({c for c, _, path in site.asked if path[1:].isdigit()}) == 1


@in_loop
async def test_a_large_upload_is_held_back_and_arrives(identity, tmp_path):
    """It is far more than the windows."""
    script = """
      const body = bytes(20 << 20);
      const response = await fetch("/sha256", { method: "POST", body });
      return { digest: await response.text(), expected: await hex(body) };
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report["digest"] == report["expected"]


@in_loop
async def test_an_aborted_fetch_leaves_the_connection_as_it_is(identity, tmp_path):
    script = """
      const abort = new AbortController();
      const response = await fetch("/30000000", { signal: abort.signal });
      await response.body.getReader().read();
      abort.abort();
      return (await fetch("/10")).status;
    """
    report, site = await report_of(script, identity, tmp_path)
    assert report == 200
    assert len({c for c, _, path in site.asked if path[1:].isdigit()}) == 1


@in_loop
async def test_what_chromium_is_in_a_hurry_for_overtakes_the_rest(identity, tmp_path):
    script = """
      const done = [];
      await Promise.all(["low", "high"].map(async (priority) => {
        const response = await fetch("/10000000", { priority, cache: "no-store" });
        await response.arrayBuffer();
        done.push(priority);
      }));
      return done;
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == ["high", "low"]


@in_loop
async def test_a_connection_that_goes_away_is_followed_by_another(identity, tmp_path):
    script = """
      const last = fetch("/3000000").then((response) => response.arrayBuffer());
      await fetch("/goaway");
      const next = await fetch("/10");
      return [(await last).byteLength, next.status];
    """
    report, site = await report_of(script, identity, tmp_path)
    assert report == [3_000_000, 200]
    connections = {path: connection for connection, _, path in site.asked}
    assert connections["/3000000"] is connections["/goaway"]
    assert connections["/10"] is not connections["/goaway"]


@in_loop
async def test_chromium_resumes_its_session_with_early_data(identity, tmp_path):
    """Not each time: Chromium counts the age of a ticket in whole seconds, and
    GnuTLS believes no age that is above its own."""
    script = """
      for (let i = 0; i < 20; i++) {
        const answer = await fetch("/early").then((r) => r.text(), () => "lost");
        if (answer !== "lost") return answer;
      }
    """
    report, site = await report_of(
        script, identity, tmp_path, session_ticket_handler=lambda ticket: None
    )
    assert report == "early data"
    (connection,) = {c for c, _, path in site.asked if path == "/report"}
    assert connection.handshake.session_resumed
    assert connection.handshake.early_data_accepted


# ---- The example and what is said of it ----


@in_loop
async def test_the_page_of_the_example_says_hello_by_webtransport(identity, tmp_path):
    script = """
      const frame = document.createElement("iframe");
      frame.src = "/";
      const loaded = new Promise((done) => frame.addEventListener("load", done));
      document.body.append(frame);
      await loaded;
      const echo = frame.contentDocument.getElementById("echo");
      while (!echo.textContent) await new Promise(requestAnimationFrame);
      return [getComputedStyle(echo).fontSize, echo.textContent];
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == ["32px", "Hello, WebTransport"]


@in_loop
async def test_the_commands_of_the_documentation_do_what_it_says(tmp_path):
    """As they stand there, but for the port, and with Chromium headless."""
    page = (ROOT / "docs" / "h3.rst").read_text().replace("\\\n", "")
    lines = [
        line.replace("examples/", f"{ROOT}/examples/")
        .replace("chromium ", f"{' '.join(CHROMIUM)} --dump-dom ")
        .replace("python ", f"{sys.executable} ")
        for line in re.findall(r"^   \$ (.*)", page, re.M)
    ]
    certify, start, get, try_webtransport, digest, browse = lines
    shell = ("sh", "-c")
    await run(*shell, f"cd {tmp_path} && {certify}")
    server = await asyncio.create_subprocess_exec(
        *shell,
        f"cd {tmp_path} && exec {start} --port=0",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        url = (await server.stdout.readline()).decode()
        port = url.rstrip("/\n").rpartition(":")[2]

        async def output_of(line):
            line = line.replace("4433", port)
            return await run(*shell, f"cd {tmp_path} && {line}")

        assert "Hello, HTTP/3" in await output_of(get)
        assert await output_of(try_webtransport) == "hello\n" * 3
        await output_of(digest)
        assert "Hello, HTTP/3" in await output_of(browse)
    finally:
        server.terminate()
        await server.wait()


@in_loop
async def test_chromium_goes_on_by_http3_when_the_command_says_it_is_there(
    identity, tmp_path
):
    certificate, key, fingerprint = identity
    pem, site = tmp_path / "cert.pem", tmp_path / "site"
    pem.write_bytes(key + certificate.public_bytes(serialization.Encoding.PEM))
    (site / "page").mkdir(parents=True)
    (site / "data").write_bytes(MEGABYTE)
    script = """
      let got;
      for (let i = 0; i < 100; i++) {
        const response = await fetch("/data", { cache: "no-store" });
        got = await hex(await response.arrayBuffer());
        const entries = performance.getEntriesByType("resource");
        if (entries.at(-1).nextHopProtocol === "h3") break;
      }
      await fetch("/" + got);
    """
    (site / "page" / "index.html").write_text(PAGE.replace("%s", script))
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "nghttp2py", "serve", site),
        *("--http3", "--cert", pem, "--port=0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def log_up_to(end):
        text = ""
        while end not in text:
            line = await asyncio.wait_for(server.stderr.readline(), DEADLINE)
            assert line, text
            text += line.decode()
        return text

    try:
        line = (await server.stdout.readline()).decode()
        port = int(line.split()[2].rstrip("/").rpartition(":")[2])
        # An authority that Chromium does not know will do for QUIC if QUIC is to
        # be forced on a server of this name; its port does not matter.
        async with chromium(tmp_path, port, fingerprint, quic_port=1):
            log = await log_up_to(hashlib.sha256(MEGABYTE).hexdigest())
    finally:
        server.terminate()
        await server.wait()
    assert '"GET /page/ HTTP/2" 200' in log
    assert '"GET /data HTTP/3" 200' in log


# ---- WebTransport ----


@in_loop
async def test_webtransport_streams_and_datagrams_come_back(identity, tmp_path):
    script = """
      const session = new WebTransport(new URL("/wt", location));
      await session.ready;
      const both = await session.createBidirectionalStream();
      const sent = write(both.writable, new TextEncoder().encode("both ways"));
      const echo = text(await readAll(both.readable));
      await sent;
      await write(await session.createUnidirectionalStream(), bytes(300000));
      const incoming = session.incomingUnidirectionalStreams.getReader();
      const oneWay = await hex(await readAll((await incoming.read()).value));
      const datagrams = session.datagrams.writable.getWriter();
      await datagrams.write(new TextEncoder().encode("gram"));
      const gram = text((await session.datagrams.readable.getReader().read()).value);
      session.close({ closeCode: 7, reason: "done" });
      const closed = await session.closed;
      return { echo, oneWay, gram, code: closed.closeCode, reason: closed.reason };
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == {
        "echo": "both ways",
        "oneWay": hashlib.sha256(MEGABYTE[:300000]).hexdigest(),
        "gram": "gram",
        "code": 7,
        "reason": "done",
    }


@in_loop
async def test_the_server_opens_webtransport_streams(identity, tmp_path):
    script = """
      const session = new WebTransport(new URL("/wt", location));
      await session.ready;
      const datagrams = session.datagrams.writable.getWriter();
      await datagrams.write(new TextEncoder().encode("open"));
      const incoming = session.incomingBidirectionalStreams.getReader();
      const stream = (await incoming.read()).value;
      const [echo] = await Promise.all([
        readAll(stream.readable),
        write(stream.writable, new TextEncoder().encode(", and back")),
      ]);
      return text(echo);
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == "from the server, and back"


@in_loop
async def test_webtransport_error_codes_arrive_both_ways(identity, tmp_path):
    script = """
      const session = new WebTransport(new URL("/wt", location));
      await session.ready;
      const codes = [];
      for (const streamErrorCode of [0, 29, 30, 255]) {
        const stream = await session.createBidirectionalStream();
        const writer = stream.writable.getWriter();
        await writer.write(new Uint8Array(1));
        await stream.readable.getReader().read();
        writer.abort(failure(streamErrorCode)).catch(() => 0);
      }
      for (let i = 0; i < 4; i++) {
        const stream = await session.createBidirectionalStream();
        await stream.writable.getWriter().write(new TextEncoder().encode("reset"));
        await stream.readable.getReader().read().catch((error) =>
          codes.push(error.streamErrorCode));
      }
      return codes;
    """
    report, site = await report_of(script, identity, tmp_path)
    assert report == CODES
    assert site.resets == CODES


@in_loop
async def test_the_server_closes_a_webtransport_session(identity, tmp_path):
    script = """
      const session = new WebTransport(new URL("/wt", location));
      await session.ready;
      const datagrams = session.datagrams.writable.getWriter();
      await datagrams.write(new TextEncoder().encode("bye"));
      const closed = await session.closed;
      return [closed.closeCode, closed.reason];
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == [0, "bye"]


@in_loop
async def test_a_refused_webtransport_session_fails(identity, tmp_path):
    script = """
      const session = new WebTransport(new URL("/nowhere", location));
      return await session.ready.then(() => "ready", (error) => error.name);
    """
    report, _ = await report_of(script, identity, tmp_path)
    assert report == "WebTransportError"


@in_loop
async def test_webtransport_trusts_the_hash_of_a_certificate(identity, tmp_path):
    """A server without a trusted authority, on another port than the page's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=13))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    script = """
      const session = new WebTransport("https://127.0.0.1:%d/wt", {
        serverCertificateHashes: [
          { algorithm: "sha-256", value: new Uint8Array(%s) },
        ],
      });
      await session.ready;
      const stream = await session.createBidirectionalStream();
      const sent = write(stream.writable, new TextEncoder().encode("trusted"));
      const echo = text(await readAll(stream.readable));
      await sent;
      return echo;
    """
    other = Site("")
    async with serving(other, certificate, key) as port:
        digest = list(certificate.fingerprint(hashes.SHA256()))
        report, _ = await report_of(script % (port, digest), identity, tmp_path)
    assert report == "trusted"
