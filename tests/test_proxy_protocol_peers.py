"""The PROXY protocol with Debian's HAProxy before the server."""

import asyncio
import socket

import pytest
from loops import in_loops
from peers import certificate, client_tls, free_port, server_tls
from proxies import haproxy

from nghttp2py.asyncio import Server, open_connection

HOST = "127.0.0.1"

CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen proxy
    bind 127.0.0.1:{front}
    server only 127.0.0.1:{back} {options} check inter 100ms
"""


@pytest.mark.parametrize("over_tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2"])
@in_loops
async def test_the_client_of_haproxy_is_seen(options, over_tls, tmp_path, caplog):
    ends = []

    async def app(stream):
        info = stream.connection.get_extra_info
        ends.append((info("peername"), info("sockname")))
        await stream.send_response(200, {}, b"good")

    certificate()
    version = "v2" if options.endswith("v2") else "v1"
    async with Server(
        app,
        (HOST, 0),
        ssl=server_tls() if over_tls else None,
        proxy_protocol=version,
        proxy_allow_from=HOST,
    ) as server:
        loop = asyncio.get_running_loop()
        back = server.sockets[0].getsockname()[1]
        front = free_port()
        text = CONFIGURATION.format(front=front, back=back, options=options)
        starting = haproxy(tmp_path, text, front)
        await loop.run_in_executor(None, starting.__enter__)
        try:
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, (HOST, front))
            expected = (sock.getsockname(), (HOST, front))
            over = {"ssl": client_tls(), "server_hostname": "localhost"}
            async with await open_connection(
                sock=sock, **(over if over_tls else {})
            ) as client:
                stream = await client.open_stream({":method": "GET", ":path": "/"})
                await stream.end_stream()
                assert await stream.read() == b"good"
            assert ends == [expected]
        finally:
            await loop.run_in_executor(None, starting.__exit__, None, None, None)
    # Its health checks have a header of their own.
    assert "PROXY protocol:" not in caplog.text
