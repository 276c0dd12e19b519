"""The connections of a client to one origin: made, shared, replaced and closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from nghttp2py.asyncio.alternatives import AlternativeService, AlternativeServices
from nghttp2py.asyncio.time_limits import RequestTimeouts
from nghttp2py.asyncio.url import SplitURL, make_authority
from nghttp2py.errors import (
    ConnectionClosedError,
    ConnectTimeoutError,
    PoolTimeoutError,
)

__all__ = ["Connection", "Connector", "OriginConnections", "Slots"]

logger = logging.getLogger(__name__)

#: Seconds that an attempt of HTTP/3 gets before HTTP/2 is used.
HEAD_START = 0.3


class Connection(Protocol):
    """What a client needs of a connection, of either protocol."""

    #: Called without arguments when the last open stream has ended.
    idle_hook: Callable[[], object] | None

    @property
    def is_available(self) -> bool:
        """Whether it accepts requests."""

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait for a stream."""

    @property
    def is_closed(self) -> bool:
        """Whether it is lost."""

    @property
    def stream_count(self) -> int:
        """The open streams."""

    async def open_stream(self, headers: Any, *, end_stream: bool = False) -> Any:
        """Send a request's header fields; return its stream."""

    def try_open(self, fields: list[Any], end_stream: bool) -> Any:
        """Do that if nothing has to be waited for, or return ``None``."""

    async def wait_free(self) -> None:
        """Wait for a stream, if ``is_full`` and ``open_stream`` does not do that."""

    async def wait_tunnels(self) -> None:
        """Wait for the peer's SETTINGS; raise if they do not allow extended CONNECT."""

    def abort(self) -> None:
        """End it at once."""

    async def wait_closed(self) -> None:
        """Wait until it is lost."""


class Connector(Protocol):
    """Makes connections to an origin, and knows how they end."""

    async def connect(self, host: str | None = None, port: int | None = None) -> Any:
        """Make a connection, to another endpoint than the origin's if one is given."""

    def close(self, connection: Any, timeout: float | None) -> None:
        """Begin the graceful end of a connection that was made here."""


class Slots(Protocol):
    """Permissions to have connections, which several origins share."""

    async def acquire(self, origin: OriginConnections) -> None:
        """Wait for a permission."""

    def release(self, origin: OriginConnections) -> None:
        """Give one back."""

    def became_idle(self) -> None:
        """Handle that a connection has no open streams any more."""


class _Attempt:
    """A connection that is being made, for all callers that wait for one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        #: Done when there is a permission to have the connection.
        self.begun: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[Connection]
        self.waiters = 0

    def begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)


class _Upgrade:
    """An attempt of HTTP/3 to an alternative service."""

    def __init__(
        self, service: AlternativeService, task: asyncio.Task[Connection], began: float
    ) -> None:
        self.service = service
        self.task = task
        self.began = began


class OriginConnections:
    """The connections to one origin; most often there is one.

    ``http2`` makes connections of HTTP/2 and ``http3`` of HTTP/3; one may be ``None``.
    With both, HTTP/3 is used where ``alternatives`` has an endpoint of it: an attempt
    gets 0.3 seconds, then a connection of HTTP/2 is used or made, whichever is there
    first, while the attempt continues.  An endpoint that fails is not tried again for a
    while.  Without ``elsewhere`` endpoints at another host are not used.  Up to
    ``most`` connections are open to a server that limits streams.
    """

    def __init__(
        self,
        url: SplitURL,
        http2: Connector | None,
        http3: Connector | None,
        *,
        alternatives: AlternativeServices | None = None,
        elsewhere: bool = True,
        most: int = 1,
    ) -> None:
        self._http2 = http2
        self._http3 = http3
        self._origin = f"{url.scheme}://{url.authority}"
        self._host = url.host or ""
        self._port = url.port or 0
        self._scheme = url.scheme or ""
        self.alternatives = alternatives
        self._elsewhere = elsewhere
        self._slots: Slots | None = None
        self._held = 0  # permissions of ``slots``
        self._most = most
        #: Whether the current connection is to be checked for free streams.
        self.are_several = most > 1
        #: Whether other origins use the connections, too.
        self.are_shared = False
        #: The connection that the next request uses, if it is available.
        self.current: Connection | None = None
        # The open connections, and the connector that closes each; then those that are
        # used for no further requests.
        self._open: dict[Connection, Connector] = {}
        self._retired: dict[Connection, Connector] = {}
        #: The connections on which a request was answered.
        self.answered: set[Connection] = set()
        #: The open connections that no caller waits to use for the first time.
        self.begun: set[Connection] = set()
        #: The connections to alternative services, and the field that names these (RFC
        #: 7838, 5).
        self.used: dict[Connection, tuple[bytes, bytes]] = {}
        self._services: dict[Connection, AlternativeService] = {}
        self._attempt: _Attempt | None = None
        self._upgrade: _Upgrade | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.is_closed = False
        if alternatives is not None:
            alternatives.add_user(self)

    def use_slots(self, slots: Slots) -> None:
        """Ask for a permission before each connection is made."""
        self._slots = slots

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._origin}>"

    # ---- Finding one ----

    async def find(self, timeouts: RequestTimeouts | None = None) -> Connection:
        """Return a connection that accepts requests; callers share the one being made.

        Raises what connecting raises, ``ConnectionClosedError`` if this is closed, and
        ``PoolTimeoutError`` or ``ConnectTimeoutError``.
        """
        while True:
            if self.is_closed:
                raise ConnectionClosedError(f"the client of {self._origin} is closed")
            connection = self.current
            if (
                connection is None
                or not connection.is_available
                or (self.are_several and connection.is_full)
            ):
                connection = self._find_open()
            if connection is None or (
                connection.is_full and len(self._open) < self._most
            ):
                attempt = self._begin_attempt()
                try:
                    return await self._wait_for(attempt, timeouts)
                except OSError:
                    # A further connection that cannot be made is not needed.
                    if connection is None or not connection.is_available:
                        raise
                    return connection
            upgrade = None
            if connection is not self.current:
                upgrade = self._find_upgrade(connection)
            if upgrade is None:
                self.current = connection
                return connection
            left = upgrade.began + HEAD_START - asyncio.get_running_loop().time()
            if left <= 0:
                self.current = connection
                return connection
            await asyncio.wait([upgrade.task], timeout=left)

    def _find_open(self) -> Connection | None:
        """Return an open connection that accepts requests: HTTP/3, and a free one,
        first."""
        found = [c for c in self._open if c.is_available]
        if not found:
            return None
        return min(found, key=lambda c: (c.is_full, c not in self._services))

    async def _wait_for(
        self, attempt: _Attempt, timeouts: RequestTimeouts | None
    ) -> Connection:
        # The task itself is not awaited: a cancelled caller must not cancel the
        # connection of others, and close(), which cancels it, must not cancel the
        # callers.
        task = attempt.task
        attempt.waiters += 1
        try:
            if timeouts is None:
                await asyncio.wait([task])
            else:
                await _wait_within(attempt, timeouts)
        except BaseException:
            if attempt.waiters == 1:
                self._give_up(task)
            raise
        finally:
            attempt.waiters -= 1
            if not attempt.waiters and not attempt.begun.done():
                # No caller waits for the permission any more.
                task.cancel()
                if self._attempt is attempt:
                    self._attempt = None
        if task.cancelled():
            raise ConnectionClosedError(f"the client of {self._origin} is closed")
        return task.result()

    # ---- Making one ----

    def _begin_attempt(self) -> _Attempt:
        if self._attempt is None:
            loop = asyncio.get_running_loop()
            attempt = self._attempt = _Attempt(loop)
            attempt.task = loop.create_task(self._make(attempt))
            self._tasks.add(attempt.task)
            attempt.task.add_done_callback(partial(self._made, attempt))
        return self._attempt

    async def _make(self, attempt: _Attempt) -> Connection:
        if self._slots is not None:
            await self._slots.acquire(self)
            self._held += 1
        attempt.begin()
        if self._http2 is None:
            assert self._http3 is not None
            return self._add(await self._http3.connect(), self._http3)
        upgrade = self._find_upgrade(None)
        if upgrade is None:
            return self._add(await self._http2.connect(), self._http2)
        return await self._race(upgrade, self._http2)

    async def _race(self, upgrade: _Upgrade, http2: Connector) -> Connection:
        """Return the connection of an attempt of HTTP/3, or one of HTTP/2."""
        loop = asyncio.get_running_loop()
        left = max(0.0, upgrade.began + HEAD_START - loop.time())
        await asyncio.wait([upgrade.task], timeout=left)
        if _succeeded(upgrade.task):
            return upgrade.task.result()
        other = loop.create_task(http2.connect())
        try:
            running: set[asyncio.Task[Any]] = {other, upgrade.task}
            while running:
                done, running = await asyncio.wait(
                    running, return_when=asyncio.FIRST_COMPLETED
                )
                for task in (upgrade.task, other):
                    if task in done and _succeeded(task):
                        if task is other:
                            self._add(other.result(), http2)
                        return task.result()
            result: Connection = other.result()  # raises
            return result
        finally:
            other.cancel()
            await asyncio.wait([other])
            if _succeeded(other) and other.result() not in self._open:
                other.result().abort()

    def _made(self, attempt: _Attempt, task: asyncio.Task[Connection]) -> None:
        self._tasks.discard(task)
        if self._attempt is attempt:
            self._attempt = None
        if not task.cancelled():
            task.exception()  # mark it retrieved
        if not attempt.waiters:
            self._give_up(task)
        self._release_excess()

    def _give_up(self, task: asyncio.Task[Connection]) -> None:
        """Handle that no caller waits for the connection of an attempt any more."""
        if _succeeded(task):
            self.request_begun(task.result())

    def request_begun(self, connection: Connection) -> None:
        """Handle that a request was sent on a connection, or has failed before that."""
        if connection not in self._open:
            return
        self.begun.add(connection)
        if self._slots is not None and not connection.stream_count:
            self._slots.became_idle()

    def _add(self, connection: Connection, connector: Connector) -> Connection:
        """Take a new connection into use."""
        self._forget_closed()
        self._open[connection] = connector
        current = self.current
        if (
            current is None
            or not current.is_available
            or current.is_full
            or (connector is self._http3 and current not in self._services)
        ):
            self.current = connection
        if self.is_closed:
            connection.abort()  # it was made before abort() could cancel that
        elif self._slots is not None:
            connection.idle_hook = self._slots.became_idle
            task = asyncio.get_running_loop().create_task(connection.wait_closed())
            self._tasks.add(task)
            task.add_done_callback(self._lost)
        return connection

    def _lost(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._forget_closed()
        self._release_excess()

    def _forget_closed(self) -> None:
        for connection in [c for c in self._open if c.is_closed]:
            self._forget(connection)
        for connection in [c for c in self._retired if c.is_closed]:
            del self._retired[connection]

    def _forget(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        self.answered.discard(connection)
        self.begun.discard(connection)
        self.used.pop(connection, None)
        self._services.pop(connection, None)
        if self.current is connection:
            self.current = None

    def _release_excess(self) -> None:
        """Give back the permissions that no connection needs any more.

        An alternative to HTTP/2 needs none of its own while it is raced with that.
        """
        if self._slots is None:
            return
        attempting = self._attempt is not None and self._attempt.begun.done()
        while self._held > len(self._open) + len(self._retired) + attempting:
            self._held -= 1
            self._slots.release(self)

    # ---- Alternative services (RFC 7838) ----

    def _find_upgrade(self, connection: Connection | None) -> _Upgrade | None:
        """Return the attempt of HTTP/3 to wait for instead of using ``connection``."""
        if self.alternatives is None or connection in self._services:
            return None
        if self._upgrade is None:
            service = self._find_service(self.alternatives)
            if service is None or self._http3 is None:
                return None
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._http3.connect(service.host, service.port))
            self._tasks.add(task)
            self._upgrade = _Upgrade(service, task, loop.time())
            task.add_done_callback(partial(self._upgraded, service))
        return self._upgrade

    def _find_service(
        self, alternatives: AlternativeServices
    ) -> AlternativeService | None:
        return alternatives.find(
            self._origin, self._host, self._port, elsewhere=self._elsewhere
        )

    def _upgraded(
        self, service: AlternativeService, task: asyncio.Task[Connection]
    ) -> None:
        self._tasks.discard(task)
        self._upgrade = None
        if task.cancelled() or self.alternatives is None or self._http3 is None:
            return
        error = task.exception()
        if error is not None:
            logger.debug("%s: no HTTP/3 at %s: %s", self._origin, service, error)
            self._mark_broken(service)
            return
        connection = task.result()
        self.alternatives.succeeded(service)
        self._services[connection] = service
        host = make_authority(self._scheme, service.host, service.port)
        self.used[connection] = (b"alt-used", host.encode())
        self._add(connection, self._http3)
        others = [c for c in self._open if c not in self._services]
        self._retire(c for c in others if not c.stream_count)

    def _mark_broken(self, service: AlternativeService) -> None:
        """Do not try an endpoint for a while, and then again."""
        if self.alternatives is None or self.is_closed:
            return
        wait = self.alternatives.failed(service)
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(wait, self._look_again)

    def network_changed(self) -> None:
        """Handle that alternatives which have failed can be tried again."""
        self._look_again()

    def _look_again(self) -> None:
        """Have the next request find its connection anew."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.current not in self._services:
            self.current = None

    def learn(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Handle the header fields of a response of the origin."""
        value = age = None
        for name, text in pairs:
            if name == b"alt-svc":
                value = text if value is None else value + b"," + text
            elif name == b"age" and text.isdigit():
                age = text[:12]
        if value is not None:
            self.received(value.decode("latin-1"), float(age or 0))

    def received(self, value: str, age: float = 0.0) -> None:
        """Handle the value of Alt-Svc of the origin."""
        if self.alternatives is None:
            return
        if not self.alternatives.received(self._origin, value, age):
            self._retire(c for c in list(self._open) if c in self._services)
        elif (
            self._upgrade is None
            and self.current not in self._services
            and self._find_service(self.alternatives)
        ):
            self.current = None

    def frame_received(self, stream_id: int, origin: bytes, value: bytes) -> None:
        """Handle an ALTSVC frame (RFC 7838, 4)."""
        if self.are_shared if stream_id else origin != self._origin.encode():
            return  # possibly, or certainly, of another origin
        self.received(value.decode("latin-1"))

    def misdirected(self, connection: Connection) -> bool:
        """Handle 421 (RFC 7838, 6); return whether another connection may do better."""
        service = self._services.get(connection)
        if service is None or self.alternatives is None:
            return False
        self.alternatives.remove(self._origin, service)
        self._mark_broken(service)
        self._retire([connection])
        return True

    def is_alternative(self, connection: Connection) -> bool:
        """Whether a connection is to an alternative service."""
        return connection in self._services

    def failed(self, connection: Connection) -> None:
        """Handle that a connection to an alternative service has died."""
        service = self._services.get(connection)
        if service is not None:
            self._mark_broken(service)
            self._forget(connection)

    def _retire(self, connections: Iterable[Connection]) -> None:
        """Use connections for no further requests; close each without streams."""
        for connection in list(connections):
            connector = self._open[connection]
            self._forget(connection)
            self._retired[connection] = connector
            if connection.stream_count:
                connection.idle_hook = partial(_close_soon, connector, connection)
            else:
                connector.close(connection, None)
        self._release_excess()

    # ---- Idle connections ----

    @property
    def open_count(self) -> int:
        """The open connections, and those that are being made."""
        return len(self._open) + (self._attempt is not None)

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return list(self._open)

    @property
    def idle_count(self) -> int:
        """The connections that are without streams, and not made for a request that is
        still to be sent."""
        return sum(map(self._is_idle, self._open))

    def close_idle(self) -> bool:
        """Close such a connection; return whether there was one."""
        for connection in self._open:
            if self._is_idle(connection):
                self._retire([connection])
                return True
        return False

    def _is_idle(self, connection: Connection) -> bool:
        return (
            connection in self.begun
            and connection.is_available
            and not connection.stream_count
        )

    # ---- The end ----

    async def close(self, timeout: float | None = None) -> None:
        """Accept no more requests, and wait for the open streams to finish."""
        self.is_closed = True
        making = self._cancel_attempts()
        if making:
            await asyncio.wait(making)
        closing = {**self._open, **self._retired}
        for connection, connector in closing.items():
            connector.close(connection, timeout)
        for connection in closing:
            await connection.wait_closed()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._open):
            self._forget(connection)
        self._retired.clear()
        self.current = None
        self._release_excess()

    def abort(self) -> None:
        """End the connections at once: open streams are reset."""
        self.is_closed = True
        self._cancel_attempts()
        for connection in [*self._open, *self._retired]:
            connection.abort()

    def _cancel_attempts(self) -> list[asyncio.Task[Any]]:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        holders = (self._attempt, self._upgrade)
        tasks = [holder.task for holder in holders if holder is not None]
        for task in tasks:
            task.cancel()
        return tasks


def _close_soon(connector: Connector, connection: Connection) -> None:
    """Close a connection, in the loop's next turn: it is handling an event."""
    loop = asyncio.get_running_loop()
    loop.call_soon(connector.close, connection, None)


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _wait_within(attempt: _Attempt, timeouts: RequestTimeouts) -> None:
    """Wait until a connection was made, within the bounds of one caller."""
    task = attempt.task
    if not attempt.begun.done():
        both: list[asyncio.Future[Any]] = [attempt.begun, task]
        await asyncio.wait(
            both,
            timeout=timeouts.pool,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not (attempt.begun.done() or task.done()):
            raise PoolTimeoutError(f"no free connection in {timeouts.pool} seconds")
    await asyncio.wait([task], timeout=timeouts.connect)
    if not task.done():
        raise ConnectTimeoutError(f"no connection in {timeouts.connect} seconds")
