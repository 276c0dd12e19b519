"""Serve applications of ASGI and WSGI over HTTP/1.1, HTTP/2 and HTTP/3."""

import importlib
from typing import TYPE_CHECKING

# Imported when they are first used: a part of the package does not need the server.
if TYPE_CHECKING:
    from nghttp2py.asgi.app import ASGIApp
    from nghttp2py.asgi.closing import wait_closing
    from nghttp2py.asgi.config import Config
    from nghttp2py.asgi.options import ASGIOptions
    from nghttp2py.asgi.running import run
    from nghttp2py.asgi.server import Server, serve

__all__ = ["ASGIApp", "ASGIOptions", "Config", "Server", "run", "serve", "wait_closing"]

_MODULES = {
    "ASGIApp": "app",
    "ASGIOptions": "options",
    "Config": "config",
    "Server": "server",
    "run": "running",
    "serve": "server",
    "wait_closing": "closing",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        module = importlib.import_module(f"nghttp2py.asgi.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
