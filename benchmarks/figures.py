"""What a script has measured, kept for charts.py in build/bench/.

A table has a row for each task, and in it a number for each program.  The first
program is ours; a row's numbers may be compared, those of different rows only if
their units are the same.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"

Rows = dict[str, dict[str, float]]


def keep(
    name: str, title: str, unit: str, rows: Rows, *, goal: str = "", more: bool = False
) -> None:
    """Write a table; ``more`` says that the larger number is the better one."""
    BUILD.mkdir(parents=True, exist_ok=True)
    table = {
        "title": title,
        "unit": unit,
        "better": "more" if more else "less",
        "goal": goal,
        "measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "rows": rows,
    }
    (BUILD / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
