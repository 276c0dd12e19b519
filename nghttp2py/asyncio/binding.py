"""Listening sockets: for TCP, at a Unix path, or given by the caller."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from nghttp2py.arguments import check_int, check_type
from nghttp2py.errors import printable

__all__ = [
    "UnixPath",
    "adopt_sockets",
    "bind_datagrams",
    "bind_tcp",
    "bind_udp",
    "bind_unix",
    "check_bound",
    "check_connected",
    "check_datagram_socket",
    "check_host",
    "check_path",
    "check_port",
    "describe_address",
    "describe_place",
    "to_address",
]

Host = str | Sequence[str] | None

# A name, an IPv4 address, [IPv6] or nothing, and a port.
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]*\]|[\w.*-]*):(\d*)", re.ASCII)
# Addresses that stand for all interfaces.
_ANY_IPV4, _ANY_IPV6 = "0.0.0.0", "::"


def check_host(host: object, *, several: bool = False) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``host`` can be resolved.

    ``None`` is valid; with ``several``, so is a sequence of hosts.
    """
    if several and isinstance(host, Sequence) and not isinstance(host, str | bytes):
        for one in host:
            check_host(one)
        return
    if host is None:
        return
    check_type("host", host, str, "a str or None")
    text = str(host)
    try:
        text.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"host must be a name, not {text!r}: {error}") from None
    if "\0" in text:
        raise ValueError(f"host must hold no null character, not {text!r}")


def check_port(port: object, *, optional: bool = False) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``port`` is a port."""
    if port is not None or not optional:
        check_int("port", port, 0, 65535)


def check_path(name: str, path: Any) -> str:
    """Return the path of a Unix socket as a str.

    Raises ``TypeError`` and ``ValueError``.  Linux's abstract names begin with a null
    byte.
    """
    check_type(name, path, str | bytes | os.PathLike, "a path")
    text = os.fsdecode(path)
    if not text:
        raise ValueError(f"{name} must not be empty, not {path!r}")
    if "\0" in text and not text.startswith("\0"):
        raise ValueError(f"{name} must hold no null byte, not {path!r}")
    return text


def to_address(
    address: tuple[str | None, int] | str | bytes | os.PathLike[str],
) -> tuple[str | None, int] | str:
    """Check the address of a server: ``(host, port)``, or the path of a Unix socket.

    Raises ``TypeError`` if it is neither, and ``ValueError`` for a str that looks like
    a host, a port or a URL: write such a path with ``./`` or a directory.
    """
    if isinstance(address, tuple):
        if len(address) != 2:
            raise ValueError(f"address must be (host, port) or a path, not {address!r}")
        check_host(address[0], several=True)
        check_port(address[1], optional=True)
        return address
    if isinstance(address, str):
        meant = _read_host_and_port(address)
        if meant is not None:
            raise ValueError(
                f"the address of a TCP server is a tuple (host, port): write {meant}, "
                f"not {address!r} (or './{address}' for a Unix socket of this name)"
            )
        if re.match(r"\w+://", address):
            raise ValueError(
                f"address must be a tuple (host, port) or a path, not {address!r}"
            )
    check_type(
        *("address", address, str | bytes | os.PathLike),
        "a tuple (host, port) or a path",
    )
    return check_path("address", address)


def _read_host_and_port(text: str) -> str | None:
    """Return what a text such as ``localhost:80`` was meant to be; ``None`` for a
    path."""
    host, port = text, ""
    match = _HOST_AND_PORT.fullmatch(text)
    if match is not None:
        host, port = match[1], match[2]
    elif text.isdecimal():
        host, port = "", text
    elif text != "localhost":
        try:
            ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            return None
    return f"({host.strip('[]') or None!r}, {port or 'port'})"


# ---- TCP ----


async def bind_tcp(
    loop: asyncio.AbstractEventLoop,
    host: Host,
    port: int | None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
) -> list[socket.socket]:
    """Return bound sockets for all addresses of ``host``; they do not listen yet.

    ``None`` and the empty string stand for all interfaces.  ``::`` accepts IPv4 too,
    unless another socket has the port for IPv4.  Raises ``OSError``, which names the
    address.
    """
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    found: list[tuple[int, int, Any]] = []
    for name in hosts:
        for info in await _resolve(loop, name or None, port, family, flags):
            address = info[0], info[2], info[4]
            if address not in found:
                found.append(address)
    ipv4_too = not any(address[0] == _ANY_IPV4 for _, _, address in found)
    sockets: list[socket.socket] = []
    try:
        for af, protocol, address in found:
            dual = ipv4_too and af == socket.AF_INET6 and address[0] == _ANY_IPV6
            sock = _bind(af, protocol, address, dual, reuse_address, reuse_port)
            if sock is not None:
                sockets.append(sock)
        if not sockets:
            raise OSError(
                errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on"
            )
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


async def _resolve(
    loop: asyncio.AbstractEventLoop,
    host: str | None,
    port: int | None,
    family: int,
    flags: int,
) -> Sequence[Any]:
    kind = socket.SOCK_STREAM
    try:
        # A literal address needs no resolver, and so no thread.
        numeric = flags | socket.AI_NUMERICHOST
        return socket.getaddrinfo(host, port, family, kind, 0, numeric)
    except socket.gaierror:
        pass
    return await loop.getaddrinfo(host, port, family=family, type=kind, flags=flags)


def _bind(
    family: int,
    protocol: int,
    address: Any,
    dual: bool,
    reuse_address: bool | None,
    reuse_port: bool | None,
) -> socket.socket | None:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            return None  # a system without IPv6
        raise
    try:
        if reuse_address or reuse_address is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6:
                # The system supports IPv6, but no interface has it.
                sock.close()
                return None
            if not (dual and error.errno == errno.EADDRINUSE):
                raise
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot bind to {_show(address)}: {error.strerror or error}"
        ) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _show(address: Any) -> str:
    """Return ``host:port``, with brackets around an address of IPv6."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_udp(tcp: socket.socket, *, reuse_port: bool | None = None) -> socket.socket:
    """Return a datagram socket at the address of ``tcp``, a bound socket.

    Raises ``OSError``, which names the address.
    """
    return bind_datagrams(*describe_place(tcp), reuse_port=reuse_port)


def describe_place(sock: socket.socket) -> tuple[int, Any, bool]:
    """Return the arguments of ``bind_datagrams`` for the address of a socket."""
    ipv6_only = sock.family == socket.AF_INET6 and bool(
        sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )
    return sock.family, sock.getsockname(), ipv6_only


def bind_datagrams(
    family: int,
    address: Any,
    ipv6_only: bool = False,
    *,
    reuse_port: bool | None = None,
) -> socket.socket:
    """Return a bound non-blocking datagram socket.

    ``"::"`` stands for every address, IPv4 included unless ``ipv6_only``.  Raises
    ``OSError``, which names the address.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno,
            f"cannot bind to {_show(address)} for UDP: {error.strerror or error}",
        ) from None
    except BaseException:
        sock.close()
        raise
    return sock


# ---- Unix sockets ----


class UnixPath:
    """The path of a Unix socket, which ``remove`` removes if it is still ours."""

    def __init__(self, path: str) -> None:
        self.path = path
        status = os.stat(path)
        self._inode = status.st_dev, status.st_ino

    def remove(self) -> None:
        """Remove the socket, unless another server has taken the path since."""
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            if (
                stat.S_ISSOCK(status.st_mode)
                and (status.st_dev, status.st_ino) == self._inode
            ):
                os.unlink(self.path)


def _check_unused(path: str) -> None:
    """Raise ``OSError`` if a program has the socket at ``path`` open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # A full queue of connections is an answer, too.
        sock.setblocking(False)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, f"cannot bind to {path!r}: a server answers there")


def bind_unix(path: str) -> tuple[socket.socket, UnixPath | None]:
    """Return a socket that is bound to ``path``, and the object that removes the path.

    A path that begins with a null byte is an abstract name of Linux.  A socket at the
    path that a program has left is removed.  Raises ``OSError`` if the path is in use.
    """
    if not path.startswith("\0"):
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                _check_unused(path)
                os.unlink(path)
        except FileNotFoundError:
            pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            # The error for a path that is too long has no errno.
            raise OSError(
                error.errno or errno.EINVAL,
                f"cannot bind to {path!r}: {error.strerror or error}",
            ) from None
        sock.setblocking(False)
        return sock, None if path.startswith("\0") else UnixPath(path)
    except BaseException:
        sock.close()
        raise


# ---- Sockets of the caller ----


def check_open(sock: Any, rule: str = "a socket") -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``sock`` is an open socket."""
    check_type("sock", sock, socket.socket, rule)
    if sock.fileno() == -1:
        raise ValueError(f"sock is closed: {sock!r}")


def check_stream_socket(sock: Any, rule: str = "a socket") -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``sock`` is an open stream
    socket."""
    check_open(sock, rule)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"sock must be a stream socket, not {sock!r}")


def check_datagram_socket(sock: Any, rule: str = "a socket") -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``sock`` is open and can have
    QUIC."""
    check_open(sock, rule)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"sock must be a socket of IP, not {sock.family!r}")
    # The kernel is asked, because the object's attributes may be wrong.
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_DGRAM:
        raise ValueError("sock must be a socket for datagrams (SOCK_DGRAM)")


def is_connected(sock: socket.socket) -> bool:
    """Return whether a socket has a peer."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def check_connected(sock: Any) -> None:
    """Raise unless ``sock`` is a stream socket with a peer, as a client needs it.

    Raises ``TypeError``, ``ValueError``, and the ``OSError`` of a connection that is
    lost.
    """
    check_stream_socket(sock)
    if not is_connected(sock):
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        raise ValueError(f"sock must be connected, not {sock!r}")


def check_bound(sock: socket.socket) -> None:
    """Raise ``ValueError`` for a socket at which no client can arrive."""
    if is_connected(sock):
        raise ValueError(f"sock must be bound, and not connected as is {sock!r}")
    # A stream socket of IP gets an address when it begins to listen.
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        if not sock.getsockname():
            raise ValueError(f"sock must be bound, not {sock!r}")
    elif sock.type == socket.SOCK_DGRAM and not sock.getsockname()[1]:
        raise ValueError("sock must be bound to a port: no client could reach it")


def adopt_sockets(
    sock: socket.socket | Iterable[socket.socket], *, datagrams: bool = False
) -> list[socket.socket]:
    """Check bound sockets that the caller has made; the server owns them from now on.

    With ``datagrams`` some may be those of UDP.  Raises ``TypeError`` and
    ``ValueError`` for a socket at which nothing can be served.
    """
    rule = "a socket or several"
    check_type("sock", sock, socket.socket | Iterable, rule)
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock)
    if not sockets:
        raise ValueError("sock must not be empty")
    for one in sockets:
        check_open(one, rule)
        if datagrams and one.type == socket.SOCK_DGRAM:
            check_datagram_socket(one, rule)
        else:
            check_stream_socket(one, rule)
        check_bound(one)
    for one in sockets:
        one.setblocking(False)
    return sockets


def describe_address(address: Any) -> str:
    """Return a socket address as in a URL, for the log; another form as it is.

    Control characters are escaped, because it may be a peer's.
    """
    if isinstance(address, tuple | list) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        return printable(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    if isinstance(address, str):
        return printable(f"unix:{address}".replace("\0", "@"))
    return printable(str(address))
