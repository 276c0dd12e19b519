"""Clients of httpx on our transports, behind one interface for tests.

``serving`` gives a ``Caller``, whose methods are coroutines, be the client an
``AsyncClient`` or, in a thread, a ``Client``; and the origin of a server of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading

import httpx
import pytest

from nghttp2py.asyncio import Server, Timeouts
from nghttp2py.httpx import AsyncTransport, Transport

MODULES = {"httpx": httpx}
with contextlib.suppress(ImportError):  # it needs Python 3.11
    import httpx2

    MODULES["httpx2"] = httpx2
VERSIONS = {"HTTP/2": False, "HTTP/3": "only"}

versions = pytest.mark.parametrize("version", VERSIONS)
ways = pytest.mark.parametrize("way", ["async", "sync"])


def everywhere(test):
    """Run a test with both clients over both versions."""
    return versions(ways(test))


class Caller:
    """A client of ``module``, which is asked by coroutines."""

    def __init__(self, way, module, transport, **options):
        self.module = module
        self.transport = transport
        self._is_sync = way == "sync"
        kind = module.Client if self._is_sync else module.AsyncClient
        self.client = kind(transport=transport, **options)

    async def get(self, *args, **options):
        return await self.request("GET", *args, **options)

    async def request(self, *args, **options):
        return await self._call(self.client.request, *args, **options)

    async def send(self, request, **options):
        return await self._call(self.client.send, request, **options)

    async def open(self, method, url, **options):
        """Send a request; return the response when it begins."""
        request = self.client.build_request(method, url, **options)
        return await self.send(request, stream=True)

    async def read(self, response):
        return await self._call(response.read if self._is_sync else response.aread)

    async def close(self, response):
        await self._call(response.close if self._is_sync else response.aclose)

    async def aclose(self):
        await self._call(self.client.close if self._is_sync else self.client.aclose)

    async def _call(self, function, *args, **options):
        call = functools.partial(function, *args, **options)
        # A transport that is used from a thread of the loop's executor would keep that
        # thread for as long as a request lasts.
        return await (in_thread(call) if self._is_sync else call())


async def in_thread(function):
    """Call a function in a thread of its own; return its result."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def finish(result, error):
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run():
        result = error = None
        try:
            result = function()
        except BaseException as found:
            error = found
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await future


def make_transport(way, authority, **options):
    kind = Transport if way == "sync" else AsyncTransport
    return kind(verify=authority, **options)


@contextlib.asynccontextmanager
async def calling(way, authority, module=httpx, client=None, **options):
    """Give a caller whose transport has ``options``."""
    transport = make_transport(way, authority, **options)
    caller = Caller(way, module, transport, **(client or {}))
    try:
        yield caller
    finally:
        await caller.aclose()


@contextlib.asynccontextmanager
async def serve(app, paths, **options):
    """Run a server of ours; give its origin."""
    options = {"http3": True, "timeouts": Timeouts(close=0.5)} | options
    async with Server(app, ("127.0.0.1", 0), ssl=paths, **options) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
