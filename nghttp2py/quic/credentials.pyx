"""Certificates, keys and trusted authorities, loaded once for many connections, and
what TLS has negotiated."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memset

from nghttp2py cimport cngp_quic as lib
from nghttp2py.octets cimport copy_bytes

from collections import namedtuple

from nghttp2py.quic.configuration import encode_server_name, list_credentials


def library_versions():
    """Return the names and releases of QUIC's C libraries."""
    return {
        "ngtcp2": lib.ngtcp2_version(0).version_str.decode(),
        "gnutls": lib.ngp_tls_version().decode(),
    }


# Only TLS 1.3, and the cipher suites that QUIC may use (RFC 9001, 5.3), the fastest
# first: GnuTLS is five times slower with ChaCha20 than with AES.
cdef dict CIPHERS = {
    0x1301: "+AES-128-GCM",
    0x1302: "+AES-256-GCM",
    0x1303: "+CHACHA20-POLY1305",
}

cdef str PRIORITY = (
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:{ciphers}:-GROUP-ALL:"
    "+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-SECP521R1:+GROUP-X448:"
    "%DISABLE_TLS13_COMPAT_MODE"
)


cdef bytes to_pem(value, str what):
    """Convert bytes, text, or an object of the ``cryptography`` package to PEM."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        if b"-----BEGIN " not in value:  # RFC 7468, 2
            raise ValueError(f"{what} must be PEM, but has no \"-----BEGIN \"")
        return value
    if hasattr(value, "public_bytes"):
        from cryptography.hazmat.primitives.serialization import Encoding

        return value.public_bytes(Encoding.PEM)
    if hasattr(value, "private_bytes"):
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return value.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    raise TypeError(
        f"{what} must be PEM or an object of the cryptography package, not "
        f"{type(value).__name__}"
    )


cdef str priority_of(suites):
    if suites is None:
        suites = CIPHERS
    try:
        ciphers = [CIPHERS[int(suite)] for suite in suites]
    except (KeyError, TypeError, ValueError):
        raise ValueError("a cipher suite is not one that QUIC uses") from None
    if not ciphers:
        raise ValueError("there must be a cipher suite")
    return PRIORITY.format(ciphers=":".join(ciphers))


cdef tuple find_trust(configuration, int verify):
    """Return where the trusted certificates are, and whether the system's are
    trusted."""
    cafile = configuration.cafile
    capath = configuration.capath
    if not verify:
        return None, None, False
    if cafile is None and capath is None and configuration.cadata is None:
        try:
            import certifi
        except ImportError:
            return None, None, True
        cafile = certifi.where()
    return (
        None if cafile is None else encode_path(cafile),
        None if capath is None else encode_path(capath),
        False,
    )


cdef bytes encode_path(path):
    import os

    return os.fsencode(path)


cdef int verify_of(configuration) except -1:
    mode = configuration.verify_mode
    if mode is None:
        return 2 if configuration.is_client else 0
    if mode not in (0, 1, 2):
        raise ValueError("verify_mode must be a constant of the ssl module")
    return mode


cdef bytes join_chain(own):
    return b"\n".join(
        to_pem(certificate, "certificate")
        for certificate in (own.certificate, *own.certificate_chain)
    )


cdef int pack_identities(
    lib.ngp_tls_options *options, configuration, list keep
) except -1:
    """Pack the certificates and their names; ``keep`` holds what ``options`` then point
    to."""
    cdef lib.ngp_tls_identity *identities
    cdef lib.ngp_tls_name *names
    cdef bytes name
    cdef bytes chain
    cdef bytes key
    cdef bytes password
    cdef dict named = dict(configuration.certificates)
    # Several names may have the same certificate.
    cdef dict indices = {}
    cdef bytearray room = bytearray(len(named) * sizeof(lib.ngp_tls_identity))
    cdef bytearray more = bytearray(len(named) * sizeof(lib.ngp_tls_name))
    cdef size_t index

    identities = <lib.ngp_tls_identity *><char *>room
    names = <lib.ngp_tls_name *><char *>more
    for i, (text, own) in enumerate(named.items()):
        name = encode_server_name(text)
        keep.append(name)
        names[i].name = name
        index = names[i].identity = indices.setdefault(id(own), len(indices))
        if index != options.nidentities:
            continue
        chain = join_chain(own)
        key = to_pem(own.private_key, "private_key")
        password = own.password
        keep += [chain, key, password]
        identities[index].chain = chain
        identities[index].chain_len = len(chain)
        identities[index].key = key
        identities[index].key_len = len(key)
        if password is not None:
            identities[index].password = password
        options.nidentities += 1
    keep += [room, more]
    options.identities = identities
    options.names = names
    options.nnames = len(named)
    return 0


cdef bytes bind_ticket_key(bytes key, int verify, configuration):
    """Return the key of the tickets of a server that asks for client certificates.

    A ticket stands for the client's certificate: a server that trusts others must not
    accept it.
    """
    import hashlib

    digest = hashlib.sha512(key)
    digest.update(repr((verify, configuration.cafile, configuration.capath)).encode())
    if configuration.cadata is not None:
        digest.update(to_pem(configuration.cadata, "cadata"))
    return digest.digest()


cdef class Credentials:
    """Owns an ``ngp_tls_config``."""

    def __cinit__(self, configuration, made_of):
        cdef:
            lib.ngp_tls_options options
            const char *reason = NULL
            bytes chain = b""
            bytes key = b""
            bytes priority
            bytes cadata
            bytes password
            bytes ticket_key
            list keep = []
            int rv

        memset(&options, 0, sizeof(options))
        self.made_of = made_of
        pack_identities(&options, configuration, keep)
        options.is_client = bool(configuration.is_client)
        options.verify = verify_of(configuration)
        options.remember_chains = bool(configuration.remember_chains)
        priority = priority_of(configuration.cipher_suites).encode()
        options.priority = priority
        if configuration.certificate is not None:
            chain = join_chain(configuration)
        if configuration.private_key is not None:
            key = to_pem(configuration.private_key, "private_key")
        options.chain = chain
        options.chain_len = len(chain)
        options.key = key
        options.key_len = len(key)
        password = configuration.key_password
        if password is not None:
            options.password = password
        cafile, capath, system = find_trust(configuration, options.verify)
        options.system_trust = system
        if cafile is not None:
            options.ca_file = cafile
        if capath is not None:
            options.ca_path = capath
        if configuration.cadata is not None and options.verify:
            cadata = to_pem(configuration.cadata, "cadata")
            options.ca_data = cadata
            options.ca_data_len = len(cadata)
        ticket_key = configuration.session_ticket_key
        if ticket_key is not None:
            if len(ticket_key) != lib.NGP_TLS_TICKET_KEY_LEN:
                raise ValueError("session_ticket_key must be 64 bytes")
            if options.verify:
                ticket_key = bind_ticket_key(ticket_key, options.verify, configuration)
            options.ticket_key = ticket_key
        rv = lib.ngp_tls_config_new(&self.config, &options, NULL, &reason)
        if rv == lib.NGHTTP2_ERR_NOMEM:
            raise MemoryError
        if rv != 0:
            raise ValueError(reason.decode())

    def __dealloc__(self):
        lib.ngp_tls_config_decref(self.config)


cdef bint same(tuple a, tuple b):
    cdef size_t i

    if len(a) != len(b):
        return False
    for i in range(len(a)):
        if a[i] is not b[i]:
            return False
    return True


cdef Credentials get_credentials(configuration):
    """Return the credentials of a configuration, made again only if it has changed."""
    cdef Credentials credentials = configuration.kept_credentials
    cdef tuple made_of = list_credentials(configuration)

    if credentials is None or not same(credentials.made_of, made_of):
        credentials = Credentials(configuration, made_of)
        configuration.kept_credentials = credentials
    return credentials


# ---- What was negotiated ----


TLSState = namedtuple(
    "TLSState",
    "alpn_negotiated early_data_accepted session_resumed cipher_suite server_name "
    "own_certificate",
)


cdef list peer_chain(lib.ngp_tls *tls):
    """Return the peer's certificates as DER; ``tls`` may be NULL."""
    cdef const uint8_t *data
    cdef size_t n = 0
    cdef list certificates = []

    while tls is not NULL:
        data = lib.ngp_tls_peer_certificate(tls, len(certificates), &n)
        if data is NULL:
            break
        certificates.append(copy_bytes(data, n))
    return certificates


cdef str asked_name(lib.ngp_tls *tls):
    """Return the name in a client's SNI, or an empty str."""
    cdef char name[256]

    name[0] = 0
    lib.ngp_tls_server_name(tls, name, sizeof(name))
    return name.decode("ascii", "replace")


cdef object describe_tls(lib.ngp_tls *tls, alpn, bint done):
    """Return the ``TLSState``; ``done`` is whether the handshake is complete."""
    cdef const uint8_t *own
    cdef size_t n = 0

    if not done:
        return TLSState(alpn, False, False, None, None, None)
    own = lib.ngp_tls_own_certificate(tls, &n)
    return TLSState(
        alpn_negotiated=alpn,
        early_data_accepted=lib.ngp_tls_early_data_accepted(tls) != 0,
        session_resumed=lib.ngp_tls_session_resumed(tls) != 0,
        cipher_suite=lib.ngp_tls_cipher_suite(tls) or None,
        server_name=asked_name(tls) or None,
        own_certificate=None if own is NULL else copy_bytes(own, n),
    )
