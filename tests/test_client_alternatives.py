"""What a client knows of alternative services (RFC 7838) and HTTPS records (RFC 9460).

Then ``Client(http3=True)``: which version it uses, and when.
"""

import asyncio
import contextlib
import socket

import pytest
from loops import in_loop, in_loops, until
from peers import ScriptedServer, client_tls, echo_server, server_tls

from nghttp2py.asyncio import (
    AlternativeService,
    AlternativeServices,
    Client,
    Server,
    ServiceRecord,
    Timeouts,
    racing,
)
from nghttp2py.asyncio import origin as origin_module
from nghttp2py.asyncio.alternatives import parse_alt_svc
from nghttp2py.asyncio.origin import OriginConnections
from nghttp2py.asyncio.url import split_url
from nghttp2py.errors import ConfigurationError, ConnectionTerminatedError
from nghttp2py.quic import QuicConfiguration

ORIGIN = "https://a.example"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def services(clock):
    return AlternativeServices(clock)


def find(services, name=ORIGIN):
    found = services.find(name, "a.example", 443)
    return None if found is None else (found.host, found.port)


# ---- Alt-Svc (RFC 7838, 3) ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('h3=":443"', [("h3", "", 443, 86400, False)]),
        ('h3=":443"; ma=60; persist=1', [("h3", "", 443, 60, True)]),
        (
            'h3="b.example:1" ;ma="5",h2=":2"',
            [("h3", "b.example", 1, 5, False), ("h2", "", 2, 86400, False)],
        ),
        ('h3="[2001:db8::1]:443"', [("h3", "2001:db8::1", 443, 86400, False)]),
        ('w%3Dx%3Ay="a:1"', [("w=x:y", "a", 1, 86400, False)]),
        ('h3=":443"; ma=9999999999999999', [("h3", "", 443, 2592000, False)]),
        ('h3=":443"; v="46,43"; persist=2', [("h3", "", 443, 86400, False)]),
        ('h3=":0"', []),
        ('h3=":65536"', []),
        ('h3="a"', []),
        ("h3=:443", []),
        ('h3=":443"; ma=-1', []),
        ('broken, h3=":1"', [("h3", "", 1, 86400, False)]),
        ("", []),
        ("Clear", []),
        (",".join('h3=":1"' for _ in range(99)), [("h3", "", 1, 86400, False)] * 8),
    ],
)
def test_a_field_value_is_parsed(value, expected):
    found = [(*vars(service).values(),) for service in parse_alt_svc(value)]
    assert found == expected


def test_a_hostile_value_takes_no_time():
    for value in (
        'h3="' + "\\" * 60000,
        "h3=" * 20000,
        'h3=":1";a=' * 6000,
        "," * 60000,
    ):
        assert parse_alt_svc(value) == []


def test_alternatives_have_a_time(services, clock):
    assert find(services) is None
    services.received(ORIGIN, 'h3=":8443"; ma=100', age=40)
    assert find(services) == ("a.example", 8443)
    assert find(services, "https://b.example") is None
    clock.now += 59
    assert find(services) == ("a.example", 8443)
    clock.now += 1
    assert find(services) is None
    services.received(ORIGIN, 'h3=":8443"; ma=100', age=100)
    assert find(services) is None


def test_clear_and_each_new_value_replace_what_was_known(services):
    services.received(ORIGIN, 'h3="b.example:1"')
    assert services.received(ORIGIN, 'h3="c.example:2", h3=":3"')
    assert find(services) == ("c.example", 2)
    assert services.received(ORIGIN, 'h2=":443"')
    assert find(services) is None
    services.received(ORIGIN, 'h3=":1"')
    assert not services.received(ORIGIN, "clear")
    assert find(services) is None


def test_a_broken_endpoint_is_tried_again_after_ever_longer_times(services, clock):
    services.received(ORIGIN, 'h3=":1", h3=":2"; ma=9999999')
    first = services.find(ORIGIN, "a.example", 443)
    assert services.failed(first) == 300
    assert find(services) == ("a.example", 2)
    services.failed(services.find(ORIGIN, "a.example", 443))
    assert find(services) is None
    clock.now += 300
    assert find(services) == ("a.example", 1)
    waits = [services.failed(first) for _ in range(12)]
    assert waits[:3] == [600, 1200, 2400] and waits[-1] == 172800
    services.succeeded(first)
    assert services.failed(first) == 300


def test_a_change_of_the_network_forgets_what_does_not_persist(services):
    services.received(ORIGIN, 'h3=":1"; persist=1, h3=":2"')
    services.received("https://b.example", 'h3=":1"')
    services.failed(services.find(ORIGIN, "a.example", 443))
    services.network_changed()
    assert find(services) == ("a.example", 1)
    assert find(services, "https://b.example") is None


def test_the_memory_is_bounded(services):
    for n in range(1100):
        services.received(f"https://{n}.example", 'h3=":1"')
        services.failed(AlternativeService("h3", f"{n}.example", 1))
    assert len(services._services) == len(services._broken) == 1000
    assert find(services, "https://1099.example")
    assert not find(services, "https://99.example")


# ---- HTTPS records (RFC 9460) ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 . alpn=h3,h2", (1, "", ("h3", "h2"), None)),
        ('2 B.example. alpn="h3" port=8443', (2, "b.example", ("h3",), 8443)),
        ("0 c.example.", (0, "c.example", (), None)),
        (r'1 . alpn="a\\,b,h3" ipv4hint=192.0.2.1', (1, "", ("a,b", "h3"), None)),
        ("16 . mandatory=alpn,port alpn=h3 port=1", (16, "", ("h3",), 1)),
        ("1 . no-default-alpn alpn=h3", (1, "", ("h3",), None)),
    ],
)
def test_the_text_of_a_record_is_parsed(text, expected):
    record = ServiceRecord.parse(text)
    assert (record.priority, record.target, record.alpn, record.port) == expected
    assert record.is_usable


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "x . alpn=h3", "65536 . alpn=h3", "1 . alpn=h3 alpn=h2"),
        *("1 . port=0", "1 . port=x", "1 . mandatory=port", "1 . no-default-alpn"),
        *("1 . mandatory=mandatory,alpn alpn=h3", '1 . alpn="h3'),
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(ValueError, match=r"record|parameter|alpn|port"):
        ServiceRecord.parse(text)


def test_the_octets_of_a_record_are_parsed():
    """The example of RFC 9460, D.2, and one with ALPN and a port."""
    data = bytes.fromhex("0010 03666f6f 076578616d706c65 03636f6d 00 0003 0002 0035")
    assert ServiceRecord.from_wire(data) == ServiceRecord(16, "foo.example.com", (), 53)
    data = bytes.fromhex("0001 00 0000 0002 0001 0001 0006 026833 026832 ff00 0000")
    record = ServiceRecord.from_wire(data)
    assert record == ServiceRecord(1, "", ("h3", "h2"), mandatory=frozenset({"alpn"}))
    for n in range(len(data)):
        with contextlib.suppress(ValueError):
            ServiceRecord.from_wire(data[:n])
    with pytest.raises(ValueError, match="no HTTPS record"):
        ServiceRecord.from_wire(b"\0\1\0\0\1\0\2\3")


def test_records_are_used_in_their_order(services):
    services.add_records(
        ORIGIN,
        [
            ServiceRecord.parse("3 c.example. alpn=h3"),
            ServiceRecord.parse("0 alias.example."),
            ServiceRecord.parse("1 . alpn=h2"),
            ServiceRecord.parse("2 . alpn=h3 port=8443"),
            ServiceRecord.parse("1 d.example. alpn=h3 key9=x mandatory=key9"),
        ],
    )
    found = services.find(ORIGIN, "a.example", 443)
    assert (found.host, found.port) == ("a.example", 8443)
    services.failed(found)
    assert find(services) == ("c.example", 443)
    services.add_records(ORIGIN, [])
    assert find(services) is None


# ---- Client(http3=True) ----


class Application:
    """Answers with the version of HTTP; Alt-Svc as set."""

    def __init__(self):
        self.fields = []
        self.status = 200
        self.requests = []

    async def __call__(self, stream):
        version = stream.link.version
        self.requests.append((version, stream.fields.get("alt-used")))
        if version == "HTTP/3" and self.status != 200:
            await stream.send_response(self.status)
            return
        await stream.send_response(200, self.fields, body=version.encode())


@contextlib.asynccontextmanager
async def serving(app, paths, tls, *, udp=True, **options):
    """A server by both protocols, and a client that knows nothing of HTTP/3 yet."""
    async with (
        Server(
            app, ("127.0.0.1", 0), ssl=paths, http3=udp, timeouts=Timeouts(close=0.5)
        ) as server,
        Client(
            f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            ssl=tls.client,
            http3=True,
            **options,
        ) as client,
    ):
        yield client


async def ask(client, **options):
    response = await client.get("/", **options)
    body = await response.read()
    assert body == response.http_version.encode()
    return response.http_version[-1]


@in_loops
async def test_http3_is_used_from_the_second_request_on(paths, tls):
    app = Application()
    async with serving(app, paths, tls) as client:
        assert [await ask(client) for _ in range(3)] == ["2", "3", "3"]
        assert app.requests[1] == ("HTTP/3", client._authority)
        assert app.requests[0] == ("HTTP/2", None)
        await until(lambda: client.connections.open_count == 1)


@in_loops
async def test_a_record_is_enough_for_http3_at_once(paths, tls):
    records = [ServiceRecord.parse("1 . alpn=h3,h2")]
    async with serving(Application(), paths, tls, https_records=records) as client:
        assert await ask(client) == "3"


@in_loops
async def test_what_one_client_has_learnt_another_knows(paths, tls):
    services = AlternativeServices()
    app = Application()
    async with serving(app, paths, tls, alternatives=services) as client:
        assert await ask(client) == "2"
        name = f"https://{client._authority}"
        async with Client(
            name, ssl=tls.client, http3=True, alternatives=services
        ) as other:
            assert await ask(other) == "3"


def no_udp():
    """A UDP port from which nothing is answered."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", 0))
    return taken


@in_loops
async def test_without_udp_http2_is_used_and_no_request_fails(paths, tls, monkeypatch):
    monkeypatch.setattr(origin_module, "HEAD_START", 0.05)
    app = Application()
    with no_udp() as taken:
        app.fields = [("alt-svc", f'h3=":{taken.getsockname()[1]}"')]
        async with serving(app, paths, tls, udp=False, connect_timeout=0.3) as client:
            assert [await ask(client) for _ in range(3)] == ["2"] * 3
            await until(lambda: client.connections.alternatives._broken)
            assert await ask(client) == "2"
            assert len(client.connections.alternatives._broken) == 1
        services = AlternativeServices()
        async with serving(
            app, paths, tls, udp=False, connect_timeout=0.5, alternatives=services
        ) as client:
            # Nothing is connected yet: both are tried.
            services.received(f"https://{client._authority}", app.fields[0][1])
            assert await ask(client) == "2"


@in_loop
async def test_after_a_change_of_the_network_http3_is_tried_at_once(paths, tls):
    services = AlternativeServices()
    records = [ServiceRecord.parse("1 . alpn=h3,h2")]
    options = {"alternatives": services, "https_records": records}
    app = Application()
    app.fields = []
    async with serving(app, paths, tls, **options) as client:
        port = int(client._authority.rpartition(":")[2])
        services.failed(AlternativeService("h3", "127.0.0.1", port))
        assert [await ask(client) for _ in range(2)] == ["2", "2"]
        services.network_changed()
        assert await ask(client) == "3"


@in_loops
async def test_http3_that_is_late_is_used_for_later_requests(paths, tls, monkeypatch):
    monkeypatch.setattr(origin_module, "HEAD_START", 0.0)
    async with serving(Application(), paths, tls) as client:
        assert [await ask(client) for _ in range(2)] == ["2", "2"]
        await until(lambda: client._connection in client.connections.used)
        assert await ask(client) == "3"


class Idle:
    """A connection without streams."""

    idle_hook = None
    is_available = True
    is_closed = is_full = False
    stream_count = 0

    def abort(self):
        self.is_closed = True

    async def wait_closed(self):
        pass


class Makes:
    """A connector: it makes ``Idle`` ones, or waits for ever."""

    def __init__(self, *, waits=False):
        self.waits = waits

    async def connect(self, host=None, port=None):
        if self.waits:
            await asyncio.Event().wait()
        return Idle()

    def close(self, connection, timeout):
        connection.abort()


@in_loops
async def test_a_free_connection_is_used_while_http3_is_tried(monkeypatch):
    monkeypatch.setattr(origin_module, "HEAD_START", 0.0)
    services = AlternativeServices()
    services.received(ORIGIN, 'h3=":443"')
    connections = OriginConnections(
        split_url(ORIGIN), Makes(), Makes(waits=True), alternatives=services, most=2
    )
    first = await connections.find()
    first.is_full = True
    second = await connections.find()
    assert second is not first
    first.is_full, second.is_full = False, True
    assert await connections.find() is first
    await connections.close()


@in_loops
async def test_clear_takes_the_alternatives_back(paths, tls):
    app = Application()
    async with serving(app, paths, tls) as client:
        assert [await ask(client) for _ in range(2)] == ["2", "3"]
        app.fields = [("alt-svc", "clear")]
        assert [await ask(client) for _ in range(3)] == ["3", "2", "2"]


@in_loops
async def test_after_421_the_alternative_is_forgotten(paths, tls):
    """RFC 7838, 6."""
    app = Application()
    async with serving(app, paths, tls) as client:
        assert await ask(client) == "2"
        app.status = 421
        assert [await ask(client) for _ in range(2)] == ["2", "2"]
        assert [version for version, _ in app.requests] == [
            *("HTTP/2", "HTTP/3", "HTTP/2", "HTTP/2")
        ]


@in_loops
async def test_the_certificate_must_be_of_the_origin(paths, tls):
    """RFC 7838, 2.1: one for the host of the alternative is not enough."""
    app = Application()
    async with (
        Server(app, ("127.0.0.1", 0), ssl=paths, http3=True) as server,
        Server(app, ("127.0.0.1", 0), ssl=paths) as other,
    ):
        port = server.sockets[0].getsockname()[1]
        app.fields = [("alt-svc", f'h3="localhost:{port}"')]
        where = f"https://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        async with Client(where, ssl=tls.client, http3=True) as client:
            assert [await ask(client) for _ in range(2)] == ["2", "3"]
        async with Client(
            where, ssl=tls.client, http3=True, server_hostname="localhost"
        ) as client:
            assert [await ask(client) for _ in range(2)] == ["2", "3"]


class Relay(asyncio.DatagramProtocol):
    """Passes the datagrams of one client on, until it is cut."""

    def __init__(self, target):
        self.target = target
        self.client = None
        self.is_cut = False

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if address[1] != self.target[1]:
            self.client = address
        if not self.is_cut:
            other = self.target if address[1] != self.target[1] else self.client
            self.transport.sendto(data, other)


@pytest.mark.parametrize(("method", "survives"), [("GET", True), ("POST", False)])
@in_loops
async def test_a_safe_request_survives_the_death_of_its_path(
    method, survives, paths, tls
):
    async def app(stream):
        version = stream.link.version
        if version == "HTTP/3" and stream.request.target == b"/hang":
            relay.is_cut = True
            await asyncio.Event().wait()
        await stream.send_response(200, fields, body=version.encode())

    fields = []
    loop = asyncio.get_running_loop()
    async with serving(
        app, paths, tls, keepalive_interval=0.2, keepalive_timeout=0.2
    ) as client:
        host, _, port = client._authority.rpartition(":")
        transport, relay = await loop.create_datagram_endpoint(
            lambda: Relay((host, int(port))), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        fields.append(("alt-svc", f'h3=":{port}"'))
        assert await ask(client) == "2"
        assert await ask(client) == "3"
        if survives:
            response = await client.request(method, "/hang")
            assert await response.read() == b"HTTP/2"
        else:
            with pytest.raises(ConnectionTerminatedError):
                await client.request(method, "/hang")
        # It is broken for a while.
        assert await ask(client) == "2"
        transport.close()


@in_loops
async def test_a_frame_offers_http3_as_a_field_does():
    """RFC 7838, 4."""

    async def script(peer):
        offer = peer.connection.advertise_alternative_service
        offer(b'h3=":1"', b"https://other.example")
        stream_id = await peer.next_request()
        peer.respond(stream_id, b"one")
        await peer.flush()
        stream_id = await peer.next_request()
        offer(b'h3=":2"', stream_id=stream_id)
        peer.respond(stream_id, b"two")
        await peer.flush()
        last = await peer.next_request()
        offer(b'h3=":3"; ma=5', where.encode())
        peer.respond(last, b"three")
        await peer.drained()

    async with ScriptedServer(script, tls=server_tls()) as server:
        where = f"https://127.0.0.1:{server.port}"
        services = AlternativeServices()
        async with Client(
            where,
            ssl=client_tls(),
            http3=True,
            alternatives=services,
            connect_timeout=0.5,
        ) as client:
            for port in (None, 2, 3):
                response = await client.get("/")
                await response.read()
                found = services.find(where, "127.0.0.1", server.port)
                assert (found and found.port) == port
            client.abort()


@in_loops
async def test_the_second_address_of_a_name_is_tried_over_tcp(monkeypatch):
    """RFC 8305, 5: the first neither answers nor refuses."""

    async def getaddrinfo(host, port, **options):
        if host != "name.example":  # uvloop looks each address up again
            return await look_up(host, port, **options)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in addresses]

    async def sock_connect(sock, address):
        tried.append((address[0], sock))
        if address[0] == "192.0.2.1":
            await asyncio.Event().wait()
        if address[0] == "192.0.2.2":
            raise ConnectionRefusedError
        await connect(sock, address)

    tried = []
    loop = asyncio.get_running_loop()
    connect, look_up = loop.sock_connect, loop.getaddrinfo
    monkeypatch.setattr(racing, "ATTEMPT_DELAY", 0.01)
    async with echo_server() as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        addresses = ["192.0.2.1", "192.0.2.2", "127.0.0.1"]
        async with Client(f"http://name.example:{port}") as client:
            response = await client.get("/path")
            assert await response.read() == b"/path"
        assert [address for address, _ in tried] == addresses
        assert [sock.fileno() for _, sock in tried[:2]] == [-1, -1]
        addresses = ["192.0.2.2", "192.0.2.2"]
        async with Client(f"http://name.example:{port}") as client:
            with pytest.raises(ConnectionRefusedError):
                await client.get("/path")
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"http3": True, "path": "/socket"}, "path must be None"),
        ({"quic": QuicConfiguration()}, "quic must be None without http3"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        Client("https://localhost", **options)
