"""Certificates and TLS of a server, from files, for TCP and for QUIC alike."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from nghttp2py.arguments import check_int, check_type, describe
from nghttp2py.asyncio.tls import (
    ServerContexts,
    prepare_server_context,
    warn_of_validity,
)
from nghttp2py.errors import TLSConfigurationError
from nghttp2py.x509 import (
    Certificate,
    find_private_key,
    is_host_pattern,
    read_certificate,
    split_pem,
)

if TYPE_CHECKING:
    # QUIC is imported when it is first used: not every build has it.
    from nghttp2py.quic import QuicConfiguration

__all__ = ["LoadedCertificate", "LoadedTLS", "TLSOptions", "check_pair", "load_tls"]

#: The bytes of ``TLSOptions.ticket_key``, as GnuTLS needs them.
TICKET_KEY_LENGTH = 64

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

# OpenSSL's reasons for a key that is not the certificate's.
_MISMATCHES = frozenset(
    {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
)

FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class TLSOptions:
    """The certificates of a server in files, and how it uses TLS.

    The files are read when a server is made, and again by its method
    ``reload_certificates``.  Raises ``TypeError`` and ``ValueError`` for invalid
    values.
    """

    #: Pairs of paths: a certificate, in front of its intermediate certificates, and its
    #: private key, both in PEM.  The key is ``None`` if it is in the first file.  A
    #: client gets the first certificate that has the name for which it asks (SNI, RFC
    #: 6066, 3), and the first of all if it asks for another name or none.
    certificates: Sequence[tuple[FilePath, FilePath | None]]
    #: The password of encrypted keys.
    password: str | bytes | None = field(default=None, repr=False)
    #: The file of the authorities of client certificates, in PEM; ``None``: those of
    #: the system.
    ca_certs: FilePath | None = None
    #: Whether clients must have a certificate: ``ssl.CERT_NONE``, ``CERT_OPTIONAL`` or
    #: ``CERT_REQUIRED``.
    verify_mode: int = ssl.CERT_NONE
    #: The lowest version over TCP.  QUIC has TLS 1.3 (RFC 9001, 4.2).
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    #: The cipher suites of TLS 1.2, as OpenSSL names them; ``None``: Python's.
    ciphers: str | None = None
    #: 64 secret bytes that encrypt the session tickets of QUIC.  Servers with the same
    #: key resume one another's sessions.  ``None``: random ones.
    ticket_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_type("certificates", self.certificates, (list, tuple), "a list of pairs")
        if not self.certificates:
            raise ValueError("certificates must have a pair of paths")
        for pair in self.certificates:
            check_pair("each of certificates", pair)
        if self.password is not None:
            check_type("password", self.password, (str, bytes), "a str or bytes")
        if self.ca_certs is not None:
            check_type("ca_certs", self.ca_certs, (str, os.PathLike), "a path")
        check_int("verify_mode", self.verify_mode, 0, 2)
        if self.minimum_version not in _VERSIONS:
            raise ValueError(
                "minimum_version must be TLSVersion.TLSv1_2 or TLSv1_3 (RFC 9113, "
                f"9.2), not {describe(self.minimum_version)}"
            )
        if self.ciphers is not None:
            check_type("ciphers", self.ciphers, str, "a str")
        if self.ticket_key is not None:
            check_type("ticket_key", self.ticket_key, bytes, "bytes")
            if len(self.ticket_key) != TICKET_KEY_LENGTH:
                raise ValueError(
                    f"ticket_key must have {TICKET_KEY_LENGTH} bytes, not "
                    f"{len(self.ticket_key)}"
                )


def check_pair(name: str, pair: Any) -> None:
    """Raise unless ``pair`` is the paths of a certificate and its key."""
    check_type(name, pair, tuple, "the paths (certificate, key)")
    if len(pair) != 2:
        raise ValueError(f"{name} must be two paths, (certificate, key), not {pair!r}")
    check_type(f"the first path of {name}", pair[0], (str, os.PathLike), "a path")
    if pair[1] is not None:
        check_type(f"the second path of {name}", pair[1], (str, os.PathLike), "a path")


class LoadedCertificate(NamedTuple):
    """A certificate that was read from files, with its key."""

    #: The path of its file.
    path: str
    certificate: Certificate
    #: The certificate and its intermediate certificates, in PEM.
    chain: tuple[bytes, ...]
    key: bytes
    #: Names by which it is chosen: DNS names in lower case, the first label of which
    #: may be "*".
    names: tuple[str, ...]
    context: ssl.SSLContext


class LoadedTLS(NamedTuple):
    """``TLSOptions`` whose files were read."""

    options: TLSOptions
    #: At least one; a name is only of the first that has it.
    certificates: tuple[LoadedCertificate, ...]
    #: The file of ``ca_certs``, or None.
    authorities: bytes | None

    def make_contexts(self, *protocols: str) -> ServerContexts:
        """Return the contexts of TLS over TCP, by name.

        ``protocols`` are those that are spoken beside HTTP/2, by their names in ALPN.
        """
        for each in self.certificates:
            prepare_server_context(each.context, *protocols)
        return ServerContexts(
            self.certificates[0].context,
            {name: each.context for each in self.certificates for name in each.names},
            {
                each.context: ssl.DER_cert_to_PEM_cert(each.certificate.der)
                for each in self.certificates
            },
        )

    def configure(self, quic: QuicConfiguration) -> None:
        """Set the certificates and what else is of TLS on a server's configuration."""
        from nghttp2py.quic.configuration import ServerCertificate

        password = self.options.password
        if isinstance(password, str):
            password = password.encode()
        first, *others = self.certificates
        quic.certificate, quic.certificate_chain = first.chain[0], first.chain[1:]
        quic.private_key, quic.key_password = first.key, password
        quic.certificates = {}
        for each in self.certificates if others else ():
            own = ServerCertificate(each.chain[0], each.key, each.chain[1:], password)
            quic.certificates.update(dict.fromkeys(each.names, own))
        quic.verify_mode = int(self.options.verify_mode)
        authorities = self.authorities
        if quic.verify_mode and authorities is None:
            # Those of the system, as OpenSSL finds them.
            found = first.context.get_ca_certs(binary_form=True)
            authorities = "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
        quic.load_verify_locations(cadata=authorities)
        # A client resumes its session for a full handshake less, but sends no early
        # data: these could be replayed to another server with this key (RFC 8446, 8).
        quic.session_tickets, quic.early_data = True, False
        quic.session_ticket_key = self.options.ticket_key
        # load_tls() has done it, and names the files.
        quic.validity_logged = True


def load_tls(options: TLSOptions) -> LoadedTLS:
    """Read the files of ``options``.

    Logs a warning for each certificate that is not valid now, or not for long.  Raises
    ``OSError`` for a file that cannot be read, and ``TLSConfigurationError`` for what
    cannot be used.  Both name the file.
    """
    authorities = None
    if options.ca_certs is not None:
        authorities = _read(options.ca_certs)
        if not _split(authorities, options.ca_certs):
            raise TLSConfigurationError(
                f"there is no certificate of an authority in {_name(options.ca_certs)}"
            )
    certificates: list[LoadedCertificate] = []
    taken: set[str] = set()
    for certfile, keyfile in options.certificates:
        loaded = _load_pair(options, authorities, certfile, keyfile)
        names = tuple(name for name in loaded.names if name not in taken)
        if certificates and not names:
            raise TLSConfigurationError(
                f"the certificate in {loaded.path!r} would never be used: it has no "
                "DNS name that those before it have not"
            )
        taken.update(names)
        certificates.append(loaded._replace(names=names))
    for path, certificate, *_ in certificates:
        what = f"the certificate in {path!r}"
        warn_of_validity(what, certificate.not_before, certificate.not_after)
    return LoadedTLS(options, tuple(certificates), authorities)


def _name(path: FilePath) -> str:
    return repr(os.fsdecode(path))


def _read(path: FilePath) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _split(data: bytes, path: FilePath) -> list[bytes]:
    try:
        return split_pem(data)
    except ValueError as error:
        raise TLSConfigurationError(f"{_name(path)}: {error}") from None


def _load_pair(
    options: TLSOptions,
    authorities: bytes | None,
    certfile: FilePath,
    keyfile: FilePath | None,
) -> LoadedCertificate:
    data = _read(certfile)
    chain = _split(data, certfile)
    if not chain:
        raise TLSConfigurationError(f"there is no certificate in {_name(certfile)}")
    key = find_private_key(data if keyfile is None else _read(keyfile))
    if key is None:
        where = _name(certfile if keyfile is None else keyfile)
        raise TLSConfigurationError(f"there is no private key in {where}")
    try:
        certificate = read_certificate(chain[0])
    except ValueError as error:
        raise TLSConfigurationError(f"{_name(certfile)}: {error}") from None
    return LoadedCertificate(
        os.fsdecode(certfile),
        certificate,
        tuple(ssl.DER_cert_to_PEM_cert(each).encode() for each in chain),
        key,
        tuple(dict.fromkeys(filter(is_host_pattern, certificate.dns_names))),
        _make_context(options, authorities, certfile, keyfile),
    )


def _make_context(
    options: TLSOptions,
    authorities: bytes | None,
    certfile: FilePath,
    keyfile: FilePath | None,
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = options.minimum_version
    password: Any = options.password
    try:
        context.load_cert_chain(
            certfile, keyfile, _refuse_prompt if password is None else password
        )
    except (ssl.SSLError, ValueError) as error:
        raise _explain(error, certfile, keyfile, password is not None) from None
    context.verify_mode = ssl.VerifyMode(options.verify_mode)
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=b"".join(split_pem(authorities)))
        except ssl.SSLError as error:
            assert options.ca_certs is not None
            raise TLSConfigurationError(
                f"the authorities in {_name(options.ca_certs)} cannot be used: "
                f"{_reason(error)}"
            ) from None
    elif options.verify_mode:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    if options.ciphers is not None:
        try:
            context.set_ciphers(options.ciphers)
        except ssl.SSLError as error:
            raise TLSConfigurationError(
                f"the ciphers {options.ciphers!r} cannot be used: {_reason(error)}"
            ) from None
    return context


def _refuse_prompt() -> str:
    # OpenSSL would wait for a terminal.
    raise ValueError("the key is encrypted, and there is no password")


def _explain(
    error: Exception, certfile: FilePath, keyfile: FilePath | None, password: bool
) -> TLSConfigurationError:
    where = _name(certfile)
    if getattr(error, "reason", None) in _MISMATCHES:
        key = "the key in it" if keyfile is None else f"the key in {_name(keyfile)}"
        return TLSConfigurationError(
            f"the certificate in {where} and {key} do not belong together"
        )
    if keyfile is not None:
        where += f" and {_name(keyfile)}"
    return TLSConfigurationError(
        f"no certificate with its key in {where}: {_reason(error)}"
        + ("; the password may be wrong" if password else "")
    )


def _reason(error: Exception) -> str:
    reason: str | None = getattr(error, "reason", None)
    if reason is not None:
        return reason.replace("_", " ").lower()
    # Python's set_ciphers() puts its text into a tuple.
    # An error without a reason has a code before its text, such as "[SSL] PEM lib".
    text = error.args[-1] if error.args else error
    return str(text[0] if isinstance(text, tuple) and text else text)
