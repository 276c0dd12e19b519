"""Modules by other libraries' names do what theirs do."""

from __future__ import annotations

import importlib

import hpack
import pytest

from nghttp2py.buffer import Buffer, encode_uint_var, size_uint_var
from nghttp2py.compat import hpack as ours
from nghttp2py.quic.packet import (
    PACKET_TYPE_INITIAL,
    QuicPacketType,
    encode_quic_version_negotiation,
    pull_quic_header,
)

# ---- aioquic's module paths ----


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tls", "CipherSuite SessionTicket SessionTicketFetcher SessionTicketHandler"),
        ("buffer", "Buffer BufferReadError BufferWriteError encode_uint_var"),
        ("asyncio", "QuicConnectionProtocol connect serve"),
        ("asyncio.client", "connect"),
        ("asyncio.protocol", "QuicConnectionProtocol QuicStreamHandler"),
        ("asyncio.server", "QuicServer QuicStreamHandler serve"),
        ("h0.connection", "H0_ALPN H0Connection"),
        ("quic.packet", "QuicErrorCode QuicPacketType pull_quic_header"),
    ],
)
def test_names_are_at_the_paths_of_aioquic(module, names):
    absent = "absent"
    found = importlib.import_module(f"nghttp2py.{module}")
    for name in names.split():
        assert getattr(found, name)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        getattr(found, absent)


@pytest.mark.parametrize(
    "value", [0, 63, 64, 16383, 16384, 2**30 - 1, 2**30, 2**62 - 1]
)
def test_variable_length_integers_come_back(value):
    encoded = encode_uint_var(value)
    assert len(encoded) == size_uint_var(value)
    assert Buffer(data=encoded).pull_uint_var() == value


@pytest.mark.parametrize("value", [-1, 2**62])
def test_an_integer_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="variable-length integer"):
        encode_uint_var(value)


HEADERS = [
    # A datagram of RFC 9000's and RFC 9369's long headers: first octet, version.
    (0xC0, 1, QuicPacketType.INITIAL),
    (0xD0, 1, QuicPacketType.ZERO_RTT),
    (0xE0, 1, QuicPacketType.HANDSHAKE),
    (0xD0, 0x6B3343CF, QuicPacketType.INITIAL),
    (0xE0, 0x6B3343CF, QuicPacketType.ZERO_RTT),
    (0xF0, 0x6B3343CF, QuicPacketType.HANDSHAKE),
]


@pytest.mark.parametrize(("first", "version", "kind"), HEADERS)
def test_a_long_header_is_read(first, version, kind):
    token = b"\x03abc" if kind is PACKET_TYPE_INITIAL else b""
    packet = bytes([first]) + version.to_bytes(4, "big")
    packet += b"\x08destinat" + b"\x04srce" + token + b"\x40\x20" + bytes(32)
    buf = Buffer(data=packet + b"another packet")
    header = pull_quic_header(buf)
    assert header.version == version
    assert header.packet_type is kind
    assert header.packet_length == len(packet)
    assert (header.destination_cid, header.source_cid) == (b"destinat", b"srce")
    assert header.token == token[1:]
    for length in range(len(packet)):
        with pytest.raises(ValueError):
            pull_quic_header(Buffer(data=packet[:length]))


def test_a_short_header_needs_the_length_of_its_id():
    packet = b"\x41" + b"12345678" + bytes(20)
    header = pull_quic_header(Buffer(data=packet), host_cid_length=8)
    assert header.packet_type is QuicPacketType.ONE_RTT
    assert (header.version, header.destination_cid) == (None, b"12345678")
    with pytest.raises(ValueError, match="host_cid_length"):
        pull_quic_header(Buffer(data=packet))


def test_version_negotiation_is_written_and_read():
    packet = encode_quic_version_negotiation(
        source_cid=b"source", destination_cid=b"dest", supported_versions=[1, 2]
    )
    header = pull_quic_header(Buffer(data=packet))
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert (header.source_cid, header.destination_cid) == (b"source", b"dest")
    assert header.supported_versions == [1, 2]


# ---- hpack ----

LISTS = [
    [(":method", "GET"), (":path", "/ä"), ("x-a", "b"), ("x-a", "b")],
    [(b":status", b"200"), (b"set-cookie", b"a=1", True)],
    [("x", ""), (b"y", "z" * 5000)],
]


def pairs(fields):
    return [tuple(field) for field in fields]


@pytest.mark.parametrize("raw", [False, True])
def test_each_decodes_what_the_other_encodes(raw):
    for encoder, decoder in (
        (ours.Encoder(), hpack.Decoder()),
        (hpack.Encoder(), ours.Decoder()),
    ):
        reference = hpack.Encoder(), hpack.Decoder()
        for fields in LISTS * 2:
            decoded = decoder.decode(encoder.encode(fields), raw=raw)
            expected = reference[1].decode(reference[0].encode(fields), raw=raw)
            assert pairs(decoded) == pairs(expected)
            assert [f.indexable for f in decoded] == [f.indexable for f in expected]


def test_pseudo_header_fields_of_a_mapping_come_first():
    block = ours.Encoder().encode({"x-a": "1", ":path": "/", b":method": b"GET"})
    names = [name for name, _ in ours.Decoder().decode(block)]
    assert names == [":path", ":method", "x-a"]


def test_never_indexed_fields_stay_so():
    field = ours.NeverIndexedHeaderTuple(b"authorization", b"secret")
    encoder, decoder = ours.Encoder(), ours.Decoder()
    (first,) = decoder.decode(encoder.encode([field]), raw=True)
    assert first == field
    assert isinstance(first, ours.NeverIndexedHeaderTuple)
    assert not first.indexable
    assert decoder.header_table_size == 4096


def test_table_sizes_are_settings_of_each_side():
    encoder, decoder = ours.Encoder(), ours.Decoder()
    decoder.max_allowed_table_size = 8192
    encoder.header_table_size = 8192
    decoder.decode(encoder.encode([("a", "b")]))
    assert encoder.header_table_size == 8192
    assert decoder.header_table_size == 8192
    assert decoder.max_allowed_table_size == 8192


def test_errors_have_the_bases_of_hpack():
    small = ours.Decoder(max_header_list_size=100)
    assert small.max_header_list_size == 100
    with pytest.raises(ours.OversizedHeaderListError):
        small.decode(ours.Encoder().encode([("a", "b" * 200)]))
    with pytest.raises(ours.HPACKDecodingError):
        ours.Decoder().decode(b"\xff\xff\xff\xff\xff")
    with pytest.raises(ours.InvalidTableIndexError, match="index 62"):
        ours.Decoder().decode(b"\xbe")
    with pytest.raises(ours.InvalidTableSizeError, match="4097 octets"):
        ours.Decoder().decode(b"\x3f\xe2\x1f")
    block = ours.Encoder().encode([(b"a", b"\xff")])
    with pytest.raises(ours.HPACKDecodingError, match="UTF-8"):
        ours.Decoder().decode(block)
    for name in hpack.__all__:
        theirs = getattr(hpack, name)
        if issubclass(theirs, Exception):
            bases = [base.__name__ for base in getattr(ours, name).__mro__]
            assert bases == [base.__name__ for base in theirs.__mro__]


def test_the_tables_of_both_coders_can_be_read():
    encoder, decoder = ours.Encoder(), ours.Decoder()
    decoder.decode(encoder.encode([("a", "b"), ("c", 4)]))
    for coder in encoder, decoder:
        table = coder.header_table
        assert table.dynamic_entries == [(b"c", b"4"), (b"a", b"b")]
        assert table.maxsize == 4096
        assert table.get_by_index(2) == (b":method", b"GET")
        assert table.get_by_index(62) == (b"c", b"4")
        with pytest.raises(ours.InvalidTableIndexError, match="64"):
            table.get_by_index(64)


def test_a_size_is_announced_only_if_it_changes():
    encoder = ours.Encoder()
    encoder.header_table_size = 4096
    assert encoder.encode([(":method", "GET")]) == b"\x82"
    encoder.header_table_size = 100
    assert encoder.encode([(":method", "GET")]) == b"\x3f\x45\x82"


def test_hpack_is_not_replaced_once_it_is_imported():
    with pytest.raises(RuntimeError, match="has been imported"):
        ours.replace_hpack()
