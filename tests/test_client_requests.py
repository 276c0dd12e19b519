"""``Client`` over both versions: what requests can have, and that nothing leaks."""

import asyncio
import contextlib
import gc
import gzip
import inspect
import sys
import zlib
from urllib.parse import quote, unquote

import pytest
from loops import in_loop, in_loops, until
from peers import silent_server

from nghttp2py.asyncio import (
    Client,
    Pool,
    RequestTimeouts,
)
from nghttp2py.asyncio import response as response_module
from nghttp2py.asyncio.client_options import BodyOptions, RequestOptions
from nghttp2py.asyncio.content_coding import find_codings, get_accepted
from nghttp2py.errors import (
    BodyFormatError,
    BodyTooLargeError,
    ConnectionClosedError,
    ConnectTimeoutError,
    ReadTimeoutError,
    StatusError,
    TunnelsNotEnabledError,
    WriteTimeoutError,
)
from nghttp2py.h2 import H2Configuration

VERSIONS = pytest.mark.parametrize("http3", [False, "only"], ids=["HTTP/2", "HTTP/3"])
TEXT = b"All the same. " * 5000


async def show(stream):
    """Answer with the path, the body and a few fields."""
    body = await stream.read()
    kind = stream.fields.get("content-type", "-").encode()
    answer = stream.request.target + b" " + kind + b" " + body
    await stream.send_response(200, body=answer)


# ---- Requests ----


@VERSIONS
@in_loop
async def test_parameters_are_added_to_the_query(http3, serving):
    async with serving(show, http3) as client:
        for target, params, expected in (
            ("/", {"q": "a b", "n": [1, 2]}, b"/?q=a+b&n=1&n=2"),
            ("/?a=1", [("b", "ü")], b"/?a=1&b=%C3%BC"),
            ("/?", {"a": 1}, b"/?a=1"),
            ("/x#part", {"a": 1}, b"/x?a=1"),
            ("/x", {}, b"/x"),
        ):
            response = await client.get(target, params=params)
            assert (await response.read()).split()[0] == expected


@VERSIONS
@in_loop
async def test_json_goes_both_ways(http3, serving):
    async def app(stream):
        assert stream.fields["content-type"] == "application/json"
        await stream.send_response(200, body=await stream.read())

    value = {"text": "ü", "numbers": [1, 2.5, None]}
    async with serving(app, http3) as client:
        response = await client.post("/", json=value)
        assert await response.json() == value
        response = await client.post("/", json="ü")
        assert await response.text() == '"ü"'
        with pytest.raises(ValueError, match="JSON compliant"):
            await client.post("/", json=float("nan"))
        with pytest.raises(TypeError, match="not both"):
            await client.post("/", b"body", json=1)
    async with serving(show, http3) as client:
        response = await client.post("/", json=1, headers={"content-type": "a/b"})
        assert await response.read() == b"/ a/b 1"
        with pytest.raises(BodyFormatError, match="no JSON"):
            await (await client.get("/")).json()


@VERSIONS
@in_loop
async def test_text_is_decoded_as_its_type_states(http3, serving):
    async def app(stream):
        kind, body = pages[int(stream.request.target[1:])]
        await stream.send_response(200, [("content-type", kind)], body=body)

    pages = [
        ("text/plain; charset=iso-8859-1", b"\xfc"),
        ('text/html; a=b; Charset="UTF-8"', "ü".encode()),
        ("text/plain", "ü".encode()),
        ("text/plain; charset=unheard-of", "ü".encode()),
        ("text/plain; charset=idna", "ü".encode()),
        ("text/plain; charset=undefined", "ü".encode()),
        ("text/plain", b"\xfc"),
    ]
    async with serving(app, http3) as client:
        texts = [await (await client.get(f"/{n}")).text() for n in range(7)]
        assert texts == ["ü", "ü", "ü", "ü", "ü", "ü", "\ufffd"]
        assert await (await client.get("/6")).text("latin-1") == "ü"


@VERSIONS
@in_loop
async def test_an_error_status_can_be_an_exception(http3, serving):
    async def app(stream):
        await stream.send_response(int(stream.request.target[1:]))

    async with serving(app, http3) as client:
        response = await client.get("/200")
        assert response.raise_for_status() is response
        with pytest.raises(StatusError, match="404") as caught:
            (await client.get("/404")).raise_for_status()
        assert caught.value.response.status == 404


@VERSIONS
@in_loop
async def test_a_response_names_its_connection(http3, serving):
    async with serving(show, http3) as client:
        response = await client.get("/")
        version = "HTTP/3" if http3 else "HTTP/2"
        assert response.http_version == version
        assert response.get_extra_info("alpn_protocol") == ("h3" if http3 else "h2")
        # As over TCP: no IPv4 address mapped to IPv6.
        port = int(client._authority.rpartition(":")[2])
        assert response.get_extra_info("peername") == ("127.0.0.1", port)
        assert response.get_extra_info("unheard-of", 5) == 5
        await response.read()


@VERSIONS
@in_loop
async def test_a_request_has_a_host_whatever_named_it(http3, serving):
    """``headers`` have it first, made from ``:authority``."""

    async def app(stream):
        head = stream.request
        assert (head.authority, head.headers[0]) == (authority, (b"host", authority))
        assert not any(name.startswith(b":") for name, _ in head.headers)
        await stream.send_response(200, body=stream.fields["host"].encode())

    async with serving(app, http3) as client:
        authority = client._authority.encode()
        response = await client.get("/", headers={"x-a": "b"})
        assert await response.read() == authority


# ---- Content codings (RFC 9110, 8.4.1) ----


def deflate(data, bits=zlib.MAX_WBITS):
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:])),
    "deflate": ("deflate", deflate(TEXT)),
    "raw deflate": ("Deflate", deflate(TEXT, -zlib.MAX_WBITS)),
    "twice": ("gzip, x-gzip", gzip.compress(gzip.compress(TEXT))),
    "empty members": ("gzip", gzip.compress(b"") * 5000 + gzip.compress(TEXT)),
    "identity": ("identity", TEXT),
    "unknown": ("unheard-of", TEXT),
    "none": ("", TEXT),
}


def coded(coding, data, size):
    async def app(stream):
        fields = {":status": "200", "content-encoding": coding}
        await stream.start_response(fields if coding else {":status": "200"})
        for start in range(0, len(data), size):
            await stream.send_data(data[start : start + size])
        await stream.end_stream()

    return app


@VERSIONS
@in_loop
async def test_a_compressed_body_is_decoded(http3, serving):
    async def app(stream):
        _, size, case = unquote(stream.request.target.decode()).split("/")
        await coded(*CODED[case], int(size))(stream)

    async with serving(app, http3, decompress=True) as client:
        for size in (1 << 20, 700):
            for case, (_, data) in CODED.items():
                assert await (await client.get(f"/{size}/{quote(case)}")).read() == TEXT
                response = await client.get(f"/{size}/{quote(case)}", decompress=False)
                assert await response.read() == data


@VERSIONS
@in_loop
async def test_the_codings_are_offered_if_they_can_be_decoded(http3, serving):
    async def app(stream):
        await stream.send_response(
            200, body=stream.fields.get("accept-encoding", "-").encode()
        )

    async with serving(app, http3) as client:
        assert await (await client.get("/")).read() == b"-"
        assert await (await client.get("/", decompress=True)).read() == get_accepted()
        response = await client.get(
            "/", decompress=True, headers={"accept-encoding": "gzip"}
        )
        assert await response.read() == b"gzip"
        assert get_accepted().startswith(b"gzip, deflate")


@VERSIONS
@in_loop
async def test_a_body_that_is_not_compressed_as_stated_raises(http3, serving):
    async def app(stream):
        await coded("gzip", bodies[int(stream.request.target[1:])], 1000)(stream)

    whole = gzip.compress(TEXT)
    bodies = [TEXT[:99], whole[:-9], whole + b"more", b"\x1f", whole + whole[:9]]
    async with serving(app, http3, decompress=True) as client:
        for n in range(len(bodies)):
            with pytest.raises(BodyFormatError):
                await (await client.get(f"/{n}")).read()
        await until(lambda: not client._connection.stream_count)


@VERSIONS
@in_loop
async def test_a_response_with_too_many_codings_is_closed(http3, serving):
    async def app(stream):
        fields = {":status": "200", "content-encoding": "gzip, gzip, gzip, gzip"}
        await stream.start_response(fields)
        await asyncio.Event().wait()

    async with serving(app, http3, decompress=True) as client:
        with pytest.raises(BodyFormatError, match="4 content codings") as raised:
            await client.get("/")
        await until(lambda: not client._connection.stream_count)
        assert raised.value.__traceback__ is not None  # it keeps the response


@VERSIONS
@in_loop
async def test_a_bomb_is_read_in_small_pieces_and_has_a_bound(
    http3, serving, monkeypatch
):
    assert response_module.MAX_DECODED == 64 << 20
    monkeypatch.setattr(response_module, "MAX_DECODED", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20), 9)
    async with serving(coded("gzip", bomb, 1 << 20), http3, decompress=True) as client:
        with pytest.raises(BodyTooLargeError):
            await (await client.get("/")).read()
        with pytest.raises(BodyTooLargeError):
            await (await client.get("/")).read(1000)
        async for piece in await client.get("/"):
            assert 0 < len(piece) <= 65536
            break
    with pytest.raises(BodyFormatError, match="at most 3"):
        find_codings("gzip, gzip, gzip, gzip")


# ---- Tunnels ----


async def tunnel(stream):
    await stream.start_response({":status": "200"})
    async for piece in stream:
        await stream.send_data(piece.upper())
    await stream.end_stream()


@VERSIONS
@in_loops
async def test_an_extended_connect_opens_a_tunnel(http3, serving):
    config = H2Configuration(manual_flow_control=True)
    assert config.enable_connect_protocol
    async with serving(tunnel, http3, config=config) as client:
        response = await client.open_tunnel(
            "/chat", protocol="websocket", headers={"sec-websocket-version": "13"}
        )
        assert response.status == 200
        await response.stream.send_data(b"text")
        assert await response.stream.readany() == b"TEXT"
        await response.stream.end_stream()
        assert await response.read() == b""
        response = await client.open_tunnel("/chat", protocol="websocket")
        response.close()
        await until(lambda: not client._connection.stream_count)


@VERSIONS
@in_loop
async def test_connect_asks_a_proxy_for_a_connection(http3, serving):
    async with serving(tunnel, http3) as client:
        response = await client.open_tunnel("example.org:443")
        await response.stream.send_data(b"text")
        assert await response.stream.readany() == b"TEXT"
        await response.stream.end_stream()
        assert await response.read() == b""


@VERSIONS
@in_loop
async def test_a_server_without_tunnels_is_named(http3, serving):
    config = H2Configuration(enable_connect_protocol=False)
    async with serving(tunnel, http3, config=config) as client:
        with pytest.raises(TunnelsNotEnabledError):
            await client.open_tunnel("/chat", protocol="websocket")


# ---- The bounds of one request ----


async def deaf(stream):
    await asyncio.Event().wait()


async def pieces(n):
    for _ in range(n):
        yield bytes(50_000)


@VERSIONS
@in_loop
async def test_a_body_that_is_not_taken_times_out(http3, serving):
    async with serving(deaf, http3) as client:
        await asyncio.sleep(0)
        for body in (bytes(8 << 20), (bytes(50_000) for _ in range(99)), pieces(99)):
            with pytest.raises(WriteTimeoutError):
                await client.post("/", body, timeouts=RequestTimeouts(write=0.2))
        await until(lambda: not client._connection.stream_count)


@VERSIONS
@in_loop
async def test_the_rest_of_a_body_is_bounded_after_the_response_has_begun(
    http3, serving
):
    async def early(stream):
        await stream.start_response({":status": "200"})
        await asyncio.Event().wait()

    async with serving(early, http3) as client:
        for body in (bytes(8 << 20), (bytes(50_000) for _ in range(999)), pieces(999)):
            timeouts = RequestTimeouts(write=0.2)
            response = await client.post("/", body, timeouts=timeouts)
            with pytest.raises(WriteTimeoutError):
                await response.read()
        await until(lambda: not client._connection.stream_count)
        # That of a body that was sent whole is over.
        timeouts = RequestTimeouts(write=0.05, read=0.2)
        response = await client.post("/", b"all", timeouts=timeouts)
        with pytest.raises(ReadTimeoutError):
            await response.read()


@VERSIONS
@in_loop
async def test_a_response_that_does_not_begin_times_out(http3, serving):
    async with serving(deaf, http3) as client:
        for body in (None, b"body", bytes(20_000)):
            with pytest.raises(ReadTimeoutError):
                await client.post(
                    "/", body, timeouts=RequestTimeouts(read=0.2, write=9)
                )
        await until(lambda: not client._connection.stream_count)


@VERSIONS
@in_loop
async def test_a_source_without_data_is_not_the_peers_fault(http3, serving):
    async def source():
        yield b"some "
        await ready.wait()
        yield b"text"

    ready = asyncio.Event()

    async with serving(show, http3) as client:
        timeouts = RequestTimeouts(read=0.1, write=0.1)
        await (await client.get("/")).read()
        # Later than the bounds.
        asyncio.get_running_loop().call_later(0.3, ready.set)
        response = await client.post("/", source(), timeouts=timeouts)
        assert await response.read() == b"/ - some text"


@in_loops
async def test_connecting_has_a_bound_for_each_request(tls):
    """Where nothing answers, the attempt goes on for other requests."""
    async with silent_server() as ((host, port), _):
        client = Client(f"https://{host}:{port}", ssl=tls.client)
        asking = asyncio.ensure_future(client.get("/"))
        with pytest.raises(ConnectTimeoutError):
            await client.get("/", timeouts=RequestTimeouts(connect=0.05))
        assert not asking.done()
        client.abort()
        with pytest.raises(ConnectionClosedError):
            await asking
        await client.close()


@VERSIONS
@in_loops
async def test_a_request_reports_its_steps(http3, serving):
    events = []

    async def trace(name, info):
        await asyncio.sleep(0)
        events.append((name, info))

    async def app(stream):
        await (deaf if stream.request.target == b"/deaf" else show)(stream)

    async with serving(app, http3) as client:
        response = await client.post("/", b"body", trace=trace)
        assert [name for name, _ in events] == [
            f"{step}.{end}"
            for step in (
                *("connect", "send_request_headers", "send_request_body"),
                "receive_response_headers",
            )
            for end in ("started", "complete")
        ]
        assert events[3][1]["return_value"].stream_id == response.stream_id
        assert events[7][1]["return_value"].status == 200
        await response.read()
        events.clear()
        with pytest.raises(ReadTimeoutError):
            await client.get("/deaf", trace=trace, timeouts=RequestTimeouts(read=0.05))
        assert events[-1][0] == "receive_response_headers.failed"

        def broken(name, info):
            if name == "send_request_headers.complete":
                raise KeyError(name)

        with pytest.raises(KeyError):
            await client.get("/", trace=broken)

        def fails(name, info):
            if name.endswith(".failed"):
                raise KeyError(name)

        for bound in ({"timeout": 0.05}, {"timeouts": RequestTimeouts(read=0.05)}):
            with pytest.raises(KeyError):
                await client.get("/deaf", trace=fails, **bound)
        if sys.version_info >= (3, 11):
            assert not asyncio.current_task().cancelling()
        await until(lambda: not client._connection.stream_count)


# ---- Nothing is leaked ----


async def unfinished(stream):
    await stream.start_response({":status": "200"})
    await stream.send_data(bytes(3000))
    await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["cancel", "drop", "close"])
@VERSIONS
@in_loop
async def test_three_hundred_downloads_are_given_up(http3, how, serving):
    async def download():
        response = await client.get("/")
        async for _ in response:
            if how == "drop":
                return
            if how == "close":
                response.close()
                return

    async with serving(unfinished, http3, close_timeout=0.1) as client:
        (await client.get("/")).close()
        connection = client._connection
        tasks = [asyncio.ensure_future(download()) for _ in range(300)]
        for task in tasks:
            await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if how == "drop":
            del tasks, task
            gc.collect()
        await until(lambda: not connection.stream_count)
        async with await client.get("/") as response:
            assert client._connection is connection
            async for piece in response:
                assert piece
                break


@VERSIONS
@in_loop
async def test_a_decoded_response_that_is_dropped_is_given_up_at_once(http3, serving):
    async def app(stream):
        fields = {":status": "200", "content-encoding": "gzip"}
        await stream.start_response(fields)
        await stream.send_data(gzip.compress(TEXT)[:-9])
        await asyncio.Event().wait()

    async with serving(app, http3, decompress=True, close_timeout=0.1) as client:
        gc.disable()  # references alone must do
        try:
            response = await client.get("/")
            async for piece in response:
                assert TEXT.startswith(piece)
                break
            connection = client._connection
            assert connection.stream_count
            del response
            await until(lambda: not connection.stream_count)
        finally:
            gc.enable()


@in_loop
async def test_a_wait_for_100_continue_must_be_seconds():
    async with Client("http://localhost:1") as client:
        for wrong, error in ((-1, ValueError), (float("nan"), ValueError)):
            with pytest.raises(error, match="expect_continue must be"):
                await client.put("/", b"x", expect_continue=wrong)
        with pytest.raises(TypeError, match="expect_continue must be"):
            await client.put("/", b"x", expect_continue="x")


@VERSIONS
@in_loop
async def test_a_task_may_be_cancelled_in_any_turn(http3, serving):
    async def source():
        for _ in range(9):
            yield bytes(1000)

    async with serving(show, http3, decompress=True) as client:
        await (await client.get("/")).read()
        connection = client._connection

        async def once():
            timeouts = RequestTimeouts(9, 9, 9, 9)
            response = await client.post("/", source(), timeouts=timeouts)
            await response.read()

        for turns in range(0, 40, 2):
            task = asyncio.ensure_future(once())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await until(lambda: not connection.stream_count)
        assert client._connection is connection
        assert await (await client.get("/")).read()


# ---- Options ----


def test_type_checkers_know_the_options_of_requests():
    options = inspect.signature(Client.request).parameters
    named = [n for n, p in options.items() if p.kind is p.KEYWORD_ONLY]
    assert set(named) == set(RequestOptions.__annotations__) | set(
        BodyOptions.__annotations__
    )
    assert set(inspect.signature(Pool.__init__).parameters) > {
        name
        for name in inspect.signature(Client.__init__).parameters
        if name
        not in {"origin", "path", "idle_timeout", "connections", "https_records"}
    }
    with pytest.raises(TypeError, match="header"):
        Client("http://localhost").get("/", header={})
    with pytest.raises(TypeError, match="close_timeot"):
        Pool(close_timeot=1)
