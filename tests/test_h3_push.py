"""Server push over HTTP/3 (RFC 9114, 4.6), from handlers and coroutines."""

from __future__ import annotations

import contextlib

import pytest
from exchanges import both_kinds
from h3_streams import SETTINGS, headers_frame, raw_client, request, serving
from loops import in_loop, until
from quic_pair import client_configuration

from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect
from nghttp2py.errors import PushDisabledError, StreamResetError
from nghttp2py.h3 import (
    H3_ALPN,
    DataReceived,
    H3Configuration,
    H3Connection,
    HeadersReceived,
    PushPromiseReceived,
    StreamReset,
)
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.server import BaseRequestHandler

HOST = "127.0.0.1"
CANCELLED = ErrorCode.H3_REQUEST_CANCELLED


class Client(QuicConnectionProtocol):
    """A client that takes pushes, and keeps all events."""

    config = H3Configuration(extended=True)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic, config=self.config)
        self.events = []

    def quic_event_received(self, event):
        self.events += self.http.handle_event(event)

    def get(self, path=b"/"):
        stream_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, request(path), True)
        self.transmit()
        return stream_id

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def body(self, push_id):
        return b"".join(e.data for e in self.of(DataReceived) if e.push_id == push_id)

    def ended(self, push_id=None):
        return any(
            e.stream_ended and e.push_id == push_id
            for e in self.of((HeadersReceived, DataReceived))
        )

    def statuses(self, push_id):
        return [
            e.headers[0][1] for e in self.of(HeadersReceived) if e.push_id == push_id
        ]


@contextlib.asynccontextmanager
async def clients(application, config=None, quic=None, **options):
    kind = Client
    if config is not None:
        kind = type("Client", (Client,), {"config": config})
    async with (
        serving(application, **options) as (ends, port),
        connect(
            HOST,
            port,
            configuration=client_configuration(alpn_protocols=H3_ALPN, **(quic or {})),
            create_protocol=kind,
        ) as client,
    ):
        yield client, ends


def pusher(kind, body=b"pushed", seen=None):
    """An application that pushes a style with each page."""
    seen = [] if seen is None else seen

    class Handler(BaseRequestHandler):
        def on_headers(self):
            if not self.pushed:
                enabled = self.push_enabled
                pushed = self.push("/style", body=body)
                seen.append((enabled, pushed.stream_id != -1))
                self.send_response(body=b"page")

        def on_close(self, error_code):
            seen.append((self.path, error_code))

    async def handle(stream):
        enabled = stream.push_enabled
        try:
            pushed = await stream.push({":path": "/style"})
        except PushDisabledError:
            seen.append((enabled, False))
        else:
            seen.append((enabled, True))
            with contextlib.suppress(StreamResetError):
                await pushed.send_response(200, body=body)
        await stream.send_response(200, body=b"page")

    return Handler if kind == "handler" else handle


@both_kinds
@in_loop
async def test_a_push_is_promised_and_answered(kind):
    seen = []
    async with clients(pusher(kind, seen=seen)) as (client, ends):
        stream_id = client.get()
        await until(lambda: client.ended() and client.ended(0))
        assert seen[0] == (True, True)
        (promise,) = client.of(PushPromiseReceived)
        assert (promise.stream_id, promise.push_id) == (stream_id, 0)
        assert sorted(promise.headers) == sorted(request(b"/style"))
        assert client.statuses(0) == [b"200"]
        assert client.body(0) == b"pushed" and client.body(None) == b"page"
        # The next has the next identifier.
        client.get()
        await until(lambda: client.ended(1))
        await until(lambda: not ends.protocols[0].stream_count)


@both_kinds
@in_loop
async def test_a_large_push_waits_for_credit(kind):
    body = bytes(range(256)) * 8192
    async with clients(pusher(kind, body), quic={"max_stream_data": 20000}) as (
        client,
        _,
    ):
        client.get()
        await until(lambda: client.ended(0))
        assert client.body(0) == body


@both_kinds
@in_loop
async def test_a_client_that_allows_no_push_gets_none(kind):
    seen = []
    config = H3Configuration(max_push_id=None, extended=True)
    async with clients(pusher(kind, seen=seen), config) as (client, _):
        client.get()
        await until(client.ended)
        assert (False, False) in seen
        assert not client.of(PushPromiseReceived)


@both_kinds
@in_loop
async def test_pushes_end_at_max_push_id_and_go_on_beyond_a_new_one(kind):
    config = H3Configuration(max_push_id=0, extended=True)
    seen = []
    async with clients(pusher(kind, seen=seen), config) as (client, _):
        for answers in (1, 2):
            client.get()
            await until(lambda n=answers: client.body(None) == b"page" * n)
        assert len(client.of(PushPromiseReceived)) == 1
        assert (False, False) in seen
        client.http.send_max_push_id(1)
        client.get()
        await until(lambda: client.ended(1))


async def cancel_by_frame(client, push_stream_id):
    client.http.cancel_push(0)


async def cancel_by_stop_sending(client, push_stream_id):
    client.http.stop_stream(push_stream_id, CANCELLED)


async def cancel_by_goaway(client, push_stream_id):
    client.http.send_goaway(0)


@pytest.mark.parametrize(
    "cancel", [cancel_by_frame, cancel_by_stop_sending, cancel_by_goaway]
)
@both_kinds
@in_loop
async def test_a_push_that_the_client_cancels_is_reset(kind, cancel):
    seen = []
    application = pusher(kind, bytes(1 << 20), seen)
    async with clients(application, quic={"max_stream_data": 5000}) as (client, ends):
        client.get()
        await until(lambda: client.statuses(0))
        pushed = next(e.stream_id for e in client.of(HeadersReceived) if e.push_id == 0)
        # Nothing more is read of the push: its body waits.
        client._quic.pause_reading(pushed)
        await cancel(client, pushed)
        client.transmit()
        (protocol,) = ends.protocols
        await until(lambda: not protocol.stream_count)
        if cancel is not cancel_by_stop_sending:
            await until(lambda: client.of(StreamReset))
        await until(lambda: client.body(None) == b"page")
        assert protocol.is_closing is False
        if kind == "handler":
            await until(lambda: (b"/style", CANCELLED) in seen)


@both_kinds
@in_loop
async def test_a_push_ends_with_its_connection(kind):
    seen = []
    application = pusher(kind, bytes(1 << 20), seen)
    async with clients(application, quic={"max_stream_data": 5000}) as (client, ends):
        client.get()
        await until(lambda: client.statuses(0))
        client.close()
        await until(lambda: not ends.protocols[0].stream_count)


@in_loop
async def test_a_pushed_stream_that_is_dropped_is_reset():
    async def handle(stream):
        await stream.push({":path": "/style"})
        await stream.send_response(200, body=b"page")

    async with clients(handle) as (client, ends):
        client.get()
        await until(client.ended)
        await until(lambda: not ends.protocols[0].stream_count)
        await until(lambda: client.of(StreamReset))
        (event,) = client.of(StreamReset)
        assert event.error_code == CANCELLED


@in_loop
async def test_no_more_than_100_pushes_wait_for_the_client():
    made = []

    class Handler(BaseRequestHandler):
        def on_headers(self):
            if not self.pushed:
                made.extend(self.push("/style", body=b"x") for _ in range(120))
                self.send_response(body=b"page")

    def pushed():
        return sum(stream_id & 3 == 3 for stream_id in client.ended)

    allowing = SETTINGS + b"\x0d\x02\x43\xe8"
    async with (
        serving(Handler) as (_, port),
        raw_client(port, settings=allowing) as client,
    ):
        client.send(0, headers_frame(), True)
        await until(lambda: pushed() == 100)
        assert sum(handler.stream_id != -1 for handler in made) == 100
        await client.ping()
        made.clear()
        client.send(4, headers_frame(), True)
        await until(lambda: pushed() > 100)


@in_loop
async def test_max_push_id_and_cancel_push_come_byte_by_byte():
    seen = []
    application = pusher("handler", bytes(1 << 20), seen)
    async with (
        serving(application) as (_, port),
        raw_client(port, settings=None, max_stream_data=5000) as client,
    ):
        for byte in b"\x00\x04\x00\x0d\x01\x03":
            client.send(2, bytes([byte]))
            await client.ping()
        client.send(0, headers_frame(), True)
        await until(lambda: seen)
        assert seen[0] == (True, True)
        for byte in b"\x03\x01\x00":
            client.send(2, bytes([byte]))
            await client.ping()
        await until(lambda: (b"/style", CANCELLED) in seen)
        await until(lambda: CANCELLED in client.resets.values())
        assert client.over is None
