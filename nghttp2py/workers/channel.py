"""The channel of the supervisor and a worker: messages over a pair of Unix sockets.

A message is a JSON object on a line.  Descriptors come with the first byte of the
message whose "descriptors" is their number.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nghttp2py.asyncio.descriptors import receive

__all__ = ["Channel", "ChannelError", "Message"]

logger = logging.getLogger(__name__)

Message = dict[str, Any]

# Bytes of one read, and those of a message.  The largest messages have the options of
# the program.
_READ_SIZE = 65536
_MAX_MESSAGE = 8 << 20
# Descriptors of one message: Linux's SCM_MAX_FD.
_MAX_DESCRIPTORS = 253
# Seconds until descriptors are sent again for which there is no room.
_AGAIN = 0.1


class ChannelError(Exception):
    """What arrived is no message."""


class Channel:
    """One end of the channel.

    ``wait`` receives a message before there is an event loop.  ``attach`` has the loop
    call ``handle`` with each message, and ``lost`` once when the other end is closed or
    sends what is no message.

    Descriptors are received only if ``descriptors`` is true: the supervisor takes none
    from its workers.
    """

    def __init__(self, sock: socket.socket, *, descriptors: bool = False) -> None:
        # The end of a worker was inherited, by the worker alone.
        sock.set_inheritable(False)
        self._sock = sock
        self._room = _MAX_DESCRIPTORS if descriptors else 0
        self._received = b""
        self._found: deque[int] = deque()
        self._messages: deque[tuple[Message, list[int]]] = deque()
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        # Copies of descriptors that wait, so that the caller may close its own.
        self._copies: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: Callable[[Message], object] | None = None
        self._lost: Callable[[], object] | None = None
        self._again: asyncio.TimerHandle | None = None

    # ---- Receiving ----

    def wait(self) -> tuple[Message, list[int]]:
        """Block until a message has come; return it with its descriptors.

        Raises ``EOFError`` if the other end is closed before, and ``ChannelError``.
        """
        self._sock.setblocking(True)
        while not self._messages:
            if not self._receive():
                raise EOFError("the supervisor has ended")
        return self._messages.popleft()

    def _receive(self) -> bool:
        """Read once, and queue the messages; return False at the end."""
        data, found = receive(self._sock, _READ_SIZE, self._room)
        self._found.extend(found)
        if not data:
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > _MAX_MESSAGE:
            raise ChannelError(f"a message has more than {_MAX_MESSAGE} bytes")
        for line in lines:
            self._messages.append(self._parse(line))
        return True

    def _parse(self, line: bytes) -> tuple[Message, list[int]]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise ChannelError(f"{line[:100]!r} is no message") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ChannelError(f"{line[:100]!r} is no message")
        count = message.get("descriptors", 0) if self._room else 0
        if not isinstance(count, int) or not 0 <= count <= len(self._found):
            raise ChannelError(f"a message has lost its {count!r} descriptors")
        return message, [self._found.popleft() for _ in range(count)]

    # ---- In an event loop ----

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[Message], object],
        lost: Callable[[], object],
    ) -> None:
        """Have ``loop`` call ``handle`` with each message, and ``lost`` at the end."""
        self._sock.setblocking(False)
        self._loop, self._handle, self._lost = loop, handle, lost
        loop.add_reader(self._sock.fileno(), self._read)
        loop.call_soon(self._dispatch)
        self._write()

    def _read(self) -> None:
        try:
            open_ = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ChannelError):
            open_ = False
        self._dispatch()
        if not open_:
            self.close()

    def _dispatch(self) -> None:
        while self._messages and self._handle is not None:
            message, descriptors = self._messages.popleft()
            for number in descriptors:
                os.close(number)
            self._handle(message)

    def drain(self) -> None:
        """Handle what has arrived, when the other end has ended."""
        with contextlib.suppress(OSError, ChannelError):
            while self._sock.fileno() != -1 and self._receive():
                pass
        self._dispatch()

    # ---- Sending ----

    @property
    def is_behind(self) -> bool:
        """Whether messages wait because the other end does not read them."""
        return bool(self._queue)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, or queue it; its descriptors may be closed when the channel
        is attached.

        This is a no-op once the channel is closed.
        """
        if descriptors:
            message = {**message, "descriptors": len(descriptors)}
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._queue.append((line, tuple(descriptors)))
        if self._loop is not None:
            self._write()

    def _write(self) -> None:
        assert self._loop is not None
        self._cancel_again()
        if self._sock.fileno() == -1:
            self._clear_queue()
            return
        try:
            while self._queue:
                self._write_once()
        except (BlockingIOError, InterruptedError):
            if self._copy_descriptors():
                self._loop.add_writer(self._sock.fileno(), self._write)
            return
        except ConnectionError:
            # The other end is closed: reading reports that.
            self._clear_queue()
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                self._fail(error)  # such as EINVAL for descriptors
            elif self._copy_descriptors():
                # Descriptors that other workers have not read yet count for the limit
                # of open files (unix(7)).  The socket may be writable meanwhile.
                self._loop.remove_writer(self._sock.fileno())
                self._again = self._loop.call_later(_AGAIN, self._write)
            return
        self._loop.remove_writer(self._sock.fileno())

    def _write_once(self) -> None:
        line, descriptors = self._queue[0]
        numbers = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        sent = self._sock.sendmsg([line], ancillary if descriptors else [])
        if sent < len(line):
            self._queue[0] = line[sent:], ()
        else:
            self._queue.popleft()
        self._close_copies(descriptors)

    def _copy_descriptors(self) -> bool:
        """Keep what is to be sent open; return False if that is not possible."""
        for number, (line, descriptors) in enumerate(self._queue):
            if self._copies.issuperset(descriptors):
                continue
            copies: list[int] = []
            try:
                for each in descriptors:
                    copies.append(os.dup(each))
            except OSError as error:
                self._copies.update(copies)
                self._close_copies(copies)
                self._fail(error)
                return False
            self._copies.update(copies)
            self._queue[number] = line, tuple(copies)
        return True

    def _close_copies(self, descriptors: Iterable[int]) -> None:
        for each in descriptors:
            if each in self._copies:
                self._copies.remove(each)
                os.close(each)

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._close_copies(list(self._copies))

    def _fail(self, error: OSError) -> None:
        logger.error("a message cannot be sent to another process: %s", error)
        self.close()

    def _cancel_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # ---- The end ----

    def close(self) -> None:
        """Close this end, and report that.  A second call is a no-op."""
        number = self._sock.fileno()
        if number == -1:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)
        self._cancel_again()
        self._sock.close()
        self._clear_queue()
        for number in self._found:
            with contextlib.suppress(OSError):
                os.close(number)
        self._found.clear()
        lost, self._lost, self._handle = self._lost, None, None
        if lost is not None:
            lost()
