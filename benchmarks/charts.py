"""Tables and charts of docs/performance.rst, from what the benchmarks have kept.

Without options it takes the tables of build/bench/ and writes docs/performance/:
figures.json with all numbers and where they were measured, and from that alone a
drawing for each table and figures.rst, which the page includes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
from html import escape
from pathlib import Path
from typing import Any

import figures

PAGE = figures.ROOT / "docs" / "performance"
# The order of the page, and the script that keeps each table.
TABLES = {
    "hpack_coding": "hpack_coding",
    "exchange": "exchange",
    "idle_connection": "exchange",
    "server_cpu": "server",
    "server_rate": "server",
    "client": "client",
    "client_download": "client",
    "httpx": "httpx_transport",
    "streams": "streams",
    "idle": "idle",
    "idle_memory": "idle",
    "h3": "h3",
    "qpack": "h3",
    "quic_memory": "quic",
    "quic_idle": "quic",
    "quic_loopback": "quic",
    "asgi_cpu": "asgi",
    "asgi_rate": "asgi",
    "asgi_memory": "asgi",
}
BESIDE = ["h2", "hpack", "httpx", "ngh2", "aioquic", "qh3", "pylsqpack", "uvloop"]
SERVERS = ["uvicorn", "hypercorn", "granian", "h2corn"]  # those that are installed


# ---- Where it was measured ----


def machine() -> dict[str, Any]:
    """The machine's kind and what ran on it; not its name."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    from nghttp2py import features

    return {
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "nghttp2": features()["nghttp2"],
        "packages": {
            name: importlib.metadata.version(name)
            for name in (*BESIDE, *filter(importlib.util.find_spec, SERVERS))
        },
    }


def collect() -> dict[str, Any]:
    """Everything that docs/performance/ is made of.

    What was not measured since stays as it is there, with its commit and machine.
    """
    there = PAGE / "figures.json"
    data = json.loads(there.read_text()) if there.exists() else {}
    tables = data.get("tables", {})
    runs = data.get("runs", {})
    kept = {
        name: json.loads((figures.BUILD / f"{name}.json").read_text())
        for name in TABLES
        if (figures.BUILD / f"{name}.json").exists()
    }
    if not kept:
        raise SystemExit("nothing was measured yet: make bench")
    here = machine()
    for table in kept.values():
        runs[table["commit"]] = here
    tables |= kept
    used = sorted(tables.values(), key=lambda table: str(table["measured"]))
    return {
        "runs": {table["commit"]: runs[table["commit"]] for table in used},
        "tables": {name: tables[name] for name in TABLES if name in tables},
    }


# ---- A drawing ----

STYLE = """\
  <style>
    .chart { color: var(--color-foreground-primary, #222); }
    .chart text { fill: currentColor; font: 12px var(--font-stack, sans-serif) }
    .chart .row { font-weight: 600 }
    .chart .unit { fill: var(--color-foreground-muted, #666) }
    .chart .grid { stroke: var(--color-background-border, #ddd) }
    .chart .reach { stroke: currentColor; stroke-opacity: .25; stroke-width: 2 }
    .chart .mark { stroke-width: 2; fill: var(--color-background-primary, #fff) }
    .chart .p0 { stroke: #2f9e6e; fill: #2f9e6e }
    .chart .p1 { stroke: #c77d1f }
    .chart .p2 { stroke: #2a8fbd }
    .chart .p3 { stroke: #a05fb5 }
    .chart .p4 { stroke: #888 }
  </style>"""
# As wide as a telephone shows without making the text too small to be read; so the
# name of a row is above its line.  SPACE is what the number of an axis needs.
WIDTH, LEFT, RIGHT, TOP, STEP, SPACE = 440, 24, 30, 44, 40, 52


def mark(place: int, x: float, y: float) -> str:
    """A program's mark, which differs by its form, too, for readers who see no
    colours."""
    left, right, up, down = f"{x - 6:.1f}", f"{x + 6:.1f}", y - 6, y + 6
    shapes = [
        f'circle cx="{x:.1f}" cy="{y}" r="6"',
        f'rect x="{x - 5:.1f}" y="{y - 5}" width="10" height="10"',
        f'path d="M{x:.1f} {up - 1}L{right} {y}L{x:.1f} {down + 1}L{left} {y}z"',
        f'path d="M{x:.1f} {up}L{right} {down - 1}H{left}z"',
        f'path d="M{left} {up}L{right} {down}M{right} {up}L{left} {down}"',
    ]
    kind = place % len(shapes)
    return f'<{shapes[kind]} class="mark p{kind}"/>'


def ticks(low: float, high: float) -> tuple[list[float], bool]:
    """Round numbers that hold the values between them; whether by powers of ten."""
    if high > 6 * low:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**i for i in range(first, last + 1)], True
    step = 10 ** math.floor(math.log10(high))
    if high / step < 2:
        step /= 5
    elif high / step < 5:
        step /= 2
    return [step * i for i in range(math.ceil(high / step) + 1)], False


def chart(name: str, table: dict[str, Any]) -> str:
    """The table as a drawing: a line for each row, a mark for each program."""
    rows: figures.Rows = table["rows"]
    programs = list(dict.fromkeys(p for row in rows.values() for p in row))
    values = [v for row in rows.values() for v in row.values()]
    marks, powers = ticks(min(values), max(values))
    legend: list[str] = []
    x, top = 10.0, TOP
    for place, program in enumerate(programs):
        room = 34 + 7 * len(program)
        if x + room - 16 > WIDTH and place:
            x, top = 10.0, top + 20
        legend.append(f"  {mark(place, x, top - 30)}")
        legend.append(
            f'  <text x="{x + 12:.0f}" y="{top - 26}">{escape(program)}</text>'
        )
        x += room
    bottom = top + STEP * len(rows)
    height = bottom + 38
    every = math.ceil(SPACE * (len(marks) - 1) / (WIDTH - LEFT - RIGHT))

    def at(value: float) -> float:
        share = (
            math.log(value / marks[0]) / math.log(marks[-1] / marks[0])
            if powers
            else value / marks[-1]
        )
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    better = "less is better" if table["better"] == "less" else "more is better"
    scale = ", by powers of ten" if powers else ""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'aria-labelledby="{name}-title">',
        f'  <title id="{name}-title">{escape(table["title"])}: '
        f"{escape(table['unit'])}, {better}</title>",
        STYLE,
    ]
    out += legend
    for i, value in enumerate(marks):
        out.append(f'  <path class="grid" d="M{at(value):.1f} {top}V{bottom}"/>')
        if i % every == 0:
            out.append(
                f'  <text class="unit" text-anchor="middle" x="{at(value):.1f}" '
                f'y="{bottom + 15}">{number(value)}</text>'
            )
    out.append(
        f'  <text class="unit" text-anchor="end" x="{WIDTH - RIGHT}" '
        f'y="{bottom + 33}">{escape(table["unit"])}, {better}{scale}</text>'
    )
    for i, (row, found) in enumerate(rows.items()):
        y = top + STEP * i + 27
        first, last = at(min(found.values())), at(max(found.values()))
        out.append(
            f'  <text class="row" x="{LEFT - 14}" y="{y - 11}">{escape(row)}</text>'
        )
        out.append(f'  <path class="reach" d="M{first:.1f} {y}H{last:.1f}"/>')
        # Ours is drawn last, over those that are as good.
        for place in reversed(range(len(programs))):
            if programs[place] in found:
                out.append(f"  {mark(place, at(found[programs[place]]), y)}")
    return "\n".join([*out, "</svg>", ""])


# ---- The picture of the README and of the first page ----

# What it shows of the tables, under which heading: a table of the rates, one of CPU
# times, the row in them.
OVERVIEW = {
    "ASGI, HTTP/1.1": ("asgi_rate", "asgi_cpu", "hello, HTTP/1.1"),
    "ASGI, HTTP/2": ("asgi_rate", "asgi_cpu", "hello, HTTP/2"),
    "ASGI, HTTP/3": ("asgi_rate", "asgi_cpu", "hello, HTTP/3"),
    "HTTP2Server, HTTP/2": ("server_rate", "server_cpu", "hello"),
}
# Text, muted text, the bar of ours, other bars.  The drawing of a page takes the page's
# colors; the README's is an image, which does not know them.
THEMES = {
    "overview": (
        "var(--color-foreground-primary, #222)",
        "var(--color-foreground-muted, #646776)",
        "var(--color-brand-primary, #0a7d5a)",
        "var(--color-background-border, #ccd2d8)",
    ),
    "overview-light": ("#1f2328", "#59636e", "#0a7d5a", "#c9d1d9"),
    "overview-dark": ("#e6edf3", "#9198a1", "#3fb68b", "#3d444d"),
}
NAME, BAR, PANEL, LINE = 128, 128, 216, 21


def overview(name: str, tables: dict[str, Any]) -> str:
    """Bars of requests a second and of CPU time, in the colors of a theme.

    The bars of one heading compare with each other: requests over HTTP/1.1 and HTTP/3
    come from different clients.
    """
    text, muted, ours, others = THEMES[name]
    width = NAME + 2 * PANEL
    out: list[str] = []
    y = 34
    for heading, (rates, times, row) in OVERVIEW.items():
        if rates not in tables or row not in tables[rates]["rows"]:
            continue
        found = tables[rates]["rows"][row], tables[times]["rows"][row]
        y += 10
        out.append(f'  <text class="head" x="0" y="{y}">{escape(heading)}</text>')
        y += LINE
        # Ours without uvloop says nothing here.
        programs = [name for name in found[0] if not name.endswith(", asyncio")]
        for program in programs:
            kind = "ours" if program.startswith("nghttp2py") else "others"
            shown = program.removesuffix(", uvloop")
            out.append(f'  <text class="{kind}" x="0" y="{y}">{escape(shown)}</text>')
            for panel, values in enumerate(found):
                x = NAME + panel * PANEL
                length = BAR * values[program] / max(values[p] for p in programs)
                out.append(
                    f'  <rect class="{kind}" x="{x}" y="{y - 11}" height="13" rx="2" '
                    f'width="{max(length, 1.5):.1f}"/>'
                )
                unit = "" if panel == 0 else " µs"
                out.append(
                    f'  <text class="{kind}" x="{x + length + 6:.1f}" y="{y}">'
                    f"{number(values[program])}{unit}</text>"
                )
            y += LINE
    title = "Small requests, one process: requests a second, and CPU time of each"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" class="overview" role="img" '
            f'viewBox="0 0 {width} {y}" width="{width}" height="{y}" '
            f'aria-labelledby="{name}-title">',
            f'  <title id="{name}-title">{title}</title>',
            "  <style>",
            f"    .overview text {{ fill: {muted}; "
            "font: 13px var(--font-stack, system-ui, sans-serif) }",
            f"    .overview .head {{ fill: {text}; font-weight: 600 }}",
            f"    .overview rect.others {{ fill: {others} }}",
            f"    .overview rect.ours {{ fill: {ours} }}",
            f"    .overview text.ours {{ fill: {text}; font-weight: 600 }}",
            "  </style>",
            f'  <text x="{NAME}" y="14">Requests a second</text>',
            f'  <text x="{NAME + PANEL}" y="14">CPU for a request</text>',
            *out,
            "</svg>",
            "",
        ]
    )


# ---- The page ----


def number(value: float) -> str:
    """A number with three digits, and no more than it is worth."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def ratio(ours: float, theirs: float, better: str) -> str:
    """How many times as good as theirs ours is."""
    times = theirs / ours if better == "less" else ours / theirs
    return (
        f"{times:.0f}x"
        if times >= 20
        else f"{times:.1f}x"
        if times >= 2
        else (f"{times:.2f}x")
    )


def rst_table(table: dict[str, Any]) -> list[str]:
    """The numbers, each with how many times as good ours is."""
    rows: figures.Rows = table["rows"]
    programs = list(dict.fromkeys(p for row in rows.values() for p in row))
    out = [".. list-table::", "   :header-rows: 1", "   :class: figures", ""]
    out += [f"   * - {table['unit']}", *(f"     - {p}" for p in programs)]
    for name, row in rows.items():
        out.append(f"   * - {name}")
        ours = next(iter(row.values()))
        for place, program in enumerate(programs):
            if program not in row:
                cell = ""
            else:
                cell = number(row[program])
                if place and row[program] != ours:
                    cell += f" ({ratio(ours, row[program], table['better'])})"
            out.append(f"     - {cell}".rstrip())
    return out


def page(data: dict[str, Any]) -> str:
    """What docs/performance.rst includes."""
    out = [".. Made by benchmarks/charts.py from figures.json.", ""]
    for commit, where in data["runs"].items():
        packages = ", ".join(f"{n} {v}" for n, v in where["packages"].items())
        days = sorted(
            {
                table["measured"][:10]
                for table in data["tables"].values()
                if table["commit"] == commit
            }
        )
        out += [
            f"* Commit ``{commit}``, measured on {' and '.join(days)}: "
            f"{where['cpu']}, {where['cores']} cores, {where['memory']}, "
            f"{where['system']}; Python {where['python']}, nghttp2 "
            f"{where['nghttp2']}; {packages}.",
        ]
    out.append("")
    for name, table in data["tables"].items():
        out += [table["title"], "-" * len(table["title"]), ""]
        command = f"``python benchmarks/{TABLES[name]}.py``"
        out += [f"{command} at commit ``{table['commit']}``", ""]
        if any(len(row) > 1 for row in table["rows"].values()):
            out += [".. container:: drawing", "", "   .. raw:: html"]
            out += [f"      :file: {name}.svg", ""]
        out += [*rst_table(table), ""]
        if table["goal"]:
            out += [f"The aim: {table['goal']}.", ""]
    return "\n".join(out)


def write(data: dict[str, Any], directory: Path) -> None:
    """Write all files but figures.json."""
    for name, table in data["tables"].items():
        if any(len(row) > 1 for row in table["rows"].values()):
            (directory / f"{name}.svg").write_text(chart(name, table))
    for name in THEMES:
        (directory / f"{name}.svg").write_text(overview(name, data["tables"]))
    (directory / "figures.rst").write_text(page(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--again", action="store_true", help="from the figures.json that is there"
    )
    options = parser.parse_args()
    PAGE.mkdir(exist_ok=True)
    if options.again:
        data = json.loads((PAGE / "figures.json").read_text())
    else:
        data = collect()
        (PAGE / "figures.json").write_text(json.dumps(data, indent=1) + "\n")
    write(data, PAGE)


if __name__ == "__main__":
    main()
