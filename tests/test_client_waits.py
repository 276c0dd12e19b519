"""HTTP2Client against servers that answer early, late, wrongly or never."""

import asyncio
import gc
import logging
import weakref

import hpack
import pytest
from helpers import (
    ACK,
    DATA,
    END_HEADERS,
    HEADERS,
    frame,
    rst_stream,
    settings,
    window_update,
)
from loops import in_loop, in_loops, in_virtual_time, until
from peers import ScriptedServer, client_tls, echo_server, echo_thread, server_tls
from virtual_time import pass_time

from nghttp2py.asyncio import open_connection
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.errors import ErrorCode, SendException
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2RequestReceived,
    H2StreamReset,
    Setting,
)

LARGE = bytes(300_000)
ONE = H2Configuration(max_concurrent_streams=1)


class Keeper(BaseResponseHandler):
    def __init__(self):
        self.body = b""
        self.code = None
        self.informed = []
        self.done = False

    def on_informational(self, status, headers):
        self.informed.append(status)

    def on_data(self, data):
        self.body += data

    def on_response_done(self):
        self.done = True

    def on_close(self, error_code):
        assert self.code is None
        self.code = error_code


async def endless():
    while True:
        yield b"x"
        await asyncio.sleep(0)


def address(server):
    return "127.0.0.1", server.port


@pytest.mark.parametrize("body", [lambda: LARGE, endless], ids=["bytes", "async"])
@pytest.mark.parametrize("status", [200, 413])
@in_loops
async def test_an_early_answer_frees_its_stream(body, status):
    async def early(peer):
        while True:
            event = await peer.next((H2RequestReceived, H2StreamReset))
            if isinstance(event, H2RequestReceived):
                peer.respond(event.stream_id, b"enough", status=status)

    async with ScriptedServer(early, config=ONE) as server:
        handlers = [Keeper() for _ in range(3)]
        async with HTTP2Client(address(server)) as client:
            for handler in handlers:
                client.send_request("POST", "/", body=body(), handler=handler)
        assert [h.code for h in handlers] == [0, 0, 0]
        assert [h.body for h in handlers] == [b"enough"] * 3


@in_loops
async def test_a_tunnel_outlives_the_end_of_the_servers_half():
    async def tunnel(peer):
        event = await peer.next(H2RequestReceived)
        peer.connection.send_response_headers(event.stream_id, 200, [])
        peer.connection.send_body(event.stream_id, b"theirs")
        while True:
            body = await peer.next((H2BodyReceived, H2StreamReset))
            assert isinstance(body, H2BodyReceived)
            got.append(body.body.data)
            if not body.body.more:
                break
        await peer.drained()

    async def ours():
        await until(lambda: handler.done)
        for _ in range(3):
            yield b"ours"
            await asyncio.sleep(0)

    got = []
    handler = Keeper()
    async with (
        ScriptedServer(tunnel) as server,
        HTTP2Client(address(server)) as client,
    ):
        client.send_request("CONNECT", "h:1", body=ours(), handler=handler)
        await until(lambda: handler.code == 0)
    assert b"".join(got) == b"oursoursours"


# ---- Ends that are no good ends ----


def response(*fields):
    return frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(list(fields)))


HALF = frame(DATA, 0, 1, b"half")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (response((":status", "000")), ErrorCode.PROTOCOL_ERROR),
        (response((":status", "200"), ("Upper", "1")), ErrorCode.PROTOCOL_ERROR),
        (rst_stream(1, 0), ErrorCode.CANCEL),
        (
            response((":status", "200"))
            + frame(DATA, 0, 1, b"half")
            + rst_stream(1, 0),
            ErrorCode.CANCEL,
        ),
        (
            response((":status", "200")) + rst_stream(1, ErrorCode.ENHANCE_YOUR_CALM),
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
    ],
    ids=["status 000", "upper", "reset at once", "reset in the middle", "calm"],
)
@in_loops
async def test_only_a_whole_response_is_a_good_end(answer, code):
    async def script(peer):
        await peer.next(H2RequestReceived)
        peer.writer.write(answer)
        await peer.drained()

    handler = Keeper()
    async with (
        ScriptedServer(script) as server,
        HTTP2Client(address(server)) as client,
    ):
        client.send_request(handler=handler)
        await until(lambda: handler.code is not None)
        assert (handler.code, handler.done) == (code, False)


# ---- Time ----


@pytest.mark.parametrize("answer", [b"", b"half"], ids=["nothing", "half"])
@in_loops
async def test_a_server_that_stops_answering_is_waited_for_no_longer(answer, caplog):
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        if answer:
            peer.connection.send_response_headers(event.stream_id, 200, [])
            peer.connection.send_body(event.stream_id, answer, end_stream=False)
        await peer.drained()

    caplog.set_level(logging.INFO, "nghttp2py")
    handler = Keeper()
    async with ScriptedServer(script) as server:
        async with HTTP2Client(address(server), timeout=0.2) as client:
            client.send_request(handler=handler)
        assert (handler.code, handler.timed_out) == (ErrorCode.CANCEL, True)
        assert handler.body == answer
    assert [r.levelname for r in caplog.records] == ["INFO"]


@in_loops
async def test_an_upload_that_gets_no_credit_is_waited_for_no_longer():
    async def script(peer):
        await peer.drained()

    config = H2Configuration(manual_flow_control=True)
    handler = Keeper()
    async with ScriptedServer(script, config=config) as server:
        async with HTTP2Client(address(server)) as client:
            client.send_request("POST", body=LARGE, handler=handler, timeout=0.2)
        assert handler.timed_out


@in_virtual_time
async def test_progress_of_either_half_extends_the_time():
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        while (await peer.next(H2BodyReceived)).body.more:
            pass
        peer.connection.send_response_headers(event.stream_id, 200, [])
        for _ in range(6):
            await pass_time(10)
            peer.connection.send_body(event.stream_id, b"x", end_stream=False)
            await peer.flush()
        peer.connection.end_stream(event.stream_id)
        await peer.drained()

    async def slow():
        for _ in range(6):
            await pass_time(10)
            yield b"y"

    handler = Keeper()
    async with (
        ScriptedServer(script) as server,
        HTTP2Client(address(server), timeout=15) as client,
    ):
        client.send_request("POST", body=slow(), handler=handler)
        await until(lambda: handler.code is not None)
    assert (handler.code, handler.body, handler.timed_out) == (0, b"x" * 6, False)


@in_virtual_time
async def test_who_waits_for_a_turn_is_not_timed_out_while_others_progress():
    async def script(peer):
        while True:
            event = await peer.next(H2RequestReceived)
            await pass_time(10)
            peer.respond(event.stream_id, b"answer")

    handlers = [Keeper() for _ in range(6)]
    async with ScriptedServer(script, config=ONE) as server:
        async with HTTP2Client(address(server), timeout=15) as client:
            for handler in handlers:
                client.send_request(handler=handler)
        assert [h.code for h in handlers] == [0] * 6


async def take_nothing(reader, writer):
    """Open all windows and read no more."""
    writer.write(settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}))
    writer.write(frame(4, ACK, 0) + window_update(0, 2**31 - 65536))
    await reader.read(100)
    writer.transport.pause_reading()
    writers.append(writer)


writers = []


@in_loops
async def test_a_server_that_takes_no_bytes_is_waited_for_no_longer():
    server = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
    async with server:
        where = server.sockets[0].getsockname()
        handler = Keeper()
        timeouts = Timeouts(close=0.2)
        async with HTTP2Client(where, timeout=0.3, timeouts=timeouts) as client:
            client.send_request("POST", body=bytes(50_000_000), handler=handler)
        assert (handler.code, handler.timed_out) == (ErrorCode.CANCEL, True)
        connection = await open_connection(*where, timeout=0.3)
        stream = await connection.open_stream({":method": "POST", ":path": "/"})
        with pytest.raises(SendException) as caught:
            await stream.send_data(bytes(50_000_000))
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(TimeoutError):
            await connection.open_stream({":method": "GET", ":path": "/"})
        connection.abort()
        await connection.wait_closed()
        for writer in writers:
            writer.transport.abort()
        writers.clear()


@in_loops
async def test_a_server_that_gives_no_sign_of_life_is_left(caplog):
    async def deaf(reader, writer):
        writer.write(settings() + frame(4, ACK, 0))
        await reader.read()
        writer.close()

    caplog.set_level(logging.WARNING)
    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with server:
        handler = Keeper()
        client = HTTP2Client(
            server.sockets[0].getsockname(),
            keepalive_interval=0.1,
            keepalive_timeout=0.1,
        )
        async with client:
            client.send_request(handler=handler)
            await client.wait_closed()
        assert handler.code not in (None, 0)
    assert not caplog.records


# ---- What a server did is no traceback ----


@pytest.mark.parametrize("end", ["close", "finish", "leave", "raise"])
@in_loops
async def test_every_end_is_quiet_after_the_server_has_broken_the_protocol(end, caplog):
    async def script(peer):
        event = await peer.next(H2RequestReceived)
        peer.connection.send_response_headers(event.stream_id, 200, [])
        await peer.flush()
        peer.writer.write(b"\0\0\1\0\0\0\0\0\0x")  # DATA on stream 0
        await peer.drained()

    caplog.set_level(logging.WARNING)
    handler = Keeper()
    async with ScriptedServer(script) as server:
        client = HTTP2Client(address(server))
        await client.connect()
        client.send_request(handler=handler)
        await until(lambda: handler.code is not None)
        assert handler.code == ErrorCode.PROTOCOL_ERROR
        if end == "leave":
            await client.__aexit__(None)
        elif end == "raise":
            await client.__aexit__(ValueError)
        else:
            getattr(client, end)()
            handler.reset()
            handler.resume()
        await client.wait_closed()
    assert not caplog.records


@in_loops
async def test_leaving_after_a_settings_timeout_is_quiet(caplog):
    async def mute(reader, writer):
        writer.write(settings())  # and never acknowledges the client's
        await reader.read()
        writer.close()

    caplog.set_level(logging.WARNING)
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        handler = Keeper()
        where = server.sockets[0].getsockname()
        async with HTTP2Client(where, settings_timeout=0.1) as client:
            client.send_request(handler=handler)
            await until(lambda: handler.code is not None)
        assert handler.code == ErrorCode.SETTINGS_TIMEOUT
    assert not caplog.records


# ---- Loops ----


def test_two_clients_share_the_current_loop():
    """As programs of old do it: make them, and then run the loop."""

    class Stopping(Keeper):
        def on_close(self, error_code):
            super().on_close(error_code)
            if all(h.code is not None for h in handlers):
                asyncio.get_event_loop().stop()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with echo_thread() as address:
            handlers = [Stopping(), Stopping()]
            clients = [HTTP2Client(address) for _ in handlers]
            assert all(client.io_loop is loop for client in clients)
            task = loop.create_task(asyncio.sleep(0))
            for client, handler in zip(clients, handlers, strict=True):
                client.send_request(handler=handler)
            loop.call_later(20, loop.stop)
            asyncio.get_event_loop().run_forever()
            assert [h.code for h in handlers] == [0, 0] and task.done()
            for client in clients:
                client.finish()
                client.run()
            assert not loop.is_closed()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_coroutine_callback_is_refused_where_it_is_defined():
    with pytest.raises(TypeError, match="on_headers is a coroutine function"):

        class Wrong(BaseResponseHandler):
            async def on_headers(self):
                pass


@pytest.mark.parametrize("tls", [False, True])
@in_loop
async def test_no_cycle_of_references_outlives_a_client(tls):
    gc.collect()
    gc.disable()
    try:
        refs = []

        async def use(where):
            handler = Keeper()
            context = client_tls() if tls else None
            client = HTTP2Client(where, ssl=context, server_hostname=("localhost"))
            async with client:
                client.send_request("POST", body=b"x", handler=handler)
                client.send_request("POST", body=endless(), handler=Keeper())
                await until(lambda: handler.code == 0)
                refs.extend(weakref.ref(o) for o in (client, handler, client._protocol))
                client.close()

        async with echo_server(ssl=server_tls() if tls else None) as server:
            await use(server.sockets[0].getsockname()[:2])
            await until(lambda: not any(ref() for ref in refs))
        assert len(refs) == 3
    finally:
        gc.enable()
