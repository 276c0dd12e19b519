"""HTTP/2 error codes and the package's exceptions.

A mistake of the caller raises one of these exceptions.  A mistake of the peer never
raises in the sans-I/O layers: they report an event.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ASGIMessageError",
    "ApplicationError",
    "BodyFormatError",
    "BodyQueueFullError",
    "BodyTooLargeError",
    "ClientDisconnectedError",
    "ConfigurationError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionTerminatedError",
    "ErrorCode",
    "FlowControlError",
    "HPACKError",
    "HTTPVersionError",
    "HeaderListTooLargeError",
    "HeadersError",
    "InvalidBodyLengthError",
    "InvalidSettingsValueError",
    "InvalidTableIndexError",
    "InvalidTableSizeError",
    "LifespanError",
    "NGHTTP2Error",
    "NoAvailableStreamIDError",
    "NoSuchStreamError",
    "PoolTimeoutError",
    "ProtocolError",
    "PushDisabledError",
    "ReadTimeoutError",
    "RequestQueueFullError",
    "RequestTimeoutError",
    "SendException",
    "StatusError",
    "StreamClosedError",
    "StreamResetError",
    "StreamStateError",
    "TLSConfigurationError",
    "TunnelsNotEnabledError",
    "WriteTimeoutError",
    "error_code_name",
    "from_code",
    "printable",
]


class ErrorCode(IntEnum):
    """HTTP/2 error codes, as RST_STREAM and GOAWAY carry them (RFC 9113, 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def printable(text: str | bytes) -> str:
    """Return ``text`` with every control character escaped.

    Texts of the peer are shown in terminals, logs and exceptions, where ESC, CR or LF
    would act.  Bytes are decoded as UTF-8; octets that are not valid become ``\\xNN``.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable()
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def error_code_name(error_code: int, codes: type[IntEnum] = ErrorCode) -> str:
    """Return the name of an error code in ``codes``, or the number if it has none.

    By default the codes are those of RFC 9113.
    """
    try:
        return codes(error_code).name
    except ValueError:
        return f"{error_code:#x}"


def _describe_end(
    what: str, error_code: int, remote: bool, reason: str, code_name: str
) -> str:
    """Describe who ended a stream or a connection, and why."""
    by = "by the peer" if remote else "here"
    message = f"{what} {by}: {code_name or error_code_name(error_code)}"
    return f"{message}: {printable(reason)}" if reason else message


class NGHTTP2Error(Exception):
    """Base class of the package's exceptions.

    ``code`` is the C library's negative code, or ``None`` if the error was found before
    the C library was called.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class HPACKError(NGHTTP2Error):
    """A header block cannot be coded; the coder is unusable from then on (RFC 7541,
    2.3)."""


class HeaderListTooLargeError(HPACKError):
    """A decoded header list is larger than the bound that was set for it."""


class InvalidTableIndexError(HPACKError):
    """A header block has an index that neither table has (RFC 7541, 2.3.3).

    A decoder that has not seen a connection's earlier blocks meets this soon.
    """


class InvalidTableSizeError(HPACKError):
    """A header block changes the dynamic table's size as it must not, or does not
    though it must (RFC 7541, 4.2 and 6.3)."""


class ProtocolError(NGHTTP2Error):
    """The call is not allowed now or would break the protocol (RFC 9113)."""


class ConnectionClosedError(ProtocolError):
    """The connection accepts no more calls: it was closed, or its preface was never
    sent."""


class NoSuchStreamError(ProtocolError):
    """There is no stream with this identifier."""

    def __init__(
        self, message: str, stream_id: int, *, code: int | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.stream_id = stream_id


class StreamClosedError(NoSuchStreamError):
    """The stream, or our half of it, is already closed (RFC 9113, 5.1)."""


class StreamResetError(StreamClosedError):
    """A stream ended before its messages did (RFC 9113, 5.4.2).

    ``error_code`` is that of RST_STREAM, or of the connection's end; ``remote``
    is true if the peer ended it, ``unprocessed`` if the peer did nothing with
    the request, which may be sent again (RFC 9113, 8.7); ``reason`` is text
    for people.  ``code_name`` is the name of the code where it is not HTTP/2's.
    """

    def __init__(
        self,
        stream_id: int,
        error_code: int,
        *,
        remote: bool,
        unprocessed: bool = False,
        reason: str = "",
        code_name: str = "",
    ) -> None:
        what = f"stream {stream_id} was reset"
        super().__init__(
            _describe_end(what, error_code, remote, reason, code_name), stream_id
        )
        self.error_code = error_code
        self.remote = remote
        self.unprocessed = unprocessed
        self.reason = printable(reason)


class StreamTimeoutError(StreamResetError, TimeoutError):
    """Nothing happened on a stream within the timeout, and it was reset."""

    def __init__(
        self,
        stream_id: int,
        seconds: float,
        error_code: int = ErrorCode.CANCEL,
        code_name: str = "",
    ) -> None:
        super().__init__(
            stream_id,
            error_code,
            remote=False,
            reason=f"nothing happened in {seconds} seconds",
            code_name=code_name,
        )


class ConnectionTerminatedError(ConnectionClosedError, ConnectionError):
    """The connection ended before what was asked of it was done.

    ``error_code`` is that of GOAWAY (RFC 9113, 6.8); ``remote`` is true if
    the peer ended it, ``unprocessed`` if the request was not sent, or the
    peer did nothing with it, so that it may be sent again; ``reason`` is text
    for people.  ``code_name`` is the name of the code where it is not HTTP/2's.
    """

    def __init__(
        self,
        error_code: int,
        *,
        remote: bool,
        unprocessed: bool = False,
        reason: str = "",
        code_name: str = "",
    ) -> None:
        what = "the connection was ended"
        super().__init__(_describe_end(what, error_code, remote, reason, code_name))
        self.error_code = error_code
        self.remote = remote
        self.unprocessed = unprocessed
        self.reason = printable(reason)


class HTTPVersionError(ConnectionTerminatedError):
    """The server does not speak the version of HTTP that was asked for.

    ``negotiated`` is the protocol that ALPN (RFC 7301) has selected, such as
    ``"http/1.1"``, or ``None`` if the server has selected none, or refused all that
    were offered.  No request was sent.
    """

    def __init__(
        self,
        error_code: int,
        *,
        negotiated: str | None,
        remote: bool = False,
        reason: str = "",
        code_name: str = "",
    ) -> None:
        super().__init__(
            error_code,
            remote=remote,
            unprocessed=True,
            reason=reason,
            code_name=code_name,
        )
        self.negotiated = negotiated


class SendException(NGHTTP2Error):
    """Some data could not be sent; ``data`` is the rest.

    ``__cause__`` is the reason.
    """

    def __init__(self, data: bytes, message: str = "") -> None:
        super().__init__(message or f"{len(data)} bytes were not sent")
        self.data = data


class _ResetWhileSending(SendException, StreamResetError):
    """A ``SendException`` that is also the ``StreamResetError`` that caused it."""


class _TimeoutWhileSending(SendException, StreamTimeoutError):
    """A ``SendException`` that is also the ``StreamTimeoutError`` that caused it."""


class _TerminatedWhileSending(SendException, ConnectionTerminatedError):
    """A ``SendException`` that is also the ``ConnectionTerminatedError`` that caused
    it."""


def not_sent(data: bytes, cause: Exception) -> SendException:
    """Make the exception for ``data`` that was not sent.

    It is a ``SendException``.  If the stream or the connection has ended, it is also
    the exception that reports that.
    """
    kind: type[SendException] = SendException
    for known, both in (
        (StreamTimeoutError, _TimeoutWhileSending),
        (StreamResetError, _ResetWhileSending),
        (ConnectionTerminatedError, _TerminatedWhileSending),
    ):
        if isinstance(cause, known):
            kind = both
            break
    error = kind.__new__(kind)
    error.__dict__.update(cause.__dict__)
    # This skips the constructors of the classes in between, which make their own text.
    NGHTTP2Error.__init__(error, f"{len(data)} bytes were not sent: {cause}")
    error.data = data
    return error


class StreamStateError(ProtocolError):
    """The stream exists, but its state does not allow this call."""


class ASGIMessageError(NGHTTP2Error, RuntimeError):
    """An ASGI application has sent a message that is invalid, or not allowed now."""


class ClientDisconnectedError(NGHTTP2Error, ConnectionResetError):
    """The client of an ASGI application is gone: its response cannot be sent."""


class NoAvailableStreamIDError(ProtocolError):
    """All stream identifiers of this connection are used up (RFC 9113, 5.1.1)."""


class PushDisabledError(ProtocolError):
    """The peer has set SETTINGS_ENABLE_PUSH to 0 (RFC 9113, 6.5.2)."""


class TunnelsNotEnabledError(ProtocolError):
    """The peer's SETTINGS do not allow extended CONNECT (RFC 8441, 3, RFC 9220, 3)."""

    def __init__(
        self,
        message: str = "the server does not support extended CONNECT",
        *,
        code: int | None = None,
    ) -> None:
        super().__init__(message, code=code)


class FlowControlError(ProtocolError):
    """A flow-control window would leave its range (RFC 9113, 6.9)."""


class BodyQueueFullError(ProtocolError):
    """More bytes of a body would be queued on a stream than the bound allows."""


class RequestQueueFullError(ProtocolError):
    """More requests would wait for a stream than the bound allows."""


class BodyTooLargeError(NGHTTP2Error):
    """A received body is larger than the bound set for it."""


class BodyFormatError(NGHTTP2Error, ValueError):
    """A received body does not have the format as which it was read."""


class RequestTimeoutError(NGHTTP2Error, TimeoutError):
    """A client has waited for a request longer than it was asked to."""


class PoolTimeoutError(RequestTimeoutError):
    """No connection, or no stream of one, was free in time: nothing was sent."""


class ConnectTimeoutError(RequestTimeoutError):
    """The connection was not made in time: nothing was sent."""


class WriteTimeoutError(RequestTimeoutError):
    """The peer took no part of a request's body in time."""


class ReadTimeoutError(RequestTimeoutError):
    """The response, or the next piece of its body, did not arrive in time."""


class StatusError(NGHTTP2Error):
    """A response has a status of 400 or above; ``response`` is that response."""

    def __init__(self, message: str, response: object) -> None:
        super().__init__(message)
        self.response = response


class HeadersError(ProtocolError, ValueError):
    """A header field, or the list of them, must not be sent (RFC 9113, 8.2, 8.3)."""


class InvalidBodyLengthError(ProtocolError, ValueError):
    """A body does not have the length that content-length states (RFC 9113, 8.1.1)."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"content-length is {expected}, but the body has {actual} bytes"
        )
        self.expected = expected
        self.actual = actual


class ConfigurationError(NGHTTP2Error, ValueError):
    """Options that cannot be used, or not together."""


class ApplicationError(NGHTTP2Error):
    """An application cannot be loaded, or is none.

    The text is one line.  ``details`` is the traceback of an exception that its own
    code has raised, or the empty string.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class LifespanError(ApplicationError):
    """An ASGI application has failed to start."""


class TLSConfigurationError(ConfigurationError):
    """No TLS connection could be made with an SSL context."""


class InvalidSettingsValueError(ProtocolError, ValueError):
    """A setting's value is outside its range (RFC 9113, 6.5.2)."""


# The exception of each of the C library's codes (nghttp2.h) and of ours (src_c/ngp.h,
# from -2001).  A code that is not here becomes ProtocolError.
_EXCEPTIONS: dict[int, type[NGHTTP2Error]] = {
    -509: NoAvailableStreamIDError,  # NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE
    -516: ConnectionClosedError,  # NGHTTP2_ERR_START_STREAM_NOT_ALLOWED
    -523: HPACKError,  # NGHTTP2_ERR_HEADER_COMP
    -524: FlowControlError,  # NGHTTP2_ERR_FLOW_CONTROL
    -528: PushDisabledError,  # NGHTTP2_ERR_PUSH_DISABLED
    -530: ConnectionClosedError,  # NGHTTP2_ERR_SESSION_CLOSING
    -2001: ConnectionClosedError,  # NGP_ERR_CONNECTION_CLOSED
    -2002: HeadersError,  # NGP_ERR_BAD_HEADERS
    -2003: BodyQueueFullError,  # NGP_ERR_BODY_FULL
    -2004: HeaderListTooLargeError,  # NGP_ERR_HEADER_LIST_TOO_LARGE
}
_STREAM_EXCEPTIONS: dict[int, type[NoSuchStreamError]] = {
    -510: StreamClosedError,  # NGHTTP2_ERR_STREAM_CLOSED
    -511: StreamClosedError,  # NGHTTP2_ERR_STREAM_CLOSING
    -512: StreamClosedError,  # NGHTTP2_ERR_STREAM_SHUT_WR
    -513: NoSuchStreamError,  # NGHTTP2_ERR_INVALID_STREAM_ID
}
_STATE_EXCEPTIONS = frozenset(
    {
        -514,  # NGHTTP2_ERR_INVALID_STREAM_STATE
        -529,  # NGHTTP2_ERR_DATA_EXIST
    }
)
_NOMEM = -901  # NGHTTP2_ERR_NOMEM
_INVALID_ARGUMENT = -501  # NGHTTP2_ERR_INVALID_ARGUMENT


def from_code(code: int, message: str, stream_id: int | None = None) -> Exception:
    """Make the exception for the C library's negative ``code``.

    ``message`` is the library's text for the code.  ``stream_id`` is the stream of the
    call that failed, if it was about one.
    """
    if code == _NOMEM:
        return MemoryError(message)
    if code == _INVALID_ARGUMENT:
        return ValueError(message)
    if stream_id is not None:
        message = f"stream {stream_id}: {message}"
        if code in _STREAM_EXCEPTIONS:
            return _STREAM_EXCEPTIONS[code](message, stream_id, code=code)
    if code in _STATE_EXCEPTIONS:
        return StreamStateError(message, code=code)
    return _EXCEPTIONS.get(code, ProtocolError)(message, code=code)
