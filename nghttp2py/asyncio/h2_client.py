"""How a ``Client`` makes its connections of HTTP/2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nghttp2py.asyncio.endpoints import (
    check_options,
    open_connection,
    open_unix_connection,
)
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.timeouts import merge_timeouts
from nghttp2py.asyncio.url import SplitURL
from nghttp2py.h2 import H2Configuration

__all__ = ["DEFAULT_CONFIGURATION", "HTTP2Connector"]

#: The default of ``config``; its windows are those of HTTP/3, too.  A window of 1 MiB
#: keeps a fast and distant server busy, and bounds a response that is not read; the
#: connection's window is so wide that such a response does not block others.
DEFAULT_CONFIGURATION = H2Configuration(
    initial_window_size=1048576,
    connection_window_size=2**31 - 1,
    manual_flow_control=True,
)


class HTTP2Connector:
    """Makes connections of HTTP/2 to one origin.

    ``options`` are those of ``open_connection``.  ``alternatives`` is called with the
    stream, the origin and the value of each ALTSVC frame (RFC 7838, 4).
    """

    def __init__(
        self,
        url: SplitURL,
        path: str | None,
        *,
        ssl: Any,
        config: H2Configuration | None,
        connect_timeout: float | None,
        idle_timeout: float | None,
        **options: Any,
    ) -> None:
        check_options(options)
        merge_timeouts(options.get("timeouts"), client=True)
        self._host = url.host
        self._port = url.port
        self._path = path
        self.alternatives: Callable[[int, bytes, bytes], object] | None = None
        self._cls = options.pop("cls", H2Protocol)
        if path is not None and ssl is not None:
            options.setdefault("server_hostname", url.host)
        self._options = {
            "ssl": ssl,
            "config": DEFAULT_CONFIGURATION if config is None else config,
            "connect_timeout": connect_timeout,
            "idle_timeout": idle_timeout,
            "header_encoding": None,
            **options,
        }

    async def connect(
        self, host: str | None = None, port: int | None = None
    ) -> H2Protocol:
        """Make a connection: see ``open_connection``."""
        if self._path is not None:
            return await open_unix_connection(
                self._path, cls=self._create_protocol, **self._options
            )
        return await open_connection(
            host or self._host,
            port or self._port,
            cls=self._create_protocol,
            **self._options,
        )

    def _create_protocol(self, client_side: bool, **options: Any) -> H2Protocol:
        protocol: H2Protocol = self._cls(client_side, **options)
        protocol.alternative_hook = self.alternatives
        return protocol

    @staticmethod
    def close(connection: H2Protocol, timeout: float | None) -> None:
        """Begin the graceful end of a connection."""
        connection.close(timeout)
