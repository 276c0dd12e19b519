"""Real applications on a server of all versions, and real clients that ask them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import NamedTuple

import httpx
import pytest
from peers import run
from quic_pair import authority, identity

from nghttp2py.asgi import ASGIApp, ASGIOptions
from nghttp2py.asgi.lifespan import Lifespan
from nghttp2py.asyncio import Client, Server

HOST = "127.0.0.1"

#: The client of each row, and the version that it speaks.
CLIENTS = {
    "httpx-h1": "1.1",
    "httpx-h2": "2",
    "curl-h1": "1.1",
    "curl-h2": "2",
    "nghttp2py-h3": "3",
}

clients = pytest.mark.parametrize("client", list(CLIENTS))

# Each client and each version once.
some_clients = pytest.mark.parametrize(
    "client", ["httpx-h1", "curl-h2", "nghttp2py-h3"]
)


class Answer(NamedTuple):
    """A response; ``headers`` are pairs of str, with names in lower case."""

    status: int
    headers: list
    body: bytes

    def values(self, name):
        return [value for key, value in self.headers if key == name]

    def value(self, name):
        (value,) = self.values(name) or [None]
        return value


class Site:
    """An application on a server, and how it is asked."""

    def __init__(self, server, directory):
        self.server = server
        self.port = server.sockets[0].getsockname()[1]
        self.origin = f"https://localhost:{self.port}"
        self.directory = directory
        self.authority = directory / "authority.pem"
        self.authority.write_bytes(authority().cert_pem.bytes())
        self.context = ssl.create_default_context(cafile=str(self.authority))

    async def ask(self, client, path, method="GET", headers=(), body=None):
        """Make a request by a client of ``CLIENTS``, on a connection of its own."""
        headers = [*dict(headers).items()]
        kind, _, version = client.partition("-")
        ask = getattr(self, f"_by_{kind}")
        return await asyncio.wait_for(ask(version, path, method, headers, body), 30)

    async def begin(self, client, path, enough):
        """Read the response to a GET until it has ``enough``, and leave."""
        await asyncio.wait_for(self._begin(client, path, enough), 30)

    async def _begin(self, client, path, enough):
        seen = b""
        if client == "nghttp2py-h3":
            async with Client(self.origin, ssl=self.context, http3="only") as ours:
                response = await ours.get(path)
                async for piece in response:
                    seen += piece
                    if enough in seen:
                        break
                response.close()
            return
        async with (
            httpx.AsyncClient(verify=self.context, http2=client == "httpx-h2") as its,
            its.stream("GET", self.origin + path) as response,
        ):
            async for piece in response.aiter_raw():
                seen += piece
                if enough in seen:
                    break

    async def _by_httpx(self, version, path, method, headers, body):
        async with httpx.AsyncClient(
            verify=self.context, http1=version == "h1", http2=version == "h2"
        ) as client:
            response = await client.request(
                method, self.origin + path, headers=headers, content=body
            )
        assert response.http_version == {"h1": "HTTP/1.1", "h2": "HTTP/2"}[version]
        return Answer(
            response.status_code,
            [(k.decode().lower(), v.decode()) for k, v in response.headers.raw],
            response.content,
        )

    async def _by_curl(self, version, path, method, headers, body):
        out = self.directory / "out"
        out.unlink(missing_ok=True)
        command = [
            *("curl", "--silent", "--show-error", "--max-time", "25", "--path-as-is"),
            *("--cacert", self.authority, "--output", out, "--dump-header", "-"),
            *("--http2" if version == "h2" else "--http1.1", self.origin + path),
        ]
        if method == "HEAD":
            command.append("--head")
        else:
            command += ["--request", method]
        for name, value in headers:
            command += ["--header", f"{name}: {value}"]
        if body is not None:
            given = self.directory / "in"
            given.write_bytes(body)
            command += ["--data-binary", f"@{given}"]
            if "content-type" not in dict(headers):
                command += ["--header", "content-type:"]
        text = await run(*command)
        # The last one is the final response's; a 100 may be before it.
        section = text.replace("\r\n", "\n").strip().split("\n\n")[-1]
        first, *lines = section.split("\n")
        assert first.split()[0] == {"h1": "HTTP/1.1", "h2": "HTTP/2"}[version]
        pairs = [line.split(": ", 1) for line in lines]
        return Answer(
            int(first.split()[1]),
            [(name.lower(), value) for name, value in pairs],
            out.read_bytes() if out.exists() and method != "HEAD" else b"",
        )

    async def _by_nghttp2py(self, version, path, method, headers, body):
        async with Client(self.origin, ssl=self.context, http3="only") as client:
            response = await client.request(method, path, headers=headers, body=body)
            content = await response.read()
        return Answer(
            response.status,
            [
                (name, value)
                for name in response.headers
                for value in response.headers.get_all(name)
            ],
            content,
        )


@contextlib.asynccontextmanager
async def serving_site(app, directory, *, lifespan="auto", **options):
    """An application, with its lifespan, on a server of all versions."""
    paths = directory / "cert.pem", directory / "key.pem"
    for path, pem in zip(paths, identity(), strict=True):
        path.write_bytes(pem)
    life = Lifespan(app, lifespan)
    await life.startup()
    asgi = ASGIApp(app, ASGIOptions(state=life.state, **options))
    server = Server(asgi, (HOST, 0), ssl=paths, http3=True)
    try:
        await server.start()
        yield Site(server, directory)
    finally:
        server.close(1)
        await server.wait_closed()
        await life.shutdown()
