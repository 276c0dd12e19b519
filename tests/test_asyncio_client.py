"""nghttp2py.asyncio.Client, against good servers and hostile ones, on loopback."""

import asyncio
import gc
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
    silent_server,
)

from nghttp2py.asyncio import Client, Fields
from nghttp2py.errors import (
    BodyTooLargeError,
    ConnectionClosedError,
    ConnectionTerminatedError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    StreamResetError,
)
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2RequestReceived,
    H2StreamReset,
)
from nghttp2py.hpack import NeverIndexed
from nghttp2py.server import BaseRequestHandler, HTTP2Server


def origin(server, scheme="http", host="127.0.0.1"):
    port = getattr(server, "port", None) or server.sockets[0].getsockname()[1]
    return f"{scheme}://{host}:{port}"


# ---- What it is for ----


@in_loops
async def test_a_response_has_status_headers_body_and_trailers():
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.request(
            "POST", "/echo?q", body="body", trailers={"x-end": "1"}
        )
        assert response.status == 200
        assert response.headers["X-Request"] == "POST /echo?q"
        assert response.headers["x-length"] == "4"
        assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert "missing" not in response.headers
        assert await response.read() == b"body"
        assert await response.read() == b""
        assert await response.trailers() == {"x-end": "1"}


def pieces():
    yield b"one "
    yield b"two"


async def slow_pieces():
    yield b"one "
    await asyncio.sleep(0)
    yield b"two"


@pytest.mark.parametrize(
    "body",
    [
        lambda: "one two",
        lambda: b"one two",
        lambda: memoryview(b"one two"),
        lambda: io.BytesIO(b"one two"),
        pieces,
        slow_pieces,
        lambda: [b"one ", b"two"],
    ],
    ids=["str", "bytes", "view", "file", "iterator", "async", "list"],
)
@in_loops
async def test_a_body_of_any_form_arrives(body):
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.put("/", body())
        assert await response.read() == b"one two"


@in_loops
async def test_a_file_is_sent_from_where_it_stands_with_its_length(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + bytes(200_000))
    async with echo_server() as server, Client(origin(server)) as client:
        with path.open("rb") as file:
            file.seek(7)
            response = await client.post("/", file)
            assert response.headers["x-length"] == "200000"
            assert await response.read() == bytes(200_000)


@in_loops
async def test_each_method_is_sent_as_it_is_called():
    async with echo_server() as server, Client(origin(server)) as client:
        for method in ("get", "head", "post", "put", "delete"):
            response = await getattr(client, method)("/path")
            assert response.headers["x-request"] == f"{method.upper()} /path"
            expected = b"" if method == "head" else b"/path"
            assert await response.read() == expected


@in_loops
async def test_informational_responses_are_kept():
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.get("/informational")
        assert response.informational == ((103, {"link": "</style.css>"}),)
        response.close()


@in_loops
async def test_many_requests_share_one_connection():
    async def get(i):
        response = await client.get(f"/{i}")
        return await response.read()

    async def serve(peer):
        await peer.serve()

    async with ScriptedServer(serve) as server, Client(origin(server)) as client:
        answers = await asyncio.gather(*(get(i) for i in range(300)))
        assert answers == [b"/%d" % i for i in range(300)]
        assert server.connections == 1


@in_loops
async def test_the_clients_headers_go_with_every_request():
    async with (
        echo_server() as server,
        Client(origin(server), headers={"User-Agent": "ours"}) as client,
    ):
        response = await client.get("/")
        assert response.headers["x-client"] == "ours"
        response = await client.get("/", headers=[("user-agent", "own")])
        assert response.headers["x-client"] == "own"


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


@in_loops
async def test_what_must_not_be_sent_raises_and_leaves_the_connection_whole():
    async def broken():
        yield b"some"
        raise RuntimeError("broken source")

    async with echo_server() as server, Client(origin(server)) as client:
        with pytest.raises(HeadersError):
            await client.get("/", headers={"x": "a\r\nb"})
        with pytest.raises(TypeError):
            await client.post("/", 42)
        with pytest.raises(InvalidBodyLengthError):
            await client.post("/", "no", headers={"content-length": "3"})
        with pytest.raises(RuntimeError, match="broken source"):
            await client.post("/", broken())
        with pytest.raises(TypeError, match="must be of bytes"):
            await client.post("/", ["text"])
        assert await (await client.get("/well")).read() == b"/well"


@in_loops
async def test_a_closed_client_takes_no_requests():
    async with echo_server() as server:
        async with Client(origin(server)) as client:
            await (await client.get("/")).read()
        with pytest.raises(ConnectionClosedError, match="closed"):
            await client.get("/")


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
async def test_leaving_waits_for_open_streams():
    async def slow(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        await peer.flush()
        await goodbye.wait()
        peer.connection.send_body(stream_id, b"late")
        await peer.drained()

    async def read(response):
        return await response.read()

    goodbye = asyncio.Event()
    async with ScriptedServer(slow) as server:
        async with Client(origin(server)) as client:
            reading = asyncio.ensure_future(read(await client.get("/")))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(goodbye.set)
        assert await reading == b"late"


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
async def test_a_timeout_resets_the_stream():
    async def silent(peer):
        peer.respond(await peer.next_request())
        event = await peer.next(H2RequestReceived)
        reset = await peer.next(H2StreamReset)
        resets.append((event.stream_id == reset.stream_id, reset.error_code))
        await peer.serve()

    resets = []
    async with ScriptedServer(silent) as server, Client(origin(server)) as client:
        assert await (await client.get("/")).read() == b""
        with pytest.raises(TimeoutError, match="no response"):
            await client.get("/", timeout=0.5)
        await until(lambda: resets)
        assert resets == [(True, ErrorCode.CANCEL)]
        assert await (await client.get("/next")).read() == b"/next"


@in_loops
async def test_a_body_that_stops_coming_times_out():
    async def stop(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, b"some", end_stream=False)
        await peer.next(H2StreamReset)
        await peer.drained()

    async with ScriptedServer(stop) as server, Client(origin(server)) as client:
        response = await client.get("/")
        # Short for the body alone: a response may take its time on a busy machine.
        response._deadlines = client._find_deadlines(0.05)
        with pytest.raises(TimeoutError, match="body"):
            await response.read()


@in_loops
async def test_connecting_times_out():
    async with silent_server() as ((_, port), _):
        url = f"https://127.0.0.1:{port}"
        async with Client(url, connect_timeout=0.05) as client:
            with pytest.raises(TimeoutError, match="no connection"):
                await client.get("/")


@pytest.mark.parametrize("end", [Client.close, Client.abort])
@in_loops
async def test_who_waits_for_a_connection_is_told_that_the_client_is_closed(end):
    async with silent_server() as ((_, port), accepted):
        client = Client(f"https://127.0.0.1:{port}")
        requests = [asyncio.ensure_future(client.get("/")) for _ in range(2)]
        await accepted.wait()
        ending = end(client)
        if ending is not None:
            await ending
        for request in requests:
            with pytest.raises(ConnectionClosedError, match="closed"):
                await request
        await client.close()


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
async def test_a_cancelled_request_leaves_no_stream_and_the_connection():
    async def silent(peer):
        await peer.next(H2RequestReceived)
        await peer.next(H2StreamReset)
        await peer.serve()

    async with ScriptedServer(silent) as server, Client(origin(server)) as client:
        task = asyncio.ensure_future(client.get("/"))
        await until(lambda: client._connection and client._connection.open_streams)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await (await client.get("/next")).read() == b"/next"
        assert server.connections == 1


@in_loops
async def test_who_is_cancelled_while_connecting_does_not_stop_the_others():
    async def serve(peer):
        await peer.serve()

    async with ScriptedServer(serve) as server, Client(origin(server)) as client:
        one = asyncio.ensure_future(client.get("/one"))
        two = asyncio.ensure_future(client.get("/two"))
        await asyncio.sleep(0)
        one.cancel()
        assert await (await two).read() == b"/two"
        with pytest.raises(asyncio.CancelledError):
            await one


@in_loops
async def test_read_keeps_to_its_limit():
    async with echo_server() as server, Client(origin(server)) as client:
        response = await client.post("/", bytes(100_000))
        with pytest.raises(BodyTooLargeError, match="99999"):
            await response.read(99_999)
        response = await client.post("/", bytes(100_000))
        assert len(await response.read(100_000)) == 100_000


@pytest.mark.parametrize("how", ["close", "block", "forget"])
@in_loops
async def test_a_response_that_is_not_wanted_ends_its_stream(how):
    async def endless(peer):
        stream_id = await peer.next_request()
        peer.connection.send_response_headers(stream_id, 200, [])
        peer.connection.send_body(stream_id, b"some", end_stream=False)
        reset = await peer.next(H2StreamReset)
        resets.append(reset.error_code)
        await peer.drained()

    resets = []
    async with ScriptedServer(endless) as server, Client(origin(server)) as client:
        response = await client.get("/")
        if how == "close":
            response.close()
            response.close()
        elif how == "block":
            async with response:
                pass
        del response
        gc.collect()
        await until(lambda: resets)
        assert resets == [ErrorCode.CANCEL]


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
