from nghttp2py.h3.session cimport H3Session


cdef class H3Connection(H3Session):
    pass
