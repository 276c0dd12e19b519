#!/usr/bin/env python3
"""The old bindings' example: a style sheet is pushed before its page.

It needs a certificate: server.crt and server.key in the working directory.
"""

import io
import ssl

import nghttp2py as nghttp2


class Handler(nghttp2.BaseRequestHandler):
    def on_headers(self) -> None:
        self.push(
            path="/css/style.css",
            request_headers=[("content-type", "text/css")],
            status=200,
            body="body{margin:0;}",
        )

        self.send_response(
            status=200,
            headers=[("content-type", "text/plain")],
            body=io.BytesIO(b"nghttp2-python FTW"),
        )


ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ctx.options = ssl.OP_ALL | ssl.OP_NO_SSLv2
ctx.load_cert_chain("server.crt", "server.key")

# give None to ssl to make the server non-SSL/TLS
server = nghttp2.HTTP2Server(("127.0.0.1", 8443), Handler, ssl=ctx)
server.serve_forever()
