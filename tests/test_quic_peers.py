"""Ours beside aioquic and qh3 over loopback, in both roles: connect and serve."""

import asyncio
import contextlib
import gc
import importlib
import random

import pytest
from loops import in_loop, until
from quic_pair import (
    authority,
    client_configuration,
    identity,
    server_configuration,
)

from nghttp2py.asyncio import quic as ours

V1, V2 = 1, 0x6B3343CF
UNKNOWN_VERSION = 0x1A2A3A4A

# Whose client, and whose server.
PAIRS = [
    ("ours", "aioquic"),
    ("aioquic", "ours"),
    ("ours", "qh3"),
    ("qh3", "ours"),
]
each_pair = pytest.mark.parametrize(("client", "server"), PAIRS)


class Side:
    """A package, as a client and as a server."""

    def __init__(self, name, directory):
        self.name = name
        self.directory = directory
        if name == "ours":
            self.connect, self.serve = ours.connect, ours.serve
        else:
            module = importlib.import_module(f"{name}.asyncio")
            self.connect, self.serve = module.connect, module.serve

    def configuration(self, is_client, fields):
        if self.name == "ours":
            make = client_configuration if is_client else server_configuration
            return make(**fields)
        module = importlib.import_module(f"{self.name}.quic.configuration")
        fields.setdefault("alpn_protocols", ["test"])
        if is_client:
            fields.setdefault("server_name", "localhost")
        made = module.QuicConfiguration(is_client=is_client, **fields)
        if is_client:
            made.load_verify_locations(str(self.file("authority.pem")))
        else:
            made.load_cert_chain(self.file("chain.pem"), self.file("key.pem"))
        return made

    def file(self, name):
        chain, key = identity()
        contents = {
            "authority.pem": authority().cert_pem.bytes(),
            "chain.pem": chain,
            "key.pem": key,
        }
        path = self.directory / name
        path.write_bytes(contents[name])
        return path


class Meeting:
    """A running server of one side, and clients of the other."""

    def __init__(self, client, server, directory):
        self.client = Side(client, directory)
        self.server = Side(server, directory)
        self.tasks = set()

    def echo(self, reader, writer):
        async def send_back():
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
                    # qh3's writers cannot.
                    if self.server.name != "qh3":
                        await writer.drain()
                writer.write_eof()

        task = asyncio.ensure_future(send_back())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @contextlib.asynccontextmanager
    async def serving(self, fields=None, **arguments):
        running = await self.server.serve(
            "127.0.0.1",
            0,
            configuration=self.server.configuration(False, fields or {}),
            stream_handler=self.echo,
            **arguments,
        )
        self.port = running._transport.get_extra_info("sockname")[1]
        try:
            yield running
        finally:
            running.close()
            # Theirs ask for their loop when they are deleted.
            gc.collect()

    def connected(self, fields=None, **arguments):
        return self.client.connect(
            "127.0.0.1",
            self.port,
            configuration=self.client.configuration(True, fields or {}),
            **arguments,
        )


async def ask(client, data):
    reader, writer = await client.create_stream()
    writer.write(data)
    writer.write_eof()
    return await reader.read()


@each_pair
@pytest.mark.parametrize("retry", [False, True])
@in_loop
async def test_two_megabytes_come_back(client, server, retry, tmp_path):
    data = random.Random(2).randbytes(2 << 20)
    meeting = Meeting(client, server, tmp_path)
    async with meeting.serving(retry=retry), meeting.connected() as connection:
        assert await ask(connection, data) == data


@each_pair
@pytest.mark.parametrize("versions", [[V1], [V2]])
@in_loop
async def test_versions(client, server, versions, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    fields = {"supported_versions": versions}
    async with (
        meeting.serving(dict(fields), retry=True),
        meeting.connected(dict(fields, original_version=versions[0])) as connection,
    ):
        assert await ask(connection, b"hello") == b"hello"


@each_pair
@in_loop
async def test_an_unknown_version_is_negotiated(client, server, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    if client == "ours":
        fields = {"original_version": UNKNOWN_VERSION}
    else:
        # Theirs begin with what they know alone.
        fields = {"supported_versions": [V2, V1], "original_version": V2}
    async with (
        meeting.serving({"supported_versions": [V1]}),
        meeting.connected(fields) as connection,
    ):
        assert await ask(connection, b"hello") == b"hello"


@each_pair
@in_loop
async def test_pings_keys_and_connection_ids(client, server, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    async with meeting.serving(), meeting.connected() as connection:
        await connection.ping()
        connection.request_key_update()
        await connection.ping()
        connection.change_connection_id()
        await connection.ping()
        assert await ask(connection, b"still here") == b"still here"


@each_pair
@in_loop
async def test_the_server_updates_keys_and_connection_ids(client, server, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    async with meeting.serving() as running, meeting.connected() as connection:
        await connection.ping()
        protocol = next(iter(running._protocols.values()))
        protocol.request_key_update()
        await protocol.ping()
        # Ours cannot, and nothing happens.
        protocol.change_connection_id()
        await protocol.ping()
        assert await ask(connection, b"still here") == b"still here"


# A client of qh3 2.1 has no room in its ClientHello for a ticket of GnuTLS's size.
@pytest.mark.parametrize(("client", "server"), PAIRS[:3])
@pytest.mark.parametrize("known", [True, False])
@in_loop
async def test_early_data_are_taken_or_sent_again(client, server, known, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    tickets, store = [], {}
    async with meeting.serving(
        session_ticket_handler=lambda ticket: store.update({ticket.ticket: ticket}),
        session_ticket_fetcher=lambda label: store.get(label),
    ):
        async with meeting.connected(session_ticket_handler=tickets.append) as one:
            await one.ping()
            await until(lambda: tickets)
        if not known:
            store.clear()
        async with meeting.connected(
            {"session_ticket": tickets[0]}, wait_connected=False
        ) as two:
            assert await ask(two, b"early") == b"early"
            assert two._quic.tls.session_resumed == known


@each_pair
@in_loop
async def test_a_wrong_name_is_refused(client, server, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    async with meeting.serving():
        with pytest.raises(ConnectionError):
            async with meeting.connected({"server_name": "elsewhere.example"}):
                raise AssertionError("it was accepted")


@each_pair
@in_loop
async def test_an_unknown_authority_is_refused(client, server, tmp_path):
    meeting = Meeting(client, server, tmp_path)
    async with meeting.serving():
        configuration = meeting.client.configuration(True, {})
        configuration.cafile = configuration.cadata = None
        if client == "ours":
            configuration = client_configuration(cadata=None)
        with pytest.raises(ConnectionError):
            async with meeting.client.connect(
                "127.0.0.1", meeting.port, configuration=configuration
            ):
                raise AssertionError("it was accepted")
