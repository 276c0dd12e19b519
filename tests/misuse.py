"""Values that no caller should give, and processes in which they are given."""

import contextlib
import os
import subprocess
import sys

# What a caller's mistake may raise: Python's own, nothing else.
ALLOWED = (ValueError, TypeError, RuntimeError, OverflowError, BufferError)

NUMBERS = [
    0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 16384, 1 << 30, (1 << 62) - 4, (1 << 62) - 1,
    1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 200, -1, -(1 << 64),
]  # fmt: skip
BYTES = [
    b"", b"x", bytes(100), bytes(1200), bytes(5000), bytes(300_000), bytearray(10),
    memoryview(bytes(2000)), memoryview(bytes(100))[::2], memoryview(b""),
    bytes(65_536), memoryview(bytes(64)).cast("Q"),
]  # fmt: skip
ODD = [None, "", "text", 1.5, float("nan"), float("inf"), [], {}, object(), True]
TIMES = [0.0, 1.0, 1000.0, 1e9, 9.1e9, 9.3e9, -1.0, float("nan"), float("inf"), 1e300]
ADDRESSES = [
    ("192.0.2.1", 1), ("::1", 2, 0, 0), ("fe80::1%eth0", 3, 0, 2), ("nowhere", 4),
    ("192.0.2.1", 1 << 16), ("192.0.2.1", -1), "text", None, (), 7, object(),
]  # fmt: skip


class Refusing:
    """An object that will not be what it is asked to be."""

    def _refuse(self):
        raise ValueError("no")

    __bool__ = __bytes__ = __float__ = __hash__ = __index__ = __int__ = __iter__ = (
        __len__
    ) = __str__ = lambda self: self._refuse()


def use(configuration):
    """Begin a connection with a configuration that may make no sense."""
    from nghttp2py.quic.connection import QuicConnection

    # A file may not exist; what is no logger has not its methods.
    with contextlib.suppress(*ALLOWED, OSError, AttributeError):
        quic = QuicConnection(configuration=configuration)
        quic.connect(("192.0.2.1", 1), 0.0)
        quic.datagrams_to_send(0.0)


def run_in_a_process(module, call):
    """Run ``call`` of a test module where an abort is a failure of one test."""
    environment = {
        **os.environ,
        "PYTHONMALLOC": "debug",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", f"import {module} as m\n{call}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
