"""The UDP sockets of a QUIC server with several worker processes.

Each worker has a socket of its own at each address, in a group of SO_REUSEPORT.  The
supervisor opens all of them and keeps them open as long as the group exists: the kernel
knows a socket by its place in the group, and the places change when one leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from nghttp2py.arguments import check_bool, check_int, check_type
from nghttp2py.asyncio.binding import (
    adopt_sockets,
    bind_datagrams,
    check_host,
    check_port,
    describe_address,
    describe_place,
)
from nghttp2py.asyncio.quic_channel import MemberChannel
from nghttp2py.asyncio.quic_member import MAX_SLOTS, Life, QuicMember
from nghttp2py.asyncio.quic_vacancies import Vacancies
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.asyncio.udp import steer
from nghttp2py.quic.load_balancing import QuicLB
from nghttp2py.quic.routing import ConnectionIds

__all__ = ["QuicGroup"]

logger = logging.getLogger("nghttp2py.asyncio.quic")

# Seconds after which messages are sent again that a member has not accepted.
_AGAIN = 0.2
# Seconds after which that is logged.  Workers that start at once wait for each other.
_LATE = 5.0


class _Place(NamedTuple):
    """An address, and the socket of the caller at it, if there is one.

    ``shared`` is whether no worker can have another socket there.
    """

    family: int
    address: Any
    ipv6_only: bool
    given: socket.socket | None = None
    shared: bool = False

    def open(self, slot: int) -> socket.socket:
        """Return the socket of a slot.  Raises ``OSError``."""
        if self.given is not None and (self.shared or slot == 0):
            return self.given.dup()
        return bind_datagrams(
            self.family, self.address, self.ipv6_only, reuse_port=True
        )


class QuicGroup:
    """The UDP sockets of all workers, and what they share: the supervisor's part.

    ``addresses`` are those to serve: ``(host, port)`` with the address of an interface,
    or bound sockets: the addresses of those of TCP are used, and the group owns those
    of UDP.  ``size`` is the number of workers: each is in a *slot*, 0 to ``size - 1``,
    and has a *generation* that counts its predecessors in the slot.

    A socket of UDP that this user has bound with SO_REUSEPORT is the first worker's.
    Otherwise no worker can have its own at the address: the group reads the socket, and
    passes on all datagrams.

    To do so, to read the sockets of slots without a worker, and to send messages again
    that a worker had no room for, the group needs the running event loop in which its
    members are made.

    ``secrets`` are made if none are given.  ``load_balancing`` is for a load balancer
    in front that reads connection ids.  With ``bpf`` the kernel chooses the worker by
    the connection id, if it can (Linux); otherwise workers pass datagrams on.

    Raises ``OSError`` if an address cannot be bound, also if it is in use by another
    server that allows it to be shared (SO_REUSEPORT).
    """

    def __init__(
        self,
        addresses: Iterable[tuple[str, int] | socket.socket],
        size: int,
        *,
        secrets: SharedSecrets | None = None,
        load_balancing: QuicLB | None = None,
        bpf: bool = True,
    ) -> None:
        check_int("size", size, 1, MAX_SLOTS)
        if secrets is None:
            secrets = SharedSecrets.create()
        check_type("secrets", secrets, SharedSecrets, "SharedSecrets")
        if load_balancing is not None:
            check_type("load_balancing", load_balancing, QuicLB, "a QuicLB or None")
        check_bool("bpf", bpf)
        self.secrets = secrets
        self.load_balancing = load_balancing
        #: Whether the kernel chooses the worker by the connection id.
        self.steered = False
        self.size = 0
        self._bpf = bpf
        self._connection_ids = ConnectionIds(
            secret=secrets.connection_ids,
            slot=0,
            generation=0,
            load_balancing=load_balancing,
        )
        self._places = [_reserve(address) for address in addresses]
        if not self._places:
            raise ValueError("addresses must not be empty")
        # The sockets of each slot, in the order of the addresses.
        self._sockets: list[list[socket.socket]] = []
        self._channels: dict[tuple[int, int], MemberChannel] = {}
        self._vacancies = Vacancies(self._channels, self._connection_ids, secrets.reset)
        # The loop that reads the members' reports.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None
        try:
            self._open(size)
        except BaseException:
            self.close()
            raise

    def _open(self, size: int) -> None:
        """Open the sockets of the slots below ``size`` that have none."""
        for slot in range(size):
            if slot == len(self._sockets):
                self._sockets.append([])
            opened = self._sockets[slot]
            for place in self._places[len(opened) :]:
                opened.append(place.open(slot))
        self.size = size
        self._steer()

    def _steer(self) -> None:
        """Have the kernel choose by the connection id, if it can."""
        own = [
            sock
            for place, sock in zip(self._places, self._sockets[0], strict=True)
            if not place.shared
        ]
        if not own:
            return
        self.steered = self._bpf and all(
            steer(sock, self._connection_ids, self.size) for sock in own
        )
        if self._bpf and not self.steered:
            logger.info(
                "the kernel does not choose workers by QUIC connection ids: they pass "
                "datagrams on to each other"
            )
            self._bpf = False

    @property
    def addresses(self) -> list[Any]:
        """The bound addresses, as of ``getsockname()``."""
        return [place.address for place in self._places]

    def member(self, slot: int, generation: int) -> QuicMember:
        """Return what the worker of a slot needs; the caller owns it.

        Raises ``ValueError`` if there is no such slot, or if the group has this member
        already.
        """
        check_int("slot", slot, 0, self.size - 1)
        check_int("generation", generation, 0)
        key = slot, generation
        # Connection ids have the generation in one byte.
        if any(s == slot and not (g - generation) % 256 for s, g in self._channels):
            raise ValueError(f"slot {slot} has a generation {generation} already")
        channel = MemberChannel()
        for other, each in self._channels.items():
            channel.news.joined(other, each)
            each.news.joined(key, channel)
        self._channels[key] = channel
        self._listen(channel)
        self._tell_all()
        self._watch()
        return QuicMember(
            slot,
            generation,
            self.size,
            self.secrets,
            self.load_balancing,
            [sock.dup() for sock in self._sockets[slot]],
            channel.inbox,
            channel.control,
            [number for number, place in enumerate(self._places) if place.shared],
        )

    # ---- Members' reports, and the sockets that no member reads ----

    def _listen(self, channel: MemberChannel) -> None:
        """Have the running loop read what the member reports."""
        if self._loop is None:
            with contextlib.suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()
        if self._loop is not None:
            self._loop.add_reader(channel.fileno(), self._read_life, channel)

    def _read_life(self, channel: MemberChannel) -> None:
        try:
            channel.read_life()
        except OSError:
            self._unlisten(channel)  # its process has ended
        self._watch()

    def _unlisten(self, channel: MemberChannel) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(channel.fileno())

    def _watch(self) -> None:
        """Read the sockets that no member reads, while there is one that serves."""
        if self._loop is None:
            return
        reading = {
            slot
            for (slot, _), channel in self._channels.items()
            if channel.life is not Life.STARTING
        }
        unread: dict[tuple[int, int], socket.socket] = {}
        for slot, sockets in enumerate(self._sockets if reading else ()):
            for number, sock in enumerate(sockets):
                shared = self._places[number].shared
                if slot == 0 if shared else slot not in reading:
                    unread[slot, number] = sock
        self._vacancies.read(self._loop, unread)

    # ---- Members that end ----

    def ended(self, slot: int, generation: int) -> None:
        """Forget a member whose process has ended; a second call is a no-op."""
        key = slot, generation
        channel = self._channels.pop(key, None)
        if channel is not None:
            self._unlisten(channel)
            channel.close()
            for each in self._channels.values():
                each.news.left(key)
            self._tell_all()
            self._close_unused()
            self._watch()

    def _close_unused(self) -> None:
        """Close the sockets of slots that are no more and have no member.

        Without a program in the kernel they would get new connections.  With it only
        the last may leave: the kernel moves the last into the place of another.
        """
        used = {slot for slot, _ in self._channels}
        for slot in range(len(self._sockets) - 1, self.size - 1, -1):
            if slot in used:
                if self.steered:
                    return
                continue
            for sock in self._sockets[slot]:
                sock.close()
            self._sockets[slot] = []
        while len(self._sockets) > self.size and not self._sockets[-1]:
            self._sockets.pop()

    def resize(self, size: int) -> None:
        """Change the number of slots; raises ``OSError`` if it cannot bind more.

        Members in slots that are no more get no new connections.
        """
        check_int("size", size, 1, MAX_SLOTS)
        try:
            self._open(size)
        finally:
            # Also after an error: the kernel would give connections to the new ones.
            self._close_unused()
            self._watch()
        for channel in self._channels.values():
            channel.news.resized(size)
        self._tell_all()

    # ---- Messages ----

    def _tell_all(self) -> None:
        """Send the members what waits for them, and again as long as that is
        refused."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        done = [self._tell(key, each) for key, each in self._channels.items()]
        if self._loop is not None and not all(done):
            self._again = self._loop.call_later(_AGAIN, self._tell_all)

    def _tell(self, key: tuple[int, int], channel: MemberChannel) -> bool:
        if channel.news.flush():
            channel.waits_since = None
            return True
        now = time.monotonic()
        if channel.waits_since is None:
            channel.waits_since = now
        if now >= channel.waits_since + _LATE:
            channel.waits_since = math.inf  # logged once
            logger.warning(
                "messages about other workers wait for worker %d of generation %d, "
                "which does not read them, or the limit of open files is too low: %s",
                *key,
                channel.news.error,
            )
        return False

    def close(self) -> None:
        """Close the supervisor's sockets; a second call is a no-op."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._vacancies.close()
        for channel in self._channels.values():
            self._unlisten(channel)
            channel.close()
        self._channels.clear()
        for opened in self._sockets:
            for sock in opened:
                sock.close()
        self._sockets.clear()
        for place in self._places:
            if place.given is not None:
                place.given.close()


def _reserve(address: tuple[str, int] | socket.socket) -> _Place:
    """Return the place of an address, whose UDP port is free, or of a given socket.

    A socket of another group must not have it: the groups would be one for the kernel.
    """
    place: _Place
    if isinstance(address, socket.socket):
        place = _Place(*describe_place(address))
        if address.type == socket.SOCK_DGRAM:
            return _adopt(place, address)
    else:
        check_type("each of addresses", address, tuple, "(host, port) or a socket")
        host, port = address
        check_host(host)
        check_port(port)
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
        place = _Place(found[0][0], found[0][4], False)
    free = bind_datagrams(place.family, place.address, place.ipv6_only)
    with contextlib.closing(free) as sock:
        return _Place(*describe_place(sock))


def _adopt(place: _Place, given: socket.socket) -> _Place:
    """Return the place of a socket that the caller has bound."""
    adopt_sockets(given, datagrams=True)
    try:
        # The kernel demands the option of both sockets, and the same user
        # (SO_REUSEPORT in socket(7)).
        place._replace(given=given).open(1).close()
        shared = False
    except OSError:
        shared = True
        logger.info(
            "the socket at %s cannot have others beside it (SO_REUSEPORT): its "
            "datagrams are passed on to the workers",
            describe_address(place.address),
        )
    return place._replace(given=given, shared=shared)
