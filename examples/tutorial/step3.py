"""A guest book, step 3: entries with pictures."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel

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
