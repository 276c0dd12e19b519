"""The C libraries of this package, as found at run time."""

from nghttp2py cimport cngp as lib


def h2_defaults():
    """Return the numbers of ``ngp_h2_options_default``, by the options' names."""
    cdef lib.ngp_h2_options options

    lib.ngp_h2_options_default(&options)
    return {
        "max_header_list_bytes": options.max_header_list_bytes,
        "max_header_list_count": options.max_header_list_count,
        "max_body_queue": options.max_body_queue,
        "max_data_frame": options.max_data_frame,
        "max_provoked_resets": options.max_provoked_resets,
        "max_glitches": options.max_glitches,
    }


def features():
    """Return the versions of the C libraries in use, and what they can do.

    The result maps the name of each library, ``"nghttp2"``, ``"nghttp3"``, ``"ngtcp2"``
    and ``"gnutls"``, to the version in use; the last three only if HTTP/3 or QUIC was
    built.  It maps each option to a bool: ``http3`` and ``quic`` tell whether
    ``nghttp2py.h3`` and ``nghttp2py.quic`` can be imported.  The others tell what the
    release of nghttp2 has: ``stream_reset_rate_limit`` (against Rapid Reset),
    ``max_continuations`` (against CONTINUATION floods), ``glitch_rate_limit``,
    ``max_outbound_queue_size``, ``extensible_priorities`` (RFC 9218).
    """
    cdef const lib.ngp_feature *feature = lib.ngp_features()
    options = {}
    while feature.name != NULL:
        options[feature.name.decode()] = bool(feature.present)
        feature += 1
    libraries = {"nghttp2": lib.nghttp2_version(0).version_str.decode()}
    # Imported here: other programs load only the libraries that they use.
    if options["http3"]:
        from nghttp2py.h3.qpack import library_versions

        libraries.update(library_versions())
    if options["quic"]:
        from nghttp2py.quic.credentials import library_versions

        libraries.update(library_versions())
    return libraries | options
