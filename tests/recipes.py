"""Pages of recipes, whose commands are run as they stand there, but for ports."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from loops import DEADLINE, TEST_DEADLINE
from peers import children_of, free_port, wait_for_port, wait_until

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

# The ports of the pages, one of which each page has; the other may be taken here.
PORTS = re.compile(r"\b(8000|8080|8443)\b")


class Page:
    """A page, and the directory in which its commands run."""

    def __init__(self, name, directory):
        text = (ROOT / "docs" / f"{name}.rst").read_text()
        self.directory = directory
        self.port = free_port()
        if name.startswith("cookbook/"):
            (directory / "examples").symlink_to(EXAMPLES)
        #: Each command, and what it prints.
        self.sessions = []
        for block in re.findall(r"\.\. code-block:: console\n\n((?: +.*\n|\n)+)", text):
            lines = re.sub(r" *\\\n *", " ", block)
            for command, output in re.findall(
                r"^ +\$ (.*)\n((?: +[^ $].*\n)*)", lines, re.M
            ):
                shown = [line.strip() for line in output.splitlines()]
                self.sessions.append((command, "".join(f"{s}\n" for s in shown)))

    def find(self, beginning):
        """Return the command, or the one that begins so, with what it prints."""
        found = [each for each in self.sessions if each[0].startswith(beginning)]
        (found,) = [each for each in found if each[0] == beginning] or found
        return found

    def moved(self, command):
        """Return a command with the port of this machine."""
        return PORTS.sub(str(self.port), command)

    @property
    def environment(self):
        """Where the commands of the page are found."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return os.environ | {"PATH": path}

    @contextlib.contextmanager
    def serving(self, beginning, more="", *, port=None, ready=None):
        """Run a server of the page, which must end well, in the block.

        It begins when the server has printed ``ready``, or else listens on the port.
        """
        command = self.moved(f"exec {self.find(beginning)[0]} {more}")
        log = self.directory / "server.log"
        with (
            log.open("w") as file,
            subprocess.Popen(
                ["sh", "-c", command],
                cwd=self.directory,
                env=self.environment,
                stdout=file,
                stderr=file,
            ) as process,
        ):
            server = Server(process, log)
            try:
                if ready is None:
                    wait_for_port(port or self.port, process)
                else:
                    server.wait_for(ready)
                yield server
                server.stop()
                assert process.wait(DEADLINE) == 0, log.read_text()
            finally:
                process.kill()

    def run(self, beginning):
        """Run a command of the page; it must print what the page shows."""
        command, expected = self.find(beginning)
        done = subprocess.run(
            ["sh", "-c", self.moved(command)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TEST_DEADLINE,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if expected:
            assert done.stdout.rstrip() == expected.rstrip()
        return done.stdout

    def run_each(self, beginning):
        """Run the commands that begin so, in their order."""
        for command, _ in self.sessions:
            if command.startswith(beginning):
                self.run(command)

    @contextlib.contextmanager
    def reading(self, beginning):
        """Run a command of the page without an end; give its output."""
        command = self.moved(f"exec {self.find(beginning)[0]}")
        with subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


class Server:
    """A server that runs, and what it prints."""

    def __init__(self, process, log):
        self.process = process
        self.log = log
        self._stops = False

    @property
    def children(self):
        """The processes that it has started."""
        return children_of(self.process)

    def stop(self):
        """Begin its end.  A second call is a no-op, as a second signal is not."""
        if not self._stops:
            self._stops = True
            self.process.terminate()

    def wait_for(self, pattern):
        """Wait until it has printed what matches."""

        def printed():
            log = self.log.read_text()
            assert self.process.poll() is None, log
            return re.search(pattern, log)

        wait_until(printed)
