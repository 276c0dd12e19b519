"""``nghttp2py run --reload``, with files that are changed and curl as its client."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from loops import DEADLINE
from peers import free_port
from test_cli_run import URL, curl, program

MODULE = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/forever":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"version ONE"})
"""
CHANGED = "main.py has changed"


@pytest.fixture
def site(tmp_path):
    (tmp_path / "main.py").write_text(MODULE)
    return tmp_path


@pytest.fixture(params=["watchfiles", "times"])
def by(request, site):
    """The environment for each way to watch files."""
    if request.param == "times":
        (site / "hidden").mkdir()
        (site / "hidden" / "watchfiles.py").write_text("raise ImportError\n")
        return {"PYTHONPATH": str(site / "hidden")}
    return {}


def reloading(site, *arguments, **environ):
    arguments = ("main:app", "--port=0", "--reload", "--reload-delay=0.05", *arguments)
    return program(site, *arguments, env=os.environ | environ)


def save(server, site, text):
    """Write the module at once, and wait until the server has no old code."""
    path = site / "main.py.new"
    path.write_text(text)
    path.replace(site / "main.py")
    server.wait_for(CHANGED)
    # It answers requests until it hears of the change.
    server.wait_for(r"worker 0 \(process \d+\) has ended")


def change(server, site, before, after):
    """Change the module, and wait until the server has no old code."""
    text = (site / "main.py").read_text()
    assert before in text
    save(server, site, text.replace(before, after))


def status_of(url):
    answer = curl(url, "--write-out", "\n%{http_code}", "--http1.1")
    body, _, status = answer.rpartition("\n")
    return int(status), body


def test_the_next_request_is_answered_by_the_new_code(site, by):
    with reloading(site, **by) as server:
        server.wait_for("the times of files in ." if by else "files in . by watchfiles")
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        assert curl(url) == "version ONE"
        for before, after in ("ONE", "TWO"), ("TWO", "SIX"), ("SIX", "TEN"):
            change(server, site, before, after)
            # It waits: no connection is refused, and none is reset.
            assert curl(url) == f"version {after}"
        assert server.stop() == 0
    # A process that has not got the processor for seconds is killed, which is logged.
    assert "Traceback" not in server.log


def test_an_error_of_the_code_is_shown_until_a_save_mends_it(site):
    with reloading(site) as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        change(server, site, "import asyncio\n", "import asyncio\n1 / 0\n")
        status, body = status_of(url)
        assert status == 500
        lines = body.splitlines()
        assert lines[0] == (
            "module 'main' cannot be imported: ZeroDivisionError: division by zero"
        )
        assert lines[2] == "Traceback (most recent call last):"
        assert re.fullmatch(r'  File ".*main.py", line 3, in <module>', lines[3])
        change(server, site, "1 / 0\n", "def broken(:\n")
        status, body = status_of(url)
        assert status == 500 and "SyntaxError: invalid syntax" in body
        # It may end Python, too.
        change(server, site, "def broken(:\n", "import os; os._exit(7)\n")
        status, body = status_of(url)
        assert status == 500
        assert body == "the application has ended with the exit code 7 at its start\n"
        change(server, site, "import os; os._exit(7)\n", "")
        assert status_of(url) == (200, "version ONE")
        assert server.stop() == 0
    assert server.log.count("ZeroDivisionError") == 2  # in the traceback, and the line


def test_an_error_at_the_first_start_is_shown_too(site):
    (site / "main.py").write_text("import nothing_of_this_name\n")
    with reloading(site) as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        status, body = status_of(url)
        assert status == 500 and "No module named 'nothing_of_this_name'" in body
        save(server, site, MODULE)
        assert status_of(url) == (200, "version ONE")
        failing = MODULE.replace("await receive()", "raise OSError('no database')", 1)
        save(server, site, failing)
        # An application whose lifespan raises is served without it, as it was before.
        assert status_of(url) == (200, "version ONE")
        failing = MODULE.replace(
            '{"type": "lifespan.startup.complete"}',
            '{"type": "lifespan.startup.failed", "message": "no database"}',
        )
        save(server, site, failing)
        status, body = status_of(url)
        assert (status, body) == (
            500,
            "the application has failed to start: no database\n",
        )
        assert server.stop() == 0


def test_a_request_that_comes_before_the_first_import_waits_for_it(site):
    """The sockets listen first, so no connection is refused."""
    os.mkfifo(site / "go")
    waiting = "print('importing', flush=True, file=__import__('sys').stderr)\n"
    (site / "main.py").write_text(waiting + "open('go').close()\n" + MODULE)
    port = free_port()
    with reloading(site, f"--port={port}") as server:
        server.wait_for("importing")
        with (
            subprocess.Popen(
                ["curl", "--silent", "--show-error", f"http://127.0.0.1:{port}/"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as client,
            socket.create_connection(("127.0.0.1", port), DEADLINE),
        ):
            (site / "go").write_text("")
            assert client.communicate(timeout=DEADLINE)[0] == b"version ONE"
        assert server.stop() == 0


def test_a_request_that_does_not_end_keeps_no_new_code_back(site):
    with reloading(site) as server:
        url = "http://{}:{}/".format(*server.wait_for(URL).group(2, 3))
        with subprocess.Popen(
            ["curl", "--silent", "--no-buffer", url + "forever"],
            stdout=subprocess.PIPE,
        ) as client:
            assert client.stdout.read(5) == b"begun"
            begun = time.monotonic()
            change(server, site, "ONE", "TWO")
            assert curl(url) == "version TWO"
            assert time.monotonic() - begun < DEADLINE
        assert server.stop(signal.SIGINT) == 0


def test_http3_and_tls_reload_too(site, paths, certificates):
    tls = ["--ssl-certfile", paths[0], "--ssl-keyfile", paths[1]]
    with reloading(site, *tls) as server:
        _, host, port, protocols = server.wait_for(URL).groups()
        assert "HTTP/3" in protocols
        url = f"https://{host}:{port}/"
        get = [sys.executable, "-m", "nghttp2py", "get", "--http3-only"]
        get += ["--cacert", certificates[3], url]
        for number in "ONE", "TWO":
            if number == "TWO":
                change(server, site, "ONE", "TWO")
            done = subprocess.run(get, capture_output=True, timeout=DEADLINE)
            assert done.stdout == b"version %s" % number.encode(), done.stderr
        assert server.stop() == 0


def test_other_files_are_watched_if_a_pattern_says_so(site):
    (site / "page.html").write_text("")
    (site / "pages").mkdir()
    with reloading(site, "--reload-include=*.html", "--reload-exclude=pages") as server:
        server.wait_for(URL)
        (site / "pages" / "page.html").write_text("a")
        (site / "notes.txt").write_text("a")
        (site / "page.html").write_text("a")
        server.wait_for("page.html has changed")
        assert server.stop() == 0
    assert "pages" not in server.log and "notes" not in server.log


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--workers=2"], "give --reload or --workers"),
        (["--reload-dir=nowhere"], "there is no directory 'nowhere' to watch"),
    ],
)
def test_what_cannot_be_reloaded_is_one_line(site, arguments, why):
    with reloading(site, *arguments) as server:
        assert server.end() in (1, 2)
    assert why in server.lines[-1]
