#!/usr/bin/env python3
"""Put the C libraries that a wheel needs into it, and their licences with them.

    python vendor/bundle_libraries.py WHEEL DIRECTORY

auditwheel (on macOS delocate) copies the shared libraries in and says on which
systems the wheel runs.  The licences are those of the very libraries: of the source
trees unpacked in vendor/, else of the Debian packages that the libraries come from.
A library whose licence versions.toml does not name, or whose text is not found, is
an error: what cannot be passed on lawfully is not bundled.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VENDOR = Path(__file__).parent.resolve()
DOCUMENTS = Path("/usr/share/doc")
COMMON = Path("/usr/share/common-licenses")
# What upstream calls the file with its licence.
LICENCE_FILES = ("COPYING*", "LICENSE*", "LICENCE*")


def run(*command: str | Path) -> str:
    """Run a tool; give what it says, which is shown only if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def module(name: str) -> list[str]:
    """A tool of this environment, to be run with arguments."""
    return [sys.executable, "-m", name]


def repair(wheel: Path, directory: Path) -> Path:
    """Copy in the libraries; give the new wheel."""
    if sys.platform == "darwin":
        run("delocate-wheel", "--wheel-dir", directory, wheel)
    else:
        run(*module("auditwheel"), "repair", "--strip", "-w", directory, wheel)
    (repaired,) = directory.glob("*.whl")
    return repaired


def bundled(tree: Path) -> Iterator[str]:
    """The file names of the libraries copied in, without what the tool put between."""
    for path in [*tree.glob("*.libs/*"), *tree.glob("*/.dylibs/*")]:
        yield re.sub(r"-[0-9a-f]{8}(?=\.so\b)", "", path.name)


def stem(library: str) -> str:
    """The name of a library without versions: ``libgnutls``."""
    return re.split(r"\.(?:so\b|\d|dylib$)", library)[0]


def debian_package(library: str) -> str | None:
    """The package that installed a library here, if one did."""
    if shutil.which("dpkg-query") is None:
        return None
    search = ["dpkg-query", "--search", f"*/{library}"]
    found = subprocess.run(search, capture_output=True, text=True).stdout
    return re.split("[:,]", found, maxsplit=1)[0] or None


def texts(library: str, source: str) -> Iterator[tuple[str, Path]]:
    """Each licence text of a library: its place below licenses/, and where it is."""
    tree = VENDOR / source
    if tree.is_dir():
        yield from tree_texts(source)
        return
    package = debian_package(library)
    copyright = DOCUMENTS / (package or "") / "copyright"
    if package is None or not copyright.is_file():
        raise SystemExit(
            f"nghttp2py: {library} would be bundled without its licence, which is "
            f"neither in vendor/{source} nor in a Debian package."
        )
    yield f"{package}/copyright", copyright
    # Debian's file names these and does not repeat them.
    named = re.findall(rf"{COMMON}/([\w.+-]*\w)", copyright.read_text("utf-8"))
    for name in sorted(set(named)):
        if (COMMON / name).is_file():
            yield f"common-licenses/{name}", COMMON / name


def tree_texts(source: str) -> Iterator[tuple[str, Path]]:
    """The licence texts of a source tree unpacked in vendor/."""
    tree = VENDOR / source
    found = [path for pattern in LICENCE_FILES for path in tree.glob(pattern)]
    # GnuTLS keeps them in a directory.
    found += tree.glob("doc/COPYING*")
    if not found:
        raise SystemExit(f"nghttp2py: vendor/{source} has no licence text.")
    for path in sorted(found):
        if path.is_file():
            yield f"{source}/{path.relative_to(tree).as_posix()}", path


def add_licences(tree: Path, versions: dict[str, Any]) -> None:
    """Put the licences into an unpacked wheel, and name them in its metadata."""
    (information,) = tree.glob("*.dist-info")
    found: dict[str, Path] = {}
    expressions = []
    for name in versions:
        # Of these, what is unpacked here is linked statically.
        if "vendored" in versions[name] and (VENDOR / name).is_dir():
            found.update(tree_texts(name))
    for library in sorted(bundled(tree)):
        known = versions["bundled"].get(stem(library))
        if known is None:
            raise SystemExit(
                f"nghttp2py: the licence of {library} is not in vendor/versions.toml."
            )
        found.update(texts(library, known["source"]))
        expressions.append(known["licence"])
    for place, path in found.items():
        target = information / "licenses" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())

    metadata = information / "METADATA"
    text = metadata.read_text("utf-8")
    own = re.search("^License-Expression: (.*)$", text, re.M)
    assert own is not None
    terms = dict.fromkeys([own[1], *expressions])
    joined = " AND ".join(f"({term})" if " OR " in term else term for term in terms)
    text = text.replace(own[0], f"License-Expression: {joined}", 1)
    lines = "".join(f"License-File: {place}\n" for place in sorted(found))
    text = text.replace("License-File: LICENSE\n", f"License-File: LICENSE\n{lines}", 1)
    metadata.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    versions = tomllib.loads((VENDOR / "versions.toml").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "repaired").mkdir()
        wheel = repair(arguments.wheel, place / "repaired")
        run(*module("wheel"), "unpack", "--dest", place / "tree", wheel)
        (tree,) = (place / "tree").iterdir()
        add_licences(tree, versions)
        arguments.directory.mkdir(parents=True, exist_ok=True)
        run(*module("wheel"), "pack", "--dest-dir", arguments.directory, tree)
    print(arguments.directory / wheel.name)


if __name__ == "__main__":
    main()
