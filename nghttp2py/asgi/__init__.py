"""Serve applications of ASGI and WSGI over HTTP/1.1, HTTP/2 and HTTP/3."""

from nghttp2py.asgi.app import ASGIApp
from nghttp2py.asgi.config import Config
from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.asgi.server import Server, run, serve

__all__ = ["ASGIApp", "ASGIOptions", "Config", "Server", "run", "serve"]
