"""HTTP/3 framing beside aioquic's H3Connection, QPACK beside pylsqpack.

A server without a transport takes requests and answers each with headers and 11
bytes; what a client would say on the QPACK streams was recorded before.  Each
column is the time of one exchange or one header list; the ratios are what
counts, for all were measured in turns in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import figures
import headers

import nghttp2py.h3
from nghttp2py.h3 import QPACKDecoder, QPACKEncoder
from nghttp2py.h3.connection import encode_frame, encode_settings

# small.py does without aioquic.
try:
    import aioquic.h3.connection
    import pylsqpack
    from aioquic.quic.events import StreamDataReceived
except ImportError:
    from nghttp2py.quic.events import StreamDataReceived

GOAL_FRAMING = 8.0
BODY = b"hello world"
SETTINGS = {1: 4096, 7: 16, 8: 1}
# A client's streams: control, QPACK encoder and decoder.
CONTROL, ENCODER, DECODER = 2, 6, 10

HeaderList = list[tuple[bytes, bytes]]


class NullQuic:
    """What H3Connection needs of a QUIC connection, which goes nowhere."""

    _quic_logger = None
    _remote_max_datagram_frame_size = None

    def __init__(self) -> None:
        self.configuration = SimpleNamespace(is_client=False)
        self.next_id = 3

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self.next_id += 4
        return self.next_id - 4

    def send_stream_data(
        self, stream_id: int, data: bytes, end_stream: bool = False
    ) -> None:
        pass

    def close(self, error_code: int, reason_phrase: str) -> None:
        raise SystemExit(f"closed with {error_code!r}: {reason_phrase}")


class RecordingQuic(NullQuic):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, bytes] = {}

    def send_stream_data(
        self, stream_id: int, data: bytes, end_stream: bool = False
    ) -> None:
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data


def start(connection_class: type, quic: NullQuic) -> object:
    """A server that has heard what clients say first."""
    h3 = connection_class(quic)
    for stream_id, data in (
        (CONTROL, b"\0" + encode_frame(4, encode_settings(SETTINGS))),
        (ENCODER, b"\2"),
        (DECODER, b"\3"),
    ):
        h3.handle_event(StreamDataReceived(data, False, stream_id))
    return h3


# Requests without a body.
REQUESTS = [
    [field for field in fields if field[0] != b"content-length"]
    for fields in headers.REQUESTS
]
Exchange = tuple[list[StreamDataReceived], HeaderList, StreamDataReceived | None]


def record(connection_class: type, count: int) -> list[Exchange]:
    """For each exchange: what comes in, the answer, and what the client then says."""
    quic = RecordingQuic()
    h3 = start(connection_class, quic)
    encoder, decoder = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)
    quic.sent = {7: quic.sent[7][1:]}
    exchanges = []
    for i in range(count):
        which = i % len(REQUESTS)
        stream_id = 4 * i
        section = encoder.encode(stream_id, REQUESTS[which])
        events = [StreamDataReceived(encode_frame(1, section), True, stream_id)]
        if inserts := encoder.data_to_send():
            events.insert(0, StreamDataReceived(inserts, False, ENCODER))
        response = headers.RESPONSES[which]
        answer(h3, events, response)
        # The client reads the answer, and we read what its decoder says.
        decoder.receive_data(quic.sent.pop(7, b""))
        frame = quic.sent.pop(stream_id)
        size = 3 if frame[1] & 0x40 else 2
        length = int.from_bytes(frame[1:3], "big") & 0x3FFF if size == 3 else frame[1]
        assert decoder.decode(stream_id, frame[size : size + length]) == response
        encoder.receive_data(quic.sent.pop(11, b"").removeprefix(b"\3"))
        said = decoder.data_to_send()
        ack = StreamDataReceived(said, False, DECODER) if said else None
        exchanges.append((events, response, ack))
    return exchanges


def answer(h3: object, events: list[StreamDataReceived], response: HeaderList) -> None:
    for event in events:
        for received in h3.handle_event(event):
            h3.send_headers(received.stream_id, response)
            h3.send_data(received.stream_id, BODY, True)


def time_framing(connection_class: type, exchanges: list[Exchange]) -> float:
    """Microseconds for one exchange."""
    h3 = start(connection_class, NullQuic())
    begin = time.perf_counter()
    for events, response, ack in exchanges:
        answer(h3, events, response)
        if ack is not None:
            h3.handle_event(ack)
    return (time.perf_counter() - begin) / len(exchanges) * 1e6


def time_ours(lists: list[HeaderList], rounds: int) -> tuple[float, float]:
    encoder, decoder = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)

    def encode(stream_id: int, fields: HeaderList) -> tuple[bytes, bytes]:
        section = encoder.encode(stream_id, fields)
        return encoder.data_to_send(), section

    def decode(stream_id: int, stream: bytes, section: bytes) -> bytes:
        decoder.receive_data(stream)
        decoder.decode(stream_id, section)
        return decoder.data_to_send()

    return time_coders(encode, decode, encoder.receive_data, lists, rounds)


def time_pylsqpack(lists: list[HeaderList], rounds: int) -> tuple[float, float]:
    encoder, decoder = pylsqpack.Encoder(), pylsqpack.Decoder(4096, 16)
    decoder.feed_encoder(encoder.apply_settings(4096, 16))

    def decode(stream_id: int, stream: bytes, section: bytes) -> bytes:
        decoder.feed_encoder(stream)
        return decoder.feed_header(stream_id, section)[0]

    return time_coders(encoder.encode, decode, encoder.feed_decoder, lists, rounds)


def time_coders(
    encode: Callable,
    decode: Callable,
    acknowledge: Callable,
    lists: list[HeaderList],
    rounds: int,
) -> tuple[float, float]:
    """The best times of ``rounds`` passes to encode and to decode a list, in ns.

    Each list is acknowledged before the next: its encoder then knows what it
    may refer to.
    """
    clock = time.perf_counter_ns
    best_encode = best_decode = 1 << 62
    stream_id = 0
    for _ in range(rounds):
        spent_encode = spent_decode = 0
        for fields in lists:
            begin = clock()
            encoded = encode(stream_id, fields)
            middle = clock()
            said = decode(stream_id, *encoded)
            end = clock()
            acknowledge(said)
            spent_encode += middle - begin
            spent_decode += end - middle
            stream_id += 4
        best_encode = min(best_encode, spent_encode)
        best_decode = min(best_decode, spent_decode)
    return best_encode / len(lists), best_decode / len(lists)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=8, help="turns of each")
    parser.add_argument("--count", type=int, default=2000, help="exchanges a turn")
    options = parser.parse_args()

    classes = {
        "ours": nghttp2py.h3.H3Connection,
        "aioquic": aioquic.h3.connection.H3Connection,
    }
    recorded = {name: record(cls, options.count) for name, cls in classes.items()}
    coders = {"ours": time_ours, "pylsqpack": time_pylsqpack}
    kinds = {"request": headers.REQUESTS, "response": headers.RESPONSES}
    framed: list[list[float]] = []
    coded: dict[tuple[str, str], list[tuple[float, float]]] = {
        (name, kind): [] for name in coders for kind in kinds
    }
    for _ in range(options.repeat):
        framed.append([time_framing(cls, recorded[n]) for n, cls in classes.items()])
        for (name, kind), turns in coded.items():
            turns.append(coders[name](kinds[kind], 10))

    print(f"{'us for each exchange':24}{'ours':>10}{'aioquic':>10}{'ratio':>8}")
    ours, theirs = figures.medians(framed)
    print(f"{'framing':24}{ours:10.2f}{theirs:10.2f}{theirs / ours:7.1f}x")
    print(f"goal: at least {GOAL_FRAMING:.0f}x")
    figures.keep(
        "h3",
        "HTTP/3 without I/O and without QUIC",
        "µs",
        {"exchange at a server": {"nghttp2py": ours, "aioquic": theirs}},
        goal=f"aioquic/ours at least {GOAL_FRAMING:.0f}",
    )
    table: figures.Rows = {}
    print(f"{'ns for each list':24}{'ours':>10}{'pylsqpack':>10}{'ratio':>8}")
    for kind in kinds:
        found = {name: figures.medians(coded[name, kind]) for name in coders}
        for place, verb in enumerate(("encode", "decode")):
            us, them = found["ours"][place], found["pylsqpack"][place]
            table[f"{verb} a {kind}"] = {"nghttp2py": us, "pylsqpack": them}
            print(f"{verb + ' a ' + kind:24}{us:10.0f}{them:10.0f}{them / us:7.1f}x")
    figures.keep("qpack", "Header lists by QPACK", "ns", table)


if __name__ == "__main__":
    main()
