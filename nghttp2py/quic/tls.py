"""Session tickets and cipher suites, by aioquic's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import IntEnum

__all__ = [
    "CipherSuite",
    "SessionTicket",
    "SessionTicketFetcher",
    "SessionTicketHandler",
    "issued_ticket",
    "received_ticket",
]

# RFC 8446, 4.6.1: the longest lifetime of a ticket.
_LONGEST_LIFETIME = 7 * 24 * 3600

# RFC 9001, 4.6.1: max_early_data_size of a ticket for QUIC that allows early data.
_ANY_EARLY_DATA = 0xFFFFFFFF


class CipherSuite(IntEnum):
    """Cipher suites of TLS 1.3 (RFC 8446, B.4)."""

    AES_128_GCM_SHA256 = 0x1301
    AES_256_GCM_SHA384 = 0x1302
    CHACHA20_POLY1305_SHA256 = 0x1303
    EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF


@dataclass
class SessionTicket:
    """A ticket to resume a TLS session; it can be pickled.

    ``ticket`` contains everything, and only this package can read it: the fields for
    the session's secrets are empty.  A server's ticket is valid for the lifetime that
    the server states.  A client's is valid for the maximum of seven days (RFC 8446,
    4.6.1), but is not used after the server's lifetime.
    """

    age_add: int
    cipher_suite: int
    not_valid_after: datetime
    not_valid_before: datetime
    resumption_secret: bytes = field(repr=False)
    server_name: str
    ticket: bytes = field(repr=False)
    max_early_data_size: int | None = None
    other_extensions: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        """Whether the ticket may be used now, by the machine's clock."""
        now = datetime.now(timezone.utc)
        return self.not_valid_before <= now <= self.not_valid_after


def issued_ticket(
    message: bytes, *, server_name: str, cipher_suite: int
) -> SessionTicket:
    """Make a server's ticket from the NewSessionTicket message (RFC 8446, 4.6.1)."""
    start = 9 + message[8]
    length = int.from_bytes(message[start : start + 2], "big")
    return _make_ticket(
        message[start + 2 : start + 2 + length],
        lifetime=int.from_bytes(message[:4], "big"),
        server_name=server_name,
        age_add=int.from_bytes(message[4:8], "big"),
        cipher_suite=cipher_suite,
        early_data=_has_early_data(message[start + 2 + length + 2 :]),
    )


def _has_early_data(extensions: bytes) -> bool:
    """Return whether early_data is among these extensions (RFC 8446, 4.2.10)."""
    while len(extensions) >= 4:
        if extensions[:2] == b"\0\x2a":
            return True
        extensions = extensions[4 + int.from_bytes(extensions[2:4], "big") :]
    return False


def received_ticket(session: bytes, *, server_name: str) -> SessionTicket:
    """Make a client's ticket from the session that TLS will resume.

    Only TLS can read the lifetime in it: a ticket that is too old is not offered to the
    server, even if it is valid here.
    """
    # The length of the TLS session, the session, and the state for early data.
    early_data = len(session) > 4 + int.from_bytes(session[:4], "big")
    return _make_ticket(
        session,
        lifetime=_LONGEST_LIFETIME,
        server_name=server_name,
        early_data=early_data,
    )


def _make_ticket(
    ticket: bytes,
    *,
    lifetime: int,
    server_name: str,
    age_add: int = 0,
    cipher_suite: int = 0,
    early_data: bool,
) -> SessionTicket:
    now = datetime.now(timezone.utc)
    return SessionTicket(
        age_add=age_add,
        cipher_suite=cipher_suite,
        not_valid_after=now + timedelta(seconds=lifetime),
        not_valid_before=now,
        resumption_secret=b"",
        server_name=server_name,
        ticket=ticket,
        max_early_data_size=_ANY_EARLY_DATA if early_data else None,
    )


SessionTicketFetcher = Callable[[bytes], "SessionTicket | None"]
SessionTicketHandler = Callable[[SessionTicket], None]
