"""The sockets and numbers of one worker of a QuicGroup."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from nghttp2py.arguments import check_int, describe
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.quic.configuration import QuicConfiguration

__all__ = ["MAX_SLOTS", "QuicMember"]

# A connection id has the slot in one byte.
MAX_SLOTS = 256

# The longest message of the supervisor, and the most descriptors of one.
_MESSAGE = 65536
_DESCRIPTORS = 253

_STATE = {"slot", "generation", "size", "secrets", "addresses"}


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
        sockets: Sequence[socket.socket],
        inbox: socket.socket,
        control: socket.socket,
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.size = size
        self.secrets = secrets
        self.sockets = list(sockets)
        self._inbox = inbox
        self._control = control
        # Where datagrams for the other members are sent.
        self._peers: dict[tuple[int, int], socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: list[object] = []
        self._closed = False

    def describe(self) -> tuple[dict[str, Any], list[int]]:
        """Return the member as a JSON value, and the descriptors that belong to it.

        The descriptors stay open until :meth:`close`.
        """
        state = {
            "slot": self.slot,
            "generation": self.generation,
            "size": self.size,
            "secrets": self.secrets.to_json(),
            "addresses": len(self.sockets),
        }
        sockets = (*self.sockets, self._inbox, self._control)
        return state, [sock.fileno() for sock in sockets]

    @classmethod
    def restore(
        cls, state: Mapping[str, Any], descriptors: Sequence[int]
    ) -> QuicMember:
        """Return the member that was described, which owns the descriptors from now on.

        Raises ``ValueError`` if they do not fit.
        """
        if not isinstance(state, Mapping) or set(state) != _STATE:
            raise ValueError(f"this is no member of a group: {describe(state)}")
        check_int("addresses", state["addresses"], 1)
        if len(descriptors) != state["addresses"] + 2:
            raise ValueError(
                f"a member with {state['addresses']} addresses has two descriptors "
                f"more, not {len(descriptors)}"
            )
        *sockets, inbox, control = (socket.socket(fileno=fd) for fd in descriptors)
        for sock in (*sockets, inbox, control):
            sock.setblocking(False)
        return cls(
            state["slot"],
            state["generation"],
            state["size"],
            SharedSecrets.from_json(state["secrets"]),
            sockets,
            inbox,
            control,
        )

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
        """Set the secrets of the group that the configuration has not.

        The servers of the group accept no early data: each of them would accept the
        same once (RFC 8446, 8).
        """
        configuration.early_data = False
        if configuration.stateless_reset_secret is None:
            configuration.stateless_reset_secret = self.secrets.reset
        if configuration.session_ticket_key is None:
            configuration.session_ticket_key = self.secrets.tickets

    def attach(self, server: object) -> None:
        """Keep the sockets open for a server, until ``detach``."""
        if not self._servers:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._control, self._read_control)
        self._servers.append(server)

    def detach(self, server: object) -> None:
        """Close the sockets when the last server has been closed."""
        if server in self._servers:
            self._servers.remove(server)
            if not self._servers:
                self.close()

    def _read_control(self) -> None:
        """Handle the messages of the supervisor that have arrived."""
        while not self._closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._control, _MESSAGE, _DESCRIPTORS
                )
            except BlockingIOError:
                return
            if not data:
                # macOS reports the end of the supervisor so.
                return
            self._handle(json.loads(data), descriptors)

    def _handle(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        for key, descriptor in zip(message.get("joined", ()), descriptors, strict=True):
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            self._peers[tuple(key)] = sock
        for key in message.get("left", ()):
            peer = self._peers.pop(tuple(key), None)
            if peer is not None:
                peer.close()
        self.size = message.get("size", self.size)

    def close(self) -> None:
        """Close the sockets; a second call is a no-op."""
        if self._loop is not None and not self._closed:
            self._loop.remove_reader(self._control)
        self._closed = True
        for sock in (*self.sockets, self._inbox, self._control, *self._peers.values()):
            sock.close()
        self._peers.clear()
