"""Where to listen: addresses as texts, and the sockets that they stand for."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

from nghttp2py.asyncio.binding import check_host
from nghttp2py.errors import ConfigurationError

__all__ = ["Bind", "to_bind"]

#: The port of an address without one.
PORT = 8000

# "[::1]:80", "host:80", ":80", "host"
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]/]*))(?::(\d{1,5}))?")


@dataclass(frozen=True)
class Bind:
    """One of: a host (None: all interfaces) with a port, a path, a descriptor, or the
    sockets of systemd that have a name ("": that no other bind names).
    """

    host: str | None = None
    port: int | None = None
    path: str | None = None
    fd: int | None = None
    systemd: str | None = None

    @property
    def is_ip(self) -> bool:
        """Whether this is an address of IP; of a descriptor that is not known."""
        return self.path is None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}".replace("\0", "@")
        if self.fd is not None:
            return f"fd://{self.fd}"
        if self.systemd is not None:
            return f"systemd:{self.systemd}".removesuffix(":")
        host = "*" if self.host is None else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def to_bind(text: str) -> Bind:
    """Read ``host:port``, ``unix:path``, ``fd://number``, ``systemd`` or
    ``systemd:name``.

    An empty host stands for all interfaces; in ``unix:@name``, ``@`` begins an abstract
    name of Linux.  Raises ``ConfigurationError``.
    """
    if text == "systemd":
        return Bind(systemd="")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path.startswith("//"):
            path = path[2:]  # "unix:///run/socket", as a URL has it
        if not path:
            raise ConfigurationError(f"{text!r} has no path")
        return Bind(path="\0" + path[1:] if path.startswith("@") else path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not number.isdecimal():
            raise ConfigurationError(f"{text!r} has no number of a descriptor")
        return Bind(fd=int(number))
    match = _HOST_AND_PORT.fullmatch(text)
    if text.startswith("systemd:") and not (match and match[3]):
        return Bind(systemd=text.removeprefix("systemd:"))
    if match is None:
        raise ConfigurationError(
            f"{text!r} is no address: write host:port, [IPv6]:port, unix:path, "
            "fd://number or systemd:name"
        )
    host = match[1] or match[2]
    port = PORT if match[3] is None else int(match[3])
    if port > 65535:
        raise ConfigurationError(f"the port of {text!r} is above 65535")
    if not host and match[3] is None:
        raise ConfigurationError(f"{text!r} has neither a host nor a port")
    try:
        check_host(host or None)
    except ValueError as error:
        raise ConfigurationError(f"{text!r}: {error}") from None
    return Bind(host=host or None, port=port)


def open_descriptor(fd: int) -> socket.socket:
    """Return a socket on a duplicate of a descriptor, which stays open.

    Raises ``OSError``, which names the descriptor.
    """
    try:
        return socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on descriptor {fd}: {error.strerror}"
        ) from None
