"""Write the seed corpora of the fuzzers: ``make_corpus.py DIRECTORY``.

Seeds are made from the same words that the fuzzers read (ops.c), so that they
change with them; none is kept in the repository.
"""

import random
import struct
import sys
from pathlib import Path

REQUEST, RESPONSE, INFORMATIONAL, TRAILERS, PROMISE, BODY = range(6)
SOURCE, ANSWER, WATCH, RESET, CONSUME, SETTINGS, WINDOW, QUERY, SEND = range(7, 16)
RARE, END = 16, 17


def body(stream_id: int, size: int, end: bool) -> bytes:
    return struct.pack(">BBHB", BODY, stream_id, size, end)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return bytes([0x60, kind, flags, stream_id, len(payload)]) + payload


def headers(stream_id: int, which: int, end: bool) -> bytes:
    """A header block by its place in the list of fuzz_h2_recv.c."""
    return bytes([0x60, 1, end, stream_id, which])


def raw(data: bytes) -> bytes:
    pieces = [data[i : i + 0x60] for i in range(0, len(data), 0x60)]
    return b"".join(bytes([0xA0 + len(piece) - 1]) + piece for piece in pieces)


def call(*words: bytes) -> bytes:
    return b"".join(b"\x00" + word for word in words)


def recv_seeds() -> list[bytes]:
    response = bytes([RESPONSE, 1, 0, 0])
    server = b"\x00\x00"
    client = b"\x01\x00"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    request = bytes([REQUEST, 1, 0])
    send = bytes([SEND, 255, 255, 1])
    return [
        server + headers(1, 0, True) + call(response, body(1, 9000, True), send),
        server + headers(1, 1, False) + frame(0, 1, 1, b"abc"),
        server + headers(1, 8, False) + frame(9, 4, 1, b""),
        server + headers(1, 0, False) + frame(3, 0, 1, bytes([0, 0, 0, 8])),
        server + headers(1, 0, True) + call(bytes([PROMISE, 1]), send),
        server + headers(1, 5, True) + call(bytes([RARE, 4, 200, 9, 1, 1])),
        b"\x3e\x00" + headers(1, 0, False) + frame(0, 0, 1, bytes(200)),
        b"\x3e\x1f" + headers(1, 5, True) + frame(0xF0, 0, 0, b"payload"),
        b"\x80\x00" + raw(preface) + headers(1, 0, True),
        server + frame(4, 0, 0, bytes([0, 4, 0, 0, 0, 9])) + frame(4, 1, 0, b""),
        server + frame(6, 0, 0, b"12345678") + frame(6, 1, 0, b"12345678"),
        server + frame(7, 0, 0, bytes(8) + b"debug") + frame(8, 0, 0, b"\0\0\1\0"),
        server + frame(16, 0, 0, bytes([0, 0, 0, 1]) + b"u=1"),
        client + call(request, send) + headers(1, 2, False) + frame(0, 1, 1, b"abc"),
        client + call(request, send) + headers(1, 3, False) + headers(1, 2, True),
        client + call(request, send) + bytes([0x60, 5, 4, 1, 8]) + headers(2, 2, True),
        client + call(request, body(1, 70, False), bytes([RESET, 1, 8, 0]), send),
        client + frame(10, 0, 0, b"\0\1ah3") + frame(12, 0, 0, b"\0\1a"),
        client + call(bytes([END, 4, 6, 0])) + headers(1, 2, True),
    ]


def pair_seeds() -> list[bytes]:
    rng = random.Random(7540)
    request = b"\x01" + bytes([REQUEST, 1, 0])
    response = b"\x00" + bytes([RESPONSE, 1, 0, 0])
    pump = b"\xf0"
    source = b"\x01" + bytes([SOURCE, 1, 1])
    seeds = [
        bytes(6) + request + pump + response + b"\x00" + body(1, 9000, True),
        bytes(6) + request + b"\x01" + body(1, 60000, True) + pump + response,
        bytes(6) + request + source + pump + b"\x01" + bytes([ANSWER, 9, 9, 1]),
        b"\x02\x00\x02\x00\x02\x02" + request + b"\x01" + body(1, 60000, True) + pump,
        b"\x20\x04\x20\x04\x00\x00" + request + b"\x01" + body(1, 900, True) + pump,
        bytes(6) + request + pump + b"\x00" + bytes([PROMISE, 1]) + response + pump,
        bytes(6) + request + b"\x01" + bytes([TRAILERS, 1, 1]) + pump,
        bytes(6) + request + b"\x01" + bytes([RESET, 1, 8, 0]) + pump,
        bytes(6) + b"\x00" + bytes([SETTINGS, 1, 0, 1]) + pump + request + pump,
    ]
    # And some that do anything at all, so that calls meet.
    seeds += [bytes(rng.choices(range(256), k=400)) for _ in range(8)]
    return seeds


def h3_frame(stream_id: int, kind: int, which: int) -> bytes:
    """A frame by its place in the lists of fuzz_h3_recv.c."""
    return bytes([2, stream_id, kind, which, 0])


def h3_raw(stream_id: int, data: bytes, end: bool = False) -> bytes:
    return bytes([0, stream_id, 2 * len(data) + end]) + data


def h3_seeds() -> list[bytes]:
    control = h3_raw(2, b"\x00\x04\x02\x21\x00")
    data = bytes([2, 0, 0, 3, 0]) + b"abc"
    request, response, trailers = (h3_frame(0, 1, which) for which in (0, 1, 4))
    insert = h3_raw(2, b"\x02\x3f\xe1\x1f\x43x-a\x011")
    blocked = h3_frame(0, 1, 5)
    connect = h3_frame(0, 1, 3)
    answer = bytes([7, 0, 1])
    stream = h3_raw(4, b"\x40\x41\x00abc") + h3_raw(14, b"\x40\x54\x00abc", True)
    capsule = h3_raw(0, b"\x00\x0a\x68\x43\x07\x00\x00\x00\x05bye")
    return [
        b"\x21" + control + request + data + trailers + answer,
        b"\x20" + h3_frame(0, 1, 2) + response + data + h3_raw(0, b"", True),
        b"\x21" + blocked + data + insert,
        b"\x27" + connect + answer + stream + capsule,
        b"\x27" + stream + b"\x06\x05\x00gram" + connect + b"\x05\x00\x00\x00\x00",
        b"\x20" + h3_raw(15, b"\x01\x00") + h3_frame(15, 1, 1) + h3_frame(0, 6, 0),
        b"\x3f" + control + request + h3_raw(0, b"\x21\x00" * 6),
    ]


def qpack_seeds() -> list[bytes]:
    insert = b"\x3f\xe1\x1f\x43x-a\x011"
    return [
        b"\x01\x00" + bytes([len(insert)]) + insert + b"\x02\x03\x02\x00\x80",
        b"\x01\x02\x08\x00\x00\xd1\xd7\x50\x01a\xc1" + b"\x01\x01\x01",
        b"\x00" + b"\x83\x28/index\x0aa=\x0fabc" * 8,
    ]


def quic_seeds() -> list[bytes]:
    """Handshakes with data, and every call of fuzz_quic_api.c."""
    run = bytes([28, 60])
    connect = bytes([0])
    data = bytes([2, 0, 200, 4, 1])
    calls = [bytes([op << 1 | end, 1, 0]) for op in range(16) for end in (0, 1)]
    seeds = [b"\0" + connect + data + run * 4]
    seeds += [b"\0" + connect + run * 2 + call + run + data + run for call in calls]
    seeds.append(b"\x20" + connect + data * 8 + run * 8)
    return seeds


def varint(n: int) -> bytes:
    """RFC 9000, 16."""
    for power, size in enumerate((1, 2, 4, 8)):
        if n < 1 << (8 * size - 2):
            return (n | power << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(n)


def packet(kind: int, frames: bytes) -> bytes:
    """A packet by its place in the list of fuzz_quic_recv.c."""
    if len(frames) >= 128:
        frames = frames.ljust((len(frames) + 9) // 10 * 10, b"\0")
        return bytes([kind << 3, 128 + len(frames) // 10]) + frames
    return bytes([kind << 3, len(frames)]) + frames


def quic_frames() -> list[bytes]:
    """One of each kind (RFC 9000, 19; RFC 9221, 4), and some that are wrong."""
    v = varint
    return [
        b"\0\0\0",
        b"\x01",
        b"\x02" + v(5) + v(0) + v(1) + v(0) + v(0) + v(2),
        b"\x03" + v(5) + v(9) + v(0) + v(5) + v(1) + v(2) + v(3),
        b"\x04" + v(2) + v(7) + v(100),
        b"\x04" + v(6) + v(7) + v(0),
        b"\x05" + v(0) + v(9),
        b"\x06" + v(0) + v(4) + b"\x14\0\0\0",
        b"\x07" + v(3) + b"tok",
        b"\x08" + v(0) + b"stream",
        b"\x0f" + v(2) + v(10) + v(4) + b"part",
        b"\x0e" + v(1) + v(1 << 20) + v(1) + b"x",
        b"\x10" + v(1 << 30) + b"\x11" + v(0) + v(1 << 30),
        b"\x12" + v(100) + b"\x13" + v(1 << 60),
        b"\x14" + v(9) + b"\x15" + v(0) + v(9) + b"\x16" + v(9) + b"\x17" + v(9),
        b"\x18" + v(8) + v(0) + b"\x08" + bytes(range(24)),
        b"\x18" + v(9) + v(9) + b"\x01" + b"z" * 17,
        b"\x19" + v(0) + b"\x19" + v(1),
        b"\x1a" + b"12345678" + b"\x1b" + b"12345678",
        b"\x1c" + v(1) + v(6) + v(3) + b"bye",
        b"\x1d" + v(1) + v(3) + b"bye",
        b"\x1e",
        b"\x30datagram",
        b"\x31" + v(2) + b"ab",
        v(0x1234) + b"unknown",
    ]


def quic_recv_seeds() -> list[bytes]:
    """Every frame in every packet, to a client and to a server, with time."""
    rng = random.Random(9000)
    frames = quic_frames()
    run, late, moved = b"\x17", b"\x05\xa0\x01", b"\x06\x01"
    calls = b"".join(bytes([3, 4 * n, n, 40, 1]) for n in range(7))
    seeds = []
    for number, frame in enumerate(frames):
        for start in (0x80, 0x81, 0x8F):
            seeds.append(bytes([start]) + packet(0, frame) + run + packet(3, frame))
        start, kind = (0x01, 4) if number % 2 else (0x10, 6)
        seeds.append(bytes([start]) + packet(kind, frame) + packet(5, frame) + run)
    for start in (0x86, 0x87):
        for _ in range(8):
            chosen = rng.choices(frames, k=12)
            extras = rng.choices([run, late, moved, calls], k=12)
            pairs = zip(chosen, extras, strict=True)
            packets = b"".join(packet(0, frame) + extra for frame, extra in pairs)
            seeds.append(bytes([start]) + packets)
    seeds.append(b"\x87" + packet(0, b"".join(frames[:12])) + calls + run)
    # CRYPTO with a NewSessionTicket of no bytes, which this program has found.
    seeds.append(bytes.fromhex("8100070600040400000000000000"))
    return seeds


def main() -> None:
    for name, seeds in {
        "h2_recv": recv_seeds(),
        "h2_pair": pair_seeds(),
        "h3_recv": h3_seeds(),
        "quic_api": quic_seeds(),
        "quic_recv": quic_recv_seeds(),
        "qpack": qpack_seeds(),
    }.items():
        directory = Path(sys.argv[1], name)
        directory.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (directory / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
