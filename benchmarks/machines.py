"""Two servers on two machines behind HAProxy: one is drained, killed, or cut off.

    python benchmarks/machines.py [REQUESTS]

Each machine is a network namespace, so root runs this, with HAProxy, h2load, openssl
and iproute2.  HAProxy has the configuration of examples/deploy/.  h2load sends so many
requests, 20,000 by default, four times: undisturbed, and while one server

* is drained in HAProxy and stopped by SIGTERM: no request may fail;
* is killed: only requests that it was answering may fail;
* loses its network: requests that it has fail when HAProxy has noticed that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "build" / "peers"
HAPROXY = shutil.which("haproxy") or PEERS / "usr" / "sbin" / "haproxy"
ADDRESSES = {"a": "10.0.0.11", "b": "10.0.0.12"}
PROXY = "10.0.0.1"
CLIENTS, STREAMS = 8, 10
REQUESTS = 20_000
# Seconds for what should take a moment.
DEADLINE = 60


def run(*command: object) -> None:
    """Run a program, which must succeed."""
    subprocess.run([*map(str, command)], check=True, timeout=DEADLINE)


class Machine:
    """A network namespace with a link to this one, and a server in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ADDRESSES[name]
        serve = (
            f"{sys.executable} -m nghttp2py run asgi_hello:app --no-access-log"
            f" --bind {self.address}:8000 --health-check-path /healthz"
            f" --proxy-protocol v2 --proxy-allow-from {PROXY} --log-level warning"
        )
        # It waits for its link.
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", f"read line; exec {serve}"],
            cwd=ROOT / "examples",
            stdin=subprocess.PIPE,
        )
        own = os.stat("/proc/self/ns/net").st_ino
        space = f"/proc/{self.process.pid}/ns/net"
        wait_until(lambda: os.stat(space).st_ino != own)
        link = f"to-{name}"
        peer = ["peer", "name", "eth0", "netns", self.process.pid]
        run("ip", "link", "add", link, "type", "veth", *peer)
        self.connect(["ip"], link, PROXY, self.address)
        inside = ["nsenter", f"--net={space}", "ip"]
        self.connect(inside, "eth0", self.address, PROXY)
        assert self.process.stdin is not None
        self.process.stdin.close()  # it begins to serve

    @staticmethod
    def connect(ip: list[str], link: str, own: str, other: str) -> None:
        """Give one end of a link its address, and the way to the other."""
        run(*ip, "address", "add", f"{own}/32", "dev", link)
        run(*ip, "link", "set", link, "up")
        run(*ip, "route", "add", f"{other}/32", "dev", link, "src", own)

    def stop(self) -> None:
        """Stop the server by SIGTERM; wait until it has ended."""
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0

    def kill(self) -> None:
        """End the server at once."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def cut(self) -> None:
        """Take its network away."""
        run("ip", "link", "set", f"to-{self.name}", "down")


class Proxy:
    """HAProxy, and its command socket."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "admin.sock"
        subject = ["-subj", "/CN=localhost", "-keyout", directory / "key"]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
        subprocess.run(
            [*map(str, make), "-out", str(directory / "cert")],
            check=True,
            capture_output=True,
        )
        (directory / "site.pem").write_bytes(
            (directory / "cert").read_bytes() + (directory / "key").read_bytes()
        )
        text = (ROOT / "examples" / "deploy" / "haproxy.cfg").read_text()
        for place in "/etc/haproxy", "/run/haproxy":
            text = text.replace(place, str(directory))
        (directory / "haproxy.cfg").write_text(text)
        libraries = ":".join(map(str, (PEERS / "usr" / "lib").glob("*-linux-gnu")))
        self.process = subprocess.Popen(
            [HAPROXY, "-db", "-f", directory / "haproxy.cfg"],
            env=os.environ | {"LD_LIBRARY_PATH": libraries},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: self.socket.exists())

    def command(self, text: str) -> str:
        """Give it a command; return the answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.socket))
            sock.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def wait_for(self, *names: str) -> None:
        """Wait until these servers, and no others, are up."""

        def are_up() -> bool:
            lines = [line.split(",") for line in self.command("show stat").splitlines()]
            up = {each[1] for each in lines if each[0] == "site" and each[17] == "UP"}
            return up & {"a", "b"} == set(names)

        wait_until(are_up)


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again until a condition is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {DEADLINE} seconds")
        time.sleep(0.02)


def load(what: str, requests: int, during: Callable[[], object]) -> None:
    """Send requests, do something meanwhile, and print what became of them."""
    command = ["h2load", f"-n{requests}", f"-c{CLIENTS}", f"-m{STREAMS}"]
    with subprocess.Popen(
        [*command, "https://127.0.0.1/"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "progress: 10%" in line:
                break
        during()
        output = process.stdout.read()
    found = re.search(r" (\d+) succeeded, (\d+) failed", output)
    longest = re.search(r"time for request: +\S+ +(\S+)", output)
    assert found is not None and longest is not None
    print(f"{what}: {found[1]} succeeded, {found[2]} failed, longest {longest[1]}")


def main(requests: int) -> None:
    """Run the four loads."""
    run("ip", "link", "set", "lo", "up")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(name: str) -> Machine:
            machine = Machine(name)
            stack.callback(machine.kill)
            return machine

        a, b = start("a"), start("b")
        proxy = Proxy(directory)
        stack.callback(proxy.process.kill)
        proxy.wait_for("a", "b")
        load("undisturbed", requests, lambda: None)

        def drain() -> None:
            proxy.command("set server site/a state drain")
            a.stop()

        load("one drained and stopped", requests, drain)
        a = start("a")
        proxy.command("set server site/a state ready")
        proxy.wait_for("a", "b")
        load(f"one killed ({CLIENTS * STREAMS} at once)", requests, b.kill)
        b = start("b")
        proxy.wait_for("a", "b")
        load(f"one cut off ({CLIENTS * STREAMS} at once)", requests, b.cut)


if __name__ == "__main__":
    if os.environ.get("MACHINES_INSIDE"):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS)
    else:
        os.environ["MACHINES_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
