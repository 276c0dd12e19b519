"""A handler learns that its connection is being ended here."""

import asyncio

import hpack
import pytest
from helpers import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAGIC,
    frame,
    parse,
    ping,
    settings,
    settings_ack,
)
from loops import in_loops, until
from memory import MemoryTransport
from streams import Pair, connect

from nghttp2py.asyncio import H2Protocol, open_connection, start_server
from nghttp2py.errors import ConnectionTerminatedError

GET = {":method": "GET", ":path": "/", ":scheme": "http", ":authority": "test"}


@in_loops
async def test_a_handler_that_sends_for_ever_stops_when_the_server_does():
    async def events(stream):
        assert not stream.connection.is_closing
        await stream.start_response({":status": "200"})
        await stream.send_data(b"event")
        await stream.connection.wait_closing()
        assert stream.connection.is_closing
        await stream.send_data(b"goodbye", end_stream=True)

    async def serve(protocol):
        await protocol.serve_streams(events)

    async with await start_server(serve, "127.0.0.1", 0, close_timeout=15) as server:
        address = server.sockets[0].getsockname()
        async with await open_connection(*address) as connection:
            stream = await connection.open_stream(GET, end_stream=True)
            assert await stream.readexactly(5) == b"event"
            begin = asyncio.get_running_loop().time()
            server.close()
            assert await stream.read() == b"goodbye"
            await server.wait_closed()
            assert asyncio.get_running_loop().time() - begin < 5


@pytest.mark.parametrize("end", ["close", "abort", "close_connection"])
@in_loops
async def test_every_end_of_ours_wakes_who_waits_for_it(end):
    async with Pair() as pair:
        waiting = asyncio.ensure_future(pair.server.wait_closing())
        await until(lambda: pair.server._stoppers)
        assert not pair.server.is_closing
        getattr(pair.server, end)()
        await asyncio.wait_for(waiting, 5)
        assert pair.server.is_closing
        await pair.server.wait_closing()  # at once from now on


@in_loops
async def test_a_lost_connection_wakes_who_waits_for_its_end():
    async with Pair() as pair:
        waiting = asyncio.ensure_future(pair.server.wait_closing())
        await until(lambda: pair.server._stoppers)
        pair.pipe.abort()
        await asyncio.wait_for(waiting, 5)


@in_loops
async def test_goaway_of_the_client_is_no_end_of_the_server():
    async with Pair() as pair:
        waiting = asyncio.ensure_future(pair.server.wait_closing())
        stream = await pair.client.open_stream(GET)
        served = await pair.server.accept_stream()
        pair.client.close()
        with pytest.raises(ConnectionTerminatedError):
            await pair.client.open_stream(GET)
        assert not waiting.done()
        await served.send_response(200, body=b"whole")
        await stream.end_stream()
        assert await stream.read() == b"whole"
        await waiting


@in_loops
async def test_a_protocol_has_aioh2s_name_for_its_connection():
    pair = Pair()
    assert pair.client._conn is None
    async with pair:
        assert pair.client._conn is pair.client.connection
    assert pair.client._conn is None


@in_loops
async def test_who_connects_while_the_server_closes_is_answered_what_it_sends():
    """As after a TLS handshake that was under way: GOAWAY has not been read."""

    async def answer(stream):
        await stream.send_response(200)

    server = await start_server(
        lambda protocol: protocol.serve_streams(answer), "127.0.0.1", 0
    )
    late = server._factory()
    transport = MemoryTransport(late)
    server.close()
    late.connection_made(transport)
    fields = [(name.encode(), value.encode()) for name, value in GET.items()]
    block = hpack.Encoder().encode(fields)
    request = frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
    late.data_received(MAGIC + settings() + settings_ack() + request)
    sent = []

    def answered():
        sent.extend(parse(transport.take()))
        return any(f.type == HEADERS and f.stream_id == 1 for f in sent)

    await until(answered)
    late.data_received(b"".join(ping(f.payload, ack=True) for f in sent if f.type == 6))
    late.eof_received()
    late.connection_lost(None)
    await asyncio.wait_for(server.wait_closed(), 5)


@in_loops
async def test_who_connects_after_an_abort_has_no_handler():
    made = []
    server = await start_server(made.append, "127.0.0.1", 0)
    late = server._factory()
    client = H2Protocol(True)
    server.abort()
    connect(client, late)
    await client.wait_closed()
    await server.wait_closed()
    assert not made


@in_loops
async def test_the_address_and_certificate_of_a_client_that_is_gone_are_known():
    client, server = H2Protocol(True), H2Protocol(False)
    here, _ = connect(client, server, peercert={"serialNumber": "01"})
    here.abort()
    await server.wait_closed()
    assert server.get_extra_info("peername") == ("192.0.2.1", 443)
    assert server.get_extra_info("peercert") == {"serialNumber": "01"}
    assert server.get_extra_info("socket", 1) == 1
