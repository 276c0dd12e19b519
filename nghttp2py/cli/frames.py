"""Frames as ``get`` prints them: the output of ``--frames``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nghttp2py.frames import FrameDecoder, printable

__all__ = ["FramePrinter", "LinePrinter", "printable"]


class LinePrinter:
    """Prints the content of frames, one line for each item, with the time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def show(
        self,
        way: str,
        name: str,
        about: str,
        details: Iterable[tuple[str, str]] = (),
        flags: Iterable[str] = (),
    ) -> None:
        """Print a frame that went ``way``, ``"send"`` or ``"recv"``."""
        line = Text()
        line.append(f"[{time.monotonic() - self._start:7.3f}] ", style="dim")
        line.append(way, style="magenta" if way == "send" else "cyan")
        line.append(f" {name}", style="bold")
        line.append(about)
        for flag in flags:
            line.append(f" {flag}", style="yellow")
        self._console.print(line, soft_wrap=True)
        for key, value in details:
            line = Text(" " * 15)
            line.append(key, style="blue")
            line.append(f": {value}" if value else "")
            self._console.print(line, soft_wrap=True)


class FramePrinter:
    """Prints the frames of a client's connection, sent and received, to ``console``."""

    def __init__(self, console: Console) -> None:
        self._lines = LinePrinter(console)
        self._decoder = FrameDecoder(client_side=True)

    def sent(self, data: bytes) -> None:
        """Print the frames in bytes that were sent."""
        self._print("send", data)

    def received(self, data: bytes) -> None:
        """Print the frames in bytes that were received."""
        self._print("recv", data)

    def _print(self, way: str, data: bytes) -> None:
        for frame in self._decoder.feed(way, data):
            self._lines.show(way, *frame)
