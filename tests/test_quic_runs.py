"""Runs of datagrams: what the kernel joins and takes apart (GRO, GSO)."""

import asyncio
import hashlib
import socket

import pytest
from loops import in_loop
from quic_pair import CLIENT, SERVER, client_configuration, events_of, make_pair
from test_quic_server import running_server

from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.routing import Router


def test_runs_carry_what_datagrams_carry():
    pair = make_pair(client={"max_data": 1 << 22, "max_stream_data": 1 << 22})
    pair.handshake()
    body = bytes(i * 7 & 0xFF for i in range(1 << 20))
    pair.server.send_stream_data(1, body, end_stream=True)
    digest, sizes, ended = hashlib.sha256(), set(), False
    while not ended:
        pair.now += 0.01
        while runs := pair.server.runs_to_send(pair.now):
            for data, addr, ecn, segment in runs:
                assert addr == CLIENT
                assert 0 < len(data) <= 65000
                sizes.add((len(data) + segment - 1) // segment)
                pair.client.receive_run(
                    data, SERVER, pair.now, segment=segment, ecn=ecn
                )
        for event in events_of(pair.client):
            digest.update(event.data)
            ended = ended or event.end_stream
        for data, _, ecn, segment in pair.client.runs_to_send(pair.now):
            pair.server.receive_run(data, CLIENT, pair.now, segment=segment, ecn=ecn)
        for quic in (pair.client, pair.server):
            quic.handle_timer(pair.now)
    assert digest.digest() == hashlib.sha256(body).digest()
    assert max(sizes) > 40


@pytest.mark.parametrize("segment", [0, -1])
def test_a_run_of_nothing_is_refused(segment):
    pair = make_pair()
    with pytest.raises(ValueError, match="segment must be positive"):
        pair.client.receive_run(b"data", SERVER, 0.0, segment=segment)


def short(cid, n=30):
    return b"\x40" + cid * 8 + bytes(n - 9)


A, B, LONG = short(b"a"), short(b"b"), b"\xc0" + bytes(29)


@pytest.mark.parametrize(
    ("datagrams", "expected"),
    [
        ([A], [[A]]),
        ([A, A, A], [[A, A, A]]),
        ([A, A, B, A], [[A, A], [B], [A]]),
        ([LONG, LONG], [[LONG], [LONG]]),
        ([A, LONG, A, A[:20]], [[A], [LONG], [A, A[:20]]]),
        # Too short for a connection id: by itself.
        ([A, A[:8]], [[A], [A[:8]]]),
    ],
)
def test_a_run_is_split_where_another_connection_begins(datagrams, expected):
    router = Router(secret=bytes(32), connection_id_length=8, versions=[1])
    run = (b"".join(datagrams), CLIENT, 2, 30)
    assert router.split_run(run) == [
        (b"".join(share), CLIENT, 2, 30) for share in expected
    ]


@in_loop
async def test_clients_at_one_address_may_share_a_run():
    async with running_server() as (server, port):
        clients = [
            QuicConnection(configuration=client_configuration()) for _ in range(3)
        ]
        for client in clients:
            client.connect(("127.0.0.1", port), 0.0)
        (segment,) = {len(c.datagrams_to_send(0.0)[0][0]) for c in clients}
        for client in clients:
            client.handle_timer(client.get_timer())
        joined = b"".join(
            data
            for client in clients
            for data, _ in client.datagrams_to_send(10.0)
            if len(data) == segment
        )
        server.runs_received([(joined, ("127.0.0.1", 9), 0, segment)])
        assert len(server._connections) == 3


class SlowSocket:
    """Takes so many bytes before it has the rest wait."""

    def __init__(self, room):
        self.room = room
        self.sent = []

    def send(self, data, addr, ecn, segment):
        n = min(len(data), self.room - self.room % segment)
        self.room -= n
        if n:
            self.sent.append((data[:n], addr, ecn, segment))
        return n, 0


class Owner(asyncio.DatagramProtocol):
    resumed = 0

    def resume_writing(self):
        self.resumed += 1


@in_loop
async def test_what_the_socket_does_not_take_waits_in_order():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    owner = Owner()
    transport = UDPTransport(asyncio.get_running_loop(), sock, owner)
    transport._runs = slow = SlowSocket(25)
    addr = ("127.0.0.1", 9)
    transport.send_runs([(b"a" * 40, addr, 2, 10), (b"b" * 10, addr, 1, 10)])
    assert slow.sent == [(b"a" * 20, addr, 2, 10)]
    assert not transport.writable
    transport.sendto(b"c", addr)
    assert transport.get_write_buffer_size() == 31
    slow.room = 25
    transport._write_ready()
    assert not transport.writable
    assert owner.resumed == 0
    slow.room = 100
    transport._write_ready()
    assert transport.writable
    assert owner.resumed == 1
    sent = b"".join(data for data, *_ in slow.sent)
    assert sent == b"a" * 40 + b"b" * 10 + b"c"
    transport.close()
