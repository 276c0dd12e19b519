#!/usr/bin/env python3
"""A JSON API: notes that clients make, read, change and delete.

    python examples/json_api.py [port]

One coroutine answers a request, over HTTP/1.1 and HTTP/2.
"""

import itertools
import json
import sys
from typing import Any

from nghttp2py import BaseRequestHandler
from nghttp2py.asyncio import Server

notes: dict[str, dict[str, str]] = {}
numbers = map(str, itertools.count(1))


class Handler(BaseRequestHandler):
    """Answers one request."""

    max_body_size = 65536  # a larger body gets 413

    async def on_request(self) -> None:
        """Find what answers the path and the method."""
        path = self.path.partition(b"?")[0].decode("latin-1")
        match path.split("/")[1:]:
            case ["notes"] if self.method == b"GET":
                wanted = self.query.get("contains", "")
                found = [note for note in notes.values() if wanted in note["text"]]
                self.answer(200, found)
            case ["notes"] if self.method == b"POST":
                if text := await self.read_text():
                    number = next(numbers)
                    notes[number] = {"id": number, "text": text}
                    self.answer(201, notes[number], location=f"/notes/{number}")
            case ["notes", number] if number not in notes:
                self.answer(404, {"error": f"there is no note {number}"})
            case ["notes", number] if self.method == b"GET":
                self.answer(200, notes[number])
            case ["notes", number] if self.method == b"PUT":
                if text := await self.read_text():
                    notes[number] = {"id": number, "text": text}
                    self.answer(200, notes[number])
            case ["notes", number] if self.method == b"DELETE":
                del notes[number]
                self.send_response(204)
            case ["notes"]:
                self.answer(405, {"error": "GET or POST"}, allow="GET, POST")
            case ["notes", _]:
                self.answer(405, {"error": "no such method"}, allow="GET, PUT, DELETE")
            case _:
                self.answer(404, {"error": "the notes are at /notes"})

    async def read_text(self) -> str | None:
        """Read the text of a note; answer 422 if the body has none."""
        sent = await self.json()  # a body that is not JSON gets 400
        text = sent.get("text") if isinstance(sent, dict) else None
        if not isinstance(text, str) or not text:
            self.answer(422, {"error": 'a note is {"text": "..."}'})
            return None
        return text

    def answer(self, status: int, value: Any, **headers: str) -> None:
        """Send a value as JSON."""
        headers["content-type"] = "application/json"
        self.send_response(status, headers, json.dumps(value) + "\n")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    print(f"http://127.0.0.1:{port}/notes", flush=True)
    Server(Handler, ("127.0.0.1", port)).serve_forever()
