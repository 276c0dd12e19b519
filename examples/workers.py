"""Serve with four processes, each with its own event loop: python workers.py"""

import sys

from nghttp2py.asyncio import Server, Stream
from nghttp2py.workers import Worker, run


async def serve(worker: Worker, greeting: str) -> None:
    """What each worker runs."""

    async def answer(stream: Stream) -> None:
        text = f"{greeting} from worker {worker.index}\n"
        await stream.send_response(200, {"content-type": "text/plain"}, text.encode())

    await worker.serve(Server(answer, sock=worker.sockets["web"]))


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    run(
        "workers:serve",
        addresses={"web": ("127.0.0.1", port)},
        workers=4,
        arguments={"greeting": "Hello"},
    )
