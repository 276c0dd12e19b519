"""Exceptions for mistakes of the caller of ``H3Connection``."""

from nghttp2py.errors import ConnectionTerminatedError, NGHTTP2Error

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


class GoingAwayError(H3Error, ConnectionTerminatedError):
    """The server has sent GOAWAY and takes no more requests (RFC 9114, 5.2).

    ``unprocessed`` is true: the request was not sent, and may be on another connection.
    """

    def __init__(
        self, message: str = "", *, code: int | None = None, remote: bool = True
    ) -> None:
        NGHTTP2Error.__init__(self, message, code=code)
        self.error_code = 0x100  # H3_NO_ERROR (RFC 9114, 8.1)
        self.remote = remote
        self.unprocessed = True
        self.reason = message


class NotEnabledError(H3Error):
    """The peer's settings do not allow Extended CONNECT (RFC 9220, 3)."""
