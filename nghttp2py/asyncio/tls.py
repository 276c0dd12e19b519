"""HTTP/2's requirements on TLS (RFC 9113, 3.2 and 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple

from nghttp2py.errors import ErrorCode, TLSConfigurationError, printable
from nghttp2py.x509 import format_time, read_certificate

__all__ = [
    "ClientHello",
    "ServerContexts",
    "TLSFault",
    "check_server_context",
    "find_tls_fault",
    "prepare_context",
    "prepare_server_context",
    "warn_of_validity",
]

logger = logging.getLogger(__name__)

# RFC 9113, 9.2: TLS 1.2 or higher.
_TOO_OLD = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})

# The most names of a client's ALPN list in a log line.
_MAX_OFFERED = 8

# Extensions of a ClientHello (RFC 6066, 3; RFC 7301, 3.1).
_SERVER_NAME, _ALPN = 0, 16
# The most bytes of a record (RFC 8446, 5.1).
_MAX_RECORD = 16384

# A warning comes two weeks before the end of a certificate, when a program that renews
# certificates should have done it; for those of a few days in their last quarter.
_SOON = 14 * 86400.0
_DAY = 86400.0

# OpenSSL's reasons for a server without a certificate for any client.
_NO_CERTIFICATE = frozenset(
    {"NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_CERTIFICATE_SET"}
)


def prepare_context(context: ssl.SSLContext, *others: str) -> None:
    """Prepare a client's context for HTTP/2.

    It then offers only ``h2`` and ``others`` by ALPN, and no compression or
    renegotiation (9.2.1).
    Raises ``TLSConfigurationError`` for a server's context.
    """
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise TLSConfigurationError(
            "ssl is a context for servers; a client needs one of "
            "ssl.create_default_context() or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"
        )
    _prepare(context, *others)


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


class ServerContexts:
    """The contexts of a server, of which each has a certificate."""

    def __init__(
        self,
        default: ssl.SSLContext,
        names: Mapping[str, ssl.SSLContext] | None = None,
        certificates: Mapping[ssl.SSLContext, str] | None = None,
    ) -> None:
        #: That for clients that ask for another name, or for none.
        self.default = default
        self._names = dict(names or {})
        self._certificates = dict(certificates or {})
        #: Whether there is more than one.
        self.are_chosen = any(each is not default for each in self._names.values())

    def choose(self, name: str) -> ssl.SSLContext:
        """Return the context for the name that a client asks for.

        "*" stands for the first label, and for no more (RFC 9525, 6.3).
        """
        name = name.lower()
        found = self._names.get(name)
        if found is None:
            label, _, rest = name.partition(".")
            found = self._names.get(f"*.{rest}") if label else None
        return self.default if found is None else found

    def get_certificate(self, context: ssl.SSLContext) -> str | None:
        """Return the certificate of a context, in PEM, if it is known."""
        return self._certificates.get(context)


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


class ClientHello:
    """The first message of a client (RFC 8446, 4.1.2), as its bytes come.

    ``data`` are the first bytes that the client has sent.  Each byte is parsed once,
    however many pieces they come in.
    """

    __slots__ = ("_message", "_position", "data")

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        # What the whole records have, and where the next one begins.
        self._message = b""
        self._position = 0

    def read_alpn_offer(self) -> list[str] | None:
        """Return the client's ALPN list.

        The result is ``[]`` without ALPN, and ``None`` if the bytes are not a complete
        ClientHello.  Python's ssl only returns what was selected, not what was offered.
        """
        message = self._join()
        if not message:
            return None
        found = _find_extension(message, _ALPN)
        offered: list[str] = []
        names = found[2:] if found else b""
        while names and len(offered) < _MAX_OFFERED:
            offered.append(printable(names[1 : 1 + names[0]]))
            names = names[1 + names[0] :]
        return offered

    def read_server_name(self) -> str | None:
        """Return the name for which the client asks (SNI).

        The result is "" if it asks for none, or the bytes do not begin with a
        ClientHello, and ``None`` if more bytes must be waited for.
        """
        message = self._join()
        if message is None:
            return None
        # A list, whose items have a type before the name; there is one type, and so one
        # item (RFC 6066, 3).
        found = _find_extension(message, _SERVER_NAME) or b""
        if len(found) < 5 or found[2] != 0:
            return ""
        length = int.from_bytes(found[3:5], "big")
        # Python's servername callback writes a traceback for a name that is no ASCII.
        return found[5 : 5 + length].decode("ascii", "replace")

    def _join(self) -> bytes | None:
        """Return the message.

        The result is ``b""`` if the bytes begin with something else, and ``None`` if it
        is incomplete.
        """
        while True:
            whole = 4 + int.from_bytes(self._message[1:4], "big")
            if len(self._message) >= whole:
                return self._message[:whole]
            start = self._position + 5
            header = self.data[self._position : start]
            if header[:1] not in (b"", b"\x16"):  # a handshake record (RFC 8446, 5.1)
                return b""
            if len(header) < 5:
                return None
            length = int.from_bytes(header[3:], "big")
            first = self._message[:1] or self.data[start : start + 1]
            if not 0 < length <= _MAX_RECORD or first not in (b"", b"\x01"):
                return b""
            if len(self.data) < start + length:
                return None
            self._message += self.data[start : start + length]
            self._position = start + length


def _find_extension(hello: bytes, wanted: int) -> bytes | None:
    """Return the contents of an extension of a ClientHello, or None."""
    try:
        position = 4 + 2 + 32  # version, random (RFC 8446, 4.1.2)
        position += 1 + hello[position]  # legacy_session_id
        position += 2 + int.from_bytes(hello[position : position + 2], "big")
        position += 1 + hello[position]  # legacy_compression_methods
    except IndexError:
        return None
    position += 2
    while position < len(hello):
        kind = int.from_bytes(hello[position : position + 2], "big")
        length = int.from_bytes(hello[position + 2 : position + 4], "big")
        position += 4
        if kind == wanted:
            return hello[position : position + length]
        position += length
    return None


# ---- The certificate of a server ----


def check_server_context(context: ssl.SSLContext) -> None:
    """Check by a handshake in memory that a server can serve any client.

    Raises ``TLSConfigurationError`` if the context has no certificate.  Logs a
    warning if the certificate is not valid now, or not for long.
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
    with contextlib.suppress(ValueError):
        found = read_certificate(certificate)
        warn_of_validity("the server's certificate", found.not_before, found.not_after)


def warn_of_validity(what: str, begin: float, end: float) -> None:
    """Log a warning if a certificate is not valid now, or not for long."""
    now = time.time()
    left = end - now
    days = int(abs(left) / _DAY)
    if now < begin:
        logger.warning("%s is not valid before %s", what, format_time(begin))
    elif left < 0:
        logger.warning(
            "%s has expired on %s, %d days ago", what, format_time(end), days
        )
    elif left < min(_SOON, (end - begin) / 4):
        logger.warning("%s expires on %s, in %d days", what, format_time(end), days)


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
