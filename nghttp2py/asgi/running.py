"""Run the server of ASGI applications as a program: one process, or several."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

from nghttp2py.asgi.config import Config, make_config
from nghttp2py.asgi.server import STARTUP_FAILURE, Server, log_error
from nghttp2py.asgi.workers import run_reloading, run_workers
from nghttp2py.asyncio.event_loop import drop_tasks, run_in
from nghttp2py.errors import ApplicationError, ConfigurationError
from nghttp2py.workers.pid_file import PidFile
from nghttp2py.workers.supervisor import count_workers
from nghttp2py.workers.worker import has_threads, leave

__all__ = ["run", "run_config"]

P = ParamSpec("P")

# Seconds for which tasks may end that were cancelled once more.
_DROPPED = 1.0


def run_config(config: Config, *, may_leave: bool = False) -> int:
    """Serve by a configuration until a signal comes; return the exit code.

    With ``may_leave``, a forced end does not wait for threads of the application: the
    process ends.  Raises what ``Server.serve`` raises.
    """
    config.check()
    config.configure_logging()
    with contextlib.ExitStack() as stack:
        if config.pid is not None:
            stack.enter_context(PidFile(config.pid))
        if config.reload:
            return run_reloading(config)
        workers = count_workers(config.workers)
        if workers > 1 or config.needs_supervisor:
            return run_workers(config, workers)
        return _run_alone(config, stack if may_leave else None)


def _run_alone(config: Config, stack: contextlib.ExitStack | None) -> int:
    """Serve in this process; return the exit code.

    With ``stack``, which is closed first, a forced end ends the process.  Without one,
    tasks that go on although they were cancelled are left when the event loop ends.
    """
    if not config.drops_privileges:
        config.load()
    server = Server(config)
    server.notifies = True

    async def main() -> None:
        await server.serve()
        ended = await server.has_ended()
        if stack is not None and (not ended or (server.force_exit and has_threads())):
            # asyncio would wait for tasks that go on although they were cancelled.
            stack.close()
            leave(server.exit_code)
        if not ended:
            await drop_tasks(_DROPPED)

    run_in(main(), config.loop)
    return server.exit_code


def _with_options_of(
    cls: Callable[P, Config],
) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Give a function the parameters of a class, for type checkers and ``help()``."""

    def declare(function: Callable[..., None]) -> Callable[P, None]:
        signature = inspect.signature(cls).replace(return_annotation=None)
        vars(function)["__signature__"] = signature
        return function

    return declare


@_with_options_of(Config)
def run(app: Any = None, **options: Any) -> None:
    """Serve ``app`` until a signal comes; ``options`` are those of ``Config``.

    With several workers, ``app`` must be the name of the application: each imports it.

    The program ends with the exit code 3 if the application cannot be loaded or fails
    to start, and with 1 if an address cannot be listened on; a line of the log says
    why.  Raises ``TypeError`` and ``ValueError`` for invalid options.
    """
    config = make_config(app, options)
    config.check()
    try:
        code = run_config(config)
    except (ApplicationError, ConfigurationError, OSError) as error:
        log_error(error)
        code = STARTUP_FAILURE if isinstance(error, ApplicationError) else 1
    if code:
        sys.exit(code)
