"""The configuration of QUIC connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from typing import Any, TextIO

from nghttp2py.arguments import (
    check_bool,
    check_int,
    check_seconds,
    check_type,
    describe,
)
from nghttp2py.quic.logger import QuicLogger
from nghttp2py.quic.options import default_sizes, default_times
from nghttp2py.quic.packet import QuicProtocolVersion
from nghttp2py.quic.tls import CipherSuite, SessionTicket
from nghttp2py.x509 import find_certificates, find_private_key, is_host_pattern

__all__ = ["SMALLEST_MAX_DATAGRAM_SIZE", "QuicConfiguration", "ServerCertificate"]

# The defaults of the C options, which are ours where there is one.
_SIZES = default_sizes()
_TIMES = default_times()

# Every path of QUIC carries datagrams of this size (RFC 9000, 14).
SMALLEST_MAX_DATAGRAM_SIZE = 1200

#: The bytes of ``session_ticket_key``, as GnuTLS needs them.
SESSION_TICKET_KEY_LENGTH = 64


def encode_server_name(name: str) -> bytes:
    """Return a server name in the form that TLS sends (RFC 6066, 3)."""
    if not isinstance(name, str):
        raise TypeError(f"a certificate's name must be a str, not {name!r}")
    try:
        encoded = name.encode("ascii" if name.isascii() else "idna")
    except UnicodeError:
        encoded = b""
    if not is_host_pattern(encoded.decode("ascii")):
        raise ValueError(
            "a certificate's name must be a DNS name, such as 'example.com' or "
            f"'*.example.com', not {name!r}"
        )
    return encoded


@dataclass(frozen=True)
class ServerCertificate:
    """A certificate for one of a server's names, with its private key.

    Each is PEM in bytes, or an object of the ``cryptography`` package.
    """

    certificate: Any
    private_key: Any = field(repr=False)
    certificate_chain: Sequence[Any] = ()
    password: bytes | None = field(default=None, repr=False)


@dataclass
class QuicConfiguration:
    """The settings of a connection; connections may share an instance.

    Certificates and keys may be bytes in PEM, or objects of the ``cryptography``
    package.  Times are in seconds, sizes in bytes.  A value that cannot be used makes
    :class:`~nghttp2py.quic.connection.QuicConnection` raise ``ValueError``.  A change
    does not affect connections that exist already.  ``repr()`` shows no secrets.
    """

    alpn_protocols: list[str] | None = None
    """The protocols to offer, or to choose from, most preferred first."""

    congestion_control_algorithm: str = "reno"
    """The congestion control: ``"reno"``, ``"cubic"`` or ``"bbr"``."""

    connection_id_length: int = _SIZES["cid_len"]
    """The length of the connection ids that we issue, at most 20."""

    idle_timeout: float = _TIMES["idle_timeout"]
    """The idle timeout: a connection on which nothing arrives for that long ends; 0
    means none."""

    is_client: bool = True
    """Whether this end is the client."""

    max_data: int = _SIZES["max_data"]
    """How much the peer may send on all streams before credit is returned."""

    max_datagram_size: int = _SIZES["max_datagram_size"]
    """The largest UDP payload to send, 1200 to 65527."""

    max_stream_data: int = _SIZES["max_stream_data"]
    """How much the peer may send on one stream before credit is returned."""

    quic_logger: QuicLogger | None = None
    """Where to write a qlog trace."""

    secrets_log_file: TextIO | None = None
    """Where to write TLS secrets, for Wireshark and similar programs."""

    server_name: str | None = None
    """A client's: the DNS name or IP address that the certificate must be for."""

    session_ticket: SessionTicket | None = None
    """A client's: the session to resume."""

    token: bytes = b""
    """A client's: a token from an earlier connection to the server."""

    cadata: bytes | None = None
    """Whose certificates to trust, in PEM; see :meth:`load_verify_locations`."""

    cafile: str | PathLike[str] | None = None
    """As ``cadata``, in a file."""

    capath: str | PathLike[str] | None = None
    """As ``cadata``, in the files of a directory."""

    certificate: Any = None
    """Our certificate; see :meth:`load_cert_chain`."""

    certificate_chain: Sequence[Any] = field(default_factory=list)
    """The intermediate certificates from ours to the authority's, in this order."""

    cipher_suites: list[CipherSuite] | None = None
    """The cipher suites that a client offers, most preferred first, or that a server
    accepts; ``None`` means all three that QUIC may use, AES before ChaCha20 (RFC 9001,
    5.3)."""

    initial_rtt: float = _TIMES["initial_rtt"]
    """The round-trip time assumed before one was measured, at most 60 seconds."""

    max_datagram_frame_size: int | None = None
    """The largest DATAGRAM frame that the peer may send (RFC 9221, 3); ``None`` for
    none at all."""

    original_version: int | None = None
    """A client's: the version of its first packet; by default the first of
    ``supported_versions``."""

    private_key: Any = field(default=None, repr=False)
    """The private key of ``certificate``."""

    quantum_readiness_test: bool = False
    """Without effect: aioquic has it."""

    supported_versions: list[int] = field(
        default_factory=lambda: [
            QuicProtocolVersion.VERSION_1,
            QuicProtocolVersion.VERSION_2,
        ]
    )
    """The versions of QUIC to use, one to eight, most preferred first."""

    verify_mode: int | None = None
    """``ssl.CERT_NONE``, ``CERT_OPTIONAL`` or ``CERT_REQUIRED``; ``None`` means
    ``CERT_REQUIRED`` for a client and ``CERT_NONE`` for a server."""

    # Fields that aioquic does not have.

    keep_alive: float | None = None
    """Send a PING whenever nothing was sent for that long, or for a third of the idle
    timeout if that is shorter, to keep the connection alive; ``None`` means never.
    :meth:`~nghttp2py.quic.connection.QuicConnection.set_keep_alive` changes it while
    the connection is in use."""

    max_streams_bidi: int = _SIZES["max_streams_bidi"]
    """How many bidirectional streams the peer may have open."""

    max_streams_uni: int = _SIZES["max_streams_uni"]
    """How many unidirectional streams the peer may have open."""

    certificates: dict[str, ServerCertificate] = field(default_factory=dict)
    """A server's: further certificates by the name that a client asks for (SNI, RFC
    6066, 3).  A name that begins with ``*.`` stands for any first label; a full name
    has precedence.  Clients that ask for another name, or for none, get
    ``certificate``.  See :meth:`load_cert_chain`."""

    early_data: bool = True
    """A server's: whether its tickets allow early data (0-RTT), and it accepts them.  A
    client's: whether it sends early data."""

    max_ack_delay: float = _TIMES["max_ack_delay"]
    """The longest delay of an acknowledgement, less than 16.384 seconds."""

    max_window: int = _SIZES["max_window"]
    """What the window of ``max_data`` may grow to if the application reads fast; 0
    means no growth."""

    max_stream_window: int = _SIZES["max_stream_window"]
    """What the windows of ``max_stream_data`` may grow to, in the same way."""

    max_datagram_queue: int = _SIZES["max_datagram_queue"]
    """How much payload of DATAGRAM frames is queued, to be read or to be sent; more is
    dropped."""

    probe_datagram_size: bool = False
    """Whether to probe for the largest datagram that the path carries (RFC 8899)."""

    session_tickets: bool = False
    """A server's: whether it issues session tickets and accepts them, even without a
    ``session_ticket_handler``."""

    session_ticket_key: bytes | None = field(default=None, repr=False)
    """A server's: 64 secret bytes that encrypt its session tickets.  Servers with the
    same key accept one another's, if they trust the same authorities of client
    certificates; by default each configuration has its own.  Early data can be replayed
    once to each of these servers (RFC 8446, 8): set ``early_data`` to ``False``."""

    stateless_reset_secret: bytes | None = field(default=None, repr=False)
    """A server's: the secret from which tokens of stateless resets are made (RFC 9000,
    10.3.2).  It should stay the same when the server restarts."""

    remember_chains: bool = True
    """Whether a chain of certificates that was verified for a name is trusted for that
    name without another verification, for ten minutes, and no longer than each of its
    certificates is valid.  A configuration with other authorities verifies anew."""

    key_password: bytes | None = field(default=None, repr=False)
    """The password of ``private_key``, if the key is encrypted."""

    def load_cert_chain(
        self,
        certfile: str | PathLike[str],
        keyfile: str | PathLike[str] | None = None,
        password: bytes | str | None = None,
        *,
        server_name: str | None = None,
    ) -> None:
        """Read our certificate, the intermediate certificates, and the private key.

        With ``server_name``, a DNS name whose first label may be ``*``, they go into
        ``certificates``, for the clients that ask for this name.  All are PEM; the key
        may be in ``certfile``.  Raises ``OSError`` for a file that cannot be read,
        ``ValueError`` for a file without the expected content, and for an invalid
        ``server_name``.  An encrypted key is decrypted when the configuration is first
        used, and then a wrong ``password`` raises ``ValueError``.
        """
        if server_name is not None:
            encode_server_name(server_name)
        with open(certfile, "rb") as file:
            data = file.read()
        certificates = find_certificates(data)
        if not certificates:
            raise ValueError(f"there is no certificate in {str(certfile)!r}")
        if keyfile is not None:
            with open(keyfile, "rb") as file:
                data = file.read()
        key = find_private_key(data)
        if keyfile is not None and key is None:
            raise ValueError(f"there is no private key in {str(keyfile)!r}")
        if isinstance(password, str):
            password = password.encode()
        if server_name is not None:
            if key is None:
                raise ValueError(f"there is no private key in {str(certfile)!r}")
            self.certificates[server_name] = ServerCertificate(
                certificates[0], key, certificates[1:], password
            )
            return
        self.certificate = certificates[0]
        self.certificate_chain = certificates[1:]
        if key is not None:
            self.private_key = key
            self.key_password = password

    def load_verify_locations(
        self,
        cafile: str | PathLike[str] | None = None,
        capath: str | PathLike[str] | None = None,
        cadata: bytes | None = None,
    ) -> None:
        """Set which authorities to trust: PEM in a file, in a directory, or bytes.

        All that are given are trusted.  By default they are those of ``certifi``, if it
        is installed, otherwise those that the system trusts.
        """
        self.cafile = cafile
        self.capath = capath
        self.cadata = cadata

    # Not fields: the connections' credentials, made when they are first needed, and
    # whether the validity of the certificates was logged.
    kept_credentials = None
    validity_logged = False

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "kept_credentials"}


# The fields that make the credentials of connections.
_CREDENTIALS = (
    *("is_client", "verify_mode", "cipher_suites", "certificate", "certificate_chain"),
    *("private_key", "key_password", "cafile", "capath", "cadata"),
    *("session_ticket_key", "certificates", "remember_chains"),
)


def list_credentials(configuration: QuicConfiguration) -> tuple[Any, ...]:
    """Return what the credentials of connections are made of."""
    certificates = configuration.certificates  # which may be changed in its place
    values = [getattr(configuration, name) for name in _CREDENTIALS]
    return (*values, *certificates, *certificates.values())


def with_credentials(
    configuration: QuicConfiguration, new: QuicConfiguration
) -> QuicConfiguration:
    """Return a configuration that has the certificates and authorities of another.

    The key of session tickets stays, so that clients resume their sessions, unless the
    other one has its own.
    """
    fields = {name: getattr(new, name) for name in _CREDENTIALS}
    if new.session_ticket_key is None:
        fields["session_ticket_key"] = configuration.session_ticket_key
    renewed = replace(configuration, **fields)
    renewed.validity_logged = new.validity_logged
    return renewed


_MOST = (1 << 62) - 1  # RFC 9000, 16
_VERSION = (1 << 32) - 1

# The least and the greatest value of each number.
_NUMBERS = {
    "connection_id_length": (0, 20),  # RFC 9000, 17.2
    "max_data": (0, _MOST),
    "max_datagram_frame_size": (0, _MOST),
    "max_datagram_queue": (0, _MOST),
    "max_datagram_size": (SMALLEST_MAX_DATAGRAM_SIZE, 65527),  # RFC 9000, 18.2
    "max_stream_data": (0, _MOST),
    "max_stream_window": (0, _MOST),
    "max_streams_bidi": (0, _MOST),
    "max_streams_uni": (0, _MOST),
    "max_window": (0, _MOST),
    "original_version": (0, _VERSION),
    "verify_mode": (0, 2),  # the constants of the ssl module
}
_SECONDS = ("idle_timeout", "initial_rtt", "keep_alive", "max_ack_delay")
_LONGEST = 1e9  # seconds: nanoseconds in 64 bits
_FLAGS = (
    *("early_data", "is_client", "probe_datagram_size", "quantum_readiness_test"),
    *("remember_chains", "session_tickets"),
)
_BYTES = (bytes, bytearray, memoryview)
_TYPES: dict[str, tuple[Any, str]] = {
    "alpn_protocols": ((list, tuple), "a list of str"),
    "cafile": ((str, PathLike), "a path"),
    "capath": ((str, PathLike), "a path"),
    "certificate_chain": ((list, tuple), "a list of certificates"),
    "certificates": (dict, "a dict of str to ServerCertificate"),
    "cipher_suites": ((list, tuple), "a list of CipherSuite"),
    "congestion_control_algorithm": (str, "a str"),
    "key_password": (bytes, "bytes"),
    "server_name": (str, "a str"),
    "session_ticket": (SessionTicket, "a SessionTicket"),
    "session_ticket_key": (bytes, "bytes"),
    "stateless_reset_secret": (bytes, "bytes"),
    "supported_versions": ((list, tuple), "a list of int"),
    "token": (_BYTES, "bytes"),
}
# The types of the items.
_ITEMS: dict[str, tuple[Any, str]] = {
    "alpn_protocols": ((str, *_BYTES), "str"),
    "cipher_suites": (int, "CipherSuite"),
    "supported_versions": (int, "int"),
}
# The method that each must have.
_METHODS = {"quic_logger": "start_trace", "secrets_log_file": "write"}


def check_configuration(configuration: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` for an invalid value, with its name."""
    if not isinstance(configuration, QuicConfiguration):
        raise TypeError(
            f"configuration must be a QuicConfiguration, not {describe(configuration)}"
        )
    for item in fields(configuration):
        name, value = item.name, getattr(configuration, item.name)
        if value is None and item.default is None:
            continue
        if name == "verify_mode" and isinstance(value, bool):
            value = int(value)  # dnspython passes it, and aioquic accepts it
        if name in _NUMBERS:
            check_int(name, value, *_NUMBERS[name])
        elif name in _SECONDS:
            check_seconds(name, value, least=0, most=_LONGEST, optional=False)
        elif name in _FLAGS:
            check_bool(name, value)
        elif name in _TYPES:
            check_type(name, value, *_TYPES[name])
            kinds, rule = _ITEMS.get(name, (object, ""))
            for one in value if name in _ITEMS else ():
                check_type(f"each of {name}", one, kinds, rule)
        elif name in _METHODS and not hasattr(value, _METHODS[name]):
            raise TypeError(
                f"{name} must have {_METHODS[name]}(), which {describe(value)} has not"
            )
    for host, certificate in configuration.certificates.items():
        what = f"certificates[{host!r}]"
        check_type(what, certificate, ServerCertificate, "a ServerCertificate")
