"""Programs of other projects with their imports changed, as users would do it.

They come from the package registry when the tests run, and no line of them is in
this repository.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from loops import DEADLINE, TEST_DEADLINE

ROOT = Path(__file__).parent.parent
#: Where sources are kept between runs.
KEPT = ROOT / "build" / "programs"

UDP_TABLES = Path("/proc/net/udp"), Path("/proc/net/udp6")


@functools.cache
def source(name):
    """The directory of a package's source distribution, of the release installed."""
    version = importlib.metadata.version(name)
    directory = KEPT / f"{name}-{version}"
    if not directory.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        # Other workers may do the same: each in a directory of its own.
        with tempfile.TemporaryDirectory(dir=KEPT) as own:
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "--quiet", "download", "--no-deps"),
                    *(f"--no-binary={name}", f"--dest={own}", f"{name}=={version}"),
                ],
                check=True,
                timeout=100,
            )
            with tarfile.open(Path(own) / f"{name}-{version}.tar.gz") as archive:
                archive.extractall(own)
            with contextlib.suppress(OSError):  # another was first
                (Path(own) / directory.name).rename(directory)
    assert directory.exists()
    return directory


@functools.cache
def node_module(name, version):
    """The directory of a package of npm, at ``name`` below that of its release."""
    directory = KEPT / f"node-{name}-{version}"
    if not directory.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as own:
            subprocess.run(
                ["npm", "pack", "--silent", f"{name}@{version}"],
                check=True,
                cwd=own,
                stdout=subprocess.DEVNULL,
                timeout=100,
            )
            with tarfile.open(Path(own) / f"{name}-{version}.tgz") as archive:
                archive.extractall(Path(own) / "all")
            # The archive's own directory is called "package".
            (Path(own) / "all" / "package").rename(Path(own) / "all" / name)
            with contextlib.suppress(OSError):  # another was first
                (Path(own) / "all").rename(directory)
    assert directory.exists()
    return directory


def change_imports(directory, pattern, replacement):
    """Replace in every Python file below ``directory``; return how often."""
    count = 0
    for path in directory.rglob("*.py"):
        text, n = re.subn(pattern, replacement, path.read_text())
        count += n
        path.write_text(text)
    assert count, f"{pattern} is not in {directory}"
    return count


def installed_copy(name, directory, pattern, replacement):
    """Copy an installed package into ``directory`` and change its imports there."""
    found = Path(importlib.import_module(name).__file__).parent
    shutil.copytree(found, directory / name)
    change_imports(directory / name, pattern, replacement)
    return directory


async def wait_for_udp_port(port, process, output):
    """Wait until a program, which prints ``output``, has bound ``port`` for UDP."""
    wanted = re.compile(rf":{port:04X} [0-9A-F]+:0000 ")

    async def bound():
        while not any(wanted.search(table.read_text()) for table in UDP_TABLES):
            assert process.returncode is None, b"".join(output).decode()
            await asyncio.sleep(0.02)

    await asyncio.wait_for(bound(), DEADLINE)


@contextlib.asynccontextmanager
async def running_server(port, *command, cwd, path=None):
    """Run a Python program until the end of the block; its port is UDP's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, command),
        cwd=cwd,
        env=environment(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = []

    async def read():
        # The pipe must not fill up.
        while data := await process.stdout.read(65536):
            output.append(data)

    reading = asyncio.create_task(read())
    try:
        await wait_for_udp_port(port, process, output)
        yield output
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await reading


async def run(*command, cwd, path=None):
    """Run a Python program to its end; return all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, command),
        cwd=cwd,
        env=environment(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        # Some run the tests of a whole package.
        output, _ = await asyncio.wait_for(process.communicate(), TEST_DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    return text


def environment(path=None):
    """The environment, with ``path`` before the installed packages."""
    paths = [str(ROOT)] if path is None else [str(path), str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
