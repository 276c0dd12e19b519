from nghttp2py.asgi.application import Application
from nghttp2py.exchange import Exchange, HTTPConnection
from nghttp2py.h2 import RequestReceived

__all__ = ["ASGIExchange", "HTTPApplication"]

class HTTPApplication(Application):
    def new_tunnel(
        self, http: HTTPConnection, stream_id: int, request: RequestReceived
    ) -> Exchange: ...

class ASGIExchange(Exchange): ...
