"""Header fields by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["Fields", "add_field"]


class Fields(Mapping[str, str]):
    """A header or trailer section, with lookup by name in any case.

    The values of a repeated field are joined by ``", "`` (RFC 9110, 5.3); ``get_all``
    returns them separately, and ``pairs`` has all fields as they came.
    """

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        #: All fields in their order, as bytes.
        self.pairs: tuple[tuple[bytes, bytes], ...] = tuple(pairs)

    def get_all(self, name: str) -> list[str]:
        """Return the values of every field of that name."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.pairs if key == wanted]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self.pairs})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.pairs)!r})"


def add_field(fields: Any, name: bytes, value: bytes) -> Any:
    """Return header fields with one added, unless they have one of that name."""
    pairs = list(fields.items() if isinstance(fields, Mapping) else fields or ())
    for field in pairs:
        other = field[0]
        if (other if isinstance(other, bytes) else str(other).encode()).lower() == name:
            return pairs
    return [*pairs, (name, value)]
