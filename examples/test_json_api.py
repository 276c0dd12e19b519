"""Tests of json_api.py in memory: no server is started, no port is used.

python -m pytest examples/test_json_api.py
"""

import asyncio
from collections.abc import Iterator
from typing import Literal

import pytest
from json_api import Handler, notes

from nghttp2py.testing import MemoryServer


@pytest.fixture(autouse=True)
def no_notes() -> Iterator[None]:
    """Begin each test without notes."""
    notes.clear()
    yield


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
def test_a_note_is_where_the_location_says(
    version: Literal["HTTP/2", "HTTP/3"],
) -> None:
    async def test() -> None:
        async with MemoryServer(Handler) as server, server.client(version) as client:
            made = await client.post("/notes", json={"text": "buy milk"})
            assert (made.status, made.http_version) == (201, version)
            found = await client.get(made.headers["location"])
            assert (await found.json())["text"] == "buy milk"

    asyncio.run(test())


@pytest.mark.parametrize("body, status", [('{"text": ', 400), ('"text"', 422)])
def test_what_is_no_note_is_refused(body: str, status: int) -> None:
    async def test() -> None:
        async with MemoryServer(Handler) as server, server.client() as client:
            response = await client.post("/notes", body)
            assert response.status == status
            assert await (await client.get("/notes")).json() == []

    asyncio.run(test())


def test_a_client_of_http1_is_served() -> None:
    async def test() -> None:
        async with MemoryServer(Handler) as server:
            reader, writer = await server.open_connection()
            writer.write(
                b"GET /notes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
            response = await reader.read()
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.endswith(b"\r\n\r\n[]\n")
            writer.close()

    asyncio.run(test())
