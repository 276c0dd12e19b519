"""HTTP/3 for ``serve``: the same files, over QUIC.

Imported when ``--http3`` asks for it: not every build has QUIC.
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.pump import CLOSE_TIMEOUT
from nghttp2py.asyncio.quic import QuicServer, serve
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic import QuicConfiguration, QuicConnection
from nghttp2py.server import IDLE_TIMEOUT
from nghttp2py.static_files import StaticFiles, answer_stream

__all__ = ["HTTP3Server", "make_configuration"]


def make_configuration(cert: Path, key: Path | None) -> QuicConfiguration:
    """Make the configuration of a server.  Raises OSError and ValueError."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        congestion_control_algorithm="cubic",
        idle_timeout=IDLE_TIMEOUT,
        # Request bodies are not read, so they need no large window.
        max_stream_data=65536,
        probe_datagram_size=True,
    )
    configuration.load_cert_chain(cert, key)
    # A connection is made to check the key, and raises if it is invalid.
    QuicConnection(
        configuration=configuration, original_destination_connection_id=bytes(8)
    )
    return configuration


class HTTP3Server:
    """Answers requests with files, on every address given to ``listen``."""

    def __init__(self, files: StaticFiles, configuration: QuicConfiguration) -> None:
        self._configuration = configuration
        self._servers: list[QuicServer] = []
        self._handler = functools.partial(answer_stream, files)
        self._closing: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses that it listens on."""
        return [s.sockets[0].getsockname()[:2] for s in self._servers]

    async def listen(self, host: str, port: int) -> int:
        """Listen on another address; return its port.  Raises OSError."""
        server = await serve(
            host,
            port,
            configuration=self._configuration,
            create_protocol=functools.partial(
                H3Protocol, request_handler=self._handler
            ),
        )
        self._servers.append(server)
        return self.addresses[-1][1]

    def close(self) -> None:
        """Stop gracefully: accept no more requests, and let the open ones finish."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    def abort(self) -> None:
        """Close every connection at once."""
        for server in self._servers:
            server.abort()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has ended the last connection."""
        self.close()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(s.drain(CLOSE_TIMEOUT) for s in self._servers))
