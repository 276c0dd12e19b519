"""``nghttp2py run``, with curl, h2load and ``nghttp2py get`` as its clients."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from loops import DEADLINE
from peers import children_of, free_port, nghttp2py, one_line

from nghttp2py.cli.run import command

EXAMPLES = Path(__file__).parent.parent / "examples"

MODULE = """
import asyncio, sys, threading

requests = 0
note = lambda *words: print(*words, file=sys.stderr, flush=True)

async def app(scope, receive, send):
    global requests
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("accepted", requests)
        await send({"type": "lifespan.shutdown.complete"})
        return
    requests += 1
    path = scope["path"]
    if path == "/hang":
        note("hanging")
        await asyncio.Event().wait()
    if path == "/thread":
        note("hanging")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, threading.Event().wait, 300)
    await asyncio.sleep(0)
    body = f"{scope['http_version']} {scope['scheme']} {path}".encode()
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})

def create():
    return app

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def stubborn(scope, receive, send):
    note("hanging")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def hanging(scope, receive, send):
    await receive()
    note("hanging")
    await asyncio.Event().wait()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    (directory / "main.py").write_text(MODULE)
    (directory / "broken.py").write_text("import os\n1 / 0\n")
    (directory / "config.toml").write_text('app = "main:app"\nport = 0\n')
    return directory


class Program:
    """The command, and what it has logged."""

    def __init__(self, process):
        self.process = process
        self.lines = []

    def wait_for(self, pattern):
        """Read the log up to a line that has a pattern; return the match."""
        while line := self.process.stderr.readline():
            self.lines.append(line)
            match = re.search(pattern, line)
            if match:
                return match
        raise AssertionError((pattern, self.lines))

    def stop(self, number=signal.SIGTERM):
        """Send a signal, read the rest of the log, and return the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self):
        """Read the log to its end, and return the exit code."""
        self.lines += self.process.stderr.readlines()
        return self.process.wait(DEADLINE)

    @property
    def log(self):
        return "".join(self.lines)

    @property
    def children(self):
        """The processes that it has started."""
        return children_of(self.process)


@contextlib.contextmanager
def program(site, *arguments, **options):
    """Run the command in the directory of its module until the end of the block."""
    command = [sys.executable, "-m", "nghttp2py", "run", *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=site,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield Program(process)
        finally:
            if process.poll() is None:
                process.kill()


URL = r"listening on (https?)://(\S+):(\d+) by (.+) \("


def run(site, *arguments):
    """Run the command to its end."""
    return nghttp2py("run", *arguments, cwd=site)


def curl(url, *options):
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--http2-prior-knowledge", *options, url],
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout.decode()


# ---- Requests ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["main:app", "--port=0"],
        ["main:create", "--factory", "-b", "127.0.0.1:0"],
        ["main:create()", "-b", "localhost:0", "--loop=asyncio"],
        ["-c", "config.toml"],
    ],
)
def test_an_application_is_served_until_sigterm(site, arguments):
    with program(site, *arguments) as server:
        _, host, port, protocols = server.wait_for(URL).groups()
        assert "HTTP/2" in protocols
        assert curl(f"http://{host}:{port}/a") == "2 http /a"
        assert server.stop() == 0
    assert "accepted 1" in server.log
    assert "stopped" in server.log


def test_tls_http3_and_plain_http_have_one_program(site, paths, certificates):
    cert, key = paths
    authority = certificates[3]
    with program(
        site,
        *("main:app", "--ssl-certfile", cert, "--ssl-keyfile", key),
        *("-b", "127.0.0.1:0", "--insecure-bind", "127.0.0.1:0"),
    ) as server:
        scheme, host, port, protocols = server.wait_for(URL).groups()
        assert (scheme, "HTTP/3" in protocols) == ("https", True)
        url = f"https://{host}:{port}/b"
        assert curl(url, "--http2", "--cacert", authority) == "2 https /b"
        done = nghttp2py("get", "--http3-only", "--cacert", authority, url)
        assert done.stdout == b"3 https /b", done.stderr
        scheme, host, port, protocols = server.wait_for(URL).groups()
        assert (scheme, "HTTP/3" in protocols) == ("http", False)
        assert curl(f"http://{host}:{port}/b") == "2 http /b"
        assert server.stop(signal.SIGINT) == 0
    assert "accepted 3" in server.log


def test_a_hangup_reads_the_certificates_again(site, paths, certificates):
    def shown(name):
        context = ssl.create_default_context(cafile=certificates[3])
        with (
            socket.create_connection((host, int(port)), DEADLINE) as sock,
            context.wrap_socket(sock, server_hostname=name) as secured,
        ):
            return secured.getpeercert()["serialNumber"]

    def write(cert, key, *names):
        issued = certificates[0].issue_cert(*names)
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())

    cert, key = paths
    more = cert.with_name("more.pem"), cert.with_name("more.key")
    write(*more, "more.example")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(cert.with_name("notify")))
    systemd.settimeout(DEADLINE)
    environ = {**os.environ, "NOTIFY_SOCKET": systemd.getsockname()}
    with (
        systemd,
        program(
            site,
            *("main:app", "--port=0", "--ssl-certfile", cert, "--ssl-keyfile", key),
            *("--ssl-certfile", more[0], "--ssl-keyfile", more[1]),
            env=environ,
        ) as server,
    ):
        _, host, port, _ = server.wait_for(URL).groups()
        first = shown("localhost"), shown("more.example")
        assert len({*first}) == 2
        write(cert, key, "localhost")
        write(*more, "more.example")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("new connections have the certificates of '.*', '.*more.pem'")
        # RELOADING comes between two READY (sd_notify, 3).
        states = []
        while states.count(b"READY=1") < 2:
            states += systemd.recv(4096).splitlines()
        begun, ready = states.index(b"RELOADING=1"), states.index(b"READY=1")
        assert ready < begun < states.index(b"READY=1", ready + 1)
        second = shown("localhost"), shown("more.example")
        assert len({*first, *second}) == 4
        more[1].write_bytes(key.read_bytes())
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the old certificates stay in use: .*more.pem.*more.key")
        assert (shown("localhost"), shown("more.example")) == second
        assert server.stop() == 0


def test_the_example_says_hello():
    """examples/asgi_hello.py is the application of the page of docs/."""
    with program(EXAMPLES, "asgi_hello:app", "--port=0") as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        assert curl(url) == "Hello over HTTP/2!\n"
        assert server.stop() == 0


def test_a_unix_socket_is_removed_at_the_end(site, tmp_path):
    path = tmp_path / "socket"
    with program(site, "main:app", "-b", f"unix:{path}") as server:
        server.wait_for(f"listening on unix:{path}")
        assert curl("http://localhost/c", "--unix-socket", path) == "2 http /c"
        assert server.stop() == 0
    assert not path.exists()


def test_a_descriptor_is_inherited(site):
    with socket.create_server(("127.0.0.1", 0)) as given:
        fd = given.fileno()
        with program(site, "main:app", f"--fd={fd}", pass_fds=[fd]) as server:
            server.wait_for(URL)
            url = f"http://127.0.0.1:{given.getsockname()[1]}/d"
            assert curl(url) == "2 http /d"
            assert server.stop() == 0


def test_options_are_in_the_environment_too(site, tmp_path):
    env_file = tmp_path / "env"
    port = free_port()
    env_file.write_text(
        f"NGHTTP2PY_PORT={port}\nNGHTTP2PY_LOG_LEVEL=info\nNGHTTP2PY_LOG_LEVLE=info\n"
    )
    with program(site, "main:app", "--env-file", env_file) as server:
        server.wait_for(r"LOG_LEVLE is ignored: .* mean \$NGHTTP2PY_LOG_LEVEL\?")
        assert server.wait_for(URL)[3] == str(port)
        assert server.stop() == 0


# ---- The end ----


@pytest.mark.parametrize("version", ["--h1", "--h2"])
def test_sigterm_loses_no_request_that_was_accepted(site, version):
    """h2load is in full swing; what it counts as failed was never accepted."""
    with program(site, "main:app", "--port=0", "--no-access-log") as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        # Over HTTP/1.1 one request follows the other, without pipelining.
        options = ["-m1", "--h1"] if version == "--h1" else ["-m10"]
        with subprocess.Popen(
            ["h2load", "-n40000", "-c4", *options, url],
            stdout=subprocess.PIPE,
            text=True,
        ) as load:
            for line in load.stdout:
                if "progress: " in line:
                    break
            assert server.stop() == 0
            output = load.stdout.read()
    succeeded = int(re.search(r" (\d+) succeeded", output)[1])
    assert succeeded >= 4_000
    assert f"accepted {succeeded}\n" in server.log


@pytest.mark.parametrize("path", ["hang", "thread"])
def test_a_second_sigint_ends_it_at_once(site, path):
    with program(site, "main:app", "--port=0") as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        with subprocess.Popen(
            ["curl", "--silent", "--http2-prior-knowledge", url + path],
            stdout=subprocess.DEVNULL,
        ):
            server.wait_for("hanging")
            server.process.send_signal(signal.SIGINT)
            server.wait_for("waiting up to 30 seconds for 1 requests")
            assert server.stop(signal.SIGINT) == 0
    assert "cancelling 1 requests" in server.log
    assert "accepted 1" in server.log


def test_sigint_ends_an_application_that_does_not_start(site):
    with program(site, "main:hanging", "--port=0") as server:
        server.wait_for("hanging")
        assert server.stop(signal.SIGINT) == 0
    assert "stopping before the application has started" in server.log


def test_an_application_that_ignores_its_cancellation_is_left(site):
    with program(site, "main:stubborn", "--port=0") as server:
        server.wait_for("hanging")
        assert server.stop() == 0
    assert "the application goes on although it was cancelled" in server.log


# ---- What cannot be served ----


def test_a_failed_startup_is_exit_code_3(site):
    done = run(site, "main:failing", "--port=0")
    assert done.returncode == 3
    assert b"the application has failed to start: no database" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"listening" not in done.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing:app", "there is no module 'nothing'"),
        ("main:requests", "main:requests is not callable: it is an int"),
    ],
)
def test_what_is_no_application_is_one_line(site, name, sentence):
    assert sentence in one_line(run(site, name), code=3)


def test_workers_whose_application_cannot_be_loaded_end_with_the_same_code(site):
    done = run(site, "nothing:app", "--workers=2", "--port=0")
    assert done.returncode == 3
    assert b"there is no module 'nothing'" in done.stderr


def test_an_error_inside_the_module_has_its_own_traceback(site):
    done = run(site, "broken:app")
    assert done.returncode == 3
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'broken.py", line 2' in lines[1]
    assert lines[-1] == (
        "Error: module 'broken' cannot be imported: ZeroDivisionError: division by zero"
    )


def test_a_port_in_use_is_one_line(site):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(run(site, "main:app", f"--port={port}"))
    assert f"cannot bind to 127.0.0.1:{port}: Address already in use" in line


def test_a_host_that_is_not_found_is_one_line(site):
    line = one_line(run(site, "main:app", "--host=256.0.0.1"))
    assert line.startswith("Error: cannot listen on 256.0.0.1:8000: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["main:app", "--port=http"], "port must be an integer, not 'http'"),
        (["main:app", "--ssl-keyfile=k"], "--ssl-keyfile needs --ssl-certfile"),
        (["main:app", "--bind=a:1", "--uds=/s"], "give --bind or --uds, not both"),
        (["main:app", "--reload-delay=1", "--reload", "--workers=2"], "or --workers:"),
        (["main:app", "--seed-file=missing"], "--seed-file cannot be read"),
        (
            ["main:app", "--quic-lb-key-file=k"],
            "--quic-lb-key-file needs --quic-lb-server-id",
        ),
        (["main:app", "--user=no-such"], "--user: there is no user 'no-such'"),
        (["main:app", "--workers=0"], "workers is 0, but must be from 1"),
        (
            ["main:app", "--ssl-certfile=a", "--ssl-certfile=b", "--ssl-keyfile=k"],
            "there are 2 --ssl-certfile and 1 --ssl-keyfile",
        ),
        (["main:app", "--ws"], "no option --ws: every version has WebSockets"),
        (["main:app", "--certfile=c"], "no option --certfile: use --ssl-certfile"),
        (["main:app", "--wrokers=2"], "--wrokers: did you mean --workers?"),
        (["main:app", "--ssl-cert-file=c"], "did you mean --ssl-certfile?"),
        (["main:app", "-b", "x:y"], "'x:y' is no address"),
        (["main:app", "-c", "missing.toml"], "cannot read 'missing.toml'"),
        ([], "there is no application"),
    ],
)
def test_wrong_options_are_exit_code_2(arguments, sentence):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert sentence in done.output
    assert "Traceback" not in done.output


def test_standard_descriptors_that_are_closed_are_no_sockets(tmp_path):
    (tmp_path / "application.py").write_text(
        "import os\n"
        "found = [os.fstat(number).st_rdev for number in range(3)]\n"
        "with open('found', 'w') as file:\n"
        "    print(*found, file=file)\n"
        "async def app(scope, receive, send):\n"
        "    pass\n"
    )
    program = f"exec '{sys.executable}' -m nghttp2py run application:app --check-config"
    subprocess.run(
        ["/bin/sh", "-c", f"{program} <&- >&- 2>&-"],
        cwd=tmp_path,
        timeout=DEADLINE,
        check=True,
    )
    found = (tmp_path / "found").read_text().split()
    assert found == [str(os.stat(os.devnull).st_rdev)] * 3


def test_a_configuration_can_be_checked(site):
    done = run(site, "-c", "config.toml", "--check-config")
    assert done.returncode == 0
    assert done.stdout == b"The configuration of main:app can be used.\n"
    bad = run(site, "main:app", "--ssl-certfile", "no", "--check-config")
    assert "cannot read 'no'" in one_line(bad)
    assert one_line(run(site, "broken2:app", "--check-config"), code=3)
