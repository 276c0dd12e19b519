"""The clients among the examples do what they say."""

import subprocess
import sys
from pathlib import Path

from loops import DEADLINE
from peers import nghttpd

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name, *arguments):
    """Run an example to its end; return what it prints."""
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        check=True,
        text=True,
        timeout=DEADLINE,
    ).stdout


def test_fetch_gets_several_paths_at_once(tmp_path):
    (tmp_path / "one.txt").write_bytes(b"1")
    (tmp_path / "two.html").write_bytes(b"22")
    with nghttpd(tmp_path) as port:
        origin = f"http://127.0.0.1:{port}"
        done = example("fetch.py", origin, "/one.txt", "/two.html", "/missing")
    first, second, third = done.splitlines()
    assert first.startswith("200 /one.txt: 1 bytes")
    assert second.startswith("200 /two.html: 2 bytes")
    assert third.startswith("404 /missing")


def test_mirror_takes_what_is_pushed(tmp_path):
    (tmp_path / "page").write_bytes(b"page")
    (tmp_path / "style").write_bytes(b"style!")
    with nghttpd(tmp_path, "--push=/page=/style") as port:
        done = example("mirror.py", "127.0.0.1", port, "/page")
    assert sorted(done.splitlines()) == [
        "got /page 200 4 bytes",
        "pushed /style 200 6 bytes",
    ]
