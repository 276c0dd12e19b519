"""sd_notify and sd_listen_fds: what is sent, and what is taken from the environment."""

import logging
import os
import socket
import time

import pytest

from nghttp2py.errors import ConfigurationError
from nghttp2py.workers import activation, notify


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request, tmp_path, monkeypatch):
    """Give the socket of a stand-in for systemd."""
    path = str(tmp_path / "notify")
    if request.param == "an abstract name":
        path = f"@nghttp2py-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path.replace("@", "\0"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def read(sock):
    return dict(line.split("=", 1) for line in sock.recv(4096).decode().split("\n"))


def test_each_state_is_one_message(manager):
    assert notify.ready("serving")
    assert read(manager) == {
        "READY": "1",
        "MAINPID": str(os.getpid()),
        "STATUS": "serving",
    }
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notify.reloading()
    message = read(manager)
    assert message.pop("RELOADING") == "1"
    assert before <= int(message.pop("MONOTONIC_USEC")) <= before + 60_000_000
    assert not message
    assert notify.stopping() and read(manager) == {"STOPPING": "1"}
    assert notify.stopping("two\nlines")
    assert read(manager)["STATUS"] == "two lines"
    assert notify.watchdog() and read(manager) == {"WATCHDOG": "1"}


def test_without_a_manager_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.ready()
    assert not notify.watchdog()
    assert notify.watchdog_interval({"WATCHDOG_USEC": "1000000"}) is None


@pytest.mark.parametrize("address", ["/nowhere/at/all", "vsock:2:1234"])
def test_a_manager_that_is_gone_is_a_line_of_the_log(address, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with caplog.at_level(logging.WARNING):
        assert not notify.ready()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "1"}, 0.05),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 400}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_notified_twice_in_its_time(variables, interval):
    environ = {"NOTIFY_SOCKET": "/run/systemd/notify", **variables}
    assert notify.watchdog_interval(environ) == interval


# ---- Sockets ----


class Passed:
    """Descriptors one after the other, as a process of systemd has them."""

    def __init__(self, *sockets, names="", pid=None):
        # Numbers that are free, and follow each other.
        self.first = 200
        for number, sock in enumerate(sockets):
            os.dup2(sock.fileno(), self.first + number)
            sock.close()
        self.numbers = range(self.first, self.first + len(sockets))
        self.environ = {
            "LISTEN_PID": str(os.getpid() if pid is None else pid),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
            "LISTEN_PIDFDID": "1",
            "HOME": "/",
        }

    def take(self):
        try:
            return activation.take_sockets(self.environ, first=self.first)
        finally:
            assert self.environ == {"HOME": "/"}

    def is_open(self, number):
        try:
            os.fstat(self.numbers[number])
        except OSError:
            return False
        return True


def listening(family=socket.AF_INET):
    sock = socket.socket(family)
    sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
    sock.listen()
    return sock


def datagrams():
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_sockets_are_taken_with_their_names_and_only_once():
    passed = Passed(listening(), datagrams(), listening(socket.AF_UNIX), names="a:b")
    found = passed.take()
    assert [each.name for each in found] == ["a", "b", ""]
    assert [(each.sock.family, each.sock.type) for each in found] == [
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
    ]
    for each in found:
        assert not each.sock.get_inheritable()
        assert each.sock.gettimeout() == 0
        each.sock.close()
    assert passed.take() == []


def test_sockets_of_another_process_are_left_alone():
    passed = Passed(listening(), pid=1)
    assert passed.take() == []
    assert passed.is_open(0)
    os.close(passed.first)


@pytest.mark.parametrize("value", ["", "many", "-1"])
def test_a_count_that_is_no_number_is_no_socket(value):
    passed = Passed()
    passed.environ["LISTEN_FDS"] = value
    assert passed.take() == []


def pipe():
    ours, theirs = os.pipe()
    os.close(theirs)
    return os.fdopen(ours, "rb")


def connection():
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (pipe, "is no socket"),
        (connection, "does not listen: the unit must have Accept=no"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "must be of Listen"),
        (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "has a family"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_stays_open(make, why):
    passed = Passed(listening(), make(), datagrams(), names="first:second:third")
    descriptor = passed.first + 1
    with pytest.raises(ConfigurationError, match=why) as error:
        passed.take()
    assert f"descriptor {descriptor} of systemd (second)" in str(error.value)
    assert not any(map(passed.is_open, range(3)))


def test_a_descriptor_that_is_not_open_is_refused():
    passed = Passed(listening())
    passed.environ["LISTEN_FDS"] = "2"
    with pytest.raises(ConfigurationError, match="Bad file descriptor"):
        passed.take()
    assert not passed.is_open(0)
