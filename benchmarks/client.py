"""nghttp2py.asyncio.Client beside httpx and h2load: the task of streams.py.

Small GETs from nghttpd, 32 at a time on one connection, each body read whole.
What counts is the ratio to httpx[http2], measured in turns in the same run.
"""

from __future__ import annotations

import figures
import streams

from nghttp2py.asyncio import Client

GOAL = 20.0


async def client(port: int, n: int) -> None:
    """Ask with Client, and read each response."""
    async with Client(f"http://127.0.0.1:{port}") as made:

        async def work(n: int) -> None:
            for _ in range(n):
                response = await made.get("/hello")
                body = await response.read()
                assert response.status == 200 and body == streams.BODY

        await streams.share(work, n)


def main() -> None:
    """Measure, and print the median of each."""
    middle = streams.compare(__doc__, {"Client": client})
    beside = streams.tell(middle)
    figures.keep(
        "client",
        "Client, 32 small GETs at a time",
        "requests/s",
        {"small GETs": streams.rates(middle, {"Client": "nghttp2py"})},
        goal=f"at least {GOAL:.0f} times httpx",
        more=True,
    )
    reached = middle["Client, asyncio"][0] / beside
    print(
        f"goal: at least {GOAL:.0f} x httpx; reached {reached:.1f} with asyncio's loop"
    )


if __name__ == "__main__":
    main()
