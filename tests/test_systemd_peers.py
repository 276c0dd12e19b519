"""``nghttp2py run`` as a service of systemd, by a stand-in for it.

The stand-in passes sockets, sets the variables that sd_listen_fds(3) and sd_notify(3)
document, and reads the socket of notifications.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from loops import DEADLINE
from peers import free_port, nghttp2py
from test_cli_run import URL, Program, curl

MODULE = """
import os, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
        print("variables", left, file=sys.stderr, flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"{scope['http_version']} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

# Descriptors of the arguments are put at 3 and after, as systemd does it.
STAND_IN = """
import os, sys
names, numbers, *command = sys.argv[1:]
numbers = [int(number) for number in numbers.split(",") if number]
far = [os.dup2(number, 100 + i) for i, number in enumerate(numbers)]
for i, number in enumerate(far):
    os.dup2(number, 3 + i)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(far)))
os.environ["LISTEN_FDNAMES"] = names
os.closerange(3 + len(far), 200)
os.execv(command[0], command)
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "main.py").write_text(MODULE)
    return tmp_path


@contextlib.contextmanager
def service(site, *arguments, sockets=(), names="", environ=()):
    """Run the command as a service to which ``sockets`` are passed."""
    numbers = [sock.fileno() for sock in sockets]
    command = [sys.executable, "-m", "nghttp2py", "run", "main:app", *arguments]
    with subprocess.Popen(
        [sys.executable, "-c", STAND_IN, names, ",".join(map(str, numbers)), *command],
        cwd=site,
        env=os.environ | dict(environ),
        pass_fds=numbers,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            if process.poll() is None:
                process.kill()


def listening(address=("127.0.0.1", 0), family=socket.AF_INET):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock


@contextlib.contextmanager
def three(tmp_path, *, reuse_port=False):
    """Sockets of TCP, UDP at the same port, and of a Unix path.

    ``reuse_port`` is that of UDP: ``ReusePort=`` of the unit.
    """
    with contextlib.ExitStack() as stack:
        port = free_port()
        tcp = stack.enter_context(listening(("127.0.0.1", port)))
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        udp.bind(("127.0.0.1", port))
        path = str(tmp_path / "socket")
        unix = stack.enter_context(listening(path, socket.AF_UNIX))
        yield tcp, udp, unix, port, path


def test_passed_sockets_of_each_kind_are_served_on(site, paths, certificates):
    cert, key = paths
    tls = ["--ssl-certfile", cert, "--ssl-keyfile", key]
    authority = certificates[3]
    with three(site) as (tcp, udp, unix, port, path):
        with service(
            site,
            *tls,
            *("--bind=systemd", "--insecure-bind=systemd:local"),
            sockets=[tcp, udp, unix],
            names="web:web:local",
        ) as server:
            assert server.wait_for("variables (.*)")[1] == "[]"
            assert server.wait_for(URL).groups() == (
                *("https", "127.0.0.1", str(port)),
                "HTTP/1.1, HTTP/2, HTTP/3",
            )
            url = f"https://127.0.0.1:{port}/"
            assert curl(url, "--http2", "--cacert", authority) == "2 https"
            done = nghttp2py("get", "--http3", "--cacert", authority, url)
            assert done.stdout == b"3 https", done.stderr
            assert curl("http://a/", "--unix-socket", path) == "2 http"
            assert server.stop() == 0
        # They are those of systemd: they stay, for the next start.
        assert os.path.exists(path)
        socket.create_connection(("127.0.0.1", port), DEADLINE).close()


@pytest.mark.parametrize("reuse_port", [True, False])
def test_workers_have_http3_at_a_passed_socket(site, paths, certificates, reuse_port):
    """Without ReusePort= of the unit the supervisor passes datagrams on."""
    tls = ["--ssl-certfile", paths[0], "--ssl-keyfile", paths[1]]
    with three(site, reuse_port=reuse_port) as (tcp, udp, _, port, _):
        with service(site, *tls, "--workers=2", sockets=[tcp, udp]) as server:
            assert server.wait_for(URL)[4] == "HTTP/1.1, HTTP/2, HTTP/3"
            server.wait_for("workers are ready")
            url = f"https://127.0.0.1:{port}/"
            for _ in range(4):
                done = nghttp2py(
                    "get", "--http3-only", "--cacert", certificates[3], url
                )
                assert done.stdout == b"3 https", done.stderr
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("the workers are replaced")
            done = nghttp2py("get", "--http3-only", "--cacert", certificates[3], url)
            assert done.stdout == b"3 https", done.stderr
            assert server.stop() == 0
        assert "WARNING" not in server.log and "ERROR" not in server.log


def test_workers_need_a_socket_of_tcp_beside_one_of_udp(site, paths):
    tls = ["--ssl-certfile", paths[0], "--ssl-keyfile", paths[1]]
    with (
        three(site) as (_, udp, *_),
        service(site, *tls, "--workers=2", sockets=[udp]) as server,
    ):
        assert server.end() == 1
    assert "a socket of UDP needs one of TCP beside it" in server.lines[-1]


def test_without_an_address_all_passed_sockets_are_used(site):
    with (
        listening() as one,
        listening() as other,
        service(site, sockets=[one, other]) as server,
    ):
        ports = {int(server.wait_for(URL)[3]) for _ in range(2)}
        assert ports == {sock.getsockname()[1] for sock in (one, other)}
        for port in ports:
            assert curl(f"http://127.0.0.1:{port}/") == "2 http"
        assert server.stop() == 0


def test_an_address_of_the_configuration_precedes_passed_sockets(site):
    with listening() as sock:
        with service(site, "--bind=127.0.0.1:0", sockets=[sock]) as server:
            server.wait_for("1 sockets of systemd are not used")
            assert server.wait_for("variables (.*)")[1] == "[]"
            assert int(server.wait_for(URL)[3]) != sock.getsockname()[1]
            assert server.stop() == 0
        with service(site, "--fd=3", sockets=[sock]) as server:
            assert server.wait_for("variables (.*)")[1] == "[]"
            assert int(server.wait_for(URL)[3]) == sock.getsockname()[1]
            assert server.stop() == 0
    assert "not used" not in server.log


def test_tls_without_a_passed_socket_of_udp_has_no_http3(site, paths):
    tls = ["--ssl-certfile", paths[0], "--ssl-keyfile", paths[1]]
    with listening() as sock:
        with service(site, *tls, sockets=[sock]) as server:
            assert server.wait_for(URL)[4] == "HTTP/1.1, HTTP/2"
            assert server.stop() == 0
        with service(site, *tls, "--http3", sockets=[sock]) as server:
            assert server.wait_for(URL)[4] == "HTTP/1.1, HTTP/2, HTTP/3"
            assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--bind=systemd:other"], "no socket for systemd:other"),
        (["--bind=systemd"], "of UDP, because it has no TLS or http3 is off"),
    ],
)
def test_what_does_not_fit_the_unit_is_one_line(site, arguments, why):
    with (
        three(site) as (*sockets, _, _),
        service(site, *arguments, sockets=sockets, names="a:b:c") as server,
    ):
        assert server.end() == 1
    assert why in server.lines[-1]
    assert "Traceback" not in server.log


def test_without_systemd_its_sockets_are_one_line(site):
    done = nghttp2py("run", "main:app", "--bind=systemd", cwd=site)
    assert done.returncode == 1
    assert b"systemd has passed no socket for systemd" in done.stderr


if shutil.which("systemd-socket-activate"):

    def test_systemd_s_own_program_starts_it_at_the_first_connection(site):
        port = free_port()
        command = [sys.executable, "-m", "nghttp2py", "run", "main:app"]
        with subprocess.Popen(
            [
                *("systemd-socket-activate", f"--listen=127.0.0.1:{port}"),
                *("--fdname=web", *command, "--bind=systemd:web"),
            ],
            cwd=site,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            server = Program(process)
            server.wait_for("Listening on")
            assert curl(f"http://127.0.0.1:{port}/") == "2 http"
            assert server.wait_for(URL)[3] == str(port)
            assert server.stop() == 0


# ---- Notifications ----


@contextlib.contextmanager
def manager(tmp_path):
    """The socket of notifications, and the variables that name it."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(DEADLINE)

        def read():
            lines = sock.recv(4096).decode().split("\n")
            return dict(line.split("=", 1) for line in lines)

        yield read, {"NOTIFY_SOCKET": str(path)}


def test_systemd_is_notified_from_the_start_to_the_end(site):
    with manager(site) as (read, environ), listening() as sock:
        environ["WATCHDOG_USEC"] = "200000"
        with service(site, sockets=[sock], environ=environ) as server:
            message = read()
            assert message["READY"] == "1"
            assert message["MAINPID"] == str(server.process.pid)
            # READY is true: the program answers.
            port = sock.getsockname()[1]
            assert curl(f"http://127.0.0.1:{port}/") == "2 http"
            for _ in range(3):
                assert read() == {"WATCHDOG": "1"}
            server.process.send_signal(signal.SIGTERM)
            while "STOPPING" not in (message := read()):
                assert message == {"WATCHDOG": "1"}
            assert server.end() == 0


def test_the_supervisor_of_workers_notifies_systemd_and_they_do_not(site):
    with manager(site) as (read, environ), listening() as sock:
        environ["WATCHDOG_USEC"] = "200000"
        with service(site, "--workers=2", sockets=[sock], environ=environ) as server:
            message = read()
            assert message["READY"] == "1"
            assert message["STATUS"] == "serving with 2 workers"
            assert message["MAINPID"] == str(server.process.pid)
            assert read() == {"WATCHDOG": "1"}
            server.process.send_signal(signal.SIGHUP)
            states = []
            while states[-2:] != ["RELOADING", "READY"]:
                states += [name for name in read() if name in ("RELOADING", "READY")]
            server.process.send_signal(signal.SIGTERM)
            while "STOPPING" not in (message := read()):
                assert message == {"WATCHDOG": "1"}
            assert server.end() == 0


def test_a_watchdog_for_another_process_is_not_notified(site):
    with manager(site) as (read, environ), listening() as sock:
        environ |= {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        with service(site, sockets=[sock], environ=environ) as server:
            assert read()["READY"] == "1"
            assert server.stop() == 0
            assert read()["STOPPING"] == "1"
