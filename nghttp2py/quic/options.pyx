"""Conversions from a configuration to C's options, and from C's parameters to qlog."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from nghttp2py cimport cngp_quic as lib
from nghttp2py.octets cimport to_bytes

import ipaddress

cdef dict ALGORITHMS = {
    "reno": lib.NGTCP2_CC_ALGO_RENO,
    "cubic": lib.NGTCP2_CC_ALGO_CUBIC,
    "bbr": lib.NGTCP2_CC_ALGO_BBR,
}


def default_sizes():
    """Return the sizes and counts of ``ngp_quic_options_default``, by their names."""
    cdef lib.ngp_quic_options options

    lib.ngp_quic_options_default(&options)
    return {
        "cid_len": options.cid_len,
        "max_datagram_size": options.max_datagram_size,
        "max_data": options.max_data,
        "max_stream_data": options.max_stream_data,
        "max_streams_bidi": options.max_streams_bidi,
        "max_streams_uni": options.max_streams_uni,
        "max_window": options.max_window,
        "max_stream_window": options.max_stream_window,
        "max_datagram_queue": options.max_datagram_queue,
    }


def default_times():
    """Return the times of ``ngp_quic_options_default``, in seconds."""
    cdef lib.ngp_quic_options options

    lib.ngp_quic_options_default(&options)
    return {
        "idle_timeout": options.idle_timeout / 1e9,
        "initial_rtt": options.initial_rtt / 1e9,
        "max_ack_delay": options.max_ack_delay / 1e9,
    }


cdef uint64_t number(configuration, str name) except? 0:
    value = getattr(configuration, name)
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not 0 <= value < 1 << 62:
        raise ValueError(f"{name} must be 0 to 2^62 - 1, not {value}")
    return value


cdef uint64_t duration(configuration, str name) except? 0:
    """Convert a configured time, in seconds, to nanoseconds."""
    return to_duration(getattr(configuration, name), name)


cdef uint64_t to_duration(seconds, str name) except? 0:
    """Convert seconds to nanoseconds; ``name`` is that of the argument."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
    if not 0.0 <= seconds < 1e9:
        raise ValueError(f"{name} must be zero to 1e9 seconds, not {seconds!r}")
    return <uint64_t>(<double>seconds * 1e9)


cdef int set_cid(lib.ngtcp2_cid *cid, value, str name) except -1:
    cdef bytes data = to_bytes(value)

    if len(data) > sizeof(cid.data):
        raise ValueError(f"{name} has at most 20 bytes")
    cid.datalen = len(data)
    memcpy(cid.data, PyBytes_AS_STRING(data), len(data))
    return 0


cdef bytes encode_alpn(protocols):
    encoded = []
    for protocol in protocols:
        name = protocol.encode() if isinstance(protocol, str) else to_bytes(protocol)
        # Limits of GnuTLS; those of the protocol are wider.
        if not 0 < len(name) <= 32:
            raise ValueError("a protocol's name has 1 to 32 bytes")
        encoded.append(bytes([len(name)]) + name)
    if len(encoded) > 8:
        raise ValueError("there are at most eight alpn_protocols")
    return b"".join(encoded)


cdef int set_limits(lib.ngp_quic_options *options, configuration) except -1:
    algorithm = configuration.congestion_control_algorithm
    if algorithm not in ALGORITHMS:
        raise ValueError(f"there is no congestion control {algorithm!r}")
    options.cc_algo = ALGORITHMS[algorithm]
    options.pmtud = bool(configuration.probe_datagram_size)
    options.cid_len = number(configuration, "connection_id_length")
    options.max_datagram_size = number(configuration, "max_datagram_size")
    options.max_data = number(configuration, "max_data")
    options.max_stream_data = number(configuration, "max_stream_data")
    options.max_streams_bidi = number(configuration, "max_streams_bidi")
    options.max_streams_uni = number(configuration, "max_streams_uni")
    options.max_window = number(configuration, "max_window")
    options.max_stream_window = number(configuration, "max_stream_window")
    options.max_datagram_queue = number(configuration, "max_datagram_queue")
    if configuration.max_datagram_frame_size is not None:
        options.max_datagram_frame_size = number(
            configuration, "max_datagram_frame_size"
        )
    options.idle_timeout = duration(configuration, "idle_timeout")
    options.initial_rtt = duration(configuration, "initial_rtt")
    options.max_ack_delay = duration(configuration, "max_ack_delay")
    return 0


cdef list known_versions(versions):
    """Return the versions of QUIC that we support; others are left out, such as the
    reserved ones that some programs offer for greasing (RFC 9000, 15)."""
    cdef list known = []

    for version in versions:
        if not 0 <= version < 1 << 32:
            raise ValueError("a version has 32 bits")
        if lib.ngtcp2_is_supported_version(version):
            known.append(version)
    return known


cdef int set_versions(lib.ngp_quic_options *options, configuration) except -1:
    versions = known_versions(configuration.supported_versions)
    if not versions or len(versions) > lib.NGP_QUIC_MAX_VERSIONS:
        raise ValueError("supported_versions must have one to eight that are known")
    for i, version in enumerate(versions):
        options.versions[i] = version
    options.nversions = len(versions)
    original = configuration.original_version
    if original is None:
        first = configuration.supported_versions[0]
        if lib.ngtcp2_is_reserved_version(first):
            # It makes the server send its own versions (RFC 9000, 6.3).
            options.original_version = first
    else:
        if not 0 <= original < 1 << 32:
            raise ValueError("a version has 32 bits")
        options.original_version = original
    return 0


cdef int set_server_name(
    lib.ngp_quic_options *options, configuration, list keep
) except -1:
    name = configuration.server_name
    if name is None:
        return 0
    try:
        ip = ipaddress.ip_address(name).packed
    except ValueError:
        encoded = name.encode("idna" if not name.isascii() else "ascii")
        if b"\0" in encoded:
            raise ValueError("server_name has a NUL byte") from None
        keep.append(encoded)
        options.tls.sni = <const char *><bytes>encoded
        options.tls.verify_name = <const char *><bytes>encoded
    else:
        # SNI does not carry addresses (RFC 6066, 3).
        keep.append(ip)
        options.tls.verify_ip = <const uint8_t *><bytes>ip
        options.tls.verify_ip_len = len(ip)
    return 0


cdef dict describe_params(const lib.ngtcp2_transport_params *params):
    """Return transport parameters by their names in qlog, times in milliseconds."""
    return {
        "max_idle_timeout": params.max_idle_timeout // 1000000,
        "max_udp_payload_size": params.max_udp_payload_size,
        "initial_max_data": params.initial_max_data,
        "initial_max_stream_data_bidi_local":
            params.initial_max_stream_data_bidi_local,
        "initial_max_stream_data_bidi_remote":
            params.initial_max_stream_data_bidi_remote,
        "initial_max_stream_data_uni": params.initial_max_stream_data_uni,
        "initial_max_streams_bidi": params.initial_max_streams_bidi,
        "initial_max_streams_uni": params.initial_max_streams_uni,
        "ack_delay_exponent": params.ack_delay_exponent,
        "max_ack_delay": params.max_ack_delay // 1000000,
        "disable_active_migration": bool(params.disable_active_migration),
        "active_connection_id_limit": params.active_connection_id_limit,
        "max_datagram_frame_size": params.max_datagram_frame_size,
    }
