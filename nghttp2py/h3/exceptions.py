"""Exceptions for mistakes of the caller of ``H3Connection``."""

from nghttp2py.errors import NGHTTP2Error

__all__ = [
    "GoingAwayError",
    "H3Error",
    "InvalidStreamTypeError",
    "NoAvailablePushIDError",
    "NotEnabledError",
]


class H3Error(NGHTTP2Error):
    """Base of the exceptions about HTTP/3."""

    def __init__(self, message: str = "", *, code: int | None = None) -> None:
        super().__init__(message, code=code)


class InvalidStreamTypeError(H3Error):
    """The call does not apply to streams of this kind."""


class NoAvailablePushIDError(H3Error):
    """The client allows no push, or no more of them (RFC 9114, 4.6)."""


class GoingAwayError(H3Error):
    """The server has sent GOAWAY and accepts no more requests (RFC 9114, 5.2)."""


class NotEnabledError(H3Error):
    """The peer's settings do not allow Extended CONNECT (RFC 9220, 3)."""
