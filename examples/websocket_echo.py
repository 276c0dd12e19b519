"""An ASGI application that sends the messages of WebSockets back.

    nghttp2py run websocket_echo:app

The first message says by which version of HTTP the WebSocket came.
"""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one WebSocket."""
    assert scope["type"] == "websocket"
    await receive()  # websocket.connect
    if scope["path"] != "/echo":
        await send({"type": "websocket.close"})  # 403, for it was not accepted
        return
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"HTTP/{scope['http_version']}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
