"""How both transports send a request: over HTTP/2, HTTP/3, or by httpx's HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from nghttp2py.arguments import check_bool, check_int, check_type, describe
from nghttp2py.asyncio import (
    AlternativeServices,
    H2Protocol,
    Pool,
    RequestTimeouts,
    Response,
)
from nghttp2py.asyncio.request_body import NO_BODY, RequestBody
from nghttp2py.errors import (
    ConfigurationError,
    ErrorCode,
    HTTPVersionError,
    NGHTTP2Error,
    TunnelsNotEnabledError,
)
from nghttp2py.httpx.fallback import Fallback
from nghttp2py.httpx.faults import NOT_CONNECTED, find_name, translate
from nghttp2py.httpx.modules import Module
from nghttp2py.httpx.streams import AsyncNetworkStream, ResponseStream
from nghttp2py.httpx.tracing import Tracer
from nghttp2py.httpx.trust import Trust

__all__ = ["Answer", "Engine", "Options"]

logger = logging.getLogger(__name__)

#: The defaults of ``limits``, which are httpx's.
MAX_CONNECTIONS = 100
MAX_KEEPALIVE = 20
KEEPALIVE_EXPIRY = 5.0

# Seconds before the second attempt to connect, as in httpx; they double each time.
_BACKOFF = 0.5
# Seconds for which a body waits for 100 (Continue), if the request has asked for it.
_EXPECT_CONTINUE = 1.0
# The timeout that stands for zero, which httpx accepts.
_NO_TIME = 1e-6

_H3_VERSION_FALLBACK = 0x0110  # RFC 9114, 8.1
_WANTS_HTTP11 = frozenset({ErrorCode.HTTP_1_1_REQUIRED, _H3_VERSION_FALLBACK})

# Fields that a request of HTTP/2 or HTTP/3 must not have (RFC 9113, 8.2.2), or that
# have become pseudo-header fields.
_DROPPED = frozenset(
    {
        b"connection",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
_EXPECTING = (b"expect", b"100-continue")
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


class Answer(NamedTuple):
    """What a response of httpx is made of."""

    status: int
    headers: Any
    stream: Any
    extensions: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The parameters of a transport, but those that are ``Trust``'s.

    Raises ``TypeError`` or ``ConfigurationError`` for what cannot be used.
    """

    http1: bool
    http2: bool
    http3: bool | Literal["only"]
    limits: Any
    retries: int
    uds: str | None
    local_address: str | None
    socket_options: Iterable[tuple[Any, ...]] | None
    proxy: Any

    def __post_init__(self) -> None:
        check_bool("http1", self.http1)
        check_bool("http2", self.http2)
        check_int("retries", self.retries, 0)
        if self.uds is not None:
            check_type("uds", self.uds, (str, os.PathLike), "a path or None")
        if self.local_address is not None:
            check_type("local_address", self.local_address, str, "a str or None")
        if self.socket_options is not None:
            object.__setattr__(self, "socket_options", list(self.socket_options))
        if not isinstance(self.http3, bool) and self.http3 != "only":
            raise ConfigurationError(
                f"http3 must be False, True or 'only', not {describe(self.http3)}"
            )
        if self.http3 is not False:
            self._check_http3()
        if self.proxy is not None and not self.http1:
            raise ConfigurationError(
                "a proxy is used over HTTP/1.1: http1 must be True"
            )
        if not (self.http1 or self.http2 or self.http3):
            raise ConfigurationError("one of http1, http2 and http3 must be True")

    def _check_http3(self) -> None:
        for name in ("uds", "local_address"):
            if getattr(self, name) is not None:
                raise ConfigurationError(f"{name} must be None with http3")
        if self.http3 == "only":
            if self.proxy is not None:
                raise ConfigurationError("proxy must be None with http3='only'")
        elif not self.http2:
            raise ConfigurationError(
                "http2 must be True with http3=True; for HTTP/3 alone there is "
                "http3='only'"
            )


class Engine:
    """Sends requests of httpx; it has the connections of one event loop at a time."""

    def __init__(self, options: Options, trust: Trust) -> None:
        self._options = options
        self._trust = trust
        self._secure = options.http2 or options.http3 is not False
        # Without TLS there is no negotiation: HTTP/2 is used if nothing else may be.
        self._clear = options.http2 and not options.http1 and options.http3 != "only"
        self._falls_back = options.http1 and options.http3 != "only"
        self._alternatives = AlternativeServices()
        self._quic = trust.make_quic() if options.http3 else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = self._make_pool()
        self._fallback = self._make_fallback()

    def _make_pool(self) -> Pool:
        options = self._options
        limits = options.limits
        http3 = options.http3
        arguments: dict[str, Any] = {}
        if options.local_address is not None:
            arguments["local_addr"] = (options.local_address, 0)
        if options.socket_options:
            arguments["cls"] = partial(_Protocol, socket_options=options.socket_options)
        keep = _get(limits, "max_keepalive_connections", MAX_KEEPALIVE)
        expiry = _get(limits, "keepalive_expiry", KEEPALIVE_EXPIRY)
        most = _get(limits, "max_connections", MAX_CONNECTIONS)
        return Pool(
            max_connections=sys.maxsize if most is None else most,
            max_keepalive=sys.maxsize if keep is None else keep if expiry != 0 else 0,
            keepalive_expiry=expiry or None,
            path=None if options.uds is None else os.fspath(options.uds),
            ssl=None if http3 == "only" else self._trust.context,
            http3=http3,
            quic=self._quic,
            connect_timeout=None,
            timeout=None,
            alternatives=self._alternatives if http3 is True else None,
            **arguments,
        )

    def _make_fallback(self) -> Fallback:
        options = self._options
        arguments = {
            name: getattr(options, name)
            for name in ("retries", "uds", "local_address", "socket_options", "proxy")
        }
        if options.limits is not None:
            arguments["limits"] = options.limits
        return Fallback(self._trust, **arguments)

    def _adopt_loop(self) -> None:
        """Have connections in the running loop: those in a closed one are lost."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    "the transport has connections in another event loop: close it "
                    "there, or use one transport for each loop"
                )
            self._renew()
        self._loop = loop

    def _renew(self) -> None:
        self._loop = None
        self._pool = self._make_pool()
        self._fallback = self._make_fallback()

    async def send(
        self,
        module: Module,
        request: Any,
        body: Any,
        trace: Callable[[str, dict[str, Any]], Any] | None,
    ) -> Answer:
        """Send a request, whose body is bytes or an asynchronous iterable of bytes.

        Raises the exceptions of ``module``, and what the body raises.
        """
        self._adopt_loop()
        url = request.url
        scheme = _SCHEMES.get(url.scheme)
        if scheme is None or not url.raw_host:
            raise module.get_exception("UnsupportedProtocol")(
                "the URL must begin with http:// or https:// and a host"
                if not url.scheme
                else f"the URL has the scheme {url.scheme!r}, not http or https, or "
                "no host"
            )
        origin = f"{scheme}://{url.netloc.decode('ascii')}"
        if not self._is_ours(module, scheme, origin):
            return await self._fall_back(module, request, body, trace, origin)
        source = NO_BODY if body == b"" else RequestBody(body)
        try:
            return await self._send(module, request, source, trace, scheme, origin)
        except (NGHTTP2Error, OSError) as error:
            if error is source.error:
                raise
            if (
                self._falls_back
                and self._wants_http11(error, origin)
                and source.can_repeat
            ):
                logger.debug("%s: HTTP/1.1 is used: %s", origin, error)
                return await self._fall_back(module, request, body, trace, origin)
            sending = not (source.is_empty or source.is_exhausted)
            raise translate(module, error, sending=sending) from error

    def _is_ours(self, module: Module, scheme: str, origin: str) -> bool:
        """Return whether a request is sent over HTTP/2 or HTTP/3."""
        options = self._options
        if options.proxy is not None:
            return False
        if scheme == "http":
            if options.http3 == "only":
                raise module.get_exception("UnsupportedProtocol")(
                    "http3='only' needs a URL of https"
                )
            return self._clear
        if not self._secure:
            return False
        if origin not in self._fallback:
            return True
        if options.http3 is not True or self._fallback.has_asked(origin):
            return False
        return self._has_alternative(origin)

    def _has_alternative(self, origin: str) -> bool:
        """Return whether an origin without HTTP/2 offers HTTP/3 (RFC 7838)."""
        host, _, port = origin.partition("://")[2].rpartition(":")
        if not port.isdigit():
            host, port = origin.partition("://")[2], "443"
        return self._alternatives.find(origin, host.strip("[]"), int(port)) is not None

    def _wants_http11(self, error: Exception, origin: str) -> bool:
        """Return whether a request should be sent over HTTP/1.1 instead."""
        if isinstance(error, TunnelsNotEnabledError):
            return True  # for this request: WebSocket is possible over HTTP/1.1
        if isinstance(error, HTTPVersionError):
            self._fallback.remember(origin, asked=False)
            return True
        if getattr(error, "error_code", None) in _WANTS_HTTP11:
            self._fallback.remember(origin, asked=True)
            return True
        return False

    async def _fall_back(
        self, module: Module, request: Any, body: Any, trace: Any, origin: str
    ) -> Answer:
        """Send a request by httpx's own transport."""
        if trace is not request.extensions.get("trace") or not (
            isinstance(body, bytes) or body is request.stream
        ):
            request = _rebuild(module, request, body, trace)
        response = await self._fallback.send(module, request)
        if self._options.http3 is True and origin.startswith("https:"):
            value = response.headers.get("alt-svc")
            if value is not None:
                age = response.headers.get("age", "")
                seconds = float(age[:12]) if age.isascii() and age.isdigit() else 0.0
                self._alternatives.received(origin, value, seconds)
        return Answer(
            response.status_code,
            response.headers,
            response.stream,
            response.extensions,
        )

    async def _send(
        self,
        module: Module,
        request: Any,
        source: RequestBody,
        trace: Any,
        scheme: str,
        origin: str,
    ) -> Answer:
        """Send a request as often as connecting is to be tried."""
        extensions = request.extensions
        method, fields = _make_fields(request, scheme)
        hostname = extensions.get("sni_hostname")
        if isinstance(hostname, bytes):
            hostname = hostname.decode("ascii")
        timeouts = _make_timeouts(extensions.get("timeout"))
        tracer = None
        if trace is not None:
            tracer = self._make_tracer(request, trace, scheme, hostname, timeouts)
        attempt = 0
        while True:
            try:
                response = await self._pool.send(
                    origin,
                    method,
                    fields,
                    source,
                    server_hostname=hostname,
                    timeouts=timeouts,
                    trace=tracer,
                    expect_continue=_EXPECT_CONTINUE if _EXPECTING in fields else 0.0,
                )
                break
            except (NGHTTP2Error, OSError) as error:
                if (
                    attempt == self._options.retries
                    or error is source.error
                    or not source.can_repeat
                    or isinstance(error, HTTPVersionError)
                    or find_name(error) not in NOT_CONNECTED
                ):
                    raise
            if tracer is not None:
                await tracer.emit("connection.retry.started", {})
            await asyncio.sleep(_BACKOFF * 2 ** (attempt - 1) if attempt else 0)
            if tracer is not None:
                await tracer.emit("connection.retry.complete", {"return_value": None})
            attempt += 1
        is_websocket = method != request.method
        return _make_answer(module, response, method, is_websocket, tracer)

    def _make_tracer(
        self,
        request: Any,
        trace: Any,
        scheme: str,
        hostname: str | None,
        timeouts: RequestTimeouts,
    ) -> Tracer:
        options = self._options
        url = request.url
        connecting: dict[str, Any] = {
            "host": url.host,
            "port": url.port or (443 if scheme == "https" else 80),
            "local_address": options.local_address,
            "timeout": timeouts.connect,
            "socket_options": options.socket_options,
            "server_hostname": hostname or url.host,
        }
        step = "connect_tcp"
        if options.uds is not None:
            step = "connect_unix_socket"
            connecting["path"] = options.uds
        elif options.http3 == "only":
            step = "connect_quic"
        return Tracer(
            trace,
            request,
            secure=scheme == "https",
            step=step,
            connecting=connecting,
        )

    async def close(self) -> None:
        """End all connections; the next request makes new ones."""
        pool, fallback, loop = self._pool, self._fallback, self._loop
        self._renew()
        if loop is not asyncio.get_running_loop():
            return  # nothing was sent, or all that was made is lost
        pool.abort()
        await pool.close()
        await fallback.close()


class _Protocol(H2Protocol):
    """A connection whose socket gets options."""

    def __init__(
        self, *args: Any, socket_options: Iterable[tuple[Any, ...]], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._socket_options = socket_options

    def connection_made(self, transport: Any) -> None:
        """Handle that a connection was made."""
        found = transport.get_extra_info("socket")
        # The object itself cannot set options in every event loop.
        with socket.socket(fileno=os.dup(found.fileno())) as copy:
            for option in self._socket_options:
                copy.setsockopt(*option)
        super().connection_made(transport)


def _get(limits: Any, name: str, default: Any) -> Any:
    return default if limits is None else getattr(limits, name)


def _convert_timeouts(values: tuple[float | None, ...]) -> RequestTimeouts:
    return RequestTimeouts(*(_NO_TIME if value == 0 else value for value in values))


_find_timeouts = lru_cache(maxsize=64)(_convert_timeouts)


def _make_timeouts(timeout: dict[str, float | None] | None) -> RequestTimeouts:
    if not timeout:
        return _find_timeouts((None,) * 4)
    get = timeout.get
    return _find_timeouts((get("connect"), get("read"), get("write"), get("pool")))


def _make_fields(request: Any, scheme: str) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return the method and the header section of a request."""
    extensions = request.extensions
    method = request.method
    target = extensions.get("target")
    path = request.url.raw_path if target is None else target
    if isinstance(path, str):
        path = path.encode("ascii")
    authority = b""
    fields = []
    upgrade = b""
    for name, value in request.headers.raw:
        name = name.lower()
        if name in _DROPPED:
            if name == b"host":
                authority = value
            elif name == b"upgrade":
                upgrade = value
        elif name != b"te" or value == b"trailers":
            fields.append((name, value))
    if not authority:
        authority = request.url.netloc
    if method == "GET" and upgrade.lower() == b"websocket":
        # RFC 8441, 5, RFC 9220, 3: neither a key nor an upgrade.
        method = "CONNECT"
        fields = [field for field in fields if field[0] != b"sec-websocket-key"]
        fields.insert(0, (b":protocol", b"websocket"))
    elif method == "CONNECT":
        return method, [
            (b":method", b"CONNECT"),
            (b":authority", authority if target is None else path),
            *fields,
        ]
    return method, [
        (b":method", method.encode()),
        (b":scheme", scheme.encode()),
        (b":authority", authority),
        (b":path", path),
        *fields,
    ]


def _make_answer(
    module: Module,
    response: Response,
    method: str,
    is_websocket: bool,
    tracer: Tracer | None,
) -> Answer:
    stream = response.stream
    is_tunnel = method == "CONNECT" and 200 <= response.status < 300
    # Over HTTP/1.1 it is 101 (Switching Protocols), for which callers look.
    status = 101 if is_tunnel and is_websocket else response.status
    extensions: dict[str, Any] = {
        "http_version": response.http_version.encode(),
        "stream_id": stream.stream_id,
        "network_stream": AsyncNetworkStream(module, response, is_tunnel),
    }
    if response.informational:
        early = [
            module.headers(list(fields.pairs))
            for code, fields in response.informational
            if code == 103
        ]
        if early:
            extensions["early_hints"] = early
    kind = module.derive(ResponseStream, "AsyncByteStream")
    return Answer(
        status, response.headers.pairs, kind(module, response, tracer), extensions
    )


def _rebuild(module: Module, request: Any, body: Any, trace: Any) -> Any:
    """Return a copy of a request, with an asynchronous body and trace function."""
    extensions = {**request.extensions, "trace": trace}
    if trace is None:
        del extensions["trace"]
    stream = (
        module.byte_stream(body)
        if isinstance(body, bytes)
        else module.derive(_Pieces, "AsyncByteStream")(body)
    )
    return module.request(
        request.method,
        request.url,
        headers=request.headers,
        stream=stream,
        extensions=extensions,
    )


class _Pieces:
    """An asynchronous body."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> Any:
        return self._pieces.__aiter__()

    async def aclose(self) -> None:
        """Close what it has opened: that is the caller's."""
