"""Certificates of servers in files: by name, read again, for TCP and QUIC alike."""

import asyncio
import contextlib
import datetime
import itertools
import logging
import os
import re
import socket
import ssl
import sys
from typing import NamedTuple

import pytest
import trustme
from handlers import Good
from loops import in_loop, until
from quic_pair import client_configuration

from nghttp2py.asgi import ASGIApp
from nghttp2py.asyncio import Client, Server, TLSOptions
from nghttp2py.asyncio.certificates import load_tls
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.tls import ClientHello
from nghttp2py.errors import TLSConfigurationError
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.server import BaseRequestHandler, HTTP2Server
from nghttp2py.x509 import read_certificate, split_pem

HOST = "127.0.0.1"
GET = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/"),
]

transports = pytest.mark.parametrize("http3", [False, True], ids=["tcp", "quic"])


class Authority:
    """Issues certificates into files of a directory."""

    def __init__(self, directory):
        # The names are the same for each: GnuTLS's client sends no certificate of an
        # authority that the server does not name.
        self.ca = trustme.CA(
            organization_name="nghttp2py", organization_unit_name="tests"
        )
        self.directory = directory
        self.file = str(directory / "authority.pem")
        self.ca.cert_pem.write_to_path(self.file)
        self._numbers = itertools.count()

    def issue(self, *names, days=None):
        """The paths of a certificate and of its key."""
        number = next(self._numbers)
        pair = self.directory / f"cert{number}.pem", self.directory / f"key{number}.pem"
        self.write(pair, *names, days=days)
        return pair

    def write(self, pair, *names, days=None):
        """Write another certificate over files."""
        end = None
        if days is not None:
            now = datetime.datetime.now(datetime.timezone.utc)
            end = now + datetime.timedelta(days=days, hours=1)
        made = self.ca.issue_cert(*names, not_after=end)
        pair[0].write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        pair[1].write_bytes(made.private_key_pem.bytes())


class Seen(NamedTuple):
    """What a client was shown."""

    names: tuple
    serial_number: int


def seen(der):
    certificate = read_certificate(der)
    return Seen(certificate.dns_names, certificate.serial_number)


def serial_of(pair):
    (der, *_) = split_pem(pair[0].read_bytes())
    return read_certificate(der).serial_number


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority):
    return [
        authority.issue("localhost", "127.0.0.1"),
        authority.issue("one.example", "*.two.example"),
        authority.issue("special.two.example", "one.example"),
    ]


async def answer(stream):
    await stream.send_response(200, {}, b"good")


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def ask(port, name, *, http3):
    """Make a connection that asks for a name; return the certificate of the server."""
    if http3:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=0, server_name=name
        )
        if name is None:
            # SNI has no addresses (RFC 6066, 3).
            configuration.server_name = HOST
        async with connect(HOST, port, configuration=configuration) as protocol:
            return seen(protocol._quic.peer_certificates[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        HOST, port, ssl=context, server_hostname=name or ""
    )
    try:
        return seen(writer.get_extra_info("ssl_object").getpeercert(True))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# ---- By name.


@transports
@in_loop
async def test_a_client_gets_the_certificate_of_its_name(pairs, http3):
    options = TLSOptions(pairs)
    async with Server(answer, (HOST, 0), ssl=options, http3=True) as server:
        found = {}
        for name in (
            *("localhost", "one.example", "ONE.example", "a.two.example"),
            # A full name has precedence over a pattern.
            "special.two.example",
        ):
            found[name] = await ask(port_of(server), name, http3=http3)
            names = found[name].names
            pattern = "*." + name.partition(".")[2]
            assert name.lower() in names or pattern in names
        # Of two with the same name, the first.
        assert found["one.example"].serial_number == serial_of(pairs[1])
        assert found["special.two.example"].serial_number == serial_of(pairs[2])
        # "*" stands for one label (RFC 9525, 6.3).
        for other in ("two.example", "a.b.two.example", "none.example", None):
            shown = await ask(port_of(server), other, http3=http3)
            assert shown == found["localhost"], other


@in_loop
async def test_the_client_trusts_each_of_them(authority, pairs):
    async with HTTP2Server((HOST, 0), Good, ssl=TLSOptions(pairs)) as server:
        context = ssl.create_default_context(cafile=authority.file)
        for name in ("localhost", "one.example", "a.two.example"):
            async with Client(
                f"https://{HOST}:{port_of(server)}", ssl=context, server_hostname=name
            ) as client:
                response = await client.get("/")
                assert await response.read() == b"good"


def hello(name):
    """The ClientHello of a client that asks for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read_server_name(data):
    return ClientHello(data).read_server_name()


def test_a_name_is_read_when_the_hello_is_whole():
    data = hello("one.example")
    for end in range(len(data)):
        assert read_server_name(data[:end]) is None
    assert read_server_name(data) == read_server_name(data + b"more") == "one.example"
    assert read_server_name(hello(None)) == ""
    # In records of a byte each.
    split = b"".join(b"\x16\3\1\0\1" + data[i : i + 1] for i in range(5, len(data)))
    assert read_server_name(split) == "one.example"
    for other in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\0", b"\x16\3\1\0\1\2"):
        assert read_server_name(other) == ""
    odd = data.replace(b"one.example", b"\xff\0e.example")
    assert not read_server_name(odd).isascii()
    assert read_server_name(data.replace(b"\0\x0bone", b"\xff\xffone")) is not None


def test_each_byte_of_a_hello_is_parsed_once():
    """A client that sends single bytes in records of one would keep us busy."""
    data = hello("one.example")
    split = b"".join(b"\x16\3\1\0\1" + data[i : i + 1] for i in range(5, len(data)))
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    client = ClientHello()
    before = sys.gettrace()
    sys.settrace(count)
    try:
        for i in range(len(split)):
            client.data += split[i : i + 1]
            name = client.read_server_name()
    finally:
        sys.settrace(before)
    assert name == "one.example"
    assert lines < 50 * len(split)


@in_loop
async def test_a_hello_may_come_byte_by_byte(pairs):
    async with Server(answer, (HOST, 0), ssl=TLSOptions(pairs)) as server:
        reader, writer = await asyncio.open_connection(HOST, port_of(server))
        writer.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="one.example")
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                for octet in outgoing.read():
                    writer.write(bytes([octet]))
                    await asyncio.sleep(0)
                incoming.write(await reader.read(65536))
            else:
                break
        assert "one.example" in seen(client.getpeercert(True)).names
        writer.close()


@in_loop
async def test_what_is_no_tls_or_has_an_odd_name_ends_without_a_traceback(
    pairs, caplog, monkeypatch
):
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    caplog.set_level(logging.INFO)
    async with Server(answer, (HOST, 0), ssl=TLSOptions(pairs)) as server:
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            hello("one.example").replace(b"one.example", b"\xff\xfe\xfd.example"),
        ):
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(data)
            writer.write_eof()
            await reader.read()
            writer.close()
        # A client that stops in its hello has the time of the handshake.
        reader, writer = await asyncio.open_connection(HOST, port_of(server))
        writer.write(hello("one.example")[:100])
        await until(lambda: server.counts.accepted == 3)
        writer.close()
        await until(lambda: server.counts.connections == 0)
        assert server.counts.failed_handshakes == 3
    assert "an HTTP request in the clear" in caplog.text
    assert not raised and not any(record.exc_info for record in caplog.records)


# ---- Handshakes that fail.


def shake_hands(context, sock):
    """Make a connection of TLS, and wait for its end."""
    with (
        contextlib.suppress(OSError),
        context.wrap_socket(sock, server_hostname="localhost") as secured,
    ):
        secured.recv(1)


@pytest.mark.parametrize(
    ("client", "required", "reason"),
    [
        ({"maximum_version": ssl.TLSVersion.TLSv1_2}, False, "version"),
        ({}, True, "client_certificate"),
        ({"verify_mode": ssl.CERT_REQUIRED}, False, "server_certificate"),
        ({}, False, "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@in_loop
async def test_handshakes_that_fail_are_counted_by_reason(
    authority, client, required, reason
):
    options = TLSOptions(
        [authority.issue("localhost")],
        minimum_version=ssl.TLSVersion.TLSv1_3,
        ca_certs=authority.file,
        verify_mode=ssl.CERT_REQUIRED if required else ssl.CERT_NONE,
    )
    timeouts = Timeouts(handshake=0.1 if reason == "timeout" else 10)
    async with Server(answer, (HOST, 0), ssl=options, timeouts=timeouts) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name, value in client.items():
            setattr(context, name, value)
        with socket.create_connection((HOST, port_of(server))) as sock:
            if reason == "timeout":
                sock.sendall(hello("localhost")[:50])
            else:
                # Not by asyncio, whose client sends no alert.
                await asyncio.to_thread(shake_hands, context, sock)
            await until(lambda: server.counts.failed_handshakes == 1)
        found = {key: n for key, n in server.handshake_failures.items() if n}
        assert found == {("tcp", reason): 1}


# ---- Read again.


class Held:
    """A connection that stays open, with its client."""

    def __init__(self, port, authority, http3):
        self.client = Client(
            f"https://localhost:{port}",
            ssl=ssl.create_default_context(cafile=authority.file),
            http3="only" if http3 else False,
        )

    async def get(self):
        response = await self.client.get("/")
        return await response.read()


@transports
@in_loop
async def test_new_connections_get_the_certificates_of_a_reload(authority, http3):
    pairs = [authority.issue("localhost"), authority.issue("one.example")]
    options = TLSOptions(pairs)
    async with Server(answer, (HOST, 0), ssl=options, http3=True) as server:
        port = port_of(server)
        held = Held(port, authority, http3)
        async with held.client:
            assert await held.get() == b"good"
            before = [
                await ask(port, name, http3=http3) for name in (None, "one.example")
            ]
            authority.write(pairs[0], "localhost")
            authority.write(pairs[1], "one.example", "new.example")
            same = await ask(port, None, http3=http3)
            assert same == before[0]
            accepted = server.counts
            server.reload_certificates()
            after = [
                await ask(port, name, http3=http3) for name in (None, "new.example")
            ]
            assert [each.serial_number for each in after] == [*map(serial_of, pairs)]
            assert not {*before} & {*after}
            # The connection that was there goes on.
            assert await held.get() == b"good"
        counts = server.counts
        assert (counts.accepted if not http3 else counts.quic_accepted) - (
            accepted.accepted if not http3 else accepted.quic_accepted
        ) == 2


@transports
@in_loop
async def test_files_that_cannot_be_used_leave_the_old_certificates(authority, http3):
    pair = authority.issue("localhost")
    good = pair[0].read_bytes(), pair[1].read_bytes()
    other = authority.issue("localhost")
    async with Server(answer, (HOST, 0), ssl=pair, http3=True) as server:
        before = await ask(port_of(server), "localhost", http3=http3)
        for cert, key, text in (
            (other[0].read_bytes(), good[1], "cert.*and the key in.*do not belong"),
            (b"nothing", good[1], "there is no certificate in '.*cert"),
            (good[0], b"nothing", "there is no private key in '.*key"),
            (good[0][:200], good[1], "there is no certificate in"),
            (good[0].replace(b"MII", b"AAA", 1), good[1], "cert.*malformed"),
        ):
            pair[0].write_bytes(cert)
            pair[1].write_bytes(key)
            with pytest.raises(TLSConfigurationError, match=text) as caught:
                server.reload_certificates()
            assert str(pair[0]) in str(caught.value) or str(pair[1]) in str(
                caught.value
            )
        os.unlink(pair[0])
        with pytest.raises(FileNotFoundError, match="cert"):
            server.reload_certificates()
        assert await ask(port_of(server), "localhost", http3=http3) == before


@in_loop
async def test_a_reload_may_name_other_files(authority, tls):
    first, second = authority.issue("localhost"), authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*first)
    async with Server(answer, (HOST, 0), ssl=context, http3=first) as server:
        with pytest.raises(ValueError, match="ssl must be given"):
            server.reload_certificates()
        with pytest.raises(TLSConfigurationError, match="load_cert_chain"):
            server.reload_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        server.reload_certificates(second, second)
        for http3 in (False, True):
            shown = await ask(port_of(server), "localhost", http3=http3)
            assert shown.serial_number == serial_of(second)
        authority.write(second, "localhost")
        server.reload_certificates()
        shown = await ask(port_of(server), "localhost", http3=False)
        assert shown.serial_number == serial_of(second)
    Server(answer, (HOST, 0), ssl=load_tls(TLSOptions([first]))).reload_certificates()
    plain = Server(answer, (HOST, 0))
    with pytest.raises(ValueError, match="made without ssl"):
        plain.reload_certificates(first)
    with pytest.raises(ValueError, match="made without http3"):
        Server(answer, (HOST, 0), ssl=first).reload_certificates(first, first)


@in_loop
async def test_a_reload_before_the_start_counts(authority):
    pair = authority.issue("localhost")
    server = Server(answer, (HOST, 0), ssl=pair, http3=True)
    authority.write(pair, "localhost")
    server.reload_certificates()
    async with server:
        for http3 in (False, True):
            shown = await ask(port_of(server), "localhost", http3=http3)
            assert shown.serial_number == serial_of(pair)


@in_loop
async def test_no_request_is_lost_by_reloads_under_load(authority):
    pair = authority.issue("localhost")
    async with Server(answer, (HOST, 0), ssl=pair, http3=True) as server:
        port = port_of(server)
        stop = asyncio.Event()
        answered = 0

        async def load(http3):
            nonlocal answered
            while not stop.is_set():
                held = Held(port, authority, http3)
                async with held.client:
                    for _ in range(3):
                        assert await held.get() == b"good"
                        answered += 1

        tasks = [asyncio.create_task(load(http3)) for http3 in (False, False, True)]
        for number in range(1, 6):
            await until(lambda least=10 * number: answered >= least)
            authority.write(pair, "localhost")
            server.reload_certificates()
        stop.set()
        await asyncio.gather(*tasks)
        counts = server.counts
        assert not counts.failed_handshakes and not counts.quic_failed_handshakes


@in_loop
async def test_a_quic_server_takes_another_configuration(authority):
    first, second = authority.issue("localhost"), authority.issue("localhost")

    def configure(pair):
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["test"])
        configuration.load_cert_chain(*pair)
        return configuration

    server = await serve(HOST, 0, configuration=configure(first))
    port = server.sockets[0].getsockname()[1]

    async def shown():
        client = client_configuration(verify_mode=0)
        async with connect(HOST, port, configuration=client) as protocol:
            return seen(protocol._quic.peer_certificates[0]).serial_number

    assert await shown() == serial_of(first)
    bad = configure(second)
    bad.private_key = first[1].read_bytes()
    with pytest.raises(ValueError, match="do not belong together"):
        server.reload_certificates(bad)
    assert await shown() == serial_of(first)
    server.reload_certificates(configure(second))
    assert await shown() == serial_of(second)
    server.close()
    await server.wait_closed()


# ---- Options.


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"certificates": []}, ValueError, "certificates must have a pair of paths"),
        ({"certificates": "cert.pem"}, TypeError, "certificates must be a list"),
        ({"certificates": ["cert.pem"]}, TypeError, "must be the paths"),
        ({"certificates": [("a",)]}, ValueError, "must be two paths"),
        ({"certificates": [(1, None)]}, TypeError, "must be a path, not 1"),
        ({"password": 1}, TypeError, "password must be a str or bytes, not 1"),
        ({"ca_certs": 1}, TypeError, "ca_certs must be a path, not 1"),
        ({"verify_mode": 3}, ValueError, "verify_mode is 3"),
        ({"minimum_version": ssl.TLSVersion.TLSv1_1}, ValueError, "RFC 9113, 9.2"),
        ({"ciphers": 1}, TypeError, "ciphers must be a str, not 1"),
        ({"ticket_key": b"short"}, ValueError, "ticket_key must have 64 bytes, not 5"),
    ],
    ids=str,
)
def test_wrong_options_are_named(fields, error, text):
    with pytest.raises(error, match=text):
        TLSOptions(**{"certificates": [("cert.pem", None)], **fields})


def test_both_transports_trust_the_same_authorities(authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.directory / "none"))
    loaded = load_tls(
        TLSOptions([authority.issue("localhost")], verify_mode=ssl.CERT_REQUIRED)
    )
    quic = QuicConfiguration(is_client=False)
    loaded.configure(quic)
    assert split_pem(quic.cadata) == split_pem(authority.ca.cert_pem.bytes())
    (context,) = (each.context for each in loaded.certificates)
    assert context.get_ca_certs(binary_form=True) == split_pem(quic.cadata)


def test_secrets_are_not_shown():
    options = TLSOptions([("a", None)], password="secret", ticket_key=b"s" * 64)
    assert "secret" not in repr(options) and "sss" not in repr(options)


def test_files_that_cannot_be_used_together_are_named(authority, tmp_path):
    pair, other = authority.issue("localhost"), authority.issue("localhost")
    nameless = authority.issue("127.0.0.1")
    for certificates, fields, text in (
        ([pair, other], {}, f"{other[0]}' would never be used"),
        ([pair, nameless], {}, "would never be used: it has no DNS name"),
        ([pair], {"ca_certs": pair[1]}, "no certificate of an authority in '.*key"),
        ([pair], {"ciphers": "none"}, "the ciphers 'none' cannot be used: No cipher"),
        ([(pair[0], None)], {}, "there is no private key in '.*cert"),
    ):
        with pytest.raises(TLSConfigurationError, match=text):
            load_tls(TLSOptions(certificates, **fields))
    both = tmp_path / "both.pem"
    both.write_bytes(pair[1].read_bytes() + pair[0].read_bytes())
    (loaded,) = load_tls(TLSOptions([(both, None)])).certificates
    assert loaded.names == ("localhost",)


def test_an_encrypted_key_needs_its_password(authority, tmp_path):
    from cryptography.hazmat.primitives import serialization

    cert, key = authority.issue("localhost")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    pair = [(cert, encrypted)]
    with pytest.raises(TLSConfigurationError, match="there is no password"):
        load_tls(TLSOptions(pair))
    with pytest.raises(TLSConfigurationError, match="the password may be wrong"):
        load_tls(TLSOptions(pair, password="wrong"))
    for word in ("word", b"word"):
        server = Server(
            answer, (HOST, 0), ssl=TLSOptions(pair, password=word), http3=True
        )
        server.reload_certificates()


@in_loop
async def test_a_minimum_version_is_that_of_tcp(authority):
    options = TLSOptions(
        [authority.issue("localhost")], minimum_version=ssl.TLSVersion.TLSv1_3
    )
    async with Server(answer, (HOST, 0), ssl=options) as server:
        context = ssl.create_default_context(cafile=authority.file)
        assert await ask(port_of(server), "localhost", http3=False)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            await asyncio.open_connection(
                HOST, port_of(server), ssl=context, server_hostname="localhost"
            )


# ---- Client certificates.


@transports
@pytest.mark.parametrize("mode", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
@in_loop
async def test_clients_show_their_certificates(authority, http3, mode, tmp_path):
    shown = []

    async def note(stream):
        shown.append(stream.http.get_extra_info("peercert"))
        await answer(stream)

    options = TLSOptions(
        [authority.issue("localhost")], ca_certs=authority.file, verify_mode=mode
    )
    own = authority.issue("client.example")
    async with Server(note, (HOST, 0), ssl=options, http3=True) as server:

        async def get(pair):
            url = f"https://localhost:{port_of(server)}"
            context = ssl.create_default_context(cafile=authority.file)
            configuration = client_configuration(alpn_protocols=H3_ALPN, cadata=None)
            configuration.cafile = authority.file
            if pair is not None:
                context.load_cert_chain(*pair)
                configuration.load_cert_chain(*pair)
            options = {"http3": configuration} if http3 else {"ssl": context}
            async with Client(url, **options) as client:
                return await (await client.get("/")).read()

        assert await get(own) == b"good"
        names = shown.pop()["subjectAltName"]
        assert names == (("DNS", "client.example"),)
        stranger = Authority(tmp_path).issue("client.example")
        if mode == ssl.CERT_OPTIONAL:
            assert await get(None) == b"good"
            assert shown.pop() is None
        else:
            with pytest.raises(OSError):
                await get(None)
        with pytest.raises(OSError):
            await get(stranger)
        assert not shown


@transports
@in_loop
async def test_applications_and_handlers_see_both_certificates(authority, http3):
    seen_by_them = []

    async def app(scope, receive, send):
        seen_by_them.append(scope["extensions"]["tls"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"good"})

    class Handler(BaseRequestHandler):
        def on_request_done(self):
            seen_by_them.append(self.client_certificate)
            self.send_response(200, None, b"good")

    pair, own = authority.issue("localhost"), authority.issue("client.example")
    options = TLSOptions([pair], ca_certs=authority.file, verify_mode=ssl.CERT_REQUIRED)
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(*own)
    configuration = client_configuration(alpn_protocols=H3_ALPN, cadata=None)
    configuration.cafile = authority.file
    configuration.load_cert_chain(*own)
    for program in (ASGIApp(app), Handler):
        async with Server(program, (HOST, 0), ssl=options, http3=True) as server:
            url = f"https://localhost:{port_of(server)}"
            given = {"http3": configuration} if http3 else {"ssl": context}
            async with Client(url, **given) as client:
                assert await (await client.get("/")).read() == b"good"
    tls, certificate = seen_by_them
    chain = ssl.PEM_cert_to_DER_cert(tls["client_cert_chain"][0])
    assert read_certificate(chain).to_dict() == certificate
    assert certificate["subjectAltName"] == (("DNS", "client.example"),)
    # The subject, the most specific part first (RFC 4514, 2.1).
    assert re.fullmatch(r"OU=Testing cert #\S+,O=trustme \S+", tls["client_cert_name"])
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    shown = ssl.PEM_cert_to_DER_cert(tls["server_cert"])
    assert seen(shown).serial_number == serial_of(pair)


# ---- Validity.


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (-2, "has expired on 20.*, 1 days ago"),
        (3, "expires on 20.*, in 3 days"),
        (30, None),
    ],
)
@in_loop
async def test_one_line_says_that_a_certificate_ends(authority, days, text, caplog):
    pair = authority.issue("localhost", days=days)
    async with Server(answer, (HOST, 0), ssl=pair, http3=True):
        pass
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    if text is None:
        assert not warnings
    else:
        (line,) = warnings
        assert str(pair[0]) in line
        assert re.search(text, line)


# ---- Session tickets of QUIC.


class Visitor:
    """A client of HTTP/3 that keeps its tickets."""

    def __init__(self, authority, pair=None):
        self.tickets = []
        self.authority = authority
        self.pair = pair

    async def visit(self, server):
        """Make a connection; return whether it has resumed a session."""
        configuration = client_configuration(alpn_protocols=H3_ALPN, cadata=None)
        configuration.cafile = self.authority.file
        if self.pair is not None:
            configuration.load_cert_chain(*self.pair)
        if self.tickets:
            configuration.session_ticket = self.tickets[-1]
        count = len(self.tickets)
        async with connect(
            HOST,
            port_of(server),
            configuration=configuration,
            create_protocol=H3Protocol,
            session_ticket_handler=self.tickets.append,
        ) as protocol:
            stream = await protocol.open_stream(GET, end_stream=True)
            assert await stream.read() == b"good"
            tls = protocol._quic.tls
            assert not tls.early_data_accepted
            # GnuTLS issues no ticket in a connection that has resumed a session.
            await until(lambda: tls.session_resumed or len(self.tickets) > count)
            return tls.session_resumed


@in_loop
async def test_servers_with_the_same_key_resume_their_sessions(authority):
    pair = authority.issue("localhost")

    def server(key):
        return Server(
            answer, (HOST, 0), ssl=TLSOptions([pair], ticket_key=key), http3=True
        )

    visitor = Visitor(authority)
    key = os.urandom(64)
    async with server(key) as first, server(key) as second, server(None) as third:
        assert not await visitor.visit(first)
        # None of the tickets allows early data, which could be replayed to each server.
        assert visitor.tickets[0].max_early_data_size is None
        assert await visitor.visit(first)
        assert await visitor.visit(second)
        assert not await visitor.visit(third)
        # By default a server resumes its own, and does after a reload.
        assert await visitor.visit(third)
        authority.write(pair, "localhost")
        third.reload_certificates()
        assert await visitor.visit(third)


@in_loop
async def test_a_resumed_session_shows_the_clients_certificate(authority, tmp_path):
    shown = []

    async def note(stream):
        found = stream.http.get_extra_info("peercert")
        shown.append(found and found["subjectAltName"])
        await answer(stream)

    pair = authority.issue("localhost")
    trusted = tmp_path / "trusted.pem"
    authority.ca.cert_pem.write_to_path(str(trusted))
    options = TLSOptions([pair], ca_certs=trusted, verify_mode=ssl.CERT_REQUIRED)
    visitor = Visitor(authority, authority.issue("client.example"))
    async with Server(note, (HOST, 0), ssl=options, http3=True) as server:
        assert not await visitor.visit(server)
        assert await visitor.visit(server)
        assert shown == [(("DNS", "client.example"),)] * 2
        # A server that trusts others does not trust the ticket.
        trustme.CA().cert_pem.write_to_path(str(trusted))
        server.reload_certificates()
        with pytest.raises(ConnectionError):
            await visitor.visit(server)
        assert len(shown) == 2
