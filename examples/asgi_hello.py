"""An ASGI application: nghttp2py run asgi_hello:app"""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request with the version of HTTP that it came by."""
    assert scope["type"] == "http"
    body = f"Hello over HTTP/{scope['http_version']}!\n".encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", b"%d" % len(body)),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
