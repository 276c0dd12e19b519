"""The carrier of bytes, between a transport in memory and a connection."""

import asyncio
import logging
import math
from types import SimpleNamespace

import pytest
from loops import in_loop, in_virtual_time, until
from memory import MemoryClient, MemoryTransport

from nghttp2py.asyncio import H2Pump
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2GoAway,
    H2RequestReceived,
    H2SettingsReceived,
    H2StreamClosed,
)
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK


class Pump(H2Pump):
    """Answers each request at its end, and keeps all events."""

    body = b"hello"

    def __init__(self, config=None, **options):
        super().__init__(H2Connection(config=config), **options)
        self.events = []

    def event_received(self, event):
        self.events.append(event)
        if isinstance(event, H2BodyReceived) and not event.body.more:
            self.answer(event.stream_id)

    def answer(self, stream_id):
        self.connection.send_response_headers(stream_id, 200, [])
        self.connection.send_body(stream_id, self.body)
        self.mark_dirty()


class FakeTLS:
    """What the pump asks of an ``ssl.SSLObject``."""

    server_side = True

    def __init__(self, protocol="h2", version="TLSv1.3"):
        self._protocol = protocol
        self._version = version

    def selected_alpn_protocol(self):
        return self._protocol

    def version(self):
        return self._version

    def cipher(self):
        return ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", 128)


def kinds(events):
    return [type(event) for event in events]


@in_loop
async def test_a_request_is_answered_within_the_read_that_brings_it():
    client = MemoryClient(Pump())
    await client.exchange()
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    for event in client.connection.receive_data(client.transport.take()):
        client.take_event(event)
    assert client.response(stream_id).body == b"hello"


@in_loop
async def test_many_answers_of_one_read_are_one_write():
    client = MemoryClient(Pump())
    await client.exchange()
    client.transport.writes.clear()
    for _ in range(32):
        client.request()
    client.protocol.data_received(client.connection.data_to_send())
    assert len(client.transport.writes) == 1


@in_loop
async def test_sends_from_outside_are_one_write_in_the_next_turn():
    client = MemoryClient(Pump())
    streams = [client.request(end_stream=False) for _ in range(10)]
    await client.exchange()
    client.transport.writes.clear()
    for stream_id in streams:
        client.protocol.answer(stream_id)
    assert client.transport.writes == []
    await client.exchange()
    assert len(client.transport.writes) == 1
    assert [client.response(s).body for s in streams] == [b"hello"] * 10


@in_loop
async def test_nothing_is_gathered_while_the_transport_is_paused():
    class Big(Pump):
        body = bytes(1 << 20)

    config = H2Configuration(
        initial_window_size=1 << 24, connection_window_size=1 << 24
    )
    client = MemoryClient(Big(), config=config)
    await client.exchange()
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    # The bound: what the transport holds, and one write more.
    assert client.transport.paused
    assert len(client.transport.sent) < 3 * 65536
    assert client.protocol.connection.queued_body(stream_id) > 1 << 19
    while not client.response(stream_id).done:
        assert len(client.transport.sent) < 3 * 65536
        await client.exchange()
    assert len(client.response(stream_id).body) == 1 << 20


@in_loop
async def test_a_peer_that_takes_everything_does_not_hold_the_loop():
    class Big(Pump):
        body = bytes(1 << 23)

    config = H2Configuration(
        initial_window_size=1 << 24, connection_window_size=1 << 24
    )
    client = MemoryClient(Big(), config=config)
    await client.exchange()
    client.transport.high = 1 << 62
    client.request()
    client.protocol.data_received(client.connection.data_to_send())
    assert 65536 <= len(client.transport.sent) < 1 << 21
    await until(lambda: len(client.transport.sent) > 1 << 23)


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
@in_loop
async def test_an_event_that_fails_does_not_stop_the_next(error, caplog):
    class Failing(Pump):
        def event_received(self, event):
            super().event_received(event)
            if isinstance(event, H2RequestReceived) and event.stream_id == 1:
                raise error("on purpose")

    client = MemoryClient(Failing())
    first, second = client.request(), client.request()
    await client.exchange()
    assert client.response(first).body == client.response(second).body == b"hello"
    assert "on purpose" in caplog.text


@in_loop
async def test_events_of_sending_are_handed_out():
    client = MemoryClient(Pump())
    await client.fetch()
    assert H2StreamClosed(1, 0) in client.protocol.events


@in_loop
async def test_streams_are_closed_when_the_connection_is_lost():
    client = MemoryClient(Pump())
    client.request(end_stream=False)
    await client.exchange()
    client.protocol.connection_lost(None)
    assert client.protocol.events[-2] == H2StreamClosed(1, ErrorCode.INTERNAL_ERROR)
    assert isinstance(client.protocol.events[-1], H2ConnectionClosed)
    assert client.protocol.is_closing
    # What comes too late is not an error of the caller's.
    client.protocol.mark_dirty()
    client.protocol.close()
    client.protocol.abort()


@in_loop
async def test_bytes_that_are_no_http2_end_the_connection():
    client = MemoryClient(Pump())
    client.protocol.data_received(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
    assert client.transport.closing


@in_loop
async def test_settings_that_are_never_acknowledged_end_the_connection(caplog):
    """RFC 9113, 6.5.3."""
    caplog.set_level(logging.INFO)
    client = MemoryClient(Pump(settings_timeout=0.01))
    await until(lambda: client.transport.closing)
    events = client.connection.receive_data(client.transport.take())
    assert events[-1] == H2GoAway(0, ErrorCode.SETTINGS_TIMEOUT)
    assert "SETTINGS_TIMEOUT" in caplog.text


@in_loop
async def test_acknowledged_settings_stop_the_clock():
    client = MemoryClient(Pump(settings_timeout=0.01, idle_timeout=0.05))
    client.converse()
    client.protocol.update_settings({3: 7})
    client.protocol.flush()
    client.converse()
    await until(lambda: client.protocol.connection.is_closed)  # by idleness
    await client.exchange()
    goaway = [e for e in client.events if isinstance(e, H2GoAway)]
    assert {e.error_code for e in goaway} == {0}
    assert [e.settings for e in client.events if isinstance(e, H2SettingsReceived)][
        -1
    ] == {3: 7}


@in_loop
async def test_an_idle_connection_is_closed():
    client = MemoryClient(Pump(idle_timeout=0.01))
    await client.exchange()
    await until(lambda: client.transport.sent)
    await client.exchange()
    assert H2GoAway in kinds(client.events)
    assert client.transport.closing


@in_loop
async def test_a_connection_with_an_open_stream_is_not_idle():
    client = MemoryClient(Pump(idle_timeout=0.01))
    stream_id = client.request(end_stream=False)
    client.converse()
    ended = client.protocol._loop.create_future()
    client.protocol._loop.call_later(0.05, ended.set_result, None)
    await ended
    assert not client.protocol.is_closing
    client.connection.end_stream(stream_id)
    await client.exchange()
    assert client.response(stream_id).body == b"hello"
    await until(lambda: client.protocol.is_closing)


@in_loop
async def test_a_peer_that_takes_no_bytes_is_aborted():
    class Big(Pump):
        body = bytes(1 << 20)

    config = H2Configuration(
        initial_window_size=1 << 24, connection_window_size=1 << 24
    )
    client = MemoryClient(Big(idle_timeout=0.01), config=config)
    client.request()
    client.protocol.data_received(client.connection.data_to_send())
    assert client.transport.paused
    await until(lambda: client.transport.aborted)


async def end_quietly(client):
    """Take both GOAWAYs of a server that waits for a moment without requests."""
    await until(lambda: client.transport.sent)
    await client.exchange()
    await until(lambda: client.transport.closing)
    await client.exchange()


@in_virtual_time
async def test_close_lets_open_streams_finish():
    client = MemoryClient(Pump())
    stream_id = client.request(end_stream=False)
    await client.exchange()
    client.protocol.close()
    await client.exchange()
    assert not client.transport.closing
    client.connection.end_stream(stream_id)
    await client.exchange()
    assert client.response(stream_id).body == b"hello"
    await end_quietly(client)
    assert isinstance(client.events[-1], H2GoAway)
    assert not client.transport.aborted


@in_virtual_time
async def test_close_takes_a_request_that_is_on_its_way():
    """RFC 9113, 6.8: the first GOAWAY warns, the second follows a round trip."""
    client = MemoryClient(Pump())
    await client.exchange()
    client.protocol.close()
    stream_id = client.request()
    response = client.response(stream_id)
    await client.exchange()
    assert response.body == b"hello"
    await end_quietly(client)


@in_loop
async def test_close_aborts_what_does_not_finish():
    client = MemoryClient(Pump())
    client.request(end_stream=False)
    await client.exchange()
    client.protocol.close(timeout=0.01)
    await until(lambda: client.transport.aborted)


@in_loop
async def test_abort_writes_nothing():
    client = MemoryClient(Pump())
    await client.exchange()
    client.protocol.abort()
    assert client.transport.aborted and not client.transport.sent


@pytest.mark.parametrize(
    "tls, reason",
    [
        (FakeTLS(protocol=None), "offered by ALPN no protocol"),
        (FakeTLS(protocol="http/1.1"), "http/1.1"),
        (FakeTLS(version="TLSv1.1"), "TLSv1.1"),
    ],
)
@in_loop
async def test_tls_that_is_not_fit_for_http2_is_refused(tls, reason, caplog):
    """RFC 9113, 3.2 and 9.2."""
    caplog.set_level(logging.INFO)
    pump = Pump()
    transport = MemoryTransport(pump, ssl_object=tls)
    pump.connection_made(transport)
    assert transport.closing and not transport.sent
    assert reason in caplog.text
    pump.data_received(b"too late")
    await until(lambda: pump.transport is None)
    assert pump.events == []


@in_loop
async def test_a_refused_connection_that_lingers_is_aborted():
    """Its peer may never answer the end of TLS."""

    class Lingering(MemoryTransport):
        def close(self):
            self.closing = True

        def abort(self):
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    pump = Pump()
    transport = Lingering(pump, ssl_object=FakeTLS(protocol=None))
    pump.connection_made(transport)
    assert transport.closing
    assert pump._close_due < math.inf
    pump.close(0.01)
    await until(lambda: transport.aborted)
    await until(lambda: pump.transport is None)


@in_loop
async def test_a_body_that_always_asks_to_be_asked_does_not_hold_the_loop():
    asked = 0

    def read(n):
        nonlocal asked
        asked += 1
        client.protocol.connection.resume_body(1)
        client.protocol.mark_dirty()
        return (b"end", DATA_EOF) if asked == 50 else (b"", DATA_DEFERRED)

    class Deferring(Pump):
        body = staticmethod(read)

    client = MemoryClient(Deferring())
    await client.exchange()
    stream_id = client.request()
    client.protocol.data_received(client.connection.data_to_send())
    assert asked < 10
    await until(lambda: asked == 50)
    await client.exchange()
    assert client.response(stream_id).body == b"end"


@in_loop
async def test_a_body_that_takes_its_time_does_not_hold_the_loop(monkeypatch):
    asked = 0
    clock = SimpleNamespace(monotonic=lambda: 1 + 0.03 * asked)
    monkeypatch.setattr("nghttp2py.asyncio.transfer.time", clock)

    def read(n):
        nonlocal asked
        asked += 1
        return bytes(n), DATA_EOF if asked == 40 else DATA_OK

    class Slow(Pump):
        body = staticmethod(read)

    config = H2Configuration(
        initial_window_size=1 << 24, connection_window_size=1 << 24
    )
    client = MemoryClient(Slow(), config=config)
    client.converse()
    client.transport.high = 1 << 62
    client.request()
    client.protocol.data_received(client.connection.data_to_send())
    assert asked < 20
    await until(lambda: asked == 40)


@in_loop
async def test_tls_with_h2_is_taken():
    client = MemoryClient(Pump(), ssl_object=FakeTLS(version="TLSv1.2"))
    assert (await client.fetch()).body == b"hello"


CALLED = ["receive_data", "data_to_send", "pending_events"]


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("call", [*CALLED, "initiate_connection", "check_pace"])
@in_loop
async def test_a_fault_of_ours_gives_the_connection_up(call, error, caplog):
    class Broken(H2Connection):
        broken = call == "initiate_connection"

    def fail(self, *args, **options):
        if self.broken:
            raise error
        return getattr(H2Connection, call)(self, *args, **options)

    setattr(Broken, call, fail)
    pump = Pump(timeouts=Timeouts(response=0.1))
    pump.connection = Broken()
    client = MemoryClient(pump)
    if call != "initiate_connection":
        await client.exchange()
        client.request()
        if call == "check_pace":
            pump.answer = lambda stream_id: None
            client.converse()
        pump.connection.broken = True
        if call == "receive_data":
            client.protocol.data_received(client.connection.data_to_send())
        elif call != "check_pace":
            pump.mark_dirty()
    await until(lambda: client.transport.aborted)
    assert "given up" in caplog.text
    pump.connection.broken = False
    await until(lambda: pump.transport is None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@in_loop
async def test_what_ends_the_program_is_raised(error):
    class Stopped(H2Connection):
        def receive_data(self, data):
            raise error

    pump = Pump()
    pump.connection = Stopped()
    client = MemoryClient(pump)
    with pytest.raises(error):
        pump.data_received(b"x")
    client.transport.abort()
    await until(lambda: pump.transport is None)
