"""What the peer does wrong closes the connection, with this code and phrase."""

import pytest
from fake_quic import (
    REQUEST,
    RESPONSE,
    DatagramFrameReceived,
    FakeQuic,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from nghttp2py.h3 import H3Configuration, QPACKEncoder
from nghttp2py.h3.connection import (
    ErrorCode,
    FrameType,
    H3Connection,
    Setting,
    encode_frame,
    encode_settings,
)

SETTINGS = encode_frame(FrameType.SETTINGS, encode_settings({Setting.DUMMY: 1}))
CLIENT, SERVER = True, False


def headers(fields):
    return encode_frame(FrameType.HEADERS, QPACKEncoder().encode(0, fields))


def settings(values):
    return encode_frame(FrameType.SETTINGS, encode_settings(values))


def control(*frames, first=SETTINGS):
    return [(3, b"\0" + first + b"".join(frames), False)]


def on(stream_id, *frames, fin=False):
    return [(stream_id, b"".join(frames), fin)]


OK = headers(REQUEST)
OK_RESPONSE = headers(RESPONSE)
INTERIM = headers([(b":status", b"103")])
TRAILERS = headers([(b"x-a", b"b")])
DATA = encode_frame(FrameType.DATA, b"data")
PROMISE = encode_frame(
    FrameType.PUSH_PROMISE, b"\0" + QPACKEncoder().encode(0, REQUEST)
)
UNEXPECTED = ErrorCode.H3_FRAME_UNEXPECTED
CREATION = ErrorCode.H3_STREAM_CREATION_ERROR
SETTINGS_ERROR = ErrorCode.H3_SETTINGS_ERROR
FRAME = ErrorCode.H3_FRAME_ERROR
ID = ErrorCode.H3_ID_ERROR
MESSAGE = ErrorCode.H3_MESSAGE_ERROR
LOAD = ErrorCode.H3_EXCESSIVE_LOAD
CLOSED = ErrorCode.H3_CLOSED_CRITICAL_STREAM

# The receiving role, the bytes, the code, the phrase.  On the control stream,
# identifier 3 stands for whichever the peer's is.
RULES = [
    # The control stream and its frames.
    (SERVER, control(first=b"\x21\0"), ErrorCode.H3_MISSING_SETTINGS, ""),
    (SERVER, control(first=b"\x0d\0"), ErrorCode.H3_MISSING_SETTINGS, ""),
    (SERVER, control(SETTINGS), UNEXPECTED, "SETTINGS have already been received"),
    *[
        (
            SERVER,
            control(bytes([frame_type, 0])),
            UNEXPECTED,
            "Invalid frame type on control stream",
        )
        for frame_type in (0, 1, 5, 2, 6, 8, 9)
    ],
    (CLIENT, control(b"\x0d\1\0"), UNEXPECTED, "Servers must not send MAX_PUSH_ID"),
    (
        CLIENT,
        control(encode_frame(FrameType.PRIORITY_UPDATE_REQUEST, b"\0")),
        UNEXPECTED,
        "Servers must not send PRIORITY_UPDATE",
    ),
    (
        SERVER,
        [(3, b"\0", False), (3, b"", True)],
        CLOSED,
        "Closing control stream is not allowed",
    ),
    (
        SERVER,
        on(2, b"\2", fin=True),
        CLOSED,
        "Closing QPACK encoder stream is not allowed",
    ),
    (
        SERVER,
        on(2, b"\3", fin=True),
        CLOSED,
        "Closing QPACK decoder stream is not allowed",
    ),
    (
        SERVER,
        on(2, b"\0") + on(6, b"\0"),
        CREATION,
        "Only one control stream is allowed",
    ),
    (
        SERVER,
        on(2, b"\2") + on(6, b"\2"),
        CREATION,
        "Only one QPACK encoder stream is allowed",
    ),
    (
        SERVER,
        on(2, b"\3") + on(6, b"\3"),
        CREATION,
        "Only one QPACK decoder stream is allowed",
    ),
    (SERVER, on(2, b"\1\0"), CREATION, "Clients must not open push streams"),
    (
        CLIENT,
        on(1, OK_RESPONSE),
        CREATION,
        "Servers must not open bidirectional streams",
    ),
    (SERVER, control(b"\x0d\0"), FRAME, "Could not parse MAX_PUSH_ID frame"),
    (SERVER, control(b"\x0d\2\5\0"), FRAME, "MAX_PUSH_ID frame has trailing data"),
    (
        SERVER,
        control(b"\x0d\1\5\x0d\1\4"),
        ID,
        "MAX_PUSH_ID reduced the maximum push ID",
    ),
    (SERVER, control(b"\x07\0"), FRAME, "Could not parse GOAWAY frame"),
    (SERVER, control(b"\x07\2\0\0"), FRAME, "GOAWAY frame has trailing data"),
    (SERVER, control(b"\x07\x09" + bytes(9)), FRAME, "GOAWAY frame has trailing data"),
    (CLIENT, control(b"\x07\1\4\x07\1\x08"), ID, "GOAWAY raised the identifier"),
    (CLIENT, control(b"\x07\1\1"), ID, "GOAWAY does not name a request"),
    (SERVER, control(b"\x03\0"), FRAME, "Could not parse CANCEL_PUSH frame"),
    (SERVER, control(b"\x03\2\0\0"), FRAME, "CANCEL_PUSH frame has trailing data"),
    (SERVER, control(b"\x03\1\0"), ID, "CANCEL_PUSH does not name a push"),
    (CLIENT, control(b"\x03\1\x09"), ID, "CANCEL_PUSH does not name a push"),
    (
        SERVER,
        control(encode_frame(FrameType.PRIORITY_UPDATE_REQUEST, b"")),
        FRAME,
        "Could not parse PRIORITY_UPDATE frame",
    ),
    (
        SERVER,
        control(encode_frame(FrameType.PRIORITY_UPDATE_REQUEST, b"\2")),
        ID,
        "PRIORITY_UPDATE does not name a request or push",
    ),
    (
        SERVER,
        control(encode_frame(FrameType.PRIORITY_UPDATE_PUSH, b"\0")),
        ID,
        "PRIORITY_UPDATE does not name a request or push",
    ),
    (
        SERVER,
        control(encode_frame(FrameType.PRIORITY_UPDATE_REQUEST, b"\0u=x=")),
        ErrorCode.H3_GENERAL_PROTOCOL_ERROR,
        "Could not parse priority field value",
    ),
    (
        SERVER,
        control(encode_frame(FrameType.PRIORITY_UPDATE_REQUEST, bytes(1025))),
        LOAD,
        "PRIORITY_UPDATE frame is too large",
    ),
    (CLIENT, control(b"\x0c\1\0"), FRAME, "Could not parse ORIGIN frame"),
    (CLIENT, control(b"\x0c\3\0\2a"), FRAME, "Could not parse ORIGIN frame"),
    # Settings.
    (SERVER, control(first=b"\4\1\1"), FRAME, "Could not parse SETTINGS frame"),
    (SERVER, control(first=b"\4\x80\1\0\0"), LOAD, "SETTINGS frame is too large"),
    *[
        (
            SERVER,
            control(first=settings({number: 0})),
            SETTINGS_ERROR,
            f"Setting identifier {number:#x} is reserved",
        )
        for number in (0, 2, 3, 4, 5)
    ],
    (
        SERVER,
        control(first=b"\4\4\x21\0\x21\0"),
        SETTINGS_ERROR,
        "Setting identifier 0x21 is included twice",
    ),
    *[
        (
            SERVER,
            control(first=settings({setting: 2})),
            SETTINGS_ERROR,
            f"{setting.name} setting must be 0 or 1",
        )
        for setting in (
            Setting.ENABLE_CONNECT_PROTOCOL,
            Setting.ENABLE_WEBTRANSPORT,
            Setting.H3_DATAGRAM,
        )
    ],
    (
        SERVER,
        control(first=settings({Setting.ENABLE_WEBTRANSPORT: 1})),
        SETTINGS_ERROR,
        "ENABLE_WEBTRANSPORT requires H3_DATAGRAM",
    ),
    # Request and push streams.
    (SERVER, on(0, DATA), UNEXPECTED, "DATA frame is not allowed in this state"),
    (SERVER, on(0, b"\0\0"), UNEXPECTED, "DATA frame is not allowed in this state"),
    (
        SERVER,
        on(0, OK, TRAILERS, DATA),
        UNEXPECTED,
        "DATA frame is not allowed in this state",
    ),
    (
        SERVER,
        on(0, OK, TRAILERS, TRAILERS),
        UNEXPECTED,
        "HEADERS frame is not allowed in this state",
    ),
    *[
        (
            SERVER,
            on(0, bytes([frame_type, 0])),
            UNEXPECTED,
            "Invalid frame type on request stream",
        )
        for frame_type in (3, 4, 7, 0xD, 2, 6, 8, 9)
    ],
    *[
        (
            CLIENT,
            on(15, b"\1\0", bytes([frame_type, 0])),
            UNEXPECTED,
            "Invalid frame type on push stream",
        )
        for frame_type in (3, 4, 5, 7, 0xD, 2, 6, 8, 9)
    ],
    (SERVER, on(0, PROMISE), UNEXPECTED, "Clients must not send PUSH_PROMISE"),
    (CLIENT, on(0, b"\5\0"), FRAME, "Could not parse PUSH_PROMISE frame"),
    (CLIENT, on(0, b"\5\1\x09"), ID, "Push ID exceeds the maximum push ID"),
    (CLIENT, on(15, b"\1\3") + on(19, b"\1\3"), ID, "Push ID was used before"),
    (
        CLIENT,
        on(15, b"\1\3") + on(19, b"\1\1") + on(23, b"\1\1"),
        ID,
        "Push ID was used before",
    ),
    (CLIENT, on(15, b"\1\x09"), ID, "Push ID exceeds the maximum push ID"),
    *[
        (
            SERVER,
            on(0, data, fin=True),
            FRAME,
            "Frame is truncated by the end of the stream",
        )
        for data in (b"\0", OK[:-1], OK + b"\0\5", OK + b"\0\5a", b"\x21\1")
    ],
    (
        CLIENT,
        on(0, INTERIM, fin=True),
        MESSAGE,
        "Interim response cannot end the stream",
    ),
    (
        CLIENT,
        on(0, INTERIM) + on(0, b"", fin=True),
        MESSAGE,
        "Interim response cannot end the stream",
    ),
    (
        SERVER,
        on(0, headers([*REQUEST, (b"content-length", b"3")]), DATA, fin=True),
        MESSAGE,
        "content-length does not match data size",
    ),
    (
        SERVER,
        on(0, headers([*REQUEST, (b"content-length", b"3")]), fin=True),
        MESSAGE,
        "content-length does not match data size",
    ),
    # QPACK.
    (SERVER, on(0, b"\1\1\0"), ErrorCode.QPACK_DECOMPRESSION_FAILED, ""),
    (SERVER, on(2, b"\2\0"), ErrorCode.QPACK_ENCODER_STREAM_ERROR, ""),
    (SERVER, on(2, b"\3\0"), ErrorCode.QPACK_DECODER_STREAM_ERROR, ""),
]


def receive(is_client, inputs, chunk=None, **options):
    """Give ``inputs`` to a connection, until it closes; return its ``closed``."""
    quic = FakeQuic(is_client, **options)
    h3 = H3Connection(quic)
    events = []
    for stream_id, data, fin in inputs:
        if stream_id == 3 and not is_client:
            stream_id = 2
        size = chunk or max(len(data), 1)
        parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        for i, part in enumerate(parts):
            events += h3.handle_event(
                StreamDataReceived(part, fin and i == len(parts) - 1, stream_id)
            )
    return quic, h3, events


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("is_client", "inputs", "code", "phrase"),
    RULES,
    ids=[f"{i}-{rule[3] or rule[2].name}" for i, rule in enumerate(RULES)],
)
def test_a_broken_rule_closes_the_connection(is_client, inputs, code, phrase, chunk):
    quic, h3, _ = receive(is_client, inputs, chunk)
    assert quic.closed == (code, phrase)
    quic.queue.clear()
    assert h3.handle_event(StreamDataReceived(OK, True, 8)) == []
    assert not quic.queue


def test_push_streams_may_come_in_any_order_of_their_identifiers():
    quic = FakeQuic(True)
    h3 = H3Connection(quic, config=H3Configuration(max_push_id=200))
    streams = iter(range(15, 4000, 4))
    for push_id in [*range(200, 100, -1), *range(101)]:
        data = b"\1" + (0x4000 | push_id).to_bytes(2, "big") + OK_RESPONSE
        (event,) = h3.handle_event(StreamDataReceived(data, True, next(streams)))
        assert event.push_id == push_id
        assert quic.closed is None


@pytest.mark.parametrize(
    ("fields", "phrase"),
    [
        ([*REQUEST, (b"a b", b"")], "Header b'a b' contains invalid characters"),
        ([*REQUEST, (b"a\x7f", b"")], "Header b'a\\x7f' contains invalid characters"),
        ([*REQUEST, (b"a:b", b"")], "Header b'a:b' contains a non-initial colon"),
        ([*REQUEST, (b"a", b"\0")], "Header b'a' value has forbidden characters"),
        ([*REQUEST, (b"a", b" b")], "Header b'a' value starts with whitespace"),
        ([*REQUEST, (b"a", b"b\t")], "Header b'a' value ends with whitespace"),
        (
            [(b"a", b""), *REQUEST],
            "Pseudo-header b':method' is not allowed after regular headers",
        ),
        ([*REQUEST, (b":status", b"200")], "Pseudo-header b':status' is not valid"),
        ([*REQUEST, REQUEST[0]], "Pseudo-header b':method' is included twice"),
        (
            REQUEST[1:2],
            "Pseudo-headers [b':authority', b':method'] are missing",
        ),
        (
            [*REQUEST[:2], (b":authority", b""), REQUEST[3]],
            "Pseudo-header b':authority' cannot be empty",
        ),
        (
            [*REQUEST[:3], (b":path", b"")],
            "Pseudo-header b':path' cannot be empty",
        ),
        ([*REQUEST, (b"te", b"gzip")], "Header b'te' value is not trailers"),
        *[
            ([*REQUEST, (name, b"x")], f"Header {name!r} is connection-specific")
            for name in (
                b"connection",
                b"keep-alive",
                b"proxy-connection",
                b"transfer-encoding",
                b"upgrade",
            )
        ],
        (
            [*REQUEST, (b"content-length", b"-1")],
            "content-length is not a non-negative integer",
        ),
        (
            [*REQUEST, (b"content-length", b"1"), (b"content-length", b"2")],
            "content-length must not be repeated (RFC 9110, 8.6)",
        ),
    ],
)
def test_a_malformed_request_closes_the_connection(fields, phrase):
    """RFC 9114, 4.2 and 4.3"""
    quic, _, _ = receive(SERVER, on(0, headers(fields)))
    assert quic.closed == (ErrorCode.H3_MESSAGE_ERROR, phrase)


@pytest.mark.parametrize(
    ("fields", "phrase"),
    [
        ([], "Pseudo-headers [b':status'] are missing"),
        ([(b":status", b"20")], "Pseudo-header b':status' has invalid value b'20'"),
        ([(b":status", b"101")], "Pseudo-header b':status' cannot be 101"),
        ([*RESPONSE, (b"te", b"trailers")], "Header b'te' is connection-specific"),
    ],
)
def test_a_malformed_response_closes_the_connection(fields, phrase):
    quic, _, _ = receive(CLIENT, on(0, headers(fields)))
    assert quic.closed == (ErrorCode.H3_MESSAGE_ERROR, phrase)


def test_trailers_have_no_pseudo_header_fields():
    quic, _, _ = receive(SERVER, on(0, OK, OK))
    assert quic.closed == (MESSAGE, "Pseudo-header b':method' is not valid")


def test_datagrams_need_the_transport_parameter():
    quic, _, _ = receive(
        SERVER, control(first=settings({Setting.H3_DATAGRAM: 1})), datagrams=False
    )
    assert quic.closed == (
        SETTINGS_ERROR,
        "H3_DATAGRAM requires max_datagram_frame_size transport parameter",
    )


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "Could not parse quarter stream ID"),
        (b"\xff", "Could not parse quarter stream ID"),
        (b"\xd0" + bytes(7), "Quarter stream ID is too large"),
    ],
)
def test_a_malformed_datagram_closes_the_connection(data, phrase):
    quic = FakeQuic(False)
    H3Connection(quic).handle_event(DatagramFrameReceived(data))
    assert quic.closed == (ErrorCode.H3_DATAGRAM_ERROR, phrase)


@pytest.mark.parametrize("stream_type", [b"\0", b"\2", b"\3"])
def test_critical_streams_must_not_be_reset(stream_type):
    quic, h3, _ = receive(SERVER, on(2, stream_type))
    h3.handle_event(StreamReset(0, 2))
    assert quic.closed == (CLOSED, "Resetting a critical stream is not allowed")


@pytest.mark.parametrize("stream_id", [3, 7, 11])
def test_critical_streams_must_not_be_stopped(stream_id):
    quic, h3, _ = receive(SERVER, [])
    h3.handle_event(StopSendingReceived(0, stream_id))
    assert quic.closed == (CLOSED, "Stopping a critical stream is not allowed")


# ---- Bounds ----


@pytest.mark.parametrize("chunk", [None, 100])
def test_unknown_frames_are_dropped_as_they_come(chunk):
    unknown = encode_frame(0x21, bytes(100000))
    quic, h3, events = receive(SERVER, on(0, unknown[:-1]), chunk)
    assert events == []
    assert h3._stream[0].buffer == b""
    assert h3._stream[0].frame_size == 1
    assert len(h3.handle_event(StreamDataReceived(b"\0" + OK, True, 0))) == 1
    assert quic.closed is None


def test_a_field_section_has_a_bound():
    quic = FakeQuic(False)
    h3 = H3Connection(quic, config=H3Configuration(max_field_section_size=200))
    assert h3.sent_settings[Setting.MAX_FIELD_SECTION_SIZE] == 200
    h3.handle_event(StreamDataReceived(OK, False, 0))
    assert quic.closed is None
    h3.handle_event(
        StreamDataReceived(headers([*REQUEST, (b"a", b"b" * 20)]), False, 4)
    )
    assert quic.closed == (LOAD, "Field section is too large")


def test_the_length_of_a_frame_is_judged_before_it_comes():
    quic, _, _ = receive(SERVER, on(0, b"\1\x80\x10\0\0"))
    assert quic.closed == (LOAD, "Field section is too large")


def test_sections_of_which_more_must_come_have_a_bound_together():
    quic = FakeQuic(False)
    h3 = H3Connection(quic, config=H3Configuration(max_buffered=1000))
    part = b"\1\x41\xff" + bytes(90)
    for i in range(11):
        h3.handle_event(StreamDataReceived(part, False, 4 * i))
    assert quic.closed is None
    # What is given up counts no more.
    h3.handle_event(StreamReset(0, 0))
    h3.handle_event(StreamDataReceived(part, False, 44))
    assert quic.closed is None
    h3.handle_event(StreamDataReceived(part, False, 48))
    assert quic.closed == (LOAD, "Too much data is waiting")


def test_frames_that_carry_nothing_have_a_bound():
    quic, _, _ = receive(SERVER, on(0, OK, b"\x21\0" * 1000))
    assert quic.closed is None
    quic, _, _ = receive(SERVER, on(0, OK, b"\x21\0" * 1002))
    assert quic.closed == (LOAD, "Too many frames carry nothing")


def test_a_peer_may_grease_each_message():
    inputs = [(4 * i, b"\x21\0" + OK, True) for i in range(3000)]
    quic, _, events = receive(SERVER, inputs)
    assert quic.closed is None
    assert len(events) == 3000


@pytest.mark.parametrize("data", [b"\x40\x21 data", b"\x21" + bytes(100)])
def test_streams_of_unknown_types_are_dropped(data):
    quic, h3, events = receive(SERVER, on(14, data), chunk=1)
    assert events == []
    assert quic.closed is None
    assert h3._stream[14].buffer == b""
