"""HTTP/3 without I/O (RFC 9114), over any object like QuicConnection."""

try:
    from nghttp2py.h3.connection import H3_ALPN, H3Connection
except ModuleNotFoundError as _error:
    if _error.name != "nghttp2py.h3.connection":
        raise
    raise ImportError(
        "nghttp2py was built without HTTP/3: install libnghttp3 1.8 or newer with "
        "its headers (Debian: libnghttp3-dev, for Debian 12 from "
        "bookworm-backports) and build nghttp2py again"
    ) from None

from nghttp2py.h3 import events
from nghttp2py.h3.config import H3Configuration
from nghttp2py.h3.events import *
from nghttp2py.h3.qpack import QPACKDecoder, QPACKEncoder

__all__ = [
    "H3_ALPN",
    "H3Configuration",
    "H3Connection",
    "QPACKDecoder",
    "QPACKEncoder",
]
__all__ += events.__all__
