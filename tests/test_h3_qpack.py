"""QPACK, by itself and below a connection (RFC 9204)."""

import sys

import hpack
import pylsqpack
import pytest
from fake_quic import REQUEST, RESPONSE, FakeQuic, Pair, StreamDataReceived, StreamReset
from hypothesis import given, settings
from hypothesis import strategies as st

from nghttp2py.errors import HeaderListTooLargeError
from nghttp2py.h3 import H3Configuration, QPACKDecoder, QPACKEncoder
from nghttp2py.h3.connection import (
    ErrorCode,
    H3Connection,
    QpackDecoderStreamError,
    QpackDecompressionFailed,
    QpackEncoderStreamError,
)
from nghttp2py.h3.events import DataReceived, HeadersReceived
from nghttp2py.hpack import NeverIndexed

FIELDS = [*REQUEST, (b"user-agent", b"tests"), (b"x-session", b"0123456789abcdef")]

# Inserts (x-a, 1) and (x-b, 2) after setting the table's capacity; the sections
# refer to the first and to the second of them.
INSERT_A = bytes.fromhex("3fe11f 43782d61 0131")
INSERT_B = bytes.fromhex("43782d62 0132")
SECTION_A = bytes.fromhex("0200 80")
SECTION_B = bytes.fromhex("0300 80")
A, B = (b"x-a", b"1"), (b"x-b", b"2")


@pytest.fixture
def coder():
    encoder, decoder = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)
    return encoder, decoder


def test_a_section_is_decoded_to_what_was_encoded(coder):
    encoder, decoder = coder
    for stream_id in range(0, 40, 4):
        section = encoder.encode(stream_id, FIELDS)
        decoder.receive_data(encoder.data_to_send())
        assert decoder.decode(stream_id, section) == FIELDS
        encoder.receive_data(decoder.data_to_send())


@pytest.mark.parametrize(
    "capacity", [33, 100, 1000, 4095, 4096, 16383, 65535, 65536, 65537, 1 << 20]
)
def test_sections_are_those_of_the_table_that_the_peer_allows(capacity):
    """Whatever it is, also after as many entries as twice its most (RFC 9204,
    4.5.1.1)."""
    encoder, peer = QPACKEncoder(), pylsqpack.Decoder(capacity, 16)
    encoder.apply_settings(capacity, 16)
    size = 0
    for i in range(2 * 65536 // 32 + 200):
        fields = [*REQUEST, (b"x-session", b"%d" % (i // 2))]
        section = encoder.encode(4 * i, fields)
        instructions = encoder.data_to_send()
        size += len(instructions)
        peer.feed_encoder(instructions)
        answer, decoded = peer.feed_header(4 * i, section)
        assert decoded == fields
        encoder.receive_data(answer)
    assert bool(size) is (capacity <= 65536)


@pytest.mark.parametrize("capacity", [4096, 65536, 65537])
def test_settings_that_come_again_change_no_sections(capacity):
    encoder, peer = QPACKEncoder(), pylsqpack.Decoder(capacity, 16)
    encoder.apply_settings(0, 0)
    encoder.apply_settings(capacity, 16)
    for i in range(600):
        fields = [(b"x-session", b"%d" % (i // 2))]
        section = encoder.encode(4 * i, fields)
        peer.feed_encoder(encoder.data_to_send())
        answer, decoded = peer.feed_header(4 * i, section)
        assert decoded == fields
        encoder.receive_data(answer)
        if i == 300:
            encoder.apply_settings(200, 16)


@pytest.mark.parametrize("capacity", [100, 1000, 65536, 1 << 20])
def test_a_connection_lives_on_when_the_table_of_its_peer_has_been_filled(capacity):
    pair = Pair(config=H3Configuration(qpack_max_table_capacity=capacity))
    for i in range(1200):
        headers = [*REQUEST, (b"x-session", b"%d" % (i // 2))]
        stream_id, events = pair.request(headers)
        assert events[0].headers == headers
        pair.server.send_headers(stream_id, RESPONSE, True)
        pair.to_client()
        pair.to_server()
    pair.assert_open()


def test_what_repeats_becomes_small(coder):
    encoder, decoder = coder
    sizes = []
    for stream_id in range(0, 40, 4):
        section = encoder.encode(stream_id, FIELDS)
        sizes.append(len(section))
        decoder.receive_data(encoder.data_to_send())
        decoder.decode(stream_id, section)
        encoder.receive_data(decoder.data_to_send())
    assert sizes[0] > 40
    assert sizes[-1] == 2 + len(FIELDS)


def decode_often(encoder, decoder, fields):
    """Return what each of ten sections with the same fields is decoded to."""
    sections = []
    for stream_id in range(0, 40, 4):
        section = encoder.encode(stream_id, fields)
        decoder.receive_data(encoder.data_to_send())
        sections.append(decoder.decode(stream_id, section))
        encoder.receive_data(decoder.data_to_send())
    return sections


def test_fields_of_table_entries_are_the_same_pairs_each_time(coder):
    sections = decode_often(*coder, FIELDS)
    assert all(section == FIELDS for section in sections)
    assert list(map(id, sections[-1])) == list(map(id, sections[-2]))
    assert sections[-1] is not sections[-2]


def test_pairs_are_released_with_their_decoder():
    encoder, decoder = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)
    pair = decode_often(encoder, decoder, [(b"x-name", b"value")])[-1][0]
    held = sys.getrefcount(pair)
    del decoder
    assert sys.getrefcount(pair) == held - 1


@pytest.mark.parametrize(
    "headers",
    [
        [*REQUEST, (b":path", b"/")],
        [*REQUEST, (b"te", b"trailers"), (b":path", b"/")],
        [*REQUEST, (b"content-length", b"0"), (b"content-length", b"0")],
        REQUEST[:-1],
    ],
)
def test_a_field_that_was_valid_is_checked_in_each_section(headers):
    pair = Pair(config=H3Configuration(validate_outbound=False))
    good = [*REQUEST, (b"te", b"trailers"), (b"content-length", b"0")]
    for _ in range(10):
        _, (event,) = pair.request(good)
        assert event.headers == good
        pair.server.send_headers(event.stream_id, RESPONSE, True)
        pair.to_client()
        pair.to_server()
    pair.assert_open()
    pair.request(headers)
    assert pair.server_quic.closed[0] == ErrorCode.H3_MESSAGE_ERROR


def test_before_the_settings_nothing_is_inserted():
    encoder = QPACKEncoder()
    for stream_id in range(0, 40, 4):
        section = encoder.encode(stream_id, FIELDS)
        assert encoder.data_to_send() == b""
        assert QPACKDecoder().decode(stream_id, section) == FIELDS


def test_the_first_section_can_be_decoded_without_the_encoder_stream(coder):
    encoder, decoder = coder
    assert decoder.decode(0, encoder.encode(0, FIELDS)) == FIELDS
    assert encoder.data_to_send()


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Basic abc"),
        (b"cookie", b"a=b"),
        (b"proxy-authorization", b"x"),
        (b"x-secret", b"value", True),
        NeverIndexed(b"x-secret", b"value"),
        hpack.NeverIndexedHeaderTuple(b":path", b"/secret"),
    ],
)
def test_what_could_be_guessed_enters_no_table(coder, field):
    """RFC 9204, 7.1.3: the N bit tells proxies to keep it so."""
    encoder, _ = coder
    encoder.encode(0, [])
    assert encoder.data_to_send() == b"\x3f\xe1\x1f"  # the table's capacity
    for stream_id in range(0, 40, 4):
        section = encoder.encode(stream_id, [field])
        assert encoder.data_to_send() == b""
        assert section[2] & 0xF0 in (0x70, 0x60, 0x30)


def test_a_field_has_two_parts_or_a_mark(coder):
    encoder, _ = coder
    encoder.encode(0, [(b"x-plain", b"value", False), [b"x-list", b"value"]])
    for wrong in [(b"x",), (b"x", b"y", True, b"z"), ()]:
        with pytest.raises(ValueError, match="pair"):
            encoder.encode(4, [wrong])


def test_a_blocked_section_waits_for_its_entries():
    decoder = QPACKDecoder()
    assert decoder.decode(4, SECTION_B) is None
    assert decoder.decode(0, SECTION_A) is None
    with pytest.raises(ValueError, match="is blocked"):
        decoder.decode(0, SECTION_A)
    with pytest.raises(ValueError, match="still blocked"):
        decoder.resume(0)
    assert decoder.receive_data(INSERT_A) == [0]
    assert decoder.resume(0) == [A]
    for byte in INSERT_B[:-1]:
        assert decoder.receive_data(bytes([byte])) == []
    assert decoder.receive_data(INSERT_B[-1:]) == [4]
    assert decoder.resume(4) == [B]
    with pytest.raises(ValueError, match="no section"):
        decoder.resume(4)
    # Two section acknowledgements (RFC 9204, 4.4.1).
    assert decoder.data_to_send() == b"\x80\x84"


def test_a_cancelled_stream_is_not_blocked():
    decoder = QPACKDecoder()
    decoder.decode(0, SECTION_A)
    decoder.cancel_stream(0)
    assert decoder.data_to_send() == b"\x40"
    assert decoder.receive_data(INSERT_A) == []


def test_what_is_for_the_decoder_stream_is_kept():
    decoder = QPACKDecoder()
    decoder.receive_data(INSERT_A)
    assert decoder.data_to_send() == b"\1"
    for _ in range(2000):
        assert decoder.decode(0, SECTION_A) == [A]
        decoder.cancel_stream(4)
    assert decoder.data_to_send() == b"\x80\x44" * 2000
    assert decoder.data_to_send() == b""


def test_more_streams_than_allowed_may_not_block():
    decoder = QPACKDecoder(4096, 1)
    decoder.decode(0, SECTION_A)
    with pytest.raises(QpackDecompressionFailed):
        decoder.decode(4, SECTION_A)


def test_a_section_has_a_bound():
    encoder = QPACKEncoder()
    decoder = QPACKDecoder(max_field_section_size=100)
    assert decoder.decode(0, encoder.encode(0, [(b"a", b"b" * 67)]))
    with pytest.raises(HeaderListTooLargeError):
        decoder.decode(4, encoder.encode(4, [(b"a", b"b" * 68)]))
    with pytest.raises(HeaderListTooLargeError):
        decoder.decode(8, encoder.encode(8, [(b"a", b"")] * 4))


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\xff", b"\0\0\x23a"])
def test_a_malformed_section_is_refused(data):
    with pytest.raises(QpackDecompressionFailed):
        QPACKDecoder().decode(0, data)


def test_malformed_streams_are_refused():
    with pytest.raises(QpackEncoderStreamError):
        QPACKDecoder().receive_data(b"\0")
    with pytest.raises(QpackDecoderStreamError):
        QPACKEncoder().receive_data(b"\x80")


def test_half_an_instruction_is_kept_up_to_a_bound():
    """Its value may say 65,536 bytes, whatever the table holds, and no more."""
    QPACKDecoder().receive_data(b"\xc0\x7f\x81\xff\x03" + bytes(100))
    with pytest.raises(QpackEncoderStreamError):
        QPACKDecoder().receive_data(b"\xc0\x7f\x82\xff\x03")


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_numbers_out_of_range_are_refused(number):
    with pytest.raises(ValueError, match="must be from 0"):
        QPACKEncoder(number)
    with pytest.raises(ValueError, match="must be from 0"):
        QPACKDecoder(4096, number)
    with pytest.raises(ValueError, match="stream"):
        QPACKEncoder().encode(-4, [])
    with pytest.raises(TypeError):
        QPACKEncoder().apply_settings("1", 2)


# ---- Beside ls-qpack, the coder below aioquic ----

fields = st.lists(
    st.tuples(
        st.sampled_from([b"x-a", b"x-b", b"accept", b":path", b"cookie", b"etag"]),
        st.binary(max_size=60),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(fields, min_size=1, max_size=12))
def test_ls_qpack_decodes_what_we_encode(sections):
    encoder, decoder = QPACKEncoder(), pylsqpack.Decoder(4096, 16)
    encoder.apply_settings(4096, 16)
    for i, section in enumerate(sections):
        encoded = encoder.encode(4 * i, section)
        decoder.feed_encoder(encoder.data_to_send())
        answer, decoded = decoder.feed_header(4 * i, encoded)
        encoder.receive_data(answer)
        assert decoded == section


@settings(deadline=None, max_examples=50)
@given(st.lists(fields, min_size=1, max_size=12))
def test_we_decode_what_ls_qpack_encodes(sections):
    encoder, decoder = pylsqpack.Encoder(), QPACKDecoder()
    decoder.receive_data(encoder.apply_settings(4096, 16))
    for i, section in enumerate(sections):
        stream, encoded = encoder.encode(4 * i, section)
        decoder.receive_data(stream)
        assert decoder.decode(4 * i, encoded) == section
        encoder.feed_decoder(decoder.data_to_send())


# ---- Blocked streams of a connection ----


def frame(frame_type, payload):
    return bytes([frame_type, len(payload)]) + payload


STATUS = bytes.fromhex("0000 d9")  # :status 200, from the static table


@pytest.fixture
def client():
    quic = FakeQuic(True)
    h3 = H3Connection(quic)
    h3.send_headers(0, REQUEST, end_stream=True)
    h3.handle_event(StreamDataReceived(b"\2", False, 7))
    quic.queue.clear()
    return h3


@pytest.mark.parametrize("chunk", [1, 100])
def test_what_follows_a_blocked_section_waits_behind_it(client, chunk):
    data = frame(1, STATUS) + frame(0, b"body") + frame(1, SECTION_A)
    events = []
    for i in range(0, len(data), chunk):
        events += client.handle_event(StreamDataReceived(data[i : i + chunk], False, 0))
    assert client.handle_event(StreamDataReceived(b"", True, 0)) == []
    assert events[0] == HeadersReceived([(b":status", b"200")], 0, False)
    assert b"".join(event.data for event in events[1:]) == b"body"
    assert client._stream[0].blocked

    assert client.handle_event(StreamDataReceived(INSERT_A, False, 7)) == [
        HeadersReceived([A], 0, True)
    ]
    assert 0 not in client._stream
    assert client._quic.sent(10) == b"\x80"
    assert client._quic.closed is None


def test_a_stream_may_block_twice(client):
    # The status comes from the dynamic table too.
    data = frame(1, bytes.fromhex("0200 80")) + frame(0, b"x") + frame(1, SECTION_B)
    client.handle_event(StreamDataReceived(data, True, 0))
    insert = bytes.fromhex("3fe11f 473a737461747573 03323030")
    assert client.handle_event(StreamDataReceived(insert, False, 7)) == [
        HeadersReceived([(b":status", b"200")], 0, False),
        DataReceived(b"x", 0, False),
    ]
    assert client._stream[0].blocked
    assert client.handle_event(StreamDataReceived(INSERT_B, False, 7)) == [
        HeadersReceived([B], 0, True)
    ]


def test_a_reset_ends_the_waiting(client):
    client.handle_event(StreamDataReceived(frame(1, SECTION_A), False, 0))
    assert client.handle_event(StreamReset(0, 0)) == []
    assert client._quic.sent(10) == b"\x40"
    assert client.handle_event(StreamDataReceived(INSERT_A, False, 7)) == []
    assert client._quic.closed is None


def test_more_blocked_streams_than_announced_close_the_connection():
    quic = FakeQuic(False)
    h3 = H3Connection(quic)
    for i in range(17):
        h3.handle_event(StreamDataReceived(frame(1, SECTION_A), False, 4 * i))
        assert (quic.closed is None) == (i < 16)
    assert quic.closed == (ErrorCode.QPACK_DECOMPRESSION_FAILED, "")


def test_what_waits_behind_blocked_sections_has_a_bound():
    quic = FakeQuic(False)
    h3 = H3Connection(quic, config=H3Configuration(max_buffered=1000))
    h3.handle_event(StreamDataReceived(frame(1, SECTION_A), False, 0))
    h3.handle_event(StreamDataReceived(bytes(997), False, 0))
    assert quic.closed is None
    h3.handle_event(StreamDataReceived(b"\0", False, 0))
    assert quic.closed == (ErrorCode.H3_EXCESSIVE_LOAD, "Too much data is waiting")


def test_streams_unblock_in_the_order_in_which_they_blocked():
    quic = FakeQuic(False)
    h3 = H3Connection(quic, config=H3Configuration(validate_outbound=False))
    h3.handle_event(StreamDataReceived(b"\2", False, 2))
    insert = b"\x3f\xe1\x1f" + b"".join(
        bytes([0x40 | len(n)]) + n + bytes([len(v)]) + v for n, v in REQUEST
    )
    section = bytes.fromhex("0500 83 82 81 80")
    for stream_id in (8, 0, 4):
        h3.handle_event(StreamDataReceived(frame(1, section), True, stream_id))
    events = h3.handle_event(StreamDataReceived(insert, False, 2))
    assert [event.stream_id for event in events] == [8, 0, 4]
    assert all(event.headers == REQUEST for event in events)


def test_what_both_connections_say_over_qpack_streams_is_counted():
    pair = Pair()
    for _ in range(5):
        pair.request(FIELDS)
        pair.to_client()
    client, server = pair.client, pair.server
    assert 0 < client._encoder_bytes_sent == server._encoder_bytes_received
    assert 0 < server._decoder_bytes_sent == client._decoder_bytes_received
    pair.assert_open()
