"""Events of a connection in qlog, by the names that aioquic uses.

Packets come here without protection: their header, with its packet number, and their
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nghttp2py.quic.packet import QuicFrameType, QuicProtocolVersion

__all__ = ["Trace"]

LONG_HEADER = 0x80
KEY_PHASE = 0x04

# RFC 9000, 17.2 and RFC 9369, 3.2: types of packets with a long header.
PACKET_TYPES = ["initial", "0RTT", "handshake", "retry"]
PACKET_TYPES_V2 = ["retry", "initial", "0RTT", "handshake"]

# These types have packet number spaces of their own; the others share one.
SPACES = {"initial": "initial", "handshake": "handshake"}

# The size of the tag that ends a packet (RFC 9001, 5.3).
TAG_LENGTH = 16
UDP_HEADER_LENGTH = 8

# RFC 9000, 18.2.
ACK_DELAY_EXPONENT = 3

STREAM_TYPES = ("bidirectional", "unidirectional")


class _Reader:
    """Reads integers and bytes; raises ``IndexError`` at the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise IndexError
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def varint(self) -> int:
        """Read a variable-length integer (RFC 9000, 16)."""
        length = 1 << (self.data[self.position] >> 6)
        return self.uint(length) & ((1 << (8 * length - 2)) - 1)

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)


Frame = dict[str, Any]


def _padding(reader: _Reader, kind: int, exponent: int) -> Frame:
    while reader.position < len(reader.data) and not reader.data[reader.position]:
        reader.position += 1
    return {"frame_type": "padding"}


def _ack(reader: _Reader, kind: int, exponent: int) -> Frame:
    largest = reader.varint()
    delay = reader.varint() << exponent
    count = reader.varint()
    smallest = largest - reader.varint()
    ranges = [[smallest, largest]]
    for _ in range(count):
        largest = smallest - reader.varint() - 2
        smallest = largest - reader.varint()
        ranges.append([smallest, largest])
    frame: Frame = {
        "ack_delay": delay / 1000,
        "acked_ranges": ranges[::-1],
        "frame_type": "ack",
    }
    if kind == QuicFrameType.ACK_ECN:
        frame.update((name, reader.varint()) for name in ("ect0", "ect1", "ce"))
    return frame


def _crypto(reader: _Reader, kind: int, exponent: int) -> Frame:
    offset = reader.varint()
    length = len(reader.take(reader.varint()))
    return {"frame_type": "crypto", "length": length, "offset": offset}


def _new_token(reader: _Reader, kind: int, exponent: int) -> Frame:
    token = reader.take(reader.varint())
    return {"frame_type": "new_token", "length": len(token), "token": token.hex()}


def _stream(reader: _Reader, kind: int, exponent: int) -> Frame:
    stream_id = reader.varint()
    offset = reader.varint() if kind & 0x04 else 0
    data = reader.take(reader.varint()) if kind & 0x02 else reader.rest()
    return {
        "fin": bool(kind & 0x01),
        "frame_type": "stream",
        "length": len(data),
        "offset": offset,
        "stream_id": stream_id,
    }


def _streams(name: str, value: str) -> Callable[[_Reader, int, int], Frame]:
    """Return the decoder of a frame about numbers of streams: two adjacent types."""

    def decode(reader: _Reader, kind: int, exponent: int) -> Frame:
        return {
            "frame_type": name,
            value: reader.varint(),
            "stream_type": STREAM_TYPES[kind & 1],
        }

    return decode


def _new_connection_id(reader: _Reader, kind: int, exponent: int) -> Frame:
    sequence_number = reader.varint()
    retire_prior_to = reader.varint()
    connection_id = reader.take(reader.uint(1))
    return {
        "connection_id": connection_id.hex(),
        "frame_type": "new_connection_id",
        "length": len(connection_id),
        "reset_token": reader.take(16).hex(),
        "retire_prior_to": retire_prior_to,
        "sequence_number": sequence_number,
    }


def _path(name: str) -> Callable[[_Reader, int, int], Frame]:
    def decode(reader: _Reader, kind: int, exponent: int) -> Frame:
        return {"data": reader.take(8).hex(), "frame_type": name}

    return decode


def _close(reader: _Reader, kind: int, exponent: int) -> Frame:
    error_code = reader.varint()
    transport = kind == QuicFrameType.TRANSPORT_CLOSE
    frame: Frame = {
        "error_code": error_code,
        "error_space": "transport" if transport else "application",
        "frame_type": "connection_close",
        "raw_error_code": error_code,
    }
    if transport:
        frame["trigger_frame_type"] = reader.varint()
    frame["reason"] = reader.take(reader.varint()).decode("utf8", "replace")
    return frame


def _datagram(reader: _Reader, kind: int, exponent: int) -> Frame:
    whole = kind == QuicFrameType.DATAGRAM
    data = reader.rest() if whole else reader.take(reader.varint())
    return {"frame_type": "datagram", "length": len(data)}


def _plain(name: str, *fields: str) -> Callable[[_Reader, int, int], Frame]:
    """Return the decoder of a frame that consists of integers."""

    def decode(reader: _Reader, kind: int, exponent: int) -> Frame:
        frame: Frame = {field: reader.varint() for field in fields}
        return {**frame, "frame_type": name}

    return decode


_FRAMES: dict[int, Callable[[_Reader, int, int], Frame]] = {
    QuicFrameType.PADDING: _padding,
    QuicFrameType.PING: _plain("ping"),
    QuicFrameType.ACK: _ack,
    QuicFrameType.ACK_ECN: _ack,
    QuicFrameType.RESET_STREAM: _plain(
        "reset_stream", "stream_id", "error_code", "final_size"
    ),
    QuicFrameType.STOP_SENDING: _plain("stop_sending", "stream_id", "error_code"),
    QuicFrameType.CRYPTO: _crypto,
    QuicFrameType.NEW_TOKEN: _new_token,
    **{QuicFrameType.STREAM_BASE | flags: _stream for flags in range(8)},
    QuicFrameType.MAX_DATA: _plain("max_data", "maximum"),
    QuicFrameType.MAX_STREAM_DATA: _plain("max_stream_data", "stream_id", "maximum"),
    QuicFrameType.MAX_STREAMS_BIDI: _streams("max_streams", "maximum"),
    QuicFrameType.MAX_STREAMS_UNI: _streams("max_streams", "maximum"),
    QuicFrameType.DATA_BLOCKED: _plain("data_blocked", "limit"),
    QuicFrameType.STREAM_DATA_BLOCKED: _plain(
        "stream_data_blocked", "stream_id", "limit"
    ),
    QuicFrameType.STREAMS_BLOCKED_BIDI: _streams("streams_blocked", "limit"),
    QuicFrameType.STREAMS_BLOCKED_UNI: _streams("streams_blocked", "limit"),
    QuicFrameType.NEW_CONNECTION_ID: _new_connection_id,
    QuicFrameType.RETIRE_CONNECTION_ID: _plain(
        "retire_connection_id", "sequence_number"
    ),
    QuicFrameType.PATH_CHALLENGE: _path("path_challenge"),
    QuicFrameType.PATH_RESPONSE: _path("path_response"),
    QuicFrameType.TRANSPORT_CLOSE: _close,
    QuicFrameType.APPLICATION_CLOSE: _close,
    QuicFrameType.HANDSHAKE_DONE: _plain("handshake_done"),
    QuicFrameType.DATAGRAM: _datagram,
    QuicFrameType.DATAGRAM_WITH_LENGTH: _datagram,
}


def decode_frames(payload: bytes, exponent: int) -> list[Frame]:
    """Describe the frames of a packet, up to one that cannot be parsed.

    ``exponent`` is ack_delay_exponent.
    """
    reader = _Reader(payload)
    frames: list[Frame] = []
    while reader.position < len(payload):
        kind = -1
        try:
            kind = reader.varint()
            frames.append(_FRAMES[kind](reader, kind, exponent))
        except (IndexError, KeyError):
            frames.append({"frame_type": "unknown", "raw_frame_type": kind})
            break
    return frames


def packet_type(header: bytes) -> str:
    """Return the type of a packet from its first octets."""
    if not header[0] & LONG_HEADER:
        return "1RTT"
    version = int.from_bytes(header[1:5], "big")
    if version == QuicProtocolVersion.NEGOTIATION:
        return "version_negotiation"
    types = (
        PACKET_TYPES_V2 if version == QuicProtocolVersion.VERSION_2 else PACKET_TYPES
    )
    return types[header[0] >> 4 & 3]


def connection_ids(header: bytes) -> dict[str, str]:
    """Return the connection ids of a packet with a long header."""
    reader = _Reader(header)
    reader.position = 5
    return {
        "dcid": reader.take(reader.uint(1)).hex(),
        "scid": reader.take(reader.uint(1)).hex(),
    }


class Trace:
    """Writes events to a :class:`~nghttp2py.quic.logger.QuicLoggerTrace`."""

    def __init__(self, log: Any, *, is_client: bool) -> None:
        self._log = log
        self._is_client = is_client
        # The next packet number, by direction and packet number space.
        self._next: dict[tuple[bool, str], int] = {}
        # The keys in use, with their phase, by direction and packet type.
        self._keys: dict[tuple[bool, str], int] = {}
        self._metrics: dict[str, float] = {}
        self._exponents = {True: ACK_DELAY_EXPONENT, False: ACK_DELAY_EXPONENT}

    def start(self, version: int | None, versions: list[int], alpn: Any) -> None:
        """Log that a client begins."""
        self._transport(
            "version_information", client_versions=versions, chosen_version=version
        )
        self._transport("alpn_information", client_alpns=alpn)

    def parameters(self, local: bool, values: dict[str, Any]) -> None:
        """Log the transport parameters of one end."""
        self._exponents[local] = values["ack_delay_exponent"]
        self._transport(
            "parameters_set", owner="local" if local else "remote", **values
        )

    def datagrams(self, sent: bool, lengths: Sequence[int]) -> None:
        """Log UDP datagrams by the lengths of their payloads."""
        self._transport(
            "datagrams_sent" if sent else "datagrams_received",
            count=len(lengths),
            raw=[
                {"length": n + UDP_HEADER_LENGTH, "payload_length": n} for n in lengths
            ],
        )

    def unprotected(self, datagram: bytes) -> None:
        """Log the packets of a received datagram that have no frames: Retry and Version
        Negotiation."""
        try:
            kind = packet_type(datagram)
            if kind not in ("retry", "version_negotiation"):
                return
            header = {"packet_type": kind, **connection_ids(datagram)}
        except IndexError:
            return
        self._transport(
            "packet_received",
            frames=[],
            header={"packet_number": None, **header},
            raw={"length": len(datagram)},
        )

    def packet(self, sent: bool, header_length: int, data: bytes) -> None:
        """Log a packet, its header before its frames."""
        header = data[:header_length]
        number_length = (header[0] & 3) + 1
        kind = packet_type(header)
        space = SPACES.get(kind, "application")
        number = self._number(sent, space, header[-number_length:])
        if kind == "1RTT":
            ids = {"dcid": header[1:-number_length].hex(), "scid": ""}
        else:
            ids = connection_ids(header)
        self._note_keys(sent, kind, header[0])
        frames = decode_frames(
            data[header_length:],
            self._exponents[sent] if kind == "1RTT" else ACK_DELAY_EXPONENT,
        )
        self._transport(
            "packet_sent" if sent else "packet_received",
            frames=frames,
            header={"packet_number": number, "packet_type": kind, **ids},
            raw={"length": len(data) + TAG_LENGTH},
        )
        if kind == "handshake" and sent == self._is_client:
            # RFC 9001, 4.9.
            self._retire("initial")
        elif any(frame["frame_type"] == "handshake_done" for frame in frames):
            self._retire("handshake")

    def metrics(self, **values: float) -> None:
        """Log what has changed in the state of congestion control."""
        changed = {
            name: value
            for name, value in values.items()
            if self._metrics.get(name) != value
        }
        if changed:
            self._metrics.update(changed)
            self._log.log_event(
                category="recovery", event="metrics_updated", data=changed
            )

    def end(self, error_code: int, reason: str) -> None:
        """Log the end of the connection."""
        self._log.log_event(
            category="connectivity",
            event="connection_closed",
            data={"owner": "local", "reason": reason, "error_code": error_code},
        )

    def _transport(self, event: str, **data: Any) -> None:
        self._log.log_event(category="transport", event=event, data=data)

    def _number(self, sent: bool, space: str, truncated: bytes) -> int:
        """Return the full packet number (RFC 9000, A.3)."""
        expected = self._next.get((sent, space), 0)
        window = 1 << 8 * len(truncated)
        number = expected & -window | int.from_bytes(truncated, "big")
        if number + window // 2 <= expected:
            number += window
        elif number > expected + window // 2 and number >= window:
            number -= window
        self._next[sent, space] = max(expected, number + 1)
        return number

    def _note_keys(self, sent: bool, kind: str, first: int) -> None:
        """Log new keys when a packet first uses them."""
        phase = first & KEY_PHASE if kind == "1RTT" else 0
        before = self._keys.get((sent, kind))
        if before == phase:
            return
        self._keys[sent, kind] = phase
        if before is None:
            trigger = "tls"
        elif self._keys.get((not sent, kind)) == phase:
            # The other direction has changed before.
            trigger = "remote_update" if sent else "local_update"
        else:
            trigger = "local_update" if sent else "remote_update"
        self._key("key_updated", sent, kind, trigger)

    def _retire(self, kind: str) -> None:
        for way in (True, False):
            if self._keys.pop((way, kind), None) is not None:
                self._key("key_retired", way, kind, "tls")

    def _key(self, event: str, sent: bool, kind: str, trigger: str) -> None:
        end = "client" if sent == self._is_client else "server"
        self._log.log_event(
            category="security",
            event=event,
            data={"key_type": f"{end}_{kind.lower()}_secret", "trigger": trigger},
        )
