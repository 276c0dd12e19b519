"""HTTP/2 and HTTP/3 over asyncio: the only place that does I/O."""

from nghttp2py.asyncio.pump import H2Pump

__all__ = ["H2Pump"]
