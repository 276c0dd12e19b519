"""What an ``ASGIApp`` can be told about the server of its application."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nghttp2py.arguments import (
    check_bool,
    check_int,
    check_seconds,
    check_type,
    describe,
)
from nghttp2py.asgi.forwarded import ForwardedPolicy
from nghttp2py.websocket import WebSocketOptions

__all__ = ["EXTENSIONS", "ASGIOptions"]

#: The extensions of the scope that can be switched off.
EXTENSIONS = frozenset(
    {
        "http.response.early_hint",
        "http.response.informational",
        "http.response.pathsend",
        "http.response.push",
        "http.response.trailers",
        "http.response.zerocopysend",
        "tls",
        "websocket.http.response",
    }
)

_SPEC_VERSIONS = ("2.3", "2.5")
_ROOT_PATH_MODES = ("prepend", "set")


@dataclass(frozen=True)
class ASGIOptions:
    """How an application is called, and what is added to its responses.

    Raises ``TypeError`` and ``ValueError`` for invalid values, which it names.
    """

    #: "2.5": ``send()`` raises an ``OSError`` when the client is gone, and the
    #: application is cancelled after ``disconnect_grace``.  "2.3": ``send()`` then
    #: does nothing, and nothing is cancelled.
    spec_version: str = "2.5"
    #: Seconds from the client's disconnect to the cancellation of the application, if
    #: its response is incomplete; None: it is never cancelled.
    disconnect_grace: float | None = 3.0
    #: The state that the lifespan has filled; each scope has a shallow copy.
    state: dict[str, Any] | None = None
    #: The context that each task of an exchange copies, such as the lifespan's; None:
    #: that of the server's connections.
    context: contextvars.Context | None = None
    #: The path under which a proxy serves the application.
    root_path: str = ""
    #: "prepend": ``path`` and ``raw_path`` get ``root_path`` in front, as uvicorn
    #: does, for a proxy that has removed it; "set": they are as the client sent them.
    root_path_mode: str = "prepend"
    #: The value of the ``server`` field; empty: no such field.
    server_header: str = "nghttp2py"
    #: Whether responses have a ``date`` field.
    date_header: bool = True
    #: Fields that are added to each response.
    headers: tuple[tuple[bytes, bytes], ...] = ()
    #: The policy that rewrites the client's address and the scheme by the fields of
    #: trusted proxies; None: such fields are ignored.
    forwarded: ForwardedPolicy | None = None
    #: The options of WebSockets; None: the defaults.
    websocket: WebSocketOptions | None = None
    #: Requests that are served at once; others get 503.
    limit_concurrency: int | None = None
    #: Octets of a request's body; a larger one gets 413.
    max_request_body_size: int | None = None
    #: Seconds without progress of a response after which a waiting ``send()`` gives
    #: up and the response is reset; None: the server's ``Timeouts.response`` alone
    #: bounds it.
    response_stall: float | None = 60.0
    #: A path that is answered with 200 without a call of the application.
    health_check_path: str | None = None
    #: Names of extensions that the scope does not announce.
    disabled_extensions: Iterable[str] = frozenset()

    def __post_init__(self) -> None:
        _check_choice("spec_version", self.spec_version, _SPEC_VERSIONS)
        check_seconds("disconnect_grace", self.disconnect_grace, least=0)
        if self.state is not None and not isinstance(self.state, dict):
            raise TypeError(f"state must be a dict, not {describe(self.state)}")
        if self.context is not None:
            check_type("context", self.context, contextvars.Context, "a Context")
        if self.websocket is not None:
            check_type(
                "websocket", self.websocket, WebSocketOptions, "a WebSocketOptions"
            )
        _check_text("root_path", self.root_path)
        _check_choice("root_path_mode", self.root_path_mode, _ROOT_PATH_MODES)
        _check_text("server_header", self.server_header)
        check_bool("date_header", self.date_header)
        pairs = []
        for pair in self.headers:
            name, value = pair
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise TypeError("headers must be pairs of bytes")
            pairs.append((name.lower(), value))
        object.__setattr__(self, "headers", tuple(pairs))
        if self.limit_concurrency is not None:
            check_int("limit_concurrency", self.limit_concurrency, 1)
        if self.max_request_body_size is not None:
            check_int("max_request_body_size", self.max_request_body_size, 0)
        check_seconds("response_stall", self.response_stall)
        if self.forwarded is not None:
            rule = "a ForwardedPolicy or None"
            check_type("forwarded", self.forwarded, ForwardedPolicy, rule)
        if self.health_check_path is not None:
            _check_text("health_check_path", self.health_check_path)
        disabled = frozenset(self.disabled_extensions)
        if unknown := disabled - EXTENSIONS:
            raise ValueError(
                f"disabled_extensions has {', '.join(sorted(map(str, unknown)))}, but "
                f"the extensions are {', '.join(sorted(EXTENSIONS))}"
            )
        object.__setattr__(self, "disabled_extensions", disabled)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {describe(value)}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not "
            f"{describe(value)}"
        )
