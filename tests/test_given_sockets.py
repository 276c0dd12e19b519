"""Sockets that the caller gives to servers and clients: which fit, and which not."""

import contextlib
import socket

import pytest
from loops import in_loops
from quic_pair import client_configuration, server_configuration

from nghttp2py.asyncio import (
    Server,
    connect,
    open_connection,
    open_unix_connection,
    serve,
    start_server,
    start_unix_server,
)
from nghttp2py.server import BaseRequestHandler, HTTP2Server


async def app(stream):
    await stream.send_response(200, {}, b"")


async def connected(protocol):
    await protocol.wait_closed()


@contextlib.contextmanager
def sockets():
    """Give a function that makes a socket of a kind; all are closed afterwards."""
    with contextlib.ExitStack() as stack:

        def make(kind):
            family, type_ = socket.AF_INET, socket.SOCK_STREAM
            if "unix" in kind:
                family = socket.AF_UNIX
            if "datagrams" in kind:
                type_ = socket.SOCK_DGRAM
            if kind == "connected unix":
                ours, theirs = socket.socketpair()
                stack.enter_context(theirs)
                return stack.enter_context(ours)
            sock = stack.enter_context(socket.socket(family, type_))
            if kind == "closed":
                sock.close()
            if kind == "listening":
                sock.bind(("127.0.0.1", 0))
                sock.listen()
            if kind == "connected":
                peer = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                sock.connect(peer.getsockname())
            if kind == "connected datagrams":
                sock.connect(("127.0.0.1", 9))
            return sock

        yield make


SERVERS = {
    "HTTP2Server": lambda sock: HTTP2Server(None, BaseRequestHandler, sock=sock),
    "Server": lambda sock: Server(app, sock=sock),
    "start_server": lambda sock: start_server(connected, sock=sock),
    "start_unix_server": lambda sock: start_unix_server(connected, sock=sock),
}
CLIENTS = {
    "open_connection": lambda sock: open_connection(sock=sock),
    "open_unix_connection": lambda sock: open_unix_connection(sock=sock),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("closed", "is closed"),
        ("connected", "must be bound, and not connected"),
        ("connected unix", "must be bound, and not connected"),
        ("unix", "must be bound"),
        ("datagrams", "must be a stream socket"),
        ("unix datagrams", "must be a stream socket"),
    ],
)
@in_loops
async def test_a_server_refuses_a_socket_that_it_cannot_listen_on(name, kind, why):
    with sockets() as make, pytest.raises(ValueError, match=f"sock {why}"):
        made = SERVERS[name](make(kind))
        if not isinstance(made, Server):
            await made


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("closed", "is closed"),
        ("new", "must be connected"),
        ("listening", "must be connected"),
        ("unix", "must be connected"),
        ("connected datagrams", "must be a stream socket"),
    ],
)
@in_loops
async def test_a_client_refuses_a_socket_without_a_peer(name, kind, why):
    with sockets() as make, pytest.raises(ValueError, match=f"sock {why}"):
        await CLIENTS[name](make(kind))


@in_loops
async def test_a_client_raises_that_its_socket_has_lost_the_peer():
    with sockets() as make:
        listening = make("listening")
        sock = make("new")
        sock.connect(listening.getsockname())
        listening.close()  # which resets what it has not accepted
        with pytest.raises(ConnectionResetError):
            await open_connection(sock=sock)


@in_loops
async def test_quic_refuses_a_socket_that_is_closed_or_has_one_peer():
    with sockets() as make:
        for kind, why in (
            ("closed", "is closed"),
            ("connected datagrams", "must be bound, and not connected"),
        ):
            with pytest.raises(ValueError, match=f"sock {why}"):
                await serve(configuration=server_configuration(), sock=make(kind))
        with pytest.raises(ValueError, match="sock is closed"):
            async with connect(
                "127.0.0.1",
                9,
                configuration=client_configuration(),
                sock=make("closed"),
            ):
                pass


@in_loops
async def test_a_client_takes_a_connected_socket():
    async with Server(app, ("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.sockets[0].getsockname())
        async with await open_connection(sock=sock) as connection:
            stream = await connection.open_stream(
                [
                    (b":method", b"GET"),
                    (b":scheme", b"http"),
                    (b":authority", b"a"),
                    (b":path", b"/"),
                ],
                end_stream=True,
            )
            assert (await stream.response()).status == 200
    assert sock.fileno() == -1
