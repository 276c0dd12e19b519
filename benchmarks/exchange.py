"""Exchanges without I/O: our connection beside ngh2's and h2's.

The bytes of the peer are made beforehand and are the same for all. The columns are
microseconds of CPU for one exchange (body rows: for one body), each the median of
interleaved turns, and the ratios are what counts.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial

import figures
import h2.config
import h2.connection
import h2.events
import ngh2
from small import BODY, CHUNK, OK, REQUEST, TYPE, reads, serve

from nghttp2py.h2 import H2Connection, H2RequestReceived, H2ResponseReceived

GOAL_NGH2 = 1.5
GOAL_H2 = 40.0

DOWNLOAD = bytes(1 << 20)

Drive = Callable[[list[bytes]], None]


# ---- Ours ----


def ask_ours(wire: list[bytes], per_read: int) -> None:
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    connection.receive_data(wire[0])
    for data in wire[1:]:
        for _ in range(per_read):
            connection.send_headers(None, REQUEST, end_stream=True)
        connection.data_to_send()
        got = connection.receive_data(data)
        assert type(got[0]) is H2ResponseReceived


# ---- ngh2 ----


def serve_ngh2(wire: list[bytes], body: bytes = BODY) -> None:
    connection = ngh2.Connection(ngh2.Role.SERVER)
    connection.initiate_connection()
    for data in wire:
        connection.receive_data(data)
        for event in connection.events():
            kind = type(event)
            if (
                kind is ngh2.RequestReceived or kind is ngh2.DataReceived
            ) and event.end_stream:
                stream_id = event.stream_id
                connection.send_response(stream_id, OK)
                connection.send_data(stream_id, body, end_stream=True)
        connection.data_to_send()


def ask_ngh2(wire: list[bytes], per_read: int) -> None:
    connection = ngh2.Connection(ngh2.Role.CLIENT)
    connection.initiate_connection()
    connection.receive_data(wire[0])
    for data in wire[1:]:
        for _ in range(per_read):
            connection.send_request(REQUEST, end_stream=True)
        connection.data_to_send()
        connection.receive_data(data)
        assert type(connection.events()[-1]) is ngh2.StreamClosed


# ---- h2 ----


def theirs(client_side: bool) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=client_side, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    return connection


def serve_h2(wire: list[bytes], body: bytes = BODY) -> None:
    connection = theirs(False)
    for data in wire:
        for event in connection.receive_data(data):
            kind = type(event)
            if kind is h2.events.DataReceived:
                connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif kind is h2.events.StreamEnded:
                stream_id = event.stream_id
                connection.send_headers(stream_id, OK)
                end = len(body)
                for i in range(0, end, CHUNK):
                    connection.send_data(
                        stream_id, body[i : i + CHUNK], end_stream=i + CHUNK >= end
                    )
        connection.data_to_send()


def ask_h2(wire: list[bytes], per_read: int) -> None:
    connection = theirs(True)
    connection.receive_data(wire[0])
    for data in wire[1:]:
        for _ in range(per_read):
            stream_id = connection.get_next_available_stream_id()
            connection.send_headers(stream_id, REQUEST, end_stream=True)
        connection.data_to_send()
        assert connection.receive_data(data)


# ---- Measuring ----


def spend(drive: Callable[[], None]) -> float:
    """CPU seconds of a run, without the collector."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        drive()
        return time.process_time() - start
    finally:
        gc.enable()


def rows(count: int, few: int) -> Iterator[tuple[str, list[tuple[Drive, list, int]]]]:
    """Each row's name, and for ours, ngh2, h2: what to run, its reads, their count."""
    for per_read in (1, 50):
        many = reads(False, count, per_read, False)
        short = reads(False, few, per_read, False)
        yield (
            f"server, {per_read} a read",
            [
                (serve, many, count),
                (serve_ngh2, many, count),
                (serve_h2, short, few),
            ],
        )
    for per_read in (1, 50):
        many = reads(True, count, per_read, False)
        short = reads(True, few, per_read, False)
        yield (
            f"client, {per_read} a read",
            [
                (lambda wire, n=per_read: ask_ours(wire, n), many, count),
                (lambda wire, n=per_read: ask_ngh2(wire, n), many, count),
                (lambda wire, n=per_read: ask_h2(wire, n), short, few),
            ],
        )
    many, short = reads(False, 100, 1, True), reads(False, 20, 1, True)
    yield (
        "upload of 32 KiB",
        [(serve, many, 100), (serve_ngh2, many, 100), (serve_h2, short, 20)],
    )
    some = reads(False, 10, 1, False)
    yield (
        "download of 1 MiB",
        [
            (lambda wire: serve(wire, DOWNLOAD), some, 10),
            (lambda wire: serve_ngh2(wire, DOWNLOAD), some, 10),
            (lambda wire: serve_h2(wire, DOWNLOAD), some, 10),
        ],
    )


# ---- Memory ----


class Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of the C library."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("chunks", ctypes.c_size_t * 3),
        ("mapped_bytes", ctypes.c_size_t),
        ("bins", ctypes.c_size_t * 2),
        ("used_bytes", ctypes.c_size_t),
        ("free_bytes", ctypes.c_size_t * 2),
    ]


def in_use() -> int:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    info = libc.mallinfo2()
    return info.used_bytes + info.mapped_bytes


def idle_ours(wire: list[bytes]) -> object:
    connection = H2Connection()
    connection.initiate_connection()
    for data in wire:
        for event in connection.receive_data(data):
            if type(event) is H2RequestReceived:
                connection.send_response_headers(event.stream_id, 200, TYPE)
                connection.send_body(event.stream_id, BODY)
        connection.data_to_send()
    connection.pending_events()
    return connection


def memory(count: int = 500) -> None:
    """Print what an idle connection takes, and what of it is nghttp2's own."""
    wire = reads(False, 2, 1, False)
    lib = ctypes.CDLL(ctypes.util.find_library("nghttp2"))
    callbacks = ctypes.c_void_p()
    lib.nghttp2_session_callbacks_new(ctypes.byref(callbacks))
    sessions = (ctypes.c_void_p * count)()
    before = in_use()
    for i in range(count):
        session = ctypes.c_void_p()
        lib.nghttp2_session_server_new(ctypes.byref(session), callbacks, None)
        lib.nghttp2_session_mem_recv.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        for data in wire:
            lib.nghttp2_session_mem_recv(session, data, len(data))
        pointer = ctypes.c_void_p()
        lib.nghttp2_session_mem_send.restype = ctypes.c_ssize_t
        while lib.nghttp2_session_mem_send(session, ctypes.byref(pointer)) > 0:
            pass
        sessions[i] = session
    own = (in_use() - before) / count
    for session in sessions:
        lib.nghttp2_session_del(ctypes.c_void_p(session))
    idle_ours(wire)
    gc.collect()
    before = in_use()
    kept = [idle_ours(wire) for _ in range(count)]
    ours = (in_use() - before) / len(kept)
    figures.keep(
        "idle_connection",
        "An idle connection after two exchanges",
        "KiB of memory",
        {"server": {"nghttp2py": ours / 1024, "nghttp2 session": own / 1024}},
        goal="at most 32 KiB beside the session",
    )
    print(
        f"idle connection after two exchanges: {ours / 1024:.1f} KiB, of which a bare "
        f"nghttp2 session takes {own / 1024:.1f} KiB (goal: at most 32 KiB beside it)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--count", type=int, default=4000, help="exchanges of a turn")
    options = parser.parse_args()
    table: figures.Rows = {}
    print(f"{'us for each exchange':22}{'ours':>9}{'ngh2':>9}{'h2':>9}", end="")
    print(f"{'ngh2/ours':>12}{'h2/ours':>10}")
    for name, drives in rows(options.count, options.count // 20):
        times = figures.medians(
            [
                [spend(partial(drive, wire)) / n * 1e6 for drive, wire, n in drives]
                for _ in range(options.turns)
            ]
        )
        table[name] = dict(zip(("nghttp2py", "ngh2", "h2"), times, strict=True))
        print(f"{name:22}" + "".join(f"{t:9.2f}" for t in times), end="")
        print(f"{times[1] / times[0]:11.2f}x{times[2] / times[0]:9.1f}x")
    goal = f"ngh2/ours at least {GOAL_NGH2}, h2/ours at least {GOAL_H2:.0f}; "
    goal += "bodies at least as fast as ngh2"
    print(f"goal: {goal}")
    figures.keep("exchange", "HTTP/2 without I/O", "µs of CPU", table, goal=goal)
    memory()


if __name__ == "__main__":
    main()
