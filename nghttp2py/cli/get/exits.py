"""The exit codes of ``get``, which are curl's, and the texts of its errors."""

from __future__ import annotations

import socket
import ssl
from enum import IntEnum
from http import HTTPStatus

from nghttp2py.errors import (
    BodyFormatError,
    ConnectionTerminatedError,
    ErrorCode,
    HeadersError,
    HTTPVersionError,
    NGHTTP2Error,
    StreamResetError,
    printable,
)

__all__ = ["Exit", "TransferError", "explain", "status_text"]


class Exit(IntEnum):
    """An exit code, with curl's number."""

    OK = 0
    UNSUPPORTED_PROTOCOL = 1
    USAGE = 2
    BAD_URL = 3
    NOT_BUILT_IN = 4
    NO_PROXY = 5
    NO_HOST = 6
    NO_CONNECTION = 7
    PARTIAL = 18
    STATUS = 22
    WRITE = 23
    READ = 26
    TIMEOUT = 28
    RANGE = 33
    TLS = 35
    REDIRECTS = 47
    NO_REPLY = 52
    SEND = 55
    RECEIVE = 56
    OWN_CERTIFICATE = 58
    UNTRUSTED = 60
    CONTENT_CODING = 61
    AUTHORITIES = 77
    STREAM = 92


class TransferError(NGHTTP2Error):
    """A transfer has failed with an exit code of its own."""

    def __init__(self, exit: Exit, message: str) -> None:
        super().__init__(message)
        self.exit = exit


def explain(error: Exception, where: str, host: str | None) -> tuple[Exit, str]:
    """Return the exit code of an error, and what it means, in one line.

    ``where`` is the authority that the request was for, ``host`` its host.
    """
    if isinstance(error, TransferError):
        return error.exit, str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of {where} is not trusted: {error.verify_message}"
        return Exit.UNTRUSTED, printable(text)
    if isinstance(error, ssl.SSLError):
        text = f"no TLS connection to {where}: {error.reason or error}"
        return Exit.TLS, printable(text)
    if isinstance(error, socket.gaierror):
        return Exit.NO_HOST, f"there is no host {host!r}: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        # Ours, of QUIC, names what nothing listens at.
        over = " over UDP, which HTTP/3 needs" if "UDP" in str(error) else ""
        return Exit.NO_CONNECTION, f"{where} refuses connections{over}"
    if isinstance(error, TimeoutError):
        return Exit.TIMEOUT, str(error) or f"{where} does not answer"
    if isinstance(error, HeadersError):
        return Exit.USAGE, f"the request must not be sent: {error}"
    if isinstance(error, BodyFormatError):
        return Exit.CONTENT_CODING, str(error)
    if isinstance(error, HTTPVersionError):
        return Exit.NO_CONNECTION, error.reason
    if isinstance(error, StreamResetError):
        if error.error_code == ErrorCode.HTTP_1_1_REQUIRED:
            return Exit.STREAM, f"{where} does not speak HTTP/2 ({error})"
        return Exit.STREAM, str(error)
    if isinstance(error, ConnectionTerminatedError):
        if error.unprocessed and not error.remote and error.reason:
            return Exit.NO_CONNECTION, error.reason  # of QUIC, not established
        return Exit.RECEIVE, str(error)
    if isinstance(error, OSError):
        return Exit.NO_CONNECTION, printable(str(error))
    return Exit.RECEIVE, printable(str(error))


def status_text(status: int) -> str:
    """Return a status with its phrase."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
