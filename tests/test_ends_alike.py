"""An exchange ends alike over HTTP/2 and HTTP/3: for log, handler and client."""

import asyncio
import contextlib
import logging
from typing import ClassVar

import pytest
from h3_streams import (
    POST,
    data_frame,
    headers_frame,
    pair,
    raw_client,
    request,
    serving,
)
from loops import in_loop, until

from nghttp2py import BaseRequestHandler, access
from nghttp2py.asyncio import Server, start_server
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    StreamClosedError,
    StreamResetError,
    StreamTimeoutError,
)
from nghttp2py.h2 import H2BodyReceived, H2Connection, H2StreamReset
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode

FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/"),
]
# By the names of HTTP/2: what the client, the log and the handler see over each.
OF_HTTP3 = {
    ErrorCode.NO_ERROR: 0,
    ErrorCode.CANCEL: H3ErrorCode.H3_REQUEST_CANCELLED,
    ErrorCode.INTERNAL_ERROR: H3ErrorCode.H3_INTERNAL_ERROR,
}


@pytest.fixture
def exchanges():
    """What the access log has."""
    found = []
    access.add_hook(found.append)
    yield found
    access.remove_hook(found.append)


class Client2:
    """A client of HTTP/2 that sends a request on stream 1, and then no more."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.connection = H2Connection(client_side=True)
        self.connection.initiate_connection()
        self.resets = []
        self.events = []

    def write(self):
        self.writer.write(self.connection.data_to_send())

    async def read(self):
        while data := await self.reader.read(65536):
            self.events += self.connection.receive_data(data)
            self.write()

    def ask(self, whole):
        self.connection.send_headers(None, FIELDS, end_stream=whole)
        if not whole:
            self.connection.send_data(1, b"part")
        self.write()

    def cut(self):
        with contextlib.suppress(StreamClosedError):
            self.connection.reset_stream(1, ErrorCode.CANCEL)
        self.write()

    @property
    def reset_codes(self):
        """Those of the resets that have broken off the response."""
        resets = [e for e in self.events if isinstance(e, H2StreamReset)]
        return [e.error_code for e in resets if e.remote and e.error_code]


@contextlib.asynccontextmanager
async def client_of(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client2(reader, writer)
    client.write()
    task = asyncio.ensure_future(client.read())
    try:
        yield client
    finally:
        task.cancel()
        writer.close()


@contextlib.asynccontextmanager
async def asking(version, app, whole):
    """A client that has sent a request: ``cut`` ends it early."""
    if version == 2:
        async with (
            Server(app, ("127.0.0.1", 0)) as server,
            client_of(server.sockets[0].getsockname()[1]) as client,
        ):
            client.ask(whole)
            yield client
        return
    async with serving(app) as (_, port), raw_client(port) as client:
        section = headers_frame(POST)
        client.send(0, section if whole else section + data_frame(b"part"), whole)
        client.cut = lambda: client.reset(0)
        yield client


def has_response(version, client, declined=True):
    """Whether the response has come, and over HTTP/2 that the rest is declined."""
    if version == 3:
        return 0 in client.ended
    kind = H2StreamReset if declined else H2BodyReceived
    return any(isinstance(event, kind) for event in client.events)


def resets_of(version, client):
    if version == 2:
        return client.reset_codes
    return [client.resets[0]] if 0 in client.resets else []


class Early(BaseRequestHandler):
    closes: ClassVar = []

    def on_headers(self):
        self.send_response(413, (), b"no")

    def on_close(self, error_code):
        self.closes.append(error_code)


class ResetsAfter(Early):
    def on_headers(self):
        super().on_headers()
        self.reset()
        self.reset()


class RaisesAfter(Early):
    def on_headers(self):
        super().on_headers()
        raise RuntimeError("on purpose")


class SendsAfterReset(Early):
    def on_headers(self):
        self.reset()
        super().on_headers()


VERSIONS = pytest.mark.parametrize("version", [2, 3])
WHOLE = pytest.mark.parametrize("whole", [True, False])


@VERSIONS
@WHOLE
@pytest.mark.parametrize(
    "handler, status, code, failures",
    [
        (Early, 413, ErrorCode.NO_ERROR, 0),
        (ResetsAfter, 413, ErrorCode.CANCEL, 0),
        (RaisesAfter, 413, ErrorCode.INTERNAL_ERROR, 1),
        # What ended the stream was the handler's wish: that it sends on is no news.
        (SendsAfterReset, None, ErrorCode.CANCEL, 0),
    ],
)
@in_loop
async def test_a_handler_ends_its_exchange(
    version, whole, handler, status, code, failures, exchanges, caplog
):
    """A whole response that has not gone out yet is dropped by a reset."""
    handler.closes = []
    expected = code if version == 2 else OF_HTTP3[code]
    async with asking(version, handler, whole) as client:
        if code:
            await until(lambda: resets_of(version, client) == [expected])
        elif not whole:
            await until(lambda: has_response(version, client))
            client.cut()
        await until(lambda: exchanges and handler.closes)
        assert handler.closes == [expected]
    (exchange,) = exchanges
    assert exchange.status == status
    assert (exchange.error_code, exchange.complete) == (expected, not code)
    errors = [r for r in caplog.records if r.levelno > logging.INFO]
    assert len(errors) == failures


@VERSIONS
@WHOLE
@in_loop
async def test_a_failure_after_the_response_is_out_is_only_logged(
    version, whole, exchanges, caplog
):
    failing = asyncio.Event()

    class Late(Early):
        closes: ClassVar = []

        async def on_headers(self):
            super().on_headers()
            await failing.wait()
            self.reset()
            raise RuntimeError("on purpose")

    async with asking(version, Late, whole) as client:
        await until(lambda: has_response(version, client, not whole))
        failing.set()
        await until(lambda: "on purpose" in caplog.text)
        client.cut()
        await until(lambda: exchanges and Late.closes)
        assert Late.closes == [0]
        assert resets_of(version, client) == []
    (exchange,) = exchanges
    assert (exchange.status, exchange.error_code, exchange.complete) == (413, 0, True)


@VERSIONS
@WHOLE
@in_loop
async def test_a_coroutine_that_sends_after_its_reset_is_not_logged(
    version, whole, exchanges, caplog
):
    async def app(stream):
        stream.reset()
        stream.reset()
        await stream.send_response(200, body=b"too late")

    async with asking(version, app, whole) as client:
        await until(lambda: resets_of(version, client))
        await until(lambda: exchanges)
    assert not exchanges[0].complete
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@VERSIONS
@in_loop
async def test_the_end_of_another_stream_is_a_failure_of_the_handler(
    version, exchanges, caplog
):
    async def app(stream):
        raise StreamResetError(7, ErrorCode.CANCEL, remote=True)

    async with asking(version, app, True):
        await until(lambda: exchanges)
    assert (exchanges[0].status, exchanges[0].complete) == (500, True)
    assert len([r for r in caplog.records if r.levelno > logging.INFO]) == 1


async def read_on(stream):
    await stream.send_response(200, body=b"early")
    await stream.read()


async def go_home(stream):
    await stream.send_response(200, body=b"early")


@VERSIONS
@pytest.mark.parametrize("app, complete", [(read_on, False), (go_home, True)])
@in_loop
async def test_an_upload_is_cut_after_an_early_response(
    version, app, complete, exchanges
):
    """It is wanted as long as the app may read it (RFC 9113, 8.1, RFC 9114, 4.1)."""
    async with asking(version, app, False) as client:
        await until(lambda: has_response(version, client, complete))
        client.cut()
        await until(lambda: exchanges)
    (exchange,) = exchanges
    assert (exchange.status, exchange.bytes_sent) == (200, 5)
    assert (exchange.complete, bool(exchange.error_code)) == (complete, not complete)


class FailsAtOnce(Early):
    def on_headers(self):
        raise RuntimeError("on purpose")


@VERSIONS
@pytest.mark.parametrize(
    "app, status", [(FailsAtOnce, 500), (Early, 413), (go_home, 200)]
)
@in_loop
async def test_a_client_cuts_its_upload_before_it_is_asked_to(
    version, app, status, exchanges
):
    """The server has declined the rest, but waits a little before it says so."""
    Early.closes = closes = []
    calls = [] if app is go_home else [0]
    async with asking(version, app, False) as client:
        await until(lambda: has_response(version, client, declined=False))
        client.cut()
        await until(lambda: exchanges and closes == calls)
    (exchange,) = exchanges
    assert (exchange.status, exchange.error_code) == (status, 0)
    assert exchange.complete


# ---- Streams that are dropped ----


async def drop_at_once(stream):
    return None


async def drop_answered(stream):
    await stream.send_response(200, body=b"whole")


@pytest.mark.parametrize(
    "use, status, complete", [(drop_at_once, None, False), (drop_answered, 200, True)]
)
@WHOLE
@in_loop
async def test_a_stream_that_is_dropped_is_in_the_log(
    use, status, complete, whole, exchanges
):
    async def handle(connection):
        with contextlib.suppress(ConnectionTerminatedError):
            while True:
                await use(await connection.accept_stream())

    async with (
        await start_server(handle, "127.0.0.1", 0) as server,
        client_of(server.sockets[0].getsockname()[1]) as client,
    ):
        client.ask(whole)
        await until(lambda: exchanges)
    (exchange,) = exchanges
    assert (exchange.method, exchange.target) == (b"POST", b"/")
    assert (exchange.status, exchange.complete) == (status, complete)
    assert exchange.bytes_sent == (5 if complete else 0)


# ---- Names of codes ----


def test_a_code_has_the_name_of_its_protocol():
    error = ConnectionTerminatedError(1, remote=True, code_name="H3_NAME")
    assert str(error) == "the connection was ended by the peer: H3_NAME"
    error = ConnectionTerminatedError(1, remote=True)
    assert str(error) == "the connection was ended by the peer: PROTOCOL_ERROR"
    error = StreamTimeoutError(4, 0.5)
    assert (error.error_code, "CANCEL" in str(error)) == (ErrorCode.CANCEL, True)


@pytest.mark.parametrize(
    "code, name",
    [
        (1, "0x1"),
        (0x102, "H3_INTERNAL_ERROR"),
        (0x7A7A, "0x7a7a"),
    ],
)
@in_loop
async def test_a_client_of_http3_names_codes_by_its_table(code, name):
    async with pair(read_on) as (client, ends):
        stream = await client.open_stream(request(), end_stream=False)
        await stream.response()
        ends.protocols[0].close(code, "the end")
        await client.wait_closing()
        with pytest.raises(ConnectionTerminatedError) as caught:
            await client.open_stream(request())
        assert caught.value.error_code == code
    what = "the connection was ended by the peer"
    assert str(caught.value) == f"{what}: {name}: the end"


@pytest.mark.parametrize(
    "code, name", [(0x7A7A, "0x7a7a"), (0x10C, "H3_REQUEST_CANCELLED")]
)
@in_loop
async def test_a_reset_of_http3_is_named_by_its_table(code, name):
    async def app(stream):
        stream.reset(code)

    async with pair(app) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(StreamResetError, match=f"reset by the peer: {name}$"):
            await stream.response()


@in_loop
async def test_a_timeout_of_http3_has_its_code():
    async def wait(stream):
        await asyncio.Event().wait()

    async with pair(wait) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(StreamTimeoutError, match="H3_REQUEST_CANCELLED") as caught:
            await stream.response(0.05)
        assert caught.value.error_code == H3ErrorCode.H3_REQUEST_CANCELLED
