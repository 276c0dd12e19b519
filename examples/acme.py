"""A site on the ports 80 and 443 whose certificate an ACME client gets and renews.

    WEBROOT=/var/www/acme nghttp2py run acme:app --insecure-bind :80 -b :443 \
        --ssl-certfile fullchain.pem --ssl-keyfile privkey.pem

Over port 80 there are only the files of the client's --webroot, and redirects.
"""

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]

WEBROOT = Path(os.environ.get("WEBROOT", "/var/www/acme"))
# RFC 8555, 8.3: a token has no other characters.
CHALLENGE = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]+)")


async def app(scope: Any, receive: Any, send: Send) -> None:
    """Answer a request by the port that it has come to."""
    if scope["type"] == "http" and scope["scheme"] == "http":
        await answer_in_clear(scope, send)
    else:
        await site(scope, receive, send)


async def answer_in_clear(scope: Any, send: Send) -> None:
    """Answer the authority's question, or send the client to port 443."""
    if found := CHALLENGE.fullmatch(scope["path"]):
        path = WEBROOT / ".well-known" / "acme-challenge" / found[1]
        if path.is_file():
            await respond(send, 200, path.read_bytes())
        else:
            await respond(send, 404, b"There is no such challenge.\n")
        return
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    host = re.sub(r":\d+$", "", host)
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    location = f"https://{host}{target}".encode("latin-1")
    await respond(send, 308, b"", (b"location", location))


async def respond(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]
) -> None:
    """Send a whole response."""
    headers = ((b"content-length", b"%d" % len(body)), *headers)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def site(scope: Any, receive: Any, send: Send) -> None:
    """Stand for the application of this site."""
    assert scope["type"] == "http"
    await respond(send, 200, f"Hello over HTTP/{scope['http_version']}!\n".encode())
