"""HAProxy of Debian before our servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from peers import PEERS, wait_for_port

HAPROXY = shutil.which("haproxy") or PEERS / "usr" / "sbin" / "haproxy"


@contextlib.contextmanager
def haproxy(directory, configuration, port):
    """Run HAProxy, which listens on ``port``, with the text of a configuration."""
    path = directory / "haproxy.cfg"
    path.write_text(configuration)
    libraries = [str(each) for each in (PEERS / "usr" / "lib").glob("*-linux-gnu")]
    with subprocess.Popen(
        [HAPROXY, "-db", "-f", path],
        env=os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()
