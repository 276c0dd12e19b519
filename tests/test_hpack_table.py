"""HDTableEntry and print_hd_table: as the old binding had them."""

from __future__ import annotations

import io

import pytest

from nghttp2py.hpack import HDDeflater, HDInflater, HDTableEntry, print_hd_table


@pytest.fixture
def hdtable():
    inflater = HDInflater()
    inflater.inflate(HDDeflater().deflate([("foo", "bar"), ("baz", b"\xc3\xbc\xff")]))
    return inflater.get_hd_table()


def test_the_table_is_printed_in_the_last_format(hdtable, capsys):
    print_hd_table(hdtable)
    assert (
        capsys.readouterr().out == "[1] (s=38) baz: \u00fc\\xff\n[2] (s=38) foo: bar\n"
    )


def test_the_table_is_printed_in_the_format_with_a_reference_set(hdtable):
    file = io.StringIO()
    print_hd_table(hdtable, refset=True, file=file)
    assert file.getvalue() == (
        "[1] (s=38) (r=n) baz: \u00fc\\xff\n[2] (s=38) (r=n) foo: bar\n"
    )


def test_an_empty_table_prints_nothing(capsys):
    print_hd_table(HDDeflater().get_hd_table())
    assert capsys.readouterr().out == ""


def test_an_entry_has_the_old_attributes():
    entry = HDTableEntry(b"foo", 3, b"bar", 3)
    assert (entry.name, entry.namelen) == (b"foo", 3)
    assert (entry.value, entry.valuelen) == (b"bar", 3)
    assert entry.space() == 38
    assert entry.ref is False
    assert repr(entry) == "HDTableEntry(b'foo', 3, b'bar', 3)"


@pytest.mark.parametrize("ref", [True, False])
def test_the_fifth_argument_of_an_entry_is_accepted(ref):
    """RFC 7541 has no reference set: no entry is ever in it."""
    assert HDTableEntry(b"foo", 3, b"bar", 3, ref).ref is False
    assert HDTableEntry(b"foo", 3, b"bar", 3, ref=ref).ref is False


def test_entries_compare_by_what_they_hold():
    entry = HDTableEntry(b"foo", 3, b"bar", 3)
    assert entry == HDTableEntry(b"foo", 3, b"bar", 3)
    assert hash(entry) == hash(HDTableEntry(b"foo", 3, b"bar", 3))
    assert entry != HDTableEntry(b"foo", 3, b"baz", 3)
    assert entry != (b"foo", 3, b"bar", 3)


def test_an_entry_of_wrong_types_is_refused():
    for arguments in ("foo", 3, b"bar", 3), (b"foo", 3, None, 3), (b"foo", "3", b"", 0):
        with pytest.raises(TypeError):
            HDTableEntry(*arguments)


def test_an_entry_cannot_be_changed(hdtable):
    for name in "name", "namelen", "value", "valuelen", "ref":
        with pytest.raises(AttributeError):
            setattr(hdtable[0], name, None)


def test_a_table_is_a_copy():
    deflater = HDDeflater()
    deflater.deflate([("foo", "bar")])
    before = deflater.get_hd_table()
    deflater.deflate([("baz", "buz")])
    assert len(before) == 1
    assert len(deflater.get_hd_table()) == 2
    del deflater
    assert before[0].name == b"foo"
