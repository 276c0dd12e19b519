"""HTTP2Server with bodies that fail, and with those that no response may have."""

import asyncio
import io
import logging

import pytest
from handlers import mixed, serve, with_good_neighbours
from loops import in_loop, until

from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    StreamClosedError,
    StreamStateError,
)
from nghttp2py.h2.body import DATA_DEFERRED, DATA_EOF, DATA_OK
from nghttp2py.server import BaseRequestHandler

INTERNAL_ERROR = ErrorCode.INTERNAL_ERROR


# ---- Responses without body ----


@pytest.mark.parametrize("method, status", [("HEAD", 200), ("GET", 204), ("GET", 205)])
@in_loop
async def test_a_response_without_body_ends_once(method, status):
    ends = []

    class Bad(BaseRequestHandler):
        def on_headers(self):
            if self.path == b"/whole":
                self.send_response(status, body=b"dropped")
            else:
                self.send_headers(status)
                self.send_data(b"dropped")
                self.end()
            for send in self.end, lambda: self.send_data(b"more"):
                with pytest.raises((StreamClosedError, StreamStateError)):
                    send()
                ends.append(self.path)

    client = serve(Bad)
    for path in "/whole", "/pieces":
        response = await client.fetch(path, method=method)
        assert (response.status, response.body, response.closed) == (status, b"", 0)
    assert len(ends) == 4


@in_loop
async def test_a_response_that_was_refused_does_not_take_the_next_ones_body():
    class Bad(BaseRequestHandler):
        def on_headers(self):
            with pytest.raises(HeadersError):
                self.send_response(304, {"x": "\n"})
            self.send_response(200, body=b"body")

    assert (await with_good_neighbours(Bad)).body == b"body"


# ---- Bodies that fail ----


def giving(*answers):
    answers = list(answers)
    return lambda n: answers.pop(0)


class FailingFile(io.RawIOBase):
    def readable(self):
        return True

    def read(self, n=-1):
        raise OSError("disk on fire")


class NonBlockingFile(io.RawIOBase):
    def read(self, n=-1):
        return None


class GreedyFile(io.RawIOBase):
    def read(self, n=-1):
        return bytes(n + 1)


async def failing_pieces():
    yield b"some"
    raise RuntimeError("on purpose")


async def text_pieces():
    yield "text"


def failing_generator():
    yield b"some"
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: lambda n: (bytes(n + 1), DATA_OK), "was asked for"),
        (lambda: giving((b"", DATA_OK)), "DATA_DEFERRED"),
        (lambda: giving((None, DATA_OK)), "DATA_DEFERRED"),
        (lambda: giving((b"x", DATA_DEFERRED)), "no data"),
        (lambda: giving((b"x", 7)), "not a DATA_ flag"),
        (lambda: giving(("text", DATA_OK)), "bytes, not str"),
        (lambda: giving(b"x"), "must return (data, flag), not bytes"),
        (lambda: giving(None), "must return"),
        (lambda: giving((b"x", DATA_OK)), "pop from empty list"),
        (lambda: lambda: (b"", DATA_EOF), "positional argument"),
        (lambda: ["text"], "bytes, not str"),
        (lambda: [5], "bytes, not int"),
        (lambda: (b"" for _ in iter(int, 1)), "empty pieces"),
        (failing_generator, "on purpose"),
        (FailingFile, "disk on fire"),
        (NonBlockingFile, "non-blocking"),
        (GreedyFile, "was asked for"),
        (lambda: io.StringIO("text"), "bytes, not str"),
        (failing_pieces, "on purpose"),
        (text_pieces, "bytes, not str"),
    ],
)
@in_loop
async def test_a_body_that_fails_resets_its_stream(make, text, caplog):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, None, make())

    client = serve(mixed(Bad))
    good = client.request("/good")
    response = await client.fetch("/bad")
    assert response.closed == INTERNAL_ERROR
    assert client.response(good).body == b"good"
    assert (await client.fetch("/good")).body == b"good"
    assert text in caplog.text
    (record,) = caplog.records
    assert record.name == "nghttp2py.asyncio.http2"
    assert record.levelno == logging.ERROR


class FailingAtTheEnd:
    """Pieces whose iterator cannot be closed, as one of a broken file."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration

    async def aclose(self):
        raise OSError("cannot be closed")


@in_loop
async def test_an_async_body_that_fails_at_its_end_resets_its_stream(caplog):
    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=FailingAtTheEnd())

    client = serve(mixed(Bad))
    assert (await client.fetch("/bad")).closed == INTERNAL_ERROR
    assert "cannot be closed" in caplog.text


@in_loop
async def test_an_async_body_that_is_cancelled_by_others_resets_its_stream(caplog):
    async def cancelled():
        yield b"some"
        raise asyncio.CancelledError

    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=cancelled())

    client = serve(mixed(Bad))
    assert (await client.fetch("/bad")).closed == INTERNAL_ERROR


@in_loop
async def test_an_async_body_that_fails_when_it_is_closed_is_logged(caplog):
    async def pieces():
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            raise OSError("cannot be closed")

    class Bad(BaseRequestHandler):
        def on_headers(self):
            self.send_response(body=pieces())

    client = serve(mixed(Bad))
    stream_id = client.request("/bad")
    await client.exchange()
    client.connection.reset_stream(stream_id, ErrorCode.CANCEL)
    await client.exchange()
    await until(lambda: "cannot be closed" in caplog.text)


@in_loop
async def test_a_body_source_may_call_the_handler_but_not_the_pump():
    """What it queues goes out with the bytes that are being gathered."""

    class Bad(BaseRequestHandler):
        made = None

        def on_headers(self):
            if self.path == b"/wait":
                Bad.made = self
            else:
                self.send_response(200, None, self.read)

        def read(self, n):
            if Bad.made is not None:
                Bad.made.send_response(body=b"by the other's body")
                Bad.made = None
                self.http2.flush()
                return b"", DATA_DEFERRED
            return b"own", DATA_EOF

    client = serve(Bad)
    waiting, asking = client.request("/wait"), client.request("/ask")
    await client.exchange()
    assert client.response(waiting).body == b"by the other's body"
    client.protocol.handlers[asking].resume()
    await client.exchange()
    assert client.response(asking).body == b"own"
