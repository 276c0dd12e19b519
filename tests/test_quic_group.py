"""QUIC across workers: their sockets and secrets."""

import contextlib
import errno
import json
import os
import socket

import pytest
from loops import in_loop
from quic_pair import client_configuration, server_configuration
from test_quic_server import Client

from nghttp2py.asyncio import quic_group
from nghttp2py.asyncio.binding import bind_datagrams
from nghttp2py.asyncio.quic import connect, serve
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.asyncio.quic_member import QuicMember
from nghttp2py.asyncio.shared_secrets import SharedSecrets

LOOPBACK = ("127.0.0.1", 0)


@contextlib.contextmanager
def grouped(size=3, addresses=(LOOPBACK,), **options):
    group = QuicGroup(addresses, size, **options)
    try:
        yield group
    finally:
        group.close()


def test_secrets_survive_a_message_to_a_worker():
    secrets = SharedSecrets.create()
    message = json.dumps(secrets.to_json())
    assert SharedSecrets.from_json(json.loads(message)) == secrets
    assert secrets != SharedSecrets.create()


def test_secrets_are_not_shown():
    secrets = SharedSecrets.create()
    assert secrets.retry.hex() not in repr(secrets)
    assert repr(secrets.retry) not in repr(secrets)


def test_machines_with_one_seed_have_the_same_secrets():
    seed = os.urandom(32)
    assert SharedSecrets.derive(seed) == SharedSecrets.derive(seed)
    secrets = SharedSecrets.derive(seed)
    assert len({secrets.retry, secrets.reset, secrets.connection_ids}) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "these are no shared secrets"),
        ([], "these are no shared secrets"),
        (SharedSecrets.create().to_json() | {"retry": "00"}, "retry must have 32"),
    ],
)
def test_other_values_are_no_secrets(value, message):
    with pytest.raises(ValueError, match=message):
        SharedSecrets.from_json(value)


def test_a_short_seed_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes"):
        SharedSecrets.derive(b"short")


def test_the_members_share_an_address():
    with grouped(size=2) as group:
        members = [group.member(slot, 0) for slot in range(2)]
        addresses = {sock.getsockname() for m in members for sock in m.sockets}
        assert addresses == set(group.addresses)
        for member in members:
            member.close()


def test_a_group_has_the_addresses_of_tcp_sockets():
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        grouped(addresses=[tcp]) as group,
    ):
        assert group.addresses == [tcp.getsockname()]


def test_a_group_does_not_join_the_sockets_of_another():
    """For the kernel they were one group, whose order neither knew."""
    with grouped() as group, pytest.raises(OSError, match="cannot bind") as caught:
        QuicGroup(group.addresses, 2)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_member_survives_its_description():
    """The descriptors go to another process, as a copy."""
    with grouped() as group:
        member = group.member(1, 7)
        state, descriptors = member.describe()
        state = json.loads(json.dumps(state))
        copy = QuicMember.restore(state, [os.dup(each) for each in descriptors])
        member.close()
        assert (copy.slot, copy.generation, copy.size) == (1, 7, 3)
        assert copy.secrets == group.secrets
        assert [sock.getsockname() for sock in copy.sockets] == group.addresses
        copy.close()


@pytest.mark.parametrize("state", [None, {}, {"slot": 1}])
def test_another_value_is_no_member(state):
    with pytest.raises(ValueError, match="this is no member"):
        QuicMember.restore(state, [])


def test_descriptors_that_are_no_member_are_closed():
    pair = socket.socketpair()
    descriptors = [sock.detach() for sock in pair]
    with pytest.raises(ValueError, match="this is no member"):
        QuicMember.restore({}, descriptors)
    for each in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0), "slot is 3, but must be from 0 to 2"),
        ((0, -1), "generation must be at least 0"),
        ((0, 0), "slot 0 has a generation 0 already"),
    ],
)
def test_a_member_must_be_new_and_in_the_group(arguments, message):
    with (
        grouped() as group,
        contextlib.closing(group.member(0, 0)),
        pytest.raises(ValueError, match=message),
    ):
        group.member(*arguments)


@in_loop
async def test_the_tokens_of_one_worker_are_good_for_another():
    """RFC 9000, 8.1.3: and what the last server of a member leaves is closed."""
    secrets = SharedSecrets.create()
    tokens = [b""]
    retried = []
    for _ in range(2):
        with grouped(size=1, secrets=secrets) as group:
            server = await serve(
                group=group.member(0, 0),
                configuration=server_configuration(),
                retry=True,
            )
            async with connect(
                *group.addresses[0],
                configuration=client_configuration(token=tokens[-1]),
                create_protocol=Client,
                token_handler=tokens.append,
            ) as client:
                before = len(tokens)
                while len(tokens) == before:
                    await client.ping()
            retried.append(client.retried)
            server.close()
            await server.wait_closed()
    assert retried == [True, False]


def test_a_group_that_cannot_grow_keeps_no_socket_that_nobody_reads(monkeypatch):
    made = []

    def fail_later(*place, **options):
        if made:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(bind_datagrams(*place, **options))
        return made[0]

    with grouped(size=1) as group:
        monkeypatch.setattr(quic_group, "bind_datagrams", fail_later)
        with pytest.raises(OSError, match="Too many open files"):
            group.resize(3)
        assert group.size == 1
        assert made[0].fileno() == -1
