"""The lines of ``-v``, in curl's form; what is the peer's is escaped."""

from __future__ import annotations

import sys

from nghttp2py.cli.frames import printable
from nghttp2py.cli.get.model import FieldList

__all__ = ["Log"]


class Log:
    """Prints what happens to standard error, if ``on``."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def note(self, text: str) -> None:
        """Print what the command does, or has found."""
        self._print("*", text)

    def request(self, line: str, fields: FieldList) -> None:
        """Print the head of a request."""
        if self.on:
            self._print_head(">", line, fields)

    def response(self, line: str, fields: FieldList) -> None:
        """Print the head of a response."""
        if self.on:
            self._print_head("<", line, fields)

    def _print_head(self, mark: str, line: str, fields: FieldList) -> None:
        self._print(mark, line)
        for name, value in fields:
            self._print(mark, f"{printable(name)}: {printable(value)}")
        self._print(mark, "")

    def _print(self, mark: str, text: str) -> None:
        if self.on:
            print(mark, printable(text.encode()), file=sys.stderr, flush=True)
