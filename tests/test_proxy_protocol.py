"""The PROXY protocol: headers, good and bad, before TLS and in the clear."""

import asyncio
import contextlib
import logging
import socket
import struct

import pytest
from handlers import Good
from hypothesis import given
from hypothesis import strategies as st
from loops import in_loop, in_loops, pause, until

from nghttp2py import access
from nghttp2py.asyncio import H2Stream, Server, open_connection
from nghttp2py.asyncio.proxy_protocol import (
    MAX_HEADER,
    ProxyHeader,
    ProxyPolicy,
    parse_proxy_header,
)
from nghttp2py.asyncio.timeouts import Timeouts

HOST = "127.0.0.1"
GET = {":method": "GET", ":path": "/"}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOGGER = "nghttp2py.asyncio.proxy_protocol"


def binary(command=0x21, family=0x11, body=b""):
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


TCP4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2")
TCP4 += struct.pack(">HH", 5000, 443)
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
TCP6 += socket.inet_pton(socket.AF_INET6, "2001:db8::2") + struct.pack(">HH", 5000, 443)
UNIX = b"/run/client".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
TLV = b"\x04\x00\x03abc"

V4 = (("192.0.2.1", 5000), ("198.51.100.2", 443))
V6 = (("2001:db8::1", 5000, 0, 0), ("2001:db8::2", 443, 0, 0))

VALID = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n", V4),
    (b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 5000 443\r\n", V6),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", None),
    (b"PROXY UNKNOWN\r\n", (None, None)),
    (b"PROXY UNKNOWN ffff:: a b c d e\r\n", (None, None)),
    (binary(body=TCP4), V4),
    (binary(body=TCP4 + TLV), V4),
    (binary(family=0x21, body=TCP6 + TLV), V6),
    (binary(family=0x31, body=UNIX), ("/run/client", "\0abstract")),
    (binary(family=0x31, body=b"\0" * 216), ("", "")),
    (binary(family=0x00), (None, None)),
    (binary(family=0x00, body=TLV), (None, None)),
    (binary(family=0x12, body=TCP4), (None, None)),  # UDP, which is not served here
    (binary(command=0x20, family=0x00), (None, None)),
    (binary(command=0x20, family=0x11, body=TCP4), (None, None)),
    (binary(body=TCP4 + b"\x20" + bytes(MAX_HEADER - 13)), V4),
]


@pytest.mark.parametrize(("header", "ends"), VALID)
def test_a_valid_header_is_read_at_once_and_byte_by_byte(header, ends):
    version = "v1" if header.startswith(b"PROXY") else "v2"
    for accepted in (version, "auto"):
        found = parse_proxy_header(header + b"rest", accepted)
        assert found.size == len(header)
        assert ends is None or found[1:] == ends
    for size in range(1, len(header), max(1, len(header) // 300)):
        assert parse_proxy_header(header[:size], version) is None, header[:size]


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        PREFACE,
        b"proxy TCP4 192.0.2.1 198.51.100.2 5000 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 5000 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 \r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 5000 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 05000 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 \xb2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 5000 443\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.2 5000 443\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN " + b"a" * 107,
        b"PROXY " + b"\0" * 200,
        SIGNATURE[:-1] + b"X",
        binary(command=0x11, body=TCP4),
        binary(command=0x22, body=TCP4),
        binary(command=0x31, body=TCP4),
        binary(family=0x13, body=TCP4),
        binary(family=0x41, body=TCP4),
        binary(family=0x01, body=TCP4),
        binary(body=TCP4[:-1]),
        binary(family=0x21, body=TCP6[:-1]),
        binary(family=0x31, body=UNIX[:-1]),
        binary(body=TCP4 + bytes(MAX_HEADER)),
    ],
)
def test_what_is_no_header_is_refused_before_it_is_whole(header):
    with pytest.raises(ValueError):
        parse_proxy_header(header, "auto")


def test_the_other_version_is_no_header():
    with pytest.raises(ValueError, match="v2"):
        parse_proxy_header(b"P", "v2")
    with pytest.raises(ValueError, match="v1"):
        parse_proxy_header(b"\r", "v1")


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["v1", "v2", "auto"]))
def test_any_bytes_are_a_header_or_incomplete_or_refused(data, version):
    for start in (b"", b"PROXY TCP4 ", b"PROXY TCP6 ::", SIGNATURE, SIGNATURE + b"!"):
        with contextlib.suppress(ValueError):
            found = parse_proxy_header(start + data, version)
            assert found is None or isinstance(found, ProxyHeader)


@pytest.mark.parametrize("version", ["on", "", None, True, "V1", 2])
def test_an_unknown_version_is_named(version):
    with pytest.raises(ValueError, match=r"proxy_protocol must be one of off, v1"):
        Server(Good, (HOST, 0), proxy_protocol=version)


def test_peers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="localhost"):
        ProxyPolicy("v1", "localhost")


# ---- Servers ----


class Told:
    """The exchanges that reach the access log, and the addresses of streams."""

    def __init__(self):
        self.ends = []

    async def __call__(self, stream: H2Stream):
        info = stream.connection.get_extra_info
        self.ends.append((info("peername"), info("sockname")))
        await stream.send_response(200, {}, b"good")


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def fetch_after(port, header, *, ssl=None, chunk=None):
    """Make a request on a connection that begins with ``header``."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, (HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(header), chunk or 20_000):
        await loop.sock_sendall(sock, header[start : start + (chunk or 20_000)])
        await asyncio.sleep(0)
    options = {} if ssl is None else {"ssl": ssl, "server_hostname": "localhost"}
    async with await open_connection(sock=sock, **options) as client:
        stream = await client.open_stream(GET)
        await stream.end_stream()
        return await stream.read()


def serving(app, **options):
    options.setdefault("proxy_protocol", "auto")
    return Server(app, (HOST, 0), **options)


@pytest.mark.parametrize("over_tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])
@in_loops
async def test_the_application_sees_the_addresses_of_the_header(tls, over_tls, chunk):
    app = Told()
    async with serving(app, ssl=tls.server if over_tls else None) as server:
        for header, ends in VALID[:8]:
            if ends is None:
                continue
            assert (
                await fetch_after(
                    port_of(server),
                    header,
                    chunk=chunk,
                    ssl=tls.client if over_tls else None,
                )
                == b"good"
            )
            peer, local = app.ends.pop()
            if ends[0] is None:
                assert (peer[0], local) == (HOST, (HOST, port_of(server)))
            else:
                assert (peer, local) == ends


@in_loops
async def test_what_follows_the_header_in_its_packet_is_not_lost():
    app = Told()
    async with serving(app) as server:
        reader, writer = await asyncio.open_connection(HOST, port_of(server))
        writer.write(VALID[0][0] + PREFACE)
        # SETTINGS, and the acknowledgement of ours.
        assert (await reader.readexactly(9))[3] == 4
        writer.close()
        await writer.wait_closed()


@in_loops
async def test_http1_follows_a_header_too():
    app = Told()
    async with serving(app) as server:
        request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        for header, ends in ((VALID[0][0], V4), (binary(body=TCP4 + TLV), V4)):
            response = await send_and_read(port_of(server), header + request)
            assert response.startswith(b"HTTP/1.1 200") and b"good" in response
            assert app.ends.pop() == ends


@in_loop
async def test_the_access_log_and_handlers_have_the_address_of_the_header():
    addresses, exchanges = [], []

    class Handler(Good):
        def on_headers(self):
            addresses.append(self.client_address)

    access.add_hook(exchanges.append)
    try:
        async with serving(Handler, proxy_protocol="v1") as server:
            await fetch_after(port_of(server), VALID[0][0])
            await until(lambda: exchanges)
    finally:
        access.remove_hook(exchanges.append)
    assert addresses == [V4[0]]
    assert exchanges[0].address == V4[0]


@in_loops
async def test_unix_addresses_are_paths():
    app = Told()
    async with serving(app, proxy_protocol="v2") as server:
        header = binary(family=0x31, body=UNIX)
        assert await fetch_after(port_of(server), header) == b"good"
    assert app.ends == [("/run/client", "\0abstract")]


async def send_and_read(port, data):
    """Return what comes on a connection until it is closed, and whether it was."""
    reader, writer = await asyncio.open_connection(HOST, port)
    received = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        received = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return received


@pytest.mark.parametrize(
    "data",
    [PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n", binary(command=0x35)],
)
@in_loops
async def test_a_connection_without_a_header_is_closed_with_a_line(data, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    app = Told()
    async with serving(app) as server:
        assert await send_and_read(port_of(server), data) == b""
        assert await fetch_after(port_of(server), VALID[0][0]) == b"good"
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "PROXY protocol" in record.message
    assert record.exc_info is None


@in_loops
async def test_the_wrong_version_is_refused():
    async with serving(Told(), proxy_protocol="v2") as server:
        assert await send_and_read(port_of(server), VALID[0][0] + PREFACE) == b""


@in_loops
async def test_a_header_has_its_time(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    async with serving(Told(), timeouts=Timeouts(handshake=0.1)) as server:
        assert await send_and_read(port_of(server), VALID[0][0][:20]) == b""
        assert await send_and_read(port_of(server), b"") == b""
    assert [r.message.count("no header in 0.1 seconds") for r in caplog.records] == [
        *(1, 1)
    ]


@in_loops
async def test_an_end_within_the_header_is_a_line_and_one_before_it_is_not(caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    async with serving(Told()) as server:
        for data in (b"", b"PROXY TC"):
            _, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(data)
            writer.close()
            await writer.wait_closed()
        await until(lambda: len(caplog.records) == 2)
    levels = {record.levelno for record in caplog.records}
    assert levels == {logging.DEBUG, logging.INFO}


@in_loops
async def test_peers_that_are_not_listed_have_no_header():
    app = Told()
    async with serving(app, proxy_allow_from="192.0.2.0/24") as server:
        assert await fetch_after(port_of(server), b"") == b"good"
        assert app.ends[0][1] == (HOST, port_of(server))
        assert b"PROXY" not in await send_and_read(port_of(server), VALID[0][0])
    async with serving(app, proxy_allow_from=["192.0.2.1", HOST]) as server:
        assert await fetch_after(port_of(server), VALID[0][0]) == b"good"
        assert app.ends[-1] == V4


@in_loops
async def test_headers_that_are_awaited_count_as_connections():
    app = Told()
    async with serving(app, limit_connections=2) as server:
        port = port_of(server)
        waiting = [await asyncio.open_connection(HOST, port) for _ in range(2)]
        third = asyncio.ensure_future(fetch_after(port, VALID[0][0]))
        _, writer = waiting.pop()
        await pause()
        assert not third.done()
        writer.close()
        await writer.wait_closed()
        assert await third == b"good"
        for _, writer in waiting:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("end", ["close", "abort"])
@in_loops
async def test_the_end_of_a_server_waits_for_no_header(end):
    server = serving(Told())
    async with server:
        reader, writer = await asyncio.open_connection(HOST, port_of(server))
        writer.write(b"PROXY")
        reader2, writer2 = await asyncio.open_connection(HOST, port_of(server))
        listener = server._listener
        await until(lambda: listener.count == 2)
        getattr(server, end)()
        for each in (reader, reader2):
            with contextlib.suppress(ConnectionError):
                assert await each.read() == b""
        await server.wait_closed()
    for each in (writer, writer2):
        each.close()
        with contextlib.suppress(ConnectionError):
            await each.wait_closed()


@in_loop
async def test_alt_svc_has_the_port_of_our_own_socket(paths, tls):
    responses = []

    async with Server(
        Good, (HOST, 0), ssl=paths, http3=True, proxy_protocol="v1"
    ) as server:
        port = port_of(server)
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, port))
        await loop.sock_sendall(sock, VALID[0][0])
        async with await open_connection(
            sock=sock, ssl=tls.client, server_hostname="localhost"
        ) as client:
            stream = await client.open_stream(GET)
            await stream.end_stream()
            response = await stream.response()
            responses.append(dict(response.headers))
            assert await stream.read() == b"good"
    assert responses[0][b"alt-svc"] == b'h3=":%d"' % port
