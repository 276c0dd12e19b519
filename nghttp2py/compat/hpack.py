"""The names of the ``hpack`` package, on nghttp2's HPACK (RFC 7541).

Write ``from nghttp2py.compat.hpack import Decoder, Encoder`` instead of ``from hpack
import ...``.  The errors of this module are not those of ``nghttp2py.errors``: they
have hpack's names and bases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
    "HeaderTuple",
    "InvalidTableIndex",
    "InvalidTableIndexError",
    "InvalidTableSizeError",
    "NeverIndexedHeaderTuple",
    "OversizedHeaderListError",
]

# The largest table that an encoder may be asked for; it is the peer's
# SETTINGS_HEADER_TABLE_SIZE, to which RFC 9113, 6.5.2, sets no bound below 2^32.
_LARGEST_TABLE = (1 << 32) - 1


class HPACKError(Exception):
    """Base of the errors of this module."""


class HPACKDecodingError(HPACKError):
    """A header block cannot be decoded; the connection is lost (RFC 7541, 2.3)."""


class InvalidTableIndexError(HPACKDecodingError):
    """An index that no table has. nghttp2 does not distinguish it from other errors."""


class InvalidTableIndex(InvalidTableIndexError):
    """The older name of ``InvalidTableIndexError``."""


class InvalidTableSizeError(HPACKDecodingError):
    """A table larger than allowed. nghttp2 does not distinguish it from other
    errors."""


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


class Encoder:
    """Encodes header lists into header blocks."""

    def __init__(self) -> None:
        self._deflater = HDDeflater(_LARGEST_TABLE)
        self._deflater.change_table_size(DEFAULT_HEADER_TABLE_SIZE)
        self._table_size = DEFAULT_HEADER_TABLE_SIZE

    @property
    def header_table_size(self) -> int:
        """Octets of the dynamic table, as the peer's SETTINGS allow it.

        A change is announced in the next block (RFC 7541, 4.2).
        """
        return self._table_size

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self._deflater.change_table_size(value)
        self._table_size = value

    def encode(
        self, headers: Iterable[Any] | Mapping[Any, Any], huffman: bool = True
    ) -> bytes:
        """Return the header block of ``headers``: pairs, triples or a mapping.

        The third element of a triple, if true, makes the field never-indexed, as
        does ``NeverIndexedHeaderTuple``.  Names and values are bytes, or str,
        which is encoded as UTF-8.  Pseudo-header fields of a mapping are put
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
    if isinstance(field, HeaderTuple) and not field.indexable:
        return NeverIndexed(field[0], field[1])
    return tuple(field)


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

        Raises ``HPACKDecodingError`` for a block that is invalid or not UTF-8,
        and ``OversizedHeaderListError``.
        """
        try:
            fields = self._inflater.inflate(data)
            return [_from_field(field, raw) for field in fields]
        except HeaderListTooLargeError as error:
            raise OversizedHeaderListError(str(error)) from error
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
