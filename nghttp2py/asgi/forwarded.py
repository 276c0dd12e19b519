"""What trusted proxies say about the client: X-Forwarded-* and Forwarded.

A proxy that forwards a request has its own address on the connection, and tells that of
the client, the scheme and the host in fields.  Every client can send such fields, too,
so that they are heeded only from the addresses of proxies that are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from nghttp2py.arguments import check_bool
from nghttp2py.trusted import TrustedAddresses, read_address

__all__ = ["DEFAULT_TRUSTED", "ForwardedPolicy", "Overrides"]

#: The addresses that are trusted by default: those of this machine.
DEFAULT_TRUSTED = "127.0.0.1,::1"

# Entries that are read of a list that proxies append to, from the nearest one.  The
# bound for header sections is far above what chains of proxies need.
_MOST_ENTRIES = 100
# Commas in the quoted strings of one element of Forwarded.
_MOST_COMMAS = 8

# ``host`` and ``host:port`` (RFC 3986, 3.2.2), without userinfo.
_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
)
# The characters of a path (RFC 3986, 3.3).
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
# One ``token = value`` of Forwarded (RFC 7239, 4), with what separates it from the
# next.  Some proxies do not quote what has a colon.
_PAIR = re.compile(
    r"[ \t]*(?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:(?P<token>[^\s;,"]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"))?[ \t]*(?P<end>;|$)'
)
_ESCAPED = re.compile(r"\\(.)")

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}

Fields = Iterable[tuple[bytes, bytes]]


class Overrides(NamedTuple):
    """What the scope of a request gets instead of the connection's own.

    A member that is None changes nothing.  ``client`` is the client's address and its
    port, 0 if that is not known; ``scheme`` is that of the scope, so ``ws`` or ``wss``
    for a WebSocket; ``host`` replaces the field ``host``; ``root_path`` is decoded.
    """

    client: tuple[str, int] | None = None
    scheme: str | None = None
    host: bytes | None = None
    root_path: str | None = None


class ForwardedPolicy:
    """Reads what proxies that are trusted say about the client of a request.

    ``trusted`` is as for ``TrustedAddresses``: addresses, networks, paths of Unix
    sockets, or ``*`` for every peer.  With ``forwarded`` the field Forwarded (RFC 7239)
    is read instead of X-Forwarded-For and X-Forwarded-Proto: never both, because a
    proxy replaces or appends to one of them, and passes on what a client has
    written in the other.  ``host`` heeds the host in Forwarded, or X-Forwarded-Host;
    ``prefix`` heeds X-Forwarded-Prefix.

    Each proxy appends the address of its peer.  So the list is read from its end, and
    the first address that is not trusted is the client's.  If all are trusted, the
    first of the list is, and so it is with ``*``.

    Values that are not valid are ignored.  Raises ``TypeError`` and ``ValueError`` for
    ``trusted``.
    """

    def __init__(
        self,
        trusted: str | Iterable[str] | TrustedAddresses = DEFAULT_TRUSTED,
        *,
        forwarded: bool = False,
        host: bool = False,
        prefix: bool = False,
    ) -> None:
        check_bool("forwarded", forwarded)
        check_bool("host", host)
        check_bool("prefix", prefix)
        if not isinstance(trusted, TrustedAddresses):
            trusted = TrustedAddresses(trusted)
        self.trusted = trusted
        self.forwarded = forwarded
        self.host = host
        self.prefix = prefix

    def trusts(self, peer: Any, local: Any = None) -> bool:
        """Return whether the fields of a connection's requests are heeded.

        ``peer`` and ``local`` are the connection's "peername" and "sockname".  The
        answer holds for the whole connection.
        """
        return self.trusted.trusts(peer, local)

    def apply(
        self,
        peer: Any,
        fields: Fields,
        *,
        local: Any = None,
        websocket: bool = False,
    ) -> Overrides | None:
        """Return what a request's fields change in its scope, or None for nothing.

        ``fields`` are those of the request, with names in lower case.  The peer and its
        end of the connection are as for ``trusts``.
        """
        if not self.trusted.trusts(peer, local):
            return None
        return self.read(fields, websocket=websocket)

    def read(self, fields: Fields, *, websocket: bool = False) -> Overrides | None:
        """Do what ``apply`` does, for a peer that is trusted."""
        hops: list[bytes] = []
        schemes: list[bytes] = []
        hosts: list[bytes] = []
        prefix = None
        for name, value in fields:
            # A loop over all fields: this test excludes most of them.
            if name[:1] not in b"xf":
                continue
            if name == b"forwarded":
                if self.forwarded:
                    hops.append(value)
            elif name[:12] != b"x-forwarded-":
                continue
            elif name == b"x-forwarded-prefix":
                prefix = value
            elif self.forwarded:
                continue
            elif name == b"x-forwarded-for":
                hops.append(value)
            elif name == b"x-forwarded-proto":
                schemes.append(value)
            elif name == b"x-forwarded-host":
                hosts.append(value)
        root_path = None
        if prefix is not None and self.prefix:
            root_path = _read_prefix(prefix)
        if self.forwarded:
            client, scheme, host = self._read_forwarded(hops)
        else:
            client, scheme, host = self._read_each(hops, schemes, hosts)
        if not self.host:
            host = None
        if client is None and scheme is None and host is None and root_path is None:
            return None
        if scheme is not None and websocket:
            scheme = _WEBSOCKET_SCHEMES[scheme]
        return Overrides(client, scheme, host, root_path)

    def _read_each(
        self, hops: list[bytes], schemes: list[bytes], hosts: list[bytes]
    ) -> tuple[tuple[str, int] | None, str | None, bytes | None]:
        """Read X-Forwarded-For, -Proto and -Host."""
        entries = _split(hops)
        at, client = self._find_client(entries)
        scheme = host = None
        # A proxy may append to these lists or replace them.  If they are as long as
        # the other, the entry of the client's proxy is at the same place; else the
        # nearest proxy's is the only one that no client can have made.
        if schemes:
            text = _pick(_split(schemes), at, len(entries))
            scheme = _SCHEMES.get(text.lower())
        if hosts:
            host = _read_host(_pick(_split(hosts), at, len(entries)))
        return client, scheme, host

    def _read_forwarded(
        self, values: list[bytes]
    ) -> tuple[tuple[str, int] | None, str | None, bytes | None]:
        """Read the elements of Forwarded."""
        elements = _parse_forwarded(", ".join(v.decode("latin-1") for v in values))
        if not elements:
            return None, None, None
        at, client = self._find_client([each.get("for", "") for each in elements])
        element = elements[at]
        scheme = _SCHEMES.get(element.get("proto", "").lower())
        return client, scheme, _read_host(element.get("host", ""))

    def _find_client(self, entries: list[str]) -> tuple[int, tuple[str, int] | None]:
        """Return which entry is the client's, and its address if it is one."""
        if not entries:
            return -1, None
        if self.trusted.everyone:
            return 0, _read_node(entries[0])
        node = None
        for at in range(len(entries) - 1, -1, -1):
            node = _read_node(entries[at])
            # What a trusted proxy does not know, or hides, ends the list: before it is
            # what a client may have made up.
            if node is None or not self.trusted.trusts_host(node[0]):
                return at, node
        return 0, node

    def __repr__(self) -> str:
        return f"ForwardedPolicy({self.trusted!r})"


def _split(values: list[bytes]) -> list[str]:
    """Return the entries of a list that several fields may have (RFC 9110, 5.6.1)."""
    text = b",".join(values).decode("latin-1")
    entries = text.rsplit(",", _MOST_ENTRIES)[-_MOST_ENTRIES:]
    return [entry for entry in map(str.strip, entries) if entry]


def _pick(entries: list[str], at: int, length: int) -> str:
    """Return the entry that was added with number ``at`` of ``length`` others."""
    if not entries:
        return ""
    return entries[at] if len(entries) == length else entries[-1]


def _read_node(text: str) -> tuple[str, int] | None:
    """Return the address and the port of a node, or None if it is no address.

    It is an address of IPv4, one of IPv6 with or without brackets, or one of them
    with a port (RFC 7239, 6); "unknown" and hidden names are none.
    """
    port = ""
    if text.startswith("["):
        text, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":") or ":" not in text:
            return None
        port = rest[1:]
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
    if "%" in text or read_address(text) is None:
        return None
    number = 0
    if port and len(port) <= 5 and port.isascii() and port.isdecimal():
        number = int(port)
    return text, number if number < 65536 else 0


def _read_host(text: str) -> bytes | None:
    host = text.encode("latin-1")
    if len(host) > 260 or not _HOST.fullmatch(host):
        return None
    return host


def _read_prefix(value: bytes) -> str | None:
    """Return a path without a slash at its end, decoded, or None if it is none."""
    text = value.decode("latin-1").strip().rstrip("/")
    if not _PREFIX.fullmatch(text):
        return None
    try:
        text = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _parse_forwarded(text: str) -> list[dict[str, str]]:
    """Return the elements of Forwarded, each a dict of its pairs (RFC 7239, 4).

    They are read from the end, which the nearest proxy has written: what a client has
    made up before it, such as a quote without an end, cannot hide it.  What is not
    valid is an element without pairs, and ends the list.
    """
    elements: list[dict[str, str]] = []
    end = start = len(text)
    commas = 0
    while end > 0:
        comma = text.rfind(",", 0, start)
        element = _parse_element(text[comma + 1 : end])
        if element is None:
            # The comma may be in a quoted string.
            commas += 1
            if comma < 0 or commas > _MOST_COMMAS:
                elements.append({})
                break
            start = comma
            continue
        if element:
            elements.append(element)
        if len(elements) >= _MOST_ENTRIES:
            break
        end = start = comma
        commas = 0
    elements.reverse()
    return elements


def _parse_element(text: str) -> dict[str, str] | None:
    """Return the pairs of an element, or None if it is not valid."""
    element: dict[str, str] = {}
    at = 0
    while True:
        match = _PAIR.match(text, at)
        if match is None:
            return None
        name = match["name"]
        if name is not None:
            name = name.lower()
            if name in element:
                return None  # "Each parameter MUST NOT occur more than once"
            quoted = match["quoted"]
            if quoted is None:
                element[name] = match["token"]
            else:
                element[name] = _ESCAPED.sub(r"\1", quoted)
        if not match["end"]:
            return element
        at = match.end()
