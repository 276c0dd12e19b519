"""The end of a connection: what was sent arrives, though credit comes late."""

import asyncio
import socket
from functools import partial

import pytest
from loops import DEADLINE, in_loops, until

from nghttp2py import BaseRequestHandler, HTTP2Server
from nghttp2py.asyncio import Timeouts, start_server
from nghttp2py.h2 import H2BodyReceived, H2Configuration, H2Connection, H2StreamClosed

SIZE = 1 << 20
DOWNLOADS = 8
TIMEOUTS = Timeouts(close=20)


class Handler(BaseRequestHandler):
    def on_headers(self):
        self.send_response(200, body=bytes(SIZE))


async def connected(protocol):
    async def handle(stream):
        await stream.send_response(200, body=bytes(SIZE))

    await protocol.serve_streams(handle)


class SlowClient:
    """Reads through a small buffer, in a thread; returns credit for each read."""

    def __init__(self, address, ssl):
        self.address = address
        self.ssl = ssl
        self.connection = H2Connection(
            client_side=True,
            config=H2Configuration(
                initial_window_size=262144,
                connection_window_size=1 << 20,
                manual_flow_control=True,
            ),
        )
        self.received = {}
        self.closed = {}

    def run(self, begun):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.settimeout(DEADLINE)
        sock.connect(self.address)
        if self.ssl is not None:
            sock = self.ssl.wrap_socket(sock, server_hostname="localhost")
        connection = self.connection
        connection.initiate_connection()
        for _ in range(DOWNLOADS):
            connection.send_request("GET", "/", authority="localhost")
        with sock:
            sock.sendall(connection.data_to_send())
            while data := sock.recv(16384):
                for event in connection.receive_data(data):
                    if isinstance(event, H2BodyReceived):
                        self.take(event.stream_id, len(event.body.data))
                    elif isinstance(event, H2StreamClosed):
                        self.closed[event.stream_id] = event.error_code
                if sum(self.received.values()) > SIZE:
                    begun()
                sock.sendall(connection.data_to_send())

    def take(self, stream_id, n):
        self.received[stream_id] = self.received.get(stream_id, 0) + n
        if n:
            # At once, as many clients do, and not by halves.
            self.connection.increment_flow_control_window(n)
            self.connection.acknowledge_received_data(n, stream_id)


async def serve(kind, ssl):
    if kind == "HTTP2Server":
        server = HTTP2Server(("127.0.0.1", 0), Handler, ssl=ssl, timeouts=TIMEOUTS)
        await server.start()
        return server
    return await start_server(
        connected, "127.0.0.1", 0, ssl=ssl, timeouts=TIMEOUTS, concurrency=100
    )


@pytest.mark.parametrize("over_tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@in_loops
async def test_a_graceful_close_loses_nothing_of_what_was_asked_for(
    kind, over_tls, tls
):
    server = await serve(kind, tls.server if over_tls else None)
    client = SlowClient(
        server.sockets[0].getsockname(), tls.client if over_tls else None
    )
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    task = loop.run_in_executor(
        None, client.run, partial(loop.call_soon_threadsafe, begun.set)
    )
    await begun.wait()
    server.close()
    await server.wait_closed()
    await task
    assert client.received == {1 + 2 * i: SIZE for i in range(DOWNLOADS)}
    assert set(client.closed.values()) == {0}


@in_loops
async def test_a_connection_that_the_client_leaves_open_is_closed_all_the_same():
    server = await serve("HTTP2Server", None)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"no HTTP/2 at all\r\n\r\n")
    await until(lambda: reader.at_eof() or reader._eof)
    writer.write(b"more")
    await until(lambda: not len(server._connections))
    server.close()
    await server.wait_closed()
    writer.close()
