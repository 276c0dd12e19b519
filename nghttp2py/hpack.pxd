cdef tuple to_field(item)
cdef bint is_never_indexed(item, tuple given) except -1
