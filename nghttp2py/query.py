"""The query component of a request's target."""

from __future__ import annotations

from urllib.parse import parse_qsl

__all__ = ["Query"]


class Query(dict[str, str]):
    """The query of a target as a dict: names and their values, decoded.

    ``target`` is what ``:path`` has, such as ``b"/a?b=c&b=d"``.  The dict has the
    first value of each name; ``get_all`` returns every value.  Percent-encoding and
    ``+`` are decoded as UTF-8, with U+FFFD for octets that are not.
    """

    def __init__(self, target: bytes) -> None:
        query = target.partition(b"?")[2].decode("utf-8", "replace")
        #: The pairs of name and value, in their order.
        self.pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
        super().__init__(reversed(self.pairs))

    def get_all(self, name: str) -> list[str]:
        """Return the values of a name in their order; an empty list if none."""
        return [value for other, value in self.pairs if other == name]
