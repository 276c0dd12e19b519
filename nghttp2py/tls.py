"""TLS for QUIC, by aioquic's module path (``aioquic.tls``)."""

from nghttp2py.quic.tls import (
    CipherSuite,
    SessionTicket,
    SessionTicketFetcher,
    SessionTicketHandler,
)

__all__ = [
    "CipherSuite",
    "SessionTicket",
    "SessionTicketFetcher",
    "SessionTicketHandler",
]
