"""A guest book, step 1: it says how the request came."""

from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/")
async def about(request: Request) -> dict[str, str]:
    """Return the version of HTTP."""
    return {"http": request.scope["http_version"]}
