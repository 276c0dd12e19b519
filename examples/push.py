#!/usr/bin/env python3
"""A page and its style sheet, which is pushed before it is asked for.

It needs a certificate: server.crt and server.key in the working directory.
"""

import io
import ssl

import nghttp2py as nghttp2

PAGE = b'<link rel="stylesheet" href="/colours.css"><p>In colour.'


class Page(nghttp2.BaseRequestHandler):
    def on_headers(self) -> None:
        self.push(
            path="/colours.css",
            status=200,
            headers=[("content-type", "text/css")],
            body="p { color: teal }",
        )
        self.send_response(
            status=200,
            headers=[("content-type", "text/html")],
            body=io.BytesIO(PAGE),
        )


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.crt", "server.key")
nghttp2.HTTP2Server(("127.0.0.1", 8443), Page, ssl=context).serve_forever()
