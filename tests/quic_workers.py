"""Workers of a QuicGroup in one process, and clients that change their port."""

import asyncio
import contextlib
import socket

from quic_pair import client_configuration, server_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.asyncio.udp import UDPTransport

#: An address of the loopback interface, any port.
LOOPBACK = ("127.0.0.1", 0)

#: The options with which the kernel steers, and without.
BPF = [True, False]


async def echo_stream(reader, writer):
    """Send a stream back, as it comes."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class Workers:
    """A supervisor and its workers, by slot and generation."""

    def __init__(self, size, addresses=(LOOPBACK,), **options):
        self._tasks = set()
        self.group = QuicGroup(addresses, size, **options)
        self.address = self.group.addresses[0][:2]
        self.servers = {}
        self.members = {}

    async def start(self, slot, generation=0, **options):
        """Start the worker of a slot; a test may change its member first."""
        member = self.group.member(slot, generation)
        self.members[slot, generation] = member
        options.setdefault("stream_handler", self.echo)
        options.setdefault("configuration", server_configuration())
        server = await serve(group=member, **options)
        self.servers[slot, generation] = server
        return server

    def echo(self, reader, writer):
        task = asyncio.ensure_future(echo_stream(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, slot, generation=0):
        """Have a worker end at once and send nothing, as one that was killed."""
        server = self.servers.pop((slot, generation))
        for protocol in server._connections:
            protocol._transport = None
        server.abort()
        self.group.ended(slot, generation)

    def total(self, name):
        return sum(getattr(m.counts, name) for m in self.members.values())

    def with_connections(self):
        """The workers that have a connection."""
        return {key for key, s in self.servers.items() if s.connection_count}


@contextlib.asynccontextmanager
async def running(size, **options):
    """Workers of generation 0 in each slot."""
    workers = Workers(size, **options)
    try:
        for slot in range(size):
            await workers.start(slot)
        yield workers
    finally:
        for server in workers.servers.values():
            server.abort()
        for server in workers.servers.values():
            await server.wait_closed()
        workers.group.close()


class Mobile(QuicConnectionProtocol):
    """A client that can change its port, as behind a NAT, and talks to an echo."""

    def move(self):
        """Send from a new port from now on."""
        old = self._transport
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::", 0))
        sock.setblocking(False)
        UDPTransport(self._loop, sock, self)
        old._protocol = asyncio.DatagramProtocol()
        old.close()

    async def talk(self, data=b"hello"):
        """Have a stream sent back."""
        reader, writer = await self.create_stream()
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data


@contextlib.asynccontextmanager
async def client(workers, **fields):
    options = {
        name: fields.pop(name)
        for name in ("create_protocol", "session_ticket_handler")
        if name in fields
    }
    options.setdefault("create_protocol", Mobile)
    async with connect(
        *workers.address, configuration=client_configuration(**fields), **options
    ) as protocol:
        try:
            yield protocol
        finally:
            protocol.close()
            await protocol.wait_closed()
            protocol._transport.close()


@contextlib.asynccontextmanager
async def clients(workers, number):
    """Several clients, which are closed together."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        try:
            for _ in range(number):
                made.append(await stack.enter_async_context(client(workers)))
            yield made
        finally:
            for each in made:
                each.close()
            await asyncio.gather(*(each.wait_closed() for each in made))
