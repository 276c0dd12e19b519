"""A worker process: it serves what the supervisor has opened, until that says stop."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from nghttp2py.asyncio.event_loop import run_in
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.errors import ApplicationError, ConfigurationError
from nghttp2py.workers.channel import Channel, ChannelError, Message

if TYPE_CHECKING:
    # QUIC is imported when it is first used: not every build has it.
    from nghttp2py.asyncio.quic_member import QuicMember

__all__ = ["FAILED", "IGNORED", "STOPPING", "Worker", "reopen_logs", "run_worker"]

logger = logging.getLogger(__name__)

#: The exit code of a worker that has failed to start.
FAILED = 3
#: Signals that a terminal or an operator sends to the supervisor, whose process group
#: the workers share.  A worker ignores them: the supervisor sends it messages.
IGNORED = frozenset(
    {signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1}
)
#: Signals that do what the supervisor's message "stop" does.
STOPPING = frozenset({signal.SIGTERM})

# Characters of a traceback that the supervisor is sent.
_MAX_DETAILS = 65536

Main = Callable[..., Awaitable[object]]


class Worker:
    """What a worker process knows of itself: the argument of its program.

    The program is a coroutine function.  It serves ``sockets``, calls ``ready`` as soon
    as it accepts connections, and returns when ``stopping`` is set and its requests
    have ended.  If ``aborting`` is set, too, it should return at once.
    """

    def __init__(
        self,
        channel: Channel,
        index: int = 0,
        generation: int = 0,
        sockets: dict[str, list[socket.socket]] | None = None,
        *,
        secrets: SharedSecrets | None = None,
        quic: QuicMember | None = None,
    ) -> None:
        self._channel = channel
        #: The worker's number, from 0 on; its replacement has the same.
        self.index = index
        #: How many workers have had this number before.
        self.generation = generation
        #: Listening sockets by the names that the supervisor's ``addresses`` have.  A
        #: host may have several addresses.
        self.sockets = {} if sockets is None else sockets
        #: What all workers share, also with those that replace them.
        self.secrets = SharedSecrets.create() if secrets is None else secrets
        #: What a server takes as ``quic_group``, if HTTP/3 is served.
        self.quic = quic
        #: Is set when the worker must stop accepting, and end when its requests have.
        self.stopping = asyncio.Event()
        #: Is set when the worker must end without waiting for its requests.
        self.aborting = asyncio.Event()
        #: Whether ``ready`` was called.
        self.is_ready = False

    # ---- For the program ----

    async def ready(self) -> None:
        """Report that this worker accepts connections.  A second call is a no-op."""
        if not self.is_ready:
            self.is_ready = True
            self._channel.send({"type": "ready"})

    def replace(self) -> None:
        """Ask for a replacement: when it is ready, ``stopping`` is set here."""
        self._channel.send({"type": "replace"})

    async def serve(self, *servers: Any) -> None:
        """Start servers, and serve until ``stopping`` is set and they have ended.

        ``servers`` are of ``nghttp2py.asyncio.Server``.  With ``aborting`` they are
        aborted.
        """
        try:
            for server in servers:
                await server.start()
            await self.ready()
            await self.stopping.wait()
            for server in servers:
                server.close()
            ending = asyncio.ensure_future(_wait_closed(servers))
            aborting = asyncio.ensure_future(self.aborting.wait())
            try:
                await asyncio.wait(
                    [ending, aborting], return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                ending.cancel()
                aborting.cancel()
        finally:
            for server in servers:
                server.abort()


class _Program(Worker):
    """A ``Worker`` that does what the supervisor says."""

    _heartbeat = 1.0
    _loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, heartbeat: float) -> None:
        """Handle the supervisor's messages in ``loop``, and send heartbeats.

        ``heartbeat`` is the number of seconds between them.
        """
        self._loop, self._heartbeat = loop, heartbeat
        self._channel.attach(loop, self._handle, self._lost)
        self._beat()

    def _beat(self) -> None:
        assert self._loop is not None
        # A supervisor that does not read them has no use for more.
        if not self._channel.is_behind:
            self._channel.send({"type": "heartbeat"})
        self._loop.call_later(self._heartbeat, self._beat)

    def _handle(self, message: Message) -> None:
        kind = message["type"]
        if kind == "stop":
            self.stop()
        elif kind == "abort":
            self.stop()
            self.aborting.set()
        elif kind == "reopen":
            reopen_logs()

    def _lost(self) -> None:
        if not self.stopping.is_set():
            logger.warning("the supervisor has ended: worker %d stops", self.index)
        self.stop()

    def stop(self) -> None:
        """Set ``stopping``, and report it.  A second call is a no-op."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._channel.send({"type": "stopping"})

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop as by the supervisor's message; in a handler of ``signal.signal``."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.stop)

    def fail(self, error: BaseException) -> None:
        """Report why the worker could not start."""
        details = getattr(error, "details", "")
        if isinstance(error, ApplicationError | ConfigurationError):
            reason = str(error)
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            reason = traceback.format_exception_only(error)[-1].strip()
            details = "".join(traceback.format_exception(error))[-_MAX_DETAILS:]
        self._channel.send({"type": "failed", "reason": reason, "details": details})


async def _wait_closed(servers: tuple[Any, ...]) -> None:
    for server in servers:
        await server.wait_closed()


def reopen_logs() -> None:
    """Close the files of logging's handlers; each opens its file again to write."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers: list[Any] = [
        handler
        for one in loggers
        for handler in getattr(one, "handlers", ())
        if isinstance(handler, logging.FileHandler)
    ]
    for handler in handlers:
        handler.acquire()
        try:
            # A handler without a stream opens its file when it writes the next line.
            stream, handler.stream = handler.stream, None
            if stream is not None:
                stream.close()
        finally:
            handler.release()


# ---- The process ----


def run_worker(sock: socket.socket, modules: Sequence[str] = ()) -> int:
    """Do what the supervisor at the other end of ``sock`` says; return the exit code.

    ``modules`` are imported first: a spare process waits for the supervisor to make it
    a worker, which then starts faster.  The supervisor has started this process with
    the signals blocked that are handled here.
    """
    channel = Channel(sock, descriptors=True)
    for each in IGNORED:
        # Not SIG_IGN, which programs that the application starts would inherit.
        signal.signal(each, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    for name in modules:
        importlib.import_module(name)
    try:
        start, descriptors = channel.wait()
    except (EOFError, OSError, ChannelError):
        return FAILED  # the supervisor has ended
    sys.path[:] = start["path"]
    sockets: dict[str, list[socket.socket]] = {}
    count = len(start["sockets"])
    for name, number in zip(start["sockets"], descriptors[:count], strict=True):
        sockets.setdefault(name, []).append(socket.socket(fileno=number))
    quic = None
    if start["quic"] is not None:
        from nghttp2py.asyncio.quic_member import QuicMember

        quic = QuicMember.restore(start["quic"], descriptors[count:])
    worker = _Program(
        channel,
        start["index"],
        start["generation"],
        sockets,
        secrets=SharedSecrets.from_json(start["secrets"]),
        quic=quic,
    )
    if not faulthandler.is_enabled() and sys.stderr is not None:
        # The supervisor ends a worker that hangs by SIGABRT: this shows where it does.
        with contextlib.suppress(OSError, ValueError):
            faulthandler.enable()
    for each in STOPPING:
        signal.signal(each, worker.handle_signal)
    code = [0]

    async def main() -> None:
        worker.attach(asyncio.get_running_loop(), start["heartbeat"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        code[0] = await _live(worker, start["program"], start["arguments"])
        if worker.aborting.is_set() and has_threads():
            leave(code[0])

    try:
        run_in(main(), start["loop"])
    finally:
        # The interpreter's end would restore the default actions of what has handlers.
        for each in IGNORED | STOPPING:
            signal.signal(each, signal.SIG_IGN)
    return code[0]


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


async def _live(worker: _Program, name: str, arguments: dict[str, Any]) -> int:
    """Run the program to its end; return the exit code."""
    try:
        program = _find_program(name)
        await program(worker, **arguments)
    except Exception as error:
        if worker.is_ready:
            logger.critical("worker %d has failed", worker.index, exc_info=error)
            return 1
        worker.fail(error)
        return FAILED
    return 0


def _find_program(name: str) -> Main:
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ApplicationError(f"{module} has no {attribute!r}") from None
    if not inspect.iscoroutinefunction(found):
        raise ApplicationError(f"{name} must be a coroutine function of a Worker")
    program: Main = found
    return program


def has_threads() -> bool:
    """Return whether a thread would keep the process alive."""
    return any(
        not thread.daemon and thread is not threading.main_thread()
        for thread in threading.enumerate()
    )


def leave(code: int) -> None:
    """End the process now: neither asyncio nor the interpreter joins threads."""
    logging.shutdown()
    for stream in sys.stdout, sys.stderr:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
