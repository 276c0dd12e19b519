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


def origins():
    """Return where the code of each C library in ``features()`` comes from.

    ``"built in"`` is compiled with this package's own C code, ``"bundled"`` a shared
    library that the wheel brings, ``"system"`` any other shared library.
    """
    # Imported here: few programs ask.
    from pathlib import Path

    cdef const lib.ngp_feature *library = lib.ngp_built_in()
    built_in = set()
    while library.name != NULL:
        if library.present:
            built_in.add(library.name.decode())
        library += 1
    # auditwheel and delocate put shared libraries there.
    package = Path(__file__).parent
    places = [package.parent / "nghttp2py.libs", package / ".dylibs"]
    found = {}
    for name, version in features().items():
        if isinstance(version, bool):
            continue
        if name in built_in:
            found[name] = "built in"
        elif any(any(place.glob(f"lib{name}[.-]*")) for place in places):
            found[name] = "bundled"
        else:
            found[name] = "system"
    return found
