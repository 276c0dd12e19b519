"""A connection of HTTP/1.1 of ``get``, on the package h11."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11

from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import FieldList, Peer, Request, find_field
from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    HTTPVersionError,
    ReadTimeoutError,
    printable,
)

__all__ = ["Connection", "SpeaksHTTP2"]

# The most bytes of a head, as in curl.
_MAX_HEAD = 300 * 1024
# The most 1xx responses before a response.
_MAX_INFORMATIONAL = 100
# Seconds for which the rest of a body is read to keep a connection.
_REST_TIME = 1.0
# Seconds that the close of a connection takes at most.
_CLOSING = 0.5
_PIECE = 65536
# The type of SETTINGS, with which a server's connection of HTTP/2 begins (RFC 9113,
# 3.4): its frame header has it in the fourth byte.
_SETTINGS = b"\x04"


class SpeaksHTTP2(HTTPVersionError):
    """The server has answered HTTP/1.1 by HTTP/2."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.HTTP_1_1_REQUIRED,
            negotiated=None,
            remote=True,
            reason="the server speaks HTTP/2 only",
        )


class Connection:
    """A connection, which has one request at a time.

    ``timeout`` bounds the wait for a response, and for each piece of its body.
    """

    def __init__(self, peer: Peer, timeout: float | None) -> None:
        self.peer = peer
        self._timeout = timeout
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(_PIECE, loop)
        #: The protocol of the transport.
        self.protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        self._writer: asyncio.StreamWriter | None = None
        self._upload: asyncio.Task[int] | None = None
        # Why the body of the request broke off.
        self._broken: TransferError | None = None
        #: Whether anything of the current response has arrived.
        self.heard = False
        self._begun = False  # its head has arrived
        #: Whether the connection accepts a request.
        self.is_free = True
        #: Bytes of the request's body that were sent.
        self.sent = 0

    def start(self, transport: asyncio.Transport) -> None:
        """Use a transport, which has ``protocol``."""
        self._transport = transport
        self._writer = asyncio.StreamWriter(
            transport, self.protocol, self._reader, asyncio.get_running_loop()
        )

    @property
    def is_usable(self) -> bool:
        """Whether a further request can be sent."""
        return (
            self._h11.our_state is h11.IDLE
            and not self._reader.at_eof()
            and not self._transport.is_closing()
        )

    async def send(self, request: Request, target: bytes, more: FieldList) -> Answer:
        """Send a request, and wait until its response begins."""
        assert self._writer is not None
        self.heard = self._begun = False
        self.sent = 0
        fields = request.fields + more
        try:
            head = self._h11.send(
                h11.Request(method=request.method, target=target, headers=fields)
            )
        except h11.LocalProtocolError as error:
            raise HeadersError(f"{error}") from None
        self._writer.write(head or b"")
        if request.body is None:
            self._writer.write(self._h11.send(h11.EndOfMessage()) or b"")
        else:
            self._upload = asyncio.ensure_future(self._send_body(request.body))
        informational: list[tuple[int, str, FieldList]] = []
        while True:
            event = await self._next("no response")
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    raise TransferError(
                        Exit.RECEIVE, "the server has switched to another protocol"
                    )
                informational.append(_read_head(event))
                if len(informational) > _MAX_INFORMATIONAL:
                    raise TransferError(
                        Exit.RECEIVE,
                        f"there are more than {_MAX_INFORMATIONAL} informational "
                        "responses",
                    )
            elif isinstance(event, h11.Response):
                break
        self._begun = True
        status, reason, received = _read_head(event)
        version = event.http_version.decode()
        return Answer(self, version, status, reason, received, informational)

    async def _send_body(self, body: Any) -> int:
        writer = self._writer
        assert writer is not None
        try:
            with contextlib.ExitStack() as stack:
                if isinstance(body, bytes):
                    pieces = iter([body] if body else [])
                else:
                    if isinstance(body, Path):
                        body = stack.enter_context(body.open("rb"))
                    pieces = iter(lambda: body.read(_PIECE), b"")
                for piece in pieces:
                    writer.write(self._h11.send(h11.Data(piece)) or b"")
                    self.sent += len(piece)
                    await writer.drain()
            writer.write(self._h11.send(h11.EndOfMessage()) or b"")
        except ConnectionError:
            pass  # the response, or its absence, reports why
        except (OSError, h11.LocalProtocolError) as error:
            # The server would wait for the rest of what was announced.
            reason = getattr(error, "strerror", None) or "its length has changed"
            self._broken = TransferError(
                Exit.READ, f"the body of the request cannot be read: {reason}"
            )
            self.abort()
        return self.sent

    async def _next(self, what: str) -> Any:
        """Return the next event of the response."""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise self._explain(error) from None
            if event is h11.PAUSED:
                raise TransferError(Exit.RECEIVE, "the server has sent too much")
            if event is not h11.NEED_DATA:
                return event
            try:
                data = await asyncio.wait_for(self._reader.read(_PIECE), self._timeout)
            except asyncio.TimeoutError:
                raise ReadTimeoutError(f"{what} in {self._timeout:g} seconds") from None
            except OSError as error:
                raise self._broken or TransferError(
                    Exit.RECEIVE, f"the connection was lost: {error}"
                ) from None
            if not data and self._broken is not None:
                raise self._broken
            if not data and not self.heard:
                raise TransferError(
                    Exit.NO_REPLY, "the server has closed the connection unanswered"
                )
            if not self.heard and data[:1] == b"\0" and data[3:4] == _SETTINGS:
                raise SpeaksHTTP2
            self.heard = True
            self._h11.receive_data(data)

    def _explain(self, error: h11.RemoteProtocolError) -> Exception:
        text = printable(str(error))
        if "illegal status line" in text:
            return TransferError(
                Exit.UNSUPPORTED_PROTOCOL, f"the response is not HTTP/1.1: {text}"
            )
        if self._reader.at_eof():
            if self._begun:
                return TransferError(
                    Exit.PARTIAL, "the connection was closed before the body was whole"
                )
            return TransferError(
                Exit.RECEIVE, "the connection was closed within the response's head"
            )
        return TransferError(Exit.RECEIVE, f"the response is not HTTP/1.1: {text}")

    async def next_piece(self) -> tuple[bytes, FieldList | None]:
        """Return the next piece of the body, or b"" and the trailers at its end."""
        event = await self._next("nothing of the body came")
        if isinstance(event, h11.Data):
            return bytes(event.data), None
        trailers: FieldList = []
        if isinstance(event, h11.EndOfMessage):
            trailers = [(bytes(n), bytes(v)) for n, v in event.headers.raw_items()]
        return b"", trailers

    async def finish(self) -> None:
        """Make the connection free for the next request, or close it."""
        if self._upload is not None:
            if not self._upload.done():
                self._upload.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upload
            self._upload = None
        try:
            self._h11.start_next_cycle()
        except h11.LocalProtocolError:
            self.abort()
        self.is_free = True

    def abort(self) -> None:
        """End the connection at once."""
        if self._writer is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close the connection.

        A server need not answer the end of TLS (RFC 8446, 6.1), for which asyncio waits
        half a minute.
        """
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), _CLOSING)
            self.abort()


def _read_head(event: Any) -> tuple[int, str, FieldList]:
    fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
    return event.status_code, event.reason.decode("latin-1"), fields


class Answer:
    """A response of HTTP/1.1."""

    def __init__(
        self,
        connection: Connection,
        version: str,
        status: int,
        reason: str,
        fields: FieldList,
        informational: list[tuple[int, str, FieldList]],
    ) -> None:
        self._connection = connection
        self._trailers: FieldList | None = None
        # Stays true if the wait for a piece has failed or was cancelled.
        self._waits = False
        self.peer = connection.peer
        self.version = version
        self.status = status
        self.reason = reason
        self.fields = fields
        self.informational = informational

    async def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        while self._trailers is None:
            self._waits = True
            piece, self._trailers = await self._connection.next_piece()
            self._waits = False
            if piece:
                yield piece

    async def trailers(self) -> FieldList:
        """Return the trailer fields, once the body was read."""
        return self._trailers or []

    async def close(self) -> None:
        """Leave the connection to the next request, or end it if there is a rest."""
        # A short rest is read, which saves a connection.
        length = find_field(self.fields, b"content-length")
        is_short = length is not None and length.isdigit() and int(length) <= _PIECE
        if self._trailers is None and is_short and not self._waits:
            with contextlib.suppress(OSError, TransferError, asyncio.TimeoutError):
                await asyncio.wait_for(self._discard(), _REST_TIME)
        await self._connection.finish()

    async def _discard(self) -> None:
        async for _ in self.pieces():
            pass
