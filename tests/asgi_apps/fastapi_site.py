"""A FastAPI application: uploads, validation, dependencies that clean up."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, File, Form, HTTPException, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Item(BaseModel):
    name: str
    price: float


def make_app():
    """The application; ``app.log`` has what its dependency did."""
    app = FastAPI()
    log = app.log = []

    async def database() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "database"
        except HTTPException:
            log.append("rollback")
            raise
        finally:
            log.append("close")

    Database = Annotated[str, Depends(database)]

    @app.post("/items", status_code=201)
    async def add(item: Item, base: Database) -> dict:
        log.append(f"add {item.name} to the {base}")
        return {"name": item.name, "price": item.price}

    @app.get("/missing")
    async def missing(base: Database) -> None:
        raise HTTPException(404, "there is none")

    @app.get("/rows")
    async def rows(base: Database) -> StreamingResponse:
        async def produce():
            for number in range(1000):
                yield f"{number}\n"

        return StreamingResponse(produce(), media_type="text/csv")

    @app.get("/feed")
    async def feed(base: Database) -> StreamingResponse:
        async def produce():
            try:
                yield "first\n"
                await asyncio.Event().wait()  # quiet until the client leaves
            finally:
                log.append("end of the feed")

        return StreamingResponse(produce(), media_type="text/plain")

    @app.post("/upload")
    async def upload(
        title: Annotated[str, Form()], file: Annotated[UploadFile, File()]
    ) -> dict:
        digest = hashlib.sha256()
        while piece := await file.read(65536):
            digest.update(piece)
        return {"title": title, "name": file.filename, "sha256": digest.hexdigest()}

    @app.get("/sync/{number}")
    def in_a_thread(number: int) -> dict:
        return {"square": number * number}

    return app
