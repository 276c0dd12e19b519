"""A client for programs with coroutines.

A ``Client`` is for one origin.  It has no cookies, redirects or caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import ssl as ssl_module
import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Coroutine,
    Iterable,
    Iterator,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nghttp2py.arguments import check_int, check_seconds, check_type, describe
from nghttp2py.asyncio.body import AsyncBody, iterate
from nghttp2py.asyncio.deadlines import Deadlines
from nghttp2py.asyncio.endpoints import (
    check_options,
    open_connection,
    open_unix_connection,
)
from nghttp2py.asyncio.fields import Fields
from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.asyncio.protocol import H2Protocol
from nghttp2py.asyncio.stream import Stream
from nghttp2py.asyncio.timeouts import merge_timeouts
from nghttp2py.asyncio.url import SplitURL, split_url
from nghttp2py.asyncio.writer import HeadersLike, to_pairs
from nghttp2py.errors import (
    BodyTooLargeError,
    ConnectionClosedError,
    ConnectionTerminatedError,
    StreamResetError,
)
from nghttp2py.h2 import H2Configuration
from nghttp2py.h2.body import is_bytes_like
from nghttp2py.h2.config import check_config
from nghttp2py.hpack import NeverIndexed

if TYPE_CHECKING:
    # aioquic has it at this path; QUIC is imported when it is asked for.
    from nghttp2py.asyncio.quic import connect as connect
    from nghttp2py.quic import QuicConfiguration

__all__ = ["Client", "Fields", "Response"]

Answer = Coroutine[Any, Any, "Response"]

#: Seconds that connecting may take, TLS included.
CONNECT_TIMEOUT = 30.0
#: Seconds in which a response must begin, and each piece of it must arrive.
TIMEOUT = 60.0
#: How often a request that the server has not processed is sent again.
RETRIES = 3

#: The default of ``config``; its windows are those of HTTP/3, too.  A window of 1 MiB
#: keeps a fast and distant server busy, and bounds a response that is not read; the
#: connection's window is so wide that such a response does not block others.
DEFAULT_CONFIGURATION = H2Configuration(
    initial_window_size=1048576,
    connection_window_size=2**31 - 1,
    manual_flow_control=True,
)

# The delay before a request is sent again on a connection that has refused it, in
# seconds; it doubles each time.
_BACKOFF = 0.02
# How many different timeouts get a shared timer each.
_MAX_DEADLINES = 32
# RFC 9110, 10.1.1.
_EXPECT = (b"expect", b"100-continue")
# Bytes that are read from a file at once.
_PIECE = 65536


class _Timeout:
    """A context manager that ends its block with ``TimeoutError`` after a time."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task", "_what")

    def __init__(self, deadlines: Deadlines | None, what: str) -> None:
        self._deadlines = deadlines
        self._what = what
        self._expired = False

    def __enter__(self) -> None:
        if self._deadlines is not None:
            task = self._task = asyncio.current_task()
            # From Python 3.11 a task counts who cancels it.
            if sys.version_info >= (3, 11) and task is not None:
                self._cancelling = task.cancelling()
            self._deadlines.add(self)

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._deadlines is None:
            return
        if not self._expired:
            self._deadlines.discard(self)
        elif exc_type is asyncio.CancelledError:
            if (
                sys.version_info >= (3, 11)
                and self._task is not None
                and self._task.uncancel() > self._cancelling
            ):
                return
            raise TimeoutError(
                f"{self._what} in {self._deadlines.seconds} seconds"
            ) from exc


class Response:
    """A response whose body may still be arriving.

    ``async for chunk in response`` iterates over the body as it arrives; the server
    gets credit for what is read, so a slow reader slows the server down.  Read it to
    its end, or leave an ``async with`` block, or call ``close``: an unread rest keeps a
    stream of the connection open.
    """

    def __init__(
        self,
        stream: Stream,
        status: int,
        headers: Fields,
        informational: tuple[tuple[int, Fields], ...],
        deadlines: Deadlines | None,
    ) -> None:
        self._stream = stream
        self._deadlines = deadlines
        #: The status (RFC 9110, 15), an int.
        self.status = status
        #: The header section.
        self.headers = headers
        #: The 1xx responses that came before it: status and fields of each.
        self.informational = informational

    @property
    def stream_id(self) -> int:
        """The identifier of its stream."""
        return self._stream.stream_id

    async def read(self, limit: int | None = None) -> bytes:
        """Return the rest of the body.

        Raises ``BodyTooLargeError`` and closes the response if that is more than
        ``limit`` bytes; ``StreamResetError`` or ``ConnectionTerminatedError`` if the
        body is cut off; ``TimeoutError`` if nothing arrives within the client's
        timeout.
        """
        stream = self._stream
        if limit is None and stream.is_whole:
            return await stream.read()
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body in pieces as they arrive; raises as ``read``."""
        while True:
            piece = await self._next()
            if not piece:
                return
            yield piece

    async def _next(self) -> bytes:
        try:
            with _Timeout(self._deadlines, "nothing of the body came"):
                return await self._stream.readany()
        except TimeoutError:
            self.close()
            raise

    async def trailers(self) -> Fields:
        """Wait for the end of the body, which is dropped, and return the trailers."""
        while await self._next():
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


def _can_seek(body: Any) -> bool:
    """Return whether ``body`` is a seekable file, and not an asynchronous one."""
    read = getattr(body, "read", None)
    if not callable(read) or inspect.iscoroutinefunction(read):
        return False
    seekable = getattr(body, "seekable", None)
    return callable(seekable) and seekable() is True


class _Body:
    """A request's body, which may have to be sent more than once."""

    def __init__(self, body: Any) -> None:
        if isinstance(body, str):
            body = body.encode()
        self._body = body
        self._touched = False
        self._position: int | None = None
        self._is_bytes = is_bytes_like(body)
        #: Its length, if that is known.
        self.length: int | None = None
        #: What its source has raised.
        self.error: BaseException | None = None
        if self._is_bytes:
            self.length = memoryview(body).nbytes
        elif _can_seek(body):
            # Such a file can be read again from its current position.
            with contextlib.suppress(AttributeError, OSError):
                self._position = body.tell()
                self.length = body.seek(0, os.SEEK_END) - self._position
                body.seek(self._position)
        elif not (
            body is None
            or isinstance(body, (AsyncIterable, Iterable))
            or callable(getattr(body, "read", None))
        ):
            raise TypeError(
                "a body must be None, str, bytes-like, a binary file, an iterable or "
                f"asynchronous iterable of bytes, not {type(body).__name__}"
            )

    @property
    def is_empty(self) -> bool:
        return self._body is None

    @property
    def can_repeat(self) -> bool:
        """Whether it can be sent (again) from its beginning."""
        return not self._touched or self._position is not None

    def send(self, stream: Stream, trailers: HeadersLike | None) -> None:
        """Queue it on a stream, or its source, which is read as the stream can send."""
        body = self._body
        if body is None:
            body = b""
        elif not self._is_bytes:
            if self._position is not None:
                body.seek(self._position)
            iterator = iterate(body)
            if iterator is not None:
                # No reference to the stream, because its response may be dropped.
                body = AsyncBody(self._watch_async(iterator), stream.make_resume())
                stream.run_in(body.task)
            elif callable(getattr(body, "read", None)):
                body = self._watch(iter(partial(body.read, _PIECE), b""))
            else:
                body = self._watch(body)
        stream.give_body(body, trailers)

    def _watch(self, body: Iterable[bytes]) -> Iterator[bytes]:
        self._touched = True
        try:
            for piece in body:
                yield _check_piece(piece)
        except Exception as error:
            self.error = error
            raise

    async def _watch_async(self, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        self._touched = True
        try:
            async for piece in body:
                yield _check_piece(piece)
        except Exception as error:
            self.error = error
            raise
        finally:
            aclose = getattr(body, "aclose", None)
            if aclose is not None:
                await aclose()


_NO_BODY = _Body(None)


class Connection(Protocol):
    """What a client needs of a connection, of either protocol."""

    @property
    def is_available(self) -> bool:
        """Whether requests can be sent."""

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""

    async def open_stream(self, headers: Any, *, end_stream: bool = ...) -> Stream:
        """Send a request's header section."""

    def abort(self) -> None:
        """End it at once."""

    async def wait_closed(self) -> None:
        """Wait until it is over."""


class Connector(Protocol):
    """Makes connections to an origin, and knows how they end."""

    async def connect(self) -> Connection:
        """Make a connection."""

    def close(self, connection: Any, timeout: float | None) -> None:
        """Begin the graceful end of a connection that was made here."""


class _HTTP2Connector:
    """Makes connections of HTTP/2; ``options`` are those of ``open_connection``."""

    def __init__(
        self,
        url: SplitURL,
        path: str | None,
        *,
        ssl: Any,
        config: H2Configuration | None,
        connect_timeout: float | None,
        idle_timeout: float | None,
        **options: Any,
    ) -> None:
        check_options(options)
        merge_timeouts(options.get("timeouts"), client=True)
        self._host = url.host
        self._port = url.port
        self._path = path
        if path is not None and ssl is not None:
            options.setdefault("server_hostname", url.host)
        self._options = {
            "ssl": ssl,
            "config": DEFAULT_CONFIGURATION if config is None else config,
            "connect_timeout": connect_timeout,
            "idle_timeout": idle_timeout,
            "header_encoding": None,
            **options,
        }

    async def connect(self) -> H2Protocol:
        if self._path is not None:
            return await open_unix_connection(self._path, **self._options)
        return await open_connection(self._host, self._port, **self._options)

    @staticmethod
    def close(connection: H2Protocol, timeout: float | None) -> None:
        connection.close(timeout)


class Client:
    """Sends requests to one origin, ``http://host[:port]`` or ``https://...``.

    All requests share one connection, made when the first needs it, and made
    again when the server has ended it (GOAWAY) or it was lost.  A request that
    the server declares not to have processed (RFC 9113, 8.7, RFC 9114, 4.1.1)
    is sent again, up to ``retries`` times, if its body can be: bytes, a seekable
    file, or something that was not read from yet.  Others raise, as it is not
    known what the server did with them.

    ``ssl`` is an ``ssl.SSLContext``, or ``None`` for the default one; for
    ``http`` the server must expect HTTP/2 in the clear (RFC 9113, 3.3).
    With ``http3`` all goes over HTTP/3: ``True`` or ``"only"``, and then QUIC
    trusts the authorities that ``ssl`` has loaded, or those of certifi or the
    system; or a ``QuicConfiguration``, which says whom to trust.
    ``path`` is that of a Unix socket to connect to instead of the host.
    ``headers`` go with every request.  ``config`` holds settings and limits
    of HTTP/2.

    Times are in seconds, ``None`` is no limit: ``connect_timeout`` for a
    connection to be made; ``timeout`` for a response to begin, connecting and
    repeating included, and then for each next piece of its body;
    ``idle_timeout`` for a connection without streams.  ``options`` go to
    ``open_connection``; HTTP/3 has ``cls``, which makes an ``H3Protocol``,
    ``server_hostname``, ``timeouts``, and what replaces a field of that.

    Use it as ``async with Client(...) as client``; leaving waits for the open streams,
    which other tasks may be reading.  A response that is not read or closed, and whose
    rest is larger than its window, is aborted after ``close_timeout``, one of
    ``options``.

    Raises ``TypeError`` and ``ValueError``, of which ``ConfigurationError`` and
    ``TLSConfigurationError`` are kinds, for what cannot be used.
    """

    def __init__(
        self,
        origin: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
        http3: bool | Literal["only"] | QuicConfiguration = False,
        path: str | None = None,
        headers: HeadersLike = (),
        config: H2Configuration | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        timeout: float | None = TIMEOUT,
        idle_timeout: float | None = None,
        retries: int = RETRIES,
        **options: Any,
    ) -> None:
        url = split_url(origin)
        if url.scheme is None or url.target != "/":
            raise ValueError(
                f"{origin!r} is not an origin such as 'https://example.org'"
            )
        if url.scheme == "https":
            if ssl is None and http3 is False:
                ssl = ssl_module.create_default_context()
            if ssl is not None:
                check_type("ssl", ssl, ssl_module.SSLContext, "an ssl.SSLContext")
        elif ssl is not None:
            raise ValueError(f"ssl must be None for {origin!r}, not {describe(ssl)}")
        if path is not None:
            check_type("path", path, str, "a str or None")
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("timeout", timeout)
        check_seconds("idle_timeout", idle_timeout)
        check_int("retries", retries, 0)
        check_config(config)
        self._pseudo = (
            (b":scheme", url.scheme.encode()),
            (b":authority", (url.authority or "").encode()),
        )
        self._scheme = url.scheme
        self._authority = url.authority or ""
        self._headers = _to_headers(headers)
        self._timeout = timeout
        self._deadlines: dict[float, Deadlines] = {}
        self._retries = retries
        self._connector: Connector
        if http3 is False:
            self._connector = _HTTP2Connector(
                url,
                path,
                ssl=ssl,
                config=config,
                connect_timeout=connect_timeout,
                idle_timeout=idle_timeout,
                **options,
            )
        else:
            from nghttp2py.asyncio.h3_client import HTTP3Connector

            self._connector = HTTP3Connector(
                url,
                http3,
                path,
                config,
                defaults=DEFAULT_CONFIGURATION,
                ssl=ssl,
                connect_timeout=connect_timeout,
                timeout=timeout,
                idle_timeout=idle_timeout,
                **options,
            )
        self._connection: Connection | None = None
        # The open connections, and whether each has answered a request.
        self._connections: dict[Connection, bool] = {}
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False

    # ---- Requests ----

    def get(self, target: str, **options: Any) -> Answer:
        """Send a GET request: see ``request``."""
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Any) -> Answer:
        """Send a HEAD request: see ``request``."""
        return self.request("HEAD", target, **options)

    def post(self, target: str, body: Any = None, **options: Any) -> Answer:
        """Send a POST request: see ``request``."""
        return self.request("POST", target, body=body, **options)

    def put(self, target: str, body: Any = None, **options: Any) -> Answer:
        """Send a PUT request: see ``request``."""
        return self.request("PUT", target, body=body, **options)

    def delete(self, target: str, **options: Any) -> Answer:
        """Send a DELETE request: see ``request``."""
        return self.request("DELETE", target, **options)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeadersLike = (),
        body: Any = None,
        trailers: HeadersLike | None = None,
        timeout: float | None = -1,
        expect_continue: float | bool = False,
    ) -> Response:
        """Send a request and wait until its response begins.

        ``target`` is a path with its query, or a URL of this client's origin.
        ``headers`` are pairs of names and values, bytes or str, or a mapping.
        ``body`` is ``None``, str (sent as UTF-8), bytes-like, a binary file
        (sent from where it stands; ``read`` may be a coroutine function), or an
        iterable or asynchronous iterable of bytes, as streams and responses of
        this package are; it is sent while the response is awaited and read.  Of
        bytes and seekable files content-length is stated.  ``timeout`` is used
        instead of the client's.

        With ``expect_continue`` the request has ``expect: 100-continue`` (RFC 9110,
        10.1.1): the body is sent when the server asks for it, or after that many
        seconds (``True``: 1); it is not sent if the response refuses it.  After 417
        (Expectation Failed) the request is sent without.

        Raises what ``open_connection`` raises; ``StreamResetError`` and
        ``ConnectionTerminatedError`` with the peer's error code;
        ``TimeoutError``; ``HeadersError`` and ``InvalidBodyLengthError`` for a
        request that must not be sent.
        """
        if timeout == -1:
            timeout = self._timeout
        else:
            check_seconds("timeout", timeout)
        deadlines = self._find_deadlines(timeout)
        source = _NO_BODY if body is None else _Body(body)
        fields = self._make_fields(method, target, headers, source.length)
        if trailers is not None:
            trailers = list(to_pairs(trailers))
        wait = float(expect_continue)
        if wait and not source.is_empty:
            fields.append(_EXPECT)
        attempt = 0
        with _Timeout(deadlines, "no response"):
            while True:
                connection = self._connection
                if connection is None or not connection.is_available:
                    connection = await self._connect()
                try:
                    response = await self._request_once(
                        connection, fields, source, trailers, deadlines, wait
                    )
                    if (
                        response.status != 417
                        or _EXPECT not in fields
                        or not source.can_repeat
                    ):
                        return response
                    response.close()
                    fields.remove(_EXPECT)
                    wait = 0.0
                except (StreamResetError, ConnectionTerminatedError) as error:
                    if not error.unprocessed or self._closed or not source.can_repeat:
                        raise
                    # A server may cap the requests of a connection.  Retry on a new
                    # one, without counting an attempt, as long as some are answered.
                    available = connection.is_available
                    if available or not self._connections.get(connection):
                        if attempt == self._retries:
                            raise
                        if available:
                            await asyncio.sleep(_BACKOFF * 2**attempt)
                        attempt += 1

    async def _request_once(
        self,
        connection: Connection,
        fields: list[tuple[bytes, bytes]],
        body: _Body,
        trailers: HeadersLike | None,
        deadlines: Deadlines | None,
        wait: float,
    ) -> Response:
        whole = body.is_empty and trailers is None
        stream = await connection.open_stream(fields, end_stream=whole)
        try:
            if not whole and (
                not wait or body.is_empty or await stream.is_body_wanted(wait)
            ):
                body.send(stream, trailers)
            event = await stream.response()
            informational = [
                (early.status, Fields(early.headers))
                for early in stream.take_informational()
            ]
        except BaseException as error:
            # A caller that gives up, or is cancelled, leaves no stream behind.
            stream.reset()
            if body.error is not None and isinstance(error, StreamResetError):
                raise body.error from None
            raise
        self._connections[connection] = True
        return Response(
            stream, event.status, Fields(event.headers), tuple(informational), deadlines
        )

    def _make_fields(
        self, method: str, target: str, headers: HeadersLike, length: int | None
    ) -> list[tuple[bytes, bytes]]:
        url = split_url(target)
        if url.scheme is not None and (url.scheme, url.authority) != (
            self._scheme,
            self._authority,
        ):
            raise ValueError(f"{target!r} is not of {self._scheme}://{self._authority}")
        fields = [
            (b":method", method.encode()),
            *self._pseudo,
            (b":path", url.target.encode()),
        ]
        if not headers and length is None:
            return fields + self._headers
        own = [_with_lower_name(field) for field in to_pairs(headers)]
        names = {field[0] for field in own}
        fields += [field for field in self._headers if field[0] not in names]
        fields += own
        if length is not None and b"content-length" not in names:
            fields.append((b"content-length", b"%d" % length))
        return fields

    def _find_deadlines(self, timeout: float | None) -> Deadlines | None:
        if timeout is None:
            return None
        found = self._deadlines.get(timeout)
        if found is None:
            found = Deadlines(timeout, asyncio.get_running_loop())
            if len(self._deadlines) < _MAX_DEADLINES:
                self._deadlines[timeout] = found
        return found

    # ---- Connections ----

    async def _connect(self) -> Connection:
        """Return a connection that accepts requests; callers share the one being
        made."""
        if self._closed:
            raise ConnectionClosedError(f"{self} is closed")
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(
                self._connector.connect()
            )
            self._connecting.add_done_callback(self._connected)
        # The task itself is not awaited: a cancelled caller must not cancel the
        # connection of others, and close(), which cancels it, must not cancel the
        # callers.
        task = self._connecting
        await asyncio.wait([task])
        if task.cancelled():
            raise ConnectionClosedError(f"{self} is closed")
        return task.result()

    def _connected(self, task: asyncio.Task[Any]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        connection = task.result()
        for old in [c for c in self._connections if c.is_closed]:
            del self._connections[old]
        self._connections[connection] = False
        self._connection = connection
        if self._closed:
            connection.abort()  # it was made before abort() could cancel that

    # ---- The end ----

    async def close(self, timeout: float | None = None) -> None:
        """Accept no more requests, and wait for the open streams to finish.

        What has not finished after ``timeout`` seconds is aborted; ``None`` means the
        connection's ``close_timeout``.
        """
        self._closed = True
        if self._connecting is not None:
            task = self._connecting
            task.cancel()
            await asyncio.wait([task])
        for connection in self._connections:
            self._connector.close(connection, timeout)
        for connection in list(self._connections):
            await connection.wait_closed()
        self._connections.clear()
        self._connection = None
        for deadlines in self._deadlines.values():
            deadlines.close()
        self._deadlines.clear()

    def abort(self) -> None:
        """End the connection at once: open streams are reset."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in self._connections:
            connection.abort()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, *exc_info: object
    ) -> None:
        if exc_type is not None:
            self.abort()
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._scheme}://{self._authority}>"


def _to_headers(headers: Any) -> list[Any]:
    """Iterate over the fields that every request has."""
    try:
        return [_with_lower_name(field) for field in to_pairs(headers)]
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            f"headers must be a mapping or pairs, not {describe(headers)}"
        ) from None


def _check_piece(piece: Any) -> Any:
    if not is_bytes_like(piece):
        raise TypeError(f"a body must be of bytes, not {type(piece).__name__}")
    return piece


def _with_lower_name(field: Any) -> Any:
    """Copy a field with its name in lower case, keeping its never-indexed mark."""
    name, value, *mark = field
    if isinstance(name, str):
        name = name.encode()
    if (
        any(mark)
        or isinstance(field, NeverIndexed)
        or not getattr(field, "indexable", True)  # of the hpack package
    ):
        return name.lower(), value, True
    return name.lower(), value


def __getattr__(name: str) -> object:
    if name == "connect":
        from nghttp2py.asyncio.quic import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
