"""Transports for httpx and httpx2: HTTP/2 and HTTP/3 by this package.

``httpx.AsyncClient(transport=AsyncTransport())`` and
``httpx.Client(transport=Transport())``.  One of the packages must be installed.
"""

from nghttp2py.httpx.blocking import Transport
from nghttp2py.httpx.transport import AsyncTransport

__all__ = ["AsyncTransport", "Transport"]
