"""curl as a client of HTTP/1.1."""

import asyncio
import json

import pytest
from loops import in_loop

from nghttp2py import BaseRequestHandler
from nghttp2py.asyncio import Server

HOST = "127.0.0.1"


class Handler(BaseRequestHandler):
    max_body_size = 1 << 30

    async def on_request(self):
        if self.path == b"/stream":
            self.send_response(200, None, (b"%d\n" % i for i in range(1000)))
            return
        body = await self.read()
        seen = {
            "method": self.method.decode(),
            "path": self.path.decode(),
            "size": len(body),
            "scheme": self.scheme.decode(),
            "host": self.host.decode(),
        }
        fields = [("content-type", "application/json")]
        self.send_response(200, fields, json.dumps(seen).encode())


async def curl(*arguments, data=None):
    """Run curl; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "30", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(data)
    assert process.returncode == 0, err.decode()
    return out


@pytest.mark.parametrize("secure", [False, True])
@in_loop
async def test_curl_speaks_http1_with_a_server(secure, paths, certificates):
    async with Server(Handler, (HOST, 0), ssl=paths if secure else None) as server:
        port = server.sockets[0].getsockname()[1]
        origin = f"{'https' if secure else 'http'}://localhost:{port}"
        options = ["--http1.1", "--ipv4", "--cacert", certificates[3]]
        seen = json.loads(await curl(*options, f"{origin}/a?b"))
        assert seen == {
            "method": "GET",
            "path": "/a?b",
            "size": 0,
            "scheme": origin.partition(":")[0],
            "host": f"localhost:{port}",
        }
        # Larger than 1 MiB: curl waits for 100 (Continue).
        upload = ["--data-binary", "@-", "--write-out", "%{http_version}"]
        out = await curl(*options, *upload, f"{origin}/up", data=bytes(3_000_000))
        assert json.loads(out[:-3])["size"] == 3_000_000 and out[-3:] == b"1.1"
        # Of unknown length: chunked.
        out = await curl(*options, "-T", "-", f"{origin}/put", data=bytes(300_000))
        assert json.loads(out)["method"] == "PUT"
        assert json.loads(out)["size"] == 300_000
        # Two requests of one connection.
        count = ["--write-out", "%{num_connects}\n", "--output", "/dev/null"]
        urls = [f"{origin}/stream", f"{origin}/stream"]
        out = await curl(*options, *count, *urls, "--output", "/dev/null")
        assert out.split() == [b"1", b"0"]
        lines = (await curl(*options, f"{origin}/stream")).split()
        assert lines == [b"%d" % i for i in range(1000)]
        head = await curl(*options, "--head", f"{origin}/stream")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        # The same server speaks HTTP/2 with it.
        version = "--http2" if secure else "--http2-prior-knowledge"
        out = await curl(
            *options[1:], version, "--write-out", "%{http_version}", origin
        )
        assert out.endswith(b"}2")


@in_loop
async def test_curl_is_served_without_http2_where_it_asks_for_an_upgrade():
    async with Server(Handler, (HOST, 0)) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://{HOST}:{port}/"
        out = await curl("--http2", "--data", "hello", url)  # Upgrade: h2c
        assert json.loads(out)["size"] == 5
        assert json.loads(await curl("--http1.0", url))["method"] == "GET"
