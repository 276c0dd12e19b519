from nghttp2py cimport cngp_quic as lib


cdef class Credentials:
    cdef lib.ngp_tls_config *config  # owned
    cdef tuple made_of


cdef Credentials get_credentials(configuration)
