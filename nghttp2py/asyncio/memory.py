"""Checks that enough memory is free before a connection uses more."""

from __future__ import annotations

import mmap
import sysconfig

import cython

__all__ = ["RESERVE", "check_memory", "count_bytes"]

#: Bytes that must be free for a new connection.  An idle one uses a fortieth of them.
#: The rest is for the event loop, which ends the program if an allocation fails, and
#: for CPython's ssl: 3.11 reads freed memory if OpenSSL cannot allocate an SSL object.
RESERVE = 1 << 21

# Bytes between two checks, and the least that a read or write counts: the objects made
# of a small request are larger than the request.
_INTERVAL, LEAST = 1 << 18, 1 << 11

# What the heap requests from the system at once: without the GIL it is mimalloc, which
# requests segments of 32 MiB, and twice that for an aligned one.
_SEGMENT = 1 << 26 if sysconfig.get_config_var("Py_GIL_DISABLED") else 0

# Size and number of the pieces that are tried if RESERVE is not free in one piece.
_PIECE, _PIECES = 1 << 15, 48


def check_memory() -> None:
    """Raise ``MemoryError`` if about ``RESERVE`` bytes cannot be allocated."""
    try:
        # An anonymous mapping that is not touched costs two system calls and no memory.
        # A shared one would be a file of the system, which takes several times as long.
        mmap.mmap(-1, RESERVE + _SEGMENT, flags=mmap.MAP_PRIVATE).close()
    except OSError:
        # Freed memory may have stayed in the heap.
        [bytes(_PIECE) for _ in range(_PIECES)]


def count_bytes(size: cython.Py_ssize_t) -> None:
    """Check the reserve once in so many bytes that connections handle.

    Raises ``MemoryError`` if it is not free: the caller must abort the connection, so
    that the last bytes are left to the event loop.
    """
    global _left
    _left -= size if size > LEAST else LEAST
    if _left < 0:
        check_memory()
        _left = _INTERVAL


_left = _INTERVAL
