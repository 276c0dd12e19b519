"""How connect() finds a server, sockets of the caller, and programs for aioquic."""

import asyncio
import contextlib
import logging
import socket

import pytest
from loops import DEADLINE, in_loop, in_loops, until
from quic_pair import (
    SERVER,
    Network,
    client_configuration,
    identity,
    make_pair,
    server_configuration,
)

from nghttp2py.asyncio import quic as quic_module
from nghttp2py.asyncio import racing
from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.quic_protocol import QuicConnectionError
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.h3 import connection as h3_connection
from nghttp2py.h3 import events as h3_events
from nghttp2py.quic import connection as connection_module
from nghttp2py.quic.configuration import ServerCertificate
from nghttp2py.quic.connection import (
    SMALLEST_MAX_DATAGRAM_SIZE,
    QuicConnection,
    QuicConnectionState,
    stream_is_client_initiated,
    stream_is_unidirectional,
)
from nghttp2py.quic.events import StreamDataReceived
from nghttp2py.quic.packet import QuicProtocolVersion


@contextlib.asynccontextmanager
async def running_server(host="127.0.0.1", **arguments):
    arguments.setdefault("configuration", server_configuration())
    if "sock" in arguments:
        server = await serve(**arguments)
    else:
        server = await serve(host, 0, **arguments)
    try:
        yield server, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def resolve_to(monkeypatch, *addresses):
    """Have every name stand for these addresses."""

    async def getaddrinfo(host, port, **kwargs):
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_DGRAM,
                17,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


# ---- Addresses.


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["127.0.0.9", "127.0.0.1"],
        ["::1", "127.0.0.1"],
        ["::1", "127.0.0.8", "127.0.0.1", "127.0.0.9"],
    ],
)
@in_loop
async def test_connect_tries_every_address(monkeypatch, addresses, local):
    async with running_server() as (_, port):
        local_port = 0
        if local:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
                free.bind(("::", 0))
                local_port = free.getsockname()[1]
        resolve_to(monkeypatch, *addresses)
        async with connect(
            "localhost",
            port,
            configuration=client_configuration(),
            local_port=local_port,
            connect_timeout=4.0,
        ) as client:
            await client.ping()
            assert client._quic.get_peer_address()[0].endswith("127.0.0.1")


@in_loop
async def test_connect_fails_when_no_address_answers(monkeypatch):
    with contextlib.ExitStack() as stack:
        port = 0
        for host in ("127.0.0.8", "127.0.0.9"):
            deaf = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            deaf.bind((host, port))
            port = deaf.getsockname()[1]
        resolve_to(monkeypatch, "127.0.0.8", "127.0.0.9")
        with pytest.raises(ConnectionError, match="Handshake timeout"):
            async with connect(
                "localhost",
                port,
                configuration=client_configuration(),
                connect_timeout=0.3,
            ):
                pass


def closed_port():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as closed:
        closed.bind(("::", 0))
        return closed.getsockname()[1]


@contextlib.asynccontextmanager
async def connect_if_not_refused(host, port):
    attempt = await quic_module.establish(
        host,
        port,
        configuration=client_configuration(),
        create_protocol=QuicConnectionProtocol,
        refusals=True,
    )
    try:
        yield attempt.protocol
    finally:
        attempt.protocol.close()
        await attempt.protocol.wait_closed()
        attempt.transport.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@in_loops
async def test_an_attempt_fails_at_once_where_nothing_listens(address, caplog):
    with pytest.raises(QuicConnectionError, match=f"nothing listens at {address}"):
        async with connect_if_not_refused(address, closed_port()):
            pass
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@in_loops
async def test_an_address_where_nothing_listens_gives_way_to_the_next(monkeypatch):
    monkeypatch.setattr(racing, "ATTEMPT_DELAY", 1e6)
    async with running_server() as (_, port):
        resolve_to(monkeypatch, "127.0.0.8", "::1", "127.0.0.9", "127.0.0.1")
        async with connect_if_not_refused("localhost", port):
            pass


@in_loops
async def test_a_server_that_has_answered_is_not_given_up_for_an_icmp_message():
    """An attacker on the path could forge it."""
    async with (
        running_server() as (_, port),
        connect_if_not_refused("127.0.0.1", port) as client,
    ):
        await client.ping()
        # A port without a listener: the system gets a report, which is not passed on.
        closed = ("::ffff:127.0.0.1", closed_port(), 0, 0)
        client._transport.sendto(b"x", closed)
        for _ in range(3):
            await client.ping()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@in_loops
async def test_a_socket_is_read_after_its_first_message_of_icmp(host):
    events = []

    class Protocol(asyncio.Protocol):
        def runs_received(self, runs):
            events.extend(run[0] for run in runs)

        def refused(self):
            events.append("refused")

        def error_received(self, error):
            events.append(error)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        transport = UDPTransport(loop, sock, Protocol(), refusals=True)
        address = sock.getsockname()
        for _ in range(2):
            # The second write is told of the first's error.
            transport.sendto(b"x", (host, closed_port(), *address[2:]))
        await until(lambda: events)
        assert events == ["refused"]
        for n in range(2):
            transport.sendto(b"to itself", address)
            await until(lambda n=n: len(events) == 2 + n)
        assert events[1:] == [b"to itself"] * 2
        # One that comes later is not reported.
        transport.sendto(b"x", (host, closed_port(), *address[2:]))
        transport.sendto(b"to itself", address)
        await until(lambda: len(events) == 4)
        assert events[3] == b"to itself"
        transport.close()


@in_loop
async def test_the_families_take_turns(monkeypatch):
    resolve_to(monkeypatch, "::1", "::2", "127.0.0.1", "127.0.0.2")
    found = await quic_module._find("localhost", 5, None)
    assert [address[0] for address in found] == [
        "::1", "127.0.0.1", "::2", "127.0.0.2",
    ]  # fmt: skip


# ---- Sockets of the caller.


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@in_loop
async def test_serve_and_connect_take_sockets(family):
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    ours = socket.socket(family, socket.SOCK_DGRAM)
    ours.bind((host, 0))
    theirs = socket.socket(family, socket.SOCK_DGRAM)
    async with (
        running_server(sock=ours) as (server, port),
        connect(
            host, port, configuration=client_configuration(), sock=theirs
        ) as client,
    ):
        assert server.sockets == [ours]
        assert client._transport.get_extra_info("socket") is theirs
        await client.ping()
    assert ours.fileno() == theirs.fileno() == -1


@in_loop
async def test_a_socket_of_both_families_reaches_ipv4():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    async with (
        running_server() as (_, port),
        connect(
            "127.0.0.1", port, configuration=client_configuration(), sock=sock
        ) as client,
    ):
        await client.ping()


@in_loop
async def test_a_socket_of_another_kind_is_refused():
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        for sock in (tcp, unix):
            with pytest.raises(ValueError, match="sock"):
                await serve(configuration=server_configuration(), sock=sock)
            with pytest.raises(ValueError, match="sock"):
                async with connect("127.0.0.1", 5, sock=sock):
                    pass
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="None with sock"),
    ):
        await serve("::", 5, configuration=server_configuration(), sock=sock)


@in_loop
async def test_a_server_s_socket_must_be_bound():
    for family in (socket.AF_INET, socket.AF_INET6):
        with (
            socket.socket(family, socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match="sock must be bound to a port"),
        ):
            await serve(configuration=server_configuration(), sock=sock)


# ---- Certificates by name.


def named(*names, **fields):
    chain, key = identity(*names)
    return ServerCertificate(chain, key, **fields)


def certificate_for(configuration, name):
    pair = make_pair(
        client_configuration(server_name=name, verify_mode=0), configuration
    ).handshake()
    assert not pair.client.closed
    return pair.client.peer_certificates[0]


def test_a_server_has_certificates_by_name():
    configuration = server_configuration()
    configuration.certificates = {
        "one.example": named("one.example"),
        "*.two.example": named("*.two.example"),
        "special.two.example": named("special.two.example"),
    }
    names = [
        "localhost", "one.example", "a.two.example", "special.two.example",
    ]  # fmt: skip
    found = {name: certificate_for(configuration, name) for name in names}
    assert len(set(found.values())) == len(names)
    for name, certificate in found.items():
        if name != "localhost":
            assert name.removeprefix("a.").encode() in certificate
    default = found["localhost"]
    # A pattern stands for one label.
    for other in ("none.example", "two.example", "a.b.two.example", None):
        assert certificate_for(configuration, other) == default
    assert certificate_for(configuration, "ONE.example") == found["one.example"]
    for name in names:
        # And the client trusts it.
        pair = make_pair({"server_name": name}, configuration).handshake()
        assert pair.client.handshake_complete and not pair.client.closed


def test_a_certificate_that_is_added_later_counts():
    configuration = server_configuration()
    before = certificate_for(configuration, "late.example")
    configuration.certificates["late.example"] = named("late.example")
    assert certificate_for(configuration, "late.example") != before


def test_certificates_by_name_are_loaded_from_files(tmp_path):
    chain, key = identity("file.example")
    (tmp_path / "cert.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    configuration = server_configuration()
    default = configuration.certificate
    configuration.load_cert_chain(
        tmp_path / "cert.pem", tmp_path / "key.pem", server_name="file.example"
    )
    assert configuration.certificate == default
    assert b"file.example" in certificate_for(configuration, "file.example")
    with pytest.raises(ValueError, match="private key"):
        configuration.load_cert_chain(tmp_path / "cert.pem", server_name="x.example")


@in_loop
async def test_a_bad_certificate_by_name_is_refused_at_start():
    configuration = server_configuration()
    configuration.certificates["x.example"] = ServerCertificate(
        identity()[0], identity("other.example")[1]
    )
    with pytest.raises(ValueError, match="do not belong together"):
        await serve("127.0.0.1", 0, configuration=configuration)


# ---- Early data.


def resumed(client_fields, server, tickets):
    """A pair whose client has the last ticket."""
    client = client_configuration(session_ticket=tickets[-1], **client_fields)
    return Network(
        QuicConnection(configuration=client),
        QuicConnection(configuration=server, session_ticket_handler=lambda ticket: 0),
    )


def ticket_from(server):
    tickets = []
    issued = []
    pair = Network(
        QuicConnection(
            configuration=client_configuration(), session_ticket_handler=tickets.append
        ),
        QuicConnection(configuration=server, session_ticket_handler=issued.append),
    ).handshake()
    assert pair.client.handshake_complete
    return tickets, issued


def test_a_request_that_came_early_is_marked():
    """RFC 8470."""
    server = server_configuration()
    tickets, _ = ticket_from(server)
    assert tickets[0].max_early_data_size
    pair = resumed({}, server, tickets)
    marks = {}

    def take(event):
        if isinstance(event, StreamDataReceived):
            asked = pair.server.stream_early_data(event.stream_id)
            marks[event.stream_id] = event.early_data, asked

    pair.on_event[pair.server] = take
    pair.client.send_stream_data(0, b"early", end_stream=True)
    pair.handshake()
    assert pair.client.tls.early_data_accepted
    pair.client.send_stream_data(4, b"late", end_stream=True)
    pair.run(0.5)
    assert marks == {0: (True, True), 4: (False, False)}


def test_the_mark_is_no_part_of_an_event_s_value():
    event = StreamDataReceived(b"x", False, 0)
    assert event.early_data is False
    event.early_data = True
    assert event == StreamDataReceived(b"x", False, 0)
    assert "early" not in repr(event)


@pytest.mark.parametrize("side", ["server", "client"])
def test_early_data_can_be_forbidden(side):
    server = server_configuration(early_data=side != "server")
    tickets, issued = ticket_from(server)
    allowed = side != "server"
    assert bool(tickets[0].max_early_data_size) == allowed
    assert bool(issued[0].max_early_data_size) == allowed
    pair = resumed({"early_data": side != "client"}, server, tickets)
    pair.client.send_stream_data(0, b"waits", end_stream=True)
    early = []
    pair.on_event[pair.server] = lambda event: early.append(
        getattr(event, "early_data", False)
    )
    pair.handshake()
    assert pair.client.tls.session_resumed
    assert not pair.client.tls.early_data_accepted
    assert pair.received[pair.server][0] == b"waits"
    assert not any(early)


def test_a_server_that_takes_no_more_early_data_gets_it_late():
    """The ticket is from before."""
    key = bytes(range(64))
    tickets, _ = ticket_from(server_configuration(session_ticket_key=key))
    strict = server_configuration(session_ticket_key=key, early_data=False)
    pair = resumed({}, strict, tickets)
    pair.client.send_stream_data(0, b"waits", end_stream=True)
    pair.handshake()
    assert not pair.client.tls.early_data_accepted
    assert pair.received[pair.server][0] == b"waits"


# ---- What programs for aioquic do.


class Counting(QuicConnection):
    """Has an ``__init__`` and attributes of its own."""

    def __init__(self, label, **arguments):
        super().__init__(**arguments)
        self.label = label
        self.closed_calls = 0

    def close(self, *args, **kwargs):
        self.closed_calls += 1
        super().close(*args, **kwargs)


def test_a_connection_can_be_subclassed():
    client = Counting("mine", configuration=client_configuration())
    server = Counting("theirs", configuration=server_configuration())
    pair = Network(client, server).handshake()
    assert pair.transfer(client, b"data") == b"data"
    client.close()
    assert (client.label, client.closed_calls) == ("mine", 1)


def test_a_connection_that_was_not_made_raises():
    class Forgetful(QuicConnection):
        def __init__(self):
            pass

    quic = Forgetful()
    for call in (
        quic.next_event,
        quic.get_timer,
        lambda: quic.datagrams_to_send(0.0),
        lambda: quic.receive_datagram(b"x", SERVER, 0.0),
        lambda: quic.send_stream_data(0, b""),
        lambda: quic.connect(SERVER, 0.0),
        lambda: quic.host_cid,
    ):
        with pytest.raises((RuntimeError, AttributeError, TypeError)):
            call()


def test_a_connection_is_made_once():
    quic = QuicConnection(configuration=client_configuration())
    with pytest.raises(RuntimeError):
        quic.__init__(configuration=client_configuration())
    with pytest.raises(TypeError):
        QuicConnection()


@in_loop
async def test_datagram_received_of_a_subclass_is_called():
    sizes = []

    class Tapping(QuicConnectionProtocol):
        def datagram_received(self, data, addr):
            sizes.append(len(data))
            super().datagram_received(data, addr)

    async def answer(reader, writer):
        await reader.read()
        writer.close()

    def handler(reader, writer):
        tasks.append(asyncio.ensure_future(answer(reader, writer)))

    tasks = []
    async with (
        running_server(create_protocol=Tapping, stream_handler=handler) as (_, port),
        connect("127.0.0.1", port, configuration=client_configuration()) as client,
    ):
        _, writer = await client.create_stream()
        writer.write(bytes(100_000))
        writer.close()
        await writer.wait_closed()
    assert sum(sizes) > 100_000
    assert max(sizes) <= SMALLEST_MAX_DATAGRAM_SIZE


def test_a_connection_has_aioquic_s_logger(caplog):
    caplog.set_level(logging.INFO)
    quic = QuicConnection(configuration=client_configuration())
    quic._logger.info("hello %d", 5)
    (record,) = caplog.records
    assert record.name == "quic"
    odcid = quic.original_destination_connection_id.hex()
    assert record.getMessage() == f"[{odcid}] hello 5"


def test_names_of_aioquic_s_connection_module():
    assert SMALLEST_MAX_DATAGRAM_SIZE == 1200
    assert [stream_is_client_initiated(i) for i in range(4)] == [True, False] * 2
    assert [stream_is_unidirectional(i) for i in range(4)] == [False] * 2 + [True] * 2
    assert [state.name for state in QuicConnectionState] == [
        "FIRSTFLIGHT", "CONNECTED", "CLOSING", "DRAINING", "TERMINATED",
    ]  # fmt: skip
    for name in connection_module.__all__:
        assert hasattr(connection_module, name)
    # aioquic's module of HTTP/3 has two names of its events.
    assert h3_connection.H3Event is h3_events.H3Event
    assert h3_connection.Headers is h3_events.Headers


def test_the_end_is_known_before_its_event():
    pair = make_pair().handshake()
    assert pair.client.close_event is None and pair.client._close_event is None
    assert pair.client._handshake_complete
    pair.client.close(5, reason_phrase="enough")
    event = pair.client.close_event
    assert (event.error_code, event.frame_type) == (5, None)
    assert event.reason_phrase == "enough"
    assert not pair.client.closed_by_peer
    pair.run(0.1)
    assert pair.server.close_event == event
    assert pair.server.closed_by_peer
    pair.run(10)
    assert pair.events[pair.server][-1] == event == pair.server.close_event
    assert pair.server.closed_by_peer


@pytest.mark.parametrize(
    "versions",
    [
        [0x1A2A3A4A, QuicProtocolVersion.VERSION_1],
        [0xFF00001D, QuicProtocolVersion.VERSION_1],
        [QuicProtocolVersion.VERSION_2, 0x1A2A3A4A, QuicProtocolVersion.VERSION_1],
        [5, 6, 7, 8, 9, 10, 11, 12, 13, QuicProtocolVersion.VERSION_1],
    ],
)
@pytest.mark.parametrize("side", ["client", "server"])
@in_loop
async def test_versions_that_are_not_known_are_left_out(versions, side):
    """The first, if it is a reserved one, has the server offer its own (RFC 9000,
    6.3)."""
    ours = {"supported_versions": versions} if side == "client" else {}
    theirs = {"supported_versions": versions} if side == "server" else {}
    async with (
        running_server(configuration=server_configuration(**theirs)) as (_, port),
        connect(
            "127.0.0.1", port, configuration=client_configuration(**ours)
        ) as client,
    ):
        await client.ping()
        assert client._quic.version in versions


@in_loops
async def test_a_client_without_a_transport_does_not_keep_the_loop_busy():
    loop = asyncio.get_running_loop()
    protocol = QuicConnectionProtocol(
        QuicConnection(configuration=client_configuration())
    )
    protocol.connect(SERVER)
    before = loop.given
    for _ in range(100):
        await asyncio.sleep(0)
    # What the test's own turns have given the loop, and little more.
    assert loop.given - before < 150
    assert protocol._timer is None
    # When there is one, the first packet goes out.
    sent = []

    class Transport(asyncio.DatagramTransport):
        def sendto(self, data, addr=None):
            sent.append(addr)

        def is_closing(self):
            return False

    protocol.connection_made(Transport())
    await until(lambda: sent)
    protocol.close()
    await protocol.wait_closed()


@in_loop
async def test_a_client_that_never_had_a_transport_can_be_closed():
    protocol = QuicConnectionProtocol(
        QuicConnection(configuration=client_configuration())
    )
    protocol.connect(SERVER)
    protocol.close()
    await asyncio.wait_for(protocol.wait_closed(), DEADLINE)
