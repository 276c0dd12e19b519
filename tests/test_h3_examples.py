"""The programs of examples/ for QUIC and HTTP/3, alone and with aioquic."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aioquic.asyncio
import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import (
    DatagramReceived,
    DataReceived,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from loops import in_loop
from peers import run

from nghttp2py.asyncio import H3Protocol, connect
from nghttp2py.quic.configuration import QuicConfiguration as Configuration

EXAMPLES = Path(__file__).parent.parent / "examples"
STYLE = b"p { font: 2rem system-ui }\n"


@pytest.fixture(scope="module")
def identity(certificates, tmp_path_factory):
    """Files: a certificate for loopback, its key, the authority."""
    _, issued, _, authority = certificates
    directory = tmp_path_factory.mktemp("http3")
    key, chain = directory / "key.pem", directory / "cert.pem"
    issued.private_key_pem.write_to_path(str(key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(chain), append=True)
    return str(chain), str(key), authority


@pytest.fixture(scope="module", params=[[], ["--retry"]], ids=["plain", "retry"])
def server(identity, request):
    """The example's URL, and the file of the authority that vouches for it."""
    certificate, key, authority = identity
    program = subprocess.Popen(
        [
            sys.executable,
            EXAMPLES / "http3_server.py",
            "--port=0",
            "--host=127.0.0.1",
            f"--certificate={certificate}",
            f"--private-key={key}",
            *request.param,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        url = program.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:"), program.stderr.read()
        yield url, authority
        program.terminate()
        assert program.stderr.read() == ""


def fetch(server, *arguments):
    url, authority = server
    paths = [a if a.startswith("-") else url + a for a in arguments]
    return subprocess.run(
        [
            sys.executable,
            EXAMPLES / "http3_client.py",
            f"--ca-certs={authority}",
            *paths,
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )


# ---- Each other ----


def test_a_page_comes_with_its_style(server):
    done = fetch(server, "")
    assert b"Hello, HTTP/3" in done.stdout
    assert b"pushed: /style.css" in done.stderr
    assert b"200 https://" in done.stderr


def test_many_bodies_on_one_connection(server):
    done = fetch(server, "10", "300000", "0", "style.css")
    assert done.stdout == bytes(300010) + STYLE


def test_what_is_posted_comes_back(server):
    done = fetch(server, "--data=some text", "echo")
    assert done.stdout == b"some text"


def test_what_is_not_there(server):
    done = fetch(server, "nowhere")
    assert b"404" in done.stderr


@in_loop
async def test_requests_that_the_server_has_no_answer_for(server):
    url, authority = server
    name = url.removeprefix("https://").rstrip("/")
    configuration = Configuration(alpn_protocols=H3_ALPN, cafile=authority)
    get = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", name.encode())]
    async with connect(
        "127.0.0.1",
        int(name.partition(":")[2]),
        configuration=configuration,
        create_protocol=H3Protocol,
    ) as client:
        for request, status in (
            # A tunnel: it has no path.
            ([(b":method", b"CONNECT"), (b":authority", b"localhost:22")], b"405"),
            # A number that int() would not take.
            ([*get, (b":path", b"/" + b"9" * 5000)], b"404"),
        ):
            stream = await client.open_stream(request, end_stream=True)
            assert dict(await stream.response())[b":status"] == status


def test_webtransport_comes_back_three_times(server):
    done = fetch(server, "--webtransport=there and back", "wt")
    assert done.stdout == b"there and back\n" * 3


def test_a_session_that_the_server_does_not_have(server):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        fetch(server, "--webtransport=x", "nowhere")
    assert b"the session is refused: 404" in failed.value.stderr
    assert b"Traceback" not in failed.value.stderr


# ---- QUIC without HTTP ----


def test_quic_streams_come_back_and_the_session_is_resumed(identity, tmp_path):
    certificate, key, authority = identity
    both = tmp_path / "both.pem"
    both.write_bytes(Path(certificate).read_bytes() + Path(authority).read_bytes())
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", EXAMPLES / "quic_echo.py"),
            *("--certificate", both, "--private-key", key),
        ],
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("hello ") and "session_resumed=False" in first
    assert second.startswith("hello ") and "session_resumed=True" in second
    assert "early_data_accepted=True" in second


# ---- aioquic ----


class TheirClient(QuicConnectionProtocol):
    """aioquic's connection, with all events but those of pushes in one queue."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.events = asyncio.Queue()

    def quic_event_received(self, event):
        for received in self.http.handle_event(event):
            if getattr(received, "push_id", None) is None:
                self.events.put_nowait(received)

    def send_headers(self, authority, path, *headers, end_stream=False):
        stream_id = self._quic.get_next_available_stream_id()
        headers = [
            *headers,
            (b":scheme", b"https"),
            (b":authority", authority),
            (b":path", path),
        ]
        self.http.send_headers(stream_id, headers, end_stream)
        return stream_id

    async def read(self, stream_id=None):
        """Return headers, if there are any, and body of a stream or of any."""
        headers, body = {}, b""
        while True:
            event = await self.events.get()
            if stream_id not in (None, event.stream_id):
                continue
            if isinstance(event, HeadersReceived):
                headers.update(event.headers)
            else:
                body += event.data
            if event.stream_ended:
                return headers, body


@in_loop
async def test_aioquics_client_with_our_server(server):
    url, authority = server
    name = url.removeprefix("https://").rstrip("/")
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, cafile=authority, max_datagram_frame_size=65536
    )
    async with aioquic.asyncio.connect(
        "127.0.0.1",
        int(name.partition(":")[2]),
        configuration=configuration,
        create_protocol=TheirClient,
    ) as client:
        get, post = (b":method", b"GET"), (b":method", b"POST")
        stream_id = client.send_headers(name.encode(), b"/", get, end_stream=True)
        client.transmit()
        headers, body = await client.read(stream_id)
        assert headers[b"content-type"] == b"text/html"
        assert b"Hello, HTTP/3" in body

        upload = bytes(range(256)) * 4000
        stream_id = client.send_headers(name.encode(), b"/echo", post)
        client.http.send_data(stream_id, upload, end_stream=True)
        client.transmit()
        assert (await client.read(stream_id))[1] == upload

        connect = [(b":method", b"CONNECT"), (b":protocol", b"webtransport")]
        session_id = client.send_headers(name.encode(), b"/wt", *connect)
        client.transmit()
        event = await client.events.get()
        assert dict(event.headers)[b":status"] == b"200"
        # Not a bidirectional stream: aioquic takes what comes back for frames.
        stream_id = client.http.create_webtransport_stream(session_id, True)
        client._quic.send_stream_data(stream_id, b"echo", end_stream=True)
        client.transmit()
        assert await client.read() == ({}, b"echo")
        client.http.send_datagram(session_id, b"gram")
        client.transmit()
        assert await client.events.get() == DatagramReceived(b"gram", session_id)


class TheirServer(QuicConnectionProtocol):
    """What the example's server does, on aioquic: no pushes."""

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic, enable_webtransport=True)
            self.paths = {}
        for received in self.http.handle_event(event):
            self.h3_event_received(received)

    def h3_event_received(self, event):
        if isinstance(event, HeadersReceived):
            headers = dict(event.headers)
            self.paths[event.stream_id] = headers[b":path"]
            self.http.send_headers(event.stream_id, [(b":status", b"200")])
            if event.stream_ended:
                body = bytes(int(headers[b":path"][1:]))
                self.http.send_data(event.stream_id, body, end_stream=True)
        elif isinstance(event, DataReceived):
            if self.paths[event.stream_id] == b"/echo":
                self.http.send_data(event.stream_id, event.data, event.stream_ended)
        elif isinstance(event, DatagramReceived):
            self.http.send_datagram(event.stream_id, event.data)
        elif isinstance(event, WebTransportStreamDataReceived):
            stream_id = event.stream_id
            if stream_id & 2:
                assert event.stream_ended
                stream_id = self.http.create_webtransport_stream(event.session_id, True)
            self._quic.send_stream_data(stream_id, event.data, event.stream_ended)


@in_loop
async def test_our_client_with_aioquics_server(identity):
    certificate, key, authority = identity
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536
    )
    configuration.load_cert_chain(certificate, key)
    server = await aioquic.asyncio.serve(
        "127.0.0.1", 0, configuration=configuration, create_protocol=TheirServer
    )
    port = server._transport.get_extra_info("sockname")[1]
    url = f"https://127.0.0.1:{port}/"
    program = (sys.executable, EXAMPLES / "http3_client.py", f"--ca-certs={authority}")
    try:
        assert await run(*program, f"{url}7", f"{url}300000") == "\0" * 300007
        upload = "x" * 100_000
        assert await run(*program, f"--data={upload}", f"{url}echo") == upload
        echo = await run(*program, "--webtransport=there and back", f"{url}wt")
        assert echo == "there and back\n" * 3
    finally:
        server.close()
