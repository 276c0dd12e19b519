"""Datagrams for slots of a QuicGroup without a worker are passed on to others."""

import asyncio
import contextlib
import json
import os
import socket

import pytest
from loops import in_loop, until
from quic_pair import client_configuration, server_configuration
from quic_workers import BPF, LOOPBACK, clients, running
from test_quic_workers import Stranger, first_packet, ids, receives, short

from nghttp2py.asyncio import quic_vacancies
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.asyncio.quic_member import Life, QuicMember
from nghttp2py.asyncio.quic_vacancies import Vacancies
from nghttp2py.asyncio.udp import unpack_run
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.routing import ConnectionIds

ADDRESS = "127.0.0.1", 4433
SECRET = bytes(32)
FAMILY = socket.AF_INET


class Member:
    """A worker, and what was passed on to it."""

    def __init__(self, life=Life.SERVING):
        self.life = life
        self.room = True
        self.got = []

    def pass_on(self, message):
        self.got.append(unpack_run(message)[0])
        return self.room


def make_ids(slot, generation=0):
    return ConnectionIds(secret=SECRET, slot=slot, generation=generation)


class Group:
    """Vacancies of some members, without sockets."""

    def __init__(self, **lives):
        self.members = {
            (int(name[1:]), 0): Member(life) for name, life in lives.items()
        }
        self.vacancies = Vacancies(self.members, make_ids(0), SECRET)

    def send(self, datagram, segment=None):
        run = datagram, ADDRESS, 0, segment or len(datagram)
        self.vacancies.pass_on(FAMILY, 0, [run])

    def got(self):
        """What each member has got, by its slot."""
        return {slot: each.got for (slot, _), each in self.members.items() if each.got}


def test_a_packet_goes_to_the_member_that_has_made_its_id():
    group = Group(_0=Life.SERVING, _1=Life.DRAINING, _2=Life.STARTING)
    packets = [short(make_ids(slot).make()) for slot in range(2)]
    for packet in packets:
        group.send(packet)
    assert group.got() == {0: [packets[0]], 1: [packets[1]]}
    assert group.vacancies.forwarded == 2


def test_a_packet_of_a_dead_member_goes_to_one_that_resets_it():
    group = Group(_0=Life.SERVING, _1=Life.STARTING)
    for slot, generation in (1, 0), (0, 1), (7, 0):
        group.send(short(make_ids(slot, generation).make()))
    assert len(group.got()[0]) == 3


def test_a_packet_with_an_id_of_no_member_is_dropped():
    """A reset could end the connection of another machine (RFC 9000, 21.11)."""
    group = Group(_0=Life.SERVING)
    for datagram in (
        short(os.urandom(18)),
        *(b"\x40", b"\xff" * 5, b"\x40" + os.urandom(30)),
    ):
        group.send(datagram)
    group.send(b"", 1)
    assert group.got() == {}


def test_the_packets_of_a_new_client_go_to_one_member_that_serves():
    """Also when another begins to serve meanwhile."""
    group = Group(_0=Life.SERVING, _1=Life.DRAINING)
    packets = [first_packet() for _ in range(8)]
    for packet in packets:
        group.send(packet)
    assert list(group.got()) == [0]
    group.members[2, 0] = Member()
    for packet in packets:
        group.send(packet)
    assert group.got() == {0: packets * 2}
    # Others are spread, and those of a member that ends begin anew.
    while len(group.got()) < 2:
        group.send(first_packet())
    del group.members[0, 0]
    group.members[2, 0].got.clear()
    group.send(packets[0])
    assert group.got() == {2: [packets[0]]}


def test_a_member_that_drains_refuses_new_clients_if_no_other_serves():
    group = Group(_0=Life.DRAINING, _1=Life.STARTING)
    packet = first_packet()
    group.send(packet)
    assert group.got() == {0: [packet]}


def test_nothing_is_passed_on_while_no_member_has_begun():
    group = Group(_0=Life.STARTING)
    group.send(first_packet())
    assert group.got() == {}


def test_a_run_of_several_connections_is_divided():
    group = Group(_0=Life.SERVING, _1=Life.SERVING)
    packets = [short(make_ids(slot).make()) for slot in (0, 0, 1)]
    group.send(b"".join(packets), 100)
    assert group.got() == {0: [packets[0], packets[1]], 1: [packets[2]]} or (
        group.got() == {0: [packets[0] + packets[1]], 1: [packets[2]]}
    )
    assert group.vacancies.forwarded == 3


def test_what_a_member_has_no_room_for_is_counted():
    group = Group(_0=Life.SERVING)
    group.members[0, 0].room = False
    group.send(short(make_ids(0).make()))
    assert (group.vacancies.forwarded, group.vacancies.dropped) == (1, 1)


@in_loop
async def test_a_socket_that_cannot_be_read_is_logged(caplog):
    """A second descriptor of it may exceed the limit of open files."""
    group = Group(_0=Life.SERVING)
    closed = socket.socket(FAMILY, socket.SOCK_DGRAM)
    closed.close()
    group.vacancies.read(asyncio.get_running_loop(), {(3, 0): closed})
    assert "the socket of slot 3 cannot be read" in caplog.text


def test_the_clients_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(quic_vacancies, "MAX_CHOSEN", 3)
    group = Group(_0=Life.SERVING)
    for _ in range(9):
        group.send(first_packet())
    assert len(group.vacancies._chosen) == 3


# ---- With sockets ----


@pytest.mark.parametrize("bpf", BPF)
@in_loop
async def test_new_clients_are_answered_while_a_slot_has_no_worker(bpf):
    async with running(2, bpf=bpf) as workers:
        workers.end(0)
        async with clients(workers, 24) as many:
            await many[0].talk()
            # The kernel has given the socket of the slot its share.
            assert workers.group._vacancies.forwarded > 0
            # They stay where they are when the slot has a worker again.
            await workers.start(0, 1)
            await until(lambda: not workers.group._vacancies._transports)
            for each in many:
                each.move()
            for each in many:
                await each.talk()
            assert workers.with_connections() == {(1, 0)}


@in_loop
async def test_new_clients_are_answered_while_an_added_worker_starts():
    async with running(1) as workers:
        workers.group.resize(3)
        async with clients(workers, 24) as many:
            for each in many:
                await each.talk()
        assert workers.group._vacancies.forwarded > 0


@in_loop
async def test_a_handshake_that_was_passed_on_begins_no_second_connection():
    """Its client sends its first packet again when the slot has a worker."""
    async with running(2) as workers:
        workers.end(0)
        while not workers.group._vacancies.forwarded:
            with Stranger(workers) as stranger:
                packet = first_packet()
                stranger.send(packet)
                await stranger.answer()
        before = workers.servers[1, 0].connection_count
        await workers.start(0, 1)
        await until(lambda: workers.members[0, 1]._claims)
        with Stranger(workers) as stranger:
            stranger.send(packet)
            await receives(workers, workers.total("received") + 1)
            await until(lambda: workers.members[0, 1].counts.forwarded)
        assert workers.servers[0, 1].connection_count == 0
        assert workers.servers[1, 0].connection_count == before


@in_loop
async def test_an_id_of_a_dead_worker_is_reset_before_it_has_a_successor():
    async with running(2) as workers:
        workers.end(0)
        with Stranger(workers) as stranger:
            stranger.send(short(ids(workers, 0).make()))
            assert len(await stranger.answer()) < 100
            stranger.send(short(os.urandom(18)))
            packet = bytearray(first_packet())
            packet[1:5] = b"\x0a\x0a\x0a\x0a"
            # Only the last one, of an unknown version, has an answer.
            stranger.send(bytes(packet))
            assert (await stranger.answer())[1:5] == bytes(4)
            assert not stranger.has_answer()


@in_loop
async def test_a_socket_waits_while_no_worker_serves():
    async with running(1) as workers:
        workers.end(0)
        with Stranger(workers) as stranger:
            quic = QuicConnection(configuration=client_configuration())
            quic.connect(("192.0.2.1", 443), now=0.0)
            ((data, _),) = quic.datagrams_to_send(now=0.0)
            stranger.send(data)
            assert not workers.group._vacancies._transports
            await workers.start(0, 1)
            assert await stranger.answer()


# ---- A socket of the caller ----


def given(reuse_port):
    """A bound socket, which others may have beside them, or not."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
    sock.bind(LOOPBACK)
    return sock


@pytest.mark.parametrize("reuse_port", [True, False])
@in_loop
async def test_workers_serve_at_a_given_socket(reuse_port):
    """One for all, if the port cannot have others: the supervisor reads it."""
    with given(reuse_port) as sock:
        options = {"addresses": [sock]}
        async with running(2, **options) as workers, clients(workers, 24) as many:
            assert workers.address == sock.getsockname()
            assert workers.group.steered is reuse_port
            assert len(workers.with_connections()) == 2
            for each in many:
                each.move()
            await asyncio.gather(*(each.talk(bytes(20000)) for each in many))
            assert (workers.group._vacancies.forwarded > 0) is not reuse_port
            assert workers.group._vacancies.dropped == 0
            assert (workers.total("received") > 0) is reuse_port
        assert sock.fileno() == -1


@pytest.mark.parametrize("reuse_port", [True, False])
@in_loop
async def test_connections_at_a_given_socket_survive_a_rolling_restart(reuse_port):
    with given(reuse_port) as sock:
        options = {"addresses": [sock]}
        async with running(2, **options) as workers, clients(workers, 8) as many:
            for slot in range(2):
                await workers.start(slot, 1)
                workers.servers[slot, 0].close(timeout=20)
            await asyncio.gather(*(each.talk(bytes(20000)) for each in many))
            async with clients(workers, 4) as newcomers:
                await asyncio.gather(*(each.talk() for each in newcomers))
                assert workers.with_connections() & {(0, 1), (1, 1)}
            for each in many:
                each.close()
            for slot in range(2):
                await workers.servers[slot, 0].wait_closed()
                workers.group.ended(slot, 0)
            async with clients(workers, 2) as newcomers:
                await asyncio.gather(*(each.talk() for each in newcomers))


@in_loop
async def test_a_worker_that_restores_its_member_does_not_read_a_shared_socket():
    with given(False) as sock, contextlib.closing(QuicGroup([sock], 1)) as group:
        member = group.member(0, 0)
        state, descriptors = member.describe()
        copies = [os.dup(each) for each in descriptors]
        member.close()
        copy = QuicMember.restore(json.loads(json.dumps(state)), copies)
        server = await serve(group=copy, configuration=server_configuration())
        await until(lambda: group._vacancies._transports)
        async with connect(
            *group.addresses[0], configuration=client_configuration()
        ) as client:
            await client.ping()
            assert copy.counts.received == 0
            assert copy.counts.arrived > 0
            client.close()
            await client.wait_closed()
        server.close()
        await server.wait_closed()
