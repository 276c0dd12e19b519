"""The configurations of examples/deploy/, with HAProxy and nginx before two servers."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import websockets
from loops import in_loop
from peers import authority, certificate, client_tls, free_port, nginx
from proxies import haproxy
from test_cli_run import Program, curl
from ws_frames import TEXT, Reader, frame

from nghttp2py.asyncio import open_connection
from nghttp2py.cli.run import command

DEPLOY = Path(__file__).parent.parent / "examples" / "deploy"
HOST = "127.0.0.1"

MODULE = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = os.environ["NAME"]
    about = f"{name} {scope['http_version']} {scope['scheme']} {scope['client'][1]}"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{about} {event['text']}"})
        return
    for _ in range(20):
        await asyncio.sleep(0)  # so that requests are in flight
    trailers = scope["path"].startswith("/grpc/")
    fields = [(b"content-type", b"application/grpc" if trailers else b"text/plain")]
    start = {"type": "http.response.start", "status": 200, "headers": fields}
    await send(start | {"trailers": trailers})
    await send({"type": "http.response.body", "body": about.encode()})
    if trailers:
        fields = [(b"grpc-status", b"0")]
        await send({"type": "http.response.trailers", "headers": fields})
"""


class Backend(Program):
    """A server of the application, on a port of its own."""

    def __init__(self, directory, name, *arguments):
        self.port = free_port()
        super().__init__(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "nghttp2py", "run", "main:app"),
                    *(f"--bind={HOST}:{self.port}", "--no-access-log", *arguments),
                ],
                cwd=directory,
                env=os.environ | {"NAME": name},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self.wait_for("listening on")

    def count_connections(self):
        """How many connections of TCP are open at its port."""
        end = f":{self.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return sum(each[1].endswith(end) and each[3] == "01" for each in fields)


@contextlib.contextmanager
def backends(directory, *arguments):
    """Run two servers, named a and b."""
    (directory / "main.py").write_text(MODULE)
    with contextlib.ExitStack() as stack:
        pair = []
        for name in "ab":
            pair.append(Backend(directory, name, *arguments))
            process = stack.enter_context(pair[-1].process)
            stack.callback(process.kill)
        yield pair


def substitute(name, *pairs):
    """Return a configuration with the addresses and paths of this machine."""
    text = (DEPLOY / name).read_text()
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, str(after))
    return text


class Site:
    """The two servers, and the proxy before them."""

    def __init__(self, directory, servers, port):
        self.directory = directory
        self.servers = dict(zip("ab", servers, strict=True))
        self.port = port
        self.url = f"https://localhost:{port}"

    def get(self, path="/", *options):
        authority = self.directory / "authority.pem"
        return curl(self.url + path, "--http2", "--cacert", authority, *options)

    def command(self, text):
        """Give HAProxy a command; return its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.directory / "admin.sock"))
            sock.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def state(self, name):
        """What HAProxy's health check says of a server."""
        for line in self.command("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["site", name]:
                return fields[17]
        raise AssertionError(name)


def write_certificate(directory):
    leaf = certificate()
    pem = leaf.private_key_and_cert_chain_pem.bytes()
    (directory / "site.pem").write_bytes(pem)
    (directory / "site.key").write_bytes(leaf.private_key_pem.bytes())

    authority().cert_pem.write_to_path(directory / "authority.pem")


@pytest.fixture
def behind_haproxy(tmp_path):
    write_certificate(tmp_path)
    options = (
        *("--proxy-protocol=v2", f"--proxy-allow-from={HOST}"),
        "--health-check-path=/healthz",
    )
    with backends(tmp_path, *options) as (a, b):
        port = free_port()
        configuration = substitute(
            "haproxy.cfg",
            ("bind :443", f"bind {HOST}:{port}"),
            ("/etc/haproxy", tmp_path),
            ("/run/haproxy", tmp_path),
            ("10.0.0.11:8000", f"{HOST}:{a.port}"),
            ("10.0.0.12:8000", f"{HOST}:{b.port}"),
            ("inter 1s", "inter 50ms"),
            ("timeout check 2s", "timeout check 20s"),
        )
        with haproxy(tmp_path, configuration, port):
            yield Site(tmp_path, (a, b), port)


@pytest.fixture
def behind_nginx(tmp_path):
    write_certificate(tmp_path)
    with backends(tmp_path) as (a, b):
        port = free_port()
        configuration = substitute(
            "nginx.conf",
            ("listen 443 ", f"listen {HOST}:{port} "),
            ("/etc/nginx", tmp_path),
            ("10.0.0.11:8000", f"{HOST}:{a.port}"),
            ("10.0.0.12:8000", f"{HOST}:{b.port}"),
        )
        settings = re.search(r"^http {\n(.*)^}\n", configuration, re.M | re.S)[1]
        with nginx(tmp_path, port, settings):
            yield Site(tmp_path, (a, b), port)


def load(site, requests, during, *options):
    """Send requests by h2load; call ``during`` when they are under way.

    Return how many have succeeded, and how many have a status 5xx.
    """
    with subprocess.Popen(
        ["h2load", f"-n{requests}", "-c4", "-m10", *options, site.url + "/"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "progress: 10%" in line:
                break
        during()
        output = process.stdout.read()
    print(output)
    succeeded = int(re.search(r" (\d+) succeeded", output)[1])
    broken = int(re.search(r", (\d+) 5xx", output)[1])
    return succeeded, broken


# ---- Every file ----


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_each_command_of_a_file_has_options_that_there_are(path):
    text = re.sub(r"\\\n[# ]*", " ", path.read_text())
    text = re.sub(r"[\[\]\", ]+", " ", text)  # the lists of Docker and Kubernetes
    for line in re.findall(r"nghttp2py run (.*)", text):
        context = click.Context(command)
        command.make_parser(context).parse_args(shlex.split(line))
    assert "nghttp2py run" in text or path.suffix == ".socket"


def test_the_units_of_systemd_fit_the_server(tmp_path):
    """The stand-in of test_systemd_peers.py passes what the socket unit names."""
    socket_unit = (DEPLOY / "site.socket").read_text()
    (name,) = re.findall(r"^FileDescriptorName=(.+)$", socket_unit, re.M)
    service = (DEPLOY / "site.service").read_text()
    (start,) = re.findall(r"^ExecStart=\S+ run main:app (.+)$", service, re.M)
    assert f"--bind systemd:{name} " in start
    assert re.search(r"^ListenDatagram=443$", socket_unit, re.M)


# ---- HAProxy ----


def test_requests_come_multiplexed_with_the_client_s_address(behind_haproxy):
    site = behind_haproxy
    seen = site.get("/", "--write-out", " %{local_port}").split()
    # The port is that of curl, which the header of the PROXY protocol has.
    assert seen[1:4] == ["2", "http", seen[4]]
    assert seen[0] in "ab"
    # Health checks have the command LOCAL, and are answered.
    assert {site.state(name) for name in "ab"} == {"UP"}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@in_loop
async def test_a_websocket_passes_by_extended_connect(behind_haproxy, version):
    """RFC 8441 to the server; to HAProxy by an upgrade, too."""
    await try_websocket(behind_haproxy, version, "2")


async def try_websocket(site, version, inside):
    if version == "HTTP/1.1":
        url = site.url.replace("https", "wss")
        async with websockets.connect(url, ssl=client_tls()) as socket:
            await socket.send("hello")
            answer = await socket.recv()
    else:
        async with await open_connection(
            "localhost", site.port, ssl=client_tls()
        ) as connection:
            await connection.wait_tunnels()
            stream = await connection.open_stream(
                {
                    ":method": "CONNECT",
                    ":protocol": "websocket",
                    ":scheme": "https",
                    ":path": "/",
                    "sec-websocket-version": "13",
                }
            )
            response = await stream.response()
            assert response.status == 200
            await stream.send_data(frame(TEXT, "hello"))
            reader = Reader()
            frames = []
            while not frames:
                frames += reader.feed(await stream.read(65536))
            answer = frames[0].data.decode()
            stream.reset()
    name, seen, scheme, _, said = answer.split()
    assert name in "ab" and (seen, scheme, said) == (inside, "ws", "hello")


def test_a_server_that_is_drained_and_stopped_loses_no_request(behind_haproxy):
    site = behind_haproxy

    def stop():
        site.command("set server site/a state drain")
        assert site.servers["a"].stop() == 0

    assert load(site, 6000, stop) == (6000, 0)
    # What it has accepted before is answered: HAProxy has sent nothing twice.
    assert site.state("a").startswith("D")
    assert site.get().split()[0] == "b"


def test_a_server_that_is_killed_fails_only_what_it_was_answering(behind_haproxy):
    site = behind_haproxy
    succeeded, _ = load(site, 6000, site.servers["a"].process.kill)
    # h2load has 40 requests under way at any time, of which some were there; those that
    # follow may be sent there, too, until HAProxy sees the first one fail.
    assert succeeded >= 6000 - 2 * 40
    assert site.get().split()[0] == "b"


# ---- nginx ----


def test_nginx_keeps_connections_open_and_tells_the_client(behind_nginx):
    site = behind_nginx
    seen = [site.get().split() for _ in range(8)]
    assert {each[0] for each in seen} == {"a", "b"}
    # The scheme is that of the client's connection; X-Forwarded-For has no port.
    assert {(version, scheme, port) for _, version, scheme, port in seen} == {
        ("1.1", "https", "0")
    }
    assert {server.count_connections() for server in site.servers.values()} == {1}


@in_loop
async def test_a_websocket_passes_nginx_by_an_upgrade(behind_nginx):
    url = behind_nginx.url.replace("https", "wss")
    async with websockets.connect(url, ssl=client_tls()) as socket:
        await socket.send("hello")
        name, version, scheme, _, said = (await socket.recv()).split()
    assert name in "ab" and (version, scheme, said) == ("1.1", "wss", "hello")


@in_loop
async def test_grpc_pass_has_http2_with_trailers(behind_nginx):
    async with await open_connection(
        "localhost", behind_nginx.port, ssl=client_tls()
    ) as connection:
        fields = {":method": "POST", ":scheme": "https", ":path": "/grpc/say"}
        stream = await connection.open_stream(
            fields | {"te": "trailers", "content-type": "application/grpc"}
        )
        await stream.send_data(b"hello", end_stream=True)
        response = await stream.response()
        assert response.status == 200
        _, version, scheme, _ = (await stream.read()).decode().split()
        assert (version, scheme) == ("2", "https")
        assert list(await stream.trailers()) == [(b"grpc-status", b"0")]


def test_nginx_asks_the_other_server_when_one_is_stopped(behind_nginx):
    site = behind_nginx

    def stop():
        assert site.servers["a"].stop() == 0

    succeeded, broken = load(site, 3000, stop)
    assert (succeeded, broken) == (3000, 0)
    assert site.get().split()[0] == "b"
