"""A server that stops answers what clients have sent before they could know."""

import asyncio
import socket

import pytest
from loops import in_loops

from nghttp2py.asyncio import Server

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def hello(stream):
    await stream.send_response(200, {"content-length": "5"}, b"hello")


async def receive(sock):
    """What a socket receives until the server closes it."""
    loop = asyncio.get_running_loop()
    data = b""
    while piece := await loop.sock_recv(sock, 65536):
        data += piece
    return data


def connect(server, count):
    """Connect sockets, which the server has no turn to accept meanwhile."""
    address = server.sockets[0].getsockname()
    made = []
    for _ in range(count):
        sock = socket.create_connection(address)
        sock.setblocking(False)
        made.append(sock)
    return made


@in_loops
async def test_connections_that_wait_to_be_accepted_are_served():
    async with Server(hello, ("127.0.0.1", 0)) as server:
        sockets = connect(server, 100)
        for sock in sockets:
            sock.sendall(REQUEST)
        server.close()
        for sock in sockets:
            with sock:
                answer = await receive(sock)
                assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello")
                assert b"connection: close" in answer


@in_loops
async def test_the_limit_of_connections_holds_for_those_that_wait():
    async with Server(hello, ("127.0.0.1", 0), limit_connections=3) as server:
        sockets = connect(server, 5)
        for sock in sockets:
            sock.sendall(REQUEST)
        server.close()
        answers = await asyncio.gather(*map(receive, sockets), return_exceptions=True)
        for sock in sockets:
            sock.close()
    assert sum(isinstance(answer, bytes) for answer in answers) == 3


@in_loops
@pytest.mark.parametrize("first", [b"", b"G", REQUEST], ids=["new", "begun", "kept"])
async def test_a_request_that_crosses_the_end_is_answered(first):
    async with Server(hello, ("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        (sock,) = connect(server, 1)
        with sock:
            sock.sendall(first)
            if first == REQUEST:
                assert await loop.sock_recv(sock, 65536)
            while not server.counts.accepted:
                await asyncio.sleep(0)
            server.close()
            await asyncio.sleep(0)
            sock.sendall(REQUEST if first == REQUEST else REQUEST[len(first) :])
            answer = await receive(sock)
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello")
            assert b"connection: close" in answer


@in_loops
async def test_a_connection_without_a_request_is_closed_soon():
    async with Server(hello, ("127.0.0.1", 0)) as server:
        (sock,) = connect(server, 1)
        with sock:
            while not server.counts.accepted:
                await asyncio.sleep(0)
            server.close()
            assert await receive(sock) == b""
