"""A Starlette application: streams, events, background tasks, WebSockets, files."""

import asyncio
import contextlib
import hashlib

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

PIECES = 200
PIECE = bytes(range(256)) * 16

PAGE = """<!doctype html>
<link rel="stylesheet" href="/static/style.css">
<body>
<script>
const events = (n) => new Promise((resolve, reject) => {
  const source = new EventSource("/events"), seen = [];
  source.onerror = () => reject(new Error("events"));
  source.onmessage = (event) => {
    if (seen.push(event.data) === n) { source.close(); resolve(seen); }
  };
});
const echo = (...messages) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}/echo`), seen = [];
  socket.onopen = () => messages.forEach((message) => socket.send(message));
  socket.onmessage = (event) => {
    if (seen.push(event.data) === messages.length) socket.close(1000, "done");
  };
  socket.onclose = (event) => resolve([...seen, event.code, event.reason]);
});
const run = async () => {
  const upload = new Uint8Array(3 << 20).map((_, i) => i * i >> 8);
  const posted = await fetch("/sha256", { method: "POST", body: upload });
  const entry = performance.getEntriesByType("navigation")[0];
  return {
    color: getComputedStyle(document.body).color,
    events: await events(3),
    stream: (await (await fetch("/stream")).arrayBuffer()).byteLength,
    upload: await posted.json(),
    protocol: entry.nextHopProtocol,
    echo: location.search === "?echo" ? await echo("text", "more") : null,
  };
};
addEventListener("load", () => run()
  .catch((error) => ({ error: String(error), stack: error.stack }))
  .then((report) => fetch("/report", { method: "POST", body: JSON.stringify(report) }))
);
</script>
"""


class Seen:
    """What has happened to the application."""

    def __init__(self):
        self.background = []
        self.sources = [0, 0]  # generators of events that were begun, and have ended
        self.closes = []
        self.life = []
        self.reports = asyncio.Queue()


def make_app(directory):
    """The application, with files of ``directory``; ``app.seen`` is a ``Seen``."""
    seen = Seen()

    async def page(request):
        return HTMLResponse(PAGE)

    async def report(request):
        seen.reports.put_nowait(await request.json())
        return Response(status_code=204)

    async def hello(request):
        return JSONResponse(
            {
                "version": request.scope["http_version"],
                "scheme": request.url.scheme,
                "host": request.url.netloc,
                "query": dict(request.query_params),
                "cookies": request.cookies,
                "state": request.state.answer,
            }
        )

    async def stream(request):
        async def pieces():
            for number in range(PIECES):
                if number % 20 == 0:
                    await asyncio.sleep(0)
                yield PIECE

        return StreamingResponse(pieces(), media_type="application/octet-stream")

    async def events(request):
        async def source():
            seen.sources[0] += 1
            try:
                for number in range(3):
                    yield f"data: event {number}\n\n"
                await asyncio.Event().wait()  # quiet until the client leaves
            finally:
                seen.sources[1] += 1

        return StreamingResponse(source(), media_type="text/event-stream")

    async def sha256(request):
        digest, size = hashlib.sha256(), 0
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
        return JSONResponse({"size": size, "sha256": digest.hexdigest()})

    async def later(request):
        async def task(name):
            await asyncio.sleep(0)
            seen.background.append(name)

        return Response("accepted", 202, background=BackgroundTask(task, "done"))

    async def cookies(request):
        response = Response("cookies")
        response.set_cookie("first", "1", httponly=True)
        response.set_cookie("second", "2")
        return response

    async def refuse(request):
        raise HTTPException(413, "too large")

    async def fail(request):
        raise LookupError("on purpose")

    async def echo(websocket):
        await websocket.accept()
        async for message in websocket.iter_text():
            await websocket.send_text(message)
        seen.closes.append("echo")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        seen.life.append("startup")
        yield {"answer": 42}
        seen.life.append("shutdown")

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/report", report, methods=["POST"]),
            Route("/hello", hello),
            Route("/stream", stream),
            Route("/events", events),
            Route("/sha256", sha256, methods=["POST"]),
            Route("/later", later, methods=["POST"]),
            Route("/cookies", cookies),
            Route("/refuse", refuse, methods=["POST"]),
            Route("/fail", fail),
            WebSocketRoute("/echo", echo),
            Mount("/static", StaticFiles(directory=directory)),
        ],
        lifespan=lifespan,
    )
    app.seen = seen
    return app
