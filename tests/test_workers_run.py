"""``nghttp2py run --workers``: the supervisor's signals, restarts and ends."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from loops import DEADLINE
from peers import authority, certificate, free_port, wait_for_port
from prometheus_client.parser import text_string_to_metric_families
from test_cli_run import EXAMPLES, URL, curl, program

from nghttp2py.asyncio import Client
from nghttp2py.quic import QuicConfiguration

MODULE = """
import asyncio, os, sys, threading

note = lambda *words: print(*words, file=sys.stderr, flush=True)

def read():
    with open("go") as file:
        file.read()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/block":
        threading.Event().wait()
    if path == "/hang":
        note("hanging")
        await asyncio.Event().wait()
    if path == "/wait":
        note("waiting")
        await asyncio.get_running_loop().run_in_executor(None, read)
    body = str(os.getpid()).encode()
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "main.py").write_text(MODULE)
    os.mkfifo(tmp_path / "go")
    return tmp_path


def run(site, *arguments, app="main:app"):
    return program(site, app, "--port=0", "--workers=2", *arguments)


def started(server):
    """Wait until all workers are ready; return the URL."""
    url = server.wait_for(URL)
    server.wait_for("workers? (are|is) ready")
    return f"{url[1]}://{url[2]}:{url[3]}/"


def wait_until(condition):
    """Ask again and again; each question is a request."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end


def find(ask, count):
    """The processes that answer to ``ask``, of which there are ``count``."""
    found = set()
    wait_until(lambda: found.add(ask()) or len(found) == count)
    return found


def pids(url, count):
    """The processes that answer, of which there are ``count``."""
    return find(lambda: ask(url), count)


def ask(url):
    """The process that answers on a new connection."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return int(answer.read())


def find_spare(server, others):
    """Wait for a process beside ``others``, and return its number."""
    found = set()

    def look():
        found.update(server.children - others)
        return found

    wait_until(look)
    (spare,) = found
    return spare


def test_workers_serve_until_a_signal_and_each_ends_its_lifespan(site):
    with run(site) as server:
        assert len(pids(started(server), 2)) == 2
        assert server.stop() == 0
    assert server.log.count("the application has stopped") == 2
    assert "ERROR" not in server.log and "Traceback" not in server.log


def test_a_worker_that_is_killed_is_back_and_the_others_serve_on(site):
    with run(site) as server:
        url = started(server)
        first = pids(url, 2)
        spare = find_spare(server, first)
        os.kill(min(first), signal.SIGKILL)
        server.wait_for(r"worker \d \(process \d+\) has ended by SIGKILL")
        wait_until(lambda: len(pids(url, 2) - first) == 1)
        assert spare in pids(url, 2)
        assert server.stop() == 0


def test_a_spare_process_that_ends_is_made_again_and_not_used(site):
    with run(site) as server:
        url = started(server)
        first = pids(url, 2)
        spare = find_spare(server, first)
        os.kill(spare, signal.SIGKILL)
        # That is before a worker ends.
        another = find_spare(server, {*first, spare})
        os.kill(min(first), signal.SIGKILL)
        wait_until(lambda: len(pids(url, 2) - first) == 1)
        assert another in pids(url, 2)
        assert server.stop() == 0
    assert "ERROR" in server.log and "Traceback" not in server.log


def test_a_hangup_replaces_each_worker_and_requests_go_on(site):
    with run(site) as server:
        url = started(server)
        first = pids(url, 2)
        with subprocess.Popen(
            ["curl", "-sS", url + "wait"], stdout=subprocess.PIPE, text=True
        ) as client:
            server.wait_for("waiting$")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("the workers are replaced")
            # The old ones still answer what waits in their queues.
            wait_until(lambda: not pids(url, 2) & first)
            (site / "go").write_text("")
            assert int(client.communicate(timeout=DEADLINE)[0]) in first
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("main:failing", "the application has failed to start: no database"),
        ("main:missing", "module 'main' has no attribute 'missing'"),
    ],
)
def test_a_start_that_fails_is_logged_once_and_the_exit_code_is_3(site, app, reason):
    with run(site, app=app) as server:
        assert server.end() == 3
    assert len(re.findall(f"ERROR: .*{reason}", server.log)) == 1, server.log


def test_a_worker_whose_loop_is_blocked_is_killed_and_shows_where(site):
    with run(site, "--timeout-worker-healthcheck=0.3") as server:
        url = started(server)
        with subprocess.Popen(
            ["curl", "-s", url + "block"], stdout=subprocess.DEVNULL
        ) as client:
            server.wait_for("has not been heard of for 0.3 seconds")
            server.wait_for(r'main.py", line \d+ in app')
            server.wait_for("has ended by SIGABRT")
            assert client.wait(DEADLINE) != 0
        pids(url, 2)
        assert server.stop() == 0


def test_workers_whose_supervisor_is_killed_end_their_requests_and_end(site):
    with run(site) as server:
        url = started(server)
        with subprocess.Popen(
            ["curl", "-sS", url + "wait"], stdout=subprocess.PIPE, text=True
        ) as client:
            server.wait_for("waiting$")
            server.process.kill()
            server.wait_for("the supervisor has ended: worker . stops")
            (site / "go").write_text("")
            assert client.communicate(timeout=DEADLINE)[0]
        # The end of the log, which the workers have open.
        assert server.end() == -signal.SIGKILL


def test_workers_are_added_and_taken_down_to_one(site):
    with run(site) as server:
        url = started(server)
        server.process.send_signal(signal.SIGTTIN)
        server.wait_for("adding worker 2: there are 3")
        pids(url, 3)
        for left in 2, 1:
            server.process.send_signal(signal.SIGTTOU)
            server.wait_for(f"taking worker {left}: there are {left}")
        server.process.send_signal(signal.SIGTTOU)
        server.wait_for("there is one worker, which is not taken")
        assert server.stop() == 0


def test_ctrl_c_in_a_terminal_lets_requests_end(site):
    """It goes to each process of the group at once."""
    with program(
        site, "main:app", "--port=0", "--workers=2", start_new_session=True
    ) as server:
        url = started(server)
        with subprocess.Popen(
            ["curl", "-sS", url + "wait"], stdout=subprocess.PIPE, text=True
        ) as client:
            server.wait_for("waiting$")
            os.killpg(server.process.pid, signal.SIGINT)
            server.wait_for("stopping 2 workers")
            (site / "go").write_text("")
            assert client.communicate(timeout=DEADLINE)[0]
        assert server.end() == 0


def test_a_worker_is_replaced_after_its_requests_and_none_is_lost(site):
    limits = ["--limit-max-requests=20", "--limit-max-requests-jitter=5"]
    with run(site, *limits) as server:
        url = started(server)
        first = pids(url, 2)
        done = subprocess.run(
            ["h2load", "--h1", "-n200", "-c4", url], capture_output=True, text=True
        )
        assert "200 succeeded, 0 failed" in done.stdout
        server.wait_for("limit_max_requests is reached: 2[0-5] have begun")
        server.wait_for(r"worker . \(process \d+\) is ready")
        wait_until(lambda: ask(url) not in first)
        assert server.stop() == 0
    assert "ERROR" not in server.log


def test_a_single_process_ends_after_its_requests(site):
    with program(site, "main:app", "--port=0", "--limit-max-requests=3") as server:
        url = server.wait_for(URL)
        for _ in range(3):
            assert curl(f"http://{url[2]}:{url[3]}/")
        assert server.end() == 0


def test_a_second_ctrl_c_cancels_requests(site):
    with run(site) as server:
        url = started(server)
        with subprocess.Popen(["curl", "-s", url + "hang"]) as client:
            server.wait_for("hanging$")
            server.process.send_signal(signal.SIGINT)
            server.wait_for("waiting up to 30 seconds for 1 requests")
            assert server.stop(signal.SIGINT) == 0
            assert client.wait(DEADLINE) != 0
    assert "cancelling 1 requests" in server.log


@pytest.fixture
def secure(site):
    """Options for TLS, and those of a client that trusts the certificate."""
    certificate().private_key_pem.write_to_path(site / "key.pem")
    chain = b"".join(pem.bytes() for pem in certificate().cert_chain_pems)
    (site / "cert.pem").write_bytes(chain)
    authority().cert_pem.write_to_path(site / "ca.pem")
    return ["--ssl-certfile=cert.pem", "--ssl-keyfile=key.pem"]


def test_http3_is_served_by_all_workers_and_by_those_that_replace_them(site, secure):
    """And by one that is added, until it is taken."""

    async def ask(url):
        quic = QuicConfiguration(is_client=True)
        quic.load_verify_locations(str(site / "ca.pem"))
        async with Client(url, http3="only", quic=quic) as client:
            answer = await client.get("/")
            return int(await answer.read())

    with run(site, *secure) as server:
        url = started(server)

        def find_all(count=2):
            return find(lambda: asyncio.run(ask(url)), count)

        first = find_all()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the workers are replaced")
        second = find_all()
        assert not second & first
        server.process.send_signal(signal.SIGTTIN)
        added = server.wait_for(r"worker 2 \(process (\d+)\) is ready")
        assert int(added[1]) in find_all(3)
        server.process.send_signal(signal.SIGTTOU)
        server.wait_for("taking worker 2: there are 2")
        server.wait_for(rf"worker 2 \(process {added[1]}\) has ended")
        assert find_all() == second
        assert server.stop() == 0
    assert "WARNING" not in server.log and "ERROR" not in server.log


def ask_at(path):
    """The process that answers at a Unix socket."""
    return int(curl("http://a/", "--unix-socket", str(path)))


def test_workers_share_a_unix_socket_and_wsgi_runs_in_each(site):
    path = site / "socket"
    options = ["--workers=2", f"--bind=unix:{path}", "--interface=wsgi"]
    with program(site, "main:wsgi", *options) as server:
        server.wait_for("workers are ready")
        first = find(lambda: ask_at(path), 2)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the workers are replaced")
        wait_until(lambda: not find(lambda: ask_at(path), 2) & first)
        assert server.stop() == 0
    assert not path.exists()


def files(pid):
    """The files that a process has open."""
    return {each.resolve() for each in Path(f"/proc/{pid}/fd").iterdir()}


def test_workers_share_a_descriptor_and_reopen_their_logs(site):
    """SIGUSR1 comes after the file was moved, as logrotate does."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "log"}},
        "loggers": {
            "nghttp2py.access": {"handlers": ["file"], "level": "INFO"},
        },
    }
    (site / "log.json").write_text(json.dumps(config))
    log, moved = site / "log", site / "moved"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        fd = sock.fileno()
        options = ["--workers=2", f"--bind=fd://{fd}", "--log-config=log.json"]
        with program(site, "main:app", *options, pass_fds=[fd]) as server:
            workers = pids(url, 2)
            wait_until(lambda: all(log in files(pid) for pid in workers))
            log.rename(moved)
            server.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: not any(moved in files(pid) for pid in workers))
            assert pids(url, 2) == workers
            wait_until(lambda: all(log in files(pid) for pid in workers))
            assert "GET" in moved.read_text() and "GET" in log.read_text()
            assert server.stop() == 0


def test_each_worker_has_its_own_queue_with_reuse_port(site):
    """So a worker that is blocked keeps connections waiting, for its replacement."""
    with run(site, "--reuse-port", "--no-access-log") as server:
        url = started(server)
        first = pids(url, 2)
        os.kill(min(first), signal.SIGSTOP)
        # The kernel chooses by the client's port.
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(
                    subprocess.Popen(
                        ["curl", "-sS", url], stdout=subprocess.PIPE, text=True
                    )
                )
                for _ in range(8)
            ]
            os.kill(min(first), signal.SIGKILL)
            answers = {client.communicate(timeout=DEADLINE)[0] for client in clients}
        assert "" not in answers
        pids(url, 2)
        assert server.stop() == 0


def test_the_example_greets_from_several_workers():
    port = free_port()
    with subprocess.Popen([sys.executable, "workers.py", str(port)], cwd=EXAMPLES) as p:
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for_port(port, p)
            assert re.fullmatch(r"Hello from worker \d\n", curl(url))
        finally:
            p.terminate()
        assert p.wait(DEADLINE) == 0


def read_metrics(url):
    with urllib.request.urlopen(url + "/metrics", timeout=DEADLINE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


def test_each_worker_has_the_metrics_of_all_and_of_those_that_have_ended(site):
    answered = "nghttp2py_requests_total", "1.1", "200", "GET"
    accepted = "nghttp2py_connections_total", "tcp"
    with run(site, "--metrics-port=0") as server:
        url = server.wait_for(URL)
        url = f"{url[1]}://{url[2]}:{url[3]}/"
        metrics = server.wait_for(r"metrics are at (\S+)/metrics")[1]
        server.wait_for("workers? (are|is) ready")
        asked = 0

        def ask_and_count():
            nonlocal asked
            asked += 1
            return ask(url)

        first = set()
        wait_until(lambda: first.add(ask_and_count()) or len(first) == 2)
        wait_until(lambda: read_metrics(metrics).get(answered) == asked)
        wait_until(lambda: read_metrics(metrics).get(accepted) == asked)
        os.kill(min(first), signal.SIGKILL)
        found = set(first)
        wait_until(lambda: found.add(ask_and_count()) or len(found) == 3)
        wait_until(lambda: read_metrics(metrics).get(answered) == asked)
        opened = "nghttp2py_connections_open", "tcp"
        wait_until(lambda: read_metrics(metrics)[opened] == 0)
        assert server.stop() == 0
    assert "Traceback" not in server.log
