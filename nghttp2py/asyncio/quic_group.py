"""The UDP sockets of a QUIC server with several worker processes.

Each worker has a socket of its own at each address, in a group of SO_REUSEPORT.  The
supervisor opens all of them and keeps them open as long as the group exists: the kernel
knows a socket by its place in the group, and the places change when one leaves.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from nghttp2py.arguments import check_bool, check_int, check_type
from nghttp2py.asyncio.binding import (
    bind_datagrams,
    check_host,
    check_port,
    describe_place,
)
from nghttp2py.asyncio.quic_member import MAX_SLOTS, QuicMember
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.asyncio.udp import steer
from nghttp2py.quic.load_balancing import QuicLB
from nghttp2py.quic.routing import ConnectionIds

__all__ = ["QuicGroup"]

logger = logging.getLogger("nghttp2py.asyncio.quic")

# How many descriptors go into one message: Linux allows 253 (SCM_MAX_FD).
_DESCRIPTORS = 64

_Place = tuple[int, Any, bool]


class _Channel:
    """The supervisor's ends of the sockets to one member."""

    def __init__(self) -> None:
        # The other members get this socket, and send datagrams for the member by it.
        self.outbox, self.inbox = _pair()
        self._control, self.control = _pair()

    def tell(self, message: dict[str, Any], peers: Iterable[_Channel] = ()) -> bool:
        """Send a message to the member; return False if it is lost."""
        descriptors = [peer.outbox.fileno() for peer in peers]
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except ConnectionError:
            pass  # its process has ended
        except OSError as error:
            # ENOTCONN comes after the first ConnectionError.  Others are EAGAIN, and
            # ETOOMANYREFS: descriptors that wait to be read count for the limit of open
            # files (unix(7)).
            return error.errno == errno.ENOTCONN
        return True

    def close(self) -> None:
        self.outbox.close()
        self._control.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets without names, which no other program can use."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in pair:
        sock.setblocking(False)
    return pair


class QuicGroup:
    """The UDP sockets of all workers, and what they share: the supervisor's part.

    ``addresses`` are those to serve: ``(host, port)`` with the address of an interface,
    or bound sockets (of TCP), whose addresses are used.  ``size`` is the number of
    workers: each is in a *slot*, 0 to ``size - 1``, and has a *generation* that counts
    its predecessors in the slot.

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
        self._channels: dict[tuple[int, int], _Channel] = {}
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
                opened.append(bind_datagrams(*place, reuse_port=True))
        self.size = size
        self._steer()

    def _steer(self) -> None:
        """Have the kernel choose by the connection id, if it can."""
        self.steered = self._bpf and all(
            steer(sock, self._connection_ids, self.size) for sock in self._sockets[0]
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
        return [address for _, address, _ in self._places]

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
        channel = _Channel()
        others = list(self._channels.items())
        for start in range(0, len(others), _DESCRIPTORS):
            part = others[start : start + _DESCRIPTORS]
            message = {"joined": [each for each, _ in part]}
            self._tell(key, channel, message, [c for _, c in part])
        self._tell_all({"joined": [key]}, [channel])
        self._channels[key] = channel
        return QuicMember(
            slot,
            generation,
            self.size,
            self.secrets,
            self.load_balancing,
            [sock.dup() for sock in self._sockets[slot]],
            channel.inbox,
            channel.control,
        )

    def ended(self, slot: int, generation: int) -> None:
        """Forget a member whose process has ended; a second call is a no-op."""
        channel = self._channels.pop((slot, generation), None)
        if channel is not None:
            channel.close()
            self._tell_all({"left": [(slot, generation)]})
            self._close_unused()

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
        self._tell_all({"size": size})

    def _tell_all(
        self, message: dict[str, Any], peers: Sequence[_Channel] = ()
    ) -> None:
        for key, channel in self._channels.items():
            self._tell(key, channel, message, peers)

    def _tell(
        self,
        key: tuple[int, int],
        channel: _Channel,
        message: dict[str, Any],
        peers: Sequence[_Channel],
    ) -> None:
        if not channel.tell(message, peers):
            logger.warning(
                "worker %d of generation %d has lost a message about other workers: it "
                "does not read, or the limit of open files is too low",
                *key,
            )

    def close(self) -> None:
        """Close the supervisor's sockets; a second call is a no-op."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        for opened in self._sockets:
            for sock in opened:
                sock.close()
        self._sockets.clear()


def _reserve(address: tuple[str, int] | socket.socket) -> _Place:
    """Return the place of an address, whose UDP port is free.

    A socket of another group must not have it: the groups would be one for the kernel.
    """
    place: _Place
    if isinstance(address, socket.socket):
        place = describe_place(address)
    else:
        check_type("each of addresses", address, tuple, "(host, port) or a socket")
        host, port = address
        check_host(host)
        check_port(port)
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
        place = found[0][0], found[0][4], False
    with contextlib.closing(bind_datagrams(*place)) as sock:
        return describe_place(sock)
