"""HPACK against itself and against the hpack package, with any header lists."""

from __future__ import annotations

import hpack as other
from hypothesis import given, settings
from hypothesis import strategies as st

from nghttp2py.errors import HeaderListTooLargeError, HPACKError
from nghttp2py.hpack import HDDeflater, HDInflater, NeverIndexed

# The machine may be busy: an example's time says nothing.
settings.register_profile("nghttp2py", deadline=None)
settings.load_profile("nghttp2py")

# Names that the static table knows, names that it does not, and any bytes.
NAMES = st.one_of(
    st.sampled_from(
        [b":method", b":path", b"cookie", b"authorization", b"set-cookie", b"x-a"]
    ),
    st.binary(min_size=1, max_size=30),
)
VALUES = st.one_of(
    st.sampled_from([b"", b"GET", b"/", b"a" * 19, b"a" * 20]),
    st.binary(max_size=80),
    st.text(max_size=20).map(str.encode),
)
FIELDS = st.tuples(NAMES, VALUES)
SIZES = st.sampled_from([0, 31, 32, 64, 100, 500, 4096, 20_000])
# What happens on a connection: header lists, and changes of the table's size.
STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12),
        SIZES,
    ),
    max_size=12,
)


def pairs(fields):
    return [(name, value) for name, value, _ in fields]


def in_pieces(inflater, block, chunk):
    received = []
    for i in range(0, len(block), chunk):
        received += inflater.inflate(block[i : i + chunk], final=False)
    return received + inflater.inflate(b"")


@given(STEPS, SIZES, st.integers(1, 50))
def test_any_header_list_survives_changes_of_the_table(steps, limit, chunk):
    deflater, whole, pieces = HDDeflater(limit), HDInflater(), HDInflater()
    for step in steps:
        if isinstance(step, int):
            deflater.change_table_size(step)
            # The inflaters' limit is what they have announced.
            whole.change_table_size(step)
            pieces.change_table_size(step)
            continue
        block = deflater.deflate(step)
        received = whole.inflate(block)
        assert received == in_pieces(pieces, block, chunk) == pairs(step)
        for (_, _, sensitive), field in zip(step, received, strict=True):
            assert isinstance(field, NeverIndexed) or not sensitive
        assert deflater.get_hd_table() == whole.get_hd_table() == pieces.get_hd_table()
        assert whole.dynamic_table_size <= min(limit, whole.max_dynamic_table_size)


@given(STEPS)
def test_the_hpack_package_understands_what_we_encode(steps):
    deflater = HDDeflater(20_000)
    decoder = other.Decoder(max_header_list_size=1 << 20)
    for step in steps:
        if isinstance(step, int):
            deflater.change_table_size(step)
            decoder.max_allowed_table_size = step
            continue
        received = decoder.decode(deflater.deflate(step), raw=True)
        assert [tuple(field) for field in received] == pairs(step)
        for (_, _, sensitive), field in zip(step, received, strict=True):
            assert not (sensitive and field.indexable)
        assert [(e.name, e.value) for e in deflater.get_hd_table()] == list(
            decoder.header_table.dynamic_entries
        )


@given(STEPS, st.booleans())
def test_we_understand_what_the_hpack_package_encodes(steps, huffman):
    encoder, inflater = other.Encoder(), HDInflater(max_header_list_size=1 << 20)
    size = 4096
    for step in steps:
        if isinstance(step, int):
            size = step
            continue
        # Once before a block: that package announces every size that was set,
        # even one above the last limit, which RFC 7541, 6.3 forbids, and
        # nothing if the same is set again.
        if size != encoder.header_table_size:
            encoder.header_table_size = size
            inflater.change_table_size(size)
        received = inflater.inflate(encoder.encode(step, huffman=huffman))
        assert received == pairs(step)
        for (_, _, sensitive), field in zip(step, received, strict=True):
            # A sensitive field that the table has already is indexed all the same.
            assert sensitive or not isinstance(field, NeverIndexed)
        assert [(e.name, e.value) for e in inflater.get_hd_table()] == list(
            encoder.header_table.dynamic_entries
        )


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(1, 60))
def test_any_bytes_are_decoded_alike_whole_and_in_pieces(blocks, chunk):
    whole, pieces = HDInflater(), HDInflater()
    for block in blocks:
        results = []
        for decode in (whole.inflate, lambda data: in_pieces(pieces, data, chunk)):
            try:
                results.append(decode(block))
            except HeaderListTooLargeError:
                results.append(HeaderListTooLargeError)
            except HPACKError:
                # Only a block that comes whole has a more precise type.
                results.append(HPACKError)
        assert results[0] == results[1]


@given(st.lists(FIELDS, min_size=1, max_size=8), st.data())
def test_a_cut_block_raises_or_lacks_whole_fields(fields, data):
    block = HDDeflater().deflate(fields)
    cut = data.draw(st.integers(0, len(block) - 1))
    try:
        received = HDInflater().inflate(block[:cut])
    except HPACKError:
        return
    assert len(received) < len(fields)
    assert received == fields[: len(received)]
