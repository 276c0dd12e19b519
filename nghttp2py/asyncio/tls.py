"""What HTTP/2 asks of TLS (RFC 9113, 3.2 and 9.2)."""

from __future__ import annotations

import asyncio
import ssl

from nghttp2py.errors import ErrorCode

__all__ = ["find_tls_fault", "prepare_context"]

# RFC 9113, 9.2: TLS 1.2 or higher.
_TOO_OLD = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})


def prepare_context(context: ssl.SSLContext) -> None:
    """Offer ``h2`` alone by ALPN; forbid compression and renegotiation (9.2.1)."""
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def find_tls_fault(transport: asyncio.Transport) -> tuple[ErrorCode, str] | None:
    """Say why HTTP/2 must not be spoken on ``transport``, ``None`` if it may.

    What it says is the error code for it and a text for people.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    protocol = tls.selected_alpn_protocol()
    if protocol != "h2":
        return (
            ErrorCode.HTTP_1_1_REQUIRED,
            f"ALPN has negotiated {protocol}, not h2",
        )
    version = tls.version()
    if version in _TOO_OLD:
        return (
            ErrorCode.INADEQUATE_SECURITY,
            f"{version} is below TLS 1.2 (RFC 9113, 9.2)",
        )
    return None
