"""``nghttp2py run`` that becomes another user's process, once it has its port."""

import os
import pwd
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from loops import DEADLINE
from peers import nghttp2py, one_line
from test_cli_run import URL, Program, curl, program

ISOLATED = Path(__file__).parent / "isolated.py"
NOBODY = pwd.getpwnam("nobody")

MODULE = """
import os, sys

imported_by = os.getuid()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    mask = os.umask(0)
    os.umask(mask)
    try:
        os.setuid(0)
        again = "root again"
    except PermissionError:
        again = "for good"
    ids = *os.getresuid(), *os.getresgid(), *os.getgroups()
    body = f"{imported_by} {ids} {mask:o} {again}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def site():
    """A directory that every user may read."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        (path / "main.py").write_text(MODULE)
        yield path


def test_an_unknown_user_is_one_line(site):
    done = nghttp2py("run", "main:app", "--user=nobody-here", cwd=site)
    assert done.returncode == 2
    assert b"there is no user 'nobody-here'" in done.stderr


def test_the_umask_is_set_and_the_pid_file_is_there_while_it_runs(site):
    pid = site / "pid"
    with program(site, "main:app", "--port=0", "-m", "027", f"--pid={pid}") as server:
        port = server.wait_for(URL)[3]
        assert pid.read_text() == f"{server.process.pid}\n"
        assert " 27 " in curl(f"http://127.0.0.1:{port}/")
        line = one_line(nghttp2py("run", "main:app", f"--pid={pid}", cwd=site))
        assert f"names process {server.process.pid}, which runs" in line
        assert server.stop() == 0
    assert not pid.exists()


def run_as(uid, site, *arguments):
    """Run the command to its end as a user without privileges."""
    return subprocess.run(
        [
            *("unshare", "--mount", "--net", sys.executable, ISOLATED, site),
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
            *(sys.executable, "-m", "nghttp2py", "run", "main:app", *arguments),
        ],
        cwd=site,
        capture_output=True,
        timeout=DEADLINE,
    )


if os.getuid():

    def test_only_root_may_become_another(site):
        line = one_line(nghttp2py("run", "main:app", "--user=root", cwd=site))
        assert "the process cannot become that of user root" in line

else:

    def test_only_root_may_become_another(site):
        done = run_as(NOBODY.pw_uid, site, "--user=root", "--port=0")
        assert done.returncode == 1
        line = done.stderr.decode().splitlines()[-1]
        assert "the process cannot become that of user root" in line

    @pytest.fixture
    def as_root(site, paths):
        """Run the command in a network of its own, with a key that only root reads."""
        cert, key = (Path(path).read_bytes() for path in paths)
        (site / "cert.pem").write_bytes(cert)
        (site / "key.pem").write_bytes(key)
        (site / "key.pem").chmod(0o600)
        started = []

        def start(*arguments):
            process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", sys.executable, ISOLATED, site),
                    *(sys.executable, "-m", "nghttp2py", "run", "main:app"),
                    *("--ssl-certfile=cert.pem", "--ssl-keyfile=key.pem"),
                    *arguments,
                ],
                cwd=site,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            return Program(process)

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def inside(server, *command):
        """Run a command in the network of the server."""
        return subprocess.run(
            ["nsenter", f"--net=/proc/{server.process.pid}/ns/net", *command],
            capture_output=True,
            check=True,
            timeout=DEADLINE,
        ).stdout.decode()

    def test_root_opens_port_443_and_its_key_and_leaves_for_good(
        as_root, site, certificates
    ):
        authority = certificates[3]
        server = as_root("-b", "127.0.0.1:443", "-u", "nobody", "--pid=pid")
        assert server.wait_for(URL).groups() == (
            *("https", "127.0.0.1", "443"),
            "HTTP/1.1, HTTP/2, HTTP/3",
        )
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        groups = os.getgrouplist("nobody", gid)
        wanted = f"{uid} {(*[uid] * 3, *[gid] * 3, *groups)} 22 for good"
        url = "https://127.0.0.1/"
        answer = inside(server, "curl", "-sS", "--http2", "--cacert", authority, url)
        assert answer == wanted
        get = [sys.executable, "-m", "nghttp2py", "get", "--http3-only", "--cacert"]
        assert inside(server, *get, authority, url) == wanted
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert set(re.findall(r"^Cap(?:Prm|Eff|Amb):\s*(\w+)", status, re.M)) == {
            "0" * 16
        }
        assert (site / "pid").read_text() == f"{server.process.pid}\n"
        assert server.stop() == 0
        # The directory is root's: the process may not remove the file any more.
        assert (site / "pid").read_text() == ""

    def test_a_user_without_a_name_has_one_group(as_root, site, certificates):
        server = as_root(
            *("-b", "127.0.0.1:443", "--user=54321", "--group=12345", "--umask=77"),
            f"--bind=unix:{site}/socket",
        )
        server.wait_for(URL)
        server.wait_for("listening on unix:")
        status = (site / "socket").stat()
        assert (status.st_uid, status.st_gid) == (54321, 12345)
        answer = inside(
            *(server, "curl", "-sS", "--cacert", certificates[3]),
            "https://127.0.0.1/",
        )
        assert answer == f"54321 {(*[54321] * 3, *[12345] * 4)} 77 for good"
        assert server.stop() == 0

    def test_workers_become_another_user_s_and_their_supervisor_stays(
        as_root, site, certificates
    ):
        server = as_root(
            "-b", "127.0.0.1:443", "-u", "nobody", "--workers=2", "--pid=pid"
        )
        assert server.wait_for(URL)[3] == "443"
        answer = inside(
            *(server, "curl", "-sS", "--cacert", certificates[3]),
            "https://127.0.0.1/",
        )
        assert answer.startswith(f"{NOBODY.pw_uid} ({NOBODY.pw_uid}, ")
        assert answer.endswith("for good")
        assert (site / "pid").read_text() == f"{server.process.pid}\n"
        assert server.stop() == 0
        assert not (site / "pid").exists()
