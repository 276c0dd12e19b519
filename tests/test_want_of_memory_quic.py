"""QUIC with too little memory: the connection that asks for it pays, no other."""

import asyncio
import contextlib
import subprocess
import sys
import textwrap

import pytest
from h3_streams import OK, pair, request, whole
from loops import in_loop, until
from quic_pair import client_configuration, identity

from nghttp2py.asyncio import (
    h3,
    open_connection,
    protocol,
    quic_protocol,
    quic_server,
    start_server,
)
from nghttp2py.asyncio.bounds import BoundTimer
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.h3 import H3_ALPN
from nghttp2py.log_budget import MEMORY_LINES, MemoryLog


def fail(*_, **__):
    raise MemoryError


async def echo(stream):
    body = await whole(stream)
    stream.send_headers(OK)
    await stream.send_data(body, end_stream=True)


async def post(client, body):
    """Send ``body`` to ``echo``; return the response's status."""
    stream = await client.open_stream(request(method=b"POST"))
    sending = asyncio.create_task(stream.send_data(body, end_stream=True))
    try:
        (_, status), *_ = await stream.response()
        assert status != b"200" or await whole(stream) == body
        await sending
        return status
    finally:
        sending.cancel()


@contextlib.contextmanager
def complaints_of_the_loop():
    """What reaches the loop's exception handler."""
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield complaints
    finally:
        loop.set_exception_handler(None)


def count_lines(caplog):
    """How many lines tell of want of memory: all of them without a traceback."""
    lines = [r for r in caplog.records if "not enough memory" in r.getMessage()]
    assert [line.exc_info for line in lines] == [None] * len(lines)
    return len(lines)


def connecting(port):
    """A client whose protocol is not the server's."""
    configuration = client_configuration(alpn_protocols=H3_ALPN)
    return connect("127.0.0.1", port, configuration=configuration)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (quic_server, "check_memory"),
        (quic_server, "QuicConnection"),
        (H3Protocol, "connection_made"),
    ],
    ids=["reserve", "connection", "timer"],
)
@in_loop
async def test_a_connection_is_made_when_there_is_memory_again(
    owner, name, caplog, monkeypatch
):
    with complaints_of_the_loop() as complaints:
        async with pair(echo) as (client, ends):
            server = ends.server
            wanted = connecting(server.sockets[0].getsockname()[1])
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                entering = asyncio.create_task(wanted.__aenter__())
                await until(lambda: "could not be made" in caplog.text)
                # The one that was there is served, and of the other nothing is left.
                assert await post(client, b"hello") == b"200"
                assert len(server._connections) == 1
                assert not len(server._handshaking)
                assert set(server._protocols.values()) == {ends.protocols[0]}
            # The client sends its Initial packet again.
            await entering
            await wanted.__aexit__(None, None, None)
    assert count_lines(caplog) >= 1
    assert not complaints


@in_loop
async def test_datagrams_that_find_no_memory_are_lost(caplog, monkeypatch):
    with complaints_of_the_loop() as complaints:
        async with pair(echo) as (client, ends):
            failed = []

            def split(run):
                failed.append(run)
                raise MemoryError

            with monkeypatch.context() as patch:
                patch.setattr(
                    ends.server, "_router", FailingRouter(ends.server._router, split)
                )
                posting = asyncio.create_task(post(client, b"hello"))
                await until(lambda: failed)
            assert await posting == b"200"
            ends.server._transport._want_memory(MemoryError())
            assert len(ends.server._connections) == 1
    assert count_lines(caplog) >= 2
    assert not complaints


class FailingRouter:
    """A server's router that finds no memory to split runs."""

    def __init__(self, router, split):
        self._router = router
        self.split_run = split

    def __getattr__(self, name):
        return getattr(self._router, name)


class Hungry(H3Protocol):
    """Finds no memory in what is named in ``wants``."""

    wants: frozenset[str] = frozenset()

    def transmit(self):
        if "transmit" in self.wants:
            raise MemoryError
        super().transmit()

    def quic_event_received(self, event):
        if "event" in self.wants and hasattr(event, "stream_id"):
            raise MemoryError
        super().quic_event_received(event)


@pytest.mark.parametrize("want", ["event", "transmit", "reserve", "termination"])
@in_loop
async def test_a_connection_that_finds_no_memory_is_given_up(want, caplog, monkeypatch):
    with complaints_of_the_loop() as complaints:
        async with pair(echo) as (client, ends):
            other = connecting(ends.server.sockets[0].getsockname()[1])
            async with other as second:
                await second.ping()
                hungry, _ = ends.protocols
                if want == "reserve":
                    # It is looked for when the client's request is read.
                    def read(runs, read=hungry.runs_received):
                        with monkeypatch.context() as patch:
                            patch.setattr(quic_protocol, "count_bytes", fail)
                            read(runs)

                    monkeypatch.setattr(hungry, "runs_received", read)
                elif want == "termination":
                    monkeypatch.setattr(hungry, "runs_received", fail)
                    monkeypatch.setattr(BoundTimer, "stop", FailOnce())
                else:
                    hungry.__class__ = Hungry
                    hungry.wants = {want}
                with pytest.raises(NGHTTP2Error, match="reset"):
                    await post(client, b"hello")
                assert hungry._terminated.reason_phrase == "out of memory"
                assert hungry._closed.is_set()
                assert len(ends.server._connections) == 1
                await second.ping()
    assert count_lines(caplog) == 1
    assert not complaints


class FailOnce:
    """Finds no memory the first time."""

    def __init__(self):
        self.failed = False

    def __call__(self, *args):
        if not self.failed:
            self.failed = True
            raise MemoryError


@in_loop
async def test_a_client_that_finds_no_memory_loses_its_connection(caplog, monkeypatch):
    with complaints_of_the_loop() as complaints:
        async with pair(echo) as (client, ends):
            await client.ping()
            client.__class__ = Hungry
            client.wants = {"event"}
            with pytest.raises(NGHTTP2Error, match="out of memory"):
                await post(client, b"hello")
            client.wants = ()
            await client.wait_closed()
            ends.server.abort()  # which was not told
    assert count_lines(caplog) == 1
    assert not complaints


@in_loop
async def test_lines_about_want_of_memory_are_bounded(caplog):
    async with pair(echo) as (_, ends):
        for _ in range(100):
            ends.server._transport._want_memory(MemoryError())
    assert count_lines(caplog) == MEMORY_LINES[0]


@pytest.mark.parametrize("version", [2, 3])
@in_loop
async def test_handlers_that_find_no_memory_leave_a_bounded_log(
    version, caplog, monkeypatch
):
    module = h3 if version == 3 else protocol
    monkeypatch.setattr(module, "_memory_log", MemoryLog(module.logger))

    async def hungry(stream):
        raise MemoryError

    async def ask(client, fields):
        return (await (await client.open_stream(fields)).response()).status

    n = 3 * MEMORY_LINES[0]
    if version == 3:
        async with pair(hungry) as (client, _):
            asked = [ask(client, request()) for _ in range(n)]
            assert await asyncio.gather(*asked) == [500] * n
    else:
        async with (
            await start_server(
                lambda protocol: protocol.serve_streams(hungry), "127.0.0.1", 0
            ) as server,
            await open_connection(*server.sockets[0].getsockname()) as client,
        ):
            asked = [ask(client, {":method": "GET", ":path": "/"}) for _ in range(n)]
            assert await asyncio.gather(*asked) == [500] * n
    assert count_lines(caplog) == MEMORY_LINES[0]


# ---- A server whose address space ends ----

SERVER = """
    import asyncio, faulthandler, functools, resource
    from nghttp2py.asyncio import serve
    from nghttp2py.asyncio.h3 import H3Protocol
    from nghttp2py.asyncio.memory import _SEGMENT
    from nghttp2py.h3 import H3_ALPN
    from nghttp2py.quic import QuicConfiguration

    async def echo(stream):
        body = b"".join([piece async for piece in stream])
        stream.send_headers([(b":status", b"200")])
        await stream.send_data(body, end_stream=True)

    async def main():
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        configuration.load_cert_chain("certificate.pem", "key.pem")
        server = await serve(
            "127.0.0.1", 0, configuration=configuration,
            create_protocol=functools.partial(H3Protocol, request_handler=echo),
        )
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 12_000_000,) * 2)
        used = []
        try:
            # A heap without the GIL has segments of 32 MiB: 6 MB of it are left.
            while _SEGMENT:
                used.append(bytes(65536))
        except MemoryError:
            del used[-92:]
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    asyncio.run(main())
"""


@in_loop
async def test_a_server_over_quic_outlives_a_want_of_memory(tmp_path):
    certificate, key = identity()
    (tmp_path / "certificate.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(SERVER)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        port = int(await process.stdout.readline())
        complaints = asyncio.create_task(process.stderr.read())
        failed = 0

        async def upload(size):
            nonlocal failed
            configuration = client_configuration(alpn_protocols=H3_ALPN, idle_timeout=5)
            try:
                async with connect(
                    "127.0.0.1",
                    port,
                    configuration=configuration,
                    create_protocol=H3Protocol,
                    connect_timeout=10,
                    close_timeout=1,
                ) as client:
                    assert await post(client, b"x" * size) == b"200"
            except (OSError, NGHTTP2Error, asyncio.TimeoutError, AssertionError):
                failed += 1

        # Each is held twice: in pieces, and joined.
        await asyncio.gather(*(upload(200_000) for _ in range(60)))
        assert process.returncode is None, (await complaints).decode()
        # There was not enough for all, but for some.
        assert 0 < failed < 60
        failed = 0
        await upload(5)
        await upload(200_000)
        assert not failed
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    text = (await complaints).decode()
    assert "Traceback" not in text
    assert len(text) < 10_000
