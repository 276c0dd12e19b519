from nghttp2py cimport cngp_quic as lib


cdef class ConnectionIds:
    cdef lib.ngp_cid_layout _layout
