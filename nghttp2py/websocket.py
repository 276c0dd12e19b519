"""WebSocket on a byte stream of any HTTP version, without I/O.

The opening handshake is that of HTTP/1.1 (RFC 6455, 4) or the extended CONNECT of
HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220).  After it the tunnel's bytes enter by
``WebSocketConnection.receive_data``, which returns events, and leave by
``data_to_send``.  Frames are parsed and made by the package ``websockets``, which is
imported when the first connection is made.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import logging
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from nghttp2py.errors import ConfigurationError, StreamStateError, printable
from nghttp2py.h2.events import RequestReceived

if TYPE_CHECKING:
    from websockets.extensions import Extension
    from websockets.frames import Frame

    _LoggerAdapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    _LoggerAdapter = logging.LoggerAdapter  # not subscriptable in Python 3.10

__all__ = [
    "Accepted",
    "Closed",
    "Handshake",
    "MessageReceived",
    "PingReceived",
    "PongReceived",
    "Refusal",
    "WebSocketConnection",
    "WebSocketOptions",
    "check_close",
    "is_available",
    "read_handshake",
    "shorten_reason",
]

logger = logging.getLogger(__name__)

# What the key is hashed with (RFC 6455, 1.3).
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Octets of a payload from which a slice costs more than a view.
_LARGE = 4096

# A control frame has at most 125 octets, two of which are the code (RFC 6455, 5.5).
_MAX_REASON = 123

# The codes that an endpoint may send, besides 3000 to 4999 (RFC 6455, 7.4, and the
# registry that it makes).
_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))

# What deflate can add to a message that it cannot make smaller: 5 octets for each block
# that it stores, the smallest of which has 128 octets (zlib's least memory level).
_STORED = 128

# The first octet of a message in one frame that is not compressed (RFC 6455, 5.2).
_WHOLE_TEXT = 0x81
_WHOLE_BINARY = 0x82

_MISSING = "WebSocket needs the package websockets: pip install 'nghttp2py[asgi]'"


@dataclass(frozen=True)
class WebSocketOptions:
    """Options of WebSockets.  Sizes are in bytes, times in seconds.

    ``max_message_size`` bounds a message, after it was inflated: the connection is
    closed with 1009 beyond it.  While ``max_queue`` messages, or messages of
    ``max_queue_bytes`` together, wait for the application, the peer gets no more
    credit.  ``ping_interval`` and ``ping_timeout`` are those of the server's pings, to
    which a missing answer closes the connection with 1011; None disables them.
    ``close_timeout`` bounds the wait for the peer's close frame.

    ``per_message_deflate`` is whether messages are compressed if the client offers it
    (RFC 7692); the other four are the parameters of the same names in it.  Windows of
    12 bits need an eighth of the memory of the largest ones, 15 bits.
    """

    max_message_size: int = 16 << 20
    max_queue: int = 32
    max_queue_bytes: int = 1 << 20
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 10.0
    per_message_deflate: bool = True
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False

    def __post_init__(self) -> None:
        for name in "max_message_size", "max_queue", "max_queue_bytes":
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name} is at least 1, not {getattr(self, name)}"
                )
        for name in "ping_interval", "ping_timeout", "close_timeout":
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} is more than 0 s, not {value}")
        # zlib cannot make a window of 8 bits.
        if not 9 <= self.server_max_window_bits <= 15:
            raise ConfigurationError(
                f"server_max_window_bits is 9 to 15, not {self.server_max_window_bits}"
            )
        if not 8 <= self.client_max_window_bits <= 15:
            raise ConfigurationError(
                f"client_max_window_bits is 8 to 15, not {self.client_max_window_bits}"
            )


# ---- The opening handshake ----


@dataclass(frozen=True)
class Refusal:
    """The response to a request that is no valid opening handshake."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    reason: str


@dataclass(frozen=True)
class Accepted:
    """What ``Handshake.accept`` has agreed on.

    ``fields`` are those of the response; the status is 101 or, for an extended CONNECT,
    200.  ``extensions`` are for the ``WebSocketConnection``.
    """

    fields: tuple[tuple[bytes, bytes], ...]
    extensions: tuple[Extension, ...]


@dataclass(frozen=True)
class Handshake:
    """A client's opening handshake.

    ``subprotocols`` are those that the client offers, the preferred one first;
    ``offers`` are the extensions, each as a pair of its name and its parameters.
    ``key`` is the client's, which an extended CONNECT need not have.
    """

    subprotocols: tuple[str, ...]
    offers: tuple[tuple[str, Sequence[tuple[str, str | None]]], ...]
    key: bytes | None

    def accept(
        self,
        subprotocol: str | None = None,
        options: WebSocketOptions | None = None,
    ) -> Accepted:
        """Return the fields that accept the handshake, and the extensions in use.

        Raises ``ValueError`` if the client has not offered ``subprotocol``: it would
        have to fail the connection (RFC 6455, 4.1).
        """
        fields: list[tuple[bytes, bytes]] = []
        if self.key is not None:
            # RFC 8441 ignores the field, but some clients demand it.
            digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
            fields.append((b"sec-websocket-accept", base64.b64encode(digest)))
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                raise ValueError(
                    f"the client offers the subprotocols {list(self.subprotocols)}, not"
                    f" {subprotocol!r}"
                )
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        options = WebSocketOptions() if options is None else options
        extensions: list[Extension] = []
        if options.per_message_deflate and self.offers:
            answer, extensions = _negotiate(self.offers, options)
            if answer:
                fields.append((b"sec-websocket-extensions", answer))
        return Accepted(tuple(fields), tuple(extensions))


def _negotiate(
    offers: Iterable[tuple[str, Sequence[tuple[str, str | None]]]],
    options: WebSocketOptions,
) -> tuple[bytes, list[Extension]]:
    """Accept the first offer of permessage-deflate that can be met (RFC 7692, 5.1)."""
    from websockets.exceptions import NegotiationError
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
    from websockets.headers import build_extension

    factory = ServerPerMessageDeflateFactory(
        options.server_no_context_takeover,
        options.client_no_context_takeover,
        options.server_max_window_bits,
        options.client_max_window_bits,
        {"memLevel": 5},
    )
    for name, parameters in offers:
        if name != factory.name:
            continue
        try:
            agreed, extension = factory.process_request_params(parameters, ())
        except NegotiationError as error:
            logger.debug("an offer of permessage-deflate is declined: %s", error)
            continue
        return build_extension([(factory.name, agreed)]).encode(), [extension]
    return b"", []


def read_handshake(request: RequestReceived) -> Handshake | Refusal:
    """Check an opening handshake (RFC 6455, 4.2.1; RFC 8441, 5; RFC 9220, 3).

    That the request asks for a WebSocket, by ``upgrade`` or ``:protocol``, is the
    caller's affair.  Raises ``ConfigurationError`` if ``websockets`` is missing.
    """
    _load_engine()
    from websockets.exceptions import InvalidHeader
    from websockets.headers import parse_extension

    values: dict[bytes, list[bytes]] = {}
    for name, value, *_ in request.headers:
        if name.startswith(b"sec-websocket-"):
            values.setdefault(name[14:], []).append(value)
    if _split(values.get(b"version", ())) != [b"13"]:
        return _refuse("version is not 13", (b"sec-websocket-version", b"13"))
    keys = values.get(b"key", [])
    if request.method != b"CONNECT" and (len(keys) != 1 or not _is_key(keys[0])):
        return _refuse("needs one sec-websocket-key of 16 octets in base64")
    try:
        offers = [
            offer
            for value in values.get(b"extensions", ())
            for offer in parse_extension(value.decode("latin-1"))
        ]
    except InvalidHeader as error:
        # "MUST immediately _Fail the WebSocket Connection_" (RFC 6455, 9.1).
        return _refuse(str(error))
    subprotocols = _split(values.get(b"protocol", ()))
    return Handshake(
        tuple(name.decode("latin-1") for name in subprotocols),
        tuple(offers),
        keys[0].strip() if keys else None,
    )


def _refuse(reason: str, *fields: tuple[bytes, bytes]) -> Refusal:
    return Refusal(400, fields, f"the opening handshake of a WebSocket: {reason}")


def _split(values: Iterable[bytes]) -> list[bytes]:
    """Return the items of comma-separated lists (RFC 9110, 5.6.1)."""
    items = [item.strip(b" \t") for value in values for item in value.split(b",")]
    return [item for item in items if item]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except binascii.Error:
        return False


# ---- Events ----


@dataclass(frozen=True)
class MessageReceived:
    """A whole message: text as str, binary data as bytes."""

    data: str | bytes


@dataclass(frozen=True)
class PingReceived:
    """A ping, which was answered already."""

    data: bytes


@dataclass(frozen=True)
class PongReceived:
    """A pong, possibly unsolicited."""

    data: bytes


@dataclass(frozen=True)
class Closed:
    """The end of the peer's messages: the last event.

    ``code`` and ``reason`` are those of the peer's close frame, 1005 if it had none.
    If ``remote`` is False, there was no such frame: the code is 1006 if the stream
    ended without one, or that with which the connection was failed here.
    """

    code: int
    reason: str
    remote: bool


Event: TypeAlias = MessageReceived | PingReceived | PongReceived | Closed


# ---- A connection ----


def is_available() -> bool:
    """Return whether the package ``websockets`` is installed."""
    return find_spec("websockets") is not None


def check_close(code: int, reason: str) -> None:
    """Raise ``ValueError`` for what must not be in a close frame (RFC 6455, 7.4)."""
    if not isinstance(code, int) or not (code in _CODES or 3000 <= code <= 4999):
        raise ValueError(
            "a close code is 1000 to 1003, 1007 to 1014, or 3000 to 4999, not"
            f" {code!r} (RFC 6455, 7.4)"
        )
    if not isinstance(reason, str) or len(reason.encode()) > _MAX_REASON:
        raise ValueError(
            f"the reason of a close is at most {_MAX_REASON} bytes of UTF-8, not"
            f" {reason!r} (RFC 6455, 5.5)"
        )


def shorten_reason(reason: str) -> str:
    """Return the beginning of a text that fits into a close frame."""
    return reason.encode()[:_MAX_REASON].decode("utf-8", "ignore")


class _Log(_LoggerAdapter):
    """Logs at DEBUG what a peer can cause, without tracebacks."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        if self.isEnabledFor(logging.DEBUG):
            super().log(logging.DEBUG, "%s", printable(str(msg) % args))


# The class that `_load_engine` has made, once `websockets` is imported.
_engines: list[Any] = []


def _load_engine() -> Any:
    """Return the class that parses and makes frames.

    Raises ``ConfigurationError`` if ``websockets`` is missing.
    """
    if not _engines:
        _engines.append(_make_engine())
    return _engines[0]


def _make_engine() -> Any:
    try:
        from websockets.frames import Opcode
        from websockets.protocol import Protocol, Side, State
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    try:
        from websockets.speedups import apply_mask as unmask
    except ImportError:
        from websockets.utils import apply_mask as unmask

    class Engine(Protocol):
        """Joins frames to messages, and checks these in the order of the frames."""

        opened = State.OPEN
        apply_mask = staticmethod(unmask)

        def __init__(
            self, options: WebSocketOptions, client_side: bool, extensions: Any
        ) -> None:
            limit = options.max_message_size
            self.limit = limit
            if extensions:
                # Protocol's limit is for compressed frames, too; ours is exact.
                limit += _STORED + limit // _STORED * 5
            super().__init__(
                Side.CLIENT if client_side else Side.SERVER,
                max_size=limit,
                logger=_Log(logger, {}),
            )
            self.extensions = list(extensions)
            self.received: list[Event] = []
            self.failed: tuple[int, str] | None = None
            # The fragments of a message so far, and what checks those of text.
            self.parts: bytearray | None = None
            self.decoder: Any = None

        def fail(self, code: int, reason: str = "") -> None:
            self.failed = (int(code), "" if code == 1006 else reason)
            super().fail(code, reason)

        def recv_frame(self, frame: Frame) -> None:
            opcode = frame.opcode
            if opcode is Opcode.CLOSE:
                # A close frame may come between the fragments of a message (RFC 6455,
                # 5.4 and 5.5.1): the rest of that is not sent.
                self.current_size = None
            super().recv_frame(frame)  # raises if the frame must not come now
            self.events.clear()
            if opcode is Opcode.PING:
                self.received.append(PingReceived(bytes(frame.data)))
            elif opcode is Opcode.PONG:
                self.received.append(PongReceived(bytes(frame.data)))
            elif opcode is not Opcode.CLOSE:
                self.add_fragment(opcode, frame)

        def add_fragment(self, opcode: Opcode, frame: Frame) -> None:
            data = frame.data
            if frame.fin and self.extensions:
                self.renew_inflater(self.extensions[0], data)
            size = len(data) if self.parts is None else len(data) + len(self.parts)
            if size > self.limit:
                self.fail(1009, f"a message has more than {self.limit} bytes")
                return
            try:
                if opcode is not Opcode.CONT and frame.fin:
                    # One frame: the usual message.
                    message = (
                        str(data, "utf-8") if opcode is Opcode.TEXT else bytes(data)
                    )
                    self.received.append(MessageReceived(message))
                    return
                if self.parts is None:
                    self.parts = bytearray()
                    self.decoder = None
                    if opcode is Opcode.TEXT:
                        self.decoder = codecs.getincrementaldecoder("utf-8")()
                self.parts += data
                if self.decoder is not None:
                    self.decoder.decode(data, frame.fin)
            except UnicodeDecodeError as error:
                self.fail(1007, f"invalid UTF-8: {error.reason}")
                return
            if frame.fin:
                parts, self.parts = self.parts, None
                self.received.append(
                    MessageReceived(
                        bytes(parts) if self.decoder is None else parts.decode()
                    )
                )

        def renew_inflater(self, deflate: Any, data: Any) -> None:
            """Go on after a block with BFINAL, which ends a stream of DEFLATE.

            It may end any message (RFC 7692, 7.2.3.4), and zlib ignores what follows.
            """
            inflater = getattr(deflate, "decoder", None)
            if inflater is not None and inflater.eof:
                bits = deflate.remote_max_window_bits
                deflate.decoder = zlib.decompressobj(
                    -bits, zdict=bytes(data[-1 << bits :])
                )

    return Engine


class WebSocketConnection:
    """One end of a WebSocket after its opening handshake, without I/O.

    ``extensions`` are those of ``Accepted``.  What a call queues is returned by
    ``data_to_send``; after a call, look whether ``output_ended``, too.  A client masks
    its frames, a server does not (RFC 6455, 5.3).  Raises ``ConfigurationError`` if
    ``websockets`` is missing.
    """

    def __init__(
        self,
        options: WebSocketOptions | None = None,
        *,
        client_side: bool = False,
        extensions: Sequence[Extension] = (),
    ) -> None:
        options = WebSocketOptions() if options is None else options
        self._engine = _load_engine()(options, client_side, extensions)
        self._client_side = client_side
        # What was received of a frame that is not whole, how many octets it needs
        # before it is looked at, and how many of the next ones are the engine's.
        self._buffer = bytearray()
        self._needed = 0
        self._left = 0
        self._closed = False
        self._output_ended = False

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: no close frame was sent or received."""
        return bool(self._engine.state is self._engine.opened)

    @property
    def output_ended(self) -> bool:
        """Whether nothing follows what ``data_to_send`` has returned.

        The stream should be ended then, at once.
        """
        return self._output_ended

    # ---- From the peer ----

    @property
    def missing(self) -> int:
        """How many octets may be received before a message can be complete.

        That is 0 if it is not known.
        """
        return max(0, self._needed - len(self._buffer))

    def receive_data(self, data: bytes) -> list[Event]:
        """Receive bytes of the stream, and return the events that they complete.

        What breaks RFC 6455 ends in a ``Closed``, and a close frame with its code.
        """
        engine = self._engine
        if self._closed:
            return []
        if self._client_side:
            engine.receive_data(data)
        else:
            self._read_frames(data)
        events: list[Event] = engine.received
        if events:
            engine.received = []
        if engine.close_rcvd is not None or engine.failed is not None:
            events = [*events, self._end()]
        return events

    def _read_frames(self, data: bytes) -> None:
        """Read whole messages in one frame here, and have the engine parse the rest.

        These are nearly all, and the engine takes several times as long for them.
        """
        engine = self._engine
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        at, end = 0, len(source)
        if end < self._needed:
            # Not looked at again for each piece of a large frame.
            if source is data:
                self._buffer += data
            return
        self._needed = 0
        while at < end and engine.failed is None and engine.close_rcvd is None:
            if self._left:
                n = min(self._left, end - at)
                engine.receive_data(bytes(source[at : at + n]))
                self._left -= n
                at += n
                continue
            if end - at < 2:
                break
            # The head, with its mask (RFC 6455, 5.2).
            n = source[at + 1] & 0x7F
            start = at + (6 if n < 126 else 8 if n == 126 else 14)
            if end < start - 4 and source[at + 1] & 0x80:
                self._needed = start - 4 - at
                break
            if n > 125:
                n = int.from_bytes(source[at + 2 : start - 4], "big")
            head = source[at]
            if (
                (head != _WHOLE_TEXT and head != _WHOLE_BINARY)
                or not source[at + 1] & 0x80
                or n > engine.limit
                or engine.current_size is not None
            ):
                self._left = start - at + n
                continue
            if end < start + n:
                self._needed = start + n - at
                break
            mask = source[start - 4 : start]
            if n < _LARGE:
                payload = engine.apply_mask(source[start : start + n], mask)
            else:
                with memoryview(source) as view:
                    payload = engine.apply_mask(view[start : start + n], mask)
            at = start + n
            if head == _WHOLE_BINARY:
                engine.received.append(MessageReceived(payload))
                continue
            try:
                engine.received.append(MessageReceived(payload.decode()))
            except UnicodeDecodeError as error:
                engine.fail(1007, f"invalid UTF-8: {error.reason}")
        if source is data:
            if at < end:
                self._buffer += data[at:]
        else:
            del self._buffer[:at]

    def receive_eof(self) -> list[Event]:
        """Receive the end of the stream, in good order or not."""
        if self._client_side:
            self._engine.receive_eof()
            return [] if self._closed else [self._end()]
        if self._closed:
            return []
        self._engine.receive_eof()
        return [self._end()]

    def _end(self) -> Closed:
        engine = self._engine
        self._closed = True
        self._drop_parser()
        if engine.close_rcvd is not None:
            return Closed(int(engine.close_rcvd.code), engine.close_rcvd.reason, True)
        code, reason = engine.failed
        logger.debug("a WebSocket is closed with %d: %s", code, printable(reason))
        return Closed(code, reason, False)

    def _drop_parser(self) -> None:
        """Break the cycle of the engine and its parser, which a client needs yet."""
        if not self._client_side:
            self._engine.parser.close()

    # ---- To the peer ----

    def _require_open(self) -> Any:
        engine = self._engine
        if engine.state is not engine.opened:
            raise StreamStateError("the WebSocket is closed, or is being closed")
        return engine

    def send_message(self, data: str | bytes | bytearray | memoryview) -> None:
        """Queue a message: a str as text, anything else as binary data.

        Raises ``StreamStateError`` if the connection is not open.
        """
        engine = self._require_open()
        text = isinstance(data, str)
        payload = data.encode() if isinstance(data, str) else bytes(data)
        if engine.extensions or self._client_side:
            send = engine.send_text if text else engine.send_binary
            send(payload)
            return
        head = _WHOLE_TEXT if text else _WHOLE_BINARY
        n = len(payload)
        if n < 126:
            engine.writes.append(bytes((head, n)) + payload)
        elif n < 65536:
            engine.writes.append(struct.pack("!BBH", head, 126, n) + payload)
        else:
            engine.writes.append(struct.pack("!BBQ", head, 127, n) + payload)

    def send_ping(self, data: bytes = b"") -> None:
        """Queue a ping, of at most 125 bytes.  Raises as ``send_message`` does."""
        if len(data) > 125:
            raise ValueError(f"a ping has at most 125 bytes, not {len(data)}")
        self._require_open().send_ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455, 7.1.2).

        ``Closed`` follows with the peer's close frame.  A second call is a no-op.
        Raises ``ValueError`` for what must not be in a close frame.
        """
        check_close(code, reason)
        if self.is_open:
            self._engine.send_close(code, reason)

    def fail(self, code: int, reason: str = "") -> None:
        """Close without waiting for the peer (RFC 6455, 7.1.7).

        Nothing is received after it.  Raises as ``close`` does.
        """
        check_close(code, reason)
        if not self._engine.eof_sent:
            self._engine.fail(code, reason)
            self._closed = True
            self._drop_parser()

    def data_to_send(self) -> bytes:
        """Return the bytes that are queued for the peer."""
        writes = self._engine.data_to_send()
        if writes and not writes[-1]:  # SEND_EOF
            self._output_ended = True
        return b"".join(writes)
