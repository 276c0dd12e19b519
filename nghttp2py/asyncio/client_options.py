"""The options of clients and requests, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from nghttp2py.asyncio.time_limits import RequestTimeouts
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.writer import HeadersLike

__all__ = ["BodyOptions", "ConnectionOptions", "Params", "RequestOptions", "Trace"]

#: The parameters of a query; a sequence is a parameter that is repeated.
Params = Mapping[str, Any] | Sequence[tuple[str, Any]]
#: Called with the name of an event and what belongs to it; it may return an awaitable.
Trace = Callable[[str, dict[str, Any]], Any]


class BodyOptions(TypedDict, total=False):
    """The options of requests whose body is an argument."""

    headers: HeadersLike
    trailers: HeadersLike | None
    timeout: float | None
    timeouts: RequestTimeouts | None
    expect_continue: float | bool
    params: Params | None
    json: Any
    decompress: bool | None
    trace: Trace | None


class RequestOptions(BodyOptions, total=False):
    """The options of ``Client.request`` and ``Pool.request``."""

    body: Any


class ConnectionOptions(TypedDict, total=False):
    """Further options of a client's connections."""

    # Of both protocols.
    cls: Callable[..., Any]
    server_hostname: str | None
    timeouts: Timeouts | None
    settings_timeout: float
    keepalive_interval: float | None
    keepalive_timeout: float
    close_timeout: float
    # Of HTTP/2.
    concurrency: int | None
    functional_timeout: float
    header_encoding: str | None
    window_tuning: bool
    # Of asyncio's connections, for HTTP/2.
    all_errors: bool
    family: int
    flags: int
    happy_eyeballs_delay: float | None
    interleave: int | None
    local_addr: tuple[str, int] | None
    proto: int
    sock: Any
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
