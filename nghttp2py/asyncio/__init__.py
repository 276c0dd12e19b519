"""HTTP/2 and HTTP/3 over asyncio: the only package that does I/O."""

from typing import TYPE_CHECKING

from nghttp2py.asyncio.alternatives import AlternativeService, AlternativeServices
from nghttp2py.asyncio.certificates import TLSOptions
from nghttp2py.asyncio.client import Client, Response
from nghttp2py.asyncio.endpoints import (
    H2Server,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from nghttp2py.asyncio.fields import Fields
from nghttp2py.asyncio.pool import Pool
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.pump import H2Pump
from nghttp2py.asyncio.reader import StreamReader
from nghttp2py.asyncio.server import Server, ServerCounts
from nghttp2py.asyncio.service_record import ServiceRecord
from nghttp2py.asyncio.stream import H2Stream, Stream
from nghttp2py.asyncio.time_limits import RequestTimeouts
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.asyncio.writer import StreamWriter
from nghttp2py.errors import NGHTTP2Error as AIOH2Exception
from nghttp2py.errors import SendException

#: Older names of HTTP/2's classes.
H2StreamReader = StreamReader
H2StreamWriter = StreamWriter

# Imported when they are first used: QUIC and HTTP/3 are not in every build.
if TYPE_CHECKING:
    # Not in __all__, because a build without QUIC has none of them.
    from nghttp2py.asyncio.h3 import H3Protocol as H3Protocol
    from nghttp2py.asyncio.h3 import H3RequestStream as H3RequestStream
    from nghttp2py.asyncio.quic import QuicConnectionProtocol as QuicConnectionProtocol
    from nghttp2py.asyncio.quic import QuicServer as QuicServer
    from nghttp2py.asyncio.quic import connect as connect
    from nghttp2py.asyncio.quic import serve as serve

_QUIC = {"QuicConnectionProtocol", "QuicServer", "connect", "serve"}
_HTTP3 = {"H3Protocol", "H3RequestStream"}

__all__ = [
    "AIOH2Exception",
    "AlternativeService",
    "AlternativeServices",
    "Client",
    "Fields",
    "H2Protocol",
    "H2Pump",
    "H2Server",
    "H2Stream",
    "H2StreamReader",
    "H2StreamWriter",
    "Pool",
    "RequestTimeouts",
    "Response",
    "SendException",
    "Server",
    "ServerCounts",
    "ServiceRecord",
    "Stream",
    "StreamReader",
    "StreamWriter",
    "TLSOptions",
    "Timeouts",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]


def __getattr__(name: str) -> object:
    if name in _QUIC:
        from nghttp2py.asyncio import quic

        return getattr(quic, name)
    if name in _HTTP3:
        from nghttp2py.asyncio import h3

        return getattr(h3, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
