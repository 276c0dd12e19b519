"""ngtcp2's own programs, gtlsclient and gtlsserver, as peers over loopback."""

import asyncio
import contextlib
import hashlib
import random
import signal
import socket

import pytest
from loops import in_loop, until
from peers import free_port, program
from quic_pair import client_configuration, identity, server_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.h3 import H3_ALPN, H3Connection
from nghttp2py.h3.events import DataReceived, HeadersReceived
from nghttp2py.quic.events import ProtocolNegotiated
from nghttp2py.quic.tls import SessionTicket

LARGE = random.Random(1).randbytes(5_000_000)
FILES = {b"/": b"hello\n", b"/large": LARGE}


class Server(QuicConnectionProtocol):
    """Answers GET with one of FILES."""

    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if isinstance(received, HeadersReceived):
                body = FILES[dict(received.headers)[b":path"]]
                self.http.send_headers(
                    received.stream_id,
                    [(b":status", b"200"), (b"content-length", b"%d" % len(body))],
                )
                self.http.send_data(received.stream_id, body, end_stream=True)
        self.transmit()


class Client(QuicConnectionProtocol):
    """Gets files."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic)
        self.bodies = {}
        self.done = {}

    def quic_event_received(self, event):
        for received in self.http.handle_event(event):
            if isinstance(received, DataReceived):
                self.bodies[received.stream_id] += received.data
            if getattr(received, "stream_ended", False):
                self.done[received.stream_id].set_result(
                    bytes(self.bodies[received.stream_id])
                )

    async def get(self, path):
        stream_id = self._quic.get_next_available_stream_id()
        self.bodies[stream_id] = bytearray()
        self.done[stream_id] = asyncio.get_running_loop().create_future()
        self.http.send_headers(
            stream_id,
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path),
            ],
            end_stream=True,
        )
        self.transmit()
        return await self.done[stream_id]


@contextlib.asynccontextmanager
async def our_server(**arguments):
    server = await serve(
        "127.0.0.1",
        0,
        configuration=server_configuration(
            alpn_protocols=H3_ALPN, session_ticket_key=bytes(64)
        ),
        create_protocol=Server,
        session_ticket_handler=lambda ticket: None,
        **arguments,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def gtlsclient(port, *options, paths=("/",)):
    """Run gtlsclient to its end; what it has said."""
    process = await asyncio.create_subprocess_exec(
        program("gtlsclient"),
        "--exit-on-all-streams-close",
        "--no-quic-dump",
        "--no-http-dump",
        *options,
        "127.0.0.1",
        str(port),
        *(f"https://localhost:{port}{path}" for path in paths),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")[-3000:]
    return said.decode(errors="replace")


# What it does, and what it then says.
CLIENTS = {
    "plain": ([], "negotiated version is 0x00000001"),
    "v2": (["--version=v2"], "negotiated version is 0x6b3343cf"),
    "both versions": (
        ["--version=v1", "--available-versions=v1,v2"],
        "negotiated version is 0x00000001",
    ),
    "unknown version": (
        ["--version=0x1a2a3a4a", "--preferred-versions=v2,v1"],
        "type=VN",
    ),
    "key update": (
        ["--key-update=20ms", "--delay-stream=500ms"],
        "key update confirmed",
    ),
    "migration": (
        ["--change-local-addr=20ms", "--delay-stream=500ms"],
        "path has been validated",
    ),
    "rebinding": (
        ["--change-local-addr=20ms", "--nat-rebinding", "--delay-stream=500ms"],
        "Local address is now",
    ),
    "loss": (["--tx-loss=0.1", "--rx-loss=0.1"], "negotiated version"),
    "chacha": (
        ["--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"],
        "cipher suite is CHACHA20",
    ),
    "no connection id": (["--scid="], "dcid=0x scid"),
}


@pytest.mark.parametrize(("options", "sign"), CLIENTS.values(), ids=CLIENTS)
@in_loop
async def test_gtlsclient_gets_a_page(options, sign):
    async with our_server() as port:
        said = await gtlsclient(port, *options)
    assert "[:status: 200]" in said
    assert sign in said


@in_loop
async def test_gtlsclient_proves_its_address():
    async with our_server(retry=True) as port:
        assert "type=Retry" in await gtlsclient(port)


@in_loop
async def test_gtlsclient_comes_back_with_a_token(tmp_path):
    token = f"--token-file={tmp_path / 'token'}"
    async with our_server(retry=True) as port:
        said = [await gtlsclient(port, token) for _ in range(2)]
    assert ["type=Retry" in text for text in said] == [True, False]


@pytest.mark.parametrize("loss", ["0", "0.02"])
@in_loop
async def test_gtlsclient_gets_large_files(loss, tmp_path):
    async with our_server() as port:
        await gtlsclient(
            port,
            f"--download={tmp_path}",
            f"--rx-loss={loss}",
            "--quiet",
            paths=["/large"],
        )
        digest = hashlib.sha256((tmp_path / "large").read_bytes()).digest()
        assert digest == hashlib.sha256(LARGE).digest()


@in_loop
async def test_gtlsclient_resumes_with_early_data(tmp_path):
    files = [
        f"--session-file={tmp_path / 'session'}",
        f"--tp-file={tmp_path / 'params'}",
    ]
    async with our_server() as port:
        await gtlsclient(port, *files, "--wait-for-ticket")
        said = await gtlsclient(port, *files)
        assert "0RTT" in said
        assert "Early data was rejected" not in said


@contextlib.asynccontextmanager
async def gtlsserver(tmp_path, *options):
    """A running gtlsserver; its port."""
    chain, key = identity()
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "htdocs").mkdir()
    for path, body in FILES.items():
        name = path.decode().lstrip("/") or "index.html"
        (tmp_path / "htdocs" / name).write_bytes(body)
    port = free_port(socket.SOCK_DGRAM)
    process = await asyncio.create_subprocess_exec(
        program("gtlsserver"),
        "--quiet",
        f"--htdocs={tmp_path / 'htdocs'}",
        *options,
        "127.0.0.1",
        str(port),
        str(tmp_path / "key.pem"),
        str(tmp_path / "chain.pem"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def get_from(port, **arguments):
    fields = arguments.pop("fields", {})
    return connect(
        "127.0.0.1",
        port,
        configuration=client_configuration(alpn_protocols=H3_ALPN, **fields),
        create_protocol=Client,
        **arguments,
    )


SERVERS = {
    "plain": [],
    "retry": ["--validate-addr"],
    "v2": ["--preferred-versions=v2"],
    "loss": ["--tx-loss=0.1", "--rx-loss=0.1"],
}


@pytest.mark.parametrize("options", SERVERS.values(), ids=SERVERS)
@in_loop
async def test_gtlsserver_answers(options, tmp_path):
    async with gtlsserver(tmp_path, *options) as port, get_from(port) as client:
        assert await client.get(b"/") == b"hello\n"
        client.request_key_update()
        await client.ping()
        client.change_connection_id()
        await client.ping()
        assert await client.get(b"/") == b"hello\n"


@in_loop
async def test_a_server_without_x25519_asks_for_another_key_share(tmp_path):
    """RFC 8446, 4.1.4: we offer one."""
    groups = "--groups=-GROUP-ALL:+GROUP-SECP256R1"
    async with gtlsserver(tmp_path, groups) as port, get_from(port) as client:
        assert await client.get(b"/") == b"hello\n"


@in_loop
async def test_gtlsserver_negotiates_the_version(tmp_path):
    fields = {"original_version": 0x1A2A3A4A}
    async with gtlsserver(tmp_path) as port, get_from(port, fields=fields) as client:
        assert await client.get(b"/") == b"hello\n"


@in_loop
async def test_gtlsserver_follows_a_client_that_moves(tmp_path):
    """RFC 9000, 9: the client's address changes in the middle of a transfer."""
    async with gtlsserver(tmp_path) as port, get_from(port) as client:
        old = client._transport
        getting = asyncio.ensure_future(client.get(b"/large"))
        await until(lambda: len(client.bodies.get(0, b"")) > 100_000)
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setblocking(False)
        sock.bind(("::", 0))
        moved = UDPTransport(asyncio.get_running_loop(), sock, client)
        old.close()
        client.change_connection_id()
        assert await getting == LARGE
        assert await client.get(b"/") == b"hello\n"
    moved.close()


@pytest.mark.parametrize("options", [[], ["--tx-loss=0.02", "--rx-loss=0.02"]])
@in_loop
async def test_gtlsserver_sends_large_files(options, tmp_path):
    async with gtlsserver(tmp_path, *options) as port, get_from(port) as client:
        bodies = await asyncio.gather(*(client.get(b"/large") for _ in range(3)))
        for body in bodies:
            assert hashlib.sha256(body).digest() == hashlib.sha256(LARGE).digest()


@in_loop
async def test_gtlsserver_takes_early_data_or_refuses_them(tmp_path):
    tickets: list[SessionTicket] = []
    taken = []
    for restart in (False, True):
        (tmp_path / str(restart)).mkdir()
        async with gtlsserver(tmp_path / str(restart)) as port:
            if not restart:
                async with get_from(
                    port, session_ticket_handler=tickets.append
                ) as client:
                    assert await client.get(b"/") == b"hello\n"
            # A server that was started anew has another key for its tickets.
            async with get_from(
                port, fields={"session_ticket": tickets[0]}, wait_connected=False
            ) as client:
                assert await client.get(b"/") == b"hello\n"
                taken.append(client._quic.tls.early_data_accepted)
    assert taken == [True, False]
