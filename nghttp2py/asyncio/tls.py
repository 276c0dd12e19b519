"""HTTP/2's requirements on TLS (RFC 9113, 3.2 and 9.2)."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import logging
import ssl
import time
from typing import NamedTuple

from nghttp2py.errors import ErrorCode, TLSConfigurationError, printable

__all__ = [
    "TLSFault",
    "check_server_context",
    "find_tls_fault",
    "prepare_context",
    "prepare_server_context",
    "read_alpn_offer",
]

logger = logging.getLogger(__name__)

# RFC 9113, 9.2: TLS 1.2 or higher.
_TOO_OLD = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})

# The most names of a client's ALPN list in a log line.
_MAX_OFFERED = 8

# OpenSSL's reasons for a server without a certificate for any client.
_NO_CERTIFICATE = frozenset(
    {"NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_CERTIFICATE_SET"}
)


def prepare_context(context: ssl.SSLContext) -> None:
    """Prepare a client's context for HTTP/2.

    It then offers only ``h2`` by ALPN, and no compression or renegotiation (9.2.1).
    Raises ``TLSConfigurationError`` for a server's context.
    """
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise TLSConfigurationError(
            "ssl is a context for servers; a client needs one of "
            "ssl.create_default_context() or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"
        )
    _prepare(context)


def _prepare(context: ssl.SSLContext, *others: str) -> None:
    context.set_alpn_protocols(["h2", *others])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def prepare_server_context(context: ssl.SSLContext, *others: str) -> None:
    """Prepare a server's context for HTTP/2: as a client's, and its cipher suites.

    ``others`` are the protocols that it speaks, too, by their names in ALPN.

    The TLS 1.2 cipher suites that RFC 9113, Appendix A, prohibits are removed, so that
    none is selected if a client offers others, too.  Raises ``TLSConfigurationError``
    for a client's context.
    """
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise TLSConfigurationError(
            "ssl is a context for clients; a server needs one of "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) or "
            "ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), with its certificate"
        )
    _prepare(context, *others)
    names = [
        cipher["name"]
        for cipher in context.get_ciphers()
        if cipher["protocol"] != "TLSv1.3"
    ]
    allowed = [name for name in names if not is_prohibited(name)]
    # A context for TLS 1.3 only may have no other suites.
    if allowed and len(allowed) < len(names):
        context.set_ciphers(":".join(allowed))


def is_prohibited(cipher: str) -> bool:
    """Return whether RFC 9113, Appendix A, lists a TLS 1.2 cipher suite of OpenSSL.

    It lists all without an ephemeral key exchange or without an AEAD (9.2.2).
    """
    ephemeral = cipher.startswith(("ECDHE-", "DHE-"))
    aead = "GCM" in cipher or "CCM" in cipher or "CHACHA20" in cipher
    return not (ephemeral and aead)


class TLSFault(NamedTuple):
    """Why HTTP/2 must not be used on a connection."""

    error_code: ErrorCode
    #: A text for people.
    reason: str
    #: The protocol that ALPN has selected, if that is the reason.
    negotiated: str | None = None


def find_tls_fault(transport: asyncio.Transport) -> TLSFault | None:
    """Return why HTTP/2 must not be used on ``transport``, or ``None`` if it may."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    protocol = tls.selected_alpn_protocol()
    if protocol != "h2":
        return TLSFault(
            ErrorCode.HTTP_1_1_REQUIRED,
            _explain_alpn(transport, tls, protocol),
            protocol,
        )
    version = tls.version()
    if version in _TOO_OLD:
        return TLSFault(
            ErrorCode.INADEQUATE_SECURITY,
            f"{version} is below TLS 1.2 (RFC 9113, 9.2)",
        )
    cipher = tls.cipher()
    if version == "TLSv1.2" and cipher is not None and is_prohibited(cipher[0]):
        return TLSFault(
            ErrorCode.INADEQUATE_SECURITY,
            f"the cipher suite {cipher[0]} is prohibited (RFC 9113, 9.2.2)",
        )
    return None


def _explain_alpn(
    transport: asyncio.Transport, tls: ssl.SSLObject, protocol: str | None
) -> str:
    """Describe which side's ALPN prevented HTTP/2."""
    if protocol is not None:
        return f"ALPN has negotiated {protocol}, not h2"
    if not tls.server_side:
        return "the server has not chosen h2 by ALPN: it does not speak HTTP/2"
    offered: list[str] | None = transport.get_extra_info("alpn_offered")
    if offered is None:
        return "the client offered by ALPN no protocol that is served, which is h2"
    if not offered:
        return "the client offered no protocol by ALPN, not h2: it speaks HTTP/1.1"
    return f"the client offered {', '.join(offered)} by ALPN, not h2"


def read_alpn_offer(hello: bytes) -> list[str] | None:
    """Return the ALPN list of a client, from the first bytes that it sent.

    The result is ``[]`` without ALPN, and ``None`` if the bytes are not a complete
    ClientHello.  Python's ssl only returns what was selected, not what was offered.
    """
    try:
        message, whole = b"", 4
        while len(message) < whole:
            kind, length = hello[0], int.from_bytes(hello[3:5], "big")
            if kind != 22 or not length:  # a handshake record (RFC 8446, 5.1)
                return None
            message += hello[5 : 5 + length]
            hello = hello[5 + length :]
            if len(message) >= 4:
                whole = 4 + int.from_bytes(message[1:4], "big")
        position = 4 + 2 + 32  # version, random (RFC 8446, 4.1.2)
        position += 1 + message[position]  # legacy_session_id
        position += 2 + int.from_bytes(message[position : position + 2], "big")
        position += 1 + message[position]  # legacy_compression_methods
        position += 2
        while position < len(message):
            kind = int.from_bytes(message[position : position + 2], "big")
            length = int.from_bytes(message[position + 2 : position + 4], "big")
            position += 4
            if kind == 16:  # application_layer_protocol_negotiation (RFC 7301, 3.1)
                names = message[position + 2 : position + length]
                offered: list[str] = []
                while names and len(offered) < _MAX_OFFERED:
                    offered.append(printable(names[1 : 1 + names[0]]))
                    names = names[1 + names[0] :]
                return offered
            position += length
        return []
    except IndexError:
        return None


# ---- The certificate of a server ----


def check_server_context(context: ssl.SSLContext) -> None:
    """Check by a handshake in memory that a server can serve any client.

    Raises ``TLSConfigurationError`` if the context has no certificate.  Logs a
    warning if the certificate has expired or is not valid yet.
    """
    # Its servername callback may set the certificates, and we must not call it.
    if context.sni_callback is not None:
        return
    try:
        certificate = _get_certificate(context)
    except ssl.SSLError as error:
        if error.reason in _NO_CERTIFICATE:
            raise TLSConfigurationError(
                "ssl has no certificate that a client could use: call its "
                "load_cert_chain()"
            ) from None
        return
    if certificate is None:
        return
    validity = _read_validity(certificate)
    if validity is None:
        return
    begin, end = validity
    now = time.time()
    if now > end:
        logger.warning("the server's certificate has expired on %s", _format(end))
    elif now < begin:
        logger.warning(
            "the server's certificate is not valid before %s", _format(begin)
        )


def _format(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _get_certificate(context: ssl.SSLContext) -> bytes | None:
    """Return the certificate that a server's context presents, in DER.

    Return ``None`` if the handshake ends earlier because it requires a client
    certificate. Raises ``ssl.SSLError`` if the server's side fails.
    """
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trial.check_hostname = False
    trial.verify_mode = ssl.CERT_NONE
    trial.set_ciphers("ALL:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trial.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    # Each turn is a flight; TLS 1.2 has two from each side.
    for _ in range(4):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return None
        else:
            return client.getpeercert(binary_form=True)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
    return None


def _read_validity(certificate: bytes) -> tuple[float, float] | None:
    """Return from when to when a certificate is valid (RFC 5280, 4.1.2.5)."""
    try:
        content, _ = _read_der(certificate, 0)  # Certificate
        position, _ = _read_der(certificate, content)  # TBSCertificate
        if certificate[position] == 0xA0:
            _, position = _read_der(certificate, position)  # version
        for _ in range(3):  # serialNumber, signature, issuer
            _, position = _read_der(certificate, position)
        begin, _ = _read_der(certificate, position)  # Validity
        _, end = _read_der(certificate, begin)
        return _read_time(certificate, begin), _read_time(certificate, end)
    except (IndexError, ValueError):
        return None


def _read_der(data: bytes, position: int) -> tuple[int, int]:
    """Return where the contents of an element begin and end (X.690)."""
    length = data[position + 1]
    position += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[position : position + size], "big")
        position += size
    return position, position + length


def _read_time(data: bytes, position: int) -> float:
    start, end = _read_der(data, position)
    text = data[start:end].decode("ascii")
    if data[position] == 0x17:
        # UTCTime has two digits of the year: 50 means 1950 (RFC 5280, 4.1.2.5.1).
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
