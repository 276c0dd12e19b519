"""The C libraries below this package, as they are at run time."""

from nghttp2py cimport cngp as lib


def features():
    """Say which C libraries this build stands on and what they can do.

    The result maps ``"nghttp2"`` to the version in use, and the name of each option
    that not every release of it has to a bool: ``stream_reset_rate_limit`` (against
    Rapid Reset), ``max_continuations`` (against CONTINUATION floods),
    ``glitch_rate_limit``, ``max_outbound_queue_size``, ``extensible_priorities``
    (RFC 9218).  ``http3`` tells whether ``nghttp2py.h3`` can be imported.
    """
    cdef const lib.ngp_feature *feature = lib.ngp_features()
    found = {"nghttp2": lib.nghttp2_version(0).version_str.decode()}
    while feature.name != NULL:
        found[feature.name.decode()] = bool(feature.present)
        feature += 1
    return found
