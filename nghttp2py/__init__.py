"""HTTP/2 for Python at the speed of C."""

from nghttp2py.libraries import features

__all__ = ["features"]

__version__ = "0.1.0"
