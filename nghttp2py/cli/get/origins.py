"""The connections of ``get``: one to each origin, of the version that both ends speak.

Over HTTP/2 and HTTP/3 a ``Client`` sends the requests.  It gets its connections from
here, because the options bend the way to the server, and because a connection of TLS
may turn out to be one of HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl as ssl_module
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from socket import SOCK_DGRAM
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from nghttp2py.asyncio import Client, H2Protocol, Response
from nghttp2py.asyncio.h2_client import DEFAULT_CONFIGURATION
from nghttp2py.asyncio.racing import race
from nghttp2py.asyncio.service_record import ServiceRecord
from nghttp2py.asyncio.tls import prepare_context
from nghttp2py.asyncio.url import SplitURL, split_url
from nghttp2py.cli.frames import FramePrinter, LinePrinter
from nghttp2py.cli.get.dialing import Dialer
from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import (
    Answer,
    FieldList,
    Peer,
    Record,
    Request,
    find_field,
)
from nghttp2py.cli.get.verbose import Log
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ConnectTimeoutError,
    ErrorCode,
    HTTPVersionError,
    NGHTTP2Error,
)
from nghttp2py.h2 import H2Connection, H2Event, H2SettingsReceived

if TYPE_CHECKING:
    from nghttp2py.cli.get import http1

__all__ = ["TLS", "Origins", "Versions"]

# The head start in seconds of HTTP/3 is Client's.
_RECORD = ServiceRecord(1, "", ("h3", "h2"))


# Fields of HTTP/1.1 only (RFC 9113, 8.2.2, 8.3.1).
_OF_HTTP1 = frozenset(
    {
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)


# From HTTP/1.1 to HTTP/2, and back if the server does not speak that either.
_MOST_CHANGES = 2


class TLS(NamedTuple):
    """The options about certificates."""

    insecure: bool
    cacert: Path | None
    cert: Path | None
    key: Path | None


@dataclass
class Versions:
    """Which versions of HTTP are allowed; ``http2_first`` is about http:// only."""

    http1: bool = True
    http2: bool = True
    http2_first: bool = False
    #: HTTP/3 is tried first if it is true, and is the only one if it is "only".
    http3: Any = False


class _WatchedConnection(H2Connection):
    """Passes bytes on, and shows them to a printer."""

    printer: FramePrinter

    def receive_data(self, data: Any) -> list[H2Event]:
        self.printer.received(data)
        return super().receive_data(data)

    def data_to_send(self, limit: int | None = None) -> bytes:
        data = super().data_to_send(limit)
        self.printer.sent(data)
        return data

    def data_to_send_vectored(self, limit: int | None = None) -> list[Any]:
        pieces = super().data_to_send_vectored(limit)
        for piece in pieces:
            self.printer.sent(bytes(piece))
        return pieces


class _Protocol(H2Protocol):
    """Notes whether the server has sent HTTP/2 at all."""

    heard = False

    def __init__(self, *, printer: FramePrinter | None, **options: Any) -> None:
        if printer is not None:
            self.connection_class = _WatchedConnection
        super().__init__(True, **options)
        if isinstance(self.connection, _WatchedConnection):
            assert printer is not None
            self.connection.printer = printer

    def event_received(self, event: H2Event) -> None:
        if isinstance(event, H2SettingsReceived):
            self.heard = True
        super().event_received(event)


class _Chooser(asyncio.Protocol):
    """Gives a new transport to the protocol of the version that both ends speak."""

    chosen: Any = None

    def __init__(self, choose: Callable[[asyncio.Transport], Any]) -> None:
        self._choose = choose

    def connection_made(self, transport: Any) -> None:
        self.chosen, protocol = self._choose(transport)
        if self.chosen is not protocol:
            self.chosen.start(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Client(Client):
    """A client that gets its connections from an ``Origin``."""

    def __init__(self, origin: Origin, *arguments: Any, **options: Any) -> None:
        self._origin = origin
        super().__init__(*arguments, **options)

    def _use_connectors(self, http2: Any, http3: Any) -> tuple[Any, Any]:
        return (
            None if http2 is None else _HTTP2Connector(self._origin),
            None if http3 is None else _HTTP3Connector(self._origin),
        )


class _HTTP2Connector:
    alternatives: Any = None

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def connect(self, host: str | None = None, port: int | None = None) -> Any:
        return await self._origin.connect_http2()

    @staticmethod
    def close(connection: H2Protocol, timeout: float | None) -> None:
        connection.close(timeout)


class _HTTP3Connector:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._connector = origin.make_http3_connector()
        self.close = self._connector.close

    async def connect(self, host: str | None = None, port: int | None = None) -> Any:
        return await self._origin.connect_http3(self._connector)


class Origin:
    """The connections to one origin."""

    def __init__(self, origins: Origins, url: SplitURL) -> None:
        self._all = origins
        self._url = url
        self._where = url.authority or ""
        versions = origins.versions
        #: Whether requests are sent over HTTP/1.1, as far as is known.
        self._uses_http1 = versions.http1 and (
            not versions.http2
            or (url.scheme == "http" and not versions.http2_first)
            or (url.scheme == "http" and self._needs_proxy_form)
        )
        #: How often it may turn out that the other version is to be tried.
        self._changes = _MOST_CHANGES if versions.http1 and versions.http2 else 0
        if url.scheme == "https" and versions.http3 != "only":
            _ = origins.context  # reading the authorities takes a while
        self._client: Client | None = None
        self._free: list[http1.Connection] = []
        self._used: set[http1.Connection] = set()
        self._room = asyncio.Semaphore(origins.limit)
        self._peers: dict[Any, Peer] = {}
        self._latest: Peer | None = None  # of the last attempt to connect
        self._absolute = False
        self._heard = False
        self._http3_error: Exception | None = None

    @property
    def _needs_proxy_form(self) -> bool:
        routes = self._all.dialer.routes
        return routes.find_proxy(self._url) is not None and not routes.tunnel

    @property
    def _proxy_fields(self) -> FieldList:
        proxy = self._all.dialer.routes.find_proxy(self._url)
        if proxy is None or proxy.authorization is None:
            return []
        return [(b"Proxy-Authorization", proxy.authorization)]

    async def send(self, request: Request, record: Record) -> Answer:
        """Send a request, and wait until its response begins."""
        while True:
            record.peer = None
            uses_http1 = self._uses_http1
            try:
                if not uses_http1:
                    return await self._send_by_client(request, record)
                answer: Answer = await self._send_http1(request, record)
                if answer.status != 505 or not self._may_speak_http2(request):
                    return answer
                # RFC 9110, 15.6.6: another major version may be spoken.
                await answer.close()
                raise HTTPVersionError(ErrorCode.HTTP_1_1_REQUIRED, negotiated=None)
            except HTTPVersionError:
                record.peer = record.peer or self._latest
                if not request.can_repeat:
                    raise
                if self._uses_http1 == uses_http1:  # no other request has seen it
                    if not self._changes:
                        raise
                    self._changes -= 1
                    self._uses_http1 = not uses_http1
            except (NGHTTP2Error, OSError):
                record.peer = record.peer or self._latest
                raise

    def _may_speak_http2(self, request: Request) -> bool:
        """Return whether a server that has refused HTTP/1.1 may speak HTTP/2."""
        return (
            self._url.scheme == "http"
            and self._changes == _MOST_CHANGES
            and request.can_repeat
        )

    # ---- HTTP/1.1 ----

    async def _send_http1(self, request: Request, record: Record) -> Answer:
        await self._room.acquire()
        try:
            return await self._send_http1_now(request, record)
        except BaseException:
            self._room.release()
            raise

    async def _send_http1_now(self, request: Request, record: Record) -> Answer:
        while True:
            connection, absolute = await self._find_http1()
            record.is_first = not connection.peer.is_used
            record.peer = connection.peer
            connection.peer.is_used = True
            target = split_url(request.url).target
            if absolute:
                target = f"http://{self._where}{target}"
            try:
                self._all.log_request(request, target, "HTTP/1.1")
                answer = await connection.send(
                    request, target.encode(), self._proxy_fields if absolute else []
                )
            except BaseException as error:
                self._drop(connection)
                if (
                    isinstance(error, TransferError)
                    and not record.is_first
                    and not connection.heard
                    and request.can_repeat
                ):
                    continue  # the server has closed an idle connection
                raise
            record.sent = connection.sent
            return _HTTP1Answer(answer, self, connection)

    async def _find_http1(self) -> tuple[http1.Connection, bool]:
        while self._free:
            connection = self._free.pop()
            if connection.is_usable:
                self._all.log.note(f"Re-using existing connection to {self._where}")
                return connection, self._absolute
            connection.abort()
        peer = self._latest = self._all.dialer.begin()
        found = await self._all.dialer.within(self._open(peer, False), self._where)
        self._used.add(found)
        return found, self._absolute

    def _drop(self, connection: http1.Connection) -> None:
        self._used.discard(connection)
        connection.abort()

    def give_back(self, connection: http1.Connection) -> None:
        """Keep the connection of a response that was read for the next request."""
        self._room.release()
        self._used.discard(connection)
        if connection.is_usable:
            self._free.append(connection)
        else:
            connection.abort()

    # ---- All ----

    async def _open(self, peer: Peer, http2: bool) -> Any:
        """Connect over TCP; return the connection of the version that is spoken."""
        origins = self._all
        sock, self._absolute = await origins.dialer.connect(self._url, peer)
        context = None
        if self._url.scheme == "https":
            context = origins.context

        def choose(transport: asyncio.Transport) -> tuple[Any, Any]:
            tls = transport.get_extra_info("ssl_object")
            is_http2 = http2 if tls is None else tls.selected_alpn_protocol() == "h2"
            if is_http2 or not origins.versions.http1:
                protocol = _Protocol(
                    printer=origins.make_printer(),
                    config=DEFAULT_CONFIGURATION,
                    header_encoding=None,
                )
                return protocol, protocol
            connection = origins.make_http1(peer)
            return connection, connection.protocol

        chooser = _Chooser(choose)
        name = (self._url.host or "").partition("%")[0]
        await origins.dialer.start(sock, lambda: chooser, context, name, peer)
        return chooser.chosen

    # ---- HTTP/2 and HTTP/3 ----

    async def connect_http2(self) -> Any:
        """Make a connection for the client.

        Raises ``HTTPVersionError`` if the server speaks HTTP/1.1: the connection is
        kept.
        """
        peer = self._latest = self._all.dialer.begin()
        found = await self._all.dialer.within(self._open(peer, True), self._where)
        if not isinstance(found, _Protocol):
            self._free.append(found)
            raise HTTPVersionError(
                ErrorCode.HTTP_1_1_REQUIRED, negotiated="http/1.1", reason="HTTP/1.1"
            )
        fault = found.tls_fault
        if fault is not None:
            # A server may be slow to answer the end of TLS, or never do it.
            found.abort()
            await found.wait_closed()
            raise HTTPVersionError(
                fault.error_code,
                negotiated=fault.negotiated,
                reason=f"{self._where} does not speak HTTP/2: {fault.reason}",
            )
        self._peers[found] = peer
        return found

    async def connect_http3(self, connector: Any) -> Any:
        """Make a connection for the client, over QUIC."""
        dialer = self._all.dialer
        peer = self._latest = dialer.begin()
        host, port = dialer.routes.redirect(self._url.host or "", self._url.port or 0)

        async def attempt(entry: tuple[Any, ...]) -> Any:
            address = str(entry[4][0])
            self._all.log.note(f"  Trying {address}, port {entry[4][1]} of UDP...")
            if entry[4][3:] and entry[4][3]:  # an address of one link
                address = f"{address}%{entry[4][3]}"
            return await connector.connect(address, entry[4][1])

        try:
            found = await dialer.look_up(host, port, peer, SOCK_DGRAM)
            protocol = await race(attempt, found, lambda made: made.close())
        except (OSError, NGHTTP2Error) as error:
            self._http3_error = error
            raise
        peer.connected = peer.secured = time.perf_counter()
        self._all.log.note(f"Connected to {host} port {port} of UDP (#{peer.number})")
        self._peers[protocol] = peer
        return protocol

    async def _send_by_client(self, request: Request, record: Record) -> Answer:
        if self._client is None:
            self._client = self._make_client()
        target = path = split_url(request.url).target
        host = find_field(request.fields, b"host")
        if host is not None and host.decode() != self._where:
            # RFC 9113, 8.3.1: :authority stands for the field that was given.
            authority = f"{self._url.scheme}://{host.decode()}"
            self._client.serve_origin(authority)
            path = authority + target

        def trace(name: str, about: dict[str, Any]) -> None:
            if name == "send_request_headers.started":
                connection = about["connection"]
                peer = record.peer = self._peers[connection]
                record.is_first = not peer.is_used
                peer.is_used = True
                number = 2 if isinstance(connection, _Protocol) else 3
                self._all.log_request(request, target, f"HTTP/{number}")

        with contextlib.ExitStack() as stack:
            body = request.body
            if isinstance(body, Path):
                body = stack.enter_context(body.open("rb"))
            try:
                response = await self._client.request(
                    request.method,
                    path,
                    headers=_without_connection(request.fields),
                    body=body,
                    trace=trace,
                )
            except (NGHTTP2Error, OSError) as error:
                self._heard = any(
                    isinstance(c, _Protocol) and c.heard for c in self._peers
                )
                raise self._explain(error) from None
            peer = record.peer
            assert peer is not None
            answered = _ClientAnswer(response, peer, stack.pop_all())
            if not peer.remote[0] and answered.version == "3":
                peer.remote = response.get_extra_info("peername")[:2]
                peer.local = response.get_extra_info("sockname")[:2]
            if isinstance(body, bytes):
                record.sent = len(body)
            return answered

    def _explain(self, error: Exception) -> Exception:
        """Return the error that says most about the reason."""
        if self._all.versions.http3 and not self._peers:
            # HTTP/3 was asked for, and so it is what its failure was that matters.
            if isinstance(error, TimeoutError):
                return ConnectTimeoutError(
                    f"{self._where} does not answer over UDP, which HTTP/3 needs, in "
                    f"{self._all.http3_timeout:g} seconds"
                )
            if not isinstance(error, HTTPVersionError):
                return self._http3_error or error
        if (
            isinstance(error, ConnectionTerminatedError)
            and not isinstance(error, HTTPVersionError)
            and self._peers
            and not self._heard
            and not self._all.versions.http3
        ):
            return HTTPVersionError(
                error.error_code,
                negotiated=None,
                reason=f"{self._where} does not speak HTTP/2, or not without TLS "
                f"({error})",
            )
        return error

    def _make_client(self) -> Client:
        origins = self._all
        secure = self._url.scheme == "https"
        http3 = origins.versions.http3 if secure else False
        options: dict[str, Any] = {"http3": http3}
        if secure and http3 != "only":
            options["ssl"] = origins.context
        if http3:
            options["quic"] = origins.configuration
        if not secure and self._changes:
            # A server that does not speak HTTP/2 ends the connection: once is enough.
            options["retries"] = 0
        if http3 is True:
            # The origin is taken to offer HTTP/3, and to be asked over it first.
            options["https_records"] = [_RECORD]
        return _Client(
            self,
            f"{self._url.scheme}://{self._where}",
            timeout=origins.timeout,
            connect_timeout=None,
            **options,
        )

    def make_http3_connector(self) -> Any:
        """Make what connects over QUIC."""
        from nghttp2py.asyncio.h3_client import HTTP3Connector
        from nghttp2py.cli import http3_client

        origins = self._all
        return HTTP3Connector(
            self._url,
            None,
            None,
            quic=origins.configuration,
            ssl=None,
            connect_timeout=origins.http3_timeout,
            timeout=origins.timeout,
            cls=functools.partial(
                http3_client.Protocol, printer=origins.make_line_printer()
            ),
            has_fallback=origins.versions.http3 is True,
        )

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._used:
            connection.abort()
        if self._client is not None:
            # Its last attempt to connect may leave a connection of HTTP/1.1.
            await self._client.close()
        await asyncio.gather(*(connection.close() for connection in self._free))

    def abort(self) -> None:
        """End all connections at once."""
        for connection in [*self._used, *self._free]:
            connection.abort()
        if self._client is not None:
            self._client.abort()


class _ClientAnswer:
    """A response of a ``Client``."""

    reason = ""

    def __init__(
        self, response: Response, peer: Peer, stack: contextlib.ExitStack
    ) -> None:
        self._response = response
        self._stack = stack  # the file that is uploaded
        self.peer = peer
        self.version = response.http_version.removeprefix("HTTP/")
        self.status = response.status
        self.fields: FieldList = list(response.headers.pairs)
        self.informational: list[tuple[int, str, FieldList]] = [
            (status, "", list(fields.pairs))
            for status, fields in response.informational
        ]

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        return aiter(self._response)

    async def trailers(self) -> FieldList:
        """Return the trailer fields, once the body was read."""
        return list((await self._response.trailers()).pairs)

    async def close(self) -> None:
        """Discard what was not read."""
        self._response.close()
        self._stack.close()


class _HTTP1Answer:
    """A response of HTTP/1.1, which holds its connection."""

    def __init__(
        self, answer: http1.Answer, origin: Origin, connection: http1.Connection
    ) -> None:
        self._answer = answer
        self._origin = origin
        self._connection: http1.Connection | None = connection
        self.peer = answer.peer
        self.version = answer.version
        self.status = answer.status
        self.reason = answer.reason
        self.fields = answer.fields
        self.informational = answer.informational

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        return self._answer.pieces()

    async def trailers(self) -> FieldList:
        """Return the trailer fields, once the body was read."""
        return await self._answer.trailers()

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self._answer.close()
            finally:
                self._origin.give_back(connection)


class Origins:
    """The connections to all origins.

    ``limit`` is the number of connections of HTTP/1.1 to one of them.  ``timeout``
    bounds the wait for a response, and for each piece of its body, in seconds.
    """

    def __init__(
        self,
        dialer: Dialer,
        versions: Versions,
        tls: TLS,
        log: Log,
        *,
        timeout: float,
        limit: int,
        console: Console | None,
    ) -> None:
        self.dialer = dialer
        self.versions = versions
        self.log = log
        self.timeout = timeout
        self.limit = limit
        self._tls = tls
        self._console = console
        self._origins: dict[str, Origin] = {}
        self.http3_timeout = timeout
        self.configuration: Any = None
        self._http1: Any = None
        if versions.http1:
            self._prepare_http1()
        if versions.http3:
            self._prepare_http3()

    async def send(self, request: Request, record: Record) -> Answer:
        """Send a request, and wait until its response begins.

        Raises what ``explain`` explains.
        """
        return await self.prepare(request.url).send(request, record)

    def prepare(self, text: str) -> Origin:
        """Return the origin of a URL, made before the time of a request begins."""
        url = split_url(text)
        key = f"{url.scheme}://{url.authority}"
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(self, url)
        return origin

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(origin.close() for origin in self._origins.values()))
        # Transports that were aborted close their sockets in the next turns.
        for _ in range(2):
            await asyncio.sleep(0)

    def abort(self) -> None:
        """End all connections at once."""
        for origin in self._origins.values():
            origin.abort()

    # ---- What connections are made with ----

    @functools.cached_property
    def context(self) -> ssl_module.SSLContext:
        """The context of TLS over TCP."""
        context = make_context(self._tls)
        if not self.versions.http2:
            context.set_alpn_protocols(["http/1.1"])
        elif self.versions.http1:
            prepare_context(context, "http/1.1")
        else:
            prepare_context(context)
        return context

    def _prepare_http1(self) -> None:
        try:
            from nghttp2py.cli.get.http1 import Connection
        except ImportError as error:
            raise TransferError(Exit.NOT_BUILT_IN, f"HTTP/1.1: {error}") from None
        self._http1 = Connection

    def _prepare_http3(self) -> None:
        try:
            from nghttp2py.cli import http3_client
        except ImportError as error:
            raise TransferError(Exit.NOT_BUILT_IN, str(error)) from None
        make_context(self._tls)  # says more about files that are none of PEM
        limits = [http3_client.HANDSHAKE_TIMEOUT, self.timeout]
        if self.dialer.routes.connect_timeout is not None:
            limits.append(self.dialer.routes.connect_timeout)
        self.http3_timeout = min(limits)
        try:
            self.configuration = http3_client.make_configuration(
                *self._tls, timeout=self.timeout, printer=self.make_line_printer()
            )
        except (OSError, ValueError) as error:
            raise TransferError(Exit.AUTHORITIES, str(error)) from None

    def make_printer(self) -> FramePrinter | None:
        """Make what prints the frames of a connection of HTTP/2, if that is wanted."""
        return None if self._console is None else FramePrinter(self._console)

    def make_line_printer(self) -> LinePrinter | None:
        """Make what prints the frames of a connection of HTTP/3, if that is wanted."""
        return None if self._console is None else LinePrinter(self._console)

    def make_http1(self, peer: Peer) -> http1.Connection:
        """Make a connection of HTTP/1.1."""
        made: http1.Connection = self._http1(peer, self.timeout)
        return made

    def log_request(self, request: Request, target: str, version: str) -> None:
        """Show the head of a request that is about to be sent."""
        self.log.request(f"{request.method} {target} {version}", request.fields)


def make_context(tls: TLS) -> ssl_module.SSLContext:
    """Make a client's context of TLS.  Raises ``TransferError``."""
    option, exit = f"--cacert {tls.cacert}", Exit.AUTHORITIES
    try:
        context = ssl_module.create_default_context(
            cafile=None if tls.cacert is None else str(tls.cacert)
        )
        if tls.cert is not None:
            option, exit = f"--cert {tls.cert}", Exit.OWN_CERTIFICATE
            if tls.key is not None:
                option = f"{option} and --key {tls.key}"
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TransferError(
            exit, f"{option}: a certificate cannot be read: {reason}"
        ) from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl_module.CERT_NONE
    return context


def _without_connection(fields: FieldList) -> FieldList:
    """Return the fields that HTTP/2 and HTTP/3 have, too (RFC 9113, 8.2.2)."""
    return [field for field in fields if field[0].lower() not in _OF_HTTP1]
