"""``Pool``: clients of several origins, with limits for all of their connections."""

import asyncio
import contextlib
import ssl

import peers
import pytest
from loops import in_loop, in_loops, until

from nghttp2py.asyncio import Client, Pool, RequestTimeouts, Server, Timeouts
from nghttp2py.asyncio import pool as pool_module
from nghttp2py.errors import (
    ConnectionClosedError,
    ConnectTimeoutError,
    HeadersError,
    HTTPVersionError,
    PoolTimeoutError,
    ReadTimeoutError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic import QuicConfiguration

VERSIONS = pytest.mark.parametrize("http3", [False, "only"], ids=["HTTP/2", "HTTP/3"])


class Application:
    """Answers with the authority and the path; holds those of ``/hold``, and says
    nothing to those of ``/silence``."""

    def __init__(self):
        self.connections = set()
        self.release = asyncio.Event()

    async def __call__(self, stream):
        self.connections.add(stream.connection)
        request = stream.request
        if request.target == b"/hold":
            await stream.start_response({":status": "200"})
            await self.release.wait()
            await stream.end_stream()
            return
        if request.target == b"/silence":
            await self.release.wait()
        await stream.send_response(200, body=request.authority + request.target)


@pytest.fixture
def serving(paths, tls):
    """Serves ``app`` with as many origins as asked for, and a pool of clients."""

    @contextlib.asynccontextmanager
    async def serve(app, origins=2, *, http3=False, server_config=None, **options):
        async with contextlib.AsyncExitStack() as stack:
            names = []
            for _ in range(origins):
                server = await stack.enter_async_context(
                    Server(
                        app,
                        ("127.0.0.1", 0),
                        ssl=paths,
                        http3=bool(http3),
                        config=server_config,
                        timeouts=Timeouts(close=0.5),
                    )
                )
                port = server.sockets[0].getsockname()[1]
                names.append(f"https://127.0.0.1:{port}")
            pool = Pool(ssl=tls.client, http3=http3, **options)
            yield await stack.enter_async_context(pool), names

    return serve


async def read(pool, url, **options):
    response = await pool.get(url, **options)
    return await response.read()


@VERSIONS
@in_loops
async def test_each_origin_has_a_connection(http3, serving):
    async with serving(Application(), http3=http3) as (pool, (one, two)):
        for origin in (one, two, one):
            expected = f"{origin.removeprefix('https://')}/path".encode()
            assert await read(pool, f"{origin}/path") == expected
        assert pool.open_connections == {one: 1, two: 1}
        with pytest.raises(ValueError, match="no scheme"):
            await pool.get("/path")
    with pytest.raises(ConnectionClosedError):
        await pool.get(one)


@VERSIONS
@in_loops
async def test_a_connection_without_streams_makes_room(http3, serving):
    app = Application()
    async with serving(app, 3, http3=http3, max_connections=1) as (pool, origins):
        answers = await asyncio.gather(
            *(read(pool, f"{origin}/{n}") for n in range(4) for origin in origins)
        )
        assert len(answers) == 12
        assert list(pool.open_connections.values()) == [1]


@VERSIONS
@in_loops
async def test_a_request_waits_for_a_free_connection_no_longer_than_it_may(
    http3, serving
):
    app = Application()
    async with serving(app, http3=http3, max_connections=1) as (pool, (one, two)):
        held = await pool.get(f"{one}/hold")
        for _ in range(2):
            with pytest.raises(PoolTimeoutError):
                await pool.get(two, timeouts=RequestTimeouts(pool=0.05))
        waiting = asyncio.ensure_future(read(pool, f"{two}/path"))
        cancelled = asyncio.ensure_future(read(pool, f"{two}/path"))
        await asyncio.sleep(0)
        cancelled.cancel()
        app.release.set()
        await held.read()
        assert (await waiting).endswith(b"/path")
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert pool.open_connections == {two: 1}


@VERSIONS
@in_loop
async def test_a_connection_without_a_response_makes_room(http3, serving):
    options = {"max_connections": 1, "keepalive_expiry": None}
    async with serving(Application(), http3=http3, **options) as (pool, (one, two)):
        soon = RequestTimeouts(pool=2)
        with pytest.raises(ReadTimeoutError):
            await pool.get(f"{one}/silence", timeouts=RequestTimeouts(read=0.05))
        assert await read(pool, two, timeouts=soon)
        with pytest.raises(HeadersError):
            await pool.get(one, headers={"connection": "close"})
        assert await read(pool, two, timeouts=soon)


@VERSIONS
@in_loop
async def test_few_connections_without_streams_are_kept(http3, serving):
    async with serving(Application(), 3, http3=http3, max_keepalive=1) as (
        pool,
        origins,
    ):
        for origin in origins:
            await read(pool, origin)
        await until(lambda: pool.open_connections == {origins[-1]: 1})
    async with serving(Application(), 1, http3=http3, keepalive_expiry=0.05) as (
        pool,
        origins,
    ):
        await read(pool, origins[0])
        await until(lambda: not pool.open_connections)
        await read(pool, origins[0])


@in_loop
async def test_a_pool_shares_connections_if_it_is_asked_to(serving):
    """RFC 9113, 9.1.1."""
    app = Application()
    for shared in (True, False):
        app.connections.clear()
        async with serving(app, 1, share_connections=shared) as (pool, (one,)):
            other = one.replace("127.0.0.1", "localhost")
            for origin in (one, other):
                host = origin.removeprefix("https://").encode()
                assert await read(pool, f"{origin}/") == host + b"/"
            assert len(app.connections) == (1 if shared else 2)


@in_loop
async def test_requests_at_once_look_for_a_shared_connection_and_make_one(serving):
    app = Application()
    async with serving(app, share_connections=True) as (pool, (one, two)):
        await read(pool, one)
        await asyncio.gather(*(read(pool, two) for _ in range(3)))
        assert len(app.connections) == 2


@in_loop
async def test_a_misdirected_request_gets_a_connection_of_its_own(serving):
    """RFC 9110, 15.5.20."""

    async def app(stream):
        connections.add(stream.connection)
        first = stream.request.authority.startswith(b"127")
        misdirected = not first and len(connections) == 1
        await stream.send_response(421 if misdirected else 200)

    connections = set()
    async with serving(app, 1, share_connections=True) as (pool, (one,)):
        other = one.replace("127.0.0.1", "localhost")
        assert (await pool.get(one)).status == 200
        for _ in range(2):
            assert (await pool.get(other)).status == 200
        assert len(connections) == 2


@in_loop
async def test_a_misdirected_tunnel_gets_a_connection_of_its_own(serving):
    """Also if a request has found out at the same time."""

    async def app(stream):
        connections.add(stream.connection)
        first = stream.request.authority.startswith(b"127")
        misdirected = not first and len(connections) == 1
        await stream.send_response(421 if misdirected else 200)

    connections = set()
    config = H2Configuration(enable_connect_protocol=True)
    async with serving(app, 1, share_connections=True, server_config=config) as (
        pool,
        (one,),
    ):
        other = one.replace("127.0.0.1", "localhost")
        await pool.get(one)
        answers = await asyncio.gather(
            pool.open_tunnel(other, protocol="websocket"),
            pool.get(other),
            pool.get(other),
        )
        assert [answer.status for answer in answers] == [200] * 3
        assert len(connections) == 2


@in_loop
async def test_a_name_is_not_looked_up_longer_than_its_request_may_take(
    serving, monkeypatch
):
    async def never(*args, **options):
        await asyncio.Event().wait()

    async with serving(Application(), 1, share_connections=True) as (pool, (one,)):
        await read(pool, one)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        other = one.replace("127.0.0.1", "localhost")
        for bound in (
            {"timeout": 0.05},
            {"timeouts": RequestTimeouts(connect=0.05)},
        ):
            with pytest.raises(ConnectTimeoutError, match="no address of localhost"):
                await pool.get(other, **bound)


@in_loop
async def test_few_names_of_a_connection_are_remembered(serving, monkeypatch):
    async def one_address(host, port, **options):
        return [(None, None, None, "", ("127.0.0.1", port))]

    monkeypatch.setattr(pool_module, "_MAX_ORIGINS", 3)
    monkeypatch.setattr(pool_module, "_is_valid_for", lambda *_: True)
    app = Application()
    async with serving(app, 1, share_connections=True) as (pool, (one,)):
        await read(pool, one)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", one_address)
        for n in range(9):
            assert await read(pool, one.replace("127.0.0.1", f"{n}.test"))
        assert len(pool._shared) == len(pool._clients[one]._others) == 3
        assert len(app.connections) == 1


@VERSIONS
@in_loop
async def test_a_further_connection_is_made_when_the_streams_are_in_use(
    http3, paths, tls
):
    app = Application()
    config = H2Configuration(max_concurrent_streams=2, manual_flow_control=True)
    quic = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_streams_bidi=2
    )
    quic.load_cert_chain(*paths)
    async with (
        Server(
            app,
            ("127.0.0.1", 0),
            ssl=paths,
            config=config,
            http3=quic if http3 else False,
        ) as server,
        Client(
            f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            ssl=tls.client,
            http3=http3,
            connections=2,
        ) as client,
    ):
        held = [await client.get("/hold") for _ in range(4)]
        assert len(app.connections) == 2
        with pytest.raises(PoolTimeoutError):
            await client.get("/", timeouts=RequestTimeouts(pool=0.05))
        app.release.set()
        for response in held:
            await response.read()


@VERSIONS
@in_loops
async def test_requests_that_wait_for_a_stream_get_one_each(http3, paths, tls):
    """Within their time for that; those that are cancelled leave theirs to others."""
    app = Application()
    config = H2Configuration(max_concurrent_streams=2, manual_flow_control=True)
    quic = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_streams_bidi=2
    )
    quic.load_cert_chain(*paths)
    long = RequestTimeouts(pool=60)
    async with (
        Server(
            app,
            ("127.0.0.1", 0),
            ssl=paths,
            config=config,
            http3=quic if http3 else False,
        ) as server,
        Client(
            f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            ssl=tls.client,
            http3=http3,
        ) as client,
    ):
        held = [await client.get("/hold") for _ in range(2)]
        waiting = [
            asyncio.ensure_future(read(client, f"/{n}", timeouts=long))
            for n in range(9)
        ]
        with pytest.raises(PoolTimeoutError, match="no free stream"):
            await client.get("/", timeouts=RequestTimeouts(pool=0.05))
        assert not any(task.done() for task in waiting)
        for task in waiting[::4]:
            task.cancel()
        app.release.set()
        for response in held:
            await response.read()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(each, bytes) for each in found] == [
            n % 4 != 0 for n in range(9)
        ]
        # A request that waits when the connection is lost gets an error.
        app.release.clear()
        held = [await client.get("/hold") for _ in range(2)]
        lost = asyncio.ensure_future(client.get("/", timeouts=long))
        await asyncio.sleep(0)
        client.abort()
        with pytest.raises(ConnectionError):
            await lost
        app.release.set()


@VERSIONS
@in_loop
async def test_each_wait_of_a_request_has_a_bound(http3, serving):
    async with serving(Application(), 1, http3=http3) as (pool, (origin,)):
        await read(pool, f"{origin}/")
        response = await pool.get(f"{origin}/hold", timeouts=RequestTimeouts(read=0.05))
        with pytest.raises(ReadTimeoutError):
            await response.read()
        assert await read(pool, f"{origin}/")


@pytest.mark.parametrize(
    ("alpn", "negotiated"), [(["http/1.1", "h2x"], None), (None, None)]
)
@in_loop
async def test_a_server_of_http1_is_named(alpn, negotiated, tls):
    async def answer(reader, writer):
        await reader.read()
        writer.close()

    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    peers.certificate().configure_cert(server_tls)
    if alpn:
        server_tls.set_alpn_protocols(alpn)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    async with Pool(ssl=peers.client_tls()) as pool:
        for _ in range(2):
            with pytest.raises(HTTPVersionError) as caught:
                await pool.get(f"https://127.0.0.1:{port}/")
            assert caught.value.negotiated == negotiated
            assert caught.value.unprocessed
        assert not pool.open_connections
    server.close()
