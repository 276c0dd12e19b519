"""Metrics of servers for Prometheus, by the package prometheus-client.

Requests are counted by a hook of the access log, which costs nothing without one.
Connections are counted by the servers, and asked for when the metrics are.
"""

from __future__ import annotations

import importlib
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from nghttp2py import access
from nghttp2py.arguments import check_type
from nghttp2py.asyncio.server import Address, Server, ServerCounts
from nghttp2py.errors import ConfigurationError

__all__ = ["BUCKETS", "Metrics"]

#: The upper ends of the histogram's buckets, in seconds.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# Clients choose methods, and each label is kept for ever (RFC 9110, 9.1; RFC 5789).
_METHODS = {
    name.encode(): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE"),
        "PATCH",
    )
}
_STATUSES = {int(status): str(int(status)) for status in HTTPStatus}

_PATH = b"/metrics"


def import_prometheus(module: str = "") -> Any:
    """Import the package prometheus-client, or a module of it.

    Raises ``ConfigurationError`` if it is missing.
    """
    try:
        return importlib.import_module(f"prometheus_client{module}")
    except ImportError:
        raise ConfigurationError(
            "metrics need the prometheus-client package: "
            "pip install 'nghttp2py[metrics]'"
        ) from None


class Metrics:
    """Metrics of servers, and a server for Prometheus to read them.

    All requests of the process are counted from ``start`` to ``stop``, those of
    connections for the servers that ``add_server`` adds.  ``registry`` is a
    ``CollectorRegistry``; by default it is a new one.

    Raises ``ConfigurationError`` if the package prometheus-client is missing.
    """

    def __init__(self, registry: Any = None) -> None:
        prometheus = import_prometheus()
        self._exposition = import_prometheus(".exposition")
        self._core = import_prometheus(".core")
        #: The ``CollectorRegistry``.
        self.registry = prometheus.CollectorRegistry() if registry is None else registry
        self._servers: list[Server] = []
        self._started = False
        self._server: Server | None = None
        self._requests = prometheus.Counter(
            "nghttp2py_requests",
            "Requests that have ended.",
            ("version", "method", "status"),
            registry=self.registry,
        )
        self._incomplete = prometheus.Counter(
            "nghttp2py_requests_incomplete",
            "Requests whose response was not sent to its end.",
            ("version",),
            registry=self.registry,
        )
        self._resets = prometheus.Counter(
            "nghttp2py_stream_resets",
            "Streams that were reset, or broke off with their connection.",
            ("version",),
            registry=self.registry,
        )
        self._bytes = prometheus.Counter(
            "nghttp2py_response_body_bytes",
            "Bytes of response bodies that were sent.",
            ("version",),
            registry=self.registry,
        )
        self._duration = prometheus.Histogram(
            "nghttp2py_request_duration_seconds",
            "Time from a request's header section to the end of both halves.",
            ("version",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.registry.register(self)

    # ---- Counting ----

    def add_server(self, server: Server) -> None:
        """Count the connections and streams of a server, too."""
        check_type("server", server, Server, "a Server")
        if server not in self._servers:
            self._servers.append(server)

    def start(self) -> None:
        """Count requests from now on.  A second call is a no-op."""
        if not self._started:
            self._started = True
            access.add_hook(self.observe)

    def stop(self) -> None:
        """Count no more requests.  A second call is a no-op."""
        if self._started:
            self._started = False
            access.remove_hook(self.observe)

    def observe(self, exchange: access.Exchange) -> None:
        """Count a request that has ended."""
        version = exchange.protocol.removeprefix("HTTP/")
        status = exchange.status
        if status is None:
            label = "none"
        else:
            label = _STATUSES.get(status) or f"{status // 100}xx"
        method = _METHODS.get(exchange.method, "other")
        self._requests.labels(version, method, label).inc()
        if not exchange.complete:
            self._incomplete.labels(version).inc()
        if exchange.error_code:
            self._resets.labels(version).inc()
        if exchange.bytes_sent:
            self._bytes.labels(version).inc(exchange.bytes_sent)
        self._duration.labels(version).observe(exchange.duration)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of the servers: the registry calls this."""
        counts = [server.counts for server in self._servers]
        total = ServerCounts(*map(sum, zip(*counts, strict=True)))
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        for family, name, text, tcp, quic in (
            (
                *(gauge, "nghttp2py_connections_open", "Connections that are open."),
                *(total.connections, total.quic_connections),
            ),
            (
                *(counter, "nghttp2py_connections", "Connections that were accepted."),
                *(total.accepted, total.quic_accepted),
            ),
        ):
            metric = family(name, text, labels=("transport",))
            metric.add_metric(("tcp",), tcp)
            metric.add_metric(("quic",), quic)
            yield metric
        failed = counter(
            "nghttp2py_handshakes_failed",
            "Handshakes of TLS and QUIC that were begun and not completed.",
            labels=("transport", "reason"),
        )
        failures: Counter[tuple[str, str]] = Counter()
        for server in self._servers:
            failures.update(server.handshake_failures)
        for labels, count in failures.items():
            failed.add_metric(labels, count)
        yield failed
        yield gauge(
            "nghttp2py_streams_open", "Requests that have not ended.", total.streams
        )
        yield counter(
            "nghttp2py_proxy_headers_refused",
            "Connections without a valid header of the PROXY protocol.",
            total.refused_headers,
        )

    def generate(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text, and its type, by the field ``accept``."""
        encode, kind = self._exposition.choose_encoder(accept)
        return encode(self.registry), kind

    # ---- Serving ----

    async def serve(
        self,
        address: Address | None = None,
        *,
        sock: Sequence[socket.socket] | None = None,
    ) -> Server:
        """Start counting, and a server at ``address``, whose path is ``/metrics``.

        ``sock`` are bound sockets, instead of an address.  ``close`` ends both.  Raises
        ``OSError`` if it cannot bind the address.
        """
        server = Server(self._answer, address, sock=sock)
        await server.start()
        self.start()
        self._server = server
        return server

    async def close(self) -> None:
        """End the server, and stop counting.  A second call is a no-op."""
        self.stop()
        server, self._server = self._server, None
        if server is not None:
            server.close(0)
            await server.wait_closed()

    async def _answer(self, stream: Any) -> None:
        # To read the metrics must not change them.
        stream.http.unlogged = True
        request = stream.request
        if request.target.partition(b"?")[0] != _PATH:
            await stream.send_response(404, {}, b"the metrics are at /metrics\n")
        elif request.method not in (b"GET", b"HEAD"):
            await stream.send_response(405, {"allow": "GET, HEAD"}, b"")
        else:
            accept = b",".join(
                value for name, value in request.headers if name == b"accept"
            )
            body, kind = self.generate(accept.decode("latin-1"))
            fields = {"content-type": kind, "content-length": len(body)}
            await stream.send_response(
                200, fields, b"" if request.method == b"HEAD" else body
            )
