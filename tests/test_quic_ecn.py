"""ECN: marks on sockets, and their validation (RFC 9000, 13.4; RFC 3168)."""

import asyncio
import socket

import pytest
from loops import in_loop
from quic_pair import (
    CLIENT,
    SERVER,
    client_configuration,
    events_of,
    server_configuration,
)

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.quic.connection import QuicConnection

NOT_ECT, ECT_1, ECT_0, CE = range(4)

# An observer's address, and that of a socket which sends to it.
PATHS = {
    "IPv4": (("127.0.0.1", 0), ("127.0.0.1", 0)),
    "IPv6": (("::1", 0), ("::1", 0)),
    "dual stack": (("127.0.0.1", 0), ("::", 0)),
}


def bound(address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(address)
    return sock


def mapped(address, sock):
    """How ``sock`` calls an address."""
    if sock.family == socket.AF_INET6 and ":" not in address[0]:
        return ("::ffff:" + address[0], address[1], 0, 0)
    return address


def observe(sock, n):
    """The payloads of n datagrams, each with the ECN bits it came with."""
    sock.settimeout(10)
    seen = []
    for _ in range(n):
        data, control, _, _ = sock.recvmsg(2048, 256)
        (octet,) = [value[0] & 3 for _, _, value in control]
        seen.append((data, octet))
    return seen


class Collector(asyncio.DatagramProtocol):
    """Keeps what comes in."""

    def __init__(self):
        self.datagrams = []
        self.waiting = None

    def runs_received(self, runs):
        for data, addr, ecn, segment in runs:
            for i in range(0, len(data), segment):
                self.datagrams.append((data[i : i + segment], addr, ecn))
        if self.waiting and len(self.datagrams) >= self.waiting[0]:
            self.waiting[1].set_result(None)

    async def wait_for(self, n):
        if len(self.datagrams) < n:
            self.waiting = n, asyncio.get_running_loop().create_future()
            await self.waiting[1]
        return self.datagrams


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@in_loop
async def test_marks_are_on_the_wire(path):
    with bound(path[0]) as observer:
        if observer.family == socket.AF_INET:
            observer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            observer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        sock = bound(path[1])
        transport = UDPTransport(asyncio.get_running_loop(), sock, Collector())
        address = mapped(observer.getsockname(), sock)
        # Of one size, so that only their marks keep them out of one run.
        sent = [(b"%2d" % i, i // 3 % 4) for i in range(24)]
        transport.send_runs([(data, address, ecn, 2) for data, ecn in sent])
        assert observe(observer, len(sent)) == sent
        transport.close()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@in_loop
async def test_marks_are_read_from_the_wire(path):
    sock = bound(path[1])
    sock.setblocking(False)
    collector = Collector()
    transport = UDPTransport(asyncio.get_running_loop(), sock, collector)
    with bound(path[0]) as sender:
        for ecn in range(4):
            if sender.family == socket.AF_INET:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ecn)
            else:
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, ecn)
            sender.sendto(b"%d" % ecn, (path[0][0], sock.getsockname()[1]))
        received = await collector.wait_for(4)
    assert [(data, ecn) for data, _, ecn in received] == [
        (b"%d" % ecn, ecn) for ecn in range(4)
    ]
    transport.close()


@in_loop
async def test_an_address_that_is_refused_does_not_end_the_marks():
    with bound(("127.0.0.1", 0)) as observer:
        observer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sock = bound(("127.0.0.1", 0))
        transport = UDPTransport(asyncio.get_running_loop(), sock, Collector())
        # Nothing can be sent to port 0: the error is that of a bad option.
        transport.send_runs([(b"lost", ("127.0.0.1", 0), ECT_0, 4)])
        transport.send_runs([(b"here", observer.getsockname(), ECT_0, 4)])
        assert observe(observer, 1) == [(b"here", ECT_0)]
        transport.close()


class Watcher(QuicConnectionProtocol):
    """Keeps the marks that come in."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.marks = []

    def runs_received(self, runs):
        self.marks += [ecn for _, _, ecn, _ in runs]
        super().runs_received(runs)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@in_loop
async def test_both_ends_go_on_marking_over_loopback(host):
    """An end whose marks the other did not count back would have stopped."""
    watchers = []

    def watch(*args, **options):
        watchers.append(Watcher(*args, **options))
        return watchers[-1]

    def answer(reader, writer):
        writer.write(bytes(1 << 20))
        writer.write_eof()

    server = await serve(
        "::",
        0,
        configuration=server_configuration(),
        create_protocol=watch,
        stream_handler=answer,
    )
    port = server.sockets[0].getsockname()[1]
    async with connect(
        host,
        port,
        configuration=client_configuration(),
        create_protocol=watch,
    ) as client:
        reader, writer = await client.create_stream()
        writer.write(bytes(1 << 20))
        writer.write_eof()
        assert len(await reader.read()) == 1 << 20
        for _ in range(5):
            await client.ping()
    server.close()
    for watcher in watchers:
        assert len(watcher.marks) > 20
        assert watcher.marks[-1] == ECT_0


class Exchange:
    """Two connections, and what a network does to the marks between them."""

    def __init__(self, carry):
        self.carry = carry
        self.now = 1000.0
        self.client = QuicConnection(configuration=client_configuration())
        self.server = QuicConnection(configuration=server_configuration())
        self.marks = []
        self.client.connect(SERVER, self.now)

    def step(self):
        self.now += 0.01
        for sender, receiver, address in (
            (self.client, self.server, CLIENT),
            (self.server, self.client, SERVER),
        ):
            timer = sender.get_timer()
            if timer is not None and timer <= self.now:
                sender.handle_timer(self.now)
            for data, _, ecn in sender.datagrams_to_send(self.now, ecn=True):
                if sender is self.client:
                    self.marks.append(ecn)
                receiver.receive_datagram(
                    data, address, self.now, ecn=self.carry(ecn, sender is self.client)
                )
            events_of(receiver)

    def run(self, size):
        self.client.send_stream_data(0, bytes(size), end_stream=True)
        for _ in range(2000):
            self.step()
            if self.client.handshake_complete and not self.client.queued_data():
                return self
        raise AssertionError("the transfer does not end")


def test_marks_that_arrive_go_on():
    exchange = Exchange(lambda ecn, up: ecn).run(1_000_000)
    assert exchange.marks[0] == ECT_0
    assert exchange.marks[-1] == ECT_0


def test_marks_that_the_network_takes_off_are_no_longer_made():
    """RFC 9000, 13.4.2.1: the acknowledgements do not count them."""
    exchange = Exchange(lambda ecn, up: NOT_ECT).run(1_000_000)
    assert exchange.marks[0] == ECT_0
    assert exchange.marks[-1] == NOT_ECT


def test_marks_that_the_network_changes_are_no_longer_made():
    exchange = Exchange(lambda ecn, up: ecn and ECT_1).run(1_000_000)
    assert exchange.marks[-1] == NOT_ECT


def test_congestion_that_is_marked_slows_the_sender():
    """RFC 9002, 7.1: an increase of the count of CE is a congestion event."""
    count = 0

    def carry(ecn, up):
        nonlocal count
        count += up
        return CE if up and ecn and count > 100 and count % 50 == 0 else ecn

    free = Exchange(lambda ecn, up: ecn).run(2_000_000)
    marked = Exchange(carry).run(2_000_000)
    assert marked.marks[-1] == ECT_0
    assert (
        marked.client.stats["congestion_window"]
        < free.client.stats["congestion_window"] / 2
    )


def test_without_asking_for_marks_datagrams_are_pairs():
    client = QuicConnection(configuration=client_configuration())
    client.connect(SERVER, 0.0)
    ((data, address),) = client.datagrams_to_send(0.0)
    assert len(data) == 1200 and address == SERVER
