"""The file that has the number of the server's process."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from types import TracebackType

from nghttp2py.errors import ConfigurationError

__all__ = ["PidFile"]

# Bytes that are read of an existing file: a number has fewer.
_MOST = 64
_PERMISSIONS = 0o644


class PidFile:
    """A file with the number of this process, from ``create`` until ``remove``.

    It is a context manager, too.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def create(self) -> None:
        """Write the file at once, so that no reader sees a part of it.

        Raises :class:`~nghttp2py.errors.ConfigurationError` if there is a file that
        names a process that runs, or is no file of this kind; and if it cannot be
        written.
        """
        try:
            self._check()
            self._write()
        except OSError as error:
            reason = error.strerror or error
            raise ConfigurationError(f"pid {self.path!r}: {reason}") from None

    def _check(self) -> None:
        try:
            # What is no regular file may block its reader.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigurationError(f"pid {self.path!r} is no regular file")
            text = file.read(_MOST).strip()
        if text and not text.isdigit():
            raise ConfigurationError(
                f"pid {self.path!r} holds no number of a process: it is not overwritten"
            )
        if text and _runs(int(text)):
            raise ConfigurationError(
                f"pid {self.path!r} names process {int(text)}, which runs"
            )

    def _write(self) -> None:
        directory, name = os.path.split(self.path)
        fd, path = tempfile.mkstemp(prefix=f".{name}.", dir=directory or os.curdir)
        try:
            os.write(fd, b"%d\n" % os.getpid())
            os.fchmod(fd, _PERMISSIONS)
            os.replace(path, self.path)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        self._fd = fd

    def remove(self) -> None:
        """Remove the file, unless another process has written its own since.

        If the process has lost the permission for that, the file is made empty.  A
        second call is a no-op.
        """
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(fd)):
                try:
                    os.unlink(self.path)
                except OSError:
                    os.ftruncate(fd, 0)
        os.close(fd)

    def __enter__(self) -> PidFile:
        self.create()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def _runs(pid: int) -> bool:
    """Return whether another process has a number."""
    if pid in (0, os.getpid()):
        return False  # this one's number in an earlier life of a container
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, and is another user's
    return True
