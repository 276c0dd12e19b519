"""HPACK through Python beside the same coder in C, and the hpack package.

Each column is nanoseconds for one header list, on one connection whose tables
live on; the ratios are what counts, for all were measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import figures
import headers
import hpack

from nghttp2py.hpack import HDDeflater, HDInflater

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks"
GOAL_C = 1.4
GOAL_HPACK = 40.0

Lists = list[list[tuple[bytes, bytes]]]


def build_limit() -> Path:
    """Compile limit.c, if it is newer than what was compiled."""
    source, program = HERE / "limit.c", BUILD / "limit"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libnghttp2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=c99", "-O2"]
    command += [str(source), *shlex.split(flags), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def time_limit(program: Path, lists: Lists, rounds: int) -> tuple[float, float]:
    """Run the C loop; return its best times to encode and to decode a list."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        for fields in lists:
            for name, value in fields:
                file.write(name + b"\t" + value + b"\n")
            file.write(b"\n")
        file.flush()
        printed = subprocess.run(
            [str(program), file.name, str(rounds)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    encode, decode = map(float, printed.split())
    return encode, decode


def time_coders(
    encode: Callable, decode: Callable, lists: Lists, rounds: int
) -> tuple[float, float]:
    """Return the best times of ``rounds`` passes to encode and decode a list."""
    clock = time.perf_counter_ns
    best_encode = best_decode = 1 << 62
    for _ in range(rounds):
        start = clock()
        blocks = [encode(fields) for fields in lists]
        middle = clock()
        for block in blocks:
            decode(block)
        end = clock()
        best_encode = min(best_encode, middle - start)
        best_decode = min(best_decode, end - middle)
    return best_encode / len(lists), best_decode / len(lists)


def time_ours(lists: Lists, rounds: int) -> tuple[float, float]:
    return time_coders(HDDeflater().deflate, HDInflater().inflate, lists, rounds)


def time_hpack(lists: Lists, rounds: int) -> tuple[float, float]:
    encoder, decoder = hpack.Encoder(), hpack.Decoder()

    # Raw: bytes out, as ours; its default would decode to str as well.
    def decode(block: bytes) -> object:
        return decoder.decode(block, raw=True)

    return time_coders(encoder.encode, decode, lists, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=8, help="turns of each coder")
    repeat = parser.parse_args().repeat
    program = build_limit()
    rows: figures.Rows = {}
    print(f"{'ns for each list':24}{'C':>8}{'ours':>8}{'hpack':>8}", end="")
    print(f"{'ours/C':>9}{'hpack/ours':>12}")
    for what, lists in (
        ("request", headers.REQUESTS),
        ("response", headers.RESPONSES),
    ):
        turns = [
            (
                *time_limit(program, lists, 200),
                *time_ours(lists, 200),
                *time_hpack(lists, 10),
            )
            for _ in range(repeat)
        ]
        times = figures.medians(turns)
        for verb, (c, us, them) in (("encode", times[::2]), ("decode", times[1::2])):
            row = f"{verb} a {what} ({len(lists)})"
            rows[f"{verb} a {what}"] = {
                "nghttp2py": us,
                "nghttp2 in C": c,
                "hpack": them,
            }
            print(f"{row:24}{c:8.0f}{us:8.0f}{them:8.0f}", end="")
            print(f"{us / c:8.2f}x{them / us:11.1f}x")
    goal = f"ours/C at most {GOAL_C}, hpack/ours at least {GOAL_HPACK:.0f}"
    print(f"goal: {goal}")
    figures.keep("hpack_coding", "Header lists by HPACK", "ns", rows, goal=goal)


if __name__ == "__main__":
    main()
