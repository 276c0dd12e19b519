"""What RFC 9113 and RFC 7541 ask of a server, section by section, over sockets.

Each case is a conversation in raw frames with ``HTTP2Server`` and with
``start_server``, in the clear and over TLS.  The names are the sections; those of
RFC 7540's priorities say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

import hpack
import pytest
from helpers import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    MAGIC,
    PADDED,
    PING,
    POST,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    data,
    frame,
    goaway,
    ping,
    rst_stream,
    settings,
    window_update,
)
from loops import DEADLINE

from nghttp2py import BaseRequestHandler, HTTP2Server
from nghttp2py.asyncio import start_server
from nghttp2py.errors import ErrorCode

BODY = b"hello, world"
TRAILERS = ((b"x-trailer", b"1"),)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
CLOSED = ErrorCode.STREAM_CLOSED
SIZE = ErrorCode.FRAME_SIZE_ERROR
REFUSED = ErrorCode.REFUSED_STREAM
COMPRESSION = ErrorCode.COMPRESSION_ERROR

# ---- The servers ----


class Hello(BaseRequestHandler):
    """Answers each request when it has come."""

    def on_request_done(self):
        self.send_response(200, None, BODY)


async def hello(stream):
    """The same for ``start_server``."""
    await stream.read(-1)
    head = stream.request.method == b"HEAD"
    await stream.send_response(200, [], None if head else BODY)


class Servers:
    """Both servers, in the clear and over TLS, in a loop of their own."""

    def __init__(self, context):
        self.ports = {}
        self.context = context
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self):
        self.thread.start()
        self.run(self.start())
        return self

    def __exit__(self, *_):
        self.run(self.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run(self, coroutine):
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE * 3)

    async def start(self):
        self.made = []
        for tls in (False, True):
            # A server changes its context.
            server = HTTP2Server(
                ("127.0.0.1", 0), Hello, ssl=self.context() if tls else None
            )
            await server.start()
            self.add("HTTP2Server", tls, server)
            server = await start_server(
                lambda protocol: protocol.serve_streams(hello),
                "127.0.0.1",
                0,
                ssl=self.context() if tls else None,
            )
            self.add("start_server", tls, server)

    def add(self, kind, tls, server):
        self.made.append(server)
        self.ports[kind, tls] = server.sockets[0].getsockname()[1]

    async def stop(self):
        for server in self.made:
            server.close()
            await server.wait_closed()


@pytest.fixture(scope="module")
def servers(certificates):
    authority, certificate, _, _ = certificates

    def context():
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(made)
        return made

    with Servers(context) as made:
        made.client = ssl.create_default_context()
        made.client.set_alpn_protocols(["h2"])
        authority.configure_trust(made.client)
        yield made


class Peer:
    """A client that says what a test wants it to."""

    def __init__(self, sock):
        self.sock = sock
        self.encoder = hpack.Encoder()
        self.rest = b""
        self.seen: list[Frame] = []

    def greet(self, values=None):
        """Send the preface, and wait until SETTINGS are acknowledged both ways."""
        self.send(MAGIC, settings(values))
        self.until(lambda f: f.type == SETTINGS and not f.flags & ACK)
        self.send(frame(SETTINGS, ACK, 0))
        self.until(lambda f: f.type == SETTINGS and f.flags & ACK)
        return self

    def send(self, *frames):
        """Send frames; what the server has closed meanwhile is found by reading."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.sock.sendall(b"".join(frames))

    def next(self):
        """Return the next frame, or None at the end."""
        while True:
            length = int.from_bytes(self.rest[:3], "big")
            if len(self.rest) >= 9 + length:
                type, flags, stream_id = struct.unpack(">BBI", self.rest[3:9])
                payload = self.rest[9 : 9 + length]
                self.rest = self.rest[9 + length :]
                found = Frame(type, flags, stream_id, payload)
                self.seen.append(found)
                return found
            try:
                piece = self.sock.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                piece = b""
            if not piece:
                return None
            self.rest += piece

    def until(self, wanted):
        """Return the next frame that is wanted."""
        while True:
            found = self.next()
            assert found is not None, f"the connection ended: {self.seen}"
            if wanted(found):
                return found

    # ---- What is sent ----

    def block(self, fields):
        return self.encoder.encode(list(fields), huffman=False)

    def headers(self, stream_id=1, fields=GET, flags=END_HEADERS | END_STREAM):
        return frame(HEADERS, flags, stream_id, self.block(fields))

    def open(self, stream_id=1, fields=POST):
        """HEADERS of a request whose body follows."""
        return self.headers(stream_id, fields, END_HEADERS)

    # ---- What is expected ----

    def connection_error(self, *codes):
        """GOAWAY with one of the codes, and the end."""
        found = self.until(lambda f: f.type == GOAWAY)
        assert found.error_code in codes, found
        while self.next() is not None:
            pass

    def stream_error(self, *codes, stream_id=1):
        """RST_STREAM with one of the codes; the connection goes on."""
        found = self.until(lambda f: f.type in (RST_STREAM, GOAWAY))
        assert found.type == RST_STREAM, found
        assert (found.stream_id, found.error_code in codes) == (stream_id, True), found
        self.alive()

    def either_error(self, *codes):
        """RST_STREAM or GOAWAY: a stream error may be treated so (5.4.1)."""
        found = self.until(lambda f: f.type in (RST_STREAM, GOAWAY))
        assert found.error_code in codes, found
        if found.type == RST_STREAM:
            assert found.stream_id == 1, found
            self.alive()
        else:
            while self.next() is not None:
                pass

    def alive(self):
        """An answer to a PING, before anything is said to be wrong."""
        self.send(ping(b"alive?!!"))
        found = self.until(lambda f: f.type == GOAWAY or f.payload == b"alive?!!")
        assert (found.type, found.flags) == (PING, ACK), found

    def answer(self, stream_id=1, body=BODY):
        """A whole response."""
        got = b""
        ended = False
        while not ended:
            found = self.until(
                lambda f: (
                    f.type in (HEADERS, DATA, RST_STREAM, GOAWAY)
                    and f.stream_id in (0, stream_id)
                )
            )
            assert found.type in (HEADERS, DATA), found
            if found.type == DATA:
                got += found.payload
            ended = bool(found.flags & END_STREAM)
        assert got == body


# ---- The cases ----

CASES: dict[str, Callable[[Peer], None]] = {}


def case(name: str) -> Callable[[Callable[[Peer], None]], Callable[[Peer], None]]:
    def add(test: Callable[[Peer], None]) -> Callable[[Peer], None]:
        assert name not in CASES, name
        CASES[name] = test
        return test

    return add


def simple(name, build, verdict):
    """A case that sends some frames and then looks at one thing."""

    def run(peer):
        peer.greet()
        sent = build(peer)
        peer.send(*(sent if isinstance(sent, (list, tuple)) else [sent]))
        verdict(peer)

    case(name)(run)


def fails_connection(*codes):
    return lambda peer: peer.connection_error(*codes)


def fails_stream(*codes, stream_id=1):
    return lambda peer: peer.stream_error(*codes, stream_id=stream_id)


def answers(stream_id=1, body=BODY):
    return lambda peer: peer.answer(stream_id, body)


def lives(peer):
    peer.alive()


def dependency(stream_id, weight=15, exclusive=False):
    """A priority field (RFC 7540, 6.3)."""
    return struct.pack(">IB", stream_id | (1 << 31 if exclusive else 0), weight)


def prioritised(peer, stream_id, depends_on, **options):
    payload = dependency(depends_on, **options) + peer.block(GET)
    flags = END_HEADERS | END_STREAM | PRIORITY_FLAG
    return frame(HEADERS, flags, stream_id, payload)


def padded(type, flags, stream_id, payload, n=8):
    return frame(type, flags | PADDED, stream_id, bytes([n]) + payload + bytes(n))


def halves(peer, stream_id=1, fields=GET, first=END_STREAM, n=2):
    """A request's block in HEADERS and CONTINUATION frames."""
    block = peer.block(fields)
    step = -(-len(block) // n)
    pieces = [block[i : i + step] for i in range(0, len(block), step)]
    frames = [frame(HEADERS, first, stream_id, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    return [*frames, frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1])]


# -- What works --


@case("3.4 the preface is answered by SETTINGS first")
def _(peer):
    peer.send(MAGIC, settings())
    first = peer.next()
    assert (first.type, first.flags, first.stream_id) == (SETTINGS, 0, 0)
    peer.send(frame(SETTINGS, ACK, 0))
    peer.alive()


simple(
    "5.1 PRIORITY on an idle stream",
    lambda p: frame(PRIORITY, 0, 1, dependency(0)),
    lives,
)
simple(
    "5.1 WINDOW_UPDATE on a half-closed stream",
    lambda p: [p.headers(), window_update(1, 1)],
    answers(),
)
simple(
    "5.1 PRIORITY on a half-closed stream",
    lambda p: [p.headers(), frame(PRIORITY, 0, 1, dependency(0))],
    answers(),
)
simple(
    "5.1 RST_STREAM on a half-closed stream",
    lambda p: [p.headers(), rst_stream(1)],
    lives,
)


@case("5.1 PRIORITY on a closed stream")
def _(peer):
    peer.greet()
    peer.send(peer.headers())
    peer.answer()
    peer.send(frame(PRIORITY, 0, 1, dependency(0)))
    peer.alive()


@case("5.1 WINDOW_UPDATE and RST_STREAM on a closed stream")
def _(peer):
    peer.greet()
    peer.send(peer.headers())
    peer.answer()
    peer.send(window_update(1, 1), rst_stream(1))
    peer.alive()


simple("6.1 DATA", lambda p: [p.open(), data(1, b"x", end_stream=True)], answers())
simple(
    "6.1 several DATA",
    lambda p: [p.open(), data(1, b"x"), data(1, b"y"), data(1, b"", end_stream=True)],
    answers(),
)
simple(
    "6.1 DATA with padding",
    lambda p: [p.open(), padded(DATA, END_STREAM, 1, b"x")],
    answers(),
)
simple("6.2 HEADERS", lambda p: p.headers(), answers())
simple(
    "6.2 HEADERS with padding",
    lambda p: padded(HEADERS, END_HEADERS | END_STREAM, 1, p.block(GET)),
    answers(),
)
simple("6.2 HEADERS with priority", lambda p: prioritised(p, 1, 0), answers())
for weight in (0, 255):
    simple(
        f"6.3 PRIORITY of weight {weight + 1}",
        lambda p, w=weight: [frame(PRIORITY, 0, 1, dependency(0, w)), p.headers()],
        answers(),
    )
simple(
    "6.3 PRIORITY that depends on another",
    lambda p: [frame(PRIORITY, 0, 1, dependency(3)), p.headers()],
    answers(),
)
simple(
    "6.3 PRIORITY that is exclusive",
    lambda p: [frame(PRIORITY, 0, 1, dependency(3, exclusive=True)), p.headers()],
    answers(),
)
simple(
    "6.3 PRIORITY on an idle stream, then HEADERS on a lower one",
    lambda p: [frame(PRIORITY, 0, 3, dependency(0)), p.headers(1)],
    answers(),
)
simple("6.4 RST_STREAM", lambda p: [p.open(), rst_stream(1)], lives)
simple("6.5 SETTINGS", lambda p: settings({4: 65535, 5: 16384}), lives)
simple("6.7 PING", lambda p: [], lives)
simple("6.8 GOAWAY", lambda p: [goaway(0, 0), p.headers()], lambda p: None)


@case("6.8 GOAWAY of a client lets its streams finish")
def _(peer):
    peer.greet()
    peer.send(peer.open(), goaway(0, 0), data(1, b"x", end_stream=True))
    peer.answer()


simple("6.9 WINDOW_UPDATE of the connection", lambda p: window_update(0, 1), lives)
simple(
    "6.9 WINDOW_UPDATE of a stream",
    lambda p: [p.open(), window_update(1, 1), data(1, b"x", end_stream=True)],
    answers(),
)
simple("6.10 a CONTINUATION", lambda p: halves(p), answers())
simple("6.10 several CONTINUATIONs", lambda p: halves(p, n=5), answers())
simple("8.1 GET", lambda p: p.headers(), answers())
simple(
    "8.1 HEAD",
    lambda p: p.headers(1, ((b":method", b"HEAD"), *GET[1:])),
    answers(body=b""),
)
simple("8.1 POST", lambda p: [p.open(), data(1, b"x", end_stream=True)], answers())
simple(
    "8.1 POST with trailers",
    lambda p: [p.open(), data(1, b"x"), p.headers(1, TRAILERS)],
    answers(),
)
simple(
    "8.1 OPTIONS of the server",
    lambda p: p.headers(
        1, ((b":method", b"OPTIONS"), GET[1], (b":path", b"*"), GET[3])
    ),
    answers(),
)

# -- RFC 7541 --

# Of GET: :method, :scheme and :path from the static table, :authority literal.
STATIC = b"\x82\x87\x84"
AUTHORITY = b"\x0bexample.org"


ANSWER = answers()


def block_case(name, block, verdict=ANSWER):
    simple(
        f"HPACK {name}",
        lambda p: frame(HEADERS, END_HEADERS | END_STREAM, 1, block),
        verdict,
    )


HUFFMAN = hpack.Encoder().encode([(b"x", b"example.org")])[-9:]
BASE = STATIC + b"\x41" + AUTHORITY
block_case("6.1 indexed", BASE)
block_case("6.2.1 literal with indexing, indexed name", BASE + b"\x50\x01x")
block_case("6.2.1 the same, Huffman", STATIC + b"\x41\x88" + HUFFMAN[1:])
block_case("6.2.1 literal with indexing, new name", BASE + b"\x40\x01a\x01x")
block_case("6.2.1 new name, Huffman", BASE + b"\x40\x01a\x88" + HUFFMAN[1:])
block_case("6.2.2 literal without indexing, indexed name", BASE + b"\x0f\x01\x01x")
block_case("6.2.2 the same, Huffman", BASE + b"\x0f\x01\x88" + HUFFMAN[1:])
block_case("6.2.2 literal without indexing, new name", BASE + b"\x00\x01a\x01x")
block_case("6.2.2 new name, Huffman", BASE + b"\x00\x01a\x88" + HUFFMAN[1:])
block_case("6.2.3 literal never indexed, indexed name", BASE + b"\x1f\x01\x01x")
block_case("6.2.3 the same, Huffman", BASE + b"\x1f\x01\x88" + HUFFMAN[1:])
block_case("6.2.3 literal never indexed, new name", BASE + b"\x10\x01a\x01x")
block_case("6.2.3 new name, Huffman", BASE + b"\x10\x01a\x88" + HUFFMAN[1:])
block_case("6.3 a table size update", b"\x3f\x61" + BASE)
block_case("6.3 two table size updates", b"\x20\x3f\x61" + BASE)
COMPRESSED = fails_connection(COMPRESSION)
block_case("2.3.3 an index past the table", b"\xff\x80\x01" + BASE, COMPRESSED)
block_case("2.3.3 a name past the table", BASE + b"\x7f\x80\x01\x01x", COMPRESSED)
block_case("4.2 a table size update at the end", BASE + b"\x3f\x61", COMPRESSED)
block_case(
    "5.2 Huffman padding of more than 7 bits",
    BASE + b"\x00\x01a\x82\xf3\xff",
    COMPRESSED,
)
block_case("5.2 Huffman padding of zeros", BASE + b"\x00\x01a\x81\xf0", COMPRESSED)
block_case(
    "5.2 a Huffman string with EOS",
    BASE + b"\x00\x01a\x85\xf3\xff\xff\xff\xff",
    COMPRESSED,
)
block_case("6.1 index 0", b"\x80" + BASE, COMPRESSED)
block_case("6.3 a table size update past SETTINGS", b"\x3f\xe2\x1f" + BASE, COMPRESSED)
block_case("5.1 an integer without end", BASE + b"\x7f" + b"\xff" * 20, COMPRESSED)
block_case("5.2 a string past the block", BASE + b"\x00\x01a\x7f\x00", COMPRESSED)

# -- RFC 9113, 3 to 5 --


@case("3.4 something else than the preface")
def _(peer):
    peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
    while peer.next() is not None:
        pass
    assert [f.error_code for f in peer.seen if f.type == GOAWAY] in ([], [PROTOCOL])


@case("3.4 the preface without SETTINGS")
def _(peer):
    peer.send(MAGIC, peer.headers())
    peer.connection_error(PROTOCOL)


simple("4.1 a frame of unknown type", lambda p: frame(0x16, 0, 0, b"x" * 8), lives)
simple("4.1 undefined flags", lambda p: frame(PING, 0x16, 0, b"12345678"), lives)
simple("4.1 the reserved bit", lambda p: frame(PING, 0, 1 << 31, b"12345678"), lives)
simple(
    "4.2 DATA of 2^14 bytes",
    lambda p: [p.open(), data(1, b"x" * 16384, end_stream=True)],
    answers(),
)
simple(
    "4.2 DATA larger than SETTINGS_MAX_FRAME_SIZE",
    lambda p: [p.open(), data(1, b"x" * 16385, end_stream=True)],
    lambda p: p.either_error(SIZE),
)
simple(
    "4.2 HEADERS larger than SETTINGS_MAX_FRAME_SIZE",
    lambda p: p.headers(1, (*GET, *[(b"n%d" % i, b"x" * 4000) for i in range(5)])),
    fails_connection(SIZE),
)
block_case("4.3 an invalid header block", b"\x40\x01\x40", COMPRESSED)
simple(
    "4.3 PRIORITY in a header block",
    lambda p: [halves(p)[0], frame(PRIORITY, 0, 1, dependency(0))],
    fails_connection(PROTOCOL),
)
simple(
    "4.3 HEADERS of another stream in a header block",
    lambda p: [halves(p)[0], p.headers(3)],
    fails_connection(PROTOCOL),
)
simple("5.1 idle: DATA", lambda p: data(1, b"x"), fails_connection(PROTOCOL))
simple("5.1 idle: RST_STREAM", lambda p: rst_stream(1), fails_connection(PROTOCOL))
simple(
    "5.1 idle: WINDOW_UPDATE", lambda p: window_update(1, 1), fails_connection(PROTOCOL)
)
simple(
    "5.1 idle: CONTINUATION",
    lambda p: frame(CONTINUATION, END_HEADERS, 1, p.block(GET)),
    fails_connection(PROTOCOL),
)


def after_end(p, build):
    # In the order in which HPACK sees them.
    return [p.headers(), build()]


simple(
    "5.1 half-closed: DATA",
    lambda p: after_end(p, lambda: data(1, b"x")),
    lambda p: p.either_error(CLOSED),
)
simple(
    "5.1 half-closed: HEADERS",
    lambda p: after_end(p, p.headers),
    lambda p: p.either_error(CLOSED),
)
simple(
    "5.1 half-closed: CONTINUATION",
    lambda p: after_end(p, lambda: frame(CONTINUATION, 4, 1, p.block(GET))),
    fails_connection(PROTOCOL, CLOSED),
)
simple(
    "5.1 closed by RST_STREAM: DATA",
    lambda p: [p.open(), rst_stream(1), data(1, b"x")],
    lambda p: p.either_error(CLOSED),
)
simple(
    "5.1 closed by RST_STREAM: HEADERS",
    lambda p: [p.open(), rst_stream(1), p.headers()],
    lambda p: p.either_error(CLOSED),
)
simple(
    "5.1 closed by RST_STREAM: CONTINUATION",
    lambda p: [p.open(), rst_stream(1), frame(CONTINUATION, 4, 1, p.block(GET))],
    fails_connection(PROTOCOL, CLOSED),
)


def after_answer(name, build, *codes):
    @case(name)
    def _(peer):
        peer.greet()
        peer.send(peer.headers())
        peer.answer()
        peer.send(build(peer))
        peer.connection_error(*codes)


after_answer("5.1 closed: DATA", lambda p: data(1, b"x"), CLOSED)
after_answer("5.1 closed: HEADERS", lambda p: p.headers(), CLOSED)
after_answer(
    "5.1 closed: CONTINUATION",
    lambda p: frame(CONTINUATION, END_HEADERS, 1, p.block(GET)),
    PROTOCOL,
    CLOSED,
)
simple("5.1.1 an even identifier", lambda p: p.headers(2), fails_connection(PROTOCOL))
simple(
    "5.1.1 an identifier lower than an earlier one",
    lambda p: [p.headers(5), p.headers(3)],
    fails_connection(PROTOCOL),
)


@case("5.1.2 more streams than SETTINGS_MAX_CONCURRENT_STREAMS")
def _(peer):
    peer.greet()
    peer.send(*[peer.open(i) for i in range(1, 2 * 101 + 2, 2)])
    peer.either_error(PROTOCOL, REFUSED)


simple(
    "RFC 7540, 5.3.1 HEADERS that depend on their stream",
    lambda p: prioritised(p, 1, 1),
    fails_stream(PROTOCOL),
)
simple(
    "RFC 7540, 5.3.1 PRIORITY that depends on its stream",
    lambda p: frame(PRIORITY, 0, 1, dependency(1)),
    fails_stream(PROTOCOL),
)
simple(
    "5.4.1 GOAWAY and the end after an error",
    lambda p: frame(PING, 0, 3, b"12345678"),
    fails_connection(PROTOCOL),
)


@case("5.4.1 GOAWAY has the last stream")
def _(peer):
    peer.greet()
    peer.send(peer.headers(1))
    peer.answer(1)
    peer.send(frame(PING, 0, 3, b"12345678"))
    assert peer.until(lambda f: f.type == GOAWAY).last_stream_id == 1


simple("5.5 an unknown extension", lambda p: frame(0xFF, 0, 0, b"x"), lives)
simple(
    "5.5 an unknown extension in a header block",
    lambda p: [halves(p)[0], frame(0xFF, 0, 0, b"x")],
    fails_connection(PROTOCOL),
)

# -- 6 --

simple("6.1 DATA on stream 0", lambda p: data(0, b"x"), fails_connection(PROTOCOL))
simple(
    "6.1 DATA on a stream that has ended",
    lambda p: after_end(p, lambda: data(1, b"x")),
    lambda p: p.either_error(CLOSED),
)
simple(
    "6.1 DATA with more padding than payload",
    lambda p: [p.open(), frame(DATA, PADDED | END_STREAM, 1, b"\x06xxxxx")],
    fails_connection(PROTOCOL),
)
simple(
    "6.2 PRIORITY after HEADERS without END_HEADERS",
    lambda p: [halves(p)[0], frame(PRIORITY, 0, 1, dependency(0))],
    fails_connection(PROTOCOL),
)
simple(
    "6.2 HEADERS after HEADERS without END_HEADERS",
    lambda p: [halves(p)[0], p.headers(3)],
    fails_connection(PROTOCOL),
)
simple("6.2 HEADERS on stream 0", lambda p: p.headers(0), fails_connection(PROTOCOL))
simple(
    "6.2 HEADERS with more padding than payload",
    lambda p: frame(HEADERS, PADDED | 5, 1, bytes([255]) + p.block(GET)),
    fails_connection(PROTOCOL),
)
simple(
    "6.3 PRIORITY on stream 0",
    lambda p: frame(PRIORITY, 0, 0, dependency(1)),
    fails_connection(PROTOCOL),
)
simple(
    "6.3 PRIORITY of 4 bytes",
    lambda p: [p.open(), frame(PRIORITY, 0, 1, b"\0" * 4)],
    lambda p: p.either_error(SIZE),
)
simple(
    "6.4 RST_STREAM on stream 0", lambda p: rst_stream(0), fails_connection(PROTOCOL)
)
simple(
    "6.4 RST_STREAM of 3 bytes",
    lambda p: [p.open(), frame(RST_STREAM, 0, 1, b"\0" * 3)],
    fails_connection(SIZE),
)
simple(
    "6.5 SETTINGS that acknowledge with a payload",
    lambda p: frame(SETTINGS, ACK, 0, b"\0"),
    fails_connection(SIZE),
)
simple(
    "6.5 SETTINGS on a stream",
    lambda p: frame(SETTINGS, 0, 1, b""),
    fails_connection(PROTOCOL),
)
simple(
    "6.5 SETTINGS of 3 bytes",
    lambda p: frame(SETTINGS, 0, 0, b"\0" * 3),
    fails_connection(SIZE),
)
for name, values, code in (
    ("ENABLE_PUSH of 2", {2: 2}, PROTOCOL),
    ("INITIAL_WINDOW_SIZE of 2^31", {4: 1 << 31}, FLOW),
    ("MAX_FRAME_SIZE of 2^14 - 1", {5: 16383}, PROTOCOL),
    ("MAX_FRAME_SIZE of 2^24", {5: 1 << 24}, PROTOCOL),
):
    simple(f"6.5.2 {name}", lambda p, v=values: settings(v), fails_connection(code))
simple("6.5.2 an unknown setting", lambda p: settings({0xFF: 1}), lives)


@case("6.5.3 the last of several values holds")
def _(peer):
    peer.greet()
    # A setting repeated in one frame.
    peer.send(frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 100, 4, 1)))
    peer.until(lambda f: f.type == SETTINGS and f.flags & ACK)
    peer.send(peer.headers())
    assert len(peer.until(lambda f: f.type == DATA).payload) == 1


@case("6.5.3 SETTINGS are acknowledged")
def _(peer):
    peer.greet()
    peer.send(settings({3: 50}))
    found = peer.until(lambda f: f.type == SETTINGS)
    assert (found.flags, found.payload) == (ACK, b"")


@case("6.7 PING is answered with what it carried")
def _(peer):
    peer.greet()
    peer.send(ping(b"h2 ping!"))
    found = peer.until(lambda f: f.type == PING)
    assert (found.flags, found.payload) == (ACK, b"h2 ping!")


@case("6.7 an answer to no PING is not answered")
def _(peer):
    peer.greet()
    peer.send(ping(b"unsought", ack=True))
    peer.alive()
    assert not [f for f in peer.seen if f.payload == b"unsought"]


simple(
    "6.7 PING on a stream",
    lambda p: frame(PING, 0, 1, b"12345678"),
    fails_connection(PROTOCOL),
)
simple(
    "6.7 PING of 6 bytes",
    lambda p: frame(PING, 0, 0, b"123456"),
    fails_connection(SIZE),
)
simple(
    "6.8 GOAWAY on a stream",
    lambda p: frame(GOAWAY, 0, 1, b"\0" * 8),
    fails_connection(PROTOCOL),
)
simple(
    "6.9 WINDOW_UPDATE of 0", lambda p: window_update(0, 0), fails_connection(PROTOCOL)
)
simple(
    "6.9 WINDOW_UPDATE of 0 for a stream",
    lambda p: [p.open(), window_update(1, 0)],
    lambda p: p.either_error(PROTOCOL),
)
simple(
    "6.9 WINDOW_UPDATE of 3 bytes",
    lambda p: frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"),
    fails_connection(SIZE),
)


@case("6.9.1 a window of one byte")
def _(peer):
    peer.greet({4: 1})
    peer.send(peer.headers())
    assert len(peer.until(lambda f: f.type == DATA).payload) == 1
    peer.send(window_update(1, len(BODY)))
    peer.answer(body=BODY[1:])


simple(
    "6.9.1 the connection's window past 2^31 - 1",
    lambda p: [window_update(0, 0x7FFFFFFF)] * 2,
    fails_connection(FLOW),
)
simple(
    "6.9.1 a stream's window past 2^31 - 1",  # a connection error since nghttp2 1.70
    lambda p: [p.open(), *[window_update(1, 0x7FFFFFFF)] * 2],
    lambda p: p.either_error(FLOW),
)


@case("6.9.2 INITIAL_WINDOW_SIZE changes after HEADERS")
def _(peer):
    peer.greet({4: 0})
    peer.send(peer.headers())
    peer.until(lambda f: f.type == HEADERS)
    peer.alive()
    assert not [f for f in peer.seen if f.type == DATA]
    peer.send(settings({4: 1}))
    assert len(peer.until(lambda f: f.type == DATA).payload) == 1


@case("6.9.2 a window that becomes negative")
def _(peer):
    peer.greet({4: 3})
    peer.send(peer.headers())
    assert len(peer.until(lambda f: f.type == DATA).payload) == 3
    peer.send(settings({4: 2}), window_update(1, 1))
    peer.alive()
    assert len([f for f in peer.seen if f.type == DATA]) == 1
    peer.send(window_update(1, 1))
    assert len(peer.until(lambda f: f.type == DATA).payload) == 1


@case("6.9.2 INITIAL_WINDOW_SIZE that makes a window too large")
def _(peer):
    peer.greet()
    peer.send(peer.open(), window_update(1, 1 << 30), settings({4: 0x7FFFFFFF}))
    peer.connection_error(FLOW)


simple(
    "6.10 HEADERS among CONTINUATIONs",
    lambda p: [*halves(p, n=3)[:2], p.headers(3)],
    fails_connection(PROTOCOL),
)
simple(
    "6.10 DATA among CONTINUATIONs",
    lambda p: [*halves(p, n=3)[:2], data(1, b"x")],
    fails_connection(PROTOCOL),
)
simple(
    "6.10 CONTINUATION on stream 0",
    lambda p: [halves(p)[0], frame(CONTINUATION, END_HEADERS, 0, b"")],
    fails_connection(PROTOCOL),
)
simple(
    "6.10 CONTINUATION after END_HEADERS",
    lambda p: [p.open(), frame(CONTINUATION, END_HEADERS, 1, p.block(TRAILERS))],
    fails_connection(PROTOCOL),
)
simple(
    "6.10 CONTINUATION after a last CONTINUATION",
    lambda p: [
        *halves(p, first=0),
        frame(CONTINUATION, END_HEADERS, 1, p.block(TRAILERS)),
    ],
    fails_connection(PROTOCOL),
)
simple(
    "6.10 CONTINUATION after DATA",
    lambda p: [
        p.open(),
        data(1, b"x"),
        frame(CONTINUATION, END_HEADERS, 1, p.block(TRAILERS)),
    ],
    fails_connection(PROTOCOL),
)

# -- 7 and 8 --

simple(
    "7 GOAWAY with an unknown code",
    lambda p: [p.open(), goaway(0, 0xFF), data(1, b"x", end_stream=True)],
    answers(),
)
simple(
    "7 RST_STREAM with an unknown code",
    lambda p: [p.open(), rst_stream(1, 0xFF)],
    lives,
)
MALFORMED = fails_stream(PROTOCOL)
simple(
    "8.1 a second HEADERS without END_STREAM",
    lambda p: [p.open(), p.open(1, TRAILERS)],
    lambda p: p.either_error(PROTOCOL),
)
simple(
    "8.1 a second HEADERS with pseudo-header fields",
    lambda p: [p.open(), p.headers(1, GET)],
    MALFORMED,
)
METHOD, SCHEME, PATH, AUTHORITY_FIELD = GET
for name, fields in {
    "8.2.1 a name in upper case": (*GET, (b"X-TEST", b"1")),
    "8.2.1 a value with a line feed": (*GET, (b"x", b"a\nb")),
    "8.2.1 a value with a leading space": (*GET, (b"x", b" a")),
    "8.2.2 connection": (*GET, (b"connection", b"keep-alive")),
    "8.2.2 keep-alive": (*GET, (b"keep-alive", b"5")),
    "8.2.2 transfer-encoding": (*GET, (b"transfer-encoding", b"chunked")),
    "8.2.2 te that is not trailers": (*GET, (b"te", b"trailers, deflate")),
    "8.3 an unknown pseudo-header field": (*GET, (b":test", b"ok")),
    "8.3 a response's pseudo-header field": (*GET, (b":status", b"200")),
    "8.3 a pseudo-header field after others": (*GET[:3], (b"x", b"1"), GET[3]),
    "8.3.1 :path is empty": (METHOD, SCHEME, (b":path", b""), AUTHORITY_FIELD),
    "8.3.1 no :method": GET[1:],
    "8.3.1 no :scheme": (METHOD, PATH, AUTHORITY_FIELD),
    "8.3.1 no :path": (METHOD, SCHEME, AUTHORITY_FIELD),
    "8.3.1 two :method": (METHOD, *GET),
    "8.3.1 two :scheme": (METHOD, SCHEME, *GET[1:]),
    "8.3.1 two :path": (*GET[:3], PATH, AUTHORITY_FIELD),
    "8.5 CONNECT with :path": ((b":method", b"CONNECT"), PATH, AUTHORITY_FIELD),
}.items():
    simple(name, lambda p, f=fields: p.headers(1, f), MALFORMED)
simple(
    "8.3 a pseudo-header field in trailers",
    lambda p: [p.open(), data(1, b"x"), p.headers(1, [(b":method", b"GET")])],
    MALFORMED,
)
LONGER = (*POST, (b"content-length", b"1"))
simple(
    "8.1.1 content-length that differs from DATA",
    lambda p: [p.open(1, LONGER), data(1, b"test", end_stream=True)],
    MALFORMED,
)
simple(
    "8.1.1 content-length that differs from several DATA",
    lambda p: [p.open(1, LONGER), data(1, b"te"), data(1, b"st", end_stream=True)],
    MALFORMED,
)
simple(
    "8.1.1 content-length without DATA",
    lambda p: p.headers(1, LONGER),
    MALFORMED,
)
simple(
    "8.4 PUSH_PROMISE of a client",
    lambda p: [
        p.open(),
        frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + p.block(GET)),
    ],
    fails_connection(PROTOCOL),
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("kind", ["HTTP2Server", "start_server"])
def test_a_server_does_what_the_rfc_says(servers, kind, tls, name):
    address = ("127.0.0.1", servers.ports[kind, tls])
    with socket.create_connection(address, DEADLINE) as sock:
        if not tls:
            CASES[name](Peer(sock))
            return
        with servers.client.wrap_socket(sock, server_hostname="127.0.0.1") as wrapped:
            CASES[name](Peer(wrapped))
