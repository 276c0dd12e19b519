"""Descriptors that another process sends over a Unix socket (SCM_RIGHTS)."""

from __future__ import annotations

import array
import socket

__all__ = ["receive"]

# The flag by which no program that this process starts inherits what is received; macOS
# has none.  socket.recv_fds() ignores its flags (CPython 3.11).
_FLAGS: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def receive(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Read at most ``size`` bytes and ``most`` descriptors, which the caller then owns.

    Raises ``OSError``.
    """
    numbers = array.array("i")
    room = socket.CMSG_SPACE(most * numbers.itemsize) if most else 0
    data, ancillary, _, _ = sock.recvmsg(size, room, _FLAGS)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(content) - len(content) % numbers.itemsize
            numbers.frombytes(content[:whole])
    return data, list(numbers)
