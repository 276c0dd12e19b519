"""Workers that misbehave, and storms of signals: the supervisor goes on."""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from loops import in_loop, in_virtual_time, pause, until
from peers import certificate
from test_cli_run import Program as Running

from nghttp2py.asgi import workers as asgi_workers
from nghttp2py.asgi.config import Config
from nghttp2py.asyncio.quic_group import QuicGroup
from nghttp2py.workers import supervisor as supervisor_module
from nghttp2py.workers.channel import Channel
from nghttp2py.workers.process import Limits, WorkerProcess
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.supervisor import Program, Slot, Supervisor

PROGRAMS = """
import asyncio, logging, os, signal, sys, threading
from nghttp2py.asyncio import Server
from nghttp2py.workers import run

logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")

async def hello(stream):
    await stream.send_response(200, {"content-length": "2"}, b"ok")

async def sound(worker):
    await worker.serve(Server(hello, sock=worker.sockets["web"]))

async def failing(worker):
    await worker.ready()
    raise RuntimeError("after it was ready")

async def hanging(worker):
    threading.Event().wait()

async def importing(worker):
    print("importing", file=sys.stderr, flush=True)
    threading.Event().wait()

async def deaf(worker):
    await worker.ready()
    await asyncio.Event().wait()

async def stopping_early(worker):
    worker.stop()  # as its SIGTERM does
    await deaf(worker)

async def ending(worker):
    os._exit(7)

def plain(worker):
    pass

if __name__ == "__main__":
    name, options = sys.argv[1], eval(sys.argv[2])
    run(f"programs:{name}", addresses={"web": ("127.0.0.1", 0)}, workers=2, **options)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "programs.py").write_text(PROGRAMS)

    @contextlib.contextmanager
    def start(name, **options):
        with subprocess.Popen(
            [sys.executable, "programs.py", name, repr(options)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Running(process)
            finally:
                if process.poll() is None:
                    process.kill()

    return start


def test_twenty_hangups_at_once_replace_the_workers_once_more_at_most(start):
    with start("sound") as server:
        server.wait_for("2 workers are ready")
        for _ in range(20):
            server.process.send_signal(signal.SIGHUP)
        server.wait_for("the workers are replaced")
        assert server.stop() == 0
    assert server.log.count("replacing 2 workers") <= 2


def test_a_worker_that_fails_again_and_again_is_started_after_pauses(start):
    with start("failing") as server:
        pauses = [
            float(server.wait_for(r"worker 0 is started again in ([\d.]+) seconds")[1])
            for _ in range(2)
        ]
        assert pauses == [0.5, 1.0]
        assert "RuntimeError: after it was ready" in server.log
        assert server.stop() == 0


def test_a_worker_that_does_not_get_ready_is_killed_and_shows_where(start):
    with start("hanging", startup_timeout=0.5) as server:
        server.wait_for("has not become ready within 0.5 seconds")
        assert server.end() == 3


def test_a_worker_that_does_not_stop_is_killed(start):
    with start("deaf", stop_timeout=0.3) as server:
        server.wait_for("2 workers are ready")
        assert server.stop() == 0
    assert server.log.count("has not ended within 0.3 seconds, and is killed") == 2


def test_a_worker_that_stops_before_it_is_ready_is_bounded_all_the_same(start):
    with start("stopping_early", stop_timeout=0.3) as server:
        server.wait_for("has not ended within 0.3 seconds")
        assert server.stop() == 0


def test_a_third_interrupt_kills_workers(start):
    with start("deaf") as server:
        server.wait_for("2 workers are ready")
        for text in "stopping 2 workers", None:
            server.process.send_signal(signal.SIGINT)
            if text:
                server.wait_for(text)
        assert server.stop(signal.SIGINT) == 0


def test_an_interrupt_during_the_import_ends_within_seconds(start):
    """The first one leaves the time of a startup; the second one is at once."""
    with start("importing") as server:
        server.wait_for("importing")
        server.process.send_signal(signal.SIGINT)
        server.wait_for("stopping 2 workers")
        assert server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("answers", [True, False])
@in_virtual_time
async def test_a_stop_waits_for_a_startup_and_not_for_an_import(answers):
    """A worker whose loop runs answers that it stops."""
    signals = []
    process = SimpleNamespace(
        pid=1, send_signal=signals.append, poll=lambda: -9 if signals else None
    )
    ours, theirs = socket.socketpair()
    with theirs:
        worker = WorkerProcess(
            SimpleNamespace(process=process, channel=ours),
            *(0, 0, {}, [], None, Limits(stop=60.0), lambda process: None),
        )
        begun = asyncio.get_running_loop().time()
        worker.stop()
        if answers:
            theirs.send(b'{"type":"stopping"}\n')
        await until(lambda: signals)
        took = asyncio.get_running_loop().time() - begun
        assert (signals[0], took) == (
            (signal.SIGABRT, 60.0) if answers else (signal.SIGKILL, 10.0)
        )
        assert worker.poll()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ending", "has ended with the exit code 7 at its start"),
        ("plain", "programs:plain must be a coroutine function of a Worker"),
    ],
)
def test_a_program_that_cannot_start_is_said_once(start, name, reason):
    with start(name) as server:
        assert server.end() == 3
    assert len(re.findall(re.escape(reason), server.log)) == 1, server.log


def test_a_worker_that_dies_while_it_is_replaced_is_replaced(start):
    with start("sound") as server:
        server.wait_for("2 workers are ready")
        workers = server.children
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("replacing 2 workers")
        for worker in workers:
            # The spare process, and a worker that was quick, may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        server.wait_for("the workers are replaced")
        assert server.stop() == 0


@in_loop
async def test_a_worker_that_ends_as_soon_as_it_is_ready_replaces_no_other(monkeypatch):
    supervisor = Supervisor(Program("programs:sound"), Sockets())
    slot = Slot(0)
    before = slot.process = SimpleNamespace()
    started = asyncio.get_running_loop().create_future()
    started.set_result(True)
    made = SimpleNamespace(started=started, exit_code=7)
    monkeypatch.setattr(supervisor, "_slots", [slot])
    monkeypatch.setattr(supervisor, "_spawn", lambda slot: made)
    assert not await supervisor._replace(slot)
    assert slot.process is before


@in_virtual_time
async def test_a_spare_process_that_ends_again_and_again_is_made_after_pauses(
    monkeypatch,
):
    times = []
    loop = asyncio.get_running_loop()

    class Spare:
        has_ended = True

        def __init__(self, modules):
            times.append(loop.time())
            if len(times) == 4:
                raise OSError("no more processes")
            loop.call_later(1, supervisor._reap)

        def close(self):
            pass

    monkeypatch.setattr(supervisor_module, "Spare", Spare)
    supervisor = Supervisor(Program("programs:sound"), Sockets())
    supervisor._prepare()
    supervisor._prepare()  # as another worker does that is ready
    await until(lambda: len(times) == 6)
    supervisor._prepare()
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    # Each but the fourth has lived for a second.
    assert pauses == [1.0, 1.5, 2.0, 2.0, 5.0]
    supervisor._drop_spare()
    # One that has become a worker was sound.
    supervisor._spare_failures = 0
    supervisor._prepare()
    await until(lambda: len(times) == 8)
    assert round(times[7] - times[6], 3) == 1.0
    supervisor._drop_spare()


@in_virtual_time
async def test_a_worker_that_asks_while_its_replacement_fails_gets_another(monkeypatch):
    """A limit of requests that is reached during SIGHUP is not forgotten."""
    loop = asyncio.get_running_loop()
    made = []

    def spawn(slot):
        started = loop.create_future()
        made.append(SimpleNamespace(started=started, exit_code=None, is_ready=True))
        return made[-1]

    supervisor = Supervisor(Program("programs:sound"), Sockets())
    monkeypatch.setattr(supervisor, "_spawn", spawn)
    monkeypatch.setattr(supervisor, "_started", True)
    slot = Slot(0)
    slot.process = SimpleNamespace(index=0, exit_code=None, stop=lambda: None)
    supervisor._slots = [slot]
    supervisor.replace_all()
    await until(lambda: made)
    supervisor._changed_process(slot.process)
    await pause()
    made[0].started.set_result(False)
    await until(lambda: len(made) == 2)
    made[1].started.set_result(True)
    await until(lambda: slot.process is made[1])


@in_virtual_time
async def test_a_worker_that_is_taken_while_it_is_replaced_stops_no_roll(
    monkeypatch, caplog
):
    loop = asyncio.get_running_loop()
    stopped = []
    made = []

    def spawn(slot):
        process = SimpleNamespace(
            started=loop.create_future(), exit_code=None, is_ready=True
        )
        process.stop = lambda: stopped.append(process)
        made.append(process)
        return process

    supervisor = Supervisor(Program("programs:sound"), Sockets())
    monkeypatch.setattr(supervisor, "_spawn", spawn)
    monkeypatch.setattr(supervisor, "_started", True)
    supervisor._slots = [Slot(index) for index in range(2)]
    for slot in supervisor._slots:
        slot.process = spawn(slot)
    supervisor.replace_all()
    await until(lambda: len(made) == 3)
    made[2].started.set_result(True)
    await until(lambda: len(made) == 4)
    supervisor.take_worker()
    made[3].started.set_result(False)
    await until(lambda: supervisor._roll.done())
    assert made[3] in stopped
    assert "not replaced" not in caplog.text


def test_a_place_that_the_group_of_quic_has_not_gets_no_worker(caplog):
    with contextlib.closing(QuicGroup([("127.0.0.1", 0)], 1)) as group:
        supervisor = Supervisor(Program("programs:sound"), Sockets(), quic=group)
        assert supervisor._spawn(Slot(1)) is None
    assert "worker 1 cannot be started: slot is 1" in caplog.text


def test_the_supervisor_opens_its_own_log_again(tmp_path):
    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    logger = logging.getLogger("nghttp2py.test")
    logger.addHandler(handler)
    try:
        path.rename(tmp_path / "old")
        Supervisor(Program("programs:sound"), Sockets()).reopen_logs()
        logger.warning("after it was moved")
        assert path.read_text() == "after it was moved\n"
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_programs_of_a_worker_inherit_no_descriptor():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)  # as it is after the start of the process
        channel = Channel(theirs, descriptors=True)
        message = json.dumps({"type": "start", "descriptors": 1}).encode() + b"\n"
        socket.send_fds(ours, [message], [ours.fileno()])
        _, descriptors = channel.wait()
        assert not theirs.get_inheritable()
        assert not os.get_inheritable(descriptors[0])
        os.close(descriptors[0])


@in_loop
async def test_a_channel_that_cannot_send_descriptors_is_closed(caplog):
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        channel.send({"type": "start"}, [theirs.fileno()] * 300)  # Linux allows 253
        channel.attach(loop, print, lambda: lost.set_result(None))
        await lost
        assert theirs.recv(1) == b""
    assert "a message cannot be sent to another process" in caplog.text


@in_virtual_time
async def test_descriptors_wait_while_the_limit_of_open_files_is_reached(monkeypatch):
    """Linux counts those that other workers have not read yet (ETOOMANYREFS)."""
    refusals = [errno.ETOOMANYREFS] * 3
    write_once = Channel._write_once

    def write(self):
        if refusals:
            raise OSError(refusals.pop(), "Too many references")
        write_once(self)

    monkeypatch.setattr(Channel, "_write_once", write)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        copy = os.dup(theirs.fileno())
        channel.send({"type": "start"}, [copy])
        channel.attach(asyncio.get_running_loop(), print, print)
        os.close(copy)
        channel.send({"type": "stop"})
        assert channel.is_behind
        await until(lambda: not channel.is_behind)
        assert not channel._copies
        data, descriptors, _, _ = socket.recv_fds(theirs, 4096, 4)
        os.close(descriptors[0])
        assert data.startswith(b'{"type":"start","descriptors":1}')
        refusals.append(errno.ETOOMANYREFS)
        channel.send({"type": "abort"}, [theirs.fileno()])
        assert channel._copies
        channel.close()  # the timer, too
        assert not channel._copies
        await pause()
        assert theirs.recv(4096) == b'{"type":"stop"}\n' * (b"stop" not in data)


@in_virtual_time
async def test_descriptors_that_wait_for_room_keep_no_loop_busy(monkeypatch):
    """Their socket is writable, and was waited for before."""
    refusals = [errno.ETOOMANYREFS, errno.EAGAIN]
    write_once = Channel._write_once

    def write(self):
        if refusals:
            raise OSError(refusals.pop(), "refused")
        write_once(self)

    monkeypatch.setattr(Channel, "_write_once", write)
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        channel.attach(loop, print, print)
        channel.send({"type": "start"}, [theirs.fileno()])
        await until(lambda: channel._again is not None)
        assert not loop.remove_writer(ours.fileno())
        await until(lambda: not channel.is_behind)
        channel.close()


def test_a_start_that_fails_leaves_no_socket_open(tmp_path, monkeypatch):
    """Here the address of the metrics is in use, when all others are bound."""
    certificate().private_key_pem.write_to_path(tmp_path / "key.pem")
    chain = b"".join(pem.bytes() for pem in certificate().cert_chain_pems)
    (tmp_path / "cert.pem").write_bytes(chain)
    opened = []

    class Watched(Sockets):
        def add(self, name, sockets, paths=()):
            super().add(name, sockets, paths)
            opened.extend(sockets)

    class WatchedGroup(QuicGroup):
        def _open(self, size):
            super()._open(size)
            opened.extend(sock for sockets in self._sockets for sock in sockets)

    monkeypatch.setattr(asgi_workers, "Sockets", Watched)
    monkeypatch.setattr("nghttp2py.asyncio.quic_group.QuicGroup", WatchedGroup)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(
            "main:app",
            port=0,
            ssl_certfile=str(tmp_path / "cert.pem"),
            ssl_keyfile=str(tmp_path / "key.pem"),
            metrics_host="127.0.0.1",
            metrics_port=taken.getsockname()[1],
        )
        with pytest.raises(OSError, match="in use"):
            asgi_workers.run_workers(config, 2)
    assert len(opened) == 3  # of TCP, and of UDP for each worker
    assert all(sock.fileno() == -1 for sock in opened)
