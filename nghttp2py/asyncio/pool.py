"""A client for several origins, with bounds for all of its connections."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

from nghttp2py.arguments import check_bool, check_int, check_seconds, check_type
from nghttp2py.asyncio.alternatives import AlternativeServices
from nghttp2py.asyncio.client import (
    CONNECT_TIMEOUT,
    RETRIES,
    TIMEOUT,
    Answer,
    Client,
    Closing,
)
from nghttp2py.asyncio.origin import OriginConnections
from nghttp2py.asyncio.request_body import RequestBody
from nghttp2py.asyncio.response import Response
from nghttp2py.asyncio.time_limits import RequestTimeouts
from nghttp2py.asyncio.url import SplitURL, split_url
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.asyncio.writer import HeadersLike
from nghttp2py.errors import ConnectionClosedError, ConnectTimeoutError
from nghttp2py.h2 import H2Configuration

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nghttp2py.asyncio.client_options import (
        BodyOptions,
        ConnectionOptions,
        RequestOptions,
        Trace,
        TunnelOptions,
    )
    from nghttp2py.quic import QuicConfiguration

__all__ = ["Pool"]

#: Connections to all origins together.
MAX_CONNECTIONS = 100
#: Connections without streams that are kept.
MAX_KEEPALIVE = 20
#: Seconds for which they are kept.
KEEPALIVE_EXPIRY = 5.0

# Origins without a connection of their own that are remembered, with what is known of
# them.
_MAX_ORIGINS = 1000

_CLOSED = "the pool is closed"


class _Slots:
    """Permissions to have connections; the first to wait gets the next one."""

    def __init__(self, pool: Pool, most: int) -> None:
        self._pool = pool
        self._most = most
        self.used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, origin: OriginConnections) -> None:
        """Wait for a permission; a connection without streams makes room."""
        if self._waiting or self.used >= self._most:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self.make_room()
            try:
                await future
            except BaseException:
                if future.done() and not future.cancelled():
                    self.release(origin)
                elif future in self._waiting:  # release() drops cancelled ones
                    self._waiting.remove(future)
                raise
        else:
            self.used += 1

    def make_room(self) -> None:
        """Close a connection without streams for each caller that waits."""
        for _ in range(len(self._waiting)):
            if not self._pool.close_idle():
                return

    def release(self, origin: OriginConnections) -> None:
        """Give a permission back, to the first caller that waits."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self.used -= 1

    def became_idle(self) -> None:
        """Close connections without streams of which others need the room, or that are
        too many."""
        # The connection is handling the event that has ended its stream.
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self.make_room()
        self._pool.close_excess()


class _PooledClient(Client):
    """A client of a pool, whose clients share the default of ``ssl``."""

    def __init__(
        self, contexts: list[ssl_module.SSLContext], origin: str, **options: Any
    ):
        self._contexts = contexts
        super().__init__(origin, **options)

    def _make_context(self) -> ssl_module.SSLContext:
        if not self._contexts:
            self._contexts.append(super()._make_context())
        return self._contexts[0]


class Pool(Closing):
    """Sends requests to any origin, by one ``Client`` for each.

    At most ``max_connections`` are open, and ``max_connections_per_origin`` to one
    origin, of which a further one is made if all streams that the server allows are in
    use.  A request waits for a free one, within ``pool`` of its ``timeouts``; one
    without streams is closed to make room.  At most ``max_keepalive`` connections
    without streams are kept, each for ``keepalive_expiry`` seconds.  An attempt of
    HTTP/3 beside HTTP/2 counts as one connection with that.

    With ``share_connections`` a connection of HTTP/2 is used for another origin whose
    name has the same address and port, and is in its certificate (RFC 9113, 9.1.1).  If
    the server answers 421, the request is sent again on a connection of its own.

    With ``path`` all connections are to that Unix socket.  The other parameters are
    those of ``Client``, for every client.  ``ssl`` is used for
    origins of ``https``; ``http3=True`` is of no effect for others.

    Use it as ``async with Pool() as pool``.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_connections_per_origin: int = 1,
        max_keepalive: int = MAX_KEEPALIVE,
        keepalive_expiry: float | None = KEEPALIVE_EXPIRY,
        share_connections: bool = False,
        path: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        http3: bool | Literal["only"] | QuicConfiguration = False,
        quic: QuicConfiguration | None = None,
        headers: HeadersLike = (),
        config: H2Configuration | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        alternatives: AlternativeServices | None = None,
        decompress: bool = False,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        check_int("max_connections", max_connections, 1)
        check_int("max_connections_per_origin", max_connections_per_origin, 1)
        check_int("max_keepalive", max_keepalive, 0)
        check_seconds("keepalive_expiry", keepalive_expiry)
        check_bool("share_connections", share_connections)
        self._slots = _Slots(self, max_connections)
        self._most = max_connections_per_origin
        self._max_keepalive = max_keepalive
        self._shares = share_connections
        self._ssl = ssl
        self._http3 = http3
        self._quic = quic
        if alternatives is None and http3 is True:
            alternatives = AlternativeServices()
        self._options: dict[str, Any] = {
            "path": path,
            "headers": headers,
            "config": config,
            "connect_timeout": connect_timeout,
            "timeout": timeout,
            "idle_timeout": keepalive_expiry,
            "retries": retries,
            "connections": max_connections_per_origin,
            "alternatives": alternatives,
            "decompress": decompress,
            **options,
        }
        # By origin, the least recently used first.
        self._clients: OrderedDict[str, Client] = OrderedDict()
        # Origins that use the connections of another, and those that must not.
        self._shared: dict[str, Client] = {}
        self._alone: set[str] = set()
        self._ending: dict[asyncio.Task[None], Client] = {}
        self._closed = False
        # The default of ``ssl``, once it was made.
        self._contexts: list[ssl_module.SSLContext] = []
        # It finds what cannot be used, before the first request.
        self._make_client("https://localhost")

    # ---- Requests ----

    async def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Response:
        """Send a request and wait until its response begins: see ``Client.request``.

        ``url`` is absolute.
        """
        body = options.get("body")
        return await self._send(
            url,
            options,
            lambda client: client.request(method, url, **options),
            can_repeat=body is None or isinstance(body, (bytes, str)),
        )

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a GET request: see ``request``."""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a HEAD request: see ``request``."""
        return await self.request("HEAD", url, **options)

    async def post(
        self, url: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Response:
        """Send a POST request: see ``request``."""
        return await self.request("POST", url, body=body, **options)

    async def put(
        self, url: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Response:
        """Send a PUT request: see ``request``."""
        return await self.request("PUT", url, body=body, **options)

    async def patch(
        self, url: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Response:
        """Send a PATCH request: see ``request``."""
        return await self.request("PATCH", url, body=body, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a DELETE request: see ``request``."""
        return await self.request("DELETE", url, **options)

    async def open_tunnel(
        self,
        url: str,
        *,
        protocol: str | None = None,
        target: str | None = None,
        **options: Unpack[TunnelOptions],
    ) -> Response:
        """Open a tunnel: see ``Client.open_tunnel``.

        With ``protocol`` ``url`` is that of the resource, otherwise that of a proxy,
        and ``target`` the host and port to connect to.
        """
        to = url if target is None else target
        return await self._send(
            url,
            options,
            lambda client: client.open_tunnel(to, protocol=protocol, **options),
        )

    async def _send(
        self,
        url: str,
        options: Any,
        send: Callable[[Client], Answer],
        *,
        can_repeat: bool = True,
    ) -> Response:
        """Send a request, and again if another origin's connection must not serve it
        (RFC 9110, 15.5.20)."""
        client, key = await self._find(url, options)
        response = await send(client)
        if (
            response.status == 421
            and can_repeat
            and client is not self._clients.get(key)
        ):
            response.close()
            self._separate(key)
            client, _ = await self._find(url, options)
            response = await send(client)
        return response

    async def send(
        self,
        origin: str,
        method: str,
        fields: list[tuple[bytes, bytes]],
        body: RequestBody,
        *,
        server_hostname: str | None = None,
        timeouts: RequestTimeouts,
        trace: Trace | None = None,
        expect_continue: float = 0.0,
    ) -> Response:
        """Send a request whose header section the caller has made: see ``Client.send``.

        With ``server_hostname`` it is sent on a connection for which TLS has asked for
        that name, and whose certificate is valid for it.
        """
        client, _ = await self._find(origin, {"timeouts": timeouts}, server_hostname)
        return await client.send(
            method,
            fields,
            body,
            timeouts=timeouts,
            trace=trace,
            expect_continue=expect_continue,
        )

    async def _find(
        self, text: str, options: Any, server_hostname: str | None = None
    ) -> tuple[Client, str]:
        """Return the client for a URL, and the URL's origin."""
        if self._closed:
            raise ConnectionClosedError(_CLOSED)
        url = split_url(text)
        if url.scheme is None:
            raise ValueError(f"{text!r} has no scheme and host")
        key = origin = f"{url.scheme}://{url.authority}"
        if server_hostname is not None:
            key = f"{origin} as {server_hostname}"
        client = self._clients.get(key)
        if client is None and self._shares and server_hostname is None:
            client = self._shared.get(key)
            if client is not None and not client.connections.open_count:
                self._stop_sharing(key)
                client = None
            if client is None:
                client = await self._find_shared(url, key, options)
                if self._closed:
                    raise ConnectionClosedError(_CLOSED)
                if client is None:  # another request may have made it meanwhile
                    client = self._clients.get(key)
        if client is None:
            client = self._make_client(origin, server_hostname)
            self._clients[key] = client
            client.connections.use_slots(self._slots)
            self._forget_unused()
        elif key in self._clients:
            self._clients.move_to_end(key)
        return client, key

    def _make_client(self, origin: str, server_hostname: str | None = None) -> Client:
        options = self._options
        if server_hostname is not None:
            options = {**options, "server_hostname": server_hostname}
        if origin.startswith("https:"):
            options = {
                **options,
                "ssl": self._ssl,
                "http3": self._http3,
                "quic": self._quic,
            }
        elif self._http3 is not True and self._http3 is not False:
            options = {**options, "http3": self._http3}  # raises
        return _PooledClient(self._contexts, origin, **options)

    def _forget_unused(self) -> None:
        if len(self._clients) <= _MAX_ORIGINS:
            return
        for key, client in self._clients.items():
            if not client.connections.open_count:
                del self._clients[key]
                self._end(client)
                return

    def _end(self, client: Client) -> None:
        task = asyncio.get_running_loop().create_task(client.close())
        self._ending[task] = client
        task.add_done_callback(self._ending.pop)

    # ---- Connections that origins share (RFC 9113, 9.1.1) ----

    async def _find_shared(
        self, url: SplitURL, key: str, options: Any
    ) -> Client | None:
        """Return the client of another origin whose connection serves this one."""
        if url.scheme != "https" or key in self._alone:
            return None
        candidates = [
            (client, address)
            for client in self._clients.values()
            for address in self._find_addresses(client, url)
        ]
        if not candidates:
            return None
        loop = asyncio.get_running_loop()
        lookup = loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        seconds = self._find_bound(options)
        try:
            found = await wait_for(lookup, seconds)
        except asyncio.TimeoutError:
            raise ConnectTimeoutError(
                f"no address of {url.host} in {seconds} seconds"
            ) from None
        except OSError:
            return None  # connecting reports it
        own = {entry[4][:2] for entry in found}
        for client, address in candidates:
            if address in own and client.connections.open_count:
                self._stop_sharing(key)
                client.serve_origin(key)
                self._shared[key] = client
                if len(self._shared) > _MAX_ORIGINS:
                    self._stop_sharing(next(iter(self._shared)))
                return client
        return None

    def _find_bound(self, options: Any) -> float | None:
        """Return the seconds in which a request must know the addresses of its host."""
        timeout = options.get("timeout", -1)
        if timeout == -1:
            timeout = self._options["timeout"]
        else:
            check_seconds("timeout", timeout)
        timeouts = options.get("timeouts")
        if timeouts is not None:
            rule = "a RequestTimeouts or None"
            check_type("timeouts", timeouts, RequestTimeouts, rule)
            timeout = timeouts.connect
        bounds = [timeout, self._options["connect_timeout"]]
        return min((bound for bound in bounds if bound is not None), default=None)

    @staticmethod
    def _find_addresses(client: Client, url: SplitURL) -> Iterable[tuple[str, int]]:
        """Return the addresses of a client's connections whose certificate is valid for
        a URL's host."""
        for connection in client.connections.connections:
            get_extra_info = getattr(connection, "get_extra_info", None)
            if not connection.is_available or get_extra_info is None:
                continue
            certificate = get_extra_info("peercert")
            address = get_extra_info("peername")
            if address and _is_valid_for(certificate, url.host or ""):
                yield address[:2]

    def _separate(self, key: str) -> None:
        """Give an origin connections of its own, because the server wants that."""
        self._stop_sharing(key)
        self._alone.add(key)
        if len(self._alone) > _MAX_ORIGINS:
            self._alone.pop()

    def _stop_sharing(self, key: str) -> None:
        client = self._shared.pop(key, None)
        if client is not None:
            client.leave_origin(key)

    # ---- Idle connections ----

    @property
    def open_connections(self) -> dict[str, int]:
        """The number of open connections to each origin, those that are being made
        included."""
        counts = {k: c.connections.open_count for k, c in self._clients.items()}
        return {key: count for key, count in counts.items() if count}

    def close_idle(self) -> bool:
        """Close the connection without streams that was not used for the longest time;
        return whether there was one."""
        return any(client.connections.close_idle() for client in self._clients.values())

    def close_excess(self) -> None:
        """Close the connections without streams that are too many."""
        idle = sum(c.connections.idle_count for c in self._clients.values())
        for _ in range(idle - self._max_keepalive):
            self.close_idle()

    # ---- The end ----

    async def close(self, timeout: float | None = None) -> None:
        """Accept no more requests, and wait for the open streams to finish.

        What has not finished after ``timeout`` seconds is aborted; ``None`` means
        ``close_timeout``.
        """
        self._closed = True
        clients = list(self._clients.values())
        await asyncio.gather(*(client.close(timeout) for client in clients))
        if self._ending:
            await asyncio.wait(self._ending)

    def abort(self) -> None:
        """End all connections at once: open streams are reset."""
        self._closed = True
        for client in [*self._clients.values(), *self._ending.values()]:
            client.abort()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self._slots.used} connections, "
            f"{len(self._clients)} origins>"
        )


def _is_valid_for(certificate: Any, host: str) -> bool:
    """Return whether a certificate, as ``getpeercert`` has it, is valid for a host (RFC
    9525, 6)."""
    names = (certificate or {}).get("subjectAltName", ())
    try:
        address = ip_address(host)
    except ValueError:
        own = host.lower().rstrip(".")
        _, _, parent = own.partition(".")
        wanted = {own, f"*.{parent}"} if parent else {own}
        return any(kind == "DNS" and name.lower() in wanted for kind, name in names)
    return any(
        kind == "IP Address" and ip_address(name) == address for kind, name in names
    )
