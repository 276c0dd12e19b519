#!/usr/bin/env python3
"""Do what the benchmarks do, so that the compiler learns what is done often.

    python vendor/train.py

setup.py runs it with libraries that write a profile (NGHTTP2PY_PGO=1).  QUIC needs a
certificate, which openssl makes; without that program its functions are optimised as
without a profile.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import quic
import small

#: Seconds of CPU for each kind of work.
SECONDS = 0.8
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


def repeat(work: small.Work) -> None:
    """Do it again and again."""
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        work()


def main() -> None:
    for row in small.ROWS.values():
        repeat(row.make(row.count))
    for upload in small.reads(False, 20, 1, True), small.reads(False, 4, 1, False):
        repeat(lambda wire=upload: small.serve(wire, bytes(1 << 18)))
    if shutil.which("openssl") is None:
        print("nghttp2py: without openssl there is no training of QUIC")
        return
    with tempfile.TemporaryDirectory() as directory:
        key, chain = f"{directory}/key.pem", f"{directory}/chain.pem"
        subprocess.run(
            [*CERTIFY.split(), "-keyout", key, "-out", chain],
            check=True,
            capture_output=True,
        )
        files = SimpleNamespace(authority=chain, chain=chain, key=key)
        repeat(small.exchange_quic(files, 100))
        pair = quic.Pair("nghttp2py", files)
        repeat(pair.handshake)
        pair.handshake()
        repeat(lambda: pair.bulk(quic.MEGABYTE))
        pair.handshake()
        pair.begin_http()
        repeat(pair.http_exchange)


if __name__ == "__main__":
    main()
