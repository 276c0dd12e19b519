"""The transport of ``httpx.AsyncClient``."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from nghttp2py.httpx.engine import Answer
from nghttp2py.httpx.modules import AsyncBaseTransport, Module, find_module
from nghttp2py.httpx.parameters import Parameters

__all__ = ["AsyncTransport", "make_response"]


class AsyncTransport(Parameters, AsyncBaseTransport):
    """Sends the requests of an ``httpx.AsyncClient`` over HTTP/2 and HTTP/3.

    It is given as ``transport``, or as a value of ``mounts``; requests of httpx2 get
    responses and exceptions of httpx2.  It needs asyncio's event loop, or uvloop's.

    ``http2`` means HTTP/2 over TLS.  With ``http3=True`` HTTP/3 is used where the
    server offers it by Alt-Svc (RFC 7838), and with ``"only"`` nothing else is used.
    An origin that does not speak HTTP/2 is served by httpx's own HTTP/1.1 from then
    on, as are URLs of ``http`` and everything through ``proxy``.  Without ``http1``
    nothing is, and ``http`` means HTTP/2 in the clear (RFC 9113, 3.3).

    ``verify``, ``cert``, ``trust_env``, ``limits``, ``uds``, ``local_address``,
    ``socket_options``, ``proxy`` and ``retries``, of attempts to connect, are as in
    ``httpx.AsyncHTTPTransport``; ``verify`` and ``cert`` are used for HTTP/3, too.  The
    limits are those of connections of HTTP/2 and HTTP/3, and again of HTTP/1.1.

    Raises ``TypeError``, ``OSError`` and ``ValueError``, of which
    ``ConfigurationError`` and ``TLSConfigurationError`` are kinds, for what cannot be
    used.
    """

    def _begin(self) -> None:
        self._engine = self._make_engine()

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; return its response, whose body may still be arriving.

        Raises the exceptions of the request's module.
        """
        module = find_module(request)
        stream: Any = request.stream
        body = stream
        if isinstance(stream, module.byte_stream):
            body = b"".join(stream)
        trace = request.extensions.get("trace")
        answer = await self._engine.send(module, request, body, trace)
        return make_response(module, answer, answer.stream)

    async def aclose(self) -> None:
        """Close all connections; open responses break off."""
        await self._engine.close()

    async def __aenter__(self) -> AsyncTransport:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


def make_response(module: Module, answer: Answer, stream: Any) -> Any:
    """Make a response of a module; ``stream`` is its body, and ends the answer's."""
    response = module.response(
        answer.status,
        headers=answer.headers,
        stream=stream,
        extensions=answer.extensions,
    )
    # It has copied them, and the trailers come later.
    answer.stream.extensions = response.extensions
    return response
