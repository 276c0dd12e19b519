"""A Flask application, of WSGI: forms, files, sessions, streams."""

import hashlib

from flask import Flask, Response, request, session


def make_app():
    app = Flask(__name__)
    app.secret_key = "not a secret"

    @app.get("/hello")
    def hello():
        return {
            "name": request.args.get("name"),
            "secure": request.is_secure,
            "host": request.host,
            "agent": request.headers.get("x-agent"),
        }

    @app.post("/upload")
    def upload():
        file = request.files["file"]
        digest = hashlib.sha256(file.read()).hexdigest()
        return {"title": request.form["title"], "name": file.filename, "sha256": digest}

    @app.get("/stream")
    def stream():
        return Response((f"{number}\n" for number in range(100)), mimetype="text/plain")

    @app.get("/count")
    def count():
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"]}

    return app
