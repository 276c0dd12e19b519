"""HTTP/3: how streams and connections end, and what is left of them."""

import asyncio
import contextlib
import functools
import gc
import logging
import weakref

import pytest
from h3_streams import (
    OK,
    POST,
    Server,
    data_frame,
    headers_frame,
    pair,
    raw_client,
    request,
    serving,
    whole,
)
from loops import DEADLINE, in_loop, in_loops, in_virtual_time, until
from quic_pair import client_configuration, server_configuration
from virtual_time import pass_time

from nghttp2py.asyncio import h3
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.errors import ConnectionTerminatedError, StreamResetError
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection
from nghttp2py.h3.connection import ErrorCode, Setting
from nghttp2py.h3.events import GoAwayReceived, HeadersReceived
from nghttp2py.h3.exceptions import GoingAwayError, NotEnabledError
from nghttp2py.quic.events import ProtocolNegotiated, StreamDataReceived

UPLOAD = bytes(1 << 20)
#: Field section of ":status: 200" in terms of QPACK's static table, and of 103.
STATUS_200 = headers_frame(b"\x00\x00\xd9")
STATUS_413 = headers_frame(b"\x00\x00\x5f\x09\x03413")


class RawServer(QuicConnectionProtocol):
    """Answers each request with ``answer``: bytes, or what is called for them."""

    answer = b""
    end = True
    settings = b"\x00\x04\x00"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = set()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated) and self.settings:
            self._quic.send_stream_data(3, self.settings)
        if (
            isinstance(event, StreamDataReceived)
            and event.stream_id % 4 == 0
            and event.stream_id not in self.seen
        ):
            self.seen.add(event.stream_id)
            with contextlib.suppress(ValueError):  # the client has reset it already
                self.respond(event.stream_id)

    def respond(self, stream_id):
        self._quic.send_stream_data(stream_id, self.answer, self.end)


def answering(answer, **fields):
    return type("Answering", (RawServer,), {"answer": answer, **fields})


class Client:
    """A client of a server that is made of frames."""

    def __init__(self, create_server, **fields):
        self.create_server = create_server
        self.fields = fields

    async def __aenter__(self):
        self.server = await serve(
            "127.0.0.1",
            0,
            configuration=server_configuration(alpn_protocols=H3_ALPN, **self.fields),
            create_protocol=self.create_server,
        )
        self.context = connect(
            *self.server.sockets[0].getsockname()[:2],
            configuration=client_configuration(alpn_protocols=H3_ALPN),
            create_protocol=H3Protocol,
        )
        return await self.context.__aenter__()

    async def __aexit__(self, *exc_info):
        await self.context.__aexit__(*exc_info)
        self.server.close()


# ---- Responses before their uploads ----


@pytest.mark.parametrize("answer", [STATUS_200, STATUS_413 + data_frame(b"too large")])
@pytest.mark.parametrize("body", [UPLOAD, [UPLOAD] * 3, None])
@in_loop
async def test_a_response_that_is_whole_before_its_upload_leaves_nothing(answer, body):
    """The server neither reads nor stops the upload (RFC 9114, 4.1)."""
    async with Client(answering(answer), max_stream_data=1000) as client:
        for _ in range(150):  # more than may be open at once
            stream = await client.open_stream(request(method=b"POST"))
            upload = None
            if body is not None:
                upload = asyncio.create_task(stream.send_body(body))
            await stream.response()
            await whole(stream)
            assert stream.closed
            if upload is not None:
                with pytest.raises(StreamResetError):
                    await upload
        assert not client._streams_by_id
        await asyncio.wait_for(client.shutdown(None), DEADLINE)


@pytest.mark.parametrize("awaited", [False, True])
@in_loop
async def test_a_stream_that_is_dropped_is_reset(awaited):
    async with Client(answering(STATUS_200, end=False)) as client:
        for _ in range(150):
            stream = await client.open_stream(request(method=b"POST"))
            if awaited:
                await stream.response()
            del stream
        await until(lambda: not client._streams_by_id)
        stream = await client.open_stream(request(), end_stream=True)
        assert await asyncio.wait_for(stream.response(), DEADLINE)


@in_loops
async def test_a_stream_that_is_waited_for_is_not_dropped():
    gate = asyncio.Event()
    found = []

    async def handler(stream):
        await gate.wait()
        stream.send_headers(OK)
        await stream.send_data(b"body", end_stream=True)

    async def get(client):
        stream = await client.open_stream(request(), end_stream=True)
        found.append(await stream.read())

    async with pair(handler) as (client, _):
        # asyncio itself keeps no task that waits.
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, get(client))
        await until(lambda: client._streams_by_id)
        gc.collect()
        gate.set()
        await until(lambda: found)
        assert found == [b"body"]


@in_loop
async def test_dropped_streams_wake_those_who_wait_to_open_one():
    async with Client(answering(STATUS_200, end=False)) as client:
        streams = [await client.open_stream(request()) for _ in range(512)]
        waiting = asyncio.create_task(client.open_stream(request()))
        await asyncio.sleep(0)
        assert not waiting.done()
        streams.clear()
        await asyncio.wait_for(waiting, DEADLINE)


@in_loop
async def test_leaving_a_stream_ends_it():
    async with Client(answering(STATUS_200, end=False)) as client:
        async with await client.open_stream(request(method=b"POST")) as stream:
            await stream.response()
        assert stream.closed
        assert not client._streams_by_id
        stream.reset()
        stream.stop()


@in_loops
async def test_an_early_response_is_there_before_its_upload_is_stopped(monkeypatch):
    """A client that is told to stop too early may lose the response."""
    monkeypatch.setattr(h3, "_STOP_AFTER", 0.1)

    async def refuse(stream):
        await stream.send_response(413, {"x-a": "b"}, b"too large" * 10_000)

    async with serving(refuse) as (ends, port), raw_client(port) as client:
        client.send(0, headers_frame(POST) + data_frame(b"part"))
        await until(lambda: 0 in client.stops)
        assert client.order == ["end 0", "stop 0"]
        assert client.stops[0] == ErrorCode.H3_NO_ERROR
        assert not ends.protocols[0]._streams_by_id


@pytest.mark.parametrize("ended", [False, True])
@in_loop
async def test_a_client_that_ends_its_upload_itself_is_not_stopped(ended):
    async def refuse(stream):
        await stream.send_response(413)

    async with serving(refuse) as (ends, port), raw_client(port) as client:
        client.send(0, headers_frame(POST) + data_frame(b"part"))
        await until(lambda: 0 in client.ended)
        if ended:
            client.send(0, b"", True)
        else:
            client._quic.reset_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
            client.transmit()
        await until(lambda: not ends.protocols[0]._streams_by_id)
        assert not ends.protocols[0]._answered
        await client.ping()
        assert not client.stops


@in_loop
async def test_few_uploads_may_linger_and_none_when_the_server_stops():
    async def refuse(stream):
        await stream.send_response(413)

    async with serving(refuse) as (ends, port), raw_client(port) as client:
        for stream_id in range(0, 400, 4):
            client._quic.send_stream_data(stream_id, headers_frame(POST))
        client.transmit()
        await until(lambda: len(client.stops) == 100 - 16)
        await asyncio.wait_for(ends.protocols[0].shutdown(None), 3)


@in_loops
async def test_a_tunnel_is_open_for_our_half_when_the_other_has_ended():
    """RFC 9114, 4.4."""

    async def handler(stream):
        stream.send_headers(OK, end_stream=True)
        assert await stream.read() == b"still here"
        done.set()

    done = asyncio.Event()
    connect_fields = [(b":method", b"CONNECT"), (b":authority", b"localhost:1")]
    async with pair(handler) as (client, _):
        stream = await client.open_stream(connect_fields)
        await stream.response()
        assert await stream.read() == b""
        await stream.send_data(b"still here", end_stream=True)
        await asyncio.wait_for(done.wait(), DEADLINE)


# ---- Ends that are not good ----


@pytest.mark.parametrize("answer", [b"", b"\x21\x00", headers_frame(b"\x00\x00\xd8")])
@pytest.mark.parametrize("end_stream", [False, True])
@in_loop
async def test_a_stream_that_ends_without_a_response_raises(answer, end_stream):
    """The last answer is 103.  RFC 9114, 4.1: it is malformed, a stream error."""
    async with Client(answering(answer)) as client:
        stream = await client.open_stream(request(), end_stream=end_stream)
        waits = stream.response, stream.read, stream.receive_datagram
        for wait in waits:
            with pytest.raises(StreamResetError):
                await asyncio.wait_for(wait(), DEADLINE)
        assert not client._streams_by_id
        assert client.is_available


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", STATUS_200),
        (b"GET", headers_frame(b"\x00\x00\xff\x01")),  # 204
        (b"GET", headers_frame(b"\x00\x00\xda")),  # 304
    ],
)
@in_loop
async def test_content_that_must_not_come_is_not_delivered(method, answer):
    """RFC 9114, 4.1.2; RFC 9110, 6.4.1."""
    async with Client(answering(answer + data_frame(b"body"))) as client:
        stream = await client.open_stream(request(method=method), end_stream=True)
        with pytest.raises(StreamResetError, match="H3_MESSAGE_ERROR"):
            await stream.read()
        assert client.is_available


@pytest.mark.parametrize("length", [3, 5, 0])
@pytest.mark.parametrize("way", ["data", "trailers", "response"])
@in_loop
async def test_a_body_that_does_not_fit_its_length_has_no_end(length, way, caplog):
    """The client never takes it for whole (RFC 9114, 4.1.2)."""

    async def handler(stream):
        fields = [*OK, (b"content-length", b"%d" % length)]
        if way == "response":
            await stream.send_response(200, fields[1:], b"four")
        stream.send_headers(fields)
        if way == "data":
            await stream.send_data(b"four", end_stream=True)
        await stream.send_body(b"four", trailers=[(b"x-t", b"u")])

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        with pytest.raises(StreamResetError, match="H3_INTERNAL_ERROR"):
            await stream.response()
            await stream.read()
    assert "InvalidBodyLengthError" in caplog.text


@pytest.mark.parametrize("end_stream", [False, True])
@in_loop
async def test_a_reset_without_an_error_in_mid_body_is_no_good_end(end_stream):
    class Resetting(RawServer):
        def respond(self, stream_id):
            self._quic.send_stream_data(stream_id, STATUS_200 + data_frame(b"part"))
            self.transmit()
            self._loop.call_later(
                0.05, self._quic.reset_stream, stream_id, ErrorCode.H3_NO_ERROR
            )
            self._loop.call_later(0.06, self.transmit)

    async with Client(Resetting) as client:
        stream = await client.open_stream(request(), end_stream=end_stream)
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        assert caught.value.error_code == ErrorCode.H3_NO_ERROR
        assert caught.value.remote
        assert not stream.at_eof()


@in_loop
async def test_an_upload_that_is_reset_without_an_error_is_no_good_end():
    found = []

    async def handler(stream):
        try:
            found.append(await stream.read())
        except StreamResetError as error:
            found.append(error.error_code)

    async with serving(handler) as (ends, port), raw_client(port) as client:
        client.send(0, headers_frame(POST) + data_frame(b"part"))
        await until(lambda: ends.protocols and ends.protocols[0]._streams_by_id)
        client._quic.reset_stream(0, ErrorCode.H3_NO_ERROR)
        client.transmit()
        await until(lambda: found)
        assert found == [ErrorCode.H3_NO_ERROR]


@in_loop
async def test_a_group_of_the_clients_errors_is_no_failure_either(caplog):
    caplog.set_level(logging.INFO, logger="nghttp2py")
    async with serving(read_in_group) as (ends, port), raw_client(port) as client:
        client.send(0, headers_frame(POST))
        await until(lambda: ends.protocols and ends.protocols[0]._streams_by_id)
        client._quic.reset_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
        client.transmit()
        await until(lambda: not ends.protocols[0]._streams_by_id)
    assert not [r for r in caplog.records if r.name == "nghttp2py.asyncio.h3"]


class Group(Exception):
    """What TaskGroup raises from Python 3.11 on."""

    def __init__(self, *exceptions):
        super().__init__("errors")
        self.exceptions = exceptions


async def read_in_group(stream):
    try:
        await stream.read()
    except StreamResetError as error:
        raise Group(error, Group(error)) from error


# ---- SETTINGS ----


class Late(QuicConnectionProtocol):
    """Sends SETTINGS when the test says so, and answers Extended CONNECT."""

    allowed = 1

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self._loop.call_later(0.1, self.begin)
        if self.http is not None:
            for received in self.http.handle_event(event):
                if isinstance(received, HeadersReceived):
                    self.http.send_headers(received.stream_id, OK, True)

    def begin(self):
        settings = {Setting.ENABLE_CONNECT_PROTOCOL: self.allowed}
        self.http = H3Connection(self._quic, config=H3Configuration(settings=settings))
        self.transmit()


EXTENDED = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/"),
]


@pytest.mark.parametrize("allowed", [1, 0])
@in_loop
async def test_extended_connect_waits_for_settings(allowed):
    """RFC 9220, 3: a real round trip passes before they come."""
    server = functools.partial(type("It", (Late,), {"allowed": allowed}))
    async with Client(server) as client:
        if not allowed:
            with pytest.raises(NotEnabledError):
                await client.open_stream(EXTENDED)
            return
        stream = await client.open_stream(EXTENDED)
        assert await stream.response() == OK
        settings = await client.wait_settings()
        assert settings[Setting.ENABLE_CONNECT_PROTOCOL] == 1


@in_loop
async def test_a_wait_for_settings_ends_with_the_connection():
    async with Client(answering(b"", settings=b"")) as client:
        waiting = asyncio.create_task(client.open_stream(EXTENDED))
        settings = asyncio.create_task(client.wait_settings())
        await asyncio.sleep(0)
        client.close()
        for task in (waiting, settings):
            with pytest.raises(ConnectionTerminatedError):
                await task


# ---- Closing ----


@in_loops
async def test_a_handler_that_sends_for_ever_stops_when_the_server_does():
    async def events(stream):
        assert not stream.connection.is_closing
        stream.send_headers(OK)
        await stream.send_data(b"event")
        await stream.connection.wait_closing()
        assert stream.connection.is_closing
        await stream.send_data(b"goodbye", end_stream=True)

    async with pair(events) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.readexactly(5) == b"event"
        closing = asyncio.create_task(ends.protocols[0].shutdown(None))
        assert await stream.read() == b"goodbye"
        await asyncio.wait_for(closing, DEADLINE)
        await ends.protocols[0].wait_closing()


@pytest.mark.parametrize("first", ["shutdown", "close", "abort"])
@pytest.mark.parametrize("role", ["client", "server"])
@in_loops
async def test_each_end_may_be_asked_for_again(first, role):
    async def handler(stream):
        await stream.connection.wait_closing()
        await stream.send_response(200, body=b"whole")

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await until(lambda: ends.protocols and ends.protocols[0]._streams_by_id)
        protocol = client if role == "client" else ends.protocols[0]
        for name in (first, "shutdown", "close", "abort", "shutdown"):
            ended = getattr(protocol, name)()
            if ended is not None:
                await asyncio.wait_for(ended, DEADLINE)
        await protocol.wait_closing()
        await protocol.wait_closed()
        protocol.close()
        await protocol.shutdown()
        await client.wait_closed()
        stream.reset()
        stream.stop()
        with pytest.raises(ConnectionTerminatedError):
            await client.open_stream(request())


@in_loops
async def test_a_connection_that_is_being_closed_opens_no_streams():
    """Its end is reported when its closing period is over (RFC 9000, 10.2)."""

    async def answer(stream):
        await stream.send_response(200)

    async with pair(answer) as (client, _):
        client.close()
        for _ in range(2):
            with pytest.raises(ConnectionTerminatedError, match="H3_NO_ERROR") as info:
                await client.open_stream(request(), end_stream=True)
            assert info.value.unprocessed
        assert not client.stream_count


@in_loop
async def test_a_client_that_shuts_down_opens_no_more_streams(monkeypatch):
    gate = asyncio.Event()

    async def answer(stream):
        await gate.wait()
        await stream.send_response(200, body=b"whole")

    monkeypatch.setattr("nghttp2py.asyncio.h3._REQUESTS", 1)
    async with pair(answer) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        waiting = asyncio.create_task(client.open_stream(request(), end_stream=True))
        await until(lambda: client._openers)
        ending = asyncio.create_task(client.shutdown(None))
        with pytest.raises(GoingAwayError, match="shutdown"):
            await waiting
        assert not client.is_available
        with pytest.raises(GoingAwayError, match="shutdown"):
            await client.open_stream(request(), end_stream=True)
        gate.set()
        assert await stream.read() == b"whole"
        await ending


@in_loops
async def test_two_shutdowns_at_once_are_one():
    gate = asyncio.Event()

    async def handler(stream):
        await gate.wait()
        await stream.send_response(200, body=b"whole")

    class Noting(H3Protocol):
        goaways = 0

        def h3_event_received(self, event):
            self.goaways += isinstance(event, GoAwayReceived)
            super().h3_event_received(event)

    async with pair(handler, Noting) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await until(lambda: ends.protocols and ends.protocols[0]._streams_by_id)
        ending = [asyncio.create_task(ends.protocols[0].shutdown(10)) for _ in range(3)]
        await until(lambda: not client.is_available)
        await until(lambda: client.goaways == 2)
        await client.ping()
        gate.set()
        assert await stream.read() == b"whole"
        await asyncio.gather(*ending)
    assert client.goaways == 2  # RFC 9114, 5.2


@in_loop
async def test_a_lost_connection_says_which_end_has_ended_it():
    async def handler(stream):
        await asyncio.Event().wait()

    async with pair(handler) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await until(lambda: ends.protocols and ends.protocols[0]._streams_by_id)
        ends.protocols[0].close(ErrorCode.H3_INTERNAL_ERROR, "the\x1b[31m end")
        with pytest.raises(ConnectionTerminatedError) as caught:
            await stream.response()
        assert caught.value.remote
        assert caught.value.error_code == ErrorCode.H3_INTERNAL_ERROR
        assert "H3_INTERNAL_ERROR: the\\x1b[31m end" in str(caught.value)
    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        client.close()
        with pytest.raises(ConnectionTerminatedError) as caught:
            await stream.response()
        assert not caught.value.remote


@pytest.mark.parametrize("way", ["drain", "abort", "close"])
@in_loop
async def test_a_server_that_stops_tells_the_handlers_of_its_connections(way):
    ended = []

    async def events(stream):
        stream.send_headers(OK)
        await stream.send_data(b"event")
        await stream.connection.wait_closing()
        ended.append(stream.connection.is_closing)
        await stream.send_data(b"goodbye", end_stream=True)

    ends = Server(events)
    server = await serve(
        "127.0.0.1",
        0,
        configuration=server_configuration(alpn_protocols=H3_ALPN),
        create_protocol=ends.make,
    )
    async with connect(
        *server.sockets[0].getsockname()[:2],
        configuration=client_configuration(alpn_protocols=H3_ALPN),
        create_protocol=H3Protocol,
    ) as client:
        stream = await client.open_stream(request(), end_stream=True)
        assert await stream.readexactly(5) == b"event"
        if way == "drain":
            draining = asyncio.create_task(server.drain(DEADLINE))
            assert await stream.read() == b"goodbye"
            await asyncio.wait_for(draining, DEADLINE / 2)
            assert ended == [True]
        else:
            getattr(server, way)()
            with pytest.raises(ConnectionTerminatedError):
                await stream.read()
            await server.drain(DEADLINE)


@in_virtual_time
async def test_a_drain_is_over_in_time_whatever_a_client_does():
    async def hang(stream):
        stream.send_headers(OK)
        await stream.send_data(bytes(1_000_000))

    async with pair(hang, fields={"max_stream_data": 100_000}) as (client, ends):
        stream = await client.open_stream(request(), end_stream=True)
        await stream.response()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await ends.server.drain(30)
        assert loop.time() - begin <= 31
        await until(lambda: ends.protocols[0]._terminated is not None)


@in_virtual_time
async def test_a_connection_with_a_request_is_kept_alive():
    """RFC 9114, 5.1: QUIC's idle timeout is shorter than the request takes."""
    gate = asyncio.Event()

    async def wait(stream):
        await gate.wait()
        await stream.send_response(200, body=b"at last")

    async with pair(wait) as (client, _):
        stream = await client.open_stream(request(), end_stream=True)
        await pass_time(600)
        gate.set()
        assert await stream.read() == b"at last"
        # Without one it idles out.
        await client.wait_closed()


@in_loop
async def test_a_servers_connection_that_is_over_waits_for_no_collector():
    async def handler(stream):
        await stream.send_response(200, body=await stream.read())

    gc.collect()
    gc.disable()
    try:
        async with pair(handler) as (client, ends):
            stream = await client.open_stream(request(method=b"POST"))
            await stream.send_body(b"body")
            assert await stream.read() == b"body"
            await client.shutdown()
            await ends.protocols[0].wait_closed()
            protocol = weakref.ref(ends.protocols.pop())
            await until(lambda: protocol() is None)
    finally:
        gc.enable()


@in_loop
async def test_a_client_that_is_over_waits_for_no_collector():
    async def handler(stream):
        await stream.send_response(200, body=b"body")

    gc.collect()
    gc.disable()
    try:
        async with serving(handler) as (_, port):
            async with connect(
                "127.0.0.1",
                port,
                configuration=client_configuration(alpn_protocols=H3_ALPN),
                create_protocol=H3Protocol,
            ) as client:
                stream = await client.open_stream(request(), end_stream=True)
                assert await stream.read() == b"body"
            protocol = weakref.ref(client)
            del client, stream
            await until(lambda: protocol() is None)
    finally:
        gc.enable()


@in_loop
async def test_a_closed_stream_is_not_kept_for_a_wait_that_was_given_up():
    """A reader that gives up while a writer waits must leave nothing behind."""

    async def handler(stream):
        await stream.connection.wait_closing()

    async with pair(handler) as (client, _):
        stream = await client.open_stream(request(method=b"POST"))
        upload = asyncio.create_task(stream.send_body(bytes(8 << 20)))
        reader = asyncio.create_task(stream.response())
        # The upload stands, and nothing wakes either of them.
        while len(stream._waiting or ()) < 2:
            await client.ping()
        await client.ping()
        assert len(stream._waiting or ()) == 2
        reader.cancel()
        await asyncio.wait([reader])
        upload.cancel()
        await asyncio.wait([upload])
        assert not client._link.waiting
        assert not client._streams_by_id
