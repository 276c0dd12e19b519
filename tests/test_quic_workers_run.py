"""QUIC over the worker processes of ``nghttp2py run``, and of the benchmark."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loops import in_loop
from quic_pair import authority, identity
from quic_workers import Mobile
from test_cli_run import program
from test_quic_workers import Stranger, first_packet
from test_workers_run import find, started

from nghttp2py.asgi import Config
from nghttp2py.asgi.workers import run_workers
from nghttp2py.asyncio import Client
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import ConfigurationError
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic import QuicConfiguration
from nghttp2py.quic.load_balancing import QuicLB

ROOT = Path(__file__).parent.parent
KEY = bytes(range(16))

# Answers with the number of its process; /wait does so when its pipe was written to.
MODULE = """
import asyncio, os, sys

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/wait":
        print("waiting", file=sys.stderr, flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: open("go").read())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def test_no_connection_is_lost_when_all_change_their_port_and_workers():
    """The benchmark, with few connections: as processes, with BPF and without."""
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "quic_workers.py")),
            *("-n", "12", "--workers", "2", "--restart"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    first, second = done.stdout.splitlines()
    for line in first, second:
        assert re.match(r"12 connections over 2 workers, .*: 0 lost; \d", line)
        assert line.endswith(" 0 of them dropped")


class MobileH3(Mobile, H3Protocol):
    """A client of HTTP/3 that can change its port."""


async def ask(protocol, path):
    """Send a request; what returns the number of the process that answers."""
    stream = await protocol.open_stream(
        [
            *((b":method", b"GET"), (b":scheme", b"https")),
            *((b":authority", b"localhost"), (b":path", path)),
        ],
        end_stream=True,
    )

    async def answer():
        return int(await stream.reader.read())

    return answer


@pytest.fixture
def secured(tmp_path):
    """The directory of an application, with what the options name."""
    chain, key = identity()
    (tmp_path / "main.py").write_text(MODULE)
    os.mkfifo(tmp_path / "go")
    (tmp_path / "cert.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "lb.key").write_text(KEY.hex() + "\n")
    (tmp_path / "seed").write_bytes(os.urandom(32))
    return tmp_path


@in_loop
async def test_a_connection_outlives_a_rolling_restart_of_the_command(secured):
    loop = asyncio.get_running_loop()
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, cadata=authority().cert_pem.bytes()
    )
    configuration.server_name = "localhost"
    with program(
        *(secured, "main:app", "--port=0", "--workers=2"),
        *("--ssl-certfile=cert.pem", "--ssl-keyfile=key.pem"),
        *("--quic-lb-server-id=0017", "--quic-lb-key-file=lb.key"),
        "--seed-file=seed",
    ) as server:
        url = await loop.run_in_executor(None, started, server)
        port = int(url.strip("/").rpartition(":")[2])

        class Address:
            address = ("127.0.0.1", port)

        with Stranger(Address) as stranger:
            stranger.send(first_packet())
            answer = await stranger.answer()
        start = 7 + answer[5]
        cid = answer[start : start + answer[start - 1]]
        assert QuicLB(b"\0\x17", 10, key=KEY).decode(cid) == b"\0\x17"
        async with connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=MobileH3
        ) as client:
            first = await (await ask(client, b"/"))()
            answer = await ask(client, b"/wait")
            await loop.run_in_executor(None, server.wait_for, "waiting$")
            server.process.send_signal(signal.SIGHUP)
            replaced = "the workers are replaced"
            await loop.run_in_executor(None, server.wait_for, replaced)
            client.move()
            await client.ping()
            (secured / "go").write_text("")
            assert await answer() == first
            client.close()
            await client.wait_closed()
            client._transport.close()


# An import that waits for its pipe, if there is a file.
HELD = """
import os, sys
if os.path.exists("held"):
    print("held", file=sys.stderr, flush=True)
    open("go").close()
"""


def ask_once(url):
    """The process that answers on a new connection of HTTP/3."""

    async def get():
        quic = QuicConfiguration(is_client=True, cadata=authority().cert_pem.bytes())
        async with Client(url, http3="only", quic=quic) as client:
            answer = await client.get("/")
            return int(await answer.read())

    return asyncio.run(get())


def test_new_connections_are_answered_while_a_killed_worker_is_not_back(secured):
    (secured / "main.py").write_text(HELD + MODULE)
    with program(
        *(secured, "main:app", "--port=0", "--workers=2"),
        *("--ssl-certfile=cert.pem", "--ssl-keyfile=key.pem"),
    ) as server:
        url = started(server).replace("127.0.0.1", "localhost")
        first = find(lambda: ask_once(url), 2)
        (secured / "held").touch()
        os.kill(min(first), signal.SIGKILL)
        server.wait_for("held$")
        # Half of them are at the socket of the other one.
        assert {ask_once(url) for _ in range(8)} == {max(first)}
        (secured / "go").write_text("")
        server.wait_for(r"worker \d \(process \d+\) is ready")
        assert min(first) not in find(lambda: ask_once(url), 2)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quic_lb_key_file": "lb.key"}, "quic_lb_key_file needs quic_lb_server_id"),
        ({"quic_lb_server_id": "xy"}, "the options of QUIC-LB: .*hexadecimal"),
        ({"quic_lb_server_id": "00" * 9}, "at most 18 bytes with workers"),
        (
            {"quic_lb_server_id": "00", "quic_lb_key_file": "seed"},
            "the options of QUIC-LB",
        ),
        (
            {"quic_lb_server_id": "00", "quic_lb_key_file": "missing"},
            "quic_lb_key_file cannot be read",
        ),
        ({"seed_file": "missing"}, "seed_file cannot be read"),
        ({"seed_file": "lb"}, "seed_file is no seed: seed must have at least 32"),
    ],
)
def test_options_of_what_workers_share_are_checked(tmp_path, options, message):
    (tmp_path / "seed").write_bytes(b"\xff" * 32)
    (tmp_path / "lb").write_text("short")
    for name in "quic_lb_key_file", "seed_file":
        if name in options:
            options = options | {name: str(tmp_path / options[name])}
    with pytest.raises(ConfigurationError, match=message):
        Config("main:app", **options).check()


def test_more_workers_than_connection_ids_can_name_are_refused(secured):
    config = Config(
        "main:app",
        port=0,
        ssl_certfile=secured / "cert.pem",
        ssl_keyfile=secured / "key.pem",
    )
    with pytest.raises(ConfigurationError, match=r"from 1 to 256 \(with HTTP/3\)"):
        run_workers(config, 257)
