"""One request and its response, for coroutines, at either end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from nghttp2py.asyncio.fields import Fields
from nghttp2py.asyncio.reader import Incoming, StreamReader
from nghttp2py.asyncio.writer import HeadersLike, StreamWriter, to_pairs
from nghttp2py.errors import (
    ConnectionTerminatedError,
    PushDisabledError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.exchange import answer_failure
from nghttp2py.log_budget import MemoryLog

__all__ = ["H2Stream", "Stream", "is_of_peer", "serve_stream"]

logger = logging.getLogger(__name__)

_memory_log = MemoryLog(logger)

# The names of pseudo-header fields, as programs give them.
AUTHORITY = frozenset({":authority", b":authority", "host", b"host"})
SCHEME = frozenset({":scheme", b":scheme"})
METHOD = frozenset({":method", b":method"})


class Stream(Incoming):
    """One request and its response, over any version of HTTP.

    A server's handler is called with it; a client's ``open_stream`` returns it.
    ``reader`` reads the peer's body, ``writer`` sends ours; the stream has their
    methods, too, and those for header fields.  ``request`` is the request at a server
    and of a pushed stream at a client, otherwise ``None``.

    The caller owns the stream: the connection forgets it when both halves have ended,
    and what was received stays readable.  ``async with`` resets an unfinished stream at
    the end, so that the peer stops too.  An unfinished stream is also reset when
    nothing refers to it any more.

    A client that waits for 100 (Continue) gets it when a call first waits for the body,
    unless the response was begun before.

    A client's upload is ended when a response with a status from 300 is complete, or
    another one was read to its end: the server does not need the rest (RFC 9113, 8.1,
    RFC 9114, 4.1).  The halves of a CONNECT tunnel end independently.

    Each wait ends: with ``StreamResetError`` if the stream is reset, with
    ``ConnectionTerminatedError`` if the connection ends.  What was received before can
    still be read.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.stream_id} {state} of {self.protocol!r}>"

    # The connection has only a weak reference to a stream that was handed out, and its
    # reader and writer are made when they are first used.  So it is freed, and reset,
    # when its user drops it.

    def _dropped(self) -> None:
        """Reset the stream, in whatever thread it is freed."""
        if not self.link.client_side:
            self.link.keep_record(self)
        sends, receives = self._sends, self._receives
        if sends or receives:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.link.loop.call_soon_threadsafe(
                    self.link.drop, self.stream_id, sends, receives, self._task
                )

    # ---- Properties ----

    @property
    def reader(self) -> StreamReader:
        """The incoming half."""
        return StreamReader(self)

    @property
    def writer(self) -> StreamWriter:
        """The outgoing half."""
        return StreamWriter(self)

    @property
    def connection(self) -> Any:
        """The connection; its ``is_closing`` is true when this end is closing it.

        ``await stream.connection.wait_closing()`` waits for that.
        """
        return self.protocol

    @property
    def method(self) -> bytes | None:
        """The request's method; ``None`` if this end has not received a request."""
        return None if self.request is None else self.request.method

    @property
    def path(self) -> bytes | None:
        """The request's path with its query; ``None`` for CONNECT, which has none."""
        request = self.request
        if request is None or (request.method == b"CONNECT" and not request.protocol):
            return None
        return request.target

    @property
    def scheme(self) -> bytes | None:
        """The request's scheme; ``None`` for CONNECT."""
        return None if self.request is None else self.request.scheme

    @property
    def authority(self) -> bytes | None:
        """The request's host and port, if it has one."""
        return None if self.request is None else self.request.authority

    @property
    def fields(self) -> Fields:
        """The received header fields, by name, without pseudo-header fields.

        At a server they are the request's, at a client the final response's; until that
        has come there are none.
        """
        if self.link.client_side:
            return Fields(self.final_fields or ())
        return Fields(() if self.request is None else self.request.headers)

    @property
    def error(self) -> Exception | None:
        """The exception for why a half of the stream broke off, or ``None``."""
        failure = self._failure or self._stopped
        return None if failure is None else failure()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        data = await self.readany()
        if not data:
            raise StopAsyncIteration
        return data

    # ---- Server push ----

    @property
    def push_enabled(self) -> bool:
        """Whether the client takes pushes, and this stream can promise them."""
        return self.request is not None and not self.closed and self.link.push_enabled()

    async def push(self, headers: HeadersLike) -> Stream:
        """Promise a response to a request that we choose, and return its stream.

        ``headers`` are the request's; ``:method`` (GET), ``:scheme`` and
        ``:authority`` are this request's if they are absent.  Raises
        ``PushDisabledError`` if the client takes none (RFC 9113, 8.4; RFC 9114, 4.6).
        """
        raise PushDisabledError(f"{self.link.version} has no server push")

    def make_promise(self, headers: HeadersLike) -> list[Any]:
        """Return the whole request of a push: see ``push``."""
        failure = self.error
        if failure is not None:
            raise failure
        request = self.request
        if request is None and not self.link.client_side:
            raise StreamStateError(
                f"stream {self.stream_id}: a pushed stream promises no others"
            )
        fields = list(to_pairs(headers))
        names = {field[0] for field in fields}
        if request is not None:
            if not names & AUTHORITY and request.authority is not None:
                fields.insert(0, (b":authority", request.authority))
            if not names & SCHEME:
                fields.insert(0, (b":scheme", request.scheme))
        if not names & METHOD:
            fields.insert(0, (b":method", b"GET"))
        return fields

    # ---- The end ----

    def reset(self, error_code: int | None = None) -> None:
        """Reset the stream: both halves, as far as they have not ended.

        The default of ``error_code`` is the protocol's for a cancelled request.  On a
        closed stream this is a no-op.  Calls that wait on the stream raise
        ``StreamResetError``.
        """
        if error_code is None:
            error_code = self.link.codes.cancelled
        self.link.check_code(error_code)
        self._cancel(error_code, "reset() was called")

    def stop(self, error_code: int | None = None) -> None:
        """Ask the peer to stop sending, unless it has sent all.

        Our own half continues (RFC 9113, 8.1, RFC 9114, 4.1).  What was received and
        not read is dropped.  A client of HTTP/2 whose own half has ended resets the
        stream.  Without ``error_code``, a client of HTTP/3 that is sent a whole
        response gets STOP_SENDING later, because it may lose the response otherwise.
        Over HTTP/2 the code that is sent is NO_ERROR (RFC 9113, 8.1), or a client's
        CANCEL, whatever ``error_code`` is.
        """
        code = self.link.codes.no_error if error_code is None else error_code
        self.link.check_code(code)
        self.discard()
        if not self._receives:
            return
        request = self.request
        if (
            error_code is None
            and self._sent_all
            and request is not None
            and request.method != b"CONNECT"
        ):
            self.link.stop_request(self)
        else:
            self.link.stop_request(self, code)
        failure = self.link.make_failure(self.stream_id, code, "stop() was called")
        self.aborted(failure, code, True, False)

    @property
    def sent_all(self) -> bool:
        """Whether our half has ended, even if its end is still queued."""
        return self._sent_all

    @property
    def is_whole(self) -> bool:
        """Whether the peer's half is complete; some of it may still wait to be read."""
        return self._eof

    def give_body(self, body: Any, trailers: HeadersLike | None) -> None:
        """Send ``body`` as fast as the peer reads, then ``trailers``.

        ``body`` is of a kind that a connection handles: bytes-like, a binary file, an
        iterable of bytes, a callable ``f(n) -> (data, flag)``.
        """
        self.link.send_body(self, body, trailers)

    def make_resume(self) -> Callable[[], None]:
        """Return a function that resumes a body after ``DATA_DEFERRED``.

        It does not refer to the stream, so that the stream can be dropped.
        """
        return partial(self.link.resume_stream, self.stream_id)

    @property
    def is_read(self) -> bool:
        """Whether everything that was received was read."""
        return (
            self.at_eof()
            and not self._trailers
            and (self._response_taken or self.final_status is None)
        )

    async def is_body_wanted(self, seconds: float) -> bool:
        """Wait as ``wait_continue``; end our half if the response refuses the body."""
        if await self.wait_continue(seconds):
            return True
        self.link.refuse_body(self)
        return False

    async def _is_body_expected(self) -> bool:
        seconds, self._expecting = self._expecting, 0.0
        return await self.is_body_wanted(seconds)

    def end_upload(self) -> None:
        """End our request, if the response is complete."""
        if self._eof:
            self._end_upload()

    def run_in(self, task: Any) -> None:
        """Cancel ``task``, which handles the stream, when the stream breaks off."""
        self._task = task

    def answer_failure(self) -> bool:
        """Send status 500 if nothing was sent; return whether it was sent."""
        if self.status is not None or not self._sends or not answer_failure(self):
            return False
        self._sent_all = True
        return True

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave(failed=kind is not None)

    def leave(self, *, failed: bool) -> None:
        """End what has not ended, as leaving ``async with`` does."""
        http, codes = self.link, self.link.codes
        if not self._sent_all and self._sends:
            if failed and not http.client_side:
                self._cancel(codes.internal_error, "its block raised an exception")
            else:
                self._cancel(codes.cancelled, "its block was left")
        elif not self._eof and self._receives:
            if http.client_side and not http.halves_end_alone:
                # The rest of the request may never come.
                self._cancel(codes.cancelled, "its block was left")
            else:
                # The response is complete, the request need not be.
                self.stop(codes.cancelled if http.client_side else None)


S = TypeVar("S", bound=Stream)


def is_of_peer(
    error: BaseException | None, failure: BaseException | None = None
) -> bool:
    """Return whether an exception was caused by the peer, not by a handler.

    A handler may have wrapped it in an exception of its own, as a task group does.
    ``failure`` is the end of the handler's own stream, if it has ended: an end that
    was made here is no failure of the handler either.
    """
    kinds = (StreamResetError, ConnectionTerminatedError)
    while error is not None:
        if isinstance(error, asyncio.CancelledError):
            return True
        for kind in kinds:
            if isinstance(error, kind):
                return error.remote or isinstance(failure, kind)
        errors = getattr(error, "exceptions", None)
        if errors and isinstance(errors, tuple):
            return all(is_of_peer(each, failure) for each in errors)
        error = error.__cause__ or error.__context__
    return False


async def serve_stream(
    handler: Callable[[Any], Awaitable[Any]], stream: Stream
) -> None:
    """Run ``handler(stream)`` in the current task, which ends with the stream.

    A failure is logged; if the handler has not begun a response, or returns without
    one, the client gets status 500.  A stream that has not finished at the end is
    reset, with INTERNAL_ERROR if the handler has failed.
    """
    stream.run_in(asyncio.current_task())
    failure = stream.error  # as it is when the handler fails, if it does
    try:
        failed = True
        try:
            if failure is not None:
                raise failure
            try:
                await handler(stream)
                if stream.status is None:
                    stream.answer_failure()  # it has not begun a response
            except Exception as error:
                failure = stream.error
                if failure is not None or not stream.answer_failure():
                    raise
                _memory_log.failed(error, "%s: the handler failed", stream)
            failed = False
        finally:
            stream.leave(failed=failed)
    except Exception as error:
        if failure is not None and is_of_peer(error, failure):
            logger.debug("%s: the handler ended: %s", stream, error)
            return
        _memory_log.failed(error, "%s: the handler failed", stream)
    finally:
        # The task's frames refer to the stream: drop the reference.
        stream.run_in(None)


class H2Stream(Stream):
    """A stream of HTTP/2, made by ``H2Protocol``.  It can promise others."""

    __slots__ = ("_urgency",)

    @property
    def urgency(self) -> int:
        """The urgency of what we send, from 0 to 7 (RFC 9218, 4.1)."""
        return getattr(self, "_urgency", 3)

    @urgency.setter
    def urgency(self, urgency: int) -> None:
        self._urgency = urgency

    async def push(self, headers: HeadersLike) -> H2Stream:
        """Promise a response: see ``Stream.push``."""
        pushed: H2Stream = await self.protocol.push_stream(self, headers)
        return pushed
