"""A guest book, step 4: a stream of events shows new entries at once."""

import asyncio
import json
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from nghttp2py.asgi import wait_closing

DATA = Path(os.environ.get("GUESTBOOK", "guestbook"))
DATA.mkdir(exist_ok=True)
LIMIT = 5 << 20  # bytes of a picture

app = FastAPI()


class Entry(BaseModel):
    """What a guest sends."""

    text: str


def query(statement: str, *values: Any) -> list[dict[str, Any]]:
    """Run a statement of SQL; return its rows."""
    with closing(sqlite3.connect(DATA / "entries.db")) as database, database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(statement, values)]


query("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, text TEXT)")


@app.get("/entries")
def list_entries(after: int = 0) -> list[dict[str, Any]]:
    """Return the entries, or those after one."""
    return query("SELECT * FROM entries WHERE id > ? ORDER BY id", after)


@app.post("/entries", status_code=201)
def add_entry(entry: Entry) -> dict[str, Any]:
    """Store an entry."""
    statement = "INSERT INTO entries (text) VALUES (?) RETURNING *"
    return query(statement, entry.text)[0]


@app.get("/entries/{number}")
def find_entry(number: int) -> dict[str, Any]:
    """Return one entry."""
    found = query("SELECT * FROM entries WHERE id = ?", number)
    if not found:
        raise HTTPException(404, f"there is no entry {number}")
    return found[0]


@app.put("/entries/{number}/picture", status_code=201)
async def store_picture(number: int, request: Request) -> dict[str, Any]:
    """Store a picture of an entry while it arrives."""
    find_entry(number)
    size = int(request.headers.get("content-length", "0"))
    if size > LIMIT:
        raise HTTPException(413, f"a picture has at most {LIMIT} bytes")
    with tempfile.NamedTemporaryFile(dir=DATA, delete=False) as file:
        try:
            size = 0
            async for piece in request.stream():  # at the speed of the client
                size += len(piece)
                if size > LIMIT:
                    raise HTTPException(413, f"a picture has at most {LIMIT} bytes")
                file.write(piece)
            file.flush()
            os.replace(file.name, DATA / f"{number}.jpeg")  # whole, or not at all
        except BaseException:
            os.unlink(file.name)
            raise
    return {"bytes": size}


@app.get("/entries/{number}/picture")
def send_picture(number: int) -> FileResponse:
    """Send a picture, or the part of it that is asked for."""
    path = DATA / f"{number}.jpeg"
    if not path.exists():
        raise HTTPException(404, f"entry {number} has no picture")
    return FileResponse(path)


async def new_entries(after: int) -> AsyncIterator[str]:
    """Make an event of each entry after one, until the server stops."""
    stopping = asyncio.ensure_future(wait_closing())
    try:
        while not stopping.done():
            for entry in await asyncio.to_thread(list_entries, after):
                after = entry["id"]
                yield f"id: {after}\ndata: {json.dumps(entry)}\n\n"
            await asyncio.wait([stopping], timeout=0.2)
    finally:
        stopping.cancel()


@app.get("/events")
async def send_events(
    last_event_id: Annotated[int, Header()] = 0,
) -> StreamingResponse:
    """Send entries as they come; a browser that connects again goes on."""
    headers = {"cache-control": "no-store"}
    events = new_entries(last_event_id)
    return StreamingResponse(events, 200, headers, "text/event-stream")
