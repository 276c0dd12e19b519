"""A server for QUIC, by aioquic's module path (``aioquic.asyncio.server``)."""

from nghttp2py.asyncio.quic import QuicServer, serve
from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol, QuicStreamHandler

__all__ = ["QuicConnectionProtocol", "QuicServer", "QuicStreamHandler", "serve"]
