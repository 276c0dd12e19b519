"""HTTP/2 and HTTP/3 over asyncio: the only package that does I/O.

Its names are imported when they are first used: a server does not need the client, and
QUIC and HTTP/3 are not in every build.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    # Not in __all__, because a build without QUIC has none of them.
    from nghttp2py.asyncio.h3 import H3Protocol as H3Protocol
    from nghttp2py.asyncio.h3 import H3RequestStream as H3RequestStream
    from nghttp2py.asyncio.pool import Pool
    from nghttp2py.asyncio.protocol import H2Protocol
    from nghttp2py.asyncio.pump import H2Pump
    from nghttp2py.asyncio.quic import QuicConnectionProtocol as QuicConnectionProtocol
    from nghttp2py.asyncio.quic import QuicServer as QuicServer
    from nghttp2py.asyncio.quic import connect as connect
    from nghttp2py.asyncio.quic import serve as serve
    from nghttp2py.asyncio.reader import StreamReader
    from nghttp2py.asyncio.reader import StreamReader as H2StreamReader
    from nghttp2py.asyncio.server import Server, ServerCounts
    from nghttp2py.asyncio.service_record import ServiceRecord
    from nghttp2py.asyncio.stream import H2Stream, Stream
    from nghttp2py.asyncio.time_limits import RequestTimeouts
    from nghttp2py.asyncio.timeouts import Timeouts
    from nghttp2py.asyncio.writer import StreamWriter
    from nghttp2py.asyncio.writer import StreamWriter as H2StreamWriter
    from nghttp2py.errors import NGHTTP2Error as AIOH2Exception
    from nghttp2py.errors import SendException

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

#: Names of earlier versions, and of aioh2.
_OLDER = {
    "AIOH2Exception": ("nghttp2py.errors", "NGHTTP2Error"),
    "H2StreamReader": ("nghttp2py.asyncio.reader", "StreamReader"),
    "H2StreamWriter": ("nghttp2py.asyncio.writer", "StreamWriter"),
    "SendException": ("nghttp2py.errors", "SendException"),
}
_MODULES = {
    "AlternativeService": "alternatives",
    "AlternativeServices": "alternatives",
    "Client": "client",
    "Fields": "fields",
    "H2Protocol": "protocol",
    "H2Pump": "pump",
    "H2Server": "endpoints",
    "H2Stream": "stream",
    "H3Protocol": "h3",
    "H3RequestStream": "h3",
    "Pool": "pool",
    "QuicConnectionProtocol": "quic",
    "QuicServer": "quic",
    "RequestTimeouts": "time_limits",
    "Response": "client",
    "Server": "server",
    "ServerCounts": "server",
    "ServiceRecord": "service_record",
    "Stream": "stream",
    "StreamReader": "reader",
    "StreamWriter": "writer",
    "TLSOptions": "certificates",
    "Timeouts": "timeouts",
    "connect": "quic",
    "open_connection": "endpoints",
    "open_unix_connection": "endpoints",
    "serve": "quic",
    "start_server": "endpoints",
    "start_unix_server": "endpoints",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        module, attribute = f"{__name__}.{_MODULES[name]}", name
    elif name in _OLDER:
        module, attribute = _OLDER[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
