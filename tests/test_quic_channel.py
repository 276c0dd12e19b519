"""What the supervisor tells a worker about the others, and tells again."""

import errno
import os
from types import SimpleNamespace

import pytest
from loops import in_loop, until
from quic_workers import LOOPBACK

from nghttp2py.asyncio import quic_channel, quic_group
from nghttp2py.asyncio.quic_channel import News
from nghttp2py.asyncio.quic_group import QuicGroup


class Member:
    """A worker that reads its messages, or has no room for them."""

    def __init__(self):
        self.refusal = None
        self.read = []
        self.news = News(self.take)

    def take(self, message, descriptors):
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        (kind,) = message
        what = message[kind]
        self.read.append((kind, what, *([list(descriptors)] if descriptors else [])))


def peer(number):
    """Another member, with the number of the descriptor of its outbox."""
    return SimpleNamespace(outbox=SimpleNamespace(fileno=lambda: number))


@pytest.mark.parametrize("refusal", [errno.EAGAIN, errno.ETOOMANYREFS])
def test_what_is_refused_is_told_later_in_its_order(refusal):
    member = Member()
    member.news.joined((0, 0), peer(10))
    assert member.news.flush()
    member.refusal = refusal
    member.news.joined((1, 0), peer(11))
    member.news.left((0, 0))
    member.news.joined((0, 256), peer(12))
    member.news.resized(3)
    assert not member.news.flush()
    assert member.news.error.errno == refusal
    member.news.resized(4)
    member.refusal = None
    assert member.news.flush()
    assert member.news.error is None
    assert member.read == [
        ("joined", [(0, 0)], [10]),
        ("joined", [(1, 0)], [11]),
        ("left", [(0, 0)]),
        ("joined", [(0, 256)], [12]),
        ("size", 4),
    ]
    assert member.news.flush()
    assert len(member.read) == 5


def test_many_members_are_told_in_messages_that_the_kernel_carries():
    """Linux allows 253 descriptors in one (SCM_MAX_FD)."""
    member = Member()
    for slot in range(150):
        member.news.joined((slot, 0), peer(slot))
    assert member.news.flush()
    assert [len(what) for _, what, _ in member.read] == [64, 64, 22]
    assert [n for *_, numbers in member.read for n in numbers] == list(range(150))


def test_what_waits_does_not_grow_with_members_that_come_and_go():
    member = Member()
    member.news.joined((0, 0), peer(10))
    member.news.flush()
    member.refusal = errno.EAGAIN
    for generation in range(1000):
        member.news.left((0, generation))
        member.news.joined((0, generation + 1), peer(10))
        assert not member.news.flush()
    member.refusal = None
    assert member.news.flush()
    assert member.read[1:] == [("left", [(0, 0)]), ("joined", [(0, 1000)], [10])]


def test_a_member_that_comes_again_is_told_with_its_new_outbox():
    member = Member()
    for number in 10, 11:
        member.news.left((0, 0))
        member.news.joined((0, 0), peer(number))
    assert member.news.flush()
    assert member.read == [("joined", [(0, 0)], [11])]


@pytest.mark.parametrize("refusal", [errno.ECONNREFUSED, errno.ENOTCONN])
def test_nothing_waits_for_a_process_that_has_ended(refusal):
    member = Member()
    member.refusal = refusal
    member.news.joined((1, 0), peer(11))
    member.news.resized(2)
    assert member.news.flush()
    member.refusal = None
    assert member.news.flush()
    assert member.read == []


@in_loop
async def test_a_group_tells_its_members_again_until_they_have_room(
    monkeypatch, caplog
):
    sent = []
    refused = 3

    def send(sock, data, descriptors):
        nonlocal refused
        if refused:
            refused -= 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        sent.append((data[0], len(descriptors)))

    monkeypatch.setattr(quic_channel.socket, "send_fds", send)
    monkeypatch.setattr(quic_group, "_LATE", 0.0)
    group = QuicGroup([LOOPBACK], 2)
    try:
        for slot in range(2):
            group.member(slot, 0).close()
        await until(lambda: len(sent) == 2)
        assert set(sent) == {
            (b'{"joined": [[1, 0]]}', 1),
            (b'{"joined": [[0, 0]]}', 1),
        }
        warnings = [r for r in caplog.records if r.levelname == "WARNING"]
        # Once for each member.
        assert [r.args[0] for r in warnings] == [0, 1]
        assert "the limit of open files is too low" in warnings[0].getMessage()
    finally:
        group.close()
