"""What servers share: sockets, accepting, the set of connections, and the end."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from handlers import Good
from loops import DEADLINE, in_loop, in_loops, pause, until
from memory import MemoryClient

from nghttp2py.asyncio import open_connection, start_server, start_unix_server
from nghttp2py.asyncio.binding import bind_tcp, bind_unix, to_address
from nghttp2py.asyncio.listener import ConnectionSet
from nghttp2py.asyncio.quic import serve as serve_quic
from nghttp2py.h2 import H2Connection, H2GoAway, H2SettingsAcknowledged
from nghttp2py.quic import QuicConfiguration
from nghttp2py.server import BaseRequestHandler, HTTP2Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
GET = {":method": "GET", ":path": "/"}


async def site(stream):
    await stream.send_response(200, {}, b"good")


def serve_streams(**options):
    return start_server(lambda proto: proto.serve_streams(site), **options)


async def fetch(*address, **options):
    """Make a request by a connection of its own; return the body."""
    async with await open_connection(*address, **options) as client:
        stream = await client.open_stream(GET)
        await stream.end_stream()
        return await stream.read()


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def is_refused(*address):
    """Whether a new connection is refused, or closed before a byte came."""
    try:
        reader, writer = await asyncio.open_connection(*address)
        received = await reader.read(1)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return not received
    except ConnectionError:
        return True


# ---- The set of connections ----


class Stubborn:
    """A connection that raises when it is closed, and then when it is aborted."""

    def __init__(self):
        self.calls = []

    def close(self, timeout):
        self.calls.append("close")
        raise RuntimeError("on purpose")

    def abort(self):
        self.calls.append("abort")
        raise RuntimeError("on purpose")


class Willing:
    def __init__(self):
        self.calls = []

    def close(self, timeout):
        self.calls.append(timeout)

    def abort(self):
        self.calls.append("abort")


def make_set(*connections):
    made = ConnectionSet(lambda c, timeout: c.close(timeout), lambda c: c.abort())
    for connection in connections:
        made.add(connection)
    return made


def test_a_connection_that_cannot_be_closed_keeps_no_other_open(caplog):
    stubborn = [Stubborn() for _ in range(3)]
    willing = [Willing() for _ in range(3)]
    connections = make_set(*stubborn, *willing)
    connections.close(2.0)
    assert all(each.calls == ["close", "abort"] for each in stubborn)
    assert all(each.calls == [2.0] for each in willing)
    assert "could not be closed" in caplog.text


def test_a_connection_that_cannot_be_aborted_keeps_no_other_open():
    stubborn, willing = Stubborn(), [Willing() for _ in range(3)]
    connections = make_set(stubborn, *willing)
    connections.abort()
    assert stubborn.calls == ["abort"]
    assert all(each.calls == ["abort"] for each in willing)


def test_a_connection_that_comes_after_the_end_is_ended_too():
    closed, aborted = Willing(), Willing()
    connections = make_set()
    connections.close(3.0)
    connections.add(closed)
    connections.abort()
    connections.add(aborted)
    assert closed.calls == [3.0, "abort"]
    assert aborted.calls == ["abort"]


@in_loop
async def test_the_set_is_waited_for():
    first, second = Willing(), Willing()
    connections = make_set(first, second)
    waiting = asyncio.ensure_future(connections.wait_empty())
    connections.discard(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    connections.discard(second)
    connections.discard(second)
    await waiting


# ---- Addresses and sockets ----


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("127.0.0.1:8099", "('127.0.0.1', 8099)"),
        ("localhost:80", "('localhost', 80)"),
        ("example.org:443", "('example.org', 443)"),
        ("[::1]:443", "('::1', 443)"),
        (":8080", "(None, 8080)"),
        ("8080", "(None, 8080)"),
        ("localhost", "('localhost', port)"),
        ("127.0.0.1", "('127.0.0.1', port)"),
        ("::", "('::', port)"),
        ("localhost:", "('localhost', port)"),
    ],
)
def test_a_text_that_looks_like_host_and_port_is_refused(
    address, meant, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as info:
        HTTP2Server(address, BaseRequestHandler)
    assert meant in str(info.value) and repr(address) in str(info.value)
    assert not list(tmp_path.iterdir())


def test_a_url_is_no_address():
    with pytest.raises(ValueError, match="http://"):
        HTTP2Server("http://localhost:80/", BaseRequestHandler)


@pytest.mark.parametrize(
    "path", ["./x:1", "/run/a:1", "socket", b"localhost:80", "\0abstract:1", "a b:c"]
)
def test_a_path_stays_a_path(path):
    assert to_address(path) == os.fsdecode(path)


@pytest.mark.parametrize("address", [("127.0.0.1", -1), ("127.0.0.1", 65536), ""])
def test_an_address_that_cannot_be_is_refused(address):
    with pytest.raises(ValueError):
        HTTP2Server(address, BaseRequestHandler)


@in_loops
async def test_a_given_socket_is_served_on():
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with HTTP2Server(None, Good, sock=sock) as server:
        assert server.sockets[0].getsockname()[1] == port
        assert await fetch("127.0.0.1", port) == b"good"
    assert sock.fileno() == -1


@in_loops
async def test_several_given_sockets_are_served_on():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    async with HTTP2Server(None, Good, sock=sockets):
        for port in ports:
            assert await fetch("127.0.0.1", port) == b"good"
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))  # and does not listen
    ports = [s.getsockname()[1] for s in sockets]
    async with await serve_streams(sock=sockets):
        for port in ports:
            assert await fetch("127.0.0.1", port) == b"good"


@pytest.mark.parametrize(
    ("address", "sock", "error"),
    [
        (None, None, TypeError),
        (("127.0.0.1", 0), "socket", ValueError),
        (None, [], ValueError),
        (None, 5, TypeError),
        (None, ["socket", 5], TypeError),
    ],
)
def test_an_address_or_sockets_are_given_and_not_both(address, sock, error):
    made = []

    def make(value):
        if value == "socket":
            made.append(socket.socket())
            return made[-1]
        return [make(each) for each in value] if isinstance(value, list) else value

    with pytest.raises(error):
        HTTP2Server(address, BaseRequestHandler, sock=make(sock))
    for each in made:
        each.close()


def test_a_socket_that_cannot_listen_is_refused():
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="stream"),
    ):
        HTTP2Server(None, BaseRequestHandler, sock=sock)


@in_loops
async def test_host_port_and_socket_are_one_too_many():
    with socket.socket() as sock, pytest.raises(ValueError, match="same time"):
        await serve_streams(host="127.0.0.1", port=0, sock=sock)


@in_loops
async def test_the_wildcard_of_ipv6_takes_ipv4_too():
    async with HTTP2Server(("::", 0), Good) as server:
        assert len(server.sockets) == 1
        assert await fetch("127.0.0.1", port_of(server)) == b"good"
        assert await fetch("::1", port_of(server)) == b"good"


@in_loops
async def test_servers_of_ipv4_and_ipv6_may_share_a_port():
    async with (
        HTTP2Server(("0.0.0.0", 0), Good) as first,
        HTTP2Server(("::", port_of(first)), BaseRequestHandler) as second,
    ):
        assert port_of(first) == port_of(second)
        assert await fetch("127.0.0.1", port_of(first)) == b"good"


@in_loops
async def test_several_hosts_may_be_given():
    async with await serve_streams(host=["127.0.0.1", "::1"], port=0) as server:
        for sock in server.sockets:
            assert await fetch(*sock.getsockname()[:2]) == b"good"
        assert len(server.sockets) == 2


@in_loop
async def test_an_address_in_use_is_named_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as info:
            await bind_tcp(asyncio.get_running_loop(), "127.0.0.1", port)
    assert str(info.value).lower().count("in use") == 1
    assert str(port) in str(info.value)


def test_the_path_of_a_server_that_runs_is_not_taken(tmp_path):
    """Its clients would find the other one; what a program has left is removed."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as one:
        server.bind(path)
        server.listen(0)
        one.connect(path)
        for _ in "free", "full":
            with pytest.raises(OSError, match="a server answers there") as info:
                bind_unix(path)
            assert info.value.errno == errno.EADDRINUSE
    sock, owner = bind_unix(path)
    sock.close()
    owner.remove()
    assert not os.path.exists(path)


@in_loops
async def test_the_socket_of_a_unix_server_is_removed_with_it(tmp_path):
    path = tmp_path / "socket"

    def handler(proto):
        return proto.serve_streams(site)

    async with await start_unix_server(handler, str(path)):
        assert path.exists()
    assert not path.exists()
    async with await start_unix_server(handler, path):
        path.unlink()
        async with await start_unix_server(handler, path) as successor:
            (first,) = successor.sockets
            assert first.getsockname() == str(path)
    async with await start_unix_server(handler, path, cleanup_socket=False):
        pass
    assert path.exists()


@in_loop
async def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="colour"):
        await serve_streams(host="127.0.0.1", port=0, colour="red")


@in_loops
async def test_a_server_may_begin_to_serve_later():
    async with await serve_streams(
        host="127.0.0.1", port=0, start_serving=False, backlog=5
    ) as server:
        assert not server.is_serving()
        assert await is_refused("127.0.0.1", port_of(server))
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        assert await fetch("127.0.0.1", port_of(server)) == b"good"


@in_loops
async def test_each_server_says_where_it_listens(caplog, certificate_files):
    caplog.set_level(logging.INFO, "nghttp2py.asyncio.listener")
    async with HTTP2Server(("127.0.0.1", 0), Good) as server:
        line = f"listening on 127.0.0.1:{port_of(server)} (HTTP/2 in the clear)"
        assert line in caplog.text
    async with await serve_streams(host="::1", port=0) as server:
        assert f"listening on [::1]:{port_of(server)} (HTTP/2" in caplog.text
    caplog.set_level(logging.INFO, "nghttp2py.asyncio.quic")
    configuration = QuicConfiguration(is_client=False)
    configuration.load_cert_chain(*certificate_files)
    quic = await serve_quic("::1", 0, configuration=configuration)
    assert f"listening on [::1]:{port_of(quic)} (QUIC)" in caplog.text
    quic.close()


@pytest.fixture
def certificate_files(certificates, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificates[1].cert_chain_pems[0].write_to_path(cert)
    certificates[1].private_key_pem.write_to_path(key)
    return cert, key


# ---- Bounds ----


@in_loops
async def test_connections_past_the_limit_wait(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.asyncio.listener")
    async with HTTP2Server(("127.0.0.1", 0), Good, limit_connections=2) as server:
        address = "127.0.0.1", port_of(server)
        held = [await open_connection(*address) for _ in range(2)]
        await until(lambda: len(server._connections) == 2)
        third = asyncio.ensure_future(fetch(*address))
        await until(lambda: "limit_connections is reached" in caplog.text)
        assert not third.done() and len(server._connections) == 2
        held.pop().close()
        assert await third == b"good"
        held.pop().close()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_with_which_nothing_is_served_is_refused(limit):
    with pytest.raises(ValueError, match="limit_connections"):
        HTTP2Server(("127.0.0.1", 0), Good, limit_connections=limit)


EXHAUSTED = """
    import asyncio, logging, resource, sys
    from nghttp2py.server import BaseRequestHandler, HTTP2Server

    logging.basicConfig(level=logging.INFO)

    class Handler(BaseRequestHandler):
        def on_request_done(self):
            self.send_response(body=b"good")

    async def main():
        async with HTTP2Server(("127.0.0.1", 0), Handler) as server:
            print(server.sockets[0].getsockname()[1], flush=True)
            await server.serve(signals=[15])

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    if sys.argv[1] == "uvloop":
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())
"""


@contextlib.contextmanager
def running(program, *arguments):
    """Run a program; give it and the port that it prints first."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_without_descriptors_says_so_in_a_line_and_recovers(loop):
    with running(EXHAUSTED, loop) as (process, port):
        clients = []
        closed = False
        for _ in range(60):
            client = socket.create_connection(("127.0.0.1", port), DEADLINE)
            clients.append(client)
            client.sendall(PREFACE)
        # The last ones are closed at once: none waits for a timeout.
        with contextlib.suppress(ConnectionError):
            closed = clients[-1].recv(1) == b""
        assert closed or clients[-1].fileno() != -1
        for client in clients:
            client.close()
        assert asyncio.run(fetch_when_possible(port)) == b"good"
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=DEADLINE)[1]
        assert process.returncode == 0
    assert log.count("cannot be accepted") == 1
    assert "Traceback" not in log and len(log) < 2000, log


async def fetch_when_possible(port):
    """Fetch; try again while the server has not seen that its clients are gone."""
    for _ in range(DEADLINE * 100):
        with contextlib.suppress(Exception):
            return await fetch("127.0.0.1", port)
        await pause()
    return None


# ---- The end ----


@in_loops
async def test_a_peer_that_is_gone_when_its_fault_is_answered_is_no_error(caplog):
    """It has read all and closed: our GOAWAY is answered by RST at once."""
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        with socket.create_connection(("127.0.0.1", port_of(server))) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, PREFACE)
            received = b""
            while b"\4\1\0\0\0\0" not in received:  # SETTINGS were acknowledged
                received += await loop.sock_recv(client, 4096)
            client.send(bytes(9))  # DATA on stream 0
        await until(lambda: not server._listener.count)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@in_loop
async def test_a_late_connection_of_a_stopped_server_is_aborted():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        late = server._new_protocol()
        server.abort()
        client = MemoryClient(late)
        assert client.transport.aborted
        await client.exchange()


@in_loops
async def test_abort_drops_every_connection_at_once():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        client = await open_connection("127.0.0.1", port_of(server))
        stream = await client.open_stream(GET)
        await stream.end_stream()
        await until(lambda: server._connections)
        server.abort()
        await server.wait_closed()
        await client.wait_closed()
        server.abort()
        server.close()


@in_loops
async def test_what_outlasts_the_deadline_is_aborted(monkeypatch):
    """Even if a connection's own timer should fail."""
    monkeypatch.setattr("nghttp2py.asyncio.listener._GRACE", 0.1)
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        client = await open_connection("127.0.0.1", port_of(server))
        await until(lambda: server._connections)
        (protocol,) = server._connections
        protocol.close = lambda timeout: None
        server.close(0.1)
        await server.wait_closed()
        await client.wait_closed()


@in_loops
async def test_a_server_can_be_closed_with_a_shorter_timeout():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        client = await open_connection("127.0.0.1", port_of(server))
        stream = await client.open_stream(GET)
        await stream.end_stream()
        await until(lambda: any(protocol.handlers for protocol in server._connections))
        server.close()
        server.close(0.05)
        await server.wait_closed()
        await client.wait_closed()


@in_loops
async def test_serve_forever_that_is_cancelled_twice_aborts():
    async def hang(stream):
        await asyncio.Event().wait()

    server = await start_server(
        lambda proto: proto.serve_streams(hang), "127.0.0.1", 0, close_timeout=100
    )
    serving = asyncio.ensure_future(server.serve_forever())
    client = await open_connection("127.0.0.1", port_of(server))
    stream = await client.open_stream(GET)
    await stream.end_stream()
    await until(lambda: server.connections)
    serving.cancel()
    await until(lambda: not server.is_serving())
    serving.cancel()
    await asyncio.wait([serving])
    await client.wait_closed()
    await server.wait_closed()


STOPPED = """
    import sys
    from nghttp2py.server import BaseRequestHandler, HTTP2Server

    class Server(HTTP2Server):
        async def start(self):
            await super().start()
            print(self.sockets[0].getsockname()[1], flush=True)

    Server(("127.0.0.1", 0), BaseRequestHandler, close_timeout=100).serve_forever()
    print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_server_at_once(number):
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    connection.send_request("GET", "/", (), authority=b"test", scheme=b"http")
    with (
        running(STOPPED) as (process, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE) as client,
    ):
        events = []
        while not any(isinstance(event, H2SettingsAcknowledged) for event in events):
            client.sendall(connection.data_to_send())
            events = connection.receive_data(client.recv(4096))
        # The request, which came before, is never answered.
        process.send_signal(number)
        while not any(isinstance(event, H2GoAway) for event in events):
            events = connection.receive_data(client.recv(4096))
        process.send_signal(number)
        output, log = process.communicate(timeout=DEADLINE)
    assert output == "stopped\n"
    assert process.returncode == 0
    assert "waiting up to 100 seconds for 1 connections with 1 open streams" in log
    assert "Traceback" not in log


# ---- The loop of a program that has one ----

CURRENT = """
    import asyncio
    from nghttp2py import BaseRequestHandler, HTTP2Server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    ticks = []

    async def tick():
        ticks.append(asyncio.get_running_loop() is loop)
        while not server.sockets:
            await asyncio.sleep(0)
        print(server.sockets[0].getsockname()[1], flush=True)

    task = loop.create_task(tick())
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
    assert server.loop is loop
    {run}
    print(*ticks, loop.is_closed())
"""


@pytest.mark.parametrize(
    "run",
    [
        "server.serve_forever()",
        "loop.add_signal_handler(15, loop.stop); loop.run_forever(); server.abort()",
        "loop.run_until_complete(server.serve(signals=[15]))",
    ],
)
def test_a_server_runs_in_the_current_loop_of_its_program(run):
    with running(CURRENT.format(run=run)) as (process, port):
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(PREFACE)
            assert client.recv(9)[3] == 4
        process.send_signal(signal.SIGTERM)
        output, log = process.communicate(timeout=DEADLINE)
    assert output == "True False\n"
    assert "Traceback" not in log and "Warning" not in log


def test_nghttp2s_attributes_start_the_server():
    """nghttp2's constructor listens already, in the current event loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
        assert server.server.sockets[0].getsockname()[1] > 0
        assert server.loop is loop
        server.server.close()
        loop.run_until_complete(server.server.wait_closed())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_server_that_cannot_start_by_itself_says_so(caplog):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = HTTP2Server(taken.getsockname(), BaseRequestHandler)
            loop.run_until_complete(until(lambda: "cannot start" in caplog.text))
            assert "in use" in caplog.text
            with pytest.raises(OSError):
                server.serve_forever()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@in_loop
async def test_serve_forever_is_not_for_a_running_loop():
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
    with pytest.raises(RuntimeError, match="await serve"):
        server.serve_forever()


def test_serve_forever_takes_uvloop_where_there_is_one():
    program = """
        import asyncio
        from nghttp2py.server import BaseRequestHandler, HTTP2Server

        class Server(HTTP2Server):
            async def start(self):
                await super().start()
                print(self.sockets[0].getsockname()[1], flush=True)

        server = Server(("127.0.0.1", 0), BaseRequestHandler)
        server.serve_forever()
        print(type(server.loop).__module__)
    """
    with running(program) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE)[0] == "uvloop\n"
