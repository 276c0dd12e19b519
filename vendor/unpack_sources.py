#!/usr/bin/env python3
"""Unpack the pinned sources of the C libraries into vendor/.

    python3 vendor/unpack_sources.py DIRECTORY [NAME...]

DIRECTORY has the archives that versions.toml pins; under which names does not matter,
for they are known by their checksums.  NAMEs are those of the wanted libraries, by
default all.  A tree that is there already stays.  What is missing is named.
"""

import argparse
import hashlib
import re
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parent.resolve()


def pins() -> dict[str, dict[str, str]]:
    """The tables [<name>.vendored]: the one part of TOML that Python 3.10 needs."""
    text = (VENDOR / "versions.toml").read_text("utf-8")
    tables = re.findall(r"^\[(\w+)\.vendored\](.*?)(?=^\[|\Z)", text, re.M | re.S)
    return {name: dict(re.findall(r'^(\w+) = "(.*)"', t, re.M)) for name, t in tables}


def unpack(archive: Path, target: Path) -> None:
    """Put the one directory of an archive where it belongs, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        (top,) = Path(scratch).iterdir()
        top.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--into", type=Path, default=VENDOR, help="instead of vendor/")
    options = parser.parse_args()
    directory = options.directory
    known = pins()
    if unknown := set(options.names) - set(known):
        parser.error(f"versions.toml pins no {', '.join(sorted(unknown))}")
    archives = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for path in directory.iterdir()
        if ".tar." in path.name
    }
    missing = []
    for name in options.names or known:
        pin = known[name]
        tree = options.into / name
        if tree.is_dir():
            print(f"{tree} is there already")
        elif pin["sha256"] in archives:
            unpack(archives[pin["sha256"]], tree)
            print(f"{tree} is {name} {pin['release']}")
        else:
            missing.append(f"{name} {pin['release']}, SHA-256 {pin['sha256']}")
    if missing:
        raise SystemExit("\n".join([f"{directory} has no archive of", *missing]))


if __name__ == "__main__":
    main()
