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
    "read_session_ticket",
]


class CipherSuite(IntEnum):
    """Cipher suites of TLS 1.3 (RFC 8446, B.4)."""

    AES_128_GCM_SHA256 = 0x1301
    AES_256_GCM_SHA384 = 0x1302
    CHACHA20_POLY1305_SHA256 = 0x1303
    EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF


@dataclass
class SessionTicket:
    """What resumes a TLS session; it can be pickled.

    ``ticket`` holds everything, and only this package can read it: the fields
    that describe the session's secrets are empty.
    """

    age_add: int
    cipher_suite: int
    not_valid_after: datetime
    not_valid_before: datetime
    resumption_secret: bytes
    server_name: str
    ticket: bytes
    max_early_data_size: int | None = None
    other_extensions: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        """Whether the ticket may be used now, by the machine's clock."""
        now = datetime.now(timezone.utc)
        return self.not_valid_before <= now <= self.not_valid_after


def read_session_ticket(
    message: bytes, *, server_name: str, cipher_suite: int
) -> SessionTicket:
    """What a server knows of a ticket, from its NewSessionTicket message
    (RFC 8446, 4.6.1)."""
    start = 9 + message[8]
    length = int.from_bytes(message[start : start + 2], "big")
    now = datetime.now(timezone.utc)
    return SessionTicket(
        age_add=int.from_bytes(message[4:8], "big"),
        cipher_suite=cipher_suite,
        not_valid_after=now + timedelta(seconds=int.from_bytes(message[:4], "big")),
        not_valid_before=now,
        resumption_secret=b"",
        server_name=server_name,
        ticket=message[start + 2 : start + 2 + length],
        max_early_data_size=0xFFFFFFFF,
    )


SessionTicketFetcher = Callable[[bytes], "SessionTicket | None"]
SessionTicketHandler = Callable[[SessionTicket], None]
