"""nghttp2py.asyncio.Client over HTTP/2, against good servers and hostile ones.

What it does over HTTP/3 too is in test_client_versions.
"""

import asyncio
import hashlib
import io
import random
import ssl

import hpack
import pytest
from loops import in_loops, until
from peers import (
    Echo,
    ScriptedServer,
    client_tls,
    echo_server,
    expect_a_broken_handshake,
    free_port,
    nghttpd,
    server_tls,
)

from nghttp2py.asyncio import Client, Fields
from nghttp2py.errors import (
    ConnectionClosedError,
    ConnectionTerminatedError,
    ErrorCode,
    StreamResetError,
)
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2RequestReceived,
)
from nghttp2py.hpack import NeverIndexed
from nghttp2py.server import BaseRequestHandler, HTTP2Server


def origin(server, scheme="http", host="127.0.0.1"):
    port = getattr(server, "port", None) or server.sockets[0].getsockname()[1]
    return f"{scheme}://{host}:{port}"


# ---- What it is for ----


def pieces():
    yield b"one "
    yield b"two"


@in_loops
async def test_a_url_must_be_of_the_origin():
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.get(origin(server) + "/path#fragment")
        assert await response.read() == b"/path"
        with pytest.raises(ValueError, match="is not of"):
            await client.get("http://example.org/")
        with pytest.raises(ValueError, match="http"):
            await client.get("//example.org/")


@pytest.mark.parametrize(
    "wrong",
    ["example.org", "ftp://example.org", "http://", "http://h/path", "http://u:p@h"],
)
def test_an_origin_is_a_scheme_and_a_host(wrong):
    with pytest.raises(ValueError):
        Client(wrong)


@in_loops
async def test_tls_is_checked():
    async with echo_server(ssl=server_tls()) as server:
        where = origin(server, "https", "localhost")
        async with Client(where, ssl=client_tls()) as client:
            assert await (await client.get("/tls")).read() == b"/tls"
        expect_a_broken_handshake()
        async with Client(where) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.get("/")


@in_loops
async def test_a_server_without_h2_is_an_error():
    async def unreached(peer):
        await peer.drained()

    async with ScriptedServer(unreached, tls=server_tls(alpn=())) as server:
        where = origin(server, "https", "localhost")
        async with Client(where, ssl=client_tls()) as client:
            with pytest.raises(ConnectionTerminatedError) as caught:
                await client.get("/")
            assert caught.value.error_code == ErrorCode.HTTP_1_1_REQUIRED


@in_loops
async def test_a_unix_socket_will_do(tmp_path):
    path = str(tmp_path / "socket")
    async with HTTP2Server(path, Echo), Client("http://name", path=path) as client:
        response = await client.get("/unix")
        assert response.headers["x-host"] == "name"
        assert await response.read() == b"/unix"


@in_loops
async def test_nghttpd_serves_a_large_file_whole(tmp_path):
    data = random.Random(4).randbytes(5_000_000)
    (tmp_path / "file").write_bytes(data)
    with nghttpd(tmp_path, tls=True) as port:
        where = f"https://localhost:{port}"
        async with Client(where, ssl=client_tls()) as client:
            digest = hashlib.sha256()
            async for chunk in await client.get("/file"):
                digest.update(chunk)
            assert digest.digest() == hashlib.sha256(data).digest()
            assert (await client.get("/missing")).status == 404


# ---- Wrong calls ----


# ---- Connections that end ----


@in_loops
async def test_after_goaway_the_next_request_connects_again():
    async def goaway(peer):
        stream_id = await peer.next_request()
        peer.respond(stream_id, b"last")
        peer.connection.close_connection()
        await peer.drained()

    async def serve(peer):
        await peer.serve()

    async with (
        ScriptedServer(goaway, serve) as server,
        Client(origin(server)) as client,
    ):
        assert await (await client.get("/")).read() == b"last"
        assert await (await client.get("/again")).read() == b"/again"
        assert server.connections == 2


@in_loops
async def test_requests_that_goaway_leaves_out_are_sent_again():
    """RFC 9113, 6.8: streams above the last identifier were not processed."""

    async def goaway(peer):
        first = await peer.next_request()
        for _ in range(9):
            await peer.next(H2RequestReceived)
        peer.connection.send_goaway(last_stream_id=first)
        peer.respond(first, b"processed")
        await peer.drained()

    async def serve(peer):
        await peer.serve()

    async def get(i):
        return await (await client.get(f"/{i}")).read()

    async with ScriptedServer(goaway, serve) as server:
        async with Client(origin(server)) as client:
            answers = await asyncio.gather(*(get(i) for i in range(10)))
        assert answers == [b"processed"] + [b"/%d" % i for i in range(1, 10)]
        assert server.connections == 2


@in_loops
async def test_a_body_is_sent_again_from_its_beginning():
    async def refuse(peer):
        await peer.next_request()
        peer.connection.send_goaway(last_stream_id=0)
        await peer.drained()

    async def answer(peer):
        event = await peer.next(H2RequestReceived)
        body = b""
        while True:
            piece = await peer.next(H2BodyReceived)
            body += piece.body.data
            if not piece.body.more:
                break
        peer.respond(event.stream_id, body)
        await peer.drained()

    for body in ("text", io.BytesIO(b"text")):
        async with (
            ScriptedServer(refuse, answer) as server,
            Client(origin(server)) as client,
        ):
            assert await (await client.post("/", body)).read() == b"text"


@in_loops
async def test_a_source_that_was_read_from_is_not_sent_again():
    async def refuse(peer):
        await peer.next_request()
        peer.connection.send_goaway(last_stream_id=0)
        await peer.drained()

    async with ScriptedServer(refuse) as server, Client(origin(server)) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.post("/", pieces())
        assert caught.value.unprocessed


@in_loops
async def test_a_refused_stream_is_tried_again_a_few_times():
    """RFC 9113, 8.7."""

    async def refuse(peer):
        for _ in range(times):
            stream_id = await peer.next_request()
            peer.connection.reset_stream(stream_id, ErrorCode.REFUSED_STREAM)
        await peer.serve()

    times = 2
    async with ScriptedServer(refuse) as server, Client(origin(server)) as client:
        assert await (await client.get("/last")).read() == b"/last"
        assert server.connections == 1
    times = 9
    async with ScriptedServer(refuse) as server, Client(origin(server)) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.get("/")
        assert caught.value.error_code == ErrorCode.REFUSED_STREAM


@in_loops
async def test_who_waits_for_a_turn_outlasts_many_connections():
    """The server answers two requests on each connection, one at a time."""

    async def two(peer):
        for _ in range(2):
            stream_id = await peer.next_request()
            peer.respond(stream_id, b"answer")
        peer.connection.send_goaway(last_stream_id=stream_id)
        await peer.drained()

    async def get():
        return await (await client.get("/")).read()

    config = H2Configuration(max_concurrent_streams=1)
    async with (
        ScriptedServer(two, config=config) as server,
        Client(origin(server), retries=1) as client,
    ):
        answers = await asyncio.gather(*(get() for _ in range(20)))
        assert answers == [b"answer"] * 20
        assert server.connections == 10


@in_loops
async def test_a_server_that_never_answers_is_not_asked_for_ever():
    async def refuse(peer):
        await peer.next_request()
        peer.connection.send_goaway(last_stream_id=0)
        await peer.drained()

    async with (
        ScriptedServer(refuse) as server,
        Client(origin(server), retries=2) as client,
    ):
        with pytest.raises(StreamResetError) as caught:
            await client.get("/")
        assert caught.value.unprocessed
        assert server.connections == 3


@in_loops
async def test_a_reset_request_is_not_sent_again():
    async def reset(peer):
        stream_id = await peer.next_request()
        peer.connection.reset_stream(stream_id, ErrorCode.ENHANCE_YOUR_CALM)
        await peer.serve()

    async with ScriptedServer(reset) as server, Client(origin(server)) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.get("/")
        assert caught.value.error_code == ErrorCode.ENHANCE_YOUR_CALM
        assert caught.value.remote and not caught.value.unprocessed
        assert await (await client.get("/next")).read() == b"/next"


@in_loops
async def test_a_body_that_is_cut_off_raises():
    async def cut(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, b"some", end_stream=False)
        await peer.flush()
        peer.connection.reset_stream(stream_id, ErrorCode.INTERNAL_ERROR)
        await peer.drained()

    async def vanish(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, b"some", end_stream=False)
        await peer.flush()
        peer.abort()

    async with ScriptedServer(cut, vanish) as server:
        async with Client(origin(server)) as client:
            with pytest.raises(StreamResetError) as caught:
                await (await client.get("/")).read()
            assert caught.value.error_code == ErrorCode.INTERNAL_ERROR
        async with Client(origin(server)) as client:
            with pytest.raises(ConnectionTerminatedError):
                await (await client.get("/")).read()


@in_loops
async def test_a_server_that_vanishes_ends_every_request_and_is_tried_anew():
    async def vanish(peer):
        for _ in range(3):
            await peer.next(H2RequestReceived)
        peer.abort()

    async def serve(peer):
        await peer.serve()

    async with (
        ScriptedServer(vanish, serve) as server,
        Client(origin(server)) as client,
    ):
        results = await asyncio.gather(
            *(client.get("/") for _ in range(3)), return_exceptions=True
        )
        assert [type(r) for r in results] == [ConnectionTerminatedError] * 3
        assert await (await client.get("/new")).read() == b"/new"


@in_loops
async def test_a_protocol_error_of_the_server_ends_requests_with_its_code():
    async def nonsense(peer):
        await peer.next_request()
        peer.writer.write(b"\0\0\1\0\0\0\0\0\0x")  # DATA on stream 0
        await peer.drained()

    async with ScriptedServer(nonsense) as server, Client(origin(server)) as client:
        with pytest.raises((ConnectionTerminatedError, StreamResetError)) as caught:
            await client.get("/")
        assert caught.value.error_code == ErrorCode.PROTOCOL_ERROR
        assert not caught.value.remote


@in_loops
async def test_all_who_wait_for_a_connection_learn_that_there_is_none():
    async with Client(f"http://127.0.0.1:{free_port()}") as client:
        results = await asyncio.gather(
            *(client.get("/") for _ in range(3)), return_exceptions=True
        )
        assert [type(r) for r in results] == [ConnectionRefusedError] * 3


@in_loops
async def test_fields_that_must_not_be_indexed_are_marked():
    """RFC 7541, 7.1.3."""
    fields = [
        (b"x-named", b"1", True),
        NeverIndexed(b"x-ours", b"2"),
        hpack.NeverIndexedHeaderTuple(b"x-hpacks", b"3"),
        (b"x-plain", b"4"),
    ]

    class Keep(BaseRequestHandler):
        def on_headers(self):
            seen.extend(field for field in self.headers if field[0][:2] == b"x-")
            self.send_response()

    async with HTTP2Server(("127.0.0.1", 0), Keep) as server:
        port = server.sockets[0].getsockname()[1]
        for options in ({"headers": fields}, {}):
            seen = []
            default = [] if options else fields
            async with Client(f"http://127.0.0.1:{port}", headers=default) as client:
                await client.get("/", **options)
            assert seen == [field[:2] for field in fields]
            assert [type(field) for field in seen] == [NeverIndexed] * 3 + [tuple]


# ---- Giving up ----


@in_loops
async def test_abort_ends_a_connection_in_whatever_turn_it_is_made():
    async def silent(peer):
        await peer.drained()
        gone.append(peer)

    gone = []
    async with ScriptedServer(silent) as server:
        for turns in range(10):
            client = Client(origin(server))
            request = asyncio.ensure_future(client.get("/"))
            await until(lambda n=turns: server.connections > n)
            for _ in range(turns):
                await asyncio.sleep(0)
            client.abort()
            with pytest.raises(ConnectionClosedError):
                await request
        await until(lambda: len(gone) == 10)


@in_loops
async def test_a_timeout_in_a_task_that_was_cancelled_is_a_timeout():
    async def silent(peer):
        await peer.drained()

    async def last_words():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError, match="no response"):
                await client.get("/", timeout=0.05)
            return "said"

    async with ScriptedServer(silent) as server, Client(origin(server)) as client:
        task = asyncio.ensure_future(last_words())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "said"


@in_loops
async def test_a_slow_reader_stops_the_server():
    """Credit is given as the body is taken (RFC 9113, 5.2)."""

    async def flood(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, bytes(200_000))
        await peer.flush()
        left.append(peer.connection.queued_body(stream_id))
        await peer.drained()

    left = []
    config = H2Configuration(initial_window_size=10_000)
    async with (
        ScriptedServer(flood) as server,
        Client(origin(server), config=config, window_tuning=False) as client,
    ):
        response = await client.get("/")
        await until(lambda: left)
        assert left == [190_000]
        assert len(await response.read()) == 200_000


@in_loops
async def test_random_cancellations_and_bodies_lose_nothing():
    randoms = random.Random(2)

    async def one(i):
        body = randoms.randbytes(randoms.choice((0, 1, 1000, 70_000, 300_000)))
        try:
            response = await client.post(f"/{i}", body)
            if i % 5 == 0:
                response.close()
                return 0
            answer = await response.read()
        except asyncio.CancelledError:
            return 0
        assert answer == (body or b"/%d" % i)
        return 1

    async with echo_server() as server, Client(origin(server)) as client:
        tasks = [asyncio.ensure_future(one(i)) for i in range(150)]
        loop = asyncio.get_running_loop()
        for task in tasks[::7]:
            loop.call_later(randoms.random() / 10, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            r in (0, 1) or isinstance(r, asyncio.CancelledError) for r in results
        )
        assert sum(r for r in results if r in (0, 1)) > 75
        await until(lambda: client._connection.open_streams == 0)


# ---- Fields ----


def test_fields_are_found_by_name_in_any_case():
    fields = Fields([(b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2")])
    assert fields["A"] == "1, 2"
    assert fields["b"] == "\xe9"
    assert fields.get_all("a") == ["1", "2"]
    assert list(fields) == ["a", "b"] and len(fields) == 2
    assert "c" not in fields and fields.get("c") is None
    assert dict(fields) == {"a": "1, 2", "b": "\xe9"}
    assert fields.pairs[2] == (b"a", b"2")
    with pytest.raises(KeyError):
        fields["c"]
