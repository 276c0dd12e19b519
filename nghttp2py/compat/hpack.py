"""The names of the ``hpack`` package, on nghttp2's HPACK (RFC 7541).

Write ``from nghttp2py.compat.hpack import Decoder, Encoder`` instead of ``from hpack
import ...``, or call ``replace_hpack`` before ``h2`` or another user of hpack is
imported.  The errors of this module are not those of ``nghttp2py.errors``: they have
hpack's names and bases.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from nghttp2py import errors as _errors
from nghttp2py.errors import HeaderListTooLargeError
from nghttp2py.errors import HPACKError as _CoderError
from nghttp2py.hpack import (
    DEFAULT_HEADER_TABLE_SIZE,
    DEFAULT_MAX_HEADER_LIST_SIZE,
    HDDeflater,
    HDInflater,
    NeverIndexed,
)

__all__ = [
    "Decoder",
    "Encoder",
    "HPACKDecodingError",
    "HPACKError",
    "HeaderTable",
    "HeaderTuple",
    "InvalidTableIndex",
    "InvalidTableIndexError",
    "InvalidTableSizeError",
    "NeverIndexedHeaderTuple",
    "OversizedHeaderListError",
    "replace_hpack",
]

# The largest table that an encoder may be asked for; it is the peer's
# SETTINGS_HEADER_TABLE_SIZE, to which RFC 9113, 6.5.2, sets no bound below 2^32.
_LARGEST_TABLE = (1 << 32) - 1


class HPACKError(Exception):
    """Base of the errors of this module."""


class HPACKDecodingError(HPACKError):
    """A header block cannot be decoded; the connection is lost (RFC 7541, 2.3)."""


class InvalidTableIndexError(HPACKDecodingError):
    """An index that neither table has (RFC 7541, 2.3.3)."""


class InvalidTableIndex(InvalidTableIndexError):
    """The older name of ``InvalidTableIndexError``."""


class InvalidTableSizeError(HPACKDecodingError):
    """The table's size is changed as it must not be, or not though it must (4.2)."""


class OversizedHeaderListError(HPACKDecodingError):
    """A header list is larger than ``max_header_list_size``."""


class HeaderTuple(tuple[Any, Any]):
    """A header field, ``(name, value)``; ``indexable`` limits how it may be encoded."""

    __slots__ = ()
    #: Whether an encoder may put the field into its table (RFC 7541, 7.1.3).
    indexable = True

    def __new__(cls, *args: Any) -> HeaderTuple:
        """Make a field from its name and its value."""
        return tuple.__new__(cls, args)


class NeverIndexedHeaderTuple(HeaderTuple):
    """A field that is encoded as a never-indexed literal (RFC 7541, 7.1.3)."""

    __slots__ = ()
    #: False: the field is encoded as a literal each time.
    indexable = False


class HeaderTable:
    """The dynamic table of a coder, to be read."""

    def __init__(self, coder: HDDeflater | HDInflater) -> None:
        self._coder = coder

    @property
    def dynamic_entries(self) -> list[tuple[bytes, bytes]]:
        """The entries, the newest first: name and value of each."""
        return [(entry.name, entry.value) for entry in self._coder.get_hd_table()]

    @property
    def maxsize(self) -> int:
        """Octets that the entries may take (RFC 7541, 4.1)."""
        return self._coder.max_dynamic_table_size

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        """Return the entry of either table that has ``index``.

        Raises ``InvalidTableIndexError`` if there is none.
        """
        try:
            entry = self._coder.get_table_entry(index)
        except IndexError as error:
            raise InvalidTableIndexError(str(error)) from error
        return entry.name, entry.value


class Encoder:
    """Encodes header lists into header blocks."""

    def __init__(self) -> None:
        # Until a change is asked for, the table has the size that needs none.
        self._deflater = HDDeflater(_LARGEST_TABLE)
        self._table_size = DEFAULT_HEADER_TABLE_SIZE

    @property
    def header_table(self) -> HeaderTable:
        """The dynamic table."""
        return HeaderTable(self._deflater)

    @property
    def header_table_size(self) -> int:
        """Octets of the dynamic table, as the peer's SETTINGS allow it.

        A change is announced in the next block (RFC 7541, 4.2).
        """
        return self._table_size

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        if value != self._table_size:
            self._deflater.change_table_size(value)
            self._table_size = value

    def encode(
        self, headers: Iterable[Any] | Mapping[Any, Any], huffman: bool = True
    ) -> bytes:
        """Return the header block of ``headers``: pairs, triples or a mapping.

        The third element of a triple, if true, makes the field never-indexed, as
        does ``NeverIndexedHeaderTuple``.  Names and values are bytes, or anything
        whose str is encoded as UTF-8.  Pseudo-header fields of a mapping are put
        first.  nghttp2 uses Huffman codes where they are shorter: ``huffman`` is
        accepted and has no effect.
        """
        if isinstance(headers, Mapping):
            fields = sorted(headers.items(), key=_is_regular)
        else:
            fields = list(headers)
        return self._deflater.deflate([_to_field(field) for field in fields])


def _is_regular(field: tuple[Any, Any]) -> bool:
    return field[0][:1] not in (":", b":")


def _to_field(field: Any) -> Any:
    name, value = _to_bytes(field[0]), _to_bytes(field[1])
    if isinstance(field, HeaderTuple):
        sensitive = not field.indexable
    else:
        sensitive = len(field) > 2 and bool(field[2])
    return NeverIndexed(name, value) if sensitive else (name, value)


def _to_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


class Decoder:
    """Decodes header blocks into header lists."""

    def __init__(
        self, max_header_list_size: int = DEFAULT_MAX_HEADER_LIST_SIZE
    ) -> None:
        self._inflater = HDInflater(max_header_list_size=max_header_list_size)
        self._allowed = DEFAULT_HEADER_TABLE_SIZE

    @property
    def max_header_list_size(self) -> int:
        """Octets of a decoded list, with 32 more for each field."""
        return self._inflater.max_header_list_size

    @max_header_list_size.setter
    def max_header_list_size(self, value: int) -> None:
        self._inflater.max_header_list_size = value

    @property
    def header_table(self) -> HeaderTable:
        """The dynamic table."""
        return HeaderTable(self._inflater)

    @property
    def header_table_size(self) -> int:
        """Octets that the dynamic table may take now, as the encoder has announced."""
        return self._inflater.max_dynamic_table_size

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self.max_allowed_table_size = value

    @property
    def max_allowed_table_size(self) -> int:
        """Octets of the dynamic table that our SETTINGS allow the encoder."""
        return self._allowed

    @max_allowed_table_size.setter
    def max_allowed_table_size(self, value: int) -> None:
        self._inflater.change_table_size(value)
        self._allowed = value

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        """Return the header list of a whole block: str, or bytes if ``raw``.

        Raises ``HPACKDecodingError`` for a block that is invalid or not UTF-8;
        ``InvalidTableIndexError``, ``InvalidTableSizeError`` and
        ``OversizedHeaderListError`` are kinds of it.
        """
        try:
            fields = self._inflater.inflate(data)
            return [_from_field(field, raw) for field in fields]
        except HeaderListTooLargeError as error:
            raise OversizedHeaderListError(str(error)) from error
        except _errors.InvalidTableIndexError as error:
            raise InvalidTableIndex(str(error)) from error
        except _errors.InvalidTableSizeError as error:
            raise InvalidTableSizeError(str(error)) from error
        except _CoderError as error:
            raise HPACKDecodingError(str(error)) from error
        except UnicodeDecodeError as error:
            raise HPACKDecodingError(f"a field is not UTF-8: {error}") from error


def _from_field(field: tuple[bytes, bytes], raw: bool) -> HeaderTuple:
    name, value = field
    kind = NeverIndexedHeaderTuple if isinstance(field, NeverIndexed) else HeaderTuple
    if raw:
        return kind(name, value)
    return kind(name.decode(), value.decode())


def replace_hpack() -> None:
    """Let ``import hpack``, and its modules' names, mean this module.

    For programs that use the h2 package: call it before ``h2`` is imported.  Raises
    RuntimeError if hpack has been imported, whose names others may hold already.
    """
    this = sys.modules[__name__]
    names = ["hpack", "hpack.hpack", "hpack.exceptions", "hpack.struct"]
    if sys.modules.get("hpack", this) is not this:
        raise RuntimeError("hpack has been imported: replace it before that")
    sys.modules.update(dict.fromkeys(names, this))
