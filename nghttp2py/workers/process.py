"""A worker as the supervisor sees it: its process, its channel, and its time limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nghttp2py.errors import printable
from nghttp2py.workers.channel import Channel, Message
from nghttp2py.workers.notify import VARIABLES
from nghttp2py.workers.worker import IGNORED, STOPPING

if TYPE_CHECKING:
    from nghttp2py.asyncio.quic_member import QuicMember

__all__ = ["Failure", "Limits", "Spare", "WorkerProcess"]

logger = logging.getLogger(__name__)

# Seconds from SIGABRT, by which a hung worker shows where it hangs, to SIGKILL; and in
# which a worker that is not ready must end after ``abort``.
_ABORTED = 1.0
# Seconds in which a worker must end that has closed its channel.
_UNHEARD = 5.0
# Seconds in which a worker must end that was told not to wait for its requests.
_FORCED = 10.0
# Seconds in which a worker that is not ready must answer that it stops: one that
# imports a module, or blocks its loop, does not hear of it.
_ANSWER = 10.0
# Heartbeats in the time after which a silent worker is taken for hung.
_BEATS = 4
# A timer that is this many seconds late was kept by the suspended supervisor.
_LATE = 1.0


@dataclass(frozen=True)
class Limits:
    """Bounds of a worker's time, in seconds; None for no bound."""

    #: From its start until it is ready.
    startup: float | None = 120.0
    #: Between heartbeats, when it is ready.
    silence: float | None = 30.0
    #: From the request to stop until it has ended.
    stop: float | None = 60.0

    @property
    def heartbeat(self) -> float:
        """Seconds between heartbeats."""
        return 1.0 if self.silence is None else min(1.0, self.silence / _BEATS)


@dataclass(frozen=True)
class Failure:
    """Why a worker could not start: a line, and what follows it."""

    reason: str
    details: str = ""


class Spare:
    """A process that waits to become a worker, with ``modules`` imported.

    They must not be the application's, which each worker imports when it starts.

    Raises ``OSError`` if no process can be started.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.channel, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = _spawn(theirs, modules)
        except BaseException:
            self.channel.close()
            raise

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def close(self) -> None:
        """End the process."""
        self.channel.close()
        self.process.kill()
        self.process.wait()


class WorkerProcess:
    """A worker: it is starting, then ready, then stopping, then it has ended.

    ``started`` is a future: whether it has become ready.  ``changed`` is called with
    this object when the worker asks for a replacement, stops by itself, or has ended.
    ``spare`` is the process that becomes the worker.
    """

    def __init__(
        self,
        spare: Spare,
        index: int,
        generation: int,
        start: Message,
        sockets: Sequence[tuple[str, socket.socket]],
        member: QuicMember | None,
        limits: Limits,
        changed: Callable[[WorkerProcess], object],
    ) -> None:
        self.index = index
        self.generation = generation
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self.started: asyncio.Future[bool] = self._loop.create_future()
        #: Why it has failed to start, if it has said so.
        self.failure: Failure | None = None
        #: When it became ready, by the loop's clock.
        self.ready_at: float | None = None
        #: Whether it is stopping, and whether the supervisor has said so.
        self.is_stopping = self.is_told = False
        # Whether the worker has said so.
        self._has_answered = False
        self.exit_code: int | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._silence: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._process = spare.process
        self._channel = Channel(spare.channel)
        descriptors = [sock.fileno() for _, sock in sockets]
        state = None
        if member is not None:
            state, more = member.describe()
            descriptors += more
        self._channel.send(
            {
                **start,
                "quic": state,
                "type": "start",
                "index": index,
                "generation": generation,
                "heartbeat": limits.heartbeat,
                "path": [entry or os.getcwd() for entry in sys.path],
                "sockets": [name for name, _ in sockets],
            },
            descriptors,
        )
        self._channel.attach(self._loop, self._handle, self._lost)
        self._starting = self._bound("become ready", limits.startup)

    def __str__(self) -> str:
        return f"worker {self.index} (process {self.pid})"

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has become ready."""
        return self.ready_at is not None

    # ---- What it reports ----

    def _handle(self, message: Message) -> None:
        self._heard = self._loop.time()
        kind = message["type"]
        if kind == "ready" and self.ready_at is None:
            self.ready_at = self._heard
            self._end_starting()
            self._watch_silence()
            self._resolve(True)
        elif kind == "failed":
            self.failure = Failure(
                printable(str(message.get("reason"))),
                "\n".join(map(printable, str(message.get("details", "")).split("\n"))),
            )
        elif kind == "stopping":
            self._has_answered = True
            if not self.is_stopping:
                self._begin_stop()
                self._changed(self)
        elif kind == "replace" and not self.is_stopping:
            self._changed(self)

    def _lost(self) -> None:
        # It has ended, or it is out of control.
        self._after(_UNHEARD, self.kill)

    def _resolve(self, ready: bool) -> None:
        if not self.started.done():
            self.started.set_result(ready)

    def poll(self) -> bool:
        """Return whether the process has ended; report it the first time."""
        if self.exit_code is not None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self.exit_code = code
        self._channel.drain()
        self._channel.close()
        self._cancel_timers()
        self._resolve(False)
        self._changed(self)
        return True

    def describe_end(self) -> str:
        """Return how the process has ended, as the rest of a sentence."""
        code = self.exit_code
        if code is None or code >= 0:
            return f"with the exit code {code}"
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
        return f"by the signal {-code}"

    # ---- Time limits ----

    def _after(
        self, seconds: float | None, call: Callable[..., object], *arguments: object
    ) -> asyncio.TimerHandle | None:
        if seconds is None or self.exit_code is not None:
            return None
        timer = self._loop.call_later(seconds, call, *arguments)
        self._timers.append(timer)
        return timer

    def _bound(self, what: str, seconds: float | None) -> asyncio.TimerHandle | None:
        """Kill it unless it has done ``what`` within ``seconds``."""
        return self._after(seconds, self._time_out, what, seconds)

    def _end_starting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None

    def _begin_stop(self) -> None:
        """Bound the time to its end, and not that until it is ready any more."""
        if not self.is_stopping:
            self.is_stopping = True
            self._end_starting()
            self._bound("ended", self.limits.stop)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _time_out(self, what: str, seconds: float) -> None:
        logger.error(
            "%s has not %s within %g seconds, and is killed", self, what, seconds
        )
        self.dump()

    def _watch_silence(self) -> None:
        limit = self.limits.silence
        if limit is None:
            return
        now = self._loop.time()
        if self._silence is not None and now > self._silence.when() + _LATE:
            # The supervisor was suspended, and the workers possibly with it.
            self._heard = now
        if now < self._heard + limit:
            self._silence = self._loop.call_at(self._heard + limit, self._watch_silence)
            return
        logger.error(
            "%s has not been heard of for %g seconds, and is killed", self, limit
        )
        self.dump()

    # ---- The end ----

    def stop(self) -> None:
        """Tell it to stop accepting, and to end when its requests have ended."""
        if not self.is_told:
            self.is_told = True
            self._begin_stop()
            self._channel.send({"type": "stop"})
            if not self.is_ready:
                self._after(_ANSWER, self._kill_unheard)

    def _kill_unheard(self) -> None:
        if not self._has_answered:
            logger.warning("%s does not stop its start, and is killed", self)
            self.kill()

    def abort(self) -> None:
        """Tell it to end without waiting for its requests."""
        self.is_told = self.is_stopping = True
        self._channel.send({"type": "abort"})
        # A worker that is not ready has no requests.
        self._after(_FORCED if self.is_ready else _ABORTED, self.kill)

    def reopen_logs(self) -> None:
        """Tell it to open the files of its logs again."""
        self._channel.send({"type": "reopen"})

    def dump(self) -> None:
        """Have it write the traceback of each thread, and end."""
        self._signal(signal.SIGABRT)
        self._after(_ABORTED, self.kill)

    def kill(self) -> None:
        """End the process now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.exit_code is None:
            self._process.send_signal(number)


def _spawn(theirs: socket.socket, modules: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the process of a worker, with its end of the channel."""
    command = [sys.executable]
    if sys.version_info >= (3, 11) and not {"", os.getcwd()} & set(sys.path):
        # Modules of the current directory must not hide others: they do not here.
        command.append("-P")
    command += [f"-X{name}{_value(value)}" for name, value in sys._xoptions.items()]
    command += [f"-W{option}" for option in sys.warnoptions]
    command += ["-m", "nghttp2py.workers", str(theirs.fileno()), *modules]
    # The supervisor alone notifies systemd.
    environment = {
        name: value for name, value in os.environ.items() if name not in VARIABLES
    }
    # They are blocked until the worker can handle them: a Ctrl-C of the terminal goes
    # to the whole process group.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED | STOPPING)
    try:
        return subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _value(value: Any) -> str:
    return "" if value is True else f"={value}"
