#!/usr/bin/env python3
"""Unpack the pinned sources of the C libraries into vendor/.

    python3 vendor/unpack_sources.py DIRECTORY

DIRECTORY has the archives that versions.toml pins; under which names does not matter,
for they are known by their checksums.  A tree that is there already stays.  What is
missing is named.
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
    with tempfile.TemporaryDirectory(dir=VENDOR) as scratch:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        (top,) = Path(scratch).iterdir()
        top.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    archives = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for path in directory.iterdir()
        if ".tar." in path.name
    }
    missing = []
    for name, pin in pins().items():
        tree = VENDOR / name
        if tree.is_dir():
            print(f"vendor/{name} is there already")
        elif pin["sha256"] in archives:
            unpack(archives[pin["sha256"]], tree)
            print(f"vendor/{name} is {name} {pin['release']}")
        else:
            missing.append(f"{name} {pin['release']}, SHA-256 {pin['sha256']}")
    if missing:
        raise SystemExit("\n".join([f"{directory} has no archive of", *missing]))


if __name__ == "__main__":
    main()
