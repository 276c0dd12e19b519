# Bytes between C and Python.

from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef inline bytes copy_bytes(const uint8_t *data, size_t n):
    """Copy ``n`` bytes."""
    return PyBytes_FromStringAndSize(<const char *>data, n)


cdef inline bytes to_bytes(data):
    """Return the bytes of a bytes-like object, without a copy if it is ``bytes``."""
    return data if PyBytes_CheckExact(data) else bytes(memoryview(data))
