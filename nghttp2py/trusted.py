"""Which addresses belong to proxies whose word about the client is taken."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from typing import Any

__all__ = ["TrustedAddresses", "read_address"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# The longest text of an address: one of IPv6 with a zone identifier.
_LONGEST = 64
# Answers that are kept.  Peers choose the addresses, so their number has a bound.
_KEPT = 1024


def read_address(text: str) -> IPAddress | None:
    """Return the address that ``text`` has, or None.

    The zone identifier of an address of IPv6 is dropped, and an address of IPv4 that
    IPv6 embeds (RFC 4291, 2.5.5.2), as sockets for both have it, becomes that of IPv4.
    """
    if len(text) > _LONGEST:
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


class TrustedAddresses:
    """A set of addresses, networks and paths of Unix sockets.

    ``addresses`` is a text with commas, or an iterable of texts.  Each is an address
    of IPv4 or IPv6, a network in CIDR notation, the path of a Unix socket (``/path``,
    ``unix:/path``, ``@abstract``), ``unix:`` for every Unix socket, or ``*`` for
    every peer.  Raises ``TypeError`` and ``ValueError`` for anything else.
    """

    def __init__(self, addresses: str | Iterable[str]) -> None:
        if isinstance(addresses, str):
            addresses = addresses.split(",")
        #: Whether every peer is trusted.
        self.everyone = False
        self._every_path = False
        self._addresses: set[IPAddress] = set()
        self._networks: list[IPNetwork] = []
        self._paths: set[str] = set()
        self._known: dict[str, bool] = {}
        for each in addresses:
            if not isinstance(each, str):
                raise TypeError(f"a trusted address must be a str, not {each!r}")
            self._add(each.strip())

    def _add(self, text: str) -> None:
        if not text:
            return
        if text == "*":
            self.everyone = True
        elif text == "unix:":
            self._every_path = True
        elif text.startswith(("/", "unix:")):
            self._paths.add(text.removeprefix("unix:"))
        elif text.startswith("@"):
            self._paths.add("\0" + text[1:])
        elif "/" in text:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError as error:
                raise ValueError(f"{text!r} is no trusted network: {error}") from None
        else:
            address = read_address(text)
            if address is None:
                raise ValueError(
                    f"{text!r} cannot be trusted: it is no IP address, no network, no "
                    "path of a Unix socket, and not '*'"
                )
            self._addresses.add(address)

    def trusts_host(self, host: str) -> bool:
        """Return whether ``host``, the text of an IP address, is in the set."""
        if self.everyone:
            return True
        answer = self._known.get(host)
        if answer is None:
            address = read_address(host)
            answer = address is not None and (
                address in self._addresses
                or any(address in network for network in self._networks)
            )
            if len(self._known) >= _KEPT:
                self._known.clear()
            if len(host) <= _LONGEST:
                self._known[host] = answer
        return answer

    def trusts(self, peer: Any, local: Any = None) -> bool:
        """Return whether the peer of a connection is in the set.

        ``peer`` and ``local`` are the addresses of the connection's ends, as sockets
        give them ("peername" and "sockname").  A Unix socket is trusted by the path of
        either end, because clients seldom have one.
        """
        if isinstance(peer, tuple):
            return self.trusts_host(str(peer[0]))
        if self.everyone:
            return True
        if not (self._every_path or self._paths):
            return False
        ends = [_to_path(end) for end in (peer, local)]
        if self._every_path:
            return any(end is not None for end in ends)
        return any(end in self._paths for end in ends)

    def __repr__(self) -> str:
        if self.everyone:
            return "TrustedAddresses('*')"
        members = [
            *map(str, self._addresses),
            *map(str, self._networks),
            *self._paths,
            *(["unix:"] if self._every_path else []),
        ]
        return f"TrustedAddresses({','.join(sorted(members))!r})"


def _to_path(end: Any) -> str | None:
    """Return the address of a Unix socket as text, or None if it is another."""
    return os.fsdecode(end) if isinstance(end, str | bytes) else None
