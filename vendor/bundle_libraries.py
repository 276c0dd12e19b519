#!/usr/bin/env python3
"""Put the C libraries that a wheel needs into it, and their licences with them.

    python vendor/bundle_libraries.py WHEEL DIRECTORY

auditwheel (on macOS delocate) copies the shared libraries in and says on which
systems the wheel runs.  The licences are those of the very libraries: of the source
trees in vendor/ or NGHTTP2PY_TREES, else of Debian's packages that they come from.
A library whose licence versions.toml does not name, or whose text is not found, is
an error: what cannot be passed on lawfully is not bundled.

The wheel's sboms/nghttp2py.cdx.json names each library, its version and its licence
(PEP 770, CycloneDX 1.6).  It takes the place of the one that auditwheel writes, which
has no licences and not what is linked statically.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VENDOR = Path(__file__).parent.resolve()
TREES = Path(os.environ.get("NGHTTP2PY_TREES") or VENDOR)
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


def bundled(tree: Path) -> dict[str, Path]:
    """The libraries copied in, by file names without what the tool put between."""
    found = sorted([*tree.glob("*.libs/*"), *tree.glob("*/.dylibs/*")])
    return {re.sub(r"-[0-9a-f]{8}(?=\.so\b)", "", path.name): path for path in found}


def linked(versions: dict[str, Any]) -> list[str]:
    """The source trees unpacked here: of these the build links all but GnuTLS and what
    it needs statically."""
    names = [name for name in versions if "vendored" in versions[name]]
    return [name for name in names if (TREES / name).is_dir()]


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
    tree = TREES / source
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
    tree = TREES / source
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
    for name in linked(versions):
        found.update(tree_texts(name))
    for library in bundled(tree):
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


def from_tree(name: str, versions: dict[str, Any]) -> dict[str, Any]:
    """The component of a source tree unpacked in vendor/."""
    known = versions.get(name, {}).get("vendored", {})
    if "release" not in known:
        raise SystemExit(f"nghttp2py: versions.toml has no release of vendor/{name}.")
    release, archive = known["release"], f"checksum=sha256:{known['sha256']}"
    return {
        "version": release,
        "purl": f"pkg:generic/{name}@{release}?{archive}",
    }


def from_debian(library: str) -> dict[str, Any]:
    """The component of a library of a Debian package, and of the source package."""
    package = debian_package(library)
    assert package is not None  # texts() would have raised
    form = "${Version} ${Architecture} ${source:Package} ${source:Version}\n"
    shown = run("dpkg-query", "--show", "--showformat", form, package).splitlines()[0]
    version, architecture, source, source_version = shown.split(" ")
    return {
        "version": version,
        "purl": f"pkg:deb/debian/{package}@{quote(version)}?arch={architecture}",
        "pedigree": {
            "ancestors": [
                {
                    "type": "library",
                    "name": source,
                    "version": source_version,
                    "purl": f"pkg:deb/debian/{source}@{quote(source_version)}"
                    "?arch=source",
                }
            ]
        },
    }


def component(
    name: str, origin: dict[str, Any], licence: str, **more: Any
) -> dict[str, Any]:
    """A library of the bill of materials."""
    return {
        "type": "library",
        "bom-ref": f"{name}@{origin['version']}",
        "name": name,
        **origin,
        "licenses": [{"expression": licence}],
        **more,
    }


def bill_of_materials(tree: Path, versions: dict[str, Any]) -> dict[str, Any]:
    """What an unpacked wheel consists of, in CycloneDX's form."""
    (metadata,) = tree.glob("*.dist-info/METADATA")
    about = HeaderParser().parsestr(metadata.read_text("utf-8"))
    own = component(
        about["Name"],
        {
            "version": about["Version"],
            "purl": f"pkg:pypi/{about['Name']}@{about['Version']}",
        },
        # The line that add_licences() writes has those of the libraries, too.
        about["License-Expression"].split(" AND ")[0],
    )
    libraries = bundled(tree)
    shared = {versions["bundled"][stem(name)]["source"] for name in libraries}
    components = []
    for name in linked(versions):
        if name not in shared:
            licence = versions["bundled"][f"lib{name}"]["licence"]
            origin = from_tree(name, versions)
            components.append(component(f"lib{name}", origin, licence))
    for library, path in libraries.items():
        known = versions["bundled"][stem(library)]
        unpacked = (TREES / known["source"]).is_dir()
        components.append(
            component(
                stem(library),
                from_tree(known["source"], versions)
                if unpacked
                else from_debian(library),
                known["licence"],
                hashes=[
                    {
                        "alg": "SHA-256",
                        "content": hashlib.sha256(path.read_bytes()).hexdigest(),
                    }
                ],
                properties=[
                    {
                        "name": "nghttp2py:file",
                        "value": path.relative_to(tree).as_posix(),
                    }
                ],
            )
        )
    references = [entry["bom-ref"] for entry in components]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": [
            {"ref": own["bom-ref"], "dependsOn": references},
            *({"ref": reference} for reference in references),
        ],
    }


def add_bill_of_materials(tree: Path, versions: dict[str, Any]) -> None:
    """Put the bill of materials where PEP 770 says, in place of auditwheel's."""
    (information,) = tree.glob("*.dist-info")
    shutil.rmtree(information / "sboms", ignore_errors=True)
    (information / "sboms").mkdir()
    text = json.dumps(bill_of_materials(tree, versions), indent=2)
    (information / "sboms" / "nghttp2py.cdx.json").write_text(f"{text}\n", "utf-8")


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
        add_bill_of_materials(tree, versions)
        arguments.directory.mkdir(parents=True, exist_ok=True)
        run(*module("wheel"), "pack", "--dest-dir", arguments.directory, tree)
    print(arguments.directory / wheel.name)


if __name__ == "__main__":
    main()
