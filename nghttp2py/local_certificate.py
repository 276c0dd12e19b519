"""A self-signed certificate for servers on this machine, made once and kept.

It is for trying a server out: no client trusts it unless it is told to.  Making one
needs the package cryptography, which the extra ``cli`` installs.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nghttp2py.x509 import read_certificate, split_pem

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["LOOPBACK", "LocalCertificate", "data_directory", "local_certificate"]

#: The names that every certificate has.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Days for which a certificate is valid, and before its end is replaced by another.
_LIFETIME = 365
_RENEWAL = 30


class LocalCertificate(NamedTuple):
    """The files of a certificate and its key, in PEM."""

    certificate: Path
    key: Path
    #: The SHA-256 of the public key, in base64, as Chromium's option
    #: ``--ignore-certificate-errors-spki-list`` takes it.
    fingerprint: str


def data_directory() -> Path:
    """Return the directory of the user's data: ``$XDG_DATA_HOME/nghttp2py``.

    Without the variable, or if it is no absolute path, ``~/.local/share`` takes its
    place, as the XDG Base Directory Specification says.
    """
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".local" / "share"
    return base / "nghttp2py"


def local_certificate(
    hosts: Sequence[str] = (), directory: Path | None = None
) -> LocalCertificate:
    """Return a certificate for this machine; make it unless there is one.

    It is valid for ``LOOPBACK`` and for ``hosts``, names or addresses, and is kept in
    ``directory``, by default ``data_directory()``.  It is made anew a month before it
    expires, and if it does not have all of ``hosts``.  Processes may call this at the
    same time.

    Raises ``ImportError`` if there is none and cryptography is not installed,
    ``OSError`` if the directory cannot be written, and ``UnicodeError`` for a name that
    IDNA does not encode.
    """
    directory = data_directory() if directory is None else directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory / "localhost.pem", directory / "localhost.key"
    hosts = list(map(_as_in_certificates, hosts))
    with _locked(directory / "localhost.lock"):
        names = _valid_names(*found)
        if not set(hosts) | set(LOOPBACK) <= names:
            # Names of earlier calls stay, so that two servers use one certificate.
            _make(*found, list(dict.fromkeys((*LOOPBACK, *sorted(names), *hosts))))
        return LocalCertificate(*found, _fingerprint(found[0]))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _valid_names(certificate: Path, key: Path) -> set[str]:
    """Return the names of the certificate that is there; none if it is not usable."""
    try:
        kept = read_certificate(split_pem(certificate.read_bytes())[0])
        key.read_bytes()
    except (OSError, ValueError, IndexError):
        return set()
    if kept.not_after - time.time() < _RENEWAL * 86400:
        return set()
    return {_host_of(kind, value) for kind, value in kept.alternative_names}


def _host_of(kind: str, value: str) -> str:
    return str(ipaddress.ip_address(value)) if kind == "IP Address" else value


def _as_in_certificates(host: str) -> str:
    """Return a host in the form that ``_valid_names`` returns."""
    try:
        # A certificate has no zone (RFC 4007, 11).
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host if host.isascii() else host.encode("idna").decode()


def _make(certificate_file: Path, key_file: Path, hosts: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of other machines of the network may be slow.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_LIFETIME))
        .add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]),
            critical=False,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The key of another certificate is not written over: its file may have readers.
    key_file.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(key_file, flags, 0o600), "wb") as file:
        file.write(private)
    certificate_file.write_bytes(certificate.public_bytes(pem))


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _fingerprint(certificate_file: Path) -> str:
    der = split_pem(certificate_file.read_bytes())[0]
    public = read_certificate(der).public_key
    return base64.b64encode(hashlib.sha256(public).digest()).decode()
