"""TLS of servers: handshakes good and bad, what a context must have, what it costs."""

import asyncio
import contextlib
import datetime
import gc
import logging
import socket
import ssl
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest
from handlers import Good
from loops import DEADLINE, in_loop, in_loops, in_virtual_time, until
from memory import MemoryTransport
from virtual_time import pass_time

from nghttp2py import HTTP2Client
from nghttp2py.asyncio import Client, open_connection, start_server
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.tls import (
    ClientHello,
    check_server_context,
    find_tls_fault,
    is_prohibited,
    prepare_server_context,
)
from nghttp2py.asyncio.tls_transport import MAX_HANDSHAKE, ServerTLS, TLSTransport
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    NGHTTP2Error,
    TLSConfigurationError,
)
from nghttp2py.log_budget import LogBudget
from nghttp2py.server import BaseRequestHandler, HTTP2Server

GET = {":method": "GET", ":path": "/"}
TLS_LOGGER = "nghttp2py.asyncio.tls_transport"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def port_of(server):
    return server.sockets[0].getsockname()[1]


def serve(tls, handler=Good, **options):
    return HTTP2Server(("127.0.0.1", 0), handler, ssl=tls.server, **options)


async def fetch(port, context, host="127.0.0.1"):
    async with await open_connection(host, port, ssl=context) as client:
        stream = await client.open_stream(GET)
        await stream.end_stream()
        return await stream.read()


async def shake_hands(port, context):
    """Make a TLS connection; return what it fails with, or what it negotiated."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (OSError, ssl.SSLError) as error:
        return error
    found = writer.get_extra_info("ssl_object")
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    return found


# ---- A transport in memory ----


class Recorder(asyncio.Protocol):
    """The protocol above TLS: keeps what it is told."""

    def __init__(self):
        self.transport = None
        self.received = bytearray()
        self.pieces = 0
        self.calls = []
        self.stays_open = False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        self.pieces += 1

    def eof_received(self):
        self.calls.append("eof")
        return self.stays_open

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append(("lost", exc))


class Tcp(MemoryTransport):
    """A plain transport in memory that can be half-closed, and paused."""

    reading = True
    eof = False

    def write_eof(self):
        self.eof = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Link:
    """A TLS connection in memory: a server's transport, and a client's TLS."""

    def __init__(self, tls, *, factory=Recorder, handshake_timeout=10.0):
        self.lost = 0
        self.shared = ServerTLS(
            tls.server,
            factory,
            handshake_timeout=handshake_timeout,
            lost=self.count,
        )
        self.transport = self.shared.protocol()
        self.tcp = Tcp(self.transport)
        self.transport.connection_made(self.tcp)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = tls.client.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    def count(self):
        self.lost += 1

    def feed(self, data):
        """Let bytes come in at the server, as a BufferedProtocol is given them."""
        data = memoryview(data)
        while data:
            buffer = self.transport.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.transport.buffer_updated(size)
            data = data[size:]

    def exchange(self):
        self.feed(self.outgoing.read())
        self.incoming.write(self.tcp.take())

    def shake_hands(self):
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.exchange()
        return self.protocol

    @property
    def protocol(self):
        return self.transport.get_protocol()

    def send(self, data):
        self.client.write(data)
        self.feed(self.outgoing.read())

    def receive(self):
        self.incoming.write(self.tcp.take())
        received = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.client.read(65536):
                received += data
        return bytes(received)


@in_loop
async def test_a_write_that_fails_at_once_ends_the_connection(tls, monkeypatch):
    monkeypatch.setattr("nghttp2py.asyncio.tls_transport._LINGER", 0.05)

    class Broken:
        def write(self, data):
            error = ssl.SSLError("on purpose")
            error.reason = "INTERNAL_ERROR"
            raise error

    class Greeting(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport._tls = Broken()
            transport.write(b"hello")

    link = Link(tls, factory=Greeting)
    link.shake_hands()
    await until(lambda: link.lost)
    assert link.shared.connections == set()


@pytest.mark.parametrize("version", VERSIONS)
@in_loop
async def test_bytes_go_both_ways(tls, version):
    tls.client.maximum_version = tls.client.minimum_version = version
    link = Link(tls)
    protocol = link.shake_hands()
    assert protocol.transport is link.transport and not link.lost
    assert link.shared.connections == {link.transport}
    sent = bytes(range(256)) * 1500  # 384,000 bytes: many records
    link.send(sent)
    assert protocol.received == sent
    for size in 0, 1, 16384, 16385, 100_000:
        for kind in bytes, bytearray, memoryview:
            link.transport.write(kind(sent[:size]))
            assert link.receive() == sent[:size]
    link.transport.writelines([b"a", b"", b"bc"])
    assert link.receive() == b"abc"
    link.transport.close()
    await asyncio.sleep(0)
    assert link.lost == 1 and not link.shared.connections


@pytest.mark.parametrize("size", [1, 5, 100, 16384])
@in_loop
async def test_records_in_pieces_are_put_together(tls, size):
    link = Link(tls)
    protocol = link.shake_hands()
    sent = bytes(range(256)) * 100
    link.client.write(sent)
    encrypted = link.outgoing.read()
    for start in range(0, len(encrypted), size):
        link.feed(encrypted[start : start + size])
    assert protocol.received == sent
    link.transport.abort()
    await asyncio.sleep(0)


@in_loop
async def test_what_is_known_of_a_connection(tls):
    link = Link(tls)
    link.shake_hands()
    info = link.transport.get_extra_info
    assert info("peername") == ("192.0.2.1", 40000)
    assert info("ssl_object").version() == "TLSv1.3"
    assert info("cipher")[1] == "TLSv1.3"
    assert info("sslcontext") is tls.server
    assert info("compression") is None
    assert info("peercert") is None
    assert info("unknown", 5) == 5
    link.transport.close()
    await asyncio.sleep(0)
    assert info("peername") == ("192.0.2.1", 40000)
    assert info("cipher")[1] == "TLSv1.3"
    assert info("ssl_object") is None


@in_loop
async def test_nothing_is_delivered_while_reading_is_paused(tls):
    link = Link(tls)
    protocol = link.shake_hands()
    protocol.data_received = lambda data: (
        protocol.received.extend(data),
        link.transport.pause_reading(),
    )
    link.send(b"a" * 2_000_000)
    assert 0 < len(protocol.received) <= 262144
    assert not link.tcp.reading and not link.transport.is_reading()
    while len(protocol.received) < 2_000_000:
        before = len(protocol.received)
        link.transport.resume_reading()
        assert len(protocol.received) == before  # not in the caller's call
        await asyncio.sleep(0)
        assert len(protocol.received) > before
    link.transport.abort()
    await asyncio.sleep(0)


@in_loop
async def test_writing_is_paused_with_the_connection_below(tls):
    link = Link(tls)
    protocol = link.shake_hands()
    link.transport.set_write_buffer_limits(high=1000)
    link.transport.write(b"a" * 5000)
    assert protocol.calls == ["pause"]
    assert link.transport.get_write_buffer_size() > 5000
    assert link.receive() == b"a" * 5000
    assert protocol.calls == ["pause", "resume"]
    link.transport.close()
    await asyncio.sleep(0)


@in_loop
async def test_close_says_so_by_close_notify(tls):
    link = Link(tls)
    protocol = link.shake_hands()
    link.transport.write(b"last")
    link.transport.close()
    link.transport.close()
    assert link.transport.is_closing()
    link.transport.write(b"not sent")
    link.incoming.write(link.tcp.take())
    assert link.client.read(100) == b"last"
    assert link.client.read(100) == b""  # close_notify
    await asyncio.sleep(0)
    assert protocol.calls == [("lost", None)]
    link.transport.close()
    link.transport.abort()
    link.transport.write(b"not sent")


@pytest.mark.parametrize("version", VERSIONS)
@in_loop
async def test_half_closed_it_still_reads(tls, version):
    tls.client.maximum_version = tls.client.minimum_version = version
    link = Link(tls)
    protocol = link.shake_hands()
    protocol.stays_open = True
    assert link.transport.can_write_eof()
    link.transport.write(b"last")
    link.transport.write_eof()
    link.transport.write_eof()
    assert link.tcp.eof and not link.tcp.closing
    link.incoming.write(link.tcp.take())
    assert link.client.read(100) == b"last"
    assert link.client.read(100) == b""
    link.send(b"still read")
    assert protocol.received == b"still read"
    with pytest.raises(RuntimeError):
        link.transport.write(b"more")
    with contextlib.suppress(ssl.SSLError):
        link.client.unwrap()
    link.feed(link.outgoing.read())
    assert protocol.calls == ["eof"]
    assert link.transport.eof_received()  # TCP's, which comes after it
    link.transport.close()
    await asyncio.sleep(0)
    assert protocol.calls == ["eof", ("lost", None)]


@in_loop
async def test_half_closed_while_it_reads_it_reads_on(tls):
    link = Link(tls)
    protocol = link.shake_hands()

    def received(data):
        protocol.received += data
        link.transport.write_eof()

    protocol.data_received = received
    link.send(b"a" * 200_000)
    assert len(protocol.received) == 200_000
    assert link.tcp.eof
    link.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("stays_open", [False, True])
@in_loop
async def test_the_peers_close_notify_is_its_end(tls, stays_open):
    link = Link(tls)
    protocol = link.shake_hands()
    protocol.stays_open = stays_open
    link.client.write(b"last")
    with contextlib.suppress(ssl.SSLError):
        link.client.unwrap()
    link.feed(link.outgoing.read())
    assert protocol.received == b"last"
    assert protocol.calls == ["eof"]
    assert link.transport.is_closing() is not stays_open
    link.feed(b"no TLS at all")
    link.transport.close()
    await asyncio.sleep(0)


@in_loop
async def test_broken_records_end_the_connection(tls, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    link = Link(tls)
    protocol = link.shake_hands()
    link.send(b"good")
    link.feed(b"\x17\x03\x03\0\x20" + bytes(32))
    assert link.transport.is_closing() and link.tcp.eof
    assert link.tcp.sent  # the alert
    link.feed(b"more")
    link.transport.abort()
    await asyncio.sleep(0)
    assert protocol.received == b"good"
    ((what, error),) = protocol.calls
    assert what == "lost" and isinstance(error, ssl.SSLError)
    assert "TLS failed" in caplog.text


@in_loop
async def test_a_protocol_with_a_buffer_of_its_own_is_fed(tls):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(1000)
            self.received = bytearray()

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.received += self.buffer[:nbytes]

    link = Link(tls, factory=Buffered)
    protocol = link.shake_hands()
    link.send(b"abc" * 5000)
    assert protocol.received == b"abc" * 5000
    link.transport.abort()
    await asyncio.sleep(0)


@in_loop
async def test_answers_that_the_peer_does_not_read_are_bounded(tls):
    """Those to KeyUpdate (RFC 8446, 4.6.3) are written for as long as it asks."""
    link = Link(tls)
    link.shake_hands()
    link.transport.pause_writing()

    class Pending:
        pending = 20_000

        def read(self):
            return bytes(self.pending)

    link.transport._outgoing = Pending()
    for _ in range(3):
        link.transport._answer()
        assert not link.transport.is_closing()
    link.transport._answer()
    assert link.transport.is_closing() and link.tcp.aborted
    await asyncio.sleep(0)


# ---- Handshakes that fail ----


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01"])
@in_loops
async def test_a_handshake_has_a_deadline(tls, sent, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    async with serve(tls, timeouts=Timeouts(handshake=0.2)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert "no handshake in 0.2 seconds" in caplog.text
        await until(lambda: not server._listener.count)
        assert await fetch(port_of(server), tls.client) == b"good"


@in_virtual_time
async def test_a_handshake_of_drips_has_the_same_deadline(tls):
    async with await start_server(
        lambda proto: proto.wait_closed(),
        "127.0.0.1",
        0,
        ssl=tls.server,
        ssl_handshake_timeout=0.3,
    ) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        reading = asyncio.ensure_future(reader.read())
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(1000):
            if reading.done():
                break
            writer.write(bytes([byte]))
            await pass_time(0.02)
        await asyncio.wait([reading])
        assert reading.exception() or reading.result() == b""
        writer.close()


@in_loop
async def test_a_handshake_has_a_bound_of_bytes(tls, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    link = Link(tls)
    # A ClientHello in many records, of which each brings a byte.
    link.feed(b"\x16\x03\x01\0\4\1\1\xff\xff")
    for _ in range(MAX_HANDSHAKE // 6 + 1):
        link.feed(b"\x16\x03\x01\0\1\0")
    assert link.transport.is_closing()
    link.transport.abort()
    await asyncio.sleep(0)
    assert "TLS failed" in caplog.text
    assert link.lost == 1 and not link.shared.connections


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP request in the clear"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not TLS"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
    ],
)
@in_loops
async def test_a_handshake_that_fails_is_a_line_of_the_log(tls, sent, text, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    async with serve(tls) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await until(lambda: not server._listener.count)
    (record,) = [r for r in caplog.records if r.name == TLS_LOGGER]
    assert record.levelno == logging.INFO
    assert "('127.0.0.1', " in record.getMessage() and text in record.getMessage()


@in_loops
async def test_a_client_that_does_not_trust_the_certificate_is_a_line(tls, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)

    def connect():
        # curl is no such client: lately it completes the handshake before it looks.
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        where = "127.0.0.1", port_of(server)
        with (
            socket.create_connection(where, DEADLINE) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            stranger.wrap_socket(plain, server_hostname="localhost")

    async with serve(tls) as server:
        await asyncio.to_thread(connect)
        await until(lambda: not server._listener.count)
    (record,) = [r for r in caplog.records if r.name == TLS_LOGGER]
    assert "unknown ca" in record.getMessage()
    assert record.levelno == logging.INFO


def test_a_client_that_finds_our_certificate_expired_is_a_warning(tls, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    shared = ServerTLS(tls.server, Recorder, handshake_timeout=1, lost=list)
    for _ in range(3):
        error = ssl.SSLError(1, "text")
        error.reason = "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        shared.report(("192.0.2.1", 1), error)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


def test_lines_that_peers_cause_have_a_bound(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    logger = logging.getLogger("nghttp2py.test")
    logger.setLevel(logging.INFO)
    budget = LogBudget(logger, logging.INFO, 3, 10.0)
    for n in range(100):
        budget.log("line %d", n)
    assert [r.getMessage() for r in caplog.records] == ["line 0", "line 1", "line 2"]
    now[0] = 10.0
    budget.log("line %d", 100)
    assert "97 lines" in caplog.records[-1].getMessage()
    logger.setLevel(logging.WARNING)
    budget.log("not seen")
    assert len(caplog.records) == 4


@in_loops
async def test_a_server_that_closes_waits_for_no_silent_client(tls):
    async with serve(tls, close_timeout=100) as server:
        silent = await asyncio.open_connection("127.0.0.1", port_of(server))
        await until(lambda: server._listener.count == 1)
        await until(lambda: not server._listener._opening)
        server.close()
        await server.wait_closed()
        silent[1].close()


@in_loops
async def test_a_handshake_under_way_may_be_completed_after_close(tls):
    """Its client is told by GOAWAY, which says that nothing was processed."""
    async with serve(tls) as server:
        client = tls.client.wrap_bio(
            incoming := ssl.MemoryBIO(),
            outgoing := ssl.MemoryBIO(),
            server_hostname="localhost",
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        tls.client.set_alpn_protocols(["h2"])
        received = b""
        closed = False
        while b"\0\0\x08\7" not in received:
            try:
                if client.version() is None or not closed:
                    client.do_handshake()
                received += client.read(4096)
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
                if not closed:
                    closed = True
                    server.close()
            if incoming.eof:
                break
        writer.close()
        assert b"\0\0\x08\7" in received
    assert closed


# ---- What a server's context must have ----


def test_a_context_for_clients_is_refused(tls):
    with pytest.raises(TLSConfigurationError, match="for clients") as info:
        HTTP2Server(("127.0.0.1", 0), Good, ssl=ssl.create_default_context())
    assert isinstance(info.value, NGHTTP2Error) and isinstance(info.value, ValueError)


@in_loops
async def test_a_context_for_clients_is_refused_by_start_server():
    with pytest.raises(TLSConfigurationError, match="for clients"):
        await start_server(list, "127.0.0.1", 0, ssl=ssl.create_default_context())


@in_loops
async def test_a_context_for_servers_is_refused_by_clients(tls):
    with pytest.raises(TLSConfigurationError, match="for servers"):
        await open_connection("127.0.0.1", 1, ssl=tls.server)
    with pytest.raises(TLSConfigurationError, match="for servers"):
        HTTP2Client(("127.0.0.1", 1), ssl=tls.server)
    async with Client("https://127.0.0.1:1", ssl=tls.server) as client:
        with pytest.raises(TLSConfigurationError, match="for servers"):
            await client.get("/")


@pytest.mark.parametrize("maximum", VERSIONS)
@in_loops
async def test_a_context_without_a_certificate_is_refused(maximum):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = maximum
    server = HTTP2Server(("127.0.0.1", 0), Good, ssl=context)
    with pytest.raises(TLSConfigurationError, match="load_cert_chain"):
        await server.start()
    assert server.sockets == ()
    with pytest.raises(TLSConfigurationError, match="load_cert_chain"):
        await start_server(list, "127.0.0.1", 0, ssl=context)


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
@in_loop
async def test_a_good_context_is_taken(tls, required, version, caplog):
    tls.server.minimum_version = tls.server.maximum_version = version
    tls.server.load_verify_locations(tls.authority)
    if required:
        tls.server.verify_mode = ssl.CERT_REQUIRED
    async with serve(tls):
        assert not [r for r in caplog.records if r.levelno > logging.INFO]


@in_loop
async def test_certificates_may_come_by_the_name_that_is_asked_for(tls):
    """Then the context itself has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    prepare_server_context(tls.server)

    def choose(connection, name, _):
        connection.context = tls.server

    context.sni_callback = choose
    tls.client.check_hostname = False
    async with HTTP2Server(("127.0.0.1", 0), Good, ssl=context) as server:
        assert await fetch(port_of(server), tls.client, host="localhost") == b"good"


def context_with_validity(tmp_path, begin, end):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + datetime.timedelta(days=begin))
        .not_valid_after(now + datetime.timedelta(days=end))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        (-10, -1, "has expired on 20"),
        (1, 10, "is not valid before 20"),
        (-1, 36500, None),
        (-1, 1, None),
    ],
)
def test_a_certificate_out_of_its_time_is_a_warning(tmp_path, begin, end, text, caplog):
    check_server_context(context_with_validity(tmp_path, begin, end))
    if text is None:
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert text in record.getMessage() and record.levelno == logging.WARNING


# ---- Cipher suites and ALPN ----


@pytest.mark.parametrize(
    ("cipher", "prohibited"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", False),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", False),
        ("DHE-RSA-AES256-CCM8", False),
        ("AES128-GCM-SHA256", True),
        ("ECDHE-RSA-AES128-SHA256", True),
        ("ADH-AES128-GCM-SHA256", True),
        ("DHE-RSA-AES256-SHA", True),
        ("PSK-AES128-GCM-SHA256", True),
    ],
)
def test_suites_of_appendix_a_are_known(cipher, prohibited):
    assert is_prohibited(cipher) is prohibited


@in_loops
async def test_a_server_offers_no_suite_of_appendix_a(tls, caplog):
    caplog.set_level(logging.INFO, TLS_LOGGER)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    tls.client.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.client.set_alpn_protocols(["h2"])
    async with serve(tls) as server:
        tls.client.set_ciphers("AES128-GCM-SHA256:ECDHE+AES+SHA256")
        failure = await shake_hands(port_of(server), tls.client)
        assert isinstance(failure, OSError), failure
        # That a client likes one better does not matter.
        tls.client.set_ciphers("AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE")
        found = await shake_hands(port_of(server), tls.client)
        assert not is_prohibited(found.cipher()[0])
    assert "no cipher suite that both sides support" in caplog.text


@in_loops
async def test_a_client_refuses_a_suite_of_appendix_a(tls):
    async def quiet(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    tls.server.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.server.set_ciphers("ECDHE+AES+SHA256:!AESGCM:!AESCCM:ECDHE+SHA")
    tls.server.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(quiet, "127.0.0.1", 0, ssl=tls.server)
    async with server:
        with pytest.raises(ConnectionTerminatedError) as info:
            await open_connection("127.0.0.1", port_of(server), ssl=tls.client)
    assert info.value.error_code == ErrorCode.INADEQUATE_SECURITY
    assert "9.2.2" in info.value.reason


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        (None, "offered no protocol by ALPN"),
        (["http/1.1"], "offered http/1.1 by ALPN, not h2"),
        (["http/1.0", "x\x1by"], r"offered http/1.0, x\x1by by ALPN, not h2"),
    ],
)
@in_loops
async def test_a_client_without_h2_is_told_by_what_it_offers(
    tls, offered, text, caplog
):
    caplog.set_level(logging.INFO, "nghttp2py.asyncio.pump")
    context = ssl.create_default_context(cafile=tls.authority)
    if offered is not None:
        context.set_alpn_protocols(offered)
    async with serve(tls) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(server), ssl=context
        )
        assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert text in caplog.text


@in_loops
async def test_a_server_that_closes_waits_for_the_clients_that_it_refused(tls):
    context = ssl.create_default_context(cafile=tls.authority)
    async with await start_server(
        lambda proto: proto.wait_closed(), "127.0.0.1", 0, ssl=tls.server
    ) as server:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(server), ssl=context
        )
        await until(lambda: server._listener.count)
        server.close()
        await server.wait_closed()
        assert not server._listener._tls.connections
        writer.close()


@pytest.mark.parametrize("size", [1, 7, 300])
def test_the_offer_is_read_of_any_records(tls, size):
    """And of no beginning of them, nor of anything else."""
    tls.client.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    client = tls.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    message = outgoing.read()[5:]
    records = b"".join(
        b"\x16\x03\x01"
        + len(message[i : i + size]).to_bytes(2, "big")
        + message[i : i + size]
        for i in range(0, len(message), size)
    )
    assert ClientHello(records).read_alpn_offer() == ["h2", "http/1.1"]
    for end in range(0, len(records) - 1, 97):
        assert ClientHello(records[:end]).read_alpn_offer() is None
    assert ClientHello(b"GET / HTTP/1.1\r\n\r\n").read_alpn_offer() is None


def test_tls_without_alpn_is_the_clients_fault_only_if_it_is_a_server():
    class Fake:
        server_side = False

        def selected_alpn_protocol(self):
            return None

    transport = MemoryTransport(None, ssl_object=Fake())
    code, text, _ = find_tls_fault(transport)
    assert code == ErrorCode.HTTP_1_1_REQUIRED and "the server has not" in text


# ---- Over sockets ----


@pytest.mark.parametrize("version", VERSIONS)
@in_loops
async def test_large_bodies_go_both_ways_over_tls(tls, version):
    tls.client.minimum_version = tls.client.maximum_version = version
    size = 3_000_000

    async def echo(stream):
        await stream.send_response(200, {}, await stream.read())

    async with (
        await start_server(
            lambda proto: proto.serve_streams(echo), "127.0.0.1", 0, ssl=tls.server
        ) as server,
        await open_connection("127.0.0.1", port_of(server), ssl=tls.client) as client,
    ):
        stream = await client.open_stream({":method": "POST", ":path": "/"})
        body = bytes(range(250)) * (size // 250)
        await stream.send_body(body)
        assert await stream.read() == body


@in_loops
async def test_a_connection_leaves_nothing_for_the_collector(tls):
    """A large heap is collected seldom, and OpenSSL's memory is not of it."""
    kept = []

    class Handler(BaseRequestHandler):
        def on_request_done(self):
            kept.append(weakref.ref(self.http2))
            kept.append(weakref.ref(self.http2.transport))
            self.send_response(body=b"good")

    async with serve(tls, Handler) as server:
        gc.collect()
        gc.disable()
        try:
            assert await fetch(port_of(server), tls.client) == b"good"
            failure = await asyncio.open_connection("127.0.0.1", port_of(server))
            failure[1].write(b"GET / HTTP/1.1\r\n\r\n")
            await failure[0].read()
            failure[1].close()
            assert isinstance(kept[1](), TLSTransport) or kept[1]() is None
            await until(lambda: not server._listener.count)
            await until(lambda: kept[1]() is None)
            transports = [o for o in gc.get_objects() if type(o) is TLSTransport]
            assert not transports
        finally:
            gc.enable()


IDLE = """
    import asyncio, resource, ssl, sys
    from loops import until
    from nghttp2py.server import BaseRequestHandler, HTTP2Server

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def handshake(*contexts):
        # Both ends, and what lies between them.
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = contexts[0].wrap_bio(there, back, server_side=True)
        client = contexts[1].wrap_bio(back, there)
        for end in (client, server, client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
        try:
            client.read(1)
        except ssl.SSLWantReadError:
            pass
        return server, client, there, back

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        # OpenSSL's share grows with its versions, and is not ours to bound.
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        kept = [handshake(context, client) for _ in range(50)]
        before = resident()
        kept += [handshake(context, client) for _ in range(100)]
        of_openssl = (resident() - before) // 200
        # Clients that say nothing are let be.
        server = HTTP2Server(
            ("127.0.0.1", 0), BaseRequestHandler, context, settings_timeout=1000
        )
        async with server:
            print(server.sockets[0].getsockname()[1], flush=True)
            await until(lambda: len(server._connections) == 50)
            before = resident()
            print("more", flush=True)
            await until(lambda: len(server._connections) == 250)
            print((resident() - before) // 200 - of_openssl, flush=True)
            server.abort()

    asyncio.run(main())
"""


def test_an_idle_connection_takes_little_memory(tls, certificates, tmp_path):
    pem = tmp_path / "pem"
    certificates[1].private_key_and_cert_chain_pem.write_to_path(pem)
    tls.client.set_alpn_protocols(["h2"])
    tls.client.check_hostname = False
    held = []

    def connect(port, count):
        for _ in range(count):
            plain = socket.create_connection(("127.0.0.1", port), DEADLINE)
            held.append(tls.client.wrap_socket(plain))

    command = [sys.executable, "-c", textwrap.dedent(IDLE), pem]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as process:
        try:
            port = int(process.stdout.readline())
            connect(port, 50)
            assert process.stdout.readline() == "more\n"
            connect(port, 200)
            each = int(process.stdout.readline())
        finally:
            process.kill()
            for client in held:
                client.close()
    assert 0 < each < 40_000
