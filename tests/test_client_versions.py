"""``Client`` over HTTP/2 and over HTTP/3: the same calls, answers, errors and ends."""

import asyncio
import contextlib
import gc
import io
import random
import socket
import ssl

import pytest
from loops import in_loops, until
from peers import Echo, expect_a_broken_handshake, silent_server

from nghttp2py.asyncio import Client, Server, h3_client
from nghttp2py.errors import (
    BodyTooLargeError,
    ConfigurationError,
    ConnectionClosedError,
    ConnectionTerminatedError,
    ConnectTimeoutError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    NGHTTP2Error,
    StreamResetError,
    TLSConfigurationError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode
from nghttp2py.quic import QuicConfiguration

VERSIONS = pytest.mark.parametrize("http3", [False, "only"], ids=["HTTP/2", "HTTP/3"])
REFUSED = {False: ErrorCode.REFUSED_STREAM, "only": H3ErrorCode.H3_REQUEST_REJECTED}
CANCELLED = {False: ErrorCode.CANCEL, "only": H3ErrorCode.H3_REQUEST_CANCELLED}
LARGE = random.Random(14).randbytes(300_000)


def origin(server, host="127.0.0.1"):
    return f"https://{host}:{server.sockets[0].getsockname()[1]}"


async def echo(stream):
    """Answer with the body, or with the path if there is none."""
    body = await stream.read()
    await stream.send_response(200, body=body or stream.request.target)


class Script:
    """Answers the first requests by functions of their own, and then with the path."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.connections = set()
        self.requests = 0
        self.errors = []

    async def __call__(self, stream):
        self.connections.add(stream.connection)
        self.requests += 1
        try:
            if self.steps:
                await self.steps.pop(0)(stream)
            else:
                await echo(stream)
        finally:
            if stream.error is not None:
                self.errors.append(stream.error)


def refuse(http3):
    async def step(stream):
        stream.reset(REFUSED[http3])

    return step


def close_gracefully(stream, http3):
    connection = stream.connection
    if http3:
        connection.shut_down_soon()
    else:
        # close() would wait until the client is quiet.
        connection.connection.close_connection()
        connection.mark_dirty()


async def some(stream):
    """Begin a response."""
    await stream.start_response({":status": "200"})
    await stream.send_data(b"some")


async def forever(stream):
    await some(stream)
    await asyncio.Event().wait()


async def silence(stream):
    await asyncio.Event().wait()


# ---- Requests and responses ----


@VERSIONS
@in_loops
async def test_a_response_has_status_headers_body_and_trailers(http3, serving):
    async with serving(Echo, http3) as client:
        response = await client.request(
            "POST", "/echo?q", body="body", trailers={"X-End": "1"}
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


class AsyncFile:
    def __init__(self):
        self.file = io.BytesIO(b"one two")

    async def read(self, n=-1):
        await asyncio.sleep(0)
        return self.file.read(n)


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
        AsyncFile,
    ],
    ids=["str", "bytes", "view", "file", "iterator", "async", "list", "async file"],
)
@VERSIONS
@in_loops
async def test_a_body_of_any_form_arrives(http3, body, serving):
    async with serving(Echo, http3) as client:
        for trailers in (None, {"x-end": "1"}):
            response = await client.request("PUT", "/", body=body(), trailers=trailers)
            assert await response.read() == b"one two"
            assert await response.trailers() == (trailers or {})


@VERSIONS
@in_loops
async def test_a_file_is_sent_from_where_it_stands_with_its_length(
    http3, serving, tmp_path
):
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + LARGE)
    async with serving(Echo, http3) as client:
        with path.open("rb") as file:
            file.seek(7)
            response = await client.post("/", file)
            assert response.headers["x-length"] == "300000"
            assert await response.read() == LARGE


@VERSIONS
@in_loops
async def test_each_method_is_sent_as_it_is_called(http3, serving):
    async with serving(Echo, http3) as client:
        for method in ("get", "head", "post", "put", "delete"):
            response = await getattr(client, method)("/path")
            assert response.headers["x-request"] == f"{method.upper()} /path"
            expected = b"" if method == "head" else b"/path"
            assert await response.read() == expected


@VERSIONS
@in_loops
async def test_informational_responses_are_kept(http3, serving):
    async with serving(Echo, http3) as client:
        response = await client.get("/informational")
        assert response.informational == ((103, {"link": "</style.css>"}),)
        response.close()


@VERSIONS
@in_loops
async def test_many_requests_share_one_connection(http3, serving):
    async def get(i):
        return await (await client.get(f"/{i}")).read()

    app = Script()
    async with serving(app, http3) as client:
        answers = await asyncio.gather(*(get(i) for i in range(300)))
        assert answers == [b"/%d" % i for i in range(300)]
        assert len(app.connections) == 1


@VERSIONS
@in_loops
async def test_the_clients_headers_go_with_every_request(http3, serving):
    async with serving(Echo, http3, headers={"User-Agent": "ours"}) as client:
        response = await client.get("/")
        assert response.headers["x-client"] == "ours"
        response = await client.get("/", headers=[("user-agent", b"own")])
        assert response.headers["x-client"] == "own"


@VERSIONS
@in_loops
async def test_a_large_body_goes_there_and_back(http3, serving):
    async with serving(echo, http3) as client:
        response = await client.post("/", LARGE * 10)
        assert await response.read() == LARGE * 10


# ---- Expect: 100-continue (RFC 9110, 10.1.1) ----


@VERSIONS
@in_loops
async def test_a_body_waits_until_the_server_asks_for_it(http3, serving):
    async def app(stream):
        seen.append(stream.fields.get("expect"))
        await echo(stream)

    seen = []
    async with serving(app, http3) as client:
        response = await client.request("POST", "/", body="body", expect_continue=30)
        assert await response.read() == b"body"
        assert [status for status, _ in response.informational] == [100]
        response = await client.request("GET", "/", expect_continue=30)
        assert await response.read() == b"/"
    assert seen == ["100-continue", None]


@VERSIONS
@in_loops
async def test_a_body_that_is_refused_is_not_sent(http3, serving):
    async def app(stream):
        await stream.send_response(413, body=b"too large")
        with contextlib.suppress(NGHTTP2Error):
            got.append(await stream.read())

    got = []
    async with serving(app, http3) as client:
        response = await client.request("POST", "/", body=LARGE, expect_continue=30)
        assert response.status == 413
        assert await response.read() == b"too large"
        # Its stream is not held.
        for _ in range(2):
            assert (await client.get("/")).status == 413
    assert not any(got)


@VERSIONS
@in_loops
async def test_after_417_the_request_is_sent_without_the_expectation(http3, serving):
    async def fail(stream):
        await stream.send_response(417)

    app = Script(fail)
    async with serving(app, http3) as client:
        response = await client.request("POST", "/", body="body", expect_continue=30)
        assert response.status == 200
        assert await response.read() == b"body"
    assert app.requests == 2


@VERSIONS
@in_loops
async def test_a_server_that_ignores_the_expectation_gets_the_body(http3, serving):
    async def app(stream):
        stream._continued = True  # as a server does that knows nothing of it
        await echo(stream)

    async with serving(app, http3) as client:
        response = await client.request("POST", "/", body="body", expect_continue=0.05)
        assert await response.read() == b"body"
        assert response.informational == ()


# ---- Wrong calls ----


@VERSIONS
@in_loops
async def test_what_must_not_be_sent_raises_and_leaves_the_connection_whole(
    http3, serving
):
    async def broken():
        yield b"some"
        raise RuntimeError("broken source")

    def broken_too():
        yield b"some"
        raise RuntimeError("broken source")

    app = Script()
    async with serving(app, http3) as client:
        with pytest.raises(HeadersError):
            await client.get("/", headers={"x": "a\r\nb"})
        with pytest.raises(TypeError):
            await client.post("/", 42)
        with pytest.raises(InvalidBodyLengthError):
            await client.post("/", "no", headers={"content-length": "3"})
        for source in (broken, broken_too):
            with pytest.raises(RuntimeError, match="broken source"):
                await client.post("/", source())
        with pytest.raises(TypeError, match="must be of bytes"):
            await client.post("/", ["text"])
        with pytest.raises(ValueError, match="is not of"):
            await client.get("http://example.org/")
        assert await (await client.get("/well")).read() == b"/well"
        assert len(app.connections) == 1


@VERSIONS
@in_loops
async def test_a_source_of_another_length_ends_its_request_only(http3, serving):
    """RFC 9113, 8.1.1; RFC 9114, 4.1.2."""
    async with serving(echo, http3) as client:
        for body in ([b"no"], [b"far ", b"too long"]):
            with pytest.raises((InvalidBodyLengthError, StreamResetError)):
                response = await client.post("/", body, headers={"content-length": "3"})
                await response.read()
        assert await (await client.get("/well")).read() == b"/well"


@VERSIONS
@in_loops
async def test_a_closed_client_takes_no_requests(http3, serving):
    async with serving(echo, http3) as client:
        await (await client.get("/")).read()
        await client.close()
        await client.close()
        client.abort()
        with pytest.raises(ConnectionClosedError, match="closed"):
            await client.get("/")


@pytest.mark.parametrize("http3", ["auto", 3, None, (), b"only"])
def test_an_unknown_value_of_http3_is_named(http3):
    with pytest.raises(ConfigurationError, match="http3 must be False, True, 'only'"):
        Client("https://localhost", http3=http3)


@pytest.mark.parametrize(
    ("where", "options", "text"),
    [
        ("http://localhost", {}, "http3 needs an origin of https"),
        ("https://localhost", {"path": "/socket"}, "path must be None"),
        ("https://localhost", {"config": H2Configuration()}, "settings of HTTP/2"),
    ],
)
def test_what_http3_cannot_have_is_refused(where, options, text):
    with pytest.raises(ConfigurationError, match=text):
        Client(where, http3="only", **options)


@pytest.mark.parametrize("option", ["window_tuning", "functional_timeout", "nonsense"])
def test_options_of_http2_are_refused_over_http3(option):
    with pytest.raises(TypeError, match=f"'{option}' is no option"):
        Client("https://localhost", http3="only", **{option: 1})


# ---- Whom to trust ----


@VERSIONS
@in_loops
async def test_a_certificate_is_checked(http3, paths, tls):
    async with Server(echo, ("127.0.0.1", 0), ssl=paths, http3=True) as server:
        where = origin(server, "localhost")
        async with Client(where, ssl=tls.client, http3=http3) as client:
            assert await (await client.get("/tls")).read() == b"/tls"
        expect_a_broken_handshake()
        async with Client(where, http3=http3) as client:
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await client.get("/")
            assert caught.value.verify_message
        async with Client(
            where, ssl=tls.client, http3=http3, server_hostname="other.example"
        ) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.get("/")


@VERSIONS
@in_loops
async def test_a_context_that_trusts_everybody_does(http3, paths):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with (
        Server(echo, ("127.0.0.1", 0), ssl=paths, http3=True) as server,
        Client(origin(server), ssl=context, http3=http3) as client,
    ):
        assert await (await client.get("/tls")).read() == b"/tls"


@in_loops
async def test_a_configuration_of_quic_says_whom_to_trust(paths, tls):
    configuration = QuicConfiguration(cafile=tls.authority)
    async with (
        Server(echo, ("127.0.0.1", 0), ssl=paths, http3=True) as server,
        Client(origin(server), http3=configuration) as client,
    ):
        assert await (await client.get("/tls")).read() == b"/tls"
        assert configuration.server_name is None, "it is the caller's"
    with pytest.raises(ConfigurationError, match="ssl must be None"):
        Client("https://localhost", ssl=tls.client, http3=configuration)
    with pytest.raises(ConfigurationError, match=f"{H3_ALPN[0]} must be among them"):
        Client("https://localhost", http3=QuicConfiguration(alpn_protocols=["other"]))
    with pytest.raises(ValueError, match="cafile"):
        Client("https://localhost", http3=QuicConfiguration(cafile="/nowhere"))


def test_trust_that_quic_cannot_have_is_refused(paths):
    empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TLSConfigurationError, match="no authority"):
        Client("https://localhost", ssl=empty, http3=True)
    # Python does not list a certificate that is no authority's.
    empty.load_verify_locations(cafile=paths[0])
    with pytest.raises(TLSConfigurationError, match=r"self-signed.*cafile"):
        Client("https://localhost", ssl=empty, http3=True)
    any_name = ssl.create_default_context()
    any_name.check_hostname = False
    with pytest.raises(TLSConfigurationError, match="check_hostname"):
        Client("https://localhost", ssl=any_name, http3=True)
    revoked = ssl.create_default_context()
    revoked.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    with pytest.raises(TLSConfigurationError, match="revocation"):
        Client("https://localhost", ssl=revoked, http3=True)


# ---- Connections that end ----


@VERSIONS
@in_loops
async def test_after_goaway_the_next_request_connects_again(http3, serving):
    async def last(stream):
        close_gracefully(stream, http3)
        await stream.send_response(200, body=b"last")

    app = Script(last)
    async with serving(app, http3) as client:
        assert await (await client.get("/")).read() == b"last"
        await until(lambda: not client._connection.is_available)
        assert await (await client.get("/again")).read() == b"/again"
        assert len(app.connections) == 2


@VERSIONS
@in_loops
async def test_who_waits_for_a_turn_outlasts_many_connections(http3, serving):
    async def app(stream):
        connection = stream.connection
        counts[connection] = counts.get(connection, 0) + 1
        if counts[connection] == 5:
            close_gracefully(stream, http3)
        await stream.send_response(200, body=b"answer")

    async def get():
        for _ in range(5):
            assert await (await client.get("/")).read() == b"answer"

    counts = {}
    async with serving(app, http3, retries=1) as client:
        await asyncio.gather(*(get() for _ in range(8)))
        assert len(counts) > 1
        counts.clear()


@VERSIONS
@in_loops
async def test_a_body_is_sent_again_from_its_beginning(http3, serving):
    for body in ("text", io.BytesIO(b"text")):
        app = Script(refuse(http3))
        async with serving(app, http3) as client:
            assert await (await client.post("/", body)).read() == b"text"
        assert app.requests == 2


@VERSIONS
@in_loops
async def test_a_source_that_was_read_from_is_not_sent_again(http3, serving):
    async def refuse_late(stream):
        await stream.readany()
        stream.reset(REFUSED[http3])

    async with serving(Script(refuse_late), http3) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.post("/", pieces())
        assert caught.value.unprocessed


@VERSIONS
@in_loops
async def test_a_refused_request_is_tried_again_a_few_times(http3, serving):
    """RFC 9113, 8.7; RFC 9114, 4.1.1."""
    app = Script(*[refuse(http3)] * 2)
    async with serving(app, http3) as client:
        assert await (await client.get("/last")).read() == b"/last"
        assert len(app.connections) == 1
    app = Script(*[refuse(http3)] * 9)
    async with serving(app, http3, retries=2) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.get("/")
        assert caught.value.error_code == REFUSED[http3]
        assert app.requests == 3


@VERSIONS
@in_loops
async def test_a_reset_request_is_not_sent_again(http3, serving):
    async def reset(stream):
        stream.reset(CANCELLED[http3])

    app = Script(reset)
    async with serving(app, http3) as client:
        with pytest.raises(StreamResetError) as caught:
            await client.get("/")
        assert caught.value.error_code == CANCELLED[http3]
        assert caught.value.remote and not caught.value.unprocessed
        assert await (await client.get("/next")).read() == b"/next"
        assert app.requests == 2


@VERSIONS
@in_loops
async def test_a_body_that_is_cut_off_raises(http3, serving):
    async def cut(stream):
        await some(stream)
        await begun.wait()
        stream.reset(CANCELLED[http3])

    async def vanish(stream):
        await some(stream)
        await begun.wait()
        stream.connection.abort()

    for step, error in ((cut, StreamResetError), (vanish, ConnectionTerminatedError)):
        begun = asyncio.Event()
        async with serving(Script(step), http3) as client:
            response = await client.get("/")
            begun.set()
            with pytest.raises(error) as caught:
                await response.read()
            assert caught.value.remote
            # Over the same connection, or another.
            assert await (await client.get("/next")).read() == b"/next"


@VERSIONS
@in_loops
async def test_a_server_that_vanishes_ends_every_request_and_is_tried_anew(
    http3, serving
):
    async def wait(stream):
        waiting.append(stream)
        if len(waiting) == 3:
            stream.connection.abort()

    waiting = []
    app = Script(wait, wait, wait)
    async with serving(app, http3) as client:
        results = await asyncio.gather(
            *(client.get("/") for _ in range(3)), return_exceptions=True
        )
        assert [type(r) for r in results] == [ConnectionTerminatedError] * 3
        waiting.clear()
        assert await (await client.get("/new")).read() == b"/new"


@VERSIONS
@in_loops
async def test_leaving_waits_for_open_streams(http3, serving):
    async def slow(stream):
        await some(stream)
        await goodbye.wait()
        await stream.send_data(b" more", end_stream=True)

    async def read(response):
        return await response.read()

    goodbye = asyncio.Event()
    async with serving(slow, http3) as client:
        reading = asyncio.ensure_future(read(await client.get("/")))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(goodbye.set)
    assert await reading == b"some more"


@VERSIONS
@in_loops
async def test_close_waits_no_longer_than_its_timeout(http3, serving):
    async with serving(forever, http3, close_timeout=60) as client:
        response = await client.get("/")
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        await client.close(0.05)  # a second call may shorten it
        await closing
        assert await response._stream.reader.readexactly(4) == b"some"
        with pytest.raises((StreamResetError, ConnectionTerminatedError)):
            await response.read()


@VERSIONS
@in_loops
async def test_an_unread_response_is_broken_off_by_close_timeout(http3, serving):
    async with serving(forever, http3, close_timeout=0.05) as client:
        response = await client.get("/")
    assert response.status == 200


@VERSIONS
@in_loops
async def test_abort_ends_everything_at_once(http3, serving):
    async with serving(forever, http3, close_timeout=60) as client:
        response = await client.get("/")
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0)
        client.abort()
        client.abort()
        with pytest.raises((StreamResetError, ConnectionTerminatedError)) as caught:
            await reading
        assert not caught.value.remote


@VERSIONS
@in_loops
async def test_an_exception_in_the_block_ends_it_at_once(http3, serving):
    with pytest.raises(KeyError):
        async with serving(forever, http3, close_timeout=60) as client:
            await client.get("/")
            raise KeyError


@VERSIONS
@in_loops
async def test_a_connection_without_requests_is_left_after_idle_timeout(http3, serving):
    app = Script()
    async with serving(app, http3, idle_timeout=0.1) as client:
        assert await (await client.get("/")).read() == b"/"
        await until(lambda: client._connection.is_closed)
        assert await (await client.get("/again")).read() == b"/again"
        assert len(app.connections) == 2


# ---- Giving up ----


@VERSIONS
@in_loops
async def test_a_timeout_resets_the_stream(http3, serving):
    app = Script(silence)
    async with serving(app, http3) as client:
        with pytest.raises(TimeoutError, match="no response"):
            await client.get("/", timeout=0.3)
        await until(lambda: app.errors)
        assert app.errors[0].error_code == CANCELLED[http3]
        assert await (await client.get("/next")).read() == b"/next"
        assert len(app.connections) == 1


@VERSIONS
@in_loops
async def test_a_body_that_stops_coming_times_out(http3, serving):
    async with serving(forever, http3) as client:
        response = await client.get("/")
        # Short for the body alone: a response may take its time on a busy machine.
        response._deadlines = client._find_deadlines(0.05)
        with pytest.raises(TimeoutError, match="body"):
            await response.read()


@contextlib.asynccontextmanager
async def deaf(http3):
    """An origin that answers nothing, and what is set when a client has come."""
    if not http3:
        async with silent_server() as ((_, port), accepted):
            yield f"https://127.0.0.1:{port}", accepted
        return
    loop = asyncio.get_running_loop()
    accepted = asyncio.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.setblocking(False)
        taken.bind(("127.0.0.1", 0))
        loop.add_reader(taken, accepted.set)
        yield f"https://127.0.0.1:{taken.getsockname()[1]}", accepted
        loop.remove_reader(taken)


@VERSIONS
@in_loops
async def test_connecting_times_out(http3):
    async with (
        deaf(http3) as (where, _),
        Client(where, http3=http3, connect_timeout=0.05) as client,
    ):
        with pytest.raises(TimeoutError, match="no connection"):
            await client.get("/")
        with pytest.raises(TimeoutError, match="no connection"):
            await client.get("/")


@VERSIONS
@in_loops
async def test_a_safe_request_is_sent_again_if_a_used_connection_is_closed(
    http3, serving
):
    """Once, and no other (RFC 9110, 9.2.2)."""

    async def drop(stream):
        stream.connection.abort()

    app = Script(drop)
    async with serving(app, http3) as client:

        async def get(target):
            return await (await client.get(target)).read()

        with pytest.raises(ConnectionTerminatedError):
            await get("/of-a-new-connection")
        assert await get("/1") == b"/1"
        app.steps = [drop]
        assert await get("/2") == b"/2"
        assert (app.requests, len(app.connections)) == (4, 3)
        app.steps = [drop, drop]
        with pytest.raises(ConnectionTerminatedError):
            await get("/3")
        assert await get("/4") == b"/4"
        app.steps = [drop]
        with pytest.raises(ConnectionTerminatedError):
            await client.post("/5", b"body")
        assert await get("/6") == b"/6"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@VERSIONS
@in_loops
async def test_nothing_listens_there(host, http3):
    kind = socket.SOCK_DGRAM if http3 else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6, kind) as closed:
        closed.bind(("::", 0))
        port = closed.getsockname()[1]
    origin = f"https://{host}:{port}"
    async with Client(origin, http3=http3, connect_timeout=None) as client:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError) as caught:
                await client.get("/")
            assert str(caught.value).count(str(port)) == 1
            assert ("nothing listens" in str(caught.value)) == bool(http3)


@pytest.mark.parametrize("end", [Client.close, Client.abort])
@VERSIONS
@in_loops
async def test_who_waits_for_a_connection_is_told_that_the_client_is_closed(end, http3):
    async with deaf(http3) as (where, accepted):
        client = Client(where, http3=http3)
        requests = [asyncio.ensure_future(client.get("/")) for _ in range(2)]
        await accepted.wait()
        ending = end(client)
        if ending is not None:
            await ending
        for request in requests:
            with pytest.raises(ConnectionClosedError, match="closed"):
                await request
        await client.close()


@VERSIONS
@in_loops
async def test_abort_ends_a_connection_in_whatever_turn_it_is_made(http3, paths, tls):
    async with Server(silence, ("127.0.0.1", 0), ssl=paths, http3=True) as server:
        for turns in range(12):
            client = Client(origin(server), ssl=tls.client, http3=http3)
            request = asyncio.ensure_future(client.get("/"))
            for _ in range(turns * turns):
                await asyncio.sleep(0)
            client.abort()
            with pytest.raises(ConnectionClosedError):
                await request
            await client.close()


@in_loops
async def test_a_connection_that_is_made_as_its_attempt_is_cancelled_is_closed(
    tls, monkeypatch
):
    class Attempt:
        discarded = False

        def discard(self):
            self.discarded = True

    async def establish(*args, **options):
        await made.wait()
        return attempt

    made, attempt = asyncio.Event(), Attempt()
    monkeypatch.setattr(h3_client, "establish", establish)
    client = Client("https://127.0.0.1", ssl=tls.client, http3="only")
    connecting = asyncio.ensure_future(client._connections._http3.connect())
    for _ in range(5):
        await asyncio.sleep(0)
    made.set()
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert attempt.discarded


@in_loops
async def test_a_connection_that_is_made_as_its_time_is_over_is_closed(
    tls, monkeypatch
):
    """wait_for() of Python 3.12 may raise when it is made."""

    class Attempt:
        discarded = False

        def discard(self):
            self.discarded = True

    async def establish(*args, **options):
        return attempt

    async def wait_for(task, timeout):
        await task
        raise asyncio.TimeoutError

    attempt = Attempt()
    monkeypatch.setattr(h3_client, "establish", establish)
    monkeypatch.setattr(h3_client, "wait_for", wait_for)
    client = Client("https://127.0.0.1", ssl=tls.client, http3="only")
    with pytest.raises(ConnectTimeoutError):
        await client._connections._http3.connect()
    assert attempt.discarded


@VERSIONS
@in_loops
async def test_a_cancelled_request_leaves_no_stream_and_the_connection(http3, serving):
    app = Script(silence)
    async with serving(app, http3) as client:
        task = asyncio.ensure_future(client.get("/"))
        await until(lambda: app.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: app.errors)
        assert await (await client.get("/next")).read() == b"/next"
        assert len(app.connections) == 1
        assert client._connection.stream_count == 0


@VERSIONS
@in_loops
async def test_who_is_cancelled_while_connecting_does_not_stop_the_others(
    http3, serving
):
    async with serving(echo, http3) as client:
        one = asyncio.ensure_future(client.get("/one"))
        two = asyncio.ensure_future(client.get("/two"))
        await asyncio.sleep(0)
        one.cancel()
        assert await (await two).read() == b"/two"
        with pytest.raises(asyncio.CancelledError):
            await one


@VERSIONS
@in_loops
async def test_read_keeps_to_its_limit(http3, serving):
    async with serving(echo, http3) as client:
        response = await client.post("/", bytes(100_000))
        with pytest.raises(BodyTooLargeError, match="99999"):
            await response.read(99_999)
        response = await client.post("/", bytes(100_000))
        assert len(await response.read(100_000)) == 100_000


@pytest.mark.parametrize("how", ["close", "block", "forget"])
@VERSIONS
@in_loops
async def test_a_response_that_is_not_wanted_ends_its_stream(http3, how, serving):
    app = Script(forever)
    async with serving(app, http3) as client:
        response = await client.get("/")
        if how == "close":
            response.close()
            response.close()
        elif how == "block":
            async with response:
                pass
        del response
        gc.collect()
        await until(lambda: app.errors)
        assert app.errors[0].error_code == CANCELLED[http3]


@VERSIONS
@in_loops
async def test_unread_responses_hold_up_no_other(http3, serving):
    async def app(stream):
        size = int(stream.request.target[1:])
        await stream.send_response(200, body=bytes(size))

    mebibyte = 1 << 20
    async with serving(app, http3, close_timeout=0.05) as client:
        unread = [await client.get(f"/{4 * mebibyte}") for _ in range(16)]
        response = await client.get(f"/{mebibyte}")
        assert len(await response.read()) == mebibyte
        for response in unread:
            assert response._stream._size < 2 * mebibyte
            response.close()


async def endless():
    while True:
        yield b"x"
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", [lambda: LARGE, endless], ids=["bytes", "async"])
@pytest.mark.parametrize("use", ["read", "drop", "hold"])
@VERSIONS
@in_loops
async def test_an_answer_before_the_end_of_its_upload_holds_nothing(
    http3, use, body, serving
):
    async def refuse(stream):
        await stream.send_response(413, body=b"enough")

    async with serving(refuse, http3, close_timeout=60) as client:
        response = await client.post("/", body())
        if use == "read":
            assert await response.read() == b"enough"
        elif use == "drop":
            del response
        assert await (await client.get("/")).read() == b"enough"


@VERSIONS
@in_loops
async def test_random_cancellations_and_bodies_lose_nothing(http3, serving):
    randoms = random.Random(2)

    async def one(i):
        body = randoms.randbytes(randoms.choice((0, 1, 1000, 70_000)))
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

    async with serving(echo, http3) as client:
        tasks = [asyncio.ensure_future(one(i)) for i in range(100)]
        loop = asyncio.get_running_loop()
        for task in tasks[::7]:
            loop.call_later(randoms.random() / 10, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            r in (0, 1) or isinstance(r, asyncio.CancelledError) for r in results
        )
        assert sum(r for r in results if r in (0, 1)) > 50
        await until(lambda: client._connection.stream_count == 0)
