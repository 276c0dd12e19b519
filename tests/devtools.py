"""Chromium under the control of a test, by its DevTools protocol."""

import asyncio
import contextlib
import json
import os
import signal
import urllib.request

import websockets.asyncio.client
from loops import TEST_DEADLINE

#: The command of a browser without a window.
CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
]


class Page:
    """The page of a browser."""

    def __init__(self, socket):
        self._socket = socket
        self._number = 0

    async def call(self, method, **parameters):
        """Return the result of a method of the protocol."""
        self._number += 1
        await self._socket.send(
            json.dumps({"id": self._number, "method": method, "params": parameters})
        )
        while True:
            answer = json.loads(
                await asyncio.wait_for(self._socket.recv(), TEST_DEADLINE)
            )
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    async def run(self, script):
        """Return what a script returns, or a promise of it."""
        result = await self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def text(self, element, pattern):
        """Wait until the text of an element matches; return it."""
        return await self.run(
            f"""new Promise((done) => {{
              const pattern = new RegExp({json.dumps(pattern)});
              const look = () => {{
                const text = document.getElementById("{element}")?.textContent ?? "";
                if (pattern.test(text)) done(text);
                else setTimeout(look, 20);
              }};
              look();
            }})"""
        )


@contextlib.asynccontextmanager
async def browser(url, directory, *options):
    """A browser on a page; gives the ``Page``."""
    process = await asyncio.create_subprocess_exec(
        *CHROMIUM,
        "--remote-debugging-port=0",
        *options,
        f"--user-data-dir={directory}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        port = await asyncio.wait_for(_port(process.stderr), TEST_DEADLINE)
        pages = await asyncio.to_thread(_pages, port)
        address = next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"]
        async with websockets.asyncio.client.connect(address, max_size=None) as socket:
            page = Page(socket)
            # It returns when the new document has taken the place of the empty one.
            await page.call("Page.navigate", url=url)
            yield page
    finally:
        # With all the processes that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _port(output):
    while line := await output.readline():
        if line.startswith(b"DevTools listening on "):
            return int(line.split(b":")[2].split(b"/")[0])
    raise AssertionError("the browser has ended")


def _pages(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
        return json.load(answer)
