"""The protocol between a socket and a QUIC connection, and the streams over it.

The interface is aioquic's.  In addition, there is back-pressure: a writer's ``drain``
waits for the peer, and an unread reader stops the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Protocol, cast

from nghttp2py.asyncio.memory import count_bytes
from nghttp2py.asyncio.quic_log import EndLog
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.asyncio.waiters import Waiters
from nghttp2py.errors import printable
from nghttp2py.quic.addresses import plain_address
from nghttp2py.quic.connection import NetworkAddress, QuicConnection
from nghttp2py.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    PingAcknowledged,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from nghttp2py.quic.packet import QuicErrorCode, error_name

__all__ = [
    "QuicConnectionError",
    "QuicConnectionProtocol",
    "QuicRefusedError",
    "QuicStreamHandler",
    "Run",
]

# Concatenated datagrams, the peer's address, the two ECN bits of their IP headers, and
# the size of all but the last, which may be smaller.
Run = tuple[bytes, NetworkAddress, int, int]

QuicStreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]

# How many runs are sent in one turn of the loop.
MAX_BURSTS = 4

# A writer waits in drain() above the first of these, until it is at the second.
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024

# How often the end of a connection is tried for want of memory.
_ATTEMPTS = 3


class ConnectionOwner(Protocol):
    """A server's interface for one of its connections."""

    def handshake_completed(self) -> None: ...

    def connection_id_issued(self, connection_id: bytes) -> None: ...

    def connection_id_retired(self, connection_id: bytes) -> None: ...

    def connection_terminated(self) -> None:
        """Handle the end: the last call, after which the connection forgets its
        owner."""


class QuicConnectionProtocol(asyncio.DatagramProtocol):
    """Passes datagrams between a transport and a QuicConnection, and its events to
    :meth:`quic_event_received`, which a subclass overrides."""

    def __init__(
        self, quic: QuicConnection, stream_handler: QuicStreamHandler | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._quic = quic
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = asyncio.Event()
        self._connected = False
        self._terminated: ConnectionTerminated | None = None
        self._connected_waiter: asyncio.Future[None] | None = None
        self._ping_uids = itertools.count()
        self._ping_waiters: dict[int, asyncio.Future[None]] = {}
        self._streams: dict[int, _Stream] = {}
        self._paused: set[_Stream] = set()
        # Streams whose writers are closed, and whose end is not acknowledged.
        self._unsettled: set[_Stream] = set()
        self._settling = Waiters()
        # A server has one for all its connections.
        self._end_log: EndLog | None = None
        self._end_told = False
        # Whether abandon() has ended it.
        self.is_abandoned = False
        # A subclass may be written for aioquic's protocol, which gets one datagram at a
        # time.
        self._takes_datagrams = (
            type(self).datagram_received is not QuicConnectionProtocol.datagram_received
        )
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._transmit_task: asyncio.Handle | None = None
        self._stream_handler = stream_handler
        self._owner: ConnectionOwner | None = None

    def set_owner(self, owner: ConnectionOwner, log: EndLog) -> None:
        """Report the life of the connection to a server, and its end to the log that
        the server's connections share."""
        self._owner = owner
        self._end_log = log

    # Calls of the application.

    def change_connection_id(self) -> None:
        """Change the connection id of the peer that is used."""
        self._quic.change_connection_id()
        self.transmit()

    def close(
        self, error_code: int = QuicErrorCode.NO_ERROR, reason_phrase: str = ""
    ) -> None:
        """Close the connection."""
        self._quic.close(error_code=error_code, reason_phrase=reason_phrase)
        self.transmit()
        if self._quic.get_timer() is None:
            # It had not begun, and is over.
            self._process_events()

    def connect(self, addr: NetworkAddress, transmit: bool = True) -> None:
        """Start the handshake, once, at a client.

        Without ``transmit`` nothing is sent until something else is, which may then be
        part of the first packets.
        """
        self._quic.connect(addr, now=self._loop.time())
        if transmit:
            self.transmit()

    async def create_stream(
        self, is_unidirectional: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a stream; return its reader and its writer.

        Raises ``ConnectionError`` if the connection is over.
        """
        self._require_open()
        stream_id = self._quic.get_next_available_stream_id(
            is_unidirectional=is_unidirectional
        )
        # Two calls in a row are two streams.
        self._quic.send_stream_data(stream_id, b"")
        return self._create_stream(stream_id)

    def request_key_update(self) -> None:
        """Update the keys."""
        self._quic.request_key_update()
        self.transmit()

    async def ping(self) -> None:
        """Ping the peer and wait for its answer.

        Raises ``ConnectionError`` if the connection ends before it.
        """
        self._require_open()
        waiter = self._loop.create_future()
        uid = next(self._ping_uids)
        self._ping_waiters[uid] = waiter
        self._quic.send_ping(uid)
        self.transmit()
        await waiter

    def set_keep_alive(self, seconds: float | None) -> None:
        """Send a PING whenever nothing was sent for ``seconds``; ``None`` for never.

        With it the connection does not idle out while the peer answers; where a third
        of the idle timeout is shorter, PINGs are as often as that.  HTTP/3 does so
        while a request is open (RFC 9114, 5.1).  Raises ``TypeError`` unless
        ``seconds`` is a number, and ``ValueError`` unless it is positive.
        """
        self._quic.set_keep_alive(seconds)
        if self._connected:
            # Before, the timer would send what connect(transmit=False) holds back.
            self._set_timer()

    async def wait_closed(self) -> None:
        """Wait until the connection is over."""
        await self._closed.wait()

    def unsettled_streams(self) -> int:
        """Return the number of streams whose end was written and that the peer has not
        completely acknowledged."""
        return 0 if self._quic.closed else self._quic.unsettled_streams()

    async def wait_settled(self) -> None:
        """Wait until the peer has acknowledged every stream whose end was written.

        It ends with the connection, too.  There is no bound in time.
        """
        while self.unsettled_streams():
            await self._settling.wait()

    async def wait_connected(self) -> None:
        """Wait until the handshake is complete.

        Raises ``ConnectionError`` if it fails, and ``RuntimeError`` if another
        waits already.
        """
        if self._connected_waiter is not None:
            raise RuntimeError("Already awaiting connected")
        if self._connected:
            return
        self._require_open()
        self._connected_waiter = self._loop.create_future()
        try:
            await self._connected_waiter
        finally:
            self._connected_waiter = None

    def transmit(self) -> None:
        """Send what is queued, and set the timer.

        It is called when datagrams have arrived and when the timer has fired.  Call it
        after calls of the :class:`~nghttp2py.quic.connection.QuicConnection` itself.
        """
        if self._transmit_task is not None:
            self._transmit_task.cancel()
            self._transmit_task = None
        transport = self._transport
        if transport is None:
            if self._quic.close_event is not None:
                # What it says to the peer is lost; it ends.
                self._quic.datagrams_to_send(now=self._loop.time())
        elif transport.is_closing():
            # It is lost, but a connection that was closed has said so, and ends.
            self._quic.datagrams_to_send(now=self._loop.time())
        elif isinstance(transport, UDPTransport):
            self._send_bursts(transport)
        else:
            for data, addr in self._quic.datagrams_to_send(now=self._loop.time()):
                transport.sendto(data, addr)
        self._set_timer()
        for stream in list(self._unsettled):
            stream.check_acknowledged()
        if self._settling:
            self._settling.wake()
        if not self._end_told and self._quic.closed:
            self._tell_end()

    def _tell_end(self) -> None:
        self._end_told = True
        event = self._quic.close_event
        if event is not None:
            log = self._end_log or EndLog()
            log.ended(self._peer(), event, self._quic.closed_by_peer)

    def _peer(self) -> NetworkAddress:
        return self._quic.get_peer_address()

    def _send_bursts(self, transport: UDPTransport) -> None:
        """Send, in pieces, so that the peer has the first while we make the next."""
        now = self._loop.time()
        for _ in range(MAX_BURSTS):
            # What the socket does not take waits in the connection.
            if not transport.writable:
                return
            runs = self._quic.runs_to_send(now)
            if not runs:
                return
            if refused := transport.send_runs(runs):
                self._quic.datagram_refused(refused)
        # Other callbacks of the loop get their turn.
        self._transmit_soon()

    # Calls of a server.

    def drain_begun(self) -> None:
        """Handle that the server accepts no more connections, and waits for the end of
        this one: a protocol that can should ask its peer to end.

        Here this is a no-op: QUIC itself has no such frame.
        """

    def abandon(self) -> None:
        """Abort the connection for want of memory: the one that needs it is the one
        that ends.

        The peer gets no notice: its idle timeout or a stateless reset ends it there.
        """
        if self._terminated is not None:
            return
        self.is_abandoned = True
        peer = self._quic.get_peer_address()
        self._end_told = True
        self._quic.abandon()
        # Its memory is free now, but others may use it meanwhile, so some attempts may
        # fail.
        for _ in range(_ATTEMPTS):
            try:
                self._set_timer()
                event = ConnectionTerminated(
                    QuicErrorCode.INTERNAL_ERROR, 0, "out of memory"
                )
                self._handle_termination(event)
                self.quic_event_received(event)
                break
            except MemoryError:
                continue  # what it has ended so far is not ended again
        (self._end_log or EndLog()).memory_wanted(peer, "the connection is given up")

    # Calls of asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        # Nothing waits for the socket any more.
        self.transmit()

    def datagram_received(self, data: bytes, addr: NetworkAddress) -> None:
        self._quic.receive_datagram(data, addr, now=self._loop.time())
        self._react()

    def runs_received(self, runs: list[Run]) -> None:
        """Handle runs that have arrived at once."""
        count_bytes(sum(len(run[0]) for run in runs))
        now = self._loop.time()
        for i, (data, addr, ecn, segment) in enumerate(runs):
            if self._takes_datagrams:
                for start in range(0, len(data), segment):
                    self.datagram_received(data[start : start + segment], addr)
                continue
            if i and isinstance(self._transport, UDPTransport):
                # A peer that sends that much waits for acknowledgements.
                self._send_bursts(self._transport)
            self._quic.receive_run(data, addr, now, segment=segment, ecn=ecn)
        self._react()

    def resume_writing(self) -> None:
        """Continue sending: the socket accepts datagrams again."""
        self._transmit_again()

    def refused(self) -> None:
        """End an attempt to connect: ICMP says that nothing listens at the address.

        Such a message can be forged, but only by who knows both ports, and nothing has
        come from the peer yet.
        """
        if self._terminated is not None:
            return
        host, port = plain_address(self._peer())[:2]
        self._end_told = True
        self._quic.abandon()
        self._set_timer()
        event = ConnectionTerminated(
            QuicErrorCode.CONNECTION_REFUSED,
            0,
            f"nothing listens at {host}, port {port} of UDP",
        )
        _wake(self._connected_waiter, QuicRefusedError(event))
        self._handle_termination(event)
        self.quic_event_received(event)

    def error_received(self, exc: Exception) -> None:
        """Ignore other ICMP errors: they can be forged (RFC 9000, 14.2.1).

        A client's connection for which there is not enough memory ends.
        """
        if isinstance(exc, MemoryError):
            self.abandon()

    # What a subclass overrides.

    def quic_event_received(self, event: QuicEvent) -> None:
        """Handle an event.

        This feeds the readers of streams, and calls the stream handler for those
        that the peer opens.
        """
        if isinstance(event, StreamDataReceived):
            stream = self._streams.get(event.stream_id)
            if stream is None:
                # A writer without a reference would close the stream.
                if self._stream_handler is None:
                    stream = self._add_stream(event.stream_id)
                else:
                    reader, writer = self._create_stream(event.stream_id)
                    stream = self._streams[event.stream_id]
                    self._stream_handler(reader, writer)
            stream.data_received(event.data, event.end_stream)
        elif isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.reset_received(event.error_code)
        elif isinstance(event, StopSendingReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.stop_received(event.error_code)

    # Our own.

    def _require_open(self) -> None:
        if self._terminated is not None:
            raise QuicConnectionError(self._terminated)

    def _create_stream(
        self, stream_id: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stream = self._add_stream(stream_id)
        reader = stream.reader
        return reader, asyncio.StreamWriter(stream, stream.protocol, reader, self._loop)

    def _add_stream(self, stream_id: int) -> _Stream:
        stream = _Stream(self, stream_id, asyncio.StreamReader(loop=self._loop))
        self._streams[stream_id] = stream
        return stream

    def _set_timer(self) -> None:
        """Set the timer to the connection's, unless it is set to an earlier time.

        Nearly every packet moves the connection's timer to a later time: it costs less
        to look again when the earlier time has come.
        """
        due = self._find_due()
        at = self._timer_at
        if at is not None:
            if due is not None and due >= at:
                return
            cast(asyncio.TimerHandle, self._timer).cancel()
            # There may be no memory for the next.
            self._timer = self._timer_at = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._handle_timer)
        self._timer_at = due

    def _find_due(self) -> float | None:
        """Return when the connection's timer is due, or ``None``."""
        if self._transport is None and not self._quic.closed:
            # The first packet is due at once, and would stay so.
            return None
        return self._quic.get_timer()

    def _handle_timer(self) -> None:
        now = max(cast(float, self._timer_at), self._loop.time())
        self._timer = None
        self._timer_at = None
        due = self._find_due()
        if due is None or due > now:
            self._set_timer()
            return
        try:
            self._quic.handle_timer(now=now)
            self._react()
        except MemoryError:
            self.abandon()

    def _react(self) -> None:
        try:
            self._process_events()
        finally:
            # Otherwise an exception in the handler would leave the timer unset.
            self.transmit()

    def _process_events(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                pass  # the most frequent
            elif isinstance(event, ConnectionIdIssued):
                if self._owner is not None:
                    self._owner.connection_id_issued(event.connection_id)
            elif isinstance(event, ConnectionIdRetired):
                if self._owner is not None:
                    self._owner.connection_id_retired(event.connection_id)
            elif isinstance(event, HandshakeCompleted):
                self._connected = True
                if self._owner is not None:
                    self._owner.handshake_completed()
                _wake(self._connected_waiter, None)
            elif isinstance(event, PingAcknowledged):
                _wake(self._ping_waiters.pop(event.uid, None), None)
            elif isinstance(event, ConnectionTerminated):
                self._handle_termination(event)
            self.quic_event_received(event)
        for stream in list(self._paused):
            stream.resume_writing()

    def _handle_termination(self, event: ConnectionTerminated) -> None:
        self._terminated = event
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.connection_terminated()
        for waiter in (self._connected_waiter, *self._ping_waiters.values()):
            _wake(waiter, QuicConnectionError(event))
        self._ping_waiters.clear()
        for stream in list(self._streams.values()):
            stream.connection_terminated(event)
        for stream in list(self._unsettled):
            stream.connection_terminated(event)
        self._settling.wake()
        self._closed.set()
        if self._quic.configuration.is_client and isinstance(
            self._transport, UDPTransport
        ):
            self._transport.close()  # it carries this connection alone

    def _transmit_soon(self) -> None:
        if self._transmit_task is None:
            self._transmit_task = self._loop.call_soon(self._transmit_again)

    def _transmit_again(self) -> None:
        try:
            self.transmit()
        except MemoryError:
            self.abandon()


class QuicConnectionError(ConnectionError):
    """A connection is over, or was never made: ``event`` says how it ended."""

    def __init__(self, event: ConnectionTerminated) -> None:
        super().__init__(
            printable(event.reason_phrase)
            or (
                f"the connection was closed: {event.error_code:#x}"
                if event.frame_type is None
                else f"the connection was ended: {error_name(event.error_code)}"
            )
        )
        self.event = event


class QuicRefusedError(QuicConnectionError, ConnectionRefusedError):
    """Nothing listens at the address, as the system reports over TCP, too."""


def _wake(waiter: asyncio.Future[None] | None, error: Exception | None) -> None:
    if waiter is None or waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
        # The waiter may have been cancelled: mark the exception retrieved.
        waiter.exception()


class _StreamProtocol(asyncio.StreamReaderProtocol):
    """The protocol of a stream's writer, with two halves that end independently, while
    asyncio's protocols have one end."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._written = asyncio.get_running_loop().create_future()

    def lose(self, error: Exception, lost: bool) -> None:
        """End the writing half; ``lost`` is whether bytes are lost with it."""
        # Not our own connection_lost(): that would end the reader, too.
        asyncio.streams.FlowControlMixin.connection_lost(self, error)
        if lost:
            _wake(self._written, error)
        self.end()

    def end(self) -> None:
        """Handle that the writing half is closed."""
        if not self._written.done():
            self._written.set_result(None)

    def _get_close_waiter(self, stream: object) -> asyncio.Future[None]:
        return self._written


class _Stream(asyncio.Transport):
    """The transport of a stream's reader and writer."""

    def __init__(
        self,
        connection: QuicConnectionProtocol,
        stream_id: int,
        reader: asyncio.StreamReader,
    ) -> None:
        super().__init__({"stream_id": stream_id})
        self._connection: QuicConnectionProtocol | None = connection
        self._quic: QuicConnection | None = connection._quic
        self._stream_id = stream_id
        # A stream on which only the peer sends has no writing half to close.
        self._closing = not connection._quic.stream_can_send(stream_id)
        self._ended = False
        self._wrote = False
        self.reader = reader
        self.protocol = _StreamProtocol(reader)
        self.protocol.connection_made(self)

    # From the peer.

    def data_received(self, data: bytes, end_stream: bool) -> None:
        if self._ended:
            return
        if data:
            self.reader.feed_data(data)
        if end_stream:
            self._ended = True
            self.reader.feed_eof()
            self._forget()

    def reset_received(self, error_code: int) -> None:
        if not self._ended:
            self._ended = True
            self.reader.set_exception(
                ConnectionResetError(f"the peer has reset the stream: {error_code:#x}")
            )
            self._forget()

    def stop_received(self, error_code: int) -> None:
        """STOP_SENDING was received: fail every pending drain()."""
        self._closing = True
        self._lose(
            ConnectionResetError(f"the peer has stopped the stream: {error_code:#x}"),
            self.get_write_buffer_size() > 0,
        )

    def connection_terminated(self, event: ConnectionTerminated) -> None:
        """Handle the end of the connection."""
        error = QuicConnectionError(event) if event.error_code else None
        self._closing = True
        if not self._ended:
            self._ended = True
            if error is None:
                self.reader.feed_eof()
            else:
                self.reader.set_exception(error)
        self._lose(
            error or ConnectionResetError("the connection is closed"),
            self._wrote and error is not None,
        )

    def _lose(self, error: Exception, lost: bool) -> None:
        """Make drain() raise, now and later, and wait_closed() if bytes are lost."""
        connection = self._connection
        if connection is None:
            return
        connection._paused.discard(self)
        self.protocol.lose(error, lost or self in connection._unsettled)
        connection._unsettled.discard(self)
        self._forget()

    def _forget(self) -> None:
        """Leave the connection when neither half needs it any more."""
        if (
            self._connection is not None
            and self._quic is not None
            and self._ended
            and self not in self._connection._paused
            and (self._closing or not self._quic.stream_can_send(self._stream_id))
        ):
            self._connection._streams.pop(self._stream_id, None)
            if self not in self._connection._unsettled:
                self._leave()

    def _leave(self) -> None:
        """Drop the reference to the connection: asyncio's readers and writers are
        reference cycles, and an ended connection must not wait for the collector."""
        self._connection = None
        self._quic = None

    # For the reader.

    def is_reading(self) -> bool:
        return not self._ended

    def pause_reading(self) -> None:
        if self._quic is not None:
            self._quic.pause_reading(self._stream_id)

    def resume_reading(self) -> None:
        if self._quic is not None and self._connection is not None:
            self._quic.resume_reading(self._stream_id)
            self._connection._transmit_soon()

    # For the writer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._quic is None or self._connection is None:
            return
        self._quic.send_stream_data(self._stream_id, data)
        self._wrote = True
        if (
            self not in self._connection._paused
            and self.get_write_buffer_size() > HIGH_WATER
        ):
            self._connection._paused.add(self)
            self.protocol.pause_writing()
        self._connection._transmit_soon()

    def get_write_buffer_size(self) -> int:
        if self._quic is None:
            return 0
        return self._quic.queued_data(self._stream_id)

    def resume_writing(self) -> None:
        if self._connection is None:
            return
        if self.get_write_buffer_size() <= LOW_WATER:
            self._connection._paused.discard(self)
            self.protocol.resume_writing()
            self._forget()

    def can_write_eof(self) -> bool:
        return self._quic is not None and self._quic.stream_can_send(self._stream_id)

    def write_eof(self) -> None:
        if self._closing or self._quic is None or self._connection is None:
            return
        self._closing = True
        self._quic.send_stream_data(self._stream_id, b"", end_stream=True)
        self._connection._unsettled.add(self)
        self._connection._transmit_soon()
        self._forget()

    def check_acknowledged(self) -> None:
        """End wait_closed() if the peer has acknowledged all."""
        if self._quic is None or self._connection is None or self._quic.closed:
            return
        if self._quic.stream_settled(self._stream_id):
            self._connection._unsettled.discard(self)
            self.protocol.end()
            self._forget()

    def close(self) -> None:
        if self.can_write_eof():
            self.write_eof()
        self._closing = True
        if self._connection is None or self not in self._connection._unsettled:
            self.protocol.end()

    def is_closing(self) -> bool:
        if self._closing or self._connection is None:
            return True
        transport = self._connection._transport
        return self._connection._terminated is not None or (
            transport is not None and transport.is_closing()
        )

    def abort(self) -> None:
        """Reset the stream."""
        self._closing = True
        self.protocol.end()
        if self._quic is None or self._connection is None:
            return
        self._connection._unsettled.discard(self)
        with contextlib.suppress(ValueError):
            self._quic.reset_stream(self._stream_id, 0)
        self._connection._transmit_soon()
        self._forget()
