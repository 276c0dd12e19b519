"""Connections in several threads at once, under the GIL and without it.

An object is used by one thread at a time; what objects share behind their backs, and
events that are only read, is for all of them: docs/design.rst, "Threads".
"""

import asyncio
import os
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_quic import REQUEST
from h3_streams import OK, pair, request, whole
from helpers import Peers
from loops import DEADLINE, TEST_DEADLINE
from peers import Echo, client_tls, server_tls
from quic_pair import (
    CLIENT,
    SERVER,
    Network,
    client_configuration,
    events_of,
    server_configuration,
)
from test_h3_direct import Pair, conversation

import nghttp2py
from nghttp2py.asyncio import Client
from nghttp2py.h2 import H2Connection, H2RequestReceived
from nghttp2py.h3 import QPACKDecoder, QPACKEncoder
from nghttp2py.h3.events import DataReceived
from nghttp2py.hpack import HDDeflater, HDInflater
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import StreamDataReceived
from nghttp2py.server import HTTP2Server

THREADS = 4
NOW = 1000.0


@pytest.fixture(autouse=True)
def frequent_switches():
    """Have threads take turns often where they must take turns."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(function, arguments=range(THREADS)):
    """Call ``function`` with each argument in a thread of its own, all at once.

    Returns the results, in order; raises what one of them raised.
    """
    arguments = list(arguments)
    barrier = threading.Barrier(len(arguments))

    def run(argument):
        barrier.wait(DEADLINE)
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(run, arguments, timeout=TEST_DEADLINE))


def modules():
    """The names of all compiled modules."""
    package = os.path.dirname(nghttp2py.__file__)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for folder, _, files in os.walk(package):
        for file in files:
            if file.endswith(suffix):
                path = os.path.join(folder, file.removesuffix(suffix))
                yield os.path.relpath(path, os.path.dirname(package)).replace("/", ".")


def test_no_module_needs_the_gil():
    """One that does switches it on for the whole program, with a warning."""
    names = sorted(modules())
    assert "nghttp2py.h2.connection" in names
    program = f"import {', '.join(names)}, sys\nprint(sys._is_gil_enabled())"
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        program = program.replace("sys._is_gil_enabled()", "False")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# ---- Connections, each in a thread ----

# Lists of two threads have the same objects.
LISTS = [
    [
        (b":method", b"GET"),
        (b":path", f"/{i}"),
        ("x-number", str(i % 7)),
        ("user-agent", b"threads/1"),
        ("cookie", b"c" * (i % 40)),
    ]
    for i in range(60)
]


def code_hpack(_):
    blocks, lists = [], []
    for _ in range(10):
        deflater, inflater = HDDeflater(), HDInflater()
        for headers in LISTS:
            blocks.append(deflater.deflate(headers))
            lists.append(inflater.inflate(blocks[-1]))
    return blocks, lists


def code_qpack(_):
    sections, lists = [], []
    for _ in range(10):
        encoder, decoder = QPACKEncoder(), QPACKDecoder()
        encoder.apply_settings(4096, 16)
        for i, headers in enumerate(LISTS):
            fields = [
                (n.encode() if isinstance(n, str) else n, v.encode())
                for n, v in headers
                if isinstance(v, str)
            ]
            sections.append(encoder.encode(4 * i, fields))
            decoder.receive_data(encoder.data_to_send())
            lists.append(decoder.decode(4 * i, sections[-1]))
            encoder.receive_data(decoder.data_to_send())
    return sections, lists


def talk_http2(_):
    """Many exchanges on a connection: the bytes of both ways, and the events."""
    client, server = H2Connection(client_side=True), H2Connection()
    client.initiate_connection()
    server.initiate_connection()
    seen = []

    def carry():
        while True:
            sent = client.data_to_send(), server.data_to_send()
            if sent == (b"", b""):
                return
            events = server.receive_data(sent[0]) + client.receive_data(sent[1])
            for event in events:
                if isinstance(event, H2RequestReceived):
                    server.send_response_headers(event.stream_id, 200, LISTS[1][2:])
                    server.send_body(event.stream_id, event.request.target * 3000)
            seen.append((sent, events))

    for headers in LISTS:
        stream_id = client.send_request(
            "POST",
            headers[1][1],
            headers[2:],
            authority="example.org",
            end_stream=False,
        )
        client.send_body(stream_id, b"request body " * 100)
        carry()
    return seen


@pytest.mark.parametrize("talk", [code_hpack, code_qpack, talk_http2])
def test_each_thread_gets_what_one_thread_gets(talk):
    alone = talk(0)
    for result in in_threads(talk):
        assert result == alone


def test_http3_in_each_thread_is_as_in_one():
    alone = [conversation(Pair(), seed) for seed in range(THREADS)]
    assert in_threads(lambda seed: conversation(Pair(), seed)) == alone


def test_threads_share_a_configuration_of_quic():
    """Certificates, trust and ticket key are one object of C for all of them."""
    server = server_configuration()
    client = client_configuration()
    tickets = []

    def run(thread):
        for i in range(10):
            network = Network(
                QuicConnection(
                    configuration=client, session_ticket_handler=tickets.append
                ),
                QuicConnection(
                    configuration=server, session_ticket_handler=lambda ticket: None
                ),
                seed=i,
            ).handshake()
            body = bytes([thread, i]) * 20000
            assert network.transfer(network.client, body) == body
            assert network.transfer(network.server, body, 1) == body
        return True

    assert all(in_threads(run))
    assert len(tickets) >= 10 * THREADS


def test_early_data_are_taken_once_though_they_come_in_many_threads():
    """RFC 8446, 8.  Each connection is a server's, with one configuration."""
    server = server_configuration()
    client = client_configuration()
    tickets = []
    Network(
        QuicConnection(configuration=client, session_ticket_handler=tickets.append),
        QuicConnection(configuration=server, session_ticket_handler=lambda _: None),
    ).handshake()
    client.session_ticket = tickets[0]

    def take(flight):
        quic = QuicConnection(
            configuration=server, session_ticket_handler=lambda _: None
        )
        for data, _ in flight:
            quic.receive_datagram(data, CLIENT, NOW)
        return any(isinstance(event, StreamDataReceived) for event in events_of(quic))

    for _ in range(10):
        quic = QuicConnection(configuration=client)
        quic.send_stream_data(0, b"pay 100", end_stream=True)
        quic.connect(SERVER, NOW)
        flight = quic.datagrams_to_send(NOW)
        assert sum(in_threads(take, [flight] * THREADS)) == 1


# ---- What threads may do with the same object ----


def requests_of(ends, bodies):
    """Send each body in a request; return the server's events with data, unread."""
    events = []
    for body in bodies:
        stream_id = ends.client_quic.get_next_available_stream_id()
        ends.client.send_headers(stream_id, REQUEST)
        ends.client.send_data(stream_id, body, True)
        for _ in range(4):
            ends.carry()
            events += events_of(ends.server_quic)
    return [event for event in events if isinstance(event, StreamDataReceived)]


def test_threads_read_the_same_event_of_quic():
    """Its bytes are lent by the connection, which uses them at the same time."""
    ends = Pair()

    def handle(events):
        seen = [e for event in events for e in ends.server.handle_event(event)]
        body = b"".join([e.data for e in seen if isinstance(e, DataReceived)])
        return body, read(events)

    def read(events):
        return b"".join([event.data for event in events])

    for i in range(30):
        body = b"%04d" % i * 2000
        events = requests_of(ends, [body])
        (handled, data), *others = in_threads(
            lambda run, events=events: run(events), [handle, read, read, read]
        )
        assert handled == body
        assert data.endswith(body)
        assert others == [data] * 3


def test_threads_drop_events_that_borrow_from_one_connection():
    """The last of them frees the store, while the connection fills another."""
    ends = Pair()
    dropped = []

    def drop(events):
        while events:
            dropped.append(type(events.pop()))

    for _ in range(10):
        events = requests_of(ends, [b"lent " * 1000] * 8)
        shares = [events[i :: THREADS - 1] for i in range(THREADS - 1)]
        count = len(events)
        events.clear()
        dropped.clear()
        jobs = [
            lambda: requests_of(ends, [b"meanwhile " * 500] * 4),
            *(lambda share=share: drop(share) for share in shares),
        ]
        (fresh, *_) = in_threads(lambda job: job(), jobs)
        assert len(dropped) == count
        data = b"".join([event.data for event in fresh])
        assert data.count(b"meanwhile ") == 2000


def test_threads_read_the_same_request_of_http2():
    peers = Peers()
    for _ in range(50):
        peers.clear()
        peers.request(headers=[("x", "y")])
        (event,) = (e for e in peers.server_events if isinstance(e, H2RequestReceived))
        first, *others = in_threads(lambda _, event=event: event.request.headers)
        assert first == ((b"host", b"example.org"), (b"x", b"y"))
        assert all(headers is first for headers in others)


def test_a_list_of_fields_may_change_while_others_send_it():
    """What is sent is what it held at one moment: no field that is gone."""
    headers = [("first", "1")]
    done = threading.Event()

    def change(_):
        for i in range(20000):
            # New objects, which the list alone holds.
            headers.append((f"x-{i}", (b"%d" % i) * 3))
            headers.append((f"y-{i}", str(i) * 3))
            del headers[1:]
        done.set()

    def check(fields):
        (name, value), *rest = fields
        assert (name, value) == (b"first", b"1")
        assert len(rest) <= 2
        for name, value in rest:
            assert value == name[2:] * 3

    def deflate(_):
        while not done.is_set():
            check(HDInflater().inflate(HDDeflater().deflate(headers)))

    def respond(_):
        while not done.is_set():
            peers = Peers()
            stream_id = peers.request()
            peers.server.send_response_headers(stream_id, 200, headers, end_stream=True)
            peers.pump()
            (event,) = (e for e in peers.client_events if hasattr(e, "status"))
            check(event.headers)

    in_threads(lambda run: run(0), [change, deflate, deflate, respond])


# ---- Event loops, each in a thread ----


def in_loops_in_threads(main):
    """Run ``main(thread)`` in an event loop of each thread."""
    return in_threads(
        lambda thread: asyncio.run(asyncio.wait_for(main(thread), TEST_DEADLINE))
    )


@pytest.mark.parametrize("secure", [False, True])
def test_servers_and_clients_of_http2_in_threads(secure):
    """All servers share a TLS context, all clients another."""
    server_context = server_tls() if secure else None
    client_context = client_tls() if secure else None
    scheme = "https" if secure else "http"

    async def main(thread):
        async with HTTP2Server(("127.0.0.1", 0), Echo, server_context) as server:
            host, port = server.sockets[0].getsockname()
            origin = f"{scheme}://{host}:{port}"
            async with Client(origin, ssl=client_context) as client:
                for i in range(10):
                    bodies = [bytes([thread, i, j]) * 5000 for j in range(10)]
                    responses = await asyncio.gather(
                        *(client.post("/", body=body) for body in bodies)
                    )
                    for response, body in zip(responses, bodies, strict=True):
                        assert await response.read() == body
        return True

    assert all(in_loops_in_threads(main))


def test_a_server_answers_clients_of_other_threads():
    async def ask(origin, thread):
        async with Client(origin) as client:
            for i in range(30):
                body = bytes([thread, i]) * 10000
                response = await client.post("/", body=body)
                assert await response.read() == body
        return True

    async def main():
        async with HTTP2Server(("127.0.0.1", 0), Echo) as server:
            host, port = server.sockets[0].getsockname()
            return await asyncio.to_thread(
                in_loops_in_threads, lambda thread: ask(f"http://{host}:{port}", thread)
            )

    assert all(asyncio.run(main()))


def test_servers_and_clients_of_http3_in_threads():
    async def echo(stream):
        body = await whole(stream)
        stream.send_headers(OK)
        await stream.send_data(body, end_stream=True)

    async def main(thread):
        async with pair(echo) as (client, _):
            for i in range(10):
                body = bytes([thread, i]) * 10000
                stream = await client.open_stream(request(method=b"POST"))
                await stream.send_data(body, end_stream=True)
                assert await stream.response() == OK
                assert await whole(stream) == body
        return True

    assert all(in_loops_in_threads(main))
