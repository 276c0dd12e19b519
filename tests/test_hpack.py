"""HDDeflater and HDInflater: what they take, give and refuse."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from nghttp2py import hpack
from nghttp2py.errors import (
    HeaderListTooLargeError,
    HPACKError,
    InvalidTableIndexError,
    InvalidTableSizeError,
    ProtocolError,
)
from nghttp2py.hpack import HDDeflater, HDInflater, NeverIndexed

# The first bits of a never-indexed literal (RFC 7541, 6.2.3).
NEVER_INDEXED = 0x10


def test_the_examples_of_the_old_documentation_run(capsys):
    """With the import line changed, and nothing else."""
    import binascii

    import nghttp2py as nghttp2

    deflater = nghttp2.HDDeflater()
    res = deflater.deflate([(b"foo", b"bar"), (b"baz", b"buz")])
    print(binascii.b2a_hex(res))

    deflater = nghttp2.HDDeflater()
    data = deflater.deflate([(b"foo", b"bar"), (b"baz", b"buz")])
    inflater = nghttp2.HDInflater()
    hdrs = inflater.inflate(data)
    print(hdrs)
    nghttp2.print_hd_table(inflater.get_hd_table())

    assert capsys.readouterr().out.splitlines() == [
        "b'408294e703626172400362617a0362757a'",
        "[(b'foo', b'bar'), (b'baz', b'buz')]",
        "[1] (s=38) baz: buz",
        "[2] (s=38) foo: bar",
    ]


def test_the_example_of_the_guide_runs():
    example = Path(__file__).parent.parent / "examples" / "header_proxy.py"
    result = subprocess.run(
        [sys.executable, example], capture_output=True, text=True, check=True
    )
    # The first block brings its entries, the second names them.
    assert result.stdout.splitlines() == [
        "28 bytes in, 36 bytes out",
        "25 bytes in, 26 bytes out",
        "[1] (s=42) via: 2 proxy",
        "[2] (s=53) user-agent: example/1.0",
    ]


def test_the_constants_have_their_old_values():
    assert hpack.DEFAULT_HEADER_TABLE_SIZE == 4096
    assert hpack.DEFLATE_MAX_HEADER_TABLE_SIZE == 4096
    assert hpack.HD_ENTRY_OVERHEAD == 32


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"1"), (b"b", "\u00fc".encode())],
        ((b"a", b"1"), (b"b", "\u00fc".encode())),
        [("a", "1"), ("b", "\u00fc")],
        [["a", b"1"], (b"b", "\u00fc")],
        [(bytearray(b"a"), memoryview(b"1")), ("b", "\u00fc")],
        {"a": "1", "b": "\u00fc"},
        {b"a": b"1", b"b": "\u00fc"},
        {"a": "1", "b": "\u00fc"}.items(),
        iter([("a", "1"), ("b", "\u00fc")]),
        (pair for pair in [("a", "1", False), ("b", "\u00fc", 0)]),
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_any_iterable_of_pairs_is_a_header_list(headers):
    block = HDDeflater().deflate(headers)
    assert HDInflater().inflate(block) == [(b"a", b"1"), (b"b", b"\xc3\xbc")]


def test_an_empty_header_list_is_an_empty_block():
    assert HDDeflater().deflate([]) == b""
    assert HDInflater().inflate(b"") == []


@pytest.mark.parametrize("count", [63, 64, 65, 128, 200])
def test_lists_of_any_length_survive(count):
    headers = [(b"name-%d" % i, b"value") for i in range(count)]
    assert HDInflater().inflate(HDDeflater().deflate(headers)) == headers


def test_values_larger_than_any_small_buffer_survive():
    headers = [(b"a", b"\xff" * 30_000), (b"b", b"x" * 20_000), (b"c", b"")]
    inflater = HDInflater(max_header_list_size=1 << 20)
    assert inflater.inflate(HDDeflater().deflate(headers)) == headers


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        "ab",
        b"ab",
        bytearray(b"ab"),
        ["ab"],
        [b"ab"],
        [("a",)],
        [("a", "b", False, "d")],
        [("a", 200)],
        [(1, "b")],
        [("a", None)],
        [None],
    ],
    ids=repr,
)
def test_what_is_no_header_list_is_refused_and_harms_nothing(headers):
    deflater = HDDeflater()
    with pytest.raises(TypeError):
        deflater.deflate(headers)
    assert deflater.deflate([(b"a", b"b")]) == HDDeflater().deflate([(b"a", b"b")])


@pytest.mark.parametrize("kind", [list, iter])
def test_a_str_that_utf8_cannot_express_is_refused(kind):
    deflater = HDDeflater()
    with pytest.raises(ValueError, match="surrogates not allowed"):
        deflater.deflate(kind([("a", "\ud800")]))
    assert deflater.num_table_entries == 61


def test_an_iterable_that_fails_harms_nothing():
    def headers():
        yield b"a", b"b"
        raise ZeroDivisionError

    deflater = HDDeflater()
    with pytest.raises(ZeroDivisionError):
        deflater.deflate(headers())
    assert deflater.dynamic_table_size == 0


def test_a_list_that_changes_while_it_is_read_harms_nothing():
    class Field:
        def __iter__(self):
            headers.clear()
            return iter((b"a" * 100, b"b" * 100))

    headers = [(b"first %d" % i, b"value") for i in range(10)]
    headers += [Field(), (b"last", b"value")]
    expected = [*headers[:10], (b"a" * 100, b"b" * 100)]
    assert HDInflater().inflate(HDDeflater().deflate(headers)) == expected


@pytest.mark.parametrize(
    "field",
    [
        ("x-token", "secret", True),
        (b"x-token", b"secret", 1),
        NeverIndexed(b"x-token", b"secret"),
        NeverIndexed("x-token", "secret"),
        ["x-token", "secret", True],
        ("authorization", "Basic eDp5"),
        ("Authorization", "Basic eDp5"),
        ("proxy-authorization", "Basic eDp5"),
        ["proxy-authorization", "Basic eDp5"],
        ("cookie", "a=19-bytes-of-crumb"),
        ("authorization", "Basic eDp5", False),
    ],
    ids=repr,
)
def test_a_sensitive_field_is_never_indexed(field):
    """RFC 7541, 7.1.3."""
    deflater, inflater = HDDeflater(), HDInflater()
    block = deflater.deflate([field])
    assert block[0] & 0xF0 == NEVER_INDEXED
    assert deflater.num_table_entries == 61
    (received,) = inflater.inflate(block)
    assert isinstance(received, NeverIndexed)
    # An intermediary that passes it on keeps the mark.
    assert HDDeflater().deflate([received])[0] & 0xF0 == NEVER_INDEXED


def test_a_mark_of_the_hpack_package_is_kept():
    import hpack as other

    field = other.NeverIndexedHeaderTuple(b"x-token", b"secret")
    assert HDDeflater().deflate([field])[0] & 0xF0 == NEVER_INDEXED
    assert HDDeflater().deflate([other.HeaderTuple(b"a", b"b")])[0] == 0x40


def test_a_cookie_of_twenty_bytes_is_indexed():
    deflater, inflater = HDDeflater(), HDInflater()
    (received,) = inflater.inflate(deflater.deflate([("cookie", "a" * 20)]))
    assert type(received) is tuple
    assert deflater.num_table_entries == 62


def test_a_never_indexed_pair_is_a_pair():
    field = NeverIndexed(b"a", b"b")
    name, value = field
    assert (name, value) == field == (b"a", b"b")
    assert repr(field) == "NeverIndexed(b'a', b'b')"
    for same in (
        copy.copy(field),
        copy.deepcopy(field),
        pickle.loads(pickle.dumps(field)),
    ):
        assert type(same) is NeverIndexed
        assert same == field


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_a_block_may_come_in_pieces(chunk):
    headers = [
        (b":method", b"GET"),
        (b"authorization", b"Basic eDp5"),
        (b"custom-key", b"custom value" * 30),
        (b":path", b"/sample/path"),
    ]
    deflater, whole, inflater = HDDeflater(), HDInflater(), HDInflater()
    for _ in range(3):
        block = deflater.deflate(headers)
        received = []
        for i in range(0, len(block), chunk):
            received += inflater.inflate(block[i : i + chunk], final=False)
        received += inflater.inflate(b"", final=True)
        assert received == whole.inflate(block) == headers
        assert inflater.get_hd_table() == whole.get_hd_table()


def test_the_last_piece_may_carry_data():
    block = HDDeflater().deflate([(b"a", b"b"), (b"c", b"d")])
    inflater = HDInflater()
    assert inflater.inflate(block[:-2], False) == [(b"a", b"b")]
    assert inflater.inflate(block[-2:]) == [(b"c", b"d")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_inflated(kind):
    block = kind(HDDeflater().deflate([(b"a", b"b")]))
    assert HDInflater().inflate(block) == [(b"a", b"b")]


@pytest.mark.parametrize("data", [None, "82", 1, [0x82]], ids=repr)
def test_what_is_no_buffer_is_refused_and_harms_nothing(data):
    inflater = HDInflater()
    with pytest.raises(TypeError):
        inflater.inflate(data)
    assert inflater.inflate(b"\x82") == [(b":method", b"GET")]


# A block, the error's type, the octet that it names, and the reason.
MALFORMED = {
    "index 0": ("80", InvalidTableIndexError, 0, "index 0 is not in the table"),
    "an index beyond the table": (
        "82 be",
        InvalidTableIndexError,
        1,
        "index 62 is not in the table, whose last is 61",
    ),
    "an index beyond what is added": (
        "40 0161 0162 be bf",
        InvalidTableIndexError,
        6,
        "index 63 is not in the table, whose last is 62",
    ),
    "a name's index beyond the table": (
        "7f8001 0161",
        InvalidTableIndexError,
        0,
        "index 191 is not",
    ),
    "an index of more than 32 bits": ("ffffffffffff0f", HPACKError, 0, "32 bits"),
    "an index without end": ("ff80808080808080808080", HPACKError, 0, "32 bits"),
    "a cut index": ("82 ff", HPACKError, 1, "ends within it"),
    "a cut name": ("40 0561", HPACKError, 0, "ends within it"),
    "a cut value": ("40 0161 0562", HPACKError, 0, "ends within it"),
    "no value": ("40 0161", HPACKError, 0, "ends within it"),
    "a long value": ("00 0161 7f82ff03" + "62" * 65537, HPACKError, 0, "too long"),
    "a length of more than 32 bits": ("40 7fffffffffff0f", HPACKError, 0, "32 bits"),
    "Huffman padding of eight bits": ("40 0161 82 1fff", HPACKError, 0, "Huffman"),
    "Huffman padding of zeros": ("40 0161 81 18", HPACKError, 0, "Huffman"),
    "the Huffman end of string": ("40 0161 84 ffffffff", HPACKError, 0, "Huffman"),
    "a table size above the limit": (
        "3fe21f",
        InvalidTableSizeError,
        0,
        "a table of 4097 octets, where 4096 are allowed",
    ),
    "a table size after a field": ("82 20", InvalidTableSizeError, 1, "after a field"),
    "a cut table size": ("3f", HPACKError, 0, "ends within it"),
    "nothing after a table size": ("20 be", InvalidTableIndexError, 1, "index 62"),
}


@pytest.mark.parametrize(
    ("block", "kind", "octet", "reason"), MALFORMED.values(), ids=MALFORMED
)
def test_a_malformed_block_raises_and_every_later_call_too(block, kind, octet, reason):
    inflater = HDInflater()
    with pytest.raises(HPACKError, match=rf"at octet {octet}: .*{reason}") as caught:
        inflater.inflate(bytes.fromhex(block))
    assert type(caught.value) is kind
    assert caught.value.code < 0
    for call in (
        lambda: inflater.inflate(b"\x82"),
        lambda: inflater.inflate(b"", final=False),
        lambda: inflater.change_table_size(0),
    ):
        with pytest.raises(HPACKError, match="lost in an earlier error") as caught:
            call()
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "block", [case[0] for case in MALFORMED.values()], ids=MALFORMED
)
def test_a_malformed_block_raises_in_pieces_too(block):
    inflater = HDInflater()
    with pytest.raises(HPACKError):
        for byte in bytes.fromhex(block):
            inflater.inflate(bytes([byte]), final=False)
        inflater.inflate(b"")


def test_a_header_list_above_the_bound_raises_and_every_later_call_too():
    """RFC 9113, 10.5.1: a short block may name a large entry many times."""
    deflater, inflater = HDDeflater(), HDInflater()
    assert inflater.max_header_list_size == 65536
    inflater.inflate(deflater.deflate([(b"a", b"x" * 3000)]))
    with pytest.raises(HeaderListTooLargeError, match="65536 bytes"):
        inflater.inflate(b"\xbe" * 1000)
    with pytest.raises(HeaderListTooLargeError):
        inflater.inflate(b"\x82")


def test_the_bound_counts_name_value_and_32_for_each_field():
    block = HDDeflater().deflate([(b"a", b"bc"), (b"d", b"")])
    assert len(HDInflater(max_header_list_size=68).inflate(block)) == 2
    with pytest.raises(HeaderListTooLargeError):
        HDInflater(max_header_list_size=67).inflate(block)


def test_the_bound_is_on_a_block_and_not_on_its_pieces():
    inflater = HDInflater(max_header_list_size=100)
    for _ in range(5):
        inflater.inflate(b"\x82\x84", final=False)
        inflater.inflate(b"")
    inflater.inflate(b"\x82\x84", final=False)
    with pytest.raises(HeaderListTooLargeError):
        inflater.inflate(b"\x87", final=False)


def test_the_bound_can_be_set():
    inflater = HDInflater()
    inflater.max_header_list_size = 41
    with pytest.raises(ValueError):
        inflater.max_header_list_size = -1
    with pytest.raises(TypeError):
        inflater.max_header_list_size = None
    assert inflater.max_header_list_size == 41
    with pytest.raises(HeaderListTooLargeError):
        inflater.inflate(b"\x82")


SIZES_REFUSED = [
    (-1, ValueError),
    (2**32, ValueError),
    (2**40, ValueError),
    (2**70, ValueError),
    ("x", TypeError),
    (None, TypeError),
    (1.5, TypeError),
    (b"1", TypeError),
]


@pytest.mark.parametrize(("size", "error"), SIZES_REFUSED)
def test_a_wrong_size_is_refused(size, error):
    with pytest.raises(error):
        HDDeflater(size)
    with pytest.raises(error):
        HDInflater(max_header_list_size=size)
    for coder in HDDeflater(), HDInflater():
        with pytest.raises(error):
            coder.change_table_size(size)
    with pytest.raises(TypeError):
        HDInflater(4096)
    with pytest.raises(TypeError):
        HDDeflater(1, 2)


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 65536, 2**32 - 1])
def test_every_size_of_a_setting_can_be_used(size):
    deflater, inflater = HDDeflater(size), HDInflater()
    deflater.change_table_size(size)
    inflater.change_table_size(size)
    headers = [(b"name-%d" % i, b"value") for i in range(300)]
    for _ in range(2):
        assert inflater.inflate(deflater.deflate(headers)) == headers
        assert deflater.get_hd_table() == inflater.get_hd_table()
        assert deflater.dynamic_table_size <= size
        assert deflater.max_dynamic_table_size == size
        assert inflater.max_dynamic_table_size == size


def test_a_deflater_keeps_below_its_own_limit():
    deflater = HDDeflater(100)
    deflater.change_table_size(4096)
    # The first block says so (RFC 7541, 4.2): 100 is 31 + 69.
    assert deflater.deflate([]) == bytes.fromhex("3f45")
    assert deflater.max_dynamic_table_size == 100


def test_lowering_and_raising_the_table_says_both():
    """RFC 7541, 4.2: the lowest size is signalled, and the last."""
    deflater, inflater = HDDeflater(), HDInflater()
    inflater.inflate(deflater.deflate([(b"a", b"b")]))
    for size in 0, 4096:
        deflater.change_table_size(size)
        inflater.change_table_size(size)
    block = deflater.deflate([(b"a", b"b")])
    assert block.startswith(bytes.fromhex("20 3fe11f 40"))
    assert inflater.inflate(block) == [(b"a", b"b")]


@pytest.mark.parametrize(
    "block", [b"\x82", b"\x40\x01a\x01b", b"\x04\x01/", b"\x40\x01a\x81\x1f", b"\xbe"]
)
def test_a_lower_limit_that_the_peer_ignores_is_an_error(block):
    inflater = HDInflater()
    inflater.change_table_size(100)
    with pytest.raises(InvalidTableSizeError, match=r"at octet 0: .* is missing"):
        inflater.inflate(block)


def test_the_lowest_of_two_limits_must_come_first():
    inflater = HDInflater()
    for size in 0, 4096:
        inflater.change_table_size(size)
    with pytest.raises(InvalidTableSizeError, match="of 30 octets, where 0 are"):
        inflater.inflate(b"\x3e\x82")


def test_a_limit_that_the_peer_has_obeyed_is_not_missing_later():
    inflater = HDInflater()
    inflater.change_table_size(100)
    assert inflater.inflate(b"\x20\x82") == [(b":method", b"GET")]
    with pytest.raises(HPACKError, match="Huffman"):
        inflater.inflate(bytes.fromhex("40 0161 81 18"))


def test_the_table_size_cannot_change_within_a_block():
    inflater = HDInflater()
    inflater.inflate(b"\x82", final=False)
    with pytest.raises(ProtocolError):
        inflater.change_table_size(100)
    # That was the caller's mistake: the coder goes on.
    assert inflater.inflate(b"\x84") == [(b":path", b"/")]
    inflater.change_table_size(100)


def test_set_no_refset_is_accepted_and_does_nothing():
    deflater = HDDeflater()
    with pytest.warns(DeprecationWarning, match="no reference set") as caught:
        assert deflater.set_no_refset(1) is None
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert deflater.deflate([(b"a", b"b")]) == HDDeflater().deflate([(b"a", b"b")])


@pytest.mark.parametrize("coder", [HDDeflater, HDInflater])
def test_a_coder_made_without_its_initialiser_is_whole(coder):
    assert coder.__new__(coder).num_table_entries == 61


@pytest.mark.parametrize("coder", [HDDeflater, HDInflater])
def test_a_coder_cannot_be_pickled(coder):
    with pytest.raises(TypeError):
        pickle.dumps(coder())


class NamedDeflater(HDDeflater):
    def __init__(self, name, *, size):
        super().__init__(size)
        self.name = name


class NamedInflater(HDInflater):
    def __init__(self, name, size):
        super().__init__(max_header_list_size=size)
        self.name = name


class Careless(HDDeflater):
    def __init__(self, *args):
        pass


def test_coders_may_have_subclasses_with_other_arguments():
    deflater = NamedDeflater("a", size=100)
    inflater = NamedInflater("b", 1000)
    assert (deflater.name, inflater.name) == ("a", "b")
    assert deflater.max_dynamic_table_size == 100
    assert inflater.max_header_list_size == 1000
    assert inflater.inflate(deflater.deflate([("a", "b")])) == [(b"a", b"b")]
    assert Careless(1, 2).deflate([("a", "b")])


def test_a_deflater_that_is_initialised_again_is_new():
    deflater = HDDeflater()
    first = deflater.deflate([("a", "b")])
    assert deflater.dynamic_table_size > 0
    deflater.__init__()
    assert deflater.dynamic_table_size == 0
    assert deflater.deflate([("a", "b")]) == first
