"""HTTP2Client and BaseResponseHandler, over loopback."""

import asyncio
import hashlib
import io
import os
import ssl
from functools import partial

import hpack
import pytest
from helpers import END_HEADERS, HEADERS, MAGIC, data, frame, rst_stream, settings
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

from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.errors import (
    ConnectionClosedError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    StreamStateError,
)
from nghttp2py.h2 import H2Configuration, H2RequestReceived
from nghttp2py.server import BaseRequestHandler, HTTP2Server


class Recorder(BaseResponseHandler):
    """Keeps what it is told, in order."""

    def __init__(self):  # as old scripts do, without super().__init__()
        self.calls = []
        self.body = b""
        self.error_code = None

    def on_informational(self, status, headers):
        self.calls.append(("informational", status, headers))

    def on_headers(self):
        self.calls.append("headers")

    def on_data(self, data):
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.body += data

    def on_trailers(self, headers):
        self.calls.append(("trailers", headers))

    def on_response_done(self):
        self.calls.append("done")

    def on_close(self, error_code):
        self.calls.append("close")
        self.error_code = error_code


def address_of(server):
    return server.sockets[0].getsockname()[:2]


@in_loops
async def test_a_handler_is_told_of_its_response_in_order():
    async with echo_server() as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/trailers", handler=handler)
        assert handler.calls == [
            "headers",
            "data",
            ("trailers", [(b"x-end", b"1")]),
            "done",
            "close",
        ]
        assert handler.status == 200
        assert handler.headers[0] == (b":status", b"200")
        assert dict(handler.headers)[b"x-request"] == b"GET /trailers"
        assert handler.body == b"/trailers"
        assert handler.error_code == 0
        assert handler.server_address == address_of(server)


@in_loops
async def test_informational_responses_come_before_the_final_one():
    async with echo_server() as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/informational", handler=handler)
        assert handler.calls[:2] == [
            ("informational", 103, [(b"link", b"</style.css>")]),
            "headers",
        ]
        assert handler.status == 200


def pieces():
    yield b"one "
    yield b"two"


async def slow_pieces():
    yield b"one "
    await asyncio.sleep(0)
    yield b"two"


def from_callable():
    given = iter([(b"one ", 0), (b"two", 1)])
    return lambda n: next(given)


@pytest.mark.parametrize(
    "body",
    [
        lambda: "one two",
        lambda: b"one two",
        lambda: bytearray(b"one two"),
        lambda: io.BytesIO(b"one two"),
        pieces,
        slow_pieces,
        from_callable,
    ],
    ids=["str", "bytes", "bytearray", "file", "iterator", "async", "callable"],
)
@in_loops
async def test_a_body_of_any_form_arrives(body):
    async with echo_server() as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request("POST", "/", body=body(), handler=handler)
        assert handler.body == b"one two"


@in_loops
async def test_a_large_body_goes_up_and_comes_down_whole():
    data = bytes(range(256)) * 16384
    async with echo_server() as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request("PUT", "/", body=data, handler=handler)
        assert hashlib.sha256(handler.body).digest() == hashlib.sha256(data).digest()


@in_loops
async def test_many_requests_share_the_connection():
    async with echo_server() as server:
        handlers = [Recorder() for _ in range(500)]
        async with HTTP2Client(address_of(server)) as client:
            for i, handler in enumerate(handlers):
                client.send_request(url=f"/{i}", handler=handler)
        assert [h.body for h in handlers] == [b"/%d" % i for i in range(500)]


@in_loops
async def test_a_handler_may_send_further_requests():
    class Chain(Recorder):
        def on_headers(self):
            super().on_headers()
            if self.path == b"/first":
                self.http2.send_request(url="/second", handler=second)

    async with echo_server() as server:
        second = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/first", handler=Chain())
        assert second.body == b"/second"


@in_loops
async def test_url_gives_scheme_host_and_path_but_no_fragment():
    async with echo_server() as server:
        one, two = Recorder(), Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="http://Example.org/ä?q=1#f", handler=one)
            client.send_request(url="?only=query", handler=two)
        assert dict(one.headers)[b"x-request"] == b"GET /%C3%A4?q=1"
        assert dict(one.headers)[b"x-host"] == b"example.org"
        assert dict(two.headers)[b"x-request"] == b"GET /?only=query"
        host, port = address_of(server)
        assert dict(two.headers)[b"x-host"] == f"{host}:{port}".encode()


@in_loops
async def test_connect_names_an_authority_and_nothing_else():
    class Tunnel(BaseRequestHandler):
        def on_headers(self):
            asked.extend(self.headers)
            self.send_response(200, body="through")

    asked = []
    async with HTTP2Server(("127.0.0.1", 0), Tunnel) as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            await client.connect()
            client.send_request("CONNECT", "example.org:443", handler=handler)
        assert asked == [(b":method", b"CONNECT"), (b":authority", b"example.org:443")]
        assert handler.body == b"through"
        assert handler.scheme is None and handler.host is None


@in_loops
async def test_what_must_not_be_sent_raises_and_leaves_the_connection_whole():
    async with echo_server() as server:
        handler = Recorder()
        async with HTTP2Client(address_of(server)) as client:
            await client.connect()
            with pytest.raises(ValueError, match="spaces"):
                client.send_request(url="/a b")
            with pytest.raises(HeadersError):
                client.send_request(headers=[("x", "a\r\nb")])
            with pytest.raises(TypeError):
                client.send_request("POST", body=42)
            with pytest.raises(InvalidBodyLengthError):
                client.send_request("POST", headers={"content-length": "3"}, body="no")
            client.send_request(url="/well", handler=handler)
            with pytest.raises(StreamStateError, match="in use"):
                client.send_request(url="/again", handler=handler)
        assert handler.body == b"/well"


@in_loops
async def test_a_promise_is_declined_unless_a_handler_takes_it():
    class Taker(Recorder):
        def on_push_promise(self, push_promise):
            promises.append(push_promise.path)
            self.accept_push(push_promise, pushed)
            with pytest.raises(StreamStateError, match="already"):
                self.reject_push(push_promise)

    async with echo_server() as server:
        promises, pushed, plain = [], Recorder(), Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/push", handler=Taker())
        assert promises == [b"/pushed"]
        assert pushed.pushed and pushed.method == b"GET" and pushed.path == b"/pushed"
        assert pushed.status == 200 and pushed.body == b"pushed body"
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/push", handler=plain)
        assert plain.body == b"/push" and plain.error_code == 0


@in_loops
async def test_a_handler_that_is_empty_may_take_a_promise():
    class Empty(Recorder):
        def __len__(self):
            return 0

    class Taker(Recorder):
        def on_push_promise(self, push_promise):
            self.accept_push(push_promise, pushed)

    async with echo_server() as server:
        pushed = Empty()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/push", handler=Taker())
        assert pushed.body == b"pushed body"


@in_loops
async def test_a_handler_that_raises_ends_only_its_own_stream():
    class Broken(Recorder):
        def on_headers(self):
            raise RuntimeError("broken")

    class Cancelled(Recorder):
        def on_headers(self):
            raise asyncio.CancelledError

    async with echo_server() as server:
        broken, cancelled, well = Broken(), Cancelled(), Recorder()
        async with HTTP2Client(address_of(server)) as client:
            client.send_request(url="/broken", handler=broken)
            client.send_request(url="/cancelled", handler=cancelled)
            client.send_request(url="/well", handler=well)
        assert broken.calls == cancelled.calls == ["close"]
        assert well.body == b"/well"


@in_loops
async def test_a_lost_connection_closes_every_handler():
    async def vanish(peer):
        await peer.next(H2RequestReceived)
        await peer.next(H2RequestReceived)
        peer.abort()

    async with ScriptedServer(vanish) as server:
        handlers = [Recorder(), Recorder()]
        client = HTTP2Client(("127.0.0.1", server.port))
        for handler in handlers:
            client.send_request(handler=handler)
        await client.wait_closed()
        assert [h.calls for h in handlers] == [["close"], ["close"]]
        assert [h.error_code for h in handlers] == [ErrorCode.INTERNAL_ERROR] * 2
        client.finish(timeout=60)
        assert client._finish_timer is None, "it would only hold the client"
        with pytest.raises(ConnectionClosedError):
            client.send_request()


@in_loops
async def test_close_ends_open_streams_and_tells_the_server():
    async def wait(peer):
        await peer.next(H2RequestReceived)
        await peer.drained()
        gone.append(peer.connection.is_closed)

    gone = []
    async with ScriptedServer(wait) as server:
        handler = Recorder()
        client = HTTP2Client(("127.0.0.1", server.port))
        client.send_request(handler=handler)
        await client.connect()
        await until(lambda: handler.stream_id != -1)
        client.close()
        await client.wait_closed()
        assert handler.calls == ["close"] and handler.error_code != 0
        await until(lambda: gone)
    assert gone == [True]


@in_loops
async def test_requests_that_wait_for_a_connection_are_closed_if_it_fails():
    handler = Recorder()
    client = HTTP2Client(("127.0.0.1", free_port()))
    client.send_request(handler=handler)
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    assert handler.calls == ["close"]
    with pytest.raises(ConnectionRefusedError):
        async with client:
            raise AssertionError("it is not connected")
    await client.wait_closed()


@in_loops
async def test_finish_with_a_timeout_gives_up_a_server_that_does_not_answer():
    async def silent(peer):
        await peer.drained()

    async with ScriptedServer(silent) as server:
        handler = Recorder()
        client = HTTP2Client(("127.0.0.1", server.port))
        client.send_request(handler=handler)
        await client.connect()
        assert handler.stream_id == 1
        client.finish(timeout=0.05)
        await client.wait_closed()
        assert handler.calls == ["close"]


@pytest.mark.parametrize(
    "end", [HTTP2Client.close, partial(HTTP2Client.finish, timeout=0)]
)
@in_loops
async def test_a_client_ends_in_whatever_turn_of_its_connecting(end):
    async def silent(peer):
        await peer.drained()

    async with ScriptedServer(silent) as server:
        # The connection is made in some turn, and known to be in a later one.
        for turns in range(10):
            handler = Recorder()
            client = HTTP2Client(("127.0.0.1", server.port))
            client.send_request(handler=handler)
            while client.transport is None:
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            end(client)
            await client.wait_closed()
            assert handler.calls == ["close"]


@in_loops
async def test_who_waits_for_a_connection_is_told_that_it_was_closed():
    async with silent_server() as (address, accepted):
        client = HTTP2Client(address, ssl=True)
        waiting = asyncio.ensure_future(client.connect())
        await accepted.wait()
        client.close()
        with pytest.raises(ConnectionClosedError, match="was closed"):
            await waiting
        await client.wait_closed()


@in_loops
async def test_tls_is_checked_and_its_alpn_is_h2():
    async with echo_server(ssl=server_tls()) as server:
        _, port = address_of(server)
        handler = Recorder()
        async with HTTP2Client(("localhost", port), ssl=client_tls()) as client:
            client.send_request(url="/tls", handler=handler)
        assert handler.body == b"/tls"
        assert handler.scheme == b"https"
        expect_a_broken_handshake()
        with pytest.raises(ssl.SSLCertVerificationError):
            await HTTP2Client(("localhost", port), ssl=True).connect()


@in_loops
async def test_a_server_without_h2_is_refused():
    async def unreached(peer):
        await peer.drained()

    async with ScriptedServer(unreached, tls=server_tls(alpn=())) as server:
        handler = Recorder()
        client = HTTP2Client(("localhost", server.port), ssl=client_tls())
        client.send_request(handler=handler)
        with pytest.raises(ConnectionClosedError, match="h2"):
            await client.connect()
        assert handler.calls == ["close"]
        await client.wait_closed()


@in_loops
async def test_connecting_ends_with_its_timeout():
    async with silent_server() as (address, _):
        client = HTTP2Client(address, ssl=True, connect_timeout=0.05)
        with pytest.raises(TimeoutError, match="no connection"):
            await client.connect()
        await client.wait_closed()


def test_without_a_running_loop_it_has_its_own(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with nghttpd(tmp_path) as port:
        one, two = Recorder(), Recorder()
        with HTTP2Client(("127.0.0.1", port)) as client:
            client.send_request(url="/file", handler=one)
            client.send_request(url="/missing", handler=two)
        assert (one.status, one.body) == (200, b"content")
        assert two.status == 404
        assert client.io_loop.is_closed()


def test_a_handler_may_close_the_client_as_old_scripts_do(tmp_path):
    class Last(Recorder):
        def on_close(self, error_code):
            super().on_close(error_code)
            self.http2.close()

    (tmp_path / "file").write_bytes(b"content")
    with nghttpd(tmp_path, tls=True) as port:
        handler = Last()
        client = HTTP2Client(("localhost", port), ssl=client_tls())
        client.send_request(url="/file", handler=handler)
        client.run()
        assert handler.body == b"content" and handler.error_code == 0


def test_the_constructor_tells_why_it_cannot_connect():
    with pytest.raises(ConnectionRefusedError):
        HTTP2Client(("127.0.0.1", free_port()))


def test_a_loop_given_is_used_and_left_open(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    loop = asyncio.new_event_loop()
    with nghttpd(tmp_path) as port:
        handler = Recorder()
        client = HTTP2Client(("127.0.0.1", port), loop)
        client.send_request(url="/file", handler=handler)
        client.finish()
        client.run()
        assert handler.body == b"content"
        assert client.io_loop is loop and not loop.is_closed()
    loop.close()


@pytest.mark.parametrize("make_address", [str, os.fsencode, lambda path: path])
@in_loops
async def test_a_unix_socket_will_do(tmp_path, make_address):
    path = tmp_path / "socket"
    async with HTTP2Server(str(path), Echo):
        handler = Recorder()
        async with HTTP2Client(make_address(path)) as client:
            client.send_request(url="/unix", handler=handler)
        assert handler.body == b"/unix"
        assert dict(handler.headers)[b"x-host"] == b"localhost"


@in_loops
async def test_the_configuration_is_announced():
    async with echo_server() as server:
        config = H2Configuration(initial_window_size=1000)
        client = HTTP2Client(address_of(server), config=config)
        async with client:
            await until(lambda: client.connection.settings_unacknowledged == 0)
            assert client.connection.local_settings[4] == 1000


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"address": ("a",)}, ValueError),
        ({"address": ("a", 1), "ssl": "yes"}, TypeError),
        ({"address": "path", "ssl": True}, ValueError),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, error):
    with pytest.raises(error):
        HTTP2Client(**options)


# ---- Streams that NO_ERROR breaks off ----


@in_loops
@pytest.mark.parametrize("whole", [False, True])
async def test_no_error_is_a_good_end_after_a_whole_response_only(whole):
    """RFC 9113, 8.1: the client must not discard the response."""

    async def answer(reader, writer):
        await reader.readexactly(len(MAGIC))
        writer.write(settings())
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == HEADERS:
                break
        block = hpack.Encoder().encode([(b":status", b"413")])
        writer.write(
            frame(HEADERS, END_HEADERS, 1, block)
            + data(1, b"too large", end_stream=whole)
            + rst_stream(1, 0)
        )
        await reader.read(-1)
        writer.close()

    async def endless():
        yield b"x"
        await asyncio.Event().wait()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    handler = Recorder()
    async with HTTP2Client(server.sockets[0].getsockname()[:2]) as client:
        await client.connect()
        client.send_request("POST", body=endless(), handler=handler)
        await until(lambda: handler.error_code is not None)
    assert handler.body == b"too large"
    assert handler.error_code == (0 if whole else ErrorCode.CANCEL)
    server.close()
    await server.wait_closed()
