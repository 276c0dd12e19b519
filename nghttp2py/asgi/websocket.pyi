from nghttp2py.asgi.exchange import ASGIExchange, HTTPApplication

__all__ = ["WebSocketExchange", "new_websocket"]

ENDED_TIME: float

def new_websocket(application: HTTPApplication) -> WebSocketExchange: ...

class WebSocketExchange(ASGIExchange): ...
