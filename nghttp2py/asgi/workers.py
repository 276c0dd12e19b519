"""The server of ASGI applications with several processes.

The supervisor reads the configuration and opens the sockets; each worker gets both,
and loads the application.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nghttp2py.arguments import check_int
from nghttp2py.asgi.config import OPTIONS, Config
from nghttp2py.asgi.endpoints import Endpoint, Endpoints
from nghttp2py.asgi.loading import ASGIApplication
from nghttp2py.asgi.server import Server, announce, announce_metrics
from nghttp2py.asgi.shared import read_secrets
from nghttp2py.errors import ConfigurationError
from nghttp2py.workers.process import Limits
from nghttp2py.workers.reload import Files, Reloader
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.supervisor import Program, Supervisor
from nghttp2py.workers.worker import Worker, leave

if TYPE_CHECKING:
    from nghttp2py.asyncio.quic_group import QuicGroup
    from nghttp2py.asyncio.shared_secrets import SharedSecrets

__all__ = ["run_reloading", "run_workers", "serve_worker"]


def run_workers(config: Config, workers: int) -> int:
    """Serve with several processes until a signal comes; return the exit code.

    Raises ``ConfigurationError``, and ``OSError`` for an address that cannot be
    listened on.
    """
    _check_name(config, "workers need")
    return _run(config, workers)


def run_reloading(config: Config) -> int:
    """Serve with one process, which is started again when files change.

    Otherwise this is as ``run_workers``.
    """
    _check_name(config, "reload needs")
    return _run(config, 1)


def _run(config: Config, workers: int) -> int:
    if config.metrics_port is None:
        return asyncio.run(_supervise(config, workers))
    # Imported here, because it needs a package of its own.
    from nghttp2py.asgi.shared_metrics import forget_worker, keep_directory

    with keep_directory():
        return asyncio.run(_supervise(config, workers, ended=forget_worker))


def _check_name(config: Config, what: str) -> None:
    if not isinstance(config.app, str):
        raise ConfigurationError(
            f"{what} the name of the application, as main:app: each process imports it"
        )


async def _supervise(
    config: Config, workers: int, *, ended: Callable[[int], object] | None = None
) -> int:
    files = None
    if config.reload:
        files = Files(
            config.reload_dirs or [config.app_dir or os.curdir],
            config.reload_includes,
            config.reload_excludes,
            config.reload_delay,
        )
    arguments = make_arguments(config)
    limits = make_limits(config)
    if files is not None:
        # A debugger may stop the application for any time.
        limits = replace(limits, startup=None, silence=None)
    secrets = read_secrets(config.seed_file)
    endpoints = Endpoints()
    await endpoints.bind(config)
    sockets = Sockets()
    quic = None

    def announce_all() -> None:
        announce(config, endpoints.found)
        announce_metrics(sockets.named(_METRICS))

    try:
        if files is not None:
            # Before the application is imported: a browser that comes now waits.
            for sock in endpoints.streams:
                sock.listen(config.backlog)
        for number, endpoint in enumerate(endpoints.found):
            if endpoint.http3 and files is None:
                quic = _make_group(
                    config, endpoint, endpoints.opened_udp, workers, secrets
                )
            sockets.add(str(number), endpoint.sockets)
        if config.metrics_port is not None:
            await sockets.open(_METRICS, (config.metrics_host, config.metrics_port))
        sockets.add("", (), endpoints.paths)
        program = Program(
            f"{__name__}:serve_worker",
            {
                "options": arguments,
                "endpoints": [[each.secure, each.http3] for each in endpoints.found],
                "reload": config.reload,
            },
            config.loop,
            [__name__] if quic is None else [__name__, "nghttp2py.asyncio.h3"],
        )
        options: dict[str, Any] = {
            "limits": limits,
            "secrets": secrets,
            "quic": quic,
            "announce": announce_all,
            "ended": ended,
        }
        supervisor = (
            Supervisor(program, sockets, workers, **options)
            if files is None
            else Reloader(program, sockets, files, **options)
        )
    except BaseException:
        if quic is not None:
            quic.close()
        sockets.close()
        endpoints.close()
        raise
    return await supervisor.run()


def _make_group(
    config: Config,
    endpoint: Endpoint,
    opened: list[socket.socket],
    workers: int,
    secrets: SharedSecrets | None,
) -> QuicGroup:
    """Return a group of sockets of UDP, instead of those of an endpoint.

    ``opened`` are those that were not given.  The workers have the group's secrets.
    """
    from nghttp2py.asyncio.quic_group import QuicGroup
    from nghttp2py.asyncio.quic_member import MAX_SLOTS

    check_int(
        *("workers", workers, 1, MAX_SLOTS),
        rule="with HTTP/3",
        error=ConfigurationError,
    )
    streams: list[socket.socket] = []
    addresses: list[socket.socket] = []
    found: set[Any] = set()
    for sock in endpoint.sockets:
        if sock.type == socket.SOCK_STREAM:
            streams.append(sock)
        elif sock in opened:
            # It has shown that its port is free.  Each worker gets one of its own.
            found.add((sock.family, sock.getsockname()))
            sock.close()
        else:
            addresses.append(sock)
    addresses += [
        sock for sock in streams if (sock.family, sock.getsockname()) in found
    ]
    if not streams:
        raise ConfigurationError(
            "with several workers, a socket of UDP needs one of TCP beside it"
        )
    endpoint.sockets[:] = streams
    return QuicGroup(
        addresses,
        workers,
        secrets=secrets,
        load_balancing=config.find_load_balancing(),
        bpf=config.quic_bpf,
    )


def make_arguments(config: Config) -> dict[str, Any]:
    """Return the options that are not the defaults, as JSON can hold them.

    Raises ``ConfigurationError`` for a ``log_config`` that JSON cannot hold.
    """
    given = {"app": config.app}
    for name, known in OPTIONS.items():
        value = getattr(config, name)
        if value != known.default:
            given[name] = value
    for name in "workers", "reload":
        given.pop(name, None)
    try:
        json.dumps(given)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"log_config cannot be given to workers: {error}"
        ) from None
    return given


def make_limits(config: Config) -> Limits:
    """Return the bounds of a worker's time."""
    startup = config.timeout_lifespan_startup
    shutdown = config.timeout_lifespan_shutdown
    return Limits(
        None if startup is None else config.timeout_worker_startup + startup,
        config.timeout_worker_healthcheck,
        None
        if shutdown is None
        else config.timeout_graceful_shutdown + shutdown + _GRACE,
    )


# The name of the sockets at which each worker serves the metrics of all.
_METRICS = "metrics"
# Seconds that a worker has to end beyond its own bounds.
_GRACE = 10.0


class WorkerServer(Server):
    """The server of a worker, on sockets that the supervisor has opened."""

    def __init__(self, config: Config, worker: Worker, endpoints: Endpoints) -> None:
        super().__init__(config)
        self.endpoints = endpoints
        self._worker = worker
        self.quic_group = worker.quic

    async def main_loop(self) -> None:
        """Report that the server accepts connections, and wait until it shall stop."""
        await self._worker.ready()
        await super().main_loop()

    async def _serve_metrics(self, port: int) -> None:
        from nghttp2py.asgi.shared_metrics import SharedMetrics

        self._metrics = metrics = SharedMetrics()
        self._add_servers()
        await metrics.serve(sock=_unblock(self._worker.sockets[_METRICS]))

    def reach_limit(self) -> None:
        """Ask for another worker, and serve until that is ready."""
        self._worker.replace()

    def announce(self) -> None:
        """Do nothing: the supervisor says where it listens."""


async def serve_worker(
    worker: Worker,
    *,
    options: Mapping[str, Any],
    endpoints: list[list[bool]],
    failure: list[str] | None = None,
    reload: bool = False,
) -> None:
    """Serve the application of ``options`` in a worker: this is its program.

    With ``failure`` clients are shown this line and its details instead.
    """
    config = Config(**options)
    if failure is not None:
        config = replace(
            config, app=show(*failure), factory=False, interface="asgi3", lifespan="off"
        )
    # Python would take the code of a file that was written twice within a second for
    # that of the first time.
    sys.dont_write_bytecode = sys.dont_write_bytecode or reload
    config.configure_logging()
    found = [
        Endpoint(_unblock(worker.sockets[str(number)]), secure, http3)
        for number, (secure, http3) in enumerate(endpoints)
    ]
    server = WorkerServer(config, worker, Endpoints(found))
    tasks = [
        asyncio.ensure_future(_switch(worker.stopping, server, "should_exit")),
        asyncio.ensure_future(_switch(worker.aborting, server, "force_exit")),
    ]
    try:
        await server.live()
    finally:
        for task in tasks:
            task.cancel()
    if not await server.has_ended():
        leave(server.exit_code)


def show(reason: str, details: str) -> ASGIApplication:
    """Return an application that answers with an error as text, and status 500."""
    body = f"{reason}\n\n{details}".rstrip() + "\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        await send(
            {
                "type": "http.response.start",
                "status": 500,
                "headers": [
                    (b"content-type", b"text/plain; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body.encode()})

    return app


async def _switch(event: asyncio.Event, server: Server, name: str) -> None:
    await event.wait()
    setattr(server, name, True)


def _unblock(sockets: list[socket.socket]) -> list[socket.socket]:
    for sock in sockets:
        sock.setblocking(False)
    return sockets
