"""The options of HTTP/2's connections, for type checkers, and their names."""

from __future__ import annotations

from typing import Any, TypedDict

from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.h2 import H2Configuration

__all__ = [
    "ConnectOptions",
    "ListenOptions",
    "ProtocolOptions",
    "SharedOptions",
    "StreamConnectionOptions",
    "TCPListenOptions",
    "TransportOptions",
]


class SharedOptions(TypedDict, total=False):
    """The options of a connection that ``Client`` hands on."""

    concurrency: int | None
    timeouts: Timeouts | None
    settings_timeout: float
    keepalive_interval: float | None
    keepalive_timeout: float
    close_timeout: float
    window_tuning: bool


class StreamConnectionOptions(SharedOptions, total=False):
    """The options of a connection whose streams are objects."""

    config: H2Configuration | None
    idle_timeout: float | None
    timeout: float | None


class ProtocolOptions(StreamConnectionOptions, total=False):
    """The options of ``H2Protocol``, which describes them."""

    functional_timeout: float
    header_encoding: str | None


class TransportOptions(TypedDict, total=False):
    """The options of ``loop.create_connection``, which asyncio describes."""

    all_errors: bool
    family: int
    flags: int
    happy_eyeballs_delay: float | None
    interleave: int | None
    local_addr: tuple[str, int] | None
    proto: int
    server_hostname: str | None
    sock: Any
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None


class ConnectOptions(ProtocolOptions, TransportOptions, total=False):
    """Further options of ``open_connection`` and ``open_unix_connection``: those of
    ``H2Protocol`` and of ``loop.create_connection``."""


class ListenOptions(ProtocolOptions, total=False):
    """Further options of ``start_unix_server``: those of ``H2Protocol``, of
    ``loop.create_server``, and ``limit_connections``, the most that are open at
    once."""

    backlog: int
    limit_connections: int | None
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    start_serving: bool


class TCPListenOptions(ListenOptions, total=False):
    """Further options of ``start_server``."""

    family: int
    flags: int
    reuse_address: bool | None
    reuse_port: bool | None
