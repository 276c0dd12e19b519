"""The sockets that a supervisor has opened for its workers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from nghttp2py.asyncio.binding import (
    UnixPath,
    adopt_sockets,
    bind_tcp,
    bind_unix,
    to_address,
)

__all__ = ["Sockets"]


class Sockets:
    """Listening sockets by name, for each worker.

    A socket of TCP that was bound with SO_REUSEPORT is for worker 0, and each other
    worker gets its own at the same address; any other socket is shared by all.  A
    worker's socket outlives the worker: its replacement gets the same, with the
    connections that wait in its queue.
    """

    def __init__(self) -> None:
        self._first: list[tuple[str, socket.socket]] = []
        self._paths: list[UnixPath] = []
        self._others: dict[int, list[tuple[str, socket.socket]]] = {}

    async def open(self, name: str, address: Any, *, reuse_port: bool = False) -> None:
        """Bind ``(host, port)`` or a path, or take bound sockets.

        Raises ``OSError``, which names the address, and what ``to_address`` raises.
        """
        if isinstance(address, socket.socket) or (
            isinstance(address, Iterable)
            and not isinstance(address, str | bytes | tuple)
        ):
            self.add(name, adopt_sockets(address))
            return
        bound = to_address(address)
        if isinstance(bound, str):
            sock, path = bind_unix(bound)
            self.add(name, [sock], [] if path is None else [path])
            return
        loop = asyncio.get_running_loop()
        host, port = bound
        self.add(name, await bind_tcp(loop, host, port, reuse_port=reuse_port))

    async def open_all(
        self, addresses: Mapping[str, Any], *, reuse_port: bool = False
    ) -> None:
        """Open each of ``addresses``, by name; if one fails, close the others."""
        try:
            for name, address in addresses.items():
                await self.open(name, address, reuse_port=reuse_port)
        except BaseException:
            self.close()
            raise

    def add(
        self,
        name: str,
        sockets: Iterable[socket.socket],
        paths: Iterable[UnixPath] = (),
    ) -> None:
        """Take bound sockets, and the objects that remove their paths."""
        self._first += [(name, sock) for sock in sockets]
        self._paths += paths

    @property
    def addresses(self) -> list[tuple[str, Any]]:
        """The name and the address of each socket, once."""
        return [(name, sock.getsockname()) for name, sock in self._first]

    def named(self, name: str) -> list[socket.socket]:
        """Return the sockets of a name."""
        return [sock for each, sock in self._first if each == name]

    def of(self, index: int) -> list[tuple[str, socket.socket]]:
        """Return the sockets of a worker, by name.  Raises ``OSError``."""
        if index == 0:
            return self._first
        if index not in self._others:
            made: list[tuple[str, socket.socket]] = []
            try:
                for name, sock in self._first:
                    made.append((name, _clone(sock) if _is_own(sock) else sock))
            except OSError:
                self._close(made)
                raise
            self._others[index] = made
        return self._others[index]

    def drop(self, index: int) -> None:
        """Close the sockets that are of this worker alone."""
        self._close(self._others.pop(index, []))

    def close(self) -> None:
        """Close all, and remove the paths of Unix sockets."""
        for path in self._paths:
            path.remove()
        self._paths.clear()
        for index in list(self._others):
            self.drop(index)
        for _, sock in self._first:
            sock.close()

    def _close(self, sockets: list[tuple[str, socket.socket]]) -> None:
        first = {sock for _, sock in self._first}
        for _, sock in sockets:
            if sock not in first:
                sock.close()


def _is_own(sock: socket.socket) -> bool:
    """Return whether each worker has its own socket at this one's address."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.fileno() == -1:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _clone(sock: socket.socket) -> socket.socket:
    """Return another socket at the same address."""
    made = socket.socket(sock.family, sock.type, sock.proto)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            alone = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        made.bind(sock.getsockname())
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
