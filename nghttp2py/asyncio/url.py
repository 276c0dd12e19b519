"""The parts of a URL that a request needs (RFC 3986, RFC 9110, 4.2)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

__all__ = ["DEFAULT_PORTS", "SplitURL", "make_authority", "split_url"]

#: The default ports, which an authority leaves out.
DEFAULT_PORTS = {"http": 80, "https": 443}

# The characters that are not percent-encoded in a request target: those that RFC 3986
# allows there, and "%", since text that looks percent-encoded is taken as such.
_SAFE = "%/?:@!$&'()*+,;=-._~[]|"


class SplitURL(NamedTuple):
    """A URL's parts in the form that a request carries; without a host all but
    ``target`` are ``None``."""

    scheme: str | None
    host: str | None
    port: int | None
    authority: str | None
    target: str


def make_authority(scheme: str, host: str, port: int) -> str:
    """Join host and port, leaving out a port that the scheme implies.

    The zone of an IPv6 address has a meaning on this machine only, so it is left out as
    well (RFC 6874, 4).
    """
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"
    return host if port == DEFAULT_PORTS.get(scheme) else f"{host}:{port}"


def split_url(url: str) -> SplitURL:
    """Split an absolute ``http`` or ``https`` URL, or one without scheme and host.

    The fragment is dropped, the host is converted to ASCII (IDNA), and what must not be
    in a request target is percent-encoded.  The zone of an IPv6 address,
    ``[fe80::1%25eth0]``, is decoded in ``host`` and left out of ``authority`` (RFC
    6874).  User and password are refused: the caller has to send them. Raises
    ``ValueError``.
    """
    return _split_cached(url)


def _decode_zone(host: str, url: str) -> str:
    """Return an IPv6 address with its zone in the form of the socket functions."""
    address, percent, zone = host.partition("%")
    if not percent:
        return host
    # RFC 6874, 3 suggests that a bare "%" is accepted, too, since people type it.
    zone = unquote(zone.removeprefix("25") or zone)
    if not zone or not zone.isprintable() or any(c in zone for c in " /?#[]@%"):
        raise ValueError(f"{url!r}: no zone of an IPv6 address (RFC 6874)")
    return f"{address}%{zone}"


def _split_url(url: str) -> SplitURL:
    if any(c <= " " or c == "\x7f" for c in url):
        raise ValueError(f"{url!r} has spaces or control characters in it")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        shown = "the URL" if "@" in url else repr(url)  # it may have a password
        raise ValueError(f"{shown}: {error}") from None
    target = quote(parts.path or "/", safe=_SAFE)
    if not target.startswith("/") and target != "*":
        raise ValueError(
            f"{url!r} is neither a URL such as 'https://example.org' nor a path such "
            "as '/a'"
        )
    if parts.query or "?" in url.partition("#")[0]:
        target += "?" + quote(parts.query, safe=_SAFE)
    if not parts.scheme and not parts.netloc:
        return SplitURL(None, None, None, None, target)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{url!r} does not begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with user or password is not taken: send authorization")
    host = parts.hostname
    if not host:
        raise ValueError(f"{url!r} has no host")
    if "[" in parts.netloc:
        host = _decode_zone(host, url)
        # Python before 3.11 accepts anything between the brackets.
        try:
            IPv6Address(host.partition("%")[0])
        except ValueError:
            raise ValueError(f"{url!r}: no IPv6 address in the brackets") from None
    else:
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{url!r}: no host name: {error}") from None
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if port is None:
        port = DEFAULT_PORTS[parts.scheme]
    return SplitURL(
        parts.scheme, host, port, make_authority(parts.scheme, host, port), target
    )


# Cached, because a client requests the same few URLs again and again.
_split_cached = lru_cache(maxsize=1024)(_split_url)
