# What we use of src_c/ngp_pool.h.
cdef extern from "ngp_pool.h" nogil:
    ctypedef struct nghttp2_mem:
        pass

    nghttp2_mem *ngp_mem_default()
