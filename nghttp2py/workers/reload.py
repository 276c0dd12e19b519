"""Reload: a worker that is started again when files have changed, for development.

The supervisor keeps the sockets open meanwhile, so clients wait in their queues.
"""

from __future__ import annotations

import asyncio
import fnmatch
import importlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from nghttp2py.arguments import check_seconds
from nghttp2py.errors import ConfigurationError
from nghttp2py.workers.process import Failure, WorkerProcess
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.supervisor import Program, Slot, Supervisor, describe_failure

__all__ = ["DELAY", "EXCLUDES", "INCLUDES", "Files", "Reloader"]

logger = logging.getLogger(__name__)

#: Patterns of the files that are watched, and of files and directories that are not.
INCLUDES = ("*.py",)
EXCLUDES = (".*", "*.py[cod]", "*.sw.*", "~*")
#: Seconds between two looks at the files, without the package watchfiles.
DELAY = 0.25

# A look at many files costs at most this part of the time.
_SHARE = 4
# Seconds in which requests may end before a worker is started again; and in which the
# process must end, on a busy machine, too.
_PATIENCE = 1.0
_MOST_PATIENCE = 5.0

# What stat() says of each file.
Snapshot = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Files:
    """Files to watch: those in ``directories`` whose name or path has a pattern.

    ``includes`` and ``excludes`` are patterns, beside ``INCLUDES`` and ``EXCLUDES``; a
    pattern with a slash is for the path from the directory on.  A directory that is
    excluded, or is that of a virtual environment, is not looked into.

    Raises :class:`~nghttp2py.errors.ConfigurationError` for a directory that is none.
    """

    directories: Sequence[str]
    includes: Sequence[str] = ()
    excludes: Sequence[str] = ()
    delay: float = DELAY

    def __post_init__(self) -> None:
        check_seconds("delay", self.delay)
        for directory in self.directories:
            if not os.path.isdir(directory):
                raise ConfigurationError(
                    f"there is no directory {directory!r} to watch"
                )

    def matches(self, path: str) -> bool:
        """Return whether a file in one of the directories has a pattern."""
        for directory in self.directories:
            try:
                relative = PurePath(path).relative_to(os.path.abspath(directory))
            except ValueError:
                continue
            if _has_pattern(relative, (*INCLUDES, *self.includes)) and not any(
                self._is_excluded(part)
                for part in (relative, *relative.parents)
                if part.name
            ):
                return True
        return False

    def _is_excluded(self, relative: PurePath) -> bool:
        return _has_pattern(relative, (*EXCLUDES, *self.excludes))

    def is_watched(self, path: str) -> bool:
        """Return whether a file has a pattern, and is in no virtual environment."""
        if not self.matches(path):
            return False
        roots = {os.path.abspath(directory) for directory in self.directories}
        for parent in map(str, PurePath(path).parents):
            if parent in roots:
                break
            if _is_environment(parent):
                return False
        return True

    def look(self) -> Snapshot:
        """Return what is known of each file now."""
        found: Snapshot = {}
        for directory in map(os.path.abspath, self.directories):
            for parent, directories, names in os.walk(directory):
                here = PurePath(parent).relative_to(directory)
                directories[:] = [
                    name
                    for name in directories
                    if not self._is_excluded(here / name)
                    and not _is_environment(os.path.join(parent, name))
                ]
                for name in names:
                    path = os.path.join(parent, name)
                    if self.matches(path):
                        _add(found, path)
        return found

    async def changes(self) -> AsyncIterator[str]:
        """Give the path of a file when it has changed, or others with it."""
        try:
            watch: Callable[..., Any] = importlib.import_module("watchfiles").awatch
        except ImportError:
            async for path in self._poll():
                yield path
            return
        logger.info("watching files in %s by watchfiles", ", ".join(self.directories))
        async for changed in watch(
            *self.directories, watch_filter=lambda _, path: self.is_watched(path)
        ):
            yield min(path for _, path in changed)

    async def _poll(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        pause = self.delay
        before = await loop.run_in_executor(None, self.look)
        logger.info("watching the times of files in %s", ", ".join(self.directories))
        while True:
            await asyncio.sleep(pause)
            begun = loop.time()
            now = await loop.run_in_executor(None, self.look)
            if now != before:
                yield min(path for path, _ in now.items() ^ before.items())
            before = now
            pause = max(self.delay, _SHARE * (loop.time() - begun))


def _is_environment(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, "pyvenv.cfg"))


def _has_pattern(path: PurePath, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(path.as_posix() if "/" in pattern else path.name, pattern)
        for pattern in patterns
    )


def _add(found: Snapshot, path: str) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return  # it was removed meanwhile
    found[path] = status.st_mtime_ns, status.st_size, status.st_ino


class Reloader(Supervisor):
    """The supervisor of one worker, which it starts again when a file changes.

    ``options`` are those of ``Supervisor``.

    If a worker cannot start, the next one gets the argument ``failure``, a line and
    the details, to show them to clients until a file changes.
    """

    def __init__(
        self,
        program: Program,
        sockets: Sockets,
        files: Files,
        **options: Any,
    ) -> None:
        super().__init__(program, sockets, **options)
        self._files = files
        self._failure: Failure | None = None

    async def _run(self) -> None:
        self._spend(self._follow())
        await super()._run()

    async def _follow(self) -> None:
        try:
            async for path in self._files.changes():
                if not self._stopping:
                    logger.info("%s has changed", _shorten(path))
                    self.restart()
        except (OSError, RuntimeError) as error:
            # The system's limit of watches, or an error of the package watchfiles.
            logger.error("files are watched no more: %s", error)

    def restart(self) -> None:
        """Start the worker again; its requests have a second to end."""
        if self._stopping:
            return
        self._failure = None
        slot = self._slots[0]
        slot.failures = 0
        slot.cancel_retry()
        process = slot.process
        if process is None:
            self._start(slot)
        elif not process.is_ready:
            process.is_told = True
            process.kill()
        elif not process.is_told:
            process.stop()
            loop = asyncio.get_running_loop()
            loop.call_later(_PATIENCE, process.abort)
            loop.call_later(_MOST_PATIENCE, process.kill)

    # ---- What differs from several workers ----

    def _program_of(self, slot: Slot) -> Program:
        if self._failure is None:
            return self.program
        failure = [self._failure.reason, self._failure.details]
        arguments = {**self.program.arguments, "failure": failure}
        return replace(self.program, arguments=arguments)

    def _ended(self, process: WorkerProcess, slot: Slot | None) -> None:
        if process.is_ready or process.is_told or self._failure is not None:
            super()._ended(process, slot)
            return
        # Known before the next start: it shows why this one has failed.
        self._failure = process.failure or Failure(
            f"the application has ended {process.describe_end()} at its start"
        )
        logger.error("%s", describe_failure(self._failure))
        assert slot is not None
        slot.process = None
        if not self._stopping:
            self._start(slot)

    def replace_all(self) -> None:
        """Start the worker again."""
        self.restart()

    def add_worker(self) -> None:
        """Log that there is one worker."""
        logger.warning("a server that reloads has one worker")


def _shorten(path: str) -> str:
    with_dots = os.path.relpath(path)
    return path if with_dots.startswith(os.pardir) else with_dots
