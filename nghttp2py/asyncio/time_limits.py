"""Bounds for the waits of a client's request."""

from __future__ import annotations

import asyncio
import sys
import weakref
from dataclasses import dataclass, fields
from types import TracebackType

from nghttp2py.arguments import check_seconds
from nghttp2py.asyncio.deadlines import Deadline, Deadlines
from nghttp2py.asyncio.request_body import RequestBody
from nghttp2py.asyncio.stream import Stream
from nghttp2py.errors import ReadTimeoutError, RequestTimeoutError, WriteTimeoutError

__all__ = ["ProgressLimit", "RequestTimeouts", "TimeLimit", "UploadLimit"]

# How often the progress of a body is checked within the time of a bound.
_LOOKS = 4

_UNBOUNDED = float("inf")


@dataclass(frozen=True)
class RequestTimeouts:
    """How long one request waits, in seconds; ``None`` means no bound.

    Raises ``TypeError`` and ``ValueError`` for a bound that is not a positive number.
    """

    #: For a connection to be made, TLS or QUIC handshake included.
    connect: float | None = None
    #: For the response to begin once the request was sent, and for each next piece of
    #: its body.
    read: float | None = None
    #: For the peer to take the next piece of the request's body.
    write: float | None = None
    #: For a free connection of a pool, and for a free stream of the connection.
    pool: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            check_seconds(field.name, getattr(self, field.name))


class _Interrupt(Deadline):
    """A context manager that can cancel its block and raise an exception instead."""

    __slots__ = ("_cancelling", "_expired", "_task")

    def __init__(self) -> None:
        self._expired = False

    def _enter(self) -> None:
        task = self._task = asyncio.current_task()
        # From Python 3.11 a task counts its cancellations.
        if sys.version_info >= (3, 11) and task is not None:
            self._cancelling = task.cancelling()

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def _is_ours(self, exc_type: type[BaseException] | None) -> bool:
        """Return whether the block was left because it was cancelled here.

        The task's count of cancellations is reduced even if another exception, such as
        that of a trace function, has replaced the CancelledError.
        """
        also_cancelled = (
            sys.version_info >= (3, 11)
            and self._task is not None
            and self._task.uncancel() > self._cancelling
        )
        return exc_type is asyncio.CancelledError and not also_cancelled


class TimeLimit(_Interrupt):
    """Ends its block with ``ReadTimeoutError`` after a time.

    Another class of exception can be given.  ``what`` is the text of the exception.
    ``due`` is an earlier end, on the loop's clock.
    """

    __slots__ = ("_bounds", "_error", "_until", "_what")

    def __init__(
        self,
        deadlines: Deadlines | None,
        what: str,
        error: type[RequestTimeoutError] = ReadTimeoutError,
        *,
        due: float | None = None,
    ) -> None:
        self._bounds = deadlines
        self._what = what
        self._error = error
        self._until = due
        self._expired = False

    def __enter__(self) -> None:
        if self._bounds is not None:
            self._enter()
            self._bounds.add(self, self._until)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bounds is None:
            return
        if not self._expired:
            self._bounds.discard(self)
        elif self._is_ours(exc_type):
            raise self._error(
                f"{self._what} in {self._bounds.seconds} seconds"
            ) from exc


class _Progress:
    """What the peer has taken of a request's body, and since when nothing more."""

    __slots__ = ("_body", "_mark", "is_sent", "since")

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._mark: object = None
        #: Whether the peer has taken all of it.
        self.is_sent = False
        #: When it last took some, or there was nothing for it to take.
        self.since = 0.0

    def look(self, stream: Stream, now: float) -> None:
        """Compare what is queued now with the last time."""
        body = self._body
        queued = stream.link.queued(stream)
        self.is_sent = body.is_empty or (body.is_exhausted and not queued)
        mark = (self.is_sent, body.taken, queued)
        # A source is asked for more only while there is room for it.
        is_held = body.is_awaited and not queued
        if mark != self._mark or is_held:
            self._mark, self.since = mark, now


def _make_write_error(seconds: float | None) -> WriteTimeoutError:
    return WriteTimeoutError(f"the peer took nothing of the body in {seconds} seconds")


class UploadLimit:
    """Resets a stream if the peer takes nothing of the rest of its request's body.

    It is for the time after the response has begun.  The progress is checked four times
    within ``seconds``; time in which the body's source has nothing is not counted.
    """

    def __init__(self, stream: Stream, body: RequestBody, seconds: float) -> None:
        # Weak, because a response that is dropped resets its stream.
        self._stream = weakref.ref(stream)
        self._progress = _Progress(body)
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._look()

    def _look(self) -> None:
        stream = self._stream()
        if stream is None or stream.closed:
            return
        progress, seconds = self._progress, self._seconds
        now = self._loop.time()
        progress.look(stream, now)
        if progress.is_sent:
            return
        if now >= progress.since + seconds:
            stream.break_off(
                lambda: _make_write_error(seconds), stream.link.codes.cancelled
            )
            return
        left = progress.since + seconds - now
        self._loop.call_later(min(left, seconds / _LOOKS), self._look)


class ProgressLimit(_Interrupt):
    """Bounds the wait for a response: ``write`` and then ``read`` of the timeouts.

    While the peer can take bytes of the request's body, it must take some within
    ``write`` seconds; time in which the body's source has none is not counted.  When
    all was taken, the response must begin within ``read`` seconds.  The progress is
    checked four times within each bound.
    """

    __slots__ = ("_loop", "_progress", "_stream", "_timeouts", "_timer")

    def __init__(
        self, stream: Stream, body: RequestBody, timeouts: RequestTimeouts
    ) -> None:
        super().__init__()
        self._stream = stream
        self._progress = _Progress(body)
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._enter()
        self._look()

    def _look(self) -> None:
        now = self._loop.time()
        progress, timeouts = self._progress, self._timeouts
        progress.look(self._stream, now)
        bound = timeouts.read if progress.is_sent else timeouts.write
        if bound is not None and now >= progress.since + bound:
            self._expire()
            return
        wait = min(
            progress.since + bound - now if bound is not None else _UNBOUNDED,
            _UNBOUNDED if progress.is_sent else self._interval(),
        )
        if wait < _UNBOUNDED:
            self._timer = self._loop.call_later(wait, self._look)

    def _interval(self) -> float:
        bounds = (self._timeouts.read, self._timeouts.write)
        return min((b / _LOOKS for b in bounds if b is not None), default=_UNBOUNDED)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not (self._expired and self._is_ours(exc_type)):
            return
        if self._progress.is_sent:
            raise ReadTimeoutError(
                f"no response in {self._timeouts.read} seconds"
            ) from exc
        raise _make_write_error(self._timeouts.write) from exc
