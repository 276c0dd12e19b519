"""The transport of ``httpx.Client``: an event loop in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

from nghttp2py.errors import ConnectionClosedError
from nghttp2py.httpx.engine import Answer, Engine
from nghttp2py.httpx.faults import translate
from nghttp2py.httpx.loop_thread import Errand, LoopThread, call_back
from nghttp2py.httpx.modules import BaseTransport, Module, find_module
from nghttp2py.httpx.parameters import Parameters
from nghttp2py.httpx.streams import ResponseStream
from nghttp2py.httpx.transport import make_response

__all__ = ["Transport"]

_END = object()


class Transport(Parameters, BaseTransport):
    """Sends the requests of an ``httpx.Client`` over HTTP/2 and HTTP/3.

    The parameters are those of ``AsyncTransport``.  Its connections are in an event
    loop that runs in a thread of its own, from the first request to ``close``; threads
    can use it at the same time.  A request's body and its ``trace`` function run in
    the thread that waits for the response.  After ``os.fork`` the child process makes
    connections of its own.
    """

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._make_engine()  # raises for what cannot be used
        # One pair: a request must not meet the engine of another loop.
        self._running: tuple[LoopThread, Engine] | None = None
        self._process = os.getpid()

    def _find_running(self) -> tuple[LoopThread, Engine]:
        """Return the thread of the loop and its engine, started if necessary."""
        if self._process != os.getpid():
            # Another thread of the parent may have held the lock, and the connections
            # are the parent's.
            self._process = os.getpid()
            self._lock = threading.Lock()
            self._running = None
        running = self._running
        if running is None:
            with self._lock:
                running = self._running
                if running is None:
                    engine = self._make_engine()
                    thread = LoopThread(engine.close)
                    running = self._running = thread, engine
                    # If it is not closed: the thread has no reference to it.
                    weakref.finalize(self, thread.end).atexit = False
        return running

    def handle_request(self, request: Any) -> Any:
        """Send a request; return its response, whose body may still be arriving.

        Raises the exceptions of the request's module.
        """
        module = find_module(request)
        thread, engine = self._find_running()
        errand = Errand(thread)
        stream: Any = request.stream
        body: Any
        if isinstance(stream, module.byte_stream):
            body = b"".join(stream)
        else:
            body = _Upload(errand, stream)
        trace = request.extensions.get("trace")
        if trace is not None:
            trace = partial(_trace, trace)
        try:
            answer, pieces = errand.run(_exchange, engine, module, request, body, trace)
        except ConnectionClosedError as error:
            raise translate(module, error) from error
        kind = module.derive(SyncStream, "SyncByteStream")
        network = answer.extensions.get("network_stream")
        if network is not None:
            answer.extensions["network_stream"] = NetworkStream(module, thread, network)
        body = kind(module, thread, errand, answer, pieces)
        return make_response(module, answer, body)

    def close(self) -> None:
        """Close all connections; open responses break off."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            thread, _ = running
            thread.end()
            thread.join()

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()


async def _exchange(
    engine: Engine, module: Module, request: Any, body: Any, trace: Any
) -> tuple[Answer, list[bytes] | None]:
    """Send a request; return the answer, and its body if all of it has come."""
    answer = await engine.send(module, request, body, trace)
    stream = answer.stream
    if not isinstance(stream, ResponseStream) or not stream.is_whole:
        return answer, None
    stream.extensions = answer.extensions
    pieces = [piece async for piece in stream]
    await stream.aclose()
    return answer, pieces


async def _trace(function: Any, name: str, info: dict[str, Any]) -> None:
    await call_back(partial(function, name, info))


class _Upload:
    """A request's body, whose pieces are made in the thread that waits."""

    def __init__(self, errand: Errand, pieces: Iterable[bytes]) -> None:
        self._errand = errand
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        iterator = iter(self._pieces)
        while (
            piece := await self._errand.call(partial(next, iterator, _END))
        ) is not _END:
            yield piece


class SyncStream:
    """The body of a response: a subclass that is of httpx is given to its client."""

    def __init__(
        self,
        module: Module,
        thread: LoopThread,
        errand: Errand,
        answer: Answer,
        pieces: list[bytes] | None,
    ) -> None:
        self._module = module
        self._thread = thread
        # The rest of an upload is asked for by that of the request.
        self._errand = errand
        self._stream = answer.stream
        self._pieces = pieces
        self._closed = pieces is not None

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the body in pieces as they arrive."""
        if self._pieces is not None:
            yield from self._pieces
            return
        iterator = self._stream.__aiter__()
        while True:
            try:
                piece = self._errand.run(_get_next, iterator)
            except ConnectionClosedError as error:
                raise translate(self._module, error) from error
            if piece is _END:
                return
            yield piece

    def close(self) -> None:
        """Reset the stream, if its response is not complete."""
        if self._closed:
            return
        self._closed = True
        # Its loop may have ended.
        with contextlib.suppress(ConnectionClosedError):
            Errand(self._thread).run(self._stream.aclose)


async def _get_next(iterator: AsyncIterator[bytes]) -> Any:
    return await anext(iterator, _END)


class NetworkStream:
    """The extension ``network_stream`` of a response without asyncio."""

    def __init__(self, module: Module, thread: LoopThread, stream: Any) -> None:
        self._module = module
        self._thread = thread
        self._stream = stream

    def get_extra_info(self, info: str) -> Any:
        """Return information about the connection, as httpcore's streams do."""
        return self._stream.get_extra_info(info)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return up to ``max_bytes`` of the tunnel, as soon as there are any."""
        data: bytes = self._run(self._stream.read, "ReadError", max_bytes, timeout)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes by the tunnel."""
        self._run(self._stream.write, "WriteError", bytes(buffer), timeout)

    def _run(self, method: Any, fault: str, *args: Any) -> Any:
        try:
            return Errand(self._thread).run(method, *args)
        except ConnectionClosedError as error:
            raise self._module.make_core_error(fault, error) from error

    def close(self) -> None:
        """End our half of the tunnel, once what was written is sent."""
        with contextlib.suppress(ConnectionClosedError):
            Errand(self._thread).run(self._stream.aclose)

    def start_tls(self, *_: Any, **options: Any) -> Any:
        """Raise ``RuntimeError``: TLS inside of a stream is not supported."""
        raise RuntimeError("TLS inside of a stream is not supported")
