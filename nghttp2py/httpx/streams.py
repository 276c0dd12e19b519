"""The body of a response, and the network stream of httpx below it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from nghttp2py.asyncio import Response
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.httpx.faults import translate
from nghttp2py.httpx.modules import Module
from nghttp2py.httpx.tracing import Tracer

__all__ = ["AsyncNetworkStream", "ResponseStream"]

# Seconds that the close of a tunnel waits for what was written.
_CLOSING = 1.0


class ResponseStream:
    """The body of a response: a subclass that is of httpx is given to its client."""

    def __init__(
        self, module: Module, response: Response, tracer: Tracer | None
    ) -> None:
        self._module = module
        self._response = response
        self._tracer = tracer
        self._closed = False
        #: The extensions of httpx's response, which get the trailers.
        self.extensions: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has arrived."""
        return self._response.stream.is_whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body in pieces as they arrive."""
        tracer = self._tracer
        try:
            if tracer is not None:
                await tracer.started("receive_response_body")
            if self._response.stream.is_whole:
                data = await self._response.read()
                if data:
                    yield data
            else:
                async for piece in self._response:
                    yield piece
        except (NGHTTP2Error, OSError) as error:
            if tracer is not None:
                await tracer.failed("receive_response_body", error)
            raise translate(self._module, error) from error
        if tracer is not None:
            await tracer.complete("receive_response_body")
        trailers = self._response.stream.trailers
        if trailers:
            self.extensions["trailers"] = self._module.headers(list(trailers))

    async def aclose(self) -> None:
        """Reset the stream, if its response is not complete."""
        if self._closed:
            return
        self._closed = True
        if self._tracer is not None:
            await self._tracer.started("response_closed")
        self._response.close()
        if self._tracer is not None:
            await self._tracer.complete("response_closed")


class AsyncNetworkStream:
    """The extension ``network_stream``: what is below a response.

    After a CONNECT or a WebSocket handshake it carries the bytes of the tunnel.  Raises
    the exceptions of httpcore.
    """

    __slots__ = ("_is_tunnel", "_module", "_response")

    def __init__(self, module: Module, response: Response, is_tunnel: bool) -> None:
        self._module = module
        self._response = response
        self._is_tunnel = is_tunnel

    def get_extra_info(self, info: str) -> Any:
        """Return ``ssl_object``, ``client_addr``, ``server_addr`` or ``socket``.

        Over HTTP/3 there is no ``ssl_object`` and no ``socket``: they are ``None``.
        ``stream`` is this package's stream, ``peercert`` the server's certificate.
        """
        names = {"client_addr": "sockname", "server_addr": "peername"}
        if info == "stream":
            return self._response.stream
        if info == "is_readable":
            return self._response.stream.is_whole
        return self._response.get_extra_info(names.get(info, info))

    def _check(self) -> None:
        if not self._is_tunnel:
            raise RuntimeError(
                "this network stream carries a response: only that of a CONNECT or a "
                "WebSocket can be read and written"
            )

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return up to ``max_bytes`` of the tunnel, as soon as there are any.

        The result is ``b""`` if the server has ended its half.  Raises ``ReadTimeout``
        and ``ReadError``.
        """
        self._check()
        try:
            return await wait_for(self._response.stream.read(max_bytes), timeout)
        except asyncio.TimeoutError as error:
            raise self._module.make_core_error("ReadTimeout", error) from error
        except (NGHTTP2Error, OSError) as error:
            raise self._module.make_core_error("ReadError", error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes by the tunnel.  Raises ``WriteTimeout`` and ``WriteError``."""
        self._check()
        if not buffer:
            return
        try:
            await wait_for(self._response.stream.send_data(bytes(buffer)), timeout)
        except asyncio.TimeoutError as error:
            raise self._module.make_core_error("WriteTimeout", error) from error
        except (NGHTTP2Error, OSError) as error:
            raise self._module.make_core_error("WriteError", error) from error

    async def aclose(self) -> None:
        """End our half of the tunnel, once what was written is sent."""
        if not self._is_tunnel or self._response.stream.sent_all:
            return
        with contextlib.suppress(NGHTTP2Error, OSError, asyncio.TimeoutError):
            await wait_for(self._end(), _CLOSING)

    async def _end(self) -> None:
        stream = self._response.stream
        await stream.end_stream()
        await stream.wait_sent()

    async def start_tls(self, *_: Any, **options: Any) -> Any:
        """Raise ``RuntimeError``: TLS inside of a tunnel is not supported."""
        raise RuntimeError("TLS inside of a stream is not supported")
