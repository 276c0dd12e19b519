"""HTTP/2 without I/O (RFC 9113)."""

from nghttp2py.h2 import events
from nghttp2py.h2.config import H2Configuration, Setting
from nghttp2py.h2.connection import H2Connection, is_h2_available
from nghttp2py.h2.events import *

__all__ = [
    "H2Configuration",
    "H2Connection",
    "Setting",
    "is_h2_available",
]
__all__ += events.__all__
