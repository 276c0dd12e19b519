"""A client for programs with coroutines.

A ``Client`` is for one origin, a ``Pool`` of ``nghttp2py.asyncio.pool`` for several.
They have no cookies, redirects or caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import ssl as ssl_module
from abc import abstractmethod
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

from nghttp2py.arguments import (
    check_bool,
    check_callable,
    check_int,
    check_seconds,
    check_type,
    describe,
)
from nghttp2py.asyncio.alternatives import AlternativeServices
from nghttp2py.asyncio.connection import LOST
from nghttp2py.asyncio.content_coding import get_accepted
from nghttp2py.asyncio.deadlines import Deadlines
from nghttp2py.asyncio.fields import Fields, add_field
from nghttp2py.asyncio.h2_client import HTTP2Connector
from nghttp2py.asyncio.origin import Connection, Connector, OriginConnections
from nghttp2py.asyncio.request_body import NO_BODY, RequestBody
from nghttp2py.asyncio.request_watch import RequestWatch
from nghttp2py.asyncio.response import Response
from nghttp2py.asyncio.service_record import ServiceRecord
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.time_limits import RequestTimeouts, TimeLimit
from nghttp2py.asyncio.url import SplitURL, split_url
from nghttp2py.asyncio.writer import HeadersLike, to_pairs
from nghttp2py.errors import (
    ConfigurationError,
    ConnectionTerminatedError,
    StreamResetError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.config import check_config
from nghttp2py.hpack import NeverIndexed

if TYPE_CHECKING:
    from typing_extensions import Unpack

    # aioquic has it at this path; QUIC is imported when it is asked for.
    from nghttp2py.asyncio.client_options import (
        BodyOptions,
        ConnectionOptions,
        Params,
        RequestOptions,
        Trace,
    )
    from nghttp2py.asyncio.quic import connect as connect
    from nghttp2py.quic import QuicConfiguration

__all__ = ["Client", "Fields", "Response"]

Answer = Coroutine[Any, Any, Response]

#: Seconds that connecting may take, TLS included.
CONNECT_TIMEOUT = 30.0
#: Seconds in which a response must begin, and each piece of it must arrive.
TIMEOUT = 60.0
#: How often a request that the server has not processed is sent again.
RETRIES = 3

# The delay before a request is sent again on a connection that has refused it, in
# seconds; it doubles each time.
_BACKOFF = 0.02
# How many header sections are kept, for requests that are sent again and again.
_MAX_KNOWN_FIELDS = 256
# How many different timeouts get a shared timer each.
_MAX_DEADLINES = 32
# RFC 9110, 10.1.1.
_EXPECT = (b"expect", b"100-continue")
# 417: RFC 9110, 10.1.1; 421: RFC 7838, 6.
_TO_REPEAT = frozenset({417, 421})
# The codes without a reason of HTTP/2 and HTTP/3 (RFC 9113, 7; RFC 9114, 8.1).
_NO_ERRORS = frozenset({0x0, 0x100})
# Methods that may be sent twice (RFC 9110, 9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class _Tunnel(RequestBody):
    """The open half of a CONNECT tunnel, which the caller uses."""

    def __init__(self) -> None:
        super().__init__(b"")
        self.length = None

    def send(self, stream: Stream, trailers: HeadersLike | None) -> None:
        """Leave the stream open."""


class _Try(NamedTuple):
    """What came of a request that was sent, when its response was due."""

    connection: Connection
    due: float | None
    response: Response | None
    error: StreamResetError | ConnectionTerminatedError | None


C = TypeVar("C", bound="Closing")


class Closing:
    """An ``async with`` block at whose end ``close`` waits for what is open.

    If the block raises, ``abort`` ends that before.
    """

    @abstractmethod
    async def close(self, timeout: float | None = None) -> None:
        """Accept no more requests, and wait for the open streams to finish."""

    @abstractmethod
    def abort(self) -> None:
        """End the connections at once."""

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, *exc_info: object
    ) -> None:
        if exc_type is not None:
            self.abort()
        await self.close()


class Client(Closing):
    """Sends requests to one origin, ``http://host[:port]`` or ``https://...``.

    All requests share one connection, made when the first needs it, and made
    again when the server has ended it (GOAWAY) or it was lost.  A request that
    the server declares not to have processed (RFC 9113, 8.7, RFC 9114, 4.1.1)
    is sent again, up to ``retries`` times, if its body can be: bytes, a seekable
    file, or something that was not read from yet.  A safe one (RFC 9110, 9.2.1)
    on a connection that was used before, and that the server closes without an error,
    is sent again once.  Others raise, as it is not known what the server did with them.
    Up to ``connections`` are made, if all streams that the server allows on the others
    are in use.

    ``ssl`` is an ``ssl.SSLContext``, or ``None`` for the default one; for
    ``http`` the server must expect HTTP/2 in the clear (RFC 9113, 3.3).
    ``path`` is that of a Unix socket to connect to instead of the host.
    ``headers`` go with every request.  ``config`` holds settings and limits
    of HTTP/2.

    With ``http3="only"`` all goes over HTTP/3.  With ``http3=True`` it is used when the
    origin offers it by Alt-Svc (RFC 7838) or one of ``https_records`` does (RFC 9460),
    and the first 0.3 seconds of connecting are HTTP/3's; HTTP/2 is used otherwise, and
    when UDP does not pass.  Then a safe request (RFC 9110, 9.2.1) whose connection of
    HTTP/3 has died is sent again.  ``alternatives`` remembers what origins offer;
    clients can share one.  QUIC trusts the authorities that ``ssl`` has loaded, or
    those of certifi or the system; ``quic``, or ``http3`` itself, may be a
    ``QuicConfiguration``, which says whom to trust.

    Times are in seconds, ``None`` is no limit: ``connect_timeout`` for a
    connection to be made; ``timeout`` for a response to begin, connecting and
    repeating included, and then for each next piece of its body;
    ``idle_timeout`` for a connection without streams.  ``options`` go to
    ``open_connection``; HTTP/3 has ``cls``, which makes an ``H3Protocol``,
    ``server_hostname``, ``timeouts``, and what replaces a field of that.  With
    ``http3=True`` ``cls`` is HTTP/2's.

    With ``decompress`` responses may be compressed, and their bodies are decoded.

    Use it as ``async with Client(...) as client``; leaving waits for the open streams,
    which other tasks may be reading.  A response that is not read or closed, and whose
    rest is larger than its window, is aborted after ``close_timeout``, one of
    ``options``.

    Raises ``TypeError`` and ``ValueError``, of which ``ConfigurationError`` and
    ``TLSConfigurationError`` are kinds, for what cannot be used.
    """

    def __init__(
        self,
        origin: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
        http3: bool | Literal["only"] | QuicConfiguration = False,
        quic: QuicConfiguration | None = None,
        path: str | None = None,
        headers: HeadersLike = (),
        config: H2Configuration | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        timeout: float | None = TIMEOUT,
        idle_timeout: float | None = None,
        retries: int = RETRIES,
        connections: int = 1,
        alternatives: AlternativeServices | None = None,
        https_records: Iterable[ServiceRecord] = (),
        decompress: bool = False,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        url = split_url(origin)
        if url.scheme is None or url.target != "/":
            raise ValueError(
                f"{origin!r} is not an origin such as 'https://example.org'"
            )
        quic = _check_http3(http3, quic)
        only = http3 is not True and http3 is not False
        if url.scheme == "https":
            if ssl is not None:
                check_type("ssl", ssl, ssl_module.SSLContext, "an ssl.SSLContext")
        elif ssl is not None:
            raise ValueError(f"ssl must be None for {origin!r}, not {describe(ssl)}")
        if path is not None:
            check_type("path", path, str, "a str or None")
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("timeout", timeout)
        check_seconds("idle_timeout", idle_timeout)
        check_int("retries", retries, 0)
        check_int("connections", connections, 1)
        check_bool("decompress", decompress)
        check_config(config)
        if alternatives is not None:
            rule = "an AlternativeServices or None"
            check_type("alternatives", alternatives, AlternativeServices, rule)
        https_records = _check_records(https_records)
        self._pseudo: tuple[tuple[bytes, bytes], ...] = (
            (b":scheme", url.scheme.encode()),
            (b":authority", (url.authority or "").encode()),
        )
        self._scheme = url.scheme
        self._authority = url.authority or ""
        # The pseudo-header fields of other origins that share the connections.
        self._others: dict[str, tuple[tuple[bytes, bytes], ...]] = {}
        self._headers = _to_headers(headers)
        # Header sections that were sent, by method and target.
        self._known_fields: dict[tuple[str, str], list[tuple[bytes, bytes]]] = {}
        self._timeout = timeout
        self._deadlines: dict[float, Deadlines] = {}
        self._retries = retries
        self._decompresses = decompress
        times = {"connect_timeout": connect_timeout, "idle_timeout": idle_timeout}
        http2: Any = None
        connector: Any = None
        if not only:
            context = ssl
            if context is None and url.scheme == "https":
                context = self._make_context()
            http2 = HTTP2Connector(
                url, path, ssl=context, config=config, **times, **options
            )
        if http3 is not False:
            connector = _make_http3(
                url,
                path,
                only,
                quic=quic,
                config=config if only else None,
                ssl=ssl,
                timeout=timeout,
                **times,
                **options,
            )
        if http3 is not True:
            alternatives = None
        elif alternatives is None:
            alternatives = AlternativeServices()
        http2, connector = self._use_connectors(http2, connector)
        self._connections = OriginConnections(
            url,
            http2,
            connector,
            alternatives=alternatives,
            # RFC 7838, 2.1: another host must prove that it is of the origin.
            elsewhere=all(
                trust is None or trust.verify_mode != ssl_module.CERT_NONE
                for trust in (ssl, quic)
            ),
            most=connections,
        )
        if alternatives is not None and http2 is not None:
            http2.alternatives = self._connections.frame_received
            if https_records:
                alternatives.add_records(
                    f"{url.scheme}://{url.authority}", https_records
                )

    def _make_context(self) -> ssl_module.SSLContext:
        """Make the default of ``ssl``."""
        return ssl_module.create_default_context()

    def _use_connectors(self, http2: Any, http3: Any) -> tuple[Any, Any]:
        """Return what makes the connections; a subclass may replace it.

        Of versions that are not used ``None`` is given.
        """
        return http2, http3

    @property
    def connections(self) -> Any:
        """Its connections, as a pool needs them."""
        return self._connections

    @property
    def _connection(self) -> Connection | None:
        return self._connections.current

    # ---- Requests ----

    def get(self, target: str, **options: Unpack[RequestOptions]) -> Answer:
        """Send a GET request: see ``request``."""
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Unpack[RequestOptions]) -> Answer:
        """Send a HEAD request: see ``request``."""
        return self.request("HEAD", target, **options)

    def post(
        self, target: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Answer:
        """Send a POST request: see ``request``."""
        return self.request("POST", target, body=body, **options)

    def put(
        self, target: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Answer:
        """Send a PUT request: see ``request``."""
        return self.request("PUT", target, body=body, **options)

    def patch(
        self, target: str, body: Any = None, **options: Unpack[BodyOptions]
    ) -> Answer:
        """Send a PATCH request: see ``request``."""
        return self.request("PATCH", target, body=body, **options)

    def delete(self, target: str, **options: Unpack[RequestOptions]) -> Answer:
        """Send a DELETE request: see ``request``."""
        return self.request("DELETE", target, **options)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeadersLike = (),
        body: Any = None,
        trailers: HeadersLike | None = None,
        timeout: float | None = -1,
        timeouts: RequestTimeouts | None = None,
        expect_continue: float | bool = False,
        params: Params | None = None,
        json: Any = None,
        decompress: bool | None = None,
        trace: Trace | None = None,
    ) -> Response:
        """Send a request and wait until its response begins.

        ``target`` is a path with its query, or a URL of this client's origin.
        ``params`` are added to its query.  ``headers`` are pairs of names and values,
        bytes or str, or a mapping.  ``body`` is ``None``, str (sent as UTF-8),
        bytes-like, a binary file (sent from where it stands; ``read`` may be a
        coroutine function), or an iterable or asynchronous iterable of bytes, as
        streams and responses of this package are; it is sent while the response is
        awaited and read.  Of bytes and seekable files content-length is stated.
        ``json`` is sent instead, as application/json.

        ``timeout`` is used instead of the client's.  ``timeouts``, a
        ``RequestTimeouts``, bounds each kind of wait on its own instead.

        With ``expect_continue`` the request has ``expect: 100-continue`` (RFC 9110,
        10.1.1): the body is sent when the server asks for it, or after that many
        seconds (``True``: 1); it is not sent if the response refuses it.  After 417
        (Expectation Failed) the request is sent without.

        ``decompress`` is used instead of the client's.  ``trace`` is called with the
        name of an event and a dict, and may return an awaitable: see the page about
        clients.

        Raises what ``open_connection`` raises; ``StreamResetError`` and
        ``ConnectionTerminatedError`` with the peer's error code; ``HTTPVersionError``
        if the server speaks no version that was asked for; ``RequestTimeoutError``, of
        which ``PoolTimeoutError``, ``ConnectTimeoutError``, ``WriteTimeoutError`` and
        ``ReadTimeoutError`` are kinds, and which is a ``TimeoutError``;
        ``HeadersError`` and ``InvalidBodyLengthError`` for a request that must not be
        sent.
        """
        if timeout == -1:
            timeout = self._timeout
        else:
            check_seconds("timeout", timeout)
        if params is not None:
            target = _add_params(target, params)
        if json is not None:
            if body is not None:
                raise TypeError("give body or json, not both")
            body, headers = _encode_json(json, headers)
        source = NO_BODY if body is None else RequestBody(body)
        fields = self._make_fields(method, target, headers, source.length)
        if trailers is not None:
            trailers = list(to_pairs(trailers))
        if not isinstance(expect_continue, bool):
            check_seconds("expect_continue", expect_continue, least=0, optional=False)
        wait = float(expect_continue)
        if wait and not source.is_empty:
            fields.append(_EXPECT)
        if decompress is None:
            decompress = self._decompresses
        if decompress and not any(field[0] == b"accept-encoding" for field in fields):
            fields.append((b"accept-encoding", get_accepted()))
        watch = None
        if timeouts is not None or trace is not None:
            watch, timeout = self._make_watch(timeouts, trace, timeout)
        response = tried = None
        connections = self._connections
        connection = connections.current
        if (
            connection is not None
            and source is NO_BODY
            and trailers is None
            and watch is None
            and not connections.are_several
            and not connections.used
        ):
            # Most requests: as `_send`, without the time of further coroutines.
            deadlines = self._find_deadlines(timeout)
            due = None if deadlines is None else deadlines.next_due()
            try:
                stream = connection.try_open(fields, True)
                if stream is not None:
                    if stream.link.timeout is None:
                        await stream.until_response(deadlines, due)
                    else:
                        await _respond(stream, deadlines)
                    response = self._answered(connection, fields, stream, deadlines)
                    if response.status in _TO_REPEAT:
                        tried = _Try(connection, due, response, None)
            except (StreamResetError, ConnectionTerminatedError) as error:
                tried = _Try(connection, due, None, error)
            finally:
                if connection not in connections.begun:
                    connections.request_begun(connection)
        if response is None or tried is not None:
            response = await self._send(
                method, fields, source, trailers, timeout, wait, watch, tried=tried
            )
        if decompress:
            response.decompress()
        return response

    async def open_tunnel(
        self,
        target: str,
        *,
        protocol: str | None = None,
        headers: HeadersLike = (),
        timeout: float | None = -1,
        timeouts: RequestTimeouts | None = None,
        trace: Trace | None = None,
    ) -> Response:
        """Send a CONNECT request, and wait until its response begins.

        With ``protocol``, such as ``"websocket"``, it is an extended CONNECT (RFC 8441,
        RFC 9220) for ``target``, a path; the server's SETTINGS are waited for.
        Without, ``target`` is the host and port to connect to (RFC 9110, 9.3.6).
        If the status is from 200 to 299, both halves of ``response.stream`` are the
        caller's: ``send_data``, ``end_stream``, ``readany``.  ``close`` of the response
        ends the tunnel.

        Raises as ``request``, and ``TunnelsNotEnabledError`` if the server does not
        support extended CONNECT.
        """
        if timeout == -1:
            timeout = self._timeout
        else:
            check_seconds("timeout", timeout)
        if protocol is None:
            fields = [(b":method", b"CONNECT"), (b":authority", target.encode())]
            fields += self._headers
            fields += [_with_lower_name(field) for field in to_pairs(headers)]
        else:
            fields = self._make_fields("CONNECT", target, headers, None)
            fields.insert(1, (b":protocol", protocol.encode()))
        watch = None
        if timeouts is not None or trace is not None:
            watch, timeout = self._make_watch(timeouts, trace, timeout)
        return await self._send(
            "CONNECT",
            fields,
            _Tunnel(),
            None,
            timeout,
            0.0,
            watch,
            protocol is not None,
        )

    async def send(
        self,
        method: str,
        fields: list[tuple[bytes, bytes]],
        body: RequestBody,
        *,
        timeouts: RequestTimeouts,
        trace: Trace | None = None,
        expect_continue: float = 0.0,
    ) -> Response:
        """Send a request whose header section the caller has made.

        ``fields`` are the pseudo-header fields and the others, with names in lower
        case; the client adds none.  The request's half of a CONNECT, whose ``body`` is
        not used, stays open.  The rest is as in ``request`` and ``open_tunnel``.
        """
        watch, timeout = self._make_watch(timeouts, trace, None)
        tunnel = method == "CONNECT"
        return await self._send(
            method,
            fields,
            _Tunnel() if tunnel else body,
            None,
            timeout,
            expect_continue,
            watch,
            tunnel and any(field[0] == b":protocol" for field in fields),
        )

    def _make_watch(
        self,
        timeouts: RequestTimeouts | None,
        trace: Trace | None,
        timeout: float | None,
    ) -> tuple[RequestWatch, float | None]:
        """Return the watch of a request, and its bound until the response begins."""
        if timeouts is not None:
            check_type(
                "timeouts", timeouts, RequestTimeouts, "a RequestTimeouts or None"
            )
            timeout = None
        if trace is not None:
            check_callable("trace", trace)
        return RequestWatch(self._find_deadlines, timeouts, trace), timeout

    async def _send(
        self,
        method: str,
        fields: list[tuple[bytes, bytes]],
        source: RequestBody,
        trailers: HeadersLike | None,
        timeout: float | None,
        wait: float,
        watch: RequestWatch | None,
        extended: bool = False,
        *,
        tried: _Try | None = None,
    ) -> Response:
        """Send a request as often as it is necessary and allowed.

        ``tried`` is what came of the first time, if that was done already.
        """
        connections = self._connections
        deadlines = later = self._find_deadlines(timeout)
        if watch is not None and watch.timeouts is not None:
            later = self._find_deadlines(watch.timeouts.read)
        attempt = 0
        was_dropped = False
        due = None if tried is None else tried.due
        with TimeLimit(deadlines, "no response", due=due):
            while True:
                first, tried = tried, None
                connection = connections.current if first is None else first.connection
                if first is None and (
                    connection is None
                    or connections.are_several
                    or not connection.is_available
                ):
                    connection = await (
                        connections.find() if watch is None else watch.find(connections)
                    )
                assert connection is not None
                try:
                    if first is not None and first.error is not None:
                        raise first.error
                    if first is not None and first.response is not None:
                        response = first.response
                    else:
                        if extended:
                            await connection.wait_tunnels()
                        given = fields
                        if connections.used and connection in connections.used:
                            given = [*fields, connections.used[connection]]
                        stream = await self._exchange(
                            connection, given, source, trailers, wait, watch
                        )
                        response = self._answered(connection, fields, stream, later)
                    if response.status not in _TO_REPEAT or not source.can_repeat:
                        return response
                    if response.status == 421:
                        if not connections.misdirected(connection):
                            return response
                    elif _EXPECT in fields:
                        fields.remove(_EXPECT)
                        wait = 0.0
                    else:
                        return response
                    response.close()
                except (StreamResetError, ConnectionTerminatedError) as error:
                    if connections.is_closed or not source.can_repeat:
                        raise
                    if not error.unprocessed:
                        if self._has_died(connection, error):
                            connections.failed(connection)
                        elif was_dropped or not self._was_dropped(connection, error):
                            raise
                        else:
                            was_dropped = True
                        if method not in _SAFE:
                            raise
                    # A server may cap the requests of a connection.  Retry on a new
                    # one, without counting an attempt, as long as some are answered.
                    available = connection.is_available
                    if available or connection not in connections.answered:
                        if attempt == self._retries:
                            raise
                        if available:
                            await asyncio.sleep(_BACKOFF * 2**attempt)
                        attempt += 1
                finally:
                    if connection not in connections.begun:
                        connections.request_begun(connection)

    def _answered(
        self,
        connection: Connection,
        fields: list[tuple[bytes, bytes]],
        stream: Stream,
        deadlines: Deadlines | None,
    ) -> Response:
        """Make the response of a stream; ``deadlines`` are those of its body."""
        connections = self._connections
        connections.answered.add(connection)
        if connections.alternatives is not None and self._pseudo[1] in fields:
            connections.learn(stream.final_fields)
        return Response(stream, deadlines)

    def _has_died(self, connection: Connection, error: Exception) -> bool:
        """Return whether an alternative service has become silent."""
        return (
            self._connections.is_alternative(connection)
            and isinstance(error, ConnectionTerminatedError)
            and not error.remote
        )

    def _was_dropped(self, connection: Connection, error: Exception) -> bool:
        """Return whether a server has closed a connection without a reason, on which
        others were answered: possibly because they had ended (RFC 9110, 9.2.2)."""
        return (
            isinstance(error, ConnectionTerminatedError)
            and error.remote
            and (error.error_code in _NO_ERRORS or error.reason.startswith(LOST))
            and connection in self._connections.answered
        )

    async def _exchange(
        self,
        connection: Connection,
        fields: list[tuple[bytes, bytes]],
        body: RequestBody,
        trailers: HeadersLike | None,
        wait: float,
        watch: RequestWatch | None,
    ) -> Stream:
        """Send a request, and return its stream when the final response has begun."""
        whole = body.is_empty and trailers is None
        stream: Stream
        if watch is None:
            stream = await connection.open_stream(fields, end_stream=whole)
        else:
            stream = await watch.open_stream(connection, fields, whole)
        try:
            if not whole and (
                not wait or body.is_empty or await stream.is_body_wanted(wait)
            ):
                if watch is None:
                    body.send(stream, trailers)
                else:
                    await watch.send_body(body, stream, trailers)
            await (stream.response() if watch is None else watch.respond(stream, body))
        except BaseException as error:
            # A caller that gives up, or is cancelled, leaves no stream behind.
            stream.reset()
            if body.error is not None and isinstance(error, StreamResetError):
                raise body.error from None
            raise
        return stream

    def _make_fields(
        self, method: str, target: str, headers: HeadersLike, length: int | None
    ) -> list[tuple[bytes, bytes]]:
        if not headers and length is None:
            known = self._known_fields.get((method, target))
            if known is not None:
                return known.copy()
        url = split_url(target)
        pseudo = self._pseudo
        if url.scheme is not None and (url.scheme, url.authority) != (
            self._scheme,
            self._authority,
        ):
            pseudo = self._others.get(f"{url.scheme}://{url.authority}", ())
            if not pseudo:
                raise ValueError(
                    f"{target!r} is not of {self._scheme}://{self._authority}"
                )
        fields = [
            (b":method", method.encode()),
            *pseudo,
            (b":path", url.target.encode()),
        ]
        if not headers and length is None:
            fields += self._headers
            if pseudo is self._pseudo and len(self._known_fields) < _MAX_KNOWN_FIELDS:
                self._known_fields[method, target] = fields.copy()
            return fields
        own = [_with_lower_name(field) for field in to_pairs(headers)]
        names = {field[0] for field in own}
        fields += [field for field in self._headers if field[0] not in names]
        fields += own
        if length is not None and b"content-length" not in names:
            fields.append((b"content-length", b"%d" % length))
        return fields

    def serve_origin(self, origin: str) -> None:
        """Accept requests for another origin, which the server serves as well.

        The caller has checked that the certificate is valid for it (RFC 9113, 9.1.1).
        """
        url = split_url(origin)
        self._connections.are_shared = True
        self._others[f"{url.scheme}://{url.authority}"] = (
            (b":scheme", f"{url.scheme}".encode()),
            (b":authority", f"{url.authority}".encode()),
        )

    def leave_origin(self, origin: str) -> None:
        """Accept no further requests for another origin."""
        url = split_url(origin)
        self._others.pop(f"{url.scheme}://{url.authority}", None)

    def _find_deadlines(self, timeout: float | None) -> Deadlines | None:
        if timeout is None:
            return None
        found = self._deadlines.get(timeout)
        if found is None:
            found = Deadlines(timeout, asyncio.get_running_loop())
            if len(self._deadlines) < _MAX_DEADLINES:
                self._deadlines[timeout] = found
        return found

    # ---- The end ----

    async def close(self, timeout: float | None = None) -> None:
        """Accept no more requests, and wait for the open streams to finish.

        What has not finished after ``timeout`` seconds is aborted; ``None`` means the
        connection's ``close_timeout``.
        """
        await self._connections.close(timeout)
        for deadlines in self._deadlines.values():
            deadlines.close()
        self._deadlines.clear()

    def abort(self) -> None:
        """End the connection at once: open streams are reset."""
        self._connections.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._scheme}://{self._authority}>"


async def _respond(stream: Stream, deadlines: Deadlines | None) -> None:
    """Wait for the final response; if that fails or is cancelled, reset the stream."""
    try:
        with TimeLimit(deadlines, "no response"):
            await stream.response()
    except BaseException:
        stream.reset()
        raise


def _check_http3(http3: object, quic: Any) -> Any:
    """Check both parameters; return the configuration of QUIC, or ``None``."""
    kind: Any = ()
    with contextlib.suppress(ImportError):  # a build may be without QUIC
        from nghttp2py.quic import QuicConfiguration as kind
    if quic is not None:
        check_type("quic", quic, kind, "a QuicConfiguration or None")
    if isinstance(http3, bool) or (isinstance(http3, str) and http3 == "only"):
        if quic is not None and http3 is False:
            raise ConfigurationError("quic must be None without http3")
        return quic
    if not isinstance(http3, kind):
        raise ConfigurationError(
            "http3 must be False, True, 'only' or a QuicConfiguration, not "
            f"{describe(http3)}"
        )
    if quic is not None:
        raise ConfigurationError("quic must be None if http3 is a QuicConfiguration")
    return http3


def _check_records(records: Any) -> list[ServiceRecord]:
    """Return ``https_records`` as a list."""
    if isinstance(records, ServiceRecord) or not isinstance(records, Iterable):
        raise TypeError(
            f"https_records must be ServiceRecords, not {describe(records)}"
        )
    found = list(records)
    for record in found:
        check_type("https_records", record, ServiceRecord, "of ServiceRecords")
    return found


def _make_http3(
    url: SplitURL,
    path: str | None,
    only: bool,
    *,
    idle_timeout: float | None,
    config: H2Configuration | None,
    **options: Any,
) -> Connector:
    """Make the connector of HTTP/3, which is imported when it is asked for."""
    from nghttp2py.asyncio.h3_client import OPTIONS, HTTP3Connector

    if not only:
        # The others are of HTTP/2.
        mine = OPTIONS - {"cls"} | {"quic", "ssl", "timeout", "connect_timeout"}
        options = {name: value for name, value in options.items() if name in mine}
    return HTTP3Connector(
        url,
        path,
        config,
        has_fallback=not only,
        idle_timeout=idle_timeout,
        **options,
    )


def _add_params(target: str, params: Params) -> str:
    """Add parameters to the query of a target."""
    query = urlencode(params, doseq=True)
    if not query:
        return target
    target = target.partition("#")[0]
    separator = "?" if "?" not in target else "" if target[-1] in "?&" else "&"
    return f"{target}{separator}{query}"


def _encode_json(value: Any, headers: HeadersLike) -> tuple[bytes, HeadersLike]:
    """Return a value as JSON (RFC 8259), and the header fields with its type."""
    body = json_module.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return body.encode(), add_field(headers, b"content-type", b"application/json")


def _to_headers(headers: Any) -> list[Any]:
    """Return the fields that every request has."""
    try:
        return [_with_lower_name(field) for field in to_pairs(headers)]
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            f"headers must be a mapping or pairs, not {describe(headers)}"
        ) from None


def _with_lower_name(field: Any) -> Any:
    """Copy a field with its name in lower case, keeping its never-indexed mark."""
    name, value, *mark = field
    if isinstance(name, str):
        name = name.encode()
    if (
        any(mark)
        or isinstance(field, NeverIndexed)
        or not getattr(field, "indexable", True)  # of the hpack package
    ):
        return name.lower(), value, True
    return name.lower(), value


def __getattr__(name: str) -> object:
    if name == "connect":
        from nghttp2py.asyncio.quic import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
