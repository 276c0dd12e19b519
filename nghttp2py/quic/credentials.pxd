from nghttp2py cimport cngp_quic as lib


cdef class Credentials:
    cdef lib.ngp_tls_config *config  # owned
    cdef tuple made_of


cdef Credentials get_credentials(configuration)
cdef list peer_chain(lib.ngp_tls *tls)
cdef str asked_name(lib.ngp_tls *tls)
cdef object describe_tls(lib.ngp_tls *tls, alpn, bint done)
