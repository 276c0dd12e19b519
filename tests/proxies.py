"""HAProxy of Debian before our servers."""

from __future__ import annotations

import contextlib
import os
import shutil

from peers import PEERS, listening

HAPROXY = shutil.which("haproxy") or PEERS / "usr" / "sbin" / "haproxy"


@contextlib.contextmanager
def haproxy(directory, configuration, port):
    """Run HAProxy, which listens on ``port``, with the text of a configuration."""
    path = directory / "haproxy.cfg"
    path.write_text(configuration)
    libraries = [str(each) for each in (PEERS / "usr" / "lib").glob("*-linux-gnu")]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)}
    with listening([HAPROXY, "-db", "-f", path], port, env=environment):
        yield
