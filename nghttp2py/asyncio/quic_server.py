"""A QUIC server: what it does with each datagram that comes in."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, cast

from nghttp2py.asyncio.quic_protocol import (
    MarkedDatagram,
    QuicConnectionProtocol,
    QuicStreamHandler,
)
from nghttp2py.quic.configuration import (
    SMALLEST_MAX_DATAGRAM_SIZE,
    QuicConfiguration,
)
from nghttp2py.quic.connection import NetworkAddress, QuicConnection
from nghttp2py.quic.packet import QuicErrorCode
from nghttp2py.quic.routing import QuicHeader, Router
from nghttp2py.quic.tls import SessionTicketFetcher, SessionTicketHandler

__all__ = ["QuicServer"]

# How many stateless resets a server sends in a second: they answer anybody.
MAX_RESETS = 100


class QuicServer(asyncio.DatagramProtocol):
    """Gives each datagram to its connection, and makes the connections."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        create_protocol: Callable[..., Any] = QuicConnectionProtocol,
        session_ticket_fetcher: SessionTicketFetcher | None = None,
        session_ticket_handler: SessionTicketHandler | None = None,
        retry: bool = False,
        stream_handler: QuicStreamHandler | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._configuration = configuration
        self._create_protocol = create_protocol
        self._session_ticket_fetcher = session_ticket_fetcher
        self._session_ticket_handler = session_ticket_handler
        self._retry = retry
        self._stream_handler = stream_handler
        self._max_connections = max_connections
        self._transport: asyncio.DatagramTransport | None = None
        self._protocols: dict[bytes, QuicConnectionProtocol] = {}
        self._connections: set[QuicConnectionProtocol] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False
        self._resets = 0
        self._resets_since = 0.0
        if configuration.stateless_reset_secret is None:
            configuration.stateless_reset_secret = os.urandom(32)
        self._router = Router(
            secret=configuration.stateless_reset_secret,
            connection_id_length=configuration.connection_id_length,
            versions=configuration.supported_versions,
        )

    @property
    def sockets(self) -> list[Any]:
        """The socket, in a list."""
        return (
            []
            if self._transport is None
            else [self._transport.get_extra_info("socket")]
        )

    def close(self) -> None:
        """Close all connections, and stop listening."""
        self._draining = True
        for protocol in list(self._connections):
            protocol.close()
        self._protocols.clear()
        if self._transport is not None:
            self._transport.close()

    async def drain(self, timeout: float | None = None) -> None:
        """Take no more connections, wait until those there are have ended, close.

        After ``timeout`` seconds it waits no longer.
        """
        self._draining = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout)
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """ICMP is anybody's word: timers decide (RFC 9000, 14.2.1)."""

    def datagram_received(self, data: bytes, addr: NetworkAddress) -> None:
        header = self._router.read_header(data)
        if header is None:
            return
        protocol = self._protocols.get(header.destination_cid)
        if protocol is None:
            protocol = self._route_unknown(header, data, addr)
        if protocol is not None:
            protocol.datagram_received(data, addr)

    def datagrams_received(self, datagrams: list[MarkedDatagram]) -> None:
        """Give each datagram to its connection; each connection answers once."""
        shares: dict[QuicConnectionProtocol, list[MarkedDatagram]] = {}
        for datagram in datagrams:
            data, addr, _ = datagram
            header = self._router.read_header(data)
            if header is None:
                continue
            protocol = self._protocols.get(header.destination_cid)
            if protocol is None:
                protocol = self._route_unknown(header, data, addr)
            if protocol is not None:
                shares.setdefault(protocol, []).append(datagram)
        for protocol, share in shares.items():
            protocol.datagrams_received(share)

    def resume_writing(self) -> None:
        """The socket takes datagrams again."""
        for protocol in list(self._connections):
            protocol.transmit()

    def _answer(self, data: bytes, addr: NetworkAddress) -> None:
        transport = self._transport
        if data and transport is not None:
            transport.sendto(data, addr)

    def _route_unknown(
        self, header: QuicHeader, data: bytes, addr: NetworkAddress
    ) -> QuicConnectionProtocol | None:
        """What to do about a packet for no connection; the one it begins."""
        if header.version is None:
            if self._may_reset():
                reset = self._router.write_stateless_reset(header, len(data))
                self._answer(reset, addr)
            return None
        # An answer must not be longer than what it answers.
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        if header.version not in self._configuration.supported_versions:
            self._answer(self._router.write_version_negotiation(header), addr)
            return None
        if not header.is_initial:
            return None
        if self._draining or len(self._connections) == self._max_connections:
            refusal = self._router.write_refusal(
                header, QuicErrorCode.CONNECTION_REFUSED
            )
            self._answer(refusal, addr)
            return None
        now = self._loop.time()
        original: bytes | None = header.destination_cid
        retry_cid: bytes | None = None
        if self._retry:
            if not header.token:
                self._answer(self._router.write_retry(header, addr, now), addr)
                return None
            original = self._router.verify_retry(header, addr, now)
            retry_cid = header.destination_cid
            if original is None:
                refusal = self._router.write_refusal(
                    header, QuicErrorCode.INVALID_TOKEN
                )
                self._answer(refusal, addr)
                return None
        return self._accept(header, original, retry_cid)

    def _accept(
        self, header: QuicHeader, original: bytes | None, retry_cid: bytes | None
    ) -> QuicConnectionProtocol:
        quic = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_cid,
            session_ticket_fetcher=self._session_ticket_fetcher,
            session_ticket_handler=self._session_ticket_handler,
        )
        protocol = cast(
            QuicConnectionProtocol,
            self._create_protocol(quic, stream_handler=self._stream_handler),
        )
        protocol.connection_made(cast(asyncio.BaseTransport, self._transport))
        cids = {header.destination_cid, quic.host_cid}

        def issued(cid: bytes) -> None:
            cids.add(cid)
            self._protocols[cid] = protocol

        def retired(cid: bytes) -> None:
            cids.discard(cid)
            self._protocols.pop(cid, None)

        def terminated() -> None:
            for cid in cids:
                self._protocols.pop(cid, None)
            self._connections.discard(protocol)
            if not self._connections:
                self._empty.set()

        protocol._connection_id_issued_handler = issued
        protocol._connection_id_retired_handler = retired
        protocol._connection_terminated_handler = terminated
        for cid in cids:
            self._protocols[cid] = protocol
        self._connections.add(protocol)
        self._empty.clear()
        return protocol

    def _may_reset(self) -> bool:
        now = self._loop.time()
        if now - self._resets_since >= 1:
            self._resets_since, self._resets = now, 0
        self._resets += 1
        return self._resets <= MAX_RESETS
