"""The sockets and numbers of one worker of a QuicGroup, and its messages to the others.

A datagram goes to the worker that has made its connection id.  The kernel chooses the
socket, if it can; what arrives at another worker is passed on over a socket without a
name, which only the processes have to which the supervisor has given it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import zlib
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from nghttp2py.arguments import check_int, describe
from nghttp2py.asyncio.descriptors import receive
from nghttp2py.asyncio.quic_protocol import Run
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.asyncio.udp import pack_run, unpack_run
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.load_balancing import QuicLB
from nghttp2py.quic.routing import ConnectionIds, QuicHeader

__all__ = ["GENERATIONS", "MAX_SLOTS", "Kind", "Life", "QuicMember", "QuicMemberCounts"]

# A connection id has the slot in one byte, and the generation modulo this, too.
MAX_SLOTS = 256
GENERATIONS = 256

# The longest message of another member: a run of datagrams, and its addresses.
_MESSAGE = 66000

# How many messages are read in one turn of the loop.
_MESSAGES = 64

# The longest message of the supervisor, and the most descriptors of one.
_CONTROL = 65536
_DESCRIPTORS = 253

# How many connection ids of unfinished handshakes a member keeps for others; and how
# many go into one message, which macOS limits to 2,048 bytes.
MAX_CLAIMS = 4096
_CLAIMS = 64

# The fields of describe().
_STATE = {
    *("slot", "generation", "size", "secrets", "load_balancing", "addresses"),
    "unread",
}


class Kind(IntEnum):
    """The first byte of a message between members."""

    RUN = 0
    STATE = 1
    CLAIMS = 2


class Life(IntEnum):
    """What a member does: of several in a slot, the newest that has begun reads."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2


class QuicMemberCounts(NamedTuple):
    """How many datagrams a member has got, and passed on."""

    #: Datagrams that its own sockets have received.
    received: int = 0
    #: Datagrams of these that were passed on to another member.
    forwarded: int = 0
    #: Datagrams that other members have passed on to it.
    arrived: int = 0
    #: Datagrams that were lost because the other member did not read in time.
    dropped: int = 0


class GroupedServer(Protocol):
    """A server that uses one socket of a member."""

    def runs_forwarded(self, runs: list[Run]) -> None: ...

    def handshaking_ids(self) -> Iterable[bytes]: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Peer:
    """Another member."""

    def __init__(self, slot: int, generation: int, sock: socket.socket) -> None:
        self.slot = slot
        self.generation = generation
        self.sock = sock
        self.life = Life.STARTING

    def send(self, message: bytes) -> bool:
        """Send a message; return whether its socket has accepted it."""
        try:
            self.sock.send(message)
        except OSError:
            return False
        return True


class QuicMember:
    """What one worker needs to serve QUIC in a group of workers.

    The supervisor makes it by :meth:`QuicGroup.member`, passes :meth:`describe` on to
    the worker's process, and calls :meth:`close`; the worker makes its own by
    :meth:`restore`.  Without processes, in one program, the object itself is used.

    A server that has it as its ``quic_group`` or ``group`` owns its sockets.
    """

    def __init__(
        self,
        slot: int,
        generation: int,
        size: int,
        secrets: SharedSecrets,
        load_balancing: QuicLB | None,
        sockets: Sequence[socket.socket],
        inbox: socket.socket,
        control: socket.socket,
        unread: Iterable[int] = (),
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.size = size
        self.secrets = secrets
        self.load_balancing = load_balancing
        self.sockets = list(sockets)
        self.connection_ids = ConnectionIds(
            secret=secrets.connection_ids,
            slot=slot,
            generation=generation,
            load_balancing=load_balancing,
        )
        self._key = slot, generation % GENERATIONS
        self._inbox = inbox
        self._control = control
        # The addresses with one socket for all workers, which the supervisor reads.
        self._unread = frozenset(unread)
        self._peers: dict[tuple[int, int], _Peer] = {}
        # Of connections whose clients do not know the server's ids yet, by the ids that
        # they use.
        self._claims: dict[bytes, tuple[int, int]] = {}
        self._servers: dict[int, GroupedServer] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life = Life.STARTING
        self._closed = False
        self._received = self._forwarded = self._arrived = self._dropped = 0

    def describe(self) -> tuple[dict[str, Any], list[int]]:
        """Return the member as a JSON value, and the descriptors that belong to it.

        The descriptors stay open until :meth:`close`.
        """
        lb = self.load_balancing
        state = {
            "slot": self.slot,
            "generation": self.generation,
            "size": self.size,
            "secrets": self.secrets.to_json(),
            "load_balancing": None if lb is None else lb.to_json(),
            "addresses": len(self.sockets),
            "unread": sorted(self._unread),
        }
        sockets = (*self.sockets, self._inbox, self._control)
        return state, [sock.fileno() for sock in sockets]

    @classmethod
    def restore(
        cls, state: Mapping[str, Any], descriptors: Sequence[int]
    ) -> QuicMember:
        """Return the member that was described, which owns the descriptors from now on.

        Raises ``ValueError`` if they do not fit; then they are closed.
        """
        found = [socket.socket(fileno=fd) for fd in descriptors]
        try:
            return cls._restore(state, found)
        except BaseException:
            for sock in found:
                sock.close()
            raise

    @classmethod
    def _restore(
        cls, state: Mapping[str, Any], found: Sequence[socket.socket]
    ) -> QuicMember:
        if not isinstance(state, Mapping) or set(state) != _STATE:
            raise ValueError(f"this is no member of a group: {describe(state)}")
        check_int("addresses", state["addresses"], 1)
        if len(found) != state["addresses"] + 2:
            raise ValueError(
                f"a member with {state['addresses']} addresses has two descriptors "
                f"more, not {len(found)}"
            )
        lb = state["load_balancing"]
        for sock in found:
            sock.setblocking(False)
        *sockets, inbox, control = found
        return cls(
            state["slot"],
            state["generation"],
            state["size"],
            SharedSecrets.from_json(state["secrets"]),
            None if lb is None else QuicLB.from_json(lb),
            sockets,
            inbox,
            control,
            state["unread"],
        )

    @property
    def counts(self) -> QuicMemberCounts:
        """How many datagrams the member has got, and passed on."""
        return QuicMemberCounts(
            self._received, self._forwarded, self._arrived, self._dropped
        )

    # ---- The servers of this worker ----

    def choose(self, sock: socket.socket | None) -> socket.socket:
        """Return the socket that a server uses: ``sock``, or the only one.

        Raises ``ValueError`` if it is not a socket of the member.
        """
        if sock is None:
            if len(self.sockets) != 1:
                raise ValueError(
                    f"the group has {len(self.sockets)} addresses: give one of its "
                    "sockets as sock"
                )
            return self.sockets[0]
        if not any(sock is each for each in self.sockets):
            raise ValueError("sock must be one of the group's sockets")
        return sock

    def configure(self, configuration: QuicConfiguration) -> None:
        """Set what the workers must have in common, but for secrets that are set.

        The servers of the group accept no early data: each of them would accept the
        same once (RFC 8446, 8).
        """
        configuration.early_data = False
        configuration.connection_id_length = self.connection_ids.length
        if configuration.stateless_reset_secret is None:
            configuration.stateless_reset_secret = self.secrets.reset
        if configuration.session_ticket_key is None:
            configuration.session_ticket_key = self.secrets.tickets

    def attach(self, server: GroupedServer, sock: socket.socket) -> int:
        """Begin to serve by a socket; return the number of its address.

        A member of the slot that serves already stops reading, and passes on the ids
        of its unfinished handshakes.
        """
        (place,) = (i for i, each in enumerate(self.sockets) if each is sock)
        self._servers[place] = server
        if self._life is Life.STARTING:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._inbox.fileno(), self._read_inbox)
            self._loop.add_reader(self._control.fileno(), self._read_control)
            self._read_control()
            self._begin_life(Life.SERVING)
        self._choose_reader()
        return place

    def detach(self, place: int) -> None:
        """Close the sockets when the last server has been closed."""
        if self._servers.pop(place, None) is not None and not self._servers:
            self.close()

    def drain(self) -> None:
        """Leave new connections to the other members from now on."""
        if self._life is Life.SERVING:
            self._begin_life(Life.DRAINING)

    def close(self) -> None:
        """Close the sockets; a second call is a no-op."""
        if self._loop is not None and not self._closed:
            self._loop.remove_reader(self._inbox.fileno())
            self._loop.remove_reader(self._control.fileno())
        self._closed = True
        for sock in (*self.sockets, self._inbox, self._control):
            sock.close()
        for peer in self._peers.values():
            peer.sock.close()
        self._peers.clear()
        self._claims.clear()

    # ---- Datagrams ----

    def count_received(self, runs: Iterable[Run]) -> None:
        """Count the datagrams that a socket has received."""
        self._received += _count(runs)

    def forward(
        self, place: int, header: QuicHeader, run: Run, *, begins: bool
    ) -> bool | None:
        """Pass on a run that belongs to no connection here; return whether it was.

        ``None`` means that it is to be dropped: no worker has made its connection id.
        ``begins`` is for an Initial packet with a token of a Retry packet: its
        connection id names the worker that sent the Retry packet, which has no state.
        """
        key = None if begins else self.connection_ids.read(header.destination_cid)
        peer = None if key is None else self._find(key)
        if header.version is None:
            if key is None:
                return None
        elif peer is None:
            peer = self._find_other(header.destination_cid)
        if peer is None:
            return False
        if peer.send(pack_run(self.sockets[place].family, Kind.RUN, place, run)):
            self._forwarded += _count([run])
        else:
            self._dropped += _count([run])
        return True

    def _find(self, key: tuple[int, int]) -> _Peer | None:
        """Return the member with a slot and generation, unless it is this one."""
        if key == self._key:
            return None
        if key not in self._peers:
            # It may be so new that its message has not been read.
            self._read_control()
        return self._peers.get(key)

    def _find_other(self, cid: bytes) -> _Peer | None:
        """Return the member that handles a client's first packets, unless it is this
        one."""
        claim = self._claims.get(cid)
        if claim is not None:
            return self._peers.get(claim)
        if self._life is not Life.DRAINING and not self._is_replaced():
            return None
        serving = [p for p in self._peers.values() if p.life is Life.SERVING]
        newest = [p for p in serving if p.slot == self.slot]
        if newest:
            return max(newest, key=lambda peer: peer.generation)
        if not serving:
            return None
        # The packets of one client go to one member.
        serving.sort(key=lambda peer: (peer.slot, peer.generation))
        return serving[zlib.crc32(cid) % len(serving)]

    def _read_inbox(self) -> None:
        """Handle messages of other members."""
        runs: dict[int, list[Run]] = {}
        with contextlib.suppress(OSError, MemoryError):
            for _ in range(_MESSAGES):
                self._receive(self._inbox.recv(_MESSAGE), runs)
        for place, received in runs.items():
            server = self._servers.get(place)
            if server is not None:
                self._arrived += _count(received)
                server.runs_forwarded(received)

    def _receive(self, message: bytes, runs: dict[int, list[Run]]) -> None:
        if len(message) < 4:
            return
        kind, *key = message[:3]
        if kind == Kind.RUN:
            run = unpack_run(message)
            if run is not None:
                runs.setdefault(message[1], []).append(run)
            return
        peer = self._find((key[0], key[1]))
        if peer is None:
            return
        if kind == Kind.STATE:
            with contextlib.suppress(ValueError):  # a state of another release
                self._learn_life(peer, Life(message[3]))
        elif kind == Kind.CLAIMS:
            self._take_claims(peer, message)

    # ---- The other members ----

    def _tell_life(self, peers: Iterable[_Peer]) -> None:
        for peer in peers:
            peer.send(bytes([Kind.STATE, *self._key, self._life]))

    def _begin_life(self, life: Life) -> None:
        """Report what this member does from now on, to the supervisor, too."""
        self._life = life
        self._tell_life(self._peers.values())
        with contextlib.suppress(OSError):  # the supervisor may have ended
            self._control.send(bytes([life]))

    def _learn_life(self, peer: _Peer, life: Life) -> None:
        began = peer.life is Life.STARTING
        peer.life = life
        if began:
            # It may read a socket whose datagrams were passed on to this member.
            self._claim(peer)
        self._choose_reader()

    def _is_replaced(self) -> bool:
        """Return whether a newer member of the slot reads the sockets."""
        return any(
            peer.slot == self.slot
            and peer.generation > self.generation
            and peer.life is not Life.STARTING
            for peer in self._peers.values()
        )

    def _choose_reader(self) -> None:
        """Read the sockets, unless a newer member of the slot or the supervisor
        does."""
        replaced = self._is_replaced()
        for place, server in self._servers.items():
            if replaced or place in self._unread:
                server.pause_reading()
            else:
                server.resume_reading()

    def _claim(self, peer: _Peer) -> None:
        """Tell a member which ids the clients of unfinished handshakes use."""
        ids = [cid for each in self._servers.values() for cid in each.handshaking_ids()]
        for start in range(0, min(len(ids), MAX_CLAIMS), _CLAIMS):
            part = b"".join(
                bytes([len(cid)]) + cid for cid in ids[start : start + _CLAIMS]
            )
            peer.send(bytes([Kind.CLAIMS, *self._key]) + part)

    def _take_claims(self, peer: _Peer, message: bytes) -> None:
        start = 3
        while start < len(message):
            end = start + 1 + message[start]
            if len(self._claims) == MAX_CLAIMS:
                del self._claims[next(iter(self._claims))]
            self._claims[message[start + 1 : end]] = (
                peer.slot,
                peer.generation % GENERATIONS,
            )
            start = end

    # ---- The supervisor ----

    def _read_control(self) -> None:
        """Handle the messages of the supervisor that have arrived."""
        while not self._closed:
            try:
                data, found = receive(self._control, _CONTROL, _DESCRIPTORS)
            except OSError:
                return
            if not data:
                # On macOS, the end of the supervisor.
                return
            self._obey(json.loads(data), found)

    def _obey(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        joined = message.get("joined", ())
        for (slot, generation), descriptor in zip(joined, descriptors, strict=True):
            self._forget((slot, generation % GENERATIONS))
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            peer = _Peer(slot, generation, sock)
            self._peers[slot, generation % GENERATIONS] = peer
            if self._life is not Life.STARTING:
                self._tell_life([peer])
        for slot, generation in message.get("left", ()):
            self._forget((slot, generation % GENERATIONS))
        self.size = message.get("size", self.size)

    def _forget(self, key: tuple[int, int]) -> None:
        peer = self._peers.pop(key, None)
        if peer is not None:
            peer.sock.close()
            self._claims = {k: v for k, v in self._claims.items() if v != key}
            self._choose_reader()


def _count(runs: Iterable[Run]) -> int:
    """Return the number of datagrams in some runs."""
    return sum(-(-len(data) // segment) for data, _, _, segment in runs)
