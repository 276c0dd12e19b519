"""The supervisor's sockets to one worker of a QuicGroup, and its messages to it."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from nghttp2py.asyncio.quic_member import Life

__all__ = ["MemberChannel", "News"]

# How many members go into one message, with a descriptor each: Linux allows 253
# (SCM_MAX_FD).
_DESCRIPTORS = 64

Key = tuple[int, int]


class News:
    """The changes of the other members that a member does not know yet, by keys.

    ``send`` sends a message with descriptors, and raises ``OSError``.  What it refuses
    stays for the next ``flush``.  Of a member that joins and leaves in between nothing
    stays, so there is never more than the group has members, and had when the member
    has last accepted a message.
    """

    def __init__(self, send: Callable[[dict[str, Any], Sequence[int]], object]) -> None:
        self._send = send
        # In their order; None for a member that has left.
        self._waiting: dict[Key, MemberChannel | None] = {}
        self._told: set[Key] = set()
        self._size: int | None = None
        #: Why the last flush has not sent all.
        self.error: OSError | None = None

    def joined(self, key: Key, channel: MemberChannel) -> None:
        """Queue a new member, with its outbox."""
        self._waiting.pop(key, None)
        self._waiting[key] = channel

    def left(self, key: Key) -> None:
        """Queue the end of a member."""
        self._waiting.pop(key, None)
        if key in self._told:
            self._waiting[key] = None

    def resized(self, size: int) -> None:
        """Queue the number of slots."""
        self._size = size

    def flush(self) -> bool:
        """Send what waits; return whether nothing waits any more.

        If the member's process has ended, nothing waits for it.
        """
        self.error = None
        try:
            while self._waiting:
                self._send_part()
            if self._size is not None:
                self._send({"size": self._size}, ())
                self._size = None
        except ConnectionError:
            self._forget()
        except OSError as error:
            # ENOTCONN comes after the first ConnectionError.  Others are EAGAIN, and
            # ETOOMANYREFS: descriptors that wait to be read count for the limit of open
            # files (unix(7)).
            if error.errno == errno.ENOTCONN:
                self._forget()
            else:
                self.error = error
                return False
        return True

    def _send_part(self) -> None:
        """Send the first message: members that have joined, or that have left."""
        begins = next(iter(self._waiting.values())) is not None
        part: list[Key] = []
        descriptors: list[int] = []
        for key, channel in self._waiting.items():
            if (channel is not None) is not begins or len(part) == _DESCRIPTORS:
                break
            part.append(key)
            if channel is not None:
                descriptors.append(channel.outbox.fileno())
        self._send({"joined" if begins else "left": part}, descriptors)
        for key in part:
            del self._waiting[key]
        if begins:
            self._told.update(part)
        else:
            self._told.difference_update(part)

    def _forget(self) -> None:
        self._waiting.clear()
        self._size = None


class MemberChannel:
    """The supervisor's ends of the sockets to one member.

    ``inbox`` and ``control`` are the member's ends.
    """

    def __init__(self) -> None:
        # The other members get this socket, and send datagrams for the member by it.
        self.outbox, self.inbox = _pair()
        self._control, self.control = _pair()
        self.news = News(self._send)
        #: What the member does, as far as it has reported.
        self.life = Life.STARTING
        #: Since when messages wait.
        self.waits_since: float | None = None

    def fileno(self) -> int:
        """Return the descriptor that is readable when the member has reported."""
        return self._control.fileno()

    def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)

    def read_life(self) -> None:
        """Read what the member has reported; raises ``OSError`` if nothing can come.

        A report is a datagram of one byte.
        """
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while True:
                report = self._control.recv(16)
                if not report:
                    # On macOS, the end of the member.
                    raise ConnectionResetError
                with contextlib.suppress(ValueError):  # a state of another release
                    self.life = Life(report[0])

    def pass_on(self, message: bytes) -> bool:
        """Send a run of datagrams; return whether the member's socket has room."""
        try:
            self.outbox.send(message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the supervisor's ends."""
        self.outbox.close()
        self._control.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets without names, which no other program can use."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in pair:
        sock.setblocking(False)
    return pair
