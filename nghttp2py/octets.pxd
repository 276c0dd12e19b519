# Bytes of C for Python.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef inline bytes take_bytes(const uint8_t *data, size_t n):
    """Copy ``n`` bytes."""
    return PyBytes_FromStringAndSize(<const char *>data, n)
