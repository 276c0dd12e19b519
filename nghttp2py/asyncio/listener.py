"""The connections of a server: accepting, counting and closing them.

``ConnectionSet`` is for any server; ``Listener`` for those that accept connections
from sockets (TCP, Unix), with or without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from nghttp2py.arguments import check_int
from nghttp2py.asyncio.binding import UnixPath, describe_address
from nghttp2py.asyncio.memory import check_memory
from nghttp2py.asyncio.proxy_protocol import ProxiedConnections, ProxyPolicy
from nghttp2py.asyncio.tls import ServerContexts
from nghttp2py.asyncio.tls_transport import ServerTLS
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.log_budget import LogBudget, MemoryLog

__all__ = [
    "BACKLOG",
    "LAST_REQUEST_TIME",
    "ConnectionSet",
    "Listener",
    "check_backlog",
    "check_limit",
]

logger = logging.getLogger(__name__)
_memory_log = MemoryLog(logger)

#: Connections that the kernel queues until they are accepted; the system may allow
#: fewer (Linux: net.core.somaxconn).
BACKLOG = 2048

# Connections accepted in one turn of the loop, before the others get theirs.
_ACCEPTS_IN_A_TURN = 64
# Seconds for which accepting pauses when descriptors or memory are used up.
_EXHAUSTED_PAUSE = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2) also reports errors of the connection that it would have returned: these do
# not concern the next connection.
_OF_THE_CONNECTION = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)
# Seconds between log lines about used-up descriptors or connections.
_LOG_INTERVAL = 10.0
# Seconds from the deadline of a graceful close, at which each connection aborts itself,
# until the set aborts those that have not.
_GRACE = 3.0
#: Seconds for which a connection without a request waits for one when the server closes
#: it gracefully.  HTTP/1.1 has no GOAWAY: a client that sends a request just then would
#: lose it.
LAST_REQUEST_TIME = 1.0

#: Seconds of silence after which TCP probes whether the client is there.  Otherwise,
#: the connection of a client that has vanished without FIN or RST would stay open as
#: long as the application sends nothing.
PROBE_AFTER = 60
# The socket options of it: the seconds between two probes, and how many of them are not
# answered when the connection is reset.
_PROBES = {"TCP_KEEPIDLE": PROBE_AFTER, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
if not hasattr(socket, "TCP_KEEPIDLE"):
    _PROBES["TCP_KEEPALIVE"] = PROBE_AFTER  # its name on macOS

C = TypeVar("C")


class ConnectionSet(Generic[C]):
    """The open connections of a server, which it closes or aborts together.

    ``close(connection, timeout)`` begins a connection's graceful close; ``timeout`` is
    in seconds, or ``None`` for the connection's own.  ``abort(connection)`` ends it at
    once.  The server calls ``add`` and ``discard``.
    """

    def __init__(
        self,
        close: Callable[[C, float | None], object],
        abort: Callable[[C], object],
    ) -> None:
        self._close = close
        self._abort = abort
        self._connections: set[C] = set()
        self._waiters = Waiters()
        self._timeout: float | None = None
        #: Called without arguments after ``discard``.
        self.discarded: Callable[[], object] | None = None
        #: Whether ``close`` or ``abort`` was called.
        self.closing = False
        self._aborting = False

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._connections))

    def __contains__(self, connection: C) -> bool:
        return connection in self._connections

    def add(self, connection: C) -> None:
        """Add a connection; after ``close`` it is closed, too."""
        self._connections.add(connection)
        if self._aborting:
            self._call(self._abort, connection)
        elif self.closing:
            self._close_one(connection)

    def discard(self, connection: C) -> None:
        """Forget a connection that is lost."""
        self._connections.discard(connection)
        if not self._connections:
            self._waiters.wake()
        if self.discarded is not None:
            self.discarded()

    def close(self, timeout: float | None = None) -> None:
        """Close every connection, and those that are added from now on.

        ``timeout`` is in seconds; ``None`` leaves it to each connection.
        """
        if not self.closing:
            self.closing = True
            self._timeout = timeout
        for connection in self:
            self._close_one(connection, timeout)

    def abort(self) -> None:
        """End every connection at once, and those that are added from now on."""
        self.closing = self._aborting = True
        self.for_each(self._abort)

    def for_each(self, function: Callable[[C], object]) -> None:
        """Call ``function`` with every connection, even if it raises for some."""
        for connection in self:
            self._call(function, connection)

    async def wait_empty(self) -> None:
        """Wait until the last connection is gone."""
        while self._connections:
            await self._waiters.wait()

    def _close_one(self, connection: C, timeout: float | None = None) -> None:
        if timeout is None:
            timeout = self._timeout
        if not self._call(lambda each: self._close(each, timeout), connection):
            self._call(self._abort, connection)

    @staticmethod
    def _call(function: Callable[[C], object], connection: C) -> bool:
        # A failure of one connection must not keep the others open.
        try:
            function(connection)
        except Exception:
            logger.exception("%r could not be closed", connection)
            return False
        return True


def probe_by_tcp(sock: socket.socket) -> None:
    """Have TCP find out that the peer of a connection is gone (RFC 9293, 3.8.4)."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the peer may have reset it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def check_backlog(backlog: object) -> None:
    """Raise for a backlog that listen() does not accept."""
    check_int("backlog", backlog, 0, (1 << 31) - 1)


def check_limit(limit_connections: int | None) -> None:
    """Raise for a limit of connections that is not a positive number."""
    if limit_connections is None:
        return
    check_int("limit_connections", limit_connections, 1)


class Listener:
    """Accepts connections from sockets, and closes them with the server.

    ``factory`` makes the protocol of a connection; with ``tls`` it is called when the
    TLS handshake is complete.  The protocols add themselves to ``connections`` when
    they are connected.

    ``limit_connections`` bounds those that are open at once, handshakes included;
    further ones wait in the kernel's backlog.  ``elsewhere`` returns how many other
    connections count, such as those of QUIC; ``released`` must be called when one of
    these ends.

    ``proxy`` says which connections begin with a header of the PROXY protocol.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        connections: ConnectionSet[C],
        *,
        tls: ssl.SSLContext | ServerContexts | None = None,
        handshake_timeout: float = 10.0,
        backlog: int = BACKLOG,
        limit_connections: int | None = None,
        protocol_name: str = "HTTP/2",
        elsewhere: Callable[[], int] = int,
        proxy: ProxyPolicy | None = None,
    ) -> None:
        check_limit(limit_connections)
        check_backlog(backlog)
        self.loop = loop
        self.connections = connections
        connections.discarded = self.released
        self._factory = factory
        self._tls: ServerTLS | None = None
        if tls is not None:
            self._tls = ServerTLS(
                tls,
                factory,
                handshake_timeout=handshake_timeout,
                lost=self.released,
            )
            self._factory = self._tls.protocol
        self._proxied: ProxiedConnections | None = None
        if proxy is not None and proxy.version != "off":
            self._proxied = ProxiedConnections(
                proxy,
                self._factory,
                timeout=handshake_timeout,
                lost=self.released,
            )
            self._factory = self._proxied.protocol
        self._backlog = backlog
        self._limit = limit_connections
        self._protocol_name = protocol_name
        self._elsewhere = elsewhere
        self._sockets: list[socket.socket] = []
        self._paths: list[UnixPath] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._serving = False
        self._watched = False  # the loop watches the sockets
        self._closing = False
        self._reserve: int | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._waiters = Waiters()
        #: How many connections were accepted.
        self.accepted = 0
        self._exhausted = LogBudget(logger, logging.WARNING, 1, _LOG_INTERVAL)
        self._full = LogBudget(logger, logging.INFO, 1, _LOG_INTERVAL)

    # ---- Sockets ----

    def use(
        self, sockets: Sequence[socket.socket], paths: Sequence[UnixPath] = ()
    ) -> None:
        """Take bound sockets, and the objects that remove their paths."""
        self._sockets += sockets
        self._paths += paths
        if self._closing:
            self._stop_listening()

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets; empty after they are closed."""
        return list(self._sockets)

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self._serving

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self.loop

    def start(self) -> None:
        """Listen, and accept connections.  A second call is a no-op.

        Raises ``OSError``; then no socket listens.
        """
        if self._serving or self._closing:
            return
        for sock in self._sockets:
            sock.listen(self._backlog)
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._serving = True
        self._watch()
        if self._sockets:
            logger.info(
                "listening on %s (%s%s)",
                self._describe_sockets(),
                self._protocol_name,
                " in the clear" if self._tls is None else " over TLS",
            )

    def _describe_sockets(self) -> str:
        return ", ".join(describe_address(s.getsockname()) for s in self._sockets)

    def set_contexts(self, contexts: ServerContexts) -> None:
        """Use other contexts for new connections.  This is a no-op without TLS."""
        if self._tls is not None:
            self._tls.contexts = contexts

    # ---- Accepting ----

    @property
    def count(self) -> int:
        """The number of open connections, including those in the handshake."""
        made = len(self.connections)
        if self._tls is not None:
            # Some connections are in the handshake, or were refused after it.
            made = max(made, len(self._tls.connections))
        if self._proxied is not None:
            made += len(self._proxied.waiting)
        return made + len(self._opening)

    @property
    def failures(self) -> Counter[str]:
        """How many TLS handshakes have failed, by reason."""
        return Counter() if self._tls is None else self._tls.failures

    @property
    def refused_headers(self) -> int:
        """How many headers of the PROXY protocol were refused."""
        return 0 if self._proxied is None else self._proxied.refused

    @property
    def is_full(self) -> bool:
        """Whether ``limit_connections`` is reached."""
        return self._limit is not None and self.count + self._elsewhere() >= self._limit

    def _watch(self) -> None:
        if self._serving and not self._watched and self._pause is None:
            self._watched = True
            for sock in self._sockets:
                self.loop.add_reader(sock.fileno(), self._accept, sock)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            for sock in self._sockets:
                self.loop.remove_reader(sock.fileno())

    def _accept(self, listening: socket.socket) -> None:
        """Accept the connections that wait at a socket, up to a bound."""
        for _ in range(_ACCEPTS_IN_A_TURN):
            if self.is_full:
                self._full.log(
                    "limit_connections is reached: %d are open, others wait",
                    self._limit,
                )
                self._unwatch()
                return
            if not self._watched:
                return  # closed, or paused because of another socket
            try:
                check_memory()
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except (OSError, MemoryError) as error:
                if isinstance(error, MemoryError) or error.errno in _EXHAUSTED:
                    self._shed(listening)
                elif error.errno in _OF_THE_CONNECTION:
                    continue
                self._exhausted.log("connections cannot be accepted: %s", error)
                self._pause_accepting()
                return
            self._open(sock)

    def _open(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        probe_by_tcp(sock)
        self.accepted += 1
        task = self.loop.create_task(self._connect(sock))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    async def _connect(self, sock: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(self._factory, sock)
        except asyncio.CancelledError:
            sock.close()
            raise
        except Exception as error:
            sock.close()
            if isinstance(error, OSError):
                logger.debug("a connection was lost while it was accepted: %s", error)
            else:
                _memory_log.failed(error, "a connection could not be set up")

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self.released()

    def _shed(self, listening: socket.socket) -> None:
        """Accept and close waiting connections, so that they fail at once, not by a
        timeout.

        The reserve descriptor is closed for each, and opened again.
        """
        for _ in range(_ACCEPTS_IN_A_TURN):
            if self._reserve is None:
                break
            os.close(self._reserve)
            self._reserve = None
            try:
                sock, _ = listening.accept()
                sock.close()
            except OSError:
                break
            finally:
                self._take_reserve()

    def _take_reserve(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _pause_accepting(self) -> None:
        self._unwatch()
        if self._pause is None:
            self._pause = self.loop.call_later(_EXHAUSTED_PAUSE, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._pause = None
        self._take_reserve()
        self._watch()

    def released(self) -> None:
        """Handle that a connection is lost, or its handshake over."""
        if self._limit is not None and not self.is_full:
            self._watch()
        if self.is_closed:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._waiters.wake()

    # ---- The end ----

    def close(self, timeout: float | None = None, patience: float = 0.0) -> None:
        """Stop accepting, and close each connection gracefully.

        ``timeout`` is in seconds; with ``None`` each connection has its own, and
        ``patience`` is the longest of these.  Connections that are still open some
        seconds later are aborted.  A second call can only shorten the time that is
        left.
        """
        self._take_queued()
        self._stop_listening()
        self.connections.close(timeout)
        seconds = patience if timeout is None else timeout
        self.loop.call_later(min(seconds, LAST_REQUEST_TIME), self._abort_idle)
        due = self.loop.time() + seconds + _GRACE
        if self._deadline is None or due < self._deadline.when():
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_at(due, self.abort)
        self.released()

    def _take_queued(self) -> None:
        """Accept what waits at the sockets: the kernel resets it when they are closed.

        Clients count these connections as made.
        """
        if not self._serving:
            return
        for sock in self._sockets:
            for _ in range(self._backlog + 1):
                if self.is_full:
                    return
                try:
                    taken, _ = sock.accept()
                except OSError as error:
                    if error.errno in _OF_THE_CONNECTION:
                        continue
                    break
                self._open(taken)

    def _abort_idle(self) -> None:
        """Abort the connections whose client has not begun: they have no requests."""
        if self._proxied is not None:
            self._proxied.abort()
        if self._tls is not None:
            for transport in list(self._tls.connections):
                if not transport.has_begun:
                    transport.abort()
        self.released()

    def abort(self) -> None:
        """Stop accepting, and abort each connection."""
        self._stop_listening()
        self.connections.abort()
        if self._proxied is not None:
            self._proxied.abort()
        if self._tls is not None:
            for transport in list(self._tls.connections):
                transport.abort()
        self.released()

    def _stop_listening(self) -> None:
        self._closing = True
        if self._serving and self._sockets:
            logger.info("no longer listening on %s", self._describe_sockets())
        self._serving = False
        # Before the sockets are closed, because their numbers may be reused at once.
        for sock in self._sockets:
            if self._watched:
                self.loop.remove_reader(sock.fileno())
            sock.close()
        self._watched = False
        self._sockets.clear()
        for path in self._paths:
            path.remove()
        self._paths.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed and the last connection is lost."""
        return self._closing and not self.count

    async def wait_closed(self) -> None:
        """Wait until it was closed and the last connection is lost."""
        while not self.is_closed:
            await self._waiters.wait()
