"""Servers with too little memory: the connection that asks for it pays, no other."""

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import textwrap

import pytest
from exchanges import exchanging
from handlers import Good, exchange_until, serve
from loops import DEADLINE, in_loop, until
from memory import MemoryClient
from test_tls import Link, Tcp

from nghttp2py import client as client_module
from nghttp2py import exchange, handler, log_budget
from nghttp2py.asyncio import (
    Client,
    Timeouts,
    body,
    http2,
    http3,
    memory,
    pump,
    stream_state,
)
from nghttp2py.asyncio.choice import Choice
from nghttp2py.asyncio.listener import ConnectionSet
from nghttp2py.asyncio.tls_transport import TLSTransport
from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.errors import NGHTTP2Error, StreamResetError
from nghttp2py.h2 import H2Connection
from nghttp2py.server import BaseRequestHandler, HTTP2Server

# ---- The reserve ----


def fail(*_):
    raise MemoryError


def use_up_count():
    """Have the next bytes that are counted be those for which memory is checked."""
    with contextlib.suppress(MemoryError):
        memory.count_bytes(memory._INTERVAL + 1)


def test_the_reserve_is_looked_for_once_in_many_bytes(monkeypatch):
    looks = []
    monkeypatch.setattr(memory, "check_memory", lambda: looks.append(1))
    use_up_count()
    looks.clear()
    for _ in range(1024):
        memory.count_bytes(16384)
    assert 1024 * 16384 // memory.RESERVE < len(looks) <= 64
    looks.clear()
    for _ in range(1024):
        memory.count_bytes(1)  # a small request, of which more is made than it has
    assert 4 <= len(looks) <= 16


# A process with little memory left: nothing of it is to be had, and then all of it.
USED_UP = """
    import mmap, resource
    from nghttp2py.asyncio.memory import RESERVE, _SEGMENT, check_memory

    check_memory()
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 8 * RESERVE + 2 * _SEGMENT,) * 2)
    check_memory()
    pieces = []
    # An allocator without room for a large piece may have some for smaller ones.
    for size in 65536, 32768, 4096:
        try:
            while True:
                pieces.append(bytes(size))
        except MemoryError:
            pass
    try:
        check_memory()
    except MemoryError:
        pass
    else:
        raise AssertionError("there is no memory")
    # The heap need not give it back to the system.
    maps = []
    try:
        while True:
            maps.append(mmap.mmap(-1, 4096))
    except (OSError, MemoryError):
        pass
    pieces.clear()
    check_memory()
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_memory_that_is_used_up_is_noticed_and_freed_memory_too():
    run(USED_UP)


# ---- TLS ----


@pytest.mark.parametrize(
    "name", ["check_memory", "_begin", "_shake_hands", "_complete_handshake", "factory"]
)
@in_loop
async def test_a_handshake_that_finds_no_memory_is_aborted(
    tls, name, caplog, monkeypatch
):
    caplog.set_level("INFO")
    link = Link(tls)
    with monkeypatch.context() as patch:
        if name == "check_memory":
            patch.setattr("nghttp2py.asyncio.tls_transport.check_memory", fail)
        elif name == "factory":
            patch.setattr(link.shared, "factory", fail)
        else:
            patch.setattr(TLSTransport, name, fail)
        link.shake_hands()
    assert link.tcp.aborted
    await until(lambda: link.lost)
    assert not link.shared.connections
    assert "not enough memory" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("paused", [False, True], ids=["at once", "paused"])
@in_loop
async def test_a_read_that_finds_no_memory_ends_its_connection(tls, paused, caplog):
    caplog.set_level("INFO")
    link, other = Link(tls), Link(tls)
    other.shared = link.shared
    recorder = link.shake_hands()
    other.shake_hands()
    recorder.data_received = fail
    if paused:
        link.transport.pause_reading()
    link.send(b"x" * 1000)
    if paused:
        assert not link.tcp.aborted
        link.transport.resume_reading()
    await until(lambda: link.lost)
    assert link.tcp.aborted
    ((what, error),) = recorder.calls
    assert what == "lost"
    assert isinstance(error, MemoryError)
    assert "not enough memory" in caplog.text
    other.send(b"hello")
    assert other.protocol.received == b"hello"
    assert not other.tcp.aborted


@in_loop
async def test_a_read_is_counted_before_it_is_decrypted(tls, monkeypatch):
    link = Link(tls)
    recorder = link.shake_hands()
    monkeypatch.setattr("nghttp2py.asyncio.tls_transport.count_bytes", fail)
    link.send(b"x" * 1000)
    assert not recorder.received
    assert link.tcp.aborted
    # Nor does its TLS live until it is lost, when others have read.
    assert link.transport.get_extra_info("ssl_object") is None
    await until(lambda: link.lost)


@in_loop
async def test_a_connection_that_finds_no_memory_for_its_timer_is_aborted(
    tls, monkeypatch
):
    shared = Link(tls).shared
    transport = shared.protocol()
    tcp = Tcp(transport)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_later", fail)
        transport.connection_made(tcp)
    assert tcp.aborted
    await until(lambda: transport not in shared.connections)


@pytest.mark.parametrize(
    "first", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"]
)
@in_loop
async def test_a_connection_that_finds_no_memory_for_its_protocol_is_aborted(first):
    connections = ConnectionSet(lambda *_: None, lambda _: None)
    choice = Choice(fail, fail, connections, Timeouts())
    tcp = Tcp(choice)
    choice.connection_made(tcp)
    choice.data_received(first)
    assert tcp.aborted
    await until(lambda: choice not in connections)


@in_loop
async def test_a_line_that_finds_no_memory_keeps_no_connection(tls, monkeypatch):
    link = Link(tls, handshake_timeout=0.05)
    monkeypatch.setattr(link.shared, "report", fail)
    monkeypatch.setattr(TLSTransport, "_begin", fail)
    link.shake_hands()
    assert link.tcp.aborted
    silent = Link(tls, handshake_timeout=0.05)
    monkeypatch.setattr(silent.shared, "report", fail)
    complaints = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context["exception"])
    )
    await until(lambda: silent.tcp.aborted)
    assert [type(error) for error in complaints] == [MemoryError]


# ---- HTTP/2 ----


@in_loop
async def test_want_of_memory_is_a_bounded_number_of_lines_without_tracebacks(
    caplog, monkeypatch
):
    monkeypatch.setattr(log_budget, "MEMORY_LINES", (3, 100.0))
    monkeypatch.setattr(pump.H2Pump, "_memory_log", log_budget.MemoryLog(pump.logger))
    clients = [MemoryClient(pump.H2Pump(H2Connection())) for _ in range(9)]
    for client in clients:
        await client.exchange()
    monkeypatch.setattr(memory, "check_memory", fail)
    use_up_count()
    for client in clients:
        client.connection.ping(b"12345678")
        client.protocol.data_received(client.connection.data_to_send())
        assert client.transport.aborted
    await until(lambda: all(c.protocol.transport is None for c in clients))
    assert [record.exc_info for record in caplog.records] == [None] * 3


def hungry_body():
    raise MemoryError
    yield b""


class Hungry(BaseRequestHandler):
    def on_headers(self):
        raise MemoryError


class HungryLater(BaseRequestHandler):
    async def on_request_done(self):
        raise MemoryError


class HungryToBegin(BaseRequestHandler):
    def __init__(self, *_):
        raise MemoryError


class HungryBody(BaseRequestHandler):
    def on_headers(self):
        self.send_response(200, body=hungry_body())


@pytest.mark.parametrize(
    ("bad", "module"),
    [
        (Hungry, handler),
        (HungryLater, handler),
        (HungryToBegin, exchange),
        (HungryBody, http2),
    ],
)
@in_loop
async def test_handlers_that_find_no_memory_leave_a_bounded_log(
    bad, module, caplog, monkeypatch
):
    log = log_budget.MemoryLog(logging.getLogger(module.__name__))
    monkeypatch.setattr(module, "memory_log", log)
    client = serve(bad)
    stream_ids = [client.request() for _ in range(3 * log_budget.MEMORY_LINES[0])]
    await exchange_until(
        client, lambda: all(client.response(n).closed is not None for n in stream_ids)
    )
    if bad is not HungryBody:
        assert {client.response(n).status for n in stream_ids} == {500}
    records = [each for each in caplog.records if "not enough memory" in each.message]
    assert len(records) == log_budget.MEMORY_LINES[0]
    assert {(each.levelname, each.exc_info) for each in caplog.records} == {
        ("WARNING", None)
    }


@in_loop
async def test_bodies_that_find_no_memory_to_close_leave_a_bounded_log(
    caplog, monkeypatch
):
    monkeypatch.setattr(body, "memory_log", log_budget.MemoryLog(body.logger))
    closed = []

    async def pieces():
        try:
            yield b"piece"
            await asyncio.Event().wait()
        finally:
            closed.append(1)
            raise MemoryError

    class HungryToClose(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, body=pieces())

    client = serve(HungryToClose)
    stream_ids = [client.request() for _ in range(2 * log_budget.MEMORY_LINES[0])]
    await exchange_until(
        client, lambda: all(client.response(n).data for n in stream_ids)
    )
    for stream_id in stream_ids:
        client.connection.reset_stream(stream_id)
    await exchange_until(client, lambda: len(closed) == len(stream_ids))
    await until(lambda: len(caplog.records) >= log_budget.MEMORY_LINES[0])
    assert len(caplog.records) == log_budget.MEMORY_LINES[0]
    assert {each.exc_info for each in caplog.records} == {None}


@in_loop
async def test_a_clients_handlers_that_find_no_memory_leave_a_bounded_log(
    caplog, monkeypatch
):
    log = log_budget.MemoryLog(client_module.logger)
    monkeypatch.setattr(client_module, "_memory_log", log)

    class HungryResponse(BaseResponseHandler):
        def on_headers(self):
            raise MemoryError

        def on_close(self, error_code):
            closed.append(error_code)

    closed = []
    n = 2 * log_budget.MEMORY_LINES[0]
    async with HTTP2Server(("127.0.0.1", 0), Good) as server:
        address = server.sockets[0].getsockname()[:2]
        async with HTTP2Client(address) as client:
            for _ in range(n):
                client.send_request(handler=HungryResponse())
    assert len(closed) == n
    assert len(caplog.records) == log_budget.MEMORY_LINES[0]
    assert {each.exc_info for each in caplog.records} == {None}


# ---- Bodies in one piece ----


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
@pytest.mark.parametrize("kind", ["handler", "stream"])
@pytest.mark.parametrize("what", ["taken", "queued"])
@in_loop
async def test_a_body_in_one_piece_is_kept_if_there_is_memory(
    version, kind, what, caplog, monkeypatch
):
    async def answer(app, request):
        size = len(await request.read()) if what == "taken" else 100_000
        await request.respond(body=bytes(size))

    def count(size):
        if size > 10_000:
            raise MemoryError

    content = bytes(100_000) if what == "taken" else None
    async with exchanging(version, kind, answer) as (_, ends):
        with monkeypatch.context() as patch:
            if what == "taken":
                patch.setattr(stream_state, "count_bytes", count)
                patch.setattr(handler, "count_bytes", count)
            else:
                patch.setattr(http2, "count_bytes", count)
                patch.setattr(http3, "count_bytes", count)
            for _ in range(3):
                try:
                    status, *_ = await ends.fetch(body=content)
                except StreamResetError:
                    continue
                assert status == 500
        status, answered, _ = await ends.fetch(body=content)
        assert (status, len(answered)) == (200, 100_000)
    assert "Traceback" not in caplog.text


# ---- Servers whose address space ends ----

SERVER = """
    import asyncio, faulthandler, resource, ssl, sys
    from nghttp2py.asyncio import start_server
    from nghttp2py.asyncio.memory import _SEGMENT
    from nghttp2py.server import BaseRequestHandler, HTTP2Server

    class Keeping(BaseRequestHandler):
        def on_headers(self):
            self.pieces = []

        def on_data(self, data):
            self.pieces.append(data)

        def on_request_done(self):
            self.send_response(200, body=b"".join(self.pieces))

    class Holding(Keeping):
        def on_headers(self):
            self.held = bytearray(300_000)
            super().on_headers()

    async def keep(stream):
        await stream.send_response(200, body=await stream.read())

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("certificate.pem")
        if sys.argv[1] == "HTTP2Server":
            server = HTTP2Server(("127.0.0.1", 0), Keeping, context)
            await server.start()
        elif sys.argv[1] == "clear":
            server = HTTP2Server(("127.0.0.1", 0), Holding)
            await server.start()
        else:
            server = await start_server(
                lambda protocol: protocol.serve_streams(keep),
                "127.0.0.1", 0, ssl=context,
            )
        # The stack is not to grow when there is nothing left: that ends the process.
        deep = []
        for _ in range(900):
            deep = [deep]
        repr(deep)
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 12_000_000,) * 2)
        used = []
        try:
            # A heap without the GIL has segments of 32 MiB: 12 MB of it are left.
            while _SEGMENT:
                used.append(bytes(65536))
        except MemoryError:
            del used[-184:]
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server", "clear"])
@in_loop
async def test_a_server_outlives_a_want_of_memory(kind, tls, certificates, tmp_path):
    certificates[1].private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "certificate.pem")
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(SERVER), kind),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        context = None if kind == "clear" else tls.client
        url = f"http{'s' if context else ''}://127.0.0.1:"
        url += (await process.stdout.readline()).decode().strip()
        complaints = asyncio.create_task(process.stderr.read())
        bounds = Timeouts(settings=5, response=5, body=5, idle=5)
        failed = 0

        async def upload():
            nonlocal failed
            try:
                async with Client(url, ssl=context, timeouts=bounds) as client:
                    await client.post("/", body=b"x" * 200_000)
            except (OSError, NGHTTP2Error, asyncio.TimeoutError):
                failed += 1

        # The clients are many, and each holds 256 KiB of asyncio's.
        await asyncio.gather(*(upload() for _ in range(200)))
        gc.collect()
        assert process.returncode is None, (await complaints).decode()
        assert failed  # there was not enough for all
        async with Client(url, ssl=context) as client:
            assert (await client.post("/", body=b"hello")).status == 200
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        text = (await complaints).decode()
        assert "Traceback" not in text, text
    assert len(text) < 10_000
