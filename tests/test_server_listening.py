"""HTTP2Server itself: its addresses and sockets, its start and its end."""

import asyncio
import os
import signal
import socket
import ssl
import sys
from dataclasses import replace

import pytest
from handlers import recorder
from loops import in_loop, until
from memory import MemoryClient

from nghttp2py.asyncio.binding import UnixPath, bind_tcp
from nghttp2py.h2 import H2Configuration, H2GoAway
from nghttp2py.server import BaseRequestHandler, HTTP2Server


def connected(server, path=None):
    """Speak raw bytes to a server; whether it answers with SETTINGS."""
    address = path or server.sockets[0].getsockname()[:2]
    family = server.sockets[0].family
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        return client.recv(9)[3] == 4


async def reaches(server, path=None):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, connected, server, path)


@in_loop
async def test_a_server_listens_on_a_free_port_while_it_is_entered():
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
    assert server.sockets == ()
    async with server:
        (listening,) = server.sockets
        assert listening.getsockname()[1] > 0
        assert await reaches(server)
    assert server.sockets == ()
    await server.wait_closed()
    server.close()


@in_loop
async def test_a_server_serves_until_it_is_closed():
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler, reuse_port=True)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.sockets)
    assert await reaches(server)
    server.close()
    await task


@in_loop
async def test_a_cancelled_server_closes():
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.sockets)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.sockets == ()


@in_loop
async def test_a_server_that_is_cancelled_twice_leaves_no_signal_handler(monkeypatch):
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler)
    task = asyncio.create_task(server.serve(signals=[signal.SIGUSR1]))
    await until(lambda: server.sockets)
    # As if a stream did not end.
    monkeypatch.setattr(server, "wait_closed", asyncio.Event().wait)
    task.cancel()
    await until(lambda: not server.sockets)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@in_loop
async def test_a_connection_that_opens_after_close_is_sent_away():
    """As one does whose TLS handshake was under way; its first request may come."""
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        late = server._new_http2()
        server.close()
        client = MemoryClient(late)
        await client.exchange()
        await until(lambda: client.transport.sent)
        await client.exchange()
    assert any(isinstance(event, H2GoAway) for event in client.events)


@in_loop
async def test_a_server_that_is_closed_while_it_starts_does_not_serve(monkeypatch):
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def resolve_late(*args, **options):
        await closed.wait()
        return await resolve(*args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", resolve_late)
    server = HTTP2Server(("localhost", 0), BaseRequestHandler)
    task = asyncio.create_task(server.serve())
    await asyncio.sleep(0)
    assert server.sockets == ()
    server.close()
    closed.set()
    await task
    assert server.sockets == ()


@in_loop
async def test_who_waits_for_a_server_that_cannot_start_is_let_go():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        second = HTTP2Server(server.sockets[0].getsockname(), BaseRequestHandler)
        starting = asyncio.create_task(second.start())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(second.wait_closed())
        with pytest.raises(OSError):
            await starting
        await waiting


@in_loop
async def test_a_server_starts_once():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        with pytest.raises(RuntimeError, match="started before"):
            await server.start()


@in_loop
async def test_an_address_in_use_is_an_error():
    async with HTTP2Server(("127.0.0.1", 0), BaseRequestHandler) as server:
        taken = server.sockets[0].getsockname()
        with pytest.raises(OSError):
            await HTTP2Server(taken, BaseRequestHandler).start()


@in_loop
async def test_a_server_listens_on_ipv6():
    async with HTTP2Server(("::1", 0), BaseRequestHandler) as server:
        assert server.sockets[0].family == socket.AF_INET6
        assert await reaches(server)


@in_loop
async def test_no_host_is_all_interfaces():
    loop = asyncio.get_running_loop()
    sockets = await bind_tcp(loop, None, 0)
    assert {s.getsockname()[0] for s in sockets} == {"0.0.0.0", "::"}
    for s in sockets:
        s.close()


@pytest.mark.parametrize("make_address", [str, os.fsencode, lambda path: path])
@in_loop
async def test_a_server_listens_on_a_unix_socket(tmp_path, make_address):
    path = tmp_path / "socket"
    handler = recorder()
    async with HTTP2Server(make_address(path), handler) as server:
        assert await reaches(server, str(path))
    assert not path.exists()


@in_loop
async def test_a_server_listens_on_an_abstract_unix_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Only Linux has them.
    address = f"\0{tmp_path}" if sys.platform == "linux" else "socket"
    async with HTTP2Server(address, BaseRequestHandler) as server:
        assert await reaches(server, address)


@in_loop
async def test_a_server_whose_socket_vanishes_does_not_listen(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    made = []

    def vanish(name):
        os.unlink(name)
        made.append(name)
        return UnixPath(name)

    monkeypatch.setattr("nghttp2py.asyncio.binding.UnixPath", vanish)
    server = HTTP2Server(path, BaseRequestHandler)
    with pytest.raises(FileNotFoundError):
        await server.start()
    assert made and server.sockets == ()


@in_loop
async def test_a_server_leaves_the_unix_socket_of_its_successor(tmp_path):
    path = tmp_path / "socket"
    async with HTTP2Server(path, BaseRequestHandler):
        path.unlink()
        async with HTTP2Server(path, BaseRequestHandler) as second:
            inode = path.stat().st_ino
            assert await reaches(second, str(path))
            assert path.stat().st_ino == inode
            second._listener._paths.clear()
    # The first saw that the path is not its own any more.
    assert path.exists()


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((("127.0.0.1", 0, 0), BaseRequestHandler), ValueError),
        ((5, BaseRequestHandler), TypeError),
        ((("127.0.0.1", 0), object), TypeError),
        ((("127.0.0.1", 0), "Handler"), TypeError),
        ((("127.0.0.1", 0), BaseRequestHandler, True), TypeError),
    ],
)
def test_a_server_checks_its_arguments(arguments, error):
    with pytest.raises(error):
        HTTP2Server(*arguments)


def test_an_address_that_is_a_list_is_told_by_its_name():
    with pytest.raises(TypeError, match="address must be a tuple"):
        HTTP2Server(["127.0.0.1", 0], BaseRequestHandler)


def test_a_servers_own_configuration_can_be_changed_in_part():
    config = replace(HTTP2Server.DEFAULT_CONFIGURATION, max_concurrent_streams=7)
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler, config=config)
    assert server.config.initial_window_size == 262144
    assert not server.config.enable_connect_protocol


def test_alpn_is_set_on_the_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    HTTP2Server(("127.0.0.1", 0), BaseRequestHandler, ssl=context)
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_received_data_are_always_credited_by_hand():
    config = H2Configuration(max_concurrent_streams=7)
    server = HTTP2Server(("127.0.0.1", 0), BaseRequestHandler, config=config)
    assert server.config.manual_flow_control
    assert server.config.max_concurrent_streams == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_serve_forever_when_streams_have_finished(number):
    import subprocess

    program = (
        "import sys\n"
        "from nghttp2py.server import BaseRequestHandler, HTTP2Server\n"
        "class Server(HTTP2Server):\n"
        "    async def start(self):\n"
        "        await super().start()\n"
        "        print(self.sockets[0].getsockname()[1], flush=True)\n"
        "Server(('127.0.0.1', 0), BaseRequestHandler).serve_forever()\n"
        "print('stopped')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                assert client.recv(9)[3] == 4
                process.send_signal(number)
                received = b""
                while b"shutdown" not in received:  # the PING of the first GOAWAY
                    received += client.recv(4096)
                client.sendall(b"\0\0\x08\x06\x01\0\0\0\0shutdown")
                while client.recv(4096):
                    pass
            assert process.stdout.read() == "stopped\n"
            assert process.wait(10) == 0
        finally:
            process.kill()
