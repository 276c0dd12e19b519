"""QUIC across workers: which of them gets a datagram, and what it does with others'."""

import asyncio
import contextlib
import os
import socket

import pytest
from loops import in_loop, until
from quic_pair import client_configuration, server_configuration
from quic_workers import BPF, Mobile, client, clients, running

from nghttp2py.asyncio import quic_member
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.load_balancing import QuicLB
from nghttp2py.quic.routing import ConnectionIds

KEY = bytes(range(16))


def ids(workers, slot, generation=0):
    """What makes the ids of a worker, also of one that there is not."""
    return ConnectionIds(
        secret=workers.group.secrets.connection_ids,
        slot=slot,
        generation=generation,
        load_balancing=workers.group.load_balancing,
    )


def short(cid, length=100):
    """A packet with a short header, which no worker can decrypt."""
    return b"\x40" + cid + os.urandom(length - 1 - len(cid))


def first_packet():
    """The first datagram of a client."""
    quic = QuicConnection(configuration=client_configuration())
    quic.connect(("192.0.2.1", 443), now=0.0)
    ((data, _),) = quic.datagrams_to_send(now=0.0)
    return data


class Stranger:
    """A socket that sends datagrams to the workers, and what it got."""

    def __init__(self, workers):
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(workers.address)
        self._sock.setblocking(False)

    def send(self, datagram):
        self._sock.send(datagram)

    async def answer(self):
        return await asyncio.get_running_loop().sock_recv(self._sock, 2000)

    def has_answer(self):
        try:
            return bool(self._sock.recv(2000, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()


def receives(workers, count):
    return until(lambda: workers.total("received") >= count)


# ---- Migration ----


@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_connections_survive_a_change_of_port(bpf):
    """RFC 9000, 9: the new port may be another worker's by the kernel's hash."""
    async with running(3, bpf=bpf) as workers, clients(workers, 40) as many:
        assert workers.group.steered is bpf
        assert len(workers.with_connections()) == 3
        await asyncio.gather(*(each.talk() for each in many))
        assert workers.total("forwarded") == 0
        for each in many:
            each.move()
        await asyncio.gather(*(each.talk(bytes(20000)) for each in many))
        assert (workers.total("forwarded") > 0) is not bpf
        await until(lambda: workers.total("arrived") == workers.total("forwarded"))
        assert workers.total("dropped") == 0
        assert sum(s.connection_count for s in workers.servers.values()) == 40


@pytest.mark.parametrize(
    "layout", [QuicLB(b"\x07", 8), QuicLB(b"\x07", 10, 3, KEY)], ids=["clear", "AES"]
)
@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_a_load_balancer_can_read_the_ids(layout, bpf):
    """It need not know the workers, and they need not have its key in the kernel."""
    options = {"bpf": bpf, "load_balancing": layout}
    async with running(3, **options) as workers, clients(workers, 12) as many:
        for each in many:
            each.move()
        await asyncio.gather(*(each.talk() for each in many))
        for (slot, _), server in workers.servers.items():
            own = [cid for cid in server._protocols if layout.decode(cid) == b"\7"]
            assert len(own) >= server.connection_count
            assert {ids(workers, 0).read(cid) for cid in own} <= {(slot, 0)}
        assert (workers.total("forwarded") > 0) is not bpf


@in_loop
async def test_a_retry_packet_has_an_id_that_a_load_balancer_can_read():
    layout = QuicLB(b"\x07", 10, 3, KEY)
    async with running(1, load_balancing=layout) as workers:
        await workers.start(0, 1, retry=True)
        with Stranger(workers) as stranger:
            stranger.send(first_packet())
            retry = await stranger.answer()
    assert retry[0] & 0xF0 == 0xF0
    start = 7 + retry[5]
    assert layout.decode(retry[start : start + retry[start - 1]]) == b"\7"


@in_loop
async def test_each_address_has_its_own_sockets():
    addresses = [("127.0.0.1", 0), ("::1", 0)]
    group = QuicGroup(addresses, 2)
    servers = []
    for slot in range(2):
        member = group.member(slot, 0)
        with pytest.raises(ValueError, match="the group has 2 addresses"):
            await serve(group=member, configuration=server_configuration())
        for sock in list(member.sockets):
            servers.append(
                await serve(
                    group=member, sock=sock, configuration=server_configuration()
                )
            )
    for place, address in enumerate(group.addresses):
        async with connect(
            *address[:2],
            configuration=client_configuration(),
            create_protocol=Mobile,
        ) as client:
            for _ in range(4):
                client.move()
                await client.ping()
            assert (
                servers[place].connection_count + servers[place + 2].connection_count
                == 1
            )
            client.close()
            await client.wait_closed()
            client._transport.close()
    for server in servers:
        server.close()
        await server.wait_closed()
    group.close()


# ---- Restarts ----


@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_connections_survive_a_rolling_restart(bpf):
    """The new worker of a slot reads the socket, and passes on the old one's."""
    async with running(2, bpf=bpf) as workers, clients(workers, 8) as many:
        await asyncio.gather(*(each.talk() for each in many))
        for slot in range(2):
            await workers.start(slot, 1)
            workers.servers[slot, 0].close(timeout=20)
        before = workers.total("received")
        for each in many[::2]:
            each.move()
        await asyncio.gather(*(each.talk(bytes(20000)) for each in many))
        assert workers.total("received") > before
        assert workers.total("dropped") == 0
        async with client(workers) as newcomer:
            await newcomer.talk()
            assert (
                workers.servers[0, 1].connection_count
                + (workers.servers[1, 1].connection_count)
                == 1
            )
        for each in many:
            each.close()
        for slot in range(2):
            await workers.servers[slot, 0].wait_closed()
            workers.group.ended(slot, 0)
        await until(lambda: set(workers.members[0, 1]._peers) == {(1, 1)})


@in_loop
async def test_the_first_packet_of_a_client_does_not_begin_a_second_connection():
    """Its client does not know the old worker's id yet, and sends the packet again."""
    async with running(1) as workers:
        packet = first_packet()
        with Stranger(workers) as stranger:
            stranger.send(packet)
            await receives(workers, 1)
            await workers.start(0, 1)
            await until(lambda: workers.members[0, 1]._claims)
            stranger.send(packet)
            await receives(workers, 2)
            await until(lambda: workers.total("arrived") == 1)
        assert workers.with_connections() == {(0, 0)}
        workers.end(0)
        await until(lambda: not workers.members[0, 1]._claims)


@in_loop
async def test_a_worker_that_drains_leaves_new_connections_to_the_others():
    async with running(2) as workers, clients(workers, 5) as many:
        workers.servers[0, 0].close(timeout=20)
        async with clients(workers, 16) as newcomers:
            await asyncio.gather(*(each.talk() for each in [*many, *newcomers]))
            assert workers.servers[1, 0].connection_count >= 5
            assert workers.total("forwarded") > 0


@in_loop
async def test_the_last_worker_that_drains_refuses_new_connections():
    async with running(1) as workers, client(workers):
        workers.servers[0, 0].close(timeout=20)
        with pytest.raises(ConnectionError, match="CONNECTION_REFUSED"):
            async with client(workers):
                pass


@in_loop
async def test_the_old_worker_reads_again_if_the_new_one_fails():
    async with running(1) as workers, client(workers) as old:
        await workers.start(0, 1)
        # The old one reads until it has heard of the new one.
        for _ in range(100):
            await old.talk()
            if workers.total("forwarded"):
                break
        assert workers.total("forwarded") > 0
        workers.end(0, 1)
        await old.talk()
        async with client(workers) as new:
            await new.talk()
        assert workers.with_connections() == {(0, 0)}


@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_the_connections_of_a_dead_worker_are_reset(bpf):
    """By its successor, which has its socket; RFC 9000, 10.3."""
    async with running(2, bpf=bpf) as workers, clients(workers, 8) as many:
        # A handshake that is not confirmed has no short headers, and gets no reset.
        await asyncio.gather(*(each.talk() for each in many))
        lost = workers.servers[0, 0].connection_count
        workers.end(0)
        await workers.start(0, 1)
        for each in many:
            each.move()
        done = await asyncio.gather(
            *(each.talk() for each in many), return_exceptions=True
        )
        assert sum(isinstance(each, ConnectionError) for each in done) == lost
        assert done.count(None) == 8 - lost


@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_a_group_grows_and_shrinks(bpf):
    async with running(1, bpf=bpf) as workers, clients(workers, 2) as first:
        workers.group.resize(3)
        for slot in (1, 2):
            await workers.start(slot)
        async with clients(workers, 9) as second:
            assert len(workers.with_connections()) == 3
            for each in [*first, *second]:
                each.move()
            await asyncio.gather(*(each.talk() for each in [*first, *second]))
            workers.group.resize(1)
            for slot in (1, 2):
                workers.servers[slot, 0].close(timeout=20)
            async with clients(workers, 4) as third:
                assert workers.servers[0, 0].connection_count >= 4
                await asyncio.gather(
                    *(each.talk() for each in [*first, *second, *third])
                )
        for slot in (1, 2):
            await workers.servers[slot, 0].wait_closed()
            workers.group.ended(slot, 0)
        assert len(workers.group._sockets) == 1
        async with clients(workers, 4) as fourth:
            await asyncio.gather(*(each.talk() for each in fourth))


# ---- Secrets ----


@in_loop
async def test_a_session_of_one_worker_is_resumed_by_the_next():
    """RFC 8446, 2.2: the workers have one key for their tickets."""
    tickets = []
    async with running(1) as workers:
        for generation in (1, 2):
            await workers.start(0, generation, session_ticket_handler=lambda _: None)
            fields = {"session_ticket": tickets[-1]} if tickets else {}
            async with client(
                workers, session_ticket_handler=tickets.append, **fields
            ) as one:
                before = len(tickets)
                await one.talk()
                await until(lambda before=before: len(tickets) > before)
                assert one._quic.tls.session_resumed is bool(fields)


@in_loop
async def test_secrets_of_the_configuration_are_kept():
    configuration = server_configuration(
        stateless_reset_secret=b"r" * 32, session_ticket_key=b"t" * 64
    )
    async with running(1) as workers:
        await workers.start(0, 1, configuration=configuration)
    assert configuration.stateless_reset_secret == b"r" * 32
    assert configuration.session_ticket_key == b"t" * 64


# ---- Hostile datagrams ----


@in_loop
async def test_an_id_of_a_live_worker_is_passed_on_once():
    """And answered by that worker alone, though no connection has it."""
    async with running(2, bpf=False) as workers:
        with Stranger(workers) as stranger:
            for slot in range(2):
                stranger.send(short(ids(workers, slot).make()))
            await receives(workers, 2)
            await until(lambda: workers.total("arrived") == 1)
            for _ in range(2):
                assert len(await stranger.answer()) < 100
            assert not stranger.has_answer()
        assert workers.total("forwarded") == 1


@in_loop
async def test_an_id_of_a_dead_worker_is_answered_by_a_reset():
    async with running(2) as workers:
        with Stranger(workers) as stranger:
            for slot, generation in ((0, 1), (1, 255), (2, 0), (255, 0)):
                stranger.send(short(ids(workers, slot, generation).make()))
                assert len(await stranger.answer()) < 100
        assert workers.total("forwarded") == 0


@in_loop
async def test_an_id_of_no_worker_has_no_answer():
    """A reset could end the connection of another machine (RFC 9000, 21.11)."""
    async with running(2) as workers:
        own = ids(workers, 0)
        foreign = ConnectionIds(
            secret=SharedSecrets.create().connection_ids, slot=0, generation=0
        )
        datagrams = [short(foreign.make()) for _ in range(20)]
        datagrams += [b"\x40" + os.urandom(n) for n in range(0, 60, 5)]
        datagrams += [short(own.make()[:1] + os.urandom(17)) for _ in range(20)]
        datagrams += [b"\x40" + own.make()[:n] for n in range(0, 18, 4)]
        datagrams += [b"", b"\xff" * 1199]
        with Stranger(workers) as stranger:
            for datagram in datagrams:
                stranger.send(datagram)
            await receives(workers, len(datagrams) - 1)
            assert not stranger.has_answer()
        assert workers.total("forwarded") == 0


@in_loop
async def test_another_machine_behind_a_load_balancer_gets_no_resets():
    """Machines may share all secrets; each has its own server id."""
    seed = bytes(32)
    async with running(
        1,
        secrets=SharedSecrets.derive(seed),
        load_balancing=QuicLB(b"\1", 10, key=KEY),
    ) as workers:
        other = ConnectionIds(
            secret=SharedSecrets.derive(seed).connection_ids,
            slot=0,
            generation=0,
            load_balancing=QuicLB(b"\2", 10, key=KEY),
        )
        with Stranger(workers) as stranger:
            stranger.send(short(other.make()))
            await receives(workers, 1)
            assert not stranger.has_answer()
            stranger.send(short(ids(workers, 0).make()))
            assert await stranger.answer()


@in_loop
async def test_any_worker_negotiates_the_version():
    async with running(2) as workers:
        packet = bytearray(first_packet())
        packet[1:5] = b"\x0a\x0a\x0a\x0a"
        for length in (0, 1, 7, 8, 18, 20):
            with Stranger(workers) as stranger:
                cid = os.urandom(length)
                stranger.send(
                    bytes(packet[:5]) + bytes([length]) + cid + bytes(1200 - 6 - length)
                )
                assert (await stranger.answer())[1:5] == bytes(4)
        assert workers.total("forwarded") == 0


@in_loop
async def test_a_worker_that_does_not_read_costs_only_what_the_kernel_holds():
    async with running(2, bpf=False) as workers:
        deaf = workers.members[1, 0]
        deaf._loop.remove_reader(deaf._inbox.fileno())
        packet = short(ids(workers, 1).make(), 1200)
        with contextlib.ExitStack() as stack:
            # The kernel gives those of some ports to the other.
            many = [stack.enter_context(Stranger(workers)) for _ in range(16)]
            for _ in range(5000):
                for stranger in many:
                    stranger.send(packet)
                await asyncio.sleep(0)
                if workers.total("dropped"):
                    break
            assert workers.members[0, 0].counts.dropped
        # The other serves its connections as before.
        async with client(workers) as one:
            await one.talk()


@in_loop
async def test_no_other_program_can_send_messages_to_a_worker():
    """The sockets between workers have no names, one peer each, and no heirs."""
    async with running(2) as workers:
        await until(lambda: all(m._peers for m in workers.members.values()))
        for member in workers.members.values():
            assert member._inbox.getsockname() in ("", b"", None)
            for peer in member._peers.values():
                assert peer.sock.getpeername() in ("", b"", None)
                assert not peer.sock.get_inheritable()


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\0", b"\0\0\0\0", b"\0\x09" + bytes(100), b"\1\0\0\1"),
        *(b"\1\x09\x09\1", b"\2\x09\x09\4abcd", b"\x09\0\0\0" + bytes(10)),
        *(b"\1\0\0\x09", b"\1\1\0\x09"),
    ],
)
@in_loop
async def test_a_broken_message_is_ignored(message):
    """Of a worker of another release, say: the others are not in its way."""
    async with running(2) as workers, client(workers) as one:
        workers.members[0, 0]._peers[1, 0].sock.send(message)
        workers.members[1, 0]._peers[0, 0].sock.send(message)
        await one.talk()
        one.move()
        await one.talk()


@in_loop
async def test_the_claims_of_others_are_bounded(monkeypatch):
    monkeypatch.setattr(quic_member, "MAX_CLAIMS", 3)
    async with running(2) as workers:
        member = workers.members[0, 0]
        await until(lambda: member._peers)
        peer = member._peers[1, 0]
        claims = b"".join(b"\x08" + bytes([i]) * 8 for i in range(9))
        member._take_claims(peer, b"\2\1\0" + claims)
        assert list(member._claims) == [bytes([i]) * 8 for i in (6, 7, 8)]
