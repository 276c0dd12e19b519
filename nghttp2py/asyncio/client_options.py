"""The options of clients and requests, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from nghttp2py.asyncio.h2_options import SharedOptions, TransportOptions
from nghttp2py.asyncio.time_limits import RequestTimeouts
from nghttp2py.asyncio.writer import HeadersLike

__all__ = [
    "BodyOptions",
    "ConnectionOptions",
    "Params",
    "RequestOptions",
    "Trace",
    "TunnelOptions",
]

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


class TunnelOptions(TypedDict, total=False):
    """The options of ``Client.open_tunnel`` and ``Pool.open_tunnel``."""

    headers: HeadersLike
    timeout: float | None
    timeouts: RequestTimeouts | None
    trace: Trace | None


class ConnectionOptions(SharedOptions, TransportOptions, total=False):
    """Further options of the connections of ``Client`` and ``Pool``."""

    cls: Callable[..., Any]
    functional_timeout: float
    header_encoding: str | None
