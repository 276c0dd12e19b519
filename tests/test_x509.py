"""Certificates, as ssl reads them."""

import contextlib
import datetime
import ipaddress
import ssl

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nghttp2py.x509 import read_certificate, split_pem

# What to_dict() leaves out.
URLS = ("OCSP", "caIssuers", "crlDistributionPoints")

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "AT"),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, 'Größe "und" Söhne, Wien'),
        x509.NameAttribute(x509.NameOID.USER_ID, "u1"),
        x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "unknown"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority"),
    ]
)
ALTERNATIVES = [
    x509.DNSName("One.example"),
    x509.DNSName("*.two.example"),
    x509.RFC822Name("a@example.com"),
    x509.UniformResourceIdentifier("https://example.com/"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    x509.RegisteredID(x509.ObjectIdentifier("2.999.1")),
    x509.DirectoryName(NAME),
]


def make(*, begin=2024, end=2034, names=ALTERNATIVES, serial=4711, authority=True):
    """A certificate that has signed itself, as DER: ssl shows those of authorities."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.datetime(begin, 1, 2, 3, 4, 5))
        .not_valid_after(datetime.datetime(end, 11, 12, 13, 14, 15))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
    made = builder.sign(KEY, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def read_by_ssl(der):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=der)
    (found,) = context.get_ca_certs()
    return {name: value for name, value in found.items() if name not in URLS}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"names": []},
        {"serial": 0x80},
        {"serial": 0x1FF},
        # UTCTime ends with 2049, and GeneralizedTime begins.
        {"begin": 1950, "end": 2049},
        {"begin": 2050, "end": 9999},
    ],
    ids=str,
)
def test_a_certificate_is_what_ssl_says(options):
    der = make(**options)
    assert read_certificate(der).to_dict() == read_by_ssl(der)


def test_the_systems_authorities_are_what_ssl_says():
    with open(certifi.where(), "rb") as file:
        authorities = split_pem(file.read())
    assert len(authorities) > 50
    for der in authorities:
        assert read_certificate(der).to_dict() == read_by_ssl(der)


def test_names_of_hosts_are_those_of_the_extension_only():
    assert read_certificate(make()).dns_names == ("one.example", "*.two.example")
    assert read_certificate(make(names=[])).dns_names == ()


def test_a_malformed_certificate_is_a_value_error():
    der = make()
    for end in range(len(der) - 100):
        with pytest.raises(ValueError):
            read_certificate(der[:end])
    for position in range(len(der)):
        for octet in (0x80, der[position] ^ 1):
            changed = bytearray(der)
            changed[position] = octet
            with contextlib.suppress(ValueError):
                read_certificate(bytes(changed)).to_dict()


def test_pem_may_have_text_around_it():
    pem = ssl.DER_cert_to_PEM_cert(make())
    data = f"subject: a\r\n{pem}\n-----BEGIN X-----\nAA==\n-----END X-----\n{pem}"
    assert split_pem(data.encode()) == [ssl.PEM_cert_to_DER_cert(pem)] * 2
    assert split_pem(b"nothing") == []
    broken = b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"
    with pytest.raises(ValueError, match="no PEM"):
        split_pem(broken)
