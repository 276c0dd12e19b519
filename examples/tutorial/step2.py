"""A guest book, step 2: entries, kept in a database."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

DATA = Path(os.environ.get("GUESTBOOK", "guestbook"))
DATA.mkdir(exist_ok=True)

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
