"""WSGI applications (PEP 3333) as applications of ASGI, on a2wsgi's threads.

a2wsgi runs the application in a thread of a pool and moves bodies in pieces, with a
bound for those that wait.  What is added here are rules of PEP 3333, and the end: an
application whose client is gone is told by an exception, where it would read a short
body as a whole one, or wait in its thread for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from nghttp2py.arguments import check_callable, check_int
from nghttp2py.errors import ApplicationError

__all__ = ["THREADS", "ClientDisconnected", "wrap_wsgi"]

#: Threads that run an application, by default as many as a2wsgi's.  Further requests
#: wait for one.
THREADS = 10

# Pieces of a response that wait until they are sent.
_QUEUED = 10
# The key of a scope under which the state of its request is.
_KEY = "nghttp2py.wsgi"

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class ClientDisconnected(OSError):
    """The client is gone: the request's body is incomplete, or the response is not
    read."""


class _State:
    """What the event loop and the thread of a request share."""

    def __init__(self) -> None:
        self.disconnected = False

    def check(self) -> None:
        if self.disconnected:
            raise ClientDisconnected("the client has disconnected")


def wrap_wsgi(app: Callable[..., Any], threads: int = THREADS) -> ASGIApplication:
    """Return an application of ASGI that runs ``app``, one of WSGI, in threads.

    ``threads`` bounds the requests that run at the same time.  ``wsgi.errors`` is
    standard error.  Fields with an underscore in their name, and the field ``proxy``,
    are left out, because in the environment they pass for others.  Raises
    ``ApplicationError`` if a2wsgi is missing.
    """
    check_callable("app", app)
    check_int("threads", threads, 1)
    try:
        a2wsgi = importlib.import_module("a2wsgi")
    except ImportError:
        raise ApplicationError(
            "a WSGI application needs the a2wsgi package: pip install 'nghttp2py[asgi]'"
        ) from None
    inner = a2wsgi.WSGIMiddleware(
        _Application(app), workers=threads, send_queue_size=_QUEUED
    )
    tasks: set[asyncio.Task[None]] = set()

    async def respond(scope: Message, receive: Receive, send: Send) -> None:
        state: _State = scope[_KEY]

        async def receive_body() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                state.disconnected = True
            return message

        async def send_or_drop(message: Message) -> None:
            # The thread waits until its messages are taken, and sees the state then.
            if not state.disconnected:
                try:
                    await send(message)
                except OSError:
                    state.disconnected = True

        with contextlib.suppress(ClientDisconnected):
            await inner(scope, receive_body, send_or_drop)

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        state = _State()
        scope = _to_wsgi_scope(scope, state)
        task = asyncio.ensure_future(respond(scope, receive, send))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            # A thread cannot be cancelled.  What it sends must be taken until it ends,
            # or it would wait for ever.
            await asyncio.shield(task)
        except asyncio.CancelledError:
            state.disconnected = True
            task.add_done_callback(_ignore)
            raise

    return application


def _ignore(task: asyncio.Task[None]) -> None:
    """Take what an application raised whose request was cancelled."""
    if not task.cancelled():
        task.exception()


def _to_wsgi_scope(scope: Message, state: _State) -> Message:
    """Return a scope of which a2wsgi makes an environment."""
    query: bytes = scope["query_string"]
    if not query.isascii():
        # As browsers send it; the environment of a2wsgi is ASCII here.
        query = quote(query, safe="%/?:@!$&'()*+,;=~").encode()
    return {
        **scope,
        "query_string": query,
        "headers": [
            (name, value)
            for name, value in scope["headers"]
            if b"_" not in name and name != b"proxy"
        ],
        _KEY: state,
    }


class _Application:
    """A WSGI application that obeys PEP 3333 towards a2wsgi."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        state: _State = environ["asgi.scope"][_KEY]
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.input"] = _Input(environ["wsgi.input"], state)
        response = _Response(start_response, state)
        return _Body(self._app(environ, response.start), response)


class _Input:
    """``wsgi.input``: raises if the client ends before the body does."""

    def __init__(self, body: Any, state: _State) -> None:
        self._body = body
        self._state = state

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = self._body.read(-1 if size is None or size < 0 else size)
        self._state.check()
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line: bytes = self._body.readline(-1 if size is None or size < 0 else size)
        self._state.check()
        return line

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        lines = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


class _Response:
    """``start_response``: headers are sent with the first piece of the body."""

    def __init__(self, start_response: Callable[..., Any], state: _State) -> None:
        self._start_response = start_response
        self._arguments: tuple[str, list[tuple[str, str]]] | None = None
        self._write: Callable[[bytes], object] | None = None
        self.state = state

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Do what PEP 3333 says of ``start_response``."""
        if exc_info is not None:
            try:
                if self._write is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it refers to this frame
        elif self._arguments is not None:
            raise AssertionError("start_response() was called before, without exc_info")
        code = status.split(" ", 1)[0]
        if not (len(code) == 3 and code.isascii() and code.isdecimal()):
            raise ValueError(f"{status!r} is no status")
        self._arguments = f"{code} ", list(headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body, after the headers."""
        self.state.check()
        self.send_headers()(data)

    def send_headers(self) -> Callable[[bytes], object]:
        """Send the headers, unless that was done; return what sends a piece."""
        if self._write is None:
            if self._arguments is None:
                raise AssertionError("start_response() was not called")
            self._write = self._start_response(*self._arguments)
        assert self._write is not None
        return self._write


class _Body:
    """The body that an application returned."""

    def __init__(self, pieces: Iterable[bytes], response: _Response) -> None:
        self._pieces = pieces
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        response = self._response
        for piece in self._pieces:
            response.state.check()
            if piece:
                response.send_headers()
                yield piece
        # A body without a byte has headers, too.
        response.send_headers()

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
