"""HTTP/2's half of exchanges, with applications in Python."""

import asyncio
import gc

import pytest
from handlers import exchange_until
from loops import in_loop
from memory import MemoryClient

from nghttp2py.asyncio import Timeouts
from nghttp2py.asyncio.http2 import HTTP2Exchanges, HTTP2Protocol
from nghttp2py.errors import ErrorCode, StreamResetError
from nghttp2py.exchange import ExchangeFactory, PythonExchange
from nghttp2py.h2 import H2Connection, H2RequestReceived
from nghttp2py.server import DEFAULT_CONFIGURATION


class Application(PythonExchange):
    """Answers at the end of the request; writes down the end."""

    made: list

    def __init__(self, http, stream_id, request=None):
        super().__init__(http, stream_id, request)
        self.body = b""
        self.writable_calls = 0
        self.end = None
        self.abort = None
        self.made.append(self)

    def data_received(self, data):
        self.body += data
        self.http.acknowledge(self, len(data))

    def end_received(self):
        self.http.send_response(self, 200, {"x": "y"}, False)
        self.http.queue_body(self, self.body, True)

    def writable(self):
        self.writable_calls += 1

    def aborted(self, failure, error_code, incoming, outgoing):
        self.abort = (error_code, incoming, outgoing)

    def exchange_closed(self, failure, error_code, body_bytes_sent):
        assert self.end is None, "closed twice"
        self.end = (failure and failure(), error_code, body_bytes_sent)


def application(**members):
    return type("Own", (Application,), {"made": [], **members})


def serve(factory):
    protocol = HTTP2Protocol(
        ExchangeFactory(factory),
        DEFAULT_CONFIGURATION,
        lambda protocol: None,
        lambda protocol: None,
        timeouts=Timeouts(idle=None),
    )
    return MemoryClient(protocol)


@in_loop
async def test_an_exchange_answers_a_request():
    kind = application()
    response = await serve(kind).fetch(method="POST", body=b"body")
    assert (response.status, response.body, response.closed) == (200, b"body", 0)
    (exchange,) = kind.made
    assert exchange.end == (None, 0, 4) and exchange.status == 200
    assert exchange.http.version == "HTTP/2" and not exchange.http.client_side
    assert exchange.http.get_extra_info("peername") == ("192.0.2.1", 40000)


def fail(self, *args):
    raise LookupError("on purpose")


@pytest.mark.parametrize(
    "method", ["__init__", "request_received", "data_received", "end_received"]
)
@in_loop
async def test_an_exchange_that_fails_gets_500_and_others_go_on(method, caplog):
    kind = application()
    bad = application(**{method: fail})

    def factory(http, stream_id, request):
        return (bad if request.target == b"/bad" else kind)(http, stream_id, request)

    client = serve(factory)
    streams = [client.request(path, "POST", body=b"b") for path in ("/", "/bad", "/")]
    responses = [await client.finish(stream_id) for stream_id in streams]
    assert [response.status for response in responses] == [200, 500, 200]
    assert "on purpose" in caplog.text
    assert not client.protocol.http.exchanges


@in_loop
async def test_no_event_is_made_for_what_an_exchange_is_called_with():
    client = serve(application())
    events = []
    client.protocol.events_received = events.extend
    response = await client.fetch(method="POST", body=b"body")
    assert response.body == b"body"
    # SETTINGS, and their acknowledgement
    assert {type(event).__name__ for event in events} == {
        "H2SettingsReceived",
        "H2SettingsAcknowledged",
    }


def test_a_connection_whose_exchanges_are_gone_gives_events_again():
    client = H2Connection(client_side=True)
    connection = H2Connection()
    kind = application()
    exchanges = HTTP2Exchanges(None, connection, ExchangeFactory(kind))
    client.initiate_connection()
    connection.initiate_connection()
    client.send_request("GET", "/", authority="test")
    events = connection.receive_data(client.data_to_send())
    assert H2RequestReceived not in map(type, events)
    assert list(exchanges.exchanges) == [1]
    del exchanges, kind.made[:]
    gc.collect()
    client.send_request("GET", "/", authority="test")
    events = connection.receive_data(client.data_to_send())
    assert H2RequestReceived in map(type, events)


@in_loop
async def test_what_an_exchange_records_while_it_is_called_is_given_to_the_others():
    def end_received(self):
        # Each reset records the end of a stream, once it is sent.
        for other in list(self.http.exchanges.values()):
            if other is not self:
                self.http.reset(other, ErrorCode.CANCEL)
        self.http.send_response(self, 204, (), True)

    kind = application(end_received=end_received)
    client = serve(kind)
    for _ in range(60):
        client.request(method="POST", end_stream=False)
    last = client.request()
    response = await client.finish(last)
    assert response.status == 204
    await exchange_until(client, lambda: not client.protocol.http.exchanges)
    assert len(kind.made) == 61
    assert [each.end[1] for each in kind.made] == [8] * 60 + [0]


@pytest.mark.parametrize("method", ["receive_data", "data_to_send", "receive_eof"])
@in_loop
async def test_an_exchange_cannot_drive_the_connection_that_calls_it(method, caplog):
    def request_received(self, request):
        getattr(self.http.connection, method)(*[b""] * (method == "receive_data"))

    bad = application(request_received=request_received)
    kind = application()

    def factory(http, stream_id, request):
        return (bad if request.target == b"/bad" else kind)(http, stream_id, request)

    client = serve(factory)
    streams = [client.request(path) for path in ("/", "/bad", "/")]
    responses = [await client.finish(stream_id) for stream_id in streams]
    assert [response.status for response in responses] == [200, 500, 200]
    assert "from within themselves" in caplog.text


@in_loop
async def test_a_reset_is_told_as_it_came():
    kind = application()
    client = serve(kind)
    stream_id = client.request(method="POST", end_stream=False)
    await client.exchange()
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    await client.exchange()
    (exchange,) = kind.made
    error, code, sent = exchange.end
    assert exchange.abort == (8, True, True) and (code, sent) == (8, 0)
    assert isinstance(error, StreamResetError) and error.remote


@in_loop
async def test_room_comes_with_the_credit_of_the_client():
    kind = application(end_received=lambda self: None)
    client = serve(kind)
    stream_id = client.request()
    await client.exchange()
    (exchange,) = kind.made
    http = exchange.http
    http.send_response(exchange, 200, (), False)
    assert http.room(exchange, 10, False) == 10
    room = http.room(exchange, 1 << 30, False)
    http.queue_body(exchange, bytes(room), False)
    assert http.room(exchange, 1, False) == 0
    assert not http.notify_writable(exchange, 0)
    await exchange_until(client, lambda: exchange.writable_calls)
    http.end(exchange)
    response = await client.finish(stream_id)
    assert len(response.body) == room and exchange.end == (None, 0, room)


@in_loop
async def test_an_exchange_is_told_that_the_server_closes():
    closing = []
    kind = application(
        server_closing=lambda self: closing.append(self), end_received=lambda self: None
    )
    client = serve(kind)
    client.request()
    await client.exchange()
    client.protocol.close()
    assert closing == kind.made
    client.protocol.abort()
    await asyncio.sleep(0)
    (exchange,) = kind.made
    error, code, _ = exchange.end
    assert error is not None and code != 0
    assert exchange.http.owner is None


class Owner:
    """What a client's exchanges need of a pump."""

    transport = None
    is_closing = False

    def mark_dirty(self):
        pass


def test_a_client_names_its_exchange_by_sending():
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    http = HTTP2Exchanges(Owner(), connection)
    exchange = application()(http, None)
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/"),
        (b":authority", b"x"),
    ]
    http.send_fields(exchange, fields, True)
    assert exchange.stream_id == 1 and http.exchanges == {1: exchange}
    assert http.client_side and http.is_open(exchange)
