"""TLS for a server's connections, on a plain transport.

asyncio's TLS allocates a buffer of 256 KiB for each connection and does not report why
a handshake has failed.  Here the connections of a server share one buffer, and an idle
connection costs only what OpenSSL keeps for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from nghttp2py.asyncio.handshake_failures import find_reason
from nghttp2py.asyncio.memory import check_memory, count_bytes
from nghttp2py.asyncio.tls import ClientHello, ServerContexts
from nghttp2py.log_budget import LogBudget

__all__ = ["ServerTLS", "TLSTransport", "feed"]

logger = logging.getLogger(__name__)

#: Bytes that a client may send before the handshake is complete.  OpenSSL accepts a
#: certificate chain of 100 KiB.
MAX_HANDSHAKE = 131072
#: Bytes that the peer can make us buffer while it does not read, such as answers to
#: KeyUpdate.
MAX_ANSWERS = 65536

# Bytes that are read from the socket and passed on at once, as in asyncio's TLS.
_READ_SIZE = 262144
# The plaintext of one TLS record (RFC 8446, 5.1).  OpenSSL's memory buffers grow to the
# largest piece that was ever in them and never shrink.
_RECORD = 16384
# Seconds for which a connection whose TLS has failed waits for the peer to read the
# alert: closing at once, with unread bytes of the peer, would send RST.
_LINGER = 1.0
# Log lines about failed handshakes, which peers can cause, and in how many seconds.
_FAILURES, _FAILURE_INTERVAL = 20, 10.0
# Lines about errors of our own certificate: one a minute is enough.
_FAULT_INTERVAL = 60.0

# Bytes of a ClientHello that are kept to read its ALPN and the name in it.  Its largest
# part is a session ticket with the client's certificates.
_MAX_HELLO = 16384
# Ciphertext that OpenSSL gets at once: larger pieces enlarge its buffer, and smaller
# ones end inside a record more often, which costs an exception.
_FEED = 32768
_NOTHING = memoryview(b"")

# OpenSSL's reasons for an error of the server: it has no certificate that the peer can
# use, or its servername callback raised.
_OUR_FAULTS = frozenset(
    {
        "CALLBACK_FAILED",
        "NO_CERTIFICATE_SET",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
)
_EXPLANATIONS = {
    "HTTP_REQUEST": "the peer sent an HTTP request in the clear",
    "NO_SHARED_CIPHER": "no cipher suite that both sides support",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate",
    "UNSUPPORTED_PROTOCOL": "the client's TLS version is not supported",
    "WRONG_VERSION_NUMBER": "what the peer sent is not TLS",
}


class ServerTLS:
    """The shared state of a server's TLS connections.

    ``lost`` is called without arguments when a connection is lost.
    """

    def __init__(
        self,
        contexts: ssl.SSLContext | ServerContexts,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        handshake_timeout: float,
        lost: Callable[[], object],
    ) -> None:
        if isinstance(contexts, ssl.SSLContext):
            contexts = ServerContexts(contexts)
        #: Those of new connections: others may be set at any time.
        self.contexts = contexts
        self.factory = factory
        self.handshake_timeout = handshake_timeout
        self.lost = lost
        self.ciphertext = memoryview(bytearray(_READ_SIZE))
        self.plaintext = memoryview(bytearray(_READ_SIZE))
        #: The connections, before and after the handshake, until they are lost.
        self.connections: set[TLSTransport] = set()
        #: How many handshakes were begun by a client and not completed, by reason.
        self.failures: Counter[str] = Counter()
        self._failures = LogBudget(logger, logging.INFO, _FAILURES, _FAILURE_INTERVAL)
        self._faults = LogBudget(logger, logging.WARNING, 1, _FAULT_INTERVAL)

    def protocol(self) -> TLSTransport:
        """Make the protocol of an accepted connection."""
        return TLSTransport(self)

    def report(self, peer: object, error: Exception | str) -> None:
        """Log why a connection's TLS has failed."""
        if isinstance(error, ssl.SSLError):
            reason = error.reason or ""
            text = _EXPLANATIONS.get(reason)
            if text is None:
                text = reason.replace("_", " ").lower() or str(error)
            if reason in _OUR_FAULTS:
                self._faults.log(
                    "%s: the TLS handshake failed by a fault of this server's "
                    "certificate or context: %s",
                    peer,
                    text,
                )
                return
        else:
            text = str(error)
        self._failures.log("%s: TLS failed: %s", peer, text)


class TLSTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The protocol of a TCP connection, and the transport for the protocol over its
    TLS.

    It implements ``asyncio.Transport``.  ``write_eof`` sends close_notify and shuts
    down the write side of the TCP connection; received data is still delivered (RFC
    8446, 6.1).  ``close`` sends close_notify and closes when everything is written.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_certificate",
        "_closing",
        "_eof_received",
        "_eof_written",
        "_error",
        "_hello",
        "_incoming",
        "_notified",
        "_outgoing",
        "_peer",
        "_protocol",
        "_reading_paused",
        "_reason",
        "_received",
        "_shared",
        "_tcp",
        "_timer",
        "_tls",
        "_writing_paused",
    )

    def __init__(self, shared: ServerTLS) -> None:
        super().__init__()
        self._shared = shared
        self._tcp: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._protocol: asyncio.BaseProtocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer: object = None
        self._error: Exception | None = None
        # The first bytes that came, until the handshake is complete.
        self._hello: ClientHello | None = None
        self._reason = "closed"  # of a handshake that is not completed
        self._certificate: str | None = None  # ours, in PEM, if it is known
        self._received = 0  # bytes received before the handshake's end
        self._answers = 0  # bytes that reading has made, while writing is paused
        self._closing = False
        self._eof_received = False
        self._eof_written = False
        self._notified = False  # close_notify was sent
        self._reading_paused = False
        self._writing_paused = False

    # ---- The protocol of the TCP connection ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        tcp = cast(asyncio.Transport, transport)
        self._tcp = tcp
        shared = self._shared
        try:
            self._peer = tcp.get_extra_info("peername")
            shared.connections.add(self)
            self._timer = asyncio.get_running_loop().call_later(
                shared.handshake_timeout, self._handshake_timed_out
            )
        except MemoryError as error:
            self._give_up(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        # The shared buffer is decrypted before another connection reads into it.
        return self._shared.ciphertext

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing or self._eof_received:
            return
        try:
            data = self._shared.ciphertext[:nbytes]
            if self._protocol is not None:
                # Decrypting takes as much before the protocol can count it.
                count_bytes(nbytes)
                self._read(data)
                return
            check_memory()
            hello = self._hello
            if hello is None:
                hello = self._hello = ClientHello()
            if len(hello.data) < _MAX_HELLO:
                hello.data += data[: _MAX_HELLO - len(hello.data)]
            kept = self._received
            self._received += nbytes
            if self._tls is None and not self._begin(hello, kept):
                return
            assert self._incoming is not None
            self._incoming.write(data)
            self._shake_hands()
        except MemoryError as error:
            self._give_up(error)

    def eof_received(self) -> bool:
        if self._protocol is None or self._closing:
            return False
        return self._tell_eof()

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._answers = 0
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None and not self._closing:
            if not self._received:
                # A port scan or a health check: no TLS was begun.
                logger.debug("%s: closed before a TLS handshake", self._peer)
            else:
                self._shared.report(
                    self._peer, "the peer closed the connection in the handshake"
                )
        if protocol is None and self._received:
            self._shared.failures[self._reason] += 1
        self._closing = True
        self._tcp = self._tls = self._incoming = self._outgoing = None
        error, self._error = self._error or exc, None
        self._handshake_over()
        try:
            if protocol is not None:
                protocol.connection_lost(error)
        finally:
            self._shared.connections.discard(self)
            self._shared.lost()

    # ---- The handshake ----

    @property
    def has_begun(self) -> bool:
        """Return whether the client has sent anything."""
        return bool(self._received)

    def _begin(self, hello: ClientHello, kept: int) -> bool:
        """Make the SSL object, and give it the first bytes, which were kept.

        Return False if more bytes must come first: with several certificates, the name
        for which the client asks.  An idle connection needs no SSL object.
        """
        contexts = self._shared.contexts
        context = contexts.default
        if contexts.are_chosen:
            # Not by sni_callback: a name that is no ASCII makes Python write a
            # traceback.
            name = hello.read_server_name()
            if name is None and len(hello.data) < _MAX_HELLO:
                return False
            context = contexts.choose(name or "")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(incoming, outgoing, server_side=True)
        self._certificate = contexts.get_certificate(context)
        self._incoming, self._outgoing = incoming, outgoing
        incoming.write(hello.data[:kept])
        return True

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._received > MAX_HANDSHAKE:
                self._reason = "other"
                self._fail(f"more than {MAX_HANDSHAKE} bytes before its end")
            return
        except MemoryError:
            raise
        except Exception as error:
            self._flush()  # the alert
            self._reason = find_reason(error)
            self._fail(error)
            return
        self._flush()
        self._complete_handshake()

    def _complete_handshake(self) -> None:
        tls, tcp = self._tls, self._tcp
        assert tls is not None and tcp is not None
        # Copied, because it must stay available after the connection is lost.
        extra = {
            "cipher": tls.cipher(),
            "peername": self._peer,
            "sockname": tcp.get_extra_info("sockname"),
            "sslcontext": tls.context,
            "server_certificate": self._certificate,
        }
        certificate = tls.getpeercert()
        if certificate:
            extra["peercert"] = certificate
        if tls.selected_alpn_protocol() is None and self._hello is not None:
            extra["alpn_offered"] = self._hello.read_alpn_offer()
        self._hello = None
        self._extra = extra
        # This comes first: what the protocol writes may fail, which sets the timer
        # again.
        self._handshake_over()
        protocol = self._shared.factory()
        self._protocol = protocol
        protocol.connection_made(self)
        if self._writing_paused:
            protocol.pause_writing()
        self._read()

    def _handshake_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handshake_timed_out(self) -> None:
        self._timer = None
        self._reason = "timeout"
        try:
            self._fail(f"no handshake in {self._shared.handshake_timeout} seconds")
        finally:
            self.abort()

    def _fail(self, error: Exception | str) -> None:
        """End the connection for an error that is not its protocol's."""
        self._closing = True
        self._shared.report(self._peer, error)
        if isinstance(error, Exception):
            # The traceback is dropped, because it would keep this object alive.
            self._error = error.with_traceback(None)
        tcp = self._tcp
        if tcp is None or tcp.is_closing():
            return
        with contextlib.suppress(OSError):  # the peer may have reset it already
            tcp.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_LINGER, tcp.abort)

    def _give_up(self, error: Exception) -> None:
        """Abort for want of memory: the connection that needs it is the one that ends.

        There may be none for a log line, either.
        """
        self._error = error.with_traceback(None)
        try:
            self._shared.report(self._peer, "there is not enough memory")
        except MemoryError:
            pass
        finally:
            self.abort()

    # ---- Reading ----

    def _read(self, data: memoryview | None = None) -> None:
        """Decrypt ``data``, and deliver until nothing is left or reading is paused."""
        rest = data or _NOTHING
        plaintext = self._shared.plaintext
        while not (self._reading_paused or self._closing or self._eof_received):
            tls, incoming, outgoing = self._tls, self._incoming, self._outgoing
            assert tls is not None and incoming is not None and outgoing is not None
            read: Any = tls.read  # which returns a number if it is given a buffer
            size = 0
            ended = False
            error = None
            while size < _READ_SIZE and not ended:
                # OpenSSL keeps only bytes of an incomplete record back, so a read that
                # would find nothing can be skipped.
                if not (incoming.pending or tls.pending()):
                    if not rest:
                        break
                    incoming.write(rest[:_FEED])
                    rest = rest[_FEED:]
                try:
                    part = read(_READ_SIZE - size, plaintext[size:])
                    size += part
                    ended = not part
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    ended = True
                except ssl.SSLError as failure:
                    # The traceback refers to this frame, which refers to the exception:
                    # break the cycle.
                    error = failure.with_traceback(None)
                    break
            if outgoing.pending:
                self._answer()
            if size:
                self._deliver(plaintext[:size].tobytes())
            if self._closing:
                return
            if error is not None:
                self._fail(error)
                return
            if ended:
                if not self._tell_eof():
                    self.close()
                return
            if not (rest or incoming.pending or tls.pending()):
                break
        if self._closing or self._incoming is None:
            return
        if rest:
            self._incoming.write(rest)
        if self._eof_written and not self._notified:
            self._write_close_notify()

    def _deliver(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)
        else:
            feed(cast(asyncio.BufferedProtocol, protocol), data)

    def _answer(self) -> None:
        """Write what OpenSSL has made while reading: the answer to a KeyUpdate, or an
        alert."""
        assert self._outgoing is not None
        if self._writing_paused:
            self._answers += self._outgoing.pending
        self._flush()
        if self._answers > MAX_ANSWERS and not self._closing:
            self._fail("the peer asks for answers and does not read them")
            self.abort()

    def _tell_eof(self) -> bool:
        """Report the peer's end to the protocol; return whether we may still write."""
        if self._eof_received:
            return not self._closing
        self._eof_received = True
        return bool(cast(asyncio.Protocol, self._protocol).eof_received())

    # ---- The transport of the protocol above ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.BaseTransport``; the names are those of asyncio's TLS."""
        if name == "ssl_object":
            return default if self._tls is None else self._tls
        if name == "compression":
            return default if self._tls is None else self._tls.compression()
        extra = self._extra
        if name in extra:
            return extra[name]
        if self._tcp is None:
            return default
        return self._tcp.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._closing or self._tcp is None or self._tcp.is_closing()

    def is_reading(self) -> bool:
        """Whether what comes in is delivered."""
        return not (self._reading_paused or self.is_closing())

    def pause_reading(self) -> None:
        """Stop delivering until ``resume_reading``."""
        if not self._reading_paused and self._tcp is not None:
            self._reading_paused = True
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Continue delivering."""
        if self._reading_paused and self._tcp is not None:
            self._reading_paused = False
            self._tcp.resume_reading()
            # Deferred, because the caller may be inside its data_received().
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._tls is not None:
            try:
                self._read()
            except MemoryError as error:
                self._give_up(error)

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the bounds for ``pause_writing``, in bytes of ciphertext."""
        if self._tcp is not None:
            self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the bounds for ``pause_writing``."""
        return (0, 0) if self._tcp is None else self._tcp.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes of ciphertext the kernel has not accepted."""
        return 0 if self._tcp is None else self._tcp.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write ``data``."""
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing or not data:
            return
        tls, outgoing, tcp = self._tls, self._outgoing, self._tcp
        assert tls is not None and outgoing is not None and tcp is not None
        try:
            if isinstance(data, bytes) and len(data) <= _RECORD:
                tls.write(data)
                tcp.write(outgoing.read())
                return
            records = []
            with memoryview(data).cast("B") as view:
                for start in range(0, len(view), _RECORD):
                    with view[start : start + _RECORD] as part:
                        tls.write(part)
                    records.append(outgoing.read())
            tcp.write(b"".join(records))
        except ssl.SSLError as error:
            self._fail(error)

    def can_write_eof(self) -> bool:
        """Return True: ``write_eof`` is supported."""
        return True

    def write_eof(self) -> None:
        """End our half: send close_notify, then TCP's FIN."""
        if self._eof_written or self._closing:
            return
        self._eof_written = True
        # When it has written our close_notify, OpenSSL looks for the peer's.  If it
        # finds data instead, they can no longer be read: _read() handles that.
        if self._reading_paused or not (self._incoming and self._incoming.pending):
            self._write_close_notify()

    def _write_close_notify(self) -> None:
        self._notify()
        if self._tcp is not None:
            with contextlib.suppress(OSError):  # the peer may have reset it already
                self._tcp.write_eof()

    def _notify(self) -> None:
        if self._tls is None or self._notified:
            return
        self._notified = True
        # The peer's close_notify has not come, or TLS has failed before.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing is not None and self._outgoing.pending:
            assert self._tcp is not None
            self._tcp.write(self._outgoing.read())

    def close(self) -> None:
        """Close the connection when everything is written; stop delivering."""
        if self._closing:
            return
        self._closing = True
        if self._protocol is not None:
            self._notify()
        if self._tcp is not None:
            self._tcp.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closing = True
        # The loop reads for other connections before it says that this one is lost.
        self._tls = self._incoming = self._outgoing = None
        if self._tcp is not None:
            self._tcp.abort()


def feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Copy data into the buffer of a BufferedProtocol."""
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view))).cast("B")
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
