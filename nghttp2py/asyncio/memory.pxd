# Of memory.py, for compiled modules: a read and a write count their bytes by it.

cdef Py_ssize_t _left

cpdef count_bytes(Py_ssize_t size)
