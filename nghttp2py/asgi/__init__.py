"""Serve applications of ASGI and WSGI over HTTP/1.1, HTTP/2 and HTTP/3."""

from nghttp2py.asgi.app import ASGIApp
from nghttp2py.asgi.options import ASGIOptions

__all__ = ["ASGIApp", "ASGIOptions"]
