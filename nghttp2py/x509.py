"""Certificates (RFC 5280), read from their DER.

Python's ``ssl`` decodes only the certificate of a peer, and only if it has verified it
itself.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import ipaddress
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Certificate",
    "Name",
    "find_certificates",
    "find_private_key",
    "format_time",
    "is_host_pattern",
    "read_certificate",
    "split_pem",
]

#: A distinguished name: parts, each of which is pairs of a type and a value.
Name = tuple[tuple[tuple[str, str], ...], ...]

# Tags (X.680, 8.4), those of a certificate's fields included.
_INTEGER, _BITS, _OCTETS, _OID = 0x02, 0x03, 0x04, 0x06
_SEQUENCE, _SET, _UTC_TIME, _TIME = 0x30, 0x31, 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3

# How each type of string is encoded (X.690, 8.23).
_ENCODINGS = {
    0x0C: "utf-8",
    0x12: "ascii",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}

_ALTERNATIVE_NAMES = "2.5.29.17"

# The types of a name's attributes, as OpenSSL names them.
_ATTRIBUTES = {
    "0.9.2342.19200300.100.1.1": "userId",
    "0.9.2342.19200300.100.1.25": "domainComponent",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionLocalityName",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionStateOrProvinceName",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionCountryName",
    "2.5.4.3": "commonName",
    "2.5.4.4": "surname",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "countryName",
    "2.5.4.7": "localityName",
    "2.5.4.8": "stateOrProvinceName",
    "2.5.4.9": "streetAddress",
    "2.5.4.10": "organizationName",
    "2.5.4.11": "organizationalUnitName",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.41": "name",
    "2.5.4.42": "givenName",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
}

# RFC 7468, 5 and 10.
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL
)
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----.+?-----END (?P=kind)-----",
    re.DOTALL,
)
_HOST_PATTERN = re.compile(r"(?:\*\.)?[\w-]+(?:\.[\w-]+)*", re.ASCII)


@dataclass(frozen=True)
class Certificate:
    """A certificate; times are in seconds since 1970."""

    der: bytes
    version: int
    serial_number: int
    issuer: Name
    subject: Name
    not_before: float
    not_after: float
    #: The names of the extension subjectAltName: pairs of a type and a value, as in
    #: ``ssl.SSLSocket.getpeercert`` (RFC 5280, 4.2.1.6).
    alternative_names: tuple[tuple[str, Any], ...]
    #: The DER of subjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    public_key: bytes

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS names for which the certificate is, in lower case.

        The subject is not looked at (RFC 9525, 2).
        """
        return tuple(
            value.lower() for kind, value in self.alternative_names if kind == "DNS"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate in the form of ``ssl.SSLSocket.getpeercert``.

        The URLs of the extensions (``OCSP``, ``caIssuers`` and
        ``crlDistributionPoints``) are left out.
        """
        # OpenSSL writes whole bytes.
        digits = f"{abs(self.serial_number):X}"
        if len(digits) % 2:
            digits = "0" + digits
        found: dict[str, Any] = {
            "subject": self.subject,
            "issuer": self.issuer,
            "version": self.version,
            "serialNumber": ("-" if self.serial_number < 0 else "") + digits,
            "notBefore": _write_time(self.not_before),
            "notAfter": _write_time(self.not_after),
        }
        if self.alternative_names:
            found["subjectAltName"] = self.alternative_names
        return found


_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


def _write_time(seconds: float) -> str:
    # Not strftime, whose months are in the language of the process.
    at = time.gmtime(seconds)
    return (
        f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2} {at.tm_hour:02}:{at.tm_min:02}:"
        f"{at.tm_sec:02} {at.tm_year} GMT"
    )


def format_time(seconds: float) -> str:
    """Return a time of a certificate for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def is_host_pattern(name: str) -> bool:
    """Return whether ``name`` is a DNS name, the first label of which may be "*".

    SNI can have such a name (RFC 6066, 3), or one that the pattern stands for (RFC
    9525, 6.3).
    """
    return _HOST_PATTERN.fullmatch(name) is not None


def find_certificates(data: bytes) -> list[bytes]:
    """Return the certificates among other PEM and text, each as PEM."""
    return [match.group() for match in _CERTIFICATE.finditer(data)]


def find_private_key(data: bytes) -> bytes | None:
    """Return the first private key among other PEM and text, as PEM."""
    match = _PRIVATE_KEY.search(data)
    return None if match is None else match.group()


def split_pem(data: bytes) -> list[bytes]:
    """Return the certificates among other PEM and text, as DER.

    Raises ``ValueError``.
    """
    try:
        return [
            base64.b64decode(b"".join(body.split()), validate=True)
            for body in _CERTIFICATE.findall(data)
        ]
    except binascii.Error as error:
        raise ValueError(f"a certificate is no PEM: {error}") from None


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate.  Raises ``ValueError`` if it is malformed.

    Signatures are not verified.
    """
    body = _Reader(der).enter(_SEQUENCE).enter(_SEQUENCE)  # TBSCertificate
    version = 1
    if body.tag == _VERSION:
        version = 1 + body.enter(_VERSION).read_integer()
    serial_number = body.read_integer()
    body.skip()  # signature
    issuer = _read_name(body.enter(_SEQUENCE))
    validity = body.enter(_SEQUENCE)
    times = _read_time(validity), _read_time(validity)
    subject = _read_name(body.enter(_SEQUENCE))
    public_key = body.skip()
    names: tuple[tuple[str, Any], ...] = ()
    while body:
        if body.tag != _EXTENSIONS:
            body.skip()
            continue
        extensions = body.enter(_EXTENSIONS).enter(_SEQUENCE)
        while extensions:
            extension = extensions.enter(_SEQUENCE)
            kind = extension.read_oid()
            if extension.tag != _OCTETS:
                extension.skip()  # critical
            value = extension.read(_OCTETS)
            if kind == _ALTERNATIVE_NAMES:
                names = tuple(_read_alternatives(_Reader(value).enter(_SEQUENCE)))
    return Certificate(
        der, version, serial_number, issuer, subject, *times, names, public_key
    )


class _Reader:
    """Reads elements of DER one after the other (X.690)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    @property
    def tag(self) -> int:
        """The tag of the next element; -1 at the end."""
        return self._data[self._position] if self else -1

    def read(self, tag: int) -> bytes:
        """Return the contents of the next element, whose tag must be ``tag``."""
        if self.tag != tag:
            raise ValueError(
                f"malformed certificate: tag {self.tag:#x} instead of {tag:#x}"
            )
        data, position = self._data, self._position + 1
        length = data[position] if position < len(data) else 0x80
        position += 1
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            # DER has no indefinite lengths (X.690, 10.1).
            if not 0 < size <= 4:
                raise ValueError("malformed certificate: the length of an element")
            position += size
        end = position + length
        if end > len(data):
            raise ValueError("malformed certificate: it is cut short")
        self._position = end
        return data[position:end]

    def skip(self) -> bytes:
        """Skip the next element; return it with its tag and length."""
        begin = self._position
        self.read(self.tag)
        return self._data[begin : self._position]

    def enter(self, tag: int) -> _Reader:
        """Return a reader of the next element's contents."""
        return _Reader(self.read(tag))

    def read_integer(self) -> int:
        """Read an INTEGER."""
        return int.from_bytes(self.read(_INTEGER), "big", signed=True)

    def read_oid(self) -> str:
        """Read an OBJECT IDENTIFIER."""
        return _to_oid(self.read(_OID))

    def read_text(self) -> str:
        """Read a string of any type."""
        encoding = _ENCODINGS.get(self.tag)
        data = self.read(self.tag)
        if encoding is None:
            return "#" + data.hex()
        return data.decode(encoding, "backslashreplace")


def _to_oid(data: bytes) -> str:
    numbers, number = [], 0
    for octet in data:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    if not numbers:
        raise ValueError("malformed certificate: an empty object identifier")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _read_name(reader: _Reader) -> Name:
    parts = []
    while reader:
        part, pairs = reader.enter(_SET), []
        while part:
            pair = part.enter(_SEQUENCE)
            kind = pair.read_oid()
            pairs.append((_ATTRIBUTES.get(kind, kind), pair.read_text()))
        parts.append(tuple(pairs))
    return tuple(parts)


def _read_time(reader: _Reader) -> float:
    short = reader.tag == _UTC_TIME
    text = reader.read(_UTC_TIME if short else _TIME).decode("ascii", "replace")
    if short:
        # UTCTime has two digits of the year: 50 means 1950 (RFC 5280, 4.1.2.5.1).
        text = ("19" if text[:2] >= "50" else "20") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _to_address(data: bytes) -> str:
    if len(data) == 16:
        # As OpenSSL writes it, not as RFC 5952 does.
        groups = (int.from_bytes(data[i : i + 2], "big") for i in range(0, 16, 2))
        return ":".join(f"{group:X}" for group in groups)
    return str(ipaddress.ip_address(data)) if len(data) == 4 else "<invalid>"


def _to_text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


# The kinds of GeneralName (RFC 5280, 4.2.1.6), and how each is shown.
_GENERAL_NAMES: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    0x81: ("email", _to_text),
    0x82: ("DNS", _to_text),
    0xA4: ("DirName", lambda data: _read_name(_Reader(data).enter(_SEQUENCE))),
    0x86: ("URI", _to_text),
    0x87: ("IP Address", _to_address),
    0x88: ("Registered ID", _to_oid),
}


def _read_alternatives(reader: _Reader) -> Iterator[tuple[str, Any]]:
    while reader:
        kind, convert = _GENERAL_NAMES.get(reader.tag, ("othername", lambda _: None))
        value = convert(reader.read(reader.tag))
        yield kind, "<unsupported>" if value is None else value
