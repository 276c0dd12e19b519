"""Reading the headers of QUIC packets, by aioquic's names.

This is for programs that route datagrams to connections themselves.  Our own server
routes in C (``nghttp2py.quic.routing``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from nghttp2py.buffer import Buffer, BufferReadError

__all__ = [
    "CONNECTION_ID_MAX_SIZE",
    "PACKET_FIXED_BIT",
    "PACKET_LONG_HEADER",
    "PACKET_TYPE_INITIAL",
    "QuicHeader",
    "QuicPacketType",
    "encode_quic_version_negotiation",
    "is_long_header",
    "pull_quic_header",
]

#: Octets of a connection id in versions 1 and 2 (RFC 9000, 17.2).
CONNECTION_ID_MAX_SIZE = 20
#: Bits of a packet's first octet (RFC 9000, 17.2 and 17.3).
PACKET_LONG_HEADER = 0x80
PACKET_FIXED_BIT = 0x40

# RFC 9000, 17.2.5: the tag at the end of a Retry packet.
_INTEGRITY_TAG_SIZE = 16


class QuicPacketType(Enum):
    """Types of packets (RFC 9000, 17); their numbers are aioquic's."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    RETRY = 3
    VERSION_NEGOTIATION = 4
    ONE_RTT = 5


#: An older name of aioquic.
PACKET_TYPE_INITIAL = QuicPacketType.INITIAL

# Packet types by the two bits of the first octet: those of RFC 9000, 17.2, and
# for version 2 those of RFC 9369, 3.2.
_VERSION_2 = 0x6B3343CF
_TYPES = (
    QuicPacketType.INITIAL,
    QuicPacketType.ZERO_RTT,
    QuicPacketType.HANDSHAKE,
    QuicPacketType.RETRY,
)
_TYPES_OF_VERSION_2 = (_TYPES[3], *_TYPES[:3])


@dataclass
class QuicHeader:
    """The unprotected part of a packet's header.

    ``version`` is ``None`` in a short header.  ``packet_length`` counts the octets
    from the first of the header to the last of the packet.
    """

    version: int | None
    packet_type: QuicPacketType
    packet_length: int
    destination_cid: bytes
    source_cid: bytes
    token: bytes = b""
    integrity_tag: bytes = b""
    supported_versions: list[int] = field(default_factory=list)


def is_long_header(first_byte: int) -> bool:
    """Return whether a packet that begins with this octet has a long header."""
    return bool(first_byte & PACKET_LONG_HEADER)


def pull_quic_header(buf: Buffer, host_cid_length: int | None = None) -> QuicHeader:
    """Read a packet's header at the position of ``buf`` (RFC 9000, 17; RFC 9369).

    ``host_cid_length`` is the length of our connection ids, which a short header does
    not state.  Afterwards the position is after the header; for a packet without a
    payload, after the packet.  Raises ``ValueError`` if there is no header, and its
    subclass ``BufferReadError`` if it is truncated.
    """
    start = buf.tell()
    first = buf.pull_uint8()
    if not is_long_header(first):
        _require_fixed_bit(first)
        if host_cid_length is None:
            raise ValueError("A short header needs host_cid_length")
        return QuicHeader(
            version=None,
            packet_type=QuicPacketType.ONE_RTT,
            packet_length=buf.capacity - start,
            destination_cid=buf.pull_bytes(host_cid_length),
            source_cid=b"",
        )
    version = buf.pull_uint32()
    destination_cid = _pull_connection_id(buf, "Destination")
    source_cid = _pull_connection_id(buf, "Source")
    header = QuicHeader(
        version=version,
        packet_type=QuicPacketType.VERSION_NEGOTIATION,
        packet_length=buf.capacity - start,
        destination_cid=destination_cid,
        source_cid=source_cid,
    )
    if version == 0:
        while not buf.eof():
            header.supported_versions.append(buf.pull_uint32())
        return header
    _require_fixed_bit(first)
    types = _TYPES_OF_VERSION_2 if version == _VERSION_2 else _TYPES
    header.packet_type = types[first >> 4 & 3]
    if header.packet_type is QuicPacketType.RETRY:
        rest = buf.capacity - buf.tell() - _INTEGRITY_TAG_SIZE
        if rest < 0:
            raise BufferReadError("Read out of bounds")
        header.token = buf.pull_bytes(rest)
        header.integrity_tag = buf.pull_bytes(_INTEGRITY_TAG_SIZE)
        return header
    if header.packet_type is QuicPacketType.INITIAL:
        header.token = buf.pull_bytes(buf.pull_uint_var())
    payload = buf.pull_uint_var()
    header.packet_length = buf.tell() - start + payload
    if start + header.packet_length > buf.capacity:
        raise ValueError("Packet payload is truncated")
    return header


def _require_fixed_bit(first_byte: int) -> None:
    if not first_byte & PACKET_FIXED_BIT:
        raise ValueError("Packet fixed bit is zero")


def _pull_connection_id(buf: Buffer, which: str) -> bytes:
    length = buf.pull_uint8()
    if length > CONNECTION_ID_MAX_SIZE:
        raise ValueError(f"{which} CID is too long ({length} bytes)")
    return buf.pull_bytes(length)


def encode_quic_version_negotiation(
    *, source_cid: bytes, destination_cid: bytes, supported_versions: Iterable[int]
) -> bytes:
    """Return a Version Negotiation packet (RFC 9000, 17.2.1).

    It has the ids of the packet that it answers, swapped.
    """
    first = PACKET_LONG_HEADER | PACKET_FIXED_BIT | os.urandom(1)[0]
    return b"".join(
        [
            bytes([first, 0, 0, 0, 0]),
            bytes([len(destination_cid)]) + destination_cid,
            bytes([len(source_cid)]) + source_cid,
            *(int(version).to_bytes(4, "big") for version in supported_versions),
        ]
    )
