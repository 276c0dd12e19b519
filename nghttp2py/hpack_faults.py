"""Find where a header block is malformed, and why (RFC 7541).

nghttp2 has one error for all of that.  ``HDInflater`` asks here once it has failed, so
that decoding itself costs nothing more.
"""

from __future__ import annotations

from nghttp2py.errors import (
    HPACKError,
    InvalidTableIndexError,
    InvalidTableSizeError,
)

# No integer of HPACK that means anything is larger (RFC 7541, 5.1).
_LARGEST = (1 << 32) - 1
# Octets of a string that nghttp2 accepts (NGHTTP2_HD_MAX_NV).
_LONGEST = 65536


class _CutError(Exception):
    """The block ends within an integer or a string."""


class _TooLargeError(Exception):
    """An integer has more than 32 bits."""


def fault_of(
    block: bytes,
    offset: int,
    entries: int,
    allowed: int,
    reduced: int | None,
    code: int | None,
) -> HPACKError:
    """Return the exception for ``block``, which cannot be decoded from ``offset`` on.

    A field, or a change of the table's size, begins at ``offset``.  ``entries`` is the
    number of entries of both tables at that point, ``allowed`` the octets that the
    dynamic table may have, ``reduced`` the octets to which, at most, the block must
    change it first (RFC 7541, 4.2), ``code`` nghttp2's error.
    """
    kind, at, reason = _reason(block, offset, entries, allowed, reduced)
    return kind(f"malformed header block at octet {at}: {reason}", code=code)


def _reason(
    block: bytes, at: int, entries: int, allowed: int, reduced: int | None
) -> tuple[type[HPACKError], int, str]:
    begin = at
    bound = allowed if reduced is None else reduced
    try:
        while at < len(block):
            first = block[at]
            if first & 0xE0 != 0x20:
                if reduced is not None and at == 0:
                    text = (
                        "the change of the table's size that was asked for is missing"
                    )
                    return InvalidTableSizeError, at, text
                return _fault_of_field(block, at, entries)
            size, end = _integer(block, at, 5)
            if begin > 0:
                # Fields came before it (RFC 7541, 4.2).
                text = "a change of the table's size after a field"
                return InvalidTableSizeError, at, text
            if size > bound:
                text = f"a table of {size} octets, where {bound} are allowed"
                return InvalidTableSizeError, at, text
            bound = allowed
            at = end
    except _CutError:
        return HPACKError, at, "the block ends within it"
    except _TooLargeError:
        return HPACKError, at, "an integer has more than 32 bits"
    return HPACKError, at, "the block ends too early"


def _fault_of_field(
    block: bytes, at: int, entries: int
) -> tuple[type[HPACKError], int, str]:
    first = block[at]
    bits = 7 if first & 0x80 else 6 if first & 0x40 else 4
    index, end = _integer(block, at, bits)
    if index > entries or (index == 0 and bits == 7):
        text = f"index {index} is not in the table, whose last is {entries}"
        return InvalidTableIndexError, at, text
    for _ in range(0 if bits == 7 else 1 if index else 2):
        length, end = _integer(block, end, 7)
        if length > _LONGEST:
            return HPACKError, at, f"a string of {length} octets is too long"
        if length > len(block) - end:
            raise _CutError
        end += length
    return HPACKError, at, "a string is no valid Huffman code (RFC 7541, 5.2)"


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read an integer with a prefix of ``bits``; return it and where it ends."""
    if at >= len(block):
        raise _CutError
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while at < len(block):
        value += (block[at] & 0x7F) << shift
        if value > _LARGEST or shift > 28:
            raise _TooLargeError
        at += 1
        if block[at - 1] < 0x80:
            return value, at
        shift += 7
    raise _CutError
