"""The certificate that is made for this machine, and kept."""

import base64
import hashlib
import os
import ssl
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nghttp2py import local_certificate as module
from nghttp2py.local_certificate import (
    LOOPBACK,
    data_directory,
    local_certificate,
)


def names_in(path):
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    kind = x509.SubjectAlternativeName
    names = certificate.extensions.get_extension_for_class(kind).value
    return [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]


def test_it_is_made_once_and_kept(tmp_path):
    made = local_certificate(directory=tmp_path / "new")
    before = made.certificate.read_bytes()
    assert names_in(made.certificate) == list(LOOPBACK)
    assert made.key.stat().st_mode & 0o077 == 0
    assert local_certificate(directory=tmp_path / "new") == made
    assert made.certificate.read_bytes() == before
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)


def test_its_fingerprint_is_that_of_its_public_key(tmp_path):
    made = local_certificate(directory=tmp_path)
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert base64.b64decode(made.fingerprint) == hashlib.sha256(key).digest()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("b\xfccher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_has_one_form(host, name, tmp_path):
    made = local_certificate([host], tmp_path)
    before = made.certificate.read_bytes()
    assert names_in(made.certificate).count(name) == 1
    local_certificate([host], tmp_path)
    assert made.certificate.read_bytes() == before


def test_a_further_host_is_added_to_those_before(tmp_path):
    local_certificate(["192.0.2.7"], tmp_path)
    made = local_certificate(["box.example", "fe80::1"], tmp_path)
    assert set(names_in(made.certificate)) == {
        *(*LOOPBACK, "192.0.2.7", "box.example", "fe80::1"),
    }
    before = made.certificate.read_bytes()
    assert local_certificate(["192.0.2.7"], tmp_path).certificate.read_bytes() == before


def test_it_is_replaced_a_month_before_it_expires(tmp_path, monkeypatch):
    made = local_certificate(directory=tmp_path)
    before = made.certificate.read_bytes()
    valid = x509.load_pem_x509_certificate(before).not_valid_after_utc
    assert timedelta(364) < valid - datetime.now(timezone.utc) < timedelta(366)
    for days, kept in ((334, True), (336, False)):
        at = (datetime.now(timezone.utc) + timedelta(days)).timestamp()
        monkeypatch.setattr(module.time, "time", lambda at=at: at)
        local_certificate(directory=tmp_path)
        assert (made.certificate.read_bytes() == before) is kept


@pytest.mark.parametrize("broken", ["localhost.pem", "localhost.key"])
def test_what_is_broken_is_made_anew(tmp_path, broken):
    made = local_certificate(directory=tmp_path)
    (tmp_path / broken).unlink()
    local_certificate(directory=tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)


def test_it_is_kept_with_the_data_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_directory() == tmp_path / "nghttp2py"
    monkeypatch.setenv("HOME", "/home/user")
    for relative in "", "data":
        monkeypatch.setenv("XDG_DATA_HOME", relative)
        assert data_directory() == Path("/home/user/.local/share/nghttp2py")


def test_without_cryptography_the_one_that_is_there_is_used(tmp_path, monkeypatch):
    made = local_certificate(directory=tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert local_certificate(directory=tmp_path) == made
    os.unlink(made.certificate)
    with pytest.raises(ImportError):
        local_certificate(directory=tmp_path)
