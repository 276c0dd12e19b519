"""What a server logs of hostile clients: at INFO at most, and little."""

import asyncio
import logging

import hpack
import pytest
from handlers import Good, mixed, serve
from helpers import (
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    MAGIC,
    POST,
    data,
    frame,
    goaway,
    rst_stream,
    settings,
    settings_ack,
)
from loops import in_loop, until
from memory import MemoryClient

from nghttp2py import access
from nghttp2py.asyncio import H2Protocol, pump
from nghttp2py.errors import ErrorCode, StreamClosedError, StreamResetError
from nghttp2py.h2 import H2Configuration
from nghttp2py.log_budget import LogBudget
from nghttp2py.server import BaseRequestHandler
from nghttp2py.static_files import FileRequestHandler, StaticFiles

REQUESTS = 400


class RawClient:
    """Writes frames to a server in memory, many in one read."""

    def __init__(self, handler_class):
        self.client = serve(handler_class)
        self.protocol = self.client.protocol
        self.encoder = hpack.Encoder()
        self.protocol.data_received(MAGIC + settings() + settings_ack())

    def headers(self, stream_id, fields, *, end_stream=False):
        flags = END_HEADERS | (END_STREAM if end_stream else 0)
        return frame(HEADERS, flags, stream_id, self.encoder.encode(list(fields)))

    async def send(self, *frames):
        self.protocol.data_received(b"".join(frames))
        await asyncio.sleep(0)
        self.client.transport.take()


async def reset_at_once(client, stream_id):
    await client.send(
        client.headers(stream_id, GET, end_stream=True), rst_stream(stream_id)
    )


async def reset_with_a_body(client, stream_id):
    await client.send(
        client.headers(stream_id, POST), data(stream_id, b"x"), rst_stream(stream_id)
    )


async def send_after_the_answer(client, stream_id):
    await client.send(client.headers(stream_id, POST))
    for _ in range(3):
        await client.send(data(stream_id, b"x"))
    await client.send(data(stream_id, b"x", end_stream=True), rst_stream(stream_id))


async def send_after_the_reset(client, stream_id):
    await client.send(client.headers(stream_id, POST), rst_stream(stream_id))
    await client.send(data(stream_id, b"x"))


ATTACKS = [
    reset_at_once,
    reset_with_a_body,
    send_after_the_answer,
    send_after_the_reset,
]


class Answers(BaseRequestHandler):
    def on_headers(self):
        self.send_response(body=b"answer")


class AnswersLate(BaseRequestHandler):
    def on_request_done(self):
        self.send_response(body=b"answer")


class Streams(BaseRequestHandler):
    def on_headers(self):
        self.send_headers()
        self.send_data(b"piece")
        self.send_data(b"piece")
        self.end({"t": "1"})


class Pushes(BaseRequestHandler):
    def on_headers(self):
        self.push("/pushed", body=b"pushed")
        self.send_response(body=b"page")


class Informs(BaseRequestHandler):
    def on_headers(self):
        self.send_informational(103, {"link": "</style.css>"})
        self.send_response()


class Resets(BaseRequestHandler):
    def on_headers(self):
        self.reset()

    def on_data(self, data):
        self.send_response()


class Echoes(BaseRequestHandler):
    def on_headers(self):
        self.send_headers()

    def on_data(self, data):
        self.send_data(data)

    def on_request_done(self):
        self.end()


class Awaits(BaseRequestHandler):
    async def on_headers(self):
        await asyncio.sleep(0)
        self.send_headers()
        await self.drain()
        self.send_data(b"piece")
        self.end()


class Closes(BaseRequestHandler):
    def on_close(self, error_code):
        self.send_response()


HANDLERS = [
    Answers,
    AnswersLate,
    Streams,
    Pushes,
    Informs,
    Resets,
    Echoes,
    Awaits,
    Closes,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("handler", HANDLERS)
@in_loop
async def test_hostile_requests_log_nothing_above_info(handler, attack, caplog):
    caplog.set_level(logging.INFO)
    client = RawClient(handler)
    for i in range(REQUESTS):
        await attack(client, 2 * i + 1)
    client.protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []
    lines = [record.getMessage() for record in caplog.records]
    # The access log has a line for each request, and for each push.
    exchanges = REQUESTS * (2 if handler is Pushes else 1)
    assert len(lines) <= exchanges + 5
    assert sum(map(len, lines)) < exchanges * 120
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@in_loop
async def test_hostile_requests_for_files_log_nothing_above_info(
    attack, caplog, tmp_path
):
    caplog.set_level(logging.INFO)
    (tmp_path / "large").write_bytes(bytes(200_000))
    client = RawClient(
        type("Handler", (FileRequestHandler,), {"files": StaticFiles(tmp_path)})
    )
    for i in range(REQUESTS):
        await attack(client, 2 * i + 1)
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []
    assert {r.name for r in caplog.records} <= {
        "nghttp2py.access",
        "nghttp2py.asyncio.pump",
    }


@in_loop
async def test_an_exception_for_what_the_client_did_is_logged_at_debug(caplog):
    caplog.set_level(logging.DEBUG, "nghttp2py.handler")
    client = RawClient(Answers)
    await reset_at_once(client, 1)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG and record.exc_info is None
    assert "on stream 1: " in record.getMessage()


@in_loop
async def test_a_send_to_another_clients_closed_stream_is_logged_at_debug(caplog):
    others = []

    class Chat(BaseRequestHandler):
        def on_headers(self):
            others.append(self)
            self.send_headers()

        def on_data(self, data):
            for other in others:
                other.send_data(data)

    client = RawClient(Chat)
    await client.send(client.headers(1, POST), rst_stream(1))
    await client.send(client.headers(3, POST), data(3, b"to all"))
    assert others[1].status == 200
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []


@pytest.mark.parametrize(
    "error",
    [
        StreamResetError(1, 8, remote=True),  # of an upstream connection
        RuntimeError("on purpose"),
    ],
)
@in_loop
async def test_a_handlers_own_failure_is_an_error(error, caplog):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            raise error

    client = serve(mixed(Bad))
    response = await client.fetch("/bad")
    assert response.status == 500
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info


@in_loop
async def test_data_after_its_own_end_are_the_handlers_mistake(caplog):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=b"whole")
            self.send_data(b"more")

    client = serve(mixed(Bad))
    await client.fetch("/bad")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert isinstance(record.exc_info[1], StreamClosedError)


@in_loop
async def test_a_push_to_a_client_that_goes_away_is_no_error(caplog):
    class Handler(BaseRequestHandler):
        def on_request_done(self):
            self.push("/pushed", body=b"pushed")
            self.send_response(body=b"page")

    client = serve(Handler, config=H2Configuration(enable_push=True))
    stream_id = client.request(method="POST", end_stream=False)
    await client.exchange()
    client.protocol.data_received(goaway())
    client.connection.end_stream(stream_id)
    await client.exchange()
    assert client.response(stream_id).body == b"page"
    assert caplog.records == []


# ---- The access log ----


@in_loop
async def test_the_access_log_marks_an_exchange_that_broke_off(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")

    class Endless(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, (bytes(1000) for _ in iter(int, 1)))

    client = serve(Endless)
    for error_code in 8, 0:
        stream_id = client.request("/endless")
        client.protocol.data_received(client.connection.data_to_send())
        client.connection.reset_stream(stream_id, error_code)
        client.protocol.data_received(client.connection.data_to_send())
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.getMessage().endswith(" incomplete")
        assert record.status == 200
        assert record.error_code == 8
        assert record.complete is False


@in_loop
async def test_the_access_log_has_its_members_as_attributes(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")
    client = serve(Good)
    await client.fetch("/a?b", headers=[("x", "y")])
    (record,) = caplog.records
    assert record.protocol == "HTTP/2"
    assert (record.method, record.target) == (b"GET", b"/a?b")
    assert (record.status, record.bytes_sent) == (200, 4)
    assert record.complete is True and record.error_code == 0
    assert 0 <= record.duration < 20
    assert not record.getMessage().endswith("incomplete")


@in_loop
async def test_a_response_without_body_is_complete(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_headers(204)

    client = serve(mixed(Handler))
    await client.fetch("/bad")
    await client.fetch("/good", method="HEAD")
    assert [record.complete for record in caplog.records] == [True, True]


@in_loop
async def test_connections_that_are_refused_do_not_fill_the_log(caplog, monkeypatch):
    logger = logging.getLogger("nghttp2py.asyncio.pump")
    caplog.set_level(logging.INFO, logger.name)
    # Its own, as other tests may have used up the program's.
    lines = LogBudget(logger, logging.INFO, 20, 600.0)
    monkeypatch.setattr("nghttp2py.asyncio.pump.H2Pump._peer_lines", lines)
    for _ in range(50):
        client = serve(Good)
        client.protocol._terminate(ErrorCode.SETTINGS_TIMEOUT, "on purpose")
        client.protocol.abort()
    assert len(caplog.records) == 20


@in_loop
async def test_a_hook_gets_every_exchange_without_a_log():
    seen = []
    access.add_hook(seen.append)
    try:
        client = serve(Good)
        await client.fetch("/a")
        await until(lambda: seen)
    finally:
        access.remove_hook(seen.append)
    (exchange,) = seen
    assert (exchange.status, exchange.bytes_sent, exchange.complete) == (200, 4, True)


@in_loop
async def test_a_hook_that_fails_is_logged_and_harms_no_request(caplog):
    def fail(exchange):
        raise RuntimeError("on purpose")

    seen = []
    access.add_hook(fail)
    access.add_hook(seen.append)
    try:
        client = serve(Good)
        assert (await client.fetch("/a")).body == b"good"
        await until(lambda: seen)
    finally:
        access.remove_hook(seen.append)
        access.remove_hook(fail)
    assert "on purpose" in caplog.text


# ---- Faults that end the connection ----


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1, not HTTP/2"),
        (b"POST", "HTTP/1.1, not HTTP/2"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "the client speaks TLS"),
        (b"\x1b[31m\r\nhello", "PROTOCOL_ERROR: "),
        (MAGIC + data(0, b"x"), "PROTOCOL_ERROR: "),
        (MAGIC + settings() + data(0, b"x"), "PROTOCOL_ERROR: "),
        (MAGIC + settings() + frame(0, 0, 1, bytes(20000)), "FRAME_SIZE_ERROR: "),
    ],
)
@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
@in_loop
async def test_why_a_clients_fault_has_ended_its_connection_is_a_line(
    kind, sent, text, caplog, monkeypatch
):
    monkeypatch.setattr(
        pump.H2Pump, "_peer_lines", LogBudget(pump.logger, 20, 3, 100.0)
    )
    caplog.set_level(logging.INFO)
    for _ in range(5):
        if kind == "HTTP2Server":
            protocol = serve(Good).protocol
        else:
            protocol = H2Protocol(False)
            MemoryClient(protocol)
        protocol.data_received(sent)
        protocol.connection_lost(None)
    assert len(caplog.records) == 3
    for record in caplog.records:
        assert record.levelno == logging.INFO
        assert record.exc_info is None
        assert text in record.getMessage()
        assert record.getMessage().isprintable()


@pytest.mark.parametrize("how", ["terminate", "GOAWAY", "lost"])
@in_loop
async def test_an_end_that_is_no_fault_of_the_peer_is_no_line(how, caplog):
    caplog.set_level(logging.INFO, "nghttp2py.asyncio")
    client = RawClient(Good)
    if how == "terminate":
        client.protocol.terminate(ErrorCode.INTERNAL_ERROR)
    elif how == "GOAWAY":
        await client.send(goaway())
    client.protocol.data_received(b"")
    client.protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert caplog.records == []
