"""The ``tls`` extension of scopes (ASGI TLS Extension 0.2)."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from nghttp2py.exchange import HTTPConnection
from nghttp2py.x509 import Name, read_certificate

__all__ = ["tls_extension"]

_VERSIONS = {
    "TLSv1": 0x0301,
    "TLSv1.1": 0x0302,
    "TLSv1.2": 0x0303,
    "TLSv1.3": 0x0304,
}

# The types of attributes that have a short name (RFC 4514, 3).
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def tls_extension(http: HTTPConnection) -> dict[str, Any] | None:
    """Return the ``tls`` dict of a connection; None if its facts are unknown."""
    tls = http.get_extra_info("ssl_object")
    if tls is None:
        # A transport of QUIC, which is always TLS 1.3 (RFC 9001).
        known = http.get_extra_info("tls")
        return None if known is None else _describe(**known)
    cipher = tls.cipher()
    chain: list[bytes] = []
    certificate = tls.getpeercert(True)
    if certificate:
        chain = [certificate]
    if chain and hasattr(tls, "get_verified_chain"):  # CPython 3.13
        chain = list(tls.get_verified_chain()) or chain
    return _describe(
        version=_VERSIONS.get(tls.version() or ""),
        cipher_suite=None if cipher is None else _suite_number(tls, cipher[0]),
        chain=chain,
        own=http.get_extra_info("server_certificate"),
    )


def _describe(
    version: int | None,
    cipher_suite: int | None,
    chain: list[bytes],
    own: str | None,
) -> dict[str, Any]:
    name = None
    if chain:
        with contextlib.suppress(ValueError):
            name = _format_name(read_certificate(chain[0]).subject)
    return {
        "server_cert": own,
        "tls_version": version,
        "cipher_suite": cipher_suite,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(each) for each in chain],
        "client_cert_name": name,
        # A handshake with an invalid certificate fails.
        "client_cert_error": None,
    }


def _suite_number(tls: ssl.SSLObject, name: str) -> int | None:
    """Return the number of a cipher suite in IANA's registry."""
    for cipher in tls.context.get_ciphers():
        if cipher["name"] == name:
            # OpenSSL puts the number of the protocol in front of it.
            return int(cipher["id"]) & 0xFFFF
    return None


def _format_name(subject: Name) -> str | None:
    """Format a distinguished name, the most specific part first (RFC 4514, 2)."""
    parts = [
        "+".join(f"{_SHORT.get(kind, kind)}={_escape(value)}" for kind, value in part)
        for part in reversed(subject)
    ]
    return ",".join(parts) if parts else None


def _escape(value: str) -> str:
    """Escape what would end the value of an attribute (RFC 4514, 2.4)."""
    escaped = "".join("\\" + c if c in '"+,;<>\\' else c for c in value)
    escaped = escaped.replace("\0", "\\00")
    if escaped[:1] in (" ", "#"):
        escaped = "\\" + escaped
    if len(value) > 1 and escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped
