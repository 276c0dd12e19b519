"""The server of ASGI applications with several processes.

The supervisor reads the configuration and opens the sockets; each worker gets both,
and loads the application.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nghttp2py.asgi.config import OPTIONS, Config
from nghttp2py.asgi.endpoints import Endpoint, Endpoints
from nghttp2py.asgi.server import Server, announce
from nghttp2py.errors import ConfigurationError
from nghttp2py.workers.process import Limits
from nghttp2py.workers.sockets import Sockets
from nghttp2py.workers.supervisor import Program, Supervisor
from nghttp2py.workers.worker import Worker, leave

if TYPE_CHECKING:
    from nghttp2py.asyncio.quic_group import QuicGroup

__all__ = ["run_workers", "serve_worker"]


def run_workers(config: Config, workers: int) -> int:
    """Serve with several processes until a signal comes; return the exit code.

    Raises ``ConfigurationError``, and ``OSError`` for an address that cannot be
    listened on.
    """
    if not isinstance(config.app, str):
        raise ConfigurationError(
            "workers need the name of the application, as main:app: each imports it"
        )
    return asyncio.run(_supervise(config, workers))


async def _supervise(config: Config, workers: int) -> int:
    endpoints = Endpoints()
    await endpoints.bind(config)
    sockets = Sockets()
    quic = None
    try:
        for number, endpoint in enumerate(endpoints.found):
            if endpoint.http3:
                quic = _make_group(endpoint, endpoints.chosen, workers)
            sockets.add(str(number), endpoint.sockets)
        sockets.add("", (), endpoints.paths)
    except BaseException:
        endpoints.close()
        raise
    supervisor = Supervisor(
        Program(
            f"{__name__}:serve_worker",
            {
                "options": make_arguments(config),
                "endpoints": [[each.secure, each.http3] for each in endpoints.found],
            },
            config.loop,
        ),
        sockets,
        workers,
        limits=make_limits(config),
        quic=quic,
        announce=lambda: announce(config, endpoints.found),
    )
    return await supervisor.run()


def _make_group(
    endpoint: Endpoint, chosen: list[socket.socket], workers: int
) -> QuicGroup:
    """Return a group of sockets of UDP, instead of those of an endpoint."""
    from nghttp2py.asyncio.quic_group import QuicGroup

    streams: list[socket.socket] = []
    for sock in endpoint.sockets:
        if sock.type == socket.SOCK_STREAM:
            streams.append(sock)
        elif sock in chosen:
            raise ConfigurationError(
                "a socket of systemd for UDP is for one process: with several workers, "
                "give http3 and a socket of TCP"
            )
        else:
            # It has shown that its port is free.  Each worker gets one of its own.
            sock.close()
    endpoint.sockets[:] = streams
    return QuicGroup(streams, workers)


def make_arguments(config: Config) -> dict[str, Any]:
    """Return the options that are not the defaults, as JSON can hold them.

    Raises ``ConfigurationError`` for a ``log_config`` that JSON cannot hold.
    """
    given = {"app": config.app}
    for name, known in OPTIONS.items():
        value = getattr(config, name)
        if value != known.default:
            given[name] = value
    del given["workers"]
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

    def announce(self) -> None:
        """Do nothing: the supervisor says where it listens."""


async def serve_worker(
    worker: Worker, *, options: Mapping[str, Any], endpoints: list[list[bool]]
) -> None:
    """Serve the application of ``options`` in a worker: this is its program."""
    config = Config(**options)
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


async def _switch(event: asyncio.Event, server: Server, name: str) -> None:
    await event.wait()
    setattr(server, name, True)


def _unblock(sockets: list[socket.socket]) -> list[socket.socket]:
    for sock in sockets:
        sock.setblocking(False)
    return sockets
