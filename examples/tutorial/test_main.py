"""Tests of the guest book, without a server and a port: python -m pytest"""

import asyncio
import json
import os
import tempfile
from typing import Literal

os.environ["GUESTBOOK"] = tempfile.mkdtemp()

from fastapi.testclient import TestClient
from main import LIMIT, app

from nghttp2py.asgi import ASGIApp
from nghttp2py.testing import MemoryServer

client = TestClient(app)


def test_an_entry_is_stored() -> None:
    """It is there afterwards, by its number and in the list."""
    entry = client.post("/entries", json={"text": "Hello"}).json()
    assert client.get(f"/entries/{entry['id']}").json() == entry
    assert entry in client.get("/entries").json()


def test_an_entry_without_a_text_is_refused() -> None:
    """FastAPI says what is missing."""
    assert client.post("/entries", json={}).status_code == 422


def test_a_picture_comes_back_whole_and_in_parts() -> None:
    """A range is a part of it (RFC 9110, 14)."""
    entry = client.post("/entries", json={"text": "A picture"}).json()
    path = f"/entries/{entry['id']}/picture"
    assert client.get(path).status_code == 404
    assert client.put(path, content=b"0123456789").json() == {"bytes": 10}
    assert client.get(path).content == b"0123456789"
    part = client.get(path, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")


def test_a_picture_that_is_too_large_is_refused() -> None:
    """With its length, and without; the old one stays."""
    entry = client.post("/entries", json={"text": "Too large"}).json()
    path = f"/entries/{entry['id']}/picture"
    assert client.put(path, content=bytes(LIMIT + 1)).status_code == 413
    pieces = iter([bytes(LIMIT), b"1"])
    assert client.put(path, content=pieces).status_code == 413
    assert client.get(path).status_code == 404


def test_an_event_has_the_entry_over_each_version() -> None:
    """The response has no end: the test reads its beginning."""
    entry = client.post("/entries", json={"text": "News"}).json()
    headers = {"last-event-id": str(entry["id"] - 1)}

    async def read(version: Literal["HTTP/2", "HTTP/3"]) -> bytes:
        async with (
            MemoryServer(ASGIApp(app)) as server,
            server.client(version) as reader,
            await reader.get("/events", headers=headers) as response,
        ):
            return await anext(aiter(response))

    for event in asyncio.run(read("HTTP/2")), asyncio.run(read("HTTP/3")):
        number, data = event.decode().strip().split("\n")
        assert number == f"id: {entry['id']}"
        assert json.loads(data.removeprefix("data: ")) == entry
