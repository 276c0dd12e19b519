from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.exchange import HTTPConnection

class ScopeMaker:
    def __init__(self, options: ASGIOptions) -> None: ...

class ConnectionScope:
    def __init__(self, options: ASGIOptions, http: HTTPConnection) -> None: ...
