cdef tuple to_field(item)
