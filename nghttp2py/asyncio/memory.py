"""A look at the memory that is left, before a connection takes its share."""

from __future__ import annotations

import mmap
import sysconfig

__all__ = ["RESERVE", "check_memory", "count_bytes"]

#: Bytes that must be free for a new connection.  An idle one takes a fortieth
#: of it.  The rest is for the event loop, which ends the program if it finds none, and
#: for CPython's ssl: 3.11 reads freed memory if OpenSSL cannot allocate an SSL object.
RESERVE = 1 << 21

# Bytes between two looks, and what a read or write counts at least: what becomes of a
# small request is larger than the request is.
_INTERVAL, _LEAST = 1 << 18, 1 << 11

# What the heap takes of the system at once: without the GIL it is mimalloc's, which
# takes segments of 32 MiB, and twice that for one that is aligned.
_SEGMENT = 1 << 26 if sysconfig.get_config_var("Py_GIL_DISABLED") else 0

# Pieces of a heap that has no RESERVE in one piece, and takes no more of the system.
_PIECE, _PIECES = 1 << 15, 48


def check_memory() -> None:
    """Raise ``MemoryError`` if about ``RESERVE`` bytes cannot be allocated."""
    try:
        # Untouched, and not of malloc's heap: it takes two system calls and no memory.
        mmap.mmap(-1, RESERVE + _SEGMENT).close()
    except OSError:
        # What was freed may have stayed in the heap.
        [bytes(_PIECE) for _ in range(_PIECES)]


def count_bytes(size: int) -> None:
    """Look for the reserve once in so many bytes that connections read and write.

    Raises ``MemoryError`` if it is not there: the connection at hand is to be given up,
    so that the last bytes are left to the event loop.
    """
    global _left
    _left -= max(size, _LEAST)
    if _left < 0:
        check_memory()
        _left = _INTERVAL


_left = _INTERVAL
