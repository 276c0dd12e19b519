"""Why an exchange of HTTP/2 ends with its connection, for each of its streams."""

import contextlib

import pytest
from helpers import data, frame, rst_stream
from loops import in_loop
from memory import MemoryClient

from nghttp2py.asyncio.http2 import HTTP2Protocol
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    NGHTTP2Error,
    StreamResetError,
)
from nghttp2py.exchange import ExchangeFactory, PythonExchange
from nghttp2py.h2 import H2Configuration

# What the last bytes of a client may be: the code, and which end has closed.
ENDS = {
    "nothing": (b"", ErrorCode.INTERNAL_ERROR, True),
    "a frame that is too long": (
        b"\0\xff\xff" + bytes(6),
        ErrorCode.FRAME_SIZE_ERROR,
        False,
    ),
    "SETTINGS on a stream": (frame(4, 0, 1), ErrorCode.PROTOCOL_ERROR, False),
    "WINDOW_UPDATE of 0": (
        frame(8, 0, 0, bytes(4)),
        ErrorCode.PROTOCOL_ERROR,
        False,
    ),
}


class Meddling(PythonExchange):
    """Does with all the others, at its end, whatever one may do."""

    all: list

    def request_received(self, request):
        self.all.append(self)
        if len(self.all) % 2:
            self.http.send_response(self, 200, [], False)
            self.http.queue_body(self, bytes(70_000), False)
            self.http.notify_writable(self, 0)
            self.http.room(self, 1 << 20, False)

    def data_received(self, data):
        pass  # no credit is returned

    def exchange_closed(self, failure, error_code, body_bytes_sent):
        self.end = failure and failure()
        if type(self.end) is StreamResetError:
            return  # the others go on
        for other in self.all:
            for call in (
                lambda x: self.http.acknowledge(x, 1),
                lambda x: self.http.notify_writable(x, 0),
                lambda x: self.http.room(x, 1 << 20, False),
                lambda x: self.http.resume_body(x),
                lambda x: self.http.stop_request(x),
                lambda x: self.http.send_response(x, 200, [], False),
                lambda x: self.http.queue_body(x, b"more", True),
                lambda x: self.http.send_trailers(x, [(b"x", b"y")]),
                lambda x: self.http.reset(x, ErrorCode.CANCEL),
            ):
                with contextlib.suppress(NGHTTP2Error):
                    call(other)


@pytest.mark.parametrize("before", ["nothing", "a reset", "data"])
@pytest.mark.parametrize("end", ENDS)
@in_loop
async def test_each_exchange_is_told_why_the_connection_has_ended(end, before, caplog):
    last, code, remote = ENDS[end]
    exchanges = []
    factory = ExchangeFactory(type("Exchange", (Meddling,), {"all": exchanges}))
    protocol = HTTP2Protocol(
        factory, H2Configuration(), lambda protocol: None, lambda protocol: None
    )
    client = MemoryClient(protocol)
    streams = [client.request(method="POST", end_stream=False) for _ in range(6)]
    await client.exchange()
    assert len(exchanges) == len(streams)
    first = {
        "nothing": b"",
        "a reset": rst_stream(streams[2], ErrorCode.CANCEL),
        "data": data(streams[2], b"x" * 100),
    }[before]
    protocol.data_received(first + last)  # in one batch
    await client.exchange()
    client.transport.abort()
    await client.exchange()
    for exchange in exchanges:
        if before == "a reset" and exchange.stream_id == streams[2]:
            assert type(exchange.end) is StreamResetError
            continue
        assert type(exchange.end) is ConnectionTerminatedError, exchange.end
        assert (exchange.end.error_code, exchange.end.remote) == (code, remote)
    assert not [record for record in caplog.records if record.exc_info]
