"""The incomplete handshakes of a QUIC server, and their bounds.

A spoofed packet is enough to begin one, and a client that has proved its address can
keep it open.  So their total number, their number for each address and their time are
bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from nghttp2py.asyncio.handshake_failures import ALERTS
from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol
from nghttp2py.quic.addresses import network_of
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import ConnectionTerminated
from nghttp2py.quic.packet import QuicErrorCode

__all__ = ["MAX_HANDSHAKES", "TOO_LONG", "Handshakes"]

# How many handshakes may be in progress before clients must prove their addresses: each
# takes some 70 KB, and at a round trip of 100 ms they allow 5,000 connections a second.
MAX_HANDSHAKES = 512

# The share of one address, or of an IPv6 network of one customer (RFC 6177): one in so
# many.
SHARES = 4

# Seconds before another handshake may replace one.
PROTECTED = 1.0

#: The reason with which a handshake is closed that is replaced.
TOO_LONG = "the handshake takes too long"
# The others are those of ngp_quic_expire().
_TIMEOUTS = frozenset({TOO_LONG, "Handshake timeout", "Idle timeout"})


class Handshakes:
    """The incomplete handshakes, the oldest first.

    From ``most`` on, or a quarter of it from one address, a client must prove its
    address (RFC 9000, 8.1.2).  The maximum of either is twice as many: then the oldest
    is dropped for a client that has proved its address.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // SHARES)
        #: How many were begun, and how many of them were completed.
        self.begun = self.completed = 0
        #: How many were not, by reason.
        self.failures: Counter[str] = Counter()
        self._began: dict[QuicConnectionProtocol, tuple[Hashable, float]] = {}
        self._by_network: dict[Hashable, dict[QuicConnectionProtocol, None]] = {}

    def __contains__(self, protocol: object) -> bool:
        return protocol in self._began

    def __len__(self) -> int:
        return len(self._began)

    def needs_proof(self, addr: Any) -> bool:
        """Return whether a client at ``addr`` must prove its address first."""
        return (
            len(self._began) >= self._most
            or len(self._by_network.get(network_of(addr), ())) >= self._share
        )

    def is_full(self, addr: Any) -> bool:
        """Return whether one must be dropped before another from ``addr`` can begin."""
        return (
            len(self._began) >= 2 * self._most
            or len(self._by_network.get(network_of(addr), ())) >= 2 * self._share
        )

    def oldest(self, addr: Any, now: float) -> QuicConnectionProtocol | None:
        """Return the one to drop for another from ``addr``, or ``None`` if each is too
        young: then the client has to try again."""
        theirs = self._by_network.get(network_of(addr), {})
        candidates = theirs if len(theirs) >= 2 * self._share else self._began
        protocol = next(iter(candidates))
        return protocol if now - self._began[protocol][1] >= PROTECTED else None

    def add(self, protocol: QuicConnectionProtocol, addr: Any, now: float) -> None:
        network = network_of(addr)
        self.begun += 1
        self._began[protocol] = network, now
        self._by_network.setdefault(network, {})[protocol] = None

    def failed(self, protocol: QuicConnectionProtocol, quic: QuicConnection) -> None:
        """Count one that has failed, unless it is not among the incomplete."""
        if protocol in self._began:
            self.failures[find_reason(quic.close_event, quic.closed_by_peer)] += 1

    def discard(self, protocol: QuicConnectionProtocol) -> None:
        network, _ = self._began.pop(protocol, (None, 0))
        theirs = self._by_network.get(network)
        if theirs is not None:
            theirs.pop(protocol, None)
            if not theirs:
                del self._by_network[network]


def find_reason(event: ConnectionTerminated | None, by_peer: bool) -> str:
    """Return why a handshake has failed."""
    if event is None:
        return "closed"
    if event.reason_phrase in _TIMEOUTS:
        return "timeout"
    alert = event.error_code - QuicErrorCode.CRYPTO_ERROR
    if event.frame_type is None or not 0 <= alert < 0x100:
        return "other" if event.error_code else "closed"
    reason = ALERTS.get(alert, "other")
    if by_peer and reason == "client_certificate":
        return "server_certificate"
    return reason
