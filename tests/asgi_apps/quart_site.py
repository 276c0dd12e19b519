"""A Quart application: bodies as they come, and files."""

import hashlib

from quart import Quart, request, session


def make_app():
    app = Quart(__name__)
    app.secret_key = "not a secret"

    @app.post("/sha256")
    async def sha256():
        digest = hashlib.sha256()
        async for piece in request.body:
            digest.update(piece)
        return {"sha256": digest.hexdigest(), "version": request.http_version}

    @app.get("/stream")
    async def stream():
        async def pieces():
            for number in range(100):
                yield f"{number}\n"

        return pieces(), 200, {"content-type": "text/plain"}

    @app.get("/count")
    async def count():
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"]}

    return app
