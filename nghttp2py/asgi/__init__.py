"""Serve applications of ASGI and WSGI over HTTP/1.1, HTTP/2 and HTTP/3."""

__all__: list[str] = []
