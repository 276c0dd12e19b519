"""An application of ASGI, and below /old one of WSGI that it replaces step by step.

nghttp2py run asgi_and_wsgi:app
"""

from typing import Any

from fastapi import FastAPI, Request
from flask import Flask, request

from nghttp2py.asgi.wsgi import wrap_wsgi

old = Flask(__name__)


@old.get("/hello/<name>")
def greet(name: str) -> dict[str, Any]:
    """Answer in a thread."""
    return {"hello": name, "by": "Flask", "over": request.environ["SERVER_PROTOCOL"]}


app = FastAPI()
app.mount("/old", wrap_wsgi(old, threads=20))


@app.get("/hello/{name}")
async def hello(name: str, request: Request) -> dict[str, Any]:
    """Answer in a coroutine."""
    over = f"HTTP/{request.scope['http_version']}"
    return {"hello": name, "by": "FastAPI", "over": over}
