"""What a script has measured, kept for charts.py in build/bench/.

A table has a row for each task, and in it a number for each program.  The first
program is ours; a row's numbers may be compared, those of different rows only if
their units are the same.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"

Rows = dict[str, dict[str, float]]

#: Seconds that anything measured may take, and rounds of a loop in memory: what takes
#: more has hung, for a fault of ours or of the peer.
LONGEST = 300.0
ROUNDS = 1_000_000


def rounds(what: str) -> Iterator[None]:
    """Give the rounds of a loop that waits for ``what``; raise if it never comes."""
    for _ in range(ROUNDS):
        yield
    raise RuntimeError(f"{what} does not come in {ROUNDS:,} rounds")


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of each column: a turn is a row, measured in one go.

    Turns of several programs are taken one after the other, so that all see the
    same machine; a median is not moved by the turn that something else disturbed.
    """
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def commit() -> str:
    """The commit that is measured, with a plus if files were changed after it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return said.stdout.strip()


def keep(
    name: str, title: str, unit: str, rows: Rows, *, goal: str = "", more: bool = False
) -> None:
    """Write a table; ``more`` says that the larger number is the better one.

    A table without rows was not asked for, and is not written.
    """
    if not rows:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    table = {
        "title": title,
        "unit": unit,
        "better": "more" if more else "less",
        "goal": goal,
        "commit": commit(),
        "measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "rows": rows,
    }
    (BUILD / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
