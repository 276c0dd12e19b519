"""HTTP/2 and HTTP/3 for Python on C libraries, with nghttp2's own Python API.

The servers and clients with callbacks are imported when they are first used: they
import asyncio, which a program that only codes headers does not need.
"""

from typing import TYPE_CHECKING

from nghttp2py.errors import ErrorCode, HPACKError, NGHTTP2Error, ProtocolError
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK
from nghttp2py.h2.config import H2Configuration
from nghttp2py.hpack import (
    DEFAULT_HEADER_TABLE_SIZE,
    DEFLATE_MAX_HEADER_TABLE_SIZE,
    HD_ENTRY_OVERHEAD,
    HDDeflater,
    HDInflater,
    HDTableEntry,
    NeverIndexed,
    print_hd_table,
)
from nghttp2py.libraries import features

if TYPE_CHECKING:
    from nghttp2py.client import BaseResponseHandler, HTTP2Client
    from nghttp2py.server import BaseRequestHandler, HTTP2Server

__version__ = "0.2.0"

__all__ = [
    "DATA_DEFERRED",
    "DATA_EOF",
    "DATA_OK",
    "DEFAULT_HEADER_TABLE_SIZE",
    "DEFLATE_MAX_HEADER_TABLE_SIZE",
    "HD_ENTRY_OVERHEAD",
    "BaseRequestHandler",
    "BaseResponseHandler",
    "ErrorCode",
    "H2Configuration",
    "HDDeflater",
    "HDInflater",
    "HDTableEntry",
    "HPACKError",
    "HTTP2Client",
    "HTTP2Server",
    "NGHTTP2Error",
    "NeverIndexed",
    "ProtocolError",
    "features",
    "print_hd_table",
]

_LOADED_LATE = {
    "BaseRequestHandler": "nghttp2py.server",
    "BaseResponseHandler": "nghttp2py.client",
    "HTTP2Client": "nghttp2py.client",
    "HTTP2Server": "nghttp2py.server",
}


def __getattr__(name: str) -> object:
    if name not in _LOADED_LATE:
        raise AttributeError(f"module 'nghttp2py' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LOADED_LATE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
