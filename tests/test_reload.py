"""The files that a server reloads for."""

import asyncio
import itertools
import os
import sys

import pytest
from loops import in_loop

from nghttp2py.errors import ConfigurationError
from nghttp2py.workers.reload import Files, Reloader
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.supervisor import Program


@pytest.fixture
def tree(tmp_path):
    for path in (
        "main.py",
        "page.html",
        "package/inner.py",
        "package/site.css",
        "package/.hidden.py",
        "package/main.pyc",
        "package/~main.py",
        ".git/hook.py",
        "venv/pyvenv.cfg",
        "venv/lib.py",
        "generated/made.py",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    return tmp_path


def watched(tree, *arguments):
    found = Files([str(tree)], *arguments).look()
    return sorted(os.path.relpath(path, tree) for path in found)


def test_sources_are_watched_and_what_is_hidden_or_made_is_not(tree):
    assert watched(tree) == ["generated/made.py", "main.py", "package/inner.py"]


@pytest.mark.parametrize(
    ("includes", "excludes", "wanted"),
    [
        (["*.html"], ["generated"], ["main.py", "package/inner.py", "page.html"]),
        (["package/*"], ["*.py"], ["package/site.css"]),
        ([], ["package/inner.py", "gen*"], ["main.py"]),
    ],
)
def test_patterns_are_for_names_and_with_a_slash_for_paths(
    tree, includes, excludes, wanted
):
    assert watched(tree, includes, excludes) == wanted


def test_a_virtual_environment_is_not_watched_unless_it_is_given(tree):
    library = str(tree / "venv" / "lib.py")
    assert not Files([str(tree)]).is_watched(library)
    assert Files([str(tree / "venv")]).is_watched(library)
    assert Files([str(tree)]).is_watched(str(tree / "main.py"))


@in_loop
async def test_it_is_logged_that_files_cannot_be_watched(tree, monkeypatch, caplog):
    async def fail(self):
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr(Files, "changes", fail)
    reloader = Reloader(Program("programs:sound"), Sockets(), Files([str(tree)]))
    await reloader._follow()
    assert "files are watched no more: OS file watch limit reached" in caplog.text


def test_a_file_elsewhere_is_not_watched(tree):
    files = Files([str(tree / "package")])
    assert files.matches(str(tree / "package" / "inner.py"))
    assert not files.matches(str(tree / "main.py"))


def test_a_directory_that_is_not_there_is_refused(tree):
    with pytest.raises(ConfigurationError, match="there is no directory"):
        Files([str(tree / "nowhere")])
    with pytest.raises(ValueError, match="delay"):
        Files([str(tree)], delay=-1)


@pytest.mark.parametrize("by", ["watchfiles", "times"])
@in_loop
async def test_a_file_that_is_written_made_or_removed_is_a_change(
    tree, by, monkeypatch
):
    if by == "times":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    changes = Files([str(tree)], delay=0.01).changes()
    numbers = itertools.count()
    steps = (
        lambda: (tree / "main.py").write_text(f"a = {next(numbers)}"),
        lambda: (tree / "package" / f"new{next(numbers)}.py").write_text(""),
        lambda: (tree / "package" / "inner.py").unlink(missing_ok=True),
    )
    for step in steps:
        pending = asyncio.ensure_future(anext(changes))
        while not pending.done():
            # Again, because a change before the first look is none.
            step()
            await asyncio.wait([pending], timeout=0.1)
        assert pending.result().startswith(str(tree))
    await changes.aclose()
