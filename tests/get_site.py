"""The command ``nghttp2py get`` in this process, and a site that it is tried on."""

import asyncio
import base64
import concurrent.futures
import contextlib
import gzip
import json
import random
import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from click.testing import CliRunner
from loops import DEADLINE
from peers import certificate

from nghttp2py.asyncio import Server
from nghttp2py.cli import main
from nghttp2py.server import BaseRequestHandler

DATA = random.Random(5).randbytes(300_000)
TEXT = b"plain text\n" * 100


class Done(NamedTuple):
    """What a run of the command has left."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self):
        return self.stdout.decode()

    @property
    def errors(self):
        return self.stderr.decode()

    @property
    def json(self):
        return json.loads(self.stdout)


def get(*arguments, input=None, env=None):
    """Run ``nghttp2py get`` to its end, without the environment's proxies."""
    names = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    result = CliRunner().invoke(
        main,
        ["get", *map(str, arguments)],
        input=input,
        env=dict.fromkeys(names) | (env or {}),
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout_bytes, result.stderr_bytes)


class Site(BaseRequestHandler):
    """Answers by the path; ``/echo`` with the request as JSON."""

    seen: list
    failures = 0

    def on_headers(self):
        self.received = b""

    def on_data(self, data):
        self.received += data

    def on_request_done(self):
        path, _, query = self.path.decode().partition("?")
        _, name, *rest = path.split("/")
        self.seen.append((self.method.decode(), self.path.decode()))
        getattr(self, f"do_{name or 'echo'}", self.do_missing)(query, *rest)

    def do_missing(self, query, *rest):
        self.send_response(404, [("content-type", "text/plain")], "no such page\n")

    def do_echo(self, query, *rest):
        fields = [[n.decode(), v.decode()] for n, v in self.headers]
        answer = {
            "method": self.method.decode(),
            "path": self.path.decode(),
            "host": self.host.decode(),
            "fields": fields,
            "body": self.received.decode("latin-1"),
        }
        self.send_response(
            200, [("content-type", "application/json")], json.dumps(answer)
        )

    def do_text(self, query, *rest):
        self.send_response(200, [("content-type", "text/plain")], TEXT)

    def do_data(self, query, *rest):
        value = dict(self.headers).get(b"range", b"").decode()
        if not value:
            self.send_response(200, body=DATA)
            return
        first, _, last = value.removeprefix("bytes=").partition("-")
        begin, end = int(first), int(last) + 1 if last else len(DATA)
        if begin >= len(DATA):
            self.send_response(416, [("content-range", f"bytes */{len(DATA)}")])
            return
        about = f"bytes {begin}-{end - 1}/{len(DATA)}"
        self.send_response(206, [("content-range", about)], DATA[begin:end])

    def do_part(self, query, *rest):
        """Answer with a part, of which the query says what it is."""
        about = unquote(query)
        self.send_response(206, [("content-range", about)] if about else [], b"parts")

    def do_status(self, query, status, *rest):
        self.send_response(int(status), [("x-status", status)], f"status {status}\n")

    def do_redirect(self, query, status, *rest):
        """``/redirect/302/3``: so many times, then to ``/echo``; ?to=URL goes there."""
        left = int(rest[0]) if rest else 1
        to = f"/redirect/{status}/{left - 1}" if left > 1 else "/echo"
        if query.startswith("to="):
            to = query[3:]
        self.send_response(int(status), [("location", to)], "moved\n")

    def do_cookies(self, query, *rest):
        """Set the cookies of the query; answer with those that came."""
        fields = [("set-cookie", text) for text in query.split("&") if text]
        came = b"; ".join(v for n, v in self.headers if n == b"cookie")
        self.send_response(200, fields, came + b"\n")

    def do_gzip(self, query, *rest):
        self.send_response(200, [("content-encoding", "gzip")], gzip.compress(TEXT))

    def do_named(self, query, *rest):
        name = base64.b64decode(query).decode()
        about = f'attachment; filename="{name}"'
        self.send_response(200, [("content-disposition", about)], "named\n")

    def do_controls(self, query, *rest):
        self.send_response(
            200, [("x-title", b"a\xc2\x9b31m"), ("x-b", "\x80")], "a\x1b[31mb\x07\tc\n"
        )

    def do_early(self, query, *rest):
        self.send_informational(103, [("link", "</a.css>")])
        self.send_response(200, [], "late\n")

    def do_trailers(self, query, *rest):
        self.send_response(200, [], "body\n", trailers=[("x-end", "1")])

    def do_broken(self, query, *rest):
        self.send_headers(200, [("content-length", "100")])
        self.send_data("only this")
        self.drop()

    def do_reset(self, query, *rest):
        self.drop()

    def drop(self):
        asyncio.get_running_loop().call_later(0.05, self.reset)

    def do_silent(self, query, *rest):
        """Never answer."""

    def do_flaky(self, query, *rest):
        """Fail as often as the query says, then answer."""
        type(self).failures += 1
        if type(self).failures <= int(query):
            self.send_response(503, [("retry-after", "0")], "busy\n")
        else:
            self.send_response(200, [], "well\n")


class Running(NamedTuple):
    """A server in a thread."""

    port: int
    seen: list
    handler: type

    @property
    def http(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def https(self):
        return f"https://localhost:{self.port}"


@contextlib.contextmanager
def site(directory: Path | None = None, **options):
    """Serve the site in another thread, with TLS and HTTP/3 if there is a directory.

    The certificate of the tests is written to ``cert.pem`` there.
    """

    class Handler(Site):
        pass

    Handler.seen = []

    async def serve():
        stopped = asyncio.Event()
        address = None if "sock" in options else ("127.0.0.1", 0)
        async with Server(Handler, address, **options) as server:
            name = server.sockets[0].getsockname()
            port = name[1] if isinstance(name, tuple) else 0
            started.set_result((asyncio.get_running_loop(), stopped, port))
            await stopped.wait()
            server.abort()

    if directory is not None:
        path = directory / "cert.pem"
        certificate().private_key_and_cert_chain_pem.write_to_path(path)
        options = {"ssl": (path, path), "http3": True} | options
    started = concurrent.futures.Future()
    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    loop, stopped, port = started.result(DEADLINE)
    try:
        yield Running(port, Handler.seen, Handler)
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
