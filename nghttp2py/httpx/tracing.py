"""The reports of a request's progress, by the names that httpcore gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nghttp2py.asyncio import H2Protocol

__all__ = ["Tracer"]


class Tracer:
    """Translates the events of a request for the ``trace`` extension of httpx.

    ``function`` may return an awaitable.  ``step`` names the first step of connecting,
    and ``connecting`` are the arguments with which connections are made.
    """

    def __init__(
        self,
        function: Callable[[str, dict[str, Any]], Any],
        request: Any,
        *,
        secure: bool,
        step: str,
        connecting: dict[str, Any],
    ) -> None:
        self._function = function
        self._request = request
        self._secure = secure
        self._step = step
        self._connecting = connecting
        self._is_new = False
        self._has_body = False
        self._version = "http2"
        self._stream_id: int | None = None

    async def emit(self, name: str, info: dict[str, Any]) -> None:
        """Report an event by its whole name."""
        result = self._function(name, info)
        if inspect.isawaitable(result):
            await result

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        """Handle an event of ``Client.request``."""
        step, _, what = name.rpartition(".")
        if step == "connect":
            await self._report_connecting(what, info)
            return
        if step == "send_request_headers" and what == "started":
            await self._report_preface(info["connection"])
        elif step == "send_request_headers" and what == "complete":
            self._stream_id = info["return_value"].stream_id
            info = {"return_value": None}
        elif step == "send_request_body":
            self._has_body = True
        elif step == "receive_response_headers" and what == "started":
            if not self._has_body:
                await self.started("send_request_body")
                await self.complete("send_request_body")
        elif step == "receive_response_headers" and what == "complete":
            head = info["return_value"]
            info = {"return_value": (head.status, list(head.headers))}
        if what == "started":
            await self.started(step)
        else:
            await self.emit(f"{self._version}.{step}.{what}", info)

    async def _report_connecting(self, what: str, info: dict[str, Any]) -> None:
        """Report a connection: TCP and TLS are one step here."""
        if what == "started":
            await self.emit(f"connection.{self._step}.started", self._connecting)
            return
        await self.emit(f"connection.{self._step}.{what}", info)
        if what == "failed":
            return
        self._is_new = True
        if self._secure and isinstance(info["return_value"], H2Protocol):
            names = ("server_hostname", "timeout")
            about = {name: self._connecting[name] for name in names}
            await self.emit("connection.start_tls.started", about)
            await self.emit("connection.start_tls.complete", info)

    async def _report_preface(self, connection: Any) -> None:
        """Report the preface of a new connection: it is sent with its first request."""
        self._version = "http2" if isinstance(connection, H2Protocol) else "http3"
        if self._is_new:
            self._is_new = False
            await self.started("send_connection_init")
            await self.complete("send_connection_init")

    async def started(self, step: str) -> None:
        """Report the begin of a step of the response."""
        info = {"request": self._request, "stream_id": self._stream_id}
        await self.emit(f"{self._version}.{step}.started", info)

    async def complete(self, step: str) -> None:
        """Report the end of a step of the response."""
        await self.emit(f"{self._version}.{step}.complete", {"return_value": None})

    async def failed(self, step: str, error: BaseException) -> None:
        """Report the failure of a step of the response."""
        await self.emit(f"{self._version}.{step}.failed", {"exception": error})
