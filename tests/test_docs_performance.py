"""The page of performance is made of its figures, by the benchmarks' own code."""

import importlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance"


@pytest.fixture
def charts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("charts")


def test_tables_and_charts_are_those_of_the_figures(charts, tmp_path):
    charts.write(json.loads((PAGE / "figures.json").read_text()), tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in PAGE.iterdir()}
    del there["figures.json"]
    assert made == there


def test_every_benchmark_keeps_what_the_page_shows(charts):
    makefile = (ROOT / "Makefile").read_text()
    scripts = re.search(r"^BENCHMARKS = (.*)$", makefile, re.M)[1]
    kept = {}
    for script in scripts.split():
        text = (ROOT / "benchmarks" / f"{script}.py").read_text()
        for name in re.findall(r'figures\.keep\(\s*"(\w+)"', text):
            kept[name] = script
    assert kept == charts.TABLES
    # It asks whether all is well, and measures nothing beside others.
    assert set(scripts.split()) - set(kept.values()) == {"soak"}


@pytest.mark.parametrize("high", [1.5, 34.8, 500, 121_000])
@pytest.mark.parametrize("factor", [1, 3, 80, 10_000])
def test_an_axis_holds_its_values(charts, high, factor):
    marks, powers = charts.ticks(high / factor, high)
    assert marks[-1] >= high and (not powers or marks[0] <= high / factor)
    assert marks == sorted(marks) and 2 <= len(marks) <= 11


def test_a_chart_shows_every_number_and_says_what_it_is(charts):
    table = {
        "title": "Ours & theirs",
        "unit": "µs",
        "better": "less",
        "goal": "",
        "measured": "2026-11-21 10:00",
        "rows": {"a": {"ours": 1.0, "C": 0.9}, "b": {"ours": 2.0, "h2": 300.0}},
    }
    drawing = ElementTree.fromstring(charts.chart("t", table))
    names = "{http://www.w3.org/2000/svg}"
    assert drawing.find(f"{names}title").text == "Ours & theirs: µs, less is better"
    marks = [e for e in drawing.iter() if "mark" in e.get("class", "").split()]
    assert len(marks) == 3 + 4  # the legend, and the numbers
    texts = [e.text for e in drawing.iter(f"{names}text")]
    assert {"a", "b", "ours", "C", "h2"} <= set(texts)


def measured(*programs):
    return {"rows": {"hello, HTTP/3": {p: 10.0**i for i, p in enumerate(programs)}}}


@pytest.mark.parametrize("theme", ["overview", "overview-light", "overview-dark"])
def test_the_first_picture_has_what_was_measured_and_nothing_else(charts, theme):
    tables = json.loads((PAGE / "figures.json").read_text())["tables"]
    servers = "nghttp2py", "hypercorn", "a <b>"
    tables |= {"asgi_rate": measured(*servers), "asgi_cpu": measured(*servers)}
    drawing = ElementTree.fromstring(charts.overview(theme, tables))
    names = "{http://www.w3.org/2000/svg}"
    texts = [e.text for e in drawing.iter(f"{names}text")]
    assert {"Requests a second", "CPU for a request", "ASGI, HTTP/3"} <= set(texts)
    assert {"HTTP2Server, HTTP/2", "nghttpd", "a <b>", "10 µs", "100"} <= set(texts)
    assert "ASGI, HTTP/2" not in texts
    bars = [
        (float(e.get("x")), float(e.get("width"))) for e in drawing.iter(f"{names}rect")
    ]
    assert len(bars) == 2 * (3 + 2)
    width = float(drawing.get("width"))
    assert all(x + w < width - 60 for x, w in bars)  # room for the number
    assert ("var(--color" in charts.overview(theme, tables)) == (theme == "overview")


@pytest.mark.parametrize(
    ("ours", "theirs", "better", "said"),
    [
        (10, 660, "less", "66x"),
        (10, 45, "less", "4.5x"),
        (10, 9, "less", "0.90x"),
        (300, 100, "more", "3.0x"),
        (80, 100, "more", "0.80x"),
    ],
)
def test_a_ratio_says_how_many_times_as_good_ours_is(
    charts, ours, theirs, better, said
):
    assert charts.ratio(ours, theirs, better) == said
