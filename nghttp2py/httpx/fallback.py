"""What HTTP/1.1 is needed for: httpx's own transport, made when it is first needed."""

from __future__ import annotations

from typing import Any

from nghttp2py.httpx.modules import Module
from nghttp2py.httpx.trust import Trust

__all__ = ["Fallback"]

# Origins that are remembered; the oldest is forgotten.
_MAX_ORIGINS = 1000


class Fallback:
    """Sends requests over HTTP/1.1, and knows which origins speak nothing newer.

    ``options`` are those of httpx's ``AsyncHTTPTransport``.
    """

    def __init__(self, trust: Trust, **options: Any) -> None:
        self._trust = trust
        self._options = options
        self._transports: dict[Module, Any] = {}
        # Whether each has asked for HTTP/1.1, although it speaks something newer.
        self._origins: dict[str, bool] = {}

    def remember(self, origin: str, *, asked: bool) -> None:
        """Note that an origin speaks neither HTTP/2 nor, if it has ``asked`` for
        HTTP/1.1, HTTP/3."""
        self._origins[origin] = asked or self._origins.pop(origin, False)
        if len(self._origins) > _MAX_ORIGINS:
            del self._origins[next(iter(self._origins))]

    def __contains__(self, origin: str) -> bool:
        return origin in self._origins

    def has_asked(self, origin: str) -> bool:
        """Return whether an origin has asked for HTTP/1.1."""
        return self._origins.get(origin, False)

    async def send(self, module: Module, request: Any) -> Any:
        """Send a request of ``module`` by its own transport; return its response."""
        transport = self._transports.get(module)
        if transport is None:
            # httpx writes its protocols into the context.
            context = self._trust.make_context()
            transport = module.async_transport(
                verify=context, http1=True, http2=False, **self._options
            )
            self._transports[module] = transport
        return await transport.handle_async_request(request)

    async def close(self) -> None:
        """Close the transports' connections."""
        transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            await transport.aclose()
