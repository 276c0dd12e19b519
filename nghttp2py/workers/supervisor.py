"""The supervisor: it starts workers, watches them, and replaces them.

It opens the sockets, and runs no code of the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nghttp2py.arguments import check_bool, check_int, check_seconds, describe
from nghttp2py.asyncio.binding import describe_address
from nghttp2py.asyncio.event_loop import LOOPS
from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.workers import notify
from nghttp2py.workers.process import Failure, Limits, Spare, WorkerProcess
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.worker import FAILED, reopen_logs

if TYPE_CHECKING:
    # QUIC is imported when it is first used: not every build has it.
    from nghttp2py.asyncio.quic_group import QuicGroup

__all__ = [
    "Program",
    "Slot",
    "Supervisor",
    "count_workers",
    "describe_failure",
    "run",
]

logger = logging.getLogger(__name__)

# "package.module:name"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# Seconds until a worker, or a spare process, is started again that has ended: none the
# first time, then the least, and twice as many each time up to the most.
_LEAST_PAUSE = 0.5
_MOST_PAUSE = 30.0
# Seconds after which a worker that is ready, or a spare process, counts as sound.
_SOUND = 10.0
#: More workers than this are a mistake.
MOST_WORKERS = 1024


@dataclass(frozen=True)
class Program:
    """What the workers run.

    ``name`` is that of a coroutine function, "package.module:name", which is called
    with a ``Worker`` and ``arguments``; these must be what JSON can hold.  ``loop`` is
    "auto", "asyncio" or "uvloop".  ``modules`` of this package are imported before a
    process becomes a worker.

    Raises ``TypeError`` and ``ValueError``.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    loop: str = "auto"
    modules: Sequence[str] = ("nghttp2py.asyncio",)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(
                "factory must be the name of a coroutine function, as "
                f"'package.module:name', not {describe(self.name)}"
            )
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"factory must be a name as 'package.module:name', not {self.name!r}"
            )
        if self.loop not in LOOPS:
            raise ValueError(
                f"loop must be one of {', '.join(LOOPS)}, not {self.loop!r}"
            )
        try:
            json.dumps(dict(self.arguments))
        except (TypeError, ValueError) as error:
            raise TypeError(f"arguments must be what JSON can hold: {error}") from None


class Slot:
    """The place of a worker, and of those that replace it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: WorkerProcess | None = None
        # The one that takes its place when it is ready.
        self.next: WorkerProcess | None = None
        self.failures = 0
        self.retry: asyncio.TimerHandle | None = None

    def cancel_retry(self) -> None:
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


def _describe_count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


class Supervisor:
    """Starts workers, watches them, and replaces those that end or hang.

    ``sockets`` are theirs, and ``quic`` has those of UDP; the supervisor closes both at
    its end.  ``secrets`` are what they share, by default those of ``quic``, or new.
    ``announce`` is called once, when all workers are ready for the first time, and
    ``ended`` with the number of each process that has ended.

    ``await run()`` returns the exit code.  It catches these signals: SIGTERM and SIGINT
    stop the workers, which let their requests end; a second SIGINT ends them at once;
    SIGHUP replaces one worker after another; SIGTTIN adds a worker, and SIGTTOU takes
    one; SIGUSR1 has all open their log files again.
    """

    def __init__(
        self,
        program: Program,
        sockets: Sockets,
        workers: int = 1,
        *,
        limits: Limits | None = None,
        quic: QuicGroup | None = None,
        secrets: SharedSecrets | None = None,
        announce: Callable[[], object] | None = None,
        ended: Callable[[int], object] | None = None,
    ) -> None:
        check_int("workers", workers, 1, MOST_WORKERS)
        self.program = program
        self.sockets = sockets
        self.limits = Limits() if limits is None else limits
        self.quic = quic
        #: What the workers share, also with those that replace them.
        self.secrets = secrets or SharedSecrets.create()
        if quic is not None:
            self.secrets = quic.secrets
        self._announce = announce
        self._tell_end = ended
        # The generation of the next worker of each place.
        self._generations: dict[int, int] = {}
        self._count = workers
        self._slots: list[Slot] = []
        self._processes: set[WorkerProcess] = set()
        self._spare: Spare | None = None
        # How often one after another has ended before it became a worker.
        self._spare_failures = 0
        self._spare_since = 0.0
        self._spare_retry: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._aborting = False
        self._started = False
        self._wanted_roll = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._roll: asyncio.Task[Any] | None = None
        self._code = 0
        self._watchdog = notify.Watchdog()

    # ---- The whole life ----

    async def run(self) -> int:
        """Start the workers, and serve until a signal; return the exit code.

        It is 3 if a worker has failed to start before all were ready; a line of the log
        says why.
        """
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGCHLD: self._reap,
            signal.SIGINT: self.interrupt,
            signal.SIGTERM: self.stop,
            signal.SIGHUP: self.replace_all,
            signal.SIGTTIN: self.add_worker,
            signal.SIGTTOU: self.take_worker,
            signal.SIGUSR1: self.reopen_logs,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            await self._run()
        finally:
            for process in self._processes:
                process.kill()
            self._drop_spare()
            self._close_sockets()
            for number in handlers:
                loop.remove_signal_handler(number)
        return self._code

    async def _run(self) -> None:
        for index in range(self._count):
            self._slots.append(Slot(index))
        for slot in self._slots:
            if not self._start(slot):
                break
        await self._until(lambda: self._stopping or self._is_ready)
        if not self._stopping:
            self._started = True
            if self._announce is not None:
                self._announce()
            verb = "is" if len(self._slots) == 1 else "are"
            logger.info("%s %s ready", _describe_count(len(self._slots)), verb)
            notify.ready(f"serving with {_describe_count(len(self._slots))}")
            self._watchdog.start()
            self._prepare()
        await self._until(lambda: self._stopping and not self._processes)
        self._watchdog.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        logger.info("stopped")

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def _is_ready(self) -> bool:
        """Whether each place has a worker that is ready."""
        return all(
            slot.process is not None and slot.process.is_ready for slot in self._slots
        )

    def _spend(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- Workers ----

    def _spawn(self, slot: Slot) -> WorkerProcess | None:
        """Start a process for a place; log why that is not possible."""
        program = self._program_of(slot)
        start = {
            "program": program.name,
            "arguments": dict(program.arguments),
            "loop": program.loop,
            "secrets": self.secrets.to_json(),
        }
        generation = self._generations.get(slot.index, 0)
        self._generations[slot.index] = generation + 1
        member = None
        try:
            if self.quic is not None:
                member = self.quic.member(slot.index, generation)
            spare, self._spare = self._spare, None
            if spare is not None:
                self._spare_failures = 0
            process = WorkerProcess(
                spare or Spare(program.modules),
                slot.index,
                generation,
                start,
                self.sockets.of(slot.index),
                member,
                self.limits,
                self._changed_process,
            )
        except (OSError, ValueError) as error:
            # ValueError: the group of QUIC has a worker of this generation already.
            logger.error("worker %d cannot be started: %s", slot.index, error)
            if self.quic is not None:
                self.quic.ended(slot.index, generation)
            return None
        finally:
            if member is not None:
                member.close()
        self._processes.add(process)
        process.started.add_done_callback(self._worker_started)
        return process

    def _worker_started(self, _: object) -> None:
        self._changed.set()
        if self._started:
            self._prepare()

    def _prepare(self) -> None:
        """Start a process that replaces the next worker that ends.

        A worker is back sooner then: under load, the start of Python and its imports
        take seconds.
        """
        if self._spare is None and self._spare_retry is None and not self._stopping:
            self._make_spare()

    def _make_spare(self) -> None:
        self._spare_retry = None
        self._spare_since = asyncio.get_running_loop().time()
        try:
            self._spare = Spare(self.program.modules)
        except OSError as error:
            logger.warning("a spare process cannot be started: %s", error)
            self._retry_spare()

    def _retry_spare(self) -> None:
        """Start another spare process, after a pause that grows."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._spare_since > _SOUND:
            self._spare_failures = 0
        pause = _find_pause(self._spare_failures)
        self._spare_failures += 1
        self._spare_retry = loop.call_later(pause, self._make_spare)

    def _drop_spare(self) -> None:
        if self._spare_retry is not None:
            self._spare_retry.cancel()
            self._spare_retry = None
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()

    def _program_of(self, slot: Slot) -> Program:
        """Return what the next worker of a place runs."""
        return self.program

    def _start(self, slot: Slot) -> bool:
        """Start the worker of an empty place."""
        slot.retry = None
        process = slot.process = self._spawn(slot)
        if process is not None:
            if self._started:
                process.started.add_done_callback(lambda _: self._log_start(process))
            return True
        if self._started:
            self._retry(slot)
        else:
            self._give_up(Failure("the workers cannot be started"))
        return False

    def _log_start(self, process: WorkerProcess) -> None:
        if process.is_ready:
            logger.info("%s is ready", process)

    def _retry(self, slot: Slot) -> None:
        """Start the worker of an empty place again, after a pause that grows."""
        if self._stopping or slot not in self._slots or slot.retry is not None:
            return
        pause = _find_pause(slot.failures)
        if pause:
            logger.warning(
                "worker %d is started again in %g seconds", slot.index, pause
            )
        slot.failures += 1
        loop = asyncio.get_running_loop()
        slot.retry = loop.call_later(pause, self._start, slot)

    def _reap(self) -> None:
        for process in list(self._processes):
            process.poll()
        if self._spare is not None and self._spare.has_ended:
            self._drop_spare()
            if not self._stopping:
                self._retry_spare()

    def _changed_process(self, process: WorkerProcess) -> None:
        """Handle that a worker has ended, or stops by itself, or wants to."""
        self._changed.set()
        slot = next((slot for slot in self._slots if slot.index == process.index), None)
        if process.exit_code is not None:
            self._processes.discard(process)
            if self._tell_end is not None:
                self._tell_end(process.pid)
            if self.quic is not None:
                self.quic.ended(process.index, process.generation)
            self._ended(process, slot)
        elif slot is not None and process is slot.process and not self._stopping:
            # Also if it is being replaced: that may fail.
            self._spend(self._recycle(slot, process))

    def _ended(self, process: WorkerProcess, slot: Slot | None) -> None:
        failed = process.ready_at is None and not process.is_told
        if failed and not self._started:
            self._give_up(
                process.failure
                or Failure(f"{process} has ended {process.describe_end()} at its start")
            )
        elif process.failure is not None and not process.is_told:
            logger.error(
                "%s", describe_failure(process.failure, f"{process} cannot start: ")
            )
        elif (process.is_told and not process.is_ready) or (
            process.is_stopping and not process.exit_code
        ):
            logger.info("%s has ended", process)
        else:
            logger.error("%s has ended %s", process, process.describe_end())
        if slot is None:
            self.sockets.drop(process.index)
            return
        if process is not slot.process:
            return
        slot.process = None
        now = asyncio.get_running_loop().time()
        if process.ready_at is not None and now - process.ready_at > _SOUND:
            slot.failures = 0
        if slot.next is None:
            self._retry(slot)

    def _give_up(self, failure: Failure) -> None:
        """Stop, because a worker cannot start."""
        if not self._code:
            self._code = FAILED
            if not self._stopping:
                logger.error("%s", describe_failure(failure))
        self.stop()

    # ---- Replacing ----

    async def _replace(self, slot: Slot) -> bool:
        """Replace a worker; return whether the other one has become ready."""
        if slot.next is not None:
            return await asyncio.shield(slot.next.started)
        made = slot.next = self._spawn(slot)
        if made is None:
            return False
        ready = await asyncio.shield(made.started)
        slot.next = None
        if slot not in self._slots or self._stopping:
            made.stop()
            return False
        if not ready or made.exit_code is not None:
            if slot.process is None:
                self._retry(slot)
            return False
        slot.cancel_retry()
        before, slot.process = slot.process, made
        self._log_start(made)
        if before is not None:
            before.stop()
        return True

    async def _recycle(self, slot: Slot, process: WorkerProcess) -> None:
        """Replace a worker that asks for it, as often as the other cannot start."""
        pause = _LEAST_PAUSE
        while not await self._replace(slot) and process is slot.process:
            if self._stopping or slot not in self._slots:
                return
            await asyncio.sleep(pause)
            pause = min(_MOST_PAUSE, 2 * pause)

    async def _replace_all(self) -> None:
        """Replace one worker after another, as often as it was asked for meanwhile."""
        while self._wanted_roll and not self._stopping:
            self._wanted_roll = False
            logger.info("replacing %s", _describe_count(len(self._slots)))
            notify.reloading()
            # It may have imported what has been replaced on the disk.
            self._drop_spare()
            for slot in list(self._slots):
                # Those that still serve old requests need memory.
                await self._until(
                    lambda: len(self._processes) < 2 * len(self._slots) + 1
                )
                if self._stopping or slot not in self._slots:
                    continue
                replaced = await self._replace(slot)
                if not replaced and slot in self._slots and not self._stopping:
                    logger.error("the other workers are not replaced")
                    break
            else:
                logger.info("the workers are replaced")
            if not self._stopping:
                notify.ready(f"serving with {_describe_count(len(self._slots))}")

    # ---- Signals ----

    def stop(self) -> None:
        """Tell the workers to stop, and to end when their requests have ended.

        A second call is a no-op.
        """
        if self._stopping:
            return
        self._stopping = True
        logger.info("stopping %s", _describe_count(len(self._processes)))
        notify.stopping("stopping")
        # Before the workers close theirs: the last one to do so closes the socket.
        self.sockets.close()
        self._drop_spare()
        for slot in self._slots:
            slot.cancel_retry()
        for process in self._processes:
            process.stop()
        self._changed.set()

    def interrupt(self) -> None:
        """Do what ``stop`` does; the second time end the workers at once.

        The third time they are killed.
        """
        if not self._stopping:
            self.stop()
            return
        for process in self._processes:
            if self._aborting:
                process.kill()
            else:
                process.abort()
        self._aborting = True

    def replace_all(self) -> None:
        """Replace each worker by a new one, which is ready before the other stops."""
        if not self._started or self._stopping:
            return
        self._wanted_roll = True
        if self._roll is None or self._roll.done():
            self._roll = self._spend(self._replace_all())

    def add_worker(self) -> None:
        """Start one more worker."""
        if not self._started or self._stopping:
            return
        if len(self._slots) >= MOST_WORKERS:
            logger.warning("there are %d workers: no more are added", MOST_WORKERS)
            return
        slot = Slot(len(self._slots))
        if not self._resize(len(self._slots) + 1):
            return
        self._slots.append(slot)
        logger.info("adding worker %d: there are %d", slot.index, len(self._slots))
        self._start(slot)

    def take_worker(self) -> None:
        """Stop the worker that was added last; the last one stays."""
        if not self._started or self._stopping:
            return
        if len(self._slots) == 1:
            logger.warning("there is one worker, which is not taken")
            return
        slot = self._slots.pop()
        self._resize(len(self._slots))
        logger.info("taking worker %d: there are %d", slot.index, len(self._slots))
        slot.cancel_retry()
        if slot.process is None and slot.next is None:
            self.sockets.drop(slot.index)
        for process in slot.process, slot.next:
            if process is not None:
                process.stop()

    def _resize(self, size: int) -> bool:
        """Tell the group of QUIC how many workers there are."""
        if self.quic is not None:
            try:
                self.quic.resize(size)
            except (OSError, ValueError) as error:
                logger.error("a worker cannot be added: %s", error)
                return False
        return True

    def _close_sockets(self) -> None:
        self.sockets.close()
        if self.quic is not None:
            self.quic.close()

    def reopen_logs(self) -> None:
        """Open the files of the logs again, and tell the workers to do so."""
        reopen_logs()
        for process in self._processes:
            process.reopen_logs()


def _find_pause(failures: int) -> float:
    """Return the seconds until the next start, after so many failures."""
    if not failures:
        return 0.0
    return min(_MOST_PAUSE, _LEAST_PAUSE * float(1 << min(failures - 1, 10)))


def describe_failure(failure: Failure, prefix: str = "") -> str:
    """Return why a worker has failed to start, as a line and its details below."""
    details = failure.details.rstrip()
    return f"{prefix}{failure.reason}" + (f"\n{details}" if details else "")


def count_workers(workers: int | None) -> int:
    """Return ``workers``, or for None the number in $WEB_CONCURRENCY, or 1.

    Platforms set the variable for every program, so a value that is no number of
    workers is logged, and does not keep a program from starting.
    """
    if workers is not None:
        return workers
    text = os.environ.get("WEB_CONCURRENCY", "").strip()
    if not text:
        return 1
    if text.isdecimal() and 1 <= int(text) <= MOST_WORKERS:
        return int(text)
    logger.warning("$WEB_CONCURRENCY is %r, no number of workers: there is one", text)
    return 1


async def _supervise(
    program: Program,
    addresses: Mapping[str, Any],
    workers: int,
    reuse_port: bool,
    http3: str | None,
    limits: Limits,
) -> int:
    sockets = Sockets()
    await sockets.open_all(addresses, reuse_port=reuse_port)
    quic = None

    def announce() -> None:
        logger.info(
            "listening on %s with %s (Ctrl-C stops)",
            ", ".join(describe_address(address) for _, address in sockets.addresses),
            _describe_count(workers),
        )

    try:
        if http3 is not None:
            from nghttp2py.asyncio.quic_group import QuicGroup

            quic = QuicGroup(sockets.named(http3), workers)
        supervisor = Supervisor(
            program, sockets, workers, limits=limits, quic=quic, announce=announce
        )
    except BaseException:
        if quic is not None:
            quic.close()
        sockets.close()
        raise
    return await supervisor.run()


def run(
    factory: str,
    *,
    addresses: Mapping[str, Any],
    workers: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    reuse_port: bool = False,
    http3: str | None = None,
    loop: str = "auto",
    startup_timeout: float | None = Limits.startup,
    silence_timeout: float | None = Limits.silence,
    stop_timeout: float | None = Limits.stop,
) -> None:
    """Serve with ``workers`` processes until SIGTERM or SIGINT, in the main thread.

    ``factory`` names a coroutine function, "package.module:name", which each worker
    imports and calls with its ``Worker`` and with ``arguments``, which JSON must be
    able to hold.  ``addresses`` are what to listen on, by names: each is
    ``(host, port)``, the path of a Unix socket, or a bound socket, or several.  With
    ``reuse_port`` each worker has its own socket at an address of TCP (SO_REUSEPORT);
    otherwise all accept from the same.  ``http3`` is the name of the addresses for
    which ``Worker.quic`` is to have sockets of UDP.

    ``workers`` is by default the number in $WEB_CONCURRENCY, or 1.  ``loop`` is the
    workers' event loop: "auto", "asyncio" or "uvloop".

    In seconds, or None for no bound: a worker must be ready after ``startup_timeout``;
    its event loop must not be blocked for ``silence_timeout``; and after it was told to
    stop it must end within ``stop_timeout``.  A worker that exceeds one is killed.

    The program ends with the exit code 3 if a worker cannot start, before all have; a
    line of the log says why.  Raises ``TypeError`` and ``ValueError`` for invalid
    arguments, and ``OSError`` for an address that cannot be listened on.
    """
    count = count_workers(workers)
    check_int("workers", count, 1, MOST_WORKERS)
    check_bool("reuse_port", reuse_port)
    check_seconds("startup_timeout", startup_timeout)
    check_seconds("silence_timeout", silence_timeout)
    check_seconds("stop_timeout", stop_timeout)
    if not addresses:
        raise ValueError("addresses must not be empty")
    if http3 is not None and http3 not in addresses:
        raise ValueError(f"http3 must be a name of addresses, not {http3!r}")
    program = Program(factory, {} if arguments is None else arguments, loop)
    limits = Limits(startup_timeout, silence_timeout, stop_timeout)
    main = _supervise(program, addresses, count, reuse_port, http3, limits)
    with contextlib.suppress(KeyboardInterrupt):
        code = asyncio.run(main)
        if code:
            sys.exit(code)
