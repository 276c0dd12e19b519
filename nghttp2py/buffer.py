"""Integers and octets in a byte string, by aioquic's names (``aioquic.buffer``).

This is for programs that demultiplex QUIC packets themselves.  In this package C reads
and writes packets, and only ``quic.header`` uses this module.
"""

from __future__ import annotations

__all__ = [
    "UINT_VAR_MAX",
    "UINT_VAR_MAX_SIZE",
    "Buffer",
    "BufferReadError",
    "BufferWriteError",
    "encode_uint_var",
    "size_uint_var",
]

#: The largest variable-length integer (RFC 9000, 16), and the octets it takes.
UINT_VAR_MAX = (1 << 62) - 1
UINT_VAR_MAX_SIZE = 8


class BufferReadError(ValueError):
    """The octets that were asked for are not in the buffer."""


class BufferWriteError(ValueError):
    """The octets do not fit into the buffer."""


def size_uint_var(value: int) -> int:
    """Return how many octets a variable-length integer takes (RFC 9000, 16).

    Raises ``ValueError`` unless ``value`` is 0 to 2^62 - 1.
    """
    for size in (1, 2, 4, 8):
        if value >> (8 * size - 2) == 0:
            return size
    if value < 0:
        raise ValueError(f"A variable-length integer cannot be negative: {value}")
    raise ValueError("Integer is too big for a variable-length integer")


def encode_uint_var(value: int) -> bytes:
    """Return a variable-length integer in its shortest form (RFC 9000, 16).

    Raises as ``size_uint_var`` does.
    """
    size = size_uint_var(value)
    prefix = (size.bit_length() - 1) << (8 * size - 2)
    return (prefix | value).to_bytes(size, "big")


class Buffer:
    """A byte string of a fixed capacity, with a position.

    It is made from ``data``, to be read, or with ``capacity`` octets, to be written.
    ``pull_`` methods read at the position, ``push_`` methods write there; both move it.
    A call that raises ``BufferReadError`` or ``BufferWriteError`` leaves it where it
    was.
    """

    def __init__(self, capacity: int | None = 0, data: bytes | None = None) -> None:
        if data is None:
            if capacity is None or capacity < 0:
                raise ValueError("capacity cannot be negative")
            data = bytes(capacity)
        self._octets = bytearray(data)
        self._position = 0

    @property
    def capacity(self) -> int:
        """The number of octets that the buffer holds at most."""
        return len(self._octets)

    @property
    def data(self) -> bytes:
        """The octets before the position: what has been read or written."""
        return bytes(self._octets[: self._position])

    def data_slice(self, start: int, end: int) -> bytes:
        """Return the octets from ``start`` to ``end``, wherever the position is."""
        if not 0 <= start <= end <= len(self._octets):
            raise BufferReadError("Read out of bounds")
        return bytes(self._octets[start:end])

    def eof(self) -> bool:
        """Whether the position is the end."""
        return self._position == len(self._octets)

    def seek(self, pos: int) -> None:
        """Move the position to ``pos``, counted from the start."""
        if not 0 <= pos <= len(self._octets):
            raise BufferReadError("Seek out of bounds")
        self._position = pos

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def pull_bytes(self, length: int) -> bytes:
        """Read ``length`` octets."""
        end = self._position + length
        if length < 0 or end > len(self._octets):
            raise BufferReadError("Read out of bounds")
        octets = bytes(self._octets[self._position : end])
        self._position = end
        return octets

    def pull_uint8(self) -> int:
        """Read an integer of 8 bits."""
        return int.from_bytes(self.pull_bytes(1), "big")

    def pull_uint16(self) -> int:
        """Read an integer of 16 bits in network order."""
        return int.from_bytes(self.pull_bytes(2), "big")

    def pull_uint32(self) -> int:
        """Read an integer of 32 bits in network order."""
        return int.from_bytes(self.pull_bytes(4), "big")

    def pull_uint64(self) -> int:
        """Read an integer of 64 bits in network order."""
        return int.from_bytes(self.pull_bytes(8), "big")

    def pull_uint_var(self) -> int:
        """Read a variable-length integer (RFC 9000, 16)."""
        if self.eof():
            raise BufferReadError("Read out of bounds")
        size = 1 << (self._octets[self._position] >> 6)
        return int.from_bytes(self.pull_bytes(size), "big") & (1 << (8 * size - 2)) - 1

    def push_bytes(self, value: bytes) -> None:
        """Write octets."""
        end = self._position + len(value)
        if end > len(self._octets):
            raise BufferWriteError("Write out of bounds")
        self._octets[self._position : end] = value
        self._position = end

    def push_uint8(self, value: int) -> None:
        """Write an integer of 8 bits."""
        self._push(value, 1)

    def push_uint16(self, value: int) -> None:
        """Write an integer of 16 bits in network order."""
        self._push(value, 2)

    def push_uint32(self, value: int) -> None:
        """Write an integer of 32 bits in network order."""
        self._push(value, 4)

    def push_uint64(self, value: int) -> None:
        """Write an integer of 64 bits in network order."""
        self._push(value, 8)

    def push_uint_var(self, value: int) -> None:
        """Write a variable-length integer in its shortest form (RFC 9000, 16)."""
        self.push_bytes(encode_uint_var(value))

    def _push(self, value: int, size: int) -> None:
        # Only the low bits of a larger integer are written, as in aioquic.
        self.push_bytes((value & (1 << (8 * size)) - 1).to_bytes(size, "big"))
