"""The handshakes of a QUIC server that are not complete, and how many there may be.

A spoofed packet is enough to begin one, and a client that proves its address can keep
it open: so they are bounded in all, for each address, and in time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol
from nghttp2py.quic.addresses import network_of

__all__ = ["MAX_HANDSHAKES", "Handshakes"]

# How many handshakes go on at once before clients must prove their addresses: each
# takes some 70 KB, and at a round trip of 100 ms these are 5,000 connections a second.
MAX_HANDSHAKES = 512

# An address, or a network of IPv6 that one customer has (RFC 6177), has a share of
# them: one in so many.
SHARES = 4

# A handshake has so many seconds before another may take its place.
PROTECTED = 1.0


class Handshakes:
    """Those that are not complete, the oldest first.

    From ``most`` on, or a quarter of it from one address, a client must prove its
    address (RFC 9000, 8.1.2).  There are never more than twice as many of either: then
    the oldest makes room for a client that has proved its address.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // SHARES)
        self._began: dict[QuicConnectionProtocol, tuple[Hashable, float]] = {}
        self._by_network: dict[Hashable, dict[QuicConnectionProtocol, None]] = {}

    def __len__(self) -> int:
        return len(self._began)

    def needs_proof(self, addr: Any) -> bool:
        """Whether a client at ``addr`` must prove its address before it gets in."""
        return (
            len(self._began) >= self._most
            or len(self._by_network.get(network_of(addr), ())) >= self._share
        )

    def is_full(self, addr: Any) -> bool:
        """Whether an old one must go before another from ``addr`` comes in."""
        return (
            len(self._began) >= 2 * self._most
            or len(self._by_network.get(network_of(addr), ())) >= 2 * self._share
        )

    def oldest(self, addr: Any, now: float) -> QuicConnectionProtocol | None:
        """Return the one that makes room for another from ``addr``, or ``None`` if
        each is too young: then the client has to try again."""
        theirs = self._by_network.get(network_of(addr), {})
        candidates = theirs if len(theirs) >= 2 * self._share else self._began
        protocol = next(iter(candidates))
        return protocol if now - self._began[protocol][1] >= PROTECTED else None

    def add(self, protocol: QuicConnectionProtocol, addr: Any, now: float) -> None:
        network = network_of(addr)
        self._began[protocol] = network, now
        self._by_network.setdefault(network, {})[protocol] = None

    def discard(self, protocol: QuicConnectionProtocol) -> None:
        network, _ = self._began.pop(protocol, (None, 0))
        theirs = self._by_network.get(network)
        if theirs is not None:
            theirs.pop(protocol, None)
            if not theirs:
                del self._by_network[network]
