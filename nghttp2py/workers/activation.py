"""Sockets that systemd has opened for the process: sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import MutableMapping
from typing import NamedTuple

from nghttp2py.errors import ConfigurationError

__all__ = ["InheritedSocket", "forget_sockets", "take_sockets"]

# The first descriptor that is passed; the others follow it.
_FIRST = 3
# LISTEN_PIDFDID tells a process from a later one with the same number.
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class InheritedSocket(NamedTuple):
    """A socket, and the name of it in the unit: ``FileDescriptorName=``."""

    name: str
    sock: socket.socket


def take_sockets(
    environ: MutableMapping[str, str] = os.environ, *, first: int = _FIRST
) -> list[InheritedSocket]:
    """Return the sockets that were passed to this process, and own them from now on.

    The variables are removed from ``environ``, so that no child, and no second call,
    takes the sockets, too.  Sockets for another process are ignored.

    Raises :class:`~nghttp2py.errors.ConfigurationError` for a descriptor on which
    nothing can be served; then all are closed.
    """
    names = environ.get("LISTEN_FDNAMES")
    descriptors = range(first, first + forget_sockets(environ))
    labels = names.split(":") if names else []
    found: list[InheritedSocket] = []
    try:
        for number, fd in enumerate(descriptors):
            name = labels[number] if number < len(labels) else ""
            found.append(InheritedSocket(name, _to_socket(fd, name)))
    except ConfigurationError:
        for each in found:
            each.sock.close()
        for fd in descriptors[len(found) :]:
            _close(fd)
        raise
    return found


def forget_sockets(environ: MutableMapping[str, str] = os.environ) -> int:
    """Remove the variables; return how many sockets were passed to this process."""
    pid, count, *_ = (environ.pop(name, "") for name in _VARIABLES)
    return int(count) if pid == str(os.getpid()) and count.isdecimal() else 0


def _to_socket(fd: int, name: str) -> socket.socket:
    """Return the socket of a descriptor, which no child inherits."""
    where = f"descriptor {fd} of systemd" + (f" ({name})" if name else "")
    try:
        os.set_inheritable(fd, False)
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        sock = socket.socket(fileno=fd) if is_socket else None
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}") from None
    if sock is None:
        raise ConfigurationError(f"{where} is no socket")
    refusal = None
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        refusal = "has a family that cannot be served"
    elif sock.type == socket.SOCK_STREAM:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            refusal = "does not listen: the unit must have Accept=no"
    elif sock.type != socket.SOCK_DGRAM or sock.family == socket.AF_UNIX:
        refusal = "must be of ListenStream=, or of UDP"
    if refusal:
        sock.detach()
        raise ConfigurationError(f"{where} {refusal}")
    sock.setblocking(False)
    return sock


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):  # it was not open
        os.close(fd)
