"""WebSocket without I/O: the kinds of cases that Autobahn|Testsuite has, and limits."""

from __future__ import annotations

import functools
import inspect
import os
import zlib

import pytest
from ws_frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Reader,
    close,
    deflated,
    fragments,
    frame,
)

from nghttp2py.errors import ConfigurationError, StreamStateError
from nghttp2py.h2.events import RequestReceived
from nghttp2py.websocket import (
    Closed,
    Handshake,
    MessageReceived,
    PingReceived,
    PongReceived,
    Refusal,
    WebSocketConnection,
    WebSocketOptions,
    is_available,
    read_handshake,
)


def for_each(**values):
    """Run a test with each of these values of an argument: one test, not many."""
    ((name, choices),) = values.items()

    def decorate(test):
        signature = inspect.signature(test)
        others = [p for p in signature.parameters.values() if p.name != name]

        @functools.wraps(test)
        def run(**arguments):
            for choice in choices:
                test(**arguments, **{name: choice})

        run.__signature__ = signature.replace(parameters=others)
        return run

    return decorate


chunks = for_each(chunk=[1, 7, 1 << 20])


class Peer:
    """A client made of raw frames, and the server that it talks to."""

    def __init__(self, extensions=(), **options):
        self.server = WebSocketConnection(
            WebSocketOptions(**options), extensions=extensions
        )
        self.reader = Reader()

    def send(self, data, chunk=1 << 20):
        """Send bytes in chunks; return the events and the frames that answer them."""
        events, frames = [], []
        for at in range(0, len(data), chunk):
            events += self.server.receive_data(data[at : at + chunk])
            frames += self.flush()
        return events, frames

    def flush(self):
        return self.reader.feed(self.server.data_to_send())


def messages(events):
    return [event.data for event in events if isinstance(event, MessageReceived)]


def assert_failed(events, frames, code, before=()):
    """The connection has failed with ``code``, after some messages."""
    *others, end = events
    assert messages(others) == list(before)
    assert isinstance(end, Closed) and not end.remote and end.code == code
    assert frames[-1].opcode == CLOSE and frames[-1].code == code
    assert end.reason == frames[-1].reason


# ---- 1: messages of all sizes, whose length has three forms ----

SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536]


@for_each(size=SIZES)
@for_each(opcode=[TEXT, BINARY])
@for_each(chunk=[997, 1 << 20])
def test_a_message_is_received_whole(size, opcode, chunk):
    data = b"*" * size
    events, frames = Peer().send(frame(opcode, data), chunk)
    assert events == [MessageReceived(data.decode() if opcode == TEXT else data)]
    assert not frames


@for_each(size=SIZES)
@for_each(kind=["text", "binary"])
def test_a_message_is_sent_in_one_frame_of_the_shortest_form(size, kind):
    peer = Peer()
    peer.server.send_message("*" * size if kind == "text" else b"*" * size)
    assert peer.flush() == [(TEXT if kind == "text" else BINARY, b"*" * size, True, 0)]


@chunks
def test_messages_in_one_read_are_received_in_order(chunk):
    data = b"".join(frame(BINARY, b"%d" % i) for i in range(50))
    events, _ = Peer().send(data, chunk)
    assert messages(events) == [b"%d" % i for i in range(50)]


@pytest.mark.parametrize(("size", "bits"), [(5, 16), (5, 64), (125, 64), (126, 64)])
def test_a_length_in_a_longer_form_is_understood(size, bits):
    events, _ = Peer().send(frame(BINARY, b"*" * size, bits=bits), 1)
    assert messages(events) == [b"*" * size]


@for_each(kind=[bytes, bytearray, memoryview])
def test_any_object_of_bytes_is_sent_as_binary_data(kind):
    peer = Peer()
    peer.server.send_message(kind(b"\0\xff"))
    assert peer.flush() == [(BINARY, b"\0\xff", True, 0)]


# ---- 2: pings and pongs ----


@chunks
@pytest.mark.parametrize("data", [b"", b"Hello", b"\0\xff\xfe\xfd", b"\xfe" * 125])
def test_a_ping_is_answered_with_its_data(data, chunk):
    events, frames = Peer().send(frame(PING, data), chunk)
    assert events == [PingReceived(data)]
    assert frames == [(PONG, data, True, 0)]


@chunks
@for_each(opcode=[PING, PONG, CLOSE])
@pytest.mark.parametrize(("size", "bits"), [(126, 16), (125, 64), (70000, 64)])
def test_a_control_frame_that_is_too_long_fails(opcode, size, bits, chunk):
    peer = Peer()
    payload = b"\x03\xe8" + b"*" * (size - 2)
    if size == 125:
        # Short enough, in a form that is too long: it may be understood.
        events, _ = peer.send(frame(opcode, payload, bits=bits), chunk)
        assert len(events) == 1
    else:
        data = frame(opcode, payload, bits=bits)
        assert_failed(*peer.send(data, max(chunk, size // 10)), 1002)


@chunks
@pytest.mark.parametrize("data", [b"", b"unsolicited"])
def test_an_unsolicited_pong_is_not_answered(data, chunk):
    events, frames = Peer().send(frame(PONG, data) + frame(PING, b"x"), chunk)
    assert events == [PongReceived(data), PingReceived(b"x")]
    assert frames == [(PONG, b"x", True, 0)]


@for_each(chunk=[1, 1000])
def test_ten_pings_are_answered_in_order(chunk):
    data = b"".join(frame(PING, b"payload-%d" % i) for i in range(10))
    _, frames = Peer().send(data, chunk)
    assert [f.data for f in frames] == [b"payload-%d" % i for i in range(10)]


def test_a_ping_of_ours_goes_out_and_its_pong_is_reported():
    peer = Peer()
    peer.server.send_ping(b"1234")
    assert peer.flush() == [(PING, b"1234", True, 0)]
    assert peer.send(frame(PONG, b"1234"))[0] == [PongReceived(b"1234")]
    with pytest.raises(ValueError, match="125 bytes, not 126"):
        peer.server.send_ping(b"*" * 126)


# ---- 3: reserved bits ----

RESERVED = [bits << 4 for bits in range(1, 8)]


@for_each(rsv=RESERVED)
@for_each(opcode=[TEXT, BINARY, PING, PONG, CLOSE])
@for_each(chunk=[1, 1000])
def test_a_reserved_bit_fails(rsv, opcode, chunk):
    data = frame(TEXT, "Hello") + frame(opcode, b"\x03\xe8", rsv=rsv)
    data += frame(PING)
    events, frames = Peer().send(data, chunk)
    assert_failed(events, frames, 1002, ["Hello"])
    assert len(frames) == 1  # the ping after it is not answered


# ---- 4: opcodes ----


@for_each(opcode=[3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@for_each(payload=[b"", b"Hello"])
@for_each(chunk=[1, 1000])
def test_an_opcode_without_a_meaning_fails(opcode, payload, chunk):
    data = frame(TEXT, "Hello") + frame(opcode, payload) + frame(PING)
    assert_failed(*Peer().send(data, chunk), 1002, ["Hello"])


@for_each(opcode=[TEXT, BINARY, PING, CLOSE])
def test_a_client_that_does_not_mask_its_frames_fails(opcode):
    assert_failed(*Peer().send(frame(opcode, b"\x03\xe8", mask=None)), 1002)


def test_a_server_that_masks_its_frames_fails():
    client = WebSocketConnection(client_side=True)
    (end,) = client.receive_data(frame(TEXT, "Hello"))
    assert (end.code, end.remote) == (1002, False)
    (answer,) = Reader(masks=True).feed(client.data_to_send())
    assert answer.code == 1002


# ---- 5: fragments ----

CUTS = [
    [b"fragment1", b"fragment2"],
    [b"", b"", b""],
    [b"", b"middle", b""],
    [b"f", b"r", b"a", b"g", b"m", b"e", b"n", b"t"],
]


@chunks
@for_each(pieces=CUTS)
@for_each(opcode=[TEXT, BINARY])
def test_fragments_become_one_message(pieces, opcode, chunk):
    events, _ = Peer().send(fragments(opcode, pieces), chunk)
    whole = b"".join(pieces)
    assert messages(events) == [whole.decode() if opcode == TEXT else whole]


@chunks
def test_pings_between_fragments_are_answered_before_the_message_ends(chunk):
    peer = Peer()
    pieces = [
        frame(TEXT, "frag", fin=False),
        *(frame(PING, b"%d" % i) for i in range(10)),
        frame(CONT, "ment", fin=False),
        frame(PONG, b"pong"),
        frame(CONT, ""),
    ]
    events, frames = peer.send(b"".join(pieces), chunk)
    assert messages(events) == ["fragment"]
    assert isinstance(events[-1], MessageReceived)
    assert [f.data for f in frames] == [b"%d" % i for i in range(10)]


@chunks
@for_each(opcode=[PING, PONG, CLOSE])
def test_a_fragmented_control_frame_fails(opcode, chunk):
    data = frame(opcode, b"\x03\xe8", fin=False) + frame(CONT, b"")
    assert_failed(*Peer().send(data, chunk), 1002)


@chunks
@for_each(fin=[True, False])
@for_each(before=[b"", frame(TEXT, "Hello")])
def test_a_continuation_of_nothing_fails(fin, before, chunk):
    data = before + frame(CONT, b"x", fin=fin) + frame(TEXT, "Hello")
    assert_failed(*Peer().send(data, chunk), 1002, ["Hello"] if before else [])


@chunks
@for_each(first=[TEXT, BINARY])
@for_each(second=[TEXT, BINARY])
def test_a_new_message_between_fragments_fails(first, second, chunk):
    data = frame(first, b"a", fin=False) + frame(second, b"b")
    assert_failed(*Peer().send(data, chunk), 1002)


@chunks
def test_fragments_of_several_messages_are_kept_apart(chunk):
    data = fragments(TEXT, [b"a", b"b"]) + frame(BINARY, b"c")
    data += fragments(BINARY, [b"\xff", b"\xfe"]) + fragments(TEXT, [b"d", b""])
    assert messages(Peer().send(data, chunk)[0]) == ["ab", b"c", b"\xff\xfe", "d"]


# ---- 6: UTF-8 ----

VALID = [
    "",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\0",
    "\x7f\x80",
    "\u07ff\u0800",
    "\uffff\U00010000",
    "\U0010ffff",
    "\ud7ff\ue000",
    "\ufffe\ufdd0\U0001fffe\U0010fffe",  # noncharacters are characters
    "\ufeffBOM",
]
INVALID = [
    b"\x80",
    b"\xbf\x80",
    b"\xc3",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\xf0\x90\x80",
    b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
]


@chunks
@for_each(text=VALID)
def test_valid_text_is_received(text, chunk):
    assert messages(Peer().send(frame(TEXT, text), chunk)[0]) == [text]


@for_each(text=VALID)
def test_valid_text_in_fragments_of_one_octet_is_received(text):
    data = text.encode()
    pieces = [data[i : i + 1] for i in range(len(data))] or [b""]
    assert messages(Peer().send(fragments(TEXT, pieces))[0]) == [text]


@chunks
@pytest.mark.parametrize("data", INVALID)
@for_each(prefix=[b"", b"good "])
def test_invalid_text_fails(data, prefix, chunk):
    frames = frame(TEXT, prefix + data) + frame(PING) + frame(TEXT, "never")
    assert_failed(*Peer().send(frames, chunk), 1007)


@pytest.mark.parametrize("data", INVALID)
@for_each(chunk=[1, 1000])
def test_invalid_text_in_fragments_fails(data, chunk):
    pieces = [b"good ", *(data[i : i + 1] for i in range(len(data))), b""]
    # As soon as it is known: what follows is not read.
    text = fragments(TEXT, pieces) + frame(TEXT, "never")
    assert_failed(*Peer().send(text, chunk), 1007)


def test_invalid_text_fails_with_the_first_fragment_that_shows_it():
    peer = Peer()
    assert peer.send(frame(TEXT, b"\xce\xba\xe1", fin=False)) == ([], [])
    assert_failed(*peer.send(frame(CONT, b"\x41", fin=False)), 1007)


def test_a_character_that_the_last_fragment_leaves_open_fails():
    data = fragments(TEXT, [b"\xce\xba", b"\xe1\xbd"])
    assert_failed(*Peer().send(data), 1007)


def test_a_close_in_the_same_read_as_invalid_text_comes_too_late():
    data = frame(TEXT, b"\xff") + close(1000)
    events, frames = Peer().send(data)
    assert_failed(events, frames, 1007)
    assert len(frames) == 1


def test_binary_data_need_not_be_text():
    assert messages(Peer().send(frame(BINARY, b"\xff\xfe"))[0]) == [b"\xff\xfe"]


# ---- 7: closing ----

GOOD_CODES = [
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
    *(3000, 3999, 4000, 4999),
]
BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@chunks
@pytest.mark.parametrize("code", GOOD_CODES)
def test_a_close_is_answered_with_its_code(code, chunk):
    peer = Peer()
    events, frames = peer.send(frame(TEXT, "x") + close(code, "Ende ä"), chunk)
    assert events == [MessageReceived("x"), Closed(code, "Ende ä", True)]
    assert [(f.opcode, f.code) for f in frames] == [(CLOSE, code)]
    assert peer.server.output_ended and not peer.server.is_open


@for_each(chunk=[1, 1000])
@pytest.mark.parametrize("code", BAD_CODES)
@for_each(reason=["", "reason"])
def test_a_close_code_that_must_not_be_sent_fails(code, reason, chunk):
    peer = Peer()
    assert_failed(*peer.send(close(code, reason), chunk), 1002)
    assert peer.server.output_ended


@chunks
def test_a_close_without_a_code_is_1005(chunk):
    peer = Peer()
    events, frames = peer.send(close(), chunk)
    assert events == [Closed(1005, "", True)]
    assert [(f.opcode, f.data) for f in frames] == [(CLOSE, b"")]
    assert peer.server.output_ended


def test_a_close_with_half_a_code_fails():
    assert_failed(*Peer().send(frame(CLOSE, b"\x03")), 1002)


@for_each(size=[0, 1, 122, 123])
def test_a_reason_may_have_123_octets(size):
    events, _ = Peer().send(close(1000, "*" * size))
    assert events == [Closed(1000, "*" * size, True)]


def test_a_reason_of_124_octets_fails():
    assert_failed(*Peer().send(close(1000, "*" * 124)), 1002)


@pytest.mark.parametrize("data", INVALID)
def test_a_reason_that_is_no_utf_8_fails(data):
    assert_failed(*Peer().send(close(1000, data)), 1007)


@chunks
@pytest.mark.parametrize(
    "after", [frame(TEXT, "late"), frame(PING), close(1001), close(999), b"\xff" * 9]
)
def test_what_follows_a_close_is_ignored(after, chunk):
    peer = Peer()
    events, frames = peer.send(close(1000) + after, chunk)
    assert events == [Closed(1000, "", True)]
    assert [f.code for f in frames] == [1000]
    assert peer.server.receive_eof() == []


@chunks
def test_a_close_between_fragments_is_a_good_end(chunk):
    data = frame(TEXT, "frag", fin=False) + close(1000) + frame(CONT, "ment")
    events, frames = Peer().send(data, chunk)
    assert events == [Closed(1000, "", True)]
    assert [f.code for f in frames] == [1000]


def test_a_close_of_ours_waits_for_the_peer_s():
    peer = Peer()
    peer.server.close(4001, "grüße")
    (sent,) = peer.flush()
    assert (sent.opcode, sent.code, sent.reason) == (CLOSE, 4001, "grüße")
    assert not peer.server.is_open and not peer.server.output_ended
    # What the client has sent before it saw that is received.
    events, frames = peer.send(frame(TEXT, "x") + frame(PING, b"y") + close(4001))
    assert events == [MessageReceived("x"), PingReceived(b"y"), Closed(4001, "", True)]
    assert [f.opcode for f in frames] == [PONG]
    assert peer.server.output_ended


def test_both_may_close_at_once():
    peer = Peer()
    peer.server.close(1001)
    events, frames = peer.send(close(1000))
    assert events == [Closed(1000, "", True)]
    assert [f.code for f in frames] == [1001]
    assert peer.server.output_ended


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("rest", [b"", frame(TEXT, "x" * 200)[:50]])
def test_an_end_of_the_stream_without_a_close_is_1006(closing, rest):
    peer = Peer()
    if closing:
        peer.server.close()
    peer.send(rest)
    assert peer.server.receive_eof() == [Closed(1006, "", False)]
    peer.server.data_to_send()
    assert peer.server.output_ended and not peer.server.is_open
    assert peer.server.receive_eof() == []
    assert peer.server.receive_data(b"x") == []


@pytest.mark.parametrize("code", [*BAD_CODES, "1000", None, -1])
def test_we_cannot_send_a_code_that_must_not_be_sent(code):
    peer = Peer()
    for call in peer.server.close, peer.server.fail:
        with pytest.raises(ValueError, match=f"not {code!r} "):
            call(code)
    assert peer.server.is_open and peer.flush() == []


@for_each(reason=["ä" * 62, b"bytes", None])
def test_we_cannot_send_a_reason_that_is_no_short_text(reason):
    with pytest.raises(ValueError, match="at most 123 bytes"):
        Peer().server.close(1000, reason)


@pytest.mark.parametrize("end", ["close", "fail", "peer", "eof"])
def test_nothing_is_sent_after_the_end(end):
    peer = Peer()
    if end == "peer":
        peer.send(close(1000))
    elif end == "eof":
        peer.server.receive_eof()
    else:
        getattr(peer.server, end)(1000)
    peer.flush()
    for call in peer.server.send_message, peer.server.send_ping:
        with pytest.raises(StreamStateError):
            call(b"x")
    # Whatever ends it is a no-op now.
    peer.server.close(1000)
    assert peer.flush() == []
    peer.server.fail(1000)
    assert peer.flush() == []


def test_fail_does_not_wait_for_the_peer():
    peer = Peer()
    peer.server.fail(1011, "no pong")
    (sent,) = peer.flush()
    assert (sent.code, sent.reason) == (1011, "no pong")
    assert peer.server.output_ended
    assert peer.send(frame(TEXT, "late") + close(1011)) == ([], [])


# ---- 9: limits ----


@for_each(pieces=[1, 2, 10])
@for_each(opcode=[TEXT, BINARY])
@for_each(chunk=[33, 1 << 20])
def test_a_message_of_the_largest_size_is_received(pieces, opcode, chunk):
    data = fragments(opcode, [b"*" * (1000 // pieces)] * pieces)
    events, _ = Peer(max_message_size=1000).send(data, chunk)
    assert [len(message) for message in messages(events)] == [1000]


@pytest.mark.parametrize("pieces", [[1001], [1000, 1], [500, 501, 500], [2000, 2000]])
@for_each(opcode=[TEXT, BINARY])
@for_each(chunk=[33, 1 << 20])
def test_a_message_that_is_too_large_fails(pieces, opcode, chunk):
    data = fragments(opcode, [b"*" * size for size in pieces])
    assert_failed(*Peer(max_message_size=1000).send(data, chunk), 1009)


def test_a_frame_that_is_too_large_fails_at_its_head():
    head = frame(BINARY, b"", bits=64)[:2] + (1 << 62).to_bytes(8, "big")
    assert_failed(*Peer().send(head), 1009)


def test_small_fragments_need_no_more_memory_than_their_octets():
    peer = Peer()
    peer.send(frame(BINARY, b"", fin=False))
    one = frame(CONT, b"x", fin=False) * 1000
    for _ in range(20):
        peer.send(one)
    events, _ = peer.send(frame(CONT, b""))
    assert messages(events) == [b"x" * 20_000]


def test_how_much_of_a_large_message_is_missing_is_known():
    server = WebSocketConnection()
    data = frame(BINARY, b"*" * 70_000)
    assert server.missing == 0
    assert server.receive_data(data[:1]) == []
    assert server.missing == 0
    for at in (1, 5, 14, 20_000, 69_999):
        assert server.receive_data(data[at : at + 1]) == []
        server = WebSocketConnection()
        assert server.receive_data(data[: at + 14]) == []
        assert server.missing == len(data) - at - 14
    assert messages(server.receive_data(data[70_013:])) == [b"*" * 70_000]


# ---- The opening handshake ----

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
CONNECT = [(b"sec-websocket-version", b"13")]
GET = [*CONNECT, (b"sec-websocket-key", KEY)]


def request(fields, version="2"):
    method = b"GET" if version == "1.1" else b"CONNECT"
    return RequestReceived(method, b"/", fields, version, protocol=b"websocket")


forms = pytest.mark.parametrize(
    ("version", "fields"), [("1.1", GET), ("2", CONNECT), ("3", CONNECT)]
)


@forms
def test_a_handshake_of_each_form_is_accepted(version, fields):
    handshake = read_handshake(request(fields, version))
    assert isinstance(handshake, Handshake)
    accepted = handshake.accept()
    answer = ((b"sec-websocket-accept", ACCEPT),) if version == "1.1" else ()
    assert (accepted.fields, accepted.extensions) == (answer, ())


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
def test_a_key_is_answered_in_every_version(version):
    accepted = read_handshake(request(GET, version)).accept()
    assert accepted.fields == ((b"sec-websocket-accept", ACCEPT),)


@forms
@pytest.mark.parametrize("values", [[], [b"12"], [b"14"], [b"13", b"13"], [b"8, 13"]])
def test_another_version_of_websocket_is_refused_with_ours(version, fields, values):
    fields = [field for field in fields if field[0] != b"sec-websocket-version"]
    fields += [(b"sec-websocket-version", value) for value in values]
    refusal = read_handshake(request(fields, version))
    assert isinstance(refusal, Refusal) and refusal.status == 400
    assert refusal.fields == ((b"sec-websocket-version", b"13"),)


@pytest.mark.parametrize(
    "keys", [[], [b""], [b"short"], [KEY, KEY], [KEY[:-4]], [b"\xff" * 24], [b"=" * 24]]
)
def test_an_upgrade_needs_one_key(keys):
    fields = CONNECT + [(b"sec-websocket-key", key) for key in keys]
    refusal = read_handshake(request(fields, "1.1"))
    assert isinstance(refusal, Refusal) and refusal.status == 400


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([b""], ()),
        ([b"chat"], ("chat",)),
        ([b"chat, superchat"], ("chat", "superchat")),
        ([b"a,b", b"c ,, d"], ("a", "b", "c", "d")),
    ],
)
def test_subprotocols_are_those_of_all_fields(values, expected):
    fields = CONNECT + [(b"sec-websocket-protocol", value) for value in values]
    assert read_handshake(request(fields)).subprotocols == expected


def test_a_subprotocol_that_the_client_offers_can_be_chosen():
    fields = [*CONNECT, (b"sec-websocket-protocol", b"a, b")]
    handshake = read_handshake(request(fields))
    assert handshake.accept("b").fields == ((b"sec-websocket-protocol", b"b"),)
    with pytest.raises(ValueError, match=r"offers the subprotocols \['a', 'b'\], not"):
        handshake.accept("c")


# ---- 12 and 13: compression ----

OFFERS = [
    # offer, options, answer
    (b"permessage-deflate", {}, b"permessage-deflate; server_max_window_bits=12"),
    (
        b"permessage-deflate; client_max_window_bits",
        {},
        b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
    ),
    (
        b"permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
        {"server_max_window_bits": 15, "client_max_window_bits": 15},
        b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
    ),
    (
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        {"server_max_window_bits": 15},
        b"permessage-deflate; server_no_context_takeover; "
        b"client_no_context_takeover; server_max_window_bits=15",
    ),
    (
        b"permessage-deflate",
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        b"permessage-deflate; server_no_context_takeover; "
        b"client_no_context_takeover; server_max_window_bits=12",
    ),
    # The second of two offers, if the first cannot be met.
    (
        b"permessage-deflate; server_max_window_bits=8, permessage-deflate",
        {},
        b"permessage-deflate; server_max_window_bits=12",
    ),
    (b"x-webkit-deflate-frame, permessage-deflate; unknown", {}, None),
    (b"permessage-deflate; server_max_window_bits=16", {}, None),
    (b"permessage-deflate; client_max_window_bits=7", {}, None),
    (b"permessage-deflate; server_no_context_takeover=1", {}, None),
    (b"permessage-deflate", {"per_message_deflate": False}, None),
    (b"permessage-bzip2", {}, None),
]


def deflating(offer=b"permessage-deflate; client_max_window_bits", **options):
    """A peer whose server has agreed to compress, and what was agreed."""
    fields = [*CONNECT, (b"sec-websocket-extensions", offer)]
    accepted = read_handshake(request(fields)).accept(None, WebSocketOptions(**options))
    peer = Peer(accepted.extensions, **options)
    return peer, dict(accepted.fields).get(b"sec-websocket-extensions")


@pytest.mark.parametrize(("offer", "options", "answer"), OFFERS)
def test_compression_is_negotiated(offer, options, answer):
    assert deflating(offer, **options)[1] == answer


def test_offers_in_several_fields_are_read():
    fields = [*CONNECT, (b"sec-websocket-extensions", b"foo")]
    fields.append((b"sec-websocket-extensions", b"permessage-deflate"))
    accepted = read_handshake(request(fields)).accept()
    assert len(accepted.extensions) == 1


@pytest.mark.parametrize("offer", [b"permessage-deflate;", b"a b", b"\xff", b"a; b==c"])
def test_offers_that_are_malformed_are_refused(offer):
    fields = [*CONNECT, (b"sec-websocket-extensions", offer)]
    assert read_handshake(request(fields)).status == 400


class Deflate:
    """The client's half of compression, whose windows outlive messages."""

    def __init__(self, bits=12):
        self.deflater = zlib.compressobj(wbits=-bits)
        self.inflater = zlib.decompressobj(wbits=-15)

    def compress(self, data):
        data = self.deflater.compress(data)
        return (data + self.deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def inflate(self, data):
        return self.inflater.decompress(data + b"\0\0\xff\xff")


@for_each(size=[0, 1, 16, 125, 1000, 65536, 200_000])
@for_each(kind=["equal", "random"])
@for_each(bits=[9, 12, 15])
def test_compressed_messages_go_both_ways(size, kind, bits):
    peer, _ = deflating(server_max_window_bits=bits, client_max_window_bits=bits)
    client = Deflate(bits)
    for _ in range(3):  # with context takeover
        data = b"*" * size if kind == "equal" else os.urandom(size)
        events, _ = peer.send(frame(BINARY, client.compress(data), rsv=RSV1), 50_000)
        assert messages(events) == [data]
        peer.server.send_message(data)
        (sent,) = peer.flush()
        assert (sent.opcode, sent.rsv) == (BINARY, RSV1)
        assert client.inflate(sent.data) == data


def test_without_context_takeover_each_message_has_a_new_window():
    peer, _ = deflating(
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    )
    sent = []
    for _ in range(3):
        events, _ = peer.send(frame(TEXT, deflated("Hello " * 9), rsv=RSV1))
        assert messages(events) == ["Hello " * 9]
        peer.server.send_message("Hello " * 9)
        sent += [Deflate().inflate(f.data) for f in peer.flush()]
    assert sent == [b"Hello " * 9] * 3


@chunks
def test_a_compressed_message_may_come_in_fragments(chunk):
    peer, _ = deflating()
    data = Deflate().compress(b"fragments " * 20)
    pieces = [data[:3], b"", data[3:9], data[9:]]
    frames = b"".join(
        frame(CONT if i else TEXT, piece, fin=i == 3, rsv=0 if i else RSV1)
        for i, piece in enumerate(pieces)
    )
    events, _ = peer.send(frames, chunk)
    assert messages(events) == ["fragments " * 20]


def test_a_message_that_is_not_compressed_is_understood():
    peer, _ = deflating()
    client = Deflate()
    data = frame(TEXT, "plain") + frame(TEXT, client.compress(b"small"), rsv=RSV1)
    data += frame(TEXT, "plain") + frame(TEXT, client.compress(b"small"), rsv=RSV1)
    assert messages(peer.send(data)[0]) == ["plain", "small"] * 2


def test_a_block_with_bfinal_may_end_a_message():
    """RFC 7692, 7.2.3.4: the example, twice, and the next ones still come."""
    peer, _ = deflating()
    hello = bytes.fromhex("f348cdc9c9070000")
    data = frame(TEXT, hello, rsv=RSV1) * 2
    data += frame(TEXT, deflated("Hello", final=True), rsv=RSV1)
    data += frame(TEXT, Deflate().compress(b"Hello"), rsv=RSV1)
    assert messages(peer.send(data)[0]) == ["Hello"] * 4


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xff\xff\xff", rsv=RSV1),  # no DEFLATE
        frame(TEXT, deflated("x"), rsv=RSV1 | RSV2),
        frame(TEXT, deflated("x"), rsv=RSV3),
        frame(PING, b"x", rsv=RSV1),
        frame(TEXT, deflated("x"), rsv=RSV1, fin=False) + frame(CONT, b"", rsv=RSV1),
        frame(CONT, b"", rsv=RSV1),
    ],
)
@chunks
def test_wrong_compression_fails(data, chunk):
    assert_failed(*deflating()[0].send(data, chunk), 1002)


def test_text_is_checked_after_it_was_inflated():
    data = frame(TEXT, deflated(b"\xff"), rsv=RSV1)
    assert_failed(*deflating()[0].send(data), 1007)


@for_each(size=[1000, 1001, 10_000_000])
@for_each(kind=["equal", "random"])
@pytest.mark.parametrize("cuts", [1, 2])
def test_the_limit_counts_what_was_inflated(size, kind, cuts):
    peer, _ = deflating(max_message_size=1000)
    data = b"*" * size if kind == "equal" else os.urandom(min(size, 2000))
    data = deflated(data, bits=12)
    middle = len(data) // cuts if cuts > 1 else len(data)
    frames = frame(BINARY, data[:middle], rsv=RSV1, fin=cuts == 1)
    if cuts > 1:
        frames += frame(CONT, data[middle:])
    events, answers = peer.send(frames)
    if size == 1000:
        assert [len(message) for message in messages(events)] == [1000]
    else:
        assert_failed(events, answers, 1009)


# ---- Both ends ----


def test_client_and_server_talk():
    client, server = WebSocketConnection(client_side=True), WebSocketConnection()
    client.send_message("Hello")
    client.send_ping(b"1")
    assert server.receive_data(client.data_to_send()) == [
        MessageReceived("Hello"),
        PingReceived(b"1"),
    ]
    assert client.receive_data(server.data_to_send()) == [PongReceived(b"1")]
    client.close(1001, "bye")
    assert server.receive_data(client.data_to_send()) == [Closed(1001, "bye", True)]
    assert client.receive_data(server.data_to_send()) == [Closed(1001, "bye", True)]
    # The server ends the stream first (RFC 6455, 7.1.1).
    assert server.output_ended and not client.output_ended
    assert client.receive_eof() == []
    client.data_to_send()
    assert client.output_ended


def test_a_server_that_ends_without_a_close_is_1006_to_its_client():
    client = WebSocketConnection(client_side=True)
    assert client.receive_eof() == [Closed(1006, "", False)]


# ---- Options ----


@pytest.mark.parametrize(
    "options",
    [
        {"max_message_size": 0},
        {"max_queue": 0},
        {"max_queue_bytes": -1},
        {"ping_interval": 0},
        {"ping_timeout": -1.0},
        {"close_timeout": 0},
        {"server_max_window_bits": 8},
        {"client_max_window_bits": 16},
    ],
)
def test_options_that_cannot_be_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=rf"^{name} .*, not {value}"):
        WebSocketOptions(**options)


def test_the_package_that_it_needs_is_there():
    assert is_available()
