"""``ASGIApp``: an ASGI application for ``nghttp2py.asyncio.Server``."""

from __future__ import annotations

from typing import Any

from nghttp2py.asgi.exchange import HTTPApplication
from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.asgi.websocket import new_websocket
from nghttp2py.exchange import Exchange
from nghttp2py.websocket import is_available

__all__ = ["ASGIApp"]


class ASGIApp(HTTPApplication):
    """An ASGI 3.0 application, as the ``app`` of ``nghttp2py.asyncio.Server``.

    ``app`` is a callable of ``scope``, ``receive`` and ``send``; ``options`` is an
    ``ASGIOptions``.  One object may serve several servers and connections, of each
    version of HTTP.  It knows nothing of the lifespan.

    ``drain`` waits for the application's tasks, ``cancel`` cancels them.
    """

    def __init__(self, app: Any, options: ASGIOptions | None = None) -> None:
        super().__init__(app, options)
        self.takes_tunnels = is_available()

    def new_tunnel(self, http: Any, stream_id: int, request: Any) -> Exchange:
        """Return the exchange of a CONNECT or an upgrade."""
        if request.protocol is not None and request.protocol.lower() == b"websocket":
            return new_websocket(self)
        return super().new_tunnel(http, stream_id, request)
