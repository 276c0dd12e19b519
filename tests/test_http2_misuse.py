"""Random applications against random clients: each exchange is closed once, last."""

import asyncio
import random
from contextlib import suppress

import pytest
from loops import in_loop, until
from memory import MemoryClient

from nghttp2py.asyncio import Timeouts
from nghttp2py.asyncio.http2 import HTTP2Protocol
from nghttp2py.errors import ErrorCode, NGHTTP2Error
from nghttp2py.exchange import ExchangeFactory, PythonExchange
from nghttp2py.h2 import H2Configuration
from nghttp2py.server import DEFAULT_CONFIGURATION


def failing_body(rng):
    yield b"y" * rng.randrange(1, 1000)
    raise rng.choice([ValueError, GeneratorExit, asyncio.CancelledError])


def pieces(rng):
    return iter([b"x" * rng.randrange(1, 50000) for _ in range(3)])


class Wild(PythonExchange):
    """Does anything to any exchange of its connection, whenever it is called."""

    rng: random.Random
    made: list

    def __init__(self, http, stream_id, request=None):
        super().__init__(http, stream_id, request)
        self.closings = 0
        self.made.append(self)

    def act(self):
        assert not self.closings, "called after exchange_closed()"
        for _ in range(self.rng.randrange(3)):
            with suppress(NGHTTP2Error):
                self.act_once()
        if self.rng.random() < 0.03:
            raise LookupError("on purpose")

    def act_once(self):
        http, rng = self.http, self.rng
        others = list(http.exchanges.values())
        exchange = rng.choice([self, self, *others])
        if rng.random() < 0.02:
            rng.choice([http.owner.close, http.owner.abort, http.owner.terminate])()
            return
        rng.choice(
            [
                lambda: http.send_response(exchange, 200, {"a": "b"}, False),
                lambda: http.send_response(exchange, 204, (), True),
                lambda: http.queue_body(exchange, bytes(rng.randrange(100000)), False),
                lambda: http.send_body(exchange, pieces(rng), {"t": "u"}),
                lambda: http.send_body(exchange, failing_body(rng), None),
                lambda: http.send_trailers(exchange, {"t": "u"}),
                lambda: http.end(exchange),
                lambda: http.reset(exchange, rng.choice(list(ErrorCode))),
                lambda: http.stop_request(exchange),
                lambda: http.room(exchange, 1 << 20, rng.random() < 0.5),
                lambda: http.notify_writable(exchange, 0),
                lambda: http.acknowledge(exchange, rng.randrange(1, 5)),
                http.connection.pending_events,
                http.owner.flush,
            ]
        )()

    def request_received(self, request):
        self.act()

    def data_received(self, data):
        with suppress(NGHTTP2Error):
            self.http.acknowledge(self, len(data))
        self.act()

    def trailers_received(self, fields):
        self.act()

    def end_received(self):
        self.act()

    def writable(self):
        self.act()

    def aborted(self, failure, error_code, incoming, outgoing):
        self.act()

    def server_closing(self):
        self.act()

    def exchange_closed(self, failure, error_code, body_bytes_sent):
        self.closings += 1


def act_as_client(rng, client, streams):
    connection = client.connection
    if not streams or rng.random() < 0.3:
        streams.append(client.request(method="POST", end_stream=rng.random() < 0.5))
        return
    stream_id = rng.choice(streams)
    rng.choice(
        [
            lambda: connection.send_body(
                stream_id, bytes(rng.randrange(30000)), end_stream=rng.random() < 0.4
            ),
            lambda: connection.reset_stream(stream_id, ErrorCode.CANCEL),
            lambda: connection.send_trailers(stream_id, {"x": "y"}),
            lambda: connection.increment_flow_control_window(1000, stream_id),
        ]
    )()


def send_in_pieces(rng, client):
    data = client.connection.data_to_send()
    if rng.random() < 0.02:
        data += rng.randbytes(20)
    while data and not client.transport.closing:
        size = rng.choice([1, 9, 100, 1 << 20])
        client.protocol.data_received(data[:size])
        data = data[size:]


async def play(rng):
    """Return how often each exchange of a connection was closed."""
    kind = type("Own", (Wild,), {"rng": rng, "made": []})
    protocol = HTTP2Protocol(
        ExchangeFactory(kind),
        DEFAULT_CONFIGURATION,
        lambda protocol: None,
        lambda protocol: None,
        timeouts=Timeouts(idle=None),
    )
    window = rng.choice([100, 65535, 1 << 20])
    client = MemoryClient(protocol, config=H2Configuration(initial_window_size=window))
    streams: list[int] = []
    for _ in range(rng.randrange(5, 60)):
        with suppress(NGHTTP2Error):
            act_as_client(rng, client, streams)
        if rng.random() < 0.3:
            send_in_pieces(rng, client)
            await asyncio.sleep(0)
        if rng.random() < 0.1:
            await client.exchange()
    await client.exchange()
    if rng.random() < 0.5:
        protocol.abort()
    else:
        client.transport.close()
    await until(lambda: protocol.transport is None)
    return [exchange.closings for exchange in kind.made]


@pytest.mark.parametrize("seed", range(4))
@in_loop
async def test_whatever_happens_an_exchange_is_closed_once_and_last(seed):
    rng = random.Random(seed)
    closings = []
    for _ in range(10):
        closings += await play(rng)
    assert len(closings) > 10
    assert set(closings) == {1}
