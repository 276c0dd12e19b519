"""The response to a client's request."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from nghttp2py.asyncio.content_coding import decode, find_codings
from nghttp2py.asyncio.deadlines import Deadlines
from nghttp2py.asyncio.fields import Fields
from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.time_limits import TimeLimit
from nghttp2py.errors import BodyFormatError, BodyTooLargeError, StatusError

__all__ = ["MAX_DECODED", "Response"]

#: Bytes of a decoded body that ``read`` returns if it has no limit of its own.
MAX_DECODED = 64 << 20

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([\w.:+-]+)"?', re.ASCII | re.IGNORECASE)


class Response:
    """A response whose body may still be arriving.

    ``async for chunk in response`` iterates over the body as it arrives; the server
    gets credit for what is read, so a slow reader slows the server down.  Read it to
    its end, or leave an ``async with`` block, or call ``close``: an unread rest keeps a
    stream of the connection open.  A call that is cancelled while it waits closes the
    response.
    """

    # What a request with `decompress` sets.
    _codings: list[str] | None = None
    _pieces: AsyncIterator[bytes] | None = None
    # What is made when it is first asked for.
    _headers: Fields | None = None
    _informational: tuple[tuple[int, Fields], ...] | None = None

    def __init__(self, stream: Stream, deadlines: Deadlines | None) -> None:
        self._stream = stream
        self._deadlines = deadlines
        #: The status (RFC 9110, 15), an int.
        self.status: int = stream.final_status or 0

    @property
    def headers(self) -> Fields:
        """The header section."""
        if self._headers is None:
            self._headers = Fields(self._stream.final_fields)
        return self._headers

    @property
    def informational(self) -> tuple[tuple[int, Fields], ...]:
        """The 1xx responses that came before it: status and fields of each."""
        if self._informational is None:
            self._informational = tuple(
                (early.status, Fields(early.headers))
                for early in self._stream.take_informational()
            )
        return self._informational

    @property
    def stream_id(self) -> int:
        """The identifier of its stream."""
        return self._stream.stream_id

    @property
    def stream(self) -> Stream:
        """Its stream, by which the caller of a tunnel sends and receives."""
        return self._stream

    @property
    def http_version(self) -> str:
        """``"HTTP/2"`` or ``"HTTP/3"``."""
        version: str = self._stream.link.version
        return version

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about its connection.

        ``peername`` and ``sockname`` are addresses.  Over HTTP/2 there are all that the
        transport has: ``socket``, ``ssl_object``, ``peercert``, ``cipher``.
        ``alpn_protocol`` is ``"h2"``, ``"h3"``, or ``None`` in the clear.
        """
        if name == "alpn_protocol":
            return find_alpn(self._stream)
        return self._stream.link.get_extra_info(name, default)

    def raise_for_status(self) -> Response:
        """Raise ``StatusError`` if the status is 400 or above; return the response."""
        if self.status >= 400:
            raise StatusError(f"the response has the status {self.status}", self)
        return self

    def decompress(self) -> None:
        """Have the body decoded as content-encoding states, if all of it is known.

        Raises ``BodyFormatError`` and closes the response for more than three codings.
        """
        try:
            self._codings = find_codings(self.headers.get("content-encoding", ""))
        except BodyFormatError:
            self.close()
            raise

    def read(self, limit: int | None = None) -> Coroutine[Any, Any, bytes]:
        """Return the rest of the body.

        Raises ``BodyTooLargeError`` and closes the response if that is more than
        ``limit`` bytes, for a body that is decoded at most 64 MiB;
        ``StreamResetError`` or ``ConnectionTerminatedError`` if the body is cut off;
        ``ReadTimeoutError`` if nothing arrives within the client's timeout;
        ``BodyFormatError`` if it cannot be decoded.
        """
        if limit is None and not self._codings and self._stream.is_whole:
            return self._stream.read()
        return self._read(limit)

    async def _read(self, limit: int | None) -> bytes:
        if limit is None and self._codings:
            limit = MAX_DECODED
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if limit is not None and size > limit:
                self.close()
                raise BodyTooLargeError(f"the body is larger than {limit} bytes")
            pieces.append(piece)
        if len(pieces) == 1:
            return pieces[0]
        count_bytes(size)
        return b"".join(pieces)

    async def text(self, encoding: str | None = None) -> str:
        """Read the body as text.

        Without ``encoding``, content-type states it, otherwise it is UTF-8.  Octets
        that are not valid become U+FFFD.  Raises as ``read``, and ``LookupError`` for
        an unknown ``encoding``.
        """
        data = await self.read()
        if encoding is None:
            found = _CHARSET.search(self.headers.get("content-type", ""))
            encoding = "utf-8" if found is None else found[1]
            try:
                return data.decode(encoding, "replace")
            except (LookupError, UnicodeError):
                # The server's is unknown, or none that texts are in, as idna.
                encoding = "utf-8"
        return data.decode(encoding, "replace")

    async def json(self) -> Any:
        """Read the body as JSON (RFC 8259).

        Raises as ``read``, and ``BodyFormatError`` if the body is no JSON.
        """
        data = await self.read()
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BodyFormatError(f"the body is no JSON: {error}") from None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body in pieces as they arrive; raises as ``read``."""
        if not self._codings:
            return _iterate(self._stream, self._deadlines)
        if self._pieces is None:
            self._pieces = _decode(self._stream, self._deadlines, self._codings)
        return self._pieces

    async def trailers(self) -> Fields:
        """Wait for the end of the body, which is dropped, and return the trailers."""
        while await _read_piece(self._stream, self._deadlines):
            pass
        return Fields(await self._stream.trailers())

    def close(self) -> None:
        """Discard the rest: the stream is reset unless it has ended."""
        self._stream.reset()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} on stream {self.stream_id}>"


def find_alpn(stream: Stream) -> str | None:
    """Return the protocol of a stream's connection as ALPN names it."""
    if stream.link.version == "HTTP/3":
        return "h3"
    tls = stream.link.get_extra_info("ssl_object")
    return None if tls is None else tls.selected_alpn_protocol()


# These have no response, which has one of them: it must be dropped with its last user.


async def _decode(
    stream: Stream, deadlines: Deadlines | None, codings: list[str]
) -> AsyncIterator[bytes]:
    try:
        async for piece in decode(_iterate(stream, deadlines), codings):
            yield piece
    except BodyFormatError:
        stream.reset()
        raise


async def _iterate(stream: Stream, deadlines: Deadlines | None) -> AsyncIterator[bytes]:
    while piece := await _read_piece(stream, deadlines):
        yield piece


async def _read_piece(stream: Stream, deadlines: Deadlines | None) -> bytes:
    try:
        with TimeLimit(deadlines, "nothing of the body came"):
            return await stream.readany()
    except BaseException:
        # A task that is cancelled holds its frames, and so this stream, as long as
        # anything refers to it.
        stream.reset()
        raise
