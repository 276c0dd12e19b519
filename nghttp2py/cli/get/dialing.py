"""The way to a server: names, addresses, proxies and TLS, with the time of each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from nghttp2py.asyncio.racing import interleave, race
from nghttp2py.asyncio.url import SplitURL
from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import Peer
from nghttp2py.cli.get.verbose import Log
from nghttp2py.errors import ConnectTimeoutError, printable

__all__ = ["Dialer", "Proxy", "Routes", "parse_proxy"]


class _Made(Protocol):
    """A connection that was made."""

    def abort(self) -> None: ...


T = TypeVar("T", bound=_Made)

#: The port of a proxy whose URL has none, as curl has it.
_PROXY_PORT = 1080
# The most bytes of a proxy's response to CONNECT.
_MAX_PROXY_HEAD = 65536


class Proxy(NamedTuple):
    """A proxy of HTTP, and the value of ``proxy-authorization``."""

    host: str
    port: int
    authorization: bytes | None


def make_basic(user: str) -> bytes:
    """Return the value of an authorization field for ``user:password`` (RFC 7617)."""
    return b"Basic " + base64.b64encode(user.encode("utf-8", "surrogateescape"))


def parse_proxy(text: str, user: str | None = None) -> Proxy:
    """Parse the URL of a proxy.  Raises ``TransferError``."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _PROXY_PORT
    except ValueError:
        raise TransferError(
            Exit.NO_PROXY, f"{text!r} is not the URL of a proxy"
        ) from None
    if parts.scheme != "http":
        raise TransferError(
            Exit.NO_CONNECTION,
            f"{text!r}: proxies of {parts.scheme}:// are not supported",
        )
    if not parts.hostname:
        raise TransferError(Exit.NO_PROXY, f"{text!r} is not the URL of a proxy")
    if user is None and parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, port, None if user is None else make_basic(user))


@dataclass
class Routes:
    """The options about the way to a server."""

    #: Addresses by host and port; the host may be ``"*"``.
    resolve: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    #: Host and port, and those to connect to instead; "" and 0 stand for any.
    connect_to: list[tuple[str, int, str, int]] = field(default_factory=list)
    family: int = 0
    proxy: str | None = None
    proxy_user: str | None = None
    no_proxy: str | None = None
    #: Whether requests of ``http`` go through CONNECT, too.
    tunnel: bool = False
    unix: str | None = None
    connect_timeout: float | None = None

    def find_proxy(self, url: SplitURL) -> Proxy | None:
        """Return the proxy for a URL, from the options or the environment."""
        text = self.proxy
        if text is None:
            # HTTP_PROXY in capitals is a header field of a CGI program's client.
            names = [f"{url.scheme}_proxy"]
            if url.scheme == "https":
                names.append("HTTPS_PROXY")
            for name in [*names, "all_proxy", "ALL_PROXY"]:
                text = os.environ.get(name)
                if text:
                    break
        if not text or self.unix is not None or self._is_excluded(url.host or ""):
            return None
        return parse_proxy(text, self.proxy_user)

    def _is_excluded(self, host: str) -> bool:
        names = self.no_proxy
        if names is None:
            names = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        host = host.lower().rstrip(".")
        for name in names.replace(",", " ").split():
            name = name.lower().strip(".").strip("[]")
            if name == "*" or host == name or host.endswith(f".{name}"):
                return True
        return False

    def redirect(self, host: str, port: int) -> tuple[str, int]:
        """Return the host and port to connect to (``--connect-to``)."""
        for from_host, from_port, to_host, to_port in self.connect_to:
            if from_host in ("", host.lower()) and from_port in (0, port):
                return to_host or host, to_port or port
        return host, port


class Dialer:
    """Makes connections, and notes when each step was done."""

    def __init__(self, routes: Routes, log: Log) -> None:
        self.routes = routes
        self._log = log
        self._count = 0

    def begin(self) -> Peer:
        """Begin a connection."""
        peer = Peer(start=time.perf_counter(), number=self._count)
        self._count += 1
        return peer

    async def within(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Wait for a connection within the time for it.

        If this raises or is cancelled, what was made meanwhile is aborted.
        """
        timeout = self.routes.connect_timeout
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task], timeout=timeout)
            if not task.done():
                raise ConnectTimeoutError(
                    f"no connection to {what} in {timeout:g} seconds"
                )
        except BaseException:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                task.result().abort()
            raise
        return task.result()

    async def look_up(
        self, host: str, port: int, peer: Peer, kind: int = socket.SOCK_STREAM
    ) -> list[tuple[Any, ...]]:
        """Return the addresses of a host, in the order in which they are tried."""
        loop = asyncio.get_running_loop()
        given = self.routes.resolve
        names = given.get((host.lower(), port)) or given.get(("*", port))
        found: list[tuple[Any, ...]] = []
        for name in names or [host]:
            found += await loop.getaddrinfo(
                name, port, type=kind, family=self.routes.family
            )
        peer.looked_up = time.perf_counter()
        return interleave(found)

    async def connect(self, url: SplitURL, peer: Peer) -> tuple[socket.socket, bool]:
        """Connect to a URL's server, by way of its proxy.

        Return the socket, and whether requests must name the whole URL, because the
        other end is the proxy.
        """
        assert url.host is not None and url.port is not None
        proxy = self.routes.find_proxy(url)
        if self.routes.unix is not None:
            sock = await self._connect_unix(self.routes.unix, peer)
        elif proxy is None:
            host, port = self.routes.redirect(url.host, url.port)
            sock = await self._connect_tcp(host, port, peer)
        else:
            try:
                sock = await self._connect_tcp(proxy.host, proxy.port, peer)
            except socket.gaierror as error:
                raise TransferError(
                    Exit.NO_PROXY,
                    f"there is no host {proxy.host!r} of the proxy: {error.strerror}",
                ) from None
            except ConnectionRefusedError:
                raise TransferError(
                    Exit.NO_CONNECTION,
                    f"the proxy {proxy.host}:{proxy.port} refuses connections",
                ) from None
            if url.scheme == "https" or self.routes.tunnel:
                try:
                    await self._open_tunnel(sock, url, proxy, peer)
                except BaseException:
                    sock.close()
                    raise
                proxy = None
        peer.connected = time.perf_counter()
        return sock, proxy is not None

    async def _connect_unix(self, path: str, peer: Peer) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        peer.looked_up = time.perf_counter()
        self._log.note(f"Connected to {path}")
        return sock

    async def _connect_tcp(self, host: str, port: int, peer: Peer) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await self.look_up(host, port, peer)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "it has no address")

        async def attempt(entry: tuple[Any, ...]) -> socket.socket:
            sock = socket.socket(*entry[:3])
            try:
                sock.setblocking(False)
                self._log.note(f"  Trying {_join(entry[4])}...")
                await loop.sock_connect(sock, entry[4])
            except BaseException:
                sock.close()
                raise
            return sock

        sock = await race(attempt, found, socket.socket.close)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.remote = sock.getpeername()[:2]
        peer.local = sock.getsockname()[:2]
        self._log.note(
            f"Connected to {host} ({peer.remote[0]}) port {port} (#{peer.number})"
        )
        return sock

    async def _open_tunnel(
        self, sock: socket.socket, url: SplitURL, proxy: Proxy, peer: Peer
    ) -> None:
        """Have a proxy connect to the server (RFC 9110, 9.3.6)."""
        loop = asyncio.get_running_loop()
        host, port = self.routes.redirect(url.host or "", url.port or 0)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields = [(b"Host", target.encode())]
        if proxy.authorization is not None:
            fields.append((b"Proxy-Authorization", proxy.authorization))
        self._log.request(f"CONNECT {target} HTTP/1.1", fields)
        head = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        await loop.sock_sendall(
            sock, b"CONNECT %b HTTP/1.1\r\n%b\r\n" % (target.encode(), head)
        )
        received = b""
        while b"\r\n\r\n" not in received:
            data = await loop.sock_recv(sock, 4096)
            received += data
            if not data or len(received) > _MAX_PROXY_HEAD:
                raise TransferError(
                    Exit.RECEIVE, "the proxy has not answered CONNECT with HTTP/1.1"
                )
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        self._log.response(
            printable(line),
            [
                (name, value.strip())
                for name, _, value in (x.partition(b":") for x in lines)
            ],
        )
        parts = line.split(None, 2)
        if (
            len(parts) < 2
            or not parts[0].startswith(b"HTTP/1.")
            or not parts[1].isdigit()
        ):
            raise TransferError(
                Exit.RECEIVE, "the proxy has not answered CONNECT with HTTP/1.1"
            )
        peer.proxy_status = int(parts[1])
        if not 200 <= peer.proxy_status < 300:
            raise TransferError(
                Exit.RECEIVE,
                f"the proxy answered CONNECT with {peer.proxy_status}",
            )
        if rest:
            raise TransferError(
                Exit.RECEIVE, "the proxy has sent data before the connection was used"
            )

    async def start(
        self,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext | None,
        server_name: str,
        peer: Peer,
    ) -> asyncio.Transport:
        """Give a socket to a protocol, with TLS if there is a context for it."""
        loop = asyncio.get_running_loop()
        try:
            connect: Any = loop.create_connection
            if context is None:
                transport, _ = await connect(factory, sock=sock)
            else:
                transport, _ = await connect(
                    factory, sock=sock, ssl=context, server_hostname=server_name
                )
        except ConnectionError as error:
            sock.close()
            raise TransferError(
                Exit.TLS, f"no TLS connection to {server_name}: {error}"
            ) from None
        except BaseException:
            sock.close()
            raise
        if context is not None:
            peer.secured = time.perf_counter()
            self._log_tls(transport.get_extra_info("ssl_object"))
        made: asyncio.Transport = transport
        return made

    def _log_tls(self, tls: ssl.SSLObject) -> None:
        cipher = tls.cipher()
        self._log.note(f"SSL connection using {tls.version()} / {cipher and cipher[0]}")
        alpn = tls.selected_alpn_protocol()
        if alpn is None:
            self._log.note("ALPN: server did not agree on a protocol")
        else:
            self._log.note(f"ALPN: server accepted {alpn}")
        certificate: Any = tls.getpeercert() or {}
        for name in ("subject", "issuer"):
            text = "; ".join(
                f"{key}={value}"
                for part in certificate.get(name, ())
                for key, value in part
            )
            if text:
                self._log.note(f" {name}: {text}")
        if "notAfter" in certificate:
            self._log.note(f" expire date: {certificate['notAfter']}")


def _join(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
