"""What a QUIC server does about handshakes that nobody completes, in its configuration
and in its log."""

import asyncio
import contextlib
import datetime
import gc
import logging
import weakref

import pytest
import trustme
from loops import in_loop, until
from quic_pair import (
    SERVER,
    authority,
    client_configuration,
    identity,
    server_configuration,
)

from nghttp2py.asyncio import binding, quic_handshakes, quic_log, quic_server
from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.packet import error_name

TYPE_MASK = RETRY = 0xF0


class Observer:
    """A transport that keeps what a server sends."""

    def __init__(self):
        self.sent = []

    def is_closing(self):
        return False

    def sendto(self, data, addr):
        self.sent.append((data, addr))

    def get_extra_info(self, name):
        return None

    def close(self):
        pass


class Clock:
    """Moves a loop's clock."""

    def __init__(self, monkeypatch):
        loop = asyncio.get_running_loop()
        self.offset = 0.0
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.offset)


def observed(**arguments):
    server = quic_server.QuicServer(
        configuration=arguments.pop("configuration", None) or server_configuration(),
        **arguments,
    )
    observer = Observer()
    server.connection_made(observer)
    return server, observer


def begin(server, observer, address):
    """A client's first packet, and its answer to Retry."""
    client = QuicConnection(configuration=client_configuration())
    client.connect(SERVER, 0.0)
    retried = False
    for data, _ in client.datagrams_to_send(0.0):
        server.datagram_received(data, address)
    for data, addr in list(observer.sent):
        if addr == address and data[0] & TYPE_MASK == RETRY:
            retried = True
            client.receive_datagram(data, SERVER, 0.1)
            for again, _ in client.datagrams_to_send(0.1):
                server.datagram_received(again, address)
    observer.sent.clear()
    return retried


@contextlib.asynccontextmanager
async def running_server(configuration=None, host="::", **arguments):
    server = await serve(
        host, 0, configuration=configuration or server_configuration(), **arguments
    )
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.close()


# ---- Incomplete handshakes.


@pytest.mark.parametrize(
    "addresses",
    [
        [("198.51.100.1", port) for port in range(1024, 1124)],
        [("::ffff:198.51.100.1", port, 0, 0) for port in range(1024, 1124)],
        [(f"2001:db8:0:1::{i:x}", 5000, 0, 0) for i in range(1, 101)],
    ],
)
@in_loop
async def test_an_address_has_a_share_of_the_handshakes(addresses):
    """An IPv6 network of 64 bits counts as one address."""
    server, observer = observed(max_handshakes=20)
    for address in addresses:
        begin(server, observer, address)
    # A quarter is free, as many more for those that have proved the address.
    assert len(server._handshaking) == 10
    # Another address is not even asked to prove itself.
    assert not begin(server, observer, ("203.0.113.1", 5000))
    assert not begin(server, observer, ("2001:db8:0:2::1", 5000, 0, 0))
    assert len(server._handshaking) == 12
    server.close()


@in_loop
async def test_the_oldest_handshake_makes_room(monkeypatch):
    server, observer = observed(max_handshakes=4)
    clock = Clock(monkeypatch)
    for port in range(1024, 1034):
        begin(server, observer, ("198.51.100.1", port))
    assert len(server._handshaking) == 2
    first, second = server._handshaking._began
    clock.offset += quic_handshakes.PROTECTED + 0.1
    begin(server, observer, ("198.51.100.1", 2000))
    assert len(server._handshaking) == 2
    assert first not in server._handshaking._began
    assert second in server._handshaking._began
    # It was told: a peer that is alive need not wait for a timeout.
    assert first._quic.closed
    server.close()


@in_loop
async def test_many_addresses_do_not_lock_others_out(monkeypatch):
    server, observer = observed(max_handshakes=4)
    clock = Clock(monkeypatch)
    for i in range(50):
        begin(server, observer, (f"198.51.100.{i}", 1024))
    assert len(server._handshaking) == 8
    clock.offset += quic_handshakes.PROTECTED + 0.1
    before = set(server._handshaking._began)
    begin(server, observer, ("203.0.113.1", 5000))
    assert len(server._handshaking) == 8
    assert len(set(server._handshaking._began) - before) == 1
    server.close()


@in_loop
async def test_a_client_gets_in_while_its_own_address_is_full():
    """One that shares the address with the attacker, too."""
    async with running_server(max_handshakes=8) as (server, port):
        transport = server._transport
        observer = Observer()
        server._transport = observer
        for i in range(100):
            begin(server, observer, ("127.0.0.1", 1024 + i))
        server._transport = transport
        full = len(server._handshaking)
        assert full == 4
        async with connect(
            "127.0.0.1", port, configuration=client_configuration()
        ) as client:
            await client.ping()


@in_loop
async def test_a_server_gives_handshakes_up_in_time():
    server, observer = observed(timeouts=Timeouts(handshake=0.1))
    for port in range(1024, 1034):
        begin(server, observer, ("198.51.100.1", port))
    assert len(server._connections) == 10
    await until(lambda: not server._connections)
    assert not server._protocols
    assert not len(server._handshaking)
    assert not server._handshaking._by_network
    server.close()


@in_loop
async def test_a_client_gives_a_handshake_up_in_time():
    async with running_server() as (server, port):
        server.runs_received = lambda runs: None
        with pytest.raises(ConnectionError, match="Handshake timeout"):
            async with connect(
                "127.0.0.1",
                port,
                configuration=client_configuration(),
                connect_timeout=0.2,
            ):
                pass


# ---- The configuration.


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"connection_id_length": 0}, "connection_id_length"),
        ({"certificate": None, "private_key": None}, "certificate"),
        ({"private_key": None}, "private key"),
        ({"private_key": identity("other")[1]}, "do not belong together"),
        ({"certificate": b"nonsense"}, "certificate must be PEM"),
        ({"alpn_protocols": ["x" * 33]}, "32 bytes"),
        ({"alpn_protocols": [str(i) for i in range(9)]}, "alpn_protocols"),
        ({"max_datagram_size": 10}, "1200"),
        ({"supported_versions": [0x1A2A3A4A]}, "supported_versions"),
        ({"is_client": True}, "is_client"),
    ],
)
@in_loop
async def test_serve_refuses_what_cannot_be_used(fields, text):
    configuration = server_configuration()
    for name, value in fields.items():
        setattr(configuration, name, value)
    with pytest.raises(ValueError, match=text):
        await serve("127.0.0.1", 0, configuration=configuration)


@in_loop
async def test_a_configuration_that_is_spoilt_later_floods_no_log(caplog):
    configuration = server_configuration()
    server, observer = observed(configuration=configuration)
    configuration.private_key = b"nonsense"
    for port in range(1024, 1224):
        begin(server, observer, ("198.51.100.1", port))
    assert not server._connections
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    seconds = 5
    assert 1 <= len(lines) <= seconds * quic_log.MAX_LINES < 200
    server.close()


@in_loop
async def test_a_protocol_that_cannot_be_made_refuses_the_client(caplog):
    def fail(*args, **kwargs):
        raise LookupError("no protocol")

    async with running_server(create_protocol=fail) as (_, port):
        with pytest.raises(ConnectionError):
            async with connect("127.0.0.1", port, configuration=client_configuration()):
                pass
    assert "no protocol" in caplog.text


@pytest.mark.parametrize("days", [-1, 1])
@in_loop
async def test_an_expired_certificate_is_told_at_start(caplog, days):
    now = datetime.datetime.now(datetime.timezone.utc)
    issued = authority().issue_cert(
        "localhost", not_after=now + datetime.timedelta(days=days)
    )
    configuration = server_configuration(
        certificate=issued.cert_chain_pems[0].bytes(),
        private_key=issued.private_key_pem.bytes(),
    )
    async with running_server(configuration):
        warned = any(
            "expired" in record.getMessage()
            for record in caplog.records
            if record.levelno == logging.WARNING
        )
        assert warned == (days < 0)


# ---- The log.


def lines_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "nghttp2py.asyncio.quic"
        and record.levelno == logging.INFO
        and "listening" not in record.getMessage()
    ]


@in_loop
async def test_a_failed_handshake_is_told(caplog):
    caplog.set_level(logging.INFO)
    async with running_server() as (_, port):
        configuration = client_configuration(alpn_protocols=["other"])
        with pytest.raises(ConnectionError):
            async with connect("127.0.0.1", port, configuration=configuration):
                pass
        await until(lambda: lines_of(caplog))
    text = "\n".join(lines_of(caplog))
    assert "127.0.0.1" in text
    assert "CRYPTO_ERROR(no_application_protocol)" in text
    assert "ended here" in text


@in_loop
async def test_a_client_that_does_not_trust_the_server_is_told(caplog):
    caplog.set_level(logging.INFO)
    async with running_server() as (_, port):
        other = trustme.CA().cert_pem.bytes()
        with pytest.raises(ConnectionError):
            async with connect(
                "127.0.0.1", port, configuration=client_configuration(cadata=other)
            ):
                pass
        await until(lambda: any("by the peer" in line for line in lines_of(caplog)))
    assert "CRYPTO_ERROR(" in caplog.text


@in_loop
async def test_what_the_peer_says_is_escaped(caplog):
    caplog.set_level(logging.INFO)
    async with running_server() as (_, port):
        async with connect(
            "127.0.0.1", port, configuration=client_configuration()
        ) as client:
            client.close(7, "\x1b[31mred\r\nfaked: line")
        await until(lambda: lines_of(caplog))
    (line,) = [line for line in lines_of(caplog) if "by the peer" in line]
    assert "application error 0x7" in line
    assert line.isprintable()
    assert r"\x1b[31mred\r\nfaked" in line


@pytest.mark.parametrize("code", [0, 0x100])
@in_loop
async def test_a_good_end_is_not_told(caplog, code):
    """0x100 is HTTP/3's H3_NO_ERROR."""
    caplog.set_level(logging.INFO)
    async with running_server() as (server, port):
        async with connect(
            "127.0.0.1", port, configuration=client_configuration()
        ) as client:
            client.close(code)
        await until(lambda: not server._connections)
    assert not lines_of(caplog)


@in_loop
async def test_a_refusal_is_told(caplog):
    caplog.set_level(logging.INFO)
    async with running_server(max_connections=0) as (_, port):
        with pytest.raises(ConnectionError):
            async with connect("127.0.0.1", port, configuration=client_configuration()):
                pass
    assert "CONNECTION_REFUSED" in caplog.text
    assert "max_connections" in caplog.text


@in_loop
async def test_the_log_is_bounded(caplog):
    caplog.set_level(logging.INFO)
    server, observer = observed(max_connections=0)
    for port in range(1024, 1124):
        begin(server, observer, ("198.51.100.1", port))
    seconds = 5
    assert quic_log.MAX_LINES <= len(lines_of(caplog)) <= seconds * quic_log.MAX_LINES
    assert len(lines_of(caplog)) < 100
    server.close()


@pytest.mark.parametrize(
    ("addr", "text"),
    [
        (("192.0.2.1", 5), "192.0.2.1:5"),
        (("2001:db8::1", 5, 0, 0), "[2001:db8::1]:5"),
        ("/run/socket", "unix:/run/socket"),
        (b"\0name", "unix:@name"),
        (("a\nb", 5), r"a\nb:5"),
        (None, "None"),
    ],
)
def test_addresses_are_written_as_in_urls(addr, text):
    assert binding.describe_address(addr) == text


def test_error_codes_have_names():
    assert error_name(0xA) == "PROTOCOL_VIOLATION"
    assert error_name(0x178) == "CRYPTO_ERROR(no_application_protocol)"
    assert error_name(0x1FF) == "CRYPTO_ERROR(255)"
    assert error_name(0x1234) == "0x1234"


# ---- One connection's trouble is not another's.


class Hungry(QuicConnectionProtocol):
    """Wants more memory than there is when the first bytes of a stream come."""

    error = MemoryError

    def quic_event_received(self, event):
        super().quic_event_received(event)
        if hasattr(event, "stream_id"):
            raise self.error


@pytest.mark.parametrize("error", [MemoryError, LookupError])
@in_loop
async def test_an_exception_of_one_protocol_spares_the_others(monkeypatch, error):
    monkeypatch.setattr(Hungry, "error", error)
    told = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    async with running_server(create_protocol=Hungry) as (server, port):
        first = connect("127.0.0.1", port, configuration=client_configuration())
        second = connect("127.0.0.1", port, configuration=client_configuration())
        async with first as hungry, second as client:
            hungry._quic.send_stream_data(0, b"x")
            hungry.transmit()
            if error is MemoryError:
                # It is gone, and its bytes are free.
                await until(lambda: len(server._connections) == 1)
            else:
                await until(lambda: told)
                assert isinstance(told[0], LookupError)
            await client.ping()


@in_loop
async def test_want_of_memory_at_a_timer_ends_the_connection(monkeypatch):
    async with (
        running_server() as (server, port),
        connect("127.0.0.1", port, configuration=client_configuration()) as client,
    ):
        await client.ping()
        (protocol,) = server._connections
        monkeypatch.setattr(protocol, "_react", refuse)
        protocol._timer_at = protocol._quic.get_timer()
        protocol._handle_timer()
        assert protocol._terminated.reason_phrase == "out of memory"
        assert protocol._timer is None
        assert not server._connections and not server._protocols
        protocol.abandon()
        # The peer is told by a stateless reset when it asks again.
        with pytest.raises(ConnectionError, match="reset"):
            await client.ping()


def refuse():
    raise MemoryError


@in_loop
async def test_a_connection_that_is_over_does_not_wait_for_the_collector():
    gone = []

    class Watched(QuicConnectionProtocol):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            gone.append(weakref.ref(self))

    def handler(reader, writer):
        writer.write(b"x" * 1000)
        writer.close()

    gc.collect()
    gc.disable()
    try:
        async with running_server(create_protocol=Watched, stream_handler=handler) as (
            server,
            port,
        ):
            async with connect(
                "127.0.0.1", port, configuration=client_configuration()
            ) as client:
                reader, writer = await client.create_stream()
                writer.write(b"question")
                writer.write_eof()
                assert await reader.read() == b"x" * 1000
            await until(lambda: not server._connections)
            await until(lambda: all(ref() is None for ref in gone))
    finally:
        gc.enable()
