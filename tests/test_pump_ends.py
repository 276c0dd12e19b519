"""Calls that end a connection: each is good in every state, in both roles."""

import asyncio
import logging

import pytest
from helpers import data, goaway, settings, settings_ack
from loops import in_loop, in_virtual_time, until
from memory import MemoryClient, MemoryTransport
from virtual_time import pass_time

from nghttp2py import BaseRequestHandler, HTTP2Client, HTTP2Server
from nghttp2py.asyncio import H2Protocol, H2Pump, open_connection, start_server
from nghttp2py.asyncio.bounds import LINGER_TIME
from nghttp2py.asyncio.listener import LAST_REQUEST_TIME
from nghttp2py.asyncio.pump import NOTICE_DELAY, NOTICE_TIME, QUIET_TIME
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ConnectionTerminatedError, ErrorCode
from nghttp2py.h2 import H2Configuration, H2Connection, H2GoAway

WIDE = H2Configuration(initial_window_size=1 << 24, connection_window_size=1 << 24)


class Big(H2Pump):
    """A server that answers each request by more than a transport takes."""

    def __init__(self):
        super().__init__(H2Connection())

    def event_received(self, event):
        if type(event).__name__ == "H2RequestReceived":
            self.connection.send_response_headers(event.stream_id, 200, [])
            self.connection.send_body(event.stream_id, bytes(1 << 20))
            self.mark_dirty()


class Greeted:
    """A pump of either role with a peer of raw frames, past the handshake."""

    def __init__(self, role, transport=True):
        self.role = role
        if role == "server":
            self.pump = Big()
        elif role == "streams server":
            self.pump = H2Protocol(False)
        elif role == "client":
            self.pump = H2Pump(H2Connection(client_side=True))
        else:
            self.pump = H2Protocol(True)
        self.transport = None
        if not transport:
            return
        if "server" in role:
            client = MemoryClient(self.pump, config=WIDE)
            client.converse()
            client.request(end_stream=False)
            self.pump.data_received(client.connection.data_to_send())
            self.transport = client.transport
        else:
            self.transport = MemoryTransport(self.pump)
            self.pump.connection_made(self.transport)
            self.pump.data_received(settings() + settings_ack())


def before_connection_made(role):
    return Greeted(role, transport=False)


def greeted(role):
    return Greeted(role)


def ended_by_an_error_with_output_held_back(role):
    greeted = Greeted(role)
    greeted.pump.pause_writing()
    greeted.pump.data_received(data(0, b"x"))
    return greeted


def settings_timed_out(role):
    greeted = Greeted(role)
    greeted.pump.pause_writing()
    greeted.pump._terminate(ErrorCode.SETTINGS_TIMEOUT, "on purpose")
    return greeted


def the_peer_said_goaway(role):
    greeted = Greeted(role)
    greeted.pump.data_received(goaway(0, ErrorCode.ENHANCE_YOUR_CALM))
    return greeted


def closing(role):
    greeted = Greeted(role)
    greeted.pump.close()
    return greeted


def terminated(role):
    greeted = Greeted(role)
    greeted.pump.terminate()
    return greeted


def aborted(role):
    greeted = Greeted(role)
    greeted.pump.abort()
    return greeted


def lost(role):
    greeted = Greeted(role)
    greeted.pump.connection_lost(None)
    return greeted


STATES = [
    before_connection_made,
    greeted,
    ended_by_an_error_with_output_held_back,
    settings_timed_out,
    the_peer_said_goaway,
    closing,
    terminated,
    aborted,
    lost,
]
CALLS = ["close", "terminate", "abort", "close_connection"]
ROLES = ["server", "client", "streams server", "streams client"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("role", ROLES)
@in_loop
async def test_a_call_that_ends_is_good_in_every_state(role, state, call, caplog):
    caplog.set_level(logging.INFO)
    greeted = state(role)
    pump = greeted.pump
    end = getattr(pump, call, None) or pump.connection.close_connection
    if state is before_connection_made and not hasattr(pump, call):
        return  # that one is not the pump's
    end()
    end()
    pump.close(timeout=0.01)
    if greeted.transport is None:
        transport = MemoryTransport(pump)
        pump.connection_made(transport)
        assert transport.aborted
        await until(lambda: pump.transport is None)
    elif pump.transport is not None:
        await until(lambda: pump.transport is None)
    end()
    pump.close()
    pump.abort()
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


@in_loop
async def test_a_second_close_shortens_the_time_that_is_left():
    client = MemoryClient(Big())
    client.request(end_stream=False)
    await client.exchange()
    client.protocol.close(timeout=1000)
    client.protocol.close(timeout=0.01)
    await until(lambda: client.transport.aborted)


async def connect_raw(address, *frames):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"".join(frames))
    return reader, writer


class BigHandler(BaseRequestHandler):
    def on_headers(self):
        self.send_response(200, body=bytes(1 << 24))


def big_request():
    client = H2Connection(client_side=True, config=WIDE)
    client.initiate_connection()
    client.send_request("GET", "/", authority="test")
    return client.data_to_send()


@in_loop
async def test_a_server_closes_though_a_session_has_failed_before(caplog):
    """A client that does not read, and then breaks a rule."""
    server = HTTP2Server(("127.0.0.1", 0), BigHandler, close_timeout=0.3)
    await server.start()
    address = server.sockets[0].getsockname()
    _, bad = await connect_raw(address, big_request())
    _, good = await connect_raw(address, big_request())
    await until(lambda: len(server._connections) == 2)
    # Before their first bytes it is not known which version they speak.
    await until(lambda: all(isinstance(p, H2Pump) for p in server._connections))
    await until(lambda: all(p._paused for p in server._connections))
    bad.write(data(0, b"x"))
    await until(lambda: any(p.connection.is_closed for p in server._connections))
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)
    assert "Traceback" not in caplog.text
    bad.close()
    good.close()


async def serve_silence(reader, writer):
    """A server that never says a word."""
    await reader.read()
    writer.close()


@in_loop
async def test_leaving_a_client_after_its_settings_timed_out():
    silent = await asyncio.start_server(serve_silence, "127.0.0.1", 0)
    address = silent.sockets[0].getsockname()
    async with silent:
        async with await open_connection(*address, settings_timeout=0.05) as protocol:
            stream = await protocol.open_stream(
                [(":method", "GET"), (":path", "/")], end_stream=True
            )
            with pytest.raises(ConnectionTerminatedError):
                await stream.response()
        async with await open_connection(
            *address,
            settings_timeout=30,
            keepalive_interval=0.05,
            keepalive_timeout=0.05,
        ) as protocol:
            stream = await protocol.open_stream(
                [(":method", "GET"), (":path", "/")], end_stream=True
            )
            with pytest.raises(ConnectionTerminatedError):
                await stream.response()


@in_loop
async def test_a_client_of_handlers_ends_quietly_when_the_server_breaks_a_rule(caplog):
    async def serve(reader, writer):
        await reader.readuntil(b"SM\r\n\r\n")
        writer.write(settings() + data(0, b"x"))
        await reader.read()
        writer.close()

    bad = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with bad:
        client = HTTP2Client(bad.sockets[0].getsockname())
        client.send_request("POST", "/", body=bytes(1 << 20))
        client.finish()
        await asyncio.wait_for(client.wait_closed(), 20)
        client.close()
        client.finish()
    assert "Traceback" not in caplog.text


@in_loop
async def test_a_streams_server_closes_though_a_session_has_failed_before():
    async def connected(protocol):
        stream = await protocol.accept_stream()
        await stream.send_response(200, body=bytes(1 << 24))

    server = await start_server(connected, "127.0.0.1", 0, close_timeout=0.3)
    address = server.sockets[0].getsockname()
    _, bad = await connect_raw(address, big_request())
    await until(lambda: any(p._paused for p in server.connections))
    bad.write(data(0, b"x"))
    await until(lambda: all(p.connection.is_closed for p in server.connections))
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)
    bad.close()


# ---- A peer that does not close its half ----


@pytest.mark.parametrize("taken", [0, 1.2], ids=["taken", "taken later"])
@pytest.mark.parametrize("role", ["server", "streams server", "client", "streams"])
@in_virtual_time
async def test_a_peer_that_does_not_close_is_waited_for_once(role, taken):
    """From the end, or from when it has taken what was sent."""
    loop = asyncio.get_running_loop()
    greeted = Greeted(role)
    pump, transport = greeted.pump, greeted.transport
    transport.write_eof = lambda: None
    pump.terminate()
    pump.flush()
    ended = loop.time()
    assert transport.sent and not transport.closing

    def take():
        transport.take()
        if not transport.closed:
            loop.call_later(0.1, take)

    if taken:
        loop.call_later(taken, take)
    else:
        take()
    await until(lambda: transport.closed)
    assert 0 <= loop.time() - ended - taken - LINGER_TIME <= 0.6
    await until(lambda: pump.transport is None)


# The type of the frame GOAWAY, on the connection's stream.
GOAWAY = b"\x07\0\0\0\0\0"


@in_virtual_time
async def test_a_client_that_does_not_read_holds_a_close_up_for_a_moment():
    """httpx does not read, and answers no PING, while it makes no request."""
    loop = asyncio.get_running_loop()
    client = MemoryClient(H2Protocol(False))
    client.converse()
    begun = loop.time()
    client.protocol.close(timeout=1000)
    await until(lambda: client.transport.closing)
    assert client.transport.sent.count(GOAWAY) == 2
    bound = LAST_REQUEST_TIME + NOTICE_TIME
    assert bound <= loop.time() - begun < bound + 0.5


@in_virtual_time
async def test_a_new_connection_gets_its_first_requests_answered_before_goaway():
    """nghttp2's clients fail what they have not sent yet when a GOAWAY comes."""
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    client.protocol.close(timeout=1000)
    await client.exchange()
    assert not any(isinstance(event, H2GoAway) for event in client.events)
    number = client.request()
    client.converse()
    stream = await client.protocol.accept_stream()
    await stream.send_response(200, body=b"a")
    await until(lambda: client.protocol.transport is None)
    await client.exchange()
    assert client.response(number).body == b"a"
    assert sum(isinstance(event, H2GoAway) for event in client.events) == 2


async def answer_one(client):
    """Have a request answered, and return its response."""
    number = client.request()
    client.converse()
    stream = await client.protocol.accept_stream()
    await stream.send_response(200, body=b"a")
    await client.exchange()
    return client.response(number)


@pytest.mark.parametrize("pause", [0, 0.8 * QUIET_TIME], ids=["at once", "later"])
@in_virtual_time
async def test_a_client_between_two_requests_gets_no_goaway(pause):
    """A client of nghttp2 would fail the next ones, which it has ready."""
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    await answer_one(client)
    client.protocol.close(timeout=1000)
    for _ in range(3):
        await pass_time(pause)
        assert (await answer_one(client)).body == b"a"
    assert not any(isinstance(event, H2GoAway) for event in client.events)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await until(lambda: GOAWAY in client.transport.sent)
    assert QUIET_TIME <= loop.time() - begun < QUIET_TIME + 0.1
    await client.exchange()
    await until(lambda: client.protocol.transport is None)


@in_virtual_time
async def test_a_slow_response_that_has_just_ended_counts_as_a_request():
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    number = client.request()
    client.converse()
    stream = await client.protocol.accept_stream()
    await pass_time(10 * QUIET_TIME)
    await stream.send_response(200, body=b"a")
    client.protocol.close(timeout=1000)
    await client.exchange()
    assert client.response(number).body == b"a"
    assert (await answer_one(client)).body == b"a"
    assert not any(isinstance(event, H2GoAway) for event in client.events)
    client.protocol.abort()


@in_virtual_time
async def test_a_client_that_never_stops_gets_goaway_in_the_end():
    loop = asyncio.get_running_loop()
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    begun = loop.time()
    client.protocol.close(timeout=1000)
    answered = 0
    while not any(isinstance(event, H2GoAway) for event in client.events):
        response = await answer_one(client)
        assert response.body == b"a"
        answered += 1
        await pass_time(0.1)
    assert NOTICE_DELAY / 2 <= loop.time() - begun < NOTICE_DELAY / 2 + 0.5
    assert answered > 5
    await until(lambda: client.protocol.transport is None)


@in_virtual_time
async def test_goaway_follows_the_last_open_response_of_a_busy_client():
    """Clients that use the package h2 lose the responses that come after it."""
    loop = asyncio.get_running_loop()
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    client.request()
    client.converse()
    stream = await client.protocol.accept_stream()
    client.protocol.close(timeout=1000)
    await pass_time(0.7 * NOTICE_DELAY)
    assert GOAWAY not in client.transport.sent
    await stream.send_response(200, body=b"a")
    begun = loop.time()
    await until(lambda: GOAWAY in client.transport.sent)
    assert loop.time() - begun < 0.1
    client.protocol.abort()


@in_virtual_time
async def test_an_idle_connection_gets_goaway_at_its_bound():
    loop = asyncio.get_running_loop()
    timeouts = Timeouts(idle=5)
    client = MemoryClient(H2Protocol(False, timeouts=timeouts), config=WIDE)
    client.converse()
    await answer_one(client)
    begun = loop.time()
    await until(lambda: GOAWAY in client.transport.sent)
    assert 5 <= loop.time() - begun < 5.1
    client.protocol.abort()


@in_virtual_time
async def test_the_first_goaway_comes_after_the_open_responses():
    """Clients that use the package h2 read nothing after a GOAWAY."""
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    number = client.request()
    client.converse()
    stream = await client.protocol.accept_stream()
    client.protocol.close(timeout=1000)
    await client.exchange()
    assert not any(isinstance(event, H2GoAway) for event in client.events)
    client.request("/another")
    await client.exchange()
    another = await client.protocol.accept_stream()
    await another.send_response(200, body=b"b")
    await stream.send_response(200, body=b"a")
    await until(lambda: GOAWAY in client.transport.sent)
    await client.exchange()
    names = [type(event).__name__ for event in client.events]
    assert names.index("H2GoAway") > names.index("H2BodyReceived")
    assert client.response(number).body == b"a"
    await until(lambda: client.protocol.transport is None)


@in_virtual_time
async def test_a_response_without_an_end_does_not_hold_goaway_back_for_ever():
    loop = asyncio.get_running_loop()
    client = MemoryClient(H2Protocol(False), config=WIDE)
    client.converse()
    client.request()
    client.converse()
    begun = loop.time()
    client.protocol.close(timeout=1000)
    await until(lambda: GOAWAY in client.transport.sent)
    assert NOTICE_DELAY <= loop.time() - begun < NOTICE_DELAY + 0.5
    client.protocol.close(timeout=0.01)
    await until(lambda: client.transport.aborted)
