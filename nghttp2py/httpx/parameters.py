"""The parameters of both transports, which are httpx's and ``http3``."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from nghttp2py.httpx.engine import Engine, Options
from nghttp2py.httpx.trust import Trust

__all__ = ["Parameters"]


class Parameters(ABC):
    """The constructor of a transport, which can make an ``Engine`` then."""

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        limits: Any = None,
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[tuple[Any, ...]] | None = None,
        *,
        http3: bool | Literal["only"] = False,
    ) -> None:
        self._make_engine = partial(
            Engine,
            Options(
                http1=http1,
                http2=http2,
                http3=http3,
                limits=limits,
                retries=retries,
                uds=uds,
                local_address=local_address,
                socket_options=socket_options,
                proxy=proxy,
            ),
            Trust(verify, cert, trust_env),
        )
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Make the engine, which raises for what cannot be used."""
