"""aioh2's interface: its README's example, and each row of what it promised."""

import asyncio
import logging

import pytest
from helpers import (
    DATA,
    GET,
    HEADERS,
    OK,
    PING,
    WINDOW_UPDATE,
    data,
    frame,
    ping,
    rst_stream,
    window_update,
)
from loops import idle, in_loops, until
from streams import Pair, Raw, connect, silence

import nghttp2py.asyncio as aioh2
from nghttp2py.asyncio import H2Protocol
from nghttp2py.errors import (
    HeadersError,
    NoSuchStreamError,
    ProtocolError,
    SendException,
    StreamStateError,
)
from nghttp2py.h2 import H2PingAcknowledged, H2SettingsReceived, Setting

REQUEST = {":method": "GET", ":path": "/"}


async def hello(proto):
    # What its README serves, as its users have it in their programs.
    try:
        while True:
            stream_id, _headers = await proto.recv_request()
            await proto.start_response(stream_id, {":status": "200"})
            await proto.send_data(stream_id, b"hello, ")
            name = await proto.read_stream(stream_id, -1)
            await proto.send_data(stream_id, name)
            await proto.send_trailers(stream_id, {"len": str(len(name))})
    except asyncio.CancelledError:
        pass


async def ask(client, name):
    stream_id = await client.start_request({":method": "GET", ":path": "/index.html"})
    await client.send_data(stream_id, name, end_stream=True)
    headers = await client.recv_response(stream_id)
    body = await client.read_stream(stream_id, -1)
    return headers, body, await client.recv_trailers(stream_id)


@in_loops
async def test_the_example_of_aioh2_runs(capsys):
    server = await aioh2.start_server(hello, port=0, concurrency=3)
    port = server.sockets[0].getsockname()[1]

    client = await aioh2.open_connection("0.0.0.0", port, functional_timeout=0.01)
    await silence(client)
    rtt = await client.wait_functional()
    assert rtt is not None and rtt > 0
    stream_id = await client.start_request({":method": "GET", ":path": "/index.html"})
    await client.send_data(stream_id, b"world", end_stream=True)
    assert await client.recv_response(stream_id) == [(":status", "200")]
    assert await client.read_stream(stream_id, -1) == b"hello, world"
    assert await client.recv_trailers(stream_id) == [("len", "5")]
    client.close_connection()
    await client.wait_closed()

    server.close()
    await server.wait_closed()


@in_loops
async def test_eight_requests_at_once_do_with_a_concurrency_of_three():
    server = await aioh2.start_server(hello, "127.0.0.1", 0, concurrency=3)
    port = server.sockets[0].getsockname()[1]
    async with server, await aioh2.open_connection("127.0.0.1", port) as client:
        names = [b"x" * n for n in range(8)]
        answers = await asyncio.gather(*(ask(client, name) for name in names))
        assert [body for _, body, _ in answers] == [b"hello, " + name for name in names]
        assert [dict(trailers)["len"] for _, _, trailers in answers] == list("01234567")


@in_loops
async def test_a_unix_socket_serves_as_well(tmp_path):
    path = str(tmp_path / "socket")

    class Mine(aioh2.H2Protocol):
        pass

    async with (
        await aioh2.start_unix_server(hello, path, cls=Mine),
        await aioh2.open_unix_connection(path, cls=Mine) as client,
    ):
        assert isinstance(client, Mine)
        _, body, _ = await ask(client, b"unix")
        assert body == b"hello, unix"


@in_loops
async def test_options_are_parted_between_protocol_and_loop():
    server = await aioh2.start_server(hello, "127.0.0.1", 0, backlog=5, concurrency=2)
    port = server.sockets[0].getsockname()[1]
    async with server:
        client = await aioh2.open_connection(
            "127.0.0.1", port, local_addr=("127.0.0.1", 0), functional_timeout=7
        )
        async with client:
            assert client.functional_timeout == 7
            await until(lambda: client.stream_limit == 2)


@pytest.mark.parametrize(
    "fields",
    [
        {":method": "GET", ":path": "/", "x-a": "1"},
        {b":method": b"GET", b":path": b"/", b"x-a": b"1"},
        [(":method", "GET"), (":path", "/"), ("x-a", "1")],
        ((b":method", "GET"), (":path", b"/"), ("x-a", b"1")),
    ],
)
@in_loops
async def test_headers_are_a_mapping_or_pairs_of_str_or_bytes(fields):
    async with Pair() as pair:
        await pair.client.start_request(fields, end_stream=True)
        _, headers = await pair.server.recv_request()
        assert headers == [
            (":authority", "192.0.2.1:443"),
            (":scheme", "http"),
            (":method", "GET"),
            (":path", "/"),
            ("x-a", "1"),
        ]


@pytest.mark.parametrize(
    ("peer", "authority"),
    [
        (("192.0.2.1", 80), b"192.0.2.1"),
        (("2001:db8::1", 8080, 0, 0), b"[2001:db8::1]:8080"),
        (("2001:db8::1", 80, 0, 0), b"[2001:db8::1]"),
        ("a socket's path", b"localhost"),
    ],
)
@in_loops
async def test_the_authority_is_the_servers_address(peer, authority):
    """The scheme's own port is left out (RFC 9110, 4.2.1)."""
    client, server = H2Protocol(True), H2Protocol(False)
    connect(client, server, peername=peer)
    await client.start_request(REQUEST)
    assert (await server.accept_stream()).request.authority == authority
    client.abort()
    await server.wait_closed()


@in_loops
async def test_pseudo_headers_that_were_given_are_kept():
    fields = {":scheme": "https", ":authority": "a.example", **REQUEST}
    async with Pair() as pair:
        await pair.client.start_request(fields, end_stream=True)
        await pair.client.start_request(
            {**REQUEST, "host": "b.example"}, end_stream=True
        )
        _, headers = await pair.server.recv_request()
        assert dict(headers) == fields
        _, headers = await pair.server.recv_request()
        assert ":authority" not in dict(headers)


@in_loops
async def test_bad_headers_are_the_callers_fault():
    async with Pair() as pair:
        with pytest.raises(HeadersError):
            await pair.client.start_request({":method": "GET"})
        with pytest.raises(HeadersError):
            await pair.client.start_request({**REQUEST, "a b": "c"})
        assert pair.client.open_streams == 0


@pytest.mark.parametrize("status", ["\u00b200", "2x0", "", "1000"])
@in_loops
async def test_a_bad_status_is_the_callers_fault(status):
    async with Pair() as pair:
        await pair.client.start_request(REQUEST, end_stream=True)
        stream_id, _ = await pair.server.recv_request()
        with pytest.raises(HeadersError):
            await pair.server.start_response(stream_id, {":status": status})


@in_loops
async def test_headers_are_bytes_without_an_encoding():
    async with Pair(server={"header_encoding": None}) as pair:
        await pair.client.start_request(REQUEST, end_stream=True)
        _, headers = await pair.server.recv_request()
        assert (b":path", b"/") in headers


@in_loops
async def test_headers_that_do_not_decode_are_kept():
    async with Pair() as pair:
        await pair.client.start_request({**REQUEST, "x": b"\xff"}, end_stream=True)
        _, headers = await pair.server.recv_request()
        assert dict(headers)["x"].encode("utf-8", "surrogateescape") == b"\xff"


@in_loops
async def test_set_handler_runs_once_and_is_cancelled_at_the_end():
    ended = []

    async def handler(proto):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append(proto)
            raise

    async with Pair(handler) as pair:
        with pytest.raises(ProtocolError):
            pair.server.set_handler(handler(pair.server))
        await idle()
    assert ended == [pair.server]


@in_loops
async def test_close_connection_sends_no_goaway():
    raw = Raw()
    raw.protocol.close_connection()
    await raw.protocol.wait_closed()
    assert raw.take() == []


@in_loops
async def test_start_request_waits_for_a_free_stream():
    raw = Raw(peer_settings={Setting.MAX_CONCURRENT_STREAMS: 1})
    first = await raw.protocol.start_request(REQUEST, end_stream=True)
    second = asyncio.ensure_future(raw.protocol.start_request(REQUEST, end_stream=True))
    await idle()
    assert not second.done()
    raw.feed(raw.headers(first, OK, end_stream=True))
    assert await second == 3
    await raw.close()


@in_loops
async def test_a_stream_that_our_own_end_closes_lets_the_next_go():
    """A defect of aioh2: only the peer's end woke the waiters."""
    raw = Raw(peer_settings={Setting.MAX_CONCURRENT_STREAMS: 1})
    first = await raw.protocol.start_request(REQUEST)
    second = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    raw.feed(raw.headers(first, OK, end_stream=True))
    await idle()
    assert not second.done()
    await raw.protocol.end_stream(first)
    assert await second == 3
    await raw.close()


@in_loops
async def test_a_request_that_gives_up_waiting_takes_no_stream():
    raw = Raw(peer_settings={Setting.MAX_CONCURRENT_STREAMS: 1})
    first = await raw.protocol.start_request(REQUEST, end_stream=True)
    given_up = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    third = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    await idle()
    given_up.cancel()
    raw.feed(raw.headers(first, OK, end_stream=True))
    assert await third == 3
    # It may also be given the stream in the very turn in which it gives up.
    fourth = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    fifth = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    await idle()
    raw.feed(rst_stream(3))
    fourth.cancel()
    assert await fifth == 5
    assert raw.protocol.open_streams == 1
    await raw.close()


@in_loops
async def test_start_response_twice_is_refused():
    async with Pair() as pair:
        await pair.client.start_request(REQUEST, end_stream=True)
        stream_id, _ = await pair.server.recv_request()
        await pair.server.start_response(stream_id, {":status": "200"})
        with pytest.raises(StreamStateError):
            await pair.server.start_response(stream_id, {":status": "200"})


@in_loops
async def test_send_data_goes_as_far_as_the_window_and_waits():
    raw = Raw(client_side=False, peer_settings={Setting.INITIAL_WINDOW_SIZE: 3})
    raw.feed(raw.headers(1, GET, end_stream=True))
    await raw.protocol.recv_request()
    await raw.protocol.start_response(1, {":status": "200"})
    await raw.protocol.send_data(1, b"12")
    rest = asyncio.ensure_future(raw.protocol.send_data(1, b"34"))
    assert [f.payload for f in await raw.frames(DATA)] == [b"12", b"3"]
    await idle()
    assert not rest.done() and raw.take() == []
    raw.feed(window_update(1, 5))
    await rest
    assert [f.payload for f in await raw.frames(DATA)] == [b"4"]
    await raw.close()


@in_loops
async def test_a_reset_while_sending_tells_the_rest():
    raw = Raw(client_side=False, peer_settings={Setting.INITIAL_WINDOW_SIZE: 3})
    raw.feed(raw.headers(1, GET, end_stream=True))
    await raw.protocol.recv_request()
    await raw.protocol.start_response(1, {":status": "200"})
    sending = asyncio.ensure_future(raw.protocol.send_data(1, b"12345678"))
    await raw.frames(DATA)
    raw.feed(rst_stream(1))
    with pytest.raises(SendException) as info:
        await sending
    assert info.value.data == b"45678"
    assert info.value.__cause__.error_code == 8
    with pytest.raises(SendException) as info:
        await raw.protocol.send_data(1, b"9")
    assert info.value.data == b"9"
    await raw.close()


@in_loops
async def test_data_of_two_senders_on_a_stream_do_not_mix():
    raw = Raw(client_side=False, peer_settings={Setting.INITIAL_WINDOW_SIZE: 1})
    raw.feed(raw.headers(1, GET, end_stream=True))
    await raw.protocol.recv_request()
    await raw.protocol.start_response(1, {":status": "200"})
    await raw.frames(HEADERS)
    senders = [
        asyncio.ensure_future(raw.protocol.send_data(1, letter * 5))
        for letter in (b"a", b"b", b"c")
    ]
    end = asyncio.ensure_future(raw.protocol.send_trailers(1, {"n": "15"}))
    sent = b"".join(f.payload for f in await raw.frames(DATA))
    while len(sent) < 15:
        raw.feed(window_update(1, 1))
        sent += b"".join(f.payload for f in await raw.frames(DATA))
    assert sent == b"aaaaabbbbbccccc"
    await asyncio.gather(*senders, end)
    raw.feed(window_update(1, 1))  # the C library ends no body in an empty window
    assert (await raw.frames(HEADERS))[0].flags & 1
    await raw.close()


@in_loops
async def test_a_cancelled_send_keeps_what_was_sent():
    raw = Raw(client_side=False, peer_settings={Setting.INITIAL_WINDOW_SIZE: 3})
    raw.feed(raw.headers(1, GET, end_stream=True))
    await raw.protocol.recv_request()
    await raw.protocol.start_response(1, {":status": "200"})
    sending = asyncio.ensure_future(raw.protocol.send_data(1, b"12345678"))
    assert (await raw.frames(DATA))[0].payload == b"123"
    sending.cancel()
    await asyncio.wait([sending])
    raw.feed(window_update(1, 10))
    await raw.protocol.send_data(1, b"x", end_stream=True)
    assert [f.payload for f in await raw.frames(DATA)] == [b"x"]
    await raw.close()


@in_loops
async def test_end_stream_is_an_empty_data_frame():
    async with Pair() as pair:
        stream_id = await pair.client.start_request(REQUEST)
        await pair.client.end_stream(stream_id)
        await pair.server.recv_request()
        assert await pair.server.read_stream(stream_id, -1) == b""


@in_loops
async def test_requests_are_received_in_their_order():
    async with Pair() as pair:
        sent = [
            await pair.client.start_request({**REQUEST, "n": str(n)}) for n in range(5)
        ]
        received = [await pair.server.recv_request() for _ in range(5)]
        assert [stream_id for stream_id, _ in received] == sent


@in_loops
async def test_trailers_are_an_empty_dict_if_there_are_none():
    async with Pair() as pair:
        stream_id = await pair.client.start_request(REQUEST, end_stream=True)
        await pair.server.recv_request()
        await pair.server.start_response(stream_id, {":status": "204"}, end_stream=True)
        assert await pair.client.recv_response(stream_id) == [(":status", "204")]
        assert await pair.client.read_stream(stream_id) == b""
        assert await pair.client.recv_trailers(stream_id) == {}


@in_loops
async def test_read_stream_gives_what_its_size_asks_for():
    raw = Raw(client_side=False)
    read = raw.protocol.read_stream
    raw.feed(raw.headers(1, GET), data(1, b"one"), data(1, b"two"), data(1))
    assert await read(1, 0) == b""
    assert await read(1, 2) == b"on"
    assert await read(1) == b"e"  # the rest of the frame
    assert await read(1) == b"two"
    waiting = asyncio.ensure_future(read(1, 4))
    await idle()
    raw.feed(data(1, b"thr"))
    await idle()
    assert not waiting.done()
    raw.feed(data(1, b"eefour"))
    assert await waiting == b"thre"
    everything = asyncio.ensure_future(read(1, -1))
    raw.feed(data(1, b"five"), data(1, end_stream=True))
    assert await everything == b"efourfive"
    assert await read(1, 5) == b""
    assert await read(1, -1) == b""
    await raw.close()


@in_loops
async def test_read_stream_gives_less_than_its_size_at_the_end_only():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET), data(1, b"abc", end_stream=True))
    assert await raw.protocol.read_stream(1, 10) == b"abc"
    await raw.close()


@in_loops
async def test_readers_of_a_stream_take_turns():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET))
    first = asyncio.ensure_future(raw.protocol.read_stream(1, 3))
    second = asyncio.ensure_future(raw.protocol.read_stream(1, -1))
    for byte in b"abcde":
        raw.feed(data(1, bytes([byte])))
        await idle()
    raw.feed(data(1, end_stream=True))
    assert await first == b"abc"
    assert await second == b"de"
    await raw.close()


@in_loops
async def test_a_cancelled_read_loses_nothing():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET), data(1, b"abc"))
    for size in (10, -1):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(raw.protocol.read_stream(1, size), 0.01)
    raw.feed(data(1, b"de", end_stream=True))
    assert await raw.protocol.read_stream(1, -1) == b"abcde"
    await raw.close()


@in_loops
async def test_each_byte_that_was_read_is_credited():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET))
    connection = raw.protocol.connection
    for _ in range(8):
        for _ in range(3):
            raw.feed(data(1, b"x" * 16000))
        assert connection.unacknowledged_data(1) == 48000
        assert len(await raw.protocol.read_stream(1, 48000)) == 48000
        assert connection.unacknowledged_data(1) == 0
    updates = [f for f in await raw.frames(WINDOW_UPDATE) if f.stream_id == 1]
    assert sum(int.from_bytes(f.payload, "big") for f in updates) >= 8 * 48000 - 65535
    await raw.close()


@in_loops
async def test_update_settings_and_the_properties_send_settings():
    async with Pair() as pair:
        seen = []

        def tap(event, given=pair.server.event_received):
            if isinstance(event, H2SettingsReceived):
                seen.append(event.settings)
            given(event)

        pair.server.event_received = tap
        await pair.client.ping()
        seen.clear()
        pair.client.initial_window_size = 100000
        pair.client.max_frame_size = 20000
        pair.client.max_concurrent_streams = 7
        pair.client.update_settings({Setting.INITIAL_WINDOW_SIZE: 5})
        await pair.client.ping()
        assert seen == [
            {Setting.INITIAL_WINDOW_SIZE: 100000},
            {Setting.MAX_FRAME_SIZE: 20000},
            {Setting.MAX_CONCURRENT_STREAMS: 7},
            {Setting.INITIAL_WINDOW_SIZE: 5},
        ]
        assert pair.client.initial_window_size == 5
        assert pair.client.max_frame_size == 20000
        assert pair.client.max_concurrent_streams == 7


@in_loops
async def test_wait_functional_says_nothing_if_something_came_lately():
    async with Pair(client={"functional_timeout": 60}) as pair:
        await pair.client.ping()
        assert await pair.client.wait_functional() is None


@in_loops
async def test_wait_functional_pings_until_an_answer_comes():
    raw = Raw(functional_timeout=0.01)
    await silence(raw.protocol)
    waiting = asyncio.ensure_future(raw.protocol.wait_functional())
    pings = await raw.frames(PING)
    pings += await raw.frames(PING)  # on a busy machine there may be more
    first, second, *_ = pings
    assert first.payload != second.payload
    assert not waiting.done()
    raw.feed(ping(second.payload, ack=True))
    assert 0 < await waiting < 10
    await raw.close()


@in_loops
async def test_reprioritize_ranks_what_a_server_sends():
    async with Pair() as pair:
        for _ in range(3):
            await pair.client.start_request(REQUEST, end_stream=True)
        for _ in range(3):
            await pair.server.recv_request()
        pair.server.reprioritize(1, weight=256)
        pair.server.reprioritize(3, weight=1)
        pair.server.reprioritize(5, depends_on=1)
        with pytest.raises(ValueError):
            pair.server.reprioritize(1, weight=0)
        for stream_id in (1, 3, 5):
            await pair.server.start_response(stream_id, {":status": "200"})
            await pair.server.send_data(stream_id, b"x" * 1000, end_stream=True)
        pair.client.reprioritize(1)  # nothing to rank, but no error
        for stream_id in (1, 5, 3):
            assert len(await pair.client.read_stream(stream_id, -1)) == 1000


@in_loops
async def test_events_can_be_tapped():
    class Tapped(aioh2.H2Protocol):
        events = ()

        def event_received(self, event):
            self.events = (*self.events, event)
            super().event_received(event)

    async with Pair() as pair:
        pair.client.__class__ = Tapped
        await pair.client.ping()
        assert any(isinstance(e, H2PingAcknowledged) for e in pair.client.events)


@in_loops
async def test_an_id_that_never_was_makes_no_stream():
    async with Pair() as pair:
        for call in (
            pair.client.recv_response(1),
            pair.client.recv_trailers(1),
            pair.client.read_stream(1),
            pair.client.start_response(1, OK),
        ):
            with pytest.raises(NoSuchStreamError):
                await call
        with pytest.raises(SendException):
            await pair.client.send_data(1, b"x")


@in_loops
async def test_frames_and_responses_that_aioh2_did_not_know_do_no_harm():
    raw = Raw()
    stream_id = await raw.protocol.start_request(REQUEST, end_stream=True)
    raw.feed(
        frame(0xA, 0, stream_id, b'\0\0h2=":443"'),  # ALTSVC
        frame(0xBE, 0, 0, b"?"),
        raw.headers(stream_id, [(":status", "103"), ("link", "</a.css>")]),
        raw.headers(stream_id, OK, end_stream=True),
    )
    assert await raw.protocol.recv_informational(stream_id) == [
        (":status", "103"),
        ("link", "</a.css>"),
    ]
    assert await raw.protocol.recv_informational(stream_id) is None
    assert await raw.protocol.recv_response(stream_id) == [(":status", "200")]
    await raw.close()


@in_loops
async def test_requests_past_the_concurrency_are_refused_not_lost():
    """aioh2's connection died of five early requests with a concurrency of three."""
    raw = Raw(client_side=False, concurrency=3)
    # It has not seen our SETTINGS when it sends these.
    raw.feed(*(raw.headers(1 + 2 * n, GET, end_stream=True) for n in range(3)))
    received = [(await raw.protocol.recv_request())[0] for _ in range(3)]
    assert received == [1, 3, 5]
    for stream_id in received:
        await raw.protocol.start_response(stream_id, OK, end_stream=True)
    assert len(await raw.frames(HEADERS)) == 3
    await raw.close()


@in_loops
async def test_a_handler_that_fails_ends_the_connection_and_is_logged(caplog):
    async def handler(proto):
        await proto.recv_request()
        raise RuntimeError("mine")

    with caplog.at_level(logging.ERROR, "nghttp2py"):
        async with Pair(handler) as pair:
            stream_id = await pair.client.start_request(REQUEST)
            with pytest.raises(ProtocolError):
                await pair.client.recv_response(stream_id)
            await pair.client.wait_closed()
    assert "mine" in caplog.text


@in_loops
async def test_streams_are_forgotten_when_they_are_done():
    async with Pair(hello) as pair:
        for n in range(20):
            await ask(pair.client, b"x" * n)
        assert not pair.client.stream_count and not pair.client._finished
        await until(lambda: not pair.server.stream_count)
        assert len(pair.server._finished) <= pair.server.max_concurrent_streams


@in_loops
async def test_a_request_that_was_reset_is_never_received():
    raw = Raw(client_side=False)
    raw.feed(raw.headers(1, GET), rst_stream(1), raw.headers(3, GET))
    assert (await raw.protocol.recv_request())[0] == 3
    raw.feed(rst_stream(3))
    await raw.close()
