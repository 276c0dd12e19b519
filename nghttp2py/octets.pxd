# Bytes between C and Python.

from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #  define NGP_FREE_THREADED 1
    #else
    #  define NGP_FREE_THREADED 0
    #endif
    """
    bint FREE_THREADED "NGP_FREE_THREADED"


cdef inline bytes copy_bytes(const uint8_t *data, size_t n):
    """Copy ``n`` bytes."""
    return PyBytes_FromStringAndSize(<const char *>data, n)


cdef inline bytes to_bytes(data):
    """Return the bytes of a bytes-like object, without a copy if it is ``bytes``."""
    return data if PyBytes_CheckExact(data) else bytes(memoryview(data))


cdef inline object hold_items(sequence):
    """Return ``sequence``, or, if it is a list that another thread could change, a
    tuple.

    This is for code that borrows the items of a caller's list without a lock: only the
    GIL keeps other threads from changing the list meanwhile.
    """
    return tuple(sequence) if FREE_THREADED and type(sequence) is list else sequence
