"""HTTP/1.1 without I/O (RFC 9112): the server's end of a connection."""

from nghttp2py.h1 import events
from nghttp2py.h1.connection import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    H1Connection,
)
from nghttp2py.h1.events import *

__all__ = ["MAX_FIELDS", "MAX_HEAD", "MAX_TARGET", "H1Connection"]
__all__ += events.__all__
