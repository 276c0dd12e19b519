"""The sockets of a QuicGroup that no worker reads: the supervisor passes on what
arrives there.

These are the sockets of slots whose worker has ended or has not begun, and those that
all workers share because their port cannot have several.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import zlib
from collections.abc import Callable, Mapping
from functools import partial

from nghttp2py.asyncio.quic_channel import MemberChannel
from nghttp2py.asyncio.quic_member import GENERATIONS, Kind, Life
from nghttp2py.asyncio.quic_protocol import Run
from nghttp2py.asyncio.udp import UDPTransport, pack_run
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.routing import ConnectionIds, Router

__all__ = ["Vacancies"]

logger = logging.getLogger("nghttp2py.asyncio.quic")

#: How many clients keep the member that their first packets went to.
MAX_CHOSEN = 4096

Key = tuple[int, int]


class _Reader(asyncio.DatagramProtocol):
    """Reads one socket."""

    def __init__(self, pass_on: Callable[[list[Run]], object]) -> None:
        self._pass_on = pass_on

    def runs_received(self, runs: list[Run]) -> None:
        self._pass_on(runs)

    def error_received(self, exc: Exception) -> None:
        """Ignore ICMP errors, and a want of memory: the datagrams are lost."""


class Vacancies:
    """Reads sockets, and passes datagrams on to ``members``, by slot and generation.

    Datagrams of a connection go to the member that has it.  The first ones of a client
    go to the member that its connection id chooses of those that serve.
    """

    def __init__(
        self,
        members: Mapping[Key, MemberChannel],
        connection_ids: ConnectionIds,
        secret: bytes,
    ) -> None:
        self._members = members
        self._connection_ids = connection_ids
        self._router = Router(
            secret=secret,
            connection_ids=connection_ids,
            connection_id_length=connection_ids.length,
            versions=QuicConfiguration(is_client=False).supported_versions,
        )
        self._transports: dict[Key, UDPTransport] = {}
        # The members of clients that do not know an id of their member yet.
        self._chosen: dict[bytes, Key] = {}
        #: How many datagrams were passed on, and how many of them did not fit into the
        #: socket of their member.
        self.forwarded = self.dropped = 0

    def read(
        self, loop: asyncio.AbstractEventLoop, sockets: Mapping[Key, socket.socket]
    ) -> None:
        """Read these sockets, by slot and number of the address, and no others."""
        for key in list(self._transports):
            if key not in sockets:
                self._transports.pop(key).close()
        for key, sock in sockets.items():
            if key in self._transports:
                continue
            try:
                copy = sock.dup()
            except OSError as error:
                logger.warning(
                    "the socket of slot %d cannot be read: %s", key[0], error
                )
                continue
            reader = _Reader(partial(self.pass_on, sock.family, key[1]))
            self._transports[key] = UDPTransport(
                loop, copy, reader, local_addresses=True
            )

    def pass_on(self, family: int, place: int, runs: list[Run]) -> None:
        """Pass on what has arrived at an address, or drop it."""
        alive = {
            (slot, generation % GENERATIONS): channel
            for (slot, generation), channel in self._members.items()
            if channel.life is not Life.STARTING
        }
        if not alive:
            return
        for run in runs:
            # A run comes from one address, which may have several connections.
            for share in self._router.split_run(run):
                key = self._choose(share, alive)
                if key is None:
                    continue
                data, _, _, segment = share
                count = -(-len(data) // segment)
                self.forwarded += count
                if not alive[key].pass_on(pack_run(family, Kind.RUN, place, share)):
                    self.dropped += count

    def _choose(self, run: Run, alive: Mapping[Key, MemberChannel]) -> Key | None:
        data, _, _, segment = run
        header = self._router.read_header(data[:segment])
        if header is None:
            return None
        cid = header.destination_cid
        owner = self._connection_ids.read(cid)
        if owner in alive:
            return owner
        if header.version is None:
            # A member answers an id of a dead one by a reset, and would answer that of
            # another machine, too (RFC 9000, 21.11).
            return None if owner is None else self._pick(cid, alive)
        chosen = self._chosen.get(cid)
        if chosen is None or chosen not in alive:
            chosen = self._pick(cid, alive)
            self._remember(cid, chosen)
        return chosen

    def _pick(self, cid: bytes, alive: Mapping[Key, MemberChannel]) -> Key:
        """Return a member for a new client: one that drains only if all do."""
        serving = [k for k, channel in alive.items() if channel.life is Life.SERVING]
        keys = sorted(serving or alive)
        return keys[zlib.crc32(cid) % len(keys)]

    def _remember(self, cid: bytes, key: Key) -> None:
        if len(self._chosen) == MAX_CHOSEN:
            del self._chosen[next(iter(self._chosen))]
        self._chosen[cid] = key

    def close(self) -> None:
        """Read no socket any more; a second call is a no-op."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()
        self._chosen.clear()
