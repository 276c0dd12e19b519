"""Workers behind Debian's HAProxy, by the commands of their page."""

import re
import subprocess

from peers import free_port, wait_until
from proxies import haproxy
from recipes import EXAMPLES, Page


class Behind(Page):
    """The page, with the directory and the ports of this test."""

    def __init__(self, directory):
        super().__init__("cookbook/haproxy", directory)
        self.clear = free_port()

    def moved(self, command):
        command = re.sub("/(etc|run)/(haproxy|site)", str(self.directory), command)
        return command.replace("https://localhost/", f"https://localhost:{self.port}/")

    def configuration(self):
        """The file of the page; a busy machine has more time for health checks."""
        text = self.moved((EXAMPLES / "deploy" / "haproxy-workers.cfg").read_text())
        for before, after in (
            ("bind :443", f"bind 127.0.0.1:{self.port}"),
            ("bind :80", f"bind 127.0.0.1:{self.clear}"),
            ("timeout check 2s", "timeout check 20s"),
            ("timeout connect 2s", "timeout connect 20s"),
        ):
            assert before in text
            text = text.replace(before, after)
        return text


def test_workers_are_replaced_without_a_failure(tmp_path):
    page = Behind(tmp_path)
    for command in "python -c", "mkdir", "cat":
        page.run(command)
    with (
        page.serving("nghttp2py run", ready="2 workers are ready") as server,
        haproxy(tmp_path, page.configuration(), page.port),
    ):
        page.run("curl")
        server.wait_for(r"127\.0\.0\.1 - - .* \"GET / HTTP/2\" 200")
        moved = subprocess.run(
            ["curl", "-sSi", f"http://localhost:{page.clear}/a?b"],
            capture_output=True,
            text=True,
        ).stdout
        assert moved.startswith("HTTP/1.1 308 ")
        assert re.search(r"location: https://localhost:\d+/a\?b", moved)
        before = server.children
        with subprocess.Popen(
            ["h2load", "-n6000", "-c4", "-m10", f"https://localhost:{page.port}/"],
            stdout=subprocess.PIPE,
            text=True,
        ) as load:
            for line in load.stdout:
                if "progress: 10%" in line:
                    break
            page.run("kill")
            shown = load.stdout.read()
        assert "6000 succeeded, 0 failed" in shown and "6000 2xx" in shown
        wait_until(lambda: not server.children & before)
        page.run("curl")
