from libc.stdint cimport uint64_t

from nghttp2py cimport cngp_quic as lib


cdef uint64_t to_duration(seconds, str name) except? 0
cdef int set_limits(lib.ngp_quic_options *options, configuration) except -1
cdef int set_versions(lib.ngp_quic_options *options, configuration) except -1
# |keep| holds what |options| then point to.
cdef int set_server_name(
    lib.ngp_quic_options *options, configuration, list keep
) except -1
cdef int set_cid(lib.ngtcp2_cid *cid, value, str name) except -1
cdef list known_versions(versions)
cdef bytes encode_alpn(protocols)
cdef dict describe_params(const lib.ngtcp2_transport_params *params)
