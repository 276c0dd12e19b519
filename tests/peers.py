"""What clients under test talk to: nghttpd, and servers that follow a script."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import trustme
from loops import DEADLINE, TEST_DEADLINE

from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2RequestReceived,
    H2SettingsReceived,
)
from nghttp2py.server import BaseRequestHandler, HTTP2Server

# ---- TLS ----


@functools.cache
def authority():
    return trustme.CA()


@functools.cache
def certificate():
    return authority().issue_cert("localhost", "127.0.0.1")


def server_tls(*, alpn=("h2",)):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate().configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_tls():
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def expect_a_broken_handshake():
    """A client will refuse the server, of which asyncio tells the loop of both."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


# ---- nghttpd ----


def program(name):
    """The path of a peer, which Debian keeps where only root looks."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found, f"{name} is missing; see vendor/install-deps"
    return found


async def run(*command):
    """Run a program to its end; return what it prints.  It must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE * 3)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, err.decode()
    return out.decode()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(type=kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def nghttpd(root, *options, tls=False):
    """Run nghttpd serving ``root`` on loopback; give its port."""
    port = free_port()
    command = ["nghttpd", "--address=127.0.0.1", f"--htdocs={root}", *options]
    if tls:
        key, cert = root / ".key.pem", root / ".cert.pem"
        certificate().private_key_pem.write_to_path(key)
        certificate().cert_chain_pems[0].write_to_path(cert)
        command += [str(port), str(key), str(cert)]
    else:
        command += ["--no-tls", str(port)]
    with listening(command, port):
        yield port


@contextlib.contextmanager
def listening(command, port, **options):
    """Run a program until the end of the block, which begins when it listens."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(list(map(str, command)), **quiet, **options)
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


def wait_for_port(port, process):
    """Wait until ``process`` accepts connections on ``port``.

    Programs that do not say so can only be asked.
    """

    def listens():
        assert process.poll() is None, f"{process.args} has ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    wait_until(listens)


def children_of(process):
    """The processes that one has started."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return set(map(int, text.split()))


def wait_until(condition):
    """Ask again and again whether something holds that a program does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


# ---- nginx ----

# Where vendor/install-deps unpacks it, if it is not installed.
PEERS = Path(__file__).parent.parent / "build" / "peers"
NGINX = shutil.which("nginx") or PEERS / "usr" / "sbin" / "nginx"

CONFIGURATION = """
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    {settings}
}}
"""


@contextlib.contextmanager
def nginx(root, port, settings):
    """Run nginx with settings of ``http``, its files in ``root``, until the end."""
    root.chmod(0o755)
    path = root / "nginx.conf"
    path.write_text(CONFIGURATION.format(root=root, settings=settings))
    with listening([NGINX, "-c", path, "-p", root, "-e", root / "error.log"], port):
        yield


# ---- A server of ours ----


class Echo(BaseRequestHandler):
    """Answers with the request: its body, or its path if it has none."""

    def on_headers(self):
        self.body = b""
        self.trailers = []

    def on_data(self, data):
        self.body += data

    def on_trailers(self, headers):
        self.trailers = headers

    def on_request_done(self):
        if self.path == b"/informational":
            self.send_informational(103, [("link", "</style.css>")])
        if self.path == b"/push" and self.push_enabled:
            self.push("/pushed", body="pushed body")
        headers = dict(self.headers)
        fields = [
            ("x-request", self.method + b" " + self.path),
            ("x-host", self.host),
            ("x-client", headers.get(b"user-agent", b"-")),
            ("x-length", headers.get(b"content-length", b"-")),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]
        if self.path == b"/trailers":
            self.trailers = [("x-end", "1")]
        self.send_response(
            200, fields, self.body or self.path, trailers=self.trailers or None
        )


def echo_server(**options):
    return HTTP2Server(("127.0.0.1", 0), Echo, **options)


@contextlib.contextmanager
def echo_thread(**options):
    """Serve in another thread, for what runs a loop of its own; give the address."""

    async def serve():
        stopped = asyncio.Event()
        async with echo_server(**options) as server:
            address = server.sockets[0].getsockname()[:2]
            started.set_result((asyncio.get_running_loop(), stopped, address))
            await stopped.wait()

    started = concurrent.futures.Future()
    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    loop, stopped, address = started.result(DEADLINE)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()


# ---- Servers that follow a script ----


class Peer:
    """A server's end of a connection, driven by a test's script."""

    def __init__(self, reader, writer, config):
        self.reader = reader
        self.writer = writer
        self.connection = H2Connection(config=config)
        self.events = []

    async def start(self):
        self.connection.initiate_connection()
        await self.flush()

    async def flush(self):
        self.writer.write(self.connection.data_to_send())
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def next(self, kind):
        """Return the next event of class ``kind``; those before it are dropped."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            await self.flush()
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError("the client has gone")
            self.events += self.connection.receive_data(data)

    async def next_request(self):
        """Return the next request's stream identifier, when it has come whole."""
        event = await self.next(H2RequestReceived)
        while True:
            body = await self.next(H2BodyReceived)
            if body.stream_id == event.stream_id and not body.body.more:
                return event.stream_id

    def respond(self, stream_id, body=b"", *, status=200, headers=()):
        self.connection.send_response_headers(stream_id, status, headers)
        self.connection.send_body(stream_id, body)

    async def serve(self):
        """Answer every request with its path, until the client goes."""
        while True:
            event = await self.next(H2RequestReceived)
            self.respond(event.stream_id, event.request.target)
            await self.flush()

    async def drained(self):
        """Wait until the client has acknowledged and then gone."""
        with contextlib.suppress(ConnectionError):
            await self.next(H2SettingsReceived)
            while True:
                await self.next(())

    def abort(self):
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def silent_server():
    """Listen on loopback and answer nothing, not even a TLS handshake.

    Gives the address, and an event that is set when a client has come.
    """

    async def hang(reader, writer):
        accepted.set()
        await reader.read()
        writer.close()

    accepted = asyncio.Event()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname(), accepted
    finally:
        server.close()


class ScriptedServer:
    """Listens on loopback; each connection runs ``script(peer)``, then ends.

    ``connections`` counts them.  What a script raises, other than that the
    client has gone, fails the test at the end.
    """

    def __init__(self, *scripts, tls=None, config=None):
        self._scripts = scripts
        self._tls = tls
        self._config = config or H2Configuration()
        self._tasks = set()
        self.connections = 0
        self.errors = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, exc_type, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if exc_type is None:
            assert not self.errors, self.errors

    def _connected(self, reader, writer):
        # The task is ours: asyncio complains of one of its own that is cancelled.
        task = asyncio.ensure_future(self._follow(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, reader, writer):
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer, self._config)
        try:
            await peer.start()
            await script(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()


# ---- The command ----


def nghttp2py(*arguments, **options):
    """Run the command to its end; its output is bytes."""
    command = [sys.executable, "-m", "nghttp2py", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, timeout=TEST_DEADLINE, **options
    )


def one_line(done, code=1):
    """The only line on stderr of a command that has failed with an exit code."""
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def hang_up(*arguments):
    """Run the command with a reader that goes early; return what it says of that."""
    with subprocess.Popen(
        [sys.executable, "-m", "nghttp2py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        process.wait(DEADLINE)
    return said


def assert_shown(done, *lines):
    """The output on stderr matches each of these regular expressions."""
    shown = done.stderr.decode()
    for line in lines:
        assert re.search(line, shown), (line, shown)


@contextlib.contextmanager
def serving(directory, *options, log=None):
    """Run ``nghttp2py serve`` on a free port; give the URL that it prints.

    What it logs goes to the file ``log``, if one is given.
    """
    with serving_process(directory, *options, log=log) as (_, url):
        yield url


@contextlib.contextmanager
def serving_process(directory, *options, log=None):
    """As ``serving``, but give the process too."""
    command = [sys.executable, "-u", "-m", "nghttp2py", "serve", str(directory)]
    if "--cert" not in options:
        command.append("--no-tls")
    with (
        tempfile.TemporaryFile() if log is None else log.open("w+b") as errors,
        subprocess.Popen(
            [*command, "--port=0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            if line:
                yield process, line.split()[2].rstrip("/")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(DEADLINE)
        errors.seek(0)
        assert process.returncode == 0, errors.read()
