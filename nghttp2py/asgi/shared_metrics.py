"""Metrics of several workers, which any of them serves for all.

prometheus-client keeps the values of each process in files of one directory, and adds
them up when they are read.  It must be in $PROMETHEUS_MULTIPROC_DIR before a worker
imports the package; the application's own metrics are then in the same files.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nghttp2py.asgi.metrics import Metrics, import_prometheus
from nghttp2py.asyncio.server import Server

__all__ = ["SharedMetrics", "forget_worker", "keep_directory"]

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Seconds between two looks at the numbers of connections, which nothing reports.
_INTERVAL = 1.0


@contextmanager
def keep_directory() -> Iterator[None]:
    """Have workers that are started meanwhile use one directory.

    It is the one of the environment, or a new one, which is removed at the end.
    """
    if os.environ.get(_VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="nghttp2py-") as directory:
        os.environ[_VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[_VARIABLE]


def forget_worker(pid: int) -> None:
    """Drop what a worker that has ended had open; its counts stay."""
    import_prometheus(".multiprocess").mark_process_dead(pid, os.environ[_VARIABLE])


class SharedMetrics(Metrics):
    """The metrics of this worker, which serves those of all."""

    def __init__(self) -> None:
        super().__init__()
        self._prometheus = import_prometheus()
        self._multiprocess = import_prometheus(".multiprocess")
        # What is collected here goes into the files, instead of the response.
        self.registry.unregister(self)
        self._values: dict[str, Any] = {}
        self._counted: dict[tuple[str, ...], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def update(self) -> None:
        """Write the numbers of connections and streams to the files."""
        for family in self.collect():
            for sample in family.samples:
                labels = sample.labels
                value = self._values.get(family.name)
                if value is None:
                    value = self._make_value(family, list(labels))
                    self._values[family.name] = value
                one = value.labels(**labels) if labels else value
                if family.type == "gauge":
                    one.set(sample.value)
                    continue
                key = (family.name, *labels.values())
                one.inc(sample.value - self._counted.get(key, 0))
                self._counted[key] = sample.value

    def _make_value(self, family: Any, names: list[str]) -> Any:
        arguments = family.name, family.documentation, names
        if family.type == "gauge":
            return self._prometheus.Gauge(
                *arguments, registry=None, multiprocess_mode="livesum"
            )
        return self._prometheus.Counter(*arguments, registry=None)

    def generate(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics of all workers as text, and its type."""
        self.update()
        registry = self._prometheus.CollectorRegistry()
        self._multiprocess.MultiProcessCollector(registry)
        encode, kind = self._exposition.choose_encoder(accept)
        return encode(registry), kind

    async def serve(self, *address: Any, **options: Any) -> Server:
        """Do what ``Metrics.serve`` does, and keep the files up to date."""
        server = await super().serve(*address, **options)
        self._tick()
        return server

    def _tick(self) -> None:
        self.update()
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._tick)

    async def close(self) -> None:
        """End the server, and stop counting.  A second call is a no-op."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.update()
        await super().close()
