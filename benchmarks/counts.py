"""Instructions of the small rows, by callgrind, beside those that are committed.

Unlike times, they are the same in each run and on a busy machine, to two percent.
counts.json has them for each combination of libraries that was counted; ``--update``
writes those of this one into it.  The exit status is 1 if a row needs more than
``LIMIT`` times what it did.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import figures

from nghttp2py import features

TABLE = Path(__file__).with_name("counts.json")
LIMIT = 1.04
VALGRIND = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]


def environment() -> str:
    """What counts depend on: they compare only with those of the same."""
    found = features()
    libraries = [f"{name} {found[name]}" for name in ("nghttp2", "nghttp3", "ngtcp2")]
    here = [f"CPython {platform.python_version()}", *libraries, platform.machine()]
    return ", ".join(here)


def count_all(helper: str) -> None:
    """Do the work of each row, inside of valgrind."""
    import quic
    import small

    library = ctypes.CDLL(helper)
    gc.disable()
    with tempfile.TemporaryDirectory() as directory:
        files = quic.Files(Path(directory))
        rows = dict(small.ROWS)
        rows["QUIC exchange"] = small.Row(
            lambda count: small.exchange_quic(files, count), 500
        )
        for name, row in rows.items():
            row.make(row.count // 10)()  # what happens once
            work = row.make(row.count)
            gc.collect()
            library.count_begin()
            work()
            library.count_end(f"{name}={row.count}".encode())


def measure() -> dict[str, float]:
    """Run this script in valgrind; return the instructions of an operation of each."""
    with tempfile.TemporaryDirectory() as directory:
        helper = Path(directory) / "count.so"
        compiler = os.environ.get("CC", "cc").split()
        source = str(Path(__file__).with_name("count.c"))
        built = [*compiler, "-O1", "-shared", "-fPIC", source, "-o", str(helper)]
        subprocess.run(built, check=True)
        out = f"--callgrind-out-file={directory}/out"
        subprocess.run(
            [*VALGRIND, out, sys.executable, __file__, "--helper", str(helper)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            timeout=figures.LONGEST,
        )
        found = {}
        for path in sorted(
            Path(directory).glob("out.*"), key=lambda path: int(path.suffix[1:])
        ):
            text = path.read_text()
            row = re.search(r"^desc: Trigger: Client Request: (.*)=(\d+)$", text, re.M)
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
            if row is not None and total is not None:
                found[row[1]] = int(total[1]) / int(row[2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write counts.json")
    parser.add_argument("--helper", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.helper:
        count_all(options.helper)
        return
    features()  # loads the libraries
    if "/ngp-debug/" in Path("/proc/self/maps").read_text():
        sys.exit("a build without optimisation is not worth counting")
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing; install it (Debian: apt-get install valgrind)")
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    here = environment()
    before = table.get(here, {})
    found = {name: round(count) for name, count in measure().items()}
    print(here if before else f"{here}: nothing to compare with is committed")
    print(f"{'instructions':24}{'now':>10}{'before':>10}")
    worse = []
    for name, count in found.items():
        was = before.get(name)
        print(f"{name:24}{count:10}", end="")
        print(f"{was:10}{count / was:8.3f}x" if was else "")
        if was and count > was * LIMIT:
            worse.append(name)
    if options.update:
        table[here] = found
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    elif worse:
        sys.exit(f"more than {LIMIT} times as many as before: {', '.join(worse)}")


if __name__ == "__main__":
    main()
